#include "daemon/api/streams.h"

#include <string.h>

#include "base/clock.h"
#include "daemon/api/connection.h"

void xi_streams_init(struct xi_streams *all, uv_loop_t *loop, void *ctx)
{
    (void)uv_timer_init(loop, &all->timer);
    all->timer.data = ctx;
}

static void leave(struct xi_stream *s)
{
    struct xi_exchange *x = s->x;
    struct xi_streams *all = &x->server->streams;

    if (s->prev)
        s->prev->next = s->next;
    else
        all->first = s->next;
    if (s->next)
        s->next->prev = s->prev;
    all->n--;
    s->free(s);
    x->job = NULL;
    xi_events_end(x);
}

void xi_stream_hold(struct xi_stream *s)
{
    s->held++;
}

void xi_stream_release(struct xi_stream *s)
{
    if (--s->held == 0 && s->ending)
        leave(s);
}

static void end(struct xi_stream *s)
{
    s->ending = 1;
    if (s->held == 0)
        leave(s);
}

static void on_gone(struct xi_exchange *x)
{
    end(x->job);
}

static void on_timer(uv_timer_t *timer);

static void arm(struct xi_http_server *server)
{
    struct xi_streams *all = &server->streams;
    uint64_t now = xi_now_ms(), due = UINT64_MAX;

    for (const struct xi_stream *s = all->first; s != NULL; s = s->next)
        if (s->due_ms < due)
            due = s->due_ms;
    if (server->closing || due == UINT64_MAX)
        (void)uv_timer_stop(&all->timer);
    else
        (void)uv_timer_start(&all->timer, on_timer, due > now ? due - now : 0, 0);
}

static void on_timer(uv_timer_t *timer)
{
    struct xi_http_server *server = timer->data;
    uint64_t now = xi_now_ms();
    struct xi_stream *next;

    for (struct xi_stream *s = server->streams.first; s != NULL; s = next) {
        if (s->due_ms <= now) {
            s->due_ms = (now / s->interval_ms + 1) * s->interval_ms;
            xi_stream_hold(s);
            if (s->held == 1) /* else the last tick is not done: this one is left out */
                s->tick(s);
            next = s->next; /* a tick may end its own stream only, and that is held */
            xi_stream_release(s);
        } else {
            next = s->next;
        }
    }
    arm(server);
}

enum xi_rc xi_stream_open(struct xi_exchange *x, struct xi_stream *s, struct xi_err *err)
{
    struct xi_streams *all = &x->server->streams;

    if (strcmp(x->stream.method, "HEAD") == 0) {
        s->free(s);
        xi_answer_body(x, 200, "text/event-stream");
        return XI_OK;
    }
    if (all->n >= XI_STREAMS_MAX || x->server->draining) {
        s->free(s);
        return all->n >= XI_STREAMS_MAX
                   ? xi_fail(err, XI_EAGAIN, "%d event streams are open already", XI_STREAMS_MAX)
                   : xi_fail(err, XI_EDRAIN, "the daemon is shutting down");
    }
    s->x = x;
    s->prev = NULL;
    s->next = all->first;
    s->held = 0;
    s->ending = 0;
    s->due_ms = 0;
    if (s->next)
        s->next->prev = s;
    all->first = s;
    all->n++;
    x->job = s;
    x->gone = on_gone;
    xi_events_begin(x);
    arm(x->server);
    return XI_OK;
}

void xi_streams_end(struct xi_streams *all)
{
    struct xi_stream *next;

    for (struct xi_stream *s = all->first; s != NULL; s = next) {
        next = s->next;
        end(s);
    }
}

void xi_streams_close(struct xi_streams *all, uv_close_cb closed)
{
    uv_close((uv_handle_t *)&all->timer, closed);
}
