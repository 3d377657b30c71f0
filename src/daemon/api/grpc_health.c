/* gRPC's health checking protocol: the server itself ("", or a service of it), or a model. */
#include <string.h>

#include "base/name.h"
#include "daemon/api/grpc.h"
#include "wire/protobuf.h"

enum { UNKNOWN = 0, SERVING = 1, NOT_SERVING = 2, SERVICE_UNKNOWN = 3 };

static int status_of(const struct xi_grpc *g)
{
    struct xi_service *service = g->x->server->service;
    struct xi_session *session;

    if (g->name[0] == '\0' || strcmp(g->name, "inference.GRPCInferenceService") == 0)
        return xi_service_ready(service, NULL) ? SERVING : NOT_SERVING;
    if (g->x->who.role < XI_ROLE_INFER || !xi_name_valid(g->name) ||
        xi_sessions_find(service->sessions, g->x->who.tenant, g->name, &session, NULL) != XI_OK)
        return SERVICE_UNKNOWN;
    /* One that sleeps is woken by its next request. */
    return session->state == XI_SESSION_READY || session->state == XI_SESSION_IDLE ? SERVING
                                                                                   : NOT_SERVING;
}

static enum xi_rc read_request(struct xi_grpc *g, const uint8_t *message, size_t bytes,
                               struct xi_err *err)
{
    struct xi_pb pb = xi_pb_make(message, bytes);
    enum xi_rc rc = XI_OK;
    struct xi_pb_field f;
    int more = 0;

    g->name[0] = '\0';
    while (rc == XI_OK && (more = xi_pb_next(&pb, &f)) > 0)
        if (f.number == 1)
            rc = xi_pb_text(&f, "service", g->name, sizeof g->name, err);
    return rc == XI_OK && more < 0 ? xi_pb_broken("HealthCheckRequest", err) : rc;
}

void xi_grpc_health_check(struct xi_grpc *g, const uint8_t *message, size_t bytes)
{
    struct xi_err err = {0};
    int status = UNKNOWN;

    if (read_request(g, message, bytes, &err) == XI_OK) {
        status = status_of(g);
        if (status == SERVICE_UNKNOWN)
            (void)xi_fail(&err, XI_ENOENT, "no service or model \"%.60s\"", g->name);
    }
    if (err.rc != XI_OK) {
        xi_grpc_fail(g, &err);
        return;
    }
    xi_pb_uint(&g->x->body, 1, (unsigned)status);
    xi_grpc_answer(g);
}

void xi_grpc_health_tick(struct xi_grpc *g)
{
    int status = status_of(g);

    /* What the client has not read yet is not added to. */
    if (status == g->watched || xi_answer_waiting(g->x) > 0)
        return;
    g->watched = status;
    xi_pb_uint(&g->x->body, 1, (unsigned)status);
    xi_grpc_send(g);
}

void xi_grpc_health_watch(struct xi_grpc *g, const uint8_t *message, size_t bytes)
{
    struct xi_err err = {0};

    if (read_request(g, message, bytes, &err) != XI_OK) {
        xi_grpc_fail(g, &err);
        return;
    }
    g->watched = -1;
    xi_grpc_health_tick(g);
}
