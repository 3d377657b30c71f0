/* Isolation groups against fake hosts: who shares one, and what is whose when it ends. */
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
#include "daemon/core/session_group.h"

static struct fixture *make_with(const struct xi_sessions_config *more)
{
    struct xi_pool_config pool = {.cores = 8, .queue_limit = 50, .watchdog_min_ms = 10000};
    struct xi_sessions_config sessions = {.host_program = "host",
                                          .engine_dir = "engines",
                                          .openvino_dir = "",
                                          .cores = 2,
                                          .crash_window_ms = 60000,
                                          .crash_limit = 5,
                                          .drain_ms = 60};
    struct fixture *f;

    if (more != NULL) {
        sessions.load_silence_ms = more->load_silence_ms;
        sessions.load_limit_ms = more->load_limit_ms;
    }
    f = fixture_new(&pool, &sessions);
    return f;
}

static struct fixture *make(void)
{
    return make_with(NULL);
}

static struct xi_session *load(struct fixture *f, const char *name, const char *tenant,
                               enum xi_isolation isolation, struct told *t)
{
    struct xi_load_options o = fixture_options(name, 2);
    struct xi_session *s = NULL;
    char id[XI_UUID_TEXT + 1];
    struct xi_err err;

    o.isolation = isolation;
    (void)snprintf(o.tenant, sizeof(o.tenant), "%s", tenant);
    xi_uuid_new(id);
    if (xi_sessions_load(f->sessions, id, DIGEST_A, fixture_record("net", "ab"), &o,
                         t == NULL ? NULL : fixture_told, t, &s, &err) != XI_OK)
        fail_msg("%s", err.msg);
    return s;
}

static struct xi_session *up(struct fixture *f, const char *name)
{
    struct xi_session *s = load(f, name, "acme", XI_ISOLATE_TENANT, NULL);

    fake_loaded_session(s->host, s->number, 1000000);
    assert_int_equal(s->state, XI_SESSION_READY);
    return s;
}

/* Which of the host's lanes runs something of this session; -1: none. */
static int busy_lane(const struct xi_session *s)
{
    uint32_t i;

    for (i = 0; i < s->host->lanes; i++) {
        if (s->host->owner[i] == s->number && s->host->running[i] != 0)
            return (int)i;
    }
    return -1;
}

static void wait_until(struct fixture *f, const struct xi_session *s, int has_host)
{
    uint64_t until = xi_now_ms() + 2000;

    while ((s->host != NULL) != has_host && xi_now_ms() < until)
        fixture_run_ms(f, 2);
    assert_int_equal(s->host != NULL, has_host);
}

static void tenants_share_among_themselves(void **state)
{
    struct fixture *f = make();
    struct xi_session *a = up(f, "a"), *b = up(f, "b");
    struct xi_session *other = load(f, "c", "rival", XI_ISOLATE_TENANT, NULL);
    struct xi_session *own = load(f, "d", "acme", XI_ISOLATE_SESSION, NULL);
    struct xi_session *all = load(f, "e", "acme", XI_ISOLATE_DEVICE, NULL);
    struct xi_session *both = load(f, "e", "rival", XI_ISOLATE_DEVICE, NULL);

    (void)state;
    assert_int_equal(fake.n_hosts, 4);
    assert_true(a->host == b->host && a->group == b->group && a->host->group);
    assert_true(other->host != a->host && own->host != a->host && all->host != a->host);
    assert_true(!own->host->group && all->host == both->host);
    assert_int_not_equal(a->first_lane, b->first_lane);
    assert_string_equal(xi_isolation_name(a->isolation), "tenant");
    assert_non_null(strstr(a->isolation_reason, "asked for"));
    fixture_free(f);
}

static void requests_go_to_their_own_lanes(void **state)
{
    struct fixture *f = make();
    struct xi_session *a = up(f, "a"), *b = up(f, "b");
    struct asked ra[2], rb[2];
    unsigned i;

    (void)state;
    for (i = 0; i < 2; i++) {
        fixture_ask(f, &ra[i], a, 16, 1);
        fixture_ask(f, &rb[i], b, 16, 2);
        fixture_submit(f, &ra[i]);
        fixture_submit(f, &rb[i]);
    }
    for (i = 0; i < 4; i++)
        assert_int_equal(a->host->first[i], a->host->owner[i] == a->number ? 1 : 2);
    for (i = 0; i < 4; i++)
        fake_done(a->host, i, XI_OK);
    assert_true(ra[0].answers == 1 && ra[1].answers == 1 && rb[0].answers == 1 &&
                rb[1].answers == 1);
    fixture_free(f);
}

