#include "daemon/api/grpc.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "wire/oip_proto.h"

int xi_grpc_spoken(const struct xi_exchange *x)
{
    const char *type = xi_http_header(&x->stream, "content-type");
    size_t n = sizeof XI_GRPC_TYPE - 1;

    return type != NULL && strncmp(type, XI_GRPC_TYPE, n) == 0 &&
           (type[n] == '\0' || type[n] == '+' || type[n] == ';') && xi_answer_parts_ok(x);
}

/* ---- the end ---- */

static void add_error(struct xi_str *s, const struct xi_exchange *x, const struct xi_err *err,
                      unsigned retry_after_s)
{
    char text[sizeof err->msg + sizeof err->hint + 4];

    (void)snprintf(text, sizeof text, "%s%s%s", err->msg, err->hint[0] ? "; " : "", err->hint);
    xi_grpc_trailers(s, xi_rc_grpc(err->rc), text);
    xi_str_printf(s, "xinfer-code: %s\r\n", xi_rc_code(err->rc));
    if (retry_after_s != 0)
        xi_str_printf(s, "grpc-retry-pushback-ms: %u\r\n", retry_after_s * 1000);
    if (x->request != 0)
        xi_str_printf(s, "xinfer-request: %llu\r\n", (unsigned long long)x->request);
}

static void answer_error(struct xi_exchange *x, const struct xi_err *err, unsigned retry_after_s)
{
    struct xi_str trailers;

    xi_str_init(&trailers, 4096);
    add_error(&trailers, x, err, retry_after_s);
    if (!x->begun)
        xi_str_puts(&x->extra, "grpc-accept-encoding: identity\r\n");
    xi_answer_end_parts(x, XI_GRPC_TYPE, xi_str_text(&trailers));
    xi_str_fini(&trailers);
}

void xi_grpc_problem(struct xi_exchange *x, const struct xi_err *err)
{
    if (x->grpc != NULL && !x->grpc->over && x->grpc->x == x)
        xi_grpc_fail(x->grpc, err);
    else
        answer_error(x, err, x->retry_after_s);
}

static void leave_list(struct xi_grpc *g)
{
    struct xi_http_server *server = g->x->server;

    if (g->prev != NULL)
        g->prev->next = g->next;
    else
        server->rpcs = g->next;
    if (g->next != NULL)
        g->next->prev = g->prev;
}

static void close_rpc(struct xi_grpc *g)
{
    g->over = 1;
    leave_list(g);
}

void xi_grpc_end(struct xi_grpc *g)
{
    close_rpc(g);
    xi_answer_end_parts(g->x, XI_GRPC_TYPE, "grpc-status: 0\r\n");
}

void xi_grpc_fail(struct xi_grpc *g, const struct xi_err *err)
{
    struct xi_exchange *x = g->x;

    if (g->over || g->why.rc != XI_OK)
        return;
    g->why = *err;
    xi_body_forget(x); /* nobody looks at what still comes */
    x->stream.paused = 1;
    x->held++; /* a call that ends may end it */
    if (g->method->cancel != NULL)
        g->method->cancel(g);
    x->held--;
    if (xi_exchange_settle(x) == 0)
        xi_grpc_settle(g);
}

/* The client has gone, so nobody hears of it. */
static void gone(struct xi_exchange *x)
{
    struct xi_err err;

    x->gone = NULL;
    (void)xi_fail(&err, XI_ECANCELLED, "the client went away");
    xi_grpc_fail(x->grpc, &err);
}

void xi_grpc_settle(struct xi_grpc *g)
{
    struct xi_exchange *x = g->x;
    int done = g->n_calls == 0;

    if (g->over)
        return;
    if (g->why.rc != XI_OK) {
        if (done) {
            close_rpc(g);
            answer_error(x, &g->why, g->retry_after_s);
        }
        return;
    }
    if (done && g->half_closed && g->method->flags & XI_GRPC_STREAMS) {
        xi_grpc_end(g);
        return;
    }
    if (g->full && g->n_calls < XI_GRPC_CALLS_MAX && xi_answer_waiting(x) < XI_GRPC_UNREAD / 2) {
        g->full = 0;
        if (x->waiting)
            return;
        x->stream.paused = 0;
        xi_exchange_resume(x);
    }
}

