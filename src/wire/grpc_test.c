#include "wire/grpc.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void frames(void **state)
{
    struct xi_err err;
    uint64_t n = 0;
    int compressed = 1;
    uint8_t frame[5];

    (void)state;
    xi_grpc_frame_write(frame, 0x12345678);
    assert_memory_equal(frame, "\x00\x12\x34\x56\x78", 5);
    assert_int_equal(xi_grpc_frame_read(frame, UINT64_MAX, &compressed, &n, &err), XI_OK);
    assert_int_equal(n, 0x12345678);
    assert_int_equal(compressed, 0);
    assert_int_equal(xi_grpc_frame_read(frame, 0x12345677, &compressed, &n, &err), XI_ETOOBIG);
    frame[0] = 1;
    assert_int_equal(xi_grpc_frame_read(frame, UINT64_MAX, &compressed, &n, &err), XI_OK);
    assert_int_equal(compressed, 1);
    frame[0] = 2;
    assert_int_equal(xi_grpc_frame_read(frame, UINT64_MAX, &compressed, &n, &err), XI_EPROTO);
}

static void timeouts(void **state)
{
    static const char *const bad[] = {"",     "5",          "S",   "-1S", "1s",
                                      "1.5S", "123456789S", "1 S", "1Sx"};
    static const struct {
        const char *value;
        uint64_t ns;
    } good[] = {{"1H", 3600000000000},    {"2M", 120000000000},       {"3S", 3000000000},
                {"4m", 4000000},          {"99999999u", 99999999000}, {"0n", 0},
                {"99999999H", UINT64_MAX}};
    uint64_t ns = 0;

    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        assert_int_equal(xi_grpc_timeout(good[i].value, &ns, NULL), XI_OK);
        assert_true(ns == good[i].ns);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(xi_grpc_timeout(bad[i], &ns, NULL), XI_EINVAL);
}

static void trailers(void **state)
{
    struct xi_str s;

    (void)state;
    xi_str_init(&s, 1024);
    xi_grpc_trailers(&s, 0, NULL);
    assert_string_equal(xi_str_text(&s), "grpc-status: 0\r\n");
    xi_str_clear(&s);
    xi_grpc_trailers(&s, 5, "50% of \"\xc3\xa9\"\r\nx: y");
    assert_string_equal(xi_str_text(&s), "grpc-status: 5\r\n"
                                         "grpc-message: 50%25 of \"%C3%A9\"%0D%0Ax: y\r\n");
    xi_str_fini(&s);
}

/* The numbers of the error table are the ones gRPC gives these names. */
static void statuses_have_names(void **state)
{
    (void)state;
    assert_string_equal(xi_grpc_status_name(xi_rc_grpc(XI_OK)), "OK");
    assert_string_equal(xi_grpc_status_name(xi_rc_grpc(XI_ETENSOR)), "INVALID_ARGUMENT");
    assert_string_equal(xi_grpc_status_name(xi_rc_grpc(XI_ETIMEOUT)), "DEADLINE_EXCEEDED");
    assert_string_equal(xi_grpc_status_name(xi_rc_grpc(XI_ENOENT)), "NOT_FOUND");
    assert_string_equal(xi_grpc_status_name(xi_rc_grpc(XI_ETOOBIG)), "RESOURCE_EXHAUSTED");
    assert_string_equal(xi_grpc_status_name(xi_rc_grpc(XI_EROUTE)), "UNIMPLEMENTED");
    assert_string_equal(xi_grpc_status_name(xi_rc_grpc(XI_EAGAIN)), "UNAVAILABLE");
    assert_string_equal(xi_grpc_status_name(xi_rc_grpc(XI_EAUTH)), "UNAUTHENTICATED");
    assert_string_equal(xi_grpc_status_name(xi_rc_grpc(XI_EFORBIDDEN)), "PERMISSION_DENIED");
    assert_string_equal(xi_grpc_status_name(xi_rc_grpc(XI_ECANCELLED)), "CANCELLED");
    assert_string_equal(xi_grpc_status_name(xi_rc_grpc(XI_EINTERNAL)), "INTERNAL");
    assert_string_equal(xi_grpc_status_name(17), "UNKNOWN");
    assert_string_equal(xi_grpc_status_name(-1), "UNKNOWN");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frames),
        cmocka_unit_test(timeouts),
        cmocka_unit_test(trailers),
        cmocka_unit_test(statuses_have_names),
    };
    return cmocka_run_group_tests_name("grpc", tests, NULL, NULL);
}
