/* The right version, but a table that ends before the calls every plugin must have. */
#include "xinfer/engine.h"

static const struct xi_engine_table table = {
    .size = 16, .major = XI_ENGINE_MAJOR, .minor = XI_ENGINE_MINOR, .name = "badtable"};

const struct xi_engine_table *xi_engine_entry(uint16_t host_major, uint16_t host_minor)
{
    (void)host_major;
    (void)host_minor;
    return &table;
}
