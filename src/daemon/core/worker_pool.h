/* worker_pool.h: queues, batches, lanes, devices, deadlines, watchdog, suspects. Loop thread.
 *
 * A request waits in its session's bounded queue until a lane of its session's host is free and
 * it is the session's turn on its device (fair.h): the processor has a budget of cores that all
 * sessions share, an accelerator has lanes. What waits then and looks alike shares the run
 * (batcher.h): one work record in that lane's ring, one completion a request. On accelerators a
 * file goes through PRE and POST on the processor beside it. When a host dies each request that was
 * running is a suspect: retried alone, one at a time, in the fresh host, while the queue waits
 * behind; a request that ends its host while alone is answered with its incident id and its
 * input's fingerprint is refused from then on (expires). */
#ifndef XI_DAEMON_CORE_WORKER_POOL_H
#define XI_DAEMON_CORE_WORKER_POOL_H

#include "daemon/core/request.h"
#include "daemon/core/session_manager.h"

struct xi_pool;

struct xi_pool_config {
    uint32_t cores;           /* that run at once, of all sessions together */
    int own_cores;            /* 1: they are all that the process may use (see pool_cores.c) */
    uint32_t queue_limit;     /* requests that wait, per session */
    uint32_t watchdog_min_ms; /* no request is given less */
    struct xi_why *why;       /* may be NULL */
};
/* Called from the loop or from inside submit, cancel and the calls of pool_private.h. */
struct xi_pool_hooks {
    void *ctx;
    void (*drained)(void *ctx, struct xi_session *session); /* a closed queue ran empty */
};

/* NULL: memory is out. Free when no session is attached; frees itself once its timers closed. */
struct xi_pool *xi_pool_new(uv_loop_t *loop, const struct xi_pool_config *config);
void xi_pool_free(struct xi_pool *pool);
void xi_pool_set_hooks(struct xi_pool *pool, const struct xi_pool_hooks *hooks);
/* SIGTERM: from now on every new request is refused with EDRAIN. */
void xi_pool_drain(struct xi_pool *pool);
/* Requests that have not finished. */
uint32_t xi_pool_in_flight(const struct xi_pool *pool);

/* The request's fields are filled in and its slot holds the bytes. Ends in req->done, also when
 * it refuses (queue full, draining, poison, bad tensor): possibly from inside this call. */
void xi_pool_submit(struct xi_pool *pool, struct xi_request *req);
/* A NEW request that cannot begin: said in the journal, then finished. */
void xi_pool_refuse(struct xi_request *req, const struct xi_err *err);
/* The client went away: done is called with ECANCELLED if the request has not finished. A running
 * one is answered into the void. */
void xi_pool_cancel(struct xi_pool *pool, struct xi_request *req);

struct xi_pool_stats {
    uint32_t queued, running, suspects, lanes, cores_budget;
    uint64_t dispatched, completed, retried, incidents, watchdog_kills, poison_refused;
    uint64_t batches; /* records that went to lanes to be run: dispatched requests shared them */
    uint64_t refused_early; /* they could not have made their deadline */
};
void xi_pool_stats(const struct xi_pool *pool, struct xi_pool_stats *ret);

#endif
