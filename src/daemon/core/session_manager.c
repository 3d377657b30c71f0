#include "daemon/core/session_manager.h"

#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/log.h"
#include "base/name.h"
#include "daemon/core/session_private.h"
#include "daemon/core/tenants.h"

const char *xi_session_state_name(enum xi_session_state s)
{
    static const char *const names[] = {"LOADING", "WARMING", "READY", "DRAINING",
                                        "GONE",    "FAILED",  "IDLE"};

    return (unsigned)s < sizeof(names) / sizeof(names[0]) ? names[s] : "UNKNOWN";
}

const char *xi_isolation_name(enum xi_isolation i)
{
    static const char *const names[] = {"auto", "session", "tenant", "device"};

    return (unsigned)i < sizeof(names) / sizeof(names[0]) ? names[i] : "unknown";
}

static void on_drained(void *ctx, struct xi_session *s)
{
    (void)ctx;
    xi_entry_feed(xi_entry_of(s), XI_EV_DRAINED);
}

struct xi_sessions *xi_sessions_new(uv_loop_t *loop, const struct xi_sessions_config *config,
                                    struct xi_shm *shm, struct xi_store *store,
                                    struct xi_pool *pool)
{
    struct xi_sessions *m = calloc(1, sizeof(*m));

    if (m == NULL)
        return NULL;
    m->loop = loop;
    m->config = *config;
    m->shm = shm;
    m->store = store;
    m->pool = pool;
    m->next_number = 1;
    m->recycler = xi_recycler_new(m);
    m->admission = xi_admission_new(XI_THRASH_GUARD_MS);
    if (m->admission == NULL) {
        free(m);
        return NULL;
    }
    xi_sessions_set_memory(m, config->memory_bytes, !config->keep_idle);
    (void)uv_timer_init(loop, &m->clock);
    m->clock.data = m;
    xi_pool_set_hooks(pool, &(struct xi_pool_hooks){.ctx = m, .drained = on_drained});
    return m;
}

static void on_clock_closed(uv_handle_t *handle)
{
    free(handle->data);
}

void xi_sessions_free(struct xi_sessions *m)
{
    if (m == NULL)
        return;
    XI_ASSERT(m->alive == 0);
    xi_recycler_free(m->recycler);
    xi_admission_free(m->admission);
    xi_leases_fini(&m->leases);
    uv_close((uv_handle_t *)&m->clock, on_clock_closed);
}

void xi_sessions_set_engines(struct xi_sessions *m, const struct xi_engine_record *engines,
                             uint32_t n)
{
    m->engines = engines;
    m->n_engines = n;
}

void xi_sessions_close(struct xi_sessions *m)
{
    struct xi_entry *e = m->first;

    m->closing = 1;
    (void)uv_timer_stop(&m->clock);
    while (e != NULL) {
        struct xi_entry *next;

        xi_session_get(&e->s);
        xi_entry_feed(e, XI_EV_UNLOAD);
        xi_entry_feed(e, XI_EV_DRAIN_TIMEOUT); /* means nothing unless it drains */
        next = e->next;
        xi_session_put(&e->s);
        e = next;
    }
}

/* ---- references ---- */

static void on_timer_closed(uv_handle_t *handle)
{
    struct xi_entry *e = handle->data;

    e->m->alive--;
    free(e);
}

static void release(struct xi_entry *e)
{
    XI_ASSERT(e->s.state == XI_SESSION_GONE && e->s.host == NULL);
    xi_pool_detach(&e->s);
    xi_signature_fini(&e->s.signature);
    xi_record_free(e->s.record);
    free(e->s.states);
    free(e->previous);
    free(e->choices);
    e->s.record = NULL;
    e->choices = NULL;
    uv_close((uv_handle_t *)&e->timer, on_timer_closed);
}

void xi_session_get(struct xi_session *s)
{
    s->refs++;
}

void xi_session_put(struct xi_session *s)
{
    XI_ASSERT(s->refs > 0);
    if (--s->refs == 0)
        release(xi_entry_of(s));
}

/* ---- load ---- */

/* All that a load can ask for, once it is spelled out by normalise. */
static int same_load(const struct xi_entry *e, const char *digest, const struct xi_load_options *o)
{
    const struct xi_load_options *has = &e->s.options;

    return strcmp(e->s.digest, digest) == 0 && strcmp(has->device, o->device) == 0 &&
           strcmp(has->precision, o->precision) == 0 && strcmp(has->variant, o->variant) == 0 &&
           strcmp(has->max_shape, o->max_shape) == 0 && has->instances == o->instances &&
           has->threads == o->threads && has->priority == o->priority && has->golden == o->golden &&
           has->max_batch == o->max_batch && has->max_delay_us == o->max_delay_us &&
           has->isolation == o->isolation && has->pinned == o->pinned && has->lazy == o->lazy &&
           has->keep_alive_s == o->keep_alive_s && has->sequence_idle_s == o->sequence_idle_s &&
           has->cache_bytes == o->cache_bytes;
}

