#define _GNU_SOURCE
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include <cmocka.h>

#include "base/platform/process.h"
#include "daemon/core/install_commit.h"
#include "daemon/core/store_fixture.h"

/* FIPS 180-4's own example: the SHA-256 of "abc". */
#define ABC_HEX  "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
#define ABC_BLOB "blobs/sha256/ba/" ABC_HEX

static const struct fixture night = {
    .name = "night",
    .version = "1.2.0",
    .path = {"manifest.json", "variants/cpu/model.ref", "assets/labels.txt"},
    .content = {"{\"xpkg\":1}", "abc", "cat\ndog\n"},
};

/* The disk as the linker's --wrap hands it to us: what was called, and where it becomes full. */
static struct {
    char calls[256]; /* f: a file made durable, r: renamed, d: a folder made durable */
    size_t n;
    int full_at; /* this call fails with ENOSPC; -1: none */
} disk = {.full_at = -1};

static int disk_call(char what)
{
    if (disk.n < sizeof disk.calls - 1)
        disk.calls[disk.n] = what;
    if ((int)disk.n++ != disk.full_at)
        return 0;
    errno = ENOSPC;
    return -1;
}

static void disk_reset(int full_at)
{
    memset(&disk, 0, sizeof disk);
    disk.full_at = full_at;
}

int __real_fsync(int fd);
int __wrap_fsync(int fd);
int __wrap_fsync(int fd)
{
    struct stat st;

    assert_int_equal(fstat(fd, &st), 0);
    return disk_call(S_ISDIR(st.st_mode) ? 'd' : 'f') == 0 ? __real_fsync(fd) : -1;
}

int __real_renameat(int from_dir, const char *from, int to_dir, const char *to);
int __wrap_renameat(int from_dir, const char *from, int to_dir, const char *to);
int __wrap_renameat(int from_dir, const char *from, int to_dir, const char *to)
{
    return disk_call('r') == 0 ? __real_renameat(from_dir, from, to_dir, to) : -1;
}

struct opened {
    struct xi_store_disk disk;
    struct xi_catalogue *catalogue;
};

static struct opened open_store(const char *dir)
{
    struct opened o = {0};
    struct xi_err err = {0};

    if (xi_store_disk_open(&o.disk, dir, &err) != XI_OK ||
        xi_catalogue_open(dir, &o.catalogue, &err) != XI_OK ||
        xi_store_disk_sweep(&o.disk, o.catalogue, &err) != XI_OK)
        fail_msg("%s", err.msg);
    return o;
}

static void close_store(struct opened *o)
{
    xi_catalogue_close(o->catalogue);
    xi_store_disk_close(&o->disk);
}

/* staging/t/out with what a host leaves. */
static void stage(struct opened *o, const struct fixture *f, const struct xi_package_record *r)
{
    XI_ASSERT(xi_beneath_mkdirs(o->disk.dir, "staging/t/out", 0700) == 0);
    int out = xi_beneath_open(o->disk.dir, "staging/t/out", O_RDONLY | O_DIRECTORY, 0);
    fixture_leave(out, f, r);
    (void)close(out);
}

static struct xi_install_commit plan(struct opened *o, const struct xi_package_record *r)
{
    return (struct xi_install_commit){.disk = &o->disk,
                                      .catalogue = o->catalogue,
                                      .folder = "staging/t/out",
                                      .archive = r->digest,
                                      .archive_bytes = r->archive_bytes};
}

static size_t listed(struct opened *o)
{
    struct xi_package_row *rows = NULL;
    size_t n = 0;

    assert_int_equal(xi_catalogue_list(o->catalogue, &rows, &n, NULL), XI_OK);
    xi_catalogue_free_rows(rows, n);
    return n;
}

