/* The pool with batches and stages, against fake hosts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "daemon/core/chance.h"
#include "daemon/core/pool_room.h"

/* ---- batches ---- */

static void batches_form_while_the_lane_is_busy(void **state)
{
    struct room r = room_new(2, 100);
    struct xi_session *s;
    struct xi_pool_stats stats;
    struct asked a[20];
    unsigned i;

    (void)state;
    fake.rank = 2;
    s = room_load(&r, "one", "default", 1, 8);
    for (i = 0; i < 20; i++)
        room_send(&r, &a[i], s, 1, (uint8_t)i);
    assert_int_equal(fake_last()->n_behind[0], 0); /* the first did not wait for anybody */
    assert_true(room_answer_one(fake_last()));
    assert_int_equal(fake_last()->n_behind[0], 7);
    for (i = 1; i < 8; i++) { /* the lane is free after the last of its batch */
        assert_true(room_answer_one(fake_last()));
        assert_int_equal(a[i].answers, 1);
        assert_int_equal(fake_last()->n_behind[0], 7 - i);
    }
    assert_true(room_answer_one(fake_last()));
    assert_int_equal(fake_last()->n_behind[0], 7);
    room_answer_all(fake_last());
    room_answered(a, 20, XI_OK);
    for (i = 1; i < 20; i++)
        assert_true(a[i].order > a[i - 1].order);
    assert_int_equal(s->stats.runs, 4); /* 1 + 8 + 8 + 3 */
    assert_int_equal(s->stats.ran, 20);
    xi_pool_stats(r.f->pool, &stats);
    assert_int_equal(stats.batches, 4);
    assert_int_equal(fake_last()->largest_batch, 8);
    room_free(&r);
}

static void shapes_rows_and_classes_do_not_mix(void **state)
{
    struct room r = room_new(1, 100);
    struct xi_session *s;
    struct asked block, a[6];
    unsigned i;

    (void)state;
    fake.rank = 2;
    s = room_load(&r, "one", "default", 1, 8);
    room_send(&r, &block, s, 1, 0);
    for (i = 0; i < 6; i++) {
        room_ask(&r, &a[i], s, i == 1 ? 6 : 1, (uint8_t)i);
        if (i == 2) { /* another shape */
            a[i].r.parts[0].dims[0] = 2;
            a[i].r.parts[0].dims[1] = 4;
        }
        if (i == 3)
            a[i].r.priority = XI_PRIORITY_BATCH;
        fixture_submit(r.f, &a[i]);
    }
    fake_done(fake_last(), 0, XI_OK);
    assert_int_equal(fake_last()->n_behind[0], 2); /* 1 + 6 + 1 rows */
    assert_int_equal(fake_last()->behind[0][0].id, a[1].r.id);
    assert_int_equal(fake_last()->behind[0][1].id, a[4].r.id);
    for (i = 0; i < 3; i++)
        fake_done(fake_last(), 0, XI_OK);
    assert_int_equal(fake_last()->running[0], a[2].r.id); /* alone: nobody is like it */
    assert_int_equal(fake_last()->n_behind[0], 0);
    room_answer_all(fake_last());
    room_answered(a, 6, XI_OK);
    room_free(&r);
}

static void a_delay_gathers_company(void **state)
{
    struct room r = room_new(2, 100);
    struct xi_session *s;
    struct asked a[7];
    unsigned i;

    (void)state;
    fake.rank = 2;
    s = room_load(&r, "one", "default", 2, 4);
    s->options.max_delay_us = 30000; /* as it can be changed while it runs */
    for (i = 0; i < 3; i++)
        room_send(&r, &a[i], s, 1, 1);
    assert_int_equal(room_busy(fake_last()), 0);
    room_ask(&r, &a[3], s, 1, 1); /* full: it leaves at once */
    fixture_submit(r.f, &a[3]);
    assert_int_equal(room_busy(fake_last()), 1);
    assert_int_equal(fake_last()->largest_batch, 4);
    room_send(&r, &a[4], s, 1, 1);
    fixture_run_ms(r.f, 15);
    assert_int_equal(room_busy(fake_last()), 1);
    fixture_run_ms(r.f, 40); /* its time is over */
    assert_int_equal(room_busy(fake_last()), 2);
    room_answer_all(fake_last());
    room_ask(&r, &a[5], s, 1, 1); /* no time to wait */
    a[5].r.deadline_ns = xi_now_ns() + 20 * MS;
    fixture_submit(r.f, &a[5]);
    fixture_run_ms(r.f, 19);
    assert_int_equal(a[5].answers, 0);
    assert_int_equal(room_busy(fake_last()), 1);
    room_send(&r, &a[6], s, 1, 1);
    xi_pool_cancel(r.f->pool, &a[6].r);
    assert_int_equal(a[6].rc, XI_ECANCELLED);
    room_answer_all(fake_last());
    room_answered(a, 6, XI_OK);
    room_free(&r);
}

