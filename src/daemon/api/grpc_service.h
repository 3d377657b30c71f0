/* grpc_service.h: the methods of GRPCInferenceService but for inference. Loop thread; private to
 * this room. Each is the `take` of a method (grpc.h). */
#ifndef XI_DAEMON_API_GRPC_SERVICE_H
#define XI_DAEMON_API_GRPC_SERVICE_H

#include "daemon/api/grpc.h"

void xi_grpc_server_live(struct xi_grpc *g, const uint8_t *message, size_t bytes);
void xi_grpc_server_ready(struct xi_grpc *g, const uint8_t *message, size_t bytes);
/* grpc_describe.c */
void xi_grpc_server_metadata(struct xi_grpc *g, const uint8_t *message, size_t bytes);
void xi_grpc_model_ready(struct xi_grpc *g, const uint8_t *message, size_t bytes);
void xi_grpc_model_metadata(struct xi_grpc *g, const uint8_t *message, size_t bytes);
void xi_grpc_model_config(struct xi_grpc *g, const uint8_t *message, size_t bytes);
void xi_grpc_model_statistics(struct xi_grpc *g, const uint8_t *message, size_t bytes);
/* grpc_settings.c */
void xi_grpc_trace_setting(struct xi_grpc *g, const uint8_t *message, size_t bytes);
void xi_grpc_log_settings(struct xi_grpc *g, const uint8_t *message, size_t bytes);
/* grpc_repository.c */
void xi_grpc_repository_index(struct xi_grpc *g, const uint8_t *message, size_t bytes);
void xi_grpc_repository_load(struct xi_grpc *g, const uint8_t *message, size_t bytes);
void xi_grpc_repository_unload(struct xi_grpc *g, const uint8_t *message, size_t bytes);
/* grpc_regions.c */
void xi_grpc_region_status(struct xi_grpc *g, const uint8_t *message, size_t bytes);
void xi_grpc_region_register(struct xi_grpc *g, const uint8_t *message, size_t bytes);
void xi_grpc_region_unregister(struct xi_grpc *g, const uint8_t *message, size_t bytes);
void xi_grpc_cuda_region_register(struct xi_grpc *g, const uint8_t *message, size_t bytes);
void xi_grpc_nothing(struct xi_grpc *g, const uint8_t *message, size_t bytes); /* an empty answer */

#endif
