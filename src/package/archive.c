#define _GNU_SOURCE
#include "package/archive.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "package/crc32.h"
#include "package/path.h"
#include "package/zip.h"

enum { CHUNK = 1 << 18 };

struct xi_archive {
    int fd;
    uint64_t bytes;
    struct xi_zip_directory directory;
    size_t n;
    struct xi_zip_entry *zip;
    struct xi_entry *entries;
    struct xi_crc32_table crc;
};

static enum xi_rc read_at(int fd, uint64_t offset, void *dst, size_t n, struct xi_err *err)
{
    uint8_t *p = dst;

    while (n > 0) {
        ssize_t got = pread(fd, p, n, (off_t)offset);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return xi_fail(err, XI_EIO, "reading the package: %s", strerror(errno));
        if (got == 0)
            return xi_fail(err, XI_EPACKAGE, "archive: ends early, it changed while it was read");
        p += got;
        offset += (uint64_t)got;
        n -= (size_t)got;
    }
    return XI_OK;
}

static enum xi_rc find_directory(struct xi_archive *a, struct xi_err *err)
{
    uint8_t tail[XI_ZIP_END64_BYTES + XI_ZIP_LOCATOR_BYTES + XI_ZIP_END_BYTES];
    size_t n = a->bytes < sizeof tail ? (size_t)a->bytes : sizeof tail;
    struct xi_zip_directory *d = &a->directory;
    enum xi_rc rc = read_at(a->fd, a->bytes - n, tail, n, err);

    if (rc == XI_OK)
        rc = xi_zip_read_end(tail, n, d, err);
    if (rc != XI_OK)
        return rc;
    if (d->entries == 0)
        return xi_fail(err, XI_EPACKAGE, "archive: has no entries");
    if (d->entries > XI_PACKAGE_ENTRIES_MAX)
        return xi_fail(err, XI_EPACKAGE, "archive: %llu entries, at most %d are allowed",
                       (unsigned long long)d->entries, XI_PACKAGE_ENTRIES_MAX);
    if (d->bytes > d->entries * XI_ZIP_CENTRAL_MAX || d->bytes < d->entries * XI_ZIP_CENTRAL_FIXED)
        return xi_fail(err, XI_EPACKAGE, "archive: a directory of %llu bytes for %llu entries",
                       (unsigned long long)d->bytes, (unsigned long long)d->entries);
    /* offset < 2^64: compare without adding to it */
    uint64_t rest = d->bytes + d->end_bytes;
    if (rest > a->bytes || d->offset != a->bytes - rest)
        return xi_fail(err, XI_EPACKAGE,
                       "archive: the directory is said to be at byte %llu of %llu, which does not "
                       "reach the end",
                       (unsigned long long)d->offset, (unsigned long long)a->bytes);
    return XI_OK;
}

/* Takes name, size and CRC of a record; checks the name alone and against its predecessor. */
static enum xi_rc take_claim(struct xi_archive *a, size_t i, const struct xi_zip_claim *claim,
                             struct xi_err *err)
{
    struct xi_zip_entry *e = &a->zip[i];
    enum xi_rc rc = xi_package_path_check(claim->name, claim->name_bytes, err);

    if (rc != XI_OK)
        return rc;
    memcpy(e->path, claim->name, claim->name_bytes);
    e->path[claim->name_bytes] = '\0';
    e->crc = claim->crc;
    e->bytes = claim->bytes;
    rc = xi_package_place_check(e->path, err);
    if (rc != XI_OK)
        return rc;
    if (e->bytes > a->bytes)
        return xi_fail(err, XI_EPACKAGE, "entry \"%.70s\": says %llu bytes, the archive has %llu",
                       e->path, (unsigned long long)e->bytes, (unsigned long long)a->bytes);
    if (i == 0)
        return strcmp(e->path, "manifest.json") == 0
                   ? XI_OK
                   : xi_fail(err, XI_EPACKAGE,
                             "entry \"%.70s\": the first one must be manifest.json", e->path);
    int order = xi_package_path_order(a->zip[i - 1].path, e->path);
    if (order == 0)
        return xi_fail(err, XI_EPACKAGE, "entry \"%.70s\": appears twice", e->path);
    if (order > 0)
        return xi_fail(err, XI_EPACKAGE, "entry \"%.70s\": out of order, stands behind \"%.70s\"",
                       e->path, a->zip[i - 1].path);
    return XI_OK;
}

/* Every record must be the one we would have written. */
static enum xi_rc check_records(struct xi_archive *a, const uint8_t *data, size_t bytes,
                                struct xi_err *err)
{
    struct xi_str want;
    enum xi_rc rc = XI_OK;
    size_t at = 0, i;

