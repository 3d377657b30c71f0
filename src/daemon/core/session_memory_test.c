/* Sessions and the memory they may take, against fake hosts that measure what the test says. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "daemon/core/admission.h"
#include "daemon/core/core_fixture.h"
#include "daemon/core/sequences.h"
#include "daemon/core/session_group.h"
#include "daemon/core/session_private.h"
#include "daemon/core/tenants.h"
#include "daemon/core/why.h"

static struct xi_why *journal;
static struct xi_tenants *tenants;

static struct fixture *make(uint64_t memory_mib)
{
    struct xi_pool_config pool = {.cores = 2, .queue_limit = 50, .watchdog_min_ms = 10000};
    struct xi_sessions_config sessions = {.host_program = "host",
                                          .engine_dir = "engines",
                                          .openvino_dir = "",
                                          .cores = 2,
                                          .crash_window_ms = 60000,
                                          .crash_limit = 5,
                                          .drain_ms = 60,
                                          .host_data_limit_bytes = 1024 * XI_MIB,
                                          .memory_bytes = memory_mib * XI_MIB};

    journal = xi_why_new();
    tenants = xi_tenants_new();
    assert_true(journal != NULL && tenants != NULL);
    sessions.why = journal;
    sessions.tenants = tenants;
    return fixture_new(&pool, &sessions);
}

static void unmake(struct fixture *f)
{
    fixture_free(f);
    xi_why_free(journal);
    xi_tenants_free(tenants);
}

/* A package that says it needs so much; the fake engine's context adds 10 MiB. */
static struct xi_session *load(struct fixture *f, const char *name, uint64_t says_mib,
                               const struct xi_load_options *options, struct told *t)
{
    struct xi_package_record *record = fixture_record(name, "a");
    struct xi_session *s = NULL;
    struct xi_err err;
    char id[XI_UUID_TEXT + 1];

    record->variants[0].memory_bytes = (says_mib - 10) * XI_MIB;
    xi_uuid_new(id);
    assert_int_equal(
        xi_sessions_load(f->sessions, id, DIGEST_A, record, options, fixture_told, t, &s, &err),
        XI_OK);
    return s;
}

static struct xi_session *loaded(struct fixture *f, const char *name, uint64_t mib)
{
    struct xi_load_options o = fixture_options(name, 1);
    struct told t = {0};
    struct xi_session *s;

    fake.peak_bytes = 0;
    s = load(f, name, mib, &o, &t);
    fake.memory_bytes = mib * XI_MIB;
    fake_loaded(fake_last(), 1000);
    assert_int_equal(s->state, XI_SESSION_READY);
    assert_int_equal(s->reserved_bytes, mib * XI_MIB);
    fake.peak_bytes = 0;
    return s;
}

static void used_at(struct xi_session *s, uint64_t ms)
{
    s->last_used_ms = ms;
    xi_entry_of(s)->memory.loaded_ms = ms;
}

static struct xi_budget_view budget(struct fixture *f)
{
    struct xi_budget_view view;

    assert_int_equal(xi_sessions_budget(f->sessions, 0, &view), 1);
    return view;
}

static void end(struct xi_host *host)
{
    assert_int_equal(host->stopped, 1);
    fake_exit(host, "");
}

static void what_does_not_fit_is_refused_with_figures(void **state)
{
    struct fixture *f = make(300);
    struct xi_load_options o = fixture_options("big", 1);
    struct told t = {0};
    struct xi_session *one, *s;

    (void)state;
    one = loaded(f, "one", 200);
    one->options.pinned = 1;
    s = load(f, "big", 150, &o, &t);
    assert_true(t.times == 1 && t.rc == XI_EBUDGET);
    assert_string_equal(t.err.msg, "big needs 150.0 MiB of memory; 100.0 MiB of 300.0 MiB are "
                                   "free; held by one 200.0 MiB");
    assert_int_equal(s->state, XI_SESSION_FAILED);
    assert_int_equal(fake.n_hosts, 1); /* nothing was started for it */
    assert_int_equal(budget(f).held, 200 * XI_MIB);
    const struct xi_why_entry *why = xi_why_find(journal, NULL, "big", NULL);
    assert_non_null(why);
    assert_true(why->kind == XI_WHY_REFUSED && why->rc == XI_EBUDGET);
    assert_string_equal(why->text, t.err.msg);
    /* Another package may have its name, and one that fits comes up. */
    xi_sessions_unload(f->sessions, s, NULL, NULL);
    (void)loaded(f, "big", 100);
    assert_int_equal(budget(f).free, 0);
    unmake(f);
}

