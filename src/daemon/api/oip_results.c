#include "daemon/api/oip_results.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "wire/json_pull.h"

#define MAKE_ON_LOOP (256 * XI_KIB) /* bytes that are looked at or copied: about 100 µs */

const struct xi_part *xi_oip_find_part(const struct xi_reply *r, uint32_t kind, uint32_t *ret_i)
{
    for (uint32_t i = 0; i < r->done.n_parts; i++)
        if (r->parts[i].kind == kind) {
            *ret_i = i;
            return &r->parts[i];
        }
    return NULL;
}

enum xi_rc xi_oip_fragment(const struct xi_reply *reply, uint32_t i, struct xi_str *out,
                           struct xi_err *err)
{
    uint64_t n = reply->parts[i].mem.bytes;
    struct xi_json_pull j;
    enum xi_json_token t;
    size_t at = out->len;

    if (n > XI_FRAGMENT_MAX)
        return xi_fail(err, XI_EENGINE, "the flow's answer has %" PRIu64 " bytes of JSON", n);
    xi_str_add(out, xi_reply_data(reply, i), (size_t)n);
    if (out->failed)
        return xi_str_check(out, err, "answer");
    xi_json_pull_init(&j, out->data + at, (size_t)n);
    do
        t = xi_json_pull_next(&j);
    while (t != XI_TOKEN_ERROR && t != XI_TOKEN_END);
    if (t == XI_TOKEN_ERROR)
        return xi_fail(err, XI_EENGINE, "the flow's answer is no JSON: %.100s", j.err.msg);
    return XI_OK;
}

/* ---- which ---- */

static void choose(struct xi_oip_call *call, uint32_t part, const char *name,
                   const struct xi_oip_output *wanted)
{
    const struct xi_part *p = &call->reply.parts[part];
    struct xi_oip_result *r = &call->results[call->n_results++];
    size_t at = call->names.len;

    /* Never moved: the first one reserves all of its room. */
    xi_str_add(&call->names, name, strlen(name) + 1);
    r->name = call->names.failed ? "" : call->names.data + at;
    r->wanted = wanted;
    r->part = part;
    r->region = wanted != NULL && wanted->region.name[0] != '\0' ? &wanted->region : NULL;
    r->binary = call->binary_all || (wanted != NULL ? wanted->binary
                                     : call->asked  ? call->ask->parameters.binary_output
                                                    : 0);
    if (r->region != NULL)
        r->binary = 0;
    r->tensor = xi_tensor_make((enum xi_dtype)p->dtype, p->dims, p->rank,
                               (void *)(uintptr_t)xi_reply_data(&call->reply, part), p->mem.bytes);
}

/* What a part is called in the answer; NULL: it is not in it. */
static const char *name_of(const struct xi_oip_call *call, const struct xi_part *p)
{
    const struct xi_signature *sig = &call->session->signature;

    if (!call->flow)
        return p->kind != XI_PART_TENSOR   ? NULL
               : p->index < sig->n_outputs ? sig->outputs[p->index].name
                                           : "";
    return p->kind == XI_PART_JSON      ? XI_OIP_FLOW_OUTPUT
           : p->kind == XI_PART_PICTURE ? XI_OIP_FLOW_PICTURE
                                        : NULL;
}

static void choose_all(struct xi_oip_call *call)
{
    const struct xi_oip_request *ask = call->asked ? call->ask : NULL;

    for (uint32_t i = 0; i < call->reply.done.n_parts; i++) {
        const char *name = name_of(call, &call->reply.parts[i]);
        const struct xi_oip_output *wanted = NULL;
        if (name == NULL)
            continue;
        for (uint32_t k = 0; ask != NULL && wanted == NULL && k < ask->n_outputs; k++)
            if (strcmp(ask->outputs[k].name, name) == 0)
                wanted = &ask->outputs[k];
        if (wanted != NULL || ask == NULL || ask->n_outputs == 0)
            choose(call, i, name, wanted);
    }
}

/* ---- what has to be made ---- */

/* Bytes of BYTES elements: four of length, then themselves. */
static size_t open_element(struct xi_str *s)
{
    xi_str_add(s, "\0\0\0", 4);
    return s->len;
}

