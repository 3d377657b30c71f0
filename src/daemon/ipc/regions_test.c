#define _GNU_SOURCE
#include "daemon/ipc/regions.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

struct room {
    struct xi_shm *shm;
    struct xi_regions *regions;
    char key[64], path[80];
    int fd;
};

static void open_room(struct room *r, uint64_t bytes)
{
    r->shm = xi_shm_new(0);
    r->regions = xi_regions_new(r->shm);
    assert_non_null(r->regions);
    (void)snprintf(r->key, sizeof r->key, "xi-regions-%d", (int)getpid());
    (void)snprintf(r->path, sizeof r->path, "/dev/shm/%s", r->key);
    r->fd = open(r->path, O_RDWR | O_CREAT | O_EXCL, 0600);
    assert_true(r->fd >= 0);
    assert_int_equal(ftruncate(r->fd, (off_t)bytes), 0);
}

static void close_room(struct room *r)
{
    assert_int_equal(close(r->fd), 0);
    (void)unlink(r->path);
    xi_regions_free(r->regions);
    xi_shm_free(r->shm);
}

static enum xi_rc reg(struct room *r, const char *tenant, const char *name, const char *key,
                      uint64_t offset, uint64_t bytes)
{
    struct xi_err err;

    return xi_regions_register(r->regions, tenant, name, key, offset, bytes, &err);
}

static enum xi_rc take(struct room *r, const char *tenant, const char *name, uint64_t offset,
                       uint64_t bytes, int writable)
{
    struct xi_segment *s = NULL;
    struct xi_err err;
    uint64_t at = 0;
    enum xi_rc rc =
        xi_region_take(r->regions, tenant, name, offset, bytes, writable, &s, &at, &err);

    xi_segment_put(s);
    return rc;
}

struct seen {
    uint32_t n;
    char name[64], key[64];
    uint64_t offset, bytes;
};

static void see(void *ctx, const struct xi_region_view *v)
{
    struct seen *s = ctx;

    s->n++;
    (void)snprintf(s->name, sizeof s->name, "%s", v->name);
    (void)snprintf(s->key, sizeof s->key, "%s", v->key);
    s->offset = v->offset;
    s->bytes = v->bytes;
}

static void region_is_its_tenants_until_it_is_unregistered(void **state)
{
    struct seen seen = {0};
    struct room r;

    (void)state;
    open_room(&r, 8192);
    assert_int_equal(reg(&r, "a", "in put:0", r.key, 100, 8000), XI_OK);
    assert_int_equal(xi_regions_each(r.regions, "a", NULL, see, &seen), 1);
    assert_string_equal(seen.name, "in put:0");
    assert_string_equal(seen.key, r.key);
    assert_int_equal(seen.offset, 100);
    assert_int_equal(seen.bytes, 8000);
    assert_int_equal(xi_regions_each(r.regions, "b", NULL, see, &seen), 0);
    assert_int_equal(xi_regions_each(r.regions, "a", "other", see, &seen), 0);
    assert_int_equal(take(&r, "b", "in put:0", 0, 1, 0), XI_ENOENT);
    assert_int_equal(reg(&r, "a", "in put:0", r.key, 0, 8), XI_ECONFLICT);
    xi_regions_unregister(r.regions, "b", "in put:0");
    assert_int_equal(take(&r, "a", "in put:0", 0, 1, 0), XI_OK);
    xi_regions_unregister(r.regions, "a", "in put:0");
    xi_regions_unregister(r.regions, "a", "in put:0"); /* as the protocol says */
    assert_int_equal(take(&r, "a", "in put:0", 0, 1, 0), XI_ENOENT);
    assert_int_equal(reg(&r, "b", "mine", r.key, 0, 8), XI_OK); /* nobody's any more */
    close_room(&r);
}

static void object_of_another_tenant_is_refused_under_any_name(void **state)
{
    struct room r;
    char other[80];

    (void)state;
    open_room(&r, 4096);
    assert_int_equal(reg(&r, "a", "x", r.key, 0, 4096), XI_OK);
    assert_int_equal(reg(&r, "b", "x", r.key, 0, 4096), XI_EFORBIDDEN);
    (void)snprintf(other, sizeof other, "%s-link", r.path);
    assert_int_equal(link(r.path, other), 0);
    assert_int_equal(reg(&r, "b", "x", strrchr(other, '/'), 0, 4096), XI_EFORBIDDEN);
    assert_int_equal(reg(&r, "a", "y", strrchr(other, '/'), 0, 4096), XI_OK);
    assert_int_equal(unlink(other), 0);
    close_room(&r);
}