static void cancelling_takes_one_out_of_its_batch(void **state)
{
    struct room r = room_new(1, 100);
    struct xi_session *s;
    struct asked block, a[4];
    unsigned i;

    (void)state;
    fake.rank = 2;
    s = room_load(&r, "one", "default", 1, 4);
    room_send(&r, &block, s, 1, 1);
    for (i = 0; i < 4; i++)
        room_send(&r, &a[i], s, 1, 1);
    fake_done(fake_last(), 0, XI_OK);
    assert_int_equal(fake_last()->n_behind[0], 3);
    xi_pool_cancel(r.f->pool, &a[2].r);
    assert_int_equal(a[2].rc, XI_ECANCELLED);
    assert_int_equal(fake.slots, 4); /* its bytes stay while the host may read them */
    room_answer_all(fake_last());
    assert_int_equal(fake.slots, 0);
    for (i = 0; i < 4; i++)
        assert_true(a[i].answers == 1 && a[i].rc == (i == 2 ? XI_ECANCELLED : XI_OK));
    room_free(&r);
}

/* ---- convoys ---- */

static struct xi_session *load_tiny(struct room *r, uint32_t lanes)
{
    struct xi_session *s = room_load(r, "one", "default", lanes, 1);

    fake.run_ns = s->service_ns = 1000;
    return s;
}

static void short_runs_go_together_and_run_apart(void **state)
{
    struct room r = room_new(2, 100);
    struct xi_session *s;
    struct xi_pool_stats stats;
    struct asked a[40];
    unsigned i;

    (void)state;
    s = load_tiny(&r, 2);
    for (i = 0; i < 12; i++) {
        room_ask(&r, &a[i], s, 1, (uint8_t)i);
        a[i].r.parts[0].dims[0] = 8 - i % 2; /* of any shape */
        a[i].r.parts[0].mem.bytes = 8 - i % 2;
        fixture_submit(r.f, &a[i]);
    }
    assert_int_equal(room_busy(fake_last()), 2);
    assert_int_equal(fake_last()->largest_batch, 1); /* an idle lane waits for nobody */
    fake_done(fake_last(), 1, XI_OK);
    assert_int_equal(fake_last()->n_behind[1], 9); /* the other lane is busy */
    for (i = 12; i < 40; i++)
        room_send(&r, &a[i], s, 1, (uint8_t)i);
    fake_done(fake_last(), 1, XI_OK); /* each is answered when it has run */
    assert_true(a[2].answers == 1 && a[3].answers == 0);
    fake_done(fake_last(), 0, XI_OK);
    assert_int_equal(fake_last()->n_behind[0], XI_CONVOY_MAX - 1);
    room_answer_all(fake_last());
    room_answered(a, 40, XI_OK);
    xi_pool_stats(r.f->pool, &stats);
    assert_true(s->stats.runs == 40 && s->stats.ran == 40 && stats.batches == 40);
    room_free(&r);
}

static void longer_runs_go_alone(void **state)
{
    struct room r = room_new(1, 100);
    struct xi_session *s;
    struct asked a[9];
    unsigned i;

    (void)state;
    s = load_tiny(&r, 1);
    s->service_ns = 0; /* nothing is known of it */
    for (i = 0; i < 9; i++)
        room_send(&r, &a[i], s, 1, (uint8_t)i);
    fake.run_ns = 40000;
    fake_done(fake_last(), 0, XI_OK);
    assert_int_equal(fake_last()->n_behind[0], 1); /* a tenth of a millisecond */
    fake.run_ns = 10 * MS;
    room_answer_all(fake_last());
    assert_int_equal(fake_last()->largest_batch, 2);
    room_answered(a, 9, XI_OK);
    room_free(&r);
}

