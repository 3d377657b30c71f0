#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/name.h"
#include "flow/step.h"

/* Calls visit for the string, or for each string of the array, at obj[key]. */
static enum xi_rc each_name(const json_t *obj, const char *key, uint32_t min, uint32_t max,
                            const char *names[XI_TENSORS_MAX], uint32_t *ret_n, struct xi_err *err)
{
    const json_t *v = json_object_get(obj, key);
    size_t n = json_is_array(v) ? json_array_size(v) : v != NULL;

    if (v != NULL && !json_is_array(v) && !json_is_string(v))
        return xi_fail(err, XI_EFLOW, "\"%s\" must be a name or an array of names", key);
    if (n < min || n > max) {
        if (min == max)
            return xi_fail(err, XI_EFLOW, "\"%s\" has %zu names, this step takes %u", key, n, min);
        return xi_fail(err, XI_EFLOW, "\"%s\" has %zu names, this step takes %u to %u", key, n, min,
                       max);
    }
    for (size_t i = 0; i < n; i++) {
        const json_t *name = json_is_array(v) ? json_array_get(v, i) : v;
        if (!json_is_string(name))
            return xi_fail(err, XI_EFLOW, "\"%s\"[%zu] must be a name", key, i);
        names[i] = json_string_value(name);
    }
    *ret_n = (uint32_t)n;
    return XI_OK;
}

static int find_slot(const struct xi_flow *flow, const char *name)
{
    for (uint32_t i = 0; i < flow->n_slots; i++)
        if (strcmp(flow->slots[i].name, name) == 0)
            return (int)i;
    return -1;
}

static int makes(const json_t *step, const char *name)
{
    const json_t *out = json_object_get(step, "out"), *entry;
    size_t i;

    if (json_is_string(out))
        return strcmp(json_string_value(out), name) == 0;
    json_array_foreach((json_t *)(uintptr_t)out, i, entry)
    {
        if (json_is_string(entry) && strcmp(json_string_value(entry), name) == 0)
            return 1;
    }
    return 0;
}

/* Why is there no such value yet? The answer tells a cycle from a typing error. */
static enum xi_rc not_made(const struct xi_flow *flow, const json_t *steps, uint32_t index,
                           const char *name, struct xi_err *err)
{
    const char *known[XI_FLOW_VALUES_MAX + 1];

    if (makes(json_array_get(steps, index), name))
        return xi_fail(err, XI_EFLOW, "\"%.60s\" is this step's own output: it cannot read it",
                       name);
    for (size_t i = index + 1; i < json_array_size(steps); i++)
        if (makes(json_array_get(steps, i), name))
            return xi_fail(err, XI_EFLOW,
                           "\"%.60s\" is made only by step %zu: steps run in list order, so a "
                           "flow has no cycles",
                           name, i);
    for (uint32_t i = 0; i < flow->n_slots; i++)
        known[i] = flow->slots[i].name;
    known[flow->n_slots] = NULL;
    const char *near = xi_nearest(name, known);
    enum xi_rc rc = xi_fail(err, XI_EFLOW, "no step makes \"%.60s\"", name);
    return near != NULL && err != NULL ? xi_hint(err, "did you mean \"%.60s\"?", near) : rc;
}

static enum xi_rc add_slot(struct xi_flow *flow, const char *name, uint32_t maker,
                           struct xi_err *err)
{
    if (flow->n_slots == XI_FLOW_VALUES_MAX)
        return xi_fail(err, XI_EFLOW, "over %d named values", XI_FLOW_VALUES_MAX);
    char *copy = strdup(name);
    if (copy == NULL)
        return xi_fail(err, XI_ENOMEM, "flow: out of memory");
    flow->slots[flow->n_slots++] = (struct xi_flow_slot){.name = copy, .maker = maker};
    return XI_OK;
}

