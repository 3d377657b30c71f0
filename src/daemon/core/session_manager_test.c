/* The session manager against fake hosts. */
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

static struct fixture *make(unsigned crash_limit, unsigned window_ms)
{
    struct xi_pool_config pool = {.cores = 2, .queue_limit = 50, .watchdog_min_ms = 10000};
    struct xi_sessions_config sessions = {.host_program = "host",
                                          .engine_dir = "engines",
                                          .openvino_dir = "",
                                          .cores = 2,
                                          .crash_window_ms = window_ms,
                                          .crash_limit = crash_limit,
                                          .drain_ms = 60};

    return fixture_new(&pool, &sessions);
}

static enum xi_rc load(struct fixture *f, const char *digest, const char *variants,
                       const struct xi_load_options *o, struct told *t, struct xi_session **ret,
                       struct xi_err *err)
{
    char id[XI_UUID_TEXT + 1];

    xi_uuid_new(id);
    return xi_sessions_load(f->sessions, id, digest, fixture_record("net", variants), o,
                            t == NULL ? NULL : fixture_told, t, ret, err);
}

static void a_load_becomes_ready(void **state)
{
    struct fixture *f = make(5, 60000);
    struct xi_load_options o = fixture_options("net", 2);
    struct told t = {0};
    struct xi_session *s, *found;
    struct xi_err err = {0};

    (void)state;
    assert_int_equal(load(f, DIGEST_A, "a", &o, &t, &s, &err), XI_OK);
    assert_int_equal(s->state, XI_SESSION_LOADING);
    assert_false(xi_sessions_ready(f->sessions, &err));
    assert_string_equal(fake_last()->load.link_dir, "/links");
    assert_string_equal(fake_last()->load.variant, "v0");
    assert_string_equal(fake_last()->engine, "reference");
    assert_int_equal(fake_last()->load.lane_count, 2);
    assert_int_equal(fake_last()->load.run_golden, 1);
    assert_int_equal(t.times, 0);
    fake_loaded(fake_last(), 5000);
    assert_true(t.times == 1 && t.rc == XI_OK && t.state == XI_SESSION_READY);
    assert_string_equal(s->isolation_reason,
                        "context of reference CPU costs ~10 MiB, at most 64 MiB");
    assert_int_equal(s->service_ns, 5000);
    assert_true(xi_sessions_ready(f->sessions, &err));
    assert_int_equal(xi_sessions_find(f->sessions, "default", "net", &found, &err), XI_OK);
    assert_ptr_equal(found, s);
    assert_int_equal(xi_sessions_find(f->sessions, NULL, s->id, &found, &err), XI_OK);
    assert_int_equal(xi_sessions_find(f->sessions, "other", s->id, &found, &err), XI_ENOENT);
    assert_int_equal(xi_sessions_find(f->sessions, "other", "net", &found, &err), XI_ENOENT);
    assert_int_equal(xi_sessions_find(f->sessions, "default", "nett", &found, &err), XI_ENOENT);
    assert_non_null(strstr(err.hint, "did you mean net?"));
    fixture_free(f);
}

