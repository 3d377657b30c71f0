#include "daemon/api/grpc_service.h"

#include <string.h>

#include "wire/protobuf.h"

void xi_grpc_server_live(struct xi_grpc *g, const uint8_t *message, size_t bytes)
{
    (void)message, (void)bytes;
    xi_pb_uint(&g->x->body, 1, 1);
    xi_grpc_answer(g);
}

void xi_grpc_server_ready(struct xi_grpc *g, const uint8_t *message, size_t bytes)
{
    (void)message, (void)bytes;
    xi_pb_uint(&g->x->body, 1, (uint64_t)xi_service_ready(g->x->server->service, NULL));
    xi_grpc_answer(g);
}
