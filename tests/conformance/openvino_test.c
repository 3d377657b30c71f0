/* openvino_test.c: what only the OpenVINO engine does: its formats, options and refusals.
 *   openvino_test PLUGIN LIBRARY_DIR ONNX_MODELS IR_MODELS */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "xinfer/engine.h"

struct kit {
    const struct xi_engine_table *api;
    struct xi_engine *engine;
    const char *onnx, *ir;
    char err[192];
};

static int load(struct kit *k, const char *format, const char *dir, const char *file,
                const struct xi_engine_options *options, struct xi_engine_model **ret)
{
    struct xi_engine_source source = {.size = sizeof(source), .fd = -1, .format = format};
    char path[512];

    snprintf(path, sizeof(path), "%s/%s", dir, file);
    source.path = path;
    *ret = NULL;
    return k->api->load(k->engine, &source, options, ret, k->err, sizeof(k->err));
}

static struct xi_tensor matrix(float *data, int64_t rows, int64_t columns)
{
    return (struct xi_tensor){.size = sizeof(struct xi_tensor),
                              .dtype = XI_DT_FP32,
                              .rank = 2,
                              .dims = {rows, columns},
                              .data = data,
                              .fd = -1,
                              .bytes = (uint64_t)(rows * columns) * sizeof(float)};
}

/* Binds, runs, answers output 0. */
static struct xi_tensor run(struct kit *k, struct xi_engine_request *r, const struct xi_tensor *x)
{
    struct xi_tensor y = {.size = sizeof(y)};

    assert_int_equal(k->api->bind(r, XI_INPUT, 0, x, k->err, sizeof(k->err)), XI_BIND_IN_PLACE);
    assert_int_equal(k->api->run(r, 0, k->err, sizeof(k->err)), XI_ENGINE_OK);
    assert_int_equal(k->api->output(r, 0, &y, k->err, sizeof(k->err)), XI_ENGINE_OK);
    return y;
}

static void reads_ir(void **state)
{
    struct kit *k = *state;
    struct xi_engine_model *m;
    struct xi_engine_request *r;
    float x[4] = {-1, 2, -3, 4};
    struct xi_tensor in = matrix(x, 1, 4), y;
    const float want[4] = {0, 2, 0, 4};

    assert_int_equal(load(k, "openvino-ir", k->ir, "relu.xml", NULL, &m), XI_ENGINE_OK);
    assert_string_equal(k->api->port(m, XI_INPUT, 0)->name, "x");
    assert_string_equal(k->api->port(m, XI_OUTPUT, 0)->name, "y");
    assert_int_equal(k->api->request_new(m, &r, k->err, sizeof(k->err)), XI_ENGINE_OK);
    y = run(k, r, &in);
    assert_memory_equal(y.data, want, sizeof(want));
    k->api->request_free(r);
    k->api->unload(m);
}

static void refuses(struct kit *k, const char *format, const char *file, const char *says)
{
    struct xi_engine_model *m;

    assert_int_equal(load(k, format, k->onnx, file, NULL, &m), XI_ENGINE_UNSUPPORTED);
    assert_null(m);
    if (strstr(k->err, says) == NULL)
        fail_msg("%s: \"%s\", wanted \"%s\"", file, k->err, says);
}

static void refuses_what_it_cannot_serve(void **state)
{
    struct kit *k = *state;

    refuses(k, "onnx", "strings.onnx", "strings");
    refuses(k, "onnx", "rank9.onnx", "more than 8 dimensions");
    refuses(k, "tflite", "scalar.onnx", "must end in .tflite");
    refuses(k, "onnx", "missing.onnx", "No such file");
}

