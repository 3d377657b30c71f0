#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/platform/self.h"
#include "daemon/core/service_private.h"

static void look(struct xi_probe_run *run);

int xi_plugin_name(const char *file, char ret[32])
{
    static const char head[] = "libxinfer_engine_", tail[] = ".so";
    size_t n = strlen(file), i;

    if (n <= sizeof(head) - 1 + sizeof(tail) - 1 || strncmp(file, head, sizeof(head) - 1) != 0 ||
        strcmp(file + n - (sizeof(tail) - 1), tail) != 0)
        return 0;
    file += sizeof(head) - 1;
    n -= sizeof(head) - 1 + sizeof(tail) - 1;
    if (n > 31)
        return 0;
    for (i = 0; i < n; i++) {
        char c = file[i];

        if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_'))
            return 0;
    }
    memcpy(ret, file, n);
    ret[n] = '\0';
    return 1;
}

/* In a folder that everybody can write, a plugin can be exchanged; a sticky one (/tmp) only by
 * its owner. */
static int folder_is_open(const char *path)
{
    const char *slash = strrchr(path, '/');
    char folder[1024];
    struct stat st;

    if (slash == NULL)
        return 0;
    (void)snprintf(folder, sizeof(folder), "%.*s/.", (int)(slash - path), path);
    return stat(folder, &st) == 0 && (st.st_mode & S_IWOTH) != 0 && (st.st_mode & S_ISVTX) == 0;
}

void xi_plugin_judge(const char *path, struct xi_err *ret)
{
    struct stat st;

    *ret = (struct xi_err){0};
    if (stat(path, &st) != 0)
        (void)xi_fail(ret, XI_ENOENGINE, "plugin cannot be read: %s", strerror(errno));
    else if (!S_ISREG(st.st_mode))
        (void)xi_fail(ret, XI_ENOENGINE, "plugin is not a file");
    else if ((st.st_mode & S_IWOTH) != 0)
        (void)xi_fail(ret, XI_ENOENGINE, "plugin refused: everybody can write it (mode %04o)",
                      (unsigned)(st.st_mode & 07777));
    else if (folder_is_open(path))
        (void)xi_fail(ret, XI_ENOENGINE, "plugin refused: everybody can write its folder");
    else if (st.st_uid != 0 && st.st_uid != geteuid())
        (void)xi_fail(ret, XI_ENOENGINE, "plugin refused: it belongs to user %u", st.st_uid);
    if (ret->rc != XI_OK)
        (void)xi_hint(ret, "install it anew: owned by root or by this user, mode 0755 or less");
}

static int has_device(const struct xi_engine_probe *probe, const char *id)
{
    uint32_t i;

    for (i = 0; i < probe->n_devices; i++) {
        if (strcmp(probe->devices[i].id, id) == 0)
            return 1;
    }
    return 0;
}

static void on_look(uv_timer_t *timer)
{
    look(timer->data);
}

/* The record of the start stays: variants were chosen by it. */
static void looked(struct xi_probe_run *run)
{
    struct xi_service_inner *in = run->service;
    const struct xi_engine_record *first = &in->records[run - in->probes], *now = run->record;
    uint32_t i, missing = 0;

    in->probes_left--;
    run->again = 0;
    run->record = &in->records[run - in->probes];
    if (in->closing)
        return;
    for (i = 0; i < first->probe.n_devices; i++) {
        const char *id = first->probe.devices[i].id;
        int there = now->present && has_device(&now->probe, id);

        missing += !there;
        xi_sessions_device_state(in->s.sessions, first->name, id, there,
                                 there                  ? "it answers"
                                 : now->why.rc != XI_OK ? now->why.msg
                                                        : "the engine finds it no more");
    }
    if (missing == 0) {
        run->wait_ms = 0;
        return;
    }
    run->wait_ms = run->wait_ms == 0 ? XI_LOOK_MIN_MS : run->wait_ms * 2;
    if (run->wait_ms > XI_LOOK_MAX_MS)
        run->wait_ms = XI_LOOK_MAX_MS;
    (void)uv_timer_start(&run->limit, on_look, run->wait_ms, 0);
}

static void ended(struct xi_probe_run *run)
{
    struct xi_service_inner *in = run->service;
    struct xi_engine_record *r = run->record;

    r->probe_us = xi_now_us() - run->began_us;
    (void)uv_timer_stop(&run->limit);
    if (run->again) {
        looked(run);
        return;
    }
    if (r->present)
        xi_log(XI_INFO, "engine.present", "engine=%s version=%s devices=%u ms=%llu", r->name,
               r->probe.version, r->probe.n_devices, (unsigned long long)r->probe_us / 1000);
    else
        xi_log(XI_WARN, "engine.absent", "engine=%s why=%s", r->name, r->why.msg);
    if (--in->probes_left == 0)
        xi_service_probed(in);
}

