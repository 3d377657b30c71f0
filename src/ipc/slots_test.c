#include "ipc/slots.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/limits.h"

enum { UNITS = 256, TOTAL = UNITS * XI_SLOT_MIN };

static void whole_range_can_be_taken(void **state)
{
    struct xi_slots *s = xi_slots_new(TOTAL);
    uint64_t at = 1;

    (void)state;
    assert_int_equal(xi_slots_take(s, TOTAL, &at), XI_OK);
    assert_int_equal(at, 0);
    assert_int_equal(xi_slots_used(s), TOTAL);
    assert_int_equal(xi_slots_take(s, 1, &at), XI_EAGAIN);
    assert_int_equal(xi_slots_give(s, 0), XI_OK);
    assert_int_equal(xi_slots_used(s), 0);
    assert_int_equal(xi_slots_take(s, TOTAL + 1, &at), XI_EAGAIN);
    assert_int_equal(xi_slots_take(s, UINT64_MAX, &at), XI_EAGAIN);
    xi_slots_free(s);
}

static void nothing_counts_as_one_byte(void **state)
{
    struct xi_slots *s = xi_slots_new(TOTAL);
    uint64_t a, b;

    (void)state;
    assert_int_equal(xi_slots_take(s, 0, &a), XI_OK);
    assert_int_equal(xi_slots_take(s, 1, &b), XI_OK);
    assert_int_not_equal(a, b);
    assert_int_equal(xi_slots_used(s), 2 * XI_SLOT_MIN);
    xi_slots_free(s);
}

static void single_unit_works(void **state)
{
    struct xi_slots *s = xi_slots_new(1);
    uint64_t at;

    (void)state;
    assert_int_equal(xi_slots_take(s, XI_SLOT_MIN, &at), XI_OK);
    assert_int_equal(xi_slots_take(s, 1, &at), XI_EAGAIN);
    assert_int_equal(xi_slots_give(s, 0), XI_OK);
    assert_int_equal(xi_slots_give(s, 0), XI_EINVAL);
    xi_slots_free(s);
}

static void offsets_from_a_peer_are_checked(void **state)
{
    struct xi_slots *s = xi_slots_new(TOTAL);
    uint64_t a, b;

    (void)state;
    assert_int_equal(xi_slots_give(s, 0), XI_EINVAL); /* nothing is out */
    assert_int_equal(xi_slots_take(s, 4 * XI_SLOT_MIN, &a), XI_OK);
    assert_int_equal(xi_slots_take(s, XI_SLOT_MIN, &b), XI_OK);
    assert_int_equal(xi_slots_give(s, a + XI_SLOT_MIN), XI_EINVAL); /* inside of one */
    assert_int_equal(xi_slots_give(s, a + 1), XI_EINVAL);
    assert_int_equal(xi_slots_give(s, TOTAL), XI_EINVAL);
    assert_int_equal(xi_slots_give(s, UINT64_MAX), XI_EINVAL);
    assert_int_equal(xi_slots_give(s, b + XI_SLOT_MIN), XI_EINVAL); /* free */
    assert_int_equal(xi_slots_used(s), 5 * XI_SLOT_MIN);
    assert_int_equal(xi_slots_give(s, a), XI_OK);
    assert_int_equal(xi_slots_give(s, a), XI_EINVAL); /* twice */
    assert_int_equal(xi_slots_give(s, b), XI_OK);
    assert_int_equal(xi_slots_used(s), 0);
    xi_slots_free(s);
}

/* ---- property: against a plain map of units ---- */

struct taken {
    uint64_t at, bytes;
};

struct model {
    uint8_t owned[UNITS];
    struct taken taken[UNITS];
    uint32_t n;
    uint64_t seed;
};

static uint32_t next(struct model *m, uint32_t below)
{
    m->seed = m->seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(m->seed >> 33) % below;
}

static uint64_t rounded(uint64_t bytes)
{
    uint64_t r = XI_SLOT_MIN;

    while (r < bytes)
        r *= 2;
    return r;
}

/* A free, aligned run of that size must exist when the allocator says there is none. */
static int has_room(const struct model *m, uint64_t units)
{
    for (uint64_t first = 0; first + units <= UNITS; first += units) {
        uint64_t used = 0;
        for (uint64_t u = first; u < first + units; u++)
            used += m->owned[u];
        if (used == 0)
            return 1;
    }
    return 0;
}

static void take_one(struct model *m, struct xi_slots *s)
{
    uint64_t bytes = 1 + next(m, XI_SLOT_MIN << next(m, 6)), r = rounded(bytes), at = 0;

    if (xi_slots_take(s, bytes, &at) != XI_OK) {
        assert_false(has_room(m, r / XI_SLOT_MIN));
        return;
    }
    assert_int_equal(at % XI_SLOT_MIN, 0);
    assert_true(at + r <= TOTAL);
    for (uint64_t u = at / XI_SLOT_MIN; u < (at + r) / XI_SLOT_MIN; u++) {
        assert_int_equal(m->owned[u], 0);
        m->owned[u] = 1;
    }
    m->taken[m->n++] = (struct taken){.at = at, .bytes = r};
}

static void give_one(struct model *m, struct xi_slots *s)
{
    uint32_t i = next(m, m->n);
    struct taken t = m->taken[i];

    m->taken[i] = m->taken[--m->n];
    assert_int_equal(xi_slots_give(s, t.at), XI_OK);
    memset(m->owned + t.at / XI_SLOT_MIN, 0, t.bytes / XI_SLOT_MIN);
}

static void taken_ranges_never_overlap_and_all_comes_back(void **state)
{
    struct xi_slots *s = xi_slots_new(TOTAL);
    uint64_t at;

    (void)state;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        struct model m = {.seed = seed};
        for (int step = 0; step < 3000; step++) {
            if (m.n == 0 || next(&m, 100) < 55)
                take_one(&m, s);
            else
                give_one(&m, s);
            uint64_t used = 0;
            for (uint32_t i = 0; i < m.n; i++)
                used += m.taken[i].bytes;
            assert_int_equal(xi_slots_used(s), used);
        }
        while (m.n > 0)
            give_one(&m, s);
        assert_int_equal(xi_slots_take(s, TOTAL, &at), XI_OK);
        assert_int_equal(xi_slots_give(s, at), XI_OK);
    }
    xi_slots_free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole_range_can_be_taken),
        cmocka_unit_test(nothing_counts_as_one_byte),
        cmocka_unit_test(single_unit_works),
        cmocka_unit_test(offsets_from_a_peer_are_checked),
        cmocka_unit_test(taken_ranges_never_overlap_and_all_comes_back),
    };
    return cmocka_run_group_tests_name("slots", tests, NULL, NULL);
}
