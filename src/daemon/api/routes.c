#include "daemon/api/routes.h"

#include <stdio.h>
#include <string.h>

#include "base/name.h"
#include "daemon/api/exchange.h"

#define CONTROL_MAX (256 * XI_KIB)
#define INFER_TYPES (XI_TYPE_JSON | XI_TYPE_JPEG | XI_TYPE_PNG | XI_TYPE_WAV | XI_TYPE_OCTETS)

static const struct xi_route routes[] = {
    {"POST", "/v1/control/load", XI_ROLE_CONTROL, XI_TAKES_TEXT, CONTROL_MAX, XI_TYPE_JSON, NULL,
     NULL, xi_control_load, "Load a package that was uploaded"},
    {"POST", "/v1/control/unload", XI_ROLE_CONTROL, XI_TAKES_TEXT, CONTROL_MAX, XI_TYPE_JSON, NULL,
     NULL, xi_control_unload, "Drain a session and free what it holds"},
    {"POST", "/v1/control/promote", XI_ROLE_CONTROL, XI_TAKES_TEXT, CONTROL_MAX, XI_TYPE_JSON, NULL,
     NULL, xi_control_promote, "End a canary or shadow: the new session takes over"},
    {"POST", "/v1/control/rollback", XI_ROLE_CONTROL, XI_TAKES_TEXT, CONTROL_MAX, XI_TYPE_JSON,
     NULL, NULL, xi_control_rollback, "End a swap: the old session serves on"},
    {"POST", "/v1/leases", XI_ROLE_CONTROL, XI_TAKES_TEXT, CONTROL_MAX, XI_TYPE_JSON, NULL, NULL,
     xi_lease_begin, "Keep a session in memory for a while"},
    {"POST", "/v1/leases/{id}", XI_ROLE_CONTROL, XI_TAKES_TEXT, CONTROL_MAX, XI_TYPE_JSON, NULL,
     NULL, xi_lease_renew, "Renew a lease"},
    {"DELETE", "/v1/leases/{id}", XI_ROLE_CONTROL, XI_TAKES_NOTHING, 0, 0, NULL, NULL, xi_lease_end,
     "End a lease"},
    {"POST", "/v1/control/configure", XI_ROLE_ADMIN, XI_TAKES_TEXT, CONTROL_MAX, XI_TYPE_JSON, NULL,
     NULL, xi_control_configure, "Change settings while the daemon runs; all of them or none"},
    {"GET", "/v1/control/configure", XI_ROLE_ADMIN, XI_TAKES_NOTHING, 0, 0, NULL, NULL,
     xi_control_settings, "The settings that are in force"},
    {"POST", "/v1/control/packages", XI_ROLE_CONTROL, XI_TAKES_OWN, XI_PACKAGE_MAX, XI_TYPE_PACKAGE,
     xi_control_upload_begin, xi_control_upload_full, xi_control_upload_end, "Upload a package"},
    {"GET", "/v1/packages", XI_ROLE_INFER, XI_TAKES_NOTHING, 0, 0, NULL, NULL, xi_system_packages,
     "List the packages in the store"},
    {"GET", "/v1/packages/{digest}", XI_ROLE_INFER, XI_TAKES_NOTHING, 0, 0, NULL, NULL,
     xi_system_package, "One package, by digest, name or name:version"},
    {"DELETE", "/v1/packages/{digest}", XI_ROLE_CONTROL, XI_TAKES_NOTHING, 0, 0, NULL, NULL,
     xi_control_package_delete, "Remove a package that is not loaded"},
    {"GET", "/v1/models", XI_ROLE_INFER, XI_TAKES_NOTHING, 0, 0, NULL, NULL, xi_system_models,
     "List the sessions (loaded packages)"},
    {"GET", "/v1/models/{id}", XI_ROLE_INFER, XI_TAKES_NOTHING, 0, 0, NULL, NULL, xi_system_model,
     "One session, by id or name"},
    {"POST", "/v1/infer/{id}", XI_ROLE_INFER, XI_TAKES_SLOT, XI_BODY_MAX, INFER_TYPES,
     xi_infer_begin, NULL, xi_infer_run, "Run a session on an input"},
    {"GET", "/v1/why/{id}", XI_ROLE_INFER, XI_TAKES_NOTHING, 0, 0, NULL, NULL, xi_system_why,
     "Why a session or a request (by number) was refused, evicted, restarted or slow"},
    {"GET", "/v1/telemetry", XI_ROLE_INFER, XI_TAKES_NOTHING, 0, 0, NULL, NULL, xi_telemetry_get,
     "Load, temperatures, memory, rates and latencies"},
    {"GET", "/v1/telemetry/stream", XI_ROLE_INFER, XI_TAKES_NOTHING, 0, 0, NULL, NULL,
     xi_telemetry_stream, "The same again and again (server-sent events)"},
    {"GET", "/v1/events", XI_ROLE_CONTROL, XI_TAKES_NOTHING, 0, 0, NULL, NULL, xi_events_list,
     "The last events of the log"},
    {"GET", "/v1/events/stream", XI_ROLE_CONTROL, XI_TAKES_NOTHING, 0, 0, NULL, NULL,
     xi_events_stream, "Events as they happen (server-sent events)"},
    {"GET", "/v1/device/capabilities", XI_ROLE_INFER, XI_TAKES_NOTHING, 0, 0, NULL, NULL,
     xi_system_capabilities, "Engines and devices, and what is missing"},
    {"GET", "/v1/health/live", XI_ROLE_PUBLIC, XI_TAKES_NOTHING, 0, 0, NULL, NULL, xi_system_live,
     "200 while the daemon runs"},
    {"GET", "/v1/health/ready", XI_ROLE_PUBLIC, XI_TAKES_NOTHING, 0, 0, NULL, NULL, xi_system_ready,
     "200 when everything that should be loaded is ready"},
    {"GET", "/metrics", XI_ROLE_ADMIN, XI_TAKES_NOTHING, 0, 0, NULL, NULL, xi_system_metrics,
     "Counters for Prometheus"},
    {"GET", "/v1/openapi.json", XI_ROLE_PUBLIC, XI_TAKES_NOTHING, 0, 0, NULL, NULL,
     xi_system_openapi, "This description"},
    {"GET", "/v2/systemsharedmemory/status", XI_ROLE_INFER, XI_TAKES_NOTHING, 0, 0, NULL, NULL,
     xi_region_status, "List the shared memory regions that are registered"},
    {"GET", "/v2/systemsharedmemory/region/{region}/status", XI_ROLE_INFER, XI_TAKES_NOTHING, 0, 0,
     NULL, NULL, xi_region_status, "One region"},
    {"POST", "/v2/systemsharedmemory/region/{region}/register", XI_ROLE_INFER, XI_TAKES_TEXT,
     CONTROL_MAX, XI_TYPE_JSON | XI_TYPE_ANY, NULL, NULL, xi_region_register,
     "Register shared memory, by key, for inputs and outputs"},
    {"POST", "/v2/systemsharedmemory/region/{region}/unregister", XI_ROLE_INFER, XI_TAKES_NOTHING,
     0, 0, NULL, NULL, xi_region_unregister, "Unregister a region"},
    {"POST", "/v2/systemsharedmemory/unregister", XI_ROLE_INFER, XI_TAKES_NOTHING, 0, 0, NULL, NULL,
     xi_region_unregister, "Unregister all regions"},
    {"GET", "/v2/cudasharedmemory/status", XI_ROLE_INFER, XI_TAKES_NOTHING, 0, 0, NULL, NULL,
     xi_cuda_region_status, "CUDA's shared memory: none is registered"},
    {"GET", "/v2/cudasharedmemory/region/{region}/status", XI_ROLE_INFER, XI_TAKES_NOTHING, 0, 0,
     NULL, NULL, xi_cuda_region_status, "CUDA's shared memory: none is registered"},
    {"POST", "/v2/cudasharedmemory/region/{region}/register", XI_ROLE_INFER, XI_TAKES_TEXT,
     CONTROL_MAX, XI_TYPE_JSON | XI_TYPE_ANY, NULL, NULL, xi_cuda_region_register,
     "CUDA's shared memory: not offered"},
    {"POST", "/v2/cudasharedmemory/region/{region}/unregister", XI_ROLE_INFER, XI_TAKES_NOTHING, 0,
     0, NULL, NULL, xi_cuda_region_unregister, "CUDA's shared memory: none is registered"},
    {"POST", "/v2/cudasharedmemory/unregister", XI_ROLE_INFER, XI_TAKES_NOTHING, 0, 0, NULL, NULL,
     xi_cuda_region_unregister, "CUDA's shared memory: none is registered"},
    {"POST", "/v1/echo", XI_ROLE_INFER, XI_TAKES_SLOT, XI_BODY_MAX, XI_TYPE_ANY, NULL, NULL,
     xi_echo_run, "Answers the body it was sent, to measure the wire"},
};

