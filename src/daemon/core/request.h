/* request.h: one inference on its way. Loop thread.
 *
 * Born when a protocol's headers are complete, with a reference to its session; owned by exactly
 * one list at a time (its state); leaves by xi_request_finish alone. The protocol embeds it in
 * its own exchange and gets `done` exactly once. */
#ifndef XI_DAEMON_CORE_REQUEST_H
#define XI_DAEMON_CORE_REQUEST_H

#include <stdint.h>

#include "base/status.h"
#include "daemon/core/response_cache.h"
#include "daemon/ipc/host_link.h"
#include "daemon/ipc/loans.h"

struct xi_session;
struct xi_check;

enum xi_request_state {
    XI_REQ_NEW = 0,  /* the protocol fills it in */
    XI_REQ_ORDERED,  /* behind an earlier one of its sequence */
    XI_REQ_QUEUED,   /* in its session's queue */
    XI_REQ_SUSPECT,  /* was running when its host died: waits to be retried alone */
    XI_REQ_RUNNING,  /* on a lane */
    XI_REQ_CHECKING, /* its fingerprint is being taken on the work pool */
    XI_REQ_LEAVING,  /* its error is known and is answered next */
    XI_REQ_FINISHED  /* `done` was called */
};

/* What is asked of the host next. A file for a session with stages goes PRE, RUN, POST; everything
 * else is one RUN. */
enum xi_stage { XI_STAGE_RUN = 0, XI_STAGE_PRE, XI_STAGE_POST };

enum xi_priority { XI_PRIORITY_REALTIME = 0, XI_PRIORITY_NORMAL = 1, XI_PRIORITY_BATCH = 2 };

struct xi_request_timing { /* CLOCK_MONOTONIC ns, 0: not reached */
    uint64_t born, queued, dispatched, completed;
};

struct xi_request {
    uint64_t id; /* given by the service; in every log line and answer */
    enum xi_request_state state;
    enum xi_priority priority;
    uint64_t deadline_ns;       /* 0: none */
    struct xi_session *session; /* one reference, put by finish */
    char tenant[XI_NAME_MAX + 1];
    unsigned want; /* XI_ANSWER_… */

    struct xi_slot *slot; /* one reference, put by finish; holds the inputs' bytes; NULL: all of
                             them lie in the loan */
    struct xi_loan *loan; /* the same; NULL: nothing of it lies in a client's own memory */
    uint32_t n_parts;
    struct xi_part parts[XI_TENSORS_MAX]; /* mem.segment and offset point into slot or loan */

    struct xi_sequence *sequence; /* NULL: none; set by xi_sequence_join (sequences.h) */
    unsigned sequence_flags;      /* sequences' own, as are the two links of its line */
    struct xi_request *sequence_prev, *sequence_next;
    uint32_t n_state;   /* of the parts, the last n_state: its sequence's state, which
                           lies in xi_sequence_slot, not in slot */
    uint32_t rows;      /* of its inputs' first dimension, for batches; 1 for files */
    uint64_t shape_key; /* equal ones may share a run */

    enum { XI_CACHE_OFF = 0, XI_CACHE_MISS, XI_CACHE_HIT } cache;
    struct xi_cache_key cache_key; /* of a MISS: its answer will be kept */
    int copy;                      /* for a session on trial: charged to nobody's rate */
    unsigned attempts;             /* dispatches so far */
    struct xi_request_timing timing;
    struct xi_request *prev, *next; /* the list of its state */
    uint64_t since_ns, due_ns;      /* while QUEUED: batcher.h */

    /* rc XI_OK: reply holds the outputs and is the callee's to release when its bytes are
     * written. Otherwise err says why and reply is empty. The request may be reused or freed
     * inside. */
    void (*done)(struct xi_request *req, enum xi_rc rc, struct xi_reply *reply,
                 const struct xi_err *err);
    void *owner;            /* the protocol's */
    unsigned retry_after_s; /* for 429 and 503, set before done */

    /* the pool's own */
    enum xi_stage stage;
    int prepared;       /* PRE was answered: the host keeps what it made */
    uint32_t lane;      /* while RUNNING */
    enum xi_rc verdict; /* while LEAVING */
    /* the heap of deadlines; timed: it is in there */
    int timed;
    struct xi_request *later, *peer, *before; /* first child, next sibling, parent or sibling */
    struct xi_check *check;                   /* while CHECKING */
};

/* Where the part lies that is no state; NULL: nowhere. */
static inline struct xi_segment *xi_request_segment(const struct xi_request *req, uint32_t part)
{
    if (req->loan != NULL && req->loan->inputs[part] != NULL)
        return req->loan->inputs[part];
    return req->slot != NULL ? req->slot->segment : NULL;
}

/* The one way out: takes the request off its list, accounts it, calls done, then puts the slot
 * and the session. A protocol calls it itself only for a NEW request that it gives up (bad body);
 * everything else goes through xi_pool_submit and xi_pool_cancel. reply may be NULL. */
void xi_request_finish(struct xi_request *req, enum xi_rc rc, struct xi_reply *reply,
                       const struct xi_err *err);

#endif
