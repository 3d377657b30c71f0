/* runner_run.c: one request. Tensors go straight to model main, its fixed-size outputs are written
 * by the engine where they are wanted; everything else goes through the flow. */
#include <string.h>

#include "base/clock.h"
#include "host/runner_impl.h"
#include "ipc/messages.h"

int xi_runner_find_model(const struct xi_runner *r, const char *name)
{
    for (uint32_t i = 0; i < r->n_models; i++)
        if (strcmp(r->models[i].name, name) == 0)
            return (int)i;
    return -1;
}

static enum xi_rc engine_fail(struct xi_runner_lane *lane, int code, const char *text,
                              struct xi_err *err)
{
    if (xi_plugin_is_broken(code))
        lane->end = XI_EXIT_ENGINE_BROKEN;
    else if (code == XI_ENGINE_DEVICE_LOST)
        lane->end = XI_EXIT_DEVICE_LOST;
    enum xi_rc rc = xi_plugin_fail(err, code, text);
    if (rc == XI_EMODEL) /* it was loaded, so this call is what is refused */
        err->rc = rc = XI_EUNSUPPORTED;
    return rc;
}

/* XI_BIND_… in *ret_how. */
static enum xi_rc bind(struct xi_runner_lane *lane, uint32_t model, int direction, uint32_t port,
                       const struct xi_tensor *tensor, int *ret_how, struct xi_err *err)
{
    char text[XI_ENGINE_ERR_BYTES] = "";
    int code = lane->runner->table->bind(lane->instances[model].request, direction, port, tensor,
                                         text, sizeof text);

    if (code != XI_BIND_IN_PLACE && code != XI_BIND_COPIES)
        return engine_fail(lane, code, text, err);
    *ret_how = code;
    return XI_OK;
}

static enum xi_rc unbind_one(struct xi_runner_lane *lane, uint32_t model, uint32_t i,
                             struct xi_err *err)
{
    struct xi_runner_instance *in = &lane->instances[model];
    int how;

    if (!(in->bound >> i & 1))
        return XI_OK;
    enum xi_rc rc =
        bind(lane, model, XI_OUTPUT, lane->runner->models[model].out_map[i], NULL, &how, err);
    if (rc == XI_OK)
        in->bound &= ~(1ull << i);
    return rc;
}

enum xi_rc xi_runner_unbind(struct xi_runner_lane *lane, uint32_t model, struct xi_err *err)
{
    const struct xi_runner_model *m = &lane->runner->models[model];
    enum xi_rc rc = XI_OK;

    for (uint32_t i = 0; rc == XI_OK && lane->instances[model].bound != 0 && i < xi_runner_n_out(m);
         i++)
        rc = unbind_one(lane, model, i, err);
    return rc;
}

enum xi_rc xi_runner_infer(struct xi_runner_lane *lane, uint32_t model,
                           const struct xi_tensor *inputs, uint32_t n_inputs, struct xi_err *err)
{
    const struct xi_runner_model *m = &lane->runner->models[model];

    if (n_inputs != xi_runner_n_in(m))
        return xi_fail(err, XI_ETENSOR, "%u inputs where the model wants %u", n_inputs,
                       xi_runner_n_in(m));
    for (uint32_t i = 0; i < n_inputs; i++) {
        enum xi_rc rc = xi_port_check(&m->signature.inputs[i], &inputs[i], err);
        if (rc != XI_OK)
            return rc;
    }
    return xi_runner_infer_checked(lane, model, inputs, err);
}

enum xi_rc xi_runner_infer_checked(struct xi_runner_lane *lane, uint32_t model,
                                   const struct xi_tensor *inputs, struct xi_err *err)
{
    const struct xi_runner_model *m = &lane->runner->models[model];
    char text[XI_ENGINE_ERR_BYTES] = "";
    int how = XI_BIND_IN_PLACE;

    for (uint32_t i = 0; i < xi_runner_n_in(m); i++) {
        enum xi_rc rc = bind(lane, model, XI_INPUT, m->in_map[i], &inputs[i], &how, err);
        if (rc != XI_OK)
            return rc;
        if (how == XI_BIND_COPIES)
            lane->copied_bytes += inputs[i].bytes;
    }
    int code = lane->runner->table->run(lane->instances[model].request, lane->deadline_ns, text,
                                        sizeof text);
    return code == XI_ENGINE_OK ? XI_OK : engine_fail(lane, code, text, err);
}

