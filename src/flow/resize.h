/* resize.h: pictures to another size.
 *
 * Filters, each by the rules of the library people trained with:
 *  area-bilinear  Pillow's BILINEAR (Pillow, src/libImaging/Resample.c): two passes of a triangle
 *                 as wide as the shrinking, 22-bit fixed point, 8 bits between the passes
 *  bilinear       OpenCV's INTER_LINEAR: four neighbours, half-pixel centres, 11-bit fixed point
 *  nearest        Pillow's NEAREST: the pixel under the centre
 * Pure functions over the caller's memory; any thread. */
#ifndef XI_FLOW_RESIZE_H
#define XI_FLOW_RESIZE_H

#include <stdint.h>

#include "flow/step.h"

enum xi_filter { XI_AREA_BILINEAR, XI_BILINEAR, XI_NEAREST };
enum xi_resize_mode { XI_STRETCH, XI_LETTERBOX, XI_CROP };

struct xi_resize {
    enum xi_filter filter;
    enum xi_resize_mode mode;
    uint32_t width, height;
    uint8_t pad[3];       /* letterbox: colour of the bars */
    double crop_fraction; /* crop: how much of the largest fitting part is taken */
};

/* What goes where: a part of the source fills a rectangle of the result. */
struct xi_resize_plan {
    double x0, y0, x1, y1; /* in full-size pixels of the source */
    uint32_t x, y, width, height;
};

void xi_resize_plan(const struct xi_resize *r, uint32_t width, uint32_t height,
                    struct xi_resize_plan *ret);
/* The largest of 1, 2, 4, 8 by which a source of that size may be reduced beforehand so that the
 * result stays the same to the eye of a model (area-bilinear only; measured in docs/flow.md). */
uint32_t xi_resize_denominator(const struct xi_resize *r, uint32_t width, uint32_t height);
/* dst has r->width × r->height × 3 bytes. Scratch is grown as needed. */
enum xi_rc xi_resize_run(const struct xi_resize *r, const struct xi_picture *src, uint8_t *dst,
                         struct xi_flow_buf *taps, struct xi_flow_buf *rows,
                         struct xi_err *err) XI_MUST_CHECK;

/* Inside: a plan's part of src (in its own pixels) to width × height at dst, rows `stride` bytes
 * apart. resize_area.c, resize_point.c */
struct xi_resize_job {
    const struct xi_picture *src;
    double x0, y0, x1, y1;
    uint8_t *dst;
    uint32_t width, height;
    size_t stride;
};
enum xi_rc xi_resize_area(const struct xi_resize_job *job, struct xi_flow_buf *taps,
                          struct xi_flow_buf *rows, struct xi_err *err) XI_MUST_CHECK;
enum xi_rc xi_resize_bilinear(const struct xi_resize_job *job, struct xi_flow_buf *taps,
                              struct xi_flow_buf *rows, struct xi_err *err) XI_MUST_CHECK;
enum xi_rc xi_resize_nearest(const struct xi_resize_job *job, struct xi_flow_buf *taps,
                             struct xi_err *err) XI_MUST_CHECK;

#endif
