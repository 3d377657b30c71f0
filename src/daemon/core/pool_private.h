/* pool_private.h: the inside of the worker pool, and what the session manager says to it. Loop
 * thread.
 *
 *   worker_pool.c     life, submit, cancel, what the manager says
 *   pool_admit.c      which requests are taken, and what may share a run
 *   pool_queue.c      lists: every move of a request, and its way out
 *   pool_deadlines.c  a heap of the waiting requests that have a deadline
 *   pool_dispatch.c   devices: who runs next (fair.h), in which batch (batcher.h)
 *   pool_lanes.c      what a lane holds, work to the host, completions, stages
 *   pool_suspects.c   a host died: who is to blame; who shares a host
 *   pool_poison.c     fingerprints of requests that ended a host
 *   pool_watchdog.c   a host hangs
 *   pool_notes.c      refusals and slow requests, for people
 *
 * Two rules keep it safe that `done` may call back into the pool: dispatching never calls `done`
 * (what it must refuse goes to the list `leaving`, answered later by xi_pool_settle), and no loop
 * holds a list position across a `done`. */
#ifndef XI_DAEMON_CORE_POOL_PRIVATE_H
#define XI_DAEMON_CORE_POOL_PRIVATE_H

#include "base/hash.h"
#include "daemon/core/batcher.h"
#include "daemon/core/fair.h"
#include "daemon/core/session_fsm.h"
#include "daemon/core/tenants.h"
#include "daemon/core/why.h"
#include "daemon/core/worker_pool.h"

#define XI_POISON_MAX       128
#define XI_POISON_MS        (10u * 60u * 1000u)
#define XI_HASH_ON_LOOP     (256u * 1024u) /* bytes: about 150 µs */
#define XI_WATCHDOG_TIMES   20u            /* of the learned service time */
#define XI_CONVOY_MAX       16             /* short runs that one lane is given at once */
#define XI_POOL_DEVICES_MAX 16             /* further ones share the last one's turns */
#define XI_SLOW_NS          1000000000ull  /* and ten times the usual: it is noted */

/* One request on a lane. */
struct xi_lane_item {
    uint64_t id;                /* 0: answered */
    struct xi_request *request; /* NULL: it was cancelled, the answer is thrown away */
    struct xi_slot *slot;       /* kept while the host may read it */
    struct xi_loan *loan;       /* the same, of clients' memory */
    struct xi_slot *state;      /* the same, of its sequence */
    int prepared;               /* by a PRE that was answered before */
};

