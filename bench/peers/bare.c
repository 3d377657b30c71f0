/* bare.c: what ONNX Runtime does alone: some threads, each with a session of one thread of its own,
 * that run one input again and again.
 *
 *   bare --model FILE --shape 1,3,48,192 [--dtype FP32|UINT8] [--lanes 2] [--seconds 5]
 *
 * Prints one JSON line: runs, seconds, rate, p50_us, and cpu_us of the process for each run. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/clock.h"
#include "runtime.h"

enum { LANES_MAX = 64, SAMPLES_MAX = 1 << 20 };

struct lane {
    pthread_t thread;
    struct runtime *runtime;
    const struct runtime_input *input;
    double seconds;
    uint32_t *ns;
    size_t n;
};

static void die(const char *what)
{
    (void)fprintf(stderr, "bare: %s\n", what);
    exit(1);
}

static void *run_lane(void *arg)
{
    struct lane *l = arg;
    void *out = malloc(runtime_output(l->runtime)->bytes);
    uint64_t at = xi_now_ns(), end = at + (uint64_t)(l->seconds * 1e9);

    while (out != NULL && at < end && l->n < SAMPLES_MAX) {
        const char *why = runtime_run(l->runtime, l->input, out);
        if (why != NULL)
            die(why);
        uint64_t now = xi_now_ns();
        l->ns[l->n++] = (uint32_t)(now - at);
        at = now;
    }
    free(out);
    return NULL;
}

static size_t parse_shape(const char *text, int64_t *dims)
{
    size_t rank = 0;
    char *end = NULL;

    for (; *text != '\0' && rank < RUNTIME_RANK_MAX; text = *end == ',' ? end + 1 : end)
        dims[rank++] = strtol(text, &end, 10);
    return rank;
}

static int ascending(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return (x > y) - (x < y);
}

static double cpu_us(void)
{
    struct rusage u;

    (void)getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1e6 +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

static void report(struct lane *lanes, long n_lanes, double seconds, double cpu)
{
    size_t n = 0;
    uint32_t *all = malloc((size_t)n_lanes * SAMPLES_MAX * sizeof *all);

    if (all == NULL)
        die("memory");
    for (long i = 0; i < n_lanes; i++) {
        memcpy(all + n, lanes[i].ns, lanes[i].n * sizeof *all);
        n += lanes[i].n;
    }
    if (n == 0)
        die("nothing ran");
    qsort(all, n, sizeof *all, ascending);
    (void)printf("{\"runs\":%zu,\"seconds\":%.3f,\"rate\":%.1f,\"p50_us\":%.2f,\"cpu_us\":%.2f}\n",
                 n, seconds, (double)n / seconds, all[n / 2] / 1e3, cpu / (double)n);
    free(all);
}

static const char *option(int argc, char **argv, const char *name, const char *otherwise)
{
    for (int i = 1; i + 1 < argc; i += 2)
        if (strcmp(argv[i], name) == 0)
            return argv[i + 1];
    if (otherwise == NULL)
        die(name);
    return otherwise;
}

static void open_lanes(struct lane *lanes, long n, const char *model, double seconds,
                       const struct runtime_input *input)
{
    const char *why = NULL;

    for (long i = 0; i < n; i++) {
        lanes[i] = (struct lane){.runtime = runtime_open(model, &why),
                                 .input = input,
                                 .seconds = seconds,
                                 .ns = malloc(SAMPLES_MAX * sizeof(uint32_t))};
        if (lanes[i].runtime == NULL || lanes[i].ns == NULL)
            die(why ? why : "memory");
    }
}

int main(int argc, char **argv)
{
    struct lane lanes[LANES_MAX];
    int64_t dims[RUNTIME_RANK_MAX];
    const char *dtype = option(argc, argv, "--dtype", "FP32");
    long n = strtol(option(argc, argv, "--lanes", "2"), NULL, 10);
    double seconds = strtod(option(argc, argv, "--seconds", "5"), NULL);
    struct runtime_input in = {.dims = dims,
                               .rank = parse_shape(option(argc, argv, "--shape", NULL), dims),
                               .is_uint8 = strcmp(dtype, "UINT8") == 0};

    in.bytes = in.is_uint8 ? 1 : sizeof(float);
    for (size_t i = 0; i < in.rank; i++)
        in.bytes *= (uint64_t)dims[i];
    in.data = memset(malloc(in.bytes), 0, in.bytes);
    if (n < 1 || n > LANES_MAX)
        die("--lanes");
    open_lanes(lanes, n, option(argc, argv, "--model", NULL), seconds, &in);
    double cpu = cpu_us();
    uint64_t start = xi_now_ns();
    for (long i = 0; i < n; i++)
        if (pthread_create(&lanes[i].thread, NULL, run_lane, &lanes[i]) != 0)
            die("threads");
    for (long i = 0; i < n; i++)
        (void)pthread_join(lanes[i].thread, NULL);
    report(lanes, n, (double)(xi_now_ns() - start) / 1e9, cpu_us() - cpu);
    return 0;
}
