/* The reply of a host becomes the answer to the client. Bytes of tensors and pictures are sent
 * from the output segment itself. */
#include <inttypes.h>
#include <string.h>

#include "base/clock.h"
#include "daemon/api/connection.h"
#include "daemon/api/describe.h"
#include "daemon/api/infer.h"
#include "wire/json_pull.h"

enum { NUMBER_COST = 16 };

static const struct xi_part *find_part(const struct xi_reply *r, uint32_t kind, uint32_t *ret_i)
{
    for (uint32_t i = 0; i < r->done.n_parts; i++)
        if (r->parts[i].kind == kind) {
            *ret_i = i;
            return &r->parts[i];
        }
    return NULL;
}

static struct xi_tensor reply_tensor(const struct xi_reply *r, uint32_t i)
{
    const struct xi_part *p = &r->parts[i];

    return xi_tensor_make((enum xi_dtype)p->dtype, p->dims, p->rank,
                          (void *)(uintptr_t)xi_reply_data(r, i), p->mem.bytes);
}

static uint64_t to_us(uint64_t later, uint64_t earlier)
{
    return later > earlier && earlier != 0 ? (later - earlier) / 1000 : 0;
}

/* Whole numbers and plain text below: printf would cost more than the rest of the answer. */
static void add_timing(struct xi_infer *inf)
{
    const struct xi_request_timing *t = &inf->req.timing;
    const struct xi_done *d = &inf->reply.done;
    struct xi_str *out = &inf->x->body;
    const struct {
        const char *key;
        uint64_t us;
    } parts[] = {{",\"timing\":{\"queue\":", to_us(t->dispatched, t->queued)},
                 {",\"pre\":", d->pre_ns / 1000},
                 {",\"compute\":", d->device_ns / 1000},
                 {",\"post\":", d->post_ns / 1000},
                 {",\"total\":", to_us(xi_now_ns(), inf->x->born_ns)}};

    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        xi_str_puts(out, parts[i].key);
        xi_str_uint(out, parts[i].us, 1);
    }
    xi_str_puts(out, "}}");
}

/* Milliseconds with three digits, as Server-Timing wants them. */
static void add_server_timing(struct xi_infer *inf)
{
    const struct xi_request_timing *t = &inf->req.timing;
    const struct xi_done *d = &inf->reply.done;
    const struct {
        const char *name;
        uint64_t us;
    } parts[] = {{"Server-Timing: queue", to_us(t->dispatched, t->queued)},
                 {", pre", d->pre_ns / 1000},
                 {", compute", d->device_ns / 1000},
                 {", post", d->post_ns / 1000},
                 {", wire", to_us(t->queued, inf->x->born_ns)}};

    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        xi_str_puts(&inf->x->extra, parts[i].name);
        xi_str_puts(&inf->x->extra, ";dur=");
        xi_str_uint(&inf->x->extra, parts[i].us / 1000, 1);
        xi_str_puts(&inf->x->extra, ".");
        xi_str_uint(&inf->x->extra, parts[i].us % 1000, 3);
    }
    xi_str_puts(&inf->x->extra, "\r\n");
    if (inf->req.cache == XI_CACHE_HIT)
        xi_str_puts(&inf->x->extra, "Xinfer-Cache: hit\r\n");
    else if (inf->req.cache == XI_CACHE_MISS)
        xi_str_puts(&inf->x->extra, "Xinfer-Cache: miss\r\n");
}

static void begin_envelope(struct xi_infer *inf)
{
    const struct xi_session *s = inf->session;
    struct xi_str *out = &inf->x->body;

    xi_str_clear(out);
    xi_str_puts(out, "{\"model\":");
    xi_str_json(out, s->name);
    xi_describe_text(out, "id", s->id);
    xi_describe_text(out, "version", s->version);
    xi_describe_text(out, "node", inf->x->server->service->node);
    xi_str_puts(out, ",\"outputs\":");
}

/* Any thread. The fragment is copied first and checked in our own memory: a host could still
 * change what lies in the segment. */
