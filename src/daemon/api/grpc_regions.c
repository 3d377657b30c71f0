/* Memory that clients own (ipc/regions.h), as gRPC clients register it. */
#include <string.h>

#include "daemon/api/grpc_service.h"
#include "wire/protobuf.h"

struct asked {
    char name[XI_NAME_MAX + 1], key[256];
    uint64_t offset, bytes;
};

static enum xi_rc read_number(const struct xi_pb_field *f, const char *what, uint64_t *ret,
                              struct xi_err *err)
{
    *ret = f->value;
    return xi_pb_want(f, XI_PB_VARINT, "SystemSharedMemoryRegisterRequest", what, err);
}

/* The other requests have a name alone. 0: the RPC has failed. */
static int read_request(struct xi_grpc *g, const uint8_t *message, size_t bytes, struct asked *ret)
{
    struct xi_pb pb = xi_pb_make(message, bytes);
    enum xi_rc rc = XI_OK;
    struct xi_pb_field f;
    struct xi_err err;
    int more = 0;

    memset(ret, 0, sizeof *ret);
    while (rc == XI_OK && (more = xi_pb_next(&pb, &f)) > 0) {
        if (f.number == 1)
            rc = xi_pb_text(&f, "name", ret->name, sizeof ret->name, &err);
        else if (f.number == 2)
            rc = xi_pb_text(&f, "key", ret->key, sizeof ret->key, &err);
        else if (f.number == 3)
            rc = read_number(&f, "offset", &ret->offset, &err);
        else if (f.number == 4)
            rc = read_number(&f, "byte_size", &ret->bytes, &err);
    }
    if (rc == XI_OK && more < 0)
        rc = xi_pb_broken("request", &err);
    if (rc != XI_OK)
        xi_grpc_fail(g, &err);
    return rc == XI_OK;
}

void xi_grpc_nothing(struct xi_grpc *g, const uint8_t *message, size_t bytes)
{
    (void)message, (void)bytes;
    xi_grpc_answer(g);
}

static void add_region(void *ctx, const struct xi_region_view *view)
{
    struct xi_str *s = ctx;
    size_t entry = xi_pb_begin(s, 1);

    xi_pb_put_text(s, 1, view->name);
    size_t region = xi_pb_begin(s, 2);
    xi_pb_text_field(s, 1, view->name);
    xi_pb_text_field(s, 2, view->key);
    xi_pb_uint(s, 3, view->offset);
    xi_pb_uint(s, 4, view->bytes);
    xi_pb_end(s, region);
    xi_pb_end(s, entry);
}

void xi_grpc_region_status(struct xi_grpc *g, const uint8_t *message, size_t bytes)
{
    struct xi_exchange *x = g->x;
    struct asked asked;
    struct xi_err err;

    if (!read_request(g, message, bytes, &asked))
        return;
    const char *name = asked.name[0] ? asked.name : NULL;
    uint32_t n =
        xi_regions_each(x->server->service->regions, x->who.tenant, name, add_region, &x->body);
    if (n > 0 || name == NULL) {
        xi_grpc_answer(g);
        return;
    }
    (void)xi_fail(&err, XI_ENOENT, "no region \"%.100s\" is registered", name);
    xi_grpc_fail(g, &err);
}

void xi_grpc_region_register(struct xi_grpc *g, const uint8_t *message, size_t bytes)
{
    struct xi_exchange *x = g->x;
    struct asked asked;
    struct xi_err err;

    if (!read_request(g, message, bytes, &asked))
        return;
    enum xi_rc rc = xi_region_allowed(x, &err);
    if (rc == XI_OK)
        rc = xi_regions_register(x->server->service->regions, x->who.tenant, asked.name, asked.key,
                                 asked.offset, asked.bytes, &err);
    if (rc != XI_OK)
        xi_grpc_fail(g, &err);
    else
        xi_grpc_answer(g);
}

void xi_grpc_region_unregister(struct xi_grpc *g, const uint8_t *message, size_t bytes)
{
    struct asked asked;

    if (!read_request(g, message, bytes, &asked))
        return;
    xi_regions_unregister(g->x->server->service->regions, g->x->who.tenant,
                          asked.name[0] ? asked.name : NULL);
    xi_grpc_answer(g);
}

void xi_grpc_cuda_region_register(struct xi_grpc *g, const uint8_t *message, size_t bytes)
{
    struct xi_err err;

    (void)message, (void)bytes;
    (void)xi_fail(&err, XI_EUNSUPPORTED, "CUDA shared memory is not offered");
    (void)xi_hint(&err, "system shared memory is");
    xi_grpc_fail(g, &err);
}
