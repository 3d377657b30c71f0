/* session_names.h: who answers to a name. Loop thread; looking up and choosing allocate nothing.
 *
 * A name of a tenant points at sessions with weights. The first target is the active session: what
 * a command means when it says the name. A swap gives its candidate a share, then makes it the
 * first; the old one may stay behind with weight 0 for the sequences that began on it. */
#ifndef XI_DAEMON_CORE_SESSION_NAMES_H
#define XI_DAEMON_CORE_SESSION_NAMES_H

#include <stdint.h>

#include "base/limits.h"
#include "base/status.h"

#define XI_NAME_TARGETS_MAX 8u
#define XI_WEIGHT_ALL       1000u /* weights are thousandths */

struct xi_entry;
struct xi_sessions;
struct xi_swap;

struct xi_target {
    struct xi_entry *entry;
    uint32_t weight; /* 0: gets nothing new */
    int64_t credit;
};

struct xi_named {
    char tenant[XI_NAME_MAX + 1], name[XI_NAME_MAX + 1];
    struct xi_target targets[XI_NAME_TARGETS_MAX];
    uint32_t n;
    struct xi_swap *swap;    /* under way; borrowed */
    struct xi_entry *mirror; /* gets copies of what the others are asked; NULL: none */
    int blocked;             /* nobody serves it for a moment: requests wait at the door */
    struct xi_named *next;   /* in the bucket */
};

/* Which of n targets is next: shares are exact over any run of picks (each picked target pays what
 * all others earn), and a sequence (hash not 0) gets the same one as long as weights stay.
 * Targets with weight 0 are not picked. -1: there is none. */
int xi_targets_pick(struct xi_target *targets, uint32_t n, uint64_t sequence);

/* Puts the entry behind its name (made if need be) and its id into the tables. The first one is
 * active with all the weight, later ones have none. ENOMEM, EAGAIN: too many at this name. */
enum xi_rc xi_names_add(struct xi_sessions *m, struct xi_entry *e,
                        struct xi_err *err) XI_MUST_CHECK;
void xi_names_drop_name(struct xi_sessions *m, struct xi_entry *e); /* fine when it has none */
void xi_names_drop_id(struct xi_sessions *m, struct xi_entry *e);   /* remembers it as ended */
/* Gives e a share (thousandths) and the active one the rest. */
void xi_names_share(struct xi_named *name, struct xi_entry *e, uint32_t share);
/* e becomes the active one with all the weight. */
void xi_names_flip(struct xi_named *name, struct xi_entry *e);
/* The name is free for another swap; it goes if nobody has it any more. */
void xi_names_swap_over(struct xi_sessions *m, struct xi_named *name);
struct xi_named *xi_names_find(struct xi_sessions *m, const char *tenant, const char *name);
/* The one that differs in case only, or the same. */
struct xi_named *xi_names_twin(struct xi_sessions *m, const char *tenant, const char *name);
struct xi_entry *xi_ids_find(struct xi_sessions *m, const char *id);
int xi_ids_ended(const struct xi_sessions *m, const char *id);

#endif
