#define _GNU_SOURCE
#include "daemon/core/install_commit.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/platform/file.h"
#include "base/platform/process.h"

static void at_step(const struct xi_install_commit *in)
{
    if (in->at_step != NULL)
        in->at_step(in->ctx);
}

/* A plain file that the host left, with one name only. O_NONBLOCK: a FIFO must not stop us. */
static enum xi_rc open_left_file(const struct xi_install_commit *in, int folder, const char *name,
                                 int *ret_fd, struct stat *ret, struct xi_err *err)
{
    int fd = xi_beneath_open(folder, name, O_RDONLY | O_NONBLOCK | O_NOFOLLOW, 0);

    if (fd < 0 && errno == EACCES && fchmodat(folder, name, 0400, AT_SYMLINK_NOFOLLOW) == 0)
        fd = xi_beneath_open(folder, name, O_RDONLY | O_NONBLOCK | O_NOFOLLOW, 0);
    if (fd < 0 && (errno == ENOENT || errno == ELOOP || errno == EXDEV || errno == EACCES))
        return xi_fail(err, XI_EPROTO, "unpacking left no usable file \"%s\"", name);
    if (fd < 0)
        return xi_store_disk_failed(in->disk, errno, "reading what was unpacked", err);
    if (fstat(fd, ret) != 0 || !S_ISREG(ret->st_mode) || ret->st_nlink != 1) {
        xi_fd_close(&fd);
        return xi_fail(err, XI_EPROTO, "unpacking left \"%s\", which is no plain file", name);
    }
    *ret_fd = fd;
    return XI_OK;
}

static enum xi_rc read_record(const struct xi_install_commit *in, int folder,
                              struct xi_package_record *ret, struct xi_err *err)
{
    struct stat st;
    int fd = -1, more = 0;
    size_t n = 0;
    unsigned char *bytes = malloc(XI_RECORD_BYTES_MAX);
    enum xi_rc rc;

    if (bytes == NULL)
        return xi_fail(err, XI_ENOMEM, "package record: out of memory");
    rc = open_left_file(in, folder, "record", &fd, &st, err);
    if (rc != XI_OK)
        goto out;
    if (xi_fd_read_start(fd, bytes, XI_RECORD_BYTES_MAX, &n, &more) != 0)
        rc = xi_store_disk_failed(in->disk, errno, "reading the package's record", err);
    else if (more)
        rc = xi_fail(err, XI_EPROTO, "the package's record is larger than %llu bytes",
                     (unsigned long long)XI_RECORD_BYTES_MAX);
    else
        rc = xi_record_decode(bytes, n, ret, err);
out:
    xi_fd_close(&fd);
    free(bytes);
    return rc;
}

static int by_path(const void *a, const void *b)
{
    const struct xi_record_blob *const *x = a, *const *y = b;

    return strcmp((*x)->path, (*y)->path);
}

static int folder_is_file(const struct xi_record_blob **sorted, size_t n, const char *path)
{
    for (const char *slash = strchr(path, '/'); slash; slash = strchr(slash + 1, '/')) {
        struct xi_record_blob folder = {.bytes = 0};
        const struct xi_record_blob *key = &folder;
        memcpy(folder.path, path, (size_t)(slash - path));
        if (bsearch((const void *)&key, (const void *)sorted, n, sizeof *sorted, by_path) != NULL)
            return 1;
    }
    return 0;
}

/* Two files under one path, or a path that is also a folder: links/ could not hold both. */
static enum xi_rc check_paths(const struct xi_package_record *r, struct xi_err *err)
{
    enum xi_rc rc = XI_OK;
    const struct xi_record_blob **sorted = calloc(r->n_blobs, sizeof(*sorted));

    if (sorted == NULL)
        return xi_fail(err, XI_ENOMEM, "package record: out of memory");
    for (uint32_t i = 0; i < r->n_blobs; i++)
        sorted[i] = &r->blobs[i];
    qsort((void *)sorted, r->n_blobs, sizeof *sorted, by_path);
    for (uint32_t i = 1; rc == XI_OK && i < r->n_blobs; i++)
        if (strcmp(sorted[i - 1]->path, sorted[i]->path) == 0 ||
            folder_is_file(sorted, r->n_blobs, sorted[i]->path))
            rc = xi_fail(err, XI_EPROTO, "package record: \"%.100s\" clashes with another path",
                         sorted[i]->path);
    free((void *)sorted);
    return rc;
}

/* Without a signature the digest is that of the bytes we received. With one it can't be seen from
 * here; the catalogue refuses a digest that is taken by other files. */
static enum xi_rc check_claims(const struct xi_install_commit *in,
                               const struct xi_package_record *r, struct xi_err *err)
{
    uint64_t total = 0;

    for (uint32_t i = 0; i < r->n_blobs; i++)
        total += r->blobs[i].bytes;
    if (total > in->archive_bytes)
        return xi_fail(err, XI_EPROTO, "the files have %llu bytes, the archive they came in %llu",
                       (unsigned long long)total, (unsigned long long)in->archive_bytes);
    if ((r->flags & XI_RECORD_SIGNED) == 0 && !xi_digest_equal(&r->digest, &in->archive))
        return xi_fail(err, XI_EDIGEST, "%s %s: the digest is not that of the uploaded file",
                       r->name, r->version);
    for (uint32_t i = 0; (r->flags & XI_RECORD_SIGNED) == 0 && i < r->n_blobs; i++)
        if (strcmp(r->blobs[i].path, "signature.json") == 0)
            return xi_fail(err, XI_EPROTO, "package record: a signature is there but not told");
    return check_paths(r, err);
}

