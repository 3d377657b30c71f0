#define _GNU_SOURCE
#include "daemon/api/http_server.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "daemon/api/connection.h"
#include "daemon/api/grpc.h"

enum { SWEEP_MS = 250, RETRY_MS = 5, IDLE_MS = 75000, BACKLOG = 1024, SLOT_WAIT_MS = 1000 };
enum { HEARTBEAT_MS = 15000, STREAM_QUEUE = 256 * 1024, STREAM_STALL_MS = 30000 };
/* Told to end, it answers for so long whatever is on its way: a connection that is closed unread
 * looks like a crash. */
enum { DRAIN_GRACE_MS = 50 };

static uint32_t or_default(uint32_t v, uint32_t otherwise)
{
    return v != 0 ? v : otherwise;
}

static void on_connection(uv_stream_t *listener, int status)
{
    if (status < 0) {
        xi_log(XI_WARN, "http.accept", "error=\"%s\"", uv_strerror(status));
        return;
    }
    xi_conn_accept(listener->data, listener);
}

static void on_handle_closed(uv_handle_t *h)
{
    xi_server_release(h->data);
}

static void stop_listening(struct xi_http_server *server)
{
    if (server->has_tcp)
        uv_close((uv_handle_t *)&server->tcp, on_handle_closed);
    if (server->has_pipe) {
        uv_close((uv_handle_t *)&server->pipe, on_handle_closed); /* removes the file, too */
    }
    server->has_tcp = server->has_pipe = 0;
}

int xi_server_hangs_up(const struct xi_http_server *server, uint64_t now_ms)
{
    return server->draining && now_ms - server->drain_since_ms >= DRAIN_GRACE_MS;
}

static void check_drained(struct xi_http_server *server)
{
    if (!server->draining || server->has_tcp || server->has_pipe || server->conns != NULL ||
        server->drained == NULL)
        return;
    void (*cb)(void *) = server->drained;
    server->drained = NULL;
    cb(server->drained_ctx);
}

static void on_sweep(uv_timer_t *t)
{
    struct xi_http_server *server = t->data;
    struct xi_conn *next;
    uint64_t now = xi_now_ms();

    if (xi_server_hangs_up(server, now))
        stop_listening(server);
    for (struct xi_conn *c = server->conns; c != NULL; c = next) {
        next = c->next;
        xi_conn_sweep(c, now);
    }
    xi_grpc_tick(server);
    if (server->conns != NULL) {
        server->last_client_ms = now;
    } else if (server->sweep_runs && !server->draining) { /* an idle daemon sleeps */
        (void)uv_timer_stop(&server->sweep);
        server->sweep_runs = 0;
    }
    check_drained(server);
}

void xi_server_watch(struct xi_http_server *server)
{
    if (!server->sweep_runs && !server->closing)
        server->sweep_runs = uv_timer_start(&server->sweep, on_sweep, SWEEP_MS, SWEEP_MS) == 0;
}

static void on_retry(uv_timer_t *t)
{
    struct xi_http_server *server = t->data;

    server->stats.retried_slots++;
    if (xi_body_retry(server) == 0) {
        (void)uv_timer_stop(t);
        server->retry_runs = 0;
    }
}

void xi_server_wait(struct xi_http_server *server)
{
    if (!server->retry_runs && !server->closing)
        server->retry_runs = uv_timer_start(&server->retry, on_retry, RETRY_MS, RETRY_MS) == 0;
}

/* An idle handle, not a timer of 0 ms: the loop polls between two calls of it. */
static void on_turn(uv_idle_t *idle)
{
    struct xi_http_server *server = idle->data;

    xi_conn_turns(server);
    if (server->turns == NULL)
        (void)uv_idle_stop(idle);
}

void xi_server_turn(struct xi_http_server *server)
{
    if (!server->closing)
        (void)uv_idle_start(&server->turn, on_turn); /* fine when it runs already */
}

static void on_flush(uv_prepare_t *prepare)
{
    xi_h2_flush(prepare->data);
    (void)uv_prepare_stop(prepare);
}

