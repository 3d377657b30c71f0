/* The pool against fake hosts: every request is answered exactly once, whatever happens. */
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
#include "daemon/core/core_fixture.h"

#define POISON 0xee

/* Linked with --wrap: what this room allocates. */
static _Atomic uint64_t allocations; /* hashing has a thread of its own */
void *__real_malloc(size_t n);
void *__wrap_malloc(size_t n);
void *__real_calloc(size_t n, size_t m);
void *__wrap_calloc(size_t n, size_t m);
void *__real_realloc(void *p, size_t n);
void *__wrap_realloc(void *p, size_t n);

void *__wrap_malloc(size_t n)
{
    allocations++;
    return __real_malloc(n);
}

void *__wrap_calloc(size_t n, size_t m)
{
    allocations++;
    return __real_calloc(n, m);
}

void *__wrap_realloc(void *p, size_t n)
{
    allocations++;
    return __real_realloc(p, n);
}

static struct fixture *make(uint32_t cores, uint32_t queue_limit, uint32_t watchdog_ms)
{
    struct xi_pool_config pool = {
        .cores = cores, .queue_limit = queue_limit, .watchdog_min_ms = watchdog_ms};
    struct xi_sessions_config sessions = {.host_program = "host",
                                          .engine_dir = "engines",
                                          .openvino_dir = "",
                                          .cores = cores,
                                          .crash_window_ms = 60000,
                                          .crash_limit = 50,
                                          .drain_ms = 1000};

    return fixture_new(&pool, &sessions);
}

static struct xi_session *urgent_session(struct fixture *f, const char *name, uint32_t lanes)
{
    struct xi_load_options o = fixture_options(name, lanes);

    o.priority = XI_PRIORITY_REALTIME;
    return fixture_load(f, &o);
}

/* Lets a host answer the first thing that runs on it. */
static int answer_one(struct xi_host *host)
{
    uint32_t i;

    for (i = 0; i < host->lanes; i++) {
        if (host->running[i] != 0) {
            fake_done(host, i, XI_OK);
            return 1;
        }
    }
    return 0;
}

static unsigned running_on(const struct xi_host *host)
{
    unsigned n = 0;
    uint32_t i;

    for (i = 0; i < host->lanes; i++)
        n += host->running[i] != 0;
    return n;
}

static int runs_poison(const struct xi_host *host)
{
    return fake_runs(host, POISON);
}

static int all_ready(const struct fixture *f)
{
    const struct xi_entry *e;

    for (e = f->sessions->first; e != NULL; e = e->next) {
        if (e->s.state != XI_SESSION_READY)
            return 0;
    }
    return 1;
}

/* The host as a model whose poison crashes it: restarts, crashes, answers, until all is quiet. */
static void live(struct fixture *f, unsigned ms)
{
    uint64_t until = xi_now_ms() + ms;

    while ((xi_pool_in_flight(f->pool) > 0 || !all_ready(f)) && xi_now_ms() < until) {
        struct xi_host *host = fake_last();

        if (!host->ended && host->loaded && running_on(host) == 0 && f->sessions->first != NULL &&
            f->sessions->first->s.state == XI_SESSION_LOADING)
            fake_loaded(host, 1000000);
        if (!host->ended && runs_poison(host))
            fake_exit(host, "ended by SIGSEGV");
        else if (!host->ended)
            (void)answer_one(host);
        fixture_turn(f);
    }
    fixture_run_ms(f, 5);
}

static void lanes_and_cores_bound_what_runs(void **state)
{
    struct fixture *f = make(3, 100, 10000);
    struct xi_session *s = fixture_session(f, "one", 2), *t = fixture_session(f, "two", 2);
    struct xi_host *first = fake.hosts[0], *second = fake.hosts[1];
    struct asked a[20];
    unsigned i;

    (void)state;
    for (i = 0; i < 20; i++) {
        fixture_ask(f, &a[i], i % 2 ? t : s, 16, 1);
        fixture_submit(f, &a[i]);
    }
    assert_int_equal(running_on(first) + running_on(second), 3);
    assert_int_equal(s->queued + t->queued, 17);
    for (i = 0; i < 20; i++) {
        assert_true(answer_one(i % 2 ? second : first) || answer_one(first) || answer_one(second));
        assert_true(running_on(first) <= 2 && running_on(second) <= 2);
        assert_true(running_on(first) + running_on(second) <= 3);
        /* Nobody waits while a lane is free. */
        if (s->queued + t->queued > 0)
            assert_int_equal(running_on(first) + running_on(second), 3);
    }
    for (i = 0; i < 20; i++)
        assert_true(a[i].answers == 1 && a[i].rc == XI_OK);
    assert_int_equal(s->stats.ok, 10);
    assert_int_equal(s->stats.total.count, 10);
    fixture_free(f);
}

