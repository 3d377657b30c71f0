#include "wire/oip_proto.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "wire/protobuf.h"

static struct xi_oip_request *request;
static struct xi_oip_target model;
static struct xi_err err;
static uint8_t message[4096];
static size_t message_bytes;

static int make_request(void **state)
{
    (void)state;
    request = malloc(sizeof *request);
    return request ? 0 : -1;
}

static int free_request(void **state)
{
    (void)state;
    free(request);
    return 0;
}

/* Messages that tritonclient's own code wrote. */
static enum xi_rc read_file(const char *name)
{
    char path[512];

    (void)snprintf(path, sizeof path, XI_SOURCE_DIR "/tests/fuzz/corpus/oip_proto/%s", name);
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    message_bytes = fread(message, 1, sizeof message, f);
    (void)fclose(f);
    return xi_oip_proto_read(message, message_bytes, &model, request, &err);
}

static void check_full(void)
{
    const struct xi_oip_request *r = request;

    assert_string_equal(model.name, "m");
    assert_string_equal(model.version, "1.0.0");
    assert_string_equal(r->id, "r1");
    assert_string_equal(r->parameters.sequence, "77");
    assert_true(r->parameters.sequence_start && r->parameters.sequence_end);
    assert_int_equal(r->parameters.priority, 2);
    assert_int_equal(r->parameters.timeout_us, 5000);
    assert_true(r->parameters.empty_final);
    assert_int_equal(r->n_inputs, 3);
    assert_string_equal(r->inputs[0].name, "x");
    assert_int_equal(r->inputs[0].dtype, XI_DT_FP32);
    assert_int_equal(r->inputs[0].rank, 2);
    assert_int_equal(r->inputs[0].where, XI_OIP_RAW);
    assert_memory_equal(message + r->inputs[0].offset, ((const float[]){0, 1, 2, 3}), 16);
    assert_int_equal(r->inputs[1].bytes, 4 + 3 + 4 + 5);
    assert_memory_equal(message + r->inputs[1].offset, "\3\0\0\0one\5\0\0\0three", 16);
    assert_int_equal(r->inputs[2].where, XI_OIP_REGION);
    assert_string_equal(r->inputs[2].region.name, "region");
    assert_int_equal(r->inputs[2].region.offset, 64);
    assert_int_equal(r->inputs[2].bytes, 4);
    assert_int_equal(r->n_outputs, 2);
    assert_int_equal(r->outputs[0].classes, 3);
    assert_string_equal(r->outputs[1].region.name, "out");
    assert_int_equal(r->outputs[1].region.bytes, 128);
    assert_int_equal(r->outputs[1].region.offset, 8);
    assert_int_equal(r->text_bytes, 0);
}

static void a_whole_request_is_read(void **state)
{
    uint64_t raw = 0;

    (void)state;
    assert_int_equal(read_file("full"), XI_OK);
    check_full();
    size_t at = xi_oip_proto_raw_at(message, message_bytes, &raw);
    assert_int_equal(at, request->inputs[0].offset);
    assert_int_equal(xi_oip_proto_raw_at(message, at, &raw), at); /* its bytes need not be there */
    assert_int_equal(raw, 16);
    assert_int_equal(xi_oip_proto_raw_at(message, at - 1, &raw), 0);
    assert_int_equal(read_file("sequence-text"), XI_OK);
    assert_string_equal(request->parameters.sequence, "abc");
}

static void fields_come_in_any_order(void **state)
{
    uint64_t raw = 0;

    (void)state;
    assert_int_equal(read_file("raw-first"), XI_OK);
    check_full();
    assert_int_equal(request->inputs[0].offset, 2);
    assert_int_equal(xi_oip_proto_raw_at(message, 2, &raw), 2);
}

static void check_values(const char *name, const void *want, size_t bytes)
{
    for (uint32_t i = 0; i < request->n_inputs; i++) {
        const struct xi_oip_tensor *t = &request->inputs[i];
        if (strcmp(t->name, name) != 0)
            continue;
        assert_int_equal(t->where, XI_OIP_TEXT);
        assert_int_equal(t->offset % XI_OIP_ALIGN, 0);
        assert_int_equal(t->bytes, bytes);
        uint8_t *exact = malloc(bytes);
        assert_int_equal(xi_oip_proto_fill(message, t, exact, &err), XI_OK);
        assert_memory_equal(exact, want, bytes);
        free(exact);
        return;
    }
    fail_msg("no input %s", name);
}

