#include "flow/testing.h"

#include "flow/image_decode.h"

struct shot {
    struct xi_image_decoder *decoder;
    struct xi_flow_buf buf;
    struct xi_picture picture;
    struct xi_err err;
};

static enum xi_rc decode(struct shot *s, const void *bytes, size_t n, uint32_t denominator)
{
    struct xi_image_info info;
    enum xi_rc rc = xi_image_open(s->decoder, bytes, n, &info, &s->err);

    return rc == XI_OK ? xi_image_read(s->decoder, denominator, &s->buf, &s->picture, &s->err) : rc;
}

static int setup(void **state)
{
    struct shot *s = calloc(1, sizeof *s);

    s->decoder = xi_image_decoder_new();
    *state = s;
    return s->decoder == NULL;
}

static int teardown(void **state)
{
    struct shot *s = *state;

    xi_image_decoder_free(s->decoder);
    free(s->buf.data);
    free(s);
    return 0;
}

/* Copies, so that AddressSanitizer sees a read past the end. */
static void every_cut_is_refused(struct shot *s, const struct xi_str *whole, size_t end_marker)
{
    assert_int_equal(decode(s, whole->data, whole->len, 1), XI_OK);
    for (size_t n = 0; n < whole->len; n += 97) {
        char *part = malloc(n + 1);
        char *exact = realloc(part, n > 0 ? n : 1);
        memcpy(exact, whole->data, n);
        if (decode(s, exact, n, 1) != XI_EIMAGE)
            fail_msg("cut at %zu of %zu was not refused", n, whole->len);
        assert_true(s->err.msg[0] != '\0');
        free(exact);
    }
    assert_int_equal(decode(s, whole->data, whole->len - end_marker, 1), XI_EIMAGE);
    assert_non_null(strstr(s->err.msg, "end too early"));
    assert_int_equal(decode(s, whole->data, whole->len, 1), XI_OK); /* the decoder lives on */
}

static void a_cut_jpeg_is_refused(void **state)
{
    struct xi_str jpeg = test_jpeg(200, 150);

    every_cut_is_refused(*state, &jpeg, 1);
    xi_str_fini(&jpeg);
}

static void a_cut_png_is_refused(void **state)
{
    uint8_t *p = test_pixels(90, 70);
    struct xi_str png = test_png(90, 70, SPNG_COLOR_TYPE_TRUECOLOR, 8, NULL, p, 90 * 70 * 3);

    every_cut_is_refused(*state, &png, 1);
    xi_str_fini(&png);
    free(p);
}

/* Writes a size into the frame header of a JPEG (SOF0: length, precision, height, width). */
static void set_jpeg_size(struct xi_str *jpeg, uint32_t width, uint32_t height)
{
    uint8_t *p = (uint8_t *)jpeg->data;

    for (size_t i = 2; i + 9 < jpeg->len; i++)
        if (p[i] == 0xff && p[i + 1] == 0xc0) {
            p[i + 5] = (uint8_t)(height >> 8);
            p[i + 6] = (uint8_t)height;
            p[i + 7] = (uint8_t)(width >> 8);
            p[i + 8] = (uint8_t)width;
            return;
        }
    fail_msg("no frame header");
}

static void a_jpeg_that_claims_an_impossible_size_is_refused(void **state)
{
    struct shot *s = *state;
    struct xi_str jpeg = test_jpeg(64, 48);

    set_jpeg_size(&jpeg, 0, 0);
    assert_int_equal(decode(s, jpeg.data, jpeg.len, 1), XI_EIMAGE);
    set_jpeg_size(&jpeg, 65535, 65535);
    assert_int_equal(decode(s, jpeg.data, jpeg.len, 1), XI_EIMAGE);
    set_jpeg_size(&jpeg, 20000, 100);
    assert_int_equal(decode(s, jpeg.data, jpeg.len, 1), XI_EIMAGE);
    assert_string_equal(s->err.msg, "the picture has 20000 x 100 pixels, a side's limit is 16384");
    set_jpeg_size(&jpeg, 16000, 16000);
    assert_int_equal(decode(s, jpeg.data, jpeg.len, 1), XI_EIMAGE);
    assert_non_null(strstr(s->err.msg, "the limit is 100000000"));
    assert_true(s->buf.room < 1024); /* nothing was taken for it */
    xi_str_fini(&jpeg);
}

