/* platform/shared.h: POSIX shared memory that somebody else made and may change, shrink or remove
 * at any time. Any thread.
 *
 * Who only reads or writes a run of it does so by xi_shared_read and xi_shared_write, which never
 * fault. Who maps it sets a guard first. */
#ifndef XI_BASE_PLATFORM_SHARED_H
#define XI_BASE_PLATFORM_SHARED_H

#include <stdint.h>

#include "base/platform/memory.h"
#include "base/status.h"

#define XI_SHARED_KEY_MAX 255 /* bytes, without the slash in front */

struct xi_shared_facts {
    uint64_t bytes;
    uint64_t device, inode; /* which object it is, whatever its name */
    int has_name;           /* 0: it was unlinked */
};

/* 0 on success: [/]NAME without another slash, no "." or "..", no control characters, no
 * semaphore's name. *ret: without the slash, in key. */
int xi_shared_key(const char *key, const char **ret);
/* Opens by key (as xi_shared_key checked it), read-only. Links, pipes and devices are refused.
 * ENOENT, EFORBIDDEN, EINVAL, EFDS. *ret_fd is the caller's. */
enum xi_rc xi_shared_open(const char *key, int *ret_fd, struct xi_shared_facts *ret,
                          struct xi_err *err) XI_MUST_CHECK;
/* The same object once more. EFORBIDDEN, EFDS. */
enum xi_rc xi_shared_reopen(int fd, int writable, int *ret_fd, struct xi_err *err) XI_MUST_CHECK;
enum xi_rc xi_shared_stat(int fd, struct xi_shared_facts *ret, struct xi_err *err) XI_MUST_CHECK;
/* All of it or EREGION: it became shorter, or memory ran out. */
enum xi_rc xi_shared_read(int fd, uint64_t offset, void *ret, uint64_t bytes,
                          struct xi_err *err) XI_MUST_CHECK;
enum xi_rc xi_shared_write(int fd, uint64_t offset, const void *data, uint64_t bytes,
                           struct xi_err *err) XI_MUST_CHECK;

/* Maps a window that begins at a page. EREGION: the object is shorter. */
enum xi_rc xi_shared_map(int fd, uint64_t offset, uint64_t bytes, enum xi_map_mode mode,
                         struct xi_map *ret, struct xi_err *err) XI_MUST_CHECK;
uint64_t xi_page_bytes(void);

/* From now on, who touches a page of a window that is not there any more finds zeros from that page
 * to the window's end and goes on: `find` gives the window of an address and notes that it is
 * spoiled (0: it is none, and the process dies of it as ever). It is called in a signal handler,
 * on any thread. Once in a process. */
enum xi_rc xi_shared_guard(int (*find)(void *ctx, const void *address, struct xi_map *ret),
                           void *ctx, struct xi_err *err) XI_MUST_CHECK;

#endif
