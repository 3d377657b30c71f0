#define _GNU_SOURCE
/* The door over HTTP/2: nghttp2's client on a real socket, the server with a fake core behind it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <nghttp2/nghttp2.h>

#include "base/clock.h"
#include "base/log_tap.h"
#include "daemon/api/connection.h"
#include "daemon/api/fake_client.h"
#include "daemon/api/fake_core.h"
#include "daemon/loop/workers.h"

enum { ASKS_MAX = 200, PART = 100 * 1000 };

static uv_loop_t loop;
static struct fake_core core;
static struct xi_http_server *server;

/* One request of the client. */
struct ask {
    int32_t id;
    int status, ended, reset;
    uint32_t code;
    struct xi_str body;
    char trailer[64];
    const char *send; /* its body */
    size_t left;
    int holds; /* more of it may come */
};

static struct {
    struct client tcp;
    nghttp2_session *session;
    int open, goaways;
    struct ask asks[ASKS_MAX];
    unsigned n;
} peer;

/* ---- the client ---- */

static struct ask *ask_of(nghttp2_session *session, int32_t id)
{
    return nghttp2_session_get_stream_user_data(session, id);
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name,
                     size_t name_len, const uint8_t *value, size_t n, uint8_t flags, void *ctx)
{
    struct ask *a = ask_of(session, frame->hd.stream_id);

    (void)flags, (void)ctx;
    if (name_len == 7 && memcmp(name, ":status", 7) == 0)
        a->status = (int)strtol((const char *)value, NULL, 10);
    else if (frame->headers.cat == NGHTTP2_HCAT_HEADERS)
        (void)snprintf(a->trailer, sizeof a->trailer, "%.*s=%.*s", (int)name_len,
                       (const char *)name, (int)n, (const char *)value);
    return 0;
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *p, size_t n,
                   void *ctx)
{
    (void)flags, (void)ctx;
    xi_str_add(&ask_of(session, id)->body, p, n);
    return 0;
}

static int on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *ctx)
{
    (void)session, (void)ctx;
    peer.goaways += frame->hd.type == NGHTTP2_GOAWAY;
    return 0;
}

static int on_close(nghttp2_session *session, int32_t id, uint32_t code, void *ctx)
{
    struct ask *a = ask_of(session, id);

    (void)ctx;
    a->ended = 1;
    a->code = code;
    return 0;
}

static ssize_t on_send(nghttp2_session *session, int32_t id, uint8_t *buf, size_t room,
                       uint32_t *flags, nghttp2_data_source *source, void *ctx)
{
    struct ask *a = source->ptr;
    size_t n = a->left < room ? a->left : room;

    (void)session, (void)id, (void)ctx;
    if (n == 0 && a->holds)
        return NGHTTP2_ERR_DEFERRED;
    memcpy(buf, a->send, n);
    a->send += n;
    a->left -= n;
    if (a->left == 0 && !a->holds)
        *flags |= NGHTTP2_DATA_FLAG_EOF;
    return (ssize_t)n;
}

/* window: of each stream; 0: as large as it gets. */
static void connect_peer(uint32_t window)
{
    nghttp2_settings_entry e[] = {
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, window ? window : 1 << 30}};
    nghttp2_session_callbacks *cb;
    nghttp2_option *option;

    memset(&peer, 0, sizeof peer);
    client_open(&peer.tcp, &loop, xi_http_server_port(server));
    peer.open = 1;
    while (server->conns == NULL || server->conns->fresh == 0)
        (void)uv_run(&loop, UV_RUN_ONCE);
    (void)nghttp2_session_callbacks_new(&cb);
    nghttp2_session_callbacks_set_on_header_callback(cb, on_header);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(cb, on_data);
    nghttp2_session_callbacks_set_on_frame_recv_callback(cb, on_frame);
    nghttp2_session_callbacks_set_on_stream_close_callback(cb, on_close);
    (void)nghttp2_option_new(&option);
    nghttp2_option_set_no_auto_window_update(option, window != 0);
    (void)nghttp2_session_client_new2(&peer.session, cb, NULL, option);
    nghttp2_option_del(option);
    nghttp2_session_callbacks_del(cb);
    (void)nghttp2_submit_settings(peer.session, 0, e, 1);
    if (window == 0)
        (void)nghttp2_session_set_local_window_size(peer.session, 0, 0, 1 << 30);
}

static void hang_up(void)
{
    if (peer.open)
        close_client(&peer.tcp);
    peer.open = 0;
}

static void leave(void)
{
    hang_up();
    nghttp2_session_del(peer.session);
    peer.session = NULL;
    for (unsigned i = 0; i < peer.n; i++)
        xi_str_fini(&peer.asks[i].body);
    peer.n = 0;
}

