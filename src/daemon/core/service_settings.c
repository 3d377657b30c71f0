/* What an operator changes at run time: checked whole, kept, then put into force in one turn of the
 * loop. In force are the settings of the file with the changes merged over them. */
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/log.h"
#include "daemon/core/service_private.h"
#include "daemon/core/settings.h"

#define KEY "configure" /* in the store: the changes so far, as JSON */

/* One change on its way. */
struct change {
    struct xi_service_inner *in;
    json_t *patch, *changed; /* without models; all changes so far with this one */
    struct xi_settings next; /* in force then */
    struct xi_settings models;
    struct xi_session **sessions; /* of models.models; one reference each */
    unsigned pending;             /* calls of the store */
    struct xi_err err;            /* the first that failed */
    xi_store_cb cb;
    void *ctx;
};

static void change_free(struct change *c)
{
    uint32_t i;

    for (i = 0; c->sessions != NULL && i < c->models.n_models; i++)
        if (c->sessions[i] != NULL)
            xi_session_put(c->sessions[i]);
    free(c->sessions);
    xi_settings_fini(&c->next);
    xi_settings_fini(&c->models);
    json_decref(c->patch);
    json_decref(c->changed);
    free(c);
}

/* ---- what is in force ---- */

/* The file's settings with `changed` over them. */
static enum xi_rc effective(const struct xi_service_inner *in, const json_t *changed,
                            struct xi_settings *ret, struct xi_err *err)
{
    json_t *doc = json_deep_copy(in->file_settings);
    enum xi_rc rc = XI_OK;

    if (doc == NULL || xi_settings_merge(doc, changed) != 0)
        rc = xi_fail(err, XI_ENOMEM, "no memory for settings");
    if (rc == XI_OK)
        rc = xi_settings_read(doc, in->physical_bytes, ret, err);
    json_decref(doc);
    return rc;
}

static const struct xi_settings_tenant *of_tenant(const struct xi_settings *s, const char *name)
{
    uint32_t i;

    for (i = 0; i < s->n_tenants; i++)
        if (strcmp(s->tenants[i].name, name) == 0)
            return &s->tenants[i];
    return NULL;
}

static int same_limits(const struct xi_tenant_limits *a, const struct xi_tenant_limits *b)
{
    return a->weight == b->weight && a->memory_bytes == b->memory_bytes &&
           !(a->rate_per_s < b->rate_per_s) && !(a->rate_per_s > b->rate_per_s) &&
           a->queue_limit == b->queue_limit;
}

/* A bucket that is not touched stays as full as it is. */
static enum xi_rc set_limits(struct xi_tenants *all, const struct xi_tenant *now, const char *name,
                             const struct xi_tenant_limits *limits, struct xi_err *err)
{
    if (now != NULL && same_limits(&now->limits, limits))
        return XI_OK;
    return xi_tenants_configure(all, name, limits, err);
}

static void put_into_force(struct xi_service_inner *in, const struct xi_settings *s)
{
    const struct xi_tenant_limits standard = {.weight = 1};
    struct xi_tenant *t;
    struct xi_err err;
    uint32_t i;

    if (s->has_level)
        xi_log_set_level(s->level);
    if (s->has_memory) {
        in->s.config.memory_bytes = s->memory_bytes;
        xi_sessions_set_memory(in->s.sessions, s->memory_bytes, in->s.config.evict);
    }
    for (i = 0; (t = xi_tenants_at(in->s.tenants, i)) != NULL; i++) {
        const struct xi_settings_tenant *wanted = of_tenant(s, t->name);

        if (set_limits(in->s.tenants, t, t->name, wanted ? &wanted->limits : &standard, &err) !=
            XI_OK)
            xi_log(XI_ERROR, "config.refused", "tenant=%s why=%s", t->name, err.msg);
    }
    for (i = 0; i < s->n_tenants; i++)
        if (set_limits(in->s.tenants, xi_tenants_get(in->s.tenants, s->tenants[i].name),
                       s->tenants[i].name, &s->tenants[i].limits, &err) != XI_OK)
            xi_log(XI_ERROR, "config.refused", "tenant=%s why=%s", s->tenants[i].name, err.msg);
}

/* ---- checking a change ---- */

static enum xi_rc check_room_for_tenants(const struct xi_service_inner *in,
                                         const struct xi_settings *s, struct xi_err *err)
{
    const struct xi_tenant *t;
    uint32_t i, known = 0, total = s->n_tenants;

    for (i = 0; (t = xi_tenants_at(in->s.tenants, i)) != NULL; i++)
        known += of_tenant(s, t->name) != NULL;
    total += i - known;
    if (total > XI_TENANTS_MAX)
        return xi_fail(err, XI_EINVAL, "tenants: %u would be known, %d may be", total,
                       XI_TENANTS_MAX);
    return XI_OK;
}

