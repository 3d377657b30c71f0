/* session_recycle.c: engines leak. The memory of hosts that served is looked at every few seconds,
 * on a worker; one that holds far more than its sessions were measured to need is replaced. */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/platform/process.h"
#include "daemon/core/session_group.h"
#include "daemon/core/why.h"
#include "daemon/loop/workers.h"

#define RECYCLE_MS         3000u
#define SAMPLES_MAX        32u
#define MARGIN_LEAST_BYTES (64 * XI_MIB) /* and a quarter of what is reserved */
#define FRESH_LIMIT_MS     120000u

struct sample {
    char group[XI_UUID_TEXT + 1];
    int pid;
    uint64_t bytes;
};

struct xi_recycler {
    struct xi_sessions *m; /* NULL: it has gone */
    uv_timer_t timer;
    struct xi_work work;
    int out, closed;
    struct sample samples[SAMPLES_MAX];
    uint32_t n, turn;
};

/* ---- what its sessions may take ---- */

/* Of an accelerator's session the reservation is mostly memory that the process does not show. */
static uint64_t may_take(const struct xi_session *s)
{
    return s->device_kind == XI_DEV_CPU && s->reserved_bytes > s->peak_bytes ? s->reserved_bytes
                                                                             : s->peak_bytes;
}

static uint64_t limit_of(const struct xi_group *g)
{
    const struct xi_entry *e;
    uint64_t reserved = 0, margin;

    for (e = g->first; e != NULL; e = e->mate_next)
        reserved += e->inside ? may_take(&e->s) : 0;
    if (reserved < g->memory_bytes)
        reserved = g->memory_bytes;
    margin = reserved / 4 < MARGIN_LEAST_BYTES ? MARGIN_LEAST_BYTES : reserved / 4;
    return reserved + margin;
}

static int all_serve(const struct xi_group *g)
{
    const struct xi_entry *e;

    for (e = g->first; e != NULL; e = e->mate_next) {
        if (e->inside && e->s.state != XI_SESSION_READY)
            return 0;
    }
    return g->n_inside > 0;
}

/* ---- what people hear ---- */

static void tell(const struct xi_group *g, const char *how)
{
    struct xi_why_entry note = {.kind = XI_WHY_RECYCLED, .rc = XI_OK};
    const struct xi_entry *e;

    for (e = g->first; e != NULL; e = e->mate_next) {
        if (!e->inside)
            continue;
        (void)snprintf(note.session, sizeof(note.session), "%s", e->s.id);
        (void)snprintf(note.name, sizeof(note.name), "%s", e->s.name);
        (void)snprintf(note.tenant, sizeof(note.tenant), "%s", e->s.tenant);
        (void)snprintf(note.text, sizeof(note.text), "a fresh host takes over (%s): %s", how,
                       g->renew_why);
        xi_why_note(g->m->config.why, &note);
        xi_log(XI_INFO, "host.recycled", "id=%s name=%s tenant=%s how=%s why=%s", e->s.id,
               e->s.name, e->s.tenant, how, g->renew_why);
    }
}

/* ---- taking over ---- */

static void over(struct xi_group *g)
{
    g->renewal = XI_RENEWAL_NONE;
    memset(g->fresh_lanes, 0, sizeof(g->fresh_lanes));
    xi_group_let_in(g);
}

static void open_all(struct xi_group *g)
{
    struct xi_entry *e;

    for (e = g->first; e != NULL; e = e->mate_next) {
        if (e->inside && e->s.state == XI_SESSION_READY)
            xi_pool_open(&e->s);
    }
}

static void take_over(struct xi_group *g)
{
    struct xi_entry *e;

    tell(g, "beside");
    for (e = g->first; e != NULL; e = e->mate_next) { /* all hear of it before one is opened */
        if (!e->inside)
            continue;
        e->s.host = NULL;
        (void)xi_pool_host_gone(&e->s, 1, "was replaced");
        e->s.host = g->fresh;
        e->s.first_lane = e->fresh_lane;
        e->s.memory_bytes = e->fresh_bytes;
        e->s.restarts++;
    }
    g->old = g->host;
    g->host = g->fresh;
    g->fresh = NULL;
    g->memory_bytes = g->fresh_bytes;
    memcpy(g->lanes, g->fresh_lanes, sizeof(g->lanes));
    xi_host_stop(g->old, XI_HOST_GRACE_MS, "was replaced");
    open_all(g);
    over(g);
}

static void restart(struct xi_group *g)
{
    struct xi_entry *all[XI_HOST_SESSIONS_MAX], *e;
    uint32_t i, n = 0;

    tell(g, "in place");
    g->renewal = XI_RENEWAL_ENDS;
    for (e = g->first; e != NULL && n < XI_HOST_SESSIONS_MAX; e = e->mate_next) {
        if (e->inside) {
            xi_session_get(&e->s);
            all[n++] = e;
        }
    }
    for (i = 0; i < n; i++) {
        xi_entry_feed(all[i], XI_EV_RENEW);
        xi_session_put(&all[i]->s);
    }
}

