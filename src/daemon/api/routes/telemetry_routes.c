/* /v1/telemetry: what the machine and everything on it does right now, and the same as a stream. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "daemon/api/connection.h"
#include "daemon/api/describe.h"
#include "daemon/core/admission.h"
#include "daemon/core/variants.h"

enum { INTERVAL_MIN_MS = 250, INTERVAL_MAX_MS = 60000, INTERVAL_MS = 1000, JOINED_MAX = 48 };

/* One device as the document shows it: what a sensor knows, what an engine knows, or both. */
struct joined {
    const struct xi_monitored *sensor; /* of the document's copy; NULL: no sensor */
    const struct xi_engine_record *engine;
    const struct xi_engine_device *device;
    uint32_t sessions;
    uint64_t reserved;
};

struct telemetry {
    struct xi_document doc; /* first */
    struct telemetry *next;
    struct xi_exchange *x;  /* who asked; NULL: streams did */
    struct viewer *viewers; /* who gets it when it is done */
    char tenant[XI_NAME_MAX + 1];
    int all;
    struct xi_resources machine; /* one reading for the whole document */
    struct joined joined[JOINED_MAX];
    uint32_t n_joined;
    double fps;
};

struct viewer {
    struct xi_stream stream; /* first */
    struct viewer *next;     /* of the same document */
    char tenant[XI_NAME_MAX + 1];
    int all;
};

static void whole(struct xi_str *s, const char *key, uint64_t v)
{
    xi_str_printf(s, ",\"%s\":%" PRIu64, key, v);
}

/* ---- devices ---- */

static struct joined *find_sensor(struct telemetry *t, const struct xi_engine_device *d)
{
    for (uint32_t i = 0; i < t->n_joined; i++) {
        const struct xi_monitored *m = t->joined[i].sensor;
        if (m != NULL && m->kind == d->kind && xi_device_index(m->id) == xi_device_index(d->id))
            return &t->joined[i];
    }
    return NULL;
}

static void join_devices(struct telemetry *t)
{
    const struct xi_service *service = t->doc.server->service;

    for (uint32_t i = 0; i < t->machine.n_devices && i < XI_MONITORED_MAX; i++)
        t->joined[t->n_joined++].sensor = &t->machine.devices[i];
    for (uint32_t e = 0; e < service->n_engines; e++)
        for (uint32_t i = 0; i < service->engines[e].probe.n_devices; i++) {
            const struct xi_engine_device *d = &service->engines[e].probe.devices[i];
            struct joined *j = i < XI_ENGINE_MAX_DEVICES ? find_sensor(t, d) : NULL;
            if (j == NULL && t->n_joined < JOINED_MAX && i < XI_ENGINE_MAX_DEVICES)
                j = &t->joined[t->n_joined++];
            if (j != NULL && j->device == NULL) {
                j->engine = &service->engines[e];
                j->device = d;
            }
        }
}

static void count_on_device(struct telemetry *t, const struct xi_session *s)
{
    struct joined *best = NULL;

    for (uint32_t i = 0; i < t->n_joined && best == NULL; i++) {
        struct joined *j = &t->joined[i];
        uint32_t kind = j->sensor ? j->sensor->kind : j->device->kind;
        const char *id = j->sensor ? j->sensor->id : j->device->id;
        if (s->device[0] != '\0' && kind == s->device_kind &&
            xi_device_index(id) == xi_device_index(s->device))
            best = j;
    }
    if (best != NULL) {
        best->sessions++;
        best->reserved += s->reserved_bytes;
    }
}

/* What the ledger knows of its memory; the first budget is the machine's. 0: nothing. */
static int find_budget(const struct telemetry *t, const struct joined *j,
                       struct xi_budget_view *ret)
{
    struct xi_sessions *sessions = t->doc.server->service->sessions;
    uint32_t i;

    if ((j->sensor ? j->sensor->kind : j->device->kind) == XI_DEV_CPU)
        return xi_sessions_budget(sessions, 0, ret);
    for (i = 1; j->device != NULL && xi_sessions_budget(sessions, i, ret); i++)
        if (strcmp(ret->name, j->device->id) == 0)
            return 1;
    return 0;
}

