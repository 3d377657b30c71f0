#define _GNU_SOURCE
#include "base/platform/self.h"

#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

void xi_self_protect(void)
{
    (void)prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
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
