#define _GNU_SOURCE
#include "daemon/core/store_disk.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/platform/file.h"
#include "base/platform/process.h"
#include "daemon/core/store_catalogue.h"

/* Names in links/ and staging/ that begin with a dot are not finished. */
#define UNFINISHED ".new-"

/* ---- opening ---- */

static enum xi_rc not_writable(const char *path, int err_number, struct xi_err *err)
{
    (void)xi_fail(err, XI_EDISK, "state directory %.100s: %s", path, strerror(err_number));
    (void)xi_hint(err, "name a directory that this user may write with --state DIR");
    return XI_EDISK;
}

static enum xi_rc locked_by_other(struct xi_store_disk *d, struct xi_err *err)
{
    char text[24] = "";
    size_t n = 0;
    int more;
    long pid = 0;

    if (xi_fd_read_start(d->lock, text, sizeof text - 1, &n, &more) == 0)
        pid = strtol(text, NULL, 10);
    (void)xi_fail(err, XI_ELOCKED,
                  "state directory %.100s is in use by another xinferd, process %ld", d->path, pid);
    (void)xi_hint(err, "stop that one, or give this one a directory of its own with --state DIR");
    return XI_ELOCKED;
}

static enum xi_rc take_lock(struct xi_store_disk *d, struct xi_err *err)
{
    char text[24];

    d->lock = xi_beneath_open(d->dir, "lock", O_RDWR | O_CREAT, 0644);
    if (d->lock < 0)
        return not_writable(d->path, errno, err);
    if (xi_fd_lock(d->lock) != 0)
        return errno == EWOULDBLOCK ? locked_by_other(d, err) : not_writable(d->path, errno, err);
    int n = snprintf(text, sizeof text, "%ld\n", (long)getpid());
    if (ftruncate(d->lock, 0) != 0 || pwrite(d->lock, text, (size_t)n, 0) != n)
        return not_writable(d->path, errno ? errno : ENOSPC, err);
    return XI_OK;
}

static enum xi_rc make_folders(struct xi_store_disk *d, struct xi_err *err)
{
    /* As root, hosts have another user id: they pass through, and read only what they are given. */
    mode_t mode = geteuid() == 0 ? 0711 : 0700;
    static const char *const folders[] = {"blobs/sha256", "links", "cache", "staging"};

    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++)
        if (xi_beneath_mkdirs(d->dir, folders[i], mode) != 0)
            return not_writable(d->path, errno, err);
    if (xi_store_disk_flush_dir(d, "blobs") != 0 || xi_store_disk_flush_dir(d, ".") != 0)
        return not_writable(d->path, errno, err);
    return XI_OK;
}

static enum xi_rc open_dir(struct xi_store_disk *d, const char *path, struct xi_err *err)
{
    char whole[PATH_MAX];

    if (strlen(path) >= sizeof d->path)
        return not_writable(path, ENAMETOOLONG, err);
    (void)snprintf(d->path, sizeof d->path, "%s", path);
    if (xi_path_mkdirs(path, geteuid() == 0 ? 0711 : 0700) != 0)
        return not_writable(path, errno, err);
    d->dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (d->dir < 0 || realpath(path, whole) == NULL)
        return not_writable(path, errno, err);
    if (strlen(whole) >= sizeof d->path)
        return not_writable(path, ENAMETOOLONG, err);
    (void)snprintf(d->path, sizeof d->path, "%s", whole);
    return XI_OK;
}

enum xi_rc xi_store_disk_open(struct xi_store_disk *ret, const char *path, struct xi_err *err)
{
    enum xi_rc rc;

    *ret = (struct xi_store_disk){.dir = -1, .lock = -1};
    rc = open_dir(ret, path, err);
    if (rc == XI_OK)
        rc = take_lock(ret, err);
    if (rc == XI_OK)
        rc = make_folders(ret, err);
    if (rc != XI_OK)
        xi_store_disk_close(ret);
    return rc;
}

void xi_store_disk_close(struct xi_store_disk *d)
{
    xi_fd_close(&d->lock);
    xi_fd_close(&d->dir);
}

/* ---- what every file of the store needs ---- */