static void sessions_take_turns(void **state)
{
    struct fixture *f = make(1, 100, 10000);
    struct xi_session *s = fixture_session(f, "one", 1), *t = fixture_session(f, "two", 1);
    struct asked a[20];
    unsigned i, of_t = 0;

    (void)state;
    for (i = 0; i < 20; i++) { /* the first session has filled its queue before the other comes */
        fixture_ask(f, &a[i], i < 10 ? s : t, 16, 1);
        fixture_submit(f, &a[i]);
    }
    for (i = 0; i < 10; i++)
        assert_true(answer_one(fake.hosts[0]) || answer_one(fake.hosts[1]));
    for (i = 10; i < 20; i++)
        of_t += (unsigned)a[i].answers;
    assert_in_range(of_t, 4, 6);
    while (answer_one(fake.hosts[0]) || answer_one(fake.hosts[1]))
        ;
    fixture_free(f);
}

static void urgent_ones_go_first(void **state)
{
    static const enum xi_priority order[] = {XI_PRIORITY_BATCH,    XI_PRIORITY_NORMAL,
                                             XI_PRIORITY_REALTIME, XI_PRIORITY_BATCH,
                                             XI_PRIORITY_REALTIME, XI_PRIORITY_NORMAL};
    static const unsigned expected[] = {2, 4, 1, 5, 0, 3}; /* class by class, each in order */
    struct fixture *f = make(1, 100, 10000);
    struct xi_session *s = urgent_session(f, "one", 1);
    struct asked block, a[6];
    unsigned i;

    (void)state;
    fixture_ask(f, &block, s, 16, 1);
    fixture_submit(f, &block);
    for (i = 0; i < 6; i++) {
        fixture_ask(f, &a[i], s, 16, 1);
        a[i].r.priority = order[i];
        fixture_submit(f, &a[i]);
    }
    while (answer_one(fake_last()))
        ;
    for (i = 1; i < 6; i++)
        assert_true(a[expected[i - 1]].order < a[expected[i]].order);
    fixture_free(f);
}

static void a_crash_with_eight_in_flight_loses_nothing(void **state)
{
    unsigned poisoned;

    (void)state;
    for (poisoned = 0; poisoned < 9; poisoned++) { /* 8: none of them, the crash was a whim */
        struct fixture *f = make(8, 100, 10000);
        struct xi_session *s = fixture_session(f, "one", 8);
        struct xi_pool_stats stats;
        struct asked a[12];
        unsigned i;

        for (i = 0; i < 12; i++) {
            fixture_ask(f, &a[i], s, 64, i == poisoned && i < 8 ? POISON : (uint8_t)i);
            fixture_submit(f, &a[i]);
        }
        assert_int_equal(running_on(fake_last()), 8);
        fake_exit(fake_last(), "ended by SIGSEGV");
        assert_int_equal(s->queue->suspects.n, 8);
        live(f, 3000);
        for (i = 0; i < 12; i++) {
            assert_int_equal(a[i].answers, 1);
            assert_int_equal(a[i].rc, i == poisoned && poisoned < 8 ? XI_EINCIDENT : XI_OK);
        }
        /* Suspects ran alone: the first life saw 8 at once, the second one at a time. */
        assert_int_equal(fake.hosts[0]->most_running, 8);
        if (poisoned < 8)
            assert_int_equal(fake.hosts[1]->most_running, 1);
        xi_pool_stats(f->pool, &stats);
        assert_int_equal(stats.incidents, poisoned < 8);
        assert_int_equal(stats.retried, 8);
        assert_int_equal(fake.n_hosts, poisoned < 8 ? 3 : 2);
        assert_int_equal(fake.most_alive, 1);
        fixture_free(f);
    }
}

