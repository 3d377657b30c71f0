/* from_bytes: the bytes that were sent → a tensor of a fixed shape (flows without a picture). */
#include "flow/params.h"
#include "flow/steps.h"

struct from_bytes {
    enum xi_dtype dtype;
    int32_t rank;
    int64_t dims[XI_MAX_RANK];
    uint64_t bytes;
};

static enum xi_rc parse(struct xi_flow_parser *p, const json_t *obj, void *params,
                        struct xi_err *err)
{
    struct from_bytes *self = params;
    const char *dtype = "";
    double dims[XI_MAX_RANK];
    uint32_t n = 0;
    enum xi_rc rc = xi_json_string(obj, "", "dtype", XI_JSON_REQUIRED, &dtype, err);

    (void)p;
    if (rc == XI_OK)
        rc = xi_param_numbers(obj, "shape", 1, 1 << 30, XI_MAX_RANK, dims, &n, err);
    if (rc != XI_OK)
        return rc;
    self->dtype = xi_dtype_parse(dtype);
    if (xi_dtype_bytes(self->dtype) == 0)
        return xi_fail(err, XI_EINVAL, "dtype cannot be \"%.40s\"", dtype);
    if (n == 0)
        return xi_fail(err, XI_EINVAL, "shape is missing");
    self->rank = (int32_t)n;
    for (uint32_t i = 0; i < n; i++) {
        self->dims[i] = (int64_t)dims[i];
        if ((double)self->dims[i] < dims[i])
            return xi_fail(err, XI_EINVAL, "shape must be whole numbers");
    }
    return xi_shape_bytes(self->dtype, self->dims, self->rank, &self->bytes, err);
}

static enum xi_rc check(const struct xi_flow *flow, const struct xi_flow_step *step,
                        struct xi_flow_type *types, struct xi_err *err)
{
    const struct from_bytes *self = step->params;
    enum xi_rc rc = xi_want_kind(flow, types, step->in[0], XI_VALUE_BYTES, err);

    types[step->out[0]] = xi_type_tensor(self->dtype, self->rank, self->dims);
    return rc;
}

/* The tensor is the request's memory itself: nothing is copied and no step writes its input. */
static enum xi_rc run(struct xi_flow_run *r, const struct xi_flow_step *step, struct xi_err *err)
{
    const struct from_bytes *self = step->params;
    char text[64];

    if (r->bytes != self->bytes)
        return xi_fail(err, XI_ETENSOR, "%zu bytes were sent, a %s tensor %s has %llu", r->bytes,
                       xi_dtype_name(self->dtype),
                       xi_shape_text(self->dims, self->rank, text, sizeof text),
                       (unsigned long long)self->bytes);
    r->values[step->out[0]].tensor = xi_tensor_make(self->dtype, self->dims, self->rank,
                                                    (void *)(uintptr_t)r->input, self->bytes);
    return XI_OK;
}

static const char *const keys[] = {"op", "in", "out", "dtype", "shape", NULL};

const struct xi_step_kind xi_step_from_bytes = {
    .op = "from_bytes",
    .keys = keys,
    .min_in = 1,
    .max_in = 1,
    .min_out = 1,
    .max_out = 1,
    .params_bytes = sizeof(struct from_bytes),
    .parse = parse,
    .check = check,
    .run = run,
};
