#include "daemon/core/session_fsm.h"

void xi_fsm_init(struct xi_session_fsm *fsm, unsigned crash_limit)
{
    unsigned limit = crash_limit == 0 ? 1 : crash_limit;

    *fsm = (struct xi_session_fsm){.state = XI_SESSION_LOADING,
                                   .phase = XI_PHASE_NONE,
                                   .crash_limit =
                                       (uint16_t)(limit > XI_CRASHES_MAX ? XI_CRASHES_MAX : limit)};
}

int xi_fsm_has_host(const struct xi_session_fsm *fsm)
{
    return fsm->phase == XI_PHASE_LOADING || fsm->phase == XI_PHASE_UP ||
           fsm->phase == XI_PHASE_STOPPING;
}

static uint32_t spawn(struct xi_session_fsm *fsm)
{
    fsm->state = XI_SESSION_LOADING;
    fsm->phase = XI_PHASE_STARTING;
    return XI_ACT_SPAWN;
}

static uint32_t next_variant(struct xi_session_fsm *fsm)
{
    fsm->proven = 0;
    return spawn(fsm) | XI_ACT_NEXT_VARIANT;
}

static uint32_t gone(struct xi_session_fsm *fsm)
{
    fsm->state = XI_SESSION_GONE;
    fsm->phase = XI_PHASE_NONE;
    return XI_ACT_STOP_TIMERS | XI_ACT_FAIL_QUEUE | XI_ACT_NOTIFY_GONE | XI_ACT_FREE;
}

static uint32_t failed(struct xi_session_fsm *fsm, enum xi_host_phase phase)
{
    fsm->state = XI_SESSION_FAILED;
    fsm->phase = phase;
    return XI_ACT_STOP_TIMERS | XI_ACT_FAIL_QUEUE | XI_ACT_NOTIFY_FAILED |
           (phase == XI_PHASE_STOPPING ? XI_ACT_STOP_HOST : 0u);
}

/* Its variant's device is not to be used any more; another variant starts elsewhere. */
static uint32_t elsewhere(struct xi_session_fsm *fsm)
{
    fsm->proven = 0;
    return XI_ACT_STOP_TIMERS | XI_ACT_HOLD_QUEUE | XI_ACT_OTHER_VARIANT | spawn(fsm);
}

/* The host is no more although nobody asked it to end. */
static uint32_t crashed(struct xi_session_fsm *fsm, enum xi_crash_blame blame)
{
    uint32_t acts = XI_ACT_STOP_TIMERS | XI_ACT_START_BACKOFF;

    if (blame < XI_BLAME_ONLY_REQUEST && ++fsm->crashes >= fsm->crash_limit)
        return XI_ACT_QUARANTINE | failed(fsm, XI_PHASE_NONE);
    if (blame != XI_BLAME_MODEL && blame != XI_BLAME_NONE)
        fsm->step = 0; /* a guilty request explains the crash that made it a suspect, too */
    if (blame <= XI_BLAME_LATER && fsm->step < 20)
        fsm->step++;
    fsm->state = XI_SESSION_LOADING;
    fsm->phase = XI_PHASE_BACKOFF;
    /* The first wait is short: requests wait with it. Later ones are told so at once. */
    return acts | (fsm->step > 1 && blame != XI_BLAME_NONE ? XI_ACT_FAIL_QUEUE : XI_ACT_HOLD_QUEUE);
}

static uint32_t while_starting(struct xi_session_fsm *fsm, const struct xi_fsm_input *in)
{
    if (in->event == XI_EV_SPAWN_OK) {
        fsm->phase = XI_PHASE_LOADING;
        return XI_ACT_SEND_LOAD;
    }
    if (in->event == XI_EV_SPAWN_FAILED)
        return fsm->proven ? crashed(fsm, XI_BLAME_MODEL) : failed(fsm, XI_PHASE_NONE);
    if (in->event != XI_EV_NO_ROOM)
        return 0;
    if (!in->sleeps)
        return failed(fsm, XI_PHASE_NONE);
    fsm->state = XI_SESSION_IDLE;
    fsm->phase = XI_PHASE_NONE;
    return XI_ACT_FAIL_QUEUE | XI_ACT_NOTIFY_FAILED;
}

static uint32_t while_loading(struct xi_session_fsm *fsm, const struct xi_fsm_input *in)
{
    switch (in->event) {
    case XI_EV_PROGRESS:
        fsm->state = XI_SESSION_WARMING;
        return 0;
    case XI_EV_LOADED:
        fsm->state = XI_SESSION_READY;
        fsm->phase = XI_PHASE_UP;
        fsm->proven = 1;
        return XI_ACT_OPEN_QUEUE | XI_ACT_START_STABLE | XI_ACT_NOTIFY_READY;
    case XI_EV_LOAD_FAILED:
        if (!in->more_variants)
            return failed(fsm, XI_PHASE_STOPPING);
        /* The next one starts when this host has ended: never two at once. */
        fsm->state = XI_SESSION_LOADING;
        fsm->phase = XI_PHASE_STOPPING;
        fsm->proven = 0;
        return XI_ACT_STOP_HOST | XI_ACT_NEXT_VARIANT;
    case XI_EV_EXITED:
        if (in->more_variants && in->lost)
            return elsewhere(fsm);
        if (in->more_variants && !fsm->proven)
            return next_variant(fsm);
        return crashed(fsm, in->blame);
    default:
        return 0;
    }
}

