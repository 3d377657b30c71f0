/* messages.h: the control messages between the daemon and a host, over a SEQPACKET socket.
 *
 * Every message is a struct xi_msg_head, a fixed body and, for two of them, a tail whose length
 * the body says. Each is length-checked on receipt; the daemon trusts nothing in them. Descriptors
 * travel beside the message that names them. Nothing on the link holds a pointer. */
#ifndef XI_IPC_MESSAGES_H
#define XI_IPC_MESSAGES_H

#include <stddef.h>
#include <stdint.h>

#include "base/limits.h"
#include "base/status.h"
#include "core/tensor.h"

#define XI_LINK_MAGIC  0x4b4c4958u /* "XILK" */
#define XI_LINK_MAJOR  3           /* must be equal */
#define XI_LINK_MINOR  0
#define XI_MESSAGE_MAX (128u * 1024u)

enum xi_msg_type {
    /* host → daemon */
    XI_MSG_HELLO = 1,       /* first message: protocol, pid, sandbox features in force */
    XI_MSG_PROGRESS = 2,    /* a phase of load or install began or moved */
    XI_MSG_LOADED = 3,      /* session is warm and proven: signature follows */
    XI_MSG_FAILED = 4,      /* load, probe or install refused: code and words; a load's lanes are
                             * gone */
    XI_MSG_NEED_OUTPUT = 5, /* a lane wants another output segment of n bytes */
    XI_MSG_PROBED = 6,      /* role probe: struct xi_engine_probe follows */
    XI_MSG_INSTALLED = 7,   /* role install: the record lies in staging as file "record" */
    XI_MSG_DROPPED = 8,     /* a segment is unmapped: its memory is given back */
    XI_MSG_UNLOADED = 9,    /* answer to UNLOAD: the session's model and lanes are gone */
    /* daemon → host */
    XI_MSG_LANE = 32,    /* + fds: ring memory, end to wait for work at, end to signal */
    XI_MSG_LOAD = 33,    /* load this session; lanes were sent before */
    XI_MSG_SEGMENT = 34, /* + fd: a segment; enum xi_segment_use says how to map it */
    XI_MSG_REFUSED = 35, /* answer to NEED_OUTPUT: no more memory for you */
    XI_MSG_DROP = 36,    /* unmap a segment; no work refers to it any more */
    XI_MSG_QUIT = 37,    /* end cleanly */
    XI_MSG_UNLOAD = 38   /* free one session; its lanes were sent XI_WORK_QUIT before. UNLOADED also
                          * when its load failed meanwhile */
};

/* How a host of role run ends by itself; anything else is a crash. */
enum xi_host_exit_code {
    XI_EXIT_ENGINE_BROKEN = 70, /* the engine gave itself up, after the answer */
    XI_EXIT_PROTOCOL = 71,      /* the daemon sent nonsense */
    XI_EXIT_DEVICE_LOST = 72    /* the engine says that its device is gone, after the answer */
};

struct xi_msg_head {
    uint32_t magic;
    uint16_t major, minor;
    uint32_t type;
    uint32_t bytes; /* of the whole message */
};

struct xi_msg_hello {
    struct xi_msg_head head;
    int32_t pid;
    uint32_t role;
    char sandbox[128]; /* for people: "landlock 6, seccomp, uid 61234" */
};

struct xi_msg_progress {
    struct xi_msg_head head;
    uint32_t permille; /* of this phase; 1000: done; 0xffffffff: unknown */
    uint32_t session;  /* 0 in roles other than run */
    char phase[32];    /* "verify", "load", "warm-up", "golden" */
    uint64_t elapsed_us;
};

struct xi_msg_failed {
    struct xi_msg_head head;
    int32_t code;     /* enum xi_rc */
    uint32_t session; /* 0: the host as a whole (sandbox, probe, install) */
    char phase[32];
    char text[192];
    char hint[160];
};

struct xi_msg_port {
    uint32_t dtype;
    int32_t rank;
    int64_t dims[XI_MAX_RANK];
    char name[XI_TENSOR_NAME_MAX];
};

enum xi_stateful {
    XI_STATE_NONE = 0,
    XI_STATE_EXPLICIT = 1, /* tensors that the daemon carries */
    XI_STATE_HIDDEN = 2    /* in the engine: a sequence ends with its host */
};

/* Followed by n_inputs + n_outputs + n_states struct xi_msg_port. Inputs and outputs are without
 * the state tensors. */
