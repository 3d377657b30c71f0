/* connection.h: one client on TCP or on the Unix socket, and the server that holds them all.
 * Loop thread; private to this room. */
#ifndef XI_DAEMON_API_CONNECTION_H
#define XI_DAEMON_API_CONNECTION_H

#include <uv.h>

#include "daemon/api/documents.h"
#include "daemon/api/exchange.h"
#include "daemon/api/streams.h"
#include "wire/http1.h"
#include "wire/http2.h"

#define XI_SCRATCH_BYTES (4 * XI_KIB)
/* What the kernel holds for one connection, and what one turn of the loop reads of it: a read that
 * a fast sender keeps filling would never end. */
#define XI_RECEIVE_ROOM (512 * 1024)
#define XI_TURN_BYTES   (256 * 1024)
#define XI_STASH_MAX    (64 * XI_KIB) /* of a client that sends ahead */

struct telemetry;
struct xi_grpc;
struct xi_grpc_call;
struct xi_h2_batch;

struct xi_conn {
    union {
        uv_tcp_t tcp;
        uv_pipe_t pipe;
        uv_stream_t stream;
        uv_handle_t handle;
    } h;
    struct xi_http_server *server;
    struct xi_conn *prev, *next;
    struct xi_conn *turn_next; /* while `yielded` */
    struct xi_http1 http;
    size_t turn_bytes;     /* read without a pause so far */
    struct xi_exchange *x; /* NULL between requests */
    struct xi_h2 *h2;      /* it speaks HTTP/2; x is NULL then */
    int fresh;             /* it has not said what it speaks */
    int over_socket;       /* Unix socket */
    enum xi_role door;     /* of whoever sends no token */
    int closing, reading, pumping, close_after, broken;
    int yielded;              /* requests wait in the stash for its next turn */
    uint64_t linger_until_ms; /* our answer is out, the rest of its body is dropped until then */
    uint64_t discarded;
    struct xi_str stash;

    /* Against slow clients: what moved since the window began. */
    uint64_t since_ms, head_since_ms; /* idle since; first byte of a head */
    uint64_t read_window_ms, read_bytes, write_window_ms, write_left;
    uv_shutdown_t shutdown;
};

/* What a connection has that speaks HTTP/2. */
struct xi_h2 {
    struct xi_http2 wire;
    struct xi_conn *c;
    struct xi_h2 *prev, *next;  /* while `dirty`: something is to be written */
    int dirty, broken, leaving; /* leaving: the client was told to open no more streams */
    uint64_t born_ms, ahead;    /* ahead: its part of the server's */
};

struct xi_http_server {
    struct xi_service *service;
    struct xi_http_config config;
    struct xi_gate gate;
    uv_tcp_t tcp;
    uv_pipe_t pipe;
    uv_timer_t sweep, retry;
    uv_prepare_t flush;
    uv_idle_t turn;
    int has_tcp, has_pipe, draining, closing, retry_runs, sweep_runs;
    uint64_t drain_since_ms;
    int handles; /* of libuv, and exchanges under way */
    unsigned port;
    struct xi_conn *conns;
    struct xi_conn *turns, **turns_tail; /* those that yielded, in their order */
    struct xi_h2 *dirty; /* they have something to write, with the end of this turn */
    struct xi_h2_batch *batch;
    uint64_t ahead, ahead_max; /* bytes of bodies that HTTP/2 clients sent and nobody took yet */
    struct xi_grpc *rpcs;      /* that last */
    struct xi_grpc_call *kept_calls; /* for the next one */
    uint32_t n_kept_calls;
    struct xi_exchange *free_list, *waiting;
    uint32_t n_free, n_turns, uploads, unpacking;
    uint64_t last_client_ms;
    struct xi_streams streams;
    struct xi_documents documents;
    struct telemetry *telemetry; /* being written for streams; telemetry_routes.c */
    struct xi_http_stats stats;
    void (*drained)(void *ctx);
    void *drained_ctx;
    uint8_t scratch[XI_SCRATCH_BYTES];
};

void xi_conn_accept(struct xi_http_server *server, uv_stream_t *listener);
void xi_conn_close(struct xi_conn *c);
/* Our last word is written. Closing at once would reset the connection under it while the client
 * still sends: our side is shut, the rest is dropped for a while. */
void xi_conn_linger(struct xi_conn *c);
/* The stream was un-paused, or an answer is out: goes on with the bytes that wait. */
void xi_conn_resume(struct xi_conn *c);
/* Those that yielded before this call go on, each for one more turn. */
void xi_conn_turns(struct xi_http_server *server);
/* Looks for slow and idle clients. */
void xi_conn_sweep(struct xi_conn *c, uint64_t now_ms);
/* Has the client taken too little of what was written? */
int xi_conn_reads_slowly(struct xi_conn *c, uint64_t now_ms);

/* h2.c: a connection that speaks HTTP/2. begin: 0, or -1 when there is no memory. */
int xi_h2_begin(struct xi_conn *c);
void xi_h2_take(struct xi_conn *c, const uint8_t *data, size_t n);
void xi_h2_sweep(struct xi_conn *c, uint64_t now_ms);
/* What every connection has to say is written. */
void xi_h2_flush(struct xi_http_server *server);
/* The server ends soon: the client is told. Of HTTP/1.1: nothing happens. */
void xi_h2_drain(struct xi_conn *c);
/* The connection closes: its clients have gone; it is closed: its memory. */
void xi_h2_leave(struct xi_conn *c);
void xi_h2_free(struct xi_conn *c);
/* Where its next bytes are read to, and how many; good until they are taken. */
uint8_t *xi_h2_window(struct xi_conn *c, size_t *ret_n);

/* Some connection has something to write: xi_h2_flush with the end of this turn. */
void xi_server_flush(struct xi_http_server *server);
/* Some exchange waits for a slot: look again soon. */
void xi_server_wait(struct xi_http_server *server);
/* Some connection has yielded: xi_conn_turns with the loop's next turn. */
void xi_server_turn(struct xi_http_server *server);
/* Connections are looked at from now on until there is none. */
void xi_server_watch(struct xi_http_server *server);
/* One of what `handles` counts is gone; the last one of a closed server frees it. */
void xi_server_release(struct xi_http_server *server);
/* It ends, and what was on its way when that began has been read. */
int xi_server_hangs_up(const struct xi_http_server *server, uint64_t now_ms);
void xi_server_conn_gone(struct xi_http_server *server);

#endif
