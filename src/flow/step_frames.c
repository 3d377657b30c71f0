/* frames: FP32 tensor [n] → FP32 tensor [k, context + size]: pieces of `size`, each with the
 * `context` samples that lie before it. A request that goes on in a sequence brings the context of
 * its first piece itself; at a beginning there is silence before it. */
#include <string.h>

#include "base/json.h"
#include "flow/steps.h"

enum { SIZE_MAX_SAMPLES = 1 << 20 };

struct frames {
    uint32_t size, context;
};

static enum xi_rc parse(struct xi_flow_parser *p, const json_t *obj, void *params,
                        struct xi_err *err)
{
    struct frames *self = params;
    int64_t size = 0, context = 0;
    enum xi_rc rc = xi_json_int(obj, "", "size", 1, 1, SIZE_MAX_SAMPLES, &size, err);

    (void)p;
    if (rc == XI_OK) /* no longer than a piece, so that memory at most doubles */
        rc = xi_json_int(obj, "", "context", 0, 0, size - 1, &context, err);
    self->size = (uint32_t)size;
    self->context = (uint32_t)context;
    return rc;
}

static enum xi_rc check(const struct xi_flow *flow, const struct xi_flow_step *step,
                        struct xi_flow_type *types, struct xi_err *err)
{
    const struct frames *self = step->params;
    const struct xi_flow_type *in = &types[step->in[0]];
    int64_t dims[2] = {-1, (int64_t)self->context + self->size};
    enum xi_rc rc = xi_want_tensor(flow, types, step->in[0], XI_DT_FP32, err);

    if (rc == XI_OK && in->rank >= 0 && in->rank != 1)
        rc = xi_fail(err, XI_EFLOW, "\"%.60s\" has rank %d, wanted is 1",
                     xi_slot_name(flow, step->in[0]), (int)in->rank);
    types[step->out[0]] = xi_type_tensor(XI_DT_FP32, 2, dims);
    return rc;
}

/* How many samples are context that was sent, and how many pieces follow. A piece that is cut short
 * in the middle of a sequence would shift all that comes after it. */
static enum xi_rc measure(const struct frames *self, uint64_t n, int goes_on, uint64_t *ret_sent,
                          uint64_t *ret_pieces, struct xi_err *err)
{
    *ret_sent = goes_on ? self->context : 0;
    if (n > *ret_sent && (!goes_on || (n - *ret_sent) % self->size == 0)) {
        *ret_pieces = (n - *ret_sent + self->size - 1) / self->size;
        return XI_OK;
    }
    if (!goes_on)
        return xi_fail(err, XI_ETENSOR, "there are no samples");
    (void)xi_fail(err, XI_ETENSOR,
                  "%llu samples, a request that goes on has %u, and any number of pieces of %u",
                  (unsigned long long)n, self->context, self->size);
    return xi_hint(err, "begin with the last %u samples of the request before", self->context);
}

static enum xi_rc run(struct xi_flow_run *r, const struct xi_flow_step *step, struct xi_err *err)
{
    const struct frames *self = step->params;
    const struct xi_tensor *in = &r->values[step->in[0]].tensor;
    struct xi_flow_value *v = &r->values[step->out[0]];
    uint64_t n = xi_tensor_elements(in), sent = 0, pieces = 0;
    uint64_t row = (uint64_t)self->context + self->size;
    enum xi_rc rc = xi_flow_want(r, step->in[0], XI_DT_FP32, err);

    if (rc == XI_OK)
        rc = measure(self, n, (r->want & XI_INPUT_GOES_ON) != 0, &sent, &pieces, err);
    int64_t dims[2] = {(int64_t)pieces, (int64_t)row};
    if (rc == XI_OK)
        rc = xi_flow_make_tensor(v, XI_DT_FP32, dims, 2, err);
    if (rc != XI_OK)
        return rc;
    const float *src = in->data;
    float *dst = v->tensor.data;
    for (uint64_t k = 0; k < pieces; k++, dst += row) {
        uint64_t from = sent + k * self->size; /* of the piece itself */
        uint64_t before = from < self->context ? from : self->context;
        uint64_t here = n - from < self->size ? n - from : self->size;
        memset(dst, 0, row * sizeof *dst);
        memcpy(dst + self->context - before, src + from - before, (before + here) * sizeof *dst);
    }
    return XI_OK;
}

void xi_frames_describe(const struct xi_flow *flow, struct xi_str *json)
{
    uint32_t rate = 0;

    for (uint32_t i = 0; i < flow->n_steps; i++) {
        const struct xi_flow_step *step = &flow->steps[i];
        const struct frames *self = step->params;
        if (xi_audio_rate(step) > 0)
            rate = xi_audio_rate(step);
        if (step->kind != &xi_step_frames)
            continue;
        xi_str_printf(json, ",\"frames\":{\"size\":%u,\"context\":%u", self->size, self->context);
        if (rate > 0)
            xi_str_printf(json, ",\"rate\":%u", rate);
        xi_str_puts(json, "}");
        return;
    }
}

static const char *const keys[] = {"op", "in", "out", "size", "context", NULL};

const struct xi_step_kind xi_step_frames = {
    .op = "frames",
    .keys = keys,
    .min_in = 1,
    .max_in = 1,
    .min_out = 1,
    .max_out = 1,
    .params_bytes = sizeof(struct frames),
    .parse = parse,
    .check = check,
    .run = run,
};
