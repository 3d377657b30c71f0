/* sigmoid: each element; softmax: along the last axis. FP32 in, FP32 out. */
#include <math.h>

#include "flow/simd.h"
#include "flow/steps.h"

static enum xi_rc check(const struct xi_flow *flow, const struct xi_flow_step *step,
                        struct xi_flow_type *types, struct xi_err *err)
{
    const struct xi_flow_type *in = &types[step->in[0]];
    enum xi_rc rc = xi_want_tensor(flow, types, step->in[0], XI_DT_FP32, err);

    types[step->out[0]] = xi_type_tensor(XI_DT_FP32, in->rank, in->dims);
    return rc;
}

/* Both may run on empty tensors; dst is as large as the input. */
static enum xi_rc begin(struct xi_flow_run *r, const struct xi_flow_step *step,
                        const struct xi_tensor **ret_in, float **ret_dst, struct xi_err *err)
{
    const struct xi_tensor *in = &r->values[step->in[0]].tensor;
    struct xi_flow_value *v = &r->values[step->out[0]];
    enum xi_rc rc = xi_flow_want(r, step->in[0], XI_DT_FP32, err);

    if (rc == XI_OK)
        rc = xi_flow_make_tensor(v, XI_DT_FP32, in->dims, in->rank, err);
    *ret_in = in;
    *ret_dst = v->tensor.data;
    return rc;
}

static enum xi_rc run_sigmoid(struct xi_flow_run *r, const struct xi_flow_step *step,
                              struct xi_err *err)
{
    const struct xi_tensor *in = NULL;
    float *dst = NULL;
    enum xi_rc rc = begin(r, step, &in, &dst, err);

    if (rc != XI_OK)
        return rc;
    const float *src = in->data;
    uint64_t n = xi_tensor_elements(in);
    for (uint64_t i = 0; i < n; i++)
        dst[i] = 1 / (1 + expf(-src[i]));
    return XI_OK;
}

/* The largest is taken off first, so that no exponential overflows. */
static void softmax_row(const float *src, float *dst, uint64_t n)
{
    float top = src[0], sum = 0;

    for (uint64_t i = 1; i < n; i++)
        top = fmaxf(top, src[i]);
    for (uint64_t i = 0; i < n; i++) {
        dst[i] = expf(src[i] - top);
        sum += dst[i];
    }
    for (uint64_t i = 0; i < n; i++)
        dst[i] /= sum;
}

static enum xi_rc run_softmax(struct xi_flow_run *r, const struct xi_flow_step *step,
                              struct xi_err *err)
{
    const struct xi_tensor *in = NULL;
    float *dst = NULL;
    enum xi_rc rc = begin(r, step, &in, &dst, err);

    if (rc != XI_OK)
        return rc;
    uint64_t n = xi_tensor_elements(in), row = in->rank > 0 ? (uint64_t)in->dims[in->rank - 1] : 1;
    for (uint64_t i = 0; i < n; i += row)
        softmax_row((const float *)in->data + i, dst + i, row);
    return XI_OK;
}

static const char *const keys[] = {"op", "in", "out", NULL};

const struct xi_step_kind xi_step_sigmoid = {
    .op = "sigmoid",
    .keys = keys,
    .min_in = 1,
    .max_in = 1,
    .min_out = 1,
    .max_out = 1,
    .check = check,
    .run = run_sigmoid,
};

const struct xi_step_kind xi_step_softmax = {
    .op = "softmax",
    .keys = keys,
    .min_in = 1,
    .max_in = 1,
    .min_out = 1,
    .max_out = 1,
    .check = check,
    .run = run_softmax,
};
