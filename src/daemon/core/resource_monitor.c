#define _GNU_SOURCE
#include "daemon/core/resource_monitor.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/status.h"
#include "daemon/loop/workers.h"

enum { WATCHED_MS = 10000, IDLE_TICKS = 5, COOLER = 5 /* °C */ };

struct xi_monitor {
    uv_timer_t timer;
    struct xi_work work;
    struct xi_sensors *sensors; /* the worker's while working */
    unsigned interval_ms;
    int working, closing, timer_closed;
    uint64_t ticks, asked_ms; /* asked: somebody looked */
    void (*tick)(void *ctx);
    void *tick_ctx;
    char hot[XI_MONITORED_MAX][16]; /* ids of devices that are too hot */
    struct xi_resources reading;    /* the pool's while working */
    struct xi_resources latest;
};

static void free_when_quiet(struct xi_monitor *m)
{
    if (m->working || !m->timer_closed)
        return;
    xi_sensors_free(m->sensors);
    free(m);
}

static void read_on_pool(struct xi_work *work)
{
    struct xi_monitor *m = work->data;

    xi_sensors_read(m->sensors, xi_now_ms(), &m->reading);
}

/* Its place among the hot ones, or a free one; NULL: all are taken. */
static char *hot_place(struct xi_monitor *m, const char *id)
{
    char *free_one = NULL;

    for (int i = 0; i < XI_MONITORED_MAX; i++) {
        if (strcmp(m->hot[i], id) == 0)
            return m->hot[i];
        if (m->hot[i][0] == '\0')
            free_one = m->hot[i];
    }
    return free_one;
}

/* Says it once, and once more when it is well below again. */
static void watch_heat(struct xi_monitor *m)
{
    for (uint32_t i = 0; i < m->latest.n_devices; i++) {
        const struct xi_monitored *d = &m->latest.devices[i];
        char *place = hot_place(m, d->id);
        if (d->celsius == XI_UNKNOWN || d->hot_celsius == XI_UNKNOWN || place == NULL)
            continue;
        if (place[0] == '\0' && d->celsius >= d->hot_celsius) {
            memcpy(place, d->id, sizeof m->hot[0]);
            xi_log(XI_ERROR, "device.hot", "device=%s celsius=%.1f limit=%.1f name=\"%s\"", d->id,
                   d->celsius, d->hot_celsius, d->name);
        } else if (place[0] != '\0' && d->celsius <= d->hot_celsius - COOLER) {
            place[0] = '\0';
            xi_log(XI_INFO, "device.cool", "device=%s celsius=%.1f limit=%.1f", d->id, d->celsius,
                   d->hot_celsius);
        }
    }
}

static void have_read(struct xi_work *work)
{
    struct xi_monitor *m = work->data;

    m->working = 0;
    m->latest = m->reading;
    watch_heat(m);
    if (m->closing)
        free_when_quiet(m);
}

/* A reading that takes longer than the interval (a dying sensor bus) skips turns. */
static void on_tick(uv_timer_t *timer)
{
    struct xi_monitor *m = timer->data;

    if (m->tick != NULL)
        m->tick(m->tick_ctx);
    /* An idle machine is left alone. */
    int watched = m->asked_ms != 0 && uv_now(timer->loop) - m->asked_ms < WATCHED_MS;
    m->ticks++; /* two readings make a load */
    if (m->working || (m->ticks > 2 && m->ticks % IDLE_TICKS != 0 && !watched))
        return;
    m->working = 1;
    xi_work_queue(timer->loop, &m->work, read_on_pool, have_read);
}

static void clear(struct xi_resources *r)
{
    *r = (struct xi_resources){.cores = 1,
                               .cpu_load = XI_UNKNOWN,
                               .load_1m = XI_UNKNOWN,
                               .memory_total_bytes = XI_UNKNOWN,
                               .memory_available_bytes = XI_UNKNOWN,
                               .daemon_rss_bytes = XI_UNKNOWN,
                               .daemon_open_fds = XI_UNKNOWN,
                               .max_celsius = XI_UNKNOWN,
                               .cpu_mhz = XI_UNKNOWN};
}

struct xi_monitor *xi_monitor_new(uv_loop_t *loop, const char *root, unsigned interval_ms)
{
    struct xi_monitor *m = calloc(1, sizeof *m);
    struct xi_sensors *sensors = xi_sensors_new(root);

    if (m == NULL || sensors == NULL) {
        free(m);
        xi_sensors_free(sensors);
        return NULL;
    }
    m->sensors = sensors;
    m->interval_ms = interval_ms;
    m->work.data = m;
    clear(&m->latest);
    clear(&m->reading);
    XI_ASSERT(uv_timer_init(loop, &m->timer) == 0);
    m->timer.data = m;
    XI_ASSERT(uv_timer_start(&m->timer, on_tick, 0, interval_ms) == 0);
    return m;
}

static void on_timer_closed(uv_handle_t *handle)
{
    struct xi_monitor *m = handle->data;

    m->timer_closed = 1;
    free_when_quiet(m);
}

void xi_monitor_free(struct xi_monitor *m)
{
    if (m == NULL)
        return;
    m->closing = 1;
    uv_close((uv_handle_t *)&m->timer, on_timer_closed);
}

void xi_monitor_on_tick(struct xi_monitor *m, void (*tick)(void *ctx), void *ctx)
{
    m->tick = tick;
    m->tick_ctx = ctx;
}

const struct xi_resources *xi_monitor_latest(struct xi_monitor *m)
{
    m->asked_ms = uv_now(m->timer.loop);
    return &m->latest;
}
