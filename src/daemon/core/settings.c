#include "daemon/core/settings.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/name.h"
#include "base/size.h"

/* A size as a number, or as text. */
static enum xi_rc read_size(const json_t *obj, const char *path, const char *key, uint64_t whole,
                            uint64_t *ret, struct xi_err *err)
{
    const json_t *v = json_object_get(obj, key);
    const char *text = json_string_value(v);

    if (v == NULL)
        return XI_OK;
    if (json_is_integer(v) && json_integer_value(v) >= 0) {
        *ret = (uint64_t)json_integer_value(v);
        return XI_OK;
    }
    if (text != NULL && xi_size_parse(text, whole, ret) == 0)
        return XI_OK;
    (void)xi_fail(err, XI_EINVAL, "%s%s%s is no size", path, *path ? "." : "", key);
    return xi_hint(err, "bytes as a number, or a text: \"512MiB\", \"2GiB\"%s",
                   whole != 0 ? ", \"80%\"" : "");
}

static enum xi_rc read_tenant(const char *name, const json_t *obj, struct xi_settings_tenant *ret,
                              struct xi_err *err)
{
    static const char *const known[] = {"weight", "memory", "rate", "queue", NULL};
    char path[XI_NAME_MAX + 16];
    int64_t weight = 1, queue = 0;
    enum xi_rc rc = xi_name_check(name, "tenants", err);

    if (rc != XI_OK)
        return rc;
    (void)snprintf(ret->name, sizeof ret->name, "%s", name);
    (void)snprintf(path, sizeof path, "tenants.%s", name);
    if (!json_is_object(obj))
        return xi_fail(err, XI_EINVAL, "%s must be an object", path);
    rc = xi_json_known_keys(obj, path, known, err);
    if (rc == XI_OK)
        rc = xi_json_int(obj, path, "weight", 0, 1, XI_TENANT_WEIGHT_MAX, &weight, err);
    if (rc == XI_OK)
        rc = read_size(obj, path, "memory", 0, &ret->limits.memory_bytes, err);
    if (rc == XI_OK)
        rc = xi_json_number(obj, path, "rate", 0, 0, 1e9, &ret->limits.rate_per_s, err);
    if (rc == XI_OK)
        rc = xi_json_int(obj, path, "queue", 0, 0, 1000000, &queue, err);
    ret->limits.weight = (uint32_t)weight;
    ret->limits.queue_limit = (uint32_t)queue;
    return rc;
}

static enum xi_rc read_model(const char *name, const json_t *obj, struct xi_settings_model *ret,
                             struct xi_err *err)
{
    static const char *const known[] = {"max_batch", "max_delay_ms", NULL};
    char path[XI_NAME_MAX + 16];
    int64_t batch = 0;
    double delay = 0;
    enum xi_rc rc = xi_name_check(name, "models", err);

    if (rc != XI_OK)
        return rc;
    (void)snprintf(ret->name, sizeof ret->name, "%s", name);
    (void)snprintf(path, sizeof path, "models.%s", name);
    if (!json_is_object(obj))
        return xi_fail(err, XI_EINVAL, "%s must be an object", path);
    rc = xi_json_known_keys(obj, path, known, err);
    if (rc == XI_OK)
        rc = xi_json_int(obj, path, "max_batch", 0, 1, XI_BATCH_MAX, &batch, err);
    if (rc == XI_OK)
        rc = xi_json_number(obj, path, "max_delay_ms", 0, 0, XI_MAX_DELAY_US_LIMIT / 1000.0, &delay,
                            err);
    ret->has_batch = batch != 0;
    ret->has_delay = json_object_get(obj, "max_delay_ms") != NULL;
    ret->max_batch = (uint32_t)batch;
    ret->max_delay_us = (uint32_t)(delay * 1000 + 0.5);
    return rc;
}

static enum xi_rc read_tenants(const json_t *doc, struct xi_settings *ret, struct xi_err *err)
{
    json_t *all = NULL, *value;
    const char *name;
    enum xi_rc rc = xi_json_object(doc, "", "tenants", XI_JSON_OPTIONAL, &all, err);

