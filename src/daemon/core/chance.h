/* chance.h: random numbers for tests, the same ones after the same random_state. */
#ifndef XI_DAEMON_CORE_CHANCE_H
#define XI_DAEMON_CORE_CHANCE_H

#include <stdint.h>

static uint64_t random_state;

static uint32_t below(uint32_t n)
{
    random_state = random_state * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)(random_state >> 33) % n;
}

#endif
