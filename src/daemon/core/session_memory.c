#include "daemon/core/session_memory.h"

#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "daemon/core/resource_monitor.h"
#include "daemon/core/session_group.h"
#include "daemon/core/session_plan.h"
#include "daemon/core/session_private.h"
#include "daemon/core/why.h"

/* ---- what is needed ---- */

static uint32_t wanted_batch(const struct xi_package_record *record,
                             const struct xi_load_options *o)
{
    int at = xi_record_find_model(record, "main");
    uint32_t of_package = at >= 0 ? record->models[at].max_batch : 0;

    if (o->max_batch > 0)
        return o->max_batch;
    return of_package > 0 ? of_package : 1;
}

static struct xi_peak key_of(const struct xi_sessions *m, const char *digest,
                             const struct xi_package_record *record,
                             const struct xi_load_options *o, const struct xi_variant_choice *c)
{
    const struct xi_engine_record *engine = &m->engines[c->engine];
    struct xi_peak key = {.batch = wanted_batch(record, o), .instances = o->instances};

    (void)snprintf(key.digest, sizeof(key.digest), "%s", digest);
    (void)snprintf(key.variant, sizeof(key.variant), "%s", record->variants[c->variant].id);
    (void)snprintf(key.engine_build, sizeof(key.engine_build), "%s-%s", engine->name,
                   engine->probe.version);
    (void)snprintf(key.device, sizeof(key.device), "%s", engine->probe.devices[c->device].id);
    return key;
}

static uint64_t files_bytes(const struct xi_package_record *record,
                            const struct xi_record_variant *v)
{
    uint64_t bytes = 0;
    uint32_t i;

    for (i = 0; i < v->n_files; i++)
        bytes += record->blobs[record->files[v->first_file + i]].bytes;
    return bytes;
}

static struct xi_memory_need need_of(const struct xi_sessions *m, const char *digest,
                                     const struct xi_package_record *record,
                                     const struct xi_load_options *o,
                                     const struct xi_variant_choice *c)
{
    const struct xi_record_variant *v = &record->variants[c->variant];
    uint64_t context = m->engines[c->engine].probe.devices[c->device].context_bytes;
    uint64_t estimate = v->memory_bytes != 0 ? v->memory_bytes : record->memory_required;
    struct xi_peak key = key_of(m, digest, record, o, c);
    int exact = 0;
    uint64_t measured = xi_store_peak(m->store, &key, &exact);

    if (measured > 0)
        return (struct xi_memory_need){measured, XI_MEMORY_MEASURED};
    if (estimate > 0)
        return (struct xi_memory_need){estimate + context, XI_MEMORY_ESTIMATED};
    return (struct xi_memory_need){2 * files_bytes(record, v) + XI_MEMORY_GUESS_MIN + context,
                                   XI_MEMORY_GUESSED};
}

/* ---- budgets ---- */

static const struct xi_engine_device *device_of(const struct xi_sessions *m,
                                                const struct xi_variant_choice *c)
{
    return &m->engines[c->engine].probe.devices[c->device];
}

/* The machine's memory for everything that computes on its processor. */
static uint32_t budget_of(struct xi_sessions *m, const struct xi_engine_device *d)
{
    const struct xi_resources *r =
        m->config.monitor != NULL ? xi_monitor_latest(m->config.monitor) : NULL;
    const struct xi_monitored *sensor = NULL;
    uint64_t total = d->memory_total_bytes;

    if (d->kind == XI_DEV_CPU)
        return 0;
    if (r != NULL)
        sensor = xi_resources_find(r, d->kind, d->id);
    if (total == 0 && sensor != NULL && sensor->memory_total_bytes > 0)
        total = (uint64_t)sensor->memory_total_bytes;
    return xi_admission_budget(m->admission, d->id, total);
}

