/* decode_image: the bytes that were sent → picture. When all that reads it is area-bilinear
 * shrinking, a JPEG is decoded at reduced scale; `draw` then decodes it again in full. */
#include "flow/image_decode.h"
#include "flow/resize.h"
#include "flow/steps.h"

static enum xi_rc check(const struct xi_flow *flow, const struct xi_flow_step *step,
                        struct xi_flow_type *types, struct xi_err *err)
{
    enum xi_rc rc = xi_want_kind(flow, types, step->in[0], XI_VALUE_BYTES, err);

    types[step->out[0]] = (struct xi_flow_type){
        .kind = XI_VALUE_PICTURE, .dtype = XI_DT_UINT8, .rank = 3, .dims = {-1, -1, 3}, .sent = 1};
    return rc;
}

static int reads(const struct xi_flow_step *step, uint16_t slot)
{
    for (uint32_t i = 0; i < step->n_in; i++)
        if (step->in[i] == slot)
            return 1;
    return 0;
}

/* nms reads only the picture's size, draw asks for the full one itself. */
static uint32_t denominator(const struct xi_flow *flow, uint16_t slot,
                            const struct xi_image_info *info)
{
    uint32_t least = 8;

    for (uint32_t i = 0; i < flow->n_steps; i++) {
        const struct xi_flow_step *step = &flow->steps[i];
        if (!reads(step, slot) || step->kind == &xi_step_nms || step->kind == &xi_step_draw)
            continue;
        if (step->kind != &xi_step_resize)
            return 1;
        uint32_t d = xi_resize_denominator(step->params, info->width, info->height);
        if (d < least)
            least = d;
    }
    return least;
}

static enum xi_rc run(struct xi_flow_run *r, const struct xi_flow_step *step, struct xi_err *err)
{
    struct xi_flow_value *v = &r->values[step->out[0]];
    struct xi_image_info info;
    enum xi_rc rc = xi_image_open(r->decoder, r->input, r->bytes, &info, err);

    if (rc != XI_OK)
        return rc;
    uint32_t d = info.reducible ? denominator(r->flow, step->out[0], &info) : 1;
    return xi_image_read(r->decoder, d, &v->buf, &v->picture, err);
}

static const char *const keys[] = {"op", "in", "out", NULL};

const struct xi_step_kind xi_step_decode_image = {
    .op = "decode_image",
    .keys = keys,
    .min_in = 1,
    .max_in = 1,
    .min_out = 1,
    .max_out = 1,
    .check = check,
    .run = run,
};
