#include "daemon/core/swap_fsm.h"

static uint32_t answer(struct xi_swap_fsm *fsm, uint32_t how)
{
    if (fsm->answered)
        return 0;
    fsm->answered = 1;
    return how;
}

static uint32_t unblock(struct xi_swap_fsm *fsm)
{
    uint32_t acts = fsm->blocked ? XI_SWA_UNBLOCK : 0u;

    fsm->blocked = 0;
    return acts;
}

static uint32_t unshare(struct xi_swap_fsm *fsm)
{
    uint32_t acts = fsm->shared ? XI_SWA_UNSHARE : 0u;

    fsm->shared = 0;
    return acts;
}

static uint32_t hold(struct xi_swap_fsm *fsm)
{
    fsm->phase = XI_SWAP_HOLD;
    fsm->in_place = 1;
    fsm->blocked = 1;
    return XI_SWA_BLOCK | XI_SWA_START_TIMER;
}

static uint32_t over(struct xi_swap_fsm *fsm)
{
    fsm->phase = XI_SWAP_OVER;
    return XI_SWA_STOP_TIMER | XI_SWA_FREE;
}

/* It is decided: the loser may end what it has, then goes. */
static uint32_t drain(struct xi_swap_fsm *fsm)
{
    fsm->phase = XI_SWAP_DRAIN;
    return XI_SWA_STOP_TIMER | XI_SWA_DETACH | XI_SWA_START_TIMER | unblock(fsm);
}

static uint32_t commit(struct xi_swap_fsm *fsm)
{
    fsm->phase = XI_SWAP_COMMIT;
    return XI_SWA_STOP_TIMER | XI_SWA_COMMIT;
}

static uint32_t win(struct xi_swap_fsm *fsm)
{
    fsm->won = 1;
    return unshare(fsm) | XI_SWA_FLIP | answer(fsm, XI_SWA_ANSWER_UP) | drain(fsm);
}

/* The old one never stopped serving, or is not to serve again. */
static uint32_t lose(struct xi_swap_fsm *fsm)
{
    return unshare(fsm) | XI_SWA_REVERT | answer(fsm, XI_SWA_ANSWER_FAILED) | drain(fsm);
}

static uint32_t restore(struct xi_swap_fsm *fsm)
{
    fsm->phase = XI_SWAP_RESTORE;
    return XI_SWA_WAKE_OLD;
}

/* In place, after the old one's host was told to end: never two hosts at once. */
static uint32_t go_back(struct xi_swap_fsm *fsm)
{
    fsm->phase = XI_SWAP_CLEAR;
    return XI_SWA_STOP_TIMER | XI_SWA_REVERT | XI_SWA_UNLOAD_NEW;
}

/* One of the two leaves, or the operator wants the old one back. */
static uint32_t called_off(struct xi_swap_fsm *fsm, enum xi_swap_event event)
{
    int is_parked = fsm->phase == XI_SWAP_PARK || fsm->phase == XI_SWAP_LOAD_ALONE;

    switch (event) {
    case XI_SW_NEW_LEAVING:
    case XI_SW_NEW_GONE:
    case XI_SW_ROLLBACK:
        return is_parked ? go_back(fsm) : lose(fsm);
    case XI_SW_OLD_LEAVING:
    case XI_SW_OLD_GONE:
        return lose(fsm);
    default:
        return 0;
    }
}

static uint32_t in_load(struct xi_swap_fsm *fsm, const struct xi_swap_input *in)
{
    switch (in->event) {
    case XI_SW_NEW_READY:
        if (fsm->trial == XI_TRIAL_NONE)
            return commit(fsm);
        fsm->phase = XI_SWAP_TRIAL;
        fsm->shared = 1;
        return XI_SWA_SHARE | XI_SWA_START_TIMER | answer(fsm, XI_SWA_ANSWER_UP);
    case XI_SW_NEW_FAILED:
        if (in->no_room && fsm->falls_back)
            return hold(fsm);
        return lose(fsm);
    case XI_SW_NEW_CRASHED:
        return lose(fsm);
    default:
        return called_off(fsm, in->event);
    }
}

static uint32_t in_trial(struct xi_swap_fsm *fsm, const struct xi_swap_input *in)
{
    switch (in->event) {
    case XI_SW_TIMER:
        return in->worse ? lose(fsm) : commit(fsm);
    case XI_SW_PROMOTE:
    case XI_SW_OLD_FAILED: /* it is quarantined, and the new one serves */
        return commit(fsm);
    case XI_SW_NEW_FAILED:
    case XI_SW_NEW_CRASHED:
        return lose(fsm);
    default:
        return called_off(fsm, in->event);
    }
}

