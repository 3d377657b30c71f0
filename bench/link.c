/* link.c: a request of 1 KB through a real host, without HTTP: submit on a libuv loop, the host's
 * lane, the reference engine copying 256 floats, the completion back on the loop. One at a time.
 * And what a record costs in the ring alone.
 *
 *     link HOST_PROGRAM PLUGIN_DIR [ROUNDS]     one line of JSON */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "daemon/ipc/host_link.h"
#include "ipc/ring.h"

enum { FLOATS = 256, WARM = 200 };

struct bench {
    uv_loop_t loop;
    struct xi_shm *shm;
    struct xi_host *host;
    struct xi_slot *slot;
    char dir[32];
    uint64_t *times, rounds, done, started, cpu_ns;
    int bad;
};

static int by_size(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

static uint64_t cpu_ns(int who)
{
    struct rusage u;

    (void)getrusage(who, &u);
    return (uint64_t)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1000000000u +
           (uint64_t)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) * 1000u;
}

static void submit(struct bench *b)
{
    struct xi_part part = {.dtype = XI_DT_FP32, .rank = 2, .dims = {1, FLOATS}};
    struct xi_err err;

    part.mem = (struct xi_mem_ref){.segment = b->slot->segment->id,
                                   .offset = b->slot->offset,
                                   .bytes = FLOATS * sizeof(float)};
    struct xi_work_item item = {.request = {.id = b->done, .want = XI_ANSWER_TENSORS, .n_parts = 1},
                                .parts = &part,
                                .segments = &b->slot->segment};
    b->started = xi_now_ns();
    if (xi_host_submit(b->host, 0, XI_WORK_ALL, XI_CORE_ANY, &item, 1, &err) != XI_OK) {
        (void)fprintf(stderr, "submit: %s\n", err.msg);
        b->bad = 1;
    }
}

static void on_done(void *ctx, struct xi_host *host, uint32_t lane, struct xi_reply *reply)
{
    struct bench *b = ctx;
    uint64_t took = xi_now_ns() - b->started;

    (void)lane;
    b->bad |= reply->done.code != XI_OK ||
              memcmp(xi_reply_data(reply, 0), b->slot->data, FLOATS * sizeof(float)) != 0;
    xi_reply_release(reply);
    if (b->done == WARM)
        b->cpu_ns = cpu_ns(RUSAGE_SELF);
    if (b->done++ >= WARM)
        b->times[b->done - 1 - WARM] = took;
    if (b->bad || b->done == WARM + b->rounds) {
        b->cpu_ns = cpu_ns(RUSAGE_SELF) - b->cpu_ns;
        xi_host_stop(host, 1000, "done");
    } else {
        submit(b);
    }
}

static void on_loaded(void *ctx, struct xi_host *host, const struct xi_msg_loaded *m,
                      struct xi_signature *signature)
{
    (void)host;
    (void)m;
    xi_signature_fini(signature);
    submit(ctx);
}

static void on_failed(void *ctx, struct xi_host *host, uint32_t session, const struct xi_err *err,
                      const char *phase)
{
    (void)session;
    (void)host;
    (void)fprintf(stderr, "%s: %s\n", phase, err->msg);
    ((struct bench *)ctx)->bad = 1;
}

static void on_exited(void *ctx, struct xi_host *host, const struct xi_host_exit *why)
{
    struct bench *b = ctx;

    (void)why;
    xi_host_free(host);
    b->host = NULL;
}

static int write_text(const struct bench *b, const char *name, const char *text)
{
    char path[128];

    (void)snprintf(path, sizeof path, "%s/%s", b->dir, name);
    FILE *f = fopen(path, "w");
    if (f == NULL || fputs(text, f) < 0)
        return -1;
    return fclose(f);
}

static int write_package(struct bench *b)
{
    char path[128];

    (void)snprintf(b->dir, sizeof b->dir, "/tmp/xi-bench-XXXXXX");
    if (mkdtemp(b->dir) == NULL)
        return -1;
    (void)snprintf(path, sizeof path, "%s/variants", b->dir);
    if (mkdir(path, 0755) != 0)
        return -1;
    return write_text(b, "variants/m.xref",
                      "xref 1\ninput x FP32 [1,256]\noutput y FP32 [1,256]\ny = copy x\n") |
           write_text(b, "manifest.json",
                      "{\"xpkg\": 1, \"name\": \"copy\", \"version\": \"1.0.0\","
                      " \"license\": \"MIT\", \"input\": \"tensors\", \"output\": \"tensors\","
                      " \"models\": {\"main\": {\"variants\": [{\"id\": \"f32\","
                      " \"files\": [\"variants/m.xref\"], \"format\": \"reference\","
                      " \"engine\": {\"name\": \"reference\"}, \"precision\": \"f32\"}]}}}");
}