/* What an engine says of an output is checked before anybody reads that many bytes. */
static enum xi_rc check_output(const struct xi_tensor *t, struct xi_err *err)
{
    uint64_t want = 0;

    if (t->memory != XI_MEM_HOST || (t->data == NULL && t->bytes > 0))
        return xi_fail(err, XI_EENGINE, "the engine's output is not in host memory");
    if (t->rank < 0 || t->rank > XI_MAX_RANK)
        return xi_fail(err, XI_EENGINE, "the engine's output has rank %d", (int)t->rank);
    if (t->dtype != XI_DT_BYTES &&
        (xi_shape_bytes((enum xi_dtype)t->dtype, t->dims, t->rank, &want, err) != XI_OK ||
         want != t->bytes))
        return xi_fail(err, XI_EENGINE, "the engine's output of %llu bytes does not fit its shape",
                       (unsigned long long)t->bytes);
    return XI_OK;
}

enum xi_rc xi_runner_output(struct xi_runner_lane *lane, uint32_t model, uint32_t index,
                            struct xi_tensor *ret, struct xi_err *err)
{
    const struct xi_runner_model *m = &lane->runner->models[model];
    char text[XI_ENGINE_ERR_BYTES] = "";

    *ret = (struct xi_tensor){.size = sizeof *ret, .fd = -1};
    int code = lane->runner->table->output(lane->instances[model].request, m->out_map[index], ret,
                                           text, sizeof text);
    return code == XI_ENGINE_OK ? check_output(ret, err) : engine_fail(lane, code, text, err);
}

/* ---- tensors in, tensors out ---- */

/* Inputs in the order of the model, each exactly once. */
enum xi_rc xi_runner_sort_inputs(const struct xi_runner_model *m, const struct xi_run_request *q,
                                 struct xi_tensor inputs[XI_TENSORS_MAX], struct xi_err *err)
{
    const struct xi_signature *s = &m->signature;
    uint32_t n = q->n_inputs - q->n_states;
    uint64_t seen = 0;

    for (uint32_t i = 0; i < n; i++) {
        const struct xi_run_input *in = &q->inputs[i];
        if (in->kind != XI_PART_TENSOR)
            return xi_fail(err, XI_ETENSOR, "input %u is no tensor, others are", i);
        if (in->index >= s->n_inputs || (seen >> in->index & 1))
            return xi_fail(err, XI_ETENSOR, "input %u %s", in->index,
                           in->index >= s->n_inputs ? "does not exist" : "is given twice");
        seen |= 1ull << in->index;
        inputs[in->index] = in->tensor;
    }
    for (uint32_t i = 0; i < s->n_inputs; i++)
        if (!(seen >> i & 1))
            return xi_fail(err, XI_ETENSOR, "input \"%.60s\" is missing", s->inputs[i].name);
    return XI_OK;
}

enum xi_rc xi_runner_add_states(const struct xi_runner_model *m, const struct xi_tensor *came,
                                uint32_t n, int start, struct xi_tensor inputs[XI_TENSORS_MAX],
                                struct xi_err *err)
{
    if (n != (start ? 0 : m->n_states))
        return xi_fail(err, XI_ETENSOR, "%u state tensors where the model has %u%s", n, m->n_states,
                       start ? ", at the start of a sequence" : "");
    for (uint32_t k = 0; k < m->n_states; k++) {
        const struct xi_port_spec *p = &m->signature.inputs[m->signature.n_inputs + k];
        inputs[m->signature.n_inputs + k] =
            start ? xi_tensor_make(p->dtype, p->dims, p->rank, m->initial[k], m->state_bytes[k])
                  : came[k];
    }
    return XI_OK;
}

