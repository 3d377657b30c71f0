/* lane.c: the hot loop of a host. Per request: one record copied out of the ring, the engine, one
 * record into the other ring. No lock, no allocation, and no system call but the two wake-ups,
 * and those only when the other side sleeps (and two where the record names another core). */
#define _GNU_SOURCE
#include "host/lane.h"

#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/platform/process.h"
#include "base/platform/self.h"
#include "ipc/messages.h"
#include "ipc/ring.h"

enum { SEGMENT_WAIT_MS = 5000 };

struct answer {
    struct xi_done done;
    struct xi_part parts[XI_TENSORS_MAX];
};

/* A request of the record at hand. */
struct item {
    struct xi_work_request q;
    struct xi_part parts[XI_TENSORS_MAX];
    struct xi_run_input inputs[XI_TENSORS_MAX];
    struct xi_run_place places[XI_TENSORS_MAX]; /* by output; read where the request has places */
    int clients;                                /* it reads or writes clients' memory */
};

struct xi_host_lane {
    int fd, submit_fd, complete_fd;
    struct xi_map map;
    struct xi_ring submit, complete;
    struct xi_segments *segments;
    struct xi_outputs *outputs;
    struct xi_runner_lane *runner;
    struct xi_run_sink sink;
    pthread_t thread;
    int nice, started;
    int let_go, quit; /* quit: the lane's own once it was let go */
    sem_t gate;

    /* Of the requests that run: too large for a stack. */
    uint8_t record[XI_RING_RECORD_MAX];
    uint32_t n_items, max_items;
    struct item *items;
    struct xi_run_job *jobs; /* those of the items that are run; the first n_jobs */
    struct item **items_of;  /* the jobs' */
    uint32_t n_jobs;
    struct answer answer;
};

static enum xi_rc attach(struct xi_host_lane *lane, const struct xi_msg_lane *m, struct xi_err *err)
{
    uint64_t bytes;

    if (__builtin_add_overflow(m->submit_bytes, m->complete_bytes, &bytes))
        return xi_fail(err, XI_EPROTO, "rings of no sane size");
    enum xi_rc rc = xi_memory_open(lane->fd, bytes, XI_MAP_READ_WRITE, &lane->map, err);
    if (rc == XI_OK)
        rc = xi_ring_attach(&lane->submit, lane->map.base, m->submit_bytes, err);
    if (rc == XI_OK)
        rc = xi_ring_attach(&lane->complete, (uint8_t *)lane->map.base + m->submit_bytes,
                            m->complete_bytes, err);
    return rc;
}

enum xi_rc xi_host_lane_new(const struct xi_msg_lane *m, const int fds[3],
                            struct xi_segments *segments, struct xi_host_lane **ret,
                            struct xi_err *err)
{
    struct xi_host_lane *lane = calloc(1, sizeof *lane);

    if (lane == NULL || (lane->outputs = xi_outputs_new(m->lane)) == NULL) {
        free(lane);
        return xi_fail(err, XI_ENOMEM, "no memory for a lane");
    }
    (void)sem_init(&lane->gate, 0, 0);
    lane->nice = m->nice;
    lane->segments = segments;
    lane->sink = (struct xi_run_sink){
        .ctx = lane->outputs, .take = xi_outputs_take, .give = xi_outputs_give};
    lane->fd = fds[0];
    enum xi_rc rc = attach(lane, m, err);
    if (rc != XI_OK) {
        lane->fd = lane->submit_fd = lane->complete_fd = -1; /* they stay the caller's */
        xi_host_lane_free(lane);
        return rc;
    }
    lane->submit_fd = fds[1];
    lane->complete_fd = fds[2];
    *ret = lane;
    return XI_OK;
}

struct xi_outputs *xi_host_lane_outputs(struct xi_host_lane *lane)
{
    return lane->outputs;
}

/* ---- answers ---- */

static void push_answer(struct xi_host_lane *lane)
{
    size_t bytes =
        sizeof lane->answer.done + lane->answer.done.n_parts * sizeof *lane->answer.parts;
    struct timespec pause = {.tv_nsec = 200000};
    enum xi_rc rc;

    while ((rc = xi_ring_push(&lane->complete, &lane->answer, bytes)) == XI_EAGAIN)
        (void)nanosleep(&pause, NULL); /* the daemon has hundreds of ours to read */
    if (rc == XI_EPROTO)
        _exit(XI_EXIT_PROTOCOL);
    if (xi_ring_must_wake(&lane->complete))
        xi_wake_signal(lane->complete_fd);
}