static void write_all(const uint8_t *p, size_t n)
{
    while (n > 0 && !peer.tcp.ended) {
        uv_buf_t buf = uv_buf_init((char *)(uintptr_t)p, (unsigned)n);
        int k = uv_try_write((uv_stream_t *)&peer.tcp.tcp, &buf, 1);
        if (k <= 0 && k != UV_EAGAIN)
            break;
        n -= k > 0 ? (size_t)k : 0;
        p += k > 0 ? k : 0;
        (void)uv_run(&loop, UV_RUN_NOWAIT);
    }
}

static void peer_sends(void)
{
    const uint8_t *p;
    ssize_t n;

    while ((n = nghttp2_session_mem_send(peer.session, &p)) > 0)
        write_all(p, (size_t)n);
}

static void peer_reads(void)
{
    struct client *c = &peer.tcp;
    size_t n = c->len;

    c->len = 0;
    if (n > 0)
        assert_int_equal(nghttp2_session_mem_recv(peer.session, (uint8_t *)c->answer, n), n);
}

static void turn(void)
{
    peer_sends();
    (void)uv_run(&loop, UV_RUN_NOWAIT);
    peer_reads();
    (void)usleep(100);
}

/* Turns until it is so; fails after a while. */
#define UNTIL(what)                                                                                \
    do {                                                                                           \
        uint64_t limit = xi_now_ms() + 10000;                                                      \
        while (!(what) && xi_now_ms() < limit)                                                     \
            turn();                                                                                \
        assert_true(what);                                                                         \
    } while (0)

#define NV(n, v)                                                                                   \
    (nghttp2_nv)                                                                                   \
    {                                                                                              \
        (uint8_t *)(uintptr_t)(n), (uint8_t *)(uintptr_t)(v), strlen(n), strlen(v), 0              \
    }

/* body NULL: none comes. */
static struct ask *ask(const char *method, const char *path, const char *body, size_t n, int holds)
{
    struct ask *a = &peer.asks[peer.n++];
    nghttp2_nv nv[] = {NV(":method", method),
                       NV(":path", path),
                       NV(":scheme", "http"),
                       NV(":authority", "localhost"),
                       NV("xinfer-dtype", "FP32"),
                       NV("xinfer-shape", "1,4"),
                       NV("content-type", "application/octet-stream")};
    nghttp2_data_provider provider = {.source = {.ptr = a}, .read_callback = on_send};

    xi_str_init(&a->body, XI_GIB);
    a->send = body;
    a->left = n;
    a->holds = holds;
    a->id = nghttp2_submit_request(peer.session, NULL, nv, sizeof nv / sizeof *nv,
                                   body ? &provider : NULL, a);
    assert_true(a->id > 0);
    return a;
}

/* ---- the server ---- */

static void start_with(struct xi_http_config config)
{
    struct xi_err err = {0};

    (void)uv_loop_init(&loop);
    assert_int_equal(xi_workers_open(&loop, NULL), XI_OK);
    fake_core_init(&core, &loop);
    config.listen = "127.0.0.1:0";
    if (xi_http_server_open(&core.service, &config, &server, &err) != XI_OK)
        fail_msg("%s", err.msg);
    connect_peer(0);
}

static int start(void **state)
{
    (void)state;
    start_with((struct xi_http_config){0});
    return 0;
}

static int start_hurried(void **state)
{
    (void)state;
    start_with((struct xi_http_config){
        .slow_head_ms = 300, .slow_window_ms = 300, .idle_ms = 600, .slow_bytes_per_s = 65536});
    return 0;
}

static int stop(void **state)
{
    (void)state;
    leave();
    xi_http_server_close(server);
    (void)uv_run(&loop, UV_RUN_DEFAULT);
    xi_workers_close(&loop);
    (void)uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&loop), 0);
    assert_int_equal(core.slots_out, 0);
    assert_int_equal(core.sessions[0].refs, 1);
    return 0;
}

static struct xi_http_stats stats(void)
{
    struct xi_http_stats s;

    xi_http_server_stats(server, &s);
    return s;
}

/* The newest exchange of the only connection, as a handler has it. */
static struct xi_exchange *newest(void)
{
    struct xi_http2_stream *s = server->conns->h2->wire.streams;

    return (struct xi_exchange *)(void *)((char *)s->http - offsetof(struct xi_exchange, stream));
}

/* ---- whole answers ---- */

static const float numbers[4] = {1, 2, 3, -4};

static struct ask *infer(void)
{
    return ask("POST", "/v1/infer/double", (const char *)numbers, sizeof numbers, 0);
}

