/* session_memory.h: what sessions may take, asked before their hosts start and corrected by what
 * they really took. Loop thread.
 *
 * A session holds its reservation from the claim until it has no host and waits for none: over a
 * crash and the back-off behind it, too, so that a restart always has its room. The figures:
 * measured at an earlier load of the same package, variant, engine build, device, batch and
 * instances; else the manifest's estimate; else a guess from the files' sizes. */
#ifndef XI_DAEMON_CORE_SESSION_MEMORY_H
#define XI_DAEMON_CORE_SESSION_MEMORY_H

#include "daemon/core/admission.h"
#include "daemon/core/session_manager.h"
#include "daemon/core/variants.h"

struct xi_entry;
struct xi_group;

#define XI_THRASH_GUARD_MS  60000u
#define XI_IN_USE_MS        250u /* after a request the next one may be on its way */
#define XI_REFUSED_AGAIN_MS 1000u
#define XI_MEMORY_GUESS_MIN (32 * XI_MIB) /* on top of twice the files */
#define XI_HOST_SPARE_BYTES (256 * XI_MIB)
#define XI_HOST_MARGIN_MIN  (128 * XI_MIB) /* over the measured peak, in a control group */

struct xi_memory_need {
    uint64_t bytes;
    enum xi_memory_source source;
};

/* Of one session; embedded. */
struct xi_session_memory {
    struct xi_holding holding;
    uint32_t choice;     /* the variant that holding is for */
    uint64_t refused_ms; /* was noted last; 0: not since it was loaded */
    uint64_t loaded_ms;  /* last_used_ms as it was then */
    struct xi_memory_need need;
    uint64_t context_bytes; /* of what it holds: its host's, which has it once for all */
    uint64_t foreign_bytes; /* that other programs held of the device when it was let in */
    void (*then)(struct xi_entry *e, const struct xi_err *err); /* NULL: nobody waits */
    int waiting;                                                /* for victims to leave */
    struct xi_entry *next;
};

/* Room for the variant in turn. then is called once: with NULL when it is there, from inside or
 * once the victims have left; with EBUDGET and the figures; with EGONE when nobody wants it any
 * more. */
void xi_memory_claim(struct xi_entry *e,
                     void (*then)(struct xi_entry *e, const struct xi_err *err));
/* It was loaded and says what it took (memory_bytes, peak_bytes): remembered, and the reservation
 * set right. EBUDGET: it does not fit after all, nothing can make room; its host has to end. */
enum xi_rc xi_memory_measured(struct xi_entry *e, struct xi_err *err) XI_MUST_CHECK;
/* Its load found no memory (ENOMEM) although it was let in: says so, with figures, when other
 * programs took it meanwhile (EBUDGET); else leaves the error as it is. */
void xi_memory_ran_out(struct xi_entry *e, struct xi_err *inout);
/* It leaves its group: who stays in the host holds from now on what the host has once. */
void xi_memory_leave_context(struct xi_entry *e);
/* Room for a second copy of all that is in the group's host, while it takes over; nobody is
 * evicted for it. 0: there is none. Given back when one of the two has gone; again is fine. */
int xi_memory_second(struct xi_group *g);
void xi_memory_second_gone(struct xi_group *g);
/* After each step of its rules: gives back what it no longer needs. */
void xi_memory_settle(struct xi_entry *e);
/* Of a dry run: the figures, who would leave, and the verdict. 1: it would be let in. A context
 * that it might share is counted. */
struct xi_plan;
int xi_memory_plan(struct xi_sessions *m, const char *digest,
                   const struct xi_package_record *record, const struct xi_load_options *options,
                   const struct xi_variant_choice *choice, struct xi_plan *ret);
/* What its host may take at most (RLIMIT_DATA): its own and what nobody else was promised. */
uint64_t xi_memory_host_limit(const struct xi_entry *e);

#endif
