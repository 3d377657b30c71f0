#include <math.h>
#include <string.h>

#include "flow/steps.h"

static void add_class(const struct xi_flow_value *v, const struct xi_detection *d,
                      struct xi_str *json)
{
    const char *label = xi_label(v->labels, d->label);

    xi_str_puts(json, "{");
    if (label != NULL) {
        xi_str_puts(json, "\"label\":");
        xi_str_json(json, label);
        xi_str_puts(json, ",");
    }
    xi_str_printf(json, "\"class\":%u,\"score\":", d->label);
    xi_str_number(json, (double)d->score, 4);
}

/* Tenths of a pixel: finer than any detector is, and no tail of digits. */
static double tenths(float v)
{
    return round((double)v * 10) / 10;
}

static void add_found(const struct xi_flow_value *v, int with_box, struct xi_str *json)
{
    xi_str_puts(json, "[");
    for (uint32_t i = 0; i < v->n_found; i++) {
        const struct xi_detection *d = &v->found[i];
        if (i > 0)
            xi_str_puts(json, ",");
        add_class(v, d, json);
        for (int k = 0; with_box && k < 4; k++) {
            xi_str_puts(json, k == 0 ? ",\"box\":[" : ",");
            xi_str_number(json, tenths(d->box[k]), 7);
        }
        xi_str_puts(json, with_box ? "]}" : "}");
    }
    xi_str_puts(json, "]");
}

static void add_real(const struct xi_tensor *t, uint64_t i, struct xi_str *json)
{
    uint32_t bits;
    float f;

    switch (t->dtype) {
    case XI_DT_FP16:
        xi_str_number(json, (double)xi_half_to_float(((const uint16_t *)t->data)[i]), 5);
        break;
    case XI_DT_BF16: /* the upper half of an FP32 */
        bits = (uint32_t)((const uint16_t *)t->data)[i] << 16;
        memcpy(&f, &bits, sizeof f);
        xi_str_number(json, (double)f, 4);
        break;
    case XI_DT_FP32:
        xi_str_number(json, (double)((const float *)t->data)[i], 9);
        break;
    case XI_DT_FP64:
        xi_str_number(json, ((const double *)t->data)[i], 17);
        break;
    default:
        xi_str_puts(json, "null");
    }
}

static void add_element(const struct xi_tensor *t, uint64_t i, struct xi_str *json)
{
    switch (t->dtype) {
    case XI_DT_BOOL:
        xi_str_puts(json, ((const uint8_t *)t->data)[i] ? "true" : "false");
        break;
    case XI_DT_UINT8:
        xi_str_printf(json, "%u", ((const uint8_t *)t->data)[i]);
        break;
    case XI_DT_INT8:
        xi_str_printf(json, "%d", ((const int8_t *)t->data)[i]);
        break;
    case XI_DT_UINT16:
        xi_str_printf(json, "%u", ((const uint16_t *)t->data)[i]);
        break;
    case XI_DT_INT16:
        xi_str_printf(json, "%d", ((const int16_t *)t->data)[i]);
        break;
    case XI_DT_UINT32:
        xi_str_printf(json, "%u", ((const uint32_t *)t->data)[i]);
        break;
    case XI_DT_INT32:
        xi_str_printf(json, "%d", ((const int32_t *)t->data)[i]);
        break;
    case XI_DT_UINT64:
        xi_str_printf(json, "%llu", (unsigned long long)((const uint64_t *)t->data)[i]);
        break;
    case XI_DT_INT64:
        xi_str_printf(json, "%lld", (long long)((const int64_t *)t->data)[i]);
        break;
    default:
        add_real(t, i, json);
    }
}

static void add_elements(const struct xi_tensor *t, struct xi_str *json)
{
    uint64_t n = xi_tensor_elements(t);

    xi_str_puts(json, "[");
    for (uint64_t i = 0; i < n && !json->failed; i++) {
        if (i > 0)
            xi_str_puts(json, ",");
        add_element(t, i, json);
    }
    xi_str_puts(json, "]");
}

