#define _GNU_SOURCE
#include "base/platform/cgroup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/platform/file.h"
#include "base/platform/process.h"

#define CHILD "host-"

static int write_file(int dir, const char *name, const char *text)
{
    int fd = openat(dir, name, O_WRONLY | O_CLOEXEC | O_NOFOLLOW), failed;

    if (fd < 0)
        return errno;
    failed = write(fd, text, strlen(text)) < 0 ? errno : 0;
    xi_fd_close(&fd);
    return failed;
}

static int read_file(int dir, const char *name, char *dst, size_t room)
{
    int fd = openat(dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW), more;
    size_t n = 0;

    dst[0] = '\0';
    if (fd < 0)
        return -1;
    int failed = xi_fd_read_start(fd, dst, room - 1, &n, &more);
    xi_fd_close(&fd);
    dst[failed == 0 ? n : 0] = '\0';
    return failed;
}

static int has_word(const char *words, const char *word)
{
    size_t n = strlen(word);

    for (const char *at = words; (at = strstr(at, word)) != NULL; at += n)
        if ((at == words || at[-1] == ' ') && (at[n] == ' ' || at[n] == '\n' || at[n] == '\0'))
            return 1;
    return 0;
}

/* ---- our own group ---- */

/* Where the v2 hierarchy is mounted: the line of mountinfo whose type is cgroup2. */
static int find_mount(char *ret, size_t room)
{
    char line[1024], path[512];
    FILE *f = fopen("/proc/self/mountinfo", "re");
    int found = 0;

    while (f != NULL && !found && fgets(line, sizeof line, f) != NULL) {
        const char *dash = strstr(line, " - cgroup2 ");
        if (dash == NULL || sscanf(line, "%*s %*s %*s %*s %511s", path) != 1)
            continue;
        found = snprintf(ret, room, "%s", path) < (int)room;
    }
    if (f != NULL)
        (void)fclose(f);
    return found;
}

/* The path of the line "0::PATH". */
static int find_group(char *ret, size_t room)
{
    char line[1024];
    FILE *f = fopen("/proc/self/cgroup", "re");
    int found = 0;

    while (f != NULL && !found && fgets(line, sizeof line, f) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        if (strncmp(line, "0::/", 4) == 0)
            found = snprintf(ret, room, "%s", line + 3) < (int)room;
    }
    if (f != NULL)
        (void)fclose(f);
    return found;
}

/* Nobody but this process in it: only then may it be made an inner one. */
static int alone(int dir)
{
    char text[256], mine[32];

    (void)snprintf(mine, sizeof mine, "%d\n", (int)getpid());
    return read_file(dir, "cgroup.procs", text, sizeof text) == 0 &&
           (text[0] == '\0' || strcmp(text, mine) == 0);
}

static void sweep(const struct xi_cgroups *g)
{
    int copy = fcntl(g->dir, F_DUPFD_CLOEXEC, 0);
    DIR *folder = copy >= 0 ? fdopendir(copy) : NULL;
    const struct dirent *e;

    while (folder != NULL && (e = readdir(folder)) != NULL)
        if (strncmp(e->d_name, CHILD, strlen(CHILD)) == 0)
            (void)unlinkat(g->dir, e->d_name, AT_REMOVEDIR); /* one with processes in it stays */
    if (folder != NULL)
        (void)closedir(folder);
    else
        xi_fd_close(&copy);
}

static int missing(struct xi_cgroups *g, const char *what, int err_number)
{
    (void)snprintf(g->why, sizeof g->why, "%s%s%s", what, err_number != 0 ? ": " : "",
                   err_number != 0 ? strerror(err_number) : "");
    return -1;
}

