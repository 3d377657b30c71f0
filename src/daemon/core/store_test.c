#define _GNU_SOURCE
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>

#include <cmocka.h>
#include <sqlite3.h>

#include "daemon/core/install_commit.h"
#include "daemon/core/store_fixture.h"
#include "daemon/core/store_impl.h"

struct world {
    uv_loop_t loop;
    char dir[64];
    struct xi_store *store;
    /* what the last callback said */
    int called;
    struct xi_err err;
    char digest[XI_DIGEST_HEX + 1], version[72], link_dir[600], cache_dir[900];
    struct xi_desired desired[4];
    size_t n;
};

static void world_open(struct world *w)
{
    struct xi_err err = {0};

    if (xi_store_open(&w->loop, w->dir, &w->store, &err) != XI_OK)
        fail_msg("%s", err.msg);
}

static int setup(void **state)
{
    struct world *w = calloc(1, sizeof *w);

    assert_int_equal(uv_loop_init(&w->loop), 0);
    fixture_dir(w->dir);
    world_open(w);
    *state = w;
    return 0;
}

static void world_close(struct world *w)
{
    xi_store_close(w->store);
    assert_int_equal(uv_run(&w->loop, UV_RUN_DEFAULT), 0);
    w->store = NULL;
}

static int teardown(void **state)
{
    struct world *w = *state;

    if (w->store != NULL)
        world_close(w);
    assert_int_equal(uv_loop_close(&w->loop), 0);
    fixture_dir_remove(w->dir);
    free(w);
    return 0;
}

static enum xi_rc answer(struct world *w)
{
    while (!w->called)
        (void)uv_run(&w->loop, UV_RUN_ONCE);
    w->called = 0;
    return w->err.rc;
}

static void heard(struct world *w, const struct xi_err *err)
{
    assert_int_equal(w->called, 0);
    w->called = 1;
    w->err = err ? *err : (struct xi_err){0};
}

static void on_plain(void *ctx, const struct xi_err *err)
{
    heard(ctx, err);
}

static void on_record(void *ctx, const char *digest, struct xi_package_record *record,
                      const struct xi_err *err)
{
    struct world *w = ctx;

    heard(w, err);
    assert_int_equal(err == NULL, record != NULL);
    (void)snprintf(w->digest, sizeof w->digest, "%s", digest ? digest : "");
    (void)snprintf(w->version, sizeof w->version, "%s", record ? record->version : "");
    xi_record_free(record);
}

static void on_list(void *ctx, const struct xi_package_row *rows, size_t n,
                    const struct xi_err *err)
{
    struct world *w = ctx;

    heard(w, err);
    w->n = n;
    if (n > 0)
        (void)snprintf(w->version, sizeof w->version, "%s", rows[n - 1].record->version);
}

static void on_links(void *ctx, const char *link_dir, const char *cache_dir,
                     const struct xi_err *err)
{
    struct world *w = ctx;

    heard(w, err);
    (void)snprintf(w->link_dir, sizeof w->link_dir, "%s", link_dir ? link_dir : "");
    (void)snprintf(w->cache_dir, sizeof w->cache_dir, "%s", cache_dir ? cache_dir : "");
}

static void on_desired(void *ctx, const struct xi_desired *rows, size_t n, const struct xi_err *err)
{
    struct world *w = ctx;

    heard(w, err);
    w->n = n;
    for (size_t i = 0; i < n && i < 4; i++)
        w->desired[i] = rows[i];
}

