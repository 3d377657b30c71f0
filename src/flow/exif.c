/* Orientation after the EXIF 2.3 specification, tag 0x0112. */
#include <string.h>

#include "flow/image_decode.h"

struct tiff {
    const uint8_t *p;
    size_t n;
    int big; /* byte order */
};

static uint32_t get16(const struct tiff *t, size_t at)
{
    return t->big ? (uint32_t)t->p[at] << 8 | t->p[at + 1] : (uint32_t)t->p[at + 1] << 8 | t->p[at];
}

static uint32_t get32(const struct tiff *t, size_t at)
{
    uint32_t a = get16(t, at), b = get16(t, at + 2);

    return t->big ? a << 16 | b : b << 16 | a;
}

/* The orientation in the first directory; 1 when it is absent or anything is odd. */
static int of_tiff(const uint8_t *p, size_t n)
{
    struct tiff t = {.p = p, .n = n, .big = n > 0 && p[0] == 'M'};

    if (n < 8 || p[0] != p[1] || (p[0] != 'M' && p[0] != 'I') || get16(&t, 2) != 42)
        return 1;
    size_t at = get32(&t, 4);
    if (at > n - 2)
        return 1;
    size_t entries = get16(&t, at);
    for (at += 2; entries > 0 && n >= 12 && at <= n - 12; entries--, at += 12) {
        if (get16(&t, at) != 0x0112)
            continue;
        uint32_t value = get16(&t, at + 8);
        return value >= 1 && value <= 8 ? (int)value : 1;
    }
    return 1;
}

int xi_exif_orientation(const uint8_t *jpeg, size_t n)
{
    static const char head[] = {'E', 'x', 'i', 'f', 0, 0};
    size_t at = 2;

    while (n >= 4 && at <= n - 4 && jpeg[at] == 0xff) {
        int marker = jpeg[at + 1];
        size_t bytes = (size_t)jpeg[at + 2] << 8 | jpeg[at + 3];
        if (marker == 0xff) { /* fill byte */
            at++;
            continue;
        }
        if (marker == 0xda || bytes < 2 || bytes > n - at - 2)
            return 1;
        const uint8_t *body = jpeg + at + 4;
        if (marker == 0xe1 && bytes >= 2 + sizeof head && memcmp(body, head, sizeof head) == 0)
            return of_tiff(body + sizeof head, bytes - 2 - sizeof head);
        at += 2 + bytes;
    }
    return 1;
}

void xi_exif_turn(int orientation, const uint8_t *src, uint32_t columns, uint32_t rows,
                  uint8_t *dst)
{
    static const signed char moves[9][4] = {
        /* per source column: x, y; per source row: x, y */
        {0},          {1, 0, 0, 1},  {-1, 0, 0, 1},  {-1, 0, 0, -1}, {1, 0, 0, -1},
        {0, 1, 1, 0}, {0, 1, -1, 0}, {0, -1, -1, 0}, {0, -1, 1, 0},
    };
    const signed char *m = moves[orientation];
    ptrdiff_t width = orientation >= 5 ? (ptrdiff_t)rows : (ptrdiff_t)columns;
    ptrdiff_t height = orientation >= 5 ? (ptrdiff_t)columns : (ptrdiff_t)rows;
    ptrdiff_t x0 = m[0] < 0 || m[2] < 0 ? width - 1 : 0;
    ptrdiff_t y0 = m[1] < 0 || m[3] < 0 ? height - 1 : 0;
    ptrdiff_t step = (m[1] * width + m[0]) * 3, next = (m[3] * width + m[2]) * 3;
    for (uint32_t y = 0; y < rows; y++) {
        uint8_t *to = dst + (y0 * width + x0) * 3 + (ptrdiff_t)y * next;
        for (uint32_t x = 0; x < columns; x++, src += 3) {
            memcpy(to, src, 3);
            to += step;
        }
    }
}
