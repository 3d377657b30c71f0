/* The pool with batches, stages, tenants and shared hosts, against fake hosts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "daemon/core/core_fixture.h"
#include "daemon/core/tenants.h"

#define POISON 0xee
#define MS     1000000ull

struct room {
    struct fixture *f;
    struct xi_tenants *tenants;
    struct xi_why *why;
};

static struct room room_new(uint32_t cores, uint32_t queue_limit)
{
    struct room r = {.tenants = xi_tenants_new(), .why = xi_why_new()};
    struct xi_pool_config pool = {
        .cores = cores, .queue_limit = queue_limit, .watchdog_min_ms = 10000, .why = r.why};
    struct xi_sessions_config sessions = {.host_program = "host",
                                          .engine_dir = "engines",
                                          .openvino_dir = "",
                                          .cores = cores,
                                          .crash_window_ms = 60000,
                                          .crash_limit = 50,
                                          .drain_ms = 1000,
                                          .tenants = r.tenants,
                                          .why = r.why};

    r.f = fixture_new(&pool, &sessions);
    return r;
}

static void room_free(struct room *r)
{
    fixture_free(r->f);
    xi_tenants_free(r->tenants);
    xi_why_free(r->why);
}

static void on_accelerator(struct room *r)
{
    struct xi_engine_device *d = &r->f->engines[0].probe.devices[0];

    d->kind = XI_DEV_NPU;
    (void)snprintf(d->id, sizeof(d->id), "NPU");
    fake.staged = 1;
    fake.has_flow = 1;
}

static struct xi_session *load(struct room *r, const char *name, const char *tenant, uint32_t lanes,
                               uint32_t batch)
{
    struct xi_load_options o = fixture_options(name, lanes);

    (void)snprintf(o.tenant, sizeof(o.tenant), "%s", tenant);
    o.max_batch = batch;
    fake.max_batch = batch;
    return fixture_load(r->f, &o);
}

/* Rows of eight bytes each. */
static void ask(struct room *r, struct asked *a, struct xi_session *s, uint32_t rows, uint8_t fill)
{
    fixture_ask(r->f, a, s, 8ull * rows, fill);
    if (fake.rank == 2) {
        a->r.parts[0].rank = 2;
        a->r.parts[0].dims[0] = rows;
        a->r.parts[0].dims[1] = 8;
    }
}

static void ask_file(struct room *r, struct asked *a, struct xi_session *s, uint8_t fill)
{
    fixture_ask(r->f, a, s, 8, fill);
    a->r.parts[0] =
        (struct xi_part){.kind = XI_PART_BYTES, .mem = {.segment = 1, .offset = 0, .bytes = 8}};
}

static unsigned busy(const struct xi_host *host)
{
    unsigned n = 0;
    uint32_t i;

    for (i = 0; i < host->lanes; i++)
        n += host->running[i] != 0;
    return n;
}

static int answer_one(struct xi_host *host)
{
    uint32_t i;

    for (i = 0; i < host->lanes && !host->ended; i++) {
        if (host->running[i] != 0) {
            fake_done(host, i, XI_OK);
            return 1;
        }
    }
    return 0;
}

static void answer_all(struct xi_host *host)
{
    while (answer_one(host))
        ;
}

static struct xi_entry *loading_in(const struct room *r, const struct xi_host *host)
{
    struct xi_entry *e;

    for (e = r->f->sessions->first; e != NULL; e = e->next) {
        if (e->s.state == XI_SESSION_LOADING && e->s.host == host &&
            fake_load_of(e->s.host, e->s.number) != NULL)
            return e;
    }
    return NULL;
}

/* Hosts that crash of poison come back until all is answered. */
static void live(struct room *r, unsigned ms)
{
    uint64_t until = xi_now_ms() + ms;
    unsigned i;

    while (xi_pool_in_flight(r->f->pool) > 0 && xi_now_ms() < until) {
        for (i = 0; i < fake.n_hosts; i++) {
            struct xi_host *host = fake.hosts[i];
            struct xi_entry *e;

            while (!host->ended && (e = loading_in(r, host)) != NULL)
                fake_loaded_session(host, e->s.number, MS);
            if (!host->ended && fake_runs(host, POISON))
                fake_exit(host, "ended by SIGSEGV");
            else
                (void)answer_one(host);
        }
        fixture_turn(r->f);
    }
    fixture_run_ms(r->f, 5);
}

