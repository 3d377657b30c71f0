/* shm_manager.h: input memory of the daemon. Loop thread.
 *
 * A slot is where the bytes of one request's inputs land, straight from the socket. Small slots
 * share 32 MiB segments of their tenant, larger ones (> XI_SLOT_SHARED_MAX) are a segment of their
 * own. Input segments are FUTURE_WRITE-sealed: only the daemon's mapping can write. */
#ifndef XI_DAEMON_IPC_SHM_MANAGER_H
#define XI_DAEMON_IPC_SHM_MANAGER_H

#include <stdint.h>

#include "base/platform/memory.h"
#include "base/status.h"

struct xi_shm;

/* Shared memory with a number; reference-counted: slots, hosts and replies in flight hold it. */
struct xi_segment {
    uint32_t id;
    int fd;
    struct xi_map map;
    uint32_t refs;
    struct xi_shm *owner; /* NULL: an output segment of a host */
};

struct xi_slot {
    struct xi_segment *segment;
    uint64_t offset, bytes; /* room, not what was asked for */
    uint8_t *data;
    uint32_t refs;
};

/* budget_bytes bounds all input memory; a tenant takes at most a quarter, unless it is alone. */
struct xi_shm *xi_shm_new(uint64_t budget_bytes);
void xi_shm_free(struct xi_shm *shm); /* no slot may be out */
/* A slot for `bytes` of this tenant with one reference. EAGAIN: budget in use now; ETOOBIG: never;
 * ENOMEM. */
enum xi_rc xi_shm_take(struct xi_shm *shm, const char *tenant, uint64_t bytes,
                       struct xi_slot **ret, struct xi_err *err) XI_MUST_CHECK;
void xi_slot_get(struct xi_slot *slot);
void xi_slot_put(struct xi_slot *slot); /* NULL is fine */
/* A writable segment for one host's outputs, outside the input budget. */
enum xi_rc xi_segment_output(struct xi_shm *shm, uint64_t bytes, struct xi_segment **ret,
                             struct xi_err *err) XI_MUST_CHECK;
void xi_segment_get(struct xi_segment *segment);
void xi_segment_put(struct xi_segment *segment); /* the last one unmaps and closes */

struct xi_shm_stats {
    uint64_t budget_bytes, used_bytes, segment_bytes;
    uint32_t segments, slots;
    uint64_t refused;
};
void xi_shm_stats(const struct xi_shm *shm, struct xi_shm_stats *ret);

#endif
