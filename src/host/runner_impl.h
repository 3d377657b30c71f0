/* runner_impl.h: what the files of the runner share. */
#ifndef XI_HOST_RUNNER_IMPL_H
#define XI_HOST_RUNNER_IMPL_H

#include "base/str.h"
#include "flow/flow.h"
#include "host/plugin.h"
#include "host/runner.h"
#include "package/manifest.h"

/* One loaded model. Port i of the signature is port in_map[i] or out_map[i] of the engine's. */
struct xi_runner_model {
    const char *name; /* the manifest's */
    const struct xi_manifest_variant *variant;
    struct xi_engine_model *handle;
    /* Without the state tensors, whose ports stand behind those of the signature. */
    struct xi_signature signature;
    uint32_t n_states;
    void *initial[XI_TENSORS_MAX]; /* values of the states; zeros or a file's */
    uint64_t state_bytes[XI_TENSORS_MAX];
    int batches; /* axis 0 of every port is free */
    uint32_t in_map[XI_TENSORS_MAX], out_map[XI_TENSORS_MAX];
    uint64_t out_bytes[XI_TENSORS_MAX]; /* of outputs with a fixed size */
    uint8_t out_static[XI_TENSORS_MAX];
};

/* One lane's instance of one model. */
struct xi_runner_instance {
    struct xi_engine_request *request;
    uint64_t bound; /* bit i: output i lies in memory that was handed in */
};

struct xi_runner_batch;
struct xi_stages;

struct xi_runner_lane {
    struct xi_runner *runner;
    struct xi_runner_instance *instances; /* one per model */
    struct xi_flow_run *flow;             /* NULL without a flow */
    struct xi_runner_batch *batch;        /* NULL: max_batch is 1, and no stages */
    struct xi_str json, picture;
    const struct xi_run_request *request; /* that runs through the flow */
    uint64_t deadline_ns, copied_bytes;   /* of the request that runs */
    int end;                              /* as of struct xi_run_result */
};

struct xi_runner_engine {
    struct xi_plugin plugin;
    struct xi_engine *handle;
    struct xi_engine_probe probe;
    char name[XI_NAME_MAX + 1];
    char text[64]; /* "openvino 2026.4.1" */
};

struct xi_runner {
    struct xi_runner_engine *engine;
    const struct xi_engine_table *table; /* the engine's */
    struct xi_manifest *manifest;
    struct xi_flow *flow;
    char link_dir[512];
    uint32_t n_models, n_lanes, n_run_lanes; /* stage lanes are the last */
    struct xi_stages *stages;                /* NULL: not staged */
    struct xi_runner_model *models;          /* [0] is main */
    struct xi_runner_lane *lanes;
    struct xi_runner_info info;
};

/* A whole file of the package (path is one of its manifest), NUL behind it; free() it. */
enum xi_rc xi_runner_read(const struct xi_runner *r, const char *path, uint64_t max, char **ret,
                          size_t *ret_bytes, struct xi_err *err) XI_MUST_CHECK;

/* runner_model.c */
enum xi_rc xi_runner_models_load(struct xi_runner *r, const struct xi_runner_spec *spec,
                                 struct xi_err *err) XI_MUST_CHECK;
void xi_runner_model_unload(struct xi_runner *r, struct xi_runner_model *m);

static inline uint32_t xi_runner_n_in(const struct xi_runner_model *m)
{
    return m->signature.n_inputs + m->n_states;
}
static inline uint32_t xi_runner_n_out(const struct xi_runner_model *m)
{
    return m->signature.n_outputs + m->n_states;
}

/* runner_batch.c */
enum xi_rc xi_runner_batch_new(struct xi_runner_lane *lane, struct xi_err *err) XI_MUST_CHECK;
void xi_runner_batch_free(struct xi_runner_lane *lane);

