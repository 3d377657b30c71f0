/* /v1/control: load, unload, promote, rollback. Each handler answers once; a client that leaves
 * does not stop what it asked for. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/name.h"
#include "daemon/api/connection.h"
#include "daemon/api/describe.h"
#include "daemon/api/load_body.h"

enum { PROGRESS_MS = 100 };

struct load_job {
    struct xi_exchange *x;
    uv_timer_t timer;
    struct xi_load_body body;
    char name[XI_NAME_MAX + 1]; /* under which it will be found; "" : not known yet */
    char last[160];             /* progress that was sent */
    int events, ended;
};

/* What the answer will be found under while it loads. */
static void guess_name(struct load_job *job)
{
    const char *asked = job->body.request.options.name;
    const char *name = asked[0] ? asked : job->body.package;
    size_t n = strcspn(name, ":");

    if (n <= XI_NAME_MAX && strncmp(name, "sha256:", 7) != 0)
        (void)snprintf(job->name, sizeof job->name, "%.*s", (int)n, name);
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
    const char *tenant = job->body.request.options.tenant, *digest = job->body.package;
    struct xi_session *s = NULL;

    if (job->name[0] != '\0' && xi_sessions_find(all, tenant, job->name, &s, NULL) == XI_OK) {
        struct xi_session *next = NULL; /* the one that is to take its place */
        int swaps =
            s->swap != NULL && xi_sessions_find(all, NULL, s->swap->new_id, &next, NULL) == XI_OK;
        return swaps ? next : s;
    }
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
    char now[160], phase[32];

    if (job->ended || xi_exchange_gone(job->x) || (s = find_loading(job)) == NULL)
        return;
    if (job->body.request.replace && s->state == XI_SESSION_READY && s->swap == NULL)
        return; /* the old one: the new one is still being found */
    (void)snprintf(phase, sizeof phase, "%.31s", s->phase);
    for (char *p = phase; *p; p++)
        if ((unsigned char)*p < 0x20 || *p == '"' || *p == '\\' || (unsigned char)*p > 0x7e)
            *p = '?'; /* phases come from a host */
    (void)snprintf(now, sizeof now, "{\"state\":\"%s\",\"phase\":\"%s\",\"permille\":%d%s%s%s}",
                   xi_session_state_name(s->state), phase,
                   s->phase_permille > 1000 ? -1 : (int)s->phase_permille,
                   s->swap != NULL ? ",\"swap\":\"" : "", s->swap != NULL ? s->swap->phase : "",
                   s->swap != NULL ? "\"" : "");
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
        int done = view->state == XI_SESSION_READY || view->state == XI_SESSION_IDLE;
        xi_answer_body(x, done ? 200 : 202, "application/json");
    }
}

static void on_plan(void *ctx, const struct xi_plan *plan, const struct xi_err *err)
{
    struct load_job *job = ctx;
    struct xi_exchange *x = job->x;

    free(job);
    if (xi_answer_failed(x, err, plan, "the plan"))
        return;
    xi_str_clear(&x->body);
    xi_describe_plan(&x->body, plan);
    xi_answer_body(x, 200, "application/json");
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
                                : xi_load_body_read(x, obj, &job->body, &err);
    json_decref(obj);
    if (rc != XI_OK) {
        free(job);
        xi_answer_problem(x, &err);
        return;
    }
    guess_name(job);
    job->x = x;
    if (job->body.dry_run) {
        xi_service_plan(service, &job->body.request, on_plan, job);
        return;
    }
    job->timer.data = job;
    (void)uv_timer_init(service->loop, &job->timer);
    if (xi_accepts(x, "text/event-stream")) {
        job->events = 1;
        xi_events_begin(x);
        (void)uv_timer_start(&job->timer, on_progress, 0, PROGRESS_MS);
    }
    xi_service_load(service, &job->body.request, on_loaded, job);
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
        rc = xi_body_text_of(obj, "", "id", 0, id, sizeof id, &err);
    if (rc == XI_OK)
        rc = xi_body_text_of(obj, "", "name", 0, name, sizeof name, &err);
    if (rc == XI_OK)
        rc = xi_body_tenant(x, obj, tenant, &err);
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

/* ---- the end of a trial ---- */

static void on_decided(void *ctx, const struct xi_session *view, const struct xi_err *err)
{
    struct xi_exchange *x = ctx;

    if (xi_answer_failed(x, err, view, "the swap"))
        return;
    xi_str_clear(&x->body);
    xi_describe_session(&x->body, view);
    xi_answer_body(x, 200, "application/json");
}

static void decide(struct xi_exchange *x,
                   void (*what)(struct xi_sessions *m, const char *tenant, const char *name,
                                xi_session_cb cb, void *ctx))
{
    static const char *const known[] = {"name", "tenant", NULL};
    char tenant[XI_NAME_MAX + 1], name[XI_NAME_MAX + 1] = "";
    struct xi_err err = {0};
    json_t *obj = xi_body_object(x);

    if (obj == NULL)
        return;
    enum xi_rc rc = xi_json_known_keys(obj, "", known, &err);
    if (rc == XI_OK)
        rc = xi_body_text_of(obj, "", "name", XI_JSON_REQUIRED, name, sizeof name, &err);
    if (rc == XI_OK)
        rc = xi_name_check(name, "name", &err);
    if (rc == XI_OK)
        rc = xi_body_tenant(x, obj, tenant, &err);
    json_decref(obj);
    if (rc != XI_OK)
        xi_answer_problem(x, &err);
    else
        what(x->server->service->sessions, tenant, name, on_decided, x);
}

void xi_control_promote(struct xi_exchange *x)
{
    decide(x, xi_swap_promote);
}

void xi_control_rollback(struct xi_exchange *x)
{
    decide(x, xi_swap_rollback);
}
