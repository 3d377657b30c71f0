#include <string.h>

#include "base/clock.h"
#include "base/json.h"
#include "daemon/api/carrier.h"
#include "daemon/api/connection.h"

/* COPY_ON_LOOP: about 100 µs. */
enum { CHUNKED_FIRST = 64 * 1024, COPY_ON_LOOP = 256 * 1024 };

static void fail(struct xi_exchange *x, const struct xi_err *err)
{
    xi_answer_problem(x, err);
}

/* The body is welcome now: only a client that waited to hear it is told. */
void xi_body_welcome(struct xi_exchange *x)
{
    if (!x->stream.expects_continue || x->carrier == NULL || x->stream.content_length == 0)
        return;
    x->stream.expects_continue = 0;
    if (x->stream.received == 0)
        x->carrier->welcome(x);
}

void xi_body_text(struct xi_exchange *x)
{
    struct xi_http_stream *s = &x->stream;
    uint64_t want = s->content_length == XI_HTTP_NO_LENGTH ? 4096 : s->content_length;
    struct xi_err err;

    if (want > s->body_limit)
        want = s->body_limit;
    if (xi_str_reserve(&x->text, (size_t)want) == NULL) {
        (void)xi_fail(&err, XI_ENOMEM, "no memory for a body of %zu bytes", (size_t)want);
        fail(x, &err);
        return;
    }
    s->sink = (uint8_t *)x->text.data;
    s->sink_room = want;
    xi_body_welcome(x);
}

static void give_slot(struct xi_exchange *x)
{
    struct xi_http_stream *s = &x->stream;

    s->sink = x->slot->data + x->pad;
    s->sink_room = x->slot->bytes - x->pad;
    if (s->content_length != XI_HTTP_NO_LENGTH)
        s->sink_room = s->content_length;
    xi_body_welcome(x);
}

unsigned xi_body_waiting(const struct xi_http_server *server)
{
    const struct xi_exchange *x;
    unsigned n = 0;

    for (x = server->waiting; x != NULL; x = x->wait_next)
        n++;
    return n;
}

void xi_body_wait(struct xi_exchange *x, int (*retry)(struct xi_exchange *x, uint64_t now_ns),
                  unsigned ms)
{
    struct xi_http_server *server = x->server;

    x->waiting = 1;
    x->stream.paused = 1;
    x->wait_retry = retry;
    x->wait_until_ns = xi_now_ns() + ms * 1000000ull;
    x->wait_next = server->waiting;
    server->waiting = x;
    xi_server_wait(server);
}

void xi_body_wait_over(struct xi_exchange *x)
{
    x->waiting = 0;
    x->stream.paused = 0;
}

static int retry_slot(struct xi_exchange *x, uint64_t now_ns);

void xi_body_slot(struct xi_exchange *x, uint64_t pad)
{
    struct xi_http_stream *s = &x->stream;
    struct xi_err err;

    x->pad = pad;
    if (s->content_length == 0)
        return;
    x->wait_bytes =
        pad + (s->content_length == XI_HTTP_NO_LENGTH ? CHUNKED_FIRST : s->content_length);
    enum xi_rc rc =
        xi_shm_take(x->server->service->shm, x->who.tenant, x->wait_bytes, &x->slot, &err);
    if (rc == XI_OK)
        give_slot(x);
    else if (rc == XI_EAGAIN)
        xi_body_wait(x, retry_slot, x->server->config.slot_wait_ms);
    else
        fail(x, &err);
}

static int retry_slot(struct xi_exchange *x, uint64_t now_ns)
{
    struct xi_err err;
    enum xi_rc rc =
        xi_shm_take(x->server->service->shm, x->who.tenant, x->wait_bytes, &x->slot, &err);

    if (rc == XI_EAGAIN && now_ns < x->wait_until_ns)
        return 0;
    xi_body_wait_over(x);
    if (rc == XI_OK)
        give_slot(x);
    else
        fail(x, &err);
    return 1;
}

/* 1: it need not wait for this any more, and may be gone. */
static int retry_one(struct xi_exchange *x, uint64_t now_ns)
{
    x->held++; /* an answer may end it */
    int over = x->wait_retry(x, now_ns);
    x->held--;
    if (xi_exchange_settle(x) == 0 && over && !x->waiting) /* it may wait for the next thing */
        xi_exchange_resume(x);
    return over;
}

