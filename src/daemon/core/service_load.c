#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/log.h"
#include "daemon/core/service_private.h"

/* A load has two halves that run beside each other: the session comes up, and its row is made
 * durable. The caller hears when both are done (or the second, when it does not want to wait); a
 * load that fails takes its row back, unless it was accepted and the daemon's end cut it off. */
struct load_op {
    struct xi_service *s;
    struct xi_load_options options;
    int wait, replace;
    struct xi_swap_ask swap;
    xi_session_cb cb; /* NULL once told */
    xi_plan_cb plan_cb;
    void *ctx;
    struct xi_session *session; /* one reference */
    int fresh;                  /* the row is this load's */
    int row_done, up_done;
    struct xi_err err; /* of the load */
};

static void tell(struct load_op *op, const struct xi_session *view, const struct xi_err *err)
{
    xi_session_cb cb = op->cb;

    op->cb = NULL;
    if (cb != NULL)
        cb(op->ctx, view, err);
}

static void op_end(struct load_op *op)
{
    if (op->session != NULL)
        xi_session_put(op->session);
    free(op);
}

static void on_taken_back(void *ctx, const struct xi_err *err)
{
    struct load_op *op = ctx;

    if (err != NULL)
        xi_log(XI_ERROR, "desired.stale", "id=%s why=%s", op->session->id, err->msg);
    else
        op->session->desired = 0;
    tell(op, op->session, &op->err);
    op_end(op);
}

/* Whoever was told that it is accepted finds it when the daemon is back. */
static int takes_back(const struct load_op *op)
{
    int accepted = op->cb == NULL;

    return op->fresh && op->session->desired && !(accepted && op->err.rc == XI_EDRAIN);
}

static void conclude(struct load_op *op)
{
    if (op->row_done && !op->wait && !op->up_done)
        tell(op, op->session, NULL);
    if (!op->row_done || !op->up_done)
        return;
    if (op->err.rc == XI_OK) {
        tell(op, op->session, NULL);
        op_end(op);
    } else if (takes_back(op)) {
        xi_store_undesire(op->s->store, op->session->id, on_taken_back, op);
    } else {
        tell(op, op->session, &op->err);
        op_end(op);
    }
}

static void on_up(void *ctx, const struct xi_session *view, const struct xi_err *err)
{
    struct load_op *op = ctx;

    (void)view;
    op->up_done = 1;
    if (err != NULL)
        op->err = *err;
    if (op->session != NULL) /* else from inside the load: start() goes on */
        conclude(op);
}

static void on_desired(void *ctx, const struct xi_err *err)
{
    struct load_op *op = ctx;

    op->row_done = 1;
    if (err == NULL) {
        op->session->desired = 1;
        conclude(op);
        return;
    }
    xi_log(XI_ERROR, "desired.failed", "id=%s why=%s", op->session->id, err->msg);
    tell(op, NULL, err);
    if (op->up_done) {
        xi_sessions_unload(op->s->sessions, op->session, NULL, NULL);
        op_end(op);
        return;
    }
    xi_sessions_unload(op->s->sessions, op->session, NULL, NULL); /* on_up hears of it */
}

static void on_swapped(void *ctx, const struct xi_session *view, const struct xi_err *err)
{
    struct load_op *op = ctx;

    tell(op, view, err);
    op_end(op);
}

/* Has somebody the name that we are to replace? One that never came up yields it anyway. */
static int is_taken(struct load_op *op, const struct xi_package_record *record)
{
    struct xi_load_options *o = &op->options;
    const char *name = o->name[0] != '\0' ? o->name : record->name;
    struct xi_session *has;

    if (!op->replace || xi_sessions_find(op->s->sessions, o->tenant, name, &has, NULL) != XI_OK)
        return 0;
    return has->state != XI_SESSION_FAILED || has->desired;
}

static void swap(struct load_op *op, const char *digest, struct xi_package_record *record)
{
    char id[XI_UUID_TEXT + 1];
    struct xi_session *session = NULL;
    struct xi_err err;

    xi_uuid_new(id);
    if (xi_swap_begin(op->s->sessions, id, digest, record, &op->options, &op->swap, on_swapped, op,
                      &session, &err) != XI_OK) {
        on_swapped(op, NULL, &err);
        return;
    }
    if (!op->wait)
        tell(op, session, NULL);
}

