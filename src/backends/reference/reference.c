/* reference.c: the reference engine, and the tutorial for writing an engine plugin.
 *
 * Read it from the bottom: the table names every call the host makes, in the order it makes them.
 * A plugin keeps no mutable globals (the host hands every call its object back), copies nothing
 * that it can use in place, and answers every error with a code and one sentence. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "xref.h"

struct xi_engine {
    xi_engine_log_fn log;
    void *log_ctx;
};

struct xi_engine_model {
    struct xref_program program;
    struct xi_port ports[2][XREF_PORTS_MAX];
    void *held; /* by "fault hold" */
    uint64_t held_bytes;
    /* Requests of one model run at once, so what they share is atomic. */
    atomic_uint_fast64_t runs, busy_ns;
};

/* Where one value of the program lies in this request. */
struct place {
    struct xi_tensor now; /* real shape and data of this run */
    void *own;            /* grown as needed, reused from run to run */
    uint64_t own_bytes;
    int bound; /* now.data is the caller's */
};

struct xi_engine_request {
    struct xi_engine_model *model;
    atomic_int cancelled;
    int ran;               /* outputs are valid */
    struct place places[]; /* one per value of the program */
};

static int engine_probe(const struct xi_engine_config *config, struct xi_engine_probe *out,
                        char *text, size_t bytes)
{
    struct xref_err err = {text, bytes};

    (void)config; /* a vendor's plugin looks for its library in config->library_dir */
    if (out->size < sizeof(*out))
        return xref_fail(&err, XI_ENGINE_UNSUPPORTED, "the host's probe record is too old");
    out->n_devices = xref_identity.n_devices;
    out->max_rank = XI_MAX_RANK;
    memcpy(out->devices, xref_identity.devices, out->n_devices * sizeof(out->devices[0]));
    out->n_formats = 1;
    snprintf(out->formats[0], sizeof(out->formats[0]), "reference");
    snprintf(out->version, sizeof(out->version), "%s", xref_identity.version);
    return XI_ENGINE_OK;
}

static int engine_open(const struct xi_engine_config *config, struct xi_engine **ret, char *text,
                       size_t bytes)
{
    struct xref_err err = {text, bytes};
    struct xi_engine *engine = calloc(1, sizeof(*engine));

    if (engine == NULL)
        return xref_fail(&err, XI_ENGINE_NO_MEMORY, "no memory for the engine");
    if (config != NULL) {
        engine->log = config->log;
        engine->log_ctx = config->log_ctx;
    }
    *ret = engine;
    return XI_ENGINE_OK;
}

static void engine_close(struct xi_engine *engine)
{
    free(engine);
}

/* ---- load ---- */

/* The whole file, from its start, NUL-terminated. The fd stays the caller's. */
static int read_fd(int fd, char **ret, size_t *ret_bytes, const struct xref_err *err)
{
    size_t used = 0, room = 64 * 1024;
    char *text = malloc(room + 1), *more;
    ssize_t n;

    while (text != NULL && (n = pread(fd, text + used, room - used, (off_t)used)) != 0) {
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            free(text);
            return xref_fail(err, XI_ENGINE_UNSUPPORTED, "the model can't be read: %s",
                             strerror(errno));
        }
        used += (size_t)n;
        if (used > XREF_FILE_MAX) {
            free(text);
            return xref_fail(err, XI_ENGINE_UNSUPPORTED, "the model is larger than %u bytes",
                             XREF_FILE_MAX);
        }
        if (used < room)
            continue;
        room *= 2;
        more = realloc(text, room + 1);
        if (more == NULL)
            free(text);
        text = more;
    }
    if (text == NULL)
        return xref_fail(err, XI_ENGINE_NO_MEMORY, "no memory to read the model");
    text[used] = '\0';
    *ret = text;
    *ret_bytes = used;
    return XI_ENGINE_OK;
}

static int copy_memory(const struct xi_engine_source *source, char **ret, size_t *ret_bytes,
                       const struct xref_err *err)
{
    if (source->bytes > XREF_FILE_MAX)
        return xref_fail(err, XI_ENGINE_UNSUPPORTED, "the model is larger than %u bytes",
                         XREF_FILE_MAX);
    *ret = malloc((size_t)source->bytes + 1);
    if (*ret == NULL)
        return xref_fail(err, XI_ENGINE_NO_MEMORY, "no memory to read the model");
    memcpy(*ret, source->data, (size_t)source->bytes);
    (*ret)[source->bytes] = '\0';
    *ret_bytes = (size_t)source->bytes;
    return XI_ENGINE_OK;
}

