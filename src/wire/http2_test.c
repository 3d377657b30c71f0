/* The codec against nghttp2's own client, and against frames that no client sends. */
#include "wire/http2.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <nghttp2/nghttp2.h>

enum { ROOM = 2 * 1024 * 1024, REQUESTS = 2048 };

struct request {
    struct xi_http_stream stream; /* first: events find the rest by it */
    struct xi_http2_stream h2;
    struct xi_str room;
    uint8_t *sink;
    unsigned heads, fulls, ends, errors, closed;
    struct xi_err err;
    size_t out, at; /* bytes of `answer` to send; sent */
    int last;
};

static struct xi_http2 server;
static struct request *requests[REQUESTS];
static unsigned n_requests;
static uint8_t answer[ROOM];
static uint64_t body_limit, sink_room;
static int pauses, eager, no_sink, pause_when_full;

static nghttp2_session *client;
static struct xi_str wire; /* what the server wrote */
static struct {
    int status;
    uint8_t body[ROOM];
    size_t len;
    char trailer[64];
    int ended, reset;
    uint32_t reset_code, goaway_code;
    unsigned goaways, resets, closes, interim, informed;
} got;

/* ---- the owner ---- */

static struct request *of(struct xi_http_stream *s)
{
    return (struct request *)(void *)s;
}

static void on_head(void *ctx, struct xi_http_stream *s)
{
    (void)ctx;
    of(s)->heads++;
    s->body_limit = body_limit;
    s->paused = pauses;
    s->eager = eager;
    if (no_sink)
        return;
    of(s)->sink = s->sink = malloc(sink_room);
    s->sink_room = sink_room;
}

static void on_full(void *ctx, struct xi_http_stream *s)
{
    (void)ctx;
    of(s)->fulls++;
    s->paused |= pause_when_full;
}

static void on_end(void *ctx, struct xi_http_stream *s)
{
    (void)ctx;
    of(s)->ends++;
}

static void on_error(void *ctx, struct xi_http_stream *s, const struct xi_err *err)
{
    (void)ctx;
    of(s)->errors++;
    of(s)->err = *err;
}

static struct xi_http2_stream *on_open(void *ctx)
{
    (void)ctx;
    if (n_requests == REQUESTS)
        return NULL;
    struct request *r = requests[n_requests++] = calloc(1, sizeof *r);
    xi_str_init(&r->room, 8192);
    r->h2.http = &r->stream;
    return &r->h2;
}

static void on_closed(void *ctx, struct xi_http2_stream *s)
{
    (void)ctx;
    of(s->http)->closed++;
}

static size_t on_ready(void *ctx, struct xi_http2_stream *s, size_t most, int *ret_last)
{
    const struct request *r = of(s->http);
    size_t n = r->out - r->at;

    (void)ctx;
    *ret_last = r->last && n <= most;
    return n < most ? n : most;
}

static int on_data(void *ctx, struct xi_http2_stream *s, const uint8_t head[XI_HTTP2_HEAD_BYTES],
                   size_t n)
{
    struct request *r = of(s->http);

    (void)ctx;
    xi_str_add(&wire, head, XI_HTTP2_HEAD_BYTES);
    xi_str_add(&wire, answer + r->at, n);
    r->at += n;
    return 0;
}

static const struct xi_http2_events events = {
    {on_head, on_full, on_end, on_error}, on_open, on_closed, on_ready, on_data};

/* ---- the client ---- */

static int client_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name,
                         size_t name_len, const uint8_t *value, size_t n, uint8_t flags, void *ctx)
{
    (void)session, (void)flags, (void)ctx;
    int status = name_len == 7 && memcmp(name, ":status", 7) == 0
                     ? (int)strtol((const char *)value, NULL, 10)
                     : 0;
    if (status == 100)
        got.interim++;
    else if (status != 0)
        got.status = status;
    else if (frame->headers.cat == NGHTTP2_HCAT_HEADERS)
        (void)snprintf(got.trailer, sizeof got.trailer, "%.*s=%.*s", (int)name_len,
                       (const char *)name, (int)n, (const char *)value);
    return 0;
}

static int client_data(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *p,
                       size_t n, void *ctx)
{
    (void)session, (void)flags, (void)id, (void)ctx;
    assert_true(got.len + n <= sizeof got.body);
    memcpy(got.body + got.len, p, n);
    got.len += n;
    return 0;
}

