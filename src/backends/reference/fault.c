/* fault.c: trouble on request. Vendor engines crash, hang, leak and lie; these knobs let a test
 * ask for each of that at a known moment. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "xref.h"

enum crash_how { CRASH_SEGV, CRASH_ABORT, CRASH_EXIT0, CRASH_DOUBLE_FREE };

enum value_kind { NO_VALUE, NUMBER, CODE, HOW };

static const struct {
    const char *name;
    enum xref_fault_kind kind;
    enum value_kind value;
    int64_t max;
} knobs[] = {
    {"delay-ms", XREF_DELAY_MS, NUMBER, 3600000},
    {"spin-ms", XREF_SPIN_MS, NUMBER, 3600000},
    {"crash", XREF_CRASH, HOW, 0},
    {"hang", XREF_HANG, NO_VALUE, 0},
    {"stop", XREF_STOP, NO_VALUE, 0},
    {"leak", XREF_LEAK, NUMBER, (int64_t)1 << 36},
    {"exhaust", XREF_EXHAUST, NUMBER, (int64_t)1 << 36},
    {"fail", XREF_FAIL, CODE, 0},
    {"wrong", XREF_WRONG, NO_VALUE, 0},
    {"print", XREF_PRINT, NUMBER, (int64_t)1 << 36},
    {"threads", XREF_THREADS, NUMBER, 100000},
    {"fds", XREF_FDS, NUMBER, 100000},
    {"load-delay-ms", XREF_LOAD_DELAY_MS, NUMBER, 3600000},
    {"load-fail", XREF_LOAD_FAIL, CODE, 0},
    {"load-crash", XREF_LOAD_CRASH, HOW, 0},
    {"load-hang", XREF_LOAD_HANG, NO_VALUE, 0},
    {"hold", XREF_HOLD, NUMBER, (int64_t)1 << 36},
    {"claim", XREF_CLAIM, NUMBER, (int64_t)1 << 40},
};

static const char *const how_names[] = {
    [CRASH_SEGV] = "segv",
    [CRASH_ABORT] = "abort",
    [CRASH_EXIT0] = "exit0",
    [CRASH_DOUBLE_FREE] = "double-free",
};

static const struct {
    const char *name;
    int code;
} code_names[] = {
    {"not-present", XI_ENGINE_NOT_PRESENT},
    {"unsupported", XI_ENGINE_UNSUPPORTED},
    {"bad-input", XI_ENGINE_BAD_INPUT},
    {"no-memory", XI_ENGINE_NO_MEMORY},
    {"busy", XI_ENGINE_BUSY},
    {"device-lost", XI_ENGINE_DEVICE_LOST},
    {"timeout", XI_ENGINE_TIMEOUT},
    {"internal", XI_ENGINE_INTERNAL},
};

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

/* "delay_ms" and "delay-ms" are the same knob. */
static size_t find_knob(const char *name)
{
    for (size_t i = 0; i < COUNT(knobs); i++) {
        const char *a = knobs[i].name, *b = name;
        while (*a != '\0' && (*a == *b || (*a == '-' && *b == '_')))
            a++, b++;
        if (*a == '\0' && *b == '\0')
            return i;
    }
    return COUNT(knobs);
}

int xref_fault_takes_value(const char *name)
{
    size_t i = find_knob(name);

    return i == COUNT(knobs) ? -1 : knobs[i].value != NO_VALUE;
}

static int parse_number(const char *value, int64_t max, int64_t *ret)
{
    char *end;
    long long n;

    errno = 0;
    n = strtoll(value, &end, 10);
    if (errno != 0 || end == value || *end != '\0' || n < 0 || n > max)
        return -1;
    *ret = n;
    return 0;
}

int xref_fault_parse(const char *name, const char *value, struct xref_fault *ret)
{
    size_t i = find_knob(name);

    if (i == COUNT(knobs))
        return -1;
    ret->kind = knobs[i].kind;
    ret->amount = 0;
    switch (knobs[i].value) {
    case NO_VALUE:
        return 0;
    case NUMBER:
        return parse_number(value, knobs[i].max, &ret->amount);
    case CODE:
        for (size_t k = 0; k < COUNT(code_names); k++)
            if (strcmp(code_names[k].name, value) == 0) {
                ret->amount = code_names[k].code;
                return 0;
            }
        return -1;
    case HOW:
        for (size_t k = 0; k < COUNT(how_names); k++)
            if (strcmp(how_names[k], value) == 0) {
                ret->amount = (int64_t)k;
                return 0;
            }
        return -1;
    }
    return -1;
}