static void unloading_one_leaves_the_others(void **state)
{
    struct fixture *f = make();
    struct xi_session *a = up(f, "a"), *b = up(f, "b"), *c;
    struct xi_host *host = a->host;
    struct told gone_a = {0}, gone_b = {0};
    uint32_t number = a->number, lane = a->first_lane;

    (void)state;
    xi_sessions_unload(f->sessions, a, fixture_told, &gone_a);
    assert_true(host->n_unloads == 1 && !host->stopped && gone_a.times == 0);
    fake_unloaded(host, number, 5000000);
    assert_true(gone_a.times == 1 && !host->stopped && b->state == XI_SESSION_READY);
    c = up(f, "c"); /* its lanes are there again */
    assert_true(c->host == host && c->first_lane == lane);
    xi_sessions_unload(f->sessions, c, NULL, NULL);
    fake_unloaded(host, c->number, 5000000);
    /* The last one ends the host, and has gone when that has. */
    xi_sessions_unload(f->sessions, b, fixture_told, &gone_b);
    assert_true(host->stopped && gone_b.times == 0);
    fake_exit(host, "");
    assert_int_equal(gone_b.times, 1);
    assert_int_equal(fake.groups_forgotten, 1);
    fixture_free(f);
}

/* An unload of one that idles already: the host that does not free it is still ended. */
static void an_unload_keeps_its_time_limit(void **state)
{
    struct fixture *f = make();
    struct xi_session *a = up(f, "a"), *b = up(f, "b");

    (void)state;
    assert_int_equal(xi_sessions_idle(f->sessions, a, "test"), 1);
    assert_int_equal(a->host->n_unloads, 1);
    assert_true(uv_is_active((uv_handle_t *)&xi_entry_of(a)->timer));
    xi_sessions_unload(f->sessions, a, NULL, NULL);
    assert_int_equal(a->state, XI_SESSION_DRAINING);
    assert_true(uv_is_active((uv_handle_t *)&xi_entry_of(a)->timer));
    fake_unloaded(b->host, a->number, 5000000);
    fixture_free(f);
}

static void a_failed_load_leaves_the_others(void **state)
{
    struct fixture *f = make();
    struct xi_session *a = up(f, "a");
    struct told t = {0};
    struct xi_session *b = load(f, "b", "acme", XI_ISOLATE_TENANT, &t);
    struct xi_host *host = a->host;

    (void)state;
    fake_failed(host, XI_EPACKAGE, "its flow is damaged");
    assert_true(t.times == 1 && t.rc == XI_EPACKAGE && b->state == XI_SESSION_FAILED);
    assert_true(!host->stopped && host->n_unloads == 0 && a->state == XI_SESSION_READY);
    fixture_free(f);
}

/* More old crashes than events may wait, and they age while the failure of the load is served. */
static void many_crashes_age_at_once(void **state)
{
    struct fixture *f = make();
    struct xi_session *a = up(f, "a");
    struct told t = {0};
    struct xi_session *b = load(f, "b", "acme", XI_ISOLATE_TENANT, &t);
    struct xi_entry *e = xi_entry_of(b);

    (void)state;
    f->sessions->config.crash_window_ms = 1;
    e->fsm.crash_limit = 100;
    e->fsm.crashes = 40;
    e->n_crash_times = 40; /* all of them at the beginning of time */
    fake_failed(a->host, XI_EPACKAGE, "its flow is damaged");
    assert_true(t.times == 1 && b->state == XI_SESSION_FAILED);
    fixture_free(f);
}

