/* service.h: the daemon's core as the doors (HTTP now, gRPC and the local lane later) see it.
 * Loop thread. One object owns store, sessions, pool, monitor and engine records; main.c makes
 * it, api/ calls it. */
#ifndef XI_DAEMON_CORE_SERVICE_H
#define XI_DAEMON_CORE_SERVICE_H

#include <jansson.h>
#include <uv.h>

#include "base/log.h"
#include "base/platform/cgroup.h"
#include "daemon/core/request.h"
#include "daemon/core/resource_monitor.h"
#include "daemon/core/session_manager.h"
#include "daemon/core/session_plan.h"
#include "daemon/core/session_swap.h"
#include "daemon/core/store.h"
#include "daemon/core/tenants.h"
#include "daemon/core/why.h"
#include "daemon/core/worker_pool.h"
#include "daemon/ipc/regions.h"
#include "xinfer/engine.h"

/* What the core needs to know of the configuration. */
struct xi_service_config {
    const char *state_dir, *host_program, *engine_dir, *openvino_dir,
        *sensors_root; /* borrowed for its life; sensors_root NULL: the machine's own */
    uint64_t input_memory_bytes, host_data_limit_bytes;
    uint32_t cores, queue_limit, watchdog_min_ms, crash_window_ms, crash_limit, host_uid;
    uint32_t drain_ms; /* of an unload */
    int sandbox;
    uint64_t
        memory_bytes;    /* that sessions may reserve together; 0: no limit. Changes at run time */
    int evict;           /* idle sessions make room for new ones */
    const char *tenants; /* the file's tenants as JSON ("": none); borrowed until open returns */
    enum xi_log_level log_level;
};

/* One engine plugin as probed at start. */
struct xi_engine_record {
    char name[32];
    int present;
    uint16_t abi_major, abi_minor;
    struct xi_engine_probe probe;
    struct xi_err why; /* when not present or the probe itself ended badly */
    uint64_t probe_us;
};

struct xi_service {
    uv_loop_t *loop;
    struct xi_service_config config;
    struct xi_shm *shm;
    struct xi_regions *regions;
    struct xi_store *store;
    struct xi_sessions *sessions;
    struct xi_pool *pool;
    struct xi_monitor *monitor;
    struct xi_cgroups cgroups; /* of hosts; dir -1: rlimits alone hold them */
    struct xi_tenants *tenants;
    struct xi_why *why;
    struct xi_engine_record *engines;
    uint32_t n_engines;
    struct xi_hist loop_lag; /* of a 1 ms timer on the loop (loop_lag.h) */
    uint64_t started_ms;
    uint64_t next_request_id;
    int restored; /* desired state was read and its loads begun */
    int draining;
    char node[65]; /* host name */
};

/* Opens the store, probes every plugin in engine_dir (in parallel, each with a time limit), brings
 * back desired state. Returns once the loop can run; the rest happens on it. */
enum xi_rc xi_service_open(uv_loop_t *loop, const struct xi_service_config *config,
                           struct xi_service **ret, struct xi_err *err) XI_MUST_CHECK;
/* SIGTERM: no new requests; cb when all in flight have ended or drain_ms have passed. */
void xi_service_drain(struct xi_service *s, unsigned drain_ms, void (*cb)(void *ctx), void *ctx);
/* After drain, and not from a callback of the loop: turns the loop until the hosts have ended, then
 * closes the store. The rest is freed as the loop closes its handles: run it once more. */
void xi_service_close(struct xi_service *s);

/* find + desire + load, answered when READY or FAILED (wait) or when accepted and durable. With
 * replace: when the name is the new session's (or its trial has begun), or why the old one serves
 * on; without wait as soon as the new one is being loaded, which the daemon's end forgets. */
struct xi_load_request {
    const char *package; /* digest, name or name:version */
    struct xi_load_options options;
    int wait;
    int replace; /* take the place of whoever has the name */
    struct xi_swap_ask swap;
};
void xi_service_load(struct xi_service *s, const struct xi_load_request *load, xi_session_cb cb,
                     void *ctx);
void xi_service_unload(struct xi_service *s, const char *tenant, const char *name_or_id,
                       xi_session_cb cb, void *ctx);
/* What a load would do; nothing is changed. cb hears of the plan, or why it would be refused. */
typedef void (*xi_plan_cb)(void *ctx, const struct xi_plan *plan, const struct xi_err *err);
void xi_service_plan(struct xi_service *s, const struct xi_load_request *load, xi_plan_cb cb,
                     void *ctx);
/* Live: always while the loop runs. Ready: engines probed, desired state restored and READY. */
int xi_service_ready(struct xi_service *s, struct xi_err *why);

/* Changes settings (settings.h) as a JSON Merge Patch over those of the file, and of models of this
 * tenant: all of it or nothing, durable when cb hears of success. patch is borrowed. */
void xi_service_configure(struct xi_service *s, const char *tenant, const json_t *patch,
                          xi_store_cb cb, void *ctx);

/* A new request for this session: id, born time and one session reference. */
void xi_request_init(struct xi_service *s, struct xi_request *req, struct xi_session *session);

#endif
