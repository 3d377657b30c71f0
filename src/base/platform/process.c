#define _GNU_SOURCE
#include "base/platform/process.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* What the child does between vfork and exec: only async-signal-safe calls. */
struct child_plan {
    const struct xi_spawn *spawn;
    int std[3];
    int high[XI_SPAWN_FDS_MAX]; /* duplicates out of the way of 0..3+n */
};

static void close_from(int first)
{
#ifdef SYS_close_range
    if (syscall(SYS_close_range, first, ~0U, 0) == 0)
        return;
#endif
    for (int fd = first; fd < 4096; fd++)
        (void)close(fd);
}

static void reset_signals(void)
{
    struct sigaction dfl = {.sa_handler = SIG_DFL};
    sigset_t none;

    for (int s = 1; s < 32; s++)
        (void)sigaction(s, &dfl, NULL);
    (void)sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
}

static void child_exec(struct child_plan *plan) __attribute__((noreturn));
static void child_exec(struct child_plan *plan)
{
    const struct xi_spawn *s = plan->spawn;
    static char *const no_env[] = {NULL};
    int base = 3 + (int)s->n_fds + 64;

    reset_signals();
    (void)setpgid(0, 0);
    for (int i = 0; i < 3; i++)
        plan->std[i] = fcntl(plan->std[i], F_DUPFD, base);
    for (size_t i = 0; i < s->n_fds; i++)
        plan->high[i] = fcntl(s->fds[i], F_DUPFD, base);
    for (int i = 0; i < 3; i++)
        (void)dup2(plan->std[i], i);
    for (size_t i = 0; i < s->n_fds; i++)
        (void)dup2(plan->high[i], 3 + (int)i);
    close_from(3 + (int)s->n_fds);
    char *const *env = s->env ? (char *const *)(uintptr_t)s->env : no_env;
    (void)execve(s->argv[0], (char *const *)(uintptr_t)s->argv, env);
    _exit(127);
}

enum xi_rc xi_process_spawn(const struct xi_spawn *spawn, pid_t *ret_pid, int *ret_pidfd,
                            struct xi_err *err)
{
    struct child_plan plan = {.spawn = spawn};
    int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);

    XI_ASSERT(spawn->n_fds <= XI_SPAWN_FDS_MAX);
    if (null_fd < 0)
        return xi_fail(err, xi_rc_errno(errno), "/dev/null: %s", strerror(errno));
    plan.std[0] = spawn->in_fd >= 0 ? spawn->in_fd : null_fd;
    plan.std[1] = spawn->out_fd >= 0 ? spawn->out_fd : null_fd;
    plan.std[2] = spawn->err_fd >= 0 ? spawn->err_fd : null_fd;
    pid_t pid = fork();
    if (pid == 0)
        child_exec(&plan);
    int saved = errno;
    (void)close(null_fd);
    if (pid < 0)
        return xi_fail(err, XI_ENOMEM, "cannot start %s: %s", spawn->argv[0], strerror(saved));
    int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (pidfd < 0) {
        saved = errno;
        (void)kill(pid, SIGKILL);
        (void)waitpid(pid, NULL, 0);
        return xi_fail(err, xi_rc_errno(saved), "pidfd_open: %s", strerror(saved));
    }
    (void)fcntl(pidfd, F_SETFD, FD_CLOEXEC);
    *ret_pid = pid;
    *ret_pidfd = pidfd;
    return XI_OK;
}

int xi_process_signal(int pidfd, int signo)
{
    return syscall(SYS_pidfd_send_signal, pidfd, signo, NULL, 0) == 0 ? 0 : errno;
}

void xi_process_kill_group(pid_t pid)
{
    if (pid > 1)
        (void)kill(-pid, SIGKILL);
}

/* Adds up the lines of a /proc file that begin with key; they end in " kB". */
static int sum_kib(pid_t pid, const char *file, const char *key, uint64_t *ret_bytes)
{
    char path[64], line[256];
    uint64_t kib = 0;

    if (pid == 0)
        (void)snprintf(path, sizeof path, "/proc/self/%s", file);
    else
        (void)snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, file);
    FILE *f = fopen(path, "re");
    if (f == NULL)
        return -1;
    while (fgets(line, sizeof line, f) != NULL) {
        const char *value = strchr(line, ':');
        if (value != NULL && strncmp(line, key, strlen(key)) == 0)
            kib += strtoull(value + 1, NULL, 10);
    }
    (void)fclose(f);
    *ret_bytes = kib * 1024;
    return 0;
}

int xi_process_memory(pid_t pid, uint64_t *ret_private_bytes, uint64_t *ret_peak_bytes)
{
    if (sum_kib(pid, "smaps_rollup", "Private_", ret_private_bytes) != 0)
        return -1;
    return sum_kib(pid, "status", "VmHWM", ret_peak_bytes);
}

