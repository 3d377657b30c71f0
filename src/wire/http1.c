#include "wire/http1.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { TRAILERS_MAX = 32, FRAMING_FREE = 64 * 1024, FRAMING_RATIO = 16 };

static struct xi_http1 *self(llhttp_t *p)
{
    return p->data;
}

/* Remembers why and makes the parser stop. */
static int refuse(struct xi_http1 *h, enum xi_rc rc, const char *why)
{
    (void)xi_fail(&h->err, rc, "%s", why);
    return HPE_USER;
}

static int arena_add(struct xi_http1 *h, const char *at, size_t n)
{
    if (xi_http_arena_add(h->stream, at, n) != 0)
        return refuse(h, XI_ENOMEM, "no memory for the request's head");
    return 0;
}

static int arena_end(struct xi_http1 *h)
{
    return arena_add(h, "", 1);
}

static int on_url(llhttp_t *p, const char *at, size_t n)
{
    struct xi_http1 *h = self(p);

    h->url_len += (uint32_t)n;
    if (h->url_len > XI_HTTP_URL_MAX)
        return refuse(h, XI_EHEADERS, "request target longer than 8192 bytes");
    return arena_add(h, at, n);
}

static int on_url_complete(llhttp_t *p)
{
    return arena_end(self(p));
}

static int on_trailer(struct xi_http1 *h, size_t n)
{
    h->trailer_bytes += n;
    if (h->trailer_bytes > XI_HTTP_TRAILERS_BYTES)
        return refuse(h, XI_EHEADERS, "trailers larger than 8192 bytes");
    return 0;
}

static int on_field(llhttp_t *p, const char *at, size_t n)
{
    struct xi_http1 *h = self(p);

    if (h->state == XI_HTTP1_BODY)
        return on_trailer(h, n);
    if (h->in_value == 0 && h->field_at == UINT32_MAX)
        h->field_at = h->stream->arena_len;
    return arena_add(h, at, n);
}

static int on_field_complete(llhttp_t *p)
{
    struct xi_http1 *h = self(p);
    struct xi_http_stream *s = h->stream;

    if (h->state == XI_HTTP1_BODY) {
        if (++h->trailers > TRAILERS_MAX)
            return refuse(h, XI_EHEADERS, "more than 32 trailers");
        return 0;
    }
    if (h->field_at == UINT32_MAX)
        h->field_at = s->arena_len;
    for (uint32_t i = h->field_at; i < s->arena_len; i++)
        if (s->arena[i] >= 'A' && s->arena[i] <= 'Z')
            s->arena[i] = (char)(s->arena[i] + 32);
    if (arena_end(h) != 0)
        return HPE_USER;
    h->value_at = s->arena_len;
    return 0;
}

static int on_value(llhttp_t *p, const char *at, size_t n)
{
    struct xi_http1 *h = self(p);

    if (h->state == XI_HTTP1_BODY)
        return on_trailer(h, n);
    return arena_add(h, at, n);
}

static int on_value_complete(llhttp_t *p)
{
    struct xi_http1 *h = self(p);
    struct xi_http_stream *s = h->stream;

    if (h->state == XI_HTTP1_BODY)
        return 0;
    if (h->lines == XI_HTTP_HEADERS_MAX)
        return refuse(h, XI_EHEADERS, "more than 100 headers");
    while (s->arena_len > h->value_at &&
           (s->arena[s->arena_len - 1] == ' ' || s->arena[s->arena_len - 1] == '\t'))
        s->arena_len--;
    if (arena_end(h) != 0)
        return HPE_USER;
    xi_http_header_at(s, h->lines++, h->field_at, h->value_at);
    h->field_at = UINT32_MAX;
    return 0;
}

static int on_headers_complete(llhttp_t *p)
{
    struct xi_http1 *h = self(p);

    p->upgrade =
        0; /* no other protocol is spoken here: an Upgrade is ignored, as RFC 9110 allows */
    h->head_done = 1;
    return HPE_PAUSED;
}

static int on_body(llhttp_t *p, const char *at, size_t n)
{
    struct xi_http1 *h = self(p);
    struct xi_http_stream *s = h->stream;

    h->framing_bytes -= n;
    s->received += n;
    if (s->received > s->body_limit)
        return refuse(h, XI_ETOOBIG, "body larger than this route takes");
    if (s->discard)
        return 0;
    XI_ASSERT(s->sink != NULL && n <= s->sink_room - s->sink_len);
    if ((const uint8_t *)at != s->sink + s->sink_len) {
        memcpy(s->sink + s->sink_len, at, n);
        s->copied += n;
    }
    s->sink_len += n;
    return 0;
}

static int on_chunk_header(llhttp_t *p)
{
    struct xi_http1 *h = self(p);
    struct xi_http_stream *s = h->stream;

    /* content_length is this chunk's: compared without adding, so that nothing wraps. */
    if (p->content_length > s->body_limit - s->received)
        return refuse(h, XI_ETOOBIG, "body larger than this route takes");
    return 0;
}