/* ---- the troubles ---- */

static uint64_t now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static void sleep_ms(long ms)
{
    struct timespec t = {ms / 1000, ms % 1000 * 1000000};

    while (nanosleep(&t, &t) != 0 && errno == EINTR)
        ;
}

/* In steps, so that cancel works. 0, or -1 when cancelled. */
static int delay(int64_t ms, atomic_int *cancelled)
{
    uint64_t end = now_ms() + (uint64_t)ms, now;

    while ((now = now_ms()) < end) {
        if (cancelled != NULL && atomic_load(cancelled))
            return -1;
        sleep_ms(end - now > 5 ? 5 : (long)(end - now));
    }
    return 0;
}

static void spin(int64_t ms)
{
    uint64_t end = now_ms() + (uint64_t)ms;

    while (now_ms() < end)
        ;
}

static void crash(enum crash_how how)
{
    volatile uintptr_t nowhere = 8; /* volatile: or the compiler sees it and does otherwise */
    void *volatile block;

    switch (how) {
    case CRASH_SEGV:
        *(volatile int *)nowhere = 1;
        break;
    case CRASH_ABORT:
        abort();
    case CRASH_EXIT0:
        _exit(0);
    case CRASH_DOUBLE_FREE:
        block = malloc(64);
        free(block);
        free(block);
        break;
    }
    abort(); /* a crash that did nothing would be a broken test */
}

static void hang(void)
{
    for (;;)
        pause();
}

/* Memory counts once it is touched, and a compiler leaves out stores that nobody reads. */
static void touch(void *block, int64_t bytes)
{
    volatile unsigned char *p = block;

    for (int64_t i = 0; i < bytes; i += 4096)
        p[i] = 0x5a;
}

/* The pointer is dropped on purpose. */
static void leak(int64_t bytes)
{
    void *volatile lost = malloc((size_t)bytes);

    if (lost != NULL)
        touch(lost, bytes);
}

/* 0 when not even so much exhausts this process. What was had stays lost. */
static int exhaust(int64_t bytes)
{
    const int64_t step = 1 << 20;

    for (; bytes > 0; bytes -= step) {
        void *volatile lost = malloc((size_t)step);
        if (lost == NULL)
            return 1;
        touch(lost, step);
    }
    return 0;
}

static void print(int64_t bytes)
{
    char block[4096];

    memset(block, 'x', sizeof(block));
    block[sizeof(block) - 1] = '\n';
    while (bytes > 0) {
        size_t part = bytes < (int64_t)sizeof(block) ? (size_t)bytes : sizeof(block);
        ssize_t n = write(STDOUT_FILENO, block, part);
        if (n <= 0)
            return;
        bytes -= n;
    }
}

static void *sleeper(void *arg)
{
    hang();
    return arg;
}

static void leak_threads(int64_t n)
{
    pthread_t thread;

    for (int64_t i = 0; i < n; i++)
        if (pthread_create(&thread, NULL, sleeper, NULL) != 0 || pthread_detach(thread) != 0)
            return;
}

static void leak_fds(int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        if (dup(STDERR_FILENO) < 0)
            return;
}

/* ---- when ---- */

/* Does any row, a request of a batch, begin with it? */
static int begins_with(const struct xi_tensor *t, float when)
{
    size_t rows, row_bytes;

    if (t == NULL || t->data == NULL || t->bytes == 0)
        return 0;
    if (t->dtype != XI_DT_FP32)
        return (float)*(const unsigned char *)t->data == when;
    rows = t->rank > 1 && t->dims[0] > 0 ? (size_t)t->dims[0] : 1;
    row_bytes = t->bytes / rows;
    for (size_t i = 0; i < rows; i++)
        if (*(const float *)(const void *)((const char *)t->data + i * row_bytes) == when)
            return 1;
    return 0;
}

