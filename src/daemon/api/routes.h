/* routes.h: the one table of everything a client can ask; the OpenAPI description is made from
 * it, and a test walks it. Handlers stand in routes/. */
#ifndef XI_DAEMON_API_ROUTES_H
#define XI_DAEMON_API_ROUTES_H

#include <stddef.h>
#include <stdint.h>

#include "base/limits.h"
#include "base/str.h"
#include "daemon/api/gate.h"

struct xi_exchange;

#define XI_PARAM_MAX   (XI_NAME_MAX + 8) /* name@flow is longer than a name */
#define XI_VERSION_MAX 71

enum xi_body_kind {
    XI_TAKES_NOTHING = 0,
    XI_TAKES_TEXT, /* small JSON, in private memory */
    XI_TAKES_SLOT, /* into shared memory, straight from the socket */
    XI_TAKES_OWN   /* the handler's `begin` says where it goes */
};

/* Content types a route accepts (bits). */
enum {
    XI_TYPE_JSON = 1,
    XI_TYPE_PACKAGE = 2,
    XI_TYPE_JPEG = 4,
    XI_TYPE_PNG = 8,
    XI_TYPE_OCTETS = 16,
    XI_TYPE_ANY = 32, /* also none at all */
    XI_TYPE_WAV = 64,
    XI_TYPE_GRPC = 128
};

struct xi_route {
    const char *method, *path; /* the path may hold two {…} segments: a name and a version */
    enum xi_role role;
    enum xi_body_kind body;
    uint64_t body_limit;
    unsigned types;
    /* The head has passed the gate. SLOT: calls xi_body_slot or answers; OWN: sets a sink or
     * answers. May be NULL. */
    void (*begin)(struct xi_exchange *x);
    void (*full)(struct xi_exchange *x); /* OWN: the sink is full */
    void (*run)(struct xi_exchange *x);  /* the body is complete */
    const char *summary;
};

size_t xi_routes_count(void);
const struct xi_route *xi_route_at(size_t i);
/* EROUTE, EMETHOD (ret_allow gets the methods), EINVAL for a parameter that is no name or no
 * version. HEAD finds GET. param and version are decoded; "" where the path has none. */
enum xi_rc xi_route_find(const char *method, const char *path, const struct xi_route **ret,
                         char param[XI_PARAM_MAX + 1], char version[XI_VERSION_MAX + 1],
                         char ret_allow[64], struct xi_err *err) XI_MUST_CHECK;
/* EINVAL for a name that the route does not know, twice the same name, or a broken escape. */
enum xi_rc xi_route_query_check(const struct xi_route *route, const char *query,
                                struct xi_err *err) XI_MUST_CHECK;
/* A whole number of a query that was checked; absent: *ret keeps what it held. EINVAL. */
enum xi_rc xi_query_uint(const char *query, const char *name, uint64_t min, uint64_t max,
                         uint64_t *ret, struct xi_err *err) XI_MUST_CHECK;
unsigned xi_type_bit(const char *media_type);
void xi_routes_openapi(struct xi_str *s);

/* grpc_methods.c: the rows of gRPC, which stand behind all others; NULL past the last. Does a path
 * look like one of theirs? */
const struct xi_route *xi_grpc_route_at(size_t i);
int xi_grpc_path(const char *path);

/* routes/load_routes.c */
void xi_control_load(struct xi_exchange *x);
void xi_control_unload(struct xi_exchange *x);
void xi_control_promote(struct xi_exchange *x);
void xi_control_rollback(struct xi_exchange *x);
/* routes/lease_routes.c */
void xi_lease_begin(struct xi_exchange *x);
void xi_lease_renew(struct xi_exchange *x);
void xi_lease_end(struct xi_exchange *x);
/* routes/control_routes.c */
/* routes/configure_routes.c */
void xi_control_configure(struct xi_exchange *x);
void xi_control_settings(struct xi_exchange *x);
/* routes/control_routes.c */
void xi_control_upload_begin(struct xi_exchange *x);
void xi_control_upload_full(struct xi_exchange *x);
void xi_control_upload_end(struct xi_exchange *x);
void xi_control_package_delete(struct xi_exchange *x);
/* routes/system_routes.c */
void xi_system_packages(struct xi_exchange *x);
void xi_system_package(struct xi_exchange *x);
void xi_system_models(struct xi_exchange *x);
void xi_system_model(struct xi_exchange *x);
void xi_system_capabilities(struct xi_exchange *x);
void xi_system_live(struct xi_exchange *x);
void xi_system_ready(struct xi_exchange *x);
void xi_system_openapi(struct xi_exchange *x);
void xi_system_metrics(struct xi_exchange *x);
/* routes/telemetry_routes.c */
void xi_telemetry_get(struct xi_exchange *x);
void xi_telemetry_stream(struct xi_exchange *x);
/* routes/event_routes.c */
void xi_events_list(struct xi_exchange *x);
void xi_events_stream(struct xi_exchange *x);
/* routes/why_routes.c */
void xi_system_why(struct xi_exchange *x);
/* routes/region_routes.c */
enum xi_rc xi_region_allowed(const struct xi_exchange *x, struct xi_err *err) XI_MUST_CHECK;
void xi_region_status(struct xi_exchange *x);
void xi_region_register(struct xi_exchange *x);
void xi_region_unregister(struct xi_exchange *x);
void xi_cuda_region_status(struct xi_exchange *x);
void xi_cuda_region_register(struct xi_exchange *x);
void xi_cuda_region_unregister(struct xi_exchange *x);
/* routes/infer_routes.c */
void xi_infer_begin(struct xi_exchange *x);
void xi_infer_run(struct xi_exchange *x);
void xi_echo_run(struct xi_exchange *x);

#endif