static void set_png_size(struct xi_str *png, uint32_t width, uint32_t height)
{
    uint8_t *p = (uint8_t *)png->data + 16;

    for (int i = 0; i < 4; i++) {
        p[i] = (uint8_t)(width >> (24 - 8 * i));
        p[4 + i] = (uint8_t)(height >> (24 - 8 * i));
    }
}

static void a_png_that_claims_an_impossible_size_is_refused(void **state)
{
    struct shot *s = *state;
    uint8_t p[12] = {0};
    struct xi_str png = test_png(2, 2, SPNG_COLOR_TYPE_TRUECOLOR, 8, NULL, p, sizeof p);

    set_png_size(&png, 100000, 100000);
    assert_int_equal(decode(s, png.data, png.len, 1), XI_EIMAGE);
    assert_string_equal(s->err.msg,
                        "the picture has 100000 x 100000 pixels, a side's limit is 16384");
    set_png_size(&png, 0, 0);
    assert_int_equal(decode(s, png.data, png.len, 1), XI_EIMAGE);
    assert_string_equal(s->err.msg, "the picture is empty: 0 x 0 pixels");
    set_png_size(&png, 3, 2); /* the header's checksum is wrong now */
    assert_int_equal(decode(s, png.data, png.len, 1), XI_EIMAGE);
    assert_true(s->buf.room < 1024);
    xi_str_fini(&png);
}

static void other_files_are_called_by_their_name(void **state)
{
    static const struct {
        const char *bytes;
        size_t n;
        const char *says;
    } files[] = {
        {"", 0, "the picture is empty"},
        {"GIF89a....", 10, "this is a GIF file"},
        {"RIFF....WEBPVP8 ", 16, "this is a WebP file"},
        {"BM..........", 12, "this is a BMP file"},
        {"II*\0....", 8, "this is a TIFF file"},
        {"....ftypheic", 12, "HEIF"},
        {"hello, world", 12, "these bytes are no picture known here (12 bytes)"},
        {"\xff\xd8\xff", 3, "end too early"},
    };
    struct shot *s = *state;

    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        assert_int_equal(decode(s, files[i].bytes, files[i].n, 1), XI_EIMAGE);
        if (strstr(s->err.msg, files[i].says) == NULL)
            fail_msg("said: %s", s->err.msg);
    }
}

static void expect_pixel(const struct shot *s, uint32_t x, uint32_t y, int r, int g, int b,
                         int slack)
{
    const uint8_t *p = s->picture.pixels + 3 * ((size_t)y * s->picture.columns + x);

    assert_in_range(p[0] + slack, r, r + 2 * slack);
    assert_in_range(p[1] + slack, g, g + 2 * slack);
    assert_in_range(p[2] + slack, b, b + 2 * slack);
}

static void every_kind_of_png_becomes_rgb(void **state)
{
    struct shot *s = *state;
    const uint8_t gray[] = {0, 100, 200, 255}, gray1[] = {0x40, 0x80};
    const uint8_t gray_alpha[] = {10, 0, 20, 255}, rgba[] = {1, 2, 3, 0, 4, 5, 6, 255};
    const uint16_t deep[] = {0x12ff, 0x3400, 0x5680};
    const uint8_t indices[] = {1, 0};
    struct spng_plte palette = {.n_entries = 2, .entries = {{9, 8, 7, 0}, {200, 100, 50, 0}}};
    struct xi_str png = test_png(2, 2, SPNG_COLOR_TYPE_GRAYSCALE, 8, NULL, gray, 4);

    assert_int_equal(decode(s, png.data, png.len, 1), XI_OK);
    expect_pixel(s, 1, 0, 100, 100, 100, 0);
    expect_pixel(s, 0, 1, 200, 200, 200, 0);
    xi_str_fini(&png);
    png = test_png(2, 2, SPNG_COLOR_TYPE_GRAYSCALE, 1, NULL, gray1, 2);
    assert_int_equal(decode(s, png.data, png.len, 1), XI_OK);
    expect_pixel(s, 1, 0, 255, 255, 255, 0);
    expect_pixel(s, 1, 1, 0, 0, 0, 0);
    xi_str_fini(&png);
    png = test_png(2, 1, SPNG_COLOR_TYPE_GRAYSCALE_ALPHA, 8, NULL, gray_alpha, 4);
    assert_int_equal(decode(s, png.data, png.len, 1), XI_OK);
    expect_pixel(s, 0, 0, 10, 10, 10, 0);
    xi_str_fini(&png);
    png = test_png(2, 1, SPNG_COLOR_TYPE_TRUECOLOR_ALPHA, 8, NULL, rgba, 8);
    assert_int_equal(decode(s, png.data, png.len, 1), XI_OK);
    expect_pixel(s, 0, 0, 1, 2, 3, 0);
    expect_pixel(s, 1, 0, 4, 5, 6, 0);
    xi_str_fini(&png);
    png = test_png(1, 1, SPNG_COLOR_TYPE_TRUECOLOR, 16, NULL, deep, 6);
    assert_int_equal(decode(s, png.data, png.len, 1), XI_OK);
    expect_pixel(s, 0, 0, 0x12, 0x34, 0x56, 0);
    xi_str_fini(&png);
    png = test_png(2, 1, SPNG_COLOR_TYPE_INDEXED, 8, &palette, indices, 2);
    assert_int_equal(decode(s, png.data, png.len, 1), XI_OK);
    expect_pixel(s, 0, 0, 200, 100, 50, 0);
    expect_pixel(s, 1, 0, 9, 8, 7, 0);
    xi_str_fini(&png);
}

