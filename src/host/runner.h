/* runner.h: a package's models and flow on one engine, ready to run: what the host does with a
 * request, without anything of processes or shared memory. The bench uses it as its in-process
 * baseline.
 *
 * open, warm_up, golden and close are called by one thread, in that order. Afterwards each lane
 * belongs to one thread, and lanes run at once: they share the models (read-only) and nothing
 * else. A steady stream of equal requests allocates nothing here. */
#ifndef XI_HOST_RUNNER_H
#define XI_HOST_RUNNER_H

#include "core/tensor.h"
#include "ipc/work.h"
#include "xinfer/engine.h"

struct xi_runner;
struct xi_runner_engine; /* a plugin, opened once in a process */
struct xi_runner_lane;

/* libs "" or NULL: the plugin's own search. ENOENGINE, EENGINE. */
enum xi_rc xi_runner_engine_open(const char *plugin_dir, const char *name, const char *libs,
                                 struct xi_runner_engine **ret, struct xi_err *err) XI_MUST_CHECK;
/* No runner of it may exist any more. NULL is fine. */
void xi_runner_engine_close(struct xi_runner_engine *engine);

struct xi_runner_spec {
    struct xi_runner_engine *engine; /* borrowed until close */
    const char *link_dir;            /* manifest.json and the package's files */
    const char *cache_dir;           /* "" or NULL: none */
    const char *variant;             /* "": the first of this engine that loads */
    const char *device;      /* id or kind ("cpu"); "" or "auto": the variant's, else the first */
    const char *max_shape;   /* as of struct xi_msg_load; "" or NULL: unknown */
    uint32_t lanes, threads; /* threads 0: 1 */
    uint32_t stage_lanes;    /* for PRE and POST, numbered behind the lanes */
    uint32_t max_batch;      /* 0: 1 */
};

struct xi_runner_info {
    const struct xi_signature *signature; /* of model main, without its state; borrowed */
    const struct xi_port_spec *states;    /* fixed shapes */
    uint32_t n_states;
    uint32_t stateful;  /* enum xi_stateful */
    uint32_t max_batch; /* rows that may share a run */
    int staged;         /* pre, infer and post may be asked for one by one */
    int has_flow, takes_image, draws;
    uint32_t n_goldens;
    char engine[64]; /* "openvino 2026.4.1" */
    char variant[64];
    char device[32];
    uint64_t load_us, warm_us, golden_us;
    uint64_t service_ns; /* one warm request */
};

/* Manifest, plugin, models, flow; the lanes' instances. EMODEL, EPACKAGE, EFLOW, ENOENGINE,
 * EUNSUPPORTED (device), ENOMEM, EENGINE. */
enum xi_rc xi_runner_open(const struct xi_runner_spec *spec, struct xi_runner **ret,
                          struct xi_err *err) XI_MUST_CHECK;
/* No lane may run any more. NULL is fine. */
void xi_runner_close(struct xi_runner *r);
/* Runs each lane once (the first twice, to learn the time of a warm request) and once with a full
 * batch: the golden's picture where there is one, zeros else. A model whose free dimensions don't
 * take 1 stays cold. */
enum xi_rc xi_runner_warm_up(struct xi_runner *r, struct xi_err *err) XI_MUST_CHECK;
/* All goldens of the package on lane 0. EGOLDEN. */
enum xi_rc xi_runner_golden(struct xi_runner *r, struct xi_err *err) XI_MUST_CHECK;
const struct xi_runner_info *xi_runner_info(const struct xi_runner *r);
/* What the engine says that its models hold on a device of its own memory; 0 on the processor,
 * whose memory is this process's. */
uint64_t xi_runner_device_bytes(const struct xi_runner *r);
struct xi_runner_lane *xi_runner_lane(struct xi_runner *r, uint32_t index);
int xi_runner_lane_runs(const struct xi_runner_lane *lane);       /* 0: it is there for stages */
int xi_runner_lane_staged(const struct xi_runner_lane *lane);     /* info.staged */
uint32_t xi_runner_lane_batch(const struct xi_runner_lane *lane); /* info.max_batch, or 1 */

