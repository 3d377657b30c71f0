/* oip.h: an inference request of the Open Inference Protocol as every codec of this room hands it
 * out: from JSON, from the binary layout (oip_json.h) and from gRPC. Plain data; the codec has
 * checked that names, shapes and byte counts add up, nobody has looked at a model or a region. */
#ifndef XI_WIRE_OIP_H
#define XI_WIRE_OIP_H

#include <stdint.h>

#include "base/limits.h"
#include "core/tensor.h"

#define XI_OIP_ALIGN       64 /* of each tensor that a codec writes itself */
#define XI_OIP_ID_MAX      128
#define XI_OIP_CLASSES_MAX 65536

/* Where the bytes of a tensor stand. */
enum xi_oip_where {
    XI_OIP_TEXT = 0, /* JSON's "data", gRPC's typed contents: the codec writes them to a place */
    XI_OIP_RAW,      /* as they are, in the tail behind the JSON or in raw_input_contents */
    XI_OIP_REGION    /* in shared memory that the client registered */
};

struct xi_oip_region {
    char name[XI_NAME_MAX + 1]; /* "": none */
    uint64_t offset, bytes;     /* of the tensor in the region */
};

struct xi_oip_tensor {
    char name[XI_TENSOR_NAME_MAX];
    enum xi_dtype dtype;
    int rank;
    int64_t dims[XI_MAX_RANK];
    uint64_t elements, bytes;
    enum xi_oip_where where;
    uint64_t offset; /* RAW: in the tail; TEXT: in the text_bytes */
    size_t data_at;  /* TEXT: where its data begins in the source; 0: none was given */
    size_t data_end; /* gRPC: and where it ends */
    struct xi_oip_region region;
};

struct xi_oip_output {
    char name[XI_TENSOR_NAME_MAX];
    int binary;       /* HTTP alone: gRPC always answers raw */
    uint32_t classes; /* "classification": the N best as "score:index[:label]"; 0: the tensor */
    struct xi_oip_region region; /* where the client wants its bytes */
};

/* The request's own parameters. */
struct xi_oip_parameters {
    char sequence[XI_SEQUENCE_ID_MAX + 1]; /* a number is its decimal digits; "" or 0: none */
    int sequence_start, sequence_end;
    uint64_t priority;   /* 0: the session's, 1: realtime, 2: normal, others: batch */
    uint64_t timeout_us; /* 0: none */
    int binary_output;   /* binary_data_output: what outputs not listed do */
    int empty_final;     /* of a stream: an empty answer says that no more come */
};

struct xi_oip_request {
    char id[XI_OIP_ID_MAX + 1];
    uint32_t n_inputs, n_outputs;
    struct xi_oip_tensor inputs[XI_TENSORS_MAX];
    struct xi_oip_output outputs[XI_TENSORS_MAX];
    struct xi_oip_parameters parameters;
    uint64_t text_bytes; /* memory for all TEXT tensors together */
};

#endif
