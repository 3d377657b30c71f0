/* The rules of a swap, explored: every reachable state of the machine together with a small world
 * (two sessions and their hosts, requests, a timer, a store, an operator), every event in every
 * order, sensed at once or late. The world does what the actions say and complains when a host too
 * many runs, when nobody serves, when somebody is answered twice. That the world notices is tested
 * too: with any one action left out everywhere it must find a fault. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/core/swap_fsm.h"

enum { NONE, LOADING, READY, FAILED, BACKOFF, PARKING, PARKED, LEAVING, GONE };

struct world {
    uint8_t phase, trial, falls_back, in_place, machine_shared, machine_blocked, answered, new_left,
        won; /* the machine */
    uint8_t old, new;
    uint8_t old_users, new_users;
    uint8_t timer, expired;
    uint8_t blocked, shared, flipped, attached;
    uint8_t committing, row; /* row: 0 the old one's, 1 the new one's */
    uint8_t answers, reverted, we_unloaded_old, we_unloaded_new, parked_by_us, freed;
    uint8_t others_unload; /* somebody else unloaded one of them */
};

#include "daemon/core/explore.h"

static int has_host(uint8_t state)
{
    return state == LOADING || state == READY || state == PARKING || state == LEAVING;
}

static int ended(uint8_t state)
{
    return state == LEAVING || state == GONE;
}

/* ---- what actions do to the world ---- */

static void start(struct explorer *x, uint8_t *state)
{
    EXPECT(*state == NONE || *state == FAILED || *state == PARKED || *state == PARKING ||
           *state == BACKOFF || ended(*state));
    if (*state == PARKING || ended(*state))
        return; /* it starts when its host has ended: not modelled apart */
    *state = LOADING;
}

static void leave(uint8_t *state, uint8_t *users)
{
    *users = 0;
    if (!ended(*state))
        *state = has_host(*state) ? LEAVING : GONE;
}

static void act_name(struct explorer *x, struct world *w, uint32_t acts)
{
    if (acts & XI_SWA_BLOCK) {
        EXPECT(!w->blocked);
        w->blocked = 1;
    }
    if (acts & XI_SWA_SHARE) {
        EXPECT(w->new == READY || w->new == BACKOFF || w->new == FAILED || ended(w->new));
        w->shared = 1;
    }
    if (acts & XI_SWA_UNSHARE) {
        EXPECT(w->shared);
        w->shared = 0;
    }
    if (acts & XI_SWA_FLIP) {
        EXPECT(w->row == 1 && !w->flipped && !w->reverted);
        w->flipped = 1;
    }
    if (acts & XI_SWA_REVERT) {
        EXPECT(!w->reverted && !w->flipped);
        w->reverted = 1;
    }
    if (acts & XI_SWA_UNBLOCK) {
        EXPECT(w->blocked);
        w->blocked = 0;
    }
    if (acts & XI_SWA_DETACH) {
        EXPECT(w->attached && !w->blocked && !w->shared);
        EXPECT(w->flipped || w->reverted);
        w->attached = 0;
    }
}

static void act_sessions(struct explorer *x, struct world *w, uint32_t acts)
{
    if (acts & XI_SWA_PARK_OLD) {
        EXPECT(w->blocked);
        EXPECT(w->old_users == 0 || w->expired);
        w->parked_by_us = 1;
        if (w->old == READY || w->old == LOADING)
            w->old = PARKING;
        if (w->old == BACKOFF)
            w->old = PARKED;
    }
    if (acts & XI_SWA_LOAD_NEW)
        start(x, &w->new);
    if (acts & XI_SWA_WAKE_OLD) {
        w->parked_by_us = 0;
        start(x, &w->old);
        if (w->old == PARKING)
            w->old = LOADING;
    }
    if (acts & XI_SWA_UNLOAD_OLD) {
        EXPECT(w->flipped && (w->old_users == 0 || w->expired || ended(w->old)));
        w->we_unloaded_old = 1;
        leave(&w->old, &w->old_users);
    }
    if (acts & XI_SWA_UNLOAD_NEW) {
        EXPECT(!w->flipped && (w->new_users == 0 || w->expired || ended(w->new)));
        w->we_unloaded_new = 1;
        leave(&w->new, &w->new_users);
    }
}

