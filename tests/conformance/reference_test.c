/* reference_test.c: what only the reference engine does: its text format, its arithmetic, and its
 * faults, each of which must really happen.   reference_test PLUGIN */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "xinfer/engine.h"

#define HEAD "xref 1\ninput x FP32 [2,3]\n"

struct kit {
    const struct xi_engine_table *api;
    struct xi_engine *engine;
    char err[192];
};

static int try_load(struct kit *k, const char *text, size_t bytes, struct xi_engine_model **ret)
{
    struct xi_engine_source source = {
        .size = sizeof(source), .fd = -1, .data = text, .bytes = bytes, .format = "reference"};

    k->err[0] = '\0';
    return k->api->load(k->engine, &source, NULL, ret, k->err, sizeof(k->err));
}

/* One model, one request, the input bound. */
struct session {
    struct kit *k;
    struct xi_engine_model *model;
    struct xi_engine_request *request;
    float x[6];
};

static void session_open(struct kit *k, const char *text, struct session *ret)
{
    struct xi_tensor t = {
        .size = sizeof(t), .dtype = XI_DT_FP32, .rank = 2, .dims = {2, 3}, .fd = -1, .bytes = 24};

    *ret = (struct session){.k = k, .x = {1, 2, 3, 4, 5, 6}};
    if (try_load(k, text, strlen(text), &ret->model) != XI_ENGINE_OK)
        fail_msg("%s", k->err);
    assert_int_equal(k->api->request_new(ret->model, &ret->request, k->err, sizeof(k->err)), 0);
    t.data = ret->x;
    assert_int_equal(k->api->bind(ret->request, XI_INPUT, 0, &t, k->err, sizeof(k->err)),
                     XI_BIND_IN_PLACE);
}

static int session_run(struct session *s)
{
    return s->k->api->run(s->request, 0, s->k->err, sizeof(s->k->err));
}

static struct xi_tensor session_output(struct session *s)
{
    struct xi_tensor t = {.size = sizeof(t)};

    assert_int_equal(s->k->api->output(s->request, 0, &t, s->k->err, sizeof(s->k->err)), 0);
    return t;
}

static void session_close(struct session *s)
{
    s->k->api->request_free(s->request);
    s->k->api->unload(s->model);
}

/* ---- the format ---- */

