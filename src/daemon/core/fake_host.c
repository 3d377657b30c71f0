#include "daemon/core/fake_host.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/core/store.h"

struct fake fake;

void fake_reset(void)
{
    unsigned i;

    XI_ASSERT(fake.slots == 0 && fake.segments == 0 && fake.alive == 0 && fake.replies == 0);
    for (i = 0; i < fake.n_hosts; i++) {
        XI_ASSERT(fake.hosts[i]->freed);
        free(fake.hosts[i]);
    }
    memset(&fake, 0, sizeof(fake));
}

struct xi_host *fake_last(void)
{
    XI_ASSERT(fake.n_hosts > 0);
    return fake.hosts[fake.n_hosts - 1];
}

/* ---- host_link ---- */

enum xi_rc xi_host_start(uv_loop_t *loop, struct xi_shm *shm, const struct xi_host_spec *spec,
                         const struct xi_host_events *events, struct xi_host **ret,
                         struct xi_err *err)
{
    struct xi_host *host;

    (void)loop;
    (void)shm;
    if (fake.fail_start > 0) {
        fake.fail_start--;
        return xi_fail(err, XI_EFDS, "no descriptors left");
    }
    XI_ASSERT(fake.n_hosts < FAKE_HOSTS_MAX);
    host = calloc(1, sizeof(*host));
    XI_ASSERT(host != NULL);
    host->events = *events;
    host->group = spec->group;
    (void)snprintf(host->label, sizeof(host->label), "%s", spec->label);
    (void)snprintf(host->engine, sizeof(host->engine), "%s", spec->engine);
    fake.hosts[fake.n_hosts++] = host;
    fake.alive++;
    if (fake.alive > fake.most_alive)
        fake.most_alive = fake.alive;
    *ret = host;
    return XI_OK;
}

enum xi_rc xi_host_load(struct xi_host *host, struct xi_msg_load *load, int nice,
                        struct xi_err *err)
{
    uint32_t i;

    (void)nice;
    if (fake.fail_load > 0) {
        fake.fail_load--;
        return xi_fail(err, XI_EFDS, "no descriptors left for the lanes");
    }
    XI_ASSERT(!host->ended);
    if (host->n_loads == FAKE_LOADS_MAX)
        return xi_fail(err, XI_EAGAIN, "too many sessions share the host");
    XI_ASSERT(host->group || host->n_loads == 0);
    for (i = 0; i < load->lane_count + load->stage_lanes; i++) {
        XI_ASSERT(host->owner[load->first_lane + i] == 0);
        host->owner[load->first_lane + i] = load->session;
    }
    host->load = *load;
    host->told[host->n_loads] = 0;
    host->load_asked[host->n_loads] = 1;
    host->loads[host->n_loads++] = *load;
    if (host->lanes < load->first_lane + load->lane_count + load->stage_lanes)
        host->lanes = load->first_lane + load->lane_count + load->stage_lanes;
    host->loaded = 1;
    return XI_OK;
}

enum xi_rc xi_host_unload(struct xi_host *host, uint32_t session, struct xi_err *err)
{
    if (host->ended || host->stopped)
        return xi_fail(err, XI_EHOST, "host is ending");
    XI_ASSERT(fake_load_of(host, session) != NULL && host->n_unloads < FAKE_LOADS_MAX);
    host->unloads[host->n_unloads++] = session;
    return XI_OK;
}

int xi_host_loads(const struct xi_host *host)
{
    uint32_t i;

    for (i = 0; i < host->n_loads; i++) {
        if (host->load_asked[i])
            return 1;
    }
    return 0;
}

int xi_host_idle(const struct xi_host *host)
{
    uint32_t i;

    for (i = 0; i < host->lanes; i++) {
        if (host->running[i] != 0)
            return 0;
    }
    return 1;
}

int xi_host_runs(const struct xi_host *host)
{
    return !host->ended && !host->stopped;
}

static struct fake_request *kept(struct xi_host *host, uint64_t id)
{
    uint32_t i;

    for (i = 0; i < host->n_kept; i++) {
        if (host->kept[i].id == id)
            return &host->kept[i];
    }
    return NULL;
}

static void forget(struct xi_host *host, uint64_t id)
{
    struct fake_request *k = kept(host, id);

    if (k != NULL)
        *k = host->kept[--host->n_kept];
}

/* Stages come in their order, and only flows have them. */
static struct fake_request request_of(struct xi_host *host, enum xi_work_op op,
                                      const struct xi_work_item *item)
{
    struct fake_request r = {.id = item->request.id};
    struct fake_request *k = kept(host, r.id);

    XI_ASSERT((k != NULL) == (item->request.n_parts == 0));
    XI_ASSERT(op != XI_WORK_PRE || k == NULL);
    XI_ASSERT(op != XI_WORK_POST || k != NULL);
    if (k != NULL)
        r.fill = k->fill;
    else
        r.fill = *((const uint8_t *)item->segments[0]->map.base + item->parts[0].mem.offset);
    return r;
}

