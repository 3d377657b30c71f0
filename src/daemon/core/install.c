/* install.c: uploads, and the host that unpacks them. What the host leaves behind is believed by
 * nobody: install_commit.c checks it. Files of an upload: staging/<id>/archive, and out/, the one
 * folder its host may write. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/hash.h"
#include "base/log.h"
#include "base/platform/file.h"
#include "base/platform/process.h"
#include "base/platform/self.h"
#include "daemon/core/install_commit.h"
#include "daemon/core/store_impl.h"
#include "daemon/ipc/host_link.h"

struct xi_upload {
    struct xi_store_job job; /* one at a time: write, prepare, commit, clean */
    struct xi_store *store;  /* NULL: it has closed */
    struct xi_upload *prev, *next;
    char folder[64]; /* "staging/<id>" */
    uint64_t expected_bytes, limit_bytes;

    /* store thread while a job is out, else loop */
    int archive_fd, out_fd;
    struct xi_sha256 *hash;
    struct xi_digest digest;
    uint64_t bytes;
    struct xi_package_record record;
    int existed;

    /* loop */
    int writing, aborted, installing, timer_open, unpacked;
    const void *data;
    size_t data_bytes;
    xi_store_cb write_cb;
    void *write_ctx;
    xi_install_cb cb;
    void *ctx;
    struct xi_host *host;
    struct xi_err host_err; /* rc XI_OK: nothing wrong yet */
    uv_timer_t timer;
};

static struct xi_upload *upload_of(struct xi_store_job *job)
{
    return (struct xi_upload *)job; /* its first member */
}

static void submit(struct xi_upload *u, void (*work)(struct xi_store *, struct xi_store_job *),
                   void (*done)(struct xi_store *, struct xi_store_job *))
{
    u->job.work = work;
    u->job.done = done;
    xi_store_submit(u->store, &u->job);
}

void xi_store_configure_install(struct xi_store *store, const struct xi_install_config *config)
{
    store->install = *config;
    (void)snprintf(store->host_program, sizeof store->host_program, "%s", config->host_program);
    (void)snprintf(store->plugin_dir, sizeof store->plugin_dir, "%s",
                   config->plugin_dir ? config->plugin_dir : "");
    store->install.host_program = store->host_program;
    store->install.plugin_dir = store->plugin_dir;
    store->disk.host_uid = config->host_uid;
}

/* ---- the end of an upload ---- */

static void timer_closed(uv_handle_t *handle)
{
    free(handle->data);
}

static void upload_free(struct xi_upload *u)
{
    xi_fd_close(&u->archive_fd);
    xi_fd_close(&u->out_fd);
    xi_sha256_free(u->hash);
    xi_record_fini(&u->record);
    if (u->timer_open)
        uv_close((uv_handle_t *)&u->timer, timer_closed);
    else
        free(u);
}

static void detach(struct xi_upload *u)
{
    struct xi_store *store = u->store;

    if (u->prev != NULL)
        u->prev->next = u->next;
    else
        store->uploads = u->next;
    if (u->next != NULL)
        u->next->prev = u->prev;
    store->n_uploads--;
    u->store = NULL;
}

static void work_clean(struct xi_store *store, struct xi_store_job *job)
{
    struct xi_upload *u = upload_of(job);

    /* What can't be deleted now is swept at the next start. */
    (void)xi_tree_remove(store->disk.dir, u->folder);
    /* Here, not on the loop: the last close of a deleted file gives all its pages back. */
    xi_fd_close(&u->archive_fd);
    xi_fd_close(&u->out_fd);
    xi_store_recount(store);
}

static void done_clean(struct xi_store *store, struct xi_store_job *job)
{
    struct xi_upload *u = upload_of(job);

    (void)store;
    detach(u);
    upload_free(u);
}

static void finish(struct xi_upload *u, const struct xi_err *err)
{
    xi_install_cb cb = u->cb;

    u->cb = NULL;
    if (u->timer_open)
        (void)uv_timer_stop(&u->timer);
    if (err != NULL)
        xi_log(XI_WARN, "package.refused", "code=%s why=\"%s\"", xi_rc_code(err->rc), err->msg);
    else
        xi_log(XI_INFO, "package.installed", "name=%s version=%s existed=%d bytes=%llu",
               u->record.name, u->record.version, u->existed, (unsigned long long)u->bytes);
    cb(u->ctx, err ? NULL : &u->record, u->existed, err);
    submit(u, work_clean, done_clean);
}

/* ---- bytes ---- */