static void see(struct xi_sessions *m, uint32_t budget, double total, double available,
                uint64_t at_ms)
{
    if (total > 0 && available >= 0)
        xi_admission_seen(m->admission, budget, (uint64_t)total, (uint64_t)available, at_ms);
    else
        xi_admission_seen(m->admission, budget, 0, XI_MEMORY_UNKNOWN, at_ms);
}

static void look_at_device(struct xi_sessions *m, const struct xi_resources *r,
                           const struct xi_engine_device *d)
{
    const struct xi_monitored *sensor = xi_resources_find(r, d->kind, d->id);
    uint32_t budget = budget_of(m, d);
    double available = -1;

    if (sensor != NULL && sensor->memory_used_bytes >= 0)
        available = sensor->memory_total_bytes - sensor->memory_used_bytes;
    if (budget != 0)
        see(m, budget, sensor != NULL ? sensor->memory_total_bytes : 0, available,
            r->sampled_at_ms);
}

static void look_at_machine(struct xi_sessions *m)
{
    const struct xi_resources *r =
        m->config.monitor != NULL ? xi_monitor_latest(m->config.monitor) : NULL;
    uint32_t e, i;

    if (r == NULL || r->sampled_at_ms == 0)
        return;
    see(m, 0, r->memory_total_bytes, r->memory_available_bytes, r->sampled_at_ms);
    for (e = 0; e < m->n_engines; e++) {
        const struct xi_engine_probe *probe = &m->engines[e].probe;

        for (i = 0; i < probe->n_devices; i++)
            look_at_device(m, r, &probe->devices[i]);
    }
}

/* ---- what a shared host has once ---- */

static struct xi_entry *mate_that_holds(const struct xi_entry *e)
{
    struct xi_entry *mate, *found = NULL;

    if (e->s.group == NULL)
        return NULL;
    for (mate = e->s.group->first; mate != NULL; mate = mate->mate_next) {
        const struct xi_holding *h = &mate->memory.holding;

        if (mate == e || h->held + h->promised == 0)
            continue;
        if (h->held > 0 && !h->leaving)
            return mate;
        found = mate;
    }
    return found;
}

/* A session in a host that is there already costs no context of its own. */
static uint64_t context_saved(const struct xi_entry *e)
{
    const struct xi_entry *mate = mate_that_holds(e);

    if (mate == NULL || e->memory.context_bytes > 0)
        return 0;
    return device_of(e->m, &e->choices[e->at])->context_bytes;
}

void xi_memory_leave_context(struct xi_entry *e)
{
    struct xi_entry *mate = mate_that_holds(e);
    uint64_t bytes = e->memory.context_bytes;

    e->memory.context_bytes = 0;
    e->memory.holding.shared_bytes = 0;
    if (bytes == 0 || mate == NULL || mate->memory.context_bytes > 0 ||
        e->memory.holding.held < bytes || e->memory.holding.budget != mate->memory.holding.budget)
        return;
    xi_admission_hand_over(e->m->admission, &e->memory.holding, &mate->memory.holding, bytes);
    mate->memory.context_bytes = bytes;
    mate->s.reserved_bytes = mate->memory.holding.held + mate->memory.holding.promised;
    e->s.reserved_bytes = e->memory.holding.held + e->memory.holding.promised;
}

/* ---- who may go ---- */

static int is_mate(const struct xi_entry *e, const struct xi_entry *other)
{
    return other != NULL && other != e && e->s.group != NULL && e->s.group == other->s.group;
}

/* asking: it may come to hold what the host of an evicted mate has for all. NULL: nobody's. */
static void look_at_sessions(struct xi_sessions *m, const struct xi_entry *asking)
{
    struct xi_entry *e;

    for (e = m->first; e != NULL; e = e->next) {
        e->memory.holding.name = e->s.name;
        e->memory.holding.tenant = e->s.owner;
        e->memory.holding.evictable = !e->s.options.pinned && xi_entry_unused(e);
        e->memory.holding.shared_bytes =
            mate_that_holds(e) != NULL || is_mate(e, asking) ? e->memory.context_bytes : 0;
        e->memory.holding.last_used_ms = e->s.last_used_ms;
        /* Only a request can have another one behind it. */
        e->memory.holding.in_use_ms =
            e->s.last_used_ms > e->memory.loaded_ms ? e->s.last_used_ms + XI_IN_USE_MS : 0;
    }
}

