/* A connection that speaks HTTP/2: the second carrier of exchanges (carrier.h). What all its
 * streams have to say in one turn of the loop is gathered in a batch and leaves in one write; the
 * large pieces of it lie where the handlers have them. */
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "daemon/api/carrier.h"
#include "daemon/api/connection.h"

/* COPY_MAX: a piece so small goes with the frames' heads; an address of its own costs more. */
enum {
    SCRATCH = 64 * 1024,
    COPY_MAX = 4096,
    BATCH_BYTES = 128 * 1024,
    BATCH_TOTAL = 1024 * 1024,
    FRAME_PIECES = 64,
    BATCH_PIECES = 4 * FRAME_PIECES,
    BATCH_SENDS = 8 * FRAME_PIECES,
    FRAME_ROOM = XI_HTTP2_FRAME_MAX + XI_HTTP2_HEAD_BYTES
};

/* What one write takes; one for the whole server, in use only within flush. */
struct xi_h2_batch {
    uint8_t in[SCRATCH]; /* and what is read */
    uint8_t bytes[BATCH_BYTES];
    uv_buf_t bufs[BATCH_PIECES];
    struct xi_send *sends[BATCH_SENDS]; /* whose pieces it holds */
    unsigned n, n_sends;
    size_t len, total;
};

static struct xi_exchange *of_stream(struct xi_http_stream *s)
{
    return (struct xi_exchange *)(void *)((char *)s - offsetof(struct xi_exchange, stream));
}

static struct xi_exchange *of_h2(struct xi_http2_stream *s)
{
    return of_stream(s->http);
}

static void mark_dirty(struct xi_h2 *h2)
{
    struct xi_http_server *server = h2->c->server;

    if (h2->dirty)
        return;
    h2->dirty = 1;
    h2->prev = NULL;
    h2->next = server->dirty;
    if (h2->next != NULL)
        h2->next->prev = h2;
    server->dirty = h2;
    xi_server_flush(server);
}

static void unmark_dirty(struct xi_h2 *h2)
{
    if (!h2->dirty)
        return;
    h2->dirty = 0;
    if (h2->prev != NULL)
        h2->prev->next = h2->next;
    else
        h2->c->server->dirty = h2->next;
    if (h2->next != NULL)
        h2->next->prev = h2->prev;
}

/* It ends with the next flush: not at once, for a caller up the stack looks at its streams. */
static void break_off(struct xi_h2 *h2)
{
    h2->broken = 1;
    mark_dirty(h2);
}

static void count_ahead(struct xi_h2 *h2)
{
    h2->c->server->ahead += h2->wire.ahead_bytes - h2->ahead;
    h2->ahead = h2->wire.ahead_bytes;
}

/* ---- what goes out ---- */

static void release(struct xi_send *send)
{
    struct xi_exchange *x = send->x;

    send->released(send);
    x->writing--;
    (void)xi_exchange_settle(x);
}

static void queue(struct xi_exchange *x, struct xi_send *send)
{
    struct xi_flow *flow = &x->flow;

    XI_ASSERT(send->left > 0);
    if (flow->first == NULL)
        flow->tail = &flow->first;
    *flow->tail = send;
    flow->tail = &send->next;
    flow->left += send->left;
    x->writing++;
    xi_http2_more(&x->conn->h2->wire, &x->h2);
    mark_dirty(x->conn->h2);
}

/* Nobody reads it any more. Pieces of a write under way are released by its end. */
static void drop_queue(struct xi_exchange *x)
{
    struct xi_send *send = x->flow.first, *next;

    x->flow.first = NULL;
    x->flow.left = 0;
    for (; send != NULL; send = next) {
        next = send->next;
        send->left = 0;
        if (send->flying == 0)
            release(send);
    }
}

static size_t on_ready(void *ctx, struct xi_http2_stream *s, size_t most, int *ret_last)
{
    const struct xi_flow *flow = &of_h2(s)->flow;
    unsigned pieces = 0;
    size_t n = 0;

    (void)ctx;
    for (const struct xi_send *send = flow->first; send != NULL && n < most; send = send->next)
        for (unsigned i = send->at; i < send->n_pieces && n < most && pieces < FRAME_PIECES; i++) {
            n += send->pieces[i].len - (i == send->at ? send->offset : 0);
            pieces++;
        }
    n = n < most ? n : most;
    *ret_last = flow->last && n == flow->left;
    return n;
}

static void add_buf(struct xi_h2_batch *b, void *base, size_t n)
{
    uv_buf_t *last = b->n > 0 ? &b->bufs[b->n - 1] : NULL;

    b->total += n;
    if (last != NULL && last->base + last->len == (char *)base)
        last->len += n;
    else
        b->bufs[b->n++] = uv_buf_init(base, (unsigned)n);
}

