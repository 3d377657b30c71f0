/* swap_fsm.h: the rules of putting one session in another's place. Pure: no I/O, no clock, no
 * memory. session_swap.c senses the two sessions, feeds events and does what the returned actions
 * say, lowest bit first; the test explores every order of events. Any thread.
 *
 *   beside:   LOAD → (TRIAL) → COMMIT → DRAIN → END → OVER
 *   in place: HOLD → PARK → LOAD_ALONE → COMMIT → DRAIN → END → OVER
 *
 * Whatever goes wrong before COMMITTED leaves the old one serving: in place it is started again
 * (CLEAR, RESTORE). What an event says may be said again: it is sensed, not counted. */
#ifndef XI_DAEMON_CORE_SWAP_FSM_H
#define XI_DAEMON_CORE_SWAP_FSM_H

#include <stdint.h>

enum xi_swap_trial { XI_TRIAL_NONE = 0, XI_TRIAL_CANARY, XI_TRIAL_SHADOW };

enum xi_swap_phase {
    XI_SWAP_LOAD = 0,   /* the new one comes up beside the old */
    XI_SWAP_TRIAL,      /* it has a share of the requests, or copies of them */
    XI_SWAP_HOLD,       /* in place: new requests wait, those of the old one end */
    XI_SWAP_PARK,       /* its host ends */
    XI_SWAP_LOAD_ALONE, /* the new one comes up where the old one was */
    XI_SWAP_COMMIT,     /* desired state is being written */
    XI_SWAP_CLEAR,      /* in place, rolled back: the new one's host ends */
    XI_SWAP_RESTORE,    /* and the old one starts again */
    XI_SWAP_DRAIN,      /* decided; the loser ends what it has */
    XI_SWAP_END,        /* the loser was told to go */
    XI_SWAP_OVER
};

enum xi_swap_event {
    XI_SW_NEW_READY = 0,
    XI_SW_NEW_FAILED,  /* it cannot be loaded, or is quarantined */
    XI_SW_NEW_CRASHED, /* its host died, and it would start again */
    XI_SW_NEW_LEAVING, /* somebody unloads it */
    XI_SW_NEW_GONE,
    XI_SW_OLD_READY,
    XI_SW_OLD_FAILED,
    XI_SW_OLD_PARKED, /* it has no host */
    XI_SW_OLD_LEAVING,
    XI_SW_OLD_GONE,
    XI_SW_QUIET, /* nobody uses the one that is to go */
    XI_SW_TIMER, /* the trial's time is up, or the bound of a drain */
    XI_SW_PROMOTE,
    XI_SW_ROLLBACK,
    XI_SW_COMMITTED,
    XI_SW_COMMIT_FAILED,
    XI_SW_COUNT
};

struct xi_swap_input {
    enum xi_swap_event event;
    int no_room; /* NEW_FAILED: memory has no room for two */
    int worse;   /* TIMER of a trial: the new one fails more often */
};

enum {
    XI_SWA_STOP_TIMER = 1 << 0,
    XI_SWA_BLOCK = 1 << 1, /* new requests wait at the door */
    XI_SWA_PARK_OLD = 1 << 2,
    XI_SWA_LOAD_NEW = 1 << 3,
    XI_SWA_SHARE = 1 << 4,
    XI_SWA_UNSHARE = 1 << 5,
    XI_SWA_COMMIT = 1 << 6,
    XI_SWA_FLIP = 1 << 7,   /* the name is the new one's */
    XI_SWA_REVERT = 1 << 8, /* rolled back: say why */
    XI_SWA_WAKE_OLD = 1 << 9,
    XI_SWA_UNBLOCK = 1 << 10,
    XI_SWA_DETACH = 1 << 11, /* the name and the winner are free for another swap */
    XI_SWA_START_TIMER = 1 << 12,
    XI_SWA_ANSWER_UP = 1 << 13,
    XI_SWA_ANSWER_FAILED = 1 << 14,
    XI_SWA_UNLOAD_OLD = 1 << 15,
    XI_SWA_UNLOAD_NEW = 1 << 16,
    XI_SWA_FREE = 1 << 17
};

struct xi_swap_fsm {
    enum xi_swap_phase phase;
    enum xi_swap_trial trial;
    uint8_t falls_back; /* goes on in place when memory has no room for two */
    uint8_t in_place, shared, blocked, answered, new_left, won;
};

/* Begins; returns what to do first. */
uint32_t xi_swap_fsm_begin(struct xi_swap_fsm *fsm, enum xi_swap_trial trial, int in_place,
                           int falls_back);
/* Moves the machine and returns what to do. An event that means nothing here does nothing. */
uint32_t xi_swap_fsm_feed(struct xi_swap_fsm *fsm, const struct xi_swap_input *input);

#endif
