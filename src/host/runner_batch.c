/* runner_batch.c: several requests in one run of the engine. Each becomes a unit: rows of every
 * input of the model. Units of equal shape make a group, a group makes a run, and each unit takes
 * its own rows of what comes out, never more.
 *
 * A flow's input tensors are made in the batch itself where they are of the shape that the last
 * ones had: a steady stream copies nothing. All else is gathered, once. */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "host/runner_impl.h"

struct unit {
    struct xi_run_job *job; /* NULL: answered */
    struct xi_flow_run *flow;
    struct xi_staged *staged; /* its flow's; the answer waits there */
    uint32_t rows;            /* 0: it can only run alone */
    struct xi_tensor inputs[XI_TENSORS_MAX];
};

/* Those of one run. */
struct group {
    uint32_t n, rows;
    struct unit *units[XI_BATCH_MAX];
};

struct buffer {
    uint8_t *data;
    uint64_t room;
};

struct xi_runner_batch {
    uint32_t max; /* units, and rows of a run */
    uint32_t n;   /* units of this call */
    uint32_t placed;
    struct xi_tensor last[XI_TENSORS_MAX];  /* one row of the shape that was seen last; rank -1 */
    struct buffer place[XI_TENSORS_MAX];    /* where flows write their rows */
    struct buffer gathered[XI_TENSORS_MAX]; /* where others are copied together */
    struct xi_tensor outputs[XI_TENSORS_MAX];
    struct group group;
    struct xi_flow_run **flows; /* one for each unit; [0] is the lane's */
    struct unit units[];
};

enum xi_rc xi_runner_batch_new(struct xi_runner_lane *lane, struct xi_err *err)
{
    uint32_t max = lane->runner->info.max_batch;
    struct xi_runner_batch *b = calloc(1, sizeof *b + max * sizeof *b->units);

    lane->batch = b;
    if (b != NULL)
        b->flows = calloc(max, sizeof *b->flows);
    if (b == NULL || b->flows == NULL)
        return xi_fail(err, XI_ENOMEM, "no memory for batches of %u", max);
    b->max = max;
    b->flows[0] = lane->flow;
    for (int i = 0; i < XI_TENSORS_MAX; i++)
        b->last[i].rank = -1;
    return XI_OK;
}

void xi_runner_batch_free(struct xi_runner_lane *lane)
{
    struct xi_runner_batch *b = lane->batch;

    if (b == NULL)
        return;
    for (uint32_t i = 1; b->flows != NULL && i < b->max; i++)
        xi_flow_run_free(b->flows[i]);
    for (int i = 0; i < XI_TENSORS_MAX; i++) {
        free(b->place[i].data);
        free(b->gathered[i].data);
    }
    free(b->flows);
    free(b);
    lane->batch = NULL;
}

static void answered(struct unit *u, enum xi_rc rc)
{
    u->job->rc = rc;
    u->job->answered = 1;
    u->job = NULL;
}

/* Contents are lost when it grows. Kernels read a little past the end of what they made. */
static enum xi_rc need(struct buffer *b, uint64_t bytes, struct xi_err *err)
{
    if (b->data != NULL && bytes <= b->room)
        return XI_OK;
    free(b->data);
    b->room = 0;
    b->data = aligned_alloc(64, (bytes / 64 + 2) * 64);
    if (b->data == NULL)
        return xi_fail(err, XI_ENOMEM, "no memory for a batch of %llu bytes",
                       (unsigned long long)bytes);
    b->room = bytes;
    return XI_OK;
}

/* ---- units ---- */

static uint32_t n_inputs(const struct xi_runner_lane *lane)
{
    return xi_runner_n_in(&lane->runner->models[0]);
}

/* Equal first dimensions of all inputs; 0: none. */
static uint32_t rows_of(const struct unit *u, uint32_t n)
{
    int64_t rows = n > 0 && u->inputs[0].rank > 0 ? u->inputs[0].dims[0] : 0;

    for (uint32_t i = 0; i < n; i++)
        if (u->inputs[i].rank < 1 || u->inputs[i].dims[0] != rows)
            return 0;
    return rows >= 1 && rows <= XI_BATCH_MAX ? (uint32_t)rows : 0;
}