static void add_copy(struct xi_h2_batch *b, const void *bytes, size_t n)
{
    memcpy(b->bytes + b->len, bytes, n);
    add_buf(b, b->bytes + b->len, n);
    b->len += n;
}

/* Up to n bytes of the piece that goes next. */
static size_t add_piece(struct xi_h2_batch *b, struct xi_send *send, size_t n)
{
    const uv_buf_t *piece = &send->pieces[send->at];
    size_t k = piece->len - send->offset;

    if (k > n)
        k = n;
    if (k <= COPY_MAX)
        add_copy(b, piece->base + send->offset, k);
    else
        add_buf(b, piece->base + send->offset, k);
    send->offset += k;
    send->left -= k;
    if (send->offset == piece->len) {
        send->at++;
        send->offset = 0;
    }
    return k;
}

static int has_room(const struct xi_h2_batch *b, size_t n)
{
    return b->len + n <= BATCH_BYTES && b->total < BATCH_TOTAL &&
           b->n + 2 + FRAME_PIECES <= BATCH_PIECES && b->n_sends + FRAME_PIECES <= BATCH_SENDS;
}

static int on_data(void *ctx, struct xi_http2_stream *s, const uint8_t head[XI_HTTP2_HEAD_BYTES],
                   size_t n)
{
    struct xi_conn *c = ctx;
    struct xi_h2_batch *b = c->server->batch;
    struct xi_flow *flow = &of_h2(s)->flow;

    if (!has_room(b, FRAME_ROOM))
        return -1;
    add_copy(b, head, XI_HTTP2_HEAD_BYTES);
    flow->left -= n;
    flow->gone_bytes += n;
    while (n > 0) {
        struct xi_send *send = flow->first;
        if (b->n_sends == 0 || b->sends[b->n_sends - 1] != send) {
            b->sends[b->n_sends++] = send;
            send->flying++;
        }
        while (n > 0 && send->left > 0)
            n -= add_piece(b, send, n);
        if (send->left == 0)
            flow->first = send->next;
    }
    return 0;
}

/* The batch's pieces have left, or never will. */
static void landed(struct xi_send **sends, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        if (--sends[i]->flying == 0 && sends[i]->left == 0)
            release(sends[i]);
}

struct rest { /* of a batch, that the socket did not take at once */
    uv_write_t write;
    struct xi_conn *c;
    unsigned n_sends;
    struct xi_send *sends[];
};

static void on_written(uv_write_t *w, int status)
{
    struct rest *rest = w->data;
    struct xi_conn *c = rest->c;

    landed(rest->sends, rest->n_sends);
    free(rest);
    if (c->closing)
        return;
    if (status < 0)
        xi_conn_close(c);
    else
        mark_dirty(c->h2);
}

static int write_rest(struct xi_conn *c, struct xi_h2_batch *b, size_t wrote)
{
    size_t pointers = b->n_sends * sizeof(struct xi_send *);
    struct rest *rest = malloc(sizeof *rest + pointers + b->len);
    unsigned first = 0;

    if (rest == NULL)
        return -1;
    while (wrote >= b->bufs[first].len)
        wrote -= b->bufs[first++].len;
    b->bufs[first].base += wrote;
    b->bufs[first].len -= wrote;
    uint8_t *copy = (uint8_t *)rest->sends + pointers;
    memcpy(copy, b->bytes, b->len);
    for (unsigned i = first; i < b->n; i++) {
        uint8_t *at = (uint8_t *)b->bufs[i].base;
        if (at >= b->bytes && at < b->bytes + b->len)
            b->bufs[i].base = (char *)(copy + (at - b->bytes));
    }
    memcpy(rest->sends, b->sends, pointers);
    rest->n_sends = b->n_sends;
    rest->c = c;
    rest->write.data = rest;
    c->write_window_ms = xi_now_ms();
    c->write_left = SIZE_MAX;
    if (uv_write(&rest->write, &c->h.stream, b->bufs + first, b->n - first, on_written) == 0)
        return 0;
    free(rest);
    return -1;
}

static void write_batch(struct xi_conn *c, struct xi_h2_batch *b)
{
    int wrote = uv_try_write(&c->h.stream, b->bufs, b->n);
    int failed = wrote < 0 && wrote != UV_EAGAIN;

    c->server->stats.sent_bytes += b->total;
    if (wrote < 0)
        wrote = 0;
    if (!failed && (size_t)wrote < b->total && write_rest(c, b, (size_t)wrote) == 0)
        return; /* its pieces are on their way */
    failed |= (size_t)wrote < b->total;
    landed(b->sends, b->n_sends);
    if (failed && !c->closing)
        xi_conn_close(c);
}