/* ---- messages that go out ---- */

struct sent {
    struct xi_send send;
    uv_buf_t piece;
    uint8_t bytes[];
};

static void sent_released(struct xi_send *send)
{
    struct xi_grpc *g = send->x->grpc;

    free(send); /* its first member */
    xi_grpc_settle(g);
}

void xi_grpc_send(struct xi_grpc *g)
{
    struct xi_exchange *x = g->x;
    struct xi_err err = {0};
    size_t n = x->body.len;
    enum xi_rc rc = xi_str_check(&x->body, &err, "answer");
    struct sent *sent = rc == XI_OK ? malloc(sizeof *sent + XI_GRPC_FRAME + n) : NULL;

    if (sent == NULL) {
        if (rc == XI_OK)
            (void)xi_fail(&err, XI_ENOMEM, "no memory for an answer");
        xi_grpc_fail(g, &err);
        return;
    }
    xi_grpc_frame_write(sent->bytes, n);
    if (n > 0)
        memcpy(sent->bytes + XI_GRPC_FRAME, x->body.data, n);
    xi_str_clear(&x->body);
    sent->piece = uv_buf_init((char *)sent->bytes, (unsigned)(XI_GRPC_FRAME + n));
    sent->send = (struct xi_send){.pieces = &sent->piece, .n_pieces = 1, .released = sent_released};
    if (!x->begun)
        xi_answer_begin_parts(x, 200, XI_GRPC_TYPE);
    xi_answer_send(x, &sent->send);
}

void xi_grpc_answer(struct xi_grpc *g)
{
    xi_grpc_send(g);
    if (g->why.rc == XI_OK && !g->over)
        xi_grpc_end(g);
}

/* ---- messages that come in ---- */

static void want(struct xi_grpc *g, int step, void *sink, uint64_t room)
{
    struct xi_http_stream *s = &g->x->stream;

    g->step = step;
    s->sink = sink;
    s->sink_room = room;
    s->sink_len = 0;
}

static void next_frame(struct xi_grpc *g)
{
    want(g, XI_GRPC_IN_FRAME, g->frame, sizeof g->frame);
}

static uint8_t *message_at(const struct xi_grpc *g)
{
    struct xi_exchange *x = g->x;

    if (g->method->flags & XI_GRPC_SLOT)
        return xi_body_data(x);
    return g->bytes <= XI_GRPC_HEAD ? x->grpc->head : (uint8_t *)x->text.data;
}

static void message_complete(struct xi_grpc *g)
{
    struct xi_exchange *x = g->x;

    g->messages++;
    if (!(g->method->flags & XI_GRPC_STREAMS)) {
        next_frame(g); /* which must not come; the client's end must */
        return;
    }
    g->method->take(g, message_at(g), (size_t)g->bytes);
    if (g->over || g->why.rc != XI_OK)
        return;
    next_frame(g);
    x->unhurried = 1;
    if (!x->stream.paused &&
        (g->n_calls >= XI_GRPC_CALLS_MAX || xi_answer_waiting(x) >= XI_GRPC_UNREAD))
        g->full = x->stream.paused = 1;
}

/* The head of the message moves to where the whole message is to lie. */
static void take_rest(struct xi_grpc *g, uint8_t *place)
{
    size_t head = g->bytes < XI_GRPC_HEAD ? (size_t)g->bytes : XI_GRPC_HEAD;

    memcpy(place, g->head, head);
    if (g->bytes > head)
        want(g, XI_GRPC_IN_REST, place + head, g->bytes - head);
    else
        message_complete(g);
}

static enum xi_rc ask_slot(struct xi_grpc *g, struct xi_err *err)
{
    struct xi_exchange *x = g->x;

    return xi_shm_take(x->server->service->shm, x->who.tenant, x->wait_bytes, &x->slot, err);
}

