#include "host/control.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/platform/process.h"

enum { EXIT_DAEMON_GONE = 3 };

enum xi_rc xi_control_send(void *message, enum xi_msg_type type, size_t bytes)
{
    struct pollfd p = {.fd = XI_CONTROL_FD, .events = POLLOUT};
    enum xi_rc rc;

    xi_msg_head_set(message, type, (uint32_t)bytes);
    while ((rc = xi_message_send(XI_CONTROL_FD, message, bytes, NULL, 0, NULL)) == XI_EAGAIN)
        (void)poll(&p, 1, 1000);
    return rc;
}

enum xi_rc xi_control_recv(void *buf, size_t cap, size_t *ret_bytes, int *fds, size_t *ret_n_fds,
                           int timeout_ms, struct xi_err *err)
{
    *ret_n_fds = 0;
    if (!xi_fd_wait_readable(XI_CONTROL_FD, timeout_ms))
        return xi_fail(err, XI_EAGAIN, "no message");
    enum xi_rc rc = xi_message_recv(XI_CONTROL_FD, buf, cap, ret_bytes, fds, ret_n_fds, err);
    return rc == XI_OK ? xi_msg_check(buf, *ret_bytes, err) : rc;
}

int xi_control_hello(const struct xi_host_args *args, const char *sandbox)
{
    struct xi_msg_hello m = {.pid = getpid(), .role = args->role};

    (void)snprintf(m.sandbox, sizeof m.sandbox, "%s", sandbox);
    return xi_control_send(&m, XI_MSG_HELLO, sizeof m) == XI_OK ? 0 : EXIT_DAEMON_GONE;
}

void xi_control_progress(uint32_t session, const char *phase, uint32_t permille,
                         uint64_t elapsed_us)
{
    struct xi_msg_progress m = {.session = session, .permille = permille, .elapsed_us = elapsed_us};

    (void)snprintf(m.phase, sizeof m.phase, "%s", phase);
    (void)!xi_control_send(&m, XI_MSG_PROGRESS, sizeof m); /* the next recv sees that it is gone */
}

void xi_control_failed(uint32_t session, const struct xi_err *err, const char *phase)
{
    struct xi_msg_failed m = {.session = session, .code = err->rc};

    (void)snprintf(m.phase, sizeof m.phase, "%s", phase);
    (void)snprintf(m.text, sizeof m.text, "%s", err->msg);
    (void)snprintf(m.hint, sizeof m.hint, "%s", err->hint);
    (void)!xi_control_send(&m, XI_MSG_FAILED, sizeof m);
}
