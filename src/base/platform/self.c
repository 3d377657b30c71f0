#define _GNU_SOURCE
#include "base/platform/self.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

void xi_self_protect(void)
{
    (void)prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
}

void xi_self_expendable(void)
{
    int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

    if (fd < 0)
        return;
    (void)!write(fd, "800", 3);
    (void)close(fd);
}

uint64_t xi_self_raise_fds(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return 0;
    if (limit.rlim_cur < limit.rlim_max) {
        struct rlimit more = {.rlim_cur = limit.rlim_max, .rlim_max = limit.rlim_max};

        if (setrlimit(RLIMIT_NOFILE, &more) == 0)
            limit.rlim_cur = limit.rlim_max;
    }
    return limit.rlim_cur;
}

void xi_self_step_back(int steps)
{
    id_t self = (id_t)syscall(SYS_gettid);
    int now = getpriority(PRIO_PROCESS, self);

    (void)setpriority(PRIO_PROCESS, self, now + steps);
}

void xi_self_nice(int nice)
{
    (void)setpriority(PRIO_PROCESS, 0,
                      nice); /* 0: this thread, the one that a sandbox lets us ask */
}

/* The kernel's struct sched_attr, first version; the C library has none. */
struct sched_attr_v0 {
    uint32_t size, policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t runtime_ns, deadline_ns, period_ns;
};

void xi_self_go_first(void)
{
    struct sched_attr_v0 attr = {.size = sizeof(attr)};

    (void)setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), -XI_NICE_NORMAL);
    if (syscall(SYS_sched_getattr, 0, &attr, sizeof(attr), 0) != 0)
        return;
    attr.flags |= 1;          /* SCHED_FLAG_RESET_ON_FORK: for this thread alone */
    attr.runtime_ns = 100000; /* the shortest there is */
    (void)syscall(SYS_sched_setattr, 0, &attr, 0);
}

uint32_t xi_self_cores(void)
{
    cpu_set_t set;

    return sched_getaffinity(0, sizeof(set), &set) == 0 ? (uint32_t)CPU_COUNT(&set) : 0;
}

int xi_self_core(void)
{
    return sched_getcpu();
}

void xi_self_move_to(int core)
{
    static _Thread_local cpu_set_t any;
    cpu_set_t one;

    if (core < 0 || core >= CPU_SETSIZE || core == sched_getcpu())
        return;
    if (CPU_COUNT(&any) == 0 && sched_getaffinity(0, sizeof(any), &any) != 0)
        return;
    CPU_ZERO(&one);
    CPU_SET((unsigned)core, &one);
    if (sched_setaffinity(0, sizeof(one), &one) == 0)
        (void)sched_setaffinity(0, sizeof(any), &any);
}
