/* loop_lag.h: how late a 1 ms timer on this loop would be, without there being one. Loop thread.
 *
 * A real timer would wake an idle machine a thousand times a second. Instead each turn of the
 * loop tells when it began to be busy (poll returned) and when it was done: a tick that falls
 * into the idle part is served at once, one that falls into the busy part waits for its end.
 * Poll's return is known to the millisecond only (the loop's own clock), so a lag is overstated
 * by up to 1 ms, never understated. */
#ifndef XI_DAEMON_CORE_LOOP_LAG_H
#define XI_DAEMON_CORE_LOOP_LAG_H

#include <stdint.h>
#include <uv.h>

#include "daemon/core/stats.h"

struct xi_loop_lag {
    uv_prepare_t prepare;
    uv_check_t check;
    struct xi_hist *hist; /* borrowed */
    uint64_t next_tick_ns;
    uint64_t busy_since_ns;
};

void xi_loop_lag_start(struct xi_loop_lag *lag, uv_loop_t *loop, struct xi_hist *hist);
/* closed is called for each of the two handles, whose data is then ctx. */
void xi_loop_lag_stop(struct xi_loop_lag *lag, uv_close_cb closed, void *ctx);
/* One turn, busy from busy_since to now (pure: what the tests call). */
void xi_loop_lag_turn(struct xi_hist *hist, uint64_t *inout_next_tick_ns, uint64_t busy_since_ns,
                      uint64_t now_ns);

#endif