static void only_those_that_ran_are_to_blame(void **state)
{
    struct fixture *f = make();
    struct xi_session *a = up(f, "a"), *b = up(f, "b");
    struct asked r;

    (void)state;
    fixture_ask(f, &r, a, 16, 1);
    fixture_submit(f, &r);
    assert_true(busy_lane(a) >= 0 && busy_lane(b) < 0);
    fake_exit(a->host, "ended by SIGSEGV");
    assert_int_equal(xi_entry_of(a)->fsm.crashes, 1);
    assert_int_equal(xi_entry_of(b)->fsm.crashes, 0);
    assert_true(a->host == NULL && b->host == NULL && r.answers == 0);
    wait_until(f, a, 1);
    wait_until(f, b, 1);
    assert_true(a->host == b->host && fake.n_hosts == 2);
    fake_loaded_session(b->host, b->number, 1000000);
    fake_loaded_session(a->host, a->number, 1000000);
    fake_done(a->host, (uint32_t)busy_lane(a), XI_OK);
    assert_true(r.answers == 1 && r.rc == XI_OK);
    /* When nobody did anything it may be anybody. */
    fake_exit(a->host, "ended by SIGKILL");
    assert_true(xi_entry_of(a)->fsm.crashes == 2 && xi_entry_of(b)->fsm.crashes == 1);
    fixture_free(f);
}

static void a_load_that_ends_the_host_again_is_blamed_alone(void **state)
{
    struct fixture *f = make();
    struct xi_session *a = up(f, "a");
    struct xi_session *b = load(f, "b", "acme", XI_ISOLATE_TENANT, NULL);
    struct asked r;
    char first[64];

    (void)state;
    (void)snprintf(first, sizeof(first), "%s", b->variant);
    fixture_ask(f, &r, a, 16, 1);
    fixture_submit(f, &r);
    fake_exit(a->host, "ended by SIGSEGV"); /* either of them */
    assert_int_equal(xi_entry_of(a)->fsm.crashes, 1);
    wait_until(f, a, 1);
    wait_until(f, b, 1);
    fake_loaded_session(a->host, a->number, 1000000);
    if (busy_lane(a) >= 0)
        fake_done(a->host, (uint32_t)busy_lane(a), XI_OK);
    fake_exit(b->host, "ended by SIGSEGV");
    assert_int_equal(xi_entry_of(a)->fsm.crashes, 1);
    fixture_free(f);
    assert_int_equal(r.answers, 1);
}

static void a_candidate_starts_apart(void **state)
{
    struct fixture *f = make();
    struct xi_session *a = up(f, "a"), *b, *c;
    struct xi_load_options o = fixture_options("a", 1);
    struct xi_swap_ask ask = {.strategy = XI_STRATEGY_BESIDE};
    struct told t = {0};
    struct xi_err err;

    (void)state;
    o.isolation = XI_ISOLATE_TENANT;
    (void)snprintf(o.tenant, sizeof(o.tenant), "acme");
    assert_int_equal(xi_swap_begin(f->sessions, "00000000-0000-4000-8000-000000000002", DIGEST_B,
                                   fixture_record("net", "a"), &o, &ask, fixture_told, &t, &b,
                                   &err),
                     XI_OK);
    assert_true(b->host != NULL && b->host != a->host && b->isolation == XI_ISOLATE_TENANT);
    c = up(f, "c");
    assert_ptr_equal(c->host, a->host); /* not beside one that is on trial */
    fixture_free(f);
}

static void one_that_comes_while_the_host_ends_waits(void **state)
{
    struct fixture *f = make();
    struct xi_session *a = up(f, "a"), *b;
    struct xi_host *old = a->host;

    (void)state;
    xi_sessions_unload(f->sessions, a, NULL, NULL);
    assert_true(old->stopped);
    b = load(f, "b", "acme", XI_ISOLATE_TENANT, NULL);
    assert_true(b->host == NULL && fake.n_hosts == 1);
    fake_exit(old, "");
    assert_true(b->host != NULL && b->host != old && fake.n_hosts == 2);
    fake_loaded(b->host, 1000000);
    assert_int_equal(b->state, XI_SESSION_READY);
    fixture_free(f);
}

