#include "daemon/loop/wakeup.h"

#include "base/platform/process.h"

static void on_readable(uv_poll_t *poll, int status, int events)
{
    struct xi_wakeup *w = poll->data;

    (void)status;
    (void)events;
    xi_wake_drain(w->fds[0]);
    atomic_store(&w->pending, 0); /* before looking: a signal from here on is another one */
    w->woken(w);
}

enum xi_rc xi_wakeup_open(struct xi_wakeup *w, uv_loop_t *loop, void (*woken)(struct xi_wakeup *w),
                          struct xi_err *err)
{
    enum xi_rc rc = xi_wake_pair(0, w->fds, err);

    if (rc != XI_OK)
        return rc;
    w->woken = woken;
    w->closed = NULL;
    atomic_init(&w->pending, 0);
    if (uv_poll_init(loop, &w->poll, w->fds[0]) != 0) {
        xi_fd_close(&w->fds[0]);
        xi_fd_close(&w->fds[1]);
        return xi_fail(err, XI_EFDS, "the loop cannot watch another descriptor");
    }
    w->poll.data = w;
    (void)uv_poll_start(&w->poll, UV_READABLE, on_readable);
    return XI_OK;
}

void xi_wakeup_signal(struct xi_wakeup *w)
{
    if (atomic_exchange(&w->pending, 1) == 0)
        xi_wake_signal(w->fds[1]);
}

static void on_closed(uv_handle_t *handle)
{
    struct xi_wakeup *w = handle->data;

    xi_fd_close(&w->fds[0]);
    xi_fd_close(&w->fds[1]);
    if (w->closed != NULL)
        w->closed(w);
}

void xi_wakeup_close(struct xi_wakeup *w, void (*closed)(struct xi_wakeup *w))
{
    w->closed = closed;
    uv_close((uv_handle_t *)&w->poll, on_closed);
}
