/* GET /metrics: the Prometheus text format, version 0.0.4. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "daemon/api/connection.h"
#include "daemon/api/describe.h"
#include "daemon/core/sequences.h"

static void describe(struct xi_str *s, const char *name, const char *type, const char *help)
{
    xi_str_printf(s, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

/* Label values: backslash, quote and newline are escaped, as the format asks. */
static void add_label(struct xi_str *s, const char *key, const char *value)
{
    xi_str_printf(s, "%s=\"", key);
    for (; *value; value++) {
        if (*value == '\n')
            xi_str_puts(s, "\\n");
        else if (*value == '"' || *value == '\\')
            xi_str_printf(s, "\\%c", *value);
        else
            xi_str_add(s, value, 1);
    }
    xi_str_add(s, "\"", 1);
}

static void session_labels(struct xi_str *s, const struct xi_session *x)
{
    add_label(s, "model", x->name);
    xi_str_add(s, ",", 1);
    add_label(s, "version", x->version);
    xi_str_add(s, ",", 1);
    add_label(s, "tenant", x->tenant);
}

/* Buckets that Prometheus knows, from ours: each of ours counts where it surely belongs. */
static void add_hist(struct xi_str *s, const char *name, const struct xi_session *x,
                     const struct xi_hist *h)
{
    static const uint64_t edges_us[] = {50,     100,     250,     500,     1000,    2500,
                                        5000,   10000,   25000,   50000,   100000,  250000,
                                        500000, 1000000, 2500000, 5000000, 10000000};
    uint64_t below = 0;
    unsigned b = 0;

    for (size_t i = 0; i < sizeof edges_us / sizeof *edges_us; i++) {
        while (b < XI_HIST_BUCKETS && xi_hist_bucket_upper_us(b) <= edges_us[i])
            below += h->buckets[b++];
        xi_str_printf(s, "%s_bucket{", name);
        if (x != NULL) {
            session_labels(s, x);
            xi_str_add(s, ",", 1);
        }
        xi_str_printf(s, "le=\"%g\"} %" PRIu64 "\n", (double)edges_us[i] / 1e6, below);
    }
    static const char *const tails[] = {"_bucket", "_sum", "_count"};
    for (int t = 0; t < 3; t++) {
        xi_str_printf(s, "%s%s", name, tails[t]);
        if (x != NULL || t == 0)
            xi_str_add(s, "{", 1);
        if (x != NULL)
            session_labels(s, x);
        if (t == 0)
            xi_str_puts(s, x != NULL ? ",le=\"+Inf\"" : "le=\"+Inf\"");
        if (x != NULL || t == 0)
            xi_str_add(s, "}", 1);
        if (t == 1)
            xi_str_printf(s, " %.6f\n", (double)h->sum_us / 1e6);
        else
            xi_str_printf(s, " %" PRIu64 "\n", h->count);
    }
}

static void add_value(struct xi_str *s, const char *name, const char *type, const char *help,
                      uint64_t v)
{
    describe(s, name, type, help);
    xi_str_printf(s, "%s %" PRIu64 "\n", name, v);
}

struct counter {
    const char *name, *help, *type;
    size_t offset; /* of a uint64_t in struct xi_session_stats */
};

static const struct counter counters[] = {
    {"xinfer_requests_total", "Requests that ended", "counter",
     offsetof(struct xi_session_stats, requests)},
    {"xinfer_requests_ok_total", "Requests answered with a result", "counter",
     offsetof(struct xi_session_stats, ok)},
    {"xinfer_requests_client_errors_total", "Requests that were wrong", "counter",
     offsetof(struct xi_session_stats, client_errors)},
    {"xinfer_requests_server_errors_total", "Requests that failed here", "counter",
     offsetof(struct xi_session_stats, server_errors)},
    {"xinfer_requests_cancelled_total", "Requests whose client went away", "counter",
     offsetof(struct xi_session_stats, cancelled)},
    {"xinfer_requests_expired_total", "Requests whose deadline passed", "counter",
     offsetof(struct xi_session_stats, expired)},
    {"xinfer_requests_refused_total", "Requests refused before they ran", "counter",
     offsetof(struct xi_session_stats, refused)},
    {"xinfer_requests_retried_total", "Requests run again after a host ended", "counter",
     offsetof(struct xi_session_stats, retried)},
    {"xinfer_input_bytes_total", "Bytes of inputs", "counter",
     offsetof(struct xi_session_stats, input_bytes)},
    {"xinfer_output_bytes_total", "Bytes of outputs", "counter",
     offsetof(struct xi_session_stats, output_bytes)},
    {"xinfer_cache_hits_total", "Requests answered from the response cache", "counter",
     offsetof(struct xi_session_stats, cache_hits)},
    {"xinfer_cache_misses_total", "Requests whose answer was not in the response cache", "counter",
     offsetof(struct xi_session_stats, cache_misses)},
    {"xinfer_copied_bytes_total", "Input bytes that were copied on their way", "counter",
     offsetof(struct xi_session_stats, copied_bytes)},
};