static int same_row(const struct xi_tensor *a, const struct xi_tensor *b)
{
    return a->dtype == b->dtype && a->rank == b->rank &&
           memcmp(a->dims + 1, b->dims + 1, (size_t)(a->rank - 1) * sizeof *a->dims) == 0;
}

static int may_share(const struct unit *a, const struct unit *b, uint32_t n)
{
    if (a->rows == 0 || b->rows == 0)
        return 0;
    for (uint32_t i = 0; i < n; i++)
        if (!same_row(&a->inputs[i], &b->inputs[i]))
            return 0;
    return 1;
}

static enum xi_rc check_inputs(struct xi_runner_lane *lane, struct unit *u, struct xi_err *err)
{
    const struct xi_runner_model *m = &lane->runner->models[0];
    enum xi_rc rc = XI_OK;

    for (uint32_t i = 0; i < xi_runner_n_in(m) && rc == XI_OK; i++)
        rc = xi_port_check(&m->signature.inputs[i], &u->inputs[i], err);
    u->rows = m->batches ? rows_of(u, xi_runner_n_in(m)) : 0;
    return rc;
}

static enum xi_rc add_states(struct xi_runner_lane *lane, struct unit *u, struct xi_err *err)
{
    const struct xi_run_request *q = &u->job->request;
    struct xi_tensor states[XI_TENSORS_MAX];

    for (uint32_t k = 0; k < q->n_states; k++)
        states[k] = q->inputs[q->n_inputs - q->n_states + k].tensor;
    return xi_runner_add_states(&lane->runner->models[0], states, q->n_states, q->start, u->inputs,
                                err);
}

/* The next row of the batch, where the flow is to leave what it makes. */
static void offer_row(struct xi_runner_lane *lane, struct unit *u)
{
    struct xi_runner_batch *b = lane->batch;
    const struct xi_runner_model *m = &lane->runner->models[0];

    for (uint32_t i = 0; i < m->signature.n_inputs; i++) {
        struct xi_tensor t = b->last[i];
        if (t.rank < 1 || need(&b->place[i], t.bytes * b->max, NULL) != XI_OK)
            return;
        t.data = b->place[i].data + b->placed * t.bytes;
        xi_flow_place(u->flow, i, &t);
    }
}

static int lies_at(const struct xi_runner_batch *b, const struct unit *u, uint32_t n, uint32_t row)
{
    for (uint32_t i = 0; i < n; i++)
        if (b->place[i].data == NULL ||
            u->inputs[i].data != b->place[i].data + row * u->inputs[i].bytes)
            return 0;
    return 1;
}

static enum xi_rc prepare_flow(struct xi_runner_lane *lane, struct unit *u, uint32_t at,
                               struct xi_err *err)
{
    const struct xi_run_request *q = &u->job->request;
    struct xi_runner_batch *b = lane->batch;
    uint64_t started = xi_now_ns();
    enum xi_rc rc = xi_runner_check_flow(lane, q, err);

    if (rc == XI_OK && b->flows[at] == NULL &&
        (b->flows[at] = xi_flow_run_new(lane->runner->flow)) == NULL)
        rc = xi_fail(err, XI_ENOMEM, "no memory for a flow");
    if (rc != XI_OK)
        return rc;
    u->flow = b->flows[at];
    offer_row(lane, u);
    rc = xi_flow_pre(u->flow, q->inputs[0].tensor.data, q->inputs[0].tensor.bytes, q->want, err);
    u->job->result.pre_ns = xi_now_ns() - started;
    if (rc != XI_OK)
        return rc;
    uint32_t n = xi_flow_inputs(u->flow, u->inputs);
    b->placed += lies_at(b, u, n, b->placed) ? 1 : 0;
    return add_states(lane, u, err);
}

