#include "daemon/core/session_swap.h"

#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/log.h"
#include "daemon/core/sequences.h"
#include "daemon/core/session_private.h"
#include "daemon/core/store.h"
#include "daemon/core/why.h"

#define TICK_MS     100u     /* how often a trial or a drain is looked at */
#define PREVIOUS_MS 3600000u /* so long a version is put back when its successor is quarantined */
#define ERRORS_MIN  3u /* so many, where they are more than the old one's, end a trial early */

static void note(const struct xi_swap *w, enum xi_rc rc, const char *text)
{
    struct xi_why_entry entry = {.kind = XI_WHY_SWAP, .rc = rc};

    (void)snprintf(entry.session, sizeof(entry.session), "%s", w->new->s.id);
    (void)snprintf(entry.name, sizeof(entry.name), "%s", w->new->s.name);
    (void)snprintf(entry.tenant, sizeof(entry.tenant), "%s", w->new->s.tenant);
    (void)snprintf(entry.text, sizeof(entry.text), "%s", text);
    (void)snprintf(entry.hint, sizeof(entry.hint), "%s", w->why.hint);
    xi_why_note(w->m->config.why, &entry);
}

static void say_phase(struct xi_swap *w, const char *phase)
{
    if (w->view.phase != NULL && strcmp(w->view.phase, phase) == 0)
        return;
    w->view.phase = phase;
    xi_log(XI_INFO, "swap.phase",
           "id=%s successor=%s name=%s phase=%s strategy=%s old_requests=%llu old_errors=%llu "
           "new_requests=%llu new_errors=%llu",
           w->old->s.id, w->new->s.id, w->new->s.name, phase, w->view.strategy,
           (unsigned long long)w->view.old_requests, (unsigned long long)w->view.old_errors,
           (unsigned long long)w->view.new_requests, (unsigned long long)w->view.new_errors);
}

/* ---- figures of a trial ---- */

static void begin_figures(struct xi_swap *w)
{
    w->old_base = w->old->s.stats;
    w->new_base = w->new->s.stats;
    w->new_crashes = w->new->s.crashes;
}

static void read_figures(struct xi_swap *w)
{
    const struct xi_session_stats *o, *n;

    if (w->fsm.phase != XI_SWAP_TRIAL)
        return;
    o = &w->old->s.stats;
    n = &w->new->s.stats;
    w->view.old_requests = o->requests - w->old_base.requests;
    w->view.old_errors = o->server_errors - w->old_base.server_errors;
    w->view.new_requests = n->requests - w->new_base.requests;
    w->view.new_errors = n->server_errors - w->new_base.server_errors;
}

/* The share of its requests that ended in an error of ours is larger than the old one's. */
static int is_worse(const struct xi_swap *w)
{
    const struct xi_swap_view *v = &w->view;

    if (v->new_errors == 0)
        return 0;
    return v->old_requests == 0 || (double)v->new_errors / (double)v->new_requests >
                                       (double)v->old_errors / (double)v->old_requests;
}

static void blame_errors(struct xi_swap *w)
{
    const struct xi_swap_view *v = &w->view;

    (void)xi_fail(&w->why, XI_EENGINE,
                  "%llu of %llu requests failed on the new session, %llu of %llu on the old one",
                  (unsigned long long)v->new_errors, (unsigned long long)v->new_requests,
                  (unsigned long long)v->old_errors, (unsigned long long)v->old_requests);
}

/* ---- actions ---- */

static void on_timer(uv_timer_t *t);
static void look(struct xi_swap *w);
static void feed(struct xi_swap *w, const struct xi_swap_input *in);

static void do_stop_timer(struct xi_swap *w)
{
    (void)uv_timer_stop(&w->timer);
}

static void do_block(struct xi_swap *w)
{
    w->view.strategy = "in-place";
    if (w->named != NULL)
        w->named->blocked = 1;
}

static void do_park_old(struct xi_swap *w)
{
    xi_entry_feed(w->old, XI_EV_PARK);
}

