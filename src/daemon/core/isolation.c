#include "daemon/core/isolation.h"

#include <stdarg.h>
#include <stdio.h>

static enum xi_isolation say(char *reason, enum xi_isolation kind, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static enum xi_isolation say(char *reason, enum xi_isolation kind, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    (void)vsnprintf(reason, 160, format, args);
    va_end(args);
    return kind;
}

static unsigned long long mib(uint64_t bytes)
{
    return (unsigned long long)((bytes + XI_MIB / 2) / XI_MIB);
}

/* Contexts of so many hosts are within their part of the device's memory. */
static int fit(const struct xi_isolation_facts *f, uint64_t hosts)
{
    return f->context_bytes <= f->device_bytes / 100u * XI_CONTEXTS_PERCENT / hosts;
}

static enum xi_isolation by_memory(const struct xi_isolation_facts *f, char *reason)
{
    uint64_t hosts = (uint64_t)f->other_hosts + 1;

    if (f->device_bytes == 0)
        return say(reason, XI_ISOLATE_TENANT,
                   "context of %s %s costs ~%llu MiB, over 64 MiB; its memory is unknown",
                   f->engine, f->device, mib(f->context_bytes));
    /* Where a second tenant would have to share anyway, the first does so from the beginning. */
    if (!fit(f, 2))
        return say(reason, XI_ISOLATE_DEVICE,
                   "two contexts of ~%llu MiB are over 10 %% of the %llu MiB of %s %s",
                   mib(f->context_bytes), mib(f->device_bytes), f->engine, f->device);
    if (!fit(f, hosts))
        return say(reason, XI_ISOLATE_DEVICE,
                   "%llu contexts of ~%llu MiB are over 10 %% of the %llu MiB of %s %s",
                   (unsigned long long)hosts, mib(f->context_bytes), mib(f->device_bytes),
                   f->engine, f->device);
    return say(reason, XI_ISOLATE_TENANT,
               "%llu context%s of ~%llu MiB, at most 10 %% of the %llu MiB of %s %s",
               (unsigned long long)hosts, hosts == 1 ? "" : "s", mib(f->context_bytes),
               mib(f->device_bytes), f->engine, f->device);
}

enum xi_isolation xi_isolation_choose(const struct xi_isolation_facts *f, char ret_reason[160])
{
    if (f->exclusive)
        return say(ret_reason, XI_ISOLATE_DEVICE, "%s %s is exclusive: one process may hold it",
                   f->engine, f->device);
    if (f->asked != XI_ISOLATE_AUTO)
        return say(ret_reason, f->asked, "asked for; context of %s %s costs ~%llu MiB", f->engine,
                   f->device, mib(f->context_bytes));
    if (f->context_bytes <= XI_CONTEXT_SMALL_MAX)
        return say(ret_reason, XI_ISOLATE_SESSION,
                   "context of %s %s costs ~%llu MiB, at most 64 MiB", f->engine, f->device,
                   mib(f->context_bytes));
    return by_memory(f, ret_reason);
}