static void what_is_no_shared_memory_is_refused(void **state)
{
    static const char *const keys[] = {
        "", "/", ".", "..", "/..", "a/b", "../etc/passwd", "/dev/null", "//x", "sem.x", "x\ny",
    };
    char long_key[XI_SHARED_KEY_MAX + 3], path[96];
    struct room r;

    (void)state;
    open_room(&r, 4096);
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        assert_int_equal(reg(&r, "a", "x", keys[i], 0, 1), XI_EINVAL);
    memset(long_key, 'k', sizeof long_key);
    long_key[XI_SHARED_KEY_MAX + 2] = '\0';
    assert_int_equal(reg(&r, "a", "x", long_key, 0, 1), XI_EINVAL);
    long_key[XI_SHARED_KEY_MAX] = '\0';
    assert_int_equal(reg(&r, "a", "x", long_key, 0, 1), XI_ENOENT);

    (void)snprintf(path, sizeof path, "%s-other", r.path);
    assert_int_equal(symlink(r.path, path), 0);
    assert_int_equal(reg(&r, "a", "x", strrchr(path, '/'), 0, 1), XI_EINVAL);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_int_equal(reg(&r, "a", "x", strrchr(path, '/'), 0, 1), XI_EINVAL);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(mkdir(path, 0700), 0);
    assert_int_equal(reg(&r, "a", "x", strrchr(path, '/'), 0, 1), XI_EINVAL);
    assert_int_equal(rmdir(path), 0);
    close_room(&r);
}

static void window_has_to_lie_in_the_object(void **state)
{
    static const struct {
        uint64_t offset, bytes;
    } wrong[] = {{0, 0},          {0, 4097},       {4096, 1},           {1, 4096},
                 {UINT64_MAX, 2}, {2, UINT64_MAX}, {UINT64_MAX - 1, 1}, {1ull << 63, 1ull << 63}};
    static const char *const names[] = {"", "a/b", "a\tb", "\x80"};
    struct room r;

    (void)state;
    open_room(&r, 4096);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        enum xi_rc rc = reg(&r, "a", "x", r.key, wrong[i].offset, wrong[i].bytes);
        assert_int_equal(rc, wrong[i].bytes > XI_REGION_BYTES_MAX ? XI_ETOOBIG : XI_EINVAL);
    }
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        assert_int_equal(reg(&r, "a", names[i], r.key, 0, 8), XI_EINVAL);
    assert_int_equal(xi_regions_each(r.regions, "a", NULL, see, &(struct seen){0}), 0);
    close_room(&r);
}

static void run_has_to_lie_in_its_region_each_time(void **state)
{
    struct xi_segment *s;
    uint64_t at = 0;
    struct xi_err err;
    struct room r;
    char text[8];

    (void)state;
    open_room(&r, 3 * 4096);
    assert_int_equal(reg(&r, "a", "x", r.key, 5000, 4000), XI_OK);
    assert_int_equal(take(&r, "a", "x", 0, 4001, 0), XI_EREGION);
    assert_int_equal(take(&r, "a", "x", 4000, 1, 0), XI_EREGION);
    assert_int_equal(take(&r, "a", "x", UINT64_MAX, 2, 0), XI_EREGION);
    assert_int_equal(take(&r, "a", "x", 2, UINT64_MAX, 1), XI_EREGION);
    assert_int_equal(take(&r, "a", "x", 4000, 0, 0), XI_OK);

    assert_int_equal(xi_region_take(r.regions, "a", "x", 1000, 8, 1, &s, &at, &err), XI_OK);
    assert_int_equal(s->from, 4096); /* whole pages are shown */
    assert_int_equal(s->map.bytes, 5000 - 4096 + 4000);
    assert_int_equal(at, 5000 - 4096 + 1000);
    assert_int_equal(xi_segment_write(s, at, "hello", 6, &err), XI_OK);
    assert_int_equal(pread(r.fd, text, 6, 6000), 6);
    assert_string_equal(text, "hello");

    /* Cut: neither read nor made longer again by us. */
    assert_int_equal(ftruncate(r.fd, 6002), 0);
    assert_int_equal(take(&r, "a", "x", 0, 1, 0), XI_EREGION);
    assert_int_equal(xi_segment_read(s, at, text, 6, &err), XI_EREGION);
    assert_int_equal(xi_segment_write(s, at, "hello", 6, &err), XI_EREGION);
    assert_int_equal(lseek(r.fd, 0, SEEK_END), 6002);
    assert_int_equal(ftruncate(r.fd, 3 * 4096), 0);
    assert_int_equal(take(&r, "a", "x", 0, 4000, 0), XI_OK);
    xi_segment_put(s);
    close_room(&r);
}

static void read_only_object_holds_inputs_alone(void **state)
{
    struct room r;
    char path[80];

    (void)state;
    open_room(&r, 4096);
    assert_int_equal(reg(&r, "a", "x", r.key, 0, 4096), XI_OK);
    assert_int_equal(take(&r, "a", "x", 0, 8, 0), XI_OK);
    if (geteuid() != 0) { /* whom nothing is forbidden */
        assert_int_equal(fchmod(r.fd, 0400), 0);
        assert_int_equal(take(&r, "a", "x", 0, 8, 1), XI_EFORBIDDEN);
        assert_int_equal(fchmod(r.fd, 0), 0);
        assert_int_equal(reg(&r, "a", "y", r.key, 0, 8), XI_EFORBIDDEN);
    }
    /* By the object and not by its name, which can be another's by then. */
    assert_int_equal(fchmod(r.fd, 0600), 0);
    (void)snprintf(path, sizeof path, "%s-gone", r.path);
    assert_int_equal(rename(r.path, path), 0);
    assert_int_equal(take(&r, "a", "x", 0, 8, 1), XI_OK);
    assert_int_equal(rename(path, r.path), 0);
    close_room(&r);
}