    xi_str_init(&want, XI_ZIP_CENTRAL_MAX);
    for (i = 0; i < a->n && rc == XI_OK; i++) {
        const struct xi_zip_entry *e = &a->zip[i];
        xi_str_clear(&want);
        xi_zip_central(e, &want);
        rc = xi_str_check(&want, err, "directory record");
        if (rc == XI_OK &&
            (bytes - at < XI_ZIP_CENTRAL_FIXED + strlen(e->path) ||
             memcmp(want.data, data + at, want.len < bytes - at ? want.len : bytes - at) != 0))
            rc = xi_zip_refuse(XI_ZIP_CENTRAL, e->path, &want, data + at, err);
        if (rc == XI_OK && want.len > bytes - at)
            rc = xi_fail(err, XI_EPACKAGE, "entry \"%.70s\": directory: cut short", e->path);
        at += want.len;
    }
    if (rc == XI_OK && at != bytes)
        rc = xi_fail(err, XI_EPACKAGE, "archive: %zu bytes behind the last directory record",
                     bytes - at);
    xi_str_fini(&want);
    return rc;
}

static enum xi_rc take_records(struct xi_archive *a, const uint8_t *data, size_t bytes,
                               struct xi_err *err)
{
    size_t at = 0;
    uint64_t offset = 0;

    for (size_t i = 0; i < a->n; i++) {
        struct xi_zip_claim claim = {0};
        size_t n = xi_zip_read_central(data + at, bytes - at, &claim);
        if (n == 0)
            return xi_fail(err, XI_EPACKAGE, "archive: directory record %zu of %zu is damaged",
                           i + 1, a->n);
        enum xi_rc rc = take_claim(a, i, &claim, err);
        if (rc != XI_OK)
            return rc;
        offset = xi_zip_place(&a->zip[i], offset);
        at += n;
    }
    enum xi_rc rc = check_records(a, data, bytes, err);
    if (rc != XI_OK)
        return rc;
    if (offset != a->directory.offset)
        return xi_fail(err, XI_EPACKAGE,
                       "archive: the entries end at byte %llu, the directory starts at %llu",
                       (unsigned long long)offset, (unsigned long long)a->directory.offset);
    return XI_OK;
}

static enum xi_rc read_directory(struct xi_archive *a, struct xi_err *err)
{
    size_t bytes = (size_t)a->directory.bytes;
    uint8_t *data = malloc(bytes);

    if (data == NULL)
        return xi_fail(err, XI_ENOMEM, "reading the package: out of memory");
    enum xi_rc rc = read_at(a->fd, a->directory.offset, data, bytes, err);
    if (rc == XI_OK)
        rc = take_records(a, data, bytes, err);
    free(data);
    return rc;
}

static enum xi_rc check_end(const struct xi_archive *a, struct xi_err *err)
{
    uint8_t tail[XI_ZIP_END64_BYTES + XI_ZIP_LOCATOR_BYTES + XI_ZIP_END_BYTES];
    size_t n = a->directory.end_bytes;
    struct xi_str want;

    xi_str_init(&want, sizeof tail);
    xi_zip_end(a->n, a->directory.offset, a->directory.bytes, &want);
    enum xi_rc rc = xi_str_check(&want, err, "end record");
    if (rc == XI_OK)
        rc = read_at(a->fd, a->bytes - n, tail, n, err);
    if (rc == XI_OK && (want.len != n || memcmp(want.data, tail, n) != 0))
        rc = xi_fail(err, XI_EPACKAGE, "archive: its end record is not canonical");
    xi_str_fini(&want);
    return rc;
}

static enum xi_rc check_local(const struct xi_archive *a, size_t i, struct xi_str *want,
                              uint8_t *got, struct xi_err *err)
{
    const struct xi_zip_entry *e = &a->zip[i];

    xi_str_clear(want);
    xi_zip_local(e, want);
    enum xi_rc rc = xi_str_check(want, err, "local header");
    if (rc == XI_OK)
        rc = read_at(a->fd, e->header_offset, got, want->len, err);
    if (rc == XI_OK && memcmp(want->data, got, want->len) != 0)
        rc = xi_zip_refuse(XI_ZIP_LOCAL, e->path, want, got, err);
    return rc;
}

static enum xi_rc check_locals(const struct xi_archive *a, struct xi_err *err)
{
    struct xi_str want;
    uint8_t *got = malloc(XI_ZIP_LOCAL_MAX);
    enum xi_rc rc = got ? XI_OK : xi_fail(err, XI_ENOMEM, "reading the package: out of memory");

    xi_str_init(&want, XI_ZIP_LOCAL_MAX);
    for (size_t i = 0; i < a->n && rc == XI_OK; i++)
        rc = check_local(a, i, &want, got, err);
    xi_str_fini(&want);
    free(got);
    return rc;
}

