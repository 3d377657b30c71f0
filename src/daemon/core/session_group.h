/* session_group.h: isolation groups: host processes and the sessions that share them. Loop thread.
 *
 * A group has at most one host. A session is its member from its first start until it has gone or
 * takes another variant elsewhere; it is inside while the group's host was told to load it, or is
 * about to be. What the rules of a session (session_fsm.h) call its host is its place in the
 * group's: "spawn" starts that process or joins it, "stop" unloads the one session and ends the
 * process with its last, and the process's end is every member's. */
#ifndef XI_DAEMON_CORE_SESSION_GROUP_H
#define XI_DAEMON_CORE_SESSION_GROUP_H

#include "daemon/core/session_private.h"

enum xi_renewal {
    XI_RENEWAL_NONE = 0,
    XI_RENEWAL_LOADS,   /* the fresh host loads, the other one serves */
    XI_RENEWAL_SWITCH,  /* all is loaded; what still runs in the old one ends first */
    XI_RENEWAL_RESTART, /* no second host: what runs ends, then the host */
    XI_RENEWAL_REOPEN,  /* called off: what runs ends, then the old one goes on */
    XI_RENEWAL_ENDS     /* a restart: the host was told to end, all members come back */
};

struct xi_group {
    struct xi_sessions *m;
    struct xi_group *prev, *next;
    enum xi_isolation kind;
    char tenant[XI_NAME_MAX + 1]; /* DEVICE: "" */
    uint32_t engine;              /* in the manager's list */
    char device[32];
    char id[XI_UUID_TEXT + 1];
    struct xi_host *host;          /* NULL: none runs */
    struct xi_entry *first, *last; /* members, oldest first */
    uint32_t n_members, n_inside;
    uint32_t held;                             /* not freed meanwhile */
    uint64_t memory_bytes;                     /* of the host, as it last said */
    struct xi_entry *lanes[XI_HOST_LANES_MAX]; /* whose; NULL: free */

    /* while it is renewed (session_recycle.c) */
    enum xi_renewal renewal;
    struct xi_host *fresh; /* loads what the host has, to take its place */
    struct xi_host *old;   /* was replaced, and ends */
    struct xi_entry *fresh_lanes[XI_HOST_LANES_MAX];
    uint64_t fresh_until_ms, fresh_bytes;
    char renew_why[160];
    struct xi_holding second; /* room for both at once (session_memory.c) */
    int in_place;             /* a fresh one beside it could not be had */
    uint32_t served, sampled; /* completions; at the last look at its memory */
};

/* What a session with these options would get on this device, and why: for pick and dry runs. */
enum xi_isolation xi_group_preview(struct xi_sessions *m, const char *tenant,
                                   enum xi_isolation asked, uint32_t engine, uint32_t device,
                                   char ret_reason[160]);
/* Makes it a member of the group that fits its engine, device and isolation. ENOMEM. */
enum xi_rc xi_group_join(struct xi_entry *e, struct xi_err *err) XI_MUST_CHECK;
/* A member no more: it has gone, or goes elsewhere. Fine when it is none. */
void xi_group_part(struct xi_entry *e);
/* A host for it: feeds SPAWN_OK or SPAWN_FAILED, now or when the one before has ended. */
void xi_group_enter(struct xi_entry *e);
/* Finds lanes and sends LOAD. EAGAIN: the host has no lanes left. */
enum xi_rc xi_group_load(struct xi_entry *e, struct xi_msg_load *load,
                         struct xi_err *err) XI_MUST_CHECK;
/* Starts a host process for this group, as the member says. */
enum xi_rc xi_group_start(struct xi_group *g, const struct xi_entry *e, struct xi_host **ret,
                          struct xi_err *err) XI_MUST_CHECK;
/* Lanes for a load, by first fit, and LOAD to the host. Nothing is taken when it fails. */
enum xi_rc xi_group_load_in(struct xi_host *host, struct xi_entry **lanes, struct xi_entry *e,
                            struct xi_msg_load *load, struct xi_err *err) XI_MUST_CHECK;
/* Those that wait for the host to be as it will be. */
void xi_group_let_in(struct xi_group *g);
void xi_group_free_when_empty(struct xi_group *g);

/* Ends what it has in the host: EXITED is fed when that has gone. */
void xi_group_leave(struct xi_entry *e, const char *why);

/* ---- renewal (session_recycle.c) ---- */

/* The host holds `bytes`, allowed were `limit`: a fresh one takes its place without a request
 * lost. Does nothing when a member loads or leaves just now; the next look says it again. */
void xi_group_renew(struct xi_group *g, uint64_t bytes, uint64_t limit);
/* Its members change: what was begun is called off. */
void xi_group_keep(struct xi_group *g);
/* Goes on with it once nothing runs in the host any more. */
void xi_group_quiet(struct xi_group *g);
/* Events of a fresh or a replaced host. 1: it was one. */
int xi_fresh_loaded(struct xi_group *g, struct xi_host *host, const struct xi_msg_loaded *msg,
                    struct xi_signature *signature);
int xi_fresh_failed(struct xi_group *g, struct xi_host *host, const struct xi_err *err);
int xi_fresh_exited(struct xi_group *g, struct xi_host *host, const struct xi_host_exit *why);

#endif