struct xi_msg_loaded {
    struct xi_msg_head head;
    uint32_t session, lane_count;
    uint32_t n_inputs, n_outputs, n_states;
    uint32_t stateful; /* enum xi_stateful */
    uint32_t
        max_batch;   /* rows that may share a run: what was asked, as far as the model can; ≥ 1 */
    uint32_t staged; /* 1: PRE, INFER and POST may be asked of a flow's requests; 0: ALL only */
    uint32_t has_flow, takes_image, draws, n_goldens;
    uint64_t load_us, warm_us, golden_us;
    uint64_t memory_bytes; /* private memory of the host after warm-up */
    uint64_t peak_bytes;
    uint64_t service_ns; /* of one warm request: feeds the watchdog's first expectation */
    char engine[64];     /* "openvino 2026.4.1" */
};

struct xi_msg_need_output {
    struct xi_msg_head head;
    uint32_t lane;
    uint32_t reserved;
    uint64_t bytes;
};

/* Followed by struct xi_engine_probe. */
struct xi_msg_probed {
    struct xi_msg_head head;
    int32_t present;
    uint16_t abi_major, abi_minor;
    char engine[32];
};

struct xi_msg_installed {
    struct xi_msg_head head;
    uint64_t record_bytes;
};

/* A lane is a thread of the host. A session's lanes follow each other: first those that run (ALL,
 * INFER), then those that do stages on the processor (PRE, POST). */
struct xi_msg_lane {
    struct xi_msg_head head;
    uint32_t lane; /* below XI_HOST_LANES_MAX; its number may come again after its session's
                    * UNLOADED or FAILED */
    int32_t nice;  /* of its thread, at least the host's */
    uint64_t submit_bytes, complete_bytes; /* the two rings, one behind the other in the memory */
};

struct xi_msg_load {
    struct xi_msg_head head;
    uint32_t session;
    uint32_t first_lane, lane_count; /* that run */
    uint32_t stage_lanes;            /* behind them; 0: no stages wanted */
    uint32_t threads, max_batch;
    uint32_t run_golden, reserved;
    char variant[64];    /* "" : the first that loads */
    char device[32];     /* "" : the engine's first */
    char max_shape[512]; /* "input=1,3,640,640;other=1,8": the largest that will come; "" : unknown
                          */
    char link_dir[512];  /* manifest.json and the package's files, hard-linked */
    char cache_dir[512]; /* compiled-model cache, writable during load; "" : none */
};

enum xi_segment_use {
    XI_SEGMENT_INPUT = 0,
    XI_SEGMENT_OUTPUT = 1,
    /* A client's own, which may shrink while it is mapped: to read, or to write answers to. */
    XI_SEGMENT_CLIENT = 2,
    XI_SEGMENT_CLIENT_OUTPUT = 3
};

struct xi_msg_segment {
    struct xi_msg_head head;
    uint32_t segment;
    uint32_t use;  /* enum xi_segment_use */
    uint32_t lane; /* of an output segment */
    uint32_t reserved;
    uint64_t bytes;
    uint64_t from; /* of a client's: where in its memory the segment begins */
};

struct xi_msg_drop {
    struct xi_msg_head head;
    uint32_t segment;
    uint32_t reserved;
};

struct xi_msg_unload { /* and UNLOADED */
    struct xi_msg_head head;
    uint32_t session;
    uint32_t reserved;
    uint64_t memory_bytes; /* UNLOADED: private memory of the host now */
};

/* Sets magic, version, type and size. */
void xi_msg_head_set(void *message, enum xi_msg_type type, uint32_t bytes);
/* Magic, equal major, known type, length as received and at least what the type needs (with the
 * tail that its counts promise). EPROTO; EVERSION for another major. */
enum xi_rc xi_msg_check(const void *message, size_t bytes, struct xi_err *err) XI_MUST_CHECK;
/* The tail of a checked LOADED. The arrays are the caller's (xi_signature_fini). ENOMEM. */
enum xi_rc xi_msg_signature(const struct xi_msg_loaded *m, struct xi_signature *ret,
                            struct xi_err *err) XI_MUST_CHECK;
/* The index-th state tensor of a checked LOADED, without its name. */
struct xi_msg_port xi_msg_state(const struct xi_msg_loaded *m, uint32_t index);
struct xi_msg_port xi_msg_port_of(const struct xi_port_spec *spec);
/* A LOADED with head, counts and tail filled in; free() it. NULL when memory is out. */
struct xi_msg_loaded *xi_msg_loaded_new(const struct xi_signature *signature,
                                        const struct xi_msg_port *states, uint32_t n_states);

#endif