int xi_process_reap(pid_t pid, int *ret_exit_code, int *ret_signal)
{
    int status = 0;
    pid_t got = waitpid(pid, &status, WNOHANG);

    if (got != pid)
        return 0;
    *ret_exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    *ret_signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    return 1;
}

int xi_wake_new(void)
{
    return eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
}

enum xi_rc xi_wake_pair(int waiter_blocks, int ret[2], struct xi_err *err)
{
    if (pipe2(ret, O_CLOEXEC | O_NONBLOCK) != 0)
        return xi_fail(err, xi_rc_errno(errno), "pipe: %s", strerror(errno));
    if (waiter_blocks)
        (void)fcntl(ret[0], F_SETFL, 0);
    return XI_OK;
}

void xi_wake_signal(int fd)
{
    uint64_t one = 1;

    while (write(fd, &one, sizeof one) < 0 && errno == EINTR)
        continue;
}

void xi_wake_drain(int fd)
{
    uint64_t count[16]; /* of a pair there may be several; more than these come up again */

    while (read(fd, count, sizeof count) < 0 && errno == EINTR)
        continue;
}

int xi_fd_wait_readable(int fd, int timeout_ms)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    int n;

    do
        n = poll(&p, 1, timeout_ms);
    while (n < 0 && errno == EINTR);
    return n > 0;
}

int xi_wake_wait(int fd, int timeout_ms)
{
    uint64_t count[16];

    if (timeout_ms < 0 && read(fd, count, sizeof count) >= 0) /* one call where it blocks */
        return 1;
    int signalled = xi_fd_wait_readable(fd, timeout_ms);

    if (signalled)
        xi_wake_drain(fd);
    return signalled;
}

enum xi_rc xi_message_pair(int ret[2], struct xi_err *err)
{
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ret) != 0)
        return xi_fail(err, xi_rc_errno(errno), "socketpair: %s", strerror(errno));
    return XI_OK;
}

union fd_space {
    struct cmsghdr align;
    char bytes[CMSG_SPACE(XI_MESSAGE_FDS_MAX * sizeof(int))];
};

enum xi_rc xi_message_send(int fd, const void *bytes, size_t n, const int *fds, size_t n_fds,
                           struct xi_err *err)
{
    struct iovec iov = {.iov_base = (void *)(uintptr_t)bytes, .iov_len = n};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
    union fd_space space = {0};
    ssize_t sent;

    XI_ASSERT(n_fds <= XI_MESSAGE_FDS_MAX);
    if (n_fds > 0) {
        m.msg_control = space.bytes;
        m.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
        struct cmsghdr *c = CMSG_FIRSTHDR(&m);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
        memcpy(CMSG_DATA(c), fds, n_fds * sizeof(int));
    }
    do
        sent = sendmsg(fd, &m, MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    if (sent == (ssize_t)n)
        return XI_OK;
    if (sent < 0 && (errno == EAGAIN || errno == ENOBUFS))
        return xi_fail(err, XI_EAGAIN, "peer reads too slowly");
    return xi_fail(err, XI_EHOST, "peer has gone: %s", strerror(errno));
}

static void collect_fds(struct msghdr *m, int ret_fds[XI_MESSAGE_FDS_MAX], size_t *ret_n)
{
    *ret_n = 0;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c != NULL; c = CMSG_NXTHDR(m, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        size_t k = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < k; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
            if (*ret_n < XI_MESSAGE_FDS_MAX)
                ret_fds[(*ret_n)++] = fd;
            else
                (void)close(fd);
        }
    }
}

enum xi_rc xi_message_recv(int fd, void *buf, size_t cap, size_t *ret_n,
                           int ret_fds[XI_MESSAGE_FDS_MAX], size_t *ret_n_fds, struct xi_err *err)
{
    struct iovec iov = {.iov_base = buf, .iov_len = cap};
    union fd_space space;
    struct msghdr m = {.msg_iov = &iov,
                       .msg_iovlen = 1,
                       .msg_control = space.bytes,
                       .msg_controllen = sizeof space.bytes};
    ssize_t n;

    do
        n = recvmsg(fd, &m, MSG_CMSG_CLOEXEC);
    while (n < 0 && errno == EINTR);
    if (n < 0 && errno == EAGAIN)
        return xi_fail(err, XI_EAGAIN, "no message waiting");
    if (n < 0)
        return xi_fail(err, XI_EHOST, "peer has gone: %s", strerror(errno));
    collect_fds(&m, ret_fds, ret_n_fds);
    if (n == 0)
        return xi_fail(err, XI_EHOST, "peer has gone");
    if (m.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) {
        for (size_t i = 0; i < *ret_n_fds; i++)
            (void)close(ret_fds[i]);
        *ret_n_fds = 0;
        return xi_fail(err, XI_EPROTO, "message over %zu bytes", cap);
    }
    *ret_n = (size_t)n;
    return XI_OK;
}

void xi_fd_close(int *fd)
{
    if (*fd >= 0)
        (void)close(*fd);
    *fd = -1;
}
