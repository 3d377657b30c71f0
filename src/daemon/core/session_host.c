#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "daemon/core/session_group.h"
#include "daemon/core/store.h"
#include "daemon/core/why.h"

/* ---- who waits ---- */

enum xi_rc xi_waiters_add(struct xi_waiters *w, xi_session_cb cb, void *ctx, struct xi_err *err)
{
    struct xi_waiter *one;

    if (w->n >= XI_WAITERS_MAX)
        return xi_fail(err, XI_EAGAIN, "%u callers wait for this session already", w->n);
    one = malloc(sizeof(*one));
    if (one == NULL)
        return xi_fail(err, XI_ENOMEM, "no memory to wait for a session");
    *one = (struct xi_waiter){.cb = cb, .ctx = ctx};
    if (w->head == NULL)
        w->tail = &w->head;
    *w->tail = one;
    w->tail = &one->next;
    w->n++;
    return XI_OK;
}

void xi_waiters_tell(struct xi_waiters *w, const struct xi_session *view, const struct xi_err *err)
{
    struct xi_waiter *one = w->head;

    *w = (struct xi_waiters){0}; /* who waits anew from inside waits for the next time */
    while (one != NULL) {
        struct xi_waiter *next = one->next;

        one->cb(one->ctx, view, err);
        free(one);
        one = next;
    }
}

/* ---- the variant in turn ---- */

static const struct xi_engine_record *engine_of(const struct xi_entry *e)
{
    return &e->m->engines[e->choices[e->at].engine];
}

static const struct xi_engine_device *device_of(const struct xi_entry *e)
{
    return &engine_of(e)->probe.devices[e->choices[e->at].device];
}

/* The next from `from` on whose device may be used; n_choices: there is none. */
static uint32_t usable_from(const struct xi_entry *e, uint32_t from)
{
    while (from < e->n_choices && !xi_choice_usable(e, from))
        from++;
    return from;
}

static int more_variants(const struct xi_entry *e)
{
    return usable_from(e, e->at + 1) < e->n_choices;
}

static void pick(struct xi_entry *e, uint32_t at)
{
    struct xi_session *s = &e->s;
    const struct xi_engine_device *device;

    e->at = at;
    device = device_of(e);
    (void)snprintf(s->variant, sizeof(s->variant), "%s",
                   s->record->variants[e->choices[at].variant].id);
    (void)snprintf(s->engine, sizeof(s->engine), "%s %s", engine_of(e)->name,
                   engine_of(e)->probe.version);
    (void)snprintf(s->device, sizeof(s->device), "%s", device->id);
    s->device_kind = device->kind;
    s->stage_lanes = device->kind == XI_DEV_CPU ? 0 : e->m->config.cores;
    if (s->stage_lanes > 2 * s->lane_count)
        s->stage_lanes = 2 * s->lane_count; /* what is before and behind one run at a time */
    s->isolation = xi_group_preview(e->m, s->tenant, s->options.isolation, e->choices[at].engine,
                                    e->choices[at].device, s->isolation_reason);
}

/* Says why, for /v1/why. */
static void note(struct xi_entry *e, enum xi_why_kind kind, const char *what)
{
    struct xi_why_entry entry = {.kind = kind, .rc = e->s.why.rc};

    (void)snprintf(entry.session, sizeof(entry.session), "%s", e->s.id);
    (void)snprintf(entry.name, sizeof(entry.name), "%s", e->s.name);
    (void)snprintf(entry.tenant, sizeof(entry.tenant), "%s", e->s.tenant);
    (void)snprintf(entry.text, sizeof(entry.text), "%s%s", what, e->s.why.msg);
    (void)snprintf(entry.hint, sizeof(entry.hint), "%s", e->s.why.hint);
    xi_why_note(e->m->config.why, &entry);
}

/* Keeps why a variant did not do, for `why` and the log. */
static void note_skipped(struct xi_entry *e)
{
    struct xi_session *s = &e->s;
    size_t used = strlen(s->skipped);

    (void)snprintf(s->skipped + used, sizeof(s->skipped) - used, "%s%s: %s", used > 0 ? "; " : "",
                   s->variant, s->why.msg);
    note(e, XI_WHY_MOVED, "a variant did not do: ");
    xi_log(XI_WARN, "variant.skipped", "id=%s variant=%s why=%s", s->id, s->variant, s->why.msg);
}