/* Straight into the catalogue, while the store's thread has nothing to do. */
static void put(struct world *w, const char *name, const char *version, const char *content)
{
    struct fixture f = {.name = name,
                        .version = version,
                        .path = {"manifest.json", "variants/cpu/model.ref", "assets/labels.txt"},
                        .content = {version, content, "cat\ndog\n"}};
    struct xi_package_record r = fixture_record(&f), got = {0};
    struct xi_err err = {0};
    int existed;

    XI_ASSERT(xi_beneath_mkdirs(w->store->disk.dir, "staging/t/out", 0700) == 0);
    int out = xi_beneath_open(w->store->disk.dir, "staging/t/out", O_RDONLY | O_DIRECTORY, 0);
    fixture_leave(out, &f, &r);
    (void)close(out);
    struct xi_install_commit in = {.disk = &w->store->disk,
                                   .catalogue = w->store->catalogue,
                                   .folder = "staging/t/out",
                                   .archive = r.digest,
                                   .archive_bytes = r.archive_bytes};
    if (xi_install_commit(&in, &got, &existed, &err) != XI_OK)
        fail_msg("%s", err.msg);
    xi_digest_text(&got.digest, w->digest);
    xi_record_fini(&got);
    xi_record_fini(&r);
}

static enum xi_rc find(struct world *w, const char *reference)
{
    xi_store_find(w->store, reference, on_record, w);
    return answer(w);
}

static void finds_by_every_name(void **state)
{
    struct world *w = *state;
    char digest[XI_DIGEST_HEX + 1], with_prefix[80];

    assert_int_equal(find(w, "night-detector"), XI_ENOENT);
    assert_non_null(strstr(w->err.hint, "no package is installed yet"));
    put(w, "night-detector", "1.9.0", "a");
    put(w, "night-detector", "1.10.0", "b");
    (void)snprintf(digest, sizeof digest, "%s", w->digest);
    put(w, "night-detector", "1.10.0-rc.1", "c");
    put(w, "other", "2.0.0", "d");

    /* SemVer 2.0.0 §11: 1.9.0 < 1.10.0-rc.1 < 1.10.0 */
    assert_int_equal(find(w, "night-detector"), XI_OK);
    assert_string_equal(w->version, "1.10.0");
    assert_string_equal(w->digest, digest);
    assert_int_equal(find(w, "night-detector:1.9.0"), XI_OK);
    assert_string_equal(w->version, "1.9.0");
    assert_int_equal(find(w, digest), XI_OK);
    assert_string_equal(w->version, "1.10.0");
    (void)snprintf(with_prefix, sizeof with_prefix, "sha256:%s", digest);
    assert_int_equal(find(w, with_prefix), XI_OK);
    assert_string_equal(w->digest, digest);

    assert_int_equal(find(w, "night-detectro"), XI_ENOENT);
    assert_string_equal(w->err.hint, "did you mean \"night-detector\"?");
    assert_int_equal(find(w, "night-detector:3.0.0"), XI_ENOENT);
    assert_string_equal(w->err.hint, "the newest installed is night-detector:1.10.0");
    assert_int_equal(find(w, "../etc/passwd"), XI_EINVAL);
    assert_int_equal(find(w, "night-detector:latest"), XI_EINVAL);
    assert_int_equal(find(w, ""), XI_EINVAL);
    digest[0] = digest[0] == '0' ? '1' : '0';
    assert_int_equal(find(w, digest), XI_ENOENT);

    xi_store_list(w->store, on_list, w);
    assert_int_equal(answer(w), XI_OK);
    assert_int_equal(w->n, 4);
    assert_string_equal(w->version, "2.0.0");
}

static struct xi_desired desired(const char *id, const char *digest, const char *name)
{
    struct xi_desired d = {.options = {.tenant = "default",
                                       .device = "auto",
                                       .precision = "f16",
                                       .variant = "cpu",
                                       .instances = 2,
                                       .threads = 3,
                                       .priority = XI_PRIORITY_BATCH,
                                       .golden = 1,
                                       .max_batch = 8,
                                       .max_delay_us = 2500,
                                       .max_shape = "input=1,3,640,640",
                                       .isolation = XI_ISOLATE_TENANT,
                                       .pinned = 1,
                                       .lazy = 1,
                                       .keep_alive_s = 300,
                                       .sequence_idle_s = 20,
                                       .cache_bytes = 5ull << 30}};