void xi_group_quiet(struct xi_group *g)
{
    if (g->renewal <= XI_RENEWAL_LOADS || g->renewal == XI_RENEWAL_ENDS || g->host == NULL ||
        !xi_host_runs(g->host) || !xi_host_idle(g->host))
        return;
    g->held++;
    if (g->renewal != XI_RENEWAL_REOPEN && !all_serve(g)) {
        xi_group_keep(g); /* comes here again */
    } else if (g->renewal == XI_RENEWAL_SWITCH) {
        take_over(g);
    } else if (g->renewal == XI_RENEWAL_RESTART) {
        restart(g);
    } else {
        open_all(g);
        over(g);
    }
    g->held--;
    xi_group_free_when_empty(g);
}

static void hold_all(struct xi_group *g, enum xi_renewal then)
{
    struct xi_entry *e;

    if (!all_serve(g)) {
        xi_group_keep(g);
        return;
    }
    g->renewal = then;
    for (e = g->first; e != NULL; e = e->mate_next) {
        if (e->inside)
            xi_pool_hold(&e->s);
    }
    xi_group_quiet(g);
}

void xi_group_keep(struct xi_group *g)
{
    enum xi_renewal was = g->renewal;

    if (was == XI_RENEWAL_NONE || was == XI_RENEWAL_REOPEN || was == XI_RENEWAL_ENDS)
        return;
    if (g->fresh != NULL)
        xi_host_stop(g->fresh, 0, "is not needed any more");
    g->renewal = was == XI_RENEWAL_LOADS ? XI_RENEWAL_NONE : XI_RENEWAL_REOPEN;
    memset(g->fresh_lanes, 0, sizeof(g->fresh_lanes));
    xi_group_quiet(g);
}

/* ---- the fresh host ---- */

/* A machine without room for both at once does it one after the other. */
static int room_for_two(struct xi_group *g)
{
    return g->kind != XI_ISOLATE_DEVICE && !g->in_place && xi_memory_second(g);
}

static int load_all(struct xi_group *g)
{
    struct xi_entry *e;
    struct xi_err err;

    for (e = g->first; e != NULL; e = e->mate_next) {
        struct xi_msg_load load;

        e->fresh_up = 0;
        if (!e->inside)
            continue;
        load = xi_entry_load_message(e);
        if (xi_group_load_in(g->fresh, g->fresh_lanes, e, &load, &err) != XI_OK)
            return 0;
        e->fresh_lane = load.first_lane;
    }
    return 1;
}

static struct xi_entry *first_inside(const struct xi_group *g)
{
    struct xi_entry *e = g->first;

    while (e != NULL && !e->inside)
        e = e->mate_next;
    return e;
}

void xi_group_renew(struct xi_group *g, uint64_t bytes, uint64_t limit)
{
    struct xi_err err = {0};

    if (g->renewal != XI_RENEWAL_NONE || g->fresh != NULL || g->old != NULL || g->host == NULL ||
        g->m->closing || !xi_host_runs(g->host) || !all_serve(g))
        return;
    (void)snprintf(g->renew_why, sizeof(g->renew_why),
                   "it held %llu MiB, its sessions may take %llu MiB",
                   (unsigned long long)(bytes / XI_MIB), (unsigned long long)(limit / XI_MIB));
    if (!room_for_two(g)) {
        g->in_place = 0;
        hold_all(g, XI_RENEWAL_RESTART);
        return;
    }
    if (xi_group_start(g, first_inside(g), &g->fresh, &err) != XI_OK) {
        g->fresh = NULL;
        g->in_place = 1; /* at the next look */
        xi_memory_second_gone(g);
        return;
    }
    g->renewal = XI_RENEWAL_LOADS;
    g->fresh_bytes = 0;
    g->fresh_until_ms = xi_now_ms() + FRESH_LIMIT_MS;
    if (!load_all(g)) {
        g->in_place = 1;
        xi_group_keep(g);
    }
}

static int all_up(const struct xi_group *g)
{
    const struct xi_entry *e;

    for (e = g->first; e != NULL; e = e->mate_next) {
        if (e->inside && !e->fresh_up)
            return 0;
    }
    return 1;
}

int xi_fresh_loaded(struct xi_group *g, struct xi_host *host, const struct xi_msg_loaded *msg,
                    struct xi_signature *signature)
{
    struct xi_entry *e = g->first;