static void the_longest_idle_leaves_and_comes_back(void **state)
{
    struct fixture *f = make(300);
    struct xi_load_options o = fixture_options("c", 1);
    struct xi_route_ask ask = {.tenant = "default", .name_or_id = "a"};
    struct told t = {0};
    struct xi_session *a = loaded(f, "a", 140), *b = loaded(f, "b", 140), *c, *routed;
    struct xi_host *of_a = fake.hosts[0];
    struct xi_err err;
    int wait;

    (void)state;
    used_at(a, 10);
    used_at(b, 20);
    c = load(f, "c", 140, &o, &t);
    assert_int_equal(a->state, XI_SESSION_IDLE);
    assert_int_equal(b->state, XI_SESSION_READY);
    assert_int_equal(fake.n_hosts, 2); /* c waits until a's host has really gone */
    assert_int_equal(c->reserved_bytes, 140 * XI_MIB);
    assert_true(budget(f).held <= 300 * XI_MIB);
    assert_int_equal(xi_why_find(journal, NULL, "a", NULL)->kind, XI_WHY_EVICTED);
    end(of_a);
    assert_int_equal(fake.n_hosts, 3);
    fake.memory_bytes = 140 * XI_MIB;
    fake_loaded(fake_last(), 1000);
    assert_true(t.times == 1 && t.rc == XI_OK);
    assert_int_equal(a->reserved_bytes, 0);
    fake.peak_bytes = 0;
    /* A request for a: b is the longest idle now. a returned within the guard: it may stay. */
    used_at(b, 20);
    assert_int_equal(xi_sessions_route(f->sessions, &ask, &routed, &wait, &err), XI_OK);
    assert_ptr_equal(routed, a);
    assert_int_equal(b->state, XI_SESSION_IDLE);
    end(fake.hosts[1]);
    fake_loaded(fake_last(), 1000);
    assert_int_equal(a->state, XI_SESSION_READY);
    xi_session_leave(a);
    fake.peak_bytes = 0;
    /* b wants back: c goes. Then c: neither may go again so soon. */
    used_at(a, 1);
    used_at(c, 2);
    ask.name_or_id = "b";
    assert_int_equal(xi_sessions_route(f->sessions, &ask, &routed, &wait, &err), XI_OK);
    assert_int_equal(a->state, XI_SESSION_READY);
    assert_int_equal(c->state, XI_SESSION_IDLE);
    end(fake.hosts[2]);
    fake_loaded(fake_last(), 1000);
    xi_session_leave(b);
    fake.peak_bytes = 0;
    ask.name_or_id = "c";
    assert_int_equal(xi_sessions_route(f->sessions, &ask, &routed, &wait, &err), XI_EBUDGET);
    assert_non_null(strstr(err.msg, "do not fit together"));
    assert_in_range(c->retry_after_s, 1, 60);
    assert_int_equal(c->state, XI_SESSION_IDLE); /* the next request asks again */
    unmake(f);
}