struct gauge {
    const char *name, *help, *type;
    uint64_t (*value)(const struct xi_session *x);
};

static uint64_t is_ready(const struct xi_session *x)
{
    return x->state == XI_SESSION_READY;
}

static uint64_t queued(const struct xi_session *x)
{
    return x->queued;
}

static uint64_t running(const struct xi_session *x)
{
    return x->running;
}

static uint64_t memory(const struct xi_session *x)
{
    return xi_describe_memory(x);
}

static uint64_t restarts(const struct xi_session *x)
{
    return x->restarts;
}

static struct xi_sequences_stats sequences(const struct xi_session *x)
{
    struct xi_sequences_stats stats;

    xi_sequences_stats(x, &stats);
    return stats;
}

static uint64_t sequences_open(const struct xi_session *x)
{
    return sequences(x).open;
}

static uint64_t sequences_waiting(const struct xi_session *x)
{
    return sequences(x).waiting;
}

static uint64_t sequences_bytes(const struct xi_session *x)
{
    return sequences(x).state_bytes;
}

static uint64_t sequences_expired(const struct xi_session *x)
{
    return sequences(x).expired;
}

static uint64_t sequences_lost(const struct xi_session *x)
{
    return sequences(x).lost;
}

static uint64_t cache_bytes(const struct xi_session *x)
{
    return xi_cache_bytes(x->cache);
}

static const struct gauge gauges[] = {
    {"xinfer_session_ready", "1 when the session is READY", "gauge", is_ready},
    {"xinfer_session_queued", "Requests waiting", "gauge", queued},
    {"xinfer_session_running", "Requests on a lane", "gauge", running},
    {"xinfer_session_memory_bytes", "Memory of the session's host", "gauge", memory},
    {"xinfer_session_restarts_total", "Times its host was started again", "counter", restarts},
    {"xinfer_sequences", "Open sequences", "gauge", sequences_open},
    {"xinfer_sequences_waiting", "Requests behind an earlier one of their sequence", "gauge",
     sequences_waiting},
    {"xinfer_sequences_state_bytes", "State of its sequences", "gauge", sequences_bytes},
    {"xinfer_sequences_expired_total", "Sequences that idled too long", "counter",
     sequences_expired},
    {"xinfer_sequences_lost_total", "Sequences that ended with their host or variant", "counter",
     sequences_lost},
    {"xinfer_cache_bytes", "Answers that are kept", "gauge", cache_bytes},
};

static const struct latency {
    const char *name, *help;
    size_t offset; /* of a struct xi_hist in struct xi_session_stats */
} latencies[] = {
    {"xinfer_request_seconds", "From the first byte to the result",
     offsetof(struct xi_session_stats, total)},
    {"xinfer_queue_seconds", "Waiting in the session's queue",
     offsetof(struct xi_session_stats, queue)},
    {"xinfer_device_seconds", "On the device", offsetof(struct xi_session_stats, device)},
};

enum {
    COUNTERS = sizeof counters / sizeof *counters,
    GAUGES = sizeof gauges / sizeof *gauges,
    LATENCIES = sizeof latencies / sizeof *latencies,
    FAMILIES = COUNTERS + GAUGES + LATENCIES
};

static void begin_family(struct xi_str *s, unsigned f)
{
    if (f < COUNTERS)
        describe(s, counters[f].name, counters[f].type, counters[f].help);
    else if (f < COUNTERS + GAUGES)
        describe(s, gauges[f - COUNTERS].name, gauges[f - COUNTERS].type,
                 gauges[f - COUNTERS].help);
    else
        describe(s, latencies[f - COUNTERS - GAUGES].name, "histogram",
                 latencies[f - COUNTERS - GAUGES].help);
}

static void add_one(struct xi_str *s, const char *name, const struct xi_session *x, uint64_t v)
{
    xi_str_printf(s, "%s{", name);
    session_labels(s, x);
    xi_str_printf(s, "} %" PRIu64 "\n", v);
}

