/* ssd_decode: box codes relative to anchors → boxes x0, y0, x1, y1 in parts of the picture.
 *
 * Anchors after MediaPipe's ssd_anchors_calculator; box codes after the TensorFlow Object Detection
 * API's Faster R-CNN coder. Anchors are made once, when the flow is parsed. */
#include <math.h>
#include <stdlib.h>

#include "flow/params.h"
#include "flow/steps.h"

enum { LAYERS_MAX = 32, RATIOS_MAX = 16, BOX_ORDER_XYWH = 1 };

static const char *const orders[] = {"yxhw", "xywh", NULL};

struct anchor {
    float x, y, w, h;
};

/* What the anchors follow from. */
struct grid {
    double width, height, offset, min_scale, max_scale, interpolated_ratio;
    double strides[LAYERS_MAX], ratios[RATIOS_MAX];
    uint32_t n_strides, n_ratios;
    int reduce_lowest, fixed_size;
};

struct ssd {
    struct anchor *anchors;
    uint32_t n;
    float scales[4]; /* of y, x, h, w */
    int xywh, exponential;
};

struct anchors {
    struct anchor *at;
    uint32_t n, room;
};

static enum xi_rc add_anchor(struct anchors *a, struct anchor anchor, struct xi_err *err)
{
    if (a->n == XI_FLOW_BOXES_MAX)
        return xi_fail(err, XI_EFLOW, "over %d anchors", XI_FLOW_BOXES_MAX);
    if (a->n == a->room) {
        uint32_t room = a->room ? 2 * a->room : 1024;
        struct anchor *at = realloc(a->at, room * sizeof *at);
        if (at == NULL)
            return xi_fail(err, XI_ENOMEM, "anchors: out of memory");
        a->at = at;
        a->room = room;
    }
    a->at[a->n++] = anchor;
    return XI_OK;
}

static double layer_scale(const struct grid *g, uint32_t layer)
{
    if (layer >= g->n_strides)
        return 1;
    if (g->n_strides == 1)
        return (g->min_scale + g->max_scale) / 2;
    return g->min_scale + (g->max_scale - g->min_scale) * layer / (g->n_strides - 1);
}

struct shapes {
    double w[LAYERS_MAX * (RATIOS_MAX + 1)], h[LAYERS_MAX * (RATIOS_MAX + 1)];
    uint32_t n;
};

static void add_shape(struct shapes *s, double scale, double ratio)
{
    s->w[s->n] = scale * sqrt(ratio);
    s->h[s->n++] = scale / sqrt(ratio);
}

/* The anchor shapes of one layer. */
static void layer_shapes(const struct grid *g, uint32_t layer, struct shapes *s)
{
    double scale = layer_scale(g, layer);

    if (layer == 0 && g->reduce_lowest) {
        add_shape(s, 0.1, 1);
        add_shape(s, scale, 2);
        add_shape(s, scale, 0.5);
        return;
    }
    for (uint32_t i = 0; i < g->n_ratios; i++)
        add_shape(s, scale, g->ratios[i]);
    if (g->interpolated_ratio > 0)
        add_shape(s, sqrt(scale * layer_scale(g, layer + 1)), g->interpolated_ratio);
}

static enum xi_rc add_cell(const struct grid *g, const struct shapes *s, double x, double y,
                           struct anchors *a, struct xi_err *err)
{
    for (uint32_t i = 0; i < s->n; i++) {
        struct anchor anchor = {.x = (float)x,
                                .y = (float)y,
                                .w = g->fixed_size ? 1 : (float)s->w[i],
                                .h = g->fixed_size ? 1 : (float)s->h[i]};
        enum xi_rc rc = add_anchor(a, anchor, err);
        if (rc != XI_OK)
            return rc;
    }
    return XI_OK;
}

/* Neighbouring layers of one stride share their cells. */
static enum xi_rc add_layers(const struct grid *g, uint32_t *layer, struct anchors *a,
                             struct xi_err *err)
{
    struct shapes s = {.n = 0};
    double stride = g->strides[*layer];
    uint32_t columns = (uint32_t)ceil(g->width / stride);
    uint32_t rows = (uint32_t)ceil(g->height / stride);

