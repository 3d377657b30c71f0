/* manifest_fields.h: reading one JSON object after another with an error that sticks: after the
 * first failure every call does nothing and returns nothing, so a run of reads is checked once.
 * Private to manifest*.c and recipe.c. One thread. */
#ifndef XI_PACKAGE_MANIFEST_FIELDS_H
#define XI_PACKAGE_MANIFEST_FIELDS_H

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

#include "base/json.h"
#include "base/status.h"
#include "core/tensor.h"

struct xi_reading {
    enum xi_rc rc;
    struct xi_err *err;
};

/* An object and where it stands ("models.main.variants[0]"). */
struct xi_place {
    struct xi_reading *reading;
    json_t *obj; /* borrowed */
    char path[192];
};

int xi_place_failed(const struct xi_place *p);
/* EPACKAGE "path.key …" unless something failed before. */
void xi_place_bad(const struct xi_place *p, const char *key, const char *fmt, ...) XI_PRINTF(3, 4);
/* Every key is known or starts with "x-", none is null. */
void xi_place_keys(const struct xi_place *p, const char *const *known);

/* Printable UTF-8 of 1..max_bytes; NULL when absent. */
const char *xi_place_text(const struct xi_place *p, const char *key, int required,
                          size_t max_bytes);
/* [A-Za-z0-9._-], starting with a letter or digit. */
const char *xi_place_word(const struct xi_place *p, const char *key, int required,
                          size_t max_bytes);
/* One of a NULL-terminated list; a miss hints at the nearest. */
const char *xi_place_choice(const struct xi_place *p, const char *key, int required,
                            const char *const *choices);
/* An entry's path; below `folder` ("assets/") when that is not NULL. */
const char *xi_place_path(const struct xi_place *p, const char *key, int required,
                          const char *folder);
int64_t xi_place_int(const struct xi_place *p, const char *key, int64_t min, int64_t max,
                     int64_t fallback);
double xi_place_number(const struct xi_place *p, const char *key, double min, double max,
                       double fallback);
int xi_place_bool(const struct xi_place *p, const char *key);

/* A list of min..max members, or NULL with *ret_n 0. */
json_t *xi_place_list(const struct xi_place *p, const char *key, size_t min, size_t max,
                      size_t *ret_n);
/* A list of texts, each distinct; the array is the caller's to free. */
enum xi_place_kind { XI_PLACE_TEXT, XI_PLACE_WORD, XI_PLACE_PATH };
const char **xi_place_texts(const struct xi_place *p, const char *key, enum xi_place_kind kind,
                            size_t max, size_t *ret_n);
/* Zeroed; NULL when n is 0 or memory is out (which fails). */
void *xi_place_alloc(const struct xi_place *p, size_t n, size_t bytes);

/* The child object: 1 when there is one. */
int xi_place_object(const struct xi_place *p, const char *key, int required, struct xi_place *ret);
/* Member i of a list, which must be an object. */
int xi_place_item(const struct xi_place *p, const char *key, json_t *list, size_t i,
                  struct xi_place *ret);
/* {"name", "dtype", "shape"}: shape may hold -1, absent it is any rank. Reads only these. */
void xi_place_port(const struct xi_place *p, struct xi_port_spec *ret);

int xi_text_is_word(const char *text);

#endif
