/* identity.c: what this plugin is called and which devices it has. tests/engines/simulated builds
 * the same sources with another one. */
#include "xref.h"

static const struct xi_engine_device devices[] = {
    {.kind = XI_DEV_CPU, .id = "CPU", .name = "plain C on one core"},
};

const struct xref_identity xref_identity = {.version = "1.0", .n_devices = 1, .devices = devices};
