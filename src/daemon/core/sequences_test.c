/* Sequences: what a client may say; then random arrivals, answers, crashes, cancellations and
 * pauses under a clock of our own, held against a plain account of what must have happened; then
 * the same through the pool with hosts that a test tells what to do. */
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
#include "daemon/core/sequences.h"

/* ---- what a client says ---- */

static void headers_are_understood_or_refused(void **state)
{
    static const struct {
        const char *text, *id;
        unsigned flags;
    } good[] = {
        {"a", "a", 0},
        {"  call-17 ", "call-17", 0},
        {"x;start", "x", XI_SEQUENCE_START},
        {"x ; end", "x", XI_SEQUENCE_END},
        {"a=b!~;end; start ", "a=b!~", XI_SEQUENCE_START | XI_SEQUENCE_END},
    };
    static const char *const bad[] = {"",         " ",           ";start", "a b",
                                      "a;begin",  "a;",          "a,b",    "a\"b",
                                      "a;startx", "a;start end", "a\\b",   "\xc3\xa9"};
    char longest[XI_SEQUENCE_ID_MAX + 2];
    struct xi_sequence_ask ask;
    struct xi_err err;
    size_t i;

    (void)state;
    for (i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        assert_int_equal(xi_sequence_parse(good[i].text, &ask, &err), XI_OK);
        assert_string_equal(ask.id, good[i].id);
        assert_int_equal(ask.flags, good[i].flags);
    }
    for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(xi_sequence_parse(bad[i], &ask, &err), XI_EINVAL);
        assert_string_equal(ask.id, "");
    }
    memset(longest, 'a', sizeof(longest));
    longest[XI_SEQUENCE_ID_MAX] = '\0';
    assert_int_equal(xi_sequence_parse(longest, &ask, &err), XI_OK);
    longest[XI_SEQUENCE_ID_MAX] = 'a';
    longest[XI_SEQUENCE_ID_MAX + 1] = '\0';
    assert_int_equal(xi_sequence_parse(longest, &ask, &err), XI_EINVAL);
    assert_true(xi_sequence_hash("a", "bc") != xi_sequence_hash("ab", "c"));
    assert_true(xi_sequence_hash("a", "b") == xi_sequence_hash("a", "b"));
}

/* ---- the model's session ---- */

enum { IDS = 6, LIVE = 64, IDLE_MS = 5000 };

static struct xi_msg_port one_number = {.dtype = XI_DT_INT64, .rank = 2, .dims = {1, 1}};

static void make_session(struct xi_session *s, enum xi_stateful stateful)
{
    *s = (struct xi_session){.stateful = stateful, .lane_count = 1, .refs = 1};
    (void)snprintf(s->name, sizeof(s->name), "ears");
    (void)snprintf(s->tenant, sizeof(s->tenant), "default");
    s->signature.n_inputs = 1;
    s->options.sequence_idle_s = IDLE_MS / 1000;
    if (stateful == XI_STATE_EXPLICIT) {
        s->states = &one_number;
        s->n_states = 1;
    }
}

/* The host's half of the bargain: state n + 1 from state n and the request. */
static int64_t next_state(int64_t before, uint64_t request)
{
    return (int64_t)((uint64_t)before * 31 + request);
}

static void make_reply(struct xi_reply *reply, struct xi_segment *segment, int64_t *value)
{
    memset(reply, 0, sizeof(*reply));
    segment->map = (struct xi_map){.base = value, .bytes = sizeof(*value)};
    reply->done.n_parts = 1;
    reply->done.n_state = 1;
    reply->parts[0] =
        (struct xi_part){.kind = XI_PART_TENSOR, .dtype = XI_DT_INT64, .rank = 2, .dims = {1, 1}};
    reply->parts[0].mem.bytes = sizeof(*value);
    reply->segments[0] = segment;
}

/* ---- the pure part under a simulated clock ---- */

enum life { UNUSED = 0, WAITS, RUNS };

struct sim_request {
    struct xi_request r;
    enum life life;
    int id;
    uint64_t number; /* in the order of arrival */
    int turned;      /* begin was called */
};

