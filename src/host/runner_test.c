/* runner_test.c: the runner on the reference engine. Answers are computed here from the models'
 * definitions. Every allocation of ours is counted (--wrap), for the steady state has none. */
#define _GNU_SOURCE
#include "host/runner.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "ipc/messages.h"

static unsigned long allocations;

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t n);
void *__real_aligned_alloc(size_t align, size_t n);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t n);
void *__wrap_aligned_alloc(size_t align, size_t n);

void *__wrap_malloc(size_t n)
{
    allocations++;
    return __real_malloc(n);
}

void *__wrap_calloc(size_t n, size_t size)
{
    allocations++;
    return __real_calloc(n, size);
}

void *__wrap_realloc(void *p, size_t n)
{
    allocations++;
    return __real_realloc(p, n);
}

void *__wrap_aligned_alloc(size_t align, size_t n)
{
    allocations++;
    return __real_aligned_alloc(align, n);
}

struct bench {
    char dir[64];
    struct xi_runner_engine *engine;
    struct xi_runner *runner;
    struct xi_err err;
    struct xi_run_result result;
    /* a sink of one place */
    _Alignas(64) uint8_t memory[4096];
    uint32_t taken, given;
};

static enum xi_rc take(void *ctx, uint64_t bytes, struct xi_run_place *ret, struct xi_err *err)
{
    struct bench *b = ctx;

    if (bytes > 1024 || b->taken - b->given >= 4)
        return xi_fail(err, XI_ENOMEM, "sink is full");
    *ret = (struct xi_run_place){.data = b->memory + 1024 * (b->taken - b->given), .bytes = bytes};
    b->taken++;
    return XI_OK;
}

static void give(void *ctx, const struct xi_run_place *place)
{
    struct bench *b = ctx;

    (void)place;
    b->given++;
}

