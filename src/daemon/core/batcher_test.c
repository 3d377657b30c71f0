/* The batcher on a simulated clock: random arrivals, lanes, shapes, classes, deadlines. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/core/batcher.h"
#include "daemon/core/chance.h"

#define MS    1000000ull
#define CROWD 3000
#define LANES 4

struct world {
    struct xi_batcher b;
    struct xi_request *all;
    unsigned n, arrived, answered;
    uint64_t now, next_arrival;
    uint64_t run_ns, row_ns; /* a run takes run_ns + rows × row_ns */
    unsigned n_lanes;
    struct lane {
        struct xi_request *items[XI_BATCH_MAX];
        uint32_t n;
        uint64_t until;
    } lanes[LANES];
    unsigned batches, batched, keys, deadlines, classes;
    uint64_t gap_ns, longest_ns;
};

static struct world *world_new(uint32_t max_rows, uint64_t delay_ns, unsigned lanes)
{
    struct world *w = calloc(1, sizeof(*w));

    assert_non_null(w);
    w->all = calloc(CROWD, sizeof(*w->all));
    assert_non_null(w->all);
    w->b.max_rows = max_rows;
    w->b.max_delay_ns = delay_ns;
    w->n = CROWD;
    w->n_lanes = lanes;
    w->run_ns = 2 * MS;
    w->row_ns = MS / 4;
    w->keys = 3;
    w->classes = 1;
    w->gap_ns = MS;
    return w;
}

static void world_free(struct world *w)
{
    free(w->all);
    free(w);
}

static uint64_t longest_run(const struct world *w)
{
    return w->run_ns + w->b.max_rows * w->row_ns;
}

static void arrive(struct world *w)
{
    struct xi_request *req = &w->all[w->arrived++];

    req->id = w->arrived;
    req->priority = (enum xi_priority)(w->classes == 1 ? 1 : below(3));
    req->shape_key = below(w->keys);
    req->rows = below(4) == 0 ? 1 + below(4) : 1;
    req->n_parts = 1;
    if (w->deadlines > 0 && below(w->deadlines) == 0)
        req->deadline_ns = w->now + (5 + below(200)) * MS;
    req->state = XI_REQ_QUEUED;
    xi_batcher_add(&w->b, req, w->now);
    w->next_arrival = w->now + w->gap_ns * below(1000) / 500;
}

/* Whoever waits is behind nobody who is of the same class and key and due later. */
static void check_order(const struct world *w, const struct xi_request *left)
{
    const struct xi_request *r;

    for (r = w->b.lines[left->priority].head; r != NULL; r = r->next) {
        if (r->shape_key == left->shape_key)
            assert_true(r->due_ns >= left->due_ns);
    }
}

static void check_batch(struct world *w, struct xi_request **items, uint32_t n)
{
    uint32_t i, rows = 0;

    assert_in_range(n, 1, XI_BATCH_MAX);
    for (i = 0; i < n; i++) {
        rows += items[i]->rows;
        assert_int_equal(items[i]->shape_key, items[0]->shape_key);
        assert_int_equal(items[i]->priority, items[0]->priority);
        assert_int_equal(items[i]->state, XI_REQ_QUEUED); /* nobody twice */
        items[i]->state = XI_REQ_RUNNING;
        xi_batcher_remove(&w->b, items[i]);
        if (w->now - items[i]->since_ns > w->longest_ns)
            w->longest_ns = w->now - items[i]->since_ns;
        if (i > 0)
            assert_true(
                items[i]->due_ns > items[i - 1]->due_ns ||
                (items[i]->due_ns == items[i - 1]->due_ns && items[i]->id > items[i - 1]->id));
    }
    assert_true(n == 1 || rows <= w->b.max_rows);
    for (i = 0; i < n; i++)
        check_order(w, items[i]);
    w->batches++;
    w->batched += n;
}

/* 0: nothing may leave now. */
static int dispatch(struct world *w, struct lane *lane)
{
    uint32_t i, rows = 0;
    unsigned class;

    for (class = 0; class < XI_PRIORITIES; class ++) {
        if (xi_batcher_leaves_ns(&w->b, class, longest_run(w)) > w->now)
            continue;
        lane->n = xi_batcher_form(&w->b, class, lane->items);
        check_batch(w, lane->items, lane->n);
        for (i = 0; i < lane->n; i++)
            rows += lane->items[i]->rows;
        lane->until = w->now + w->run_ns + rows * w->row_ns;
        return 1;
    }
    return 0;
}

static void answer(struct world *w, struct lane *lane)
{
    uint32_t i;

    for (i = 0; i < lane->n; i++) {
        assert_int_equal(lane->items[i]->state, XI_REQ_RUNNING);
        lane->items[i]->state = XI_REQ_FINISHED;
        w->answered++;
    }
    lane->n = 0;
}

