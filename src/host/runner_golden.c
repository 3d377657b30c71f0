/* runner_golden.c: the first runs of a session: warm-up, and the proof by the package's goldens. */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/json.h"
#include "host/runner_impl.h"
#include "package/golden.h"

#define SAMPLE_MAX (256 * XI_MIB)

/* A sink of plain memory. */
static enum xi_rc heap_take(void *ctx, uint64_t bytes, struct xi_run_place *ret, struct xi_err *err)
{
    (void)ctx;
    void *data = aligned_alloc(64, (bytes / 64 + 1) * 64);
    if (data == NULL)
        return xi_fail(err, XI_ENOMEM, "no memory for an output of %llu bytes",
                       (unsigned long long)bytes);
    *ret = (struct xi_run_place){.data = data, .bytes = bytes};
    return XI_OK;
}

static void heap_give(void *ctx, const struct xi_run_place *place)
{
    (void)ctx;
    free(place->data);
}

static const struct xi_run_sink heap = {.take = heap_take, .give = heap_give};

static void drop_outputs(struct xi_run_result *result)
{
    for (uint32_t i = 0; i < result->n_outputs; i++)
        heap_give(NULL, &result->outputs[i].place);
    result->n_outputs = 0;
}

/* ---- inputs of our own making ---- */

/* Tensors with memory behind them. */
struct sample {
    uint32_t n;
    struct xi_tensor tensors[XI_TENSORS_MAX];
};

static void sample_fini(struct sample *s)
{
    for (uint32_t i = 0; i < s->n; i++)
        free(s->tensors[i].data);
    s->n = 0;
}

/* Zeros; a free dimension is 1, BYTES elements are empty. */
static enum xi_rc zero_tensor(const struct xi_port_spec *port, struct xi_tensor *ret,
                              struct xi_err *err)
{
    int64_t dims[XI_MAX_RANK] = {0};
    int rank = port->rank < 0 ? 1 : port->rank;
    uint64_t elements = 0, bytes = 0;

    for (int i = 0; i < rank; i++)
        dims[i] = port->rank < 0 || port->dims[i] < 0 ? 1 : port->dims[i];
    enum xi_rc rc = xi_shape_elements(dims, rank, &elements, err);
    size_t each = xi_dtype_bytes(port->dtype);
    if (rc == XI_OK && __builtin_mul_overflow(elements, each ? each : 4, &bytes))
        rc = XI_ETENSOR;
    if (rc != XI_OK || bytes > XI_BODY_MAX)
        return xi_fail(err, XI_EMODEL, "input \"%.60s\" is over %llu MiB", port->name,
                       (unsigned long long)(XI_BODY_MAX / XI_MIB));
    void *data = calloc(1, bytes ? bytes : 1);
    if (data == NULL)
        return xi_fail(err, XI_ENOMEM, "no memory to warm up");
    *ret = xi_tensor_make(port->dtype, dims, rank, data, bytes);
    return XI_OK;
}

static enum xi_rc zero_inputs(const struct xi_signature *s, struct sample *ret, struct xi_err *err)
{
    enum xi_rc rc = XI_OK;

    for (ret->n = 0; ret->n < s->n_inputs && rc == XI_OK;) {
        rc = zero_tensor(&s->inputs[ret->n], &ret->tensors[ret->n], err);
        if (rc == XI_OK)
            ret->n++;
    }
    return rc;
}

/* ---- warm-up ---- */

static int has_free_dims(const struct xi_signature *s)
{
    for (uint32_t i = 0; i < s->n_inputs; i++) {
        if (s->inputs[i].rank < 0)
            return 1;
        for (int d = 0; d < s->inputs[i].rank; d++)
            if (s->inputs[i].dims[d] < 0)
                return 1;
    }
    return 0;
}

/* State is the initial one. */
static enum xi_rc infer_from_start(struct xi_runner_lane *lane, uint32_t model,
                                   const struct sample *sample, struct xi_err *err)
{
    const struct xi_runner_model *m = &lane->runner->models[model];
    struct xi_tensor all[XI_TENSORS_MAX];

    memcpy(all, sample->tensors, sample->n * sizeof *all);
    enum xi_rc rc = xi_runner_add_states(m, NULL, 0, 1, all, err);
    return rc == XI_OK ? xi_runner_infer(lane, model, all, sample->n + m->n_states, err) : rc;
}

/* A model with free dimensions may refuse ours: then its first request warms it. */
static enum xi_rc warm_model(struct xi_runner_lane *lane, uint32_t model, struct xi_err *err)
{
    const struct xi_signature *s = &lane->runner->models[model].signature;
    struct sample zeros = {0};
    enum xi_rc rc = zero_inputs(s, &zeros, err);