static void act(struct explorer *x, struct world *w, uint32_t acts)
{
    if (w->freed)
        EXPECT(acts == 0);
    if (acts & XI_SWA_STOP_TIMER)
        w->timer = 0;
    act_name(x, w, acts);
    act_sessions(x, w, acts);
    if (acts & XI_SWA_COMMIT) {
        EXPECT(!w->committing && w->row == 0);
        w->committing = 1;
    }
    if (acts & XI_SWA_START_TIMER) {
        EXPECT(!w->timer);
        w->timer = 1;
        w->expired = 0;
    }
    if (acts & (XI_SWA_ANSWER_UP | XI_SWA_ANSWER_FAILED)) {
        EXPECT(w->answers == 0);
        w->answers++;
    }
    if (acts & XI_SWA_ANSWER_UP)
        EXPECT(w->flipped || w->shared);
    if (acts & XI_SWA_ANSWER_FAILED)
        EXPECT(w->reverted && !w->flipped && !w->blocked);
    if (acts & XI_SWA_FREE)
        w->freed = 1;
}

/* ---- what must always hold ---- */

static void check_world(struct explorer *x, const struct world *w)
{
    int somebody_else = w->others_unload;

    /* In place there are never two hosts; a name that is open has somebody behind it. */
    if (w->in_place && !w->flipped && !w->reverted && !somebody_else && w->phase != XI_SWAP_HOLD)
        EXPECT(!(has_host(w->old) && has_host(w->new)) || w->phase == XI_SWAP_PARK);
    if (w->phase == XI_SWAP_LOAD_ALONE || w->phase == XI_SWAP_RESTORE)
        EXPECT(!(has_host(w->old) && has_host(w->new)) || somebody_else);
    if (!w->blocked && !somebody_else) {
        EXPECT(w->flipped || !w->parked_by_us);
        EXPECT(w->flipped ? !w->we_unloaded_new : !w->we_unloaded_old);
    }
    EXPECT(!(w->we_unloaded_new && w->we_unloaded_old));
    /* Desired state and the name say the same whenever nothing is being written. */
    if (!w->committing && w->phase != XI_SWAP_COMMIT && !somebody_else)
        EXPECT(w->row == w->flipped);
    EXPECT(w->freed == (w->phase == XI_SWAP_OVER));
    EXPECT(!w->committing || w->phase == XI_SWAP_COMMIT);
    EXPECT(w->timer || w->expired ||
           (w->phase != XI_SWAP_TRIAL && w->phase != XI_SWAP_HOLD && w->phase != XI_SWAP_DRAIN));
    EXPECT(w->shared == w->machine_shared && w->blocked == w->machine_blocked);
    EXPECT(w->answers == w->answered);
    if (w->phase == XI_SWAP_TRIAL)
        EXPECT(w->shared && w->answers == 1);
    if (w->freed) {
        EXPECT(!w->blocked && !w->shared && !w->timer && !w->attached && !w->committing);
        EXPECT(w->answers == 1 && w->flipped != w->reverted);
        EXPECT(w->flipped ? w->old == GONE : (w->new == GONE || !w->in_place));
        if (!somebody_else)
            EXPECT(w->flipped ? !ended(w->new) : !ended(w->old));
    }
}

/* ---- exploring ---- */

static struct xi_swap_fsm machine_of(const struct world *w)
{
    return (struct xi_swap_fsm){.phase = w->phase,
                                .trial = w->trial,
                                .falls_back = w->falls_back,
                                .in_place = w->in_place,
                                .shared = w->machine_shared,
                                .blocked = w->machine_blocked,
                                .answered = w->answered,
                                .new_left = w->new_left,
                                .won = w->won};
}

static void keep_machine(struct world *w, const struct xi_swap_fsm *fsm)
{
    w->phase = (uint8_t)fsm->phase;
    w->in_place = fsm->in_place;
    w->machine_shared = fsm->shared;
    w->machine_blocked = fsm->blocked;
    w->answered = fsm->answered;
    w->new_left = fsm->new_left;
    w->won = fsm->won;
}

static void feed(struct explorer *x, uint32_t from, struct world w, struct xi_swap_input in)
{
    struct xi_swap_fsm fsm = machine_of(&w);
    uint32_t acts = xi_swap_fsm_feed(&fsm, &in);

    count(x, (int)in.event, acts);
    keep_machine(&w, &fsm);
    act(x, &w, acts & ~x->left_out);
    arrive(x, from, &w, (int)in.event);
}

static void feed_event(struct explorer *x, uint32_t from, struct world w, enum xi_swap_event event)
{
    feed(x, from, w, (struct xi_swap_input){.event = event});
}

