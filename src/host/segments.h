/* segments.h: input segments, and clients' memory, that this host has mapped, by number.
 *
 * One thread (control) adds and drops; lanes find without a lock. A segment is dropped only when
 * no work refers to it, so a lane never holds a pointer into one that goes. A client's memory may
 * shrink while it is read: what was lost is zeros then, and the segment is spoiled for good. */
#ifndef XI_HOST_SEGMENTS_H
#define XI_HOST_SEGMENTS_H

#include <stdint.h>

#include "base/platform/memory.h"
#include "base/status.h"
#include "ipc/messages.h"

struct xi_segments;

struct xi_segments *xi_segments_new(void);    /* NULL: memory is out */
void xi_segments_free(struct xi_segments *t); /* unmaps all */
/* Takes the mapping over. EPROTO: number 0, known already, or too many. */
enum xi_rc xi_segments_add(struct xi_segments *t, uint32_t id, const struct xi_map *map,
                           enum xi_segment_use use, struct xi_err *err) XI_MUST_CHECK;
void xi_segments_drop(struct xi_segments *t, uint32_t id);

struct xi_segment_view {
    struct xi_map map;
    enum xi_segment_use use;
};
/* The mapping of a segment. Its message can still be on its way while the work that names it has
 * come: waits up to wait_ms. EPROTO: it did not come. */
enum xi_rc xi_segments_find(struct xi_segments *t, uint32_t id, int wait_ms,
                            struct xi_segment_view *ret, struct xi_err *err) XI_MUST_CHECK;
/* The window of a client's memory that this address is in, which is spoiled by this; 0: it is in
 * none. Safe in a signal handler on any thread. */
int xi_segments_spoil(void *table, const void *address, struct xi_map *ret);
int xi_segments_spoiled(struct xi_segments *t, uint32_t id);

#endif
