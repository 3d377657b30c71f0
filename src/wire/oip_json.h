/* oip_json.h: inference requests and answers of the Open Inference Protocol in JSON, and in its
 * binary layout (JSON followed by raw tensors). Pure, any thread; no memory of its own.
 *
 * Reading is done twice over the same text: xi_oip_read finds every tensor and checks all limits;
 * then the caller takes memory for `text_bytes` and xi_oip_fill writes each tensor's elements
 * straight to its place. Unknown keys are passed over, as the protocol asks; a known key twice, a
 * name twice, anything that does not add up is an error that names the tensor. */
#ifndef XI_WIRE_OIP_JSON_H
#define XI_WIRE_OIP_JSON_H

#include <stdint.h>

#include "base/str.h"
#include "wire/oip.h"

/* The Inference-Header-Content-Length value: decimal digits, at most body_bytes. */
enum xi_rc xi_oip_header_length(const char *value, uint64_t body_bytes, uint64_t *ret,
                                struct xi_err *err) XI_MUST_CHECK;
/* tail_bytes: of the binary tensors behind the text; they must use it up exactly. */
enum xi_rc xi_oip_read(const char *text, size_t bytes, uint64_t tail_bytes,
                       struct xi_oip_request *ret, struct xi_err *err) XI_MUST_CHECK;
/* Writes exactly t->bytes to dst. t comes from xi_oip_read of the same text. */
enum xi_rc xi_oip_fill(const char *text, size_t bytes, const struct xi_oip_tensor *t, void *dst,
                       struct xi_err *err) XI_MUST_CHECK;

/* Appends {"name":…,"datatype":…,"shape":[…],"data":[…]} (flat, row-major), or with binary
 * "parameters":{"binary_data_size":N} in place of data. NaN and infinities become null. */
void xi_oip_write(struct xi_str *s, const char *name, const struct xi_tensor *tensor, int binary);
/* The same of a tensor whose bytes were put into a region: its parameters say which. */
void xi_oip_write_region(struct xi_str *s, const char *name, const struct xi_tensor *tensor,
                         const struct xi_oip_region *region);

#endif
