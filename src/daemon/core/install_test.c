/* Uploads and installs, with a host of our own in the place of xi_host_start: it does in the
 * loop what the process would do, good or bad. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "daemon/core/store_fixture.h"
#include "daemon/core/store_impl.h"
#include "daemon/ipc/host_link.h"

static const struct fixture night = {
    .name = "night",
    .version = "1.2.0",
    .path = {"manifest.json", "variants/cpu/model.ref", "assets/labels.txt"},
    .content = {"{\"xpkg\":1}", "abc", "cat\ndog\n"},
};

enum behaviour { GOOD, REFUSES, CRASHES, HANGS, LIES, ENDS_WITHOUT_A_WORD };

struct world {
    uv_loop_t loop;
    char dir[64];
    struct xi_store *store;
    enum behaviour behaviour;
    int hosts; /* started so far */
    char archive[4096];
    size_t archive_bytes;
    int called, existed;
    struct xi_err err;
    char version[72];
};

/* ---- the host ---- */

struct xi_host {
    struct world *world;
    struct xi_host_events events;
    uv_timer_t timer;
    int out_fd, killed, told;
};

static void host_ends(struct xi_host *h, const char *reason)
{
    struct xi_host_exit why = {.exit_code = 0, .killed = h->killed};

    (void)snprintf(why.reason, sizeof why.reason, "%s", reason);
    h->events.exited(h->events.ctx, h, &why);
}

static void host_unpacks(struct xi_host *h)
{
    struct xi_package_record r = fixture_record(&night);

    if (h->world->behaviour == LIES)
        r.blobs[1].sha256.bytes[0] ^= 1;
    fixture_leave(h->out_fd, &night, &r);
    xi_record_fini(&r);
    h->events.installed(h->events.ctx, h, 1);
}

static void host_refuses(struct xi_host *h)
{
    struct xi_err err = {0};

    (void)xi_fail(&err, XI_EPACKAGE, "trailing data after the archive");
    h->events.failed(h->events.ctx, h, 0, &err, "verify");
}

/* First what it has to say, then (told) its end. */
static void host_step(uv_timer_t *timer)
{
    struct xi_host *h = timer->data;

    if (h->told) {
        host_ends(h, h->killed                        ? "was stopped"
                     : h->world->behaviour == CRASHES ? "ended by SIGSEGV"
                                                      : "exited with 0");
        return;
    }
    h->told = 1;
    if (h->world->behaviour == HANGS)
        return;
    assert_int_equal(uv_timer_start(timer, host_step, 1, 0), 0);
    if (h->world->behaviour == GOOD || h->world->behaviour == LIES)
        host_unpacks(h);
    else if (h->world->behaviour == REFUSES)
        host_refuses(h);
}

static struct world *the_world; /* xi_host_start has no place for it */

enum xi_rc xi_host_start(uv_loop_t *loop, struct xi_shm *shm, const struct xi_host_spec *spec,
                         const struct xi_host_events *events, struct xi_host **ret,
                         struct xi_err *err)
{
    char have[4096];
    struct xi_host *h = calloc(1, sizeof *h);

    (void)shm;
    (void)err;
    assert_int_equal(spec->role, XI_HOST_INSTALL);
    assert_string_equal(spec->program, "/opt/xinfer-host");
    assert_true(spec->data_limit_bytes > 0);
    /* The archive arrives whole and can't be written. */
    assert_int_equal(pread(spec->archive_fd, have, sizeof have, 0), the_world->archive_bytes);
    assert_memory_equal(have, the_world->archive, the_world->archive_bytes);
    assert_int_equal(pwrite(spec->archive_fd, "x", 1, 0), -1);
    the_world->hosts++;
    *h = (struct xi_host){.world = the_world, .events = *events};
    h->out_fd = dup(spec->staging_fd);
    assert_int_equal(uv_timer_init(loop, &h->timer), 0);
    h->timer.data = h;
    assert_int_equal(uv_timer_start(&h->timer, host_step, 1, 0), 0);
    *ret = h;
    return XI_OK;
}

void xi_host_stop(struct xi_host *h, unsigned grace_ms, const char *why)
{
    assert_true(why[0] != '\0');
    h->killed = h->killed || grace_ms == 0;
    h->told = 1;
    assert_int_equal(uv_timer_start(&h->timer, host_step, 1, 0), 0);
}

static void host_closed(uv_handle_t *handle)
{
    free(handle->data);
}

void xi_host_free(struct xi_host *h)
{
    (void)close(h->out_fd);
    uv_close((uv_handle_t *)&h->timer, host_closed);
}