static enum xi_rc parse_inputs(const struct xi_flow *flow, const json_t *steps,
                               struct xi_flow_step *step, struct xi_err *err)
{
    const char *names[XI_TENSORS_MAX];
    const struct xi_step_kind *kind = step->kind;
    enum xi_rc rc = each_name(json_array_get(steps, step->index), "in", kind->min_in, kind->max_in,
                              names, &step->n_in, err);

    for (uint32_t i = 0; rc == XI_OK && i < step->n_in; i++) {
        int slot = find_slot(flow, names[i]);
        if (slot < 0)
            return not_made(flow, steps, step->index, names[i], err);
        step->in[i] = (uint16_t)slot;
    }
    return rc;
}

static enum xi_rc parse_outputs(struct xi_flow *flow, const json_t *obj, struct xi_flow_step *step,
                                struct xi_err *err)
{
    const char *names[XI_TENSORS_MAX];
    const struct xi_step_kind *kind = step->kind;
    enum xi_rc rc = each_name(obj, "out", kind->min_out, kind->max_out, names, &step->n_out, err);

    for (uint32_t i = 0; rc == XI_OK && i < step->n_out; i++) {
        int slot = find_slot(flow, names[i]);
        if (slot == XI_FLOW_INPUT)
            return xi_fail(err, XI_EFLOW, "\"input\" is the flow's input: no step makes it");
        if (slot > 0)
            return xi_fail(err, XI_EFLOW, "\"%.60s\" is made twice: step %u makes it already",
                           names[i], flow->slots[slot].maker);
        rc = xi_name_check(names[i], "name in \"out\"", err);
        step->out[i] = (uint16_t)flow->n_slots;
        if (rc == XI_OK)
            rc = add_slot(flow, names[i], step->index, err);
    }
    return rc;
}

static enum xi_rc unknown_op(const char *op, struct xi_err *err)
{
    const char *near = xi_step_nearest(op);
    enum xi_rc rc = xi_fail(err, XI_EFLOW, "there is no step \"%.40s\"", op);

    return near != NULL && err != NULL ? xi_hint(err, "did you mean \"%s\"?", near) : rc;
}

static enum xi_rc parse_step(struct xi_flow_parser *p, const json_t *steps, uint32_t index,
                             struct xi_err *err)
{
    struct xi_flow_step *step = &p->flow->steps[index];
    const json_t *obj = json_array_get(steps, index);
    const char *op = NULL;

    if (!json_is_object(obj))
        return xi_fail(err, XI_EFLOW, "must be an object");
    enum xi_rc rc = xi_json_string(obj, "", "op", XI_JSON_REQUIRED, &op, err);
    if (rc != XI_OK)
        return rc;
    step->kind = xi_step_find(op);
    step->index = index;
    if (step->kind == NULL)
        return unknown_op(op, err);
    rc = xi_json_known_keys(obj, "", step->kind->keys, err);
    if (rc == XI_OK)
        rc = parse_inputs(p->flow, steps, step, err);
    if (rc == XI_OK)
        rc = parse_outputs(p->flow, obj, step, err);
    if (rc != XI_OK || step->kind->params_bytes == 0)
        return rc;
    step->params = calloc(1, step->kind->params_bytes);
    if (step->params == NULL)
        return xi_fail(err, XI_ENOMEM, "flow: out of memory");
    return step->kind->parse != NULL ? step->kind->parse(p, obj, step->params, err) : XI_OK;
}

/* Refusals of a flow are EFLOW whatever helper found them; only ENOMEM stays itself. */
static enum xi_rc refuse(struct xi_err *err, enum xi_rc rc, const struct xi_flow *flow, uint32_t i)
{
    const struct xi_step_kind *kind = flow->steps[i].kind;

    if (rc != XI_ENOMEM)
        rc = XI_EFLOW;
    if (kind == NULL)
        return xi_wrap(err, rc, "step %u", i);
    return xi_wrap(err, rc, "step %u (%s)", i, kind->op);
}