static void do_load_new(struct xi_swap *w)
{
    xi_entry_feed(w->new, XI_EV_LOAD);
}

static void do_share(struct xi_swap *w)
{
    begin_figures(w);
    if (w->old->named != w->named)
        return; /* it is being unloaded: that is looked at next */
    if (w->fsm.trial == XI_TRIAL_CANARY)
        xi_names_share(w->named, w->new, w->view.share);
    else
        w->named->mirror = w->new;
}

static void do_unshare(struct xi_swap *w)
{
    if (w->named == NULL)
        return;
    w->named->mirror = NULL;
    if (w->old->named == w->named)
        xi_names_flip(w->named, w->old);
}

static void on_committed(void *ctx, const struct xi_err *err)
{
    struct xi_swap *w = ctx;
    struct xi_swap_input in = {.event = XI_SW_COMMITTED};

    if (err != NULL) {
        w->reason = *err;
        in.event = XI_SW_COMMIT_FAILED;
    }
    feed(w, &in);
    look(w);
}

static void do_commit(struct xi_swap *w)
{
    struct xi_desired row = {.options = w->new->s.options};

    memcpy(row.id, w->new->s.id, sizeof(row.id));
    memcpy(row.digest, w->new->s.digest, sizeof(row.digest));
    xi_store_replace(w->m->store, w->old->s.id, &row, on_committed, w);
}

/* So that a version that crash-loops can be undone. One that is quarantined itself is not worth
 * keeping, and without memory there is just nothing to undo. */
static void keep_previous(struct xi_swap *w)
{
    const struct xi_session *old = &w->old->s;
    struct xi_previous *p;

    if (old->state == XI_SESSION_FAILED)
        return;
    p = calloc(1, sizeof(*p));
    if (p == NULL)
        return;
    memcpy(p->digest, old->digest, sizeof(p->digest));
    p->options = old->options;
    p->until_ms = uv_now(w->m->loop) + PREVIOUS_MS;
    w->new->previous = p;
}

static void do_flip(struct xi_swap *w)
{
    struct xi_session *old = &w->old->s, *new = &w->new->s;
    char text[256];

    if (w->new->named != NULL)
        xi_names_flip(w->new->named, w->new);
    memcpy(old->successor, new->id, sizeof(old->successor));
    memcpy(new->replaced, old->id, sizeof(new->replaced));
    memcpy(new->replaced_version, old->version, sizeof(new->replaced_version));
    new->replaced_how = w->view.strategy;
    new->desired = 1;
    old->desired = 0;
    xi_leases_move(w->m, old, new);
    keep_previous(w);
    say_phase(w, "flip");
    (void)snprintf(text, sizeof(text), "%s %s took the place of %s (session %s), %s", new->name,
                   new->version, old->version, old->id, w->view.strategy);
    note(w, XI_OK, text);
    xi_waiters_tell(&w->promoters, new, NULL);
    xi_waiters_tell(&w->promoters, new, NULL);
}

static void do_revert(struct xi_swap *w)
{
    char text[256];

    w->why = w->reason;
    if (w->why.rc == XI_OK)
        (void)xi_fail(&w->why, XI_EHOST, "the new session ended");
    (void)snprintf(text, sizeof(text), "rolled back: %s; session %s serves on", w->why.msg,
                   w->old->s.id);
    note(w, w->why.rc, text);
    xi_log(XI_WARN, "swap.rolled_back", "id=%s successor=%s name=%s code=%s why=%s", w->old->s.id,
           w->new->s.id, w->new->s.name, xi_rc_code(w->why.rc), w->why.msg);
    say_phase(w, "rolled_back");
    xi_waiters_tell(&w->promoters, NULL, &w->why);
}

static void do_wake_old(struct xi_swap *w)
{
    xi_entry_feed(w->old, XI_EV_LOAD);
}

static void do_unblock(struct xi_swap *w)
{
    if (w->named != NULL)
        w->named->blocked = 0;
}