static void poison_is_refused_afterwards(void **state)
{
    static const uint64_t sizes[] = {64, XI_HASH_ON_LOOP, XI_HASH_ON_LOOP + 1, 3u << 20};
    unsigned i;

    (void)state;
    for (i = 0; i < 4; i++) {
        struct fixture *f = make(2, 100, 10000);
        struct xi_session *s = fixture_session(f, "one", 2);
        struct xi_pool_stats stats;
        struct asked a, b, c, d;
        unsigned before;

        fixture_ask(f, &a, s, sizes[i], POISON);
        fixture_submit(f, &a);
        live(f, 3000);
        assert_int_equal(a.rc, XI_EINCIDENT);
        assert_non_null(strstr(a.err.msg, "ended by SIGSEGV"));
        before = fake.n_hosts;
        fixture_ask(f, &b, s, sizes[i], POISON);
        fixture_submit(f, &b);
        live(f, 3000);
        assert_true(b.answers == 1 && b.rc == XI_EPOISON);
        fixture_ask(f, &c, s, sizes[i], 1); /* as long, but another */
        fixture_submit(f, &c);
        fixture_ask(f, &d, s, sizes[i] - 1, 1);
        fixture_submit(f, &d);
        live(f, 3000);
        assert_true(c.answers == 1 && c.rc == XI_OK && d.answers == 1 && d.rc == XI_OK);
        assert_int_equal(fake.n_hosts, before); /* nobody crashed for it */
        xi_pool_stats(f->pool, &stats);
        assert_int_equal(stats.poison_refused, 1);
        fixture_free(f);
    }
}

static void poison_expires_and_its_table_is_bounded(void **state)
{
    struct fixture *f = make(1, 400, 10000);
    struct xi_session *s = fixture_session(f, "one", 1);
    struct asked a;
    unsigned i;

    (void)state;
    fixture_ask(f, &a, s, 64, POISON);
    fixture_submit(f, &a);
    live(f, 3000);
    assert_int_equal(f->pool->n_poison, 1);
    for (i = 0; i < XI_POISON_MAX; i++) {
        if (f->pool->poison[i].expires_ms != 0)
            f->pool->poison[i].expires_ms = xi_now_ms();
    }
    fixture_ask(f, &a, s, 64, POISON);
    fixture_submit(f, &a);
    assert_int_equal(a.answers, 0); /* taken: ten minutes have passed */
    assert_int_equal(f->pool->n_poison, 0);
    xi_pool_cancel(f->pool, &a.r);
    answer_one(fake_last());
    fixture_free(f);
}

/* A turn of the loop answers all whose time was over when it began; timers count milliseconds. */
static void turn_in_time(struct fixture *f, const struct asked *a, unsigned n)
{
    uint64_t now = xi_now_ns();
    unsigned i;

    fixture_turn(f);
    for (i = 0; i < n; i++)
        assert_true(a[i].answers == 1 || a[i].r.deadline_ns + 3000000u > now);
}

static void deadlines_expire_in_time(void **state)
{
    struct fixture *f = make(1, 100, 10000);
    struct xi_session *s = fixture_session(f, "one", 1);
    struct asked block, a[30], late;
    uint64_t now;
    unsigned i, submits;

    (void)state;
    s->service_ns = 1; /* nothing is refused because it could be late */
    fixture_ask(f, &block, s, 16, 1);
    fixture_submit(f, &block);
    submits = fake.submits;
    now = xi_now_ns();
    for (i = 0; i < 30; i++) {
        fixture_ask(f, &a[i], s, 16, 1);
        a[i].r.deadline_ns = now + (20u + (i * 7u) % 30u) * 1000000ull;
        fixture_submit(f, &a[i]);
    }
    while (f->pool->in_flight > 1)
        turn_in_time(f, a, 30);
    for (i = 0; i < 30; i++) {
        assert_true(a[i].answers == 1 && a[i].rc == XI_ETIMEOUT);
        assert_true(a[i].r.timing.completed >= a[i].r.deadline_ns);
    }
    assert_int_equal(fake.submits, submits); /* dropped before they ran */
    fixture_ask(f, &late, s, 16, 1);
    late.r.deadline_ns = xi_now_ns() - 1;
    fixture_submit(f, &late);
    assert_true(late.answers == 1 && late.rc == XI_ETIMEOUT);
    assert_int_equal(s->stats.expired, 31);
    fake_done(fake_last(), 0, XI_OK);
    assert_int_equal(block.rc, XI_OK);
    fixture_free(f);
}

