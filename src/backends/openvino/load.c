/* load.c: a model file to a compiled model and its ports. */
#define _GNU_SOURCE
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ov.h"

#define MEMORY_MODEL_MAX (2ull << 30) /* protobuf's own limit */
#define PROPERTIES_MAX   16

/* Settings a package may give; the rest is the host's business (threads, precision, folders). */
static const char *const allowed_keys[] = {
    "PERFORMANCE_HINT",
    "EXECUTION_MODE_HINT",
    "ENABLE_HYPER_THREADING",
    "SCHEDULING_CORE_TYPE",
    "DYNAMIC_QUANTIZATION_GROUP_SIZE",
    "KV_CACHE_PRECISION",
};

static const struct {
    const char *format, *extension;
} formats[] = {{"onnx", ".onnx"}, {"openvino-ir", ".xml"}, {"tflite", ".tflite"}};

static const struct {
    uint32_t dtype;
    ov_element_type_e type;
} types[] = {
    {XI_DT_BOOL, BOOLEAN}, {XI_DT_UINT8, U8}, {XI_DT_UINT16, U16}, {XI_DT_UINT32, U32},
    {XI_DT_UINT64, U64},   {XI_DT_INT8, I8},  {XI_DT_INT16, I16},  {XI_DT_INT32, I32},
    {XI_DT_INT64, I64},    {XI_DT_FP16, F16}, {XI_DT_FP32, F32},   {XI_DT_FP64, F64},
    {XI_DT_BF16, BF16},
};

int ov_type_from_dtype(uint32_t dtype)
{
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++)
        if (types[i].dtype == dtype)
            return (int)types[i].type;
    return -1;
}

uint32_t ov_type_to_dtype(ov_element_type_e type)
{
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++)
        if (types[i].type == type)
            return types[i].dtype;
    return XI_DT_UNKNOWN;
}

/* ---- what is asked for ---- */

struct settings {
    char device[32];
    char threads[16], streams[16];
    uint32_t copies;
    ov_property_t list[PROPERTIES_MAX];
    size_t n;
};

static void set(struct settings *s, const char *key, const char *value)
{
    s->list[s->n].key = key;
    s->list[s->n++].value = value;
}

/* "cpu" is "CPU"; combinations like "AUTO:GPU,CPU" are the daemon's business, not the engine's. */
static int set_device(const struct xi_engine *engine, struct settings *s, const char *device,
                      const struct ov_err *err)
{
    char *name = NULL;
    size_t n = 0;

    if (device == NULL || device[0] == '\0')
        device = "CPU";
    while (device[n] != '\0' && n + 1 < sizeof(s->device) &&
           (isalnum((unsigned char)device[n]) || device[n] == '.')) {
        s->device[n] = (char)toupper((unsigned char)device[n]);
        n++;
    }
    if (device[n] != '\0')
        return ov_fail(err, XI_ENGINE_UNSUPPORTED, "\"%.40s\" is not a device like CPU or GPU.0",
                       device);
    s->device[n] = '\0';
    if (engine->lib.ov_core_get_property(engine->core, s->device, "FULL_DEVICE_NAME", &name) != OK)
        return ov_fail(err, XI_ENGINE_NOT_PRESENT, "there is no device \"%s\" here", s->device);
    engine->lib.ov_free(name);
    return XI_ENGINE_OK;
}

/* Asked for f16 where the device lacks it, OpenVINO takes bf16, which keeps three digits less. */
static int has_half(const struct xi_engine *engine, const char *device)
{
    char *can = NULL;
    int has = 0;

    if (engine->lib.ov_core_get_property(engine->core, device, "OPTIMIZATION_CAPABILITIES", &can) ==
            OK &&
        can != NULL) {
        has = strstr(can, "FP16") != NULL;
        engine->lib.ov_free(can);
    }
    return has;
}

/* Left alone, OpenVINO computes in bf16 where the CPU has it: the digits would depend on the
 * machine. i8 is in the model itself; what is left of it is computed in f32. */
static int set_precision(const struct xi_engine *engine, struct settings *s, const char *precision,
                         const struct ov_err *err)
{
    static const char *const known[] = {"f32", "f16", "bf16"};

    if (precision == NULL || precision[0] == '\0' || strcmp(precision, "i8") == 0)
        precision = "f32";
    if (strcmp(precision, "f16") == 0 && !has_half(engine, s->device)) {
        if (engine->log != NULL)
            engine->log(engine->log_ctx, XI_ENGINE_INFO,
                        "precision f16 is not in this device: computing in f32");
        precision = "f32";
    }
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
        if (strcmp(known[i], precision) == 0) {
            set(s, "INFERENCE_PRECISION_HINT", known[i]);
            return XI_ENGINE_OK;
        }
    return ov_fail(err, XI_ENGINE_UNSUPPORTED, "precision \"%.20s\" is none of f32, f16, bf16, i8",
                   precision);
}