enum { N_ROUTES = sizeof routes / sizeof *routes };

size_t xi_routes_count(void)
{
    size_t n = 0;

    while (xi_grpc_route_at(n) != NULL)
        n++;
    return N_ROUTES + n;
}

const struct xi_route *xi_route_at(size_t i)
{
    return i < N_ROUTES ? &routes[i] : xi_grpc_route_at(i - N_ROUTES);
}

static const struct {
    unsigned bit;
    const char *type;
} types[] = {
    {XI_TYPE_JSON, "application/json"}, {XI_TYPE_PACKAGE, "application/vnd.xinfer.xpkg"},
    {XI_TYPE_JPEG, "image/jpeg"},       {XI_TYPE_PNG, "image/png"},
    {XI_TYPE_WAV, "audio/wav"},         {XI_TYPE_WAV, "audio/x-wav"},
    {XI_TYPE_WAV, "audio/vnd.wave"},    {XI_TYPE_OCTETS, "application/octet-stream"},
    {XI_TYPE_GRPC, "application/grpc"}, {XI_TYPE_GRPC, "application/grpc+proto"},
};

unsigned xi_type_bit(const char *media_type)
{
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (strcmp(types[i].type, media_type) == 0)
            return types[i].bit;
    return 0;
}

/* A {…} segment of a path as it stands there. */
struct segment {
    const char *at;
    size_t n;
};

