/* raw.h: the real xinfer-host, spoken to message by message and record by record, so that tests can
 * say things that the daemon does not say (yet), and see everything that comes back. */
#ifndef XI_TESTS_RAW_H
#define XI_TESTS_RAW_H

#include "base/platform/memory.h"
#include "ipc/messages.h"
#include "ipc/ring.h"
#include "ipc/work.h"

enum { RAW_LANES = XI_HOST_LANES_MAX, RAW_OUTPUTS = 64, RAW_WAIT_MS = 20000 };
#define RAW_INPUT_BYTES (4 * XI_MIB)

struct raw_lane {
    int fd, submit_fd, wait_fd;
    struct xi_map map;
    struct xi_ring submit, complete;
};

struct raw_output {
    uint32_t id, lane;
    struct xi_map map;
};

struct raw {
    int pid, pidfd, control, wait_fd, answer_fd;
    const char *engine;
    char dir[64]; /* packages lie below; removed at the end */
    struct raw_lane lanes[RAW_LANES];
    struct xi_map input; /* segment 1, shown to the host at start */
    int input_fd;
    uint64_t input_used;
    struct raw_output outputs[RAW_OUTPUTS];
    uint32_t n_outputs, next_segment;
    uint32_t granted, dropped, refuse; /* refuse: grants nothing any more */
    _Alignas(8) uint8_t inbox[XI_MESSAGE_MAX];
};

/* One answer. Data of part i: raw_data. */
struct raw_done {
    struct xi_done done;
    struct xi_part parts[XI_TENSORS_MAX];
};

struct raw_start {
    const char *plugin_dir, *engine; /* NULL: the reference engine of the build */
    int group, sandbox;
};
void raw_start(struct raw *r, const struct raw_start *how);
/* A package below r->dir: its model, and more members of models.main ("…, " or ""). Files, if any,
 * are pairs of name and text, NULL at the end; with flow.json among them it has a flow. */
void raw_package(struct raw *r, const char *name, const char *model, const char *more,
                 const char *const *files);
void raw_lane(struct raw *r, uint32_t lane, int nice);
/* Lanes [first, first + count + stages) are made here; the load's numbers are the caller's. */
void raw_send_load(struct raw *r, const char *package, struct xi_msg_load *load);
void raw_send(struct raw *r, void *message, enum xi_msg_type type, size_t bytes);
void raw_send_unload(struct raw *r, const struct xi_msg_load *load);
/* The next message but PROGRESS and what is about output memory, which is served here. NULL: the
 * host closed its end, or ms passed. It lies in r->inbox. */
const struct xi_msg_head *raw_next(struct raw *r, int ms);
/* Sends the load and waits: LOADED, or the test fails. */
const struct xi_msg_loaded *raw_load(struct raw *r, const char *package, struct xi_msg_load *load);

/* An input in the shared segment. */
struct xi_part raw_tensor(struct raw *r, uint32_t index, enum xi_dtype dtype, const int64_t *dims,
                          int rank, const void *data);
struct xi_part raw_floats(struct raw *r, uint32_t index, const int64_t *dims, int rank,
                          const float *data);
struct xi_part raw_bytes(struct raw *r, const void *data, size_t bytes);
struct raw_request {
    struct xi_work_request head;
    const struct xi_part *parts;
};
void raw_submit(struct raw *r, uint32_t lane, enum xi_work_op op, uint32_t session,
                const struct raw_request *requests, uint32_t n);
/* 1: an answer came in time. */
int raw_answer(struct raw *r, uint32_t lane, struct raw_done *ret, int ms);
const void *raw_data(const struct raw *r, const struct raw_done *d, uint32_t part);
void raw_release(struct raw *r, uint32_t lane, const struct raw_done *d);

/* Its exit code; -signal when one ended it; fails the test when it goes on. */
int raw_end(struct raw *r);
/* Tells it to go, waits, checks code 0, removes everything. */
void raw_close(struct raw *r);
/* After raw_end. */
void raw_clean(struct raw *r);

#endif
