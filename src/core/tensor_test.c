#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "core/tensor.h"

static void shape_bombs_are_refused(void **state)
{
    struct xi_err err = {0};
    uint64_t n = 0;
    int64_t huge[] = {16, (1ll << 60) + 2}, negative[] = {-1}, empty[] = {0, 5}, ok[] = {2, 3};

    (void)state;
    assert_int_equal(xi_shape_elements(huge, 2, &n, &err), XI_ETENSOR);
    assert_int_equal(xi_shape_elements(negative, 1, &n, &err), XI_ETENSOR);
    assert_int_equal(xi_shape_elements(ok, 65, &n, &err), XI_ETENSOR);
    assert_int_equal(xi_shape_elements(empty, 2, &n, &err), XI_OK);
    assert_int_equal(n, 0);
    assert_int_equal(xi_shape_bytes(XI_DT_FP64, ok, 2, &n, &err), XI_OK);
    assert_int_equal(n, 48);
    int64_t edge[] = {1ll << 61};
    assert_int_equal(xi_shape_bytes(XI_DT_FP64, edge, 1, &n, &err), XI_ETENSOR);
    assert_int_equal(xi_shape_bytes(XI_DT_BYTES, ok, 2, &n, &err), XI_ETENSOR);
}

static void shapes_parse(void **state)
{
    struct xi_err err = {0};
    int64_t dims[XI_MAX_RANK];
    int rank = -1;
    char text[64];

    (void)state;
    assert_int_equal(xi_shape_parse("1,300,300,3", 0, dims, &rank, &err), XI_OK);
    assert_string_equal(xi_shape_text(dims, rank, text, sizeof text), "[1,300,300,3]");
    assert_int_equal(xi_shape_parse("", 0, dims, &rank, &err), XI_OK); /* a scalar */
    assert_int_equal(rank, 0);
    assert_int_equal(xi_shape_parse("-1,3", 1, dims, &rank, &err), XI_OK);
    static const char *const bad[] = {
        "-1", "1,", ",1", "1,,2", "a", "1 2", "1,2,3,4,5,6,7,8,9", "99999999999999999999", "1;2"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(xi_shape_parse(bad[i], 0, dims, &rank, &err), XI_ETENSOR);
}

static void bytes_elements_stay_inside(void **state)
{
    struct xi_err err = {0};
    const unsigned char good[] = {2, 0, 0, 0, 'h', 'i', 0, 0, 0, 0};
    const unsigned char past[] = {3, 0, 0, 0, 'h', 'i'};
    const unsigned char wrap[] = {0xff, 0xff, 0xff, 0xff, 'h'};

    (void)state;
    assert_int_equal(xi_bytes_check(good, sizeof good, 2, &err), XI_OK);
    assert_int_equal(xi_bytes_check(good, sizeof good, 1, &err), XI_ETENSOR);
    assert_int_equal(xi_bytes_check(good, sizeof good, 3, &err), XI_ETENSOR);
    assert_int_equal(xi_bytes_check(past, sizeof past, 1, &err), XI_ETENSOR);
    assert_int_equal(xi_bytes_check(wrap, sizeof wrap, 1, &err), XI_ETENSOR);
}

static void a_port_says_what_does_not_fit(void **state)
{
    struct xi_port_spec port = {.name = "x", .dtype = XI_DT_FP32, .rank = 2, .dims = {-1, 3}};
    struct xi_err err = {0};
    float data[6] = {0};
    int64_t dims[] = {2, 3}, wrong[] = {2, 4};
    struct xi_tensor t = xi_tensor_make(XI_DT_FP32, dims, 2, data, sizeof data);

    (void)state;
    assert_int_equal(xi_port_check(&port, &t, &err), XI_OK);
    t.bytes = 20;
    assert_int_equal(xi_port_check(&port, &t, &err), XI_ETENSOR);
    assert_string_equal(err.msg, "input \"x\": 20 bytes where its shape needs 24");
    t = xi_tensor_make(XI_DT_FP32, wrong, 2, data, 32);
    assert_int_equal(xi_port_check(&port, &t, &err), XI_ETENSOR);
    assert_string_equal(err.msg, "input \"x\": shape [2,4] where the model wants [-1,3]");
    t = xi_tensor_make(XI_DT_INT32, dims, 2, data, sizeof data);
    assert_int_equal(xi_port_check(&port, &t, &err), XI_ETENSOR);
    assert_string_equal(err.msg, "input \"x\": type INT32 where the model wants FP32");
}

/* Bit patterns of IEEE 754-2008 binary16. */
static void half_floats(void **state)
{
    static const struct {
        uint16_t h;
        float f;
    } same[] = {{0x0000, 0.0f},         {0x3c00, 1.0f},        {0xc000, -2.0f},
                {0x7bff, 65504.0f},     {0x3555, 0.33325195f}, {0x0001, 5.9604645e-8f},
                {0x0400, 6.1035156e-5f}};

    (void)state;
    for (size_t i = 0; i < sizeof same / sizeof *same; i++) {
        assert_true(xi_half_to_float(same[i].h) == same[i].f);
        assert_int_equal(xi_float_to_half(same[i].f), same[i].h);
    }
    assert_int_equal(xi_float_to_half(65520.0f), 0x7c00); /* rounds to infinity */
    assert_int_equal(xi_float_to_half(1.0009766f), 0x3c01);
    assert_int_equal(xi_float_to_half(1.00048828125f), 0x3c00); /* a tie goes to even */
    for (uint32_t h = 0; h < 0x7c00; h++)
        assert_int_equal(xi_float_to_half(xi_half_to_float((uint16_t)h)), h);
}

static void names_of_types(void **state)
{
    (void)state;
    assert_int_equal(xi_dtype_parse("FP32"), XI_DT_FP32);
    assert_int_equal(xi_dtype_parse("fp32"), XI_DT_UNKNOWN);
    assert_string_equal(xi_dtype_name(XI_DT_BYTES), "BYTES");
    assert_string_equal(xi_dtype_name((enum xi_dtype)77), "UNKNOWN");
    assert_int_equal(xi_dtype_bytes(XI_DT_INT16), 2);
}

int main(void)
{
    const struct CMUnitTest t[] = {
        cmocka_unit_test(shape_bombs_are_refused),
        cmocka_unit_test(shapes_parse),
        cmocka_unit_test(bytes_elements_stay_inside),
        cmocka_unit_test(a_port_says_what_does_not_fit),
        cmocka_unit_test(half_floats),
        cmocka_unit_test(names_of_types),
    };
    return cmocka_run_group_tests_name("tensor", t, NULL, NULL);
}
