/* infer.h: one inference of an exchange: how its body is read and its answer written. Loop thread;
 * what is large is parsed and written on libuv's work pool. */
#ifndef XI_DAEMON_API_INFER_H
#define XI_DAEMON_API_INFER_H

#include <uv.h>

#include "daemon/api/exchange.h"
#include "daemon/core/sequences.h"
#include "daemon/loop/workers.h"
#include "wire/oip_json.h"

#define XI_OFF_LOOP_BYTES (64 * XI_KIB) /* JSON larger than this leaves the loop */
#define XI_FRAGMENT_MAX   (64 * XI_MIB) /* a flow's JSON */

enum xi_infer_input { XI_INPUT_FILE, XI_INPUT_RAW, XI_INPUT_JSON, XI_INPUT_BINARY };
enum xi_infer_accept { XI_ACCEPT_JSON, XI_ACCEPT_PICTURE, XI_ACCEPT_BOTH, XI_ACCEPT_BINARY };

struct xi_infer {
    struct xi_exchange *x;
    struct xi_session *session; /* one reference of our own */
    enum xi_infer_input input;
    enum xi_infer_accept accept;
    enum xi_priority priority;
    uint64_t deadline_ns;
    struct xi_sequence_ask sequence;

    enum xi_dtype dtype; /* RAW; FILE: of raw samples, UNKNOWN: the flow knows */
    int rank;
    int64_t dims[XI_MAX_RANK];

    uint64_t header_bytes;      /* JSON, BINARY: of the body's text */
    struct xi_oip_request *oip; /* made on the first JSON request, kept */
    struct xi_slot *tensors;    /* elements read from JSON */

    struct xi_request req;
    struct xi_reply reply;
    unsigned chosen[XI_TENSORS_MAX], n_chosen; /* reply parts that are answered */
    unsigned binary[XI_TENSORS_MAX];
    struct xi_str
        names; /* of the chosen ones: a session's ports may change while a thread writes */
    size_t name_at[XI_TENSORS_MAX];
    int any_binary;

    struct xi_work work;
    enum xi_rc work_rc;
    struct xi_err work_err;
};

void xi_infer_free(struct xi_infer *inf); /* NULL is fine */

/* infer_body.c: the body becomes parts of inf->req, then xi_infer_submit; or a problem. */
void xi_infer_read_body(struct xi_infer *inf);
void xi_infer_submit(struct xi_infer *inf);
/* infer_answer.c: the reply becomes the answer. */
void xi_infer_answer(struct xi_infer *inf);

#endif