void xi_server_flush(struct xi_http_server *server)
{
    if (!server->closing)
        (void)uv_prepare_start(&server->flush, on_flush); /* fine when it runs already */
}

static void free_server(struct xi_http_server *server)
{
    while (server->free_list != NULL) {
        struct xi_exchange *x = server->free_list;
        server->free_list = x->free_next;
        xi_exchange_destroy(x);
    }
    xi_grpc_calls_free(server);
    xi_gate_fini(&server->gate);
    free(server->batch);
    free(server);
}

void xi_server_release(struct xi_http_server *server)
{
    if (--server->handles == 0 && server->closing)
        free_server(server);
}

void xi_server_conn_gone(struct xi_http_server *server)
{
    server->stats.connections--;
    server->last_client_ms = xi_now_ms();
    check_drained(server);
    xi_server_release(server);
}

/* "host:port" with [v6] in brackets → an address of libuv. */
static int parse_address(const char *text, struct sockaddr_storage *ret)
{
    char host[64];
    const char *colon = strrchr(text, ':');
    size_t n = colon ? (size_t)(colon - text) : 0;
    int v6 = n > 2 && text[0] == '[' && text[n - 1] == ']';

    if (colon == NULL || n >= sizeof host || colon[1] == '\0' ||
        strspn(colon + 1, "0123456789") != strlen(colon + 1))
        return -1;
    long port = strtol(colon + 1, NULL, 10);
    if (port > 65535)
        return -1;
    memcpy(host, text + v6, n - 2 * (size_t)v6);
    host[n - 2 * (size_t)v6] = '\0';
    if (strcmp(host, "localhost") == 0)
        memcpy(host, "127.0.0.1", 10);
    return v6 ? uv_ip6_addr(host, (int)port, (struct sockaddr_in6 *)ret)
              : uv_ip4_addr(host, (int)port, (struct sockaddr_in *)ret);
}

static unsigned bound_port(const uv_tcp_t *tcp)
{
    struct sockaddr_storage a;
    int n = sizeof a;
    uint8_t raw[4];

    if (uv_tcp_getsockname(tcp, (struct sockaddr *)&a, &n) != 0)
        return 0;
    memcpy(raw, &a, sizeof raw); /* the port stands behind the family in both kinds */
    return (unsigned)raw[2] << 8 | raw[3];
}

/* A socket that listens already. */
static enum xi_rc adopt(struct xi_http_server *server, int *ret_has, uv_stream_t *stream, int fd,
                        struct xi_err *err)
{
    int is_tcp = stream == (uv_stream_t *)&server->tcp;
    int rc;

    if (is_tcp)
        (void)uv_tcp_init(server->service->loop, &server->tcp);
    else
        (void)uv_pipe_init(server->service->loop, &server->pipe, 0);
    stream->data = server;
    *ret_has = 1;
    server->handles++;
    rc = is_tcp ? uv_tcp_open(&server->tcp, fd) : uv_pipe_open(&server->pipe, fd);
    if (rc == 0)
        rc = uv_listen(stream, BACKLOG, on_connection);
    if (rc != 0)
        return xi_fail(err, XI_EPORT, "cannot listen on the socket that was passed: %s",
                       uv_strerror(rc));
    if (is_tcp)
        server->port = bound_port(&server->tcp);
    return XI_OK;
}

static enum xi_rc listen_tcp(struct xi_http_server *server, struct xi_err *err)
{
    const char *address = server->config.listen;
    struct sockaddr_storage a;

