#include "daemon/api/fake_core.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/hash.h"
#include "daemon/core/admission.h"
#include "daemon/core/variants.h"

static struct fake_core *self; /* tests run one at a time */

static void init_session(struct xi_session *s, const char *name, struct xi_port_spec *in,
                         struct xi_port_spec *out)
{
    (void)snprintf(s->name, sizeof s->name, "%s", name);
    (void)snprintf(s->version, sizeof s->version, "1.0.0");
    (void)snprintf(s->tenant, sizeof s->tenant, "default");
    xi_uuid_new(s->id);
    s->state = XI_SESSION_READY;
    s->options.priority = XI_PRIORITY_NORMAL;
    s->signature = (struct xi_signature){1, 1, in, out};
    s->refs = 1;
}

void fake_core_init(struct fake_core *f, uv_loop_t *loop)
{
    memset(f, 0, sizeof *f);
    self = f;
    f->ready = 1;
    f->service.loop = loop;
    f->service.shm = (struct xi_shm *)f;
    f->service.sessions = (struct xi_sessions *)f;
    f->service.store = (struct xi_store *)f;
    f->service.pool = (struct xi_pool *)f;
    f->service.monitor = (struct xi_monitor *)f;
    (void)snprintf(f->service.node, sizeof f->service.node, "testnode");
    f->ports[0][0] = (struct xi_port_spec){"x", XI_DT_FP32, 2, {-1, 4}};
    f->ports[1][0] = (struct xi_port_spec){"y", XI_DT_FP32, 2, {-1, 4}};
    init_session(&f->sessions[0], "double", f->ports[0], f->ports[1]);
    init_session(&f->sessions[1], "cat", f->ports[0], f->ports[1]);
    f->sessions[1].has_flow = f->sessions[1].takes_image = f->sessions[1].draws = 1;
}

/* ---- memory ---- */

enum xi_rc xi_shm_take(struct xi_shm *shm, const char *tenant, uint64_t bytes, struct xi_slot **ret,
                       struct xi_err *err)
{
    struct xi_slot *slot;

    (void)shm;
    (void)tenant;
    if (self->slots_max != 0 && self->slots_out >= self->slots_max)
        return xi_fail(err, XI_EAGAIN, "all %u slots are in use", self->slots_max);
    slot = calloc(1, sizeof *slot);
    slot->segment = calloc(1, sizeof *slot->segment);
    slot->data = aligned_alloc(4096, (bytes + 4096) / 4096 * 4096);
    slot->segment->map.base = slot->data;
    slot->bytes = (bytes + 4095) / 4096 * 4096;
    slot->refs = 1;
    self->slots_out++;
    *ret = slot;
    return XI_OK;
}

void xi_slot_get(struct xi_slot *slot)
{
    slot->refs++;
}

void xi_slot_put(struct xi_slot *slot)
{
    if (slot == NULL || --slot->refs > 0)
        return;
    self->slots_out--;
    free(slot->data);
    free(slot->segment);
    free(slot);
}

/* No session of this core keeps answers. */
struct xi_segment *xi_segment_heap(uint64_t bytes)
{
    (void)bytes;
    return NULL;
}

void xi_segment_get(struct xi_segment *segment)
{
    segment->refs++;
}

void xi_segment_put(struct xi_segment *segment)
{
    if (segment != NULL)
        segment->refs--;
}

/* ---- no client of it has shared memory ---- */

enum xi_rc xi_regions_register(struct xi_regions *r, const char *tenant, const char *name,
                               const char *key, uint64_t offset, uint64_t bytes, struct xi_err *err)
{
    (void)r;
    (void)tenant;
    (void)name;
    (void)offset;
    (void)bytes;
    return xi_fail(err, XI_ENOENT, "no %s here", key);
}

void xi_regions_unregister(struct xi_regions *r, const char *tenant, const char *name)
{
    (void)r;
    (void)tenant;
    (void)name;
}

uint32_t xi_regions_each(struct xi_regions *r, const char *tenant, const char *name,
                         void (*each)(void *ctx, const struct xi_region_view *view), void *ctx)
{
    (void)r;
    (void)tenant;
    (void)name;
    (void)each;
    (void)ctx;
    return 0;
}

enum xi_rc xi_region_take(struct xi_regions *r, const char *tenant, const char *name,
                          uint64_t offset, uint64_t bytes, int writable, struct xi_segment **ret,
                          uint64_t *ret_offset, struct xi_err *err)
{
    (void)r;
    (void)tenant;
    (void)offset;
    (void)bytes;
    (void)writable;
    (void)ret;
    (void)ret_offset;
    return xi_fail(err, XI_ENOENT, "no region %s here", name);
}

