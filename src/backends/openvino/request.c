/* request.c: one run in flight: the caller's memory bound in place, infer, outputs. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "ov.h"

struct slot {
    struct xi_tensor bound; /* as the caller gave it */
    int is_bound;
    ov_tensor_t *tensor; /* wraps bound.data, or what output() lent out */
};

struct xi_engine_request {
    struct xi_engine_model *model;
    ov_infer_request_t *infer;
    int ran;
    struct slot *slots[2];
    /* What empty tensors point to: the vendor refuses NULL. */
    _Alignas(64) unsigned char nothing[64];
};

static const char *dtype_name(uint32_t dtype)
{
    static const char *const names[] = {"UNKNOWN", "BOOL", "UINT8", "UINT16", "UINT32",
                                        "UINT64",  "INT8", "INT16", "INT32",  "INT64",
                                        "FP16",    "FP32", "FP64",  "BF16",   "BYTES"};

    return dtype < sizeof(names) / sizeof(names[0]) ? names[dtype] : "UNKNOWN";
}

static uint64_t dtype_bytes(uint32_t dtype)
{
    static const unsigned char bytes[] = {0, 1, 1, 2, 4, 8, 1, 2, 4, 8, 2, 4, 8, 2, 0};

    return dtype < sizeof(bytes) ? bytes[dtype] : 0;
}

static void drop_tensor(const struct ov_library *lib, struct slot *slot)
{
    if (slot->tensor != NULL)
        lib->ov_tensor_free(slot->tensor);
    slot->tensor = NULL;
}

void ov_request_free(struct xi_engine_request *request)
{
    const struct ov_library *lib;

    if (request == NULL)
        return;
    lib = &request->model->engine->lib;
    if (request->infer != NULL)
        lib->ov_infer_request_free(request->infer);
    for (int d = 0; d < 2; d++) {
        for (uint32_t i = 0; request->slots[d] != NULL && i < request->model->n_ports[d]; i++)
            drop_tensor(lib, &request->slots[d][i]);
        free(request->slots[d]);
    }
    free(request);
}

int ov_request_new(struct xi_engine_model *model, struct xi_engine_request **ret, char *text,
                   size_t bytes)
{
    struct ov_err err = {text, bytes};
    struct xi_engine_request *request = aligned_alloc(64, (sizeof(*request) + 63) / 64 * 64);
    ov_status_e status;
    int rc = XI_ENGINE_OK;

    if (request == NULL)
        return ov_fail(&err, XI_ENGINE_NO_MEMORY, "no memory for a request");
    memset(request, 0, sizeof(*request));
    request->model = model;
    for (int d = 0; d < 2; d++) {
        request->slots[d] = calloc(model->n_ports[d] + 1u, sizeof(struct slot));
        if (request->slots[d] == NULL) {
            rc = ov_fail(&err, XI_ENGINE_NO_MEMORY, "no memory for a request");
            goto out;
        }
    }
    status = model->engine->lib.ov_compiled_model_create_infer_request(
        model->compiled[model->next++ % model->n_compiled], &request->infer);
    if (status != OK) {
        request->infer = NULL;
        rc = ov_vendor_fail(&model->engine->lib, status, XI_ENGINE_INTERNAL,
                            "no request can be made", NULL, &err);
        goto out;
    }
    *ret = request;
    request = NULL;
out:
    ov_request_free(request);
    return rc;
}

/* ---- bind ---- */

static int is_static(const struct xi_port *port)
{
    for (int i = 0; i < port->rank; i++)
        if (port->dims[i] < 0)
            return 0;
    return port->rank >= 0;
}

/* Elements times size, refused where a dimension is negative or the product overflows. */
static int wanted_bytes(const struct xi_tensor *t, uint64_t *ret)
{
    uint64_t bytes = dtype_bytes(t->dtype);

    for (int i = 0; i < t->rank; i++) {
        if (t->dims[i] < 0 || __builtin_mul_overflow(bytes, (uint64_t)t->dims[i], &bytes))
            return -1;
    }
    *ret = bytes;
    return 0;
}

static int check_tensor(const struct xi_port *port, const struct xi_tensor *t,
                        const struct ov_err *err)
{
    uint64_t want = 0;
    int fits = t->rank >= 0 && t->rank <= XI_MAX_RANK && (port->rank < 0 || port->rank == t->rank);

    if (t->memory != XI_MEM_HOST)
        return ov_fail(err, XI_ENGINE_UNSUPPORTED, "\"%.64s\": only host memory can be bound",
                       port->name);
    if (t->dtype != port->dtype)
        return ov_fail(err, XI_ENGINE_BAD_INPUT, "\"%.64s\" is %s, the model wants %s", port->name,
                       dtype_name(t->dtype), dtype_name(port->dtype));
    for (int i = 0; fits && i < port->rank; i++)
        fits = port->dims[i] == -1 || port->dims[i] == t->dims[i];
    if (!fits || wanted_bytes(t, &want) != 0)
        return ov_fail(err, XI_ENGINE_BAD_INPUT, "\"%.64s\" has a shape the model does not take",
                       port->name);
    if (t->bytes != want || (want > 0 && t->data == NULL))
        return ov_fail(err, XI_ENGINE_BAD_INPUT, "\"%.64s\" has %llu bytes, its shape wants %llu",
                       port->name, (unsigned long long)t->bytes, (unsigned long long)want);
    if ((uintptr_t)t->data % dtype_bytes(t->dtype) != 0)
        return ov_fail(err, XI_ENGINE_BAD_INPUT, "\"%.64s\" does not lie at a multiple of %llu",
                       port->name, (unsigned long long)dtype_bytes(t->dtype));
    return XI_ENGINE_OK;
}

