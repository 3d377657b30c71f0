/* ModelInfer and ModelStreamInfer: requests of the protocol become calls of the inference core, and
 * their results messages. Tensors are sent from where the host put them. */
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "daemon/api/grpc.h"
#include "daemon/api/oip_call.h"
#include "wire/oip_proto.h"
#include "wire/protobuf.h"

/* FRONT: before an answer's fields: its frame, and in a stream the mark of its message. */
enum {
    KEPT_MAX = XI_KEPT(128),
    FRONT = XI_GRPC_FRAME + 1 + XI_PB_VARINT_MAX,
    TEXT_CAP = 64 * 1024
};
enum { STREAM_ERROR = 1, STREAM_RESPONSE = 2, RESPONSE_MODEL = 1, RESPONSE_ID = 3 };

struct xi_grpc_call {
    struct xi_oip_call call;
    struct xi_grpc *g;
    struct xi_grpc_call *prev, *next; /* its RPC's, until it is answered; next: of those kept */
    struct xi_oip_target model;
    struct xi_slot *slot; /* the message's, until it is handed over or read */
    const uint8_t *message;
    size_t bytes;
    int working; /* a worker reads the message */
    struct xi_grpc_call *next_awaiting;
    uint64_t await_until_ns;

    struct xi_work work;
    enum xi_rc work_rc;
    struct xi_err work_err;

    struct xi_str text; /* of the answer: all but the tensors */
    struct xi_send send;
    uv_buf_t pieces[2 * XI_TENSORS_MAX + 1];
};

static struct xi_grpc_call *of_call(struct xi_oip_call *call)
{
    return (struct xi_grpc_call *)(void *)((char *)call - offsetof(struct xi_grpc_call, call));
}

static struct xi_grpc_call *of_work(struct xi_work *w)
{
    return w->data;
}

static int is_stream(const struct xi_grpc_call *c)
{
    return (c->g->method->flags & XI_GRPC_STREAMS) != 0;
}

/* ---- the life of a call ---- */

static void done(struct xi_oip_call *call, const struct xi_err *err);

static struct xi_grpc_call *new_call(struct xi_http_server *server)
{
    struct xi_grpc_call *c = server->kept_calls;

    if (c != NULL) {
        server->kept_calls = c->next;
        server->n_kept_calls--;
        return c;
    }
    c = calloc(1, sizeof *c);
    if (c == NULL)
        return NULL;
    xi_oip_call_init(&c->call, server->service);
    c->call.done = done;
    xi_str_init(&c->text, TEXT_CAP);
    return c;
}

static void free_call(struct xi_grpc_call *c)
{
    xi_oip_call_fini(&c->call);
    xi_str_fini(&c->text);
    free(c);
}

/* It goes back, with all that it held. */
static void drop(struct xi_grpc_call *c)
{
    struct xi_http_server *server = c->g->x->server;

    xi_oip_call_end(&c->call);
    xi_slot_put(c->slot);
    c->slot = NULL;
    if ((int)server->n_kept_calls >= KEPT_MAX || server->closing) {
        free_call(c);
        return;
    }
    xi_str_clear(&c->text);
    c->next = server->kept_calls;
    server->kept_calls = c;
    server->n_kept_calls++;
}

void xi_grpc_calls_free(struct xi_http_server *server)
{
    struct xi_grpc_call *c;

    while ((c = server->kept_calls) != NULL) {
        server->kept_calls = c->next;
        free_call(c);
    }
    server->n_kept_calls = 0;
}

static void enter(struct xi_grpc *g, struct xi_grpc_call *c)
{
    c->g = g;
    c->prev = NULL;
    c->next = g->calls;
    if (c->next != NULL)
        c->next->prev = c;
    g->calls = c;
    g->n_calls++;
}

/* It is answered, or never will be. */
static void leave(struct xi_grpc_call *c)
{
    struct xi_grpc *g = c->g;

    if (c->prev != NULL)
        c->prev->next = c->next;
    else
        g->calls = c->next;
    if (c->next != NULL)
        c->next->prev = c->prev;
    for (struct xi_grpc_call **at = &g->awaiting; *at != NULL; at = &(*at)->next_awaiting)
        if (*at == c) {
            *at = c->next_awaiting;
            break;
        }
    g->n_calls--;
}