static int read_source(const struct xi_engine_source *source, char **ret, size_t *ret_bytes,
                       const struct xref_err *err)
{
    int fd, rc;

    if (source->path == NULL)
        return source->data != NULL ? copy_memory(source, ret, ret_bytes, err)
                                    : read_fd(source->fd, ret, ret_bytes, err);
    fd = open(source->path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return xref_fail(err, XI_ENGINE_UNSUPPORTED, "the model can't be opened: %s",
                         strerror(errno));
    rc = read_fd(fd, ret, ret_bytes, err);
    close(fd);
    return rc;
}

/* "": any. */
static int has_device(const char *id)
{
    int has = id[0] == '\0' || strcmp(id, "cpu") == 0;

    for (uint32_t i = 0; i < xref_identity.n_devices; i++)
        has |= strcmp(id, xref_identity.devices[i].id) == 0;
    return has;
}

/* An option that is not understood is refused: a typing error must not pass silently. */
static int check_options(const struct xi_engine_source *source,
                         const struct xi_engine_options *options, const struct xref_err *err)
{
    if (source->format != NULL && source->format[0] != '\0' &&
        strcmp(source->format, "reference") != 0)
        return xref_fail(err, XI_ENGINE_UNSUPPORTED, "format \"%.40s\" is not \"reference\"",
                         source->format);
    if (options == NULL)
        return XI_ENGINE_OK;
    if (options->device != NULL && !has_device(options->device))
        return xref_fail(err, XI_ENGINE_NOT_PRESENT, "there is no device \"%.40s\" here",
                         options->device);
    if (options->n_keys > 0)
        return xref_fail(err, XI_ENGINE_UNSUPPORTED, "there is no option \"%.40s\"",
                         options->keys[0].key);
    return XI_ENGINE_OK;
}

static void describe_ports(struct xi_engine_model *model, int direction, const uint32_t *values,
                           uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        const struct xref_value *v = &model->program.values[values[i]];
        struct xi_port *port = &model->ports[direction][i];
        port->size = sizeof(*port);
        port->dtype = v->tensor.dtype;
        port->rank = v->tensor.rank;
        port->alignment = xref_dtype_bytes(v->tensor.dtype);
        memcpy(port->dims, v->tensor.dims, sizeof(port->dims));
        port->name = v->name;
        port->layout = "";
    }
}

static void model_unload(struct xi_engine_model *model)
{
    if (model == NULL)
        return;
    xref_program_fini(&model->program);
    free(model->held);
    free(model);
}

static int engine_load(struct xi_engine *engine, const struct xi_engine_source *source,
                       const struct xi_engine_options *options, struct xi_engine_model **ret,
                       char *error_text, size_t error_bytes)
{
    struct xref_err err = {error_text, error_bytes};
    struct xi_engine_model *model = NULL;
    char *text = NULL;
    size_t bytes;
    int rc = check_options(source, options, &err);

    if (rc == XI_ENGINE_OK)
        rc = read_source(source, &text, &bytes, &err);
    if (rc != XI_ENGINE_OK)
        return rc;
    model = calloc(1, sizeof(*model));
    if (model == NULL) {
        rc = xref_fail(&err, XI_ENGINE_NO_MEMORY, "no memory for the model");
        goto out;
    }
    rc = xref_parse(text, bytes, &model->program, &err);
    if (rc == XI_ENGINE_OK)
        rc = xref_faults_at_load(&model->program, &model->held, &model->held_bytes, &err);
    if (rc != XI_ENGINE_OK)
        goto out;
    describe_ports(model, XI_INPUT, model->program.inputs, model->program.n_inputs);
    describe_ports(model, XI_OUTPUT, model->program.outputs, model->program.n_outputs);
    if (engine->log != NULL)
        engine->log(engine->log_ctx, XI_ENGINE_DEBUG, "reference model loaded");
    *ret = model;
    model = NULL;
out:
    model_unload(model);
    free(text);
    return rc;
}

static const struct xi_port *model_port(struct xi_engine_model *model, int direction,
                                        uint32_t index)
{
    uint32_t n = direction == XI_INPUT ? model->program.n_inputs : model->program.n_outputs;

    if (direction < XI_INPUT || direction > XI_OUTPUT || index >= n)
        return NULL;
    return &model->ports[direction][index];
}

/* ---- requests ---- */