static void check_answered(const struct asked *a, unsigned n, enum xi_rc rc)
{
    unsigned i;

    for (i = 0; i < n; i++) {
        assert_int_equal(a[i].answers, 1);
        assert_int_equal(a[i].rc, rc);
    }
}

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
    s = load(&r, "one", "default", 1, 8);
    for (i = 0; i < 20; i++) {
        ask(&r, &a[i], s, 1, (uint8_t)i);
        fixture_submit(r.f, &a[i]);
    }
    assert_int_equal(fake_last()->n_behind[0], 0); /* the first did not wait for anybody */
    assert_true(answer_one(fake_last()));
    assert_int_equal(fake_last()->n_behind[0], 7);
    for (i = 1; i < 8; i++) { /* the lane is free after the last of its batch */
        assert_true(answer_one(fake_last()));
        assert_int_equal(a[i].answers, 1);
        assert_int_equal(fake_last()->n_behind[0], 7 - i);
    }
    assert_true(answer_one(fake_last()));
    assert_int_equal(fake_last()->n_behind[0], 7);
    answer_all(fake_last());
    check_answered(a, 20, XI_OK);
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
    s = load(&r, "one", "default", 1, 8);
    ask(&r, &block, s, 1, 0);
    fixture_submit(r.f, &block);
    for (i = 0; i < 6; i++) {
        ask(&r, &a[i], s, i == 1 ? 6 : 1, (uint8_t)i);
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
    answer_all(fake_last());
    check_answered(a, 6, XI_OK);
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
    s = load(&r, "one", "default", 2, 4);
    s->options.max_delay_us = 30000; /* as it can be changed while it runs */
    for (i = 0; i < 3; i++) {
        ask(&r, &a[i], s, 1, 1);
        fixture_submit(r.f, &a[i]);
    }
    assert_int_equal(busy(fake_last()), 0);
    ask(&r, &a[3], s, 1, 1); /* full: it leaves at once */
    fixture_submit(r.f, &a[3]);
    assert_int_equal(busy(fake_last()), 1);
    assert_int_equal(fake_last()->largest_batch, 4);
    ask(&r, &a[4], s, 1, 1);
    fixture_submit(r.f, &a[4]);
    fixture_run_ms(r.f, 15);
    assert_int_equal(busy(fake_last()), 1);
    fixture_run_ms(r.f, 40); /* its time is over */
    assert_int_equal(busy(fake_last()), 2);
    answer_all(fake_last());
    ask(&r, &a[5], s, 1, 1); /* no time to wait */
    a[5].r.deadline_ns = xi_now_ns() + 20 * MS;
    fixture_submit(r.f, &a[5]);
    fixture_run_ms(r.f, 19);
    assert_int_equal(a[5].answers, 0);
    assert_int_equal(busy(fake_last()), 1);
    ask(&r, &a[6], s, 1, 1);
    fixture_submit(r.f, &a[6]);
    xi_pool_cancel(r.f->pool, &a[6].r);
    assert_int_equal(a[6].rc, XI_ECANCELLED);
    answer_all(fake_last());
    check_answered(a, 6, XI_OK);
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
    s = load(&r, "one", "default", 1, 4);
    ask(&r, &block, s, 1, 1);
    fixture_submit(r.f, &block);
    for (i = 0; i < 4; i++) {
        ask(&r, &a[i], s, 1, 1);
        fixture_submit(r.f, &a[i]);
    }
    fake_done(fake_last(), 0, XI_OK);
    assert_int_equal(fake_last()->n_behind[0], 3);
    xi_pool_cancel(r.f->pool, &a[2].r);
    assert_int_equal(a[2].rc, XI_ECANCELLED);
    assert_int_equal(fake.slots, 4); /* its bytes stay while the host may read them */
    answer_all(fake_last());
    assert_int_equal(fake.slots, 0);
    for (i = 0; i < 4; i++)
        assert_true(a[i].answers == 1 && a[i].rc == (i == 2 ? XI_ECANCELLED : XI_OK));
    room_free(&r);
}