static void fill(struct xi_h2 *h2, struct xi_h2_batch *b)
{
    const uint8_t *p;

    b->n = b->n_sends = 0;
    b->len = b->total = 0;
    while (has_room(b, FRAME_ROOM)) {
        long n = xi_http2_pull(&h2->wire, &p);
        if (n < 0)
            h2->broken = 1;
        if (n <= 0)
            break;
        add_copy(b, p, (size_t)n);
    }
}

static int is_over(const struct xi_h2 *h2)
{
    if (h2->broken)
        return 1;
    if (uv_stream_get_write_queue_size(&h2->c->h.stream) > 0)
        return 0;
    return xi_http2_done(&h2->wire) || (h2->leaving && h2->wire.n_streams == 0);
}

static void flush(struct xi_h2 *h2)
{
    struct xi_conn *c = h2->c;
    struct xi_h2_batch *b = c->server->batch;

    unmark_dirty(h2);
    count_ahead(h2);
    while (!c->closing && c->linger_until_ms == 0 &&
           uv_stream_get_write_queue_size(&c->h.stream) == 0) {
        fill(h2, b);
        if (b->n == 0)
            break;
        write_batch(c, b);
    }
    if (c->closing || c->linger_until_ms != 0 || !is_over(h2))
        return;
    if (h2->broken || c->server->draining) {
        xi_conn_close(c);
    } else {
        xi_h2_leave(c);
        xi_conn_linger(c);
    }
}

void xi_h2_flush(struct xi_http_server *server)
{
    while (server->dirty != NULL)
        flush(server->dirty);
}

/* ---- the carrier ---- */

static void head_out(struct xi_exchange *x, const char *type, uint64_t length, int with_body)
{
    struct xi_h2 *h2 = x->conn->h2;

    if (x->extra.failed || xi_http2_answer(&h2->wire, &x->h2, x->status, type, length,
                                           xi_str_text(&x->extra), &x->head, with_body) != 0)
        break_off(h2);
    mark_dirty(h2);
}

static void whole_is_out(struct xi_send *send)
{
    (void)send; /* its pieces are the exchange's */
}

static void carry_answer(struct xi_exchange *x, const char *type, uint64_t length)
{
    struct xi_send *whole = &x->flow.whole;

    xi_http2_unwanted(&x->conn->h2->wire, &x->h2);
    head_out(x, type, length, x->n_pieces > 1);
    x->flow.last = 1;
    if (x->n_pieces <= 1)
        return;
    *whole = (struct xi_send){
        .pieces = x->pieces + 1, .n_pieces = x->n_pieces - 1, .released = whole_is_out, .x = x};
    for (unsigned i = 0; i < whole->n_pieces; i++)
        whole->left += whole->pieces[i].len;
    queue(x, whole);
}

static int is_head(const struct xi_exchange *x)
{
    return strcmp(x->stream.method, "HEAD") == 0;
}

static void carry_begin(struct xi_exchange *x, const char *type)
{
    head_out(x, type, XI_HTTP_NO_LENGTH, !is_head(x));
}

static void carry_send(struct xi_exchange *x, struct xi_send *send)
{
    queue(x, send);
}

struct copied {
    struct xi_send send;
    uv_buf_t piece;
    char bytes[];
};

static void free_copied(struct xi_send *send)
{
    free(send); /* its first member */
}

static void carry_copy(struct xi_exchange *x, const void *bytes, size_t n)
{
    if (n == 0 || is_head(x))
        return;
    struct copied *copied = malloc(sizeof *copied + n);
    if (copied == NULL) {
        break_off(x->conn->h2);
        return;
    }
    memcpy(copied->bytes, bytes, n);
    copied->piece = uv_buf_init(copied->bytes, (unsigned)n);
    copied->send = (struct xi_send){
        .pieces = &copied->piece, .n_pieces = 1, .released = free_copied, .x = x, .left = n};
    x->events.given_bytes += n;
    queue(x, &copied->send);
}

static void carry_end(struct xi_exchange *x, const char *trailers)
{
    struct xi_h2 *h2 = x->conn->h2;

    x->flow.last = 1;
    if (trailers != NULL && *trailers != '\0') {
        xi_str_clear(&x->extra); /* the head has what it held */
        xi_str_puts(&x->extra, trailers);
        if (x->extra.failed)
            break_off(h2);
        else
            xi_http2_trailers(&x->h2, xi_str_text(&x->extra));
    }
    xi_http2_unwanted(&h2->wire, &x->h2);
    xi_http2_more(&h2->wire, &x->h2);
    mark_dirty(h2);
}