static void poison_hurts_itself_alone(uint32_t max_batch, uint64_t run_ns)
{
    unsigned guilty;

    for (guilty = 0; guilty < 8; guilty += 3) {
        struct room r = room_new(4, 100);
        struct xi_session *s;
        struct xi_pool_stats stats;
        struct asked block, a[8], again;
        unsigned i;

        fake.rank = 2;
        s = room_load(&r, "one", "default", 1, max_batch);
        fake.run_ns = s->service_ns = run_ns;
        room_send(&r, &block, s, 1, 1);
        for (i = 0; i < 8; i++)
            room_send(&r, &a[i], s, 1, i == guilty ? POISON : (uint8_t)i);
        fake_done(fake_last(), 0, XI_OK);
        assert_int_equal(fake_last()->largest_batch, 8);
        room_live(&r, 5000);
        for (i = 0; i < 8; i++) {
            assert_int_equal(a[i].answers, 1);
            assert_int_equal(a[i].rc, i == guilty ? XI_EINCIDENT : XI_OK);
        }
        assert_int_equal(fake.hosts[1]->largest_batch, 1);
        assert_int_equal(fake.hosts[1]->most_running, 1);
        xi_pool_stats(r.f->pool, &stats);
        assert_true(stats.incidents == 1 && stats.retried == 8);
        assert_int_equal(r.f->pool->n_poison, 1);
        while (s->state != XI_SESSION_READY) { /* it comes back for the next ones */
            fixture_turn(r.f);
            if (!fake_last()->ended && room_loading(&r, fake_last()) != NULL)
                fake_loaded(fake_last(), MS);
        }
        assert_int_equal(fake.n_hosts, 3);
        room_send(&r, &again, s, 1, POISON);
        assert_true(again.answers == 1 && again.rc == XI_EPOISON);
        room_free(&r);
    }
}

static void poison_among_eight_hurts_itself_alone(void **state)
{
    (void)state;
    poison_hurts_itself_alone(8, MS);   /* in a batch */
    poison_hurts_itself_alone(1, 1000); /* in a convoy */
}

/* ---- stages ---- */

static void files_go_through_three_stages(void **state)
{
    struct room r = room_new(2, 100);
    struct xi_session *s;
    struct asked a[16], raw;
    unsigned i;

    (void)state;
    room_on_accelerator(&r);
    fake.rank = 2;
    s = room_load(&r, "one", "default", 1, 4);
    assert_true(s->staged && s->stage_lanes >= 1);
    for (i = 0; i < 16; i++)
        room_send_file(&r, &a[i], s, (uint8_t)(i % 2));
    room_send(&r, &raw, s, 1, 7);
    assert_int_equal(fake_last()->op[0], XI_WORK_INFER); /* tensors need no stage */
    assert_int_equal(fake_last()->running[0], raw.r.id);
    for (i = 0; i < 2000 && xi_pool_in_flight(r.f->pool) > 0; i++) {
        uint32_t lane = i % 8 == 0 ? 0 : 1 + i % 2; /* the device is the slowest */

        if (fake_last()->running[lane] != 0)
            fake_done(fake_last(), lane, XI_OK);
        assert_true(fake_last()->n_kept <= 4 * 2 + 2); /* what is ahead of the device is bounded */
    }
    room_answered(a, 16, XI_OK);
    room_answered(&raw, 1, XI_OK);
    assert_int_equal(fake_last()->n_kept, 0);
    assert_true(fake_last()->largest_batch > 1);
    assert_true(s->stats.ran == 17 && s->stats.runs < 17);
    assert_int_equal(r.f->pool->running, 0);
    room_free(&r);
}

static void who_leaves_between_stages_is_forgotten(void **state)
{
    struct room r = room_new(1, 100);
    struct xi_session *s;
    struct asked block, a[3];
    unsigned i;

    (void)state;
    room_on_accelerator(&r);
    s = room_load(&r, "one", "default", 1, 4);
    room_send_file(&r, &block, s, 0);
    fake_done(fake_last(), 1, XI_OK); /* PRE; it runs now, and its lane is taken */
    for (i = 0; i < 3; i++) {
        room_ask_file(&r, &a[i], s, 1);
        a[i].r.deadline_ns = i == 1 ? xi_now_ns() + 300 * MS : 0;
        fixture_submit(r.f, &a[i]);
    }
    for (i = 0; i < 3; i++)
        fake_done(fake_last(), 1, XI_OK);
    assert_int_equal(fake_last()->n_kept, 4);
    xi_pool_cancel(r.f->pool, &a[0].r); /* while it waits */
    assert_int_equal(fake_last()->n_kept, 3);
    while (a[1].answers == 0) /* a deadline */
        fixture_run_ms(r.f, 1);
    assert_true(a[1].answers == 1 && a[1].rc == XI_ETIMEOUT);
    assert_int_equal(fake_last()->n_kept, 2);
    xi_pool_cancel(r.f->pool, &block.r); /* while it runs */
    assert_int_equal(fake_last()->n_kept, 2);
    fake_done(fake_last(), 0, XI_OK);
    assert_int_equal(fake_last()->n_kept, 1);
    assert_int_equal(fake_last()->forgotten, 3);
    room_answer_all(fake_last());
    assert_true(a[2].answers == 1 && a[2].rc == XI_OK);
    assert_int_equal(fake_last()->n_kept, 0);
    room_free(&r);
}

