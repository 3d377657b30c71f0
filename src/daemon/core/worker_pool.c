#include "daemon/core/worker_pool.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "daemon/core/pool_poison.h"
#include "daemon/core/pool_private.h"
#include "daemon/core/sequences.h"

struct xi_pool *xi_pool_new(uv_loop_t *loop, const struct xi_pool_config *config)
{
    struct xi_pool *pool = calloc(1, sizeof(*pool));

    if (pool == NULL)
        return NULL;
    pool->loop = loop;
    pool->config = *config;
    if (pool->config.cores == 0)
        pool->config.cores = 1;
    pool->core_free = XI_CORE_ANY;
    (void)uv_timer_init(loop, &pool->deadline_timer);
    (void)uv_timer_init(loop, &pool->watchdog_timer);
    (void)uv_timer_init(loop, &pool->batch_timer);
    pool->deadline_timer.data = pool;
    pool->watchdog_timer.data = pool;
    pool->batch_timer.data = pool;
    pool->open_handles = 3;
    pool->key_seed = xi_now_ns() ^ (uint64_t)(uintptr_t)pool;
    xi_pool_devices_init(pool);
    return pool;
}

void xi_pool_release(struct xi_pool *pool)
{
    uint32_t i;

    if (!pool->freed || pool->open_handles > 0 || pool->checks > 0)
        return;
    for (i = 0; i <= XI_TENANTS_MAX; i++)
        free(pool->accounts[i]);
    free(pool);
}

static void on_closed(uv_handle_t *handle)
{
    struct xi_pool *pool = handle->data;

    pool->open_handles--;
    xi_pool_release(pool);
}

void xi_pool_free(struct xi_pool *pool)
{
    if (pool == NULL)
        return;
    XI_ASSERT(pool->all == NULL);
    pool->freed = 1;
    uv_close((uv_handle_t *)&pool->deadline_timer, on_closed);
    uv_close((uv_handle_t *)&pool->watchdog_timer, on_closed);
    uv_close((uv_handle_t *)&pool->batch_timer, on_closed);
}

void xi_pool_set_hooks(struct xi_pool *pool, const struct xi_pool_hooks *hooks)
{
    pool->hooks = *hooks;
}

void xi_pool_drain(struct xi_pool *pool)
{
    pool->draining = 1;
}

uint32_t xi_pool_in_flight(const struct xi_pool *pool)
{
    return pool->in_flight;
}

/* ---- what the manager says ---- */

/* What its tenant was given on each device, shared by the tenant's sessions. */
static struct xi_fair_account *accounts_of(struct xi_pool *pool, const struct xi_session *s)
{
    struct xi_fair_account **a =
        &pool->accounts[s->owner == NULL ? XI_TENANTS_MAX : s->owner->index];
    uint32_t i;

    if (*a == NULL)
        *a = calloc(XI_POOL_DEVICES_MAX, sizeof(**a));
    for (i = 0; *a != NULL && s->owner != NULL && i < XI_POOL_DEVICES_MAX; i++)
        (*a)[i].weight = &s->owner->limits.weight;
    return *a;
}

static void link_queue(struct xi_pool *pool, struct xi_queue *q)
{
    q->all_next = pool->all;
    if (pool->all != NULL)
        pool->all->all_prev = q;
    pool->all = q;
}

static void init_turns(struct xi_queue *q, struct xi_fair_account *accounts)
{
    unsigned kind, class;

    for (kind = 0; kind < XI_TURN_KINDS; kind++) {
        for (class = 0; class < XI_PRIORITIES; class ++) {
            struct xi_turn *turn = &q->turns[kind][class];

            turn->queue = q;
            turn->kind = kind;
            turn->fair.class = class;
            turn->fair.account = accounts;
        }
    }
}

/* Lanes for runs, and at most one a core for stages. */
enum xi_rc xi_pool_attach(struct xi_pool *pool, struct xi_session *s, struct xi_err *err)
{
    struct xi_queue *q = calloc(1, sizeof(*q));
    struct xi_fair_account *accounts = accounts_of(pool, s);

    XI_ASSERT(s->lane_count >= 1 && s->lane_count <= XI_LANES_MAX);
    uint32_t stages = pool->config.cores < XI_LANES_MAX ? pool->config.cores : XI_LANES_MAX;

