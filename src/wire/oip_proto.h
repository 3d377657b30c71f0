/* oip_proto.h: inference requests and answers of the Open Inference Protocol as Protocol Buffers
 * (proto/grpc_service.proto). Pure, any thread; no memory of its own.
 *
 * As with JSON, reading finds and checks everything and the elements of typed contents are then
 * filled into memory of the caller's; raw_input_contents stay where they lie in the message, at
 * `offset`. Unknown fields are passed over; a known one of a wrong type, a name twice, counts that
 * do not add up are errors that name the tensor. */
#ifndef XI_WIRE_OIP_PROTO_H
#define XI_WIRE_OIP_PROTO_H

#include <stdint.h>

#include "base/str.h"
#include "wire/oip.h"

#define XI_OIP_MODEL_MAX   (XI_NAME_MAX + 16) /* "@flow" may stand behind it */
#define XI_OIP_VERSION_MAX 72

struct xi_oip_target {
    char name[XI_OIP_MODEL_MAX + 1], version[XI_OIP_VERSION_MAX + 1];
};

/* A ModelInferRequest. */
enum xi_rc xi_oip_proto_read(const void *message, size_t bytes, struct xi_oip_target *model,
                             struct xi_oip_request *ret, struct xi_err *err) XI_MUST_CHECK;
/* Writes exactly t->bytes to dst. t comes from xi_oip_proto_read of the same message. */
enum xi_rc xi_oip_proto_fill(const void *message, const struct xi_oip_tensor *t, void *dst,
                             struct xi_err *err) XI_MUST_CHECK;
/* Of a message whose first bytes these are: where the first raw tensor begins, and how long it is.
 * 0: not known yet, or there is none. */
size_t xi_oip_proto_raw_at(const void *head, size_t bytes, uint64_t *ret_bytes);

/* A ModelInferResponse: its fields in their order, then each output's bytes behind a mark. What
 * is written here and the tensors' own bytes, one after the other, are the message. */
struct xi_oip_proto_answer {
    const char *model, *version, *id;
    int final; /* triton_final_response: -1 says nothing */
};
struct xi_oip_proto_output {
    const char *name;
    const struct xi_tensor *tensor;     /* its data is not looked at */
    const struct xi_oip_region *region; /* where it was written to; NULL: it is sent */
};
void xi_oip_proto_begin(struct xi_str *s, const struct xi_oip_proto_answer *a);
void xi_oip_proto_output(struct xi_str *s, const struct xi_oip_proto_output *o);
/* Behind all outputs, once for each in their order: n bytes follow (0 of one in a region). */
void xi_oip_proto_mark(struct xi_str *s, uint64_t n);
size_t xi_oip_proto_mark_bytes(uint64_t n); /* what a mark takes itself */

/* enum DataType of model_config.proto. */
unsigned xi_oip_proto_dtype(enum xi_dtype dtype);

#endif
