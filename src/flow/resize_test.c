/* Resizing by hand-made cases; tests/integration compares with Pillow and OpenCV. */
#include "flow/testing.h"

#include "flow/resize.h"

static struct xi_picture picture_of(const uint8_t *pixels, uint32_t width, uint32_t height)
{
    return (struct xi_picture){.pixels = pixels,
                               .columns = width,
                               .rows = height,
                               .width = width,
                               .height = height,
                               .x1 = width,
                               .y1 = height};
}

static void resize(const struct xi_resize *r, const struct xi_picture *src, uint8_t *dst)
{
    struct xi_flow_buf taps = {0}, rows = {0};

    assert_int_equal(xi_resize_run(r, src, dst, &taps, &rows, NULL), XI_OK);
    free(taps.data);
    free(rows.data);
}

static const enum xi_filter filters[] = {XI_AREA_BILINEAR, XI_BILINEAR, XI_NEAREST};

/* Pixels of a picture lie in memory of the flow, which has room behind its end. */
static uint8_t *in_flow_memory(const uint8_t *bytes, size_t n)
{
    struct xi_flow_buf buf = {0};

    assert_int_equal(xi_flow_need(&buf, n, NULL), XI_OK);
    memcpy(buf.data, bytes, n);
    return buf.data;
}

static void the_same_size_is_the_same_picture(void **state)
{
    uint8_t *made = test_pixels(31, 17), *p = in_flow_memory(made, 31 * 17 * 3);
    uint8_t out[31 * 17 * 3];
    struct xi_picture src = picture_of(p, 31, 17);

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        struct xi_resize r = {.filter = filters[i], .width = 31, .height = 17};
        resize(&r, &src, out);
        assert_memory_equal(out, p, sizeof out);
    }
    free(made);
    free(p);
}

/* A black pixel beside a white one, halved: area-bilinear weighs both alike; so do four
 * neighbours; nearest takes what lies under the centre, the right one. */
static void two_pixels_become_one(void **state)
{
    const uint8_t bytes[] = {0, 0, 0, 255, 255, 255}, wanted[] = {128, 128, 255};
    uint8_t *p = in_flow_memory(bytes, sizeof bytes), out[3];
    struct xi_picture src = picture_of(p, 2, 1);

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        struct xi_resize r = {.filter = filters[i], .width = 1, .height = 1};
        resize(&r, &src, out);
        assert_int_equal(out[0], wanted[i]);
        assert_int_equal(out[2], wanted[i]);
    }
    free(p);
}

/* Weights sum to one at every edge, for every ratio and every filter. */
static void one_colour_stays_that_colour(void **state)
{
    static uint8_t bytes[3 * 61 * 23];
    static uint8_t out[3 * 100 * 100];

    (void)state;
    memset(bytes, 201, sizeof bytes);
    uint8_t *p = in_flow_memory(bytes, sizeof bytes);
    struct xi_picture src = picture_of(p, 61, 23);
    for (uint32_t width = 1; width <= 100; width += 9)
        for (uint32_t height = 1; height <= 100; height += 11)
            for (size_t i = 0; i < 3; i++) {
                struct xi_resize r = {.filter = filters[i], .width = width, .height = height};
                resize(&r, &src, out);
                for (size_t k = 0; k < 3 * (size_t)width * height; k++)
                    if (out[k] != 201)
                        fail_msg("%u x %u, filter %zu: %u", width, height, i, out[k]);
            }
    free(p);
}

static void letterbox_centres_between_bars(void **state)
{
    static const uint8_t bytes[3 * 4 * 2] = {0};
    uint8_t *p = in_flow_memory(bytes, sizeof bytes), out[3 * 4 * 4];
    struct xi_picture src = picture_of(p, 4, 2);
    struct xi_resize r = {
        .filter = XI_NEAREST, .mode = XI_LETTERBOX, .width = 4, .height = 4, .pad = {1, 2, 3}};

    (void)state;
    resize(&r, &src, out);
    for (size_t i = 0; i < 16; i++) {
        int bar = i < 4 || i >= 12;
        assert_int_equal(out[3 * i], bar ? 1 : 0);
        assert_int_equal(out[3 * i + 2], bar ? 3 : 0);
    }
    free(p);
}

static void reduction_keeps_pixels_to_spare(void **state)
{
    struct xi_resize r = {.filter = XI_AREA_BILINEAR, .width = 300, .height = 300};

    (void)state;
    assert_int_equal(xi_resize_denominator(&r, 1920, 1080), 2); /* 3.6: 1.8 are left */
    assert_int_equal(xi_resize_denominator(&r, 1920, 1000), 1);
    assert_int_equal(xi_resize_denominator(&r, 4032, 3024), 4);
    assert_int_equal(xi_resize_denominator(&r, 6000, 6000), 8);
    assert_int_equal(xi_resize_denominator(&r, 6000, 100), 1);
    r.filter = XI_BILINEAR; /* looks at single pixels, so they must be the real ones */
    assert_int_equal(xi_resize_denominator(&r, 6000, 6000), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_same_size_is_the_same_picture),
        cmocka_unit_test(two_pixels_become_one),
        cmocka_unit_test(one_colour_stays_that_colour),
        cmocka_unit_test(letterbox_centres_between_bars),
        cmocka_unit_test(reduction_keeps_pixels_to_spare),
    };

    return cmocka_run_group_tests_name("flow/resize", tests, NULL, NULL);
}