    (void)snprintf(d.id, sizeof d.id, "%s", id);
    (void)snprintf(d.digest, sizeof d.digest, "%s", digest);
    (void)snprintf(d.options.name, sizeof d.options.name, "%s", name);
    return d;
}

static void desired_state_survives(void **state)
{
    struct world *w = *state;
    const char *one = "11111111-1111-4111-8111-111111111111";
    const char *two = "22222222-2222-4222-8222-222222222222";

    put(w, "night", "1.0.0", "a");
    struct xi_desired d = desired(one, w->digest, "night"), e = desired(two, w->digest, "late");
    xi_store_desire(w->store, &d, on_plain, w);
    assert_int_equal(answer(w), XI_OK);
    xi_store_desire(w->store, &e, on_plain, w);
    assert_int_equal(answer(w), XI_OK);
    d.options.instances = 4; /* the same id again: replaced, and still first */
    xi_store_desire(w->store, &d, on_plain, w);
    assert_int_equal(answer(w), XI_OK);
    world_close(w);
    struct stat st;
    char path[96];
    (void)snprintf(path, sizeof path, "%s/catalogue.db", w->dir);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    world_open(w);

    xi_store_desired(w->store, on_desired, w);
    assert_int_equal(answer(w), XI_OK);
    assert_int_equal(w->n, 2);
    assert_memory_equal(&w->desired[0], &d, sizeof d);
    assert_memory_equal(&w->desired[1], &e, sizeof e);

    xi_store_undesire(w->store, one, on_plain, w);
    assert_int_equal(answer(w), XI_OK);
    xi_store_undesire(w->store, one, on_plain, w);
    assert_int_equal(answer(w), XI_OK);
    xi_store_desired(w->store, on_desired, w);
    assert_int_equal(answer(w), XI_OK);
    assert_int_equal(w->n, 1);
    assert_string_equal(w->desired[0].id, two);

    d.digest[0] = d.digest[0] == '0' ? '1' : '0';
    xi_store_desire(w->store, &d, on_plain, w);
    assert_int_equal(answer(w), XI_ENOENT);
}

/* What the first release left: its schema word for word, with one session. */
static const char first_schema[] =
    "CREATE TABLE package (digest TEXT PRIMARY KEY, name TEXT NOT NULL, version TEXT NOT NULL,"
    " bytes INTEGER NOT NULL, installed_at_ms INTEGER NOT NULL, record BLOB NOT NULL) STRICT;"
    "CREATE TABLE package_blob (digest TEXT NOT NULL REFERENCES package(digest) ON DELETE CASCADE,"
    " sha256 TEXT NOT NULL, bytes INTEGER NOT NULL, PRIMARY KEY (digest, sha256)) STRICT;"
    "CREATE TABLE desired (seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE,"
    " digest TEXT NOT NULL REFERENCES package(digest), tenant TEXT NOT NULL, name TEXT NOT NULL,"
    " device TEXT NOT NULL, precision TEXT NOT NULL, variant TEXT NOT NULL,"
    " instances INTEGER NOT NULL, threads INTEGER NOT NULL, priority INTEGER NOT NULL,"
    " golden INTEGER NOT NULL) STRICT;"
    "INSERT INTO package VALUES ('d', 'night', '1.0.0', 1, 1, x'00');"
    "INSERT INTO desired VALUES (1, '11111111-1111-4111-8111-111111111111', 'd', 'acme', 'night',"
    " 'cpu', 'f32', '', 2, 1, 0, 1);"
    "PRAGMA user_version = 1;";

