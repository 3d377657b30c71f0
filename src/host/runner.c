/* runner.c: opening and closing. Models are loaded in runner_model.c, requests run in
 * runner_run.c, proof is in runner_golden.c. */
#define _GNU_SOURCE
#include "host/runner.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "host/runner_impl.h"
#include "ipc/messages.h"

#define JSON_OUT_MAX    (16 * XI_MIB)
#define PICTURE_OUT_MAX (256 * XI_MIB)

static enum xi_rc read_all(int fd, const char *path, uint64_t max, char **ret, size_t *ret_bytes,
                           struct xi_err *err)
{
    struct stat st;

    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode))
        return xi_fail(err, XI_EPACKAGE, "%s is not a file", path);
    if ((uint64_t)st.st_size > max)
        return xi_fail(err, XI_ETOOBIG, "%s: %lld bytes, allowed are %llu", path,
                       (long long)st.st_size, (unsigned long long)max);
    size_t n = (size_t)st.st_size, got = 0;
    char *text = malloc(n + 1);
    if (text == NULL)
        return xi_fail(err, XI_ENOMEM, "%s: no memory for %zu bytes", path, n);
    while (got < n) {
        ssize_t k = read(fd, text + got, n - got);
        if (k <= 0) {
            free(text);
            return xi_fail(err, XI_EIO, "%s cannot be read to its end", path);
        }
        got += (size_t)k;
    }
    text[n] = '\0';
    *ret = text;
    *ret_bytes = n;
    return XI_OK;
}

