/* unpack.h: a body that comes compressed. The codec puts its bytes into a small buffer; from there
 * they are unpacked straight to where the body belongs, a little on the loop, more on a worker.
 * Handlers see the unpacked body only (xi_body_length, xi_body_bytes). Loop thread. */
#ifndef XI_DAEMON_API_UNPACK_H
#define XI_DAEMON_API_UNPACK_H

#include "daemon/api/exchange.h"
#include "wire/inflate.h"

struct xi_unpack {
    struct xi_inflate inflate;
    uint8_t *staged; /* bytes at … len wait to be unpacked */
    size_t at, len;
    uint8_t *sink; /* where the body lies: body.c's */
    uint64_t sink_len, sink_room;
    size_t on_loop; /* bytes that may still be made there for this staging */
    int more;       /* its place, or on_loop, was the end of the last step */
    int ending;     /* nothing is staged behind this */
    int open;       /* the server counts it */
    enum xi_rc rc;
    struct xi_err err;
};

/* Before the route's `begin`: the stream gets its sink. EAGAIN: too many are under way; ENOMEM. */
enum xi_rc xi_unpack_begin(struct xi_exchange *x, enum xi_coding coding,
                           struct xi_err *err) XI_MUST_CHECK;
/* What the codec says. The exchange may be gone afterwards. */
void xi_unpack_full(struct xi_exchange *x);
void xi_unpack_end(struct xi_exchange *x);
/* Its place has been made larger by a worker. */
void xi_unpack_grown(struct xi_exchange *x);
void xi_unpack_free(struct xi_exchange *x); /* without one is fine */

#endif
