#include "wire/oip_json.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct xi_oip_request *request;

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

static enum xi_rc read_tail(const char *text, uint64_t tail)
{
    return xi_oip_read(text, strlen(text), tail, request, NULL);
}

static enum xi_rc read_text(const char *text)
{
    return read_tail(text, 0);
}

/* Reads and fills one input; the result of whichever failed first. */
static enum xi_rc fill(const char *text, void *dst, size_t room)
{
    enum xi_rc rc = read_text(text);

    if (rc != XI_OK)
        return rc;
    assert_int_equal(request->n_inputs, 1);
    assert_true(request->inputs[0].bytes <= room);
    uint8_t *exact = malloc(request->inputs[0].bytes + 1);
    rc = xi_oip_fill(text, strlen(text), &request->inputs[0], exact, NULL);
    memcpy(dst, exact, request->inputs[0].bytes);
    free(exact);
    return rc;
}

#define ONE(dtype, shape, data)                                                                    \
    "{\"inputs\":[{\"name\":\"x\",\"datatype\":\"" dtype "\",\"shape\":" shape ",\"data\":" data   \
    "}]}"

static void flat_and_nested_data_are_the_same(void **state)
{
    float a[4], b[4], want[4] = {1, -2.5f, 3e10f, 0.1f};

    (void)state;
    assert_int_equal(fill(ONE("FP32", "[2,2]", "[1,-2.5,3e10,0.1]"), a, sizeof a), XI_OK);
    assert_int_equal(fill(ONE("FP32", "[2,2]", "[[1,-2.5],[3e10,0.1]]"), b, sizeof b), XI_OK);
    assert_memory_equal(a, want, sizeof a);
    assert_memory_equal(b, want, sizeof b);
}

static void every_datatype_is_read(void **state)
{
    uint8_t raw[64];
    static const struct {
        const char *text;
        uint8_t want[8];
        size_t n;
    } table[] = {
        {ONE("BOOL", "[3]", "[true,false,1]"), {1, 0, 1}, 3},
        {ONE("UINT8", "[2]", "[0,255]"), {0, 255}, 2},
        {ONE("INT8", "[2]", "[-128,127]"), {0x80, 0x7f}, 2},
        {ONE("UINT16", "[1]", "[65535]"), {0xff, 0xff}, 2},
        {ONE("INT16", "[1]", "[-2]"), {0xfe, 0xff}, 2},
        {ONE("UINT32", "[1]", "[4294967295]"), {0xff, 0xff, 0xff, 0xff}, 4},
        {ONE("INT32", "[1]", "[-1]"), {0xff, 0xff, 0xff, 0xff}, 4},
        {ONE("UINT64", "[1]", "[18446744073709551615]"),
         {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
         8},
        {ONE("INT64", "[1]", "[-9223372036854775808]"), {0, 0, 0, 0, 0, 0, 0, 0x80}, 8},
        {ONE("FP16", "[2]", "[1,-2]"), {0x00, 0x3c, 0x00, 0xc0}, 4},
        {ONE("BF16", "[2]", "[1,3.140625]"), {0x80, 0x3f, 0x49, 0x40}, 4},
        {ONE("FP64", "[1]", "[1]"), {0, 0, 0, 0, 0, 0, 0xf0, 0x3f}, 8},
        {ONE("BYTES", "[2]", "[\"a\",\"\"]"), {1, 0, 0, 0, 'a', 0, 0, 0}, 8},
    };

    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        memset(raw, 0xaa, sizeof raw);
        if (fill(table[i].text, raw, sizeof raw) != XI_OK)
            fail_msg("refused: %s", table[i].text);
        assert_memory_equal(raw, table[i].want, table[i].n);
    }
}