/* A tenant sees of what is reserved its own. */
static void add_budget(struct telemetry *t, const struct joined *j)
{
    struct xi_str *s = &t->doc.text;
    struct xi_budget_view view = {0};
    int known = find_budget(t, j, &view);

    xi_describe_number(s, "memory_limit",
                       known && view.limit > 0 ? (double)view.limit : XI_UNKNOWN);
    whole(s, "reserved", known && t->all ? view.held : j->reserved);
}

static void add_device(struct telemetry *t, const struct joined *j)
{
    static const struct xi_monitored nothing = {.load = XI_UNKNOWN,
                                                .celsius = XI_UNKNOWN,
                                                .hot_celsius = XI_UNKNOWN,
                                                .power_w = XI_UNKNOWN,
                                                .clock_mhz = XI_UNKNOWN,
                                                .memory_total_bytes = XI_UNKNOWN,
                                                .memory_used_bytes = XI_UNKNOWN};
    const struct xi_monitored *m = j->sensor ? j->sensor : &nothing;
    struct xi_str *s = &t->doc.text;
    double total = m->memory_total_bytes;

    if (total == XI_UNKNOWN && j->device != NULL && j->device->memory_total_bytes > 0)
        total = (double)j->device->memory_total_bytes;
    xi_str_puts(s, "{\"id\":");
    xi_str_json(s, j->sensor ? m->id : j->device->id);
    xi_describe_text(s, "kind", xi_device_kind_name(j->sensor ? m->kind : j->device->kind));
    xi_describe_text(s, "name",
                     j->sensor && m->name[0] ? m->name
                     : j->device             ? j->device->name
                                             : "");
    xi_describe_text(s, "source", j->sensor ? m->source : j->engine->name);
    xi_str_puts(s, ",\"engine\":");
    if (j->device != NULL)
        xi_str_json(s, j->engine->name);
    else
        xi_str_puts(s, "null");
    xi_describe_number(s, "load", m->load);
    xi_describe_number(s, "temp", m->celsius);
    xi_describe_number(s, "temp_limit", m->hot_celsius);
    xi_describe_number(s, "power_w", m->power_w);
    xi_describe_number(s, "clock_mhz", m->clock_mhz);
    xi_describe_number(s, "memory_total", total);
    xi_describe_number(s, "memory_used", m->memory_used_bytes);
    xi_describe_text(s, "throttled", m->throttled);
    add_budget(t, j);
    whole(s, "sessions", j->sessions);
    xi_str_puts(s, "}");
}

static void add_devices(struct telemetry *t)
{
    struct xi_str *s = &t->doc.text;

    xi_str_puts(s, "],\"devices\":[");
    for (uint32_t i = 0; i < t->n_joined; i++) {
        xi_str_puts(s, i ? "," : "");
        add_device(t, &t->joined[i]);
    }
    xi_str_puts(s, "]");
}

/* ---- the machine ---- */

/* The hottest of a kind. */
static double hottest(const struct xi_resources *r, uint32_t kind)
{
    double v = XI_UNKNOWN;

    for (uint32_t i = 0; i < r->n_devices; i++)
        if (r->devices[i].kind == kind && r->devices[i].celsius != XI_UNKNOWN &&
            (v == XI_UNKNOWN || r->devices[i].celsius > v))
            v = r->devices[i].celsius;
    return v;
}

/* Memory in use of devices that have their own, as a part of what they have. */
static double vram_usage(const struct xi_resources *r)
{
    double used = 0, total = 0;

    for (uint32_t i = 0; i < r->n_devices; i++) {
        const struct xi_monitored *m = &r->devices[i];
        if (m->kind == XI_DEV_CPU || m->memory_total_bytes <= 0 || m->memory_used_bytes < 0)
            continue;
        used += m->memory_used_bytes;
        total += m->memory_total_bytes;
    }
    return total > 0 ? used / total : XI_UNKNOWN;
}

