#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "package/archive.h"
#include "package/crc32.h"
#include "package/path.h"
#include "package/zip.h"

enum { CHUNK = 1 << 18 };

struct writer {
    int fd;
    uint64_t written;
    struct xi_archive_source *sources;
    size_t n;
    struct xi_zip_entry *zip;
    struct xi_sha256 *digest;
    struct xi_crc32_table crc;
    struct xi_str record;
    uint8_t *chunk;
};

static enum xi_rc put(struct writer *w, const void *data, size_t n, int in_digest,
                      struct xi_err *err)
{
    const uint8_t *p = data;

    if (in_digest)
        xi_sha256_add(w->digest, data, n);
    while (n > 0) {
        ssize_t done = write(w->fd, p, n);
        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0)
            return xi_fail(err, xi_rc_errno(errno), "writing the package: %s", strerror(errno));
        p += done;
        n -= (size_t)done;
        w->written += (uint64_t)done;
    }
    return XI_OK;
}

/* The next piece of a source: borrowed, at most CHUNK bytes. */
static enum xi_rc piece(struct writer *w, const struct xi_archive_source *s, uint64_t at,
                        const void **ret, size_t *ret_bytes, struct xi_err *err)
{
    size_t want = s->bytes - at < CHUNK ? (size_t)(s->bytes - at) : CHUNK, n = 0;

    *ret_bytes = want;
    if (s->data != NULL) {
        *ret = (const uint8_t *)s->data + at;
        return XI_OK;
    }
    while (n < want) {
        ssize_t got = pread(s->fd, w->chunk + n, want - n, (off_t)(s->offset + at + n));
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return xi_fail(err, XI_EIO, "entry \"%.70s\": reading its file: %s", s->path,
                           strerror(errno));
        if (got == 0)
            return xi_fail(err, XI_EIO, "entry \"%.70s\": its file ends after %llu of %llu bytes",
                           s->path, (unsigned long long)(at + n), (unsigned long long)s->bytes);
        n += (size_t)got;
    }
    *ret = w->chunk;
    return XI_OK;
}

/* CRC of a source; with `copy` its bytes go out as well. */
static enum xi_rc pass(struct writer *w, size_t i, int copy, int in_digest, uint32_t *ret,
                       struct xi_err *err)
{
    const struct xi_archive_source *s = &w->sources[i];
    uint32_t crc = 0;

    for (uint64_t at = 0; at < s->bytes;) {
        const void *data = NULL;
        size_t n = 0;
        enum xi_rc rc = piece(w, s, at, &data, &n, err);
        if (rc == XI_OK && copy)
            rc = put(w, data, n, in_digest, err);
        if (rc != XI_OK)
            return rc;
        crc = xi_crc32_add(&w->crc, crc, data, n);
        at += n;
    }
    *ret = crc;
    return XI_OK;
}

static int by_path(const void *a, const void *b)
{
    const struct xi_archive_source *x = a, *y = b;

    return xi_package_path_order(x->path, y->path);
}

static enum xi_rc check_names(struct writer *w, struct xi_err *err)
{
    const char **paths = calloc(w->n, sizeof *paths);
    enum xi_rc rc = XI_OK;

    if (paths == NULL)
        return xi_fail(err, XI_ENOMEM, "writing the package: out of memory");
    for (size_t i = 0; i < w->n && rc == XI_OK; i++) {
        paths[i] = w->sources[i].path;
        rc = xi_package_path_check(paths[i], strlen(paths[i]), err);
        if (rc == XI_OK)
            rc = xi_package_place_check(paths[i], err);
    }
    if (rc == XI_OK)
        rc = xi_package_paths_check(paths, w->n, err);
    free(paths);
    if (rc != XI_OK)
        return rc;
    qsort(w->sources, w->n, sizeof *w->sources, by_path);
    if (strcmp(w->sources[0].path, "manifest.json") != 0)
        return xi_fail(err, XI_EPACKAGE, "a package needs a manifest.json");
    return XI_OK;
}

/* First reading: sizes, CRCs, and so all offsets. */
static enum xi_rc plan(struct writer *w, struct xi_err *err)
{
    uint64_t offset = 0;