/* ---- timers ---- */

static unsigned load_silence_ms(const struct xi_sessions *m)
{
    return m->config.load_silence_ms != 0 ? m->config.load_silence_ms : XI_LOAD_SILENCE_MS;
}

static unsigned load_limit_ms(const struct xi_sessions *m)
{
    return m->config.load_limit_ms != 0 ? m->config.load_limit_ms : XI_LOAD_LIMIT_MS;
}

static void on_backoff(uv_timer_t *t)
{
    struct xi_entry *e = t->data;

    e->s.backoff_ms = 0;
    xi_entry_feed(e, XI_EV_TIMER);
}

static void on_stable(uv_timer_t *t)
{
    xi_entry_feed(t->data, XI_EV_STABLE);
}

static void on_drain(uv_timer_t *t)
{
    xi_entry_feed(t->data, XI_EV_DRAIN_TIMEOUT);
}

static void on_silence(uv_timer_t *t)
{
    struct xi_entry *e = t->data;
    char why[96];

    if (e->load_limited)
        (void)snprintf(why, sizeof(why), "hung: a load took longer than %u s",
                       load_limit_ms(e->m) / 1000u);
    else
        (void)snprintf(why, sizeof(why), "hung: a load reported nothing for %u s",
                       load_silence_ms(e->m) / 1000u);
    if (e->s.host != NULL)
        xi_host_stop(e->s.host, 0, why);
}

static void on_unload_late(uv_timer_t *t)
{
    struct xi_entry *e = t->data;

    if (e->s.host != NULL)
        xi_host_stop(e->s.host, 0, "hung: it did not free a session within 10 s");
}

static unsigned backoff_ms(unsigned step)
{
    unsigned ms = XI_BACKOFF_FIRST_MS;

    for (; step > 1 && ms < XI_BACKOFF_MAX_MS; step--)
        ms *= 2;
    return ms < XI_BACKOFF_MAX_MS ? ms : XI_BACKOFF_MAX_MS;
}

/* ---- events of the host ---- */

void xi_entry_load_goes_on(struct xi_entry *e)
{
    uint64_t now = xi_now_ms(), left = e->load_until_ms > now ? e->load_until_ms - now : 0;
    uint64_t silence = load_silence_ms(e->m);

    e->load_limited = left < silence;
    if (e->fsm.phase == XI_PHASE_LOADING)
        (void)uv_timer_start(&e->timer, on_silence, left < silence ? left : silence, 0);
    else if (e->fsm.phase == XI_PHASE_STOPPING && uv_is_active((uv_handle_t *)&e->timer))
        (void)uv_timer_start(&e->timer, on_unload_late, XI_UNLOAD_MS, 0);
}

void xi_entry_progress(struct xi_entry *e, const struct xi_msg_progress *msg)
{
    if (e->s.phase[0] == '\0') /* its turn has come */
        e->load_until_ms = xi_now_ms() + load_limit_ms(e->m);
    (void)snprintf(e->s.phase, sizeof(e->s.phase), "%.*s", (int)sizeof(msg->phase), msg->phase);
    e->s.phase_permille = msg->permille;
    if (strcmp(e->s.phase, "warm-up") == 0 || strcmp(e->s.phase, "golden") == 0)
        xi_entry_feed(e, XI_EV_PROGRESS);
}

void xi_entry_unload_begins(struct xi_entry *e)
{
    (void)uv_timer_start(&e->timer, on_unload_late, XI_UNLOAD_MS, 0);
}

/* Without memory for them the model goes on as if it had none: its first request fails loudly. */
static void take_states(struct xi_session *s, const struct xi_msg_loaded *m)
{
    uint32_t i;

    free(s->states);
    s->n_states = 0;
    s->stateful = (enum xi_stateful)m->stateful;
    s->states = m->n_states > 0 ? calloc(m->n_states, sizeof(*s->states)) : NULL;
    for (i = 0; s->states != NULL && i < m->n_states; i++)
        s->states[s->n_states++] = xi_msg_state(m, i);
}

void xi_entry_loaded(struct xi_entry *e, const struct xi_msg_loaded *m,
                     struct xi_signature *signature, uint64_t memory_bytes)
{
    struct xi_session *s = &e->s;
    struct xi_err err;