static void older_rows_come_with_defaults(void **state)
{
    struct world *w = *state;
    char path[96];
    sqlite3 *db;

    world_close(w);
    (void)snprintf(path, sizeof path, "%s/catalogue.db", w->dir);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, first_schema, NULL, NULL, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    world_open(w);
    xi_store_desired(w->store, on_desired, w);
    assert_int_equal(answer(w), XI_OK);
    assert_int_equal(w->n, 1);
    struct xi_desired want = {.id = "11111111-1111-4111-8111-111111111111",
                              .digest = "d",
                              .options = {.tenant = "acme",
                                          .name = "night",
                                          .device = "cpu",
                                          .precision = "f32",
                                          .instances = 2,
                                          .threads = 1,
                                          .priority = XI_PRIORITY_REALTIME,
                                          .golden = 1}};
    assert_memory_equal(&w->desired[0], &want, sizeof want);
    assert_null(xi_store_setting(w->store, "tenants"));
}

static struct xi_peak peak(const char *digest, uint32_t batch, uint32_t instances, uint64_t bytes)
{
    struct xi_peak p = {.variant = "cpu",
                        .engine_build = "openvino-2026.4",
                        .device = "CPU",
                        .batch = batch,
                        .instances = instances,
                        .bytes = bytes};

    (void)snprintf(p.digest, sizeof p.digest, "%s", digest);
    return p;
}

static uint64_t asked(struct world *w, uint32_t batch, uint32_t instances, int *ret_exact)
{
    struct xi_peak key = peak(w->digest, batch, instances, 0);

    return xi_store_peak(w->store, &key, ret_exact);
}

static void peaks_are_remembered(void **state)
{
    struct world *w = *state;
    struct xi_peak p;
    int exact = 7;

    put(w, "night", "1.0.0", "abc");
    assert_int_equal(asked(w, 1, 2, &exact), 0);
    assert_int_equal(exact, 0);
    p = peak(w->digest, 1, 2, 300);
    xi_store_note_peak(w->store, &p);
    assert_int_equal(asked(w, 1, 2, &exact), 300); /* before any disk */
    assert_int_equal(exact, 1);
    p = peak(w->digest, 8, 4, 900);
    xi_store_note_peak(w->store, &p);
    p = peak(w->digest, 4, 4, 700);
    xi_store_note_peak(w->store, &p);
    p = peak(w->digest, 1, 2, 250); /* a smaller figure: 300 was really needed once */
    xi_store_note_peak(w->store, &p);
    p = peak("not-installed", 1, 1, 5); /* can't be written: told in the log, harms nothing */
    xi_store_note_peak(w->store, &p);
    world_close(w);
    world_open(w);
    assert_int_equal(asked(w, 1, 2, &exact), 300);
    assert_int_equal(exact, 1);
    assert_int_equal(asked(w, 2, 2, &exact), 700); /* bounded by the next larger one */
    assert_int_equal(exact, 0);
    assert_int_equal(asked(w, 9, 1, &exact), 0);

    p = peak(w->digest, 1, 2, 0);
    (void)snprintf(p.engine_build, sizeof p.engine_build, "openvino-2027.1");
    assert_int_equal(xi_store_peak(w->store, &p, &exact), 0);
    xi_store_remove(w->store, w->digest, on_plain, w);
    assert_int_equal(answer(w), XI_OK);
    world_close(w);
    world_open(w);
    assert_int_equal(asked(w, 1, 2, &exact), 0);
}

