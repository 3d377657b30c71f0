/* to_tensor: picture → what a model reads, in one pass: channel order, (x - mean) * scale, dtype
 * and layout. A byte has 256 values, so arithmetic is a table made once, exact to the last bit. */
#include <string.h>

#include "flow/params.h"
#include "flow/simd.h"
#include "flow/steps.h"

enum channels { CH_RGB, CH_BGR, CH_GRAY };
enum layout { NHWC, NCHW };

static const char *const channel_names[] = {"RGB", "BGR", "GRAY", NULL};
static const char *const layout_names[] = {"NHWC", "NCHW", NULL};
static const char *const dtype_names[] = {"FP32", "FP16", "UINT8", NULL};
static const enum xi_dtype dtypes[] = {XI_DT_FP32, XI_DT_FP16, XI_DT_UINT8};

struct to_tensor {
    enum channels channels;
    enum layout layout;
    enum xi_dtype dtype;
    uint32_t n; /* channels of the tensor */
    float f32[3][256];
    uint16_t f16[3][256];
};

static void fill_tables(struct to_tensor *self, const struct xi_affine *a)
{
    for (uint32_t c = 0; c < self->n; c++) {
        uint32_t k = a->n == 1 ? 0 : c;
        for (int v = 0; v < 256; v++) {
            self->f32[c][v] = (float)((v - a->mean[k]) * a->scale[k]);
            self->f16[c][v] = xi_float_to_half(self->f32[c][v]);
        }
    }
}

static int changes_values(const struct xi_affine *a)
{
    for (uint32_t i = 0; i < a->n; i++)
        if (a->mean[i] < 0 || a->mean[i] > 0 || a->scale[i] < 1 || a->scale[i] > 1)
            return 1;
    return 0;
}

static enum xi_rc parse_numbers(struct to_tensor *self, const json_t *obj, struct xi_err *err)
{
    struct xi_affine a = {0};
    enum xi_rc rc = xi_param_affine(obj, &a, err);

    if (rc != XI_OK)
        return rc;
    if (a.n != 1 && a.n != self->n)
        return xi_fail(err, XI_EINVAL, "mean, std or scale have %u numbers for %u channels", a.n,
                       self->n);
    if (self->dtype == XI_DT_UINT8 && changes_values(&a))
        return xi_fail(err, XI_EINVAL, "dtype UINT8 takes no mean, std or scale");
    fill_tables(self, &a);
    return XI_OK;
}

static enum xi_rc parse(struct xi_flow_parser *p, const json_t *obj, void *params,
                        struct xi_err *err)
{
    struct to_tensor *self = params;
    int channels = 0, layout = 0, dtype = 0;
    enum xi_rc rc = xi_param_choice(obj, "channels", channel_names, CH_RGB, &channels, err);

    (void)p;
    if (rc == XI_OK)
        rc = xi_param_choice(obj, "layout", layout_names, NHWC, &layout, err);
    if (rc == XI_OK)
        rc = xi_param_choice(obj, "dtype", dtype_names, 0, &dtype, err);
    if (rc != XI_OK)
        return rc;
    self->channels = (enum channels)channels;
    self->layout = (enum layout)layout;
    self->dtype = dtypes[dtype];
    self->n = channels == CH_GRAY ? 1 : 3;
    return parse_numbers(self, obj, err);
}

static void shape(const struct to_tensor *self, int64_t height, int64_t width, int64_t dims[4])
{
    dims[0] = 1;
    dims[1] = self->layout == NHWC ? height : self->n;
    dims[2] = self->layout == NHWC ? width : height;
    dims[3] = self->layout == NHWC ? self->n : width;
}

static enum xi_rc check(const struct xi_flow *flow, const struct xi_flow_step *step,
                        struct xi_flow_type *types, struct xi_err *err)
{
    const struct to_tensor *self = step->params;
    const struct xi_flow_type *in = &types[step->in[0]];
    enum xi_rc rc = xi_want_kind(flow, types, step->in[0], XI_VALUE_PICTURE, err);
    int64_t dims[4];

    shape(self, in->dims[0], in->dims[1], dims);
    types[step->out[0]] = xi_type_tensor(self->dtype, 4, dims);
    return rc;
}

/* The channel's bytes lie `step` elements apart in both src and dst. */
XI_HOT static void spread_f32(const float table[256], const uint8_t *src, size_t src_step,
                              float *dst, size_t dst_step, size_t n)
{
    for (size_t i = 0; i < n; i++)
        dst[i * dst_step] = table[src[i * src_step]];
}

static void spread_f16(const uint16_t table[256], const uint8_t *src, size_t src_step,
                       uint16_t *dst, size_t dst_step, size_t n)
{
    for (size_t i = 0; i < n; i++)
        dst[i * dst_step] = table[src[i * src_step]];
}

static void spread_u8(const uint8_t *src, size_t src_step, uint8_t *dst, size_t dst_step, size_t n)
{
    for (size_t i = 0; i < n; i++)
        dst[i * dst_step] = src[i * src_step];
}

/* Pillow's convert("L"). */
XI_HOT static void make_gray(const uint8_t *rgb, uint8_t *gray, size_t n)
{
    for (size_t i = 0; i < n; i++, rgb += 3)
        gray[i] = (uint8_t)((rgb[0] * 19595u + rgb[1] * 38470u + rgb[2] * 7471u + 0x8000u) >> 16);
}

static void spread(const struct to_tensor *self, uint32_t c, const uint8_t *src, void *data,
                   size_t n)
{
    size_t src_step = self->n, dst_step = self->layout == NHWC ? self->n : 1;
    size_t at = self->layout == NHWC ? c : c * n;

    src += self->channels == CH_BGR ? 2 - c : c;
    if (self->dtype == XI_DT_FP32)
        spread_f32(self->f32[c], src, src_step, (float *)data + at, dst_step, n);
    else if (self->dtype == XI_DT_FP16)
        spread_f16(self->f16[c], src, src_step, (uint16_t *)data + at, dst_step, n);
    else
        spread_u8(src, src_step, (uint8_t *)data + at, dst_step, n);
}

static enum xi_rc run(struct xi_flow_run *r, const struct xi_flow_step *step, struct xi_err *err)
{
    const struct to_tensor *self = step->params;
    const struct xi_picture *in = &r->values[step->in[0]].picture;
    struct xi_flow_value *v = &r->values[step->out[0]];
    const uint8_t *src = in->pixels;
    size_t n = (size_t)in->columns * in->rows;
    int64_t dims[4];

    shape(self, in->rows, in->columns, dims);
    enum xi_rc rc = xi_flow_make_tensor(v, self->dtype, dims, 4, err);
    if (rc == XI_OK && self->channels == CH_GRAY)
        rc = xi_flow_need(&r->scratch[XI_SCRATCH_A], n, err);
    if (rc != XI_OK)
        return rc;
    if (self->channels == CH_GRAY) {
        make_gray(src, r->scratch[XI_SCRATCH_A].data, n);
        src = r->scratch[XI_SCRATCH_A].data;
    }
    for (uint32_t c = 0; c < self->n; c++)
        spread(self, c, src, v->tensor.data, n);
    return XI_OK;
}

static const char *const keys[] = {"op",    "in",     "out",   "mean",     "std",
                                   "scale", "layout", "dtype", "channels", NULL};

const struct xi_step_kind xi_step_to_tensor = {
    .op = "to_tensor",
    .keys = keys,
    .min_in = 1,
    .max_in = 1,
    .min_out = 1,
    .max_out = 1,
    .params_bytes = sizeof(struct to_tensor),
    .parse = parse,
    .check = check,
    .run = run,
};
