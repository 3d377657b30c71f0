/* workers.h: what takes longer than 200 µs leaves the loop: two threads work, the loop hears of it.
 *
 * The threads belong to a loop (loop->data) from open to close. Everything here is called on the
 * loop thread; `work` runs on a worker, `done` on the loop, in any order among works. */
#ifndef XI_DAEMON_LOOP_WORKERS_H
#define XI_DAEMON_LOOP_WORKERS_H

#include <uv.h>

#include "base/status.h"

/* Embedded in the caller's own struct, which must live until `done`. */
struct xi_work {
    struct xi_work *next;
    void (*work)(struct xi_work *w);
    void (*done)(struct xi_work *w);
    void *data; /* the caller's */
};

/* ENOMEM, EFDS. */
enum xi_rc xi_workers_open(uv_loop_t *loop, struct xi_err *err) XI_MUST_CHECK;
/* Finishes all works, calls their `done`, ends the threads. A loop without workers is fine. Let
 * the loop turn once more before it is closed. */
void xi_workers_close(uv_loop_t *loop);

/* While works are out the loop stays alive. The loop must have workers. */
void xi_work_queue(uv_loop_t *loop, struct xi_work *w, void (*work)(struct xi_work *w),
                   void (*done)(struct xi_work *w));

#endif
