/* worker_pool.h: queues, lanes, dispatch, deadlines, watchdog, suspects. Loop thread.
 *
 * A request waits in its session's bounded queue until a lane of its session's host is free and
 * the core budget allows; it is then one work record in that lane's ring. When a host dies each
 * request that was running is a suspect: retried alone, one at a time, in the fresh host, while
 * the queue waits behind; a request that ends its host while alone is answered with its incident
 * id and its input's fingerprint is refused from then on (expires). */
#ifndef XI_DAEMON_CORE_WORKER_POOL_H
#define XI_DAEMON_CORE_WORKER_POOL_H

#include "daemon/core/request.h"
#include "daemon/core/session_manager.h"

struct xi_pool;

/* The request's fields are filled in and its slot holds the bytes. Ends in req->done, also when
 * it refuses (queue full, draining, poison, bad tensor): possibly from inside this call. */
void xi_pool_submit(struct xi_pool *pool, struct xi_request *req);
/* The client went away: done is called with ECANCELLED if the request has not finished. A running
 * one is answered into the void. */
void xi_pool_cancel(struct xi_pool *pool, struct xi_request *req);

struct xi_pool_stats {
    uint32_t queued, running, suspects, lanes, cores_budget;
    uint64_t dispatched, completed, retried, incidents, watchdog_kills, poison_refused;
};
void xi_pool_stats(const struct xi_pool *pool, struct xi_pool_stats *ret);

#endif