static enum xi_rc parse_steps(struct xi_flow_parser *p, const json_t *root, struct xi_err *err)
{
    struct xi_flow *flow = p->flow;
    json_t *steps = NULL;
    enum xi_rc rc = xi_json_array(root, "", "steps", XI_JSON_REQUIRED, &steps, err);

    if (rc != XI_OK)
        return xi_wrap(err, XI_EFLOW, "flow");
    size_t n = json_array_size(steps);
    if (n == 0 || n > XI_FLOW_STEPS_MAX)
        return xi_fail(err, XI_EFLOW, "flow has %zu steps, allowed are 1 to %d", n,
                       XI_FLOW_STEPS_MAX);
    flow->steps = calloc(n, sizeof *flow->steps);
    if (flow->steps == NULL)
        return xi_fail(err, XI_ENOMEM, "flow: out of memory");
    rc = add_slot(flow, "input", 0, err);
    while (rc == XI_OK && flow->n_steps < n) {
        uint32_t i = flow->n_steps++;
        rc = parse_step(p, steps, i, err);
        if (rc != XI_OK)
            return refuse(err, rc, flow, i);
    }
    return rc;
}

struct answer_key {
    const char *key;
    enum xi_value_kind kind;
    uint32_t max;
    int numbers;
};

static const struct answer_key answer_keys[] = {
    {"detections", XI_VALUE_DETECTIONS, 1, 0},
    {"classes", XI_VALUE_CLASSES, 1, 0},
    {"tensors", XI_VALUE_TENSOR, XI_FLOW_ANSWERS_MAX / 2 - 3, 0},
    {"numbers", XI_VALUE_TENSOR, XI_FLOW_ANSWERS_MAX / 2, 1},
    {"picture", XI_VALUE_DRAWING, 1, 0},
};

/* Numbers stand under their own name, where no other member of an answer may stand. */
static enum xi_rc free_name(const struct xi_flow *flow, const char *name, struct xi_err *err)
{
    static const char *const taken[] = {"detections", "classes", "tensors", "frames"};

    for (size_t i = 0; i < sizeof taken / sizeof taken[0]; i++)
        if (strcmp(name, taken[i]) == 0)
            return xi_fail(err, XI_EFLOW, "numbers cannot be called \"%s\"", name);
    for (uint32_t i = 0; i < flow->n_answers; i++)
        if (flow->answers[i].numbers &&
            strcmp(xi_slot_name(flow, flow->answers[i].value), name) == 0)
            return xi_fail(err, XI_EFLOW, "numbers names \"%.60s\" twice", name);
    return XI_OK;
}

static enum xi_rc parse_answer(struct xi_flow *flow, const json_t *output,
                               const struct answer_key *row, struct xi_err *err)
{
    const char *names[XI_TENSORS_MAX];
    uint32_t n = 0;
    enum xi_rc rc = each_name(output, row->key, 1, row->max, names, &n, err);

    for (uint32_t i = 0; rc == XI_OK && i < n; i++) {
        int slot = find_slot(flow, names[i]);
        if (slot < 0)
            return xi_fail(err, XI_EFLOW, "\"%s\": no step makes \"%.60s\"", row->key, names[i]);
        rc = xi_want_kind(flow, flow->types, (uint16_t)slot, row->kind, err);
        if (rc == XI_OK && row->numbers)
            rc = free_name(flow, names[i], err);
        if (rc == XI_OK)
            flow->answers[flow->n_answers++] = (struct xi_flow_answer){
                .kind = row->kind, .value = (uint16_t)slot, .numbers = row->numbers};
    }
    return rc;
}

static enum xi_rc parse_output(struct xi_flow *flow, const json_t *root, struct xi_err *err)
{
    static const char *const known[] = {"detections", "classes", "tensors",
                                        "numbers",    "picture", NULL};
    json_t *output = NULL;
    enum xi_rc rc = xi_json_object(root, "", "output", XI_JSON_REQUIRED, &output, err);