static enum xi_rc all_inputs(const struct xi_runner_model *m, const struct xi_run_request *q,
                             struct xi_tensor inputs[XI_TENSORS_MAX], struct xi_err *err)
{
    struct xi_tensor states[XI_TENSORS_MAX];
    uint32_t first = q->n_inputs - q->n_states;
    enum xi_rc rc = xi_runner_sort_inputs(m, q, inputs, err);

    if (rc != XI_OK || (m->n_states == 0 && q->n_states == 0))
        return rc;
    for (uint32_t k = 0; k < q->n_states; k++)
        states[k] = q->inputs[first + k].tensor;
    return xi_runner_add_states(m, states, q->n_states, q->start, inputs, err);
}

void xi_runner_give_all(const struct xi_run_sink *sink, struct xi_run_result *ret)
{
    for (uint32_t i = 0; i < ret->n_outputs; i++)
        if (ret->outputs[i].place.data != NULL)
            sink->give(sink->ctx, &ret->outputs[i].place);
    ret->n_outputs = ret->n_states = 0;
}

enum xi_rc xi_runner_take_place(const struct xi_runner_model *m, const struct xi_run_request *q,
                                uint32_t i, uint64_t bytes, const struct xi_run_sink *sink,
                                struct xi_run_place *ret, struct xi_err *err)
{
    if (q->places == NULL || i >= m->signature.n_outputs || q->places[i].data == NULL)
        return sink->take(sink->ctx, bytes, ret, err);
    if (bytes > q->places[i].bytes)
        return xi_fail(err, XI_EREGION, "output \"%.60s\" has %llu bytes, its region has %llu",
                       m->signature.outputs[i].name, (unsigned long long)bytes,
                       (unsigned long long)q->places[i].bytes);
    *ret = q->places[i];
    ret->bytes = bytes;
    return XI_OK;
}

/* An engine may want its memory aligned, and a client may not: that output is copied. */
static int is_crooked(const struct xi_runner_model *m, const struct xi_run_request *q, uint32_t i)
{
    uint64_t align;

    if (q->places == NULL || i >= m->signature.n_outputs || q->places[i].data == NULL)
        return 0;
    align = xi_dtype_bytes(m->signature.outputs[i].dtype);
    return align == 0 || (uintptr_t)q->places[i].data % align != 0;
}

/* Room for an output of fixed size, bound so that the engine writes it there. An engine that
 * refuses has it copied later. */
static enum xi_rc bind_output(struct xi_runner_lane *lane, const struct xi_run_request *q,
                              uint32_t i, const struct xi_run_sink *sink, struct xi_run_output *out,
                              struct xi_err *err)
{
    const struct xi_runner_model *m = &lane->runner->models[0];
    const struct xi_port *port = lane->runner->table->port(m->handle, XI_OUTPUT, m->out_map[i]);
    int how = XI_BIND_COPIES;
    enum xi_rc rc = xi_runner_take_place(m, q, i, m->out_bytes[i], sink, &out->place, err);

    if (rc != XI_OK)
        return rc;
    out->tensor = xi_tensor_make((enum xi_dtype)port->dtype, port->dims, port->rank,
                                 out->place.data, m->out_bytes[i]);
    rc = bind(lane, 0, XI_OUTPUT, m->out_map[i], &out->tensor, &how, err);
    if (rc == XI_OK)
        lane->instances[0].bound |= 1ull << i;
    return rc == XI_EUNSUPPORTED ? XI_OK : rc;
}

/* After the run: bytes that don't lie where they belong are copied there, once. */
static enum xi_rc collect_output(struct xi_runner_lane *lane, const struct xi_run_request *q,
                                 uint32_t i, const struct xi_run_sink *sink,
                                 struct xi_run_output *out, struct xi_err *err)
{
    const struct xi_runner_model *m = &lane->runner->models[0];
    struct xi_tensor t;
    enum xi_rc rc = xi_runner_output(lane, 0, i, &t, err);