    if (e->fsm.phase != XI_PHASE_LOADING || m->lane_count != s->lane_count) {
        xi_signature_fini(signature); /* told to end meanwhile, or not what was asked for */
        if (e->fsm.phase == XI_PHASE_LOADING)
            xi_host_stop(s->host, 0, "loaded another number of lanes than it was told");
        return;
    }
    xi_signature_fini(&s->signature);
    s->signature = *signature;
    take_states(s, m);
    s->has_flow = m->has_flow != 0;
    s->takes_image = m->takes_image != 0;
    s->draws = m->draws != 0;
    s->memory_bytes = memory_bytes;
    s->peak_bytes = m->peak_bytes;
    s->max_batch = m->max_batch == 0 ? 1 : m->max_batch;
    s->staged = m->staged != 0 && s->stage_lanes > 0;
    s->load_us = m->load_us;
    s->warm_us = m->warm_us;
    s->golden_us = m->golden_us;
    s->service_ns = m->service_ns;
    if (m->engine[0] != '\0')
        (void)snprintf(s->engine, sizeof(s->engine), "%.*s", (int)sizeof(m->engine), m->engine);
    s->last_used_ms = xi_now_ms();
    if (xi_memory_measured(e, &err) != XI_OK) {
        xi_entry_load_failed(e, &err);
        return;
    }
    s->restarts += s->loaded_at_ms != 0;
    s->loaded_at_ms = xi_wall_ms();
    s->why = (struct xi_err){0};
    e->died_loading = 0;
    xi_log(XI_INFO, "session.ready",
           "id=%s name=%s variant=%s engine=%s device=%s load_ms=%llu warm_ms=%llu bytes=%llu",
           s->id, s->name, s->variant, s->engine, s->device, (unsigned long long)s->load_us / 1000,
           (unsigned long long)s->warm_us / 1000, (unsigned long long)s->memory_bytes);
    xi_entry_feed(e, XI_EV_LOADED);
}

/* Another variant can help when this one cannot be run here; a broken package stays broken. */
static int variant_matters(enum xi_rc rc)
{
    return rc == XI_EMODEL || rc == XI_ENOENGINE || rc == XI_EUNSUPPORTED || rc == XI_EGOLDEN ||
           rc == XI_EDEVICE || rc == XI_EENGINE || rc == XI_ENOMEM || rc == XI_EBUDGET;
}

void xi_entry_load_failed(struct xi_entry *e, const struct xi_err *err)
{
    int more = more_variants(e) && variant_matters(err->rc);

    if (e->fsm.phase != XI_PHASE_LOADING)
        return;
    e->s.why = *err;
    if (err->rc == XI_ENOMEM)
        xi_memory_ran_out(e, &e->s.why);
    err = &e->s.why;
    if (more) {
        note_skipped(e);
    } else {
        if (err->rc != XI_EBUDGET) /* which is noted with its figures */
            note(e, XI_WHY_REFUSED, "the load failed: ");
        xi_log(XI_ERROR, "session.failed", "id=%s name=%s code=%s why=%s", e->s.id, e->s.name,
               xi_rc_code(err->rc), err->msg);
    }
    xi_entry_feed_input(e,
                        &(struct xi_fsm_input){.event = XI_EV_LOAD_FAILED, .more_variants = more});
}

static void age_crashes(struct xi_entry *e)
{
    uint64_t now = xi_now_ms();
    uint32_t old = 0;

    if (e->feeding)
        return; /* its end was asked for, so it counts for nothing; the next one looks again */
    while (old < e->n_crash_times && now - e->crash_at_ms[old] > e->m->config.crash_window_ms)
        old++;
    for (; old > 0; old--)
        xi_entry_feed(e, XI_EV_CRASH_AGED); /* drops the first */
}

/* A load that ended its host may be another variant's chance; not when it was somebody else's. */
static int next_may_do(const struct xi_entry *e, enum xi_crash_blame blame)
{
    return more_variants(e) && blame != XI_BLAME_NONE;
}

