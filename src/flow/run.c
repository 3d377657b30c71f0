#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "flow/image_decode.h"
#include "flow/step.h"

/* Memory over this is given back when the next request needs less than a quarter of it. */
static const size_t keep_bytes = 32 * XI_MIB;

enum xi_rc xi_flow_need(struct xi_flow_buf *buf, uint64_t bytes, struct xi_err *err)
{
    if (bytes > XI_FLOW_VALUE_MAX)
        return xi_fail(err, XI_EFLOW, "a value of %llu bytes, the limit is %llu",
                       (unsigned long long)bytes, XI_FLOW_VALUE_MAX);
    int too_large = buf->room > keep_bytes && bytes < buf->room / 4;
    if (bytes <= buf->room && buf->data != NULL && !too_large)
        return XI_OK;
    free(buf->data);
    *buf = (struct xi_flow_buf){0};
    /* Whole vectors, so that kernels may read (never write) a little past the end. */
    size_t room = ((size_t)bytes + 64 + 63) & ~(size_t)63;
    buf->data = aligned_alloc(64, room);
    if (buf->data == NULL)
        return xi_fail(err, XI_ENOMEM, "no memory for a value of %llu bytes",
                       (unsigned long long)bytes);
    buf->room = room - 64;
    return XI_OK;
}

enum xi_rc xi_flow_make_tensor(struct xi_flow_value *v, enum xi_dtype dtype, const int64_t *dims,
                               int rank, struct xi_err *err)
{
    uint64_t bytes = 0;
    enum xi_rc rc = xi_shape_bytes(dtype, dims, rank, &bytes, err);

    if (rc == XI_OK && v->place.data != NULL && v->place.dtype == (uint32_t)dtype &&
        v->place.rank == rank && memcmp(v->place.dims, dims, (size_t)rank * sizeof *dims) == 0) {
        v->tensor = v->place;
        return XI_OK;
    }
    if (rc == XI_OK)
        rc = xi_flow_need(&v->buf, bytes, err);
    if (rc == XI_OK)
        v->tensor = xi_tensor_make(dtype, dims, rank, v->buf.data, bytes);
    return rc;
}

enum xi_rc xi_flow_want(const struct xi_flow_run *run, uint16_t slot, enum xi_dtype dtype,
                        struct xi_err *err)
{
    uint32_t has = run->values[slot].tensor.dtype;

    if (has == (uint32_t)dtype)
        return XI_OK;
    return xi_fail(err, XI_EFLOW, "\"%.60s\" is %s, wanted is %s", xi_slot_name(run->flow, slot),
                   xi_dtype_name((enum xi_dtype)has), xi_dtype_name(dtype));
}

uint64_t xi_tensor_elements(const struct xi_tensor *t)
{
    uint64_t n = 1;

    for (int i = 0; i < t->rank; i++)
        n *= (uint64_t)t->dims[i];
    return n;
}

struct xi_flow_run *xi_flow_run_new(const struct xi_flow *flow)
{
    struct xi_flow_run *run = calloc(1, sizeof *run);

    if (run == NULL)
        return NULL;
    run->flow = flow;
    run->values = calloc(flow->n_slots, sizeof *run->values);
    run->decoder = xi_image_decoder_new();
    if (run->values == NULL || run->decoder == NULL) {
        xi_flow_run_free(run);
        return NULL;
    }
    return run;
}

void xi_flow_run_free(struct xi_flow_run *run)
{
    if (run == NULL)
        return;
    for (uint32_t i = 0; run->values != NULL && i < run->flow->n_slots; i++)
        free(run->values[i].buf.data);
    for (int i = 0; i < XI_SCRATCH_COUNT; i++)
        free(run->scratch[i].data);
    xi_image_decoder_free(run->decoder);
    free(run->values);
    free(run);
}

/* Who is at fault keeps its code: the caller's picture is EIMAGE, an engine's failure its own. */
static enum xi_rc run_step(struct xi_flow_run *run, const struct xi_flow_step *step,
                           struct xi_err *err)
{
    enum xi_rc rc = step->kind->run(run, step, err);

    if (rc == XI_OK || rc == XI_EIMAGE || xi_infer_model(step) != NULL)
        return rc;
    if (rc == XI_EINVAL)
        rc = XI_EFLOW;
    return xi_wrap(err, rc, "step %u (%s)", step->index, step->kind->op);
}

static enum xi_rc run_steps(struct xi_flow_run *run, uint32_t from, uint32_t to, struct xi_err *err)
{
    const struct xi_flow *flow = run->flow;