struct xi_loan *xi_regions_loan(struct xi_regions *r)
{
    (void)r;
    return NULL;
}

void xi_shm_stats(const struct xi_shm *shm, struct xi_shm_stats *ret)
{
    (void)shm;
    *ret = (struct xi_shm_stats){.slots = self->slots_out};
}

/* ---- sessions ---- */

const char *xi_isolation_name(enum xi_isolation i)
{
    return i == XI_ISOLATE_SESSION ? "session" : "another";
}

const char *xi_session_state_name(enum xi_session_state s)
{
    return s == XI_SESSION_READY ? "READY" : "GONE";
}

int xi_sessions_budget(struct xi_sessions *m, uint32_t index, struct xi_budget_view *ret)
{
    (void)m;
    *ret = (struct xi_budget_view){.name = "memory", .limit = 8 * XI_MIB, .held = 2 * XI_MIB};
    return index == 0;
}

enum xi_rc xi_sessions_find(struct xi_sessions *m, const char *tenant, const char *name_or_id,
                            struct xi_session **ret, struct xi_err *err)
{
    (void)m;
    for (int i = 0; i < 2; i++) {
        struct xi_session *s = &self->sessions[i];
        if (strcmp(s->id, name_or_id) == 0 ||
            (tenant && strcmp(tenant, s->tenant) == 0 && strcmp(s->name, name_or_id) == 0)) {
            *ret = s;
            return XI_OK;
        }
    }
    return xi_fail(err, XI_ENOENT, "no session \"%.60s\"", name_or_id);
}

enum xi_rc xi_sessions_find_version(struct xi_sessions *m, const char *tenant,
                                    const char *name_or_id, const char *version,
                                    struct xi_session **ret, struct xi_err *err)
{
    (void)version;
    return xi_sessions_find(m, tenant, name_or_id, ret, err);
}

enum xi_rc xi_sessions_route(struct xi_sessions *m, const struct xi_route_ask *ask,
                             struct xi_session **ret, int *ret_wait, struct xi_err *err)
{
    enum xi_rc rc = xi_sessions_find(m, ask->tenant, ask->name_or_id, ret, err);

    *ret_wait = 0;
    if (rc == XI_OK)
        (*ret)->refs++;
    return rc;
}

void xi_session_leave(struct xi_session *s)
{
    s->refs--;
}

const char *xi_sessions_successor(struct xi_sessions *m, const char *id)
{
    (void)m;
    (void)id;
    return NULL;
}

struct xi_request *xi_sessions_mirror(const struct xi_request *req)
{
    (void)req;
    return NULL;
}

static void no_swap(const char *name, xi_session_cb cb, void *ctx)
{
    struct xi_err err;

    (void)xi_fail(&err, XI_ECONFLICT, "no swap of %s is under way", name);
    cb(ctx, NULL, &err);
}

void xi_swap_promote(struct xi_sessions *m, const char *tenant, const char *name, xi_session_cb cb,
                     void *ctx)
{
    (void)m;
    (void)tenant;
    no_swap(name, cb, ctx);
}

void xi_swap_rollback(struct xi_sessions *m, const char *tenant, const char *name, xi_session_cb cb,
                      void *ctx)
{
    (void)m;
    (void)tenant;
    no_swap(name, cb, ctx);
}

void xi_service_plan(struct xi_service *s, const struct xi_load_request *load, xi_plan_cb cb,
                     void *ctx)
{
    struct xi_plan plan = {.version = "1.0.0"};

    (void)s;
    (void)load;
    cb(ctx, &plan, NULL);
}

enum xi_rc xi_sessions_lease(struct xi_sessions *m, struct xi_session *session, uint32_t ttl_s,
                             const struct xi_lease **ret, struct xi_err *err)
{
    (void)m;
    (void)session;
    (void)ttl_s;
    (void)ret;
    return xi_fail(err, XI_EAGAIN, "no leases here");
}

enum xi_rc xi_sessions_lease_renew(struct xi_sessions *m, const char *tenant, const char *id,
                                   uint32_t ttl_s, const struct xi_lease **ret, struct xi_err *err)
{
    (void)m;
    (void)tenant;
    (void)ttl_s;
    (void)ret;
    return xi_fail(err, XI_ENOENT, "no lease %s is held", id);
}

void xi_session_get(struct xi_session *s)
{
    s->refs++;
}

void xi_session_put(struct xi_session *s)
{
    s->refs--;
}

