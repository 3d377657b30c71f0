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
    xi_heat_cb heat;
    void *tick_ctx;
    uint32_t n_hot;
    struct xi_monitored hot[XI_MONITORED_MAX]; /* that are too hot, as last seen */
    struct xi_resources reading;               /* the pool's while working */
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

static void tell_heat(struct xi_monitor *m, const struct xi_monitored *d, int hot)
{
    xi_log(hot ? XI_ERROR : XI_INFO, hot ? "device.hot" : "device.cool",
           "device=%s celsius=%.1f limit=%.1f name=\"%s\"", d->id, d->celsius, d->hot_celsius,
           d->name);
    if (m->heat != NULL)
        m->heat(m->tick_ctx, d, hot);
}

static int is_hot(const struct xi_monitored *d, double margin)
{
    return d->celsius != XI_UNKNOWN && d->hot_celsius != XI_UNKNOWN &&
           d->celsius >= d->hot_celsius - margin;
}

/* Says it once, and once more when it is well below again, or nobody can tell any more. */
static void watch_heat(struct xi_monitor *m)
{
    const struct xi_resources *r = &m->latest;
    uint32_t n = 0;

    for (uint32_t h = 0; h < m->n_hot; h++) {
        struct xi_monitored now = m->hot[h];
        now.celsius = XI_UNKNOWN;
        for (uint32_t i = 0; i < r->n_devices; i++)
            if (strcmp(r->devices[i].id, now.id) == 0)
                now = r->devices[i];
        if (is_hot(&now, COOLER))
            m->hot[n++] = now;
        else
            tell_heat(m, &now, 0);
    }
    m->n_hot = n;
    for (uint32_t i = 0; i < r->n_devices; i++) {
        uint32_t h = 0;
        while (h < m->n_hot && strcmp(m->hot[h].id, r->devices[i].id) != 0)
            h++;
        if (h == m->n_hot && is_hot(&r->devices[i], 0)) {
            m->hot[m->n_hot++] = r->devices[i];
            tell_heat(m, &r->devices[i], 1);
        }
    }
}

static void have_read(struct xi_work *work)
{
    struct xi_monitor *m = work->data;

    m->working = 0;
    m->latest = m->reading;
    if (m->closing)
        free_when_quiet(m);
    else
        watch_heat(m);
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

void xi_monitor_on_tick(struct xi_monitor *m, void (*tick)(void *ctx), xi_heat_cb heat, void *ctx)
{
    m->tick = tick;
    m->heat = heat;
    m->tick_ctx = ctx;
}

const struct xi_resources *xi_monitor_latest(struct xi_monitor *m)
{
    m->asked_ms = uv_now(m->timer.loop);
    return &m->latest;
}
