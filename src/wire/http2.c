#include "wire/http2.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <nghttp2/nghttp2.h>

/* HEAD_IGNORED: a head over its cap is answered, but what is this far over it is cut off.
 * NOISE_MAX, CUT_MAX: frames that carry nothing and streams given up, each more than any client
 * needs at once; so many are forgiven every second. */
enum {
    HEAD_IGNORED = 256 * 1024,
    LINE_COST = 32, /* RFC 9113: what a header line counts beyond its text */
    LINES_SENT_MAX = 40,
    SMALL_BODY = 65535, /* fits a window that is never spoken of */
    SETTINGS_MAX = 8,
    CONTINUATIONS_MAX = 8,
    CONTINUATION_PIECES = CONTINUATIONS_MAX * XI_HTTP2_HEAD_BYTES,
    RESETS_BURST = 1000,
    RESETS_PER_S = 200,
    NOISE_MAX = 10000,
    NOISE_FORGIVEN = 500,
    CUT_MAX = 1000,
    CUT_FORGIVEN = 50,
    LINGER_QUARTERS = 4 /* of a second */
};

void xi_http2_expel(struct xi_http2 *h, const char *what)
{
    if (h->flood != NULL)
        return;
    h->flood = what;
    (void)nghttp2_session_terminate_session(h->session, NGHTTP2_ENHANCE_YOUR_CALM);
}

static void count_noise(struct xi_http2 *h)
{
    if (++h->noise > NOISE_MAX)
        xi_http2_expel(h, "frames that carry nothing");
}

/* Bytes that moved pay for the frames a client needs to steer them. */
static void earn(struct xi_http2 *h, uint32_t frames)
{
    h->noise -= h->noise < frames ? h->noise : frames;
}

void xi_http2_forgive(struct xi_http2 *h)
{
    earn(h, NOISE_FORGIVEN);
    h->cut -= h->cut < CUT_FORGIVEN ? h->cut : CUT_FORGIVEN;
    /* Whoever has its answer need not send the rest; told at once, some clients lose the answer. */
    for (struct xi_http2_stream *s = h->streams; s != NULL; s = s->next)
        if (s->sent_end && ++s->lingers == LINGER_QUARTERS)
            (void)nghttp2_submit_rst_stream(h->session, NGHTTP2_FLAG_NONE, s->id, NGHTTP2_NO_ERROR);
}

/* ---- the body ---- */

static void taken(struct xi_http2 *h, size_t n)
{
    if (n > 0)
        (void)nghttp2_session_consume_connection(h->session, n);
}

static void drop_ahead(struct xi_http2 *h, struct xi_http2_stream *s)
{
    size_t n = s->ahead.len - s->ahead_at;

    h->ahead_bytes -= n;
    taken(h, n);
    xi_str_fini(&s->ahead);
    s->ahead_at = 0;
}

static void fail_stream(struct xi_http2 *h, struct xi_http2_stream *s, enum xi_rc rc,
                        const char *why)
{
    struct xi_err err;

    (void)xi_fail(&err, rc, "%s", why);
    s->over = 1;
    drop_ahead(h, s);
    h->events->http.error(h->ctx, s->http, &err);
}

/* Is there room for the next byte, after the owner was asked? */
static int ask_room(struct xi_http2 *h, struct xi_http2_stream *s)
{
    struct xi_http_stream *q = s->http;

    if (q->sink != NULL && q->sink_len < q->sink_room)
        return 1;
    h->events->http.full(h->ctx, q);
    if (s->over || q->paused || q->discard)
        return 0;
    if (q->sink != NULL && q->sink_len < q->sink_room)
        return 1;
    fail_stream(h, s, XI_ETOOBIG, "body larger than this route takes");
    return 0;
}

static size_t land(struct xi_http2 *h, struct xi_http2_stream *s, const uint8_t *p, size_t n)
{
    struct xi_http_stream *q = s->http;
    uint64_t room = q->sink_room - q->sink_len;
    size_t k = n < room ? n : (size_t)room;

    if (k > q->body_limit - q->received) {
        fail_stream(h, s, XI_ETOOBIG, "body larger than this route takes");
        return 0;
    }
    if (p != q->sink + q->sink_len) { /* else it was read to its place */
        memcpy(q->sink + q->sink_len, p, k);
        q->copied += k;
    }
    q->sink_len += k;
    q->received += k;
    if (q->eager && q->sink_len == q->sink_room)
        h->events->http.full(h->ctx, q);
    return k;
}

