#include <stdlib.h>

#include "base/clock.h"
#include "daemon/core/pool_cores.h"
#include "daemon/core/pool_private.h"
#include "daemon/core/sequences.h"

/* ---- taking and giving back ---- */

void xi_lanes_reserve(struct xi_queue *q)
{
    struct xi_session *s = q->session;
    uint32_t room = s->max_batch <= 1 ? XI_CONVOY_MAX : s->max_batch, lanes = q->max_lanes, i;
    struct xi_lane_item *items;

    if (room > XI_BATCH_MAX)
        room = XI_BATCH_MAX;
    if (room <= q->lane_room)
        return;
    items = realloc(s->lanes[0].items, (size_t)lanes * room * sizeof(*items));
    if (items == NULL)
        return;
    q->lane_room = room;
    for (i = 0; i < lanes; i++)
        s->lanes[i].items = items + (size_t)i * room;
}

static void lane_given_back(struct xi_queue *q, uint32_t index)
{
    if (index < q->n_run)
        q->free_run[q->n_free_run++] = index;
    else
        q->free_stage[q->n_free_stage++] = index;
}

/* What the lane was busy, by our own clock: a host cannot make itself cheap. */
static uint64_t lane_took(const struct xi_lane *lane)
{
    uint64_t took = xi_now_ns() - lane->started_ns;

    return took > lane->reported_ns ? took : lane->reported_ns;
}

static void put_item(struct xi_lane_item *item)
{
    xi_slot_put(item->slot);
    xi_loan_put(item->loan);
    xi_slot_put(item->state);
    *item = (struct xi_lane_item){0};
}

void xi_lane_release(struct xi_queue *q, uint32_t index)
{
    struct xi_lane *lane = &q->session->lanes[index];
    uint64_t took = lane_took(lane);
    uint32_t i;

    for (i = 0; i < lane->n; i++) {
        if (lane->items[i].id != 0)
            put_item(&lane->items[i]);
    }
    xi_fair_end(&lane->device->fair, &lane->ticket, took * lane->cost);
    if (q->session->owner != NULL)
        q->session->owner->device_ns += took * lane->cost;
    lane->device->used -= lane->cost;
    xi_core_give(q->pool, lane);
    lane->left = 0;
    lane->n = 0;
    q->pool->running--;
    if (q->cell != NULL) {
        q->cell->busy_lanes--;
        if (q->cell->alone == q)
            q->cell->alone = NULL;
    }
    lane_given_back(q, index);
}

static struct xi_lane_item *find_item(const struct xi_lane *lane, uint64_t id)
{
    uint32_t i;

    for (i = 0; i < lane->n; i++) {
        if (lane->items[i].id == id)
            return &lane->items[i];
    }
    return NULL;
}

void xi_lane_orphan(struct xi_queue *q, const struct xi_request *req)
{
    if (req->state == XI_REQ_RUNNING)
        find_item(&q->session->lanes[req->lane], req->id)->request = NULL;
}

/* ---- work to the host ---- */

static enum xi_work_op op_of(const struct xi_session *s, const struct xi_request *req)
{
    if (req->stage == XI_STAGE_PRE)
        return XI_WORK_PRE;
    if (req->stage == XI_STAGE_POST)
        return XI_WORK_POST;
    return s->staged ? XI_WORK_INFER : XI_WORK_ALL;
}

static uint32_t wanted(const struct xi_request *req)
{
    return req->want | (req->n_state > 0 ? XI_INPUT_GOES_ON : 0u);
}

/* Outputs beyond what one record may name come back as they would without a place. */
static uint32_t places_of(const struct xi_request *req, uint32_t n_parts)
{
    if (req->prepared || req->loan == NULL)
        return 0;
    return req->loan->n_places < XI_TENSORS_MAX - n_parts ? req->loan->n_places
                                                          : XI_TENSORS_MAX - n_parts;
}

static enum xi_rc send_work(struct xi_queue *q, uint32_t lane, enum xi_work_op op, int core,
                            struct xi_request *const *items, uint32_t n)
{
    XI_UNINIT struct xi_work_item work[XI_BATCH_MAX];
    XI_UNINIT struct xi_segment *segments[XI_WORK_RECORD_MAX / sizeof(struct xi_part)];
    struct xi_err err;
    uint32_t i, p, used = 0;

    for (i = 0; i < n; i++) {
        const struct xi_request *req = items[i];
        uint32_t n_parts = req->prepared ? 0 : req->n_parts;
        uint32_t n_places = places_of(req, n_parts);

        work[i] = (struct xi_work_item){.request = {.id = req->id,
                                                    .deadline_ns = req->deadline_ns,
                                                    .want = wanted(req),
                                                    .n_parts = n_parts + n_places,
                                                    .n_places = n_places,
                                                    .n_state = req->prepared ? 0 : req->n_state,
                                                    .flags = xi_sequence_work_flags(req)},
                                        .parts = req->parts,
                                        .places = n_places > 0 ? req->loan->places : NULL,
                                        .segments = &segments[used]};
        for (p = 0; p < n_parts; p++)
            segments[used++] = p < req->n_parts - req->n_state ? xi_request_segment(req, p)
                                                               : xi_sequence_slot(req)->segment;
        for (p = 0; p < n_places; p++)
            segments[used++] = req->loan->segments[p];
    }
    return xi_host_submit(q->session->host, q->session->first_lane + lane, op, core, work, n, &err);
}

