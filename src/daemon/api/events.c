/* Server-sent events: how one gets to a client, and what happens when the client does not read. */
#include "base/clock.h"
#include "daemon/api/connection.h"
#include "wire/http1.h"

enum { EVENT_MAX = 16 * 1024 * 1024 };

static void give(struct xi_exchange *x, const char *text, size_t n, int last)
{
    x->events.given_bytes += n;
    x->events.sent_ms = xi_now_ms();
    xi_conn_send_copy(x->conn, x, text, n, last);
}

/* One chunk of a body whose length nobody knows; HTTP/1.0 gets it bare. */
static void give_chunk(struct xi_exchange *x, const struct xi_str *text)
{
    struct xi_str chunk;

    if (x->stream.minor < 1) {
        give(x, text->data, text->len, 0);
        return;
    }
    xi_str_init(&chunk, EVENT_MAX + 64);
    xi_str_printf(&chunk, "%zx\r\n", text->len);
    xi_str_add(&chunk, text->data, text->len);
    xi_str_puts(&chunk, "\r\n");
    if (!chunk.failed)
        give(x, chunk.data, chunk.len, 0);
    xi_str_fini(&chunk);
}

void xi_events_begin(struct xi_exchange *x)
{
    if (x->conn == NULL)
        return;
    x->streaming = x->answered = 1;
    x->status = 200;
    x->events.moved_ms = xi_now_ms();
    if (x->stream.minor < 1)
        x->conn->close_after = 1;
    xi_http1_answer(&x->head, 200, "text/event-stream", XI_HTTP_NO_LENGTH, xi_conn_keeps(x->conn));
    xi_str_puts(&x->head, "X-Content-Type-Options: nosniff\r\nCache-Control: no-store\r\n");
    xi_answer_cors(x);
    xi_str_puts(&x->head, "\r\n");
    if (!x->head.failed)
        give(x, x->head.data, x->head.len, 0);
}

void xi_events_send(struct xi_exchange *x, const char *event, const char *json)
{
    struct xi_http_stats *stats = &x->server->stats;
    struct xi_str text;

    if (x->conn == NULL)
        return;
    xi_str_init(&text, EVENT_MAX);
    if (x->events.dropped > 0)
        xi_str_printf(&text, "event: dropped\ndata: {\"events\":%llu}\n\n",
                      (unsigned long long)x->events.dropped);
    xi_str_printf(&text, "event: %s\ndata: ", event);
    xi_str_puts(&text, json);
    xi_str_puts(&text, "\n\n");
    size_t waiting = uv_stream_get_write_queue_size(&x->conn->h.stream);
    /* One event may always wait, however large: else it would never be sent. */
    if (text.failed || (waiting > 0 && waiting + text.len > x->server->config.stream_queue_bytes)) {
        x->events.dropped++;
        stats->events_dropped++;
    } else {
        x->events.dropped = 0;
        stats->events_sent++;
        give_chunk(x, &text);
    }
    xi_str_fini(&text);
}

void xi_events_end(struct xi_exchange *x)
{
    x->pending = 0;
    x->gone = NULL;
    if (x->conn == NULL)
        (void)xi_exchange_settle(x);
    else if (x->stream.minor >= 1)
        give(x, "0\r\n\r\n", 5, 1);
    else
        give(x, "\n", 1, 1);
}

int xi_events_watch(struct xi_exchange *x, uint64_t now_ms)
{
    const struct xi_http_config *f = &x->server->config;
    struct xi_event_flow *e = &x->events;
    size_t waiting = uv_stream_get_write_queue_size(&x->conn->h.stream);
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
            give_chunk(x, &beat);
        xi_str_fini(&beat);
    }
    return 0;
}