static int on_extension(llhttp_t *p, const char *at, size_t n)
{
    struct xi_http1 *h = self(p);

    (void)at;
    h->extension_bytes += n;
    if (h->extension_bytes > XI_HTTP_CHUNK_EXT_BYTES)
        return refuse(h, XI_EHTTP, "chunk extensions larger than 4096 bytes");
    return 0;
}

static int on_message_complete(llhttp_t *p)
{
    self(p)->message_done = 1;
    return HPE_PAUSED;
}

static const llhttp_settings_t settings = {
    .on_url = on_url,
    .on_url_complete = on_url_complete,
    .on_header_field = on_field,
    .on_header_field_complete = on_field_complete,
    .on_header_value = on_value,
    .on_header_value_complete = on_value_complete,
    .on_headers_complete = on_headers_complete,
    .on_body = on_body,
    .on_chunk_header = on_chunk_header,
    .on_chunk_extension_name = on_extension,
    .on_chunk_extension_value = on_extension,
    .on_message_complete = on_message_complete,
};

void xi_http1_init(struct xi_http1 *h, const struct xi_http_events *events, void *ctx)
{
    memset(h, 0, sizeof *h);
    h->events = events;
    h->ctx = ctx;
    h->state = XI_HTTP1_DONE;
}

void xi_http1_next(struct xi_http1 *h, struct xi_http_stream *stream)
{
    h->stream = stream;
    h->state = stream ? XI_HTTP1_HEAD : XI_HTTP1_DONE;
    h->head_bytes = h->framing_bytes = h->extension_bytes = h->trailer_bytes = 0;
    h->lines = h->trailers = h->url_len = h->value_at = 0;
    h->field_at = UINT32_MAX;
    h->in_value = h->head_done = h->message_done = h->host_count = 0;
    h->err = (struct xi_err){0};
    llhttp_init(&h->parser, HTTP_REQUEST, &settings);
    h->parser.data = h;
}

static enum xi_rc resolve_headers(struct xi_http1 *h, struct xi_err *err)
{
    struct xi_http_stream *s = h->stream;

    xi_http_headers_settle(s, h->lines);
    for (uint32_t i = 0; i < s->n_headers; i++) {
        const struct xi_http_header *header = &s->headers[i];
        if (strcmp(header->name, "host") == 0) {
            s->host = header->value;
            h->host_count++;
        } else if (strcmp(header->name, "expect") == 0) {
            if (strcasecmp(header->value, "100-continue") != 0)
                return xi_fail(err, XI_EHTTP, "Expect: only 100-continue is known");
            s->expects_continue = s->minor >= 1;
        } else if (strcmp(header->name, "transfer-encoding") == 0) {
            if (strcasecmp(header->value, "chunked") != 0 || s->minor == 0)
                return xi_fail(err, XI_EHTTP, "Transfer-Encoding: only chunked is known");
        }
    }
    if (h->host_count > 1 || (h->host_count == 0 && s->minor >= 1))
        return xi_fail(err, XI_EHTTP, "%d Host headers, one is needed", h->host_count);
    return XI_OK;
}

static enum xi_rc finish_head(struct xi_http1 *h, struct xi_err *err)
{
    struct xi_http_stream *s = h->stream;
    llhttp_t *p = &h->parser;

    s->method = llhttp_method_name((llhttp_method_t)llhttp_get_method(p));
    s->minor = llhttp_get_http_minor(p);
    if (llhttp_get_http_major(p) != 1 || s->minor > 1)
        return xi_fail(err, XI_EHTTP, "HTTP/%d.%d: this door speaks HTTP/1.1",
                       llhttp_get_http_major(p), s->minor);
    s->keep_alive = llhttp_should_keep_alive(p);
    int chunked = (p->flags & F_CHUNKED) != 0, has_length = (p->flags & F_CONTENT_LENGTH) != 0;
    if (chunked && has_length)
        return xi_fail(err, XI_EHTTP, "both Content-Length and Transfer-Encoding");
    s->content_length = chunked ? XI_HTTP_NO_LENGTH : has_length ? p->content_length : 0;
    enum xi_rc rc = resolve_headers(h, err);
    return rc != XI_OK ? rc : xi_http_split_target(s, s->arena, err);
}

static void fail(struct xi_http1 *h, const struct xi_err *err)
{
    h->state = XI_HTTP1_FAILED;
    h->events->error(h->ctx, h->stream, err);
}

static void head_complete(struct xi_http1 *h)
{
    struct xi_http_stream *s = h->stream;
    struct xi_err err = {0};

    h->head_done = 0;
    h->state = XI_HTTP1_BODY;
    if (finish_head(h, &err) != XI_OK) {
        fail(h, &err);
        return;
    }
    s->body_limit = 0;
    h->events->head(h->ctx, s);
    if (h->state == XI_HTTP1_BODY && !s->discard && s->content_length != XI_HTTP_NO_LENGTH &&
        s->content_length > s->body_limit) {
        (void)xi_fail(&err, XI_ETOOBIG, "body of %" PRIu64 " bytes, this route takes %" PRIu64,
                      s->content_length, s->body_limit);
        fail(h, &err);
    }
}

