/* engine_kit.c: what every engine plugin must do, as one test body.
 *
 *   engine_kit PLUGIN LIBRARY_DIR|- MODELS EXTENSION FORMAT
 *
 * MODELS holds the same six models in the engine's own format (affine_dynamic, affine_static, two,
 * nonzero, identity_i64, scalar); what they answer follows from arithmetic. LIBRARY_DIR "-" means
 * that the engine needs no vendor library. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "xinfer/engine.h"

#define ERR_BYTES 192
#if defined(__SANITIZE_ADDRESS__)
#define GROWTH_MAX_KIB (256 * 1024) /* freed memory rests in quarantine */
#else
#define GROWTH_MAX_KIB (4 * 1024)
#endif

struct kit {
    const char *plugin, *library_dir, *models, *extension, *format;
    xi_engine_entry_fn entry;
    const struct xi_engine_table *api;
    struct xi_engine *engine;
    char err[ERR_BYTES];
};

/* ---- helpers ---- */

static struct xi_engine_config config_of(const struct kit *k)
{
    return (struct xi_engine_config){.size = sizeof(struct xi_engine_config),
                                     .library_dir = k->library_dir};
}

static void model_path(const struct kit *k, const char *name, char path[512])
{
    snprintf(path, 512, "%s/%s.%s", k->models, name, k->extension);
}

static int try_load(struct kit *k, const struct xi_engine_source *source,
                    const struct xi_tensor *max_shapes, struct xi_engine_model **ret)
{
    struct xi_engine_options options = {.size = sizeof(options),
                                        .threads = 1,
                                        .streams = 1,
                                        .precision = "f32",
                                        .device = "CPU",
                                        .max_shapes = max_shapes,
                                        .n_max_shapes = max_shapes != NULL};
    k->err[0] = '\0';
    return k->api->load(k->engine, source, &options, ret, k->err, sizeof(k->err));
}

static struct xi_engine_model *load(struct kit *k, const char *name)
{
    struct xi_engine_source source = {.size = sizeof(source), .fd = -1, .format = k->format};
    struct xi_engine_model *model = NULL;
    char path[512];

    model_path(k, name, path);
    source.path = path;
    if (try_load(k, &source, NULL, &model) != XI_ENGINE_OK)
        fail_msg("%s: %s", name, k->err);
    assert_non_null(model);
    return model;
}

static struct xi_engine_request *request(struct kit *k, struct xi_engine_model *model)
{
    struct xi_engine_request *r = NULL;

    assert_int_equal(k->api->request_new(model, &r, k->err, sizeof(k->err)), XI_ENGINE_OK);
    assert_non_null(r);
    return r;
}

static struct xi_tensor tensor(uint32_t dtype, int rank, const int64_t *dims, void *data,
                               uint64_t bytes)
{
    struct xi_tensor t = {
        .size = sizeof(t), .dtype = dtype, .rank = rank, .data = data, .bytes = bytes, .fd = -1};

    for (int i = 0; i < rank; i++)
        t.dims[i] = dims[i];
    return t;
}

/* FP32 [rows,4] */
static struct xi_tensor rows_of(float *data, int64_t rows)
{
    const int64_t dims[2] = {rows, 4};

    return tensor(XI_DT_FP32, 2, dims, data, (uint64_t)rows * 4 * sizeof(float));
}

static int bind(struct kit *k, struct xi_engine_request *r, int direction, uint32_t index,
                const struct xi_tensor *t)
{
    k->err[0] = '\0';
    return k->api->bind(r, direction, index, t, k->err, sizeof(k->err));
}

static void bind_ok(struct kit *k, struct xi_engine_request *r, int direction, uint32_t index,
                    const struct xi_tensor *t)
{
    if (bind(k, r, direction, index, t) != XI_BIND_IN_PLACE)
        fail_msg("not bound in place: %s", k->err);
}

static void run_ok(struct kit *k, struct xi_engine_request *r)
{
    k->err[0] = '\0';
    if (k->api->run(r, 0, k->err, sizeof(k->err)) != XI_ENGINE_OK)
        fail_msg("run: %s", k->err);
}

