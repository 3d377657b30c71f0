#include "wire/json_pull.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* The last token of a text that is read to its end. */
static enum xi_json_token read_all(const char *text, size_t n)
{
    struct xi_json_pull j;
    enum xi_json_token t;

    xi_json_pull_init(&j, text, n);
    do
        t = xi_json_pull_next(&j);
    while (t != XI_TOKEN_END && t != XI_TOKEN_ERROR);
    return t;
}

static int good(const char *text)
{
    return read_all(text, strlen(text)) == XI_TOKEN_END;
}

static void tokens_come_in_order(void **state)
{
    static const enum xi_json_token want[] = {
        XI_TOKEN_OBJECT,     XI_TOKEN_KEY,    XI_TOKEN_ARRAY,     XI_TOKEN_NUMBER,
        XI_TOKEN_TRUE,       XI_TOKEN_ARRAY,  XI_TOKEN_ARRAY_END, XI_TOKEN_ARRAY_END,
        XI_TOKEN_KEY,        XI_TOKEN_STRING, XI_TOKEN_KEY,       XI_TOKEN_OBJECT,
        XI_TOKEN_OBJECT_END, XI_TOKEN_KEY,    XI_TOKEN_NULL,      XI_TOKEN_OBJECT_END,
        XI_TOKEN_END,
    };
    static const char text[] = " { \"a\" : [1, true, []], \"b\":\"x\", \"c\":{}, \"d\":null } ";
    struct xi_json_pull j;

    (void)state;
    xi_json_pull_init(&j, text, sizeof text - 1);
    for (size_t i = 0; i < sizeof want / sizeof *want; i++)
        assert_int_equal(xi_json_pull_next(&j), want[i]);
}

static const char *const no[] = {
    "",
    " ",
    "[",
    "]",
    "{",
    "}",
    "[1,]",
    "[,1]",
    "[1 2]",
    "{\"a\"}",
    "{\"a\":}",
    "{\"a\":1,}",
    "{a:1}",
    "{1:1}",
    "{\"a\" 1}",
    "{\"a\":1]",
    "[1}",
    "01",
    "-",
    "+1",
    "1.",
    ".5",
    "1e",
    "1e+",
    "0x10",
    "NaN",
    "Infinity",
    "-Infinity",
    "tru",
    "nulll",
    "'a'",
    "\"a",
    "\"\\x\"",
    "\"\\u12\"",
    "\"\n\"",
    "1 2",
    "[] []",
    "\"\\ud800\"",
    "\"\\ud800\\u0041\"",
    "\"\\udc00\"",
    "\"\\ud83d\\ud83d\"",
    "\"\xff\"",
    "\"\xc0\x80\"",
    "\"\xed\xa0\x80\"",
    "\"\xf4\x90\x80\x80\"",
    "\"\xe2\x82\"",
    "\"\xc3\"",
    "[1,\"\\ud800\"]",
    "--1",
    "1-",
};

static const char *const yes[] = {"0",
                                  "-0",
                                  "1e5",
                                  "[]",
                                  "{}",
                                  "\"\"",
                                  "null",
                                  "[[1,2],[3]]",
                                  "{\"a\":{\"a\":1}}",
                                  "\"\\u00e9\\ud83d\\ude00\"",
                                  "\"\xc3\xa9\xf0\x9f\x98\x80\"",
                                  " true "};
static void grammar_is_kept(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof yes / sizeof *yes; i++)
        if (!good(yes[i]))
            fail_msg("refused: %s", yes[i]);
    for (size_t i = 0; i < sizeof no / sizeof *no; i++)
        if (good(no[i]))
            fail_msg("taken: %s", no[i]);
    assert_int_equal(read_all("\"a\0b\"", 5), XI_TOKEN_ERROR);
}

static void any_prefix_is_an_error(void **state)
{
    static const char text[] =
        "{\"inputs\":[{\"a\":\"\\ud83d\\ude00 \xc3\xa9\",\"b\":[-1.5e3,true]}]}";

    (void)state;
    for (size_t n = 0; n < sizeof text - 1; n++) {
        char *copy = malloc(n ? n : 1); /* exactly n bytes: a read past them is found */
        memcpy(copy, text, n);
        assert_int_equal(read_all(copy, n), XI_TOKEN_ERROR);
        free(copy);
    }
    assert_int_equal(read_all(text, sizeof text - 1), XI_TOKEN_END);
}

static void depth_is_bounded(void **state)
{
    enum { DEEP = 250000 };
    char *text = malloc(2 * DEEP);

    (void)state;
    memset(text, '[', DEEP);
    memset(text + DEEP, ']', DEEP);
    assert_int_equal(read_all(text, 2 * DEEP), XI_TOKEN_ERROR);
    assert_int_equal(read_all(text + DEEP - 65, 130), XI_TOKEN_ERROR);
    assert_int_equal(read_all(text + DEEP - 64, 128), XI_TOKEN_END);
    free(text);
}

