/* NVIDIA's GPUs by their management library, which is looked for at run time; the few functions we
 * call are declared here after its public documentation.
 *
 * The library may hang (a card that fell off its bus): it runs in a thread of its own. Who reads
 * waits a moment, then goes on without; a thread that never comes back keeps what it holds. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "daemon/core/monitor_source.h"

enum { GPUS = 8, WAIT_MS = 300, HUNG_MS = 10000 };
enum { NVML_TEMPERATURE_GPU = 0, NVML_THRESHOLD_SLOWDOWN = 1, NVML_CLOCK_SM = 1 };

struct nvml_utilization {
    unsigned gpu, memory; /* percent */
};

struct nvml_memory {
    unsigned long long total, free, used;
};

struct nvml {
    int (*init)(void);
    int (*shutdown)(void);
    int (*count)(unsigned *n);
    int (*handle)(unsigned i, void **device);
    int (*name)(void *device, char *text, unsigned room);
    int (*utilization)(void *device, struct nvml_utilization *u);
    int (*temperature)(void *device, int sensor, unsigned *celsius);
    int (*threshold)(void *device, int which, unsigned *celsius);
    int (*power)(void *device, unsigned *mw);
    int (*clock)(void *device, int which, unsigned *mhz);
    int (*memory)(void *device, struct nvml_memory *m);
    int (*throttled)(void *device, unsigned long long *reasons);
};

static const struct {
    const char *name;
    size_t offset;
    int needed;
} symbols[] = {
    {"nvmlInit_v2", offsetof(struct nvml, init), 1},
    {"nvmlShutdown", offsetof(struct nvml, shutdown), 1},
    {"nvmlDeviceGetCount_v2", offsetof(struct nvml, count), 1},
    {"nvmlDeviceGetHandleByIndex_v2", offsetof(struct nvml, handle), 1},
    {"nvmlDeviceGetName", offsetof(struct nvml, name), 0},
    {"nvmlDeviceGetUtilizationRates", offsetof(struct nvml, utilization), 0},
    {"nvmlDeviceGetTemperature", offsetof(struct nvml, temperature), 0},
    {"nvmlDeviceGetTemperatureThreshold", offsetof(struct nvml, threshold), 0},
    {"nvmlDeviceGetPowerUsage", offsetof(struct nvml, power), 0},
    {"nvmlDeviceGetClockInfo", offsetof(struct nvml, clock), 0},
    {"nvmlDeviceGetMemoryInfo", offsetof(struct nvml, memory), 0},
    {"nvmlDeviceGetCurrentClocksThrottleReasons", offsetof(struct nvml, throttled), 0},
};

/* Shared with the thread: whoever lets go of it last frees it. */
struct reader {
    pthread_mutex_t lock; /* of busy and abandoned */
    pthread_cond_t done;  /* busy went to 0 */
    int busy, abandoned;
    int waiting; /* the monitor's: a turn began and its end was not seen */
    uint64_t since_ms;
    char path[PATH_MAX];
    void *library;
    struct nvml nvml;
    int works; /* of the last turn: the library answered */
    uint32_t n;
    struct xi_monitored gpus[GPUS];
};

/* ---- in the thread ---- */

static int find_symbols(struct reader *r)
{
    for (size_t i = 0; i < sizeof symbols / sizeof *symbols; i++) {
        void *f = dlsym(r->library, symbols[i].name);
        if (f == NULL && symbols[i].needed)
            return -1;
        memcpy((char *)&r->nvml + symbols[i].offset, &f, sizeof f);
    }
    return 0;
}

static int open_library(struct reader *r)
{
    if (r->library != NULL)
        return 0;
    r->library = dlopen(r->path, RTLD_NOW | RTLD_LOCAL);
    if (r->library == NULL)
        return -1;
    if (find_symbols(r) == 0 && r->nvml.init() == 0)
        return 0;
    (void)dlclose(r->library);
    r->library = NULL;
    return -1;
}