static void refuses_bad_text(void **state)
{
    static const struct {
        const char *text, *says;
    } cases[] = {
        {"", "no output"},
        {"xref 2\n", "first line"},
        {"xref 1x\n", "first line"},
        {HEAD, "no output"},
        {HEAD "output y FP32 [2,3]\n", "nothing computes output \"y\""},
        {HEAD "input x FP32 [2]\n", "there already"},
        {HEAD "input 7 FP32 [2]\n", "not a name"},
        {HEAD "input z FLOAT [2]\n", "not a dtype"},
        {HEAD "input z FP32 [2,]\n", "not a shape"},
        {HEAD "input z FP32 [-2]\n", "not a shape"},
        {HEAD "input z FP32 2\n", "not a shape"},
        {HEAD "input z FP32 [1,1,1,1,1,1,1,1,1]\n", "at most 8"},
        {HEAD "input z FP32 [1000000,1000000]\n", "larger than"},
        {HEAD "input z FP32 [99999999999999999999]\n", "not a shape"},
        {HEAD "input z FP32\n", "needs NAME DTYPE SHAPE"},
        {HEAD "const c FP32 [2] 1\n", "1 numbers given, 2 wanted"},
        {HEAD "const c FP32 [2] 1 2 3\n", "more than 2 numbers"},
        {HEAD "const c FP32 [2] 1 b\n", "not a number"},
        {HEAD "const c FP32 [-1] 1\n", "must be fixed"},
        {HEAD "const c INT64 [1] 1\n", "constants are FP32"},
        {HEAD "const c FP32 [67108864] iota\nconst d FP32 [1] 1\n", "constants are larger"},
        {HEAD "y = relu x\ny = relu x\n", "has a value already"},
        {HEAD "x = relu x\n", "has a value already"},
        {HEAD "y = relu z\n", "no value yet"},
        {HEAD "output y FP32 [2,3]\ny = relu y\n", "no value yet"},
        {HEAD "y = nosuch x\n", "no operation"},
        {HEAD "y = add x\n", "takes 2 arguments"},
        {HEAD "y = relu x x\n", "too much"},
        {HEAD "hello\n", "begins no statement"},
        {HEAD "output y FP32 [3,2]\ny = relu x\n", "not what \"y\" was declared as"},
        {HEAD "output y INT64 [2,3]\ny = relu x\n", "not what \"y\" was declared as"},
        {HEAD "const w FP32 [2,2] fill 1\ny = matmul x w\n", "inner sizes 3 and 2 differ"},
        {HEAD "const w FP32 [2] 1 2\ny = add x w\n", "shapes differ"},
        {HEAD "input i INT64 [2]\ny = relu i\n", "takes FP32, not INT64"},
        {HEAD "y = tile x x\n", "literal number"},
        {HEAD "y = tile x 0\n", "repeats 1 to"},
        {HEAD "y = sum 3\n", "last dimension"},
        {HEAD "fault nosuch\n", "no fault"},
        {HEAD "fault delay-ms\n", "can't take"},
        {HEAD "fault delay-ms -1\n", "can't take"},
        {HEAD "cost-us 5\n", "two numbers"},
        {HEAD "spin-us 5 -1\n", "two numbers"},
        {HEAD "cost-us 1 2 3\n", "too much"},
        {HEAD "fault fail oops\n", "can't take"},
        {HEAD "fault hang at 0\n", "after a fault come"},
        {HEAD "fault hang now\n", "after a fault come"},
    };
    struct kit *k = *state;

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct xi_engine_model *m = NULL;
        int rc = try_load(k, cases[i].text, strlen(cases[i].text), &m);
        if (rc != XI_ENGINE_UNSUPPORTED || m != NULL || strstr(k->err, cases[i].says) == NULL)
            fail_msg("case %zu: %d \"%s\", wanted \"%s\"", i, rc, k->err, cases[i].says);
    }
}

static void refuses_a_zero_byte(void **state)
{
    static const char text[] = "xref 1\ninput x FP32 [1]\0\noutput y FP32 [1]\ny = copy x\n";
    struct kit *k = *state;
    struct xi_engine_model *m = NULL;

    assert_int_equal(try_load(k, text, sizeof(text) - 1, &m), XI_ENGINE_UNSUPPORTED);
    assert_non_null(strstr(k->err, "line 2: a zero byte"));
}

/* Each cap is met by one more than it allows. */
static void keeps_its_caps(void **state)
{
    static const struct {
        const char *line, *says;
        int n;
    } cases[] = {
        {"input i%d FP32 [1]\n", "more than 64 inputs", 65},
        {"t%d = relu x\n", "more than 256 operations", 257},
        {"const c%d FP32 [1] 1\n", "more than 512 values", 513},
        {"fault hang at %d\n", "more than 16 faults", 17},
    };
    struct kit *k = *state;
    enum { TEXT_MAX = 64 * 1024 };
    char *text = malloc(TEXT_MAX);

    assert_non_null(text);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct xi_engine_model *m = NULL;
        size_t used = (size_t)snprintf(text, TEXT_MAX, "xref 1\ninput x FP32 [1]\n");
        for (int n = 1; n <= cases[i].n; n++) {
            const char *hole = strchr(cases[i].line, '%');
            used += (size_t)snprintf(text + used, TEXT_MAX - used, "%.*s%d%s",
                                     (int)(hole - cases[i].line), cases[i].line, n, hole + 2);
        }
        assert_int_equal(try_load(k, text, used, &m), XI_ENGINE_UNSUPPORTED);
        if (strstr(k->err, cases[i].says) == NULL)
            fail_msg("\"%s\", wanted \"%s\"", k->err, cases[i].says);
    }
    free(text);
}

