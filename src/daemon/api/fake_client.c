#define _GNU_SOURCE
#include "daemon/api/fake_client.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"

static void on_alloc(uv_handle_t *h, size_t n, uv_buf_t *buf)
{
    (void)h;
    *buf = uv_buf_init(malloc(n), (unsigned)n);
}

static void on_read(uv_stream_t *h, ssize_t n, const uv_buf_t *buf)
{
    struct client *c = h->data;

    if (n > 0) {
        if (c->len + (size_t)n + 1 > c->room) {
            c->room = (c->len + (size_t)n + 1) * 2;
            c->answer = realloc(c->answer, c->room);
        }
        memcpy(c->answer + c->len, buf->base, (size_t)n);
        c->len += (size_t)n;
        c->answer[c->len] = '\0';
    } else if (n < 0) {
        c->ended = 1;
    }
    free(buf->base);
}

static void on_connected(uv_connect_t *request, int status)
{
    assert_int_equal(status, 0);
    (void)uv_read_start(request->handle, on_alloc, on_read);
}

static void on_client_closed(uv_handle_t *h)
{
    ((struct client *)h->data)->closed = 1;
}

void client_open(struct client *c, uv_loop_t *loop, unsigned port)
{
    struct sockaddr_in a;

    (void)signal(SIGPIPE, SIG_IGN); /* as main does: clients leave in the middle of answers */
    memset(c, 0, sizeof *c);
    c->loop = loop;
    (void)uv_ip4_addr("127.0.0.1", (int)port, &a);
    (void)uv_tcp_init(loop, &c->tcp);
    c->tcp.data = c;
    assert_int_equal(uv_tcp_connect(&c->connect, &c->tcp, (struct sockaddr *)&a, on_connected), 0);
}

void client_read(struct client *c)
{
    (void)uv_read_start((uv_stream_t *)&c->tcp, on_alloc, on_read);
}

void send_bytes(struct client *c, const char *bytes, size_t n)
{
    uv_buf_t buf = uv_buf_init((char *)(uintptr_t)bytes, (unsigned)n);

    (void)uv_write(&c->write, (uv_stream_t *)&c->tcp, &buf, 1, NULL);
}

void send_bytes_more(struct client *c, const char *bytes, size_t n)
{
    uv_buf_t buf = uv_buf_init((char *)(uintptr_t)bytes, (unsigned)n);

    (void)uv_write(&c->more, (uv_stream_t *)&c->tcp, &buf, 1, NULL);
}

void close_client(struct client *c)
{
    uv_close((uv_handle_t *)&c->tcp, on_client_closed);
    while (!c->closed)
        (void)uv_run(c->loop, UV_RUN_ONCE);
    free(c->answer);
    c->answer = NULL;
}

void wait_answers(struct client *c, unsigned n, unsigned ms)
{
    uint64_t until = xi_now_ms() + ms;

    while (xi_now_ms() < until && !c->ended) {
        unsigned found = 0;
        for (char *p = c->answer; p && (p = strstr(p, "HTTP/1.1 ")) != NULL; p++) {
            char *body = strstr(p, "\r\n\r\n"), *length = strstr(p, "Content-Length: ");
            found += body && strstr(p, "text/event-stream") != NULL; /* it has no end */
            found += body && length && length < body &&
                     body + 4 + strtoul(length + 16, NULL, 10) <= c->answer + c->len;
        }
        if (found >= n)
            return;
        (void)uv_run(c->loop, UV_RUN_NOWAIT);
        (void)usleep(200);
    }
}