static void add_to_family(struct xi_str *s, unsigned f, const struct xi_session *x)
{
    const char *stats = (const char *)&x->stats;

    if (f < COUNTERS) {
        uint64_t v;
        memcpy(&v, stats + counters[f].offset, sizeof v);
        add_one(s, counters[f].name, x, v);
    } else if (f < COUNTERS + GAUGES) {
        add_one(s, gauges[f - COUNTERS].name, x, gauges[f - COUNTERS].value(x));
    } else {
        const struct latency *l = &latencies[f - COUNTERS - GAUGES];
        add_hist(s, l->name, x, (const struct xi_hist *)(const void *)(stats + l->offset));
    }
}

static void add_server(struct xi_str *s, const struct xi_http_server *server)
{
    const struct xi_http_stats *t = &server->stats;
    struct xi_shm_stats shm;

    xi_shm_stats(server->service->shm, &shm);
    add_value(s, "xinfer_http_connections", "gauge", "Open connections", t->connections);
    add_value(s, "xinfer_http_accepted_total", "counter", "Connections accepted", t->accepted);
    add_value(s, "xinfer_http_refused_total", "counter", "Connections over the cap", t->refused);
    add_value(s, "xinfer_http_requests_total", "counter", "HTTP requests", t->requests);
    add_value(s, "xinfer_http_slow_total", "counter", "Clients cut for being slow", t->slow);
    add_value(s, "xinfer_http_body_bytes_total", "counter", "Bytes of request bodies",
              t->body_bytes);
    add_value(s, "xinfer_http_copied_bytes_total", "counter",
              "Bytes of request bodies that were copied behind the socket", t->copied_bytes);
    add_value(s, "xinfer_http_sent_bytes_total", "counter", "Bytes of answers", t->sent_bytes);
    add_value(s, "xinfer_event_streams", "gauge", "Open event and telemetry streams",
              server->streams.n);
    add_value(s, "xinfer_events_sent_total", "counter", "Events sent to clients", t->events_sent);
    add_value(s, "xinfer_events_dropped_total", "counter",
              "Events that clients were too slow to take", t->events_dropped);
    add_value(s, "xinfer_input_memory_budget_bytes", "gauge", "Budget of input memory",
              shm.budget_bytes);
    add_value(s, "xinfer_input_memory_used_bytes", "gauge", "Input memory in slots",
              shm.used_bytes);
    add_value(s, "xinfer_input_memory_segment_bytes", "gauge", "Shared memory for inputs",
              shm.segment_bytes);
    add_value(s, "xinfer_input_memory_refused_total", "counter", "Slots that were refused",
              shm.refused);
}

/* Under the names that Prometheus' own libraries use; what is unknown is left out. */
static void add_process(struct xi_str *s, const struct xi_resources *r)
{
    add_value(s, "xinfer_log_dropped_total", "counter", "Log lines that could not be written",
              xi_log_dropped());
    if (r->daemon_open_fds >= 0)
        add_value(s, "process_open_fds", "gauge", "Open descriptors of the daemon",
                  (uint64_t)r->daemon_open_fds);
    if (r->daemon_rss_bytes >= 0)
        add_value(s, "process_resident_memory_bytes", "gauge", "Resident memory of the daemon",
                  (uint64_t)r->daemon_rss_bytes);
}

static void add_pool(struct xi_str *s, const struct xi_service *service)
{
    struct xi_pool_stats p;

    xi_pool_stats(service->pool, &p);
    add_value(s, "xinfer_pool_queued", "gauge", "Requests waiting, all sessions", p.queued);
    add_value(s, "xinfer_pool_running", "gauge", "Requests on lanes, all sessions", p.running);
    add_value(s, "xinfer_pool_dispatched_total", "counter", "Requests given to lanes",
              p.dispatched);
    add_value(s, "xinfer_pool_incidents_total", "counter", "Requests that ended their host",
              p.incidents);
    add_value(s, "xinfer_pool_watchdog_total", "counter", "Hosts ended for hanging",
              p.watchdog_kills);
    add_value(s, "xinfer_pool_poison_total", "counter", "Requests refused as poison",
              p.poison_refused);
    add_value(s, "xinfer_pool_batches_total", "counter", "Runs: requests of a batch share one",
              p.batches);
    add_value(s, "xinfer_pool_refused_early_total", "counter",
              "Requests refused because they could not make their deadline", p.refused_early);
    add_value(s, "xinfer_sessions", "gauge", "Sessions", xi_sessions_count(service->sessions));
    add_process(s, xi_monitor_latest(service->monitor));
}