/* Abuse 5 and 6. */
static void what_does_not_add_up_is_refused(void **state)
{
    static const char *const bad[] = {
        ONE("FP32", "[2]", "[1]"),
        ONE("FP32", "[1]", "[1,2]"),
        ONE("FP32", "[2]", "[1,\"2\"]"),
        ONE("FP32", "[1]", "[null]"),
        ONE("FP32", "[1]", "1"),
        ONE("FP32", "[1]", "[1e39]"),
        ONE("FP32", "[1]", "[{}]"),
        ONE("FP16", "[1]", "[70000]"),
        ONE("BF16", "[1]", "[1e40]"),
        ONE("UINT8", "[1]", "[256]"),
        ONE("UINT8", "[1]", "[-1]"),
        ONE("UINT8", "[1]", "[1.5]"),
        ONE("INT8", "[1]", "[128]"),
        ONE("INT64", "[1]", "[9223372036854775808]"),
        ONE("BOOL", "[1]", "[2]"),
        ONE("BYTES", "[2]", "[\"a\"]"),
        ONE("BYTES", "[1]", "[1]"),
        ONE("FP99", "[1]", "[1]"),
        ONE("FP32", "[16,1152921504606846978]", "[1]"),
        ONE("FP32", "[-1]", "[1]"),
        ONE("FP32", "[4294967296,4294967296]", "[1]"),
        ONE("FP32", "[1000000000]", "[1]"),
        ONE("FP32", "[1.5]", "[1]"),
        ONE("FP32", "[\"1\"]", "[1]"),
        ONE("FP32", "[1,1,1,1,1,1,1,1,1]", "[1]"),
        ONE("FP32", "1", "[1]"),
        ONE("FP32", "[99999999999999999999]", "[1]"),
        "{}",
        "[]",
        "{\"inputs\":[]}",
        "{\"inputs\":{}}",
        "{\"inputs\":[1]}",
        "{\"inputs\":[{}]}",
        "{\"inputs\":[{\"name\":\"x\",\"shape\":[1],\"datatype\":\"FP32\"}]}",
        "{\"inputs\":[{\"name\":\"x\",\"name\":\"y\",\"shape\":[1],\"datatype\":\"FP32\",\"data\":["
        "1]}]}",
        "{\"inputs\":[],\"inputs\":[]}",
        "{\"inputs\":[{\"name\":\"x\",\"shape\":[1],\"datatype\":\"FP32\",\"data\":[1]},"
        "{\"name\":\"x\",\"shape\":[1],\"datatype\":\"FP32\",\"data\":[1]}]}",
        "{\"inputs\":[{\"name\":\"x\",\"shape\":[1],\"datatype\":\"FP32\",\"data\":[1]}],"
        "\"outputs\":[{\"name\":\"a\"},{\"name\":\"a\"}]}",
        "{\"inputs\":[{\"name\":\"x\",\"shape\":[1],\"datatype\":\"FP32\",\"data\":[1]}]} x",
        "{\"inputs\":[{\"name\":\"x\\u0000\",\"shape\":[1],\"datatype\":\"FP32\",\"data\":[1]}]}",
        "{\"inputs\":[{\"name\":\"\\ud800\",\"shape\":[1],\"datatype\":\"FP32\",\"data\":[1]}]}",
    };
    uint8_t raw[256];

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (fill(bad[i], raw, sizeof raw) == XI_OK)
            fail_msg("taken: %s", bad[i]);
}

static void scalars_and_empty_tensors_are_fine(void **state)
{
    float v = 0;

    (void)state;
    assert_int_equal(fill(ONE("FP32", "[]", "[2]"), &v, sizeof v), XI_OK);
    assert_true(v == 2);
    assert_int_equal(fill(ONE("FP32", "[0]", "[]"), &v, sizeof v), XI_OK);
    assert_int_equal(request->inputs[0].bytes, 0);
}

static void unknown_keys_are_passed_over(void **state)
{
    float v = 0;
    static const char text[] =
        "{\"id\":\"r1\",\"x\":{\"inputs\":[1]},\"inputs\":[{\"data\":[5],\"extra\":[[]],"
        "\"datatype\":\"FP32\",\"name\":\"x\",\"shape\":[1],\"parameters\":{\"q\":{}}}],"
        "\"parameters\":{\"priority\":1}}";

    (void)state;
    assert_int_equal(fill(text, &v, sizeof v), XI_OK);
    assert_true(v == 5);
    assert_string_equal(request->id, "r1");
}