static void names_are_kept(void **state)
{
    struct fixture *f = make(5, 60000);
    struct xi_load_options o = fixture_options("net", 2), p = o, twin = fixture_options("Net", 2);
    struct told t = {0};
    struct xi_session *s, *again;
    struct xi_err err;
    unsigned i;

    (void)state;
    for (i = 0; i < 100; i++) { /* a hundred clients at once: one session, one host */
        assert_int_equal(load(f, DIGEST_A, "a", &o, &t, &again, &err), XI_OK);
        if (i == 0)
            s = again;
        assert_ptr_equal(again, s);
    }
    fake_loaded(fake_last(), 5000);
    assert_int_equal(t.times, 100);
    assert_int_equal(load(f, DIGEST_A, "a", &o, &t, &again, &err), XI_OK);
    assert_true(t.times == 101 && again == s && fake.n_hosts == 1);

    assert_int_equal(load(f, DIGEST_B, "a", &o, NULL, &again, &err), XI_ECONFLICT);
    assert_non_null(strstr(err.hint, "unload"));
    p.threads = 2;
    assert_int_equal(load(f, DIGEST_A, "a", &p, NULL, &again, &err), XI_ECONFLICT);
    assert_int_equal(load(f, DIGEST_A, "a", &twin, NULL, &again, &err), XI_ECONFLICT);
    (void)snprintf(p.tenant, sizeof(p.tenant), "other");
    assert_int_equal(load(f, DIGEST_A, "a", &p, NULL, &again, &err), XI_OK);
    assert_ptr_not_equal(again, s);
    (void)snprintf(p.name, sizeof(p.name), "../x");
    assert_int_equal(load(f, DIGEST_A, "a", &p, NULL, &again, &err), XI_EINVAL);
    assert_int_equal(xi_sessions_count(f->sessions), 2);
    fixture_free(f);
}

static void the_next_variant_is_tried(void **state)
{
    struct fixture *f = make(5, 60000);
    struct xi_load_options o = fixture_options("net", 1);
    struct told t = {0};
    struct xi_session *s;
    struct xi_err err;

    (void)state;
    assert_int_equal(load(f, DIGEST_A, "xabb", &o, &t, &s, &err), XI_OK);
    assert_string_equal(s->variant, "v1"); /* v0's engine is not here */
    fake_failed(fake_last(), XI_EMODEL, "operator Foo is unknown");
    assert_true(fake_last()->stopped && fake.n_hosts == 1); /* never two at once */
    fake_exit(fake_last(), "");
    assert_string_equal(s->variant, "v2");
    assert_string_equal(fake_last()->engine, "other");
    fake_exit(fake_last(), "ended by SIGSEGV"); /* crashes while loading: the next one too */
    assert_string_equal(s->variant, "v3");
    fake_loaded(fake_last(), 1000);
    assert_true(t.times == 1 && t.rc == XI_OK);
    assert_non_null(strstr(s->skipped, "v1: operator Foo is unknown"));
    assert_non_null(strstr(s->skipped, "SIGSEGV"));
    assert_int_equal(fake.most_alive, 1);
    fixture_free(f);
}

static void a_load_that_fails_says_why(void **state)
{
    struct fixture *f = make(5, 60000);
    struct xi_load_options o = fixture_options("net", 1);
    struct told t = {0}, u = {0};
    struct xi_session *s, *next;
    struct asked a;
    struct xi_err err;
    char id[XI_UUID_TEXT + 1];

    (void)state;
    assert_int_equal(load(f, DIGEST_A, "x", &o, &t, &s, &err), XI_ENOENGINE);
    assert_non_null(strstr(err.msg, "engine rknn is not installed"));
    assert_int_equal(load(f, DIGEST_A, "ab", &o, &t, &s, &err), XI_OK);
    fixture_ask(f, &a, s, 16, 1);
    fixture_submit(f, &a); /* waits for the load */
    assert_int_equal(a.answers, 0);
    fake_failed(fake_last(), XI_EPACKAGE, "flow.json is damaged"); /* no variant mends that */
    assert_true(t.times == 1 && t.rc == XI_EPACKAGE);
    assert_int_equal(s->state, XI_SESSION_FAILED);
    assert_true(a.answers == 1 && a.rc == XI_EPACKAGE);
    fake_exit(fake_last(), "");
    assert_int_equal(fake.n_hosts, 1);
    assert_true(xi_sessions_ready(f->sessions, &err)); /* nobody counts on it */
    /* Nothing was promised under this name: another package may have it. */
    memcpy(id, s->id, sizeof(id));
    assert_int_equal(load(f, DIGEST_B, "a", &o, &u, &next, &err), XI_OK);
    assert_int_equal(xi_sessions_find(f->sessions, NULL, id, &s, &err), XI_EGONE);
    fake_loaded(fake_last(), 1000);
    assert_true(u.times == 1 && u.rc == XI_OK);
    fixture_free(f);
}