static void long_numbers_are_bounded(void **state)
{
    char text[2000];

    (void)state;
    memset(text, '1', sizeof text);
    assert_int_equal(read_all(text, sizeof text), XI_TOKEN_ERROR);
    assert_int_equal(read_all(text, 1023), XI_TOKEN_END);
}

/* Correctly rounded results as IEEE 754 bits, made with Python's float(). */
static void doubles_are_exact(void **state)
{
    static const struct {
        const char *text;
        uint64_t bits;
    } table[] = {
#include "wire/json_doubles.inc"
    };

    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        double d = xi_json_double(table[i].text, strlen(table[i].text));
        uint64_t bits;
        memcpy(&bits, &d, sizeof bits);
        if (bits != table[i].bits)
            fail_msg("%s: %016llx, wanted is %016llx", table[i].text, (unsigned long long)bits,
                     (unsigned long long)table[i].bits);
    }
}

static void whole_numbers_are_exact(void **state)
{
    int64_t i;
    uint64_t u;

    (void)state;
#define I64(t) xi_json_int64(t, strlen(t), &i)
#define U64(t) xi_json_uint64(t, strlen(t), &u)
    assert_int_equal(I64("9223372036854775807"), 0);
    assert_true(i == INT64_MAX);
    assert_int_equal(I64("-9223372036854775808"), 0);
    assert_true(i == INT64_MIN);
    assert_int_equal(I64("9223372036854775808"), -1);
    assert_int_equal(I64("-9223372036854775809"), -1);
    assert_int_equal(U64("18446744073709551615"), 0);
    assert_true(u == UINT64_MAX);
    assert_int_equal(U64("18446744073709551616"), -1);
    assert_int_equal(U64("-1"), -1);
    assert_int_equal(U64("-0"), 0);
    assert_true(u == 0);
    assert_int_equal(I64("1e3"), 0);
    assert_true(i == 1000);
    assert_int_equal(I64("12.50"), -1);
    assert_int_equal(I64("12.00"), 0);
    assert_true(i == 12);
    assert_int_equal(I64("1200e-2"), 0);
    assert_true(i == 12);
    assert_int_equal(I64("1e400"), -1);
    assert_int_equal(I64("1e-400"), -1);
    assert_int_equal(I64("0e99999"), 0);
    assert_true(i == 0);
}

static void strings_are_resolved(void **state)
{
    static const char text[] = "\"a\\n\\u00e9\\ud83d\\ude00\\\"\"";
    struct xi_json_pull j;
    char out[32];
    size_t n = 0;

    (void)state;
    xi_json_pull_init(&j, text, sizeof text - 1);
    assert_int_equal(xi_json_pull_next(&j), XI_TOKEN_STRING);
    assert_int_equal(xi_json_pull_text(&j, out, sizeof out, &n, NULL), XI_OK);
    assert_int_equal(n, 9);
    assert_memory_equal(out, "a\n\xc3\xa9\xf0\x9f\x98\x80\"", 9);
    assert_int_equal(xi_json_pull_text(&j, out, 8, &n, NULL), XI_ETOOBIG);
    xi_json_pull_init(&j, "\"\\u0061b\"", 9);
    (void)xi_json_pull_next(&j);
    assert_true(xi_json_pull_is(&j, "ab"));
    assert_false(xi_json_pull_is(&j, "abc"));
}

static void values_are_passed_over(void **state)
{
    static const char text[] = "[{\"a\":[[],{}]},7]";
    struct xi_json_pull j;

    (void)state;
    xi_json_pull_init(&j, text, sizeof text - 1);
    (void)xi_json_pull_next(&j);
    assert_int_equal(xi_json_pull_skip(&j, xi_json_pull_next(&j)), XI_TOKEN_OBJECT_END);
    assert_int_equal(xi_json_pull_next(&j), XI_TOKEN_NUMBER);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tokens_come_in_order),     cmocka_unit_test(grammar_is_kept),
        cmocka_unit_test(any_prefix_is_an_error),   cmocka_unit_test(depth_is_bounded),
        cmocka_unit_test(long_numbers_are_bounded), cmocka_unit_test(doubles_are_exact),
        cmocka_unit_test(whole_numbers_are_exact),  cmocka_unit_test(strings_are_resolved),
        cmocka_unit_test(values_are_passed_over),
    };

    return cmocka_run_group_tests_name("json_pull", tests, NULL, NULL);
}
