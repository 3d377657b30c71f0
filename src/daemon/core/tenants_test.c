#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "daemon/core/tenants.h"

#define SECOND 1000000000ull

static void the_same_name_is_the_same_tenant(void **state)
{
    struct xi_tenants *t = xi_tenants_new();
    struct xi_tenant *a = xi_tenants_get(t, "acme");

    (void)state;
    assert_non_null(a);
    assert_ptr_equal(xi_tenants_get(t, "acme"), a);
    assert_string_equal(xi_tenants_at(t, 0)->name, "default");
    assert_ptr_equal(xi_tenants_at(t, 1), a);
    assert_null(xi_tenants_at(t, 2));
    assert_int_equal(a->limits.weight, 1);
    xi_tenants_free(t);
}

static void limits_that_make_no_sense_change_nothing(void **state)
{
    struct xi_tenants *t = xi_tenants_new();
    struct xi_tenant_limits bad = {.weight = 0}, fast = {.weight = 1, .rate_per_s = -1};
    struct xi_err err;

    (void)state;
    assert_int_equal(xi_tenants_configure(t, "acme", &bad, &err), XI_EINVAL);
    assert_int_equal(xi_tenants_configure(t, "acme", &fast, &err), XI_EINVAL);
    assert_int_equal(xi_tenants_configure(t, "a/b", &bad, &err), XI_EINVAL);
    assert_null(xi_tenants_at(t, 1));
    xi_tenants_free(t);
}

static void more_than_may_be_are_refused(void **state)
{
    struct xi_tenants *t = xi_tenants_new();
    char name[16];
    int i;

    (void)state;
    for (i = 1; i < XI_TENANTS_MAX; i++) {
        (void)snprintf(name, sizeof(name), "t%d", i);
        assert_non_null(xi_tenants_get(t, name));
    }
    assert_null(xi_tenants_get(t, "one-more"));
    assert_non_null(xi_tenants_get(t, "t7"));
    xi_tenants_free(t);
}

/* 10 a second: a burst of 10, then one each 100 ms, over any stretch. */
static void a_rate_holds_over_time(void **state)
{
    struct xi_tenants *t = xi_tenants_new();
    struct xi_tenant_limits limits = {.weight = 1, .rate_per_s = 10};
    struct xi_tenant *a = xi_tenants_get(t, "acme");
    struct xi_err err;
    unsigned retry = 0, taken = 0;
    uint64_t now;

    (void)state;
    assert_int_equal(xi_tenants_configure(t, "acme", &limits, &err), XI_OK);
    for (now = SECOND; now < 11 * SECOND; now += SECOND / 1000)
        taken += xi_tenant_take(a, now, &retry, &err) == XI_OK;
    assert_in_range(taken, 109, 110);
    assert_int_equal(retry, 1);
    assert_int_equal(a->refused_quota, 10000 - taken);
    xi_tenants_free(t);
}

static void a_slow_rate_says_when_to_come_back(void **state)
{
    struct xi_tenants *t = xi_tenants_new();
    struct xi_tenant_limits limits = {.weight = 1, .rate_per_s = 0.1};
    struct xi_tenant *a = xi_tenants_get(t, "acme");
    struct xi_err err;
    unsigned retry = 0;

    (void)state;
    assert_int_equal(xi_tenants_configure(t, "acme", &limits, &err), XI_OK);
    assert_int_equal(xi_tenant_take(a, SECOND, &retry, &err), XI_OK);
    assert_int_equal(xi_tenant_take(a, SECOND, &retry, &err), XI_EQUOTA);
    assert_in_range(retry, 10, 11);
    assert_int_equal(xi_tenant_take(a, SECOND + 10 * SECOND + 1, &retry, &err), XI_OK);
    limits.rate_per_s = 1e-300; /* "rate" may be any number from 0 on */
    assert_int_equal(xi_tenants_configure(t, "acme", &limits, &err), XI_OK);
    assert_int_equal(xi_tenant_take(a, SECOND, &retry, &err), XI_OK);
    assert_int_equal(xi_tenant_take(a, SECOND, &retry, &err), XI_EQUOTA);
    assert_true(retry >= 3600);
    xi_tenants_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_same_name_is_the_same_tenant),
        cmocka_unit_test(limits_that_make_no_sense_change_nothing),
        cmocka_unit_test(more_than_may_be_are_refused),
        cmocka_unit_test(a_rate_holds_over_time),
        cmocka_unit_test(a_slow_rate_says_when_to_come_back),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