static void options_choose(void **state)
{
    struct fixture *f = make(5, 60000);
    struct xi_load_options o = fixture_options("net", 1);
    struct xi_session *s;
    struct xi_err err;

    (void)state;
    (void)snprintf(o.variant, sizeof(o.variant), "v1");
    assert_int_equal(load(f, DIGEST_A, "ab", &o, NULL, &s, &err), XI_OK);
    assert_string_equal(s->variant, "v1");
    xi_sessions_unload(f->sessions, s, NULL, NULL);
    fake_exit(fake_last(), "");
    (void)snprintf(o.variant, sizeof(o.variant), "v9");
    assert_int_equal(load(f, DIGEST_A, "ab", &o, NULL, &s, &err), XI_ENOENT);
    o.variant[0] = '\0';
    (void)snprintf(o.device, sizeof(o.device), "gpu");
    assert_int_equal(load(f, DIGEST_A, "ab", &o, NULL, &s, &err), XI_ENOENGINE);
    assert_non_null(strstr(err.msg, "no device \"gpu\""));
    (void)snprintf(o.device, sizeof(o.device), "cpu");
    (void)snprintf(o.precision, sizeof(o.precision), "i8");
    assert_int_equal(load(f, DIGEST_A, "ab", &o, NULL, &s, &err), XI_ENOENGINE);
    (void)snprintf(o.precision, sizeof(o.precision), "f32");
    assert_int_equal(load(f, DIGEST_A, "ab", &o, NULL, &s, &err), XI_OK);
    fixture_free(f);
}

/* Turns until a host that was not there before has been told to load. */
static struct xi_host *wait_for_host(struct fixture *f, unsigned before, unsigned ms)
{
    uint64_t until = xi_now_ms() + ms;

    while (fake.n_hosts == before && xi_now_ms() < until)
        fixture_run_ms(f, 1);
    assert_true(fake.n_hosts == before + 1);
    return fake_last();
}

static void a_crash_is_reloaded_under_the_same_id(void **state)
{
    struct fixture *f = make(100, 60000);
    struct xi_session *s = fixture_session(f, "net", 2);
    char id[XI_UUID_TEXT + 1];
    struct asked waits, told;
    uint64_t began;

    (void)state;
    memcpy(id, s->id, sizeof(id));
    began = xi_now_ms();
    fake_exit(fake_last(), "ended by SIGSEGV");
    assert_int_equal(s->state, XI_SESSION_LOADING);
    assert_non_null(strstr(s->why.msg, "SIGSEGV"));
    fixture_ask(f, &waits, s, 16, 1); /* the first wait is waited with */
    fixture_submit(f, &waits);
    fake_loaded(wait_for_host(f, 1, 1000), 1000);
    assert_in_range(xi_now_ms() - began, 15, 100);
    fake_done(fake_last(), fake_last()->running[0] != 0 ? 0 : 1, XI_OK);
    assert_true(waits.answers == 1 && waits.rc == XI_OK);

    fake_exit(fake_last(), "ended by SIGSEGV"); /* it had answered: as the first time */
    assert_int_equal(s->backoff_ms, 20);
    fake_loaded(wait_for_host(f, 2, 1000), 1000);
    fake_exit(fake_last(), "ended by SIGSEGV");
    assert_int_equal(s->backoff_ms, 40);
    fixture_ask(f, &told, s, 16, 1); /* now back-off has set in */
    fixture_submit(f, &told);
    assert_true(told.answers == 1 && told.rc == XI_EHOST && told.r.retry_after_s >= 1);
    fake_loaded(wait_for_host(f, 3, 1000), 1000);

    assert_string_equal(s->id, id);
    assert_int_equal(s->state, XI_SESSION_READY);
    assert_true(s->restarts == 3 && s->crashes == 3);
    assert_int_equal(fake.most_alive, 1);
    fixture_free(f);
}

