/* http2.h: HTTP/2 (RFC 9113) over nghttp2, the server's side with prior knowledge. One thread at a
 * time; no I/O, no clock. One struct xi_http2 per connection, one xi_http2_stream per request.
 *
 * In: bytes are fed; heads, bodies and ends come as the events of http.h, so that whoever serves
 * HTTP/1.1 serves this. A body byte is copied once, to the stream's sink; what of a large frame is
 * read where xi_http2_place says is not copied at all. What comes while a stream is paused or has
 * no sink is kept, and the client may send no more than its window: 256 KiB, and as much beyond as
 * the sink has room for. Out: answers are queued; xi_http2_pull hands out what is to be written, in
 * its order, and for the bytes of bodies the owner is asked where they lie (`ready`, then `data`):
 * they are not copied.
 *
 * Events come from inside feed, resume and pull; from there every function may be called but feed,
 * pull and fini. */
#ifndef XI_WIRE_HTTP2_H
#define XI_WIRE_HTTP2_H

#include "base/str.h"
#include "wire/http.h"

#define XI_HTTP2_HEAD_BYTES 9             /* of every frame */
#define XI_HTTP2_FRAME_MAX  (16 * XI_KIB) /* of a frame that we send */
#define XI_HTTP2_PREFACE    "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

struct nghttp2_session;

/* The owner's memory: zeroed but for `http` when `open` returns it, until `closed`. */
struct xi_http2_stream {
    struct xi_http_stream *http;
    struct xi_http2_stream *prev, *next; /* the connection's, newest first */
    int32_t id;
    /* Of the codec. */
    struct xi_str ahead; /* of the body, what nobody could take yet */
    size_t ahead_at;
    uint32_t head_bytes, lines, method_at, path_at, authority_at; /* _at: in the arena */
    enum xi_rc refused;                                           /* what is wrong with the head */
    const char *why, *trailers;
    int begun;        /* the head was told */
    int ended;        /* the client has sent everything */
    int over;         /* its end, or an error, was told: no event but `closed` comes */
    int delivering;   /* inside its events */
    int sent_end;     /* our side is complete */
    unsigned lingers; /* quarters of a second since then */
};

struct xi_http2_events {
    struct xi_http_events http; /* http.h; with the same ctx */
    /* A request begins. NULL: no memory, it is refused. */
    struct xi_http2_stream *(*open)(void *ctx);
    /* The stream is no more: answered, or given up by the client (sent_end is 0). */
    void (*closed)(void *ctx, struct xi_http2_stream *s);
    /* How many bytes of the body can go out now, at most `most`; *ret_last: they are its last. */
    size_t (*ready)(void *ctx, struct xi_http2_stream *s, size_t most, int *ret_last);
    /* Those n bytes go out now, behind these of their frame. 0; -1: not now, ask with the next
     * pull. */
    int (*data)(void *ctx, struct xi_http2_stream *s, const uint8_t head[XI_HTTP2_HEAD_BYTES],
                size_t n);
};

struct xi_http2 {
    struct nghttp2_session *session;
    const struct xi_http2_events *events;
    void *ctx;
    struct xi_http2_stream *streams, *heading; /* open ones; the one whose head is coming */
    uint32_t n_streams;
    uint64_t frames, ahead_bytes; /* that came; of all streams */
    size_t data_left;             /* of the body's frame that is coming */
    int32_t data_id;              /* and its stream */
    unsigned continued;           /* frames of the head that is coming */
    uint32_t noise, cut; /* frames that bring nothing, streams given up; forgiven with time */
    const char *flood;   /* the client is told to go; why */
};

enum xi_rc xi_http2_init(struct xi_http2 *h, const struct xi_http2_events *events, void *ctx,
                         struct xi_err *err) XI_MUST_CHECK;
/* No `closed` comes: streams are forgotten before. */
void xi_http2_fini(struct xi_http2 *h);
/* Takes all bytes. -1: the connection cannot go on; what pull still gives says why. */
int xi_http2_feed(struct xi_http2 *h, const void *data, size_t n) XI_MUST_CHECK;
/* Where the next bytes are best read to, and how many: the rest of a body's frame, in the sink it
 * is for; fed from there, they are not copied. NULL: where `least` bytes or more would not fit,
 * anywhere will do. */
uint8_t *xi_http2_place(const struct xi_http2 *h, size_t least, size_t *ret_n);
/* The stream was un-paused, or has a sink now. */
void xi_http2_resume(struct xi_http2 *h, struct xi_http2_stream *s);

/* An answer. lines: "Name: value\r\n" …; type NULL: none; length XI_HTTP_NO_LENGTH: not said.
 * room: is written to, and lives as long as the stream. with_body: `ready` is asked for it. -1: no
 * memory. */
int xi_http2_answer(struct xi_http2 *h, struct xi_http2_stream *s, int status, const char *type,
                    uint64_t length, const char *lines, struct xi_str *room, int with_body);
/* Nothing that the client still sends matters: it is dropped, and no event comes of it. A
 * second after our side is complete it is told to stop. */
void xi_http2_unwanted(struct xi_http2 *h, struct xi_http2_stream *s);
/* `ready` has something to say again. */
void xi_http2_more(struct xi_http2 *h, struct xi_http2_stream *s);
/* Lines that follow the body's last byte; they live as long as the stream. NULL: none. */
void xi_http2_trailers(struct xi_http2_stream *s, const char *lines);
void xi_http2_welcome(struct xi_http2 *h, struct xi_http2_stream *s); /* 100 Continue */
/* Gives the stream up: the client or we are too slow for it. `closed` comes with a pull. */
void xi_http2_reset(struct xi_http2 *h, struct xi_http2_stream *s);
/* The owner leaves the stream before it is closed. */
void xi_http2_forget(struct xi_http2 *h, struct xi_http2_stream *s);
/* The client is told to calm down, and that it ends now. what: for the log, lives on. */
void xi_http2_expel(struct xi_http2 *h, const char *what);
/* It ends soon: the client should open no more streams; those on their way are taken. */
void xi_http2_announce(struct xi_http2 *h);
/* No new streams; those that are open end in peace. */
void xi_http2_goaway(struct xi_http2 *h);

/* The next bytes to write, good until the next call; 0: none now. -1: as of feed. */
long xi_http2_pull(struct xi_http2 *h, const uint8_t **ret);
/* Nothing is left to read or to write: the connection is to be closed. */
int xi_http2_done(const struct xi_http2 *h);
/* May the client send more of this body now, as far as windows go? */
int xi_http2_listens(const struct xi_http2 *h, const struct xi_http2_stream *s);
/* Every quarter of a second: some of what was counted against the client is forgiven. */
void xi_http2_forgive(struct xi_http2 *h);

#endif
