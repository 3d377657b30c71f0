#define _GNU_SOURCE
#include "base/platform/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Copies the segment at *path to dst and steps over it. 0 at the end, -1 when it may not be. */
static int next_segment(const char **path, char dst[NAME_MAX + 1])
{
    while (**path == '/')
        (*path)++;
    size_t n = strcspn(*path, "/");
    if (n == 0)
        return 0;
    if (n > NAME_MAX || (n == 2 && memcmp(*path, "..", 2) == 0)) {
        errno = n > NAME_MAX ? ENAMETOOLONG : EXDEV;
        return -1;
    }
    memcpy(dst, *path, n);
    dst[n] = '\0';
    *path += n;
    return 1;
}

static int at_end(const char *path)
{
    return path[strspn(path, "/")] == '\0';
}

static void close_keeping_errno(int fd)
{
    int saved = errno;

    (void)close(fd);
    errno = saved;
}

/* ThreadSanitizer sees neither openat, openat2 nor libuv's closing by a system call of its own: a
 * number used again would look like one socket that two threads share. It is made to forget it. */
#if defined(__SANITIZE_THREAD__)
void AnnotateIgnoreWritesBegin(const char *file, int line);
void AnnotateIgnoreWritesEnd(const char *file, int line);
void __sanitizer_syscall_pre_impl_close(long fd);

static int seen(int fd)
{
    if (fd >= 0) {
        AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
        __sanitizer_syscall_pre_impl_close(fd);
        AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
    }
    return fd;
}
#else
static int seen(int fd)
{
    return fd;
}
#endif

static int open_seen(int dir, const char *name, int flags, mode_t mode)
{
    return seen(openat(dir, name, flags, mode));
}

/* What openat2 does, one segment at a time. */
int xi_beneath_open_by_segments(int dir, const char *path, int flags, mode_t mode)
{
    char name[NAME_MAX + 1];
    int at = dir, got = 0;

    if (path[0] == '/') {
        errno = EXDEV;
        return -1;
    }
    while ((got = next_segment(&path, name)) > 0) {
        int last = at_end(path);
        int want = last ? flags : O_PATH | O_DIRECTORY;
        int fd = open_seen(at, name, want | O_NOFOLLOW | O_CLOEXEC, last ? mode : 0);
        if (at != dir)
            close_keeping_errno(at);
        if (fd < 0 || last)
            return fd;
        at = fd;
    }
    if (at != dir)
        close_keeping_errno(at);
    if (got == 0)
        errno = ENOENT;
    return -1;
}

int xi_beneath_open(int dir, const char *path, int flags, mode_t mode)
{
    struct open_how how = {.flags = (uint64_t)(unsigned)(flags | O_CLOEXEC),
                           .mode = flags & (O_CREAT | __O_TMPFILE) ? mode : 0,
                           .resolve =
                               RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS};

    if (path[0] == '/') {
        errno = EXDEV;
        return -1;
    }
    int fd = seen((int)syscall(SYS_openat2, dir, path, &how, sizeof how));
    if (fd < 0 && (errno == ENOSYS || errno == EPERM))
        return xi_beneath_open_by_segments(dir, path, flags, mode);
    return fd;
}

int xi_beneath_mkdirs(int dir, const char *path, mode_t mode)
{
    char name[NAME_MAX + 1];
    int at = dir, got;

    if (path[0] == '/') {
        errno = EXDEV;
        return -1;
    }
    while ((got = next_segment(&path, name)) > 0) {
        int made = mkdirat(at, name, mode);
        int fd = made == 0 || errno == EEXIST
                     ? open_seen(at, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, 0)
                     : -1;
        if (at != dir)
            close_keeping_errno(at);
        if (fd < 0)
            return -1;
        at = fd;
    }
    if (at != dir)
        close_keeping_errno(at);
    return got;
}

int xi_path_mkdirs(const char *path, mode_t mode)
{
    char part[PATH_MAX];
    size_t n = strlen(path);

    if (n == 0 || n >= sizeof part) {
        errno = n == 0 ? ENOENT : ENAMETOOLONG;
        return -1;
    }
    for (size_t i = 1; i <= n; i++) {
        if (path[i] != '/' && path[i] != '\0')
            continue;
        memcpy(part, path, i);
        part[i] = '\0';
        if (mkdir(part, mode) != 0 && errno != EEXIST)
            return -1;
    }
    struct stat st;
    if (stat(path, &st) != 0)
        return -1;
    errno = ENOTDIR;
    return S_ISDIR(st.st_mode) ? 0 : -1;
}

