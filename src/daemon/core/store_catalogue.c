#define _GNU_SOURCE
#include "daemon/core/store_catalogue_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/json.h"
#include "base/name.h"
#include "base/platform/process.h"
#include "base/str.h"

/* Step i makes schema i+1 of schema i. Append only: a released step never changes. */
static const char *const migrations[] = {
    "CREATE TABLE package (digest TEXT PRIMARY KEY, name TEXT NOT NULL, version TEXT NOT NULL,"
    " bytes INTEGER NOT NULL, installed_at_ms INTEGER NOT NULL, record BLOB NOT NULL) STRICT;"
    "CREATE INDEX package_by_name ON package(name);"
    "CREATE TABLE package_blob (digest TEXT NOT NULL REFERENCES package(digest) ON DELETE CASCADE,"
    " sha256 TEXT NOT NULL, bytes INTEGER NOT NULL, PRIMARY KEY (digest, sha256)) STRICT;"
    "CREATE INDEX package_blob_by_sha256 ON package_blob(sha256);"
    "CREATE TABLE desired (seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE,"
    " digest TEXT NOT NULL REFERENCES package(digest), tenant TEXT NOT NULL, name TEXT NOT NULL,"
    " device TEXT NOT NULL, precision TEXT NOT NULL, variant TEXT NOT NULL,"
    " instances INTEGER NOT NULL, threads INTEGER NOT NULL, priority INTEGER NOT NULL,"
    " golden INTEGER NOT NULL) STRICT;"
    "CREATE INDEX desired_by_digest ON desired(digest);",

    "ALTER TABLE desired ADD COLUMN max_batch INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE desired ADD COLUMN max_delay_us INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE desired ADD COLUMN max_shape TEXT NOT NULL DEFAULT '';"
    "ALTER TABLE desired ADD COLUMN isolation INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE desired ADD COLUMN pinned INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE desired ADD COLUMN lazy INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE desired ADD COLUMN keep_alive_s INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE desired ADD COLUMN sequence_idle_s INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE desired ADD COLUMN cache_bytes INTEGER NOT NULL DEFAULT 0;"
    "CREATE TABLE peak (digest TEXT NOT NULL REFERENCES package(digest) ON DELETE CASCADE,"
    " variant TEXT NOT NULL, engine_build TEXT NOT NULL, device TEXT NOT NULL,"
    " batch INTEGER NOT NULL, instances INTEGER NOT NULL, bytes INTEGER NOT NULL,"
    " measured_at_ms INTEGER NOT NULL,"
    " PRIMARY KEY (digest, variant, engine_build, device, batch, instances)) STRICT;"
    "CREATE TABLE setting (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;",
};
enum { SCHEMA = (int)(sizeof migrations / sizeof *migrations), NAMES_MAX = 1024 };