void xi_grpc_infer_cancel(struct xi_grpc *g)
{
    struct xi_grpc_call *c, *next;

    for (c = g->calls; c != NULL; c = next) {
        next = c->next;
        if (c->call.busy) {
            xi_oip_call_cancel(&c->call);
        } else if (!c->working) { /* a worker's is dropped when it comes back */
            leave(c);
            drop(c);
        }
    }
}

/* ---- errors ---- */

/* A stream goes on: the error is a message of it. */
static void tell_error(struct xi_grpc *g, const char *id, const char *model,
                       const struct xi_err *err)
{
    struct xi_str *s = &g->x->body;

    xi_str_clear(s);
    xi_str_printf(s, "%s%s%s", err->msg, err->hint[0] ? "; " : "", err->hint);
    char *text = xi_str_take(s);
    xi_pb_text_field(s, STREAM_ERROR, text ? text : "out of memory");
    free(text);
    size_t response = xi_pb_begin(s, STREAM_RESPONSE); /* whose it is */
    xi_pb_text_field(s, RESPONSE_MODEL, model);
    xi_pb_text_field(s, RESPONSE_ID, id);
    xi_pb_end(s, response);
    xi_grpc_send(g);
}

static void fail(struct xi_grpc_call *c, const struct xi_err *err)
{
    struct xi_grpc *g = c->g;
    unsigned retry_after_s = c->call.retry_after_s;
    struct xi_err why = *err; /* it may be the call's own */

    leave(c);
    if (g->why.rc == XI_OK && is_stream(c))
        tell_error(g, c->call.ask != NULL ? c->call.ask->id : "", c->model.name, &why);
    drop(c);
    if (g->why.rc == XI_OK && !(g->method->flags & XI_GRPC_STREAMS)) {
        g->retry_after_s = retry_after_s;
        xi_grpc_fail(g, &why);
    } else {
        xi_grpc_settle(g);
    }
}

/* ---- the answer ---- */

static void released(struct xi_send *send)
{
    struct xi_grpc_call *c =
        (struct xi_grpc_call *)(void *)((char *)send - offsetof(struct xi_grpc_call, send));
    struct xi_grpc *g = c->g;

    drop(c);
    xi_grpc_settle(g);
}

/* The fields, behind room for what is known only when they are; offsets of the tensors' marks. */
static void write_text(struct xi_grpc_call *c, int final, size_t mark_at[XI_TENSORS_MAX])
{
    const struct xi_oip_call *call = &c->call;
    struct xi_oip_proto_answer a = {.model = c->model.name,
                                    .version = call->session->version,
                                    .id = call->ask->id,
                                    .final = final};
    static const char front[FRONT];

    xi_str_clear(&c->text);
    xi_str_add(&c->text, front, FRONT);
    xi_oip_proto_begin(&c->text, &a);
    for (unsigned i = 0; i < call->n_results; i++) {
        const struct xi_oip_result *r = &call->results[i];
        struct xi_oip_proto_output o = {.name = r->name, .tensor = &r->tensor, .region = r->region};

        xi_oip_proto_output(&c->text, &o);
    }
    for (unsigned i = 0; i < call->n_results; i++) {
        mark_at[i] = c->text.len;
        const struct xi_tensor *t = &call->results[i].tensor;
        xi_oip_proto_mark(&c->text, t->data != NULL ? t->bytes : 0);
    }
}

/* Frame and mark stand right before the fields. Returns where the message begins in the text. */
static size_t write_front(struct xi_grpc_call *c, uint64_t bytes)
{
    uint8_t mark[1 + XI_PB_VARINT_MAX] = {STREAM_RESPONSE << 3 | XI_PB_BYTES};
    uint8_t *text = (uint8_t *)c->text.data;
    size_t n = 0, at = FRONT;

    if (is_stream(c)) {
        uint64_t v = bytes;
        for (n = 1; v >= 0x80; v >>= 7)
            mark[n++] = (uint8_t)(v | 0x80);
        mark[n++] = (uint8_t)v;
        at -= n;
        memcpy(text + at, mark, n);
    }
    at -= XI_GRPC_FRAME;
    xi_grpc_frame_write(text + at, bytes + n);
    return at;
}