struct xi_session *xi_sessions_each(struct xi_sessions *m, struct xi_session *after)
{
    (void)m;
    if (after == NULL)
        return &self->sessions[0];
    if (after == &self->sessions[0])
        return &self->sessions[1];
    uint32_t next = after == &self->sessions[1] ? 0 : (uint32_t)(after - self->more) + 1;
    return next < self->n_more ? &self->more[next] : NULL;
}

uint32_t xi_sessions_count(const struct xi_sessions *m)
{
    (void)m;
    return 2;
}

void xi_service_load(struct xi_service *s, const struct xi_load_request *load, xi_session_cb cb,
                     void *ctx)
{
    struct xi_session *found = NULL;
    struct xi_err err = {0};

    (void)s;
    if (xi_sessions_find(NULL, load->options.tenant, load->package, &found, &err) == XI_OK)
        cb(ctx, found, NULL);
    else
        cb(ctx, NULL, &err);
}

void xi_service_unload(struct xi_service *s, const char *tenant, const char *name_or_id,
                       xi_session_cb cb, void *ctx)
{
    struct xi_session *found = NULL;
    struct xi_err err = {0};

    (void)s;
    if (xi_sessions_find(NULL, tenant, name_or_id, &found, &err) == XI_OK)
        cb(ctx, found, NULL);
    else
        cb(ctx, NULL, &err);
}

int xi_service_ready(struct xi_service *s, struct xi_err *why)
{
    (void)s;
    if (!self->ready)
        (void)xi_fail(why, XI_ECRASHLOOP, "\"cat\" is quarantined");
    return (int)self->ready;
}

/* ---- inference ---- */

void xi_request_init(struct xi_service *s, struct xi_request *req, struct xi_session *session)
{
    memset(req, 0, sizeof *req);
    req->id = ++s->next_request_id;
    req->session = session;
    req->timing.born = xi_now_ns();
    xi_session_get(session);
}

struct run {
    uv_timer_t timer; /* first: freed through it */
    struct xi_request *req;
    struct xi_reply reply;
    struct xi_segment segments[2];
};

void xi_request_finish(struct xi_request *req, enum xi_rc rc, struct xi_reply *reply,
                       const struct xi_err *err)
{
    struct xi_slot *slot = req->slot;
    struct xi_session *session = req->session;

    req->done(req, rc, reply, err);
    xi_slot_put(slot);
    xi_session_put(session);
}

static void close_run(uv_handle_t *h)
{
    free(h->data);
}

static void output(struct run *run, uint32_t i, struct xi_part part, const void *bytes, size_t n)
{
    run->segments[i].map.base = malloc(n ? n : 1);
    memcpy(run->segments[i].map.base, bytes, n);
    part.mem = (struct xi_mem_ref){.bytes = n};
    run->reply.parts[i] = part;
    /* A heap copy that release frees. */
    run->reply.segments[i] = malloc(sizeof run->segments[i]);
    *run->reply.segments[i] = run->segments[i];
    run->reply.done.n_parts = i + 1;
}

static void answer(struct run *run)
{
    struct xi_request *req = run->req;
    const struct xi_part *in = &req->parts[0];
    const uint8_t *data = req->slot->data + in->mem.offset;
    char json[64];

    if (in->kind == XI_PART_BYTES) {
        uint32_t n = 0;
        (void)snprintf(json, sizeof json, "{\"bytes\":%llu}", (unsigned long long)in->mem.bytes);
        if (req->want & XI_ANSWER_JSON)
            output(run, n++, (struct xi_part){.kind = XI_PART_JSON}, json, strlen(json));
        if (req->want & XI_ANSWER_PICTURE)
            output(run, n, (struct xi_part){.kind = XI_PART_PICTURE}, "JPEG", 4);
        return;
    }
    size_t n = in->mem.bytes / sizeof(float);
    float *out = malloc(n * sizeof *out + 1);
    memcpy(out, data, n * sizeof *out);
    for (size_t i = 0; i < n; i++)
        out[i] *= 2;
    struct xi_part part = *in;
    part.index = 0;
    output(run, 0, part, out, n * sizeof *out);
    free(out);
}

static void on_run(uv_timer_t *t)
{
    struct run *run = t->data;
    struct xi_request *req = run->req;
    struct xi_reply reply;

    if (req != NULL) {
        req->timing.completed = xi_now_ns();
        answer(run);
        reply = run->reply;
        req->prev = NULL;
        xi_request_finish(req, XI_OK, &reply, NULL);
    }
    uv_close((uv_handle_t *)t, close_run);
}

