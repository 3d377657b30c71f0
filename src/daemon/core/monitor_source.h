/* monitor_source.h: where readings of devices come from, one file a source. A worker's, one thread
 * at a time; private to the monitor.
 *
 * A source is looked for at start and then rarely; while it is there it is read each time. One
 * that is absent costs nothing, one that vanishes takes its devices with it. */
#ifndef XI_DAEMON_CORE_MONITOR_SOURCE_H
#define XI_DAEMON_CORE_MONITOR_SOURCE_H

#include <limits.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/core/resource_monitor.h"
#include "xinfer/engine.h"

#define XI_SENSE_TEXT 4096
#define XI_SENSE_DIRS 32

/* One look at /proc and /sys. */
struct xi_sense {
    const char *root;
    uint64_t now_ms;  /* monotonic */
    uint64_t last_ms; /* of the look before; 0: none */
    struct xi_resources *r;
    char text[XI_SENSE_TEXT]; /* of the last file */
};

struct xi_source {
    const char *name;
    const char *needs;  /* what is missing when it is absent, for people */
    size_t state_bytes; /* zeroed when it is looked for */
    /* 1: there is something to read. */
    int (*probe)(struct xi_sense *in, void *state);
    /* Adds its devices. 0: they have gone. */
    int (*read)(struct xi_sense *in, void *state);
    void (*end)(void *state); /* may be NULL */
};

extern const struct xi_source xi_source_devfreq, xi_source_intel, xi_source_nvml, xi_source_xrt;

/* The path's first XI_SENSE_TEXT bytes, its end cut; NULL: not there. Valid until the next call. */
const char *xi_sense_text(struct xi_sense *in, const char *path);
/* The number that the file begins with, scaled; unknown when it is none or cannot be true. */
double xi_sense_number(struct xi_sense *in, const char *path, double scale, double min, double max);
/* Names in a directory that match (all: ""), sorted; how many, at most XI_SENSE_DIRS. */
unsigned xi_sense_dir(const struct xi_sense *in, const char *path, const char *holds,
                      char names[XI_SENSE_DIRS][64]);
double xi_number_or_unknown(const char *text, double scale, double min, double max);
/* A device with everything unknown; NULL: there are XI_MONITORED_MAX. */
struct xi_monitored *xi_sense_add(struct xi_sense *in, uint32_t kind, const char *source);
/* How much of the time since the last look a counter of busy (or idle) time took: 0..1. inout_last
 * begins as XI_UNKNOWN. per_ms: what the counter gains in a millisecond. */
double xi_sense_share(const struct xi_sense *in, double counter, double *inout_last, double per_ms);
/* The hwmon of a device, "DEVICE/hwmon/hwmonN"; 0: it has none. */
int xi_sense_hwmon(const struct xi_sense *in, const char *device, char *ret, size_t room);

/* monitor_thermal.c: heat and limits of devices that do not tell themselves; RAPL, board power. */
void xi_monitor_heat(struct xi_sense *in);
void xi_monitor_power(struct xi_sense *in, double *inout_uj);

#endif