static void installs(void **state)
{
    char dir[64];
    struct xi_err err = {0};
    struct xi_package_record r = fixture_record(&night), got = {0};
    int existed = 7;

    (void)state;
    fixture_dir(dir);
    struct opened o = open_store(dir);
    stage(&o, &night, &r);
    struct xi_install_commit in = plan(&o, &r);
    assert_int_equal(xi_install_commit(&in, &got, &existed, &err), XI_OK);
    assert_int_equal(existed, 0);
    assert_string_equal(got.version, "1.2.0");
    assert_true(fixture_exists(dir, ABC_BLOB));
    xi_record_fini(&got);

    /* Once more: it was there. */
    stage(&o, &night, &r);
    assert_int_equal(xi_install_commit(&in, &got, &existed, &err), XI_OK);
    assert_int_equal(existed, 1);
    assert_int_equal(listed(&o), 1);
    xi_record_fini(&got);
    xi_record_fini(&r);
    close_store(&o);
    fixture_dir_remove(dir);
}

/* What a power cut needs: no name before its bytes, no row before the names. The catalogue's own
 * syncs come behind, in SQLite. */
static void durable_in_this_order(void **state)
{
    char dir[64];
    struct xi_package_record r = fixture_record(&night), got = {0};
    int existed;

    (void)state;
    fixture_dir(dir);
    struct opened o = open_store(dir);
    stage(&o, &night, &r);
    struct xi_install_commit in = plan(&o, &r);
    disk_reset(-1);
    assert_int_equal(xi_install_commit(&in, &got, &existed, NULL), XI_OK);
    /* Three files, their three folders (the digests begin differently), the folder of those. */
    assert_string_equal(disk.calls, "frfrfrdddd");
    xi_record_fini(&got);
    xi_record_fini(&r);
    close_store(&o);
    fixture_dir_remove(dir);
}

static void a_full_disk_installs_nothing(void **state)
{
    int call = 0;
    enum xi_rc rc = XI_EDISK;

    (void)state;
    for (; rc != XI_OK; call++) {
        char dir[64];
        struct xi_err err = {0};
        struct xi_package_record r = fixture_record(&night), got = {0};
        int existed;
        fixture_dir(dir);
        struct opened o = open_store(dir);
        stage(&o, &night, &r);
        struct xi_install_commit in = plan(&o, &r);
        disk_reset(call);
        rc = xi_install_commit(&in, &got, &existed, &err);
        disk_reset(-1);
        xi_record_fini(&got);
        if (rc != XI_OK) {
            assert_int_equal(rc, XI_EDISK);
            assert_non_null(strstr(err.msg, "No space left on device"));
            assert_non_null(strstr(err.msg, "bytes are free"));
            assert_int_equal(listed(&o), 0);
            stage(&o, &night, &r);
            assert_int_equal(xi_install_commit(&in, &got, &existed, &err), XI_OK);
            xi_record_fini(&got);
        }
        assert_int_equal(listed(&o), 1);
        xi_record_fini(&r);
        close_store(&o);
        fixture_dir_remove(dir);
    }
    assert_int_equal(call, 10 + 1); /* each of the ten calls above, and one that went well */
}

struct fuse {
    int left;
};

static void burn(void *ctx)
{
    struct fuse *fuse = ctx;

    if (fuse->left-- == 0)
        (void)raise(SIGKILL);
}

/* In a child: install, and die at step `fuse`. 1: it was killed, 0: it came to the end. */
static int install_and_die(const char *dir, int steps)
{
    int code = 0, signo = 0;
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0) {
        struct fuse fuse = {.left = steps};
        struct xi_package_record r = fixture_record(&night), got = {0};
        struct opened o = open_store(dir);
        int existed;
        stage(&o, &night, &r);
        struct xi_install_commit in = plan(&o, &r);
        in.at_step = burn;
        in.ctx = &fuse;
        _exit(xi_install_commit(&in, &got, &existed, NULL) == XI_OK ? 0 : 1);
    }
    while (!xi_process_reap(pid, &code, &signo))
        (void)nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    assert_true(signo == SIGKILL || code == 0);
    return signo == SIGKILL;
}