/* Any change of one byte is refused or runs; it never breaks the process (ASan watches). */
static void survives_changed_bytes(void **state)
{
    static const char text[] = "xref 1\ninput x FP32 [2,3] # c\noutput y FP32 [2,2]\n"
                               "const w FP32 [3,2] 1 2 3 4 5 6\nt = matmul x w\ny = add t -1e3\n"
                               "fault wrong at 3 when 2\n";
    struct kit *k = *state;
    uint32_t seed = 7;
    int refused = 0;

    for (int i = 0; i < 20000; i++) {
        char changed[sizeof(text)];
        struct xi_engine_model *m = NULL;
        memcpy(changed, text, sizeof(text));
        seed = seed * 1664525u + 1013904223u;
        changed[(seed >> 8) % (sizeof(text) - 1)] = (char)(seed >> 24);
        if (try_load(k, changed, sizeof(text) - 1, &m) == XI_ENGINE_OK)
            k->api->unload(m);
        else
            refused++;
    }
    assert_in_range(refused, 10000, 19999);
}

/* ---- arithmetic: expectations worked out by hand for x = [[1,2,3],[4,5,6]] ---- */

struct sum {
    const char *lines;
    int rank;
    int64_t dims[2];
    float want[12];
};

static void computes(void **state)
{
    static const float e1 = 0.26894142f, e2 = 0.73105858f; /* 1/(1+e), e/(1+e) */
    const struct sum sums[] = {
        {"output y FP32 [2,3]\nt = sub x 3\ny = relu t\n", 2, {2, 3}, {0, 0, 0, 1, 2, 3}},
        {"output y FP32 [2,3]\nconst b FP32 [3] 10 20 30\ny = add x b\n",
         2,
         {2, 3},
         {11, 22, 33, 14, 25, 36}},
        {"output y FP32 [2,3]\ny = mul x x\n", 2, {2, 3}, {1, 4, 9, 16, 25, 36}},
        {"output y FP32 [2]\ny = sum x\n", 1, {2}, {6, 15}},
        {"output y FP32 [2]\ny = mean x\n", 1, {2}, {2, 5}},
        {"output y FP32 [2]\ny = max x\n", 1, {2}, {3, 6}},
        {"output y FP32 [2,2]\nconst w FP32 [3,2] 1 0 0 1 2 -1\ny = matmul x w\n",
         2,
         {2, 2},
         {7, -1, 16, -1}},
        {"output y FP32 [2,6]\nt = mul x -1\ny = concat x t\n",
         2,
         {2, 6},
         {1, 2, 3, -1, -2, -3, 4, 5, 6, -4, -5, -6}},
        {"output y FP32 [2,6]\ny = tile x 2\n", 2, {2, 6}, {1, 2, 3, 1, 2, 3, 4, 5, 6, 4, 5, 6}},
        {"output y FP32 [2,2]\nconst w FP32 [3,2] iota\nt = matmul x w\nm = mul t 0\n"
         "const c FP32 [2] 0 1\nn = add m c\ny = softmax n\n",
         2,
         {2, 2},
         {e1, e2, e1, e2}},
        {"output y FP32 [2,3]\nt = mul x 0\nconst c FP32 [3] -1 0 1\nu = add t c\n"
         "y = sigmoid u\n",
         2,
         {2, 3},
         {e1, 0.5f, e2, e1, 0.5f, e2}},
    };
    struct kit *k = *state;

    for (size_t i = 0; i < sizeof(sums) / sizeof(sums[0]); i++) {
        struct session s;
        struct xi_tensor y;
        char text[512];
        snprintf(text, sizeof(text), HEAD "%s", sums[i].lines);
        session_open(k, text, &s);
        assert_int_equal(session_run(&s), XI_ENGINE_OK);
        y = session_output(&s);
        assert_int_equal(y.rank, sums[i].rank);
        for (int d = 0; d < y.rank; d++)
            assert_int_equal(y.dims[d], sums[i].dims[d]);
        for (size_t n = 0; n < y.bytes / 4; n++)
            if (fabsf(((float *)y.data)[n] - sums[i].want[n]) > 1e-6f)
                fail_msg("sum %zu, element %zu: %f", i, n, (double)((float *)y.data)[n]);
        session_close(&s);
    }
}

