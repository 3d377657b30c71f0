#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "daemon/core/pool_poison.h"
#include "daemon/core/pool_private.h"
#include "daemon/loop/workers.h"

enum check_purpose { CHECK_INCOMING, CHECK_CONVICT };

/* One fingerprint on the work pool. The slot is held, so the request may leave meanwhile. */
struct xi_check {
    struct xi_work work;
    struct xi_pool *pool;
    struct xi_request *request; /* NULL: it left */
    struct xi_slot *slot;
    struct xi_loan *loan;
    uint32_t n_parts;
    struct xi_part parts[XI_TENSORS_MAX];
    enum check_purpose purpose;
    struct xi_digest result;
    int failed;
    char incident[XI_UUID_TEXT + 1], reason[160];
};

static uint64_t input_bytes(const struct xi_part *parts, uint32_t n)
{
    uint64_t sum = 0;
    uint32_t i;

    for (i = 0; i < n; i++)
        sum += parts[i].mem.bytes;
    return sum;
}

/* A client's memory is read and never mapped here. */
static int add_region(struct xi_sha256 *hash, const struct xi_segment *segment,
                      const struct xi_mem_ref *mem)
{
    XI_UNINIT uint8_t piece[32 * XI_KIB];
    struct xi_err err;
    uint64_t done, n;

    for (done = 0; done < mem->bytes; done += n) {
        n = mem->bytes - done < sizeof(piece) ? mem->bytes - done : sizeof(piece);
        if (xi_segment_read(segment, mem->offset + done, piece, n, &err) != XI_OK)
            return 0;
        xi_sha256_add(hash, piece, n);
    }
    return 1;
}

/* SHA-256 over what the model gets: each part's kind, port, type, shape, length and bytes; where
 * in memory it lies is left out. Any thread. Returns 0 when memory is out, or a client's has gone.
 */
static int fingerprint(const struct xi_slot *slot, const struct xi_loan *loan,
                       const struct xi_part *parts, uint32_t n, struct xi_digest *ret)
{
    struct xi_sha256 *hash = xi_sha256_new();
    uint32_t i;
    int ok = 1;

    if (hash == NULL)
        return 0;
    for (i = 0; i < n && ok; i++) {
        const struct xi_part *part = &parts[i];
        uint64_t head[5 + XI_MAX_RANK] = {part->kind, part->index, part->dtype,
                                          (uint64_t)part->rank, part->mem.bytes};
        int d;

        for (d = 0; d < part->rank && d < XI_MAX_RANK; d++)
            head[5 + d] = (uint64_t)part->dims[d];
        xi_sha256_add(hash, head, sizeof(head));
        if (loan != NULL && loan->inputs[i] != NULL)
            ok = add_region(hash, loan->inputs[i], &part->mem);
        else
            xi_sha256_add(hash, (const uint8_t *)slot->segment->map.base + part->mem.offset,
                          part->mem.bytes);
    }
    xi_sha256_end(hash, ret);
    xi_sha256_free(hash);
    return ok;
}

static int same_case(const struct xi_poison *p, const struct xi_session *s, uint64_t bytes)
{
    return p->expires_ms != 0 && p->bytes == bytes && strcmp(p->package, s->digest) == 0;
}

static void expire(struct xi_pool *pool, uint64_t now_ms)
{
    uint32_t i;

    for (i = 0; i < XI_POISON_MAX; i++) {
        if (pool->poison[i].expires_ms != 0 && pool->poison[i].expires_ms <= now_ms) {
            pool->poison[i].expires_ms = 0;
            pool->n_poison--;
        }
    }
}

static int any_of_size(struct xi_pool *pool, const struct xi_session *s, uint64_t bytes)
{
    uint32_t i;

    expire(pool, xi_now_ms());
    for (i = 0; i < XI_POISON_MAX; i++) {
        if (same_case(&pool->poison[i], s, bytes))
            return 1;
    }
    return 0;
}