/* Alone it was dispatched at once, so nothing waited with a deadline until its PRE was answered. */
static void a_deadline_holds_between_stages(void **state)
{
    struct room r = room_new(1, 100);
    struct xi_session *s;
    struct asked block, a;
    uint64_t until = xi_now_ms() + 5000;

    (void)state;
    room_on_accelerator(&r);
    s = room_load(&r, "one", "default", 1, 4);
    room_send_file(&r, &block, s, 0);
    fake_done(fake_last(), 1, XI_OK); /* PRE; it runs now, and its lane is taken */
    room_ask_file(&r, &a, s, 1);
    a.r.deadline_ns = xi_now_ns() + 300 * MS;
    fixture_submit(r.f, &a);
    fake_done(fake_last(), 1, XI_OK);
    while (a.answers == 0 && xi_now_ms() < until)
        fixture_turn(r.f);
    assert_true(a.answers == 1 && a.rc == XI_ETIMEOUT);
    room_answer_all(fake_last());
    assert_int_equal(block.rc, XI_OK);
    room_free(&r);
}

static void an_error_ends_a_request_at_any_stage(void **state)
{
    unsigned stage, k;

    (void)state;
    for (stage = 0; stage < 3; stage++) {
        struct room r = room_new(1, 100);
        struct asked a;

        room_on_accelerator(&r);
        room_send_file(&r, &a, room_load(&r, "one", "default", 1, 4), 1);
        for (k = 0; k < stage; k++)
            assert_true(room_answer_one(fake_last()));
        fake_done(fake_last(), stage == 1 ? 0 : 1, XI_EIMAGE);
        assert_true(a.answers == 1 && a.rc == XI_EIMAGE);
        assert_true(fake_last()->n_kept == 0 && fake_last()->forgotten == 0);
        room_free(&r);
    }
}

static void a_crash_at_any_stage_begins_anew_alone(void **state)
{
    unsigned steps, k, i;

    (void)state;
    for (steps = 0; steps < 24; steps += 4) {
        struct room r = room_new(2, 100);
        struct xi_session *s;
        struct asked a[8];

        room_on_accelerator(&r);
        s = room_load(&r, "one", "default", 1, 4);
        for (i = 0; i < 8; i++)
            room_send_file(&r, &a[i], s, i == 3 ? POISON : 0);
        for (k = 0; k < steps; k++) /* poison works at a random place of a random stage */
            (void)(fake_last()->running[k % 3] != 0 && (fake_done(fake_last(), k % 3, XI_OK), 1));
        if (xi_pool_in_flight(r.f->pool) > 0)
            fake_exit(fake_last(), "ended by SIGKILL");
        room_live(&r, 5000);
        for (i = 0; i < 8; i++) {
            assert_int_equal(a[i].answers, 1);
            assert_true(a[i].rc == XI_OK || (i == 3 && a[i].rc == XI_EINCIDENT));
        }
        assert_int_equal(fake_last()->n_kept, 0);
        assert_int_equal(s->queue->prepared, 0);
        room_free(&r);
    }
}

/* ---- a random life ---- */

#define CROWD 300

static void submit_one(struct room *r, struct xi_session *s, struct asked *one)
{
    uint8_t what = below(40) == 0 ? POISON : (uint8_t)below(200);

    if (s->staged && below(4) > 0)
        room_ask_file(r, one, s, what);
    else
        room_ask(r, one, s, 1 + below(3), what);
    one->r.priority = (enum xi_priority)below(3);
    if (below(5) == 0)
        one->r.deadline_ns = xi_now_ns() + (1 + below(200)) * MS;
    one->fill = what;
    fixture_submit(r->f, one);
}

