/* The store's calls about packages and desired state: each is one job. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/name.h"
#include "daemon/core/store_impl.h"

/* One struct for all of them: a call uses the fields it needs. */
struct call {
    struct xi_store_job job;
    char reference[XI_NAME_MAX + 72 + 2]; /* digest, name:version, session id */
    char tenant[XI_NAME_MAX + 1], engine[128];
    char links[XI_BLOB_PATH_MAX], shared[XI_NAME_MAX + 16]; /* folders; shared "": its own cache */
    struct xi_desired desired_row;

    char digest[XI_DIGEST_HEX + 1];
    struct xi_package_record *record;
    struct xi_package_row *rows;
    struct xi_desired *desired;
    size_t n;
    char link_dir[XI_STORE_PATH_MAX + 128], cache_dir[XI_STORE_PATH_MAX + 384];

    union {
        xi_store_cb plain;
        xi_record_cb record;
        xi_list_cb list;
        xi_links_cb links;
        xi_desired_cb desired;
    } cb;
    void *ctx;
};

static struct call *call_of(struct xi_store_job *job)
{
    return (struct call *)job; /* its first member */
}

static const struct xi_err *outcome(const struct call *c)
{
    return c->job.err.rc == XI_OK ? NULL : &c->job.err;
}

/* NULL when memory is out: the caller answers at once with `err`. */
static struct call *call_new(const char *reference, void *ctx, struct xi_err *err)
{
    struct call *c = calloc(1, sizeof *c);

    if (c == NULL) {
        (void)xi_fail(err, XI_ENOMEM, "store: out of memory");
        return NULL;
    }
    /* A longer one names nothing: cut, it still does. */
    (void)snprintf(c->reference, sizeof c->reference, "%s", reference);
    c->ctx = ctx;
    return c;
}

/* Answered by done_plain; at once where memory is out, and then NULL. */
static struct call *call_plain(const char *reference, xi_store_cb cb, void *ctx)
{
    struct xi_err err = {0};
    struct call *c = call_new(reference, ctx, &err);

    if (c == NULL)
        cb(ctx, &err);
    else
        c->cb.plain = cb;
    return c;
}

static void submit(struct xi_store *store, struct call *c,
                   void (*work)(struct xi_store *, struct xi_store_job *),
                   void (*done)(struct xi_store *, struct xi_store_job *))
{
    c->job.work = work;
    c->job.done = done;
    xi_store_submit(store, &c->job);
}

static void done_plain(struct xi_store *store, struct xi_store_job *job)
{
    struct call *c = call_of(job);

    (void)store;
    if (c->cb.plain != NULL)
        c->cb.plain(c->ctx, outcome(c));
    free(c);
}

/* "sha256:…" or the bare digest to lower-case hex. EINVAL. */
static enum xi_rc need_digest(const char *text, char ret[XI_DIGEST_HEX + 1], struct xi_err *err)
{
    struct xi_digest parsed;

    if (strncmp(text, "sha256:", 7) == 0)
        text += 7;
    if (xi_digest_parse(text, &parsed) != 0)
        return xi_fail(err, XI_EINVAL, "\"%.70s\" is no digest: 64 lower-case hex digits", text);
    xi_digest_text(&parsed, ret);
    return XI_OK;
}

/* ---- find ---- */

static void work_find(struct xi_store *store, struct xi_store_job *job)
{
    struct call *c = call_of(job);

    c->record = calloc(1, sizeof *c->record);
    if (c->record == NULL) {
        (void)xi_fail(&job->err, XI_ENOMEM, "store: out of memory");
        return;
    }
    job->err.rc =
        xi_catalogue_find(store->catalogue, c->reference, c->digest, c->record, &job->err);
    if (job->err.rc != XI_OK) {
        xi_record_free(c->record);
        c->record = NULL;
    }
}

static void done_find(struct xi_store *store, struct xi_store_job *job)
{
    struct call *c = call_of(job);

    (void)store;
    c->cb.record(c->ctx, c->record ? c->digest : NULL, c->record, outcome(c));
    free(c);
}

void xi_store_find(struct xi_store *store, const char *reference, xi_record_cb cb, void *ctx)
{
    struct xi_err err = {0};
    struct call *c = call_new(reference, ctx, &err);

    if (c == NULL) {
        cb(ctx, NULL, NULL, &err);
        return;
    }
    c->cb.record = cb;
    submit(store, c, work_find, done_find);
}

