/* platform/file.h: files beneath a directory, locks, free space. Any thread; may block on the disk.
 *
 * Paths are relative to an open directory and can't leave it: no "..", no absolute path, no
 * symbolic link anywhere in them (openat2 RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS; where a kernel or
 * a sandbox has no openat2, one openat O_NOFOLLOW a segment). Everything opened is close-on-exec.
 * Calls that return int answer 0 or a descriptor, -1 with errno set. */
#ifndef XI_BASE_PLATFORM_FILE_H
#define XI_BASE_PLATFORM_FILE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define XI_TREE_DEPTH_MAX 64

/* flags and mode as open(2). The descriptor is the caller's to close. */
int xi_beneath_open(int dir, const char *path, int flags, mode_t mode);
/* What it falls back to. */
int xi_beneath_open_by_segments(int dir, const char *path, int flags, mode_t mode);
/* Makes path and the directories that lead to it; those that exist are fine. */
int xi_beneath_mkdirs(int dir, const char *path, mode_t mode);
/* Makes the missing directories of an ordinary path (it may lead through symbolic links). */
int xi_path_mkdirs(const char *path, mode_t mode);
/* Removes what `name` in dir is: a file, a link itself, or a directory with all it holds (at most
 * XI_TREE_DEPTH_MAX deep, else ELOOP). A missing one is success. */
int xi_tree_remove(int dir, const char *name);

/* All bytes or an error; continues after signals and short writes. */
int xi_fd_write_all(int fd, const void *data, size_t bytes);
/* Up to cap bytes from the start until the end. *ret_more is 1 when the file holds more. */
int xi_fd_read_start(int fd, void *dst, size_t cap, size_t *ret_bytes, int *ret_more);
/* fsync of the directory `path` beneath dir ("." : dir itself). */
int xi_beneath_flush_dir(int dir, const char *path);

/* Takes the advisory lock that ends with this process. EWOULDBLOCK: another holds it. */
int xi_fd_lock(int fd);
/* Bytes an ordinary user may still write on this file system. */
int xi_fd_free_bytes(int fd, uint64_t *ret);

#endif