static enum xi_rc begin_refused(struct xi_store *store, uint64_t expected, struct xi_err *err)
{
    if (store->closed)
        return xi_fail(err, XI_EDRAIN, "shutting down");
    if (store->n_uploads >= XI_UPLOADS_MAX)
        return xi_fail(err, XI_EAGAIN, "%d packages are being uploaded already", XI_UPLOADS_MAX);
    if (expected > XI_PACKAGE_MAX)
        return xi_fail(err, XI_ETOOBIG, "a package of %llu bytes, the limit is %llu",
                       (unsigned long long)expected, (unsigned long long)XI_PACKAGE_MAX);
    /* The archive, and what it holds beside it. */
    return xi_store_disk_room(&store->disk, 2 * expected, err);
}

enum xi_rc xi_upload_begin(struct xi_store *store, uint64_t expected_bytes, struct xi_upload **ret,
                           struct xi_err *err)
{
    char id[XI_UUID_TEXT + 1];
    enum xi_rc rc = begin_refused(store, expected_bytes, err);

    if (rc != XI_OK)
        return rc;
    struct xi_upload *u = calloc(1, sizeof *u);
    struct xi_sha256 *hash = xi_sha256_new();
    if (u == NULL || hash == NULL) {
        free(u);
        xi_sha256_free(hash);
        return xi_fail(err, XI_ENOMEM, "upload: out of memory");
    }
    xi_uuid_new(id);
    (void)snprintf(u->folder, sizeof u->folder, "staging/%s", id);
    u->hash = hash;
    u->archive_fd = u->out_fd = -1;
    u->expected_bytes = expected_bytes;
    u->limit_bytes = expected_bytes ? expected_bytes : XI_PACKAGE_MAX;
    u->store = store;
    u->next = store->uploads;
    if (u->next != NULL)
        u->next->prev = u;
    store->uploads = u;
    store->n_uploads++;
    *ret = u;
    return XI_OK;
}

/* staging/<id>/archive, made with the first bytes. */
static enum xi_rc open_archive(struct xi_store *store, struct xi_upload *u, struct xi_err *err)
{
    char path[96];
    mode_t mode = geteuid() == 0 ? 0711 : 0700;

    if (u->archive_fd >= 0)
        return XI_OK;
    (void)snprintf(path, sizeof path, "%s/archive", u->folder);
    if (xi_beneath_mkdirs(store->disk.dir, u->folder, mode) == 0)
        u->archive_fd = xi_beneath_open(store->disk.dir, path, O_RDWR | O_CREAT | O_EXCL, 0600);
    if (u->archive_fd < 0)
        return xi_store_disk_failed(&store->disk, errno, "receiving the package", err);
    return XI_OK;
}

static void work_write(struct xi_store *store, struct xi_store_job *job)
{
    struct xi_upload *u = upload_of(job);

    job->err.rc = open_archive(store, u, &job->err);
    if (job->err.rc != XI_OK)
        return;
    if (u->data_bytes > u->limit_bytes - u->bytes) {
        (void)xi_fail(&job->err, XI_ETOOBIG, "more than the %llu bytes that %s",
                      (unsigned long long)u->limit_bytes,
                      u->expected_bytes ? "were announced" : "a package may have");
        return;
    }
    if (xi_fd_write_all(u->archive_fd, u->data, u->data_bytes) != 0) {
        (void)xi_store_disk_failed(&store->disk, errno, "receiving the package", &job->err);
        return;
    }
    xi_sha256_add(u->hash, u->data, u->data_bytes);
    u->bytes += u->data_bytes;
}

static void done_write(struct xi_store *store, struct xi_store_job *job)
{
    struct xi_upload *u = upload_of(job);
    struct xi_err err = job->err;

    (void)store;
    u->writing = 0;
    if (err.rc != XI_OK)
        u->host_err = err; /* an install after a failed write fails as that did */
    if (u->aborted) {
        (void)xi_fail(&err, XI_ECANCELLED, "the upload was given up");
        u->write_cb(u->write_ctx, &err);
        submit(u, work_clean, done_clean);
        return;
    }
    u->write_cb(u->write_ctx, err.rc == XI_OK ? NULL : &err);
}

void xi_upload_write(struct xi_upload *u, const void *data, size_t bytes, xi_store_cb cb, void *ctx)
{
    struct xi_err err = {0};

    if (u->store == NULL) {
        (void)xi_fail(&err, XI_EDRAIN, "shutting down");
        cb(ctx, &err);
        return;
    }
    XI_ASSERT(!u->writing && !u->aborted && !u->installing);
    u->writing = 1;
    u->data = data;
    u->data_bytes = bytes;
    u->write_cb = cb;
    u->write_ctx = ctx;
    submit(u, work_write, done_write);
}