static void fill_part(const struct xi_run_output *out, struct xi_part *part)
{
    *part = (struct xi_part){.kind = out->kind,
                             .index = out->index,
                             .dtype = out->tensor.dtype,
                             .rank = out->tensor.rank,
                             .mem = {.segment = out->place.segment,
                                     .offset = out->place.offset,
                                     .bytes = out->tensor.bytes}};
    memcpy(part->dims, out->tensor.dims, sizeof part->dims);
}

static void answer_begin(struct xi_host_lane *lane, uint64_t id)
{
    struct xi_done *d = &lane->answer.done;

    memset(d, 0, sizeof *d);
    d->id = id;
    d->flags = XI_DONE_FINAL;
    d->core = xi_self_core();
}

static void answer_error(struct xi_done *d, enum xi_rc rc, const struct xi_err *err)
{
    d->code = rc;
    (void)snprintf(d->text, sizeof d->text, "%s", err->msg);
    (void)snprintf(d->hint, sizeof d->hint, "%s", err->hint);
}

static void push_result(struct xi_host_lane *lane, const struct xi_run_job *job)
{
    const struct xi_run_result *result = &job->result;
    struct xi_done *done = &lane->answer.done;

    answer_begin(lane, job->request.id);
    done->batch = result->batch;
    done->shape_key = result->shape_key;
    done->pre_ns = result->pre_ns;
    done->device_ns = result->infer_ns;
    done->post_ns = result->post_ns;
    done->copied_bytes = result->copied_bytes;
    if (job->rc != XI_OK) {
        answer_error(done, job->rc, &job->err);
    } else {
        done->n_state = result->n_states;
        for (uint32_t i = 0; i < result->n_outputs; i++)
            fill_part(&result->outputs[i], &lane->answer.parts[done->n_parts++]);
    }
    push_answer(lane);
}

/* ---- requests ---- */

static enum xi_rc look_up(struct xi_host_lane *lane, struct item *item, const struct xi_part *part,
                          struct xi_segment_view *ret, struct xi_err *err)
{
    enum xi_rc rc = xi_segments_find(lane->segments, part->mem.segment, SEGMENT_WAIT_MS, ret, err);

    if (rc == XI_OK)
        rc = xi_part_check(part, ret->map.bytes, err);
    item->clients |= rc == XI_OK && ret->use >= XI_SEGMENT_CLIENT;
    return rc;
}

static enum xi_rc resolve_places(struct xi_host_lane *lane, struct item *item, struct xi_err *err)
{
    uint32_t first = item->q.n_parts - item->q.n_places;
    struct xi_segment_view view;

    if (item->q.n_places > 0)
        memset(item->places, 0, sizeof item->places);
    for (uint32_t i = first; i < item->q.n_parts; i++) {
        const struct xi_part *part = &item->parts[i];
        enum xi_rc rc = look_up(lane, item, part, &view, err);
        if (rc == XI_OK && (part->kind != XI_PART_PLACE || view.use != XI_SEGMENT_CLIENT_OUTPUT))
            rc = xi_fail(err, XI_EPROTO, "a place that cannot be written to");
        if (rc != XI_OK)
            return rc;
        item->places[part->index] =
            (struct xi_run_place){.data = (uint8_t *)view.map.base + part->mem.offset,
                                  .bytes = part->mem.bytes,
                                  .segment = XI_SEGMENT_PLACE};
    }
    return XI_OK;
}

static enum xi_rc resolve(struct xi_host_lane *lane, struct item *item, struct xi_err *err)
{
    struct xi_segment_view view;

    item->clients = 0;
    for (uint32_t i = 0; i < item->q.n_parts - item->q.n_places; i++) {
        const struct xi_part *part = &item->parts[i];
        enum xi_rc rc = look_up(lane, item, part, &view, err);
        if (rc != XI_OK)
            return rc;
        item->inputs[i] = (struct xi_run_input){.kind = part->kind,
                                                .index = part->index,
                                                .tensor = xi_part_tensor(part, view.map.base)};
    }
    return resolve_places(lane, item, err);
}

