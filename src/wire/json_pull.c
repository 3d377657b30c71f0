#include "wire/json_pull.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum expect {
    WANT_VALUE,        /* a value must come */
    WANT_VALUE_OR_END, /* right behind [ */
    WANT_KEY_OR_END,   /* right behind { */
    WANT_KEY,          /* behind , in an object */
    WANT_COMMA_OR_END,
    WANT_NOTHING, /* the text's value is complete */
    FAILED
};

void xi_json_pull_init(struct xi_json_pull *j, const char *text, size_t bytes)
{
    *j = (struct xi_json_pull){.start = text, .p = text, .end = text + bytes};
}

static enum xi_json_token fail(struct xi_json_pull *j, const char *what)
{
    j->expect = FAILED;
    (void)xi_fail(&j->err, XI_EJSON, "%s at byte %zu", what, (size_t)(j->p - j->start));
    return XI_TOKEN_ERROR;
}

static void skip_space(struct xi_json_pull *j)
{
    while (j->p < j->end && (*j->p == ' ' || *j->p == '\n' || *j->p == '\r' || *j->p == '\t'))
        j->p++;
}

static void value_done(struct xi_json_pull *j)
{
    j->expect = j->depth == 0 ? WANT_NOTHING : WANT_COMMA_OR_END;
}

static int hex4(const char *p, const char *end)
{
    int v = 0;

    if (end - p < 4)
        return -1;
    for (int i = 0; i < 4; i++) {
        char c = p[i];
        int d = c >= '0' && c <= '9'   ? c - '0'
                : c >= 'a' && c <= 'f' ? c - 'a' + 10
                : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                       : -1;
        if (d < 0)
            return -1;
        v = v * 16 + d;
    }
    return v;
}

size_t xi_utf8_length(const uint8_t *p, size_t left)
{
    if (p[0] < 0x80)
        return 1;
    if (p[0] >= 0xc2 && p[0] <= 0xdf)
        return left >= 2 && (p[1] & 0xc0) == 0x80 ? 2 : 0;
    if (left >= 3 && (p[0] & 0xf0) == 0xe0) {
        uint8_t low = p[0] == 0xe0 ? 0xa0 : 0x80, high = p[0] == 0xed ? 0x9f : 0xbf;
        return p[1] >= low && p[1] <= high && (p[2] & 0xc0) == 0x80 ? 3 : 0;
    }
    if (left >= 4 && p[0] >= 0xf0 && p[0] <= 0xf4) {
        uint8_t low = p[0] == 0xf0 ? 0x90 : 0x80, high = p[0] == 0xf4 ? 0x8f : 0xbf;
        int first = p[1] >= low && p[1] <= high;
        return first && (p[2] & 0xc0) == 0x80 && (p[3] & 0xc0) == 0x80 ? 4 : 0;
    }
    return 0;
}

/* j->p stands on the backslash; moves behind the escape. NULL or what is wrong. */
static const char *scan_escape(struct xi_json_pull *j)
{
    j->escaped = 1;
    if (j->end - j->p < 2)
        return "string without end";
    char c = j->p[1];
    if (c != 'u') {
        if (c == '\0' || strchr("\"\\/bfnrt", c) == NULL)
            return "unknown escape";
        j->p += 2;
        return NULL;
    }
    int unit = hex4(j->p + 2, j->end);
    if (unit < 0)
        return "\\u needs four hex digits";
    if (unit >= 0xdc00 && unit <= 0xdfff)
        return "lone surrogate";
    if (unit >= 0xd800 && unit <= 0xdbff) {
        int low =
            j->end - j->p >= 12 && j->p[6] == '\\' && j->p[7] == 'u' ? hex4(j->p + 8, j->end) : -1;
        if (low < 0xdc00 || low > 0xdfff)
            return "lone surrogate";
        j->p += 6;
    }
    j->p += 6;
    return NULL;
}

