/* session_manager.h: sessions (loaded packages), their hosts and their life. Loop thread.
 *
 * The rules are in session_fsm.h, pure and explored exhaustively; this file does what they say:
 * starts hosts, reloads after a crash with back-off, quarantines, drains, ends. The hot path
 * (find, get, put) takes no lock and waits for nothing. */
#ifndef XI_DAEMON_CORE_SESSION_MANAGER_H
#define XI_DAEMON_CORE_SESSION_MANAGER_H

#include <stdint.h>

#include "core/package_record.h"
#include "core/tensor.h"
#include "daemon/core/rates.h"
#include "daemon/core/request.h"
#include "daemon/core/stats.h"

struct xi_sessions;

enum xi_session_state {
    XI_SESSION_LOADING = 0,
    XI_SESSION_WARMING,
    XI_SESSION_READY,
    XI_SESSION_DRAINING,
    XI_SESSION_GONE,
    XI_SESSION_FAILED,
    XI_SESSION_IDLE /* installed, not loaded: the first request (or a lease) loads it */
};
const char *xi_session_state_name(enum xi_session_state s); /* "LOADING" */

enum xi_isolation { /* who shares a host process */
                    XI_ISOLATE_AUTO = 0,
                    XI_ISOLATE_SESSION,
                    XI_ISOLATE_TENANT, /* the sessions of one tenant on one device with one engine
                                        */
                    XI_ISOLATE_DEVICE  /* all sessions on one device with one engine */
};
const char *xi_isolation_name(enum xi_isolation i); /* "auto", "session", "tenant", "device" */

/* What a load asks for; kept in the store as desired state. */
struct xi_load_options {
    char tenant[XI_NAME_MAX + 1];
    char name[XI_NAME_MAX + 1]; /* "" : the package's */
    char device[32];            /* "auto", "cpu", … */
    char precision[8];          /* "" : the variant's */
    char variant[64];           /* "" : the manager picks */
    uint32_t instances;         /* lanes; 0: one per core of the budget */
    uint32_t threads;           /* per instance; 0: 1 */
    enum xi_priority priority;
    int golden;            /* run the package's golden before READY (default 1) */
    uint32_t max_batch;    /* rows that may share a run; 0: the manifest's, else 1 */
    uint32_t max_delay_us; /* how long a batch that is not full may wait for more; default 0 */
    char max_shape[512];   /* "input=1,3,640,640;…": largest shape; "" : the manifest's */
    enum xi_isolation isolation;
    int pinned;               /* never evicted */
    int lazy;                 /* the first request loads it */
    uint32_t keep_alive_s;    /* unloaded (it stays as lazy) after idling so long; 0: never */
    uint32_t sequence_idle_s; /* an idle sequence ends; 0: 60 */
    uint64_t cache_bytes;     /* of answers that are kept for equal inputs; 0: none */
};

/* A row of desired state: what is loaded, under which id. */
struct xi_desired {
    char id[XI_UUID_TEXT + 1];
    char digest[XI_DIGEST_HEX + 1];
    struct xi_load_options options;
};

struct xi_lane; /* of the worker pool */
struct xi_queue;
struct xi_group;  /* the host and who shares it */
struct xi_tenant; /* tenants.h */
struct xi_why;    /* why.h */
struct xi_sequences;
struct xi_sequence_ask; /* sequences.h */

struct xi_session {
    char id[XI_UUID_TEXT + 1];
    char digest[XI_DIGEST_HEX + 1];
    char name[XI_NAME_MAX + 1], version[72], tenant[XI_NAME_MAX + 1];
    struct xi_load_options options;
    struct xi_package_record *record;
    enum xi_session_state state;
    struct xi_err why; /* of FAILED, and of the last crash */
    uint32_t number;   /* on the links */
    uint32_t refs;     /* requests and callers; GONE and freed at 0 */
    uint32_t users;    /* requests that were routed to it and are not answered yet */

