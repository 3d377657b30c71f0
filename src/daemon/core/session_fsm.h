/* session_fsm.h: the rules of a session's life. Pure: no I/O, no clock, no memory.
 *
 * session_host.c feeds events and does what the returned actions say, lowest bit first; the test
 * explores every reachable state under every order of events. Any thread. */
#ifndef XI_DAEMON_CORE_SESSION_FSM_H
#define XI_DAEMON_CORE_SESSION_FSM_H

#include <stdint.h>

#include "daemon/core/session_manager.h"

/* What is known of the host. At most one exists: in LOADING, UP and STOPPING. */
enum xi_host_phase {
    XI_PHASE_NONE = 0,
    XI_PHASE_STARTING, /* its directories are made, then it is spawned: SPAWN_OK or _FAILED comes */
    XI_PHASE_LOADING,  /* it runs and was told to load */
    XI_PHASE_UP,       /* it answered LOADED */
    XI_PHASE_STOPPING, /* it was told to end; EXITED comes */
    XI_PHASE_BACKOFF   /* it crashed; TIMER comes */
};

#define XI_CRASHES_MAX 1000 /* a crash limit over this is this */

struct xi_session_fsm {
    enum xi_session_state state;
    enum xi_host_phase phase;
    uint16_t crashes;     /* in the window */
    uint16_t crash_limit; /* so many of them quarantine the session (≥ 1) */
    uint8_t step;         /* of the back-off; 0 and 1 wait as short */
    uint8_t proven;       /* this variant was READY once */
};

enum xi_fsm_event {
    XI_EV_LOAD = 0, /* a new session, a FAILED one tried again, or an IDLE one woken */
    XI_EV_SPAWN_OK,
    XI_EV_SPAWN_FAILED,
    XI_EV_NO_ROOM,  /* there is no memory for it, so nothing was started */
    XI_EV_PROGRESS, /* the model is read; warm-up or golden began */
    XI_EV_LOADED,
    XI_EV_LOAD_FAILED, /* the host said why, in words */
    XI_EV_EXITED,      /* the host has ended, whoever wanted it */
    XI_EV_TIMER,       /* the back-off is over */
    XI_EV_STABLE,      /* READY for long enough to begin back-off anew */
    XI_EV_CRASH_AGED,  /* one crash left the window */
    XI_EV_UNLOAD,
    XI_EV_DRAINED, /* the last request finished */
    XI_EV_DRAIN_TIMEOUT,
    XI_EV_PARK,  /* give the host back and stay as IDLE; LOAD wakes it again */
    XI_EV_MOVE,  /* its device is not to be used any more */
    XI_EV_RENEW, /* a READY one whose host is to be started afresh; nothing runs on it */
    XI_EV_COUNT
};

/* Whose fault an exit was, as the pool sees it. */
enum xi_crash_blame {
    XI_BLAME_MODEL = 0,    /* unknown, so the model's: counts, and back-off grows */
    XI_BLAME_LATER,        /* the same, but this host had answered: counts, back-off begins anew */
    XI_BLAME_REQUEST,      /* one request, found guilty alone: counts, nothing grows */
    XI_BLAME_ONLY_REQUEST, /* the same, and others were answered meanwhile: does not count */
    XI_BLAME_NONE          /* somebody else's of the same host: does not count, nothing changes */
};

struct xi_fsm_input {
    enum xi_fsm_event event;
    int more_variants; /* LOAD_FAILED, EXITED: there is another to try; MOVE: elsewhere */
    int lost;          /* EXITED: the device is lost; more_variants: there is one elsewhere */
    int sleeps;        /* NO_ROOM: it goes back to IDLE, the next request asks again */
    int busy;          /* UNLOAD: requests are queued or running */
    enum xi_crash_blame blame; /* EXITED */
};

/* In the order in which they are done. What was running on a host that ended has become suspects
 * (or an incident) before EXITED is fed: the pool says whose fault it was. */
enum {
    XI_ACT_STOP_TIMERS = 1 << 0,
    XI_ACT_QUARANTINE = 1 << 1,  /* that is why the rest of these fail */
    XI_ACT_HOLD_QUEUE = 1 << 2,  /* requests wait; new ones too */
    XI_ACT_CLOSE_QUEUE = 1 << 3, /* new ones are refused, the others still run */
    XI_ACT_FAIL_QUEUE = 1 << 4,  /* all are answered with an error, and new ones too */
    XI_ACT_OPEN_QUEUE = 1 << 5,  /* suspects first, alone; then the others */
    XI_ACT_FIRST_VARIANT = 1 << 6,
    XI_ACT_NEXT_VARIANT = 1 << 7,
    XI_ACT_OTHER_VARIANT = 1 << 8, /* the best that may still be used */
    XI_ACT_SPAWN = 1 << 9,
    XI_ACT_SEND_LOAD = 1 << 10,
    XI_ACT_STOP_HOST = 1 << 11,
    XI_ACT_START_BACKOFF = 1 << 12, /* step says how long */
    XI_ACT_START_DRAIN = 1 << 13,
    XI_ACT_START_STABLE = 1 << 14,
    XI_ACT_NOTIFY_READY = 1 << 15,  /* whoever waits for the load */
    XI_ACT_NOTIFY_FAILED = 1 << 16, /* the same */
    XI_ACT_NOTIFY_GONE = 1 << 17,   /* whoever waits for the unload */
    XI_ACT_FREE = 1 << 18           /* the manager's own reference; always last */
};

void xi_fsm_init(struct xi_session_fsm *fsm, unsigned crash_limit);
/* Moves the machine and returns what to do. An event that means nothing here does nothing. */
uint32_t xi_fsm_feed(struct xi_session_fsm *fsm, const struct xi_fsm_input *input);
/* Does a host process exist that has not ended? */
int xi_fsm_has_host(const struct xi_session_fsm *fsm);

#endif