/* Options as they are compared and kept: what was left out is spelled out. */
static enum xi_rc normalise(struct xi_sessions *m, const struct xi_package_record *record,
                            struct xi_load_options *o, struct xi_err *err)
{
    enum xi_rc rc;

    if (o->tenant[0] == '\0')
        (void)snprintf(o->tenant, sizeof(o->tenant), "default");
    if (o->name[0] == '\0')
        (void)snprintf(o->name, sizeof(o->name), "%s", record->name);
    if (o->device[0] == '\0')
        (void)snprintf(o->device, sizeof(o->device), "auto");
    if (o->threads == 0)
        o->threads = 1;
    if (o->instances == 0)
        o->instances = m->config.cores;
    rc = xi_name_check(o->name, "session name", err);
    if (rc == XI_OK)
        rc = xi_name_check(o->tenant, "tenant", err);
    if (rc != XI_OK)
        return rc;
    if (o->instances > XI_LANES_MAX || o->threads > 256)
        return xi_fail(err, XI_EINVAL, "%u instances of %u threads; up to %d of 256 may be",
                       o->instances, o->threads, XI_LANES_MAX);
    if (o->instances == 0)
        o->instances = 1;
    return XI_OK;
}

static enum xi_rc taken(const struct xi_entry *other, const char *name, struct xi_err *err)
{
    (void)xi_fail(err, XI_ECONFLICT, "the name %s is taken by session %s (%s %s, %s)", name,
                  other->s.id, other->s.record->name, other->s.version,
                  xi_session_state_name(other->s.state));
    return xi_hint(err,
                   "to swap it, load with --replace (\"replace\": true); else unload %s first or "
                   "take another name",
                   other->s.name);
}

/* Somebody asks again for what is here already. */
static enum xi_rc again(struct xi_entry *e, xi_session_cb cb, void *ctx, struct xi_err *err)
{
    if (e->s.state == XI_SESSION_READY || (e->s.state == XI_SESSION_IDLE && e->s.options.lazy)) {
        if (cb != NULL)
            cb(ctx, &e->s, NULL);
        return XI_OK;
    }
    if (cb != NULL) {
        enum xi_rc rc = xi_waiters_add(&e->loaders, cb, ctx, err);

        if (rc != XI_OK)
            return rc;
    }
    if (e->s.state == XI_SESSION_FAILED || e->s.state == XI_SESSION_IDLE)
        xi_entry_feed(e, XI_EV_LOAD);
    return XI_OK;
}

/* A load that failed and is not to come back yields its name. */
static int yields(const struct xi_entry *e)
{
    return e->s.state == XI_SESSION_FAILED && !e->s.desired;
}

static void append(struct xi_sessions *m, struct xi_entry *e)
{
    e->prev = m->last;
    if (m->last != NULL)
        m->last->next = e;
    else
        m->first = e;
    m->last = e;
    m->count++;
    m->alive++;
}

static void fill_in(struct xi_entry *e, const char *id, const char *digest,
                    const struct xi_load_options *options)
{
    struct xi_session *s = &e->s;

    (void)snprintf(s->id, sizeof(s->id), "%s", id);
    (void)snprintf(s->digest, sizeof(s->digest), "%s", digest);
    (void)snprintf(s->name, sizeof(s->name), "%s", options->name);
    (void)snprintf(s->version, sizeof(s->version), "%s", s->record->version);
    (void)snprintf(s->tenant, sizeof(s->tenant), "%s", options->tenant);
    s->options = *options;
    s->lane_count = options->instances;
    s->max_batch = 1;
    s->has_flow = (s->record->flags & XI_RECORD_FLOW) != 0;
    s->takes_image = (s->record->flags & XI_RECORD_FLOW_IMAGE) != 0;
    s->phase_permille = 0xffffffffu;
    s->refs = 1;
    s->number = e->m->next_number++;
}

enum xi_rc xi_entry_new(struct xi_sessions *m, const char *id, const char *digest,
                        struct xi_package_record *record, const struct xi_load_options *options,
                        struct xi_entry **ret, struct xi_err *err)
{
    struct xi_entry *e = calloc(1, sizeof(*e));
    enum xi_rc rc;