static void add_head(struct telemetry *t)
{
    const struct xi_service *service = t->doc.server->service;
    const struct xi_resources *r = &t->machine;
    struct xi_str *s = &t->doc.text;
    double used = r->memory_total_bytes > 0 && r->memory_available_bytes >= 0
                      ? r->memory_total_bytes - r->memory_available_bytes
                      : XI_UNKNOWN;

    xi_str_printf(s, "{\"at_ms\":%" PRIu64, xi_wall_ms());
    xi_describe_text(s, "node", service->node);
    xi_describe_number(s, "uptime_s",
                       service->started_ms ? (double)((xi_now_ms() - service->started_ms) / 1000)
                                           : 0);
    xi_describe_number(s, "gpu_temp", hottest(r, XI_DEV_GPU));
    xi_describe_number(s, "cpu_temp", hottest(r, XI_DEV_CPU));
    xi_describe_number(s, "npu_temp", hottest(r, XI_DEV_NPU));
    xi_describe_number(s, "vram_usage", vram_usage(r));
    xi_describe_number(s, "ram_usage", used >= 0 ? used / r->memory_total_bytes : XI_UNKNOWN);
    xi_describe_number(s, "cpu_load", r->cpu_load);
    xi_describe_number(s, "board_power_w", r->board_power_w);
    xi_describe_number(s, "sensors_age_ms",
                       r->sampled_at_ms ? (double)(xi_now_ms() - r->sampled_at_ms) : XI_UNKNOWN);
    xi_str_puts(s, ",");
    xi_describe_machine(s, r);
    xi_str_puts(s, ",\"sessions\":[");
}

/* ---- sessions ---- */

static void add_quantiles(struct xi_str *s, const char *key, const struct xi_hist *h)
{
    xi_str_printf(s, ",\"%s\":", key);
    if (h->count == 0) {
        xi_str_puts(s, "null");
        return;
    }
    xi_str_printf(
        s, "{\"p50\":%" PRIu64 ",\"p90\":%" PRIu64 ",\"p99\":%" PRIu64 ",\"max\":%" PRIu64 "}",
        xi_hist_quantile_us(h, 0.5), xi_hist_quantile_us(h, 0.9), xi_hist_quantile_us(h, 0.99),
        h->max_us);
}

static void add_histogram(struct xi_str *s, const struct xi_hist *h)
{
    const char *comma = "";

    xi_str_puts(s, ",\"histogram\":[");
    for (unsigned i = 0; i < XI_HIST_BUCKETS; i++) {
        if (h->buckets[i] == 0)
            continue;
        xi_str_puts(s, comma);
        xi_str_puts(s, "[");
        xi_str_uint(s, xi_hist_bucket_upper_us(i), 1);
        xi_str_puts(s, ",");
        xi_str_uint(s, h->buckets[i], 1);
        xi_str_puts(s, "]");
        comma = ",";
    }
    xi_str_puts(s, "]");
}

static void add_session(struct telemetry *t, const struct xi_session *x)
{
    const struct xi_session_stats *st = &x->stats;
    double fps = xi_rate_done_per_s(&x->rate);
    struct xi_str *s = &t->doc.text;

    xi_str_printf(s, "{\"id\":\"%s\"", x->id);
    xi_describe_text(s, "name", x->name);
    xi_describe_text(s, "version", x->version);
    xi_describe_text(s, "tenant", x->tenant);
    xi_describe_text(s, "state", xi_session_state_name(x->state));
    xi_describe_text(s, "device", x->device);
    xi_describe_text(s, "isolation", xi_isolation_name(x->isolation));
    xi_describe_number(s, "fps", fps);
    xi_describe_number(s, "device_ms_per_s", xi_rate_busy_ms_per_s(&x->rate));
    whole(s, "queued", x->queued);
    whole(s, "running", x->running);
    whole(s, "lanes", x->lane_count);
    whole(s, "memory", xi_describe_memory(x));
    xi_describe_number(s, "batch_mean",
                       st->runs > 0 ? (double)st->ran / (double)st->runs : XI_UNKNOWN);
    whole(s, "requests", st->requests);
    whole(s, "errors", st->client_errors + st->server_errors);
    whole(s, "refused", st->refused);
    add_quantiles(s, "latency_us", &st->total);
    add_quantiles(s, "queue_us", &st->queue);
    add_quantiles(s, "device_us", &st->device);
    add_histogram(s, &st->total);
    xi_str_puts(s, "}");
    t->fps += fps > 0 ? fps : 0;
    count_on_device(t, x);
}