static const char *const statements[S_COUNT] = {
    [S_BEGIN] = "BEGIN IMMEDIATE",
    [S_COMMIT] = "COMMIT",
    [S_ROLLBACK] = "ROLLBACK",
    [S_ADD] = "INSERT INTO package (digest, name, version, bytes, installed_at_ms, record)"
              " VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    [S_ADD_BLOB] = "INSERT OR IGNORE INTO package_blob (digest, sha256, bytes) VALUES (?1, ?2, ?3)",
    [S_GET] = "SELECT record FROM package WHERE digest = ?1",
    [S_VERSIONS] = "SELECT digest, version FROM package WHERE name = ?1"
                   " ORDER BY installed_at_ms, rowid",
    [S_NAMES] = "SELECT DISTINCT name FROM package LIMIT 1024",
    [S_LIST] = "SELECT digest, record, bytes, installed_at_ms FROM package"
               " ORDER BY name, installed_at_ms, rowid",
    [S_REMOVE] = "DELETE FROM package WHERE digest = ?1",
    [S_WHO_DESIRES] = "SELECT tenant, name, id FROM desired WHERE digest = ?1 LIMIT 1",
    [S_BLOB_USED] = "SELECT 1 FROM package_blob WHERE sha256 = ?1 LIMIT 1",
    [S_TOTALS] = "SELECT (SELECT count(*) FROM package), (SELECT coalesce(sum(bytes), 0) FROM"
                 " (SELECT DISTINCT sha256, bytes FROM package_blob))",
    [S_DESIRE] =
        "INSERT INTO desired (id, digest, tenant, name, device, precision, variant, max_shape,"
        " instances, threads, priority, golden, max_batch, max_delay_us, isolation, pinned, lazy,"
        " keep_alive_s, sequence_idle_s, cache_bytes) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9,"
        " ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20)"
        " ON CONFLICT (id) DO UPDATE SET digest = ?2, tenant = ?3, name = ?4, device = ?5,"
        " precision = ?6, variant = ?7, max_shape = ?8, instances = ?9, threads = ?10,"
        " priority = ?11, golden = ?12, max_batch = ?13, max_delay_us = ?14, isolation = ?15,"
        " pinned = ?16, lazy = ?17, keep_alive_s = ?18, sequence_idle_s = ?19, cache_bytes = ?20",
    [S_UNDESIRE] = "DELETE FROM desired WHERE id = ?1",
    [S_DESIRED] =
        "SELECT id, digest, tenant, name, device, precision, variant, max_shape, instances,"
        " threads, priority, golden, max_batch, max_delay_us, isolation, pinned, lazy,"
        " keep_alive_s, sequence_idle_s, cache_bytes FROM desired ORDER BY seq LIMIT ?1",
    [S_PEAK_PUT] = "INSERT INTO peak (digest, variant, engine_build, device, batch, instances,"
                   " bytes, measured_at_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)"
                   " ON CONFLICT (digest, variant, engine_build, device, batch, instances)"
                   " DO UPDATE SET bytes = max(bytes, ?7), measured_at_ms = ?8",
    [S_PEAKS] = "SELECT digest, variant, engine_build, device, batch, instances, bytes,"
                " measured_at_ms FROM peak ORDER BY measured_at_ms DESC LIMIT ?1",
    [S_SETTING_PUT] = "INSERT INTO setting (key, value) VALUES (?1, ?2)"
                      " ON CONFLICT (key) DO UPDATE SET value = ?2",
    [S_SETTING_DROP] = "DELETE FROM setting WHERE key = ?1",
    [S_SETTINGS] = "SELECT key, value FROM setting ORDER BY key LIMIT ?1",
};

/* ---- errors ---- */

static enum xi_rc damaged(struct xi_err *err, const char *how)
{
    (void)xi_fail(err, XI_EIO, "the store's catalogue is damaged: %s", how);
    (void)xi_hint(err, "nothing was deleted: move catalogue.db* of the state directory away, "
                       "start again and install the packages anew");
    return XI_EIO;
}

static enum xi_rc disk_failed(sqlite3 *db, const char *what, struct xi_err *err)
{
    int saved = sqlite3_system_errno(db);

    (void)xi_fail(err, XI_EDISK, "%s: %s%s%s", what, sqlite3_errmsg(db), saved ? ": " : "",
                  saved ? strerror(saved) : "");
    (void)xi_hint(err, "make room or make the state directory writable; what was stored is kept");
    return XI_EDISK;
}

enum xi_rc xi_catalogue_failed(sqlite3 *db, const char *what, struct xi_err *err)
{
    int code = sqlite3_errcode(db) & 0xff;

    switch (code) {
    case SQLITE_NOMEM:
        return xi_fail(err, XI_ENOMEM, "%s: out of memory", what);
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        return damaged(err, sqlite3_errmsg(db));
    case SQLITE_FULL:
    case SQLITE_READONLY:
    case SQLITE_CANTOPEN:
    case SQLITE_PERM:
    case SQLITE_IOERR:
        return disk_failed(db, what, err);
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        (void)xi_fail(err, XI_ELOCKED, "%s: another program has the catalogue open", what);
        (void)xi_hint(err, "close what reads catalogue.db (a sqlite3 shell?) and try again");
        return XI_ELOCKED;
    default:
        return xi_fail(err, XI_EIO, "%s: %s", what, sqlite3_errmsg(db));
    }
}

/* ---- opening ---- */

static enum xi_rc exec(sqlite3 *db, const char *sql, const char *what, struct xi_err *err)
{
    if (sqlite3_exec(db, sql, NULL, NULL, NULL) == SQLITE_OK)
        return XI_OK;
    return xi_catalogue_failed(db, what, err);
}