static void typed_contents_are_filled(void **state)
{
    (void)state;
    assert_int_equal(read_file("typed"), XI_OK);
    assert_string_equal(model.name, "m@flow");
    assert_int_equal(request->text_bytes, 12 * XI_OIP_ALIGN);
    check_values("b", "\1\0\1", 3);
    check_values("i8", "\x80\x7f", 2);
    check_values("i16", ((const int16_t[]){-32768, 32767}), 4);
    check_values("i32", ((const int32_t[]){INT32_MIN, INT32_MAX}), 8);
    check_values("i64", ((const int64_t[]){INT64_MIN, INT64_MAX}), 16);
    check_values("u8", "\0\xff", 2);
    check_values("u16", "\xff\xff", 2);
    check_values("u32", "\xff\xff\xff\xff", 4);
    check_values("u64", "\xff\xff\xff\xff\xff\xff\xff\xff", 8);
    check_values("f32", ((const float[]){1.5f, __builtin_inff()}), 8);
    check_values("f64", ((const double[]){1.5, -0.0}), 16);
    check_values("s", "\0\0\0\0\5\0\0\0hello", 13);
    assert_int_equal(read_file("unpacked"), XI_OK);
    assert_int_equal(request->inputs[0].rank, 2);
    check_values("x", "\1\xff", 2);
}

static void nothing_is_a_tensor_too(void **state)
{
    (void)state;
    assert_int_equal(read_file("empty-tensor"), XI_OK);
    assert_int_equal(request->inputs[0].bytes, 0);
    assert_int_equal(read_file("unknown"), XI_OK);
}

static void what_does_not_add_up_is_named(void **state)
{
    (void)state;
    assert_int_equal(read_file("wrong-contents"), XI_ETENSOR);
    assert_string_equal(err.msg, "input \"x\": FP32 elements go into fp32_contents");
    assert_int_equal(read_file("huge-shape"), XI_ETENSOR);
    assert_int_equal(read_file("wrong-type"), XI_EINVAL);
    assert_non_null(strstr(err.msg, "\"inputs\" (field 5) has wire type 0"));
    assert_int_equal(read_file("group"), XI_EINVAL);
    assert_int_equal(read_file("long-name"), XI_EINVAL);
    assert_non_null(strstr(err.msg, "\"model_name\" is longer than 144 bytes"));
}

/* A request with one input "x" of INT8 [n], and what `more` says behind it. */
static enum xi_rc read_one(int64_t n, const char *contents, size_t contents_bytes, const char *more,
                           size_t more_bytes)
{
    struct xi_str s;

    xi_str_init(&s, sizeof message);
    size_t input = xi_pb_begin(&s, 5);
    xi_pb_text_field(&s, 1, "x");
    xi_pb_text_field(&s, 2, "INT8");
    xi_pb_put_uint(&s, 3, (uint64_t)n);
    xi_pb_bytes(&s, 5, contents, contents_bytes);
    xi_pb_end(&s, input);
    xi_str_add(&s, more, more_bytes);
    memcpy(message, s.data, s.len);
    enum xi_rc rc = xi_oip_proto_read(message, s.len, &model, request, &err);
    xi_str_fini(&s);
    return rc;
}

static void counts_must_fit(void **state)
{
    uint8_t one;

    (void)state;
    assert_int_equal(read_one(1, "\x10\x01", 2, NULL, 0), XI_OK);
    assert_int_equal(read_one(2, "\x10\x01", 2, NULL, 0), XI_ETENSOR);
    assert_string_equal(err.msg, "input \"x\": shape of 2 elements, its contents have 1");
    assert_int_equal(read_one(1, NULL, 0, NULL, 0), XI_ETENSOR);
    assert_int_equal(read_one(-1, "\x10\x01", 2, NULL, 0), XI_ETENSOR);
    assert_int_equal(read_one(2, NULL, 0, "\x3a\x02hi", 4), XI_OK);
    assert_int_equal(read_one(2, NULL, 0, "\x3a\x01h", 3), XI_ETENSOR);
    assert_int_equal(read_one(2, NULL, 0, "\x3a\x02hi\x3a\x01x", 7), XI_ETENSOR);
    assert_string_equal(err.msg, "2 raw_input_contents for 1 inputs");
    assert_int_equal(read_one(1, "\x10\x01", 2, "\x3a\x01h", 3), XI_ETENSOR);
    assert_string_equal(err.msg, "input \"x\": both contents and raw_input_contents");
    assert_int_equal(read_one(1, "\x10\xc8\x01", 3, NULL, 0), XI_OK); /* 200: found when filled */
    assert_int_equal(xi_oip_proto_fill(message, &request->inputs[0], &one, &err), XI_ETENSOR);
    assert_string_equal(err.msg, "input \"x\": value 0 is no INT8");
}

