#define _GNU_SOURCE
#include "base/platform/shared.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define FOLDER "/dev/shm/"

uint64_t xi_page_bytes(void)
{
    return (uint64_t)sysconf(_SC_PAGESIZE);
}

int xi_shared_key(const char *key, const char **ret)
{
    const char *name = key[0] == '/' ? key + 1 : key;
    size_t n = strlen(name);

    if (n == 0 || n > XI_SHARED_KEY_MAX || strcmp(name, ".") == 0 || strcmp(name, "..") == 0 ||
        strncmp(name, "sem.", 4) == 0)
        return -1;
    for (size_t i = 0; i < n; i++)
        if (name[i] == '/' || (unsigned char)name[i] < ' ' || name[i] == 0x7f)
            return -1;
    *ret = name;
    return 0;
}

static enum xi_rc cannot_open(int why, struct xi_err *err)
{
    switch (why) {
    case ENOENT:
        return xi_fail(err, XI_ENOENT, "there is no shared memory of that key");
    case EACCES:
    case EPERM:
        return xi_fail(err, XI_EFORBIDDEN, "the daemon may not open that shared memory");
    case EMFILE:
    case ENFILE:
        return xi_fail(err, XI_EFDS, "no descriptor for shared memory");
    default: /* ELOOP: a link; ENXIO: a pipe or a device */
        return xi_fail(err, XI_EINVAL, "that key is no shared memory");
    }
}

enum xi_rc xi_shared_stat(int fd, struct xi_shared_facts *ret, struct xi_err *err)
{
    struct stat st;

    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode))
        return xi_fail(err, XI_EINVAL, "that key is no shared memory");
    *ret = (struct xi_shared_facts){.bytes = (uint64_t)st.st_size,
                                    .device = (uint64_t)st.st_dev,
                                    .inode = (uint64_t)st.st_ino,
                                    .has_name = st.st_nlink > 0};
    return XI_OK;
}

enum xi_rc xi_shared_open(const char *key, int *ret_fd, struct xi_shared_facts *ret,
                          struct xi_err *err)
{
    char path[sizeof FOLDER + XI_SHARED_KEY_MAX];

    (void)snprintf(path, sizeof path, FOLDER "%s", key);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return cannot_open(errno, err);
    enum xi_rc rc = xi_shared_stat(fd, ret, err);
    if (rc != XI_OK) {
        (void)close(fd);
        return rc;
    }
    *ret_fd = fd;
    return XI_OK;
}

/* By the descriptor and not by its name, which may be another object's by now. */
enum xi_rc xi_shared_reopen(int fd, int writable, int *ret_fd, struct xi_err *err)
{
    char path[64];

    (void)snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    int again = open(path, (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (again < 0 && (errno == EACCES || errno == EPERM || errno == EROFS))
        return xi_fail(err, XI_EFORBIDDEN, "the daemon may not %s that shared memory",
                       writable ? "write to" : "read");
    if (again < 0)
        return cannot_open(errno, err);
    *ret_fd = again;
    return XI_OK;
}

static enum xi_rc too_short(struct xi_err *err)
{
    return xi_fail(err, XI_EREGION, "the shared memory became shorter than it was registered");
}

enum xi_rc xi_shared_read(int fd, uint64_t offset, void *ret, uint64_t bytes, struct xi_err *err)
{
    for (uint64_t done = 0; done < bytes;) {
        ssize_t n = pread(fd, (uint8_t *)ret + done, bytes - done, (off_t)(offset + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return too_short(err);
        done += (uint64_t)n;
    }
    return XI_OK;
}

/* It never makes the object longer: that memory would be ours to answer for. */
enum xi_rc xi_shared_write(int fd, uint64_t offset, const void *data, uint64_t bytes,
                           struct xi_err *err)
{
    struct xi_shared_facts facts;
    uint64_t end;

    if (__builtin_add_overflow(offset, bytes, &end) || xi_shared_stat(fd, &facts, err) != XI_OK ||
        end > facts.bytes)
        return too_short(err);
    for (uint64_t done = 0; done < bytes;) {
        ssize_t n = pwrite(fd, (const uint8_t *)data + done, bytes - done, (off_t)(offset + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return xi_fail(err, XI_EREGION, "there is no memory left behind the shared memory");
        done += (uint64_t)n;
    }
    return XI_OK;
}

enum xi_rc xi_shared_map(int fd, uint64_t offset, uint64_t bytes, enum xi_map_mode mode,
                         struct xi_map *ret, struct xi_err *err)
{
    int prot = mode == XI_MAP_READ ? PROT_READ : PROT_READ | PROT_WRITE;
    uint64_t end;

    if (bytes == 0 || offset % xi_page_bytes() != 0 || __builtin_add_overflow(offset, bytes, &end))
        return xi_fail(err, XI_EPROTO, "a window of no sane place");
    void *base = mmap(NULL, bytes, prot, MAP_SHARED, fd, (off_t)offset);
    if (base == MAP_FAILED)
        return xi_fail(err, xi_rc_errno(errno), "shared memory of %llu bytes: %s",
                       (unsigned long long)bytes, strerror(errno));
    *ret = (struct xi_map){.base = base, .bytes = bytes};
    return XI_OK;
}

/* ---- the guard ---- */

static struct {
    int (*find)(void *ctx, const void *address, struct xi_map *ret);
    void *ctx;
    uint64_t page;
} guard; /* set once, before any window is mapped */

static void die(int signo)
{
    struct sigaction act = {.sa_handler = SIG_DFL};

    (void)sigaction(signo, &act, NULL); /* what faulted faults again */
}

/* Shared and not private: it does not count against the limit on data. The engine's threads may
 * read with any instruction, so the page has to be there when this returns. */
static void on_fault(int signo, siginfo_t *info, void *context)
{
    struct xi_map map;
    int saved = errno;

    (void)context;
    if (info->si_addr == NULL || !guard.find(guard.ctx, info->si_addr, &map)) {
        die(signo);
        return;
    }
    uint64_t into = (uint64_t)((uint8_t *)info->si_addr - (uint8_t *)map.base);
    into -= into % guard.page;
    void *at = (uint8_t *)map.base + into;
    if (mmap(at, map.bytes - into, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED,
             -1, 0) == MAP_FAILED)
        die(signo);
    errno = saved;
}

enum xi_rc xi_shared_guard(int (*find)(void *ctx, const void *address, struct xi_map *ret),
                           void *ctx, struct xi_err *err)
{
    struct sigaction act = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_RESTART};

    (void)sigemptyset(&act.sa_mask);
    guard.find = find;
    guard.ctx = ctx;
    guard.page = xi_page_bytes();
    if (sigaction(SIGBUS, &act, NULL) != 0)
        return xi_fail(err, XI_EINTERNAL, "no handler for lost memory: %s", strerror(errno));
    return XI_OK;
}