static enum xi_rc add_fragment(struct xi_infer *inf, uint32_t i, struct xi_err *err)
{
    struct xi_str *out = &inf->x->body;
    uint64_t n = inf->reply.parts[i].mem.bytes;
    struct xi_json_pull j;
    enum xi_json_token t;
    size_t at = out->len;

    if (n > XI_FRAGMENT_MAX)
        return xi_fail(err, XI_EENGINE, "the flow's answer has %" PRIu64 " bytes of JSON", n);
    xi_str_add(out, xi_reply_data(&inf->reply, i), (size_t)n);
    if (out->failed)
        return xi_str_check(out, err, "answer");
    xi_json_pull_init(&j, out->data + at, (size_t)n);
    t = xi_json_pull_next(&j);
    while (t != XI_TOKEN_ERROR && t != XI_TOKEN_END)
        t = xi_json_pull_next(&j);
    if (t == XI_TOKEN_ERROR)
        return xi_fail(err, XI_EENGINE, "the flow's answer is no JSON: %.100s", j.err.msg);
    return XI_OK;
}

/* Any thread. */
static void add_tensors(struct xi_infer *inf)
{
    struct xi_str *out = &inf->x->body;

    xi_str_puts(out, "[");
    for (unsigned k = 0; k < inf->n_chosen; k++) {
        struct xi_tensor t = reply_tensor(&inf->reply, inf->chosen[k]);
        xi_str_puts(out, k ? "," : "");
        xi_oip_write(out, xi_str_text(&inf->names) + inf->name_at[k], &t, (int)inf->binary[k]);
    }
    xi_str_puts(out, "]");
}

static void choose_one(struct xi_infer *inf, uint32_t i, const char *name, int binary)
{
    inf->name_at[inf->n_chosen] = inf->names.len;
    xi_str_add(&inf->names, name, strlen(name) + 1);
    inf->chosen[inf->n_chosen] = i;
    inf->binary[inf->n_chosen++] = (unsigned)binary;
    inf->any_binary |= binary;
}

/* Which tensors are answered, and how. */
static void choose(struct xi_infer *inf)
{
    const struct xi_signature *sig = &inf->session->signature;
    const struct xi_oip_request *r =
        inf->input == XI_INPUT_JSON || inf->input == XI_INPUT_BINARY ? inf->oip : NULL;

    inf->n_chosen = 0;
    inf->any_binary = 0;
    xi_str_clear(&inf->names);
    for (uint32_t i = 0; i < inf->reply.done.n_parts; i++) {
        const struct xi_part *p = &inf->reply.parts[i];
        int wanted = r == NULL || r->n_outputs == 0,
            binary = r != NULL && r->parameters.binary_output;
        const char *name = p->index < sig->n_outputs ? sig->outputs[p->index].name : "";
        if (p->kind != XI_PART_TENSOR)
            continue;
        for (uint32_t k = 0; !wanted && k < r->n_outputs; k++)
            if (strcmp(r->outputs[k].name, name) == 0) {
                wanted = 1;
                binary = r->outputs[k].binary;
            }
        if (wanted)
            choose_one(inf, i, name, binary || inf->accept == XI_ACCEPT_BINARY);
    }
}

/* A number costs about a third of a microsecond to write, a byte of a flow's JSON far less. */
static uint64_t work_bytes(const struct xi_infer *inf)
{
    uint64_t n = 0;

    for (uint32_t i = 0; i < inf->reply.done.n_parts; i++)
        if (inf->reply.parts[i].kind == XI_PART_JSON)
            n += inf->reply.parts[i].mem.bytes;
    for (unsigned k = 0; k < inf->n_chosen; k++)
        n += inf->binary[k] ? 0 : NUMBER_COST * inf->reply.parts[inf->chosen[k]].mem.bytes;
    return n;
}