static struct xi_tensor output_ok(struct kit *k, struct xi_engine_request *r, uint32_t index)
{
    struct xi_tensor t = {.size = sizeof(t)};

    if (k->api->output(r, index, &t, k->err, sizeof(k->err)) != XI_ENGINE_OK)
        fail_msg("output: %s", k->err);
    return t;
}

/* One sentence: something, and no newline. */
static void assert_sentence(const struct kit *k)
{
    assert_true(strlen(k->err) > 8);
    assert_null(strpbrk(k->err, "\r\n"));
}

static void assert_affine(const struct xi_tensor *y, const float *x, int64_t rows)
{
    assert_int_equal(y->dtype, XI_DT_FP32);
    assert_int_equal(y->rank, 2);
    assert_int_equal(y->dims[0], rows);
    assert_int_equal(y->dims[1], 4);
    assert_int_equal(y->bytes, (uint64_t)rows * 16);
    for (int64_t i = 0; i < rows * 4; i++)
        assert_true(((const float *)y->data)[i] == 2.0f * x[i] + 1.0f);
}

/* ---- the table, probe ---- */

static void negotiates_the_version(void **state)
{
    struct kit *k = *state;

    assert_null(k->entry(XI_ENGINE_MAJOR + 1, 0));
    assert_null(k->entry(XI_ENGINE_MAJOR - 1, 0));
    assert_ptr_equal(k->entry(XI_ENGINE_MAJOR, XI_ENGINE_MINOR + 7), k->api);
    assert_int_equal(k->api->major, XI_ENGINE_MAJOR);
    assert_true(k->api->size >= offsetof(struct xi_engine_table, cancel));
    assert_true(strlen(k->api->name) > 0);
}

static void probe_says_what_is_there(void **state)
{
    struct kit *k = *state;
    struct xi_engine_config config = config_of(k);
    struct xi_engine_probe p = {.size = sizeof(p)};
    int found = 0;

    assert_int_equal(k->api->probe(&config, &p, k->err, sizeof(k->err)), XI_ENGINE_OK);
    assert_in_range(p.n_devices, 1, XI_ENGINE_MAX_DEVICES);
    assert_in_range(p.n_formats, 1, XI_ENGINE_MAX_FORMATS);
    assert_in_range(p.max_rank, 1, XI_MAX_RANK);
    assert_string_equal(p.devices[0].id, "CPU");
    assert_int_equal(p.devices[0].kind, XI_DEV_CPU);
    assert_true(p.devices[0].name[0] != '\0' && p.version[0] != '\0');
    for (uint32_t i = 0; i < p.n_formats; i++)
        found += strcmp(p.formats[i], k->format) == 0;
    assert_int_equal(found, 1);
}

static void probe_survives_a_missing_library(void **state)
{
    struct kit *k = *state;
    struct xi_engine_config config = config_of(k);
    struct xi_engine_probe p = {.size = sizeof(p)};
    struct xi_engine *none = NULL;

    if (k->library_dir == NULL)
        skip();
    config.library_dir = "/nonexistent/folder";
    assert_int_equal(k->api->probe(&config, &p, k->err, sizeof(k->err)), XI_ENGINE_NOT_PRESENT);
    assert_non_null(strstr(p.missing, "/nonexistent/folder"));
    assert_sentence(k);
    assert_int_equal(k->api->open(&config, &none, k->err, sizeof(k->err)), XI_ENGINE_NOT_PRESENT);
    assert_null(none);
}

/* ---- load ---- */

static void describes_its_ports(void **state)
{
    struct kit *k = *state;
    struct xi_engine_model *m = load(k, "affine_dynamic"), *two = load(k, "two");
    const struct xi_port *in = k->api->port(m, XI_INPUT, 0), *out = k->api->port(m, XI_OUTPUT, 0);

    assert_non_null(in);
    assert_non_null(out);
    assert_int_equal(in->dtype, XI_DT_FP32);
    assert_int_equal(in->rank, 2);
    assert_int_equal(in->dims[0], -1);
    assert_int_equal(in->dims[1], 4);
    assert_int_equal(out->dims[0], -1);
    assert_non_null(in->name);
    assert_non_null(in->layout);
    assert_null(k->api->port(m, XI_INPUT, 1));
    assert_null(k->api->port(m, XI_OUTPUT, 1));
    assert_null(k->api->port(m, XI_OUTPUT, UINT32_MAX));
    assert_null(k->api->port(m, 2, 0));
    assert_null(k->api->port(m, -1, 0));
    assert_non_null(k->api->port(two, XI_INPUT, 1));
    assert_string_equal(k->api->port(two, XI_INPUT, 0)->name, "a");
    assert_string_equal(k->api->port(two, XI_INPUT, 1)->name, "b");
    assert_string_equal(k->api->port(two, XI_OUTPUT, 1)->name, "total");
    k->api->unload(two);
    k->api->unload(m);
}