static const struct counter of_tenant[] = {
    {"xinfer_tenant_requests_total", "Requests that came", "counter",
     offsetof(struct xi_tenant, requests)},
    {"xinfer_tenant_refused_quota_total", "Requests over a quota", "counter",
     offsetof(struct xi_tenant, refused_quota)},
    {"xinfer_tenant_device_seconds_total", "Time on cores and lanes of accelerators", "counter",
     offsetof(struct xi_tenant, device_ns)},
};

static void add_tenants(struct xi_str *s, struct xi_tenants *tenants)
{
    const struct xi_tenant *t;
    uint32_t i;

    for (size_t c = 0; c < sizeof of_tenant / sizeof *of_tenant; c++) {
        describe(s, of_tenant[c].name, of_tenant[c].type, of_tenant[c].help);
        for (i = 0; (t = xi_tenants_at(tenants, i)) != NULL; i++) {
            uint64_t v = *(const uint64_t *)((const char *)t + of_tenant[c].offset);

            xi_str_printf(s, "%s{", of_tenant[c].name);
            add_label(s, "tenant", t->name);
            if (of_tenant[c].offset == offsetof(struct xi_tenant, device_ns))
                xi_str_printf(s, "} %.6f\n", (double)v / 1e9);
            else
                xi_str_printf(s, "} %" PRIu64 "\n", v);
        }
    }
}

/* By labels; of equal ones the one that serves comes first. */
static int by_labels(const void *a, const void *b)
{
    const struct xi_session *x = *(struct xi_session *const *)a;
    const struct xi_session *y = *(struct xi_session *const *)b;
    int order = strcmp(x->tenant, y->tenant);

    if (order == 0)
        order = strcmp(x->name, y->name);
    if (order == 0)
        order = strcmp(x->version, y->version);
    return order != 0 ? order : (y->state == XI_SESSION_READY) - (x->state == XI_SESSION_READY);
}

/* During a swap two sessions may bear the same labels; the same series twice is no metrics. */
static void drop_twins(struct xi_document *d)
{
    uint32_t n = 0;

    qsort(d->sessions, d->n_sessions, sizeof *d->sessions, by_labels);
    for (uint32_t i = 0; i < d->n_sessions; i++) {
        struct xi_session *x = d->sessions[i], *last = n > 0 ? d->sessions[n - 1] : NULL;
        if (last != NULL && strcmp(last->tenant, x->tenant) == 0 &&
            strcmp(last->name, x->name) == 0 && strcmp(last->version, x->version) == 0)
            xi_session_put(x);
        else
            d->sessions[n++] = x;
    }
    d->n_sessions = n;
}

struct metrics {
    struct xi_document doc; /* first */
    struct xi_exchange *x;
};

static int write_part(struct xi_document *d)
{
    struct xi_service *service = d->server->service;
    const struct xi_session *s;

    if (d->part == 0) {
        drop_twins(d);
        add_server(&d->text, d->server);
        add_pool(&d->text, service);
        add_tenants(&d->text, service->tenants);
        describe(&d->text, "xinfer_loop_lag_seconds", "histogram",
                 "How late the loop's timer runs");
        add_hist(&d->text, "xinfer_loop_lag_seconds", NULL, &service->loop_lag);
        begin_family(&d->text, d->part++);
        return 1;
    }
    s = xi_document_session(d);
    if (s != NULL) {
        add_to_family(&d->text, d->part - 1, s);
        return 1;
    }
    if (d->part == FAMILIES)
        return 0;
    begin_family(&d->text, d->part++);
    d->at = 0;
    return 1;
}

static void on_written(struct xi_document *d)
{
    struct metrics *m = (struct metrics *)(void *)d;

    xi_document_answer(d, m->x, "text/plain; version=0.0.4; charset=utf-8");
    free(m);
}

void xi_system_metrics(struct xi_exchange *x)
{
    struct metrics *m = calloc(1, sizeof *m);
    struct xi_err err;

    if (m == NULL) {
        (void)xi_fail(&err, XI_ENOMEM, "no memory for metrics");
        xi_answer_problem(x, &err);
        return;
    }
    m->x = x;
    m->doc.write = write_part;
    m->doc.done = on_written;
    xi_document_start(x->server, &m->doc, NULL);
}