/* As many of n bytes as the owner takes. */
static size_t deliver(struct xi_http2 *h, struct xi_http2_stream *s, const uint8_t *p, size_t n)
{
    size_t done = 0;

    s->delivering = 1;
    while (done < n && !s->over && !s->http->paused) {
        if (s->http->discard) {
            s->http->received += n - done;
            done = n;
        } else if (ask_room(h, s)) {
            done += land(h, s, p + done, n - done);
        }
    }
    s->delivering = 0;
    return s->over ? n : done; /* after an error nobody wants the rest */
}

/* So much may the client send of it until it hears from us. */
static uint64_t window(const struct xi_http2 *h, const struct xi_http2_stream *s)
{
    int32_t n = nghttp2_session_get_stream_local_window_size(h->session, s->id);

    return n > 0 ? (uint64_t)n : 0;
}

/* Lets the client send as much as there is a place for. */
static void widen(struct xi_http2 *h, struct xi_http2_stream *s)
{
    const struct xi_http_stream *q = s->http;
    uint64_t kept = s->ahead.len - s->ahead_at, left = q->content_length - q->received - kept;
    uint64_t want = XI_HTTP2_WINDOW + (q->sink != NULL ? q->sink_room - q->sink_len : 0);

    if (s->ended || s->over || q->content_length <= SMALL_BODY || kept > want)
        return;
    want -= kept;
    if (q->content_length != XI_HTTP_NO_LENGTH && want > left)
        want = left;
    if (want > INT32_MAX / 2)
        want = INT32_MAX / 2;
    uint64_t now = window(h, s);
    if (now >= want || (want - now < XI_HTTP2_WINDOW / 2 && now >= XI_HTTP2_WINDOW / 2))
        return;
    (void)nghttp2_submit_window_update(h->session, NGHTTP2_FLAG_NONE, s->id, (int32_t)(want - now));
}

int xi_http2_listens(const struct xi_http2 *h, const struct xi_http2_stream *s)
{
    return !s->over && !s->ended && window(h, s) > 0 &&
           nghttp2_session_get_local_window_size(h->session) > 0;
}

static void go_on(struct xi_http2 *h, struct xi_http2_stream *s)
{
    if (s->ended && !s->over && !s->http->paused && s->ahead.len == s->ahead_at) {
        s->over = 1;
        h->events->http.end(h->ctx, s->http);
    } else {
        widen(h, s);
    }
}

void xi_http2_resume(struct xi_http2 *h, struct xi_http2_stream *s)
{
    if (s->delivering || !s->begun)
        return;
    size_t n = s->ahead.len - s->ahead_at;
    if (n > 0 && !s->http->paused) {
        size_t took = deliver(h, s, (const uint8_t *)s->ahead.data + s->ahead_at, n);
        if (s->over) { /* it has dropped them */
            return;
        }
        taken(h, took);
        h->ahead_bytes -= took;
        s->ahead_at += took;
        if (s->ahead_at == s->ahead.len) {
            xi_str_fini(&s->ahead);
            s->ahead_at = 0;
        }
    }
    go_on(h, s);
}

static void keep_ahead(struct xi_http2 *h, struct xi_http2_stream *s, const uint8_t *p, size_t n)
{
    if (s->ahead.cap == 0)
        xi_str_init(&s->ahead, 4 * XI_HTTP2_WINDOW);
    if (s->ahead_at > 0 && s->ahead.len + n > s->ahead.room) {
        s->ahead.len -= s->ahead_at;
        memmove(s->ahead.data, s->ahead.data + s->ahead_at, s->ahead.len);
        s->ahead_at = 0;
    }
    xi_str_add(&s->ahead, p, n);
    if (s->ahead.failed) {
        taken(h, n);
        xi_http2_reset(h, s);
    } else {
        h->ahead_bytes += n;
    }
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *p, size_t n,
                   void *ctx)
{
    struct xi_http2 *h = ctx;
    struct xi_http2_stream *s = nghttp2_session_get_stream_user_data(session, id);
    size_t took = n;

    (void)flags;
    h->data_left -= n < h->data_left ? n : h->data_left;
    earn(h, (uint32_t)(n / 1024));
    if (s != NULL && !s->over) {
        int waits = s->delivering || s->ahead.len > s->ahead_at;
        took = waits ? 0 : deliver(h, s, p, n);
    }
    taken(h, took);
    if (took < n)
        keep_ahead(h, s, p + took, n - took);
    else if (s != NULL && !s->over)
        widen(h, s);
    return 0;
}