static int set_keys(struct settings *s, const struct xi_engine_options *options,
                    const struct ov_err *err)
{
    size_t n_allowed = sizeof(allowed_keys) / sizeof(allowed_keys[0]);

    if (options->n_keys > n_allowed)
        return ov_fail(err, XI_ENGINE_UNSUPPORTED, "more than %zu engine options", n_allowed);
    for (uint32_t i = 0; i < options->n_keys; i++) {
        size_t k = 0;
        while (k < n_allowed && strcmp(allowed_keys[k], options->keys[i].key) != 0)
            k++;
        if (k == n_allowed)
            return ov_fail(err, XI_ENGINE_UNSUPPORTED, "engine option \"%.40s\" is not allowed",
                           options->keys[i].key);
        set(s, allowed_keys[k], options->keys[i].value);
    }
    return XI_ENGINE_OK;
}

static int make_settings(const struct xi_engine *engine, const struct xi_engine_options *options,
                         struct settings *ret, const struct ov_err *err)
{
    static const struct xi_engine_options none = {.size = sizeof(none)};
    const struct xi_engine_options *o = options != NULL ? options : &none;
    uint32_t streams = o->streams > 0 ? o->streams : 1, threads = o->threads > 0 ? o->threads : 1;
    int rc = set_device(engine, ret, o->device, err);

    if (rc != XI_ENGINE_OK)
        return rc;
    if (streams > 256 || threads > 256)
        return ov_fail(err, XI_ENGINE_UNSUPPORTED, "%u threads and %u streams: at most 256 each",
                       threads, streams);
    /* With one stream a run computes in its caller's thread, whose core and nice level then hold
     * for it; with several it always waits for threads of the vendor's. Each stream has its own
     * copy of the weights in either case (at the latest when it comes out of the cache). */
    if (strcmp(ret->device, "CPU") == 0) {
        ret->copies = streams;
        streams = 1;
    }
    snprintf(ret->streams, sizeof(ret->streams), "%u", streams);
    snprintf(ret->threads, sizeof(ret->threads), "%u", threads * streams);
    set(ret, "NUM_STREAMS", ret->streams);
    if (strcmp(ret->device, "CPU") == 0) {
        set(ret, "INFERENCE_NUM_THREADS", ret->threads);
        /* Pinned, every one-thread model lands on the same core. */
        set(ret, "ENABLE_CPU_PINNING", "NO");
    }
    if (o->cache_dir != NULL && o->cache_dir[0] != '\0')
        set(ret, "CACHE_DIR", o->cache_dir);
    rc = set_precision(engine, ret, o->precision, err);
    return rc != XI_ENGINE_OK ? rc : set_keys(ret, o, err);
}

/* OpenVINO tells formats by the file's extension, so it must agree with what the package says. */
static int check_format(const struct xi_engine_source *source, const struct ov_err *err)
{
    const char *format = source->format != NULL ? source->format : "";
    size_t i = 0, n = sizeof(formats) / sizeof(formats[0]), length, extension;

    while (i < n && strcmp(formats[i].format, format) != 0)
        i++;
    if (i == n && format[0] != '\0')
        return ov_fail(err, XI_ENGINE_UNSUPPORTED,
                       "format \"%.40s\" is none of onnx, openvino-ir, tflite", format);
    if (source->path == NULL)
        return i == 0 ? XI_ENGINE_OK
                      : ov_fail(err, XI_ENGINE_UNSUPPORTED,
                                "only the format onnx can be loaded from memory");
    if (i == n)
        return XI_ENGINE_OK;
    length = strlen(source->path);
    extension = strlen(formats[i].extension);
    if (length < extension || strcmp(source->path + length - extension, formats[i].extension) != 0)
        return ov_fail(err, XI_ENGINE_UNSUPPORTED, "a file of format %s must end in %s", format,
                       formats[i].extension);
    if (access(source->path, R_OK) != 0)
        return ov_fail(err, XI_ENGINE_UNSUPPORTED, "the model can't be opened: %s",
                       strerror(errno));
    return XI_ENGINE_OK;
}

