#include "daemon/api/connection.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/platform/supervisor.h"
#include "daemon/api/carrier.h"
#include "daemon/api/problem.h"

enum { LINGER_MS = 1000, LINGER_BYTES = 4 * 1024 * 1024, TURN_NS = 200 * 1000 };

static void on_head(void *ctx, struct xi_http_stream *s)
{
    struct xi_conn *c = ctx;

    (void)s;
    c->head_since_ms = 0;
    c->read_window_ms = xi_now_ms();
    c->read_bytes = 0;
    xi_exchange_head(c->x);
}

static void on_full(void *ctx, struct xi_http_stream *s)
{
    (void)s;
    xi_exchange_full(((struct xi_conn *)ctx)->x);
}

static void on_end(void *ctx, struct xi_http_stream *s)
{
    (void)s;
    xi_exchange_end(((struct xi_conn *)ctx)->x);
}

static void on_error(void *ctx, struct xi_http_stream *s, const struct xi_err *err)
{
    struct xi_conn *c = ctx;

    (void)s;
    c->broken = c->close_after = 1;
    c->head_since_ms = 0;
    if (c->x->answered)
        return;
    xi_body_forget(c->x);
    xi_answer_problem(c->x, err);
}

static const struct xi_http_events events = {on_head, on_full, on_end, on_error};

static void on_closed(uv_handle_t *h)
{
    struct xi_conn *c = h->data;
    struct xi_http_server *server = c->server;

    xi_str_fini(&c->stash);
    xi_h2_free(c);
    free(c);
    xi_server_conn_gone(server);
}

/* A client that sends many requests at once lets the others in between. */
static void yield(struct xi_conn *c)
{
    struct xi_http_server *server = c->server;

    c->yielded = 1;
    c->turn_next = NULL;
    if (server->turns == NULL)
        server->turns_tail = &server->turns;
    *server->turns_tail = c;
    server->turns_tail = &c->turn_next;
    server->n_turns++;
    xi_server_turn(server);
}

static void unlink_turn(struct xi_conn *c)
{
    struct xi_conn **at = &c->server->turns;

    c->yielded = 0;
    c->server->n_turns--;
    while (*at != c)
        at = &(*at)->turn_next;
    *at = c->turn_next;
    if (c->turn_next == NULL)
        c->server->turns_tail = at;
}

void xi_conn_turns(struct xi_http_server *server)
{
    for (uint32_t n = server->n_turns; n > 0 && server->turns != NULL; n--) {
        struct xi_conn *c = server->turns; /* whoever yields anew stands at the end */
        unlink_turn(c);
        xi_conn_resume(c);
    }
}

void xi_conn_close(struct xi_conn *c)
{
    struct xi_exchange *x = c->x;

    if (c->closing)
        return;
    c->closing = 1;
    if (c->yielded)
        unlink_turn(c);
    if (c->prev)
        c->prev->next = c->next;
    else
        c->server->conns = c->next;
    if (c->next)
        c->next->prev = c->prev;
    c->x = NULL;
    xi_http1_next(&c->http, NULL);
    if (x != NULL)
        xi_exchange_detach(x);
    xi_h2_leave(c);
    uv_close(&c->h.handle, on_closed);
}

static void on_alloc(uv_handle_t *h, size_t suggested, uv_buf_t *buf)
{
    struct xi_conn *c = h->data;
    uint8_t *window = NULL;
    size_t n = 0;

    (void)suggested;
    if (c->turn_bytes >= XI_TURN_BYTES) { /* no buffer: libuv stops reading until the next turn */
        *buf = uv_buf_init(NULL, 0);
        return;
    }
    if (c->h2 != NULL)
        window = xi_h2_window(c, &n);
    else if (c->stash.len == 0 && c->x != NULL)
        xi_http1_window(&c->http, &window, &n);
    if (n == 0) {
        window = c->server->scratch;
        n = sizeof c->server->scratch;
    }
    *buf = uv_buf_init((char *)window, (unsigned)(n < XI_TURN_BYTES ? n : XI_TURN_BYTES));
}

static void on_read(uv_stream_t *h, ssize_t n, const uv_buf_t *buf);

static void update_reading(struct xi_conn *c)
{
    int paused = c->x != NULL && c->x->stream.paused && c->http.state == XI_HTTP1_BODY;
    int want = !c->closing && !paused && c->stash.len < XI_STASH_MAX;

    if (want == c->reading || c->closing)
        return;
    c->reading = want;
    if (!want)
        (void)uv_read_stop(&c->h.stream);
    else if (uv_read_start(&c->h.stream, on_alloc, on_read) != 0)
        xi_conn_close(c);
    if (want)
        c->read_window_ms = xi_now_ms();
}

