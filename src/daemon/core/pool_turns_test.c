/* The pool with cores, classes, tenants and shared hosts, against fake hosts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "daemon/core/pool_room.h"

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
    assert_int_equal(room_busy(of_slim), 4);
    fill(&r, a, 4, wide);
    fill(&r, b + 4, 36, slim);
    for (i = 0; i < 20; i++) { /* one answer at a time: the wide one must gather three cores */
        assert_true(room_busy(of_slim) + 3 * room_busy(of_wide) <= 4);
        wide_ran += room_busy(of_wide);
        assert_true(room_answer_one(i % 2 ? of_wide : of_slim) || room_answer_one(of_slim));
    }
    assert_true(wide_ran > 0);
    while (room_answer_one(of_wide) || room_answer_one(of_slim))
        ;
    room_answered(a, 4, XI_OK);
    room_answered(b, 40, XI_OK);
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
    assert_int_equal(room_busy(of_batch), 2);
    now = load_class(&r, "now", XI_PRIORITY_REALTIME, 4, 1);
    of_now = fake.hosts[1];
    assert_true(room_answer_one(of_batch));
    assert_int_equal(room_busy(of_batch), 1); /* the other core is kept free */
    fill(&r, b, 1, now);
    assert_int_equal(room_busy(of_now), 1);
    fill(&r, b + 1, 5, now);
    assert_int_equal(room_busy(of_now) + room_busy(of_batch), 3); /* one more than there are */
    while (room_answer_one(of_now))
        assert_true(room_busy(of_now) + room_busy(of_batch) <= 3);
    assert_int_equal(room_busy(of_batch), 1);
    room_answer_all(of_batch);
    room_answered(a, 6, XI_OK);
    room_answered(b, 6, XI_OK);
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
    assert_int_equal(room_busy(fake_last()), 1);
    room_answer_all(fake_last());
    room_answered(a, 3, XI_OK);
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
    s[0] = room_load(&r, "one", "heavy", 2, 1);
    s[1] = room_load(&r, "one", "light", 2, 1);
    for (i = 0; i < 800; i++)
        room_send(&r, &a[i], s[i / 400], 1, 1);
    for (i = 0; i < 400; i++)
        assert_true(room_answer_one(fake.hosts[0]) || room_answer_one(fake.hosts[1]));
    for (i = 0; i < 400; i++)
        of_heavy += (unsigned)a[i].answers;
    assert_in_range(of_heavy, 285, 315);
    assert_int_equal(s[0]->owner->completed, of_heavy);
    assert_true(s[0]->owner->device_ns >= of_heavy * MS);
    while (room_answer_one(fake.hosts[0]) || room_answer_one(fake.hosts[1]))
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
    s = room_load(&r, "one", "small", 1, 1);
    t = room_load(&r, "two", "slow", 1, 1);
    for (i = 0; i < 6; i++) { /* one runs, three wait */
        room_send(&r, &a[i], s, 1, 1);
        assert_int_equal(a[i].answers, i >= 4);
    }
    assert_true(a[4].rc == XI_EQUOTA && a[4].r.retry_after_s >= 1);
    assert_non_null(strstr(a[4].err.msg, "3 requests of tenant small wait already, 3 may"));
    assert_int_equal(s->owner->refused_quota, 2);
    assert_int_equal(noted(&r, XI_WHY_REFUSED, "3 may"), 1); /* the flood is one line */
    room_answer_all(fake.hosts[0]);
    for (i = 10; i < 40; i++) { /* a burst of one second's worth, and no more */
        room_send(&r, &a[i], t, 1, 1);
        if (a[i].answers == 0)
            room_answer_all(fake.hosts[1]);
        refused += a[i].rc == XI_EQUOTA;
    }
    assert_in_range(refused, 18, 20);
    assert_int_equal(t->owner->refused_quota, refused);
    room_free(&r);
}