/* ---- reading ---- */

static int read_fd(int fd, char **ret, uint64_t *ret_bytes, const struct ov_err *err)
{
    struct stat st;
    uint64_t used = 0;
    char *data;

    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) || (uint64_t)st.st_size > MEMORY_MODEL_MAX)
        return ov_fail(err, XI_ENGINE_UNSUPPORTED, "the model is no file of at most %llu bytes",
                       MEMORY_MODEL_MAX);
    data = malloc((size_t)st.st_size + 1);
    if (data == NULL)
        return ov_fail(err, XI_ENGINE_NO_MEMORY, "no memory for a model of %lld bytes",
                       (long long)st.st_size);
    while (used < (uint64_t)st.st_size) {
        ssize_t n = pread(fd, data + used, (size_t)st.st_size - used, (off_t)used);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            free(data);
            return ov_fail(err, XI_ENGINE_UNSUPPORTED, "the model can't be read: %s",
                           n < 0 ? strerror(errno) : "it ends early");
        }
        used += (uint64_t)n;
    }
    *ret = data;
    *ret_bytes = used;
    return XI_ENGINE_OK;
}

static int read_model(struct xi_engine *engine, const struct xi_engine_source *source,
                      ov_model_t **ret, const struct ov_err *err)
{
    const struct ov_library *lib = &engine->lib;
    const char *data = source->data;
    uint64_t bytes = source->bytes;
    char *own = NULL;
    ov_status_e status;

    if (source->path != NULL) {
        status = lib->ov_core_read_model(engine->core, source->path, NULL, ret);
    } else {
        if (data == NULL) {
            int rc = read_fd(source->fd, &own, &bytes, err);
            if (rc != XI_ENGINE_OK)
                return rc;
            data = own;
        }
        status = lib->ov_core_read_model_from_memory_buffer(engine->core, data, (size_t)bytes, NULL,
                                                            ret);
        free(own);
    }
    if (status == OK)
        return XI_ENGINE_OK;
    *ret = NULL;
    return ov_vendor_fail(lib, status, XI_ENGINE_UNSUPPORTED, "the model can't be read",
                          source->path, err);
}

/* ---- largest shapes ---- */

struct bounds {
    size_t n;
    size_t index[OV_PORTS_MAX];
    ov_partial_shape_t shapes[OV_PORTS_MAX];
    ov_dimension_t dims[OV_PORTS_MAX][XI_MAX_RANK];
};

/* Free dimensions become "up to max"; fixed ones stay and must not be under what is asked. */
static int bound_input(const ov_partial_shape_t *now, const struct xi_tensor *max,
                       ov_dimension_t dims[XI_MAX_RANK])
{
    int any_rank = now->rank.min != now->rank.max;

    if (max->rank < 0 || max->rank > XI_MAX_RANK || (!any_rank && now->rank.max != max->rank))
        return -1;
    for (int i = 0; i < max->rank; i++) {
        dims[i] = any_rank ? (ov_dimension_t){1, -1} : now->dims[i];
        if (max->dims[i] < 0 || dims[i].min == dims[i].max) {
            if (max->dims[i] >= 0 && max->dims[i] != dims[i].max)
                return -1;
            continue;
        }
        if (max->dims[i] < dims[i].min || (dims[i].max >= 0 && max->dims[i] > dims[i].max))
            return -1;
        dims[i].max = max->dims[i];
    }
    return 0;
}

static int bound_one(const struct ov_library *lib, const ov_model_t *model, uint32_t index,
                     const struct xi_tensor *max, struct bounds *b)
{
    ov_output_const_port_t *port = NULL;
    ov_partial_shape_t now = {{0, 0}, NULL};
    int rc = -1;

    if (lib->ov_model_const_input_by_index(model, index, &port) != OK)
        return -1;
    if (lib->ov_port_get_partial_shape(port, &now) == OK) {
        rc = bound_input(&now, max, b->dims[b->n]);
        lib->ov_partial_shape_free(&now);
    }
    lib->ov_output_const_port_free(port);
    if (rc != 0)
        return rc;
    b->index[b->n] = index;
    b->shapes[b->n].rank = (ov_rank_t){max->rank, max->rank};
    b->shapes[b->n].dims = b->dims[b->n];
    b->n++;
    return 0;
}