static void poison_in_a_batch_of_eight_hurts_itself_alone(void **state)
{
    unsigned guilty;

    (void)state;
    for (guilty = 0; guilty < 8; guilty++) {
        struct room r = room_new(4, 100);
        struct xi_session *s;
        struct xi_pool_stats stats;
        struct asked block, a[8], again;
        unsigned i;

        fake.rank = 2;
        s = load(&r, "one", "default", 1, 8);
        ask(&r, &block, s, 1, 1);
        fixture_submit(r.f, &block);
        for (i = 0; i < 8; i++) {
            ask(&r, &a[i], s, 1, i == guilty ? POISON : (uint8_t)i);
            fixture_submit(r.f, &a[i]);
        }
        fake_done(fake_last(), 0, XI_OK);
        assert_int_equal(fake_last()->largest_batch, 8);
        live(&r, 5000);
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
            if (!fake_last()->ended && loading_in(&r, fake_last()) != NULL)
                fake_loaded(fake_last(), MS);
        }
        assert_int_equal(fake.n_hosts, 3);
        ask(&r, &again, s, 1, POISON);
        fixture_submit(r.f, &again);
        assert_true(again.answers == 1 && again.rc == XI_EPOISON);
        room_free(&r);
    }
}

/* ---- stages ---- */

static void files_go_through_three_stages(void **state)
{
    struct room r = room_new(2, 100);
    struct xi_session *s;
    struct asked a[16], raw;
    unsigned i;

    (void)state;
    on_accelerator(&r);
    fake.rank = 2;
    s = load(&r, "one", "default", 1, 4);
    assert_true(s->staged && s->stage_lanes >= 1);
    for (i = 0; i < 16; i++) {
        ask_file(&r, &a[i], s, (uint8_t)(i % 2));
        fixture_submit(r.f, &a[i]);
    }
    ask(&r, &raw, s, 1, 7);
    fixture_submit(r.f, &raw);
    assert_int_equal(fake_last()->op[0], XI_WORK_INFER); /* tensors need no stage */
    assert_int_equal(fake_last()->running[0], raw.r.id);
    for (i = 0; i < 2000 && xi_pool_in_flight(r.f->pool) > 0; i++) {
        uint32_t lane = i % 8 == 0 ? 0 : 1 + i % 2; /* the device is the slowest */

        if (fake_last()->running[lane] != 0)
            fake_done(fake_last(), lane, XI_OK);
        assert_true(fake_last()->n_kept <= 4 * 2 + 2); /* what is ahead of the device is bounded */
    }
    check_answered(a, 16, XI_OK);
    check_answered(&raw, 1, XI_OK);
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
    on_accelerator(&r);
    s = load(&r, "one", "default", 1, 4);
    ask_file(&r, &block, s, 0);
    fixture_submit(r.f, &block);
    fake_done(fake_last(), 1, XI_OK); /* PRE; it runs now, and its lane is taken */
    for (i = 0; i < 3; i++) {
        ask_file(&r, &a[i], s, 1);
        a[i].r.deadline_ns = i == 1 ? xi_now_ns() + 30 * MS : 0;
        fixture_submit(r.f, &a[i]);
    }
    for (i = 0; i < 3; i++)
        fake_done(fake_last(), 1, XI_OK);
    assert_int_equal(fake_last()->n_kept, 4);
    xi_pool_cancel(r.f->pool, &a[0].r); /* while it waits */
    assert_int_equal(fake_last()->n_kept, 3);
    fixture_run_ms(r.f, 50); /* a deadline */
    assert_true(a[1].answers == 1 && a[1].rc == XI_ETIMEOUT);
    assert_int_equal(fake_last()->n_kept, 2);
    xi_pool_cancel(r.f->pool, &block.r); /* while it runs */
    assert_int_equal(fake_last()->n_kept, 2);
    fake_done(fake_last(), 0, XI_OK);
    assert_int_equal(fake_last()->n_kept, 1);
    assert_int_equal(fake_last()->forgotten, 3);
    answer_all(fake_last());
    assert_true(a[2].answers == 1 && a[2].rc == XI_OK);
    assert_int_equal(fake_last()->n_kept, 0);
    room_free(&r);
}

