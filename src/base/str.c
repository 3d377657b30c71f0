#include "base/str.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FAIL_CAP = 1, FAIL_MEMORY = 2 };

void xi_str_init(struct xi_str *s, size_t cap)
{
    *s = (struct xi_str){.cap = cap};
}

void xi_str_fini(struct xi_str *s)
{
    free(s->data);
    *s = (struct xi_str){.cap = s->cap};
}

void xi_str_clear(struct xi_str *s)
{
    s->len = 0;
    s->failed = 0;
    if (s->data != NULL)
        s->data[0] = '\0';
}

static int grow(struct xi_str *s, size_t want)
{
    size_t room = s->room ? s->room : 256;

    while (room < want)
        room += room / 2 + 64;
    if (room > s->cap + 1)
        room = s->cap + 1;
    char *data = realloc(s->data, room);
    if (data == NULL) {
        s->failed = FAIL_MEMORY;
        return -1;
    }
    s->data = data;
    s->room = room;
    return 0;
}

char *xi_str_reserve(struct xi_str *s, size_t n)
{
    if (s->failed)
        return NULL;
    if (n > s->cap - s->len) {
        s->failed = FAIL_CAP;
        return NULL;
    }
    if (s->len + n + 1 > s->room && grow(s, s->len + n + 1) != 0)
        return NULL;
    return s->data + s->len;
}

void xi_str_add(struct xi_str *s, const void *bytes, size_t n)
{
    char *dst = xi_str_reserve(s, n);

    if (dst == NULL)
        return;
    if (n > 0)
        memcpy(dst, bytes, n);
    s->len += n;
    s->data[s->len] = '\0';
}

void xi_str_puts(struct xi_str *s, const char *text)
{
    xi_str_add(s, text, strlen(text));
}

void xi_str_printf(struct xi_str *s, const char *fmt, ...)
{
    size_t room = s->failed || s->data == NULL ? 0 : s->room - s->len; /* often it just fits */
    va_list ap, again;

    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(room ? s->data + s->len : NULL, room, fmt, ap);
    if (n >= 0 && (size_t)n < room) {
        s->len += (size_t)n;
    } else {
        if (room)
            s->data[s->len] = '\0'; /* what was cut off does not count */
        char *dst = n < 0 ? NULL : xi_str_reserve(s, (size_t)n);
        if (dst != NULL) {
            (void)vsnprintf(dst, (size_t)n + 1, fmt, again);
            s->len += (size_t)n;
        }
    }
    va_end(again);
    va_end(ap);
}

/* Length of the valid UTF-8 sequence at p (0 when it is not one). p is NUL-terminated. */
static size_t utf8_len(const unsigned char *p)
{
    if (p[0] < 0x80)
        return 1;
    if (p[0] >= 0xc2 && p[0] <= 0xdf && (p[1] & 0xc0) == 0x80)
        return 2;
    if ((p[0] & 0xf0) == 0xe0 && (p[1] & 0xc0) == 0x80 && (p[2] & 0xc0) == 0x80) {
        int overlong = p[0] == 0xe0 && p[1] < 0xa0, surrogate = p[0] == 0xed && p[1] > 0x9f;
        return overlong || surrogate ? 0 : 3;
    }
    if (p[0] >= 0xf0 && p[0] <= 0xf4 && (p[1] & 0xc0) == 0x80 && (p[2] & 0xc0) == 0x80 &&
        (p[3] & 0xc0) == 0x80) {
        int overlong = p[0] == 0xf0 && p[1] < 0x90, beyond = p[0] == 0xf4 && p[1] > 0x8f;
        return overlong || beyond ? 0 : 4;
    }
    return 0;
}

static int is_plain(const unsigned char *p, size_t sequence)
{
    return sequence > 1 || (sequence == 1 && *p >= 0x20 && *p != 0x7f && *p != '"' && *p != '\\');
}

void xi_str_json(struct xi_str *s, const char *text)
{
    const unsigned char *p = (const unsigned char *)text, *run = p;

    xi_str_add(s, "\"", 1);
    while (*p) {
        size_t n = utf8_len(p);
        if (is_plain(p, n)) { /* copied with its neighbours */
            p += n;
            continue;
        }
        xi_str_add(s, run, (size_t)(p - run));
        if (n == 0)
            xi_str_puts(s, "\\ufffd");
        else if (*p == '"' || *p == '\\')
            xi_str_printf(s, "\\%c", *p);
        else
            xi_str_printf(s, "\\u%04x", *p);
        run = ++p;
    }
    xi_str_add(s, run, (size_t)(p - run));
    xi_str_add(s, "\"", 1);
}

void xi_str_uint(struct xi_str *s, uint64_t v, unsigned min_digits)
{
    char text[24], *p = text + sizeof text;
    unsigned digits = 0;

    while (v > 0 || digits < min_digits || digits == 0) {
        *--p = (char)('0' + v % 10);
        v /= 10;
        if (++digits == sizeof text)
            break;
    }
    xi_str_add(s, p, digits);
}

/* What printf's %g says of a v of usual size, in a fraction of its time. 0: it must be asked. */
static int add_usual(struct xi_str *s, double v, int significant_digits)
{
    static const double ten[] = {1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12};
    int fraction = significant_digits; /* digits behind the point */

    if (significant_digits < 1 || significant_digits > 9 || v >= ten[significant_digits])
        return 0;
    if (v != 0 && v < 1e-4)
        return 0;
    for (int i = 0; v >= ten[i]; i++)
        fraction--;
    for (double least = 0.1; v != 0 && v < least && fraction < 12; least /= 10)
        fraction++;
    double scaled = v * ten[fraction], down = floor(scaled), rest = scaled - down;
    uint64_t digits = (uint64_t)down + (rest > 0.5), point = (uint64_t)ten[fraction];
    if (fabs(rest - 0.5) < 1e-3 || (double)digits >= ten[significant_digits])
        return 0; /* the product's own error could turn it; one digit more */
    xi_str_uint(s, digits / point, 1);
    digits %= point;
    if (digits == 0)
        return 1;
    for (; digits % 10 == 0; digits /= 10)
        fraction--;
    xi_str_add(s, ".", 1);
    xi_str_uint(s, digits, (unsigned)fraction);
    return 1;
}

void xi_str_number(struct xi_str *s, double v, int significant_digits)
{
    if (!isfinite(v)) {
        xi_str_puts(s, "null");
        return;
    }
    size_t at = s->len;
    if (signbit(v))
        xi_str_add(s, "-", 1);
    if (add_usual(s, fabs(v), significant_digits))
        return;
    s->len = at;
    xi_str_printf(s, "%.*g", significant_digits, v);
}

const char *xi_str_text(const struct xi_str *s)
{
    return s->data ? s->data : "";
}

char *xi_str_take(struct xi_str *s)
{
    char *data = s->data;

    *s = (struct xi_str){.cap = s->cap};
    return data;
}

enum xi_rc xi_str_check(const struct xi_str *s, struct xi_err *err, const char *what)
{
    if (s->failed == FAIL_CAP)
        return xi_fail(err, XI_ETOOBIG, "%s: over %zu bytes", what, s->cap);
    if (s->failed == FAIL_MEMORY)
        return xi_fail(err, XI_ENOMEM, "%s: out of memory at %zu bytes", what, s->len);
    return XI_OK;
}