static void start(struct load_op *op, const char *digest, struct xi_package_record *record)
{
    struct xi_desired row = {.options = op->options};
    struct xi_session *session = NULL;
    struct xi_err err;

    xi_uuid_new(row.id);
    if (xi_sessions_load(op->s->sessions, row.id, digest, record, &op->options, on_up, op, &session,
                         &err) != XI_OK) {
        tell(op, NULL, &err);
        op_end(op);
        return;
    }
    op->session = session;
    xi_session_get(session);
    if (session->desired) {
        op->row_done = 1;
        conclude(op);
        return;
    }
    op->fresh = 1;
    (void)snprintf(row.id, sizeof(row.id), "%s", session->id);
    (void)snprintf(row.digest, sizeof(row.digest), "%s", digest);
    row.options = session->options;
    xi_store_desire(op->s->store, &row, on_desired, op);
}

static void on_found(void *ctx, const char *digest, struct xi_package_record *record,
                     const struct xi_err *err)
{
    struct load_op *op = ctx;

    if (err != NULL) {
        tell(op, NULL, err);
        op_end(op);
        return;
    }
    if (is_taken(op, record))
        swap(op, digest, record);
    else
        start(op, digest, record);
}

void xi_service_load(struct xi_service *s, const struct xi_load_request *load, xi_session_cb cb,
                     void *ctx)
{
    struct load_op *op;
    struct xi_err err = {0};

    if (s->draining)
        (void)xi_fail(&err, XI_EDRAIN, "the daemon is shutting down");
    else if (!s->restored)
        (void)xi_fail(&err, XI_EAGAIN, "the daemon has just started and looks for its engines");
    op = err.rc == XI_OK ? calloc(1, sizeof(*op)) : NULL;
    if (op == NULL) {
        if (err.rc == XI_OK)
            (void)xi_fail(&err, XI_ENOMEM, "no memory for another load");
        cb(ctx, NULL, &err);
        return;
    }
    *op = (struct load_op){.s = s,
                           .options = load->options,
                           .wait = load->wait,
                           .replace = load->replace,
                           .swap = load->swap,
                           .cb = cb,
                           .ctx = ctx};
    xi_store_find(s->store, load->package, on_found, op);
}

static void on_plan_found(void *ctx, const char *digest, struct xi_package_record *record,
                          const struct xi_err *err)
{
    struct load_op *op = ctx;
    struct xi_plan plan;
    struct xi_err why = {0};
    enum xi_rc rc = err == NULL ? XI_OK : err->rc;

    if (err != NULL)
        why = *err;
    else
        rc = xi_sessions_plan(op->s->sessions, digest, record, &op->options, op->replace, &plan,
                              &why);
    op->plan_cb(op->ctx, rc == XI_OK ? &plan : NULL, rc == XI_OK ? NULL : &why);
    xi_record_free(record);
    op_end(op);
}

void xi_service_plan(struct xi_service *s, const struct xi_load_request *load, xi_plan_cb cb,
                     void *ctx)
{
    struct load_op *op = calloc(1, sizeof(*op));
    struct xi_err err;

    if (op == NULL || !s->restored) {
        (void)xi_fail(&err, op == NULL ? XI_ENOMEM : XI_EAGAIN, "%s",
                      op == NULL ? "no memory for a plan"
                                 : "the daemon has just started and looks for its engines");
        cb(ctx, NULL, &err);
        free(op);
        return;
    }
    *op = (struct load_op){
        .s = s, .options = load->options, .replace = load->replace, .plan_cb = cb, .ctx = ctx};
    xi_store_find(s->store, load->package, on_plan_found, op);
}

/* ---- unload ---- */

struct unload_op {
    struct xi_service *s;
    struct xi_session *session; /* one reference */
    xi_session_cb cb;
    void *ctx;
};

static void on_gone(void *ctx, const struct xi_session *view, const struct xi_err *err)
{
    struct unload_op *op = ctx;

    op->cb(op->ctx, view, err);
    xi_session_put(op->session);
    free(op);
}

