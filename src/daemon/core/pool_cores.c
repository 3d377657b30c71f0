/* pool_cores.c: the core that a run has just left goes to the next run.
 *
 * With several cores idle the kernel chooses well. When all of them are busy but one, that one has
 * only just fallen free: the threads that ended there are still about, it looks as busy as the
 * others, and the kernel queues the next run behind another one's. The core is then idle until the
 * kernel balances, which takes it milliseconds. So the completion says where it ran, and what is
 * dispatched next is told to begin there. Runs too short to be queued for long are left alone, and
 * so is everything where the machine has more cores than are ours: others may need any of them. */
#include "daemon/core/pool_cores.h"
#include "daemon/core/pool_private.h"

#define WORTH_NS  500000u /* a run that is at least so long */
#define CORES_MAX 64      /* bits of cores_held */

static int is_held(const struct xi_pool *pool, int core)
{
    return (pool->cores_held >> core & 1u) != 0;
}

int xi_core_take(const struct xi_turn *turn)
{
    const struct xi_queue *q = turn->queue;
    struct xi_pool *pool = q->pool;
    uint64_t takes_ns = turn->kind == XI_TURN_STAGE ? q->stage_ns : q->run_ns;
    int core = pool->core_free;

    if (!xi_is_processor(pool, xi_turn_device(turn)))
        return XI_CORE_ANY;
    pool->core_free = XI_CORE_ANY;
    if (core == XI_CORE_ANY || takes_ns < WORTH_NS || q->session->options.threads > 1)
        return XI_CORE_ANY;
    pool->cores_held |= 1ull << core;
    return core;
}

void xi_core_drop(struct xi_pool *pool, int core)
{
    if (core != XI_CORE_ANY)
        pool->cores_held &= ~(1ull << core);
}

/* A lane counts for the core where it was told to begin; where it was told none, its word is good
 * for a core that no other lane was told. */
void xi_core_give(struct xi_pool *pool, const struct xi_lane *lane)
{
    int core = lane->core != XI_CORE_ANY ? lane->core : lane->ended_on;

    if (!xi_is_processor(pool, lane->device))
        return;
    xi_core_drop(pool, lane->core);
    pool->core_free = XI_CORE_ANY;
    if (pool->config.own_cores && pool->config.cores > 1 && lane->cost == 1 &&
        lane->ended_on != XI_CORE_ANY && lane->device->used + 1 == pool->config.cores &&
        core >= 0 && core < CORES_MAX && !is_held(pool, core))
        pool->core_free = core;
}
