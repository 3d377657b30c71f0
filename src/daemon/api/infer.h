/* infer.h: one inference of an exchange over HTTP: how its body is read and its answer written.
 * Loop thread; what is large is parsed and written on the loop's workers. */
#ifndef XI_DAEMON_API_INFER_H
#define XI_DAEMON_API_INFER_H

#include <uv.h>

#include "daemon/api/exchange.h"
#include "daemon/api/oip_call.h"
#include "wire/oip_json.h"

enum xi_infer_input { XI_INPUT_FILE, XI_INPUT_RAW, XI_INPUT_JSON, XI_INPUT_BINARY };
enum xi_infer_accept { XI_ACCEPT_JSON, XI_ACCEPT_PICTURE, XI_ACCEPT_BOTH, XI_ACCEPT_BINARY };

struct xi_infer {
    struct xi_exchange *x;
    struct xi_oip_call call;
    enum xi_infer_input input;
    enum xi_infer_accept accept;
    int protocol; /* of /v2: the answer is the protocol's, not ours */

    /* While the session is found. */
    struct xi_sequence_ask sequence;
    uint64_t deadline_ns;
    void (*go_on)(struct xi_exchange *x);

    enum xi_dtype dtype; /* RAW; FILE: of raw samples, UNKNOWN: the flow knows */
    int rank;
    int64_t dims[XI_MAX_RANK];
    uint64_t header_bytes; /* JSON, BINARY: of the body's text */

    struct xi_work work;
    enum xi_rc work_rc;
    struct xi_err work_err;
};

void xi_infer_free(struct xi_infer *inf); /* NULL is fine */

/* infer_head.c: makes x->infer where there is none yet, finds the session that x->param and
 * x->version name, waiting for it where it is being loaded, then calls go_on; or answers. */
void xi_infer_enter(struct xi_exchange *x, const struct xi_sequence_ask *sequence,
                    uint64_t deadline_ns, void (*go_on)(struct xi_exchange *x));
/* The Inference-Header-Content-Length of a body whose text is read as tensors. */
enum xi_rc xi_infer_read_layout(struct xi_infer *inf, const char *header,
                                struct xi_err *err) XI_MUST_CHECK;
/* The body may come, so placed that a binary tail begins where an engine can bind it. */
void xi_infer_welcome(struct xi_infer *inf);

/* infer_body.c: the body becomes a request that is submitted; or a problem. */
void xi_infer_read_body(struct xi_infer *inf);
/* infer_answer.c: the reply becomes the answer. */
void xi_infer_answer(struct xi_infer *inf);

#endif
