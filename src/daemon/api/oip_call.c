#include "daemon/api/oip_call.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/name.h"
#include "daemon/api/oip_results.h"
#include "daemon/core/session_swap.h"

#define TIMEOUT_MAX_US 1000000000000ull /* 11 days; what is longer is none */

void xi_oip_call_init(struct xi_oip_call *call, struct xi_service *service)
{
    call->service = service;
    xi_str_init(&call->names, (size_t)XI_TENSORS_MAX * XI_TENSOR_NAME_MAX);
    xi_str_init(&call->made, XI_OIP_MADE_MAX);
}

void xi_oip_call_fini(struct xi_oip_call *call)
{
    free(call->ask);
    call->ask = NULL;
    xi_str_fini(&call->names);
    xi_str_fini(&call->made);
}

void xi_oip_call_end(struct xi_oip_call *call)
{
    XI_ASSERT(!call->busy);
    xi_reply_release(&call->reply);
    xi_oip_regions_end(&call->regions);
    xi_slot_put(call->text);
    xi_slot_put(call->slot);
    call->text = call->slot = NULL;
    call->n_results = 0;
    if (call->session != NULL)
        xi_session_leave(call->session);
    call->session = NULL;
}

/* ---- the session ---- */

static enum xi_rc route(struct xi_oip_call *call, int *ret_wait, struct xi_err *err)
{
    const struct xi_route_ask ask = {
        .tenant = call->who->role == XI_ROLE_ADMIN && xi_uuid_valid(call->name) ? NULL
                                                                                : call->who->tenant,
        .name_or_id = call->name,
        .version = call->version,
        .client = call->who->tenant,
        .sequence = call->sequence.id[0] != '\0' ? &call->sequence : NULL};

    return xi_sessions_route(call->service->sessions, &ask, &call->session, ret_wait, err);
}

/* The name without its @flow. */
static enum xi_rc read_name(struct xi_oip_call *call, const char *name, struct xi_err *err)
{
    const size_t suffix = sizeof XI_OIP_FLOW - 1;
    size_t n = strlen(name);

    call->flow = n > suffix && strcmp(name + n - suffix, XI_OIP_FLOW) == 0;
    n -= call->flow ? suffix : 0;
    if (n >= sizeof call->name)
        return xi_fail(err, XI_EINVAL, "a model's name of %zu bytes, the limit is %d", n,
                       XI_NAME_MAX);
    memcpy(call->name, name, n);
    call->name[n] = '\0';
    return XI_OK;
}

static enum xi_rc read_version(struct xi_oip_call *call, const char *version, struct xi_err *err)
{
    if (version == NULL)
        version = "";
    if (strlen(version) >= sizeof call->version)
        return xi_fail(err, XI_EINVAL, "\"%.80s\" is no version", version);
    memcpy(call->version, version, strlen(version) + 1);
    return XI_OK;
}

/* A model that has no room says when it may have some. */
static void note_retry(struct xi_oip_call *call, const struct xi_err *err)
{
    struct xi_session *s = NULL;
    struct xi_err none;

    if (err->rc == XI_EBUDGET && xi_sessions_find(call->service->sessions, call->who->tenant,
                                                  call->name, &s, &none) == XI_OK)
        call->retry_after_s = s->retry_after_s;
}

enum xi_rc xi_oip_call_begin(struct xi_oip_call *call, const struct xi_identity *who,
                             uint64_t born_ns, const char *name, const char *version,
                             const struct xi_sequence_ask *sequence, int *ret_wait,
                             struct xi_err *err)
{
    enum xi_rc rc;

    *ret_wait = 0;
    call->who = who;
    call->born_ns = born_ns;
    call->session = NULL;
    call->deadline_ns = 0;
    call->retry_after_s = 0;
    call->binary_all = call->asked = 0;
    call->copied = 0;
    call->tail = call->tail_bytes = 0;
    if (sequence != NULL)
        call->sequence = *sequence;
    else
        call->sequence.id[0] = '\0';
    if ((rc = read_name(call, name, err)) != XI_OK ||
        (rc = read_version(call, version, err)) != XI_OK)
        return rc;
    rc = route(call, ret_wait, err);
    if (rc != XI_OK) {
        call->session = NULL;
        note_retry(call, err);
        return rc;
    }
    call->priority = call->session->options.priority;
    call->want = call->flow ? XI_ANSWER_JSON : XI_ANSWER_TENSORS;
    if (call->flow && !call->session->has_flow) {
        (void)xi_fail(err, XI_ENOENT, "\"%.60s\" has no flow", call->name);
        return xi_hint(err, "its tensors are served as \"%.60s\"", call->name);
    }
    return XI_OK;
}