/* What must be true of one id, kept without any of the code under test. */
struct account {
    int known;         /* begun, and not ended, failed at its start, or idle for too long */
    int64_t value;     /* what the last answered request wrote */
    uint64_t answered; /* since its start */
    uint64_t last;     /* number of the request that had its turn last */
    uint64_t idle_since;
};

struct sim {
    struct xi_session session;
    struct sim_request all[LIVE];
    struct account accounts[IDS];
    uint64_t now_ms, arrivals, answers, refusals, retries, expiries;
};

static const char *const names[IDS] = {"a", "b", "c", "d", "e", "f"};

static unsigned of_id(const struct sim *sim, int id)
{
    unsigned n = 0;
    int i;

    for (i = 0; i < LIVE; i++)
        n += sim->all[i].life != UNUSED && sim->all[i].id == id;
    return n;
}

/* Those that have not had their turn. */
static unsigned in_line(const struct sim *sim)
{
    unsigned n = 0;
    int i;

    for (i = 0; i < LIVE; i++)
        n += sim->all[i].life != UNUSED && !sim->all[i].turned;
    return n;
}

static struct sim_request *sim_of(struct xi_request *r)
{
    return (struct sim_request *)(void *)r;
}

static int64_t state_of(const struct xi_request *r)
{
    const struct xi_slot *slot = xi_sequence_slot(r);
    const struct xi_part *part = &r->parts[r->n_parts - 1];
    int64_t value;

    assert_int_equal(part->mem.segment, slot->segment->id);
    memcpy(&value, (const uint8_t *)slot->segment->map.base + part->mem.offset, sizeof(value));
    return value;
}

static void leave(struct sim *sim, struct sim_request *q, enum xi_rc rc);

/* It has its turn: what it is to read must be what the one before it wrote. */
static void turn(struct sim *sim, struct sim_request *q)
{
    struct account *a = &sim->accounts[q->id];
    int start = (q->r.sequence_flags & XI_SEQUENCE_START) != 0;
    struct xi_err err;
    enum xi_rc rc;

    assert_false(q->turned);
    assert_true(q->number > a->last);
    q->turned = 1;
    a->last = q->number;
    rc = xi_sequence_begin(&q->r, &err);
    if (start) {
        a->known = 1;
        a->answered = 0;
    }
    if (!a->known) {
        assert_int_equal(rc, XI_ESEQUENCE);
        leave(sim, q, rc);
        return;
    }
    assert_int_equal(rc, XI_OK);
    if (a->answered == 0) {
        assert_int_equal(q->r.n_state, 0);
        assert_int_equal(xi_sequence_work_flags(&q->r), XI_WORK_START);
    } else {
        assert_int_equal(q->r.n_state, 1);
        assert_int_equal(xi_sequence_work_flags(&q->r), 0);
        assert_int_equal(state_of(&q->r), a->value);
    }
}

static void leave(struct sim *sim, struct sim_request *q, enum xi_rc rc)
{
    struct account *a = &sim->accounts[q->id];
    unsigned flags = q->r.sequence_flags;
    struct xi_request *next;

    if ((rc == XI_OK && flags & XI_SEQUENCE_END) || (rc != XI_OK && flags & XI_SEQUENCE_START))
        a->known = 0;
    sim->refusals += rc != XI_OK;
    sim->answers++;
    next = xi_sequence_leave(&q->r, rc, sim->now_ms);
    assert_null(q->r.sequence);
    q->life = UNUSED;
    if (of_id(sim, q->id) == 0)
        a->idle_since = sim->now_ms;
    if (next != NULL)
        turn(sim, sim_of(next));
}