static int bound_shapes(const struct ov_library *lib, const ov_model_t *model,
                        const struct xi_engine_options *options, const struct ov_err *err)
{
    struct bounds *b = NULL;
    size_t n = 0;
    ov_status_e status;
    int rc = XI_ENGINE_OK;

    if (lib->ov_model_inputs_size(model, &n) != OK || options->n_max_shapes != n ||
        n > OV_PORTS_MAX)
        return ov_fail(err, XI_ENGINE_UNSUPPORTED, "%u largest shapes for %zu inputs",
                       options->n_max_shapes, n);
    b = calloc(1, sizeof(*b));
    if (b == NULL)
        return ov_fail(err, XI_ENGINE_NO_MEMORY, "no memory for the largest shapes");
    for (uint32_t i = 0; i < options->n_max_shapes; i++)
        if (bound_one(lib, model, i, &options->max_shapes[i], b) != 0) {
            rc = ov_fail(err, XI_ENGINE_UNSUPPORTED,
                         "the largest shape given for input %u is not possible", i);
            goto out;
        }
    status = lib->ov_model_reshape_by_port_indexes(model, b->index, b->shapes, b->n);
    if (status != OK)
        rc = ov_vendor_fail(lib, status, XI_ENGINE_UNSUPPORTED,
                            "the model can't take the largest shapes", NULL, err);
out:
    free(b);
    return rc;
}

/* ---- compiling ---- */

/* From the file in one step where nothing must be changed (read is NULL): then the compiled-model
 * cache spares reading it at all. */
static int compile_copies(struct xi_engine_model *model, const struct xi_engine_source *source,
                          const ov_model_t *read, const struct settings *s,
                          const struct ov_err *err)
{
    struct xi_engine *engine = model->engine;
    const struct ov_library *lib = &engine->lib;
    ov_status_e status = OK;

    model->compiled = calloc(s->copies, sizeof(ov_compiled_model_t *));
    if (model->compiled == NULL)
        return ov_fail(err, XI_ENGINE_NO_MEMORY, "no memory for the model");
    while (model->n_compiled < s->copies) {
        ov_compiled_model_t **ret = &model->compiled[model->n_compiled];
        status = read == NULL ? lib->ov_core_compile_model_from_file_props(
                                    engine->core, source->path, s->device, s->n, s->list, ret)
                              : lib->ov_core_compile_model_props(engine->core, read, s->device,
                                                                 s->n, s->list, ret);
        if (status != OK)
            return ov_vendor_fail(lib, status, XI_ENGINE_UNSUPPORTED, "the model can't be loaded",
                                  source->path, err);
        model->n_compiled++;
    }
    return XI_ENGINE_OK;
}

static int compile(struct xi_engine_model *model, const struct xi_engine_source *source,
                   const struct xi_engine_options *options, const struct ov_err *err)
{
    struct xi_engine *engine = model->engine;
    const struct ov_library *lib = &engine->lib;
    struct settings s = {.copies = 1};
    ov_model_t *read = NULL;
    int bounded = options != NULL && options->max_shapes != NULL && options->n_max_shapes > 0;
    int rc = make_settings(engine, options, &s, err);

    if (rc != XI_ENGINE_OK)
        return rc;
    if (source->path == NULL || bounded)
        rc = read_model(engine, source, &read, err);
    if (rc == XI_ENGINE_OK && bounded)
        rc = bound_shapes(lib, read, options, err);
    if (rc == XI_ENGINE_OK)
        rc = compile_copies(model, source, read, &s, err);
    if (read != NULL)
        lib->ov_model_free(read);
    return rc;
}

/* ---- ports ---- */

static int describe_shape(const ov_partial_shape_t *shape, struct xi_port *ret)
{
    if (shape->rank.min != shape->rank.max || shape->rank.max < 0) {
        ret->rank = -1;
        return 0;
    }
    if (shape->rank.max > XI_MAX_RANK)
        return -1;
    ret->rank = (int32_t)shape->rank.max;
    for (int i = 0; i < ret->rank; i++)
        ret->dims[i] = shape->dims[i].min == shape->dims[i].max ? shape->dims[i].min : -1;
    return 0;
}

static int describe_port(const struct ov_library *lib, const ov_output_const_port_t *port,
                         struct xi_port *ret, const struct ov_err *err)
{
    ov_element_type_e type = DYNAMIC;
    ov_partial_shape_t shape = {{0, 0}, NULL};
    char *name = NULL;
    int rc;