static const struct xi_carrier http1_carrier;

static int begin_exchange(struct xi_conn *c)
{
    c->x = xi_exchange_take(c->server, &http1_carrier, c);
    if (c->x == NULL) {
        xi_log(XI_WARN, "http.nomemory", "connections=%u", c->server->stats.connections);
        return -1;
    }
    c->server->stats.requests++;
    c->head_since_ms = xi_now_ms();
    xi_http1_next(&c->http, &c->x->stream);
    return 0;
}

/* Feeds the codec as long as requests are answered at once. Returns how many bytes it took. */
static size_t pump(struct xi_conn *c, const uint8_t *data, size_t n)
{
    uint64_t began = xi_now_ns();
    size_t took = 0;

    c->pumping = 1;
    while (!c->closing && !c->linger_until_ms) {
        if (c->x == NULL) {
            if (took == n)
                break;
            if (took > 0 && xi_now_ns() - began > TURN_NS) {
                yield(c);
                break;
            }
            if (begin_exchange(c) != 0) {
                xi_conn_close(c);
                break;
            }
        }
        took += xi_http1_feed(&c->http, data + took, n - took);
        if (c->x != NULL)
            break; /* it needs more bytes, or is being worked on */
    }
    c->pumping = 0;
    return took;
}

void xi_conn_resume(struct xi_conn *c)
{
    if (c->pumping || c->closing || c->yielded)
        return;
    size_t n = c->stash.len;
    size_t took = pump(c, (const uint8_t *)xi_str_text(&c->stash), n);
    if (c->closing)
        return;
    if (took > 0 && c->linger_until_ms == 0) { /* else an early answer has dropped them all */
        memmove(c->stash.data, c->stash.data + took, n - took);
        c->stash.len -= took;
    }
    if (c->stash.len == 0 && c->stash.room > 0)
        xi_str_fini(&c->stash);
    update_reading(c);
}

/* HTTP/2 with prior knowledge begins as no request of HTTP/1.1 does. -1: too few bytes to tell. */
static int speaks_h2(const void *data, size_t n)
{
    enum { ENOUGH = 4 };

    if (memcmp(data, XI_HTTP2_PREFACE, n < ENOUGH ? n : ENOUGH) != 0)
        return 0;
    return n >= ENOUGH ? 1 : -1;
}

static void begin_h2(struct xi_conn *c, const void *data, size_t n)
{
    c->head_since_ms = 0;
    if (xi_h2_begin(c) != 0)
        xi_conn_close(c);
    else
        xi_h2_take(c, data, n);
}

/* What does it speak? 0: HTTP/1.1, the bytes are the caller's. 1: they are taken care of. */
static int meet(struct xi_conn *c, const uint8_t *data, size_t n)
{
    int waited = c->stash.len > 0;

    if (waited) {
        xi_str_add(&c->stash, data, n);
        data = (const uint8_t *)c->stash.data;
        n = c->stash.len;
    }
    int is_h2 = speaks_h2(data, n);
    c->fresh = is_h2 < 0;
    if (is_h2 < 0) {
        if (!waited)
            xi_str_add(&c->stash, data, n);
        c->head_since_ms = c->head_since_ms ? c->head_since_ms : xi_now_ms();
    } else if (is_h2) {
        begin_h2(c, data, n);
        xi_str_fini(&c->stash);
    } else if (waited) {
        xi_conn_resume(c);
    }
    return is_h2 != 0 || waited;
}

static void take_bytes(struct xi_conn *c, const uint8_t *data, size_t n)
{
    size_t took = 0;

    c->read_bytes += n;
    c->since_ms = xi_now_ms();
    if (c->linger_until_ms != 0) {
        c->discarded += n;
        if (c->discarded > LINGER_BYTES)
            xi_conn_close(c);
        return;
    }
    if (c->h2 != NULL) {
        xi_h2_take(c, data, n);
        return;
    }
    if (c->fresh && meet(c, data, n))
        return;
    if (c->stash.len == 0)
        took = pump(c, data, n);
    if (c->closing || c->linger_until_ms != 0)
        return;
    if (took < n)
        xi_str_add(&c->stash, data + took, n - took);
    if (c->stash.failed) {
        xi_conn_close(c);
        return;
    }
    update_reading(c);
}

