/* resource_monitor.h: what the machine is and how it does. Reads /proc and /sys on the work pool
 * every interval and publishes a snapshot to the loop. A value that cannot be read or makes no
 * sense is unknown (XI_UNKNOWN), never a guess. */
#ifndef XI_DAEMON_CORE_RESOURCE_MONITOR_H
#define XI_DAEMON_CORE_RESOURCE_MONITOR_H

#include <stdint.h>
#include <uv.h>

#include "base/status.h"

#define XI_UNKNOWN       (-1.0)
#define XI_THERMAL_MAX   16
#define XI_SOURCES_MAX   8
#define XI_MONITORED_MAX 16 /* devices */

struct xi_thermal {
    char name[48];
    double celsius;
};

/* One device as its sensors show it; unknown values are XI_UNKNOWN. */
struct xi_monitored {
    char id[16];                 /* "cpu", "gpu:0", "npu:1" */
    uint32_t kind;               /* enum xi_device_kind */
    char name[96], source[16];   /* "nvml", "devfreq", … */
    double load;                 /* 0..1 */
    double celsius, hot_celsius; /* hot: where it must not stay */
    double power_w, clock_mhz;
    double memory_total_bytes, memory_used_bytes;
    char throttled[48]; /* why its clock is held down; "": it is not, or unknown */
};

enum xi_sensor_state { XI_SENSOR_ABSENT = 0, XI_SENSOR_PRESENT, XI_SENSOR_GONE };

struct xi_resources {
    uint64_t sampled_at_ms; /* monotonic; 0: not yet */
    char cpu_model[96];
    uint32_t cores;  /* that this process may use (affinity, cgroup quota) */
    double cpu_load; /* 0..1, of the processors this process may run on */
    double load_1m;
    double memory_total_bytes, memory_available_bytes; /* cgroup limit respected */
    double daemon_rss_bytes, daemon_open_fds;
    uint32_t n_thermal;
    struct xi_thermal thermal[XI_THERMAL_MAX];
    double max_celsius; /* of all zones */
    double cpu_mhz;
    double board_power_w;
    uint32_t n_sources;
    struct { /* sources of what is below, found or not */
        const char *name, *needs;
        enum xi_sensor_state state;
    } sources[XI_SOURCES_MAX];
    uint32_t n_devices; /* the first is the processor */
    struct xi_monitored devices[XI_MONITORED_MAX];
    uint64_t cpu_busy_ticks, cpu_all_ticks; /* of the last reading: cpu_load is the difference */
};

struct xi_monitor;
/* root: "" in life, a directory that holds proc/ and sys/ in tests. */
struct xi_monitor *xi_monitor_new(uv_loop_t *loop, const char *root, unsigned interval_ms);
void xi_monitor_free(struct xi_monitor *m); /* memory goes when the loop has turned; NULL is fine */
/* tick: about once a second on the loop thread, whether or not a reading is there. heat: a device
 * became too hot, or (hot 0) no longer is. Either may be NULL. */
typedef void (*xi_heat_cb)(void *ctx, const struct xi_monitored *device, int hot);
void xi_monitor_on_tick(struct xi_monitor *m, void (*tick)(void *ctx), xi_heat_cb heat, void *ctx);
/* "GPU.1", "gpu:1": the second of its kind; an id without a number is the first. */
unsigned xi_device_index(const char *id);
/* The sensor of an engine's device; NULL: there is none. */
const struct xi_monitored *xi_resources_find(const struct xi_resources *r, uint32_t kind,
                                             const char *id);
/* Never NULL; all unknown until the first reading is there (sampled_at_ms 0). While somebody looks
 * each second brings a reading, else each fifth does. */
const struct xi_resources *xi_monitor_latest(struct xi_monitor *m);
/* One synchronous reading (start-up, tests). Zero *inout before the first: what it holds of the
 * last one gives cpu_load. Any thread; a millisecond or so. */
void xi_resources_read(const char *root, struct xi_resources *inout);

/* The same with all sources of devices. One thread at a time; now_ms is monotonic, so that a source
 * that is absent or gone is looked for again only once a minute. */
struct xi_sensors;
struct xi_sensors *xi_sensors_new(const char *root); /* NULL: memory is out */
void xi_sensors_free(struct xi_sensors *s);
void xi_sensors_read(struct xi_sensors *s, uint64_t now_ms, struct xi_resources *inout);

#endif
