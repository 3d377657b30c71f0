/* http.h: one HTTP request as every codec of this room hands it out (http1.h, http2.h).
 * One thread at a time; no I/O.
 *
 * A codec fills in the head and calls `head`; from then on body bytes go straight to the stream's
 * sink, which the owner sets there or later: no body byte passes through a callback. Names of
 * headers are lower-case; strings lie in the stream's arena until xi_http_stream_reset. */
#ifndef XI_WIRE_HTTP_H
#define XI_WIRE_HTTP_H

#include <stddef.h>
#include <stdint.h>

#include "base/limits.h"
#include "base/status.h"

#define XI_HTTP_NO_LENGTH       UINT64_MAX
#define XI_HTTP_TRAILERS_BYTES  (8 * XI_KIB)
#define XI_HTTP_CHUNK_EXT_BYTES (4 * XI_KIB)

struct xi_http_header {
    const char *name, *value;
};

struct xi_http_stream {
    char *arena; /* heap, kept for the next request */
    uint32_t arena_len, arena_room;

    /* Head. */
    const char *method, *path, *query, *host; /* query "" when there is none; host NULL: none */
    struct xi_http_header headers[XI_HTTP_HEADERS_MAX];
    uint32_t n_headers;
    uint64_t content_length; /* XI_HTTP_NO_LENGTH: chunked */
    int expects_continue, keep_alive, minor;

    /* Body: the owner's. A body longer than the limit is refused with ETOOBIG. */
    uint64_t body_limit;
    uint8_t *sink;
    uint64_t sink_len, sink_room;
    int discard;               /* nobody wants the body: count and drop it */
    int eager;                 /* HTTP/2: `full` comes with the byte that fills the sink */
    int paused;                /* no bytes are taken until xi_..._resume */
    uint64_t received, copied; /* body bytes; those that were copied by us on their way */
};

/* Called from inside feed, never from inside the parser: the owner may change the stream. */
struct xi_http_events {
    /* The head is complete. Set sink (or discard, or paused), body_limit. */
    void (*head)(void *ctx, struct xi_http_stream *s);
    /* The sink is full and more may come: empty it, give a larger one, or pause. */
    void (*full)(void *ctx, struct xi_http_stream *s);
    void (*end)(void *ctx, struct xi_http_stream *s);
    /* The bytes were no HTTP, or met a limit; nothing else comes from this stream. The head may
     * be incomplete. */
    void (*error)(void *ctx, struct xi_http_stream *s, const struct xi_err *err);
};

void xi_http_stream_reset(struct xi_http_stream *s); /* keeps the arena; zeroed is fine */
void xi_http_stream_fini(struct xi_http_stream *s);
/* The value of a header (lower-case name), or NULL. */
const char *xi_http_header(const struct xi_http_stream *s, const char *name);

/* How many lines of a header there are. */
uint32_t xi_http_count(const struct xi_http_stream *s, const char *name);

/* For the codecs of this room. Bytes are added to the arena, at most a head's cap of them; -1: no
 * memory. Header lines are kept as offsets in it until it has stopped moving; n_headers stays 0
 * till then, so that nobody takes them for pointers. */
int xi_http_arena_add(struct xi_http_stream *s, const char *at, size_t n);
void xi_http_header_at(struct xi_http_stream *s, uint32_t i, uint32_t name_at, uint32_t value_at);
void xi_http_headers_settle(struct xi_http_stream *s, uint32_t n);
/* The target in the arena becomes path, query and, in absolute form, host. Needs the method. */
enum xi_rc xi_http_split_target(struct xi_http_stream *s, char *target,
                                struct xi_err *err) XI_MUST_CHECK;

/* 1 when a comma-separated header value holds this token (case does not matter). */
int xi_http_has_token(const char *value, const char *token);
/* 1 when an Accept-Encoding's value names this coding and does not give it the weight 0. */
int xi_http_accepts_coding(const char *value, const char *coding);
/* Media type of a Content-Type or one element of Accept, lower-case, without parameters. Writes
 * at most room bytes; "" when it does not fit. */
void xi_http_media_type(const char *value, char *ret, size_t room);
/* %XX decoded; EINVAL for a broken escape, NUL, or when it does not fit. */
enum xi_rc xi_http_percent_decode(const char *text, size_t n, char *ret, size_t room,
                                  struct xi_err *err) XI_MUST_CHECK;
const char *xi_http_reason(int status); /* "Not Found" */

#endif