    s->lanes = calloc(s->lane_count + stages, sizeof(*s->lanes));
    if (q == NULL || s->lanes == NULL || accounts == NULL)
        goto no_memory;
    q->pool = pool;
    q->session = s;
    q->device = &pool->devices[0];
    q->n_run = s->lane_count;
    q->max_lanes = s->lane_count + stages;
    xi_lanes_reserve(q); /* one request each; without memory later there are no batches */
    if (q->lane_room == 0)
        goto no_memory;
    init_turns(q, accounts);
    link_queue(pool, q);
    s->queue = q;
    return XI_OK;
no_memory:
    free(q);
    free(s->lanes);
    s->lanes = NULL;
    return xi_fail(err, XI_ENOMEM, "no memory for a session of %u lanes", s->lane_count);
}

void xi_pool_detach(struct xi_session *s)
{
    struct xi_queue *q = s->queue;

    if (q == NULL)
        return;
    XI_ASSERT(!xi_pool_busy(s));
    xi_sequences_free(s);
    xi_cache_free(s->cache);
    s->cache = NULL;
    xi_queue_mode(q, XI_QUEUE_FAILED);
    xi_cell_leave(q);
    if (q->all_prev != NULL)
        q->all_prev->all_next = q->all_next;
    else
        q->pool->all = q->all_next;
    if (q->all_next != NULL)
        q->all_next->all_prev = q->all_prev;
    free(s->lanes[0].items); /* one block for all of them */
    free(s->lanes);
    free(q);
    s->queue = NULL;
    s->lanes = NULL;
}

int xi_pool_busy(const struct xi_session *s)
{
    const struct xi_queue *q = s->queue;

    return s->queued + s->running + q->suspects.n + q->checking.n + q->ordered.n > 0;
}

void xi_pool_hold(struct xi_session *s)
{
    xi_queue_mode(s->queue, XI_QUEUE_HELD);
}

/* Another host, or another variant, may take its requests in other steps. */
static void restage_all(struct xi_queue *q)
{
    struct xi_request *req, *next;
    unsigned stage, class;

    for (stage = 0; stage < 3; stage++) {
        for (class = 0; class < XI_PRIORITIES; class ++) {
            for (req = q->lines[stage].lines[class].head; req != NULL; req = next) {
                uint64_t since = req->since_ns;

                next = req->next;
                xi_request_restage(req);
                if (req->stage == stage)
                    continue; /* else a full line would be sorted anew */
                xi_batcher_remove(&q->lines[stage], req);
                xi_batcher_add(&q->lines[req->stage], req, since);
            }
        }
    }
    for (req = q->suspects.head; req != NULL; req = req->next)
        xi_request_restage(req);
}

void xi_pool_open(struct xi_session *s)
{
    struct xi_queue *q = s->queue;
    uint32_t i;
    unsigned class;

    for (i = 0; i < q->n_run + q->n_stage; i++) {
        if (s->lanes[i].left > 0)
            xi_lane_release(q, i);
    }
    q->n_stage = s->staged ? s->stage_lanes : 0;
    if (q->n_stage > q->max_lanes - q->n_run)
        q->n_stage = q->max_lanes - q->n_run;
    xi_lanes_reserve(q);
    q->n_free_run = 0;
    q->n_free_stage = 0;
    for (i = q->n_run; i-- > 0;)
        q->free_run[q->n_free_run++] = i;
    for (i = q->n_stage; i-- > 0;)
        q->free_stage[q->n_free_stage++] = q->n_run + i;
    xi_cache_clear(s->cache); /* it may be another variant now */
    q->killed = 0;
    q->device = xi_pool_device(q->pool, s);
    for (class = 0; class < XI_PRIORITIES; class ++) /* nothing of it is ready or runs now */
        q->turns[XI_TURN_RUN][class].fair.account =
            q->turns[XI_TURN_STAGE][class].fair.account + (q->device - q->pool->devices);
    restage_all(q);
    xi_cell_join(q);
    xi_queue_mode(q, XI_QUEUE_OPEN);
    xi_pool_budget(q->pool, q->device);
    xi_pool_dispatch(q->pool);
    xi_pool_settle(q->pool);
}

void xi_pool_close(struct xi_session *s)
{
    xi_queue_mode(s->queue, XI_QUEUE_CLOSED);
}