/* Wraps the caller's memory; data NULL: the engine's own of the port's static shape. */
static int wrap(struct xi_engine_request *request, const struct xi_tensor *t, ov_tensor_t **ret,
                const struct ov_err *err)
{
    const struct ov_library *lib = &request->model->engine->lib;
    ov_element_type_e type = (ov_element_type_e)ov_type_from_dtype(t->dtype);
    int64_t dims[XI_MAX_RANK];
    ov_shape_t shape = {t->rank, dims};
    ov_status_e status;

    memcpy(dims, t->dims, sizeof(dims));
    if (t->data == NULL && t->bytes > 0)
        status = lib->ov_tensor_create(type, shape, ret);
    else
        status = lib->ov_tensor_create_from_host_ptr(
            type, shape, t->bytes > 0 ? t->data : request->nothing, ret);
    if (status == OK)
        return XI_ENGINE_OK;
    *ret = NULL;
    return ov_vendor_fail(lib, status, XI_ENGINE_INTERNAL, "memory can't be bound", NULL, err);
}

static int set_tensor(struct xi_engine_request *request, int direction, uint32_t index,
                      const struct xi_tensor *t, const struct ov_err *err)
{
    const struct ov_library *lib = &request->model->engine->lib;
    struct slot *slot = &request->slots[direction][index];
    ov_tensor_t *tensor = NULL;
    ov_status_e status;
    int rc = wrap(request, t, &tensor, err);

    if (rc != XI_ENGINE_OK)
        return rc;
    status = direction == XI_INPUT
                 ? lib->ov_infer_request_set_input_tensor_by_index(request->infer, index, tensor)
                 : lib->ov_infer_request_set_output_tensor_by_index(request->infer, index, tensor);
    if (status != OK) {
        lib->ov_tensor_free(tensor);
        return ov_vendor_fail(lib, status, XI_ENGINE_BAD_INPUT, "memory can't be bound", NULL, err);
    }
    drop_tensor(lib, slot);
    slot->tensor = tensor;
    return XI_ENGINE_OK;
}

static int unbind(struct xi_engine_request *request, int direction, uint32_t index,
                  const struct ov_err *err)
{
    struct slot *slot = &request->slots[direction][index];
    int rc = XI_ENGINE_OK;

    if (slot->is_bound && direction == XI_OUTPUT) {
        struct xi_tensor own = slot->bound;
        own.data = NULL;
        rc = set_tensor(request, direction, index, &own, err);
    }
    /* An unbound input keeps its old wrapper until the next bind: run refuses to use it. */
    if (rc == XI_ENGINE_OK)
        slot->is_bound = 0;
    return rc;
}

static int same_binding(const struct slot *slot, const struct xi_tensor *t)
{
    return slot->is_bound && slot->bound.data == t->data && slot->bound.rank == t->rank &&
           memcmp(slot->bound.dims, t->dims, (size_t)t->rank * sizeof(t->dims[0])) == 0;
}

int ov_bind(struct xi_engine_request *request, int direction, uint32_t index,
            const struct xi_tensor *tensor, char *text, size_t bytes)
{
    struct ov_err err = {text, bytes};
    const struct xi_port *port = ov_port(request->model, direction, index);
    struct slot *slot;
    int rc;

    if (port == NULL)
        return ov_fail(&err, XI_ENGINE_BAD_INPUT, "there is no %s %u",
                       direction == XI_INPUT ? "input" : "output", index);
    request->ran = 0;
    if (tensor == NULL)
        return unbind(request, direction, index, &err);
    if (direction == XI_OUTPUT && !is_static(port))
        return ov_fail(&err, XI_ENGINE_UNSUPPORTED, "\"%.64s\" has no fixed size to bind",
                       port->name);
    rc = check_tensor(port, tensor, &err);
    if (rc != XI_ENGINE_OK)
        return rc;
    slot = &request->slots[direction][index];
    if (same_binding(slot, tensor))
        return XI_BIND_IN_PLACE;
    rc = set_tensor(request, direction, index, tensor, &err);
    if (rc != XI_ENGINE_OK)
        return rc;
    slot->bound = *tensor;
    slot->is_bound = 1;
    return XI_BIND_IN_PLACE;
}

