/* rates.h: how fast counters grow, over the last seconds. The counters are the hot path's; they
 * are looked at once a second. Loop thread. */
#ifndef XI_DAEMON_CORE_RATES_H
#define XI_DAEMON_CORE_RATES_H

#include <stdint.h>

#define XI_RATE_SAMPLES 6 /* a second apart: five seconds */

struct xi_rate {
    uint64_t at_ms[XI_RATE_SAMPLES], done[XI_RATE_SAMPLES], busy_ns[XI_RATE_SAMPLES];
    uint32_t n; /* samples so far; the last one is at (n - 1) % XI_RATE_SAMPLES */
};

/* now_ms is monotonic. A counter that went back begins anew. */
void xi_rate_sample(struct xi_rate *r, uint64_t now_ms, uint64_t done, uint64_t busy_ns);
/* XI_UNKNOWN until there are two samples. */
double xi_rate_done_per_s(const struct xi_rate *r);
double xi_rate_busy_ms_per_s(const struct xi_rate *r);

struct xi_sessions;
struct xi_tenants;
/* Of every session and every tenant. */
void xi_rates_sample(struct xi_sessions *sessions, struct xi_tenants *tenants, uint64_t now_ms);

#endif
