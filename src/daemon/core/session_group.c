#include "daemon/core/session_group.h"

#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/log.h"
#include "base/platform/self.h"
#include "daemon/core/isolation.h"

/* ---- which group ---- */

/* Those that this session would not join; of its own engine alone knows what its hosts cost. */
static uint32_t other_hosts(const struct xi_sessions *m, const char *tenant, uint32_t engine,
                            const char *device)
{
    const struct xi_group *g;
    uint32_t n = 0;

    for (g = m->groups; g != NULL; g = g->next) {
        int joined = g->kind == XI_ISOLATE_TENANT && strcmp(g->tenant, tenant) == 0;

        n += g->engine == engine && strcmp(g->device, device) == 0 && !joined;
    }
    return n;
}

enum xi_isolation xi_group_preview(struct xi_sessions *m, const char *tenant,
                                   enum xi_isolation asked, uint32_t engine, uint32_t device,
                                   char ret_reason[160])
{
    const struct xi_engine_device *d = &m->engines[engine].probe.devices[device];
    struct xi_isolation_facts facts = {
        .asked = asked,
        .engine = m->engines[engine].name,
        .device = d->id,
        .exclusive = d->exclusive != 0,
        .context_bytes = d->context_bytes,
        .device_bytes = d->memory_total_bytes,
        .other_hosts = other_hosts(m, tenant, engine, d->id),
    };

    return xi_isolation_choose(&facts, ret_reason);
}

static int fits(const struct xi_group *g, const struct xi_entry *e)
{
    if (g->kind != e->s.isolation || g->kind == XI_ISOLATE_SESSION ||
        g->engine != e->choices[e->at].engine || strcmp(g->device, e->s.device) != 0)
        return 0;
    return g->kind == XI_ISOLATE_DEVICE ||
           (strcmp(g->tenant, e->s.tenant) == 0 && (!e->s.apart || g == e->s.group));
}

void xi_group_free_when_empty(struct xi_group *g)
{
    struct xi_sessions *m = g->m;

    if (g->n_members > 0 || g->host != NULL || g->fresh != NULL || g->old != NULL || g->held > 0)
        return;
    if (g->kind != XI_ISOLATE_SESSION)
        xi_store_forget_group(m->store, g->id);
    if (g->prev != NULL)
        g->prev->next = g->next;
    else
        m->groups = g->next;
    if (g->next != NULL)
        g->next->prev = g->prev;
    free(g);
}

static struct xi_group *group_new(const struct xi_entry *e)
{
    struct xi_group *g = calloc(1, sizeof(*g));

    if (g == NULL)
        return NULL;
    g->m = e->m;
    g->kind = e->s.isolation;
    g->engine = e->choices[e->at].engine;
    (void)snprintf(g->device, sizeof(g->device), "%s", e->s.device);
    if (g->kind != XI_ISOLATE_DEVICE)
        (void)snprintf(g->tenant, sizeof(g->tenant), "%s", e->s.tenant);
    xi_uuid_new(g->id);
    g->next = e->m->groups;
    if (g->next != NULL)
        g->next->prev = g;
    e->m->groups = g;
    return g;
}

void xi_group_part(struct xi_entry *e)
{
    struct xi_group *g = e->s.group;

    if (g == NULL)
        return;
    XI_ASSERT(!e->inside);
    xi_memory_leave_context(e);
    if (e->mate_prev != NULL)
        e->mate_prev->mate_next = e->mate_next;
    else
        g->first = e->mate_next;
    if (e->mate_next != NULL)
        e->mate_next->mate_prev = e->mate_prev;
    else
        g->last = e->mate_prev;
    e->mate_prev = NULL;
    e->mate_next = NULL;
    e->s.group = NULL;
    g->n_members--;
    xi_group_free_when_empty(g);
}

static void append(struct xi_group *g, struct xi_entry *e)
{
    e->mate_prev = g->last;
    if (g->last != NULL)
        g->last->mate_next = e;
    else
        g->first = e;
    g->last = e;
    g->n_members++;
    e->s.group = g;
}

