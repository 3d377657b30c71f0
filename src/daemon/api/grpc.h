/* grpc.h: gRPC over an exchange of HTTP/2: the Open Inference Protocol's service, health checking
 * and server reflection. Loop thread; private to this room.
 *
 * An exchange of a gRPC route is one RPC. Messages come in one after the other: a frame of five
 * bytes, then the first bytes of the message, which say where its tensors will lie, then the rest,
 * straight into a slot. */
#ifndef XI_DAEMON_API_GRPC_H
#define XI_DAEMON_API_GRPC_H

#include "daemon/api/connection.h"
#include "wire/grpc.h"

#define XI_GRPC_TYPE      "application/grpc"
#define XI_GRPC_MESSAGE   (256 * XI_MIB) /* at most, where the configuration says nothing */
#define XI_GRPC_HEAD      512            /* of a message, looked at before it has a place */
#define XI_GRPC_ALIGN     8              /* of a tensor, at least */
#define XI_GRPC_TEXT_MAX  XI_MIB         /* a message without tensors */
#define XI_GRPC_CALLS_MAX 64             /* of one stream, not answered yet */
#define XI_GRPC_UNREAD    (4 * XI_MIB)   /* answers of one stream: above it nothing more is read */

struct xi_grpc_call;
struct xi_grpc;

enum { XI_GRPC_SLOT = 1, XI_GRPC_STREAMS = 2 }; /* flags of a method */

/* A row of the route table, with what is behind it. */
struct xi_grpc_method {
    struct xi_route route;
    unsigned flags; /* SLOT: messages land in slots. STREAMS: the client sends any number */
    /* A message is complete; it lives until the call returns (SLOT: x->slot, which may be taken).
     * A method without STREAMS owes one xi_grpc_answer, xi_grpc_end or xi_grpc_fail. */
    void (*take)(struct xi_grpc *g, const uint8_t *message, size_t bytes);
    /* Every quarter of a second while it lasts; NULL: never. */
    void (*tick)(struct xi_grpc *g);
    /* Those of its calls that can end do so, soon or at once; NULL: it has none. */
    void (*cancel)(struct xi_grpc *g);
    /* Of g->awaiting, those that need not wait any more go on. NULL: none ever does. */
    void (*retry)(struct xi_grpc *g, uint64_t now_ns);
};

/* One RPC; kept with its exchange. */
struct xi_grpc {
    struct xi_exchange *x;
    const struct xi_grpc_method *method;
    uint64_t deadline_ns; /* grpc-timeout; 0: none */

    enum { XI_GRPC_IN_FRAME = 0, XI_GRPC_IN_HEAD, XI_GRPC_IN_REST } step;
    uint64_t bytes;    /* of the message under way */
    unsigned messages; /* complete ones */
    uint64_t copied;   /* what of the stream's copied bytes is accounted for */
    int half_closed;   /* the client has said all */
    int full;          /* too much is under way: nothing is read */
    int over;          /* its end is out, or it never began */
    struct xi_err why; /* rc not OK: it fails as soon as its calls have ended */
    unsigned retry_after_s;

    struct xi_grpc_call *calls;    /* not answered yet */
    struct xi_grpc_call *awaiting; /* those of them that wait for a session, in their order */
    unsigned n_calls;
    uint64_t slot_until_ns; /* so long the message under way waits for memory; 0: it does not */
    int watched;            /* of Health.Watch: the last status that was told */
    char name[XI_NAME_MAX + 1];
    struct xi_grpc *prev, *next; /* the server's, while it lasts */
    uint8_t frame[XI_GRPC_FRAME], head[XI_GRPC_HEAD];
};

/* routes.c: every gRPC route has these three. */
void xi_grpc_begin(struct xi_exchange *x);
void xi_grpc_full(struct xi_exchange *x);
void xi_grpc_run(struct xi_exchange *x);
/* x->problem of whatever says that it is gRPC, before its route is known. */
void xi_grpc_problem(struct xi_exchange *x, const struct xi_err *err);
/* Does the client speak gRPC, where that can be answered? */
int xi_grpc_spoken(const struct xi_exchange *x);
void xi_grpc_free(struct xi_grpc *g); /* NULL is fine */
/* Every quarter of a second, of all that last. */
void xi_grpc_tick(struct xi_http_server *server);

/* For methods. A copy of x->body goes out as a message. */
void xi_grpc_send(struct xi_grpc *g);
/* The same, and it was the last one. */
void xi_grpc_answer(struct xi_grpc *g);
void xi_grpc_end(struct xi_grpc *g);
/* Ends with this error, as soon as no call is under way: those are cancelled. */
void xi_grpc_fail(struct xi_grpc *g, const struct xi_err *err);
/* After a call has ended, or what was sent has left: reads on, or ends what is over. */
void xi_grpc_settle(struct xi_grpc *g);

/* Something of it waits, for memory or a session: nothing is read meanwhile, and it is asked again
 * every few milliseconds. */
void xi_grpc_wait(struct xi_grpc *g);

/* grpc_infer.c */
void xi_grpc_infer(struct xi_grpc *g, const uint8_t *message, size_t bytes);
void xi_grpc_infer_cancel(struct xi_grpc *g);
void xi_grpc_infer_retry(struct xi_grpc *g, uint64_t now_ns);
void xi_grpc_calls_free(struct xi_http_server *server); /* those that are kept */
/* grpc_health.c */
void xi_grpc_health_check(struct xi_grpc *g, const uint8_t *message, size_t bytes);
void xi_grpc_health_watch(struct xi_grpc *g, const uint8_t *message, size_t bytes);
void xi_grpc_health_tick(struct xi_grpc *g);
/* grpc_reflection.c */
void xi_grpc_reflect(struct xi_grpc *g, const uint8_t *message, size_t bytes);

#endif
