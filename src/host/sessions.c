#define _GNU_SOURCE
#include "host/sessions.h"

#include <malloc.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/platform/process.h"
#include "base/platform/self.h"

enum job { JOB_NONE = 0, JOB_LOAD, JOB_UNLOAD };

struct session {
    uint32_t number; /* 0: this place is free */
    enum job job;    /* waits for its turn, or runs */
    uint64_t turn;
    int unload_asked; /* while it loads */
    struct xi_msg_load load;
    struct xi_runner *runner;
    /* of the last job */
    enum xi_rc rc;
    struct xi_err err;
    const char *phase;
    uint64_t memory_bytes, peak_bytes;
};

struct xi_sessions {
    const struct xi_host_args *args;
    const struct xi_sandbox *box;
    struct xi_runner_engine *engine; /* the first load opens it */
    struct xi_host_lane *lanes[XI_HOST_LANES_MAX];
    struct session all[XI_HOST_SESSIONS_MAX];
    uint64_t turns;
    struct session *running; /* its job's thread is `thread` */
    pthread_t thread;
    int through_fd;
};

/* A host that outlives its sessions gives their memory back to the system: left alone, the C
 * library learns from each large block that was freed to keep the next one. */
static void keep_little(void)
{
    (void)mallopt(M_MMAP_THRESHOLD, (int)(4 * XI_MIB));
    (void)mallopt(M_TRIM_THRESHOLD, (int)(8 * XI_MIB));
}

struct xi_sessions *xi_sessions_new(const struct xi_host_args *args, const struct xi_sandbox *box)
{
    struct xi_sessions *s = calloc(1, sizeof *s);

    if (s == NULL)
        return NULL;
    if (args->group)
        keep_little();
    s->args = args;
    s->box = box;
    s->through_fd = xi_wake_new();
    if (s->through_fd < 0) {
        free(s);
        return NULL;
    }
    return s;
}

int xi_sessions_fd(const struct xi_sessions *s)
{
    return s->through_fd;
}

static struct session *find(struct xi_sessions *s, uint32_t number)
{
    for (int i = 0; i < XI_HOST_SESSIONS_MAX; i++)
        if (s->all[i].number == number)
            return &s->all[i];
    return NULL;
}

/* ---- lanes ---- */

enum xi_rc xi_sessions_lane(struct xi_sessions *s, const struct xi_msg_lane *m, int fds[3],
                            struct xi_segments *segments, struct xi_err *err)
{
    if (m->lane >= XI_HOST_LANES_MAX || s->lanes[m->lane] != NULL)
        return xi_fail(err, XI_EPROTO, "lane %u is there already, or cannot be", m->lane);
    return xi_host_lane_new(m, fds, segments, &s->lanes[m->lane], err);
}

struct xi_outputs *xi_sessions_outputs(struct xi_sessions *s, uint32_t lane)
{
    return lane < XI_HOST_LANES_MAX && s->lanes[lane] != NULL ? xi_host_lane_outputs(s->lanes[lane])
                                                              : NULL;
}

static uint32_t lanes_of(const struct session *e)
{
    return e->load.lane_count + e->load.stage_lanes;
}

static void join_lanes(struct xi_sessions *s, const struct session *e)
{
    for (uint32_t i = 0; i < lanes_of(e); i++)
        xi_host_lane_join(s->lanes[e->load.first_lane + i]);
}

/* A session's place and the numbers of its lanes are free again. */
static void forget(struct xi_sessions *s, struct session *e)
{
    for (uint32_t i = 0; i < lanes_of(e); i++) {
        xi_host_lane_free(s->lanes[e->load.first_lane + i]);
        s->lanes[e->load.first_lane + i] = NULL;
    }
    memset(e, 0, sizeof *e);
}

static int is_owned(const struct xi_sessions *s, uint32_t lane)
{
    for (int i = 0; i < XI_HOST_SESSIONS_MAX; i++) {
        const struct session *e = &s->all[i];
        if (e->number != 0 && lane >= e->load.first_lane && lane - e->load.first_lane < lanes_of(e))
            return 1;
    }
    return 0;
}