/* The name and the winner are free for another swap; the loser is still ours. */
static void do_detach(struct xi_swap *w)
{
    struct xi_entry *kept = w->fsm.won ? w->new : w->old;

    xi_names_swap_over(w->m, w->named);
    w->named = NULL;
    kept->swap = NULL;
    kept->s.swap = NULL;
    (w->fsm.won ? w->old : w->new)->s.swap = NULL;
}

static void do_start_timer(struct xi_swap *w)
{
    int tries = w->fsm.phase == XI_SWAP_TRIAL;
    uint64_t ms = tries ? w->trial_s * 1000ull : w->m->config.drain_ms;

    w->ends_ms = tries && ms == 0 ? UINT64_MAX : uv_now(w->m->loop) + ms;
    (void)uv_timer_start(&w->timer, on_timer, TICK_MS, TICK_MS);
}

static void do_answer_up(struct xi_swap *w)
{
    xi_waiters_tell(&w->callers, &w->new->s, NULL);
}

static void do_answer_failed(struct xi_swap *w)
{
    struct xi_err why = w->why;

    if (why.hint[0] == '\0')
        (void)xi_hint(&why, "rolled back: session %s (%s) serves on", w->old->s.id,
                      w->old->s.version);
    xi_waiters_tell(&w->callers, NULL, &why);
}

static void do_unload_old(struct xi_swap *w)
{
    xi_entry_feed(w->old, XI_EV_UNLOAD);
}

static void do_unload_new(struct xi_swap *w)
{
    xi_entry_feed(w->new, XI_EV_UNLOAD);
}

static void on_closed(uv_handle_t *handle)
{
    struct xi_swap *w = handle->data;

    if (--w->open_handles == 0)
        free(w);
}

static void do_free(struct xi_swap *w)
{
    const struct xi_session *stays = w->fsm.won ? &w->new->s : &w->old->s;

    xi_log(XI_INFO, "swap.phase", "id=%s successor=%s name=%s phase=done strategy=%s serves=%s",
           w->old->s.id, w->new->s.id, w->new->s.name, w->view.strategy, stays->id);
    xi_shadow_put(w->shadow);
    w->old->swap = w->old->swap == w ? NULL : w->old->swap;
    w->new->swap = w->new->swap == w ? NULL : w->new->swap;
    xi_session_put(&w->old->s);
    xi_session_put(&w->new->s);
    w->old = NULL;
    w->new = NULL;
    uv_close((uv_handle_t *)&w->timer, on_closed);
    uv_close((uv_handle_t *)&w->kick, on_closed);
}

static const char *phase_name(const struct xi_swap *w)
{
    switch (w->fsm.phase) {
    case XI_SWAP_LOAD:
    case XI_SWAP_LOAD_ALONE:
        if (strcmp(w->new->s.phase, "warm-up") == 0)
            return "warm";
        return strcmp(w->new->s.phase, "golden") == 0 ? "golden" : "load";
    case XI_SWAP_TRIAL:
        return w->fsm.trial == XI_TRIAL_SHADOW ? "shadow" : "canary";
    case XI_SWAP_HOLD:
        return "hold";
    case XI_SWAP_PARK:
        return "park";
    case XI_SWAP_COMMIT:
        return "commit";
    case XI_SWAP_CLEAR:
    case XI_SWAP_RESTORE:
        return "restore";
    case XI_SWAP_DRAIN:
    case XI_SWAP_END:
    case XI_SWAP_OVER:
        break;
    }
    return "drain";
}

static void perform(struct xi_swap *w, uint32_t acts)
{
    static void (*const what[])(struct xi_swap *) = {
        do_stop_timer,  do_block,     do_park_old,      do_load_new,   do_share,      do_unshare,
        do_commit,      do_flip,      do_revert,        do_wake_old,   do_unblock,    do_detach,
        do_start_timer, do_answer_up, do_answer_failed, do_unload_old, do_unload_new, do_free};
    const uint32_t decides = XI_SWA_FLIP | XI_SWA_REVERT;
    unsigned i;

    if ((acts & (decides | XI_SWA_FREE)) == 0)
        say_phase(w, phase_name(w));
    for (i = 0; i < sizeof(what) / sizeof(what[0]); i++) {
        if (acts & (1u << i))
            what[i](w);
    }
    if (w->old != NULL) /* a decision has said so itself, and goes on with the drain */
        say_phase(w, phase_name(w));
}