static void many_inferences_at_once(void **state)
{
    (void)state;
    core.delay_ms = 50;
    for (int i = 0; i < 100; i++)
        (void)infer();
    uint64_t most = 0;
    for (unsigned done = 0; done < 100;) {
        turn();
        done = 0;
        for (unsigned i = 0; i < 100; i++)
            done += peer.asks[i].ended != 0;
        if (server->conns != NULL && server->conns->h2 != NULL &&
            server->conns->h2->wire.n_streams > most)
            most = server->conns->h2->wire.n_streams;
    }
    assert_int_equal(most, 100);
    for (unsigned i = 0; i < 100; i++) {
        assert_int_equal(peer.asks[i].status, 200);
        assert_non_null(strstr(peer.asks[i].body.data, "\"data\":[2,4,6,-8]"));
    }
    assert_int_equal(stats().connections, 1);
}

static void a_large_body_comes_back(void **state)
{
    enum { N = 5 * 1000 * 1000 };
    char *body = malloc(N);

    (void)state;
    for (int i = 0; i < N; i++)
        body[i] = (char)(i * 7 >> 2);
    struct ask *a = ask("POST", "/v1/echo", body, N, 0);
    UNTIL(a->ended);
    assert_int_equal(a->body.len, N);
    assert_memory_equal(a->body.data, body, N);
    free(body);
}

static void head_has_no_body(void **state)
{
    (void)state;
    struct ask *a = ask("HEAD", "/v1/health/live", NULL, 0, 0);
    struct ask *b = ask("HEAD", "/v1/telemetry/stream", NULL, 0, 0);
    UNTIL(a->ended && b->ended);
    assert_int_equal(a->status, 200);
    assert_int_equal(a->body.len + b->body.len, 0);
}

static void events_stream(void **state)
{
    (void)state;
    struct ask *a = ask("GET", "/v1/events/stream", NULL, 0, 0);
    struct ask *b = ask("GET", "/v1/health/live", NULL, 0, 0);
    UNTIL(b->ended && a->status == 200);
    xi_log_tap_note(XI_INFO, "core.strain", "n=1");
    UNTIL(strstr(xi_str_text(&a->body), "core.strain") != NULL);
    assert_false(a->ended);
    (void)nghttp2_submit_rst_stream(peer.session, 0, a->id, NGHTTP2_CANCEL);
    UNTIL(server->conns->h2->wire.n_streams == 0);
}

static void whoever_resets_is_cancelled(void **state)
{
    (void)state;
    core.delay_ms = 1000;
    struct ask *a = infer(), *b = infer();
    UNTIL(server->conns != NULL && server->conns->h2 != NULL &&
          server->conns->h2->wire.n_streams == 2 && newest()->pending);
    (void)nghttp2_submit_rst_stream(peer.session, 0, a->id, NGHTTP2_CANCEL);
    UNTIL(core.cancelled == 1);
    assert_false(b->ended);
    hang_up(); /* the other one leaves with its connection */
    for (int i = 0; i < 1000 && core.cancelled < 2; i++) {
        (void)uv_run(&loop, UV_RUN_NOWAIT);
        (void)usleep(1000);
    }
    assert_int_equal(core.cancelled, 2);
}

/* ---- answers in parts ---- */

static char part[PART];
static struct xi_send sends[8];
static uv_buf_t pieces[8][2];
static unsigned n_released, n_gone, n_run;

static void on_released(struct xi_send *send)
{
    (void)send;
    n_released++;
}

static void on_gone(struct xi_exchange *x)
{
    n_gone++;
    xi_answer_end_parts(x, NULL, NULL); /* it is owed */
}

static void on_run(struct xi_exchange *x)
{
    (void)x;
    n_run++;
}

static const struct xi_route parts_route = {.method = "POST",
                                            .path = "/v1/echo",
                                            .body = XI_TAKES_OWN,
                                            .body_limit = XI_GIB,
                                            .run = on_run};

/* A request whose head is in; it is answered in parts. */
static struct xi_exchange *begin_parts(struct ask **ret)
{
    static uint8_t sink[64];

    for (size_t i = 0; i < PART; i++)
        part[i] = (char)(i * 13 >> 3);
    n_released = n_gone = n_run = 0;
    *ret = ask("POST", "/v1/echo", "", 0, 1);
    UNTIL(server->conns != NULL && server->conns->h2 != NULL &&
          server->conns->h2->wire.n_streams == 1);
    struct xi_exchange *x = newest();
    xi_body_forget(x);
    x->route = &parts_route;
    x->stream.sink = sink;
    x->stream.sink_room = sizeof sink;
    x->gone = on_gone;
    x->unhurried = 1;
    assert_true(xi_answer_parts_ok(x));
    xi_answer_begin_parts(x, 200, "application/grpc");
    return x;
}

