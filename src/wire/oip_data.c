/* Elements of tensors: from JSON into memory and back. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "wire/json_pull.h"
#include "wire/oip_json.h"

/* Stores a whole number of `size` bytes; -1 when it does not fit. */
static int put_signed(void *dst, const struct xi_json_pull *j, size_t size)
{
    int64_t v;
    int64_t high = size == 8 ? INT64_MAX : ((int64_t)1 << (8 * size - 1)) - 1;

    if (xi_json_int64(j->text, j->text_len, &v) != 0 || v > high || v < -high - 1)
        return -1;
    memcpy(dst, &v, size); /* little-endian, two's complement */
    return 0;
}

static int put_unsigned(void *dst, const struct xi_json_pull *j, size_t size)
{
    uint64_t v;

    if (xi_json_uint64(j->text, j->text_len, &v) != 0 || (size < 8 && v >> (8 * size) != 0))
        return -1;
    memcpy(dst, &v, size);
    return 0;
}

static uint16_t to_bf16(float f)
{
    uint32_t bits;

    memcpy(&bits, &f, sizeof bits);
    bits += 0x7fff + (bits >> 16 & 1); /* round to nearest even; f is finite */
    return (uint16_t)(bits >> 16);
}

static int put_real(enum xi_dtype dtype, void *dst, const struct xi_json_pull *j)
{
    double d = xi_json_double(j->text, j->text_len);
    float f = (float)d;
    uint16_t half;

    switch (dtype) {
    case XI_DT_FP64:
        memcpy(dst, &d, sizeof d);
        return isfinite(d) ? 0 : -1;
    case XI_DT_FP32:
        memcpy(dst, &f, sizeof f);
        return isfinite(f) ? 0 : -1;
    case XI_DT_FP16:
        half = xi_float_to_half(f);
        memcpy(dst, &half, sizeof half);
        return (half & 0x7c00) == 0x7c00 ? -1 : 0;
    default:
        half = isfinite(f) ? to_bf16(f) : 0x7f80;
        memcpy(dst, &half, sizeof half);
        return (half & 0x7f80) == 0x7f80 ? -1 : 0;
    }
}

static int put_bool(uint8_t *dst, enum xi_json_token t, const struct xi_json_pull *j)
{
    uint64_t v = t == XI_TOKEN_TRUE;

    if (t == XI_TOKEN_NUMBER && (xi_json_uint64(j->text, j->text_len, &v) != 0 || v > 1))
        return -1;
    *dst = (uint8_t)v;
    return 0;
}

/* One fixed-size element; -1 when this token is none of this type. */
static int put_element(enum xi_dtype dtype, void *dst, enum xi_json_token t,
                       const struct xi_json_pull *j)
{
    if (dtype == XI_DT_BOOL)
        return t == XI_TOKEN_TRUE || t == XI_TOKEN_FALSE || t == XI_TOKEN_NUMBER
                   ? put_bool(dst, t, j)
                   : -1;
    if (t != XI_TOKEN_NUMBER)
        return -1;
    switch (dtype) {
    case XI_DT_UINT8:
    case XI_DT_UINT16:
    case XI_DT_UINT32:
    case XI_DT_UINT64:
        return put_unsigned(dst, j, xi_dtype_bytes(dtype));
    case XI_DT_INT8:
    case XI_DT_INT16:
    case XI_DT_INT32:
    case XI_DT_INT64:
        return put_signed(dst, j, xi_dtype_bytes(dtype));
    default:
        return put_real(dtype, dst, j);
    }
}

static enum xi_rc put_text(const struct xi_json_pull *j, const struct xi_oip_tensor *t,
                           uint8_t *dst, uint64_t *at, struct xi_err *err)
{
    size_t n = 0;
    enum xi_rc rc;

    if (t->bytes - *at < 4)
        return xi_fail(err, XI_ETENSOR, "input \"%.60s\": more text than measured", t->name);
    rc = xi_json_pull_text(j, (char *)dst + *at + 4, (size_t)(t->bytes - *at - 4), &n, err);
    if (rc != XI_OK)
        return rc;
    uint32_t length = (uint32_t)n;
    memcpy(dst + *at, &length, sizeof length);
    *at += 4 + n;
    return XI_OK;
}

static enum xi_rc wrong_element(const struct xi_oip_tensor *t, uint64_t i,
                                const struct xi_json_pull *j, struct xi_err *err)
{
    int n = j->text_len < 24 ? (int)j->text_len : 24;

    if (j->err.rc != XI_OK) {
        if (err != NULL)
            *err = j->err;
        return XI_EJSON;
    }
    return xi_fail(err, XI_ETENSOR, "input \"%.60s\": element %" PRIu64 " (%.*s) is no %s", t->name,
                   i, j->text ? n : 0, j->text ? j->text : "", xi_dtype_name(t->dtype));
}

/* Nesting is free: flat or in any depth of arrays, in row-major order. */
enum xi_rc xi_oip_fill(const char *text, size_t bytes, const struct xi_oip_tensor *t, void *dst,
                       struct xi_err *err)
{
    struct xi_json_pull j;
    uint64_t i = 0, at = 0;
    size_t each = xi_dtype_bytes(t->dtype);