static void close_element(struct xi_str *s, size_t began)
{
    uint32_t n = (uint32_t)(s->len - began);

    if (!s->failed)
        memcpy(s->data + began - 4, &n, sizeof n);
}

static double element(const struct xi_tensor *t, uint64_t i)
{
    const uint8_t *p = (const uint8_t *)t->data + i * xi_dtype_bytes((enum xi_dtype)t->dtype);
    size_t n = xi_dtype_bytes((enum xi_dtype)t->dtype);
    uint64_t u = 0;
    uint32_t bits;
    float f;
    double d;

    memcpy(&u, p, n);
    switch (t->dtype) {
    case XI_DT_FP64:
        memcpy(&d, p, sizeof d);
        return d;
    case XI_DT_FP32:
        memcpy(&f, p, sizeof f);
        return (double)f;
    case XI_DT_FP16:
        return (double)xi_half_to_float((uint16_t)u);
    case XI_DT_BF16:
        bits = (uint32_t)u << 16;
        memcpy(&f, &bits, sizeof f);
        return (double)f;
    case XI_DT_INT8:
    case XI_DT_INT16:
    case XI_DT_INT32:
    case XI_DT_INT64:
        return (double)((int64_t)(u << (64 - 8 * n)) >> (64 - 8 * n));
    default:
        return (double)u;
    }
}

static int is_real(uint32_t dtype)
{
    return dtype == XI_DT_FP64 || dtype == XI_DT_FP32 || dtype == XI_DT_FP16 || dtype == XI_DT_BF16;
}

struct best {
    double score;
    uint64_t index;
};

/* a stands before b: a higher score, then a lower index; what is no number comes last. */
static int before(struct best a, struct best b)
{
    if (isnan(a.score) || isnan(b.score))
        return isnan(a.score) == isnan(b.score) ? a.index < b.index : isnan(b.score);
    return a.score != b.score ? a.score > b.score : a.index < b.index;
}

/* A heap whose top is the worst of those that are kept. */
static void sink(struct best *heap, uint32_t n, uint32_t i)
{
    for (uint32_t child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && before(heap[child], heap[child + 1]))
            child++;
        if (!before(heap[i], heap[child]))
            return;
        struct best t = heap[i];
        heap[i] = heap[child];
        heap[child] = t;
    }
}

/* The k best of `each` elements from `first` on, best first. */
static void rank(const struct xi_tensor *t, uint64_t first, uint64_t each, struct best *heap,
                 uint32_t k)
{
    uint32_t i;

    for (i = 0; i < k; i++)
        heap[i] = (struct best){element(t, first + i), i};
    for (i = k; i-- > 0;)
        sink(heap, k, i);
    for (uint64_t at = k; at < each; at++) {
        struct best one = {element(t, first + at), at};
        if (!before(one, heap[0]))
            continue;
        heap[0] = one;
        sink(heap, k, 0);
    }
    for (i = k; i-- > 1;) {
        struct best worst = heap[0];
        heap[0] = heap[i];
        heap[i] = worst;
        sink(heap, i, 0);
    }
}

/* Triton's shape: what stands behind the first dimension are the classes of a row. */
static enum xi_rc classes(struct xi_oip_call *call, struct xi_oip_result *r, struct xi_err *err)
{
    struct xi_tensor *t = &r->tensor;
    uint64_t rows = t->rank > 1 ? (uint64_t)t->dims[0] : 1, elements = 0;
    int real = is_real(t->dtype);
    size_t at = call->made.len;

    if (xi_dtype_bytes((enum xi_dtype)t->dtype) == 0)
        return xi_fail(err, XI_EINVAL, "output \"%.60s\": BYTES cannot be ranked", r->name);
    if (xi_shape_elements(t->dims, t->rank, &elements, err) != XI_OK)
        return err->rc;
    uint64_t each = rows ? elements / rows : 0;
    uint32_t k = r->wanted->classes < each ? r->wanted->classes : (uint32_t)each;
    struct best *heap = k ? malloc(k * sizeof *heap) : NULL;
    if (k > 0 && heap == NULL)
        return xi_fail(err, XI_ENOMEM, "no memory for %u classes", k);
    for (uint64_t row = 0; k > 0 && row < rows && !call->made.failed; row++) {
        rank(t, row * each, each, heap, k);
        for (uint32_t i = 0; i < k; i++) {
            size_t began = open_element(&call->made);
            xi_str_printf(&call->made, real ? "%f:%" PRIu64 : "%.0f:%" PRIu64, heap[i].score,
                          heap[i].index);
            close_element(&call->made, began);
        }
    }
    free(heap);
    int64_t dims[2] = {t->rank > 1 ? (int64_t)rows : (int64_t)k, (int64_t)k};
    *t = xi_tensor_make(XI_DT_BYTES, dims, t->rank > 1 ? 2 : 1, NULL, call->made.len - at);
    return XI_OK;
}