static void send_part(struct xi_exchange *x, unsigned i)
{
    pieces[i][0] = uv_buf_init(part, 5);
    pieces[i][1] = uv_buf_init(part + 5, PART - 5);
    sends[i] = (struct xi_send){.pieces = pieces[i], .n_pieces = 2, .released = on_released};
    xi_answer_send(x, &sends[i]);
}

static void parts_with_trailers(void **state)
{
    struct ask *a;

    (void)state;
    struct xi_exchange *x = begin_parts(&a);
    UNTIL(a->status == 200); /* before any part */
    for (unsigned i = 0; i < 8; i++) {
        send_part(x, i);
        if (i == 3)
            UNTIL(a->body.len == (i + 1) * PART);
    }
    UNTIL(n_released == 8);
    assert_int_equal(xi_answer_waiting(x), 0);
    /* The client says more meanwhile, and its end. */
    a->send = "hello";
    a->left = 5;
    a->holds = 0;
    (void)nghttp2_session_resume_data(peer.session, a->id);
    UNTIL(n_run == 1);
    assert_memory_equal(x->stream.sink, "hello", 5);
    assert_false(a->ended);
    xi_answer_end_parts(x, NULL, "grpc-status: 0\r\n");
    UNTIL(a->ended);
    assert_string_equal(a->trailer, "grpc-status=0");
    assert_int_equal(a->body.len, 8 * PART);
    for (unsigned i = 0; i < 8; i++)
        assert_memory_equal(a->body.data + (size_t)i * PART, part, PART);
    assert_int_equal(n_gone, 0);
}

static void trailers_only(void **state)
{
    struct ask *a = ask("POST", "/v1/echo", "", 0, 1);

    (void)state;
    UNTIL(server->conns != NULL && server->conns->h2 != NULL &&
          server->conns->h2->wire.n_streams == 1);
    xi_answer_end_parts(newest(), "application/grpc", "grpc-status: 12\r\n");
    UNTIL(a->status == 200);
    a->holds = 0;
    (void)nghttp2_session_resume_data(peer.session, a->id);
    UNTIL(a->ended);
    assert_int_equal(a->body.len, 0);
}

/* The client takes no more than its window: what waits is known, and let go when it leaves. */
static void parts_wait_for_the_window(void **state)
{
    struct ask *a;

    (void)state;
    leave();
    connect_peer(70000);
    UNTIL(server->conns != NULL && server->conns->next == NULL && server->conns->h2 != NULL);
    struct xi_exchange *x = begin_parts(&a);
    for (unsigned i = 0; i < 4; i++)
        send_part(x, i);
    /* The connection's window is smaller than the stream's. */
    UNTIL(a->body.len == 65535);
    assert_int_equal(xi_answer_waiting(x), 4 * PART - 65535);
    assert_int_equal(n_released, 0);
    (void)nghttp2_submit_rst_stream(peer.session, 0, a->id, NGHTTP2_CANCEL);
    UNTIL(n_released == 4);
    assert_int_equal(n_gone, 1);
}

/* What paused bodies hold is bounded for all connections together. */
static void bodies_that_nobody_takes(void **state)
{
    static char body[200 * 1000];
    struct ask *a;

    (void)state;
    server->ahead_max = 150 * 1000;
    struct xi_exchange *x = begin_parts(&a);
    x->stream.paused = 1;
    a->send = body;
    a->left = 100 * 1000;
    (void)nghttp2_session_resume_data(peer.session, a->id);
    UNTIL(server->ahead == 100 * 1000);
    x->stream.paused = 0;
    x->stream.discard = 1;
    xi_exchange_resume(x);
    assert_int_equal(server->ahead, 0);
    x->stream.discard = 0;
    x->stream.paused = 1;
    a->left = sizeof body;
    a->send = body;
    (void)nghttp2_session_resume_data(peer.session, a->id);
    UNTIL(peer.goaways == 1 && peer.tcp.ended);
    assert_int_equal(server->ahead, 0);
    assert_int_equal(n_gone, 1);
}

