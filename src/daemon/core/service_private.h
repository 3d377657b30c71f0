/* service_private.h: the inside of the service. Loop thread.
 *
 *   service.c         opening, draining, closing, readiness
 *   service_probe.c   engine plugins, probed in hosts
 *   service_load.c    load and unload with desired state; restoring it
 *   service_settings.c  what is changed at run time */
#ifndef XI_DAEMON_CORE_SERVICE_PRIVATE_H
#define XI_DAEMON_CORE_SERVICE_PRIVATE_H

#include "daemon/core/loop_lag.h"
#include "daemon/core/service.h"

#define XI_ENGINES_MAX 32u
#define XI_PROBE_MS    5000u
#define XI_LOOK_MIN_MS 5000u /* between looks for a device that is gone */
#define XI_LOOK_MAX_MS 60000u
#define XI_MONITOR_MS  1000u
#define XI_SHM_TRIM_MS 5000u
#define XI_EXPIRE_MS   1000u /* of sequences */
#define XI_CLOSE_MS    5000u

struct xi_service_inner;

struct xi_probe_run {
    struct xi_service_inner *service;
    struct xi_engine_record *record;
    struct xi_host *host; /* NULL: not running */
    uv_timer_t limit;     /* of a probe; or until the next look at its devices */
    uint64_t began_us;
    int answered;
    int again; /* a second look: its record is `second` */
    uint32_t wait_ms;
    struct xi_engine_record second;
};

struct xi_service_inner {
    struct xi_service s; /* first: callers hold this */
    struct xi_engine_record records[XI_ENGINES_MAX];
    struct xi_probe_run probes[XI_ENGINES_MAX];
    uint32_t probes_left;
    struct xi_desired *rows; /* being restored */
    size_t n_rows, next_row;
    struct xi_err restore_err; /* the first row that could not be brought back */
    uint32_t restore_failures;
    struct xi_loop_lag lag;
    uv_timer_t drain, trim, expire;
    uint64_t drain_until_ms;
    void (*drained)(void *ctx);
    void *drained_ctx;
    json_t *file_settings, *changed_settings; /* of the configuration file; at run time over it */
    uint64_t physical_bytes;
    int configuring; /* a change is on its way to the disk */
    int closing;
    unsigned open_handles;
};

static inline struct xi_service_inner *xi_service_inner_of(struct xi_service *s)
{
    return (struct xi_service_inner *)(void *)s;
}

/* Starts a probe of every plugin; xi_service_probed when the last has ended, from the loop or
 * from inside when there is none. */
void xi_service_probe(struct xi_service_inner *in);
void xi_service_probed(struct xi_service_inner *in);
/* Looks whether the devices of an engine are there, now and until they are, and tells the sessions.
 */
void xi_service_look_again(void *in, const char *engine, const char *device);
void xi_service_probe_stop(struct xi_service_inner *in);
/* The settings of the file, with what was changed before this start over them, come into force. */
enum xi_rc xi_service_settings_open(struct xi_service_inner *in, struct xi_err *err) XI_MUST_CHECK;
void xi_service_settings_fini(struct xi_service_inner *in);
/* "" when the file may be loaded, else why not: a plugin that others can write is theirs. */
void xi_plugin_judge(const char *path, struct xi_err *ret);
/* "libxinfer_engine_openvino.so" → "openvino"; 0 when it is no such name. */
int xi_plugin_name(const char *file, char ret[32]);

#endif
