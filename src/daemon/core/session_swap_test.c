/* Swaps, leases and idling against fake hosts and a fake store. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/hash.h"
#include "daemon/core/chance.h"
#include "daemon/core/core_fixture.h"
#include "daemon/core/leases.h"
#include "daemon/core/session_private.h"
#include "daemon/core/session_swap.h"

static struct fixture *make_with(unsigned crash_limit, uint64_t memory_bytes)
{
    struct xi_pool_config pool = {.cores = 2, .queue_limit = 50, .watchdog_min_ms = 10000};
    struct xi_sessions_config sessions = {.host_program = "host",
                                          .engine_dir = "engines",
                                          .openvino_dir = "",
                                          .cores = 2,
                                          .crash_window_ms = 60000,
                                          .crash_limit = crash_limit,
                                          .drain_ms = 400,
                                          .memory_bytes = memory_bytes};

    return fixture_new(&pool, &sessions);
}

static struct fixture *make(unsigned crash_limit)
{
    return make_with(crash_limit, 0);
}

static enum xi_rc begin(struct fixture *f, const struct xi_swap_ask *ask, struct told *t,
                        struct xi_session **ret, struct xi_err *err)
{
    struct xi_load_options o = fixture_options("net", 1);
    char id[XI_UUID_TEXT + 1];

    xi_uuid_new(id);
    return xi_swap_begin(f->sessions, id, DIGEST_B, fixture_record("net", "a"), &o, ask,
                         fixture_told, t, ret, err);
}

static struct xi_session *active(struct fixture *f)
{
    struct xi_session *s = NULL;
    struct xi_err err;

    return xi_sessions_find(f->sessions, "default", "net", &s, &err) == XI_OK ? s : NULL;
}

static enum xi_rc route(struct fixture *f, const char *which, struct xi_session **ret,
                        struct xi_err *err)
{
    struct xi_route_ask ask = {.tenant = "default", .name_or_id = which, .client = "default"};
    int wait;

    return xi_sessions_route(f->sessions, &ask, ret, &wait, err);
}

static void end_stopped(void)
{
    unsigned i;

    for (i = 0; i < fake.n_hosts; i++) {
        if (fake.hosts[i]->stopped && !fake.hosts[i]->ended)
            fake_exit(fake.hosts[i], "");
    }
}

static void the_name_is_flipped_when_it_is_on_disk(void **state)
{
    struct fixture *f = make(5);
    struct xi_session *old = fixture_session(f, "net", 1), *new, *used;
    struct xi_host *old_host = fake_last();
    struct told t = {0};
    struct xi_err err;
    char old_id[XI_UUID_TEXT + 1];

    (void)state;
    memcpy(old_id, old->id, sizeof(old_id));
    assert_int_equal(begin(f, &(struct xi_swap_ask){0}, &t, &new, &err), XI_OK);
    fake_loaded(fake_last(), 1000);
    fixture_run_ms(f, 5);
    assert_true(fake.replaces == 1 && t.times == 0); /* being written */
    assert_string_equal(fake.row_out, old->id);
    assert_string_equal(fake.row_in, new->id);
    assert_ptr_equal(active(f), old);
    assert_int_equal(route(f, "net", &used, &err), XI_OK); /* its body is on its way */
    assert_ptr_equal(used, old);
    assert_true(xi_swap_commits(old));
    fake_replaced(XI_OK);
    assert_true(t.times == 1 && t.rc == XI_OK);
    assert_string_equal(t.id, new->id);
    assert_ptr_equal(active(f), new);
    assert_string_equal(new->replaced, old->id);
    fixture_run_ms(f, 20);
    assert_false(old_host->stopped); /* somebody uses it */
    assert_int_equal(route(f, old_id, &new, &err), XI_EGONE);
    xi_session_leave(used);
    fixture_run_ms(f, 5);
    assert_true(old_host->stopped);
    end_stopped();
    fixture_run_ms(f, 5);
    assert_int_equal(xi_sessions_count(f->sessions), 1);
    assert_string_equal(xi_sessions_successor(f->sessions, old_id), active(f)->id);
    fixture_free(f);
}

