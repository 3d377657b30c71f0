/* layout: NHWC ↔ NCHW. */
#include <string.h>

#include "flow/params.h"
#include "flow/steps.h"

static const char *const directions[] = {"NCHW", "NHWC", NULL};

struct layout {
    int to_nhwc;
};

static enum xi_rc parse(struct xi_flow_parser *p, const json_t *obj, void *params,
                        struct xi_err *err)
{
    struct layout *self = params;

    (void)p;
    return xi_param_choice(obj, "to", directions, -1, &self->to_nhwc, err);
}

static void turn(const struct layout *self, const int64_t in[4], int64_t out[4])
{
    out[0] = in[0];
    out[1] = self->to_nhwc ? in[2] : in[3];
    out[2] = self->to_nhwc ? in[3] : in[1];
    out[3] = self->to_nhwc ? in[1] : in[2];
}

static enum xi_rc check(const struct xi_flow *flow, const struct xi_flow_step *step,
                        struct xi_flow_type *types, struct xi_err *err)
{
    const struct xi_flow_type *in = &types[step->in[0]];
    enum xi_rc rc = xi_want_tensor(flow, types, step->in[0], XI_DT_UNKNOWN, err);
    int64_t dims[4] = {-1, -1, -1, -1};

    if (rc == XI_OK && in->rank >= 0 && in->rank != 4)
        rc = xi_fail(err, XI_EFLOW, "\"%.60s\" has rank %d, wanted is 4",
                     xi_slot_name(flow, step->in[0]), in->rank);
    if (rc == XI_OK && in->rank == 4)
        turn(step->params, in->dims, dims);
    types[step->out[0]] = xi_type_tensor(in->dtype, 4, dims);
    return rc;
}

/* Each picture of the batch is a rows × columns matrix of elements that is transposed. */
static void transpose(const uint8_t *src, uint8_t *dst, size_t rows, size_t columns, size_t size)
{
    for (size_t r = 0; r < rows; r++)
        for (size_t c = 0; c < columns; c++)
            memcpy(dst + (c * rows + r) * size, src + (r * columns + c) * size, size);
}

static enum xi_rc run(struct xi_flow_run *r, const struct xi_flow_step *step, struct xi_err *err)
{
    const struct layout *self = step->params;
    const struct xi_tensor *in = &r->values[step->in[0]].tensor;
    struct xi_flow_value *v = &r->values[step->out[0]];
    size_t size = xi_dtype_bytes((enum xi_dtype)in->dtype);
    int64_t dims[4];

    if (in->rank != 4 || size == 0)
        return xi_fail(err, XI_EFLOW, "\"%.60s\" has rank %d and type %s, wanted is rank 4",
                       xi_slot_name(r->flow, step->in[0]), in->rank,
                       xi_dtype_name((enum xi_dtype)in->dtype));
    turn(self, in->dims, dims);
    enum xi_rc rc = xi_flow_make_tensor(v, (enum xi_dtype)in->dtype, dims, 4, err);
    if (rc != XI_OK)
        return rc;
    size_t pixels = (size_t)(in->dims[self->to_nhwc ? 2 : 1] * in->dims[self->to_nhwc ? 3 : 2]);
    size_t channels = (size_t)in->dims[self->to_nhwc ? 1 : 3];
    size_t rows = self->to_nhwc ? channels : pixels, columns = self->to_nhwc ? pixels : channels;
    const uint8_t *src = in->data;
    uint8_t *dst = v->tensor.data;
    for (int64_t b = 0; b < in->dims[0]; b++, src += pixels * channels * size)
        transpose(src, dst + (size_t)b * pixels * channels * size, rows, columns, size);
    return XI_OK;
}

static const char *const keys[] = {"op", "in", "out", "to", NULL};

const struct xi_step_kind xi_step_layout = {
    .op = "layout",
    .keys = keys,
    .min_in = 1,
    .max_in = 1,
    .min_out = 1,
    .max_out = 1,
    .params_bytes = sizeof(struct layout),
    .parse = parse,
    .check = check,
    .run = run,
};