static void take_batch(struct xi_host *host, uint32_t lane, enum xi_work_op op,
                       const struct xi_work_item *items, uint32_t n_items)
{
    uint32_t i;

    XI_ASSERT(n_items <= FAKE_BATCH_MAX && host->running[lane] == 0);
    for (i = 0; i < n_items; i++) {
        struct fake_request r = request_of(host, op, &items[i]);

        if (i > 0) {
            host->behind[lane][i - 1] = r;
            continue;
        }
        host->running[lane] = r.id;
        host->first[lane] = r.fill;
    }
    host->n_behind[lane] = n_items - 1;
    host->op[lane] = op;
    if (n_items > host->largest_batch)
        host->largest_batch = n_items;
}

enum xi_rc xi_host_submit(struct xi_host *host, uint32_t lane, enum xi_work_op op, int core,
                          const struct xi_work_item *items, uint32_t n_items, struct xi_err *err)
{
    unsigned i, running = 0;

    if (fake.submit_rc != XI_OK) {
        enum xi_rc rc = fake.submit_rc;

        fake.submit_rc = XI_OK;
        return xi_fail(err, rc, "as the test wants");
    }
    XI_ASSERT(host->loaded && !host->ended && lane < host->lanes);
    if (op == XI_WORK_FORGET) {
        XI_ASSERT(n_items == 1 && kept(host, items->request.id) != NULL);
        forget(host, items->request.id);
        host->forgotten++;
        return XI_OK;
    }
    XI_ASSERT((op == XI_WORK_ALL) == !fake.staged);
    take_batch(host, lane, op, items, n_items);
    host->core[lane] = core;
    for (i = 0; i < host->lanes; i++)
        running += host->running[i] != 0;
    if (running > host->most_running)
        host->most_running = running;
    fake.submits++;
    return XI_OK;
}

void xi_host_stop(struct xi_host *host, unsigned grace_ms, const char *why)
{
    (void)grace_ms;
    host->stopped = 1;
    (void)snprintf(host->stop_why, sizeof(host->stop_why), "%s", why);
}

void xi_host_free(struct xi_host *host)
{
    XI_ASSERT(host->ended && !host->freed);
    host->freed = 1;
}

void xi_host_limit_memory(struct xi_host *host, uint64_t bytes)
{
    XI_ASSERT(!host->ended && bytes > 0);
}

int xi_host_pid(const struct xi_host *host)
{
    (void)host;
    return 4711;
}

void xi_host_forget_segment(struct xi_host *host, uint32_t segment_id)
{
    (void)host;
    (void)segment_id;
}

const char *xi_host_sandbox(const struct xi_host *host)
{
    (void)host;
    return "";
}

uint64_t xi_host_rss_bytes(const struct xi_host *host)
{
    (void)host;
    return 0;
}

void xi_reply_trim(struct xi_reply *reply, uint32_t n)
{
    for (; n > 0; n--)
        xi_segment_put(reply->segments[--reply->done.n_parts]);
    reply->done.n_state = 0;
}

void xi_reply_release(struct xi_reply *reply)
{
    xi_reply_trim(reply, reply->done.n_parts);
    if (reply->host != NULL)
        fake.replies--;
    reply->host = NULL;
}

/* ---- events ---- */

void fake_loaded(struct xi_host *host, uint64_t service_ns)
{
    fake_loaded_session(host, host->load.session, service_ns);
}

struct xi_msg_load *fake_load_of(struct xi_host *host, uint32_t session)
{
    uint32_t i;

    for (i = 0; i < host->n_loads; i++) {
        if (host->loads[i].session == session)
            return &host->loads[i];
    }
    return NULL;
}

static void load_answered(struct xi_host *host, uint32_t session)
{
    const struct xi_msg_load *load = fake_load_of(host, session);

    if (load != NULL)
        host->load_asked[load - host->loads] = 0;
}

void fake_loaded_session(struct xi_host *host, uint32_t session, uint64_t service_ns)
{
    struct xi_msg_loaded m = {.session = session,
                              .lane_count = fake_load_of(host, session)->lane_count,
                              .service_ns = service_ns,
                              .memory_bytes = fake.memory_bytes != 0 ? fake.memory_bytes : 10000000,
                              .max_batch = fake.max_batch == 0 ? 1 : fake.max_batch,
                              .staged = (uint32_t)fake.staged,
                              .has_flow = (uint32_t)fake.has_flow,
                              .engine = "reference 1"};
    struct xi_signature signature = {.n_inputs = 1};

    XI_ASSERT(host->loaded && !host->ended);
    load_answered(host, session);
    signature.inputs = calloc(1, sizeof(*signature.inputs));
    XI_ASSERT(signature.inputs != NULL);
    (void)snprintf(signature.inputs[0].name, sizeof(signature.inputs[0].name), "x");
    signature.inputs[0].dtype = XI_DT_UINT8;
    signature.inputs[0].rank = fake.rank == 0 ? 1 : fake.rank;
    memset(signature.inputs[0].dims, 0xff, sizeof(signature.inputs[0].dims));
    host->events.loaded(host->events.ctx, host, &m, &signature);
}

