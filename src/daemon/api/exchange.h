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
#include "wire/http.h"

#define XI_ANSWER_PIECES (XI_TENSORS_MAX + 8)

struct xi_conn;
struct xi_infer;
struct xi_package_upload;

/* Of an answer that is server-sent events. */
struct xi_event_flow {
    uint64_t given_bytes, moved_bytes; /* to the connection; that left it when last looked */
    uint64_t moved_ms, sent_ms;        /* when something left; when something was given */
    uint64_t dropped;                  /* events since the last one that was sent */
};

struct xi_exchange {
    struct xi_http_server *server;
    struct xi_conn *conn; /* NULL: the client has gone */
    struct xi_http_stream stream;
    const struct xi_route *route;
    struct xi_identity who;
    char param[XI_NAME_MAX + 1]; /* of the route's {…}, decoded and checked */
    uint64_t born_ns;
    uint64_t request; /* number of the inference that was made of it; 0: none */

    /* Body: text of small JSON, or a slot. pad: bytes before it, for alignment. */
    struct xi_str text;
    struct xi_slot *slot;
    uint64_t pad;
    struct xi_slot *larger; /* while a chunked body moves to it */
    struct xi_work growth;
    int waiting; /* for a slot or a session, in the server's list */
    int (*wait_retry)(struct xi_exchange *x, uint64_t now_ns);
    uint64_t wait_bytes, wait_until_ns;
    struct xi_exchange *wait_next;

    int pending; /* a handler works on it */
    int answered;
    int writing;   /* uv_write calls under way */
    int streaming; /* server-sent events have begun */
    struct xi_event_flow events;
    void (*gone)(struct xi_exchange *x);    /* the client went away while pending; may be NULL */
    void (*release)(struct xi_exchange *x); /* before it is used again; may be NULL */

    struct xi_infer *infer; /* kept with the exchange, NULL until its first inference */
    struct xi_package_upload *upload;
    void *job; /* of the handler under way */

    /* Answer. */
    int status;
    unsigned retry_after_s; /* of a problem with 429 or 503; 0: one second */
    struct xi_str head, extra, body;
    uv_buf_t pieces[XI_ANSWER_PIECES];
    unsigned n_pieces;
    uv_write_t write;
    struct xi_exchange *free_next;
};

struct xi_exchange *xi_exchange_take(struct xi_http_server *server, struct xi_conn *conn);
/* The connection lets go of it. */
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

/* answer.c. */
/* A page of an allowed origin may read the answer: adds to x->head. */
void xi_answer_cors(struct xi_exchange *x);
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
/* Server-sent events (events.c): begin once, then events; xi_events_end is the answer. What a
 * client does not read in time is dropped, never kept without bound; the event "dropped"
 * {"events": n} then says so. After a send the client may have gone (x->conn NULL). */
void xi_events_begin(struct xi_exchange *x);
void xi_events_send(struct xi_exchange *x, const char *event, const char *json);
void xi_events_end(struct xi_exchange *x);
/* The sweep's: a heartbeat when it is time; 1 when the client has taken nothing for too long. */
int xi_events_watch(struct xi_exchange *x, uint64_t now_ms);
/* 1 when the client's Accept names this media type. */
int xi_accepts(const struct xi_exchange *x, const char *type);

#endif
