/* triton_api.h: what bench/peers/triton_backend.c needs of Triton's C interface for backends
 * (version 1), declared as its published documentation says. tritonserver itself defines these. */
#ifndef XI_BENCH_TRITON_API_H
#define XI_BENCH_TRITON_API_H

#include <stdint.h>

struct triton_error;
struct triton_model;
struct triton_instance;
struct triton_request;
struct triton_response;
struct triton_input;
struct triton_output;

enum triton_type { TRITON_UINT8 = 2, TRITON_FP32 = 11 };
enum triton_memory { TRITON_CPU };
enum triton_error_code { TRITON_ERROR_UNKNOWN, TRITON_ERROR_INTERNAL };
enum { TRITON_RELEASE_ALL = 1, TRITON_RESPONSE_FINAL = 1 };

struct triton_error *TRITONSERVER_ErrorNew(enum triton_error_code code, const char *text);

struct triton_error *TRITONBACKEND_ModelRepository(struct triton_model *m, int *kind,
                                                   const char **folder);
struct triton_error *TRITONBACKEND_ModelInstanceModel(struct triton_instance *i,
                                                      struct triton_model **ret);
struct triton_error *TRITONBACKEND_ModelInstanceSetState(struct triton_instance *i, void *state);
struct triton_error *TRITONBACKEND_ModelInstanceState(struct triton_instance *i, void **ret);
struct triton_error *TRITONBACKEND_RequestInputByIndex(struct triton_request *r, uint32_t index,
                                                       struct triton_input **ret);
struct triton_error *TRITONBACKEND_InputProperties(struct triton_input *i, const char **name,
                                                   enum triton_type *type, const int64_t **dims,
                                                   uint32_t *rank, uint64_t *bytes,
                                                   uint32_t *buffers);
struct triton_error *TRITONBACKEND_InputBuffer(struct triton_input *i, uint32_t index,
                                               const void **data, uint64_t *bytes,
                                               enum triton_memory *memory, int64_t *memory_id);
struct triton_error *TRITONBACKEND_ResponseNew(struct triton_response **ret,
                                               struct triton_request *r);
struct triton_error *TRITONBACKEND_ResponseOutput(struct triton_response *r,
                                                  struct triton_output **ret, const char *name,
                                                  enum triton_type type, const int64_t *dims,
                                                  uint32_t rank);
struct triton_error *TRITONBACKEND_OutputBuffer(struct triton_output *o, void **data,
                                                uint64_t bytes, enum triton_memory *memory,
                                                int64_t *memory_id);
struct triton_error *TRITONBACKEND_ResponseSend(struct triton_response *r, uint32_t flags,
                                                struct triton_error *error);
struct triton_error *TRITONBACKEND_RequestRelease(struct triton_request *r, uint32_t flags);

#endif