static void close_runner(struct session *e)
{
    xi_runner_close(e->runner);
    e->runner = NULL;
    (void)malloc_trim(0);
}

/* ---- on the job's thread ---- */

static enum xi_rc prove(struct session *e, struct xi_err *err)
{
    uint64_t started = xi_now_us();

    e->phase = "warm-up";
    xi_control_progress(e->number, e->phase, 0, 0);
    enum xi_rc rc = xi_runner_warm_up(e->runner, err);
    if (rc != XI_OK)
        return rc;
    xi_control_progress(e->number, e->phase, 1000, xi_now_us() - started);
    if (!e->load.run_golden || xi_runner_info(e->runner)->n_goldens == 0)
        return XI_OK;
    e->phase = "golden";
    started = xi_now_us();
    xi_control_progress(e->number, e->phase, 0, 0);
    rc = xi_runner_golden(e->runner, err);
    if (rc == XI_OK)
        xi_control_progress(e->number, e->phase, 1000, xi_now_us() - started);
    return rc;
}

static enum xi_rc open_runner(struct xi_sessions *s, struct session *e, struct xi_err *err)
{
    const struct xi_host_args *a = s->args;
    const struct xi_msg_load *m = &e->load;
    uint64_t started = xi_now_us();
    enum xi_rc rc = XI_OK;

    e->phase = "load";
    xi_control_progress(e->number, e->phase, 0, 0);
    if (s->engine == NULL)
        rc = xi_runner_engine_open(a->plugin_dir, a->engine, a->engine_libs, &s->engine, err);
    struct xi_runner_spec spec = {.engine = s->engine,
                                  .link_dir = m->link_dir[0] ? m->link_dir : a->link_dir,
                                  .cache_dir = m->cache_dir[0] ? m->cache_dir : a->cache_dir,
                                  .variant = m->variant,
                                  .device = m->device,
                                  .max_shape = m->max_shape,
                                  .lanes = m->lane_count,
                                  .stage_lanes = m->stage_lanes,
                                  .threads = m->threads,
                                  .max_batch = m->max_batch};
    if (rc == XI_OK)
        rc = xi_runner_open(&spec, &e->runner, err);
    if (rc == XI_OK)
        xi_control_progress(e->number, e->phase, 1000, xi_now_us() - started);
    return rc;
}

/* Of the process as a whole, and of a device's memory what the engine says; its peak is what it was
 * before where this load did not raise it, so a load beside others counts what it added to what was
 * held. */
static void measure(struct session *e, int alone, uint64_t before, uint64_t peak_before)
{
    (void)xi_process_memory(0, &e->memory_bytes, &e->peak_bytes);
    if (!alone) {
        uint64_t top = e->peak_bytes > peak_before ? e->peak_bytes : e->memory_bytes;
        e->peak_bytes = top > before ? top - before : 0;
    }
    uint64_t device = xi_runner_device_bytes(e->runner);
    if (__builtin_add_overflow(e->peak_bytes, device, &e->peak_bytes))
        e->peak_bytes = UINT64_MAX;
}

static void do_load(struct xi_sessions *s, struct session *e)
{
    uint64_t before = 0, peak_before = 0;
    int alone = s->engine == NULL;

    /* Threads that an engine starts now inherit the level and cannot go up again: wide instances,
     * whose runs need those, load where they serve. Others compute in their lane's thread. */
    if (e->load.threads <= 1)
        xi_self_nice(XI_NICE_LOAD);
    (void)xi_process_memory(0, &before, &peak_before);
    e->rc = open_runner(s, e, &e->err);
    if (e->rc == XI_OK)
        e->rc = prove(e, &e->err);
    if (e->rc == XI_OK) {
        measure(e, alone, before, peak_before);
        return;
    }
    close_runner(e);
}

static void do_unload(struct xi_sessions *s, struct session *e)
{
    join_lanes(s, e);
    close_runner(e);
    e->rc = XI_OK;
    e->memory_bytes = 0;
    (void)xi_process_memory(0, &e->memory_bytes, &e->peak_bytes);
}

