/* streams.h: clients that want to hear more: events, telemetry. Loop thread; private to this room.
 *
 * A stream is an exchange that answers with server-sent events until its client goes, the server
 * drains, or its source has no more. One timer serves them all and stands still while there is
 * none. Streams with the same interval are due at the same time, so they can share what is made
 * for them. */
#ifndef XI_DAEMON_API_STREAMS_H
#define XI_DAEMON_API_STREAMS_H

#include <stdint.h>
#include <uv.h>

#include "base/status.h"

struct xi_exchange;

struct xi_stream {
    struct xi_stream *prev, *next;
    struct xi_exchange *x;
    uint32_t interval_ms;
    uint64_t due_ms;
    /* Sends what is new. What takes longer calls xi_stream_hold first and xi_stream_release when
     * it is done: in between there is no other tick and the stream stays, client or not. */
    void (*tick)(struct xi_stream *s);
    void (*free)(struct xi_stream *s);
    unsigned held;
    int ending; /* no ticks any more: it goes when nobody holds it */
};

struct xi_streams {
    uv_timer_t timer;
    struct xi_stream *first;
    uint32_t n;
};

/* ctx: the server, the timer's data. */
void xi_streams_init(struct xi_streams *all, uv_loop_t *loop, void *ctx);
/* All end as if their source had. */
void xi_streams_end(struct xi_streams *all);
/* After the connections were closed; closed is called for the timer. */
void xi_streams_close(struct xi_streams *all, uv_close_cb closed);

/* Begins the answer and takes s (free() of it is s->free). tick, free and interval_ms are set; the
 * first tick comes at once. EAGAIN: too many streams; s is freed then, too, and the problem is the
 * caller's to answer. */
enum xi_rc xi_stream_open(struct xi_exchange *x, struct xi_stream *s,
                          struct xi_err *err) XI_MUST_CHECK;
void xi_stream_hold(struct xi_stream *s);
void xi_stream_release(struct xi_stream *s);

#endif
