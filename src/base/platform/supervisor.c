#define _GNU_SOURCE
#include "base/platform/supervisor.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { FIRST_FD = 3, PASSED_MAX = 16, GROUPS_MAX = 1024 };

/* A number from the environment, which is then without it. 0: not there, or no number. */
static uint64_t take_number(const char *name)
{
    const char *text = getenv(name);
    char *end = NULL;
    uint64_t n = text != NULL ? strtoull(text, &end, 10) : 0;

    if (text != NULL && (*text < '0' || *text > '9' || *end != '\0'))
        n = 0;
    (void)unsetenv(name);
    return n;
}

static int option_of(int fd, int option)
{
    int value = -1;
    socklen_t n = sizeof value;

    return getsockopt(fd, SOL_SOCKET, option, &value, &n) == 0 ? value : -1;
}

static enum xi_rc take_socket(struct xi_supervisor *s, int fd, struct xi_err *err)
{
    int domain = option_of(fd, SO_DOMAIN);
    int *place = domain == AF_UNIX ? &s->local : &s->tcp;

    if (option_of(fd, SO_TYPE) != SOCK_STREAM || option_of(fd, SO_ACCEPTCONN) != 1 ||
        (domain != AF_UNIX && domain != AF_INET && domain != AF_INET6))
        return xi_fail(err, XI_ECONFIG, "descriptor %d was passed, which is no listening socket",
                       fd);
    if (*place >= 0)
        return xi_fail(err, XI_ECONFIG, "two %s sockets were passed, one can be served",
                       domain == AF_UNIX ? "Unix" : "TCP");
    if (fcntl(fd, F_SETFD, FD_CLOEXEC) != 0 || fcntl(fd, F_SETFL, O_RDWR | O_NONBLOCK) != 0)
        return xi_fail(err, XI_ECONFIG, "descriptor %d: %s", fd, strerror(errno));
    *place = fd;
    return XI_OK;
}

enum xi_rc xi_supervisor_open(struct xi_supervisor *ret, struct xi_err *err)
{
    struct xi_supervisor s = {.tcp = -1, .local = -1};
    const char *notify = getenv("NOTIFY_SOCKET");
    uint64_t self = (uint64_t)getpid();
    uint64_t listen_pid = take_number("LISTEN_PID"), listen_fds = take_number("LISTEN_FDS");
    uint64_t watchdog_us = take_number("WATCHDOG_USEC"), watchdog_pid = take_number("WATCHDOG_PID");
    enum xi_rc rc = XI_OK;

    (void)unsetenv("LISTEN_FDNAMES");
    if (notify != NULL && (*notify == '/' || *notify == '@') && strlen(notify) < sizeof s.notify)
        (void)snprintf(s.notify, sizeof s.notify, "%s", notify);
    (void)unsetenv("NOTIFY_SOCKET");
    if (watchdog_pid == 0 || watchdog_pid == self)
        s.watchdog_us = watchdog_us;
    if (listen_pid == self && listen_fds > PASSED_MAX)
        return xi_fail(err, XI_ECONFIG, "%llu sockets were passed", (unsigned long long)listen_fds);
    for (int i = 0; listen_pid == self && i < (int)listen_fds && rc == XI_OK; i++)
        rc = take_socket(&s, FIRST_FD + i, err);
    if (rc == XI_OK)
        *ret = s;
    return rc;
}

void xi_supervisor_tell(const struct xi_supervisor *s, const char *state)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    size_t n = strlen(s->notify);
    int fd;

    if (n == 0)
        return;
    memcpy(to.sun_path, s->notify, n);
    if (to.sun_path[0] == '@')
        to.sun_path[0] = '\0';
    fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return;
    (void)sendto(fd, state, strlen(state), MSG_NOSIGNAL, (const struct sockaddr *)&to,
                 (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n));
    (void)close(fd);
}

int xi_socket_address(int fd, char *ret, size_t bytes)
{
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
        struct sockaddr_un local;
    } a;
    socklen_t n = sizeof a;
    char host[64];

    memset(&a, 0, sizeof a);
    if (getsockname(fd, &a.any, &n) != 0)
        return -1;
    if (a.any.sa_family == AF_UNIX && a.local.sun_path[0] == '/')
        return snprintf(ret, bytes, "%s", a.local.sun_path) < (int)bytes ? 0 : -1;
    if (a.any.sa_family == AF_INET && inet_ntop(AF_INET, &a.v4.sin_addr, host, sizeof host))
        return snprintf(ret, bytes, "%s:%u", host, ntohs(a.v4.sin_port)) < (int)bytes ? 0 : -1;
    if (a.any.sa_family == AF_INET6 && inet_ntop(AF_INET6, &a.v6.sin6_addr, host, sizeof host))
        return snprintf(ret, bytes, "[%s]:%u", host, ntohs(a.v6.sin6_port)) < (int)bytes ? 0 : -1;
    return -1;
}

int xi_peer_belongs(int fd, uint32_t group)
{
    struct ucred peer;
    socklen_t n = sizeof peer;
    gid_t groups[GROUPS_MAX];

    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &n) != 0)
        return 0;
    if (peer.uid == 0 || peer.uid == geteuid() || peer.gid == group)
        return 1;
    n = sizeof groups;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &n) != 0)
        return 0;
    for (size_t i = 0; i < n / sizeof *groups; i++)
        if (groups[i] == group)
            return 1;
    return 0;
}
