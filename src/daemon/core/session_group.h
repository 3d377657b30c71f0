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
void xi_group_enter(struct xi_entry *e, const char *link_dir, const char *cache_dir);
/* Finds lanes and sends LOAD. EAGAIN: the host has no lanes left. */
enum xi_rc xi_group_load(struct xi_entry *e, struct xi_msg_load *load,
                         struct xi_err *err) XI_MUST_CHECK;
/* Ends what it has in the host: EXITED is fed when that has gone. */
void xi_group_leave(struct xi_entry *e, const char *why);

#endif