    if (rc != XI_OK)
        return rc;
    if (out->place.data != NULL && t.data == out->place.data && t.bytes == out->place.bytes)
        return XI_OK;
    if (out->place.data != NULL && t.bytes != out->place.bytes) {
        sink->give(sink->ctx, &out->place);
        out->place = (struct xi_run_place){0};
    }
    if (out->place.data == NULL)
        rc = xi_runner_take_place(m, q, i, t.bytes, sink, &out->place, err);
    if (rc != XI_OK)
        return rc;
    if (t.bytes > 0)
        memcpy(out->place.data, t.data, t.bytes);
    lane->copied_bytes += t.bytes;
    out->tensor = t;
    out->tensor.data = out->place.data;
    return XI_OK;
}

static enum xi_rc run_tensors(struct xi_runner_lane *lane, const struct xi_run_request *q,
                              const struct xi_run_sink *sink, struct xi_run_result *ret,
                              struct xi_err *err)
{
    const struct xi_runner_model *m = &lane->runner->models[0];
    struct xi_tensor inputs[XI_TENSORS_MAX];
    uint32_t n_out = xi_runner_n_out(m), visible = m->signature.n_outputs;
    enum xi_rc rc = all_inputs(m, q, inputs, err);

    for (uint32_t i = 0; rc == XI_OK && i < n_out; i++) {
        ret->outputs[i].kind = XI_PART_TENSOR;
        ret->outputs[i].index = i < visible ? i : i - visible;
        ret->outputs[i].place = (struct xi_run_place){0};
        ret->n_outputs = i + 1;
        if (m->out_static[i] && is_crooked(m, q, i))
            rc = unbind_one(lane, 0, i, err);
        else if (m->out_static[i])
            rc = bind_output(lane, q, i, sink, &ret->outputs[i], err);
    }
    uint64_t started = xi_now_ns();
    if (rc == XI_OK)
        rc = xi_runner_infer(lane, 0, inputs, xi_runner_n_in(m), err);
    ret->infer_ns = xi_now_ns() - started;
    for (uint32_t i = 0; rc == XI_OK && i < n_out; i++)
        rc = collect_output(lane, q, i, sink, &ret->outputs[i], err);
    ret->n_states = m->n_states;
    if (rc != XI_OK)
        xi_runner_give_all(sink, ret);
    return rc;
}

/* ---- through the flow ---- */

static enum xi_rc infer_with_states(struct xi_runner_lane *lane, uint32_t model,
                                    const struct xi_tensor *inputs, uint32_t n, struct xi_err *err)
{
    const struct xi_runner_model *m = &lane->runner->models[model];
    const struct xi_run_request *q = lane->request;
    struct xi_tensor all[XI_TENSORS_MAX], states[XI_TENSORS_MAX];

    if (n != m->signature.n_inputs)
        return xi_fail(err, XI_EFLOW, "%u inputs where the model wants %u", n,
                       m->signature.n_inputs);
    memcpy(all, inputs, n * sizeof *all);
    for (uint32_t k = 0; k < q->n_states; k++)
        states[k] = q->inputs[q->n_inputs - q->n_states + k].tensor;
    enum xi_rc rc = xi_runner_add_states(m, states, q->n_states, q->start, all, err);
    return rc == XI_OK ? xi_runner_infer(lane, model, all, xi_runner_n_in(m), err) : rc;
}

static enum xi_rc flow_infer(void *ctx, const char *model, const struct xi_tensor *inputs,
                             uint32_t n_inputs, struct xi_tensor *outputs, uint32_t n_outputs,
                             struct xi_err *err)
{
    struct xi_runner_lane *lane = ctx;
    int m = xi_runner_find_model(lane->runner, model);