    if (e != NULL)
        e->choices = calloc(XI_RECORD_VARIANTS_MAX, sizeof(*e->choices));
    if (e == NULL || e->choices == NULL) {
        rc = xi_fail(err, XI_ENOMEM, "no memory for another session");
        goto out;
    }
    e->m = m;
    e->s.record = record;
    rc = xi_variants_choose(record, options, m->engines, m->n_engines, e->choices, &e->n_choices,
                            err);
    if (rc != XI_OK)
        goto out;
    fill_in(e, id, digest, options);
    if (m->config.tenants != NULL)
        e->s.owner = xi_tenants_get(m->config.tenants, e->s.tenant);
    if (m->config.tenants != NULL && e->s.owner == NULL) {
        rc = xi_fail(err, XI_EAGAIN, "no room for another tenant");
        goto out;
    }
    rc = xi_pool_attach(m->pool, &e->s, err);
    if (rc != XI_OK)
        goto out;
    xi_fsm_init(&e->fsm, m->config.crash_limit);
    rc = xi_names_add(m, e, err);
    if (rc != XI_OK) {
        xi_pool_detach(&e->s);
        goto out;
    }
    (void)uv_timer_init(m->loop, &e->timer);
    e->timer.data = e;
    append(m, e);
    *ret = e;
    return XI_OK;
out:
    if (e != NULL)
        free(e->choices);
    free(e);
    return rc;
}

enum xi_rc xi_sessions_admit(struct xi_sessions *m, const struct xi_package_record *record,
                             struct xi_load_options *o, struct xi_err *err)
{
    enum xi_rc rc = normalise(m, record, o, err);

    if (rc == XI_OK && m->closing)
        rc = xi_fail(err, XI_EDRAIN, "the daemon is shutting down");
    if (rc == XI_OK && m->count >= XI_SESSIONS_MAX)
        rc =
            xi_fail(err, XI_EAGAIN, "%u sessions are loaded, %d may be", m->count, XI_SESSIONS_MAX);
    return rc;
}

enum xi_rc xi_sessions_name_free(struct xi_sessions *m, const char *digest,
                                 const struct xi_load_options *o, struct xi_entry **ret_same,
                                 struct xi_entry **ret_yields, struct xi_err *err)
{
    const struct xi_named *name = xi_names_twin(m, o->tenant, o->name);
    struct xi_entry *other = name != NULL ? name->targets[0].entry : NULL;

    *ret_same = *ret_yields = NULL;
    if (other == NULL)
        return XI_OK;
    if (strcmp(other->s.name, o->name) == 0 && same_load(other, digest, o))
        *ret_same = other;
    else if (yields(other))
        *ret_yields = other;
    else
        return taken(other, o->name, err);
    return XI_OK;
}

/* *ret_same: the session that is wanted is here already. */
static enum xi_rc claim_name(struct xi_sessions *m, const char *digest,
                             const struct xi_load_options *options, struct xi_entry **ret_same,
                             struct xi_err *err)
{
    struct xi_entry *other;
    enum xi_rc rc = xi_sessions_name_free(m, digest, options, ret_same, &other, err);

    if (other != NULL)
        xi_entry_feed(other, XI_EV_UNLOAD);
    return rc;
}

enum xi_rc xi_sessions_load(struct xi_sessions *m, const char *id, const char *digest,
                            struct xi_package_record *record, const struct xi_load_options *options,
                            xi_session_cb cb, void *ctx, struct xi_session **ret,
                            struct xi_err *err)
{
    struct xi_load_options o = *options;
    struct xi_entry *e = NULL;
    enum xi_rc rc = normalise(m, record, &o, err);

    if (rc == XI_OK && m->closing)
        rc = xi_fail(err, XI_EDRAIN, "the daemon is shutting down");
    if (rc == XI_OK)
        rc = claim_name(m, digest, &o, &e, err);
    if (rc == XI_OK && e != NULL) {
        xi_record_free(record);
        *ret = &e->s;
        return again(e, cb, ctx, err);
    }
    if (rc == XI_OK && m->count >= XI_SESSIONS_MAX)
        rc =
            xi_fail(err, XI_EAGAIN, "%u sessions are loaded, %d may be", m->count, XI_SESSIONS_MAX);
    if (rc == XI_OK)
        rc = xi_entry_new(m, id, digest, record, &o, &e, err);
    if (rc != XI_OK) {
        xi_record_free(record);
        return rc;
    }
    xi_log(XI_INFO, "session.load", "id=%s name=%s version=%s tenant=%s lanes=%u", e->s.id,
           e->s.name, e->s.version, e->s.tenant, e->s.lane_count);
    xi_clock_need(m);
    *ret = &e->s;
    if (o.lazy) { /* the first request loads it */
        xi_entry_feed(e, XI_EV_PARK);
        if (cb != NULL)
            cb(ctx, &e->s, NULL);
        return XI_OK;
    }
    if (cb != NULL) {
        rc = xi_waiters_add(&e->loaders, cb, ctx, err);
        if (rc != XI_OK) {
            xi_entry_feed(e, XI_EV_UNLOAD);
            return rc;
        }
    }
    xi_entry_feed(e, XI_EV_LOAD);
    return XI_OK;
}

