/* Any bytes on a connection. The first byte says in what pieces they come; each request that is
 * found must come out the same however it is cut. */
#include "wire/http1.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct run {
    struct xi_http_stream stream;
    struct xi_http1 http;
    uint8_t body[512];
    unsigned heads, ends, errors;
    uint64_t sum;
};

static void add(struct run *r, const char *text)
{
    for (; *text; text++)
        r->sum = r->sum * 31 + (uint8_t)*text;
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
        XI_ASSERT(strpbrk(s->headers[i].name, " \r\n") == NULL);
        XI_ASSERT(strpbrk(s->headers[i].value, "\r\n") == NULL);
    }
    s->body_limit = 2000;
    s->sink = r->body;
    s->sink_room = sizeof r->body;
}

static void on_full(void *ctx, struct xi_http_stream *s)
{
    (void)ctx;
    s->sink_len = 0;
}

static void on_end(void *ctx, struct xi_http_stream *s)
{
    struct run *r = ctx;

    r->ends++;
    r->sum = r->sum * 31 + s->received;
    XI_ASSERT(s->received <= s->body_limit);
}

static void on_error(void *ctx, struct xi_http_stream *s, const struct xi_err *err)
{
    (void)xi_http_header(s, "origin"); /* whoever writes the answer looks, the head may be cut */
    XI_ASSERT(err->rc != XI_OK && err->msg[0] != '\0');
    ((struct run *)ctx)->errors++;
}

static const struct xi_http_events events = {on_head, on_full, on_end, on_error};

static void run_pieces(struct run *r, const uint8_t *data, size_t size, size_t piece)
{
    size_t at = 0;

    memset(r, 0, sizeof *r);
    xi_http1_init(&r->http, &events, r);
    xi_http1_next(&r->http, &r->stream);
    while (at < size && r->errors == 0) {
        size_t n = size - at < piece ? size - at : piece;
        uint8_t *copy = malloc(n);
        memcpy(copy, data + at, n);
        size_t took = xi_http1_feed(&r->http, copy, n);
        free(copy);
        XI_ASSERT(took <= n);
        at += took;
        if (r->http.state != XI_HTTP1_DONE)
            continue;
        xi_http_stream_reset(&r->stream);
        xi_http1_next(&r->http, &r->stream);
    }
    xi_http_stream_fini(&r->stream);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct run whole, cut;

    if (size == 0 || size > 65536)
        return 0;
    run_pieces(&whole, data + 1, size - 1, size);
    run_pieces(&cut, data + 1, size - 1, data[0] % 16 + 1);
    XI_ASSERT(whole.heads == cut.heads && whole.ends == cut.ends);
    XI_ASSERT(whole.errors == cut.errors && whole.sum == cut.sum);
    return 0;
}