static void feed(struct xi_swap *w, const struct xi_swap_input *in)
{
    read_figures(w);
    perform(w, xi_swap_fsm_feed(&w->fsm, in));
}

/* Why it will be rolled back, if it is. */
static void blame_unload(struct xi_swap *w, const struct xi_session *s)
{
    if (w->m->closing)
        (void)xi_fail(&w->reason, XI_EDRAIN, "the daemon is shutting down");
    else
        (void)xi_fail(&w->reason, XI_EGONE, "session %s was unloaded meanwhile", s->id);
}

/* ---- sensing ---- */

static int crashed(const struct xi_swap *w)
{
    const struct xi_entry *e = w->new;

    return e->fsm.phase == XI_PHASE_BACKOFF ||
           (w->fsm.phase == XI_SWAP_TRIAL && e->s.crashes > w->new_crashes);
}

static int sense_new(struct xi_swap *w, struct xi_swap_input *in)
{
    const struct xi_entry *e = w->new;

    if (e->s.state == XI_SESSION_GONE)
        in->event = XI_SW_NEW_GONE;
    else if (e->s.state == XI_SESSION_DRAINING)
        in->event = XI_SW_NEW_LEAVING;
    else if (crashed(w))
        in->event = XI_SW_NEW_CRASHED;
    else if (e->s.state == XI_SESSION_READY)
        in->event = XI_SW_NEW_READY;
    else if (e->s.state == XI_SESSION_FAILED)
        in->event = XI_SW_NEW_FAILED;
    else
        return 0;
    in->no_room = in->event == XI_SW_NEW_FAILED && e->s.why.rc == XI_EBUDGET;
    return 1;
}

static int sense_old(const struct xi_swap *w, struct xi_swap_input *in)
{
    const struct xi_entry *e = w->old;
    int parked = e->s.state == XI_SESSION_IDLE || e->s.state == XI_SESSION_FAILED;

    if (e->s.state == XI_SESSION_GONE)
        in->event = XI_SW_OLD_GONE;
    else if (e->s.state == XI_SESSION_DRAINING)
        in->event = XI_SW_OLD_LEAVING;
    else if (parked && e->fsm.phase == XI_PHASE_NONE && w->fsm.phase == XI_SWAP_PARK)
        in->event = XI_SW_OLD_PARKED;
    else if (e->s.state == XI_SESSION_FAILED ||
             (e->s.state == XI_SESSION_IDLE && w->fsm.phase == XI_SWAP_RESTORE))
        in->event = XI_SW_OLD_FAILED; /* IDLE: it was woken and found no room */
    else if (e->s.state == XI_SESSION_READY)
        in->event = XI_SW_OLD_READY;
    else
        return 0;
    return 1;
}

/* Nobody uses the one that is to go: requests, and sequences that began on it. */
static int is_quiet(const struct xi_swap *w)
{
    int holds = w->fsm.phase == XI_SWAP_HOLD;
    const struct xi_session *s = holds || w->fsm.won ? &w->old->s : &w->new->s;
    struct xi_sequences_stats sequences = {0};

    if (!holds && s->sequences != NULL && s->state == XI_SESSION_READY)
        xi_sequences_stats(s, &sequences);
    return s->users == 0 && sequences.open == 0 && (!holds || !xi_pool_busy(s));
}