/* ---- unload, find, walk ---- */

void xi_sessions_unload(struct xi_sessions *m, struct xi_session *session, xi_session_cb cb,
                        void *ctx)
{
    struct xi_entry *e = xi_entry_of(session);
    struct xi_err err;

    XI_ASSERT(e->m == m);
    if (cb != NULL && e->s.state == XI_SESSION_GONE) {
        cb(ctx, session, NULL);
        return;
    }
    if (cb != NULL && xi_waiters_add(&e->unloaders, cb, ctx, &err) != XI_OK)
        cb(ctx, NULL, &err);
    xi_log(XI_INFO, "session.unload", "id=%s name=%s waiting=%u running=%u", e->s.id, e->s.name,
           e->s.queued, e->s.running);
    xi_entry_feed(e, XI_EV_UNLOAD);
}

/* Comparing a name with another takes up to 10 us, and every request may name what is not there. */
#define NEAREST_MAX 64

static enum xi_rc not_found(struct xi_sessions *m, const char *tenant, const char *wanted,
                            struct xi_err *err)
{
    const char *known[NEAREST_MAX + 1];
    const char *nearest;
    struct xi_entry *e;
    size_t n = 0;

    for (e = m->first; e != NULL && n < NEAREST_MAX; e = e->next) {
        if (e->named != NULL && (tenant == NULL || strcmp(e->s.tenant, tenant) == 0))
            known[n++] = e->s.name;
    }
    known[n] = NULL;
    nearest = xi_nearest(wanted, known);
    (void)xi_fail(err, XI_ENOENT, "no model \"%s\" is loaded", wanted);
    if (nearest != NULL)
        return xi_hint(err, "did you mean %s?", nearest);
    return xi_hint(err, n == 0 ? "nothing is loaded: xinfer load PACKAGE"
                               : "xinfer ps shows what is loaded");
}

enum xi_rc xi_sessions_find(struct xi_sessions *m, const char *tenant, const char *name_or_id,
                            struct xi_session **ret, struct xi_err *err)
{
    struct xi_entry *e = NULL;

    if (xi_uuid_valid(name_or_id)) {
        e = xi_ids_find(m, name_or_id);
        if (e != NULL && tenant != NULL && strcmp(e->s.tenant, tenant) != 0)
            e = NULL;
        if (e == NULL && xi_ids_ended(m, name_or_id))
            return xi_fail(err, XI_EGONE, "session %s has ended", name_or_id);
    }
    if (e == NULL) {
        const struct xi_named *name =
            xi_names_find(m, tenant != NULL ? tenant : "default", name_or_id);

        e = name != NULL && name->n > 0 ? name->targets[0].entry : NULL;
    }
    if (e == NULL)
        return not_found(m, tenant, name_or_id, err);
    *ret = &e->s;
    return XI_OK;
}

struct xi_session *xi_sessions_each(struct xi_sessions *m, struct xi_session *after)
{
    struct xi_entry *e = after == NULL ? m->first : xi_entry_of(after)->next;

    return e == NULL ? NULL : &e->s;
}

int xi_sessions_ready(struct xi_sessions *m, struct xi_err *why)
{
    const struct xi_entry *e;

    for (e = m->first; e != NULL; e = e->next) {
        if (e->s.state == XI_SESSION_READY || e->s.state == XI_SESSION_DRAINING ||
            e->s.state == XI_SESSION_IDLE)
            continue;
        if (e->s.state == XI_SESSION_FAILED && !e->s.desired)
            continue; /* a load that was refused; nobody counts on it */
        if (e->swap != NULL && e->swap->new == e)
            continue; /* the old one serves */
        (void)xi_fail(why, e->s.why.rc == XI_OK ? XI_EHOST : e->s.why.rc, "%s is %s%s%s", e->s.name,
                      xi_session_state_name(e->s.state), e->s.why.msg[0] != '\0' ? ": " : "",
                      e->s.why.msg);
        return 0;
    }
    return 1;
}

uint32_t xi_sessions_count(const struct xi_sessions *m)
{
    return m->count;
}

uint32_t xi_sessions_alive(const struct xi_sessions *m)
{
    return m->alive;
}
