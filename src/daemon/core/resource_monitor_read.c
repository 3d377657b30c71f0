/* resource_monitor_read.c: one reading of /proc and /sys. Any thread.
 *
 * Sources: Linux' own documentation of proc(5), cgroup v1 and v2, thermal and hwmon in sysfs. Each
 * value has a range in which it can be true; drivers lie (429496 % load, -274 °C, 1000 °C), files
 * vanish: then the value is unknown. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/platform/file.h"
#include "base/platform/process.h"
#include "daemon/core/resource_monitor.h"
#include "xinfer/engine.h"

enum { TEXT_MAX = 128 * 1024, ZONES_MAX = 64, CHIPS_MAX = 32, PROBES_MAX = 16, DEPTH_MAX = 32 };

struct reading {
    const char *root;
    char text[TEXT_MAX + 1]; /* of the last file */
};

/* The file's text with its end cut; NULL when it is not there. Valid until the next call. */
static const char *slurp(struct reading *in, const char *path)
{
    char whole[PATH_MAX];
    size_t n = 0;
    int more;

    if (snprintf(whole, sizeof whole, "%s%s", in->root, path) >= (int)sizeof whole)
        return NULL;
    int fd = open(whole, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return NULL;
    /* Not seekable or cut short: what came is not complete, so it is nothing. A file longer than
     * the buffer is fine: what is wanted stands at the start. */
    int bad = xi_fd_read_start(fd, in->text, TEXT_MAX, &n, &more);
    xi_fd_close(&fd);
    if (bad != 0)
        return NULL;
    while (n > 0 && (in->text[n - 1] == '\n' || in->text[n - 1] == '\0'))
        n--;
    in->text[n] = '\0';
    return in->text;
}

static int in_range(double v, double min, double max)
{
    return v >= min && v <= max; /* false for NaN */
}

static double number_or_unknown(const char *text, double scale, double min, double max)
{
    char *end;

    if (text == NULL)
        return XI_UNKNOWN;
    double v = strtod(text, &end) * scale;
    if (end == text || !in_range(v, min, max))
        return XI_UNKNOWN;
    return v;
}

/* What stands behind "key" and its separators in a text of lines, or NULL. */
static const char *value_of(const char *text, const char *key)
{
    size_t n = strlen(key);

    while (text != NULL && *text) {
        if (strncmp(text, key, n) == 0 && strchr(" \t:", text[n]) != NULL)
            return text + n + strspn(text + n, " \t:");
        text = strchr(text, '\n');
        text = text ? text + 1 : NULL;
    }
    return NULL;
}

static void copy_line(const char *text, char *dst, size_t room)
{
    size_t n = strcspn(text, "\n");

    n = n < room ? n : room - 1;
    memcpy(dst, text, n);
    dst[n] = '\0';
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)dst[i] < 0x20 || dst[i] == 0x7f)
            dst[i] = '?';
}

/* ---- processors ---- */

struct ticks {
    uint64_t busy, all;
};

/* user nice system idle iowait irq softirq steal; guest is in user already. */
static int parse_ticks(const char *p, struct ticks *ret)
{
    uint64_t v[8] = {0};
    char *end;
    int i = 0;

    for (; i < 8; i++) {
        v[i] = strtoull(p, &end, 10);
        if (end == p)
            break;
        p = end;
    }
    if (i < 4) /* all kernels have these */
        return -1;
    for (i = 0; i < 8; i++)
        ret->all += v[i];
    ret->busy += v[0] + v[1] + v[2] + v[5] + v[6] + v[7];
    return 0;
}

static int may_run_on(const struct reading *in, const cpu_set_t *mask, unsigned long cpu)
{
    return in->root[0] != '\0' || (cpu < CPU_SETSIZE && CPU_ISSET(cpu, mask));
}

/* Sums the lines of the processors we may run on; counts them. */
static unsigned sum_ticks(struct reading *in, struct ticks *ret)
{
    unsigned count = 0;
    cpu_set_t mask;
    const char *line = slurp(in, "/proc/stat");

    *ret = (struct ticks){0};
    if (sched_getaffinity(0, sizeof mask, &mask) != 0)
        memset(&mask, 0xff, sizeof mask);
    for (; line != NULL; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL) {
        char *end;
        if (strncmp(line, "cpu", 3) != 0 || line[3] < '0' || line[3] > '9')
            continue;
        unsigned long cpu = strtoul(line + 3, &end, 10);
        if (may_run_on(in, &mask, cpu) && parse_ticks(end, ret) == 0)
            count++;
    }
    return count;
}