static size_t carry_waiting(const struct xi_exchange *x)
{
    return x->flow.left;
}

static void carry_welcome(struct xi_exchange *x)
{
    xi_http2_welcome(&x->conn->h2->wire, &x->h2);
    mark_dirty(x->conn->h2);
}

static void carry_resume(struct xi_exchange *x)
{
    struct xi_h2 *h2 = x->conn->h2;

    mark_dirty(h2); /* windows are told */
    xi_http2_resume(&h2->wire, &x->h2);
    count_ahead(h2);
}

static const struct xi_carrier h2_carrier = {
    .answer = carry_answer,
    .begin = carry_begin,
    .copy = carry_copy,
    .send = carry_send,
    .end = carry_end,
    .waiting = carry_waiting,
    .welcome = carry_welcome,
    .resume = carry_resume,
};

/* ---- what comes in ---- */

static struct xi_http2_stream *on_open(void *ctx)
{
    struct xi_conn *c = ctx;
    struct xi_exchange *x = xi_exchange_take(c->server, &h2_carrier, c);

    if (x == NULL) {
        xi_log(XI_WARN, "http.nomemory", "connections=%u", c->server->stats.connections);
        return NULL;
    }
    c->server->stats.requests++;
    c->head_since_ms = xi_now_ms();
    x->h2 = (struct xi_http2_stream){.http = &x->stream};
    return &x->h2;
}

static void on_head(void *ctx, struct xi_http_stream *s)
{
    struct xi_exchange *x = of_stream(s);

    ((struct xi_conn *)ctx)->head_since_ms = 0;
    x->flow.in_ms = x->flow.out_ms = xi_now_ms();
    xi_exchange_head(x);
}

static void on_full(void *ctx, struct xi_http_stream *s)
{
    (void)ctx;
    xi_exchange_full(of_stream(s));
}

static void on_end(void *ctx, struct xi_http_stream *s)
{
    (void)ctx;
    xi_exchange_end(of_stream(s));
}

static void on_error(void *ctx, struct xi_http_stream *s, const struct xi_err *err)
{
    struct xi_exchange *x = of_stream(s);

    ((struct xi_conn *)ctx)->head_since_ms = 0;
    if (x->answered)
        return;
    xi_body_forget(x);
    xi_answer_problem(x, err);
}

static void on_closed(void *ctx, struct xi_http2_stream *s)
{
    struct xi_conn *c = ctx;
    struct xi_exchange *x = of_h2(s);

    c->since_ms = xi_now_ms();
    if (!s->begun)
        c->head_since_ms = 0;
    x->held++;
    drop_queue(x);
    x->held--;
    xi_exchange_detach(x);
}

static const struct xi_http2_events events = {
    {on_head, on_full, on_end, on_error}, on_open, on_closed, on_ready, on_data};

void xi_h2_take(struct xi_conn *c, const uint8_t *data, size_t n)
{
    struct xi_h2 *h2 = c->h2;
    int flooded = h2->wire.flood != NULL;
    uint64_t ahead = h2->ahead;

    if (xi_http2_feed(&h2->wire, data, n) != 0)
        h2->broken = 1;
    count_ahead(h2);
    if (h2->ahead > ahead && c->server->ahead > c->server->ahead_max)
        xi_http2_expel(&h2->wire, "bodies that nobody can take");
    if (h2->wire.flood != NULL && !flooded)
        xi_log(XI_WARN, "http.flood", "what=\"%s\"", h2->wire.flood);
    mark_dirty(h2);
}

/* ---- the connection ---- */

uint8_t *xi_h2_window(struct xi_conn *c, size_t *ret_n)
{
    struct xi_h2_batch *b = c->server->batch;
    uint8_t *place = xi_http2_place(&c->h2->wire, SCRATCH, ret_n);

    if (place != NULL)
        return place;
    *ret_n = sizeof b->in;
    return b->in;
}

int xi_h2_begin(struct xi_conn *c)
{
    struct xi_http_server *server = c->server;
    struct xi_h2 *h2 = calloc(1, sizeof *h2);
    struct xi_err err;

    if (server->batch == NULL)
        server->batch = malloc(sizeof *server->batch);
    if (h2 == NULL || server->batch == NULL ||
        xi_http2_init(&h2->wire, &events, c, &err) != XI_OK) {
        free(h2);
        return -1;
    }
    h2->c = c;
    h2->born_ms = xi_now_ms();
    c->h2 = h2;
    return 0;
}