void fake_failed(struct xi_host *host, enum xi_rc rc, const char *text)
{
    struct xi_err err;

    (void)xi_fail(&err, rc, "%s", text);
    load_answered(host, host->load.session);
    host->events.failed(host->events.ctx, host, host->load.session, &err, "load");
}

void fake_unloaded(struct xi_host *host, uint32_t session, uint64_t memory_bytes)
{
    struct xi_msg_unload m = {.session = session, .memory_bytes = memory_bytes};
    struct xi_msg_load *load = fake_load_of(host, session);
    uint32_t i;

    XI_ASSERT(load != NULL && !host->ended);
    for (i = 0; i < host->lanes; i++) {
        if (host->owner[i] == session) {
            XI_ASSERT(host->running[i] == 0);
            host->owner[i] = 0;
        }
    }
    host->n_loads--;
    host->told[load - host->loads] = host->told[host->n_loads];
    host->load_asked[load - host->loads] = host->load_asked[host->n_loads];
    *load = host->loads[host->n_loads];
    for (i = 0; i < host->n_unloads && host->unloads[i] != session;)
        i++;
    XI_ASSERT(i < host->n_unloads); /* somebody wanted it */
    host->unloads[i] = host->unloads[--host->n_unloads];
    host->events.unloaded(host->events.ctx, host, &m);
}

static void deliver(struct xi_host *host, uint32_t lane, const struct xi_done *done)
{
    struct xi_reply reply;

    memset(&reply, 0, sizeof(reply));
    reply.done = *done;
    reply.host = host;
    reply.lane = lane;
    fake.replies++;
    host->events.done(host->events.ctx, host, lane, &reply);
}

/* The next of the batch is in turn. */
static void answered(struct xi_host *host, uint32_t lane, struct xi_done *done)
{
    uint8_t fill = host->first[lane];
    enum xi_work_op op = host->op[lane];

    host->running[lane] = 0;
    if (host->n_behind[lane] > 0) {
        host->running[lane] = host->behind[lane][0].id;
        host->first[lane] = host->behind[lane][0].fill;
        memmove(host->behind[lane], host->behind[lane] + 1,
                --host->n_behind[lane] * sizeof(host->behind[lane][0]));
    }
    if (done->code != XI_OK || op == XI_WORK_POST)
        forget(host, done->id);
    if (done->code == XI_OK && op == XI_WORK_PRE) {
        XI_ASSERT(host->n_kept < FAKE_KEPT_MAX);
        host->kept[host->n_kept++] = (struct fake_request){.id = done->id, .fill = fill};
        done->shape_key = fill & 3u;
    }
    deliver(host, lane, done);
}

void fake_done_id(struct xi_host *host, uint32_t lane, uint64_t id, uint64_t device_ns)
{
    struct xi_done done = {
        .id = id, .flags = XI_DONE_FINAL, .device_ns = device_ns, .core = fake.core};

    answered(host, lane, &done);
}

void fake_done(struct xi_host *host, uint32_t lane, enum xi_rc rc)
{
    struct xi_done done = {.id = host->running[lane],
                           .flags = XI_DONE_FINAL,
                           .code = rc,
                           .device_ns = fake.run_ns != 0 ? fake.run_ns : 1000000};

    XI_ASSERT(done.id != 0);
    if (rc != XI_OK)
        (void)snprintf(done.text, sizeof(done.text), "the engine says no");
    answered(host, lane, &done);
}

int fake_runs(const struct xi_host *host, uint8_t fill)
{
    uint32_t i, k;

    for (i = 0; i < host->lanes; i++) {
        if (host->running[i] != 0 && host->first[i] == fill)
            return 1;
        for (k = 0; k < host->n_behind[i]; k++) {
            if (host->behind[i][k].fill == fill)
                return 1;
        }
    }
    return 0;
}

void fake_exit(struct xi_host *host, const char *reason)
{
    struct xi_host_exit why = {.exit_code = -1, .signal = 11, .killed = host->stopped};

    XI_ASSERT(!host->ended);
    host->ended = 1;
    fake.alive--;
    (void)snprintf(why.reason, sizeof(why.reason), "%s", host->stopped ? host->stop_why : reason);
    host->events.exited(host->events.ctx, host, &why);
}