/* The one that was on this core last, if it is free. */
static uint32_t pop_lane(struct xi_queue *q, enum xi_turn_kind kind, int core)
{
    uint32_t *free = kind == XI_TURN_RUN ? q->free_run : q->free_stage;
    uint32_t *n = kind == XI_TURN_RUN ? &q->n_free_run : &q->n_free_stage;
    uint32_t at = *n - 1, i = *n, index;

    while (i-- > 0) {
        if (q->session->lanes[free[i]].core == core) {
            at = i;
            break;
        }
    }
    index = free[at];
    free[at] = free[--*n];
    return index;
}

static void fill_lane(struct xi_lane *lane, struct xi_request *const *items, uint32_t n)
{
    uint32_t i;

    for (i = 0; i < n; i++) {
        lane->items[i] = (struct xi_lane_item){.id = items[i]->id,
                                               .request = items[i],
                                               .slot = items[i]->slot,
                                               .loan = items[i]->loan,
                                               .state = xi_sequence_slot(items[i]),
                                               .prepared = items[i]->prepared};
        if (items[i]->slot != NULL)
            xi_slot_get(items[i]->slot);
        if (items[i]->loan != NULL)
            xi_loan_get(items[i]->loan);
        if (lane->items[i].state != NULL)
            xi_slot_get(lane->items[i].state);
    }
    lane->n = n;
    lane->left = n;
}

static void mark_running(struct xi_queue *q, struct xi_request *req, uint32_t lane, uint64_t now)
{
    req->lane = lane;
    xi_request_move(req, XI_REQ_RUNNING);
    if (req->prepared)
        return; /* it goes on, it does not begin */
    req->timing.dispatched = now;
    if (req->attempts++ > 0)
        q->pool->stats.retried++;
    q->pool->stats.dispatched++;
}

/* Nothing was sent: the lane is as it was before. */
static void not_sent(struct xi_queue *q, uint32_t lane, enum xi_rc rc, struct xi_request **items,
                     uint32_t n)
{
    uint32_t i;

    lane_given_back(q, lane);
    if (rc == XI_EHOST) {
        q->killed = 1; /* it is ending: EXITED comes, they wait for the next host */
        return;
    }
    for (i = 0; i < n; i++)
        xi_request_refuse(items[i], rc);
}

static void count_runs(struct xi_queue *q, uint32_t n)
{
    uint32_t runs = q->lines[XI_STAGE_RUN].max_rows > 1 ? 1 : n; /* a convoy shares none */

    q->pool->stats.batches += runs;
    q->session->stats.runs += runs;
    q->session->stats.ran += n;
}

void xi_lane_start(struct xi_queue *q, struct xi_turn *turn, struct xi_request **items, uint32_t n)
{
    int core = xi_core_take(turn);
    uint32_t index = pop_lane(q, turn->kind, core), i;
    struct xi_lane *lane = &q->session->lanes[index];
    int suspect = items[0]->state == XI_REQ_SUSPECT;
    uint64_t now = xi_now_ns();
    enum xi_rc rc;

    lane->op = op_of(q->session, items[0]);
    lane->core = core;
    rc = send_work(q, index, lane->op, core, items, n);
    if (rc != XI_OK) {
        xi_core_drop(q->pool, core);
        not_sent(q, index, rc, items, n);
        return;
    }
    fill_lane(lane, items, n);
    lane->started_ns = now;
    lane->reported_ns = 0;
    lane->ended_on = XI_CORE_ANY;
    lane->kill_at_ns = now + xi_watchdog_allowance_ns(q, n);
    lane->device = xi_turn_device(turn);
    lane->cost = xi_turn_cost(turn);
    lane->device->used += lane->cost;
    xi_fair_start(&lane->device->fair, &turn->fair, &lane->ticket);
    q->pool->running++;
    q->cell->busy_lanes++;
    for (i = 0; i < n; i++)
        mark_running(q, items[i], index, now);
    if (turn->kind == XI_TURN_RUN)
        count_runs(q, n);
    if (suspect) {
        q->cell->alone = q;
        xi_cell_update(q->cell);
    }
    xi_watchdog_need(q->pool);
}

/* Not answered, and no lane is taken for it: it lies behind what runs there. */
void xi_pool_forget(struct xi_queue *q, uint64_t id)
{
    struct xi_work_item item = {.request = {.id = id}};
    struct xi_err err;
    uint32_t i;

    if (q->session->host == NULL || q->killed || q->cell == NULL || q->cell->gone)
        return;
    for (i = 0; i < q->n_stage; i++) {
        if (xi_host_submit(q->session->host, q->session->first_lane + q->n_run + i, XI_WORK_FORGET,
                           XI_CORE_ANY, &item, 1, &err) == XI_OK)
            return;
    }
}

