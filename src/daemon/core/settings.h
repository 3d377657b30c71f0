/* settings.h: what an operator may change while the daemon runs, read from its JSON form: the
 * part of the configuration file, the body of /v1/control/configure and what is kept over a
 * restart have the same one. Pure. */
#ifndef XI_DAEMON_CORE_SETTINGS_H
#define XI_DAEMON_CORE_SETTINGS_H

#include <jansson.h>

#include "base/limits.h"
#include "base/log.h"
#include "daemon/core/tenants.h"

#define XI_MAX_DELAY_US_LIMIT 10000000u

struct xi_settings_tenant {
    char name[XI_NAME_MAX + 1];
    struct xi_tenant_limits limits;
};

/* How requests for one model share a run. */
struct xi_settings_model {
    char name[XI_NAME_MAX + 1];
    int has_batch, has_delay;
    uint32_t max_batch, max_delay_us;
};

struct xi_settings {
    int has_level, has_memory;
    enum xi_log_level level;
    uint64_t memory_bytes;
    struct xi_settings_tenant *tenants; /* n_tenants; owned */
    struct xi_settings_model *models;   /* n_models; owned */
    uint32_t n_tenants, n_models;
};

/* {"log_level", "memory", "tenants": {NAME: {"weight", "memory", "rate", "queue"}}, "models":
 * {NAME: {"max_batch", "max_delay_ms"}}}; every key may be missing, an unknown one is refused with
 * the nearest. whole: the memory that "80%" is a part of. EINVAL names the path; ret is then empty.
 */
enum xi_rc xi_settings_read(const json_t *doc, uint64_t whole, struct xi_settings *ret,
                            struct xi_err *err) XI_MUST_CHECK;
void xi_settings_fini(struct xi_settings *s);
/* JSON Merge Patch (RFC 7396): null removes. target is changed; 0, or -1: memory is out. */
int xi_settings_merge(json_t *target, const json_t *patch);

#endif
