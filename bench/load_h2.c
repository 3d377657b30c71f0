/* load_h2.c: the load generator over HTTP/2 with prior knowledge, and gRPC's unary calls over that.
 * nghttp2 makes and reads the frames; all that is due on a connection leaves in one send. */
#define _GNU_SOURCE
#include <errno.h>
#include <nghttp2/nghttp2.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "load.h"

enum { OUT_ENOUGH = 1 << 18, FRAME_MAX = 1 << 17, FRAME_HEAD = 9, GRPC_HEAD = 5 };

struct h2 {
    struct run *run;
    nghttp2_session *session;
    int reading; /* nghttp2 is at work; it must not be entered again */
    size_t out_len, out_sent;
    uint8_t out[OUT_ENOUGH + FRAME_MAX + FRAME_HEAD];
};

/* The request's headers are the same each time; names and values are borrowed for good. */
static nghttp2_nv request_headers[HEADERS_MAX + 8];
static size_t n_request_headers;

static int is_grpc(const struct run *r)
{
    return r->o.protocol == &protocol_grpc;
}

static void add_header(const char *name, const char *value)
{
    request_headers[n_request_headers++] =
        (nghttp2_nv){.name = (uint8_t *)(uintptr_t)name,
                     .namelen = strlen(name),
                     .value = (uint8_t *)(uintptr_t)value,
                     .valuelen = strlen(value),
                     .flags = NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE};
}

/* "Name: value" as HTTP/2 wants it: the name in lower case. */
static void add_line(const char *line)
{
    char *name = strdup(line);

    if (name == NULL || strchr(name, ':') == NULL)
        die(line);
    char *value = strchr(name, ':');
    *value++ = '\0';
    for (char *p = name; *p != '\0'; p++)
        if (*p >= 'A' && *p <= 'Z')
            *p = (char)(*p - 'A' + 'a');
    add_header(name, value + strspn(value, " "));
}

static void prepare(struct run *r)
{
    size_t lead = is_grpc(r) ? GRPC_HEAD : 0;

    read_body(r, lead);
    size_t message = r->request_bytes - lead;
    for (size_t i = 0; i < lead; i++)
        r->request[i] = (char)(i == 0 ? 0 : message >> 8 * (GRPC_HEAD - 1 - i));
    add_header(":method", r->o.body_file || is_grpc(r) ? "POST" : "GET");
    add_header(":scheme", "http");
    add_header(":path", r->o.path);
    add_header(":authority", "localhost");
    if (is_grpc(r)) {
        add_header("content-type", "application/grpc");
        add_header("te", "trailers");
    } else if (r->o.body_file) {
        static char length[32];
        (void)snprintf(length, sizeof length, "%zu", message);
        add_header("content-length", length);
    }
    for (int i = 0; i < r->o.n_headers; i++)
        add_line(r->o.headers[i]);
}

static void append(struct h2 *h, const void *data, size_t n)
{
    memcpy(h->out + h->out_len, data, n);
    h->out_len += n;
}

/* Sends what nghttp2 has to say, in large pieces; an error is told by reading. */
static void flush(struct run *r, struct connection *c)
{
    struct h2 *h = c->state;
    const uint8_t *data = NULL;
    ssize_t n;

    (void)r;
    for (;;) {
        if (h->out_sent == h->out_len)
            h->out_sent = h->out_len = 0;
        while (h->out_len < OUT_ENOUGH && (n = nghttp2_session_mem_send(h->session, &data)) > 0)
            append(h, data, (size_t)n);
        if (h->out_sent == h->out_len)
            return;
        n = send(c->fd, h->out + h->out_sent, h->out_len - h->out_sent, MSG_NOSIGNAL);
        if (n <= 0)
            return;
        h->out_sent += (size_t)n;
    }
}

static ssize_t on_frame_length(nghttp2_session *session, uint8_t frame_type, int32_t stream,
                               int32_t session_window, int32_t stream_window, uint32_t frame_max,
                               void *ctx)
{
    int32_t n = session_window < stream_window ? session_window : stream_window;

    (void)session;
    (void)frame_type;
    (void)stream;
    (void)ctx;
    if ((uint32_t)n > frame_max)
        n = (int32_t)frame_max;
    return n < FRAME_MAX ? n : FRAME_MAX;
}

static ssize_t on_body_wanted(nghttp2_session *session, int32_t stream, uint8_t *buf, size_t room,
                              uint32_t *flags, nghttp2_data_source *source, void *ctx)
{
    const struct h2 *h = ctx;
    const struct ask *a = source->ptr;
    size_t left = h->run->request_bytes - a->sent;

    (void)session;
    (void)stream;
    (void)buf;
    *flags = NGHTTP2_DATA_FLAG_NO_COPY;
    if (left <= room)
        *flags |= NGHTTP2_DATA_FLAG_EOF;
    return (ssize_t)(left < room ? left : room);
}

