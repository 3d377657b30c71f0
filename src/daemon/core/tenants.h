/* tenants.h: who asks. A tenant has a weight (its share of device time), quotas and counters. Loop
 * thread. Tenants come to be when they are first named and live as long as the service. */
#ifndef XI_DAEMON_CORE_TENANTS_H
#define XI_DAEMON_CORE_TENANTS_H

#include <stdint.h>

#include "base/limits.h"
#include "base/status.h"
#include "daemon/core/rates.h"

#define XI_TENANTS_MAX       1024
#define XI_TENANT_WEIGHT_MAX 1000

/* What an operator sets; zero: no limit. */
struct xi_tenant_limits {
    uint32_t weight;       /* 1 to XI_TENANT_WEIGHT_MAX; default 1 */
    uint64_t memory_bytes; /* that its sessions may reserve together */
    double rate_per_s;     /* requests; bursts of one second's worth, at least 1 */
    uint32_t queue_limit;  /* requests that wait, over all its sessions */
};

struct xi_tenant {
    char name[XI_NAME_MAX + 1];
    uint32_t index; /* 0, 1, …: for arrays beside */
    struct xi_tenant_limits limits;
    /* counters */
    uint64_t requests, completed, refused_quota, device_ns;
    uint64_t reserved_bytes; /* admission's */
    uint64_t state_bytes;    /* of its sequences */
    uint32_t queued, running, sessions;
    struct xi_rate rate; /* of completed and device_ns */
    /* the bucket of rate_per_s */
    double tokens;
    uint64_t tokens_at_ns;
};

struct xi_tenants;
struct xi_tenants *xi_tenants_new(void); /* NULL: memory is out. "default" is there */
void xi_tenants_free(struct xi_tenants *t);
/* Finds or makes. NULL: XI_TENANTS_MAX are known, or memory is out. */
struct xi_tenant *xi_tenants_get(struct xi_tenants *t, const char *name);
/* The index-th; NULL past the last. */
struct xi_tenant *xi_tenants_at(struct xi_tenants *t, uint32_t index);
/* EINVAL names what is wrong; nothing changes then. */
enum xi_rc xi_tenants_configure(struct xi_tenants *t, const char *name,
                                const struct xi_tenant_limits *limits,
                                struct xi_err *err) XI_MUST_CHECK;
/* Takes one request from the tenant's rate. EQUOTA; *ret_retry_s says when the next one may. */
enum xi_rc xi_tenant_take(struct xi_tenant *t, uint64_t now_ns, unsigned *ret_retry_s,
                          struct xi_err *err) XI_MUST_CHECK;

#endif
