/* Measured peaks and settings: read when the store opens, then known in memory on the loop; the
 * catalogue is written behind. */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/log.h"
#include "base/name.h"
#include "daemon/core/store_impl.h"

/* ---- in memory: peaks ---- */

static int same_kind(const struct xi_peak *a, const struct xi_peak *b)
{
    return strcmp(a->digest, b->digest) == 0 && strcmp(a->variant, b->variant) == 0 &&
           strcmp(a->engine_build, b->engine_build) == 0 && strcmp(a->device, b->device) == 0;
}

static int same_size(const struct xi_peak *a, const struct xi_peak *b)
{
    return a->batch == b->batch && a->instances == b->instances;
}

static struct xi_peak *known_peak(const struct xi_store *store, const struct xi_peak *key)
{
    for (uint32_t i = 0; i < store->n_peaks; i++)
        if (same_kind(&store->peaks[i], key) && same_size(&store->peaks[i], key))
            return &store->peaks[i];
    return NULL;
}

uint64_t xi_store_peak(const struct xi_store *store, const struct xi_peak *key, int *ret_exact)
{
    const struct xi_peak *known = known_peak(store, key);
    uint64_t least = 0;

    *ret_exact = known != NULL;
    if (known != NULL)
        return known->bytes;
    for (uint32_t i = 0; i < store->n_peaks; i++) {
        const struct xi_peak *p = &store->peaks[i];
        if (same_kind(p, key) && p->batch >= key->batch && p->instances >= key->instances &&
            (least == 0 || p->bytes < least))
            least = p->bytes;
    }
    return least;
}

/* A place for one more: a new one, or the one that was measured longest ago. */
static struct xi_peak *place(struct xi_store *store)
{
    struct xi_peak *oldest = store->peaks;

    if (store->n_peaks == store->peaks_room && store->peaks_room < XI_PEAKS_MAX) {
        uint32_t room = store->peaks_room == 0 ? 64 : store->peaks_room * 2;
        struct xi_peak *grown = realloc(store->peaks, room * sizeof *grown);
        if (grown != NULL) {
            store->peaks = grown;
            store->peaks_room = room;
        }
    }
    if (store->n_peaks < store->peaks_room)
        return &store->peaks[store->n_peaks++];
    for (uint32_t i = 1; i < store->n_peaks; i++)
        if (store->peaks[i].measured_at_ms < oldest->measured_at_ms)
            oldest = &store->peaks[i];
    return oldest;
}

/* ---- in memory: settings ---- */

static struct xi_setting **at_key(struct xi_store *store, const char *key)
{
    struct xi_setting **at = &store->settings;

    while (*at != NULL && strcmp((*at)->key, key) != 0)
        at = &(*at)->next;
    return at;
}

const char *xi_store_setting(const struct xi_store *store, const char *key)
{
    const struct xi_setting *s = store->settings;

    while (s != NULL && strcmp(s->key, key) != 0)
        s = s->next;
    return s != NULL ? s->value : NULL;
}

static void drop(struct xi_store *store, struct xi_setting **at)
{
    struct xi_setting *old = *at;

    if (old == NULL)
        return;
    *at = old->next;
    store->n_settings--;
    free(old->value);
    free(old);
}

/* one becomes the store's, in the place of what has its key. */
static void keep(struct xi_store *store, struct xi_setting *one)
{
    drop(store, at_key(store, one->key));
    one->next = store->settings;
    store->settings = one;
    store->n_settings++;
}

/* NULL: memory is out. value NULL stays so. */
static struct xi_setting *setting_new(const char *key, const char *value)
{
    struct xi_setting *one = calloc(1, sizeof *one);

    if (one == NULL)
        return NULL;
    (void)snprintf(one->key, sizeof one->key, "%s", key);
    one->value = value != NULL ? strdup(value) : NULL;
    if (value != NULL && one->value == NULL) {
        free(one);
        return NULL;
    }
    return one;
}

/* ---- opening and closing ---- */

static void on_setting(void *ctx, const char *key, const char *value)
{
    struct xi_setting *one = setting_new(key, value);

    if (one != NULL)
        keep(ctx, one);
}

enum xi_rc xi_store_state_read(struct xi_store *store, struct xi_err *err)
{
    struct xi_peak *all = malloc(XI_PEAKS_MAX * sizeof *all);
    uint32_t n = 0;
    enum xi_rc rc;