static void a_disk_that_fails_leaves_the_old_one(void **state)
{
    static const enum xi_swap_strategy strategies[] = {XI_STRATEGY_BESIDE, XI_STRATEGY_IN_PLACE};
    unsigned i;

    (void)state;
    for (i = 0; i < 2; i++) {
        struct fixture *f = make(5);
        struct xi_session *old = fixture_session(f, "net", 1), *new;
        struct told t = {0};
        struct xi_err err;

        assert_int_equal(begin(f, &(struct xi_swap_ask){.strategy = strategies[i]}, &t, &new, &err),
                         XI_OK);
        fixture_run_ms(f, 5);
        end_stopped(); /* in place: the old host */
        fixture_run_ms(f, 5);
        fake_loaded(fake_last(), 1000);
        fixture_run_ms(f, 5);
        fake_replaced(XI_EDISK);
        fixture_run_ms(f, 5);
        end_stopped(); /* the new host */
        fixture_run_ms(f, 5);
        if (i == 1) {
            struct xi_session *nobody;
            assert_int_equal(t.times, 0); /* told when the old one serves again */
            assert_int_equal(route(f, "net", &nobody, &err), XI_EAGAIN);
            fake_loaded(fake_last(), 1000);
            fixture_run_ms(f, 5);
        }
        assert_true(t.times == 1 && t.rc == XI_EDISK);
        assert_true(active(f) == old && old->state == XI_SESSION_READY && old->swap == NULL);
        assert_int_equal(xi_sessions_count(f->sessions), 1);
        fixture_free(f);
    }
}

/* Somebody else took the room while the new one was tried in place: the old one sleeps, and its
 * name is not held for ever. */
static void a_rollback_without_room_ends(void **state)
{
    struct fixture *f = make_with(5, 60 * XI_MIB);
    struct xi_load_options o = fixture_options("thief", 1);
    struct xi_session *old, *new, *thief, *nobody;
    struct told t = {0};
    struct xi_err err;
    char id[XI_UUID_TEXT + 1];

    (void)state;
    fake.memory_bytes = 40 * XI_MIB; /* and so the store knows */
    old = fixture_session(f, "net", 1);
    assert_int_equal(
        begin(f, &(struct xi_swap_ask){.strategy = XI_STRATEGY_IN_PLACE}, &t, &new, &err), XI_OK);
    fixture_run_ms(f, 5);
    end_stopped();
    fixture_run_ms(f, 5);
    fake_failed(fake_last(), XI_EMODEL, "it is broken");
    fixture_run_ms(f, 5);
    end_stopped();
    o.pinned = 1;
    xi_uuid_new(id);
    assert_int_equal(xi_sessions_load(f->sessions, id, DIGEST_A, fixture_record("thief", "a"), &o,
                                      NULL, NULL, &thief, &err),
                     XI_OK);
    fixture_run_ms(f, 20);
    assert_true(t.times == 1 && t.rc == XI_EMODEL);
    assert_true(old->state == XI_SESSION_IDLE && old->swap == NULL);
    assert_int_equal(route(f, "net", &nobody, &err), XI_EBUDGET);
    fixture_free(f);
}

/* A candidate that finds no room has failed, also where it is to be lazy later. */
static void a_lazy_candidate_without_room_fails(void **state)
{
    struct fixture *f = make_with(5, 60 * XI_MIB);
    struct xi_load_options o = fixture_options("net", 1);
    struct xi_session *old, *new;
    struct told t = {0};
    struct xi_err err;
    char id[XI_UUID_TEXT + 1];

    (void)state;
    fake.memory_bytes = 40 * XI_MIB;
    old = fixture_session(f, "net", 1);
    o.lazy = 1;
    xi_uuid_new(id);
    assert_int_equal(xi_swap_begin(f->sessions, id, DIGEST_B, fixture_record("net", "a"), &o,
                                   &(struct xi_swap_ask){.strategy = XI_STRATEGY_BESIDE},
                                   fixture_told, &t, &new, &err),
                     XI_OK);
    fixture_run_ms(f, 20);
    assert_true(t.times == 1 && t.rc == XI_EBUDGET);
    assert_true(active(f) == old && old->swap == NULL);
    assert_int_equal(xi_sessions_count(f->sessions), 1);
    fixture_free(f);
}