/* Text up to and with each mark, its tensor, and so on. */
static void cut(struct xi_grpc_call *c, size_t at, const size_t mark_at[XI_TENSORS_MAX])
{
    const struct xi_oip_call *call = &c->call;
    char *text = c->text.data;
    unsigned n = 0;

    for (unsigned i = 0; i < call->n_results; i++) {
        const struct xi_tensor *t = &call->results[i].tensor;
        size_t end = i + 1 < call->n_results ? mark_at[i + 1] : c->text.len;
        if (t->data == NULL || t->bytes == 0)
            continue; /* the text goes on */
        c->pieces[n++] = uv_buf_init(text + at, (unsigned)(end - at));
        c->pieces[n++] = uv_buf_init(t->data, 0);
        c->pieces[n - 1].len = t->bytes;
        at = end;
    }
    if (at < c->text.len)
        c->pieces[n++] = uv_buf_init(text + at, (unsigned)(c->text.len - at));
    c->send.pieces = c->pieces;
    c->send.n_pieces = n;
    c->send.released = released;
}

/* Says that no more comes; the answer before it had its tensors. */
static void tell_final(struct xi_grpc *g, const struct xi_grpc_call *c)
{
    struct xi_str *s = &g->x->body;
    struct xi_oip_proto_answer a = {.model = c->model.name,
                                    .version = c->call.session->version,
                                    .id = c->call.ask->id,
                                    .final = 1};

    xi_str_clear(s);
    size_t response = xi_pb_begin(s, STREAM_RESPONSE);
    xi_oip_proto_begin(s, &a);
    xi_pb_end(s, response);
    xi_grpc_send(g);
}

static void answer(struct xi_grpc_call *c)
{
    struct xi_grpc *g = c->g;
    struct xi_exchange *x = g->x;
    int stream = is_stream(c), more = stream && c->call.ask->parameters.empty_final;
    size_t mark_at[XI_TENSORS_MAX];
    uint64_t bytes = 0;
    struct xi_err err;

    write_text(c, !stream ? -1 : !more, mark_at);
    if (xi_str_check(&c->text, &err, "answer") != XI_OK) {
        fail(c, &err);
        return;
    }
    for (unsigned i = 0; i < c->call.n_results; i++)
        if (c->call.results[i].tensor.data != NULL)
            bytes += c->call.results[i].tensor.bytes;
    bytes += c->text.len - FRONT;
    if (bytes > UINT32_MAX - FRONT) {
        (void)xi_fail(&err, XI_ETOOBIG, "an answer of more than 4 GiB");
        fail(c, &err);
        return;
    }
    cut(c, write_front(c, bytes), mark_at);
    leave(c);
    if (!x->begun)
        xi_answer_begin_parts(x, 200, XI_GRPC_TYPE);
    x->held++;
    xi_answer_send(x, &c->send);
    if (more && !xi_exchange_gone(x)) /* c stays until it has left, which is not in this turn */
        tell_final(g, c);
    if (!stream && g->why.rc == XI_OK && !g->over)
        xi_grpc_end(g);
    x->held--;
    if (xi_exchange_settle(x) == 0 && stream)
        xi_grpc_settle(g);
}

static void done(struct xi_oip_call *call, const struct xi_err *err)
{
    struct xi_grpc_call *c = of_call(call);

    if (err != NULL)
        fail(c, err);
    else
        answer(c);
}

/* ---- the request ---- */

/* It has come back from a worker; 1: nobody waits for it any more. */
static int is_unwanted(struct xi_grpc_call *c)
{
    struct xi_grpc *g = c->g;

    c->working = 0;
    if (g->why.rc == XI_OK)
        return 0;
    leave(c);
    drop(c);
    xi_grpc_settle(g);
    return 1;
}

static void submit(struct xi_grpc_call *c)
{
    c->g->x->request = c->call.req.id;
    xi_oip_call_submit(&c->call);
}

/* Where raw tensors lie becomes a place in their slot. The first one lies well; those behind it
 * where the message has them, and where no engine takes that they move on a few bytes, which the
 * slot has to spare. Returns how many bytes have to move. */