/* What the two sessions look like right now. */
static void sense(struct explorer *x, uint32_t from, const struct world *w)
{
    uint8_t drained = w->phase == XI_SWAP_HOLD || w->won ? w->old_users : w->new_users;

    if (w->new == READY)
        feed_event(x, from, *w, XI_SW_NEW_READY);
    if (w->new == FAILED) {
        feed_event(x, from, *w, XI_SW_NEW_FAILED);
        feed(x, from, *w, (struct xi_swap_input){.event = XI_SW_NEW_FAILED, .no_room = 1});
    }
    if (w->new == BACKOFF)
        feed_event(x, from, *w, XI_SW_NEW_CRASHED);
    if (w->new == LEAVING)
        feed_event(x, from, *w, XI_SW_NEW_LEAVING);
    if (w->new == GONE)
        feed_event(x, from, *w, XI_SW_NEW_GONE);
    if (w->old == READY)
        feed_event(x, from, *w, XI_SW_OLD_READY);
    if (w->old == FAILED)
        feed_event(x, from, *w, XI_SW_OLD_FAILED);
    if (w->old == PARKED || w->old == FAILED)
        feed_event(x, from, *w, XI_SW_OLD_PARKED);
    if (w->old == LEAVING)
        feed_event(x, from, *w, XI_SW_OLD_LEAVING);
    if (w->old == GONE)
        feed_event(x, from, *w, XI_SW_OLD_GONE);
    if (drained == 0)
        feed_event(x, from, *w, XI_SW_QUIET);
}

static void to_new(struct explorer *x, uint32_t from, struct world w, uint8_t state)
{
    w.new = state;
    if (state == FAILED || state == GONE)
        w.new_users = 0;
    arrive(x, from, &w, XI_SW_COUNT);
}

static void to_old(struct explorer *x, uint32_t from, struct world w, uint8_t state)
{
    w.old = state;
    if (state == FAILED || state == GONE)
        w.old_users = 0;
    arrive(x, from, &w, XI_SW_COUNT);
}

static void live(struct explorer *x, uint32_t from, const struct world *w)
{
    if (w->new == LOADING) {
        to_new(x, from, *w, READY);
        to_new(x, from, *w, FAILED);
        to_new(x, from, *w, BACKOFF);
    }
    if (w->new == READY)
        to_new(x, from, *w, BACKOFF);
    if (w->new == BACKOFF) {
        to_new(x, from, *w, LOADING);
        to_new(x, from, *w, FAILED);
    }
    if (w->new == LEAVING)
        to_new(x, from, *w, GONE);
    if (w->old == LOADING) {
        to_old(x, from, *w, READY);
        to_old(x, from, *w, FAILED);
    }
    if (w->old == READY)
        to_old(x, from, *w, BACKOFF);
    if (w->old == BACKOFF) {
        to_old(x, from, *w, LOADING);
        to_old(x, from, *w, FAILED);
    }
    if (w->old == PARKING)
        to_old(x, from, *w, PARKED);
    if (w->old == LEAVING)
        to_old(x, from, *w, GONE);
}

static void others(struct explorer *x, uint32_t from, const struct world *w)
{
    struct world v;
    int may_unload = w->phase != XI_SWAP_COMMIT; /* it is refused then */

    if (!ended(w->old) && may_unload) {
        v = *w;
        v.others_unload = 1;
        leave(&v.old, &v.old_users);
        arrive(x, from, &v, XI_SW_COUNT);
    }
    if (!ended(w->new)) { /* in COMMIT: the daemon ends */
        v = *w;
        v.others_unload = 1;
        leave(&v.new, &v.new_users);
        arrive(x, from, &v, XI_SW_COUNT);
    }
    if (w->old == READY && !w->blocked && !w->flipped && w->old_users == 0) {
        v = *w;
        v.old_users = 1;
        arrive(x, from, &v, XI_SW_COUNT);
    }
    if (w->new == READY && (w->shared || w->flipped) && w->new_users == 0) {
        v = *w;
        v.new_users = 1;
        arrive(x, from, &v, XI_SW_COUNT);
    }
    v = *w;
    v.old_users = 0;
    arrive(x, from, &v, XI_SW_COUNT);
    v = *w;
    v.new_users = 0;
    arrive(x, from, &v, XI_SW_COUNT);
    feed_event(x, from, *w, XI_SW_PROMOTE);
    feed_event(x, from, *w, XI_SW_ROLLBACK);
}

static void machinery(struct explorer *x, uint32_t from, const struct world *w)
{
    struct world v = *w;

    if (w->timer) {
        v.timer = 0;
        v.expired = 1;
        feed_event(x, from, v, XI_SW_TIMER);
        feed(x, from, v, (struct xi_swap_input){.event = XI_SW_TIMER, .worse = 1});
    }
    v = *w;
    if (w->committing) {
        v.committing = 0;
        feed_event(x, from, v, XI_SW_COMMIT_FAILED);
        v.row = 1;
        feed_event(x, from, v, XI_SW_COMMITTED);
    }
}