    if (rc == XI_OK)
        rc = xi_json_known_keys(output, "", known, err);
    for (size_t i = 0; rc == XI_OK && i < sizeof answer_keys / sizeof answer_keys[0]; i++)
        if (json_object_get(output, answer_keys[i].key) != NULL)
            rc = parse_answer(flow, output, &answer_keys[i], err);
    if (rc == XI_OK && flow->n_answers == 0)
        rc = xi_fail(err, XI_EFLOW, "names no value: nothing would be answered");
    return rc == XI_OK ? rc : xi_wrap(err, XI_EFLOW, "output");
}

/* Drawing happens in the decoded picture itself, so once and last. */
static void find_model(struct xi_flow *flow)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < flow->n_steps; i++)
        if (xi_infer_model(&flow->steps[i]) != NULL) {
            flow->model = &flow->steps[i];
            n++;
        }
    if (n != 1)
        flow->model = NULL;
}

static enum xi_rc find_draw(struct xi_flow *flow, struct xi_err *err)
{
    for (uint32_t i = 0; i < flow->n_steps; i++) {
        const struct xi_flow_step *step = &flow->steps[i];
        if (step->n_out == 0 || flow->types[step->out[0]].kind != XI_VALUE_DRAWING)
            continue;
        if (flow->draw != NULL)
            return xi_fail(err, XI_EFLOW, "step %u (%s): step %u draws already, a flow draws once",
                           i, step->kind->op, flow->draw->index);
        flow->draw = step;
    }
    return XI_OK;
}

static enum xi_rc parse_root(struct xi_flow_parser *p, const json_t *root, struct xi_err *err)
{
    static const char *const known[] = {"steps", "output", "description", NULL};

    if (!json_is_object(root))
        return xi_fail(err, XI_EFLOW, "flow must be a JSON object");
    if (xi_json_known_keys(root, "", known, err) != XI_OK)
        return xi_wrap(err, XI_EFLOW, "flow");
    enum xi_rc rc = parse_steps(p, root, err);
    if (rc == XI_OK)
        rc = xi_graph_check(p->flow, NULL, NULL, p->flow->types, err);
    if (rc == XI_OK)
        rc = parse_output(p->flow, root, err);
    if (rc == XI_OK)
        rc = find_draw(p->flow, err);
    if (rc == XI_OK)
        find_model(p->flow);
    return rc;
}

enum xi_rc xi_flow_parse(const char *json, size_t bytes, const struct xi_flow_assets *assets,
                         struct xi_flow **ret, struct xi_err *err)
{
    json_t *root = NULL;
    struct xi_flow_parser p = {.assets = assets};
    enum xi_rc rc = xi_json_parse(json, bytes, XI_FLOW_MAX, &root, err);

    if (rc != XI_OK)
        return xi_wrap(err, XI_EFLOW, "flow");
    p.flow = calloc(1, sizeof *p.flow);
    if (p.flow == NULL)
        rc = xi_fail(err, XI_ENOMEM, "flow: out of memory");
    else
        rc = parse_root(&p, root, err);
    json_decref(root);
    if (rc != XI_OK) {
        xi_flow_free(p.flow);
        return rc;
    }
    *ret = p.flow;
    return XI_OK;
}

void xi_flow_free(struct xi_flow *flow)
{
    if (flow == NULL)
        return;
    for (uint32_t i = 0; i < flow->n_steps; i++) {
        struct xi_flow_step *step = &flow->steps[i];
        if (step->params != NULL && step->kind->fini != NULL)
            step->kind->fini(step->params);
        free(step->params);
    }
    for (uint32_t i = 0; i < flow->n_slots; i++)
        free(flow->slots[i].name);
    for (uint32_t i = 0; i < flow->n_labels; i++)
        xi_labels_fini(&flow->labels[i]);
    free(flow->steps);
    free(flow);
}
