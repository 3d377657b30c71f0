/* clock.h: time. Any thread. */
#ifndef XI_BASE_CLOCK_H
#define XI_BASE_CLOCK_H

#include <stddef.h>
#include <stdint.h>

uint64_t xi_now_ns(void); /* CLOCK_MONOTONIC */
uint64_t xi_now_us(void);
uint64_t xi_now_ms(void);
uint64_t xi_wall_ms(void); /* milliseconds since 1970, as the machine believes */
/* Wall clock as "2026-01-31T12:00:00.123Z" (24 characters and a NUL). */
void xi_now_text(char ret[25]);

#endif