static void crash_loops_are_quarantined(void **state)
{
    struct fixture *f = make(3, 60000);
    struct xi_session *s = fixture_session(f, "net", 1), *again;
    struct xi_load_options o = fixture_options("net", 1);
    struct told t = {0};
    struct xi_err err;
    struct asked a;

    (void)state;
    s->desired = 1;
    fake_exit(fake_last(), "ended by SIGABRT");
    fake_loaded(wait_for_host(f, 1, 1000), 1000);
    fake_exit(fake_last(), "ended by SIGABRT");
    fake_loaded(wait_for_host(f, 2, 1000), 1000);
    fake_exit(fake_last(), "ended by SIGABRT");
    assert_int_equal(s->state, XI_SESSION_FAILED);
    assert_int_equal(s->why.rc, XI_ECRASHLOOP);
    assert_non_null(strstr(s->why.msg, "3 crashes"));
    assert_non_null(strstr(s->why.msg, "SIGABRT"));
    assert_false(xi_sessions_ready(f->sessions, &err));
    assert_int_equal(err.rc, XI_ECRASHLOOP);
    fixture_ask(f, &a, s, 16, 1);
    fixture_submit(f, &a);
    assert_true(a.answers == 1 && a.rc == XI_ECRASHLOOP);
    fixture_run_ms(f, 300);
    assert_int_equal(fake.n_hosts, 3); /* it stays down */
    assert_int_equal(load(f, DIGEST_B, "a", &o, NULL, &again, &err), XI_ECONFLICT);
    assert_int_equal(load(f, DIGEST_A, "a", &o, &t, &again, &err), XI_OK); /* until asked */
    assert_ptr_equal(again, s);
    fake_loaded(fake_last(), 1000);
    assert_true(t.times == 1 && t.rc == XI_OK && s->state == XI_SESSION_READY);
    fixture_free(f);
}

static void old_crashes_are_forgotten(void **state)
{
    struct fixture *f = make(2, 150);
    struct xi_session *s = fixture_session(f, "net", 1);
    unsigned i;

    (void)state;
    for (i = 0; i < 3; i++) {
        fake_exit(fake_last(), "ended by SIGABRT");
        assert_int_equal(s->state, XI_SESSION_LOADING);
        fake_loaded(wait_for_host(f, i + 1, 3000), 1000);
        fixture_run_ms(f, 160);
    }
    fixture_free(f);
}

static void unload_drains_first(void **state)
{
    struct fixture *f = make(5, 60000);
    struct xi_session *s = fixture_session(f, "net", 1), *found;
    struct asked a, b, late;
    struct told t = {0}, u = {0};
    struct xi_err err;
    char id[XI_UUID_TEXT + 1];

    (void)state;
    memcpy(id, s->id, sizeof(id));
    fixture_ask(f, &a, s, 16, 1);
    fixture_ask(f, &b, s, 16, 1);
    fixture_ask(f, &late, s, 16, 1); /* holds its reference before the unload */
    fixture_submit(f, &a);
    fixture_submit(f, &b);
    xi_sessions_unload(f->sessions, s, fixture_told, &t);
    xi_sessions_unload(f->sessions, s, fixture_told, &u);
    assert_int_equal(s->state, XI_SESSION_DRAINING);
    assert_int_equal(xi_sessions_find(f->sessions, "default", "net", &found, &err), XI_ENOENT);
    fixture_submit(f, &late);
    assert_true(late.answers == 1 && late.rc == XI_EGONE);
    assert_false(fake_last()->stopped);
    fake_done(fake_last(), 0, XI_OK);
    fake_done(fake_last(), 0, XI_OK);
    assert_true(a.rc == XI_OK && b.rc == XI_OK && a.answers == 1 && b.answers == 1);
    assert_true(fake_last()->stopped && t.times == 0);
    fake_exit(fake_last(), "");
    assert_true(t.times == 1 && u.times == 1 && t.state == XI_SESSION_GONE);
    assert_int_equal(xi_sessions_find(f->sessions, NULL, id, &found, &err), XI_EGONE);
    assert_int_equal(xi_sessions_count(f->sessions), 0);
    fixture_free(f);
}