uint64_t xi_oip_call_patience(uint64_t born_ns, uint64_t deadline_ns)
{
    uint64_t until = born_ns + XI_OIP_WAIT_MS * 1000000ull;

    return deadline_ns != 0 && deadline_ns < until ? deadline_ns : until;
}

/* ---- what is asked ---- */

enum xi_rc xi_oip_call_ask(struct xi_oip_call *call, struct xi_err *err)
{
    if (call->ask == NULL)
        call->ask = malloc(sizeof *call->ask);
    call->asked = call->ask != NULL;
    return call->asked ? XI_OK : xi_fail(err, XI_ENOMEM, "no memory for a request");
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
static enum xi_rc check_names(const struct xi_oip_call *call, struct xi_err *err)
{
    const struct xi_signature *sig = &call->session->signature;
    const struct xi_oip_request *r = call->ask;

    for (uint32_t i = 0; i < r->n_inputs; i++)
        if (find_port(sig->inputs, sig->n_inputs, r->inputs[i].name) < 0) {
            (void)xi_fail(err, XI_ETENSOR, "\"%.60s\" has no input \"%.60s\"", call->session->name,
                          r->inputs[i].name);
            return xi_hint(err, "its first input is \"%.60s\"", sig->inputs[0].name);
        }
    if (r->n_inputs != sig->n_inputs)
        return xi_fail(err, XI_ETENSOR, "%u inputs where \"%.60s\" wants %u", r->n_inputs,
                       call->session->name, sig->n_inputs);
    for (uint32_t i = 0; i < r->n_outputs; i++)
        if (find_port(sig->outputs, sig->n_outputs, r->outputs[i].name) < 0)
            return xi_fail(err, XI_ETENSOR, "\"%.60s\" has no output \"%.60s\"",
                           call->session->name, r->outputs[i].name);
    return XI_OK;
}

/* A flow takes one file, as BYTES of one element or as UINT8; sound also as its samples. */
static enum xi_rc check_flow_input(struct xi_oip_call *call, struct xi_err *err)
{
    const struct xi_session *s = call->session;
    const struct xi_oip_tensor *in = &call->ask->inputs[0];
    int samples = !s->takes_image && (in->dtype == XI_DT_INT16 || in->dtype == XI_DT_FP32);

    if (call->ask->n_inputs != 1 || strcmp(in->name, XI_OIP_FLOW_INPUT) != 0)
        return xi_fail(err, XI_ETENSOR, "\"%.60s" XI_OIP_FLOW "\" has one input, \"%s\"",
                       call->name, XI_OIP_FLOW_INPUT);
    if (in->dtype == XI_DT_BYTES && in->elements == 1)
        return XI_OK;
    if (in->dtype == XI_DT_UINT8 || samples) {
        call->want |= in->dtype == XI_DT_FP32 ? XI_INPUT_FP32 : 0;
        return XI_OK;
    }
    (void)xi_fail(err, XI_ETENSOR, "input \"%s\": %s of %" PRIu64 " elements is no file", in->name,
                  xi_dtype_name(in->dtype), in->elements);
    return xi_hint(err, "send BYTES with shape [1], or UINT8 with the file's length");
}

static enum xi_rc check_flow(struct xi_oip_call *call, struct xi_err *err)
{
    const struct xi_oip_request *r = call->ask;
    enum xi_rc rc = check_flow_input(call, err);

    for (uint32_t i = 0; rc == XI_OK && i < r->n_outputs; i++) {
        int picture = strcmp(r->outputs[i].name, XI_OIP_FLOW_PICTURE) == 0;
        if (!picture && strcmp(r->outputs[i].name, XI_OIP_FLOW_OUTPUT) != 0)
            return xi_fail(err, XI_ETENSOR, "\"%.60s" XI_OIP_FLOW "\" has no output \"%.60s\"",
                           call->name, r->outputs[i].name);
        if (picture && !call->session->draws)
            return xi_fail(err, XI_EUNSUPPORTED, "\"%.60s\" cannot answer with a picture",
                           call->name);
        if (r->outputs[i].classes != 0)
            return xi_fail(err, XI_EINVAL, "a flow's answer has no classes to rank");
        call->want |= picture ? XI_ANSWER_PICTURE : 0;
    }
    return rc;
}

/* The parameters of the request go before what the door said. */
static enum xi_rc read_parameters(struct xi_oip_call *call, struct xi_err *err)
{
    const struct xi_oip_parameters *p = &call->ask->parameters;
    int wait = 0;