static uint64_t next_event(const struct world *w)
{
    uint64_t next = w->arrived < w->n ? w->next_arrival : UINT64_MAX, at;
    unsigned i, free_lanes = 0;

    for (i = 0; i < w->n_lanes; i++) {
        free_lanes += w->lanes[i].n == 0;
        if (w->lanes[i].n > 0 && w->lanes[i].until < next)
            next = w->lanes[i].until;
    }
    for (i = 0; i < XI_PRIORITIES && free_lanes > 0; i++) {
        at = xi_batcher_leaves_ns(&w->b, i, longest_run(w));
        assert_true(at > w->now); /* else it would have left */
        next = at < next ? at : next;
    }
    return next;
}

static void run(struct world *w)
{
    unsigned i;

    while (w->answered < w->n) {
        for (i = 0; i < w->n_lanes; i++) {
            if (w->lanes[i].n > 0 && w->lanes[i].until <= w->now)
                answer(w, &w->lanes[i]);
        }
        while (w->arrived < w->n && w->next_arrival <= w->now)
            arrive(w);
        for (i = 0; i < w->n_lanes; i++) {
            while (w->lanes[i].n == 0 && dispatch(w, &w->lanes[i]))
                ;
        }
        w->now = next_event(w);
    }
    assert_int_equal(w->b.n, 0);
    assert_int_equal(w->answered, w->n);
}

static void nothing_is_lost_or_mixed(void **state)
{
    unsigned seed;

    (void)state;
    for (seed = 1; seed <= 40; seed++) {
        struct world *w;

        random_state = seed * 31;
        w = world_new(1 + below(16), below(2) * below(8) * MS, 1 + below(LANES));
        w->keys = 1 + below(5);
        w->classes = 1 + below(2);
        w->deadlines = below(4);
        w->gap_ns = MS / 4 + below(4) * MS;
        run(w);
        world_free(w);
    }
}

static void batches_form_while_lanes_are_busy(void **state)
{
    struct world *w = world_new(8, 0, 1);

    (void)state;
    random_state = 1;
    w->keys = 1;
    w->gap_ns = MS / 2; /* far more than one at a time could be served */
    run(w);
    assert_true(w->batched > 3 * w->batches);
    world_free(w);
}

static void an_idle_device_adds_no_delay(void **state)
{
    struct world *w = world_new(8, 0, 1);
    struct xi_request *got[XI_BATCH_MAX];

    (void)state;
    random_state = 2;
    arrive(w);
    assert_int_equal(xi_batcher_leaves_ns(&w->b, 1, 5 * MS), 0);
    assert_int_equal(xi_batcher_form(&w->b, 1, got), 1);
    xi_batcher_remove(&w->b, got[0]);
    assert_int_equal(xi_batcher_leaves_ns(&w->b, 1, 5 * MS), XI_BATCH_NEVER);
    w->n = 100;
    w->gap_ns = 100 * MS;
    w->arrived = w->answered = 1;
    run(w);
    assert_true(w->longest_ns < longest_run(w));
    world_free(w);
}

static void nobody_waits_longer_than_the_delay_for_company(void **state)
{
    struct world *w = world_new(8, 10 * MS, LANES);

    (void)state;
    random_state = 3;
    w->keys = 1;
    w->gap_ns = 4 * MS; /* lanes are always free */
    run(w);
    assert_true(w->longest_ns <= 10 * MS);
    assert_true(w->longest_ns >= 9 * MS);
    assert_true(w->batched > 2 * w->batches);
    world_free(w);
}

static void no_deadline_is_missed_by_waiting_for_company(void **state)
{
    struct xi_request a = {.priority = XI_PRIORITY_NORMAL, .rows = 1, .n_parts = 1}, b = a, c = a;
    struct xi_batcher batcher = {.max_rows = 4, .max_delay_ns = 100 * MS};

    (void)state;
    xi_batcher_add(&batcher, &a, 1000 * MS);
    assert_int_equal(xi_batcher_leaves_ns(&batcher, 1, 8 * MS), 1100 * MS);
    b.deadline_ns = 1050 * MS; /* 8 ms to run, a quarter more, and a late timer */
    xi_batcher_add(&batcher, &b, 1000 * MS);
    assert_int_equal(xi_batcher_leaves_ns(&batcher, 1, 8 * MS), 1050 * MS - 11 * MS);
    c.deadline_ns = 5 * MS;
    xi_batcher_add(&batcher, &c, 1000 * MS);
    assert_int_equal(xi_batcher_leaves_ns(&batcher, 1, 8 * MS), 0);
    assert_ptr_equal(batcher.lines[1].head, &c);
    assert_ptr_equal(batcher.lines[1].tail, &a);
    c.rows = 2;
    assert_int_equal(xi_batcher_leaves_ns(&batcher, 1, 8 * MS), 0); /* full */
}

