/* config.h: config.json and the command line (docs/configuration.md). Start-up only. */
#ifndef XI_DAEMON_CONFIG_H
#define XI_DAEMON_CONFIG_H

#include <stdint.h>

#include "base/limits.h"
#include "base/log.h"
#include "base/status.h"
#include "daemon/api/gate.h"

#define XI_CONFIG_LIST_MAX 32

struct xi_config {
    char listen[128]; /* "127.0.0.1:9470"; "" : no TCP */
    char socket[108]; /* "" : DIR/xinferd.sock */
    char state_dir[512];
    char token_file[512]; /* required for a listener that is not loopback */
    char admin_group[64];
    enum xi_role anonymous;
    char allowed_hosts[XI_CONFIG_LIST_MAX][128];
    char allowed_origins[XI_CONFIG_LIST_MAX][128];
    uint32_t n_allowed_hosts, n_allowed_origins;
    enum xi_log_level log_level;
    enum xi_log_style log_style;
    uint64_t input_memory_bytes; /* budget of shm_manager */
    uint64_t grpc_message_bytes; /* of a client, at most */
    uint64_t memory_bytes;       /* that sessions may reserve together */
    uint64_t host_data_limit_bytes;
    int evict;                             /* idle sessions make room for new ones */
    char tenants[16 * 1024];               /* {"acme": {"weight": 3}} as JSON; "" : none */
    uint32_t cores;                        /* lane budget; 0: what the machine gives */
    uint32_t queue_limit;                  /* per session */
    uint32_t drain_ms;                     /* SIGTERM */
    uint32_t watchdog_min_ms;              /* a request is never given less */
    uint32_t crash_window_ms, crash_limit; /* quarantine after so many in the window */
    uint32_t idle_exit_s;                  /* end when no client was seen for so long; 0: never */
    int sandbox;
    uint32_t host_uid; /* as root: hosts run as this uid; 0: host_user.h picks */
    char engine_dir[512], openvino_dir[512], host_program[512], sensors_root[512];
};

/* Everything but state_dir and socket, which xi_config_args settles last. Finds the engines, the
 * host program and the vendor's libraries from where this program lies. */
void xi_config_defaults(struct xi_config *c);
/* A whole file over what c holds; ECONFIG names the key, and the nearest known one. On failure c
 * is untouched. */
enum xi_rc xi_config_load(struct xi_config *c, const char *path, struct xi_err *err) XI_MUST_CHECK;
/* The command line over that: --config's file first, then the other flags, then state_dir and
 * socket where nothing names them. Returns XI_OK, EUSAGE, ECONFIG; *ret_exit ≥ 0: leave with that
 * code (--help, --version and --check-config have printed to stdout); -1: go on. */
enum xi_rc xi_config_args(struct xi_config *c, int argc, char **argv, int *ret_exit,
                          struct xi_err *err) XI_MUST_CHECK;
/* Cross-checks: a public listener needs a token file of mode 0600, paths fit, … */
enum xi_rc xi_config_check(const struct xi_config *c, struct xi_err *err) XI_MUST_CHECK;

/* The id of admin_group. ECONFIG: there is no such group. */
enum xi_rc xi_config_group(const struct xi_config *c, uint32_t *ret,
                           struct xi_err *err) XI_MUST_CHECK;

/* Where `listen` says to listen. */
struct xi_listen {
    char host[64]; /* without brackets */
    uint16_t port; /* 0: the system picks one */
    int loopback;  /* 127.0.0.0/8, ::1 or localhost */
};
/* "HOST:PORT" or "[IPV6]:PORT"; HOST is an address or localhost. ECONFIG. */
enum xi_rc xi_config_listen(const char *listen, struct xi_listen *ret,
                            struct xi_err *err) XI_MUST_CHECK;

/* The table of all keys: --help's text, and docs/configuration.md's rows (a test holds them
 * together). */
struct xi_str;
void xi_config_help(struct xi_str *out);
void xi_config_markdown(struct xi_str *out);

#endif
