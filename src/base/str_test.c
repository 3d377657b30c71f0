#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/str.h"

static void it_grows_up_to_its_cap_and_says_so(void **state)
{
    struct xi_str s;
    struct xi_err err = {0};

    (void)state;
    xi_str_init(&s, 10);
    assert_string_equal(xi_str_text(&s), "");
    xi_str_puts(&s, "12345");
    xi_str_puts(&s, "67890");
    assert_int_equal(xi_str_check(&s, &err, "text"), XI_OK);
    xi_str_puts(&s, "x");
    assert_int_equal(xi_str_check(&s, &err, "text"), XI_ETOOBIG);
    assert_string_equal(err.msg, "text: over 10 bytes");
    assert_string_equal(xi_str_text(&s), "1234567890"); /* nothing of the last one */
    xi_str_clear(&s);
    xi_str_printf(&s, "%d-%s", 7, "ab");
    assert_string_equal(xi_str_text(&s), "7-ab");
    xi_str_fini(&s);
}

static void json_strings_are_escaped_and_valid_utf8(void **state)
{
    struct xi_str s;

    (void)state;
    xi_str_init(&s, 1000);
    /* RFC 8259 escapes; an overlong slash, a lone surrogate and a cut sequence are not UTF-8 */
    xi_str_json(&s, "a\"b\\\n\x01\xc3\xa9\xc0\xaf\xed\xa0\x80\xe2\x82");
    assert_string_equal(xi_str_text(&s),
                        "\"a\\\"b\\\\\\u000a\\u0001\xc3\xa9\\ufffd\\ufffd\\ufffd\\ufffd\\ufffd"
                        "\\ufffd\\ufffd\"");
    xi_str_fini(&s);
}

static void numbers_are_json(void **state)
{
    struct xi_str s;

    (void)state;
    xi_str_init(&s, 1000);
    xi_str_number(&s, NAN, 9);
    xi_str_number(&s, -INFINITY, 9);
    xi_str_number(&s, 0.1f, 9);
    assert_string_equal(xi_str_text(&s), "nullnull0.100000001");
    xi_str_fini(&s);
}

static void says_what_printf_says(double v, int digits)
{
    static struct xi_str s;
    char right[64];

    xi_str_init(&s, sizeof right);
    xi_str_number(&s, v, digits);
    (void)snprintf(right, sizeof right, "%.*g", digits, v);
    assert_string_equal(xi_str_text(&s), right);
    xi_str_fini(&s);
}

static void numbers_are_those_of_printf(void **state)
{
    static const double odd[] = {0,           -0.0,   1,         0.1,           0.5,
                                 0.25,        1e-4,   9.9999e-5, 0.00099999,    999999999.4,
                                 999999999.6, 9999.5, 99999.5,   0.99999999996, 0.000999999999996,
                                 1e9,         1e22,   5e-324,    1.7e308,       123456789.5,
                                 0.01,        0.001,  0.1f,      16777217,      1.0000000005};
    uint64_t x = 88172645463325252u;

    (void)state;
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++)
        for (int digits = 1; digits <= 17; digits++) {
            says_what_printf_says(odd[i], digits);
            says_what_printf_says(-odd[i], digits);
        }
    for (unsigned i = 0; i < 200000; i++) { /* floats of all sizes, most of them usual */
        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        uint32_t bits = (uint32_t)x;
        float f;
        if (i % 4 != 0)
            bits = (bits & 0x807fffff) | (uint32_t)(112 + (x >> 32) % 46) << 23;
        memcpy(&f, &bits, sizeof f);
        if (isfinite(f))
            says_what_printf_says((double)f, i % 3 ? 9 : 4 + (int)(i % 5));
        says_what_printf_says((double)(int64_t)(x % 2000003) / 1000, 9);
    }
}

static void whole_numbers(void **state)
{
    struct xi_str s;

    (void)state;
    xi_str_init(&s, 1000);
    xi_str_uint(&s, 0, 1);
    xi_str_puts(&s, " ");
    xi_str_uint(&s, 7, 3);
    xi_str_puts(&s, " ");
    xi_str_uint(&s, UINT64_MAX, 1);
    xi_str_puts(&s, " ");
    xi_str_uint(&s, 1234, 2);
    assert_string_equal(xi_str_text(&s), "0 007 18446744073709551615 1234");
    xi_str_fini(&s);
}

static void taking_moves_the_bytes(void **state)
{
    struct xi_str s;

    (void)state;
    xi_str_init(&s, 100);
    xi_str_puts(&s, "mine");
    char *p = xi_str_take(&s);
    assert_string_equal(p, "mine");
    assert_int_equal(s.len, 0);
    free(p);
    xi_str_fini(&s);
}

int main(void)
{
    const struct CMUnitTest t[] = {
        cmocka_unit_test(it_grows_up_to_its_cap_and_says_so),
        cmocka_unit_test(json_strings_are_escaped_and_valid_utf8),
        cmocka_unit_test(numbers_are_json),
        cmocka_unit_test(numbers_are_those_of_printf),
        cmocka_unit_test(whole_numbers),
        cmocka_unit_test(taking_moves_the_bytes),
    };
    return cmocka_run_group_tests_name("str", t, NULL, NULL);
}