/* A listed package is whole: each of its files can be linked. */
static void check_listed_is_whole(struct opened *o)
{
    struct xi_package_record r = {0};
    struct xi_err err = {0};
    char digest[XI_DIGEST_HEX + 1];

    if (listed(o) == 0)
        return;
    assert_int_equal(xi_catalogue_find(o->catalogue, "night", digest, &r, &err), XI_OK);
    assert_int_equal(xi_store_disk_links(&o->disk, "links", digest, &r, &err), XI_OK);
    xi_record_fini(&r);
}

static void survives_a_kill_at_every_step(void **state)
{
    int steps = 0, killed = 1;

    (void)state;
    for (; killed; steps++) {
        char dir[64];
        struct xi_err err = {0};
        struct xi_package_record r = fixture_record(&night), got = {0};
        int existed;
        uint64_t unreferenced = 99;
        fixture_dir(dir);
        killed = install_and_die(dir, steps);

        struct opened o = open_store(dir);
        check_listed_is_whole(&o);
        assert_false(fixture_exists(dir, "staging/t"));
        size_t before = listed(&o);
        stage(&o, &night, &r);
        struct xi_install_commit in = plan(&o, &r);
        assert_int_equal(xi_install_commit(&in, &got, &existed, &err), XI_OK);
        assert_int_equal(existed, before);
        assert_int_equal(listed(&o), 1);
        assert_int_equal(xi_store_disk_collect(&o.disk, o.catalogue, 0, &unreferenced, &err),
                         XI_OK);
        assert_int_equal(unreferenced, 0);
        check_listed_is_whole(&o);
        xi_record_fini(&got);
        xi_record_fini(&r);
        close_store(&o);
        fixture_dir_remove(dir);
    }
    /* Three a file, three around them, and the run that came to its end. */
    assert_int_equal(steps, 3 * FIXTURE_FILES + 3 + 1);
}

/* Installs what `spoil` made of a good package; nothing of it may be listed. */
static void refused(void (*spoil)(struct opened *, struct xi_package_record *), enum xi_rc want,
                    const char *words)
{
    char dir[64];
    struct xi_err err = {0};
    struct xi_package_record r = fixture_record(&night), got = {0};
    int existed;

    fixture_dir(dir);
    struct opened o = open_store(dir);
    struct xi_install_commit in = plan(&o, &r);
    stage(&o, &night, &r);
    spoil(&o, &r);
    assert_int_equal(xi_install_commit(&in, &got, &existed, &err), want);
    if (strstr(err.msg, words) == NULL)
        fail_msg("\"%s\" does not say \"%s\"", err.msg, words);
    assert_int_equal(listed(&o), 0);
    xi_record_fini(&r);
    close_store(&o);
    fixture_dir_remove(dir);
}

static void restage(struct opened *o, const struct xi_package_record *r)
{
    stage(o, &night, r);
}

static void spoil_bytes(struct opened *o, struct xi_package_record *r)
{
    (void)r;
    fixture_write(o->disk.dir, "staging/t/out/1", "abd", 3);
}

static void spoil_size(struct opened *o, struct xi_package_record *r)
{
    (void)r;
    fixture_write(o->disk.dir, "staging/t/out/1", "abcd", 4);
}

static void spoil_missing(struct opened *o, struct xi_package_record *r)
{
    (void)r;
    assert_int_equal(unlinkat(o->disk.dir, "staging/t/out/2", 0), 0);
}

static void spoil_symlink(struct opened *o, struct xi_package_record *r)
{
    spoil_missing(o, r);
    assert_int_equal(symlinkat("/etc/passwd", o->disk.dir, "staging/t/out/2"), 0);
}

static void spoil_fifo(struct opened *o, struct xi_package_record *r)
{
    spoil_missing(o, r);
    assert_int_equal(mkfifoat(o->disk.dir, "staging/t/out/2", 0600), 0);
}

static void spoil_second_name(struct opened *o, struct xi_package_record *r)
{
    (void)r;
    assert_int_equal(linkat(o->disk.dir, "staging/t/out/1", o->disk.dir, "staging/t/out/keep", 0),
                     0);
}