static void read_processors(struct reading *in, struct xi_resources *r)
{
    struct ticks now, last = {r->cpu_busy_ticks, r->cpu_all_ticks};
    unsigned count = sum_ticks(in, &now);

    r->cores = count ? count : 1;
    r->cpu_load = XI_UNKNOWN;
    r->cpu_busy_ticks = count ? now.busy : 0;
    r->cpu_all_ticks = count ? now.all : 0;
    /* The first reading, counters that went back, and a busy time longer than time say nothing. */
    if (count == 0 || last.all == 0 || now.all <= last.all || now.busy < last.busy)
        return;
    double load = (double)(now.busy - last.busy) / (double)(now.all - last.all);
    if (in_range(load, 0, 1))
        r->cpu_load = load;
}

static void read_model(struct reading *in, struct xi_resources *r)
{
    const char *text = slurp(in, "/proc/cpuinfo");
    const char *model = value_of(text, "model name");

    r->cpu_mhz = number_or_unknown(value_of(text, "cpu MHz"), 1, 10, 20000);
    if (model == NULL)
        model = value_of(text, "Model"); /* ARM boards */
    if (model == NULL)
        model = slurp(in, "/sys/firmware/devicetree/base/model");
    r->cpu_model[0] = '\0';
    if (model != NULL)
        copy_line(model, r->cpu_model, sizeof r->cpu_model);
    double mhz = number_or_unknown(
        slurp(in, "/sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq"), 1e-3, 10, 20000);
    if (mhz >= 0)
        r->cpu_mhz = mhz;
}

/* Our own open descriptors, the one that looks left out. */
static double count_fds(const struct reading *in)
{
    char path[PATH_MAX];
    double n = -1;

    if (snprintf(path, sizeof path, "%s/proc/self/fd", in->root) >= (int)sizeof path)
        return XI_UNKNOWN;
    DIR *dir = opendir(path);
    if (dir == NULL)
        return XI_UNKNOWN;
    for (const struct dirent *e = readdir(dir); e != NULL; e = readdir(dir))
        n += e->d_name[0] != '.';
    (void)closedir(dir);
    return n;
}

/* ---- memory, and what a control group leaves of it ---- */

static void read_memory(struct reading *in, struct xi_resources *r)
{
    const double most = 1e16;
    const char *text = slurp(in, "/proc/meminfo");

    r->memory_total_bytes = number_or_unknown(value_of(text, "MemTotal"), 1024, 1, most);
    r->memory_available_bytes = number_or_unknown(value_of(text, "MemAvailable"), 1024, 0, most);
    if (r->memory_available_bytes > r->memory_total_bytes)
        r->memory_available_bytes = XI_UNKNOWN;
    text = slurp(in, "/proc/self/status");
    r->daemon_rss_bytes = number_or_unknown(value_of(text, "VmRSS"), 1024, 0, most);
    r->daemon_open_fds = count_fds(in);
    r->load_1m = number_or_unknown(slurp(in, "/proc/loadavg"), 1, 0, 1e6);
}

/* One generation of control groups: where its files lie and what they are called. */
struct cgroup {
    const char *mount_memory, *mount_cpu;
    const char *limit, *usage, *inactive;
};
static const struct cgroup v2 = {"/sys/fs/cgroup", "/sys/fs/cgroup", "memory.max", "memory.current",
                                 "inactive_file"};
static const struct cgroup v1 = {"/sys/fs/cgroup/memory", "/sys/fs/cgroup/cpu",
                                 "memory.limit_in_bytes", "memory.usage_in_bytes",
                                 "total_inactive_file"};

static double cgroup_number(struct reading *in, const char *mount, const char *group,
                            const char *file)
{
    char path[PATH_MAX];

    (void)snprintf(path, sizeof path, "%s%s/%s", mount, group, file);
    return number_or_unknown(slurp(in, path), 1, 0, 1e16); /* "max" is no number: unknown */
}

static double cgroup_reclaimable(struct reading *in, const struct cgroup *cg, const char *group)
{
    char path[PATH_MAX];

    (void)snprintf(path, sizeof path, "%s%s/memory.stat", cg->mount_memory, group);
    double v = number_or_unknown(value_of(slurp(in, path), cg->inactive), 1, 0, 1e16);
    return v > 0 ? v : 0;
}

