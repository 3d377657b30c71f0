/* steps.h: every kind of step, each defined in a file of its own (docs/flow.md says what they do).
 */
#ifndef XI_FLOW_STEPS_H
#define XI_FLOW_STEPS_H

#include "flow/step.h"

extern const struct xi_step_kind xi_step_decode_image; /* step_decode_image.c */
extern const struct xi_step_kind xi_step_resize;       /* step_resize.c */
extern const struct xi_step_kind xi_step_to_tensor;    /* step_to_tensor.c */
extern const struct xi_step_kind xi_step_from_bytes;   /* step_from_bytes.c */
extern const struct xi_step_kind xi_step_normalise;    /* step_normalise.c */
extern const struct xi_step_kind xi_step_layout;       /* step_layout.c */
extern const struct xi_step_kind xi_step_cast;         /* step_cast.c */
extern const struct xi_step_kind xi_step_infer;        /* step_infer.c */
extern const struct xi_step_kind xi_step_sigmoid;      /* step_activation.c */
extern const struct xi_step_kind xi_step_softmax;      /* step_activation.c */
extern const struct xi_step_kind xi_step_top_k;        /* step_top_k.c */
extern const struct xi_step_kind xi_step_ssd_decode;   /* step_ssd_decode.c */
extern const struct xi_step_kind xi_step_nms;          /* step_nms.c */
extern const struct xi_step_kind xi_step_draw;         /* step_draw.c */
extern const struct xi_step_kind xi_step_decode_audio; /* step_decode_audio.c */
extern const struct xi_step_kind xi_step_frames;       /* step_frames.c */

uint32_t xi_audio_rate(const struct xi_flow_step *step); /* samples a second; 0: another step */
/* A member that says how the numbers of an answer lie in time; nothing when there are no frames. */
void xi_frames_describe(const struct xi_flow *flow, struct xi_str *json);

#endif
