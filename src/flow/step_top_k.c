/* top_k: scores of one input → its k best classes, best first; equal scores in class order. */
#include "flow/params.h"
#include "flow/steps.h"

enum { K_MAX = 1000 };

struct top_k {
    int64_t k;
    double threshold;
    const struct xi_labels *labels;
};

static enum xi_rc parse(struct xi_flow_parser *p, const json_t *obj, void *params,
                        struct xi_err *err)
{
    struct top_k *self = params;
    enum xi_rc rc;

    self->k = 5;
    self->threshold = -1e30;
    rc = xi_json_int(obj, "", "k", XI_JSON_OPTIONAL, 1, K_MAX, &self->k, err);
    if (rc == XI_OK)
        rc = xi_json_number(obj, "", "threshold", XI_JSON_OPTIONAL, -1e9, 1e9, &self->threshold,
                            err);
    if (rc == XI_OK)
        rc = xi_labels_get(p, obj, &self->labels, err);
    return rc;
}

static enum xi_rc check(const struct xi_flow *flow, const struct xi_flow_step *step,
                        struct xi_flow_type *types, struct xi_err *err)
{
    const struct xi_flow_type *in = &types[step->in[0]];
    enum xi_rc rc = xi_want_tensor(flow, types, step->in[0], XI_DT_FP32, err);

    if (rc == XI_OK && in->rank > 1 && in->dims[0] > 1)
        rc = xi_fail(err, XI_EFLOW, "\"%.60s\" has %lld rows, wanted is one input's scores",
                     xi_slot_name(flow, step->in[0]), (long long)in->dims[0]);
    types[step->out[0]] = xi_type_of(XI_VALUE_CLASSES);
    return rc;
}

/* Keeps `found` sorted, best first; at most k. */
static void offer(struct xi_flow_value *v, uint32_t k, uint32_t label, float score)
{
    struct xi_detection *found = v->found;
    uint32_t at;

    if (v->n_found == k && !(score > found[k - 1].score))
        return;
    if (v->n_found < k)
        v->n_found++;
    for (at = v->n_found - 1; at > 0 && score > found[at - 1].score; at--)
        found[at] = found[at - 1];
    found[at] = (struct xi_detection){.score = score, .label = label};
}

static enum xi_rc run(struct xi_flow_run *r, const struct xi_flow_step *step, struct xi_err *err)
{
    const struct top_k *self = step->params;
    const struct xi_tensor *in = &r->values[step->in[0]].tensor;
    struct xi_flow_value *v = &r->values[step->out[0]];
    enum xi_rc rc = xi_flow_want(r, step->in[0], XI_DT_FP32, err);
    uint64_t n = rc == XI_OK ? xi_tensor_elements(in) : 0;

    if (rc == XI_OK && n > UINT32_MAX)
        rc = xi_fail(err, XI_EFLOW, "over %u classes", UINT32_MAX);
    if (rc == XI_OK)
        rc = xi_flow_need(&v->buf, (uint64_t)self->k * sizeof *v->found, err);
    if (rc != XI_OK)
        return rc;
    v->found = v->buf.data;
    v->n_found = 0;
    v->labels = self->labels;
    const float *scores = in->data;
    for (uint32_t i = 0; i < n; i++)
        if ((double)scores[i] >= self->threshold) /* never true of NaN */
            offer(v, (uint32_t)self->k, i, scores[i]);
    return XI_OK;
}

static const char *const keys[] = {"op", "in", "out", "k", "threshold", "labels", NULL};

const struct xi_step_kind xi_step_top_k = {
    .op = "top_k",
    .keys = keys,
    .min_in = 1,
    .max_in = 1,
    .min_out = 1,
    .max_out = 1,
    .params_bytes = sizeof(struct top_k),
    .parse = parse,
    .check = check,
    .run = run,
};