static void a_lost_device_moves_its_sessions(void **state)
{
    struct fixture *f = make();
    struct xi_session *a, *b;
    struct asked r;
    char before[64];

    (void)state;
    (void)snprintf(f->engines[1].probe.devices[0].id, 32, "GPU.0");
    a = up(f, "a");
    b = up(f, "b");
    (void)snprintf(before, sizeof(before), "%s", a->variant);
    fixture_ask(f, &r, a, 16, 1);
    fixture_submit(f, &r);
    fake_exit_code(a->host, XI_EXIT_DEVICE_LOST);
    assert_true(a->host != NULL && a->host == b->host); /* at once, and together */
    assert_string_not_equal(a->variant, before);
    assert_string_equal(a->device, "GPU.0");
    fake_loaded_session(a->host, a->number, 1000000);
    fake_loaded_session(b->host, b->number, 1000000); /* the suspect waits for that, too */
    fake_done(a->host, (uint32_t)busy_lane(a), XI_OK);
    assert_true(r.answers == 1 && r.rc == XI_OK);
    assert_int_equal(xi_entry_of(a)->fsm.crashes, 0);
    fixture_free(f);
}

static void a_device_that_is_gone_fails_or_moves(void **state)
{
    struct fixture *f = make();
    struct xi_session *a = up(f, "a"), *b = up(f, "b");
    struct xi_host *old = a->host;
    uint32_t number = a->number;

    (void)state;
    (void)snprintf(f->engines[1].probe.devices[0].id, 32, "GPU.0");
    xi_sessions_device_state(f->sessions, NULL, "CPU", 0, "too hot: 104 degrees");
    assert_int_equal(old->n_unloads, 2);
    fake_unloaded(old, number, 0);
    assert_true(a->host != NULL && a->host != old && !old->stopped);
    fake_unloaded(old, b->number, 0);
    assert_true(old->stopped && b->host == old); /* the last one waits for its end */
    fake_exit(old, "");
    assert_ptr_equal(a->host, b->host);
    assert_string_equal(a->device, "GPU.0");
    fake_loaded_session(a->host, a->number, 1000000);
    fake_loaded_session(b->host, b->number, 1000000);
    xi_sessions_device_state(f->sessions, "other", "GPU.0", 0, "fell off the bus");
    assert_true(a->state == XI_SESSION_FAILED && a->why.rc == XI_EDEVICE);
    assert_non_null(strstr(a->why.msg, "fell off the bus"));
    for (unsigned i = 0; i < fake.n_hosts; i++) {
        struct xi_host *h = fake.hosts[i];
        while (!h->ended && h->n_unloads > 0)
            fake_unloaded(h, h->unloads[0], 0);
        if (!h->ended && h->stopped)
            fake_exit(h, "");
    }
    assert_null(a->host);
    xi_sessions_device_state(f->sessions, "other", "GPU.0", 1, "it answers");
    assert_true(a->state == XI_SESSION_LOADING && a->host != NULL);
    assert_string_equal(a->device, "GPU.0");
    fixture_free(f);
}

/* It sleeps while its device goes: it wakes up elsewhere. */
static void one_that_sleeps_wakes_elsewhere(void **state)
{
    struct fixture *f = make();
    struct xi_session *s = up(f, "a");

    (void)state;
    assert_int_equal(xi_sessions_idle(f->sessions, s, "test"), 1);
    fake_exit(s->host, "");
    assert_string_equal(s->variant, "v0");
    xi_sessions_device_state(f->sessions, "reference", "CPU", 0, "it is gone");
    xi_entry_feed(xi_entry_of(s), XI_EV_LOAD);
    assert_string_equal(s->variant, "v1");
    fake_loaded(fake_last(), 1000000);
    assert_int_equal(s->state, XI_SESSION_READY);
    fixture_free(f);
}

static void an_exclusive_device_refuses_less(void **state)
{
    struct fixture *f = make();
    struct xi_load_options o = fixture_options("a", 1);
    struct xi_session *s, *t;
    struct xi_err err;

    (void)state;
    f->engines[0].probe.devices[0].exclusive = 1;
    o.isolation = XI_ISOLATE_SESSION;
    assert_int_equal(xi_sessions_load(f->sessions, "00000000-0000-4000-8000-000000000001", DIGEST_A,
                                      fixture_record("net", "a"), &o, NULL, NULL, &s, &err),
                     XI_ENOENGINE);
    assert_non_null(strstr(err.msg, "exclusive"));
    s = load(f, "a", "acme", XI_ISOLATE_AUTO, NULL);
    t = load(f, "b", "rival", XI_ISOLATE_AUTO, NULL);
    assert_true(s->isolation == XI_ISOLATE_DEVICE && s->host == t->host);
    fixture_free(f);
}

