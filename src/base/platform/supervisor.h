/* platform/supervisor.h: what systemd (or anybody who speaks its protocols) hands to a service and
 * wants to hear from it. Without such a supervisor every call is quiet. Loop thread. */
#ifndef XI_BASE_PLATFORM_SUPERVISOR_H
#define XI_BASE_PLATFORM_SUPERVISOR_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

struct xi_supervisor {
    char notify[108];     /* NOTIFY_SOCKET; '@' begins an abstract name; "" : nobody listens */
    uint64_t watchdog_us; /* it wants a sign of life at least so often; 0: it does not */
    int tcp, local;       /* listening sockets that were passed: TCP, Unix; -1: none */
};

/* Reads the environment and takes its variables away, so that no child believes them meant for it.
 * ECONFIG when something was passed that is no listening stream socket, or two of a kind. */
enum xi_rc xi_supervisor_open(struct xi_supervisor *ret, struct xi_err *err) XI_MUST_CHECK;
/* "READY=1", "STOPPING=1", "WATCHDOG=1", "STATUS=…"; lines may be joined. Never waits. */
void xi_supervisor_tell(const struct xi_supervisor *s, const char *state);
/* Where a listening socket listens: "127.0.0.1:9470", "[::1]:9470", or the path. -1: nowhere that
 * has such a name. */
int xi_socket_address(int fd, char *ret, size_t bytes);

/* 1 when the process at the other end of a Unix socket runs as root, as this process's user, or is
 * in this group (by its own or a supplementary one). */
int xi_peer_belongs(int fd, uint32_t group);

#endif
