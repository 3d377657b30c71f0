/* landlock.c: which files a host can reach. The kernel's documentation: userspace-api/landlock. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "host/sandbox.h"

/* Rights and fields that came after the oldest header we build with (numbers are the kernel's). */
#define FS_REFER    (1ull << 13) /* version 2 */
#define FS_TRUNCATE (1ull << 14) /* 3 */
#define FS_IOCTL    (1ull << 15) /* 5 */
#define NET_TCP     3ull         /* 4: bind and connect */
#define SCOPE_ALL   3ull         /* 6: abstract sockets and signals */

struct ruleset {
    uint64_t fs, net, scoped;
};

#define FS_READ (LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR)
#define FS_WRITE                                                                                   \
    (LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_REMOVE_FILE |                              \
     LANDLOCK_ACCESS_FS_REMOVE_DIR | LANDLOCK_ACCESS_FS_MAKE_REG | LANDLOCK_ACCESS_FS_MAKE_DIR |   \
     FS_TRUNCATE)

/* What the C library, the loader and the engines look at on any machine. */
static const char *const system_dirs[] = {
    "/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache",
};
static const char *const system_info[] = {
    "/proc/self",          "/proc/cpuinfo",     "/proc/meminfo", "/proc/stat",
    "/proc/sys/vm",        "/proc/filesystems", "/proc/cgroups", "/proc/mounts",
    "/sys/devices/system", "/sys/fs/cgroup",    "/dev/null",     "/dev/urandom",
};
enum { N_DIRS = sizeof system_dirs / sizeof *system_dirs };
enum { N_INFO = sizeof system_info / sizeof *system_info };

int xi_landlock_version(void)
{
    long v = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);

    return v > 0 ? (int)v : 0;
}

static struct ruleset handled(int version)
{
    struct ruleset r = {.fs = (1ull << 13) - 1};

    if (version >= 2)
        r.fs |= FS_REFER;
    if (version >= 3)
        r.fs |= FS_TRUNCATE;
    if (version >= 5)
        r.fs |= FS_IOCTL;
    if (version >= 4)
        r.net = NET_TCP;
    if (version >= 6)
        r.scoped = SCOPE_ALL;
    return r;
}

/* Missing paths are fine. A rule on a file may not name rights of directories. */
static void allow_fd(int ruleset_fd, int fd, uint64_t rights)
{
    struct stat st;
    struct landlock_path_beneath_attr rule = {.parent_fd = fd, .allowed_access = rights};

    if (fstat(fd, &st) == 0 && !S_ISDIR(st.st_mode))
        rule.allowed_access &= LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_WRITE_FILE |
                               LANDLOCK_ACCESS_FS_EXECUTE | FS_TRUNCATE;
    (void)syscall(SYS_landlock_add_rule, ruleset_fd, LANDLOCK_RULE_PATH_BENEATH, &rule, 0);
}

static void allow(int ruleset_fd, const char *path, uint64_t rights)
{
    int fd = path[0] ? open(path, O_PATH | O_CLOEXEC) : -1;

    if (fd < 0)
        return;
    allow_fd(ruleset_fd, fd, rights);
    (void)close(fd);
}

static void allow_all(int ruleset_fd, const struct xi_sandbox *s, uint64_t fs, int allow_write)
{
    for (size_t i = 0; i < N_DIRS; i++)
        allow(ruleset_fd, system_dirs[i], FS_READ | LANDLOCK_ACCESS_FS_EXECUTE);
    for (size_t i = 0; i < N_INFO; i++)
        allow(ruleset_fd, system_info[i], FS_READ);
    for (size_t i = 0; i < s->n_read_dirs; i++)
        allow(ruleset_fd, s->read_dirs[i], FS_READ | LANDLOCK_ACCESS_FS_EXECUTE);
    for (size_t i = 0; i < s->n_write_dirs; i++)
        allow(ruleset_fd, s->write_dirs[i], (FS_READ | (allow_write ? FS_WRITE : 0)) & fs);
    if (s->write_fd >= 0)
        allow_fd(ruleset_fd, s->write_fd, (FS_READ | (allow_write ? FS_WRITE : 0)) & fs);
}

enum xi_rc xi_landlock_confine(const struct xi_sandbox *s, int allow_write, struct xi_err *err)
{
    int version = xi_landlock_version();
    struct ruleset attr = handled(version);
    size_t bytes = version >= 6 ? 24 : version >= 4 ? 16 : 8;

    if (version == 0)
        return XI_OK; /* the summary says so */
    int fd = (int)syscall(SYS_landlock_create_ruleset, &attr, bytes, 0);
    if (fd < 0)
        return xi_fail(err, XI_EHOST, "sandbox: Landlock: %s", strerror(errno));
    allow_all(fd, s, attr.fs, allow_write);
    long failed = syscall(SYS_landlock_restrict_self, fd, 0);
    int saved = errno;
    (void)close(fd);
    if (failed)
        return xi_fail(err, XI_EHOST, "sandbox: Landlock: %s", strerror(saved));
    return XI_OK;
}
