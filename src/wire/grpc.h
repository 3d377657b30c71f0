/* grpc.h: what gRPC adds to HTTP/2: message frames, deadlines, statuses. Pure, any thread. */
#ifndef XI_WIRE_GRPC_H
#define XI_WIRE_GRPC_H

#include <stdint.h>

#include "base/str.h"

#define XI_GRPC_FRAME 5 /* bytes before each message */

/* Those that are no row of the error table. */
enum { XI_GRPC_OK = 0, XI_GRPC_UNKNOWN = 2, XI_GRPC_UNIMPLEMENTED = 12 };

/* One message's frame: ETOOBIG over limit, EPROTO for flags that nobody knows. */
enum xi_rc xi_grpc_frame_read(const uint8_t frame[XI_GRPC_FRAME], uint64_t limit,
                              int *ret_compressed, uint64_t *ret_bytes,
                              struct xi_err *err) XI_MUST_CHECK;
void xi_grpc_frame_write(uint8_t frame[XI_GRPC_FRAME], uint64_t bytes);
/* A grpc-timeout value: up to 8 digits and one of H M S m u n. */
enum xi_rc xi_grpc_timeout(const char *value, uint64_t *ret_ns, struct xi_err *err) XI_MUST_CHECK;
const char *xi_grpc_status_name(int status); /* "DEADLINE_EXCEEDED"; "UNKNOWN" for others */
/* "grpc-status: 4\r\ngrpc-message: …\r\n", the message percent-encoded; "" or NULL: none. */
void xi_grpc_trailers(struct xi_str *s, int status, const char *message);

#endif