/* One whose first stage made its inputs. */
static enum xi_rc prepare_staged(struct xi_runner_lane *lane, struct unit *u, struct xi_err *err)
{
    enum xi_rc rc = xi_staged_get(lane->runner, u->job->request.id, 0, &u->staged, err);

    if (rc != XI_OK)
        return rc;
    u->flow = u->staged->flow;
    (void)xi_flow_inputs(u->flow, u->inputs);
    return xi_runner_add_states(&lane->runner->models[0], u->staged->states, u->staged->n_states,
                                u->staged->start, u->inputs, err);
}

static enum xi_rc prepare_tensors(struct xi_runner_lane *lane, struct unit *u, struct xi_err *err)
{
    enum xi_rc rc =
        xi_runner_sort_inputs(&lane->runner->models[0], &u->job->request, u->inputs, err);

    return rc == XI_OK ? add_states(lane, u, err) : rc;
}

static void prepare(struct xi_runner_lane *lane, struct xi_run_job *job, uint32_t at, int staged)
{
    struct unit *u = &lane->batch->units[at];
    const struct xi_run_request *q = &job->request;
    enum xi_rc rc;

    u->job = job;
    u->flow = NULL;
    u->staged = NULL;
    if (q->n_inputs > 0 && q->inputs[0].kind == XI_PART_BYTES)
        rc = prepare_flow(lane, u, at, &job->err);
    else if (staged && q->n_inputs == 0)
        rc = prepare_staged(lane, u, &job->err);
    else
        rc = prepare_tensors(lane, u, &job->err);
    if (rc == XI_OK)
        rc = check_inputs(lane, u, &job->err);
    if (rc == XI_OK)
        return;
    if (u->staged != NULL)
        xi_staged_put(lane->runner, u->staged, 1);
    answered(u, rc);
}

/* ---- groups ---- */

/* The first that is not answered, and those that may share its run. 0: all are answered. */
static int next_group(const struct xi_runner_lane *lane, struct group *g)
{
    struct xi_runner_batch *b = lane->batch;

    g->n = g->rows = 0;
    for (uint32_t i = 0; i < b->n; i++) {
        struct unit *u = &b->units[i];
        if (u->job == NULL)
            continue;
        if (g->n > 0 && (g->rows + u->rows > b->max || !may_share(g->units[0], u, n_inputs(lane))))
            continue;
        g->units[g->n++] = u;
        g->rows += u->rows;
    }
    return g->n > 0;
}

static int is_in_place(const struct xi_runner_lane *lane, const struct group *g)
{
    uint32_t n = lane->runner->models[0].signature.n_inputs;

    for (uint32_t i = 0; i < g->n; i++)
        if (g->units[i]->rows != 1 || !lies_at(lane->batch, g->units[i], n, i))
            return 0;
    return 1;
}

/* All rows of input `i`, one behind the other. */
static enum xi_rc gather(struct xi_runner_lane *lane, const struct group *g, uint32_t i,
                         struct xi_tensor *ret, struct xi_err *err)
{
    struct buffer *to = &lane->batch->gathered[i];
    enum xi_rc rc = need(to, ret->bytes, err);
    uint64_t at = 0;

    for (uint32_t k = 0; k < g->n && rc == XI_OK; k++) {
        const struct xi_tensor *t = &g->units[k]->inputs[i];
        if (t->bytes > 0)
            memcpy(to->data + at, t->data, t->bytes);
        at += t->bytes;
        g->units[k]->job->result.copied_bytes += t->bytes;
    }
    ret->data = to->data;
    return rc;
}

static enum xi_rc batch_inputs(struct xi_runner_lane *lane, const struct group *g,
                               struct xi_tensor ret[XI_TENSORS_MAX], struct xi_err *err)
{
    int in_place = is_in_place(lane, g);
    enum xi_rc rc = XI_OK;

