/* host_link.c: the life of a host process, from start to its reaping. What it says is read in
 * host_wire.c, what it answers in host_lanes.c, what it prints in host_log.c. */
#define _GNU_SOURCE
#include "daemon/ipc/host_link.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/platform/process.h"
#include "daemon/ipc/host_impl.h"

static const char *const role_names[] = {"run", "probe", "install"};

/* ---- ending ---- */

static void kill_now(struct xi_host *host)
{
    if (host->state >= XI_HOST_ENDED)
        return;
    host->state = XI_HOST_ENDING;
    (void)xi_process_signal(host->pidfd, SIGKILL);
}

static void set_why(struct xi_host *host, const char *why)
{
    if (host->why[0] == '\0')
        (void)snprintf(host->why, sizeof host->why, "%s", why);
}

void xi_host_broke(struct xi_host *host, const char *what)
{
    char why[160];

    if (host->lied || host->state >= XI_HOST_ENDED)
        return;
    host->lied = 1;
    (void)snprintf(why, sizeof why, "broke the protocol: %s", what);
    xi_host_give_up(host, why);
}

void xi_host_give_up(struct xi_host *host, const char *why)
{
    set_why(host, why);
    host->killed = 1;
    kill_now(host);
}

static void on_grace(uv_timer_t *timer)
{
    kill_now(timer->data);
}

void xi_host_stop(struct xi_host *host, unsigned grace_ms, const char *why)
{
    struct xi_msg_head quit;
    struct xi_err err;

    if (host->state >= XI_HOST_ENDED)
        return;
    set_why(host, why);
    host->killed = 1;
    if (grace_ms == 0 || host->state == XI_HOST_ENDING ||
        !xi_host_lanes_quit(host, 0, host->n_lanes) ||
        xi_host_send(host, &quit, XI_MSG_QUIT, sizeof quit, NULL, 0, &err) != XI_OK) {
        kill_now(host);
        return;
    }
    host->state = XI_HOST_ENDING;
    (void)uv_timer_start(&host->grace, on_grace, grace_ms, 0);
}

/* A host that crashed while it was being told to go did crash. */
static void describe_exit(const struct xi_host *host, struct xi_host_exit *why)
{
    int as_told = why->signal == SIGKILL || (host->killed && why->exit_code == 0);

    why->killed = host->killed && (as_told || host->lied);
    if (host->why[0] != '\0' && (as_told || host->lied))
        (void)snprintf(why->reason, sizeof why->reason, "%s", host->why);
    else if (why->signal != 0)
        (void)snprintf(why->reason, sizeof why->reason, "ended by SIG%s",
                       sigabbrev_np(why->signal) ? sigabbrev_np(why->signal) : "?");
    else
        (void)snprintf(why->reason, sizeof why->reason, "ended with exit code %d", why->exit_code);
}

/* ---- handles ---- */

static void free_host(struct xi_host *host)
{
    xi_host_lanes_close(host);
    xi_host_outputs_fini(host);
    xi_fd_close(&host->pidfd);
    xi_fd_close(&host->control_fd);
    xi_fd_close(&host->complete_fd);
    xi_fd_close(&host->answer_fd);
    xi_fd_close(&host->log_fd);
    free(host);
}

void xi_host_deref(struct xi_host *host)
{
    if (--host->refs == 0)
        free_host(host);
}

static void on_closed(uv_handle_t *handle)
{
    struct xi_host *host = handle->data;

    if (--host->open_handles == 0)
        xi_host_deref(host);
}

static void close_handles(struct xi_host *host)
{
    uv_handle_t *all[] = {(uv_handle_t *)&host->control, (uv_handle_t *)&host->complete,
                          (uv_handle_t *)&host->ended,   (uv_handle_t *)&host->log_pipe,
                          (uv_handle_t *)&host->grace,   (uv_handle_t *)&host->more};

    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (all[i]->data != NULL && !uv_is_closing(all[i]))
            uv_close(all[i], on_closed);
}

/* ---- events of the loop ---- */

static void on_control(uv_poll_t *poll, int status, int events)
{
    struct xi_host *host = poll->data;

    (void)status;
    (void)events;
    if (xi_host_read_messages(host, XI_HOST_MESSAGES_PER_TURN) >= 0 || host->lied)
        return;
    /* It ends, or closed its end: then it is of no use any more. */
    (void)uv_poll_stop(poll);
    set_why(host, "closed its control socket");
    kill_now(host);
}

static void read_completions(struct xi_host *host);

static void on_more(uv_idle_t *idle)
{
    (void)uv_idle_stop(idle);
    read_completions(idle->data);
}

static void read_completions(struct xi_host *host)
{
    if (host->state < XI_HOST_ENDED && xi_host_read_lanes(host, XI_HOST_RECORDS_PER_TURN))
        (void)uv_idle_start(&host->more, on_more);
}

