/* Intel's GPUs and NPUs in sysfs.
 *
 *   /sys/class/drm/cardN/gt_act_freq_mhz, gt/gt0/rc6_residency_ms                (i915)
 *   /sys/class/drm/cardN/device/tile0/gt0/freq0/act_freq, gtidle/idle_residency_ms   (xe)
 *   /sys/class/drm/cardN/device/hwmon/hwmonM/{temp1_input,energy1_input}         (discrete ones)
 *   /sys/class/accel/accelN/device/npu_busy_time_us, npu_current_frequency_mhz,
 * npu_memory_utilization
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <string.h>

#include "daemon/core/monitor_source.h"

enum { CARDS = 8 };

struct last {
    char name[64];
    double time, energy; /* counters of the last look */
};

struct intel {
    struct last gpus[CARDS], npus[CARDS];
};

static int is_intel(struct xi_sense *in, const char *class, const char *name)
{
    char path[160];

    (void)snprintf(path, sizeof path, "/sys/class/%s/%s/device/vendor", class, name);
    const char *vendor = xi_sense_text(in, path);
    return vendor != NULL && strcmp(vendor, "0x8086") == 0;
}

/* Connectors ("card0-DP-1") are no cards. */
static unsigned find(struct xi_sense *in, const char *class, const char *prefix,
                     char names[XI_SENSE_DIRS][64])
{
    char path[64];
    unsigned kept = 0;

    (void)snprintf(path, sizeof path, "/sys/class/%s", class);
    unsigned n = xi_sense_dir(in, path, prefix, names);
    for (unsigned i = 0; i < n; i++)
        if (strchr(names[i], '-') == NULL && is_intel(in, class, names[i]) && kept < CARDS)
            memmove(names[kept++], names[i], sizeof names[i]);
    return kept;
}

static struct last *last_of(struct last *all, unsigned i, const char *name)
{
    if (strcmp(all[i].name, name) != 0) {
        all[i] = (struct last){.time = XI_UNKNOWN, .energy = XI_UNKNOWN};
        (void)snprintf(all[i].name, sizeof all[i].name, "%s", name);
    }
    return &all[i];
}

static void name_it(struct xi_sense *in, struct xi_monitored *d, const char *what,
                    const char *device)
{
    char path[160];

    (void)snprintf(path, sizeof path, "%s/device", device);
    const char *id = xi_sense_text(in, path);
    (void)snprintf(d->name, sizeof d->name, "Intel %s %.12s", what,
                   id != NULL && strspn(id, "0123456789abcdefx") == strlen(id) ? id : "");
}

/* temp1_input in millidegrees, power1_input in µW, or energy1_input in µJ, which must be counted.
 */
static void read_hwmon(struct xi_sense *in, struct xi_monitored *d, const char *device,
                       struct last *last)
{
    char hwmon[192], path[256];

    if (!xi_sense_hwmon(in, device, hwmon, sizeof hwmon))
        return;
    (void)snprintf(path, sizeof path, "%s/temp1_input", hwmon);
    d->celsius = xi_sense_number(in, path, 1e-3, 0, 150);
    (void)snprintf(path, sizeof path, "%s/temp1_crit", hwmon);
    d->hot_celsius = xi_sense_number(in, path, 1e-3, 40, 150);
    (void)snprintf(path, sizeof path, "%s/power1_input", hwmon);
    d->power_w = xi_sense_number(in, path, 1e-6, 0, 2000);
    (void)snprintf(path, sizeof path, "%s/energy1_input", hwmon);
    double uj = xi_sense_number(in, path, 1, 0, 1e18), before = last->energy;
    last->energy = uj;
    if (d->power_w == XI_UNKNOWN && uj > 0 && before > 0 && uj >= before && in->last_ms != 0 &&
        in->now_ms > in->last_ms) {
        double w = (uj - before) / (double)(in->now_ms - in->last_ms) / 1e3;
        d->power_w = w < 2000 ? w : XI_UNKNOWN;
    }
}