uint64_t xi_store_disk_free_bytes(struct xi_store_disk *d)
{
    uint64_t bytes = 0;

    return xi_fd_free_bytes(d->dir, &bytes) == 0 ? bytes : 0;
}

enum xi_rc xi_store_disk_room(struct xi_store_disk *d, uint64_t need, struct xi_err *err)
{
    uint64_t have = xi_store_disk_free_bytes(d);

    if (have > XI_STORE_SPARE_BYTES && have - XI_STORE_SPARE_BYTES >= need)
        return XI_OK;
    (void)xi_fail(err, XI_EDISK,
                  "the package needs %llu bytes on the state directory's disk, %llu are free",
                  (unsigned long long)need, (unsigned long long)have);
    (void)xi_hint(err, "make room there (%llu bytes always stay free), or remove packages",
                  (unsigned long long)XI_STORE_SPARE_BYTES);
    return XI_EDISK;
}

enum xi_rc xi_store_disk_failed(struct xi_store_disk *d, int err_number, const char *what,
                                struct xi_err *err)
{
    enum xi_rc rc = xi_rc_errno(err_number);

    if (rc == XI_ENOENT)
        rc = XI_EIO; /* a file of ours that is missing is not what the caller asked for */
    if (err_number != ENOSPC && err_number != EDQUOT)
        return xi_fail(err, rc, "%s: %s", what, strerror(err_number));
    (void)xi_fail(err, rc, "%s: %s, %llu bytes are free", what, strerror(err_number),
                  (unsigned long long)xi_store_disk_free_bytes(d));
    (void)xi_hint(err, "make room on the state directory's disk, or remove packages");
    return rc;
}

int xi_store_disk_flush(struct xi_store_disk *d, int fd)
{
    atomic_fetch_add(&d->fsyncs, 1);
    return fsync(fd);
}

int xi_store_disk_flush_dir(struct xi_store_disk *d, const char *path)
{
    atomic_fetch_add(&d->fsyncs, 1);
    return xi_beneath_flush_dir(d->dir, path);
}

/* A directory beneath the store to walk, or NULL with errno. */
static DIR *open_folder(struct xi_store_disk *d, const char *path)
{
    int fd = xi_beneath_open(d->dir, path, O_RDONLY | O_DIRECTORY, 0);

    if (fd < 0)
        return NULL;
    DIR *folder = fdopendir(fd);
    if (folder == NULL)
        xi_fd_close(&fd);
    return folder;
}

static const char *next_name(DIR *folder)
{
    struct dirent *e;

    while ((e = readdir(folder)) != NULL)
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            return e->d_name;
    return NULL;
}

/* ---- the sweep ---- */

static int nothing_wants_link(struct xi_catalogue *catalogue, const char *name)
{
    struct xi_package_record record = {0};
    struct xi_err err = {0};

    if (name[0] == '.')
        return 1;
    enum xi_rc rc = xi_catalogue_get(catalogue, name, &record, &err);
    xi_record_fini(&record);
    return rc == XI_ENOENT;
}

static enum xi_rc sweep_folder(struct xi_store_disk *d, const char *path,
                               struct xi_catalogue *links_of, struct xi_err *err)
{
    const char *name;
    enum xi_rc rc = XI_OK;
    DIR *folder = open_folder(d, path);

    if (folder == NULL)
        return not_writable(d->path, errno, err);
    while (rc == XI_OK && (name = next_name(folder)) != NULL) {
        if (links_of != NULL && !nothing_wants_link(links_of, name))
            continue;
        if (xi_tree_remove(dirfd(folder), name) != 0)
            rc = not_writable(d->path, errno, err);
    }
    (void)closedir(folder);
    return rc;
}

enum xi_rc xi_store_disk_sweep(struct xi_store_disk *d, struct xi_catalogue *catalogue,
                               struct xi_err *err)
{
    enum xi_rc rc = sweep_folder(d, "staging", NULL, err);

    return rc == XI_OK ? sweep_folder(d, "links", catalogue, err) : rc;
}

/* ---- blobs ---- */