/* ---- list ---- */

static void work_list(struct xi_store *store, struct xi_store_job *job)
{
    struct call *c = call_of(job);

    job->err.rc = xi_catalogue_list(store->catalogue, &c->rows, &c->n, &job->err);
}

static void done_list(struct xi_store *store, struct xi_store_job *job)
{
    struct call *c = call_of(job);

    (void)store;
    c->cb.list(c->ctx, c->rows, c->n, outcome(c));
    xi_catalogue_free_rows(c->rows, c->n);
    free(c);
}

void xi_store_list(struct xi_store *store, xi_list_cb cb, void *ctx)
{
    struct xi_err err = {0};
    struct call *c = call_new("", ctx, &err);

    if (c == NULL) {
        cb(ctx, NULL, 0, &err);
        return;
    }
    c->cb.list = cb;
    submit(store, c, work_list, done_list);
}

/* ---- remove ---- */

static void work_remove(struct xi_store *store, struct xi_store_job *job)
{
    struct call *c = call_of(job);
    uint64_t collected;

    job->err.rc = need_digest(c->reference, c->digest, &job->err);
    if (job->err.rc == XI_OK)
        job->err.rc = xi_catalogue_remove(store->catalogue, c->digest, &job->err);
    if (job->err.rc != XI_OK)
        return;
    /* The package has gone; what can't be deleted now is counted and goes with the next one. */
    xi_store_disk_forget(&store->disk, c->digest);
    (void)!xi_store_disk_collect(&store->disk, store->catalogue, 1, &collected, NULL);
    xi_store_recount(store);
}

void xi_store_remove(struct xi_store *store, const char *digest, xi_store_cb cb, void *ctx)
{
    struct call *c = call_plain(digest, cb, ctx);

    if (c != NULL)
        submit(store, c, work_remove, done_plain);
}

/* ---- links and caches ---- */

static void cache_path(const struct call *c, char *ret, size_t room)
{
    if (c->shared[0] != '\0')
        (void)snprintf(ret, room, "cache/%s/%s", c->shared, c->engine);
    else
        (void)snprintf(ret, room, "cache/%s/%s/%s", c->tenant, c->digest, c->engine);
}

static enum xi_rc make_links(struct xi_store *store, struct call *c, struct xi_err *err)
{
    struct xi_package_record record = {0};
    char cache[XI_STORE_PATH_MAX];
    enum xi_rc rc = need_digest(c->reference, c->digest, err);

    if (rc == XI_OK)
        rc = xi_name_check(c->tenant, "tenant", err);
    if (rc == XI_OK)
        rc = xi_name_check(c->engine, "engine", err);
    if (rc == XI_OK)
        rc = xi_catalogue_get(store->catalogue, c->digest, &record, err);
    cache_path(c, cache, sizeof cache);
    if (rc == XI_OK)
        rc = xi_store_disk_links(&store->disk, c->links, c->digest, &record, err);
    if (rc == XI_OK)
        rc = xi_store_disk_cache(&store->disk, cache, err);
    if (rc == XI_OK)
        (void)snprintf(c->cache_dir, sizeof c->cache_dir, "%s/%s", store->disk.path, cache);
    xi_record_fini(&record);
    return rc;
}

static void work_links(struct xi_store *store, struct xi_store_job *job)
{
    struct call *c = call_of(job);

    job->err.rc = make_links(store, c, &job->err);
    (void)snprintf(c->link_dir, sizeof c->link_dir, "%s/%s/%s", store->disk.path, c->links,
                   c->digest);
}

static void done_links(struct xi_store *store, struct xi_store_job *job)
{
    struct call *c = call_of(job);
    int good = job->err.rc == XI_OK;

    (void)store;
    c->cb.links(c->ctx, good ? c->link_dir : NULL, good ? c->cache_dir : NULL, outcome(c));
    free(c);
}

/* Vendors' version texts hold spaces and slashes; a folder's name does not. */
static void folder_name(const char *text, char *dst, size_t room)
{
    (void)snprintf(dst, room, "%s", text);
    for (char *p = dst; *p; p++) {
        char word[] = {'x', *p, '\0'};
        if (!xi_name_valid(word))
            *p = '_';
    }
}