static void *job_main(void *arg)
{
    struct xi_sessions *s = arg;

    if (s->running->job == JOB_LOAD)
        do_load(s, s->running);
    else
        do_unload(s, s->running);
    xi_wake_signal(s->through_fd);
    return NULL;
}

/* ---- jobs ---- */

static void start_next(struct xi_sessions *s)
{
    struct session *next = NULL;

    for (int i = 0; i < XI_HOST_SESSIONS_MAX; i++)
        if (s->all[i].job != JOB_NONE && (next == NULL || s->all[i].turn < next->turn))
            next = &s->all[i];
    if (next == NULL || s->running != NULL)
        return;
    s->running = next;
    if (pthread_create(&s->thread, NULL, job_main, s) != 0)
        _Exit(XI_EXIT_ENGINE_BROKEN); /* no thread to be had: a fresh host may have more luck */
}

static void enqueue(struct xi_sessions *s, struct session *e, enum job job)
{
    e->job = job;
    e->turn = ++s->turns;
    start_next(s);
}

static enum xi_rc check_load(struct xi_sessions *s, const struct xi_msg_load *m, struct xi_err *err)
{
    uint64_t end = (uint64_t)m->first_lane + m->lane_count + m->stage_lanes;

    if (end > XI_HOST_LANES_MAX)
        return xi_fail(err, XI_EPROTO, "a load for lanes up to %llu", (unsigned long long)end);
    for (uint32_t i = m->first_lane; i < end; i++)
        if (s->lanes[i] == NULL || is_owned(s, i))
            return xi_fail(err, XI_EPROTO, "a load for lane %u, which is not there or in use", i);
    if (m->session != 0 && find(s, m->session) != NULL)
        return xi_fail(err, XI_EPROTO, "a second load of session %u", m->session);
    for (int i = 0; !s->args->group && i < XI_HOST_SESSIONS_MAX; i++)
        if (m->session == 0 || s->all[i].number != 0)
            return xi_fail(err, XI_EPROTO, "a second session, where there is to be one");
    return m->session != 0 ? XI_OK : xi_fail(err, XI_EPROTO, "a load of session 0");
}

enum xi_rc xi_sessions_load(struct xi_sessions *s, const struct xi_msg_load *m, struct xi_err *err)
{
    enum xi_rc rc = check_load(s, m, err);

    if (rc != XI_OK)
        return rc;
    struct session *e = find(s, 0);
    if (e == NULL)
        return xi_fail(err, XI_EPROTO, "more than %d sessions", XI_HOST_SESSIONS_MAX);
    e->number = m->session;
    e->load = *m;
    enqueue(s, e, JOB_LOAD);
    return XI_OK;
}

enum xi_rc xi_sessions_unload(struct xi_sessions *s, uint32_t number, struct xi_err *err)
{
    struct session *e = number != 0 ? find(s, number) : NULL;

    if (number != 0 && e == NULL) { /* its load failed while the daemon asked */
        struct xi_msg_unload m = {.session = number};
        uint64_t peak;

        (void)xi_process_memory(0, &m.memory_bytes, &peak);
        return xi_control_send(&m, XI_MSG_UNLOADED, sizeof m);
    }
    if (e == NULL || e->job == JOB_UNLOAD || e->unload_asked)
        return xi_fail(err, XI_EPROTO, "session %u is to be unloaded and is not there", number);
    if (e == s->running)
        e->unload_asked = 1; /* a load ends in its own time */
    else
        enqueue(s, e, JOB_UNLOAD); /* also one whose load has not begun */
    return XI_OK;
}

/* ---- results ---- */

static enum xi_rc send_loaded(const struct session *e, struct xi_err *err)
{
    const struct xi_runner_info *info = xi_runner_info(e->runner);
    struct xi_msg_port states[XI_TENSORS_MAX];

