/* session_private.h: the inside of the session manager. Loop thread.
 *
 *   session_fsm.c      the rules, pure
 *   session_names.c    lookup by name and id, shares, ids that have ended
 *   session_route.c    the hot path: which session does a request go to
 *   swap_fsm.c         the rules of a swap, pure
 *   session_swap.c     does what they say
 *   session_shadow.c   copies of requests for a session on trial
 *   session_idle.c     leases, and giving hosts back that nobody needs (leases.c: the table)
 *   session_manager.c  load, unload, find: what callers ask
 *   session_memory.c   what they may take of the machine's memory, and who makes room
 *   session_host.c     does what the rules say: variants, timers, notices
 *   session_devices.c  devices that are not to be used
 *   session_recycle.c  hosts that grew too large are replaced
 *   session_group.c    host processes, and who shares them (isolation.c: who may) */
#ifndef XI_DAEMON_CORE_SESSION_PRIVATE_H
#define XI_DAEMON_CORE_SESSION_PRIVATE_H

#include "daemon/core/leases.h"
#include "daemon/core/pool_private.h"
#include "daemon/core/session_fsm.h"
#include "daemon/core/session_memory.h"
#include "daemon/core/session_names.h"
#include "daemon/core/session_swap.h"
#include "daemon/core/variants.h"

#define XI_NAME_BUCKETS     2048u /* a power of two, twice the sessions */
#define XI_ENDED_MAX        1024u
#define XI_WAITERS_MAX      256u
#define XI_PENDING_MAX      16u
#define XI_BACKOFF_FIRST_MS 20u
#define XI_BACKOFF_MAX_MS   10000u
#define XI_STABLE_MS        30000u
#define XI_HOST_GRACE_MS    1000u
#define XI_LOAD_SILENCE_MS  300000u  /* a load that reports nothing for so long hangs */
#define XI_LOAD_LIMIT_MS    1800000u /* whatever it reports */
#define XI_UNLOAD_MS        10000u   /* to free one session of several */

struct xi_waiter {
    xi_session_cb cb;
    void *ctx;
    struct xi_waiter *next;
};

struct xi_waiters {
    struct xi_waiter *head, **tail;
    uint32_t n;
};

struct xi_ended {
    char id[XI_UUID_TEXT + 1], successor[XI_UUID_TEXT + 1];
};

struct xi_entry {
    struct xi_session s; /* first: callers hold this */
    struct xi_sessions *m;
    struct xi_session_fsm fsm;
    struct xi_fsm_input pending[XI_PENDING_MAX];
    uint32_t n_pending;
    int feeding;
    struct xi_variant_choice *choices;
    uint32_t n_choices, at;
    char link_dir[512], cache_dir[512];
    uv_timer_t timer; /* back-off, load silence, stability, drain or unload: never two at once */
    uint64_t load_until_ms; /* of the load under way */
    int load_limited;       /* the timer waits for that, not for a sign of life */
    uint64_t crash_at_ms[XI_CRASHES_MAX];
    uint32_t n_crash_times;
    char exit_reason[160];
    struct xi_session_memory memory;
    struct xi_waiters loaders, unloaders;
    struct xi_named *named;       /* NULL: it has no name any more */
    struct xi_entry *by_id;       /* next in the bucket */
    struct xi_swap *swap;         /* it takes part in; NULL: none */
    struct xi_previous *previous; /* whom it replaced, to be put back if it crash-loops; or NULL */
    struct xi_entry *prev, *next; /* all, newest last */

    /* in its group (session_group.c) */
    struct xi_entry *mate_prev, *mate_next;
    int inside;           /* of the group's host: s.host */
    int asked;            /* the host was told to load it */
    int waits;            /* for the end of the host before, to start the next */
    uint32_t fresh_lane;  /* where it was loaded to take over */
    int fresh_up;         /* it was */
    uint64_t fresh_bytes; /* and took so much */
    int ending;           /* while the host's end is worked through */
    enum xi_crash_blame blame;
    uint8_t died_loading; /* so many hosts in a row while this loaded */
};

#define XI_ASIDE_MAX 32u
struct xi_aside {
    char engine[32]; /* "" : every one's */
    char device[32], reason[128];
};

struct xi_sessions {
    uv_loop_t *loop;
    struct xi_sessions_config config;
    struct xi_shm *shm;
    struct xi_store *store;
    struct xi_pool *pool;
    const struct xi_engine_record *engines;
    uint32_t n_engines;
    struct xi_group *groups;
    struct xi_recycler *recycler;
    struct xi_admission *admission;
    struct xi_entry *memory_line; /* those whose room is being made */
    xi_device_suspect_cb suspect;
    void *suspect_ctx;
    struct xi_aside aside[XI_ASIDE_MAX]; /* devices; "" : unused */
    struct xi_entry *first, *last;
    uint32_t count; /* not GONE */
    uint32_t alive; /* not yet freed */
    uint32_t next_number;
    int closing;
    struct xi_named *names[XI_NAME_BUCKETS];
    struct xi_entry *ids[XI_NAME_BUCKETS];
    struct xi_ended ended[XI_ENDED_MAX];
    uint32_t next_ended;
    struct xi_leases leases;
    uv_timer_t clock; /* leases and idling; runs while there are any */
};

