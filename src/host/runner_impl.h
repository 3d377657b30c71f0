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
    struct xi_signature signature;
    uint32_t in_map[XI_TENSORS_MAX], out_map[XI_TENSORS_MAX];
    uint64_t out_bytes[XI_TENSORS_MAX]; /* of outputs with a fixed size */
    uint8_t out_static[XI_TENSORS_MAX];
};

/* One lane's instance of one model. */
struct xi_runner_instance {
    struct xi_engine_request *request;
    uint64_t bound; /* bit i: output i lies in memory that was handed in */
};

struct xi_runner_lane {
    struct xi_runner *runner;
    struct xi_runner_instance *instances; /* one per model */
    struct xi_flow_run *flow;             /* NULL without a flow */
    struct xi_str json, picture;
    uint64_t deadline_ns, copied_bytes; /* of the request that runs */
    int end;                            /* as of struct xi_run_result */
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
    uint32_t n_models, n_lanes;
    struct xi_runner_model *models; /* [0] is main */
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
