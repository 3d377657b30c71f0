/* step.h: inside the flow room: values, steps, and what a kind of step is made of.
 *
 * To add a step: one file that defines a `const struct xi_step_kind`, one row in steps.c, one
 * section in docs/flow.md. `check` agrees types once, at parse time and again when the models are
 * known; `run` meets the real data, so it checks again whatever check could not know. */
#ifndef XI_FLOW_STEP_H
#define XI_FLOW_STEP_H

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

#include "base/limits.h"
#include "flow/flow.h"

struct xi_image_decoder;

enum xi_value_kind {
    XI_VALUE_BYTES,   /* what was sent */
    XI_VALUE_PICTURE, /* RGB, 8 bits, height × width × 3 */
    XI_VALUE_TENSOR,
    XI_VALUE_DETECTIONS, /* boxes in pixels of the sent picture */
    XI_VALUE_CLASSES,
    XI_VALUE_DRAWING /* an encoded picture, made last and only when asked for */
};

/* What is known of a value before anything runs. */
struct xi_flow_type {
    enum xi_value_kind kind;
    enum xi_dtype dtype;       /* tensors; UNKNOWN: not known yet */
    int32_t rank;              /* -1: not known yet */
    int64_t dims[XI_MAX_RANK]; /* -1: not known yet; a picture's are height, width, 3 */
    int sent;                  /* a picture just as it was sent, in full size */
};

/* Memory that only grows while requests are alike; see xi_flow_need. */
struct xi_flow_buf {
    void *data;
    size_t room;
};

/* Lines of a text file; line i names class i. */
struct xi_labels {
    char *path;
    char *text;
    uint32_t n;
    uint32_t *offsets;
};

/* Pixels of a picture and where they came from. A picture decoded at reduced scale keeps its full
 * size in width and height; x0…y1 is the part of `pixels` that shows it. */
struct xi_picture {
    const uint8_t *pixels; /* rows × columns × RGB without gaps */
    uint32_t columns, rows;
    uint32_t width, height;
    double x0, y0, x1, y1;
    double scale_x, scale_y, shift_x, shift_y; /* x here → x * scale_x + shift_x as sent */
    uint32_t sent_width, sent_height;
};

struct xi_detection {
    float box[4]; /* x0, y0, x1, y1 */
    float score;
    uint32_t label; /* the class's number */
};

/* A value of one run. Bytes of tensors made by `infer` are the engine's, others lie in buf. */
struct xi_flow_value {
    struct xi_flow_buf buf;
    struct xi_picture picture;
    struct xi_tensor tensor;
    struct xi_tensor place;     /* data not NULL: a tensor that comes out like this goes there */
    struct xi_detection *found; /* detections; classes (box unused) */
    uint32_t n_found;
    const struct xi_labels *labels; /* may be NULL */
};

struct xi_flow_step {
    const struct xi_step_kind *kind;
    uint32_t index;
    uint32_t n_in, n_out;
    uint16_t in[XI_TENSORS_MAX], out[XI_TENSORS_MAX]; /* values */
    void *params;
};

struct xi_flow_slot {
    char *name;
    uint32_t maker; /* step; the input has none */
};

enum { XI_FLOW_INPUT = 0, XI_FLOW_ANSWERS_MAX = 16 };

/* One key of "output". */
struct xi_flow_answer {
    enum xi_value_kind kind;
    uint16_t value;
    int numbers; /* a tensor as its numbers alone, under its name */
};

struct xi_flow {
    uint32_t n_steps, n_slots, n_answers, n_labels;
    struct xi_flow_step *steps;
    struct xi_flow_slot slots[XI_FLOW_VALUES_MAX];
    struct xi_flow_type types[XI_FLOW_VALUES_MAX];
    struct xi_flow_answer answers[XI_FLOW_ANSWERS_MAX];
    struct xi_labels labels[XI_FLOW_LABELS_MAX];
    const struct xi_flow_step *draw;  /* at most one; runs last */
    const struct xi_flow_step *model; /* the only infer step; NULL: none, or several */
};

enum { XI_SCRATCH_A, XI_SCRATCH_B, XI_SCRATCH_C, XI_SCRATCH_COUNT };

struct xi_flow_run {
    const struct xi_flow *flow;
    struct xi_flow_value *values; /* one per slot */
    struct xi_image_decoder *decoder;
    struct xi_flow_buf scratch[XI_SCRATCH_COUNT]; /* a step's own, until it returns */
    /* the request at hand */
    const struct xi_flow_engine *engine;
    const void *input;
    size_t bytes;
    unsigned want;
    struct xi_str *picture;
    uint64_t infer_ns, infer_started_ns;
};