static void run_affine_static(struct kit *k, struct xi_engine_model *m)
{
    struct xi_engine_request *r = request(k, m);
    float x[4] = {1, -2, 3, 0.5f};
    struct xi_tensor in = rows_of(x, 1), y;

    bind_ok(k, r, XI_INPUT, 0, &in);
    run_ok(k, r);
    y = output_ok(k, r, 0);
    assert_affine(&y, x, 1);
    k->api->request_free(r);
}

static void loads_from_memory_and_fd(void **state)
{
    struct kit *k = *state;
    struct xi_engine_source source = {.size = sizeof(source), .format = k->format};
    struct xi_engine_model *m = NULL;
    char path[512], data[65536];
    ssize_t n;
    int fd;

    model_path(k, "affine_static", path);
    fd = open(path, O_RDONLY);
    assert_true(fd >= 0);
    source.fd = fd;
    assert_int_equal(try_load(k, &source, NULL, &m), XI_ENGINE_OK);
    run_affine_static(k, m);
    k->api->unload(m);
    n = pread(fd, data, sizeof(data), 0);
    assert_true(n > 0 && n < (ssize_t)sizeof(data));
    assert_int_equal(close(fd), 0); /* it was still ours */
    source.fd = -1;
    source.data = data;
    source.bytes = (uint64_t)n;
    assert_int_equal(try_load(k, &source, NULL, &m), XI_ENGINE_OK);
    memset(data, 0xff, sizeof(data)); /* borrowed only until load returned */
    run_affine_static(k, m);
    k->api->unload(m);
}

static void loads_with_a_largest_shape(void **state)
{
    struct kit *k = *state;
    struct xi_engine_source source = {.size = sizeof(source), .fd = -1, .format = k->format};
    struct xi_engine_model *m = NULL;
    struct xi_engine_request *r;
    float x[12] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
    struct xi_tensor max = rows_of(NULL, 8), in = rows_of(x, 3), y;
    char path[512];

    model_path(k, "affine_dynamic", path);
    source.path = path;
    if (try_load(k, &source, &max, &m) != XI_ENGINE_OK)
        fail_msg("%s", k->err);
    r = request(k, m);
    bind_ok(k, r, XI_INPUT, 0, &in);
    run_ok(k, r);
    y = output_ok(k, r, 0);
    assert_affine(&y, x, 3);
    k->api->request_free(r);
    k->api->unload(m);
}

/* Never OK, never a code that makes the host restart, never our paths in the sentence. */
static void refused(struct kit *k, const char *path, const char *format)
{
    struct xi_engine_source source = {.size = sizeof(source), .fd = -1, .format = format};
    struct xi_engine_model *m = NULL;
    int rc;

    source.path = path;
    rc = try_load(k, &source, NULL, &m);
    assert_int_equal(rc, XI_ENGINE_UNSUPPORTED);
    assert_null(m);
    assert_sentence(k);
    assert_null(strstr(k->err, path));
}

static void write_file(const char *path, const void *data, size_t bytes)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, data, bytes), (ssize_t)bytes);
    close(fd);
}

