/* exchange.h: one request of a client and its answer. Loop thread.
 *
 * An exchange belongs to its connection until the client goes, and to a handler while `pending`;
 * it goes back to the server's free list when neither holds it and no write is under way. A
 * handler ends in exactly one xi_answer_…, also when the client has gone (it is then dropped). */
#ifndef XI_DAEMON_API_EXCHANGE_H
#define XI_DAEMON_API_EXCHANGE_H

#include <jansson.h>
#include <uv.h>

#include "base/str.h"
#include "daemon/api/gate.h"
#include "daemon/api/http_server.h"
#include "daemon/api/routes.h"
#include "daemon/core/service.h"
#include "daemon/loop/workers.h"
#include "wire/http2.h"
#include "wire/inflate.h"

#define XI_ANSWER_PIECES (XI_TENSORS_MAX + 8)

struct xi_carrier;
struct xi_conn;
struct xi_grpc;
struct xi_infer;
struct xi_package_upload;
struct xi_unpack;

/* Of an answer that is server-sent events. */
struct xi_event_flow {
    uint64_t given_bytes, moved_bytes; /* to the carrier; that left it when last looked */
    uint64_t moved_ms, sent_ms;        /* when something left; when something was given */
    uint64_t dropped;                  /* events since the last one that was sent */
};

/* Bytes of an answer in parts, which go out as they lie. The caller's, with its pieces, and not
 * touched until `released` is called: once, when they are written or the client has gone. */
struct xi_send {
    const uv_buf_t *pieces;
    unsigned n_pieces;
    void (*released)(struct xi_send *send);
    /* Of the carrier. */
    struct xi_exchange *x;
    struct xi_send *next;
    unsigned at, flying; /* the piece that goes next; writes under way that read them */
    size_t offset, left; /* in that piece; of all of them */
};

/* Of an exchange on HTTP/2: what goes out, and at what pace. */
struct xi_flow {
    struct xi_send *first, **tail, whole;     /* whole: of an answer that is known at once */
    size_t left;                              /* bytes of them all that have not gone */
    int last;                                 /* nothing comes behind them */
    uint64_t in_ms, out_ms;                   /* since then the client is watched */
    uint64_t in_bytes, out_bytes, gone_bytes; /* what had moved by then; went out in all */
};

struct xi_exchange {
    struct xi_http_server *server;
    const struct xi_carrier *carrier; /* NULL: the client has gone (xi_exchange_gone) */
    struct xi_conn *conn;             /* the carrier's; NULL likewise */
    struct xi_http_stream stream;
    struct xi_http2_stream h2;
    struct xi_flow flow;
    const struct xi_route *route;
    struct xi_identity who;
    char param[XI_PARAM_MAX + 1];     /* of the route's {…}, decoded and checked */
    char version[XI_VERSION_MAX + 1]; /* of its second one; "" : it has none */
    uint64_t born_ns;
    uint64_t request; /* number of the inference that was made of it; 0: none */

    /* Body: text of small JSON, or a slot. pad: bytes before it, for alignment. */
    struct xi_str text;
    struct xi_slot *slot;
    uint64_t pad;
    struct xi_slot *larger;   /* while a body moves to it */
    struct xi_work work;      /* while it does, is unpacked, or its answer is packed */
    struct xi_unpack *unpack; /* of a compressed body; else NULL */
    int waiting;              /* for a slot or a session, in the server's list */
    int (*wait_retry)(struct xi_exchange *x, uint64_t now_ns);
    uint64_t wait_bytes, wait_until_ns;
    struct xi_exchange *wait_next;

    int pending; /* a handler works on it */
    int answered;
    int held;      /* a caller up the stack still looks at it */
    int writing;   /* writes under way that read its memory */
    int streaming; /* server-sent events have begun */
    int begun;     /* an answer in parts has */
    int unhurried; /* of a streaming body: nothing needs to come now, it is between two messages */
    struct xi_event_flow events;
    void (*gone)(struct xi_exchange *x);    /* the client went away while pending; may be NULL */
    void (*release)(struct xi_exchange *x); /* before it is used again; may be NULL */
    /* Answers a problem in the words of another protocol; NULL: problem+json. */
    void (*problem)(struct xi_exchange *x, const struct xi_err *err);

    struct xi_infer *infer; /* kept with the exchange, NULL until its first inference */
    struct xi_grpc *grpc;   /* likewise, until its first RPC */
    struct xi_package_upload *upload;
    void *job; /* of the handler under way */

    /* Answer. */
    int status;
    unsigned retry_after_s; /* of a problem with 429 or 503; 0: one second */
    struct xi_str head, extra, body;
    uv_buf_t pieces[XI_ANSWER_PIECES];
    unsigned n_pieces;
    enum xi_coding packing; /* of an answer that leaves compressed */
    const char *packed_type;
    struct xi_str packed;
    uv_write_t write;
    struct xi_exchange *free_next;
};

struct xi_exchange *xi_exchange_take(struct xi_http_server *server,
                                     const struct xi_carrier *carrier, struct xi_conn *conn);
/* Has the client gone? Work that is not begun yet need not be. */
int xi_exchange_gone(const struct xi_exchange *x);
/* Is the client on this machine, as far as its connection shows? */
int xi_exchange_is_near(const struct xi_exchange *x);
/* The handler has set stream.paused to 0: the body goes on. */
void xi_exchange_resume(struct xi_exchange *x);
/* The carrier lets go of it. */
void xi_exchange_detach(struct xi_exchange *x);
/* Frees or keeps it if nobody holds it any more. Returns 1 when it is gone. */
int xi_exchange_settle(struct xi_exchange *x);
void xi_exchange_destroy(struct xi_exchange *x);