static void request_free(struct xi_engine_request *request);

/* ---- hidden state ---- */

static int hidden_new(struct xi_engine_request *request)
{
    const struct xref_program *p = &request->model->program;

    for (uint32_t i = 0; i < p->n_values; i++) {
        struct place *place = &request->places[i];
        if (p->values[i].role != XREF_HIDDEN)
            continue;
        place->own = calloc(1, place->now.bytes > 0 ? (size_t)place->now.bytes : 1);
        if (place->own == NULL)
            return -1;
        place->own_bytes = place->now.bytes;
        place->now.data = place->own;
    }
    return 0;
}

/* After a run that succeeded: what was made becomes the state. Else nothing has happened. */
static int hidden_step(struct xi_engine_request *request, const struct xref_err *err)
{
    const struct xref_program *p = &request->model->program;

    for (uint32_t i = 0; i < p->n_values; i++)
        if (p->values[i].role == XREF_HIDDEN &&
            request->places[p->values[i].next].now.bytes != request->places[i].now.bytes)
            return xref_fail(err, XI_ENGINE_BAD_INPUT, "\"%s\" comes out in another shape",
                             p->values[i].name);
    for (uint32_t i = 0; i < p->n_values; i++)
        if (p->values[i].role == XREF_HIDDEN)
            memcpy(request->places[i].own, request->places[p->values[i].next].now.data,
                   (size_t)request->places[i].now.bytes);
    return XI_ENGINE_OK;
}

static int model_stateful(struct xi_engine_model *model)
{
    return model->program.n_hidden > 0;
}

static int request_reset(struct xi_engine_request *request, char *text, size_t bytes)
{
    const struct xref_program *p = &request->model->program;

    (void)text;
    (void)bytes;
    for (uint32_t i = 0; i < p->n_values; i++)
        if (p->values[i].role == XREF_HIDDEN)
            memset(request->places[i].own, 0, (size_t)request->places[i].now.bytes);
    return XI_ENGINE_OK;
}

static int request_new(struct xi_engine_model *model, struct xi_engine_request **ret, char *text,
                       size_t bytes)
{
    struct xref_err err = {text, bytes};
    uint32_t n = model->program.n_values;
    struct xi_engine_request *request = calloc(1, sizeof(*request) + n * sizeof(struct place));

    if (request == NULL)
        return xref_fail(&err, XI_ENGINE_NO_MEMORY, "no memory for a request");
    request->model = model;
    for (uint32_t i = 0; i < n; i++)
        request->places[i].now = model->program.values[i].tensor; /* constants are there already */
    if (hidden_new(request) != 0) {
        request_free(request);
        return xref_fail(&err, XI_ENGINE_NO_MEMORY, "no memory for the request's state");
    }
    *ret = request;
    return XI_ENGINE_OK;
}

static void request_free(struct xi_engine_request *request)
{
    if (request == NULL)
        return;
    for (uint32_t i = 0; i < request->model->program.n_values; i++)
        free(request->places[i].own);
    free(request);
}

static int is_static(const struct xi_tensor *t)
{
    if (t->dtype == XI_DT_BYTES)
        return 0;
    for (int i = 0; i < t->rank; i++)
        if (t->dims[i] < 0)
            return 0;
    return 1;
}

/* Everything about a tensor that a plugin must check before it believes it. */
static int check_tensor(const struct xref_value *v, const struct xi_tensor *t,
                        const struct xref_err *err)
{
    uint64_t want = 0, align = xref_dtype_bytes(t->dtype);

    if (t->memory != XI_MEM_HOST)
        return xref_fail(err, XI_ENGINE_UNSUPPORTED, "\"%s\": only host memory can be bound",
                         v->name);
    if (t->dtype != v->tensor.dtype)
        return xref_fail(err, XI_ENGINE_BAD_INPUT, "\"%s\" is %s, the model wants %s", v->name,
                         xref_dtype_name(t->dtype), xref_dtype_name(v->tensor.dtype));
    if (t->rank < 0 || t->rank > XI_MAX_RANK || !xref_tensor_fits(&v->tensor, t))
        return xref_fail(err, XI_ENGINE_BAD_INPUT, "\"%s\" has a shape the model does not take",
                         v->name);
    if (xref_tensor_bytes(t, &want) != 0)
        return xref_fail(err, XI_ENGINE_BAD_INPUT, "\"%s\" has a negative or too large shape",
                         v->name);
    if (t->dtype == XI_DT_BYTES)
        want = t->bytes <= XREF_TENSOR_MAX ? t->bytes : 0;
    if (t->bytes != want || (want > 0 && t->data == NULL))
        return xref_fail(err, XI_ENGINE_BAD_INPUT, "\"%s\" has %llu bytes, its shape wants %llu",
                         v->name, (unsigned long long)t->bytes, (unsigned long long)want);
    if (align > 1 && (uintptr_t)t->data % align != 0)
        return xref_fail(err, XI_ENGINE_BAD_INPUT, "\"%s\" does not lie at a multiple of %llu",
                         v->name, (unsigned long long)align);
    return XI_ENGINE_OK;
}

