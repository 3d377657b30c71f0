/* The rules of a session, explored: every reachable state of the machine together with a small
 * world (one host, its messages, timers, requests, waiters), every event that may come next, in
 * every order. The world does what the actions say and complains when they make no sense. That the
 * world notices is tested too: with any one action left out everywhere it must find a fault. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/core/session_fsm.h"

#define CRASH_LIMIT 3
#define VARIANTS    2
#define WAITERS_MAX 2
#define BUSY_MAX    2

enum { MODE_HELD, MODE_OPEN, MODE_CLOSED, MODE_FAILED };
enum { TIMER_NONE, TIMER_BACKOFF, TIMER_DRAIN, TIMER_STABLE };

struct world {
    uint8_t state, phase, crashes, step, proven; /* the machine */
    uint8_t spawning, host, told_to_end, load_sent, answered;
    uint8_t timer, mode, busy, fresh;
    uint8_t variant, bad; /* the one in turn, the last that did not do */
    uint8_t loaders, unloaders, freed, stable_seen;
};

#include "daemon/core/explore.h"

/* ---- what actions do to the world ---- */

static void act_timer(struct explorer *x, struct world *w, int timer)
{
    EXPECT(w->timer == TIMER_NONE);
    w->timer = (uint8_t)timer;
}

static void act_queue(struct explorer *x, struct world *w, uint32_t acts)
{
    if (acts & XI_ACT_HOLD_QUEUE)
        w->mode = MODE_HELD;
    if (acts & XI_ACT_CLOSE_QUEUE) {
        EXPECT(w->mode == MODE_OPEN && w->busy > 0);
        w->mode = MODE_CLOSED;
    }
    if (acts & XI_ACT_FAIL_QUEUE) {
        w->mode = MODE_FAILED;
        w->busy = 0;
    }
    if (acts & XI_ACT_OPEN_QUEUE) {
        EXPECT(w->host && w->answered && !w->told_to_end);
        w->mode = MODE_OPEN;
    }
}

static void act_host(struct explorer *x, struct world *w, uint32_t acts)
{
    if (acts & XI_ACT_FIRST_VARIANT) {
        w->variant = 1;
        w->bad = 0;
    }
    if (acts & XI_ACT_NEXT_VARIANT) {
        EXPECT(w->variant >= 1 && w->variant < VARIANTS);
        w->variant++;
    }
    if (acts & XI_ACT_OTHER_VARIANT) {
        EXPECT(w->variant >= 1);
        w->variant = (uint8_t)(w->variant % VARIANTS + 1);
    }
    if (acts & XI_ACT_SPAWN) {
        EXPECT(!w->host && !w->spawning);
        EXPECT(w->variant >= 1 && w->variant != w->bad);
        w->spawning = 1;
    }
    if (acts & XI_ACT_SEND_LOAD) {
        EXPECT(w->host && !w->load_sent && !w->told_to_end);
        w->load_sent = 1;
    }
    if (acts & XI_ACT_STOP_HOST) {
        EXPECT(w->host && !w->told_to_end);
        w->told_to_end = 1;
    }
}

static void act(struct explorer *x, struct world *w, uint32_t acts)
{
    if (w->freed)
        EXPECT(acts == 0);
    if (acts & XI_ACT_STOP_TIMERS)
        w->timer = TIMER_NONE;
    act_queue(x, w, acts);
    act_host(x, w, acts);
    if (acts & XI_ACT_START_BACKOFF) {
        EXPECT(!w->host && !w->spawning);
        act_timer(x, w, TIMER_BACKOFF);
    }
    if (acts & XI_ACT_START_DRAIN)
        act_timer(x, w, TIMER_DRAIN);
    if (acts & XI_ACT_START_STABLE)
        act_timer(x, w, TIMER_STABLE);
    if (acts & (XI_ACT_NOTIFY_READY | XI_ACT_NOTIFY_FAILED))
        w->loaders = 0;
    if (acts & XI_ACT_NOTIFY_READY)
        EXPECT(w->state == XI_SESSION_READY);
    if (acts & XI_ACT_NOTIFY_GONE)
        w->unloaders = 0;
    if (acts & XI_ACT_FREE)
        w->freed = 1;
    if (acts & XI_ACT_QUARANTINE)
        EXPECT(w->crashes >= CRASH_LIMIT);
}

/* ---- what must always hold ---- */

