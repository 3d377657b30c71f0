/* Real archives through the real xinfer-host into a real store. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "base/platform/file.h"
#include "daemon/core/store.h"
#include "daemon/ipc/shm_manager.h"
#include "package/fixture.h"

struct world {
    uv_loop_t loop;
    char dir[64];
    struct xi_store *store;
    struct xi_shm *shm;
    int called, existed;
    struct xi_err err;
    char name[XI_NAME_MAX + 1], digest[XI_DIGEST_HEX + 1], link_dir[600];
};

static void configure(struct world *w, const char *program, uint32_t uid)
{
    const struct xi_install_config config = {.shm = w->shm,
                                             .host_program = program,
                                             .plugin_dir = XI_TEST_PLUGINS,
                                             .host_uid = uid,
                                             .sandbox = 1};

    xi_store_configure_install(w->store, &config);
}

static int setup(void **state)
{
    struct world *w = calloc(1, sizeof *w);

    assert_int_equal(uv_loop_init(&w->loop), 0);
    (void)snprintf(w->dir, sizeof w->dir, "/tmp/xinfer-test-XXXXXX");
    assert_non_null(mkdtemp(w->dir));
    assert_int_equal(chmod(w->dir, 0711), 0);
    w->shm = xi_shm_new(64 * XI_MIB);
    assert_non_null(w->shm);
    if (xi_store_open(&w->loop, w->dir, &w->store, &w->err) != XI_OK)
        fail_msg("%s", w->err.msg);
    configure(w, XI_HOST_PROGRAM, 0);
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    int tmp = open("/tmp", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    xi_store_close(w->store);
    assert_int_equal(uv_run(&w->loop, UV_RUN_DEFAULT), 0);
    xi_shm_free(w->shm);
    assert_int_equal(uv_loop_close(&w->loop), 0);
    assert_int_equal(xi_tree_remove(tmp, w->dir + strlen("/tmp/")), 0);
    (void)close(tmp);
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
    if (record == NULL)
        return;
    (void)snprintf(w->name, sizeof w->name, "%s", record->name);
    xi_digest_text(&record->digest, w->digest);
}

static void on_links(void *ctx, const char *link_dir, const char *cache_dir,
                     const struct xi_err *err)
{
    struct world *w = ctx;

    (void)cache_dir;
    heard(w, err);
    (void)snprintf(w->link_dir, sizeof w->link_dir, "%s", link_dir ? link_dir : "");
}

static enum xi_rc answer(struct world *w)
{
    while (!w->called)
        (void)uv_run(&w->loop, UV_RUN_ONCE);
    w->called = 0;
    return w->err.rc;
}

static size_t read_all(FILE *f, char *dst, size_t room)
{
    ssize_t n = pread(fileno(f), dst, room, 0);

    assert_true(n > 0 && (size_t)n < room);
    return (size_t)n;
}

static enum xi_rc upload(struct world *w, const char *bytes, size_t n)
{
    struct xi_upload *u = NULL;

    if (xi_upload_begin(w->store, n, &u, &w->err) != XI_OK)
        fail_msg("%s", w->err.msg);
    xi_upload_write(u, bytes, n, on_written, w);
    assert_int_equal(answer(w), XI_OK);
    xi_upload_install(u, on_install, w);
    return answer(w);
}

static char bytes[256 * 1024];

static void expect_file(struct world *w, const char *path, const char *text)
{
    char whole[900], have[256] = "";
    struct stat st;

    (void)snprintf(whole, sizeof whole, "%s/%s", w->link_dir, path);
    assert_int_equal(stat(whole, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0444);
    assert_int_equal(st.st_uid, geteuid());
    FILE *f = fopen(whole, "r");
    assert_non_null(f);
    (void)!fread(have, 1, sizeof have - 1, f);
    (void)fclose(f);
    assert_string_equal(have, text);
}

static void install_tiny(struct world *w)
{
    struct xi_digest want;
    char hex[XI_DIGEST_HEX + 1];
    FILE *f = fixture_write(fixture_entries, FIXTURE_ENTRIES, &want, NULL);

    assert_non_null(f);
    size_t n = read_all(f, bytes, sizeof bytes);
    if (upload(w, bytes, n) != XI_OK)
        fail_msg("%s", w->err.msg);
    assert_int_equal(w->existed, 0);
    assert_string_equal(w->name, "tiny");
    xi_digest_text(&want, hex);
    assert_string_equal(w->digest, hex);
    xi_store_links(w->store, "default", w->digest, on_links, w);
    if (answer(w) != XI_OK)
        fail_msg("%s", w->err.msg);
    expect_file(w, "variants/m.xref", FIXTURE_MODEL);
    expect_file(w, "assets/labels.txt", "cat\ndog\n");
    expect_file(w, "assets/empty", "");
    expect_file(w, "manifest.json", FIXTURE_MANIFEST);
    assert_int_equal(upload(w, bytes, n), XI_OK);
    assert_int_equal(w->existed, 1);
    (void)fclose(f);
}

static void a_package_comes_in(void **state)
{
    install_tiny(*state);
}

/* As the service does it: the host is nobody. */
static void a_host_of_another_user(void **state)
{
    struct world *w = *state;

    if (geteuid() != 0)
        skip();
    configure(w, XI_HOST_PROGRAM, 65534);
    install_tiny(w);
}

static void broken_archives_stay_out(void **state)
{
    struct world *w = *state;
    struct xi_store_stats stats;
    FILE *f = fixture_package();

    assert_non_null(f);
    size_t n = read_all(f, bytes, sizeof bytes);
    bytes[n] = 'x'; /* trailing data */
    assert_int_equal(upload(w, bytes, n + 1), XI_EPACKAGE);
    assert_true(w->err.msg[0] != '\0');
    assert_int_equal(upload(w, bytes, n / 2), XI_EPACKAGE);
    assert_int_equal(upload(w, "not an archive", 14), XI_EPACKAGE);
    bytes[4096 + 1] ^= 1; /* inside the manifest */
    assert_true(upload(w, bytes, n) != XI_OK);
    xi_store_stats(w->store, &stats);
    assert_int_equal(stats.packages, 0);
    assert_int_equal(stats.unreferenced_blobs, 0);
    bytes[4096 + 1] ^= 1;
    assert_int_equal(upload(w, bytes, n), XI_OK);
    (void)fclose(f);
}

static void no_host_program(void **state)
{
    struct world *w = *state;

    configure(w, "/nowhere/xinfer-host", 0);
    assert_int_equal(upload(w, "x", 1), XI_EHOST);
    assert_non_null(strstr(w->err.msg, "cannot start xinfer-host"));
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(a_package_comes_in),
        T(a_host_of_another_user),
        T(broken_archives_stay_out),
        T(no_host_program),
    };

    return cmocka_run_group_tests_name("install_host", tests, NULL, NULL);
}
