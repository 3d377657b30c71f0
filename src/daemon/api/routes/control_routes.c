/* /v1/control: load, unload, packages. Each handler answers once; a client that leaves does not
 * stop what it asked for. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/name.h"
#include "base/size.h"
#include "daemon/api/connection.h"
#include "daemon/api/describe.h"

enum { UPLOADS_MAX = 4, UPLOAD_BUFFER = 1024 * 1024, PROGRESS_MS = 100 };

struct load_job {
    struct xi_exchange *x;
    uv_timer_t timer;
    struct xi_load_request request;
    char package[XI_NAME_MAX + 80];
    char name[XI_NAME_MAX + 1]; /* under which it will be found; "" : not known yet */
    char last[96];              /* progress that was sent */
    int events, ended;
};

static enum xi_rc copy_text(const json_t *obj, const char *key, int required, char *ret,
                            size_t room, struct xi_err *err)
{
    const char *text = NULL;
    enum xi_rc rc = xi_json_string(obj, "", key, required, &text, err);

    if (rc != XI_OK || text == NULL)
        return rc;
    if (strlen(text) >= room)
        return xi_fail(err, XI_EINVAL, "%s is longer than %zu characters", key, room - 1);
    (void)snprintf(ret, room, "%s", text);
    return XI_OK;
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

static enum xi_rc read_load_options(const json_t *obj, struct xi_load_options *o,
                                    struct xi_err *err)
{
    static const char *const known[] = {"instances", "threads",         "precision", "variant",
                                        "golden",    "sequence_idle_s", "cache",     NULL};
    json_t *options = NULL;
    int64_t instances = 0, threads = 0, idle_s = 0;
    enum xi_rc rc = xi_json_object(obj, "", "options", XI_JSON_OPTIONAL, &options, err);

    if (rc != XI_OK || options == NULL)
        return rc;
    rc = xi_json_known_keys(options, "options", known, err);
    if (rc == XI_OK)
        rc = xi_json_int(options, "options", "instances", 0, 0, XI_LANES_MAX, &instances, err);
    if (rc == XI_OK)
        rc = xi_json_int(options, "options", "threads", 0, 0, 256, &threads, err);
    if (rc == XI_OK)
        rc = copy_text(options, "precision", 0, o->precision, sizeof o->precision, err);
    if (rc == XI_OK)
        rc = copy_text(options, "variant", 0, o->variant, sizeof o->variant, err);
    if (rc == XI_OK)
        rc = xi_json_bool(options, "options", "golden", 0, &o->golden, err);
    if (rc == XI_OK)
        rc = xi_json_int(options, "options", "sequence_idle_s", 0, 0, 86400, &idle_s, err);
    if (rc == XI_OK)
        rc = read_cache(options, &o->cache_bytes, err);
    o->sequence_idle_s = (uint32_t)idle_s;
    o->instances = (uint32_t)instances;
    o->threads = (uint32_t)threads;
    return rc;
}

static enum xi_rc read_load_priority(const json_t *obj, struct xi_load_options *o,
                                     struct xi_err *err)
{
    static const char *const names[] = {"realtime", "normal", "batch", NULL};
    const char *text = "normal";
    enum xi_rc rc = xi_json_string(obj, "", "priority", XI_JSON_OPTIONAL, &text, err);

    for (int i = 0; rc == XI_OK && names[i] != NULL; i++)
        if (strcmp(names[i], text) == 0) {
            o->priority = (enum xi_priority)i;
            return XI_OK;
        }
    return rc != XI_OK ? rc
                       : xi_fail(err, XI_EINVAL,
                                 "priority: \"%.20s\" is none of realtime, normal, batch", text);
}

static enum xi_rc read_tenant(const struct xi_exchange *x, const json_t *obj, char *ret,
                              size_t room, struct xi_err *err)
{
    enum xi_rc rc;

    (void)snprintf(ret, room, "%s", x->who.tenant);
    rc = copy_text(obj, "tenant", XI_JSON_OPTIONAL, ret, room, err);
    if (rc == XI_OK)
        rc = xi_name_check(ret, "tenant", err);
    if (rc == XI_OK && strcmp(ret, x->who.tenant) != 0 && x->who.role != XI_ROLE_ADMIN)
        rc = xi_fail(err, XI_EFORBIDDEN, "only an administrator may name a tenant");
    return rc;
}

/* What the answer will be found under while it loads. */
static void guess_name(struct load_job *job)
{
    const char *name = job->request.options.name[0] ? job->request.options.name : job->package;
    size_t n = strcspn(name, ":");

    if (n <= XI_NAME_MAX && strncmp(name, "sha256:", 7) != 0)
        (void)snprintf(job->name, sizeof job->name, "%.*s", (int)n, name);
}

static enum xi_rc read_load(const struct xi_exchange *x, const json_t *obj, struct load_job *job,
                            struct xi_err *err)
{
    static const char *const known[] = {"package", "name",    "device",  "tenant", "priority",
                                        "wait",    "options", "replace", NULL};
    struct xi_load_options *o = &job->request.options;
    int replace = 0;
    enum xi_rc rc = xi_json_known_keys(obj, "", known, err);

    o->golden = 1;
    job->request.wait = 1;
    (void)snprintf(o->device, sizeof o->device, "auto");
    if (rc == XI_OK)
        rc = copy_text(obj, "package", XI_JSON_REQUIRED, job->package, sizeof job->package, err);
    if (rc == XI_OK)
        rc = copy_text(obj, "name", 0, o->name, sizeof o->name, err);
    if (rc == XI_OK && o->name[0] != '\0')
        rc = xi_name_check(o->name, "name", err);
    if (rc == XI_OK)
        rc = copy_text(obj, "device", 0, o->device, sizeof o->device, err);
    if (rc == XI_OK)
        rc = read_tenant(x, obj, o->tenant, sizeof o->tenant, err);
    if (rc == XI_OK)
        rc = read_load_priority(obj, o, err);
    if (rc == XI_OK)
        rc = xi_json_bool(obj, "", "wait", 0, &job->request.wait, err);
    if (rc == XI_OK)
        rc = xi_json_bool(obj, "", "replace", 0, &replace, err);
    if (rc == XI_OK && replace)
        rc = xi_fail(err, XI_EUNSUPPORTED, "replace is not possible in this version");
    if (rc == XI_OK)
        rc = read_load_options(obj, o, err);
    job->request.package = job->package;
    guess_name(job);
    return rc;
}

static void free_job(uv_handle_t *timer)
{
    free(timer->data);
}

/* The session that the load works on: by its name, or the one of this package that is not ready
 * yet (a digest says nothing of the name). */
static const struct xi_session *find_loading(const struct load_job *job)
{
    struct xi_sessions *all = job->x->server->service->sessions;
    const char *tenant = job->request.options.tenant, *digest = job->package;
    struct xi_session *s = NULL;

    if (job->name[0] != '\0' && xi_sessions_find(all, tenant, job->name, &s, NULL) == XI_OK)
        return s;
    if (strncmp(digest, "sha256:", 7) == 0)
        digest += 7;
    for (s = xi_sessions_each(all, NULL); s != NULL; s = xi_sessions_each(all, s))
        if ((s->state == XI_SESSION_LOADING || s->state == XI_SESSION_WARMING) &&
            strcmp(s->tenant, tenant) == 0 && strcmp(s->digest, digest) == 0)
            return s;
    return NULL;
}

static void on_progress(uv_timer_t *timer)
{
    struct load_job *job = timer->data;
    const struct xi_session *s;
    char now[96], phase[32];

    if (job->ended || job->x->conn == NULL || (s = find_loading(job)) == NULL)
        return;
    (void)snprintf(phase, sizeof phase, "%.31s", s->phase);
    for (char *p = phase; *p; p++)
        if ((unsigned char)*p < 0x20 || *p == '"' || *p == '\\' || (unsigned char)*p > 0x7e)
            *p = '?'; /* phases come from a host */
    (void)snprintf(now, sizeof now, "{\"state\":\"%s\",\"phase\":\"%s\",\"permille\":%d}",
                   xi_session_state_name(s->state), phase,
                   s->phase_permille > 1000 ? -1 : (int)s->phase_permille);
    if (strcmp(now, job->last) == 0)
        return;
    memcpy(job->last, now, sizeof now);
    xi_events_send(job->x, "progress", now);
}

static void on_loaded(void *ctx, const struct xi_session *view, const struct xi_err *err)
{
    struct load_job *job = ctx;
    struct xi_exchange *x = job->x;
    int events = job->events;

    job->ended = 1;
    uv_close((uv_handle_t *)&job->timer, free_job);
    if (xi_answer_failed(x, err, view, "the load"))
        return;
    xi_str_clear(&x->body);
    xi_describe_session(&x->body, view);
    if (events) {
        xi_events_send(x, "loaded", xi_str_text(&x->body));
        xi_events_end(x);
    } else {
        xi_answer_body(x, view->state == XI_SESSION_READY ? 200 : 202, "application/json");
    }
}

void xi_control_load(struct xi_exchange *x)
{
    struct xi_service *service = x->server->service;
    struct xi_err err = {0};
    json_t *obj = xi_body_object(x);

    if (obj == NULL)
        return;
    struct load_job *job = calloc(1, sizeof *job);
    enum xi_rc rc = job == NULL ? xi_fail(&err, XI_ENOMEM, "no memory for a load")
                                : read_load(x, obj, job, &err);
    json_decref(obj);
    if (rc != XI_OK) {
        free(job);
        xi_answer_problem(x, &err);
        return;
    }
    job->x = x;
    job->timer.data = job;
    (void)uv_timer_init(service->loop, &job->timer);
    if (xi_accepts(x, "text/event-stream")) {
        job->events = 1;
        xi_events_begin(x);
        (void)uv_timer_start(&job->timer, on_progress, 0, PROGRESS_MS);
    }
    xi_service_load(service, &job->request, on_loaded, job);
}

static void on_unloaded(void *ctx, const struct xi_session *view, const struct xi_err *err)
{
    struct xi_exchange *x = ctx;

    if (xi_answer_failed(x, err, view, "the unload"))
        return;
    xi_str_clear(&x->body);
    xi_str_printf(&x->body, "{\"id\":\"%s\",\"name\":", view->id);
    xi_str_json(&x->body, view->name);
    xi_str_printf(&x->body, ",\"state\":\"%s\",\"freed\":%llu}", xi_session_state_name(view->state),
                  (unsigned long long)view->memory_bytes);
    xi_answer_body(x, 200, "application/json");
}

void xi_control_unload(struct xi_exchange *x)
{
    static const char *const known[] = {"id", "name", "tenant", NULL};
    char tenant[XI_NAME_MAX + 1], id[XI_NAME_MAX + 1] = "", name[XI_NAME_MAX + 1] = "";
    struct xi_err err = {0};
    json_t *obj = xi_body_object(x);

    if (obj == NULL)
        return;
    enum xi_rc rc = xi_json_known_keys(obj, "", known, &err);
    if (rc == XI_OK)
        rc = copy_text(obj, "id", 0, id, sizeof id, &err);
    if (rc == XI_OK)
        rc = copy_text(obj, "name", 0, name, sizeof name, &err);
    if (rc == XI_OK)
        rc = read_tenant(x, obj, tenant, sizeof tenant, &err);
    if (rc == XI_OK && (id[0] == '\0') == (name[0] == '\0'))
        rc = xi_fail(&err, XI_EINVAL, "either id or name is wanted");
    const char *which = id[0] ? id : name;
    if (rc == XI_OK)
        rc = xi_name_check(which, id[0] ? "id" : "name", &err);
    json_decref(obj);
    if (rc != XI_OK) {
        xi_answer_problem(x, &err);
        return;
    }
    int any = x->who.role == XI_ROLE_ADMIN && xi_uuid_valid(which);
    xi_service_unload(x->server->service, any ? NULL : tenant, which, on_unloaded, x);
}

/* An upload holds one buffer: the socket fills it, the store's thread writes it, in turns. */
struct xi_package_upload {
    struct xi_upload *upload;
    int ending;
    uint8_t buffer[UPLOAD_BUFFER];
};

static void release_upload(struct xi_exchange *x)
{
    if (x->upload == NULL)
        return;
    if (x->upload->upload != NULL)
        xi_upload_abort(x->upload->upload);
    free(x->upload);
    x->upload = NULL;
    x->server->uploads--;
}

void xi_control_upload_begin(struct xi_exchange *x)
{
    uint64_t length = x->stream.content_length;
    struct xi_err err = {0};
    enum xi_rc rc = XI_OK;

    if (length == 0)
        rc = xi_fail(&err, XI_EPACKAGE, "the body is empty");
    else if (x->server->uploads >= UPLOADS_MAX)
        rc = xi_fail(&err, XI_EAGAIN, "%d uploads are under way", UPLOADS_MAX);
    else if ((x->upload = calloc(1, sizeof *x->upload)) == NULL)
        rc = xi_fail(&err, XI_ENOMEM, "no memory for an upload");
    if (rc == XI_OK) {
        x->server->uploads++;
        x->release = release_upload;
        rc = xi_upload_begin(x->server->service->store, length == XI_HTTP_NO_LENGTH ? 0 : length,
                             &x->upload->upload, &err);
    }
    if (rc != XI_OK) {
        if (x->upload != NULL)
            x->upload->upload = NULL;
        xi_answer_problem(x, &err);
        return;
    }
    x->stream.sink = x->upload->buffer;
    x->stream.sink_room = UPLOAD_BUFFER;
    xi_body_welcome(x);
}

static void on_installed(void *ctx, const struct xi_package_record *record, int existed,
                         const struct xi_err *err)
{
    struct xi_exchange *x = ctx;
    char digest[XI_DIGEST_HEX + 1];

    if (xi_answer_failed(x, err, record, "the installation"))
        return;
    xi_digest_text(&record->digest, digest);
    xi_str_clear(&x->body);
    xi_str_printf(&x->body, "{\"digest\":\"%s\",\"name\":", digest);
    xi_str_json(&x->body, record->name);
    xi_str_puts(&x->body, ",\"version\":");
    xi_str_json(&x->body, record->version);
    xi_str_printf(&x->body, ",\"existed\":%s}", existed ? "true" : "false");
    xi_answer_body(x, existed ? 200 : 201, "application/json");
}

static void install(struct xi_exchange *x)
{
    struct xi_upload *upload = x->upload->upload;

    x->upload->upload = NULL; /* install ends it in any case */
    xi_upload_install(upload, on_installed, x);
}

static void on_upload_written(void *ctx, const struct xi_err *err)
{
    struct xi_exchange *x = ctx;
    struct xi_http_stream *s = &x->stream;

    if (err != NULL && err->rc != XI_OK) {
        s->paused = 0;
        xi_answer_problem(x, err);
        return;
    }
    if (x->upload->ending) {
        install(x);
        return;
    }
    x->pending = 0;
    if (x->conn == NULL) { /* a write that was cut off may still hold it */
        (void)xi_exchange_settle(x);
        return;
    }
    s->paused = 0;
    s->sink_len = 0;
    xi_conn_resume(x->conn);
}

void xi_control_upload_full(struct xi_exchange *x)
{
    x->stream.paused = 1;
    x->pending = 1; /* the store reads the buffer until on_upload_written */
    xi_upload_write(x->upload->upload, x->upload->buffer, (size_t)x->stream.sink_len,
                    on_upload_written, x);
}

void xi_control_upload_end(struct xi_exchange *x)
{
    x->upload->ending = 1;
    if (x->stream.sink_len == 0)
        install(x);
    else
        xi_upload_write(x->upload->upload, x->upload->buffer, (size_t)x->stream.sink_len,
                        on_upload_written, x);
}

static void on_removed(void *ctx, const struct xi_err *err)
{
    struct xi_exchange *x = ctx;

    if (xi_answer_failed(x, err, x, "the removal"))
        return;
    xi_str_clear(&x->body);
    xi_str_printf(&x->body, "{\"removed\":\"%s\"}", x->param);
    xi_answer_body(x, 200, "application/json");
}

void xi_control_package_delete(struct xi_exchange *x)
{
    struct xi_digest digest;
    struct xi_err err;

    if (strncmp(x->param, "sha256:", 7) == 0)
        memmove(x->param, x->param + 7, strlen(x->param + 7) + 1);
    if (xi_digest_parse(x->param, &digest) != 0) {
        (void)xi_fail(&err, XI_EINVAL, "a package is removed by its digest (64 hex digits)");
        (void)xi_hint(&err, "GET /v1/packages lists the digests");
        xi_answer_problem(x, &err);
        return;
    }
    xi_store_remove(x->server->service->store, x->param, on_removed, x);
}