static void what_cannot_be_in_time_is_refused_at_once(void **state)
{
    struct room r = room_new(1, 100);
    struct xi_session *s = room_load(&r, "one", "default", 1, 1);
    struct xi_pool_stats stats;
    struct asked patient[12], a[7], idle;
    unsigned i;

    (void)state;
    s->service_ns = 50 * MS;
    room_ask(&r, &idle, s, 1, 1); /* an idle session is given a try */
    idle.r.deadline_ns = xi_now_ns() + 20 * MS;
    fixture_submit(r.f, &idle);
    assert_true(idle.answers == 0 && room_busy(fake_last()) == 1);
    for (i = 0; i < 12; i++) { /* these have time: whoever has a deadline goes before them */
        room_send(&r, &patient[i], s, 1, 1);
    }
    for (i = 0; i < 7; i++) { /* six, and what is left of the first, are 325 ms of work */
        room_ask(&r, &a[i], s, 1, 1);
        a[i].r.deadline_ns = xi_now_ns() + 350 * MS;
        fixture_submit(r.f, &a[i]);
        assert_int_equal(a[i].answers, i == 6);
    }
    assert_true(a[6].rc == XI_EAGAIN && a[6].r.retry_after_s >= 1);
    assert_non_null(strstr(a[6].err.msg, "6 requests are ahead of it, about 375 ms of work"));
    xi_pool_stats(r.f->pool, &stats);
    assert_int_equal(stats.refused_early, 1);
    assert_int_equal(noted(&r, XI_WHY_REFUSED, "ahead of it"), 1);
    room_answer_all(fake_last());
    room_answered(a, 6, XI_OK);
    room_answered(patient, 12, XI_OK);
    room_free(&r);
}

static void slow_ones_are_noted(void **state)
{
    struct room r = room_new(1, 100);
    struct xi_session *s = room_load(&r, "one", "default", 1, 1);
    struct asked a, b;
    unsigned i;

    (void)state;
    for (i = 0; i < 20; i++) {
        room_send(&r, &a, s, 1, 1);
        room_answer_all(fake_last());
    }
    room_ask(&r, &a, s, 1, 1);
    a.r.timing.born -= 1500 * MS;
    fixture_submit(r.f, &a);
    room_answer_all(fake_last());
    assert_int_equal(noted(&r, XI_WHY_SLOW, "took 15"), 1);
    room_ask(&r, &b, s, 1, 1);
    b.r.timing.born -= 1500 * MS;
    fixture_submit(r.f, &b);
    room_answer_all(fake_last());
    assert_int_equal(noted(&r, XI_WHY_SLOW, "took"), 1); /* one a second */
    room_free(&r);
}

static void a_late_answer_is_noted(void **state)
{
    struct room r = room_new(1, 100);
    struct xi_session *s = room_load(&r, "one", "default", 1, 1);
    struct asked a;

    (void)state;
    room_send(&r, &a, s, 1, 1);
    a.r.deadline_ns = a.r.timing.born + 1; /* it passes while it runs */
    room_answer_all(fake_last());
    room_answered(&a, 1, XI_OK);
    assert_int_equal(noted(&r, XI_WHY_SLOW, "past its deadline"), 1);
    room_free(&r);
}

/* `why` knows it by the session and by the request's number. */
static void an_incident_is_noted(void **state)
{
    struct room r = room_new(1, 100);
    struct xi_session *s = room_load(&r, "one", "default", 1, 1);
    const struct xi_why_entry *e = NULL;
    struct asked a;

    (void)state;
    room_send(&r, &a, s, 1, POISON);
    room_live(&r, 5000);
    room_answered(&a, 1, XI_EINCIDENT);
    assert_int_equal(noted(&r, XI_WHY_INCIDENT, "SIGSEGV"), 1);
    while ((e = xi_why_find(r.why, NULL, "one", e)) != NULL && e->kind != XI_WHY_INCIDENT)
        ;
    assert_non_null(e);
    assert_int_equal(e->request, a.r.id);
    assert_int_equal(e->rc, XI_EINCIDENT);
    assert_non_null(strstr(a.err.msg, "incident "));
    assert_non_null(strstr(e->text, strstr(a.err.msg, "incident "))); /* the same number */
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
    for (i = 0; i < 6; i++)
        room_send(&r, &a[i], s[i % 2], 1, i == 1 ? POISON : (uint8_t)i);
    assert_int_equal(room_busy(fake_last()), 4);
    fake_exit(fake_last(), "ended by SIGSEGV");
    for (i = 0; i < 6; i++)
        room_send(&r, &later[i], s[i % 2], 1, (uint8_t)i);
    room_live(&r, 5000);
    for (i = 0; i < 6; i++) {
        assert_int_equal(a[i].answers, 1);
        assert_int_equal(a[i].rc, i == 1 ? XI_EINCIDENT : XI_OK);
    }
    room_answered(later, 6, XI_OK);
    xi_pool_stats(r.f->pool, &stats);
    assert_true(stats.incidents == 1 && stats.retried == 4);
    assert_true(s[0]->state == XI_SESSION_READY || s[0]->state == XI_SESSION_LOADING);
    room_free(&r);
}