/* ---- completions ---- */

static uint64_t capped(uint64_t ns)
{
    return ns > 3600ull * 1000000000ull ? 3600ull * 1000000000ull : ns;
}

/* Exponentially weighted, one eighth for the newest; nothing pushes it past an hour. */
static void average(uint64_t *mean, uint64_t ns)
{
    *mean = *mean == 0 ? capped(ns) : *mean - *mean / 8 + capped(ns) / 8;
}

static void learn(struct xi_session *s, const struct xi_lane *lane, const struct xi_done *done)
{
    int runs = lane->op == XI_WORK_ALL || lane->op == XI_WORK_INFER;

    s->stats.copied_bytes += done->copied_bytes;
    if (!runs)
        return;
    s->stats.device_ns += done->device_ns;
    if (done->code != XI_OK)
        return;
    xi_hist_add(&s->stats.device, done->device_ns / 1000u);
    average(&s->service_ns, capped(done->pre_ns) + capped(done->device_ns) + capped(done->post_ns));
}

/* The lane has answered all: how long such a record takes. */
static void learn_run(struct xi_queue *q, const struct xi_lane *lane)
{
    int runs = lane->op == XI_WORK_ALL || lane->op == XI_WORK_INFER;

    average(runs ? &q->run_ns : &q->stage_ns, lane_took(lane));
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
    if (s->host != NULL)
        xi_host_stop(s->host, 0, "answered a request that it was not given");
}

/* What the host says to have written to places was given those, and has room there. */
static int places_right(const struct xi_lane_item *item, const struct xi_reply *reply)
{
    uint32_t i, visible = reply->done.n_parts - reply->done.n_state;

    for (i = 0; i < reply->done.n_parts; i++) {
        const struct xi_part *place;

        if (reply->segments[i] != NULL)
            continue;
        place = item->loan != NULL ? xi_loan_find(item->loan, reply->parts[i].index) : NULL;
        if (i >= visible || place == NULL || reply->parts[i].mem.bytes > place->mem.bytes)
            return 0;
    }
    return 1;
}

/* 1: another stage follows. */
static int goes_on(const struct xi_lane *lane, const struct xi_lane_item *item,
                   const struct xi_done *done)
{
    return done->code == XI_OK &&
           (lane->op == XI_WORK_PRE || (lane->op == XI_WORK_INFER && item->prepared));
}

static void next_stage(struct xi_queue *q, struct xi_request *req, enum xi_work_op op,
                       const struct xi_done *done, int suspect)
{
    if (op == XI_WORK_PRE) {
        req->prepared = 1;
        q->prepared++;
        req->shape_key = done->shape_key;
        req->stage = XI_STAGE_RUN;
    } else {
        req->stage = XI_STAGE_POST;
    }
    xi_request_move(req, suspect ? XI_REQ_SUSPECT : XI_REQ_QUEUED);
}

/* The lane first, then the words. */
static void carry_on(struct xi_queue *q, int was_alone)
{
    if (was_alone || (q->cell->suspects > 0 && q->cell->busy_lanes == 0))
        xi_cell_update(q->cell);
    else
        xi_queue_update(q);
    xi_pool_dispatch(q->pool);
    xi_pool_arm_deadline(q->pool); /* of what waits for its next stage */
}

void xi_pool_completed(struct xi_session *s, uint32_t index, struct xi_reply *reply)
{
    struct xi_queue *q = s->queue;
    struct xi_lane *lane = index < q->n_run + q->n_stage ? &s->lanes[index] : NULL;
    struct xi_lane_item *item = lane == NULL ? NULL : find_item(lane, reply->done.id);
    struct xi_request *req;
    int more, suspect;

    if (item == NULL || reply->done.id == 0 || !places_right(item, reply)) {
        lied(s, reply);
        return;
    }
    if ((reply->done.flags & XI_DONE_FINAL) == 0) {
        xi_reply_release(reply); /* nobody asked for provisional answers */
        return;
    }
    req = item->request;
    more = goes_on(lane, item, &reply->done);
    suspect = q->cell->alone == q;
    if (req == NULL && more)
        xi_pool_forget(q, item->id);
    if (reply->done.code == XI_EREGION && item->loan != NULL)
        xi_loan_spoiled(item->loan);
    put_item(item);
    lane->reported_ns +=
        capped(reply->done.pre_ns) + capped(reply->done.device_ns) + capped(reply->done.post_ns);
    learn(s, lane, &reply->done);
    lane->ended_on = reply->done.core;
    if (--lane->left == 0) {
        learn_run(q, lane);
        xi_lane_release(q, index);
    }
    if (req != NULL && more)
        next_stage(q, req, lane->op, &reply->done, suspect);
    else if (req != NULL)
        xi_request_move(req, XI_REQ_LEAVING);
    q->answered += req != NULL && !more;
    q->pool->stats.completed += !more;
    carry_on(q, suspect);
    if (req == NULL || more)
        xi_reply_release(reply);
    else
        answer(req, reply);
    xi_pool_settle(q->pool);
}