/* In f32 unless the package says otherwise: rounded to bf16 the answer is off by about 0.01. */
static void computes_in_f32(void **state)
{
    static const char *const precisions[] = {NULL, "f32", "f16", "i8"};
    struct kit *k = *state;
    float x[128];
    struct xi_tensor in = matrix(x, 4, 32), y;

    for (int i = 0; i < 128; i++)
        x[i] = 1.0f + (float)(i % 5) / 2048.0f;
    for (size_t p = 0; p < 2 + 2; p++) {
        struct xi_engine_options o = {.size = sizeof(o), .precision = precisions[p]};
        struct xi_engine_model *m;
        struct xi_engine_request *r;
        assert_int_equal(load(k, "onnx", k->onnx, "matmul.onnx", &o, &m), XI_ENGINE_OK);
        assert_int_equal(k->api->request_new(m, &r, k->err, sizeof(k->err)), XI_ENGINE_OK);
        y = run(k, r, &in);
        for (int i = 0; i < 128; i++) {
            double want = 0;
            for (int n = 0; n < 32; n++)
                want += (double)x[i / 32 * 32 + n] * (1.0 + (n * 32 + i % 32) % 7 / 1024.0);
            /* 32 products: f32 is good to about 1e-5, real f16 to about 0.02 */
            if (fabs((double)((float *)y.data)[i] - want) > (p == 2 ? 0.05 : 2e-5))
                fail_msg("precision %zu, element %d: %f, wanted %f", p, i,
                         (double)((float *)y.data)[i], want);
        }
        k->api->request_free(r);
        k->api->unload(m);
    }
}

static void keeps_to_the_largest_shape(void **state)
{
    struct kit *k = *state;
    float x[64] = {0};
    struct xi_tensor max = matrix(NULL, 8, 4), small = matrix(x, 8, 4), large = matrix(x, 9, 4), y;
    struct xi_engine_options o = {.size = sizeof(o), .max_shapes = &max, .n_max_shapes = 1};
    struct xi_engine_model *m;
    struct xi_engine_request *r;
    int rc;

    assert_int_equal(load(k, "onnx", k->onnx, "affine_dynamic.onnx", &o, &m), XI_ENGINE_OK);
    assert_int_equal(k->api->port(m, XI_INPUT, 0)->dims[0], -1);
    assert_int_equal(k->api->request_new(m, &r, k->err, sizeof(k->err)), XI_ENGINE_OK);
    y = run(k, r, &small);
    assert_int_equal(y.dims[0], 8);
    rc = k->api->bind(r, XI_INPUT, 0, &large, k->err, sizeof(k->err));
    if (rc == XI_BIND_IN_PLACE)
        rc = k->api->run(r, 0, k->err, sizeof(k->err));
    assert_int_equal(rc, XI_ENGINE_BAD_INPUT);
    y = run(k, r, &small);
    assert_int_equal(y.dims[0], 8);
    k->api->request_free(r);
    k->api->unload(m);
    max.dims[1] = 5; /* the model says 4 */
    assert_int_equal(load(k, "onnx", k->onnx, "affine_dynamic.onnx", &o, &m),
                     XI_ENGINE_UNSUPPORTED);
    max.dims[1] = 4;
    o.n_max_shapes = 2;
    assert_int_equal(load(k, "onnx", k->onnx, "affine_dynamic.onnx", &o, &m),
                     XI_ENGINE_UNSUPPORTED);
}

static int empty_folder(const char *path)
{
    struct dirent *entry;
    DIR *dir = opendir(path);
    int n = 0;

    assert_non_null(dir);
    while ((entry = readdir(dir)) != NULL) {
        char name[600];
        if (entry->d_name[0] == '.')
            continue;
        snprintf(name, sizeof(name), "%s/%s", path, entry->d_name);
        n += unlink(name) == 0;
    }
    closedir(dir);
    return n;
}

static void keeps_compiled_models(void **state)
{
    struct kit *k = *state;
    char dir[] = "/tmp/xi-openvino-cache-XXXXXX";
    struct xi_engine_options o = {.size = sizeof(o), .precision = "f32"};
    struct xi_engine_model *m;

    assert_non_null(mkdtemp(dir));
    o.cache_dir = dir;
    for (int i = 0; i < 2; i++) { /* the second time from the cache */
        assert_int_equal(load(k, "onnx", k->onnx, "matmul.onnx", &o, &m), XI_ENGINE_OK);
        k->api->unload(m);
    }
    assert_true(empty_folder(dir) > 0);
    rmdir(dir);
}

