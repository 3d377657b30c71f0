/* linked.h: a loop, shared memory and one host, for tests. */
#ifndef XI_TESTS_LINKED_H
#define XI_TESTS_LINKED_H

#include "daemon/ipc/host_link.h"

/* A sanitizer's runtime catches signals and looks for leaks when its process ends. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { SANITIZED = 1 };
#else
enum { SANITIZED = 0 };
#endif

struct linked {
    uv_loop_t loop;
    struct xi_shm *shm;
    struct xi_host *host;
    char dir[64]; /* link directory, removed at the end */
    uint64_t output_limit_bytes, data_limit_bytes;
    int sandbox, group;

    int loaded, failed, unloaded, exited, probed;
    struct xi_msg_loaded load;
    struct xi_signature signature;
    struct xi_msg_probed probe_head;
    struct xi_engine_probe probe;
    struct xi_err why;
    char phase[32];
    struct xi_host_exit end;
    uint32_t done;
    /* Called for each answer; NULL: it is released. */
    void (*on_done)(struct linked *l, uint32_t lane, struct xi_reply *reply);
    void *ctx;
};

void linked_open(struct linked *l);
/* Writes manifest.json and model.xref into a fresh directory. */
void linked_package(struct linked *l, const char *model);
/* Starts a host in this role; program NULL: the real one. */
void linked_start(struct linked *l, enum xi_host_role role, const char *program,
                  const char *engine);
/* package, start, load on so many lanes, wait for the answer. */
void linked_load(struct linked *l, const char *model, uint32_t lanes);
/* Runs the loop until *flag is at least n or ms pass; 1 when it is. */
int linked_wait_int(struct linked *l, const int *flag, int ms);
int linked_wait_done(struct linked *l, uint32_t n, int ms);
/* One tensor of floats [1,n] as input 0. The slot is taken here; the caller puts it after the
 * answer. Returns submit's code. */
enum xi_rc linked_submit(struct linked *l, uint32_t lane, uint64_t id, const float *values,
                         uint32_t n, struct xi_slot **ret_slot, struct xi_err *err);
/* Stops the host if it runs, waits for its end, frees everything, checks that nothing is left. */
void linked_close(struct linked *l);

#endif