    if (all == NULL)
        return xi_fail(err, XI_ENOMEM, "store: out of memory");
    rc = xi_catalogue_peaks(store->catalogue, all, XI_PEAKS_MAX, &n, err);
    for (uint32_t i = 0; i < n; i++) {
        struct xi_peak *to = place(store);
        if (to != NULL)
            *to = all[i];
    }
    free(all);
    return rc == XI_OK ? xi_catalogue_settings(store->catalogue, on_setting, store, err) : rc;
}

void xi_store_state_free(struct xi_store *store)
{
    while (store->settings != NULL)
        drop(store, &store->settings);
    free(store->peaks);
    store->peaks = NULL;
    store->n_peaks = store->peaks_room = 0;
}

/* ---- to disk: peaks ---- */

struct peak_job {
    struct xi_store_job job; /* first */
    struct xi_peak peak;
};

static void work_peak(struct xi_store *store, struct xi_store_job *job)
{
    struct peak_job *p = (struct peak_job *)job;

    job->err.rc = xi_catalogue_note_peak(store->catalogue, &p->peak, &job->err);
}

static void done_peak(struct xi_store *store, struct xi_store_job *job)
{
    (void)store;
    if (job->err.rc != XI_OK)
        xi_log(XI_WARN, "store.peak_lost", "why=%s", job->err.msg);
    free(job);
}

void xi_store_note_peak(struct xi_store *store, const struct xi_peak *peak)
{
    struct xi_peak *known = known_peak(store, peak);
    struct peak_job *p = calloc(1, sizeof *p);
    struct timespec now;
    uint64_t before = known != NULL ? known->bytes : 0;

    if (known == NULL)
        known = place(store);
    if (p == NULL || known == NULL) {
        free(p);
        return; /* memory is out: it is measured again next time */
    }
    (void)clock_gettime(CLOCK_REALTIME, &now);
    *known = *peak;
    known->measured_at_ms = (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
    if (known->bytes < before)
        known->bytes = before;
    *p = (struct peak_job){.job = {.work = work_peak, .done = done_peak}, .peak = *known};
    xi_store_submit(store, &p->job);
}

/* ---- to disk: settings ---- */

struct setting_job {
    struct xi_store_job job;    /* first */
    struct xi_setting *setting; /* owned until it is kept */
    struct xi_err refused;      /* why it is not even tried; rc XI_OK: nothing */
    xi_store_cb cb;
    void *ctx;
};

static void work_setting(struct xi_store *store, struct xi_store_job *job)
{
    const struct setting_job *s = (const struct setting_job *)job;

    job->err = s->refused;
    if (job->err.rc == XI_OK)
        job->err.rc =
            xi_catalogue_set(store->catalogue, s->setting->key, s->setting->value, &job->err);
}

static void done_setting(struct xi_store *store, struct xi_store_job *job)
{
    struct setting_job *s = (struct setting_job *)job;
    int good = job->err.rc == XI_OK;

    if (good && s->setting->value != NULL) {
        keep(store, s->setting);
        s->setting = NULL;
    } else if (good) {
        drop(store, at_key(store, s->setting->key));
    }
    if (s->cb != NULL)
        s->cb(s->ctx, good ? NULL : &job->err);
    if (s->setting != NULL)
        free(s->setting->value);
    free(s->setting);
    free(s);
}

static void judge_setting(struct xi_store *store, const struct xi_setting *one, struct xi_err *err)
{
    size_t bytes = one->value != NULL ? strlen(one->value) : 0;

    if (xi_name_check(one->key, "setting", err) != XI_OK)
        return;
    if (bytes > XI_SETTING_MAX)
        (void)xi_fail(err, XI_ETOOBIG, "setting %s has %zu bytes, %llu may be", one->key, bytes,
                      (unsigned long long)XI_SETTING_MAX);
    else if (store->n_settings >= XI_SETTINGS_MAX && *at_key(store, one->key) == NULL)
        (void)xi_fail(err, XI_ETOOBIG, "%u settings are stored, %d may be", store->n_settings,
                      XI_SETTINGS_MAX);
}

void xi_store_setting_put(struct xi_store *store, const char *key, const char *value,
                          xi_store_cb cb, void *ctx)
{
    struct setting_job *s = calloc(1, sizeof *s);
    struct xi_setting *one = s != NULL ? setting_new(key, value) : NULL;

    if (one == NULL) {
        struct xi_err err = {0};
        free(s);
        (void)xi_fail(&err, XI_ENOMEM, "store: out of memory");
        if (cb != NULL)
            cb(ctx, &err);
        return;
    }
    *s = (struct setting_job){.setting = one, .cb = cb, .ctx = ctx};
    s->job.work = work_setting;
    s->job.done = done_setting;
    judge_setting(store, one, &s->refused);
    xi_store_submit(store, &s->job);
}