static void who_is_in_use_or_pinned_stays(void **state)
{
    struct fixture *f = make(300);
    struct xi_load_options o = fixture_options("c", 1);
    struct told t = {0};
    struct xi_session *a = loaded(f, "a", 140), *b = loaded(f, "b", 140);
    struct asked asked;

    (void)state;
    a->options.pinned = 1;
    fixture_ask(f, &asked, b, 16, 1);
    fixture_submit(f, &asked);
    (void)load(f, "c", 140, &o, &t);
    assert_true(t.times == 1 && t.rc == XI_EBUDGET);
    assert_true(a->state == XI_SESSION_READY && b->state == XI_SESSION_READY);
    fake_done(fake.hosts[1], 0, XI_OK);
    assert_int_equal(asked.answers, 1);
    b->leases = 1;
    (void)load(f, "c", 140, &o, &t);
    assert_true(t.times == 2 && t.rc == XI_EBUDGET);
    b->leases = 0;
    xi_sessions_set_memory(f->sessions, 300 * XI_MIB, 0);
    (void)load(f, "c", 140, &o, &t);
    assert_true(t.times == 3 && t.rc == XI_EBUDGET);
    xi_sessions_set_memory(f->sessions, 300 * XI_MIB, 1);
    (void)load(f, "c", 140, &o, &t);
    assert_int_equal(b->state, XI_SESSION_IDLE);
    end(fake.hosts[1]);
    fake_loaded(fake_last(), 1000);
    assert_true(t.times == 4 && t.rc == XI_OK);
    unmake(f);
}

static void a_request_for_one_that_leaves_takes_its_turn(void **state)
{
    struct fixture *f = make(300);
    struct xi_load_options o = fixture_options("b", 1);
    struct xi_route_ask ask = {.tenant = "default", .name_or_id = "a"};
    struct told t = {0};
    struct xi_session *a = loaded(f, "a", 200), *b, *routed;
    struct xi_err err;
    int wait;

    (void)state;
    b = load(f, "b", 200, &o, &t);
    assert_int_equal(a->state, XI_SESSION_IDLE);
    assert_int_equal(xi_sessions_route(f->sessions, &ask, &routed, &wait, &err), XI_OK);
    end(fake.hosts[0]); /* b was first */
    assert_int_equal(b->reserved_bytes, 200 * XI_MIB);
    assert_int_equal(a->reserved_bytes, 0);
    assert_int_equal(a->state, XI_SESSION_IDLE);
    fake_loaded(fake_last(), 1000);
    assert_true(t.times == 1 && t.rc == XI_OK);
    xi_session_leave(a);
    unmake(f);
}

static void an_unload_ends_the_waiting(void **state)
{
    struct fixture *f = make(300);
    struct xi_load_options o = fixture_options("b", 1);
    struct told t = {0}, gone = {0};
    struct xi_session *a = loaded(f, "a", 200), *b;

    (void)state;
    b = load(f, "b", 200, &o, &t);
    assert_int_equal(a->state, XI_SESSION_IDLE);
    xi_sessions_unload(f->sessions, b, fixture_told, &gone);
    assert_true(t.times == 1 && t.rc == XI_EGONE && gone.times == 1);
    end(fake.hosts[0]);
    assert_int_equal(fake.n_hosts, 1);
    assert_int_equal(budget(f).held, 0);
    unmake(f);
}

static void the_second_load_knows_better(void **state)
{
    struct fixture *f = make(300);
    struct xi_load_options o = fixture_options("liar", 1);
    struct told t = {0};
    struct xi_session *s = load(f, "liar", 20, &o, &t);

    (void)state;
    assert_int_equal(s->reserved_bytes, 20 * XI_MIB);
    fake.memory_bytes = 250 * XI_MIB;
    fake_loaded(fake_last(), 1000);
    assert_int_equal(s->reserved_bytes, 250 * XI_MIB); /* it fits, so it may */
    assert_int_equal(fake.peak_bytes, 250 * XI_MIB);
    xi_sessions_unload(f->sessions, s, NULL, NULL);
    end(fake_last());
    assert_int_equal(budget(f).held, 0);
    xi_sessions_set_memory(f->sessions, 200 * XI_MIB, 1);
    (void)load(f, "liar", 20, &o, &t);
    assert_true(t.rc == XI_EBUDGET && fake.n_hosts == 1);
    assert_non_null(strstr(t.err.msg, "needs 250.0 MiB"));
    unmake(f);
}