/* ---- run ---- */

static uint64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Inputs fit their ports by now, so what a run complains about is a combination of shapes that
 * the graph can't take: the caller's fault. What is left is the engine's. */
static int code_of_run(ov_status_e status)
{
    switch (status) {
    case GENERAL_ERROR:
    case PARAMETER_MISMATCH:
    case OUT_OF_BOUNDS:
        return XI_ENGINE_BAD_INPUT;
    case NOT_IMPLEMENTED:
        return XI_ENGINE_UNSUPPORTED;
    case REQUEST_BUSY:
    case INFER_CANCELLED:
        return XI_ENGINE_BUSY;
    case NOT_ALLOCATED:
        return XI_ENGINE_NO_MEMORY;
    default:
        return XI_ENGINE_INTERNAL;
    }
}

int ov_run(struct xi_engine_request *request, uint64_t deadline_ns, char *text, size_t bytes)
{
    struct ov_err err = {text, bytes};
    struct xi_engine_model *model = request->model;
    uint64_t start = now_ns();
    ov_status_e status;

    (void)deadline_ns; /* advisory; the host cancels or ends the process */
    request->ran = 0;
    for (uint32_t i = 0; i < model->n_ports[XI_INPUT]; i++)
        if (!request->slots[XI_INPUT][i].is_bound)
            return ov_fail(&err, XI_ENGINE_BAD_INPUT, "input \"%.64s\" is not bound",
                           model->ports[XI_INPUT][i].name);
    status = model->engine->lib.ov_infer_request_infer(request->infer);
    atomic_fetch_add(&model->busy_ns, now_ns() - start);
    if (status != OK)
        return ov_vendor_fail(&model->engine->lib, status, code_of_run(status), "the run failed",
                              NULL, &err);
    request->ran = 1;
    return XI_ENGINE_OK;
}

void ov_cancel(struct xi_engine_request *request)
{
    (void)request->model->engine->lib.ov_infer_request_cancel(request->infer);
}

/* ---- outputs ---- */

/* ov_tensor_get_shape fails on scalars: what fails and has one element is one. */
static int read_shape(const struct ov_library *lib, const ov_tensor_t *tensor,
                      struct xi_tensor *ret)
{
    ov_shape_t shape = {0, NULL};
    size_t elements = 0;
    int rc = 0;

    ret->rank = 0;
    if (lib->ov_tensor_get_shape(tensor, &shape) != OK)
        return lib->ov_tensor_get_size(tensor, &elements) == OK && elements == 1 ? 0 : -1;
    if (shape.rank > XI_MAX_RANK)
        rc = -1;
    for (int64_t i = 0; rc == 0 && i < shape.rank; i++)
        ret->dims[ret->rank++] = shape.dims[i];
    lib->ov_shape_free(&shape);
    return rc;
}

static int read_tensor(const struct ov_library *lib, const ov_tensor_t *tensor,
                       struct xi_tensor *ret)
{
    ov_element_type_e type = DYNAMIC;
    size_t bytes = 0;

    memset(ret, 0, sizeof(*ret));
    ret->size = sizeof(*ret);
    ret->memory = XI_MEM_HOST;
    ret->fd = -1;
    if (lib->ov_tensor_get_element_type(tensor, &type) != OK ||
        lib->ov_tensor_get_byte_size(tensor, &bytes) != OK || read_shape(lib, tensor, ret) != 0)
        return -1;
    ret->dtype = ov_type_to_dtype(type);
    ret->bytes = bytes;
    return bytes == 0 || lib->ov_tensor_data(tensor, &ret->data) == OK ? 0 : -1;
}

int ov_output(struct xi_engine_request *request, uint32_t index, struct xi_tensor *ret, char *text,
              size_t bytes)
{
    struct ov_err err = {text, bytes};
    const struct ov_library *lib = &request->model->engine->lib;
    struct slot *slot;
    ov_tensor_t *tensor = NULL;
    ov_status_e status;

    if (ov_port(request->model, XI_OUTPUT, index) == NULL)
        return ov_fail(&err, XI_ENGINE_BAD_INPUT, "there is no output %u", index);
    if (!request->ran)
        return ov_fail(&err, XI_ENGINE_BAD_INPUT, "the request has not run");
    slot = &request->slots[XI_OUTPUT][index];
    if (slot->is_bound) {
        *ret = slot->bound;
        return XI_ENGINE_OK;
    }
    status = lib->ov_infer_request_get_output_tensor_by_index(request->infer, index, &tensor);
    if (status != OK)
        return ov_vendor_fail(lib, status, XI_ENGINE_INTERNAL, "an output is missing", NULL, &err);
    drop_tensor(lib, slot);
    slot->tensor = tensor; /* kept so that the data live until the next run or bind */
    if (read_tensor(lib, tensor, ret) != 0)
        return ov_fail(&err, XI_ENGINE_INTERNAL, "output %u can't be read", index);
    return XI_ENGINE_OK;
}