static void on_read(uv_stream_t *h, ssize_t n, const uv_buf_t *buf)
{
    struct xi_conn *c = h->data;
    int full = n > 0 && (size_t)n == buf->len; /* libuv reads on only then */

    c->turn_bytes = full ? c->turn_bytes + (size_t)n : 0;
    if (n == UV_ENOBUFS)
        return;
    if (n > 0)
        take_bytes(c, (const uint8_t *)buf->base, (size_t)n);
    else if (n < 0)
        xi_conn_close(c); /* a half-closed client gets no answer: it may be dead */
}

/* Is there more of the request's body to come (or can nobody tell)? */
static int body_unread(const struct xi_conn *c)
{
    const struct xi_http_stream *s = &c->x->stream;

    return c->broken ||
           (c->http.state == XI_HTTP1_BODY && (s->received != s->content_length || s->discard));
}

/* Will the connection take another request after this answer? */
static int keeps(const struct xi_conn *c)
{
    return c->x->stream.keep_alive && !c->close_after && !c->server->draining && !body_unread(c);
}

void xi_conn_linger(struct xi_conn *c)
{
    c->linger_until_ms = xi_now_ms() + LINGER_MS;
    xi_str_fini(&c->stash);
    if (uv_shutdown(&c->shutdown, &c->h.stream, NULL) != 0)
        xi_conn_close(c);
    else
        update_reading(c);
}

/* The answer is written: on with the next request, or an end that loses no answer. */
static void answered(struct xi_conn *c)
{
    struct xi_exchange *x = c->x;
    int unread = body_unread(c);
    int keep = keeps(c);

    c->since_ms = xi_now_ms();
    c->x = NULL;
    xi_http1_next(&c->http, NULL);
    xi_exchange_detach(x);
    if (keep) {
        xi_conn_resume(c);
        return;
    }
    if (!unread) {
        xi_conn_close(c);
        return;
    }
    xi_conn_linger(c);
}

static void write_ended(struct xi_exchange *x, int status, int last)
{
    struct xi_conn *c = x->conn;

    x->writing--;
    if (c == NULL) {
        (void)xi_exchange_settle(x);
    } else if (status < 0) {
        xi_conn_close(c);
    } else if (last) {
        answered(c);
    }
}

static void on_written(uv_write_t *w, int status)
{
    write_ended(w->data, status, 1);
}

/* What try_write took is cut off; returns how many pieces are left, from *ret. */
static unsigned cut(uv_buf_t *pieces, unsigned n, size_t done, uv_buf_t **ret)
{
    while (n > 0 && done >= pieces->len) {
        done -= pieces->len;
        pieces++;
        n--;
    }
    if (n > 0) {
        pieces->base += done;
        pieces->len -= done;
    }
    *ret = pieces;
    return n;
}

static void send_pieces(struct xi_conn *c, struct xi_exchange *x)
{
    uv_buf_t *left = x->pieces;
    unsigned n = x->n_pieces;
    int wrote = 0;

    for (unsigned i = 0; i < n; i++)
        c->server->stats.sent_bytes += x->pieces[i].len;
    c->write_window_ms = xi_now_ms();
    c->write_left = SIZE_MAX;
    if (uv_stream_get_write_queue_size(&c->h.stream) == 0)
        wrote = uv_try_write(&c->h.stream, left, n);
    if (wrote < 0 && wrote != UV_EAGAIN) {
        xi_conn_close(c);
        return;
    }
    n = cut(left, n, wrote > 0 ? (size_t)wrote : 0, &left);
    if (n == 0) {
        answered(c);
        return;
    }
    x->write.data = x;
    x->writing++;
    if (uv_write(&x->write, &c->h.stream, left, n, on_written) != 0) {
        x->writing--;
        xi_conn_close(c);
    }
}

/* Status line and headers into x->head. -1: there is no room for them, the connection is closed. */
static int write_head(struct xi_exchange *x, const char *type, uint64_t length)
{
    struct xi_conn *c = x->conn;

    if (body_unread(c)) { /* it says so, and the rest is dropped */
        c->close_after = 1;
        x->stream.discard = 1;
    }
    xi_http1_answer(&x->head, x->status, type, length, keeps(c));
    xi_str_add(&x->head, xi_str_text(&x->extra), x->extra.len);
    xi_str_puts(&x->head, "\r\n");
    if (!x->head.failed && !x->extra.failed)
        return 0;
    xi_conn_close(c);
    return -1;
}

static void carry_answer(struct xi_exchange *x, const char *type, uint64_t length)
{
    if (write_head(x, type, length) != 0)
        return;
    x->pieces[0] = uv_buf_init(x->head.data, (unsigned)x->head.len);
    send_pieces(x->conn, x);
}