static enum xi_rc verify(int fd, const struct stat *st, const struct xi_record_blob *blob,
                         struct xi_err *err)
{
    struct xi_digest have;
    uint64_t bytes = 0;
    char want[XI_DIGEST_HEX + 1], got[XI_DIGEST_HEX + 1];

    if ((uint64_t)st->st_size != blob->bytes)
        return xi_fail(err, XI_EDIGEST, "%.80s has %llu bytes, the package says %llu", blob->path,
                       (unsigned long long)st->st_size, (unsigned long long)blob->bytes);
    enum xi_rc rc = xi_sha256_fd(fd, &have, &bytes, err);
    if (rc != XI_OK)
        return rc;
    if (bytes == blob->bytes && xi_digest_equal(&have, &blob->sha256))
        return XI_OK;
    xi_digest_text(&blob->sha256, want);
    xi_digest_text(&have, got);
    return xi_fail(err, XI_EDIGEST, "%.80s has SHA-256 %.12s…, the package says %.12s…", blob->path,
                   got, want);
}

/* Ours, read-only, on the disk. */
static int make_durable(const struct xi_install_commit *in, int fd)
{
    if (fchown(fd, geteuid(), getegid()) != 0 && errno != EPERM)
        return -1;
    if (fchmod(fd, 0444) != 0)
        return -1;
    return xi_store_disk_flush(in->disk, fd);
}

/* Renames file i to its blob; one that is there with the right size is kept instead. */
static int put_blob(const struct xi_install_commit *in, int folder, const char *name,
                    const struct xi_record_blob *blob)
{
    char path[XI_BLOB_PATH_MAX], parent[XI_BLOB_PATH_MAX];

    if (xi_store_disk_has_blob(in->disk, blob))
        return unlinkat(folder, name, 0);
    xi_store_disk_blob_path(&blob->sha256, path);
    (void)snprintf(parent, sizeof parent, "%.*s", (int)(strrchr(path, '/') - path), path);
    if (xi_beneath_mkdirs(in->disk->dir, parent, geteuid() == 0 ? 0711 : 0700) != 0)
        return -1;
    return renameat(folder, name, in->disk->dir, path);
}

static enum xi_rc take_blob(const struct xi_install_commit *in, int folder, uint32_t index,
                            const struct xi_record_blob *blob, struct xi_err *err)
{
    char name[16];
    struct stat st;
    int fd = -1;

    (void)snprintf(name, sizeof name, "%u", index);
    enum xi_rc rc = open_left_file(in, folder, name, &fd, &st, err);
    if (rc == XI_OK)
        rc = verify(fd, &st, blob, err);
    if (rc != XI_OK)
        goto out;
    at_step(in);
    if (!xi_store_disk_has_blob(in->disk, blob) && make_durable(in, fd) != 0) {
        rc = xi_store_disk_failed(in->disk, errno, "storing the package", err);
        goto out;
    }
    at_step(in);
    if (put_blob(in, folder, name, blob) != 0)
        rc = xi_store_disk_failed(in->disk, errno, "storing the package", err);
    at_step(in);
out:
    xi_fd_close(&fd);
    return rc;
}

/* Each folder of blobs once: also those of blobs that were there, since the crash that left them
 * may have come before their folder was durable. */
static enum xi_rc flush_folders(const struct xi_install_commit *in,
                                const struct xi_package_record *r, struct xi_err *err)
{
    unsigned char seen[256] = {0};

    for (uint32_t i = 0; i < r->n_blobs; i++) {
        char path[XI_BLOB_PATH_MAX];
        unsigned first = r->blobs[i].sha256.bytes[0];
        if (seen[first])
            continue;
        seen[first] = 1;
        (void)snprintf(path, sizeof path, "blobs/sha256/%02x", first);
        if (xi_store_disk_flush_dir(in->disk, path) != 0)
            return xi_store_disk_failed(in->disk, errno, "storing the package", err);
    }
    if (xi_store_disk_flush_dir(in->disk, "blobs/sha256") != 0)
        return xi_store_disk_failed(in->disk, errno, "storing the package", err);
    return XI_OK;
}

enum xi_rc xi_install_commit(const struct xi_install_commit *in, struct xi_package_record *ret,
                             int *ret_existed, struct xi_err *err)
{
    struct xi_package_record record = {0};
    int existed = 0;
    int folder = xi_beneath_open(in->disk->dir, in->folder, O_RDONLY | O_DIRECTORY, 0);
    enum xi_rc rc;

    if (folder < 0)
        return xi_store_disk_failed(in->disk, errno, "reading what was unpacked", err);
    rc = read_record(in, folder, &record, err);
    if (rc == XI_OK)
        rc = check_claims(in, &record, err);
    at_step(in);
    for (uint32_t i = 0; rc == XI_OK && i < record.n_blobs; i++)
        rc = take_blob(in, folder, i, &record.blobs[i], err);
    if (rc == XI_OK)
        rc = flush_folders(in, &record, err);
    at_step(in);
    if (rc == XI_OK)
        rc = xi_catalogue_add(in->catalogue, &record, &existed, err);
    at_step(in);
    if (rc == XI_OK) {
        *ret = record;
        *ret_existed = existed;
    } else {
        xi_record_fini(&record);
    }
    xi_fd_close(&folder);
    return rc;
}
