#define _GNU_SOURCE
#include "daemon/core/resource_monitor.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/status.h"
#include "daemon/loop/workers.h"

enum { WATCHED_MS = 10000, IDLE_TICKS = 5 };

struct xi_monitor {
    uv_timer_t timer;
    struct xi_work work;
    char *root;
    unsigned interval_ms;
    int working, closing, timer_closed;
    uint64_t ticks, asked_ms; /* asked: somebody looked */
    void (*tick)(void *ctx);
    void *tick_ctx;
    struct xi_resources reading; /* the pool's while working */
    struct xi_resources latest;
};

static void free_when_quiet(struct xi_monitor *m)
{
    if (m->working || !m->timer_closed)
        return;
    free(m->root);
    free(m);
}

static void read_on_pool(struct xi_work *work)
{
    struct xi_monitor *m = work->data;

    xi_resources_read(m->root, &m->reading);
}

static void have_read(struct xi_work *work)
{
    struct xi_monitor *m = work->data;

    m->working = 0;
    m->latest = m->reading;
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
    char *copy = strdup(root);

    if (m == NULL || copy == NULL) {
        free(m);
        free(copy);
        return NULL;
    }
    m->root = copy;
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