/* The first column of the first row, as text of at most `room`. */
static enum xi_rc ask(sqlite3 *db, const char *sql, char *ret, size_t room, struct xi_err *err)
{
    sqlite3_stmt *st = NULL;
    enum xi_rc rc = XI_OK;

    if (sqlite3_prepare_v2(db, sql, -1, &st, NULL) != SQLITE_OK || sqlite3_step(st) != SQLITE_ROW) {
        rc = xi_catalogue_failed(db, "reading the catalogue", err);
        goto out;
    }
    const unsigned char *text = sqlite3_column_text(st, 0);
    (void)snprintf(ret, room, "%s", text ? (const char *)text : "");
out:
    (void)sqlite3_finalize(st);
    return rc;
}

static enum xi_rc migrate_from(sqlite3 *db, long have, struct xi_err *err)
{
    enum xi_rc rc = XI_OK;

    for (; rc == XI_OK && have < SCHEMA; have++) {
        char done[64];
        (void)snprintf(done, sizeof done, "PRAGMA user_version = %ld; COMMIT", have + 1);
        rc = exec(db, "BEGIN IMMEDIATE", "making the catalogue", err);
        if (rc == XI_OK)
            rc = exec(db, migrations[have], "making the catalogue", err);
        if (rc == XI_OK)
            rc = exec(db, done, "making the catalogue", err);
    }
    return rc;
}

static enum xi_rc migrate(sqlite3 *db, struct xi_err *err)
{
    char text[128];
    enum xi_rc rc = ask(db, "PRAGMA user_version", text, sizeof text, err);

    if (rc != XI_OK)
        return rc;
    long have = strtol(text, NULL, 10);
    if (have < 0 || have > SCHEMA) {
        (void)xi_fail(err, XI_EVERSION,
                      "the store was written by a newer xInfer (schema %ld, this one knows %d)",
                      have, SCHEMA);
        (void)xi_hint(err,
                      "run the newer xinferd, or give this one another directory with --state");
        return XI_EVERSION;
    }
    rc = ask(db, "PRAGMA quick_check(1)", text, sizeof text, err);
    if (rc == XI_OK && strcmp(text, "ok") != 0)
        return damaged(err, text);
    return rc == XI_OK ? migrate_from(db, have, err) : rc;
}

static enum xi_rc prepare_all(struct xi_catalogue *c, struct xi_err *err)
{
    for (int i = 0; i < S_COUNT; i++)
        if (sqlite3_prepare_v3(c->db, statements[i], -1, SQLITE_PREPARE_PERSISTENT, &c->prepared[i],
                               NULL) != SQLITE_OK)
            return xi_catalogue_failed(c->db, "preparing the catalogue", err);
    return XI_OK;
}

/* EXCLUSIVE: the store's own lock lets one daemon in, so the shared index in memory is not needed
 * (and can't be truncated under us). */
static const char settings[] = "PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL;"
                               "PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;"
                               "PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON;";

enum xi_rc xi_catalogue_open(const char *dir, struct xi_catalogue **ret, struct xi_err *err)
{
    char path[PATH_MAX];
    enum xi_rc rc;
    struct xi_catalogue *c = calloc(1, sizeof *c);

    if (c == NULL)
        return xi_fail(err, XI_ENOMEM, "catalogue: out of memory");
    if (snprintf(path, sizeof path, "%s/catalogue.db", dir) >= (int)sizeof path) {
        rc = xi_fail(err, XI_EDISK, "the state directory's path is too long");
        goto out;
    }
    /* Made here first, so that only this user can read it; SQLite says what is wrong if not. */
    int fd = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    xi_fd_close(&fd);
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_FULLMUTEX;
    if (sqlite3_open_v2(path, &c->db, flags, NULL) != SQLITE_OK) {
        rc = c->db ? xi_catalogue_failed(c->db, "opening the catalogue", err)
                   : xi_fail(err, XI_ENOMEM, "catalogue: out of memory");
        goto out;
    }
    rc = exec(c->db, settings, "opening the catalogue", err);
    if (rc == XI_OK)
        rc = migrate(c->db, err);
    if (rc == XI_OK)
        rc = prepare_all(c, err);
out:
    if (rc == XI_OK)
        *ret = c;
    else
        xi_catalogue_close(c);
    return rc;
}