static int client_frame(nghttp2_session *session, const nghttp2_frame *frame, void *ctx)
{
    (void)session, (void)ctx;
    if (frame->hd.type == NGHTTP2_GOAWAY) {
        got.goaways++;
        got.goaway_code = frame->goaway.error_code;
    } else if (frame->hd.type == NGHTTP2_RST_STREAM) {
        got.resets++;
        got.reset_code = frame->rst_stream.error_code;
    } else if (frame->hd.type <= NGHTTP2_HEADERS && frame->hd.flags & NGHTTP2_FLAG_END_STREAM) {
        got.ended++;
    }
    return 0;
}

/* From the client to the server and back, until nobody has anything to say. -1: the server would
 * hang up. */
static int pump(void)
{
    const uint8_t *p;
    int rc = 0;

    for (int moved = 1; moved && rc == 0;) {
        ssize_t n = nghttp2_session_mem_send(client, &p);
        moved = n > 0;
        if (n > 0)
            rc = xi_http2_feed(&server, p, (size_t)n);
        wire.len = 0;
        for (long k; (k = xi_http2_pull(&server, &p)) != 0;) {
            if (k < 0)
                return -1;
            xi_str_add(&wire, p, (size_t)k);
        }
        moved |= wire.len > 0;
        assert_false(wire.failed);
        if (wire.len > 0)
            assert_int_equal(nghttp2_session_mem_recv(client, (const uint8_t *)wire.data, wire.len),
                             wire.len);
    }
    return rc;
}

static int set_up(void **state)
{
    nghttp2_session_callbacks *cb;

    (void)state;
    memset(&got, 0, sizeof got);
    n_requests = 0;
    body_limit = sink_room = ROOM;
    pauses = eager = no_sink = pause_when_full = 0;
    for (size_t i = 0; i < sizeof answer; i++)
        answer[i] = (uint8_t)(i * 31 >> 3);
    xi_str_init(&wire, 64 * XI_MIB);
    assert_int_equal(xi_http2_init(&server, &events, NULL, NULL), XI_OK);
    (void)nghttp2_session_callbacks_new(&cb);
    nghttp2_session_callbacks_set_on_header_callback(cb, client_header);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(cb, client_data);
    nghttp2_session_callbacks_set_on_frame_recv_callback(cb, client_frame);
    (void)nghttp2_session_client_new(&client, cb, NULL);
    nghttp2_session_callbacks_del(cb);
    (void)nghttp2_submit_settings(client, 0, NULL, 0);
    assert_int_equal(pump(), 0);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    while (server.streams != NULL)
        xi_http2_forget(&server, server.streams);
    xi_http2_fini(&server);
    nghttp2_session_del(client);
    xi_str_fini(&wire);
    for (unsigned i = 0; i < n_requests; i++) {
        xi_http_stream_fini(&requests[i]->stream);
        xi_str_fini(&requests[i]->room);
        free(requests[i]->sink);
        free(requests[i]);
    }
    return 0;
}

#define NV(n, v)                                                                                   \
    (nghttp2_nv)                                                                                   \
    {                                                                                              \
        (uint8_t *)(uintptr_t)(n), (uint8_t *)(uintptr_t)(v), strlen(n), strlen(v), 0              \
    }

static size_t to_send;

static ssize_t client_read(nghttp2_session *session, int32_t id, uint8_t *buf, size_t room,
                           uint32_t *flags, nghttp2_data_source *source, void *ctx)
{
    size_t n = to_send < room ? to_send : room;

    (void)session, (void)id, (void)source, (void)ctx;
    if (n == 0 && source->fd)
        return NGHTTP2_ERR_DEFERRED;
    memset(buf, 'b', n);
    to_send -= n;
    if (to_send == 0 && !source->fd)
        *flags |= NGHTTP2_DATA_FLAG_EOF;
    return (ssize_t)n;
}

/* body SIZE_MAX: none. holds: the body does not end by itself. */
static int32_t ask(const char *path, size_t body, int holds, const nghttp2_nv *more, size_t n_more)
{
    nghttp2_nv nv[128] = {NV(":method", body == SIZE_MAX ? "GET" : "POST"), NV(":path", path),
                          NV(":scheme", "http"), NV(":authority", "localhost")};
    nghttp2_data_provider provider = {.source = {.fd = holds}, .read_callback = client_read};

    for (size_t i = 0; i < n_more; i++)
        nv[4 + i] = more[i];
    to_send = body;
    int32_t id = nghttp2_submit_request(client, NULL, nv, 4 + n_more,
                                        body == SIZE_MAX ? NULL : &provider, NULL);
    assert_true(id > 0);
    assert_int_equal(pump(), 0);
    return id;
}