static void refuses_garbage(void **state)
{
    struct kit *k = *state;
    char dir[] = "/tmp/xi-engine-kit-XXXXXX", path[128], good[512];
    unsigned char data[8192];
    uint32_t seed = 12345;
    int fd;
    ssize_t n;

    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof(path), "%s/bad.%s", dir, k->extension);
    refused(k, path, k->format); /* not there */
    write_file(path, "", 0);
    refused(k, path, k->format);
    for (size_t i = 0; i < sizeof(data); i++)
        data[i] = (unsigned char)((seed = seed * 1664525u + 1013904223u) >> 24);
    write_file(path, data, sizeof(data));
    refused(k, path, k->format);
    model_path(k, "affine_static", good);
    fd = open(good, O_RDONLY);
    n = read(fd, data, sizeof(data));
    close(fd);
    assert_true(n > 40);
    write_file(path, data, (size_t)n / 2);
    refused(k, path, k->format);
    refused(k, good, "no-such-format");
    unlink(path);
    rmdir(dir);
}

static void refuses_options_it_does_not_have(void **state)
{
    struct kit *k = *state;
    struct xi_engine_key key = {"no_such_option", "1"};
    struct xi_engine_options options = {.size = sizeof(options), .n_keys = 1, .keys = &key};
    struct xi_engine_source source = {.size = sizeof(source), .fd = -1, .format = k->format};
    struct xi_engine_model *m = NULL;
    char path[512];

    model_path(k, "affine_static", path);
    source.path = path;
    assert_int_equal(k->api->load(k->engine, &source, &options, &m, k->err, sizeof(k->err)),
                     XI_ENGINE_UNSUPPORTED);
    assert_sentence(k);
    options.n_keys = 0;
    options.device = "NOSUCH.7";
    assert_int_equal(k->api->load(k->engine, &source, &options, &m, k->err, sizeof(k->err)),
                     XI_ENGINE_NOT_PRESENT);
    assert_sentence(k);
    assert_null(m);
}

static long resident_kib(void)
{
    long pages = 0, ignored;
    FILE *f = fopen("/proc/self/statm", "r");

    assert_non_null(f);
    assert_int_equal(fscanf(f, "%ld %ld", &ignored, &pages), 2);
    fclose(f);
    return pages * (sysconf(_SC_PAGESIZE) / 1024);
}

static void unload_gives_memory_back(void **state)
{
    struct kit *k = *state;
    long before = 0, growth;

    for (int i = 0; i < 60; i++) {
        struct xi_engine_model *m = load(k, "affine_static");
        run_affine_static(k, m);
        k->api->unload(m);
        if (i == 9)
            before = resident_kib();
    }
    growth = resident_kib() - before;
    print_message("50 loads: %ld KiB more resident\n", growth);
    assert_true(growth < GROWTH_MAX_KIB);
}

/* ---- bind and run ---- */

static void binds_in_place(void **state)
{
    struct kit *k = *state;
    struct xi_engine_model *m = load(k, "affine_static");
    struct xi_engine_request *r = request(k, m);
    _Alignas(64) float x[4] = {1, 2, 3, 4};
    _Alignas(64) float buffer[16 + 4 + 16];
    struct xi_tensor in = rows_of(x, 1), out = rows_of(buffer + 16, 1), y;

    for (int i = 0; i < 36; i++)
        buffer[i] = 777.0f;
    bind_ok(k, r, XI_INPUT, 0, &in);
    bind_ok(k, r, XI_OUTPUT, 0, &out);
    run_ok(k, r);
    y = output_ok(k, r, 0);
    assert_ptr_equal(y.data, buffer + 16);
    assert_affine(&y, x, 1);
    for (int i = 0; i < 16; i++)
        assert_true(buffer[i] == 777.0f && buffer[20 + i] == 777.0f);
    x[0] = -8.0f; /* the same memory, new numbers, no new binding */
    run_ok(k, r);
    assert_true(buffer[16] == -15.0f);
    bind_ok(k, r, XI_OUTPUT, 0, NULL);
    buffer[16] = 777.0f;
    run_ok(k, r);
    assert_true(buffer[16] == 777.0f);
    y = output_ok(k, r, 0);
    assert_affine(&y, x, 1);
    k->api->request_free(r);
    k->api->unload(m);
}

