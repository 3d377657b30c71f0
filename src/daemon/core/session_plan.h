/* session_plan.h: dry runs. Loop thread. */
#ifndef XI_DAEMON_CORE_SESSION_PLAN_H
#define XI_DAEMON_CORE_SESSION_PLAN_H

#include "daemon/core/admission.h"
#include "daemon/core/session_manager.h"

/* What a load would do, for dry runs. */
struct xi_plan {
    char variant[64], engine[64], device[32], version[72];
    enum xi_isolation isolation;
    char isolation_reason[160];
    char skipped[512];                              /* variants that do not do here, and why */
    enum xi_memory_source figure;                   /* where needed_bytes comes from */
    uint64_t needed_bytes, free_bytes, limit_bytes; /* free and limit 0: no limit */
    struct xi_err verdict;                          /* XI_OK: it would be admitted */
    char evicts[256];                               /* names of those that would make room */
};
/* record is borrowed. ENOENGINE, EUNSUPPORTED, …: no variant does. That another session has the
 * name (unless the load is to replace it), or that there is no memory for the first variant, is the
 * plan's verdict. */
enum xi_rc xi_sessions_plan(struct xi_sessions *m, const char *digest,
                            const struct xi_package_record *record,
                            const struct xi_load_options *options, int replace, struct xi_plan *ret,
                            struct xi_err *err) XI_MUST_CHECK;

#endif
