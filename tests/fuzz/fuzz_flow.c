/* fuzz_flow: any bytes as flow.json. A flow that is accepted also runs, on a small picture and on
 * a few floats, with an engine that answers what the first byte says. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "flow/flow.h"
#include "flow/jpeg_encode.h"

static enum xi_rc read_asset(void *ctx, const char *path, const char **ret, size_t *ret_bytes,
                             struct xi_err *err)
{
    (void)ctx;
    (void)path;
    (void)err;
    *ret = "background\ncat\ndog\n";
    *ret_bytes = strlen(*ret);
    return XI_OK;
}

static enum xi_rc infer(void *ctx, const char *model, const struct xi_tensor *inputs,
                        uint32_t n_inputs, struct xi_tensor *outputs, uint32_t n_outputs,
                        struct xi_err *err)
{
    static float numbers[1917 * 24];
    const uint8_t *shape = ctx;

    (void)model;
    (void)inputs;
    (void)n_inputs;
    (void)err;
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
        numbers[i] = (float)((i * 2654435761u >> 8) % 1000) / 200 - 3;
    for (uint32_t i = 0; i < n_outputs; i++) {
        int64_t dims[3] = {1, 1917, i % 2 ? 24 : 4};
        int rank = 3;
        if (*shape & 1)
            dims[1] = *shape;
        if (*shape & 2)
            rank = 2;
        uint64_t bytes =
            4 * (uint64_t)dims[0] * (uint64_t)dims[1] * (uint64_t)(rank == 3 ? dims[2] : 1);
        outputs[i] = xi_tensor_make(XI_DT_FP32, dims, rank, numbers, bytes);
    }
    return XI_OK;
}

static void execute(const struct xi_flow *flow, const uint8_t *shape, const void *input, size_t n,
                    unsigned also)
{
    const struct xi_flow_engine engine = {.ctx = (void *)(uintptr_t)shape, .infer = infer};
    struct xi_flow_run *run = xi_flow_run_new(flow);
    struct xi_str json, picture;
    struct xi_err err = {0};

    xi_str_init(&json, XI_MIB);
    xi_str_init(&picture, XI_MIB);
    if (run != NULL) {
        enum xi_rc rc =
            xi_flow_execute(run, &engine, input, n, XI_ANSWER_JSON | also, &json, NULL, NULL, &err);
        XI_ASSERT(rc == XI_OK || err.msg[0] != '\0');
        if (rc == XI_OK && xi_flow_draws(flow))
            (void)!xi_flow_execute(run, &engine, input, n, XI_ANSWER_PICTURE, NULL, &picture, NULL,
                                   NULL);
    }
    xi_str_fini(&json);
    xi_str_fini(&picture);
    xi_flow_run_free(run);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static const float floats[16] = {1, -2, 3};
    static const uint8_t pixels[3 * 24 * 16] = {200, 100, 50, 25};
    const struct xi_flow_assets assets = {.read = read_asset};
    struct xi_flow *flow = NULL;
    struct xi_err err = {0};
    struct xi_str jpeg;
    uint8_t shape = bytes > 0 ? data[bytes / 2] : 0;

    if (xi_flow_parse((const char *)data, bytes, &assets, &flow, &err) != XI_OK) {
        XI_ASSERT(err.msg[0] != '\0' && flow == NULL);
        return 0;
    }
    xi_str_init(&jpeg, XI_MIB);
    if (xi_jpeg_encode(pixels, 24, 16, 80, &jpeg, NULL) == XI_OK)
        execute(flow, &shape, jpeg.data, jpeg.len, 0);
    execute(flow, &shape, floats, sizeof floats, 0);
    execute(flow, &shape, floats, sizeof floats, XI_INPUT_FP32 | XI_INPUT_GOES_ON);
    xi_str_fini(&jpeg);
    xi_flow_free(flow);
    return 0;
}