    if (p->timeout_us != 0 && p->timeout_us <= TIMEOUT_MAX_US)
        call->deadline_ns = call->born_ns + p->timeout_us * 1000;
    if (p->priority != 0)
        call->priority = p->priority == 1   ? XI_PRIORITY_REALTIME
                         : p->priority == 2 ? XI_PRIORITY_NORMAL
                                            : XI_PRIORITY_BATCH;
    if (p->sequence[0] == '\0')
        return XI_OK;
    if (!xi_name_valid(p->sequence) || strlen(p->sequence) >= sizeof call->sequence.id)
        return xi_fail(err, XI_EINVAL, "sequence_id \"%.70s\" is no name of at most %d",
                       p->sequence, XI_SEQUENCE_ID_MAX);
    memcpy(call->sequence.id, p->sequence, strlen(p->sequence) + 1);
    call->sequence.flags =
        (p->sequence_start ? XI_SEQUENCE_START : 0u) | (p->sequence_end ? XI_SEQUENCE_END : 0u);
    /* Where a name has several sessions, its sequence says which. */
    struct xi_session *first = call->session;
    enum xi_rc rc = route(call, &wait, err);
    if (rc != XI_OK)
        call->session = first; /* end leaves it */
    else
        xi_session_leave(first);
    return rc;
}

enum xi_rc xi_oip_call_ready(struct xi_oip_call *call, struct xi_err *err)
{
    enum xi_rc rc = read_parameters(call, err);

    if (rc == XI_OK)
        rc = call->flow ? check_flow(call, err) : check_names(call, err);
    if (rc == XI_OK)
        rc = xi_oip_regions_take(&call->regions, call->service->regions, call->who->tenant,
                                 call->flow ? NULL : &call->session->signature, call->ask, err);
    if (rc != XI_OK || call->ask->text_bytes == 0)
        return rc;
    rc = xi_shm_take(call->service->shm, call->who->tenant,
                     call->ask->text_bytes + XI_OIP_ALIGN + call->tail_bytes, &call->text, err);
    if (rc != XI_OK)
        call->text = NULL;
    else
        call->copied += call->tail_bytes + call->regions.read_bytes;
    return rc;
}

/* Where RAW inputs begin in the text: as far behind a boundary as they were, so that what was
 * aligned stays so. */
static uint64_t tail_in_text(const struct xi_oip_call *call)
{
    return call->ask->text_bytes + call->tail % XI_OIP_ALIGN;
}

enum xi_rc xi_oip_call_join(struct xi_oip_call *call, struct xi_err *err)
{
    if (call->tail_bytes > 0)
        memcpy(call->text->data + tail_in_text(call), call->slot->data + call->tail,
               (size_t)call->tail_bytes);
    return xi_oip_regions_read(&call->regions, call->ask, call->text->data, err);
}

/* ---- the request ---- */

static void done(struct xi_request *req, enum xi_rc rc, struct xi_reply *reply,
                 const struct xi_err *err)
{
    struct xi_oip_call *call = req->owner;

    if (rc == XI_OK) {
        call->reply = *reply;
        xi_oip_results(call);
        return;
    }
    call->busy = 0;
    if (req->retry_after_s != 0)
        call->retry_after_s = req->retry_after_s;
    call->done(call, err);
}

void xi_oip_call_open(struct xi_oip_call *call)
{
    struct xi_request *req = &call->req;

    xi_request_init(call->service, req, call->session);
    req->n_parts = 0;
    req->slot = NULL;
    req->loan = NULL;
    req->done = done;
    req->owner = call;
    req->timing.born = call->born_ns;
    req->priority = call->priority;
    req->deadline_ns = call->deadline_ns;
    memcpy(req->tenant, call->who->tenant, sizeof req->tenant);
    call->busy = 1;
}

static void add_part(struct xi_oip_call *call, const struct xi_segment *segment, uint64_t at,
                     uint64_t bytes, struct xi_part part)
{
    part.mem.segment = segment->id;
    part.mem.reserved = 0;
    part.mem.offset = at;
    part.mem.bytes = bytes;
    call->req.parts[call->req.n_parts++] = part;
}

void xi_oip_call_part(struct xi_oip_call *call, uint64_t at, uint64_t bytes, struct xi_part part)
{
    add_part(call, call->slot->segment, call->slot->offset + at, bytes, part);
}

void xi_oip_call_send(struct xi_oip_call *call)
{
    struct xi_request *req = &call->req, *copy;
    struct xi_err err;

    req->want = call->want;
    req->slot = call->text != NULL ? call->text : call->slot;
    if (req->slot != NULL)
        xi_slot_get(req->slot);
    req->loan = call->regions.loan;
    call->regions.loan = NULL;
    if (call->text != NULL) { /* the request's text has been read */
        xi_slot_put(call->slot);
        call->slot = NULL;
    }
    call->session->stats.copied_bytes += call->copied;
    if (call->sequence.id[0] != '\0' &&
        xi_sequence_join(call->service->shm, req, &call->sequence, &err) != XI_OK) {
        req->retry_after_s = 1;
        xi_pool_refuse(req, &err);
        return;
    }
    copy = xi_sessions_mirror(req);
    xi_pool_submit(call->service->pool, req);
    if (copy != NULL)
        xi_pool_submit(call->service->pool, copy);
}

/* Where an input's bytes lie in the request's slot. */
static uint64_t place_of(const struct xi_oip_tensor *in, uint64_t tail)
{
    return (in->where == XI_OIP_RAW ? tail : 0) + in->offset;
}

static enum xi_rc add_tensors(struct xi_oip_call *call, const struct xi_slot *slot, uint64_t tail,
                              struct xi_err *err)
{
    const struct xi_signature *sig = &call->session->signature;