static void check_world(struct explorer *x, const struct world *w)
{
    int has_host =
        w->phase == XI_PHASE_LOADING || w->phase == XI_PHASE_UP || w->phase == XI_PHASE_STOPPING;
    int loading = w->state == XI_SESSION_LOADING || w->state == XI_SESSION_WARMING;

    EXPECT(has_host == w->host);
    EXPECT((w->phase == XI_PHASE_STARTING) == w->spawning);
    EXPECT((w->phase == XI_PHASE_BACKOFF) == (w->timer == TIMER_BACKOFF));
    EXPECT((w->phase == XI_PHASE_STOPPING) == (w->host && w->told_to_end));
    EXPECT(w->phase != XI_PHASE_LOADING || w->load_sent);
    EXPECT((w->state == XI_SESSION_READY) == (w->mode == MODE_OPEN));
    if (w->state == XI_SESSION_READY) {
        EXPECT(w->phase == XI_PHASE_UP && w->loaders == 0);
        EXPECT(w->timer == TIMER_STABLE || w->stable_seen);
    }
    if (loading && !w->fresh) {
        EXPECT(w->phase != XI_PHASE_NONE && w->phase != XI_PHASE_UP);
        EXPECT(w->mode == MODE_HELD || (w->phase == XI_PHASE_BACKOFF && w->step > 1));
        EXPECT(w->crashes < CRASH_LIMIT);
    }
    if (w->state == XI_SESSION_FAILED) {
        EXPECT(w->busy == 0 && w->mode == MODE_FAILED && w->loaders == 0);
        EXPECT(w->timer == TIMER_NONE && !w->spawning);
    }
    if (w->state == XI_SESSION_IDLE) {
        EXPECT(w->mode == MODE_HELD || (w->mode == MODE_FAILED && w->busy == 0));
        EXPECT(w->loaders == 0 && w->timer == TIMER_NONE);
        EXPECT(w->phase == XI_PHASE_NONE || w->spawning || w->told_to_end);
    }
    if (w->state == XI_SESSION_DRAINING) {
        EXPECT(w->loaders == 0 && w->crashes <= CRASH_LIMIT);
        EXPECT(w->spawning || w->told_to_end || (w->busy > 0 && w->timer == TIMER_DRAIN));
        EXPECT(w->mode == MODE_CLOSED || (w->mode == MODE_FAILED && w->busy == 0));
    }
    EXPECT((w->state == XI_SESSION_GONE) == w->freed);
    if (w->freed) {
        EXPECT(!w->host && !w->spawning && w->timer == TIMER_NONE);
        EXPECT(w->busy == 0 && w->mode == MODE_FAILED);
        EXPECT(w->loaders == 0 && w->unloaders == 0);
    }
}

/* ---- exploring ---- */

/* Its device is not to be used any more, and there is a variant for another one. */
static int device_is_bad(const struct world *w, const struct xi_fsm_input *in)
{
    int lives = w->state == XI_SESSION_LOADING || w->state == XI_SESSION_WARMING ||
                w->state == XI_SESSION_READY;
    int has_host = w->phase == XI_PHASE_LOADING || w->phase == XI_PHASE_UP;

    if (!lives || !in->more_variants)
        return 0;
    return (in->event == XI_EV_MOVE && (has_host || w->phase == XI_PHASE_BACKOFF)) ||
           (in->event == XI_EV_EXITED && in->lost && has_host);
}

/* It could not be loaded, and there is another one to try. */
static int variant_did_not_do(const struct world *w, const struct xi_fsm_input *in)
{
    int loading = w->state == XI_SESSION_LOADING || w->state == XI_SESSION_WARMING;

    return loading && w->phase == XI_PHASE_LOADING && in->more_variants &&
           (in->event == XI_EV_LOAD_FAILED || (in->event == XI_EV_EXITED && !w->proven));
}

static void feed(struct explorer *x, uint32_t from, struct world w, struct xi_fsm_input in)
{
    struct xi_session_fsm fsm = {.state = w.state,
                                 .phase = w.phase,
                                 .crashes = w.crashes,
                                 .crash_limit = CRASH_LIMIT,
                                 .step = w.step,
                                 .proven = w.proven};
    int was_crashing = w.crashes;
    uint32_t acts;

    in.busy = w.busy > 0;
    acts = xi_fsm_feed(&fsm, &in);
    EXPECT((in.event != XI_EV_EXITED || fsm.state != XI_SESSION_FAILED ||
            fsm.crashes == was_crashing || (acts & ~x->left_out & XI_ACT_QUARANTINE) != 0));
    w.state = (uint8_t)fsm.state;
    w.phase = (uint8_t)fsm.phase;
    w.crashes = (uint8_t)fsm.crashes;
    w.step = fsm.step;
    w.proven = fsm.proven;
    if (in.event == XI_EV_LOAD)
        w.fresh = 0;
    if (variant_did_not_do(&x->nodes[from].w, &in) || device_is_bad(&x->nodes[from].w, &in))
        w.bad = w.variant;
    count(x, (int)in.event, acts);
    w.stable_seen = fsm.state == XI_SESSION_READY && (w.stable_seen || in.event == XI_EV_STABLE);
    act(x, &w, acts & ~x->left_out);
    arrive(x, from, &w, (int)in.event);
}