    if (host != g->fresh && host != g->old)
        return 0;
    xi_signature_fini(signature); /* the same package, variant and engine: the same */
    while (e != NULL && (!e->inside || e->s.number != msg->session))
        e = e->mate_next;
    if (host == g->old || g->renewal != XI_RENEWAL_LOADS || e == NULL)
        return 1;
    e->fresh_up = 1;
    e->fresh_bytes = msg->memory_bytes > g->fresh_bytes ? msg->memory_bytes - g->fresh_bytes : 0;
    g->fresh_bytes = msg->memory_bytes;
    if (all_up(g))
        hold_all(g, XI_RENEWAL_SWITCH);
    return 1;
}

int xi_fresh_failed(struct xi_group *g, struct xi_host *host, const struct xi_err *err)
{
    if (host != g->fresh && host != g->old)
        return 0;
    if (host == g->fresh && g->renewal == XI_RENEWAL_LOADS) {
        xi_log(XI_WARN, "host.recycle_failed", "group=%s why=%s", g->id, err->msg);
        g->in_place = 1;
        xi_group_keep(g);
    }
    return 1;
}

int xi_fresh_exited(struct xi_group *g, struct xi_host *host, const struct xi_host_exit *why)
{
    int was_fresh = host == g->fresh;

    if (!was_fresh && host != g->old)
        return 0;
    g->held++;
    if (!was_fresh) {
        g->old = NULL;
    } else {
        g->fresh = NULL;
        if (g->renewal == XI_RENEWAL_LOADS || g->renewal == XI_RENEWAL_SWITCH) {
            xi_log(XI_WARN, "host.recycle_failed", "group=%s why=%s", g->id, why->reason);
            g->in_place = 1;
            xi_group_keep(g);
        }
    }
    xi_host_free(host);
    xi_memory_second_gone(g);
    g->held--;
    xi_group_free_when_empty(g);
    return 1;
}

/* ---- looking ---- */

static struct xi_group *find(struct xi_sessions *m, const struct sample *s)
{
    struct xi_group *g = m->groups;

    while (g != NULL && strcmp(g->id, s->group) != 0)
        g = g->next;
    return g != NULL && g->host != NULL && xi_host_pid(g->host) == s->pid ? g : NULL;
}

static void look(struct xi_work *w)
{
    struct xi_recycler *r = w->data;
    uint64_t peak;
    uint32_t i;

    for (i = 0; i < r->n; i++) {
        r->samples[i].bytes = 0;
        (void)xi_process_memory(r->samples[i].pid, &r->samples[i].bytes, &peak);
    }
}

static void release(struct xi_recycler *r)
{
    if (r->closed && !r->out)
        free(r);
}

static void seen(struct xi_work *w)
{
    struct xi_recycler *r = w->data;
    uint32_t i;

    r->out = 0;
    for (i = 0; i < r->n && r->m != NULL; i++) {
        struct xi_group *g = find(r->m, &r->samples[i]);
        uint64_t limit = g == NULL ? 0 : limit_of(g);

        if (g != NULL && r->samples[i].bytes > limit)
            xi_group_renew(g, r->samples[i].bytes, limit);
    }
    release(r);
}

/* Those that answered something since, beginning where the last look ended. */
static void choose(struct xi_recycler *r)
{
    struct xi_group *g;
    uint32_t i = 0, from = r->turn;

    r->n = 0;
    for (g = r->m->groups; g != NULL; g = g->next, i++) {
        if (g->renewal == XI_RENEWAL_LOADS && xi_now_ms() > g->fresh_until_ms) {
            g->in_place = 1;
            xi_group_keep(g);
        }
        if (i < from || g->host == NULL || g->served == g->sampled)
            continue;
        if (r->n == SAMPLES_MAX) {
            r->turn = i;
            return;
        }
        g->sampled = g->served;
        r->samples[r->n].pid = xi_host_pid(g->host);
        memcpy(r->samples[r->n++].group, g->id, sizeof(g->id));
    }
    r->turn = 0;
}

static void on_tick(uv_timer_t *timer)
{
    struct xi_recycler *r = timer->data;

    if (r->out || r->m->closing)
        return;
    choose(r);
    if (r->n == 0)
        return;
    r->out = 1;
    r->work.data = r;
    xi_work_queue(r->m->loop, &r->work, look, seen);
}

struct xi_recycler *xi_recycler_new(struct xi_sessions *m)
{
    struct xi_recycler *r = calloc(1, sizeof(*r));

    if (r == NULL)
        return NULL;
    r->m = m;
    (void)uv_timer_init(m->loop, &r->timer);
    r->timer.data = r;
    (void)uv_timer_start(&r->timer, on_tick, RECYCLE_MS, RECYCLE_MS);
    uv_unref((uv_handle_t *)&r->timer);
    return r;
}

static void on_closed(uv_handle_t *handle)
{
    struct xi_recycler *r = handle->data;

    r->closed = 1;
    release(r);
}

void xi_recycler_free(struct xi_recycler *r)
{
    if (r == NULL)
        return;
    r->m = NULL;
    uv_close((uv_handle_t *)&r->timer, on_closed);
}
