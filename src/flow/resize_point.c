#include <math.h>
#include <string.h>

#include "flow/resize.h"
#include "flow/simd.h"

enum { BITS = 11, ONE = 1 << BITS };

/* For each result: the byte or row offset of the first neighbour, and both weights. */
struct pair {
    uint32_t first, second;
    int32_t k0, k1;
};

static void make_pairs(struct pair *pairs, uint32_t source, double from, double to, uint32_t n)
{
    double scale = (to - from) / n;

    for (uint32_t i = 0; i < n; i++) {
        double at = from + (i + 0.5) * scale - 0.5, whole = floor(at), part = at - whole;
        if (whole < 0) {
            whole = 0;
            part = 0;
        }
        uint32_t first = (uint32_t)whole;
        if (first >= source - 1) {
            first = source - 1;
            part = 0;
        }
        int32_t k1 = (int32_t)lrint(part * ONE);
        pairs[i] = (struct pair){
            .first = first, .second = first + (part > 0 ? 1 : 0), .k0 = ONE - k1, .k1 = k1};
    }
}

XI_HOT static void across(const struct pair *pairs, uint32_t n, const uint8_t *src, int32_t *dst)
{
    for (uint32_t i = 0; i < n; i++, dst += 3) {
        const uint8_t *a = src + 3 * (size_t)pairs[i].first, *b = src + 3 * (size_t)pairs[i].second;
        for (int c = 0; c < 3; c++)
            dst[c] = a[c] * pairs[i].k0 + b[c] * pairs[i].k1;
    }
}

/* The rounding of OpenCV's VResizeLinear for 8 bits. */
XI_HOT static void down(const int32_t *a, const int32_t *b, int32_t k0, int32_t k1, uint8_t *dst,
                        size_t n)
{
    for (size_t x = 0; x < n; x++) {
        int32_t v = (((k0 * (a[x] >> 4)) >> 16) + ((k1 * (b[x] >> 4)) >> 16) + 2) >> 2;
        dst[x] = (uint8_t)(v > 255 ? 255 : v);
    }
}

/* Two rows of the source, already across, are kept while results lie between them. */
struct rows {
    int32_t *row[2];
    uint32_t of[2];
    int filled[2];
};

static const int32_t *row_across(struct rows *rows, const struct xi_picture *src,
                                 const struct pair *px, uint32_t n, uint32_t y, const int32_t *keep)
{
    for (int i = 0; i < 2; i++)
        if (rows->filled[i] && rows->of[i] == y)
            return rows->row[i];
    int at = keep == rows->row[0] ? 1 : 0;
    across(px, n, src->pixels + 3 * (size_t)src->columns * y, rows->row[at]);
    rows->of[at] = y;
    rows->filled[at] = 1;
    return rows->row[at];
}

enum xi_rc xi_resize_bilinear(const struct xi_resize_job *job, struct xi_flow_buf *taps,
                              struct xi_flow_buf *scratch, struct xi_err *err)
{
    const struct xi_picture *src = job->src;
    size_t row = 3 * (size_t)job->width;
    enum xi_rc rc =
        xi_flow_need(taps, ((uint64_t)job->width + job->height) * sizeof(struct pair), err);

    if (rc == XI_OK)
        rc = xi_flow_need(scratch, 2 * row * sizeof(int32_t), err);
    if (rc != XI_OK)
        return rc;
    struct pair *px = taps->data, *py = px + job->width;
    struct rows rows = {.row = {scratch->data, (int32_t *)scratch->data + row}};
    make_pairs(px, src->columns, job->x0, job->x1, job->width);
    make_pairs(py, src->rows, job->y0, job->y1, job->height);
    for (uint32_t y = 0; y < job->height; y++) {
        const int32_t *a = row_across(&rows, src, px, job->width, py[y].first, NULL);
        const int32_t *b = row_across(&rows, src, px, job->width, py[y].second, a);
        down(a, b, py[y].k0, py[y].k1, job->dst + job->stride * y, row);
    }
    return XI_OK;
}

enum xi_rc xi_resize_nearest(const struct xi_resize_job *job, struct xi_flow_buf *taps,
                             struct xi_err *err)
{
    const struct xi_picture *src = job->src;
    double sx = (job->x1 - job->x0) / job->width, sy = (job->y1 - job->y0) / job->height;
    enum xi_rc rc = xi_flow_need(taps, job->width * sizeof(uint32_t), err);

    if (rc != XI_OK)
        return rc;
    uint32_t *columns = taps->data;
    /* Pillow adds up, it does not multiply: where a centre falls between two pixels this decides.
     */
    double at = job->x0 + 0.5 * sx;
    for (uint32_t x = 0; x < job->width; x++, at += sx)
        columns[x] = at < src->columns ? (uint32_t)at : src->columns - 1;
    at = job->y0 + 0.5 * sy;
    for (uint32_t y = 0; y < job->height; y++, at += sy) {
        uint32_t row = at < src->rows ? (uint32_t)at : src->rows - 1;
        const uint8_t *from = src->pixels + 3 * (size_t)src->columns * row;
        uint8_t *to = job->dst + job->stride * y;
        for (uint32_t x = 0; x < job->width; x++)
            memcpy(to + 3 * x, from + 3 * (size_t)columns[x], 3);
    }
    return XI_OK;
}