static void a_drain_has_its_limit(void **state)
{
    struct fixture *f = make(5, 60000);
    struct xi_session *s = fixture_session(f, "net", 1);
    struct asked a, b;
    struct told t = {0};

    (void)state;
    fixture_ask(f, &a, s, 16, 1);
    fixture_ask(f, &b, s, 16, 1);
    fixture_submit(f, &a);
    fixture_submit(f, &b);
    xi_sessions_unload(f->sessions, s, fixture_told, &t);
    fixture_run_ms(f, 100);
    assert_true(a.answers == 1 && a.rc == XI_EGONE && b.answers == 1 && b.rc == XI_EGONE);
    assert_true(fake_last()->stopped);
    fake_exit(fake_last(), "");
    assert_int_equal(t.times, 1);
    fixture_free(f);
}

static void unload_in_the_middle_of_things(void **state)
{
    struct fixture *f = make(5, 60000);
    struct xi_load_options o = fixture_options("net", 1);
    struct xi_session *s, *next;
    struct told loaded = {0}, gone = {0};
    struct xi_err err;

    (void)state;
    assert_int_equal(load(f, DIGEST_A, "a", &o, &loaded, &s, &err), XI_OK);
    xi_sessions_unload(f->sessions, s, fixture_told, &gone);
    assert_true(loaded.times == 1 && loaded.rc == XI_EGONE && gone.times == 0);
    /* Its name is free at once. */
    assert_int_equal(load(f, DIGEST_B, "a", &o, NULL, &next, &err), XI_OK);
    fake_loaded(fake.hosts[0], 1000); /* too late, and nobody listens */
    assert_int_equal(s->state, XI_SESSION_DRAINING);
    fake_exit(fake.hosts[0], "");
    assert_int_equal(gone.times, 1);

    fake_loaded(fake_last(), 1000); /* while it waits to be started again */
    fake_exit(fake_last(), "ended by SIGSEGV");
    xi_sessions_unload(f->sessions, next, fixture_told, &gone);
    assert_int_equal(gone.times, 2);
    fixture_run_ms(f, 150);
    assert_int_equal(fake.n_hosts, 2);
    fixture_free(f);
}

static void hosts_that_cannot_be_started(void **state)
{
    struct fixture *f = make(3, 60000);
    struct xi_load_options o = fixture_options("net", 1);
    struct xi_session *s;
    struct told t = {0};
    struct xi_err err;

    (void)state;
    fake.fail_start = 1;
    assert_int_equal(load(f, DIGEST_A, "a", &o, &t, &s, &err), XI_OK);
    assert_true(t.times == 1 && t.rc == XI_EFDS && s->state == XI_SESSION_FAILED);
    assert_int_equal(load(f, DIGEST_A, "a", &o, &t, &s, &err), XI_OK); /* now it can */
    fake_loaded(fake_last(), 1000);
    assert_true(t.times == 2 && t.rc == XI_OK);
    fake.fail_start = 1; /* once it had worked, it is tried again */
    fake_exit(fake_last(), "ended by SIGSEGV");
    fixture_run_ms(f, 120);
    assert_int_equal(s->state, XI_SESSION_LOADING);
    fake_loaded(wait_for_host(f, 1, 1000), 1000);
    assert_int_equal(s->state, XI_SESSION_READY);
    fixture_free(f);
}

/* ---- a storm ---- */

#define NAMES 3
#define ACTS  600
#define CALLS 2000

struct storm {
    struct fixture *f;
    struct told told[CALLS];
    struct asked asked[CALLS];
    unsigned n_told, n_asked;
};

