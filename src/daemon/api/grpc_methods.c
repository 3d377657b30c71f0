/* All methods that gRPC clients can call. */
#include <string.h>

#include "daemon/api/grpc.h"
#include "daemon/api/grpc_service.h"

/* Limits are those of each message. */
#define METHOD(service, name, role)                                                                \
    .route = {"POST",       "/" service "/" name, role,         XI_TAKES_OWN, UINT64_MAX,          \
              XI_TYPE_GRPC, xi_grpc_begin,        xi_grpc_full, xi_grpc_run,  "gRPC"}
#define OIP(name, role) METHOD("inference.GRPCInferenceService", name, role)
#define HEALTH(name)    METHOD("grpc.health.v1.Health", name, XI_ROLE_PUBLIC)
#define REFLECTION(v)                                                                              \
    METHOD("grpc.reflection." v ".ServerReflection", "ServerReflectionInfo", XI_ROLE_PUBLIC)

static const struct xi_grpc_method methods[] = {
    {OIP("ModelInfer", XI_ROLE_INFER), .flags = XI_GRPC_SLOT, .take = xi_grpc_infer,
     .cancel = xi_grpc_infer_cancel, .retry = xi_grpc_infer_retry},
    {OIP("ModelStreamInfer", XI_ROLE_INFER), .flags = XI_GRPC_SLOT | XI_GRPC_STREAMS,
     .take = xi_grpc_infer, .cancel = xi_grpc_infer_cancel, .retry = xi_grpc_infer_retry},
    {OIP("ServerLive", XI_ROLE_PUBLIC), .take = xi_grpc_server_live},
    {OIP("ServerReady", XI_ROLE_PUBLIC), .take = xi_grpc_server_ready},
    {OIP("ModelReady", XI_ROLE_INFER), .take = xi_grpc_model_ready},
    {OIP("ServerMetadata", XI_ROLE_INFER), .take = xi_grpc_server_metadata},
    {OIP("ModelMetadata", XI_ROLE_INFER), .take = xi_grpc_model_metadata},
    {OIP("ModelConfig", XI_ROLE_INFER), .take = xi_grpc_model_config},
    {OIP("ModelStatistics", XI_ROLE_INFER), .take = xi_grpc_model_statistics},
    {OIP("TraceSetting", XI_ROLE_INFER), .take = xi_grpc_trace_setting},
    {OIP("LogSettings", XI_ROLE_INFER), .take = xi_grpc_log_settings},
    {OIP("RepositoryIndex", XI_ROLE_INFER), .take = xi_grpc_repository_index},
    {OIP("RepositoryModelLoad", XI_ROLE_CONTROL), .take = xi_grpc_repository_load},
    {OIP("RepositoryModelUnload", XI_ROLE_CONTROL), .take = xi_grpc_repository_unload},
    {OIP("SystemSharedMemoryStatus", XI_ROLE_INFER), .take = xi_grpc_region_status},
    {OIP("SystemSharedMemoryRegister", XI_ROLE_INFER), .take = xi_grpc_region_register},
    {OIP("SystemSharedMemoryUnregister", XI_ROLE_INFER), .take = xi_grpc_region_unregister},
    /* None can be registered, so there is none to tell of and none to unregister. */
    {OIP("CudaSharedMemoryStatus", XI_ROLE_INFER), .take = xi_grpc_nothing},
    {OIP("CudaSharedMemoryRegister", XI_ROLE_INFER), .take = xi_grpc_cuda_region_register},
    {OIP("CudaSharedMemoryUnregister", XI_ROLE_INFER), .take = xi_grpc_nothing},
    {HEALTH("Check"), .take = xi_grpc_health_check},
    {HEALTH("Watch"), .take = xi_grpc_health_watch, .tick = xi_grpc_health_tick},
    {REFLECTION("v1"), .take = xi_grpc_reflect, .flags = XI_GRPC_STREAMS},
    {REFLECTION("v1alpha"), .take = xi_grpc_reflect, .flags = XI_GRPC_STREAMS},
};

const struct xi_route *xi_grpc_route_at(size_t i)
{
    return i < sizeof methods / sizeof *methods ? &methods[i].route : NULL;
}

int xi_grpc_path(const char *path)
{
    return strncmp(path, "/inference.", 11) == 0 || strncmp(path, "/grpc.", 6) == 0;
}