static void takes_read_only_pages(void **state)
{
    struct kit *k = *state;
    struct xi_engine_model *m = load(k, "affine_static");
    struct xi_engine_request *r = request(k, m);
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    float *x = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    struct xi_tensor in = rows_of(x, 1), y;

    assert_true(x != MAP_FAILED);
    for (int i = 0; i < 4; i++)
        x[i] = (float)i * 10.0f;
    assert_int_equal(mprotect(x, page, PROT_READ), 0);
    bind_ok(k, r, XI_INPUT, 0, &in);
    run_ok(k, r);
    y = output_ok(k, r, 0);
    assert_affine(&y, x, 1);
    k->api->request_free(r);
    k->api->unload(m);
    munmap(x, page);
}

static void keeps_ports_in_order(void **state)
{
    struct kit *k = *state;
    struct xi_engine_model *m = load(k, "two");
    struct xi_engine_request *r = request(k, m);
    float a[4] = {10, 20, 30, 40}, b[4] = {1, 2, 3, 4};
    struct xi_tensor ta = rows_of(a, 1), tb = rows_of(b, 1), difference, total;

    bind_ok(k, r, XI_INPUT, 1, &tb);
    bind_ok(k, r, XI_INPUT, 0, &ta);
    run_ok(k, r);
    difference = output_ok(k, r, 0);
    total = output_ok(k, r, 1);
    for (int i = 0; i < 4; i++) {
        assert_true(((float *)difference.data)[i] == a[i] - b[i]);
        assert_true(((float *)total.data)[i] == a[i] + b[i]);
    }
    k->api->request_free(r);
    k->api->unload(m);
}

static void follows_the_batch(void **state)
{
    struct kit *k = *state;
    struct xi_engine_model *m = load(k, "affine_dynamic");
    struct xi_engine_request *r = request(k, m);
    static const int64_t batches[] = {1, 3, 64, 2, 64, 1};
    float x[256];
    struct xi_tensor bad;

    for (int i = 0; i < 256; i++)
        x[i] = (float)(i - 100);
    for (size_t i = 0; i < sizeof(batches) / sizeof(batches[0]); i++) {
        struct xi_tensor in = rows_of(x, batches[i]), y;
        bind_ok(k, r, XI_INPUT, 0, &in);
        run_ok(k, r);
        y = output_ok(k, r, 0);
        assert_affine(&y, x, batches[i]);
    }
    bad = rows_of(x, 1); /* its size isn't known beforehand */
    assert_int_equal(bind(k, r, XI_OUTPUT, 0, &bad), XI_ENGINE_UNSUPPORTED);
    assert_sentence(k);
    k->api->request_free(r);
    k->api->unload(m);
}

static void answers_unknown_sizes(void **state)
{
    struct kit *k = *state;
    struct xi_engine_model *m = load(k, "nonzero");
    struct xi_engine_request *r = request(k, m);
    const int64_t dims[2] = {2, 3}, want[2][3] = {{0, 1, 1}, {1, 0, 2}};
    float x[6] = {0, 5, 0, -1, 0, 7};
    struct xi_tensor in = tensor(XI_DT_FP32, 2, dims, x, sizeof(x)), y;

    bind_ok(k, r, XI_INPUT, 0, &in);
    run_ok(k, r);
    y = output_ok(k, r, 0);
    assert_int_equal(y.dtype, XI_DT_INT64);
    assert_int_equal(y.rank, 2);
    assert_int_equal(y.dims[0], 2);
    assert_int_equal(y.dims[1], 3);
    assert_int_equal(y.bytes, sizeof(want));
    assert_memory_equal(y.data, want, sizeof(want));
    memset(x, 0, sizeof(x));
    run_ok(k, r);
    y = output_ok(k, r, 0);
    assert_int_equal(y.dims[1], 0);
    assert_int_equal(y.bytes, 0);
    for (int i = 0; i < 6; i++)
        x[i] = 1.0f;
    run_ok(k, r);
    y = output_ok(k, r, 0);
    assert_int_equal(y.dims[1], 6);
    k->api->request_free(r);
    k->api->unload(m);
}