static void cancel_in_every_state(void **state)
{
    struct fixture *f = make(2, 100, 10000);
    struct xi_session *s = fixture_session(f, "one", 2);
    struct asked fresh, running, other, queued, suspect, checking;

    (void)state;
    fixture_ask(f, &fresh, s, 16, 1);
    xi_pool_cancel(f->pool, &fresh.r);
    assert_int_equal(fresh.rc, XI_ECANCELLED);

    fixture_ask(f, &running, s, 16, 1);
    fixture_ask(f, &other, s, 16, 1);
    fixture_ask(f, &queued, s, 16, 1);
    fixture_submit(f, &running);
    fixture_submit(f, &other);
    fixture_submit(f, &queued);
    xi_pool_cancel(f->pool, &queued.r);
    assert_true(queued.answers == 1 && queued.rc == XI_ECANCELLED && s->queued == 0);
    xi_pool_cancel(f->pool, &running.r);
    assert_true(running.answers == 1 && running.rc == XI_ECANCELLED);
    assert_int_equal(running_on(fake_last()), 2); /* its lane works on, into the void */
    assert_int_equal(fake.slots, 2);              /* and its bytes stay until then */
    assert_true(answer_one(fake_last()));
    assert_int_equal(running.answers, 1);
    assert_int_equal(fake.slots, 1);

    fixture_ask(f, &suspect, s, 16, 1);
    fixture_submit(f, &suspect);
    fake_exit(fake_last(), "ended by SIGBUS");
    assert_int_equal(suspect.r.state, XI_REQ_SUSPECT);
    xi_pool_cancel(f->pool, &suspect.r);
    assert_true(suspect.answers == 1 && suspect.rc == XI_ECANCELLED);
    live(f, 3000);
    assert_true(other.answers == 1 && other.rc == XI_OK);

    fixture_ask(f, &checking, s, 4u << 20, POISON);
    fixture_submit(f, &checking);
    fake_exit(fake_last(), "ended by SIGSEGV");
    while (checking.r.state == XI_REQ_SUSPECT || checking.r.state == XI_REQ_QUEUED) {
        fixture_turn(f);
        if (s->state == XI_SESSION_LOADING && s->host != NULL)
            fake_loaded(fake_last(), 1000000);
    }
    fake_exit(fake_last(), "ended by SIGSEGV");
    assert_int_equal(checking.r.state, XI_REQ_CHECKING);
    xi_pool_cancel(f->pool, &checking.r);
    assert_true(checking.answers == 1 && checking.rc == XI_ECANCELLED);
    xi_pool_cancel(f->pool, &checking.r); /* twice is harmless */
    fixture_run_ms(f, 50);
    assert_int_equal(checking.answers, 1);
    assert_int_equal(fake.slots, 0);
    fixture_free(f);
}

static void the_queue_is_bounded(void **state)
{
    struct fixture *f = make(1, 5, 10000);
    struct xi_session *s = fixture_session(f, "one", 1);
    struct asked a[10];
    unsigned i;

    (void)state;
    for (i = 0; i < 10; i++) {
        fixture_ask(f, &a[i], s, 16, 1);
        fixture_submit(f, &a[i]);
    }
    for (i = 0; i < 10; i++) {
        assert_int_equal(a[i].answers, i < 6 ? 0 : 1);
        if (i >= 6)
            assert_true(a[i].rc == XI_EAGAIN && a[i].r.retry_after_s >= 1);
    }
    assert_int_equal(s->stats.refused, 4);
    while (answer_one(fake_last()))
        ;
    for (i = 0; i < 6; i++)
        assert_int_equal(a[i].rc, XI_OK);
    fixture_free(f);
}

static void a_hang_is_a_death(void **state)
{
    struct fixture *f = make(2, 100, 80);
    struct xi_session *s = fixture_session(f, "one", 2);
    struct xi_pool_stats stats;
    struct asked hangs, innocent;
    uint64_t began;

    (void)state;
    fixture_ask(f, &hangs, s, 16, POISON);
    fixture_ask(f, &innocent, s, 16, 1);
    began = xi_now_ms();
    fixture_submit(f, &hangs);
    fixture_submit(f, &innocent);
    while (!fake_last()->stopped)
        fixture_run_ms(f, 1);
    assert_true(xi_now_ms() - began >= 79); /* it was given its time */
    assert_non_null(strstr(fake_last()->stop_why, "hung"));
    fake_exit(fake_last(), "");
    assert_int_equal(s->queue->suspects.n, 2);
    while (s->host == NULL)
        fixture_run_ms(f, 1);
    fake_loaded(fake_last(), 1000000);
    assert_int_equal(running_on(fake_last()), 1);
    while (!fake_last()->stopped) /* alone, and hangs again */
        fixture_run_ms(f, 1);
    fake_exit(fake_last(), "");
    live(f, 2000);
    assert_true(hangs.answers == 1 && hangs.rc == XI_EINCIDENT);
    assert_true(innocent.answers == 1 && innocent.rc == XI_OK);
    xi_pool_stats(f->pool, &stats);
    assert_int_equal(stats.watchdog_kills, 2);
    fixture_free(f);
}