static const struct xi_poison *known(const struct xi_pool *pool, const struct xi_session *s,
                                     uint64_t bytes, const struct xi_digest *print)
{
    uint32_t i;

    for (i = 0; i < XI_POISON_MAX; i++) {
        const struct xi_poison *p = &pool->poison[i];

        if (same_case(p, s, bytes) && xi_digest_equal(&p->fingerprint, print))
            return p;
    }
    return NULL;
}

/* An unused place, else the one that expires first. */
static struct xi_poison *place(struct xi_pool *pool)
{
    struct xi_poison *best = &pool->poison[0];
    uint32_t i;

    for (i = 1; i < XI_POISON_MAX && best->expires_ms != 0; i++) {
        if (pool->poison[i].expires_ms < best->expires_ms)
            best = &pool->poison[i];
    }
    if (best->expires_ms == 0)
        pool->n_poison++;
    return best;
}

static void remember(struct xi_check *check, const struct xi_session *s)
{
    struct xi_poison *p = place(check->pool);

    *p = (struct xi_poison){.bytes = input_bytes(check->parts, check->n_parts),
                            .expires_ms = xi_now_ms() + XI_POISON_MS,
                            .fingerprint = check->result};
    memcpy(p->package, s->digest, sizeof(p->package));
    memcpy(p->incident, check->incident, sizeof(p->incident));
}

static void refuse(struct xi_pool *pool, struct xi_request *req, const struct xi_poison *p)
{
    struct xi_err err;

    pool->stats.poison_refused++;
    (void)xi_fail(&err, XI_EPOISON, "the same input ended this model's host before (incident %s)",
                  p->incident);
    (void)xi_hint(&err, "it is refused for another %llu s",
                  (unsigned long long)((p->expires_ms - xi_now_ms()) / 1000u));
    xi_request_finish(req, XI_EPOISON, NULL, &err);
}

static void say_incident(struct xi_err *err, const char *incident, const char *reason)
{
    (void)xi_fail(err, XI_EINCIDENT, "incident %s: the model's host %s while it ran this alone",
                  incident, reason);
    (void)xi_hint(err, "the same input is refused for %u minutes; other requests go on",
                  XI_POISON_MS / 60000u);
}

static void answer_incident(struct xi_request *req, const char *incident, const char *reason)
{
    struct xi_err err;

    say_incident(&err, incident, reason);
    xi_request_finish(req, XI_EINCIDENT, NULL, &err);
}

/* Only what always has the same answer is kept; a client may change its own memory between the
 * fingerprint and the run. */
static int may_cache(const struct xi_request *req)
{
    const struct xi_session *s = req->session;

    return s->options.cache_bytes > 0 && s->stateful == XI_STATE_NONE && req->sequence == NULL &&
           req->loan == NULL;
}

static int from_cache(struct xi_request *req, const struct xi_digest *print)
{
    struct xi_session *s = req->session;
    struct xi_reply reply;

    if (s->cache == NULL)
        s->cache = xi_cache_new(s->options.cache_bytes);
    if (s->cache == NULL)
        return 0;
    req->cache_key = (struct xi_cache_key){.inputs = *print, .want = req->want};
    if (!xi_cache_get(s->cache, &req->cache_key, &reply)) {
        req->cache = XI_CACHE_MISS;
        s->stats.cache_misses++;
        return 0;
    }
    req->cache = XI_CACHE_HIT;
    s->stats.cache_hits++;
    xi_request_finish(req, XI_OK, &reply, NULL);
    return 1;
}

/* 1: it was refused, or its answer was there. */
static int judged(struct xi_request *req, uint64_t bytes, const struct xi_digest *print)
{
    struct xi_pool *pool = req->session->queue->pool;
    const struct xi_poison *p = NULL;

    if (pool->n_poison > 0 && any_of_size(pool, req->session, bytes))
        p = known(pool, req->session, bytes, print);
    if (p == NULL)
        return may_cache(req) && from_cache(req, print);
    refuse(pool, req, p);
    return 1;
}

