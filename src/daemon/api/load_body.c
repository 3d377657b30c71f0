#include "daemon/api/load_body.h"

#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "base/name.h"
#include "base/size.h"
#include "daemon/core/settings.h"

#define TRIAL_S     30
#define TRIAL_S_MAX 86400
#define IDLE_S_MAX  31536000

enum xi_rc xi_body_text_of(const json_t *obj, const char *path, const char *key, int required,
                           char *ret, size_t room, struct xi_err *err)
{
    const char *text = NULL;
    enum xi_rc rc = xi_json_string(obj, path, key, required, &text, err);

    if (rc != XI_OK || text == NULL)
        return rc;
    if (strlen(text) >= room)
        return xi_fail(err, XI_EINVAL, "%s is longer than %zu characters", key, room - 1);
    (void)snprintf(ret, room, "%s", text);
    return XI_OK;
}

enum xi_rc xi_body_tenant(const struct xi_exchange *x, const json_t *obj, char ret[XI_NAME_MAX + 1],
                          struct xi_err *err)
{
    enum xi_rc rc;

    (void)snprintf(ret, XI_NAME_MAX + 1, "%s", x->who.tenant);
    rc = xi_body_text_of(obj, "", "tenant", XI_JSON_OPTIONAL, ret, XI_NAME_MAX + 1, err);
    if (rc == XI_OK)
        rc = xi_name_check(ret, "tenant", err);
    if (rc == XI_OK && strcmp(ret, x->who.tenant) != 0 && x->who.role != XI_ROLE_ADMIN)
        rc = xi_fail(err, XI_EFORBIDDEN, "only an administrator may name a tenant");
    return rc;
}

/* One word of a NULL-terminated list; *ret (its place) is left alone when the key is absent. */
static enum xi_rc read_word(const json_t *obj, const char *path, const char *key,
                            const char *const *words, int *ret, struct xi_err *err)
{
    const char *text = NULL, *nearest;
    char all[80] = "";
    size_t used = 0;
    enum xi_rc rc = xi_json_string(obj, path, key, XI_JSON_OPTIONAL, &text, err);

    if (rc != XI_OK || text == NULL)
        return rc;
    for (int i = 0; words[i] != NULL; i++)
        if (strcmp(words[i], text) == 0) {
            *ret = i;
            return XI_OK;
        }
    nearest = xi_nearest(text, words);
    for (int i = 0; words[i] != NULL && used < sizeof all; i++)
        used += (size_t)snprintf(all + used, sizeof all - used, "%s%s", i ? ", " : "", words[i]);
    (void)xi_fail(err, XI_EINVAL, "%s: \"%.20s\" is none of %s", key, text, all);
    return nearest != NULL ? xi_hint(err, "did you mean %s?", nearest) : XI_EINVAL;
}

struct number {
    const char *key;
    uint32_t *ret;
    int64_t max;
};

static enum xi_rc read_numbers(const json_t *options, struct xi_load_options *o, struct xi_err *err)
{
    const struct number numbers[] = {{"instances", &o->instances, XI_LANES_MAX},
                                     {"threads", &o->threads, 256},
                                     {"max_batch", &o->max_batch, XI_BATCH_MAX},
                                     {"keep_alive_s", &o->keep_alive_s, IDLE_S_MAX},
                                     {"sequence_idle_s", &o->sequence_idle_s, 86400}};
    double delay_ms = 0;
    enum xi_rc rc = XI_OK;

    for (size_t i = 0; rc == XI_OK && i < sizeof numbers / sizeof *numbers; i++) {
        int64_t value = 0;
        rc = xi_json_int(options, "options", numbers[i].key, 0, 0, numbers[i].max, &value, err);
        *numbers[i].ret = (uint32_t)value;
    }
    if (rc == XI_OK)
        rc = xi_json_number(options, "options", "max_delay_ms", 0, 0,
                            XI_MAX_DELAY_US_LIMIT / 1000.0, &delay_ms, err);
    o->max_delay_us = (uint32_t)(delay_ms * 1000);
    return rc;
}

/* "64MiB", or a number of bytes. */
static enum xi_rc read_cache(const json_t *options, uint64_t *ret, struct xi_err *err)
{
    const json_t *value = json_object_get(options, "cache");
    uint64_t bytes = 0;
    int good = value == NULL || (json_is_integer(value) && json_integer_value(value) >= 0);

    if (good)
        bytes = value == NULL ? 0 : (uint64_t)json_integer_value(value);
    else
        good = json_is_string(value) && xi_size_parse(json_string_value(value), 0, &bytes) == 0;
    if (!good || bytes > XI_CACHE_MAX) {
        (void)xi_fail(err, XI_EINVAL, "options.cache is no size up to 16 GiB");
        return xi_hint(err, "such as \"64MiB\"; 0: no cache");
    }
    *ret = bytes;
    return XI_OK;
}

static enum xi_rc read_options(const json_t *obj, struct xi_load_options *o, struct xi_err *err)
{
    static const char *const known[] = {
        "instances", "threads", "max_batch", "max_delay_ms", "max_shape",
        "precision", "variant", "golden",    "keep_alive_s", "sequence_idle_s",
        "isolation", "cache",   NULL};
    static const char *const isolations[] = {"auto", "session", "tenant", "device", NULL};
    json_t *options = NULL;
    int isolation = XI_ISOLATE_AUTO;
    enum xi_rc rc = xi_json_object(obj, "", "options", XI_JSON_OPTIONAL, &options, err);