static int request_bind(struct xi_engine_request *request, int direction, uint32_t index,
                        const struct xi_tensor *tensor, char *text, size_t bytes)
{
    struct xref_err err = {text, bytes};
    const struct xref_program *p = &request->model->program;
    const struct xref_value *v;
    struct place *place;
    uint32_t value;
    int rc;

    if (model_port(request->model, direction, index) == NULL)
        return xref_fail(&err, XI_ENGINE_BAD_INPUT, "there is no %s %u",
                         direction == XI_INPUT ? "input" : "output", index);
    value = direction == XI_INPUT ? p->inputs[index] : p->outputs[index];
    v = &p->values[value];
    place = &request->places[value];
    request->ran = 0;
    if (tensor == NULL) {
        place->bound = 0;
        place->now = v->tensor;
        return XI_BIND_IN_PLACE;
    }
    if (direction == XI_OUTPUT && !is_static(&v->tensor))
        return xref_fail(&err, XI_ENGINE_UNSUPPORTED, "\"%s\" has no fixed size to bind", v->name);
    rc = check_tensor(v, tensor, &err);
    if (rc != XI_ENGINE_OK)
        return rc;
    place->now = *tensor;
    place->bound = 1;
    return XI_BIND_IN_PLACE;
}

/* Room for one result: the caller's memory where an output is bound, else our own. */
static int place_result(struct place *place, const struct xi_tensor *made,
                        const struct xref_err *err)
{
    if (place->bound) {
        place->now.bytes = made->bytes;
        return XI_ENGINE_OK;
    }
    if (made->bytes > place->own_bytes || place->own == NULL) {
        free(place->own);
        place->own_bytes = 0;
        place->own = malloc(made->bytes > 0 ? (size_t)made->bytes : 1);
        if (place->own == NULL)
            return xref_fail(err, XI_ENGINE_NO_MEMORY, "no memory for a result of %llu bytes",
                             (unsigned long long)made->bytes);
        place->own_bytes = made->bytes;
    }
    place->now = *made;
    place->now.data = place->own;
    return XI_ENGINE_OK;
}

static int run_op(struct xi_engine_request *request, const struct xref_op *op,
                  const struct xref_err *err)
{
    const struct xref_value *v = &request->model->program.values[op->result];
    struct place *place = &request->places[op->result];
    const struct xi_tensor *args[XREF_ARGS_MAX] = {NULL};
    struct xi_tensor made = {.size = sizeof(made), .fd = -1};
    char why[128] = "";
    int rc;

    for (uint32_t i = 0; i < op->n_args; i++)
        args[i] = &request->places[op->args[i]].now;
    if (op->kind->shape(args, &made, why) != 0)
        return xref_fail(err, XI_ENGINE_BAD_INPUT, "line %u: %s: %s", op->line, op->kind->name,
                         why);
    if (v->role == XREF_OUTPUT && !xref_tensor_fits(&v->tensor, &made))
        return xref_fail(err, XI_ENGINE_BAD_INPUT, "line %u: \"%s\" comes out in another shape",
                         op->line, v->name);
    if (made.dtype != XI_DT_BYTES && xref_tensor_bytes(&made, &made.bytes) != 0)
        return xref_fail(err, XI_ENGINE_NO_MEMORY, "line %u: \"%s\" is larger than %llu bytes",
                         op->line, v->name, XREF_TENSOR_MAX);
    rc = place_result(place, &made, err);
    if (rc == XI_ENGINE_OK)
        op->kind->run(args, &place->now);
    return rc;
}

/* "fault wrong": every output is off by one at its first element. */
static void spoil(struct xi_engine_request *request)
{
    const struct xref_program *p = &request->model->program;

    for (uint32_t i = 0; i < p->n_outputs; i++) {
        struct xi_tensor *t = &request->places[p->outputs[i]].now;
        if (t->bytes == 0)
            continue;
        if (t->dtype == XI_DT_FP32)
            *(float *)t->data += 1.0f;
        else
            *(unsigned char *)t->data ^= 1;
    }
}