static double seconds(clockid_t clock)
{
    struct timespec t;

    assert_int_equal(clock_gettime(clock, &t), 0);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* Several streams on the processor, and still no other thread does the work: the core and the
 * priority of the caller's hold for it. */
static void computes_in_the_callers_thread(void **state)
{
    struct kit *k = *state;
    struct xi_engine_options options = {.size = sizeof(options), .streams = 3, .device = "CPU"};
    struct xi_engine_model *m;
    struct xi_engine_request *r[3];
    float x[4] = {-1, 2, -3, 4};
    struct xi_tensor in = matrix(x, 1, 4), y;
    const float want[4] = {0, 2, 0, 4};
    double mine, all;

    assert_int_equal(load(k, "openvino-ir", k->ir, "relu.xml", &options, &m), XI_ENGINE_OK);
    for (int i = 0; i < 3; i++)
        assert_int_equal(k->api->request_new(m, &r[i], k->err, sizeof(k->err)), XI_ENGINE_OK);
    mine = seconds(CLOCK_THREAD_CPUTIME_ID);
    all = seconds(CLOCK_PROCESS_CPUTIME_ID);
    for (int i = 0; i < 30000; i++) {
        y = run(k, r[i % 3], &in);
        assert_memory_equal(y.data, want, sizeof(want));
    }
    mine = seconds(CLOCK_THREAD_CPUTIME_ID) - mine;
    all = seconds(CLOCK_PROCESS_CPUTIME_ID) - all;
    assert_true(mine > 0.9 * all);
    for (int i = 0; i < 3; i++)
        k->api->request_free(r[i]);
    k->api->unload(m);
}

static void checks_its_options(void **state)
{
    struct kit *k = *state;
    struct xi_engine_key hint = {"PERFORMANCE_HINT", "LATENCY"}, folder = {"CACHE_DIR", "/tmp"};
    struct xi_engine_options o = {.size = sizeof(o), .precision = "f64"};
    struct xi_engine_model *m;

    assert_int_equal(load(k, "onnx", k->onnx, "scalar.onnx", &o, &m), XI_ENGINE_UNSUPPORTED);
    o = (struct xi_engine_options){.size = sizeof(o), .device = "AUTO:CPU"};
    assert_int_equal(load(k, "onnx", k->onnx, "scalar.onnx", &o, &m), XI_ENGINE_UNSUPPORTED);
    o = (struct xi_engine_options){.size = sizeof(o), .threads = 257};
    assert_int_equal(load(k, "onnx", k->onnx, "scalar.onnx", &o, &m), XI_ENGINE_UNSUPPORTED);
    o = (struct xi_engine_options){.size = sizeof(o), .n_keys = 1, .keys = &folder};
    assert_int_equal(load(k, "onnx", k->onnx, "scalar.onnx", &o, &m), XI_ENGINE_UNSUPPORTED);
    o.keys = &hint;
    o.device = "cpu";
    o.threads = 2;
    assert_int_equal(load(k, "onnx", k->onnx, "scalar.onnx", &o, &m), XI_ENGINE_OK);
    k->api->unload(m);
}

int main(int argc, char **argv)
{
    struct kit kit = {.api = NULL};
    struct xi_engine_config config = {.size = sizeof(config)};
    void *handle = argc == 5 ? dlopen(argv[1], RTLD_NOW | RTLD_LOCAL) : NULL, *symbol;
    xi_engine_entry_fn entry;

    if (handle == NULL || (symbol = dlsym(handle, XI_ENGINE_ENTRY)) == NULL) {
        fprintf(stderr, "usage: openvino_test PLUGIN LIBRARY_DIR ONNX_MODELS IR_MODELS\n");
        return 2;
    }
    memcpy(&entry, &symbol, sizeof(symbol));
    kit.api = entry(XI_ENGINE_MAJOR, XI_ENGINE_MINOR);
    config.library_dir = argv[2];
    kit.onnx = argv[3];
    kit.ir = argv[4];
    if (kit.api == NULL ||
        kit.api->open(&config, &kit.engine, kit.err, sizeof(kit.err)) != XI_ENGINE_OK) {
        fprintf(stderr, "%s\n", kit.err);
        return 1;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(reads_ir, &kit),
        cmocka_unit_test_prestate(refuses_what_it_cannot_serve, &kit),
        cmocka_unit_test_prestate(computes_in_f32, &kit),
        cmocka_unit_test_prestate(keeps_to_the_largest_shape, &kit),
        cmocka_unit_test_prestate(keeps_compiled_models, &kit),
        cmocka_unit_test_prestate(computes_in_the_callers_thread, &kit),
        cmocka_unit_test_prestate(checks_its_options, &kit),
    };
    int failed = cmocka_run_group_tests_name("openvino", tests, NULL, NULL);
    kit.api->close(kit.engine);
    return failed;
}