    lane->deadline_ns = 0;
    if (rc == XI_OK)
        rc = infer_from_start(lane, model, &zeros, err);
    sample_fini(&zeros);
    return rc == XI_ETENSOR && has_free_dims(s) ? XI_OK : rc;
}

static enum xi_rc run_bytes(struct xi_runner_lane *lane, const void *data, size_t bytes,
                            struct xi_run_result *ret, struct xi_err *err)
{
    struct xi_run_input in = {.kind = XI_PART_BYTES};
    struct xi_run_request q = {.inputs = &in, .n_inputs = 1, .start = 1, .want = XI_ANSWER_JSON};

    in.tensor.data = (void *)(uintptr_t)data;
    in.tensor.bytes = bytes;
    return xi_runner_run(lane, &q, &heap, ret, err);
}

/* The input of the first golden that goes through the flow; NULL: there is none. */
static enum xi_rc sample_picture(struct xi_runner *r, char **ret, size_t *ret_bytes,
                                 struct xi_err *err)
{
    *ret = NULL;
    for (size_t i = 0; i < r->manifest->n_goldens; i++)
        if (r->manifest->goldens[i].input_file != NULL)
            return xi_runner_read(r, r->manifest->goldens[i].input_file, SAMPLE_MAX, ret, ret_bytes,
                                  err);
    return XI_OK;
}

static enum xi_rc warm_lane(struct xi_runner_lane *lane, const char *picture, size_t bytes,
                            struct xi_run_result *result, struct xi_err *err)
{
    struct xi_runner *r = lane->runner;
    enum xi_rc rc = XI_OK;

    if (r->flow != NULL && picture != NULL) {
        rc = run_bytes(lane, picture, bytes, result, err);
        drop_outputs(result);
        return rc;
    }
    for (uint32_t m = 0; m < r->n_models && rc == XI_OK; m++)
        rc = warm_model(lane, m, err);
    return rc;
}

/* As many as share a run at most, through all that they go through when they serve. */
static enum xi_rc run_full_batch(struct xi_runner_lane *lane, const struct xi_run_input *inputs,
                                 uint32_t n_inputs, struct xi_err *err)
{
    uint32_t n = lane->runner->info.max_batch;
    struct xi_run_job *jobs = calloc(n, sizeof *jobs);
    enum xi_rc rc = XI_OK;

    if (jobs == NULL)
        return xi_fail(err, XI_ENOMEM, "no memory to warm up batches of %u", n);
    for (uint32_t i = 0; i < n; i++)
        jobs[i].request = (struct xi_run_request){
            .inputs = inputs,
            .n_inputs = n_inputs,
            .start = 1,
            .want = inputs[0].kind == XI_PART_BYTES ? XI_ANSWER_JSON : XI_ANSWER_TENSORS};
    (void)xi_runner_run_all(lane, jobs, n, &heap);
    for (uint32_t i = 0; i < n; i++) {
        drop_outputs(&jobs[i].result);
        if (rc == XI_OK && jobs[i].rc != XI_OK) {
            rc = jobs[i].rc;
            *err = jobs[i].err;
        }
    }
    free(jobs);
    return rc;
}

static enum xi_rc warm_batch(struct xi_runner_lane *lane, const char *picture, size_t bytes,
                             struct xi_err *err)
{
    const struct xi_signature *s = &lane->runner->models[0].signature;
    struct xi_run_input inputs[XI_TENSORS_MAX] = {{.kind = XI_PART_BYTES}};
    struct sample zeros = {0};
    enum xi_rc rc = XI_OK;

    if (lane->runner->info.max_batch < 2)
        return XI_OK;
    if (lane->runner->flow != NULL && picture != NULL) {
        inputs[0].tensor.data = (void *)(uintptr_t)picture;
        inputs[0].tensor.bytes = bytes;
        return run_full_batch(lane, inputs, 1, err);
    }
    rc = zero_inputs(s, &zeros, err);
    for (uint32_t i = 0; i < zeros.n; i++)
        inputs[i] =
            (struct xi_run_input){.kind = XI_PART_TENSOR, .index = i, .tensor = zeros.tensors[i]};
    if (rc == XI_OK && zeros.n > 0)
        rc = run_full_batch(lane, inputs, zeros.n, err);
    sample_fini(&zeros);
    return rc == XI_ETENSOR ? XI_OK : rc; /* has free dimensions that don't take 1 */
}