/* LOADING and WARMING, except for UNLOAD. */
static uint32_t in_loading(struct xi_session_fsm *fsm, const struct xi_fsm_input *in)
{
    switch (fsm->phase) {
    case XI_PHASE_NONE:
        return in->event == XI_EV_LOAD ? spawn(fsm) | XI_ACT_FIRST_VARIANT | XI_ACT_HOLD_QUEUE : 0;
    case XI_PHASE_STARTING:
        return while_starting(fsm, in);
    case XI_PHASE_LOADING:
        return while_loading(fsm, in);
    case XI_PHASE_STOPPING:
        return in->event == XI_EV_EXITED ? spawn(fsm) : 0;
    case XI_PHASE_BACKOFF:
        return in->event == XI_EV_TIMER ? spawn(fsm) | XI_ACT_HOLD_QUEUE : 0;
    case XI_PHASE_UP:
        break;
    }
    return 0;
}

static uint32_t in_ready(struct xi_session_fsm *fsm, const struct xi_fsm_input *in)
{
    if (in->event == XI_EV_EXITED)
        return in->lost && in->more_variants ? elsewhere(fsm) : crashed(fsm, in->blame);
    if (in->event == XI_EV_STABLE)
        fsm->step = 0;
    return 0;
}

static uint32_t in_draining(struct xi_session_fsm *fsm, const struct xi_fsm_input *in)
{
    switch (in->event) {
    case XI_EV_SPAWN_OK:
        if (fsm->phase != XI_PHASE_STARTING)
            return 0;
        fsm->phase = XI_PHASE_STOPPING;
        return XI_ACT_STOP_HOST;
    case XI_EV_SPAWN_FAILED:
    case XI_EV_NO_ROOM:
        return fsm->phase == XI_PHASE_STARTING ? gone(fsm) : 0;
    case XI_EV_DRAINED:
    case XI_EV_DRAIN_TIMEOUT:
        if (fsm->phase != XI_PHASE_UP)
            return 0;
        fsm->phase = XI_PHASE_STOPPING;
        return XI_ACT_STOP_TIMERS | XI_ACT_FAIL_QUEUE | XI_ACT_STOP_HOST;
    case XI_EV_EXITED:
        return gone(fsm);
    default:
        return 0;
    }
}

static uint32_t in_failed(struct xi_session_fsm *fsm, const struct xi_fsm_input *in)
{
    if (in->event == XI_EV_EXITED)
        fsm->phase = XI_PHASE_NONE;
    if (in->event != XI_EV_LOAD)
        return 0;
    fsm->crashes = 0;
    fsm->step = 0;
    fsm->proven = 0;
    fsm->state = XI_SESSION_LOADING;
    if (fsm->phase == XI_PHASE_STOPPING)
        return XI_ACT_FIRST_VARIANT | XI_ACT_HOLD_QUEUE;
    return spawn(fsm) | XI_ACT_FIRST_VARIANT | XI_ACT_HOLD_QUEUE;
}

/* A host that was told to end keeps the time limit for it. */
static uint32_t stop_timers(const struct xi_session_fsm *fsm)
{
    return fsm->phase == XI_PHASE_STOPPING ? 0u : XI_ACT_STOP_TIMERS;
}

static uint32_t unload(struct xi_session_fsm *fsm, const struct xi_fsm_input *in)
{
    int loading = fsm->state == XI_SESSION_LOADING || fsm->state == XI_SESSION_WARMING;
    uint32_t acts = loading ? XI_ACT_NOTIFY_FAILED : 0u;

    if (fsm->phase == XI_PHASE_NONE || fsm->phase == XI_PHASE_BACKOFF)
        return acts | gone(fsm);
    fsm->state = XI_SESSION_DRAINING;
    acts |= stop_timers(fsm);
    if (fsm->phase == XI_PHASE_UP && in->busy)
        return acts | XI_ACT_CLOSE_QUEUE | XI_ACT_START_DRAIN;
    acts |= XI_ACT_FAIL_QUEUE;
    if (fsm->phase == XI_PHASE_UP || fsm->phase == XI_PHASE_LOADING) {
        fsm->phase = XI_PHASE_STOPPING;
        acts |= XI_ACT_STOP_HOST;
    }
    return acts;
}

