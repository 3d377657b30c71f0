/* session_swap.h: one session takes another's place. Loop thread.
 *
 * The rules are in swap_fsm.h, pure and explored exhaustively; this file does what they say. A
 * swap senses its two sessions whenever the manager says that something happened to one of them. */
#ifndef XI_DAEMON_CORE_SESSION_SWAP_H
#define XI_DAEMON_CORE_SESSION_SWAP_H

#include "daemon/core/session_manager.h"
#include "daemon/core/swap_fsm.h"

#define XI_SHARE_ALL 1000u /* shares are thousandths */

enum xi_swap_strategy {
    XI_STRATEGY_AUTO = 0, /* beside; in place when memory has no room for two */
    XI_STRATEGY_BESIDE,
    XI_STRATEGY_IN_PLACE,
    XI_STRATEGY_SHADOW /* beside, with copies of the requests before it decides */
};

struct xi_swap_ask {
    enum xi_swap_strategy strategy;
    uint32_t share;   /* canary: thousandths of the requests; 0: none */
    uint32_t trial_s; /* of a canary or shadow; 0: until it is promoted or rolled back */
};

/* How a swap stands, for people. */
struct xi_swap_view {
    const char *phase, *strategy; /* "load", "canary", …; "beside", "in-place", "shadow" */
    char old_id[XI_UUID_TEXT + 1], new_id[XI_UUID_TEXT + 1];
    uint32_t share; /* thousandths */
    /* Since the trial began; shadow: copies that were answered, failed, and not made because too
     * many were under way. */
    uint64_t old_requests, old_errors, new_requests, new_errors, skipped;
};

/* Loads a session beside the one that has options->name, or in its place, and lets it take over.
 * record moves here, also on failure. cb (may be NULL) hears once: of the new session when the name
 * is its own (or its trial has begun), or why the old one serves on. *ret: the new session.
 * ECONFLICT: a swap of this name is under way; ENOENT: nothing has this name; what a load fails
 * with at once. */
enum xi_rc xi_swap_begin(struct xi_sessions *m, const char *id, const char *digest,
                         struct xi_package_record *record, const struct xi_load_options *options,
                         const struct xi_swap_ask *ask, xi_session_cb cb, void *ctx,
                         struct xi_session **ret, struct xi_err *err) XI_MUST_CHECK;
/* Ends the trial of the name: cb hears of the new session when the name is its own, or why not. */
void xi_swap_promote(struct xi_sessions *m, const char *tenant, const char *name, xi_session_cb cb,
                     void *ctx);
/* The old one serves on; cb hears of it. Also while the new one loads. */
void xi_swap_rollback(struct xi_sessions *m, const char *tenant, const char *name, xi_session_cb cb,
                      void *ctx);
/* 1: desired state is being written for this session's name: it can't be unloaded just now. */
int xi_swap_commits(const struct xi_session *session);

struct xi_entry;
/* Something happened to the entry; looked at from the loop, never from inside. */
void xi_swap_notice(struct xi_entry *e);

/* ---- shadow (session_shadow.c) ---- */

/* A copy of a filled-in request for the shadow of its name: it refers to the same input bytes, its
 * answer is thrown away. NULL: there is no shadow, or too many copies are under way. Made before
 * the request is submitted, to be submitted after it. */
struct xi_request *xi_sessions_mirror(const struct xi_request *req);

#endif