    if (m < 0)
        return xi_fail(err, XI_EFLOW, "package has no model \"%.60s\"", model);
    const struct xi_runner_model *said = &lane->runner->models[m];
    if (n_outputs > said->signature.n_outputs)
        return xi_fail(err, XI_EFLOW, "model \"%.60s\" has fewer than %u outputs", model,
                       n_outputs);
    enum xi_rc rc = xi_runner_unbind(lane, (uint32_t)m, err);
    if (rc == XI_OK && said->n_states > 0)
        rc = infer_with_states(lane, (uint32_t)m, inputs, n_inputs, err);
    else if (rc == XI_OK)
        rc = xi_runner_infer(lane, (uint32_t)m, inputs, n_inputs, err);
    for (uint32_t i = 0; i < n_outputs && rc == XI_OK; i++)
        rc = xi_runner_output(lane, (uint32_t)m, i, &outputs[i], err);
    return rc;
}

/* What the engine holds of the new state, while no other run comes. */
static enum xi_rc put_states(struct xi_runner_lane *lane, const struct xi_run_sink *sink,
                             struct xi_run_result *ret, struct xi_err *err)
{
    const struct xi_runner_model *m = &lane->runner->models[0];
    enum xi_rc rc = XI_OK;
    struct xi_tensor t;

    for (uint32_t k = 0; k < m->n_states && rc == XI_OK; k++) {
        rc = xi_runner_output(lane, 0, m->signature.n_outputs + k, &t, err);
        if (rc == XI_OK)
            rc = xi_runner_put_tensor(lane, k, &t, sink, ret, err);
    }
    ret->n_states = m->n_states;
    return rc;
}

/* Its place was taken. */
static void fill(struct xi_runner_lane *lane, struct xi_run_output *out, const struct xi_tensor *t,
                 struct xi_run_result *ret)
{
    if (t->bytes > 0)
        memcpy(out->place.data, t->data, t->bytes);
    lane->copied_bytes += t->bytes;
    out->tensor = *t;
    out->tensor.data = out->place.data;
    ret->n_outputs++;
}

static enum xi_rc put_bytes(struct xi_runner_lane *lane, struct xi_run_output *out,
                            const struct xi_tensor *t, const struct xi_run_sink *sink,
                            struct xi_run_result *ret, struct xi_err *err)
{
    enum xi_rc rc = sink->take(sink->ctx, t->bytes, &out->place, err);

    if (rc == XI_OK)
        fill(lane, out, t, ret);
    return rc;
}

static enum xi_rc put_text(struct xi_runner_lane *lane, uint32_t kind, const struct xi_str *text,
                           const struct xi_run_sink *sink, struct xi_run_result *ret,
                           struct xi_err *err)
{
    struct xi_run_output *out = &ret->outputs[ret->n_outputs];
    int64_t dim = (int64_t)text->len;
    struct xi_tensor t = xi_tensor_make(XI_DT_UINT8, &dim, 1, text->data, text->len);

    *out = (struct xi_run_output){.kind = kind};
    return put_bytes(lane, out, &t, sink, ret, err);
}

enum xi_rc xi_runner_put_tensor(struct xi_runner_lane *lane, uint32_t index,
                                const struct xi_tensor *t, const struct xi_run_sink *sink,
                                struct xi_run_result *ret, struct xi_err *err)
{
    struct xi_run_output *out = &ret->outputs[ret->n_outputs];

    *out = (struct xi_run_output){.kind = XI_PART_TENSOR, .index = index};
    return put_bytes(lane, out, t, sink, ret, err);
}

enum xi_rc xi_runner_put_output(struct xi_runner_lane *lane, const struct xi_run_request *q,
                                uint32_t index, const struct xi_tensor *t,
                                const struct xi_run_sink *sink, struct xi_run_result *ret,
                                struct xi_err *err)
{
    struct xi_run_output *out = &ret->outputs[ret->n_outputs];

    *out = (struct xi_run_output){.kind = XI_PART_TENSOR, .index = index};
    enum xi_rc rc =
        xi_runner_take_place(&lane->runner->models[0], q, index, t->bytes, sink, &out->place, err);
    if (rc == XI_OK)
        fill(lane, out, t, ret);
    return rc;
}