static uint64_t align(struct xi_grpc_call *c)
{
    struct xi_oip_request *r = c->call.ask;
    uint64_t front = (uint64_t)(c->message - c->call.slot->data), end = 0, moved = 0;

    for (uint32_t i = 0; i < r->n_inputs; i++) {
        struct xi_oip_tensor *t = &r->inputs[i];
        if (t->where != XI_OIP_RAW)
            continue;
        t->offset += front;
        t->data_at = (size_t)t->offset; /* from there */
        if (t->offset < end)
            t->offset = end;
        if (t->dtype != XI_DT_BYTES)
            t->offset += -t->offset % XI_GRPC_ALIGN;
        end = t->offset + t->bytes;
        moved += t->offset != t->data_at ? t->bytes : 0;
    }
    c->call.tail_bytes = end;
    return moved;
}

/* From the last one on, so that none is written over before it has moved. */
static void move(struct xi_grpc_call *c)
{
    uint8_t *data = c->call.slot->data;
    struct xi_oip_request *r = c->call.ask;

    for (uint32_t i = r->n_inputs; i-- > 0;) {
        const struct xi_oip_tensor *t = &r->inputs[i];
        if (t->where == XI_OIP_RAW && t->offset != t->data_at)
            memmove(data + t->offset, data + t->data_at, (size_t)t->bytes);
    }
}

static void fill_work(struct xi_work *w)
{
    struct xi_grpc_call *c = of_work(w);
    const struct xi_oip_request *r = c->call.ask;

    c->work_rc = XI_OK;
    move(c);
    for (uint32_t i = 0; c->work_rc == XI_OK && i < r->n_inputs; i++)
        if (r->inputs[i].where == XI_OIP_TEXT)
            c->work_rc = xi_oip_proto_fill(c->message, &r->inputs[i],
                                           c->call.text->data + r->inputs[i].offset, &c->work_err);
    if (c->work_rc == XI_OK && c->call.text != NULL)
        c->work_rc = xi_oip_call_join(&c->call, &c->work_err);
}

static void filled(struct xi_work *w)
{
    struct xi_grpc_call *c = of_work(w);

    if (is_unwanted(c))
        return;
    if (c->work_rc != XI_OK)
        fail(c, &c->work_err);
    else
        submit(c);
}

/* Runs on the loop what is small, elsewhere what is not. */
static void queue(struct xi_grpc_call *c, uint64_t bytes, void (*work)(struct xi_work *),
                  void (*over)(struct xi_work *))
{
    c->work.data = c;
    c->working = 1;
    if (bytes > XI_OFF_LOOP_BYTES) {
        xi_work_queue(c->g->x->server->service->loop, &c->work, work, over);
        return;
    }
    work(&c->work);
    over(&c->work);
}

/* Of the timeouts of RPC and request the shorter one counts. */
static void set_deadline(struct xi_grpc_call *c)
{
    struct xi_oip_parameters *p = &c->call.ask->parameters;
    uint64_t at = c->g->deadline_ns, now = xi_now_ns();

    if (at == 0)
        return;
    uint64_t left_us = at > now ? (at - now) / 1000 : 0;
    if (p->timeout_us == 0 || p->timeout_us > left_us) {
        p->timeout_us = 0;
        c->call.deadline_ns = at;
    }
}

/* Its session is known. */
static void go_on(struct xi_grpc_call *c)
{
    struct xi_oip_call *call = &c->call;
    uint64_t copied = c->g->x->stream.copied; /* of all messages so far */
    struct xi_err err;

    set_deadline(c);
    call->slot = c->slot; /* and its reference */
    c->slot = NULL;
    uint64_t moved = align(c);
    call->copied += copied - c->g->copied + moved;
    c->g->copied = copied;
    /* The request was read before its session was known. */
    if (xi_oip_call_ask(call, &err) != XI_OK || xi_oip_call_ready(call, &err) != XI_OK)
        fail(c, &err);
    else if (call->text != NULL)
        queue(c, call->ask->text_bytes + call->tail_bytes, fill_work, filled);
    else if (moved > 0)
        queue(c, moved, fill_work, filled);
    else
        submit(c);
}

