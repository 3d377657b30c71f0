#include "daemon/core/rates.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "daemon/core/resource_monitor.h"

static void near(double have, double want)
{
    if (!(have >= want * 0.999999 - 1e-9 && have <= want * 1.000001 + 1e-9))
        fail_msg("%g where %g is right", have, want);
}

static void needs_two_samples(void **state)
{
    struct xi_rate r = {0};

    (void)state;
    assert_true(xi_rate_done_per_s(&r) == XI_UNKNOWN);
    xi_rate_sample(&r, 1000, 5, 0);
    assert_true(xi_rate_done_per_s(&r) == XI_UNKNOWN);
    assert_true(xi_rate_busy_ms_per_s(&r) == XI_UNKNOWN);
    xi_rate_sample(&r, 3000, 25, 500000000);
    near(xi_rate_done_per_s(&r), 10);
    near(xi_rate_busy_ms_per_s(&r), 250);
}

/* Each second's growth is its number: after second n the last five grew by n-4 … n. */
static void forgets_what_is_older_than_five_seconds(void **state)
{
    struct xi_rate r = {0};
    uint64_t done = 0;

    (void)state;
    for (uint64_t second = 1; second <= 1000; second++) {
        done += second;
        xi_rate_sample(&r, second * 1000, done, done * 1000000);
        if (second >= 6) {
            near(xi_rate_done_per_s(&r), (double)second - 2);
            near(xi_rate_busy_ms_per_s(&r), (double)second - 2);
        }
    }
}

static void begins_anew_when_a_counter_went_back(void **state)
{
    struct xi_rate r = {0};

    (void)state;
    xi_rate_sample(&r, 1000, 100, 0);
    xi_rate_sample(&r, 2000, 200, 0);
    xi_rate_sample(&r, 3000, 7, 0);
    assert_true(xi_rate_done_per_s(&r) == XI_UNKNOWN);
    xi_rate_sample(&r, 4000, 9, 0);
    near(xi_rate_done_per_s(&r), 2);
    xi_rate_sample(&r, 3500, 9, 0);
    xi_rate_sample(&r, 3500, 9, 0);
    assert_true(xi_rate_done_per_s(&r) == XI_UNKNOWN); /* no time has passed */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(needs_two_samples),
        cmocka_unit_test(forgets_what_is_older_than_five_seconds),
        cmocka_unit_test(begins_anew_when_a_counter_went_back),
    };

    return cmocka_run_group_tests_name("rates", tests, NULL, NULL);
}