enum xi_rc xi_runner_put_flow(struct xi_runner_lane *lane, unsigned want,
                              const struct xi_run_sink *sink, struct xi_run_result *ret,
                              struct xi_err *err)
{
    enum xi_rc rc = XI_OK;

    if (want & XI_ANSWER_JSON)
        rc = put_text(lane, XI_PART_JSON, &lane->json, sink, ret, err);
    if (rc == XI_OK && (want & XI_ANSWER_PICTURE))
        rc = put_text(lane, XI_PART_PICTURE, &lane->picture, sink, ret, err);
    return rc;
}

enum xi_rc xi_runner_check_flow(const struct xi_runner_lane *lane, const struct xi_run_request *q,
                                struct xi_err *err)
{
    if (lane->flow == NULL)
        return xi_fail(err, XI_EUNSUPPORTED, "package has no flow: send tensors");
    if (q->n_inputs - q->n_states != 1)
        return xi_fail(err, XI_EINVAL, "a flow takes 1 input, %u came", q->n_inputs - q->n_states);
    if (q->want & XI_ANSWER_TENSORS)
        return xi_fail(err, XI_EUNSUPPORTED, "a flow answers with JSON or a picture, not tensors");
    return XI_OK;
}

static enum xi_rc run_flow(struct xi_runner_lane *lane, const struct xi_run_request *q,
                           const struct xi_run_sink *sink, struct xi_run_result *ret,
                           struct xi_err *err)
{
    struct xi_flow_engine engine = {.ctx = lane, .infer = flow_infer};
    const struct xi_tensor *in = &q->inputs[0].tensor;
    struct xi_flow_timing timing = {0};
    enum xi_rc rc = xi_runner_check_flow(lane, q, err);

    if (rc != XI_OK)
        return rc;
    xi_str_clear(&lane->json);
    xi_str_clear(&lane->picture);
    lane->request = q;
    rc = xi_flow_execute(lane->flow, &engine, in->data, in->bytes, q->want, &lane->json,
                         &lane->picture, &timing, err);
    ret->pre_ns = timing.pre_ns;
    ret->infer_ns = timing.infer_ns;
    ret->post_ns = timing.post_ns;
    if (rc == XI_OK)
        rc = xi_runner_put_flow(lane, q->want, sink, ret, err);
    if (rc == XI_OK)
        rc = put_states(lane, sink, ret, err);
    if (rc != XI_OK)
        xi_runner_give_all(sink, ret);
    return rc;
}

/* The engine's own state of model main. */
static enum xi_rc reset(struct xi_runner_lane *lane, struct xi_err *err)
{
    char text[XI_ENGINE_ERR_BYTES] = "";
    int code = lane->runner->table->reset(lane->instances[0].request, text, sizeof text);

    return code == XI_ENGINE_OK ? XI_OK : engine_fail(lane, code, text, err);
}

enum xi_rc xi_runner_run(struct xi_runner_lane *lane, const struct xi_run_request *request,
                         const struct xi_run_sink *sink, struct xi_run_result *ret,
                         struct xi_err *err)
{
    enum xi_rc rc = XI_OK;

    ret->n_outputs = ret->n_states = 0;
    ret->batch = 1;
    ret->pre_ns = ret->infer_ns = ret->post_ns = 0;
    lane->copied_bytes = 0;
    lane->end = 0;
    lane->deadline_ns = request->deadline_ns;
    if (request->start && lane->runner->info.stateful == XI_STATE_HIDDEN)
        rc = reset(lane, err);
    if (rc == XI_OK && request->n_inputs > 0 && request->inputs[0].kind == XI_PART_BYTES)
        rc = run_flow(lane, request, sink, ret, err);
    else if (rc == XI_OK)
        rc = run_tensors(lane, request, sink, ret, err);
    ret->copied_bytes = lane->copied_bytes;
    ret->end = lane->end;
    return rc;
}
