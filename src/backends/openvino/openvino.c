/* openvino.c: the OpenVINO engine's table, open and close. */
#include <dlfcn.h>
#include <stdlib.h>

#include "ov.h"

static void engine_close(struct xi_engine *engine)
{
    if (engine == NULL)
        return;
    if (engine->core != NULL)
        engine->lib.ov_core_free(engine->core);
    if (engine->lib.handle != NULL)
        dlclose(engine->lib.handle);
    free(engine);
}

static int engine_open(const struct xi_engine_config *config, struct xi_engine **ret, char *text,
                       size_t bytes)
{
    struct ov_err err = {text, bytes};
    struct xi_engine *engine = calloc(1, sizeof(*engine));
    ov_status_e status;
    int rc;

    if (engine == NULL)
        return ov_fail(&err, XI_ENGINE_NO_MEMORY, "no memory for the engine");
    rc = ov_library_open(config != NULL ? config->library_dir : NULL, &engine->lib, NULL, &err);
    if (rc != XI_ENGINE_OK)
        goto out;
    status = engine->lib.ov_core_create(&engine->core);
    if (status != OK) {
        engine->core = NULL;
        rc = ov_vendor_fail(&engine->lib, status, XI_ENGINE_NOT_PRESENT, "OpenVINO does not start",
                            NULL, &err);
        goto out;
    }
    if (config != NULL) {
        engine->log = config->log;
        engine->log_ctx = config->log_ctx;
    }
    *ret = engine;
    engine = NULL;
out:
    engine_close(engine);
    return rc;
}

static int model_stats(struct xi_engine_model *model, struct xi_engine_stats *ret)
{
    if (ret->size < sizeof(*ret))
        return XI_ENGINE_UNSUPPORTED;
    ret->bytes_held = 0; /* the vendor does not say */
    ret->busy_ns = atomic_load(&model->busy_ns);
    ret->copied_bytes = 0;
    return XI_ENGINE_OK;
}

static const struct xi_engine_table table = {
    .size = sizeof(table),
    .major = XI_ENGINE_MAJOR,
    .minor = XI_ENGINE_MINOR,
    .name = "openvino",
    .probe = ov_probe,
    .open = engine_open,
    .close = engine_close,
    .load = ov_load,
    .unload = ov_unload,
    .port = ov_port,
    .request_new = ov_request_new,
    .request_free = ov_request_free,
    .bind = ov_bind,
    .run = ov_run,
    .output = ov_output,
    .cancel = ov_cancel,
    .stats = model_stats,
};

const struct xi_engine_table *xi_engine_entry(uint16_t host_major, uint16_t host_minor)
{
    (void)host_minor;
    return host_major == XI_ENGINE_MAJOR ? &table : NULL;
}