static enum xi_rc check_twins(const struct xi_archive *a, struct xi_err *err)
{
    const char **paths = calloc(a->n, sizeof *paths);

    if (paths == NULL)
        return xi_fail(err, XI_ENOMEM, "reading the package: out of memory");
    for (size_t i = 0; i < a->n; i++)
        paths[i] = a->zip[i].path;
    enum xi_rc rc = xi_package_paths_check(paths, a->n, err);
    free(paths);
    return rc;
}

static enum xi_rc check_file(struct xi_archive *a, struct xi_err *err)
{
    struct stat st;

    if (fstat(a->fd, &st) != 0)
        return xi_fail(err, XI_EIO, "reading the package: %s", strerror(errno));
    if (!S_ISREG(st.st_mode))
        return xi_fail(err, XI_EPACKAGE, "the package is not a regular file");
    if ((uint64_t)st.st_size > XI_PACKAGE_MAX)
        return xi_fail(err, XI_ETOOBIG, "a package of %llu bytes, at most %llu are allowed",
                       (unsigned long long)st.st_size, XI_PACKAGE_MAX);
    a->bytes = (uint64_t)st.st_size;
    return XI_OK;
}

static enum xi_rc make_entries(struct xi_archive *a, struct xi_err *err)
{
    a->n = (size_t)a->directory.entries;
    a->zip = calloc(a->n, sizeof *a->zip);
    a->entries = calloc(a->n, sizeof *a->entries);
    if (a->zip == NULL || a->entries == NULL)
        return xi_fail(err, XI_ENOMEM, "reading the package: out of memory");
    return XI_OK;
}

enum xi_rc xi_archive_open(int fd, struct xi_archive **ret, struct xi_err *err)
{
    struct xi_archive *a = calloc(1, sizeof *a);

    if (a == NULL)
        return xi_fail(err, XI_ENOMEM, "reading the package: out of memory");
    a->fd = fd;
    xi_crc32_init(&a->crc);
    enum xi_rc rc = check_file(a, err);
    if (rc == XI_OK)
        rc = find_directory(a, err);
    if (rc == XI_OK)
        rc = make_entries(a, err);
    if (rc == XI_OK)
        rc = read_directory(a, err);
    if (rc == XI_OK)
        rc = check_end(a, err);
    if (rc == XI_OK)
        rc = check_twins(a, err);
    if (rc == XI_OK)
        rc = check_locals(a, err);
    if (rc != XI_OK) {
        xi_archive_close(a);
        return rc;
    }
    for (size_t i = 0; i < a->n; i++)
        a->entries[i] = (struct xi_entry){.path = a->zip[i].path,
                                          .bytes = a->zip[i].bytes,
                                          .offset = a->zip[i].data_offset,
                                          .crc = a->zip[i].crc};
    *ret = a;
    return XI_OK;
}

void xi_archive_close(struct xi_archive *archive)
{
    if (archive == NULL)
        return;
    free(archive->zip);
    free(archive->entries);
    free(archive);
}

size_t xi_archive_count(const struct xi_archive *archive)
{
    return archive->n;
}

uint64_t xi_archive_bytes(const struct xi_archive *archive)
{
    return archive->bytes;
}

const struct xi_entry *xi_archive_entry(const struct xi_archive *archive, size_t index)
{
    XI_ASSERT(index < archive->n);
    return &archive->entries[index];
}

int xi_archive_find(const struct xi_archive *archive, const char *path)
{
    size_t low = 0, high = archive->n;

    while (low < high) {
        size_t mid = low + (high - low) / 2;
        int order = xi_package_path_order(archive->zip[mid].path, path);
        if (order == 0)
            return (int)mid;
        if (order < 0)
            low = mid + 1;
        else
            high = mid;
    }
    return -1;
}

int xi_archive_has_signature(const struct xi_archive *archive)
{
    return strcmp(archive->zip[archive->n - 1].path, "signature.json") == 0;
}

static enum xi_rc crc_differs(const char *path, struct xi_err *err)
{
    return xi_fail(err, XI_EPACKAGE, "entry \"%.70s\": its bytes do not match its CRC-32", path);
}

enum xi_rc xi_archive_read(const struct xi_archive *archive, size_t index, size_t max_bytes,
                           char **ret, size_t *ret_bytes, struct xi_err *err)
{
    const struct xi_zip_entry *e = &archive->zip[index];

    if (e->bytes > max_bytes)
        return xi_fail(err, XI_ETOOBIG, "entry \"%.70s\": %llu bytes, at most %zu are allowed",
                       e->path, (unsigned long long)e->bytes, max_bytes);
    size_t n = (size_t)e->bytes;
    char *data = malloc(n + 1);
    if (data == NULL)
        return xi_fail(err, XI_ENOMEM, "entry \"%.70s\": out of memory", e->path);
    enum xi_rc rc = read_at(archive->fd, e->data_offset, data, n, err);
    if (rc == XI_OK && xi_crc32_add(&archive->crc, 0, data, n) != e->crc)
        rc = crc_differs(e->path, err);
    if (rc != XI_OK) {
        free(data);
        return rc;
    }
    data[n] = '\0';
    *ret = data;
    *ret_bytes = n;
    return XI_OK;
}

