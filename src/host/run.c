/* run.c: role run. The main thread reads control messages; sessions load beside it (sessions.c) and
 * each lane is a thread of its own. The daemon's end of the socket closing ends the process. */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/platform/process.h"
#include "base/platform/shared.h"
#include "host/sessions.h"

enum { EXIT_DAEMON_GONE = 3, EXIT_NO_START = 4 };

struct run {
    struct xi_sandbox box;
    struct xi_segments *segments;
    struct xi_sessions *sessions;
    int quit;
    /* One message; aligned for the structs in it. Ours come from the daemon: a few hundred bytes.
     */
    _Alignas(8) uint8_t inbox[4096];
};

/* Memory for a lane that has gone meanwhile is not kept. */
static enum xi_rc on_output(struct run *run, const struct xi_msg_segment *m, struct xi_map *map,
                            struct xi_err *err)
{
    struct xi_outputs *outputs = xi_sessions_outputs(run->sessions, m->lane);
    struct xi_msg_drop dropped = {.segment = m->segment};

    if (outputs != NULL) {
        xi_outputs_granted(outputs, m->segment, map);
        return XI_OK;
    }
    xi_map_close(map);
    if (m->lane >= XI_HOST_LANES_MAX)
        return xi_fail(err, XI_EPROTO, "segment %u for lane %u", m->segment, m->lane);
    return xi_control_send(&dropped, XI_MSG_DROPPED, sizeof dropped);
}

/* Ours are sealed; a client's is what it is. */
static enum xi_rc map_segment(const struct xi_msg_segment *m, int fd, struct xi_map *ret,
                              struct xi_err *err)
{
    switch (m->use) {
    case XI_SEGMENT_INPUT:
        return xi_memory_open(fd, m->bytes, XI_MAP_READ, ret, err);
    case XI_SEGMENT_OUTPUT:
        return xi_memory_open(fd, m->bytes, XI_MAP_READ_WRITE, ret, err);
    case XI_SEGMENT_CLIENT:
        return xi_shared_map(fd, m->from, m->bytes, XI_MAP_READ, ret, err);
    case XI_SEGMENT_CLIENT_OUTPUT:
        return xi_shared_map(fd, m->from, m->bytes, XI_MAP_READ_WRITE, ret, err);
    default:
        return xi_fail(err, XI_EPROTO, "segment %u for use %u", m->segment, m->use);
    }
}

static enum xi_rc on_segment(struct run *run, const struct xi_msg_segment *m, const int *fds,
                             size_t n_fds, struct xi_err *err)
{
    struct xi_map map;

    if (n_fds != 1)
        return xi_fail(err, XI_EPROTO, "segment %u without its memory", m->segment);
    enum xi_rc rc = map_segment(m, fds[0], &map, err);
    if (rc != XI_OK)
        return rc;
    if (m->use == XI_SEGMENT_OUTPUT)
        return on_output(run, m, &map, err);
    rc = xi_segments_add(run->segments, m->segment, &map, (enum xi_segment_use)m->use, err);
    if (rc != XI_OK)
        xi_map_close(&map);
    return rc;
}

static void on_refused(struct run *run, const struct xi_msg_need_output *m)
{
    struct xi_outputs *outputs = xi_sessions_outputs(run->sessions, m->lane);

    if (outputs != NULL)
        xi_outputs_refused(outputs);
}

/* Descriptors of a message that are not taken over are closed by the caller: taken ones are -1. */
static enum xi_rc on_lane(struct run *run, const struct xi_msg_lane *m, int *fds, size_t n_fds,
                          struct xi_err *err)
{
    if (n_fds != 3)
        return xi_fail(err, XI_EPROTO, "lane %u with %zu descriptors", m->lane, n_fds);
    enum xi_rc rc = xi_sessions_lane(run->sessions, m, fds, run->segments, err);
    if (rc == XI_OK)
        fds[0] = fds[1] = fds[2] = -1;
    return rc;
}

static enum xi_rc dispatch(struct run *run, int *fds, size_t n_fds, struct xi_err *err)
{
    const void *m = run->inbox;

    switch (((const struct xi_msg_head *)m)->type) {
    case XI_MSG_LANE:
        return on_lane(run, m, fds, n_fds, err);
    case XI_MSG_LOAD:
        return xi_sessions_load(run->sessions, m, err);
    case XI_MSG_UNLOAD:
        return xi_sessions_unload(run->sessions, ((const struct xi_msg_unload *)m)->session, err);
    case XI_MSG_SEGMENT:
        return on_segment(run, m, fds, n_fds, err);
    case XI_MSG_REFUSED:
        on_refused(run, m);
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

static void read_message(struct run *run)
{
    int fds[XI_MESSAGE_FDS_MAX];
    size_t bytes, n_fds;
    struct xi_err err = {0};
    enum xi_rc rc = xi_control_recv(run->inbox, sizeof run->inbox, &bytes, fds, &n_fds, 0, &err);

    if (rc == XI_EHOST)
        _Exit(EXIT_DAEMON_GONE); /* at once: a lane may hang */
    if (rc == XI_OK)
        rc = dispatch(run, fds, n_fds, &err);
    for (size_t i = 0; i < n_fds; i++)
        xi_fd_close(&fds[i]);
    if (rc != XI_OK && rc != XI_EAGAIN) {
        (void)fprintf(stderr, "control: %s\n", err.msg);
        _Exit(XI_EXIT_PROTOCOL);
    }
}

static void serve(struct run *run)
{
    struct pollfd on[2] = {{.fd = XI_CONTROL_FD, .events = POLLIN},
                           {.fd = xi_sessions_fd(run->sessions), .events = POLLIN}};

    while (!run->quit) {
        if (poll(on, 2, -1) < 0)
            continue; /* interrupted */
        if (on[1].revents != 0 && !xi_sessions_reap(run->sessions))
            return;
        if (on[0].revents != 0)
            read_message(run);
    }
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

    if (run == NULL || (run->segments = xi_segments_new()) == NULL ||
        (run->sessions = xi_sessions_new(args, &run->box)) == NULL)
        return EXIT_NO_START;
    run->box = (struct xi_sandbox){.enabled = args->sandbox,
                                   .write_fd = -1,
                                   .data_limit_bytes = args->data_limit_bytes,
                                   .uid = args->uid};
    add_dir(run->box.read_dirs, &run->box.n_read_dirs, args->plugin_dir);
    add_dir(run->box.read_dirs, &run->box.n_read_dirs, args->engine_libs);
    add_dir(run->box.read_dirs, &run->box.n_read_dirs, args->link_dir);
    add_dir(run->box.write_dirs, &run->box.n_write_dirs, args->cache_dir);
    enum xi_rc rc = xi_shared_guard(xi_segments_spoil, run->segments, &err);
    if (rc == XI_OK)
        rc = xi_sandbox_enter_load(&run->box, summary, &err);
    int code = xi_control_hello(args, summary);
    if (code != 0)
        return code;
    if (rc != XI_OK)
        xi_control_failed(0, &err, "sandbox");
    else
        serve(run);
    xi_sessions_free(run->sessions);
    xi_segments_free(run->segments);
    free(run);
    return 0;
}
