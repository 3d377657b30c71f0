/* ring.h: a single-producer single-consumer ring of variable-length records in shared memory.
 *
 * Each side keeps its own index privately and publishes a copy; the other side's copy is checked
 * on every use, because the peer is not trusted. A record is copied out before anybody looks at
 * it, so it cannot change after a check. Wake-ups: the consumer says that it sleeps, the producer
 * signals it only then. One thread per side. */
#ifndef XI_IPC_RING_H
#define XI_IPC_RING_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

#define XI_RING_RECORD_MAX (64u * 1024u) /* bytes of one record */

struct xi_ring_shared; /* what lies at the start of the memory */

struct xi_ring {
    struct xi_ring_shared *shared;
    uint8_t *data;
    uint64_t mask; /* data bytes - 1 */
    uint64_t mine; /* private copy of the index this side moves */
    uint64_t peer; /* last checked value of the other side's */
};

/* Bytes of shared memory that a ring of data_bytes (a power of two, ≥ 2 × XI_RING_RECORD_MAX)
 * takes. */
uint64_t xi_ring_footprint(uint64_t data_bytes);
/* The creator lays the ring out; both sides then attach. EPROTO when memory and size disagree. */
void xi_ring_create(void *memory, uint64_t data_bytes);
enum xi_rc xi_ring_attach(struct xi_ring *ring, void *memory, uint64_t memory_bytes,
                          struct xi_err *err) XI_MUST_CHECK;

/* Producer. EAGAIN: no room. EPROTO: the consumer's index makes no sense. */
enum xi_rc xi_ring_push(struct xi_ring *ring, const void *record, size_t bytes) XI_MUST_CHECK;
/* After one or more pushes: 1 when the consumer sleeps and must be signalled. */
int xi_ring_must_wake(struct xi_ring *ring);

/* Consumer. Copies the next record out. EAGAIN: empty. EPROTO: a length or index makes no sense
 * or the record is larger than cap: give the peer up. */
enum xi_rc xi_ring_pop(struct xi_ring *ring, void *buf, size_t cap, size_t *ret) XI_MUST_CHECK;
/* Says "about to sleep". 0: sleep now; 1: something came in between, pop again. */
int xi_ring_may_sleep(struct xi_ring *ring);

#endif
