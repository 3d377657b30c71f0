#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "daemon/core/pool_private.h"

#define NOTE_EVERY_NS 1000000000ull /* of one session and kind: a flood is one line a second */

/* 0: one was noted just now; this one is only counted. */
static int may_note(struct xi_queue *q, unsigned kind, uint32_t *ret_left_out)
{
    struct xi_note_rate *rate = &q->notes[kind];
    uint64_t now = xi_now_ns();

    if (rate->at_ns != 0 && now - rate->at_ns < NOTE_EVERY_NS) {
        rate->left_out++;
        return 0;
    }
    *ret_left_out = rate->left_out;
    rate->at_ns = now;
    rate->left_out = 0;
    return 1;
}

static void note(const struct xi_queue *q, const struct xi_request *req, struct xi_why_entry *entry,
                 uint32_t left_out)
{
    const struct xi_session *s = q->session;
    size_t used = strlen(entry->text);

    if (left_out > 0)
        (void)snprintf(entry->text + used, sizeof(entry->text) - used, " (and %u more before)",
                       left_out);
    entry->request = req->id;
    (void)snprintf(entry->session, sizeof(entry->session), "%s", s->id);
    (void)snprintf(entry->name, sizeof(entry->name), "%s", s->name);
    (void)snprintf(entry->tenant, sizeof(entry->tenant), "%s", s->tenant);
    xi_why_note(q->pool->config.why, entry);
}

void xi_note_refused(struct xi_queue *q, const struct xi_request *req, const struct xi_err *err)
{
    struct xi_why_entry entry = {.kind = XI_WHY_REFUSED, .rc = err->rc};
    uint32_t left_out;

    if (err->rc != XI_EAGAIN && err->rc != XI_EQUOTA && err->rc != XI_ESEQUENCE)
        return; /* the client's own mistakes, and what others note */
    if (!may_note(q, err->rc == XI_EQUOTA ? XI_NOTE_QUOTA : XI_NOTE_QUEUE, &left_out))
        return;
    (void)snprintf(entry.text, sizeof(entry.text), "%s", err->msg);
    (void)snprintf(entry.hint, sizeof(entry.hint), "%s", err->hint);
    xi_log(XI_WARN, "request.refused",
           "id=%s name=%s tenant=%s code=%s request=%llu more=%u why=%s", q->session->id,
           q->session->name, q->session->tenant, xi_rc_code(err->rc), (unsigned long long)req->id,
           left_out, err->msg);
    note(q, req, &entry, left_out);
}

void xi_pool_refuse(struct xi_request *req, const struct xi_err *err)
{
    xi_note_refused(req->session->queue, req, err);
    xi_request_finish(req, err->rc, NULL, err);
}

void xi_note_incident(struct xi_queue *q, const struct xi_request *req, const struct xi_err *err)
{
    struct xi_why_entry entry = {.kind = XI_WHY_INCIDENT, .rc = err->rc};

    (void)snprintf(entry.text, sizeof(entry.text), "%s", err->msg);
    (void)snprintf(entry.hint, sizeof(entry.hint), "%s", err->hint);
    note(q, req, &entry, 0);
}

static uint64_t ms_between(uint64_t from_ns, uint64_t to_ns)
{
    return from_ns == 0 || to_ns < from_ns ? 0 : (to_ns - from_ns) / 1000000u;
}

/* It ran when its deadline passed, and was answered all the same. */
static int is_late(const struct xi_request *req)
{
    return req->deadline_ns != 0 && req->timing.completed > req->deadline_ns;
}

/* An answer that took more than a second and ten times the usual, or that came too late. */
void xi_note_end(struct xi_queue *q, const struct xi_request *req, enum xi_rc rc)
{
    const struct xi_session *s = q->session;
    const struct xi_request_timing *t = &req->timing;
    struct xi_why_entry entry = {.kind = XI_WHY_SLOW, .rc = rc};
    uint64_t took = t->completed - t->born, usual_us, ran_at;
    uint32_t left_out;
    int late;

    late = rc == XI_ETIMEOUT || (rc == XI_OK && is_late(req));
    if (!late && (rc != XI_OK || took < XI_SLOW_NS))
        return;
    usual_us = xi_hist_quantile_us(&s->stats.total, 0.5);
    if (!late && took / 1000u < 10 * usual_us)
        return;
    if (!may_note(q, XI_NOTE_SLOW, &left_out))
        return;
    ran_at = t->dispatched != 0 ? t->dispatched : t->completed;
    (void)snprintf(
        entry.text, sizeof(entry.text),
        "request %llu %s %llu ms%s where half of them take at most %llu ms: it waited %llu "
        "ms and ran %llu ms, %u attempt%s; %u wait now",
        (unsigned long long)req->id, rc == XI_OK ? "took" : "expired after",
        (unsigned long long)(took / 1000000u), rc == XI_OK && late ? ", past its deadline," : "",
        (unsigned long long)(usual_us / 1000u), (unsigned long long)ms_between(t->queued, ran_at),
        (unsigned long long)ms_between(t->dispatched, t->completed), req->attempts,
        req->attempts == 1 ? "" : "s", s->queued);
    xi_log(XI_WARN, "request.slow", "id=%s name=%s tenant=%s request=%llu ms=%llu more=%u why=%s",
           s->id, s->name, s->tenant, (unsigned long long)req->id,
           (unsigned long long)(took / 1000000u), left_out, entry.text);
    note(q, req, &entry, left_out);
}
