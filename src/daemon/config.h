/* config.h: config.json and the command line (docs/configuration.md). Start-up only. */
#ifndef XI_DAEMON_CONFIG_H
#define XI_DAEMON_CONFIG_H

#include <stdint.h>

#include "base/limits.h"
#include "base/log.h"
#include "base/status.h"

#define XI_CONFIG_LIST_MAX 32

struct xi_config {
    char listen[128];     /* "127.0.0.1:9470"; "" : no TCP */
    char socket[108];     /* "" : DIR/xinferd.sock */
    char state_dir[512];
    char token_file[512]; /* required for a listener that is not loopback */
    char allowed_hosts[XI_CONFIG_LIST_MAX][128];
    char allowed_origins[XI_CONFIG_LIST_MAX][128];
    uint32_t n_allowed_hosts, n_allowed_origins;
    enum xi_log_level log_level;
    enum xi_log_style log_style;
    uint64_t input_memory_bytes; /* budget of shm_manager */
    uint64_t host_data_limit_bytes;
    uint32_t cores;              /* lane budget; 0: what the machine gives */
    uint32_t queue_limit;        /* per session */
    uint32_t drain_ms;           /* SIGTERM */
    uint32_t watchdog_min_ms;    /* a request is never given less */
    uint32_t crash_window_ms, crash_limit; /* quarantine after so many in the window */
    uint32_t idle_exit_s;        /* end when no client was seen for so long; 0: never */
    int sandbox;
    uint32_t host_uid;           /* as root: hosts run as this uid (+ n); 0: pick */
    char engine_dir[512], openvino_dir[512], host_program[512];
};

void xi_config_defaults(struct xi_config *c);
/* A whole file over the defaults; ECONFIG names the key, and the nearest known one. */
enum xi_rc xi_config_load(struct xi_config *c, const char *path, struct xi_err *err) XI_MUST_CHECK;
/* The command line over that. Returns XI_OK, EUSAGE; *ret_exit ≥ 0: leave with that code
 * (--help, --version, --check-config). */
enum xi_rc xi_config_args(struct xi_config *c, int argc, char **argv, int *ret_exit,
                          struct xi_err *err) XI_MUST_CHECK;
/* Cross-checks: a public listener needs a token file of mode 0600, limits fit, … */
enum xi_rc xi_config_check(const struct xi_config *c, struct xi_err *err) XI_MUST_CHECK;

#endif