static void slow_models_are_given_their_time(void **state)
{
    struct fixture *f = make(1, 100, 20);
    struct xi_session *s = fixture_session(f, "one", 1);
    struct asked a;

    (void)state;
    s->service_ns = 100000000; /* 100 ms learned: 2 s are allowed */
    fixture_ask(f, &a, s, 16, 1);
    fixture_submit(f, &a);
    fixture_run_ms(f, 100);
    assert_false(fake_last()->stopped);
    assert_int_equal(xi_watchdog_allowance_ns(s->queue, 1), 2000000000ull);
    fake_done_id(fake_last(), 0, a.r.id, 20000000); /* 20 ms: an eighth of the way */
    assert_int_equal(a.rc, XI_OK);
    assert_int_equal(s->service_ns, 100000000 - 12500000 + 2500000);
    fixture_free(f);
}

static void a_lie_ends_the_host(void **state)
{
    struct fixture *f = make(1, 100, 10000);
    struct xi_session *s = fixture_session(f, "one", 1);
    struct asked a;

    (void)state;
    fixture_ask(f, &a, s, 16, 1);
    fixture_submit(f, &a);
    fake_done_id(fake_last(), 0, a.r.id + 77, 1000);
    assert_true(fake_last()->stopped);
    assert_int_equal(a.answers, 0);
    fake_exit(fake_last(), "");
    live(f, 2000);
    assert_true(a.answers == 1 && a.rc == XI_OK);
    (void)s;
    fixture_free(f);
}

static void bad_inputs_are_refused(void **state)
{
    struct fixture *f = make(1, 100, 10000);
    struct xi_session *s = fixture_session(f, "one", 1);
    struct asked a;
    unsigned kind;

    (void)state;
    for (kind = 0; kind < 7; kind++) {
        fixture_ask(f, &a, s, 16, 1);
        switch (kind) {
        case 0:
            a.r.n_parts = 0;
            break;
        case 1:
            a.r.parts[0].dtype = XI_DT_FP32;
            break;
        case 2:
            a.r.parts[0].dims[0] = 17;
            break;
        case 3:
            a.r.parts[0].index = 1;
            break;
        case 4:
            a.r.parts[1] = a.r.parts[0];
            a.r.n_parts = 2;
            break;
        case 5:
            a.r.parts[0].kind = XI_PART_BYTES; /* and there is no flow */
            break;
        default:
            a.r.parts[0].mem.offset = UINT64_MAX - 8;
            break;
        }
        fixture_submit(f, &a);
        assert_int_equal(a.answers, 1);
        assert_int_equal(a.rc, kind == 6 ? XI_EINTERNAL : XI_ETENSOR);
    }
    assert_int_equal(fake.submits, 0);
    fixture_free(f);
}

static void draining_refuses_new_and_finishes_old(void **state)
{
    struct fixture *f = make(1, 100, 10000);
    struct xi_session *s = fixture_session(f, "one", 1);
    struct asked a, b, c;

    (void)state;
    fixture_ask(f, &a, s, 16, 1);
    fixture_ask(f, &b, s, 16, 1);
    fixture_submit(f, &a);
    fixture_submit(f, &b);
    xi_pool_drain(f->pool);
    fixture_ask(f, &c, s, 16, 1);
    fixture_submit(f, &c);
    assert_true(c.answers == 1 && c.rc == XI_EDRAIN);
    assert_int_equal(xi_pool_in_flight(f->pool), 2);
    while (answer_one(fake_last()))
        ;
    assert_true(a.rc == XI_OK && b.rc == XI_OK && xi_pool_in_flight(f->pool) == 0);
    fixture_free(f);
}