void xi_catalogue_close(struct xi_catalogue *c)
{
    if (c == NULL)
        return;
    for (int i = 0; i < S_COUNT; i++)
        (void)sqlite3_finalize(c->prepared[i]);
    (void)sqlite3_close(c->db);
    free(c);
}

/* ---- statements ---- */

enum xi_rc xi_catalogue_run(struct xi_catalogue *c, enum xi_statement s, const char *what,
                            struct xi_err *err)
{
    enum xi_rc rc = XI_OK;

    if (sqlite3_step(c->prepared[s]) != SQLITE_DONE)
        rc = xi_catalogue_failed(c->db, what, err);
    (void)sqlite3_reset(c->prepared[s]);
    return rc;
}

enum xi_rc xi_catalogue_begin(struct xi_catalogue *c, struct xi_err *err)
{
    (void)xi_catalogue_use(c, S_BEGIN);
    return xi_catalogue_run(c, S_BEGIN, "writing the catalogue", err);
}

enum xi_rc xi_catalogue_end(struct xi_catalogue *c, enum xi_rc rc, struct xi_err *err)
{
    (void)xi_catalogue_use(c, S_COMMIT);
    if (rc == XI_OK)
        rc = xi_catalogue_run(c, S_COMMIT, "writing the catalogue", err);
    if (rc != XI_OK && !sqlite3_get_autocommit(c->db)) {
        (void)xi_catalogue_use(c, S_ROLLBACK);
        (void)xi_catalogue_run(c, S_ROLLBACK, "writing the catalogue", NULL);
    }
    return rc;
}

/* ---- packages ---- */

/* The same files under the same paths; a signature may come or go. */
static int same_files(const struct xi_package_record *a, const struct xi_package_record *b)
{
    uint32_t i = 0, k = 0;

    for (;;) {
        while (i < a->n_blobs && strcmp(a->blobs[i].path, "signature.json") == 0)
            i++;
        while (k < b->n_blobs && strcmp(b->blobs[k].path, "signature.json") == 0)
            k++;
        if (i == a->n_blobs || k == b->n_blobs)
            return i == a->n_blobs && k == b->n_blobs;
        if (strcmp(a->blobs[i].path, b->blobs[k].path) != 0 ||
            a->blobs[i].bytes != b->blobs[k].bytes ||
            !xi_digest_equal(&a->blobs[i].sha256, &b->blobs[k].sha256))
            return 0;
        i++;
        k++;
    }
}