static void a_second_swap_names_the_first(void **state)
{
    struct fixture *f = make(5);
    struct xi_session *new, *other;
    struct told t = {0};
    struct xi_err err;

    (void)state;
    (void)fixture_session(f, "net", 1);
    assert_int_equal(begin(f, &(struct xi_swap_ask){0}, &t, &new, &err), XI_OK);
    assert_int_equal(begin(f, &(struct xi_swap_ask){0}, &t, &other, &err), XI_ECONFLICT);
    assert_non_null(strstr(err.msg, new->id));
    xi_swap_rollback(f->sessions, "default", "net", fixture_told, &t);
    assert_int_equal(t.times, 2); /* the caller of the swap, and of the rollback */
    fixture_run_ms(f, 5);
    end_stopped();
    fixture_run_ms(f, 5);
    assert_int_equal(begin(f, &(struct xi_swap_ask){0}, &t, &other, &err), XI_OK);
    fixture_free(f);
}

static void a_version_that_crash_loops_is_undone(void **state)
{
    struct fixture *f = make(2);
    struct xi_session *new;
    struct told t = {0};
    struct xi_err err;
    char new_id[XI_UUID_TEXT + 1];
    unsigned i;

    (void)state;
    (void)fixture_session(f, "net", 1);
    assert_int_equal(begin(f, &(struct xi_swap_ask){0}, &t, &new, &err), XI_OK);
    memcpy(new_id, new->id, sizeof(new_id));
    fake_loaded(fake_last(), 1000);
    fixture_run_ms(f, 5);
    fake_replaced(XI_OK);
    fixture_run_ms(f, 5);
    end_stopped();
    fixture_run_ms(f, 5);
    for (i = 0; i < 2; i++) {
        fake_exit(fake_last(), "ended by SIGSEGV");
        fixture_run_ms(f, 120);
        if (i == 0)
            fake_loaded(fake_last(), 1000);
    }
    assert_int_equal(active(f)->state, XI_SESSION_FAILED);
    assert_string_equal(fake.found, DIGEST_A);
    fake_found(fixture_record("net", "a"));
    fake_loaded(fake_last(), 1000);
    fixture_run_ms(f, 5);
    fake_replaced(XI_OK);
    fixture_run_ms(f, 5);
    assert_int_equal(active(f)->state, XI_SESSION_READY);
    assert_string_equal(active(f)->digest, DIGEST_A);
    assert_string_equal(active(f)->replaced, new_id);
    fixture_free(f);
}

static void leases_count_expire_and_move(void **state)
{
    struct xi_session a = {.name = "a"}, b = {.name = "b"};
    struct xi_leases l = {0};
    const struct xi_lease *lease;
    char ids[100][XI_UUID_TEXT + 1];
    struct xi_err err;
    unsigned i;

    (void)state;
    for (i = 0; i < 100; i++) {
        assert_int_equal(xi_leases_add(&l, i % 2 ? &a : &b, 1000 + i, &lease, &err), XI_OK);
        memcpy(ids[i], lease->id, sizeof(ids[i]));
    }
    assert_true(a.leases == 50 && b.leases == 50);
    assert_int_equal(xi_leases_expire(&l, 999), 0);
    assert_int_equal(xi_leases_expire(&l, 1009), 10);
    assert_true(a.leases == 45 && b.leases == 45);
    assert_null(xi_leases_find(&l, ids[9]));
    xi_leases_find(&l, ids[10])->expires_ms = 5000; /* renewed */
    xi_leases_hand_over(&l, &a, &b);
    assert_true(a.leases == 0 && b.leases == 90);
    assert_int_equal(xi_leases_expire(&l, 2000), 89);
    xi_leases_end(&l, xi_leases_find(&l, ids[10]));
    assert_true(b.leases == 0 && l.n == 0);
    for (i = 0; i < XI_LEASES_MAX; i++)
        assert_int_equal(xi_leases_add(&l, &a, 1, &lease, &err), XI_OK);
    assert_int_equal(xi_leases_add(&l, &a, 1, &lease, &err), XI_EAGAIN);
    xi_leases_hand_over(&l, &a, NULL);
    assert_int_equal(a.leases, 0);
    xi_leases_fini(&l);
}