static void a_million_outputs_are_refused(void **state)
{
    struct xi_str s;
    struct xi_err err;

    (void)state;
    xi_str_init(&s, XI_GIB);
    xi_str_puts(&s,
                "{\"inputs\":[{\"name\":\"x\",\"shape\":[1],\"datatype\":\"FP32\",\"data\":[1]}]"
                ",\"outputs\":[");
    for (int i = 0; i < 1000000; i++)
        xi_str_printf(&s, "%s{\"name\":\"%d\"}", i ? "," : "", i);
    xi_str_puts(&s, "]}");
    assert_int_not_equal(xi_oip_read(s.data, s.len, 0, request, &err), XI_OK);
    s.data[10 * 1024 * 1024] = '\0'; /* under the limit of JSON: the count stops it */
    assert_int_equal(xi_oip_read(s.data, 10 * 1024 * 1024, 0, request, &err), XI_EINVAL);
    xi_str_fini(&s);
}

#define BINARY(dtype, shape, size)                                                                 \
    "{\"inputs\":[{\"name\":\"x\",\"datatype\":\"" dtype "\",\"shape\":" shape                     \
    ",\"parameters\":{\"binary_data_size\":" size "}}]}"

static void binary_tails_must_fit(void **state)
{
    (void)state;
    assert_int_equal(read_tail(BINARY("FP32", "[2,2]", "16"), 16), XI_OK);
    assert_int_equal(request->inputs[0].where, XI_OIP_RAW);
    assert_int_equal(request->inputs[0].offset, 0);
    assert_int_equal(request->text_bytes, 0);
    assert_int_not_equal(read_tail(BINARY("FP32", "[2,2]", "16"), 15), XI_OK);
    assert_int_not_equal(read_tail(BINARY("FP32", "[2,2]", "16"), 17), XI_OK);
    assert_int_not_equal(read_tail(BINARY("FP32", "[2,2]", "12"), 12), XI_OK);
    assert_int_not_equal(read_tail(BINARY("FP32", "[2,2]", "-16"), 16), XI_OK);
    assert_int_not_equal(read_tail(BINARY("FP32", "[2,2]", "1e99"), 16), XI_OK);
    assert_int_not_equal(read_tail(BINARY("FP32", "[4611686018427387905]", "4"), 4), XI_OK);
    assert_int_equal(read_tail(BINARY("BYTES", "[2]", "16"), 16), XI_OK);
    assert_int_not_equal(read_tail(ONE("FP32", "[1]", "[1]"), 4), XI_OK);
    assert_int_not_equal(
        read_tail("{\"inputs\":[{\"name\":\"x\",\"datatype\":\"FP32\",\"shape\":[1],\"data\":[1],"
                  "\"parameters\":{\"binary_data_size\":4}}]}",
                  4),
        XI_OK);
}

/* Abuse 4. */
static void the_header_length_is_a_plain_number(void **state)
{
    static const char *const bad[] = {
        "-1", "1e9", "", " 5", "5 ", "0x5", "101", "99999999999999999999", "18446744073709551617",
        "+5"};
    uint64_t n = 0;

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (xi_oip_header_length(bad[i], 100, &n, NULL) == XI_OK)
            fail_msg("taken: %s", bad[i]);
    assert_int_equal(xi_oip_header_length("100", 100, &n, NULL), XI_OK);
    assert_int_equal(n, 100);
}

static void outputs_say_how_they_want_to_come(void **state)
{
    (void)state;
    assert_int_equal(
        read_text("{\"inputs\":[{\"name\":\"x\",\"shape\":[1],\"datatype\":\"FP32\",\"data\":[1]}],"
                  "\"parameters\":{\"binary_data_output\":true},\"outputs\":[{\"name\":\"a\"},"
                  "{\"name\":\"b\",\"parameters\":{\"binary_data\":false}}]}"),
        XI_OK);
    assert_int_equal(request->n_outputs, 2);
    assert_int_equal(request->outputs[0].binary, 1);
    assert_int_equal(request->outputs[1].binary, 0);
}

#define REGION_IN(parameters)                                                                      \
    "{\"inputs\":[{\"name\":\"x\",\"datatype\":\"FP32\",\"shape\":[2,2],\"parameters\":"           \
    "{" parameters "}}]}"
#define REGION_OUT(parameters)                                                                     \
    "{\"inputs\":[{\"name\":\"x\",\"datatype\":\"INT8\",\"shape\":[1],\"data\":[1]}],"             \
    "\"outputs\":[{\"name\":\"y\",\"parameters\":{" parameters "}}]}"