/* This process leaves for a leaf, unless it stands in one below already. */
static int make_inner(struct xi_cgroups *g)
{
    char text[32];
    int leaf, failed;

    if (!alone(g->dir))
        return missing(g, "other processes are in the daemon's own group", 0);
    if (mkdirat(g->dir, "daemon", 0755) != 0 && errno != EEXIST)
        return missing(g, "the daemon may not make groups", errno);
    leaf = openat(g->dir, "daemon", O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    (void)snprintf(text, sizeof text, "%d", (int)getpid());
    failed = leaf < 0 ? errno : write_file(leaf, "cgroup.procs", text);
    xi_fd_close(&leaf);
    return failed != 0 ? missing(g, "the daemon may not move into its own leaf", failed) : 0;
}

void xi_cgroups_open_at(struct xi_cgroups *ret, const char *dir)
{
    char controllers[256];

    *ret = (struct xi_cgroups){.dir = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
    if (ret->dir < 0) {
        (void)missing(ret, "the daemon's own group cannot be opened", errno);
        return;
    }
    (void)read_file(ret->dir, "cgroup.controllers", controllers, sizeof controllers);
    if (!has_word(controllers, "memory") && !has_word(controllers, "cpu"))
        (void)missing(ret, "no memory or cpu controller is handed down to the daemon's group", 0);
    else if (make_inner(ret) == 0) {
        ret->memory = has_word(controllers, "memory") &&
                      write_file(ret->dir, "cgroup.subtree_control", "+memory") == 0;
        ret->cpu = has_word(controllers, "cpu") &&
                   write_file(ret->dir, "cgroup.subtree_control", "+cpu") == 0;
        if (!ret->memory)
            (void)missing(ret, "the memory controller cannot be switched on", 0);
    }
    if (ret->memory || ret->cpu)
        sweep(ret);
    else
        xi_fd_close(&ret->dir);
}

void xi_cgroups_open(struct xi_cgroups *ret)
{
    char mount[512], group[512], path[1100];

    *ret = (struct xi_cgroups){.dir = -1};
    if (!find_mount(mount, sizeof mount) || !find_group(group, sizeof group)) {
        (void)missing(ret, "this system has no control groups of version 2", 0);
        return;
    }
    (void)snprintf(path, sizeof path, "%s%s", mount, strcmp(group, "/") == 0 ? "" : group);
    xi_cgroups_open_at(ret, path);
}

void xi_cgroups_close(struct xi_cgroups *g)
{
    xi_fd_close(&g->dir);
}

/* ---- a child's ---- */

int xi_cgroup_limit(int dir, const struct xi_cgroup_limits *limits)
{
    char text[32];
    int failed = 0;

    if (limits->memory_bytes > 0) {
        (void)snprintf(text, sizeof text, "%llu", (unsigned long long)limits->memory_bytes);
        failed = write_file(dir, "memory.max", text);
        (void)write_file(dir, "memory.oom.group", "1"); /* all of it goes, or none */
        (void)write_file(dir, "memory.swap.max", "0");  /* a model in swap serves nobody */
    }
    if (limits->cpu_weight > 0) {
        (void)snprintf(text, sizeof text, "%u", limits->cpu_weight);
        (void)write_file(dir, "cpu.weight", text); /* nice levels hold without it */
    }
    return failed;
}

enum xi_rc xi_cgroup_make(const struct xi_cgroups *g, const char *name,
                          const struct xi_cgroup_limits *limits, int *ret_dir, struct xi_err *err)
{
    struct xi_cgroup_limits possible = {.memory_bytes = g->memory ? limits->memory_bytes : 0,
                                        .cpu_weight = g->cpu ? limits->cpu_weight : 0};
    char folder[96];
    int dir, failed;

    (void)snprintf(folder, sizeof folder, CHILD "%s", name);
    if (mkdirat(g->dir, folder, 0755) != 0 && errno != EEXIST)
        return xi_fail(err, XI_EIO, "no control group for a host: %s", strerror(errno));
    dir = openat(g->dir, folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    failed = dir < 0 ? errno : xi_cgroup_limit(dir, &possible);
    if (failed != 0) {
        xi_fd_close(&dir);
        (void)unlinkat(g->dir, folder, AT_REMOVEDIR);
        return xi_fail(err, XI_EIO, "no limits for a host: %s", strerror(failed));
    }
    *ret_dir = dir;
    return XI_OK;
}

int xi_cgroup_enter(int dir, pid_t pid)
{
    char text[32];

    (void)snprintf(text, sizeof text, "%d", (int)pid);
    return write_file(dir, "cgroup.procs", text);
}

uint64_t xi_cgroup_oom_kills(int dir)
{
    char text[512];
    const char *at;

    if (read_file(dir, "memory.events", text, sizeof text) != 0)
        return 0;
    at = strstr(text, "oom_kill ");
    return at != NULL ? strtoull(at + strlen("oom_kill "), NULL, 10) : 0;
}

void xi_cgroup_end(const struct xi_cgroups *g, const char *name, int *dir)
{
    char folder[96];

    if (*dir < 0)
        return;
    (void)snprintf(folder, sizeof folder, CHILD "%s", name);
    (void)write_file(*dir, "cgroup.kill", "1");
    xi_fd_close(dir);
    (void)unlinkat(g->dir, folder, AT_REMOVEDIR);
}
