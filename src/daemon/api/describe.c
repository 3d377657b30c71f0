#include "daemon/api/describe.h"

#include <inttypes.h>
#include <string.h>

#include "daemon/api/problem.h"

void xi_describe_value(struct xi_str *s, double v)
{
    if (v < 0 && v == XI_UNKNOWN)
        xi_str_puts(s, "null");
    else
        xi_str_number(s, v, 12);
}

static void add_key(struct xi_str *s, const char *key)
{
    xi_str_puts(s, ",\"");
    xi_str_puts(s, key);
    xi_str_puts(s, "\":");
}

void xi_describe_number(struct xi_str *s, const char *key, double v)
{
    add_key(s, key);
    xi_describe_value(s, v);
}

void xi_describe_text(struct xi_str *s, const char *key, const char *value)
{
    add_key(s, key);
    xi_str_json(s, value);
}

void xi_describe_error(struct xi_str *s, const struct xi_err *err)
{
    if (err->rc == XI_OK)
        xi_str_puts(s, "null");
    else
        xi_problem_json(s, err, 0);
}

void xi_describe_hist(struct xi_str *s, const struct xi_hist *h)
{
    xi_str_printf(s,
                  "{\"count\":%" PRIu64 ",\"p50_us\":%" PRIu64 ",\"p90_us\":%" PRIu64
                  ",\"p99_us\":%" PRIu64 ",\"max_us\":%" PRIu64 "}",
                  h->count, xi_hist_quantile_us(h, 0.5), xi_hist_quantile_us(h, 0.9),
                  xi_hist_quantile_us(h, 0.99), h->max_us);
}

/* What a list shows of the work done; the whole of it is in the session's own page. */
static void session_rates(struct xi_str *s, const struct xi_session *x)
{
    const struct xi_session_stats *t = &x->stats;

    xi_describe_number(s, "fps", xi_rate_done_per_s(&x->rate));
    xi_describe_number(s, "device_ms_per_s", xi_rate_busy_ms_per_s(&x->rate));
    xi_str_printf(s,
                  ",\"requests\":%" PRIu64 ",\"errors\":%" PRIu64 ",\"latency_us\":", t->requests,
                  t->client_errors + t->server_errors);
    if (t->total.count == 0)
        xi_str_puts(s, "null");
    else
        xi_str_printf(s, "{\"p50\":%" PRIu64 ",\"p99\":%" PRIu64 "}",
                      xi_hist_quantile_us(&t->total, 0.5), xi_hist_quantile_us(&t->total, 0.99));
}

/* The swap that it takes part in, and whom it replaced. */
static void session_swap(struct xi_str *s, const struct xi_session *x)
{
    const struct xi_swap_view *v = x->swap;

    if (x->replaced[0] != '\0') {
        xi_str_printf(s, ",\"replaced\":{\"id\":\"%s\"", x->replaced);
        xi_describe_text(s, "version", x->replaced_version);
        xi_str_printf(s, "},\"strategy\":\"%s\"", x->replaced_how);
    }
    if (x->successor[0] != '\0')
        xi_str_printf(s, ",\"successor\":\"%s\"", x->successor);
    if (v == NULL)
        return;
    xi_str_printf(s,
                  ",\"swap\":{\"role\":\"%s\",\"phase\":\"%s\",\"strategy\":\"%s\",\"old\":\"%s\","
                  "\"new\":\"%s\",\"canary\":%.3f,\"old_requests\":%" PRIu64
                  ",\"old_errors\":%" PRIu64 ",\"new_requests\":%" PRIu64 ",\"new_errors\":%" PRIu64
                  ",\"skipped\":%" PRIu64 "}",
                  strcmp(v->new_id, x->id) == 0 ? "new" : "old", v->phase, v->strategy, v->old_id,
                  v->new_id, v->share / (double)XI_SHARE_ALL, v->old_requests, v->old_errors,
                  v->new_requests, v->new_errors, v->skipped);
}

static const char *priority_name(enum xi_priority p)
{
    static const char *const names[] = {"realtime", "normal", "batch"};

    return (unsigned)p < sizeof names / sizeof *names ? names[p] : "unknown";
}

uint64_t xi_describe_memory(const struct xi_session *x)
{
    return x->state == XI_SESSION_IDLE || x->state == XI_SESSION_FAILED ? 0 : x->memory_bytes;
}

