/* store_catalogue.h: the store's SQLite database: which packages are installed, which blobs they
 * need, what shall be loaded, what was measured and set. One thread at a time (the store's); every
 * call may wait for the disk.
 *
 * WAL with synchronous=FULL: a call that answered XI_OK survives a power cut. The schema's number
 * is PRAGMA user_version; a newer one is refused. Nothing is ever deleted to get past an error. */
#ifndef XI_DAEMON_CORE_STORE_CATALOGUE_H
#define XI_DAEMON_CORE_STORE_CATALOGUE_H

#include <stddef.h>
#include <stdint.h>

#include "core/package_record.h"
#include "daemon/core/session_manager.h"
#include "daemon/core/store.h"

struct xi_catalogue;

/* Opens or makes DIR/catalogue.db. EDISK: cannot be written; EVERSION: made by a newer xInfer;
 * EIO: damaged, with what to do. */
enum xi_rc xi_catalogue_open(const char *dir, struct xi_catalogue **ret,
                             struct xi_err *err) XI_MUST_CHECK;
void xi_catalogue_close(struct xi_catalogue *c); /* NULL is fine */

/* A row for the package and one for each blob, in one transaction. A package that is there already
 * stays as it is (*ret_existed 1); EDIGEST when that one has other files. */
enum xi_rc xi_catalogue_add(struct xi_catalogue *c, const struct xi_package_record *record,
                            int *ret_existed, struct xi_err *err) XI_MUST_CHECK;
/* By digest, "sha256:…", name (the newest by SemVer) or name:version. *ret is the caller's
 * (xi_record_fini). ENOENT names the nearest package. */
enum xi_rc xi_catalogue_find(struct xi_catalogue *c, const char *reference,
                             char ret_digest[XI_DIGEST_HEX + 1], struct xi_package_record *ret,
                             struct xi_err *err) XI_MUST_CHECK;
/* By digest, without a hint. */
enum xi_rc xi_catalogue_get(struct xi_catalogue *c, const char *digest,
                            struct xi_package_record *ret, struct xi_err *err) XI_MUST_CHECK;
/* All, by name and installation. Free with xi_catalogue_free_rows. */
enum xi_rc xi_catalogue_list(struct xi_catalogue *c, struct xi_package_row **ret, size_t *ret_n,
                             struct xi_err *err) XI_MUST_CHECK;
void xi_catalogue_free_rows(struct xi_package_row *rows, size_t n);
/* ENOENT; ECONFLICT while a row of desired state needs it. */
enum xi_rc xi_catalogue_remove(struct xi_catalogue *c, const char *digest,
                               struct xi_err *err) XI_MUST_CHECK;
/* *ret_used: some package needs this blob (lower-case hex). */
enum xi_rc xi_catalogue_blob_used(struct xi_catalogue *c, const char *sha256, int *ret_used,
                                  struct xi_err *err) XI_MUST_CHECK;
/* Packages, and bytes of all blobs they need, each counted once. */
enum xi_rc xi_catalogue_totals(struct xi_catalogue *c, uint64_t *ret_packages,
                               uint64_t *ret_blob_bytes, struct xi_err *err) XI_MUST_CHECK;

/* Desired state. A row with the same id is replaced; ENOENT when its package is not here. */
enum xi_rc xi_catalogue_desire(struct xi_catalogue *c, const struct xi_desired *row,
                               struct xi_err *err) XI_MUST_CHECK;
/* The row of old_id (it need not be there) goes and this one comes, both or neither. */
enum xi_rc xi_catalogue_replace(struct xi_catalogue *c, const char *old_id,
                                const struct xi_desired *row, struct xi_err *err) XI_MUST_CHECK;
enum xi_rc xi_catalogue_undesire(struct xi_catalogue *c, const char *id,
                                 struct xi_err *err) XI_MUST_CHECK; /* an unknown id is fine */
/* Oldest first; free() it. At most XI_SESSIONS_MAX. */
enum xi_rc xi_catalogue_desired(struct xi_catalogue *c, struct xi_desired **ret, size_t *ret_n,
                                struct xi_err *err) XI_MUST_CHECK;

/* Measured peaks: the most that was ever seen of each. A package that goes takes
 * its peaks along. They are read newest first, at most `room`. */
enum xi_rc xi_catalogue_note_peak(struct xi_catalogue *c, const struct xi_peak *peak,
                                  struct xi_err *err) XI_MUST_CHECK;
enum xi_rc xi_catalogue_peaks(struct xi_catalogue *c, struct xi_peak *ret, uint32_t room,
                              uint32_t *ret_n, struct xi_err *err) XI_MUST_CHECK;

/* Settings; value NULL removes. The texts of cb are borrowed for the call. */
enum xi_rc xi_catalogue_set(struct xi_catalogue *c, const char *key, const char *value,
                            struct xi_err *err) XI_MUST_CHECK;
typedef void (*xi_setting_cb)(void *ctx, const char *key, const char *value);
enum xi_rc xi_catalogue_settings(struct xi_catalogue *c, xi_setting_cb cb, void *ctx,
                                 struct xi_err *err) XI_MUST_CHECK;

#endif