    for (; *layer < g->n_strides && fabs(g->strides[*layer] - stride) < 0.5; ++*layer)
        layer_shapes(g, *layer, &s);
    for (uint32_t y = 0; y < rows; y++)
        for (uint32_t x = 0; x < columns; x++) {
            enum xi_rc rc =
                add_cell(g, &s, (x + g->offset) / columns, (y + g->offset) / rows, a, err);
            if (rc != XI_OK)
                return rc;
        }
    return XI_OK;
}

static enum xi_rc make_anchors(const struct grid *g, struct ssd *self, struct xi_err *err)
{
    struct anchors a = {0};
    enum xi_rc rc = XI_OK;

    for (uint32_t layer = 0; rc == XI_OK && layer < g->n_strides;)
        rc = add_layers(g, &layer, &a, err);
    self->anchors = a.at; /* also after a failure: fini frees them */
    self->n = a.n;
    return rc;
}

static enum xi_rc parse_grid(const json_t *obj, struct grid *g, struct xi_err *err)
{
    enum xi_rc rc =
        xi_json_number(obj, "", "width", XI_JSON_REQUIRED, 1, XI_IMAGE_SIDE_MAX, &g->width, err);

    if (rc == XI_OK)
        rc = xi_json_number(obj, "", "height", XI_JSON_REQUIRED, 1, XI_IMAGE_SIDE_MAX, &g->height,
                            err);
    if (rc == XI_OK)
        rc = xi_param_numbers(obj, "strides", 1, XI_IMAGE_SIDE_MAX, LAYERS_MAX, g->strides,
                              &g->n_strides, err);
    if (rc == XI_OK && g->n_strides == 0)
        rc = xi_fail(err, XI_EINVAL, "strides is missing");
    if (rc == XI_OK)
        rc = xi_json_number(obj, "", "min_scale", XI_JSON_OPTIONAL, 0.001, 10, &g->min_scale, err);
    if (rc == XI_OK)
        rc = xi_json_number(obj, "", "max_scale", XI_JSON_OPTIONAL, 0.001, 10, &g->max_scale, err);
    if (rc == XI_OK)
        rc = xi_param_numbers(obj, "aspect_ratios", 0.01, 100, RATIOS_MAX, g->ratios, &g->n_ratios,
                              err);
    if (rc == XI_OK)
        rc = xi_json_number(obj, "", "interpolated_scale_aspect_ratio", XI_JSON_OPTIONAL, 0, 100,
                            &g->interpolated_ratio, err);
    if (rc == XI_OK)
        rc = xi_json_bool(obj, "", "reduce_boxes_in_lowest_layer", XI_JSON_OPTIONAL,
                          &g->reduce_lowest, err);
    if (rc == XI_OK)
        rc = xi_json_bool(obj, "", "fixed_anchor_size", XI_JSON_OPTIONAL, &g->fixed_size, err);
    if (rc == XI_OK)
        rc = xi_json_number(obj, "", "anchor_offset", XI_JSON_OPTIONAL, 0, 1, &g->offset, err);
    return rc;
}

static enum xi_rc parse_coder(const json_t *obj, struct ssd *self, struct xi_err *err)
{
    double scales[4] = {10, 10, 5, 5};
    uint32_t n = 4;
    enum xi_rc rc = xi_param_numbers(obj, "scales", 1e-6, 1e6, 4, scales, &n, err);

    if (rc == XI_OK && n != 4)
        rc = xi_fail(err, XI_EINVAL, "scales has %u numbers, wanted are 4 (y, x, h, w)", n);
    for (int i = 0; i < 4; i++)
        self->scales[i] = (float)scales[i];
    self->exponential = 1;
    if (rc == XI_OK)
        rc = xi_param_choice(obj, "box_order", orders, 0, &self->xywh, err);
    if (rc == XI_OK)
        rc = xi_json_bool(obj, "", "exponential", XI_JSON_OPTIONAL, &self->exponential, err);
    return rc;
}

static enum xi_rc parse(struct xi_flow_parser *p, const json_t *obj, void *params,
                        struct xi_err *err)
{
    struct ssd *self = params;
    struct grid g = {.offset = 0.5,
                     .min_scale = 0.2,
                     .max_scale = 0.95,
                     .interpolated_ratio = 1,
                     .ratios = {1, 2, 0.5, 3, 0.3333},
                     .n_ratios = 5};
    enum xi_rc rc = parse_grid(obj, &g, err);

    (void)p;
    if (rc == XI_OK)
        rc = parse_coder(obj, self, err);
    return rc == XI_OK ? make_anchors(&g, self, err) : rc;
}