static enum xi_rc begin(struct xi_grpc_call *c, int *ret_wait, struct xi_err *err)
{
    const struct xi_oip_parameters *p = &c->call.ask->parameters;
    struct xi_exchange *x = c->g->x;
    struct xi_sequence_ask sequence = {.flags = (p->sequence_start ? XI_SEQUENCE_START : 0) |
                                                (p->sequence_end ? XI_SEQUENCE_END : 0)};

    memcpy(sequence.id, p->sequence, sizeof sequence.id);
    return xi_oip_call_begin(&c->call, &x->who, xi_now_ns(), c->model.name, c->model.version,
                             sequence.id[0] ? &sequence : NULL, ret_wait, err);
}

/* The first of those that wait. 0: it waits on, and so do those behind it. */
static int retry_first(struct xi_grpc *g, uint64_t now_ns)
{
    struct xi_grpc_call *c = g->awaiting;
    struct xi_err err = {0};
    int wait = 0;
    enum xi_rc rc = begin(c, &wait, &err);

    if (rc != XI_OK && wait && now_ns < c->await_until_ns)
        return 0;
    if (rc != XI_OK && wait && g->deadline_ns != 0 && now_ns >= g->deadline_ns)
        (void)xi_fail(&err, XI_ETIMEOUT, "its deadline passed while its model was loaded");
    g->awaiting = c->next_awaiting;
    if (rc == XI_OK)
        go_on(c);
    else
        fail(c, &err);
    return 1;
}

void xi_grpc_infer_retry(struct xi_grpc *g, uint64_t now_ns)
{
    while (g->awaiting != NULL && retry_first(g, now_ns))
        continue; /* where all of it fails they are all dropped */
}

/* Meanwhile nothing else of the stream is read; what a worker had to read first comes behind. */
static void wait_for_session(struct xi_grpc_call *c)
{
    struct xi_grpc *g = c->g;
    struct xi_grpc_call **at = &g->awaiting;

    c->await_until_ns = xi_oip_call_patience(xi_now_ns(), g->deadline_ns);
    c->next_awaiting = NULL;
    while (*at != NULL)
        at = &(*at)->next_awaiting;
    *at = c;
    xi_grpc_wait(g);
}

static void parse_work(struct xi_work *w)
{
    struct xi_grpc_call *c = of_work(w);

    c->work_rc = xi_oip_proto_read(c->message, c->bytes, &c->model, c->call.ask, &c->work_err);
}

static void parsed(struct xi_work *w)
{
    struct xi_grpc_call *c = of_work(w);
    struct xi_err err = {0};
    int wait = 0;

    if (is_unwanted(c))
        return;
    if (c->work_rc != XI_OK)
        fail(c, &c->work_err);
    else if (c->g->awaiting != NULL) /* in their order */
        wait_for_session(c);
    else if (begin(c, &wait, &err) == XI_OK)
        go_on(c);
    else if (wait && xi_body_waiting(c->g->x->server) < XI_QUEUE_MAX)
        wait_for_session(c);
    else
        fail(c, &err);
}

void xi_grpc_infer(struct xi_grpc *g, const uint8_t *message, size_t bytes)
{
    struct xi_exchange *x = g->x;
    struct xi_grpc_call *c = new_call(x->server);
    struct xi_err err = {0};
    uint64_t raw;

    if (c == NULL) {
        (void)xi_fail(&err, XI_ENOMEM, "no memory for a request");
        xi_grpc_fail(g, &err);
        return;
    }
    enter(g, c);
    c->slot = x->slot; /* its reference, too */
    x->slot = NULL;
    c->message = message;
    c->bytes = bytes;
    c->model.name[0] = '\0';
    if (xi_oip_call_ask(&c->call, &err) != XI_OK) {
        fail(c, &err);
        return;
    }
    /* Raw tensors are not looked at: what is left is the work. */
    (void)xi_oip_proto_raw_at(message, bytes < XI_GRPC_HEAD ? bytes : XI_GRPC_HEAD, &raw);
    queue(c, raw < bytes ? bytes - raw : 0, parse_work, parsed);
}
