/* pool_private.h: the inside of the worker pool, and what the session manager says to it. Loop
 * thread.
 *
 *   worker_pool.c     life, submit, cancel, what the manager says
 *   pool_queue.c      lists: every move of a request, and its way out
 *   pool_deadlines.c  a heap of the waiting requests that have a deadline
 *   pool_dispatch.c   lanes: who runs next, completions
 *   pool_suspects.c   a host died: who is to blame
 *   pool_poison.c     fingerprints of requests that ended a host
 *   pool_watchdog.c   a host hangs
 *
 * Two rules keep it safe that `done` may call back into the pool: dispatching never calls `done`
 * (what it must refuse goes to the list `leaving`, answered later by xi_pool_settle), and no loop
 * holds a list position across a `done`. */
#ifndef XI_DAEMON_CORE_POOL_PRIVATE_H
#define XI_DAEMON_CORE_POOL_PRIVATE_H

#include "base/hash.h"
#include "daemon/core/session_fsm.h"
#include "daemon/core/worker_pool.h"

#include "daemon/core/batcher.h"
#define XI_POISON_MAX     128
#define XI_POISON_MS      (10u * 60u * 1000u)
#define XI_HASH_ON_LOOP   (256u * 1024u) /* bytes: about 150 µs */
#define XI_WATCHDOG_TIMES 20u            /* of the learned service time */

/* A place on a host where one request runs. Busy while id is not 0. */
struct xi_lane {
    uint64_t id;
    struct xi_request *request; /* NULL: it was cancelled, the answer is thrown away */
    struct xi_slot *slot;       /* kept while the host may read it */
    struct xi_slot *state;      /* the same, of its sequence */
    uint64_t started_ns, kill_at_ns;
};

struct xi_request_list {
    struct xi_request *head, *tail;
    uint32_t n;
};

enum xi_queue_mode {
    XI_QUEUE_HELD = 0, /* requests wait for a host */
    XI_QUEUE_OPEN,
    XI_QUEUE_CLOSED, /* drains: runs what it has, refuses new ones */
    XI_QUEUE_FAILED  /* refuses with `refusal` */
};

/* What the pool knows of a session. The waiting requests hang on the session itself. */
struct xi_queue {
    struct xi_pool *pool;
    struct xi_session *session;
    enum xi_queue_mode mode;
    struct xi_err refusal;
    unsigned refusal_retry_s;
    struct xi_request *class_tail[XI_PRIORITIES]; /* last waiting one of each priority */
    struct xi_request_list running, suspects, checking, ordered;
    uint32_t free_lanes[XI_LANES_MAX];
    uint32_t n_free, n_lanes;
    int alone;         /* a suspect runs, and nothing beside it */
    int killed;        /* the watchdog or a lie ended the host: EXITED will come */
    uint64_t answered; /* rightly, since the last crash */
    /* the ring of sessions that could run something now, one per priority */
    int ready_class; /* -1: in none */
    struct xi_queue *ready_prev, *ready_next;
    struct xi_queue *all_prev, *all_next;
};

struct xi_deadlines {
    struct xi_request **heap;
    uint32_t n, cap;
};

struct xi_poison {
    char package[XI_DIGEST_HEX + 1];
    char incident[XI_UUID_TEXT + 1];
    uint64_t bytes;
    uint64_t expires_ms; /* 0: unused */
    struct xi_digest fingerprint;
};

struct xi_pool {
    uv_loop_t *loop;
    struct xi_pool_config config;
    struct xi_pool_hooks hooks;
    uint32_t running; /* busy lanes of all hosts */
    uint32_t in_flight;
    int draining;
    struct xi_queue *ready[XI_PRIORITIES]; /* head of each ring */
    struct xi_queue *all;
    struct xi_request_list leaving;
    int advanced; /* a sequence went on: something may be dispatched */
    struct xi_deadlines deadlines;
    uint64_t deadline_armed_ns; /* 0: the timer is not set */
    uv_timer_t deadline_timer, watchdog_timer;
    int watchdog_on;
    unsigned open_handles; /* that must close before the memory goes */
    unsigned checks;       /* fingerprints under way on the work pool */
    int freed;
    struct xi_poison poison[XI_POISON_MAX];
    uint32_t n_poison;
    struct xi_pool_stats stats;
};

/* ---- the manager's side ---- */

/* lane_count and options are set. ENOMEM. */
enum xi_rc xi_pool_attach(struct xi_pool *pool, struct xi_session *session,
                          struct xi_err *err) XI_MUST_CHECK;
void xi_pool_detach(struct xi_session *session); /* empty by then */
void xi_pool_hold(struct xi_session *session);
/* A host with session->lane_count free lanes is up. */
void xi_pool_open(struct xi_session *session);
void xi_pool_close(struct xi_session *session);
/* Answers all of the session with why, running ones too, and refuses new ones with it. */
void xi_pool_fail(struct xi_session *session, const struct xi_err *why, unsigned retry_after_s);
void xi_pool_completed(struct xi_session *session, uint32_t lane, struct xi_reply *reply);
/* The host has ended. wanted: we told it to, so nobody is to blame. */
enum xi_crash_blame xi_pool_host_gone(struct xi_session *session, int wanted, const char *reason);
int xi_pool_busy(const struct xi_session *session);

void xi_pool_release(struct xi_pool *pool); /* frees it once nothing is under way */

/* ---- lists ---- */

/* Every change of state: off one list, onto the tail of another (a queue: behind its priority). */
void xi_request_move(struct xi_request *req, enum xi_request_state to);
void xi_request_refuse(struct xi_request *req, enum xi_rc rc); /* → LEAVING */
/* Answers all LEAVING, dispatches what that lets go on; calls done. */
void xi_pool_settle(struct xi_pool *pool);
void xi_request_turn(struct xi_request *req); /* → QUEUED, or LEAVING when its sequence is lost */

/* ---- deadlines ---- */
enum xi_rc xi_deadlines_reserve(struct xi_deadlines *d, uint32_t more,
                                struct xi_err *err) XI_MUST_CHECK;
void xi_deadlines_add(struct xi_deadlines *d, struct xi_request *req);    /* has one, not in yet */
void xi_deadlines_remove(struct xi_deadlines *d, struct xi_request *req); /* also when not in */
void xi_pool_arm_deadline(struct xi_pool *pool);

/* ---- dispatch ---- */
void xi_queue_update(struct xi_queue *q); /* may it run something now? */
void xi_pool_dispatch(struct xi_pool *pool);
void xi_lane_free(struct xi_queue *q, uint32_t lane);

/* ---- watchdog ---- */
void xi_watchdog_need(struct xi_pool *pool);
uint64_t xi_watchdog_allowance_ns(const struct xi_queue *q);
void xi_watchdog_tick(struct xi_pool *pool, uint64_t now_ns);

/* ---- poison ---- */
/* Poison, and answers that are in the cache: both go by the fingerprint of the inputs.
 * 1: the request is being checked, or was answered or refused (done called). 0: go on. */
int xi_poison_check(struct xi_queue *q, struct xi_request *req);
/* Takes the fingerprint, then answers EINCIDENT. */
void xi_poison_convict(struct xi_queue *q, struct xi_request *req, const char *reason);
void xi_check_drop(struct xi_request *req); /* the request leaves while CHECKING */
/* Goes on with a request that turned out to be harmless. */
void xi_pool_enqueue(struct xi_queue *q, struct xi_request *req);

#endif