/* ---- the world ---- */

static int setup(void **state)
{
    struct world *w = calloc(1, sizeof *w);
    struct xi_err err = {0};
    const struct xi_install_config config = {.host_program = "/opt/xinfer-host",
                                             .time_limit_ms = 300};

    assert_int_equal(uv_loop_init(&w->loop), 0);
    fixture_dir(w->dir);
    if (xi_store_open(&w->loop, w->dir, &w->store, &err) != XI_OK)
        fail_msg("%s", err.msg);
    xi_store_configure_install(w->store, &config);
    w->archive_bytes = fixture_archive(&night, w->archive, sizeof w->archive);
    the_world = w;
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;

    xi_store_close(w->store);
    assert_int_equal(uv_run(&w->loop, UV_RUN_DEFAULT), 0);
    assert_int_equal(uv_loop_close(&w->loop), 0);
    fixture_dir_remove(w->dir);
    free(w);
    return 0;
}

static void heard(struct world *w, const struct xi_err *err)
{
    assert_int_equal(w->called, 0);
    w->called = 1;
    w->err = err ? *err : (struct xi_err){0};
}

static void on_written(void *ctx, const struct xi_err *err)
{
    heard(ctx, err);
}

static void on_install(void *ctx, const struct xi_package_record *record, int existed,
                       const struct xi_err *err)
{
    struct world *w = ctx;

    heard(w, err);
    w->existed = existed;
    assert_int_equal(record != NULL, err == NULL);
    (void)snprintf(w->version, sizeof w->version, "%s", record ? record->version : "");
}

static enum xi_rc answer(struct world *w)
{
    while (!w->called)
        (void)uv_run(&w->loop, UV_RUN_ONCE);
    w->called = 0;
    return w->err.rc;
}

static struct xi_upload *begin(struct world *w, uint64_t expected)
{
    struct xi_upload *u = NULL;
    struct xi_err err = {0};

    if (xi_upload_begin(w->store, expected, &u, &err) != XI_OK)
        fail_msg("%s", err.msg);
    return u;
}

static enum xi_rc write_bytes(struct world *w, struct xi_upload *u, const void *data, size_t n)
{
    xi_upload_write(u, data, n, on_written, w);
    return answer(w);
}

/* In three pieces, as from a socket. */
static enum xi_rc upload(struct world *w)
{
    struct xi_upload *u = begin(w, w->archive_bytes);

    assert_int_equal(write_bytes(w, u, w->archive, 5), XI_OK);
    assert_int_equal(write_bytes(w, u, w->archive + 5, 1), XI_OK);
    assert_int_equal(write_bytes(w, u, w->archive + 6, w->archive_bytes - 6), XI_OK);
    xi_upload_install(u, on_install, w);
    return answer(w);
}

static uint64_t packages(struct world *w)
{
    struct xi_store_stats stats;

    xi_store_stats(w->store, &stats);
    return stats.packages;
}

static void on_done(void *ctx, const struct xi_err *err)
{
    heard(ctx, err);
}

/* One call through the queue: what stood before it (cleaning up) is done. */
static void settle(struct world *w)
{
    xi_store_undesire(w->store, "x", on_done, w);
    assert_int_equal(answer(w), XI_OK);
}

static void staging_is_empty(struct world *w)
{
    char path[96];

    settle(w);
    (void)snprintf(path, sizeof path, "%s/staging", w->dir);
    assert_int_equal(rmdir(path), 0); /* only an empty one goes */
    assert_int_equal(mkdir(path, 0700), 0);
}

static void uploads_and_installs(void **state)
{
    struct world *w = *state;

    assert_int_equal(upload(w), XI_OK);
    assert_int_equal(w->existed, 0);
    assert_string_equal(w->version, "1.2.0");
    staging_is_empty(w);
    assert_int_equal(packages(w), 1);
    assert_int_equal(w->hosts, 1);
    /* The same bytes again: known by their digest, no host needed. */
    assert_int_equal(upload(w), XI_OK);
    assert_int_equal(w->existed, 1);
    assert_int_equal(w->hosts, 1);
    staging_is_empty(w);
    assert_int_equal(packages(w), 1);
}

