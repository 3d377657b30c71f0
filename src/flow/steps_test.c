/* Steps against results worked out by hand; tests/integration holds them to reference libraries. */
#include "flow/testing.h"

#include <jansson.h>

#define BYTES(shape)                                                                               \
    "{\"steps\":[{\"op\":\"from_bytes\",\"in\":\"input\",\"out\":\"x\",\"dtype\":\"FP32\","        \
    "\"shape\":" shape "},"

static char *run_floats(const char *json, const char *labels, const float *values, size_t n)
{
    return test_answer(json, labels, NULL, values, n * sizeof *values);
}

static double number(const char *json, const char *key, int nth, int element)
{
    json_t *root = json_loads(json, 0, NULL);
    json_t *entry = json_array_get(json_object_get(root, key), (size_t)nth);
    json_t *value = json_object_get(entry, strcmp(key, "tensors") == 0 ? "data" : "box");
    double d = element < 0 ? json_number_value(json_object_get(entry, "score"))
                           : json_number_value(json_array_get(value, (size_t)element));

    json_decref(root);
    return d;
}

static void near(double is, double wanted, double slack)
{
    if (!(is >= wanted - slack && is <= wanted + slack))
        fail_msg("%g where %g was wanted", is, wanted);
}

static void softmax_of_large_numbers(void **state)
{
    const float x[] = {1000, 1000, 0, (float)-1e30};
    char *json = run_floats(BYTES("[2,2]") "{\"op\":\"softmax\",\"in\":\"x\",\"out\":\"y\"}],"
                                           "\"output\":{\"tensors\":\"y\"}}",
                            NULL, x, 4);

    (void)state;
    assert_non_null(strstr(json, "\"shape\":[2,2],\"data\":[0.5,0.5,1,0]"));
    free(json);
}

static void sigmoid_of_log_three(void **state)
{
    const float x[] = {0, 1.0986123f, -200};
    char *json = run_floats(BYTES("3") "{\"op\":\"sigmoid\",\"in\":\"x\",\"out\":\"y\"}],"
                                       "\"output\":{\"tensors\":\"y\"}}",
                            NULL, x, 3);

    (void)state;
    near(number(json, "tensors", 0, 0), 0.5, 1e-7);
    near(number(json, "tensors", 0, 1), 0.75, 1e-6);
    near(number(json, "tensors", 0, 2), 0, 1e-30);
    free(json);
}

static void top_k_names_the_best_and_skips_nan(void **state)
{
    const float x[] = {0.25f, __builtin_nanf(""), 0.5f, 0.25f, -1};
    char *json = run_floats(BYTES("[1,5]") "{\"op\":\"top_k\",\"in\":\"x\",\"out\":\"t\",\"k\":3,"
                                           "\"labels\":\"assets/labels.txt\"}],"
                                           "\"output\":{\"classes\":\"t\"}}",
                            "zero\r\none\ntw\"o", x, 5);

    (void)state;
    assert_string_equal(json, "{\"classes\":[{\"label\":\"tw\\\"o\",\"class\":2,\"score\":0.5},"
                              "{\"label\":\"zero\",\"class\":0,\"score\":0.25},"
                              "{\"class\":3,\"score\":0.25}]}");
    free(json);
}

static void layout_there_and_back(void **state)
{
    const float x[] = {1, 2, 3, 4, 5, 6}; /* two pixels of three channels */
    char *json = run_floats(
        BYTES("[1,1,2,3]") "{\"op\":\"layout\",\"in\":\"x\",\"out\":\"y\",\"to\":\"NCHW\"},"
                           "{\"op\":\"layout\",\"in\":\"y\",\"out\":\"z\",\"to\":\"NHWC\"}],"
                           "\"output\":{\"tensors\":[\"y\",\"z\"]}}",
        NULL, x, 6);

    (void)state;
    assert_non_null(strstr(json, "\"shape\":[1,3,1,2],\"data\":[1,4,2,5,3,6]"));
    assert_non_null(strstr(json, "\"shape\":[1,1,2,3],\"data\":[1,2,3,4,5,6]"));
    free(json);
}