/* What the codec says. */
void xi_exchange_head(struct xi_exchange *x);
void xi_exchange_full(struct xi_exchange *x);
void xi_exchange_end(struct xi_exchange *x);

/* body.c: where the body goes. Each ends in a sink, a paused stream, or an answer. */
void xi_body_text(struct xi_exchange *x);
void xi_body_slot(struct xi_exchange *x, uint64_t pad);
/* Tells a client that waits for 100 Continue to go on. */
void xi_body_welcome(struct xi_exchange *x);
/* Pauses the body and asks retry every few milliseconds until it returns 1, having called
 * xi_body_wait_over and gone on or answered; the stream's body must not be empty. ms is kept in
 * wait_until_ns, which retry heeds. */
void xi_body_wait(struct xi_exchange *x, int (*retry)(struct xi_exchange *x, uint64_t now_ns),
                  unsigned ms);
void xi_body_wait_over(struct xi_exchange *x);
unsigned xi_body_waiting(const struct xi_http_server *server);
/* Tries again for those that wait for a slot or a session. Returns how many still wait. */
unsigned xi_body_retry(struct xi_http_server *server);
void xi_body_forget(struct xi_exchange *x);
/* Of a route that takes text: the body as a JSON object (json_decref). NULL after a problem was
 * answered. */
json_t *xi_body_object(struct xi_exchange *x);
uint8_t *xi_body_data(const struct xi_exchange *x); /* NULL when empty */
/* The body as handlers see it, whatever it was compressed with: its length, known at its head
 * (XI_HTTP_NO_LENGTH: not yet); bytes of it that are here. */
uint64_t xi_body_length(const struct xi_exchange *x);
uint64_t xi_body_bytes(const struct xi_exchange *x);
/* For unpack.c: more room. 0: it was answered, or a worker copies and on we go later. */
int xi_body_grow(struct xi_exchange *x);

/* answer.c. Header lines of an answer's own ("Name: value\r\n") stand in x->extra. */
/* Adds the lines that every answer has. */
void xi_answer_common(struct xi_exchange *x);
/* body holds the text. type NULL: no body. */
void xi_answer_body(struct xi_exchange *x, int status, const char *type);
/* Adds bytes to what xi_answer_pieces sends; they live until `release` is called. */
void xi_answer_add(struct xi_exchange *x, const void *bytes, size_t n);
void xi_answer_pieces(struct xi_exchange *x, int status, const char *type);
void xi_answer_problem(struct xi_exchange *x, const struct xi_err *err);
/* For callbacks of the core: 1 and the problem is answered when err says so, or when nothing came
 * (`got` is NULL), which must not be; what: "the load". 0: go on with what came. */
int xi_answer_failed(struct xi_exchange *x, const struct xi_err *err, const void *got,
                     const char *what);
/* Answers in parts with trailers (gRPC), where the carrier can: HTTP/2. Of the functions above they
 * take the place; the last one is the answer, in that x may be gone after it and `pending` ends.
 *
 * How a handler of such a route (XI_TAKES_OWN) lives:
 *   begin  The head has passed the gate; what is no fit is answered, xi_answer_parts_ok asked. It
 *          sets stream.sink and sink_room to where the next bytes belong (a message's five first)
 *          and stream.eager, and calls xi_body_welcome. To be told when the client goes it sets
 *          x->gone and x->pending: then xi_answer_end_parts is owed, once, also when it has gone.
 *   full   The sink is full: with eager by its last byte, not by the one after. The next place is
 *          set (sink, sink_room, sink_len 0), or stream.paused: then nothing more is taken than
 *          the client's window lets through, until paused is 0 again and xi_exchange_resume.
 *          x->unhurried says that the client may take its time (between two messages).
 *   run    The client has no more to say; sink_len bytes are an unfinished piece. `pending` is set.
 *   problem (x->problem)  The codec or the server refuses the request midway (a body over its
 *          limit, a client too slow): xi_answer_end_parts is owed, as an answer would be.
 * begin_parts, sends and the end may come in any of these calls or later; nothing is copied, and
 * what comes in one turn of the loop leaves in one write. */
int xi_answer_parts_ok(const struct xi_exchange *x);
/* Status, type and the lines in x->extra go out. Sets pending. */
void xi_answer_begin_parts(struct xi_exchange *x, int status, const char *type);
/* `released` is called from here only when the client has gone. */
void xi_answer_send(struct xi_exchange *x, struct xi_send *send);
/* Bytes of it that have not left: a handler that makes many waits while it is large. */
size_t xi_answer_waiting(const struct xi_exchange *x);
/* trailers: "name: value\r\n" lines; NULL or "": none. Without a begin_parts before it: one head
 * with status 200 and type, the lines in x->extra and these (Trailers-Only). */
void xi_answer_end_parts(struct xi_exchange *x, const char *type, const char *trailers);
/* Server-sent events (events.c): begin once, then events; xi_events_end is the answer. What a
 * client does not read in time is dropped, never kept without bound; the event "dropped"
 * {"events": n} then says so. After a send the client may have gone. */
void xi_events_begin(struct xi_exchange *x);
void xi_events_send(struct xi_exchange *x, const char *event, const char *json);
void xi_events_end(struct xi_exchange *x);
/* The sweep's: a heartbeat when it is time; 1 when the client has taken nothing for too long. */
int xi_events_watch(struct xi_exchange *x, uint64_t now_ms);
/* 1 when the client's Accept names this media type. */
int xi_accepts(const struct xi_exchange *x, const char *type);

#endif