/* A client's memory went away under it: what was read there is zeros, what was written is lost. */
static void check_spoiled(struct xi_host_lane *lane, const struct item *item,
                          struct xi_run_job *job)
{
    for (uint32_t i = 0; item->clients && i < item->q.n_parts; i++) {
        if (!xi_segments_spoiled(lane->segments, item->parts[i].mem.segment))
            continue;
        if (job->rc == XI_OK)
            for (uint32_t k = 0; k < job->result.n_outputs; k++)
                lane->sink.give(lane->sink.ctx, &job->result.outputs[k].place);
        job->result.n_outputs = job->result.n_states = 0;
        job->rc = xi_fail(&job->err, XI_EREGION,
                          "a shared memory region became shorter while it was used");
        (void)xi_hint(&job->err, "a region must stay as large as it was registered");
        return;
    }
}

static void clear_result(struct xi_run_result *result)
{
    result->n_outputs = result->n_states = result->batch = 0;
    result->end = 0;
    result->shape_key = result->copied_bytes = 0;
    result->pre_ns = result->infer_ns = result->post_ns = 0;
}

/* The item's job, or its answer where it is not to be run. */
static void begin_job(struct xi_host_lane *lane, struct item *item)
{
    struct xi_run_job *job = &lane->jobs[lane->n_jobs];
    const struct xi_work_request *q = &item->q;

    job->request = (struct xi_run_request){.id = q->id,
                                           .inputs = item->inputs,
                                           .n_inputs = q->n_parts - q->n_places,
                                           .places = q->n_places > 0 ? item->places : NULL,
                                           .n_states = q->n_state,
                                           .start = (q->flags & XI_WORK_START) != 0,
                                           .want = q->want,
                                           .deadline_ns = q->deadline_ns};
    job->err.msg[0] = job->err.hint[0] = '\0';
    if (q->deadline_ns != 0 && xi_now_ns() >= q->deadline_ns)
        job->rc = xi_fail(&job->err, XI_ETIMEOUT, "deadline passed before the model was run");
    else
        job->rc = resolve(lane, item, &job->err);
    if (job->rc == XI_OK) {
        lane->items_of[lane->n_jobs++] = item;
        return;
    }
    clear_result(&job->result);
    xi_runner_forget(lane->runner, q->id);
    push_result(lane, job);
}

static void run_stage(struct xi_host_lane *lane, enum xi_work_op op)
{
    for (uint32_t i = 0; i < lane->n_jobs; i++) {
        struct xi_run_job *j = &lane->jobs[i];
        if (op == XI_WORK_PRE)
            j->rc = xi_runner_pre(lane->runner, &j->request, &j->result, &j->err);
        else
            j->rc = xi_runner_post(lane->runner, &j->request, &lane->sink, &j->result, &j->err);
        push_result(lane, j);
    }
}

/* Answers as many as were run; a fresh process takes over where the engine gave itself up. */
static void run_model(struct xi_host_lane *lane, enum xi_work_op op)
{
    int end = op == XI_WORK_ALL
                  ? xi_runner_run_all(lane->runner, lane->jobs, lane->n_jobs, &lane->sink)
                  : xi_runner_infer_all(lane->runner, lane->jobs, lane->n_jobs, &lane->sink);

    for (uint32_t i = 0; i < lane->n_jobs; i++)
        if (lane->jobs[i].answered) {
            check_spoiled(lane, lane->items_of[i], &lane->jobs[i]);
            push_result(lane, &lane->jobs[i]);
        }
    if (end != 0)
        _exit(end);
}

static void serve(struct xi_host_lane *lane, enum xi_work_op op)
{
    lane->n_jobs = 0;
    for (uint32_t i = 0; i < lane->n_items; i++)
        if (op == XI_WORK_FORGET)
            xi_runner_forget(lane->runner, lane->items[i].q.id);
        else
            begin_job(lane, &lane->items[i]);
    lane->n_items = 0;
    if (lane->n_jobs == 0)
        return;
    if (op == XI_WORK_PRE || op == XI_WORK_POST)
        run_stage(lane, op);
    else
        run_model(lane, op);
}