/* ---- tenants, pool, daemon ---- */

static void add_tenant(struct xi_str *s, const struct xi_tenant *t, double all_busy)
{
    double busy = xi_rate_busy_ms_per_s(&t->rate);

    xi_str_puts(s, "{\"name\":");
    xi_str_json(s, t->name);
    whole(s, "weight", t->limits.weight);
    xi_describe_number(s, "share", busy >= 0 && all_busy > 0 ? busy / all_busy : XI_UNKNOWN);
    xi_describe_number(s, "device_ms_per_s", busy);
    xi_describe_number(s, "fps", xi_rate_done_per_s(&t->rate));
    whole(s, "queued", t->queued);
    whole(s, "running", t->running);
    whole(s, "sessions", t->sessions);
    whole(s, "refused", t->refused_quota);
    whole(s, "memory", t->reserved_bytes);
    xi_describe_number(s, "memory_limit",
                       t->limits.memory_bytes ? (double)t->limits.memory_bytes : XI_UNKNOWN);
    xi_describe_number(s, "rate_limit",
                       t->limits.rate_per_s > 0 ? t->limits.rate_per_s : XI_UNKNOWN);
    xi_str_puts(s, "}");
}

static double busy_of_all(struct xi_tenants *all)
{
    double sum = 0;
    const struct xi_tenant *t;

    for (uint32_t i = 0; (t = xi_tenants_at(all, i)) != NULL; i++) {
        double v = xi_rate_busy_ms_per_s(&t->rate);
        sum += v > 0 ? v : 0;
    }
    return sum;
}

static void add_tenants(struct telemetry *t)
{
    struct xi_tenants *all = t->doc.server->service->tenants;
    struct xi_str *s = &t->doc.text;
    double busy = busy_of_all(all);
    const struct xi_tenant *one;
    int n = 0;

    xi_str_puts(s, ",\"tenants\":[");
    for (uint32_t i = 0; (one = xi_tenants_at(all, i)) != NULL; i++) {
        if (!t->all && strcmp(one->name, t->tenant) != 0)
            continue;
        xi_str_puts(s, n++ ? "," : "");
        add_tenant(s, one, busy);
    }
    xi_str_puts(s, "]");
}

static void add_daemon(struct telemetry *t)
{
    const struct xi_http_server *server = t->doc.server;
    const struct xi_service *service = server->service;
    const struct xi_http_stats *h = &server->stats;
    struct xi_str *s = &t->doc.text;
    struct xi_pool_stats pool;
    struct xi_shm_stats shm;

    xi_describe_number(s, "fps", t->fps);
    if (!t->all) { /* of all tenants together: the administrator's */
        xi_str_puts(s, ",\"pool\":null,\"daemon\":null}");
        return;
    }
    xi_pool_stats(service->pool, &pool);
    xi_shm_stats(service->shm, &shm);
    xi_str_printf(s, ",\"pool\":{\"cores\":%u", pool.cores_budget);
    whole(s, "queued", pool.queued);
    whole(s, "running", pool.running);
    whole(s, "suspects", pool.suspects);
    whole(s, "lanes", pool.lanes);
    whole(s, "dispatched", pool.dispatched);
    whole(s, "completed", pool.completed);
    whole(s, "retried", pool.retried);
    whole(s, "incidents", pool.incidents);
    xi_str_printf(s, "},\"daemon\":{\"connections\":%u", h->connections);
    whole(s, "streams", server->streams.n);
    whole(s, "http_requests", h->requests);
    xi_describe_number(s, "rss", t->machine.daemon_rss_bytes);
    xi_describe_number(s, "open_fds", t->machine.daemon_open_fds);
    whole(s, "input_memory", shm.budget_bytes);
    whole(s, "input_memory_used", shm.used_bytes);
    whole(s, "input_memory_refused", shm.refused);
    whole(s, "log_dropped", xi_log_dropped());
    whole(s, "events_dropped", h->events_dropped);
    add_quantiles(s, "loop_lag_us", &service->loop_lag);
    xi_str_puts(s, "}}");
}

