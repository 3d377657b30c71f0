/* lane.h: one lane: a thread that takes work from its ring, runs it and answers, in order.
 * The control thread makes it, delivers to it, and ends it. */
#ifndef XI_HOST_LANE_H
#define XI_HOST_LANE_H

#include "base/platform/memory.h"
#include "host/output.h"
#include "host/runner.h"
#include "host/segments.h"
#include "ipc/messages.h"

struct xi_host_lane;

/* fds: ring memory, end to wait for work at, end to signal answers with; taken over on success.
 * EPROTO, ENOMEM. */
enum xi_rc xi_host_lane_new(const struct xi_msg_lane *m, const int fds[3],
                            struct xi_segments *segments, struct xi_host_lane **ret,
                            struct xi_err *err) XI_MUST_CHECK;
/* Starts the thread, which waits for go. runner is borrowed until the thread's end. */
enum xi_rc xi_host_lane_start(struct xi_host_lane *lane, struct xi_runner_lane *runner,
                              struct xi_err *err) XI_MUST_CHECK;
void xi_host_lane_go(struct xi_host_lane *lane);
struct xi_outputs *xi_host_lane_outputs(struct xi_host_lane *lane);
/* Waits for the thread's end, if it has one: the daemon tells it by XI_WORK_QUIT, behind its work;
 * one that was not let go yet ends at once. Any thread. */
void xi_host_lane_join(struct xi_host_lane *lane);
/* Joins, gives its output segments back to the daemon. NULL is fine. */
void xi_host_lane_free(struct xi_host_lane *lane);

#endif