static void settings_survive(void **state)
{
    struct world *w = *state;
    static char large[XI_SETTING_MAX + 2];

    xi_store_setting_put(w->store, "tenants", "{\"acme\":1}", on_plain, w);
    assert_null(xi_store_setting(w->store, "tenants")); /* not before it is durable */
    assert_int_equal(answer(w), XI_OK);
    xi_store_setting_put(w->store, "log_level", "\"info\"", NULL, NULL);
    xi_store_setting_put(w->store, "tenants", "{\"acme\":2}", on_plain, w);
    assert_int_equal(answer(w), XI_OK);
    assert_string_equal(xi_store_setting(w->store, "tenants"), "{\"acme\":2}");
    world_close(w);
    world_open(w);
    assert_string_equal(xi_store_setting(w->store, "tenants"), "{\"acme\":2}");
    assert_string_equal(xi_store_setting(w->store, "log_level"), "\"info\"");

    xi_store_setting_put(w->store, "tenants", NULL, on_plain, w);
    assert_int_equal(answer(w), XI_OK);
    assert_null(xi_store_setting(w->store, "tenants"));
    xi_store_setting_put(w->store, "../x", "1", on_plain, w);
    assert_int_equal(answer(w), XI_EINVAL);
    memset(large, 'x', XI_SETTING_MAX + 1);
    xi_store_setting_put(w->store, "log_level", large, on_plain, w);
    assert_int_equal(answer(w), XI_ETOOBIG);
    for (unsigned i = 1; i < XI_SETTINGS_MAX; i++) {
        char key[16];
        (void)snprintf(key, sizeof key, "k%u", i);
        xi_store_setting_put(w->store, key, "1", on_plain, w);
        assert_int_equal(answer(w), XI_OK);
    }
    xi_store_setting_put(w->store, "one-more", "1", on_plain, w);
    assert_int_equal(answer(w), XI_ETOOBIG);
    world_close(w);
    world_open(w);
    assert_string_equal(xi_store_setting(w->store, "log_level"), "\"info\"");
}

static void removes_what_nobody_needs(void **state)
{
    struct world *w = *state;
    char first[XI_DIGEST_HEX + 1];
    struct xi_store_stats stats;

    /* Both have the same labels: that blob stays until the second goes. "abc" is only in the
     * first; its name is FIPS 180-4's example. */
    put(w, "night", "1.0.0", "abc");
    (void)snprintf(first, sizeof first, "%s", w->digest);
    put(w, "night", "2.0.0", "xyz");
    const char *abc =
        "blobs/sha256/ba/ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_true(fixture_exists(w->dir, abc));

    struct xi_desired d = desired("11111111-1111-4111-8111-111111111111", first, "camera");
    xi_store_desire(w->store, &d, on_plain, w);
    assert_int_equal(answer(w), XI_OK);
    xi_store_links(w->store, "default", first, on_links, w);
    assert_int_equal(answer(w), XI_OK);
    xi_store_remove(w->store, first, on_plain, w);
    assert_int_equal(answer(w), XI_ECONFLICT);
    assert_string_equal(w->err.hint, "unload it first: xinfer unload camera");
    assert_true(fixture_exists(w->dir, abc));

    xi_store_undesire(w->store, d.id, on_plain, w);
    assert_int_equal(answer(w), XI_OK);
    xi_store_remove(w->store, first, on_plain, w);
    assert_int_equal(answer(w), XI_OK);
    assert_false(fixture_exists(w->dir, abc));
    char path[128];
    (void)snprintf(path, sizeof path, "links/%s", first);
    assert_false(fixture_exists(w->dir, path));
    (void)snprintf(path, sizeof path, "cache/default/%s", first);
    assert_false(fixture_exists(w->dir, path));
    xi_store_remove(w->store, first, on_plain, w);
    assert_int_equal(answer(w), XI_ENOENT);
    xi_store_remove(w->store, "../../etc", on_plain, w);
    assert_int_equal(answer(w), XI_EINVAL);

    xi_store_links(w->store, "default", w->digest, on_links, w);
    xi_store_stats(w->store, &stats);
    assert_int_equal(stats.packages, 1);
    assert_int_equal(stats.blob_bytes, strlen("2.0.0") + strlen("xyz") + strlen("cat\ndog\n"));
    assert_int_equal(stats.unreferenced_blobs, 0);
    assert_true(stats.free_bytes > 0 && stats.fsyncs > 0);
    assert_int_equal(answer(w), XI_OK);
}

