/* oip_call.h: one inference, whichever door it came through: /v1/infer, /v2 or gRPC. Loop thread
 * but where it says so. Knows no exchange and no protocol's bytes: the door reads its request into
 * `ask` (wire/oip.h), this finds the session, checks, makes a request of the core and says what
 * came back.
 *
 *   init ─ begin ─ ask ─ ready ─ [the door writes TEXT elements to call->text] ─ submit ─ done ─
 * end
 *
 * A call lives in its door's memory, is zeroed once and used again after each end; it allocates
 * `ask` on its first use and keeps it. What fails leaves a call that is to be ended, nothing else.
 * The hot path takes no lock and allocates nothing but input memory (xi_shm_take). */
#ifndef XI_DAEMON_API_OIP_CALL_H
#define XI_DAEMON_API_OIP_CALL_H

#include "base/str.h"
#include "daemon/api/gate.h"
#include "daemon/api/oip_regions.h"
#include "daemon/core/sequences.h"
#include "daemon/core/service.h"
#include "daemon/loop/workers.h"
#include "wire/oip.h"

#define XI_OIP_FLOW         "@flow"   /* behind a name: the package's whole flow */
#define XI_OIP_FLOW_INPUT   "input"   /* BYTES [1] or UINT8 [n]: a file; sound: INT16, FP32 too */
#define XI_OIP_FLOW_OUTPUT  "output"  /* BYTES [1]: the flow's JSON */
#define XI_OIP_FLOW_PICTURE "picture" /* BYTES [1]: the annotated JPEG, where it is asked for */
#define XI_OIP_WAIT_MS      30000u    /* at the door of a session that is being loaded */
#define XI_OFF_LOOP_BYTES   (64 * XI_KIB) /* JSON larger than this leaves the loop */

/* One output of the answer. */
struct xi_oip_result {
    const char *name;        /* the call's */
    struct xi_tensor tensor; /* its bytes lie in the reply, or in the call (classes, a flow's JSON);
                                until end. In a region: data is NULL */
    const struct xi_oip_region
        *region; /* where the bytes were put: data is NULL then; NULL: none */
    const struct xi_oip_output *wanted; /* what the client said of it; NULL: it did not list it */
    int binary;                         /* HTTP: as raw bytes */
    uint32_t part;                      /* of the reply */
};

struct xi_oip_call {
    struct xi_service *service;
    const struct xi_identity *who; /* borrowed until end */
    uint64_t born_ns;
    struct xi_session *session; /* one reference, as a user of it */
    char name[XI_NAME_MAX + 1]; /* without @flow */
    char version[72];           /* that was asked for; "" : any */
    int flow;                   /* the name ended in @flow */

    /* Set by begin; the door may change them before submit (/v1 does, from its headers). What
     * ask->parameters says goes before. */
    enum xi_priority priority;
    uint64_t deadline_ns; /* 0: none */
    struct xi_sequence_ask sequence;
    unsigned want;  /* XI_ANSWER_…; begin: TENSORS, of a flow JSON */
    int binary_all; /* every output as raw bytes, whatever the client said */

    /* The request. The door hands one reference of the slot over; RAW inputs lie in it from `tail`
     * on, each at its offset. NULL: there are none. */
    struct xi_oip_request *ask; /* kept; `asked`: it is this request's */
    int asked;
    struct xi_slot *slot;
    uint64_t tail, tail_bytes;
    uint64_t copied;      /* bytes that the door had to copy so far */
    struct xi_slot *text; /* made by ready where ask has TEXT: each at its offset */
    struct xi_oip_regions regions;

    /* Once, possibly from inside submit or cancel. err NULL: results holds what is to be answered.
     * Otherwise why it failed, and retry_after_s (0: nobody knows). The call is ended after it. */
    void (*done)(struct xi_oip_call *call, const struct xi_err *err);
    void *owner; /* the door's */
    unsigned retry_after_s;
    struct xi_oip_result results[XI_TENSORS_MAX];
    unsigned n_results;
    struct xi_reply reply;

    struct xi_request req; /* req.id, req.timing and req.cache are for looking at */
    int busy;              /* submitted, and done was not called yet */
    struct xi_str names;   /* of the results: a session's ports may change while a thread writes */
    struct xi_str made;    /* bytes that are no part of the reply */
    struct xi_work work;   /* makes them, where they are many */
    enum xi_rc work_rc;
    struct xi_err work_err;
};

/* call is zeroed memory. */
void xi_oip_call_init(struct xi_oip_call *call, struct xi_service *service);
void xi_oip_call_fini(struct xi_oip_call *call); /* an ended one */

/* Finds the session: name (or id) of `who`'s tenant, perhaps with @flow; version NULL or "": the
 * one that is active. sequence NULL: not known yet, or none. Wakes what sleeps. With *ret_wait set
 * nobody can say yet: begin again soon, until xi_oip_call_patience is over. err->rc EGONE, ENOENT
 * and what the session failed of; call->retry_after_s with EBUDGET. */
enum xi_rc xi_oip_call_begin(struct xi_oip_call *call, const struct xi_identity *who,
                             uint64_t born_ns, const char *name, const char *version,
                             const struct xi_sequence_ask *sequence, int *ret_wait,
                             struct xi_err *err) XI_MUST_CHECK;
/* Until when (monotonic ns) a client of this born_ns and deadline waits at the door. */
uint64_t xi_oip_call_patience(uint64_t born_ns, uint64_t deadline_ns);
/* Memory for the request as the codec reads it. ENOMEM. */
enum xi_rc xi_oip_call_ask(struct xi_oip_call *call, struct xi_err *err) XI_MUST_CHECK;
/* ask is filled in: names, types and shapes fit the model (ETENSOR), parameters are in their
 * bounds (EINVAL), memory for TEXT is there (EAGAIN, ETOOBIG). */
enum xi_rc xi_oip_call_ready(struct xi_oip_call *call, struct xi_err *err) XI_MUST_CHECK;
/* Any thread, between ready and submit, where there is `text`: RAW inputs and those of regions that
 * are copied join the TEXT ones, for a request's bytes lie in one slot. EREGION. */
enum xi_rc xi_oip_call_join(struct xi_oip_call *call, struct xi_err *err) XI_MUST_CHECK;
/* The bytes are in place. Ends in done. */
void xi_oip_call_submit(struct xi_oip_call *call);
/* The client does not want it any more: done is called with ECANCELLED unless it was. */
void xi_oip_call_cancel(struct xi_oip_call *call);
/* The answer is written: everything goes back. Fine in any state but between submit and done. */
void xi_oip_call_end(struct xi_oip_call *call);

/* For bodies that are no tensors of the protocol (/v1's pictures, sound, one raw tensor), in place
 * of ask, ready and submit: parts whose bytes lie `at` in call->slot. */
void xi_oip_call_open(struct xi_oip_call *call);
void xi_oip_call_part(struct xi_oip_call *call, uint64_t at, uint64_t bytes, struct xi_part part);
void xi_oip_call_send(struct xi_oip_call *call);

#endif
