/* oip_json.h: inference requests and answers of the Open Inference Protocol in JSON, and in its
 * binary layout (JSON followed by raw tensors). Pure, any thread; no memory of its own.
 *
 * Reading is done twice over the same text: xi_oip_read finds every tensor and checks all limits;
 * then the caller takes memory for `json_bytes` and xi_oip_fill writes each tensor's elements
 * straight to its place. Unknown keys are passed over, as the protocol asks; a known key twice, a
 * name twice, anything that does not add up is an error that names the tensor. */
#ifndef XI_WIRE_OIP_JSON_H
#define XI_WIRE_OIP_JSON_H

#include <stdint.h>

#include "base/limits.h"
#include "base/str.h"
#include "core/tensor.h"

#define XI_OIP_ALIGN  64 /* of each tensor read from JSON */
#define XI_OIP_ID_MAX 128

struct xi_oip_tensor {
    char name[XI_TENSOR_NAME_MAX];
    enum xi_dtype dtype;
    int rank;
    int64_t dims[XI_MAX_RANK];
    uint64_t elements, bytes;
    int binary;      /* its bytes stand in the tail */
    uint64_t offset; /* in the tail, or in the json_bytes */
    size_t data_at;  /* JSON: where "data" begins in the text; 0: none was given */
};

struct xi_oip_output {
    char name[XI_TENSOR_NAME_MAX];
    int binary;
};

struct xi_oip_request {
    char id[XI_OIP_ID_MAX + 1];
    uint32_t n_inputs, n_outputs;
    struct xi_oip_tensor inputs[XI_TENSORS_MAX];
    struct xi_oip_output outputs[XI_TENSORS_MAX];
    int binary_output;   /* parameters.binary_data_output: what outputs not listed do */
    uint64_t json_bytes; /* memory for all tensors that stand in the JSON */
};

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

#endif
