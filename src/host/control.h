/* control.h: the host's end of its control socket (fd 3). Any thread may send. */
#ifndef XI_HOST_CONTROL_H
#define XI_HOST_CONTROL_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "ipc/messages.h"

#define XI_CONTROL_FD 3

/* The program's arguments. Texts may be "". */
struct xi_host_args {
    uint32_t role; /* 0 run, 1 probe, 2 install */
    const char *engine, *plugin_dir, *engine_libs, *link_dir, *cache_dir;
    uint64_t data_limit_bytes;
    uint32_t uid;
    int nice;
    int sandbox;
    int group; /* several sessions will come: the sandbox stays as it is for loading */
};

/* Sets the head and sends; waits while the daemon's queue is full. EHOST: the daemon has gone. */
enum xi_rc xi_control_send(void *message, enum xi_msg_type type, size_t bytes) XI_MUST_CHECK;
/* Waits for a message up to timeout_ms (-1: no limit). EAGAIN: time is up; EHOST; EPROTO. */
enum xi_rc xi_control_recv(void *buf, size_t cap, size_t *ret_bytes, int *fds, size_t *ret_n_fds,
                           int timeout_ms, struct xi_err *err) XI_MUST_CHECK;
/* HELLO, once the first step of the sandbox is taken. 0, or the program's exit code. */
int xi_control_hello(const struct xi_host_args *args, const char *sandbox);
/* session 0: of the host as a whole, or in another role than run. */
void xi_control_progress(uint32_t session, const char *phase, uint32_t permille,
                         uint64_t elapsed_us);
/* FAILED with err's words. */
void xi_control_failed(uint32_t session, const struct xi_err *err, const char *phase);

/* Roles. Each returns the program's exit code. */
int xi_role_run(const struct xi_host_args *args);
int xi_role_probe(const struct xi_host_args *args);
int xi_role_install(const struct xi_host_args *args);

#endif
