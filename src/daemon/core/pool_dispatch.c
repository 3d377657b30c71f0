#include "base/clock.h"
#include "daemon/core/pool_private.h"
#include "daemon/core/sequences.h"

/* What would run next, or NULL when nothing may. */
static struct xi_request *next_of(const struct xi_queue *q)
{
    const struct xi_session *s = q->session;
    int open = q->mode == XI_QUEUE_OPEN || q->mode == XI_QUEUE_CLOSED;

    if (!open || s->host == NULL || q->killed || q->alone || q->n_free == 0)
        return NULL;
    if (q->suspects.n == 0)
        return s->queue_head;
    return q->n_free == q->n_lanes ? q->suspects.head : NULL;
}

static void ring_remove(struct xi_pool *pool, struct xi_queue *q)
{
    struct xi_queue **head = &pool->ready[q->ready_class];

    if (q->ready_next == q) {
        *head = NULL;
    } else {
        q->ready_prev->ready_next = q->ready_next;
        q->ready_next->ready_prev = q->ready_prev;
        if (*head == q)
            *head = q->ready_next;
    }
    q->ready_class = -1;
}

static void ring_append(struct xi_pool *pool, struct xi_queue *q, int class)
{
    struct xi_queue *head = pool->ready[class];

    q->ready_class = class;
    if (head == NULL) {
        q->ready_prev = q;
        q->ready_next = q;
        pool->ready[class] = q;
        return;
    }
    q->ready_prev = head->ready_prev;
    q->ready_next = head;
    head->ready_prev->ready_next = q;
    head->ready_prev = q;
}

void xi_queue_update(struct xi_queue *q)
{
    struct xi_request *next = next_of(q);
    int class = next == NULL ? -1 : (int)next->priority;

    if (class == q->ready_class)
        return;
    if (q->ready_class >= 0)
        ring_remove(q->pool, q);
    if (class >= 0)
        ring_append(q->pool, q, class);
}

void xi_lane_free(struct xi_queue *q, uint32_t index)
{
    struct xi_lane *lane = &q->session->lanes[index];

    xi_slot_put(lane->slot);
    xi_slot_put(lane->state);
    *lane = (struct xi_lane){0};
    q->free_lanes[q->n_free++] = index;
    q->pool->running--;
}

static enum xi_rc send_work(struct xi_queue *q, uint32_t lane, struct xi_request *req)
{
    struct xi_segment *segments[XI_TENSORS_MAX];
    struct xi_work_item item = {
        .request = {.id = req->id,
                    .deadline_ns = req->deadline_ns,
                    .want = req->want,
                    .n_parts = req->n_parts,
                    .n_state = req->n_state,
                    .flags = xi_sequence_work_flags(req)},
        .parts = req->parts,
        .segments = segments,
    };
    struct xi_err err;
    uint32_t i;

    for (i = 0; i < req->n_parts - req->n_state; i++)
        segments[i] = req->slot->segment;
    for (; i < req->n_parts; i++)
        segments[i] = xi_sequence_slot(req)->segment;
    return xi_host_submit(q->session->host, q->session->first_lane + lane, XI_WORK_ALL, &item, 1,
                          &err);
}

static void take_lane(struct xi_queue *q, struct xi_request *req, uint64_t now)
{
    uint32_t index = q->free_lanes[--q->n_free];
    struct xi_lane *lane = &q->session->lanes[index];

    lane->id = req->id;
    lane->request = req;
    lane->slot = req->slot;
    if (lane->slot != NULL)
        xi_slot_get(lane->slot);
    lane->state = xi_sequence_slot(req);
    if (lane->state != NULL)
        xi_slot_get(lane->state);
    lane->started_ns = now;
    lane->kill_at_ns = now + xi_watchdog_allowance_ns(q);
    req->lane = index;
    q->pool->running++;
}