static void makes_links_once(void **state)
{
    struct world *w = *state;
    char path[700];
    struct stat st;
    struct xi_store_folders want = {
        .tenant = "default", .digest = w->digest, .engine_build = "openvino 2026.4/x"};

    put(w, "night", "1.0.0", "abc");
    xi_store_prepare(w->store, &want, on_links, w);
    assert_int_equal(answer(w), XI_OK);
    (void)snprintf(path, sizeof path, "%s/variants/cpu/model.ref", w->link_dir);
    assert_int_equal(lstat(path, &st), 0);
    assert_true(S_ISREG(st.st_mode));
    assert_int_equal(st.st_mode & 0777, 0444);
    assert_int_equal(st.st_nlink, 2);
    assert_non_null(strstr(w->cache_dir, "/openvino_2026.4_x"));
    assert_int_equal(access(w->cache_dir, W_OK), 0);
    ino_t inode = st.st_ino;

    xi_store_links(w->store, "default", w->digest, on_links, w);
    assert_int_equal(answer(w), XI_OK);
    assert_int_equal(lstat(path, &st), 0);
    assert_int_equal(st.st_ino, inode);
    assert_int_equal(st.st_nlink, 2);

    /* Somebody tidied up in there. */
    assert_int_equal(unlink(path), 0);
    xi_store_links(w->store, "default", w->digest, on_links, w);
    assert_int_equal(answer(w), XI_OK);
    assert_int_equal(lstat(path, &st), 0);

    xi_store_links(w->store, "../default", w->digest, on_links, w);
    assert_int_equal(answer(w), XI_EINVAL);
}

static void damaged_blob_is_told_and_repaired(void **state)
{
    struct world *w = *state;
    char blob[200];

    put(w, "night", "1.0.0", "abc");
    (void)snprintf(blob, sizeof blob,
                   "%s/blobs/sha256/ba/"
                   "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
                   w->dir);
    assert_int_equal(chmod(blob, 0600), 0);
    assert_int_equal(truncate(blob, 2), 0);
    xi_store_links(w->store, "default", w->digest, on_links, w);
    assert_int_equal(answer(w), XI_EDIGEST);
    assert_non_null(strstr(w->err.msg, "variants/cpu/model.ref is missing or damaged"));
    put(w, "night", "1.0.0", "abc");
    xi_store_links(w->store, "default", w->digest, on_links, w);
    assert_int_equal(answer(w), XI_OK);
    assert_int_equal(unlink(blob), 0);
    xi_store_links(w->store, "default", w->digest, on_links, w);
    assert_int_equal(answer(w), XI_EDIGEST);
}

static void one_daemon_a_directory(void **state)
{
    struct world *w = *state;
    struct xi_store *second = NULL;
    struct xi_err err = {0};
    char pid[32];

    assert_int_equal(xi_store_open(&w->loop, w->dir, &second, &err), XI_ELOCKED);
    (void)snprintf(pid, sizeof pid, "process %ld", (long)getpid());
    assert_non_null(strstr(err.msg, pid));
    assert_non_null(strstr(err.hint, "--state"));
}

static void refuses_what_is_no_directory(void **state)
{
    struct world *w = *state;
    struct xi_store *store = NULL;
    struct xi_err err = {0};
    char path[128];

    assert_int_equal(xi_store_open(&w->loop, "/proc/xinfer", &store, &err), XI_EDISK);
    assert_non_null(strstr(err.msg, "/proc/xinfer"));
    (void)snprintf(path, sizeof path, "%s/lock/deeper", w->dir);
    assert_int_equal(xi_store_open(&w->loop, path, &store, &err), XI_EDISK);
    assert_non_null(strstr(err.hint, "--state"));
}

