/* normalise: tensor → FP32 tensor of the same shape, (x - mean) * scale along one axis. */
#include "flow/params.h"
#include "flow/steps.h"

struct normalise {
    struct xi_affine affine;
    int64_t axis; /* -1: the last */
};

static enum xi_rc parse(struct xi_flow_parser *p, const json_t *obj, void *params,
                        struct xi_err *err)
{
    struct normalise *self = params;

    (void)p;
    self->axis = -1;
    enum xi_rc rc = xi_param_affine(obj, &self->affine, err);
    if (rc == XI_OK)
        rc = xi_json_int(obj, "", "axis", XI_JSON_OPTIONAL, -1, XI_MAX_RANK - 1, &self->axis, err);
    return rc;
}

/* Rank and dims against the parameters; both at parse time and at run time. */
static enum xi_rc check_shape(const struct normalise *self, const char *name, int32_t rank,
                              const int64_t *dims, struct xi_err *err)
{
    if (rank < 0 || self->affine.n == 1)
        return XI_OK;
    if (rank == 0 || self->axis >= rank)
        return xi_fail(err, XI_EFLOW, "\"%.60s\" has rank %d, so no axis %lld", name, rank,
                       (long long)self->axis);
    int64_t dim = dims[self->axis < 0 ? rank - 1 : self->axis];
    if (dim >= 0 && dim != self->affine.n)
        return xi_fail(err, XI_EFLOW, "\"%.60s\" has %lld channels, mean or scale have %u", name,
                       (long long)dim, self->affine.n);
    return XI_OK;
}

static enum xi_rc check(const struct xi_flow *flow, const struct xi_flow_step *step,
                        struct xi_flow_type *types, struct xi_err *err)
{
    const struct normalise *self = step->params;
    const struct xi_flow_type *in = &types[step->in[0]];
    enum xi_rc rc = xi_want_tensor(flow, types, step->in[0], XI_DT_UNKNOWN, err);

    if (rc == XI_OK && in->dtype != XI_DT_UNKNOWN && in->dtype != XI_DT_FP32 &&
        in->dtype != XI_DT_UINT8)
        rc = xi_fail(err, XI_EFLOW, "\"%.60s\" is %s, wanted is UINT8 or FP32",
                     xi_slot_name(flow, step->in[0]), xi_dtype_name(in->dtype));
    if (rc == XI_OK)
        rc = check_shape(self, xi_slot_name(flow, step->in[0]), in->rank, in->dims, err);
    types[step->out[0]] = xi_type_tensor(XI_DT_FP32, in->rank, in->dims);
    return rc;
}

static void apply(const struct normalise *self, const struct xi_tensor *in, float *dst)
{
    uint64_t n = xi_tensor_elements(in), inner = 1;
    int axis = self->axis < 0 ? in->rank - 1 : (int)self->axis;
    const struct xi_affine *a = &self->affine;

    for (int i = axis + 1; i < in->rank; i++)
        inner *= (uint64_t)in->dims[i];
    for (uint64_t i = 0; i < n; i++) {
        uint64_t c = a->n == 1 ? 0 : i / inner % a->n;
        double v = in->dtype == XI_DT_UINT8 ? ((const uint8_t *)in->data)[i]
                                            : (double)((const float *)in->data)[i];
        dst[i] = (float)((v - a->mean[c]) * a->scale[c]);
    }
}

static enum xi_rc run(struct xi_flow_run *r, const struct xi_flow_step *step, struct xi_err *err)
{
    const struct normalise *self = step->params;
    const struct xi_tensor *in = &r->values[step->in[0]].tensor;
    struct xi_flow_value *v = &r->values[step->out[0]];
    enum xi_rc rc = XI_OK;

    if (in->dtype != XI_DT_UINT8)
        rc = xi_flow_want(r, step->in[0], XI_DT_FP32, err);
    if (rc == XI_OK)
        rc = check_shape(self, xi_slot_name(r->flow, step->in[0]), in->rank, in->dims, err);
    if (rc == XI_OK)
        rc = xi_flow_make_tensor(v, XI_DT_FP32, in->dims, in->rank, err);
    if (rc == XI_OK)
        apply(self, in, v->tensor.data);
    return rc;
}

static const char *const keys[] = {"op", "in", "out", "mean", "std", "scale", "axis", NULL};

const struct xi_step_kind xi_step_normalise = {
    .op = "normalise",
    .keys = keys,
    .min_in = 1,
    .max_in = 1,
    .min_out = 1,
    .max_out = 1,
    .params_bytes = sizeof(struct normalise),
    .parse = parse,
    .check = check,
    .run = run,
};
