/* cost.c: how long a run takes, so that batches, queues and shares can be tested without hardware:
 * a part that each run costs and a part that each row costs, asleep or on a core. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "xref.h"

enum { COST_US_MAX = 60000000 };

int xref_cost_parse(const char *setup, const char *row, int spins, struct xref_cost *ret)
{
    char *end = NULL, *row_end = NULL;
    long a, b;

    if (setup == NULL || row == NULL)
        return -1;
    errno = 0;
    a = strtol(setup, &end, 10);
    b = strtol(row, &row_end, 10);
    if (errno != 0 || end == setup || *end != '\0' || row_end == row || *row_end != '\0' || a < 0 ||
        b < 0 || a > COST_US_MAX || b > COST_US_MAX)
        return -1;
    *ret = (struct xref_cost){.setup_us = (uint32_t)a, .row_us = (uint32_t)b, .spins = spins};
    return 0;
}

static uint64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* At most 5 ms of sleep at a time, so that cancel works. */
static void sleep_until(uint64_t end, uint64_t now)
{
    uint64_t next = end - now > 5000000u ? now + 5000000u : end;
    struct timespec t = {(time_t)(next / 1000000000u), (long)(next % 1000000000u)};

    (void)clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
}

int xref_cost_pay(const struct xref_cost *cost, const struct xi_tensor *first,
                  atomic_int *cancelled)
{
    uint64_t rows = first != NULL && first->rank > 0 ? (uint64_t)first->dims[0] : 1, now;
    uint64_t us = cost->setup_us + rows * cost->row_us, end = now_ns() + us * 1000u;

    if (us == 0)
        return 0;
    while ((now = now_ns()) < end) {
        if (atomic_load(cancelled))
            return -1;
        if (!cost->spins)
            sleep_until(end, now);
    }
    return 0;
}