static void on_undesired(void *ctx, const struct xi_err *err)
{
    struct unload_op *op = ctx;

    struct xi_err busy;

    if (err != NULL && err->rc != XI_ENOENT) {
        on_gone(op, NULL, err);
        return;
    }
    if (err != NULL && xi_swap_commits(op->session)) { /* a candidate: its row is on its way in */
        (void)xi_fail(&busy, XI_ECONFLICT, "%s is being swapped at this moment", op->session->name);
        on_gone(op, NULL, &busy);
        return;
    }
    op->session->desired = 0;
    xi_sessions_unload(op->s->sessions, op->session, on_gone, op);
}

void xi_service_unload(struct xi_service *s, const char *tenant, const char *name_or_id,
                       xi_session_cb cb, void *ctx)
{
    struct unload_op *op;
    struct xi_session *session;
    struct xi_err err;

    if (xi_sessions_find(s->sessions, tenant, name_or_id, &session, &err) != XI_OK) {
        cb(ctx, NULL, &err);
        return;
    }
    if (xi_swap_commits(session)) {
        (void)xi_fail(&err, XI_ECONFLICT, "%s is being swapped at this moment", session->name);
        cb(ctx, NULL, &err);
        return;
    }
    op = calloc(1, sizeof(*op));
    if (op == NULL) {
        (void)xi_fail(&err, XI_ENOMEM, "no memory for an unload");
        cb(ctx, NULL, &err);
        return;
    }
    *op = (struct unload_op){.s = s, .session = session, .cb = cb, .ctx = ctx};
    xi_session_get(session);
    xi_store_undesire(s->store, session->id, on_undesired, op);
}

/* ---- restore ---- */

static void restore_next(struct xi_service_inner *in);

static void restore_failed(struct xi_service_inner *in, const struct xi_desired *row,
                           const struct xi_err *err)
{
    xi_log(XI_ERROR, "session.restore_failed", "id=%s name=%s why=%s", row->id, row->options.name,
           err->msg);
    if (in->restore_failures++ == 0)
        in->restore_err = *err;
}

static void on_restore_found(void *ctx, const char *digest, struct xi_package_record *record,
                             const struct xi_err *err)
{
    struct xi_service_inner *in = ctx;
    const struct xi_desired *row = &in->rows[in->next_row++];
    struct xi_session *session;
    struct xi_err why;

    if (err != NULL) {
        restore_failed(in, row, err);
    } else if (in->closing) {
        xi_record_free(record);
    } else if (xi_sessions_load(in->s.sessions, row->id, digest, record, &row->options, NULL, NULL,
                                &session, &why) != XI_OK) {
        restore_failed(in, row, &why);
    } else {
        session->desired = 1;
    }
    restore_next(in);
}

static void restore_next(struct xi_service_inner *in)
{
    if (in->next_row < in->n_rows && !in->closing) {
        xi_store_find(in->s.store, in->rows[in->next_row].digest, on_restore_found, in);
        return;
    }
    free(in->rows);
    in->rows = NULL;
    in->s.restored = 1;
}

static void on_rows(void *ctx, const struct xi_desired *rows, size_t n, const struct xi_err *err)
{
    struct xi_service_inner *in = ctx;

    in->n_rows = 0;
    in->next_row = 0;
    if (err == NULL && n > 0) {
        in->rows = malloc(n * sizeof(*rows));
        if (in->rows != NULL) {
            memcpy(in->rows, rows, n * sizeof(*rows));
            in->n_rows = n;
        }
    }
    if (err != NULL || (n > 0 && in->rows == NULL)) {
        xi_log(XI_ERROR, "desired.unread", "why=%s",
               err != NULL ? err->msg : "no memory for its rows");
        in->restore_failures++;
        (void)xi_fail(&in->restore_err, XI_EIO, "desired state could not be read");
    }
    restore_next(in);
}

void xi_service_probed(struct xi_service_inner *in)
{
    if (in->closing)
        return;
    xi_sessions_set_engines(in->s.sessions, in->records, in->s.n_engines);
    xi_sessions_on_suspect(in->s.sessions, xi_service_look_again, in);
    xi_store_desired(in->s.store, on_rows, in);
}