void xi_entry_host_gone(struct xi_entry *e, const char *reason, enum xi_crash_blame blame, int lost)
{
    struct xi_session *s = &e->s;
    int wanted = e->fsm.phase == XI_PHASE_STOPPING;
    struct xi_fsm_input in = {.event = XI_EV_EXITED, .more_variants = next_may_do(e, blame)};

    (void)snprintf(e->exit_reason, sizeof(e->exit_reason), "%s", reason);
    xi_session_get(s); /* until the end of this function, whatever the events do */
    if (wanted) {
        (void)uv_timer_stop(&e->timer);
    } else {
        s->crashes++;
        (void)xi_fail(&s->why, XI_EHOST, "the model's host %s", reason);
        note(e, XI_WHY_RESTARTED, "");
        if (e->fsm.phase == XI_PHASE_LOADING && in.more_variants && !e->fsm.proven)
            note_skipped(e);
    }
    if (lost && !wanted) {
        in.lost = 1;
        in.more_variants = xi_entry_lose_device(e); /* else tried again, with back-off */
        if (in.more_variants)
            xi_entry_note_move(e, reason);
    }
    in.blame = xi_pool_host_gone(s, wanted || blame != XI_BLAME_MODEL, reason);
    if (blame != XI_BLAME_MODEL)
        in.blame = blame;
    age_crashes(e);
    xi_entry_feed_input(e, &in);
    xi_session_put(s);
}

/* ---- actions ---- */

static void on_prepared(void *ctx, const char *link_dir, const char *cache_dir,
                        const struct xi_err *err)
{
    struct xi_entry *e = ctx;

    if (err != NULL) {
        e->s.why = *err;
        xi_log(XI_ERROR, "session.links_failed", "id=%s why=%s", e->s.id, err->msg);
        xi_entry_feed(e, XI_EV_SPAWN_FAILED);
    } else {
        (void)snprintf(e->link_dir, sizeof(e->link_dir), "%s", link_dir);
        (void)snprintf(e->cache_dir, sizeof(e->cache_dir), "%s", cache_dir);
        xi_group_enter(e);
    }
    xi_session_put(&e->s);
}

static void prepare(struct xi_entry *e)
{
    struct xi_store_folders want = {.tenant = e->s.tenant, .digest = e->s.digest};
    char build[100];

    (void)snprintf(build, sizeof(build), "%s-%s", engine_of(e)->name, engine_of(e)->probe.version);
    want.engine_build = build;
    if (e->s.isolation != XI_ISOLATE_SESSION) {
        want.group = e->s.group->id;
        want.shared_by = e->s.isolation == XI_ISOLATE_TENANT ? e->s.tenant : "";
        want.device = e->s.device;
    }
    xi_session_get(&e->s);
    xi_store_prepare(e->m->store, &want, on_prepared, e);
}

static void on_claimed(struct xi_entry *e, const struct xi_err *err);

/* First whose host it would be in, then what it may take: a context is there or is not. */
static void claim(struct xi_entry *e)
{
    if (xi_group_join(e, &e->s.why) != XI_OK)
        xi_entry_feed(e, XI_EV_SPAWN_FAILED);
    else
        xi_memory_claim(e, on_claimed);
}

/* A variant that does not fit may have a smaller sister. */
static void on_claimed(struct xi_entry *e, const struct xi_err *err)
{
    struct xi_fsm_input in = {.event = XI_EV_NO_ROOM};

    if (err == NULL) {
        prepare(e);
        return;
    }
    e->s.why = *err;
    if (err->rc == XI_EBUDGET && more_variants(e) && !e->fsm.proven) {
        note_skipped(e);
        pick(e, usable_from(e, e->at + 1));
        claim(e);
        return;
    }
    /* Desired state that comes back has nobody who waits: the next request asks again. */
    in.sleeps = e->s.loaded_at_ms != 0 ||
                (e->swap == NULL && (e->s.options.lazy || e->loaders.head == NULL));
    xi_entry_feed_input(e, &in);
}

static void do_spawn(struct xi_entry *e)
{
    e->s.phase[0] = '\0';
    e->s.phase_permille = 0xffffffffu;
    claim(e);
}

static uint32_t asked_batch(const struct xi_session *s)
{
    int model = xi_record_find_model(s->record, "main");
    uint32_t batch = s->options.max_batch;

    if (batch == 0 && model >= 0)
        batch = s->record->models[model].max_batch;
    return batch == 0 ? 1 : batch;
}

struct xi_msg_load xi_entry_load_message(const struct xi_entry *e)
{
    const struct xi_session *s = &e->s;
    struct xi_msg_load load = {.session = s->number,
                               .lane_count = s->lane_count,
                               .threads = s->options.threads,
                               .stage_lanes = s->stage_lanes,
                               .max_batch = asked_batch(s),
                               .run_golden = (uint32_t)s->options.golden};