static void a_peak_that_does_not_fit_ends_the_load_or_others(void **state)
{
    struct fixture *f = make(300);
    struct xi_load_options o = fixture_options("liar", 1);
    struct told t = {0};
    struct xi_session *a = loaded(f, "a", 100), *s = load(f, "liar", 20, &o, &t);

    (void)state;
    a->options.pinned = 1;
    fake.memory_bytes = 250 * XI_MIB;
    fake_loaded(fake_last(), 1000);
    assert_true(t.times == 1 && t.rc == XI_EBUDGET);
    assert_non_null(strstr(t.err.msg, "measured"));
    assert_int_equal(s->state, XI_SESSION_FAILED);
    end(fake_last());
    assert_int_equal(budget(f).held, 100 * XI_MIB);
    /* With nobody pinned it may stay, and the idle one goes. */
    a->options.pinned = 0;
    fake.peak_bytes = 0;
    s = load(f, "liar", 20, &o, &t);
    fake_loaded(fake_last(), 1000);
    assert_true(t.times == 2 && t.rc == XI_OK);
    assert_int_equal(a->state, XI_SESSION_IDLE);
    assert_true(budget(f).held <= 300 * XI_MIB);
    end(fake.hosts[0]);
    assert_int_equal(budget(f).held, 250 * XI_MIB);
    unmake(f);
}

static void a_restart_has_its_room(void **state)
{
    struct fixture *f = make(300);
    struct xi_load_options o = fixture_options("b", 1);
    struct told t = {0};
    struct xi_session *a = loaded(f, "a", 200);
    unsigned hosts = fake.n_hosts;

    (void)state;
    fake_exit(fake_last(), "ended by SIGSEGV");
    assert_int_equal(budget(f).held, 200 * XI_MIB); /* kept while it waits to start anew */
    (void)load(f, "b", 150, &o, &t);
    assert_int_equal(t.rc, XI_EBUDGET);
    fixture_run_ms(f, 200);
    assert_int_equal(fake.n_hosts, hosts + 1);
    fake_loaded(fake_last(), 1000);
    assert_int_equal(a->state, XI_SESSION_READY);
    assert_int_equal(a->reserved_bytes, 200 * XI_MIB);
    unmake(f);
}

/* It waits for others to leave, crashes, and asks again while it waits still: who waits behind it
 * keeps its place. */
static void a_crash_while_waiting_loses_nobody(void **state)
{
    struct fixture *f = make(300);
    struct xi_load_options ol = fixture_options("liar", 1), oc = fixture_options("c", 1);
    struct told tl = {0}, tc = {0};
    struct xi_session *a = loaded(f, "a", 100), *d, *liar, *c;
    struct xi_host *of_a = fake_last(), *of_d;

    (void)state;
    d = loaded(f, "d", 150);
    of_d = fake_last();
    used_at(a, 10);
    used_at(d, 20);
    liar = load(f, "liar", 40, &ol, &tl);
    fake.memory_bytes = 145 * XI_MIB;
    fake_loaded(fake_last(), 1000);
    assert_true(liar->state == XI_SESSION_READY && a->state == XI_SESSION_IDLE);
    fake.peak_bytes = 0;
    c = load(f, "c", 60, &oc, &tc);
    assert_true(d->state == XI_SESSION_IDLE && c->host == NULL);
    fake.peak_bytes = 145 * XI_MIB;
    fake_exit(liar->host, "ended by SIGSEGV");
    fixture_run_ms(f, 150); /* it asks anew; of_a has still not ended */
    end(of_a);
    end(of_d);
    assert_true(liar->host != NULL && c->host != NULL);
    assert_null(f->sessions->memory_line);
    fake_loaded(c->host, 1000);
    assert_true(tc.times == 1);
    unmake(f);
}

