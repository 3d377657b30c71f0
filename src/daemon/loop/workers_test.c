#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "daemon/loop/workers.h"

enum { WORKS = 2000 };

struct counted {
    struct xi_work work;
    int worked, done;
    uv_loop_t *again; /* queue once more from done */
};

static void work(struct xi_work *w)
{
    ((struct counted *)w->data)->worked++;
}

static void done(struct xi_work *w)
{
    struct counted *c = w->data;

    c->done++;
    if (c->again != NULL) {
        uv_loop_t *loop = c->again;
        c->again = NULL;
        xi_work_queue(loop, &c->work, work, done);
    }
}

static void every_work_is_done_once_and_the_loop_waits_for_it(void **state)
{
    static struct counted all[WORKS];
    struct xi_err err;
    uv_loop_t loop;

    (void)state;
    assert_int_equal(uv_loop_init(&loop), 0);
    assert_int_equal(xi_workers_open(&loop, &err), XI_OK);
    for (int i = 0; i < WORKS; i++) {
        all[i] = (struct counted){.again = i % 3 == 0 ? &loop : NULL};
        all[i].work.data = &all[i];
        xi_work_queue(&loop, &all[i].work, work, done);
    }
    assert_int_equal(uv_run(&loop, UV_RUN_DEFAULT), 0); /* ends by itself, when all are done */
    for (int i = 0; i < WORKS; i++) {
        assert_int_equal(all[i].worked, i % 3 == 0 ? 2 : 1);
        assert_int_equal(all[i].done, all[i].worked);
    }
    xi_workers_close(&loop);
    (void)uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&loop), 0);
}

static void closing_finishes_what_was_queued(void **state)
{
    static struct counted all[50];
    struct xi_err err;
    uv_loop_t loop;

    (void)state;
    assert_int_equal(uv_loop_init(&loop), 0);
    assert_int_equal(xi_workers_open(&loop, &err), XI_OK);
    for (int i = 0; i < 50; i++) {
        all[i] = (struct counted){.again = &loop};
        all[i].work.data = &all[i];
        xi_work_queue(&loop, &all[i].work, work, done);
    }
    xi_workers_close(&loop);
    for (int i = 0; i < 50; i++)
        assert_int_equal(all[i].done, 2);
    (void)uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&loop), 0);
}

int main(void)
{
    const struct CMUnitTest t[] = {
        cmocka_unit_test(every_work_is_done_once_and_the_loop_waits_for_it),
        cmocka_unit_test(closing_finishes_what_was_queued),
    };
    return cmocka_run_group_tests_name("workers", t, NULL, NULL);
}
