/* run.c: role run: one session. The main thread loads and proves it, then reads control messages;
 * each lane is a thread of its own. The daemon's end of the socket closing ends the process. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/platform/process.h"
#include "host/control.h"
#include "host/lane.h"
#include "host/sandbox.h"

enum { EXIT_DAEMON_GONE = 3, EXIT_CONFUSED = 4 };

struct run {
    const struct xi_host_args *args;
    struct xi_sandbox box;
    struct xi_segments *segments;
    struct xi_runner *runner;
    uint32_t n_lanes;
    struct xi_host_lane *lanes[XI_LANES_MAX];
    uint64_t memory_bytes, peak_bytes; /* after warm-up; later /proc is out of reach */
    int quit;
    /* One message; aligned for the structs in it. Ours come from the daemon: a few hundred bytes.
     */
    _Alignas(8) uint8_t inbox[4096];
};

/* ---- loading ---- */

static enum xi_rc prove(struct run *run, const struct xi_msg_load *m, const char **ret_phase,
                        struct xi_err *err)
{
    uint64_t started = xi_now_us();

    *ret_phase = "warm-up";
    xi_control_progress(*ret_phase, 0, 0);
    enum xi_rc rc = xi_runner_warm_up(run->runner, err);
    if (rc != XI_OK)
        return rc;
    xi_control_progress(*ret_phase, 1000, xi_now_us() - started);
    if (!m->run_golden || xi_runner_info(run->runner)->n_goldens == 0)
        return XI_OK;
    *ret_phase = "golden";
    started = xi_now_us();
    xi_control_progress(*ret_phase, 0, 0);
    rc = xi_runner_golden(run->runner, err);
    if (rc == XI_OK)
        xi_control_progress(*ret_phase, 1000, xi_now_us() - started);
    return rc;
}

static enum xi_rc load(struct run *run, const struct xi_msg_load *m, const char **ret_phase,
                       struct xi_err *err)
{
    uint64_t started = xi_now_us();
    struct xi_runner_spec spec = {.plugin_dir = run->args->plugin_dir,
                                  .engine = run->args->engine,
                                  .engine_libs = run->args->engine_libs,
                                  .link_dir = m->link_dir[0] ? m->link_dir : run->args->link_dir,
                                  .cache_dir =
                                      m->cache_dir[0] ? m->cache_dir : run->args->cache_dir,
                                  .variant = m->variant,
                                  .device = m->device,
                                  .lanes = m->lane_count,
                                  .threads = m->threads,
                                  .max_batch = m->max_batch};

    *ret_phase = "load";
    xi_control_progress(*ret_phase, 0, 0);
    enum xi_rc rc = xi_runner_open(&spec, &run->runner, err);
    if (rc != XI_OK)
        return rc;
    xi_control_progress(*ret_phase, 1000, xi_now_us() - started);
    rc = prove(run, m, ret_phase, err);
    if (rc != XI_OK)
        return rc;
    *ret_phase = "start";
    (void)xi_process_memory(0, &run->memory_bytes, &run->peak_bytes);
    rc = xi_sandbox_enter_run(&run->box, err);
    for (uint32_t i = 0; i < run->n_lanes && rc == XI_OK; i++)
        rc = xi_host_lane_start(run->lanes[i], xi_runner_lane(run->runner, i), err);
    return rc;
}

static enum xi_rc send_loaded(struct run *run, const struct xi_msg_load *load, struct xi_err *err)
{
    const struct xi_runner_info *info = xi_runner_info(run->runner);
    struct xi_msg_loaded *m = xi_msg_loaded_new(info->signature, NULL, 0);

    if (m == NULL)
        return xi_fail(err, XI_ENOMEM, "no memory to answer");
    m->session = load->session;
    m->lane_count = load->lane_count;
    m->has_flow = (uint32_t)info->has_flow;
    m->takes_image = (uint32_t)info->takes_image;
    m->draws = (uint32_t)info->draws;
    m->n_goldens = info->n_goldens;
    m->load_us = info->load_us;
    m->warm_us = info->warm_us;
    m->golden_us = info->golden_us;
    m->service_ns = info->service_ns;
    m->memory_bytes = run->memory_bytes;
    m->peak_bytes = run->peak_bytes;
    (void)snprintf(m->engine, sizeof m->engine, "%s", info->engine);
    enum xi_rc rc = xi_control_send(m, XI_MSG_LOADED, m->head.bytes);
    free(m);
    return rc;
}

static void on_load(struct run *run, const struct xi_msg_load *m)
{
    const char *phase = "load";
    struct xi_err err = {0};
    enum xi_rc rc;

    if (run->runner != NULL || m->lane_count != run->n_lanes)
        rc = xi_fail(&err, XI_EPROTO, "a load for %u lanes where there are %u", m->lane_count,
                     run->n_lanes);
    else
        rc = load(run, m, &phase, &err);
    if (rc == XI_OK)
        rc = send_loaded(run, m, &err);
    if (rc != XI_OK) {
        xi_control_failed(&err, phase);
        if (strcmp(phase, "start") == 0)
            _Exit(EXIT_CONFUSED); /* lanes run already */
        run->quit = 1;            /* whatever is left of it is of no use */
    }
}

/* ---- messages ---- */