static struct xi_request *any_waiting(const struct xi_queue *q)
{
    unsigned stage, class;

    for (stage = 0; stage < 3; stage++) {
        for (class = 0; class < XI_PRIORITIES; class ++) {
            if (q->lines[stage].lines[class].head != NULL)
                return q->lines[stage].lines[class].head;
        }
    }
    return NULL;
}

static struct xi_request *any_of(const struct xi_queue *q)
{
    struct xi_request *waiting;

    if (q->running.head != NULL)
        return q->running.head;
    if (q->suspects.head != NULL)
        return q->suspects.head;
    waiting = any_waiting(q);
    if (waiting != NULL)
        return waiting;
    return q->ordered.head != NULL ? q->ordered.head : q->checking.head;
}

void xi_pool_fail(struct xi_session *s, const struct xi_err *why, unsigned retry_after_s)
{
    struct xi_queue *q = s->queue;
    struct xi_request *req;

    q->refusal = *why;
    q->refusal_retry_s = retry_after_s;
    xi_queue_mode(q, XI_QUEUE_FAILED);
    while ((req = any_of(q)) != NULL) {
        xi_lane_orphan(q, req);
        req->retry_after_s = retry_after_s;
        xi_request_finish(req, why->rc, NULL, why);
    }
    xi_pool_settle(q->pool);
}

/* ---- submit and cancel ---- */

void xi_pool_enqueue(struct xi_queue *q, struct xi_request *req)
{
    struct xi_err err;

    if (q->mode == XI_QUEUE_FAILED) { /* it failed while the fingerprint was taken */
        err = q->refusal;
        req->retry_after_s = q->refusal_retry_s;
        xi_request_finish(req, err.rc, NULL, &err);
        return;
    }
    req->timing.queued = xi_now_ns();
    if (req->sequence != NULL && !xi_sequence_turn(req))
        xi_request_move(req, XI_REQ_ORDERED);
    else
        xi_request_turn(req);
    xi_pool_dispatch(q->pool);
    if (req->deadline_ns != 0) /* still ours: dispatching calls nobody */
        xi_pool_arm_deadline(q->pool);
    xi_pool_settle(q->pool);
}

void xi_pool_submit(struct xi_pool *pool, struct xi_request *req)
{
    struct xi_queue *q = req->session->queue;
    struct xi_err err = {0};
    enum xi_rc rc;
    uint32_t i;

    XI_ASSERT(req->state == XI_REQ_NEW && q->pool == pool);
    if (req->session->owner != NULL)
        req->session->owner->requests++;
    rc = xi_pool_admit(q, req, &err);
    if (rc != XI_OK) {
        xi_note_refused(q, req, &err);
        xi_request_finish(req, rc, NULL, &err);
        return;
    }
    for (i = 0; i < req->n_parts; i++)
        q->session->stats.input_bytes += req->parts[i].mem.bytes;
    if (req->sequence != NULL)
        xi_sequence_enter(req);
    if (!xi_poison_check(q, req))
        xi_pool_enqueue(q, req);
    else
        xi_pool_settle(pool);
}

void xi_pool_cancel(struct xi_pool *pool, struct xi_request *req)
{
    struct xi_queue *q;
    struct xi_err err;

    if (req->state == XI_REQ_FINISHED)
        return;
    q = req->session->queue;
    xi_lane_orphan(q, req);
    xi_session_get(q->session); /* finish may put the last reference */
    (void)xi_fail(&err, XI_ECANCELLED, "the client went away");
    xi_request_finish(req, XI_ECANCELLED, NULL, &err);
    xi_queue_update(q);
    xi_pool_dispatch(pool);
    xi_pool_settle(pool);
    xi_session_put(q->session);
}

void xi_pool_stats(const struct xi_pool *pool, struct xi_pool_stats *ret)
{
    const struct xi_queue *q;

    *ret = pool->stats;
    ret->queued = 0;
    ret->suspects = 0;
    ret->lanes = 0;
    for (q = pool->all; q != NULL; q = q->all_next) {
        ret->queued += q->session->queued + q->checking.n + q->ordered.n;
        ret->suspects += q->suspects.n;
        ret->lanes += q->n_run + q->n_stage;
    }
    ret->running = pool->running;
    ret->cores_budget = pool->config.cores;
}
