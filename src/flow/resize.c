#include "flow/resize.h"

#include <math.h>
#include <string.h>

static uint32_t at_least_one(double v)
{
    return v < 1 ? 1 : (uint32_t)lround(v);
}

static void plan_letterbox(const struct xi_resize *r, uint32_t width, uint32_t height,
                           struct xi_resize_plan *p)
{
    double fit = fmin((double)r->width / width, (double)r->height / height);

    p->width = at_least_one(width * fit);
    p->height = at_least_one(height * fit);
    if (p->width > r->width)
        p->width = r->width;
    if (p->height > r->height)
        p->height = r->height;
    p->x = (r->width - p->width) / 2;
    p->y = (r->height - p->height) / 2;
}

static void plan_crop(const struct xi_resize *r, uint32_t width, uint32_t height,
                      struct xi_resize_plan *p)
{
    double fit = fmax((double)r->width / width, (double)r->height / height);
    double w = r->width / fit * r->crop_fraction, h = r->height / fit * r->crop_fraction;

    p->x0 = (width - w) / 2;
    p->y0 = (height - h) / 2;
    p->x1 = fmin(p->x0 + w, width);
    p->y1 = fmin(p->y0 + h, height);
    p->x0 = fmax(p->x0, 0);
    p->y0 = fmax(p->y0, 0);
}

void xi_resize_plan(const struct xi_resize *r, uint32_t width, uint32_t height,
                    struct xi_resize_plan *ret)
{
    *ret =
        (struct xi_resize_plan){.x1 = width, .y1 = height, .width = r->width, .height = r->height};
    if (r->mode == XI_LETTERBOX)
        plan_letterbox(r, width, height, ret);
    if (r->mode == XI_CROP)
        plan_crop(r, width, height, ret);
}

uint32_t xi_resize_denominator(const struct xi_resize *r, uint32_t width, uint32_t height)
{
    /* Source pixels that must be left for each result pixel: measured so that the mean difference
     * stays under 1/255 on every photograph tried (docs/flow.md, "Reduced decoding"). */
    static const struct {
        uint32_t denominator;
        double left;
    } steps[] = {{8, 2.25}, {4, 2.25}, {2, 1.75}};
    struct xi_resize_plan p;

    if (r->filter != XI_AREA_BILINEAR)
        return 1;
    xi_resize_plan(r, width, height, &p);
    double ratio = fmin((p.x1 - p.x0) / p.width, (p.y1 - p.y0) / p.height);
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++)
        if (ratio / steps[i].denominator >= steps[i].left)
            return steps[i].denominator;
    return 1;
}

static void fill(uint8_t *dst, size_t pixels, const uint8_t colour[3])
{
    for (size_t i = 0; i < pixels; i++)
        memcpy(dst + 3 * i, colour, 3);
}

enum xi_rc xi_resize_run(const struct xi_resize *r, const struct xi_picture *src, uint8_t *dst,
                         struct xi_flow_buf *taps, struct xi_flow_buf *rows, struct xi_err *err)
{
    struct xi_resize_plan p;

    xi_resize_plan(r, src->width, src->height, &p);
    double sx = (src->x1 - src->x0) / src->width, sy = (src->y1 - src->y0) / src->height;
    struct xi_resize_job job = {
        .src = src,
        .x0 = src->x0 + p.x0 * sx,
        .y0 = src->y0 + p.y0 * sy,
        .x1 = src->x0 + p.x1 * sx,
        .y1 = src->y0 + p.y1 * sy,
        .dst = dst + 3 * ((size_t)p.y * r->width + p.x),
        .width = p.width,
        .height = p.height,
        .stride = 3 * (size_t)r->width,
    };
    if (p.width < r->width || p.height < r->height)
        fill(dst, (size_t)r->width * r->height, r->pad);
    if (r->filter == XI_AREA_BILINEAR)
        return xi_resize_area(&job, taps, rows, err);
    if (r->filter == XI_BILINEAR)
        return xi_resize_bilinear(&job, taps, rows, err);
    return xi_resize_nearest(&job, taps, err);
}