static void reply(struct request *r, int status, size_t n)
{
    r->out = n;
    r->last = 1;
    xi_http2_unwanted(&server, &r->h2);
    assert_int_equal(xi_http2_answer(&server, &r->h2, status, "text/plain", n,
                                     "X-Said: Yes\r\nServer-Timing: a;dur=1\r\n", &r->room, n > 0),
                     0);
    assert_int_equal(pump(), 0);
}

/* ---- what should be ---- */

static void a_request_and_its_answer(void **state)
{
    (void)state;
    nghttp2_nv more[] = {NV("accept", "text/plain"), NV("content-length", "70000")};
    ask("/a/b?c=d", 70000, 0, more, 2);
    struct request *r = requests[0];
    assert_int_equal(r->heads + r->ends, 2);
    assert_string_equal(r->stream.method, "POST");
    assert_string_equal(r->stream.path, "/a/b");
    assert_string_equal(r->stream.query, "c=d");
    assert_string_equal(r->stream.host, "localhost");
    assert_string_equal(xi_http_header(&r->stream, "accept"), "text/plain");
    assert_int_equal(r->stream.content_length, 70000);
    assert_int_equal(r->stream.sink_len, 70000);
    reply(r, 201, 100000);
    assert_int_equal(got.status, 201);
    assert_int_equal(got.len, 100000);
    assert_memory_equal(got.body, answer, 100000);
    assert_int_equal(got.ended, 1);
    assert_int_equal(r->closed, 1);
    assert_int_equal(server.n_streams, 0);
}

static void without_bodies(void **state)
{
    (void)state;
    ask("/", SIZE_MAX, 0, NULL, 0);
    assert_int_equal(requests[0]->stream.content_length, 0);
    assert_string_equal(requests[0]->stream.method, "GET");
    reply(requests[0], 204, 0);
    assert_int_equal(got.status, 204);
    assert_int_equal(requests[0]->closed, 1);
}

static void trailers_follow_parts(void **state)
{
    (void)state;
    ask("/p.S/M", 10, 0, NULL, 0);
    struct request *r = requests[0];
    assert_int_equal(xi_http2_answer(&server, &r->h2, 200, "application/grpc", XI_HTTP_NO_LENGTH,
                                     "", &r->room, 1),
                     0);
    assert_int_equal(pump(), 0);
    assert_int_equal(got.status, 200); /* the head waits for nothing */
    for (unsigned i = 1; i <= 3; i++) {
        r->out = 1000 * i;
        xi_http2_more(&server, &r->h2);
        assert_int_equal(pump(), 0);
        assert_int_equal(got.len, 1000 * i);
    }
    r->last = 1;
    xi_http2_trailers(&r->h2, "grpc-status: 0\r\n");
    xi_http2_more(&server, &r->h2);
    assert_int_equal(pump(), 0);
    assert_string_equal(got.trailer, "grpc-status=0");
    assert_int_equal(got.ended, 1);
    assert_int_equal(r->closed, 1);
}

static void continue_is_said_when_it_is(void **state)
{
    (void)state;
    nghttp2_nv more[] = {NV("expect", "100-continue")};
    ask("/", 10, 0, more, 1);
    assert_true(requests[0]->stream.expects_continue);
    xi_http2_welcome(&server, &requests[0]->h2);
    reply(requests[0], 200, 3);
    assert_int_equal(got.interim, 1);
    assert_int_equal(got.status, 200);
}

/* ---- windows ---- */

