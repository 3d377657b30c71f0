#include "package/manifest_fields.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "package/path.h"

int xi_place_failed(const struct xi_place *p)
{
    return p->reading->rc != XI_OK;
}

void xi_place_bad(const struct xi_place *p, const char *key, const char *fmt, ...)
{
    char what[128];
    va_list ap;

    if (xi_place_failed(p))
        return;
    va_start(ap, fmt);
    (void)vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    p->reading->rc =
        xi_fail(p->reading->err, XI_EPACKAGE, "%s%s%s %s", p->path, *p->path ? "." : "", key, what);
}

void xi_place_keys(const struct xi_place *p, const char *const *known)
{
    const char *key;
    json_t *value;

    if (!xi_place_failed(p))
        p->reading->rc = xi_json_known_keys(p->obj, p->path, known, p->reading->err);
    json_object_foreach(p->obj, key, value) if (json_is_null(value) && strncmp(key, "x-", 2) != 0)
        xi_place_bad(p, key, "is null: leave it out");
}

static int is_printable(const char *text)
{
    for (; *text; text++)
        if ((unsigned char)*text < 0x20 || *text == 0x7f)
            return 0;
    return 1;
}

int xi_text_is_word(const char *text)
{
    for (const char *c = text; *c; c++) {
        int alnum =
            (*c >= '0' && *c <= '9') || (*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z');
        if (!alnum && (c == text || strchr("._-", *c) == NULL))
            return 0;
    }
    return *text != '\0';
}

static void check_text(const struct xi_place *p, const char *key, const char *text, size_t max)
{
    size_t n = strlen(text);

    if (n == 0)
        xi_place_bad(p, key, "is empty");
    else if (n > max)
        xi_place_bad(p, key, "has %zu bytes, at most %zu are allowed", n, max);
    else if (!is_printable(text))
        xi_place_bad(p, key, "has a control character");
}

const char *xi_place_text(const struct xi_place *p, const char *key, int required, size_t max_bytes)
{
    const char *text = NULL;

    if (xi_place_failed(p))
        return NULL;
    p->reading->rc = xi_json_string(p->obj, p->path, key, required, &text, p->reading->err);
    if (xi_place_failed(p) || text == NULL)
        return NULL;
    check_text(p, key, text, max_bytes);
    return xi_place_failed(p) ? NULL : text;
}

const char *xi_place_word(const struct xi_place *p, const char *key, int required, size_t max_bytes)
{
    const char *text = xi_place_text(p, key, required, max_bytes);

    if (text == NULL || xi_text_is_word(text))
        return text;
    xi_place_bad(p, key, "\"%.40s\" may only have letters, digits, '.', '_' and '-'", text);
    return NULL;
}

const char *xi_place_choice(const struct xi_place *p, const char *key, int required,
                            const char *const *choices)
{
    const char *text = xi_place_text(p, key, required, 64);

    if (text == NULL)
        return NULL;
    for (size_t i = 0; choices[i] != NULL; i++)
        if (strcmp(text, choices[i]) == 0)
            return text;
    xi_place_bad(p, key, "\"%.40s\" is not known", text);
    const char *near = xi_nearest(text, choices);
    if (near != NULL)
        (void)xi_hint(p->reading->err, "did you mean \"%s\"?", near);
    return NULL;
}

static void check_path(const struct xi_place *p, const char *key, const char *path)
{
    struct xi_err why = {0};
    enum xi_rc rc = xi_package_path_check(path, strlen(path), &why);

    if (rc == XI_OK)
        rc = xi_package_place_check(path, &why);
    if (rc != XI_OK)
        xi_place_bad(p, key, "names %s", why.msg);
}

const char *xi_place_path(const struct xi_place *p, const char *key, int required,
                          const char *folder)
{
    const char *path = xi_place_text(p, key, required, XI_PACKAGE_PATH_MAX);

    if (path == NULL)
        return NULL;
    check_path(p, key, path);
    if (folder != NULL && strncmp(path, folder, strlen(folder)) != 0)
        xi_place_bad(p, key, "\"%.60s\" must lie below %s", path, folder);
    return xi_place_failed(p) ? NULL : path;
}

int64_t xi_place_int(const struct xi_place *p, const char *key, int64_t min, int64_t max,
                     int64_t fallback)
{
    int64_t v = fallback;

    if (!xi_place_failed(p))
        p->reading->rc =
            xi_json_int(p->obj, p->path, key, XI_JSON_OPTIONAL, min, max, &v, p->reading->err);
    return v;
}

double xi_place_number(const struct xi_place *p, const char *key, double min, double max,
                       double fallback)
{
    double v = fallback;

    if (!xi_place_failed(p))
        p->reading->rc =
            xi_json_number(p->obj, p->path, key, XI_JSON_OPTIONAL, min, max, &v, p->reading->err);
    return v;
}

int xi_place_bool(const struct xi_place *p, const char *key)
{
    int v = 0;

    if (!xi_place_failed(p))
        p->reading->rc = xi_json_bool(p->obj, p->path, key, XI_JSON_OPTIONAL, &v, p->reading->err);
    return v;
}

json_t *xi_place_list(const struct xi_place *p, const char *key, size_t min, size_t max,
                      size_t *ret_n)
{
    json_t *list = NULL;

    *ret_n = 0;
    if (xi_place_failed(p))
        return NULL;
    p->reading->rc = xi_json_array(p->obj, p->path, key, min > 0, &list, p->reading->err);
    size_t n = json_array_size(list);
    if (list != NULL && (n < min || n > max))
        xi_place_bad(p, key, "has %zu members, %zu to %zu are allowed", n, min, max);
    if (xi_place_failed(p) || list == NULL)
        return NULL;
    *ret_n = n;
    return list;
}

static void check_member(const struct xi_place *p, const char *key, const char *text,
                         enum xi_place_kind kind)
{
    check_text(p, key, text, kind == XI_PLACE_TEXT ? 255 : kind == XI_PLACE_WORD ? 63 : 255);
    if (kind == XI_PLACE_WORD && !xi_text_is_word(text))
        xi_place_bad(p, key, "\"%.40s\" may only have letters, digits, '.', '_' and '-'", text);
    if (kind == XI_PLACE_PATH)
        check_path(p, key, text);
}

const char **xi_place_texts(const struct xi_place *p, const char *key, enum xi_place_kind kind,
                            size_t max, size_t *ret_n)
{
    size_t n = 0;
    json_t *list = xi_place_list(p, key, 0, max, &n);
    const char **texts = xi_place_alloc(p, n, sizeof *texts);

    *ret_n = 0;
    if (texts == NULL)
        return NULL;
    for (size_t i = 0; i < n; i++) {
        texts[i] = json_string_value(json_array_get(list, i));
        if (texts[i] == NULL) {
            xi_place_bad(p, key, "must be a list of strings");
            break;
        }
        check_member(p, key, texts[i], kind);
        for (size_t k = 0; k < i; k++)
            if (strcmp(texts[k], texts[i]) == 0)
                xi_place_bad(p, key, "has \"%.60s\" twice", texts[i]);
    }
    if (xi_place_failed(p)) {
        free(texts);
        return NULL;
    }
    *ret_n = n;
    return texts;
}

void *xi_place_alloc(const struct xi_place *p, size_t n, size_t bytes)
{
    if (xi_place_failed(p) || n == 0)
        return NULL;
    void *memory = calloc(n, bytes);
    if (memory == NULL)
        p->reading->rc = xi_fail(p->reading->err, XI_ENOMEM, "manifest: out of memory");
    return memory;
}

int xi_place_object(const struct xi_place *p, const char *key, int required, struct xi_place *ret)
{
    json_t *obj = NULL;

    if (xi_place_failed(p))
        return 0;
    p->reading->rc = xi_json_object(p->obj, p->path, key, required, &obj, p->reading->err);
    if (xi_place_failed(p) || obj == NULL)
        return 0;
    ret->reading = p->reading;
    ret->obj = obj;
    (void)snprintf(ret->path, sizeof ret->path, "%.100s%s%.80s", p->path, *p->path ? "." : "", key);
    return 1;
}

int xi_place_item(const struct xi_place *p, const char *key, json_t *list, size_t i,
                  struct xi_place *ret)
{
    if (xi_place_failed(p))
        return 0;
    ret->reading = p->reading;
    ret->obj = json_array_get(list, i);
    (void)snprintf(ret->path, sizeof ret->path, "%.100s%s%.60s[%zu]", p->path, *p->path ? "." : "",
                   key, i);
    if (!json_is_object(ret->obj)) {
        xi_place_bad(p, key, "must be a list of objects");
        return 0;
    }
    return 1;
}

static void read_shape(const struct xi_place *p, struct xi_port_spec *ret)
{
    json_t *list = NULL;

    ret->rank = -1;
    if (xi_place_failed(p))
        return;
    p->reading->rc =
        xi_json_array(p->obj, p->path, "shape", XI_JSON_OPTIONAL, &list, p->reading->err);
    if (xi_place_failed(p) || list == NULL)
        return;
    size_t rank = json_array_size(list);
    if (rank > XI_MAX_RANK) {
        xi_place_bad(p, "shape", "has %zu dimensions, at most %d are allowed", rank, XI_MAX_RANK);
        return;
    }
    for (size_t i = 0; i < rank; i++) {
        const json_t *dim = json_array_get(list, i);
        int64_t v = json_is_integer(dim) ? json_integer_value(dim) : -2;
        if (v < -1 || v > INT32_MAX)
            xi_place_bad(p, "shape", "must hold whole numbers from 0 to %d, or -1 for any",
                         INT32_MAX);
        ret->dims[i] = v;
    }
    ret->rank = (int32_t)rank;
}

void xi_place_port(const struct xi_place *p, struct xi_port_spec *ret)
{
    const char *name = xi_place_text(p, "name", XI_JSON_REQUIRED, XI_TENSOR_NAME_MAX - 1);
    const char *dtype = xi_place_text(p, "dtype", XI_JSON_REQUIRED, 16);

    read_shape(p, ret);
    if (xi_place_failed(p))
        return;
    memcpy(ret->name, name, strlen(name) + 1);
    ret->dtype = xi_dtype_parse(dtype);
    if (ret->dtype == XI_DT_UNKNOWN)
        xi_place_bad(p, "dtype", "\"%.20s\" is not known (FP32, UINT8, INT64, …)", dtype);
}
