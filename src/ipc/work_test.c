#include "ipc/work.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* A work record of two requests, with one and two parts. */
struct good_work {
    struct xi_work_head head;
    struct xi_work_request first;
    struct xi_part first_part;
    struct xi_work_request second;
    struct xi_part second_parts[2];
};

static struct xi_part good_part(void)
{
    return (struct xi_part){.kind = XI_PART_TENSOR,
                            .dtype = XI_DT_FP32,
                            .rank = 2,
                            .dims = {2, 3},
                            .mem = {.segment = 1, .offset = 4096, .bytes = 24}};
}

static struct good_work good_work(void)
{
    struct good_work w = {.head = {.op = XI_WORK_ALL, .n_requests = 2},
                          .first = {.id = 1, .n_parts = 1},
                          .second = {.id = 2, .n_parts = 2, .n_state = 1}};

    w.first_part = w.second_parts[0] = w.second_parts[1] = good_part();
    w.second_parts[1].index = 1;
    return w;
}

/* Walks all of a record that was copied to memory of exactly its size. */
static enum xi_rc walk(const void *record, size_t bytes, uint32_t *ret_requests)
{
    struct xi_part parts[XI_TENSORS_MAX];
    struct xi_work_view view;
    struct xi_work_request q;
    struct xi_err err;
    uint8_t *copy = malloc(bytes ? bytes : 1);

    memcpy(copy, record, bytes);
    *ret_requests = 0;
    enum xi_rc rc = xi_work_open(copy, bytes, &view, &err);
    while (rc == XI_OK && (rc = xi_work_next(&view, &q, parts, &err)) == XI_OK)
        ++*ret_requests;
    free(copy);
    return rc == XI_ENOENT ? XI_OK : rc;
}

static void good_record_is_walked(void **state)
{
    struct good_work w = good_work();
    uint32_t n;

    (void)state;
    assert_int_equal(walk(&w, sizeof w, &n), XI_OK);
    assert_int_equal(n, 2);
}

static void every_shorter_record_is_refused(void **state)
{
    struct good_work w = good_work();
    uint32_t n;

    (void)state;
    for (size_t bytes = 0; bytes < sizeof w; bytes++)
        assert_int_equal(walk(&w, bytes, &n), XI_EPROTO);
}

static void bytes_behind_the_last_request_are_refused(void **state)
{
    struct {
        struct good_work w;
        uint8_t more[8];
    } r = {.w = good_work()};
    uint32_t n;

    (void)state;
    assert_int_equal(walk(&r, sizeof r, &n), XI_EPROTO);
}

static void hostile_counts_are_refused(void **state)
{
    struct good_work w;
    uint32_t n;
    const uint32_t counts[] = {XI_TENSORS_MAX + 1, 0x7fffffff, 0x80000000u, UINT32_MAX};

    (void)state;
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        w = good_work();
        w.first.n_parts = counts[i];
        assert_int_equal(walk(&w, sizeof w, &n), XI_EPROTO);
        w = good_work();
        w.second.n_state = counts[i];
        assert_int_equal(walk(&w, sizeof w, &n), XI_EPROTO);
    }
    w = good_work();
    w.head.n_requests = 3;
    assert_int_equal(walk(&w, sizeof w, &n), XI_EPROTO);
    w.head.n_requests = XI_BATCH_MAX + 1;
    assert_int_equal(walk(&w, sizeof w, &n), XI_EPROTO);
    w.head.n_requests = UINT16_MAX;
    assert_int_equal(walk(&w, sizeof w, &n), XI_EPROTO);
    w.head.n_requests = 0;
    assert_int_equal(walk(&w, sizeof w, &n), XI_EPROTO);
}

static void hostile_ops_are_refused(void **state)
{
    struct good_work w = good_work();
    uint32_t n;

    (void)state;
    w.head.op = 0;
    assert_int_equal(walk(&w, sizeof w, &n), XI_EPROTO);
    w.head.op = XI_WORK_FORGET + 1;
    assert_int_equal(walk(&w, sizeof w, &n), XI_EPROTO);
    w.head.op = XI_WORK_RELEASE; /* with requests */
    assert_int_equal(walk(&w, sizeof w, &n), XI_EPROTO);
    w.head.n_requests = 0;
    assert_int_equal(walk(&w, sizeof w, &n), XI_EPROTO);
    assert_int_equal(walk(&w, sizeof w.head, &n), XI_OK);
}

/* ---- completions ---- */

struct good_done {
    struct xi_done done;
    struct xi_part parts[2];
};

static struct good_done good_done(void)
{
    return (struct good_done){.done = {.id = 7, .flags = XI_DONE_FINAL, .n_parts = 2},
                              .parts = {good_part(), good_part()}};
}

static enum xi_rc open_done(const void *record, size_t bytes)
{
    struct xi_part parts[XI_TENSORS_MAX];
    struct xi_done done;
    struct xi_err err;
    uint8_t *copy = malloc(bytes ? bytes : 1);

    memcpy(copy, record, bytes);
    enum xi_rc rc = xi_done_open(copy, bytes, &done, parts, &err);
    free(copy);
    return rc;
}