static void normalise_and_cast(void **state)
{
    const float x[] = {10, 20, 30, 40};
    char *json = run_floats(
        BYTES("[2,2]") "{\"op\":\"normalise\",\"in\":\"x\",\"out\":\"y\",\"mean\":[10,20],"
                       "\"std\":[2,0.01]},"
                       "{\"op\":\"cast\",\"in\":\"y\",\"out\":\"z\",\"dtype\":\"UINT8\"},"
                       "{\"op\":\"cast\",\"in\":\"y\",\"out\":\"h\",\"dtype\":\"FP16\"}],"
                       "\"output\":{\"tensors\":[\"y\",\"z\",\"h\"]}}",
        NULL, x, 4);

    (void)state;
    assert_non_null(strstr(json, "\"data\":[0,0,10,2000]"));
    assert_non_null(strstr(json, "\"UINT8\",\"shape\":[2,2],\"data\":[0,0,10,255]"));
    assert_non_null(strstr(json, "\"FP16\",\"shape\":[2,2],\"data\":[0,0,10,2000]"));
    free(json);
}

#define NMS(extra)                                                                                 \
    "{\"steps\":[{\"op\":\"from_bytes\",\"in\":\"input\",\"out\":\"x\",\"dtype\":\"FP32\","        \
    "\"shape\":1},{\"op\":\"infer\",\"in\":\"x\",\"out\":[\"b\",\"s\"]},"                          \
    "{\"op\":\"nms\",\"in\":[\"b\",\"s\"],\"out\":\"d\"" extra "}],"                               \
    "\"output\":{\"detections\":\"d\"}}"

/* Four boxes: 0 and 1 overlap by 0.6, 2 stands alone, 3 is empty. Classes 0 to 2. */
static char *run_nms(const char *json)
{
    static float boxes[] = {0, 0, 10, 10, 0, 2.5f, 10, 12.5f, 20, 0, 30, 10, 5, 5, 5, 9};
    static float scores[] = {0.1f, 0.9f, 0.3f, 0.9f, 0.8f, 0.2f, 0.0f, 0.2f, 0.6f, 1, 1, 1};
    const int64_t bd[] = {1, 4, 4}, sd[] = {1, 4, 3};
    struct test_outputs t = {.n = 2};
    float input = 0;

    t.at[0] = xi_tensor_make(XI_DT_FP32, bd, 3, boxes, sizeof boxes);
    t.at[1] = xi_tensor_make(XI_DT_FP32, sd, 3, scores, sizeof scores);
    return test_answer(json, NULL, &t, &input, sizeof input);
}

static void nms_keeps_the_best_of_overlapping_boxes(void **state)
{
    char *json = run_nms(NMS(",\"background\":0"));

    (void)state;
    assert_string_equal(json, "{\"detections\":[{\"class\":1,\"score\":0.9,\"box\":[0,0,10,10]},"
                              "{\"class\":2,\"score\":0.6,\"box\":[20,0,30,10]}]}");
    free(json);
    json = run_nms(NMS(",\"background\":0,\"iou_threshold\":0.61,\"score_threshold\":0.7"));
    assert_string_equal(json, "{\"detections\":[{\"class\":1,\"score\":0.9,\"box\":[0,0,10,10]},"
                              "{\"class\":1,\"score\":0.8,\"box\":[0,2.5,10,12.5]}]}");
    free(json);
}

