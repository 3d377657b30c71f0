/* Server-sent events: how one gets to a client, and what happens when the client does not read. */
#include "base/clock.h"
#include "daemon/api/carrier.h"
#include "daemon/api/connection.h"

enum { EVENT_MAX = 16 * 1024 * 1024 };

static void give(struct xi_exchange *x, const struct xi_str *text)
{
    x->events.sent_ms = xi_now_ms();
    x->carrier->copy(x, text->data, text->len);
}

void xi_events_begin(struct xi_exchange *x)
{
    if (x->carrier == NULL)
        return;
    x->streaming = x->answered = 1;
    x->status = 200;
    x->events.moved_ms = x->events.sent_ms = xi_now_ms();
    xi_answer_common(x);
    x->carrier->begin(x, "text/event-stream");
}

void xi_events_send(struct xi_exchange *x, const char *event, const char *json)
{
    struct xi_http_stats *stats = &x->server->stats;
    struct xi_str text;

    if (x->carrier == NULL)
        return;
    xi_str_init(&text, EVENT_MAX);
    if (x->events.dropped > 0)
        xi_str_printf(&text, "event: dropped\ndata: {\"events\":%llu}\n\n",
                      (unsigned long long)x->events.dropped);
    xi_str_printf(&text, "event: %s\ndata: ", event);
    xi_str_puts(&text, json);
    xi_str_puts(&text, "\n\n");
    size_t waiting = x->carrier->waiting(x);
    /* One event may always wait, however large: else it would never be sent. */
    if (text.failed || (waiting > 0 && waiting + text.len > x->server->config.stream_queue_bytes)) {
        x->events.dropped++;
        stats->events_dropped++;
    } else {
        x->events.dropped = 0;
        stats->events_sent++;
        give(x, &text);
    }
    xi_str_fini(&text);
}

void xi_events_end(struct xi_exchange *x)
{
    x->pending = 0;
    x->gone = NULL;
    if (x->carrier != NULL)
        x->carrier->end(x, NULL);
    else
        (void)xi_exchange_settle(x);
}

int xi_events_watch(struct xi_exchange *x, uint64_t now_ms)
{
    const struct xi_http_config *f = &x->server->config;
    struct xi_event_flow *e = &x->events;
    size_t waiting = x->carrier->waiting(x);
    struct xi_str beat;

    if (waiting == 0 || e->given_bytes - waiting != e->moved_bytes) {
        e->moved_bytes = e->given_bytes - waiting;
        e->moved_ms = now_ms;
    }
    if (now_ms - e->moved_ms >= f->stream_stall_ms)
        return 1;
    if (waiting == 0 && x->pending && now_ms - e->sent_ms >= f->heartbeat_ms) {
        xi_str_init(&beat, 8);
        xi_str_puts(&beat, ":\n\n");
        if (!beat.failed)
            give(x, &beat);
        xi_str_fini(&beat);
    }
    return 0;
}