static void an_error_ends_a_request_at_any_stage(void **state)
{
    unsigned stage, k;

    (void)state;
    for (stage = 0; stage < 3; stage++) {
        struct room r = room_new(1, 100);
        struct asked a;

        on_accelerator(&r);
        ask_file(&r, &a, load(&r, "one", "default", 1, 4), 1);
        fixture_submit(r.f, &a);
        for (k = 0; k < stage; k++)
            assert_true(answer_one(fake_last()));
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
    for (steps = 0; steps < 24; steps += 2) {
        struct room r = room_new(2, 100);
        struct xi_session *s;
        struct asked a[8];

        on_accelerator(&r);
        s = load(&r, "one", "default", 1, 4);
        for (i = 0; i < 8; i++) {
            ask_file(&r, &a[i], s, i == 3 ? POISON : 0);
            fixture_submit(r.f, &a[i]);
        }
        for (k = 0; k < steps; k++) /* poison works at a random place of a random stage */
            (void)(fake_last()->running[k % 3] != 0 && (fake_done(fake_last(), k % 3, XI_OK), 1));
        if (xi_pool_in_flight(r.f->pool) > 0)
            fake_exit(fake_last(), "ended by SIGKILL");
        live(&r, 5000);
        for (i = 0; i < 8; i++) {
            assert_int_equal(a[i].answers, 1);
            assert_true(a[i].rc == XI_OK || (i == 3 && a[i].rc == XI_EINCIDENT));
        }
        assert_int_equal(fake_last()->n_kept, 0);
        assert_int_equal(s->queue->prepared, 0);
        room_free(&r);
    }
}

/* ---- cores and classes ---- */

static struct xi_session *load_class(struct room *r, const char *name, enum xi_priority p,
                                     uint32_t lanes, uint32_t threads)
{
    struct xi_load_options o = fixture_options(name, lanes);

    o.priority = p;
    o.threads = threads;
    fake.max_batch = 1;
    return fixture_load(r->f, &o);
}

static void fill(struct room *r, struct asked *a, unsigned n, struct xi_session *s)
{
    unsigned i;

    for (i = 0; i < n; i++) {
        fixture_ask(r->f, &a[i], s, 16, 1);
        a[i].r.priority = s->options.priority;
        fixture_submit(r->f, &a[i]);
    }
}

static void cores_are_shared_by_threads(void **state)
{
    struct room r = room_new(4, 100);
    struct xi_session *wide = load_class(&r, "wide", XI_PRIORITY_NORMAL, 4, 3);
    struct xi_session *slim = load_class(&r, "slim", XI_PRIORITY_NORMAL, 4, 1);
    struct xi_host *of_wide = fake.hosts[0], *of_slim = fake.hosts[1];
    struct asked a[4], b[40];
    unsigned i, wide_ran = 0;

    (void)state;
    fill(&r, b, 4, slim);
    assert_int_equal(busy(of_slim), 4);
    fill(&r, a, 4, wide);
    fill(&r, b + 4, 36, slim);
    for (i = 0; i < 20; i++) { /* one answer at a time: the wide one must gather three cores */
        assert_true(busy(of_slim) + 3 * busy(of_wide) <= 4);
        wide_ran += busy(of_wide);
        assert_true(answer_one(i % 2 ? of_wide : of_slim) || answer_one(of_slim));
    }
    assert_true(wide_ran > 0);
    while (answer_one(of_wide) || answer_one(of_slim))
        ;
    check_answered(a, 4, XI_OK);
    check_answered(b, 40, XI_OK);
    room_free(&r);
}

static void realtime_has_one_more_and_batch_leaves_one(void **state)
{
    struct room r = room_new(2, 100);
    struct xi_session *batch = load_class(&r, "batch", XI_PRIORITY_BATCH, 4, 1), *now;
    struct xi_host *of_batch = fake.hosts[0], *of_now;
    struct asked a[6], b[6];

    (void)state;
    fill(&r, a, 6, batch);
    assert_int_equal(busy(of_batch), 2);
    now = load_class(&r, "now", XI_PRIORITY_REALTIME, 4, 1);
    of_now = fake.hosts[1];
    assert_true(answer_one(of_batch));
    assert_int_equal(busy(of_batch), 1); /* the other core is kept free */
    fill(&r, b, 1, now);
    assert_int_equal(busy(of_now), 1);
    fill(&r, b + 1, 5, now);
    assert_int_equal(busy(of_now) + busy(of_batch), 3); /* one more than there are */
    while (answer_one(of_now))
        assert_true(busy(of_now) + busy(of_batch) <= 3);
    assert_int_equal(busy(of_batch), 1);
    answer_all(of_batch);
    check_answered(a, 6, XI_OK);
    check_answered(b, 6, XI_OK);
    room_free(&r);
}

static void no_request_is_above_its_session(void **state)
{
    struct room r = room_new(1, 100);
    struct xi_session *s = load_class(&r, "one", XI_PRIORITY_NORMAL, 1, 1);
    struct asked a[3];
    unsigned i;

    (void)state;
    for (i = 0; i < 3; i++) {
        fixture_ask(r.f, &a[i], s, 16, 1);
        a[i].r.priority = i == 2 ? XI_PRIORITY_REALTIME : i == 1 ? XI_PRIORITY_BATCH : 1;
        fixture_submit(r.f, &a[i]);
    }
    assert_int_equal(a[2].r.priority, XI_PRIORITY_NORMAL);
    assert_int_equal(a[1].r.priority, XI_PRIORITY_BATCH);
    assert_int_equal(busy(fake_last()), 1);
    answer_all(fake_last());
    check_answered(a, 3, XI_OK);
    room_free(&r);
}

/* ---- tenants ---- */

static void limit(struct room *r, const char *name, uint32_t weight, double rate, uint32_t queue)
{
    struct xi_tenant_limits l = {.weight = weight, .rate_per_s = rate, .queue_limit = queue};
    struct xi_err err;

    assert_int_equal(xi_tenants_configure(r->tenants, name, &l, &err), XI_OK);
}

static void weights_share_the_lanes(void **state)
{
    struct room r = room_new(1, 1000);
    struct xi_session *s[2];
    struct asked *a = calloc(800, sizeof(*a));
    unsigned i, of_heavy = 0;

    (void)state;
    assert_non_null(a);
    limit(&r, "heavy", 3, 0, 0);
    s[0] = load(&r, "one", "heavy", 2, 1);
    s[1] = load(&r, "one", "light", 2, 1);
    for (i = 0; i < 800; i++) {
        ask(&r, &a[i], s[i / 400], 1, 1);
        fixture_submit(r.f, &a[i]);
    }
    for (i = 0; i < 400; i++)
        assert_true(answer_one(fake.hosts[0]) || answer_one(fake.hosts[1]));
    for (i = 0; i < 400; i++)
        of_heavy += (unsigned)a[i].answers;
    assert_in_range(of_heavy, 285, 315);
    assert_int_equal(s[0]->owner->completed, of_heavy);
    assert_true(s[0]->owner->device_ns >= of_heavy * MS);
    while (answer_one(fake.hosts[0]) || answer_one(fake.hosts[1]))
        ;
    assert_int_equal(s[0]->owner->queued + s[0]->owner->running, 0);
    assert_int_equal(s[0]->owner->requests, 400);
    free(a);
    room_free(&r);
}

static unsigned noted(const struct room *r, enum xi_why_kind kind, const char *text)
{
    const struct xi_why_entry *e = NULL;
    unsigned n = 0;

    while ((e = xi_why_find(r->why, NULL, "one", e)) != NULL)
        n += e->kind == kind && strstr(e->text, text) != NULL;
    return n;
}

static void quotas_are_refused_with_figures(void **state)
{
    struct room r = room_new(1, 5);
    struct xi_session *s, *t;
    struct asked a[40];
    unsigned i, refused = 0;

    (void)state;
    limit(&r, "small", 1, 0, 3);
    limit(&r, "slow", 1, 10, 0);
    s = load(&r, "one", "small", 1, 1);
    t = load(&r, "two", "slow", 1, 1);
    for (i = 0; i < 6; i++) { /* one runs, three wait */
        ask(&r, &a[i], s, 1, 1);
        fixture_submit(r.f, &a[i]);
        assert_int_equal(a[i].answers, i >= 4);
    }
    assert_true(a[4].rc == XI_EQUOTA && a[4].r.retry_after_s >= 1);
    assert_non_null(strstr(a[4].err.msg, "3 requests of tenant small wait already, 3 may"));
    assert_int_equal(s->owner->refused_quota, 2);
    assert_int_equal(noted(&r, XI_WHY_REFUSED, "3 may"), 1); /* the flood is one line */
    answer_all(fake.hosts[0]);
    for (i = 10; i < 40; i++) { /* a burst of one second's worth, and no more */
        ask(&r, &a[i], t, 1, 1);
        fixture_submit(r.f, &a[i]);
        if (a[i].answers == 0)
            answer_all(fake.hosts[1]);
        refused += a[i].rc == XI_EQUOTA;
    }
    assert_in_range(refused, 18, 20);
    assert_int_equal(t->owner->refused_quota, refused);
    room_free(&r);
}

static void what_cannot_be_in_time_is_refused_at_once(void **state)
{
    struct room r = room_new(1, 100);
    struct xi_session *s = load(&r, "one", "default", 1, 1);
    struct xi_pool_stats stats;
    struct asked patient[12], a[7], idle;
    unsigned i;

    (void)state;
    s->service_ns = 50 * MS;
    ask(&r, &idle, s, 1, 1); /* an idle session is given a try */
    idle.r.deadline_ns = xi_now_ns() + 20 * MS;
    fixture_submit(r.f, &idle);
    assert_true(idle.answers == 0 && busy(fake_last()) == 1);
    for (i = 0; i < 12; i++) { /* these have time: whoever has a deadline goes before them */
        ask(&r, &patient[i], s, 1, 1);
        fixture_submit(r.f, &patient[i]);
    }
    for (i = 0; i < 7; i++) { /* six are 300 ms of work; the seventh would be the seventh */
        ask(&r, &a[i], s, 1, 1);
        a[i].r.deadline_ns = xi_now_ns() + 320 * MS;
        fixture_submit(r.f, &a[i]);
        assert_int_equal(a[i].answers, i == 6);
    }
    assert_true(a[6].rc == XI_EAGAIN && a[6].r.retry_after_s >= 1);
    assert_non_null(strstr(a[6].err.msg, "6 requests are ahead of it, about 350 ms of work"));
    xi_pool_stats(r.f->pool, &stats);
    assert_int_equal(stats.refused_early, 1);
    assert_int_equal(noted(&r, XI_WHY_REFUSED, "ahead of it"), 1);
    answer_all(fake_last());
    check_answered(a, 6, XI_OK);
    check_answered(patient, 12, XI_OK);
    room_free(&r);
}

static void slow_ones_are_noted(void **state)
{
    struct room r = room_new(1, 100);
    struct xi_session *s = load(&r, "one", "default", 1, 1);
    struct asked a, b;
    unsigned i;

    (void)state;
    for (i = 0; i < 20; i++) {
        ask(&r, &a, s, 1, 1);
        fixture_submit(r.f, &a);
        answer_all(fake_last());
    }
    ask(&r, &a, s, 1, 1);
    a.r.timing.born -= 1500 * MS;
    fixture_submit(r.f, &a);
    answer_all(fake_last());
    assert_int_equal(noted(&r, XI_WHY_SLOW, "took 15"), 1);
    ask(&r, &b, s, 1, 1);
    b.r.timing.born -= 1500 * MS;
    fixture_submit(r.f, &b);
    answer_all(fake_last());
    assert_int_equal(noted(&r, XI_WHY_SLOW, "took"), 1); /* one a second */
    room_free(&r);
}

/* ---- shared hosts ---- */

static void a_suspect_is_alone_in_a_shared_host(void **state)
{
    struct room r = room_new(4, 100);
    struct xi_load_options o = fixture_options("one", 2);
    struct xi_session *s[2];
    struct asked a[6], later[6];
    struct xi_pool_stats stats;
    unsigned i;

    (void)state;
    o.isolation = XI_ISOLATE_TENANT;
    s[0] = fixture_load(r.f, &o);
    (void)snprintf(o.name, sizeof(o.name), "two");
    s[1] = fixture_load(r.f, &o);
    assert_ptr_equal(s[0]->host, s[1]->host);
    for (i = 0; i < 6; i++) {
        ask(&r, &a[i], s[i % 2], 1, i == 1 ? POISON : (uint8_t)i);
        fixture_submit(r.f, &a[i]);
    }
    assert_int_equal(busy(fake_last()), 4);
    fake_exit(fake_last(), "ended by SIGSEGV");
    for (i = 0; i < 6; i++) {
        ask(&r, &later[i], s[i % 2], 1, (uint8_t)i);
        fixture_submit(r.f, &later[i]);
    }
    live(&r, 5000);
    for (i = 0; i < 6; i++) {
        assert_int_equal(a[i].answers, 1);
        assert_int_equal(a[i].rc, i == 1 ? XI_EINCIDENT : XI_OK);
    }
    check_answered(later, 6, XI_OK);
    xi_pool_stats(r.f->pool, &stats);
    assert_true(stats.incidents == 1 && stats.retried == 4);
    assert_true(s[0]->state == XI_SESSION_READY || s[0]->state == XI_SESSION_LOADING);
    room_free(&r);
}

/* While one session's suspect is tried, the other one's requests wait too. */
static void the_neighbours_wait_for_a_suspect(void **state)
{
    struct room r = room_new(4, 100);
    struct xi_load_options o = fixture_options("one", 2);
    struct xi_session *s[2];
    struct asked a, b[3];
    unsigned i;

    (void)state;
    o.isolation = XI_ISOLATE_TENANT;
    s[0] = fixture_load(r.f, &o);
    (void)snprintf(o.name, sizeof(o.name), "two");
    s[1] = fixture_load(r.f, &o);
    ask(&r, &a, s[0], 1, 1);
    fixture_submit(r.f, &a);
    fake_exit(fake_last(), "ended by SIGSEGV");
    while (s[1]->state != XI_SESSION_READY) {
        struct xi_entry *e;

        fixture_turn(r.f);
        while (!fake_last()->ended && (e = loading_in(&r, fake_last())) != NULL)
            fake_loaded_session(fake_last(), e->s.number, MS);
    }
    assert_int_equal(busy(fake_last()), 1); /* the suspect */
    for (i = 0; i < 3; i++) {
        ask(&r, &b[i], s[1], 1, 1);
        fixture_submit(r.f, &b[i]);
    }
    assert_int_equal(busy(fake_last()), 1);
    assert_true(answer_one(fake_last()));
    check_answered(&a, 1, XI_OK);
    assert_int_equal(busy(fake_last()), 2); /* now they go */
    answer_all(fake_last());
    check_answered(b, 3, XI_OK);
    room_free(&r);
}

/* ---- a random life ---- */

static uint64_t random_state;

static uint32_t below(uint32_t n)
{
    random_state = random_state * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)(random_state >> 33) % n;
}