/* A write is under way when the connection ends. */
static void parts_of_a_client_that_vanishes(void **state)
{
    static char large[16 * 1000 * 1000];
    struct ask *a;

    (void)state;
    struct xi_exchange *x = begin_parts(&a);
    UNTIL(a->status == 200);
    (void)uv_read_stop((uv_stream_t *)&peer.tcp.tcp);
    uv_buf_t piece = uv_buf_init(large, sizeof large);
    sends[0] = (struct xi_send){.pieces = &piece, .n_pieces = 1, .released = on_released};
    xi_answer_send(x, &sends[0]);
    for (int i = 0; i < 50; i++)
        turn();
    assert_int_equal(n_released, 0);
    assert_true(xi_answer_waiting(x) > 0);
    hang_up();
    for (int i = 0; i < 1000 && n_released == 0; i++) {
        (void)uv_run(&loop, UV_RUN_NOWAIT);
        (void)usleep(1000);
    }
    assert_int_equal(n_released, 1);
    assert_int_equal(n_gone, 1);
}

/* ---- slow clients, ends ---- */

static void preface_in_crumbs(void **state)
{
    (void)state;
    const uint8_t *p;
    ssize_t n = nghttp2_session_mem_send(peer.session, &p);
    assert_true(n >= 24);
    for (ssize_t i = 0; i < n; i++) {
        write_all(p + i, 1);
    }
    struct ask *a = ask("GET", "/v1/health/live", NULL, 0, 0);
    UNTIL(a->ended);
    assert_int_equal(a->status, 200);
}

static void a_preface_that_never_comes(void **state)
{
    (void)state;
    write_all((const uint8_t *)"PR", 2);
    for (int i = 0; i < 5000 && !peer.tcp.ended; i++) {
        (void)uv_run(&loop, UV_RUN_NOWAIT);
        peer_reads();
        (void)usleep(1000);
    }
    assert_true(peer.tcp.ended);
    assert_int_equal(stats().slow, 1);
}

static void a_body_that_stops_coming(void **state)
{
    (void)state;
    struct ask *a = ask("POST", "/v1/echo", "abc", 3, 1);
    UNTIL(a->status != 0);
    assert_int_equal(a->status, 408);
    assert_int_equal(core.slots_out, 0);
    struct ask *b = ask("GET", "/v1/health/live", NULL, 0, 0); /* the connection goes on */
    UNTIL(b->ended && a->ended);
    assert_int_equal(b->status, 200);
}

static void an_answer_that_nobody_takes(void **state)
{
    struct ask *a;

    (void)state;
    leave();
    connect_peer(70000);
    UNTIL(server->conns != NULL && server->conns->next == NULL && server->conns->h2 != NULL);
    struct xi_exchange *x = begin_parts(&a);
    for (unsigned i = 0; i < 4; i++)
        send_part(x, i);
    UNTIL(a->ended);
    assert_int_equal(a->code, NGHTTP2_CANCEL);
    assert_int_equal(n_released, 4);
    assert_int_equal(n_gone, 1);
    assert_int_equal(stats().slow, 1);
}

static void idle_connections_end(void **state)
{
    (void)state;
    struct ask *a = ask("GET", "/v1/health/live", NULL, 0, 0);
    UNTIL(a->ended);
    UNTIL(peer.tcp.ended);
    assert_int_equal(peer.goaways, 1);
}

static void set_flag(void *ctx)
{
    *(int *)ctx = 1;
}

static void drain_answers_what_it_has(void **state)
{
    int drained = 0;

    (void)state;
    core.delay_ms = 400;
    struct ask *a = infer();
    UNTIL(server->conns != NULL && server->conns->h2 != NULL &&
          server->conns->h2->wire.n_streams == 1);
    xi_http_server_drain(server, set_flag, &drained);
    UNTIL(peer.goaways == 1); /* soon */
    UNTIL(peer.goaways == 2); /* now */
    assert_false(a->ended);
    UNTIL(a->ended && peer.tcp.ended && drained);
    assert_int_equal(a->status, 200);
}

#define TEST(f)    cmocka_unit_test_setup_teardown(f, start, stop)
#define HURRIED(f) cmocka_unit_test_setup_teardown(f, start_hurried, stop)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(many_inferences_at_once),
        TEST(a_large_body_comes_back),
        TEST(head_has_no_body),
        TEST(events_stream),
        TEST(whoever_resets_is_cancelled),
        TEST(parts_with_trailers),
        TEST(trailers_only),
        TEST(parts_wait_for_the_window),
        TEST(parts_of_a_client_that_vanishes),
        TEST(bodies_that_nobody_takes),
        TEST(preface_in_crumbs),
        HURRIED(a_preface_that_never_comes),
        HURRIED(a_body_that_stops_coming),
        HURRIED(an_answer_that_nobody_takes),
        HURRIED(idle_connections_end),
        TEST(drain_answers_what_it_has),
    };
    if (xi_log_tap_open(NULL) != XI_OK)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