static void carries_integers_and_scalars(void **state)
{
    struct kit *k = *state;
    struct xi_engine_model *ints = load(k, "identity_i64"), *sum = load(k, "scalar");
    struct xi_engine_request *r = request(k, ints), *s = request(k, sum);
    const int64_t dims[2] = {2, 3}, four = 4;
    /* In 32 bits: OpenVINO's CPU plugin computes INT64 as INT32 and saturates. */
    int64_t x[6] = {INT32_MIN, -1, 0, 1, 1 << 30, INT32_MAX};
    float f[4] = {1, 2, 3, 4};
    struct xi_tensor in = tensor(XI_DT_INT64, 2, dims, x, sizeof(x)), y;

    bind_ok(k, r, XI_INPUT, 0, &in);
    run_ok(k, r);
    y = output_ok(k, r, 0);
    assert_int_equal(y.dtype, XI_DT_INT64);
    assert_memory_equal(y.data, x, sizeof(x));
    in = tensor(XI_DT_FP32, 1, &four, f, sizeof(f));
    bind_ok(k, s, XI_INPUT, 0, &in);
    run_ok(k, s);
    y = output_ok(k, s, 0);
    assert_int_equal(y.rank, 0);
    assert_int_equal(y.bytes, 4);
    assert_true(*(float *)y.data == 10.0f);
    k->api->request_free(s);
    k->api->request_free(r);
    k->api->unload(sum);
    k->api->unload(ints);
}