/* Where outputs go. take may fail (ENOMEM); what was taken for a request that fails is given. */
struct xi_run_place {
    void *data;
    uint64_t bytes;   /* asked for */
    uint32_t segment; /* the sink's business, as is offset */
    uint64_t offset;
};
struct xi_run_sink {
    void *ctx;
    enum xi_rc (*take)(void *ctx, uint64_t bytes, struct xi_run_place *ret, struct xi_err *err);
    void (*give)(void *ctx, const struct xi_run_place *place);
};

struct xi_run_input {
    uint32_t kind;           /* XI_PART_TENSOR for model main, or one XI_PART_BYTES for the flow */
    uint32_t index;          /* of the model's input */
    struct xi_tensor tensor; /* only read; XI_PART_BYTES: data and bytes */
};
struct xi_run_request {
    uint64_t id;                       /* of requests in stages */
    const struct xi_run_input *inputs; /* the last n_states are state, in the model's order */
    uint32_t n_inputs, n_states;
    /* By output of the model, XI_TENSORS_MAX: where it is wanted instead of the sink's memory; data
     * NULL: there. NULL: all go there. Answers of a flow always do. */
    const struct xi_run_place *places;
    int start;     /* from the initial state; n_states is 0 */
    unsigned want; /* XI_ANSWER_… */
    uint64_t deadline_ns;
};
struct xi_run_output {
    uint32_t kind, index;
    struct xi_tensor tensor; /* data lies in place */
    struct xi_run_place place;
};
struct xi_run_result {
    uint32_t n_outputs, n_states; /* the last n_states outputs are the new state */
    uint32_t batch;               /* rows that shared the run, 0 or 1: it ran alone */
    uint64_t shape_key;           /* of pre */
    uint64_t pre_ns, infer_ns, post_ns;
    uint64_t copied_bytes; /* that the engine or we had to copy, in and out */
    int end; /* enum xi_host_exit_code: the engine gave itself or its device up, this process is to
              * end so after the answer; 0: it goes on */
    struct xi_run_output outputs[XI_TENSORS_MAX];
};
/* ret is always filled in but for the outputs, which only success has; they are the caller's to
 * give back to the sink. ETENSOR, EIMAGE, EFLOW, EUNSUPPORTED, ENOMEM, EDEVICE, EENGINE, … */
enum xi_rc xi_runner_run(struct xi_runner_lane *lane, const struct xi_run_request *request,
                         const struct xi_run_sink *sink, struct xi_run_result *ret,
                         struct xi_err *err) XI_MUST_CHECK;

/* One of several requests that come together. */
struct xi_run_job {
    struct xi_run_request request;
    enum xi_rc rc;
    int answered; /* 0: not run, because the engine gave itself up before */
    struct xi_err err;
    struct xi_run_result result; /* as of xi_runner_run; times are its share by rows */
};
/* At most info.max_batch jobs. Those of equal shape (but for the rows) share runs of up to
 * max_batch rows: what a flow makes is made right in the batch, tensors are gathered, each answer
 * goes to a place of its own. What is wrong with one is that one's error; an error of the engine
 * is everybody's who shared the run. Returns enum xi_host_exit_code or 0, as of result.end. */
int xi_runner_run_all(struct xi_runner_lane *lane, struct xi_run_job *jobs, uint32_t n,
                      const struct xi_run_sink *sink);

/* ---- in stages (info.staged) ----
 *
 * What a request's stages share is kept under its id, for as many requests as the lanes can use at
 * a time (EAGAIN over that). An error ends the request. pre and post on any lane (they need none of
 * its engine), infer on one that runs. A request's inputs are there until post is through. */
enum xi_rc xi_runner_pre(struct xi_runner_lane *lane, const struct xi_run_request *request,
                         struct xi_run_result *ret, struct xi_err *err) XI_MUST_CHECK;
/* As run_all; jobs are ids of requests that were through pre, or requests of tensors. */
int xi_runner_infer_all(struct xi_runner_lane *lane, struct xi_run_job *jobs, uint32_t n,
                        const struct xi_run_sink *sink);
enum xi_rc xi_runner_post(struct xi_runner_lane *lane, const struct xi_run_request *request,
                          const struct xi_run_sink *sink, struct xi_run_result *ret,
                          struct xi_err *err) XI_MUST_CHECK;
/* Nobody wants it any more. An unknown id is fine. */
void xi_runner_forget(struct xi_runner_lane *lane, uint64_t id);

#endif
