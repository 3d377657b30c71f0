/* load_http1.c: the load generator over HTTP/1.1: a request and its answer at a time. An answer
 * must say its length. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "load.h"

struct http1 {
    size_t head_len, body_left;
    int in_body;
    char head[HEAD_MAX];
};

static void prepare(struct run *r)
{
    char head[HEAD_MAX];
    size_t n = 0;

    read_body(r, HEAD_MAX);
    size_t body = r->request_bytes - HEAD_MAX;
    n += (size_t)snprintf(head, HEAD_MAX, "%s %s HTTP/1.1\r\nHost: localhost\r\n",
                          r->o.body_file ? "POST" : "GET", r->o.path);
    for (int i = 0; i < r->o.n_headers && n < HEAD_MAX; i++)
        n += (size_t)snprintf(head + n, HEAD_MAX - n, "%s\r\n", r->o.headers[i]);
    if (r->o.body_file != NULL && n < HEAD_MAX)
        n += (size_t)snprintf(head + n, HEAD_MAX - n, "Content-Length: %zu\r\n", body);
    if (n < HEAD_MAX)
        n += (size_t)snprintf(head + n, HEAD_MAX - n, "\r\n");
    if (n >= HEAD_MAX) {
        errno = E2BIG;
        die("the request's head");
    }
    memcpy(r->request, head, n);
    memmove(r->request + n, r->request + HEAD_MAX, body);
    r->request_bytes = n + body;
}

static void open_http1(struct run *r, struct connection *c)
{
    (void)r;
    c->state = calloc(1, sizeof(struct http1));
    if (c->state == NULL)
        die("memory");
}

static void close_http1(struct connection *c)
{
    free(c->state);
    c->state = NULL;
}

static void send_more(struct run *r, struct connection *c)
{
    struct ask *a = c->asks;

    while (!a->idle && a->sent < r->request_bytes) {
        ssize_t n = send(c->fd, r->request + a->sent, r->request_bytes - a->sent, MSG_NOSIGNAL);
        if (n <= 0)
            return; /* full, or reading tells */
        a->sent += (size_t)n;
    }
}

static void begin(struct run *r, struct ask *a)
{
    struct http1 *h = a->on->state;

    h->head_len = h->body_left = 0;
    h->in_body = 0;
    send_more(r, a->on);
}

/* The head is complete at `end`: status, length, and what of the body came with it. */
static void parse_head(struct run *r, struct connection *c, char *end)
{
    struct http1 *h = c->state;
    size_t have = h->head_len - (size_t)(end + 4 - h->head);

    *end = '\0';
    const char *length = strcasestr(h->head, "\ncontent-length:");
    if (length == NULL && strcasestr(h->head, "\ntransfer-encoding:") != NULL) {
        errno = ENOTSUP;
        die("a chunked answer");
    }
    c->asks->status = (int)strtol(h->head + 9, NULL, 10);
    size_t body = length ? strtoul(length + 16, NULL, 10) : 0;
    h->body_left = body > have ? body - have : 0;
    h->in_body = 1;
    keep_tail(r, c->asks, end + 4, have);
}

static int receive_head(struct run *r, struct connection *c, const char *data, size_t n)
{
    struct http1 *h = c->state;
    size_t room = HEAD_MAX - 1 - h->head_len, take = n < room ? n : room;

    memcpy(h->head + h->head_len, data, take);
    h->head_len += take;
    h->head[h->head_len] = '\0';
    char *end = strstr(h->head, "\r\n\r\n");
    if (end == NULL)
        return 0;
    parse_head(r, c, end);
    size_t beyond = n - take; /* the rest of a large first read */
    h->body_left -= beyond < h->body_left ? beyond : h->body_left;
    keep_tail(r, c->asks, data + take, beyond);
    return 1;
}

static int receive(struct run *r, struct connection *c)
{
    static char buf[1 << 18];
    struct http1 *h = c->state;

    for (;;) {
        ssize_t n = read(c->fd, buf, sizeof buf);
        if (n < 0 && errno == EAGAIN)
            return 1;
        if (n <= 0)
            return 0;
        if (h->in_body) {
            h->body_left -= (size_t)n < h->body_left ? (size_t)n : h->body_left;
            keep_tail(r, c->asks, buf, (size_t)n);
        } else if (!receive_head(r, c, buf, (size_t)n)) {
            continue;
        }
        if (h->body_left == 0)
            finish(r, c->asks);
    }
}

const struct protocol protocol_http1 = {.name = "http1",
                                        .prepare = prepare,
                                        .open = open_http1,
                                        .close = close_http1,
                                        .begin = begin,
                                        .writable = send_more,
                                        .readable = receive};