static void arrive(struct sim *sim)
{
    struct sim_request *q = NULL;
    struct xi_sequence_ask ask = {0};
    struct account *a;
    struct xi_err err;
    enum xi_rc rc;
    int i, id = (int)below(IDS), open;

    for (i = 0; i < LIVE && q == NULL; i++)
        q = sim->all[i].life == UNUSED ? &sim->all[i] : NULL;
    if (q == NULL)
        return;
    a = &sim->accounts[id];
    open = a->known || of_id(sim, id) > 0;
    memset(q, 0, sizeof(*q));
    q->id = id;
    q->number = ++sim->arrivals;
    q->r.session = &sim->session;
    q->r.n_parts = 1;
    memcpy(q->r.tenant, "default", 8);
    (void)snprintf(ask.id, sizeof(ask.id), "%s", names[id]);
    ask.flags = (below(8) == 0 ? XI_SEQUENCE_START : 0u) | (below(12) == 0 ? XI_SEQUENCE_END : 0u);
    rc = xi_sequence_join(NULL, &q->r, &ask, &err);
    if (rc != XI_OK) {
        assert_int_equal(rc, XI_ESEQUENCE);
        assert_false(open || ask.flags & XI_SEQUENCE_START);
        sim->answers++;
        return;
    }
    assert_true(open || ask.flags & XI_SEQUENCE_START);
    q->life = WAITS;
    if (below(20) == 0) { /* the pool's queue is full: it never entered */
        leave(sim, q, XI_EAGAIN);
        return;
    }
    xi_sequence_enter(&q->r);
    assert_int_equal(xi_sequence_turn(&q->r), of_id(sim, id) == 1);
    if (xi_sequence_turn(&q->r))
        turn(sim, q);
}

static struct sim_request *any(struct sim *sim, enum life life, int turned)
{
    unsigned from = below(LIVE), i;

    for (i = 0; i < LIVE; i++) {
        struct sim_request *q = &sim->all[(from + i) % LIVE];

        if (q->life == life && q->turned >= turned)
            return q;
    }
    return NULL;
}

static void start_one(struct sim *sim)
{
    struct sim_request *q = any(sim, WAITS, 1);

    if (q == NULL)
        return;
    q->life = RUNS;
    q->r.timing.dispatched = sim->now_ms + 1;
}

static void answer_one(struct sim *sim)
{
    struct sim_request *q = any(sim, RUNS, 1);
    struct xi_segment segment = {.id = 9, .refs = 2}; /* on the stack: never freed */
    struct account *a;
    struct xi_reply reply;
    struct xi_err err;
    int64_t value;
    int known;

    if (q == NULL)
        return;
    if (below(10) == 0) {
        leave(sim, q, XI_EENGINE);
        return;
    }
    a = &sim->accounts[q->id];
    known = a->known; /* a start that was refused meanwhile ends it under its feet */
    value = next_state(q->r.n_state > 0 ? state_of(&q->r) : 0, q->number);
    make_reply(&reply, &segment, &value);
    assert_int_equal(xi_sequence_commit(&q->r, &reply, &err), XI_OK);
    assert_int_equal(reply.done.n_parts, 0);
    if (known) {
        a->value = next_state(a->answered > 0 ? a->value : 0, q->number);
        a->answered++;
        assert_int_equal(a->value, value);
    }
    leave(sim, q, XI_OK);
}

/* Everything that ran is to run again, with the same state. */
static void crash(struct sim *sim)
{
    int i;

    for (i = 0; i < LIVE; i++) {
        struct sim_request *q = &sim->all[i];
        const struct account *a = &sim->accounts[q->id];

        if (q->life != RUNS)
            continue;
        q->life = WAITS;
        sim->retries++;
        if (q->r.n_state > 0 && a->known)
            assert_int_equal(state_of(&q->r), a->value);
    }
}

static void pause_ms(struct sim *sim, uint64_t ms)
{
    struct xi_sequences_stats stats;
    int id;

    sim->now_ms += ms;
    xi_sequences_expire(&sim->session, sim->now_ms);
    for (id = 0; id < IDS; id++) {
        struct account *a = &sim->accounts[id];

        if (a->known && of_id(sim, id) == 0 && sim->now_ms >= a->idle_since + IDLE_MS) {
            a->known = 0;
            sim->expiries++;
        }
        assert_int_equal(xi_sequences_has(&sim->session, "default", names[id]),
                         a->known || of_id(sim, id) > 0);
    }
    xi_sequences_stats(&sim->session, &stats);
    assert_int_equal(stats.expired, sim->expiries);
    assert_int_equal(stats.waiting, in_line(sim));
}

