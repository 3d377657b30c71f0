/* triton_backend.c: a native backend for Triton, so that it is measured with what it does best: the
 * NVIDIA package on PyPI brings a backend for Python only. A model folder with model.onnx runs in
 * ONNX Runtime, one session of one thread for each instance, outputs written by the engine into
 * Triton's own buffers; without one the input is copied to the output. One input x, one output y.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime.h"
#include "triton_api.h"

struct instance {
    struct runtime *runtime; /* NULL: copy */
};

struct part {
    const char *name;
    enum triton_type type;
    const int64_t *dims;
    uint32_t rank, buffers;
    uint64_t bytes;
    const void *data;
};

#define TRY(call)                                                                                  \
    do {                                                                                           \
        struct triton_error *e_ = (call);                                                          \
        if (e_ != NULL)                                                                            \
            return e_;                                                                             \
    } while (0)

static struct triton_error *failed(const char *what)
{
    return TRITONSERVER_ErrorNew(TRITON_ERROR_INTERNAL, what);
}

__attribute__((visibility("default"))) struct triton_error *
TRITONBACKEND_ModelInstanceInitialize(struct triton_instance *triton)
{
    struct triton_model *model = NULL;
    const char *folder = NULL;
    const char *why = NULL;
    char path[4096];
    int kind = 0;
    struct instance *i = calloc(1, sizeof *i);

    if (i == NULL)
        return failed("memory");
    TRY(TRITONBACKEND_ModelInstanceSetState(triton, i));
    TRY(TRITONBACKEND_ModelInstanceModel(triton, &model));
    TRY(TRITONBACKEND_ModelRepository(model, &kind, &folder));
    (void)snprintf(path, sizeof path, "%s/1/model.onnx", folder);
    FILE *f = fopen(path, "rb");
    if (f == NULL)
        return NULL;
    (void)fclose(f);
    i->runtime = runtime_open(path, &why);
    return why ? failed(why) : NULL;
}

/* The one input in one piece, wherever it lies: nothing is copied. */
static struct triton_error *take_input(struct triton_request *request, struct part *ret)
{
    struct triton_input *input = NULL;
    enum triton_memory where = TRITON_CPU;
    int64_t id = 0;
    uint64_t bytes = 0;

    TRY(TRITONBACKEND_RequestInputByIndex(request, 0, &input));
    TRY(TRITONBACKEND_InputProperties(input, &ret->name, &ret->type, &ret->dims, &ret->rank,
                                      &ret->bytes, &ret->buffers));
    TRY(TRITONBACKEND_InputBuffer(input, 0, &ret->data, &bytes, &where, &id));
    return bytes == ret->bytes ? NULL : failed("the input lies in pieces");
}

/* HTTP hands over large bodies in pieces: they become one. */
static struct triton_error *gather(struct triton_request *request, struct part *p, void **ret)
{
    struct triton_input *input = NULL;
    enum triton_memory where = TRITON_CPU;
    int64_t id = 0;
    uint64_t bytes = 0, at = 0;
    const void *data = NULL;

    *ret = malloc(p->bytes);
    if (*ret == NULL)
        return failed("memory");
    TRY(TRITONBACKEND_RequestInputByIndex(request, 0, &input));
    for (uint32_t b = 0; b < p->buffers && at < p->bytes; b++, at += bytes) {
        TRY(TRITONBACKEND_InputBuffer(input, b, &data, &bytes, &where, &id));
        memcpy((char *)*ret + at, data, bytes);
    }
    p->data = *ret;
    return NULL;
}

static struct triton_error *copy(const struct part *in, struct triton_response *response)
{
    struct triton_output *output = NULL;
    enum triton_memory where = TRITON_CPU;
    int64_t id = 0;
    void *data = NULL;

    TRY(TRITONBACKEND_ResponseOutput(response, &output, "y", in->type, in->dims, in->rank));
    TRY(TRITONBACKEND_OutputBuffer(output, &data, in->bytes, &where, &id));
    memcpy(data, in->data, in->bytes);
    return NULL;
}

static struct triton_error *run(struct runtime *runtime, const struct part *in,
                                struct triton_response *response)
{
    const struct runtime_output *o = runtime_output(runtime);
    const struct runtime_input input = {.data = in->data,
                                        .bytes = in->bytes,
                                        .dims = in->dims,
                                        .rank = in->rank,
                                        .is_uint8 = in->type == TRITON_UINT8};
    struct triton_output *output = NULL;
    enum triton_memory where = TRITON_CPU;
    int64_t id = 0;
    void *data = NULL;

    TRY(TRITONBACKEND_ResponseOutput(response, &output, o->name, TRITON_FP32, o->dims,
                                     (uint32_t)o->rank));
    TRY(TRITONBACKEND_OutputBuffer(output, &data, o->bytes, &where, &id));
    const char *why = runtime_run(runtime, &input, data);
    return why ? failed(why) : NULL;
}

static struct triton_error *serve(const struct instance *i, struct triton_request *request)
{
    struct triton_response *response = NULL;
    struct part in = {0};
    void *gathered = NULL;

    TRY(TRITONBACKEND_ResponseNew(&response, request));
    struct triton_error *e = take_input(request, &in);
    if (in.buffers > 1)
        e = gather(request, &in, &gathered);
    if (e == NULL)
        e = i->runtime ? run(i->runtime, &in, response) : copy(&in, response);
    free(gathered);
    return TRITONBACKEND_ResponseSend(response, TRITON_RESPONSE_FINAL, e);
}

__attribute__((visibility("default"))) struct triton_error *
TRITONBACKEND_ModelInstanceExecute(struct triton_instance *triton, struct triton_request **requests,
                                   uint32_t n)
{
    void *state = NULL;

    TRY(TRITONBACKEND_ModelInstanceState(triton, &state));
    for (uint32_t r = 0; r < n; r++) {
        struct triton_error *e = serve(state, requests[r]);
        (void)e; /* the client has gone, or hears it */
        TRY(TRITONBACKEND_RequestRelease(requests[r], TRITON_RELEASE_ALL));
    }
    return NULL;
}
