/* The protocol's model repository: packages of the store and the sessions that serve them. */
#include <string.h>

#include "base/name.h"
#include "daemon/api/grpc_service.h"
#include "daemon/api/load_body.h"
#include "wire/protobuf.h"

enum { PARAMETER_MAX = 128 };

/* ---- the index ---- */

static void put_model(struct xi_str *s, const char *name, const char *version, const char *state,
                      const char *reason)
{
    size_t model = xi_pb_begin(s, 1);

    xi_pb_text_field(s, 1, name);
    xi_pb_text_field(s, 2, version);
    xi_pb_text_field(s, 3, state);
    xi_pb_text_field(s, 4, reason);
    xi_pb_end(s, model);
}

static const char *state_of(const struct xi_session *s)
{
    switch (s->state) {
    case XI_SESSION_READY:
        return "READY";
    case XI_SESSION_LOADING:
    case XI_SESSION_WARMING:
        return "LOADING";
    case XI_SESSION_DRAINING:
        return "UNLOADING";
    default:
        return "UNAVAILABLE";
    }
}

static int is_served(const struct xi_grpc *g, const char *digest)
{
    struct xi_sessions *all = g->x->server->service->sessions;
    struct xi_session *s = NULL;

    while ((s = xi_sessions_each(all, s)) != NULL)
        if (s->state != XI_SESSION_GONE && strcmp(s->tenant, g->x->who.tenant) == 0 &&
            strcmp(s->digest, digest) == 0)
            return 1;
    return 0;
}

static void on_listed(void *ctx, const struct xi_package_row *rows, size_t n,
                      const struct xi_err *err)
{
    struct xi_grpc *g = ctx;

    g->n_calls--;
    if (g->why.rc != XI_OK) {
        xi_grpc_settle(g);
        return;
    }
    if (err != NULL && err->rc != XI_OK) {
        xi_grpc_fail(g, err);
        return;
    }
    for (size_t i = 0; i < n; i++)
        if (!is_served(g, rows[i].digest))
            put_model(&g->x->body, rows[i].record->name, rows[i].record->version, "UNAVAILABLE",
                      "not loaded");
    xi_grpc_answer(g);
}

void xi_grpc_repository_index(struct xi_grpc *g, const uint8_t *message, size_t bytes)
{
    struct xi_service *service = g->x->server->service;
    struct xi_pb pb = xi_pb_make(message, bytes);
    struct xi_session *s = NULL;
    struct xi_pb_field f;
    struct xi_err err;
    int more, ready = 0;

    while ((more = xi_pb_next(&pb, &f)) > 0)
        if (f.number == 2)
            ready = f.value != 0;
    if (more < 0 && xi_pb_broken("RepositoryIndexRequest", &err) != XI_OK) {
        xi_grpc_fail(g, &err);
        return;
    }
    while ((s = xi_sessions_each(service->sessions, s)) != NULL) {
        int idle = s->state == XI_SESSION_IDLE;
        if (s->state == XI_SESSION_GONE || strcmp(s->tenant, g->x->who.tenant) != 0 ||
            (ready && s->state != XI_SESSION_READY))
            continue;
        put_model(&g->x->body, s->name, s->version, state_of(s),
                  idle                            ? "its next request loads it"
                  : s->state == XI_SESSION_FAILED ? s->why.msg
                                                  : "");
    }
    if (ready) {
        xi_grpc_answer(g);
        return;
    }
    g->n_calls++; /* it is answered by on_listed */
    xi_store_list(service->store, on_listed, g);
}

/* ---- load and unload ---- */

/* What a load would be changed by, we do not offer. */
static enum xi_rc read_parameter(const struct xi_pb_field *entry, struct xi_err *err)
{
    struct xi_pb in = xi_pb_make(entry->data, (size_t)entry->bytes);
    enum xi_rc rc = xi_pb_want(entry, XI_PB_BYTES, "request", "parameters", err);
    char key[PARAMETER_MAX] = "";
    struct xi_pb_field f;
    int more = 0;

    while (rc == XI_OK && (more = xi_pb_next(&in, &f)) > 0)
        if (f.number == 1)
            rc = xi_pb_text(&f, "parameters", key, sizeof key, err);
    if (rc == XI_OK && more < 0)
        rc = xi_pb_broken("parameters", err);
    if (rc != XI_OK || strcmp(key, "unload_dependents") == 0)
        return rc;
    (void)xi_fail(err, XI_EUNSUPPORTED, "a model is loaded as its package says, without \"%.60s\"",
                  key);
    return xi_hint(err, "POST /v1/control/load takes options");
}

/* Of both requests. 0: the RPC has failed. */
static int read_request(struct xi_grpc *g, const uint8_t *message, size_t bytes,
                        char name[XI_NAME_MAX + 80])
{
    struct xi_pb pb = xi_pb_make(message, bytes);
    enum xi_rc rc = XI_OK;
    struct xi_pb_field f;
    struct xi_err err;
    int more = 0;

    name[0] = '\0';
    while (rc == XI_OK && (more = xi_pb_next(&pb, &f)) > 0) {
        if (f.number == 1 && f.bytes != 0)
            rc = xi_fail(&err, XI_EUNSUPPORTED, "there is one repository, which has no name");
        else if (f.number == 2)
            rc = xi_pb_text(&f, "model_name", name, XI_NAME_MAX + 80, &err);
        else if (f.number == 3)
            rc = read_parameter(&f, &err);
    }
    if (rc == XI_OK && more < 0)
        rc = xi_pb_broken("request", &err);
    if (rc != XI_OK)
        xi_grpc_fail(g, &err);
    return rc == XI_OK;
}

static void on_ended(void *ctx, const struct xi_session *view, const struct xi_err *err)
{
    struct xi_grpc *g = ctx;

    (void)view;
    g->n_calls--;
    if (g->why.rc != XI_OK) /* the client has gone; what it asked for is done */
        xi_grpc_settle(g);
    else if (err != NULL && err->rc != XI_OK)
        xi_grpc_fail(g, err);
    else
        xi_grpc_answer(g);
}

void xi_grpc_repository_load(struct xi_grpc *g, const uint8_t *message, size_t bytes)
{
    struct xi_exchange *x = g->x;
    char name[XI_NAME_MAX + 80];
    struct xi_load_body body = {0};
    struct xi_err err;

    if (!read_request(g, message, bytes, name))
        return;
    json_t *obj = json_pack("{s:s}", "package", name); /* with the defaults of /v1's load */
    enum xi_rc rc = obj == NULL ? xi_fail(&err, XI_ENOMEM, "no memory for a load")
                                : xi_load_body_read(x, obj, &body, &err);
    json_decref(obj);
    if (rc != XI_OK) {
        xi_grpc_fail(g, &err);
        return;
    }
    g->n_calls++; /* it is answered by on_ended */
    xi_service_load(x->server->service, &body.request, on_ended, g);
}

void xi_grpc_repository_unload(struct xi_grpc *g, const uint8_t *message, size_t bytes)
{
    struct xi_exchange *x = g->x;
    char name[XI_NAME_MAX + 80];
    struct xi_err err;

    if (!read_request(g, message, bytes, name))
        return;
    if (xi_name_check(name, "model_name", &err) != XI_OK) {
        xi_grpc_fail(g, &err);
        return;
    }
    int any = x->who.role == XI_ROLE_ADMIN && xi_uuid_valid(name);
    g->n_calls++;
    xi_service_unload(x->server->service, any ? NULL : x->who.tenant, name, on_ended, g);
}
