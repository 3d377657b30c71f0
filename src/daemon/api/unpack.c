#include "daemon/api/unpack.h"

#include <stdlib.h>

#include "daemon/api/connection.h"

/* ON_LOOP: about 200 µs. STEP: so that a worker is not held by one body. */
enum { STAGED = 64 * 1024, ON_LOOP = 64 * 1024, STEP = 8 * 1024 * 1024 };

enum xi_rc xi_unpack_begin(struct xi_exchange *x, enum xi_coding coding, struct xi_err *err)
{
    struct xi_http_stream *s = &x->stream;
    struct xi_unpack *u;
    enum xi_rc rc;

    if (x->server->unpacking >= XI_INFLATING_MAX)
        return xi_fail(err, XI_EAGAIN, "%u compressed bodies are under way", x->server->unpacking);
    u = calloc(1, sizeof *u);
    if (u == NULL)
        return xi_fail(err, XI_ENOMEM, "no memory to decompress a body");
    x->unpack = u;
    x->server->unpacking++;
    u->open = 1;
    rc = xi_inflate_init(&u->inflate, coding, err);
    if (rc != XI_OK)
        return rc;
    s->sink_room = s->content_length < STAGED ? s->content_length : STAGED;
    s->sink = u->staged = malloc((size_t)s->sink_room);
    return s->sink ? XI_OK : xi_fail(err, XI_ENOMEM, "no memory to decompress a body");
}

/* The body is here, or will not be: what it took to get it goes. */
static void close_unpack(struct xi_exchange *x)
{
    struct xi_unpack *u = x->unpack;

    if (!u->open)
        return;
    u->open = 0;
    x->server->unpacking--;
    xi_inflate_fini(&u->inflate);
    free(u->staged);
    u->staged = x->stream.sink = NULL;
}

void xi_unpack_free(struct xi_exchange *x)
{
    if (x->unpack == NULL)
        return;
    close_unpack(x);
    free(x->unpack);
    x->unpack = NULL;
}

/* Any thread. At most this many bytes are made. */
static void unpack(struct xi_unpack *u, size_t most)
{
    uint64_t left = u->sink_room - u->sink_len;
    size_t room = left < most ? (size_t)left : most, took, made;

    u->rc = xi_inflate_run(&u->inflate, u->staged + u->at, u->len - u->at, &took,
                           u->sink + u->sink_len, room, &made, &u->err);
    u->at += took;
    u->sink_len += made;
    u->more = !u->inflate.ended && made == room;
}

static void unpack_work(struct xi_work *w)
{
    unpack(((struct xi_exchange *)w->data)->unpack, STEP);
}

static void staged_is_done(struct xi_exchange *x, int in_codec)
{
    struct xi_unpack *u = x->unpack;
    struct xi_err err;

    u->at = u->len = 0;
    x->stream.sink_len = 0;
    if (!u->ending) {
        x->pending = x->stream.paused = 0;
        if (!in_codec)
            xi_exchange_resume(x);
        return;
    }
    if (xi_inflate_end(&u->inflate, &err) != XI_OK) {
        xi_answer_problem(x, &err);
        return;
    }
    close_unpack(x);
    x->route->run(x);
}

static void check(struct xi_unpack *u, uint64_t limit)
{
    if (u->rc == XI_OK && u->sink_len > limit)
        u->rc = xi_fail(&u->err, XI_ETOOBIG,
                        "the body decompresses to more than the %llu bytes this route takes",
                        (unsigned long long)limit);
}

static void unpacked(struct xi_work *w);

/* x->pending is set; it ends here, in an answer, or goes on with a worker's call. in_codec: who
 * called us goes on by itself. */
static void go_on(struct xi_exchange *x, int in_codec)
{
    struct xi_unpack *u = x->unpack;

    for (;;) {
        if (xi_exchange_gone(x)) {
            x->pending = 0;
            (void)xi_exchange_settle(x);
            return;
        }
        check(u, x->stream.body_limit);
        if (u->rc != XI_OK) {
            struct xi_err err = u->err; /* the answer frees it */
            xi_answer_problem(x, &err);
            return;
        }
        if (!u->more)
            break;
        if (u->sink_len == u->sink_room) {
            unpack(u, 0); /* its end may be all that is left */
            if (u->rc == XI_OK && u->more && !xi_body_grow(x))
                return;
        } else if (u->on_loop > 0) {
            uint64_t before = u->sink_len;
            unpack(u, u->on_loop);
            u->on_loop -= (size_t)(u->sink_len - before);
        } else {
            x->work.data = x;
            xi_work_queue(x->server->service->loop, &x->work, unpack_work, unpacked);
            return;
        }
    }
    staged_is_done(x, in_codec);
}

static void unpacked(struct xi_work *w)
{
    go_on(w->data, 0);
}

void xi_unpack_grown(struct xi_exchange *x)
{
    go_on(x, 0);
}

static void begin_staging(struct xi_exchange *x)
{
    struct xi_unpack *u = x->unpack;

    x->pending = 1;
    u->len = (size_t)x->stream.sink_len;
    u->on_loop = ON_LOOP;
    u->more = u->len > 0;
}

void xi_unpack_full(struct xi_exchange *x)
{
    begin_staging(x);
    x->stream.paused = 1;
    go_on(x, 1);
}

void xi_unpack_end(struct xi_exchange *x)
{
    begin_staging(x);
    x->unpack->ending = 1;
    go_on(x, 1);
}