static void explain(struct xi_swap *w, enum xi_swap_event event)
{
    if (event == XI_SW_NEW_FAILED || event == XI_SW_NEW_CRASHED)
        w->reason = w->new->s.why;
    if (event == XI_SW_NEW_LEAVING || event == XI_SW_NEW_GONE)
        blame_unload(w, &w->new->s);
    if (event == XI_SW_OLD_LEAVING || event == XI_SW_OLD_GONE)
        blame_unload(w, &w->old->s);
}

static void look_once(struct xi_swap *w)
{
    struct xi_swap_input in = {0};

    if (sense_new(w, &in)) {
        explain(w, in.event);
        feed(w, &in);
    }
    in = (struct xi_swap_input){0};
    if (w->fsm.phase != XI_SWAP_OVER && sense_old(w, &in)) {
        explain(w, in.event);
        feed(w, &in);
    }
    if ((w->fsm.phase == XI_SWAP_HOLD || w->fsm.phase == XI_SWAP_DRAIN) && is_quiet(w))
        feed(w, &(struct xi_swap_input){.event = XI_SW_QUIET});
}

/* Until nothing follows from what the two look like. */
static void look(struct xi_swap *w)
{
    enum xi_swap_phase before = XI_SWAP_OVER;

    while (w->fsm.phase != before && w->fsm.phase != XI_SWAP_OVER) {
        before = w->fsm.phase;
        look_once(w);
    }
    if (w->fsm.phase < XI_SWAP_COMMIT)
        say_phase(w, phase_name(w));
}

static void on_kick(uv_timer_t *t)
{
    look(t->data);
}

void xi_swap_notice(struct xi_entry *e)
{
    if (e->swap != NULL && e->swap->fsm.phase != XI_SWAP_OVER)
        (void)uv_timer_start(&e->swap->kick, on_kick, 0, 0);
}

static void on_timer(uv_timer_t *t)
{
    struct xi_swap *w = t->data;
    int worse, late = uv_now(w->m->loop) >= w->ends_ms;

    look(w);
    read_figures(w);
    worse = w->fsm.phase == XI_SWAP_TRIAL && is_worse(w);
    if (!uv_is_active((uv_handle_t *)t) || (!late && !(worse && w->view.new_errors >= ERRORS_MIN)))
        return; /* it went on, or goes on */
    if (worse)
        blame_errors(w);
    feed(w, &(struct xi_swap_input){.event = XI_SW_TIMER, .worse = worse});
    look(w);
}

/* ---- what callers ask ---- */

static enum xi_rc check_name(struct xi_sessions *m, const struct xi_load_options *o,
                             struct xi_named **ret, struct xi_err *err)
{
    struct xi_named *name = xi_names_find(m, o->tenant, o->name);

    if (name == NULL || name->n == 0)
        return xi_fail(err, XI_ENOENT, "no model \"%s\" is loaded", o->name);
    if (name->swap != NULL) {
        const struct xi_swap_view *v = &name->swap->view;

        (void)xi_fail(err, XI_ECONFLICT, "%s is being swapped already: session %s for %s (%s)",
                      o->name, v->new_id, v->old_id, v->phase);
        return xi_hint(err, "wait for it, or xinfer rollback %s", o->name);
    }
    *ret = name;
    return XI_OK;
}

static enum xi_rc swap_new(struct xi_sessions *m, struct xi_named *name, struct xi_entry *new,
                           const struct xi_swap_ask *ask, struct xi_swap **ret, struct xi_err *err)
{
    struct xi_swap *w = calloc(1, sizeof(*w));

    if (w != NULL && ask->strategy == XI_STRATEGY_SHADOW)
        w->shadow = xi_shadow_new(w);
    if (w == NULL || (ask->strategy == XI_STRATEGY_SHADOW && w->shadow == NULL)) {
        free(w);
        return xi_fail(err, XI_ENOMEM, "no memory for a swap");
    }
    w->m = m;
    w->named = name;
    w->old = name->targets[0].entry;
    w->new = new;
    w->trial_s = ask->trial_s;
    w->open_handles = 2;
    (void)uv_timer_init(m->loop, &w->timer);
    (void)uv_timer_init(m->loop, &w->kick);
    w->timer.data = w;
    w->kick.data = w;
    w->view.share = ask->share;
    w->view.strategy = ask->strategy == XI_STRATEGY_IN_PLACE ? "in-place"
                       : ask->strategy == XI_STRATEGY_SHADOW ? "shadow"
                                                             : "beside";
    memcpy(w->view.old_id, w->old->s.id, sizeof(w->view.old_id));
    memcpy(w->view.new_id, new->s.id, sizeof(w->view.new_id));
    name->swap = w;
    w->old->swap = w;
    new->swap = w;
    w->old->s.swap = &w->view;
    new->s.swap = &w->view;
    xi_session_get(&w->old->s);
    xi_session_get(&new->s);
    *ret = w;
    return XI_OK;
}