/* A place on a host where one batch runs. Busy while left is not 0. */
struct xi_lane {
    struct xi_lane_item *items; /* n; room for queue->lane_room */
    uint32_t n, left;
    enum xi_work_op op;
    uint64_t started_ns, kill_at_ns;
    uint64_t reported_ns; /* sum of what its completions said */
    struct xi_device *device;
    uint32_t cost; /* of the device's budget */
    int core;      /* where its thread was told to begin last */
    int ended_on;  /* the core that its last completion came from */
    struct xi_fair_ticket ticket;
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

/* What runs at once on one device: cores of the processor, lanes of an accelerator. The first one
 * is the processor; it also does the stages around an accelerator's runs. */
struct xi_device {
    char name[32];
    uint32_t used, budget;
    struct xi_fair fair;
};

/* What may wait for a device's turn: runs, or stages on the processor, of one class. */
enum xi_turn_kind { XI_TURN_RUN = 0, XI_TURN_STAGE, XI_TURN_KINDS };
struct xi_turn {
    struct xi_fair_entry fair; /* first: fair.h hands this back */
    struct xi_queue *queue;
    enum xi_turn_kind kind;
};

/* The open queues whose sessions share one host process: while a suspect of any of them is tried,
 * nothing else runs in that host. Lies in one of its members. */
struct xi_cell {
    struct xi_queue *first; /* members */
    uint32_t busy_lanes, suspects;
    struct xi_queue *alone; /* whose suspect runs now */
    /* Set when the first member hears that the host has gone; each of them is told. */
    int gone;
    uint32_t gone_busy;
    struct xi_queue *guilty;
};

enum { XI_NOTE_QUEUE = 0, XI_NOTE_QUOTA, XI_NOTE_SLOW, XI_NOTE_KINDS };
struct xi_note_rate {
    uint64_t at_ns; /* of the last one */
    uint32_t left_out;
};

/* What the pool knows of a session. */
struct xi_queue {
    struct xi_pool *pool;
    struct xi_session *session;
    enum xi_queue_mode mode;
    struct xi_err refusal;
    unsigned refusal_retry_s;
    struct xi_batcher lines[3]; /* by enum xi_stage: what is QUEUED */
    struct xi_request_list running, suspects, checking, ordered;
    struct xi_device *device; /* where it runs; known once it was open */
    struct xi_turn turns[XI_TURN_KINDS][XI_PRIORITIES];
    uint32_t n_run, n_stage, max_lanes, lane_room;
    uint32_t free_run[XI_LANES_MAX], free_stage[XI_LANES_MAX]; /* stacks */
    uint32_t n_free_run, n_free_stage;
    uint32_t prepared;         /* requests whose PRE was answered */
    uint64_t run_ns, stage_ns; /* learned: how long a lane is busy with one record */
    uint64_t leaves_ns;        /* a batch waits for company until then; 0: none does */
    int killed;                /* the watchdog or a lie ended the host: EXITED will come */
    uint64_t answered;         /* rightly, since the last crash */
    struct xi_cell own, *cell; /* cell NULL: not in a host */
    uint32_t suspects_shown;   /* of them, counted in the cell */
    struct xi_queue *cell_prev, *cell_next;
    struct xi_queue *all_prev, *all_next;
    struct xi_note_rate notes[XI_NOTE_KINDS];
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
    uint32_t realtime;   /* open sessions of that priority */
    int core_free;       /* the one core of ours that nothing runs on; XI_CORE_ANY: not known */
    uint64_t cores_held; /* bit: a lane was told to run there */
    int draining;
    struct xi_device devices[XI_POOL_DEVICES_MAX];
    uint32_t n_devices;
    struct xi_fair_account *accounts[XI_TENANTS_MAX + 1]; /* one a device; last: without owner */
    uint64_t key_seed;
    struct xi_queue *all;
    struct xi_request_list leaving;
    int advanced; /* a sequence went on: something may be dispatched */
    struct xi_request *first_deadline;
    uint64_t deadline_armed_ns, batch_armed_ns; /* 0: the timer is not set */
    uv_timer_t deadline_timer, watchdog_timer, batch_timer;
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
/* session->host is up with its lanes free: lane_count that run, stage_lanes behind them, from
 * first_lane on. max_batch, staged and the device are set. Sessions with the same host share it. */
void xi_pool_open(struct xi_session *session);
void xi_pool_close(struct xi_session *session);
/* Answers all of the session with why, running ones too, and refuses new ones with it. */
void xi_pool_fail(struct xi_session *session, const struct xi_err *why, unsigned retry_after_s);
void xi_pool_load_ended(struct xi_session *session); /* in its host: suspects waited for it */
/* lane: of the session, so the host's less first_lane. */
void xi_pool_completed(struct xi_session *session, uint32_t lane, struct xi_reply *reply);
/* The host has ended, or what the session had in it; session->host is NULL. wanted: we told it to,
 * so nobody is to blame. Where sessions share a host each of them is told, before any of them is
 * opened again; who had no part in its end gets XI_BLAME_ONLY_REQUEST. */
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

/* ---- what is taken ---- */
/* May it come in? Fills in rows, shape key and stage. */
enum xi_rc xi_pool_admit(struct xi_queue *q, struct xi_request *req,
                         struct xi_err *err) XI_MUST_CHECK;
void xi_request_restage(struct xi_request *req); /* to where it begins in its session's host */

/* ---- deadlines ---- */
void xi_deadlines_add(struct xi_pool *pool, struct xi_request *req);    /* has one, not in yet */
void xi_deadlines_remove(struct xi_pool *pool, struct xi_request *req); /* also when not in */
void xi_pool_arm_deadline(struct xi_pool *pool);

/* ---- dispatch ---- */
void xi_queue_mode(struct xi_queue *q, enum xi_queue_mode mode);
void xi_queue_update(struct xi_queue *q); /* what of it could run now? */
void xi_pool_dispatch(struct xi_pool *pool);
void xi_pool_devices_init(struct xi_pool *pool);
struct xi_device *xi_pool_device(struct xi_pool *pool, const struct xi_session *session);
void xi_pool_budget(struct xi_pool *pool, struct xi_device *device); /* anew */
int xi_is_processor(const struct xi_pool *pool, const struct xi_device *device);
struct xi_device *xi_turn_device(const struct xi_turn *turn);
uint32_t xi_turn_cost(const struct xi_turn *turn); /* cores, or lanes of the accelerator */

/* ---- lanes ---- */
/* For the lanes of an opened queue. What does not get its memory has smaller batches. */
void xi_lanes_reserve(struct xi_queue *q);
/* A free lane runs these; the first one's stage says what. Never calls done. */
void xi_lane_start(struct xi_queue *q, struct xi_turn *turn, struct xi_request **items, uint32_t n);
void xi_lane_release(struct xi_queue *q, uint32_t lane);               /* whatever it holds */
void xi_lane_orphan(struct xi_queue *q, const struct xi_request *req); /* its client went away */
void xi_pool_forget(struct xi_queue *q, uint64_t id); /* the host drops what PRE made of it */

/* ---- shared hosts ---- */
void xi_cell_join(struct xi_queue *q);
void xi_cell_leave(struct xi_queue *q);    /* fine when it is in none */
void xi_cell_update(struct xi_cell *cell); /* what of its members could run now? */

/* ---- watchdog ---- */
void xi_watchdog_need(struct xi_pool *pool);
uint64_t xi_watchdog_allowance_ns(const struct xi_queue *q, uint32_t n_requests);
void xi_watchdog_tick(struct xi_pool *pool, uint64_t now_ns);

/* ---- for people ---- */
void xi_note_refused(struct xi_queue *q, const struct xi_request *req, const struct xi_err *err);
void xi_note_incident(struct xi_queue *q, const struct xi_request *req, const struct xi_err *err);
void xi_note_end(struct xi_queue *q, const struct xi_request *req, enum xi_rc rc);

#endif
