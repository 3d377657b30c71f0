#include "base/size.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void sizes(void **state)
{
    static const struct {
        const char *text;
        uint64_t bytes;
    } good[] = {{"0", 0},
                {"17", 17},
                {"64KiB", 65536},
                {"512MiB", 536870912},
                {"2 GiB", 2147483648u},
                {"18446744073709551615", UINT64_MAX},
                {"17179869183GiB", 18446744072635809792u},
                {"80%", 800},
                {"0%", 0},
                {"100 %", 1000}};
    static const char *const bad[] = {"",
                                      "-1",
                                      "x",
                                      "1k",
                                      "1MB",
                                      "101%",
                                      "1.5GiB",
                                      " 1",
                                      "0x10",
                                      "18446744073709551616",
                                      "17179869184GiB"};
    uint64_t v = 0;

    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        assert_int_equal(xi_size_parse(good[i].text, 1000, &v), 0);
        assert_true(v == good[i].bytes);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (xi_size_parse(bad[i], 1000, &v) == 0)
            fail_msg("\"%s\" was taken", bad[i]);
    assert_int_equal(xi_size_parse("80%", 0, &v), -1);
    assert_int_equal(xi_size_parse("100%", UINT64_MAX, &v), 0);
    assert_true(v == UINT64_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(sizes)};

    return cmocka_run_group_tests_name("size", tests, NULL, NULL);
}