static void argmax_takes_the_first_of_equals(void **state)
{
    struct kit *k = *state;
    struct session s;
    struct xi_tensor y;

    session_open(k, HEAD "output y INT64 [2]\ny = argmax x\n", &s);
    s.x[0] = 3.0f; /* [3,2,3] and [4,5,6] */
    assert_int_equal(session_run(&s), XI_ENGINE_OK);
    y = session_output(&s);
    assert_int_equal(((int64_t *)y.data)[0], 0);
    assert_int_equal(((int64_t *)y.data)[1], 2);
    session_close(&s);
}

/* ---- faults ---- */

#define COPY HEAD "output y FP32 [2,3]\ny = copy x\n"

static void fails_at_and_from(void **state)
{
    struct kit *k = *state;
    struct session s;

    session_open(k, COPY "fault fail busy at 2\nfault fail device-lost from 4\n", &s);
    assert_int_equal(session_run(&s), XI_ENGINE_OK);
    assert_int_equal(session_run(&s), XI_ENGINE_BUSY);
    assert_int_equal(session_run(&s), XI_ENGINE_OK);
    assert_int_equal(session_run(&s), XI_ENGINE_DEVICE_LOST);
    assert_int_equal(session_run(&s), XI_ENGINE_DEVICE_LOST);
    session_close(&s);
}

static void spoils_when_asked_by_the_input(void **state)
{
    struct kit *k = *state;
    struct session s;

    session_open(k, COPY "fault wrong when 666\n", &s);
    assert_int_equal(session_run(&s), XI_ENGINE_OK);
    assert_true(((float *)session_output(&s).data)[0] == 1.0f);
    s.x[0] = 666.0f;
    assert_int_equal(session_run(&s), XI_ENGINE_OK);
    assert_true(((float *)session_output(&s).data)[0] == 667.0f);
    s.x[0] = 1.0f;
    s.x[3] = 666.0f; /* the second row of a batch */
    assert_int_equal(session_run(&s), XI_ENGINE_OK);
    assert_true(((float *)session_output(&s).data)[0] == 2.0f);
    s.x[3] = 4.0f;
    s.x[1] = 666.0f; /* no row begins with it */
    assert_int_equal(session_run(&s), XI_ENGINE_OK);
    assert_true(((float *)session_output(&s).data)[0] == 1.0f);
    session_close(&s);
}

static double now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static double cpu_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static void delays_and_spins(void **state)
{
    struct kit *k = *state;
    struct session s;
    double wall = now_ms(), cpu = cpu_ms();

    session_open(
        k, COPY "fault load_delay_ms 50\nfault delay_ms 100 at 1\nfault spin-ms 100 at 2\n", &s);
    assert_true(now_ms() - wall >= 49.0);
    assert_int_equal(session_run(&s), XI_ENGINE_OK);
    assert_true(now_ms() - wall >= 149.0);
    assert_true(cpu_ms() - cpu < 80.0);
    assert_int_equal(session_run(&s), XI_ENGINE_OK);
    assert_true(now_ms() - wall >= 249.0);
    assert_true(cpu_ms() - cpu > 20.0); /* the machine may be busy, so not 100 */
    session_close(&s);
}

static void *cancel_soon(void *arg)
{
    struct session *s = arg;

    usleep(50000);
    s->k->api->cancel(s->request);
    return NULL;
}

/* A run of two rows pays for both; asleep it takes no core. */
static void runs_cost_what_they_say(void **state)
{
    static const char *const costs[] = {COPY "cost-us 20000 15000\n", COPY "spin-us 20000 15000\n"};
    struct kit *k = *state;

    for (int i = 0; i < 2; i++) {
        struct session s;
        session_open(k, costs[i], &s);
        double start = now_ms(), cpu = cpu_ms();
        assert_int_equal(session_run(&s), XI_ENGINE_OK);
        double took = now_ms() - start, busy = cpu_ms() - cpu;
        assert_true(took >= 49.0);
        assert_true(i == 0 ? busy < took / 2 : busy > 10.0); /* the machine may be busy */
        session_close(&s);
    }
}