static void remove_package(const struct bench *b)
{
    static const char *const names[] = {"variants/m.xref", "manifest.json", "variants", ""};
    char path[128];

    for (size_t i = 0; i < 4; i++) {
        (void)snprintf(path, sizeof path, "%s/%s", b->dir, names[i]);
        (void)remove(path);
    }
}

/* A record of a small request, in and out of the ring, by one thread. */
static double ring_ns(void)
{
    enum { ROUNDS = 1000000 };
    uint64_t bytes = xi_ring_footprint(256 * 1024);
    void *memory = aligned_alloc(4096, bytes);
    uint8_t record[sizeof(struct xi_work_head) + sizeof(struct xi_work_request) +
                   sizeof(struct xi_part)] = {0};
    struct xi_ring in, out;
    size_t n;

    if (memory == NULL)
        return -1;
    xi_ring_create(memory, 256 * 1024);
    if (xi_ring_attach(&in, memory, bytes, NULL) != XI_OK ||
        xi_ring_attach(&out, memory, bytes, NULL) != XI_OK)
        return -1;
    uint64_t started = xi_now_ns();
    for (int i = 0; i < ROUNDS; i++)
        if (xi_ring_push(&in, record, sizeof record) != XI_OK ||
            xi_ring_pop(&out, record, sizeof record, &n) != XI_OK)
            return -1;
    double each = (double)(xi_now_ns() - started) / ROUNDS;
    free(memory);
    return each;
}

static int run(struct bench *b, const char *program, const char *plugins)
{
    struct xi_host_spec spec = {.program = program,
                                .label = "bench",
                                .plugin_dir = plugins,
                                .engine = "reference",
                                .link_dir = b->dir,
                                .sandbox = 1};
    struct xi_host_events events = {
        .ctx = b, .loaded = on_loaded, .failed = on_failed, .done = on_done, .exited = on_exited};
    struct xi_msg_load load = {.session = 1, .lane_count = 1, .threads = 1, .max_batch = 1};
    struct xi_err err;

    if (xi_host_start(&b->loop, b->shm, &spec, &events, &b->host, &err) != XI_OK ||
        xi_host_load(b->host, &load, 0, &err) != XI_OK) {
        (void)fprintf(stderr, "%s\n", err.msg);
        return 1;
    }
    (void)uv_run(&b->loop, UV_RUN_DEFAULT);
    return b->bad || b->done != WARM + b->rounds;
}

int main(int argc, char **argv)
{
    struct bench b = {.rounds = argc > 3 ? strtoul(argv[3], NULL, 10) : 20000};

    if (argc < 3 || b.rounds < 1 || b.rounds > 10000000 || write_package(&b) != 0)
        return 2;
    b.times = calloc(b.rounds, sizeof *b.times);
    b.shm = xi_shm_new(64 * XI_MIB);
    if (b.times == NULL || b.shm == NULL || uv_loop_init(&b.loop) != 0 ||
        xi_shm_take(b.shm, "bench", FLOATS * sizeof(float), &b.slot, NULL) != XI_OK)
        return 2;
    for (int i = 0; i < FLOATS; i++)
        ((float *)b.slot->data)[i] = (float)i;
    int rc = run(&b, argv[1], argv[2]);
    remove_package(&b);
    xi_slot_put(b.slot);
    (void)uv_loop_close(&b.loop);
    xi_shm_free(b.shm);
    if (rc != 0)
        return 1;
    qsort(b.times, b.rounds, sizeof *b.times, by_size);
    (void)printf("{\"bench\": \"link\", \"rounds\": %llu, \"p50_us\": %.2f, \"p99_us\": %.2f, "
                 "\"daemon_cpu_us\": %.2f, \"host_cpu_us\": %.2f, \"ring_ns\": %.0f}\n",
                 (unsigned long long)b.rounds, (double)b.times[b.rounds / 2] / 1000,
                 (double)b.times[b.rounds * 99 / 100] / 1000,
                 (double)b.cpu_ns / 1000 / (double)b.rounds,
                 (double)cpu_ns(RUSAGE_CHILDREN) / 1000 / (double)(b.rounds + WARM), ring_ns());
    free(b.times);
    return 0;
}