static void those_without_a_deadline_are_not_forgotten(void **state)
{
    static struct xi_request patient, hasty[64];
    struct xi_batcher b = {.max_rows = 1};
    struct xi_request *got[XI_BATCH_MAX];
    uint64_t now = MS;
    unsigned i = 0;

    (void)state;
    patient.priority = XI_PRIORITY_NORMAL;
    xi_batcher_add(&b, &patient, now);
    for (;; now += 200 * MS) { /* one comes with a close deadline before each turn */
        struct xi_request *one = &hasty[i++ % 64];

        *one = (struct xi_request){.priority = XI_PRIORITY_NORMAL, .deadline_ns = now + 100 * MS};
        xi_batcher_add(&b, one, now);
        assert_int_equal(xi_batcher_form(&b, 1, got), 1);
        xi_batcher_remove(&b, got[0]);
        if (got[0] == &patient)
            break;
    }
    assert_in_range(now, XI_BATCH_PATIENCE_NS - 500 * MS, XI_BATCH_PATIENCE_NS + 500 * MS);
}

static void a_batch_fits_into_a_record(void **state)
{
    struct xi_request *all = calloc(XI_BATCH_MAX, sizeof(*all)), *got[XI_BATCH_MAX];
    struct xi_batcher b = {.max_rows = XI_BATCH_MAX};
    uint32_t parts, i, n;

    (void)state;
    assert_non_null(all);
    for (parts = 1; parts <= XI_TENSORS_MAX; parts *= 8) {
        for (i = 0; i < XI_BATCH_MAX; i++) {
            all[i] = (struct xi_request){.priority = XI_PRIORITY_BATCH, .n_parts = parts};
            xi_batcher_add(&b, &all[i], i + 1);
        }
        n = xi_batcher_form(&b, XI_PRIORITY_BATCH, got);
        assert_true(n >= 1 && (n == XI_BATCH_MAX) == (parts == 1));
        assert_true(sizeof(struct xi_work_head) +
                        n * (sizeof(struct xi_work_request) + parts * sizeof(struct xi_part)) <=
                    XI_WORK_RECORD_MAX);
        for (i = 0; i < XI_BATCH_MAX; i++)
            xi_batcher_remove(&b, &all[i]);
    }
    free(all);
}

/* A model that gets a new shape with every request: the search for company stays short. */
static void a_flood_of_shapes_is_looked_at_briefly(void **state)
{
    struct xi_request *all = calloc(XI_QUEUE_MAX, sizeof(*all)), *got[XI_BATCH_MAX];
    struct xi_batcher b = {.max_rows = 4};
    uint32_t i;

    (void)state;
    assert_non_null(all);
    for (i = 0; i < XI_QUEUE_MAX; i++) {
        all[i] = (struct xi_request){.priority = XI_PRIORITY_NORMAL,
                                     .shape_key = i == XI_QUEUE_MAX - 1 ? 0 : i};
        xi_batcher_add(&b, &all[i], i + 1);
    }
    assert_int_equal(xi_batcher_form(&b, XI_PRIORITY_NORMAL, got), 1);
    all[10].shape_key = 0;
    assert_int_equal(xi_batcher_form(&b, XI_PRIORITY_NORMAL, got), 2);
    assert_ptr_equal(got[1], &all[10]);
    free(all);
}

static void who_is_ahead(void **state)
{
    struct xi_request r[4] = {{.priority = XI_PRIORITY_NORMAL, .deadline_ns = 100 * MS},
                              {.priority = XI_PRIORITY_NORMAL, .deadline_ns = 200 * MS},
                              {.priority = XI_PRIORITY_REALTIME},
                              {.priority = XI_PRIORITY_BATCH}};
    struct xi_request probe = {.priority = XI_PRIORITY_NORMAL, .deadline_ns = 150 * MS};
    struct xi_batcher b = {.max_rows = 1};
    unsigned i;

    (void)state;
    for (i = 0; i < 4; i++)
        xi_batcher_add(&b, &r[i], MS);
    assert_int_equal(xi_batcher_ahead(&b, &probe, MS), 2); /* the realtime one, and one earlier */
    probe.deadline_ns = 0;
    assert_int_equal(xi_batcher_ahead(&b, &probe, MS), 3);
    probe.priority = XI_PRIORITY_REALTIME;
    probe.deadline_ns = 5 * MS;
    assert_int_equal(xi_batcher_ahead(&b, &probe, MS), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_lost_or_mixed),
        cmocka_unit_test(batches_form_while_lanes_are_busy),
        cmocka_unit_test(an_idle_device_adds_no_delay),
        cmocka_unit_test(nobody_waits_longer_than_the_delay_for_company),
        cmocka_unit_test(no_deadline_is_missed_by_waiting_for_company),
        cmocka_unit_test(those_without_a_deadline_are_not_forgotten),
        cmocka_unit_test(a_batch_fits_into_a_record),
        cmocka_unit_test(a_flood_of_shapes_is_looked_at_briefly),
        cmocka_unit_test(who_is_ahead),
    };
    return cmocka_run_group_tests_name("batcher", tests, NULL, NULL);
}
