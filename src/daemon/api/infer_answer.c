/* The reply of a host becomes the answer to the client. Bytes of tensors and pictures are sent
 * from the output segment itself. */
#include <inttypes.h>
#include <string.h>

#include "base/clock.h"
#include "daemon/api/describe.h"
#include "daemon/api/infer.h"
#include "daemon/api/oip_results.h"

enum { NUMBER_COST = 16 };

static uint64_t to_us(uint64_t later, uint64_t earlier)
{
    return later > earlier && earlier != 0 ? (later - earlier) / 1000 : 0;
}

/* Whole numbers and plain text below: printf would cost more than the rest of the answer. */
static void add_timing(struct xi_infer *inf)
{
    const struct xi_request_timing *t = &inf->call.req.timing;
    const struct xi_done *d = &inf->call.reply.done;
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
    const struct xi_request_timing *t = &inf->call.req.timing;
    const struct xi_done *d = &inf->call.reply.done;
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
    if (inf->call.req.cache == XI_CACHE_HIT)
        xi_str_puts(&inf->x->extra, "Xinfer-Cache: hit\r\n");
    else if (inf->call.req.cache == XI_CACHE_MISS)
        xi_str_puts(&inf->x->extra, "Xinfer-Cache: miss\r\n");
}

static void begin_envelope(struct xi_infer *inf)
{
    const struct xi_session *s = inf->call.session;
    struct xi_str *out = &inf->x->body;

    xi_str_clear(out);
    xi_str_puts(out, "{\"model\":");
    xi_str_json(out, s->name);
    xi_describe_text(out, "id", s->id);
    xi_describe_text(out, "version", s->version);
    xi_describe_text(out, "node", inf->call.service->node);
    xi_str_puts(out, ",\"outputs\":");
}

/* Any thread. */
static void add_tensors(struct xi_infer *inf)
{
    struct xi_str *out = &inf->x->body;

    xi_str_puts(out, "[");
    for (unsigned k = 0; k < inf->call.n_results; k++) {
        const struct xi_oip_result *r = &inf->call.results[k];
        xi_str_puts(out, k ? "," : "");
        if (r->region != NULL)
            xi_oip_write_region(out, r->name, &r->tensor, r->region);
        else
            xi_oip_write(out, r->name, &r->tensor, r->binary);
    }
    xi_str_puts(out, "]");
}

/* A number costs about a third of a microsecond to write, a byte of a flow's JSON far less. */
static uint64_t work_bytes(const struct xi_infer *inf)
{
    uint64_t n = 0;

    for (uint32_t i = 0; i < inf->call.reply.done.n_parts; i++)
        if (inf->call.reply.parts[i].kind == XI_PART_JSON)
            n += inf->call.reply.parts[i].mem.bytes;
    for (unsigned k = 0; k < inf->call.n_results; k++)
        n += inf->call.results[k].binary || inf->call.results[k].region != NULL
                 ? 0
                 : NUMBER_COST * inf->call.results[k].tensor.bytes;
    return n;
}

/* Any thread: the JSON of the answer. */
static void write_work(struct xi_work *w)
{
    struct xi_infer *inf = w->data;
    uint32_t i = 0;

    inf->work_rc = XI_OK;
    begin_envelope(inf);
    if (xi_oip_find_part(&inf->call.reply, XI_PART_JSON, &i) != NULL)
        inf->work_rc = xi_oip_fragment(&inf->call.reply, i, &inf->x->body, &inf->work_err);
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
    xi_answer_add(x, xi_reply_data(&inf->call.reply, picture),
                  (size_t)inf->call.reply.parts[picture].mem.bytes);
    xi_answer_add(x, last, sizeof last - 1);
    xi_answer_pieces(x, 200, "multipart/mixed; boundary=xinfer-part-7b1d0c52");
}

static int any_binary(const struct xi_infer *inf)
{
    for (unsigned k = 0; k < inf->call.n_results; k++)
        if (inf->call.results[k].binary)
            return 1;
    return 0;
}

static void send_binary(struct xi_infer *inf)
{
    struct xi_exchange *x = inf->x;

    xi_str_puts(&x->extra, "Inference-Header-Content-Length: ");
    xi_str_uint(&x->extra, x->body.len, 1);
    xi_str_puts(&x->extra, "\r\n");
    xi_answer_add(x, x->body.data, x->body.len);
    for (unsigned k = 0; k < inf->call.n_results; k++)
        if (inf->call.results[k].binary)
            xi_answer_add(x, inf->call.results[k].tensor.data,
                          (size_t)inf->call.results[k].tensor.bytes);
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
    if (inf->accept == XI_ACCEPT_BOTH &&
        xi_oip_find_part(&inf->call.reply, XI_PART_PICTURE, &picture) != NULL)
        send_multipart(inf, picture);
    else if (any_binary(inf))
        send_binary(inf);
    else
        xi_answer_body(x, 200, "application/json");
}

static void send_picture(struct xi_infer *inf)
{
    struct xi_exchange *x = inf->x;
    uint32_t i = 0;

    if (xi_oip_find_part(&inf->call.reply, XI_PART_PICTURE, &i) == NULL) {
        struct xi_err err;
        (void)xi_fail(&err, XI_EENGINE, "the flow drew no picture");
        xi_answer_problem(x, &err);
        return;
    }
    add_server_timing(inf);
    x->n_pieces = 0;
    xi_answer_add(x, xi_reply_data(&inf->call.reply, i),
                  (size_t)inf->call.reply.parts[i].mem.bytes);
    xi_answer_pieces(x, 200, "image/jpeg");
}

void xi_infer_answer(struct xi_infer *inf)
{
    struct xi_exchange *x = inf->x;

    if (inf->accept == XI_ACCEPT_PICTURE) {
        send_picture(inf);
        return;
    }
    inf->work.data = inf;
    if (!xi_exchange_gone(x) && work_bytes(inf) > XI_OFF_LOOP_BYTES) {
        xi_work_queue(inf->call.service->loop, &inf->work, write_work, written);
        return;
    }
    write_work(&inf->work);
    written(&inf->work);
}