static void session_fields(struct xi_str *s, const struct xi_session *x)
{
    xi_str_printf(s, "\"id\":\"%s\"", x->id);
    xi_describe_text(s, "name", x->name);
    xi_describe_text(s, "version", x->version);
    xi_describe_text(s, "tenant", x->tenant);
    xi_str_printf(s, ",\"state\":\"%s\",\"digest\":\"%s\"", xi_session_state_name(x->state),
                  x->digest);
    xi_describe_text(s, "variant", x->variant);
    xi_describe_text(s, "engine", x->engine);
    xi_describe_text(s, "device", x->device);
    xi_describe_text(s, "isolation", xi_isolation_name(x->isolation));
    xi_describe_text(s, "isolation_reason", x->isolation_reason);
    xi_str_printf(s,
                  ",\"memory\":%" PRIu64 ",\"peak_memory\":%" PRIu64
                  ",\"instances\":%u,\"queued\":%u,\"running\":%u,\"restarts\":%u,\"crashes\":%u,"
                  "\"load_us\":%" PRIu64 ",\"warm_us\":%" PRIu64 ",\"loaded_at_ms\":%" PRIu64
                  ",\"flow\":%s,\"takes_image\":%s,\"draws\":%s",
                  xi_describe_memory(x), x->peak_bytes, x->lane_count, x->queued, x->running,
                  x->restarts, x->crashes, x->load_us, x->warm_us, x->loaded_at_ms,
                  x->has_flow ? "true" : "false", x->takes_image ? "true" : "false",
                  x->draws ? "true" : "false");
    xi_str_printf(s, ",\"priority\":\"%s\",\"max_batch\":%u,\"reserved\":%" PRIu64,
                  priority_name(x->options.priority), x->max_batch, x->reserved_bytes);
    xi_str_printf(s, ",\"pinned\":%s,\"lazy\":%s,\"keep_alive_s\":%u,\"leases\":%u",
                  x->options.pinned ? "true" : "false", x->options.lazy ? "true" : "false",
                  x->options.keep_alive_s, x->leases);
    session_swap(s, x);
    if (x->host != NULL) {
        xi_str_printf(s, ",\"host_pid\":%d", xi_host_pid(x->host));
        xi_describe_text(s, "sandbox", xi_host_sandbox(x->host));
    } else {
        xi_str_puts(s, ",\"host_pid\":null");
    }
    if (x->state == XI_SESSION_LOADING || x->state == XI_SESSION_WARMING)
        xi_describe_text(s, "phase", x->phase);
    session_rates(s, x);
    xi_str_puts(s, ",\"why\":");
    xi_describe_error(s, &x->why);
}

void xi_describe_session(struct xi_str *s, const struct xi_session *session)
{
    xi_str_puts(s, "{");
    session_fields(s, session);
    xi_str_puts(s, "}");
}

static void add_ports(struct xi_str *s, const char *key, const struct xi_port_spec *ports,
                      uint32_t n)
{
    xi_str_printf(s, ",\"%s\":[", key);
    for (uint32_t i = 0; i < n; i++) {
        xi_str_puts(s, i ? ",{\"name\":" : "{\"name\":");
        xi_str_json(s, ports[i].name);
        xi_str_printf(s, ",\"datatype\":\"%s\",\"shape\":", xi_dtype_name(ports[i].dtype));
        if (ports[i].rank < 0)
            xi_str_puts(s, "null");
        else
            xi_str_puts(s, "[");
        for (int d = 0; d < ports[i].rank; d++)
            xi_str_printf(s, d ? ",%" PRId64 : "%" PRId64, ports[i].dims[d]);
        xi_str_puts(s, ports[i].rank < 0 ? "}" : "]}");
    }
    xi_str_puts(s, "]");
}

void xi_describe_session_fully(struct xi_str *s, const struct xi_session *session)
{
    const struct xi_session_stats *t = &session->stats;

    xi_str_puts(s, "{");
    session_fields(s, session);
    add_ports(s, "inputs", session->signature.inputs, session->signature.n_inputs);
    add_ports(s, "outputs", session->signature.outputs, session->signature.n_outputs);
    xi_str_printf(s,
                  ",\"ok\":%" PRIu64 ",\"client_errors\":%" PRIu64 ",\"server_errors\":%" PRIu64
                  ",\"cancelled\":%" PRIu64 ",\"expired\":%" PRIu64 ",\"refused\":%" PRIu64
                  ",\"retried\":%" PRIu64 ",\"input_bytes\":%" PRIu64 ",\"output_bytes\":%" PRIu64
                  ",\"copied_bytes\":%" PRIu64 ",\"latency\":{\"total\":",
                  t->ok, t->client_errors, t->server_errors, t->cancelled, t->expired, t->refused,
                  t->retried, t->input_bytes, t->output_bytes, t->copied_bytes);
    xi_describe_hist(s, &t->total);
    xi_str_puts(s, ",\"queue\":");
    xi_describe_hist(s, &t->queue);
    xi_str_puts(s, ",\"device\":");
    xi_describe_hist(s, &t->device);
    xi_str_puts(s, "}}");
}

