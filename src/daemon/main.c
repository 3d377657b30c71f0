/* main.c: wiring only. Settings → loop → service → HTTP; signals; the way out. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/log_tap.h"
#include "base/platform/self.h"
#include "base/platform/supervisor.h"
#include "daemon/api/http_server.h"
#include "daemon/config.h"
#include "daemon/core/service.h"
#include "daemon/host_user.h"
#include "daemon/loop/workers.h"

enum { STATUS_MS = 5000 };

struct app {
    uv_loop_t loop;
    struct xi_config config;
    struct xi_service *service;
    struct xi_http_server *http;
    uv_signal_t terminate, interrupt;
    struct xi_supervisor supervisor;
    uv_timer_t alive; /* tells the supervisor that the loop turns */
    char status[128]; /* the last it was told */
    uv_timer_t idle;  /* looks for clients; once stopping: the limit of that */
    uint64_t began_ms;
    uint32_t admin_group;
    int stopping;
    int draining; /* halves that are not done: requests, connections */
};

static void complain(const struct xi_err *err)
{
    (void)fprintf(stderr, "xinferd: %s (%s)\n", err->msg, xi_rc_code(err->rc));
    if (err->hint[0] != '\0')
        (void)fprintf(stderr, "  → %s\n", err->hint);
}

/* ---- the way out ---- */

static void on_drained(void *ctx)
{
    struct app *app = ctx;

    if (--app->draining == 0)
        uv_stop(&app->loop);
}

static void on_drain_limit(uv_timer_t *timer)
{
    uv_stop(timer->loop);
}

static void stop(struct app *app, const char *why)
{
    if (app->stopping)
        return;
    app->stopping = 1;
    xi_supervisor_tell(&app->supervisor, "STOPPING=1\nSTATUS=finishing what runs");
    xi_log(XI_INFO, "daemon.stopping", "why=%s drain_ms=%u", why, app->config.drain_ms);
    if (app->http == NULL) {
        uv_stop(&app->loop);
        return;
    }
    app->draining = 2;
    (void)uv_timer_start(&app->idle, on_drain_limit, app->config.drain_ms, 0);
    xi_service_drain(app->service, app->config.drain_ms, on_drained, app);
    xi_http_server_drain(app->http, on_drained, app);
}

static void on_signal(uv_signal_t *handle, int signo)
{
    struct app *app = handle->data;

    if (app->stopping)
        _exit(128 + signo); /* asked twice: hosts end when their control socket closes */
    stop(app, signo == SIGTERM ? "SIGTERM" : "SIGINT");
}

static void on_idle_check(uv_timer_t *timer)
{
    struct app *app = timer->data;

    if (xi_http_server_idle_ms(app->http) >= (uint64_t)app->config.idle_exit_s * 1000u)
        stop(app, "no client for idle_exit_s");
}

/* ---- the supervisor ---- */

/* From the loop, so that a loop that hangs is missed. */
static void on_alive(uv_timer_t *timer)
{
    struct app *app = timer->data;
    char status[sizeof app->status];

    xi_supervisor_tell(&app->supervisor, "WATCHDOG=1");
    if (app->http == NULL || app->stopping)
        return;
    (void)snprintf(status, sizeof status, "STATUS=serving on %.60s, %u models", app->config.listen,
                   xi_sessions_count(app->service->sessions));
    if (strcmp(status, app->status) == 0)
        return;
    memcpy(app->status, status, sizeof status);
    xi_supervisor_tell(&app->supervisor, status);
}

static void report_for_duty(struct app *app)
{
    uint64_t ms = app->supervisor.watchdog_us / 2000;

    if (app->supervisor.notify[0] == '\0')
        return;
    xi_supervisor_tell(&app->supervisor, "READY=1");
    if (ms == 0 || ms > STATUS_MS)
        ms = STATUS_MS;
    (void)uv_timer_start(&app->alive, on_alive, 0, ms);
    uv_unref((uv_handle_t *)&app->alive);
}