    if (rc != XI_OK || options == NULL)
        return rc;
    rc = xi_json_known_keys(options, "options", known, err);
    if (rc == XI_OK)
        rc = read_numbers(options, o, err);
    if (rc == XI_OK)
        rc = xi_body_text_of(options, "options", "precision", 0, o->precision, sizeof o->precision,
                             err);
    if (rc == XI_OK)
        rc = xi_body_text_of(options, "options", "variant", 0, o->variant, sizeof o->variant, err);
    if (rc == XI_OK)
        rc = xi_body_text_of(options, "options", "max_shape", 0, o->max_shape, sizeof o->max_shape,
                             err);
    if (rc == XI_OK)
        rc = xi_json_bool(options, "options", "golden", 0, &o->golden, err);
    if (rc == XI_OK)
        rc = read_word(options, "options", "isolation", isolations, &isolation, err);
    if (rc == XI_OK)
        rc = read_cache(options, &o->cache_bytes, err);
    o->isolation = (enum xi_isolation)isolation;
    return rc;
}

static enum xi_rc check_swap(const struct xi_load_request *r, int has_strategy, double canary,
                             struct xi_err *err)
{
    if (!r->replace && (has_strategy || canary > 0)) {
        (void)xi_fail(err, XI_EINVAL, "canary and strategy say how to replace a session");
        return xi_hint(err, "say --replace (\"replace\": true) too");
    }
    if (canary > 0 && canary < 0.001)
        return xi_fail(err, XI_EINVAL, "canary: a share is at least 0.001");
    if (canary > 0 && r->swap.strategy >= XI_STRATEGY_IN_PLACE)
        return xi_fail(err, XI_EINVAL, "a canary needs the strategy beside");
    return XI_OK;
}

static enum xi_rc read_swap(const json_t *obj, struct xi_load_request *r, struct xi_err *err)
{
    static const char *const strategies[] = {"auto", "beside", "in-place", "shadow", NULL};
    int strategy = -1;
    double canary = 0;
    int64_t trial_s = TRIAL_S;
    enum xi_rc rc = xi_json_bool(obj, "", "replace", 0, &r->replace, err);

    if (rc == XI_OK)
        rc = read_word(obj, "", "strategy", strategies, &strategy, err);
    if (rc == XI_OK)
        rc = xi_json_number(obj, "", "canary", 0, 0, 0.999, &canary, err);
    if (rc == XI_OK)
        rc = xi_json_int(obj, "", "canary_s", 0, 0, TRIAL_S_MAX, &trial_s, err);
    if (rc != XI_OK)
        return rc;
    r->swap.strategy = strategy < 0 ? XI_STRATEGY_AUTO : (enum xi_swap_strategy)strategy;
    r->swap.share = (uint32_t)(canary * XI_SHARE_ALL + 0.5);
    r->swap.trial_s = (uint32_t)trial_s;
    return check_swap(r, strategy > 0, canary, err);
}

static enum xi_rc read_flags(const json_t *obj, struct xi_load_body *ret, struct xi_err *err)
{
    struct xi_load_options *o = &ret->request.options;
    enum xi_rc rc = xi_json_bool(obj, "", "wait", 0, &ret->request.wait, err);

    if (rc == XI_OK)
        rc = xi_json_bool(obj, "", "dry_run", 0, &ret->dry_run, err);
    if (rc == XI_OK)
        rc = xi_json_bool(obj, "", "pinned", 0, &o->pinned, err);
    if (rc == XI_OK)
        rc = xi_json_bool(obj, "", "lazy", 0, &o->lazy, err);
    if (rc == XI_OK && o->pinned && (o->lazy || o->keep_alive_s > 0))
        rc = xi_fail(err, XI_EINVAL, "a pinned session stays loaded: not with %s",
                     o->lazy ? "lazy" : "keep_alive_s");
    return rc;
}

enum xi_rc xi_load_body_read(const struct xi_exchange *x, const json_t *obj,
                             struct xi_load_body *ret, struct xi_err *err)
{
    static const char *const known[] = {"package",  "name",    "device",  "tenant", "priority",
                                        "wait",     "options", "replace", "canary", "canary_s",
                                        "strategy", "dry_run", "pinned",  "lazy",   NULL};
    static const char *const priorities[] = {"realtime", "normal", "batch", NULL};
    struct xi_load_options *o = &ret->request.options;
    int priority = XI_PRIORITY_NORMAL;
    enum xi_rc rc = xi_json_known_keys(obj, "", known, err);

    o->golden = 1;
    ret->request.wait = 1;
    (void)snprintf(o->device, sizeof o->device, "auto");
    if (rc == XI_OK)
        rc = xi_body_text_of(obj, "", "package", XI_JSON_REQUIRED, ret->package,
                             sizeof ret->package, err);
    if (rc == XI_OK)
        rc = xi_body_text_of(obj, "", "name", 0, o->name, sizeof o->name, err);
    if (rc == XI_OK && o->name[0] != '\0')
        rc = xi_name_check(o->name, "name", err);
    if (rc == XI_OK)
        rc = xi_body_text_of(obj, "", "device", 0, o->device, sizeof o->device, err);
    if (rc == XI_OK)
        rc = xi_body_tenant(x, obj, o->tenant, err);
    if (rc == XI_OK)
        rc = read_word(obj, "", "priority", priorities, &priority, err);
    o->priority = (enum xi_priority)priority;
    if (rc == XI_OK)
        rc = read_options(obj, o, err);
    if (rc == XI_OK)
        rc = read_swap(obj, &ret->request, err);
    if (rc == XI_OK)
        rc = read_flags(obj, ret, err);
    ret->request.package = ret->package;
    return rc;
}