/* Desired state of a daemon that was ended while idle sessions made room for each other. */
static void what_nobody_waits_for_sleeps_where_no_room_is(void **state)
{
    struct fixture *f = make(300);
    struct xi_load_options o = fixture_options("b", 1);
    struct xi_package_record *record = fixture_record("b", "a");
    struct xi_session *a, *b;
    struct xi_err err;

    (void)state;
    a = loaded(f, "a", 200);
    a->options.pinned = 1;
    record->variants[0].memory_bytes = 140 * XI_MIB;
    assert_int_equal(xi_sessions_load(f->sessions, "b0000000-0000-4000-8000-000000000000", DIGEST_A,
                                      record, &o, NULL, NULL, &b, &err),
                     XI_OK);
    assert_int_equal(b->state, XI_SESSION_IDLE);
    a->options.pinned = 0; /* the next request tries again */
    xi_entry_feed(xi_entry_of(b), XI_EV_LOAD);
    assert_int_equal(a->state, XI_SESSION_IDLE);
    end(fake_last());
    fake_loaded(fake_last(), 1000);
    assert_int_equal(b->state, XI_SESSION_READY);
    unmake(f);
}

static void a_smaller_variant_is_tried(void **state)
{
    struct fixture *f = make(300);
    struct xi_load_options o = fixture_options("net", 1);
    struct xi_package_record *record = fixture_record("net", "ab");
    struct told t = {0};
    struct xi_session *s;
    struct xi_err err;
    char id[XI_UUID_TEXT + 1];

    (void)state;
    record->variants[0].memory_bytes = 400 * XI_MIB;
    record->variants[1].memory_bytes = 40 * XI_MIB;
    xi_uuid_new(id);
    assert_int_equal(
        xi_sessions_load(f->sessions, id, DIGEST_A, record, &o, fixture_told, &t, &s, &err), XI_OK);
    assert_string_equal(s->variant, "v1");
    assert_non_null(strstr(s->skipped, "v0: net needs 410.0 MiB"));
    fake_loaded(fake_last(), 1000);
    assert_int_equal(t.rc, XI_OK);
    unmake(f);
}

static void a_tenant_has_a_quota(void **state)
{
    struct fixture *f = make(1000);
    struct xi_tenant_limits limits = {.weight = 1, .memory_bytes = 300 * XI_MIB};
    struct xi_load_options o = fixture_options("b", 1);
    struct told t = {0};
    struct xi_session *a;
    struct xi_err err;

    (void)state;
    assert_int_equal(xi_tenants_configure(tenants, "default", &limits, &err), XI_OK);
    a = loaded(f, "a", 200);
    a->options.pinned = 1;
    assert_int_equal(xi_tenants_get(tenants, "default")->reserved_bytes, 200 * XI_MIB);
    (void)load(f, "b", 150, &o, &t);
    assert_int_equal(t.rc, XI_EBUDGET);
    assert_non_null(strstr(t.err.msg, "tenant default's 300.0 MiB"));
    (void)snprintf(o.tenant, sizeof(o.tenant), "other");
    (void)load(f, "b", 150, &o, &t);
    fake_loaded(fake_last(), 1000);
    assert_true(t.times == 2 && t.rc == XI_OK);
    unmake(f);
}