/* A session's own group is its own for as long as the engine and the device stay. */
static int stays(const struct xi_entry *e)
{
    const struct xi_group *g = e->s.group;

    return g != NULL &&
           (fits(g, e) ||
            (g->kind == XI_ISOLATE_SESSION && e->s.isolation == g->kind &&
             g->engine == e->choices[e->at].engine && strcmp(g->device, e->s.device) == 0));
}

enum xi_rc xi_group_join(struct xi_entry *e, struct xi_err *err)
{
    struct xi_group *g = NULL, *other;

    if (stays(e))
        return XI_OK;
    for (other = e->m->groups; other != NULL; other = other->next)
        g = fits(other, e) ? other : g; /* the oldest: newer ones are of candidates */
    if (g == NULL)
        g = group_new(e);
    if (g == NULL)
        return xi_fail(err, XI_ENOMEM, "no memory for another host");
    xi_group_part(e);
    append(g, e);
    return XI_OK;
}

/* ---- whose is it ---- */

/* 0 (a host that speaks of itself): the one that loads. */
static struct xi_entry *find(const struct xi_group *g, uint32_t number)
{
    struct xi_entry *e;

    for (e = g->first; e != NULL; e = e->mate_next) {
        if (e->inside && (number == 0 ? e->fsm.phase == XI_PHASE_LOADING : e->s.number == number))
            return e;
    }
    return NULL;
}

static void on_progress(void *ctx, struct xi_host *host, const struct xi_msg_progress *msg)
{
    struct xi_group *g = ctx;
    struct xi_entry *e;

    if (host != g->host)
        return;
    for (e = g->first; e != NULL; e = e->mate_next)
        xi_entry_load_goes_on(e); /* a host loads one after the other: none of them hangs */
    e = find(g, msg->session);
    if (e != NULL)
        xi_entry_progress(e, msg);
}

/* What is done for one may change who is inside: the first that serves tells the pool for all. */
static void load_ended(const struct xi_group *g)
{
    struct xi_entry *e = g->first;

    while (e != NULL && !(e->inside && e->fsm.phase == XI_PHASE_UP))
        e = e->mate_next;
    if (e != NULL)
        xi_pool_load_ended(&e->s);
}

static void on_loaded(void *ctx, struct xi_host *host, const struct xi_msg_loaded *msg,
                      struct xi_signature *signature)
{
    struct xi_group *g = ctx;
    struct xi_entry *e = find(g, msg->session);
    uint64_t before = g->memory_bytes;

    if (xi_fresh_loaded(g, host, msg, signature))
        return;
    g->memory_bytes = msg->memory_bytes;
    g->held++;
    if (e == NULL)
        xi_signature_fini(signature);
    else
        xi_entry_loaded(e, msg, signature,
                        msg->memory_bytes > before ? msg->memory_bytes - before : 0);
    load_ended(g);
    g->held--;
    xi_group_free_when_empty(g);
}

static void on_failed(void *ctx, struct xi_host *host, uint32_t session, const struct xi_err *err,
                      const char *phase)
{
    struct xi_group *g = ctx;
    struct xi_entry *e = find(g, session);

    (void)phase;
    if (xi_fresh_failed(g, host, err) || e == NULL)
        return;
    e->asked = 0; /* nothing of it is left there */
    g->held++;
    xi_entry_load_failed(e, err);
    load_ended(g);
    g->held--;
    xi_group_free_when_empty(g);
}

static void on_done(void *ctx, struct xi_host *host, uint32_t lane, struct xi_reply *reply)
{
    struct xi_group *g = ctx;
    struct xi_entry *e = host == g->host ? g->lanes[lane] : NULL;

    if (e == NULL) { /* a host that was replaced has no work */
        xi_reply_release(reply);
        return;
    }
    g->served++;
    xi_pool_completed(&e->s, lane - e->s.first_lane, reply);
    if (g->renewal > XI_RENEWAL_LOADS)
        xi_group_quiet(g); /* perhaps it was the last */
}