uint8_t *xi_http2_place(const struct xi_http2 *h, size_t least, size_t *ret_n)
{
    if (h->data_left < least)
        return NULL;
    const struct xi_http2_stream *s = nghttp2_session_get_stream_user_data(h->session, h->data_id);
    if (s == NULL || s->over || s->ended || s->ahead.len > s->ahead_at)
        return NULL;
    const struct xi_http_stream *q = s->http;
    if (q->sink == NULL || q->paused || q->discard || q->sink_room - q->sink_len < least)
        return NULL;
    uint64_t room = q->sink_room - q->sink_len;
    *ret_n = h->data_left < room ? h->data_left : (size_t)room;
    return q->sink + q->sink_len;
}

/* ---- the head ---- */

/* nghttp2 keeps what comes of such a frame until it is whole. */
static int is_gathered(uint8_t type)
{
    return type != NGHTTP2_DATA && type != NGHTTP2_HEADERS && type != NGHTTP2_CONTINUATION;
}

static int on_begin_frame(nghttp2_session *session, const nghttp2_frame_hd *head, void *ctx)
{
    struct xi_http2 *h = ctx;

    (void)session;
    h->data_id = head->stream_id;
    h->data_left =
        head->type == NGHTTP2_DATA && !(head->flags & NGHTTP2_FLAG_PADDED) ? head->length : 0;
    if (head->length > XI_HTTP2_FRAME_MAX && is_gathered(head->type))
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    if (head->type == NGHTTP2_HEADERS)
        h->continued = 0;
    else if (head->type == NGHTTP2_CONTINUATION && ++h->continued > CONTINUATIONS_MAX)
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    /* Here, not in on_frame: of kinds it passes over nghttp2 says nothing else. */
    if (head->type > NGHTTP2_HEADERS && head->type != NGHTTP2_CONTINUATION)
        count_noise(h);
    return 0;
}

static int on_begin_headers(nghttp2_session *session, const nghttp2_frame *frame, void *ctx)
{
    struct xi_http2 *h = ctx;

    h->heading = NULL;
    if (frame->headers.cat != NGHTTP2_HCAT_REQUEST) {
        h->heading = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
        return 0;
    }
    struct xi_http2_stream *s = h->events->open(h->ctx);
    if (s == NULL)
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    s->id = frame->hd.stream_id;
    s->next = h->streams;
    if (s->next != NULL)
        s->next->prev = s;
    h->streams = h->heading = s;
    h->n_streams++;
    earn(h, 8);
    (void)nghttp2_session_set_stream_user_data(session, s->id, s);
    return 0;
}

static void refuse(struct xi_http2_stream *s, enum xi_rc rc, const char *why)
{
    if (s->refused == XI_OK) {
        s->refused = rc;
        s->why = why;
    }
}

/* Adds text with its end to the arena. Returns where it begins, or 0. */
static uint32_t keep(struct xi_http2_stream *s, const uint8_t *text, size_t n)
{
    struct xi_http_stream *q = s->http;

    if (q->arena_len == 0 && xi_http_arena_add(q, "", 1) != 0) { /* so that 0 is nobody's place */
        refuse(s, XI_ENOMEM, "no memory for the request's head");
        return 0;
    }
    uint32_t at = q->arena_len;
    if (xi_http_arena_add(q, (const char *)text, n) != 0 || xi_http_arena_add(q, "", 1) != 0) {
        refuse(s, XI_ENOMEM, "no memory for the request's head");
        return 0;
    }
    return at;
}