/* runner_stage.c: what lies between a request's stages. */
struct xi_staged {
    uint64_t id; /* 0: free */
    int busy, forgotten, inferred;
    struct xi_flow_run *flow; /* kept from request to request */
    int start;
    uint32_t n_states;
    struct xi_tensor states[XI_TENSORS_MAX]; /* those that came; after infer, the new ones */
    struct {
        void *data;
        uint64_t room;
    } kept[XI_TENSORS_MAX];
};
enum xi_rc xi_stages_new(struct xi_runner *r, struct xi_err *err) XI_MUST_CHECK;
void xi_stages_free(struct xi_runner *r);
/* The caller's until put; EPROTO: there is none, or not where it stands. */
enum xi_rc xi_staged_get(struct xi_runner *r, uint64_t id, int inferred, struct xi_staged **ret,
                         struct xi_err *err) XI_MUST_CHECK;
void xi_staged_put(struct xi_runner *r, struct xi_staged *staged, int done);
/* Copies the new state's tensors. ENOMEM. */
enum xi_rc xi_staged_keep(struct xi_staged *staged, uint32_t index, const struct xi_tensor *t,
                          struct xi_err *err) XI_MUST_CHECK;

/* runner_run.c: helpers of those. */
enum xi_rc xi_runner_sort_inputs(const struct xi_runner_model *m, const struct xi_run_request *q,
                                 struct xi_tensor inputs[XI_TENSORS_MAX],
                                 struct xi_err *err) XI_MUST_CHECK;
/* State tensors behind the inputs: those that came, or the initial ones. */
enum xi_rc xi_runner_add_states(const struct xi_runner_model *m, const struct xi_tensor *came,
                                uint32_t n, int start, struct xi_tensor inputs[XI_TENSORS_MAX],
                                struct xi_err *err) XI_MUST_CHECK;
/* The answer of a flow that was through post, and the new state behind it. */
enum xi_rc xi_runner_put_flow(struct xi_runner_lane *lane, unsigned want,
                              const struct xi_run_sink *sink, struct xi_run_result *ret,
                              struct xi_err *err) XI_MUST_CHECK;
/* A tensor copied to a place of its own. */
enum xi_rc xi_runner_put_tensor(struct xi_runner_lane *lane, uint32_t index,
                                const struct xi_tensor *t, const struct xi_run_sink *sink,
                                struct xi_run_result *ret, struct xi_err *err) XI_MUST_CHECK;
/* Room for an output: where the request wants it (EREGION: too small), else the sink's. */
enum xi_rc xi_runner_take_place(const struct xi_runner_model *m, const struct xi_run_request *q,
                                uint32_t i, uint64_t bytes, const struct xi_run_sink *sink,
                                struct xi_run_place *ret, struct xi_err *err) XI_MUST_CHECK;
/* An output copied to where the request wants it, or to a place of its own. */
enum xi_rc xi_runner_put_output(struct xi_runner_lane *lane, const struct xi_run_request *q,
                                uint32_t index, const struct xi_tensor *t,
                                const struct xi_run_sink *sink, struct xi_run_result *ret,
                                struct xi_err *err) XI_MUST_CHECK;
void xi_runner_give_all(const struct xi_run_sink *sink, struct xi_run_result *ret);
enum xi_rc xi_runner_check_flow(const struct xi_runner_lane *lane, const struct xi_run_request *q,
                                struct xi_err *err) XI_MUST_CHECK;
/* As infer, with tensors that were checked. */
enum xi_rc xi_runner_infer_checked(struct xi_runner_lane *lane, uint32_t model,
                                   const struct xi_tensor *inputs,
                                   struct xi_err *err) XI_MUST_CHECK;

/* runner_run.c: binds inputs, runs; outputs lie where they were bound, or with the engine. */
enum xi_rc xi_runner_infer(struct xi_runner_lane *lane, uint32_t model,
                           const struct xi_tensor *inputs, uint32_t n_inputs,
                           struct xi_err *err) XI_MUST_CHECK;
enum xi_rc xi_runner_output(struct xi_runner_lane *lane, uint32_t model, uint32_t index,
                            struct xi_tensor *ret, struct xi_err *err) XI_MUST_CHECK;
/* Outputs go back to the engine's own memory. */
enum xi_rc xi_runner_unbind(struct xi_runner_lane *lane, uint32_t model,
                            struct xi_err *err) XI_MUST_CHECK;
int xi_runner_find_model(const struct xi_runner *r, const char *name); /* -1: none */

#endif
