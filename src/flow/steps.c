#include "flow/step.h"

#include <string.h>

#include "base/json.h"
#include "flow/steps.h"

/* One row a step. */
static const struct xi_step_kind *const kinds[] = {
    &xi_step_decode_image, &xi_step_resize,  &xi_step_to_tensor,    &xi_step_from_bytes,
    &xi_step_normalise,    &xi_step_layout,  &xi_step_cast,         &xi_step_infer,
    &xi_step_sigmoid,      &xi_step_softmax, &xi_step_top_k,        &xi_step_ssd_decode,
    &xi_step_nms,          &xi_step_draw,    &xi_step_decode_audio, &xi_step_frames,
};

enum { KINDS = sizeof kinds / sizeof kinds[0] };

const struct xi_step_kind *xi_step_find(const char *op)
{
    for (size_t i = 0; i < KINDS; i++)
        if (strcmp(kinds[i]->op, op) == 0)
            return kinds[i];
    return NULL;
}

const char *xi_step_nearest(const char *op)
{
    const char *names[KINDS + 1];

    for (size_t i = 0; i < KINDS; i++)
        names[i] = kinds[i]->op;
    names[KINDS] = NULL;
    return xi_nearest(op, names);
}