/* Of a group: its links, and a cache that outlives it. */
static void shared_folders(struct call *c, const struct xi_store_folders *want)
{
    char build[sizeof c->engine];

    (void)snprintf(c->links, sizeof c->links, XI_STORE_GROUP_LINKS "%s", want->group);
    (void)snprintf(build, sizeof build, "%.60s-%.31s", want->engine_build, want->device);
    folder_name(build, c->engine, sizeof c->engine);
    (void)snprintf(c->shared, sizeof c->shared, "%s%s.shared", want->shared_by,
                   want->shared_by[0] != '\0' ? "/" : "");
}

void xi_store_prepare(struct xi_store *store, const struct xi_store_folders *want, xi_links_cb cb,
                      void *ctx)
{
    struct xi_err err = {0};
    struct call *c = call_new(want->digest, ctx, &err);

    if (c == NULL) {
        cb(ctx, NULL, NULL, &err);
        return;
    }
    (void)snprintf(c->tenant, sizeof c->tenant, "%s", want->tenant);
    (void)snprintf(c->links, sizeof c->links, "links");
    folder_name(want->engine_build, c->engine, sizeof c->engine);
    if (want->group != NULL)
        shared_folders(c, want);
    c->cb.links = cb;
    submit(store, c, work_links, done_links);
}

void xi_store_links(struct xi_store *store, const char *tenant, const char *digest, xi_links_cb cb,
                    void *ctx)
{
    struct xi_store_folders want = {.tenant = tenant, .digest = digest, .engine_build = "any"};

    xi_store_prepare(store, &want, cb, ctx);
}

static void work_forget_group(struct xi_store *store, struct xi_store_job *job)
{
    xi_store_disk_forget_group(&store->disk, call_of(job)->reference);
}

static void done_forget_group(struct xi_store *store, struct xi_store_job *job)
{
    (void)store;
    free(call_of(job));
}

void xi_store_forget_group(struct xi_store *store, const char *id)
{
    struct call *c = call_new(id, NULL, NULL);

    if (c != NULL) /* otherwise the next start sweeps it */
        submit(store, c, work_forget_group, done_forget_group);
}

/* ---- desired state ---- */

static void work_desire(struct xi_store *store, struct xi_store_job *job)
{
    struct call *c = call_of(job);

    job->err.rc = xi_catalogue_desire(store->catalogue, &c->desired_row, &job->err);
}

void xi_store_desire(struct xi_store *store, const struct xi_desired *row, xi_store_cb cb,
                     void *ctx)
{
    struct call *c = call_plain(row->id, cb, ctx);

    if (c == NULL)
        return;
    c->desired_row = *row;
    submit(store, c, work_desire, done_plain);
}

static void work_replace(struct xi_store *store, struct xi_store_job *job)
{
    struct call *c = call_of(job);

    job->err.rc = xi_catalogue_replace(store->catalogue, c->reference, &c->desired_row, &job->err);
}

void xi_store_replace(struct xi_store *store, const char *old_id, const struct xi_desired *row,
                      xi_store_cb cb, void *ctx)
{
    struct call *c = call_plain(old_id, cb, ctx);

    if (c == NULL)
        return;
    c->desired_row = *row;
    submit(store, c, work_replace, done_plain);
}

static void work_undesire(struct xi_store *store, struct xi_store_job *job)
{
    struct call *c = call_of(job);

    job->err.rc = xi_catalogue_undesire(store->catalogue, c->reference, &job->err);
}

void xi_store_undesire(struct xi_store *store, const char *id, xi_store_cb cb, void *ctx)
{
    struct call *c = call_plain(id, cb, ctx);

    if (c != NULL)
        submit(store, c, work_undesire, done_plain);
}

static void work_desired(struct xi_store *store, struct xi_store_job *job)
{
    struct call *c = call_of(job);

    job->err.rc = xi_catalogue_desired(store->catalogue, &c->desired, &c->n, &job->err);
}

static void done_desired(struct xi_store *store, struct xi_store_job *job)
{
    struct call *c = call_of(job);

    (void)store;
    c->cb.desired(c->ctx, c->desired, c->n, outcome(c));
    free(c->desired);
    free(c);
}

void xi_store_desired(struct xi_store *store, xi_desired_cb cb, void *ctx)
{
    struct xi_err err = {0};
    struct call *c = call_new("", ctx, &err);

    if (c == NULL) {
        cb(ctx, NULL, 0, &err);
        return;
    }
    c->cb.desired = cb;
    submit(store, c, work_desired, done_desired);
}
