/* tensor.h: element types, shapes, tensors and model signatures: what every other room speaks.
 * Pure functions, any thread. */
#ifndef XI_CORE_TENSOR_H
#define XI_CORE_TENSOR_H

#include <stddef.h>
#include <stdint.h>

#include "base/limits.h"
#include "base/status.h"
#include "xinfer/types.h"

/* What a request wants back (bits): a flow's answer, its annotated picture, the models' tensors. */
enum { XI_ANSWER_JSON = 1, XI_ANSWER_PICTURE = 2, XI_ANSWER_TENSORS = 4 };
/* Beside them, what a flow must know of its input: it goes on from a state; it is FP32. */
enum { XI_INPUT_GOES_ON = 16, XI_INPUT_FP32 = 32 };

/* Bytes of one element; 0 for BYTES and UNKNOWN. */
size_t xi_dtype_bytes(enum xi_dtype dtype);
const char *xi_dtype_name(enum xi_dtype dtype); /* "FP32"; "UNKNOWN" for numbers not in the table */
enum xi_dtype xi_dtype_parse(const char *name); /* XI_DT_UNKNOWN when it is no name */

/* Product of dims; EINVAL names the dim that is negative or overflows. A scalar has 1 element. */
enum xi_rc xi_shape_elements(const int64_t *dims, int rank, uint64_t *ret,
                             struct xi_err *err) XI_MUST_CHECK;
/* Elements × bytes, overflow-checked. BYTES tensors have no fixed size: EINVAL. */
enum xi_rc xi_shape_bytes(enum xi_dtype dtype, const int64_t *dims, int rank, uint64_t *ret,
                          struct xi_err *err) XI_MUST_CHECK;
/* "1,300,300,3" → dims; refuses rank over XI_MAX_RANK, negatives (unless allow_dynamic, then -1),
 * anything else. */
enum xi_rc xi_shape_parse(const char *text, int allow_dynamic, int64_t dims[XI_MAX_RANK],
                          int *ret_rank, struct xi_err *err) XI_MUST_CHECK;
/* "[1,300,300,3]" into buf (always terminated). Returns buf. */
char *xi_shape_text(const int64_t *dims, int rank, char *buf, size_t bytes);
/* Every BYTES element lies inside; counts them. ETENSOR. */
enum xi_rc xi_bytes_check(const void *data, uint64_t bytes, uint64_t elements,
                          struct xi_err *err) XI_MUST_CHECK;

/* A zeroed host tensor with size set. */
struct xi_tensor xi_tensor_make(enum xi_dtype dtype, const int64_t *dims, int rank, void *data,
                                uint64_t bytes);

/* What a model says of one input or output; dims -1 are free. */
struct xi_port_spec {
    char name[XI_TENSOR_NAME_MAX];
    enum xi_dtype dtype;
    int32_t rank; /* -1: any */
    int64_t dims[XI_MAX_RANK];
};

struct xi_signature {
    uint32_t n_inputs, n_outputs;
    struct xi_port_spec *inputs, *outputs;
};

void xi_signature_fini(struct xi_signature *s); /* frees the arrays; zeroed is fine */
/* Does this tensor fit the port, and do its bytes fit its shape? ETENSOR in the words
 * `input "x": shape [1,2] where the model wants [1,-1,3]`. */
enum xi_rc xi_port_check(const struct xi_port_spec *port, const struct xi_tensor *tensor,
                         struct xi_err *err) XI_MUST_CHECK;

/* IEEE 754 half and bfloat16 to float and back (round to nearest even). */
float xi_half_to_float(uint16_t h);
uint16_t xi_float_to_half(float f);

#endif