static void on_complete(uv_poll_t *poll, int status, int events)
{
    struct xi_host *host = poll->data;

    (void)status;
    (void)events;
    xi_wake_drain(host->complete_fd);
    read_completions(host);
}

static void on_log(uv_poll_t *poll, int status, int events)
{
    (void)status;
    (void)events;
    (void)xi_host_read_log(poll->data);
}

/* What it had said before it ended still counts: answers in the rings, words in the socket. */
static void read_last_words(struct xi_host *host)
{
    for (int i = 0; i < 16 && xi_host_read_lanes(host, XI_HOST_RECORDS_PER_TURN); i++)
        continue;
    (void)xi_host_read_messages(host, XI_HOST_MESSAGES_PER_S);
    for (int i = 0; i < 16 && xi_host_read_log(host); i++)
        continue;
    xi_host_log_end(host);
}

static void on_ended(uv_poll_t *poll, int status, int events)
{
    struct xi_host *host = poll->data;
    struct xi_host_exit why = {.exit_code = -1};

    (void)status;
    (void)events;
    xi_process_kill_group(host->pid);
    if (!host->lied)
        read_last_words(host);
    (void)xi_process_reap(host->pid, &why.exit_code, &why.signal);
    host->state = XI_HOST_ENDED;
    describe_exit(host, &why);
    xi_host_unconfine(host, &why);
    xi_shm_watch_remove(host->shm, &host->watch);
    xi_host_lanes_close(host);
    close_handles(host);
    if (host->events.exited != NULL)
        host->events.exited(host->events.ctx, host, &why);
    else
        xi_host_free(host);
}

static void on_segment_closing(struct xi_shm_watch *watch, uint32_t segment_id)
{
    struct xi_host *host =
        (struct xi_host *)(void *)((char *)watch - offsetof(struct xi_host, watch));

    xi_host_forget_segment(host, segment_id);
}

void xi_host_free(struct xi_host *host)
{
    if (host == NULL)
        return;
    XI_ASSERT(host->state == XI_HOST_ENDED);
    host->state = XI_HOST_CLOSED;
    xi_host_deref(host);
}

/* ---- start ---- */

static int watch_fd(struct xi_host *host, uv_poll_t *poll, int fd, uv_poll_cb cb)
{
    if (uv_poll_init(host->loop, poll, fd) != 0)
        return -1;
    poll->data = host;
    host->open_handles++;
    return uv_poll_start(poll, UV_READABLE, cb);
}

static enum xi_rc watch_all(struct xi_host *host, struct xi_err *err)
{
    (void)uv_timer_init(host->loop, &host->grace); /* cannot fail */
    (void)uv_idle_init(host->loop, &host->more);
    host->grace.data = host->more.data = host;
    host->open_handles = 2;
    if (watch_fd(host, &host->control, host->control_fd, on_control) != 0 ||
        watch_fd(host, &host->complete, host->complete_fd, on_complete) != 0 ||
        watch_fd(host, &host->log_pipe, host->log_fd, on_log) != 0 ||
        watch_fd(host, &host->ended, host->pidfd, on_ended) != 0)
        return xi_fail(err, XI_EFDS, "cannot watch a host's descriptors");
    return XI_OK;
}

/* The program's arguments; numbers are written into the caller's buffers. */
static void fill_args(const struct xi_host_spec *s, const char *limit, const char *uid,
                      const char *nice, const char *argv[26])
{
    int n = 0;

    argv[n++] = s->program;
    argv[n++] = role_names[s->role];
    const char *const pairs[][2] = {{"--engine", s->engine},
                                    {"--plugin-dir", s->plugin_dir},
                                    {"--engine-libs", s->engine_libs},
                                    {"--link-dir", s->link_dir},
                                    {"--cache-dir", s->cache_dir},
                                    {"--data-limit", limit},
                                    {"--uid", uid},
                                    {"--nice", nice},
                                    {"--sandbox", s->sandbox ? "1" : "0"},
                                    {"--group", s->group ? "1" : NULL}};
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        if (pairs[i][1] == NULL || pairs[i][1][0] == '\0')
            continue;
        argv[n++] = pairs[i][0];
        argv[n++] = pairs[i][1];
    }
    argv[n] = NULL;
}

/* Hosts get an empty environment; in a sanitizer's build, what its runtime reads. */
static void fill_env(const char *env[8])
{
    int n = 0;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    static const char *const keys[] = {"ASAN_OPTIONS=", "UBSAN_OPTIONS=", "TSAN_OPTIONS=",
                                       "LSAN_OPTIONS=", "TBB_ENABLE_SANITIZERS="};

    for (size_t k = 0; k < sizeof keys / sizeof *keys; k++)
        for (char **e = environ; *e != NULL; e++)
            if (n < 7 && strncmp(*e, keys[k], strlen(keys[k])) == 0)
                env[n++] = *e;
#endif
    env[n] = NULL;
}

