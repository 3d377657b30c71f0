/* Any bytes of a client. The first byte says in what pieces they come, the second how the server's
 * side behaves; each request that is found must come out the same however it is cut. */
#include "wire/http2.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MOST = 64 };

/* How the owner behaves (bits). */
enum { ANSWERS_AT_HEAD = 1, PAUSES = 2, EAGER = 4, SMALL_SINK = 8, WELCOMES = 16, RESETS = 32 };

struct request {
    struct xi_http_stream stream; /* first: events find the rest by it */
    struct xi_http2_stream h2;
    struct xi_str room;
    uint8_t body[512];
    int answered, over;
};

struct run {
    struct xi_http2 http;
    struct request *requests[MOST];
    int broken;
    unsigned n, how, heads, ends, errors, closed;
    uint64_t sum, sent;
};

static void add(struct run *r, const char *text)
{
    for (; *text; text++)
        r->sum = r->sum * 31 + (uint8_t)*text;
}

static struct request *of(struct xi_http_stream *s)
{
    return (struct request *)(void *)s;
}

static void answer(struct run *r, struct request *q)
{
    q->answered = 1;
    xi_http2_unwanted(&r->http, &q->h2);
    XI_ASSERT(xi_http2_answer(&r->http, &q->h2, 200, "text/plain", XI_HTTP_NO_LENGTH,
                              "Name: value\r\n", &q->room, 1) == 0);
    xi_http2_trailers(&q->h2, "name: value\r\n");
}

static void on_head(void *ctx, struct xi_http_stream *s)
{
    struct run *r = ctx;

    r->heads++;
    add(r, s->method);
    add(r, s->path);
    add(r, s->query);
    add(r, s->host ? s->host : "");
    XI_ASSERT(s->path[0] == '/' || strcmp(s->path, "*") == 0);
    for (uint32_t i = 0; i < s->n_headers; i++) {
        add(r, s->headers[i].name);
        add(r, s->headers[i].value);
        XI_ASSERT(strpbrk(s->headers[i].name, " \r\nABCXYZ") == NULL);
        XI_ASSERT(strpbrk(s->headers[i].value, "\r\n") == NULL);
    }
    s->body_limit = 2000;
    s->sink = of(s)->body;
    s->sink_room = r->how & SMALL_SINK ? 7 : sizeof of(s)->body;
    s->eager = (r->how & EAGER) != 0;
    s->paused = (r->how & PAUSES) != 0;
    if (r->how & WELCOMES && s->expects_continue)
        xi_http2_welcome(&r->http, &of(s)->h2);
    if (r->how & ANSWERS_AT_HEAD)
        answer(r, of(s));
}

static void on_full(void *ctx, struct xi_http_stream *s)
{
    XI_ASSERT(!of(s)->over);
    for (uint64_t i = 0; i < s->sink_len; i++)
        ((struct run *)ctx)->sum += s->sink[i] * (i + 1);
    s->sink_len = 0;
}

static void on_end(void *ctx, struct xi_http_stream *s)
{
    struct run *r = ctx;

    r->ends++;
    r->sum += s->received;
    XI_ASSERT(!of(s)->over && s->received <= s->body_limit);
    of(s)->over = 1;
    if (r->how & RESETS)
        xi_http2_reset(&r->http, &of(s)->h2);
    else
        answer(r, of(s));
}

static void on_error(void *ctx, struct xi_http_stream *s, const struct xi_err *err)
{
    struct run *r = ctx;

    (void)xi_http_header(s, "origin"); /* whoever writes the answer looks, the head may be cut */
    XI_ASSERT(!of(s)->over && err->rc != XI_OK && err->msg[0] != '\0');
    of(s)->over = 1;
    r->errors++;
    if (!of(s)->answered)
        answer(r, of(s));
}

static struct xi_http2_stream *on_open(void *ctx)
{
    struct run *r = ctx;