/* ---- lanes ---- */

static void free_lanes(struct xi_entry **lanes, const struct xi_entry *e)
{
    uint32_t i;

    for (i = 0; i < XI_HOST_LANES_MAX; i++) {
        if (lanes[i] == e)
            lanes[i] = NULL;
    }
}

static enum xi_rc take_lanes(struct xi_entry **lanes, struct xi_entry *e, uint32_t n, uint32_t *ret,
                             struct xi_err *err)
{
    uint32_t i, run = 0;

    for (i = 0; i < XI_HOST_LANES_MAX && run < n; i++)
        run = lanes[i] == NULL ? run + 1 : 0;
    if (run < n)
        return xi_fail(err, XI_EAGAIN, "the %u lanes of the host it shares have no room for %u",
                       XI_HOST_LANES_MAX, n);
    *ret = i - n;
    for (i = *ret; i < *ret + n; i++)
        lanes[i] = e;
    return XI_OK;
}

enum xi_rc xi_group_load_in(struct xi_host *host, struct xi_entry **lanes, struct xi_entry *e,
                            struct xi_msg_load *load, struct xi_err *err)
{
    static const int nice_of[] = {XI_NICE_REALTIME, XI_NICE_NORMAL, XI_NICE_BATCH};
    uint32_t n = load->lane_count + load->stage_lanes;
    enum xi_rc rc = take_lanes(lanes, e, n, &load->first_lane, err);

    if (rc == XI_OK)
        rc = xi_host_load(host, load, nice_of[e->s.options.priority], err);
    if (rc != XI_OK)
        free_lanes(lanes, e);
    return rc;
}

enum xi_rc xi_group_load(struct xi_entry *e, struct xi_msg_load *load, struct xi_err *err)
{
    struct xi_group *g = e->s.group;
    enum xi_rc rc = xi_group_load_in(g->host, g->lanes, e, load, err);

    if (rc != XI_OK)
        return rc;
    e->s.first_lane = load->first_lane;
    e->asked = 1;
    return XI_OK;
}

/* ---- leaving ---- */

static void out(struct xi_entry *e)
{
    struct xi_group *g = e->s.group;

    free_lanes(g->lanes, e);
    e->inside = 0;
    e->asked = 0;
    e->s.host = NULL;
    g->n_inside--;
}

static void on_unloaded(void *ctx, struct xi_host *host, const struct xi_msg_unload *msg)
{
    struct xi_group *g = ctx;
    struct xi_entry *e = find(g, msg->session);

    g->memory_bytes = msg->memory_bytes;
    if (e == NULL)
        return;
    if (g->n_inside == 1) { /* its end gives back what unloading may not */
        xi_host_stop(host, XI_HOST_GRACE_MS, "its last session was unloaded");
        return;
    }
    g->held++;
    out(e);
    xi_entry_host_gone(e, "unloaded it", XI_BLAME_NONE, 0);
    load_ended(g);
    g->held--;
    xi_group_free_when_empty(g);
}

void xi_group_leave(struct xi_entry *e, const char *why)
{
    struct xi_group *g = e->s.group;
    struct xi_err err;

    if (!e->inside)
        return;
    if (g->renewal == XI_RENEWAL_ENDS) { /* all of them leave */
        if (xi_host_runs(g->host))
            xi_host_stop(g->host, XI_HOST_GRACE_MS, g->renew_why);
        return;
    }
    xi_group_keep(g);
    if (g->n_inside == 1 || g->m->closing) {
        xi_host_stop(g->host, g->m->closing ? 0 : XI_HOST_GRACE_MS, why);
        return;
    }
    if (!e->asked) { /* the host never heard of it */
        out(e);
        xi_entry_host_gone(e, why, XI_BLAME_NONE, 0);
        return;
    }
    if (xi_host_unload(g->host, e->s.number, &err) == XI_OK)
        xi_entry_unload_begins(e); /* otherwise the host ends, which ends this too */
}

