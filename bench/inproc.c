/* inproc.c: the same engine, flow and threads as xinfer-host, in one process without a daemon: the
 * baseline that served requests are held against.
 *
 *   inproc --links DIR --engine NAME [--input FILE | --shape 1,300,300,3 [--dtype FP32]]
 *          [--seconds 5] [--lanes N] [--threads N]
 *
 * --lanes and --threads (of each lane) 0: as many as there are cores. Each lane runs the same input
 * again and again. Prints one JSON line: inferences, seconds, rate, p50_us of the first lane's,
 * cpu_us_per_inference (user and system time of the whole process while they ran). */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/clock.h"
#include "flow/flow.h"
#include "host/runner.h"

enum { OUTPUT_BYTES = 64 << 20, LANES_MAX = 64, TIMES_MAX = 1 << 20 };

struct options {
    const char *links, *engine, *plugin_dir, *engine_libs, *input, *shape, *dtype;
    double seconds;
    long lanes, threads;
};

/* A lane's outputs: one buffer, started anew for each inference. */
struct lane {
    struct xi_runner_lane *lane;
    const struct xi_run_request *request;
    uint64_t end_ns, inferences, used;
    uint8_t *outputs;
    uint32_t *times_ns; /* TIMES_MAX; the first lane's alone */
};

static void die(const char *what, const struct xi_err *err)
{
    (void)fprintf(stderr, "inproc: %s: %s\n", what, err ? err->msg : "");
    exit(1);
}

static const char *option(int argc, char **argv, const char *name, const char *otherwise)
{
    for (int i = 1; i + 1 < argc; i++)
        if (strcmp(argv[i], name) == 0)
            return argv[i + 1];
    return otherwise;
}

static void parse_args(struct options *o, int argc, char **argv)
{
    static char plugins[512];
    ssize_t n = readlink("/proc/self/exe", plugins, sizeof plugins - 32);

    plugins[n > 0 ? n : 0] = '\0';
    char *slash = strrchr(plugins, '/');
    (void)snprintf(slash ? slash : plugins, 32, "/../lib/xinfer");
    o->links = option(argc, argv, "--links", NULL);
    o->engine = option(argc, argv, "--engine", "openvino");
    o->plugin_dir = option(argc, argv, "--plugins", plugins);
    o->engine_libs = option(argc, argv, "--engine-libs", XI_ENGINE_LIBS);
    o->input = option(argc, argv, "--input", NULL);
    o->shape = option(argc, argv, "--shape", NULL);
    o->dtype = option(argc, argv, "--dtype", "FP32");
    o->seconds = strtod(option(argc, argv, "--seconds", "5"), NULL);
    o->lanes = strtol(option(argc, argv, "--lanes", "0"), NULL, 10);
    o->threads = strtol(option(argc, argv, "--threads", "1"), NULL, 10);
    if (o->threads < 1)
        o->threads = sysconf(_SC_NPROCESSORS_ONLN);
    if (o->lanes < 1 || o->lanes > LANES_MAX)
        o->lanes = sysconf(_SC_NPROCESSORS_ONLN);
}

static void read_file(const char *path, struct xi_tensor *ret)
{
    FILE *f = fopen(path, "rb");

    if (f == NULL || fseek(f, 0, SEEK_END) != 0)
        die(path, NULL);
    ret->bytes = (uint64_t)ftell(f);
    rewind(f);
    ret->data = malloc(ret->bytes);
    if (ret->data == NULL || fread(ret->data, 1, ret->bytes, f) != ret->bytes)
        die(path, NULL);
    (void)fclose(f);
}

static void make_input(const struct options *o, struct xi_run_input *ret)
{
    struct xi_err err;
    int rank = 0;
    int64_t dims[XI_MAX_RANK];
    enum xi_dtype dtype = xi_dtype_parse(o->dtype);
    uint64_t bytes = 0;

    if (o->input != NULL) {
        ret->kind = XI_PART_BYTES;
        ret->tensor = xi_tensor_make(XI_DT_UINT8, NULL, 0, NULL, 0);
        read_file(o->input, &ret->tensor);
        return;
    }
    if (o->shape == NULL || xi_shape_parse(o->shape, 0, dims, &rank, &err) != XI_OK ||
        xi_shape_bytes(dtype, dims, rank, &bytes, &err) != XI_OK)
        die("--input FILE or --shape N,N,…", NULL);
    ret->kind = XI_PART_TENSOR;
    ret->tensor = xi_tensor_make(dtype, dims, rank, malloc(bytes), bytes);
    if (ret->tensor.data == NULL)
        die("input", NULL);
    memset(ret->tensor.data, 0, bytes); /* pages of its own, not the one of zeros */
}

