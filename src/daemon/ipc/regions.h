/* regions.h: shared memory that clients own and registered by name. Loop thread.
 *
 * A region is a window of a POSIX shared memory object. It belongs to a tenant: others neither see
 * its name nor may register the same object. The daemon never maps it: a client may shrink it at
 * any time. Hosts map it, read-only where it holds inputs, and guard themselves (host/segments.h).
 *
 * A region stays until it is unregistered; requests that use it then keep what they use. Where
 * there is no room for another, the tenant's own regions without a name in the system go first:
 * nobody can open those any more. */
#ifndef XI_DAEMON_IPC_REGIONS_H
#define XI_DAEMON_IPC_REGIONS_H

#include "base/platform/shared.h"
#include "daemon/ipc/loans.h"

struct xi_regions;

struct xi_regions *xi_regions_new(struct xi_shm *shm); /* NULL: memory is out */
/* Requests may still hold loans. NULL is fine. */
void xi_regions_free(struct xi_regions *r);

/* key: as of shm_open. The window has to lie in the object. ECONFLICT: the name is taken;
 * EFORBIDDEN: the object is another tenant's, or not open to the daemon; EINVAL, ENOENT, EQUOTA,
 * EFDS, ENOMEM. */
enum xi_rc xi_regions_register(struct xi_regions *r, const char *tenant, const char *name,
                               const char *key, uint64_t offset, uint64_t bytes,
                               struct xi_err *err) XI_MUST_CHECK;
/* An unknown name is fine, as the protocol says. name NULL: all of the tenant's. */
void xi_regions_unregister(struct xi_regions *r, const char *tenant, const char *name);

struct xi_region_view {
    const char *name, *key; /* until the callback returns */
    uint64_t offset, bytes;
};
/* The tenant's region of this name. name NULL: all, in no order. How many there were. */
uint32_t xi_regions_each(struct xi_regions *r, const char *tenant, const char *name,
                         void (*each)(void *ctx, const struct xi_region_view *view), void *ctx);

/* A run of a region for a request: a segment with one reference, for a loan or xi_segment_put, and
 * where in it the run begins. Whether the object is still as long as it was registered is asked of
 * the system. ENOENT: no such region; EREGION: the run does not lie in it, it shrank; EFORBIDDEN:
 * not writable; EFDS, EAGAIN, ENOMEM. */
enum xi_rc xi_region_take(struct xi_regions *r, const char *tenant, const char *name,
                          uint64_t offset, uint64_t bytes, int writable, struct xi_segment **ret,
                          uint64_t *ret_offset, struct xi_err *err) XI_MUST_CHECK;
/* A loan for a request that uses regions, with one reference. NULL: memory is out. */
struct xi_loan *xi_regions_loan(struct xi_regions *r);

#endif