enum xi_rc xi_runner_warm_up(struct xi_runner *r, struct xi_err *err)
{
    uint64_t started = xi_now_us();
    struct xi_run_result *result = calloc(1, sizeof *result);
    char *picture = NULL;
    size_t bytes = 0;

    if (result == NULL)
        return xi_fail(err, XI_ENOMEM, "no memory to warm up");
    enum xi_rc rc = sample_picture(r, &picture, &bytes, err);
    for (uint32_t i = 0; i < r->n_run_lanes && rc == XI_OK; i++)
        rc = warm_lane(&r->lanes[i], picture, bytes, result, err);
    uint64_t again = xi_now_ns();
    if (rc == XI_OK)
        rc = warm_lane(&r->lanes[0], picture, bytes, result, err);
    r->info.service_ns = xi_now_ns() - again;
    for (uint32_t i = 0; i < r->n_run_lanes && rc == XI_OK; i++)
        rc = warm_batch(&r->lanes[i], picture, bytes, err);
    r->info.warm_us = xi_now_us() - started;
    free(picture);
    free(result);
    return rc != XI_OK ? xi_wrap(err, rc, "warm-up") : XI_OK;
}

/* ---- goldens ---- */

static void put_number(enum xi_dtype dtype, const json_t *value, uint8_t *dst)
{
    double d = json_is_boolean(value) ? json_is_true(value) : json_number_value(value);
    int64_t i = json_is_integer(value) ? json_integer_value(value) : (int64_t)d;
    float f = (float)d;
    uint32_t bits;
    uint16_t half;

    switch (dtype) {
    case XI_DT_FP64:
        memcpy(dst, &d, sizeof d);
        break;
    case XI_DT_FP32:
        memcpy(dst, &f, sizeof f);
        break;
    case XI_DT_FP16:
        half = xi_float_to_half(f);
        memcpy(dst, &half, sizeof half);
        break;
    case XI_DT_BF16: /* to the nearest, ties to even */
        memcpy(&bits, &f, sizeof bits);
        half = (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
        memcpy(dst, &half, sizeof half);
        break;
    default: /* integers: little-endian, the low bytes are the value */
        memcpy(dst, &i, xi_dtype_bytes(dtype));
    }
}

/* Values of a tensor of a golden, from its entry or from the manifest; free() it. */
static enum xi_rc golden_bytes(const struct xi_runner *r, const struct xi_manifest_tensor *t,
                               char **ret, size_t *ret_bytes, struct xi_err *err)
{
    if (t->file != NULL)
        return xi_runner_read(r, t->file, SAMPLE_MAX, ret, ret_bytes, err);
    size_t each = xi_dtype_bytes(t->port.dtype), n = t->data ? json_array_size(t->data) : 0;
    if (each == 0 || n == 0)
        return xi_fail(err, XI_EGOLDEN, "golden tensor \"%.60s\" has no values", t->port.name);
    uint8_t *bytes = malloc(n * each);
    if (bytes == NULL)
        return xi_fail(err, XI_ENOMEM, "no memory for a golden");
    for (size_t i = 0; i < n; i++)
        put_number(t->port.dtype, json_array_get(t->data, i), bytes + i * each);
    *ret = (char *)bytes;
    *ret_bytes = n * each;
    return XI_OK;
}

static int find_port(const struct xi_port_spec *ports, uint32_t n, const char *name)
{
    for (uint32_t i = 0; i < n; i++)
        if (strcmp(ports[i].name, name) == 0)
            return (int)i;
    return -1;
}

static enum xi_rc golden_inputs(struct xi_runner *r, const struct xi_runner_model *m,
                                const struct xi_manifest_golden *g, struct sample *s,
                                struct xi_err *err)
{
    char *data = NULL;
    size_t bytes = 0;

    if (g->n_inputs != m->signature.n_inputs)
        return xi_fail(err, XI_EGOLDEN, "%zu inputs where the model wants %u", g->n_inputs,
                       m->signature.n_inputs);
    s->n = m->signature.n_inputs; /* zeroed: free of what is not there yet is fine */
    for (size_t i = 0; i < g->n_inputs; i++) {
        const struct xi_port_spec *port = &g->inputs[i].port;
        int at = find_port(m->signature.inputs, m->signature.n_inputs, port->name);
        if (at < 0 || s->tensors[at].data != NULL)
            return xi_fail(err, XI_EGOLDEN, "input \"%.60s\" %s", port->name,
                           at < 0 ? "does not exist" : "is given twice");
        enum xi_rc rc = golden_bytes(r, &g->inputs[i], &data, &bytes, err);
        if (rc != XI_OK)
            return rc;
        s->tensors[at] = xi_tensor_make(port->dtype, port->dims, port->rank, data, bytes);
    }
    return XI_OK;
}

static enum xi_rc check_expects(struct xi_runner *r, uint32_t model,
                                const struct xi_manifest_golden *g, struct xi_err *err)
{
    const struct xi_signature *s = &r->models[model].signature;
    struct xi_tensor got;
    char *data = NULL;
    size_t bytes = 0;
    enum xi_rc rc = XI_OK;

    for (size_t i = 0; i < g->n_expects && rc == XI_OK; i++) {
        const struct xi_manifest_tensor *e = &g->expects[i];
        int at = find_port(s->outputs, s->n_outputs, e->port.name);
        if (at < 0)
            return xi_fail(err, XI_EGOLDEN, "output \"%.60s\" does not exist", e->port.name);
        rc = xi_runner_output(&r->lanes[0], model, (uint32_t)at, &got, err);
        if (rc == XI_OK)
            rc = golden_bytes(r, e, &data, &bytes, err);
        if (rc != XI_OK)
            return rc;
        rc = xi_golden_check_tensor(g, e, data, bytes, &got, err);
        free(data);
    }
    return rc;
}

static enum xi_rc golden_tensors(struct xi_runner *r, const struct xi_manifest_golden *g,
                                 struct xi_err *err)
{
    int model = xi_runner_find_model(r, g->model ? g->model : "main");
    struct sample inputs = {0};

    if (model < 0)
        return xi_fail(err, XI_EGOLDEN, "model \"%.60s\" does not exist", g->model);
    enum xi_rc rc = golden_inputs(r, &r->models[model], g, &inputs, err);
    r->lanes[0].deadline_ns = 0;
    if (rc == XI_OK)
        rc = xi_runner_unbind(&r->lanes[0], (uint32_t)model, err);
    if (rc == XI_OK)
        rc = infer_from_start(&r->lanes[0], (uint32_t)model, &inputs, err);
    if (rc == XI_OK)
        rc = check_expects(r, (uint32_t)model, g, err);
    sample_fini(&inputs);
    return rc;
}

static enum xi_rc check_answer(struct xi_runner *r, const struct xi_manifest_golden *g,
                               const struct xi_run_output *out, struct xi_err *err)
{
    char *text = NULL;
    size_t bytes = 0;
    json_t *expect = NULL, *got = NULL;
    enum xi_rc rc = xi_runner_read(r, g->expect_file, 16 * XI_MIB, &text, &bytes, err);

    if (rc == XI_OK)
        rc = xi_json_parse(text, bytes, 16 * XI_MIB, &expect, err);
    if (rc == XI_OK)
        rc = xi_json_parse(out->tensor.data, out->tensor.bytes, 16 * XI_MIB, &got, err);
    if (rc == XI_OK)
        rc = xi_golden_check_answer(g, expect, got, err);
    json_decref(expect);
    json_decref(got);
    free(text);
    return rc;
}

static enum xi_rc golden_flow(struct xi_runner *r, const struct xi_manifest_golden *g,
                              struct xi_err *err)
{
    struct xi_run_result *result = calloc(1, sizeof *result);
    char *input = NULL;
    size_t bytes = 0;

    if (result == NULL)
        return xi_fail(err, XI_ENOMEM, "no memory for a golden");
    enum xi_rc rc = xi_runner_read(r, g->input_file, SAMPLE_MAX, &input, &bytes, err);
    if (rc == XI_OK)
        rc = run_bytes(&r->lanes[0], input, bytes, result, err);
    if (rc == XI_OK)
        rc = check_answer(r, g, &result->outputs[0], err);
    drop_outputs(result);
    free(input);
    free(result);
    return rc;
}

enum xi_rc xi_runner_golden(struct xi_runner *r, struct xi_err *err)
{
    uint64_t started = xi_now_us();
    enum xi_rc rc = XI_OK;

    for (size_t i = 0; i < r->manifest->n_goldens && rc == XI_OK; i++) {
        const struct xi_manifest_golden *g = &r->manifest->goldens[i];
        if (g->input_file != NULL && g->expect_file != NULL)
            rc = golden_flow(r, g, err);
        else if (g->input_file == NULL && g->n_expects > 0)
            rc = golden_tensors(r, g, err);
        else /* a proof that cannot be made is none */
            rc = xi_fail(err, XI_EUNSUPPORTED, "mixes a flow's side with tensors");
        if (rc != XI_OK)
            rc = xi_wrap(err, rc, "golden \"%.40s\"", g->id);
    }
    r->info.golden_us = xi_now_us() - started;
    return rc;
}
