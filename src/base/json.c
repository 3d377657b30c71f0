#include "base/json.h"

#include <stdlib.h>
#include <string.h>

#include "base/limits.h"

/* Depth is bounded before jansson sees the text: one pass, no memory. */
static enum xi_rc check_depth(const char *text, size_t bytes, struct xi_err *err)
{
    int depth = 0, in_string = 0;

    for (size_t i = 0; i < bytes; i++) {
        char c = text[i];
        if (in_string) {
            if (c == '\\')
                i++;
            else if (c == '"')
                in_string = 0;
        } else if (c == '"') {
            in_string = 1;
        } else if (c == '[' || c == '{') {
            if (++depth > XI_JSON_DEPTH_MAX)
                return xi_fail(err, XI_EJSON, "nested deeper than %d levels", XI_JSON_DEPTH_MAX);
        } else if (c == ']' || c == '}') {
            depth--;
        }
    }
    return XI_OK;
}

/* jansson calls a lack of memory a syntax error, or silently cuts a string short. So its
 * allocations note that they failed, for the parse that runs on the thread. */
static _Thread_local int out_of_memory;

static void *noting_malloc(size_t bytes)
{
    void *p = malloc(bytes);

    if (p == NULL)
        out_of_memory = 1;
    return p;
}

/* Before main, and so before any thread. */
static void __attribute__((constructor)) note_allocations(void)
{
    json_set_alloc_funcs(noting_malloc, free);
}

enum xi_rc xi_json_parse(const char *text, size_t bytes, size_t max_bytes, json_t **ret,
                         struct xi_err *err)
{
    json_error_t je;

    if (bytes > max_bytes)
        return xi_fail(err, XI_ETOOBIG, "JSON of %zu bytes, the limit is %zu", bytes, max_bytes);
    enum xi_rc rc = check_depth(text, bytes, err);
    if (rc != XI_OK)
        return rc;
    out_of_memory = 0;
    json_t *value = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &je);
    if (out_of_memory) {
        json_decref(value);
        return xi_fail(err, XI_ENOMEM, "no memory to read JSON of %zu bytes", bytes);
    }
    if (value == NULL)
        return xi_fail(err, XI_EJSON, "line %d, column %d: %s", je.line, je.column, je.text);
    *ret = value;
    return XI_OK;
}

/* Finds obj[key]; EINVAL when it is required and absent. JSON null counts as absent. */
static enum xi_rc lookup(const json_t *obj, const char *path, const char *key, int required,
                         json_t **ret, struct xi_err *err)
{
    json_t *v = json_object_get(obj, key);

    if (json_is_null(v))
        v = NULL;
    if (v == NULL && required)
        return xi_fail(err, XI_EINVAL, "%s%s%s is missing", path, *path ? "." : "", key);
    *ret = v;
    return XI_OK;
}

static enum xi_rc wrong_type(const char *path, const char *key, const char *want,
                             struct xi_err *err)
{
    return xi_fail(err, XI_EINVAL, "%s%s%s must be %s", path, *path ? "." : "", key, want);
}

enum xi_rc xi_json_string(const json_t *obj, const char *path, const char *key, int required,
                          const char **ret, struct xi_err *err)
{
    json_t *v = NULL;
    enum xi_rc rc = lookup(obj, path, key, required, &v, err);

    if (rc != XI_OK || v == NULL)
        return rc;
    if (!json_is_string(v))
        return wrong_type(path, key, "a string", err);
    *ret = json_string_value(v);
    return XI_OK;
}

enum xi_rc xi_json_int(const json_t *obj, const char *path, const char *key, int required,
                       int64_t min, int64_t max, int64_t *ret, struct xi_err *err)
{
    json_t *v = NULL;
    enum xi_rc rc = lookup(obj, path, key, required, &v, err);

    if (rc != XI_OK || v == NULL)
        return rc;
    if (!json_is_integer(v))
        return wrong_type(path, key, "a whole number", err);
    int64_t n = json_integer_value(v);
    if (n < min || n > max)
        return xi_fail(err, XI_EINVAL, "%s%s%s is %lld, allowed is %lld to %lld", path,
                       *path ? "." : "", key, (long long)n, (long long)min, (long long)max);
    *ret = n;
    return XI_OK;
}

