/* onnx.h: what an ONNX file says of its tensors, without loading it: a streaming walk over its
 * protobuf (onnx.proto3, IR version 3 and later) with a depth limit and no recursion. */
#ifndef XI_PACKAGE_ONNX_H
#define XI_PACKAGE_ONNX_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

/* One tensor's external data. location is what the file says (any bytes but NUL, at most 255). */
struct xi_onnx_external {
    const char *location;
    uint64_t offset;
    uint64_t length; /* UINT64_MAX: the file doesn't say */
};

/* Called for each tensor with external data; an error ends the scan. */
typedef enum xi_rc (*xi_onnx_external_fn)(void *ctx, const struct xi_onnx_external *external,
                                          struct xi_err *err);

/* Reads `bytes` of fd from its start by pread, skipping over weights. EPACKAGE when it is no
 * protobuf, deeper than 64 messages, has over 2^20 tensors, or a tensor whose raw data does not
 * fit its shape. fn may be NULL. */
enum xi_rc xi_onnx_scan(int fd, uint64_t bytes, xi_onnx_external_fn fn, void *ctx,
                        struct xi_err *err) XI_MUST_CHECK;

#endif
