/* why.h: the journal of decisions that somebody will ask about: why was a load refused, a model
 * evicted, restarted or moved, a request slow or refused. The last XI_WHY_MAX are kept. Loop
 * thread; noting never fails and never allocates. */
#ifndef XI_DAEMON_CORE_WHY_H
#define XI_DAEMON_CORE_WHY_H

#include <stdint.h>

#include "base/limits.h"
#include "base/status.h"

#define XI_WHY_MAX 4096

enum xi_why_kind {
    XI_WHY_REFUSED = 0, /* a load or a request that was refused */
    XI_WHY_EVICTED,
    XI_WHY_RESTARTED, /* its host died */
    XI_WHY_RECYCLED,  /* it grew past its reservation, or a device came back */
    XI_WHY_QUARANTINED,
    XI_WHY_MOVED,   /* to another variant or device */
    XI_WHY_SWAP,    /* began, flipped, rolled back: text says which */
    XI_WHY_SLOW,    /* a request that took far longer than its like */
    XI_WHY_INCIDENT /* a request that ended its host */
};
const char *xi_why_kind_name(enum xi_why_kind k); /* "refused" */

struct xi_why_entry {
    uint64_t at_ms; /* wall clock, epoch */
    enum xi_why_kind kind;
    enum xi_rc rc;                  /* XI_OK: nothing failed */
    uint64_t request;               /* 0: none */
    char session[XI_UUID_TEXT + 1]; /* "": none (a load that was refused) */
    char name[XI_NAME_MAX + 1], tenant[XI_NAME_MAX + 1];
    char text[256]; /* one sentence with the figures */
    char hint[160];
};

struct xi_why;
struct xi_why *xi_why_new(void); /* NULL: memory is out */
void xi_why_free(struct xi_why *w);
/* w may be NULL: then nothing is kept. Copies; at_ms is filled in. */
void xi_why_note(struct xi_why *w, const struct xi_why_entry *entry);
/* Walks backwards in time from `before` (NULL: the newest) to the next entry about this session
 * id, session name or request number within the tenant (NULL: any). NULL: no more. w may be NULL.
 */
const struct xi_why_entry *xi_why_find(const struct xi_why *w, const char *tenant,
                                       const char *about, const struct xi_why_entry *before);

#endif