static void keep_pseudo(struct xi_http2_stream *s, const uint8_t *name, size_t name_len,
                        const uint8_t *value, size_t n)
{
    if (name_len == 7 && memcmp(name, ":method", 7) == 0) {
        s->method_at = keep(s, value, n);
    } else if (name_len == 10 && memcmp(name, ":authority", 10) == 0) {
        s->authority_at = keep(s, value, n);
    } else if (name_len == 5 && memcmp(name, ":path", 5) == 0) {
        if (n > XI_HTTP_URL_MAX)
            refuse(s, XI_EHEADERS, "request target longer than 8192 bytes");
        else
            s->path_at = keep(s, value, n);
    }
}

static void keep_line(struct xi_http2_stream *s, const uint8_t *name, size_t name_len,
                      const uint8_t *value, size_t n)
{
    if (s->lines == XI_HTTP_HEADERS_MAX) {
        refuse(s, XI_EHEADERS, "more than 100 headers");
        return;
    }
    uint32_t name_at = keep(s, name, name_len), value_at = keep(s, value, n);
    xi_http_header_at(s->http, s->lines++, name_at, value_at);
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name,
                     size_t name_len, const uint8_t *value, size_t n, uint8_t flags, void *ctx)
{
    struct xi_http2 *h = ctx;
    struct xi_http2_stream *s = h->heading;

    (void)session, (void)frame, (void)flags;
    if (s == NULL)
        return 0;
    s->head_bytes += (uint32_t)(name_len + n + LINE_COST);
    if (s->head_bytes > HEAD_IGNORED)
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    if (s->head_bytes > XI_HTTP_HEAD_MAX)
        refuse(s, XI_EHEADERS, "request head larger than 32768 bytes");
    if (s->begun || s->refused != XI_OK) /* trailers say nothing to us */
        return 0;
    if (name_len > 0 && name[0] == ':')
        keep_pseudo(s, name, name_len, value, n);
    else
        keep_line(s, name, name_len, value, n);
    return 0;
}

/* A line that is none is not passed over: whoever sends it means harm or is broken. */
static int on_bad_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name,
                         size_t name_len, const uint8_t *value, size_t n, uint8_t flags, void *ctx)
{
    (void)name, (void)name_len, (void)value, (void)n, (void)flags, (void)ctx;
    (void)nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, frame->hd.stream_id,
                                    NGHTTP2_PROTOCOL_ERROR);
    return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
}

static enum xi_rc read_lines(struct xi_http_stream *q, struct xi_err *err)
{
    for (uint32_t i = 0; i < q->n_headers; i++) {
        const struct xi_http_header *line = &q->headers[i];
        if (strcmp(line->name, "host") == 0) {
            if (q->host != NULL && strcmp(q->host, line->value) != 0)
                return xi_fail(err, XI_EHTTP, ":authority and host differ");
            q->host = line->value;
        } else if (strcmp(line->name, "expect") == 0) {
            if (strcasecmp(line->value, "100-continue") != 0)
                return xi_fail(err, XI_EHTTP, "Expect: only 100-continue is known");
            q->expects_continue = 1;
        } else if (strcmp(line->name, "content-length") == 0) { /* nghttp2 has read it, too */
            q->content_length = strtoull(line->value, NULL, 10);
        }
    }
    return XI_OK;
}

static enum xi_rc finish_head(struct xi_http2_stream *s, struct xi_err *err)
{
    struct xi_http_stream *q = s->http;

    if (s->refused != XI_OK)
        return xi_fail(err, s->refused, "%s", s->why);
    if (s->method_at == 0 || s->path_at == 0)
        return xi_fail(err, XI_EHTTP, "no :method or no :path");
    xi_http_headers_settle(q, s->lines);
    q->method = q->arena + s->method_at;
    q->host = s->authority_at ? q->arena + s->authority_at : NULL;
    q->content_length = s->ended ? 0 : XI_HTTP_NO_LENGTH;
    enum xi_rc rc = read_lines(q, err);
    return rc != XI_OK ? rc : xi_http_split_target(q, q->arena + s->path_at, err);
}