static void completion_must_be_exactly_its_length(void **state)
{
    struct {
        struct good_done d;
        uint8_t more[16];
    } r = {.d = good_done()};

    (void)state;
    for (size_t bytes = 0; bytes <= sizeof r; bytes++)
        assert_int_equal(open_done(&r, bytes), bytes == sizeof r.d ? XI_OK : XI_EPROTO);
}

static void hostile_completion_fields_are_refused(void **state)
{
    struct good_done d;

    (void)state;
    for (uint32_t n = 0; n < 5; n++) {
        const uint32_t counts[] = {1, 3, XI_TENSORS_MAX + 1, 0x80000000u, UINT32_MAX};
        d = good_done();
        d.done.n_parts = counts[n];
        assert_int_equal(open_done(&d, sizeof d), XI_EPROTO);
    }
    for (uint32_t flags = 0; flags < 8; flags++) {
        d = good_done();
        d.done.flags = flags;
        assert_int_equal(open_done(&d, sizeof d), flags == 1 || flags == 2 ? XI_OK : XI_EPROTO);
    }
    const int32_t codes[] = {1, -1, -100, -999, INT32_MIN, INT32_MAX};
    for (size_t i = 0; i < sizeof codes / sizeof *codes; i++) {
        d = good_done();
        d.done.code = codes[i];
        d.done.n_parts = 0;
        assert_int_equal(open_done(&d, sizeof d.done), XI_EPROTO);
    }
    d = good_done();
    d.done.code = XI_EENGINE; /* a failure has no outputs */
    assert_int_equal(open_done(&d, sizeof d), XI_EPROTO);
    d = good_done();
    memset(d.done.text, 'x', sizeof d.done.text);
    assert_int_equal(open_done(&d, sizeof d), XI_EPROTO);
    d = good_done();
    memset(d.done.hint, 'x', sizeof d.done.hint);
    assert_int_equal(open_done(&d, sizeof d), XI_EPROTO);
}

/* ---- parts ---- */

static enum xi_rc check(const struct xi_part *p)
{
    struct xi_err err;

    return xi_part_check(p, 8192, &err);
}

static void good_parts_pass(void **state)
{
    struct xi_part p = good_part();

    (void)state;
    assert_int_equal(check(&p), XI_OK);
    p.mem.offset = 8192 - 24;
    assert_int_equal(check(&p), XI_OK);
    p = (struct xi_part){.kind = XI_PART_JSON, .mem = {.offset = 8192}};
    assert_int_equal(check(&p), XI_OK); /* empty, at the end */
    p = (struct xi_part){.dtype = XI_DT_FP32, .mem = {.bytes = 4}};
    assert_int_equal(check(&p), XI_OK); /* a scalar */
    p = (struct xi_part){.dtype = XI_DT_FP32, .rank = 1, .dims = {0}};
    assert_int_equal(check(&p), XI_OK); /* nothing */
}

static void parts_outside_are_refused(void **state)
{
    struct xi_part p = good_part();
    const uint64_t offsets[] = {8192 - 23, 8192, 1ull << 40, UINT64_MAX, UINT64_MAX - 23};

    (void)state;
    for (size_t i = 0; i < sizeof offsets / sizeof *offsets; i++) {
        p.mem.offset = offsets[i];
        assert_int_equal(check(&p), XI_EPROTO);
    }
    p = good_part();
    p.mem.bytes = UINT64_MAX;
    assert_int_equal(check(&p), XI_EPROTO);
}

static void parts_that_contradict_themselves_are_refused(void **state)
{
    struct xi_part p;
    const int64_t dims[] = {-1, 3, INT64_MAX, INT64_MIN, (1ll << 60) + 2};
    const uint32_t dtypes[] = {0, XI_DT_BYTES + 1, 255, UINT32_MAX, XI_DT_FP64};
    const int32_t ranks[] = {-1, 9, 65, INT32_MIN, INT32_MAX, 1};

    (void)state;
    for (size_t i = 0; i < sizeof dims / sizeof *dims; i++) {
        p = good_part();
        p.dims[0] = dims[i];
        assert_int_equal(check(&p), XI_EPROTO);
    }
    for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++) {
        p = good_part();
        p.dtype = dtypes[i];
        assert_int_equal(check(&p), XI_EPROTO);
    }
    for (size_t i = 0; i < sizeof ranks / sizeof *ranks; i++) {
        p = good_part();
        p.rank = ranks[i];
        assert_int_equal(check(&p), XI_EPROTO);
    }
    p = good_part();
    p.kind = XI_PART_PLACE + 1;
    assert_int_equal(check(&p), XI_EPROTO);
    p = good_part();
    p.index = XI_TENSORS_MAX;
    assert_int_equal(check(&p), XI_EPROTO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_record_is_walked),
        cmocka_unit_test(every_shorter_record_is_refused),
        cmocka_unit_test(bytes_behind_the_last_request_are_refused),
        cmocka_unit_test(hostile_counts_are_refused),
        cmocka_unit_test(hostile_ops_are_refused),
        cmocka_unit_test(completion_must_be_exactly_its_length),
        cmocka_unit_test(hostile_completion_fields_are_refused),
        cmocka_unit_test(good_parts_pass),
        cmocka_unit_test(parts_outside_are_refused),
        cmocka_unit_test(parts_that_contradict_themselves_are_refused),
    };
    return cmocka_run_group_tests_name("work", tests, NULL, NULL);
}