    (void)snprintf(load.variant, sizeof(load.variant), "%s", s->variant);
    (void)snprintf(load.device, sizeof(load.device), "%s", s->device);
    (void)snprintf(load.max_shape, sizeof(load.max_shape), "%s", s->options.max_shape);
    (void)snprintf(load.link_dir, sizeof(load.link_dir), "%s", e->link_dir);
    (void)snprintf(load.cache_dir, sizeof(load.cache_dir), "%s", e->cache_dir);
    return load;
}

static void do_send_load(struct xi_entry *e)
{
    struct xi_msg_load load = xi_entry_load_message(e);
    struct xi_err err;

    if (xi_group_load(e, &load, &err) != XI_OK) {
        xi_entry_load_failed(e, &err);
        return;
    }
    e->load_until_ms = xi_now_ms() + load_limit_ms(e->m);
    xi_entry_load_goes_on(e);
}

static void do_stop_timers(struct xi_entry *e)
{
    e->s.backoff_ms = 0;
    (void)uv_timer_stop(&e->timer);
}

static void do_quarantine(struct xi_entry *e)
{
    const struct xi_sessions_config *c = &e->m->config;

    (void)xi_fail(&e->s.why, XI_ECRASHLOOP, "%u crashes within %u s, the last: its host %s",
                  e->fsm.crashes, c->crash_window_ms / 1000u, e->exit_reason);
    (void)xi_hint(&e->s.why, "loading it again tries anew; unloading it frees its name");
    note(e, XI_WHY_QUARANTINED, "");
    xi_log(XI_ERROR, "session.quarantined", "id=%s name=%s why=%s", e->s.id, e->s.name,
           e->s.why.msg);
    xi_swap_put_back(e);
}

static void do_fail_queue(struct xi_entry *e)
{
    struct xi_err why = e->s.why;
    unsigned retry = 0;

    if (e->fsm.state == XI_SESSION_GONE || e->fsm.state == XI_SESSION_DRAINING) {
        (void)xi_fail(&why, XI_EGONE, "session %s was unloaded", e->s.id);
    } else if (e->fsm.state == XI_SESSION_IDLE) { /* no room for it now */
        retry = e->s.retry_after_s;
    } else if (e->fsm.state != XI_SESSION_FAILED) {
        unsigned ms = backoff_ms(e->fsm.step);

        retry = ms / 1000u + 1;
        (void)xi_fail(&why, XI_EHOST, "the model's host %s, again; it starts anew in %u ms",
                      e->exit_reason, ms);
    } else if (why.rc == XI_OK) {
        (void)xi_fail(&why, XI_EHOST, "the session has failed");
    }
    xi_pool_fail(&e->s, &why, retry);
}

static void do_hold_queue(struct xi_entry *e)
{
    xi_pool_hold(&e->s);
}

static void do_close_queue(struct xi_entry *e)
{
    xi_pool_close(&e->s);
}

static void do_open_queue(struct xi_entry *e)
{
    xi_pool_open(&e->s);
}

static void do_next_variant(struct xi_entry *e)
{
    pick(e, usable_from(e, e->at + 1));
}

/* The rules asked before whether there is one; the first, if that has changed since. */
static void do_other_variant(struct xi_entry *e)
{
    uint32_t other = usable_from(e, 0);

    pick(e, other < e->n_choices ? other : 0);
}

static void do_first_variant(struct xi_entry *e)
{
    e->s.skipped[0] = '\0';
    do_other_variant(e);
}

static void do_stop_host(struct xi_entry *e)
{
    xi_group_leave(e, "was told to end");
}

static void do_start_backoff(struct xi_entry *e)
{
    e->s.backoff_ms = backoff_ms(e->fsm.step);
    (void)uv_timer_start(&e->timer, on_backoff, e->s.backoff_ms, 0);
}

static void do_start_drain(struct xi_entry *e)
{
    (void)uv_timer_start(&e->timer, on_drain, e->m->config.drain_ms, 0);
}

static void do_start_stable(struct xi_entry *e)
{
    (void)uv_timer_start(&e->timer, on_stable, XI_STABLE_MS, 0);
}

static void do_notify_ready(struct xi_entry *e)
{
    xi_waiters_tell(&e->loaders, &e->s, NULL);
}