/* Sockets that were passed are listened on instead of what the configuration names, and are judged
 * as that would be. */
static enum xi_rc take_sockets(struct app *app, struct xi_err *err)
{
    struct xi_supervisor *s = &app->supervisor;
    struct xi_config *c = &app->config;
    enum xi_rc rc = xi_supervisor_open(s, err);

    if (rc == XI_OK &&
        ((s->tcp >= 0 && xi_socket_address(s->tcp, c->listen, sizeof c->listen)) ||
         (s->local >= 0 && xi_socket_address(s->local, c->socket, sizeof c->socket))))
        rc = xi_fail(err, XI_ECONFIG, "a socket that was passed has no address");
    return rc;
}

/* ---- starting ---- */

static void watch_signals(struct app *app)
{
    (void)signal(SIGPIPE, SIG_IGN);
    (void)signal(SIGHUP, SIG_IGN);
    (void)uv_signal_init(&app->loop, &app->terminate);
    (void)uv_signal_init(&app->loop, &app->interrupt);
    app->terminate.data = app;
    app->interrupt.data = app;
    (void)uv_signal_start(&app->terminate, on_signal, SIGTERM);
    (void)uv_signal_start(&app->interrupt, on_signal, SIGINT);
    (void)uv_timer_init(&app->loop, &app->idle);
    (void)uv_timer_init(&app->loop, &app->alive);
    app->idle.data = app;
    app->alive.data = app;
}

static enum xi_rc open_service(struct app *app, struct xi_err *err)
{
    const struct xi_config *c = &app->config;
    char why[600];
    struct xi_service_config service = {.state_dir = c->state_dir,
                                        .host_program = c->host_program,
                                        .engine_dir = c->engine_dir,
                                        .openvino_dir = c->openvino_dir,
                                        .sensors_root = c->sensors_root,
                                        .input_memory_bytes = c->input_memory_bytes,
                                        .host_data_limit_bytes = c->host_data_limit_bytes,
                                        .cores = c->cores,
                                        .queue_limit = c->queue_limit,
                                        .watchdog_min_ms = c->watchdog_min_ms,
                                        .crash_window_ms = c->crash_window_ms,
                                        .crash_limit = c->crash_limit,
                                        .drain_ms = c->drain_ms,
                                        .sandbox = c->sandbox,
                                        .memory_bytes = c->memory_bytes,
                                        .evict = c->evict,
                                        .tenants = c->tenants,
                                        .log_level = c->log_level};

    service.host_uid = xi_host_user_pick(c, why);
    if (why[0] != '\0')
        xi_log(XI_WARN, "hosts.as_root", "why=%s", why);
    return xi_service_open(&app->loop, &service, &app->service, err);
}

static enum xi_rc open_http(struct app *app, struct xi_err *err)
{
    const struct xi_config *c = &app->config;
    struct xi_http_config http = {.listen = c->listen,
                                  .socket = c->socket,
                                  .token_file = c->token_file,
                                  .anonymous = &c->anonymous,
                                  .admin_group = c->admin_group[0] ? &app->admin_group : NULL,
                                  .tcp_fd = app->supervisor.tcp > 0 ? app->supervisor.tcp : 0,
                                  .socket_fd =
                                      app->supervisor.local > 0 ? app->supervisor.local : 0,
                                  .allowed_hosts = c->allowed_hosts,
                                  .allowed_origins = c->allowed_origins,
                                  .message_max = c->grpc_message_bytes,
                                  .n_allowed_hosts = c->n_allowed_hosts,
                                  .n_allowed_origins = c->n_allowed_origins};

    enum xi_rc rc = c->admin_group[0] ? xi_config_group(c, &app->admin_group, err) : XI_OK;

    return rc == XI_OK ? xi_http_server_open(app->service, &http, &app->http, err) : rc;
}