static void give_up(struct sim *sim)
{
    struct sim_request *q = any(sim, below(2) ? WAITS : RUNS, 0);

    if (q != NULL)
        leave(sim, q, below(2) ? XI_ECANCELLED : XI_ETIMEOUT);
}

static void sequences_keep_their_word(void **state)
{
    static struct sim sim;
    int step;

    (void)state;
    memset(&sim, 0, sizeof(sim));
    random_state = 20261123;
    make_session(&sim.session, XI_STATE_EXPLICIT);
    for (step = 0; step < 400000; step++) {
        unsigned what = below(100);

        if (what < 38)
            arrive(&sim);
        else if (what < 62)
            start_one(&sim);
        else if (what < 90)
            answer_one(&sim);
        else if (what < 93)
            give_up(&sim);
        else if (what < 95)
            crash(&sim);
        else
            pause_ms(&sim, below(what == 99 ? 2 * IDLE_MS : 500));
    }
    while (any(&sim, WAITS, 0) != NULL || any(&sim, RUNS, 0) != NULL) {
        start_one(&sim);
        answer_one(&sim);
    }
    assert_int_equal(sim.answers, sim.arrivals); /* none lost, none answered twice */
    assert_true(sim.retries > 1000 && sim.expiries > 100);
    pause_ms(&sim, 2 * IDLE_MS);
    xi_sequences_free(&sim.session);
    assert_null(sim.session.sequences);
    fake_reset(); /* no state memory is left over */
}

/* ---- limits ---- */

static enum xi_rc join_one(struct xi_session *s, struct xi_request *r, const char *header,
                           struct xi_err *err)
{
    struct xi_sequence_ask ask;

    memset(r, 0, sizeof(*r));
    r->session = s;
    r->n_parts = 1;
    memcpy(r->tenant, "default", 8);
    assert_int_equal(xi_sequence_parse(header, &ask, err), XI_OK);
    return xi_sequence_join(NULL, r, &ask, err);
}

static void sequences_have_a_limit(void **state)
{
    static struct xi_request all[XI_SEQUENCES_MAX + 1];
    struct xi_session s;
    struct xi_err err;
    char header[32];
    uint32_t i;

    (void)state;
    make_session(&s, XI_STATE_NONE);
    for (i = 0; i < XI_SEQUENCES_MAX; i++) {
        (void)snprintf(header, sizeof(header), "s%u", i);
        assert_int_equal(join_one(&s, &all[i], header, &err), XI_OK);
    }
    assert_int_equal(join_one(&s, &all[i], "one-more", &err), XI_EAGAIN);
    assert_int_equal(join_one(&s, &all[i], "s0", &err), XI_OK);
    for (i = 0; i <= XI_SEQUENCES_MAX; i++)
        (void)xi_sequence_leave(&all[i], XI_ECANCELLED, 0);
    xi_sequences_free(&s);
}

/* Runs a request alone and answers it with a state of this type and value. */
static enum xi_rc step(struct xi_session *s, const char *header, enum xi_dtype dtype, int64_t value,
                       int64_t *ret_read, struct xi_err *err)
{
    struct xi_segment segment = {.id = 9, .refs = 2}; /* on the stack: never freed */
    struct xi_request r;
    struct xi_reply reply;
    enum xi_rc rc = join_one(s, &r, header, err);

    if (rc != XI_OK)
        return rc;
    xi_sequence_enter(&r);
    rc = xi_sequence_begin(&r, err);
    if (rc == XI_OK) {
        *ret_read = r.n_state > 0 ? state_of(&r) : -1;
        r.timing.dispatched = 1;
        make_reply(&reply, &segment, &value);
        reply.parts[0].dtype = dtype;
        rc = xi_sequence_commit(&r, &reply, err);
    }
    (void)xi_sequence_leave(&r, rc, 0);
    return rc;
}