static void claims_memory_it_does_not_hold(void **state)
{
    struct xi_engine_stats none = {.size = sizeof(none)}, all = {.size = sizeof(all)};
    struct kit *k = *state;
    struct session s;

    session_open(k, COPY, &s);
    assert_int_equal(k->api->stats(s.model, &none), XI_ENGINE_OK);
    session_close(&s);
    session_open(k, COPY "fault claim 1000000000000\n", &s);
    assert_int_equal(k->api->stats(s.model, &all), XI_ENGINE_OK);
    assert_true(all.bytes_held - none.bytes_held == 1000000000000u);
    session_close(&s);
}

static void cancels_a_delay(void **state)
{
    struct kit *k = *state;
    struct session s;
    pthread_t thread;
    double start = now_ms();

    session_open(k, COPY "fault delay-ms 60000 at 1\n", &s);
    assert_int_equal(pthread_create(&thread, NULL, cancel_soon, &s), 0);
    assert_int_equal(session_run(&s), XI_ENGINE_BUSY);
    pthread_join(thread, NULL);
    assert_true(now_ms() - start < 10000.0);
    assert_int_equal(session_run(&s), XI_ENGINE_OK);
    session_close(&s);
}

static void refuses_and_holds_at_load(void **state)
{
    struct kit *k = *state;
    struct xi_engine_stats stats = {.size = sizeof(stats)};
    struct xi_engine_model *m = NULL;
    const char *text = COPY "fault load-fail no-memory\n";
    struct session s;

    assert_int_equal(try_load(k, text, strlen(text), &m), XI_ENGINE_NO_MEMORY);
    assert_null(m);
    session_open(k, COPY "fault hold 1048576\n", &s);
    assert_int_equal(k->api->stats(s.model, &stats), XI_ENGINE_OK);
    assert_in_range(stats.bytes_held, 1 << 20, 2 << 20);
    session_close(&s);
}

/* Runs the model in a child. Returns waitpid's status; -1 when it had to be killed. */
static int status_of(struct kit *k, const char *text, int *ret_stopped)
{
    pid_t pid = fork();
    int status = 0;

    assert_true(pid >= 0);
    if (pid == 0) {
        struct session s;
        signal(SIGABRT, SIG_DFL);
        signal(SIGSEGV, SIG_DFL);
        (void)!freopen("/dev/null", "w", stderr);
        session_open(k, text, &s);
        _exit(session_run(&s) == XI_ENGINE_OK ? 42 : 43);
    }
    for (int waited = 0; waited < 100; waited++) {
        if (waitpid(pid, &status, WNOHANG | WUNTRACED) == pid) {
            *ret_stopped = WIFSTOPPED(status);
            if (!*ret_stopped)
                return status;
            break;
        }
        usleep(10000);
    }
    kill(pid, SIGKILL);
    waitpid(pid, &status, 0);
    return -1;
}

static void crashes_hangs_and_stops(void **state)
{
    struct kit *k = *state;
    int stopped = 0, status;

    status = status_of(k, COPY, &stopped);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 42);
    status = status_of(k, COPY "fault crash exit0\n", &stopped);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    status = status_of(k, COPY "fault crash abort\n", &stopped);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    status = status_of(k, COPY "fault load-crash abort\n", &stopped);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
#if !defined(__SANITIZE_ADDRESS__) /* which turns these two into an exit of its own */
    status = status_of(k, COPY "fault crash segv\n", &stopped);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
    status = status_of(k, COPY "fault crash double-free\n", &stopped);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
#endif
    assert_int_equal(status_of(k, COPY "fault hang\n", &stopped), -1);
    assert_int_equal(stopped, 0);
    assert_int_equal(status_of(k, COPY "fault load-hang\n", &stopped), -1);
    assert_int_equal(stopped, 0);
    assert_int_equal(status_of(k, COPY "fault stop\n", &stopped), -1);
    assert_int_equal(stopped, 1);
}

