/* /v1/leases: keeping a session in memory for a while. */
#include <inttypes.h>
#include <string.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/name.h"
#include "daemon/api/connection.h"
#include "daemon/api/load_body.h"
#include "daemon/core/leases.h"

#define TTL_S 60

static void answer_lease(struct xi_exchange *x, const struct xi_lease *lease)
{
    const struct xi_session *s = lease->session;
    uint64_t now = xi_now_ms(), left = lease->expires_ms > now ? lease->expires_ms - now : 0;

    xi_str_clear(&x->body);
    xi_str_printf(&x->body,
                  "{\"lease\":\"%s\",\"expires_s\":%" PRIu64 ",\"id\":\"%s\",\"name\":", lease->id,
                  (left + 999) / 1000, s->id);
    xi_str_json(&x->body, s->name);
    xi_str_printf(&x->body, ",\"state\":\"%s\",\"leases\":%u}", xi_session_state_name(s->state),
                  s->leases);
    xi_answer_body(x, 200, "application/json");
}

static enum xi_rc read_ttl(const json_t *obj, int64_t *ret, struct xi_err *err)
{
    *ret = TTL_S;
    return xi_json_int(obj, "", "ttl_s", 0, 1, XI_LEASE_TTL_MAX_S, ret, err);
}

void xi_lease_begin(struct xi_exchange *x)
{
    static const char *const known[] = {"model", "ttl_s", "tenant", NULL};
    struct xi_sessions *m = x->server->service->sessions;
    char model[XI_NAME_MAX + 1] = "", tenant[XI_NAME_MAX + 1];
    const struct xi_lease *lease = NULL;
    struct xi_session *session = NULL;
    struct xi_err err = {0};
    int64_t ttl_s = 0;
    json_t *obj = xi_body_object(x);

    if (obj == NULL)
        return;
    enum xi_rc rc = xi_json_known_keys(obj, "", known, &err);
    if (rc == XI_OK)
        rc = xi_body_text_of(obj, "", "model", XI_JSON_REQUIRED, model, sizeof model, &err);
    if (rc == XI_OK)
        rc = xi_name_check(model, "model", &err);
    if (rc == XI_OK)
        rc = xi_body_tenant(x, obj, tenant, &err);
    if (rc == XI_OK)
        rc = read_ttl(obj, &ttl_s, &err);
    json_decref(obj);
    int any = x->who.role == XI_ROLE_ADMIN && xi_uuid_valid(model);
    if (rc == XI_OK)
        rc = xi_sessions_find(m, any ? NULL : tenant, model, &session, &err);
    if (rc == XI_OK)
        rc = xi_sessions_lease(m, session, (uint32_t)ttl_s, &lease, &err);
    if (rc != XI_OK)
        xi_answer_problem(x, &err);
    else
        answer_lease(x, lease);
}

static const char *tenant_of(const struct xi_exchange *x)
{
    return x->who.role == XI_ROLE_ADMIN ? NULL : x->who.tenant;
}

void xi_lease_renew(struct xi_exchange *x)
{
    static const char *const known[] = {"ttl_s", NULL};
    const struct xi_lease *lease = NULL;
    struct xi_err err = {0};
    int64_t ttl_s = 0;
    json_t *obj = xi_body_object(x);

    if (obj == NULL)
        return;
    enum xi_rc rc = xi_json_known_keys(obj, "", known, &err);
    if (rc == XI_OK)
        rc = read_ttl(obj, &ttl_s, &err);
    json_decref(obj);
    if (rc == XI_OK)
        rc = xi_sessions_lease_renew(x->server->service->sessions, tenant_of(x), x->param,
                                     (uint32_t)ttl_s, &lease, &err);
    if (rc != XI_OK)
        xi_answer_problem(x, &err);
    else
        answer_lease(x, lease);
}

void xi_lease_end(struct xi_exchange *x)
{
    const struct xi_lease *lease = NULL;
    struct xi_err err = {0};

    if (xi_sessions_lease_renew(x->server->service->sessions, tenant_of(x), x->param, 0, &lease,
                                &err) != XI_OK) {
        xi_answer_problem(x, &err);
        return;
    }
    xi_str_clear(&x->body);
    xi_str_printf(&x->body, "{\"ended\":\"%s\"}", x->param);
    xi_answer_body(x, 200, "application/json");
}