/* j->p stands behind the opening quote; moves behind the closing one. NULL or what is wrong. */
static const char *scan_string(struct xi_json_pull *j)
{
    j->text = j->p;
    j->escaped = 0;
    while (j->p < j->end) {
        unsigned char c = (unsigned char)*j->p;
        if (c == '"') {
            j->text_len = (size_t)(j->p - j->text);
            j->p++;
            return NULL;
        }
        if (c < 0x20)
            return "control character in a string";
        if (c == '\\') {
            const char *wrong = scan_escape(j);
            if (wrong != NULL)
                return wrong;
        } else if (c < 0x80) {
            j->p++;
        } else {
            size_t n = xi_utf8_length((const uint8_t *)j->p, (size_t)(j->end - j->p));
            if (n == 0)
                return "invalid UTF-8";
            j->p += n;
        }
    }
    return "string without end";
}

static size_t digits(const char *p, const char *end)
{
    const char *q = p;

    while (q < end && *q >= '0' && *q <= '9')
        q++;
    return (size_t)(q - p);
}

static enum xi_json_token scan_number(struct xi_json_pull *j)
{
    const char *p = j->p, *end = j->end;

    if (end - p > XI_JSON_NUMBER_MAX)
        end = p + XI_JSON_NUMBER_MAX;
    p += p < end && *p == '-';
    size_t n = digits(p, end);
    if (n == 0 || (n > 1 && *p == '0'))
        return fail(j, "malformed number");
    p += n;
    if (p < end && *p == '.') {
        n = digits(p + 1, end);
        if (n == 0)
            return fail(j, "malformed number");
        p += 1 + n;
    }
    if (p < end && (*p == 'e' || *p == 'E')) {
        p++;
        p += p < end && (*p == '+' || *p == '-');
        n = digits(p, end);
        if (n == 0)
            return fail(j, "malformed number");
        p += n;
    }
    if (p - j->p >= XI_JSON_NUMBER_MAX)
        return fail(j, "number of 1024 characters or more");
    j->text = j->p;
    j->text_len = (size_t)(p - j->p);
    j->p = p;
    value_done(j);
    return XI_TOKEN_NUMBER;
}

static enum xi_json_token scan_word(struct xi_json_pull *j, const char *word,
                                    enum xi_json_token token)
{
    size_t n = strlen(word);

    if ((size_t)(j->end - j->p) < n || memcmp(j->p, word, n) != 0)
        return fail(j, "unknown word");
    j->p += n;
    value_done(j);
    return token;
}

static enum xi_json_token open_container(struct xi_json_pull *j, int object)
{
    if (j->depth == XI_JSON_DEPTH_MAX)
        return fail(j, "nested deeper than 64 levels");
    j->is_object &= ~(1ull << j->depth);
    j->is_object |= (uint64_t)object << j->depth;
    j->depth++;
    j->p++;
    j->expect = object ? WANT_KEY_OR_END : WANT_VALUE_OR_END;
    return object ? XI_TOKEN_OBJECT : XI_TOKEN_ARRAY;
}

static enum xi_json_token close_container(struct xi_json_pull *j)
{
    j->depth--;
    j->p++;
    int object = (int)(j->is_object >> j->depth & 1);
    value_done(j);
    return object ? XI_TOKEN_OBJECT_END : XI_TOKEN_ARRAY_END;
}

static enum xi_json_token scan_value(struct xi_json_pull *j)
{
    const char *wrong;

    switch (*j->p) {
    case '{':
        return open_container(j, 1);
    case '[':
        return open_container(j, 0);
    case '"':
        j->p++;
        wrong = scan_string(j);
        if (wrong != NULL)
            return fail(j, wrong);
        value_done(j);
        return XI_TOKEN_STRING;
    case 't':
        return scan_word(j, "true", XI_TOKEN_TRUE);
    case 'f':
        return scan_word(j, "false", XI_TOKEN_FALSE);
    case 'n':
        return scan_word(j, "null", XI_TOKEN_NULL);
    default:
        return scan_number(j);
    }
}