    xi_json_pull_init(&j, text + t->data_at, bytes - t->data_at);
    do {
        enum xi_json_token k = xi_json_pull_next(&j);
        if (k == XI_TOKEN_ARRAY || k == XI_TOKEN_ARRAY_END)
            continue;
        if (k == XI_TOKEN_ERROR || j.depth == 0)
            return k == XI_TOKEN_ERROR
                       ? wrong_element(t, i, &j, err)
                       : xi_fail(err, XI_EINVAL, "input \"%.60s\": data must be an array", t->name);
        if (i == t->elements)
            return xi_fail(err, XI_ETENSOR,
                           "input \"%.60s\": more data than the %" PRIu64 " elements of its shape",
                           t->name, t->elements);
        if (t->dtype == XI_DT_BYTES) {
            if (k != XI_TOKEN_STRING)
                return wrong_element(t, i, &j, err);
            enum xi_rc rc = put_text(&j, t, dst, &at, err);
            if (rc != XI_OK)
                return rc;
        } else if (put_element(t->dtype, (uint8_t *)dst + i * each, k, &j) != 0) {
            return wrong_element(t, i, &j, err);
        }
        i++;
    } while (j.depth > 0);
    if (i != t->elements)
        return xi_fail(err, XI_ETENSOR,
                       "input \"%.60s\": %" PRIu64 " elements where its shape needs %" PRIu64,
                       t->name, i, t->elements);
    return XI_OK;
}

static void write_element(struct xi_str *s, enum xi_dtype dtype, const uint8_t *p)
{
    uint64_t u = 0;
    int64_t i = 0;
    float f;
    double d;
    size_t n = xi_dtype_bytes(dtype);

    switch (dtype) {
    case XI_DT_BOOL:
        xi_str_puts(s, *p ? "true" : "false");
        return;
    case XI_DT_INT8:
    case XI_DT_INT16:
    case XI_DT_INT32:
    case XI_DT_INT64:
        memcpy(&u, p, n);
        i = (int64_t)(u << (64 - 8 * n)) >> (64 - 8 * n);
        xi_str_printf(s, "%" PRId64, i);
        return;
    case XI_DT_FP64:
        memcpy(&d, p, sizeof d);
        xi_str_number(s, d, 17);
        return;
    case XI_DT_FP32:
        memcpy(&f, p, sizeof f);
        xi_str_number(s, (double)f, 9);
        return;
    case XI_DT_FP16:
        memcpy(&u, p, 2);
        xi_str_number(s, (double)xi_half_to_float((uint16_t)u), 5);
        return;
    case XI_DT_BF16:
        memcpy((uint8_t *)&f + 2, p, 2);
        memset(&f, 0, 2);
        xi_str_number(s, (double)f, 4);
        return;
    default:
        memcpy(&u, p, n);
        xi_str_printf(s, "%" PRIu64, u);
    }
}

/* Text of any bytes as a JSON string: bytes over 0x7f that form no UTF-8 become U+FFFD. */
static void write_text(struct xi_str *s, const uint8_t *p, size_t n)
{
    xi_str_add(s, "\"", 1);
    for (size_t i = 0; i < n;) {
        size_t k = xi_utf8_length(p + i, n - i);
        if (k == 0) {
            xi_str_puts(s, "\\ufffd");
            k = 1;
        } else if (p[i] < 0x20 || p[i] == 0x7f) {
            xi_str_printf(s, "\\u%04x", p[i]);
        } else {
            xi_str_add(s, "\\", p[i] == '"' || p[i] == '\\');
            xi_str_add(s, p + i, k);
        }
        i += k;
    }
    xi_str_add(s, "\"", 1);
}

static void write_bytes_elements(struct xi_str *s, const struct xi_tensor *t)
{
    const uint8_t *p = t->data;
    uint64_t at = 0;

    while (t->bytes - at >= 4) {
        uint32_t n;
        memcpy(&n, p + at, sizeof n);
        at += 4;
        if (n > t->bytes - at)
            return;
        xi_str_puts(s, at > 4 ? "," : "");
        write_text(s, p + at, n);
        at += n;
    }
}

static void write_head(struct xi_str *s, const char *name, const struct xi_tensor *tensor)
{
    xi_str_puts(s, "{\"name\":");
    xi_str_json(s, name);
    xi_str_printf(s, ",\"datatype\":\"%s\",\"shape\":[",
                  xi_dtype_name((enum xi_dtype)tensor->dtype));
    for (int i = 0; i < tensor->rank; i++)
        xi_str_printf(s, i ? ",%" PRId64 : "%" PRId64, tensor->dims[i]);
}

void xi_oip_write_region(struct xi_str *s, const char *name, const struct xi_tensor *tensor,
                         const struct xi_oip_region *region)
{
    write_head(s, name, tensor);
    xi_str_puts(s, "],\"parameters\":{\"shared_memory_region\":");
    xi_str_json(s, region->name);
    if (region->offset != 0)
        xi_str_printf(s, ",\"shared_memory_offset\":%" PRIu64, region->offset);
    xi_str_printf(s, ",\"shared_memory_byte_size\":%" PRIu64 "}}", tensor->bytes);
}

void xi_oip_write(struct xi_str *s, const char *name, const struct xi_tensor *tensor, int binary)
{
    enum xi_dtype dtype = (enum xi_dtype)tensor->dtype;
    size_t each = xi_dtype_bytes(dtype);

    write_head(s, name, tensor);
    if (binary) {
        xi_str_printf(s, "],\"parameters\":{\"binary_data_size\":%" PRIu64 "}}", tensor->bytes);
        return;
    }
    xi_str_puts(s, "],\"data\":[");
    if (dtype == XI_DT_BYTES)
        write_bytes_elements(s, tensor);
    for (uint64_t at = 0; each != 0 && tensor->bytes - at >= each; at += each) {
        xi_str_add(s, ",", at > 0);
        write_element(s, dtype, (const uint8_t *)tensor->data + at);
    }
    xi_str_puts(s, "]}");
}