    for (uint32_t i = 0; i < n_inputs(lane) && rc == XI_OK; i++) {
        ret[i] = g->units[0]->inputs[i];
        if (g->n == 1)
            continue;
        uint64_t row = ret[i].bytes / g->units[0]->rows;
        ret[i].dims[0] = g->rows;
        ret[i].bytes = row * g->rows;
        if (in_place && i < lane->runner->models[0].signature.n_inputs)
            ret[i].data = lane->batch->place[i].data;
        else
            rc = gather(lane, g, i, &ret[i], err);
    }
    return rc;
}

/* What the next flows' tensors probably look like. */
static void remember(struct xi_runner_lane *lane, const struct unit *u)
{
    struct xi_runner_batch *b = lane->batch;

    for (uint32_t i = 0; i < lane->runner->models[0].signature.n_inputs; i++) {
        if (u->rows != 1)
            return;
        b->last[i] = u->inputs[i];
        b->last[i].data = NULL;
    }
}

/* ---- answers ---- */

/* The unit's rows of an output; a unit that ran alone has all of it. */
static struct xi_tensor rows_from(const struct xi_tensor *all, const struct group *g,
                                  uint32_t first, uint32_t rows)
{
    struct xi_tensor t = *all;

    if (g->n == 1)
        return t;
    t.dims[0] = rows;
    t.bytes = all->bytes / g->rows * rows;
    t.data = (uint8_t *)all->data + all->bytes / g->rows * first;
    return t;
}

static enum xi_rc answer_tensors(struct xi_runner_lane *lane, struct unit *u,
                                 const struct xi_tensor *out, const struct xi_run_sink *sink,
                                 struct xi_err *err)
{
    const struct xi_runner_model *m = &lane->runner->models[0];
    enum xi_rc rc = XI_OK;

    for (uint32_t i = 0; i < m->signature.n_outputs && rc == XI_OK; i++)
        rc = xi_runner_put_output(lane, &u->job->request, i, &out[i], sink, &u->job->result, err);
    return rc;
}

static enum xi_rc answer_flow(struct xi_runner_lane *lane, struct unit *u,
                              const struct xi_tensor *out, const struct xi_run_sink *sink,
                              struct xi_err *err)
{
    const struct xi_runner_model *m = &lane->runner->models[0];
    unsigned want = u->job->request.want;
    uint64_t started = xi_now_ns();
    enum xi_rc rc = xi_flow_outputs(u->flow, out, m->signature.n_outputs, 0, err);

    xi_str_clear(&lane->json);
    xi_str_clear(&lane->picture);
    if (rc == XI_OK)
        rc = xi_flow_post(u->flow, &lane->json, &lane->picture, err);
    if (rc == XI_OK)
        rc = xi_runner_put_flow(lane, want, sink, &u->job->result, err);
    u->job->result.post_ns = xi_now_ns() - started;
    return rc;
}

static enum xi_rc answer_states(struct xi_runner_lane *lane, struct unit *u,
                                const struct xi_tensor *state, const struct xi_run_sink *sink,
                                struct xi_err *err)
{
    uint32_t n = lane->runner->models[0].n_states;
    enum xi_rc rc = XI_OK;

    for (uint32_t k = 0; k < n && rc == XI_OK; k++)
        rc = xi_runner_put_tensor(lane, k, &state[k], sink, &u->job->result, err);
    u->job->result.n_states = n;
    return rc;
}

/* Kept for the last stage. */
static enum xi_rc keep(struct xi_runner_lane *lane, struct unit *u, const struct xi_tensor *out,
                       struct xi_err *err)
{
    const struct xi_runner_model *m = &lane->runner->models[0];
    enum xi_rc rc = xi_flow_outputs(u->flow, out, m->signature.n_outputs, 1, err);

    for (uint32_t k = 0; k < m->n_states && rc == XI_OK; k++)
        rc = xi_staged_keep(u->staged, k, &out[m->signature.n_outputs + k], err);
    u->staged->n_states = m->n_states;
    u->staged->inferred = 1;
    return rc;
}

