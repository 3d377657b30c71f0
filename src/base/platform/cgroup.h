/* platform/cgroup.h: hard limits for child processes by control groups (v2), where this process may
 * make some: as root, in a container of its own, or as a systemd service with Delegate=yes. Where
 * it may not, callers go on without. Loop thread or start-up; short writes to a kernel file system.
 *
 * The kernel wants processes in leaves only, so this process moves itself into the leaf "daemon" of
 * its group first; it does so only where it is alone there. */
#ifndef XI_BASE_PLATFORM_CGROUP_H
#define XI_BASE_PLATFORM_CGROUP_H

#include <stdint.h>
#include <sys/types.h>

#include "base/status.h"

struct xi_cgroups {
    int dir;         /* of our own group; -1: none */
    int memory, cpu; /* may children be limited in it? */
    char why[160];   /* what is missing, in words; "" : nothing */
};

/* Finds this process's group, moves into its leaf, switches the controllers on for the children and
 * removes what a daemon before left there. Always succeeds: *ret says what there is. */
void xi_cgroups_open(struct xi_cgroups *ret);
/* The same in a directory that looks like one (tests); dir is borrowed as a path. */
void xi_cgroups_open_at(struct xi_cgroups *ret, const char *dir);
void xi_cgroups_close(struct xi_cgroups *g);

struct xi_cgroup_limits {
    uint64_t memory_bytes; /* 0: none; over it the kernel ends the group's processes */
    unsigned cpu_weight;   /* 1 to 10000, 100 is usual; 0: leave it */
};
/* A group for one child, named "host-<name>". *ret_dir is for the calls below. EIO with why. */
enum xi_rc xi_cgroup_make(const struct xi_cgroups *g, const char *name,
                          const struct xi_cgroup_limits *limits, int *ret_dir,
                          struct xi_err *err) XI_MUST_CHECK;
/* 0 or an errno. */
int xi_cgroup_enter(int dir, pid_t pid);
int xi_cgroup_limit(int dir, const struct xi_cgroup_limits *limits);
/* Times that the kernel ended a process of it for its memory; 0 where that is not counted. */
uint64_t xi_cgroup_oom_kills(int dir);
/* Kills what is in it, removes it, closes *dir (-1 is fine). One whose processes are not yet
 * reaped stays until the next xi_cgroups_open. */
void xi_cgroup_end(const struct xi_cgroups *g, const char *name, int *dir);

#endif
