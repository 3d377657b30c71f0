#include "base/clock.h"

#include <stdio.h>
#include <time.h>

uint64_t xi_now_ns(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

uint64_t xi_now_us(void)
{
    return xi_now_ns() / 1000u;
}

uint64_t xi_now_ms(void)
{
    return xi_now_ns() / 1000000u;
}

uint64_t xi_wall_ms(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_REALTIME, &t);
    return (uint64_t)t.tv_sec * 1000u + (uint64_t)t.tv_nsec / 1000000u;
}

void xi_now_text(char ret[25])
{
    struct timespec t;
    struct tm tm;
    char head[20];

    (void)clock_gettime(CLOCK_REALTIME, &t);
    (void)gmtime_r(&t.tv_sec, &tm);
    (void)strftime(head, sizeof head, "%Y-%m-%dT%H:%M:%S", &tm);
    (void)snprintf(ret, 25, "%s.%03dZ", head, (int)(t.tv_nsec / 1000000) % 1000);
}
