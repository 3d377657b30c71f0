/* cast: another element type. Integers are rounded to nearest and held to their range. */
#include <math.h>

#include "flow/params.h"
#include "flow/steps.h"

static const char *const names[] = {"FP32", "FP16", "UINT8", "INT8", "INT32", "INT64", NULL};
static const enum xi_dtype dtypes[] = {XI_DT_FP32, XI_DT_FP16,  XI_DT_UINT8,
                                       XI_DT_INT8, XI_DT_INT32, XI_DT_INT64};

struct cast {
    enum xi_dtype dtype;
};

static enum xi_rc parse(struct xi_flow_parser *p, const json_t *obj, void *params,
                        struct xi_err *err)
{
    struct cast *self = params;
    int at = 0;
    enum xi_rc rc = xi_param_choice(obj, "dtype", names, -1, &at, err);

    (void)p;
    self->dtype = dtypes[at];
    return rc;
}

static int castable(enum xi_dtype dtype)
{
    for (size_t i = 0; i < sizeof dtypes / sizeof dtypes[0]; i++)
        if (dtypes[i] == dtype)
            return 1;
    return 0;
}

static enum xi_rc check_dtype(const char *name, enum xi_dtype dtype, struct xi_err *err)
{
    if (castable(dtype))
        return XI_OK;
    return xi_fail(err, XI_EFLOW, "\"%.60s\" is %s, which has no cast", name, xi_dtype_name(dtype));
}

static enum xi_rc check(const struct xi_flow *flow, const struct xi_flow_step *step,
                        struct xi_flow_type *types, struct xi_err *err)
{
    const struct cast *self = step->params;
    const struct xi_flow_type *in = &types[step->in[0]];
    enum xi_rc rc = xi_want_tensor(flow, types, step->in[0], XI_DT_UNKNOWN, err);

    if (rc == XI_OK && in->dtype != XI_DT_UNKNOWN)
        rc = check_dtype(xi_slot_name(flow, step->in[0]), in->dtype, err);
    types[step->out[0]] = xi_type_tensor(self->dtype, in->rank, in->dims);
    return rc;
}

static double get(const struct xi_tensor *t, uint64_t i)
{
    switch (t->dtype) {
    case XI_DT_FP16:
        return (double)xi_half_to_float(((const uint16_t *)t->data)[i]);
    case XI_DT_UINT8:
        return ((const uint8_t *)t->data)[i];
    case XI_DT_INT8:
        return ((const int8_t *)t->data)[i];
    case XI_DT_INT32:
        return ((const int32_t *)t->data)[i];
    case XI_DT_INT64:
        return (double)((const int64_t *)t->data)[i];
    default:
        return (double)((const float *)t->data)[i];
    }
}

static double whole(double v, double low, double high)
{
    return isnan(v) ? 0 : fmin(fmax(nearbyint(v), low), high);
}

static void put(struct xi_tensor *t, uint64_t i, double v)
{
    switch (t->dtype) {
    case XI_DT_FP16:
        ((uint16_t *)t->data)[i] = xi_float_to_half((float)v);
        break;
    case XI_DT_UINT8:
        ((uint8_t *)t->data)[i] = (uint8_t)whole(v, 0, UINT8_MAX);
        break;
    case XI_DT_INT8:
        ((int8_t *)t->data)[i] = (int8_t)whole(v, INT8_MIN, INT8_MAX);
        break;
    case XI_DT_INT32:
        ((int32_t *)t->data)[i] = (int32_t)whole(v, INT32_MIN, INT32_MAX);
        break;
    case XI_DT_INT64: /* 2^63 itself is no int64 */
        ((int64_t *)t->data)[i] = (int64_t)whole(v, -0x1p63, 0x1.fffffffffffffp62);
        break;
    default:
        ((float *)t->data)[i] = (float)v;
    }
}

static enum xi_rc run(struct xi_flow_run *r, const struct xi_flow_step *step, struct xi_err *err)
{
    const struct cast *self = step->params;
    const struct xi_tensor *in = &r->values[step->in[0]].tensor;
    struct xi_flow_value *v = &r->values[step->out[0]];
    enum xi_rc rc = check_dtype(xi_slot_name(r->flow, step->in[0]), (enum xi_dtype)in->dtype, err);

    if (rc == XI_OK)
        rc = xi_flow_make_tensor(v, self->dtype, in->dims, in->rank, err);
    if (rc != XI_OK)
        return rc;
    uint64_t n = xi_tensor_elements(in);
    for (uint64_t i = 0; i < n; i++)
        put(&v->tensor, i, get(in, i));
    return XI_OK;
}

static const char *const keys[] = {"op", "in", "out", "dtype", NULL};

const struct xi_step_kind xi_step_cast = {
    .op = "cast",
    .keys = keys,
    .min_in = 1,
    .max_in = 1,
    .min_out = 1,
    .max_out = 1,
    .params_bytes = sizeof(struct cast),
    .parse = parse,
    .check = check,
    .run = run,
};
