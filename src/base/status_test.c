#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/status.h"

static void the_table_speaks_all_protocols(void **state)
{
    (void)state;
    assert_string_equal(xi_rc_code(XI_EBUDGET), "XI-0502");
    assert_string_equal(xi_rc_name(XI_EBUDGET), "EBUDGET");
    assert_int_equal(xi_rc_http(XI_EBUDGET), 507);
    assert_int_equal(xi_rc_grpc(XI_ENOENT), 5); /* NOT_FOUND of the gRPC specification */
    assert_int_equal(xi_rc_exit(XI_EUNREACH), 3);
    assert_string_equal(xi_rc_code(XI_OK), "XI-0000");
    assert_true(xi_rc_known(-502));
    assert_false(xi_rc_known(-1));
    assert_string_equal(xi_rc_name((enum xi_rc) - 9999), "EINTERNAL"); /* a lying host's number */
}

static void a_sentence_is_one_line(void **state)
{
    struct xi_err err = {0};

    (void)state;
    assert_int_equal(xi_fail(&err, XI_EINVAL, "a%cb\x1b[31mred\n", 7), XI_EINVAL);
    assert_string_equal(err.msg, "a?b?[31mred?");
    assert_int_equal(xi_hint(&err, "do %s", "this"), XI_EINVAL);
    assert_string_equal(err.hint, "do this");
    assert_int_equal(xi_fail(&err, XI_EIO, "again"), XI_EIO);
    assert_string_equal(err.hint, ""); /* an older hint does not stick */
    assert_int_equal(xi_fail(NULL, XI_EIO, "nobody listens"), XI_EIO);
}

static void wrapping_keeps_code_and_hint_and_never_overflows(void **state)
{
    struct xi_err err = {0};
    char long_text[400];

    (void)state;
    memset(long_text, 'x', sizeof long_text - 1);
    long_text[sizeof long_text - 1] = '\0';
    (void)xi_fail(&err, XI_EDISK, "disk full");
    (void)xi_hint(&err, "make room");
    assert_int_equal(xi_wrap(&err, XI_EDISK, "store"), XI_EDISK);
    assert_string_equal(err.msg, "store: disk full");
    assert_string_equal(err.hint, "make room");
    (void)xi_wrap(&err, XI_EDISK, "%s", long_text);
    assert_int_equal(strlen(err.msg), sizeof err.msg - 1);
}

static void errno_becomes_a_code(void **state)
{
    (void)state;
    assert_int_equal(xi_rc_errno(ENOSPC), XI_EDISK);
    assert_int_equal(xi_rc_errno(EMFILE), XI_EFDS);
    assert_int_equal(xi_rc_errno(EADDRINUSE), XI_EPORT);
    assert_int_equal(xi_rc_errno(EBADF), XI_EIO);
}

int main(void)
{
    const struct CMUnitTest t[] = {
        cmocka_unit_test(the_table_speaks_all_protocols),
        cmocka_unit_test(a_sentence_is_one_line),
        cmocka_unit_test(wrapping_keeps_code_and_hint_and_never_overflows),
        cmocka_unit_test(errno_becomes_a_code),
    };
    return cmocka_run_group_tests_name("status", t, NULL, NULL);
}
