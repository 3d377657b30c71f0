/* host_link.h: one xinfer-host as the daemon sees it. Loop thread.
 *
 * Owns the process (pidfd), its control socket, its lanes' rings, its output segments and its log
 * pipe. Everything a host sends is copied out, then checked; the first lie ends it. Events come
 * from the loop, never from inside a call of this header, so a handler may call anything here. */
#ifndef XI_DAEMON_IPC_HOST_LINK_H
#define XI_DAEMON_IPC_HOST_LINK_H

#include <stdint.h>
#include <uv.h>

#include "base/platform/cgroup.h"
#include "daemon/ipc/shm_manager.h"
#include "ipc/messages.h"
#include "ipc/work.h"
#include "xinfer/engine.h"

struct xi_host;

enum xi_host_role { XI_HOST_RUN = 0, XI_HOST_PROBE = 1, XI_HOST_INSTALL = 2 };

struct xi_host_exit {
    int exit_code; /* -1: by a signal */
    int signal;
    int killed;       /* by us: xi_host_kill */
    char reason[160]; /* "ended by SIGSEGV", "broke the protocol: …" */
};

/* What a host answered to one request. Outputs stay mapped and valid until xi_reply_release, even
 * when the host dies meanwhile. */
struct xi_reply {
    struct xi_done done;
    struct xi_part parts[XI_TENSORS_MAX];        /* done.n_parts, checked */
    struct xi_segment *segments[XI_TENSORS_MAX]; /* one reference each; NULL: the output lies in the
                                                    place that the request gave for it, as far as
                                                    the host says: the submitter checks that */
    struct xi_host *host;                        /* NULL: from a cache */
    uint32_t lane;
};
/* NULL: it lies in a client's memory. */
static inline const void *xi_reply_data(const struct xi_reply *r, uint32_t i)
{
    if (r->segments[i] == NULL)
        return NULL;
    return (const uint8_t *)r->segments[i]->map.base + r->parts[i].mem.offset;
}
/* Gives the output memory back to the host (if it still lives). A released or empty one is fine. */
void xi_reply_release(struct xi_reply *reply);
/* The same for its last n parts alone, which it has no more. */
void xi_reply_trim(struct xi_reply *reply, uint32_t n);

/* Any may be NULL. */
struct xi_host_events {
    void *ctx;
    void (*progress)(void *ctx, struct xi_host *host, const struct xi_msg_progress *m);
    /* signature is the handler's to keep (xi_signature_fini). */
    void (*loaded)(void *ctx, struct xi_host *host, const struct xi_msg_loaded *m,
                   struct xi_signature *signature);
    /* session 0: the host as a whole, or another role than RUN. Else the session has gone from it:
     * no unload. */
    void (*failed)(void *ctx, struct xi_host *host, uint32_t session, const struct xi_err *err,
                   const char *phase);
    /* The session's lanes are closed, its numbers free. */
    void (*unloaded)(void *ctx, struct xi_host *host, const struct xi_msg_unload *m);
    void (*probed)(void *ctx, struct xi_host *host, const struct xi_msg_probed *m,
                   const struct xi_engine_probe *probe);
    void (*installed)(void *ctx, struct xi_host *host, uint64_t record_bytes);
    /* The reply is the handler's to release; it may be copied. */
    void (*done)(void *ctx, struct xi_host *host, uint32_t lane, struct xi_reply *reply);
    /* Last event; the handler then calls xi_host_free. */
    void (*exited)(void *ctx, struct xi_host *host, const struct xi_host_exit *why);
};

struct xi_host_spec {
    enum xi_host_role role;
    const char *label;                /* for the log: "night#3f2a" */
    const char *program;              /* path of xinfer-host */
    const char *plugin_dir;           /* engines lie there */
    const char *engine;               /* PROBE, RUN: which plugin */
    const char *engine_libs;          /* vendor libraries; "" : the plugin's own search */
    const char *link_dir, *cache_dir; /* RUN; what the sandbox opens */
    int archive_fd, staging_fd;       /* INSTALL; borrowed */
    uint64_t data_limit_bytes;        /* RLIMIT_DATA; 0: none */
    const struct xi_cgroups *cgroups; /* NULL: none; lives as long as the host */
    uint64_t memory_max_bytes;        /* of its control group, if it has one; 0: none */
    unsigned cpu_weight;              /* the same */
    uint64_t output_limit_bytes;      /* of output segments, 0: 1 GiB */
    int nice;            /* it steps back so far behind the loop: base/platform/self.h */
    uint32_t run_as_uid; /* 0: as we are */
    int sandbox;         /* 0 only by configuration, for debugging */
    int group;           /* RUN: more sessions will come, so it stays able to load */
};

enum xi_rc xi_host_start(uv_loop_t *loop, struct xi_shm *shm, const struct xi_host_spec *spec,
                         const struct xi_host_events *events, struct xi_host **ret,
                         struct xi_err *err) XI_MUST_CHECK;
/* RUN: sets up the lanes that load names (free ones, from first_lane on) and asks for the load; any
 * number of sessions, each number once. nice: of the lanes' threads. head is filled in here. */
enum xi_rc xi_host_load(struct xi_host *host, struct xi_msg_load *load, int nice,
                        struct xi_err *err) XI_MUST_CHECK;
/* RUN: asks it to free a session that was loaded or is still loading, once what is in
 * flight is answered; `unloaded` comes. EHOST: it is ending. */
enum xi_rc xi_host_unload(struct xi_host *host, uint32_t session, struct xi_err *err) XI_MUST_CHECK;
/* It lives and was not told to end. */
int xi_host_runs(const struct xi_host *host);
/* A load was asked for that is not answered yet. */
int xi_host_loads(const struct xi_host *host);
/* Nothing that was submitted waits for its answer. */
int xi_host_idle(const struct xi_host *host);
/* One work record to a free lane. Each request's parts and then its places; `segments` (one for
 * each of both) says which segment they lie in: segments the host has not seen are passed first.
 * core: where the lane's thread is to begin, or XI_CORE_ANY.
 * EAGAIN: ring full; EHOST: it is ending. */
struct xi_work_item {
    struct xi_work_request request;
    const struct xi_part *parts;  /* n_parts - n_places */
    const struct xi_part *places; /* n_places */
    struct xi_segment *const *segments;
};
enum xi_rc xi_host_submit(struct xi_host *host, uint32_t lane, enum xi_work_op op, int core,
                          const struct xi_work_item *items, uint32_t n_items,
                          struct xi_err *err) XI_MUST_CHECK;
/* An input or client segment is about to be closed: tell the host to unmap it. */
void xi_host_forget_segment(struct xi_host *host, uint32_t segment_id);
/* Ends it cleanly (QUIT, then SIGKILL after grace_ms), or at once with grace_ms 0. */
void xi_host_stop(struct xi_host *host, unsigned grace_ms, const char *why);
/* After `exited`. Frees when its handles are closed; replies in flight stay valid. */
void xi_host_free(struct xi_host *host);

/* Of its control group, if it has one. */
void xi_host_limit_memory(struct xi_host *host, uint64_t bytes);
int xi_host_pid(const struct xi_host *host);
const char *xi_host_sandbox(const struct xi_host *host); /* what HELLO said */
uint64_t xi_host_rss_bytes(const struct xi_host *host);  /* private; reads /proc, so rarely */

#endif
