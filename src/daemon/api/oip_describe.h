/* oip_describe.h: what the server and a model say of themselves in the protocol, as plain data:
 * HTTP and gRPC write the same facts. Loop thread; nothing is allocated, what is pointed to is the
 * session's and lives until the next turn. */
#ifndef XI_DAEMON_API_OIP_DESCRIBE_H
#define XI_DAEMON_API_OIP_DESCRIBE_H

#include "daemon/api/gate.h"
#include "daemon/core/service.h"

#define XI_OIP_SERVER     "xinfer"
#define XI_OIP_FLOW_PORTS 2

/* NULL behind the last. */
extern const char *const xi_oip_extensions[];
const char *xi_oip_server_version(void);

struct xi_oip_model {
    const struct xi_session *session;
    int flow; /* the name ended in @flow: its ports are the flow's */
    char name[XI_NAME_MAX + 8];
    const char *version, *platform, *backend, *device; /* platform: the engine */
    const struct xi_port_spec *inputs, *outputs;
    uint32_t n_inputs, n_outputs;
    /* Rows that may share a run, where every port's first dimension is free: the configuration's
     * dims then leave it out. 0: it takes no batches. */
    uint32_t max_batch;
    uint32_t instances;
    int sequences; /* requests of one sequence share a state */
    int ready;
};

/* Finds a model without waking it. ENOENT, EGONE; EINVAL for a version that is none. */
enum xi_rc xi_oip_find(struct xi_service *service, const struct xi_identity *who, const char *name,
                       const char *version, struct xi_oip_model *ret,
                       struct xi_err *err) XI_MUST_CHECK;
/* EAGAIN while its ports are not known: it has never been loaded. */
enum xi_rc xi_oip_has_ports(const struct xi_oip_model *model, struct xi_err *err) XI_MUST_CHECK;
/* The same of a session that is at hand; not of its flow. */
void xi_oip_describe(const struct xi_session *session, struct xi_oip_model *ret);
/* The index-th version of this name that is loaded; NULL: no more. */
const char *xi_oip_version_at(struct xi_service *service, const struct xi_oip_model *model,
                              uint32_t index);
/* "TYPE_FP32", as the configuration spells a datatype. */
const char *xi_oip_config_type(enum xi_dtype dtype);

struct xi_oip_duration {
    uint64_t count, ns;
};
struct xi_oip_statistics {
    uint64_t last_inference_ms; /* since 1970; 0: none yet */
    uint64_t inferences, executions;
    struct xi_oip_duration success, fail, queue, compute_input, compute_infer, compute_output,
        cache_hit, cache_miss;
    uint64_t memory_bytes;
};
void xi_oip_statistics(const struct xi_session *session, struct xi_oip_statistics *ret);

/* Logging: what there is of the protocol's settings. */
struct xi_oip_logging {
    int info, warning, error;
    uint32_t verbose;
};
void xi_oip_logging(struct xi_oip_logging *ret);
/* The level that has these settings, as the service's configuration spells it. EUNSUPPORTED. */
enum xi_rc xi_oip_logging_level(const struct xi_oip_logging *want, const char **ret,
                                struct xi_err *err) XI_MUST_CHECK;

/* Tracing: it is off and stays so; a NULL name ends the list. */
struct xi_oip_trace_setting {
    const char *name, *value;
    int list; /* in JSON an array */
};
extern const struct xi_oip_trace_setting xi_oip_trace_settings[];
/* May the setting have this value? value NULL: back to what it was. EINVAL: there is no such
 * setting; EUNSUPPORTED: it may not. */
enum xi_rc xi_oip_trace_check(const char *name, const char *value,
                              struct xi_err *err) XI_MUST_CHECK;

#endif
