#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
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
        cmocka_unit_test(whole_numbers),
        cmocka_unit_test(taking_moves_the_bytes),
    };
    return cmocka_run_group_tests_name("str", t, NULL, NULL);
}