    for (size_t i = 0; i < w->n; i++) {
        struct xi_zip_entry *e = &w->zip[i];
        e->bytes = w->sources[i].bytes;
        if (e->bytes > XI_PACKAGE_MAX - offset)
            return xi_fail(err, XI_ETOOBIG,
                           "a package may have %llu bytes, entry \"%.70s\" is too "
                           "large",
                           XI_PACKAGE_MAX, w->sources[i].path);
        memcpy(e->path, w->sources[i].path, strlen(w->sources[i].path) + 1);
        enum xi_rc rc = pass(w, i, 0, 0, &e->crc, err);
        if (rc != XI_OK)
            return rc;
        offset = xi_zip_place(e, offset);
        if (offset > XI_PACKAGE_MAX - XI_MANIFEST_MAX) /* the directory must fit behind it */
            return xi_fail(err, XI_ETOOBIG, "a package may have %llu bytes", XI_PACKAGE_MAX);
    }
    return XI_OK;
}

static enum xi_rc write_entry(struct writer *w, size_t i, int in_digest, struct xi_err *err)
{
    uint32_t crc = 0;

    xi_str_clear(&w->record);
    xi_zip_local(&w->zip[i], &w->record);
    enum xi_rc rc = xi_str_check(&w->record, err, "local header");
    if (rc == XI_OK)
        rc = put(w, w->record.data, w->record.len, in_digest, err);
    if (rc == XI_OK)
        rc = pass(w, i, 1, in_digest, &crc, err);
    if (rc == XI_OK && crc != w->zip[i].crc)
        rc = xi_fail(err, XI_EIO, "entry \"%.70s\": its file changed while it was packed",
                     w->sources[i].path);
    return rc;
}

/* The directory of n entries: into the file, into the digest, or both. */
static enum xi_rc write_directory(struct writer *w, size_t n, int to_file, int in_digest,
                                  struct xi_err *err)
{
    uint64_t offset = w->zip[n - 1].data_offset + w->zip[n - 1].bytes, bytes = 0;
    enum xi_rc rc = XI_OK;

    for (size_t i = 0; i <= n && rc == XI_OK; i++) {
        xi_str_clear(&w->record);
        if (i < n)
            xi_zip_central(&w->zip[i], &w->record);
        else
            xi_zip_end(n, offset, bytes, &w->record);
        rc = xi_str_check(&w->record, err, "directory");
        if (rc == XI_OK && to_file)
            rc = put(w, w->record.data, w->record.len, in_digest, err);
        else if (rc == XI_OK)
            xi_sha256_add(w->digest, w->record.data, w->record.len);
        bytes += w->record.len;
    }
    return rc;
}

static enum xi_rc write_all(struct writer *w, struct xi_err *err)
{
    int is_signed = strcmp(w->sources[w->n - 1].path, "signature.json") == 0;
    size_t n = w->n - (size_t)is_signed;
    enum xi_rc rc = XI_OK;

    for (size_t i = 0; i < w->n && rc == XI_OK; i++)
        rc = write_entry(w, i, i < n, err);
    if (rc == XI_OK)
        rc = write_directory(w, w->n, 1, !is_signed, err);
    if (rc == XI_OK && is_signed)
        rc = write_directory(w, n, 0, 1, err);
    return rc;
}

enum xi_rc xi_archive_write(int out_fd, struct xi_archive_source *sources, size_t n,
                            struct xi_digest *ret, uint64_t *ret_bytes, struct xi_err *err)
{
    struct writer w = {.fd = out_fd, .sources = sources, .n = n};
    enum xi_rc rc = XI_OK;

    if (n == 0 || n > XI_PACKAGE_ENTRIES_MAX)
        return xi_fail(err, XI_EPACKAGE, "a package has 1 to %d entries, not %zu",
                       XI_PACKAGE_ENTRIES_MAX, n);
    xi_str_init(&w.record, XI_ZIP_LOCAL_MAX);
    xi_crc32_init(&w.crc);
    w.zip = calloc(n, sizeof *w.zip);
    w.digest = xi_sha256_new();
    w.chunk = malloc(CHUNK);
    if (w.zip == NULL || w.digest == NULL || w.chunk == NULL)
        rc = xi_fail(err, XI_ENOMEM, "writing the package: out of memory");
    if (rc == XI_OK)
        rc = check_names(&w, err);
    if (rc == XI_OK)
        rc = plan(&w, err);
    if (rc == XI_OK)
        rc = write_all(&w, err);
    if (rc == XI_OK) {
        xi_sha256_end(w.digest, ret);
        *ret_bytes = w.written;
    }
    xi_str_fini(&w.record);
    xi_sha256_free(w.digest);
    free(w.chunk);
    free(w.zip);
    return rc;
}