static void write_file(const char *dir, const char *name, const char *text)
{
    char path[256];

    (void)snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

static void package(struct bench *b, const char *model, const char *more)
{
    char path[256], manifest[2048];

    memset(b, 0, sizeof *b);
    (void)snprintf(b->dir, sizeof b->dir, "/tmp/xi-runner-XXXXXX");
    assert_non_null(mkdtemp(b->dir));
    (void)snprintf(path, sizeof path, "%s/variants", b->dir);
    assert_int_equal(mkdir(path, 0755), 0);
    write_file(b->dir, "variants/m.xref", model);
    (void)snprintf(manifest, sizeof manifest,
                   "{\"xpkg\": 1, \"name\": \"m\", \"version\": \"1.0.0\", \"license\": \"MIT\","
                   " \"input\": \"tensors\", \"output\": \"tensors\", \"models\": {\"main\":"
                   " {\"variants\": [{\"id\": \"f32\", \"files\": [\"variants/m.xref\"],"
                   " \"format\": \"reference\", \"engine\": {\"name\": \"reference\"},"
                   " \"precision\": \"f32\"}]}}%s}",
                   more);
    write_file(b->dir, "manifest.json", manifest);
}

static enum xi_rc open_on(struct bench *b, const char *device, const char *variant)
{
    if (b->engine == NULL &&
        xi_runner_engine_open(XI_TEST_PLUGINS, "reference", "", &b->engine, &b->err) != XI_OK)
        fail_msg("%s", b->err.msg);
    struct xi_runner_spec spec = {
        .engine = b->engine, .link_dir = b->dir, .variant = variant, .device = device, .lanes = 2};

    return xi_runner_open(&spec, &b->runner, &b->err);
}

static void close_bench(struct bench *b)
{
    const char *const names[] = {"variants/m.xref", "variants", "manifest.json", "."};
    char path[256];

    xi_runner_close(b->runner);
    xi_runner_engine_close(b->engine);
    for (size_t i = 0; i < 4; i++) {
        (void)snprintf(path, sizeof path, "%s/%s", b->dir, names[i]);
        (void)(i == 3 ? rmdir(b->dir) : remove(path));
    }
}

static void must_open(struct bench *b, const char *model)
{
    package(b, model, "");
    if (open_on(b, "", "") != XI_OK || xi_runner_warm_up(b->runner, &b->err) != XI_OK)
        fail_msg("%s", b->err.msg);
}

static struct xi_run_input floats(uint32_t index, float *values, int64_t n)
{
    struct xi_run_input in = {.kind = XI_PART_TENSOR, .index = index};
    int64_t dims[2] = {1, n};

    in.tensor = xi_tensor_make(XI_DT_FP32, dims, 2, values, (uint64_t)n * sizeof *values);
    return in;
}

static enum xi_rc run(struct bench *b, const struct xi_run_input *inputs, uint32_t n)
{
    struct xi_run_request q = {.inputs = inputs, .n_inputs = n, .want = XI_ANSWER_TENSORS};
    struct xi_run_sink sink = {.ctx = b, .take = take, .give = give};

    return xi_runner_run(xi_runner_lane(b->runner, 0), &q, &sink, &b->result, &b->err);
}

static const char minus[] = "xref 1\ninput a FP32 [1,4]\ninput b FP32 [1,4]\n"
                            "output y FP32 [1,4]\ny = sub a b\n";

static void outputs_are_written_in_place(void **state)
{
    struct bench b;
    float v[4] = {5, 6, 7, 8}, w[4] = {1, 1, 2, 2};

    (void)state;
    must_open(&b, minus);
    struct xi_run_input in[2] = {floats(1, w, 4), floats(0, v, 4)}; /* in any order */
    assert_int_equal(run(&b, in, 2), XI_OK);
    assert_int_equal(b.result.n_outputs, 1);
    assert_ptr_equal(b.result.outputs[0].tensor.data, b.memory);
    const float *y = (const float *)b.memory;
    assert_true(y[0] == 4 && y[1] == 5 && y[2] == 5 && y[3] == 6);
    assert_int_equal(b.result.copied_bytes, 0);
    assert_true(b.result.infer_ns > 0);
    close_bench(&b);
}

static void free_outputs_are_copied_and_counted(void **state)
{
    struct bench b;
    float v[4] = {0, 0, 9, 0};

    (void)state;
    must_open(&b, "xref 1\ninput x FP32 [1,4]\noutput y INT64 [2,-1]\ny = nonzero x\n");
    struct xi_run_input in = floats(0, v, 4);
    assert_int_equal(run(&b, &in, 1), XI_OK);
    const int64_t *y = b.result.outputs[0].tensor.data;
    assert_int_equal(b.result.outputs[0].tensor.dims[1], 1);
    assert_true(y[0] == 0 && y[1] == 2);
    assert_int_equal(b.result.copied_bytes, 16);
    close_bench(&b);
}

static void inputs_that_do_not_fit_are_refused(void **state)
{
    struct bench b;
    float v[8] = {0};

    (void)state;
    must_open(&b, minus);
    struct xi_run_input in[3] = {floats(0, v, 4), floats(1, v, 4), floats(0, v, 4)};
    assert_int_equal(run(&b, in, 1), XI_ETENSOR); /* one is missing */
    assert_non_null(strstr(b.err.msg, "\"b\" is missing"));
    assert_int_equal(run(&b, in, 3), XI_ETENSOR); /* one comes twice */
    in[1].index = 2;
    assert_int_equal(run(&b, in, 2), XI_ETENSOR); /* there is no third */
    in[1] = floats(1, v, 5);
    assert_int_equal(run(&b, in, 2), XI_ETENSOR);
    in[1] = floats(1, v, 4);
    in[1].tensor.bytes = 15;
    assert_int_equal(run(&b, in, 2), XI_ETENSOR);
    in[1] = floats(1, v, 4);
    in[1].kind = XI_PART_BYTES;
    assert_int_equal(run(&b, in, 2), XI_ETENSOR);
    in[0].kind = XI_PART_BYTES;
    assert_int_equal(run(&b, in, 1), XI_EUNSUPPORTED); /* there is no flow */
    assert_int_equal(b.taken, b.given);                /* whatever was taken went back */
    assert_int_equal(b.result.n_outputs, 0);
    close_bench(&b);
}

static void full_sink_fails_the_request_only(void **state)
{
    struct bench b;
    float v[400] = {0};

    (void)state;
    must_open(&b, "xref 1\ninput x FP32 [1,400]\noutput y FP32 [1,400]\ny = copy x\n");
    struct xi_run_input in = floats(0, v, 400);
    assert_int_equal(run(&b, &in, 1), XI_ENOMEM);
    assert_int_equal(b.taken, b.given);
    assert_int_equal(b.result.end, 0);
    close_bench(&b);
}

static void engine_that_gives_itself_up_is_told(void **state)
{
    struct bench b;
    float v[4] = {66, 0, 0, 0};

    (void)state;
    must_open(&b, "xref 1\ninput x FP32 [1,4]\noutput y FP32 [1,4]\ny = copy x\n"
                  "fault fail timeout when 66\nfault fail device-lost when 67\n");
    struct xi_run_input in = floats(0, v, 4);
    assert_int_equal(run(&b, &in, 1), XI_EENGINE);
    assert_int_equal(b.result.end, XI_EXIT_ENGINE_BROKEN);
    v[0] = 67;
    assert_int_equal(run(&b, &in, 1), XI_EDEVICE);
    assert_int_equal(b.result.end, XI_EXIT_DEVICE_LOST);
    v[0] = 1;
    assert_int_equal(run(&b, &in, 1), XI_OK);
    close_bench(&b);
}

static void devices_and_variants_are_found_or_named(void **state)
{
    struct bench b;

    (void)state;
    package(&b, minus, "");
    assert_int_equal(open_on(&b, "gpu", ""), XI_EUNSUPPORTED);
    assert_non_null(strstr(b.err.msg, "\"gpu\""));
    assert_int_equal(open_on(&b, "", "int8"), XI_ENOENGINE);
    assert_null(b.runner);
    assert_int_equal(open_on(&b, "cpu", "f32"), XI_OK);
    assert_string_equal(xi_runner_info(b.runner)->device, "CPU");
    assert_string_equal(xi_runner_info(b.runner)->engine, "reference 1.0");
    close_bench(&b);
}

#define GOLDEN(y)                                                                                  \
    ", \"golden\": [{\"id\": \"g\", \"input\": {\"tensors\": [{\"name\": \"a\","                   \
    " \"dtype\": \"FP32\", \"shape\": [1,4], \"data\": [1,2,3,4]}, {\"name\": \"b\","              \
    " \"dtype\": \"FP32\", \"shape\": [1,4], \"data\": [0.5,1,1,1]}]},"                            \
    " \"expect\": {\"tensors\": [{\"name\": \"y\", \"dtype\": \"FP32\", \"shape\": [1,4],"         \
    " \"data\": " y "}]}}]"

static void goldens_prove_or_refuse(void **state)
{
    struct bench b;

    (void)state;
    package(&b, minus, GOLDEN("[0.5,1,2,3]"));
    if (open_on(&b, "", "") != XI_OK)
        fail_msg("%s", b.err.msg);
    assert_int_equal(xi_runner_info(b.runner)->n_goldens, 1);
    if (xi_runner_golden(b.runner, &b.err) != XI_OK)
        fail_msg("%s", b.err.msg);
    close_bench(&b);
    package(&b, minus, GOLDEN("[0.5,1,2.1,3]"));
    assert_int_equal(open_on(&b, "", ""), XI_OK);
    assert_int_equal(xi_runner_golden(b.runner, &b.err), XI_EGOLDEN);
    assert_non_null(strstr(b.err.msg, "golden \"g\""));
    close_bench(&b);
}

static void steady_stream_allocates_nothing(void **state)
{
    struct bench b;
    float v[4] = {5, 6, 7, 8}, w[4] = {1, 1, 2, 2};

    (void)state;
    must_open(&b, minus);
    struct xi_run_input in[2] = {floats(0, v, 4), floats(1, w, 4)};
    assert_true(allocations > 0); /* the counter counts */
    allocations = 0;
    for (int i = 0; i < 1000; i++) {
        v[0] = (float)i;
        assert_int_equal(run(&b, in, 2), XI_OK);
        assert_true(((const float *)b.memory)[0] == (float)i - 1);
        give(&b, &b.result.outputs[0].place);
    }
    assert_int_equal(allocations, 0);
    close_bench(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(outputs_are_written_in_place),
        cmocka_unit_test(free_outputs_are_copied_and_counted),
        cmocka_unit_test(inputs_that_do_not_fit_are_refused),
        cmocka_unit_test(full_sink_fails_the_request_only),
        cmocka_unit_test(engine_that_gives_itself_up_is_told),
        cmocka_unit_test(devices_and_variants_are_found_or_named),
        cmocka_unit_test(goldens_prove_or_refuse),
        cmocka_unit_test(steady_stream_allocates_nothing),
    };
    return cmocka_run_group_tests_name("runner", tests, NULL, NULL);
}