static void what_is_used_does_not_idle(void **state)
{
    struct fixture *f = make(5);
    struct xi_session *s = fixture_session(f, "net", 1), *used;
    struct xi_host *host = fake_last();
    const struct xi_lease *lease;
    struct xi_err err;

    (void)state;
    assert_int_equal(route(f, "net", &used, &err), XI_OK);
    assert_false(xi_sessions_idle(f->sessions, s, "test"));
    xi_session_leave(used);
    assert_int_equal(xi_sessions_lease(f->sessions, s, 60, &lease, &err), XI_OK);
    assert_false(xi_sessions_idle(f->sessions, s, "test"));
    xi_leases_end(&f->sessions->leases, xi_leases_find(&f->sessions->leases, lease->id));
    assert_true(xi_sessions_idle(f->sessions, s, "test"));
    assert_true(host->stopped && s->state == XI_SESSION_IDLE);
    assert_int_equal(route(f, "net", &used, &err), XI_OK); /* before it has ended */
    fake_exit(host, "");
    assert_true(fake_last() != host);
    fake_loaded(fake_last(), 1000);
    assert_int_equal(s->state, XI_SESSION_READY);
    xi_session_leave(used);
    fixture_free(f);
}

/* ---- a storm ---- */

struct storm {
    struct fixture *f;
    struct told told[600];
    struct asked asked[1200];
    struct xi_session *used[1200];
    unsigned n_told, n_asked;
};

static void a_caller(struct storm *w)
{
    struct xi_swap_ask ask = {.strategy = (enum xi_swap_strategy)below(4),
                              .share = below(2) ? below(900) : 0};
    struct told *t = &w->told[w->n_told];
    struct xi_session *s = NULL;
    struct xi_request *copy;
    struct xi_err err;

    if (ask.strategy >= XI_STRATEGY_IN_PLACE)
        ask.share = 0;
    switch (below(6)) {
    case 0:
        w->n_told += begin(w->f, &ask, t, &s, &err) == XI_OK;
        break;
    case 1:
        w->n_told++;
        (below(2) ? xi_swap_promote : xi_swap_rollback)(w->f->sessions, "default", "net",
                                                        fixture_told, t);
        break;
    case 2:
        s = active(w->f);
        if (s != NULL && below(4) == 0 && !xi_swap_commits(s)) {
            w->n_told++;
            xi_sessions_unload(w->f->sessions, s, fixture_told, t);
        } else if (s != NULL) {
            (void)xi_sessions_idle(w->f->sessions, s, "test");
        } else {
            struct xi_load_options o = fixture_options("net", 1);
            char id[XI_UUID_TEXT + 1];

            xi_uuid_new(id);
            w->n_told += xi_sessions_load(w->f->sessions, id, DIGEST_A, fixture_record("net", "a"),
                                          &o, fixture_told, t, &s, &err) == XI_OK;
        }
        break;
    default:
        if (route(w->f, "net", &s, &err) == XI_OK) {
            struct asked *a = &w->asked[w->n_asked];

            w->used[w->n_asked++] = s;
            fixture_ask(w->f, a, s, 16, 1);
            copy = xi_sessions_mirror(&a->r);
            fixture_submit(w->f, a);
            if (copy != NULL)
                xi_pool_submit(w->f->pool, copy);
        }
    }
}