#define CROWD 300

static void submit_one(struct room *r, struct xi_session *s, struct asked *one)
{
    uint8_t what = below(40) == 0 ? POISON : (uint8_t)below(200);

    if (s->staged && below(4) > 0)
        ask_file(r, one, s, what);
    else
        ask(r, one, s, 1 + below(3), what);
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

    while (!host->ended && (e = loading_in(r, host)) != NULL)
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
        on_accelerator(&r);
    fake.rank = 2;
    o.max_batch = fake.max_batch = 1 + seed % 8;
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
        assert_true(fake.hosts[i]->ended || busy(fake.hosts[i]) > 0 || fake.hosts[i]->n_kept == 0);
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
        cmocka_unit_test(poison_in_a_batch_of_eight_hurts_itself_alone),
        cmocka_unit_test(files_go_through_three_stages),
        cmocka_unit_test(who_leaves_between_stages_is_forgotten),
        cmocka_unit_test(an_error_ends_a_request_at_any_stage),
        cmocka_unit_test(a_crash_at_any_stage_begins_anew_alone),
        cmocka_unit_test(cores_are_shared_by_threads),
        cmocka_unit_test(realtime_has_one_more_and_batch_leaves_one),
        cmocka_unit_test(no_request_is_above_its_session),
        cmocka_unit_test(weights_share_the_lanes),
        cmocka_unit_test(quotas_are_refused_with_figures),
        cmocka_unit_test(what_cannot_be_in_time_is_refused_at_once),
        cmocka_unit_test(slow_ones_are_noted),
        cmocka_unit_test(a_suspect_is_alone_in_a_shared_host),
        cmocka_unit_test(the_neighbours_wait_for_a_suspect),
        cmocka_unit_test(random_lives_answer_everybody_once),
    };
    return cmocka_run_group_tests_name("pool_batch", tests, NULL, NULL);
}