static void inputs_and_outputs_lie_in_regions(void **state)
{
    const struct xi_oip_tensor *x = &request->inputs[0];
    const struct xi_oip_output *y = &request->outputs[0];

    (void)state;
    assert_int_equal(read_text(REGION_IN("\"shared_memory_region\":\"in \\u0030\","
                                         "\"shared_memory_byte_size\":16,"
                                         "\"shared_memory_offset\":64")),
                     XI_OK);
    assert_int_equal(x->where, XI_OIP_REGION);
    assert_string_equal(x->region.name, "in 0");
    assert_int_equal(x->region.offset, 64);
    assert_int_equal(x->bytes, 16);
    assert_int_equal(request->text_bytes, 0);
    assert_int_equal(read_text(REGION_OUT("\"shared_memory_region\":\"out\","
                                          "\"shared_memory_byte_size\":7,\"binary_data\":true")),
                     XI_OK);
    assert_string_equal(y->region.name, "out");
    assert_int_equal(y->region.offset, 0);
    assert_int_equal(y->region.bytes, 7);
}

static void regions_that_do_not_add_up_are_refused(void **state)
{
    static const char *const inputs[] = {
        REGION_IN("\"shared_memory_region\":\"r\""),
        REGION_IN("\"shared_memory_byte_size\":16"),
        REGION_IN("\"shared_memory_offset\":16"),
        REGION_IN("\"shared_memory_region\":\"\",\"shared_memory_byte_size\":16"),
        REGION_IN("\"shared_memory_region\":\"a\\u0000b\",\"shared_memory_byte_size\":16"),
        REGION_IN("\"shared_memory_region\":7,\"shared_memory_byte_size\":16"),
        REGION_IN("\"shared_memory_region\":\"r\",\"shared_memory_byte_size\":\"16\""),
        REGION_IN("\"shared_memory_region\":\"r\",\"shared_memory_byte_size\":-16"),
        REGION_IN("\"shared_memory_region\":\"r\",\"shared_memory_byte_size\":16,"
                  "\"shared_memory_offset\":18446744073709551616"),
        REGION_OUT("\"shared_memory_region\":\"r\""),
        REGION_OUT("\"shared_memory_region\":null,\"shared_memory_byte_size\":16"),
    };
    char text[512], name[XI_NAME_MAX + 2];

    (void)state;
    for (size_t i = 0; i < sizeof inputs / sizeof *inputs; i++)
        assert_int_equal(read_text(inputs[i]), XI_EINVAL);
    memset(name, 'n', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    (void)snprintf(text, sizeof text,
                   REGION_IN("\"shared_memory_region\":\"%s\",\"shared_memory_byte_size\":16"),
                   name);
    assert_int_equal(read_text(text), XI_EINVAL);
    assert_int_equal(read_text(REGION_IN("\"shared_memory_region\":\"r\","
                                         "\"shared_memory_region\":\"s\","
                                         "\"shared_memory_byte_size\":16")),
                     XI_EJSON);
    assert_int_equal(read_text(REGION_IN("\"shared_memory_region\":\"r\","
                                         "\"shared_memory_byte_size\":15")),
                     XI_ETENSOR);
    assert_int_equal(read_tail(REGION_IN("\"shared_memory_region\":\"r\",\"binary_data_size\":16,"
                                         "\"shared_memory_byte_size\":16"),
                               16),
                     XI_ETENSOR);
}

static void parameters_of_a_request_are_read(void **state)
{
    const struct xi_oip_parameters *p = &request->parameters;
#define ASK(parameters)                                                                            \
    "{\"parameters\":{" parameters                                                                 \
    "},\"inputs\":[{\"name\":\"x\",\"datatype\":\"INT8\",\"shape\":[1],\"data\":[1]}]}"
    static const char *const wrong[] = {
        ASK("\"sequence_id\":1.5"),   ASK("\"sequence_id\":true"), ASK("\"sequence_start\":1"),
        ASK("\"sequence_end\":\"\""), ASK("\"priority\":\"1\""),   ASK("\"priority\":-1"),
        ASK("\"timeout\":null"),      ASK("\"timeout\":1e30"),
    };

    (void)state;
    assert_int_equal(read_text(ASK("\"sequence_id\":42,\"sequence_start\":true,\"priority\":2,"
                                   "\"sequence_end\":false,\"timeout\":18446744073709551615,"
                                   "\"unknown\":{\"a\":[1]}")),
                     XI_OK);
    assert_string_equal(p->sequence, "42");
    assert_true(p->sequence_start);
    assert_false(p->sequence_end);
    assert_int_equal(p->priority, 2);
    assert_int_equal(p->timeout_us, UINT64_MAX);
    assert_int_equal(read_text(ASK("\"sequence_id\":\"a-1\",\"binary_data_output\":true")), XI_OK);
    assert_string_equal(p->sequence, "a-1");
    assert_true(p->binary_output);
    assert_int_equal(read_text(ASK("\"sequence_id\":0")), XI_OK);
    assert_string_equal(p->sequence, "");
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        assert_int_equal(read_text(wrong[i]), XI_EINVAL);
    assert_int_equal(read_text(REGION_OUT("\"classification\":3")), XI_OK);
    assert_int_equal(request->outputs[0].classes, 3);
    assert_int_equal(read_text(REGION_OUT("\"classification\":65537")), XI_EINVAL);
}

static void check_written(enum xi_dtype dtype, const int64_t *dims, int rank, void *data,
                          uint64_t bytes, const char *want)
{
    struct xi_tensor t = xi_tensor_make(dtype, dims, rank, data, bytes);
    struct xi_str s;

    xi_str_init(&s, 4096);
    xi_oip_write(&s, "y", &t, 0);
    assert_string_equal(xi_str_text(&s), want);
    xi_str_fini(&s);
}

static void tensors_are_written(void **state)
{
    int64_t two[] = {2}, one_two[] = {1, 2};
    float f[] = {0.1f, 1.0f / 0.0f};
    int8_t i8[] = {-1, 127};
    int64_t i64[] = {INT64_MIN, INT64_MAX};
    uint64_t u64[] = {0, UINT64_MAX};
    uint16_t half[] = {0x3c00, 0xc000};
    uint8_t boolean[] = {1, 0}, text[] = {2, 0, 0, 0, 'a', '"', 2, 0, 0, 0, 0xff, 0};

    (void)state;
#define OUT(dtype, shape, data)                                                                    \
    "{\"name\":\"y\",\"datatype\":\"" dtype "\",\"shape\":" shape ",\"data\":" data "}"
    check_written(XI_DT_FP32, one_two, 2, f, sizeof f, OUT("FP32", "[1,2]", "[0.100000001,null]"));
    check_written(XI_DT_INT8, two, 1, i8, sizeof i8, OUT("INT8", "[2]", "[-1,127]"));
    check_written(XI_DT_INT64, two, 1, i64, sizeof i64,
                  OUT("INT64", "[2]", "[-9223372036854775808,9223372036854775807]"));
    check_written(XI_DT_UINT64, two, 1, u64, sizeof u64,
                  OUT("UINT64", "[2]", "[0,18446744073709551615]"));
    check_written(XI_DT_FP16, two, 1, half, sizeof half, OUT("FP16", "[2]", "[1,-2]"));
    check_written(XI_DT_BOOL, two, 1, boolean, sizeof boolean, OUT("BOOL", "[2]", "[true,false]"));
    check_written(XI_DT_BYTES, two, 1, text, sizeof text,
                  OUT("BYTES", "[2]", "[\"a\\\"\",\"\\ufffd\\u0000\"]"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(flat_and_nested_data_are_the_same),
        cmocka_unit_test(every_datatype_is_read),
        cmocka_unit_test(what_does_not_add_up_is_refused),
        cmocka_unit_test(scalars_and_empty_tensors_are_fine),
        cmocka_unit_test(unknown_keys_are_passed_over),
        cmocka_unit_test(a_million_outputs_are_refused),
        cmocka_unit_test(binary_tails_must_fit),
        cmocka_unit_test(the_header_length_is_a_plain_number),
        cmocka_unit_test(outputs_say_how_they_want_to_come),
        cmocka_unit_test(inputs_and_outputs_lie_in_regions),
        cmocka_unit_test(regions_that_do_not_add_up_are_refused),
        cmocka_unit_test(parameters_of_a_request_are_read),
        cmocka_unit_test(tensors_are_written),
    };

    return cmocka_run_group_tests_name("oip_json", tests, make_request, free_request);
}