static void memory_for_state_has_a_limit(void **state)
{
    struct xi_tenant owner = {.name = "default"};
    struct xi_session s;
    struct xi_err err;
    int64_t read = 0;

    (void)state;
    make_session(&s, XI_STATE_EXPLICIT);
    s.owner = &owner;
    owner.state_bytes = XI_SEQUENCE_STATE_MAX;
    assert_int_equal(step(&s, "a;start", XI_DT_INT64, 1, &read, &err), XI_EQUOTA);
    owner.state_bytes = 0;
    fake.no_slots = 1;
    assert_int_equal(step(&s, "a;start", XI_DT_INT64, 1, &read, &err), XI_EAGAIN);
    fake.no_slots = 0;
    assert_int_equal(step(&s, "a;start", XI_DT_INT64, 1, &read, &err), XI_OK);
    assert_true(owner.state_bytes > 0);
    assert_int_equal(step(&s, "a;end", XI_DT_INT64, 2, &read, &err), XI_OK);
    assert_int_equal(read, 1);
    assert_int_equal(owner.state_bytes, 0);
    xi_sequences_free(&s);
    fake_reset();
}

static void a_host_cannot_answer_another_state(void **state)
{
    struct xi_session s;
    struct xi_err err;
    int64_t read = 0;

    (void)state;
    make_session(&s, XI_STATE_EXPLICIT);
    assert_int_equal(step(&s, "a;start", XI_DT_INT64, 7, &read, &err), XI_OK);
    assert_int_equal(step(&s, "a", XI_DT_FP64, 8, &read, &err), XI_EENGINE);
    assert_int_equal(step(&s, "a", XI_DT_INT64, 9, &read, &err), XI_OK);
    assert_int_equal(read, 7); /* the lie was not kept */
    xi_sequences_free(&s);
    fake_reset();
}

static void a_variant_with_other_state_ends_sequences(void **state)
{
    static struct xi_msg_port other = {.dtype = XI_DT_FP64, .rank = 2, .dims = {1, 1}};
    struct xi_session s;
    struct xi_err err;
    int64_t read = 0;

    (void)state;
    make_session(&s, XI_STATE_EXPLICIT);
    assert_int_equal(step(&s, "a;start", XI_DT_INT64, 7, &read, &err), XI_OK);
    assert_int_equal(step(&s, "b;start", XI_DT_INT64, 8, &read, &err), XI_OK);
    s.states = &other;
    assert_int_equal(step(&s, "a", XI_DT_FP64, 9, &read, &err), XI_ESEQUENCE);
    assert_int_equal(step(&s, "a;start", XI_DT_FP64, 9, &read, &err), XI_OK);
    assert_int_equal(step(&s, "b", XI_DT_FP64, 9, &read, &err), XI_ESEQUENCE);
    xi_sequences_free(&s);
    fake_reset();
}

static void hidden_state_is_lost_with_its_host(void **state)
{
    struct xi_session s;
    struct xi_err err;
    int64_t read = 0;

    (void)state;
    make_session(&s, XI_STATE_HIDDEN);
    assert_int_equal(step(&s, "a;start", XI_DT_INT64, 0, &read, &err), XI_OK);
    assert_int_equal(step(&s, "b;start", XI_DT_INT64, 0, &read, &err), XI_EAGAIN);
    assert_int_equal(step(&s, "a", XI_DT_INT64, 0, &read, &err), XI_OK);
    xi_sequences_host_gone(&s);
    assert_int_equal(step(&s, "a", XI_DT_INT64, 0, &read, &err), XI_ESEQUENCE);
    s.lane_count = 2;
    assert_int_equal(step(&s, "a;start", XI_DT_INT64, 0, &read, &err), XI_EUNSUPPORTED);
    xi_sequences_free(&s);
}

/* ---- through the pool ---- */

static struct fixture *make_pool(uint32_t queue_limit)
{
    struct xi_pool_config pool = {.cores = 4, .queue_limit = queue_limit, .watchdog_min_ms = 60000};
    struct xi_sessions_config sessions = {.host_program = "host",
                                          .engine_dir = "engines",
                                          .openvino_dir = "",
                                          .cores = 4,
                                          .crash_window_ms = 60000,
                                          .crash_limit = 50,
                                          .drain_ms = 1000};

