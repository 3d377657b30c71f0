#include "daemon/ipc/shm_manager.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static struct xi_shm_stats stats_of(const struct xi_shm *shm)
{
    struct xi_shm_stats s;

    xi_shm_stats(shm, &s);
    return s;
}

static struct xi_slot *must_take(struct xi_shm *shm, const char *tenant, uint64_t bytes)
{
    struct xi_slot *slot = NULL;
    struct xi_err err;

    if (xi_shm_take(shm, tenant, bytes, &slot, &err) != XI_OK)
        fail_msg("%s", err.msg);
    assert_true(slot->bytes >= bytes);
    return slot;
}

static enum xi_rc take_rc(struct xi_shm *shm, const char *tenant, uint64_t bytes)
{
    struct xi_slot *slot = NULL;
    struct xi_err err;
    enum xi_rc rc = xi_shm_take(shm, tenant, bytes, &slot, &err);

    xi_slot_put(slot);
    return rc;
}

static void small_slots_share_a_segment(void **state)
{
    struct xi_shm *shm = xi_shm_new(256 * XI_MIB);
    struct xi_slot *a = must_take(shm, "t", 100), *b = must_take(shm, "t", 5000);

    (void)state;
    assert_ptr_equal(a->segment, b->segment);
    assert_int_not_equal(a->offset, b->offset);
    assert_int_equal((uintptr_t)a->data % 4096, 0);
    memset(a->data, 1, 100);
    memset(b->data, 2, 5000);
    assert_int_equal(a->data[99], 1);
    assert_int_equal(stats_of(shm).segments, 1);
    assert_int_equal(stats_of(shm).used_bytes, 4096 + 8192);
    xi_slot_put(a);
    xi_slot_put(b);
    assert_int_equal(stats_of(shm).used_bytes, 0);
    assert_int_equal(stats_of(shm).slots, 0);
    xi_shm_free(shm);
}

static void tenants_never_share_a_segment(void **state)
{
    struct xi_shm *shm = xi_shm_new(256 * XI_MIB);
    struct xi_slot *a = must_take(shm, "one", 100), *b = must_take(shm, "two", 100);

    (void)state;
    assert_ptr_not_equal(a->segment, b->segment);
    xi_slot_put(a);
    xi_slot_put(b);
    xi_shm_free(shm);
}

static void slot_lives_as_long_as_its_references(void **state)
{
    struct xi_shm *shm = xi_shm_new(64 * XI_MIB);
    struct xi_slot *a = must_take(shm, "t", 100);

    (void)state;
    xi_slot_get(a);
    xi_slot_put(a);
    assert_int_equal(stats_of(shm).slots, 1);
    xi_slot_put(a);
    assert_int_equal(stats_of(shm).slots, 0);
    xi_slot_put(NULL);
    xi_shm_free(shm);
}

/* Nobody but the daemon may write an input: not even through /proc. */
static void inputs_cannot_be_written_by_others(void **state)
{
    struct xi_shm *shm = xi_shm_new(64 * XI_MIB);
    struct xi_slot *a = must_take(shm, "t", 100);
    struct xi_err err;
    struct xi_map map;

    (void)state;
    memcpy(a->data, "hello", 6);
    assert_int_not_equal(
        xi_memory_open(a->segment->fd, a->segment->map.bytes, XI_MAP_READ_WRITE, &map, &err),
        XI_OK);
    assert_int_equal(xi_memory_open(a->segment->fd, a->segment->map.bytes, XI_MAP_READ, &map, &err),
                     XI_OK);
    assert_string_equal((const char *)map.base + a->offset, "hello");
    assert_true(pwrite(a->segment->fd, "x", 1, 0) < 0);
    assert_true(ftruncate(a->segment->fd, 0) < 0);
    xi_map_close(&map);
    xi_slot_put(a);
    xi_shm_free(shm);
}

