/* draw: the sent picture with its detections, as a JPEG. Runs last, only when a picture is asked
 * for, into the decoded pixels themselves. */
#include <math.h>
#include <stdio.h>

#include "flow/canvas.h"
#include "flow/image_decode.h"
#include "flow/jpeg_encode.h"
#include "flow/params.h"
#include "flow/steps.h"

struct draw {
    int64_t quality;
};

static enum xi_rc parse(struct xi_flow_parser *p, const json_t *obj, void *params,
                        struct xi_err *err)
{
    struct draw *self = params;

    (void)p;
    self->quality = 90;
    return xi_json_int(obj, "", "quality", XI_JSON_OPTIONAL, 1, 100, &self->quality, err);
}

static enum xi_rc check(const struct xi_flow *flow, const struct xi_flow_step *step,
                        struct xi_flow_type *types, struct xi_err *err)
{
    enum xi_rc rc = xi_want_kind(flow, types, step->in[0], XI_VALUE_PICTURE, err);

    if (rc == XI_OK && !types[step->in[0]].sent)
        rc = xi_fail(err, XI_EFLOW, "\"%.60s\" is not the picture that was sent (decode_image's)",
                     xi_slot_name(flow, step->in[0]));
    if (rc == XI_OK)
        rc = xi_want_kind(flow, types, step->in[1], XI_VALUE_DETECTIONS, err);
    types[step->out[0]] = xi_type_of(XI_VALUE_DRAWING);
    return rc;
}

/* Hues a golden angle apart: neighbours in the label file differ most. */
static struct xi_colour class_colour(uint32_t label)
{
    double hue = fmod(210 + label * 137.50776, 360) / 60, rest = hue - floor(hue);
    uint8_t low = 40, high = 240;
    uint8_t up = (uint8_t)(low + (high - low) * rest), down = (uint8_t)(low + high - up);

    switch ((int)hue) {
    case 0:
        return (struct xi_colour){high, up, low};
    case 1:
        return (struct xi_colour){down, high, low};
    case 2:
        return (struct xi_colour){low, high, up};
    case 3:
        return (struct xi_colour){low, down, high};
    case 4:
        return (struct xi_colour){up, low, high};
    default:
        return (struct xi_colour){high, low, down};
    }
}

/* Black or white, whichever reads better on it. */
static struct xi_colour text_colour(struct xi_colour on)
{
    int light = on.r * 299 + on.g * 587 + on.b * 114;

    return light > 128000 ? (struct xi_colour){0, 0, 0} : (struct xi_colour){255, 255, 255};
}

struct style {
    int line;       /* of boxes */
    double capital; /* height of capitals */
    int margin;     /* around text in its tag */
};

/* Grows with the picture; small pictures keep text that can just be read. */
static struct style style_for(const struct xi_canvas *c)
{
    double side = sqrt((double)c->width * c->height);
    struct style s = {.capital = fmin(fmax(side * 0.02, 8), 120)};

    s.line = (int)fmax(round(side * 0.0045), 2);
    s.margin = (int)fmax(round(s.capital * 0.45), 3);
    return s;
}

/* Above the box; inside it where the picture ends. */
static void draw_tag(struct xi_canvas *c, const struct style *s, int x, int y, const char *text,
                     struct xi_colour colour)
{
    int width = (int)ceil(xi_canvas_text_width(text, s->capital)) + 2 * s->margin;
    int height = (int)ceil(s->capital * 1.15) + 2 * s->margin;
    int top = y - height < 0 ? y : y - height;

    if (x + width > c->width)
        x = c->width - width;
    if (x < 0)
        x = 0;
    if (top + height > c->height)
        top = c->height - height;
    xi_canvas_fill(c, x, top, x + width, top + height, colour, 255);
    xi_canvas_text(c, x + s->margin, top + s->margin + s->capital, s->capital, text,
                   text_colour(colour));
}

/* Boxes without a picture of their own may lie anywhere; far outside is far enough. */
static int edge(float v)
{
    return (int)lroundf(fminf(fmaxf(v, -1e6f), 1e6f));
}

static void draw_frame(struct xi_canvas *c, const struct style *s, const struct xi_detection *d)
{
    const struct xi_colour black = {0, 0, 0};
    int x0 = edge(d->box[0]), y0 = edge(d->box[1]), x1 = edge(d->box[2]), y1 = edge(d->box[3]);
    int halo = s->line > 3 ? s->line / 3 : 1; /* sets the line off from a picture of its colour */

    xi_canvas_frame(c, x0 - halo, y0 - halo, x1 + halo, y1 + halo, s->line + 2 * halo, black, 90);
    xi_canvas_frame(c, x0, y0, x1, y1, s->line, class_colour(d->label), 255);
}

static void draw_label(struct xi_canvas *c, const struct style *s, const struct xi_flow_value *v,
                       const struct xi_detection *d)
{
    const char *label = xi_label(v->labels, d->label);
    char text[96];

    if (label != NULL)
        (void)snprintf(text, sizeof text, "%.60s %.2f", label, (double)d->score);
    else
        (void)snprintf(text, sizeof text, "#%u %.2f", d->label, (double)d->score);
    draw_tag(c, s, edge(d->box[0]), edge(d->box[1]), text, class_colour(d->label));
}

/* What was decoded at reduced scale is decoded again in full. */
static enum xi_rc full_picture(struct xi_flow_run *r, struct xi_flow_value *v, struct xi_err *err)
{
    struct xi_image_info info;

    if (v->picture.columns == v->picture.width && v->picture.rows == v->picture.height)
        return XI_OK;
    enum xi_rc rc = xi_image_open(r->decoder, r->input, r->bytes, &info, err);
    return rc == XI_OK ? xi_image_read(r->decoder, 1, &v->buf, &v->picture, err) : rc;
}

static enum xi_rc run(struct xi_flow_run *r, const struct xi_flow_step *step, struct xi_err *err)
{
    const struct draw *self = step->params;
    struct xi_flow_value *v = &r->values[step->in[0]];
    const struct xi_flow_value *found = &r->values[step->in[1]];
    enum xi_rc rc = full_picture(r, v, err);

    if (rc != XI_OK)
        return rc;
    struct xi_canvas canvas = {
        .pixels = v->buf.data, .width = (int)v->picture.width, .height = (int)v->picture.height};
    struct style style = style_for(&canvas);
    for (uint32_t i = found->n_found; i > 0; i--) /* the best lies on top, no line crosses text */
        draw_frame(&canvas, &style, &found->found[i - 1]);
    for (uint32_t i = found->n_found; i > 0; i--)
        draw_label(&canvas, &style, found, &found->found[i - 1]);
    return xi_jpeg_encode(v->buf.data, v->picture.width, v->picture.height, (int)self->quality,
                          r->picture, err);
}

static const char *const keys[] = {"op", "in", "out", "quality", NULL};

const struct xi_step_kind xi_step_draw = {
    .op = "draw",
    .keys = keys,
    .min_in = 2,
    .max_in = 2,
    .min_out = 1,
    .max_out = 1,
    .params_bytes = sizeof(struct draw),
    .parse = parse,
    .check = check,
    .run = run,
};
