/* fair.h: whose turn it is on one device: deficit round robin over tenants, charged by measured
 * time, inside priority classes. Pure: no clock, no memory, no I/O; everything is embedded in its
 * owner. Any thread, one at a time.
 *
 * A tenant's deficit is kept as a clock that runs by the device time it was given over its weight;
 * the one that lags furthest is next. An estimate is charged when work leaves and corrected to what
 * was measured when it ends. Who comes back from idling starts where the others are: idling gathers
 * no credit, and pays off no debt faster than the others are served. Inside a tenant's turn its
 * sessions share in the same way, and among those that have not had more than their part the
 * earliest deadline goes first.
 *
 * A higher class goes first, but a class that waits is promised a part of the device: each time it
 * is passed over it saves up that part, and once it has saved what its next run costs, it goes. */
#ifndef XI_DAEMON_CORE_FAIR_H
#define XI_DAEMON_CORE_FAIR_H

#include <stdint.h>

#define XI_FAIR_CLASSES     3 /* enum xi_priority */
#define XI_FAIR_NO_DEADLINE UINT64_MAX

struct xi_fair_clock {
    uint64_t at;   /* device time over weight, ns */
    uint64_t rest; /* of that division, so that nothing is lost */
};

/* Something that can wait for the device: a session's line of one class. Zeroed, then account and
 * class are set; stays in place while it is ready or runs. */
struct xi_fair_entry {
    struct xi_fair_account *account;
    unsigned class;
    uint64_t deadline_ns; /* of its first request */
    uint64_t cost_ns;     /* device time that its next run is expected to take */
    /* fair.c's own */
    struct xi_fair_clock clock;
    uint32_t running;
    int ready;
    struct xi_fair_entry *prev, *next;
};

/* A tenant in one class. */
struct xi_fair_turn {
    struct xi_fair_clock clock;
    uint64_t floor; /* where an entry starts that comes back */
    uint32_t running;
    struct xi_fair_entry *ready;
    struct xi_fair_account *prev, *next; /* tenants with something ready */
};

/* A tenant on one device. Zeroed, then weight is set; it may change at any time. */
struct xi_fair_account {
    const uint32_t *weight; /* ≥ 1; NULL: 1 */
    struct xi_fair_turn turns[XI_FAIR_CLASSES];
};

/* One device. Zeroed. */
struct xi_fair {
    struct xi_fair_account *ready[XI_FAIR_CLASSES];
    uint64_t floor[XI_FAIR_CLASSES];
    uint32_t running[XI_FAIR_CLASSES];
    int64_t saved_ns[XI_FAIR_CLASSES];
};

/* What a run was charged; kept until it ends. */
struct xi_fair_ticket {
    struct xi_fair_entry *entry;
    uint64_t charged_ns;
    int ahead; /* it went before a higher class, by its promise */
};

/* It could run now; also when that is known already but deadline or cost have changed. */
void xi_fair_ready(struct xi_fair *f, struct xi_fair_entry *e, uint64_t deadline_ns,
                   uint64_t cost_ns);
void xi_fair_idle(struct xi_fair *f, struct xi_fair_entry *e); /* fine when it is not ready */
/* Who is next among the classes of this mask (1 << class). NULL: nobody is ready. Walks the tenants
 * that have something ready, then the ready entries of one. */
struct xi_fair_entry *xi_fair_pick(const struct xi_fair *f, unsigned classes);
/* A ready entry's work leaves for the device, and ends after it took so long. */
void xi_fair_start(struct xi_fair *f, struct xi_fair_entry *e, struct xi_fair_ticket *ret);
void xi_fair_end(struct xi_fair *f, const struct xi_fair_ticket *ticket, uint64_t took_ns);

#endif