static void large_slot_is_its_own_segment_and_kept_for_the_next(void **state)
{
    struct xi_shm *shm = xi_shm_new(512 * XI_MIB);
    struct xi_slot *a = must_take(shm, "t", 25 * XI_MIB);
    uint32_t id = a->segment->id;

    (void)state;
    assert_int_equal(a->offset, 0);
    assert_int_equal(stats_of(shm).segment_bytes, 25 * XI_MIB);
    xi_slot_put(a);
    a = must_take(shm, "t", 24 * XI_MIB + 1);
    assert_int_equal(a->segment->id, id);
    xi_slot_put(a);
    a = must_take(shm, "t", 100 * XI_MIB); /* the spare one is too small */
    assert_int_not_equal(a->segment->id, id);
    xi_slot_put(a); /* 25 + 100 MiB lie fallow: allowed are 128 */
    assert_int_equal(stats_of(shm).segment_bytes, 125 * XI_MIB);
    xi_shm_trim(shm);
    assert_int_equal(stats_of(shm).segment_bytes, 125 * XI_MIB);
    xi_shm_trim(shm);
    assert_int_equal(stats_of(shm).segment_bytes, 0);
    xi_shm_free(shm);
}

static void spare_memory_is_bounded(void **state)
{
    struct xi_shm *shm = xi_shm_new(4 * XI_GIB);
    struct xi_slot *slots[8];

    (void)state;
    for (int i = 0; i < 8; i++)
        slots[i] = must_take(shm, "t", 50 * XI_MIB);
    for (int i = 0; i < 8; i++)
        xi_slot_put(slots[i]);
    assert_true(stats_of(shm).segment_bytes <= XI_SHM_SPARE_BYTES);
    for (int i = 0; i < 8; i++)
        slots[i] = must_take(shm, "u", 10 * XI_MIB); /* 16 each: two in a segment */
    assert_int_equal(stats_of(shm).used_bytes, 8 * 16 * XI_MIB);
    for (int i = 0; i < 8; i++)
        xi_slot_put(slots[i]);
    assert_true(stats_of(shm).segment_bytes <= XI_SHM_SPARE_BYTES + XI_SEGMENT_BYTES);
    xi_shm_free(shm);
}

static void budget_bounds_all_segments(void **state)
{
    struct xi_shm *shm = xi_shm_new(100 * XI_MIB);
    struct xi_slot *a, *b;

    (void)state;
    assert_int_equal(take_rc(shm, "t", 100 * XI_MIB + 1), XI_ETOOBIG);
    assert_int_equal(take_rc(shm, "t", UINT64_MAX), XI_ETOOBIG);
    a = must_take(shm, "t", 60 * XI_MIB);
    assert_int_equal(take_rc(shm, "t", 60 * XI_MIB), XI_EAGAIN);
    assert_int_equal(stats_of(shm).refused, 1);
    xi_slot_put(a);
    b = must_take(shm, "t", 90 * XI_MIB); /* the spare one of 60 gives way */
    assert_true(stats_of(shm).segment_bytes <= 100 * XI_MIB);
    xi_slot_put(b);
    b = must_take(shm, "another", 90 * XI_MIB); /* and another tenant's too */
    xi_slot_put(b);
    xi_shm_free(shm);
}

static void tenant_takes_a_quarter_unless_it_is_alone(void **state)
{
    struct xi_shm *shm = xi_shm_new(400 * XI_MIB);
    struct xi_slot *a = must_take(shm, "a", 80 * XI_MIB), *b, *c;

    (void)state;
    c = must_take(shm, "a", 80 * XI_MIB); /* alone: more than a quarter */
    b = must_take(shm, "b", 20 * XI_MIB);
    assert_int_equal(take_rc(shm, "a", 20 * XI_MIB), XI_EAGAIN);
    assert_int_equal(take_rc(shm, "b", 90 * XI_MIB), XI_EAGAIN);
    assert_int_equal(take_rc(shm, "b", 70 * XI_MIB), XI_OK);
    xi_slot_put(b);
    assert_int_equal(take_rc(shm, "a", 20 * XI_MIB), XI_OK);
    xi_slot_put(a);
    xi_slot_put(c);
    xi_shm_free(shm);
}