static void a_paused_stream_shuts_its_window(void **state)
{
    (void)state;
    pauses = 1;
    no_sink = 1;
    ask("/", 1000000, 0, NULL, 0);
    struct request *r = requests[0];
    assert_int_equal(to_send, 1000000 - XI_HTTP2_WINDOW);
    assert_int_equal(r->h2.ahead.len, XI_HTTP2_WINDOW);
    assert_int_equal(server.ahead_bytes, XI_HTTP2_WINDOW);
    assert_int_equal(r->stream.received, 0);
    assert_false(xi_http2_listens(&server, &r->h2));
    /* Another one gets through meanwhile. */
    size_t left = to_send;
    pauses = no_sink = 0;
    ask("/", 1000, 0, NULL, 0);
    assert_int_equal(requests[1]->ends, 1);
    to_send = left;
    r->sink = r->stream.sink = malloc(ROOM);
    r->stream.sink_room = ROOM;
    r->stream.paused = 0;
    xi_http2_resume(&server, &r->h2);
    assert_int_equal(r->stream.received, XI_HTTP2_WINDOW);
    assert_int_equal(server.ahead_bytes, 0);
    assert_int_equal(pump(), 0);
    assert_int_equal(r->stream.received, 1000000);
    assert_int_equal(r->ends, 1);
}

/* A client that is slow to pump sees how much it may send at once. */
static void a_place_widens_the_window(void **state)
{
    (void)state;
    nghttp2_nv more[] = {NV("content-length", "1500000")};
    int32_t id = ask("/", 0, 1, more, 1);
    int32_t window = nghttp2_session_get_stream_remote_window_size(client, id);
    assert_true(window >= 1500000 && window <= 1500000 + (int32_t)XI_HTTP2_WINDOW);
    no_sink = pauses = 1;
    id = ask("/", 0, 1, more, 1);
    assert_int_equal(nghttp2_session_get_stream_remote_window_size(client, id), XI_HTTP2_WINDOW);
}

/* A sink that is filled again and again, as messages of a stream are. */
static void a_small_sink_is_filled_many_times(void **state)
{
    (void)state;
    sink_room = 1000;
    eager = pause_when_full = 1;
    ask("/", 600500, 0, NULL, 0);
    struct request *r = requests[0];
    for (unsigned turn = 1; turn <= 600; turn++) {
        assert_int_equal(r->fulls, turn);
        assert_true(server.ahead_bytes <= XI_HTTP2_WINDOW);
        r->stream.sink_len = 0;
        r->stream.paused = 0;
        xi_http2_resume(&server, &r->h2);
        assert_int_equal(pump(), 0);
    }
    assert_int_equal(r->stream.sink_len, 500);
    assert_int_equal(r->ends, 1);
}

static void a_body_over_its_limit_is_refused(void **state)
{
    (void)state;
    body_limit = 5000;
    nghttp2_nv more[] = {NV("content-length", "5001")};
    ask("/", 5001, 0, more, 1);
    assert_int_equal(requests[0]->err.rc, XI_ETOOBIG);
    ask("/", 5001, 0, NULL, 0);
    assert_int_equal(requests[1]->err.rc, XI_ETOOBIG);
    assert_int_equal(requests[1]->ends, 0);
    reply(requests[1], 413, 10);
    assert_int_equal(got.status, 413);
    ask("/", 5000, 0, NULL, 0);
    assert_int_equal(requests[2]->ends, 1);
}

/* The answer is whole, the client may go on for a while, then it is told to stop. */
static void an_early_answer(void **state)
{
    (void)state;
    ask("/", 1000, 1, NULL, 0);
    reply(requests[0], 400, 20);
    assert_int_equal(got.ended, 1);
    assert_int_equal(got.resets, 0);
    for (unsigned i = 0; i < 4; i++)
        xi_http2_forgive(&server);
    assert_int_equal(pump(), 0);
    assert_int_equal(got.resets, 1);
    assert_int_equal(got.reset_code, NGHTTP2_NO_ERROR);
    assert_int_equal(requests[0]->closed, 1);
}

/* ---- what should not be ---- */

static void no_more_streams_than_agreed(void **state)
{
    (void)state;
    for (int i = 0; i < XI_HTTP2_STREAMS_MAX; i++)
        ask("/", SIZE_MAX, 0, NULL, 0);
    assert_int_equal(server.n_streams, XI_HTTP2_STREAMS_MAX);
    ask("/", SIZE_MAX, 0, NULL, 0); /* nghttp2's client keeps it back */
    assert_int_equal(n_requests, XI_HTTP2_STREAMS_MAX);
    reply(requests[5], 200, 1);
    assert_int_equal(n_requests, XI_HTTP2_STREAMS_MAX + 1);
}