static int due(const struct xref_fault *f, uint64_t run, const struct xi_tensor *first)
{
    return (f->at == 0 || run == f->at) && run >= f->from &&
           (!f->has_when || begins_with(first, f->when));
}

static int trouble(const struct xref_fault *f, uint64_t run, atomic_int *cancelled,
                   const struct xref_err *err)
{
    switch (f->kind) {
    case XREF_DELAY_MS:
        if (delay(f->amount, cancelled) != 0)
            return xref_fail(err, XI_ENGINE_BUSY, "run %llu was cancelled",
                             (unsigned long long)run);
        break;
    case XREF_SPIN_MS:
        spin(f->amount);
        break;
    case XREF_CRASH:
        crash((enum crash_how)f->amount);
        break;
    case XREF_HANG:
        hang();
        break;
    case XREF_STOP:
        raise(SIGSTOP);
        break;
    case XREF_LEAK:
        leak(f->amount);
        break;
    case XREF_EXHAUST:
        if (exhaust(f->amount))
            return xref_fail(err, XI_ENGINE_NO_MEMORY, "run %llu found no more memory",
                             (unsigned long long)run);
        break;
    case XREF_FAIL:
        return xref_fail(err, (int)f->amount, "the model's fault knob fails run %llu",
                         (unsigned long long)run);
    case XREF_PRINT:
        print(f->amount);
        break;
    case XREF_THREADS:
        leak_threads(f->amount);
        break;
    case XREF_FDS:
        leak_fds(f->amount);
        break;
    default: /* those of load, and WRONG, have their own time */
        break;
    }
    return XI_ENGINE_OK;
}

int xref_faults_at_run(const struct xref_program *p, uint64_t run, const struct xi_tensor *first,
                       atomic_int *cancelled, const struct xref_err *err)
{
    for (uint32_t i = 0; i < p->n_faults; i++) {
        int rc;
        if (!due(&p->faults[i], run, first))
            continue;
        rc = trouble(&p->faults[i], run, cancelled, err);
        if (rc != XI_ENGINE_OK)
            return rc;
    }
    return XI_ENGINE_OK;
}

int xref_fault_is_wrong(const struct xref_program *p, uint64_t run, const struct xi_tensor *first)
{
    for (uint32_t i = 0; i < p->n_faults; i++)
        if (p->faults[i].kind == XREF_WRONG && due(&p->faults[i], run, first))
            return 1;
    return 0;
}

static int hold(int64_t bytes, void **ret_held, uint64_t *ret_bytes, const struct xref_err *err)
{
    void *held;

    if (*ret_held != NULL)
        return xref_fail(err, XI_ENGINE_UNSUPPORTED, "a model has at most one \"fault hold\"");
    held = malloc(bytes > 0 ? (size_t)bytes : 1);
    if (held == NULL)
        return xref_fail(err, XI_ENGINE_NO_MEMORY, "no memory for the %lld bytes the model holds",
                         (long long)bytes);
    touch(held, bytes);
    *ret_held = held;
    *ret_bytes = (uint64_t)bytes;
    return XI_ENGINE_OK;
}

int xref_faults_at_load(const struct xref_program *p, void **ret_held, uint64_t *ret_bytes,
                        const struct xref_err *err)
{
    int rc = XI_ENGINE_OK;

    for (uint32_t i = 0; i < p->n_faults && rc == XI_ENGINE_OK; i++) {
        const struct xref_fault *f = &p->faults[i];
        if (f->kind == XREF_LOAD_DELAY_MS)
            (void)delay(f->amount, NULL);
        else if (f->kind == XREF_LOAD_CRASH)
            crash((enum crash_how)f->amount);
        else if (f->kind == XREF_LOAD_HANG)
            hang();
        else if (f->kind == XREF_LOAD_FAIL)
            rc = xref_fail(err, (int)f->amount, "the model's fault knob fails load");
        else if (f->kind == XREF_HOLD)
            rc = hold(f->amount, ret_held, ret_bytes, err);
    }
    return rc;
}

uint64_t xref_faults_claim(const struct xref_program *p)
{
    uint64_t claimed = 0;

    for (uint32_t i = 0; i < p->n_faults; i++)
        if (p->faults[i].kind == XREF_CLAIM)
            claimed += (uint64_t)p->faults[i].amount;
    return claimed;
}