struct heard {
    struct xi_shm_watch watch;
    uint32_t n, last;
};

static void hear(struct xi_shm_watch *watch, uint32_t id)
{
    struct heard *h = (struct heard *)watch;

    h->n++;
    h->last = id;
}

static void watchers_hear_of_each_segment_that_closes(void **state)
{
    struct xi_shm *shm = xi_shm_new(256 * XI_MIB);
    struct heard h = {.watch = {.closing = hear}};
    struct xi_slot *a;

    (void)state;
    xi_shm_watch_add(shm, &h.watch);
    a = must_take(shm, "t", 20 * XI_MIB);
    uint32_t id = a->segment->id;
    xi_slot_put(a);
    assert_int_equal(h.n, 0);
    xi_shm_trim(shm);
    xi_shm_trim(shm);
    assert_int_equal(h.n, 1);
    assert_int_equal(h.last, id);
    xi_shm_watch_remove(shm, &h.watch);
    xi_shm_watch_remove(shm, &h.watch); /* twice is fine */
    a = must_take(shm, "t", 20 * XI_MIB);
    assert_true(a->segment->id > id); /* numbers are never used twice */
    xi_slot_put(a);
    xi_shm_free(shm);
    assert_int_equal(h.n, 1);
}

static int open_fds(void)
{
    int n = 0;

    for (int fd = 0; fd < 256; fd++)
        n += fcntl(fd, F_GETFD) >= 0;
    return n;
}

static void nothing_is_left_open(void **state)
{
    int before = open_fds();
    struct xi_shm *shm = xi_shm_new(256 * XI_MIB);
    struct xi_segment *out;
    struct xi_err err;

    (void)state;
    for (uint64_t i = 0; i < 30; i++) {
        struct xi_slot *a = must_take(shm, i % 2 ? "a" : "b", (1 + i) * XI_MIB);
        assert_int_equal(xi_segment_output(shm, XI_MIB, &out, &err), XI_OK);
        xi_segment_get(out);
        xi_segment_put(out);
        xi_segment_put(out);
        xi_slot_put(a);
    }
    xi_shm_free(shm);
    assert_int_equal(open_fds(), before);
}

static void hears_nothing(struct xi_shm_watch *watch, uint32_t segment_id)
{
    (void)watch;
    (void)segment_id;
}

/* A daemon ends while a worker hashes an input and an installing host is not reaped yet. */
static void it_outlives_its_owner_while_it_is_used(void **state)
{
    struct xi_shm *shm = xi_shm_new(64 * XI_MIB);
    struct xi_shm_watch watch = {.closing = hears_nothing};
    struct xi_slot *slot = must_take(shm, "t", 100);
    int before = open_fds();

    (void)state;
    xi_shm_watch_add(shm, &watch);
    xi_shm_free(shm);
    memset(slot->data, 7, 100);
    xi_slot_put(slot);
    xi_shm_watch_remove(shm, &watch); /* the last user: frees it */
    assert_null(watch.next);
    assert_true(open_fds() < before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(small_slots_share_a_segment),
        cmocka_unit_test(tenants_never_share_a_segment),
        cmocka_unit_test(slot_lives_as_long_as_its_references),
        cmocka_unit_test(inputs_cannot_be_written_by_others),
        cmocka_unit_test(large_slot_is_its_own_segment_and_kept_for_the_next),
        cmocka_unit_test(spare_memory_is_bounded),
        cmocka_unit_test(budget_bounds_all_segments),
        cmocka_unit_test(tenant_takes_a_quarter_unless_it_is_alone),
        cmocka_unit_test(watchers_hear_of_each_segment_that_closes),
        cmocka_unit_test(nothing_is_left_open),
        cmocka_unit_test(it_outlives_its_owner_while_it_is_used),
    };
    return cmocka_run_group_tests_name("shm_manager", tests, NULL, NULL);
}
