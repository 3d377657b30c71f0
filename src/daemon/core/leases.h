/* leases.h: clients that want a session to stay in memory for a while. Loop thread; knows no clock
 * (times are passed in). A lease survives nothing: the daemon's end drops them all. */
#ifndef XI_DAEMON_CORE_LEASES_H
#define XI_DAEMON_CORE_LEASES_H

#include <stdint.h>

#include "base/limits.h"
#include "base/status.h"

#define XI_LEASES_MAX      4096u
#define XI_LEASE_TTL_MAX_S 86400u

struct xi_session;

struct xi_lease {
    char id[XI_UUID_TEXT + 1];
    struct xi_session *session; /* not a reference: xi_leases_drop_session when it leaves */
    uint64_t expires_ms;
};

/* Zeroed is empty. */
struct xi_leases {
    struct xi_lease *all;
    uint32_t n, cap;
};

void xi_leases_fini(struct xi_leases *l);
/* Counts in session->leases. EAGAIN: XI_LEASES_MAX are held; ENOMEM. *ret is borrowed until the
 * next call. */
enum xi_rc xi_leases_add(struct xi_leases *l, struct xi_session *session, uint64_t expires_ms,
                         const struct xi_lease **ret, struct xi_err *err) XI_MUST_CHECK;
/* NULL: no such lease (any more). */
struct xi_lease *xi_leases_find(struct xi_leases *l, const char *id);
void xi_leases_end(struct xi_leases *l, struct xi_lease *lease);
/* Ends those whose time is up; returns how many. */
uint32_t xi_leases_expire(struct xi_leases *l, uint64_t now_ms);
/* All of `from` become those of `to` (NULL: end). */
void xi_leases_hand_over(struct xi_leases *l, struct xi_session *from, struct xi_session *to);

#endif