static void cgroup_memory(struct reading *in, const struct cgroup *cg, const char *group,
                          struct xi_resources *r)
{
    double limit = cgroup_number(in, cg->mount_memory, group, cg->limit);
    double used = cgroup_number(in, cg->mount_memory, group, cg->usage);

    /* Version 1 says "no limit" with a number beyond all memory. */
    if (limit <= 0 || (r->memory_total_bytes > 0 && limit >= r->memory_total_bytes))
        return;
    r->memory_total_bytes = limit;
    if (used < 0) {
        r->memory_available_bytes = XI_UNKNOWN;
        return;
    }
    used -= cgroup_reclaimable(in, cg, group);
    double left = used < 0 ? limit : used > limit ? 0 : limit - used;
    if (r->memory_available_bytes < 0 || left < r->memory_available_bytes)
        r->memory_available_bytes = left;
}

static void cap_cores(struct xi_resources *r, double quota, double period)
{
    if (quota <= 0 || period <= 0)
        return;
    double cores = quota / period;
    uint32_t whole = cores < 1 ? 1 : cores > 65535 ? 65535 : (uint32_t)cores;
    if (whole < cores)
        whole++;
    if (whole < r->cores)
        r->cores = whole;
}

static void cgroup_cores(struct reading *in, const struct cgroup *cg, const char *group,
                         struct xi_resources *r)
{
    char path[PATH_MAX];

    if (cg == &v1) {
        double quota = cgroup_number(in, cg->mount_cpu, group, "cpu.cfs_quota_us");
        cap_cores(r, quota, cgroup_number(in, cg->mount_cpu, group, "cpu.cfs_period_us"));
        return;
    }
    (void)snprintf(path, sizeof path, "%s%s/cpu.max", cg->mount_cpu, group);
    const char *text = slurp(in, path);
    double quota = number_or_unknown(text, 1, 1, 1e12); /* "max 100000": unknown */
    const char *space = text ? strchr(text, ' ') : NULL;
    cap_cores(r, quota, number_or_unknown(space, 1, 1, 1e12));
}

/* Every group from ours to the top may limit us; in a container the path is the host's and is not
 * there, then only the top is seen. */
static void cgroup_walk(struct reading *in, const struct cgroup *cg, char *group, int memory,
                        struct xi_resources *r)
{
    for (int depth = 0; depth < DEPTH_MAX; depth++) {
        if (memory)
            cgroup_memory(in, cg, group, r);
        else
            cgroup_cores(in, cg, group, r);
        char *slash = strrchr(group, '/');
        if (slash == NULL)
            return;
        *slash = '\0';
    }
}

/* The group's path in a line of /proc/self/cgroup: "0::/path", "5:cpu,cpuacct:/path". */
static int group_of(const char *text, const char *controller, char *dst, size_t room)
{
    for (const char *p = text; p != NULL; p = strchr(p, '\n') ? strchr(p, '\n') + 1 : NULL) {
        char line[PATH_MAX], names[128];
        copy_line(p, line, sizeof line);
        char *first = strchr(line, ':');
        char *second = first ? strchr(first + 1, ':') : NULL;
        if (second == NULL || strstr(second, "..") != NULL)
            continue;
        (void)snprintf(names, sizeof names, ",%.*s,", (int)(second - first - 1), first + 1);
        if (controller[0] ? strstr(names, controller) == NULL : strcmp(names, ",,") != 0)
            continue;
        (void)snprintf(dst, room, "%s", strcmp(second + 1, "/") == 0 ? "" : second + 1);
        return 1;
    }
    return 0;
}

static void read_cgroups(struct reading *in, struct xi_resources *r)
{
    static const struct {
        const struct cgroup *cg;
        const char *controller;
        int memory;
    } looks[] = {{&v2, "", 1}, {&v2, "", 0}, {&v1, ",memory,", 1}, {&v1, ",cpu,", 0}};
    char group[PATH_MAX / 2];

    for (size_t i = 0; i < sizeof looks / sizeof *looks; i++)
        if (group_of(slurp(in, "/proc/self/cgroup"), looks[i].controller, group, sizeof group))
            cgroup_walk(in, looks[i].cg, group, looks[i].memory, r);
}

/* ---- heat ---- */

