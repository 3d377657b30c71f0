/* admission.h: who may hold how much memory of which device. A ledger, pure: no clock, no I/O, no
 * allocation after its birth. Loop thread.
 *
 * A claim is granted, promised, or refused. Promised: it fits once the victims that were named have
 * gone; until then nobody else gets their room, and nothing is started. So what is held never
 * exceeds a device's limit, whoever comes and goes in whatever order. Victims are the sessions that
 * were idle longest, and no more of them than it takes.
 *
 * Thrash guard: a session that was evicted and comes back within the guard is not evicted again
 * before as much time has passed. Two models that do not fit together and alternate thus change
 * places at most once in that time each; in between a claim is refused with when to try again. */
#ifndef XI_DAEMON_CORE_ADMISSION_H
#define XI_DAEMON_CORE_ADMISSION_H

#include <stdint.h>

#include "base/limits.h"
#include "base/status.h"
#include "daemon/core/tenants.h"

#define XI_BUDGETS_MAX    64 /* the host's memory and accelerators of all engines */
#define XI_MEMORY_UNKNOWN UINT64_MAX

/* Where a need is known from. */
enum xi_memory_source { XI_MEMORY_MEASURED = 0, XI_MEMORY_ESTIMATED, XI_MEMORY_GUESSED };
const char *xi_memory_source_name(enum xi_memory_source s); /* "measured" */

struct xi_admission;

/* Of one session; embedded, zeroed at birth. The first block is its owner's to keep true, the rest
 * is the ledger's. */
struct xi_holding {
    const char *name;         /* for people */
    struct xi_tenant *tenant; /* NULL: no quota */
    uint64_t last_used_ms;
    uint64_t resident_bytes; /* what it really takes, once measured; 0: not yet */
    uint64_t measured_ms;    /* when */
    uint64_t shared_bytes;   /* of what it holds: stays with others when it goes */
    int evictable;           /* idle, not pinned, not leased, not loading */
    uint64_t in_use_ms; /* until then it counts as in use: its next request may be on its way */

    uint32_t budget;
    uint64_t held, promised; /* bytes; promised comes on top when it is granted */
    int leaving;             /* was named a victim */
    int after_leavers;       /* the promise: the machine itself is short until they have gone */
    uint64_t evicted_ms;     /* last; 0: never */
    uint64_t protected_ms;   /* by the guard, until then */
    struct xi_holding *prev, *next;
};

struct xi_victims {
    uint32_t n;
    struct xi_holding *all[XI_SESSIONS_MAX];
};

/* NULL: memory is out. Budget 0 is there, without a limit. */
struct xi_admission *xi_admission_new(uint64_t guard_ms);
void xi_admission_free(struct xi_admission *a);          /* NULL is fine; all must be released */
void xi_admission_evict(struct xi_admission *a, int on); /* default: on */
/* Finds or makes the budget of this name and sets its limit; 0: none. Past XI_BUDGETS_MAX the last
 * one is shared by what comes. */
uint32_t xi_admission_budget(struct xi_admission *a, const char *name, uint64_t limit_bytes);
/* What the machine itself says it has and what of it is free (XI_MEMORY_UNKNOWN: nothing), and when
 * it was read: others use its memory, too. */
void xi_admission_seen(struct xi_admission *a, uint32_t budget, uint64_t total_bytes,
                       uint64_t available_bytes, uint64_t at_ms);

/* h asks to hold `bytes` of a budget (what it holds already counts). XI_OK: it does. XI_EAGAIN: it
 * is promised; evict ret->all (which are marked), release each when it has gone, then call
 * xi_admission_ready. XI_EBUDGET: refused with the figures, nothing has changed;
 * *ret_retry_ms > 0: somebody is only kept by
 * the thrash guard or a request of just now, and may go then. bytes below what is held gives
 * the difference back. */
enum xi_rc xi_admission_ask(struct xi_admission *a, struct xi_holding *h, uint32_t budget,
                            uint64_t bytes, uint64_t now_ms, struct xi_victims *ret,
                            uint64_t *ret_retry_ms, struct xi_err *err) XI_MUST_CHECK;
/* The same question, and nothing is changed. */
enum xi_rc xi_admission_would(struct xi_admission *a, const struct xi_holding *h, uint32_t budget,
                              uint64_t bytes, uint64_t now_ms, struct xi_victims *ret,
                              struct xi_err *err) XI_MUST_CHECK;
/* XI_OK: the promise is kept, or there is none. XI_EAGAIN: victims are still there. XI_EBUDGET:
 * nobody leaves any more and it does not fit (the limit was lowered); the promise is void. */
enum xi_rc xi_admission_ready(struct xi_admission *a, struct xi_holding *h) XI_MUST_CHECK;
/* Gives up what was promised; what is held stays. */
void xi_admission_cancel(struct xi_admission *a, struct xi_holding *h);
/* A victim that could not go after all. */
void xi_admission_stay(struct xi_admission *a, struct xi_holding *h);
/* Gives back all that it holds or was promised; again is fine. */
void xi_admission_release(struct xi_admission *a, struct xi_holding *h, uint64_t now_ms);

/* Moves what is held, of the same budget: a session leaves and others keep what they shared. What
 * the tenant of `to` may hold is not asked: nothing more is taken. */
void xi_admission_hand_over(struct xi_admission *a, struct xi_holding *from, struct xi_holding *to,
                            uint64_t bytes);

struct xi_budget_view {
    const char *name;
    uint64_t limit;     /* 0: none */
    uint64_t held;      /* by sessions */
    uint64_t free;      /* that a claim would get without evicting; XI_MEMORY_UNKNOWN: no limit */
    uint64_t available; /* as the machine says; XI_MEMORY_UNKNOWN */
    uint64_t foreign;   /* that other programs hold, as far as can be told; 0: unknown, too */
};
/* 0: there is no such budget. */
int xi_admission_view(struct xi_admission *a, uint32_t budget, struct xi_budget_view *ret);
/* "512.0 MiB", "3.5 GiB" */
const char *xi_bytes_text(uint64_t bytes, char ret[24]);

#endif