static void heads_have_caps(void **state)
{
    static char value[40 * 1024];
    nghttp2_nv more[110];

    (void)state;
    memset(value, 'v', sizeof value - 1);
    more[0] = NV("x-large", value);
    more[0].valuelen = 31 * 1024;
    ask("/", SIZE_MAX, 0, more, 1);
    assert_int_equal(requests[0]->heads, 1);
    more[0].valuelen = 33 * 1024;
    ask("/", SIZE_MAX, 0, more, 1);
    assert_int_equal(requests[1]->err.rc, XI_EHEADERS);
    assert_int_equal(requests[1]->heads, 0);
    reply(requests[1], 431, 5);
    assert_int_equal(got.status, 431);
    for (int i = 0; i < 101; i++)
        more[i] = NV("x-one", "1");
    ask("/", SIZE_MAX, 0, more, 101);
    assert_int_equal(requests[2]->err.rc, XI_EHEADERS);
    memset(value, 'v', 9000);
    value[0] = '/';
    value[9000] = '\0';
    ask(value, SIZE_MAX, 0, NULL, 0);
    assert_int_equal(requests[3]->err.rc, XI_EHEADERS);
}

static void heads_that_contradict_themselves(void **state)
{
    nghttp2_nv host[] = {NV("host", "elsewhere")}, expect[] = {NV("expect", "miracles")};
    nghttp2_nv twice[] = {NV("host", "localhost")}, length[] = {NV("content-length", "3")};

    (void)state;
    ask("/", SIZE_MAX, 0, host, 1);
    assert_int_equal(requests[0]->err.rc, XI_EHTTP);
    ask("/", SIZE_MAX, 0, expect, 1);
    assert_int_equal(requests[1]->err.rc, XI_EHTTP);
    ask("/", SIZE_MAX, 0, twice, 1);
    assert_int_equal(requests[2]->heads, 1);
    ask("/#x", SIZE_MAX, 0, NULL, 0);
    assert_int_equal(requests[3]->err.rc, XI_EHTTP);
    ask("/", 10, 0, length, 1); /* more than it says */
    assert_int_equal(requests[4]->ends, 0);
    assert_int_equal(requests[4]->closed, 1);
    assert_int_equal(got.reset_code, NGHTTP2_PROTOCOL_ERROR);
}

static void a_client_that_resets_is_gone(void **state)
{
    (void)state;
    int32_t id = ask("/", 1000, 1, NULL, 0);
    (void)nghttp2_submit_rst_stream(client, 0, id, NGHTTP2_CANCEL);
    assert_int_equal(pump(), 0);
    assert_int_equal(requests[0]->closed, 1);
    assert_int_equal(requests[0]->ends + requests[0]->errors, 0);
    assert_false(requests[0]->h2.sent_end);
}

static void goaway_ends_in_peace(void **state)
{
    (void)state;
    ask("/", SIZE_MAX, 0, NULL, 0);
    xi_http2_goaway(&server);
    assert_int_equal(pump(), 0);
    assert_int_equal(got.goaways, 1);
    assert_int_equal(got.goaway_code, NGHTTP2_NO_ERROR);
    reply(requests[0], 200, 10);
    assert_int_equal(got.len, 10);
}

/* ---- floods: frames by hand, nothing is read back ---- */

static void feed_frame_head(uint8_t type, uint8_t flags, uint32_t id, size_t n)
{
    const uint8_t head[9] = {
        (uint8_t)(n >> 16),  (uint8_t)(n >> 8),   (uint8_t)n,         type,       flags,
        (uint8_t)(id >> 24), (uint8_t)(id >> 16), (uint8_t)(id >> 8), (uint8_t)id};

    assert_int_equal(xi_http2_feed(&server, head, sizeof head), 0);
}

/* A socket's bytes: to where the codec wants them, else to a buffer of ours. Returns how many. */
static size_t receive(const uint8_t *bytes, size_t n, size_t *placed)
{
    static uint8_t buffer[4096];
    size_t room = sizeof buffer;
    uint8_t *place = xi_http2_place(&server, sizeof buffer, &room), *at = place ? place : buffer;

    n = n < room ? n : room;
    memcpy(at, bytes, n);
    assert_int_equal(xi_http2_feed(&server, at, n), 0);
    *placed += place ? n : 0;
    return n;
}