static void add_numbers(const struct xi_flow_run *run, uint16_t slot, struct xi_str *json)
{
    xi_str_json(json, xi_slot_name(run->flow, slot));
    xi_str_puts(json, ":");
    add_elements(&run->values[slot].tensor, json);
}

static void add_tensor(const char *name, const struct xi_tensor *t, struct xi_str *json)
{
    xi_str_puts(json, "{\"name\":");
    xi_str_json(json, name);
    xi_str_printf(json, ",\"datatype\":\"%s\",\"shape\":[", xi_dtype_name((enum xi_dtype)t->dtype));
    for (int i = 0; i < t->rank; i++)
        xi_str_printf(json, i ? ",%lld" : "%lld", (long long)t->dims[i]);
    xi_str_puts(json, "],\"data\":");
    add_elements(t, json);
    xi_str_puts(json, "}");
}

static int named_in_output(const struct xi_flow *flow, uint16_t slot)
{
    for (uint32_t i = 0; i < flow->n_answers; i++)
        if (flow->answers[i].value == slot && !flow->answers[i].numbers)
            return 1;
    return 0;
}

static void add_one(const struct xi_flow_run *run, uint16_t slot, uint32_t *n, struct xi_str *json)
{
    if ((*n)++ > 0)
        xi_str_puts(json, ",");
    add_tensor(xi_slot_name(run->flow, slot), &run->values[slot].tensor, json);
}

/* Those "output" names; with XI_ANSWER_TENSORS also whatever the models answered. */
static void add_tensors(const struct xi_flow_run *run, struct xi_str *json)
{
    const struct xi_flow *flow = run->flow;
    uint32_t n = 0;

    xi_str_puts(json, "\"tensors\":[");
    for (uint32_t i = 0; i < flow->n_answers; i++)
        if (flow->answers[i].kind == XI_VALUE_TENSOR && !flow->answers[i].numbers)
            add_one(run, flow->answers[i].value, &n, json);
    for (uint32_t i = 0; (run->want & XI_ANSWER_TENSORS) != 0 && i < flow->n_steps; i++) {
        const struct xi_flow_step *step = &flow->steps[i];
        for (uint32_t k = 0; xi_infer_model(step) != NULL && k < step->n_out; k++)
            if (!named_in_output(flow, step->out[k]))
                add_one(run, step->out[k], &n, json);
    }
    xi_str_puts(json, "]");
}

enum xi_rc xi_flow_answer(const struct xi_flow_run *run, struct xi_str *json, struct xi_err *err)
{
    const struct xi_flow *flow = run->flow;
    int tensors = (run->want & XI_ANSWER_TENSORS) != 0, first = 1;

    xi_str_puts(json, "{");
    for (uint32_t i = 0; i < flow->n_answers; i++) {
        const struct xi_flow_value *v = &run->values[flow->answers[i].value];
        enum xi_value_kind kind = flow->answers[i].kind;
        int numbers = flow->answers[i].numbers;
        tensors |= kind == XI_VALUE_TENSOR && !numbers;
        if (kind != XI_VALUE_DETECTIONS && kind != XI_VALUE_CLASSES && !numbers)
            continue;
        xi_str_puts(json, first ? "" : ",");
        first = 0;
        if (numbers) {
            add_numbers(run, flow->answers[i].value, json);
            continue;
        }
        xi_str_puts(json, kind == XI_VALUE_CLASSES ? "\"classes\":" : "\"detections\":");
        add_found(v, kind == XI_VALUE_DETECTIONS, json);
    }
    if (tensors) {
        xi_str_puts(json, first ? "" : ",");
        add_tensors(run, json);
        first = 0;
    }
    if (!first)
        xi_frames_describe(flow, json);
    xi_str_puts(json, "}");
    return xi_str_check(json, err, "the flow's answer");
}