    for (uint32_t i = from; i < to; i++) {
        if (&flow->steps[i] == flow->draw)
            continue;
        enum xi_rc rc = run_step(run, &flow->steps[i], err);
        if (rc != XI_OK)
            return rc;
    }
    return XI_OK;
}

static enum xi_rc begin(struct xi_flow_run *run, const struct xi_flow_engine *engine,
                        const void *input, size_t bytes, unsigned want, struct xi_err *err)
{
    if ((want & XI_ANSWER_PICTURE) != 0 && run->flow->draw == NULL)
        return xi_fail(err, XI_EUNSUPPORTED, "this package's flow has no step that draws");
    run->engine = engine;
    run->input = input;
    run->bytes = bytes;
    run->want = want;
    run->infer_ns = run->infer_started_ns = 0;
    return XI_OK;
}

static enum xi_rc answer(struct xi_flow_run *run, struct xi_str *json, struct xi_str *picture,
                         struct xi_err *err)
{
    enum xi_rc rc = XI_OK;

    run->picture = picture;
    if ((run->want & (XI_ANSWER_JSON | XI_ANSWER_TENSORS)) != 0)
        rc = xi_flow_answer(run, json, err);
    if (rc == XI_OK && (run->want & XI_ANSWER_PICTURE) != 0)
        rc = run_step(run, run->flow->draw, err);
    return rc;
}

static void tell_timing(const struct xi_flow_run *run, uint64_t start, uint64_t end,
                        struct xi_flow_timing *timing)
{
    if (timing == NULL)
        return;
    uint64_t infer = run->infer_started_ns ? run->infer_started_ns : end;
    timing->pre_ns = infer - start;
    timing->infer_ns = run->infer_ns;
    timing->post_ns = end - infer - run->infer_ns;
}

enum xi_rc xi_flow_execute(struct xi_flow_run *run, const struct xi_flow_engine *engine,
                           const void *input, size_t bytes, unsigned want, struct xi_str *json,
                           struct xi_str *picture, struct xi_flow_timing *timing,
                           struct xi_err *err)
{
    uint64_t start = xi_now_ns();
    enum xi_rc rc = begin(run, engine, input, bytes, want, err);

    if (rc != XI_OK)
        return rc;
    rc = run_steps(run, 0, run->flow->n_steps, err);
    if (rc == XI_OK)
        rc = answer(run, json, picture, err);
    tell_timing(run, start, xi_now_ns(), timing);
    return rc;
}

/* ---- in pieces ---- */

int xi_flow_in_pieces(const struct xi_flow *flow)
{
    return flow->model != NULL;
}

const char *xi_flow_model(const struct xi_flow *flow)
{
    return flow->model != NULL ? xi_infer_model(flow->model) : NULL;
}

void xi_flow_place(struct xi_flow_run *run, uint32_t index, const struct xi_tensor *where)
{
    XI_ASSERT(run->flow->model != NULL && index < run->flow->model->n_in);
    run->values[run->flow->model->in[index]].place = *where;
}

enum xi_rc xi_flow_pre(struct xi_flow_run *run, const void *input, size_t bytes, unsigned want,
                       struct xi_err *err)
{
    const struct xi_flow_step *model = run->flow->model;
    enum xi_rc rc = begin(run, NULL, input, bytes, want, err);

    if (rc == XI_OK)
        rc = run_steps(run, 0, model->index, err);
    for (uint32_t i = 0; i < model->n_in; i++)
        run->values[model->in[i]].place.data = NULL;
    return rc;
}

uint32_t xi_flow_inputs(const struct xi_flow_run *run, struct xi_tensor ret[XI_TENSORS_MAX])
{
    const struct xi_flow_step *model = run->flow->model;

    for (uint32_t i = 0; i < model->n_in; i++)
        ret[i] = run->values[model->in[i]].tensor;
    return model->n_in;
}

enum xi_rc xi_flow_outputs(struct xi_flow_run *run, const struct xi_tensor *outputs, uint32_t n,
                           int keep, struct xi_err *err)
{
    const struct xi_flow_step *model = run->flow->model;

    if (n != model->n_out)
        return xi_fail(err, XI_EFLOW, "the model has %u outputs, the flow takes %u", n,
                       model->n_out);
    return xi_infer_take(run, model, outputs, keep, err);
}

enum xi_rc xi_flow_post(struct xi_flow_run *run, struct xi_str *json, struct xi_str *picture,
                        struct xi_err *err)
{
    const struct xi_flow *flow = run->flow;
    enum xi_rc rc = run_steps(run, flow->model->index + 1, flow->n_steps, err);

    return rc == XI_OK ? answer(run, json, picture, err) : rc;
}
