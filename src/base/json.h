/* json.h: small JSON documents (control bodies, manifests, flows, config) over jansson, with
 * limits before anything is built and errors that name the path. Any thread.
 *
 * Tensor data in JSON does not come here: wire/json_pull.h streams it.
 * Getters: `obj` is a JSON object, `path` is where it stands ("models.main"), used in errors. */
#ifndef XI_BASE_JSON_H
#define XI_BASE_JSON_H

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

/* Refuses: over max_bytes, deeper than XI_JSON_DEPTH_MAX, duplicate keys, NUL, invalid UTF-8,
 * anything behind the value. On success *ret is a new reference (json_decref). Fails with EJSON,
 * ETOOBIG or ENOMEM. */
enum xi_rc xi_json_parse(const char *text, size_t bytes, size_t max_bytes, json_t **ret,
                         struct xi_err *err) XI_MUST_CHECK;

/* Each fails with EINVAL when the value is missing and required, or has the wrong type or range.
 * Optional: *ret keeps what it held. Strings are borrowed from obj. */
enum { XI_JSON_OPTIONAL = 0, XI_JSON_REQUIRED = 1 };
enum xi_rc xi_json_string(const json_t *obj, const char *path, const char *key, int required,
                          const char **ret, struct xi_err *err) XI_MUST_CHECK;
enum xi_rc xi_json_int(const json_t *obj, const char *path, const char *key, int required,
                       int64_t min, int64_t max, int64_t *ret, struct xi_err *err) XI_MUST_CHECK;
enum xi_rc xi_json_number(const json_t *obj, const char *path, const char *key, int required,
                          double min, double max, double *ret, struct xi_err *err) XI_MUST_CHECK;
enum xi_rc xi_json_bool(const json_t *obj, const char *path, const char *key, int required,
                        int *ret, struct xi_err *err) XI_MUST_CHECK;
/* Borrowed array or object, NULL when absent and optional. */
enum xi_rc xi_json_array(const json_t *obj, const char *path, const char *key, int required,
                         json_t **ret, struct xi_err *err) XI_MUST_CHECK;
enum xi_rc xi_json_object(const json_t *obj, const char *path, const char *key, int required,
                          json_t **ret, struct xi_err *err) XI_MUST_CHECK;
/* Every key of obj must be in the NULL-terminated list or start with "x-"; the error names the
 * nearest known key. */
enum xi_rc xi_json_known_keys(const json_t *obj, const char *path, const char *const *known,
                              struct xi_err *err) XI_MUST_CHECK;

/* The entry of a NULL-terminated list nearest to word (Damerau-Levenshtein, at most a third of
 * its letters wrong), or NULL. */
const char *xi_nearest(const char *word, const char *const *known);

#endif
