/* stats.h: counters and latency histograms. Loop thread; recording never allocates. */
#ifndef XI_DAEMON_CORE_STATS_H
#define XI_DAEMON_CORE_STATS_H

#include <stdint.h>

/* Log-linear buckets, 8 per power of two: at most 12.5 % wide, 1 µs to about an hour. */
#define XI_HIST_BUCKETS 256

struct xi_hist {
    uint64_t count, sum_us, max_us;
    uint64_t buckets[XI_HIST_BUCKETS];
};

void xi_hist_add(struct xi_hist *h, uint64_t us);
void xi_hist_add_n(struct xi_hist *h, uint64_t us, uint64_t n);  /* n equal samples at once */
uint64_t xi_hist_quantile_us(const struct xi_hist *h, double q); /* upper edge; 0 when empty */
uint64_t xi_hist_bucket_upper_us(unsigned bucket);

struct xi_session_stats {
    uint64_t requests, ok, client_errors, server_errors, cancelled, expired, refused, retried;
    uint64_t input_bytes, output_bytes, copied_bytes;
    uint64_t cache_hits, cache_misses; /* of requests that may be answered from the cache */
    uint64_t device_ns;                /* busy time */
    uint64_t runs;                     /* on the device; ran / runs is the mean batch */
    uint64_t ran;                      /* requests in them */
    struct xi_hist total, queue, device;
};

#endif
