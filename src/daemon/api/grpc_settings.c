/* The protocol's settings of tracing and of the log. */
#include <string.h>

#include "daemon/api/grpc_service.h"
#include "daemon/api/oip_describe.h"
#include "wire/protobuf.h"

enum { SETTING_MAX = 128, VALUE_BOOL = 1, VALUE_UINT = 2, VALUE_TEXT = 3 };

/* One entry of a map: its key, and its value as a message. */
static enum xi_rc read_entry(const struct xi_pb_field *entry, char name[SETTING_MAX],
                             struct xi_pb_field *value, struct xi_err *err)
{
    struct xi_pb in = xi_pb_make(entry->data, (size_t)entry->bytes);
    enum xi_rc rc = xi_pb_want(entry, XI_PB_BYTES, "request", "settings", err);
    struct xi_pb_field f;
    int more = 0;

    name[0] = '\0';
    *value = (struct xi_pb_field){0};
    while (rc == XI_OK && (more = xi_pb_next(&in, &f)) > 0) {
        if (f.number == 1)
            rc = xi_pb_text(&f, "settings", name, SETTING_MAX, err);
        else if (f.number == 2 &&
                 (rc = xi_pb_want(&f, XI_PB_BYTES, "settings", name, err)) == XI_OK)
            *value = f;
    }
    return rc == XI_OK && more < 0 ? xi_pb_broken("settings", err) : rc;
}

/* ---- tracing ---- */

static enum xi_rc check_trace(const struct xi_pb_field *entry, struct xi_err *err)
{
    char name[SETTING_MAX], text[SETTING_MAX];
    struct xi_pb_field value, f;
    enum xi_rc rc = read_entry(entry, name, &value, err);
    struct xi_pb in = xi_pb_make(value.data, (size_t)value.bytes);
    int more = 0, any = 0;

    while (rc == XI_OK && (more = xi_pb_next(&in, &f)) > 0) {
        any = 1;
        rc = xi_pb_text(&f, name, text, sizeof text, err);
        if (rc == XI_OK)
            rc = xi_oip_trace_check(name, text, err);
    }
    if (rc == XI_OK && more < 0)
        rc = xi_pb_broken("SettingValue", err);
    return rc == XI_OK && !any ? xi_oip_trace_check(name, NULL, err) : rc;
}

void xi_grpc_trace_setting(struct xi_grpc *g, const uint8_t *message, size_t bytes)
{
    struct xi_pb pb = xi_pb_make(message, bytes);
    struct xi_str *s = &g->x->body;
    enum xi_rc rc = XI_OK;
    struct xi_pb_field f;
    struct xi_err err;
    int more = 0;

    while (rc == XI_OK && (more = xi_pb_next(&pb, &f)) > 0)
        if (f.number == 1)
            rc = check_trace(&f, &err);
    if (rc == XI_OK && more < 0)
        rc = xi_pb_broken("TraceSettingRequest", &err);
    if (rc != XI_OK) {
        xi_grpc_fail(g, &err);
        return;
    }
    for (const struct xi_oip_trace_setting *t = xi_oip_trace_settings; t->name != NULL; t++) {
        size_t entry = xi_pb_begin(s, 1);
        xi_pb_put_text(s, 1, t->name);
        size_t value = xi_pb_begin(s, 2);
        xi_pb_put_text(s, 1, t->value);
        xi_pb_end(s, value);
        xi_pb_end(s, entry);
    }
    xi_grpc_answer(g);
}

/* ---- the log ---- */

static void put_log(struct xi_str *s, const char *name, uint32_t kind, uint64_t v, const char *text)
{
    size_t entry = xi_pb_begin(s, 1);

    xi_pb_put_text(s, 1, name);
    size_t value = xi_pb_begin(s, 2);
    if (text != NULL)
        xi_pb_put_text(s, kind, text);
    else
        xi_pb_put_uint(s, kind, v);
    xi_pb_end(s, value);
    xi_pb_end(s, entry);
}

static void answer_log(struct xi_grpc *g)
{
    struct xi_str *s = &g->x->body;
    struct xi_oip_logging now;

    xi_oip_logging(&now);
    xi_str_clear(s);
    put_log(s, "log_file", VALUE_TEXT, 0, "");
    put_log(s, "log_info", VALUE_BOOL, (uint64_t)now.info, NULL);
    put_log(s, "log_warning", VALUE_BOOL, (uint64_t)now.warning, NULL);
    put_log(s, "log_error", VALUE_BOOL, (uint64_t)now.error, NULL);
    put_log(s, "log_verbose_level", VALUE_UINT, now.verbose, NULL);
    put_log(s, "log_format", VALUE_TEXT, 0, "default");
    xi_grpc_answer(g);
}

