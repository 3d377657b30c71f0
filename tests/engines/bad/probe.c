/* Built twice: probecrash dies in probe, probehang (PROBE_HANGS) never returns from it. The other
 * calls are there so that nothing else is wrong with them. */
#include <unistd.h>

#include "xinfer/engine.h"

static int engine_probe(const struct xi_engine_config *config, struct xi_engine_probe *out,
                        char *err, size_t err_bytes)
{
    (void)config;
    (void)out;
    (void)err;
    (void)err_bytes;
#ifdef PROBE_HANGS
    while (pause() != 0)
        ;
#else
    volatile uintptr_t nowhere = 8;
    *(volatile int *)nowhere = 1;
#endif
    return XI_ENGINE_OK;
}

static int engine_open(const struct xi_engine_config *config, struct xi_engine **ret, char *err,
                       size_t err_bytes)
{
    (void)config;
    (void)ret;
    (void)err;
    (void)err_bytes;
    return XI_ENGINE_NOT_PRESENT;
}

static void engine_close(struct xi_engine *engine)
{
    (void)engine;
}

static int engine_load(struct xi_engine *engine, const struct xi_engine_source *source,
                       const struct xi_engine_options *options, struct xi_engine_model **ret,
                       char *err, size_t err_bytes)
{
    (void)engine;
    (void)source;
    (void)options;
    (void)ret;
    (void)err;
    (void)err_bytes;
    return XI_ENGINE_UNSUPPORTED;
}

static void model_unload(struct xi_engine_model *model)
{
    (void)model;
}

static const struct xi_port *model_port(struct xi_engine_model *model, int direction,
                                        uint32_t index)
{
    (void)model;
    (void)direction;
    (void)index;
    return NULL;
}

static int request_new(struct xi_engine_model *model, struct xi_engine_request **ret, char *err,
                       size_t err_bytes)
{
    (void)model;
    (void)ret;
    (void)err;
    (void)err_bytes;
    return XI_ENGINE_UNSUPPORTED;
}

static void request_free(struct xi_engine_request *request)
{
    (void)request;
}

static int request_bind(struct xi_engine_request *request, int direction, uint32_t index,
                        const struct xi_tensor *tensor, char *err, size_t err_bytes)
{
    (void)request;
    (void)direction;
    (void)index;
    (void)tensor;
    (void)err;
    (void)err_bytes;
    return XI_ENGINE_UNSUPPORTED;
}

static int request_run(struct xi_engine_request *request, uint64_t deadline_ns, char *err,
                       size_t err_bytes)
{
    (void)request;
    (void)deadline_ns;
    (void)err;
    (void)err_bytes;
    return XI_ENGINE_UNSUPPORTED;
}

static int request_output(struct xi_engine_request *request, uint32_t index, struct xi_tensor *ret,
                          char *err, size_t err_bytes)
{
    (void)request;
    (void)index;
    (void)ret;
    (void)err;
    (void)err_bytes;
    return XI_ENGINE_UNSUPPORTED;
}

static const struct xi_engine_table table = {.size = sizeof(table),
                                             .major = XI_ENGINE_MAJOR,
                                             .minor = XI_ENGINE_MINOR,
                                             .name = PROBE_NAME,
                                             .probe = engine_probe,
                                             .open = engine_open,
                                             .close = engine_close,
                                             .load = engine_load,
                                             .unload = model_unload,
                                             .port = model_port,
                                             .request_new = request_new,
                                             .request_free = request_free,
                                             .bind = request_bind,
                                             .run = request_run,
                                             .output = request_output};

const struct xi_engine_table *xi_engine_entry(uint16_t host_major, uint16_t host_minor)
{
    (void)host_minor;
    return host_major == XI_ENGINE_MAJOR ? &table : NULL;
}
