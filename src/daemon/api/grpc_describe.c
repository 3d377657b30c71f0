/* What server and models say of themselves (oip_describe.h), as gRPC's messages. */
#include <string.h>

#include "daemon/api/grpc_service.h"
#include "daemon/api/oip_describe.h"
#include "wire/oip_proto.h"
#include "wire/protobuf.h"

struct asked {
    char name[XI_OIP_MODEL_MAX + 1], version[XI_OIP_VERSION_MAX + 1];
};

/* Of all requests that name a model: its name and version. 0: the RPC has failed. */
static int read_request(struct xi_grpc *g, const uint8_t *message, size_t bytes, struct asked *ret)
{
    struct xi_pb pb = xi_pb_make(message, bytes);
    enum xi_rc rc = XI_OK;
    struct xi_pb_field f;
    struct xi_err err;
    int more = 0;

    ret->name[0] = ret->version[0] = '\0';
    while (rc == XI_OK && (more = xi_pb_next(&pb, &f)) > 0) {
        if (f.number == 1)
            rc = xi_pb_text(&f, "name", ret->name, sizeof ret->name, &err);
        else if (f.number == 2)
            rc = xi_pb_text(&f, "version", ret->version, sizeof ret->version, &err);
    }
    if (rc == XI_OK && more < 0)
        rc = xi_pb_broken("request", &err);
    if (rc != XI_OK)
        xi_grpc_fail(g, &err);
    return rc == XI_OK;
}

/* The model that is asked for, with its ports. 0: the RPC has failed. */
static int find(struct xi_grpc *g, const uint8_t *message, size_t bytes, struct xi_oip_model *ret)
{
    struct xi_exchange *x = g->x;
    struct asked asked;
    struct xi_err err;

    if (!read_request(g, message, bytes, &asked))
        return 0;
    if (xi_oip_find(x->server->service, &x->who, asked.name, asked.version, ret, &err) == XI_OK &&
        xi_oip_has_ports(ret, &err) == XI_OK)
        return 1;
    xi_grpc_fail(g, &err);
    return 0;
}

void xi_grpc_server_metadata(struct xi_grpc *g, const uint8_t *message, size_t bytes)
{
    struct xi_str *s = &g->x->body;

    (void)message, (void)bytes;
    xi_pb_text_field(s, 1, XI_OIP_SERVER);
    xi_pb_text_field(s, 2, xi_oip_server_version());
    for (const char *const *p = xi_oip_extensions; *p != NULL; p++)
        xi_pb_put_text(s, 3, *p);
    xi_grpc_answer(g);
}

/* One that is not there is not ready, and no error: clients ask again and again. */
void xi_grpc_model_ready(struct xi_grpc *g, const uint8_t *message, size_t bytes)
{
    struct xi_exchange *x = g->x;
    struct xi_oip_model model = {0};
    struct asked asked;
    struct xi_err err;

    if (!read_request(g, message, bytes, &asked))
        return;
    enum xi_rc rc =
        xi_oip_find(x->server->service, &x->who, asked.name, asked.version, &model, &err);
    if (rc != XI_OK && rc != XI_ENOENT && rc != XI_EGONE) {
        xi_grpc_fail(g, &err);
        return;
    }
    xi_pb_uint(&x->body, 1, rc == XI_OK && model.ready);
    xi_grpc_answer(g);
}

static void put_dims(struct xi_str *s, uint32_t number, const struct xi_port_spec *port, int from)
{
    if (port->rank == from)
        return;
    size_t dims = xi_pb_begin(s, number);
    if (port->rank < 0)
        xi_pb_put_raw(s, (uint64_t)-1);
    for (int i = from; i < port->rank; i++)
        xi_pb_put_raw(s, (uint64_t)port->dims[i]);
    xi_pb_end(s, dims);
}

static void put_ports(struct xi_str *s, uint32_t number, const struct xi_port_spec *ports,
                      uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        size_t port = xi_pb_begin(s, number);
        xi_pb_text_field(s, 1, ports[i].name);
        xi_pb_text_field(s, 2, xi_dtype_name(ports[i].dtype));
        put_dims(s, 3, &ports[i], 0);
        xi_pb_end(s, port);
    }
}

void xi_grpc_model_metadata(struct xi_grpc *g, const uint8_t *message, size_t bytes)
{
    struct xi_exchange *x = g->x;
    struct xi_oip_model model;
    const char *version;

    if (!find(g, message, bytes, &model))
        return;
    xi_pb_text_field(&x->body, 1, model.name);
    for (uint32_t i = 0; (version = xi_oip_version_at(x->server->service, &model, i)) != NULL; i++)
        xi_pb_put_text(&x->body, 2, version);
    xi_pb_text_field(&x->body, 3, model.platform);
    put_ports(&x->body, 4, model.inputs, model.n_inputs);
    put_ports(&x->body, 5, model.outputs, model.n_outputs);
    xi_grpc_answer(g);
}