/* Never calls done. */
static void start(struct xi_queue *q, struct xi_request *req)
{
    uint64_t now = xi_now_ns();
    int suspect = req->state == XI_REQ_SUSPECT;
    enum xi_rc rc;

    if (req->deadline_ns != 0 && req->deadline_ns <= now) {
        xi_request_refuse(req, XI_ETIMEOUT);
        return;
    }
    take_lane(q, req, now);
    rc = send_work(q, req->lane, req);
    if (rc != XI_OK) {
        xi_lane_free(q, req->lane);
        if (rc == XI_EHOST)
            q->killed = 1; /* it is ending: EXITED comes, the request waits for the next host */
        else
            xi_request_refuse(req, rc);
        return;
    }
    q->alone = suspect;
    xi_request_move(req, XI_REQ_RUNNING);
    req->timing.dispatched = now;
    if (req->attempts++ > 0)
        q->pool->stats.retried++;
    q->pool->stats.dispatched++;
    xi_watchdog_need(q->pool);
}

void xi_pool_dispatch(struct xi_pool *pool)
{
    int class = 0;

    while (class < XI_PRIORITIES && pool->running < pool->config.cores) {
        struct xi_queue *q = pool->ready[class];

        if (q == NULL) {
            class ++;
            continue;
        }
        ring_remove(pool, q); /* so that it comes back at the end: everybody's turn */
        start(q, next_of(q));
        xi_queue_update(q);
        class = 0; /* its next one may be of another class */
    }
}

static void learn(struct xi_session *s, const struct xi_done *done)
{
    uint64_t took = done->pre_ns + done->device_ns + done->post_ns;

    s->stats.device_ns += done->device_ns;
    s->stats.copied_bytes += done->copied_bytes;
    if (done->code != XI_OK)
        return;
    xi_hist_add(&s->stats.device, done->device_ns / 1000u);
    /* Exponentially weighted, one eighth for the newest; a host cannot push it past an hour. */
    if (took > 3600ull * 1000000000ull)
        took = 3600ull * 1000000000ull;
    s->service_ns = s->service_ns - s->service_ns / 8 + took / 8;
}

static void answer(struct xi_request *req, struct xi_reply *reply)
{
    const struct xi_done *done = &reply->done;
    enum xi_rc rc = (enum xi_rc)done->code;
    struct xi_err err;
    uint32_t i;

    if (rc == XI_OK) {
        rc = xi_sequence_commit(req, reply, &err);
        if (rc != XI_OK) {
            xi_reply_release(reply);
            xi_request_finish(req, rc, NULL, &err);
            return;
        }
        if (req->cache == XI_CACHE_MISS)
            xi_cache_put(req->session->cache, &req->cache_key, reply);
        for (i = 0; i < done->n_parts; i++)
            req->session->stats.output_bytes += reply->parts[i].mem.bytes;
        xi_request_finish(req, XI_OK, reply, NULL);
        return;
    }
    if (!xi_rc_known(done->code))
        rc = XI_EENGINE;
    (void)xi_fail(&err, rc, "%.*s", (int)sizeof(done->text), done->text);
    if (done->hint[0] != '\0')
        (void)xi_hint(&err, "%.*s", (int)sizeof(done->hint), done->hint);
    xi_reply_release(reply);
    xi_request_finish(req, rc, NULL, &err);
}

/* A completion for work that this lane was not given: the link checked its form, not its sense. */
static void lied(struct xi_session *s, struct xi_reply *reply)
{
    xi_reply_release(reply);
    s->queue->killed = 1;
    xi_queue_update(s->queue);
    xi_host_stop(s->host, 0, "answered a request that it was not given");
}

void xi_pool_completed(struct xi_session *s, uint32_t index, struct xi_reply *reply)
{
    struct xi_queue *q = s->queue;
    struct xi_pool *pool = q->pool;
    struct xi_lane *lane = index < q->n_lanes ? &s->lanes[index] : NULL;
    struct xi_request *req;

    if (lane == NULL || lane->id == 0 || lane->id != reply->done.id) {
        lied(s, reply);
        return;
    }
    if ((reply->done.flags & XI_DONE_FINAL) == 0) {
        xi_reply_release(reply); /* nobody asked for provisional answers */
        return;
    }
    req = lane->request;
    xi_lane_free(q, index);
    q->alone = 0;
    q->answered += req != NULL;
    pool->stats.completed++;
    learn(s, &reply->done);
    if (req != NULL)
        xi_request_move(req, XI_REQ_LEAVING);
    xi_queue_update(q);
    xi_pool_dispatch(pool); /* the lane first, then the words */
    if (req == NULL)
        xi_reply_release(reply);
    else
        answer(req, reply);
    xi_pool_settle(pool);
}