static void begin(struct explorer *x, enum xi_swap_trial trial, int in_place, int falls_back)
{
    static const uint8_t olds[] = {READY, LOADING, BACKOFF, FAILED, PARKED};
    unsigned i;

    for (i = 0; i < sizeof(olds); i++) {
        struct world w = {.old = olds[i], .new = NONE, .attached = 1};
        struct xi_swap_fsm fsm;
        uint32_t acts = xi_swap_fsm_begin(&fsm, trial, in_place, falls_back);

        w.trial = (uint8_t)trial;
        w.falls_back = fsm.falls_back;
        keep_machine(&w, &fsm);
        act(x, &w, acts & ~x->left_out);
        (void)intern(x, &w, x->n, XI_SW_COUNT);
    }
}

static void explore(struct explorer *x, uint32_t left_out)
{
    uint32_t i;

    explorer_init(x, left_out);
    begin(x, XI_TRIAL_NONE, 0, 0);
    begin(x, XI_TRIAL_NONE, 0, 1);
    begin(x, XI_TRIAL_NONE, 1, 0);
    begin(x, XI_TRIAL_CANARY, 0, 0);
    begin(x, XI_TRIAL_SHADOW, 0, 0);
    for (i = 0; i < x->n && x->broken == NULL; i++) {
        struct world w = x->nodes[i].w;

        if (w.freed)
            continue;
        sense(x, i, &w);
        live(x, i, &w);
        others(x, i, &w);
        machinery(x, i, &w);
    }
}

static void print_world(unsigned event, const struct world *w)
{
    print_message("  event %2u → phase %u old %u new %u users %u/%u blocked %u flipped %u "
                  "in_place %u others %u\n",
                  event, w->phase, w->old, w->new, w->old_users, w->new_users, w->blocked,
                  w->flipped, w->in_place, w->others_unload);
}

static void every_order_keeps_the_rules(void **state)
{
    struct explorer x;
    uint32_t i, seen = 0;

    (void)state;
    explore(&x, 0);
    assert_unbroken(&x);
    for (i = 0; i < XI_SW_COUNT; i++)
        assert_true(x.per_event[i] > 0);
    for (i = 1; (1u << i) <= XI_SWA_FREE; i++) /* bits: 0 is STOP_TIMER */
        assert_true(x.per_action[i] > 0);
    for (i = 0; i < x.n; i++)
        seen |= 1u << x.nodes[i].w.phase;
    assert_int_equal(seen, (1u << (XI_SWAP_OVER + 1)) - 1);
    explorer_fini(&x);
}

/* From everywhere a swap can end; from every beginning it can succeed and it can be rolled back,
 * with nobody's help. */
static int stuck(const struct explorer *x)
{
    uint8_t *ends = calloc(x->n, 1), *wins = calloc(x->n, 1), *loses = calloc(x->n, 1);
    uint32_t i;
    int found = 0;

    assert_true(ends != NULL && wins != NULL && loses != NULL);
    for (i = 0; i < x->n; i++) {
        ends[i] = x->nodes[i].w.freed;
        wins[i] = ends[i] && x->nodes[i].w.flipped && !x->nodes[i].w.others_unload;
        loses[i] = ends[i] && x->nodes[i].w.reverted && !x->nodes[i].w.others_unload;
    }
    mark_backwards(x, ends);
    mark_backwards(x, wins);
    mark_backwards(x, loses);
    for (i = 0; i < x->n; i++)
        found |= !ends[i] || (x->nodes[i].parent == i && !(wins[i] && loses[i]));
    free(loses);
    free(ends);
    free(wins);
    return found;
}

static void every_swap_can_end_and_succeed(void **state)
{
    struct explorer x;

    (void)state;
    explore(&x, 0);
    assert_false(stuck(&x));
    explorer_fini(&x);
}

static void leaving_out_any_action_is_noticed(void **state)
{
    uint32_t bit;

    (void)state;
    for (bit = 1; bit <= XI_SWA_FREE; bit <<= 1) {
        struct explorer x;

        explore(&x, bit);
        if (x.broken == NULL && !stuck(&x)) {
            print_message("without action 0x%x nothing is noticed\n", bit);
            fail();
        }
        explorer_fini(&x);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_order_keeps_the_rules),
        cmocka_unit_test(every_swap_can_end_and_succeed),
        cmocka_unit_test(leaving_out_any_action_is_noticed),
    };
    return cmocka_run_group_tests_name("swap_fsm", tests, NULL, NULL);
}