/* Who ended a host in which something else was being loaded? Nobody should have to ask. */
static void a_suspect_waits_for_the_loads_of_its_host(void **state)
{
    struct room r = room_new(4, 100);
    struct xi_load_options o = fixture_options("one", 2);
    struct xi_session *s[2];
    struct xi_host *first, *again;
    struct asked a;
    unsigned i;

    (void)state;
    o.isolation = XI_ISOLATE_TENANT;
    s[0] = fixture_load(r.f, &o);
    (void)snprintf(o.name, sizeof(o.name), "two");
    s[1] = fixture_load(r.f, &o);
    first = fake_last();
    room_send(&r, &a, s[0], 1, 1);
    fake_exit(first, "ended by SIGSEGV");
    for (i = 0; i < 1000 && (fake_last() == first || fake_last()->n_loads < 2); i++)
        fixture_run_ms(r.f, 5);
    again = fake_last();
    assert_int_equal(again->n_loads, 2);
    fake_loaded_session(again, s[0]->number, MS);
    fixture_run_ms(r.f, 5);
    assert_int_equal(room_busy(again), 0);
    fake_loaded_session(again, s[1]->number, MS);
    assert_int_equal(room_busy(again), 1);
    assert_true(room_answer_one(again));
    room_answered(&a, 1, XI_OK);
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
    room_send(&r, &a, s[0], 1, 1);
    fake_exit(fake_last(), "ended by SIGSEGV");
    while (s[1]->state != XI_SESSION_READY) {
        struct xi_entry *e;

        fixture_turn(r.f);
        while (!fake_last()->ended && (e = room_loading(&r, fake_last())) != NULL)
            fake_loaded_session(fake_last(), e->s.number, MS);
    }
    assert_int_equal(room_busy(fake_last()), 1); /* the suspect */
    for (i = 0; i < 3; i++)
        room_send(&r, &b[i], s[1], 1, 1);
    assert_int_equal(room_busy(fake_last()), 1);
    assert_true(room_answer_one(fake_last()));
    room_answered(&a, 1, XI_OK);
    assert_int_equal(room_busy(fake_last()), 2); /* now they go */
    room_answer_all(fake_last());
    room_answered(b, 3, XI_OK);
    room_free(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cores_are_shared_by_threads),
        cmocka_unit_test(realtime_has_one_more_and_batch_leaves_one),
        cmocka_unit_test(no_request_is_above_its_session),
        cmocka_unit_test(weights_share_the_lanes),
        cmocka_unit_test(quotas_are_refused_with_figures),
        cmocka_unit_test(what_cannot_be_in_time_is_refused_at_once),
        cmocka_unit_test(slow_ones_are_noted),
        cmocka_unit_test(a_late_answer_is_noted),
        cmocka_unit_test(an_incident_is_noted),
        cmocka_unit_test(a_suspect_is_alone_in_a_shared_host),
        cmocka_unit_test(a_suspect_waits_for_the_loads_of_its_host),
        cmocka_unit_test(the_neighbours_wait_for_a_suspect),
    };
    return cmocka_run_group_tests_name("pool_turns", tests, NULL, NULL);
}