static void fini(void *params)
{
    free(((struct ssd *)params)->anchors);
}

/* [n, ≥4] or [1, n, ≥4], n the number of anchors; both at parse time and at run time. */
static enum xi_rc check_shape(const struct ssd *self, const char *name, int32_t rank,
                              const int64_t *dims, struct xi_err *err)
{
    if (rank < 0)
        return XI_OK;
    if ((rank != 2 && rank != 3) || (rank == 3 && dims[0] >= 0 && dims[0] != 1))
        return xi_fail(err, XI_EFLOW, "\"%.60s\" has rank %d, wanted is [n,4] or [1,n,4]", name,
                       rank);
    if (dims[rank - 2] >= 0 && dims[rank - 2] != self->n)
        return xi_fail(err, XI_EFLOW, "\"%.60s\" has %lld boxes, the anchors are %u", name,
                       (long long)dims[rank - 2], self->n);
    if (dims[rank - 1] >= 0 && dims[rank - 1] < 4)
        return xi_fail(err, XI_EFLOW, "\"%.60s\" has %lld numbers a box, wanted are 4", name,
                       (long long)dims[rank - 1]);
    return XI_OK;
}

static enum xi_rc check(const struct xi_flow *flow, const struct xi_flow_step *step,
                        struct xi_flow_type *types, struct xi_err *err)
{
    const struct ssd *self = step->params;
    const struct xi_flow_type *in = &types[step->in[0]];
    const int64_t dims[2] = {self->n, 4};
    enum xi_rc rc = xi_want_tensor(flow, types, step->in[0], XI_DT_FP32, err);

    if (rc == XI_OK)
        rc = check_shape(self, xi_slot_name(flow, step->in[0]), in->rank, in->dims, err);
    types[step->out[0]] = xi_type_tensor(XI_DT_FP32, 2, dims);
    return rc;
}

static void decode(const struct ssd *self, const struct anchor *a, const float *code, float *box)
{
    int flip = self->xywh;
    float y = code[flip ? 1 : 0] / self->scales[0] * a->h + a->y;
    float x = code[flip ? 0 : 1] / self->scales[1] * a->w + a->x;
    float h = code[flip ? 3 : 2] / self->scales[2], w = code[flip ? 2 : 3] / self->scales[3];

    h = (self->exponential ? expf(h) : h) * a->h / 2;
    w = (self->exponential ? expf(w) : w) * a->w / 2;
    box[0] = x - w;
    box[1] = y - h;
    box[2] = x + w;
    box[3] = y + h;
}

static enum xi_rc run(struct xi_flow_run *r, const struct xi_flow_step *step, struct xi_err *err)
{
    const struct ssd *self = step->params;
    const struct xi_tensor *in = &r->values[step->in[0]].tensor;
    struct xi_flow_value *v = &r->values[step->out[0]];
    const int64_t dims[2] = {self->n, 4};
    enum xi_rc rc = xi_flow_want(r, step->in[0], XI_DT_FP32, err);

    if (rc == XI_OK)
        rc = check_shape(self, xi_slot_name(r->flow, step->in[0]), in->rank, in->dims, err);
    if (rc == XI_OK)
        rc = xi_flow_make_tensor(v, XI_DT_FP32, dims, 2, err);
    if (rc != XI_OK)
        return rc;
    size_t stride = (size_t)in->dims[in->rank - 1];
    for (uint32_t i = 0; i < self->n; i++)
        decode(self, &self->anchors[i], (const float *)in->data + i * stride,
               (float *)v->tensor.data + 4 * (size_t)i);
    return XI_OK;
}

static const char *const keys[] = {"op",
                                   "in",
                                   "out",
                                   "width",
                                   "height",
                                   "strides",
                                   "min_scale",
                                   "max_scale",
                                   "aspect_ratios",
                                   "interpolated_scale_aspect_ratio",
                                   "reduce_boxes_in_lowest_layer",
                                   "fixed_anchor_size",
                                   "anchor_offset",
                                   "scales",
                                   "box_order",
                                   "exponential",
                                   NULL};

const struct xi_step_kind xi_step_ssd_decode = {
    .op = "ssd_decode",
    .keys = keys,
    .min_in = 1,
    .max_in = 1,
    .min_out = 1,
    .max_out = 1,
    .params_bytes = sizeof(struct ssd),
    .parse = parse,
    .check = check,
    .run = run,
    .fini = fini,
};