static void close_library(struct reader *r)
{
    if (r->library == NULL)
        return;
    (void)r->nvml.shutdown();
    (void)dlclose(r->library);
    r->library = NULL;
}

static double in_range(double v, double min, double max)
{
    return v >= min && v <= max ? v : XI_UNKNOWN;
}

static void explain(unsigned long long reasons, char ret[48])
{
    static const struct {
        unsigned long long bits;
        const char *word;
    } words[] = {{0x60, "heat"}, {0x84, "power"}, {0x08, "hardware"}};
    const char *comma = "";

    ret[0] = '\0';
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (reasons & words[i].bits) {
            size_t n = strlen(ret);
            (void)snprintf(ret + n, 48 - n, "%s%s", comma, words[i].word);
            comma = ",";
        }
}

static void read_memory(const struct nvml *l, void *device, struct xi_monitored *d)
{
    struct nvml_memory m = {0};

    if (l->memory == NULL || l->memory(device, &m) != 0 || m.total == 0)
        return;
    d->memory_total_bytes = in_range((double)m.total, 1, 1e15);
    d->memory_used_bytes = in_range((double)m.used, 0, (double)m.total);
}

static void read_gpu(const struct nvml *l, void *device, struct xi_monitored *d)
{
    struct nvml_utilization u = {0};
    unsigned long long reasons = 0;
    unsigned v = 0;

    if (l->name != NULL && l->name(device, d->name, sizeof d->name) != 0)
        d->name[0] = '\0';
    d->name[sizeof d->name - 1] = '\0';
    if (l->utilization != NULL && l->utilization(device, &u) == 0)
        d->load = in_range(u.gpu / 100.0, 0, 1);
    if (l->temperature != NULL && l->temperature(device, NVML_TEMPERATURE_GPU, &v) == 0)
        d->celsius = in_range(v, 1, 150);
    if (l->threshold != NULL && l->threshold(device, NVML_THRESHOLD_SLOWDOWN, &v) == 0)
        d->hot_celsius = in_range(v, 40, 150);
    if (l->power != NULL && l->power(device, &v) == 0)
        d->power_w = in_range(v / 1e3, 0, 5000);
    if (l->clock != NULL && l->clock(device, NVML_CLOCK_SM, &v) == 0)
        d->clock_mhz = in_range(v, 1, 20000);
    if (l->throttled != NULL && l->throttled(device, &reasons) == 0)
        explain(reasons, d->throttled);
    read_memory(l, device, d);
}

static void read_all(struct reader *r)
{
    static const struct xi_monitored nothing = {.kind = XI_DEV_GPU,
                                                .load = XI_UNKNOWN,
                                                .celsius = XI_UNKNOWN,
                                                .hot_celsius = XI_UNKNOWN,
                                                .power_w = XI_UNKNOWN,
                                                .clock_mhz = XI_UNKNOWN,
                                                .memory_total_bytes = XI_UNKNOWN,
                                                .memory_used_bytes = XI_UNKNOWN};
    unsigned n = 0;

    r->n = 0;
    r->works = open_library(r) == 0 && r->nvml.count(&n) == 0 && n > 0;
    for (unsigned i = 0; r->works && i < n && i < GPUS; i++) {
        void *device = NULL;
        r->gpus[r->n] = nothing;
        if (r->nvml.handle(i, &device) == 0)
            read_gpu(&r->nvml, device, &r->gpus[r->n]);
        r->n++; /* one that is lost keeps its place: numbers must not move */
    }
    if (!r->works)
        close_library(r);
}

static void free_reader(struct reader *r)
{
    close_library(r);
    (void)pthread_mutex_destroy(&r->lock);
    (void)pthread_cond_destroy(&r->done);
    free(r);
}