static void random_step(struct room *r, struct xi_session **s, struct asked *a, unsigned *n)
{
    struct xi_host *host = fake.hosts[below(fake.n_hosts)];
    unsigned what = below(100);
    struct xi_entry *e;

    while (!host->ended && (e = room_loading(r, host)) != NULL)
        fake_loaded_session(host, e->s.number, MS);
    if (what < 45 && *n < CROWD) {
        submit_one(r, s[below(2)], &a[*n]);
        (*n)++;
    } else if (what < 88 && !host->ended) {
        uint32_t lane = below(host->lanes == 0 ? 1 : host->lanes);

        if (fake_runs(host, POISON) && below(4) == 0)
            fake_exit(host, "ended by SIGSEGV");
        else if (host->running[lane] != 0)
            fake_done(host, lane, below(20) == 0 ? XI_EENGINE : XI_OK);
    } else if (what < 96 && *n > 0) {
        struct asked *one = &a[below(*n)];

        if (one->r.state != XI_REQ_FINISHED)
            xi_pool_cancel(r->f->pool, &one->r);
    }
}

static void random_lives(unsigned seed, int staged, enum xi_isolation isolation)
{
    struct room r = room_new(3, 40);
    struct asked *a = calloc(CROWD, sizeof(*a));
    struct xi_load_options o = fixture_options("one", 2);
    struct xi_session *s[2];
    unsigned n = 0, i, steps = 0;

    assert_non_null(a);
    random_state = seed;
    if (staged)
        room_on_accelerator(&r);
    fake.rank = 2;
    o.max_batch = fake.max_batch = 1 + seed % 8;
    fake.run_ns = seed == 8 ? 1000 : 0; /* without batches: convoys */
    o.max_delay_us = seed % 3 * 1500;
    o.isolation = isolation;
    s[0] = fixture_load(r.f, &o);
    (void)snprintf(o.name, sizeof(o.name), "two");
    o.priority = XI_PRIORITY_REALTIME;
    s[1] = fixture_load(r.f, &o);
    while (n < CROWD || xi_pool_in_flight(r.f->pool) > 0) {
        random_step(&r, s, a, &n);
        if (++steps % 8 == 0)
            fixture_turn(r.f);
        if (xi_pool_in_flight(r.f->pool) > 0 && r.f->pool->running == 0)
            fixture_run_ms(r.f, 1);
        assert_true(steps < 400000);
        assert_true(r.f->pool->devices[0].used <= 4);
    }
    for (i = 0; i < n; i++) {
        assert_int_equal(a[i].answers, 1);
        if (a[i].fill != POISON)
            assert_true(a[i].rc != XI_EINCIDENT && a[i].rc != XI_EPOISON);
    }
    for (i = 0; i < fake.n_hosts; i++)
        assert_true(fake.hosts[i]->ended || room_busy(fake.hosts[i]) > 0 ||
                    fake.hosts[i]->n_kept == 0);
    assert_true(s[0]->queue->prepared == 0 && s[1]->queue->prepared == 0);
    assert_int_equal(s[0]->owner->queued, 0);
    assert_int_equal(s[0]->owner->running, 0);
    free(a);
    room_free(&r);
}

static void random_lives_answer_everybody_once(void **state)
{
    unsigned seed;

    (void)state;
    random_lives(8, 0, XI_ISOLATE_SESSION);
    random_lives(8, 0, XI_ISOLATE_TENANT);
    for (seed = 1; seed <= 3; seed++) {
        random_lives(seed, 0, XI_ISOLATE_SESSION);
        random_lives(seed, 1, XI_ISOLATE_SESSION);
        random_lives(seed, 0, XI_ISOLATE_TENANT);
        random_lives(seed, 1, XI_ISOLATE_TENANT);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(batches_form_while_the_lane_is_busy),
        cmocka_unit_test(shapes_rows_and_classes_do_not_mix),
        cmocka_unit_test(a_delay_gathers_company),
        cmocka_unit_test(cancelling_takes_one_out_of_its_batch),
        cmocka_unit_test(short_runs_go_together_and_run_apart),
        cmocka_unit_test(longer_runs_go_alone),
        cmocka_unit_test(poison_among_eight_hurts_itself_alone),
        cmocka_unit_test(files_go_through_three_stages),
        cmocka_unit_test(who_leaves_between_stages_is_forgotten),
        cmocka_unit_test(a_deadline_holds_between_stages),
        cmocka_unit_test(an_error_ends_a_request_at_any_stage),
        cmocka_unit_test(a_crash_at_any_stage_begins_anew_alone),
        cmocka_unit_test(random_lives_answer_everybody_once),
    };
    return cmocka_run_group_tests_name("pool_batch", tests, NULL, NULL);
}