    if (rc != XI_OK || all == NULL || json_object_size(all) == 0)
        return rc;
    if (json_object_size(all) > XI_TENANTS_MAX)
        return xi_fail(err, XI_EINVAL, "tenants: more than %d", XI_TENANTS_MAX);
    ret->tenants = calloc(json_object_size(all), sizeof *ret->tenants);
    if (ret->tenants == NULL)
        return xi_fail(err, XI_ENOMEM, "no memory for settings");
    json_object_foreach(all, name, value)
    {
        rc = read_tenant(name, value, &ret->tenants[ret->n_tenants++], err);
        if (rc != XI_OK)
            return rc;
    }
    return XI_OK;
}

static enum xi_rc read_models(const json_t *doc, struct xi_settings *ret, struct xi_err *err)
{
    json_t *all = NULL, *value;
    const char *name;
    enum xi_rc rc = xi_json_object(doc, "", "models", XI_JSON_OPTIONAL, &all, err);

    if (rc != XI_OK || all == NULL || json_object_size(all) == 0)
        return rc;
    if (json_object_size(all) > XI_SESSIONS_MAX)
        return xi_fail(err, XI_EINVAL, "models: more than %d", XI_SESSIONS_MAX);
    ret->models = calloc(json_object_size(all), sizeof *ret->models);
    if (ret->models == NULL)
        return xi_fail(err, XI_ENOMEM, "no memory for settings");
    json_object_foreach(all, name, value)
    {
        rc = read_model(name, value, &ret->models[ret->n_models++], err);
        if (rc != XI_OK)
            return rc;
    }
    return XI_OK;
}

static enum xi_rc read_level(const json_t *doc, struct xi_settings *ret, struct xi_err *err)
{
    const char *text = NULL;
    enum xi_rc rc = xi_json_string(doc, "", "log_level", XI_JSON_OPTIONAL, &text, err);

    if (rc != XI_OK || text == NULL)
        return rc;
    ret->has_level = 1;
    if (xi_log_level_parse(text, &ret->level) == 0)
        return XI_OK;
    return xi_fail(err, XI_EINVAL,
                   "log_level: \"%.40s\" is none of trace, debug, info, warn and error", text);
}

enum xi_rc xi_settings_read(const json_t *doc, uint64_t whole, struct xi_settings *ret,
                            struct xi_err *err)
{
    static const char *const known[] = {"log_level", "memory", "tenants", "models", NULL};
    struct xi_settings s = {0};
    enum xi_rc rc = xi_json_known_keys(doc, "", known, err);

    if (rc == XI_OK)
        rc = read_level(doc, &s, err);
    if (rc == XI_OK)
        rc = read_size(doc, "", "memory", whole, &s.memory_bytes, err);
    s.has_memory = json_object_get(doc, "memory") != NULL;
    if (rc == XI_OK && s.has_memory && s.memory_bytes < 64 * XI_MIB)
        rc = xi_fail(err, XI_EINVAL, "memory is %llu bytes, at least 64MiB are needed",
                     (unsigned long long)s.memory_bytes);
    if (rc == XI_OK)
        rc = read_tenants(doc, &s, err);
    if (rc == XI_OK)
        rc = read_models(doc, &s, err);
    if (rc != XI_OK) {
        xi_settings_fini(&s);
        return rc;
    }
    *ret = s;
    return XI_OK;
}

void xi_settings_fini(struct xi_settings *s)
{
    free(s->tenants);
    free(s->models);
    *s = (struct xi_settings){0};
}

/* The depth is XI_JSON_DEPTH_MAX at most: whoever parsed the patch has seen to it. */
int xi_settings_merge(json_t *target, const json_t *patch)
{
    const char *key;
    json_t *value;

    json_object_foreach((json_t *)(uintptr_t)patch, key, value)
    {
        json_t *mine = json_object_get(target, key);
        if (json_is_null(value)) {
            (void)json_object_del(target, key);
        } else if (!json_is_object(value)) {
            if (json_object_set_new(target, key, json_deep_copy(value)) != 0)
                return -1;
        } else {
            if (!json_is_object(mine)) {
                mine = json_object();
                if (json_object_set_new(target, key, mine) != 0)
                    return -1;
            }
            if (xi_settings_merge(mine, value) != 0)
                return -1;
        }
    }
    return 0;
}
