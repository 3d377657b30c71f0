/* store_fixture.h: for the store's tests: a state directory of their own, and packages as an
 * install host leaves them. */
#ifndef XI_DAEMON_CORE_STORE_FIXTURE_H
#define XI_DAEMON_CORE_STORE_FIXTURE_H

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/hash.h"
#include "base/platform/file.h"
#include "base/str.h"
#include "core/package_record.h"

#define FIXTURE_FILES 3

/* A package of manifest.json and two more files with these contents. */
struct fixture {
    const char *name, *version;
    const char *path[FIXTURE_FILES], *content[FIXTURE_FILES];
};

static inline void fixture_dir(char ret[64])
{
    (void)snprintf(ret, 64, "/tmp/xinfer-test-XXXXXX");
    XI_ASSERT(mkdtemp(ret) != NULL);
}

static inline void fixture_dir_remove(const char *dir)
{
    int tmp = open("/tmp", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    XI_ASSERT(tmp >= 0 && xi_tree_remove(tmp, dir + strlen("/tmp/")) == 0);
    (void)close(tmp);
}

/* The "archive" of a fixture: here just its files one behind the other. */
static inline size_t fixture_archive(const struct fixture *f, char *dst, size_t room)
{
    size_t n = 0;

    for (int i = 0; i < FIXTURE_FILES; i++)
        n += (size_t)snprintf(dst + n, room - n, "%s", f->content[i]);
    return n;
}

static inline struct xi_package_record fixture_record(const struct fixture *f)
{
    struct xi_package_record r = {.n_models = 1,
                                  .n_variants = 1,
                                  .n_files = 1,
                                  .n_blobs = FIXTURE_FILES,
                                  .flow_blob = XI_RECORD_NONE};
    char archive[4096];

    XI_ASSERT(xi_record_alloc(&r, NULL) == XI_OK);
    (void)snprintf(r.name, sizeof r.name, "%s", f->name);
    (void)snprintf(r.version, sizeof r.version, "%s", f->version);
    (void)snprintf(r.models[0].name, sizeof r.models[0].name, "main");
    r.models[0].n_variants = 1;
    (void)snprintf(r.variants[0].id, sizeof r.variants[0].id, "cpu");
    (void)snprintf(r.variants[0].engine, sizeof r.variants[0].engine, "reference");
    (void)snprintf(r.variants[0].format, sizeof r.variants[0].format, "reference");
    (void)snprintf(r.variants[0].precision, sizeof r.variants[0].precision, "f32");
    r.variants[0].n_files = 1;
    r.files[0] = 1;
    for (int i = 0; i < FIXTURE_FILES; i++) {
        r.blobs[i].bytes = strlen(f->content[i]);
        xi_sha256(f->content[i], strlen(f->content[i]), &r.blobs[i].sha256);
        (void)snprintf(r.blobs[i].path, sizeof r.blobs[i].path, "%s", f->path[i]);
    }
    r.archive_bytes = fixture_archive(f, archive, sizeof archive);
    xi_sha256(archive, r.archive_bytes, &r.digest);
    return r;
}

static inline void fixture_write(int dir, const char *name, const void *data, size_t bytes)
{
    (void)unlinkat(dir, name, 0); /* one that was made read-only on its way in */
    int fd = openat(dir, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

    XI_ASSERT(fd >= 0 && xi_fd_write_all(fd, data, bytes) == 0);
    (void)close(fd);
}

/* What the host leaves: the files by number, and the record. */
static inline void fixture_leave(int dir, const struct fixture *f,
                                 const struct xi_package_record *record)
{
    struct xi_str bytes;

    for (int i = 0; i < FIXTURE_FILES; i++) {
        char name[8];
        (void)snprintf(name, sizeof name, "%d", i);
        fixture_write(dir, name, f->content[i], strlen(f->content[i]));
    }
    xi_str_init(&bytes, XI_RECORD_BYTES_MAX);
    XI_ASSERT(xi_record_encode(record, &bytes, NULL) == XI_OK);
    fixture_write(dir, "record", bytes.data, bytes.len);
    xi_str_fini(&bytes);
}

/* Beneath a directory: is there something under this path? */
static inline int fixture_exists(const char *dir, const char *path)
{
    char whole[512];
    struct stat st;

    (void)snprintf(whole, sizeof whole, "%s/%s", dir, path);
    return lstat(whole, &st) == 0;
}

#endif
