#include "wire/protobuf.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* The examples of the encoding's specification. */
static void known_bytes_are_read(void **state)
{
    static const char bytes[] = "\x08\x96\x01\x12\x07testing\x3a\x02\x08\x01";
    struct xi_pb r = xi_pb_make(bytes, sizeof bytes - 1);
    struct xi_pb_field f;
    char text[8];

    (void)state;
    assert_int_equal(xi_pb_next(&r, &f), 1);
    assert_int_equal(f.number, 1);
    assert_int_equal(f.type, XI_PB_VARINT);
    assert_int_equal(f.value, 150);
    assert_int_equal(xi_pb_next(&r, &f), 1);
    assert_int_equal(f.number, 2);
    assert_true(xi_pb_is(&f, "testing"));
    assert_int_equal(xi_pb_text(&f, "name", text, 8, NULL), XI_OK);
    assert_string_equal(text, "testing");
    assert_int_equal(xi_pb_text(&f, "name", text, 7, NULL), XI_EINVAL);
    assert_int_equal(xi_pb_next(&r, &f), 1);
    assert_int_equal(f.bytes, 2);
    assert_int_equal(xi_pb_next(&r, &f), 0);
}

static int read_all(const char *bytes, size_t n)
{
    struct xi_pb r = xi_pb_make(bytes, n);
    struct xi_pb_field f;
    int more;

    while ((more = xi_pb_next(&r, &f)) > 0)
        ;
    return more;
}

static void what_is_no_message_is_refused(void **state)
{
    (void)state;
    assert_int_equal(read_all("\x08", 1), -1);         /* no value */
    assert_int_equal(read_all("\x08\x80", 2), -1);     /* half a one */
    assert_int_equal(read_all("\x12\x05test", 6), -1); /* cut off */
    assert_int_equal(read_all("\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 11), -1);
    assert_int_equal(read_all("\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", 11),
                     -1); /* 65 bits */
    assert_int_equal(read_all("\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 11), 0);
    assert_int_equal(read_all("\x0d\x01\x02\x03", 4), -1);                 /* half a float */
    assert_int_equal(read_all("\x02\x00", 2), -1);                         /* field 0 */
    assert_int_equal(read_all("\x0b\x0c", 2), -1);                         /* a group */
    assert_int_equal(read_all("\x0e\x00", 2), -1);                         /* no such type */
    assert_int_equal(read_all("\x88\x80\x80\x80\x80\x80\x01\x00", 8), -1); /* field > 2^29 */
}

static void texts_are_checked(void **state)
{
    static const char *const bad[] = {"\xff", "a\xc3", "\xed\xa0\x80", "a\0b"};
    struct xi_err err = {0};
    char text[16];

    (void)state;
    for (size_t i = 0; i < 4; i++) {
        struct xi_pb_field f = {.type = XI_PB_BYTES,
                                .data = (const uint8_t *)bad[i],
                                .bytes = i == 3 ? 3 : strlen(bad[i])};
        assert_int_equal(xi_pb_text(&f, "id", text, sizeof text, &err), XI_EINVAL);
    }
    assert_string_equal(err.msg, "NUL in \"id\"");
    struct xi_pb_field number = {.number = 3, .value = 7};
    assert_int_equal(xi_pb_text(&number, "id", text, sizeof text, &err), XI_EINVAL);
    assert_int_equal(xi_pb_want(&number, XI_PB_BYTES, "M", "id", &err), XI_EINVAL);
    assert_string_equal(err.msg, "M: \"id\" (field 3) has wire type 0 where 2 belongs");
}

static void what_is_written_is_read_again(void **state)
{
    static const size_t lengths[] = {0, 1, 127, 128, 16383, 16384, 70000};
    struct xi_pb_field f, inner;
    struct xi_str s;
    char *filler = calloc(1, 70000);

    (void)state;
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        xi_str_init(&s, 1 << 20);
        size_t outer = xi_pb_begin(&s, 3);
        xi_pb_bytes(&s, 200, filler, lengths[i]);
        xi_pb_uint(&s, 1, UINT64_MAX);
        xi_pb_uint(&s, 4, 0); /* left out */
        xi_pb_put_uint(&s, 5, 0);
        xi_pb_end(&s, outer);
        xi_pb_text_field(&s, 4, "behind");

        struct xi_pb r = xi_pb_make(s.data, s.len);
        assert_int_equal(xi_pb_next(&r, &f), 1);
        assert_int_equal(f.number, 3);
        struct xi_pb in = xi_pb_make(f.data, f.bytes);
        if (lengths[i] > 0) {
            assert_int_equal(xi_pb_next(&in, &inner), 1);
            assert_int_equal(inner.number, 200);
            assert_int_equal(inner.bytes, lengths[i]);
        }
        assert_int_equal(xi_pb_next(&in, &inner), 1);
        assert_int_equal(inner.number, 1);
        assert_true(inner.value == UINT64_MAX);
        assert_int_equal(xi_pb_next(&in, &inner), 1);
        assert_int_equal(inner.number, 5);
        assert_int_equal(xi_pb_next(&in, &inner), 0);
        assert_int_equal(xi_pb_next(&r, &f), 1);
        assert_true(xi_pb_is(&f, "behind"));
        assert_int_equal(xi_pb_next(&r, &f), 0);
        xi_str_fini(&s);
    }
    free(filler);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_bytes_are_read),
        cmocka_unit_test(what_is_no_message_is_refused),
        cmocka_unit_test(texts_are_checked),
        cmocka_unit_test(what_is_written_is_read_again),
    };
    return cmocka_run_group_tests_name("protobuf", tests, NULL, NULL);
}
