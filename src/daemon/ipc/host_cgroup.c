/* A host's own control group, where the daemon may make some: else rlimits alone hold it. */
#include <stdio.h>

#include "base/log.h"
#include "daemon/ipc/host_impl.h"

void xi_host_confine(struct xi_host *host, const struct xi_host_spec *spec)
{
    struct xi_cgroup_limits limits = {.memory_bytes = spec->memory_max_bytes,
                                      .cpu_weight = spec->cpu_weight};
    struct xi_err err;
    int failed;

    host->cgroups = spec->cgroups;
    if (host->cgroups == NULL || host->cgroups->dir < 0)
        return;
    (void)snprintf(host->cgroup_name, sizeof(host->cgroup_name), "%d", host->pid);
    if (xi_cgroup_make(host->cgroups, host->cgroup_name, &limits, &host->cgroup, &err) != XI_OK) {
        xi_log(XI_WARN, "host.unconfined", "host=%s why=%s", host->label, err.msg);
        return;
    }
    failed = xi_cgroup_enter(host->cgroup, host->pid);
    if (failed != 0) {
        xi_log(XI_WARN, "host.unconfined", "host=%s why=errno %d", host->label, failed);
        xi_cgroup_end(host->cgroups, host->cgroup_name, &host->cgroup);
    }
}

void xi_host_limit_memory(struct xi_host *host, uint64_t bytes)
{
    struct xi_cgroup_limits limits = {.memory_bytes = bytes};

    if (host->cgroup >= 0 && host->cgroups->memory && bytes > 0)
        (void)xi_cgroup_limit(host->cgroup, &limits);
}

void xi_host_unconfine(struct xi_host *host, struct xi_host_exit *why)
{
    if (host->cgroup < 0)
        return;
    if (xi_cgroup_oom_kills(host->cgroup) > 0)
        (void)snprintf(why->reason, sizeof(why->reason),
                       "was ended by the kernel: it took more memory than its limit");
    xi_cgroup_end(host->cgroups, host->cgroup_name, &host->cgroup);
}
