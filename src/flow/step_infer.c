/* infer: runs a model of the package through the caller's engine; its outputs are borrowed. */
#include <string.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/name.h"
#include "flow/steps.h"

struct infer {
    char model[XI_NAME_MAX + 1];
};

static enum xi_rc parse(struct xi_flow_parser *p, const json_t *obj, void *params,
                        struct xi_err *err)
{
    struct infer *self = params;
    const char *model = "main";
    enum xi_rc rc = xi_json_string(obj, "", "model", XI_JSON_OPTIONAL, &model, err);

    (void)p;
    if (rc == XI_OK)
        rc = xi_name_check(model, "model", err);
    if (rc == XI_OK)
        memcpy(self->model, model, strlen(model) + 1);
    return rc;
}

static enum xi_rc check(const struct xi_flow *flow, const struct xi_flow_step *step,
                        struct xi_flow_type *types, struct xi_err *err)
{
    for (uint32_t i = 0; i < step->n_in; i++) {
        enum xi_rc rc = xi_want_tensor(flow, types, step->in[i], XI_DT_UNKNOWN, err);
        if (rc != XI_OK)
            return rc;
    }
    for (uint32_t i = 0; i < step->n_out; i++)
        types[step->out[i]] = xi_type_of(XI_VALUE_TENSOR);
    return XI_OK;
}

const char *xi_infer_model(const struct xi_flow_step *step)
{
    return step->kind == &xi_step_infer ? ((const struct infer *)step->params)->model : NULL;
}

static int shapes_agree(const struct xi_flow_type *t, const struct xi_port_spec *port)
{
    if (t->rank < 0 || port->rank < 0)
        return 1;
    if (t->rank != port->rank)
        return 0;
    for (int i = 0; i < t->rank; i++)
        if (t->dims[i] >= 0 && port->dims[i] >= 0 && t->dims[i] != port->dims[i])
            return 0;
    return 1;
}

static enum xi_rc agree_input(const struct xi_flow *flow, uint16_t slot,
                              const struct xi_flow_type *t, const struct xi_port_spec *port,
                              struct xi_err *err)
{
    char has[64], wants[64];

    if (t->dtype != XI_DT_UNKNOWN && port->dtype != XI_DT_UNKNOWN && t->dtype != port->dtype)
        return xi_fail(err, XI_EFLOW, "\"%.40s\" is %s, the model's input \"%.40s\" is %s",
                       xi_slot_name(flow, slot), xi_dtype_name(t->dtype), port->name,
                       xi_dtype_name(port->dtype));
    if (!shapes_agree(t, port))
        return xi_fail(err, XI_EFLOW, "\"%.40s\" is %s, the model's input \"%.40s\" is %s",
                       xi_slot_name(flow, slot), xi_shape_text(t->dims, t->rank, has, sizeof has),
                       port->name, xi_shape_text(port->dims, port->rank, wants, sizeof wants));
    return XI_OK;
}

enum xi_rc xi_infer_agree(const struct xi_flow *flow, const struct xi_flow_step *step,
                          const struct xi_signature *signature, struct xi_flow_type *types,
                          struct xi_err *err)
{
    const char *model = xi_infer_model(step);

    if (step->n_in != signature->n_inputs)
        return xi_fail(err, XI_EFLOW, "model \"%.60s\" has %u inputs, the step gives %u", model,
                       signature->n_inputs, step->n_in);
    if (step->n_out != signature->n_outputs)
        return xi_fail(err, XI_EFLOW, "model \"%.60s\" has %u outputs, the step names %u", model,
                       signature->n_outputs, step->n_out);
    for (uint32_t i = 0; i < step->n_in; i++) {
        enum xi_rc rc =
            agree_input(flow, step->in[i], &types[step->in[i]], &signature->inputs[i], err);
        if (rc != XI_OK)
            return rc;
    }
    for (uint32_t i = 0; i < step->n_out; i++) {
        const struct xi_port_spec *port = &signature->outputs[i];
        types[step->out[i]] = xi_type_tensor(port->dtype, port->rank, port->dims);
    }
    return XI_OK;
}