static void a_load_that_reports_for_ever_has_an_end(void **state)
{
    struct xi_sessions_config limits = {.load_silence_ms = 60, .load_limit_ms = 200};
    struct fixture *f = make_with(&limits);
    struct xi_session *a = load(f, "a", "acme", XI_ISOLATE_TENANT, NULL);
    struct xi_host *host = a->host;
    unsigned i;

    (void)state;
    for (i = 0; i < 100 && !host->stopped; i++) {
        fake_progress(host, a->number, "load");
        fixture_run_ms(f, 10);
    }
    assert_true(host->stopped);
    assert_non_null(strstr(host->stop_why, "took longer"));
    fixture_free(f);
}

/* A fresh host beside the one that grew: what runs ends there, what waits goes on here. */
static void a_host_that_grew_is_replaced(void **state)
{
    struct fixture *f = make();
    struct xi_session *a = up(f, "a"), *b = up(f, "b");
    struct xi_host *old = a->host, *fresh;
    struct asked running, waiting;

    (void)state;
    fixture_ask(f, &running, a, 16, 1);
    fixture_submit(f, &running);
    xi_group_renew(a->group, 300 * XI_MIB, 100 * XI_MIB);
    fresh = fake_last();
    assert_true(fresh != old && fresh->n_loads == 2 && a->host == old);
    fake_loaded_session(fresh, a->number, 1000000);
    assert_int_equal(a->state, XI_SESSION_READY);
    fake_loaded_session(fresh, b->number, 1000000);
    fixture_ask(f, &waiting, b, 16, 2);
    fixture_submit(f, &waiting); /* not in the old one any more */
    assert_true(a->host == old && running.answers == 0 && old->running[b->first_lane] == 0);
    fake_done(old, (uint32_t)busy_lane(a), XI_OK);
    assert_true(running.answers == 1 && running.rc == XI_OK);
    assert_true(a->host == fresh && b->host == fresh && old->stopped && !fresh->stopped);
    assert_true(busy_lane(b) >= 0);
    fake_exit(old, "");
    fake_done(fresh, (uint32_t)busy_lane(b), XI_OK);
    assert_true(waiting.answers == 1 && waiting.rc == XI_OK && fake.n_hosts == 2);
    assert_true(a->crashes == 0 && a->restarts == 1);
    fixture_free(f);
}

static void in_place_where_two_cannot_be(void **state)
{
    struct fixture *f = make();
    struct xi_session *a = load(f, "a", "acme", XI_ISOLATE_DEVICE, NULL);
    struct xi_session *b = load(f, "b", "rival", XI_ISOLATE_DEVICE, NULL);
    struct xi_host *old = a->host;
    struct asked running, waiting;

    (void)state;
    fake_loaded_session(old, a->number, 1000000);
    fake_loaded_session(old, b->number, 1000000);
    fixture_ask(f, &running, a, 16, 1);
    fixture_submit(f, &running);
    xi_group_renew(a->group, 300 * XI_MIB, 100 * XI_MIB);
    fixture_ask(f, &waiting, b, 16, 2);
    fixture_submit(f, &waiting);
    assert_true(fake.n_hosts == 1 && !old->stopped);
    fake_done(old, (uint32_t)busy_lane(a), XI_OK);
    assert_true(running.answers == 1 && old->stopped);
    assert_true(a->state == XI_SESSION_LOADING && b->state == XI_SESSION_LOADING);
    fake_exit(old, "");
    assert_true(fake.n_hosts == 2 && a->host == b->host && a->host != old);
    fake_loaded_session(a->host, a->number, 1000000);
    fake_loaded_session(a->host, b->number, 1000000);
    fake_done(b->host, (uint32_t)busy_lane(b), XI_OK);
    assert_true(waiting.answers == 1 && waiting.rc == XI_OK && a->crashes == 0);
    fixture_free(f);
}