/* Rows in any of libjpeg's colour spaces; progressive on wish. */
static struct xi_str raw_jpeg(J_COLOR_SPACE space, int components, int progressive,
                              const uint8_t *pixel, uint32_t side)
{
    struct jpeg_compress_struct enc;
    struct jpeg_error_mgr errors;
    unsigned char *data = NULL;
    unsigned long n = 0;
    struct xi_str s;

    enc.err = jpeg_std_error(&errors);
    jpeg_create_compress(&enc);
    jpeg_mem_dest(&enc, &data, &n);
    enc.image_width = enc.image_height = side;
    enc.input_components = components;
    enc.in_color_space = space;
    jpeg_set_defaults(&enc);
    jpeg_set_quality(&enc, 95, TRUE);
    if (progressive)
        jpeg_simple_progression(&enc);
    jpeg_start_compress(&enc, TRUE);
    uint8_t *row = malloc(side * (size_t)components);
    for (uint32_t x = 0; x < side; x++)
        memcpy(row + x * (size_t)components, pixel, (size_t)components);
    while (enc.next_scanline < side)
        (void)jpeg_write_scanlines(&enc, &row, 1);
    jpeg_finish_compress(&enc);
    jpeg_destroy_compress(&enc);
    xi_str_init(&s, XI_MIB);
    xi_str_add(&s, data, n);
    free(row);
    free(data);
    return s;
}

static void every_kind_of_jpeg_becomes_rgb(void **state)
{
    struct shot *s = *state;
    /* Adobe's CMYK is inverted: 255 - ink. Red is no cyan, full magenta, full yellow, no black. */
    const uint8_t gray[] = {120}, rgb[] = {200, 40, 90}, cmyk[] = {255, 0, 0, 255};
    struct xi_str jpeg = raw_jpeg(JCS_GRAYSCALE, 1, 0, gray, 20);

    assert_int_equal(decode(s, jpeg.data, jpeg.len, 1), XI_OK);
    expect_pixel(s, 10, 10, 120, 120, 120, 2);
    xi_str_fini(&jpeg);
    jpeg = raw_jpeg(JCS_RGB, 3, 1, rgb, 20);
    assert_int_equal(decode(s, jpeg.data, jpeg.len, 1), XI_OK);
    expect_pixel(s, 10, 10, 200, 40, 90, 4);
    xi_str_fini(&jpeg);
    jpeg = raw_jpeg(JCS_CMYK, 4, 0, cmyk, 20);
    assert_int_equal(decode(s, jpeg.data, jpeg.len, 1), XI_OK);
    expect_pixel(s, 10, 10, 255, 0, 0, 4);
    xi_str_fini(&jpeg);
}

