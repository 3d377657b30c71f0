#include "ipc/ring.h"

#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/platform/process.h"

enum { DATA = 128 * 1024, HEAD = 64, TAIL = 128, RECORDS = 64 * 1024 };

struct pair {
    uint8_t *memory;
    struct xi_ring producer, consumer;
};

static void open_pair(struct pair *p)
{
    struct xi_err err;
    uint64_t bytes = xi_ring_footprint(DATA);

    p->memory = aligned_alloc(4096, bytes);
    assert_non_null(p->memory);
    xi_ring_create(p->memory, DATA);
    assert_int_equal(xi_ring_attach(&p->producer, p->memory, bytes, &err), XI_OK);
    assert_int_equal(xi_ring_attach(&p->consumer, p->memory, bytes, &err), XI_OK);
}

static void records_come_in_order_and_whole(void **state)
{
    struct pair p;
    uint8_t record[3000], got[3000];
    size_t n;

    (void)state;
    open_pair(&p);
    for (uint32_t i = 0; i < 1000; i++) { /* many times around */
        size_t bytes = 1 + i * 37 % sizeof record;
        memset(record, (int)(i & 0xff), bytes);
        assert_int_equal(xi_ring_push(&p.producer, record, bytes), XI_OK);
        assert_int_equal(xi_ring_pop(&p.consumer, got, sizeof got, &n), XI_OK);
        assert_int_equal(n, bytes);
        assert_memory_equal(got, record, bytes);
    }
    assert_int_equal(xi_ring_pop(&p.consumer, got, sizeof got, &n), XI_EAGAIN);
    free(p.memory);
}

static void full_ring_takes_no_more(void **state)
{
    struct pair p;
    uint8_t record[1024 - 8] = {0}, got[1024];
    size_t n;

    (void)state;
    open_pair(&p);
    for (int i = 0; i < DATA / 1024; i++)
        assert_int_equal(xi_ring_push(&p.producer, record, sizeof record), XI_OK);
    assert_int_equal(xi_ring_push(&p.producer, record, 1), XI_EAGAIN);
    assert_int_equal(xi_ring_pop(&p.consumer, got, sizeof got, &n), XI_OK);
    assert_int_equal(xi_ring_push(&p.producer, record, sizeof record), XI_OK);
    free(p.memory);
}

static void sizes_that_disagree_are_refused(void **state)
{
    struct xi_ring r;
    struct xi_err err;
    struct pair p;

    (void)state;
    open_pair(&p);
    assert_int_equal(xi_ring_attach(&r, p.memory, xi_ring_footprint(2 * DATA), &err), XI_EPROTO);
    assert_int_equal(xi_ring_attach(&r, p.memory, xi_ring_footprint(DATA) - 8, &err), XI_EPROTO);
    assert_int_equal(xi_ring_attach(&r, p.memory, 100, &err), XI_EPROTO);
    p.memory[0] ^= 1;
    assert_int_equal(xi_ring_attach(&r, p.memory, xi_ring_footprint(DATA), &err), XI_EPROTO);
    free(p.memory);
}

static void put(struct pair *p, size_t at, uint64_t value)
{
    memcpy(p->memory + at, &value, sizeof value);
}

/* What a peer may write where its index lies. */
static void producer_index_is_not_believed(void **state)
{
    static const uint64_t lies[] = {DATA + 8, 1ull << 40, UINT64_MAX, (uint64_t)-8, 3};
    uint8_t got[64];
    size_t n;

    (void)state;
    for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
        struct pair p;
        open_pair(&p);
        put(&p, HEAD, lies[i]);
        assert_int_equal(xi_ring_pop(&p.consumer, got, sizeof got, &n), XI_EPROTO);
        free(p.memory);
    }
}

static void index_never_goes_back(void **state)
{
    struct pair p;
    uint8_t got[64];
    size_t n;

    (void)state;
    open_pair(&p);
    assert_int_equal(xi_ring_push(&p.producer, "abc", 3), XI_OK);
    assert_int_equal(xi_ring_pop(&p.consumer, got, sizeof got, &n), XI_OK);
    put(&p, HEAD, 8); /* behind what was read: 16 */
    assert_int_equal(xi_ring_pop(&p.consumer, got, sizeof got, &n), XI_EPROTO);
    free(p.memory);
}

static void consumer_index_is_not_believed(void **state)
{
    static const uint64_t lies[] = {DATA + 1024, 1ull << 40, UINT64_MAX};
    uint8_t record[1024 - 8] = {0};

    (void)state;
    for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
        struct pair p;
        open_pair(&p);
        for (int k = 0; k < DATA / 1024; k++)
            assert_int_equal(xi_ring_push(&p.producer, record, sizeof record), XI_OK);
        put(&p, TAIL, lies[i]);
        assert_int_equal(xi_ring_push(&p.producer, record, sizeof record), XI_EPROTO);
        free(p.memory);
    }
}