    for (uint32_t i = 0; i < call->ask->n_inputs; i++) {
        const struct xi_oip_tensor *in = &call->ask->inputs[i];
        int port = find_port(sig->inputs, sig->n_inputs, in->name);
        struct xi_part part = {
            .kind = XI_PART_TENSOR, .index = (uint32_t)port, .dtype = in->dtype, .rank = in->rank};

        if (port < 0)
            return xi_fail(err, XI_EAGAIN, "the session changed while this request was read");
        memcpy(part.dims, in->dims, (size_t)in->rank * sizeof part.dims[0]);
        uint8_t *data = NULL;
        if (xi_oip_regions_lent(&call->regions, i)) {
            add_part(call, call->regions.loan->inputs[i], call->regions.input_at[i], in->bytes,
                     part);
        } else if (slot != NULL) {
            data = slot->data + place_of(in, tail);
            add_part(call, slot->segment, slot->offset + place_of(in, tail), in->bytes, part);
        } else {
            return xi_fail(err, XI_ETENSOR, "input \"%.60s\" has no bytes", in->name);
        }
        const struct xi_tensor t = xi_tensor_make(in->dtype, in->dims, in->rank, data, in->bytes);
        if (xi_port_check(&sig->inputs[port], &t, err) != XI_OK)
            return err->rc;
    }
    return XI_OK;
}

/* BYTES: four bytes of length, then the file. */
static enum xi_rc add_file(struct xi_oip_call *call, const struct xi_slot *slot, uint64_t tail,
                           struct xi_err *err)
{
    const struct xi_oip_tensor *in = &call->ask->inputs[0];
    uint64_t at = place_of(in, tail), bytes = in->bytes;

    if (slot == NULL)
        return xi_fail(err, XI_ETENSOR, "input \"%s\" has no bytes", in->name);
    if (in->dtype == XI_DT_BYTES) {
        enum xi_rc rc = xi_bytes_check(slot->data + at, bytes, 1, err);
        if (rc != XI_OK)
            return xi_wrap(err, rc, "input \"%s\"", in->name);
        at += 4;
        bytes -= 4;
    }
    add_part(call, slot->segment, slot->offset + at, bytes,
             (struct xi_part){.kind = XI_PART_BYTES});
    return XI_OK;
}

void xi_oip_call_submit(struct xi_oip_call *call)
{
    const struct xi_slot *slot = call->text != NULL ? call->text : call->slot;
    uint64_t tail = call->text != NULL ? tail_in_text(call) : call->tail;
    struct xi_err err = {0};
    enum xi_rc rc;

    xi_oip_call_open(call);
    rc = call->flow ? add_file(call, slot, tail, &err) : add_tensors(call, slot, tail, &err);
    if (rc != XI_OK)
        xi_request_finish(&call->req, rc, NULL, &err);
    else
        xi_oip_call_send(call);
}

void xi_oip_call_cancel(struct xi_oip_call *call)
{
    struct xi_err err;

    if (call->busy) {
        if (call->req.state != XI_REQ_FINISHED) /* else its answer is being made */
            xi_pool_cancel(call->service->pool, &call->req);
        return;
    }
    xi_oip_call_open(call);
    (void)xi_fail(&err, XI_ECANCELLED, "the client went away");
    xi_request_finish(&call->req, XI_ECANCELLED, NULL, &err);
}