static void spoil_digest(struct opened *o, struct xi_package_record *r)
{
    r->digest.bytes[0] ^= 1;
    restage(o, r);
}

static void spoil_path_twice(struct opened *o, struct xi_package_record *r)
{
    memcpy(r->blobs[2].path, r->blobs[1].path, sizeof r->blobs[2].path);
    restage(o, r);
}

static void spoil_path_is_folder(struct opened *o, struct xi_package_record *r)
{
    (void)snprintf(r->blobs[2].path, sizeof r->blobs[2].path, "variants/cpu");
    restage(o, r);
}

static void spoil_larger_than_archive(struct opened *o, struct xi_package_record *r)
{
    r->blobs[2].bytes = 1ull << 33;
    restage(o, r);
}

static void spoil_record_cut(struct opened *o, struct xi_package_record *r)
{
    (void)r;
    fixture_write(o->disk.dir, "staging/t/out/record", "XPR1", 4);
}

static void spoil_record_huge(struct opened *o, struct xi_package_record *r)
{
    int fd = openat(o->disk.dir, "staging/t/out/record", O_WRONLY | O_CLOEXEC);

    (void)r;
    assert_int_equal(ftruncate(fd, (off_t)XI_RECORD_BYTES_MAX + 1), 0);
    (void)close(fd);
}

static void believes_no_host(void **state)
{
    (void)state;
    refused(spoil_bytes, XI_EDIGEST, "variants/cpu/model.ref has SHA-256 a52d159f262b");
    refused(spoil_size, XI_EDIGEST, "has 4 bytes, the package says 3");
    refused(spoil_missing, XI_EPROTO, "no usable file \"2\"");
    refused(spoil_symlink, XI_EPROTO, "no usable file \"2\"");
    refused(spoil_fifo, XI_EPROTO, "no plain file");
    refused(spoil_second_name, XI_EPROTO, "no plain file");
    refused(spoil_digest, XI_EDIGEST, "not that of the uploaded file");
    refused(spoil_path_twice, XI_EPROTO, "clashes");
    refused(spoil_path_is_folder, XI_EPROTO, "clashes");
    refused(spoil_larger_than_archive, XI_EPROTO, "the archive they came in");
    refused(spoil_record_cut, XI_EPROTO, "package record");
    refused(spoil_record_huge, XI_EPROTO, "larger than");
}

/* A signed package's digest can't be recomputed here: but it can't take the place of another. */
static void no_other_files_under_a_taken_digest(void **state)
{
    char dir[64];
    struct xi_err err = {0};
    struct fixture evil = night;
    struct xi_package_record r = fixture_record(&night), got = {0};
    int existed;

    (void)state;
    fixture_dir(dir);
    struct opened o = open_store(dir);
    struct xi_install_commit in = plan(&o, &r);
    stage(&o, &night, &r);
    assert_int_equal(xi_install_commit(&in, &got, &existed, &err), XI_OK);
    xi_record_fini(&got);

    evil.content[1] = "abd";
    struct xi_package_record lie = fixture_record(&evil);
    lie.digest = r.digest;
    lie.flags = XI_RECORD_SIGNED;
    stage(&o, &evil, &lie);
    assert_int_equal(xi_install_commit(&in, &got, &existed, &err), XI_EDIGEST);
    assert_non_null(strstr(err.msg, "has other files"));
    xi_record_fini(&r);
    xi_record_fini(&lie);
    close_store(&o);
    fixture_dir_remove(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(installs),
        cmocka_unit_test(durable_in_this_order),
        cmocka_unit_test(a_full_disk_installs_nothing),
        cmocka_unit_test(survives_a_kill_at_every_step),
        cmocka_unit_test(believes_no_host),
        cmocka_unit_test(no_other_files_under_a_taken_digest),
    };

    return cmocka_run_group_tests_name("install_commit", tests, NULL, NULL);
}
