/* str.h: a growable byte string born with a cap. One thread at a time.
 *
 * Appending past the cap, or when memory is out, sets `failed` and drops the bytes; so a run of
 * appends is checked once, at the end. The bytes are always NUL-terminated behind len. */
#ifndef XI_BASE_STR_H
#define XI_BASE_STR_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

struct xi_str {
    char *data; /* NULL until the first append */
    size_t len, room, cap;
    int failed;
};

void xi_str_init(struct xi_str *s, size_t cap);
void xi_str_fini(struct xi_str *s);  /* also of a half-built one; usable again after init */
void xi_str_clear(struct xi_str *s); /* keeps the memory */
void xi_str_add(struct xi_str *s, const void *bytes, size_t n);
void xi_str_puts(struct xi_str *s, const char *text);
void xi_str_printf(struct xi_str *s, const char *fmt, ...) XI_PRINTF(2, 3);
/* text as a JSON string with its quotes; invalid UTF-8 becomes U+FFFD. */
void xi_str_json(struct xi_str *s, const char *text);
/* A whole number, with leading zeros up to min_digits; faster than printf. */
void xi_str_uint(struct xi_str *s, uint64_t v, unsigned min_digits);
/* A number as JSON; NaN and infinities become null. 9 significant digits carry any float. */
void xi_str_number(struct xi_str *s, double v, int significant_digits);
/* Room for n more bytes at data + len; the caller then adds to len. NULL when it does not fit. */
char *xi_str_reserve(struct xi_str *s, size_t n);
const char *xi_str_text(const struct xi_str *s); /* "" when nothing was added */
/* Ownership of the bytes moves to the caller (free()); s is empty afterwards. */
char *xi_str_take(struct xi_str *s);
/* XI_OK, ETOOBIG or ENOMEM. */
enum xi_rc xi_str_check(const struct xi_str *s, struct xi_err *err, const char *what) XI_MUST_CHECK;

#endif