static void a_large_frame_is_read_to_its_place(void **state)
{
    enum { BODY = 1500000, FRAME = 1000000 };
    nghttp2_nv more[] = {NV("content-length", "1500000")};
    size_t placed = 0, n = 0;

    (void)state;
    uint32_t id = (uint32_t)ask("/", 0, 1, more, 1);
    struct request *r = requests[0];
    assert_null(xi_http2_place(&server, 1, &n)); /* no frame is coming */
    feed_frame_head(NGHTTP2_DATA, 0, id, FRAME);
    for (size_t at = 0; at < FRAME;)
        at += receive(answer + at, FRAME - at < 70000 ? FRAME - at : 70000, &placed);
    assert_true(placed >= FRAME - 4096);
    feed_frame_head(NGHTTP2_DATA, NGHTTP2_FLAG_END_STREAM, id, BODY - FRAME);
    for (size_t at = FRAME; at < BODY;)
        at += receive(answer + at, BODY - at < 70000 ? BODY - at : 70000, &placed);
    assert_memory_equal(r->stream.sink, answer, BODY);
    assert_int_equal(r->stream.copied, BODY - placed);
    assert_int_equal(r->stream.received, BODY);
    assert_int_equal(r->ends, 1);
    assert_null(xi_http2_place(&server, 1, &n));
}

/* What is not for the sink, or more than it has room for, is read elsewhere. */
static void a_place_is_the_sinks_alone(void **state)
{
    size_t n = 0;

    (void)state;
    sink_room = 100000;
    uint32_t id = (uint32_t)ask("/", 0, 1, NULL, 0);
    struct request *r = requests[0];
    feed_frame_head(NGHTTP2_DATA, 0, id, 200000);
    assert_ptr_equal(xi_http2_place(&server, 65536, &n), r->stream.sink);
    assert_int_equal(n, 100000);
    assert_null(xi_http2_place(&server, 100001, &n));
    r->stream.paused = 1;
    assert_null(xi_http2_place(&server, 1, &n));
    r->stream.paused = 0;
    r->stream.discard = 1;
    assert_null(xi_http2_place(&server, 1, &n));
    r->stream.discard = 0;
    xi_http2_reset(&server, &r->h2);
    assert_null(xi_http2_place(&server, 1, &n));
}

static void a_padded_frame_has_no_place(void **state)
{
    size_t n = 0;

    (void)state;
    uint32_t id = (uint32_t)ask("/", 0, 1, NULL, 0);
    feed_frame_head(NGHTTP2_DATA, NGHTTP2_FLAG_PADDED, id, 200000);
    assert_null(xi_http2_place(&server, 1, &n));
}

static void only_bodies_and_heads_come_in_large_frames(void **state)
{
    const uint8_t head[9] = {0, 0x80, 0, NGHTTP2_GOAWAY};

    (void)state;
    assert_int_equal(xi_http2_feed(&server, head, sizeof head), -1);
}

static int feed_frame(uint8_t type, uint8_t flags, uint32_t id, const void *payload, size_t n)
{
    static uint8_t frame[9 + 16384];

    frame[0] = (uint8_t)(n >> 16);
    frame[1] = (uint8_t)(n >> 8);
    frame[2] = (uint8_t)n;
    frame[3] = type;
    frame[4] = flags;
    for (int i = 0; i < 4; i++)
        frame[5 + i] = (uint8_t)(id >> (24 - 8 * i));
    if (n > 0)
        memcpy(frame + 9, payload, n);
    return xi_http2_feed(&server, frame, 9 + n);
}

/* Frames until the server has had enough; how many. */
static unsigned flood(uint8_t type, uint32_t id, size_t n, unsigned most, int reads)
{
    static const uint8_t payload[64] = {0, 0, 0, 1};
    const uint8_t *p;

    for (unsigned i = 0; i < most; i++) {
        if (feed_frame(type, 0, id, payload, n) != 0 || xi_http2_done(&server))
            return i;
        while (reads && xi_http2_pull(&server, &p) > 0)
            ;
    }
    return most;
}

static void floods_end(void **state)
{
    static const struct {
        uint8_t type;
        size_t n;
        int reads;
        unsigned most;
    } kinds[] = {
        {NGHTTP2_PING, 8, 0, 2000},          /* its answers are not read */
        {NGHTTP2_SETTINGS, 0, 0, 2000},      /* the same */
        {NGHTTP2_PING, 8, 1, 20000},         /* they are, but nothing else happens */
        {NGHTTP2_SETTINGS, 0, 1, 20000},     /* the same */
        {NGHTTP2_WINDOW_UPDATE, 4, 1, 20000} /* nothing to send */
    };

    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        assert_true(flood(kinds[i].type, 0, kinds[i].n, kinds[i].most, kinds[i].reads) <
                    kinds[i].most);
        (void)tear_down(state);
        (void)set_up(state);
    }
    assert_true(flood(NGHTTP2_PING, 0, 8, 900, 0) == 900); /* some are fine */
}

