/* store_catalogue_impl.h: what the catalogue's files share. For them only.
 *
 *   store_catalogue.c        schema, errors, packages
 *   store_catalogue_state.c  what shall be loaded, what was measured, what was set */
#ifndef XI_DAEMON_CORE_STORE_CATALOGUE_IMPL_H
#define XI_DAEMON_CORE_STORE_CATALOGUE_IMPL_H

#include <sqlite3.h>
#include <stdio.h>

#include "daemon/core/store_catalogue.h"

enum xi_statement {
    S_BEGIN,
    S_COMMIT,
    S_ROLLBACK,
    S_ADD,
    S_ADD_BLOB,
    S_GET,
    S_VERSIONS,
    S_NAMES,
    S_LIST,
    S_REMOVE,
    S_WHO_DESIRES,
    S_BLOB_USED,
    S_TOTALS,
    S_DESIRE,
    S_UNDESIRE,
    S_DESIRED,
    S_PEAK_PUT,
    S_PEAKS,
    S_SETTING_PUT,
    S_SETTING_DROP,
    S_SETTINGS,
    S_COUNT
};

struct xi_catalogue {
    sqlite3 *db;
    sqlite3_stmt *prepared[S_COUNT];
};

/* The error of the last call on db; `what` begins the sentence. */
enum xi_rc xi_catalogue_failed(sqlite3 *db, const char *what, struct xi_err *err);
/* A statement without rows. */
enum xi_rc xi_catalogue_run(struct xi_catalogue *c, enum xi_statement s, const char *what,
                            struct xi_err *err);

static inline sqlite3_stmt *xi_catalogue_use(struct xi_catalogue *c, enum xi_statement s)
{
    (void)sqlite3_reset(c->prepared[s]);
    (void)sqlite3_clear_bindings(c->prepared[s]);
    return c->prepared[s];
}

/* text lives until the statement has run. */
static inline void xi_bind_text(sqlite3_stmt *st, int at, const char *text)
{
    (void)sqlite3_bind_text(st, at, text, -1, SQLITE_STATIC);
}

static inline void xi_copy_text(sqlite3_stmt *st, int column, char *dst, size_t room)
{
    const unsigned char *text = sqlite3_column_text(st, column);

    (void)snprintf(dst, room, "%s", text ? (const char *)text : "");
}

enum xi_rc xi_catalogue_begin(struct xi_catalogue *c, struct xi_err *err) XI_MUST_CHECK;
/* Commits when rc is XI_OK; otherwise, and when that fails, undoes everything since begin. */
enum xi_rc xi_catalogue_end(struct xi_catalogue *c, enum xi_rc rc,
                            struct xi_err *err) XI_MUST_CHECK;

#endif
