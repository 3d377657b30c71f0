#include "base/clock.h"
#include "daemon/core/pool_private.h"

/* ---- room ---- */

static uint64_t lanes_of(const struct xi_session *s)
{
    return s->lane_count == 0 ? 1 : s->lane_count;
}

/* About how long until the queue has room again: what is ahead, over what runs at once. */
static unsigned retry_after(const struct xi_session *s, uint32_t ahead)
{
    uint64_t seconds = (uint64_t)ahead * s->service_ns / lanes_of(s) / 1000000000u + 1;

    return seconds > 30 ? 30 : (unsigned)seconds;
}

static enum xi_rc check_mode(struct xi_queue *q, struct xi_request *req, struct xi_err *err)
{
    if (q->pool->draining) {
        req->retry_after_s = 1;
        return xi_fail(err, XI_EDRAIN, "the daemon is shutting down");
    }
    if (q->mode == XI_QUEUE_CLOSED)
        return xi_fail(err, XI_EGONE, "session %s is being unloaded", q->session->id);
    if (q->mode == XI_QUEUE_FAILED) {
        req->retry_after_s = q->refusal_retry_s;
        *err = q->refusal;
        return q->refusal.rc;
    }
    return XI_OK;
}

static enum xi_rc check_room(struct xi_queue *q, struct xi_request *req, struct xi_err *err)
{
    struct xi_session *s = q->session;
    struct xi_tenant *t = s->owner;
    uint32_t waiting = s->queued + q->checking.n + q->ordered.n;

    if (waiting >= q->pool->config.queue_limit) {
        req->retry_after_s = retry_after(s, waiting);
        return xi_fail(err, XI_EAGAIN, "%u requests wait for %s already, %u may", waiting, s->name,
                       q->pool->config.queue_limit);
    }
    if (t != NULL && t->limits.queue_limit != 0 && t->queued >= t->limits.queue_limit) {
        t->refused_quota++;
        req->retry_after_s = retry_after(s, t->queued);
        (void)xi_fail(err, XI_EQUOTA, "%u requests of tenant %s wait already, %u may", t->queued,
                      t->name, t->limits.queue_limit);
        return xi_hint(err, "wait for answers before you send more");
    }
    return XI_OK;
}

/* Refused now rather than dropped later: with all its lanes at work, and what runs now half done,
 * it could not be in time. A session where nothing is ahead is given a try: what was learned of it
 * may be old. */
static enum xi_rc check_deadline(struct xi_queue *q, struct xi_request *req, struct xi_err *err)
{
    const struct xi_session *s = q->session;
    uint64_t now = xi_now_ns(), needed, left;
    uint32_t ahead;

    if (req->deadline_ns == 0)
        return XI_OK;
    if (req->deadline_ns <= now)
        return xi_fail(err, XI_ETIMEOUT, "its deadline passed before it was complete");
    ahead = xi_batcher_ahead(&q->lines[req->stage], req, now);
    if (ahead == 0 || q->mode != XI_QUEUE_OPEN)
        return XI_OK;
    needed = (2ull * ahead + s->running) * s->service_ns / 2 / lanes_of(s) + s->service_ns;
    left = req->deadline_ns - now;
    if (needed <= left)
        return XI_OK;
    req->retry_after_s = retry_after(s, ahead);
    q->pool->stats.refused_early++;
    (void)xi_fail(err, XI_EAGAIN,
                  "%u requests are ahead of it, about %llu ms of work; its deadline is in %llu ms",
                  ahead, (unsigned long long)(needed / 1000000u),
                  (unsigned long long)(left / 1000000u));
    return xi_hint(err, "allow more time, or send less");
}

/* ---- inputs ---- */

/* In its slot, or in the segment of a client that was lent for it; never what has lengths in it
 * that somebody reads: a client could change those meanwhile. */
static int lies_right(const struct xi_request *req, uint32_t i)
{
    const struct xi_mem_ref *mem = &req->parts[i].mem;
    const struct xi_segment *segment = xi_request_segment(req, i);
    uint64_t from = 0, room;

    if (segment == NULL || mem->segment != segment->id)
        return 0;
    room = segment->map.bytes;
    if (segment->client &&
        (req->parts[i].kind != XI_PART_TENSOR || req->parts[i].dtype == XI_DT_BYTES))
        return 0;
    if (!segment->client) {
        from = req->slot->offset;
        room = req->slot->bytes;
    }
    return mem->offset >= from && mem->bytes <= room && mem->offset - from <= room - mem->bytes;
}

static enum xi_rc check_part(const struct xi_session *s, const struct xi_request *req, uint32_t i,
                             struct xi_err *err)
{
    const struct xi_part *part = &req->parts[i];
    struct xi_tensor tensor;

    if (!lies_right(req, i))
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
    tensor = xi_part_tensor(part, xi_request_segment(req, i)->map.base);
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
        rc = check_part(s, req, i, err);
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

/* ---- what may share a run ---- */

static uint64_t mix(uint64_t hash, uint64_t value)
{
    hash = (hash ^ value) * 0x9e3779b97f4a7c15ull;
    return hash ^ (hash >> 29);
}

/* Of tensors: types and dims without the first. Seeded, so that nobody can make two shapes look
 * alike on purpose. */
static void key_tensors(const struct xi_pool *pool, struct xi_request *req)
{
    uint64_t key = pool->key_seed;
    uint32_t i;
    int d;

    req->rows = 1;
    for (i = 0; i < req->n_parts; i++) {
        const struct xi_part *part = &req->parts[i];
        int64_t first = part->rank > 0 ? part->dims[0] : 0;

        if (first < 1 || first > XI_BATCH_MAX || (i > 0 && (uint32_t)first != req->rows)) {
            req->rows = 1;
            req->shape_key = mix(key, req->id); /* no rows that others could be put behind */
            return;
        }
        req->rows = (uint32_t)first;
        key = mix(mix(mix(key, part->index), part->dtype), (uint64_t)part->rank);
        for (d = 1; d < part->rank && d < XI_MAX_RANK; d++)
            key = mix(key, (uint64_t)part->dims[d]);
    }
    req->shape_key = key;
}

static int is_file(const struct xi_request *req)
{
    return req->parts[0].kind == XI_PART_BYTES;
}

void xi_request_restage(struct xi_request *req)
{
    req->stage = req->session->staged && is_file(req) ? XI_STAGE_PRE : XI_STAGE_RUN;
}

enum xi_rc xi_pool_admit(struct xi_queue *q, struct xi_request *req, struct xi_err *err)
{
    struct xi_session *s = q->session;
    enum xi_rc rc = check_mode(q, req, err);

    if (rc == XI_OK)
        rc = check_room(q, req, err);
    if (rc == XI_OK)
        rc = check_inputs(s, req, err);
    if (rc != XI_OK)
        return rc;
    if (req->priority < s->options.priority)
        req->priority = s->options.priority;
    if (req->priority > XI_PRIORITY_BATCH)
        req->priority = XI_PRIORITY_BATCH;
    req->rows = 1;
    req->shape_key = 0;
    if (!is_file(req))
        key_tensors(q->pool, req);
    xi_request_restage(req);
    rc = check_deadline(q, req, err);
    if (rc == XI_OK && s->owner != NULL && !req->copy)
        rc = xi_tenant_take(s->owner, xi_now_ns(), &req->retry_after_s, err);
    return rc;
}