static void a_send_that_fails_loses_nothing(void **state)
{
    struct fixture *f = make(1, 100, 10000);
    struct xi_session *s = fixture_session(f, "one", 1);
    struct asked a, b;

    (void)state;
    fake.submit_rc = XI_EFDS;
    fixture_ask(f, &a, s, 16, 1);
    fixture_submit(f, &a);
    assert_true(a.answers == 1 && a.rc == XI_EFDS);
    fake.submit_rc = XI_EHOST; /* it is ending, its exit is not yet known */
    fixture_ask(f, &b, s, 16, 1);
    fixture_submit(f, &b);
    assert_true(b.answers == 0 && s->queued == 1);
    fake_exit(fake_last(), "ended by SIGKILL");
    live(f, 2000);
    assert_true(b.answers == 1 && b.rc == XI_OK && b.r.attempts == 1);
    fixture_free(f);
}

static void engine_errors_are_passed_on(void **state)
{
    static const int codes[] = {XI_ETENSOR, XI_EIMAGE, XI_EENGINE, -12345};
    struct fixture *f = make(1, 100, 10000);
    struct xi_session *s = fixture_session(f, "one", 1);
    unsigned i;

    (void)state;
    for (i = 0; i < 4; i++) {
        struct asked a;

        fixture_ask(f, &a, s, 16, 1);
        fixture_submit(f, &a);
        fake_done(fake_last(), 0, (enum xi_rc)codes[i]);
        assert_int_equal(a.rc, i == 3 ? XI_EENGINE : (enum xi_rc)codes[i]);
        assert_string_equal(a.err.msg, "the engine says no");
    }
    assert_int_equal(s->stats.client_errors, 2);
    assert_int_equal(s->stats.server_errors, 2);
    fixture_free(f);
}

static void allocate_nothing(uint32_t batch)
{
    struct fixture *f = make(2, 100, 10000);
    struct xi_load_options o = fixture_options("one", 2);
    struct xi_session *s, *found;
    struct xi_slot *slot;
    struct asked a[8];
    struct xi_err err;
    unsigned round, i;
    uint64_t before;

    fake.rank = 2;
    fake.max_batch = o.max_batch = batch;
    s = fixture_load(f, &o);
    for (i = 0; i < 8; i++) {
        fixture_ask(f, &a[i], s, 16, 1);
        a[i].r.parts[0].rank = 2;
        a[i].r.parts[0].dims[0] = 1;
        a[i].r.parts[0].dims[1] = 16;
    }
    before = allocations;
    for (round = 0; round < 1000; round++) {
        for (i = 0; i < 8; i++) {
            slot = a[i].r.slot;
            xi_slot_get(slot); /* so that it is there in the next round */
            assert_int_equal(xi_sessions_find(f->sessions, "default", "one", &found, &err), XI_OK);
            if (round > 0)
                xi_session_get(found);
            a[i].r.state = XI_REQ_NEW;
            a[i].r.deadline_ns = i % 2 ? xi_now_ns() + 1000000000ull * (i + 1) : 0;
            fixture_submit(f, &a[i]);
        }
        while (answer_one(fake_last()))
            ;
        fixture_turn(f);
    }
    assert_int_equal(allocations, before);
    for (i = 0; i < 8; i++) {
        assert_int_equal(a[i].answers, 1000);
        xi_slot_put(a[i].r.slot);
    }
    assert_true((s->stats.runs < s->stats.ran) == (batch > 1));
    fixture_free(f);
}

static void nothing_is_allocated_on_the_way(void **state)
{
    (void)state;
    allocate_nothing(1);
    allocate_nothing(4);
}

/* ---- a random life ---- */

#define CROWD 400

/* Whoever kills a host while a suspect is tried makes it guilty: not what is tested here. */
static int runs_alone(struct xi_session **s, const struct xi_host *host)
{
    unsigned i;

    for (i = 0; i < 2; i++) {
        if (s[i]->host == host && s[i]->queue->cell != NULL && s[i]->queue->cell->alone != NULL)
            return 1;
    }
    return 0;
}

