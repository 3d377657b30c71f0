/* platform/memory.h: sealed shared memory. Any thread.
 *
 * A segment is created by the daemon only, has its final size at birth and is sealed against
 * shrinking and growing, so a mapping can never fault past its end. FUTURE_WRITE seals it against
 * new writable mappings and write(), while the creator's own mapping stays writable. */
#ifndef XI_BASE_PLATFORM_MEMORY_H
#define XI_BASE_PLATFORM_MEMORY_H

#include <stdint.h>

#include "base/status.h"

enum xi_map_mode { XI_MAP_READ, XI_MAP_READ_WRITE };

struct xi_map {
    void *base; /* page-aligned; NULL when unmapped */
    uint64_t bytes;
};

/* Creates anonymous shared memory of `bytes` (rounded up to pages), maps it writable, seals it.
 * *ret_fd is the caller's to close; the mapping is undone by xi_map_close. ENOMEM, EFDS. */
enum xi_rc xi_memory_create(const char *label, uint64_t bytes, int seal_future_write, int *ret_fd,
                            struct xi_map *ret, struct xi_err *err) XI_MUST_CHECK;
/* Maps a received fd after checking that it is sealed against resizing and holds exactly `bytes`.
 * EPROTO when it does not. */
enum xi_rc xi_memory_open(int fd, uint64_t bytes, enum xi_map_mode mode, struct xi_map *ret,
                          struct xi_err *err) XI_MUST_CHECK;
void xi_map_close(struct xi_map *map); /* an unmapped one is fine */

#endif
