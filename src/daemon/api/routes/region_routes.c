/* /v2/systemsharedmemory: the protocol's extension for memory that clients own (ipc/regions.h), and
 * what is to be said of the one for CUDA's, which is not here. */
#include <inttypes.h>
#include <string.h>

#include "base/json.h"
#include "daemon/api/connection.h"
#include "daemon/api/routes.h"

static const char *name_of(const struct xi_exchange *x)
{
    return x->param[0] != '\0' ? x->param : NULL;
}

static void answer_empty(struct xi_exchange *x)
{
    xi_str_clear(&x->body);
    xi_answer_body(x, 200, NULL);
}

static void add_region(void *ctx, const struct xi_region_view *view)
{
    struct xi_str *s = ctx;

    xi_str_puts(s, s->len > 1 ? ",{\"name\":" : "{\"name\":");
    xi_str_json(s, view->name);
    xi_str_puts(s, ",\"key\":");
    xi_str_json(s, view->key);
    xi_str_printf(s, ",\"offset\":%" PRIu64 ",\"byte_size\":%" PRIu64 "}", view->offset,
                  view->bytes);
}

void xi_region_status(struct xi_exchange *x)
{
    struct xi_err err;

    xi_str_clear(&x->body);
    xi_str_puts(&x->body, "[");
    uint32_t n = xi_regions_each(x->server->service->regions, x->who.tenant, name_of(x), add_region,
                                 &x->body);
    if (n == 0 && name_of(x) != NULL) {
        (void)xi_fail(&err, XI_ENOENT, "no region \"%.100s\" is registered", x->param);
        xi_answer_problem(x, &err);
        return;
    }
    xi_str_puts(&x->body, "]");
    xi_answer_body(x, 200, "application/json");
}

static enum xi_rc read_register(const json_t *obj, const char **ret_key, int64_t *ret_offset,
                                int64_t *ret_bytes, struct xi_err *err)
{
    static const char *const known[] = {"key", "offset", "byte_size", NULL};
    enum xi_rc rc = xi_json_known_keys(obj, "", known, err);

    *ret_offset = 0;
    if (rc == XI_OK)
        rc = xi_json_string(obj, "", "key", XI_JSON_REQUIRED, ret_key, err);
    if (rc == XI_OK)
        rc = xi_json_int(obj, "", "offset", XI_JSON_OPTIONAL, 0, INT64_MAX, ret_offset, err);
    if (rc == XI_OK)
        rc = xi_json_int(obj, "", "byte_size", XI_JSON_REQUIRED, 1, INT64_MAX, ret_bytes, err);
    return rc;
}

/* A key is a name on this machine: who only reaches it over the network does not choose among
 * what lies in its memory. */
enum xi_rc xi_region_allowed(const struct xi_exchange *x, struct xi_err *err)
{
    if (x->who.role >= XI_ROLE_CONTROL || xi_exchange_is_near(x))
        return XI_OK;
    (void)xi_fail(err, XI_EFORBIDDEN, "shared memory is registered from this machine only");
    return xi_hint(err, "or with a token whose role is control");
}

void xi_region_register(struct xi_exchange *x)
{
    const char *key = NULL;
    int64_t offset = 0, bytes = 0;
    struct xi_err err = {0};
    json_t *obj = xi_body_object(x);

    if (obj == NULL)
        return;
    enum xi_rc rc = xi_region_allowed(x, &err);
    if (rc == XI_OK)
        rc = read_register(obj, &key, &offset, &bytes, &err);
    if (rc == XI_OK)
        rc = xi_regions_register(x->server->service->regions, x->who.tenant, x->param, key,
                                 (uint64_t)offset, (uint64_t)bytes, &err);
    json_decref(obj);
    if (rc != XI_OK)
        xi_answer_problem(x, &err);
    else
        answer_empty(x);
}

void xi_region_unregister(struct xi_exchange *x)
{
    xi_regions_unregister(x->server->service->regions, x->who.tenant, name_of(x));
    answer_empty(x);
}

/* None is registered, so there is nothing to list and nothing to unregister. */
void xi_cuda_region_status(struct xi_exchange *x)
{
    xi_str_clear(&x->body);
    xi_str_puts(&x->body, "[]");
    xi_answer_body(x, 200, "application/json");
}

void xi_cuda_region_register(struct xi_exchange *x)
{
    struct xi_err err;

    (void)xi_fail(&err, XI_EUNSUPPORTED, "CUDA shared memory is not offered");
    (void)xi_hint(&err, "system shared memory is: /v2/systemsharedmemory");
    xi_answer_problem(x, &err);
}

void xi_cuda_region_unregister(struct xi_exchange *x)
{
    answer_empty(x);
}
