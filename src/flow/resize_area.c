#include <math.h>
#include <string.h>

#include "flow/resize.h"
#include "flow/simd.h"

enum { BITS = 32 - 8 - 2, HALF = 1 << (BITS - 1), BLOCK = 256 };

/* One side: result i is the sum of k[i][t] * source[first[i] + t] for t < count[i]. */
struct taps {
    uint32_t n, width; /* results; room per result in k */
    int32_t *first, *count, *k;
};

static uint32_t tap_width(double from, double to, uint32_t n)
{
    return (uint32_t)ceil(fmax((to - from) / n, 1)) * 2 + 1;
}

static void weigh(struct taps *t, uint32_t i, double centre, double shrink, uint32_t source)
{
    int32_t *k = t->k + (size_t)i * t->width;
    double sum = 0;
    int32_t first = (int32_t)(centre - shrink + 0.5), end = (int32_t)(centre + shrink + 0.5);

    if (first < 0)
        first = 0;
    if (end > (int32_t)source)
        end = (int32_t)source;
    t->first[i] = first;
    t->count[i] = end - first;
    for (uint32_t x = 0; x < t->width; x++)
        k[x] = 0; /* also those past count: kernels read pairs */
    for (int32_t x = first; x < end; x++)
        sum += fmax(0, 1 - fabs((x - centre + 0.5) / shrink));
    for (int32_t x = first; x < end; x++) {
        double w = fmax(0, 1 - fabs((x - centre + 0.5) / shrink));
        k[x - first] = (int32_t)(0.5 + (sum != 0 ? w / sum : w) * (1 << BITS));
    }
}

/* Coefficients of `n` results over [from, to) of `source` pixels, in memory at `at`. */
static void make_taps(struct taps *t, int32_t *at, uint32_t source, double from, double to,
                      uint32_t n)
{
    double scale = (to - from) / n, shrink = fmax(scale, 1);

    t->n = n;
    t->width = tap_width(from, to, n);
    t->first = at;
    t->count = at + n;
    t->k = at + 2 * (size_t)n;
    for (uint32_t i = 0; i < n; i++)
        weigh(t, i, from + (i + 0.5) * scale, shrink, source);
}

static uint8_t clip(int32_t sum)
{
    int32_t v = sum >> BITS;

    return (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v);
}

XI_HOT_O3 static void across_plain(const struct taps *t, const uint8_t *src, uint8_t *dst)
{
    for (uint32_t i = 0; i < t->n; i++, dst += 3) {
        const uint8_t *p = src + 3 * (size_t)t->first[i];
        const int32_t *k = t->k + (size_t)i * t->width;
        int32_t n = t->count[i], r = HALF, g = HALF, b = HALF;
        for (int32_t x = 0; x < n; x++, p += 3) {
            r += p[0] * k[x];
            g += p[1] * k[x];
            b += p[2] * k[x];
        }
        dst[0] = clip(r);
        dst[1] = clip(g);
        dst[2] = clip(b);
    }
}

#ifdef XI_SIMD_AVX2
/* The same sums, two pixels at a time. Loads may reach 5 bytes past the row and coefficients one
 * past their end, where a pixel's weight is 0; buffers have room behind (xi_flow_need). */
XI_SIMD_AVX2 static void across_avx2(const struct taps *t, const uint8_t *src, uint8_t *dst)
{
    const __m128i apart = _mm_setr_epi8(0, 1, 2, -1, 3, 4, 5, -1, -1, -1, -1, -1, -1, -1, -1, -1);
    const __m256i first_second = _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1);

    for (uint32_t i = 0; i < t->n; i++, dst += 3) {
        const uint8_t *p = src + 3 * (size_t)t->first[i];
        const int32_t *k = t->k + (size_t)i * t->width;
        __m256i sum = _mm256_setzero_si256();
        for (int32_t x = 0; x < t->count[i]; x += 2, p += 6) {
            __m128i pair = _mm_shuffle_epi8(_mm_loadl_epi64((const __m128i *)p), apart);
            __m128i both = _mm_loadl_epi64((const __m128i *)(k + x));
            __m256i weights =
                _mm256_permutevar8x32_epi32(_mm256_castsi128_si256(both), first_second);
            sum = _mm256_add_epi32(sum, _mm256_mullo_epi32(_mm256_cvtepu8_epi32(pair), weights));
        }
        int32_t rgb[4];
        __m128i folded =
            _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
        _mm_storeu_si128((__m128i *)rgb, folded);
        dst[0] = clip(rgb[0] + HALF);
        dst[1] = clip(rgb[1] + HALF);
        dst[2] = clip(rgb[2] + HALF);
    }
}
#endif

typedef void across_fn(const struct taps *t, const uint8_t *src, uint8_t *dst);

static across_fn *across_best(void)
{
#ifdef XI_SIMD_AVX2
    if (__builtin_cpu_supports("avx2"))
        return across_avx2;
#endif
    return across_plain;
}

/* One block of one result row from the rows above each other. */
XI_HOT static void down_block(const uint8_t *src, size_t stride, const int32_t *k, int32_t n,
                              uint8_t *dst, size_t bytes)
{
    int32_t sum[BLOCK];

    for (size_t x = 0; x < BLOCK; x++)
        sum[x] = HALF;
    for (int32_t y = 0; y < n; y++, src += stride)
        for (size_t x = 0; x < bytes; x++)
            sum[x] += src[x] * k[y];
    for (size_t x = 0; x < bytes; x++)
        dst[x] = clip(sum[x]);
}

static void down(const struct taps *t, uint32_t i, const uint8_t *rows, size_t row_bytes,
                 uint8_t *dst)
{
    const int32_t *k = t->k + (size_t)i * t->width;

    for (size_t x = 0; x < row_bytes; x += BLOCK) {
        size_t n = row_bytes - x < BLOCK ? row_bytes - x : BLOCK;
        down_block(rows + x, row_bytes, k, t->count[i], dst + x, n);
    }
}

enum xi_rc xi_resize_area(const struct xi_resize_job *job, struct xi_flow_buf *taps,
                          struct xi_flow_buf *rows, struct xi_err *err)
{
    struct taps tx, ty;
    const struct xi_picture *src = job->src;
    size_t nx = job->width * (size_t)(2 + tap_width(job->x0, job->x1, job->width));
    size_t ny = job->height * (size_t)(2 + tap_width(job->y0, job->y1, job->height));
    enum xi_rc rc = xi_flow_need(taps, (nx + ny) * sizeof(int32_t), err);

    if (rc != XI_OK)
        return rc;
    make_taps(&tx, taps->data, src->columns, job->x0, job->x1, job->width);
    make_taps(&ty, (int32_t *)taps->data + nx, src->rows, job->y0, job->y1, job->height);
    size_t row_bytes = 3 * (size_t)job->width;
    uint32_t first = (uint32_t)ty.first[0];
    uint32_t end = (uint32_t)(ty.first[ty.n - 1] + ty.count[ty.n - 1]);
    rc = xi_flow_need(rows, row_bytes * (end - first), err);
    if (rc != XI_OK)
        return rc;
    uint8_t *mid = rows->data;
    across_fn *across = across_best();
    for (uint32_t y = first; y < end; y++)
        across(&tx, src->pixels + 3 * (size_t)src->columns * y, mid + row_bytes * (y - first));
    for (uint32_t y = 0; y < job->height; y++)
        down(&ty, y, mid + row_bytes * ((uint32_t)ty.first[y] - first), row_bytes,
             job->dst + job->stride * y);
    return XI_OK;
}