static void concluded(struct xi_check *check, struct xi_request *req)
{
    struct xi_queue *q = req->session->queue;
    uint64_t bytes = input_bytes(check->parts, check->n_parts);

    if (check->purpose == CHECK_CONVICT) {
        if (!check->failed)
            remember(check, req->session);
        answer_incident(req, check->incident, check->reason);
        return;
    }
    if (check->failed || !judged(req, bytes, &check->result))
        xi_pool_enqueue(q, req);
}

static void on_hash(struct xi_work *work)
{
    struct xi_check *check = work->data;

    check->failed =
        !fingerprint(check->slot, check->loan, check->parts, check->n_parts, &check->result);
}

static void on_hashed(struct xi_work *work)
{
    struct xi_check *check = work->data;

    check->pool->checks--;
    if (check->request != NULL)
        concluded(check, check->request);
    xi_pool_settle(check->pool);
    xi_slot_put(check->slot);
    xi_loan_put(check->loan);
    xi_pool_release(check->pool);
    free(check);
}

void xi_check_drop(struct xi_request *req)
{
    if (req->check != NULL)
        req->check->request = NULL;
    req->check = NULL;
}

static struct xi_check *check_begin(struct xi_pool *pool, struct xi_request *req,
                                    enum check_purpose purpose)
{
    struct xi_check *check = calloc(1, sizeof(*check));

    if (check == NULL)
        return NULL;
    check->work.data = check;
    check->pool = pool;
    check->purpose = purpose;
    check->n_parts = req->n_parts - req->n_state; /* what the client sent */
    memcpy(check->parts, req->parts, check->n_parts * sizeof(req->parts[0]));
    check->slot = req->slot;
    check->loan = req->loan;
    if (check->slot != NULL)
        xi_slot_get(check->slot);
    if (check->loan != NULL)
        xi_loan_get(check->loan);
    return check;
}

static void check_start(struct xi_check *check, struct xi_request *req)
{
    xi_request_move(req, XI_REQ_CHECKING);
    check->request = req;
    req->check = check;
    check->pool->checks++;
    xi_work_queue(check->pool->loop, &check->work, on_hash, on_hashed);
}

int xi_poison_check(struct xi_queue *q, struct xi_request *req)
{
    struct xi_pool *pool = q->pool;
    uint64_t bytes = input_bytes(req->parts, req->n_parts);
    struct xi_check *check;
    struct xi_digest print;

    if (req->slot == NULL && req->loan == NULL)
        return 0;
    if (!may_cache(req) && (pool->n_poison == 0 || !any_of_size(pool, q->session, bytes)))
        return 0;
    if (bytes <= XI_HASH_ON_LOOP)
        return fingerprint(req->slot, req->loan, req->parts, req->n_parts, &print) &&
               judged(req, bytes, &print);
    check = check_begin(pool, req, CHECK_INCOMING);
    if (check == NULL)
        return 0; /* memory is out: the model's host will be the judge */
    check_start(check, req);
    return 1;
}

void xi_poison_convict(struct xi_queue *q, struct xi_request *req, const char *reason)
{
    struct xi_check *check =
        req->slot == NULL && req->loan == NULL ? NULL : check_begin(q->pool, req, CHECK_CONVICT);
    char incident[XI_UUID_TEXT + 1];
    struct xi_err err;

    q->pool->stats.incidents++;
    xi_uuid_new(incident);
    xi_log(XI_WARN, "request.incident", "id=%s request=%llu incident=%s host=%s", q->session->id,
           (unsigned long long)req->id, incident, reason);
    say_incident(&err, incident, reason);
    xi_note_incident(q, req, &err);
    if (check == NULL) {
        answer_incident(req, incident, reason);
        return;
    }
    memcpy(check->incident, incident, sizeof(incident));
    (void)snprintf(check->reason, sizeof(check->reason), "%s", reason);
    check_start(check, req);
}