/* A JPEG with an EXIF segment that says `orientation`, little- or big-endian. */
static struct xi_str turned_jpeg(uint8_t orientation, int big)
{
    static const uint8_t little[] = {0xff, 0xe1, 0, 34, 'E', 'x', 'i', 'f', 0,    0, 'I', 'I',
                                     42,   0,    8, 0,  0,   0,   1,   0,   0x12, 1, 3,   0,
                                     1,    0,    0, 0,  0,   0,   0,   0,   0,    0, 0,   0};
    static const uint8_t large[] = {0xff, 0xe1, 0, 34, 'E', 'x', 'i', 'f', 0, 0,    'M', 'M',
                                    0,    42,   0, 0,  0,   8,   0,   1,   1, 0x12, 0,   3,
                                    0,    0,    0, 1,  0,   0,   0,   0,   0, 0,    0,   0};
    struct xi_str plain = test_jpeg(64, 32), s;
    uint8_t segment[sizeof little];

    memcpy(segment, big ? large : little, sizeof segment);
    segment[big ? 29 : 28] = orientation;
    xi_str_init(&s, XI_MIB);
    xi_str_add(&s, plain.data, 2);
    xi_str_add(&s, segment, sizeof segment);
    xi_str_add(&s, plain.data + 2, plain.len - 2);
    xi_str_fini(&plain);
    return s;
}

/* As stored, red grows to the right and green downwards. EXIF says which corner of the upright
 * picture the stored first row and column meet. */
static void exif_orientation_is_applied(void **state)
{
    /* where the stored top-left (no red, no green) and top-right (red) corners must show up:
     * 0 top-left, 1 top-right, 2 bottom-left, 3 bottom-right */
    static const int corners[9][2] = {{0, 0}, {0, 1}, {1, 0}, {3, 2}, {2, 3},
                                      {0, 2}, {1, 3}, {3, 1}, {2, 0}};
    struct shot *s = *state;

    for (int o = 1; o <= 8; o++)
        for (int reduced = 1; reduced <= 2; reduced++) {
            struct xi_str jpeg = turned_jpeg((uint8_t)o, o % 2);
            assert_int_equal(decode(s, jpeg.data, jpeg.len, (uint32_t)reduced), XI_OK);
            uint32_t w = s->picture.columns, h = s->picture.rows;
            assert_int_equal(s->picture.width, o < 5 ? 64 : 32);
            assert_int_equal(w * (uint32_t)reduced, s->picture.width);
            assert_int_equal(h * (uint32_t)reduced, s->picture.height);
            for (int k = 0; k < 2; k++) {
                uint32_t x = corners[o][k] % 2 ? w - 2 : 1, y = corners[o][k] / 2 ? h - 2 : 1;
                const uint8_t *p = s->picture.pixels + 3 * ((size_t)y * w + x);
                if ((p[0] > 128) != (k == 1) || p[1] > 80)
                    fail_msg("orientation %d, corner %d: %d %d %d", o, k, p[0], p[1], p[2]);
            }
            xi_str_fini(&jpeg);
        }
}

static void a_reduced_jpeg_knows_its_full_size(void **state)
{
    struct shot *s = *state;
    struct xi_str jpeg = test_jpeg(101, 67);

    assert_int_equal(decode(s, jpeg.data, jpeg.len, 4), XI_OK);
    assert_int_equal(s->picture.width, 101);
    assert_int_equal(s->picture.columns, 26);
    assert_int_equal(s->picture.rows, 17);
    assert_float_equal(s->picture.x1, 101 / 4.0, 1e-9);
    assert_float_equal(s->picture.y1, 67 / 4.0, 1e-9);
    xi_str_fini(&jpeg);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_cut_jpeg_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(a_cut_png_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(a_jpeg_that_claims_an_impossible_size_is_refused, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_png_that_claims_an_impossible_size_is_refused, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(other_files_are_called_by_their_name, setup, teardown),
        cmocka_unit_test_setup_teardown(every_kind_of_png_becomes_rgb, setup, teardown),
        cmocka_unit_test_setup_teardown(every_kind_of_jpeg_becomes_rgb, setup, teardown),
        cmocka_unit_test_setup_teardown(exif_orientation_is_applied, setup, teardown),
        cmocka_unit_test_setup_teardown(a_reduced_jpeg_knows_its_full_size, setup, teardown),
    };

    return cmocka_run_group_tests_name("flow/image_decode", tests, NULL, NULL);
}
