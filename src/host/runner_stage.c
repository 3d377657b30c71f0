/* runner_stage.c: requests that go through a flow in stages. What lies between two of them is kept
 * here under the request's id: the flow's values and the state of its sequence. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "host/runner_impl.h"

enum { STAGED_MAX = 1024 };

struct xi_stages {
    pthread_mutex_t lock; /* leaf: over the list, not over an entry that is somebody's */
    uint32_t n;
    struct xi_staged all[];
};

/* As many as can run, and as many again that wait for it or are through. */
enum xi_rc xi_stages_new(struct xi_runner *r, struct xi_err *err)
{
    uint64_t n = 2ull * r->n_run_lanes * r->info.max_batch + 2ull * (r->n_lanes - r->n_run_lanes);

    if (n > STAGED_MAX)
        n = STAGED_MAX;
    r->stages = calloc(1, sizeof *r->stages + n * sizeof *r->stages->all);
    if (r->stages == NULL)
        return xi_fail(err, XI_ENOMEM, "no memory for stages");
    r->stages->n = (uint32_t)n;
    (void)pthread_mutex_init(&r->stages->lock, NULL);
    return XI_OK;
}

void xi_stages_free(struct xi_runner *r)
{
    struct xi_stages *s = r->stages;

    if (s == NULL)
        return;
    for (uint32_t i = 0; i < s->n; i++) {
        xi_flow_run_free(s->all[i].flow);
        for (int k = 0; k < XI_TENSORS_MAX; k++)
            free(s->all[i].kept[k].data);
    }
    (void)pthread_mutex_destroy(&s->lock);
    free(s);
    r->stages = NULL;
}

static struct xi_staged *find(struct xi_stages *s, uint64_t id)
{
    for (uint32_t i = 0; i < s->n; i++)
        if (s->all[i].id == id)
            return &s->all[i];
    return NULL;
}

static enum xi_rc add(struct xi_runner *r, uint64_t id, struct xi_staged **ret, struct xi_err *err)
{
    struct xi_stages *s = r->stages;
    enum xi_rc rc = XI_OK;
    struct xi_staged *e = NULL;

    (void)pthread_mutex_lock(&s->lock);
    if (id == 0 || find(s, id) != NULL)
        rc = xi_fail(err, XI_EPROTO, "request %llu is in its stages already",
                     (unsigned long long)id);
    else if ((e = find(s, 0)) == NULL)
        rc = xi_fail(err, XI_EAGAIN, "%u requests are in their stages", s->n);
    if (rc == XI_OK) {
        e->id = id;
        e->busy = 1;
        *ret = e;
    }
    (void)pthread_mutex_unlock(&s->lock);
    return rc;
}

enum xi_rc xi_staged_get(struct xi_runner *r, uint64_t id, int inferred, struct xi_staged **ret,
                         struct xi_err *err)
{
    struct xi_staged *e = NULL;

    if (r->stages != NULL) {
        (void)pthread_mutex_lock(&r->stages->lock);
        e = id != 0 ? find(r->stages, id) : NULL;
        if (e != NULL && !e->busy && e->inferred == inferred)
            e->busy = 1;
        else
            e = NULL;
        (void)pthread_mutex_unlock(&r->stages->lock);
    }
    if (e == NULL)
        return xi_fail(err, XI_EPROTO, "request %llu does not stand before this stage",
                       (unsigned long long)id);
    *ret = e;
    return XI_OK;
}

static void clear(struct xi_staged *e)
{
    e->id = 0;
    e->inferred = e->forgotten = 0;
    e->n_states = 0;
}

void xi_staged_put(struct xi_runner *r, struct xi_staged *e, int done)
{
    (void)pthread_mutex_lock(&r->stages->lock);
    e->busy = 0;
    if (done || e->forgotten)
        clear(e);
    (void)pthread_mutex_unlock(&r->stages->lock);
}

void xi_runner_forget(struct xi_runner_lane *lane, uint64_t id)
{
    struct xi_stages *s = lane->runner->stages;

    if (s == NULL || id == 0)
        return;
    (void)pthread_mutex_lock(&s->lock);
    struct xi_staged *e = find(s, id);
    if (e != NULL && e->busy)
        e->forgotten = 1;
    else if (e != NULL)
        clear(e);
    (void)pthread_mutex_unlock(&s->lock);
}

