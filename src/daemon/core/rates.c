#include "daemon/core/rates.h"

#include "daemon/core/resource_monitor.h"
#include "daemon/core/session_manager.h"
#include "daemon/core/tenants.h"

void xi_rate_sample(struct xi_rate *r, uint64_t now_ms, uint64_t done, uint64_t busy_ns)
{
    unsigned last = (r->n + XI_RATE_SAMPLES - 1) % XI_RATE_SAMPLES;

    if (r->n > 0 && (now_ms < r->at_ms[last] || done < r->done[last] || busy_ns < r->busy_ns[last]))
        r->n = 0;
    unsigned next = r->n % XI_RATE_SAMPLES;
    r->at_ms[next] = now_ms;
    r->done[next] = done;
    r->busy_ns[next] = busy_ns;
    if (++r->n == 2 * XI_RATE_SAMPLES)
        r->n = XI_RATE_SAMPLES; /* the same place in the ring */
}

static double per_s(const struct xi_rate *r, const uint64_t *values)
{
    unsigned last = (r->n + XI_RATE_SAMPLES - 1) % XI_RATE_SAMPLES;
    unsigned first = r->n < XI_RATE_SAMPLES ? 0 : r->n % XI_RATE_SAMPLES;

    if (r->n < 2 || r->at_ms[last] == r->at_ms[first])
        return XI_UNKNOWN;
    return (double)(values[last] - values[first]) * 1e3 /
           (double)(r->at_ms[last] - r->at_ms[first]);
}

double xi_rate_done_per_s(const struct xi_rate *r)
{
    return per_s(r, r->done);
}

double xi_rate_busy_ms_per_s(const struct xi_rate *r)
{
    double ns = per_s(r, r->busy_ns);

    return ns < 0 ? XI_UNKNOWN : ns / 1e6;
}

void xi_rates_sample(struct xi_sessions *sessions, struct xi_tenants *tenants, uint64_t now_ms)
{
    struct xi_tenant *t;

    for (struct xi_session *s = xi_sessions_each(sessions, NULL); s != NULL;
         s = xi_sessions_each(sessions, s))
        xi_rate_sample(&s->rate, now_ms, s->stats.ok, s->stats.device_ns);
    for (uint32_t i = 0; (t = xi_tenants_at(tenants, i)) != NULL; i++)
        xi_rate_sample(&t->rate, now_ms, t->completed, t->device_ns);
}