/* ---- the document ---- */

static int write_part(struct xi_document *d)
{
    struct telemetry *t = (struct telemetry *)(void *)d;
    const struct xi_session *s;

    if (d->part == 0) {
        t->machine = *xi_monitor_latest(d->server->service->monitor);
        join_devices(t);
        add_head(t);
        d->part = 1;
        return 1;
    }
    s = xi_document_session(d);
    if (s != NULL) {
        xi_str_puts(&d->text, d->part++ == 1 ? "" : ",");
        add_session(t, s);
        return 1;
    }
    add_devices(t);
    add_tenants(t);
    add_daemon(t);
    return 0;
}

static void forget(struct telemetry *t)
{
    struct telemetry **at = &t->doc.server->telemetry;

    while (*at != NULL && *at != t)
        at = &(*at)->next;
    if (*at == t)
        *at = t->next;
}

static void on_written(struct xi_document *d)
{
    struct telemetry *t = (struct telemetry *)(void *)d;

    forget(t);
    for (struct viewer *v = t->viewers; v != NULL;) {
        struct viewer *next = v->next;
        if (!d->text.failed)
            xi_events_send(v->stream.x, "telemetry", xi_str_text(&d->text));
        xi_stream_release(&v->stream); /* it may be no more */
        v = next;
    }
    if (t->x != NULL)
        xi_document_answer(d, t->x, "application/json");
    else
        xi_document_fini(d);
    free(t);
}

static struct telemetry *new_telemetry(const char *tenant)
{
    struct telemetry *t = calloc(1, sizeof *t);

    if (t == NULL)
        return NULL;
    t->all = tenant == NULL;
    (void)snprintf(t->tenant, sizeof t->tenant, "%s", tenant ? tenant : "");
    t->doc.write = write_part;
    t->doc.done = on_written;
    return t;
}

void xi_telemetry_get(struct xi_exchange *x)
{
    struct telemetry *t = new_telemetry(xi_sees(x));
    struct xi_err err;

    if (t == NULL) {
        (void)xi_fail(&err, XI_ENOMEM, "no memory for telemetry");
        xi_answer_problem(x, &err);
        return;
    }
    t->x = x;
    xi_document_start(x->server, &t->doc, xi_sees(x));
}

/* ---- the stream ---- */

/* Those who are due at the same time and see the same get one document. */
static void want(struct xi_stream *s)
{
    struct viewer *v = (struct viewer *)(void *)s;
    struct xi_http_server *server = s->x->server;
    const char *tenant = v->all ? NULL : v->tenant;
    struct telemetry *t = server->telemetry;

    while (t != NULL && (t->doc.part != 0 || t->all != v->all || strcmp(t->tenant, v->tenant) != 0))
        t = t->next;
    int begins = t == NULL;
    if (begins) {
        t = new_telemetry(tenant);
        if (t == NULL)
            return;
        t->next = server->telemetry;
        server->telemetry = t;
    }
    v->next = t->viewers;
    t->viewers = v;
    xi_stream_hold(s);
    if (begins)
        xi_document_queue(server, &t->doc, tenant);
}

static void free_viewer(struct xi_stream *s)
{
    free(s);
}

void xi_telemetry_stream(struct xi_exchange *x)
{
    struct viewer *v = calloc(1, sizeof *v);
    uint64_t interval = INTERVAL_MS;
    struct xi_err err = {0};
    enum xi_rc rc = v == NULL ? xi_fail(&err, XI_ENOMEM, "no memory for the stream")
                              : xi_query_uint(x->stream.query, "interval_ms", INTERVAL_MIN_MS,
                                              INTERVAL_MAX_MS, &interval, &err);

    if (rc != XI_OK) {
        free(v);
        xi_answer_problem(x, &err);
        return;
    }
    v->all = xi_sees(x) == NULL;
    if (!v->all)
        memcpy(v->tenant, x->who.tenant, sizeof v->tenant);
    v->stream.interval_ms = (uint32_t)interval;
    v->stream.tick = want;
    v->stream.free = free_viewer;
    if (xi_stream_open(x, &v->stream, &err) != XI_OK)
        xi_answer_problem(x, &err);
}
