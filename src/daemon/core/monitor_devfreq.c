/* Devices whose clock the kernel's devfreq governs: Rockchip's NPU and GPU, NVIDIA's Tegra GPU.
 *
 *   /sys/class/devfreq/fdab0000.npu/{load,cur_freq}   "37@1000000000Hz", Hz
 *   /sys/kernel/debug/rknpu/load                      "NPU load:  Core0: 10%, Core1:  0%, …"
 *   /sys/class/devfreq/17000000.gpu/device/load       0..1000 (Tegra)
 *
 * One driver was seen to report 429496 %. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/core/monitor_source.h"

static uint32_t kind_of(const char *name)
{
    const char *dot = strrchr(name, '.');
    const char *what = dot != NULL ? dot + 1 : name;

    if (strstr(what, "npu") != NULL)
        return XI_DEV_NPU;
    return strstr(what, "gpu") != NULL || strncmp(what, "gv11b", 5) == 0 ||
                   strncmp(what, "ga10b", 5) == 0 || strncmp(what, "gp10b", 5) == 0
               ? XI_DEV_GPU
               : XI_DEV_CPU; /* memory and buses: not ours */
}

/* The mean of all cores that the line names; one that cannot be true spoils it. */
static double rknpu_load(const char *text)
{
    double sum = 0;
    unsigned n = 0;

    for (const char *p = text; p != NULL && (p = strchr(p, ':')) != NULL; p++) {
        char *end;
        double v = strtod(p + 1, &end);
        if (end == p + 1 || *end != '%')
            continue; /* "NPU load:" itself */
        if (!(v >= 0 && v <= 100))
            return XI_UNKNOWN;
        sum += v;
        n++;
    }
    return n > 0 ? sum / n / 100 : XI_UNKNOWN;
}

static double load_of(struct xi_sense *in, const char *name, uint32_t kind)
{
    char path[160];
    double v = XI_UNKNOWN;

    if (kind == XI_DEV_NPU)
        v = rknpu_load(xi_sense_text(in, "/sys/kernel/debug/rknpu/load"));
    if (v == XI_UNKNOWN) {
        (void)snprintf(path, sizeof path, "/sys/class/devfreq/%s/load", name);
        v = xi_sense_number(in, path, 1e-2, 0, 1);
    }
    if (v == XI_UNKNOWN) {
        (void)snprintf(path, sizeof path, "/sys/class/devfreq/%s/device/load", name);
        v = xi_sense_number(in, path, 1e-3, 0, 1);
    }
    return v;
}

static int read_devfreq(struct xi_sense *in, void *state)
{
    char names[XI_SENSE_DIRS][64], path[160];
    unsigned n = xi_sense_dir(in, "/sys/class/devfreq", "", names);
    int found = 0;

    (void)state;
    for (unsigned i = 0; i < n; i++) {
        uint32_t kind = kind_of(names[i]);
        struct xi_monitored *d = kind != XI_DEV_CPU ? xi_sense_add(in, kind, "devfreq") : NULL;
        if (d == NULL)
            continue;
        found = 1;
        (void)snprintf(d->name, sizeof d->name, "%s", names[i]);
        d->load = load_of(in, names[i], kind);
        (void)snprintf(path, sizeof path, "/sys/class/devfreq/%s/cur_freq", names[i]);
        d->clock_mhz = xi_sense_number(in, path, 1e-6, 1, 20000);
    }
    return found;
}

static int probe_devfreq(struct xi_sense *in, void *state)
{
    char names[XI_SENSE_DIRS][64];
    unsigned n = xi_sense_dir(in, "/sys/class/devfreq", "", names);

    (void)state;
    for (unsigned i = 0; i < n; i++)
        if (kind_of(names[i]) != XI_DEV_CPU)
            return 1;
    return 0;
}

const struct xi_source xi_source_devfreq = {.name = "devfreq",
                                            .needs = "an NPU or GPU in /sys/class/devfreq",
                                            .state_bytes = 1,
                                            .probe = probe_devfreq,
                                            .read = read_devfreq};