/* Descriptors of a message that are not taken over are closed by the caller: taken ones are -1. */
static enum xi_rc on_lane(struct run *run, const struct xi_msg_lane *m, int *fds, size_t n_fds,
                          struct xi_err *err)
{
    if (n_fds != 3 || m->lane != run->n_lanes || m->lane >= XI_LANES_MAX)
        return xi_fail(err, XI_EPROTO, "lane %u out of its order", m->lane);
    enum xi_rc rc = xi_host_lane_new(m, fds, run->segments, &run->lanes[run->n_lanes], err);
    if (rc != XI_OK)
        return rc;
    run->n_lanes++;
    fds[0] = fds[1] = fds[2] = -1;
    return XI_OK;
}

static enum xi_rc on_segment(struct run *run, const struct xi_msg_segment *m, const int *fds,
                             size_t n_fds, struct xi_err *err)
{
    struct xi_map map;
    int is_output = m->use == XI_SEGMENT_OUTPUT;

    if (n_fds != 1 || (is_output && m->lane >= run->n_lanes))
        return xi_fail(err, XI_EPROTO, "segment %u without its memory or lane", m->segment);
    enum xi_rc rc =
        xi_memory_open(fds[0], m->bytes, is_output ? XI_MAP_READ_WRITE : XI_MAP_READ, &map, err);
    if (rc != XI_OK)
        return rc;
    if (is_output) {
        xi_outputs_granted(xi_host_lane_outputs(run->lanes[m->lane]), m->segment, &map);
        return XI_OK;
    }
    rc = xi_segments_add(run->segments, m->segment, &map, err);
    if (rc != XI_OK)
        xi_map_close(&map);
    return rc;
}

static enum xi_rc dispatch(struct run *run, int *fds, size_t n_fds, struct xi_err *err)
{
    const void *m = run->inbox;
    const struct xi_msg_need_output *refused = m;

    switch (((const struct xi_msg_head *)m)->type) {
    case XI_MSG_LANE:
        return on_lane(run, m, fds, n_fds, err);
    case XI_MSG_LOAD:
        on_load(run, m);
        return XI_OK;
    case XI_MSG_SEGMENT:
        return on_segment(run, m, fds, n_fds, err);
    case XI_MSG_REFUSED:
        if (refused->lane < run->n_lanes)
            xi_outputs_refused(xi_host_lane_outputs(run->lanes[refused->lane]));
        return XI_OK;
    case XI_MSG_DROP:
        xi_segments_drop(run->segments, ((const struct xi_msg_drop *)m)->segment);
        return XI_OK;
    case XI_MSG_QUIT:
        run->quit = 1;
        return XI_OK;
    default:
        return xi_fail(err, XI_EPROTO, "a message that only hosts send");
    }
}

static int read_messages(struct run *run)
{
    int fds[XI_MESSAGE_FDS_MAX];
    size_t bytes, n_fds;
    struct xi_err err = {0};

    while (!run->quit) {
        enum xi_rc rc =
            xi_control_recv(run->inbox, sizeof run->inbox, &bytes, fds, &n_fds, -1, &err);
        if (rc == XI_EHOST)
            _Exit(EXIT_DAEMON_GONE); /* at once: a lane may hang */
        if (rc == XI_OK)
            rc = dispatch(run, fds, n_fds, &err);
        for (size_t i = 0; i < n_fds; i++)
            xi_fd_close(&fds[i]);
        if (rc != XI_OK && rc != XI_EAGAIN) {
            (void)fprintf(stderr, "control: %s\n", err.msg);
            _Exit(EXIT_CONFUSED);
        }
    }
    return 0;
}

static void add_dir(const char **dirs, size_t *n, const char *dir)
{
    if (dir[0] != '\0' && *n < XI_SANDBOX_DIRS_MAX)
        dirs[(*n)++] = dir;
}

int xi_role_run(const struct xi_host_args *args)
{
    struct run *run = calloc(1, sizeof *run);
    char summary[XI_SANDBOX_SUMMARY] = "";
    struct xi_err err = {0};

    if (run == NULL || (run->segments = xi_segments_new()) == NULL)
        return EXIT_CONFUSED;
    run->args = args;
    run->box = (struct xi_sandbox){.enabled = args->sandbox,
                                   .write_fd = -1,
                                   .data_limit_bytes = args->data_limit_bytes,
                                   .uid = args->uid};
    add_dir(run->box.read_dirs, &run->box.n_read_dirs, args->plugin_dir);
    add_dir(run->box.read_dirs, &run->box.n_read_dirs, args->engine_libs);
    add_dir(run->box.read_dirs, &run->box.n_read_dirs, args->link_dir);
    add_dir(run->box.write_dirs, &run->box.n_write_dirs, args->cache_dir);
    enum xi_rc rc = xi_sandbox_enter_load(&run->box, summary, &err);
    int code = xi_control_hello(args, summary);
    if (code != 0)
        return code;
    if (rc != XI_OK) {
        xi_control_failed(&err, "sandbox");
        return 0;
    }
    code = read_messages(run);
    for (uint32_t i = 0; i < run->n_lanes; i++)
        xi_host_lane_free(run->lanes[i]);
    xi_runner_close(run->runner);
    xi_segments_free(run->segments);
    free(run);
    return code;
}