static void a_caller(struct storm *w)
{
    static const char *const names[NAMES] = {"one", "two", "three"};
    const char *name = names[below(NAMES)];
    struct xi_load_options o = fixture_options(name, 1 + below(2));
    struct xi_session *s;
    struct xi_err err;

    switch (below(4)) {
    case 0:
        if (load(w->f, below(2) ? DIGEST_A : DIGEST_B, below(2) ? "ab" : "a", &o,
                 &w->told[w->n_told], &s, &err) == XI_OK)
            w->n_told++;
        break;
    case 1:
        if (xi_sessions_find(w->f->sessions, "default", name, &s, &err) == XI_OK)
            xi_sessions_unload(w->f->sessions, s, fixture_told, &w->told[w->n_told++]);
        break;
    default:
        if (xi_sessions_find(w->f->sessions, "default", name, &s, &err) == XI_OK) {
            struct asked *a = &w->asked[w->n_asked++];

            fixture_ask(w->f, a, s, 16, 1);
            fixture_submit(w->f, a);
        }
    }
}

static void a_host(struct xi_host *host)
{
    uint32_t lane;

    if (host->ended)
        return;
    if (host->stopped) {
        fake_exit(host, "");
    } else if (below(12) == 0) {
        fake_exit(host, "ended by SIGSEGV");
    } else if (below(12) == 0) {
        fake_failed(host, below(2) ? XI_EMODEL : XI_EFLOW, "no");
    } else if (host->most_running == 0 && below(2)) {
        if (host->running[0] == 0 && host->running[1] == 0 && !host->loaded)
            return;
        if (host->load.session != 0) {
            fake_loaded(host, 1000);
            host->load.session = 0; /* an honest host says so once */
        }
    } else {
        for (lane = 0; lane < host->lanes; lane++) {
            if (host->running[lane] != 0) {
                fake_done(host, lane, XI_OK);
                break;
            }
        }
    }
}

static void check_storm(const struct storm *w)
{
    unsigned i;

    for (i = 0; i < w->n_told; i++)
        assert_int_equal(w->told[i].times, 1);
    for (i = 0; i < w->n_asked; i++)
        assert_int_equal(w->asked[i].answers, 1);
}

static void a_storm_tells_everybody_once(void **state)
{
    unsigned seed, i, told = 0, asked = 0, hosts = 0;

    (void)state;
    for (seed = 1; seed <= 6; seed++) {
        struct storm *w = calloc(1, sizeof(*w));
        struct xi_entry *e;

        assert_non_null(w);
        random_state = seed;
        w->f = make(4, 1000);
        for (i = 0; i < ACTS; i++) {
            a_caller(w);
            if (fake.n_hosts > 0)
                a_host(fake.hosts[below(fake.n_hosts)]);
            if (fake.n_hosts > 0)
                a_host(fake_last());
            if (i % 10 == 0)
                fixture_run_ms(w->f, 3);
            fixture_turn(w->f);
        }
        for (e = w->f->sessions->first; e != NULL; e = e->next)
            assert_int_equal(e->s.host != NULL, xi_fsm_has_host(&e->fsm));
        told += w->n_told;
        asked += w->n_asked;
        hosts += fake.n_hosts;
        fixture_free(w->f); /* unloads the rest; also checks that no host and no slot is left */
        check_storm(w);
        free(w);
    }
    print_message("%u loads and unloads, %u requests, %u hosts\n", told, asked, hosts);
    assert_true(told > 500 && asked > 500 && hosts > 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_load_becomes_ready),
        cmocka_unit_test(names_are_kept),
        cmocka_unit_test(the_next_variant_is_tried),
        cmocka_unit_test(a_load_that_fails_says_why),
        cmocka_unit_test(options_choose),
        cmocka_unit_test(a_crash_is_reloaded_under_the_same_id),
        cmocka_unit_test(crash_loops_are_quarantined),
        cmocka_unit_test(old_crashes_are_forgotten),
        cmocka_unit_test(unload_drains_first),
        cmocka_unit_test(a_drain_has_its_limit),
        cmocka_unit_test(unload_in_the_middle_of_things),
        cmocka_unit_test(hosts_that_cannot_be_started),
        cmocka_unit_test(a_storm_tells_everybody_once),
    };
    return cmocka_run_group_tests_name("session_manager", tests, NULL, NULL);
}