static enum xi_rc add_package(struct xi_catalogue *c, const char *digest,
                              const struct xi_package_record *r, struct xi_err *err)
{
    struct timespec now;
    struct xi_str bytes;
    enum xi_rc rc;

    xi_str_init(&bytes, XI_RECORD_BYTES_MAX);
    rc = xi_record_encode(r, &bytes, err);
    if (rc != XI_OK)
        goto out;
    (void)clock_gettime(CLOCK_REALTIME, &now);
    sqlite3_stmt *st = xi_catalogue_use(c, S_ADD);
    xi_bind_text(st, 1, digest);
    xi_bind_text(st, 2, r->name);
    xi_bind_text(st, 3, r->version);
    (void)sqlite3_bind_int64(st, 4, (int64_t)r->archive_bytes);
    (void)sqlite3_bind_int64(st, 5, (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000);
    (void)sqlite3_bind_blob64(st, 6, bytes.data, bytes.len, SQLITE_STATIC);
    rc = xi_catalogue_run(c, S_ADD, "adding a package", err);
out:
    xi_str_fini(&bytes);
    return rc;
}

static enum xi_rc add_blobs(struct xi_catalogue *c, const char *digest,
                            const struct xi_package_record *r, struct xi_err *err)
{
    enum xi_rc rc = XI_OK;

    for (uint32_t i = 0; rc == XI_OK && i < r->n_blobs; i++) {
        char sha256[XI_DIGEST_HEX + 1];
        sqlite3_stmt *st = xi_catalogue_use(c, S_ADD_BLOB);
        xi_digest_text(&r->blobs[i].sha256, sha256);
        xi_bind_text(st, 1, digest);
        xi_bind_text(st, 2, sha256);
        (void)sqlite3_bind_int64(st, 3, (int64_t)r->blobs[i].bytes);
        rc = xi_catalogue_run(c, S_ADD_BLOB, "adding a package", err);
    }
    return rc;
}

static enum xi_rc compare_existing(const struct xi_package_record *have,
                                   const struct xi_package_record *want, const char *digest,
                                   struct xi_err *err)
{
    if (same_files(have, want))
        return XI_OK;
    (void)xi_fail(err, XI_EDIGEST,
                  "%s %s claims the digest %.12s… of the installed %s %s, but has other files",
                  want->name, want->version, digest, have->name, have->version);
    (void)xi_hint(err, "do not trust this file; the installed package was left as it is");
    return XI_EDIGEST;
}

enum xi_rc xi_catalogue_add(struct xi_catalogue *c, const struct xi_package_record *record,
                            int *ret_existed, struct xi_err *err)
{
    char digest[XI_DIGEST_HEX + 1];
    struct xi_package_record have = {0};

    xi_digest_text(&record->digest, digest);
    enum xi_rc rc = xi_catalogue_get(c, digest, &have, err);
    if (rc == XI_OK) {
        rc = compare_existing(&have, record, digest, err);
        xi_record_fini(&have);
        if (rc == XI_OK)
            *ret_existed = 1;
        return rc;
    }
    if (rc != XI_ENOENT)
        return rc;
    rc = xi_catalogue_begin(c, err);
    if (rc != XI_OK)
        return rc;
    rc = add_package(c, digest, record, err);
    if (rc == XI_OK)
        rc = add_blobs(c, digest, record, err);
    rc = xi_catalogue_end(c, rc, err);
    if (rc == XI_OK)
        *ret_existed = 0;
    return rc;
}

enum xi_rc xi_catalogue_get(struct xi_catalogue *c, const char *digest,
                            struct xi_package_record *ret, struct xi_err *err)
{
    enum xi_rc rc;
    sqlite3_stmt *st = xi_catalogue_use(c, S_GET);

    xi_bind_text(st, 1, digest);
    int got = sqlite3_step(st);
    if (got == SQLITE_ROW) {
        rc = xi_record_decode(sqlite3_column_blob(st, 0), (size_t)sqlite3_column_bytes(st, 0), ret,
                              err);
        if (rc == XI_EPROTO)
            rc = damaged(err, "a package's record is not readable");
    } else if (got == SQLITE_DONE) {
        rc = xi_fail(err, XI_ENOENT, "no package %.12s… is installed", digest);
    } else {
        rc = xi_catalogue_failed(c->db, "reading packages", err);
    }
    (void)sqlite3_reset(st);
    return rc;
}

/* The package of this name with this version, or ("" version) the newest; the later installed of
 * two equal ones. digest stays "" when there is none. */
static enum xi_rc find_version(struct xi_catalogue *c, const char *name, const char *version,
                               char digest[XI_DIGEST_HEX + 1], struct xi_err *err)
{
    enum xi_rc rc = XI_OK;
    char best[72] = "";
    int got;
    sqlite3_stmt *st = xi_catalogue_use(c, S_VERSIONS);

    digest[0] = '\0';
    xi_bind_text(st, 1, name);
    while ((got = sqlite3_step(st)) == SQLITE_ROW) {
        char have[72];
        xi_copy_text(st, 1, have, sizeof have);
        int fits =
            *version ? strcmp(have, version) == 0 : !*best || xi_semver_compare(have, best) >= 0;
        if (!fits)
            continue;
        memcpy(best, have, sizeof best);
        xi_copy_text(st, 0, digest, XI_DIGEST_HEX + 1);
    }
    if (got != SQLITE_DONE)
        rc = xi_catalogue_failed(c->db, "reading packages", err);
    (void)sqlite3_reset(st);
    return rc;
}

static void hint_nearest(struct xi_catalogue *c, const char *name, struct xi_err *err)
{
    const char *names[NAMES_MAX + 1];
    size_t n = 0;
    sqlite3_stmt *st = xi_catalogue_use(c, S_NAMES);

    while (n < NAMES_MAX && sqlite3_step(st) == SQLITE_ROW) {
        names[n] = strdup((const char *)sqlite3_column_text(st, 0));
        if (names[n] == NULL)
            break;
        n++;
    }
    names[n] = NULL;
    (void)sqlite3_reset(st);
    const char *near = xi_nearest(name, names);
    if (near != NULL)
        (void)xi_hint(err, "did you mean \"%s\"?", near);
    else if (n == 0)
        (void)xi_hint(err, "no package is installed yet: install one with `xinfer load FILE.xpkg`");
    else
        (void)xi_hint(err, "`xinfer ls` lists what is installed");
    for (size_t i = 0; i < n; i++)
        free((void *)(uintptr_t)names[i]);
}

/* Splits "name:version" (a name holds no colon). EINVAL when it can't be one. */
static enum xi_rc split_reference(const char *reference, char name[XI_NAME_MAX + 1],
                                  const char **ret_version, struct xi_err *err)
{
    size_t n = strcspn(reference, ":");

    (void)snprintf(name, XI_NAME_MAX + 1, "%.*s", n > XI_NAME_MAX ? 0 : (int)n, reference);
    *ret_version = reference[n] ? reference + n + 1 : "";
    if (!xi_name_valid(name) || (reference[n] && !xi_semver_valid(*ret_version))) {
        (void)xi_fail(err, XI_EINVAL, "\"%.100s\" names no package", reference);
        return xi_hint(err, "a package is named by its digest, NAME or NAME:VERSION");
    }
    return XI_OK;
}

static enum xi_rc find_by_name(struct xi_catalogue *c, const char *reference,
                               char digest[XI_DIGEST_HEX + 1], struct xi_err *err)
{
    char name[XI_NAME_MAX + 1];
    const char *version = "";
    enum xi_rc rc = split_reference(reference, name, &version, err);

    if (rc == XI_OK)
        rc = find_version(c, name, version, digest, err);
    if (rc != XI_OK || *digest)
        return rc;
    char newest[XI_DIGEST_HEX + 1];
    rc = *version ? find_version(c, name, "", newest, err) : XI_OK;
    if (rc != XI_OK)
        return rc;
    struct xi_package_record have = {0};
    if (*version && *newest && xi_catalogue_get(c, newest, &have, NULL) == XI_OK) {
        (void)xi_fail(err, XI_ENOENT, "%s is installed, but not version %s", name, version);
        (void)xi_hint(err, "the newest installed is %s:%s", name, have.version);
        xi_record_fini(&have);
        return XI_ENOENT;
    }
    (void)xi_fail(err, XI_ENOENT, "no package \"%s\" is installed", name);
    if (err != NULL)
        hint_nearest(c, name, err);
    return XI_ENOENT;
}

enum xi_rc xi_catalogue_find(struct xi_catalogue *c, const char *reference,
                             char ret_digest[XI_DIGEST_HEX + 1], struct xi_package_record *ret,
                             struct xi_err *err)
{
    struct xi_digest parsed;
    char digest[XI_DIGEST_HEX + 1] = "";
    const char *hex = strncmp(reference, "sha256:", 7) == 0 ? reference + 7 : reference;
    enum xi_rc rc = XI_OK;

    if (xi_digest_parse(hex, &parsed) == 0)
        xi_digest_text(&parsed, digest);
    else
        rc = find_by_name(c, reference, digest, err);
    if (rc == XI_OK)
        rc = xi_catalogue_get(c, digest, ret, err);
    if (rc == XI_OK)
        memcpy(ret_digest, digest, sizeof digest);
    return rc;
}

void xi_catalogue_free_rows(struct xi_package_row *rows, size_t n)
{
    for (size_t i = 0; i < n; i++)
        xi_record_free(rows[i].record);
    free(rows);
}

static enum xi_rc read_row(sqlite3_stmt *st, struct xi_package_row *row, struct xi_err *err)
{
    row->record = calloc(1, sizeof *row->record);
    if (row->record == NULL)
        return xi_fail(err, XI_ENOMEM, "listing packages: out of memory");
    xi_copy_text(st, 0, row->digest, sizeof row->digest);
    row->bytes = (uint64_t)sqlite3_column_int64(st, 2);
    row->installed_at_ms = sqlite3_column_int64(st, 3);
    enum xi_rc rc = xi_record_decode(sqlite3_column_blob(st, 1),
                                     (size_t)sqlite3_column_bytes(st, 1), row->record, err);
    return rc == XI_EPROTO ? damaged(err, "a package's record is not readable") : rc;
}

enum xi_rc xi_catalogue_list(struct xi_catalogue *c, struct xi_package_row **ret, size_t *ret_n,
                             struct xi_err *err)
{
    uint64_t packages = 0, bytes;
    size_t n = 0;
    int got = SQLITE_DONE;
    enum xi_rc rc = xi_catalogue_totals(c, &packages, &bytes, err);

    if (rc != XI_OK)
        return rc;
    struct xi_package_row *rows = calloc(packages + 1, sizeof *rows);
    if (rows == NULL)
        return xi_fail(err, XI_ENOMEM, "listing packages: out of memory");
    sqlite3_stmt *st = xi_catalogue_use(c, S_LIST);
    while (rc == XI_OK && n < packages && (got = sqlite3_step(st)) == SQLITE_ROW)
        rc = read_row(st, &rows[n++], err);
    if (rc == XI_OK && got != SQLITE_ROW && got != SQLITE_DONE)
        rc = xi_catalogue_failed(c->db, "listing packages", err);
    (void)sqlite3_reset(st);
    if (rc != XI_OK) {
        xi_catalogue_free_rows(rows, n);
        return rc;
    }
    *ret = rows;
    *ret_n = n;
    return XI_OK;
}

static enum xi_rc refuse_desired(struct xi_catalogue *c, const char *digest, struct xi_err *err)
{
    enum xi_rc rc = XI_OK;
    sqlite3_stmt *st = xi_catalogue_use(c, S_WHO_DESIRES);

    xi_bind_text(st, 1, digest);
    int got = sqlite3_step(st);
    if (got == SQLITE_ROW) {
        const char *name = (const char *)sqlite3_column_text(st, 1);
        rc = xi_fail(err, XI_ECONFLICT, "package %.12s… is loaded as \"%.100s\" (session %s)",
                     digest, name, (const char *)sqlite3_column_text(st, 2));
        (void)xi_hint(err, "unload it first: xinfer unload %.100s", name);
    } else if (got != SQLITE_DONE) {
        rc = xi_catalogue_failed(c->db, "reading desired state", err);
    }
    (void)sqlite3_reset(st);
    return rc;
}

enum xi_rc xi_catalogue_remove(struct xi_catalogue *c, const char *digest, struct xi_err *err)
{
    enum xi_rc rc = refuse_desired(c, digest, err);

    if (rc != XI_OK)
        return rc;
    xi_bind_text(xi_catalogue_use(c, S_REMOVE), 1, digest);
    rc = xi_catalogue_run(c, S_REMOVE, "removing a package", err);
    if (rc == XI_OK && sqlite3_changes(c->db) == 0)
        rc = xi_fail(err, XI_ENOENT, "no package %.12s… is installed", digest);
    return rc;
}

enum xi_rc xi_catalogue_blob_used(struct xi_catalogue *c, const char *sha256, int *ret_used,
                                  struct xi_err *err)
{
    enum xi_rc rc = XI_OK;
    sqlite3_stmt *st = xi_catalogue_use(c, S_BLOB_USED);

    xi_bind_text(st, 1, sha256);
    int got = sqlite3_step(st);
    if (got == SQLITE_ROW || got == SQLITE_DONE)
        *ret_used = got == SQLITE_ROW;
    else
        rc = xi_catalogue_failed(c->db, "reading blobs", err);
    (void)sqlite3_reset(st);
    return rc;
}

enum xi_rc xi_catalogue_totals(struct xi_catalogue *c, uint64_t *ret_packages,
                               uint64_t *ret_blob_bytes, struct xi_err *err)
{
    enum xi_rc rc = XI_OK;
    sqlite3_stmt *st = xi_catalogue_use(c, S_TOTALS);

    if (sqlite3_step(st) == SQLITE_ROW) {
        *ret_packages = (uint64_t)sqlite3_column_int64(st, 0);
        *ret_blob_bytes = (uint64_t)sqlite3_column_int64(st, 1);
    } else {
        rc = xi_catalogue_failed(c->db, "counting packages", err);
    }
    (void)sqlite3_reset(st);
    return rc;
}
