#include "daemon/core/tenants.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/name.h"

#define RETRY_MAX_S 86400u

/* Few and long-lived: found by walking. They are allocated one by one, so pointers stay. */
struct xi_tenants {
    struct xi_tenant *all[XI_TENANTS_MAX];
    uint32_t n;
};

static struct xi_tenant *find(const struct xi_tenants *t, const char *name)
{
    uint32_t i;

    for (i = 0; i < t->n; i++) {
        if (strcmp(t->all[i]->name, name) == 0)
            return t->all[i];
    }
    return NULL;
}

struct xi_tenant *xi_tenants_get(struct xi_tenants *t, const char *name)
{
    struct xi_tenant *tenant = find(t, name);

    if (tenant != NULL || t->n >= XI_TENANTS_MAX)
        return tenant;
    tenant = calloc(1, sizeof(*tenant));
    if (tenant == NULL)
        return NULL;
    (void)snprintf(tenant->name, sizeof(tenant->name), "%s", name);
    tenant->index = t->n;
    tenant->limits.weight = 1;
    t->all[t->n++] = tenant;
    return tenant;
}

struct xi_tenants *xi_tenants_new(void)
{
    struct xi_tenants *t = calloc(1, sizeof(*t));

    if (t != NULL && xi_tenants_get(t, "default") == NULL) {
        free(t);
        return NULL;
    }
    return t;
}

void xi_tenants_free(struct xi_tenants *t)
{
    uint32_t i;

    if (t == NULL)
        return;
    for (i = 0; i < t->n; i++)
        free(t->all[i]);
    free(t);
}

struct xi_tenant *xi_tenants_at(struct xi_tenants *t, uint32_t index)
{
    return index < t->n ? t->all[index] : NULL;
}

enum xi_rc xi_tenants_configure(struct xi_tenants *t, const char *name,
                                const struct xi_tenant_limits *limits, struct xi_err *err)
{
    struct xi_tenant *tenant;
    enum xi_rc rc = xi_name_check(name, "tenant", err);

    if (rc != XI_OK)
        return rc;
    if (limits->weight < 1 || limits->weight > XI_TENANT_WEIGHT_MAX)
        return xi_fail(err, XI_EINVAL, "tenant %s: weight %u is not 1 to %d", name, limits->weight,
                       XI_TENANT_WEIGHT_MAX);
    if (!(limits->rate_per_s >= 0 && limits->rate_per_s <= 1e9))
        return xi_fail(err, XI_EINVAL, "tenant %s: a rate of %g per second makes no sense", name,
                       limits->rate_per_s);
    tenant = xi_tenants_get(t, name);
    if (tenant == NULL)
        return xi_fail(err, XI_EAGAIN, "%u tenants are known, %d may be", t->n, XI_TENANTS_MAX);
    tenant->limits = *limits;
    tenant->tokens_at_ns = 0; /* the bucket is full again */
    return XI_OK;
}

enum xi_rc xi_tenant_take(struct xi_tenant *t, uint64_t now_ns, unsigned *ret_retry_s,
                          struct xi_err *err)
{
    double rate = t->limits.rate_per_s, most = rate < 1 ? 1 : rate, wait_s;

    if (rate == 0)
        return XI_OK;
    if (t->tokens_at_ns == 0)
        t->tokens = most;
    else if (now_ns > t->tokens_at_ns)
        t->tokens += rate * (double)(now_ns - t->tokens_at_ns) / 1e9;
    if (t->tokens > most)
        t->tokens = most;
    t->tokens_at_ns = now_ns;
    if (t->tokens >= 1) {
        t->tokens -= 1;
        return XI_OK;
    }
    wait_s = (1 - t->tokens) / rate; /* of a tiny rate more than a number holds */
    t->refused_quota++;
    *ret_retry_s = wait_s < RETRY_MAX_S ? (unsigned)wait_s + 1 : RETRY_MAX_S;
    (void)xi_fail(err, XI_EQUOTA, "tenant %s may send %g requests a second", t->name, rate);
    return xi_hint(err, "send less, or ask the operator for a higher rate");
}