static long field_of_status(const char *name)
{
    char line[256];
    long value = -1;
    FILE *f = fopen("/proc/self/status", "r");

    assert_non_null(f);
    while (fgets(line, sizeof(line), f) != NULL)
        if (strncmp(line, name, strlen(name)) == 0)
            value = strtol(line + strlen(name) + 1, NULL, 10);
    fclose(f);
    return value;
}

static void leaks_memory_threads_and_fds(void **state)
{
    struct kit *k = *state;
    long threads = field_of_status("Threads"), kib = field_of_status("VmRSS");
    struct session s;
    int before = dup(0), after;

    close(before);
    session_open(k, COPY "fault leak 33554432 at 1\nfault threads 3 at 1\nfault fds 5 at 1\n", &s);
    assert_int_equal(session_run(&s), XI_ENGINE_OK);
    assert_int_equal(field_of_status("Threads"), threads + 3);
#if defined(__SANITIZE_ADDRESS__)
    (void)kib; /* freed memory still counts there, and is used again */
#else
    assert_true(field_of_status("VmRSS") - kib > 30 * 1024);
#endif
    after = dup(0);
    close(after);
    assert_int_equal(after, before + 5);
    session_close(&s);
}

static void prints(void **state)
{
    struct kit *k = *state;
    struct session s;
    int fds[2], keep = dup(1);
    char text[16384];
    ssize_t n;

    assert_int_equal(pipe(fds), 0);
    session_open(k, COPY "fault print 10000\n", &s);
    fflush(stdout);
    dup2(fds[1], 1);
    close(fds[1]);
    (void)session_run(&s);
    dup2(keep, 1);
    close(keep);
    for (n = 0; n < (ssize_t)sizeof(text);) {
        ssize_t part = read(fds[0], text + n, sizeof(text) - (size_t)n);
        if (part <= 0)
            break;
        n += part;
    }
    close(fds[0]);
    assert_int_equal(n, 10000);
    session_close(&s);
}

int main(int argc, char **argv)
{
    struct kit kit = {.api = NULL};
    void *handle = argc == 2 ? dlopen(argv[1], RTLD_NOW | RTLD_LOCAL) : NULL, *symbol;
    xi_engine_entry_fn entry;

    if (handle == NULL || (symbol = dlsym(handle, XI_ENGINE_ENTRY)) == NULL) {
        fprintf(stderr, "usage: reference_test PLUGIN (%s)\n", argc == 2 ? dlerror() : "");
        return 2;
    }
    memcpy(&entry, &symbol, sizeof(symbol));
    kit.api = entry(XI_ENGINE_MAJOR, XI_ENGINE_MINOR);
    if (kit.api == NULL ||
        kit.api->open(NULL, &kit.engine, kit.err, sizeof(kit.err)) != XI_ENGINE_OK)
        return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(refuses_bad_text, &kit),
        cmocka_unit_test_prestate(refuses_a_zero_byte, &kit),
        cmocka_unit_test_prestate(keeps_its_caps, &kit),
        cmocka_unit_test_prestate(survives_changed_bytes, &kit),
        cmocka_unit_test_prestate(computes, &kit),
        cmocka_unit_test_prestate(argmax_takes_the_first_of_equals, &kit),
        cmocka_unit_test_prestate(fails_at_and_from, &kit),
        cmocka_unit_test_prestate(spoils_when_asked_by_the_input, &kit),
        cmocka_unit_test_prestate(delays_and_spins, &kit),
        cmocka_unit_test_prestate(runs_cost_what_they_say, &kit),
        cmocka_unit_test_prestate(claims_memory_it_does_not_hold, &kit),
        cmocka_unit_test_prestate(cancels_a_delay, &kit),
        cmocka_unit_test_prestate(refuses_and_holds_at_load, &kit),
        cmocka_unit_test_prestate(crashes_hangs_and_stops, &kit),
        cmocka_unit_test_prestate(prints, &kit),
        cmocka_unit_test_prestate(leaks_memory_threads_and_fds, &kit), /* last: it leaks */
    };
    int failed = cmocka_run_group_tests_name("reference", tests, NULL, NULL);
    kit.api->close(kit.engine);
    return failed;
}