static int on_send_data(nghttp2_session *session, nghttp2_frame *frame, const uint8_t *head,
                        size_t n, nghttp2_data_source *source, void *ctx)
{
    struct h2 *h = ctx;
    struct ask *a = source->ptr;

    (void)session;
    (void)frame;
    if (h->out_len >= OUT_ENOUGH)
        return NGHTTP2_ERR_WOULDBLOCK;
    append(h, head, FRAME_HEAD);
    append(h, h->run->request + a->sent, n);
    a->sent += n;
    return 0;
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name,
                     size_t name_len, const uint8_t *value, size_t value_len, uint8_t flags,
                     void *ctx)
{
    struct ask *a = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
    char text[16];

    (void)flags;
    (void)ctx;
    if (a == NULL || value_len >= sizeof text)
        return 0;
    memcpy(text, value, value_len);
    text[value_len] = '\0';
    if (name_len == 7 && memcmp(name, ":status", 7) == 0)
        a->status = (int)strtol(text, NULL, 10);
    else if (name_len == 11 && memcmp(name, "grpc-status", 11) == 0)
        a->grpc_status = (int)strtol(text, NULL, 10);
    return 0;
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t stream, const uint8_t *data,
                   size_t n, void *ctx)
{
    struct h2 *h = ctx;
    struct ask *a = nghttp2_session_get_stream_user_data(session, stream);

    (void)flags;
    if (a == NULL)
        return 0;
    for (; is_grpc(h->run) && n > 0 && a->received < GRPC_HEAD; n--)
        a->frame[a->received++] = *data++;
    a->received += n;
    keep_tail(h->run, a, data, n);
    return 0;
}

/* A unary answer is one frame, not compressed, and all of it came. */
static int is_whole_frame(const struct ask *a)
{
    const uint8_t *f = a->frame;
    size_t length = (size_t)f[1] << 24 | (size_t)f[2] << 16 | (size_t)f[3] << 8 | f[4];

    return a->received >= GRPC_HEAD && f[0] == 0 && a->received - GRPC_HEAD == length;
}

static int on_stream_close(nghttp2_session *session, int32_t stream, uint32_t error, void *ctx)
{
    struct h2 *h = ctx;
    struct ask *a = nghttp2_session_get_stream_user_data(session, stream);

    if (a == NULL)
        return 0;
    if (is_grpc(h->run) && a->grpc_status > 0)
        a->status = 500 + a->grpc_status;
    else if (error != NGHTTP2_NO_ERROR ||
             (is_grpc(h->run) && (a->grpc_status != 0 || !is_whole_frame(a))))
        a->status = 0;
    finish(h->run, a);
    return 0;
}

static nghttp2_session *new_session(struct h2 *h)
{
    nghttp2_session_callbacks *cb = NULL;
    nghttp2_option *option = NULL;
    nghttp2_session *session = NULL;

    if (nghttp2_session_callbacks_new(&cb) != 0 || nghttp2_option_new(&option) != 0)
        die("memory");
    nghttp2_session_callbacks_set_send_data_callback(cb, on_send_data);
    nghttp2_session_callbacks_set_data_source_read_length_callback(cb, on_frame_length);
    nghttp2_session_callbacks_set_on_header_callback(cb, on_header);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(cb, on_data);
    nghttp2_session_callbacks_set_on_stream_close_callback(cb, on_stream_close);
    nghttp2_option_set_no_closed_streams(option, 1);
    if (nghttp2_session_client_new2(&session, cb, h, option) != 0)
        die("memory");
    nghttp2_session_callbacks_del(cb);
    nghttp2_option_del(option);
    return session;
}

static void open_h2(struct run *r, struct connection *c)
{
    const nghttp2_settings_entry settings[] = {{NGHTTP2_SETTINGS_ENABLE_PUSH, 0},
                                               {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, INT32_MAX},
                                               {NGHTTP2_SETTINGS_MAX_FRAME_SIZE, FRAME_MAX}};
    struct h2 *h = calloc(1, sizeof *h);

    if (h == NULL)
        die("memory");
    h->run = r;
    h->session = new_session(h);
    if (nghttp2_submit_settings(h->session, NGHTTP2_FLAG_NONE, settings, 3) != 0 ||
        nghttp2_session_set_local_window_size(h->session, NGHTTP2_FLAG_NONE, 0, INT32_MAX) != 0)
        die("memory");
    c->state = h;
}

static void close_h2(struct connection *c)
{
    struct h2 *h = c->state;

    nghttp2_session_del(h->session);
    free(h);
    c->state = NULL;
}

/* May be called by a callback of nghttp2: what is due then leaves when all was read. */
static void begin(struct run *r, struct ask *a)
{
    struct h2 *h = a->on->state;
    const nghttp2_data_provider body = {.source.ptr = a, .read_callback = on_body_wanted};

    if (nghttp2_submit_request(h->session, NULL, request_headers, n_request_headers,
                               r->request_bytes ? &body : NULL, a) < 0)
        die("memory");
    if (!h->reading)
        flush(r, a->on);
}

static int receive(struct run *r, struct connection *c)
{
    static uint8_t buf[1 << 18];
    struct h2 *h = c->state;
    ssize_t n;

    h->reading = 1;
    while ((n = read(c->fd, buf, sizeof buf)) > 0)
        if (nghttp2_session_mem_recv(h->session, buf, (size_t)n) < 0 ||
            !nghttp2_session_want_read(h->session))
            return 0;
    h->reading = 0;
    if (n == 0 || errno != EAGAIN)
        return 0;
    flush(r, c);
    return 1;
}

const struct protocol protocol_h2 = {.name = "h2",
                                     .prepare = prepare,
                                     .open = open_h2,
                                     .close = close_h2,
                                     .begin = begin,
                                     .writable = flush,
                                     .readable = receive};

const struct protocol protocol_grpc = {.name = "grpc",
                                       .prepare = prepare,
                                       .open = open_h2,
                                       .close = close_h2,
                                       .begin = begin,
                                       .writable = flush,
                                       .readable = receive};
