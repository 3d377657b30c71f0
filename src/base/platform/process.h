/* platform/process.h: child processes, wake-ups and local message sockets. Any thread. */
#ifndef XI_BASE_PLATFORM_PROCESS_H
#define XI_BASE_PLATFORM_PROCESS_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/status.h"

#define XI_SPAWN_FDS_MAX   16
#define XI_MESSAGE_FDS_MAX 8

/* Starts argv[0] with exactly these descriptors: fds[i] becomes 3 + i, in/out/err are given (-1:
 * /dev/null), everything else is closed. env NULL: an empty environment. The child is placed in
 * its own process group. *ret_pidfd is the caller's to close; it polls readable when the child
 * has ended. */
struct xi_spawn {
    const char *const *argv, *const *env;
    int fds[XI_SPAWN_FDS_MAX];
    size_t n_fds;
    int in_fd, out_fd, err_fd;
};
enum xi_rc xi_process_spawn(const struct xi_spawn *spawn, pid_t *ret_pid, int *ret_pidfd,
                            struct xi_err *err) XI_MUST_CHECK;
/* Sends a signal through the pidfd (never to a reused id). 0 or an errno. */
int xi_process_signal(int pidfd, int signo);
/* Kills every process of the group that the child was started in. Only before it is reaped: until
 * then its number cannot be another's. */
void xi_process_kill_group(pid_t pid);
/* Memory of a process (0: this one) that goes back when it ends, and the most of it so far. Reads
 * /proc: milliseconds for a large process. 0 on success. */
int xi_process_memory(pid_t pid, uint64_t *ret_private_bytes, uint64_t *ret_peak_bytes);
/* Collects an ended child: 1 and what happened (exit code, or signal number), 0 if it runs on. */
int xi_process_reap(pid_t pid, int *ret_exit_code, int *ret_signal);

/* A way to wake a process that is not trusted, or to be woken by it: ret[0] becomes readable when
 * ret[1] is signalled. Two open files, unlike a shared wake-up counter, whose every holder may
 * fill it and make it block for all. ret[1] never blocks; ret[0] does if waiter_blocks. */
enum xi_rc xi_wake_pair(int waiter_blocks, int ret[2], struct xi_err *err) XI_MUST_CHECK;
/* A counter that wakes a poller; non-blocking, close-on-exec. -1 when there is none to be had. */
int xi_wake_new(void);
void xi_wake_signal(int fd);
void xi_wake_drain(int fd);
/* Blocks until fd is signalled or ms pass (-1: no limit) and drains it. 1 signalled, 0 time. */
int xi_wake_wait(int fd, int timeout_ms);

/* A pair of connected message sockets (SOCK_SEQPACKET, close-on-exec, both non-blocking). */
enum xi_rc xi_message_pair(int ret[2], struct xi_err *err) XI_MUST_CHECK;
/* One message with descriptors (they stay the caller's). EAGAIN when the peer's queue is full,
 * EHOST when the peer has gone. */
enum xi_rc xi_message_send(int fd, const void *bytes, size_t n, const int *fds, size_t n_fds,
                           struct xi_err *err) XI_MUST_CHECK;
/* One message; descriptors are the caller's to close. EAGAIN: none waiting; EHOST: the peer has
 * gone; EPROTO: truncated (its descriptors were closed). */
enum xi_rc xi_message_recv(int fd, void *buf, size_t cap, size_t *ret_n,
                           int ret_fds[XI_MESSAGE_FDS_MAX], size_t *ret_n_fds,
                           struct xi_err *err) XI_MUST_CHECK;
/* Waits until fd is readable. 1 readable, 0 time is up. */
int xi_fd_wait_readable(int fd, int timeout_ms);
void xi_fd_close(int *fd); /* -1 is fine; sets it to -1 */

#endif