static void on_head(struct xi_http2 *h, struct xi_http2_stream *s)
{
    struct xi_http_stream *q = s->http;
    struct xi_err err = {0};

    s->begun = s->delivering = 1;
    s->head_bytes = 0; /* trailers have as much */
    q->keep_alive = q->minor = 1;
    if (finish_head(s, &err) != XI_OK) {
        s->over = 1;
        h->events->http.error(h->ctx, q, &err);
    } else {
        q->body_limit = 0;
        h->events->http.head(h->ctx, q);
        if (!s->over && !q->discard && q->content_length != XI_HTTP_NO_LENGTH &&
            q->content_length > q->body_limit)
            fail_stream(h, s, XI_ETOOBIG, "body larger than this route takes");
    }
    s->delivering = 0;
}

static int on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *ctx)
{
    struct xi_http2 *h = ctx;
    struct xi_http2_stream *s;
    int is_data = frame->hd.type == NGHTTP2_DATA, last = frame->hd.flags & NGHTTP2_FLAG_END_STREAM;

    h->frames++;
    if (!is_data && frame->hd.type != NGHTTP2_HEADERS)
        return 0;
    if (is_data && frame->hd.length == 0 && !last)
        count_noise(h);
    s = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
    if (s == NULL)
        return 0;
    s->ended |= last != 0;
    if (!s->begun)
        on_head(h, s);
    if (!s->delivering)
        go_on(h, s);
    return 0;
}

/* ---- the answer ---- */

/* Cuts "name: value\r\n" lines, in place; names become lower-case. */
static size_t cut_lines(char *text, nghttp2_nv *ret, size_t max, uint8_t flags)
{
    size_t n = 0;

    while (*text != '\0' && n < max) {
        char *colon = strchr(text + 1, ':'), *end = colon ? strstr(colon, "\r\n") : NULL;
        if (end == NULL)
            break;
        for (char *p = text; p < colon; p++)
            if (*p >= 'A' && *p <= 'Z')
                *p = (char)(*p + 32);
        char *value = colon + 1 + strspn(colon + 1, " ");
        ret[n++] = (nghttp2_nv){.name = (uint8_t *)text,
                                .namelen = (size_t)(colon - text),
                                .value = (uint8_t *)value,
                                .valuelen = (size_t)(end - value),
                                .flags = flags};
        text = end + 2;
    }
    XI_ASSERT(*text == '\0');
    return n;
}

static void submit_trailers(nghttp2_session *session, struct xi_http2_stream *s)
{
    nghttp2_nv nv[LINES_SENT_MAX];
    struct xi_str text;

    xi_str_init(&text, XI_HTTP_TRAILERS_BYTES);
    xi_str_puts(&text, s->trailers);
    if (!text.failed && text.len > 0)
        (void)nghttp2_submit_trailer(session, s->id, nv,
                                     cut_lines(text.data, nv, LINES_SENT_MAX, 0));
    else
        (void)nghttp2_submit_rst_stream(session, 0, s->id, NGHTTP2_INTERNAL_ERROR);
    xi_str_fini(&text);
}

static ssize_t on_ready(nghttp2_session *session, int32_t id, uint8_t *buf, size_t most,
                        uint32_t *flags, nghttp2_data_source *source, void *ctx)
{
    struct xi_http2 *h = ctx;
    struct xi_http2_stream *s = source->ptr;
    int last = 0;

    (void)id, (void)buf;
    size_t n = h->events->ready(h->ctx, s, most, &last);
    if (n == 0 && !last)
        return NGHTTP2_ERR_DEFERRED;
    *flags |= NGHTTP2_DATA_FLAG_NO_COPY;
    if (last)
        *flags |= NGHTTP2_DATA_FLAG_EOF;
    if (last && s->trailers != NULL) {
        *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
        submit_trailers(session, s);
    }
    return (ssize_t)n;
}

static int on_send_data(nghttp2_session *session, nghttp2_frame *frame, const uint8_t *head,
                        size_t n, nghttp2_data_source *source, void *ctx)
{
    struct xi_http2 *h = ctx;

    (void)session, (void)frame; /* padding is only sent by who asks for it */
    earn(h, 4);
    return h->events->data(h->ctx, source->ptr, head, n) == 0 ? 0 : NGHTTP2_ERR_WOULDBLOCK;
}