unsigned xi_body_retry(struct xi_http_server *server)
{
    uint64_t now = xi_now_ns();
    struct xi_exchange *x = server->waiting, *next;
    unsigned left = 0;

    /* The list is taken off first: what happens below may add to it or drop from it. */
    server->waiting = NULL;
    for (; x != NULL; x = next) {
        next = x->wait_next;
        if (!x->waiting || x->carrier == NULL)
            continue;
        if (retry_one(x, now))
            continue;
        x->wait_next = server->waiting;
        server->waiting = x;
        left++;
    }
    return left;
}

static void unlink_waiting(struct xi_exchange *x)
{
    struct xi_exchange **p = &x->server->waiting;

    x->waiting = 0;
    while (*p != NULL && *p != x)
        p = &(*p)->wait_next;
    if (*p == x)
        *p = x->wait_next;
}

void xi_body_forget(struct xi_exchange *x)
{
    if (x->waiting)
        unlink_waiting(x);
    xi_slot_put(x->slot);
    x->slot = NULL;
    x->pad = 0;
    x->stream.sink = NULL;
    x->stream.sink_len = x->stream.sink_room = 0;
}

uint8_t *xi_body_data(const struct xi_exchange *x)
{
    return x->slot ? x->slot->data + x->pad : NULL;
}

static void grow_text(struct xi_exchange *x)
{
    struct xi_http_stream *s = &x->stream;
    struct xi_err err;
    uint64_t want = s->sink_room * 2;

    if (want > s->body_limit + 1)
        want = s->body_limit + 1; /* one more, so that the codec meets the limit */
    x->text.len = (size_t)s->sink_len;
    if (xi_str_reserve(&x->text, (size_t)(want - s->sink_len)) == NULL) {
        (void)xi_fail(&err, XI_ENOMEM, "no memory for a body of %zu bytes", (size_t)want);
        fail(x, &err);
        return;
    }
    s->sink = (uint8_t *)x->text.data;
    s->sink_room = want;
}

/* Any thread. */
static void copy_body(struct xi_work *w)
{
    struct xi_exchange *x = w->data;

    memcpy(x->larger->data + x->pad, x->stream.sink, (size_t)x->stream.sink_len);
}

static void take_larger(struct xi_exchange *x)
{
    struct xi_http_stream *s = &x->stream;

    s->copied += s->sink_len;
    xi_slot_put(x->slot);
    x->slot = x->larger;
    x->larger = NULL;
    s->sink = x->slot->data + x->pad;
    s->sink_room = x->slot->bytes - x->pad;
}

static void on_copied(struct xi_work *w)
{
    struct xi_exchange *x = w->data;

    take_larger(x);
    x->pending = 0;
    if (xi_exchange_settle(x))
        return;
    x->stream.paused = 0;
    xi_exchange_resume(x);
}

static void grow_slot(struct xi_exchange *x)
{
    struct xi_http_stream *s = &x->stream;
    struct xi_slot *larger;
    struct xi_err err;
    uint64_t want = s->sink_room * 2;

    if (want > s->body_limit + 1)
        want = s->body_limit + 1;
    if (xi_shm_take(x->server->service->shm, x->who.tenant, x->pad + want, &larger, &err) !=
        XI_OK) {
        fail(x, &err);
        return;
    }
    x->larger = larger;
    x->growth.data = x;
    if (s->sink_len <= COPY_ON_LOOP) {
        copy_body(&x->growth);
        take_larger(x);
        return;
    }
    s->paused = 1;
    x->pending = 1; /* a worker reads the slot until on_copied */
    xi_work_queue(x->server->service->loop, &x->growth, copy_body, on_copied);
}

void xi_exchange_full(struct xi_exchange *x)
{
    if (x->answered)
        x->stream.discard = 1;
    else if (x->route->body == XI_TAKES_TEXT)
        grow_text(x);
    else if (x->route->full != NULL)
        x->route->full(x);
    else if (x->slot != NULL)
        grow_slot(x);
}

json_t *xi_body_object(struct xi_exchange *x)
{
    struct xi_err err = {0};
    json_t *obj = NULL;
    enum xi_rc rc =
        xi_json_parse(x->stream.received ? (const char *)x->text.data : "",
                      (size_t)x->stream.received, (size_t)x->route->body_limit, &obj, &err);

    if (rc == XI_OK && !json_is_object(obj)) {
        (void)xi_fail(&err, XI_EINVAL, "the body must be a JSON object");
        json_decref(obj);
        obj = NULL;
    }
    if (obj == NULL)
        xi_answer_problem(x, &err);
    return obj;
}
