/* shm_manager.h: input memory of the daemon. Loop thread.
 *
 * A slot is where the bytes of one request's inputs land, straight from the socket. Small slots
 * share 32 MiB segments of their tenant, larger ones (> XI_SLOT_SHARED_MAX) are a segment of their
 * own. Input segments are FUTURE_WRITE-sealed: only the daemon's mapping can write. */
#ifndef XI_DAEMON_IPC_SHM_MANAGER_H
#define XI_DAEMON_IPC_SHM_MANAGER_H

#include <stdint.h>
#include <uv.h>

#include "base/limits.h"
#include "base/platform/memory.h"
#include "base/status.h"

#define XI_SHM_SPARE_BYTES (128 * XI_MIB)

struct xi_shm;

/* Shared memory with a number; reference-counted: slots, hosts and replies in flight hold it. */
struct xi_segment {
    uint32_t id;
    int fd;
    struct xi_map map;
    uint32_t refs;
    struct xi_shm *owner; /* NULL: an output segment of a host */
    uv_loop_t *loop;      /* whose workers unmap it; NULL: done on the spot */
    int heap;             /* plain memory: no descriptor, nothing to unmap */
    /* A client's own memory: map has its length alone, the daemon never maps it. It begins at
     * `from` of what fd is open to. */
    int client, writable, spoiled; /* spoiled: hosts may have lost some of it */
    uint64_t from;
};

struct xi_slot {
    struct xi_segment *segment;
    uint64_t offset, bytes; /* room, not what was asked for */
    uint8_t *data;
    uint32_t refs;
};

/* budget_bytes (at least XI_SEGMENT_BYTES) bounds all input segments together. While several
 * tenants hold slots, each takes at most a quarter. An emptied segment is kept for the next
 * request (one shared one, and larger ones up to XI_SHM_SPARE_BYTES, per tenant) until the budget
 * needs it or xi_shm_trim finds it still unused. */
struct xi_shm *xi_shm_new(uint64_t budget_bytes);
/* Giving the pages of a large segment back takes milliseconds: from now on that is done on this
 * loop's workers. */
void xi_shm_close_on(struct xi_shm *shm, uv_loop_t *loop);
/* Nobody takes from it any more; it goes with its last slot and watch. */
void xi_shm_free(struct xi_shm *shm);
/* A slot for `bytes` of this tenant with one reference. EAGAIN: budget in use now; ETOOBIG: never;
 * ENOMEM. */
enum xi_rc xi_shm_take(struct xi_shm *shm, const char *tenant, uint64_t bytes, struct xi_slot **ret,
                       struct xi_err *err) XI_MUST_CHECK;
void xi_slot_get(struct xi_slot *slot);
void xi_slot_put(struct xi_slot *slot); /* NULL is fine */
/* A writable segment for one host's outputs, outside the input budget. */
enum xi_rc xi_segment_output(struct xi_shm *shm, uint64_t bytes, struct xi_segment **ret,
                             struct xi_err *err) XI_MUST_CHECK;
/* Names a client's memory for hosts, outside the input budget; takes fd over. Goes with its last
 * reference, and hosts hear of it then. EAGAIN, ENOMEM: fd stays the caller's. */
enum xi_rc xi_segment_client(struct xi_shm *shm, int fd, int writable, uint64_t from,
                             uint64_t bytes, struct xi_segment **ret,
                             struct xi_err *err) XI_MUST_CHECK;
/* Plain memory that nobody shares, for bytes that are handled like a reply's. Zeroed, id 0. NULL:
 * memory is out. */
struct xi_segment *xi_segment_heap(uint64_t bytes);
void xi_segment_get(struct xi_segment *segment);
void xi_segment_put(struct xi_segment *segment); /* the last one unmaps and closes */

/* Closes the empty segments that were empty at the last call too. Call it every few seconds. */
void xi_shm_trim(struct xi_shm *shm);
/* Hears of each input or client segment just before it is closed; hosts unmap theirs then. In a
 * list of the shm's until removed. */
struct xi_shm_watch {
    void (*closing)(struct xi_shm_watch *watch, uint32_t segment_id);
    struct xi_shm_watch *prev, *next;
};
void xi_shm_watch_add(struct xi_shm *shm, struct xi_shm_watch *watch);
void xi_shm_watch_remove(struct xi_shm *shm, struct xi_shm_watch *watch);

struct xi_shm_stats {
    uint64_t budget_bytes, used_bytes, segment_bytes;
    uint32_t segments, slots;
    uint64_t refused;
};
void xi_shm_stats(const struct xi_shm *shm, struct xi_shm_stats *ret);

#endif
