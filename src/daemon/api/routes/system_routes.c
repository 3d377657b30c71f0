/* What the daemon says of itself: packages, sessions, telemetry, capabilities, health. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "daemon/api/connection.h"
#include "daemon/api/describe.h"

static void on_listed(void *ctx, const struct xi_package_row *rows, size_t n,
                      const struct xi_err *err)
{
    struct xi_exchange *x = ctx;

    if (xi_answer_failed(x, err, x, "the list"))
        return;
    xi_str_clear(&x->body);
    xi_str_puts(&x->body, "{\"packages\":[");
    for (size_t i = 0; i < n; i++) {
        xi_str_puts(&x->body, i ? "," : "");
        xi_describe_package(&x->body, rows[i].digest, rows[i].record, rows[i].bytes,
                            rows[i].installed_at_ms);
    }
    xi_str_puts(&x->body, "]}");
    xi_answer_body(x, 200, "application/json");
}

void xi_system_packages(struct xi_exchange *x)
{
    xi_store_list(x->server->service->store, on_listed, x);
}

static void on_found(void *ctx, const char *digest, struct xi_package_record *record,
                     const struct xi_err *err)
{
    struct xi_exchange *x = ctx;

    if (!xi_answer_failed(x, err, record, "the search")) {
        xi_str_clear(&x->body);
        xi_describe_package(&x->body, digest, record, record->archive_bytes, 0);
        xi_answer_body(x, 200, "application/json");
    }
    if (record != NULL)
        xi_record_fini(record);
    free(record);
}

void xi_system_package(struct xi_exchange *x)
{
    xi_store_find(x->server->service->store, x->param, on_found, x);
}

static int visible(const struct xi_exchange *x, const struct xi_session *s)
{
    const char *tenant = xi_sees(x);

    return tenant == NULL || strcmp(tenant, s->tenant) == 0;
}

struct models {
    struct xi_document doc; /* first */
    struct xi_exchange *x;
};

static int write_model(struct xi_document *d)
{
    const struct xi_session *s = xi_document_session(d);

    if (s == NULL) {
        xi_str_puts(&d->text, d->part ? "]}" : "{\"models\":[]}");
        return 0;
    }
    xi_str_puts(&d->text, d->part++ ? "," : "{\"models\":[");
    xi_describe_session(&d->text, s);
    return 1;
}

static void on_models(struct xi_document *d)
{
    struct models *m = (struct models *)(void *)d;

    xi_document_answer(d, m->x, "application/json");
    free(m);
}

void xi_system_models(struct xi_exchange *x)
{
    struct models *m = calloc(1, sizeof *m);
    struct xi_err err;

    if (m == NULL) {
        (void)xi_fail(&err, XI_ENOMEM, "no memory for the list");
        xi_answer_problem(x, &err);
        return;
    }
    m->x = x;
    m->doc.write = write_model;
    m->doc.done = on_models;
    xi_document_start(x->server, &m->doc, xi_sees(x));
}

/* The session of the path, or NULL after a problem was answered. */
static struct xi_session *find(struct xi_exchange *x)
{
    int any = x->who.role == XI_ROLE_ADMIN && xi_uuid_valid(x->param);
    struct xi_session *s = NULL;
    struct xi_err err = {0};

    if (xi_sessions_find(x->server->service->sessions, any ? NULL : x->who.tenant, x->param, &s,
                         &err) == XI_OK)
        return s;
    xi_answer_problem(x, &err);
    return NULL;
}

void xi_system_model(struct xi_exchange *x)
{
    struct xi_session *s = find(x);

    if (s == NULL)
        return;
    xi_str_clear(&x->body);
    xi_describe_session_fully(&x->body, s);
    xi_answer_body(x, 200, "application/json");
}

static void add_devices(struct xi_str *s, const struct xi_engine_probe *p)
{
    static const char *const kinds[] = {"cpu", "gpu", "npu", "fpga"};

    xi_str_puts(s, ",\"devices\":[");
    for (uint32_t i = 0; i < p->n_devices && i < XI_ENGINE_MAX_DEVICES; i++) {
        const struct xi_engine_device *d = &p->devices[i];
        xi_str_puts(s, i ? ",{\"id\":" : "{\"id\":");
        xi_str_json(s, d->id);
        xi_describe_text(s, "name", d->name);
        xi_str_printf(s,
                      ",\"kind\":\"%s\",\"exclusive\":%s,\"memory_total_bytes\":%" PRIu64
                      ",\"memory_free_bytes\":%" PRIu64 ",\"context_bytes\":%" PRIu64 "}",
                      d->kind < 4 ? kinds[d->kind] : "other", d->exclusive ? "true" : "false",
                      d->memory_total_bytes, d->memory_free_bytes, d->context_bytes);
    }
    xi_str_puts(s, "],\"formats\":[");
    for (uint32_t i = 0; i < p->n_formats && i < XI_ENGINE_MAX_FORMATS; i++) {
        xi_str_puts(s, i ? "," : "");
        xi_str_json(s, p->formats[i]);
    }
    xi_str_puts(s, "]");
}

