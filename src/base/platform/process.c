#define _GNU_SOURCE
#include "base/platform/process.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* Duplicates of what the child gets, out of the way of the numbers it gets them as. */
struct child_fds {
    int std[3];
    int high[XI_SPAWN_FDS_MAX];
    size_t n;
};

static void close_duplicates(struct child_fds *f)
{
    for (int i = 0; i < 3; i++)
        xi_fd_close(&f->std[i]);
    for (size_t i = 0; i < f->n; i++)
        xi_fd_close(&f->high[i]);
}

static int duplicate_all(const struct xi_spawn *s, struct child_fds *ret)
{
    int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC), failed = null_fd < 0;
    const int std[3] = {s->in_fd, s->out_fd, s->err_fd};
    int base = 3 + (int)s->n_fds;

    *ret = (struct child_fds){.std = {-1, -1, -1}};
    for (int i = 0; i < 3; i++) {
        ret->std[i] = fcntl(std[i] >= 0 ? std[i] : null_fd, F_DUPFD_CLOEXEC, base);
        failed |= ret->std[i] < 0;
    }
    for (; ret->n < s->n_fds; ret->n++) {
        ret->high[ret->n] = fcntl(s->fds[ret->n], F_DUPFD_CLOEXEC, base);
        failed |= ret->high[ret->n] < 0;
    }
    xi_fd_close(&null_fd);
    return failed ? -1 : 0;
}

/* posix_spawn does not copy our page tables as fork does: a daemon with gigabytes mapped starts a
 * host as fast as a small one. */
static int start_child(const struct xi_spawn *s, const struct child_fds *f, pid_t *ret)
{
    static char *const no_env[] = {NULL};
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attr;
    sigset_t none, all;
    char *const *env = s->env ? (char *const *)(uintptr_t)s->env : no_env;

    (void)sigemptyset(&none);
    (void)sigfillset(&all);
    if (posix_spawn_file_actions_init(&actions) != 0)
        return ENOMEM;
    (void)posix_spawnattr_init(&attr);
    (void)posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGDEF |
                                              POSIX_SPAWN_SETSIGMASK);
    (void)posix_spawnattr_setsigdefault(&attr, &all);
    (void)posix_spawnattr_setsigmask(&attr, &none);
    int rc = 0;
    for (int i = 0; i < 3; i++)
        rc |= posix_spawn_file_actions_adddup2(&actions, f->std[i], i);
    for (size_t i = 0; i < f->n; i++)
        rc |= posix_spawn_file_actions_adddup2(&actions, f->high[i], 3 + (int)i);
    rc |= posix_spawn_file_actions_addclosefrom_np(&actions, 3 + (int)f->n);
    if (rc == 0)
        rc = posix_spawn(ret, s->argv[0], &actions, &attr, (char *const *)(uintptr_t)s->argv, env);
    (void)posix_spawnattr_destroy(&attr);
    (void)posix_spawn_file_actions_destroy(&actions);
    return rc;
}

enum xi_rc xi_process_spawn(const struct xi_spawn *spawn, pid_t *ret_pid, int *ret_pidfd,
                            struct xi_err *err)
{
    struct child_fds fds;
    pid_t pid = -1;

    XI_ASSERT(spawn->n_fds <= XI_SPAWN_FDS_MAX);
    int failed = duplicate_all(spawn, &fds) != 0 ? errno : start_child(spawn, &fds, &pid);
    close_duplicates(&fds);
    if (pid < 0 && failed == EINVAL) /* F_DUPFD: the limit lies below the numbers we ask for */
        failed = EMFILE;
    if (failed) {
        const char *slash = strrchr(spawn->argv[0], '/');
        enum xi_rc rc = failed == ENOENT || failed == EACCES ? XI_EHOST : xi_rc_errno(failed);

        return xi_fail(err, rc, "cannot start %s: %s", slash ? slash + 1 : spawn->argv[0],
                       strerror(failed));
    }
    int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (pidfd < 0) {
        failed = errno;
        (void)kill(pid, SIGKILL);
        (void)waitpid(pid, NULL, 0);
        return xi_fail(err, xi_rc_errno(failed), "pidfd_open: %s", strerror(failed));
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
    uint64_t top = 0, of_files = 0, shared = 0;

    if (sum_kib(pid, "smaps_rollup", "Private_", ret_private_bytes) != 0 ||
        sum_kib(pid, "status", "VmHWM", &top) != 0 ||
        sum_kib(pid, "status", "RssFile", &of_files) != 0 ||
        sum_kib(pid, "status", "RssShmem", &shared) != 0)
        return -1;
    /* Libraries, mapped models and the daemon's segments are not this process's alone. */
    top -= of_files + shared < top ? of_files + shared : top;
    *ret_peak_bytes = top > *ret_private_bytes ? top : *ret_private_bytes;
    return 0;
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