enum xi_rc xi_staged_keep(struct xi_staged *e, uint32_t index, const struct xi_tensor *t,
                          struct xi_err *err)
{
    if (e->kept[index].room < t->bytes || e->kept[index].data == NULL) {
        free(e->kept[index].data);
        e->kept[index].room = 0;
        e->kept[index].data = malloc(t->bytes > 0 ? t->bytes : 1);
        if (e->kept[index].data == NULL)
            return xi_fail(err, XI_ENOMEM, "no memory for a state");
        e->kept[index].room = t->bytes;
    }
    if (t->bytes > 0)
        memcpy(e->kept[index].data, t->data, t->bytes);
    e->states[index] = *t;
    e->states[index].data = e->kept[index].data;
    return XI_OK;
}

/* ---- the stages ---- */

static void hash(uint64_t *h, uint64_t v)
{
    for (int i = 0; i < 8; i++, v >>= 8)
        *h = (*h ^ (v & 0xff)) * 0x100000001b3ull; /* FNV-1a */
}

static uint64_t key_of(const struct xi_flow_run *flow)
{
    struct xi_tensor in[XI_TENSORS_MAX];
    uint32_t n = xi_flow_inputs(flow, in);
    uint64_t h = 0xcbf29ce484222325ull;

    for (uint32_t i = 0; i < n; i++) {
        hash(&h, in[i].dtype);
        hash(&h, (uint64_t)in[i].rank);
        for (int d = 0; d < in[i].rank; d++)
            hash(&h, (uint64_t)in[i].dims[d]);
    }
    return h != 0 ? h : 1;
}

static enum xi_rc make(struct xi_runner *r, struct xi_staged *e, const struct xi_run_request *q,
                       struct xi_err *err)
{
    const struct xi_tensor *in = &q->inputs[0].tensor;

    if (e->flow == NULL && (e->flow = xi_flow_run_new(r->flow)) == NULL)
        return xi_fail(err, XI_ENOMEM, "no memory for a flow");
    e->start = q->start;
    e->n_states = q->n_states;
    for (uint32_t k = 0; k < q->n_states; k++)
        e->states[k] = q->inputs[1 + k].tensor;
    return xi_flow_pre(e->flow, in->data, in->bytes, q->want, err);
}

static void clear_result(struct xi_run_result *ret)
{
    ret->n_outputs = ret->n_states = 0;
    ret->batch = 0;
    ret->end = 0;
    ret->shape_key = ret->copied_bytes = 0;
    ret->pre_ns = ret->infer_ns = ret->post_ns = 0;
}

enum xi_rc xi_runner_pre(struct xi_runner_lane *lane, const struct xi_run_request *q,
                         struct xi_run_result *ret, struct xi_err *err)
{
    struct xi_runner *r = lane->runner;
    uint64_t started = xi_now_ns();
    struct xi_staged *e = NULL;

    clear_result(ret);
    if (r->stages == NULL)
        return xi_fail(err, XI_EPROTO, "this session has no stages");
    enum xi_rc rc = q->n_inputs > 0 && q->inputs[0].kind == XI_PART_BYTES
                        ? xi_runner_check_flow(lane, q, err)
                        : xi_fail(err, XI_EINVAL, "tensors have no stage before the model");
    if (rc == XI_OK)
        rc = add(r, q->id, &e, err);
    if (rc != XI_OK)
        return rc;
    rc = make(r, e, q, err);
    if (rc == XI_OK)
        ret->shape_key = key_of(e->flow);
    ret->pre_ns = xi_now_ns() - started;
    xi_staged_put(r, e, rc != XI_OK);
    return rc;
}

enum xi_rc xi_runner_post(struct xi_runner_lane *lane, const struct xi_run_request *q,
                          const struct xi_run_sink *sink, struct xi_run_result *ret,
                          struct xi_err *err)
{
    uint64_t started = xi_now_ns();
    struct xi_staged *e = NULL;

    clear_result(ret);
    lane->copied_bytes = 0;
    enum xi_rc rc = xi_staged_get(lane->runner, q->id, 1, &e, err);
    if (rc != XI_OK)
        return rc;
    xi_str_clear(&lane->json);
    xi_str_clear(&lane->picture);
    rc = xi_flow_post(e->flow, &lane->json, &lane->picture, err);
    if (rc == XI_OK)
        rc = xi_runner_put_flow(lane, q->want, sink, ret, err);
    for (uint32_t k = 0; k < e->n_states && rc == XI_OK; k++)
        rc = xi_runner_put_tensor(lane, k, &e->states[k], sink, ret, err);
    ret->n_states = e->n_states;
    if (rc != XI_OK)
        xi_runner_give_all(sink, ret);
    ret->copied_bytes = lane->copied_bytes;
    ret->post_ns = xi_now_ns() - started;
    xi_staged_put(lane->runner, e, 1);
    return rc;
}