void fake_exit_code(struct xi_host *host, int code)
{
    struct xi_host_exit why = {.exit_code = code};

    XI_ASSERT(!host->ended);
    host->ended = 1;
    fake.alive--;
    (void)snprintf(why.reason, sizeof(why.reason), "ended with exit code %d", code);
    host->events.exited(host->events.ctx, host, &why);
}

void fake_progress(struct xi_host *host, uint32_t session, const char *phase)
{
    struct xi_msg_progress m = {.session = session};

    (void)snprintf(m.phase, sizeof(m.phase), "%s", phase);
    host->events.progress(host->events.ctx, host, &m);
}

/* ---- shared memory: plain memory does ---- */

struct xi_slot *fake_slot(uint64_t bytes, uint8_t fill)
{
    struct xi_slot *slot = calloc(1, sizeof(*slot));

    XI_ASSERT(slot != NULL);
    slot->segment = calloc(1, sizeof(*slot->segment));
    slot->data = malloc(bytes);
    XI_ASSERT(slot->segment != NULL && slot->data != NULL);
    memset(slot->data, fill, bytes);
    slot->segment->id = 1;
    slot->segment->map = (struct xi_map){.base = slot->data, .bytes = bytes};
    slot->bytes = bytes;
    slot->refs = 1;
    fake.slots++;
    return slot;
}

struct xi_segment *xi_segment_heap(uint64_t bytes)
{
    struct xi_segment *s = calloc(1, sizeof(*s) + bytes);

    XI_ASSERT(s != NULL);
    s->map = (struct xi_map){.base = s + 1, .bytes = bytes};
    s->refs = 1;
    fake.segments++;
    return s;
}

void xi_segment_get(struct xi_segment *segment)
{
    segment->refs++;
}

void xi_segment_put(struct xi_segment *segment)
{
    if (segment == NULL || --segment->refs > 0)
        return;
    free(segment);
    fake.segments--;
}

enum xi_rc xi_shm_take(struct xi_shm *shm, const char *tenant, uint64_t bytes, struct xi_slot **ret,
                       struct xi_err *err)
{
    (void)shm;
    (void)tenant;
    if (fake.no_slots)
        return xi_fail(err, XI_EAGAIN, "no room, as the test wants");
    *ret = fake_slot(bytes, 0);
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
    free(slot->data);
    free(slot->segment);
    free(slot);
    fake.slots--;
}

/* ---- the store ---- */

void xi_store_forget_group(struct xi_store *store, const char *id)
{
    (void)store;
    (void)id;
    fake.groups_forgotten++;
}

void xi_store_prepare(struct xi_store *store, const struct xi_store_folders *want, xi_links_cb cb,
                      void *ctx)
{
    (void)store;
    (void)want;
    fake.links++;
    cb(ctx, "/links", "/cache", NULL);
}

uint64_t xi_store_peak(const struct xi_store *store, const struct xi_peak *key, int *ret_exact)
{
    (void)store;
    XI_ASSERT(key->digest[0] != '\0' && key->instances > 0 && key->batch > 0);
    *ret_exact = fake.peak_bytes != 0;
    return fake.peak_bytes;
}

void xi_store_note_peak(struct xi_store *store, const struct xi_peak *peak)
{
    (void)store;
    fake.peak_bytes = peak->bytes;
}

void xi_store_replace(struct xi_store *store, const char *old_id, const struct xi_desired *row,
                      xi_store_cb cb, void *ctx)
{
    (void)store;
    fake.replaces++;
    (void)snprintf(fake.row_out, sizeof(fake.row_out), "%s", old_id);
    (void)snprintf(fake.row_in, sizeof(fake.row_in), "%s", row->id);
    fake.replaced = cb;
    fake.replaced_ctx = ctx;
}

void fake_replaced(enum xi_rc rc)
{
    struct xi_err err;
    xi_store_cb cb = fake.replaced;

    XI_ASSERT(cb != NULL);
    fake.replaced = NULL;
    (void)xi_fail(&err, rc, "the disk is full");
    cb(fake.replaced_ctx, rc == XI_OK ? NULL : &err);
}

void xi_store_find(struct xi_store *store, const char *reference, xi_record_cb cb, void *ctx)
{
    (void)store;
    (void)snprintf(fake.found, sizeof(fake.found), "%s", reference);
    fake.finder = cb;
    fake.finder_ctx = ctx;
}

void fake_found(struct xi_package_record *record)
{
    void (*cb)(void *, const char *, struct xi_package_record *, const struct xi_err *) =
        fake.finder;

    XI_ASSERT(cb != NULL);
    fake.finder = NULL;
    cb(fake.finder_ctx, fake.found, record, NULL);
}
