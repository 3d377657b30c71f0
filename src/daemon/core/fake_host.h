/* fake_host.h: xinfer-host as the tests of this room see it: it does what it is told and remembers
 * what it was asked. Takes the place of daemon/ipc and of the store's links at link time. */
#ifndef XI_DAEMON_CORE_FAKE_HOST_H
#define XI_DAEMON_CORE_FAKE_HOST_H

#include <uv.h>

#include "core/package_record.h"
#include "daemon/ipc/host_link.h"

#define FAKE_HOSTS_MAX 4096
#define FAKE_LOADS_MAX XI_HOST_SESSIONS_MAX
#define FAKE_BATCH_MAX 16  /* requests on a lane */
#define FAKE_KEPT_MAX  512 /* between stages */

struct fake_request {
    uint64_t id;
    uint8_t fill; /* the first byte of its input */
};

struct xi_host {
    struct xi_host_events events;
    char label[80], engine[32];
    struct xi_msg_load load;
    int group, loaded, stopped, ended, freed;
    struct xi_msg_load loads[FAKE_LOADS_MAX]; /* not yet unloaded */
    int told[FAKE_LOADS_MAX];                 /* LOADED was said of it: the test's */
    int load_asked[FAKE_LOADS_MAX];           /* no answer yet */
    uint32_t n_loads, unloads[FAKE_LOADS_MAX], n_unloads;
    uint32_t lanes;
    uint32_t owner[XI_HOST_LANES_MAX];   /* session; 0: no lane */
    uint64_t running[XI_HOST_LANES_MAX]; /* the request in turn; 0: the lane is free */
    uint8_t first[XI_HOST_LANES_MAX];    /* the first byte of its input */
    enum xi_work_op op[XI_HOST_LANES_MAX];
    int core[XI_HOST_LANES_MAX];                                   /* where it was to run */
    struct fake_request behind[XI_HOST_LANES_MAX][FAKE_BATCH_MAX]; /* the rest of its batch */
    uint32_t n_behind[XI_HOST_LANES_MAX];
    struct fake_request kept[FAKE_KEPT_MAX]; /* what PRE made */
    uint32_t n_kept;
    unsigned most_running, largest_batch, forgotten;
    char stop_why[160];
};

struct fake {
    struct xi_host *hosts[FAKE_HOSTS_MAX];
    unsigned n_hosts, alive, most_alive, submits;
    int64_t slots, segments;   /* out */
    int fail_start, fail_load; /* so many times */
    enum xi_rc submit_rc;      /* of the next submit, then XI_OK */
    unsigned links;            /* calls of xi_store_prepare */
    unsigned groups_forgotten;
    uint64_t memory_bytes; /* that loads measure; 0: 10000000 */
    uint64_t peak_bytes;   /* that the store knows of everything; 0: nothing */
    uint64_t replies;      /* not yet released */
    uint64_t run_ns;       /* that fake_done says it took; 0: a millisecond */
    int core;              /* where completions say that they ran */
    int no_slots;          /* xi_shm_take has no room */
    /* What LOADED says from now on; staged: PRE's shape key is the first byte's low two bits. */
    uint32_t max_batch;
    int staged, has_flow;
    int32_t rank;      /* of the one input, all free; 0: 1 */
    unsigned replaces; /* calls of xi_store_replace; the last one waits for fake_replaced */
    char row_out[XI_UUID_TEXT + 1], row_in[XI_UUID_TEXT + 1];
    void (*replaced)(void *ctx, const struct xi_err *err);
    void *replaced_ctx;
    char found[XI_DIGEST_HEX + 1]; /* asked of xi_store_find, which waits for fake_found */
    void (*finder)(void *ctx, const char *digest, struct xi_package_record *record,
                   const struct xi_err *err);
    void *finder_ctx;
};
extern struct fake fake;

void fake_reset(void); /* also checks that nothing is left over */
struct xi_host *fake_last(void);
/* Events, delivered now. */
void fake_loaded(struct xi_host *host, uint64_t service_ns);
/* The last load is meant where no session is named. */
void fake_loaded_session(struct xi_host *host, uint32_t session, uint64_t service_ns);
void fake_unloaded(struct xi_host *host, uint32_t session, uint64_t memory_bytes);
struct xi_msg_load *fake_load_of(struct xi_host *host, uint32_t session); /* NULL: none */
void fake_failed(struct xi_host *host, enum xi_rc rc, const char *text);
void fake_done(struct xi_host *host, uint32_t lane, enum xi_rc rc);
void fake_done_id(struct xi_host *host, uint32_t lane, uint64_t id, uint64_t device_ns);
/* 1: something of this fill runs there. */
int fake_runs(const struct xi_host *host, uint8_t fill);
void fake_exit(struct xi_host *host, const char *reason);
void fake_exit_code(struct xi_host *host, int code); /* by itself */
void fake_progress(struct xi_host *host, uint32_t session, const char *phase);
void fake_found(struct xi_package_record *record);
void fake_replaced(enum xi_rc rc); /* the store has answered */
/* A slot whose bytes are all `fill`. */
struct xi_slot *fake_slot(uint64_t bytes, uint8_t fill);

#endif
