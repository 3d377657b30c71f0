/* host_impl.h: what the files of host_link share. Loop thread. */
#ifndef XI_DAEMON_IPC_HOST_IMPL_H
#define XI_DAEMON_IPC_HOST_IMPL_H

#include "daemon/ipc/host_link.h"
#include "ipc/ring.h"

#define XI_LANE_RING_BYTES    (256u * 1024u)
#define XI_LANE_IN_FLIGHT_MAX (2 * XI_BATCH_MAX)
#define XI_HOST_OUTPUTS_MAX   256 /* output segments of one host */
#define XI_HOST_LOG_LINE      512
/* More of these in a second is a flood, and ends the host. */
#define XI_HOST_MESSAGES_PER_S    1000
#define XI_HOST_PARTIALS_PER_S    20000 /* completions that are not the last of their request */
#define XI_HOST_EMPTY_WAKES_PER_S 50000
/* What one turn of the loop takes from one host. */
#define XI_HOST_MESSAGES_PER_TURN 32
#define XI_HOST_RECORDS_PER_TURN  256
#define XI_HOST_LOG_LINES_PER_S   50

enum xi_host_state {
    XI_HOST_RUNS = 0, /* process lives */
    XI_HOST_ENDING,   /* told to go, or being killed */
    XI_HOST_ENDED,    /* reaped; `exited` was or is being told */
    XI_HOST_CLOSED    /* handles are closing */
};

/* One LOAD and what became of it. */
enum xi_load_state { XI_LOAD_ASKED = 0, XI_LOAD_DONE, XI_LOAD_LEAVING };

struct xi_host_session {
    uint32_t number;
    uint32_t first_lane, n_lanes; /* stages' lanes included */
    uint32_t lane_count;          /* without them */
    enum xi_load_state state;
    int told; /* LEAVING: UNLOAD was sent; not while something is in flight */
};

struct xi_host_output {
    struct xi_segment *segment;
    uint32_t lane; /* UINT32_MAX: of a load that failed; DROPPED comes */
};

struct xi_in_flight {
    uint64_t id;
    uint32_t next_seq;
};

struct xi_lane_link {
    int fd;                 /* ring memory */
    int submit_fd, wait_fd; /* our end to wake the host's thread, and its end, which we keep so
                             * that a host that closes it cannot make ours a broken pipe */
    struct xi_map map;
    struct xi_ring submit, complete;
    uint32_t session; /* whose it is */
    uint32_t n_in_flight, n_owed, cap_owed;
    struct xi_mem_ref *owed; /* releases that the ring had no room for */
    struct xi_in_flight in_flight[XI_LANE_IN_FLIGHT_MAX];
};

/* Counts events of the current second. */
struct xi_rate {
    uint64_t second;
    uint32_t count;
};
/* 1 while at most `per_s` came in this second. */
int xi_rate_allows(struct xi_rate *rate, uint32_t per_s);

struct xi_host_log {
    struct xi_rate rate;
    uint64_t dropped;
    uint32_t len;
    char line[XI_HOST_LOG_LINE];
};

struct xi_host {
    uv_loop_t *loop;
    struct xi_shm *shm;
    struct xi_host_events events;
    struct xi_shm_watch watch;
    enum xi_host_role role;
    enum xi_host_state state;
    uint32_t refs; /* the owner, each reply, the handles until closed */
    char label[80];
    int pid, pidfd, control_fd, log_fd;
    int complete_fd, answer_fd; /* all lanes' completions wake us; the end that hosts signal */
    uv_poll_t control, complete, ended, log_pipe;
    uv_timer_t grace;
    uv_idle_t more; /* completions left for the next turn; a timer of 0 ms could run in this one */
    uint32_t open_handles;

    uint32_t n_lanes;                              /* the highest number in use, + 1 */
    struct xi_lane_link *lanes[XI_HOST_LANES_MAX]; /* NULL: not in use */
    struct xi_host_session sessions[XI_HOST_SESSIONS_MAX];
    uint32_t n_sessions;
    uint32_t *seen; /* input segments the host has, newest last */
    uint32_t n_seen, cap_seen;
    struct xi_host_output *outputs;
    uint32_t n_outputs, cap_outputs;
    uint64_t output_bytes, output_limit_bytes;

    int hello, answered;              /* where the conversation stands; RUN: see sessions */
    const struct xi_cgroups *cgroups; /* may be NULL */
    int cgroup;                       /* its own; -1: none */
    char cgroup_name[24];
    int killed, lied;
    char why[160], sandbox[128];
    struct xi_rate messages, partials, empty_wakes;
    struct xi_host_log log;
    /* One message at a time; 8-byte aligned for the structs in it. */
    _Alignas(8) uint8_t inbox[XI_MESSAGE_MAX];
};

/* life (host_link.c) */
/* The host lied or floods: it is killed, its exit says "broke the protocol: …". */
void xi_host_broke(struct xi_host *host, const char *what);
/* Something of ours ran out: killed for that reason. */
void xi_host_give_up(struct xi_host *host, const char *why);
void xi_host_deref(struct xi_host *host);

/* its control group (host_cgroup.c) */
void xi_host_confine(struct xi_host *host, const struct xi_host_spec *spec);
/* It has ended: says so where its memory was why. */
void xi_host_unconfine(struct xi_host *host, struct xi_host_exit *why);

/* messages (host_wire.c) */
enum xi_rc xi_host_send(struct xi_host *host, void *message, enum xi_msg_type type, size_t bytes,
                        const int *fds, size_t n_fds, struct xi_err *err) XI_MUST_CHECK;
/* Reads what waits, at most `max` messages. 1: there may be more; -1: the host closed it. */
int xi_host_read_messages(struct xi_host *host, uint32_t max);
/* The host has it mapped, or is told to map it now. */
enum xi_rc xi_host_show_input(struct xi_host *host, const struct xi_segment *segment,
                              struct xi_err *err) XI_MUST_CHECK;
/* NULL: it has no such segment. */
struct xi_host_output *xi_host_output_find(struct xi_host *host, uint32_t id);
void xi_host_outputs_fini(struct xi_host *host);

/* A lane of it has nothing in flight any more: sends the UNLOAD that may wait for that. */
void xi_host_unload_when_idle(struct xi_host *host, uint32_t session);

/* lanes (host_lanes.c) */
/* All of a session, or none. */
enum xi_rc xi_host_lanes_open(struct xi_host *host, const struct xi_host_session *s, int nice,
                              struct xi_err *err) XI_MUST_CHECK;
void xi_host_lanes_close_range(struct xi_host *host, uint32_t first, uint32_t n);
/* Asks these lanes' threads to end behind their work. 0: one has no room for that. */
int xi_host_lanes_quit(struct xi_host *host, uint32_t first, uint32_t n);
void xi_host_lanes_close(struct xi_host *host);
/* Delivers completions, at most `max`. 1: there may be more. */
int xi_host_read_lanes(struct xi_host *host, uint32_t max);

/* log (host_log.c) */
/* Reads the pipe once. 1: there may be more. */
int xi_host_read_log(struct xi_host *host);
void xi_host_log_end(struct xi_host *host);

#endif