static void overwrite_catalogue(struct world *w, const char *bytes, size_t n)
{
    char path[128];
    int dir = open(w->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    (void)snprintf(path, sizeof path, "%s/catalogue.db", w->dir);
    assert_true(fixture_exists(w->dir, "catalogue.db"));
    fixture_write(dir, "catalogue.db", bytes, n);
    (void)close(dir);
}

static void damaged_catalogue_is_kept(void **state)
{
    struct world *w = *state;
    struct xi_err err = {0};
    char noise[8192];

    put(w, "night", "1.0.0", "abc");
    world_close(w);
    memset(noise, 'x', sizeof noise);
    overwrite_catalogue(w, noise, sizeof noise);
    assert_int_equal(xi_store_open(&w->loop, w->dir, &w->store, &err), XI_EIO);
    assert_non_null(strstr(err.msg, "damaged"));
    assert_non_null(strstr(err.hint, "nothing was deleted"));
    assert_true(fixture_exists(w->dir, "blobs/sha256/ba"));
    char path[128];
    struct stat st;
    (void)snprintf(path, sizeof path, "%s/catalogue.db", w->dir);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_size, sizeof noise);
}

static void newer_catalogue_is_refused(void **state)
{
    struct world *w = *state;
    struct xi_err err = {0};
    char path[128];
    sqlite3 *db;

    world_close(w);
    (void)snprintf(path, sizeof path, "%s/catalogue.db", w->dir);
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, "PRAGMA user_version = 77", NULL, NULL, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    assert_int_equal(xi_store_open(&w->loop, w->dir, &w->store, &err), XI_EVERSION);
    assert_non_null(strstr(err.msg, "schema 77"));
}

static void count_plain(void *ctx, const struct xi_err *err)
{
    int *counts = ctx;

    counts[err == NULL ? 0 : err->rc == XI_EAGAIN ? 1 : 2]++;
}

static void hold(struct xi_store *store, struct xi_store_job *job)
{
    (void)store;
    (void)job;
    (void)usleep(200 * 1000); /* a slow fsync */
}

static void held(struct xi_store *store, struct xi_store_job *job)
{
    (void)store;
    (void)job;
}

/* The thread is busy: calls queue up to the cap, the rest is refused; every one is answered. */
static void queue_has_an_end(void **state)
{
    struct world *w = *state;
    struct xi_store_job slow = {.work = hold, .done = held};
    struct xi_store_stats stats;
    int counts[3] = {0}, extra = 5;

    xi_store_submit(w->store, &slow);
    (void)usleep(20 * 1000); /* until the thread has taken it */
    for (int i = 0; i < XI_STORE_JOBS_MAX + extra; i++)
        xi_store_undesire(w->store, "x", count_plain, counts);
    xi_store_stats(w->store, &stats);
    assert_int_equal(stats.queue, XI_STORE_JOBS_MAX);
    world_close(w); /* answers all of them */
    assert_int_equal(counts[0], XI_STORE_JOBS_MAX);
    assert_int_equal(counts[1], extra);
    assert_int_equal(counts[2], 0);
}

struct beat {
    uv_timer_t timer;
    int beats;
};

static void on_beat(uv_timer_t *timer)
{
    struct beat *b = timer->data;

    b->beats++;
}

/* A disk that takes 200 ms for an fsync stops the store's thread, never the loop. */
static void the_loop_turns_while_the_disk_is_slow(void **state)
{
    struct world *w = *state;
    struct xi_store_job slow = {.work = hold, .done = held};
    struct beat b = {.beats = 0};

    put(w, "night", "1.0.0", "abc");
    assert_int_equal(uv_timer_init(&w->loop, &b.timer), 0);
    b.timer.data = &b;
    assert_int_equal(uv_timer_start(&b.timer, on_beat, 1, 1), 0);
    xi_store_submit(w->store, &slow);
    assert_int_equal(find(w, "night"), XI_OK); /* waits behind it */
    assert_true(b.beats > 20);
    uv_close((uv_handle_t *)&b.timer, NULL);
    (void)uv_run(&w->loop, UV_RUN_NOWAIT); /* b is on the stack */
}