void xi_upload_abort(struct xi_upload *u)
{
    if (u->store == NULL) {
        upload_free(u);
        return;
    }
    XI_ASSERT(!u->installing && !u->aborted);
    u->aborted = 1;
    if (!u->writing)
        submit(u, work_clean, done_clean);
}

/* ---- the host ---- */

static void work_commit(struct xi_store *store, struct xi_store_job *job)
{
    struct xi_upload *u = upload_of(job);
    char folder[96];
    struct xi_install_commit in = {.disk = &store->disk,
                                   .catalogue = store->catalogue,
                                   .folder = folder,
                                   .archive = u->digest,
                                   .archive_bytes = u->bytes};

    (void)snprintf(folder, sizeof folder, "%s/out", u->folder);
    job->err.rc = xi_install_commit(&in, &u->record, &u->existed, &job->err);
}

static void done_commit(struct xi_store *store, struct xi_store_job *job)
{
    struct xi_err err = job->err;

    (void)store;
    finish(upload_of(job), err.rc == XI_OK ? NULL : &err);
}

static void on_installed(void *ctx, struct xi_host *host, uint64_t record_bytes)
{
    struct xi_upload *u = ctx;

    (void)record_bytes; /* the file itself is read, with a cap */
    u->unpacked = 1;
    (void)uv_timer_stop(&u->timer);
    xi_host_stop(host, 1000, "unpacked");
}

static void on_failed(void *ctx, struct xi_host *host, uint32_t session, const struct xi_err *err,
                      const char *phase)
{
    struct xi_upload *u = ctx;

    (void)session;
    (void)phase;
    if (u->host_err.rc == XI_OK)
        u->host_err = *err;
    if (u->host_err.rc == XI_OK) /* a failure without a code is a lie too */
        (void)xi_fail(&u->host_err, XI_EPACKAGE, "unpacking failed");
    (void)uv_timer_stop(&u->timer);
    xi_host_stop(host, 1000, "refused the package");
}

static uint64_t time_limit_ms(const struct xi_upload *u)
{
    uint32_t given = u->store->install.time_limit_ms;

    return given ? given : 60000 + u->bytes / (8 * XI_MIB) * 1000;
}

static void on_timeout(uv_timer_t *timer)
{
    struct xi_upload *u = timer->data;

    if (u->host == NULL)
        return;
    (void)xi_fail(&u->host_err, XI_ETIMEOUT, "unpacking took longer than %llu ms",
                  (unsigned long long)time_limit_ms(u));
    (void)xi_hint(&u->host_err, "a slow disk? look at the machine's load and try again");
    xi_host_stop(u->host, 0, "unpacking took too long");
}

/* It ended without a word. */
static void explain_exit(const struct xi_host_exit *why, struct xi_err *err)
{
    (void)xi_fail(err, XI_EPACKAGE, "the process that unpacked it %s", why->reason);
    (void)xi_hint(err, "the daemon is unharmed; `xinfer inspect FILE` looks at the package");
}

static void on_exited(void *ctx, struct xi_host *host, const struct xi_host_exit *why)
{
    struct xi_upload *u = ctx;

    u->host = NULL;
    if (u->store == NULL) { /* the store closed meanwhile and has answered */
        xi_host_free(host);
        upload_free(u);
        return;
    }
    if (u->host_err.rc == XI_OK && !u->unpacked)
        explain_exit(why, &u->host_err);
    xi_host_free(host);
    if (u->host_err.rc != XI_OK)
        finish(u, &u->host_err);
    else
        submit(u, work_commit, done_commit);
}

static enum xi_rc start_host(struct xi_upload *u, struct xi_err *err)
{
    const struct xi_install_config *config = &u->store->install;
    const struct xi_host_events events = {
        .ctx = u, .installed = on_installed, .failed = on_failed, .exited = on_exited};
    struct xi_host_spec spec = {
        .role = XI_HOST_INSTALL,
        .nice = XI_NICE_INSTALL,
        .label = "install",
        .program = config->host_program,
        .plugin_dir = config->plugin_dir,
        .archive_fd = u->archive_fd,
        .staging_fd = u->out_fd,
        .data_limit_bytes = config->data_limit_bytes ? config->data_limit_bytes : 512 * XI_MIB,
        .run_as_uid = config->host_uid,
        .sandbox = config->sandbox};

    if (config->host_program == NULL)
        return xi_fail(err, XI_EUNSUPPORTED, "this daemon was started without an installer");
    enum xi_rc rc = xi_host_start(u->store->loop, config->shm, &spec, &events, &u->host, err);
    if (rc == XI_EHOST)
        (void)xi_hint(err, "is xInfer installed whole? `xinferd --check-config` looks");
    if (rc != XI_OK)
        return rc;
    XI_ASSERT(uv_timer_init(u->store->loop, &u->timer) == 0);
    u->timer.data = u;
    u->timer_open = 1;
    XI_ASSERT(uv_timer_start(&u->timer, on_timeout, time_limit_ms(u), 0) == 0);
    return XI_OK;
}