    for (uint32_t i = 0; i < info->n_states; i++)
        states[i] = xi_msg_port_of(&info->states[i]);
    struct xi_msg_loaded *m = xi_msg_loaded_new(info->signature, states, info->n_states);
    if (m == NULL)
        return xi_fail(err, XI_ENOMEM, "no memory to answer");
    m->stateful = info->stateful;
    m->max_batch = info->max_batch;
    m->staged = (uint32_t)info->staged;
    m->session = e->number;
    m->lane_count = e->load.lane_count;
    m->has_flow = (uint32_t)info->has_flow;
    m->takes_image = (uint32_t)info->takes_image;
    m->draws = (uint32_t)info->draws;
    m->n_goldens = info->n_goldens;
    m->load_us = info->load_us;
    m->warm_us = info->warm_us;
    m->golden_us = info->golden_us;
    m->service_ns = info->service_ns;
    m->memory_bytes = e->memory_bytes;
    m->peak_bytes = e->peak_bytes;
    (void)snprintf(m->engine, sizeof m->engine, "%s", info->engine);
    enum xi_rc rc = xi_control_send(m, XI_MSG_LOADED, m->head.bytes);
    free(m);
    return rc;
}

/* All of them or none. */
static enum xi_rc start_lanes(struct xi_sessions *s, struct session *e, struct xi_err *err)
{
    enum xi_rc rc = s->args->group ? XI_OK : xi_sandbox_enter_run(s->box, err);

    for (uint32_t i = 0; i < lanes_of(e) && rc == XI_OK; i++)
        rc =
            xi_host_lane_start(s->lanes[e->load.first_lane + i], xi_runner_lane(e->runner, i), err);
    return rc;
}

/* 0: it has failed in a host of its own. */
static int load_is_through(struct xi_sessions *s, struct session *e)
{
    if (e->rc == XI_OK) {
        e->phase = "start";
        e->rc = start_lanes(s, e, &e->err);
    }
    if (e->rc == XI_OK)
        e->rc = send_loaded(e, &e->err);
    if (e->rc == XI_OK) {
        for (uint32_t i = 0; i < lanes_of(e); i++)
            xi_host_lane_go(s->lanes[e->load.first_lane + i]);
        return 1;
    }
    int lost = e->rc == XI_EDEVICE;
    xi_control_failed(e->number, &e->err, e->phase);
    if (lost)
        _Exit(XI_EXIT_DEVICE_LOST); /* for the others of this device as well */
    join_lanes(s, e);
    close_runner(e);
    forget(s, e);
    return s->args->group;
}

static void unload_is_through(struct xi_sessions *s, struct session *e)
{
    struct xi_msg_unload m = {.session = e->number, .memory_bytes = e->memory_bytes};

    forget(s, e);
    (void)!xi_control_send(&m, XI_MSG_UNLOADED, sizeof m); /* its end shows at the next recv */
}

int xi_sessions_reap(struct xi_sessions *s)
{
    struct session *e = s->running;
    int useful = 1;

    xi_wake_drain(s->through_fd);
    if (e == NULL)
        return 1;
    (void)pthread_join(s->thread, NULL);
    s->running = NULL;
    enum job was = e->job;
    e->job = JOB_NONE;
    if (was == JOB_UNLOAD || e->unload_asked) {
        if (was == JOB_LOAD)
            close_runner(e);
        unload_is_through(s, e);
    } else {
        useful = load_is_through(s, e);
    }
    start_next(s);
    return useful;
}

void xi_sessions_free(struct xi_sessions *s)
{
    if (s->running != NULL)
        _Exit(0);
    for (int i = 0; i < XI_HOST_SESSIONS_MAX; i++) {
        struct session *e = &s->all[i];
        if (e->number == 0)
            continue;
        join_lanes(s, e);
        xi_runner_close(e->runner);
        forget(s, e);
    }
    for (int i = 0; i < XI_HOST_LANES_MAX; i++)
        xi_host_lane_free(s->lanes[i]); /* those that no load came for */
    xi_runner_engine_close(s->engine);
    xi_fd_close(&s->through_fd);
    free(s);
}
