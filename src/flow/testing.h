/* testing.h: what the flow room's unit tests share: pictures made on the spot, and a flow run with
 * canned model outputs. Included by tests only. */
#ifndef XI_FLOW_TESTING_H
#define XI_FLOW_TESTING_H

/* cmocka.h and jpeglib.h want these before them */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include <jpeglib.h>
#include <spng.h>
#include <stdlib.h>
#include <string.h>

#include "flow/flow.h"
#include "flow/jpeg_encode.h"

/* Smooth colours with some detail, so that JPEG data is spread over the file. */
static inline uint8_t *test_pixels(uint32_t width, uint32_t height)
{
    uint8_t *p = malloc(3 * (size_t)width * height), *at = p;

    for (uint32_t y = 0; y < height; y++)
        for (uint32_t x = 0; x < width; x++, at += 3) {
            at[0] = (uint8_t)(x * 255 / width);
            at[1] = (uint8_t)(y * 255 / height);
            at[2] = (uint8_t)(((x / 8 + y / 8) % 2) * 90 + (x * 7 + y * 13) % 60);
        }
    return p;
}

static inline struct xi_str test_jpeg(uint32_t width, uint32_t height)
{
    struct xi_str s;
    uint8_t *p = test_pixels(width, height);

    xi_str_init(&s, 64 * XI_MIB);
    assert_int_equal(xi_jpeg_encode(p, width, height, 90, &s, NULL), XI_OK);
    free(p);
    return s;
}

/* A PNG of any kind from raw rows in that kind's own layout. */
static inline struct xi_str test_png(uint32_t width, uint32_t height, uint8_t colour_type,
                                     uint8_t depth, struct spng_plte *palette, const void *rows,
                                     size_t bytes)
{
    struct spng_ihdr head = {
        .width = width, .height = height, .bit_depth = depth, .color_type = colour_type};
    spng_ctx *ctx = spng_ctx_new(SPNG_CTX_ENCODER);
    struct xi_str s;
    size_t n = 0;
    int rc = 0;

    xi_str_init(&s, 64 * XI_MIB);
    assert_int_equal(spng_set_option(ctx, SPNG_ENCODE_TO_BUFFER, 1), 0);
    assert_int_equal(spng_set_ihdr(ctx, &head), 0);
    if (palette != NULL)
        assert_int_equal(spng_set_plte(ctx, palette), 0);
    assert_int_equal(spng_encode_image(ctx, rows, bytes, SPNG_FMT_PNG, SPNG_ENCODE_FINALIZE), 0);
    void *data = spng_get_png_buffer(ctx, &n, &rc);
    assert_non_null(data);
    xi_str_add(&s, data, n);
    free(data);
    spng_ctx_free(ctx);
    return s;
}

struct test_outputs {
    struct xi_tensor at[4];
    uint32_t n, calls;
    struct xi_tensor last_input;
};

static inline enum xi_rc test_infer(void *ctx, const char *model, const struct xi_tensor *inputs,
                                    uint32_t n_inputs, struct xi_tensor *outputs,
                                    uint32_t n_outputs, struct xi_err *err)
{
    struct test_outputs *t = ctx;

    (void)model;
    (void)err;
    assert_int_equal(n_inputs, 1);
    assert_int_equal(n_outputs, t->n);
    t->last_input = inputs[0];
    t->calls++;
    for (uint32_t i = 0; i < n_outputs; i++)
        outputs[i] = t->at[i];
    return XI_OK;
}

static inline enum xi_rc test_asset(void *ctx, const char *path, const char **ret,
                                    size_t *ret_bytes, struct xi_err *err)
{
    if (strcmp(path, "assets/labels.txt") != 0)
        return xi_fail(err, XI_ENOENT, "the package has no %s", path);
    *ret = ctx;
    *ret_bytes = strlen(ctx);
    return XI_OK;
}

static inline enum xi_rc test_parse(const char *json, const char *labels, struct xi_flow **ret,
                                    struct xi_err *err)
{
    const struct xi_flow_assets assets = {.ctx = (void *)(uintptr_t)labels, .read = test_asset};

    return xi_flow_parse(json, strlen(json), &assets, ret, err);
}

/* Parses, runs once, and returns the JSON (free() it); fails the test when anything fails. */
static inline char *test_answer(const char *json, const char *labels, struct test_outputs *outputs,
                                const void *input, size_t bytes)
{
    struct xi_flow *flow = NULL;
    struct xi_err err = {0};
    struct xi_str answer;
    const struct xi_flow_engine engine = {.ctx = outputs, .infer = test_infer};

    if (test_parse(json, labels, &flow, &err) != XI_OK)
        fail_msg("%s", err.msg);
    struct xi_flow_run *run = xi_flow_run_new(flow);
    xi_str_init(&answer, 16 * XI_MIB);
    if (xi_flow_execute(run, &engine, input, bytes, XI_ANSWER_JSON, &answer, NULL, NULL, &err) !=
        XI_OK)
        fail_msg("%s", err.msg);
    xi_flow_run_free(run);
    xi_flow_free(flow);
    return xi_str_take(&answer);
}

#endif
