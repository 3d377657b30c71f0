/* json_pull.h: reads a JSON text (RFC 8259) token by token, in one pass, without memory of its own
 * and without recursion. Pure, any thread.
 *
 * Checked while reading: grammar, UTF-8, surrogate pairs, control characters, depth
 * (XI_JSON_DEPTH_MAX), length of a number. After XI_TOKEN_ERROR only errors follow. */
#ifndef XI_WIRE_JSON_PULL_H
#define XI_WIRE_JSON_PULL_H

#include <stddef.h>
#include <stdint.h>

#include "base/limits.h"
#include "base/status.h"

#define XI_JSON_NUMBER_MAX 1024 /* characters of one number */

enum xi_json_token {
    XI_TOKEN_ERROR = -1,
    XI_TOKEN_END = 0, /* the value is complete and nothing stands behind it */
    XI_TOKEN_OBJECT,
    XI_TOKEN_OBJECT_END,
    XI_TOKEN_ARRAY,
    XI_TOKEN_ARRAY_END,
    XI_TOKEN_KEY,
    XI_TOKEN_STRING,
    XI_TOKEN_NUMBER,
    XI_TOKEN_TRUE,
    XI_TOKEN_FALSE,
    XI_TOKEN_NULL
};

struct xi_json_pull {
    const char *start, *p, *end;
    uint64_t is_object; /* bit d: the container at depth d + 1 is an object */
    unsigned depth;
    int expect;       /* what may come next (private) */
    const char *text; /* KEY, STRING: between the quotes, escapes as they stand; NUMBER: all */
    size_t text_len;
    int escaped;       /* KEY, STRING: holds a backslash */
    struct xi_err err; /* of XI_TOKEN_ERROR: EJSON with the byte's position */
};

void xi_json_pull_init(struct xi_json_pull *j, const char *text, size_t bytes);
enum xi_json_token xi_json_pull_next(struct xi_json_pull *j);
/* Passes over the value that `first` began (a scalar is over already). The last token of it. */
enum xi_json_token xi_json_pull_skip(struct xi_json_pull *j, enum xi_json_token first);
/* After XI_TOKEN_ERROR: EJSON, and err (NULL is fine) says where. */
enum xi_rc xi_json_pull_failed(const struct xi_json_pull *j, struct xi_err *err) XI_MUST_CHECK;
/* 1 when the current KEY or STRING equals text. */
int xi_json_pull_is(const struct xi_json_pull *j, const char *text);
/* The current KEY or STRING with its escapes resolved. dst NULL: only its length. Fails with
 * ETOOBIG when it does not fit into room (no terminator is written). */
enum xi_rc xi_json_pull_text(const struct xi_json_pull *j, char *dst, size_t room, size_t *ret,
                             struct xi_err *err) XI_MUST_CHECK;

/* A number as JSON writes it, correctly rounded: exactly by Clinger's fast path ("How to read
 * floating point numbers accurately", 1990) where mantissa and power of ten are exact doubles,
 * else by the C library. Infinite when it is too large. */
double xi_json_double(const char *text, size_t n);
/* Whole numbers: 0 on success, -1 when it is not one or does not fit. "-0" is 0; "1.0" and "1e3"
 * are whole too. */
int xi_json_int64(const char *text, size_t n, int64_t *ret);
int xi_json_uint64(const char *text, size_t n, uint64_t *ret);

/* Bytes of the valid UTF-8 sequence (RFC 3629) that starts at p, 0 when it is none. left ≥ 1. */
size_t xi_utf8_length(const uint8_t *p, size_t left);

#endif