    if (server->config.tcp_fd > 0)
        return adopt(server, &server->has_tcp, (uv_stream_t *)&server->tcp, server->config.tcp_fd,
                     err);
    if (address == NULL || *address == '\0')
        return XI_OK;
    memset(&a, 0, sizeof a);
    if (parse_address(address, &a) != 0)
        return xi_fail(err, XI_ECONFIG, "listen: \"%.80s\" is no address such as 127.0.0.1:9470",
                       address);
    (void)uv_tcp_init(server->service->loop, &server->tcp);
    server->tcp.data = server;
    server->has_tcp = 1;
    server->handles++;
    int rc = uv_tcp_bind(&server->tcp, (const struct sockaddr *)&a, 0);
    if (rc == 0)
        rc = uv_listen((uv_stream_t *)&server->tcp, BACKLOG, on_connection);
    if (rc == UV_EADDRINUSE) {
        (void)xi_fail(err, XI_EPORT, "%s is in use by another program", address);
        return xi_hint(err, "stop it, or choose another address with --listen");
    }
    if (rc != 0)
        return xi_fail(err, XI_EPORT, "cannot listen on %s: %s", address, uv_strerror(rc));
    server->port = bound_port(&server->tcp);
    return XI_OK;
}

static void on_probe_connected(uv_connect_t *request, int status)
{
    *(int *)request->data = status == 0;
    uv_close((uv_handle_t *)request->handle, NULL);
}

/* Does somebody listen there? A connect to a Unix socket answers at once. */
static int socket_answers(const char *path)
{
    uv_loop_t loop;
    uv_pipe_t pipe;
    uv_connect_t request;
    int answers = 0;

    if (uv_loop_init(&loop) != 0)
        return 1; /* unknown: do not take the file from anybody */
    (void)uv_pipe_init(&loop, &pipe, 0);
    request.data = &answers;
    uv_pipe_connect(&request, &pipe, path, on_probe_connected);
    (void)uv_run(&loop, UV_RUN_DEFAULT);
    (void)uv_loop_close(&loop);
    return answers;
}

static enum xi_rc listen_socket(struct xi_http_server *server, struct xi_err *err)
{
    const char *path = server->config.socket;
    struct stat st;

    if (server->config.socket_fd > 0)
        return adopt(server, &server->has_pipe, (uv_stream_t *)&server->pipe,
                     server->config.socket_fd, err);
    if (path == NULL || *path == '\0')
        return XI_OK;
    if (lstat(path, &st) == 0) {
        if (!S_ISSOCK(st.st_mode))
            return xi_fail(err, XI_EPORT, "%.100s exists and is no socket", path);
        if (socket_answers(path))
            return xi_fail(err, XI_EPORT, "another daemon answers on %.100s", path);
        (void)unlink(path);
    }
    (void)uv_pipe_init(server->service->loop, &server->pipe, 0);
    server->pipe.data = server;
    server->has_pipe = 1;
    server->handles++;
    /* Born as 0660: nobody slips in before a chmod. Where credentials decide, all may come. */
    mode_t old = umask(server->config.admin_group != NULL ? 0111 : 0117);
    int rc = uv_pipe_bind(&server->pipe, path);
    (void)umask(old);
    if (rc == 0)
        rc = uv_listen((uv_stream_t *)&server->pipe, BACKLOG, on_connection);
    if (rc != 0)
        return xi_fail(err, rc == UV_EADDRINUSE ? XI_EPORT : XI_EDISK,
                       "cannot make the socket %.90s: %s", path, uv_strerror(rc));
    return XI_OK;
}

static void start_timers(struct xi_http_server *server)
{
    uv_loop_t *loop = server->service->loop;

    (void)uv_timer_init(loop, &server->sweep);
    (void)uv_timer_init(loop, &server->retry);
    (void)uv_idle_init(loop, &server->turn);
    (void)uv_prepare_init(loop, &server->flush);
    server->sweep.data = server->retry.data = server->turn.data = server->flush.data = server;
    server->handles += 4;
    server->handles++;
    xi_streams_init(&server->streams, loop, server);
    server->handles++;
    xi_documents_init(&server->documents, loop, server);
}

enum xi_rc xi_http_server_open(struct xi_service *service, const struct xi_http_config *config,
                               struct xi_http_server **ret, struct xi_err *err)
{
    struct xi_http_server *server = calloc(1, sizeof *server);
    enum xi_rc rc;