    return fixture_new(&pool, &sessions);
}

static void submit_as(struct fixture *f, struct asked *a, struct xi_session *s, const char *header)
{
    struct xi_sequence_ask ask;
    struct xi_err err;

    fixture_ask(f, a, s, 16, 1);
    assert_int_equal(xi_sequence_parse(header, &ask, &err), XI_OK);
    assert_int_equal(xi_sequence_join(NULL, &a->r, &ask, &err), XI_OK);
    fixture_submit(f, a);
}

static uint32_t lane_of(const struct xi_host *host, uint64_t id)
{
    uint32_t i;

    for (i = 0; i < host->lanes; i++) {
        if (host->running[i] == id)
            return i;
    }
    fail_msg("request %llu does not run", (unsigned long long)id);
    return 0;
}

static void the_pool_keeps_the_order(void **state)
{
    struct fixture *f = make_pool(8);
    struct xi_session *s = fixture_session(f, "cat", 4);
    struct xi_host *host = fake_last();
    struct asked a[4], b, full[8];
    uint64_t before;
    int i;

    (void)state;
    for (i = 0; i < 4; i++)
        submit_as(f, &a[i], s, i == 3 ? "a;end" : "a");
    submit_as(f, &b, s, "b");
    assert_int_equal(a[0].r.state, XI_REQ_RUNNING); /* four lanes, and yet one at a time */
    assert_int_equal(a[1].r.state, XI_REQ_ORDERED);
    assert_int_equal(b.r.state, XI_REQ_RUNNING);
    xi_pool_cancel(f->pool, &a[1].r);
    assert_int_equal(a[1].rc, XI_ECANCELLED);
    before = xi_pool_in_flight(f->pool);
    for (i = 0; i < 6; i++)
        submit_as(f, &full[i], s, "b"); /* with a[2] and a[3] eight wait */
    submit_as(f, &full[6], s, "b");
    assert_int_equal(full[6].rc, XI_EAGAIN);
    assert_int_equal(xi_pool_in_flight(f->pool), before + 6);
    fake_done(host, lane_of(host, a[0].r.id), XI_OK);
    assert_int_equal(a[0].rc, XI_OK);
    assert_int_equal(a[2].r.state, XI_REQ_RUNNING);
    fake_exit(host, "ended by SIGKILL");
    assert_int_equal(a[2].r.state, XI_REQ_SUSPECT);
    assert_int_equal(a[3].r.state, XI_REQ_ORDERED);
    while (xi_pool_in_flight(f->pool) > 0) {
        host = fake_last();
        if (!host->ended && host->loaded && s->state == XI_SESSION_LOADING)
            fake_loaded(host, 1000000);
        for (i = 0; !host->ended && i < (int)host->lanes; i++) {
            if (host->running[i] != 0)
                fake_done(host, (uint32_t)i, XI_OK);
        }
        fixture_turn(f);
    }
    assert_int_equal(a[2].answers, 1);
    assert_int_equal(a[3].answers, 1);
    assert_true(a[2].order < a[3].order);
    for (i = 0; i < 5; i++)
        assert_true(b.order < full[i].order && full[i].order < full[i + 1].order);
    assert_false(xi_sequences_has(s, a[0].r.tenant, "a"));
    assert_true(xi_sequences_has(s, a[0].r.tenant, "b"));
    fixture_free(f);
}