static uint32_t in_hold(struct xi_swap_fsm *fsm, const struct xi_swap_input *in)
{
    if (in->event != XI_SW_QUIET && in->event != XI_SW_TIMER)
        return called_off(fsm, in->event);
    fsm->phase = XI_SWAP_PARK;
    return XI_SWA_STOP_TIMER | XI_SWA_PARK_OLD;
}

static uint32_t in_park(struct xi_swap_fsm *fsm, const struct xi_swap_input *in)
{
    if (in->event != XI_SW_OLD_PARKED)
        return called_off(fsm, in->event);
    fsm->phase = XI_SWAP_LOAD_ALONE;
    return XI_SWA_LOAD_NEW;
}

static uint32_t in_load_alone(struct xi_swap_fsm *fsm, const struct xi_swap_input *in)
{
    switch (in->event) {
    case XI_SW_NEW_READY:
        return commit(fsm);
    case XI_SW_NEW_FAILED:
    case XI_SW_NEW_CRASHED:
        return go_back(fsm);
    default:
        return called_off(fsm, in->event);
    }
}

static uint32_t in_commit(struct xi_swap_fsm *fsm, const struct xi_swap_input *in)
{
    if (in->event == XI_SW_NEW_LEAVING || in->event == XI_SW_NEW_GONE)
        fsm->new_left = 1; /* only the daemon's own end does this: nothing is unloaded now */
    if (in->event == XI_SW_COMMITTED)
        return fsm->new_left ? lose(fsm) : win(fsm);
    if (in->event == XI_SW_COMMIT_FAILED)
        return fsm->in_place && !fsm->new_left ? go_back(fsm) : lose(fsm);
    return 0;
}

static uint32_t in_restore(struct xi_swap_fsm *fsm, const struct xi_swap_input *in)
{
    switch (in->event) {
    case XI_SW_OLD_READY:
    case XI_SW_OLD_FAILED:
    case XI_SW_OLD_LEAVING:
    case XI_SW_OLD_GONE:
        return unblock(fsm) | XI_SWA_DETACH | answer(fsm, XI_SWA_ANSWER_FAILED) | over(fsm);
    default:
        return 0;
    }
}

static uint32_t in_drain(struct xi_swap_fsm *fsm, const struct xi_swap_input *in)
{
    if (in->event == (fsm->won ? XI_SW_OLD_GONE : XI_SW_NEW_GONE))
        return over(fsm);
    if (in->event != XI_SW_QUIET && in->event != XI_SW_TIMER)
        return 0;
    fsm->phase = XI_SWAP_END;
    return XI_SWA_STOP_TIMER | (fsm->won ? XI_SWA_UNLOAD_OLD : XI_SWA_UNLOAD_NEW);
}

uint32_t xi_swap_fsm_begin(struct xi_swap_fsm *fsm, enum xi_swap_trial trial, int in_place,
                           int falls_back)
{
    *fsm = (struct xi_swap_fsm){.trial = trial, .falls_back = falls_back != 0};
    if (in_place)
        return hold(fsm);
    return XI_SWA_LOAD_NEW;
}

uint32_t xi_swap_fsm_feed(struct xi_swap_fsm *fsm, const struct xi_swap_input *in)
{
    switch (fsm->phase) {
    case XI_SWAP_LOAD:
        return in_load(fsm, in);
    case XI_SWAP_TRIAL:
        return in_trial(fsm, in);
    case XI_SWAP_HOLD:
        return in_hold(fsm, in);
    case XI_SWAP_PARK:
        return in_park(fsm, in);
    case XI_SWAP_LOAD_ALONE:
        return in_load_alone(fsm, in);
    case XI_SWAP_COMMIT:
        return in_commit(fsm, in);
    case XI_SWAP_CLEAR:
        return in->event == XI_SW_NEW_GONE ? restore(fsm) : 0;
    case XI_SWAP_RESTORE:
        return in_restore(fsm, in);
    case XI_SWAP_DRAIN:
        return in_drain(fsm, in);
    case XI_SWAP_END:
        return in->event == (fsm->won ? XI_SW_OLD_GONE : XI_SW_NEW_GONE) ? over(fsm) : 0;
    case XI_SWAP_OVER:
        break;
    }
    return 0;
}