/* dims: their field, which differs; a model that takes batches leaves the first one out. */
static void put_config_ports(struct xi_str *s, uint32_t number, uint32_t dims,
                             const struct xi_oip_model *m, const struct xi_port_spec *ports,
                             uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        size_t port = xi_pb_begin(s, number);
        xi_pb_text_field(s, 1, ports[i].name);
        xi_pb_uint(s, 2, xi_oip_proto_dtype(ports[i].dtype));
        put_dims(s, dims, &ports[i], m->max_batch > 0);
        xi_pb_end(s, port);
    }
}

static void put_config(struct xi_str *s, const struct xi_oip_model *m)
{
    enum { KIND_GPU = 1, KIND_CPU = 2 };

    xi_pb_text_field(s, 1, m->name);
    xi_pb_text_field(s, 2, m->platform);
    xi_pb_text_field(s, 17, m->backend);
    xi_pb_uint(s, 4, m->max_batch);
    put_config_ports(s, 5, 4, m, m->inputs, m->n_inputs);
    put_config_ports(s, 6, 3, m, m->outputs, m->n_outputs);
    size_t group = xi_pb_begin(s, 7);
    xi_pb_text_field(s, 1, m->device);
    xi_pb_uint(s, 2, m->instances);
    xi_pb_uint(s, 4, strncmp(m->device, "GPU", 3) == 0 ? KIND_GPU : KIND_CPU);
    xi_pb_end(s, group);
    if (m->sequences) {
        size_t sequences = xi_pb_begin(s, 13);
        xi_pb_uint(s, 1, m->session->options.sequence_idle_s * 1000000ull);
        xi_pb_end(s, sequences);
    } else if (m->max_batch > 0) {
        size_t batching = xi_pb_begin(s, 11);
        xi_pb_uint(s, 2, m->session->options.max_delay_us);
        xi_pb_end(s, batching);
    }
}

void xi_grpc_model_config(struct xi_grpc *g, const uint8_t *message, size_t bytes)
{
    struct xi_oip_model model;

    if (!find(g, message, bytes, &model))
        return;
    size_t config = xi_pb_begin(&g->x->body, 1);
    put_config(&g->x->body, &model);
    xi_pb_end(&g->x->body, config);
    xi_grpc_answer(g);
}

static void put_duration(struct xi_str *s, uint32_t number, struct xi_oip_duration d)
{
    size_t duration = xi_pb_begin(s, number);

    xi_pb_uint(s, 1, d.count);
    xi_pb_uint(s, 2, d.ns);
    xi_pb_end(s, duration);
}

static void put_statistics(struct xi_str *s, const struct xi_session *session)
{
    struct xi_oip_statistics t;

    xi_oip_statistics(session, &t);
    size_t model = xi_pb_begin(s, 1);
    xi_pb_text_field(s, 1, session->name);
    xi_pb_text_field(s, 2, session->version);
    xi_pb_uint(s, 3, t.last_inference_ms);
    xi_pb_uint(s, 4, t.inferences);
    xi_pb_uint(s, 5, t.executions);
    size_t all = xi_pb_begin(s, 6);
    const struct xi_oip_duration durations[] = {t.success,       t.fail,          t.queue,
                                                t.compute_input, t.compute_infer, t.compute_output,
                                                t.cache_hit,     t.cache_miss};
    for (uint32_t i = 0; i < sizeof durations / sizeof *durations; i++)
        put_duration(s, i + 1, durations[i]);
    xi_pb_end(s, all);
    size_t memory = xi_pb_begin(s, 8);
    xi_pb_text_field(s, 1, session->device);
    xi_pb_uint(s, 3, t.memory_bytes);
    xi_pb_end(s, memory);
    xi_pb_end(s, model);
}

void xi_grpc_model_statistics(struct xi_grpc *g, const uint8_t *message, size_t bytes)
{
    struct xi_exchange *x = g->x;
    struct xi_service *service = x->server->service;
    struct xi_session *s = NULL;
    struct xi_oip_model model;
    struct asked asked;
    struct xi_err err;

    if (!read_request(g, message, bytes, &asked))
        return;
    if (asked.name[0] == '\0') {
        while ((s = xi_sessions_each(service->sessions, s)) != NULL)
            if (s->state != XI_SESSION_GONE && strcmp(s->tenant, x->who.tenant) == 0)
                put_statistics(&x->body, s);
    } else if (xi_oip_find(service, &x->who, asked.name, asked.version, &model, &err) == XI_OK) {
        put_statistics(&x->body, model.session);
    } else {
        xi_grpc_fail(g, &err);
        return;
    }
    xi_grpc_answer(g);
}