static void answer(struct xi_runner_lane *lane, struct unit *u, const struct group *g,
                   uint32_t first, const struct xi_run_sink *sink)
{
    const struct xi_runner_model *m = &lane->runner->models[0];
    struct xi_tensor out[XI_TENSORS_MAX];
    struct xi_err *err = &u->job->err;
    enum xi_rc rc;

    lane->copied_bytes = 0;
    for (uint32_t i = 0; i < xi_runner_n_out(m); i++)
        out[i] = rows_from(&lane->batch->outputs[i], g, first, u->rows);
    if (u->staged != NULL) {
        rc = keep(lane, u, out, err);
        xi_staged_put(lane->runner, u->staged, rc != XI_OK);
    } else {
        rc = u->flow != NULL ? answer_flow(lane, u, out, sink, err)
                             : answer_tensors(lane, u, out, sink, err);
        if (rc == XI_OK)
            rc = answer_states(lane, u, out + m->signature.n_outputs, sink, err);
    }
    u->job->result.copied_bytes += lane->copied_bytes;
    if (rc != XI_OK)
        xi_runner_give_all(sink, &u->job->result);
    answered(u, rc);
}

/* ---- runs ---- */

static enum xi_rc read_outputs(struct xi_runner_lane *lane, struct xi_err *err)
{
    uint32_t n = xi_runner_n_out(&lane->runner->models[0]);
    enum xi_rc rc = XI_OK;

    for (uint32_t i = 0; i < n && rc == XI_OK; i++)
        rc = xi_runner_output(lane, 0, i, &lane->batch->outputs[i], err);
    return rc;
}

/* Each output has a row for each row that went in. A model may say that axis 0 is free and mean
 * something else by it. */
static int can_be_cut(const struct xi_runner_lane *lane, const struct group *g)
{
    uint32_t n = xi_runner_n_out(&lane->runner->models[0]);

    for (uint32_t i = 0; i < n; i++) {
        const struct xi_tensor *t = &lane->batch->outputs[i];
        if (t->rank < 1 || t->dims[0] != g->rows || xi_dtype_bytes((enum xi_dtype)t->dtype) == 0)
            return 0;
    }
    return 1;
}

/* The latest; 0 where one has none: nobody's run is cut short for another. */
static uint64_t deadline_of(const struct group *g)
{
    uint64_t latest = 0;

    for (uint32_t i = 0; i < g->n; i++) {
        uint64_t d = g->units[i]->job->request.deadline_ns;
        if (d == 0)
            return 0;
        latest = d > latest ? d : latest;
    }
    return latest;
}

static enum xi_rc run_engine(struct xi_runner_lane *lane, const struct group *g, struct xi_err *err)
{
    struct xi_tensor in[XI_TENSORS_MAX];
    uint64_t started = xi_now_ns(), run_ns = 0;
    enum xi_rc rc = batch_inputs(lane, g, in, err);
    uint64_t gather_ns = xi_now_ns() - started;

    lane->deadline_ns = deadline_of(g);
    lane->copied_bytes = 0;
    if (rc == XI_OK)
        rc = xi_runner_unbind(lane, 0, err);
    started = xi_now_ns();
    if (rc == XI_OK)
        rc = xi_runner_infer_checked(lane, 0, in, err);
    run_ns = xi_now_ns() - started;
    if (rc == XI_OK)
        rc = read_outputs(lane, err);
    for (uint32_t i = 0; i < g->n; i++) {
        struct xi_run_result *ret = &g->units[i]->job->result;
        uint64_t rows = g->n == 1 ? 1 : g->units[i]->rows, of = g->n == 1 ? 1 : g->rows;
        ret->batch = g->n == 1 ? 1 : g->rows;
        ret->pre_ns += gather_ns * rows / of;
        ret->infer_ns += run_ns * rows / of;
        ret->copied_bytes += lane->copied_bytes * rows / of;
    }
    return rc;
}

static void fail_unit(struct xi_runner_lane *lane, struct unit *u, enum xi_rc rc,
                      const struct xi_err *err)
{
    u->job->err = *err;
    if (u->staged != NULL)
        xi_staged_put(lane->runner, u->staged, 1);
    answered(u, rc);
}

