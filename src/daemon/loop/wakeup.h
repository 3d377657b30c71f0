/* wakeup.h: another thread gets the loop's attention.
 *
 * Used instead of uv_async: there the loop waits, yielding the processor, for a sender that it has
 * itself pushed off the core by waking up. On a busy machine that took up to 30 ms. Here nobody
 * waits for anybody: a flag and a byte in a pipe. */
#ifndef XI_DAEMON_LOOP_WAKEUP_H
#define XI_DAEMON_LOOP_WAKEUP_H

#include <stdatomic.h>
#include <uv.h>

#include "base/status.h"

struct xi_wakeup {
    uv_poll_t poll;
    int fds[2];
    _Atomic int pending;
    void (*woken)(struct xi_wakeup *w);
    void (*closed)(struct xi_wakeup *w);
};

/* Loop thread. `woken` runs on the loop once for one or more signals. EFDS. */
enum xi_rc xi_wakeup_open(struct xi_wakeup *w, uv_loop_t *loop, void (*woken)(struct xi_wakeup *w),
                          struct xi_err *err) XI_MUST_CHECK;
/* Any thread, until close. */
void xi_wakeup_signal(struct xi_wakeup *w);
/* Loop thread; `closed` says when the memory is the caller's again. */
void xi_wakeup_close(struct xi_wakeup *w, void (*closed)(struct xi_wakeup *w));

#endif