static enum xi_json_token scan_key(struct xi_json_pull *j)
{
    if (*j->p != '"')
        return fail(j, "a key must be a string");
    j->p++;
    const char *wrong = scan_string(j);
    if (wrong != NULL)
        return fail(j, wrong);
    skip_space(j);
    if (j->p == j->end || *j->p != ':')
        return fail(j, "no colon behind a key");
    j->p++;
    j->expect = WANT_VALUE;
    return XI_TOKEN_KEY;
}

enum xi_json_token xi_json_pull_next(struct xi_json_pull *j)
{
    if (j->expect == FAILED)
        return XI_TOKEN_ERROR;
    skip_space(j);
    if (j->expect == WANT_NOTHING)
        return j->p == j->end ? XI_TOKEN_END : fail(j, "something stands behind the value");
    if (j->p == j->end)
        return fail(j, "text ends early");
    int object = j->depth > 0 && (j->is_object >> (j->depth - 1) & 1);
    char close = object ? '}' : ']';
    if (j->expect == WANT_COMMA_OR_END) {
        if (*j->p == close)
            return close_container(j);
        if (*j->p != ',')
            return fail(j, "no comma between two values");
        j->p++;
        skip_space(j);
        if (j->p == j->end)
            return fail(j, "text ends early");
        return object ? scan_key(j) : scan_value(j);
    }
    if (j->expect == WANT_KEY_OR_END || j->expect == WANT_VALUE_OR_END) {
        if (*j->p == close)
            return close_container(j);
    }
    return j->expect == WANT_KEY_OR_END || j->expect == WANT_KEY ? scan_key(j) : scan_value(j);
}

enum xi_json_token xi_json_pull_skip(struct xi_json_pull *j, enum xi_json_token first)
{
    enum xi_json_token t = first;

    if (first != XI_TOKEN_OBJECT && first != XI_TOKEN_ARRAY)
        return first;
    unsigned until = j->depth - 1;
    while (t != XI_TOKEN_ERROR && j->depth > until)
        t = xi_json_pull_next(j);
    return t;
}

static size_t put_utf8(uint32_t c, char out[4])
{
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        out[0] = (char)(0xc0 | c >> 6);
        out[1] = (char)(0x80 | (c & 0x3f));
        return 2;
    }
    if (c < 0x10000) {
        out[0] = (char)(0xe0 | c >> 12);
        out[1] = (char)(0x80 | (c >> 6 & 0x3f));
        out[2] = (char)(0x80 | (c & 0x3f));
        return 3;
    }
    out[0] = (char)(0xf0 | c >> 18);
    out[1] = (char)(0x80 | (c >> 12 & 0x3f));
    out[2] = (char)(0x80 | (c >> 6 & 0x3f));
    out[3] = (char)(0x80 | (c & 0x3f));
    return 4;
}

/* One escape that scan_escape has accepted; returns how many characters of text it takes. */
static size_t resolve_escape(const char *p, const char *end, char out[4], size_t *ret_n)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";

    if (p[1] != 'u') {
        out[0] = to[strchr(from, p[1]) - from];
        *ret_n = 1;
        return 2;
    }
    uint32_t c = (uint32_t)hex4(p + 2, end);
    if (c < 0xd800 || c > 0xdbff) {
        *ret_n = put_utf8(c, out);
        return 6;
    }
    uint32_t low = (uint32_t)hex4(p + 8, end);
    *ret_n = put_utf8(0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00), out);
    return 12;
}

enum xi_rc xi_json_pull_text(const struct xi_json_pull *j, char *dst, size_t room, size_t *ret,
                             struct xi_err *err)
{
    const char *p = j->text, *end = j->text + j->text_len;
    size_t len = 0;

    while (p < end) {
        char out[4];
        size_t n = 1, used = 1;
        out[0] = *p;
        if (*p == '\\')
            used = resolve_escape(p, end, out, &n);
        if (dst != NULL) {
            if (n > room - len)
                return xi_fail(err, XI_ETOOBIG, "string longer than %zu bytes", room);
            memcpy(dst + len, out, n);
        }
        len += n;
        p += used;
    }
    *ret = len;
    return XI_OK;
}

