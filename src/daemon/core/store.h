/* store.h: packages on disk and desired state. Calls from the loop thread; the work is done on
 * the store's own thread, callbacks come back on the loop.
 *
 *   DIR/lock                      one daemon per directory
 *   DIR/catalogue.db              SQLite, WAL, synchronous=FULL
 *   DIR/blobs/sha256/ab/abcd…     content, mode 0444
 *   DIR/links/<digest>/<path>     hard links with real names: what a host may read
 *   DIR/cache/<tenant>/<digest>/<engine>/   compiled models
 *   DIR/staging/<random>/         uploads and installs under way; emptied at start
 */
#ifndef XI_DAEMON_CORE_STORE_H
#define XI_DAEMON_CORE_STORE_H

#include <stdint.h>
#include <uv.h>

#include "core/package_record.h"
#include "daemon/core/session_manager.h"

struct xi_store;

/* Synchronous, at start: makes the directory (0700, or 0711 as root), takes the lock (ELOCKED
 * names the holder's pid), opens and migrates the catalogue, sweeps staging, starts the thread.
 * EDISK when it cannot be written. */
enum xi_rc xi_store_open(uv_loop_t *loop, const char *dir, struct xi_store **ret,
                         struct xi_err *err) XI_MUST_CHECK;
/* Finishes what is queued, joins the thread, answers every call that still waits (installs with
 * EDRAIN); the loop must turn once more to free it. Uploads that go on must still be aborted. */
void xi_store_close(struct xi_store *store);

/* Every callback below comes from the loop, once, never from inside the call; only when memory is
 * out, it comes from inside with ENOMEM. EAGAIN: XI_STORE_JOBS_MAX calls wait already. */
typedef void (*xi_store_cb)(void *ctx, const struct xi_err *err); /* err NULL: success */

/* How uploads are unpacked; strings are copied. Call before the loop runs; without it installs
 * fail. */
struct xi_install_config {
    struct xi_shm *shm;
    const char *host_program, *plugin_dir;
    uint32_t host_uid; /* hosts run as this user (0: as we do) and may write caches */
    int sandbox;
    uint32_t time_limit_ms;    /* to unpack; 0: 60 s and 1 s for each 8 MiB */
    uint64_t data_limit_bytes; /* of the unpacking host; 0: 512 MiB */
};
void xi_store_configure_install(struct xi_store *store, const struct xi_install_config *config);

/* Uploads: bytes to a staging file on the store's thread. One write at a time: the caller waits
 * for cb before the next (that is its back-pressure), and keeps data until then.
 * expected_bytes 0: not known. EDISK names needed and free bytes (twice the upload is needed);
 * EAGAIN: XI_UPLOADS_MAX under way; ETOOBIG. */
struct xi_upload;
enum xi_rc xi_upload_begin(struct xi_store *store, uint64_t expected_bytes, struct xi_upload **ret,
                           struct xi_err *err) XI_MUST_CHECK;
void xi_upload_write(struct xi_upload *u, const void *data, size_t bytes, xi_store_cb cb,
                     void *ctx);
/* Deletes it, also while a write is under way: that one still gets its cb (ECANCELLED), and its
 * data is needed until then. Not after xi_upload_install. */
void xi_upload_abort(struct xi_upload *u);
/* Runs the host role `install` on it, then commits: every blob re-hashed, fsynced, renamed into
 * place, the row written last. Ends the upload in any case. `existed`: it was there already.
 * record is borrowed. EPACKAGE, EVERSION, EFLOW, EGOLDEN, …: what the host said; EDIGEST, EPROTO:
 * it lied; ETIMEOUT; EDISK. */
typedef void (*xi_install_cb)(void *ctx, const struct xi_package_record *record, int existed,
                              const struct xi_err *err);
void xi_upload_install(struct xi_upload *u, xi_install_cb cb, void *ctx);

/* A package by digest ("sha256:" may stand before it), or name, or name:version (a bare name
 * means the newest by SemVer). The record is the callback's to free (xi_record_free). ENOENT. */
typedef void (*xi_record_cb)(void *ctx, const char *digest, struct xi_package_record *record,
                             const struct xi_err *err);
