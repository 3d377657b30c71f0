/* pool_cores.h: on which core of the processor a run begins. Loop thread. */
#ifndef XI_DAEMON_CORE_POOL_CORES_H
#define XI_DAEMON_CORE_POOL_CORES_H

#include "daemon/core/pool_private.h"

/* Where the run of this turn is to be, which starts now; XI_CORE_ANY: where the kernel likes. */
int xi_core_take(const struct xi_turn *turn);
void xi_core_drop(struct xi_pool *pool, int core); /* it did not start */
/* The lane has ended its run and no longer counts in device->used. */
void xi_core_give(struct xi_pool *pool, const struct xi_lane *lane);

#endif