static void on_probed(void *ctx, struct xi_host *host, const struct xi_msg_probed *m,
                      const struct xi_engine_probe *probe)
{
    struct xi_probe_run *run = ctx;
    struct xi_engine_record *r = run->record;

    if (run->answered)
        return;
    run->answered = 1;
    r->present = m->present != 0;
    r->abi_major = m->abi_major;
    r->abi_minor = m->abi_minor;
    r->probe = *probe;
    /* It came from a process that ran foreign code. */
    r->probe.version[sizeof(r->probe.version) - 1] = '\0';
    r->probe.missing[sizeof(r->probe.missing) - 1] = '\0';
    if (!r->present)
        (void)xi_fail(&r->why, XI_ENOENGINE, "%s",
                      r->probe.missing[0] != '\0' ? r->probe.missing : "no device of it is here");
    xi_host_stop(host, 1000, "its probe is done");
}

static void on_failed(void *ctx, struct xi_host *host, uint32_t session, const struct xi_err *err,
                      const char *phase)
{
    struct xi_probe_run *run = ctx;

    (void)session;
    (void)phase;
    if (run->answered)
        return;
    run->answered = 1;
    run->record->why = *err;
    xi_host_stop(host, 1000, "its probe failed");
}

static void on_exited(void *ctx, struct xi_host *host, const struct xi_host_exit *why)
{
    struct xi_probe_run *run = ctx;

    if (!run->answered)
        (void)xi_fail(&run->record->why, XI_ENOENGINE, "its probe %s", why->reason);
    run->host = NULL;
    xi_host_free(host);
    ended(run);
}

static void on_limit(uv_timer_t *timer)
{
    struct xi_probe_run *run = timer->data;

    if (run->host != NULL)
        xi_host_stop(run->host, 0, "took longer than 5 s");
}

/* Returns 0 when no probe was started (the record says why). */
static int start(struct xi_probe_run *run)
{
    const struct xi_service_config *c = &run->service->s.config;
    struct xi_engine_record *r = run->record;
    struct xi_host_events events = {
        .ctx = run, .probed = on_probed, .failed = on_failed, .exited = on_exited};
    char label[48];
    struct xi_host_spec spec = {
        .role = XI_HOST_PROBE,
        .nice = XI_NICE_NORMAL,
        .label = label,
        .program = c->host_program,
        .plugin_dir = c->engine_dir,
        .engine = r->name,
        .engine_libs = strcmp(r->name, "openvino") == 0 ? c->openvino_dir : "",
        .link_dir = "",
        .cache_dir = "",
        .archive_fd = -1,
        .staging_fd = -1,
        .run_as_uid = c->host_uid,
        .sandbox = c->sandbox,
    };

    (void)snprintf(label, sizeof(label), "probe#%s", r->name);
    run->began_us = xi_now_us();
    if (xi_host_start(run->service->s.loop, run->service->s.shm, &spec, &events, &run->host,
                      &r->why) != XI_OK) {
        run->host = NULL;
        return 0;
    }
    (void)uv_timer_start(&run->limit, on_limit, XI_PROBE_MS, 0);
    return 1;
}

static void look(struct xi_probe_run *run)
{
    if (run->host != NULL || run->service->closing)
        return;
    run->second = (struct xi_engine_record){0};
    memcpy(run->second.name, run->record->name, sizeof(run->second.name));
    run->record = &run->second;
    run->again = 1;
    run->answered = 0;
    run->service->probes_left++;
    if (!start(run))
        ended(run);
}

void xi_service_look_again(void *ctx, const char *engine, const char *device)
{
    struct xi_service_inner *in = ctx;
    uint32_t i;

    (void)device;
    for (i = 0; i < in->s.n_engines; i++) {
        if (strcmp(in->records[i].name, engine) == 0)
            look(&in->probes[i]);
    }
}

static void find_plugins(struct xi_service_inner *in)
{
    struct xi_service *s = &in->s;
    struct dirent *entry;
    DIR *dir = opendir(s->config.engine_dir);
    char path[1024];

    if (dir == NULL) {
        xi_log(XI_ERROR, "engines.none", "why=%s", strerror(errno));
        return;
    }
    while ((entry = readdir(dir)) != NULL && s->n_engines < XI_ENGINES_MAX) {
        struct xi_engine_record *r = &in->records[s->n_engines];

        if (!xi_plugin_name(entry->d_name, r->name))
            continue;
        (void)snprintf(path, sizeof(path), "%s/%s", s->config.engine_dir, entry->d_name);
        xi_plugin_judge(path, &r->why);
        s->n_engines++;
    }
    (void)closedir(dir);
}

void xi_service_probe(struct xi_service_inner *in)
{
    struct xi_service *s = &in->s;
    uint32_t i;

    s->engines = in->records;
    find_plugins(in);
    in->probes_left = 1; /* ours, so that it ends once */
    for (i = 0; i < s->n_engines; i++) {
        struct xi_probe_run *run = &in->probes[i];

        run->service = in;
        run->record = &in->records[i];
        (void)uv_timer_init(s->loop, &run->limit);
        run->limit.data = run;
        in->probes_left++;
        if (run->record->why.rc != XI_OK || !start(run))
            ended(run);
    }
    if (--in->probes_left == 0)
        xi_service_probed(in);
}

void xi_service_probe_stop(struct xi_service_inner *in)
{
    uint32_t i;

    for (i = 0; i < in->s.n_engines; i++) {
        if (in->probes[i].host != NULL)
            xi_host_stop(in->probes[i].host, 0, "the daemon ends");
    }
}