static void bad_hosts_install_nothing(void **state)
{
    struct world *w = *state;
    const struct {
        enum behaviour behaviour;
        enum xi_rc rc;
        const char *words;
    } cases[] = {
        {REFUSES, XI_EPACKAGE, "trailing data after the archive"},
        {CRASHES, XI_EPACKAGE, "ended by SIGSEGV"},
        {HANGS, XI_ETIMEOUT, "longer than 300 ms"},
        {LIES, XI_EDIGEST, "has SHA-256"},
        {ENDS_WITHOUT_A_WORD, XI_EPACKAGE, "the process that unpacked it exited with 0"},
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        w->behaviour = cases[i].behaviour;
        assert_int_equal(upload(w), cases[i].rc);
        assert_non_null(strstr(w->err.msg, cases[i].words));
        staging_is_empty(w);
        assert_int_equal(packages(w), 0);
    }
    w->behaviour = GOOD;
    assert_int_equal(upload(w), XI_OK);
}

static void half_an_upload_is_none(void **state)
{
    struct world *w = *state;
    struct xi_upload *u = begin(w, 100);

    assert_int_equal(write_bytes(w, u, "half", 4), XI_OK);
    xi_upload_install(u, on_install, w);
    assert_int_equal(answer(w), XI_EINVAL);
    assert_string_equal(w->err.msg, "the upload ended after 4 of 100 bytes");
    u = begin(w, 3);
    assert_int_equal(write_bytes(w, u, "four", 4), XI_ETOOBIG);
    xi_upload_install(u, on_install, w); /* keeps failing as the write did */
    assert_int_equal(answer(w), XI_ETOOBIG);
    u = begin(w, 0);
    xi_upload_install(u, on_install, w);
    assert_int_equal(answer(w), XI_EINVAL);
    staging_is_empty(w);
    assert_int_equal(w->hosts, 0);
}

static void abort_deletes(void **state)
{
    struct world *w = *state;
    struct xi_upload *u = begin(w, 8);

    assert_int_equal(write_bytes(w, u, "four", 4), XI_OK);
    xi_upload_abort(u);
    staging_is_empty(w);
    u = begin(w, 8);
    xi_upload_write(u, "four", 4, on_written, w);
    xi_upload_abort(u); /* while the write is under way */
    assert_int_equal(answer(w), XI_ECANCELLED);
    staging_is_empty(w);
    xi_upload_abort(begin(w, 0));
    staging_is_empty(w);
}

static void caps_and_room(void **state)
{
    struct world *w = *state;
    struct xi_upload *u[XI_UPLOADS_MAX], *more = NULL;
    struct xi_err err = {0};
    uint64_t free_bytes = xi_store_disk_free_bytes(&w->store->disk);

    assert_int_equal(xi_upload_begin(w->store, XI_PACKAGE_MAX + 1, &more, &err), XI_ETOOBIG);
    for (int i = 0; i < XI_UPLOADS_MAX; i++)
        u[i] = begin(w, 10);
    assert_int_equal(xi_upload_begin(w->store, 10, &more, &err), XI_EAGAIN);
    for (int i = 0; i < XI_UPLOADS_MAX; i++)
        xi_upload_abort(u[i]);
    settle(w);
    assert_int_equal(xi_store_disk_room(&w->store->disk, free_bytes * 2, &err), XI_EDISK);
    char need[32];
    (void)snprintf(need, sizeof need, "%llu bytes", (unsigned long long)free_bytes * 2);
    assert_non_null(strstr(err.msg, need));
    assert_non_null(strstr(err.msg, "are free"));
}

/* The store closes while a host unpacks: answered, the host ended, nothing half installed. */
static void closing_ends_installs(void **state)
{
    struct world *w = *state;
    struct xi_upload *u = begin(w, w->archive_bytes);
    struct xi_err err = {0};

    w->behaviour = HANGS;
    assert_int_equal(write_bytes(w, u, w->archive, w->archive_bytes), XI_OK);
    xi_upload_install(u, on_install, w);
    while (w->hosts == 0)
        (void)uv_run(&w->loop, UV_RUN_ONCE);
    struct xi_upload *idle = begin(w, 10);
    xi_store_close(w->store);
    assert_int_equal(w->called, 1);
    assert_int_equal(w->err.rc, XI_EDRAIN);
    w->called = 0;
    xi_upload_abort(idle);
    assert_int_equal(uv_run(&w->loop, UV_RUN_DEFAULT), 0);
    if (xi_store_open(&w->loop, w->dir, &w->store, &err) != XI_OK)
        fail_msg("%s", err.msg);
    staging_is_empty(w);
    assert_int_equal(packages(w), 0);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(uploads_and_installs),   T(bad_hosts_install_nothing),
        T(half_an_upload_is_none), T(abort_deletes),
        T(caps_and_room),          T(closing_ends_installs),
    };

    return cmocka_run_group_tests_name("install", tests, NULL, NULL);
}
