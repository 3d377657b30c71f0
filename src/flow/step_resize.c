/* resize: picture → picture of a fixed size. */
#include "flow/params.h"
#include "flow/resize.h"
#include "flow/steps.h"

static const char *const filters[] = {"area-bilinear", "bilinear", "nearest", NULL};
static const char *const modes[] = {"stretch", "letterbox", "crop", NULL};

static enum xi_rc parse_size(const json_t *obj, struct xi_resize *self, struct xi_err *err)
{
    int64_t width = 0, height = 0;
    enum xi_rc rc =
        xi_json_int(obj, "", "width", XI_JSON_REQUIRED, 1, XI_FLOW_RESIZE_SIDE_MAX, &width, err);

    if (rc == XI_OK)
        rc = xi_json_int(obj, "", "height", XI_JSON_REQUIRED, 1, XI_FLOW_RESIZE_SIDE_MAX, &height,
                         err);
    self->width = (uint32_t)width;
    self->height = (uint32_t)height;
    return rc;
}

/* Keys that only one mode reads are an error with the others: they would do nothing. */
static enum xi_rc parse_mode_keys(const json_t *obj, struct xi_resize *self, struct xi_err *err)
{
    double pad[3] = {114, 114, 114};
    uint32_t n = 3;

    if (self->mode != XI_LETTERBOX && json_object_get(obj, "pad") != NULL)
        return xi_fail(err, XI_EINVAL, "pad is for mode \"letterbox\" only");
    if (self->mode != XI_CROP && json_object_get(obj, "crop_fraction") != NULL)
        return xi_fail(err, XI_EINVAL, "crop_fraction is for mode \"crop\" only");
    enum xi_rc rc = xi_param_numbers(obj, "pad", 0, 255, 3, pad, &n, err);
    if (rc == XI_OK && n == 2)
        rc = xi_fail(err, XI_EINVAL, "pad is one number or three (red, green, blue)");
    for (uint32_t c = 0; c < 3; c++)
        self->pad[c] = (uint8_t)pad[n == 1 ? 0 : c];
    self->crop_fraction = 1;
    if (rc == XI_OK)
        rc = xi_json_number(obj, "", "crop_fraction", XI_JSON_OPTIONAL, 0.01, 1,
                            &self->crop_fraction, err);
    return rc;
}

static enum xi_rc parse(struct xi_flow_parser *p, const json_t *obj, void *params,
                        struct xi_err *err)
{
    struct xi_resize *self = params;
    int filter = 0, mode = 0;
    enum xi_rc rc = parse_size(obj, self, err);

    (void)p;
    if (rc == XI_OK)
        rc = xi_param_choice(obj, "filter", filters, -1, &filter, err);
    if (rc == XI_OK)
        rc = xi_param_choice(obj, "mode", modes, XI_STRETCH, &mode, err);
    self->filter = (enum xi_filter)filter;
    self->mode = (enum xi_resize_mode)mode;
    return rc == XI_OK ? parse_mode_keys(obj, self, err) : rc;
}

static enum xi_rc check(const struct xi_flow *flow, const struct xi_flow_step *step,
                        struct xi_flow_type *types, struct xi_err *err)
{
    const struct xi_resize *self = step->params;
    enum xi_rc rc = xi_want_kind(flow, types, step->in[0], XI_VALUE_PICTURE, err);

    types[step->out[0]] = (struct xi_flow_type){.kind = XI_VALUE_PICTURE,
                                                .dtype = XI_DT_UINT8,
                                                .rank = 3,
                                                .dims = {self->height, self->width, 3}};
    return rc;
}

/* The result knows how its coordinates lead back to the picture that was sent. */
static void trace_back(const struct xi_resize *self, const struct xi_picture *src,
                       struct xi_picture *dst)
{
    struct xi_resize_plan p;

    xi_resize_plan(self, src->width, src->height, &p);
    double ax = (p.x1 - p.x0) / p.width, ay = (p.y1 - p.y0) / p.height;
    dst->scale_x = src->scale_x * ax;
    dst->scale_y = src->scale_y * ay;
    dst->shift_x = src->scale_x * (p.x0 - p.x * ax) + src->shift_x;
    dst->shift_y = src->scale_y * (p.y0 - p.y * ay) + src->shift_y;
    dst->sent_width = src->sent_width;
    dst->sent_height = src->sent_height;
}

static enum xi_rc run(struct xi_flow_run *r, const struct xi_flow_step *step, struct xi_err *err)
{
    const struct xi_resize *self = step->params;
    const struct xi_picture *src = &r->values[step->in[0]].picture;
    struct xi_flow_value *v = &r->values[step->out[0]];
    enum xi_rc rc = xi_flow_need(&v->buf, 3 * (uint64_t)self->width * self->height, err);

    if (rc == XI_OK)
        rc = xi_resize_run(self, src, v->buf.data, &r->scratch[XI_SCRATCH_A],
                           &r->scratch[XI_SCRATCH_B], err);
    if (rc != XI_OK)
        return rc;
    v->picture = (struct xi_picture){.pixels = v->buf.data,
                                     .columns = self->width,
                                     .rows = self->height,
                                     .width = self->width,
                                     .height = self->height,
                                     .x1 = self->width,
                                     .y1 = self->height};
    trace_back(self, src, &v->picture);
    return XI_OK;
}

static const char *const keys[] = {"op",     "in",   "out", "width",         "height",
                                   "filter", "mode", "pad", "crop_fraction", NULL};

const struct xi_step_kind xi_step_resize = {
    .op = "resize",
    .keys = keys,
    .min_in = 1,
    .max_in = 1,
    .min_out = 1,
    .max_out = 1,
    .params_bytes = sizeof(struct xi_resize),
    .parse = parse,
    .check = check,
    .run = run,
};