static enum xi_rc set_log(const char *name, const struct xi_pb_field *v, struct xi_oip_logging *ret,
                          struct xi_err *err)
{
    int *const switches[] = {&ret->info, &ret->warning, &ret->error};
    static const char *const names[] = {"log_info", "log_warning", "log_error"};

    for (size_t i = 0; i < 3; i++)
        if (strcmp(name, names[i]) == 0) {
            *switches[i] = v->value != 0;
            return v->number == VALUE_BOOL
                       ? xi_pb_want(v, XI_PB_VARINT, "settings", name, err)
                       : xi_fail(err, XI_EINVAL, "\"%s\" must be true or false", name);
        }
    if (strcmp(name, "log_verbose_level") == 0) {
        ret->verbose = v->value > 2 ? 2 : (uint32_t)v->value;
        return v->number == VALUE_UINT
                   ? xi_pb_want(v, XI_PB_VARINT, "settings", name, err)
                   : xi_fail(err, XI_EINVAL, "\"%s\" must be a whole number", name);
    }
    if ((strcmp(name, "log_file") == 0 && xi_pb_is(v, "")) ||
        (strcmp(name, "log_format") == 0 && xi_pb_is(v, "default")))
        return XI_OK;
    return xi_fail(err, XI_EUNSUPPORTED, "the log setting \"%.60s\" cannot be changed here", name);
}

static enum xi_rc read_log(const struct xi_pb_field *entry, struct xi_oip_logging *ret,
                           struct xi_err *err)
{
    char name[SETTING_MAX];
    struct xi_pb_field value, v = {0}, f;
    enum xi_rc rc = read_entry(entry, name, &value, err);
    struct xi_pb in = xi_pb_make(value.data, (size_t)value.bytes);
    int more = 0;

    while (rc == XI_OK && (more = xi_pb_next(&in, &f)) > 0)
        v = f; /* of a oneof the last one counts */
    if (rc == XI_OK && more < 0)
        rc = xi_pb_broken("SettingValue", err);
    return rc == XI_OK ? set_log(name, &v, ret, err) : rc;
}

static void on_configured(void *ctx, const struct xi_err *err)
{
    struct xi_grpc *g = ctx;

    g->n_calls--;
    if (g->why.rc != XI_OK)
        xi_grpc_settle(g);
    else if (err != NULL && err->rc != XI_OK)
        xi_grpc_fail(g, err);
    else
        answer_log(g);
}

static void configure(struct xi_grpc *g, const char *level)
{
    struct xi_exchange *x = g->x;
    json_t *patch = json_pack("{s:s}", "log_level", level);
    struct xi_err err;

    if (patch == NULL) {
        (void)xi_fail(&err, XI_ENOMEM, "no memory for a setting");
        xi_grpc_fail(g, &err);
        return;
    }
    g->n_calls++; /* it is answered by on_configured */
    xi_service_configure(x->server->service, x->who.tenant, patch, on_configured, g);
    json_decref(patch);
}

void xi_grpc_log_settings(struct xi_grpc *g, const uint8_t *message, size_t bytes)
{
    struct xi_pb pb = xi_pb_make(message, bytes);
    struct xi_oip_logging want;
    const char *level = NULL;
    enum xi_rc rc = XI_OK;
    struct xi_pb_field f;
    struct xi_err err;
    int more = 0, any = 0;

    xi_oip_logging(&want);
    while (rc == XI_OK && (more = xi_pb_next(&pb, &f)) > 0)
        if (f.number == 1) {
            any = 1;
            rc = read_log(&f, &want, &err);
        }
    if (rc == XI_OK && more < 0)
        rc = xi_pb_broken("LogSettingsRequest", &err);
    if (rc == XI_OK && any && g->x->who.role < XI_ROLE_ADMIN)
        rc = xi_fail(&err, XI_EFORBIDDEN, "the log is an administrator's to set");
    if (rc == XI_OK && any)
        rc = xi_oip_logging_level(&want, &level, &err);
    if (rc != XI_OK)
        xi_grpc_fail(g, &err);
    else if (any)
        configure(g, level);
    else
        answer_log(g);
}