/* Byte by byte: no spelling of a path reaches a route but its own. What stands for the {…} segments
 * goes to ret. */
static int path_matches(const char *pattern, const char *path, struct segment ret[2])
{
    unsigned found = 0;

    ret[0] = ret[1] = (struct segment){NULL, 0};
    while (*pattern != '\0') {
        if (*pattern != '{') {
            if (*pattern++ != *path++)
                return 0;
            continue;
        }
        pattern += strcspn(pattern, "}") + 1;
        ret[found] = (struct segment){path, strcspn(path, "/")};
        if (ret[found].n == 0)
            return 0;
        path += ret[found++].n;
    }
    return *path == '\0';
}

/* A region's name is its client's to choose (ipc/regions.h). */
static int is_checked(const struct xi_route *route)
{
    return strstr(route->path, "{region}") == NULL;
}

/* A name, an id, a digest ("sha256:" may stand before it), name:version, or name@flow. */
static enum xi_rc check_param(const char *text, struct xi_err *err)
{
    char half[XI_PARAM_MAX + 1];
    const char *colon = strchr(text, ':');
    size_t n = colon ? (size_t)(colon - text) : strlen(text);

    memcpy(half, text, n);
    half[n] = '\0';
    if (colon == NULL && n > 5 && strcmp(half + n - 5, "@flow") == 0)
        half[n - 5] = '\0';
    enum xi_rc rc = xi_name_check(half, "name", err);
    if (rc == XI_OK && colon != NULL && !xi_name_valid(colon + 1) && !xi_semver_valid(colon + 1))
        rc = xi_fail(err, XI_EINVAL, "\"%.60s\" is no version", colon + 1);
    return rc;
}

/* SemVer, or a bare number. */
static enum xi_rc check_version(const char *text, struct xi_err *err)
{
    if (xi_semver_valid(text) || strspn(text, "0123456789") == strlen(text))
        return XI_OK;
    (void)xi_fail(err, XI_EINVAL, "\"%.60s\" is no version", text);
    return xi_hint(err, "such as 1.4.0, or 2 for 2.0.0");
}

static enum xi_rc read_params(const struct xi_route *route, const struct segment found[2],
                              char param[XI_PARAM_MAX + 1], char version[XI_VERSION_MAX + 1],
                              struct xi_err *err)
{
    enum xi_rc rc = XI_OK;

