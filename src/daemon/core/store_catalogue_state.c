#include <stdlib.h>
#include <string.h>

#include "daemon/core/store_catalogue_impl.h"

/* ---- desired state ---- */

static void bind_numbers(sqlite3_stmt *st, const struct xi_load_options *o)
{
    const int64_t numbers[] = {o->instances,      o->threads,         (int)o->priority,
                               o->golden != 0,    o->max_batch,       o->max_delay_us,
                               (int)o->isolation, o->pinned != 0,     o->lazy != 0,
                               o->keep_alive_s,   o->sequence_idle_s, (int64_t)o->cache_bytes};

    for (int i = 0; i < (int)(sizeof numbers / sizeof *numbers); i++)
        (void)sqlite3_bind_int64(st, 9 + i, numbers[i]);
}

enum xi_rc xi_catalogue_desire(struct xi_catalogue *c, const struct xi_desired *row,
                               struct xi_err *err)
{
    const struct xi_load_options *o = &row->options;
    const char *texts[] = {row->id,   row->digest,  o->tenant,  o->name,
                           o->device, o->precision, o->variant, o->max_shape};
    struct xi_package_record have = {0};
    enum xi_rc rc = xi_catalogue_get(c, row->digest, &have, err);

    xi_record_fini(&have);
    if (rc != XI_OK)
        return rc;
    sqlite3_stmt *st = xi_catalogue_use(c, S_DESIRE);
    for (int i = 0; i < 8; i++)
        xi_bind_text(st, i + 1, texts[i]);
    bind_numbers(st, o);
    return xi_catalogue_run(c, S_DESIRE, "writing desired state", err);
}

enum xi_rc xi_catalogue_undesire(struct xi_catalogue *c, const char *id, struct xi_err *err)
{
    xi_bind_text(xi_catalogue_use(c, S_UNDESIRE), 1, id);
    return xi_catalogue_run(c, S_UNDESIRE, "writing desired state", err);
}

enum xi_rc xi_catalogue_replace(struct xi_catalogue *c, const char *old_id,
                                const struct xi_desired *row, struct xi_err *err)
{
    enum xi_rc rc = xi_catalogue_begin(c, err);

    if (rc != XI_OK)
        return rc;
    rc = xi_catalogue_undesire(c, old_id, err);
    if (rc == XI_OK)
        rc = xi_catalogue_desire(c, row, err);
    return xi_catalogue_end(c, rc, err);
}

static void read_desired(sqlite3_stmt *st, struct xi_desired *row)
{
    struct xi_load_options *o = &row->options;

    xi_copy_text(st, 0, row->id, sizeof row->id);
    xi_copy_text(st, 1, row->digest, sizeof row->digest);
    xi_copy_text(st, 2, o->tenant, sizeof o->tenant);
    xi_copy_text(st, 3, o->name, sizeof o->name);
    xi_copy_text(st, 4, o->device, sizeof o->device);
    xi_copy_text(st, 5, o->precision, sizeof o->precision);
    xi_copy_text(st, 6, o->variant, sizeof o->variant);
    xi_copy_text(st, 7, o->max_shape, sizeof o->max_shape);
    o->instances = (uint32_t)sqlite3_column_int64(st, 8);
    o->threads = (uint32_t)sqlite3_column_int64(st, 9);
    int priority = sqlite3_column_int(st, 10);
    o->priority = priority == XI_PRIORITY_REALTIME || priority == XI_PRIORITY_BATCH
                      ? (enum xi_priority)priority
                      : XI_PRIORITY_NORMAL;
    o->golden = sqlite3_column_int(st, 11);
    o->max_batch = (uint32_t)sqlite3_column_int64(st, 12);
    o->max_delay_us = (uint32_t)sqlite3_column_int64(st, 13);
    int isolation = sqlite3_column_int(st, 14);
    o->isolation = isolation > XI_ISOLATE_AUTO && isolation <= XI_ISOLATE_DEVICE
                       ? (enum xi_isolation)isolation
                       : XI_ISOLATE_AUTO;
    o->pinned = sqlite3_column_int(st, 15);
    o->lazy = sqlite3_column_int(st, 16);
    o->keep_alive_s = (uint32_t)sqlite3_column_int64(st, 17);
    o->sequence_idle_s = (uint32_t)sqlite3_column_int64(st, 18);
    o->cache_bytes = (uint64_t)sqlite3_column_int64(st, 19);
}

enum xi_rc xi_catalogue_desired(struct xi_catalogue *c, struct xi_desired **ret, size_t *ret_n,
                                struct xi_err *err)
{
    size_t n = 0;
    int got;
    struct xi_desired *rows = calloc(XI_SESSIONS_MAX, sizeof *rows);

