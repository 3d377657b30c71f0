/* work.h: what travels in the rings. Daemon → host: work and releases. Host → daemon: completions.
 *
 * A work record is one struct xi_work_head, then for each of its n_requests one
 * struct xi_work_request followed by its tensors. A completion record is one struct xi_done
 * followed by its outputs. All records of one daemon and its hosts are of one build
 * (XI_LINK_MAJOR is checked at HELLO), so they are plain structs without padding.
 * Segment ids are never used twice in a daemon's life: an id is its own generation. */
#ifndef XI_IPC_WORK_H
#define XI_IPC_WORK_H

#include <stdint.h>

#include "base/limits.h"
#include "base/status.h"
#include "core/tensor.h"

#define XI_WORK_RECORD_MAX (64u * 1024u) /* bytes of one record: what a ring takes */

enum xi_work_op {
    XI_WORK_ALL = 1, /* pre, infer and post in one grant */
    XI_WORK_PRE = 2, /* stages for accelerators: same format */
    XI_WORK_INFER = 3,
    XI_WORK_POST = 4,
    XI_WORK_RELEASE = 5, /* no requests; `release` names an output the daemon is done with */
    XI_WORK_QUIT = 6,    /* no requests; the lane ends */
    XI_WORK_FORGET = 7   /* requests whose PRE was answered and that nobody wants any more:
                          * ids without parts, not answered */
};

/* The stages of a request through a flow: PRE (parts: its input, and its state) answers with a
 * shape key and no parts; what it made stays in the host under the request's id. INFER takes up to
 * max_batch such requests of equal key without parts (or requests of raw tensors, with parts and no
 * POST), and answers without parts; POST, without parts, answers with the outputs (and the new
 * state). An error ends the request at any stage. A batch is answered by one completion a request,
 * the last of them frees the lane.
 */

/* A run of bytes in a segment. */
struct xi_mem_ref {
    uint32_t segment;
    uint32_t reserved;
    uint64_t offset, bytes;
};

enum xi_part_kind {
    XI_PART_TENSOR = 0,  /* dtype and dims say what it is; index is the model's port */
    XI_PART_BYTES = 1,   /* input of a flow: an encoded picture, sound, file */
    XI_PART_JSON = 2,    /* a flow's answer */
    XI_PART_PICTURE = 3, /* an annotated picture (JPEG) */
    XI_PART_PLACE = 4    /* no tensor: room for the output `index` in a client's memory */
};

/* An input or an output. */
struct xi_part {
    uint32_t kind; /* enum xi_part_kind */
    uint32_t index;
    uint32_t dtype;
    int32_t rank;
    int64_t dims[XI_MAX_RANK];
    struct xi_mem_ref mem;
};

#define XI_CORE_ANY (-1) /* where the kernel likes */

struct xi_work_head {
    uint16_t op;
    uint16_t n_requests;
    uint32_t session;          /* the daemon's number for it, on this link */
    struct xi_mem_ref release; /* XI_WORK_RELEASE */
    int32_t core;              /* the lane's thread is to begin there; XI_CORE_ANY */
    uint32_t reserved;
};

struct xi_work_request {
    uint64_t id;          /* unique on this link */
    uint64_t deadline_ns; /* CLOCK_MONOTONIC; 0: none */
    uint32_t want;        /* XI_ANSWER_… bits of flow/flow.h */
    uint32_t n_parts;     /* ≤ XI_TENSORS_MAX */
    uint32_t n_state;     /* of the parts, those behind the inputs (read slot) */
    uint32_t flags;       /* XI_WORK_START */
    uint32_t n_places;    /* behind the state: XI_PART_PLACE parts, where outputs are wanted */
    uint32_t reserved;
};

/* The segment that an output's part names when it lies in the place that its request gave. */
#define XI_SEGMENT_PLACE 0u

/* Of a model with state: it begins with its initial state. Explicit state: n_state is 0 then. A
 * request to a model with explicit state is answered with the new state in either case. */
enum { XI_WORK_START = 1 };

enum { XI_DONE_FINAL = 1, XI_DONE_MORE = 2 };

struct xi_done {
    uint64_t id;
    uint32_t seq;   /* 0, 1, … of one request's completions */
    uint32_t flags; /* XI_DONE_… */
    int32_t code;   /* enum xi_rc */
    uint32_t n_parts;
    uint32_t n_state;                    /* of the parts, the last n_state are the new state */
    uint32_t batch;                      /* rows that shared the run, 0 or 1: it ran alone */
    uint64_t shape_key;                  /* of PRE: requests with an equal one may share a run */
    uint64_t pre_ns, device_ns, post_ns; /* of a batch: each its share by rows */
    uint64_t copied_bytes;               /* input bytes the host or the engine had to copy */
    int32_t core;                        /* where the lane's thread was; XI_CORE_ANY: unknown */
    uint32_t reserved;
    char text[192]; /* of an error */
    char hint[64];
};

_Static_assert(sizeof(struct xi_mem_ref) == 24, "wire format");
_Static_assert(sizeof(struct xi_part) == 104, "wire format");
_Static_assert(sizeof(struct xi_work_head) == 40, "wire format");
_Static_assert(sizeof(struct xi_work_request) == 40, "wire format");
_Static_assert(sizeof(struct xi_done) == 336, "wire format");

/* Reads a record that was copied out of a ring. Walks it once, checks every count and length
 * against `bytes`; parts point into the record. EPROTO. */
struct xi_work_view {
    struct xi_work_head head;
    const uint8_t *next, *end;
    uint32_t left;
};
enum xi_rc xi_work_open(const void *record, size_t bytes, struct xi_work_view *ret,
                        struct xi_err *err) XI_MUST_CHECK;
/* The next request; ENOENT after the last. */
enum xi_rc xi_work_next(struct xi_work_view *view, struct xi_work_request *ret,
                        struct xi_part ret_parts[XI_TENSORS_MAX], struct xi_err *err) XI_MUST_CHECK;
enum xi_rc xi_done_open(const void *record, size_t bytes, struct xi_done *ret,
                        struct xi_part ret_parts[XI_TENSORS_MAX], struct xi_err *err) XI_MUST_CHECK;

/* Is the part inside a segment of segment_bytes, with a sane rank, dtype and byte count? EPROTO */
enum xi_rc xi_part_check(const struct xi_part *part, uint64_t segment_bytes,
                         struct xi_err *err) XI_MUST_CHECK;
/* As a tensor over `base`, where its segment is mapped; NULL: without data. */
struct xi_tensor xi_part_tensor(const struct xi_part *part, void *base);

#endif
