/* http_server.h: the daemon's HTTP door on TCP and on a Unix socket. Loop thread.
 *
 * Everything a client can ask is a row of the route table (routes.h) and passes one gate (gate.h).
 * A connection carries one request at a time; bodies land in slots of shared memory. */
#ifndef XI_DAEMON_API_HTTP_SERVER_H
#define XI_DAEMON_API_HTTP_SERVER_H

#include <stdint.h>

#include "base/status.h"
#include "daemon/api/gate.h"
#include "daemon/core/service.h"

struct xi_http_server;

/* Strings are borrowed until the server is closed. A number of 0 takes the house's default. */
struct xi_http_config {
    const char *listen;     /* "127.0.0.1:9470", "[::1]:9470"; "" : no TCP; port 0: any */
    const char *socket;     /* path; "" : none */
    const char *token_file; /* "" : none */
    /* What callers without a token may do where no tokens are configured; NULL: administrators. */
    const enum xi_role *anonymous;
    /* The Unix socket is open to all, and who is root, our user or in this group administers; NULL:
     * whoever can open it does. */
    const uint32_t *admin_group;
    int tcp_fd, socket_fd; /* listening sockets that were passed to us; 0: make our own */
    const char (*allowed_hosts)[128];
    const char (*allowed_origins)[128];
    uint32_t n_allowed_hosts, n_allowed_origins;
    uint32_t connections_max;
    uint32_t slow_head_ms, slow_window_ms, slow_bytes_per_s, idle_ms, slot_wait_ms;
    uint64_t message_max;                                       /* bytes of one gRPC message */
    uint32_t heartbeat_ms, stream_queue_bytes, stream_stall_ms; /* of server-sent events */
};

struct xi_http_stats {
    uint32_t connections;
    uint64_t accepted, refused, requests, slow, body_bytes, copied_bytes, sent_bytes, retried_slots;
    uint64_t events_sent, events_dropped; /* server-sent ones */
};

/* Listens. EPORT: somebody else has the address; ECONFIG: it is none, or the token file is bad
 * (mode 0600 wanted); EDISK: the socket cannot be made. A stale socket file is replaced. */
enum xi_rc xi_http_server_open(struct xi_service *service, const struct xi_http_config *config,
                               struct xi_http_server **ret, struct xi_err *err) XI_MUST_CHECK;
/* The port that TCP listens on; 0 without TCP. */
unsigned xi_http_server_port(const struct xi_http_server *server);
/* No new connections; those that are idle are closed, the others when their answer is written.
 * cb (may be NULL) once none is left. */
void xi_http_server_drain(struct xi_http_server *server, void (*cb)(void *ctx), void *ctx);
/* Cuts what is left and removes the socket file. The server frees itself on the loop: run it until
 * its handles are closed, and keep the service and its shared memory until then. */
void xi_http_server_close(struct xi_http_server *server);
void xi_http_server_stats(const struct xi_http_server *server, struct xi_http_stats *ret);
/* Milliseconds (monotonic) since a client was last connected; 0 while one is. */
uint64_t xi_http_server_idle_ms(const struct xi_http_server *server);

#endif