void xi_h2_drain(struct xi_conn *c)
{
    if (c->h2 == NULL)
        return;
    xi_http2_announce(&c->h2->wire);
    mark_dirty(c->h2);
}

void xi_h2_leave(struct xi_conn *c)
{
    struct xi_http2_stream *s;

    if (c->h2 == NULL)
        return;
    unmark_dirty(c->h2);
    while ((s = c->h2->wire.streams) != NULL) {
        xi_http2_forget(&c->h2->wire, s);
        on_closed(c, s);
    }
    count_ahead(c->h2);
}

void xi_h2_free(struct xi_conn *c)
{
    if (c->h2 == NULL)
        return;
    xi_http2_fini(&c->h2->wire);
    free(c->h2);
    c->h2 = NULL;
}

/* ---- slow clients ---- */

/* Does the next byte of the body lie with the client? */
static int owes_bytes(const struct xi_exchange *x)
{
    return x->h2.begun && !x->stream.paused && !x->unhurried &&
           xi_http2_listens(&x->conn->h2->wire, &x->h2);
}

/* The client shall move `least` bytes in every window in which it owes any. 1: it did not. */
static int lags(int owes, uint64_t moved, uint64_t *since_ms, uint64_t *had, uint64_t now_ms,
                uint64_t window_ms, uint64_t least)
{
    if (owes && now_ms - *since_ms < window_ms)
        return 0;
    int slow = owes && moved - *had < least;
    *since_ms = now_ms;
    *had = moved;
    return slow;
}

static void sends_slowly(struct xi_exchange *x)
{
    struct xi_err err;

    x->server->stats.slow++;
    if (x->answered || (x->pending && x->problem == NULL)) {
        xi_http2_reset(&x->conn->h2->wire, &x->h2);
    } else {
        (void)xi_fail(&err, XI_ESLOW, "the request's body arrives slower than 64 KiB/s");
        xi_body_forget(x);
        xi_answer_problem(x, &err);
    }
}

static void watch(struct xi_exchange *x, uint64_t now_ms, uint64_t in_least, uint64_t out_least)
{
    const struct xi_http_config *f = &x->server->config;
    struct xi_flow *flow = &x->flow;
    int out_slow = x->streaming ? xi_events_watch(x, now_ms)
                                : lags(flow->left > 0, flow->gone_bytes, &flow->out_ms,
                                       &flow->out_bytes, now_ms, f->slow_window_ms, out_least);

    if (out_slow) {
        x->server->stats.slow++;
        xi_http2_reset(&x->conn->h2->wire, &x->h2);
    } else if (lags(owes_bytes(x), x->stream.received, &flow->in_ms, &flow->in_bytes, now_ms,
                    f->slow_window_ms, in_least)) {
        sends_slowly(x);
    }
}

/* A connection owes so many bytes, its streams an equal share of them. */
static void watch_streams(struct xi_h2 *h2, uint64_t now_ms)
{
    const struct xi_http_config *f = &h2->c->server->config;
    uint64_t least = (uint64_t)f->slow_bytes_per_s * f->slow_window_ms / 1000;
    uint64_t in = 0, out = 0;
    struct xi_http2_stream *s, *next;

    for (s = h2->wire.streams; s != NULL; s = s->next) {
        in += (uint64_t)owes_bytes(of_h2(s));
        out += of_h2(s)->flow.left > 0;
    }
    for (s = h2->wire.streams; s != NULL; s = next) {
        next = s->next;
        watch(of_h2(s), now_ms, least / (in ? in : 1), least / (out ? out : 1));
    }
}

void xi_h2_sweep(struct xi_conn *c, uint64_t now_ms)
{
    const struct xi_http_config *f = &c->server->config;
    struct xi_h2 *h2 = c->h2;
    int idle = h2->wire.n_streams == 0 && now_ms - c->since_ms >= f->idle_ms;
    uint64_t head_since = h2->wire.frames == 0 ? h2->born_ms : c->head_since_ms;

    xi_http2_forgive(&h2->wire);
    if (head_since != 0 && now_ms - head_since >= f->slow_head_ms) {
        c->server->stats.slow++;
        xi_conn_close(c);
        return;
    }
    if (xi_conn_reads_slowly(c, now_ms)) {
        c->server->stats.slow++;
        xi_conn_close(c);
        return;
    }
    if (!h2->leaving && (idle || xi_server_hangs_up(c->server, now_ms))) {
        h2->leaving = 1;
        xi_http2_goaway(&h2->wire);
    }
    if (h2->wire.n_streams > 0)
        watch_streams(h2, now_ms);
    if (h2->leaving || h2->wire.n_streams > 0)
        mark_dirty(h2);
}