/* While a flow is parsed. */
struct xi_flow_parser {
    struct xi_flow *flow;
    const struct xi_flow_assets *assets;
};

struct xi_step_kind {
    const char *op;
    const char *const *keys; /* all it knows, with op, in and out; NULL-terminated */
    uint32_t min_in, max_in, min_out, max_out;
    size_t params_bytes;
    /* Fills params (zeroed) from the step's object; its keys are known to be allowed. Optional. */
    enum xi_rc (*parse)(struct xi_flow_parser *p, const json_t *obj, void *params,
                        struct xi_err *err);
    /* Types of the inputs in, types of the outputs out. */
    enum xi_rc (*check)(const struct xi_flow *flow, const struct xi_flow_step *step,
                        struct xi_flow_type *types, struct xi_err *err);
    enum xi_rc (*run)(struct xi_flow_run *run, const struct xi_flow_step *step, struct xi_err *err);
    void (*fini)(void *params); /* what parse allocated; optional */
};

/* steps.c */
const struct xi_step_kind *xi_step_find(const char *op);
const char *xi_step_nearest(const char *op); /* NULL: nothing near */

/* labels.c: the labels named by the step's "labels" key, NULL in *ret when it has none. */
enum xi_rc xi_labels_get(struct xi_flow_parser *p, const json_t *obj, const struct xi_labels **ret,
                         struct xi_err *err) XI_MUST_CHECK;
void xi_labels_fini(struct xi_labels *labels);
const char *xi_label(const struct xi_labels *labels, uint32_t i); /* NULL: it has no name */

/* graph.c: types of all values, step by step; with `model` (else NULL) its infer steps must agree
 * with the signature. */
enum xi_rc xi_graph_check(const struct xi_flow *flow, const char *model,
                          const struct xi_signature *signature, struct xi_flow_type *types,
                          struct xi_err *err) XI_MUST_CHECK;
const char *xi_slot_name(const struct xi_flow *flow, uint16_t slot);
/* The step's input `i` must be of this kind; of a tensor also dtype (UNKNOWN: any). */
enum xi_rc xi_want_kind(const struct xi_flow *flow, const struct xi_flow_type *types, uint16_t slot,
                        enum xi_value_kind kind, struct xi_err *err) XI_MUST_CHECK;
enum xi_rc xi_want_tensor(const struct xi_flow *flow, const struct xi_flow_type *types,
                          uint16_t slot, enum xi_dtype dtype, struct xi_err *err) XI_MUST_CHECK;
struct xi_flow_type xi_type_of(enum xi_value_kind kind);
struct xi_flow_type xi_type_tensor(enum xi_dtype dtype, int rank, const int64_t *dims);

/* step_infer.c */
const char *xi_infer_model(const struct xi_flow_step *step); /* NULL: not an infer step */
/* Tensors that an engine handed out become the step's outputs, once they are what they say. */
enum xi_rc xi_infer_take(struct xi_flow_run *run, const struct xi_flow_step *step,
                         const struct xi_tensor *outputs, int keep,
                         struct xi_err *err) XI_MUST_CHECK;
enum xi_rc xi_infer_agree(const struct xi_flow *flow, const struct xi_flow_step *step,
                          const struct xi_signature *signature, struct xi_flow_type *types,
                          struct xi_err *err) XI_MUST_CHECK;

/* run.c: help for steps that run */
/* At least `bytes` in buf, contents lost when it grows; ENOMEM, EFLOW over XI_FLOW_VALUE_MAX. */
enum xi_rc xi_flow_need(struct xi_flow_buf *buf, uint64_t bytes, struct xi_err *err) XI_MUST_CHECK;
/* The value's tensor becomes one of that shape in its own memory. */
enum xi_rc xi_flow_make_tensor(struct xi_flow_value *v, enum xi_dtype dtype, const int64_t *dims,
                               int rank, struct xi_err *err) XI_MUST_CHECK;
/* A tensor that met the step must be of this dtype; EFLOW names it. */
enum xi_rc xi_flow_want(const struct xi_flow_run *run, uint16_t slot, enum xi_dtype dtype,
                        struct xi_err *err) XI_MUST_CHECK;
uint64_t xi_tensor_elements(const struct xi_tensor *t); /* of a checked tensor */

/* answer.c: the JSON that becomes "outputs" */
enum xi_rc xi_flow_answer(const struct xi_flow_run *run, struct xi_str *json,
                          struct xi_err *err) XI_MUST_CHECK;

#endif
