/* The body of an inference: what lies in the slot becomes the parts of a request. */
#include <inttypes.h>
#include <string.h>

#include "daemon/api/infer.h"

static void refuse(struct xi_infer *inf, const struct xi_err *err)
{
    xi_answer_problem(inf->x, err);
}

static void done(struct xi_oip_call *call, const struct xi_err *err)
{
    struct xi_infer *inf = call->owner;
    struct xi_exchange *x = inf->x;

    x->gone = NULL;
    x->request = call->req.id;
    if (err != NULL) {
        x->retry_after_s = call->retry_after_s;
        xi_answer_problem(x, err);
        return;
    }
    xi_infer_answer(inf);
}

static void gone(struct xi_exchange *x)
{
    x->gone = NULL;
    xi_oip_call_cancel(&x->infer->call);
}

/* The body's slot is the call's from here on. */
static void hand_over(struct xi_infer *inf)
{
    struct xi_exchange *x = inf->x;

    inf->call.slot = x->slot;
    inf->call.copied += x->stream.copied;
    inf->call.done = done;
    inf->call.owner = inf;
    x->slot = NULL;
}

static void send_part(struct xi_infer *inf, struct xi_part part)
{
    struct xi_exchange *x = inf->x;

    hand_over(inf);
    xi_oip_call_open(&inf->call);
    xi_oip_call_part(&inf->call, x->pad, xi_body_bytes(x), part);
    x->gone = gone;
    xi_oip_call_send(&inf->call);
}

static void read_file(struct xi_infer *inf)
{
    struct xi_err err;

    if (inf->x->slot == NULL) {
        (void)xi_fail(&err, XI_EIMAGE, "the body is empty");
        refuse(inf, &err);
        return;
    }
    inf->call.want = inf->accept == XI_ACCEPT_JSON      ? XI_ANSWER_JSON
                     : inf->accept == XI_ACCEPT_PICTURE ? XI_ANSWER_PICTURE
                                                        : XI_ANSWER_JSON | XI_ANSWER_PICTURE;
    if (inf->dtype == XI_DT_FP32)
        inf->call.want |= XI_INPUT_FP32;
    send_part(inf, (struct xi_part){.kind = XI_PART_BYTES});
}

static void read_raw(struct xi_infer *inf)
{
    struct xi_exchange *x = inf->x;
    struct xi_tensor t =
        xi_tensor_make(inf->dtype, inf->dims, inf->rank, xi_body_data(x), xi_body_bytes(x));
    struct xi_part part = {.kind = XI_PART_TENSOR, .dtype = inf->dtype, .rank = inf->rank};
    struct xi_err err;

    if (x->slot == NULL)
        (void)xi_fail(&err, XI_ETENSOR, "the body is empty");
    if (x->slot == NULL ||
        xi_port_check(&inf->call.session->signature.inputs[0], &t, &err) != XI_OK) {
        refuse(inf, &err);
        return;
    }
    memcpy(part.dims, inf->dims, sizeof part.dims);
    send_part(inf, part);
}

static uint64_t text_bytes(const struct xi_infer *inf)
{
    return inf->input == XI_INPUT_BINARY ? inf->header_bytes : xi_body_bytes(inf->x);
}

static const char *text_of(const struct xi_infer *inf)
{
    return (const char *)inf->call.slot->data + inf->x->pad;
}

/* Any thread: the elements of the JSON, and the binary tail when both kinds are mixed. */
static void fill_work(struct xi_work *w)
{
    struct xi_infer *inf = w->data;
    struct xi_oip_request *r = inf->call.ask;

    inf->work_rc = XI_OK;
    for (uint32_t i = 0; inf->work_rc == XI_OK && i < r->n_inputs; i++)
        if (r->inputs[i].where == XI_OIP_TEXT)
            inf->work_rc = xi_oip_fill(text_of(inf), (size_t)text_bytes(inf), &r->inputs[i],
                                       inf->call.text->data + r->inputs[i].offset, &inf->work_err);
    if (inf->work_rc == XI_OK)
        inf->work_rc = xi_oip_call_join(&inf->call, &inf->work_err);
}

static void filled(struct xi_work *w)
{
    struct xi_infer *inf = w->data;

    if (inf->work_rc != XI_OK) {
        refuse(inf, &inf->work_err);
        return;
    }
    if (xi_exchange_gone(inf->x)) { /* the client went while its JSON was read */
        xi_oip_call_cancel(&inf->call);
        return;
    }
    inf->x->gone = gone;
    xi_oip_call_submit(&inf->call);
}

/* Memory for what stands in the JSON. Whoever holds a body does not wait for more memory: two
 * such waiters could wait for each other. */
static void parsed(struct xi_infer *inf)
{
    struct xi_err err = {0};

    if (xi_oip_call_ready(&inf->call, &err) != XI_OK) {
        refuse(inf, &err);
        return;
    }
    inf->work_rc = XI_OK;
    if (inf->call.text == NULL) {
        filled(&inf->work);
    } else if (xi_body_bytes(inf->x) + inf->call.regions.read_bytes <= XI_OFF_LOOP_BYTES) {
        /* the tail is copied, too */
        fill_work(&inf->work);
        filled(&inf->work);
    } else {
        xi_work_queue(inf->call.service->loop, &inf->work, fill_work, filled);
    }
}

/* Any thread. */
static void parse_work(struct xi_work *w)
{
    struct xi_infer *inf = w->data;

    inf->work_rc = xi_oip_read(text_of(inf), (size_t)text_bytes(inf), inf->call.tail_bytes,
                               inf->call.ask, &inf->work_err);
}

static void parse_done(struct xi_work *w)
{
    struct xi_infer *inf = w->data;

    if (inf->work_rc != XI_OK)
        refuse(inf, &inf->work_err);
    else
        parsed(inf);
}

static void read_tensors(struct xi_infer *inf)
{
    struct xi_exchange *x = inf->x;
    struct xi_err err = {0};

    if (x->slot == NULL)
        (void)xi_fail(&err, XI_EJSON, "the body is empty");
    else if (inf->header_bytes > xi_body_bytes(x)) /* a chunked body that was shorter */
        (void)xi_fail(&err, XI_EINVAL, "Inference-Header-Content-Length is past the body's end");
    else
        (void)!xi_oip_call_ask(&inf->call, &err);
    if (err.rc != XI_OK) {
        refuse(inf, &err);
        return;
    }
    hand_over(inf);
    inf->call.tail = x->pad + text_bytes(inf);
    inf->call.tail_bytes = xi_body_bytes(x) - text_bytes(inf);
    inf->work.data = inf;
    if (text_bytes(inf) <= XI_OFF_LOOP_BYTES) {
        parse_work(&inf->work);
        parse_done(&inf->work);
    } else {
        xi_work_queue(inf->call.service->loop, &inf->work, parse_work, parse_done);
    }
}

void xi_infer_read_body(struct xi_infer *inf)
{
    if (inf->input == XI_INPUT_FILE)
        read_file(inf);
    else if (inf->input == XI_INPUT_RAW)
        read_raw(inf);
    else
        read_tensors(inf);
}