/* What an engine hands out is looked at before any step reads it. */
static enum xi_rc check_output(const struct xi_flow_run *run, uint16_t slot, struct xi_err *err)
{
    const struct xi_tensor *t = &run->values[slot].tensor;
    const char *name = xi_slot_name(run->flow, slot);
    uint64_t want = 0;

    if (t->rank < 0 || t->rank > XI_MAX_RANK || t->memory != XI_MEM_HOST)
        return xi_fail(err, XI_EENGINE, "model output \"%.60s\" is not a tensor in host memory",
                       name);
    enum xi_rc rc = xi_shape_bytes((enum xi_dtype)t->dtype, t->dims, t->rank, &want, err);
    if (rc != XI_OK)
        return xi_wrap(err, XI_EENGINE, "model output \"%.60s\"", name);
    if (t->bytes != want || (t->data == NULL && want > 0))
        return xi_fail(err, XI_EENGINE,
                       "model output \"%.60s\" has %llu bytes where its shape needs %llu", name,
                       (unsigned long long)t->bytes, (unsigned long long)want);
    return XI_OK;
}

/* Outputs live until the engine's next call, so a flow with another model to come keeps a copy. */
static enum xi_rc keep_output(struct xi_flow_value *v, struct xi_err *err)
{
    enum xi_rc rc = xi_flow_need(&v->buf, v->tensor.bytes, err);

    if (rc != XI_OK)
        return rc;
    if (v->tensor.bytes > 0)
        memcpy(v->buf.data, v->tensor.data, v->tensor.bytes);
    v->tensor.data = v->buf.data;
    return XI_OK;
}

enum xi_rc xi_infer_take(struct xi_flow_run *run, const struct xi_flow_step *step,
                         const struct xi_tensor *outputs, int keep, struct xi_err *err)
{
    enum xi_rc rc = XI_OK;

    for (uint32_t i = 0; rc == XI_OK && i < step->n_out; i++) {
        run->values[step->out[i]].tensor = outputs[i];
        rc = check_output(run, step->out[i], err);
        if (rc == XI_OK && keep)
            rc = keep_output(&run->values[step->out[i]], err);
    }
    return rc;
}

static int model_follows(const struct xi_flow *flow, const struct xi_flow_step *step)
{
    for (uint32_t i = step->index + 1; i < flow->n_steps; i++)
        if (flow->steps[i].kind == &xi_step_infer)
            return 1;
    return 0;
}

static enum xi_rc run_model(struct xi_flow_run *run, const struct xi_flow_step *step,
                            struct xi_err *err)
{
    struct xi_tensor in[XI_TENSORS_MAX], out[XI_TENSORS_MAX];
    const struct infer *self = step->params;
    int keep = model_follows(run->flow, step);

    for (uint32_t i = 0; i < step->n_in; i++)
        in[i] = run->values[step->in[i]].tensor;
    for (uint32_t i = 0; i < step->n_out; i++)
        out[i] = (struct xi_tensor){.size = sizeof out[i], .fd = -1};
    enum xi_rc rc =
        run->engine->infer(run->engine->ctx, self->model, in, step->n_in, out, step->n_out, err);
    return rc == XI_OK ? xi_infer_take(run, step, out, keep, err) : rc;
}

static enum xi_rc run(struct xi_flow_run *r, const struct xi_flow_step *step, struct xi_err *err)
{
    uint64_t start = xi_now_ns();

    if (r->engine == NULL || r->engine->infer == NULL)
        return xi_fail(err, XI_EENGINE, "the flow runs without an engine");
    if (r->infer_started_ns == 0)
        r->infer_started_ns = start;
    enum xi_rc rc = run_model(r, step, err);
    r->infer_ns += xi_now_ns() - start;
    return rc;
}

static const char *const keys[] = {"op", "in", "out", "model", NULL};

const struct xi_step_kind xi_step_infer = {
    .op = "infer",
    .keys = keys,
    .min_in = 1,
    .max_in = XI_TENSORS_MAX,
    .min_out = 1,
    .max_out = XI_TENSORS_MAX,
    .params_bytes = sizeof(struct infer),
    .parse = parse,
    .check = check,
    .run = run,
};