void xi_store_find(struct xi_store *store, const char *reference, xi_record_cb cb, void *ctx);
/* All packages; rows are borrowed until cb returns. */
struct xi_package_row {
    char digest[XI_DIGEST_HEX + 1];
    struct xi_package_record *record;
    uint64_t bytes;
    int64_t installed_at_ms;
};
typedef void (*xi_list_cb)(void *ctx, const struct xi_package_row *rows, size_t n,
                           const struct xi_err *err);
void xi_store_list(struct xi_store *store, xi_list_cb cb, void *ctx);
/* Removes a package and its blobs that no other one uses. ECONFLICT while it is desired. */
void xi_store_remove(struct xi_store *store, const char *digest, xi_store_cb cb, void *ctx);
/* What a load needs on the disk. Copied. */
struct xi_store_folders {
    const char *tenant, *digest;
    const char *engine_build; /* "openvino-2026.4.1": never read what another build compiled */
    const char *group;        /* id of a group that shares its host; NULL: the session's own */
    const char *shared_by;    /* the group's tenant, "" : a device's */
    const char *device;       /* of the group */
};
/* Makes the folder of links to the package's files and the one of compiled models; both paths are
 * borrowed in cb. A group's packages lie side by side in a folder of its own, which its host may
 * read from the start; it has one cache for all. EDIGEST: a blob is missing or damaged. */
typedef void (*xi_links_cb)(void *ctx, const char *link_dir, const char *cache_dir,
                            const struct xi_err *err);
void xi_store_prepare(struct xi_store *store, const struct xi_store_folders *want, xi_links_cb cb,
                      void *ctx);
/* The same for a session of its own and any engine. */
void xi_store_links(struct xi_store *store, const char *tenant, const char *digest, xi_links_cb cb,
                    void *ctx);
/* A group has ended: its links go. */
void xi_store_forget_group(struct xi_store *store, const char *id);

/* Desired state: answered after commit. */
void xi_store_desire(struct xi_store *store, const struct xi_desired *row, xi_store_cb cb,
                     void *ctx);
void xi_store_undesire(struct xi_store *store, const char *id, xi_store_cb cb, void *ctx);
/* One row for another in one transaction: whenever the daemon ends, exactly one of them comes back.
 * An old row that is not there is fine. */
void xi_store_replace(struct xi_store *store, const char *old_id, const struct xi_desired *row,
                      xi_store_cb cb, void *ctx);
typedef void (*xi_desired_cb)(void *ctx, const struct xi_desired *rows, size_t n,
                              const struct xi_err *err);
void xi_store_desired(struct xi_store *store, xi_desired_cb cb, void *ctx);

/* What loads really needed: the most that was measured of one variant on one device by one build
 * of its engine, with so many rows a run and so many instances. Kept over restarts as long as its
 * package is. */
struct xi_peak {
    char digest[XI_DIGEST_HEX + 1];
    char variant[64], engine_build[100], device[32];
    uint32_t batch, instances;
    uint64_t bytes;
    int64_t measured_at_ms; /* wall clock; filled in by the call that notes it */
};
/* In memory at once (so nobody waits for a disk), on disk soon after; a disk that fails is logged.
 * A smaller figure than the known one changes nothing but the time. */
void xi_store_note_peak(struct xi_store *store, const struct xi_peak *peak);
/* The known peak of this very key (*ret_exact 1). Without one the smallest known figure of the
 * same with no fewer rows and instances, which this can't exceed (*ret_exact 0). 0: none. */
uint64_t xi_store_peak(const struct xi_store *store, const struct xi_peak *key, int *ret_exact);

/* Settings that outlive a restart, text by key (at most XI_SETTINGS_MAX of XI_SETTING_MAX bytes).
 * NULL: not set. Borrowed until the key is put again. Read when the store opens. */
const char *xi_store_setting(const struct xi_store *store, const char *key);
/* Answered after commit; only then it is what xi_store_setting says. value NULL removes it.
 * EINVAL, ETOOBIG. cb may be NULL. */
void xi_store_setting_put(struct xi_store *store, const char *key, const char *value,
                          xi_store_cb cb, void *ctx);

struct xi_store_stats {
    uint64_t packages, blob_bytes, queue, fsyncs, free_bytes;
    uint64_t unreferenced_blobs; /* of a crash; the next remove collects them */
};
void xi_store_stats(struct xi_store *store, struct xi_store_stats *ret);

#endif