static void feed_event(struct explorer *x, uint32_t from, struct world w, enum xi_fsm_event event)
{
    feed(x, from, w, (struct xi_fsm_input){.event = event});
}

static void callers(struct explorer *x, uint32_t from, const struct world *w)
{
    struct world v = *w;
    int open = v.state != XI_SESSION_GONE;

    if (open && v.state != XI_SESSION_DRAINING && v.loaders < WAITERS_MAX) {
        v.loaders = (uint8_t)(v.loaders + (v.state != XI_SESSION_READY)); /* READY: at once */
        if (v.state == XI_SESSION_FAILED || v.state == XI_SESSION_IDLE || v.fresh)
            feed_event(x, from, v, XI_EV_LOAD);
        else
            arrive(x, from, &v, XI_EV_COUNT);
    }
    v = *w;
    if (v.loaders == 0 || !v.fresh) { /* a lazy one begins with it */
        v.fresh = 0;
        feed_event(x, from, v, XI_EV_PARK);
    }
    if (open && w->unloaders < WAITERS_MAX) {
        v = *w;
        v.unloaders++;
        v.fresh = 0;
        feed_event(x, from, v, XI_EV_UNLOAD);
    }
}

static void requests(struct explorer *x, uint32_t from, const struct world *w)
{
    struct world v = *w;

    if ((v.mode == MODE_HELD || v.mode == MODE_OPEN) && v.busy < BUSY_MAX && !v.fresh) {
        v.busy++;
        if (v.state == XI_SESSION_IDLE)
            feed_event(x, from, v, XI_EV_LOAD);
        else
            arrive(x, from, &v, XI_EV_COUNT);
    }
    v = *w;
    if (v.busy > 0) { /* answered, or expired in the queue */
        v.busy--;
        if (v.busy == 0 && v.mode == MODE_CLOSED)
            feed_event(x, from, v, XI_EV_DRAINED);
        else
            arrive(x, from, &v, XI_EV_COUNT);
    }
}

static void host_ends(struct explorer *x, uint32_t from, const struct world *w)
{
    struct world v = *w;
    int blame;

    v.host = 0;
    v.told_to_end = 0;
    v.load_sent = 0;
    v.answered = 0;
    if (v.mode == MODE_OPEN)
        v.mode = MODE_HELD; /* the pool does this itself */
    for (blame = XI_BLAME_MODEL; blame <= XI_BLAME_NONE; blame++)
        feed(x, from, v,
             (struct xi_fsm_input){.event = XI_EV_EXITED,
                                   .more_variants = v.variant < VARIANTS,
                                   .blame = (enum xi_crash_blame)blame});
    feed(x, from, v, (struct xi_fsm_input){.event = XI_EV_EXITED, .lost = 1, .more_variants = 1});
    feed(x, from, v, (struct xi_fsm_input){.event = XI_EV_EXITED, .lost = 1});
}

static void host_speaks(struct explorer *x, uint32_t from, const struct world *w)
{
    struct world v = *w;

    /* One that was told to end may say anything, late or twice. */
    if (!v.host || !v.load_sent || (v.answered && !v.told_to_end))
        return;
    feed_event(x, from, v, XI_EV_PROGRESS);
    v.answered = 1;
    feed_event(x, from, v, XI_EV_LOADED);
    feed(x, from, v,
         (struct xi_fsm_input){.event = XI_EV_LOAD_FAILED, .more_variants = v.variant < VARIANTS});
    feed(x, from, v, (struct xi_fsm_input){.event = XI_EV_LOAD_FAILED, .more_variants = 0});
}