void xi_pool_submit(struct xi_pool *pool, struct xi_request *req)
{
    struct run *run = calloc(1, sizeof *run);

    (void)pool;
    run->req = req;
    run->timer.data = run;
    req->prev = (struct xi_request *)run; /* where cancel finds it */
    req->timing.queued = req->timing.dispatched = xi_now_ns();
    (void)uv_timer_init(self->service.loop, &run->timer);
    run->timer.data = run;
    (void)uv_timer_start(&run->timer, on_run, self->delay_ms, 0);
}

void xi_pool_refuse(struct xi_request *req, const struct xi_err *err)
{
    xi_request_finish(req, err->rc, NULL, err);
}

void xi_pool_cancel(struct xi_pool *pool, struct xi_request *req)
{
    struct run *run = (struct run *)req->prev;
    struct xi_err err;

    (void)pool;
    self->cancelled++;
    run->req = NULL;
    (void)xi_fail(&err, XI_ECANCELLED, "the client went away");
    xi_request_finish(req, XI_ECANCELLED, NULL, &err);
}

void xi_pool_stats(const struct xi_pool *pool, struct xi_pool_stats *ret)
{
    (void)pool;
    *ret = (struct xi_pool_stats){0};
}

void xi_reply_trim(struct xi_reply *reply, uint32_t n)
{
    for (; n > 0; n--) {
        uint32_t i = --reply->done.n_parts;
        free(reply->segments[i]->map.base);
        free(reply->segments[i]);
    }
}

void xi_reply_release(struct xi_reply *reply)
{
    xi_reply_trim(reply, reply->done.n_parts);
}

int xi_host_pid(const struct xi_host *host)
{
    (void)host;
    return 1;
}

const char *xi_host_sandbox(const struct xi_host *host)
{
    (void)host;
    return "none";
}

/* ---- store ---- */

void xi_store_list(struct xi_store *store, xi_list_cb cb, void *ctx)
{
    (void)store;
    cb(ctx, NULL, 0, NULL);
}

void xi_store_find(struct xi_store *store, const char *reference, xi_record_cb cb, void *ctx)
{
    struct xi_err err;

    (void)store;
    (void)xi_fail(&err, XI_ENOENT, "no package \"%.60s\"", reference);
    cb(ctx, NULL, NULL, &err);
}

void xi_store_remove(struct xi_store *store, const char *digest, xi_store_cb cb, void *ctx)
{
    (void)store;
    (void)digest;
    cb(ctx, NULL);
}

struct xi_upload {
    uint64_t bytes;
};

enum xi_rc xi_upload_begin(struct xi_store *store, uint64_t expected_bytes, struct xi_upload **ret,
                           struct xi_err *err)
{
    (void)store;
    (void)expected_bytes;
    (void)err;
    self->uploads_open++;
    *ret = calloc(1, sizeof **ret);
    return XI_OK;
}

void xi_upload_write(struct xi_upload *u, const void *data, size_t bytes, xi_store_cb cb, void *ctx)
{
    (void)data;
    u->bytes += bytes;
    cb(ctx, NULL);
}

void xi_upload_abort(struct xi_upload *u)
{
    self->uploads_open--;
    free(u);
}

void xi_upload_install(struct xi_upload *u, xi_install_cb cb, void *ctx)
{
    struct xi_package_record record = {.name = "fake", .version = "1.0.0"};

    self->upload_bytes = u->bytes;
    xi_upload_abort(u);
    cb(ctx, &record, 0, NULL);
}

/* ---- settings ---- */

void xi_service_configure(struct xi_service *s, const char *tenant, const json_t *patch,
                          xi_store_cb cb, void *ctx)
{
    struct xi_err err;

    (void)s;
    (void)tenant;
    if (json_object_size(patch) == 0) {
        cb(ctx, NULL);
        return;
    }
    (void)xi_fail(&err, XI_EINVAL, "unknown key");
    cb(ctx, &err);
}

/* ---- figures ---- */

struct xi_tenant *xi_tenants_at(struct xi_tenants *t, uint32_t index)
{
    (void)t;
    (void)index;
    return NULL;
}

const char *xi_device_kind_name(uint32_t kind)
{
    return kind == 0 ? "cpu" : "another";
}

double xi_rate_done_per_s(const struct xi_rate *r)
{
    return (double)r->n;
}

double xi_rate_busy_ms_per_s(const struct xi_rate *r)
{
    return (double)r->n;
}

const struct xi_resources *xi_monitor_latest(struct xi_monitor *m)
{
    (void)m;
    return &self->resources;
}

uint64_t xi_hist_quantile_us(const struct xi_hist *h, double q)
{
    (void)h;
    return (uint64_t)q;
}

uint64_t xi_hist_bucket_upper_us(unsigned bucket)
{
    return 1ull << (bucket / 8);
}