static void retry_slot(struct xi_grpc *g, uint64_t now_ns)
{
    struct xi_err err;
    enum xi_rc rc = ask_slot(g, &err);

    if (rc == XI_EAGAIN && now_ns < g->slot_until_ns)
        return;
    g->slot_until_ns = 0;
    if (rc == XI_OK)
        take_rest(g, xi_body_data(g->x));
    else
        xi_grpc_fail(g, &err);
}

static int retry(struct xi_exchange *x, uint64_t now_ns)
{
    struct xi_grpc *g = x->grpc;

    if (g->slot_until_ns != 0)
        retry_slot(g, now_ns);
    if (g->awaiting != NULL)
        g->method->retry(g, now_ns);
    if (x->waiting && (g->slot_until_ns != 0 || g->awaiting != NULL))
        return 0;
    if (x->waiting) { /* else it has failed */
        xi_body_wait_over(x);
        x->stream.paused = g->full;
    }
    return 1;
}

void xi_grpc_wait(struct xi_grpc *g)
{
    if (!g->x->waiting)
        xi_body_wait(g->x, retry, 0); /* whatever waits knows for how long */
}

/* Memory for the message, so that its first tensor begins where an engine can bind it, and the
 * others have room to move to where it can bind them. */
static void take_slot(struct xi_grpc *g)
{
    struct xi_exchange *x = g->x;
    size_t head = g->bytes < XI_GRPC_HEAD ? (size_t)g->bytes : XI_GRPC_HEAD;
    uint64_t raw;
    size_t odd = xi_oip_proto_raw_at(g->head, head, &raw) % XI_OIP_ALIGN;
    struct xi_err err;

    x->pad = odd ? XI_OIP_ALIGN - odd : 0;
    x->wait_bytes = x->pad + g->bytes + (uint64_t)XI_TENSORS_MAX * XI_GRPC_ALIGN;
    enum xi_rc rc = ask_slot(g, &err);
    if (rc == XI_OK)
        take_rest(g, xi_body_data(x));
    else if (rc == XI_EAGAIN && xi_body_waiting(x->server) < XI_QUEUE_MAX) {
        g->slot_until_ns = xi_now_ns() + x->server->config.slot_wait_ms * 1000000ull;
        xi_grpc_wait(g);
    } else
        xi_grpc_fail(g, &err);
}

static void take_text(struct xi_grpc *g)
{
    struct xi_exchange *x = g->x;
    struct xi_err err;

    if (g->bytes <= XI_GRPC_HEAD) {
        message_complete(g);
        return;
    }
    xi_str_clear(&x->text);
    if (xi_str_reserve(&x->text, (size_t)g->bytes) == NULL) {
        (void)xi_fail(&err, XI_ENOMEM, "no memory for a message of %zu bytes", (size_t)g->bytes);
        xi_grpc_fail(g, &err);
        return;
    }
    take_rest(g, (uint8_t *)x->text.data);
}

static void take_frame(struct xi_grpc *g)
{
    struct xi_exchange *x = g->x;
    int slot = (g->method->flags & XI_GRPC_SLOT) != 0, compressed = 0;
    uint64_t limit = slot ? x->server->config.message_max : XI_GRPC_TEXT_MAX;
    struct xi_err err = {0};
    enum xi_rc rc = xi_grpc_frame_read(g->frame, limit, &compressed, &g->bytes, &err);

    x->unhurried = 0;
    if (rc == XI_OK && compressed)
        rc = xi_fail(&err, XI_EUNSUPPORTED, "messages are taken as they are, not compressed");
    if (rc == XI_OK && g->messages > 0 && !(g->method->flags & XI_GRPC_STREAMS))
        rc = xi_fail(&err, XI_EPROTO, "%s takes one message", g->method->route.path);
    if (rc != XI_OK)
        xi_grpc_fail(g, &err);
    else if (g->bytes > 0)
        want(g, XI_GRPC_IN_HEAD, g->head, g->bytes < XI_GRPC_HEAD ? g->bytes : XI_GRPC_HEAD);
    else if (slot)
        take_slot(g);
    else
        message_complete(g);
}

