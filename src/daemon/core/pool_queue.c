#include "base/clock.h"
#include "daemon/core/pool_poison.h"
#include "daemon/core/pool_private.h"
#include "daemon/core/sequences.h"

static void list_append(struct xi_request_list *list, struct xi_request *req)
{
    req->prev = list->tail;
    req->next = NULL;
    if (list->tail != NULL)
        list->tail->next = req;
    else
        list->head = req;
    list->tail = req;
    list->n++;
}

static void list_remove(struct xi_request_list *list, struct xi_request *req)
{
    if (req->prev != NULL)
        req->prev->next = req->next;
    else
        list->head = req->next;
    if (req->next != NULL)
        req->next->prev = req->prev;
    else
        list->tail = req->prev;
    req->prev = NULL;
    req->next = NULL;
    list->n--;
}

static void list_prepend(struct xi_request_list *list, struct xi_request *req)
{
    req->prev = NULL;
    req->next = list->head;
    if (list->head != NULL)
        list->head->prev = req;
    else
        list->tail = req;
    list->head = req;
    list->n++;
}

/* Waiting and running ones are counted for the session and for its tenant, whose bound holds for
 * those that wait behind others of their sequence, too. */
static void count(struct xi_session *s, enum xi_request_state state, uint32_t by)
{
    int waiting = state == XI_REQ_QUEUED || state == XI_REQ_ORDERED;

    if (state == XI_REQ_QUEUED)
        s->queued += by;
    if (state == XI_REQ_RUNNING)
        s->running += by;
    if (s->owner != NULL && waiting)
        s->owner->queued += by;
    if (s->owner != NULL && state == XI_REQ_RUNNING)
        s->owner->running += by;
}

static struct xi_request_list *list_of(struct xi_queue *q, enum xi_request_state state)
{
    switch (state) {
    case XI_REQ_SUSPECT:
        return &q->suspects;
    case XI_REQ_RUNNING:
        return &q->running;
    case XI_REQ_CHECKING:
        return &q->checking;
    case XI_REQ_LEAVING:
        return &q->pool->leaving;
    case XI_REQ_ORDERED:
        return &q->ordered;
    case XI_REQ_NEW:
    case XI_REQ_QUEUED:
    case XI_REQ_FINISHED:
        break;
    }
    return NULL;
}

static int waits(enum xi_request_state state)
{
    return state == XI_REQ_QUEUED || state == XI_REQ_SUSPECT || state == XI_REQ_ORDERED;
}

static void take_off(struct xi_queue *q, struct xi_request *req)
{
    struct xi_request_list *list = list_of(q, req->state);

    if (req->state == XI_REQ_QUEUED)
        xi_batcher_remove(&q->lines[req->stage], req);
    else if (list != NULL)
        list_remove(list, req);
    if (req->state == XI_REQ_CHECKING)
        xi_check_drop(req);
    count(q->session, req->state, (uint32_t)-1);
}

static void put_on(struct xi_queue *q, struct xi_request *req)
{
    struct xi_request_list *list = list_of(q, req->state);

    if (req->state == XI_REQ_QUEUED)
        xi_batcher_add(&q->lines[req->stage], req, xi_now_ns());
    else if (req->state == XI_REQ_SUSPECT && req->prepared)
        list_prepend(list, req); /* halfway: it goes on before the next one is tried */
    else if (list != NULL)
        list_append(list, req);
    count(q->session, req->state, 1);
}

/* What the host made of it is of no use any more. While it runs its lane knows what to do. */
static void unprepare(struct xi_queue *q, struct xi_request *req)
{
    req->prepared = 0;
    q->prepared--;
    if (waits(req->state))
        xi_pool_forget(q, req->id);
}

void xi_request_move(struct xi_request *req, enum xi_request_state to)
{
    struct xi_queue *q = req->session->queue;

    if (req->state == XI_REQ_NEW && to != XI_REQ_FINISHED)
        q->pool->in_flight++;
    if (req->state != XI_REQ_NEW && to == XI_REQ_FINISHED)
        q->pool->in_flight--;
    if (req->prepared && (to == XI_REQ_LEAVING || to == XI_REQ_FINISHED))
        unprepare(q, req);
    take_off(q, req);
    req->state = to;
    put_on(q, req);
    if (!waits(to))
        xi_deadlines_remove(q->pool, req);
    else if (req->deadline_ns != 0 && !req->timed)
        xi_deadlines_add(q->pool, req);
}

