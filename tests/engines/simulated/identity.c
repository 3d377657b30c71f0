/* identity.c: the reference engine with devices that are not there. SIMULATED: what "runs on" them
 * runs on the CPU; a model's cost-us says how long it takes. For tests only, never installed. */
#include "xref.h"

static const struct xi_engine_device devices[] = {
    {.kind = XI_DEV_CPU, .id = "CPU", .name = "simulated CPU"},
    {.kind = XI_DEV_GPU,
     .id = "GPU.0",
     .name = "simulated GPU",
     .memory_total_bytes = 16ull << 30,
     .memory_free_bytes = 16ull << 30,
     .context_bytes = 512ull << 20},
    {.kind = XI_DEV_NPU, .exclusive = 1, .id = "NPU.0", .name = "simulated NPU"},
};

const struct xref_identity xref_identity = {
    .version = "1.0", .n_devices = sizeof devices / sizeof *devices, .devices = devices};