void xi_store_disk_blob_path(const struct xi_digest *sha256, char ret[XI_BLOB_PATH_MAX])
{
    char hex[XI_DIGEST_HEX + 1];

    xi_digest_text(sha256, hex);
    (void)snprintf(ret, XI_BLOB_PATH_MAX, "blobs/sha256/%.2s/%s", hex, hex);
}

int xi_store_disk_has_blob(struct xi_store_disk *d, const struct xi_record_blob *blob)
{
    char path[XI_BLOB_PATH_MAX];
    struct stat st;

    xi_store_disk_blob_path(&blob->sha256, path);
    return fstatat(d->dir, path, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode) &&
           (uint64_t)st.st_size == blob->bytes;
}

static enum xi_rc collect_folder(DIR *folder, struct xi_catalogue *catalogue, int remove,
                                 uint64_t *count, struct xi_err *err)
{
    const char *name;
    enum xi_rc rc = XI_OK;

    while (rc == XI_OK && (name = next_name(folder)) != NULL) {
        int used = 1;
        rc = xi_catalogue_blob_used(catalogue, name, &used, err);
        if (rc != XI_OK || used)
            continue;
        (*count)++;
        /* One that can't be removed now is counted again next time. */
        if (remove)
            (void)unlinkat(dirfd(folder), name, 0);
    }
    return rc;
}

enum xi_rc xi_store_disk_collect(struct xi_store_disk *d, struct xi_catalogue *catalogue,
                                 int remove, uint64_t *ret_count, struct xi_err *err)
{
    enum xi_rc rc = XI_OK;
    uint64_t count = 0;

    for (unsigned i = 0; rc == XI_OK && i < 256; i++) {
        char path[32];
        (void)snprintf(path, sizeof path, "blobs/sha256/%02x", i);
        DIR *folder = open_folder(d, path);
        if (folder == NULL && errno == ENOENT)
            continue;
        if (folder == NULL)
            return xi_store_disk_failed(d, errno, "reading the blobs", err);
        rc = collect_folder(folder, catalogue, remove, &count, err);
        (void)closedir(folder);
    }
    if (rc == XI_OK)
        *ret_count = count;
    return rc;
}

/* ---- links ---- */

static enum xi_rc blob_gone(const struct xi_package_record *record,
                            const struct xi_record_blob *blob, struct xi_err *err)
{
    (void)xi_fail(err, XI_EDIGEST, "%s %s: the store's copy of %.60s is missing or damaged",
                  record->name, record->version, blob->path);
    (void)xi_hint(err, "install the package again: that repairs it");
    return XI_EDIGEST;
}

/* Every file is there and is the blob itself. */
static int links_whole(struct xi_store_disk *d, int dir, const struct xi_package_record *record)
{
    for (uint32_t i = 0; i < record->n_blobs; i++) {
        char path[XI_BLOB_PATH_MAX];
        struct stat blob, link;
        xi_store_disk_blob_path(&record->blobs[i].sha256, path);
        int fd = xi_beneath_open(dir, record->blobs[i].path, O_PATH | O_NOFOLLOW, 0);
        int same = fd >= 0 && fstat(fd, &link) == 0 &&
                   fstatat(d->dir, path, &blob, AT_SYMLINK_NOFOLLOW) == 0 &&
                   link.st_ino == blob.st_ino && link.st_dev == blob.st_dev;
        xi_fd_close(&fd);
        if (!same)
            return 0;
    }
    return 1;
}

static int link_one(struct xi_store_disk *d, int dir, const struct xi_record_blob *blob)
{
    char parent[XI_PACKAGE_PATH_MAX + 1], path[XI_BLOB_PATH_MAX];
    const char *slash = strrchr(blob->path, '/');
    size_t n = slash ? (size_t)(slash - blob->path) : 0;

    memcpy(parent, blob->path, n);
    parent[n] = '\0';
    if (xi_beneath_mkdirs(dir, parent, 0755) != 0)
        return -1;
    xi_store_disk_blob_path(&blob->sha256, path);
    /* dir was made just now by us alone, so its folders are no links. */
    return linkat(d->dir, path, dir, blob->path, 0);
}

