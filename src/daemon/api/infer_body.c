/* The body of an inference: what lies in the slot becomes the parts of a request. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/api/connection.h"
#include "daemon/api/infer.h"

static void refuse(struct xi_infer *inf, const struct xi_err *err)
{
    xi_answer_problem(inf->x, err);
}

static void done(struct xi_request *req, enum xi_rc rc, struct xi_reply *reply,
                 const struct xi_err *err)
{
    struct xi_exchange *x = req->owner;
    struct xi_infer *inf = x->infer;

    x->gone = NULL;
    if (rc != XI_OK) {
        x->retry_after_s = req->retry_after_s;
        xi_answer_problem(x, err);
        return;
    }
    inf->reply = *reply;
    xi_infer_answer(inf);
}

static void gone(struct xi_exchange *x)
{
    x->gone = NULL;
    xi_pool_cancel(x->server->service->pool, &x->infer->req);
}

void xi_infer_submit(struct xi_infer *inf)
{
    struct xi_exchange *x = inf->x;
    struct xi_service *service = x->server->service;
    struct xi_request *req = &inf->req, *copy;
    struct xi_err err;

    if (xi_exchange_gone(x)) { /* the client went while its JSON was read */
        (void)xi_fail(&err, XI_ECANCELLED, "the client went away");
        xi_request_finish(req, XI_ECANCELLED, NULL, &err);
        return;
    }
    req->timing.born = x->born_ns;
    req->priority = inf->priority;
    req->deadline_ns = inf->deadline_ns;
    memcpy(req->tenant, x->who.tenant, sizeof req->tenant);
    if (inf->input == XI_INPUT_FILE)
        req->want = inf->accept == XI_ACCEPT_JSON      ? XI_ANSWER_JSON
                    : inf->accept == XI_ACCEPT_PICTURE ? XI_ANSWER_PICTURE
                                                       : XI_ANSWER_JSON | XI_ANSWER_PICTURE;
    else
        req->want = XI_ANSWER_TENSORS;
    if (inf->input == XI_INPUT_FILE && inf->dtype == XI_DT_FP32)
        req->want |= XI_INPUT_FP32;
    req->slot = inf->tensors ? inf->tensors : x->slot;
    xi_slot_get(req->slot);
    if (inf->tensors != NULL) { /* its text has been read */
        xi_slot_put(x->slot);
        x->slot = NULL;
    }
    inf->session->stats.copied_bytes += x->stream.copied;
    if (inf->sequence.id[0] != '\0' &&
        xi_sequence_join(service->shm, req, &inf->sequence, &err) != XI_OK) {
        req->retry_after_s = 1;
        xi_pool_refuse(req, &err);
        return;
    }
    x->gone = gone;
    copy = xi_sessions_mirror(req);
    xi_pool_submit(service->pool, req);
    if (copy != NULL)
        xi_pool_submit(service->pool, copy);
}

static void begin_request(struct xi_infer *inf)
{
    struct xi_exchange *x = inf->x;

    xi_request_init(x->server->service, &inf->req, inf->session);
    inf->req.n_parts = 0;
    inf->req.slot = NULL;
    inf->req.done = done;
    inf->req.owner = x;
    x->request = inf->req.id;
}

/* at: where the bytes lie in the slot. */
static void add_part(struct xi_infer *inf, const struct xi_slot *slot, uint64_t at, uint64_t bytes,
                     struct xi_part part)
{
    part.mem.segment = slot->segment->id;
    part.mem.reserved = 0;
    part.mem.offset = slot->offset + at;
    part.mem.bytes = bytes;
    inf->req.parts[inf->req.n_parts++] = part;
}

static struct xi_part tensor_part(uint32_t index, enum xi_dtype dtype, const int64_t *dims,
                                  int rank)
{
    struct xi_part p = {.kind = XI_PART_TENSOR, .index = index, .dtype = dtype, .rank = rank};

    for (int i = 0; i < rank; i++)
        p.dims[i] = dims[i];
    return p;
}

