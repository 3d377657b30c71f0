#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "daemon/core/sequences.h"
#include "daemon/core/session_private.h"

#define CLOCK_MS 250u

/* A sequence goes on from what its model keeps: it ends with its client or by its idle time. */
int xi_entry_unused(const struct xi_entry *e)
{
    const struct xi_session *s = &e->s;
    struct xi_sequences_stats sequences;

    if (s->state != XI_SESSION_READY || s->users > 0 || s->leases > 0 || e->swap != NULL ||
        xi_pool_busy(s))
        return 0;
    xi_sequences_stats(s, &sequences);
    return sequences.open == 0;
}

int xi_sessions_idle(struct xi_sessions *m, struct xi_session *s, const char *why)
{
    struct xi_entry *e = xi_entry_of(s);

    XI_ASSERT(e->m == m);
    if (!xi_entry_unused(e))
        return 0;
    xi_log(XI_INFO, "session.idle", "id=%s name=%s bytes=%llu why=%s", s->id, s->name,
           (unsigned long long)s->memory_bytes, why);
    xi_entry_feed(e, XI_EV_PARK);
    return 1;
}

/* ---- leases ---- */

void xi_leases_move(struct xi_sessions *m, struct xi_session *from, struct xi_session *to)
{
    if (from->leases > 0)
        xi_leases_hand_over(&m->leases, from, to);
}

enum xi_rc xi_sessions_lease(struct xi_sessions *m, struct xi_session *s, uint32_t ttl_s,
                             const struct xi_lease **ret, struct xi_err *err)
{
    enum xi_rc rc;

    if (s->state == XI_SESSION_FAILED || s->state == XI_SESSION_DRAINING ||
        s->state == XI_SESSION_GONE)
        return xi_fail(err, XI_EGONE, "session %s of %s is %s", s->id, s->name,
                       xi_session_state_name(s->state));
    rc = xi_leases_add(&m->leases, s, xi_now_ms() + ttl_s * 1000ull, ret, err);
    if (rc != XI_OK)
        return rc;
    xi_log(XI_INFO, "lease.begun", "lease=%s id=%s name=%s ttl_s=%u", (*ret)->id, s->id, s->name,
           ttl_s);
    xi_clock_need(m);
    if (s->state == XI_SESSION_IDLE && xi_entry_of(s)->swap == NULL)
        xi_entry_feed(xi_entry_of(s), XI_EV_LOAD);
    return XI_OK;
}

enum xi_rc xi_sessions_lease_renew(struct xi_sessions *m, const char *tenant, const char *id,
                                   uint32_t ttl_s, const struct xi_lease **ret, struct xi_err *err)
{
    struct xi_lease *lease = xi_leases_find(&m->leases, id);

    if (lease == NULL || (tenant != NULL && strcmp(lease->session->tenant, tenant) != 0)) {
        (void)xi_fail(err, XI_ENOENT, "no lease %s is held", id);
        return xi_hint(err,
                       "it has expired, its session was unloaded, or the daemon was restarted");
    }
    *ret = NULL;
    if (ttl_s == 0) {
        xi_log(XI_INFO, "lease.ended", "lease=%s id=%s name=%s why=given back", id,
               lease->session->id, lease->session->name);
        xi_leases_end(&m->leases, lease);
        return XI_OK;
    }
    lease->expires_ms = xi_now_ms() + ttl_s * 1000ull;
    *ret = lease;
    return XI_OK;
}

/* ---- the clock ---- */

static void look_after(struct xi_entry *e, uint64_t now)
{
    const struct xi_session *s = &e->s;
    uint64_t keep_ms = s->options.keep_alive_s * 1000ull;
    char why[64];

    if (keep_ms == 0 || s->options.pinned || s->state != XI_SESSION_READY ||
        now - s->last_used_ms < keep_ms)
        return;
    (void)snprintf(why, sizeof(why), "nobody asked it for %u s", s->options.keep_alive_s);
    (void)xi_sessions_idle(e->m, &e->s, why);
}

static int needs_clock(const struct xi_sessions *m)
{
    const struct xi_entry *e;

    if (m->leases.n > 0)
        return 1;
    for (e = m->first; e != NULL; e = e->next) {
        if (e->s.options.keep_alive_s > 0)
            return 1;
    }
    return 0;
}

static void on_clock(uv_timer_t *t)
{
    struct xi_sessions *m = t->data;
    struct xi_entry *e, *next;
    uint64_t now = xi_now_ms();
    uint32_t ended = xi_leases_expire(&m->leases, now);

    if (ended > 0)
        xi_log(XI_INFO, "lease.expired", "leases=%u left=%u", ended, m->leases.n);
    for (e = m->first; e != NULL; e = next) {
        next = e->next;
        look_after(e, now);
    }
    if (!needs_clock(m))
        (void)uv_timer_stop(t);
}

void xi_clock_need(struct xi_sessions *m)
{
    if (m->closing || uv_is_active((uv_handle_t *)&m->clock) || !needs_clock(m))
        return;
    (void)uv_timer_start(&m->clock, on_clock, CLOCK_MS, CLOCK_MS);
    uv_unref((uv_handle_t *)&m->clock);
}