/* A batch that the engine refuses, or whose result cannot be cut, is run one by one: what is wrong
 * with one request is told to that one alone. Where the engine gave itself up nobody of the batch
 * is answered: who was it is found out in the next host, by trying them one by one. */
static void run_group(struct xi_runner_lane *lane, const struct group *g,
                      const struct xi_run_sink *sink)
{
    struct xi_err err;
    uint32_t first = 0;

    err.msg[0] = err.hint[0] = '\0';
    enum xi_rc rc = run_engine(lane, g, &err);
    if (g->n > 1 && (rc == XI_OK ? !can_be_cut(lane, g) : lane->end == 0)) {
        for (uint32_t i = 0; i < g->n && lane->end == 0; i++) {
            struct group one = {.n = 1, .rows = g->units[i]->rows, .units = {g->units[i]}};
            run_group(lane, &one, sink); /* no deeper: one is not cut */
        }
        return;
    }
    if (rc != XI_OK) {
        if (g->n == 1)
            fail_unit(lane, g->units[0], rc, &err);
        return;
    }
    for (uint32_t i = 0; i < g->n; i++) {
        uint32_t rows = g->units[i]->rows;
        answer(lane, g->units[i], g, first, sink);
        first += rows;
    }
}

static void run_units(struct xi_runner_lane *lane, const struct xi_run_sink *sink)
{
    struct group *g = &lane->batch->group;

    while (lane->end == 0 && next_group(lane, g)) {
        if (g->units[0]->flow != NULL)
            remember(lane, g->units[0]);
        run_group(lane, g, sink);
    }
    for (uint32_t i = 0; i < lane->batch->n; i++) /* the engine gave itself up before them */
        if (lane->batch->units[i].job != NULL && lane->batch->units[i].staged != NULL)
            xi_staged_put(lane->runner, lane->batch->units[i].staged, 1);
}

static void begin(struct xi_run_job *job)
{
    struct xi_run_result *ret = &job->result;

    job->answered = 0;
    job->err.msg[0] = job->err.hint[0] = '\0';
    ret->n_outputs = ret->n_states = ret->batch = 0;
    ret->end = 0;
    ret->shape_key = ret->copied_bytes = 0;
    ret->pre_ns = ret->infer_ns = ret->post_ns = 0;
}

static int run_each(struct xi_runner_lane *lane, struct xi_run_job *jobs, uint32_t n, int staged,
                    const struct xi_run_sink *sink)
{
    struct xi_runner_batch *b = lane->batch;

    lane->end = 0;
    b->n = n;
    b->placed = 0;
    for (uint32_t i = 0; i < n; i++) {
        begin(&jobs[i]);
        prepare(lane, &jobs[i], i, staged);
    }
    run_units(lane, sink);
    return lane->end;
}

int xi_runner_run_all(struct xi_runner_lane *lane, struct xi_run_job *jobs, uint32_t n,
                      const struct xi_run_sink *sink)
{
    if (n > 1 && lane->batch != NULL)
        return run_each(lane, jobs, n, 0, sink);
    for (uint32_t i = 1; i < n; i++)
        jobs[i].answered = 0;
    for (uint32_t i = 0; i < n; i++) {
        struct xi_run_job *j = &jobs[i];
        j->err.msg[0] = j->err.hint[0] = '\0';
        j->result.shape_key = 0;
        j->rc = xi_runner_run(lane, &j->request, sink, &j->result, &j->err);
        j->answered = 1;
        if (j->result.end != 0)
            return j->result.end;
    }
    return 0;
}

int xi_runner_infer_all(struct xi_runner_lane *lane, struct xi_run_job *jobs, uint32_t n,
                        const struct xi_run_sink *sink)
{
    if (n == 1 && jobs[0].request.n_inputs > 0)
        return xi_runner_run_all(lane, jobs, n, sink);
    return run_each(lane, jobs, n, 1, sink);
}