static void random_step(struct fixture *f, struct xi_session **s, struct asked *a, unsigned *n)
{
    struct xi_host *host = fake.hosts[below(fake.n_hosts)];
    unsigned what = below(100);

    if (what < 45 && *n < CROWD) {
        struct asked *one = &a[(*n)++];

        fixture_ask(f, one, s[below(2)], 16 + below(3),
                    below(25) == 0 ? POISON : (uint8_t)below(200));
        one->r.priority = (enum xi_priority)below(3);
        if (below(4) == 0)
            one->r.deadline_ns = xi_now_ns() + below(300) * 1000000ull;
        fixture_submit(f, one);
    } else if (what < 85) {
        if (!host->ended && runs_poison(host))
            fake_exit(host, "ended by SIGSEGV");
        else if (!host->ended)
            (void)answer_one(host);
    } else if (what < 92 && *n > 0) {
        struct asked *one = &a[below(*n)];

        if (one->r.state != XI_REQ_FINISHED)
            xi_pool_cancel(f->pool, &one->r);
    } else if (what < 93 && !host->ended && !runs_alone(s, host)) {
        fake_exit(host, "ended by SIGKILL");
    }
}

static void bring_hosts_up(struct xi_session **s)
{
    unsigned i;

    for (i = 0; i < 2; i++) {
        if (s[i]->state == XI_SESSION_LOADING && s[i]->host != NULL && s[i]->host->loaded)
            fake_loaded(s[i]->host, 1000000);
    }
}

static void a_random_life_answers_everybody_once(void **state)
{
    unsigned seed, kinds[8] = {0};
    static const enum xi_rc known[] = {XI_OK,     XI_EINCIDENT,  XI_EPOISON, XI_ETIMEOUT,
                                       XI_EAGAIN, XI_ECANCELLED, XI_EHOST,   XI_ECRASHLOOP};

    (void)state;
    for (seed = 1; seed <= 8; seed++) {
        struct fixture *f = make(3, 20, 100000);
        struct xi_session *s[2] = {urgent_session(f, "one", 2), fixture_session(f, "two", 3)};
        struct asked *a = calloc(CROWD, sizeof(*a));
        unsigned n = 0, i, k, steps = 0;

        assert_non_null(a);
        random_state = seed;
        while (n < CROWD || xi_pool_in_flight(f->pool) > 0) {
            random_step(f, s, a, &n);
            bring_hosts_up(s);
            if (++steps % 8 == 0)
                fixture_turn(f);
            if (xi_pool_in_flight(f->pool) > 0 && f->pool->running == 0)
                fixture_run_ms(f, 2);
            assert_true(f->pool->running <= 4); /* one more for realtime */
            assert_true(s[0]->queued <= 20 && s[1]->queued <= 20);
        }
        for (i = 0; i < n; i++) {
            assert_int_equal(a[i].answers, 1);
            if (a[i].fill != POISON)
                assert_true(a[i].rc != XI_EINCIDENT && a[i].rc != XI_EPOISON);
            for (k = 0; k < 8 && known[k] != a[i].rc; k++)
                ;
            assert_true(k < 8);
            kinds[k]++;
        }
        assert_true(fake.most_alive <= 2);
        free(a);
        fixture_free(f);
    }
    print_message("ok %u incident %u poison %u expired %u full %u cancelled %u host %u loop %u\n",
                  kinds[0], kinds[1], kinds[2], kinds[3], kinds[4], kinds[5], kinds[6], kinds[7]);
    assert_true(kinds[0] > 100 && kinds[1] > 0 && kinds[2] > 0 && kinds[3] > 0 && kinds[5] > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lanes_and_cores_bound_what_runs),
        cmocka_unit_test(sessions_take_turns),
        cmocka_unit_test(urgent_ones_go_first),
        cmocka_unit_test(a_crash_with_eight_in_flight_loses_nothing),
        cmocka_unit_test(poison_is_refused_afterwards),
        cmocka_unit_test(poison_expires_and_its_table_is_bounded),
        cmocka_unit_test(deadlines_expire_in_time),
        cmocka_unit_test(cancel_in_every_state),
        cmocka_unit_test(the_queue_is_bounded),
        cmocka_unit_test(a_hang_is_a_death),
        cmocka_unit_test(slow_models_are_given_their_time),
        cmocka_unit_test(a_lie_ends_the_host),
        cmocka_unit_test(bad_inputs_are_refused),
        cmocka_unit_test(draining_refuses_new_and_finishes_old),
        cmocka_unit_test(a_send_that_fails_loses_nothing),
        cmocka_unit_test(engine_errors_are_passed_on),
        cmocka_unit_test(nothing_is_allocated_on_the_way),
        cmocka_unit_test(a_random_life_answers_everybody_once),
    };
    return cmocka_run_group_tests_name("worker_pool", tests, NULL, NULL);
}