/* RLIMIT_FSIZE stands for a full disk: the catalogue can't grow by a byte. */
static void a_full_disk_is_told_and_harms_nothing(void **state)
{
    struct world *w = *state;
    const struct rlimit none = {.rlim_cur = 1024, .rlim_max = RLIM_INFINITY};
    struct rlimit before;

    put(w, "night", "1.0.0", "abc");
    struct xi_desired d = desired("11111111-1111-4111-8111-111111111111", w->digest, "night");
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    assert_true(signal(SIGXFSZ, SIG_IGN) != SIG_ERR);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &none), 0);
    xi_store_desire(w->store, &d, on_plain, w);
    enum xi_rc rc = answer(w);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_int_equal(rc, XI_EDISK);
    assert_non_null(strstr(w->err.msg, "desired state"));
    assert_non_null(strstr(w->err.hint, "make room"));

    xi_store_desire(w->store, &d, on_plain, w);
    assert_int_equal(answer(w), XI_OK);
    world_close(w);
    world_open(w);
    xi_store_desired(w->store, on_desired, w);
    assert_int_equal(answer(w), XI_OK);
    assert_int_equal(w->n, 1);
}

/* As an ordinary user in somebody else's directory. */
static void refuses_what_it_may_not_write(void **state)
{
    struct world *w = *state;
    struct xi_store *store = NULL;
    struct xi_err err = {0};
    char dir[64], inner[80];
    uid_t me = geteuid();

    fixture_dir(dir);
    assert_int_equal(chmod(dir, 0555), 0);
    (void)snprintf(inner, sizeof inner, "%s/state", dir);
    if (me == 0)
        assert_int_equal(seteuid(65534), 0);
    enum xi_rc inside = xi_store_open(&w->loop, inner, &store, NULL);
    enum xi_rc itself = xi_store_open(&w->loop, dir, &store, &err);
    if (me == 0)
        assert_int_equal(seteuid(me), 0);
    assert_int_equal(inside, XI_EDISK);
    assert_int_equal(itself, XI_EDISK);
    assert_non_null(strstr(err.msg, "Permission denied"));
    assert_non_null(strstr(err.hint, "--state"));
    fixture_dir_remove(dir);
}

static void start_sweeps_leftovers(void **state)
{
    struct world *w = *state;
    struct xi_store_stats stats;

    put(w, "night", "1.0.0", "abc");
    assert_int_equal(xi_beneath_mkdirs(w->store->disk.dir, "staging/dead/out", 0700), 0);
    assert_int_equal(xi_beneath_mkdirs(w->store->disk.dir, "links/.new-half/variants", 0755), 0);
    assert_int_equal(xi_beneath_mkdirs(w->store->disk.dir, "links/0123/variants", 0755), 0);
    assert_int_equal(xi_beneath_mkdirs(w->store->disk.dir, "blobs/sha256/00", 0700), 0);
    fixture_write(w->store->disk.dir, "blobs/sha256/00/00ff", "orphan", 6);
    world_close(w);
    world_open(w);
    assert_false(fixture_exists(w->dir, "staging/dead"));
    assert_false(fixture_exists(w->dir, "links/.new-half"));
    assert_false(fixture_exists(w->dir, "links/0123"));
    xi_store_stats(w->store, &stats);
    assert_int_equal(stats.unreferenced_blobs, 1);
    xi_store_remove(w->store, w->digest, on_plain, w);
    assert_int_equal(answer(w), XI_OK);
    assert_false(fixture_exists(w->dir, "blobs/sha256/00/00ff"));
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(finds_by_every_name),
        T(desired_state_survives),
        T(older_rows_come_with_defaults),
        T(peaks_are_remembered),
        T(settings_survive),
        T(removes_what_nobody_needs),
        T(makes_links_once),
        T(damaged_blob_is_told_and_repaired),
        T(one_daemon_a_directory),
        T(refuses_what_is_no_directory),
        T(damaged_catalogue_is_kept),
        T(newer_catalogue_is_refused),
        T(queue_has_an_end),
        T(start_sweeps_leftovers),
        T(the_loop_turns_while_the_disk_is_slow),
        T(a_full_disk_is_told_and_harms_nothing),
        T(refuses_what_it_may_not_write),
    };

    return cmocka_run_group_tests_name("store", tests, NULL, NULL);
}