    if (server == NULL)
        return xi_fail(err, XI_ENOMEM, "no memory for the HTTP server");
    server->service = service;
    server->config = *config;
    struct xi_http_config *f = &server->config;
    f->connections_max = or_default(f->connections_max, XI_CONNECTIONS_MAX);
    f->slow_head_ms = or_default(f->slow_head_ms, XI_SLOW_HEAD_MS);
    f->slow_window_ms = or_default(f->slow_window_ms, XI_SLOW_WINDOW_MS);
    f->slow_bytes_per_s = or_default(f->slow_bytes_per_s, XI_SLOW_BYTES_PER_S);
    f->idle_ms = or_default(f->idle_ms, IDLE_MS);
    f->message_max = f->message_max ? f->message_max : XI_GRPC_MESSAGE;
    f->heartbeat_ms = or_default(f->heartbeat_ms, HEARTBEAT_MS);
    f->stream_queue_bytes = or_default(f->stream_queue_bytes, STREAM_QUEUE);
    f->stream_stall_ms = or_default(f->stream_stall_ms, STREAM_STALL_MS);
    f->slot_wait_ms = or_default(f->slot_wait_ms, SLOT_WAIT_MS);
    server->gate.allowed_hosts = f->allowed_hosts;
    server->gate.n_allowed_hosts = f->n_allowed_hosts;
    server->gate.allowed_origins = f->allowed_origins;
    server->gate.n_allowed_origins = f->n_allowed_origins;
    server->last_client_ms = xi_now_ms();
    server->ahead_max = XI_HTTP2_AHEAD_MAX;
    rc = xi_gate_init(&server->gate, f->token_file ? f->token_file : "", err);
    if (rc != XI_OK) {
        free(server);
        return rc;
    }
    server->gate.anonymous = server->gate.need_token ? XI_ROLE_PUBLIC
                             : f->anonymous != NULL  ? *f->anonymous
                                                     : XI_ROLE_ADMIN;
    start_timers(server);
    rc = listen_tcp(server, err);
    if (rc == XI_OK)
        rc = listen_socket(server, err);
    if (rc != XI_OK) {
        server->config.socket = ""; /* it is not ours */
        xi_http_server_close(server);
        return rc;
    }
    *ret = server;
    return XI_OK;
}

unsigned xi_http_server_port(const struct xi_http_server *server)
{
    return server->port;
}

void xi_http_server_drain(struct xi_http_server *server, void (*cb)(void *ctx), void *ctx)
{
    server->draining = 1;
    server->drained = cb;
    server->drained_ctx = ctx;
    server->drain_since_ms = xi_now_ms();
    xi_streams_end(&server->streams);
    for (struct xi_conn *c = server->conns; c != NULL; c = c->next)
        xi_h2_drain(c);
    server->sweep_runs = 1;
    (void)uv_timer_start(&server->sweep, on_sweep, DRAIN_GRACE_MS, SWEEP_MS);
}

void xi_http_server_close(struct xi_http_server *server)
{
    if (server == NULL || server->closing)
        return;
    server->closing = server->draining = 1;
    server->drained = NULL;
    stop_listening(server);
    while (server->conns != NULL)
        xi_conn_close(server->conns);
    xi_streams_close(&server->streams, on_handle_closed);
    xi_documents_close(&server->documents, on_handle_closed);
    uv_close((uv_handle_t *)&server->sweep, on_handle_closed);
    uv_close((uv_handle_t *)&server->retry, on_handle_closed);
    uv_close((uv_handle_t *)&server->turn, on_handle_closed);
    uv_close((uv_handle_t *)&server->flush, on_handle_closed);
}

void xi_http_server_stats(const struct xi_http_server *server, struct xi_http_stats *ret)
{
    *ret = server->stats;
}

uint64_t xi_http_server_idle_ms(const struct xi_http_server *server)
{
    return server->conns != NULL ? 0 : xi_now_ms() - server->last_client_ms;
}