    struct xi_tenant *owner; /* tenant as an object; lives as long as the service */
    struct xi_host *host;    /* NULL between crash and restart; its group's */
    struct xi_group *group;
    int apart; /* starts in a host of its own even where its tenant has one: a swap's candidate */
    uint32_t first_lane;  /* of the host's lanes, where this session's begin */
    uint32_t lane_count;  /* that run (ALL, INFER) */
    uint32_t stage_lanes; /* behind them: PRE, POST; 0 without stages */
    uint32_t max_batch;   /* rows that share a run at most, as the host said; 1: none */
    int staged;           /* the host does PRE, INFER and POST apart */
    enum xi_stateful stateful;
    uint32_t n_states;
    struct xi_msg_port *states; /* n_states; owned */
    struct xi_sequences *sequences;
    struct xi_response_cache *cache; /* NULL until the first request that may use it */
    uint32_t leases;                 /* that hold it now */
    const struct xi_swap_view *swap; /* it takes part in now; NULL: none (session_swap.h) */
    char replaced[XI_UUID_TEXT + 1]; /* whom it took the place of; "" : nobody */
    char replaced_version[72];
    const char *replaced_how;         /* "beside", "in-place", "shadow" */
    uint64_t last_used_ms;            /* monotonic */
    uint64_t reserved_bytes;          /* what admission holds for it */
    uint32_t retry_after_s;           /* of a refusal for memory: when it may do; 0: nobody knows */
    char successor[XI_UUID_TEXT + 1]; /* after a swap: who answers to its name now */
    struct xi_lane *lanes;            /* worker_pool's */
    struct xi_queue *queue;           /* the same */
    struct xi_signature signature;    /* valid once it was READY */
    int has_flow, takes_image, draws;
    char engine[64], variant[64], device[32];
    uint32_t device_kind; /* enum xi_device_kind */
    enum xi_isolation isolation;
    char isolation_reason[160];
    uint64_t memory_bytes, peak_bytes, load_us, warm_us, golden_us;
    uint64_t service_ns; /* learned time of one request (EWMA), for the watchdog */
    uint32_t restarts, crashes;
    uint64_t loaded_at_ms;   /* wall clock, epoch ms */
    uint32_t backoff_ms;     /* until the next start; 0: not waiting */
    char phase[32];          /* of a load under way, as the host names it */
    uint32_t phase_permille; /* 0xffffffff: unknown */
    int desired;             /* its row is in the store */
    char skipped[512];       /* variants that were tried and why they did not do */

    uint32_t queued, running;
    struct xi_session_stats stats;
    struct xi_rate rate; /* of stats.ok and stats.device_ns */
};

/* Called once for each load or unload when it has ended (READY, FAILED, GONE). view is borrowed;
 * NULL with err when there is nothing to see. */
typedef void (*xi_session_cb)(void *ctx, const struct xi_session *view, const struct xi_err *err);

/* A device was lost under a host, which said so itself: somebody should look whether it is there,
 * and tell (xi_sessions_device_state). */
typedef void (*xi_device_suspect_cb)(void *ctx, const char *engine, const char *device);

struct xi_pool;
struct xi_store;
struct xi_engine_record;

/* Borrowed for the manager's life. */
struct xi_sessions_config {
    const char *host_program, *engine_dir, *openvino_dir;
    uint64_t host_data_limit_bytes;
    uint32_t cores, crash_window_ms, crash_limit, host_uid, drain_ms;
    uint32_t load_silence_ms, load_limit_ms; /* 0: 5 and 30 minutes */
    int sandbox;
    struct xi_tenants *tenants;       /* NULL: sessions have no owner (tests) */
    struct xi_why *why;               /* may be NULL */
    const struct xi_cgroups *cgroups; /* hosts get groups of their own; NULL: none */
    struct xi_monitor *monitor;       /* what other programs leave; NULL: not looked at */
    uint64_t memory_bytes;            /* that sessions may hold of this machine's; 0: no limit */
    int keep_idle;                    /* idle sessions do not make room for others */
};

/* NULL: memory is out. Free after xi_sessions_close has emptied it and the loop has run. */
struct xi_sessions *xi_sessions_new(uv_loop_t *loop, const struct xi_sessions_config *config,
                                    struct xi_shm *shm, struct xi_store *store,
                                    struct xi_pool *pool);
void xi_sessions_free(struct xi_sessions *m);
/* What loads may choose from; borrowed. Until then every load is refused with ENOENGINE. */
void xi_sessions_set_engines(struct xi_sessions *m, const struct xi_engine_record *engines,
                             uint32_t n);
/* Unloads everything without draining; xi_sessions_alive is 0 when it is done. Desired state stays
 * as it is. */
void xi_sessions_close(struct xi_sessions *m);

/* May an engine (NULL: every one) use its device of this id ("GPU.0")? Not any more (gone, too
 * hot): sessions on it take their next best variant elsewhere, or fail with the reason. Again:
 * those that failed so are loaded. The same state twice changes nothing. */
void xi_sessions_device_state(struct xi_sessions *m, const char *engine, const char *device, int ok,
                              const char *reason);
void xi_sessions_on_suspect(struct xi_sessions *m, xi_device_suspect_cb cb, void *ctx);

/* Starts a load. record ownership moves here, also on failure. Same digest with the same options
 * under the same name answers the same session again. With cb NULL nobody waits. Fails at once
 * with ECONFLICT, EBUDGET, EAGAIN (too many sessions), ENOENGINE (no variant's engine is here). */
