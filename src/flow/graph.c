#include <stdlib.h>
#include <string.h>

#include "flow/step.h"

const char *xi_slot_name(const struct xi_flow *flow, uint16_t slot)
{
    return flow->slots[slot].name;
}

static const char *kind_text(enum xi_value_kind kind)
{
    static const char *const names[] = {
        [XI_VALUE_BYTES] = "the bytes that were sent",
        [XI_VALUE_PICTURE] = "a picture",
        [XI_VALUE_TENSOR] = "a tensor",
        [XI_VALUE_DETECTIONS] = "detections",
        [XI_VALUE_CLASSES] = "classes",
        [XI_VALUE_DRAWING] = "a drawn picture",
    };

    return names[kind];
}

struct xi_flow_type xi_type_of(enum xi_value_kind kind)
{
    return (struct xi_flow_type){.kind = kind, .rank = -1};
}

struct xi_flow_type xi_type_tensor(enum xi_dtype dtype, int rank, const int64_t *dims)
{
    struct xi_flow_type t = {.kind = XI_VALUE_TENSOR, .dtype = dtype, .rank = rank};

    for (int i = 0; i < rank; i++)
        t.dims[i] = dims[i];
    return t;
}

enum xi_rc xi_want_kind(const struct xi_flow *flow, const struct xi_flow_type *types, uint16_t slot,
                        enum xi_value_kind kind, struct xi_err *err)
{
    if (types[slot].kind == kind)
        return XI_OK;
    return xi_fail(err, XI_EFLOW, "\"%.60s\" is %s, wanted is %s", xi_slot_name(flow, slot),
                   kind_text(types[slot].kind), kind_text(kind));
}

enum xi_rc xi_want_tensor(const struct xi_flow *flow, const struct xi_flow_type *types,
                          uint16_t slot, enum xi_dtype dtype, struct xi_err *err)
{
    enum xi_rc rc = xi_want_kind(flow, types, slot, XI_VALUE_TENSOR, err);
    enum xi_dtype has = types[slot].dtype;

    if (rc != XI_OK || dtype == XI_DT_UNKNOWN || has == XI_DT_UNKNOWN || has == dtype)
        return rc;
    return xi_fail(err, XI_EFLOW, "\"%.60s\" is %s, wanted is %s", xi_slot_name(flow, slot),
                   xi_dtype_name(has), xi_dtype_name(dtype));
}

/* A tensor of the flow must fit in memory whatever its free dims turn out to be. */
static enum xi_rc check_size(const struct xi_flow *flow, const struct xi_flow_type *types,
                             uint16_t slot, struct xi_err *err)
{
    const struct xi_flow_type *t = &types[slot];
    uint64_t bytes = 0;

    if (t->kind != XI_VALUE_TENSOR || t->rank < 0 || xi_dtype_bytes(t->dtype) == 0)
        return XI_OK;
    for (int i = 0; i < t->rank; i++)
        if (t->dims[i] < 0)
            return XI_OK;
    enum xi_rc rc = xi_shape_bytes(t->dtype, t->dims, t->rank, &bytes, err);
    if (rc != XI_OK)
        return xi_wrap(err, rc, "\"%.60s\"", xi_slot_name(flow, slot));
    if (bytes > XI_FLOW_VALUE_MAX)
        return xi_fail(err, XI_EFLOW, "\"%.60s\" has %llu bytes, the limit is %llu",
                       xi_slot_name(flow, slot), (unsigned long long)bytes, XI_FLOW_VALUE_MAX);
    return XI_OK;
}

static enum xi_rc check_step(const struct xi_flow *flow, const struct xi_flow_step *step,
                             const char *model, const struct xi_signature *signature,
                             struct xi_flow_type *types, struct xi_err *err)
{
    const char *runs = xi_infer_model(step);
    enum xi_rc rc = step->kind->check(flow, step, types, err);

    if (rc == XI_OK && model != NULL && runs != NULL && strcmp(runs, model) == 0)
        rc = xi_infer_agree(flow, step, signature, types, err);
    for (uint32_t i = 0; rc == XI_OK && i < step->n_out; i++)
        rc = check_size(flow, types, step->out[i], err);
    return rc;
}

enum xi_rc xi_graph_check(const struct xi_flow *flow, const char *model,
                          const struct xi_signature *signature, struct xi_flow_type *types,
                          struct xi_err *err)
{
    types[XI_FLOW_INPUT] = xi_type_of(XI_VALUE_BYTES);
    for (uint32_t i = 0; i < flow->n_steps; i++) {
        const struct xi_flow_step *step = &flow->steps[i];
        enum xi_rc rc = check_step(flow, step, model, signature, types, err);
        if (rc != XI_OK)
            return xi_wrap(err, rc == XI_ENOMEM ? rc : XI_EFLOW, "step %u (%s)", i, step->kind->op);
    }
    return XI_OK;
}

enum xi_rc xi_flow_check_model(const struct xi_flow *flow, const char *model,
                               const struct xi_signature *signature, struct xi_err *err)
{
    struct xi_flow_type *types = malloc(sizeof flow->types);

    if (types == NULL)
        return xi_fail(err, XI_ENOMEM, "flow: out of memory");
    memcpy(types, flow->types, sizeof flow->types);
    enum xi_rc rc = xi_graph_check(flow, model, signature, types, err);
    free(types);
    return rc;
}

int xi_flow_takes_image(const struct xi_flow *flow)
{
    for (uint32_t i = 0; i < flow->n_steps; i++)
        if (strcmp(flow->steps[i].kind->op, "decode_image") == 0)
            return 1;
    return 0;
}

int xi_flow_draws(const struct xi_flow *flow)
{
    return flow->draw != NULL;
}