static void machine(struct explorer *x, uint32_t from, const struct world *w)
{
    static const enum xi_fsm_event of_timer[] = {XI_EV_COUNT, XI_EV_TIMER, XI_EV_DRAIN_TIMEOUT,
                                                 XI_EV_STABLE};
    struct world v = *w;

    if (v.spawning) {
        v.spawning = 0;
        feed_event(x, from, v, XI_EV_SPAWN_FAILED);
        feed_event(x, from, v, XI_EV_NO_ROOM);
        feed(x, from, v, (struct xi_fsm_input){.event = XI_EV_NO_ROOM, .sleeps = 1});
        v.host = 1;
        feed_event(x, from, v, XI_EV_SPAWN_OK);
    }
    v = *w;
    if (v.timer != TIMER_NONE) {
        v.timer = TIMER_NONE;
        feed_event(x, from, v, of_timer[w->timer]);
    }
    if (w->crashes > 0 && w->state != XI_SESSION_GONE)
        feed_event(x, from, *w, XI_EV_CRASH_AGED);
    feed(x, from, *w, (struct xi_fsm_input){.event = XI_EV_MOVE, .more_variants = 1});
    feed_event(x, from, *w, XI_EV_MOVE);
    feed_event(x, from, *w, XI_EV_RENEW);
    if (w->host)
        host_ends(x, from, w);
}

static void begin(struct explorer *x)
{
    struct xi_session_fsm fsm;
    struct world first = {.fresh = 1, .mode = MODE_HELD};

    xi_fsm_init(&fsm, CRASH_LIMIT);
    first.state = (uint8_t)fsm.state;
    first.phase = (uint8_t)fsm.phase;
    (void)intern(x, &first, 0, XI_EV_COUNT);
}

static void explore(struct explorer *x, uint32_t left_out)
{
    uint32_t i;

    explorer_init(x, left_out);
    begin(x);
    for (i = 0; i < x->n && x->broken == NULL; i++) {
        struct world w = x->nodes[i].w;

        callers(x, i, &w);
        requests(x, i, &w);
        host_speaks(x, i, &w);
        machine(x, i, &w);
    }
}

static void print_world(unsigned event, const struct world *w)
{
    print_message("  event %u → state %u phase %u host %u busy %u mode %u timer %u\n", event,
                  w->state, w->phase, w->host, w->busy, w->mode, w->timer);
}

static void every_order_keeps_the_rules(void **state)
{
    struct explorer x;
    uint32_t i, seen = 0;

    (void)state;
    explore(&x, 0);
    assert_unbroken(&x);
    for (i = 0; i < XI_EV_COUNT; i++)
        assert_true(x.per_event[i] > 0);
    for (i = 0; (1u << i) <= XI_ACT_FREE; i++)
        assert_true(x.per_action[i] > 0);
    for (i = 0; i < x.n; i++)
        seen |= 1u << x.nodes[i].w.state;
    assert_int_equal(seen, (1u << 7) - 1);
    assert_true(x.n > 1000);
    explorer_fini(&x);
}

/* From wherever a session is: it can become READY again unless it is being ended, and it can end.
 */
static void ready_and_gone_stay_reachable(void **state)
{
    struct explorer x;
    uint8_t *ready, *gone;
    uint32_t i;

    (void)state;
    explore(&x, 0);
    ready = calloc(x.n, 1);
    gone = calloc(x.n, 1);
    assert_true(ready != NULL && gone != NULL);
    for (i = 0; i < x.n; i++) {
        ready[i] = x.nodes[i].w.state == XI_SESSION_READY;
        gone[i] = x.nodes[i].w.state == XI_SESSION_GONE;
    }
    mark_backwards(&x, ready);
    mark_backwards(&x, gone);
    for (i = 0; i < x.n; i++) {
        int ends =
            x.nodes[i].w.state == XI_SESSION_DRAINING || x.nodes[i].w.state == XI_SESSION_GONE;

        assert_true(gone[i]);
        assert_int_equal(ready[i], !ends);
    }
    free(ready);
    free(gone);
    explorer_fini(&x);
}

/* Peels off states whose every successor is peeled: what is left over could go round for ever. */
static void unload_cannot_go_round(void **state)
{
    struct explorer x;
    uint32_t *left, i, peeled = 0, draining = 0;
    int changed = 1;
    uint8_t *done;

    (void)state;
    explore(&x, 0);
    done = calloc(x.n, 1);
    left = calloc(x.n, sizeof(*left));
    assert_true(done != NULL && left != NULL);
    for (i = 0; i < x.n; i++)
        done[i] = x.nodes[i].w.state != XI_SESSION_DRAINING;
    while (changed) {
        changed = 0;
        memset(left, 0, x.n * sizeof(*left));
        for (i = 0; i < x.n_edges; i++) {
            const uint32_t *e = &x.edges[2 * i];

            /* More callers, and events that the machine ignores, are no progress. */
            if (e[0] != e[1] && !done[e[1]])
                left[e[0]]++;
        }
        for (i = 0; i < x.n; i++) {
            if (!done[i] && left[i] == 0) {
                done[i] = 1;
                peeled++;
                changed = 1;
            }
        }
    }
    for (i = 0; i < x.n; i++) {
        draining += x.nodes[i].w.state == XI_SESSION_DRAINING;
        assert_true(done[i]);
    }
    assert_true(peeled == draining && draining > 0);
    free(done);
    free(left);
    explorer_fini(&x);
}

