#define _GNU_SOURCE
#include "linked.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static void on_loaded(void *ctx, struct xi_host *host, const struct xi_msg_loaded *m,
                      struct xi_signature *signature)
{
    struct linked *l = ctx;

    assert_ptr_equal(host, l->host);
    l->load = *m;
    xi_signature_fini(&l->signature); /* of an earlier load */
    l->signature = *signature;
    l->loaded++;
}

static void on_failed(void *ctx, struct xi_host *host, uint32_t session, const struct xi_err *err,
                      const char *phase)
{
    struct linked *l = ctx;

    (void)host;
    (void)session;
    l->why = *err;
    (void)snprintf(l->phase, sizeof l->phase, "%s", phase);
    l->failed++;
}

static void on_unloaded(void *ctx, struct xi_host *host, const struct xi_msg_unload *m)
{
    struct linked *l = ctx;

    (void)host;
    (void)m;
    l->unloaded++;
}

static void on_probed(void *ctx, struct xi_host *host, const struct xi_msg_probed *m,
                      const struct xi_engine_probe *probe)
{
    struct linked *l = ctx;

    (void)host;
    l->probe_head = *m;
    l->probe = *probe;
    l->probed++;
}

static void on_done(void *ctx, struct xi_host *host, uint32_t lane, struct xi_reply *reply)
{
    struct linked *l = ctx;

    (void)host;
    l->done++;
    if (l->on_done != NULL)
        l->on_done(l, lane, reply);
    else
        xi_reply_release(reply);
}

static void on_exited(void *ctx, struct xi_host *host, const struct xi_host_exit *why)
{
    struct linked *l = ctx;

    l->end = *why;
    l->exited++;
    xi_host_free(host);
    l->host = NULL;
}

void linked_open(struct linked *l)
{
    memset(l, 0, sizeof *l);
    l->sandbox = !SANITIZED; /* leaks of the host count too, and the sandbox hides them */
    assert_int_equal(uv_loop_init(&l->loop), 0);
    l->shm = xi_shm_new(256 * XI_MIB);
    assert_non_null(l->shm);
}

