/* client.h: talking to a daemon over its public API (HTTP on TCP or on the Unix socket), by
 * libcurl. One client belongs to one thread. Errors of the daemon (RFC 9457 problem documents)
 * come back with their own code, sentence and hint. */
#ifndef XI_CLIENT_CLIENT_H
#define XI_CLIENT_CLIENT_H

#include <jansson.h>
#include <signal.h>
#include <stdint.h>

#include "base/status.h"
#include "base/str.h"

struct xi_client;

/* done_bytes of total_bytes (0: none) of the request's body have gone out. Called often while
 * bytes move, about once a second while the daemon thinks. */
typedef void (*xi_client_progress)(void *ctx, uint64_t done_bytes, uint64_t total_bytes);
/* One server-sent event of the answer; both texts end with the call. */
typedef void (*xi_client_event)(void *ctx, const char *name, const char *data);

/* server: "http://host:port" or "unix:/path". token may be NULL. EUSAGE for anything else. */
enum xi_rc xi_client_open(const char *server, const char *token, struct xi_client **ret,
                          struct xi_err *err) XI_MUST_CHECK;
void xi_client_close(struct xi_client *c);
/* Calls end with ECANCELLED soon after *flag is not 0 (a signal handler may set it). */
void xi_client_cancel_on(struct xi_client *c, const volatile sig_atomic_t *flag);

/* prefix and name as one path of a URL: what a name may not hold is escaped. EUSAGE when it does
 * not fit. */
enum xi_rc xi_client_path(const char *prefix, const char *name, char *ret, size_t bytes,
                          struct xi_err *err) XI_MUST_CHECK;

/* "$XDG_RUNTIME_DIR/xinfer/xinferd.sock", or under the user's state directory. */
void xi_client_user_socket(char *ret, size_t bytes);

struct xi_call {
    const char *method, *path;
    const char *const *headers; /* NULL-terminated "Name: value" lines, or NULL */
    const void *body;           /* memory, or */
    int body_fd;                /* a file from its start (-1: none) */
    uint64_t body_bytes;
    long timeout_ms; /* of the whole call, 0: none */
    xi_client_progress progress;
    void *progress_ctx;
    xi_client_event event; /* for answers of type text/event-stream */
    void *event_ctx;
};

struct xi_answer {
    long status;
    char content_type[128];
    uint64_t header_bytes_inference; /* Inference-Header-Content-Length, 0: none */
    struct xi_str body;
};

/* The error that a problem document tells, or what its status means when it is none. */
enum xi_rc xi_client_problem(const char *json, size_t bytes, long status, struct xi_err *err);

/* ret->body must be initialised with its cap; it is replaced. A status of 400 and above becomes
 * the daemon's error; EUNREACH when nobody answers. */
enum xi_rc xi_client_call(struct xi_client *c, const struct xi_call *call, struct xi_answer *ret,
                          struct xi_err *err) XI_MUST_CHECK;
/* JSON in (may be NULL), JSON out (json_decref). */
enum xi_rc xi_client_json(struct xi_client *c, const char *method, const char *path,
                          const json_t *body, json_t **ret, struct xi_err *err) XI_MUST_CHECK;
/* Does anybody answer there? Within timeout_ms. */
int xi_client_alive(const char *server, long timeout_ms);

#endif