static enum xi_rc take(void *ctx, uint64_t bytes, struct xi_run_place *ret, struct xi_err *err)
{
    struct lane *l = ctx;
    uint64_t room = (bytes + 4095) / 4096 * 4096;

    if (room > OUTPUT_BYTES - l->used)
        return xi_fail(err, XI_ENOMEM, "outputs over %d bytes", OUTPUT_BYTES);
    *ret = (struct xi_run_place){.data = l->outputs + l->used, .bytes = bytes, .offset = l->used};
    l->used += room;
    return XI_OK;
}

static void give(void *ctx, const struct xi_run_place *place)
{
    (void)ctx;
    (void)place;
}

static void *run_lane(void *arg)
{
    struct lane *l = arg;
    const struct xi_run_sink sink = {.ctx = l, .take = take, .give = give};
    struct xi_run_result *result = malloc(sizeof *result);
    struct xi_err err;

    for (uint64_t began; result != NULL && (began = xi_now_ns()) < l->end_ns;) {
        l->used = 0;
        if (xi_runner_run(l->lane, l->request, &sink, result, &err) != XI_OK)
            die("run", &err);
        if (l->times_ns != NULL && l->inferences < TIMES_MAX)
            l->times_ns[l->inferences] = (uint32_t)(xi_now_ns() - began);
        l->inferences++;
    }
    free(result);
    return NULL;
}

static uint64_t cpu_us(void)
{
    struct rusage u;

    (void)getrusage(RUSAGE_SELF, &u);
    return (uint64_t)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1000000u +
           (uint64_t)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

static int by_time(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return (x > y) - (x < y);
}

static double median_us(const struct lane *l)
{
    uint64_t n = l->inferences < TIMES_MAX ? l->inferences : TIMES_MAX;

    qsort(l->times_ns, n, sizeof *l->times_ns, by_time);
    return n > 0 ? l->times_ns[n / 2] / 1000.0 : 0;
}

static void measure(const struct options *o, struct xi_runner *runner,
                    const struct xi_run_request *request)
{
    struct lane lanes[LANES_MAX] = {{0}};
    pthread_t threads[LANES_MAX];
    uint64_t start = xi_now_ns(), cpu = cpu_us(), inferences = 0;

    for (long i = 0; i < o->lanes; i++) {
        lanes[i] = (struct lane){.lane = xi_runner_lane(runner, (uint32_t)i),
                                 .request = request,
                                 .end_ns = start + (uint64_t)(o->seconds * 1e9),
                                 .outputs = malloc(OUTPUT_BYTES),
                                 .times_ns = i == 0 ? calloc(TIMES_MAX, sizeof(uint32_t)) : NULL};
        if (lanes[i].outputs == NULL || pthread_create(&threads[i], NULL, run_lane, &lanes[i]) != 0)
            die("threads", NULL);
    }
    for (long i = 0; i < o->lanes; i++) {
        (void)pthread_join(threads[i], NULL);
        inferences += lanes[i].inferences;
        free(lanes[i].outputs);
    }
    double seconds = (double)(xi_now_ns() - start) / 1e9;
    (void)printf("{\"inferences\":%llu,\"seconds\":%.3f,\"rate\":%.2f,\"p50_us\":%.1f,"
                 "\"cpu_us_per_inference\":%.2f}\n",
                 (unsigned long long)inferences, seconds, (double)inferences / seconds,
                 median_us(&lanes[0]), (double)(cpu_us() - cpu) / (double)inferences);
    free(lanes[0].times_ns);
}

int main(int argc, char **argv)
{
    struct options o;
    struct xi_err err = {0};
    struct xi_runner_engine *engine = NULL;
    struct xi_runner *runner = NULL;
    struct xi_run_input input = {0};

    parse_args(&o, argc, argv);
    if (o.links == NULL)
        die("--links DIR is missing", NULL);
    make_input(&o, &input);
    if (xi_runner_engine_open(o.plugin_dir, o.engine, o.engine_libs, &engine, &err) != XI_OK)
        die("engine", &err);
    struct xi_runner_spec spec = {.engine = engine,
                                  .link_dir = o.links,
                                  .variant = "",
                                  .device = "cpu",
                                  .lanes = (uint32_t)o.lanes,
                                  .threads = (uint32_t)o.threads};
    struct xi_run_request request = {.inputs = &input,
                                     .n_inputs = 1,
                                     .want = input.kind == XI_PART_BYTES ? XI_ANSWER_JSON
                                                                         : XI_ANSWER_TENSORS};
    if (xi_runner_open(&spec, &runner, &err) != XI_OK || xi_runner_warm_up(runner, &err) != XI_OK)
        die("load", &err);
    measure(&o, runner, &request);
    xi_runner_close(runner);
    xi_runner_engine_close(engine);
    free(input.tensor.data);
    return 0;
}