int xi_http2_answer(struct xi_http2 *h, struct xi_http2_stream *s, int status, const char *type,
                    uint64_t length, const char *lines, struct xi_str *room, int with_body)
{
    enum { IN_PLACE = NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE };
    nghttp2_data_provider body = {.source = {.ptr = s}, .read_callback = on_ready};
    nghttp2_nv nv[LINES_SENT_MAX];

    xi_str_clear(room);
    xi_str_puts(room, ":status: ");
    xi_str_uint(room, (uint64_t)status, 3);
    if (type != NULL) {
        xi_str_puts(room, "\r\ncontent-type: ");
        xi_str_puts(room, type);
    }
    if (length != XI_HTTP_NO_LENGTH) {
        xi_str_puts(room, "\r\ncontent-length: ");
        xi_str_uint(room, length, 1);
    }
    xi_str_puts(room, "\r\n");
    xi_str_puts(room, lines);
    if (room->failed)
        return -1;
    size_t n = cut_lines(room->data, nv, LINES_SENT_MAX, IN_PLACE);
    return nghttp2_submit_response(h->session, s->id, nv, n, with_body ? &body : NULL) == 0 ? 0
                                                                                            : -1;
}

void xi_http2_unwanted(struct xi_http2 *h, struct xi_http2_stream *s)
{
    s->over = s->http->discard = 1;
    drop_ahead(h, s);
}

void xi_http2_more(struct xi_http2 *h, struct xi_http2_stream *s)
{
    (void)nghttp2_session_resume_data(h->session, s->id); /* fails when it is not asked for: fine */
}

void xi_http2_trailers(struct xi_http2_stream *s, const char *lines)
{
    s->trailers = lines;
}

void xi_http2_welcome(struct xi_http2 *h, struct xi_http2_stream *s)
{
    nghttp2_nv nv[1];
    char line[] = ":status: 100\r\n";

    (void)nghttp2_submit_headers(h->session, NGHTTP2_FLAG_NONE, s->id, NULL, nv,
                                 cut_lines(line, nv, 1, 0), NULL);
}

void xi_http2_reset(struct xi_http2 *h, struct xi_http2_stream *s)
{
    xi_http2_unwanted(h, s);
    (void)nghttp2_submit_rst_stream(h->session, NGHTTP2_FLAG_NONE, s->id, NGHTTP2_CANCEL);
}

static int on_sent(nghttp2_session *session, const nghttp2_frame *frame, void *ctx)
{
    int may_end = frame->hd.type == NGHTTP2_DATA || frame->hd.type == NGHTTP2_HEADERS;
    struct xi_http2_stream *s;

    (void)ctx;
    if (!may_end || !(frame->hd.flags & NGHTTP2_FLAG_END_STREAM))
        return 0;
    s = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
    if (s != NULL)
        s->sent_end = 1;
    return 0;
}

static void leave(struct xi_http2 *h, struct xi_http2_stream *s)
{
    drop_ahead(h, s);
    if (s->prev != NULL)
        s->prev->next = s->next;
    else
        h->streams = s->next;
    if (s->next != NULL)
        s->next->prev = s->prev;
    if (h->heading == s)
        h->heading = NULL;
    h->n_streams--;
    s->over = 1;
}

void xi_http2_forget(struct xi_http2 *h, struct xi_http2_stream *s)
{
    (void)nghttp2_session_set_stream_user_data(h->session, s->id, NULL);
    leave(h, s);
}

static int on_close(nghttp2_session *session, int32_t id, uint32_t code, void *ctx)
{
    struct xi_http2 *h = ctx;
    struct xi_http2_stream *s = nghttp2_session_get_stream_user_data(session, id);

    (void)code;
    if (s == NULL)
        return 0;
    if (!s->sent_end && ++h->cut > CUT_MAX)
        xi_http2_expel(h, "requests given up");
    leave(h, s);
    h->events->closed(h->ctx, s);
    return 0;
}

/* ---- the connection ---- */