static void the_store(void)
{
    if (fake.replaced != NULL && below(2))
        fake_replaced(below(6) == 0 ? XI_EDISK : XI_OK);
    if (fake.finder != NULL)
        fake_found(fixture_record("net", "a"));
}

static void a_host(struct xi_host *host)
{
    uint32_t lane;

    if (host->ended)
        return;
    if (host->stopped || below(25) == 0) {
        fake_exit(host, host->stopped ? "" : "ended by SIGSEGV");
        return;
    }
    if (host->load.session != 0) {
        uint32_t asked = host->load.session;

        if (below(8) == 0)
            fake_failed(host, below(2) ? XI_EGOLDEN : XI_EBUDGET, "no");
        else
            fake_loaded(host, 1000);
        if (host->load.session == asked)
            host->load.session = 0; /* an honest host says so once */
        return;
    }
    for (lane = 0; lane < host->lanes; lane++) {
        if (host->running[lane] != 0)
            fake_done(host, lane, XI_OK);
    }
}

static void leave_answered(struct storm *w)
{
    unsigned i;

    for (i = 0; i < w->n_asked; i++) {
        if (w->asked[i].answers > 0 && w->used[i] != NULL) {
            xi_session_leave(w->used[i]);
            w->used[i] = NULL;
        }
    }
}

/* Whatever happens: all are told once, nothing is left, and there is never a swap without an end.
 */
static void a_storm_of_swaps_loses_nobody(void **state)
{
    unsigned seed, i, told = 0, asked = 0, flips = 0;

    (void)state;
    for (seed = 1; seed <= 12; seed++) {
        struct storm *w = calloc(1, sizeof(*w));

        assert_non_null(w);
        random_state = seed;
        w->f = make(3);
        for (i = 0; i < 600; i++) {
            a_caller(w);
            if (fake.n_hosts > 0)
                a_host(fake.hosts[below(fake.n_hosts)]);
            if (fake.n_hosts > 0)
                a_host(fake_last());
            the_store();
            if (i % 20 == 0)
                fixture_run_ms(w->f, 2);
            fixture_turn(w->f);
            leave_answered(w);
        }
        flips += fake.replaces;
        xi_sessions_close(w->f->sessions);
        while (xi_sessions_alive(w->f->sessions) > 0) {
            end_stopped();
            if (fake.replaced != NULL)
                fake_replaced(XI_OK);
            fixture_turn(w->f);
            leave_answered(w);
        }
        if (fake.finder != NULL)
            fake_found(fixture_record("net", "a"));
        fixture_free(w->f);
        for (i = 0; i < w->n_told; i++)
            assert_int_equal(w->told[i].times, 1);
        for (i = 0; i < w->n_asked; i++)
            assert_int_equal(w->asked[i].answers, 1);
        told += w->n_told;
        asked += w->n_asked;
        free(w);
    }
    print_message("%u told, %u requests, %u written\n", told, asked, flips);
    assert_true(told > 500 && asked > 500 && flips > 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_name_is_flipped_when_it_is_on_disk),
        cmocka_unit_test(a_disk_that_fails_leaves_the_old_one),
        cmocka_unit_test(a_rollback_without_room_ends),
        cmocka_unit_test(a_lazy_candidate_without_room_fails),
        cmocka_unit_test(a_second_swap_names_the_first),
        cmocka_unit_test(a_version_that_crash_loops_is_undone),
        cmocka_unit_test(leases_count_expire_and_move),
        cmocka_unit_test(what_is_used_does_not_idle),
        cmocka_unit_test(a_storm_of_swaps_loses_nobody),
    };
    return cmocka_run_group_tests_name("session_swap", tests, NULL, NULL);
}