    param[0] = version[0] = '\0';
    if (found[0].at != NULL) {
        rc = xi_http_percent_decode(found[0].at, found[0].n, param, XI_PARAM_MAX + 1, err);
        if (rc == XI_OK && is_checked(route))
            rc = check_param(param, err);
    }
    if (rc == XI_OK && found[1].at != NULL) {
        rc = xi_http_percent_decode(found[1].at, found[1].n, version, XI_VERSION_MAX + 1, err);
        if (rc == XI_OK)
            rc = check_version(version, err);
    }
    return rc;
}

static void add_allow(char allow[64], const char *method)
{
    size_t n = strlen(allow);

    (void)snprintf(allow + n, 64 - n, "%s%s%s", n ? ", " : "", method,
                   strcmp(method, "GET") == 0 ? ", HEAD" : "");
}

enum xi_rc xi_route_find(const char *method, const char *path, const struct xi_route **ret,
                         char param[XI_PARAM_MAX + 1], char version[XI_VERSION_MAX + 1],
                         char ret_allow[64], struct xi_err *err)
{
    const struct xi_route *r;
    struct segment found[2];

    ret_allow[0] = '\0';
    if (strcmp(method, "HEAD") == 0)
        method = "GET";
    for (size_t i = xi_grpc_path(path) ? N_ROUTES : 0; (r = xi_route_at(i)) != NULL; i++) {
        if (!path_matches(r->path, path, found))
            continue;
        if (strcmp(r->method, method) != 0) {
            add_allow(ret_allow, r->method);
            continue;
        }
        *ret = r;
        return read_params(r, found, param, version, err);
    }
    if (ret_allow[0] != '\0')
        return xi_fail(err, XI_EMETHOD, "%s is not allowed here, only %s", method, ret_allow);
    (void)xi_fail(err, XI_EROUTE, "no route \"%.100s\"", path);
    return xi_hint(err, "GET /v1/openapi.json lists all routes");
}

/* ---- queries: "name=value&…", plain whole numbers so far ---- */

/* What may stand behind the ? of a path; nothing for all others. */
static const struct {
    const char *path, *names[2];
} queries[] = {
    {"/v1/events", {"last", NULL}},
    {"/v1/events/stream", {"last", NULL}},
    {"/v1/telemetry/stream", {"interval_ms", NULL}},
};

static const char *const *known_query(const struct xi_route *route)
{
    static const char *const none[] = {NULL};

    for (size_t i = 0; i < sizeof queries / sizeof *queries; i++)
        if (strcmp(queries[i].path, route->path) == 0)
            return queries[i].names;
    return none;
}

enum xi_rc xi_route_query_check(const struct xi_route *route, const char *query, struct xi_err *err)
{
    const char *const *known = known_query(route);
    unsigned seen = 0;

    while (*query) {
        size_t n = strcspn(query, "&"), name = strcspn(query, "=&");
        unsigned i = 0;
        while (known[i] != NULL && (strlen(known[i]) != name || memcmp(known[i], query, name) != 0))
            i++;
        if (known[i] == NULL || n == name)
            return xi_fail(err, XI_EINVAL, "?%.*s: %s does not know it", (int)(n < 60 ? n : 60),
                           query, route->path);
        if (seen & 1u << i)
            return xi_fail(err, XI_EINVAL, "?%s stands there twice", known[i]);
        seen |= 1u << i;
        query += n;
        if (*query == '&' && *++query == '\0')
            return xi_fail(err, XI_EINVAL, "nothing stands behind the last & of the query");
    }
    return XI_OK;
}

enum xi_rc xi_query_uint(const char *query, const char *name, uint64_t min, uint64_t max,
                         uint64_t *ret, struct xi_err *err)
{
    size_t n = strlen(name), len;
    uint64_t v = 0;

    while (strncmp(query, name, n) != 0 || query[n] != '=') {
        query += strcspn(query, "&");
        if (*query == '\0')
            return XI_OK;
        query++;
    }
    query += n + 1;
    len = strspn(query, "0123456789");
    if (len == 0 || len > 15 || (query[len] != '\0' && query[len] != '&'))
        return xi_fail(err, XI_EINVAL, "?%s takes a whole number", name);
    for (size_t i = 0; i < len; i++)
        v = v * 10 + (uint64_t)(query[i] - '0');
    if (v < min || v > max)
        return xi_fail(err, XI_EINVAL, "?%s=%llu: it takes %llu to %llu", name,
                       (unsigned long long)v, (unsigned long long)min, (unsigned long long)max);
    *ret = v;
    return XI_OK;
}

