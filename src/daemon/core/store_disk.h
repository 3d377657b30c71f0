/* store_disk.h: the store's directory: its lock, blobs, links, caches and staging. Everything below
 * it is opened relative to one descriptor and never through a symbolic link. One thread at a time
 * (the store's); waits for the disk. Messages name files of a package, never paths of this machine,
 * except the state directory itself. */
#ifndef XI_DAEMON_CORE_STORE_DISK_H
#define XI_DAEMON_CORE_STORE_DISK_H

#include <stdatomic.h>
#include <stdint.h>

#include "core/package_record.h"

struct xi_catalogue;

#define XI_STORE_PATH_MAX 512
#define XI_BLOB_PATH_MAX  96
/* A group's folder of links: this and its id. The sweep takes it, as all that begins with a dot. */
#define XI_STORE_GROUP_LINKS "links/.group-"
/* Kept free for the catalogue and logs, whatever is installed. */
#define XI_STORE_SPARE_BYTES (16 * XI_MIB)

struct xi_store_disk {
    char path[XI_STORE_PATH_MAX]; /* absolute */
    int dir, lock;                /* -1: closed */
    uint32_t host_uid;            /* of hosts when it is not ours; 0: ours */
    _Atomic uint64_t fsyncs;
};

/* Makes the directory and what belongs in it, takes the lock. ELOCKED, EDISK. */
enum xi_rc xi_store_disk_open(struct xi_store_disk *ret, const char *path,
                              struct xi_err *err) XI_MUST_CHECK;
void xi_store_disk_close(struct xi_store_disk *d);
/* Start-up: empties staging, removes half-made links and those of no package. */
enum xi_rc xi_store_disk_sweep(struct xi_store_disk *d, struct xi_catalogue *catalogue,
                               struct xi_err *err) XI_MUST_CHECK;

/* EDISK with both figures unless `need` bytes fit. */
enum xi_rc xi_store_disk_room(struct xi_store_disk *d, uint64_t need,
                              struct xi_err *err) XI_MUST_CHECK;
uint64_t xi_store_disk_free_bytes(struct xi_store_disk *d);
/* The error of a failed call: EDISK with the free bytes when the disk is full. `what` begins the
 * sentence. */
enum xi_rc xi_store_disk_failed(struct xi_store_disk *d, int err_number, const char *what,
                                struct xi_err *err);
int xi_store_disk_flush(struct xi_store_disk *d, int fd); /* counted fsync */
int xi_store_disk_flush_dir(struct xi_store_disk *d, const char *path);

/* "blobs/sha256/ab/abcd…" */
void xi_store_disk_blob_path(const struct xi_digest *sha256, char ret[XI_BLOB_PATH_MAX]);
/* Present, a regular file, of the right size: 1. */
int xi_store_disk_has_blob(struct xi_store_disk *d, const struct xi_record_blob *blob);
/* Removes (or with remove 0 counts) blobs that no package needs. */
enum xi_rc xi_store_disk_collect(struct xi_store_disk *d, struct xi_catalogue *catalogue,
                                 int remove, uint64_t *ret_count, struct xi_err *err) XI_MUST_CHECK;

/* FOLDER/<digest>/ with a hard link for each file; whole or not at all. EDIGEST when a blob is
 * missing or has another size. */
enum xi_rc xi_store_disk_links(struct xi_store_disk *d, const char *folder, const char *digest,
                               const struct xi_package_record *record,
                               struct xi_err *err) XI_MUST_CHECK;
/* A folder below cache/, writable by hosts. */
enum xi_rc xi_store_disk_cache(struct xi_store_disk *d, const char *path,
                               struct xi_err *err) XI_MUST_CHECK;
/* Links of a group, best effort. */
void xi_store_disk_forget_group(struct xi_store_disk *d, const char *id);
/* Links and caches of a package that has gone. Best effort: what stays is swept at the start. */
void xi_store_disk_forget(struct xi_store_disk *d, const char *digest);

#endif
