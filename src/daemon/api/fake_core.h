/* fake_core.h: the daemon's core as far as this room sees it, for its tests. One session "double"
 * (FP32 [-1,4] in "x" and out "y", doubled), one session "cat" with a flow (takes pictures,
 * answers {"bytes": n} and draws the picture "JPEG"), a store that counts bytes. */
#ifndef XI_DAEMON_API_FAKE_CORE_H
#define XI_DAEMON_API_FAKE_CORE_H

#include "daemon/core/service.h"

struct fake_core {
    struct xi_service service;
    struct xi_session sessions[2];
    struct xi_session *more; /* behind the two, n_more; the test's */
    uint32_t n_more;
    struct xi_resources resources;
    struct xi_port_spec ports[2][1];
    uint32_t slots_out, slots_max; /* slots_max 0: as many as asked for */
    unsigned delay_ms;             /* of an inference */
    unsigned cancelled, ready;
    uint64_t upload_bytes;
    unsigned uploads_open;
};

void fake_core_init(struct fake_core *f, uv_loop_t *loop);

#endif