static nghttp2_session_callbacks *make_callbacks(void)
{
    nghttp2_session_callbacks *cb;

    if (nghttp2_session_callbacks_new(&cb) != 0)
        return NULL;
    nghttp2_session_callbacks_set_on_begin_frame_callback(cb, on_begin_frame);
    nghttp2_session_callbacks_set_on_begin_headers_callback(cb, on_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback(cb, on_header);
    nghttp2_session_callbacks_set_on_invalid_header_callback(cb, on_bad_header);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(cb, on_data);
    nghttp2_session_callbacks_set_on_frame_recv_callback(cb, on_frame);
    nghttp2_session_callbacks_set_on_frame_send_callback(cb, on_sent);
    nghttp2_session_callbacks_set_on_stream_close_callback(cb, on_close);
    nghttp2_session_callbacks_set_send_data_callback(cb, on_send_data);
    return cb;
}

static nghttp2_option *make_options(void)
{
    nghttp2_option *o;

    if (nghttp2_option_new(&o) != 0)
        return NULL;
    nghttp2_option_set_no_auto_window_update(o, 1);
    nghttp2_option_set_no_closed_streams(o, 1);
    nghttp2_option_set_max_settings(o, SETTINGS_MAX);
    /* 1.52 counts each piece in which their heads come; we count them ourselves. */
    nghttp2_option_set_max_continuations(o, CONTINUATION_PIECES);
    nghttp2_option_set_stream_reset_rate_limit(o, RESETS_BURST, RESETS_PER_S);
    return o;
}

static int greet(nghttp2_session *session)
{
    static const nghttp2_settings_entry settings[] = {
        {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, XI_HTTP2_STREAMS_MAX},
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, XI_HTTP2_WINDOW},
        {NGHTTP2_SETTINGS_MAX_FRAME_SIZE, XI_HTTP2_FRAME_TAKEN},
        {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, XI_HTTP_HEAD_MAX},
        {NGHTTP2_SETTINGS_NO_RFC7540_PRIORITIES, 1}, /* no tree of streams is kept */
    };

    if (nghttp2_submit_settings(session, NGHTTP2_FLAG_NONE, settings,
                                sizeof settings / sizeof *settings) != 0)
        return -1;
    return nghttp2_session_set_local_window_size(session, NGHTTP2_FLAG_NONE, 0,
                                                 XI_HTTP2_CONNECTION);
}

enum xi_rc xi_http2_init(struct xi_http2 *h, const struct xi_http2_events *events, void *ctx,
                         struct xi_err *err)
{
    nghttp2_session_callbacks *cb = make_callbacks();
    nghttp2_option *options = make_options();

    *h = (struct xi_http2){.events = events, .ctx = ctx};
    if (cb == NULL || options == NULL ||
        nghttp2_session_server_new2(&h->session, cb, h, options) != 0)
        h->session = NULL;
    nghttp2_session_callbacks_del(cb);
    nghttp2_option_del(options);
    if (h->session != NULL && greet(h->session) == 0)
        return XI_OK;
    xi_http2_fini(h);
    return xi_fail(err, XI_ENOMEM, "no memory for a connection");
}

void xi_http2_fini(struct xi_http2 *h)
{
    nghttp2_session_del(h->session); /* NULL is fine */
    h->session = NULL;
}

int xi_http2_feed(struct xi_http2 *h, const void *data, size_t n)
{
    return nghttp2_session_mem_recv(h->session, data, n) < 0 ? -1 : 0;
}

long xi_http2_pull(struct xi_http2 *h, const uint8_t **ret)
{
    ssize_t n = nghttp2_session_mem_send(h->session, ret);

    return n < 0 ? -1 : (long)n;
}

int xi_http2_done(const struct xi_http2 *h)
{
    return !nghttp2_session_want_read(h->session) && !nghttp2_session_want_write(h->session);
}

void xi_http2_announce(struct xi_http2 *h)
{
    (void)nghttp2_submit_shutdown_notice(h->session);
}

void xi_http2_goaway(struct xi_http2 *h)
{
    int32_t last = nghttp2_session_get_last_proc_stream_id(h->session);

    (void)nghttp2_submit_goaway(h->session, NGHTTP2_FLAG_NONE, last, NGHTTP2_NO_ERROR, NULL, 0);
}