/* Two steps of a conversation may lie far apart: what the model keeps of it is not thrown away. */
static void a_live_sequence_keeps_its_session(void **state)
{
    struct fixture *f = make(300);
    struct xi_load_options o = fixture_options("b", 1);
    struct xi_sequence_ask ask;
    struct xi_sequences_stats stats;
    struct told t = {0};
    struct xi_session *a = loaded(f, "a", 200);
    struct asked asked;
    struct xi_err err;

    (void)state;
    fixture_ask(f, &asked, a, 16, 1);
    assert_int_equal(xi_sequence_parse("talk;start", &ask, &err), XI_OK);
    assert_int_equal(xi_sequence_join(NULL, &asked.r, &ask, &err), XI_OK);
    fixture_submit(f, &asked);
    fake_done(fake.hosts[0], 0, XI_OK);
    assert_true(asked.answers == 1 && asked.rc == XI_OK);
    xi_sequences_stats(a, &stats);
    assert_int_equal(stats.open, 1);
    a->last_used_ms = 0; /* long ago */
    (void)load(f, "b", 200, &o, &t);
    assert_true(t.times == 1 && t.rc == XI_EBUDGET && a->state == XI_SESSION_READY);
    assert_int_equal(xi_sessions_idle(f->sessions, a, "nobody asked"), 0); /* nor by keep_alive */
    xi_sequences_expire(a, UINT64_MAX);
    (void)load(f, "b", 200, &o, &t);
    assert_int_equal(a->state, XI_SESSION_IDLE);
    end(fake.hosts[0]);
    fake_loaded(fake_last(), 1000);
    assert_true(t.times == 2 && t.rc == XI_OK);
    unmake(f);
}

static struct xi_session *shared(struct fixture *f, const char *name, uint64_t mib,
                                 uint64_t host_mib)
{
    struct xi_load_options o = fixture_options(name, 1);
    struct told t = {0};
    struct xi_session *s;

    fake.peak_bytes = 0;
    o.isolation = XI_ISOLATE_TENANT;
    s = load(f, name, mib, &o, &t);
    fake.memory_bytes = host_mib * XI_MIB;
    fake_loaded_session(s->host, s->number, 1000);
    assert_int_equal(s->state, XI_SESSION_READY);
    fake.peak_bytes = 0;
    return s;
}

/* The context (10 MiB) is the host's: whoever is evicted, it stays until the host ends. */
static void a_context_is_counted_once(void **state)
{
    struct fixture *f = make(300);
    struct xi_load_options o = fixture_options("d", 1);
    struct xi_session *a = shared(f, "a", 110, 110), *b = shared(f, "b", 90, 190);
    struct xi_host *host = a->host;
    struct told t = {0};

    (void)state;
    assert_ptr_equal(b->host, host);
    assert_int_equal(a->reserved_bytes, 110 * XI_MIB);
    assert_int_equal(b->reserved_bytes, 80 * XI_MIB);
    used_at(a, 1);
    used_at(b, 2);
    b->options.pinned = 1;
    o.isolation = XI_ISOLATE_SESSION;
    (void)load(f, "d", 211, &o, &t); /* 210 are free once a has left: not its context */
    assert_int_equal(t.rc, XI_EBUDGET);
    assert_string_equal(t.err.msg, "d needs 211.0 MiB of memory; 110.0 MiB of 300.0 MiB are free; "
                                   "held by a 110.0 MiB, b 80.0 MiB");
    assert_int_equal(a->state, XI_SESSION_READY);
    o = fixture_options("e", 1);
    o.isolation = XI_ISOLATE_SESSION;
    (void)load(f, "e", 210, &o, &t);
    assert_int_equal(a->state, XI_SESSION_IDLE);
    fake_unloaded(host, a->number, 90 * XI_MIB);
    assert_int_equal(b->reserved_bytes, 90 * XI_MIB); /* it has it now */
    assert_int_equal(budget(f).held, 300 * XI_MIB);
    fake.memory_bytes = 210 * XI_MIB;
    fake_loaded(fake_last(), 1000);
    assert_true(t.times == 2 && t.rc == XI_OK);
    unmake(f);
}

