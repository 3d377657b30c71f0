/* isolation.h: who shares a host process with whom. Pure. */
#ifndef XI_DAEMON_CORE_ISOLATION_H
#define XI_DAEMON_CORE_ISOLATION_H

#include "daemon/core/session_manager.h"

/* A host that costs its device no more than this is each session's own. */
#define XI_CONTEXT_SMALL_MAX (64 * XI_MIB)
/* Of a device's memory, what the contexts of all hosts may take before all share one. */
#define XI_CONTEXTS_PERCENT 10u

struct xi_isolation_facts {
    enum xi_isolation asked; /* XI_ISOLATE_AUTO: nothing was */
    const char *engine, *device;
    int exclusive;          /* the engine says that one process may hold the device */
    uint64_t context_bytes; /* what a host costs on the device before any model */
    uint64_t device_bytes;  /* its memory; 0: unknown */
    uint32_t other_hosts;   /* on the device; without the one that this tenant would join */
};

/* Asking for less than a device demands was refused before (variants.h). The reason is one
 * sentence with the figures. */
enum xi_isolation xi_isolation_choose(const struct xi_isolation_facts *facts, char ret_reason[160]);

#endif