enum xi_rc xi_json_pull_failed(const struct xi_json_pull *j, struct xi_err *err)
{
    if (err != NULL)
        *err = j->err;
    return XI_EJSON;
}

int xi_json_pull_is(const struct xi_json_pull *j, const char *text)
{
    char plain[64];
    size_t n = strlen(text), len = 0;

    if (!j->escaped)
        return j->text_len == n && memcmp(j->text, text, n) == 0;
    return xi_json_pull_text(j, plain, sizeof plain, &len, NULL) == XI_OK && len == n &&
           memcmp(plain, text, n) == 0;
}

/* sign × mantissa × 10^exponent; exact: all digits are in the mantissa. */
struct decimal {
    int negative, exact;
    uint64_t mantissa;
    int exponent;
};

/* Everything that matters of an exponent fits into an int. */
static int read_exponent(const char *p, const char *end)
{
    int negative = *p == '-', v = 0;

    p += *p == '-' || *p == '+';
    for (; p < end; p++)
        if (v < 100000)
            v = v * 10 + (*p - '0');
    return negative ? -v : v;
}

static void read_decimal(const char *p, const char *end, struct decimal *d)
{
    int fraction = 0;

    *d = (struct decimal){.exact = 1};
    if (p < end && *p == '-') {
        d->negative = 1;
        p++;
    }
    for (; p < end; p++) {
        if (*p == '.') {
            fraction = 1;
            continue;
        }
        if (*p == 'e' || *p == 'E') {
            d->exponent += read_exponent(p + 1, end);
            return;
        }
        uint64_t m;
        if (__builtin_mul_overflow(d->mantissa, 10ull, &m) ||
            __builtin_add_overflow(m, (uint64_t)(*p - '0'), &m)) {
            d->exact = d->exact && *p == '0';
            d->exponent += !fraction;
            continue;
        }
        d->mantissa = m;
        d->exponent -= fraction;
    }
}

double xi_json_double(const char *text, size_t n)
{
    static const double ten[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                                 1e8,  1e9,  1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
                                 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
    char copy[XI_JSON_NUMBER_MAX + 1];
    struct decimal d;

    read_decimal(text, text + n, &d);
    if (d.exact && d.mantissa <= 1ull << 53 && d.exponent >= -22 && d.exponent <= 22) {
        double v = (double)d.mantissa;
        v = d.exponent < 0 ? v / ten[-d.exponent] : v * ten[d.exponent];
        return d.negative ? -v : v;
    }
    if (n > XI_JSON_NUMBER_MAX)
        return (double)NAN;
    memcpy(copy, text, n);
    copy[n] = '\0';
    return strtod(copy, NULL);
}

/* The mantissa with its power of ten worked in, when that is a whole number of 64 bits. */
static int whole(struct decimal *d)
{
    if (!d->exact)
        return -1;
    if (d->mantissa == 0)
        return 0;
    for (; d->exponent > 0; d->exponent--)
        if (__builtin_mul_overflow(d->mantissa, 10ull, &d->mantissa))
            return -1;
    for (; d->exponent < 0; d->exponent++) {
        if (d->mantissa % 10 != 0)
            return -1;
        d->mantissa /= 10;
    }
    return 0;
}

int xi_json_int64(const char *text, size_t n, int64_t *ret)
{
    struct decimal d;

    read_decimal(text, text + n, &d);
    if (whole(&d) != 0)
        return -1;
    if (d.mantissa > (uint64_t)INT64_MAX + (uint64_t)d.negative)
        return -1;
    *ret = d.negative ? (int64_t)(0 - d.mantissa) : (int64_t)d.mantissa;
    return 0;
}

int xi_json_uint64(const char *text, size_t n, uint64_t *ret)
{
    struct decimal d;

    read_decimal(text, text + n, &d);
    if (whole(&d) != 0 || (d.negative && d.mantissa != 0))
        return -1;
    *ret = d.mantissa;
    return 0;
}
