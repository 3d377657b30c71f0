#define _GNU_SOURCE
/* Clients of event streams that do not read: what they cost, and what they are told. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/log_tap.h"
#include "daemon/api/fake_client.h"
#include "daemon/api/fake_core.h"
#include "daemon/api/http_server.h"
#include "daemon/loop/workers.h"

static uv_loop_t loop;
static struct fake_core core;
static struct xi_http_server *server;

static void start(struct xi_http_config config)
{
    struct xi_err err = {0};

    (void)uv_loop_init(&loop);
    assert_int_equal(xi_workers_open(&loop, NULL), XI_OK);
    fake_core_init(&core, &loop);
    config.listen = "127.0.0.1:0";
    if (xi_http_server_open(&core.service, &config, &server, &err) != XI_OK)
        fail_msg("%s", err.msg);
}

static void stop(void)
{
    xi_http_server_close(server);
    (void)uv_run(&loop, UV_RUN_DEFAULT);
    xi_workers_close(&loop);
    (void)uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&loop), 0);
}

static void follow(struct client *c)
{
    static const char ask[] = "GET /v1/events/stream HTTP/1.1\r\nHost: localhost\r\n\r\n";
    int room = 65536;

    client_open(c, &loop, xi_http_server_port(server));
    (void)uv_recv_buffer_size((uv_handle_t *)&c->tcp, &room);
    send_bytes(c, ask, sizeof ask - 1);
}

static struct xi_http_stats stats(void)
{
    struct xi_http_stats s;

    xi_http_server_stats(server, &s);
    return s;
}

/* Turns the loop until the text is there; with `flood`, the log never rests meanwhile. */
static int turn_until(struct client *c, const char *text, int flood, unsigned ms)
{
    char pad[900];

    memset(pad, 'x', sizeof pad - 1);
    pad[sizeof pad - 1] = '\0';
    for (uint64_t until = xi_now_ms() + ms; xi_now_ms() < until && !c->ended;) {
        if (text != NULL && c->answer != NULL && strstr(c->answer, text) != NULL)
            return 1;
        if (text == NULL && stats().events_dropped > 10)
            return 1;
        for (int i = 0; flood && i < 3; i++)
            xi_log_tap_note(XI_INFO, "flood.line", pad);
        (void)uv_run(&loop, UV_RUN_NOWAIT);
        (void)usleep(500);
    }
    return 0;
}

static void a_slow_reader_hears_what_it_missed(void **state)
{
    struct client c;

    (void)state;
    start((struct xi_http_config){.stream_queue_bytes = 65536});
    follow(&c);
    assert_true(turn_until(&c, "text/event-stream", 0, 5000));
    assert_int_equal(uv_read_stop((uv_stream_t *)&c.tcp), 0);
    assert_true(turn_until(&c, NULL, 1, 20000));
    client_read(&c);
    assert_true(turn_until(&c, "event: dropped\ndata: {\"events\":", 1, 10000));
    assert_true(turn_until(&c, "event: event\ndata: {\"seq\":", 1, 5000));
    assert_true(stats().events_dropped > 10);
    close_client(&c);
    stop();
}

static void one_who_reads_nothing_is_cut(void **state)
{
    struct client c;

    (void)state;
    start((struct xi_http_config){.stream_queue_bytes = 65536, .stream_stall_ms = 500});
    follow(&c);
    assert_true(turn_until(&c, "text/event-stream", 0, 5000));
    assert_int_equal(uv_read_stop((uv_stream_t *)&c.tcp), 0);
    assert_true(turn_until(&c, NULL, 1, 20000));
    for (uint64_t until = xi_now_ms() + 5000; stats().connections > 0 && xi_now_ms() < until;)
        (void)uv_run(&loop, UV_RUN_ONCE);
    assert_int_equal(stats().connections, 0);
    close_client(&c);
    stop();
}

static void silence_has_a_heartbeat(void **state)
{
    struct client c;

    (void)state;
    start((struct xi_http_config){.heartbeat_ms = 100});
    follow(&c);
    assert_true(turn_until(&c, "3\r\n:\n\n\r\n", 0, 5000));
    close_client(&c);
    stop();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_slow_reader_hears_what_it_missed),
        cmocka_unit_test(one_who_reads_nothing_is_cut),
        cmocka_unit_test(silence_has_a_heartbeat),
    };

    if (xi_log_tap_open(NULL) != XI_OK)
        return 1;
    return cmocka_run_group_tests_name("events", tests, NULL, NULL);
}