static void parameters_have_types(void **state)
{
    static const struct {
        const char *entry;
        size_t bytes;
    } bad[] = {
        {"\x0a\x08priority\x12\x04\x1a\x02hi", 16},                                  /* a string */
        {"\x0a\x07timeout\x12\x0b\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 22}, /* -1 */
        {"\x0a\x0bsequence_id\x12\x02\x08\x01", 17},                                 /* a bool */
        {"\x0a\x0esequence_start\x12\x02\x10\x01", 20},                              /* a number */
        {"\x0a\x0bsequence_id\x12\x02\x19\x01", 17},         /* a string as a double */
        {"\x0a\x0bsequence_id\x10\x02", 15},                 /* a number for a message */
        {"\x0a\x0bsequence_id\x12\x04\x1a\x02\xff\xfe", 19}, /* no UTF-8 */
    };
    struct xi_str s;

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        xi_str_init(&s, sizeof message);
        xi_pb_bytes(&s, 4, bad[i].entry, bad[i].bytes);
        assert_int_equal(xi_oip_proto_read(s.data, s.len, &model, request, &err), XI_EINVAL);
        assert_null(strstr(err.msg, "no inputs"));
        xi_str_fini(&s);
    }
}

static void too_many_are_refused(void **state)
{
    struct xi_str s;

    (void)state;
    for (uint32_t field = 5; field <= 7; field++) {
        xi_str_init(&s, XI_MIB);
        for (int i = 0; i <= XI_TENSORS_MAX; i++) {
            char name[16];
            size_t tensor = xi_pb_begin(&s, field);
            (void)snprintf(name, sizeof name, "t%d", i);
            xi_pb_text_field(&s, 1, name);
            if (field == 5)
                xi_pb_text_field(&s, 2, "INT8");
            xi_pb_end(&s, tensor);
        }
        assert_int_equal(xi_oip_proto_read(s.data, s.len, &model, request, &err), XI_EINVAL);
        assert_non_null(strstr(err.msg, "more than 64"));
        xi_str_fini(&s);
    }
}

/* Held to the bytes of the reference: model "m", version "1", id "7", one FP32 [2,3] named "y". */
static void an_answer_is_written(void **state)
{
    static const char want[] = "\x0a\x01m\x12\x01\x31\x1a\x01\x37"
                               "\x2a\x0d\x0a\x01y\x12\x04"
                               "FP32\x1a\x02\x02\x03"
                               "\x32\x18";
    struct xi_tensor t = xi_tensor_make(XI_DT_FP32, (const int64_t[]){2, 3}, 2, NULL, 24);
    struct xi_oip_proto_answer a = {.model = "m", .version = "1", .id = "7", .final = -1};
    struct xi_oip_proto_output o = {.name = "y", .tensor = &t};
    struct xi_str s;

    (void)state;
    xi_str_init(&s, 4096);
    xi_oip_proto_begin(&s, &a);
    xi_oip_proto_output(&s, &o);
    size_t before = s.len;
    xi_oip_proto_mark(&s, t.bytes);
    assert_int_equal(s.len - before, xi_oip_proto_mark_bytes(t.bytes));
    assert_int_equal(s.len, sizeof want - 1);
    assert_memory_equal(s.data, want, s.len);
    for (uint64_t n = 1; n < UINT64_MAX / 8; n *= 7) {
        before = s.len;
        xi_oip_proto_mark(&s, n);
        assert_int_equal(s.len - before, xi_oip_proto_mark_bytes(n));
    }
    xi_str_fini(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_whole_request_is_read),       cmocka_unit_test(fields_come_in_any_order),
        cmocka_unit_test(typed_contents_are_filled),     cmocka_unit_test(nothing_is_a_tensor_too),
        cmocka_unit_test(what_does_not_add_up_is_named), cmocka_unit_test(counts_must_fit),
        cmocka_unit_test(parameters_have_types),         cmocka_unit_test(too_many_are_refused),
        cmocka_unit_test(an_answer_is_written),
    };
    return cmocka_run_group_tests_name("oip_proto", tests, make_request, free_request);
}
