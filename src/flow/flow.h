/* flow.h: a package's pre- and post-processing as a graph of native steps (docs/flow.md).
 *
 * A flow is parsed and validated once (limits, no cycles, every name made before it is used, every
 * dtype and rank agreed), is immutable and may be shared by threads. A run is one lane's scratch:
 * all its memory is taken on the first request of a shape and reused, so a steady stream of equal
 * pictures allocates nothing. No I/O, no engine: the `infer` step calls back. */
#ifndef XI_FLOW_FLOW_H
#define XI_FLOW_FLOW_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "base/str.h"
#include "core/tensor.h"

struct xi_flow;
struct xi_flow_run;

/* Where the flow's assets (labels, anchors) come from: a callback that hands out a whole file of
 * the package by its path. The bytes are borrowed until xi_flow_parse returns. ENOENT, EFLOW. */
struct xi_flow_assets {
    void *ctx;
    enum xi_rc (*read)(void *ctx, const char *path, const char **ret, size_t *ret_bytes,
                       struct xi_err *err);
};

/* Runs a model of the package: `outputs` are filled in and borrowed until the next call. */
struct xi_flow_engine {
    void *ctx;
    enum xi_rc (*infer)(void *ctx, const char *model, const struct xi_tensor *inputs,
                        uint32_t n_inputs, struct xi_tensor *outputs, uint32_t n_outputs,
                        struct xi_err *err);
};

/* json: the text of flow.json (≤ XI_FLOW_MAX). EFLOW names the step and the tensor at fault. */
enum xi_rc xi_flow_parse(const char *json, size_t bytes, const struct xi_flow_assets *assets,
                         struct xi_flow **ret, struct xi_err *err) XI_MUST_CHECK;
void xi_flow_free(struct xi_flow *flow);
/* Against the models' real ports, once they are known: dtype, rank, element counts, output counts
 * of each infer step of `model`. */
enum xi_rc xi_flow_check_model(const struct xi_flow *flow, const char *model,
                               const struct xi_signature *signature,
                               struct xi_err *err) XI_MUST_CHECK;
/* "image/jpeg" and friends: does the flow start from an encoded picture? */
int xi_flow_takes_image(const struct xi_flow *flow);
int xi_flow_draws(const struct xi_flow *flow); /* it can answer with a picture */

struct xi_flow_run *xi_flow_run_new(const struct xi_flow *flow); /* NULL: memory is out */
void xi_flow_run_free(struct xi_flow_run *run);

struct xi_flow_timing {
    uint64_t pre_ns, infer_ns, post_ns;
};

/* One input through the whole flow. `input` is an encoded picture (or raw bytes), only read, in
 * memory nobody else changes. json gets the object that becomes "outputs" of the answer; picture
 * gets an encoded JPEG (only with XI_ANSWER_PICTURE; EUNSUPPORTED when the flow cannot draw).
 * Errors: EIMAGE for the caller's bytes, EFLOW/EENGINE otherwise. */
enum xi_rc xi_flow_execute(struct xi_flow_run *run, const struct xi_flow_engine *engine,
                           const void *input, size_t bytes, unsigned want, struct xi_str *json,
                           struct xi_str *picture, struct xi_flow_timing *timing,
                           struct xi_err *err) XI_MUST_CHECK;

/* ---- the same in pieces, for flows that run one model once ----
 *
 * pre, the caller's run of the model, outputs, post; the bytes of pre's input are there until
 * post is through. Several runs of one flow can be between pre and post at once: their inputs may
 * be one batch. */
int xi_flow_in_pieces(const struct xi_flow *flow);     /* it can be taken apart like that */
const char *xi_flow_model(const struct xi_flow *flow); /* which model that is */
/* Where the next pre may put the model's index-th input, if it comes out just like `where` (dtype,
 * shape); the memory has 64 bytes to read past its end. data NULL: anywhere, as after each pre. */
void xi_flow_place(struct xi_flow_run *run, uint32_t index, const struct xi_tensor *where);
enum xi_rc xi_flow_pre(struct xi_flow_run *run, const void *input, size_t bytes, unsigned want,
                       struct xi_err *err) XI_MUST_CHECK;
/* What pre made of the model's inputs; returns how many. Valid until the next pre. */
uint32_t xi_flow_inputs(const struct xi_flow_run *run, struct xi_tensor ret[XI_TENSORS_MAX]);
/* What the model answered, in its order; read until post is through, or copied with `keep`.
 * EENGINE: they are not what they say; EFLOW: another number of them; ENOMEM. */
enum xi_rc xi_flow_outputs(struct xi_flow_run *run, const struct xi_tensor *outputs, uint32_t n,
                           int keep, struct xi_err *err) XI_MUST_CHECK;
/* As execute does. */
enum xi_rc xi_flow_post(struct xi_flow_run *run, struct xi_str *json, struct xi_str *picture,
                        struct xi_err *err) XI_MUST_CHECK;

#endif