void xi_request_refuse(struct xi_request *req, enum xi_rc rc)
{
    struct xi_queue *q = req->session->queue;

    xi_request_move(req, XI_REQ_LEAVING);
    req->verdict = rc;
    xi_queue_update(q);
}

void xi_request_turn(struct xi_request *req)
{
    struct xi_err err;
    enum xi_rc rc = req->sequence == NULL ? XI_OK : xi_sequence_begin(req, &err);

    if (rc != XI_OK) {
        xi_request_refuse(req, rc);
        return;
    }
    xi_request_move(req, XI_REQ_QUEUED);
    xi_queue_update(req->session->queue);
}

/* The next of its sequence has its turn. */
static void go_on(struct xi_pool *pool, struct xi_request *next)
{
    if (next == NULL || next->state != XI_REQ_ORDERED)
        return;
    xi_request_turn(next);
    pool->advanced = 1;
}

static void verdict_text(const struct xi_request *req, struct xi_err *ret)
{
    uint64_t waited = (xi_now_ns() - req->timing.born) / 1000000u;

    if (req->verdict == XI_ETIMEOUT)
        (void)xi_fail(ret, XI_ETIMEOUT, "its deadline passed after %llu ms, before it could run",
                      (unsigned long long)waited);
    else if (req->verdict == XI_ESEQUENCE)
        (void)xi_sequence_lost(req, ret);
    else
        (void)xi_fail(ret, req->verdict, "could not be handed to the model's host");
}

void xi_pool_settle(struct xi_pool *pool)
{
    struct xi_err err;

    for (;;) {
        while (pool->leaving.head != NULL) {
            verdict_text(pool->leaving.head, &err);
            xi_request_finish(pool->leaving.head, pool->leaving.head->verdict, NULL, &err);
        }
        if (!pool->advanced)
            return;
        pool->advanced = 0;
        xi_pool_dispatch(pool);
    }
}

static void account(struct xi_session_stats *stats, const struct xi_request *req, enum xi_rc rc)
{
    const struct xi_request_timing *t = &req->timing;

    stats->requests++;
    if (rc == XI_OK)
        stats->ok++;
    else if (rc == XI_ECANCELLED)
        stats->cancelled++;
    else if (rc == XI_ETIMEOUT)
        stats->expired++;
    else if (rc == XI_EAGAIN || rc == XI_EDRAIN || rc == XI_EPOISON || rc == XI_EQUOTA)
        stats->refused++;
    else if (xi_rc_http(rc) < 500)
        stats->client_errors++;
    else
        stats->server_errors++;
    if (req->attempts > 1)
        stats->retried++;
    if (rc != XI_OK)
        return;
    xi_hist_add(&stats->total, (t->completed - t->born) / 1000u);
    if (t->dispatched >= t->queued && t->queued != 0)
        xi_hist_add(&stats->queue, (t->dispatched - t->queued) / 1000u);
}

void xi_request_finish(struct xi_request *req, enum xi_rc rc, struct xi_reply *reply,
                       const struct xi_err *err)
{
    struct xi_session *s = req->session;
    struct xi_queue *q = s->queue;
    struct xi_slot *slot = req->slot;
    struct xi_loan *loan = req->loan;

    XI_ASSERT(req->state != XI_REQ_FINISHED);
    XI_ASSERT(rc != XI_OK || reply != NULL);
    xi_request_move(req, XI_REQ_FINISHED);
    req->timing.completed = xi_now_ns();
    account(&s->stats, req, rc);
    if (s->owner != NULL && rc == XI_OK)
        s->owner->completed++;
    xi_note_end(q, req, rc);
    if (req->sequence != NULL)
        go_on(q->pool, xi_sequence_leave(req, rc, req->timing.completed / 1000000u));
    /* From here on the request may be reused or freed. */
    req->done(req, rc, rc == XI_OK ? reply : NULL, err);
    xi_slot_put(slot);
    xi_loan_put(loan);
    if (q->mode == XI_QUEUE_CLOSED && !xi_pool_busy(s) && q->pool->hooks.drained != NULL)
        q->pool->hooks.drained(q->pool->hooks.ctx, s);
    xi_session_put(s);
}