static uint64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* The first FP32 input, else the first: what "when" of a fault looks at. */
static const struct xi_tensor *first_input(const struct xi_engine_request *request)
{
    const struct xref_program *p = &request->model->program;

    for (uint32_t i = 0; i < p->n_inputs; i++)
        if (p->values[p->inputs[i]].tensor.dtype == XI_DT_FP32)
            return &request->places[p->inputs[i]].now;
    return p->n_inputs > 0 ? &request->places[p->inputs[0]].now : NULL;
}

static int run_program(struct xi_engine_request *request, const struct xref_err *err)
{
    const struct xref_program *p = &request->model->program;
    uint64_t run = atomic_fetch_add(&request->model->runs, 1) + 1;
    int rc;

    for (uint32_t i = 0; i < p->n_inputs; i++)
        if (!request->places[p->inputs[i]].bound)
            return xref_fail(err, XI_ENGINE_BAD_INPUT, "input \"%s\" is not bound",
                             p->values[p->inputs[i]].name);
    rc = xref_faults_at_run(p, run, first_input(request), &request->cancelled, err);
    if (rc == XI_ENGINE_OK &&
        xref_cost_pay(&p->cost, first_input(request), &request->cancelled) != 0)
        rc = xref_fail(err, XI_ENGINE_BUSY, "run %llu was cancelled", (unsigned long long)run);
    for (uint32_t i = 0; i < p->n_ops && rc == XI_ENGINE_OK; i++) {
        if (atomic_load(&request->cancelled))
            rc = xref_fail(err, XI_ENGINE_BUSY, "run %llu was cancelled", (unsigned long long)run);
        else
            rc = run_op(request, &p->ops[i], err);
    }
    if (rc == XI_ENGINE_OK && p->n_hidden > 0)
        rc = hidden_step(request, err);
    if (rc == XI_ENGINE_OK && xref_fault_is_wrong(p, run, first_input(request)))
        spoil(request);
    return rc;
}

static int request_run(struct xi_engine_request *request, uint64_t deadline_ns, char *text,
                       size_t bytes)
{
    struct xref_err err = {text, bytes};
    uint64_t start = now_ns();
    int rc;

    (void)deadline_ns; /* advisory; the host cancels or ends the process */
    atomic_store(&request->cancelled, 0);
    rc = run_program(request, &err);
    request->ran = rc == XI_ENGINE_OK;
    atomic_fetch_add(&request->model->busy_ns, now_ns() - start);
    return rc;
}

static int request_output(struct xi_engine_request *request, uint32_t index, struct xi_tensor *ret,
                          char *text, size_t bytes)
{
    struct xref_err err = {text, bytes};

    if (model_port(request->model, XI_OUTPUT, index) == NULL)
        return xref_fail(&err, XI_ENGINE_BAD_INPUT, "there is no output %u", index);
    if (!request->ran)
        return xref_fail(&err, XI_ENGINE_BAD_INPUT, "the request has not run");
    *ret = request->places[request->model->program.outputs[index]].now;
    return XI_ENGINE_OK;
}

static void request_cancel(struct xi_engine_request *request)
{
    atomic_store(&request->cancelled, 1);
}

static int model_stats(struct xi_engine_model *model, struct xi_engine_stats *ret)
{
    if (ret->size < sizeof(*ret))
        return XI_ENGINE_UNSUPPORTED;
    ret->bytes_held = sizeof(*model) + model->program.const_bytes + model->held_bytes +
                      xref_faults_claim(&model->program);
    ret->busy_ns = atomic_load(&model->busy_ns);
    ret->copied_bytes = 0;
    return XI_ENGINE_OK;
}

static const struct xi_engine_table table = {
    .size = sizeof(table),
    .major = XI_ENGINE_MAJOR,
    .minor = XI_ENGINE_MINOR,
    .name = XREF_NAME,
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
    .output = request_output,
    .cancel = request_cancel,
    .stats = model_stats,
    .stateful = model_stateful,
    .reset = request_reset,
};

const struct xi_engine_table *xi_engine_entry(uint16_t host_major, uint16_t host_minor)
{
    (void)host_minor; /* a host of another minor reads only the members both know */
    return host_major == XI_ENGINE_MAJOR ? &table : NULL;
}