/* ---- install ---- */

/* The very bytes of a package that is here, with all its blobs: nothing to unpack. */
static int is_here(struct xi_store *store, struct xi_upload *u)
{
    char digest[XI_DIGEST_HEX + 1];

    xi_digest_text(&u->digest, digest);
    if (xi_catalogue_get(store->catalogue, digest, &u->record, NULL) != XI_OK)
        return 0;
    for (uint32_t i = 0; i < u->record.n_blobs; i++)
        if (!xi_store_disk_has_blob(&store->disk, &u->record.blobs[i])) {
            xi_record_fini(&u->record);
            return 0;
        }
    return 1;
}

/* The archive for reading only, and an empty folder that the host owns. */
static enum xi_rc open_for_host(struct xi_store *store, struct xi_upload *u, struct xi_err *err)
{
    char path[96];
    uint32_t uid = store->disk.host_uid;

    xi_fd_close(&u->archive_fd);
    (void)snprintf(path, sizeof path, "%s/archive", u->folder);
    u->archive_fd = xi_beneath_open(store->disk.dir, path, O_RDONLY, 0);
    (void)snprintf(path, sizeof path, "%s/out", u->folder);
    if (u->archive_fd >= 0 && xi_beneath_mkdirs(store->disk.dir, path, 0700) == 0)
        u->out_fd = xi_beneath_open(store->disk.dir, path, O_RDONLY | O_DIRECTORY, 0);
    if (u->out_fd < 0 || (uid != 0 && fchown(u->out_fd, uid, (gid_t)-1) != 0))
        return xi_store_disk_failed(&store->disk, errno, "unpacking the package", err);
    return XI_OK;
}

static void work_prepare(struct xi_store *store, struct xi_store_job *job)
{
    struct xi_upload *u = upload_of(job);

    if (u->host_err.rc != XI_OK) {
        job->err = u->host_err;
        return;
    }
    if (u->bytes == 0) {
        (void)xi_fail(&job->err, XI_EINVAL, "the upload is empty");
        return;
    }
    if (u->expected_bytes != 0 && u->bytes != u->expected_bytes) {
        (void)xi_fail(&job->err, XI_EINVAL, "the upload ended after %llu of %llu bytes",
                      (unsigned long long)u->bytes, (unsigned long long)u->expected_bytes);
        return;
    }
    xi_sha256_end(u->hash, &u->digest);
    u->existed = is_here(store, u);
    if (u->existed)
        return;
    job->err.rc = xi_store_disk_room(&store->disk, u->bytes, &job->err);
    if (job->err.rc == XI_OK)
        job->err.rc = open_for_host(store, u, &job->err);
}

static void done_prepare(struct xi_store *store, struct xi_store_job *job)
{
    struct xi_upload *u = upload_of(job);
    struct xi_err err = job->err;

    if (err.rc == XI_OK && !u->existed && store->closed)
        (void)xi_fail(&err, XI_EDRAIN, "shutting down");
    if (err.rc == XI_OK && !u->existed)
        err.rc = start_host(u, &err);
    if (err.rc != XI_OK)
        finish(u, &err);
    else if (u->existed)
        finish(u, NULL);
}

void xi_upload_install(struct xi_upload *u, xi_install_cb cb, void *ctx)
{
    struct xi_err err = {0};

    if (u->store == NULL) {
        (void)xi_fail(&err, XI_EDRAIN, "shutting down");
        upload_free(u);
        cb(ctx, NULL, 0, &err);
        return;
    }
    XI_ASSERT(!u->writing && !u->aborted && !u->installing);
    u->installing = 1;
    u->cb = cb;
    u->ctx = ctx;
    submit(u, work_prepare, done_prepare);
}

void xi_install_close_all(struct xi_store *store)
{
    while (store->uploads != NULL) {
        struct xi_upload *u = store->uploads;
        struct xi_err err = {0};
        xi_install_cb cb = u->cb;
        detach(u);
        u->cb = NULL;
        if (u->timer_open)
            (void)uv_timer_stop(&u->timer);
        if (u->host != NULL)
            xi_host_stop(u->host, 0, "shutting down"); /* `exited` frees the upload */
        if (cb != NULL) {
            (void)xi_fail(&err, XI_EDRAIN, "shutting down: the package was not installed");
            cb(u->ctx, NULL, 0, &err);
        }
    }
}
