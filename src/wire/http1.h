/* http1.h: HTTP/1.1 requests (RFC 9112) over llhttp in its strict mode, and the head of an answer.
 * One thread at a time; no I/O. One request at a time: after `end` nothing is taken until
 * xi_http1_next, so a pipelining client's bytes wait with the caller. */
#ifndef XI_WIRE_HTTP1_H
#define XI_WIRE_HTTP1_H

#include <llhttp.h>

#include "base/str.h"
#include "wire/http.h"

enum xi_http1_state { XI_HTTP1_HEAD, XI_HTTP1_BODY, XI_HTTP1_DONE, XI_HTTP1_FAILED };

struct xi_http1 {
    llhttp_t parser;
    enum xi_http1_state state;
    const struct xi_http_events *events;
    void *ctx;
    struct xi_http_stream *stream; /* of the request under way */
    uint64_t head_bytes, framing_bytes, extension_bytes, trailer_bytes;
    uint32_t lines, trailers;
    uint32_t url_len, field_at, value_at; /* offsets in the arena */
    int in_value, head_done, message_done, host_count;
    struct xi_err err; /* set inside a parser callback */
};

void xi_http1_init(struct xi_http1 *h, const struct xi_http_events *events, void *ctx);
/* The stream the next request is read into (reset by the caller). NULL: none, nothing is taken. */
void xi_http1_next(struct xi_http1 *h, struct xi_http_stream *stream);
/* Takes bytes until it needs the owner (paused, end, error) or has used them up. Returns how many
 * it took; the caller keeps the rest. Call with n 0 after un-pausing a stream. */
size_t xi_http1_feed(struct xi_http1 *h, const void *data, size_t n);
/* Where the next bytes of the connection should be read to, so that the body is not copied.
 * *ret_n is 0 when any buffer will do. */
void xi_http1_window(const struct xi_http1 *h, uint8_t **ret, size_t *ret_n);

/* Status line and the headers every answer has; the caller adds "Name: value\r\n" lines and the
 * empty line. length XI_HTTP_NO_LENGTH: chunked. */
void xi_http1_answer(struct xi_str *s, int status, const char *type, uint64_t length,
                     int keep_alive);

#endif