static void add_engines(struct xi_str *s, const struct xi_service *service)
{
    xi_str_puts(s, "\"engines\":[");
    for (uint32_t i = 0; i < service->n_engines; i++) {
        const struct xi_engine_record *e = &service->engines[i];
        xi_str_puts(s, i ? ",{\"name\":" : "{\"name\":");
        xi_str_json(s, e->name);
        xi_str_printf(s, ",\"present\":%s,\"abi\":\"%u.%u\",\"probe_us\":%" PRIu64 ",\"version\":",
                      e->present ? "true" : "false", e->abi_major, e->abi_minor, e->probe_us);
        xi_str_json(s, e->probe.version);
        xi_str_puts(s, ",\"missing\":");
        if (e->present)
            xi_str_puts(s, "null");
        else
            xi_str_json(s, e->probe.missing[0] ? e->probe.missing : e->why.msg);
        add_devices(s, &e->probe);
        xi_str_puts(s, "}");
    }
    xi_str_puts(s, "]");
}

static void add_sensors(struct xi_str *s, const struct xi_resources *r)
{
    static const char *const states[] = {"absent", "present", "gone"};

    xi_str_puts(s, ",\"sensors\":[");
    for (uint32_t i = 0; i < r->n_sources; i++) {
        xi_str_printf(s, "%s{\"name\":\"%s\",\"state\":\"%s\",\"missing\":", i ? "," : "",
                      r->sources[i].name, states[r->sources[i].state]);
        if (r->sources[i].state == XI_SENSOR_PRESENT)
            xi_str_puts(s, "null");
        else
            xi_str_json(s, r->sources[i].needs);
        xi_str_puts(s, "}");
    }
    xi_str_puts(s, "]");
}

/* What holds a model's process to its memory. */
static void add_limits(struct xi_str *s, const struct xi_service *service)
{
    const struct xi_cgroups *g = &service->cgroups;

    xi_str_printf(s, ",\"limits\":{\"memory\":\"%s\",\"cpu\":\"%s\",\"missing\":",
                  g->dir >= 0 && g->memory ? "cgroup" : "rlimit",
                  g->dir >= 0 && g->cpu ? "cgroup" : "nice");
    xi_str_json(s, g->why);
    xi_str_puts(s, "}");
}

void xi_system_capabilities(struct xi_exchange *x)
{
    struct xi_service *service = x->server->service;
    const struct xi_resources *r = xi_monitor_latest(service->monitor);
    struct xi_str *out = &x->body;

    xi_str_clear(out);
    xi_str_puts(out, "{\"node\":");
    xi_str_json(out, service->node);
    xi_str_puts(out, ",");
    xi_describe_machine(out, r);
    xi_str_puts(out, ",");
    add_engines(out, service);
    add_sensors(out, r);
    add_limits(out, service);
    xi_str_printf(out, ",\"sandbox\":{\"enabled\":%s,\"hosts\":[",
                  service->config.sandbox ? "true" : "false");
    int first = 1;
    for (struct xi_session *s = xi_sessions_each(service->sessions, NULL); s;
         s = xi_sessions_each(service->sessions, s)) {
        if (s->host == NULL || !visible(x, s))
            continue;
        xi_str_puts(out, first ? "{\"session\":" : ",{\"session\":");
        xi_str_json(out, s->name);
        xi_describe_text(out, "sandbox", xi_host_sandbox(s->host));
        xi_str_puts(out, "}");
        first = 0;
    }
    xi_str_puts(out, "]}}");
    xi_answer_body(x, 200, "application/json");
}

void xi_system_live(struct xi_exchange *x)
{
    xi_str_clear(&x->body);
    xi_str_puts(&x->body, "{\"live\":true}");
    xi_answer_body(x, 200, "application/json");
}

void xi_system_ready(struct xi_exchange *x)
{
    struct xi_err why = {0};

    if (!x->server->draining && xi_service_ready(x->server->service, &why)) {
        xi_str_clear(&x->body);
        xi_str_puts(&x->body, "{\"ready\":true}");
        xi_answer_body(x, 200, "application/json");
        return;
    }
    if (x->server->draining)
        (void)xi_fail(&why, XI_EDRAIN, "the daemon is shutting down");
    if (xi_rc_http(why.rc) != 503) /* supervisors look for 503, whatever the reason */
        why.rc = XI_EAGAIN;
    xi_answer_problem(x, &why);
}

void xi_system_openapi(struct xi_exchange *x)
{
    xi_str_clear(&x->body);
    xi_routes_openapi(&x->body);
    xi_answer_body(x, 200, "application/json");
}