static void record_lengths_are_not_believed(void **state)
{
    static const uint32_t lies[] = {9, 100, XI_RING_RECORD_MAX + 1, 1u << 31, UINT32_MAX};
    uint8_t got[64];
    size_t n;

    (void)state;
    for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
        struct pair p;
        open_pair(&p);
        assert_int_equal(xi_ring_push(&p.producer, "12345678", 8), XI_OK);
        memcpy(p.memory + 64 * 1024, &lies[i], sizeof lies[i]);
        assert_int_equal(xi_ring_pop(&p.consumer, got, sizeof got, &n), XI_EPROTO);
        free(p.memory);
    }
}

static void record_over_the_buffer_is_refused(void **state)
{
    struct pair p;
    uint8_t got[8];
    size_t n;

    (void)state;
    open_pair(&p);
    assert_int_equal(xi_ring_push(&p.producer, "123456789", 9), XI_OK);
    assert_int_equal(xi_ring_pop(&p.consumer, got, sizeof got, &n), XI_EPROTO);
    free(p.memory);
}

static void sleeper_is_woken_once(void **state)
{
    struct pair p;
    uint8_t got[8];
    size_t n;

    (void)state;
    open_pair(&p);
    assert_int_equal(xi_ring_may_sleep(&p.consumer), 0);
    assert_int_equal(xi_ring_push(&p.producer, "a", 1), XI_OK);
    assert_int_equal(xi_ring_must_wake(&p.producer), 1);
    assert_int_equal(xi_ring_push(&p.producer, "b", 1), XI_OK);
    assert_int_equal(xi_ring_must_wake(&p.producer), 0);
    assert_int_equal(xi_ring_pop(&p.consumer, got, sizeof got, &n), XI_OK);
    assert_int_equal(xi_ring_may_sleep(&p.consumer), 1); /* "b" is there */
    assert_int_equal(xi_ring_pop(&p.consumer, got, sizeof got, &n), XI_OK);
    assert_int_equal(xi_ring_may_sleep(&p.consumer), 0);
    free(p.memory);
}

/* ---- two threads ---- */

struct traffic {
    struct pair p;
    int wake_fd;
    uint64_t bad, lost_wakes;
};

static size_t size_of(uint32_t i)
{
    return 4 + i * 2654435761u % 300;
}

static void *consume(void *arg)
{
    struct traffic *t = arg;
    uint8_t got[512];
    size_t n;

    for (uint32_t i = 0; i < RECORDS;) {
        enum xi_rc rc = xi_ring_pop(&t->p.consumer, got, sizeof got, &n);
        if (rc == XI_EAGAIN) {
            if (!xi_ring_may_sleep(&t->p.consumer) && !xi_wake_wait(t->wake_fd, 5000)) {
                t->lost_wakes++;
                break;
            }
            continue;
        }
        uint32_t first;
        memcpy(&first, got, sizeof first);
        t->bad += rc != XI_OK || n != size_of(i) || first != i ||
                  got[n - 1] != (uint8_t)(n > 4 ? i : first >> 24);
        i++;
    }
    return NULL;
}

static void two_threads_lose_nothing(void **state)
{
    struct traffic t = {.wake_fd = xi_wake_new()};
    pthread_t thread;
    uint8_t record[512];

    (void)state;
    open_pair(&t.p);
    assert_int_equal(pthread_create(&thread, NULL, consume, &t), 0);
    for (uint32_t i = 0; i < RECORDS; i++) {
        size_t n = size_of(i);
        memset(record, (int)(i & 0xff), n);
        memcpy(record, &i, sizeof i);
        while (xi_ring_push(&t.p.producer, record, n) == XI_EAGAIN)
            (void)sched_yield();
        if (xi_ring_must_wake(&t.p.producer))
            xi_wake_signal(t.wake_fd);
        if (i % 64 == 0) /* now and then the consumer catches up and sleeps */
            (void)sched_yield();
    }
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(t.bad, 0);
    assert_int_equal(t.lost_wakes, 0);
    xi_fd_close(&t.wake_fd);
    free(t.p.memory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(records_come_in_order_and_whole),
        cmocka_unit_test(full_ring_takes_no_more),
        cmocka_unit_test(sizes_that_disagree_are_refused),
        cmocka_unit_test(producer_index_is_not_believed),
        cmocka_unit_test(index_never_goes_back),
        cmocka_unit_test(consumer_index_is_not_believed),
        cmocka_unit_test(record_lengths_are_not_believed),
        cmocka_unit_test(record_over_the_buffer_is_refused),
        cmocka_unit_test(sleeper_is_woken_once),
        cmocka_unit_test(two_threads_lose_nothing),
    };
    return cmocka_run_group_tests_name("ring", tests, NULL, NULL);
}