/* Whatever happens meanwhile, the old one goes on and nobody's request is lost. */
static void a_replacement_is_called_off(void **state)
{
    unsigned how;

    (void)state;
    for (how = 0; how < 5; how++) {
        struct fixture *f = make();
        struct xi_session *a = up(f, "a"), *b = up(f, "b"), *c;
        struct xi_host *old = a->host, *fresh;
        struct asked r, s;

        fixture_ask(f, &r, a, 16, 1);
        fixture_submit(f, &r);
        xi_group_renew(a->group, 300 * XI_MIB, 100 * XI_MIB);
        fresh = fake_last();
        if (how == 0) {
            fake_exit(fresh, "ended by SIGSEGV");
        } else if (how == 1) {
            fake_failed(fresh, XI_ENOMEM, "no memory");
        } else if (how == 2) { /* before it is all there */
            xi_sessions_unload(f->sessions, b, NULL, NULL);
        } else {
            fake_loaded_session(fresh, a->number, 1000000);
            fake_loaded_session(fresh, b->number, 1000000);
            if (how == 3)
                xi_sessions_unload(f->sessions, b, NULL, NULL);
            else
                fake_exit(fresh, "ended by SIGSEGV");
        }
        fixture_ask(f, &s, a, 16, 2);
        fixture_submit(f, &s);
        fake_done(old, (uint32_t)busy_lane(a), XI_OK);
        while (busy_lane(a) >= 0)
            fake_done(old, (uint32_t)busy_lane(a), XI_OK);
        assert_true(r.answers == 1 && r.rc == XI_OK && s.answers == 1 && s.rc == XI_OK);
        assert_true(a->host == old && !old->stopped && a->state == XI_SESSION_READY);
        if (!fresh->ended)
            fake_exit(fresh, "");
        if (old->n_unloads > 0)
            fake_unloaded(old, old->unloads[0], 0);
        c = up(f, "c");
        assert_ptr_equal(c->host, old);
        fixture_free(f);
    }
}

/* The old one dies while the fresh one loads: as without it. */
static void the_old_host_may_die_meanwhile(void **state)
{
    struct fixture *f = make();
    struct xi_session *a = up(f, "a");
    struct xi_host *old = a->host, *fresh;

    (void)state;
    xi_group_renew(a->group, 300 * XI_MIB, 100 * XI_MIB);
    fresh = fake_last();
    fake_exit(old, "ended by SIGKILL");
    assert_true(fresh->stopped && a->host == NULL);
    fake_exit(fresh, "");
    wait_until(f, a, 1);
    fake_loaded(a->host, 1000000);
    assert_int_equal(a->state, XI_SESSION_READY);
    fixture_free(f);
}

/* ---- a storm ---- */

#define STORM_CALLS 500

struct storm {
    struct fixture *f;
    struct asked asked[STORM_CALLS];
    unsigned n_asked, renewed;
};

static void a_caller(struct storm *w)
{
    static const char *const names[] = {"one", "two", "three", "four"};
    static const enum xi_isolation kinds[] = {XI_ISOLATE_TENANT, XI_ISOLATE_TENANT,
                                              XI_ISOLATE_DEVICE, XI_ISOLATE_SESSION};
    uint32_t which = below(4), what = below(20);
    struct xi_load_options o = fixture_options(names[which], 1 + below(2));
    struct xi_session *s;
    struct xi_err err;
    char id[XI_UUID_TEXT + 1];

    o.isolation = kinds[which];
    if (xi_sessions_find(w->f->sessions, "default", names[which], &s, &err) != XI_OK) {
        xi_uuid_new(id);
        (void)!xi_sessions_load(w->f->sessions, id, DIGEST_A, fixture_record("net", "aab"), &o,
                                NULL, NULL, &s, &err);
    } else if (what == 0) {
        xi_sessions_unload(w->f->sessions, s, NULL, NULL);
    } else if (what < 3 && s->group != NULL && s->host != NULL) {
        xi_group_renew(s->group, 300 * XI_MIB, 100 * XI_MIB);
        w->renewed++;
    } else if (what == 3) {
        xi_sessions_device_state(w->f->sessions, NULL, "CPU", (int)below(2), "weather");
    } else if (w->n_asked < STORM_CALLS) {
        fixture_ask(w->f, &w->asked[w->n_asked], s, 16, (uint8_t)below(256));
        fixture_submit(w->f, &w->asked[w->n_asked++]);
    }
}