static void announce(struct app *app)
{
    const char *colon = strrchr(app->config.listen, ':');
    int host = colon == NULL ? 0 : (int)(colon - app->config.listen);

    xi_log(XI_INFO, "daemon.ready",
           "version=%s http=%.*s:%u socket=%s state=%s pid=%d engines=%u sessions=%u ms=%llu",
           XI_VERSION, host, app->config.listen, xi_http_server_port(app->http), app->config.socket,
           app->config.state_dir, (int)getpid(), app->service->n_engines,
           xi_sessions_count(app->service->sessions),
           (unsigned long long)(xi_now_ms() - app->began_ms));
    report_for_duty(app);
    if (app->config.idle_exit_s > 0)
        (void)uv_timer_start(&app->idle, on_idle_check, 1000, 1000);
}

/* Doors open once the engines are known and desired sessions have begun to load: a client that
 * was there before a restart never hears that its model is not loaded. */
static enum xi_rc serve(struct app *app, struct xi_err *err)
{
    enum xi_rc rc = open_service(app, err);

    if (rc != XI_OK)
        return rc;
    while (!app->service->restored && !app->stopping)
        (void)uv_run(&app->loop, UV_RUN_ONCE);
    if (app->stopping)
        return XI_OK;
    rc = open_http(app, err);
    if (rc != XI_OK)
        return rc;
    announce(app);
    (void)uv_run(&app->loop, UV_RUN_DEFAULT);
    return XI_OK;
}

static void close_all(struct app *app)
{
    if (app->http != NULL)
        xi_http_server_close(app->http);
    (void)uv_run(&app->loop, UV_RUN_NOWAIT); /* answers that are ready leave the house */
    if (app->service != NULL)
        xi_service_close(app->service);
    uv_close((uv_handle_t *)&app->terminate, NULL);
    uv_close((uv_handle_t *)&app->interrupt, NULL);
    uv_close((uv_handle_t *)&app->idle, NULL);
    uv_close((uv_handle_t *)&app->alive, NULL);
    (void)uv_run(&app->loop, UV_RUN_DEFAULT);
    xi_workers_close(&app->loop); /* the last: whatever ends may still leave them work */
    (void)uv_run(&app->loop, UV_RUN_DEFAULT);
    if (uv_loop_close(&app->loop) != 0)
        xi_log(XI_WARN, "daemon.stopped", "some handles were still open");
    else
        xi_log(XI_INFO, "daemon.stopped", "ran_ms=%llu",
               (unsigned long long)(xi_now_ms() - app->began_ms));
}

static int run(struct app *app)
{
    struct xi_err err = {0};
    enum xi_rc rc;

    app->began_ms = xi_now_ms();
    xi_self_protect();
    (void)xi_self_raise_fds();
    if (uv_loop_init(&app->loop) != 0) {
        (void)fprintf(stderr, "xinferd: no event loop to be had (out of descriptors?)\n");
        return 1;
    }
    xi_self_go_first();
    rc = xi_log_tap_open(&err);
    if (rc == XI_OK)
        rc = xi_workers_open(&app->loop, &err);
    if (rc != XI_OK) {
        complain(&err);
        return xi_rc_exit(rc);
    }
    watch_signals(app);
    rc = serve(app, &err);
    if (rc != XI_OK)
        complain(&err);
    close_all(app);
    return rc == XI_OK ? 0 : xi_rc_exit(rc);
}

int main(int argc, char **argv)
{
    struct app *app = calloc(1, sizeof(*app));
    struct xi_err err = {0};
    int status = -1;
    enum xi_rc rc;

    if (app == NULL)
        return 1;
    xi_config_defaults(&app->config);
    rc = xi_config_args(&app->config, argc, argv, &status, &err);
    if (rc == XI_OK && status < 0)
        rc = take_sockets(app, &err);
    if (rc == XI_OK && status < 0)
        rc = xi_config_check(&app->config, &err);
    if (rc != XI_OK) {
        complain(&err);
        status = xi_rc_exit(rc);
    } else if (status < 0) {
        xi_log_init(app->config.log_style, app->config.log_level);
        status = run(app);
    }
    free(app);
    return status;
}