struct pass {
    struct xi_archive *archive;
    const struct xi_archive_sink *sink;
    struct xi_sha256 *whole, *one;
    uint8_t *chunk;
    struct xi_str record;
};

static enum xi_rc pass_data(struct pass *p, size_t i, int in_digest, struct xi_err *err)
{
    const struct xi_zip_entry *e = &p->archive->zip[i];
    uint64_t left = e->bytes, at = e->data_offset;
    enum xi_rc rc = XI_OK;
    uint32_t crc = 0;

    while (left > 0 && rc == XI_OK) {
        size_t n = left < CHUNK ? (size_t)left : CHUNK;
        rc = read_at(p->archive->fd, at, p->chunk, n, err);
        if (rc != XI_OK)
            return rc;
        crc = xi_crc32_add(&p->archive->crc, crc, p->chunk, n);
        xi_sha256_add(p->one, p->chunk, n);
        if (in_digest)
            xi_sha256_add(p->whole, p->chunk, n);
        if (p->sink != NULL && p->sink->write != NULL)
            rc = p->sink->write(p->sink->ctx, p->chunk, n, err);
        at += n;
        left -= n;
    }
    if (rc == XI_OK && crc != e->crc)
        rc = crc_differs(e->path, err);
    return rc;
}

static enum xi_rc pass_entry(struct pass *p, size_t i, int in_digest, struct xi_err *err)
{
    struct xi_entry *entry = &p->archive->entries[i];
    const struct xi_archive_sink *sink = p->sink;
    enum xi_rc rc = XI_OK;

    if (in_digest) {
        xi_str_clear(&p->record);
        xi_zip_local(&p->archive->zip[i], &p->record);
        rc = xi_str_check(&p->record, err, "local header");
        if (rc != XI_OK)
            return rc;
        xi_sha256_add(p->whole, p->record.data, p->record.len);
    }
    if (sink != NULL && sink->begin != NULL)
        rc = sink->begin(sink->ctx, i, entry, err);
    if (rc == XI_OK)
        rc = pass_data(p, i, in_digest, err);
    xi_sha256_end(p->one, &entry->sha256);
    if (rc == XI_OK && sink != NULL && sink->end != NULL)
        rc = sink->end(sink->ctx, i, entry, err);
    return rc;
}

/* The directory of the first n entries, as part of the digest. */
static enum xi_rc pass_directory(struct pass *p, size_t n, struct xi_err *err)
{
    const struct xi_zip_entry *last = &p->archive->zip[n - 1];
    uint64_t offset = last->data_offset + last->bytes, bytes = 0;
    enum xi_rc rc = XI_OK;

    for (size_t i = 0; i <= n && rc == XI_OK; i++) {
        xi_str_clear(&p->record);
        if (i < n)
            xi_zip_central(&p->archive->zip[i], &p->record);
        else
            xi_zip_end(n, offset, bytes, &p->record);
        rc = xi_str_check(&p->record, err, "directory");
        if (rc == XI_OK)
            xi_sha256_add(p->whole, p->record.data, p->record.len);
        bytes += p->record.len;
    }
    return rc;
}

enum xi_rc xi_archive_verify(struct xi_archive *archive, const struct xi_archive_sink *sink,
                             struct xi_digest *ret, struct xi_err *err)
{
    struct pass p = {.archive = archive,
                     .sink = sink,
                     .whole = xi_sha256_new(),
                     .one = xi_sha256_new(),
                     .chunk = malloc(CHUNK)};
    size_t n = archive->n - (size_t)xi_archive_has_signature(archive);
    enum xi_rc rc = XI_OK;

    xi_str_init(&p.record, XI_ZIP_LOCAL_MAX);
    if (p.whole == NULL || p.one == NULL || p.chunk == NULL)
        rc = xi_fail(err, XI_ENOMEM, "verifying the package: out of memory");
    for (size_t i = 0; i < archive->n && rc == XI_OK; i++)
        rc = pass_entry(&p, i, i < n, err);
    if (rc == XI_OK)
        rc = pass_directory(&p, n, err);
    if (rc == XI_OK)
        xi_sha256_end(p.whole, ret);
    xi_str_fini(&p.record);
    xi_sha256_free(p.whole);
    xi_sha256_free(p.one);
    free(p.chunk);
    return rc;
}
