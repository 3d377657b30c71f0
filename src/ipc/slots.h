/* slots.h: a buddy allocator over an offset range (a segment). Its book-keeping is private memory
 * of the owner, never shared. One thread. */
#ifndef XI_IPC_SLOTS_H
#define XI_IPC_SLOTS_H

#include <stdint.h>

#include "base/status.h"

struct xi_slots;

/* total_bytes is rounded up to a power of two × XI_SLOT_MIN. NULL: memory is out. */
struct xi_slots *xi_slots_new(uint64_t total_bytes);
void xi_slots_free(struct xi_slots *s);
/* A page-aligned range of at least `bytes` (0 counts as 1). EAGAIN when no range is free. */
enum xi_rc xi_slots_take(struct xi_slots *s, uint64_t bytes, uint64_t *ret_offset) XI_MUST_CHECK;
/* EINVAL when offset was not taken (nothing changes): offsets can come from a peer. */
enum xi_rc xi_slots_give(struct xi_slots *s, uint64_t offset) XI_MUST_CHECK;
uint64_t xi_slots_used(const struct xi_slots *s); /* bytes, rounded as taken */

#endif