    ret->size = sizeof(*ret);
    ret->layout = "";
    ret->name = NULL;
    if (lib->ov_port_get_any_name(port, &name) == OK && name != NULL) {
        ret->name = strdup(name);
        lib->ov_free(name);
    } else {
        ret->name = strdup(""); /* the vendor fails on ports without a name */
    }
    if (ret->name == NULL)
        return ov_fail(err, XI_ENGINE_NO_MEMORY, "no memory for a port's name");
    if (lib->ov_port_get_element_type(port, &type) != OK)
        type = DYNAMIC;
    ret->dtype = ov_type_to_dtype(type);
    if (ret->dtype == XI_DT_UNKNOWN)
        return ov_fail(err, XI_ENGINE_UNSUPPORTED, "port \"%.64s\" holds %s, which can't be served",
                       ret->name, type == STRING ? "strings" : "an element type without a name");
    if (lib->ov_port_get_partial_shape(port, &shape) != OK)
        return ov_fail(err, XI_ENGINE_UNSUPPORTED, "port \"%.64s\" has no shape", ret->name);
    rc = describe_shape(&shape, ret);
    lib->ov_partial_shape_free(&shape);
    return rc == 0 ? XI_ENGINE_OK
                   : ov_fail(err, XI_ENGINE_UNSUPPORTED,
                             "port \"%.64s\" has more than %d dimensions", ret->name, XI_MAX_RANK);
}

static int describe_ports(struct xi_engine_model *model, int direction, const struct ov_err *err)
{
    const struct ov_library *lib = &model->engine->lib;
    const ov_compiled_model_t *compiled = model->compiled[0];
    size_t n = 0;
    ov_status_e status = direction == XI_INPUT ? lib->ov_compiled_model_inputs_size(compiled, &n)
                                               : lib->ov_compiled_model_outputs_size(compiled, &n);
    int rc = XI_ENGINE_OK;

    if (status != OK || n > OV_PORTS_MAX)
        return ov_fail(err, XI_ENGINE_UNSUPPORTED, "the model has more than %d ports",
                       OV_PORTS_MAX);
    model->ports[direction] = calloc(n + 1, sizeof(struct xi_port));
    if (model->ports[direction] == NULL)
        return ov_fail(err, XI_ENGINE_NO_MEMORY, "no memory for %zu ports", n);
    for (size_t i = 0; i < n && rc == XI_ENGINE_OK; i++) {
        ov_output_const_port_t *port = NULL;
        status = direction == XI_INPUT ? lib->ov_compiled_model_input_by_index(compiled, i, &port)
                                       : lib->ov_compiled_model_output_by_index(compiled, i, &port);
        if (status != OK)
            return ov_vendor_fail(lib, status, XI_ENGINE_UNSUPPORTED, "a port is missing", NULL,
                                  err);
        model->n_ports[direction]++;
        rc = describe_port(lib, port, &model->ports[direction][i], err);
        lib->ov_output_const_port_free(port);
    }
    return rc;
}

const struct xi_port *ov_port(struct xi_engine_model *model, int direction, uint32_t index)
{
    if (direction < XI_INPUT || direction > XI_OUTPUT || index >= model->n_ports[direction])
        return NULL;
    return &model->ports[direction][index];
}

void ov_unload(struct xi_engine_model *model)
{
    if (model == NULL)
        return;
    for (uint32_t i = 0; i < model->n_compiled; i++)
        model->engine->lib.ov_compiled_model_free(model->compiled[i]);
    free(model->compiled);
    for (int d = 0; d < 2; d++) {
        for (uint32_t i = 0; i < model->n_ports[d]; i++)
            free((void *)(uintptr_t)model->ports[d][i].name);
        free(model->ports[d]);
    }
    free(model);
}

int ov_load(struct xi_engine *engine, const struct xi_engine_source *source,
            const struct xi_engine_options *options, struct xi_engine_model **ret, char *text,
            size_t bytes)
{
    struct ov_err err = {text, bytes};
    struct xi_engine_model *model;
    int rc = check_format(source, &err);

    if (rc != XI_ENGINE_OK)
        return rc;
    model = calloc(1, sizeof(*model));
    if (model == NULL)
        return ov_fail(&err, XI_ENGINE_NO_MEMORY, "no memory for the model");
    model->engine = engine;
    rc = compile(model, source, options, &err);
    if (rc == XI_ENGINE_OK)
        rc = describe_ports(model, XI_INPUT, &err);
    if (rc == XI_ENGINE_OK)
        rc = describe_ports(model, XI_OUTPUT, &err);
    if (rc == XI_ENGINE_OK) {
        *ret = model;
        model = NULL;
    }
    ov_unload(model);
    return rc;
}