/* EPROTO: it makes no sense, or is not for this lane. */
static enum xi_rc serve_requests(struct xi_host_lane *lane, struct xi_work_view *view)
{
    enum xi_work_op op = (enum xi_work_op)view->head.op;
    int runs = xi_runner_lane_runs(lane->runner),
        on_model = op == XI_WORK_ALL || op == XI_WORK_INFER;
    struct xi_err err;
    enum xi_rc rc;

    if ((on_model && !runs) || (op != XI_WORK_ALL && !xi_runner_lane_staged(lane->runner)))
        return XI_EPROTO;
    do {
        struct item *item = &lane->items[lane->n_items];
        rc = xi_work_next(view, &item->q, item->parts, &err);
        if (rc == XI_OK)
            lane->n_items++;
        if (rc == XI_ENOENT || lane->n_items == lane->max_items)
            serve(lane, op);
    } while (rc == XI_OK);
    return rc == XI_ENOENT ? XI_OK : rc;
}

static void serve_record(struct xi_host_lane *lane, size_t bytes)
{
    struct xi_work_view view;
    struct xi_err err;
    enum xi_rc rc = xi_work_open(lane->record, bytes, &view, &err);

    if (rc == XI_OK && view.head.op == XI_WORK_RELEASE)
        xi_outputs_release(lane->outputs, view.head.release.segment, view.head.release.offset);
    else if (rc == XI_OK && view.head.op == XI_WORK_QUIT)
        lane->quit = 1;
    else if (rc == XI_OK) {
        if (view.head.core != XI_CORE_ANY)
            xi_self_move_to(view.head.core);
        rc = serve_requests(lane, &view);
    }
    if (rc != XI_OK)
        _exit(XI_EXIT_PROTOCOL);
}

static void *lane_main(void *arg)
{
    struct xi_host_lane *lane = arg;
    size_t bytes = 0;

    xi_self_nice(lane->nice);
    while (sem_wait(&lane->gate) != 0)
        continue;
    if (!lane->quit)
        xi_outputs_prepare(lane->outputs);
    while (!lane->quit) {
        enum xi_rc rc = xi_ring_pop(&lane->submit, lane->record, sizeof lane->record, &bytes);
        if (rc == XI_OK)
            serve_record(lane, bytes);
        else if (rc != XI_EAGAIN)
            _exit(XI_EXIT_PROTOCOL);
        else if (!xi_ring_may_sleep(&lane->submit))
            (void)xi_wake_wait(lane->submit_fd, -1);
    }
    return NULL;
}

enum xi_rc xi_host_lane_start(struct xi_host_lane *lane, struct xi_runner_lane *runner,
                              struct xi_err *err)
{
    lane->runner = runner;
    lane->max_items = xi_runner_lane_batch(runner);
    lane->items = calloc(lane->max_items, sizeof *lane->items);
    lane->jobs = calloc(lane->max_items, sizeof *lane->jobs);
    lane->items_of = calloc(lane->max_items, sizeof *lane->items_of);
    if (lane->items == NULL || lane->jobs == NULL || lane->items_of == NULL)
        return xi_fail(err, XI_ENOMEM, "no memory for a lane");
    if (pthread_create(&lane->thread, NULL, lane_main, lane) != 0)
        return xi_fail(err, XI_ENOMEM, "no thread for a lane");
    lane->started = 1;
    return XI_OK;
}

void xi_host_lane_go(struct xi_host_lane *lane)
{
    lane->let_go = 1;
    (void)sem_post(&lane->gate);
}

void xi_host_lane_join(struct xi_host_lane *lane)
{
    if (!lane->started)
        return;
    if (!lane->let_go) {
        lane->quit = 1;
        (void)sem_post(&lane->gate);
    }
    (void)pthread_join(lane->thread, NULL);
    lane->started = 0;
}

void xi_host_lane_free(struct xi_host_lane *lane)
{
    if (lane == NULL)
        return;
    xi_host_lane_join(lane);
    (void)sem_destroy(&lane->gate);
    xi_map_close(&lane->map);
    xi_fd_close(&lane->fd);
    xi_fd_close(&lane->submit_fd);
    xi_fd_close(&lane->complete_fd);
    xi_outputs_free(lane->outputs);
    free(lane->items);
    free(lane->jobs);
    free(lane->items_of);
    free(lane);
}