    if (r->n == MOST)
        return NULL;
    struct request *q = r->requests[r->n] = calloc(1, sizeof *q);
    if (q == NULL)
        return NULL;
    r->n++;
    xi_str_init(&q->room, 4096);
    q->h2.http = &q->stream;
    return &q->h2;
}

static void on_closed(void *ctx, struct xi_http2_stream *s)
{
    ((struct run *)ctx)->closed++;
    of(s->http)->over = 1;
}

static size_t on_ready(void *ctx, struct xi_http2_stream *s, size_t most, int *ret_last)
{
    (void)ctx;
    *ret_last = of(s->http)->answered;
    return most < 100 ? most : 100;
}

static int on_data(void *ctx, struct xi_http2_stream *s, const uint8_t head[XI_HTTP2_HEAD_BYTES],
                   size_t n)
{
    (void)s, (void)head;
    ((struct run *)ctx)->sent += n;
    return 0;
}

static const struct xi_http2_events events = {
    {on_head, on_full, on_end, on_error}, on_open, on_closed, on_ready, on_data};

static void resume_all(struct run *r)
{
    struct xi_http2_stream *next;

    for (struct xi_http2_stream *s = r->http.streams; s != NULL; s = next) {
        next = s->next;
        s->http->paused = 0;
        xi_http2_resume(&r->http, s);
    }
}

/* Feeds up to n bytes, from a place of their own or from where the codec wants them. Returns how
 * many. */
static size_t feed(struct run *r, const uint8_t *data, size_t n, int placed, int *ret_rc)
{
    size_t room = 0;
    uint8_t *place = placed ? xi_http2_place(&r->http, 1, &room) : NULL;
    uint8_t *copy = place == NULL ? malloc(n) : NULL;

    if (place != NULL && n > room)
        n = room;
    memcpy(place != NULL ? place : copy, data, n);
    *ret_rc = xi_http2_feed(&r->http, place != NULL ? place : copy, n);
    free(copy);
    return n;
}

static void run_pieces(struct run *r, unsigned how, const uint8_t *data, size_t size, size_t piece)
{
    static const char hello[] = XI_HTTP2_PREFACE "\0\0\0\4\0\0\0\0\0";
    const uint8_t *p;
    int rc;

    memset(r, 0, sizeof *r);
    r->how = how;
    if (xi_http2_init(&r->http, &events, r, NULL) != XI_OK)
        return;
    rc = xi_http2_feed(&r->http, hello, sizeof hello - 1);
    for (size_t at = 0; at < size && rc == 0;) {
        size_t n = size - at < piece ? size - at : piece;
        at += feed(r, data + at, n, piece < size, &rc);
    }
    resume_all(r);
    xi_http2_forgive(&r->http);
    while (xi_http2_pull(&r->http, &p) > 0)
        ;
    r->broken = rc != 0 || xi_http2_done(&r->http);
    while (r->http.streams != NULL)
        xi_http2_forget(&r->http, r->http.streams);
    XI_ASSERT(r->http.n_streams == 0 && r->http.ahead_bytes == 0);
    xi_http2_fini(&r->http);
    for (unsigned i = 0; i < r->n; i++) {
        xi_http_stream_fini(&r->requests[i]->stream);
        xi_str_fini(&r->requests[i]->room);
        free(r->requests[i]);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct run whole, cut;

    if (size < 2 || size > 65536)
        return 0;
    run_pieces(&whole, data[1], data + 2, size - 2, size);
    run_pieces(&cut, data[1], data + 2, size - 2, data[0] % 16 + 1);
    if (whole.broken || cut.broken) /* what stands in one piece with a fault may count or not */
        return 0;
    XI_ASSERT(whole.n == cut.n && whole.heads == cut.heads && whole.ends == cut.ends);
    XI_ASSERT(whole.errors == cut.errors && whole.sum == cut.sum && whole.sent == cut.sent);
    return 0;
}
