/* batcher.h: the requests that wait in one line of a session, and which of them share the next run.
 * Pure: the clock is an argument, the requests link themselves. Any thread, one at a time.
 *
 * A class is ordered by deadline; a request without one counts as due XI_BATCH_PATIENCE_NS after it
 * came, so none waits for ever behind others' deadlines. A batch is the first request of a class
 * and those behind it with the same shape key, in their order, as far as rows and the record go;
 * it never mixes classes. It leaves at once, or with a max_delay when it is full, when its oldest
 * has waited so long, or when its tightest deadline needs it. That batches form at all without a
 * max_delay is because requests wait while the lanes are busy.
 *
 * Where none share a run, a convoy may go instead: the first ones of a class whatever their shape,
 * which a lane is given at once and runs one after the other. */
#ifndef XI_DAEMON_CORE_BATCHER_H
#define XI_DAEMON_CORE_BATCHER_H

#include "daemon/core/request.h"

#define XI_PRIORITIES        3
#define XI_BATCH_PATIENCE_NS (10ull * 1000 * 1000 * 1000)
#define XI_BATCH_NEVER       UINT64_MAX

struct xi_batch_line {
    struct xi_request *head, *tail;
    uint32_t n;
};

/* Zeroed, then max_rows is set. */
struct xi_batcher {
    uint32_t max_rows; /* that may share a run; 0 and 1: each request runs alone */
    uint32_t convoy;   /* with max_rows 0 and 1: requests that go at once; 0: one */
    uint64_t max_delay_ns;
    uint32_t n;
    struct xi_batch_line lines[XI_PRIORITIES];
};

/* The request's priority, deadline, rows, shape key and parts are set; it is in no list. Walks past
 * those that are due later, from the end. */
void xi_batcher_add(struct xi_batcher *b, struct xi_request *req, uint64_t now_ns);
void xi_batcher_remove(struct xi_batcher *b, struct xi_request *req);
/* Requests that would run before this one if it were added now. */
uint32_t xi_batcher_ahead(const struct xi_batcher *b, const struct xi_request *req,
                          uint64_t now_ns);
/* When the next batch of this class may leave, given that a run takes run_ns: 0 for at once,
 * XI_BATCH_NEVER when none waits. */
uint64_t xi_batcher_leaves_ns(const struct xi_batcher *b, unsigned class, uint64_t run_ns);
/* That batch, or convoy, in its order: how many. They stay in line until they are removed. */
uint32_t xi_batcher_form(const struct xi_batcher *b, unsigned class,
                         struct xi_request *ret[XI_BATCH_MAX]);

#endif