enum xi_rc xi_json_number(const json_t *obj, const char *path, const char *key, int required,
                          double min, double max, double *ret, struct xi_err *err)
{
    json_t *v = NULL;
    enum xi_rc rc = lookup(obj, path, key, required, &v, err);

    if (rc != XI_OK || v == NULL)
        return rc;
    if (!json_is_number(v))
        return wrong_type(path, key, "a number", err);
    double d = json_number_value(v);
    if (!(d >= min && d <= max))
        return xi_fail(err, XI_EINVAL, "%s%s%s is %g, allowed is %g to %g", path, *path ? "." : "",
                       key, d, min, max);
    *ret = d;
    return XI_OK;
}

enum xi_rc xi_json_bool(const json_t *obj, const char *path, const char *key, int required,
                        int *ret, struct xi_err *err)
{
    json_t *v = NULL;
    enum xi_rc rc = lookup(obj, path, key, required, &v, err);

    if (rc != XI_OK || v == NULL)
        return rc;
    if (!json_is_boolean(v))
        return wrong_type(path, key, "true or false", err);
    *ret = json_is_true(v);
    return XI_OK;
}

enum xi_rc xi_json_array(const json_t *obj, const char *path, const char *key, int required,
                         json_t **ret, struct xi_err *err)
{
    json_t *v = NULL;
    enum xi_rc rc = lookup(obj, path, key, required, &v, err);

    if (rc != XI_OK)
        return rc;
    if (v != NULL && !json_is_array(v))
        return wrong_type(path, key, "an array", err);
    *ret = v;
    return XI_OK;
}

enum xi_rc xi_json_object(const json_t *obj, const char *path, const char *key, int required,
                          json_t **ret, struct xi_err *err)
{
    json_t *v = NULL;
    enum xi_rc rc = lookup(obj, path, key, required, &v, err);

    if (rc != XI_OK)
        return rc;
    if (v != NULL && !json_is_object(v))
        return wrong_type(path, key, "an object", err);
    *ret = v;
    return XI_OK;
}

static int listed(const char *key, const char *const *known)
{
    for (; *known; known++)
        if (strcmp(key, *known) == 0)
            return 1;
    return 0;
}

enum xi_rc xi_json_known_keys(const json_t *obj, const char *path, const char *const *known,
                              struct xi_err *err)
{
    const char *key;
    json_t *value;

    json_object_foreach((json_t *)(uintptr_t)obj, key, value)
    {
        if (strncmp(key, "x-", 2) == 0 || listed(key, known))
            continue;
        const char *near = xi_nearest(key, known);
        enum xi_rc rc =
            xi_fail(err, XI_EINVAL, "%s%sunknown key \"%.64s\"", path, *path ? ": " : "", key);
        if (near != NULL && err != NULL)
            (void)xi_hint(err, "did you mean \"%s\"?", near);
        return rc;
    }
    return XI_OK;
}

enum { WORD_MAX = 48 };

static size_t min3(size_t a, size_t b, size_t c)
{
    size_t m = a < b ? a : b;

    return m < c ? m : c;
}

/* Optimal string alignment distance (Damerau-Levenshtein without repeated edits). */
static size_t edit_distance(const char *a, const char *b)
{
    size_t d[WORD_MAX + 1][WORD_MAX + 1], n = strlen(a), m = strlen(b);

    if (n > WORD_MAX || m > WORD_MAX)
        return WORD_MAX + 1;
    for (size_t i = 0; i <= n; i++)
        for (size_t j = 0; j <= m; j++) {
            if (i == 0 || j == 0) {
                d[i][j] = i + j;
                continue;
            }
            size_t swap = a[i - 1] != b[j - 1];
            d[i][j] = min3(d[i - 1][j] + 1, d[i][j - 1] + 1, d[i - 1][j - 1] + swap);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] &&
                d[i - 2][j - 2] + 1 < d[i][j])
                d[i][j] = d[i - 2][j - 2] + 1;
        }
    return d[n][m];
}

const char *xi_nearest(const char *word, const char *const *known)
{
    const char *best = NULL;
    size_t best_distance = strlen(word) / 3 + 2;

    for (; *known; known++) {
        size_t distance = edit_distance(word, *known);
        if (distance < best_distance) {
            best_distance = distance;
            best = *known;
        }
    }
    return best;
}
