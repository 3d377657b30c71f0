#include "base/clock.h"
#include "base/log.h"
#include "daemon/core/pool_private.h"

uint64_t xi_watchdog_allowance_ns(const struct xi_queue *q, uint32_t n_requests)
{
    uint64_t least = (uint64_t)q->pool->config.watchdog_min_ms * 1000000u;
    uint64_t usual = q->session->service_ns * n_requests;

    if (usual < q->run_ns)
        usual = q->run_ns;
    return usual * XI_WATCHDOG_TIMES > least ? usual * XI_WATCHDOG_TIMES : least;
}

/* A lane that hangs names the first request that it has not answered. */
static uint64_t unanswered(const struct xi_lane *lane)
{
    uint32_t i = 0;

    while (i + 1 < lane->n && lane->items[i].id == 0)
        i++;
    return lane->items[i].id;
}

static void check_session(struct xi_queue *q, uint64_t now)
{
    struct xi_session *s = q->session;
    char why[128];
    uint32_t i;

    if (q->killed || s->host == NULL)
        return;
    for (i = 0; i < q->n_run + q->n_stage; i++) {
        const struct xi_lane *lane = &s->lanes[i];

        if (lane->left == 0 || lane->kill_at_ns > now)
            continue;
        (void)snprintf(why, sizeof(why), "hung: a request ran for %llu ms, %llu were allowed",
                       (unsigned long long)((now - lane->started_ns) / 1000000u),
                       (unsigned long long)((lane->kill_at_ns - lane->started_ns) / 1000000u));
        xi_log(XI_WARN, "watchdog.kill", "id=%s request=%llu why=%s", s->id,
               (unsigned long long)unanswered(lane), why);
        q->killed = 1;
        q->pool->stats.watchdog_kills++;
        xi_queue_update(q);
        xi_host_stop(s->host, 0, why);
        return;
    }
}

void xi_watchdog_tick(struct xi_pool *pool, uint64_t now_ns)
{
    struct xi_queue *q;

    for (q = pool->all; q != NULL; q = q->all_next) {
        if (q->n_free_run + q->n_free_stage < q->n_run + q->n_stage)
            check_session(q, now_ns);
    }
}

static void on_tick(uv_timer_t *timer)
{
    struct xi_pool *pool = timer->data;

    if (pool->running == 0) {
        pool->watchdog_on = 0; /* an idle daemon sleeps */
        (void)uv_timer_stop(timer);
        return;
    }
    xi_watchdog_tick(pool, xi_now_ns());
}

void xi_watchdog_need(struct xi_pool *pool)
{
    uint64_t ms = pool->config.watchdog_min_ms / 8;

    if (pool->watchdog_on)
        return;
    pool->watchdog_on = 1;
    ms = ms < 10 ? 10 : ms > 250 ? 250 : ms;
    (void)uv_timer_start(&pool->watchdog_timer, on_tick, ms, ms);
}
