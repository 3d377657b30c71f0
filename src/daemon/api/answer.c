#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "daemon/api/carrier.h"
#include "daemon/api/connection.h"
#include "daemon/api/pack.h"
#include "daemon/api/problem.h"

int xi_accepts(const struct xi_exchange *x, const char *type)
{
    const char *value = xi_http_header(&x->stream, "accept");
    char one[64];

    while (value != NULL && *value) {
        xi_http_media_type(value, one, sizeof one);
        if (strcmp(one, type) == 0)
            return 1;
        value += strcspn(value, ",");
        value += *value == ',';
    }
    return 0;
}

/* A page of an allowed origin may read the answer. */
static void add_cors(struct xi_exchange *x)
{
    const char *origin = xi_http_header(&x->stream, "origin");
    const struct xi_gate *gate = &x->server->gate;

    for (uint32_t i = 0; origin != NULL && i < gate->n_allowed_origins; i++)
        if (strcmp(gate->allowed_origins[i], origin) == 0)
            xi_str_printf(&x->extra, "Access-Control-Allow-Origin: %s\r\nVary: Origin\r\n", origin);
}

void xi_answer_common(struct xi_exchange *x)
{
    xi_str_puts(&x->extra, "X-Content-Type-Options: nosniff\r\nCache-Control: no-store\r\n");
    add_cors(x);
    if (x->request != 0) {
        xi_str_puts(&x->extra, "Xinfer-Request: ");
        xi_str_uint(&x->extra, x->request, 1);
        xi_str_puts(&x->extra, "\r\n");
    }
}

/* Marks the handler's part as done. 0: the client has gone, x may be no more. */
static int take_answer(struct xi_exchange *x, int status)
{
    XI_ASSERT(!x->answered);
    x->answered = 1;
    x->pending = 0;
    x->gone = NULL;
    x->status = status;
    x->stream.paused = 0;
    if (x->carrier == NULL) {
        (void)xi_exchange_settle(x);
        return 0;
    }
    return 1;
}

void xi_answer_add(struct xi_exchange *x, const void *bytes, size_t n)
{
    if (x->n_pieces == 0)
        x->n_pieces = 1; /* the first one is the carrier's */
    XI_ASSERT(x->n_pieces < XI_ANSWER_PIECES);
    if (n == 0)
        return;
    x->pieces[x->n_pieces].base = (char *)(uintptr_t)bytes;
    x->pieces[x->n_pieces++].len = n;
}

void xi_answer_pieces(struct xi_exchange *x, int status, const char *type)
{
    uint64_t length = 0;

    if (!take_answer(x, status))
        return;
    if (x->n_pieces == 0)
        x->n_pieces = 1;
    for (unsigned i = 1; i < x->n_pieces; i++)
        length += x->pieces[i].len;
    xi_answer_common(x);
    if (x->stream.method != NULL && strcmp(x->stream.method, "HEAD") == 0)
        x->n_pieces = 1;
    enum xi_coding coding = xi_pack_wanted(x, type, length);
    if (coding != XI_CODING_NONE)
        xi_pack_answer(x, coding, type, length);
    else
        x->carrier->answer(x, type, length);
}

int xi_answer_parts_ok(const struct xi_exchange *x)
{
    return x->carrier != NULL && x->carrier->send != NULL;
}

void xi_answer_begin_parts(struct xi_exchange *x, int status, const char *type)
{
    XI_ASSERT(!x->answered && !x->begun);
    x->begun = x->pending = 1;
    x->status = status;
    if (x->carrier != NULL)
        x->carrier->begin(x, type);
}

void xi_answer_send(struct xi_exchange *x, struct xi_send *send)
{
    XI_ASSERT(x->begun && !x->answered);
    send->x = x;
    send->next = NULL;
    send->at = send->flying = 0;
    send->offset = send->left = 0;
    for (unsigned i = 0; i < send->n_pieces; i++)
        send->left += send->pieces[i].len;
    if (x->carrier != NULL)
        x->carrier->send(x, send);
    else
        send->released(send);
}

size_t xi_answer_waiting(const struct xi_exchange *x)
{
    return x->carrier != NULL ? x->carrier->waiting(x) : 0;
}

void xi_answer_end_parts(struct xi_exchange *x, const char *type, const char *trailers)
{
    int begun = x->begun;

    if (!take_answer(x, begun ? x->status : 200))
        return;
    if (!begun)
        xi_str_puts(&x->extra, trailers ? trailers : "");
    if (begun)
        x->carrier->end(x, trailers);
    else
        x->carrier->answer(x, type, XI_HTTP_NO_LENGTH);
}

void xi_answer_body(struct xi_exchange *x, int status, const char *type)
{
    struct xi_err err;

    if (xi_str_check(&x->body, &err, "answer") != XI_OK) {
        xi_answer_problem(x, &err);
        return;
    }
    x->n_pieces = 0;
    if (type != NULL)
        xi_answer_add(x, x->body.data, x->body.len);
    xi_answer_pieces(x, status, type);
}

/* The id of a route has ended; who took its place? */
static void add_successor(struct xi_exchange *x)
{
    const char *id = xi_sessions_successor(x->server->service->sessions, x->param);

    if (id == NULL || x->body.failed || x->body.len == 0)
        return;
    x->body.len--; /* the closing brace */
    xi_str_printf(&x->body, ",\"successor\":\"%s\"}", id);
}

void xi_answer_problem(struct xi_exchange *x, const struct xi_err *err)
{
    if (x->streaming) { /* the status is long out: the problem is the last event */
        xi_str_clear(&x->body);
        xi_problem_json(&x->body, err, x->request);
        xi_events_send(x, "problem", xi_str_text(&x->body));
        xi_events_end(x);
        return;
    }
    if (x->problem != NULL) {
        x->problem(x, err);
        return;
    }
    xi_str_fini(&x->body);
    xi_problem_json(&x->body, err, x->request);
    if (err->rc == XI_EGONE && x->param[0] != '\0')
        add_successor(x);
    xi_problem_headers(&x->extra, err->rc, x->retry_after_s);
    x->n_pieces = 0;
    xi_answer_add(x, xi_str_text(&x->body), x->body.len);
    xi_answer_pieces(x, xi_rc_http(err->rc), "application/problem+json");
}

int xi_answer_failed(struct xi_exchange *x, const struct xi_err *err, const void *got,
                     const char *what)
{
    struct xi_err none;

    if (err != NULL && err->rc != XI_OK) {
        xi_answer_problem(x, err);
        return 1;
    }
    if (got != NULL)
        return 0;
    (void)xi_fail(&none, XI_EINTERNAL, "%s ended without a word", what);
    xi_answer_problem(x, &none);
    return 1;
}