static void write_file(const char *dir, const char *name, const char *text)
{
    char path[256];

    (void)snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

void linked_package(struct linked *l, const char *model)
{
    char path[256];

    (void)snprintf(l->dir, sizeof l->dir, "/tmp/xi-link-XXXXXX");
    assert_non_null(mkdtemp(l->dir));
    (void)snprintf(path, sizeof path, "%s/variants", l->dir);
    assert_int_equal(mkdir(path, 0755), 0);
    write_file(l->dir, "variants/model.xref", model);
    write_file(l->dir, "manifest.json",
               "{\"xpkg\": 1, \"name\": \"m\", \"version\": \"1.0.0\", \"license\": \"MIT\","
               " \"input\": \"tensors\", \"output\": \"tensors\","
               " \"models\": {\"main\": {\"variants\": [{\"id\": \"f32\","
               " \"files\": [\"variants/model.xref\"], \"format\": \"reference\","
               " \"engine\": {\"name\": \"reference\"}, \"precision\": \"f32\"}]}}}");
}

void linked_start(struct linked *l, enum xi_host_role role, const char *program, const char *engine)
{
    struct xi_host_spec spec = {.role = role,
                                .label = "test",
                                .program = program ? program : XI_HOST_PROGRAM,
                                .plugin_dir = XI_TEST_PLUGINS,
                                .engine = engine,
                                .link_dir = l->dir,
                                .output_limit_bytes = l->output_limit_bytes,
                                .data_limit_bytes = l->data_limit_bytes,
                                .sandbox = l->sandbox,
                                .group = l->group};
    struct xi_host_events events = {.ctx = l,
                                    .loaded = on_loaded,
                                    .failed = on_failed,
                                    .unloaded = on_unloaded,
                                    .probed = on_probed,
                                    .done = on_done,
                                    .exited = on_exited};
    struct xi_err err;

    if (xi_host_start(&l->loop, l->shm, &spec, &events, &l->host, &err) != XI_OK)
        fail_msg("start: %s", err.msg);
}

void linked_load(struct linked *l, const char *model, uint32_t lanes)
{
    struct xi_msg_load load = {
        .session = 7, .lane_count = lanes, .threads = 1, .max_batch = 1, .run_golden = 1};
    struct xi_err err;

    linked_package(l, model);
    linked_start(l, XI_HOST_RUN, NULL, "reference");
    (void)snprintf(load.link_dir, sizeof load.link_dir, "%s", l->dir);
    if (xi_host_load(l->host, &load, 0, &err) != XI_OK)
        fail_msg("load: %s", err.msg);
    for (int i = 0; i < 1000 && !l->loaded && !l->failed && !l->exited; i++) {
        int none = 0;
        (void)linked_wait_int(l, &none, 10);
    }
}

static void on_tick(uv_timer_t *timer)
{
    (void)timer; /* only wakes the loop */
}

static void forget(uv_handle_t *handle)
{
    *(int *)handle->data = 1;
}

static int wait_until(struct linked *l, int (*reached)(const void *what), const void *what, int ms)
{
    uint64_t end = uv_hrtime() + (uint64_t)ms * 1000000u;
    uv_timer_t timer;
    int closed = 0;

    assert_int_equal(uv_timer_init(&l->loop, &timer), 0);
    timer.data = &closed;
    assert_int_equal(uv_timer_start(&timer, on_tick, 5, 5), 0);
    while (!reached(what) && uv_hrtime() < end)
        (void)uv_run(&l->loop, UV_RUN_ONCE);
    uv_close((uv_handle_t *)&timer, forget);
    while (!closed)
        (void)uv_run(&l->loop, UV_RUN_NOWAIT);
    return reached(what);
}

static int is_set(const void *what)
{
    return *(const int *)what > 0;
}

int linked_wait_int(struct linked *l, const int *flag, int ms)
{
    return wait_until(l, is_set, flag, ms);
}

struct until_done {
    const struct linked *l;
    uint32_t n;
};

static int done_or_ended(const void *what)
{
    const struct until_done *u = what;

    return u->l->done >= u->n || u->l->exited > 0;
}

int linked_wait_done(struct linked *l, uint32_t n, int ms)
{
    struct until_done u = {.l = l, .n = n};

    (void)wait_until(l, done_or_ended, &u, ms);
    return l->done >= n;
}

enum xi_rc linked_submit(struct linked *l, uint32_t lane, uint64_t id, const float *values,
                         uint32_t n, struct xi_slot **ret_slot, struct xi_err *err)
{
    struct xi_part part = {.kind = XI_PART_TENSOR, .dtype = XI_DT_FP32, .rank = 2};
    struct xi_slot *slot;
    enum xi_rc rc = xi_shm_take(l->shm, "anyone", n * sizeof *values, &slot, err);

    if (rc != XI_OK)
        return rc;
    memcpy(slot->data, values, n * sizeof *values);
    part.dims[0] = 1;
    part.dims[1] = n;
    part.mem = (struct xi_mem_ref){
        .segment = slot->segment->id, .offset = slot->offset, .bytes = n * sizeof *values};
    struct xi_work_item item = {.request = {.id = id, .want = XI_ANSWER_TENSORS, .n_parts = 1},
                                .parts = &part,
                                .segments = &slot->segment};
    rc = xi_host_submit(l->host, lane, XI_WORK_ALL, XI_CORE_ANY, &item, 1, err);
    if (rc != XI_OK) {
        xi_slot_put(slot);
        return rc;
    }
    *ret_slot = slot;
    return XI_OK;
}

void linked_close(struct linked *l)
{
    char path[256];
    struct xi_shm_stats stats;

    if (l->host != NULL) {
        xi_host_stop(l->host, 2000, "test ends");
        assert_true(linked_wait_int(l, &l->exited, 5000));
        if (l->end.signal == 0) /* what a sanitizer finds in it shows here */
            assert_int_equal(l->end.exit_code, 0);
    }
    while (uv_run(&l->loop, UV_RUN_NOWAIT) != 0)
        continue;
    assert_int_equal(uv_loop_close(&l->loop), 0);
    xi_signature_fini(&l->signature);
    xi_shm_stats(l->shm, &stats);
    assert_int_equal(stats.slots, 0);
    assert_int_equal(stats.used_bytes, 0);
    xi_shm_free(l->shm);
    if (l->dir[0] != '\0') {
        (void)snprintf(path, sizeof path, "%s/variants/model.xref", l->dir);
        (void)unlink(path);
        (void)snprintf(path, sizeof path, "%s/variants", l->dir);
        (void)rmdir(path);
        (void)snprintf(path, sizeof path, "%s/manifest.json", l->dir);
        (void)unlink(path);
        (void)rmdir(l->dir);
    }
}
