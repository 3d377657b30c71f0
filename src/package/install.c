#define _GNU_SOURCE
#include "package/install.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "package/models.h"
#include "package/package.h"

struct staging {
    int dir;
    int fd; /* of the entry that is being written, or of the file that was opened last */
    const struct xi_package *package;
    const struct xi_manifest_variant *variant; /* whose files are being opened */
    int extra_fd;                              /* its second file, while the first is open */
};

static void close_fd(int *fd)
{
    if (*fd >= 0)
        (void)close(*fd);
    *fd = -1;
}

static enum xi_rc stage_begin(void *ctx, size_t index, const struct xi_entry *entry,
                              struct xi_err *err)
{
    struct staging *s = ctx;
    char name[24];

    (void)snprintf(name, sizeof name, "%zu", index);
    s->fd = openat(s->dir, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0444);
    if (s->fd < 0)
        return xi_fail(err, xi_rc_errno(errno), "installing \"%.70s\": %s", entry->path,
                       strerror(errno));
    return XI_OK;
}

static enum xi_rc stage_write(void *ctx, const void *data, size_t n, struct xi_err *err)
{
    struct staging *s = ctx;
    const char *p = data;

    while (n > 0) {
        ssize_t done = write(s->fd, p, n);
        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0)
            return xi_fail(err, xi_rc_errno(errno), "installing the package: %s", strerror(errno));
        p += done;
        n -= (size_t)done;
    }
    return XI_OK;
}

static enum xi_rc stage_end(void *ctx, size_t index, const struct xi_entry *entry,
                            struct xi_err *err)
{
    struct staging *s = ctx;
    int flushed = fsync(s->fd);
    int why = errno;

    (void)index;
    close_fd(&s->fd);
    if (flushed != 0)
        return xi_fail(err, xi_rc_errno(why), "installing \"%.70s\": %s", entry->path,
                       strerror(why));
    return XI_OK;
}

/* The staged copy is what will be loaded, so that is what gets looked at. */
static enum xi_rc open_staged(void *ctx, size_t index, int *ret_fd, uint64_t *ret_bytes,
                              struct xi_err *err)
{
    struct staging *s = ctx;
    const char *path = s->variant->files[index];
    int entry = xi_archive_find(s->package->archive, path),
        *fd = index == 0 ? &s->fd : &s->extra_fd;
    char name[24];
    struct stat st;

    (void)snprintf(name, sizeof name, "%d", entry);
    close_fd(fd);
    *fd = openat(s->dir, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (*fd < 0 || fstat(*fd, &st) != 0)
        return xi_fail(err, xi_rc_errno(errno), "checking \"%.70s\": %s", path, strerror(errno));
    *ret_fd = *fd;
    *ret_bytes = (uint64_t)st.st_size;
    return XI_OK;
}

static enum xi_rc check_models(struct staging *s, struct xi_err *err)
{
    const struct xi_manifest *m = s->package->manifest;
    struct xi_model_files files = {.ctx = s, .open = open_staged};
    enum xi_rc rc = XI_OK;

    for (size_t i = 0; i < m->n_models; i++)
        for (size_t k = 0; k < m->models[i].n_variants && rc == XI_OK; k++) {
            s->variant = &m->models[i].variants[k];
            rc = xi_model_check_files(s->variant, &files, err);
        }
    return rc;
}

enum xi_rc xi_package_install(int archive_fd, int staging_fd, struct xi_package_record *ret,
                              struct xi_err *err)
{
    struct staging s = {.dir = staging_fd, .fd = -1, .extra_fd = -1};
    struct xi_archive_sink sink = {
        .ctx = &s, .begin = stage_begin, .write = stage_write, .end = stage_end};
    struct xi_package *package = NULL;
    struct xi_digest digest;
    enum xi_rc rc = xi_package_open(archive_fd, &package, err);

    s.package = package;
    if (rc == XI_OK)
        rc = xi_package_verify(package, &sink, &digest, err);
    if (rc == XI_OK)
        rc = check_models(&s, err);
    if (rc == XI_OK && fsync(staging_fd) != 0)
        rc = xi_fail(err, xi_rc_errno(errno), "installing the package: %s", strerror(errno));
    if (rc == XI_OK)
        rc = xi_package_record(package, &digest, ret, err);
    close_fd(&s.fd);
    close_fd(&s.extra_fd);
    xi_package_close(package);
    return rc;
}