void xi_grpc_full(struct xi_exchange *x)
{
    struct xi_grpc *g = x->grpc;

    if (g->over || g->why.rc != XI_OK)
        x->stream.paused = 1;
    else if (g->step == XI_GRPC_IN_FRAME)
        take_frame(g);
    else if (g->step == XI_GRPC_IN_REST)
        message_complete(g);
    else if (g->method->flags & XI_GRPC_SLOT)
        take_slot(g);
    else
        take_text(g);
}

void xi_grpc_run(struct xi_exchange *x)
{
    struct xi_grpc *g = x->grpc;
    int streams = (g->method->flags & XI_GRPC_STREAMS) != 0;
    struct xi_err err;

    if (g->over || g->why.rc != XI_OK)
        return;
    g->half_closed = 1;
    if (g->step != XI_GRPC_IN_FRAME || x->stream.sink_len != 0)
        (void)xi_fail(&err, XI_EPROTO, "the request ends within a message");
    else if (!streams && g->messages == 0)
        (void)xi_fail(&err, XI_EPROTO, "%s takes one message, none came", g->method->route.path);
    else if (!streams)
        err.rc = XI_OK;
    else {
        xi_grpc_settle(g);
        return;
    }
    if (err.rc != XI_OK)
        xi_grpc_fail(g, &err);
    else
        g->method->take(g, message_at(g), (size_t)g->bytes);
}

/* ---- the beginning ---- */

/* What the head asks for. */
static enum xi_rc read_head(struct xi_grpc *g, struct xi_err *err)
{
    const struct xi_http_stream *s = &g->x->stream;
    const char *encoding = xi_http_header(s, "grpc-encoding");
    const char *timeout = xi_http_header(s, "grpc-timeout");
    uint64_t ns = 0;

    if (encoding != NULL && strcmp(encoding, "identity") != 0)
        return xi_fail(err, XI_EUNSUPPORTED, "grpc-encoding \"%.20s\": only identity is taken",
                       encoding);
    if (timeout == NULL)
        return XI_OK;
    enum xi_rc rc = xi_grpc_timeout(timeout, &ns, err);
    g->deadline_ns = ns > UINT64_MAX - g->x->born_ns ? 0 : g->x->born_ns + ns;
    return rc;
}

static void enter_list(struct xi_grpc *g)
{
    struct xi_http_server *server = g->x->server;

    g->prev = NULL;
    g->next = server->rpcs;
    if (g->next != NULL)
        g->next->prev = g;
    server->rpcs = g;
}

void xi_grpc_begin(struct xi_exchange *x)
{
    struct xi_grpc *g = x->grpc;
    struct xi_err err;

    if (!xi_grpc_spoken(x)) {
        (void)xi_fail(&err, XI_EMEDIA, "gRPC needs HTTP/2");
        xi_answer_problem(x, &err);
        return;
    }
    if (g == NULL)
        g = x->grpc = malloc(sizeof *g);
    if (g == NULL) {
        (void)xi_fail(&err, XI_ENOMEM, "no memory for a call");
        answer_error(x, &err, 0);
        return;
    }
    memset(g, 0, offsetof(struct xi_grpc, frame));
    g->x = x;
    g->method = (const struct xi_grpc_method *)(const void *)x->route; /* its first member */
    enter_list(g);
    x->pending = 1;
    x->gone = gone;
    x->stream.body_limit = UINT64_MAX; /* each message has one */
    x->stream.eager = 1;
    if (read_head(g, &err) != XI_OK) {
        xi_grpc_fail(g, &err);
        return;
    }
    next_frame(g);
    xi_body_welcome(x);
}

void xi_grpc_free(struct xi_grpc *g)
{
    free(g);
}

void xi_grpc_tick(struct xi_http_server *server)
{
    struct xi_grpc *g, *next;
    struct xi_err err;

    for (g = server->rpcs; g != NULL; g = next) {
        next = g->next;
        if (server->draining && g->n_calls == 0 &&
            (g->method->flags & XI_GRPC_STREAMS || g->method->tick != NULL)) {
            (void)xi_fail(&err, XI_EDRAIN, "the server is shutting down");
            xi_grpc_fail(g, &err);
        } else if (g->method->tick != NULL && g->messages > 0 && g->half_closed) {
            g->method->tick(g);
        }
    }
}