static inline struct xi_entry *xi_entry_of(struct xi_session *s)
{
    return (struct xi_entry *)(void *)s;
}

/* A swap under way. Both sessions are referenced until it is over. */
struct xi_swap {
    struct xi_sessions *m;
    struct xi_swap_fsm fsm;
    struct xi_named *named; /* NULL once it is decided */
    struct xi_entry *old, *new;
    uv_timer_t timer, kick;
    unsigned open_handles;
    uint32_t trial_s;
    uint64_t ends_ms; /* of the trial or the drain, on the loop's clock */
    struct xi_waiters callers, promoters;
    struct xi_err reason, why;                  /* what may roll it back, what did */
    struct xi_session_stats old_base, new_base; /* when the trial began */
    uint32_t new_crashes;
    struct xi_swap_view view;
    struct xi_shadow *shadow; /* NULL: none */
};

/* What to load again when the one that took its place is quarantined before until_ms. */
struct xi_previous {
    char digest[XI_DIGEST_HEX + 1];
    struct xi_load_options options;
    uint64_t until_ms;
};
/* It was quarantined: puts back whom it replaced, if that was not long ago. */
void xi_swap_put_back(struct xi_entry *e);

struct xi_shadow *xi_shadow_new(struct xi_swap *swap); /* NULL: memory is out */
void xi_shadow_put(struct xi_shadow *shadow);          /* NULL is fine; copies still end */

/* ---- idling (session_idle.c) ---- */
int xi_entry_unused(const struct xi_entry *e); /* nobody would miss its host just now */
void xi_clock_need(struct xi_sessions *m);     /* a session or a lease that needs it has come */
void xi_leases_move(struct xi_sessions *m, struct xi_session *from, struct xi_session *to);

/* ---- load ---- */
/* Is the name that a load asks for free? ECONFLICT: another session has it. *ret_same: this very
 * session is here already; *ret_yields: one that failed has it and makes way. Changes nothing. */
enum xi_rc xi_sessions_name_free(struct xi_sessions *m, const char *digest,
                                 const struct xi_load_options *o, struct xi_entry **ret_same,
                                 struct xi_entry **ret_yields, struct xi_err *err) XI_MUST_CHECK;
/* May a session be loaded now, and with what options? Spells them out. */
enum xi_rc xi_sessions_admit(struct xi_sessions *m, const struct xi_package_record *record,
                             struct xi_load_options *o, struct xi_err *err) XI_MUST_CHECK;
/* A session in state LOADING that nobody has fed. record moves only on success. */
enum xi_rc xi_entry_new(struct xi_sessions *m, const char *id, const char *digest,
                        struct xi_package_record *record, const struct xi_load_options *options,
                        struct xi_entry **ret, struct xi_err *err) XI_MUST_CHECK;

/* ---- life ---- */
void xi_entry_feed(struct xi_entry *e, enum xi_fsm_event event);
void xi_entry_feed_input(struct xi_entry *e, const struct xi_fsm_input *input);
/* What the host says of it. */
void xi_entry_load_goes_on(struct xi_entry *e); /* also of those that wait for their turn */
void xi_entry_progress(struct xi_entry *e, const struct xi_msg_progress *msg);
/* memory_bytes: that it added to the host's. The signature is taken. */
void xi_entry_loaded(struct xi_entry *e, const struct xi_msg_loaded *msg,
                     struct xi_signature *signature, uint64_t memory_bytes);
void xi_entry_load_failed(struct xi_entry *e, const struct xi_err *err);
void xi_entry_unload_begins(struct xi_entry *e);
struct xi_msg_load xi_entry_load_message(const struct xi_entry *e); /* lanes are not filled in */
/* Its host has ended, or holds it no more. blame XI_BLAME_MODEL: the pool says whose fault it was;
 * else that is known, and no request is. lost: it took the device with it. */
void xi_entry_host_gone(struct xi_entry *e, const char *reason, enum xi_crash_blame blame,
                        int lost);
/* ---- memory of hosts (session_recycle.c) ---- */
struct xi_recycler *xi_recycler_new(struct xi_sessions *m); /* NULL: memory is out */
void xi_recycler_free(struct xi_recycler *r); /* frees itself once nothing is under way */

/* ---- devices that are not to be used (session_devices.c) ---- */
int xi_choice_usable(const struct xi_entry *e, uint32_t choice);
/* Says why it takes another variant now. */
void xi_entry_note_move(struct xi_entry *e, const char *reason);
/* All its variants on the device of the one in turn; 0: there is no other, so none is. */
int xi_entry_lose_device(struct xi_entry *e);
/* A host went down with this device. */
void xi_device_suspect(struct xi_sessions *m, uint32_t engine, const char *device);

enum xi_rc xi_waiters_add(struct xi_waiters *w, xi_session_cb cb, void *ctx,
                          struct xi_err *err) XI_MUST_CHECK;
void xi_waiters_tell(struct xi_waiters *w, const struct xi_session *view, const struct xi_err *err);

#endif