static void note(struct xi_entry *e, enum xi_why_kind kind, const struct xi_err *why)
{
    struct xi_why_entry entry = {.kind = kind, .rc = why->rc};

    (void)snprintf(entry.session, sizeof(entry.session), "%s", e->s.id);
    (void)snprintf(entry.name, sizeof(entry.name), "%s", e->s.name);
    (void)snprintf(entry.tenant, sizeof(entry.tenant), "%s", e->s.tenant);
    (void)snprintf(entry.text, sizeof(entry.text), "%s", why->msg);
    (void)snprintf(entry.hint, sizeof(entry.hint), "%s", why->hint);
    xi_why_note(e->m->config.why, &entry);
}

static struct xi_entry *entry_of_holding(struct xi_holding *h)
{
    return (struct xi_entry *)(void *)((char *)h - offsetof(struct xi_entry, memory.holding));
}

/* 0: it came into use in this very moment. */
static int evict(struct xi_entry *victim, const struct xi_entry *for_whom)
{
    uint64_t idle_ms = xi_now_ms() - victim->memory.holding.last_used_ms;
    char bytes[24];
    struct xi_err why;

    (void)xi_fail(&why, XI_OK, "its %s were needed for %s; it was idle for %llu s",
                  xi_bytes_text(victim->memory.holding.held, bytes),
                  strcmp(for_whom->s.tenant, victim->s.tenant) == 0 ? for_whom->s.name
                                                                    : "another tenant's model",
                  (unsigned long long)idle_ms / 1000);
    (void)xi_hint(&why, "its next request loads it again; keep it with xinfer load --pinned");
    if (!xi_sessions_idle(victim->m, &victim->s, why.msg))
        return 0;
    note(victim, XI_WHY_EVICTED, &why);
    xi_log(XI_INFO, "session.evicted", "id=%s name=%s bytes=%llu for=%s idle_ms=%llu", victim->s.id,
           victim->s.name, (unsigned long long)victim->memory.holding.held, for_whom->s.name,
           (unsigned long long)idle_ms);
    return 1;
}

/* ---- asking ---- */

static enum xi_rc ask(struct xi_entry *e, uint64_t bytes, struct xi_err *err)
{
    struct xi_sessions *m = e->m;
    struct xi_holding *h = &e->memory.holding;
    uint32_t budget = budget_of(m, device_of(m, &e->choices[e->memory.choice]));
    struct xi_victims victims;
    uint64_t retry_ms = 0;
    enum xi_rc rc;
    uint32_t i;
    int again = 1;

    look_at_machine(m);
    look_at_sessions(m, e);
    h->evictable = 0;
    do {
        rc =
            xi_admission_ask(m->admission, h, budget, bytes, xi_now_ms(), &victims, &retry_ms, err);
        again = 0;
        for (i = 0; i < victims.n; i++) {
            struct xi_entry *victim = entry_of_holding(victims.all[i]);

            if (evict(victim, e))
                continue;
            xi_admission_stay(m->admission, &victim->memory.holding);
            again = 1; /* somebody else may do */
        }
        if (again)
            xi_admission_cancel(m->admission, h);
    } while (again);
    e->s.retry_after_s = rc == XI_EBUDGET ? (uint32_t)((retry_ms + 999) / 1000) : 0;
    e->s.reserved_bytes = h->held + h->promised;
    return rc;
}

static void wait_in_line(struct xi_entry *e)
{
    struct xi_entry **at = &e->m->memory_line;

    while (*at != NULL)
        at = &(*at)->memory.next;
    *at = e;
    e->memory.next = NULL;
    e->memory.waiting = 1;
}

