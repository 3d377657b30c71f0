/* /v1/control/configure: the settings that may change while the daemon runs. */
#include <inttypes.h>
#include <string.h>

#include "base/json.h"
#include "base/log.h"
#include "daemon/api/connection.h"
#include "daemon/api/describe.h"

static void add_tenants(struct xi_str *s, struct xi_tenants *all)
{
    const struct xi_tenant *t;

    xi_str_puts(s, "\"tenants\":{");
    for (uint32_t i = 0; all != NULL && (t = xi_tenants_at(all, i)) != NULL; i++) {
        const struct xi_tenant_limits *l = &t->limits;

        xi_str_puts(s, i ? "," : "");
        xi_str_json(s, t->name);
        xi_str_printf(s, ":{\"weight\":%u,\"memory\":%" PRIu64 ",\"rate\":", l->weight,
                      l->memory_bytes);
        xi_str_number(s, l->rate_per_s, 9);
        xi_str_printf(s, ",\"queue\":%u}", l->queue_limit);
    }
    xi_str_puts(s, "}");
}

static void add_models(struct xi_str *s, const struct xi_exchange *x)
{
    struct xi_sessions *all = x->server->service->sessions;
    const char *comma = "";

    xi_str_puts(s, ",\"models\":{");
    for (struct xi_session *m = xi_sessions_each(all, NULL); m; m = xi_sessions_each(all, m)) {
        if (strcmp(m->tenant, x->who.tenant) != 0 || m->state == XI_SESSION_GONE ||
            m->successor[0] != '\0')
            continue;
        xi_str_puts(s, comma);
        xi_str_json(s, m->name);
        xi_str_printf(s, ":{\"max_batch\":%u,\"max_delay_ms\":",
                      m->options.max_batch ? m->options.max_batch
                      : m->max_batch       ? m->max_batch
                                           : 1);
        xi_str_number(s, m->options.max_delay_us / 1000.0, 9);
        xi_str_puts(s, "}");
        comma = ",";
    }
    xi_str_puts(s, "}");
}

void xi_control_settings(struct xi_exchange *x)
{
    const struct xi_service *service = x->server->service;
    struct xi_str *s = &x->body;

    xi_str_clear(s);
    xi_str_printf(s, "{\"log_level\":\"%s\",\"memory\":%" PRIu64 ",",
                  xi_log_level_name(xi_log_get_level()), service->config.memory_bytes);
    add_tenants(s, service->tenants);
    add_models(s, x);
    xi_str_puts(s, "}");
    xi_answer_body(x, 200, "application/json");
}

static void on_configured(void *ctx, const struct xi_err *err)
{
    struct xi_exchange *x = ctx;

    if (!xi_answer_failed(x, err, x, "the change"))
        xi_control_settings(x);
}

void xi_control_configure(struct xi_exchange *x)
{
    json_t *patch = xi_body_object(x);

    if (patch == NULL)
        return;
    xi_service_configure(x->server->service, x->who.tenant, patch, on_configured, x);
    json_decref(patch);
}
