#include "daemon/core/stats.h"

/* Values below 8 have a bucket each; above, the three bits behind the leading one pick one of the
 * octave's eight buckets (log-linear, as in G. Tene's HdrHistogram with 3 significant bits). */
static unsigned bucket_of(uint64_t us)
{
    unsigned octave, index;

    if (us < 8)
        return (unsigned)us;
    octave = 63u - (unsigned)__builtin_clzll(us);
    index = (octave - 2) * 8 + (unsigned)((us >> (octave - 3)) & 7);
    return index < XI_HIST_BUCKETS ? index : XI_HIST_BUCKETS - 1;
}

uint64_t xi_hist_bucket_upper_us(unsigned bucket)
{
    if (bucket < 8)
        return bucket;
    return ((uint64_t)(8 + bucket % 8 + 1) << (bucket / 8 - 1)) - 1;
}

void xi_hist_add_n(struct xi_hist *h, uint64_t us, uint64_t n)
{
    if (n == 0)
        return;
    h->count += n;
    h->sum_us += us * n;
    if (us > h->max_us)
        h->max_us = us;
    h->buckets[bucket_of(us)] += n;
}

void xi_hist_add(struct xi_hist *h, uint64_t us)
{
    xi_hist_add_n(h, us, 1);
}

uint64_t xi_hist_quantile_us(const struct xi_hist *h, double q)
{
    double wanted = q * (double)h->count;
    uint64_t seen = 0, upper;
    unsigned i;

    if (h->count == 0)
        return 0;
    for (i = 0; i < XI_HIST_BUCKETS; i++) {
        seen += h->buckets[i];
        if (h->buckets[i] > 0 && (double)seen >= wanted)
            break;
    }
    if (i >= XI_HIST_BUCKETS - 1)
        return h->max_us;
    upper = xi_hist_bucket_upper_us(i);
    return upper < h->max_us ? upper : h->max_us;
}
