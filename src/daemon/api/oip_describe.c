#include "daemon/api/oip_describe.h"

#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/name.h"
#include "daemon/api/describe.h"
#include "daemon/api/oip_call.h"

const char *const xi_oip_extensions[] = {"binary_tensor_data",
                                         "classification",
                                         "logging",
                                         "model_configuration",
                                         "parameters",
                                         "sequence",
                                         "statistics",
                                         "system_shared_memory",
                                         "trace",
                                         NULL};

const char *xi_oip_server_version(void)
{
    return XI_VERSION;
}

static const struct xi_port_spec flow_input = {
    .name = XI_OIP_FLOW_INPUT, .dtype = XI_DT_BYTES, .rank = 1, .dims = {1}};
/* A client gets the picture where it asks for it. */
static const struct xi_port_spec flow_outputs[XI_OIP_FLOW_PORTS] = {
    {.name = XI_OIP_FLOW_OUTPUT, .dtype = XI_DT_BYTES, .rank = 1, .dims = {1}},
    {.name = XI_OIP_FLOW_PICTURE, .dtype = XI_DT_BYTES, .rank = 1, .dims = {1}}};

static int all_free(const struct xi_port_spec *ports, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        if (ports[i].rank < 1 || ports[i].dims[0] != -1)
            return 0;
    return n > 0;
}

void xi_oip_describe(const struct xi_session *s, struct xi_oip_model *ret)
{
    const struct xi_signature *sig = &s->signature;

    *ret = (struct xi_oip_model){.session = s,
                                 .version = s->version,
                                 .platform = s->engine,
                                 .backend = s->engine,
                                 .device = s->device,
                                 .inputs = sig->inputs,
                                 .outputs = sig->outputs,
                                 .n_inputs = sig->n_inputs,
                                 .n_outputs = sig->n_outputs,
                                 .instances = s->lane_count,
                                 .sequences = s->stateful != XI_STATE_NONE,
                                 .ready = s->state == XI_SESSION_READY};
    memcpy(ret->name, s->name, strlen(s->name) + 1);
    if (s->max_batch > 1 && all_free(sig->inputs, sig->n_inputs) &&
        all_free(sig->outputs, sig->n_outputs))
        ret->max_batch = s->max_batch;
}

static void describe_flow(struct xi_oip_model *m)
{
    size_t n = strlen(m->name);

    memcpy(m->name + n, XI_OIP_FLOW, sizeof XI_OIP_FLOW);
    m->flow = 1;
    m->max_batch = 0;
    m->inputs = &flow_input;
    m->outputs = flow_outputs;
    m->n_inputs = 1;
    m->n_outputs = m->session->draws ? 2 : 1;
}

enum xi_rc xi_oip_find(struct xi_service *service, const struct xi_identity *who, const char *name,
                       const char *version, struct xi_oip_model *ret, struct xi_err *err)
{
    const size_t suffix = sizeof XI_OIP_FLOW - 1;
    struct xi_session *s = NULL;
    char plain[XI_NAME_MAX + 1];
    size_t n = strlen(name);
    int flow = n > suffix && strcmp(name + n - suffix, XI_OIP_FLOW) == 0;

    n -= flow ? suffix : 0;
    if (n >= sizeof plain)
        return xi_fail(err, XI_EINVAL, "a model's name of %zu bytes, the limit is %d", n,
                       XI_NAME_MAX);
    memcpy(plain, name, n);
    plain[n] = '\0';
    int any = who->role == XI_ROLE_ADMIN && xi_uuid_valid(plain);
    enum xi_rc rc = xi_sessions_find_version(service->sessions, any ? NULL : who->tenant, plain,
                                             version, &s, err);
    if (rc != XI_OK)
        return rc;
    xi_oip_describe(s, ret);
    if (!flow)
        return XI_OK;
    if (!s->has_flow) {
        (void)xi_fail(err, XI_ENOENT, "\"%.60s\" has no flow", plain);
        return xi_hint(err, "its tensors are served as \"%.60s\"", plain);
    }
    describe_flow(ret);
    return XI_OK;
}

enum xi_rc xi_oip_has_ports(const struct xi_oip_model *m, struct xi_err *err)
{
    if (m->n_inputs > 0)
        return XI_OK;
    if (m->session->state == XI_SESSION_FAILED && m->session->why.rc != XI_OK) {
        *err = m->session->why;
        return err->rc;
    }
    (void)xi_fail(err, XI_EAGAIN, "\"%.60s\" was never loaded: its inputs are not known", m->name);
    return xi_hint(err, "the first inference loads it");
}

