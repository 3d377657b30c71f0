#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/platform/file.h"
#include "base/platform/process.h"
#include "daemon/core/monitor_source.h"

enum { LOOK_AGAIN_MS = 60000 };

static const struct xi_source *const sources[] = {&xi_source_nvml, &xi_source_devfreq,
                                                  &xi_source_intel, &xi_source_xrt};
enum { SOURCES = sizeof sources / sizeof *sources };

struct xi_sensors {
    char *root;
    uint64_t last_ms;
    double energy_uj;
    struct {
        void *state;
        enum xi_sensor_state now;
        uint64_t look_again_ms;
    } at[SOURCES];
    struct xi_sense sense;
};

/* ---- files ---- */

const char *xi_sense_text(struct xi_sense *in, const char *path)
{
    char whole[PATH_MAX];
    size_t n = 0;
    int more;

    if (snprintf(whole, sizeof whole, "%s%s", in->root, path) >= (int)sizeof whole)
        return NULL;
    int fd = open(whole, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return NULL;
    int bad = xi_fd_read_start(fd, in->text, XI_SENSE_TEXT - 1, &n, &more);
    xi_fd_close(&fd);
    if (bad != 0)
        return NULL;
    while (n > 0 && (in->text[n - 1] == '\n' || in->text[n - 1] == '\0'))
        n--;
    in->text[n] = '\0';
    return in->text;
}

double xi_number_or_unknown(const char *text, double scale, double min, double max)
{
    char *end;

    if (text == NULL)
        return XI_UNKNOWN;
    double v = strtod(text, &end) * scale;
    return end != text && v >= min && v <= max ? v : XI_UNKNOWN; /* NaN is in no range */
}

double xi_sense_number(struct xi_sense *in, const char *path, double scale, double min, double max)
{
    return xi_number_or_unknown(xi_sense_text(in, path), scale, min, max);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(a, b);
}

unsigned xi_sense_dir(const struct xi_sense *in, const char *path, const char *holds,
                      char names[XI_SENSE_DIRS][64])
{
    char whole[PATH_MAX];
    unsigned n = 0;

    if (snprintf(whole, sizeof whole, "%s%s", in->root, path) >= (int)sizeof whole)
        return 0;
    DIR *dir = opendir(whole);
    if (dir == NULL)
        return 0;
    for (const struct dirent *e = readdir(dir); e != NULL && n < XI_SENSE_DIRS; e = readdir(dir))
        if (e->d_name[0] != '.' && strlen(e->d_name) < 64 && strstr(e->d_name, holds) != NULL)
            (void)snprintf(names[n++], 64, "%s", e->d_name);
    (void)closedir(dir);
    qsort(names, n, 64, by_name);
    return n;
}

int xi_sense_hwmon(const struct xi_sense *in, const char *device, char *ret, size_t room)
{
    char names[XI_SENSE_DIRS][64], path[256];

    (void)snprintf(path, sizeof path, "%s/hwmon", device);
    if (xi_sense_dir(in, path, "hwmon", names) == 0)
        return 0;
    return snprintf(ret, room, "%s/%s", path, names[0]) < (int)room;
}

/* ---- devices ---- */

static unsigned count_of(const struct xi_resources *r, uint32_t kind)
{
    unsigned n = 0;

    for (uint32_t i = 0; i < r->n_devices; i++)
        n += r->devices[i].kind == kind;
    return n;
}

struct xi_monitored *xi_sense_add(struct xi_sense *in, uint32_t kind, const char *source)
{
    static const char *const kinds[] = {"cpu", "gpu", "npu", "fpga"};
    struct xi_resources *r = in->r;

    if (r->n_devices == XI_MONITORED_MAX || kind > XI_DEV_FPGA)
        return NULL;
    unsigned index = count_of(r, kind);
    struct xi_monitored *d = &r->devices[r->n_devices++];
    *d = (struct xi_monitored){.kind = kind,
                               .load = XI_UNKNOWN,
                               .celsius = XI_UNKNOWN,
                               .hot_celsius = XI_UNKNOWN,
                               .power_w = XI_UNKNOWN,
                               .clock_mhz = XI_UNKNOWN,
                               .memory_total_bytes = XI_UNKNOWN,
                               .memory_used_bytes = XI_UNKNOWN};
    (void)snprintf(d->id, sizeof d->id, "%s:%u", kinds[kind], index);
    (void)snprintf(d->source, sizeof d->source, "%s", source);
    return d;
}

double xi_sense_share(const struct xi_sense *in, double counter, double *inout_last, double per_ms)
{
    double last = *inout_last;
    double span = in->last_ms != 0 && in->now_ms > in->last_ms
                      ? (double)(in->now_ms - in->last_ms) * per_ms
                      : 0;

    *inout_last = counter;
    if (counter < 0 || last < 0 || counter < last || span <= 0)
        return XI_UNKNOWN;
    double share = (counter - last) / span;
    /* Clock and counter are read one after the other: a little more than all of it is all of it. */
    return share <= 1 ? share : share <= 1.1 ? 1 : XI_UNKNOWN;
}

const struct xi_monitored *xi_resources_find(const struct xi_resources *r, uint32_t kind,
                                             const char *id)
{
    uint32_t i;

    for (i = 0; i < r->n_devices; i++) {
        const struct xi_monitored *d = &r->devices[i];

        if (d->kind == kind && xi_device_index(d->id) == xi_device_index(id))
            return d;
    }
    return NULL;
}

unsigned xi_device_index(const char *id)
{
    const char *dot = strpbrk(id, ".:");

    return dot != NULL ? (unsigned)strtoul(dot + 1, NULL, 10) : 0;
}

/* ---- which there are ---- */

struct xi_sensors *xi_sensors_new(const char *root)
{
    struct xi_sensors *s = calloc(1, sizeof *s);

    if (s == NULL || (s->root = strdup(root)) == NULL) {
        free(s);
        return NULL;
    }
    return s;
}

static void forget(struct xi_sensors *s, int i)
{
    if (s->at[i].state != NULL && sources[i]->end != NULL)
        sources[i]->end(s->at[i].state);
    free(s->at[i].state);
    s->at[i].state = NULL;
}

void xi_sensors_free(struct xi_sensors *s)
{
    if (s == NULL)
        return;
    for (int i = 0; i < SOURCES; i++)
        forget(s, i);
    free(s->root);
    free(s);
}

static void look_for(struct xi_sensors *s, int i)
{
    enum xi_sensor_state was = s->at[i].now;

    s->at[i].look_again_ms = s->sense.now_ms + LOOK_AGAIN_MS;
    s->at[i].now = was == XI_SENSOR_GONE ? XI_SENSOR_GONE : XI_SENSOR_ABSENT;
    s->at[i].state = calloc(1, sources[i]->state_bytes);
    if (s->at[i].state == NULL)
        return;
    if (!sources[i]->probe(&s->sense, s->at[i].state)) {
        forget(s, i);
        return;
    }
    s->at[i].now = XI_SENSOR_PRESENT;
    xi_log(XI_INFO, "sensor.found", "source=%s", sources[i]->name);
}

static void lose(struct xi_sensors *s, int i)
{
    forget(s, i);
    s->at[i].now = XI_SENSOR_GONE;
    s->at[i].look_again_ms = s->sense.now_ms + LOOK_AGAIN_MS;
    xi_log(XI_WARN, "sensor.gone", "source=%s", sources[i]->name);
}

void xi_sensors_read(struct xi_sensors *s, uint64_t now_ms, struct xi_resources *inout)
{
    struct xi_sense *in = &s->sense;

    xi_resources_read(s->root, inout);
    in->root = s->root;
    in->now_ms = now_ms;
    in->last_ms = s->last_ms <= now_ms ? s->last_ms : 0;
    in->r = inout;
    for (int i = 0; i < SOURCES; i++) {
        if (s->at[i].now != XI_SENSOR_PRESENT && now_ms >= s->at[i].look_again_ms)
            look_for(s, i);
        if (s->at[i].now == XI_SENSOR_PRESENT && !sources[i]->read(in, s->at[i].state))
            lose(s, i);
        inout->sources[i].name = sources[i]->name;
        inout->sources[i].needs = sources[i]->needs;
        inout->sources[i].state = s->at[i].now;
    }
    inout->n_sources = SOURCES;
    xi_monitor_heat(in);
    xi_monitor_power(in, &s->energy_uj);
    s->last_ms = now_ms;
}