/* It had its turn already and waits for a core when the state goes with its host. */
static void what_waits_for_a_core_is_lost_with_hidden_state(void **state)
{
    struct fixture *f = make_pool(50);
    struct xi_session *s = fixture_session(f, "one", 1), *hog;
    struct xi_load_options o = fixture_options("hog", 1);
    struct asked first, block, waits, begins;

    (void)state;
    s->stateful = XI_STATE_HIDDEN;
    submit_as(f, &first, s, "a;start");
    fake_done(s->host, 0, XI_OK);
    assert_true(first.answers == 1 && first.rc == XI_OK);
    o.threads = 4;
    hog = fixture_load(f, &o);
    fixture_ask(f, &block, hog, 16, 1);
    fixture_submit(f, &block); /* all cores */
    submit_as(f, &waits, s, "a");
    assert_int_equal(waits.r.state, XI_REQ_QUEUED);
    fake_exit(s->host, "ended by SIGSEGV");
    assert_true(waits.answers == 1 && waits.rc == XI_ESEQUENCE);
    /* One that begins has lost nothing. */
    submit_as(f, &begins, s, "b;start");
    assert_int_equal(xi_sequences_has(s, "", "b"), 1);
    (void)xi_pool_host_gone(s, 1, "was told to end");
    assert_int_equal(begins.answers, 0);
    xi_pool_cancel(f->pool, &begins.r);
    fake_done(hog->host, 0, XI_OK);
    fixture_free(f);
}

static void deadlines_and_unloads_reach_those_in_line(void **state)
{
    struct fixture *f = make_pool(100);
    struct xi_session *s = fixture_session(f, "cat", 2);
    struct asked first, late, a[50];
    struct xi_err why;
    int i;

    (void)state;
    submit_as(f, &first, s, "a");
    fixture_ask(f, &late, s, 16, 1);
    late.r.deadline_ns = xi_now_ns() + 20000000;
    {
        struct xi_sequence_ask ask = {.id = "a"};

        assert_int_equal(xi_sequence_join(NULL, &late.r, &ask, &why), XI_OK);
    }
    fixture_submit(f, &late);
    for (i = 0; i < 50; i++)
        submit_as(f, &a[i], s, "a");
    fixture_run_ms(f, 60);
    assert_int_equal(late.rc, XI_ETIMEOUT);
    assert_int_equal(first.answers, 0);
    (void)xi_fail(&why, XI_ECRASHLOOP, "as the test wants");
    xi_pool_fail(s, &why, 1);
    assert_int_equal(first.rc, XI_ECRASHLOOP);
    for (i = 0; i < 50; i++) {
        assert_int_equal(a[i].answers, 1);
        assert_int_equal(a[i].rc, XI_ECRASHLOOP);
    }
    fixture_free(f);
}

/* A line of requests behind a start that fails: each is told so, whatever their number. */
static void what_follows_a_failed_start_is_refused(void **state)
{
    struct fixture *f = make_pool(1000);
    struct xi_session *s = fixture_session(f, "cat", 1);
    static struct asked first, a[900];
    struct xi_host *host = fake_last();
    int i;

    (void)state;
    s->stateful = XI_STATE_EXPLICIT;
    s->states = malloc(sizeof(one_number));
    assert_non_null(s->states);
    *s->states = one_number;
    s->n_states = 1;
    submit_as(f, &first, s, "a;start");
    for (i = 0; i < 900; i++)
        submit_as(f, &a[i], s, "a");
    fake_done(host, lane_of(host, first.r.id), XI_EENGINE);
    assert_int_equal(first.rc, XI_EENGINE);
    for (i = 0; i < 900; i++) {
        assert_int_equal(a[i].answers, 1);
        assert_int_equal(a[i].rc, XI_ESEQUENCE);
        assert_non_null(strstr(a[i].err.hint, "a;start"));
    }
    assert_int_equal(xi_pool_in_flight(f->pool), 0);
    fixture_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(headers_are_understood_or_refused),
        cmocka_unit_test(sequences_keep_their_word),
        cmocka_unit_test(sequences_have_a_limit),
        cmocka_unit_test(memory_for_state_has_a_limit),
        cmocka_unit_test(a_host_cannot_answer_another_state),
        cmocka_unit_test(a_variant_with_other_state_ends_sequences),
        cmocka_unit_test(hidden_state_is_lost_with_its_host),
        cmocka_unit_test(the_pool_keeps_the_order),
        cmocka_unit_test(what_waits_for_a_core_is_lost_with_hidden_state),
        cmocka_unit_test(deadlines_and_unloads_reach_those_in_line),
        cmocka_unit_test(what_follows_a_failed_start_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
