#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/core/loop_lag.h"
#include "daemon/core/stats.h"

/* A bucket is at most 12.5 % wide, buckets touch, and a value lies in the one that says so. */
static void buckets_are_narrow_and_touch(void **state)
{
    unsigned i;

    (void)state;
    for (i = 1; i < XI_HIST_BUCKETS; i++) {
        uint64_t low = xi_hist_bucket_upper_us(i - 1) + 1, high = xi_hist_bucket_upper_us(i);
        struct xi_hist h = {0};

        assert_true(high >= low);
        assert_true((double)(high - low + 1) <= 0.125 * (double)low || low < 8);
        xi_hist_add(&h, low);
        if (i < XI_HIST_BUCKETS - 1)
            xi_hist_add(&h, high);
        assert_int_equal(h.buckets[i], i < XI_HIST_BUCKETS - 1 ? 2 : 1);
    }
    assert_true(xi_hist_bucket_upper_us(XI_HIST_BUCKETS - 1) > 3600ull * 1000000);
}

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

/* Against the exact order statistic of the same numbers. */
static void quantiles_are_close_to_the_exact_ones(void **state)
{
    static uint64_t values[20000];
    static const double q[] = {0.5, 0.9, 0.99, 0.999, 1.0};
    struct xi_hist h = {0};
    uint64_t seed = 7;
    size_t i;

    (void)state;
    for (i = 0; i < 20000; i++) {
        seed = seed * 6364136223846793005ull + 1442695040888963407ull;
        values[i] = (seed >> 33) % (1ull << (1 + (seed >> 59)));
        xi_hist_add(&h, values[i]);
    }
    qsort(values, 20000, sizeof(values[0]), by_value);
    for (i = 0; i < sizeof(q) / sizeof(q[0]); i++) {
        uint64_t exact = values[(size_t)(q[i] * 20000.0 + 0.5) - 1];
        uint64_t got = xi_hist_quantile_us(&h, q[i]);

        assert_true(got >= exact);
        assert_true((double)got <= 1.125 * (double)exact + 1);
    }
    assert_int_equal(h.count, 20000);
    assert_int_equal(h.max_us, values[19999]);
}

static void an_empty_one_and_huge_values(void **state)
{
    struct xi_hist h = {0};

    (void)state;
    assert_int_equal(xi_hist_quantile_us(&h, 0.99), 0);
    xi_hist_add(&h, UINT64_MAX);
    assert_int_equal(h.buckets[XI_HIST_BUCKETS - 1], 1);
    assert_true(xi_hist_quantile_us(&h, 0.5) == UINT64_MAX);
}

/* 1 s idle, then busy for 10 ms: a 1 ms timer would be late by 10, 9, … 0 ms in that part. */
static void lag_is_that_of_a_millisecond_timer(void **state)
{
    struct xi_hist h = {0};
    uint64_t tick = 0;

    (void)state;
    xi_loop_lag_turn(&h, &tick, 1000000000ull, 1010000000ull);
    assert_int_equal(h.count, 1011);
    assert_int_equal(h.buckets[0], 1001);
    assert_int_equal(h.sum_us, 55000);
    assert_int_equal(h.max_us, 10000);
    assert_true(tick == 1011000000ull);
    xi_loop_lag_turn(&h, &tick, 1010100000ull, 1010200000ull); /* no tick in it */
    assert_int_equal(h.count, 1011);
    xi_loop_lag_turn(&h, &tick, 1010900000ull, 1011500000ull);
    assert_int_equal(h.count, 1012);
    assert_int_equal(h.sum_us, 55500);
}

static void a_night_does_not_drown_a_minute(void **state)
{
    struct xi_hist h = {0};
    uint64_t tick = 0, hour = 3600ull * 1000000000ull;

    (void)state;
    xi_loop_lag_turn(&h, &tick, 8 * hour, 8 * hour + 1000);
    assert_int_equal(h.count, 1001);
    assert_true(tick > 8 * hour);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(buckets_are_narrow_and_touch),
        cmocka_unit_test(quantiles_are_close_to_the_exact_ones),
        cmocka_unit_test(an_empty_one_and_huge_values),
        cmocka_unit_test(lag_is_that_of_a_millisecond_timer),
        cmocka_unit_test(a_night_does_not_drown_a_minute),
    };
    return cmocka_run_group_tests_name("stats", tests, NULL, NULL);
}