/* What an honest host would do next, or its end. */
static void a_host(struct xi_host *h)
{
    uint32_t i, what = below(40);

    if (h->ended)
        return;
    if (h->stopped || what == 0) {
        fake_exit(h, "ended by SIGSEGV");
        return;
    }
    if (what == 1) {
        fake_exit_code(h, XI_EXIT_DEVICE_LOST);
        return;
    }
    for (i = 0; i < h->lanes; i++) {
        if (h->running[i] != 0 && below(2)) {
            fake_done(h, i, XI_OK);
            return;
        }
    }
    if (h->n_unloads > 0) {
        for (i = 0; i < h->lanes; i++) {
            if (h->owner[i] == h->unloads[0] && h->running[i] != 0) {
                fake_done(h, i, XI_OK); /* first what is in flight */
                return;
            }
        }
        fake_unloaded(h, h->unloads[0], 1000000);
        return;
    }
    for (i = 0; i < h->n_loads; i++) {
        if (!h->told[i] && what > 8) {
            h->told[i] = 1;
            fake_loaded_session(h, h->loads[i].session, 1000);
            return;
        }
    }
}

static void check_places(struct fixture *f)
{
    struct xi_entry *e;

    for (e = f->sessions->first; e != NULL; e = e->next) {
        assert_int_equal(e->s.host != NULL, xi_fsm_has_host(&e->fsm));
        assert_int_equal(e->inside, e->s.host != NULL);
        if (e->inside)
            assert_ptr_equal(e->s.host, e->s.group->host);
    }
}

static void a_storm_loses_nothing(void **state)
{
    unsigned seed, i, asked = 0, hosts = 0, renewed = 0;

    (void)state;
    for (seed = 1; seed <= 3; seed++) {
        struct storm *w = calloc(1, sizeof(*w));

        assert_non_null(w);
        random_state = seed;
        w->f = make();
        for (i = 0; i < 500; i++) {
            a_caller(w);
            if (fake.n_hosts > 0)
                a_host(fake.hosts[fake.n_hosts - 1 - below(fake.n_hosts > 4 ? 4 : fake.n_hosts)]);
            if (i % 50 == 0)
                fixture_run_ms(w->f, 2);
            fixture_turn(w->f);
            check_places(w->f);
        }
        asked += w->n_asked;
        hosts += fake.n_hosts;
        renewed += w->renewed;
        fixture_free(w->f); /* also checks that no host, slot or answer is left */
        for (i = 0; i < w->n_asked; i++)
            assert_int_equal(w->asked[i].answers, 1);
        free(w);
    }
    print_message("%u requests, %u hosts, %u renewals\n", asked, hosts, renewed);
    assert_true(asked > 300 && hosts > 20 && renewed > 30);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tenants_share_among_themselves),
        cmocka_unit_test(requests_go_to_their_own_lanes),
        cmocka_unit_test(unloading_one_leaves_the_others),
        cmocka_unit_test(an_unload_keeps_its_time_limit),
        cmocka_unit_test(a_failed_load_leaves_the_others),
        cmocka_unit_test(many_crashes_age_at_once),
        cmocka_unit_test(only_those_that_ran_are_to_blame),
        cmocka_unit_test(a_load_that_ends_the_host_again_is_blamed_alone),
        cmocka_unit_test(a_candidate_starts_apart),
        cmocka_unit_test(one_that_comes_while_the_host_ends_waits),
        cmocka_unit_test(a_lost_device_moves_its_sessions),
        cmocka_unit_test(a_device_that_is_gone_fails_or_moves),
        cmocka_unit_test(one_that_sleeps_wakes_elsewhere),
        cmocka_unit_test(an_exclusive_device_refuses_less),
        cmocka_unit_test(a_load_that_reports_for_ever_has_an_end),
        cmocka_unit_test(a_host_that_grew_is_replaced),
        cmocka_unit_test(in_place_where_two_cannot_be),
        cmocka_unit_test(a_replacement_is_called_off),
        cmocka_unit_test(the_old_host_may_die_meanwhile),
        cmocka_unit_test(a_storm_loses_nothing),
    };
    return cmocka_run_group_tests_name("session_group", tests, NULL, NULL);
}