struct copied_write {
    uv_write_t write;
    struct xi_exchange *x;
    int last;
    char bytes[];
};

static void on_copy_written(uv_write_t *w, int status)
{
    struct copied_write *cw = w->data;
    struct xi_exchange *x = cw->x;
    int last = cw->last;

    free(cw);
    write_ended(x, status, last);
}

/* room: of the bytes that copied_end is given. NULL: there is no memory, the connection is closed.
 */
static struct copied_write *copied_begin(struct xi_exchange *x, size_t room)
{
    struct copied_write *cw = malloc(sizeof *cw + room);

    if (cw == NULL)
        xi_conn_close(x->conn);
    else
        *cw = (struct copied_write){.x = x};
    return cw;
}

/* last: the answer ends with these bytes. */
static void copied_end(struct copied_write *cw, size_t n, int last)
{
    struct xi_exchange *x = cw->x;
    struct xi_conn *c = x->conn;
    uv_buf_t buf = uv_buf_init(cw->bytes, (unsigned)n);

    cw->write.data = cw;
    cw->last = last;
    x->events.given_bytes += n;
    c->write_window_ms = xi_now_ms();
    c->write_left = SIZE_MAX;
    x->writing++;
    if (uv_write(&cw->write, &c->h.stream, &buf, 1, on_copy_written) != 0) {
        x->writing--;
        free(cw);
        xi_conn_close(c);
    }
}

static void send_copy(struct xi_exchange *x, const char *bytes, size_t n, int last)
{
    struct copied_write *cw = copied_begin(x, n);

    if (cw == NULL)
        return;
    memcpy(cw->bytes, bytes, n);
    copied_end(cw, n, last);
}

static void carry_welcome(struct xi_exchange *x)
{
    static const char line[] = "HTTP/1.1 100 Continue\r\n\r\n";

    send_copy(x, line, sizeof line - 1, 0);
}

static void carry_begin(struct xi_exchange *x, const char *type)
{
    if (x->stream.minor < 1) /* such a client knows no chunks: the connection's end is the end */
        x->conn->close_after = 1;
    if (write_head(x, type, XI_HTTP_NO_LENGTH) == 0)
        send_copy(x, x->head.data, x->head.len, 0);
}

/* One chunk. */
static void carry_copy(struct xi_exchange *x, const void *bytes, size_t n)
{
    enum { FRAME = 32 };
    struct copied_write *cw = copied_begin(x, n + FRAME);
    int chunked = x->stream.minor >= 1, at = 0;

    if (cw == NULL)
        return;
    if (chunked)
        at = snprintf(cw->bytes, FRAME, "%zx\r\n", n);
    memcpy(cw->bytes + at, bytes, n);
    if (chunked)
        memcpy(cw->bytes + at + n, "\r\n", 2);
    copied_end(cw, (size_t)at + n + (chunked ? 2 : 0), 0);
}

static void carry_end(struct xi_exchange *x, const char *trailers)
{
    XI_ASSERT(trailers == NULL);
    if (x->stream.minor >= 1)
        send_copy(x, "0\r\n\r\n", 5, 1);
    else
        send_copy(x, "\n", 1, 1);
}

static size_t carry_waiting(const struct xi_exchange *x)
{
    return uv_stream_get_write_queue_size(&x->conn->h.stream);
}

static void carry_resume(struct xi_exchange *x)
{
    xi_conn_resume(x->conn);
}

static const struct xi_carrier http1_carrier = {
    .answer = carry_answer,
    .begin = carry_begin,
    .copy = carry_copy,
    .end = carry_end,
    .waiting = carry_waiting,
    .welcome = carry_welcome,
    .resume = carry_resume,
};

static void too_slow(struct xi_conn *c, const char *what)
{
    struct xi_err err;

    c->server->stats.slow++;
    c->close_after = c->broken = 1;
    if (c->x == NULL || c->x->answered || c->x->pending) {
        xi_conn_close(c);
        return;
    }
    (void)xi_fail(&err, XI_ESLOW, "%s", what);
    xi_http1_next(&c->http, NULL);
    xi_body_forget(c->x);
    xi_answer_problem(c->x, &err);
}