    if (rows == NULL)
        return xi_fail(err, XI_ENOMEM, "desired state: out of memory");
    sqlite3_stmt *st = xi_catalogue_use(c, S_DESIRED);
    (void)sqlite3_bind_int64(st, 1, XI_SESSIONS_MAX);
    while ((got = sqlite3_step(st)) == SQLITE_ROW && n < XI_SESSIONS_MAX)
        read_desired(st, &rows[n++]);
    enum xi_rc rc = XI_OK;
    if (got != SQLITE_DONE && got != SQLITE_ROW)
        rc = xi_catalogue_failed(c->db, "reading desired state", err);
    (void)sqlite3_reset(st);
    if (rc != XI_OK) {
        free(rows);
        return rc;
    }
    *ret = rows;
    *ret_n = n;
    return XI_OK;
}

/* ---- measured peaks ---- */

enum xi_rc xi_catalogue_note_peak(struct xi_catalogue *c, const struct xi_peak *peak,
                                  struct xi_err *err)
{
    sqlite3_stmt *st = xi_catalogue_use(c, S_PEAK_PUT);

    xi_bind_text(st, 1, peak->digest);
    xi_bind_text(st, 2, peak->variant);
    xi_bind_text(st, 3, peak->engine_build);
    xi_bind_text(st, 4, peak->device);
    (void)sqlite3_bind_int64(st, 5, peak->batch);
    (void)sqlite3_bind_int64(st, 6, peak->instances);
    (void)sqlite3_bind_int64(st, 7, (int64_t)peak->bytes);
    (void)sqlite3_bind_int64(st, 8, peak->measured_at_ms);
    return xi_catalogue_run(c, S_PEAK_PUT, "writing a measured peak", err);
}

static void read_peak(sqlite3_stmt *st, struct xi_peak *peak)
{
    xi_copy_text(st, 0, peak->digest, sizeof peak->digest);
    xi_copy_text(st, 1, peak->variant, sizeof peak->variant);
    xi_copy_text(st, 2, peak->engine_build, sizeof peak->engine_build);
    xi_copy_text(st, 3, peak->device, sizeof peak->device);
    peak->batch = (uint32_t)sqlite3_column_int64(st, 4);
    peak->instances = (uint32_t)sqlite3_column_int64(st, 5);
    peak->bytes = (uint64_t)sqlite3_column_int64(st, 6);
    peak->measured_at_ms = sqlite3_column_int64(st, 7);
}

enum xi_rc xi_catalogue_peaks(struct xi_catalogue *c, struct xi_peak *ret, uint32_t room,
                              uint32_t *ret_n, struct xi_err *err)
{
    sqlite3_stmt *st = xi_catalogue_use(c, S_PEAKS);
    enum xi_rc rc = XI_OK;
    uint32_t n = 0;
    int got;

    (void)sqlite3_bind_int64(st, 1, room);
    while ((got = sqlite3_step(st)) == SQLITE_ROW && n < room)
        read_peak(st, &ret[n++]);
    if (got != SQLITE_DONE && got != SQLITE_ROW)
        rc = xi_catalogue_failed(c->db, "reading measured peaks", err);
    (void)sqlite3_reset(st);
    *ret_n = rc == XI_OK ? n : 0;
    return rc;
}

/* ---- settings ---- */

enum xi_rc xi_catalogue_set(struct xi_catalogue *c, const char *key, const char *value,
                            struct xi_err *err)
{
    sqlite3_stmt *st = xi_catalogue_use(c, value != NULL ? S_SETTING_PUT : S_SETTING_DROP);

    xi_bind_text(st, 1, key);
    if (value != NULL)
        xi_bind_text(st, 2, value);
    return xi_catalogue_run(c, value != NULL ? S_SETTING_PUT : S_SETTING_DROP, "writing a setting",
                            err);
}

enum xi_rc xi_catalogue_settings(struct xi_catalogue *c, xi_setting_cb cb, void *ctx,
                                 struct xi_err *err)
{
    sqlite3_stmt *st = xi_catalogue_use(c, S_SETTINGS);
    enum xi_rc rc = XI_OK;
    int got;

    (void)sqlite3_bind_int64(st, 1, XI_SETTINGS_MAX);
    while ((got = sqlite3_step(st)) == SQLITE_ROW)
        cb(ctx, (const char *)sqlite3_column_text(st, 0), (const char *)sqlite3_column_text(st, 1));
    if (got != SQLITE_DONE)
        rc = xi_catalogue_failed(c->db, "reading settings", err);
    (void)sqlite3_reset(st);
    return rc;
}