static void start(struct xi_swap *w, const struct xi_swap_ask *ask)
{
    enum xi_swap_trial trial = ask->strategy == XI_STRATEGY_SHADOW ? XI_TRIAL_SHADOW
                               : ask->share > 0                    ? XI_TRIAL_CANARY
                                                                   : XI_TRIAL_NONE;
    /* A group of a device has room for one of each kind; a trial needs both. */
    int in_place = ask->strategy == XI_STRATEGY_IN_PLACE ||
                   (trial == XI_TRIAL_NONE && w->old->s.isolation == XI_ISOLATE_DEVICE);
    int falls_back = ask->strategy == XI_STRATEGY_AUTO && trial == XI_TRIAL_NONE;
    char text[256];

    w->new->s.apart = 1; /* what it does shall harm nobody who serves already */
    (void)snprintf(text, sizeof(text), "%s %s is to take the place of %s (session %s)",
                   w->new->s.name, w->new->s.version, w->old->s.version, w->old->s.id);
    note(w, XI_OK, text);
    perform(w, xi_swap_fsm_begin(&w->fsm, trial, in_place, falls_back));
    (void)uv_timer_start(&w->kick, on_kick, 0, 0);
}

enum xi_rc xi_swap_begin(struct xi_sessions *m, const char *id, const char *digest,
                         struct xi_package_record *record, const struct xi_load_options *options,
                         const struct xi_swap_ask *ask, xi_session_cb cb, void *ctx,
                         struct xi_session **ret, struct xi_err *err)
{
    struct xi_load_options o = *options;
    struct xi_named *name = NULL;
    struct xi_entry *new = NULL;
    struct xi_swap *w = NULL;
    enum xi_rc rc = xi_sessions_admit(m, record, &o, err);

    if (rc == XI_OK)
        rc = check_name(m, &o, &name, err);
    if (rc == XI_OK)
        rc = xi_entry_new(m, id, digest, record, &o, &new, err);
    if (rc != XI_OK) {
        xi_record_free(record);
        return rc;
    }
    rc = swap_new(m, name, new, ask, &w, err);
    if (rc == XI_OK && cb != NULL) {
        rc = xi_waiters_add(&w->callers, cb, ctx, err);
        XI_ASSERT(rc == XI_OK || rc == XI_ENOMEM);
    }
    if (w == NULL) {
        xi_entry_feed(new, XI_EV_UNLOAD);
        return rc;
    }
    xi_log(XI_INFO, "session.load", "id=%s name=%s version=%s tenant=%s lanes=%u replaces=%s",
           new->s.id, new->s.name, new->s.version, new->s.tenant, new->s.lane_count, w->old->s.id);
    *ret = &new->s;
    if (rc != XI_OK)
        xi_entry_feed(new, XI_EV_UNLOAD); /* nobody to tell: the swap ends by itself */
    start(w, ask);
    return rc;
}

static struct xi_swap *find_swap(struct xi_sessions *m, const char *tenant, const char *name,
                                 struct xi_err *err)
{
    const struct xi_named *named = xi_names_find(m, tenant, name);
    struct xi_session *any;