static void leaving_out_any_action_is_noticed(void **state)
{
    uint32_t bit;

    (void)state;
    for (bit = 1; bit <= XI_ACT_FREE; bit <<= 1) {
        struct explorer x;

        explore(&x, bit);
        if (x.broken == NULL)
            print_message("without action 0x%x nothing is noticed\n", bit);
        assert_non_null(x.broken);
        explorer_fini(&x);
    }
}

static uint32_t crash(struct xi_session_fsm *fsm, enum xi_crash_blame blame)
{
    return xi_fsm_feed(fsm, &(struct xi_fsm_input){.event = XI_EV_EXITED, .blame = blame});
}

static void bring_up(struct xi_session_fsm *fsm, enum xi_fsm_event first)
{
    const enum xi_fsm_event events[] = {first, XI_EV_SPAWN_OK, XI_EV_LOADED};
    size_t i;

    for (i = 0; i < 3; i++)
        (void)xi_fsm_feed(fsm, &(struct xi_fsm_input){.event = events[i]});
    assert_int_equal(fsm->state, XI_SESSION_READY);
}

static void backoff_grows_and_begins_anew(void **state)
{
    struct xi_session_fsm fsm;
    unsigned i;

    (void)state;
    xi_fsm_init(&fsm, 100);
    bring_up(&fsm, XI_EV_LOAD);
    for (i = 1; i <= 5; i++) {
        uint32_t acts = crash(&fsm, XI_BLAME_MODEL);

        assert_int_equal(fsm.step, i);
        assert_true(acts & XI_ACT_START_BACKOFF);
        /* Only the first wait is one that requests are made to wait. */
        assert_int_equal((acts & XI_ACT_FAIL_QUEUE) != 0, i > 1);
        bring_up(&fsm, XI_EV_TIMER);
    }
    (void)xi_fsm_feed(&fsm, &(struct xi_fsm_input){.event = XI_EV_STABLE});
    (void)crash(&fsm, XI_BLAME_MODEL);
    assert_int_equal(fsm.step, 1);
    for (i = 0; i < 5; i++) { /* it does its work between crashes */
        bring_up(&fsm, XI_EV_TIMER);
        assert_true(crash(&fsm, XI_BLAME_LATER) & XI_ACT_HOLD_QUEUE);
        assert_int_equal(fsm.step, 1);
    }
}

static void crashes_in_the_window_quarantine(void **state)
{
    struct xi_session_fsm fsm;
    unsigned i;

    (void)state;
    xi_fsm_init(&fsm, 3);
    bring_up(&fsm, XI_EV_LOAD);
    for (i = 0; i < 10; i++) { /* the request's fault, and the model is well: for ever */
        assert_false(crash(&fsm, XI_BLAME_ONLY_REQUEST) & XI_ACT_FAIL_QUEUE);
        assert_int_equal(fsm.step, 0);
        bring_up(&fsm, XI_EV_TIMER);
    }
    for (i = 0; i < 10; i++) { /* each leaves the window before the next */
        (void)crash(&fsm, XI_BLAME_MODEL);
        bring_up(&fsm, XI_EV_TIMER);
        (void)xi_fsm_feed(&fsm, &(struct xi_fsm_input){.event = XI_EV_CRASH_AGED});
    }
    (void)crash(&fsm, XI_BLAME_MODEL);
    bring_up(&fsm, XI_EV_TIMER);
    (void)crash(&fsm, XI_BLAME_REQUEST);
    bring_up(&fsm, XI_EV_TIMER);
    assert_true(crash(&fsm, XI_BLAME_MODEL) & XI_ACT_QUARANTINE);
    assert_int_equal(fsm.state, XI_SESSION_FAILED);
    bring_up(&fsm, XI_EV_LOAD); /* somebody asks again */
    assert_int_equal(fsm.crashes, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_order_keeps_the_rules),
        cmocka_unit_test(ready_and_gone_stay_reachable),
        cmocka_unit_test(unload_cannot_go_round),
        cmocka_unit_test(leaving_out_any_action_is_noticed),
        cmocka_unit_test(backoff_grows_and_begins_anew),
        cmocka_unit_test(crashes_in_the_window_quarantine),
    };
    return cmocka_run_group_tests_name("session_fsm", tests, NULL, NULL);
}