/* Millidegrees in sysfs. Below the coldest outdoor part and above what silicon survives: a lie. */
static double celsius_or_unknown(const char *text)
{
    double v = number_or_unknown(text, 1e-3, -40, 150);
    char *end;

    if (v == XI_UNKNOWN && text != NULL && strtod(text, &end) == -1000.0)
        v = -0.999; /* a true -1 °C is not "unknown" */
    return v;
}

static int known_name(const struct xi_resources *r, const char *name)
{
    for (uint32_t i = 0; i < r->n_thermal; i++)
        if (strcmp(r->thermal[i].name, name) == 0)
            return 1;
    return 0;
}

static void add_heat(struct xi_resources *r, const char *name, double celsius)
{
    if (r->n_thermal == XI_THERMAL_MAX)
        return;
    struct xi_thermal *t = &r->thermal[r->n_thermal++];
    copy_line(name, t->name, sizeof t->name);
    t->celsius = celsius;
    if (celsius != XI_UNKNOWN && (r->max_celsius == XI_UNKNOWN || celsius > r->max_celsius))
        r->max_celsius = celsius;
}

static void read_zones(struct reading *in, struct xi_resources *r)
{
    for (int i = 0; i < ZONES_MAX; i++) {
        char path[96], name[sizeof r->thermal[0].name];
        (void)snprintf(path, sizeof path, "/sys/class/thermal/thermal_zone%d/type", i);
        const char *type = slurp(in, path);
        if (type == NULL)
            continue;
        copy_line(type, name, sizeof name);
        (void)snprintf(path, sizeof path, "/sys/class/thermal/thermal_zone%d/temp", i);
        add_heat(r, name, celsius_or_unknown(slurp(in, path)));
    }
}

static void read_chip(struct reading *in, int chip, const char *name, struct xi_resources *r)
{
    for (int i = 1; i <= PROBES_MAX; i++) {
        char path[96], label[sizeof r->thermal[0].name];
        (void)snprintf(path, sizeof path, "/sys/class/hwmon/hwmon%d/temp%d_input", chip, i);
        const char *text = slurp(in, path);
        if (text == NULL)
            continue;
        double celsius = celsius_or_unknown(text);
        (void)snprintf(path, sizeof path, "/sys/class/hwmon/hwmon%d/temp%d_label", chip, i);
        text = slurp(in, path);
        if (text != NULL)
            (void)snprintf(label, sizeof label, "%s %s", name, text);
        else
            (void)snprintf(label, sizeof label, "%s temp%d", name, i);
        add_heat(r, label, celsius);
    }
}

static void read_chips(struct reading *in, struct xi_resources *r)
{
    for (int i = 0; i < CHIPS_MAX; i++) {
        char path[64], name[32];
        (void)snprintf(path, sizeof path, "/sys/class/hwmon/hwmon%d/name", i);
        const char *text = slurp(in, path);
        if (text == NULL)
            continue;
        copy_line(text, name, sizeof name);
        /* The kernel gives a thermal zone a chip of the same name: once is enough. */
        if (!known_name(r, name))
            read_chip(in, i, name, r);
    }
}

static void add_processor(struct xi_resources *r)
{
    struct xi_monitored *d = &r->devices[0];

    r->n_devices = 1;
    *d = (struct xi_monitored){.id = "cpu",
                               .kind = XI_DEV_CPU,
                               .source = "proc",
                               .load = r->cpu_load,
                               .celsius = XI_UNKNOWN,
                               .hot_celsius = XI_UNKNOWN,
                               .power_w = XI_UNKNOWN,
                               .clock_mhz = r->cpu_mhz,
                               .memory_total_bytes = r->memory_total_bytes,
                               .memory_used_bytes = XI_UNKNOWN};
    memcpy(d->name, r->cpu_model, sizeof d->name);
    if (r->memory_total_bytes > 0 && r->memory_available_bytes >= 0)
        d->memory_used_bytes = r->memory_total_bytes - r->memory_available_bytes;
}

void xi_resources_read(const char *root, struct xi_resources *inout)
{
    struct reading *in = malloc(sizeof *in);

    if (in == NULL)
        return; /* the last reading stands, with its time */
    in->root = root;
    read_processors(in, inout);
    read_model(in, inout);
    read_memory(in, inout);
    read_cgroups(in, inout);
    inout->n_thermal = 0;
    inout->max_celsius = XI_UNKNOWN;
    read_zones(in, inout);
    read_chips(in, inout);
    add_processor(inout);
    inout->sampled_at_ms = xi_now_ms();
    free(in);
}