/* ---- the host's end ---- */

/* A host that ended by itself: who did it. Those that ran or loaded something; among them the one
 * whose load it ended before; when nobody did anything, all. */
static int suspicion(const struct xi_entry *e)
{
    if (e->fsm.phase == XI_PHASE_LOADING)
        return e->died_loading > 0 ? 3 : 2;
    return e->s.running > 0 ? 2 : 1;
}

/* An engine that gave itself up had answered the request that made it (runner_batch.c): what runs
 * now came to it between that answer and its end. */
static int gave_up(const struct xi_host_exit *why)
{
    return !why->killed &&
           (why->exit_code == XI_EXIT_ENGINE_BROKEN || why->exit_code == XI_EXIT_DEVICE_LOST);
}

static void judge(struct xi_group *g, const struct xi_host_exit *why)
{
    struct xi_entry *e;
    int most = 0, beside = gave_up(why);

    for (e = g->first; e != NULL; e = e->mate_next) {
        if (e->inside && suspicion(e) > most)
            most = suspicion(e);
        beside |= e->inside && e->fsm.phase == XI_PHASE_LOADING;
    }
    for (e = g->first; e != NULL; e = e->mate_next) {
        e->ending = e->inside;
        e->blame = XI_BLAME_MODEL;
        if (e->inside && suspicion(e) < most)
            e->blame = XI_BLAME_NONE;
        else if (beside && e->fsm.phase != XI_PHASE_LOADING)
            e->blame = XI_BLAME_LATER; /* maybe not what ran: no request is convicted */
        if (e->inside && e->fsm.phase == XI_PHASE_LOADING && e->died_loading < 255)
            e->died_loading++;
    }
}

/* What handlers do may change who is a member: begin anew after each. */
static struct xi_entry *next_ending(const struct xi_group *g)
{
    struct xi_entry *e = g->first;

    while (e != NULL && !e->ending)
        e = e->mate_next;
    return e;
}

static struct xi_entry *next_waiting(const struct xi_group *g)
{
    struct xi_entry *e = g->first;

    while (e != NULL && !e->waits)
        e = e->mate_next;
    return e;
}

void xi_group_let_in(struct xi_group *g)
{
    struct xi_entry *e;

    while (g->renewal == XI_RENEWAL_NONE && (e = next_waiting(g)) != NULL)
        xi_group_enter(e);
}

static void on_exited(void *ctx, struct xi_host *host, const struct xi_host_exit *why)
{
    struct xi_group *g = ctx;
    struct xi_entry *e;
    int lost = !why->killed && why->exit_code == XI_EXIT_DEVICE_LOST;

    if (xi_fresh_exited(g, host, why))
        return;
    XI_ASSERT(g->host == host);
    xi_group_keep(g);
    g->renewal = XI_RENEWAL_NONE;
    g->host = NULL;
    g->memory_bytes = 0;
    g->held++;
    judge(g, why);
    while ((e = next_ending(g)) != NULL) {
        e->ending = 0;
        out(e);
        if (e->fsm.phase != XI_PHASE_STOPPING)
            xi_log(XI_WARN, "host.died", "id=%s name=%s pid=%d running=%u why=%s", e->s.id,
                   e->s.name, xi_host_pid(host), e->s.running, why->reason);
        xi_entry_host_gone(e, why->reason, e->blame, lost);
    }
    xi_host_free(host);
    if (lost)
        xi_device_suspect(g->m, g->engine, g->device);
    xi_group_let_in(g);
    g->held--;
    xi_group_free_when_empty(g);
}

/* ---- starting ---- */

static void label_of(const struct xi_group *g, const struct xi_entry *e, char *ret, size_t bytes)
{
    if (g->kind == XI_ISOLATE_SESSION)
        (void)snprintf(ret, bytes, "%s#%.4s", e->s.name, e->s.id);
    else
        (void)snprintf(ret, bytes, "%s%s%s#%.4s", g->tenant, g->tenant[0] != '\0' ? "/" : "",
                       g->device, g->id);
}