static int serves_or_will(const struct xi_session_fsm *fsm)
{
    return fsm->state == XI_SESSION_LOADING || fsm->state == XI_SESSION_WARMING ||
           fsm->state == XI_SESSION_READY;
}

/* One that is being started or stopped finds out by itself. */
static uint32_t move_away(struct xi_session_fsm *fsm, const struct xi_fsm_input *in)
{
    int has_host = fsm->phase == XI_PHASE_LOADING || fsm->phase == XI_PHASE_UP;

    if (fsm->state == XI_SESSION_IDLE)
        fsm->proven = 0; /* it chooses anew when it wakes */
    if (!serves_or_will(fsm) || (!has_host && fsm->phase != XI_PHASE_BACKOFF))
        return 0;
    if (!in->more_variants)
        return failed(fsm, has_host ? XI_PHASE_STOPPING : XI_PHASE_NONE);
    if (!has_host)
        return elsewhere(fsm);
    fsm->proven = 0;
    fsm->state = XI_SESSION_LOADING;
    fsm->phase = XI_PHASE_STOPPING;
    return XI_ACT_STOP_TIMERS | XI_ACT_HOLD_QUEUE | XI_ACT_OTHER_VARIANT | XI_ACT_STOP_HOST;
}

static uint32_t renew(struct xi_session_fsm *fsm)
{
    if (fsm->state != XI_SESSION_READY)
        return 0;
    fsm->state = XI_SESSION_LOADING;
    fsm->phase = XI_PHASE_STOPPING;
    return XI_ACT_STOP_TIMERS | XI_ACT_HOLD_QUEUE | XI_ACT_STOP_HOST;
}

static uint32_t wake(struct xi_session_fsm *fsm)
{
    uint32_t acts = XI_ACT_HOLD_QUEUE;

    /* A start under way goes on with the variant it is for. */
    if (!fsm->proven && fsm->phase != XI_PHASE_STARTING)
        acts |= XI_ACT_FIRST_VARIANT;
    fsm->state = XI_SESSION_LOADING;
    return fsm->phase == XI_PHASE_NONE ? acts | spawn(fsm) : acts;
}

static uint32_t in_idle(struct xi_session_fsm *fsm, const struct xi_fsm_input *in)
{
    switch (in->event) {
    case XI_EV_LOAD:
        return wake(fsm);
    case XI_EV_SPAWN_OK:
        if (fsm->phase != XI_PHASE_STARTING)
            return 0;
        fsm->phase = XI_PHASE_STOPPING;
        return XI_ACT_STOP_HOST;
    case XI_EV_SPAWN_FAILED:
    case XI_EV_NO_ROOM:
    case XI_EV_EXITED:
        fsm->phase = XI_PHASE_NONE;
        return 0;
    default:
        return 0;
    }
}

/* Also of a session that was never loaded: it begins its life IDLE. */
static uint32_t park(struct xi_session_fsm *fsm)
{
    int loading = fsm->state == XI_SESSION_LOADING || fsm->state == XI_SESSION_WARMING;
    uint32_t acts = stop_timers(fsm) | XI_ACT_HOLD_QUEUE | (loading ? XI_ACT_NOTIFY_FAILED : 0u);

    if (!loading && fsm->state != XI_SESSION_READY)
        return 0;
    fsm->state = XI_SESSION_IDLE;
    if (fsm->phase == XI_PHASE_BACKOFF)
        fsm->phase = XI_PHASE_NONE;
    if (fsm->phase != XI_PHASE_LOADING && fsm->phase != XI_PHASE_UP)
        return acts;
    fsm->phase = XI_PHASE_STOPPING;
    return acts | XI_ACT_STOP_HOST;
}

uint32_t xi_fsm_feed(struct xi_session_fsm *fsm, const struct xi_fsm_input *input)
{
    if (fsm->state == XI_SESSION_GONE)
        return 0;
    if (input->event == XI_EV_CRASH_AGED) {
        if (fsm->crashes > 0)
            fsm->crashes--;
        return 0;
    }
    if (input->event == XI_EV_UNLOAD)
        return fsm->state == XI_SESSION_DRAINING ? 0 : unload(fsm, input);
    if (input->event == XI_EV_PARK)
        return park(fsm);
    if (input->event == XI_EV_MOVE)
        return move_away(fsm, input);
    if (input->event == XI_EV_RENEW)
        return renew(fsm);
    switch (fsm->state) {
    case XI_SESSION_LOADING:
    case XI_SESSION_WARMING:
        return in_loading(fsm, input);
    case XI_SESSION_READY:
        return in_ready(fsm, input);
    case XI_SESSION_DRAINING:
        return in_draining(fsm, input);
    case XI_SESSION_FAILED:
        return in_failed(fsm, input);
    case XI_SESSION_IDLE:
        return in_idle(fsm, input);
    case XI_SESSION_GONE:
        break;
    }
    return 0;
}