/* Without a background class box 1's best is class 0, so only a class-blind pass drops it. */
static void nms_by_class_or_across_classes(void **state)
{
    char *json = run_nms(NMS(""));

    (void)state;
    assert_string_equal(json, "{\"detections\":[{\"class\":1,\"score\":0.9,\"box\":[0,0,10,10]},"
                              "{\"class\":0,\"score\":0.9,\"box\":[0,2.5,10,12.5]},"
                              "{\"class\":2,\"score\":0.6,\"box\":[20,0,30,10]}]}");
    free(json);
    json = run_nms(NMS(",\"class_aware\":false,\"max\":1"));
    assert_string_equal(json, "{\"detections\":[{\"class\":1,\"score\":0.9,\"box\":[0,0,10,10]}]}");
    free(json);
    json = run_nms(NMS(",\"multi_class\":true,\"candidates\":2"));
    assert_string_equal(json, "{\"detections\":[{\"class\":1,\"score\":0.9,\"box\":[0,0,10,10]},"
                              "{\"class\":0,\"score\":0.9,\"box\":[0,2.5,10,12.5]}]}");
    free(json);
}

#define SSD                                                                                        \
    "{\"steps\":[{\"op\":\"from_bytes\",\"in\":\"input\",\"out\":\"x\",\"dtype\":\"FP32\","        \
    "\"shape\":[1917,4]},{\"op\":\"ssd_decode\",\"in\":\"x\",\"out\":\"b\",\"width\":300,"         \
    "\"height\":300,\"strides\":[16,32,64,128,256,512],\"reduce_boxes_in_lowest_layer\":true}],"   \
    "\"output\":{\"tensors\":\"b\"}}"

static void expect_box(const char *json, int i, double cx, double cy, double w, double h)
{
    near(number(json, "tensors", 0, 4 * i), cx - w / 2, 1e-5);
    near(number(json, "tensors", 0, 4 * i + 1), cy - h / 2, 1e-5);
    near(number(json, "tensors", 0, 4 * i + 2), cx + w / 2, 1e-5);
    near(number(json, "tensors", 0, 4 * i + 3), cy + h / 2, 1e-5);
}

/* Zero codes give the anchors themselves. 19x19x3 cells of the lowest layer, then 10x10x6 … 1x1x6:
 * 1917 in all. Layer 1 has scale 0.35, its interpolated one is sqrt(0.35 * 0.5). */
static void ssd_anchors_and_codes(void **state)
{
    float *x = calloc(1917 * 4, sizeof *x);

    (void)state;
    x[4] = 10;             /* anchor 1: down by its height, */
    x[5] = -5;             /* left by half its width, */
    x[6] = 5 * 0.6931472f; /* twice as high */
    char *json = run_floats(SSD, NULL, x, 1917 * 4);
    expect_box(json, 0, 0.5 / 19, 0.5 / 19, 0.1, 0.1);
    expect_box(json, 2, 0.5 / 19, 0.5 / 19, 0.2 * 0.70710678, 0.2 / 0.70710678);
    expect_box(json, 3, 1.5 / 19, 0.5 / 19, 0.1, 0.1);
    expect_box(json, 1083, 0.05, 0.05, 0.35, 0.35);
    expect_box(json, 1088, 0.05, 0.05, 0.4183300, 0.4183300);
    expect_box(json, 1911, 0.5, 0.5, 0.95, 0.95);
    expect_box(json, 1916, 0.5, 0.5, 0.9746794, 0.9746794);
    double w = 0.2 * 1.41421356, h = 0.2 / 1.41421356;
    expect_box(json, 1, 0.5 / 19 - w / 2, 0.5 / 19 + h, w, 2 * h);
    free(json);
    free(x);
}