static void leave_line(struct xi_entry *e)
{
    struct xi_entry **at = &e->m->memory_line;

    if (!e->memory.waiting)
        return;
    while (*at != e)
        at = &(*at)->memory.next;
    *at = e->memory.next;
    e->memory.waiting = 0;
}

static void answer(struct xi_entry *e, const struct xi_err *err)
{
    void (*then)(struct xi_entry *, const struct xi_err *) = e->memory.then;

    e->memory.then = NULL;
    e->s.reserved_bytes = e->memory.holding.held + e->memory.holding.promised;
    if (then != NULL)
        then(e, err);
}

/* Requests for a sleeping session ask again and again: once a second is enough to read. */
static void refused(struct xi_entry *e, const struct xi_err *err)
{
    uint64_t now = xi_now_ms();

    if (e->memory.refused_ms != 0 && now - e->memory.refused_ms < XI_REFUSED_AGAIN_MS)
        return;
    e->memory.refused_ms = now;
    note(e, XI_WHY_REFUSED, err);
    xi_log(XI_WARN, "session.refused", "id=%s name=%s variant=%s needed=%llu figure=%s why=%s",
           e->s.id, e->s.name, e->s.variant, (unsigned long long)e->memory.need.bytes,
           xi_memory_source_name(e->memory.need.source), err->msg);
}

/* Whoever waits and can have its room now gets it. */
static void serve_line(struct xi_sessions *m)
{
    struct xi_entry *e = m->memory_line;

    while (e != NULL) {
        enum xi_rc rc = xi_admission_ready(m->admission, &e->memory.holding);
        struct xi_err err;

        if (rc == XI_EAGAIN) {
            e = e->memory.next;
            continue;
        }
        leave_line(e);
        if (rc == XI_OK) {
            answer(e, NULL);
        } else {
            (void)xi_fail(&err, XI_EBUDGET, "%s: the room that was made for it was taken away",
                          e->s.name);
            refused(e, &err);
            answer(e, &err);
        }
        e = m->memory_line; /* what was called may have changed it */
    }
}

static void give_back(struct xi_entry *e)
{
    struct xi_holding *h = &e->memory.holding;

    leave_line(e);
    if (h->held == 0 && h->promised == 0)
        return;
    xi_memory_leave_context(e);
    xi_admission_release(e->m->admission, h, xi_now_ms());
    e->s.reserved_bytes = 0;
    serve_line(e->m);
}

/* What other programs hold of its device. */
static uint64_t foreign(const struct xi_entry *e)
{
    struct xi_budget_view view;

    return xi_admission_view(e->m->admission, e->memory.holding.budget, &view) ? view.foreign : 0;
}

void xi_memory_claim(struct xi_entry *e, void (*then)(struct xi_entry *e, const struct xi_err *err))
{
    struct xi_session_memory *mine = &e->memory;
    uint64_t saved, bytes;
    struct xi_err err;
    enum xi_rc rc;

    leave_line(e); /* it crashed while it waited with what it had taken already */
    /* Another variant, perhaps another device; or it was on its way out when a request came. */
    if (mine->choice != e->at || mine->holding.leaving)
        give_back(e);
    mine->choice = e->at;
    mine->need = need_of(e->m, e->s.digest, e->s.record, &e->s.options, &e->choices[e->at]);
    saved = context_saved(e);
    if (mine->holding.held == 0)
        mine->context_bytes = saved > 0 ? 0 : device_of(e->m, &e->choices[e->at])->context_bytes;
    bytes = mine->need.bytes > saved ? mine->need.bytes - saved : 1;
    if (bytes < mine->holding.held)
        bytes = mine->holding.held; /* a restart: it may need again what it had */
    mine->then = then;
    rc = ask(e, bytes, &err);
    mine->foreign_bytes = foreign(e);
    if (rc == XI_EAGAIN) {
        wait_in_line(e);
        serve_line(e->m);
        return;
    }
    if (rc == XI_OK) {
        answer(e, NULL);
        return;
    }
    if (mine->need.source == XI_MEMORY_GUESSED)
        (void)xi_hint(&err, "its need is a guess from its files: \"memory_bytes\" in the manifest "
                            "says it better");
    refused(e, &err);
    answer(e, &err);
}