static void read_file(struct xi_infer *inf)
{
    struct xi_exchange *x = inf->x;
    struct xi_err err;

    if (x->slot == NULL) {
        (void)xi_fail(&err, XI_EIMAGE, "the body is empty");
        refuse(inf, &err);
        return;
    }
    begin_request(inf);
    add_part(inf, x->slot, x->pad, xi_body_bytes(x), (struct xi_part){.kind = XI_PART_BYTES});
    xi_infer_submit(inf);
}

static void read_raw(struct xi_infer *inf)
{
    struct xi_exchange *x = inf->x;
    struct xi_tensor t =
        xi_tensor_make(inf->dtype, inf->dims, inf->rank, xi_body_data(x), xi_body_bytes(x));
    struct xi_err err;

    if (x->slot == NULL)
        (void)xi_fail(&err, XI_ETENSOR, "the body is empty");
    if (x->slot == NULL || xi_port_check(&inf->session->signature.inputs[0], &t, &err) != XI_OK) {
        refuse(inf, &err);
        return;
    }
    begin_request(inf);
    add_part(inf, x->slot, x->pad, t.bytes, tensor_part(0, inf->dtype, inf->dims, inf->rank));
    xi_infer_submit(inf);
}

/* The model's port of this name, or -1. */
static int find_port(const struct xi_port_spec *ports, uint32_t n, const char *name)
{
    for (uint32_t i = 0; i < n; i++)
        if (strcmp(ports[i].name, name) == 0)
            return (int)i;
    return -1;
}

/* All inputs of the model, and no other; outputs that exist. */
static enum xi_rc check_names(const struct xi_infer *inf, struct xi_err *err)
{
    const struct xi_signature *sig = &inf->session->signature;
    const struct xi_oip_request *r = inf->oip;

    for (uint32_t i = 0; i < r->n_inputs; i++)
        if (find_port(sig->inputs, sig->n_inputs, r->inputs[i].name) < 0) {
            (void)xi_fail(err, XI_ETENSOR, "\"%.60s\" has no input \"%.60s\"", inf->session->name,
                          r->inputs[i].name);
            return xi_hint(err, "its first input is \"%.60s\"", sig->inputs[0].name);
        }
    if (r->n_inputs != sig->n_inputs)
        return xi_fail(err, XI_ETENSOR, "%u inputs where \"%.60s\" wants %u", r->n_inputs,
                       inf->session->name, sig->n_inputs);
    for (uint32_t i = 0; i < r->n_inputs; i++)
        if (r->inputs[i].where == XI_OIP_REGION)
            return xi_fail(err, XI_EUNSUPPORTED, "regions are of /v2");
    for (uint32_t i = 0; i < r->n_outputs; i++)
        if (find_port(sig->outputs, sig->n_outputs, r->outputs[i].name) < 0)
            return xi_fail(err, XI_ETENSOR, "\"%.60s\" has no output \"%.60s\"", inf->session->name,
                           r->outputs[i].name);
    return XI_OK;
}

static uint64_t text_bytes(const struct xi_infer *inf)
{
    return inf->input == XI_INPUT_BINARY ? inf->header_bytes : xi_body_bytes(inf->x);
}

/* Any thread. */
static enum xi_rc parse(struct xi_infer *inf, struct xi_err *err)
{
    uint64_t n = text_bytes(inf);

    return xi_oip_read((const char *)xi_body_data(inf->x), (size_t)n, xi_body_bytes(inf->x) - n,
                       inf->oip, err);
}

/* Any thread: the elements of the JSON, and the binary tail when both kinds are mixed. */
static enum xi_rc fill(struct xi_infer *inf, struct xi_err *err)
{
    const char *text = (const char *)xi_body_data(inf->x);
    uint64_t n = text_bytes(inf), tail = xi_body_bytes(inf->x) - n;
    struct xi_oip_request *r = inf->oip;

    for (uint32_t i = 0; i < r->n_inputs; i++) {
        if (r->inputs[i].where == XI_OIP_RAW)
            continue;
        enum xi_rc rc = xi_oip_fill(text, (size_t)n, &r->inputs[i],
                                    inf->tensors->data + r->inputs[i].offset, err);
        if (rc != XI_OK)
            return rc;
    }
    memcpy(inf->tensors->data + r->text_bytes, text + n, (size_t)tail);
    return XI_OK;
}