/* While the fresh host loads, nobody else gets its room; without room it is done in place. */
static void a_fresh_host_has_its_room(void **state)
{
    struct fixture *f = make(300);
    struct xi_load_options o = fixture_options("d", 1);
    struct xi_session *a = shared(f, "a", 110, 110);
    struct xi_host *old = a->host;
    struct told t = {0};

    (void)state;
    a->options.pinned = 1;
    xi_group_renew(a->group, 400 * XI_MIB, 200 * XI_MIB);
    assert_int_equal(fake.n_hosts, 2);
    assert_int_equal(budget(f).held, 220 * XI_MIB);
    (void)load(f, "d", 100, &o, &t);
    assert_int_equal(t.rc, XI_EBUDGET);
    assert_non_null(strstr(t.err.msg, "a fresh host 110.0 MiB"));
    fake_loaded_session(fake.hosts[1], a->number, 1000);
    assert_true(a->host == fake.hosts[1] && old->stopped);
    assert_int_equal(budget(f).held, 220 * XI_MIB); /* the old one is still there */
    fake_exit(old, "");
    assert_int_equal(budget(f).held, 110 * XI_MIB);
    xi_sessions_set_memory(f->sessions, 200 * XI_MIB, 1);
    xi_group_renew(a->group, 400 * XI_MIB, 200 * XI_MIB);
    assert_int_equal(fake.n_hosts, 2); /* in place: this one ends first */
    assert_true(fake.hosts[1]->stopped);
    assert_int_equal(budget(f).held, 110 * XI_MIB);
    fake_exit(fake.hosts[1], "");
    assert_int_equal(fake.n_hosts, 3);
    fake_loaded_session(fake.hosts[2], a->number, 1000);
    assert_int_equal(a->state, XI_SESSION_READY);
    unmake(f);
}

/* Let in, and then somebody else was faster: said with figures; a plain lack stays what it is. */
static void others_take_it_meanwhile(void **state)
{
    struct fixture *f = make(0);
    struct xi_load_options o = fixture_options("a", 1);
    struct told t = {0};
    int theirs;

    (void)state;
    for (theirs = 0; theirs < 2; theirs++) {
        xi_admission_seen(f->sessions->admission, 0, 1000 * XI_MIB, 600 * XI_MIB, 10);
        (void)load(f, "a", 200, &o, &t);
        assert_int_equal(t.times, theirs);
        if (theirs)
            xi_admission_seen(f->sessions->admission, 0, 1000 * XI_MIB, 100 * XI_MIB, 20);
        fake_failed(fake_last(), XI_ENOMEM, "no 190 MiB in one piece");
        end(fake_last());
        assert_true(t.times == theirs + 1 && t.rc == (theirs ? XI_EBUDGET : XI_ENOMEM));
    }
    assert_string_equal(t.err.msg,
                        "a needs 200.0 MiB of memory and was let in; while it loaded other "
                        "programs took 500.0 MiB more, 900.0 MiB in all: no 190 MiB in one piece");
    assert_int_equal(xi_why_find(journal, NULL, "a", NULL)->rc, XI_EBUDGET);
    unmake(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_live_sequence_keeps_its_session),
        cmocka_unit_test(a_context_is_counted_once),
        cmocka_unit_test(a_fresh_host_has_its_room),
        cmocka_unit_test(others_take_it_meanwhile),
        cmocka_unit_test(what_does_not_fit_is_refused_with_figures),
        cmocka_unit_test(the_longest_idle_leaves_and_comes_back),
        cmocka_unit_test(who_is_in_use_or_pinned_stays),
        cmocka_unit_test(a_request_for_one_that_leaves_takes_its_turn),
        cmocka_unit_test(an_unload_ends_the_waiting),
        cmocka_unit_test(the_second_load_knows_better),
        cmocka_unit_test(a_peak_that_does_not_fit_ends_the_load_or_others),
        cmocka_unit_test(a_restart_has_its_room),
        cmocka_unit_test(a_crash_while_waiting_loses_nobody),
        cmocka_unit_test(what_nobody_waits_for_sleeps_where_no_room_is),
        cmocka_unit_test(a_smaller_variant_is_tried),
        cmocka_unit_test(a_tenant_has_a_quota),
    };

    return cmocka_run_group_tests_name("session_memory", tests, NULL, NULL);
}
