/* A complete binary tree of blocks: node 1 is the whole range, 2n and 2n+1 its halves. Each node
 * holds the order of the largest free block below it (0: none, k: 2^(k-1) units). Taking a block
 * zeroes its own node alone, so a walk up from the first unit of an offset meets the zero of the
 * block that was taken there, or none (Knuth, TAOCP 1, 2.5; tree form as in many kernels). */
#include "ipc/slots.h"

#include <stdlib.h>

#include "base/limits.h"

struct xi_slots {
    uint64_t units, used_bytes;
    uint8_t top; /* order of the root when all is free */
    uint8_t largest[];
};

struct xi_slots *xi_slots_new(uint64_t total_bytes)
{
    uint64_t units = 1;
    uint8_t order = 1;

    while (units * XI_SLOT_MIN < total_bytes && units < (1ull << 40)) {
        units *= 2;
        order++;
    }
    struct xi_slots *s = malloc(sizeof *s + 2 * units);
    if (s == NULL)
        return NULL;
    s->units = units;
    s->top = order;
    s->used_bytes = 0;
    for (uint64_t first = 1; first <= units; first *= 2, order--)
        for (uint64_t n = first; n < 2 * first; n++)
            s->largest[n] = order;
    return s;
}

void xi_slots_free(struct xi_slots *s)
{
    free(s);
}

static uint64_t larger(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* Orders of the parents of n, whose halves have order `half` when they are free. */
static void update_up(struct xi_slots *s, uint64_t n, uint8_t half)
{
    for (n /= 2; n > 0; n /= 2, half++) {
        uint8_t a = s->largest[2 * n], b = s->largest[2 * n + 1];
        s->largest[n] = a == half && b == half ? (uint8_t)(half + 1) : (uint8_t)larger(a, b);
    }
}

enum xi_rc xi_slots_take(struct xi_slots *s, uint64_t bytes, uint64_t *ret_offset)
{
    uint64_t units = 1, n = 1;
    uint8_t order = 1, level = s->top;

    while (units * XI_SLOT_MIN < bytes && order <= s->top) {
        units *= 2;
        order++;
    }
    if (s->largest[1] < order)
        return XI_EAGAIN;
    for (; level > order; level--) /* the left half first: low pages are used again and again */
        n = s->largest[2 * n] >= order ? 2 * n : 2 * n + 1;
    s->largest[n] = 0;
    update_up(s, n, order);
    s->used_bytes += units * XI_SLOT_MIN;
    *ret_offset = (n * units - s->units) * XI_SLOT_MIN;
    return XI_OK;
}

enum xi_rc xi_slots_give(struct xi_slots *s, uint64_t offset)
{
    uint64_t unit = offset / XI_SLOT_MIN, units = 1;
    uint8_t order = 1;

    if (offset % XI_SLOT_MIN != 0 || unit >= s->units)
        return XI_EINVAL;
    uint64_t n = s->units + unit;
    for (; s->largest[n] != 0; n /= 2, units *= 2, order++)
        if (n == 1)
            return XI_EINVAL;
    if (n * units - s->units != unit)
        return XI_EINVAL;
    s->largest[n] = order;
    update_up(s, n, order);
    s->used_bytes -= units * XI_SLOT_MIN;
    return XI_OK;
}

uint64_t xi_slots_used(const struct xi_slots *s)
{
    return s->used_bytes;
}
