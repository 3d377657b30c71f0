#include <string.h>

#include "base/clock.h"
#include "base/json.h"
#include "daemon/api/carrier.h"
#include "daemon/api/connection.h"
#include "daemon/api/unpack.h"

/* COPY_ON_LOOP: about 100 µs. */
enum { CHUNKED_FIRST = 64 * 1024, COPY_ON_LOOP = 256 * 1024 };
enum { UNPACKED_FIRST = 4, UNPACKED_MOST = 16 * 1024 * 1024 };

static void fail(struct xi_exchange *x, const struct xi_err *err)
{
    xi_answer_problem(x, err);
}

/* Where the body goes: to its own place straight from the codec, or by way of who unpacks it. */
static void set_sink(struct xi_exchange *x, uint8_t *at, uint64_t room)
{
    if (x->unpack != NULL) {
        x->unpack->sink = at;
        x->unpack->sink_room = room;
    } else {
        x->stream.sink = at;
        x->stream.sink_room = room;
    }
}

/* Bytes that lie in their place; how many fit there. */
static uint64_t sink_len(const struct xi_exchange *x)
{
    return x->unpack != NULL ? x->unpack->sink_len : x->stream.sink_len;
}

static uint64_t sink_room(const struct xi_exchange *x)
{
    return x->unpack != NULL ? x->unpack->sink_room : x->stream.sink_room;
}

uint64_t xi_body_length(const struct xi_exchange *x)
{
    return x->unpack != NULL ? XI_HTTP_NO_LENGTH : x->stream.content_length;
}

uint64_t xi_body_bytes(const struct xi_exchange *x)
{
    return x->unpack != NULL ? x->unpack->sink_len : x->stream.received;
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

/* What is taken for a body at first. A compressed one is likely a few times its size. */
static uint64_t first_room(const struct xi_exchange *x, uint64_t unknown)
{
    uint64_t length = x->stream.content_length;

    if (length == XI_HTTP_NO_LENGTH)
        return unknown;
    if (x->unpack == NULL)
        return length;
    length *= UNPACKED_FIRST;
    return length < unknown ? unknown : length < UNPACKED_MOST ? length : UNPACKED_MOST;
}

void xi_body_text(struct xi_exchange *x)
{
    uint64_t want = first_room(x, 4096);
    struct xi_err err;

    if (want > x->stream.body_limit)
        want = x->stream.body_limit;
    if (xi_str_reserve(&x->text, (size_t)want) == NULL) {
        (void)xi_fail(&err, XI_ENOMEM, "no memory for a body of %zu bytes", (size_t)want);
        fail(x, &err);
        return;
    }
    set_sink(x, (uint8_t *)x->text.data, want);
    xi_body_welcome(x);
}

static void give_slot(struct xi_exchange *x)
{
    uint64_t length = xi_body_length(x);

    set_sink(x, x->slot->data + x->pad,
             length != XI_HTTP_NO_LENGTH ? length : x->slot->bytes - x->pad);
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
    struct xi_err err;

    x->pad = pad;
    if (x->stream.content_length == 0)
        return;
    x->wait_bytes = pad + first_room(x, CHUNKED_FIRST);
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
    set_sink(x, NULL, 0);
    x->stream.sink_len = 0;
}

uint8_t *xi_body_data(const struct xi_exchange *x)
{
    return x->slot ? x->slot->data + x->pad : NULL;
}

/* Twice as much; one more than its limit, so that the limit is met. */
static uint64_t larger_room(const struct xi_exchange *x)
{
    uint64_t want = sink_room(x) * 2, most = x->stream.body_limit + 1;

    return want < most ? want : most;
}

static int grow_text(struct xi_exchange *x)
{
    uint64_t want = larger_room(x);
    struct xi_err err;

    x->text.len = (size_t)sink_len(x);
    if (xi_str_reserve(&x->text, (size_t)(want - sink_len(x))) == NULL) {
        (void)xi_fail(&err, XI_ENOMEM, "no memory for a body of %zu bytes", (size_t)want);
        fail(x, &err);
        return 0;
    }
    set_sink(x, (uint8_t *)x->text.data, want);
    return 1;
}

/* Any thread. */
static void copy_body(struct xi_work *w)
{
    struct xi_exchange *x = w->data;

    memcpy(x->larger->data + x->pad, xi_body_data(x), (size_t)sink_len(x));
}

static void take_larger(struct xi_exchange *x)
{
    x->stream.copied += sink_len(x);
    xi_slot_put(x->slot);
    x->slot = x->larger;
    x->larger = NULL;
    set_sink(x, x->slot->data + x->pad, x->slot->bytes - x->pad);
}

static void on_copied(struct xi_work *w)
{
    struct xi_exchange *x = w->data;

    take_larger(x);
    if (x->unpack != NULL) {
        xi_unpack_grown(x);
        return;
    }
    x->pending = 0;
    if (xi_exchange_settle(x))
        return;
    x->stream.paused = 0;
    xi_exchange_resume(x);
}

static int grow_slot(struct xi_exchange *x)
{
    struct xi_slot *larger;
    struct xi_err err;

    if (xi_shm_take(x->server->service->shm, x->who.tenant, x->pad + larger_room(x), &larger,
                    &err) != XI_OK) {
        fail(x, &err);
        return 0;
    }
    x->larger = larger;
    x->work.data = x;
    if (sink_len(x) <= COPY_ON_LOOP) {
        copy_body(&x->work);
        take_larger(x);
        return 1;
    }
    x->stream.paused = 1;
    x->pending = 1; /* a worker reads the slot until on_copied */
    xi_work_queue(x->server->service->loop, &x->work, copy_body, on_copied);
    return 0;
}

int xi_body_grow(struct xi_exchange *x)
{
    return x->route->body == XI_TAKES_TEXT ? grow_text(x) : grow_slot(x);
}

void xi_exchange_full(struct xi_exchange *x)
{
    if (x->answered)
        x->stream.discard = 1;
    else if (x->unpack != NULL)
        xi_unpack_full(x);
    else if (x->route->full != NULL)
        x->route->full(x);
    else if (x->route->body == XI_TAKES_TEXT || x->slot != NULL)
        (void)xi_body_grow(x);
}

json_t *xi_body_object(struct xi_exchange *x)
{
    struct xi_err err = {0};
    json_t *obj = NULL;
    enum xi_rc rc =
        xi_json_parse(xi_body_bytes(x) ? (const char *)x->text.data : "", (size_t)xi_body_bytes(x),
                      (size_t)x->route->body_limit, &obj, &err);

    if (rc == XI_OK && !json_is_object(obj)) {
        (void)xi_fail(&err, XI_EINVAL, "the body must be a JSON object");
        json_decref(obj);
        obj = NULL;
    }
    if (obj == NULL)
        xi_answer_problem(x, &err);
    return obj;
}
