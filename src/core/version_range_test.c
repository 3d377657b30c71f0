#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "core/version_range.h"

static void ranges_match(void **state)
{
    static const struct {
        const char *range, *version;
        int matches;
    } cases[] = {
        {"", "1", 1},
        {">=2024.0 <2027", "2026.4.1-22982", 1},
        {">=2024.0 <2027", "2027.0.0", 0},
        {">=2024.0 <2027", "2023.9", 0},
        {"=1.2", "1.2.0", 1},
        {"=1.2", "1.2.1", 0},
        {">1.2", "1.2.0", 0},
        {">1.2", "1.10", 1},
        {"<=1.2.3.4", "1.2.3.4", 1},
        {"<=1.2.3.4", "1.2.3.5", 0},
        {">=1", "none", 0},
        {"~1", "1", 0},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        if (xi_version_range_match(cases[i].range, cases[i].version) != cases[i].matches)
            fail_msg("\"%s\" against \"%s\"", cases[i].range, cases[i].version);
}

static void malformed_ranges_are_known(void **state)
{
    static const char *const good[] = {"", ">=1", ">1.2.3.4", ">=1 <2 >1 =1.5"};
    static const char *const bad[] = {" ",           "1",       ">=",
                                      ">=1 ",        ">=1  <2", "=>1",
                                      ">=1.2.3.4.5", ">=1.",    ">=1 <2 >1 =1 <5",
                                      ">=1x",        "==1",     ">=1234567890",
                                      ">=-1"};

    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        assert_true(xi_version_range_valid(good[i]));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (xi_version_range_valid(bad[i]))
            fail_msg("\"%s\" is accepted", bad[i]);
}

int main(void)
{
    const struct CMUnitTest t[] = {
        cmocka_unit_test(ranges_match),
        cmocka_unit_test(malformed_ranges_are_known),
    };

    return cmocka_run_group_tests_name("version_range", t, NULL, NULL);
}