static enum xi_rc fill_links(struct xi_store_disk *d, const char *folder,
                             const struct xi_package_record *record, struct xi_err *err)
{
    enum xi_rc rc = XI_OK;
    int dir = -1;

    if (xi_beneath_mkdirs(d->dir, folder, 0755) == 0)
        dir = xi_beneath_open(d->dir, folder, O_RDONLY | O_DIRECTORY, 0);
    if (dir < 0)
        return xi_store_disk_failed(d, errno, "making the package's folder", err);
    for (uint32_t i = 0; rc == XI_OK && i < record->n_blobs; i++) {
        if (!xi_store_disk_has_blob(d, &record->blobs[i]))
            rc = blob_gone(record, &record->blobs[i], err);
        else if (link_one(d, dir, &record->blobs[i]) != 0)
            rc = xi_store_disk_failed(d, errno, record->blobs[i].path, err);
    }
    xi_fd_close(&dir);
    return rc;
}

/* Puts a finished folder in the place of what may stand there. */
static int put_in_place(struct xi_store_disk *d, const char *made, const char *place)
{
    if (renameat(d->dir, made, d->dir, place) == 0)
        return 0;
    if (errno != ENOTEMPTY && errno != EEXIST && errno != ENOTDIR)
        return -1;
    if (xi_tree_remove(d->dir, place) != 0)
        return -1;
    return renameat(d->dir, made, d->dir, place);
}

enum xi_rc xi_store_disk_links(struct xi_store_disk *d, const char *folder, const char *digest,
                               const struct xi_package_record *record, struct xi_err *err)
{
    char place[192], made[192], id[XI_UUID_TEXT + 1];

    for (uint32_t i = 0; i < record->n_blobs; i++)
        if (!xi_store_disk_has_blob(d, &record->blobs[i]))
            return blob_gone(record, &record->blobs[i], err);
    (void)snprintf(place, sizeof place, "%s/%s", folder, digest);
    int dir = xi_beneath_open(d->dir, place, O_RDONLY | O_DIRECTORY, 0);
    int whole = dir >= 0 && links_whole(d, dir, record);
    xi_fd_close(&dir);
    if (whole)
        return XI_OK;
    xi_uuid_new(id);
    (void)snprintf(made, sizeof made, "%s/" UNFINISHED "%s", folder, id);
    enum xi_rc rc = fill_links(d, made, record, err);
    if (rc == XI_OK && put_in_place(d, made, place) != 0)
        rc = xi_store_disk_failed(d, errno, "making the package's folder", err);
    if (rc != XI_OK)
        (void)xi_tree_remove(d->dir, made);
    return rc;
}

enum xi_rc xi_store_disk_cache(struct xi_store_disk *d, const char *path, struct xi_err *err)
{
    enum xi_rc rc = XI_OK;
    mode_t mode = geteuid() == 0 ? 0711 : 0700;
    int fd = -1;

    if (xi_beneath_mkdirs(d->dir, path, mode) == 0)
        fd = xi_beneath_open(d->dir, path, O_RDONLY | O_DIRECTORY, 0);
    if (fd < 0 || (d->host_uid != 0 && fchown(fd, d->host_uid, (gid_t)-1) != 0))
        rc = xi_store_disk_failed(d, errno, "making the compiled models' folder", err);
    xi_fd_close(&fd);
    return rc;
}

void xi_store_disk_forget_group(struct xi_store_disk *d, const char *id)
{
    char path[XI_BLOB_PATH_MAX];

    (void)snprintf(path, sizeof path, XI_STORE_GROUP_LINKS "%s", id);
    (void)xi_tree_remove(d->dir, path);
}

void xi_store_disk_forget(struct xi_store_disk *d, const char *digest)
{
    char path[XI_STORE_PATH_MAX];
    const char *tenant;

    (void)snprintf(path, sizeof path, "links/%s", digest);
    (void)xi_tree_remove(d->dir, path);
    DIR *folder = open_folder(d, "cache");
    while (folder != NULL && (tenant = next_name(folder)) != NULL) {
        (void)snprintf(path, sizeof path, "%s/%s", tenant, digest);
        (void)xi_tree_remove(dirfd(folder), path);
    }
    if (folder != NULL)
        (void)closedir(folder);
}
