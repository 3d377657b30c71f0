/* Dies while it is being loaded. */
#include <stdlib.h>

#include "xinfer/engine.h"

__attribute__((constructor)) static void before_anything(void)
{
    abort();
}

const struct xi_engine_table *xi_engine_entry(uint16_t host_major, uint16_t host_minor)
{
    (void)host_major;
    (void)host_minor;
    return NULL;
}