static void a_flood_of_empty_data_ends(void **state)
{
    (void)state;
    int32_t id = ask("/", 10, 1, NULL, 0);
    assert_true(flood(NGHTTP2_DATA, (uint32_t)id, 0, 20000, 1) < 20000);
}

static void rapid_resets_end(void **state)
{
    (void)state;
    unsigned n = 0;
    for (; n < REQUESTS - 1 && server.flood == NULL; n++) {
        int32_t id = ask("/", SIZE_MAX, 0, NULL, 0);
        (void)nghttp2_submit_rst_stream(client, 0, id, NGHTTP2_CANCEL);
        if (pump() != 0 || got.goaways)
            break;
    }
    assert_in_range(n, 900, 1100);
    assert_int_equal(got.goaways, 1);
}

/* The stream's owner is told no head, whatever comes behind. */
static void continuation_floods_end(void **state)
{
    static uint8_t block[16000];
    unsigned n = 0;

    (void)state;
    for (size_t i = 0; i < sizeof block; i += 4)
        memcpy(block + i, "\x00\x01x\x00", 4); /* a literal line "x:" with an empty value */
    assert_int_equal(feed_frame(NGHTTP2_HEADERS, 0, 1, block, sizeof block), 0);
    while (n < 1000 && feed_frame(NGHTTP2_CONTINUATION, 0, 1, block, sizeof block) == 0 &&
           !xi_http2_done(&server))
        n++;
    assert_true(n <= 72); /* once a head is ignored nghttp2 counts, by pieces */
    assert_int_equal(requests[0]->heads, 0);
    assert_true(requests[0]->stream.arena_len <= XI_HTTP_HEAD_MAX + 2 * XI_HTTP_HEADERS_MAX);
}

static void heads_in_many_frames_end(void **state)
{
    unsigned n = 0;

    (void)state;
    assert_int_equal(feed_frame(NGHTTP2_HEADERS, 0, 1, "\x82", 1), 0);
    while (n < 100 && feed_frame(NGHTTP2_CONTINUATION, 0, 1, "", 0) == 0)
        n++;
    assert_int_equal(n, 8);
    assert_int_equal(requests[0]->heads, 0);
}

static void garbage_ends(void **state)
{
    const uint8_t *p;

    (void)state;
    assert_int_equal(feed_frame(NGHTTP2_DATA, 0, 0, "x", 1), 0); /* of stream 0 */
    while (xi_http2_pull(&server, &p) > 0)
        ;
    assert_true(xi_http2_done(&server));
    struct xi_http2 other;
    assert_int_equal(xi_http2_init(&other, &events, NULL, NULL), XI_OK);
    assert_int_equal(xi_http2_feed(&other, "PRI * HTTP/2.0\r\n\r\nSM\r\n\rX", 24), -1);
    xi_http2_fini(&other);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_request_and_its_answer),
        TEST(without_bodies),
        TEST(trailers_follow_parts),
        TEST(continue_is_said_when_it_is),
        TEST(a_paused_stream_shuts_its_window),
        TEST(a_place_widens_the_window),
        TEST(a_small_sink_is_filled_many_times),
        TEST(a_body_over_its_limit_is_refused),
        TEST(an_early_answer),
        TEST(no_more_streams_than_agreed),
        TEST(heads_have_caps),
        TEST(heads_that_contradict_themselves),
        TEST(a_client_that_resets_is_gone),
        TEST(goaway_ends_in_peace),
        TEST(floods_end),
        TEST(a_flood_of_empty_data_ends),
        TEST(rapid_resets_end),
        TEST(continuation_floods_end),
        TEST(heads_in_many_frames_end),
        TEST(a_large_frame_is_read_to_its_place),
        TEST(a_place_is_the_sinks_alone),
        TEST(a_padded_frame_has_no_place),
        TEST(only_bodies_and_heads_come_in_large_frames),
        TEST(garbage_ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