/* A client that died holding all it may leaves room for the next. */
static void regions_without_a_name_leave_when_room_is_needed(void **state)
{
    struct room r;
    char name[16];

    (void)state;
    open_room(&r, 4096);
    for (int i = 0; i < XI_REGIONS_TENANT_MAX; i++) {
        (void)snprintf(name, sizeof name, "r%d", i);
        assert_int_equal(reg(&r, "a", name, r.key, 0, 4096), XI_OK);
    }
    assert_int_equal(reg(&r, "a", "more", r.key, 0, 4096), XI_EQUOTA);
    assert_int_equal(reg(&r, "b", "more", "/nonesuch", 0, 4096), XI_ENOENT);
    assert_int_equal(unlink(r.path), 0);
    int fd = open(r.path, O_RDWR | O_CREAT | O_EXCL, 0600);
    assert_int_equal(ftruncate(fd, 4096), 0);
    assert_int_equal(take(&r, "a", "r7", 0, 8, 1), XI_OK); /* until then they serve */
    assert_int_equal(reg(&r, "a", "more", r.key, 0, 4096), XI_OK);
    assert_int_equal(xi_regions_each(r.regions, "a", NULL, see, &(struct seen){0}), 1);
    assert_int_equal(close(fd), 0);
    close_room(&r);
}

static int open_descriptors(void)
{
    int n = 0;

    for (int fd = 0; fd < 1024; fd++)
        n += fcntl(fd, F_GETFD) >= 0;
    return n;
}

static void registering_again_and_again_leaves_nothing(void **state)
{
    struct room r;
    int before;

    (void)state;
    open_room(&r, 8192);
    before = open_descriptors();
    for (int i = 0; i < 20000; i++) {
        assert_int_equal(reg(&r, "a", "x", r.key, 0, 8192), XI_OK);
        if (i % 100 == 0)
            assert_int_equal(take(&r, "a", "x", 0, 8, i % 200 == 0), XI_OK);
        assert_int_equal(reg(&r, "a", "y", r.key, 0, 9000), XI_EINVAL);
        xi_regions_unregister(r.regions, "a", i % 2 ? "x" : NULL);
    }
    assert_int_equal(open_descriptors(), before);
    close_room(&r);
}

static void loan_keeps_what_it_lends(void **state)
{
    struct xi_segment *in, *out, *again;
    struct xi_err err;
    struct room r;
    uint64_t at, out_at;

    (void)state;
    open_room(&r, 8192);
    assert_int_equal(reg(&r, "a", "x", r.key, 0, 8192), XI_OK);
    assert_int_equal(xi_region_take(r.regions, "a", "x", 0, 8, 0, &in, &at, &err), XI_OK);
    assert_int_equal(xi_region_take(r.regions, "a", "x", 4096, 16, 1, &out, &out_at, &err), XI_OK);
    assert_int_not_equal(in->id, out->id);
    assert_false(in->writable);
    assert_true(out->writable);
    struct xi_loan *loan = xi_regions_loan(r.regions);
    xi_loan_input(loan, 3, in);
    xi_loan_place(loan, 5, out, out_at, 16);
    assert_null(xi_loan_find(loan, 3));
    assert_int_equal(xi_loan_find(loan, 5)->mem.segment, out->id);
    assert_int_equal(xi_loan_find(loan, 5)->mem.offset, 4096);

    /* What hosts lost is shown to them anew. */
    xi_loan_spoiled(loan);
    assert_int_equal(xi_region_take(r.regions, "a", "x", 0, 8, 0, &again, &at, &err), XI_OK);
    assert_int_not_equal(again->id, in->id);
    xi_segment_put(again);

    xi_regions_free(r.regions); /* the loan is still out */
    r.regions = NULL;
    assert_int_equal(fcntl(out->fd, F_GETFD), FD_CLOEXEC);
    xi_loan_get(loan);
    xi_loan_put(loan);
    xi_loan_put(loan);
    close_room(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(region_is_its_tenants_until_it_is_unregistered),
        cmocka_unit_test(object_of_another_tenant_is_refused_under_any_name),
        cmocka_unit_test(what_is_no_shared_memory_is_refused),
        cmocka_unit_test(window_has_to_lie_in_the_object),
        cmocka_unit_test(run_has_to_lie_in_its_region_each_time),
        cmocka_unit_test(read_only_object_holds_inputs_alone),
        cmocka_unit_test(regions_without_a_name_leave_when_room_is_needed),
        cmocka_unit_test(registering_again_and_again_leaves_nothing),
        cmocka_unit_test(loan_keeps_what_it_lends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
