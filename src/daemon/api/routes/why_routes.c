/* GET /v1/why/{id}: the journal about a session or a request, and how the session does now. */
#include <inttypes.h>

#include "daemon/api/connection.h"
#include "daemon/api/describe.h"
#include "daemon/api/documents.h"

enum { ENTRIES_MAX = 100 };

static void add_entry(struct xi_str *s, const struct xi_why_entry *e)
{
    xi_str_printf(s, "{\"at_ms\":%" PRIu64 ",\"kind\":\"%s\",\"code\":", e->at_ms,
                  xi_why_kind_name(e->kind));
    if (e->rc == XI_OK)
        xi_str_puts(s, "null");
    else
        xi_str_printf(s, "\"%s\"", xi_rc_code(e->rc));
    if (e->request == 0)
        xi_str_puts(s, ",\"request\":null");
    else
        xi_str_printf(s, ",\"request\":%" PRIu64, e->request);
    xi_describe_text(s, "session", e->session);
    xi_describe_text(s, "name", e->name);
    xi_describe_text(s, "text", e->text);
    xi_describe_text(s, "hint", e->hint);
    xi_str_puts(s, "}");
}

static void add_session(struct xi_str *s, const struct xi_session *now)
{
    xi_str_printf(s, "{\"id\":\"%s\"", now->id);
    xi_describe_text(s, "name", now->name);
    xi_str_printf(s,
                  ",\"state\":\"%s\",\"restarts\":%u,\"crashes\":%u,\"backoff_ms\":%u,"
                  "\"reserved_bytes\":%" PRIu64,
                  xi_session_state_name(now->state), now->restarts, now->crashes, now->backoff_ms,
                  now->reserved_bytes);
    xi_describe_text(s, "skipped", now->skipped);
    xi_describe_text(s, "isolation", xi_isolation_name(now->isolation));
    xi_describe_text(s, "isolation_reason", now->isolation_reason);
    xi_str_puts(s, ",\"why\":");
    xi_describe_error(s, &now->why);
    xi_str_puts(s, "}");
}

static int only_digits(const char *text)
{
    while (*text >= '0' && *text <= '9')
        text++;
    return *text == '\0';
}

/* Of a request's entry: the session that it was for. */
static const char *session_of(const struct xi_exchange *x, const struct xi_why_entry *newest)
{
    return newest != NULL && newest->session[0] != '\0' && only_digits(x->param) ? newest->session
                                                                                 : x->param;
}

void xi_system_why(struct xi_exchange *x)
{
    struct xi_service *service = x->server->service;
    const char *sees = xi_sees(x);
    const struct xi_why_entry *newest = xi_why_find(service->why, sees, x->param, NULL), *e;
    const char *about = session_of(x, newest);
    struct xi_session *now = NULL;
    struct xi_err err = {0};
    unsigned n = 0;
    int any = x->who.role == XI_ROLE_ADMIN && xi_uuid_valid(about);

    if (xi_sessions_find(service->sessions, any ? NULL : x->who.tenant, about, &now, &err) !=
            XI_OK &&
        newest == NULL) {
        if (only_digits(x->param)) {
            (void)xi_fail(&err, XI_ENOENT, "nothing is noted about request %s", x->param);
            (void)xi_hint(&err,
                          "only what was refused, slow, late or ended a host is noted, of many "
                          "at once one a second; xinfer why MODEL shows those");
        }
        xi_answer_problem(x, &err);
        return;
    }
    xi_str_clear(&x->body);
    xi_str_puts(&x->body, "{\"about\":");
    xi_str_json(&x->body, x->param);
    xi_str_puts(&x->body, ",\"entries\":[");
    for (e = newest; e != NULL && n < ENTRIES_MAX; n++) {
        xi_str_puts(&x->body, n > 0 ? "," : "");
        add_entry(&x->body, e);
        e = xi_why_find(service->why, sees, x->param, e);
    }
    xi_str_puts(&x->body, "],\"session\":");
    if (now != NULL)
        add_session(&x->body, now);
    else
        xi_str_puts(&x->body, "null");
    xi_str_puts(&x->body, "}");
    xi_answer_body(x, 200, "application/json");
}