/* ---- after the load ---- */

void xi_memory_ran_out(struct xi_entry *e, struct xi_err *inout)
{
    struct xi_budget_view view;
    char need[24], more[24], all[24];
    struct xi_err why;

    look_at_machine(e->m);
    if (!xi_admission_view(e->m->admission, e->memory.holding.budget, &view) ||
        view.foreign <= e->memory.foreign_bytes)
        return;
    (void)xi_fail(&why, XI_EBUDGET,
                  "%s needs %s of %s and was let in; while it loaded other programs took %s more, "
                  "%s in all: %.200s",
                  e->s.name, xi_bytes_text(e->memory.holding.held, need), view.name,
                  xi_bytes_text(view.foreign - e->memory.foreign_bytes, more),
                  xi_bytes_text(view.foreign, all), inout->msg);
    (void)xi_hint(&why, "end other programs, or load it again once they have ended");
    *inout = why;
    refused(e, inout);
}

enum xi_rc xi_memory_measured(struct xi_entry *e, struct xi_err *err)
{
    struct xi_session *s = &e->s;
    struct xi_session_memory *mine = &e->memory;
    uint64_t saved = context_saved(e);
    uint64_t peak = s->peak_bytes > s->memory_bytes ? s->peak_bytes : s->memory_bytes;
    struct xi_peak key = key_of(e->m, s->digest, s->record, &s->options, &e->choices[e->at]);
    enum xi_rc rc;

    if (peak == 0)
        return XI_OK; /* it could not tell */
    /* Of an accelerator's memory the process itself shows nothing: the estimate stays the least. */
    if (s->device_kind != XI_DEV_CPU && peak < mine->holding.held)
        peak = mine->holding.held;
    key.bytes = peak + saved;
    xi_store_note_peak(e->m->store, &key);
    mine->holding.resident_bytes = peak;
    mine->holding.measured_ms = xi_now_ms();
    mine->loaded_ms = s->last_used_ms;
    mine->refused_ms = 0;
    mine->need = (struct xi_memory_need){key.bytes, XI_MEMORY_MEASURED};
    rc = ask(e, peak, err);
    if (rc != XI_EBUDGET && s->isolation == XI_ISOLATE_SESSION && s->host != NULL)
        xi_host_limit_memory(
            s->host, peak + (peak / 2 > XI_HOST_MARGIN_MIN ? peak / 2 : XI_HOST_MARGIN_MIN));
    if (rc == XI_EAGAIN) { /* it has taken it already: others leave while it serves */
        wait_in_line(e);
        serve_line(e->m);
        return XI_OK;
    }
    if (rc == XI_EBUDGET) {
        (void)xi_wrap(err, XI_EBUDGET, "measured");
        refused(e, err);
    } else {
        serve_line(e->m); /* it may have given back */
    }
    return rc;
}

void xi_memory_settle(struct xi_entry *e)
{
    int unwanted = e->fsm.state == XI_SESSION_DRAINING || e->fsm.state == XI_SESSION_IDLE;
    struct xi_err err;

    if (e->memory.waiting && e->memory.then != NULL && unwanted) {
        give_back(e);
        (void)xi_fail(&err, XI_EGONE, "session %s is not wanted any more", e->s.id);
        answer(e, &err);
        return;
    }
    if (e->fsm.phase == XI_PHASE_NONE)
        give_back(e);
}

/* ---- a fresh host beside the old one ---- */

