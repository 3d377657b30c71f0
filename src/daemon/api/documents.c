#include "daemon/api/documents.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "daemon/api/connection.h"

void xi_documents_init(struct xi_documents *all, uv_loop_t *loop, void *ctx)
{
    (void)uv_idle_init(loop, &all->idle);
    all->idle.data = ctx;
    all->tail = &all->first;
}

static void hold_sessions(struct xi_document *d, const char *tenant)
{
    struct xi_sessions *m = d->server->service->sessions;
    uint32_t room = 0;

    for (struct xi_session *s = xi_sessions_each(m, NULL); s; s = xi_sessions_each(m, s))
        room++;
    d->sessions = calloc(room ? room : 1, sizeof *d->sessions);
    d->text.failed = d->sessions == NULL;
    for (struct xi_session *s = xi_sessions_each(m, NULL); s && d->sessions;
         s = xi_sessions_each(m, s)) {
        if (tenant != NULL && strcmp(tenant, s->tenant) != 0)
            continue;
        xi_session_get(s);
        d->sessions[d->n_sessions++] = s;
    }
}

static void let_sessions_go(struct xi_document *d)
{
    for (uint32_t i = 0; i < d->n_sessions; i++)
        xi_session_put(d->sessions[i]);
    free(d->sessions);
    d->sessions = NULL;
    d->n_sessions = 0;
}

/* 1: it is done and may be no more. */
static int slice(struct xi_document *d)
{
    uint64_t began = xi_now_ns();
    int more = 1;

    while (more && !d->text.failed) {
        if (xi_now_ns() - began >= XI_DOCUMENT_SLICE_NS)
            return 0;
        more = d->write(d);
    }
    let_sessions_go(d);
    d->done(d);
    return 1;
}

/* The first one gets a slice and then stands at the end. */
static void on_idle(uv_idle_t *idle)
{
    struct xi_http_server *server = idle->data;
    struct xi_documents *all = &server->documents;
    struct xi_document *d = all->first;

    if (d != NULL) {
        all->first = d->next;
        if (all->first == NULL)
            all->tail = &all->first;
        d->next = NULL;
        if (!slice(d)) {
            *all->tail = d;
            all->tail = &d->next;
        }
    }
    if (all->first == NULL)
        (void)uv_idle_stop(idle);
}

static void prepare(struct xi_http_server *server, struct xi_document *d, const char *tenant)
{
    d->server = server;
    d->next = NULL;
    d->part = 0;
    d->at = 0;
    d->n_sessions = 0;
    d->began_ms = xi_now_ms();
    xi_str_init(&d->text, XI_GIB);
    hold_sessions(d, tenant);
}

static void stand_in_line(struct xi_documents *all, struct xi_document *d)
{
    *all->tail = d;
    all->tail = &d->next;
    (void)uv_idle_start(&all->idle, on_idle);
}

void xi_document_start(struct xi_http_server *server, struct xi_document *d, const char *tenant)
{
    prepare(server, d, tenant);
    if (!slice(d))
        stand_in_line(&server->documents, d);
}

void xi_document_queue(struct xi_http_server *server, struct xi_document *d, const char *tenant)
{
    prepare(server, d, tenant);
    stand_in_line(&server->documents, d);
}

void xi_document_answer(struct xi_document *d, struct xi_exchange *x, const char *type)
{
    struct xi_err err;
    enum xi_rc rc = xi_str_check(&d->text, &err, "answer");

    if (rc == XI_OK) {
        xi_str_fini(&x->body);
        x->body = d->text; /* the exchange's from here on */
        xi_str_init(&d->text, XI_GIB);
    }
    xi_document_fini(d);
    if (rc == XI_OK)
        xi_answer_body(x, 200, type);
    else
        xi_answer_problem(x, &err);
}

void xi_document_fini(struct xi_document *d)
{
    let_sessions_go(d);
    xi_str_fini(&d->text);
}

void xi_documents_close(struct xi_documents *all, uv_close_cb closed)
{
    while (all->first != NULL) {
        struct xi_document *d = all->first;

        all->first = d->next;
        d->text.failed = 1;
        (void)slice(d);
    }
    all->tail = &all->first;
    uv_close((uv_handle_t *)&all->idle, closed);
}

struct xi_session *xi_document_session(struct xi_document *d)
{
    while (d->at < d->n_sessions) {
        struct xi_session *s = d->sessions[d->at++];
        if (s->state != XI_SESSION_GONE)
            return s;
    }
    return NULL;
}

const char *xi_sees(const struct xi_exchange *x)
{
    if (x->who.role == XI_ROLE_ADMIN && xi_http_header(&x->stream, "xinfer-tenant") == NULL)
        return NULL;
    return x->who.tenant;
}