static void add_variants(struct xi_str *s, const struct xi_package_record *r)
{
    xi_str_puts(s, ",\"variants\":[");
    for (uint32_t i = 0; i < r->n_variants; i++) {
        const struct xi_record_variant *v = &r->variants[i];
        xi_str_puts(s, i ? ",{\"id\":" : "{\"id\":");
        xi_str_json(s, v->id);
        xi_describe_text(s, "engine", v->engine);
        xi_describe_text(s, "format", v->format);
        xi_describe_text(s, "device", v->device);
        xi_describe_text(s, "precision", v->precision);
        xi_str_printf(s, ",\"memory\":%" PRIu64 "}", v->memory_bytes);
    }
    xi_str_puts(s, "]");
}

void xi_describe_package(struct xi_str *s, const char *digest, const struct xi_package_record *r,
                         uint64_t bytes, int64_t installed_at_ms)
{
    xi_str_printf(s, "{\"digest\":\"%s\"", digest);
    xi_describe_text(s, "name", r->name);
    xi_describe_text(s, "version", r->version);
    xi_describe_text(s, "description", r->description);
    xi_describe_text(s, "license", r->license);
    xi_describe_text(s, "input", r->input);
    xi_str_puts(s, ",\"outputs\":[");
    for (int i = 0; i < XI_RECORD_OUTPUTS_MAX && r->outputs[i][0]; i++) {
        xi_str_puts(s, i ? "," : "");
        xi_str_json(s, r->outputs[i]);
    }
    xi_str_printf(s,
                  "],\"signed\":%s,\"flow\":%s,\"archive_bytes\":%" PRIu64 ",\"bytes\":%" PRIu64
                  ",\"memory_required\":%" PRIu64,
                  r->flags & XI_RECORD_SIGNED ? "true" : "false",
                  r->flags & XI_RECORD_FLOW ? "true" : "false", r->archive_bytes, bytes,
                  r->memory_required);
    if (installed_at_ms > 0)
        xi_str_printf(s, ",\"installed_at_ms\":%" PRId64, installed_at_ms);
    add_variants(s, r);
    xi_str_puts(s, "}");
}

void xi_describe_machine(struct xi_str *s, const struct xi_resources *r)
{
    xi_str_puts(s, "\"cpu\":{\"model\":");
    xi_str_json(s, r->cpu_model);
    xi_str_printf(s, ",\"cores\":%u", r->cores);
    xi_describe_number(s, "load", r->cpu_load);
    xi_describe_number(s, "load_1m", r->load_1m);
    xi_describe_number(s, "mhz", r->cpu_mhz);
    xi_str_puts(s, "},\"memory\":{\"total\":");
    xi_describe_value(s, r->memory_total_bytes);
    xi_describe_number(s, "available", r->memory_available_bytes);
    xi_str_puts(s, "},\"thermal\":{\"max_celsius\":");
    xi_describe_value(s, r->max_celsius);
    xi_str_puts(s, ",\"zones\":[");
    for (uint32_t i = 0; i < r->n_thermal && i < XI_THERMAL_MAX; i++) {
        xi_str_puts(s, i ? ",{\"name\":" : "{\"name\":");
        xi_str_json(s, r->thermal[i].name);
        xi_describe_number(s, "celsius", r->thermal[i].celsius);
        xi_str_puts(s, "}");
    }
    xi_str_puts(s, "]}");
}

static void add_bytes(struct xi_str *s, const char *key, uint64_t bytes, int known)
{
    if (known)
        xi_str_printf(s, ",\"%s\":%" PRIu64, key, bytes);
    else
        xi_str_printf(s, ",\"%s\":null", key);
}

void xi_describe_plan(struct xi_str *s, const struct xi_plan *p)
{
    xi_str_puts(s, "{\"dry_run\":true");
    xi_describe_text(s, "version", p->version);
    xi_describe_text(s, "variant", p->variant);
    xi_describe_text(s, "engine", p->engine);
    xi_describe_text(s, "device", p->device);
    xi_describe_text(s, "isolation", xi_isolation_name(p->isolation));
    xi_describe_text(s, "isolation_reason", p->isolation_reason);
    xi_describe_text(s, "skipped", p->skipped);
    add_bytes(s, "memory_needed", p->needed_bytes, p->needed_bytes > 0);
    xi_str_printf(s, ",\"memory_measured\":%s,\"memory_figure\":\"%s\"",
                  p->figure == XI_MEMORY_MEASURED ? "true" : "false",
                  xi_memory_source_name(p->figure));
    add_bytes(s, "memory_free", p->free_bytes, p->limit_bytes > 0);
    add_bytes(s, "memory_limit", p->limit_bytes, p->limit_bytes > 0);
    xi_describe_text(s, "evicts", p->evicts);
    xi_str_printf(s, ",\"admitted\":%s,\"why\":", p->verdict.rc == XI_OK ? "true" : "false");
    xi_describe_error(s, &p->verdict);
    xi_str_puts(s, "}");
}