int xi_memory_second(struct xi_group *g)
{
    struct xi_admission *a = g->m->admission;
    const struct xi_entry *e, *first = NULL;
    struct xi_victims victims;
    uint64_t bytes = 0, retry_ms, now = xi_now_ms();
    struct xi_err err;
    uint32_t budget;

    for (e = g->first; e != NULL; e = e->mate_next) {
        if (!e->inside)
            continue;
        first = first == NULL ? e : first;
        bytes += e->memory.holding.held;
    }
    if (first == NULL || bytes == 0)
        return 1;
    look_at_machine(g->m);
    look_at_sessions(g->m, NULL);
    g->second.name = "a fresh host";
    g->second.tenant = first->s.owner;
    budget = budget_of(g->m, device_of(g->m, &first->choices[first->memory.choice]));
    if (xi_admission_would(a, &g->second, budget, bytes, now, &victims, &err) != XI_OK)
        return 0; /* nobody is sent away for it */
    return xi_admission_ask(a, &g->second, budget, bytes, now, &victims, &retry_ms, &err) == XI_OK;
}

void xi_memory_second_gone(struct xi_group *g)
{
    xi_admission_release(g->m->admission, &g->second, xi_now_ms());
    serve_line(g->m);
}

uint64_t xi_memory_host_limit(const struct xi_entry *e)
{
    uint64_t most = e->m->config.host_data_limit_bytes, mine;
    struct xi_budget_view view;

    if (e->s.device_kind != XI_DEV_CPU || !xi_admission_view(e->m->admission, 0, &view) ||
        view.free == XI_MEMORY_UNKNOWN)
        return most;
    mine = e->memory.holding.held + view.free + XI_HOST_SPARE_BYTES;
    return most == 0 || mine < most ? mine : most;
}

/* ---- dry runs and settings ---- */

/* Those of the asking tenant by name; of others only that there are some. */
static void list_names(const struct xi_victims *v, const struct xi_tenant *tenant, char *ret,
                       size_t room)
{
    size_t used = 0;
    uint32_t i, others = 0;

    ret[0] = '\0';
    for (i = 0; i < v->n && used < room; i++) {
        if (v->all[i]->tenant == tenant)
            used += (size_t)snprintf(ret + used, room - used, "%s%s", used > 0 ? ", " : "",
                                     v->all[i]->name);
        else
            others++;
    }
    if (others > 0 && used < room)
        (void)snprintf(ret + used, room - used, "%s%u of other tenants", used > 0 ? ", " : "",
                       others);
}

int xi_memory_plan(struct xi_sessions *m, const char *digest,
                   const struct xi_package_record *record, const struct xi_load_options *options,
                   const struct xi_variant_choice *choice, struct xi_plan *ret)
{
    struct xi_memory_need need = need_of(m, digest, record, options, choice);
    struct xi_holding asks = {.name = options->name};
    uint32_t budget = budget_of(m, device_of(m, choice));
    struct xi_budget_view view;
    struct xi_victims victims;
    enum xi_rc rc;

    if (m->config.tenants != NULL)
        asks.tenant = xi_tenants_get(m->config.tenants, options->tenant);
    look_at_machine(m);
    look_at_sessions(m, NULL);
    ret->verdict = (struct xi_err){0};
    rc = xi_admission_would(m->admission, &asks, budget, need.bytes, xi_now_ms(), &victims,
                            &ret->verdict);
    ret->figure = need.source;
    ret->needed_bytes = need.bytes;
    if (xi_admission_view(m->admission, budget, &view)) {
        ret->free_bytes = view.free == XI_MEMORY_UNKNOWN ? 0 : view.free;
        ret->limit_bytes = view.limit;
    }
    list_names(&victims, asks.tenant, ret->evicts, sizeof(ret->evicts));
    return rc != XI_EBUDGET;
}

void xi_sessions_set_memory(struct xi_sessions *m, uint64_t limit_bytes, int evict_idle)
{
    (void)xi_admission_budget(m->admission, "memory", limit_bytes);
    xi_admission_evict(m->admission, evict_idle);
}

int xi_sessions_budget(struct xi_sessions *m, uint32_t index, struct xi_budget_view *ret)
{
    look_at_machine(m);
    return xi_admission_view(m->admission, index, ret);
}