static enum xi_rc check_model(const struct xi_settings_model *m, const struct xi_session *s,
                              struct xi_err *err)
{
    if (xi_swap_commits(s)) /* its row is on its way out: written now it would come back */
        return xi_fail(err, XI_ECONFLICT, "%s is being swapped at this moment", m->name);
    if (m->has_batch && s->state == XI_SESSION_READY && m->max_batch > s->max_batch) {
        (void)xi_fail(err, XI_EINVAL, "models.%s.max_batch is %u, but it is loaded for %u", m->name,
                      m->max_batch, s->max_batch);
        return xi_hint(err, "load it again with options.max_batch %u", m->max_batch);
    }
    return XI_OK;
}

static enum xi_rc find_models(struct change *c, const char *tenant, struct xi_err *err)
{
    uint32_t i;

    if (c->models.n_models == 0)
        return XI_OK;
    c->sessions = calloc(c->models.n_models, sizeof(struct xi_session *));
    if (c->sessions == NULL)
        return xi_fail(err, XI_ENOMEM, "no memory for settings");
    for (i = 0; i < c->models.n_models; i++) {
        const struct xi_settings_model *m = &c->models.models[i];
        enum xi_rc rc = xi_sessions_find(c->in->s.sessions, tenant, m->name, &c->sessions[i], err);

        if (rc != XI_OK) {
            c->sessions[i] = NULL;
            return rc;
        }
        xi_session_get(c->sessions[i]);
        rc = check_model(m, c->sessions[i], err);
        if (rc != XI_OK)
            return rc;
    }
    return XI_OK;
}

/* Splits the models off: they are part of their sessions' desired state, not of the settings. */
static enum xi_rc split(struct change *c, const json_t *patch, struct xi_err *err)
{
    json_t *models = json_object_get(patch, "models"), *only = NULL;
    enum xi_rc rc = XI_OK;

    c->patch = json_copy((json_t *)(uintptr_t)patch);
    c->changed = json_deep_copy(c->in->changed_settings);
    if (c->patch == NULL || c->changed == NULL)
        return xi_fail(err, XI_ENOMEM, "no memory for settings");
    if (models != NULL) {
        only = json_pack("{s:O}", "models", models);
        rc = only == NULL ? xi_fail(err, XI_ENOMEM, "no memory for settings")
                          : xi_settings_read(only, 0, &c->models, err);
        json_decref(only);
        (void)json_object_del(c->patch, "models");
    }
    if (rc == XI_OK && xi_settings_merge(c->changed, c->patch) != 0)
        rc = xi_fail(err, XI_ENOMEM, "no memory for settings");
    return rc;
}

static enum xi_rc check(struct change *c, const char *tenant, const json_t *patch,
                        struct xi_err *err)
{
    enum xi_rc rc = split(c, patch, err);

    if (rc == XI_OK)
        rc = effective(c->in, c->changed, &c->next, err);
    if (rc == XI_OK)
        rc = check_room_for_tenants(c->in, &c->next, err);
    return rc == XI_OK ? find_models(c, tenant, err) : rc;
}

/* ---- keeping it ---- */

static struct xi_load_options changed_options(const struct change *c, uint32_t i)
{
    const struct xi_settings_model *m = &c->models.models[i];
    struct xi_load_options o = c->sessions[i]->options;

    if (m->has_batch)
        o.max_batch = m->max_batch;
    if (m->has_delay)
        o.max_delay_us = m->max_delay_us;
    return o;
}

static void apply(struct change *c)
{
    struct xi_service_inner *in = c->in;
    char *text = json_dumps(c->patch, JSON_COMPACT | JSON_SORT_KEYS);
    uint32_t i;

    json_decref(in->changed_settings);
    in->changed_settings = json_incref(c->changed);
    put_into_force(in, &c->next);
    for (i = 0; i < c->models.n_models; i++) {
        c->sessions[i]->options = changed_options(c, i);
        xi_log(XI_INFO, "config.changed", "model=%s id=%s max_batch=%u max_delay_us=%u",
               c->sessions[i]->name, c->sessions[i]->id, c->sessions[i]->options.max_batch,
               c->sessions[i]->options.max_delay_us);
    }
    if (json_object_size(c->patch) > 0)
        xi_log(XI_INFO, "config.changed", "settings=%.900s", text != NULL ? text : "?");
    free(text);
}

static void on_kept(void *ctx, const struct xi_err *err)
{
    struct change *c = ctx;

    if (err != NULL && c->err.rc == XI_OK)
        c->err = *err;
    if (--c->pending > 0)
        return;
    c->in->configuring = 0;
    if (c->err.rc == XI_OK)
        apply(c);
    c->cb(c->ctx, c->err.rc == XI_OK ? NULL : &c->err);
    change_free(c);
}

static void keep_models(struct change *c)
{
    uint32_t i;

    for (i = 0; i < c->models.n_models; i++) {
        const struct xi_session *s = c->sessions[i];
        struct xi_desired row = {.options = changed_options(c, i)};

        if (!s->desired)
            continue; /* its row is being written, or it is on its way out */
        memcpy(row.id, s->id, sizeof(row.id));
        memcpy(row.digest, s->digest, sizeof(row.digest));
        c->pending++;
        xi_store_desire(c->in->s.store, &row, on_kept, c);
    }
}