/* The folder of a shared group's links; in it each package has its own. */
static void links_root(const struct xi_group *g, const char *link_dir, char *ret, size_t bytes)
{
    const char *slash = g->kind == XI_ISOLATE_SESSION ? NULL : strrchr(link_dir, '/');

    (void)snprintf(ret, bytes, "%.*s", slash != NULL ? (int)(slash - link_dir) : (int)bytes,
                   link_dir);
}

enum xi_rc xi_group_start(struct xi_group *g, const struct xi_entry *e, struct xi_host **ret,
                          struct xi_err *err)
{
    static const int nice_of[] = {XI_NICE_REALTIME, XI_NICE_NORMAL, XI_NICE_BATCH};
    struct xi_host_events events = {.ctx = g,
                                    .progress = on_progress,
                                    .loaded = on_loaded,
                                    .failed = on_failed,
                                    .unloaded = on_unloaded,
                                    .done = on_done,
                                    .exited = on_exited};
    const struct xi_sessions_config *c = &g->m->config;
    const char *engine = g->m->engines[g->engine].name;
    char label[XI_NAME_MAX + 64], root[512];
    static const unsigned weight_of[] = {400, 100, 25}; /* of the processor, by class */
    struct xi_host_spec spec = {
        .role = XI_HOST_RUN,
        /* Those who come later may be of any class. */
        .nice = nice_of[g->kind == XI_ISOLATE_SESSION ? e->s.options.priority : 0],
        .label = label,
        .program = c->host_program,
        .plugin_dir = c->engine_dir,
        .engine = engine,
        .engine_libs = strcmp(engine, "openvino") == 0 ? c->openvino_dir : "",
        .link_dir = root,
        .cache_dir = e->cache_dir,
        .archive_fd = -1,
        .staging_fd = -1,
        .data_limit_bytes =
            g->kind == XI_ISOLATE_SESSION ? xi_memory_host_limit(e) : c->host_data_limit_bytes,
        .cgroups = c->cgroups,
        .memory_max_bytes = g->kind == XI_ISOLATE_SESSION ? xi_memory_host_limit(e) : 0,
        .cpu_weight =
            weight_of[g->kind == XI_ISOLATE_SESSION ? e->s.options.priority : XI_PRIORITY_NORMAL],
        .run_as_uid = c->host_uid,
        .sandbox = c->sandbox,
        .group = g->kind != XI_ISOLATE_SESSION,
    };

    label_of(g, e, label, sizeof(label));
    links_root(g, e->link_dir, root, sizeof(root));
    return xi_host_start(g->m->loop, g->m->shm, &spec, &events, ret, err);
}

void xi_group_enter(struct xi_entry *e)
{
    struct xi_group *g = e->s.group;

    e->waits = 0;
    if (e->fsm.state == XI_SESSION_DRAINING ||
        e->fsm.state == XI_SESSION_IDLE) { /* nobody wants the host any more */
        xi_entry_feed(e, XI_EV_SPAWN_FAILED);
        return;
    }
    if (g->renewal == XI_RENEWAL_LOADS)
        xi_group_keep(g);
    if (g->renewal != XI_RENEWAL_NONE || (g->host != NULL && !xi_host_runs(g->host))) {
        e->waits = 1; /* for its end */
        return;
    }
    if (g->host == NULL && xi_group_start(g, e, &g->host, &e->s.why) != XI_OK) {
        g->host = NULL;
        xi_log(XI_ERROR, "host.start_failed", "id=%s why=%s", e->s.id, e->s.why.msg);
        xi_entry_feed(e, XI_EV_SPAWN_FAILED);
        return;
    }
    e->s.host = g->host;
    e->inside = 1;
    g->n_inside++;
    xi_entry_feed(e, XI_EV_SPAWN_OK);
}