const char *xi_oip_version_at(struct xi_service *service, const struct xi_oip_model *m,
                              uint32_t index)
{
    const struct xi_session *s = NULL;

    while ((s = xi_sessions_each(service->sessions, (struct xi_session *)(uintptr_t)s)) != NULL)
        if (s->state != XI_SESSION_GONE && strcmp(s->name, m->session->name) == 0 &&
            strcmp(s->tenant, m->session->tenant) == 0 && index-- == 0)
            return s->version;
    return NULL;
}

const char *xi_oip_config_type(enum xi_dtype dtype)
{
    static const char *const names[] = {
        [XI_DT_BOOL] = "TYPE_BOOL",     [XI_DT_UINT8] = "TYPE_UINT8",
        [XI_DT_UINT16] = "TYPE_UINT16", [XI_DT_UINT32] = "TYPE_UINT32",
        [XI_DT_UINT64] = "TYPE_UINT64", [XI_DT_INT8] = "TYPE_INT8",
        [XI_DT_INT16] = "TYPE_INT16",   [XI_DT_INT32] = "TYPE_INT32",
        [XI_DT_INT64] = "TYPE_INT64",   [XI_DT_FP16] = "TYPE_FP16",
        [XI_DT_FP32] = "TYPE_FP32",     [XI_DT_FP64] = "TYPE_FP64",
        [XI_DT_BF16] = "TYPE_BF16",     [XI_DT_BYTES] = "TYPE_STRING"};

    if ((size_t)dtype < sizeof names / sizeof *names && names[dtype] != NULL)
        return names[dtype];
    return "TYPE_INVALID";
}

void xi_oip_statistics(const struct xi_session *s, struct xi_oip_statistics *ret)
{
    const struct xi_session_stats *t = &s->stats;
    uint64_t ago = xi_now_ms() - s->last_used_ms;

    memset(ret, 0, sizeof *ret);
    ret->last_inference_ms = t->ok > 0 ? xi_wall_ms() - ago : 0;
    ret->inferences = t->ok;
    ret->executions = t->runs;
    ret->success = (struct xi_oip_duration){t->ok, t->total.sum_us * 1000};
    ret->fail.count = t->client_errors + t->server_errors + t->expired + t->refused;
    ret->queue = (struct xi_oip_duration){t->queue.count, t->queue.sum_us * 1000};
    ret->compute_infer = (struct xi_oip_duration){t->device.count, t->device_ns};
    ret->cache_hit.count = t->cache_hits;
    ret->cache_miss.count = t->cache_misses;
    ret->memory_bytes = xi_describe_memory(s);
}

void xi_oip_logging(struct xi_oip_logging *ret)
{
    enum xi_log_level level = xi_log_get_level();

    ret->error = 1;
    ret->warning = level <= XI_WARN;
    ret->info = level <= XI_INFO;
    ret->verbose = level == XI_TRACE ? 2 : level == XI_DEBUG;
}

enum xi_rc xi_oip_logging_level(const struct xi_oip_logging *want, const char **ret,
                                struct xi_err *err)
{
    if (!want->error || (want->info && !want->warning))
        return xi_fail(err, XI_EUNSUPPORTED,
                       want->error ? "log_info needs log_warning" : "errors are always logged");
    *ret = xi_log_level_name(!want->warning       ? XI_ERROR
                             : !want->info        ? XI_WARN
                             : want->verbose == 0 ? XI_INFO
                             : want->verbose == 1 ? XI_DEBUG
                                                  : XI_TRACE);
    return XI_OK;
}

const struct xi_oip_trace_setting xi_oip_trace_settings[] = {{"trace_level", "OFF", 1},
                                                             {"trace_rate", "1000", 0},
                                                             {"trace_count", "-1", 0},
                                                             {"log_frequency", "0", 0},
                                                             {"trace_file", "", 0},
                                                             {"trace_mode", "triton", 0},
                                                             {NULL, NULL, 0}};

enum xi_rc xi_oip_trace_check(const char *name, const char *value, struct xi_err *err)
{
    const struct xi_oip_trace_setting *t = xi_oip_trace_settings;

    while (t->name != NULL && strcmp(t->name, name) != 0)
        t++;
    if (t->name == NULL)
        return xi_fail(err, XI_EINVAL, "there is no trace setting \"%.60s\"", name);
    if (value == NULL || strcmp(value, t->value) == 0)
        return XI_OK;
    (void)xi_fail(err, XI_EUNSUPPORTED, "%s: requests are not traced into files", name);
    return xi_hint(err, "every answer has Server-Timing; GET /v1/why/REQUEST tells of a slow one");
}