static void keep(struct change *c)
{
    char *text = json_dumps(c->changed, JSON_COMPACT | JSON_SORT_KEYS);
    struct xi_err err = {0};

    c->in->configuring = 1;
    c->pending = 1;
    if (text == NULL || strlen(text) > XI_SETTING_MAX) {
        free(text);
        (void)xi_fail(&err, XI_ETOOBIG, "the settings would be larger than %llu bytes",
                      (unsigned long long)XI_SETTING_MAX);
        on_kept(c, &err);
        return;
    }
    keep_models(c);
    xi_store_setting_put(c->in->s.store, KEY, text, on_kept, c);
    free(text);
}

void xi_service_configure(struct xi_service *s, const char *tenant, const json_t *patch,
                          xi_store_cb cb, void *ctx)
{
    struct xi_service_inner *in = xi_service_inner_of(s);
    struct change *c = calloc(1, sizeof(*c));
    struct xi_err err = {0};
    enum xi_rc rc = c == NULL ? xi_fail(&err, XI_ENOMEM, "no memory for settings") : XI_OK;

    if (rc == XI_OK) {
        *c = (struct change){.in = in, .cb = cb, .ctx = ctx};
        if (in->configuring) /* two at once would each keep half */
            rc = xi_fail(&err, XI_EAGAIN, "another change of settings is being written");
        else
            rc = check(c, tenant, patch, &err);
    }
    if (rc == XI_OK) {
        keep(c);
        return;
    }
    if (c != NULL)
        change_free(c);
    cb(ctx, &err);
}

/* ---- start and end ---- */

static enum xi_rc read_file_settings(struct xi_service_inner *in, struct xi_err *err)
{
    const struct xi_service_config *config = &in->s.config;
    const char *tenants = config->tenants != NULL ? config->tenants : "";
    const char *level = xi_log_level_name(config->log_level);
    json_t *all = json_object();

    in->file_settings = json_object();
    in->changed_settings = json_object();
    if (*tenants != '\0') {
        json_decref(all);
        enum xi_rc rc = xi_json_parse(tenants, strlen(tenants), XI_SETTING_MAX, &all, err);
        if (rc != XI_OK)
            return rc;
    }
    if (in->changed_settings == NULL ||
        json_object_set_new(in->file_settings, "tenants", all) != 0 ||
        json_object_set_new(in->file_settings, "log_level", json_string(level)) != 0)
        return xi_fail(err, XI_ENOMEM, "no memory for settings");
    if (config->memory_bytes > 0)
        (void)json_object_set_new(in->file_settings, "memory",
                                  json_integer((json_int_t)config->memory_bytes));
    return XI_OK;
}

/* Merged over the file's; in->changed_settings is then what the store holds. */
static enum xi_rc read_kept(struct xi_service_inner *in, const char *text, struct xi_settings *ret,
                            struct xi_err *err)
{
    json_t *changed = NULL;
    enum xi_rc rc = xi_json_parse(text, strlen(text), XI_SETTING_MAX, &changed, err);

    if (rc == XI_OK && !json_is_object(changed))
        rc = xi_fail(err, XI_EINVAL, "no JSON object");
    if (rc == XI_OK)
        rc = effective(in, changed, ret, err);
    if (rc == XI_OK)
        rc = check_room_for_tenants(in, ret, err);
    if (rc != XI_OK) {
        json_decref(changed);
        return rc;
    }
    json_decref(in->changed_settings);
    in->changed_settings = changed;
    return XI_OK;
}

enum xi_rc xi_service_settings_open(struct xi_service_inner *in, struct xi_err *err)
{
    const char *kept = xi_store_setting(in->s.store, KEY);
    struct xi_resources machine = {0};
    struct xi_settings s = {0};
    struct xi_err why = {0};
    enum xi_rc rc = read_file_settings(in, err);

    xi_resources_read("", &machine);
    if (machine.memory_total_bytes > 0)
        in->physical_bytes = (uint64_t)machine.memory_total_bytes;
    in->s.config.tenants = NULL; /* the caller's no longer */
    if (rc != XI_OK)
        return rc;
    if (kept != NULL && read_kept(in, kept, &s, &why) == XI_OK) {
        xi_log(XI_INFO, "config.restored", "settings=%.900s", kept);
    } else {
        if (kept != NULL) /* told and left alone */
            xi_log(XI_ERROR, "config.unread", "why=%s", why.msg);
        rc = effective(in, in->changed_settings, &s, err);
    }
    if (rc == XI_OK)
        put_into_force(in, &s);
    xi_settings_fini(&s);
    return rc;
}

void xi_service_settings_fini(struct xi_service_inner *in)
{
    json_decref(in->file_settings);
    json_decref(in->changed_settings);
}