/* Any thread: the JSON of the answer. */
static void write_work(struct xi_work *w)
{
    struct xi_infer *inf = w->data;
    uint32_t i = 0;

    inf->work_rc = XI_OK;
    begin_envelope(inf);
    if (find_part(&inf->reply, XI_PART_JSON, &i) != NULL)
        inf->work_rc = add_fragment(inf, i, &inf->work_err);
    else
        add_tensors(inf);
    add_timing(inf);
}

static void send_multipart(struct xi_infer *inf, uint32_t picture)
{
    static const char between[] = "\r\n--xinfer-part-7b1d0c52\r\nContent-Type: image/jpeg\r\n\r\n";
    static const char first[] = "--xinfer-part-7b1d0c52\r\nContent-Type: application/json\r\n\r\n";
    static const char last[] = "\r\n--xinfer-part-7b1d0c52--\r\n";
    struct xi_exchange *x = inf->x;

    xi_answer_add(x, first, sizeof first - 1);
    xi_answer_add(x, x->body.data, x->body.len);
    xi_answer_add(x, between, sizeof between - 1);
    xi_answer_add(x, xi_reply_data(&inf->reply, picture),
                  (size_t)inf->reply.parts[picture].mem.bytes);
    xi_answer_add(x, last, sizeof last - 1);
    xi_answer_pieces(x, 200, "multipart/mixed; boundary=xinfer-part-7b1d0c52");
}

static void send_binary(struct xi_infer *inf)
{
    struct xi_exchange *x = inf->x;

    xi_str_puts(&x->extra, "Inference-Header-Content-Length: ");
    xi_str_uint(&x->extra, x->body.len, 1);
    xi_str_puts(&x->extra, "\r\n");
    xi_answer_add(x, x->body.data, x->body.len);
    for (unsigned k = 0; k < inf->n_chosen; k++)
        if (inf->binary[k])
            xi_answer_add(x, xi_reply_data(&inf->reply, inf->chosen[k]),
                          (size_t)inf->reply.parts[inf->chosen[k]].mem.bytes);
    xi_answer_pieces(x, 200, "application/octet-stream");
}

static void written(struct xi_work *w)
{
    struct xi_infer *inf = w->data;
    struct xi_exchange *x = inf->x;
    uint32_t picture = 0;

    if (inf->work_rc == XI_OK)
        inf->work_rc = xi_str_check(&x->body, &inf->work_err, "answer");
    if (inf->work_rc != XI_OK) {
        xi_answer_problem(x, &inf->work_err);
        return;
    }
    add_server_timing(inf);
    x->n_pieces = 0;
    if (inf->accept == XI_ACCEPT_BOTH && find_part(&inf->reply, XI_PART_PICTURE, &picture) != NULL)
        send_multipart(inf, picture);
    else if (inf->any_binary)
        send_binary(inf);
    else
        xi_answer_body(x, 200, "application/json");
}

static void send_picture(struct xi_infer *inf)
{
    struct xi_exchange *x = inf->x;
    uint32_t i = 0;

    if (find_part(&inf->reply, XI_PART_PICTURE, &i) == NULL) {
        struct xi_err err;
        (void)xi_fail(&err, XI_EENGINE, "the flow drew no picture");
        xi_answer_problem(x, &err);
        return;
    }
    add_server_timing(inf);
    x->n_pieces = 0;
    xi_answer_add(x, xi_reply_data(&inf->reply, i), (size_t)inf->reply.parts[i].mem.bytes);
    xi_answer_pieces(x, 200, "image/jpeg");
}

void xi_infer_answer(struct xi_infer *inf)
{
    struct xi_exchange *x = inf->x;

    if (inf->accept == XI_ACCEPT_PICTURE) {
        send_picture(inf);
        return;
    }
    choose(inf);
    inf->work.data = inf;
    if (!xi_exchange_gone(x) && work_bytes(inf) > XI_OFF_LOOP_BYTES) {
        xi_work_queue(x->server->service->loop, &inf->work, write_work, written);
        return;
    }
    write_work(&inf->work);
    written(&inf->work);
}