enum xi_rc xi_runner_read(const struct xi_runner *r, const char *path, uint64_t max, char **ret,
                          size_t *ret_bytes, struct xi_err *err)
{
    char full[1024];

    if (path[0] == '/' || strstr(path, "..") != NULL ||
        snprintf(full, sizeof full, "%s/%s", r->link_dir, path) >= (int)sizeof full)
        return xi_fail(err, XI_EPACKAGE, "\"%.100s\" is no path of a package", path);
    int fd = open(full, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return xi_fail(err, errno == ENOENT ? XI_ENOENT : XI_EIO, "%s: %s", path, strerror(errno));
    enum xi_rc rc = read_all(fd, path, max, ret, ret_bytes, err);
    (void)close(fd);
    return rc;
}

static enum xi_rc read_manifest(struct xi_runner *r, struct xi_err *err)
{
    char *text;
    size_t bytes;
    enum xi_rc rc = xi_runner_read(r, "manifest.json", XI_MANIFEST_MAX, &text, &bytes, err);

    if (rc != XI_OK)
        return rc;
    rc = xi_manifest_parse(text, bytes, &r->manifest, err);
    free(text);
    return rc;
}

static void engine_log(void *ctx, int level, const char *line)
{
    (void)ctx;
    if (level >= XI_ENGINE_INFO) /* stderr is the daemon's log */
        (void)fprintf(stderr, "%s\n", line);
}

static enum xi_rc start_engine(struct xi_runner_engine *e, const char *libs, struct xi_err *err)
{
    char text[XI_ENGINE_ERR_BYTES] = "";
    struct xi_engine_config config = {
        .size = sizeof config, .library_dir = libs, .log = engine_log};
    int code = xi_plugin_probe(&e->plugin, libs, &e->probe, text);

    if (code == XI_ENGINE_NOT_PRESENT)
        return xi_fail(err, XI_ENOENGINE, "%.180s",
                       e->probe.missing[0] ? e->probe.missing : "the engine is not present");
    if (code == XI_ENGINE_OK)
        code = e->plugin.table->open(&config, &e->handle, text, sizeof text);
    if (code != XI_ENGINE_OK)
        return xi_plugin_fail(err, code, text);
    int plain = (int)strcspn(e->probe.version, "- "); /* "2026.4.1-22982-e213…" */
    (void)snprintf(e->text, sizeof e->text, "%.31s %.*s", e->name, plain < 31 ? plain : 31,
                   e->probe.version);
    return XI_OK;
}

enum xi_rc xi_runner_engine_open(const char *plugin_dir, const char *name, const char *libs,
                                 struct xi_runner_engine **ret, struct xi_err *err)
{
    struct xi_runner_engine *e = calloc(1, sizeof *e);

    if (e == NULL)
        return xi_fail(err, XI_ENOMEM, "no memory for an engine");
    enum xi_rc rc = xi_plugin_open(plugin_dir, name, &e->plugin, err);
    if (rc == XI_OK) {
        (void)snprintf(e->name, sizeof e->name, "%s", name);
        rc = start_engine(e, libs != NULL && libs[0] != '\0' ? libs : NULL, err);
    }
    if (rc != XI_OK) {
        xi_runner_engine_close(e);
        return rc;
    }
    *ret = e;
    return XI_OK;
}

void xi_runner_engine_close(struct xi_runner_engine *e)
{
    if (e == NULL)
        return;
    if (e->handle != NULL)
        e->plugin.table->close(e->handle);
    xi_plugin_close(&e->plugin);
    free(e);
}

/* ---- flow ---- */

struct kept_files {
    const struct xi_runner *runner;
    char *files[64];
    uint32_t n;
};

static enum xi_rc read_asset(void *ctx, const char *path, const char **ret, size_t *ret_bytes,
                             struct xi_err *err)
{
    struct kept_files *kept = ctx;
    char *text;

    if (kept->n == sizeof kept->files / sizeof *kept->files)
        return xi_fail(err, XI_EFLOW, "flow reads more than %u files", kept->n);
    enum xi_rc rc = xi_runner_read(kept->runner, path, 64 * XI_MIB, &text, ret_bytes, err);
    if (rc != XI_OK)
        return rc;
    kept->files[kept->n++] = text;
    *ret = text;
    return XI_OK;
}

static enum xi_rc open_flow(struct xi_runner *r, struct xi_err *err)
{
    struct kept_files kept = {.runner = r};
    struct xi_flow_assets assets = {.ctx = &kept, .read = read_asset};
    char *text;
    size_t bytes;

    if (r->manifest->flow == NULL)
        return XI_OK;
    if (strcmp(r->manifest->flow, "flow.json") != 0)
        return xi_fail(err, XI_EUNSUPPORTED, "this xInfer runs flow.json only, not %s",
                       r->manifest->flow);
    enum xi_rc rc = xi_runner_read(r, r->manifest->flow, XI_FLOW_MAX, &text, &bytes, err);
    if (rc != XI_OK)
        return rc;
    rc = xi_flow_parse(text, bytes, &assets, &r->flow, err);
    free(text);
    for (uint32_t i = 0; i < kept.n; i++)
        free(kept.files[i]);
    for (uint32_t i = 0; i < r->n_models && rc == XI_OK; i++)
        rc = xi_flow_check_model(r->flow, r->models[i].name, &r->models[i].signature, err);
    if (rc != XI_OK)
        return rc;
    r->info.has_flow = 1;
    r->info.takes_image = xi_flow_takes_image(r->flow);
    r->info.draws = xi_flow_draws(r->flow);
    return XI_OK;
}

/* ---- lanes ---- */

/* One that does not run has no request of the engine: it does what comes before and after. */
static enum xi_rc open_lane(struct xi_runner *r, struct xi_runner_lane *lane, int runs,
                            struct xi_err *err)
{
    char text[XI_ENGINE_ERR_BYTES] = "";

    lane->runner = r;
    xi_str_init(&lane->json, JSON_OUT_MAX);
    xi_str_init(&lane->picture, PICTURE_OUT_MAX);
    lane->instances = calloc(r->n_models, sizeof *lane->instances);
    if (lane->instances == NULL)
        return xi_fail(err, XI_ENOMEM, "no memory for a lane");
    for (uint32_t i = 0; runs && i < r->n_models; i++) {
        int code = r->table->request_new(r->models[i].handle, &lane->instances[i].request, text,
                                         sizeof text);
        if (code != XI_ENGINE_OK)
            return xi_plugin_fail(err, code, text);
    }
    if (r->flow == NULL)
        return runs && (r->info.max_batch > 1 || r->info.staged) ? xi_runner_batch_new(lane, err)
                                                                 : XI_OK;
    lane->flow = xi_flow_run_new(r->flow);
    if (lane->flow == NULL)
        return xi_fail(err, XI_ENOMEM, "no memory for a flow");
    return runs && (r->info.max_batch > 1 || r->info.staged) ? xi_runner_batch_new(lane, err)
                                                             : XI_OK;
}

static void close_lane(struct xi_runner *r, struct xi_runner_lane *lane)
{
    for (uint32_t i = 0; lane->instances != NULL && i < r->n_models; i++)
        if (lane->instances[i].request != NULL)
            r->table->request_free(lane->instances[i].request);
    free(lane->instances);
    xi_runner_batch_free(lane);
    xi_flow_run_free(lane->flow);
    xi_str_fini(&lane->json);
    xi_str_fini(&lane->picture);
}

static enum xi_rc open_lanes(struct xi_runner *r, uint32_t run, uint32_t stage, struct xi_err *err)
{
    uint32_t count = run + stage;
    enum xi_rc rc = XI_OK;

    r->n_run_lanes = run;
    r->lanes = calloc(count, sizeof *r->lanes);
    if (r->lanes == NULL)
        return xi_fail(err, XI_ENOMEM, "no memory for %u lanes", count);
    for (; r->n_lanes < count && rc == XI_OK; r->n_lanes++)
        rc = open_lane(r, &r->lanes[r->n_lanes], r->n_lanes < run, err);
    return rc;
}

static int on_cpu(const struct xi_runner *r)
{
    const struct xi_engine_probe *p = &r->engine->probe;

    for (uint32_t i = 0; i < p->n_devices; i++)
        if (strcmp(p->devices[i].id, r->info.device) == 0)
            return p->devices[i].kind == XI_DEV_CPU;
    return 1;
}

uint64_t xi_runner_device_bytes(const struct xi_runner *r)
{
    uint64_t held = 0;

    if (on_cpu(r) || !XI_ENGINE_HAS(r->table, stats))
        return 0;
    for (uint32_t i = 0; i < r->n_models; i++) {
        struct xi_engine_stats s = {.size = sizeof s};
        if (r->table->stats(r->models[i].handle, &s) == XI_ENGINE_OK &&
            __builtin_add_overflow(held, s.bytes_held, &held))
            return UINT64_MAX;
    }
    return held;
}

/* Batches, stages and state, as far as models and flow go. */
static enum xi_rc how_it_runs(struct xi_runner *r, const struct xi_runner_spec *spec,
                              struct xi_err *err)
{
    const struct xi_runner_model *m = &r->models[0];
    const struct xi_manifest_model *said = xi_manifest_model(r->manifest, "main");
    int main_only = r->flow == NULL ||
                    (xi_flow_in_pieces(r->flow) && strcmp(xi_flow_model(r->flow), m->name) == 0);
    uint32_t asked = spec->max_batch > 0 ? spec->max_batch : 1;
    int hidden = XI_ENGINE_HAS(r->table, stateful) && r->table->stateful(m->handle) == 1 &&
                 XI_ENGINE_HAS(r->table, reset);

    for (uint32_t i = 1; i < r->n_models; i++)
        if (r->models[i].n_states > 0)
            return xi_fail(err, XI_EUNSUPPORTED, "only model main may have state");
    if (hidden && m->n_states > 0)
        return xi_fail(err, XI_EUNSUPPORTED, "the model keeps state by itself and says others");
    if (m->n_states > 0 && !main_only)
        return xi_fail(err, XI_EUNSUPPORTED, "a flow runs a model with state once, and no other");
    if (said->max_batch > 0 && asked > said->max_batch)
        asked = said->max_batch;
    r->info.max_batch = m->batches && main_only && !hidden ? asked : 1;
    r->info.states = m->signature.inputs + m->signature.n_inputs;
    r->info.n_states = m->n_states;
    r->info.stateful = hidden            ? XI_STATE_HIDDEN
                       : m->n_states > 0 ? XI_STATE_EXPLICIT
                                         : XI_STATE_NONE;
    r->info.staged = !hidden && r->flow != NULL && main_only && spec->stage_lanes > 0 && !on_cpu(r);
    return XI_OK;
}

enum xi_rc xi_runner_open(const struct xi_runner_spec *spec, struct xi_runner **ret,
                          struct xi_err *err)
{
    uint64_t started = xi_now_us();
    struct xi_runner *r = calloc(1, sizeof *r);

    if (r == NULL)
        return xi_fail(err, XI_ENOMEM, "no memory for a session");
    (void)snprintf(r->link_dir, sizeof r->link_dir, "%s", spec->link_dir);
    r->engine = spec->engine;
    r->table = spec->engine->plugin.table;
    memcpy(r->info.engine, spec->engine->text, sizeof r->info.engine);
    enum xi_rc rc = read_manifest(r, err);
    if (rc == XI_OK)
        rc = xi_runner_models_load(r, spec, err);
    if (rc == XI_OK)
        rc = open_flow(r, err);
    if (rc == XI_OK)
        rc = how_it_runs(r, spec, err);
    if (rc == XI_OK)
        rc = open_lanes(r, spec->lanes, spec->stage_lanes, err);
    if (rc == XI_OK && r->info.staged)
        rc = xi_stages_new(r, err);
    if (rc != XI_OK) {
        xi_runner_close(r);
        return rc;
    }
    r->info.signature = &r->models[0].signature;
    r->info.n_goldens = (uint32_t)r->manifest->n_goldens;
    r->info.load_us = xi_now_us() - started;
    *ret = r;
    return XI_OK;
}

void xi_runner_close(struct xi_runner *r)
{
    if (r == NULL)
        return;
    for (uint32_t i = 0; i < r->n_lanes; i++)
        close_lane(r, &r->lanes[i]);
    free(r->lanes);
    xi_stages_free(r);
    xi_flow_free(r->flow);
    for (uint32_t i = 0; i < r->n_models; i++)
        xi_runner_model_unload(r, &r->models[i]);
    free(r->models);
    xi_manifest_free(r->manifest);
    free(r);
}

const struct xi_runner_info *xi_runner_info(const struct xi_runner *r)
{
    return &r->info;
}

struct xi_runner_lane *xi_runner_lane(struct xi_runner *r, uint32_t index)
{
    XI_ASSERT(index < r->n_lanes);
    return &r->lanes[index];
}

int xi_runner_lane_runs(const struct xi_runner_lane *lane)
{
    return lane < lane->runner->lanes + lane->runner->n_run_lanes;
}

uint32_t xi_runner_lane_batch(const struct xi_runner_lane *lane)
{
    return lane->batch != NULL ? lane->runner->info.max_batch : 1;
}

int xi_runner_lane_staged(const struct xi_runner_lane *lane)
{
    return lane->runner->info.staged;
}
