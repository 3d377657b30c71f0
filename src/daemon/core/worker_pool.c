#include "daemon/core/worker_pool.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
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
    (void)uv_timer_init(loop, &pool->deadline_timer);
    (void)uv_timer_init(loop, &pool->watchdog_timer);
    pool->deadline_timer.data = pool;
    pool->watchdog_timer.data = pool;
    pool->open_handles = 2;
    return pool;
}

void xi_pool_release(struct xi_pool *pool)
{
    if (!pool->freed || pool->open_handles > 0 || pool->checks > 0)
        return;
    free(pool->deadlines.heap);
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

enum xi_rc xi_pool_attach(struct xi_pool *pool, struct xi_session *s, struct xi_err *err)
{
    struct xi_queue *q = calloc(1, sizeof(*q));
    uint32_t lanes = s->lane_count;
    enum xi_rc rc;

    s->lanes = calloc(lanes, sizeof(*s->lanes));
    if (q == NULL || s->lanes == NULL) {
        rc = xi_fail(err, XI_ENOMEM, "no memory for a session of %u lanes", lanes);
        goto out;
    }
    rc = xi_deadlines_reserve(&pool->deadlines, pool->config.queue_limit + lanes, err);
    if (rc != XI_OK)
        goto out;
    q->pool = pool;
    q->session = s;
    q->ready_class = -1;
    q->n_lanes = lanes;
    q->all_next = pool->all;
    if (pool->all != NULL)
        pool->all->all_prev = q;
    pool->all = q;
    s->queue = q;
    return XI_OK;
out:
    free(q);
    free(s->lanes);
    s->lanes = NULL;
    return rc;
}

void xi_pool_detach(struct xi_session *s)
{
    struct xi_queue *q = s->queue;

    if (q == NULL)
        return;
    XI_ASSERT(!xi_pool_busy(s) && q->ready_class < 0);
    xi_sequences_free(s);
    xi_cache_free(s->cache);
    s->cache = NULL;
    q->pool->deadlines.cap -= q->pool->config.queue_limit + q->n_lanes;
    if (q->all_prev != NULL)
        q->all_prev->all_next = q->all_next;
    else
        q->pool->all = q->all_next;
    if (q->all_next != NULL)
        q->all_next->all_prev = q->all_prev;
    free(q);
    free(s->lanes);
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
    s->queue->mode = XI_QUEUE_HELD;
    xi_queue_update(s->queue);
}

void xi_pool_open(struct xi_session *s)
{
    struct xi_queue *q = s->queue;
    uint32_t i;

    q->n_free = 0;
    for (i = q->n_lanes; i-- > 0;)
        q->free_lanes[q->n_free++] = i;
    xi_cache_clear(s->cache); /* it may be another variant now */
    q->killed = 0;
    q->mode = XI_QUEUE_OPEN;
    xi_queue_update(q);
    xi_pool_dispatch(q->pool);
    xi_pool_settle(q->pool);
}

void xi_pool_close(struct xi_session *s)
{
    s->queue->mode = XI_QUEUE_CLOSED;
    xi_queue_update(s->queue);
}

static struct xi_request *any_of(struct xi_session *s)
{
    struct xi_queue *q = s->queue;

    if (q->running.head != NULL)
        return q->running.head;
    if (q->suspects.head != NULL)
        return q->suspects.head;
    if (s->queue_head != NULL)
        return s->queue_head;
    return q->ordered.head != NULL ? q->ordered.head : q->checking.head;
}

void xi_pool_fail(struct xi_session *s, const struct xi_err *why, unsigned retry_after_s)
{
    struct xi_queue *q = s->queue;
    struct xi_request *req;

    q->mode = XI_QUEUE_FAILED;
    q->refusal = *why;
    q->refusal_retry_s = retry_after_s;
    xi_queue_update(q);
    while ((req = any_of(s)) != NULL) {
        if (req->state == XI_REQ_RUNNING)
            s->lanes[req->lane].request = NULL;
        req->retry_after_s = retry_after_s;
        xi_request_finish(req, why->rc, NULL, why);
    }
    xi_pool_settle(q->pool);
}

/* ---- submit and cancel ---- */

/* About how long until the queue has room again: what is ahead, over what runs at once. */
static unsigned retry_after(const struct xi_session *s)
{
    uint64_t lanes = s->lane_count == 0 ? 1 : s->lane_count;
    uint64_t seconds = (uint64_t)s->queued * s->service_ns / lanes / 1000000000u + 1;

    return seconds > 30 ? 30 : (unsigned)seconds;
}

static enum xi_rc admit(struct xi_queue *q, struct xi_request *req, struct xi_err *err)
{
    struct xi_session *s = q->session;

    if (q->pool->draining) {
        req->retry_after_s = 1;
        return xi_fail(err, XI_EDRAIN, "the daemon is shutting down");
    }
    if (q->mode == XI_QUEUE_CLOSED)
        return xi_fail(err, XI_EGONE, "session %s is being unloaded", s->id);
    if (q->mode == XI_QUEUE_FAILED) {
        req->retry_after_s = q->refusal_retry_s;
        if (err != NULL)
            *err = q->refusal;
        return q->refusal.rc;
    }
    if (s->queued + q->checking.n + q->ordered.n >= q->pool->config.queue_limit) {
        req->retry_after_s = retry_after(s);
        return xi_fail(err, XI_EAGAIN, "%u requests wait for %s already, %u may",
                       s->queued + q->checking.n + q->ordered.n, s->name,
                       q->pool->config.queue_limit);
    }
    if (req->deadline_ns != 0 && req->deadline_ns <= xi_now_ns())
        return xi_fail(err, XI_ETIMEOUT, "its deadline passed before it was complete");
    return XI_OK;
}

static enum xi_rc check_part(const struct xi_session *s, const struct xi_request *req,
                             const struct xi_part *part, struct xi_err *err)
{
    struct xi_tensor tensor;

    if (req->slot == NULL || part->mem.segment != req->slot->segment->id ||
        part->mem.offset < req->slot->offset || part->mem.bytes > req->slot->bytes ||
        part->mem.offset - req->slot->offset > req->slot->bytes - part->mem.bytes)
        return xi_fail(err, XI_EINTERNAL, "an input lies outside its slot");
    if (s->signature.n_inputs == 0)
        return XI_OK; /* not READY yet: the host checks again anyway */
    if (part->kind == XI_PART_BYTES) {
        if (s->has_flow)
            return XI_OK;
        (void)xi_fail(err, XI_ETENSOR, "%s takes tensors, not a file: it has no flow", s->name);
        return xi_hint(err, "send its %u input tensor%s", s->signature.n_inputs,
                       s->signature.n_inputs == 1 ? "" : "s");
    }
    if (part->kind != XI_PART_TENSOR || part->index >= s->signature.n_inputs)
        return xi_fail(err, XI_ETENSOR, "input %u where %s has %u", part->index, s->name,
                       s->signature.n_inputs);
    tensor = xi_part_tensor(part, req->slot->segment->map.base);
    return xi_port_check(&s->signature.inputs[part->index], &tensor, err);
}

/* Every part fits, and tensors are given once each and all of them. */
static enum xi_rc check_inputs(const struct xi_session *s, const struct xi_request *req,
                               struct xi_err *err)
{
    uint64_t seen = 0, bit;
    uint32_t i;
    enum xi_rc rc;

    if (req->n_parts == 0 || req->n_parts > XI_TENSORS_MAX)
        return xi_fail(err, XI_ETENSOR, "%u inputs, 1 to %d may be", req->n_parts, XI_TENSORS_MAX);
    for (i = 0; i < req->n_parts; i++) {
        rc = check_part(s, req, &req->parts[i], err);
        if (rc != XI_OK)
            return rc;
        if (req->parts[i].kind == XI_PART_BYTES)
            return XI_OK;
        bit = 1ull << (req->parts[i].index % 64);
        if (seen & bit)
            return xi_fail(err, XI_ETENSOR, "input %u is given twice", req->parts[i].index);
        seen |= bit;
    }
    for (i = 0; i < s->signature.n_inputs && i < 64; i++) {
        if ((seen & (1ull << i)) == 0)
            return xi_fail(err, XI_ETENSOR, "input \"%s\" is missing", s->signature.inputs[i].name);
    }
    return XI_OK;
}

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
    if (req->priority > XI_PRIORITY_BATCH)
        req->priority = XI_PRIORITY_BATCH;
    rc = admit(q, req, &err);
    if (rc == XI_OK)
        rc = check_inputs(q->session, req, &err);
    if (rc != XI_OK) {
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
    if (req->state == XI_REQ_RUNNING)
        q->session->lanes[req->lane].request = NULL;
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
        ret->lanes += q->n_lanes;
    }
    ret->running = pool->running;
    ret->cores_budget = pool->config.cores;
}