static enum xi_rc spawn(struct xi_host *host, const struct xi_host_spec *spec, int peer_fd,
                        int log_write_fd, struct xi_err *err)
{
    const char *argv[26], *env[8];
    char limit[24], uid[12], nice[12];
    struct xi_spawn s = {
        .argv = argv, .env = env, .in_fd = -1, .out_fd = log_write_fd, .err_fd = log_write_fd};

    (void)snprintf(limit, sizeof limit, "%llu", (unsigned long long)spec->data_limit_bytes);
    (void)snprintf(uid, sizeof uid, "%u", spec->run_as_uid);
    (void)snprintf(nice, sizeof nice, "%d", spec->nice);
    fill_args(spec, limit, uid, nice, argv);
    fill_env(env);
    s.fds[s.n_fds++] = peer_fd;
    if (spec->role == XI_HOST_INSTALL) {
        s.fds[s.n_fds++] = spec->archive_fd;
        s.fds[s.n_fds++] = spec->staging_fd;
    }
    enum xi_rc rc = xi_process_spawn(&s, &host->pid, &host->pidfd, err);
    if (rc == XI_OK)
        xi_host_confine(host, spec);
    return rc;
}

static enum xi_rc start_process(struct xi_host *host, const struct xi_host_spec *spec,
                                struct xi_err *err)
{
    int pair[2] = {-1, -1}, pipe_fds[2] = {-1, -1}, wake[2];
    enum xi_rc rc = xi_message_pair(pair, err);

    if (rc != XI_OK)
        return rc;
    host->control_fd = pair[0];
    rc = xi_wake_pair(0, wake, err);
    if (rc != XI_OK)
        goto out;
    host->complete_fd = wake[0];
    host->answer_fd = wake[1];
    if (pipe2(pipe_fds, O_CLOEXEC) != 0) {
        rc = xi_fail(err, XI_EFDS, "no descriptors to start a host");
        goto out;
    }
    host->log_fd = pipe_fds[0];
    (void)fcntl(host->log_fd, F_SETFL, O_NONBLOCK); /* the daemon's end only */
    rc = spawn(host, spec, pair[1], pipe_fds[1], err);
out:
    xi_fd_close(&pair[1]);
    xi_fd_close(&pipe_fds[1]);
    return rc;
}

/* After a failed start: nothing of it may be seen by anybody. */
static void abandon(struct xi_host *host)
{
    int exit_code, signo;

    if (host->pidfd >= 0) {
        (void)xi_process_signal(host->pidfd, SIGKILL);
        (void)xi_fd_wait_readable(host->pidfd, 1000);
        (void)xi_process_reap(host->pid, &exit_code, &signo);
    }
    host->state = XI_HOST_CLOSED;
    xi_shm_watch_remove(host->shm, &host->watch);
    if (host->open_handles > 0)
        close_handles(host); /* the last one frees */
    else
        xi_host_deref(host);
    xi_host_deref(host);
}

enum xi_rc xi_host_start(uv_loop_t *loop, struct xi_shm *shm, const struct xi_host_spec *spec,
                         const struct xi_host_events *events, struct xi_host **ret,
                         struct xi_err *err)
{
    struct xi_host *host = calloc(1, sizeof *host);

    if (host == NULL)
        return xi_fail(err, XI_ENOMEM, "no memory for a host");
    host->loop = loop;
    host->shm = shm;
    host->events = *events;
    host->role = spec->role;
    host->refs = 2; /* the owner's, the handles' */
    host->pidfd = host->control_fd = host->log_fd = host->cgroup = -1;
    host->complete_fd = host->answer_fd = -1;
    host->output_limit_bytes = spec->output_limit_bytes ? spec->output_limit_bytes : XI_GIB;
    (void)snprintf(host->label, sizeof host->label, "%s", spec->label ? spec->label : "host");
    host->watch.closing = on_segment_closing;
    xi_shm_watch_add(shm, &host->watch);
    enum xi_rc rc = start_process(host, spec, err);
    if (rc == XI_OK)
        rc = watch_all(host, err);
    if (rc != XI_OK) {
        abandon(host);
        return rc;
    }
    *ret = host;
    return XI_OK;
}

/* ---- what it is ---- */

int xi_host_runs(const struct xi_host *host)
{
    return host->state == XI_HOST_RUNS;
}

int xi_host_loads(const struct xi_host *host)
{
    uint32_t i;

    for (i = 0; i < host->n_sessions; i++) {
        if (host->sessions[i].state == XI_LOAD_ASKED)
            return 1;
    }
    return 0;
}

int xi_host_pid(const struct xi_host *host)
{
    return host->pid;
}

const char *xi_host_sandbox(const struct xi_host *host)
{
    return host->sandbox;
}

uint64_t xi_host_rss_bytes(const struct xi_host *host)
{
    uint64_t private_bytes = 0, peak = 0;

    if (host->state < XI_HOST_ENDED)
        (void)xi_process_memory(host->pid, &private_bytes, &peak);
    return private_bytes;
}