static void do_notify_failed(struct xi_entry *e)
{
    struct xi_err why = e->s.why;

    if (e->m->closing)
        (void)xi_fail(&why, XI_EDRAIN, "the daemon is shutting down");
    else if ((e->fsm.state != XI_SESSION_FAILED && why.rc != XI_EBUDGET) || why.rc == XI_OK)
        (void)xi_fail(&why, XI_EGONE, "session %s was unloaded before it was ready", e->s.id);
    xi_waiters_tell(&e->loaders, &e->s, &why);
}

static void do_notify_gone(struct xi_entry *e)
{
    xi_log(XI_INFO, "session.gone", "id=%s name=%s tenant=%s bytes=%llu", e->s.id, e->s.name,
           e->s.tenant, (unsigned long long)e->s.memory_bytes);
    xi_waiters_tell(&e->unloaders, &e->s, NULL);
}

static void do_free(struct xi_entry *e)
{
    struct xi_sessions *m = e->m;

    xi_names_drop_id(m, e);
    if (e->prev != NULL)
        e->prev->next = e->next;
    else
        m->first = e->next;
    if (e->next != NULL)
        e->next->prev = e->prev;
    else
        m->last = e->prev;
    m->count--;
    xi_group_part(e);
    xi_session_put(&e->s);
}

static void perform(struct xi_entry *e, uint32_t acts)
{
    static void (*const what[])(struct xi_entry *) = {
        do_stop_timers,  do_quarantine,    do_hold_queue,    do_close_queue,   do_fail_queue,
        do_open_queue,   do_first_variant, do_next_variant,  do_other_variant, do_spawn,
        do_send_load,    do_stop_host,     do_start_backoff, do_start_drain,   do_start_stable,
        do_notify_ready, do_notify_failed, do_notify_gone,   do_free};
    unsigned i;

    for (i = 0; i < sizeof(what) / sizeof(what[0]); i++) {
        if (acts & (1u << i))
            what[i](e);
    }
}

/* ---- feeding ---- */

static void keep_crash_times(struct xi_entry *e, unsigned before)
{
    unsigned now = e->fsm.crashes;

    if (now > before && e->n_crash_times < sizeof(e->crash_at_ms) / sizeof(e->crash_at_ms[0]))
        e->crash_at_ms[e->n_crash_times++] = xi_now_ms();
    if (now < before) {
        unsigned drop = e->n_crash_times > now ? e->n_crash_times - now : 0;

        memmove(e->crash_at_ms, e->crash_at_ms + drop,
                (e->n_crash_times - drop) * sizeof(e->crash_at_ms[0]));
        e->n_crash_times -= drop;
    }
}

static void step(struct xi_entry *e, const struct xi_fsm_input *input)
{
    struct xi_fsm_input in = *input;
    unsigned crashes = e->fsm.crashes;
    uint32_t acts;

    in.busy = xi_pool_busy(&e->s);
    acts = xi_fsm_feed(&e->fsm, &in);
    e->s.state = e->fsm.state;
    keep_crash_times(e, crashes);
    if (e->s.state == XI_SESSION_DRAINING || e->s.state == XI_SESSION_GONE) {
        xi_names_drop_name(e->m, e);
        xi_leases_move(e->m, &e->s, NULL);
    }
    perform(e, acts);
    xi_memory_settle(e);
    xi_swap_notice(e);
    /* A request came in the moment in which it went idle. */
    if (e->fsm.state == XI_SESSION_IDLE && e->swap == NULL && xi_pool_busy(&e->s))
        xi_entry_feed(e, XI_EV_LOAD);
}

/* Events that come while another one is served wait until its actions are done. */
void xi_entry_feed_input(struct xi_entry *e, const struct xi_fsm_input *input)
{
    XI_ASSERT(e->n_pending < XI_PENDING_MAX);
    e->pending[e->n_pending++] = *input;
    if (e->feeding)
        return;
    e->feeding = 1;
    xi_session_get(&e->s);
    while (e->n_pending > 0) {
        struct xi_fsm_input in = e->pending[0];

        e->n_pending--;
        memmove(e->pending, e->pending + 1, e->n_pending * sizeof(in));
        step(e, &in);
    }
    e->feeding = 0;
    xi_session_put(&e->s);
}

void xi_entry_feed(struct xi_entry *e, enum xi_fsm_event event)
{
    xi_entry_feed_input(e, &(struct xi_fsm_input){.event = event});
}