static double first_of(struct xi_sense *in, const char *base, const char *const files[2],
                       double max)
{
    double v = XI_UNKNOWN;
    char path[256];

    for (int i = 0; i < 2 && v == XI_UNKNOWN; i++) {
        (void)snprintf(path, sizeof path, "%s/%s", base, files[i]);
        v = xi_sense_number(in, path, 1, 0, max);
    }
    return v;
}

static void read_gpu(struct xi_sense *in, const char *card, struct last *last)
{
    static const char *const clocks[] = {"gt_act_freq_mhz", "device/tile0/gt0/freq0/act_freq"};
    static const char *const idles[] = {"gt/gt0/rc6_residency_ms",
                                        "device/tile0/gt0/gtidle/idle_residency_ms"};
    struct xi_monitored *d = xi_sense_add(in, XI_DEV_GPU, "intel");
    char base[96], device[128];

    if (d == NULL)
        return;
    (void)snprintf(base, sizeof base, "/sys/class/drm/%s", card);
    (void)snprintf(device, sizeof device, "%s/device", base);
    name_it(in, d, "GPU", device);
    d->clock_mhz = first_of(in, base, clocks, 20000);
    double idle = xi_sense_share(in, first_of(in, base, idles, 1e15), &last->time, 1);
    d->load = idle == XI_UNKNOWN ? XI_UNKNOWN : 1 - idle;
    read_hwmon(in, d, device, last);
    (void)snprintf(device, sizeof device, "%s/lmem_total_bytes", base);
    d->memory_total_bytes = xi_sense_number(in, device, 1, 1, 1e16);
    (void)snprintf(device, sizeof device, "%s/lmem_avail_bytes", base);
    double left = xi_sense_number(in, device, 1, 0, 1e16);
    if (left >= 0 && left <= d->memory_total_bytes)
        d->memory_used_bytes = d->memory_total_bytes - left;
}

static void read_npu(struct xi_sense *in, const char *accel, struct last *last)
{
    struct xi_monitored *d = xi_sense_add(in, XI_DEV_NPU, "intel");
    char device[96], path[160];

    if (d == NULL)
        return;
    (void)snprintf(device, sizeof device, "/sys/class/accel/%s/device", accel);
    name_it(in, d, "NPU", device);
    (void)snprintf(path, sizeof path, "%s/npu_busy_time_us", device);
    d->load = xi_sense_share(in, xi_sense_number(in, path, 1, 0, 1e18), &last->time, 1000);
    (void)snprintf(path, sizeof path, "%s/npu_current_frequency_mhz", device);
    d->clock_mhz = xi_sense_number(in, path, 1, 0, 20000);
    (void)snprintf(path, sizeof path, "%s/npu_memory_utilization", device);
    d->memory_used_bytes = xi_sense_number(in, path, 1, 0, 1e15);
    read_hwmon(in, d, device, last);
}

static int read_intel(struct xi_sense *in, void *state)
{
    struct intel *s = state;
    char names[XI_SENSE_DIRS][64];
    unsigned gpus = find(in, "drm", "card", names), npus;

    for (unsigned i = 0; i < gpus; i++)
        read_gpu(in, names[i], last_of(s->gpus, i, names[i]));
    npus = find(in, "accel", "accel", names);
    for (unsigned i = 0; i < npus; i++)
        read_npu(in, names[i], last_of(s->npus, i, names[i]));
    return gpus + npus > 0;
}

static int probe_intel(struct xi_sense *in, void *state)
{
    char names[XI_SENSE_DIRS][64];

    (void)state;
    return find(in, "drm", "card", names) + find(in, "accel", "accel", names) > 0;
}

const struct xi_source xi_source_intel = {.name = "intel",
                                          .needs = "an Intel GPU (i915, xe) or NPU (ivpu) in /sys",
                                          .state_bytes = sizeof(struct intel),
                                          .probe = probe_intel,
                                          .read = read_intel};