/* A picture of 200 x 100 in a square of 100: the model sees it in rows 25 to 75. */
static void letterboxed_boxes_come_back_in_pixels_of_the_sent_picture(void **state)
{
    static const char flow[] =
        "{\"steps\":[{\"op\":\"decode_image\",\"in\":\"input\",\"out\":\"p\"},"
        "{\"op\":\"resize\",\"in\":\"p\",\"out\":\"s\",\"width\":100,\"height\":100,"
        "\"mode\":\"%s\",\"filter\":\"area-bilinear\"},"
        "{\"op\":\"to_tensor\",\"in\":\"s\",\"out\":\"x\"},"
        "{\"op\":\"infer\",\"in\":\"x\",\"out\":[\"b\",\"c\"]},"
        "{\"op\":\"nms\",\"in\":[\"b\",\"c\",\"s\"],\"out\":\"d\"}],"
        "\"output\":{\"detections\":\"d\"}}";
    static const struct {
        const char *mode, *box;
    } cases[] = {{"letterbox", "[20,30,100,100]"},
                 {"stretch", "[20,40,100,90]"},
                 {"crop", "[60,40,100,90]"}};
    float boxes[] = {0.1f, 0.4f, 0.5f, 0.9f}, scores[] = {1};
    const int64_t bd[] = {1, 4}, sd[] = {1, 1};
    struct test_outputs t = {.n = 2};
    struct xi_str jpeg = test_jpeg(200, 100);
    char json[1024];

    (void)state;
    t.at[0] = xi_tensor_make(XI_DT_FP32, bd, 2, boxes, sizeof boxes);
    t.at[1] = xi_tensor_make(XI_DT_FP32, sd, 2, scores, sizeof scores);
    for (size_t i = 0; i < 3; i++) {
        (void)snprintf(json, sizeof json, flow, cases[i].mode);
        char *answer = test_answer(json, NULL, &t, jpeg.data, jpeg.len);
        if (strstr(answer, cases[i].box) == NULL)
            fail_msg("%s: %s", cases[i].mode, answer);
        free(answer);
    }
    xi_str_fini(&jpeg);
}

/* A model's outputs may be of any of these, and an answer holds numbers, not nulls. */
static void answers_tell_numbers_of_every_type(void **state)
{
    static const struct {
        const char *dtype, *data;
        uint64_t bits;
    } cases[] = {
        {"BOOL", "true", 1},
        {"UINT8", "255", 0xff},
        {"UINT16", "65535", 0xffff},
        {"UINT32", "4294967295", 0xffffffff},
        {"UINT64", "18446744073709551615", 0xffffffffffffffff},
        {"INT8", "-1", 0xff},
        {"INT16", "-2", 0xfffe},
        {"INT32", "-3", 0xfffffffd},
        {"INT64", "-9223372036854775808", 0x8000000000000000},
        {"FP16", "1.5", 0x3e00},
        {"BF16", "-1.5", 0xbfc0},
        {"FP32", "1.5", 0x3fc00000},
        {"FP64", "1.0000000000000002", 0x3ff0000000000001},
    };
    char flow[256], want[64];

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        (void)snprintf(flow, sizeof flow,
                       "{\"steps\":[{\"op\":\"from_bytes\",\"in\":\"input\",\"out\":\"x\","
                       "\"dtype\":\"%s\",\"shape\":1}],\"output\":{\"tensors\":\"x\"}}",
                       cases[i].dtype);
        (void)snprintf(want, sizeof want, "\"data\":[%s]}", cases[i].data);
        size_t bytes = xi_dtype_bytes(xi_dtype_parse(cases[i].dtype));
        char *json = test_answer(flow, NULL, NULL, &cases[i].bits, bytes); /* little-endian */
        if (strstr(json, want) == NULL)
            fail_msg("%s: %s, not %s", cases[i].dtype, json, want);
        free(json);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(softmax_of_large_numbers),
        cmocka_unit_test(sigmoid_of_log_three),
        cmocka_unit_test(top_k_names_the_best_and_skips_nan),
        cmocka_unit_test(layout_there_and_back),
        cmocka_unit_test(normalise_and_cast),
        cmocka_unit_test(nms_keeps_the_best_of_overlapping_boxes),
        cmocka_unit_test(nms_by_class_or_across_classes),
        cmocka_unit_test(ssd_anchors_and_codes),
        cmocka_unit_test(letterboxed_boxes_come_back_in_pixels_of_the_sent_picture),
        cmocka_unit_test(answers_tell_numbers_of_every_type),
    };

    return cmocka_run_group_tests_name("flow/steps", tests, NULL, NULL);
}