static void *turn(void *arg)
{
    struct reader *r = arg;

    read_all(r);
    (void)pthread_mutex_lock(&r->lock);
    int mine = r->abandoned;
    r->busy = 0;
    (void)pthread_cond_signal(&r->done);
    (void)pthread_mutex_unlock(&r->lock);
    if (mine)
        free_reader(r);
    return NULL;
}

/* ---- the monitor's side ---- */

/* 1: a reading is there. 0: not now. */
static int wait_for(struct reader *r)
{
    struct timespec until;
    int rc = 0;

    (void)clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += WAIT_MS * 1000000l;
    until.tv_sec += until.tv_nsec / 1000000000l;
    until.tv_nsec %= 1000000000l;
    (void)pthread_mutex_lock(&r->lock);
    while (r->busy && rc == 0)
        rc = pthread_cond_timedwait(&r->done, &r->lock, &until);
    int there = !r->busy;
    (void)pthread_mutex_unlock(&r->lock);
    return there;
}

static int start(struct reader *r)
{
    pthread_attr_t attr;
    pthread_t thread;

    (void)pthread_attr_init(&attr);
    (void)pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    r->busy = 1;
    int rc = pthread_create(&thread, &attr, turn, r);
    (void)pthread_attr_destroy(&attr);
    if (rc != 0)
        r->busy = 0;
    return rc;
}

/* 1: a new reading is there, and the thread has ended its turn. */
static int ask(struct reader *r, uint64_t now_ms)
{
    if (!r->waiting) {
        if (start(r) != 0)
            return 0;
        r->waiting = 1;
        r->since_ms = now_ms;
    }
    if (!wait_for(r))
        return 0;
    r->waiting = 0;
    return 1;
}

struct state {
    struct reader *reader;
};

/* It waits by the clock that nobody sets. */
static void init_done(pthread_cond_t *done)
{
    pthread_condattr_t attr;

    (void)pthread_condattr_init(&attr);
    (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    (void)pthread_cond_init(done, &attr);
    (void)pthread_condattr_destroy(&attr);
}

static int probe_nvml(struct xi_sense *in, void *state)
{
    struct state *s = state;
    struct reader *r = calloc(1, sizeof *r);

    if (r == NULL)
        return 0;
    (void)pthread_mutex_init(&r->lock, NULL);
    init_done(&r->done);
    /* In a recorded tree the library lies in the tree. */
    (void)snprintf(r->path, sizeof r->path, "%s%s", in->root,
                   in->root[0] != '\0' ? "/lib/libnvidia-ml.so.1" : "libnvidia-ml.so.1");
    s->reader = r;
    if (ask(r, in->now_ms))
        return r->works;
    return 1; /* it takes its time: read finds out */
}

static int read_nvml(struct xi_sense *in, void *state)
{
    struct reader *r = ((struct state *)state)->reader;

    if (!ask(r, in->now_ms))
        return in->now_ms - r->since_ms < HUNG_MS;
    for (uint32_t i = 0; i < r->n; i++) {
        struct xi_monitored *d = xi_sense_add(in, XI_DEV_GPU, "nvml");
        if (d == NULL)
            break;
        struct xi_monitored named = *d;
        *d = r->gpus[i];
        memcpy(d->id, named.id, sizeof d->id);
        memcpy(d->source, named.source, sizeof d->source);
    }
    return r->works;
}

static void end_nvml(void *state)
{
    struct reader *r = ((struct state *)state)->reader;

    if (r == NULL)
        return;
    (void)pthread_mutex_lock(&r->lock);
    int busy = r->busy;
    r->abandoned = busy;
    (void)pthread_mutex_unlock(&r->lock);
    if (!busy)
        free_reader(r);
}

const struct xi_source xi_source_nvml = {.name = "nvml",
                                         .needs = "libnvidia-ml.so.1 (NVIDIA's driver)",
                                         .state_bytes = sizeof(struct state),
                                         .probe = probe_nvml,
                                         .read = read_nvml,
                                         .end = end_nvml};