int xi_conn_reads_slowly(struct xi_conn *c, uint64_t now_ms)
{
    const struct xi_http_config *f = &c->server->config;
    size_t left = uv_stream_get_write_queue_size(&c->h.stream);

    if (left == 0 || now_ms - c->write_window_ms < f->slow_window_ms)
        return 0;
    uint64_t moved = c->write_left > left ? c->write_left - left : 0;
    int first = c->write_left == SIZE_MAX;
    c->write_left = left;
    c->write_window_ms = now_ms;
    return !first && moved < (uint64_t)f->slow_bytes_per_s * f->slow_window_ms / 1000;
}

static int sends_too_slowly(struct xi_conn *c, uint64_t now_ms)
{
    const struct xi_http_config *f = &c->server->config;

    if (c->http.state != XI_HTTP1_BODY || !c->reading ||
        now_ms - c->read_window_ms < f->slow_window_ms)
        return 0;
    uint64_t moved = c->read_bytes;
    c->read_bytes = 0;
    c->read_window_ms = now_ms;
    return moved < (uint64_t)f->slow_bytes_per_s * f->slow_window_ms / 1000;
}

void xi_conn_sweep(struct xi_conn *c, uint64_t now_ms)
{
    const struct xi_http_config *f = &c->server->config;

    if (c->closing)
        return;
    if (c->linger_until_ms != 0) {
        if (now_ms >= c->linger_until_ms)
            xi_conn_close(c);
    } else if (c->h2 != NULL) {
        xi_h2_sweep(c, now_ms);
    } else if (c->head_since_ms != 0 && now_ms - c->head_since_ms >= f->slow_head_ms) {
        too_slow(c, "the request's head did not arrive in time");
    } else if (c->x == NULL) {
        if (now_ms - c->since_ms >= f->idle_ms || xi_server_hangs_up(c->server, now_ms))
            xi_conn_close(c);
    } else if (c->x->streaming ? xi_events_watch(c->x, now_ms) : xi_conn_reads_slowly(c, now_ms)) {
        c->server->stats.slow++;
        xi_conn_close(c);
    } else if (!c->x->stream.paused && !c->x->pending && sends_too_slowly(c, now_ms)) {
        too_slow(c, "the request's body arrives slower than 64 KiB/s");
    }
}

static int init_handle(struct xi_conn *c, uv_stream_t *listener)
{
    uv_loop_t *loop = c->server->service->loop;
    int rc;

    c->over_socket = listener->type == UV_NAMED_PIPE;
    rc = c->over_socket ? uv_pipe_init(loop, &c->h.pipe, 0) : uv_tcp_init(loop, &c->h.tcp);
    c->h.handle.data = c;
    return rc;
}

static enum xi_role door_of(const struct xi_conn *c)
{
    const struct xi_http_config *f = &c->server->config;
    uv_os_fd_t fd;

    if (!c->over_socket || uv_fileno(&c->h.handle, &fd) != 0)
        return c->server->gate.anonymous;
    if (f->admin_group == NULL || xi_peer_belongs(fd, *f->admin_group))
        return XI_ROLE_ADMIN;
    return c->server->gate.anonymous;
}

void xi_conn_accept(struct xi_http_server *server, uv_stream_t *listener)
{
    struct xi_conn *c = calloc(1, sizeof *c);

    if (c == NULL)
        return;
    c->server = server;
    c->since_ms = xi_now_ms();
    c->fresh = 1;
    xi_server_watch(server);
    xi_str_init(&c->stash, XI_STASH_MAX + XI_SCRATCH_BYTES);
    xi_http1_init(&c->http, &events, c);
    if (init_handle(c, listener) != 0) {
        free(c);
        return;
    }
    c->next = server->conns;
    if (c->next)
        c->next->prev = c;
    server->conns = c;
    server->stats.connections++;
    server->handles++;
    if (uv_accept(listener, &c->h.stream) != 0) {
        xi_conn_close(c);
        return;
    }
    server->stats.accepted++;
    c->door = door_of(c);
    if (!c->over_socket) {
        int room = XI_RECEIVE_ROOM;

        (void)uv_tcp_nodelay(&c->h.tcp, 1);
        (void)uv_recv_buffer_size(&c->h.handle, &room);
    }
    if (server->stats.connections > server->config.connections_max) {
        /* No memory is spent on whoever is over the cap: a fixed line, then the end. */
        static const char line[] = "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\n"
                                   "Content-Length: 0\r\nConnection: close\r\n\r\n";
        uv_buf_t buf = uv_buf_init((char *)(uintptr_t)line, sizeof line - 1);
        (void)uv_try_write(&c->h.stream, &buf, 1);
        server->stats.refused++;
        xi_conn_close(c);
        return;
    }
    update_reading(c);
}