    if (named != NULL && named->swap != NULL)
        return named->swap;
    if (xi_sessions_find(m, tenant, name, &any, err) == XI_OK)
        (void)xi_fail(err, XI_ECONFLICT, "no swap of %s is under way", name);
    return NULL;
}

void xi_swap_promote(struct xi_sessions *m, const char *tenant, const char *name, xi_session_cb cb,
                     void *ctx)
{
    struct xi_err err = {0};
    struct xi_swap *w = find_swap(m, tenant, name, &err);

    if (w != NULL && w->fsm.phase != XI_SWAP_TRIAL && w->fsm.phase != XI_SWAP_COMMIT)
        (void)xi_fail(&err, XI_ECONFLICT, "the swap of %s is in phase %s: nothing to promote yet",
                      name, w->view.phase);
    if (err.rc != XI_OK || xi_waiters_add(&w->promoters, cb, ctx, &err) != XI_OK) {
        cb(ctx, NULL, &err);
        return;
    }
    feed(w, &(struct xi_swap_input){.event = XI_SW_PROMOTE});
}

void xi_swap_rollback(struct xi_sessions *m, const char *tenant, const char *name, xi_session_cb cb,
                      void *ctx)
{
    struct xi_err err = {0};
    struct xi_swap *w = find_swap(m, tenant, name, &err);

    if (w != NULL && w->fsm.phase >= XI_SWAP_COMMIT)
        (void)xi_fail(&err, XI_ECONFLICT, "the swap of %s is decided (phase %s)", name,
                      w->view.phase);
    if (err.rc != XI_OK) {
        cb(ctx, NULL, &err);
        return;
    }
    (void)xi_fail(&w->reason, XI_ECANCELLED, "it was rolled back by command");
    feed(w, &(struct xi_swap_input){.event = XI_SW_ROLLBACK});
    cb(ctx, &w->old->s, NULL);
    look(w);
}

int xi_swap_commits(const struct xi_session *session)
{
    const struct xi_swap *w = xi_entry_of((struct xi_session *)(uintptr_t)session)->swap;

    return w != NULL && w->fsm.phase == XI_SWAP_COMMIT;
}

/* ---- putting back ---- */

struct put_back {
    struct xi_sessions *m;
    struct xi_load_options options;
    char id[XI_UUID_TEXT + 1]; /* of the quarantined one */
};

static void on_put_back(void *ctx, const char *digest, struct xi_package_record *record,
                        const struct xi_err *err)
{
    static const struct xi_swap_ask ask = {.strategy = XI_STRATEGY_BESIDE};
    struct put_back *p = ctx;
    struct xi_session *session = NULL;
    const struct xi_entry *e = xi_ids_find(p->m, p->id);
    struct xi_err why = {0};
    char id[XI_UUID_TEXT + 1];

    xi_uuid_new(id);
    if (err != NULL) {
        why = *err;
    } else if (e == NULL || e->s.state != XI_SESSION_FAILED) {
        xi_record_free(record); /* somebody has seen to it */
    } else if (xi_swap_begin(p->m, id, digest, record, &p->options, &ask, NULL, NULL, &session,
                             &why) == XI_OK) {
        xi_log(XI_WARN, "swap.put_back", "id=%s successor=%s name=%s", p->id, id, p->options.name);
    }
    if (why.rc != XI_OK)
        xi_log(XI_ERROR, "swap.not_put_back", "id=%s name=%s why=%s", p->id, p->options.name,
               why.msg);
    free(p);
}

void xi_swap_put_back(struct xi_entry *e)
{
    struct xi_previous *previous = e->previous;
    struct put_back *p;

    if (previous == NULL || e->m->closing)
        return;
    e->previous = NULL;
    p = uv_now(e->m->loop) < previous->until_ms ? calloc(1, sizeof(*p)) : NULL;
    if (p != NULL) {
        p->m = e->m;
        p->options = previous->options;
        memcpy(p->id, e->s.id, sizeof(p->id));
        xi_store_find(e->m->store, previous->digest, on_put_back, p);
    }
    free(previous);
}