static void describe_body(struct xi_str *s, const struct xi_route *r)
{
    const char *comma = "";

    xi_str_puts(s, ",\"requestBody\":{\"required\":true,\"content\":{");
    if (r->types & XI_TYPE_ANY) {
        xi_str_puts(s, "\"*/*\":{}");
        comma = ",";
    }
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (r->types & types[i].bit) {
            xi_str_printf(s, "%s\"%s\":{}", comma, types[i].type);
            comma = ",";
        }
    xi_str_printf(s, "}},\"x-body-limit\":%llu", (unsigned long long)r->body_limit);
}

/* Both kinds of parameters, which are one list. */
static void describe_params(struct xi_str *s, const struct xi_route *r)
{
    const char *brace = strchr(r->path, '{'), *comma = "";
    const char *const *names = known_query(r);

    if (brace == NULL && *names == NULL)
        return;
    xi_str_puts(s, ",\"parameters\":[");
    for (; brace != NULL; brace = strchr(brace + 1, '{'), comma = ",")
        xi_str_printf(s,
                      "%s{\"name\":\"%.*s\",\"in\":\"path\",\"required\":true,"
                      "\"schema\":{\"type\":\"string\"}}",
                      comma, (int)strcspn(brace, "}") - 1, brace + 1);
    for (; *names != NULL; names++, comma = ",")
        xi_str_printf(s,
                      "%s{\"name\":\"%s\",\"in\":\"query\",\"required\":false,"
                      "\"schema\":{\"type\":\"integer\"}}",
                      comma, *names);
    xi_str_puts(s, "]");
}

static void describe(struct xi_str *s, const struct xi_route *r)
{
    xi_str_printf(s, "\"%c%c%c%s\":{\"summary\":", r->method[0] | 32, r->method[1] | 32,
                  r->method[2] | 32,
                  strcmp(r->method, "POST") == 0     ? "t"
                  : strcmp(r->method, "DELETE") == 0 ? "ete"
                                                     : "");
    xi_str_json(s, r->summary);
    xi_str_printf(s, ",\"x-role\":\"%s\"", xi_role_name(r->role));
    describe_params(s, r);
    if (r->body != XI_TAKES_NOTHING)
        describe_body(s, r);
    xi_str_puts(s, ",\"responses\":{\"200\":{\"description\":\"success\"},\"default\":{"
                   "\"description\":\"a problem document\",\"content\":{"
                   "\"application/problem+json\":{\"schema\":{\"$ref\":"
                   "\"#/components/schemas/Problem\"}}}}}}");
}

void xi_routes_openapi(struct xi_str *s)
{
    xi_str_puts(s, "{\"openapi\":\"3.1.0\",\"info\":{\"title\":\"xInfer\",\"version\":\"1\"},"
                   "\"paths\":{");
    for (size_t i = 0; i < N_ROUTES; i++) {
        int same = i > 0 && strcmp(routes[i].path, routes[i - 1].path) == 0;
        if (same)
            xi_str_puts(s, ",");
        else
            xi_str_printf(s, "%s\"%s\":{", i ? "}," : "", routes[i].path);
        describe(s, &routes[i]);
    }
    xi_str_puts(s, "}},\"components\":{\"schemas\":{\"Problem\":{\"type\":\"object\","
                   "\"required\":[\"type\",\"title\",\"status\",\"detail\",\"code\"],"
                   "\"properties\":{\"type\":{\"type\":\"string\"},\"title\":{\"type\":"
                   "\"string\"},\"status\":{\"type\":\"integer\"},\"detail\":{\"type\":"
                   "\"string\"},\"code\":{\"type\":\"string\"},\"hint\":{\"type\":\"string\"}"
                   "}}}}}");
}
