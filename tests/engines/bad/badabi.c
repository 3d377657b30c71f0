/* A plugin of another major version that answers every host. */
#include "xinfer/engine.h"

static const struct xi_engine_table table = {
    .size = sizeof(table), .major = XI_ENGINE_MAJOR + 98, .minor = 0, .name = "badabi"};

const struct xi_engine_table *xi_engine_entry(uint16_t host_major, uint16_t host_minor)
{
    (void)host_major;
    (void)host_minor;
    return &table;
}