/* A flow's JSON or picture as one element of BYTES. */
static enum xi_rc file(struct xi_oip_call *call, struct xi_oip_result *r, struct xi_err *err)
{
    const int64_t one = 1;
    size_t at = call->made.len, began = open_element(&call->made);
    enum xi_rc rc = XI_OK;

    if (call->reply.parts[r->part].kind == XI_PART_JSON)
        rc = xi_oip_fragment(&call->reply, r->part, &call->made, err);
    else
        xi_str_add(&call->made, r->tensor.data, (size_t)r->tensor.bytes);
    close_element(&call->made, began);
    r->tensor = xi_tensor_make(XI_DT_BYTES, &one, 1, NULL, call->made.len - at);
    return rc;
}

/* It goes to the client's own memory unless the host wrote it there. */
static enum xi_rc to_region(struct xi_oip_call *call, struct xi_oip_result *r, struct xi_err *err)
{
    enum xi_rc rc = XI_OK;

    if (r->tensor.data != NULL)
        rc = xi_oip_regions_write(&call->regions, call->ask,
                                  (uint32_t)(r->wanted - call->ask->outputs), r->tensor.data,
                                  r->tensor.bytes, err);
    r->tensor.data = NULL;
    return rc;
}

static int is_made(const struct xi_oip_call *call, const struct xi_oip_result *r)
{
    return call->flow || (r->wanted != NULL && r->wanted->classes > 0);
}

/* Any thread. */
static void make(struct xi_work *w)
{
    struct xi_oip_call *call = w->data;
    enum xi_rc rc = XI_OK;
    uint64_t at = 0;

    xi_str_clear(&call->made);
    for (unsigned i = 0; rc == XI_OK && i < call->n_results; i++)
        if (is_made(call, &call->results[i]))
            rc = call->flow ? file(call, &call->results[i], &call->work_err)
                            : classes(call, &call->results[i], &call->work_err);
    if (rc == XI_OK)
        rc = xi_str_check(&call->made, &call->work_err, "answer");
    /* Where they lie is known now that the memory moves no more. */
    for (unsigned i = 0; rc == XI_OK && i < call->n_results; i++)
        if (is_made(call, &call->results[i])) {
            call->results[i].tensor.data = call->made.data + at;
            at += call->results[i].tensor.bytes;
        }
    for (unsigned i = 0; rc == XI_OK && i < call->n_results; i++)
        if (call->results[i].region != NULL)
            rc = to_region(call, &call->results[i], &call->work_err);
    call->work_rc = rc;
}

static void made(struct xi_work *w)
{
    struct xi_oip_call *call = w->data;

    call->busy = 0;
    call->done(call, call->work_rc == XI_OK ? NULL : &call->work_err);
}

void xi_oip_results(struct xi_oip_call *call)
{
    uint64_t bytes = 0;
    unsigned n = 0;

    call->n_results = 0;
    xi_str_clear(&call->names);
    (void)xi_str_reserve(&call->names, (size_t)call->reply.done.n_parts * XI_TENSOR_NAME_MAX);
    choose_all(call);
    for (unsigned i = 0; i < call->n_results; i++)
        if (is_made(call, &call->results[i]) || call->results[i].region != NULL) {
            bytes += call->results[i].tensor.data != NULL ? call->results[i].tensor.bytes : 0;
            n++;
        }
    call->work_rc = XI_OK;
    call->work.data = call;
    if (n > 0 && bytes > MAKE_ON_LOOP) {
        xi_work_queue(call->service->loop, &call->work, make, made);
        return;
    }
    if (n > 0)
        make(&call->work);
    made(&call->work);
}