static void parser_failed(struct xi_http1 *h)
{
    struct xi_err err = h->err;

    if (err.rc == XI_OK)
        (void)xi_fail(&err, XI_EHTTP, "%s", llhttp_get_error_reason(&h->parser));
    fail(h, &err);
}

/* How many of n bytes the parser may see now. 0: ask the owner first. */
static size_t allowance(struct xi_http1 *h, size_t n)
{
    struct xi_http_stream *s = h->stream;

    if (h->state == XI_HTTP1_HEAD) {
        uint64_t left = XI_HTTP_HEAD_MAX + 1 - h->head_bytes;
        return n < left ? n : (size_t)left;
    }
    if (s->discard || s->received == s->content_length)
        return n;
    uint64_t room = s->sink ? s->sink_room - s->sink_len : 0;
    return n < room ? n : (size_t)room;
}

/* Bytes that carry no body are bounded by what they carry. */
static int too_much_framing(struct xi_http1 *h)
{
    if (h->state == XI_HTTP1_HEAD)
        return h->head_bytes > XI_HTTP_HEAD_MAX;
    return h->framing_bytes > FRAMING_FREE + FRAMING_RATIO * h->stream->received;
}

static size_t step(struct xi_http1 *h, const char *data, size_t n)
{
    int in_head = h->state == XI_HTTP1_HEAD;

    h->framing_bytes += in_head ? 0 : n; /* on_body takes its share back */
    llhttp_errno_t e = llhttp_execute(&h->parser, data, n);
    size_t took = n;
    if (e == HPE_PAUSED) {
        took = (size_t)(llhttp_get_error_pos(&h->parser) - data);
        llhttp_resume(&h->parser);
        h->framing_bytes -= in_head ? 0 : n - took;
    }
    h->head_bytes += in_head ? took : 0;
    if (e != HPE_OK && e != HPE_PAUSED) {
        parser_failed(h);
    } else if (too_much_framing(h)) {
        struct xi_err err;
        (void)xi_fail(&err, in_head ? XI_EHEADERS : XI_EHTTP, "%s",
                      in_head ? "request head larger than 32768 bytes"
                              : "more chunk framing than body");
        fail(h, &err);
    } else if (h->head_done) {
        head_complete(h);
    } else if (h->message_done) {
        h->state = XI_HTTP1_DONE;
        h->events->end(h->ctx, h->stream);
    }
    return took;
}

static int stopped(const struct xi_http1 *h)
{
    return h->state == XI_HTTP1_DONE || h->state == XI_HTTP1_FAILED || h->stream->paused;
}

/* Known before the next byte comes, so that it can be read to its place. */
static int sink_is_full(const struct xi_http_stream *s)
{
    return s->content_length != XI_HTTP_NO_LENGTH && s->received < s->content_length &&
           !s->discard && s->sink != NULL && s->sink_len == s->sink_room;
}

size_t xi_http1_feed(struct xi_http1 *h, const void *data, size_t n)
{
    const char *p = data;
    size_t taken = 0;

    if (p == NULL)
        p = "";
    while (!stopped(h)) {
        int was_body = h->state == XI_HTTP1_BODY;
        struct xi_http_stream *s = h->stream;
        if (was_body && taken == n && s->received != s->content_length && !sink_is_full(s))
            break;
        if (!was_body && taken == n)
            break;
        size_t slice = allowance(h, n - taken);
        if (slice == 0 && (taken < n || sink_is_full(s))) {
            h->events->full(h->ctx, s);
            if (!stopped(h) && allowance(h, 1) == 0)
                (void)refuse(h, XI_ETOOBIG, "body larger than this route takes"), parser_failed(h);
            continue;
        }
        taken += step(h, p + taken, slice);
    }
    return taken;
}

void xi_http1_window(const struct xi_http1 *h, uint8_t **ret, size_t *ret_n)
{
    const struct xi_http_stream *s = h->stream;

    *ret = NULL;
    *ret_n = 0;
    if (h->state != XI_HTTP1_BODY || s->paused || s->discard || s->sink == NULL ||
        s->content_length == XI_HTTP_NO_LENGTH)
        return;
    uint64_t left = s->content_length - s->received, room = s->sink_room - s->sink_len;
    uint64_t n = left < room ? left : room;
    if (n > XI_GIB)
        n = XI_GIB;
    *ret = s->sink + s->sink_len;
    *ret_n = (size_t)n;
}

void xi_http1_answer(struct xi_str *s, int status, const char *type, uint64_t length,
                     int keep_alive)
{
    xi_str_printf(s, "HTTP/1.1 %d %s\r\n", status, xi_http_reason(status));
    if (type != NULL)
        xi_str_printf(s, "Content-Type: %s\r\n", type);
    if (length == XI_HTTP_NO_LENGTH)
        xi_str_puts(s, "Transfer-Encoding: chunked\r\n");
    else
        xi_str_printf(s, "Content-Length: %" PRIu64 "\r\n", length);
    if (!keep_alive)
        xi_str_puts(s, "Connection: close\r\n");
}