/* Directories from the top to where the walk is; each DIR owns its descriptor. */
struct walk {
    DIR *dirs[XI_TREE_DEPTH_MAX];
    char names[XI_TREE_DEPTH_MAX][NAME_MAX + 1]; /* of dirs[i] in its parent */
    int depth;
};

/* Whoever made the directory may have taken its permissions away. */
static int open_dir_to_empty(int parent, const char *name)
{
    const int flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
    int fd = open_seen(parent, name, flags, 0);

    if (fd < 0 && errno == EACCES && fchmodat(parent, name, 0700, 0) == 0)
        fd = open_seen(parent, name, flags, 0);
    if (fd >= 0)
        (void)fchmod(fd, 0700);
    return fd;
}

static int walk_enter(struct walk *w, int parent, const char *name)
{
    if (w->depth == XI_TREE_DEPTH_MAX) {
        errno = ELOOP;
        return -1;
    }
    int fd = open_dir_to_empty(parent, name);
    if (fd < 0)
        return -1;
    DIR *d = fdopendir(fd);
    if (d == NULL) {
        close_keeping_errno(fd);
        return -1;
    }
    size_t n = strlen(name);
    memcpy(w->names[w->depth], name, n < NAME_MAX ? n : NAME_MAX);
    w->names[w->depth][n < NAME_MAX ? n : NAME_MAX] = '\0';
    w->dirs[w->depth++] = d;
    return 0;
}

/* One entry of the deepest directory: removed, entered, or (none left) the directory removed. */
static int walk_step(struct walk *w, int top)
{
    DIR *d = w->dirs[w->depth - 1];

    errno = 0;
    struct dirent *e = readdir(d);
    if (e == NULL) {
        if (errno != 0)
            return -1;
        (void)closedir(d);
        w->depth--;
        int parent = w->depth > 0 ? dirfd(w->dirs[w->depth - 1]) : top;
        return unlinkat(parent, w->names[w->depth], AT_REMOVEDIR);
    }
    if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
        return 0;
    if (unlinkat(dirfd(d), e->d_name, 0) == 0 || errno == ENOENT)
        return 0;
    return errno == EISDIR || errno == EPERM ? walk_enter(w, dirfd(d), e->d_name) : -1;
}

int xi_tree_remove(int dir, const char *name)
{
    struct walk w = {.depth = 0};
    int rc = 0;

    if (unlinkat(dir, name, 0) == 0 || errno == ENOENT)
        return 0;
    if (errno != EISDIR && errno != EPERM)
        return -1;
    rc = walk_enter(&w, dir, name);
    while (rc == 0 && w.depth > 0)
        rc = walk_step(&w, dir);
    int saved = errno;
    while (w.depth > 0)
        (void)closedir(w.dirs[--w.depth]);
    errno = saved;
    return rc;
}

int xi_fd_write_all(int fd, const void *data, size_t bytes)
{
    const unsigned char *p = data;

    while (bytes > 0) {
        ssize_t n = write(fd, p, bytes);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -1;
        p += n;
        bytes -= (size_t)n;
    }
    return 0;
}

int xi_fd_read_start(int fd, void *dst, size_t cap, size_t *ret_bytes, int *ret_more)
{
    unsigned char *p = dst, probe;
    size_t have = 0;

    for (;;) {
        int full = have == cap;
        ssize_t n =
            full ? pread(fd, &probe, 1, (off_t)have) : pread(fd, p + have, cap - have, (off_t)have);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -1;
        if (n == 0 || full) {
            *ret_bytes = have;
            *ret_more = n > 0;
            return 0;
        }
        have += (size_t)n;
    }
}

int xi_beneath_flush_dir(int dir, const char *path)
{
    int fd = xi_beneath_open(dir, path, O_RDONLY | O_DIRECTORY, 0);

    if (fd < 0)
        return -1;
    int rc = fsync(fd);
    close_keeping_errno(fd);
    return rc;
}

int xi_fd_lock(int fd)
{
    int rc;

    do
        rc = flock(fd, LOCK_EX | LOCK_NB);
    while (rc != 0 && errno == EINTR);
    return rc;
}

int xi_fd_free_bytes(int fd, uint64_t *ret)
{
    struct statvfs v;

    if (fstatvfs(fd, &v) != 0)
        return -1;
    *ret = (uint64_t)v.f_bavail * v.f_frsize;
    return 0;
}