static void add_tensors(struct xi_infer *inf)
{
    const struct xi_signature *sig = &inf->session->signature;
    struct xi_exchange *x = inf->x;
    struct xi_slot *slot = inf->tensors ? inf->tensors : x->slot;
    uint64_t tail = inf->tensors ? inf->oip->text_bytes : x->pad + text_bytes(inf);
    struct xi_err err;

    begin_request(inf);
    for (uint32_t i = 0; i < inf->oip->n_inputs; i++) {
        struct xi_oip_tensor *in = &inf->oip->inputs[i];
        uint64_t at = in->where == XI_OIP_RAW ? tail + in->offset : in->offset;
        int port = find_port(sig->inputs, sig->n_inputs, in->name);
        struct xi_tensor t =
            xi_tensor_make(in->dtype, in->dims, in->rank, slot->data + at, in->bytes);
        if (port < 0 || xi_port_check(&sig->inputs[port], &t, &err) != XI_OK) {
            if (port < 0)
                (void)xi_fail(&err, XI_EAGAIN, "the session changed while this request was read");
            xi_request_finish(&inf->req, err.rc, NULL, &err);
            return;
        }
        add_part(inf, slot, at, in->bytes,
                 tensor_part((uint32_t)port, in->dtype, in->dims, in->rank));
    }
    xi_infer_submit(inf);
}

static void fill_work(struct xi_work *w)
{
    struct xi_infer *inf = w->data;

    inf->work_rc = fill(inf, &inf->work_err);
}

static void filled(struct xi_work *w)
{
    struct xi_infer *inf = w->data;

    if (inf->work_rc != XI_OK)
        refuse(inf, &inf->work_err);
    else
        add_tensors(inf);
}

/* Memory for what stands in the JSON. Whoever holds a body does not wait for more memory: two
 * such waiters could wait for each other. */
static void parsed(struct xi_infer *inf)
{
    struct xi_exchange *x = inf->x;
    struct xi_err err = {0};

    if (check_names(inf, &err) != XI_OK) {
        refuse(inf, &err);
        return;
    }
    if (inf->oip->text_bytes == 0 && inf->input == XI_INPUT_BINARY) {
        add_tensors(inf);
        return;
    }
    uint64_t want = inf->oip->text_bytes + (xi_body_bytes(x) - text_bytes(inf));
    if (xi_shm_take(x->server->service->shm, x->who.tenant, want ? want : 1, &inf->tensors, &err) !=
        XI_OK) {
        inf->tensors = NULL;
        refuse(inf, &err);
        return;
    }
    x->stream.copied += xi_body_bytes(x) - text_bytes(inf);
    if (xi_body_bytes(x) <= XI_OFF_LOOP_BYTES) { /* the binary tail is copied, too */
        fill_work(&inf->work);
        filled(&inf->work);
    } else {
        xi_work_queue(x->server->service->loop, &inf->work, fill_work, filled);
    }
}

static void parse_work(struct xi_work *w)
{
    struct xi_infer *inf = w->data;

    inf->work_rc = parse(inf, &inf->work_err);
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

    if (inf->oip == NULL)
        inf->oip = malloc(sizeof *inf->oip);
    if (inf->oip == NULL || x->slot == NULL) {
        (void)xi_fail(&err, x->slot == NULL ? XI_EJSON : XI_ENOMEM, "%s",
                      x->slot == NULL ? "the body is empty" : "no memory for a request");
        refuse(inf, &err);
        return;
    }
    if (inf->header_bytes > xi_body_bytes(x)) { /* a chunked body that was shorter */
        (void)xi_fail(&err, XI_EINVAL, "Inference-Header-Content-Length is past the body's end");
        refuse(inf, &err);
        return;
    }
    inf->work.data = inf;
    if (text_bytes(inf) <= XI_OFF_LOOP_BYTES) {
        parse_work(&inf->work);
        parse_done(&inf->work);
    } else {
        xi_work_queue(x->server->service->loop, &inf->work, parse_work, parse_done);
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
