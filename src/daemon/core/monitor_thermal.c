/* Which zone is whose, where it becomes too hot, and what the board draws. */
#define _GNU_SOURCE
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "daemon/core/monitor_source.h"

enum { ZONES = 32, TRIPS = 12 };

static int names_any(const char *name, const char *const *words)
{
    for (; *words != NULL; words++)
        if (strcasestr(name, *words) != NULL)
            return 1;
    return 0;
}

/* Zones say in their names what they measure: "gpu-thermal", "NPU-therm", "x86_pkg_temp",
 * "bigcore0-thermal", "coretemp Package id 0", "k10temp Tctl". */
static int zone_is(const char *name, uint32_t kind)
{
    static const char *const of[4][10] = {
        {"cpu", "x86_pkg", "core", "Package id", "Tctl", "Tdie", "soc", NULL},
        {"gpu", NULL},
        {"npu", NULL},
        {"fpga", NULL},
    };

    return kind <= XI_DEV_FPGA && names_any(name, of[kind]) &&
           (kind != XI_DEV_CPU ||
            (strcasestr(name, "gpu") == NULL && strcasestr(name, "npu") == NULL));
}

static double hottest(const struct xi_resources *r, uint32_t kind)
{
    double v = XI_UNKNOWN;

    for (uint32_t i = 0; i < r->n_thermal; i++)
        if (zone_is(r->thermal[i].name, kind) && r->thermal[i].celsius != XI_UNKNOWN &&
            (v == XI_UNKNOWN || r->thermal[i].celsius > v))
            v = r->thermal[i].celsius;
    return v;
}

/* Where the kernel would switch the zone off. */
static double critical_of(struct xi_sense *in, int zone)
{
    char path[128];

    for (int t = 0; t < TRIPS; t++) {
        (void)snprintf(path, sizeof path, "/sys/class/thermal/thermal_zone%d/trip_point_%d_type",
                       zone, t);
        const char *type = xi_sense_text(in, path);
        if (type == NULL)
            return XI_UNKNOWN;
        if (strcmp(type, "critical") != 0)
            continue;
        (void)snprintf(path, sizeof path, "/sys/class/thermal/thermal_zone%d/trip_point_%d_temp",
                       zone, t);
        return xi_sense_number(in, path, 1e-3, 40, 150);
    }
    return XI_UNKNOWN;
}

static double lowest_critical(struct xi_sense *in, uint32_t kind)
{
    double v = XI_UNKNOWN;
    char path[96];

    for (int z = 0; z < ZONES; z++) {
        (void)snprintf(path, sizeof path, "/sys/class/thermal/thermal_zone%d/type", z);
        const char *type = xi_sense_text(in, path);
        if (type == NULL || !zone_is(type, kind))
            continue;
        double limit = critical_of(in, z);
        if (limit != XI_UNKNOWN && (v == XI_UNKNOWN || limit < v))
            v = limit;
    }
    return v;
}

/* Only where the device's own source knows nothing. */
void xi_monitor_heat(struct xi_sense *in)
{
    struct xi_resources *r = in->r;

    for (uint32_t i = 0; i < r->n_devices; i++) {
        struct xi_monitored *d = &r->devices[i];
        int own = d->celsius != XI_UNKNOWN;
        if (!own)
            d->celsius = hottest(r, d->kind);
        if (d->kind == XI_DEV_CPU && d->celsius == XI_UNKNOWN)
            d->celsius = r->max_celsius; /* boards with one zone call it anything */
        if (!own && d->hot_celsius == XI_UNKNOWN)
            d->hot_celsius = lowest_critical(in, d->kind);
    }
}

/* Intel's and AMD's energy counter of the first package (RAPL), where we may read it; else what a
 * current monitor in the board's supply says. */
void xi_monitor_power(struct xi_sense *in, double *inout_uj)
{
    double uj = xi_sense_number(in, "/sys/class/powercap/intel-rapl:0/energy_uj", 1, 0, 1e18);
    double span_ms = in->last_ms != 0 ? (double)(in->now_ms - in->last_ms) : 0;
    double last = *inout_uj;
    char names[XI_SENSE_DIRS][64], path[160];

    *inout_uj = uj;
    if (in->r->n_devices == 0)
        return;
    if (uj > 0 && last > 0 && uj >= last && span_ms > 0) {
        double w = (uj - last) / span_ms / 1e3;
        in->r->devices[0].power_w = w < 2000 ? w : XI_UNKNOWN;
    }
    unsigned n = xi_sense_dir(in, "/sys/class/hwmon", "hwmon", names);
    in->r->board_power_w = XI_UNKNOWN;
    for (unsigned i = 0; i < n && in->r->board_power_w == XI_UNKNOWN; i++) {
        (void)snprintf(path, sizeof path, "/sys/class/hwmon/%s/name", names[i]);
        const char *name = xi_sense_text(in, path);
        if (name == NULL || strncmp(name, "ina2", 4) != 0)
            continue;
        (void)snprintf(path, sizeof path, "/sys/class/hwmon/%s/power1_input", names[i]);
        in->r->board_power_w = xi_sense_number(in, path, 1e-6, 0, 2000);
    }
}