enum xi_rc xi_sessions_load(struct xi_sessions *m, const char *id, const char *digest,
                            struct xi_package_record *record, const struct xi_load_options *options,
                            xi_session_cb cb, void *ctx, struct xi_session **ret,
                            struct xi_err *err) XI_MUST_CHECK;
/* Drains, ends the host, frees; cb hears of GONE with memory_bytes given back. */
void xi_sessions_unload(struct xi_sessions *m, struct xi_session *session, xi_session_cb cb,
                        void *ctx);
/* By name within the tenant, or by id (administrators: any tenant, pass tenant NULL). Borrowed.
 * ENOENT names the nearest; EGONE for an id that has ended. */
enum xi_rc xi_sessions_find(struct xi_sessions *m, const char *tenant, const char *name_or_id,
                            struct xi_session **ret, struct xi_err *err) XI_MUST_CHECK;
/* The same, and of this version (NULL, "": the active one; "2" is 2.0.0). */
enum xi_rc xi_sessions_find_version(struct xi_sessions *m, const char *tenant,
                                    const char *name_or_id, const char *version,
                                    struct xi_session **ret, struct xi_err *err) XI_MUST_CHECK;
/* Who a request goes to: by weight where a name has several sessions (a sequence sticks to one,
 * and stays there when weights change), by id where it says one. Wakes an IDLE session. Nothing is
 * allocated. On success the caller holds a reference as a user: xi_session_leave ends it. Else,
 * with *ret_wait set: nobody can say yet (the session is being loaded for this request, or swapped
 * in place): ask again soon. ENOENT also where nobody with this name is of that version. EGONE
 * after a swap: xi_sessions_successor names the one to ask. */
struct xi_route_ask {
    const char *tenant; /* NULL: an administrator's, who reaches every id */
    const char *name_or_id;
    const char *version;                    /* NULL, "": any; "2" is 2.0.0 */
    const char *client;                     /* tenant who asks */
    const struct xi_sequence_ask *sequence; /* NULL: none */
};
enum xi_rc xi_sessions_route(struct xi_sessions *m, const struct xi_route_ask *ask,
                             struct xi_session **ret, int *ret_wait,
                             struct xi_err *err) XI_MUST_CHECK;
void xi_session_leave(struct xi_session *s);
/* The id that serves in the place of an ended one; NULL: none is known. */
const char *xi_sessions_successor(struct xi_sessions *m, const char *id);
/* Ends the host of a READY session that nobody uses; it stays as IDLE, desired, and the next
 * request or lease loads it again. 0: it is in use (requests, a lease, a swap) or not READY. Its
 * memory is free when its host has gone. */
int xi_sessions_idle(struct xi_sessions *m, struct xi_session *session, const char *why);

/* Changes memory_bytes and whether idle sessions make room. Who holds more keeps it. */
void xi_sessions_set_memory(struct xi_sessions *m, uint64_t limit_bytes, int evict_idle);
/* The index-th budget (admission.h): 0 is this machine's memory, accelerators follow as they are
 * first used. 0: no more. */
struct xi_budget_view;
int xi_sessions_budget(struct xi_sessions *m, uint32_t index, struct xi_budget_view *ret);

/* Leases: each keeps its session loaded until it expires or is ended; they survive no restart of
 * the daemon, and a swap hands them over. An IDLE session is loaded for it. expires_ms: on the
 * monotonic clock. EAGAIN, ENOMEM; ENOENT: no such lease (any more). */
struct xi_lease;
enum xi_rc xi_sessions_lease(struct xi_sessions *m, struct xi_session *session, uint32_t ttl_s,
                             const struct xi_lease **ret, struct xi_err *err) XI_MUST_CHECK;
/* ttl_s 0 ends it (*ret is NULL then). tenant NULL: any. */
enum xi_rc xi_sessions_lease_renew(struct xi_sessions *m, const char *tenant, const char *id,
                                   uint32_t ttl_s, const struct xi_lease **ret,
                                   struct xi_err *err) XI_MUST_CHECK;

void xi_session_get(struct xi_session *s);
void xi_session_put(struct xi_session *s);
/* Walks all, newest last; NULL starts, NULL ends. */
struct xi_session *xi_sessions_each(struct xi_sessions *m, struct xi_session *after);
/* 1 when every session is READY (quarantined or loading ones make it 0, with the reason). */
int xi_sessions_ready(struct xi_sessions *m, struct xi_err *why);
uint32_t xi_sessions_count(const struct xi_sessions *m);
/* Those whose memory is still held, GONE ones included. */
uint32_t xi_sessions_alive(const struct xi_sessions *m);

#endif
