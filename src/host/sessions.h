/* sessions.h: the sessions of one host. Control thread only.
 *
 * Loads and unloads run one at a time, in the order they were asked for, each on a thread of its
 * own that steps back behind the lanes; the control thread starts it and takes its result. So a
 * load disturbs nobody who is served already, and no state here is shared. */
#ifndef XI_HOST_SESSIONS_H
#define XI_HOST_SESSIONS_H

#include "host/control.h"
#include "host/lane.h"
#include "host/sandbox.h"

struct xi_sessions;

/* args and box are borrowed. NULL: memory or descriptors are out. */
struct xi_sessions *xi_sessions_new(const struct xi_host_args *args, const struct xi_sandbox *box);
/* Ends the lanes (they were told to quit) and frees all. A load that still runs ends the process,
 * for nothing else can end it. */
void xi_sessions_free(struct xi_sessions *s);

/* Messages. EPROTO: lanes or sessions that are not there, or are there already. */
enum xi_rc xi_sessions_lane(struct xi_sessions *s, const struct xi_msg_lane *m, int fds[3],
                            struct xi_segments *segments, struct xi_err *err) XI_MUST_CHECK;
enum xi_rc xi_sessions_load(struct xi_sessions *s, const struct xi_msg_load *m,
                            struct xi_err *err) XI_MUST_CHECK;
enum xi_rc xi_sessions_unload(struct xi_sessions *s, uint32_t session,
                              struct xi_err *err) XI_MUST_CHECK;
/* The output memory of a lane; NULL: it is not there (any more). */
struct xi_outputs *xi_sessions_outputs(struct xi_sessions *s, uint32_t lane);

/* Readable when a load or unload is through; then call reap, which answers the daemon and starts
 * the next. 0: this host is of no use any more (its only load failed). */
int xi_sessions_fd(const struct xi_sessions *s);
int xi_sessions_reap(struct xi_sessions *s);

#endif