static void refuses_what_does_not_fit(void **state)
{
    struct kit *k = *state;
    struct xi_engine_model *m = load(k, "affine_dynamic");
    struct xi_engine_request *r = request(k, m);
    float x[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    struct xi_tensor bad[8], good = rows_of(x, 2), y;

    for (int i = 0; i < 8; i++)
        bad[i] = rows_of(x, 2);
    bad[0].dtype = XI_DT_INT32;
    bad[1].dims[1] = 3;
    bad[2].rank = 1;
    bad[3].bytes--;
    bad[4].bytes++;
    bad[5].dims[0] = -1;
    bad[6].data = NULL;
    bad[7].dims[0] = INT64_MAX / 4; /* the product overflows */
    assert_int_equal(k->api->run(r, 0, k->err, sizeof(k->err)), XI_ENGINE_BAD_INPUT);
    assert_sentence(k);
    for (int i = 0; i < 8; i++) {
        if (bind(k, r, XI_INPUT, 0, &bad[i]) != XI_ENGINE_BAD_INPUT)
            fail_msg("bad tensor %d was taken", i);
        assert_sentence(k);
    }
    bad[0] = rows_of(x, 2);
    bad[0].memory = XI_MEM_DEVICE;
    assert_int_equal(bind(k, r, XI_INPUT, 0, &bad[0]), XI_ENGINE_UNSUPPORTED);
    assert_int_equal(bind(k, r, XI_INPUT, 1, &good), XI_ENGINE_BAD_INPUT);
    assert_true(k->api->output(r, 0, &y, k->err, sizeof(k->err)) < 0); /* has not run */
    bind_ok(k, r, XI_INPUT, 0, &good);                                 /* and none of it did harm */
    run_ok(k, r);
    y = output_ok(k, r, 0);
    assert_affine(&y, x, 2);
    assert_true(k->api->output(r, 1, &y, k->err, sizeof(k->err)) < 0);
    k->api->request_free(r);
    k->api->unload(m);
}

/* ---- several at once ---- */

#define THREADS 4
#define RUNS    200

struct worker {
    struct kit *k;
    struct xi_engine_request *r;
    pthread_t thread;
    int id, wrong;
};

/* No cmocka in here: its asserts jump, which must not leave a thread. */
static void *work(void *arg)
{
    struct worker *w = arg;
    char err[ERR_BYTES];
    float x[12];
    struct xi_tensor y;

    for (int run = 0; run < RUNS; run++) {
        int64_t rows = 1 + (run + w->id) % 3;
        struct xi_tensor in = rows_of(x, rows);
        for (int i = 0; i < 12; i++)
            x[i] = (float)(w->id * 1000 + run * 4 + i);
        if (w->k->api->bind(w->r, XI_INPUT, 0, &in, err, sizeof(err)) != XI_BIND_IN_PLACE ||
            w->k->api->run(w->r, 0, err, sizeof(err)) != XI_ENGINE_OK ||
            w->k->api->output(w->r, 0, &y, err, sizeof(err)) != XI_ENGINE_OK || y.dims[0] != rows) {
            w->wrong++;
            continue;
        }
        for (int64_t i = 0; i < rows * 4; i++)
            w->wrong += ((float *)y.data)[i] != 2.0f * x[i] + 1.0f;
    }
    return NULL;
}

static void runs_requests_at_once(void **state)
{
    struct kit *k = *state;
    struct xi_engine_model *m = load(k, "affine_dynamic");
    struct worker w[THREADS];

    for (int i = 0; i < THREADS; i++) {
        w[i] = (struct worker){.k = k, .r = request(k, m), .id = i};
        assert_int_equal(pthread_create(&w[i].thread, NULL, work, &w[i]), 0);
    }
    for (int i = 0; i < THREADS; i++)
        pthread_join(w[i].thread, NULL);
    for (int i = 0; i < THREADS; i++) {
        assert_int_equal(w[i].wrong, 0);
        k->api->request_free(w[i].r);
    }
    if (XI_ENGINE_HAS(k->api, stats)) {
        struct xi_engine_stats stats = {.size = sizeof(stats)};
        assert_int_equal(k->api->stats(m, &stats), XI_ENGINE_OK);
        assert_true(stats.busy_ns > 0);
        assert_int_equal(stats.copied_bytes, 0);
    }
    k->api->unload(m);
}

/* ---- main ---- */

static int start(struct kit *k)
{
    struct xi_engine_config config;
    void *handle = dlopen(k->plugin, RTLD_NOW | RTLD_LOCAL), *symbol;

    if (handle == NULL || (symbol = dlsym(handle, XI_ENGINE_ENTRY)) == NULL) {
        fprintf(stderr, "%s\n", dlerror());
        return -1;
    }
    memcpy(&k->entry, &symbol, sizeof(symbol));
    k->api = k->entry(XI_ENGINE_MAJOR, XI_ENGINE_MINOR);
    config = config_of(k);
    if (k->api == NULL ||
        k->api->open(&config, &k->engine, k->err, sizeof(k->err)) != XI_ENGINE_OK) {
        fprintf(stderr, "%s: %s\n", k->plugin, k->api == NULL ? "wrong version" : k->err);
        return -1;
    }
    return 0;
}

int main(int argc, char **argv)
{
    struct kit kit;

    if (argc != 6) {
        fprintf(stderr, "usage: engine_kit PLUGIN LIBRARY_DIR|- MODELS EXTENSION FORMAT\n");
        return 2;
    }
    kit = (struct kit){.plugin = argv[1],
                       .library_dir = strcmp(argv[2], "-") == 0 ? NULL : argv[2],
                       .models = argv[3],
                       .extension = argv[4],
                       .format = argv[5]};
    if (start(&kit) != 0)
        return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(negotiates_the_version, &kit),
        cmocka_unit_test_prestate(probe_says_what_is_there, &kit),
        cmocka_unit_test_prestate(probe_survives_a_missing_library, &kit),
        cmocka_unit_test_prestate(describes_its_ports, &kit),
        cmocka_unit_test_prestate(loads_from_memory_and_fd, &kit),
        cmocka_unit_test_prestate(loads_with_a_largest_shape, &kit),
        cmocka_unit_test_prestate(refuses_garbage, &kit),
        cmocka_unit_test_prestate(refuses_options_it_does_not_have, &kit),
        cmocka_unit_test_prestate(unload_gives_memory_back, &kit),
        cmocka_unit_test_prestate(binds_in_place, &kit),
        cmocka_unit_test_prestate(takes_read_only_pages, &kit),
        cmocka_unit_test_prestate(keeps_ports_in_order, &kit),
        cmocka_unit_test_prestate(follows_the_batch, &kit),
        cmocka_unit_test_prestate(answers_unknown_sizes, &kit),
        cmocka_unit_test_prestate(carries_integers_and_scalars, &kit),
        cmocka_unit_test_prestate(refuses_what_does_not_fit, &kit),
        cmocka_unit_test_prestate(runs_requests_at_once, &kit),
    };
    int failed = cmocka_run_group_tests_name(kit.api->name, tests, NULL, NULL);
    kit.api->close(kit.engine);
    return failed;
}
