#include "wire/protobuf.h"

#include <string.h>

#include "wire/json_pull.h"

struct xi_pb xi_pb_make(const void *data, size_t bytes)
{
    const uint8_t *p = data;

    return (struct xi_pb){.p = p, .end = bytes ? p + bytes : p};
}

int xi_pb_varint(struct xi_pb *r, uint64_t *ret)
{
    uint64_t v = 0;

    for (unsigned shift = 0; r->p < r->end && shift < 64; shift += 7) {
        uint8_t byte = *r->p++;
        if (shift == 63 && byte > 1)
            return -1;
        v |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80) {
            *ret = v;
            return 1;
        }
    }
    return -1;
}

static int read_fixed(struct xi_pb *r, size_t bytes, uint64_t *ret)
{
    if ((size_t)(r->end - r->p) < bytes)
        return -1;
    *ret = 0;
    memcpy(ret, r->p, bytes); /* little-endian, as this machine */
    r->p += bytes;
    return 1;
}

static int read_bytes(struct xi_pb *r, struct xi_pb_field *f)
{
    uint64_t n;

    if (xi_pb_varint(r, &n) < 0)
        return -1;
    f->data = r->p;
    f->bytes = n;
    if (n > (uint64_t)(r->end - r->p))
        return -1;
    r->p += n;
    return 1;
}

int xi_pb_next(struct xi_pb *r, struct xi_pb_field *f)
{
    uint64_t tag;

    *f = (struct xi_pb_field){0};
    if (r->p == r->end)
        return 0;
    if (xi_pb_varint(r, &tag) < 0 || tag >> 32 != 0 || tag >> 3 == 0)
        return -1;
    f->number = (uint32_t)(tag >> 3);
    f->type = (enum xi_pb_type)(tag & 7);
    switch (tag & 7) {
    case XI_PB_VARINT:
        return xi_pb_varint(r, &f->value);
    case XI_PB_64:
        return read_fixed(r, 8, &f->value);
    case XI_PB_32:
        return read_fixed(r, 4, &f->value);
    case XI_PB_BYTES:
        return read_bytes(r, f);
    default:
        return -1;
    }
}

enum xi_rc xi_pb_broken(const char *message, struct xi_err *err)
{
    return xi_fail(err, XI_EINVAL, "%s: cut off, or no Protocol Buffers message", message);
}

enum xi_rc xi_pb_want(const struct xi_pb_field *f, enum xi_pb_type type, const char *message,
                      const char *what, struct xi_err *err)
{
    if (f->type == type)
        return XI_OK;
    return xi_fail(err, XI_EINVAL, "%s: \"%s\" (field %u) has wire type %d where %d belongs",
                   message, what, f->number, (int)f->type, (int)type);
}

enum xi_rc xi_pb_text(const struct xi_pb_field *f, const char *what, char *ret, size_t room,
                      struct xi_err *err)
{
    if (f->type != XI_PB_BYTES)
        return xi_fail(err, XI_EINVAL, "\"%s\" must be a string", what);
    if (f->bytes >= room)
        return xi_fail(err, XI_EINVAL, "\"%s\" is longer than %zu bytes", what, room - 1);
    for (size_t i = 0, n; i < f->bytes; i += n) {
        n = xi_utf8_length(f->data + i, (size_t)f->bytes - i);
        if (n == 0 || f->data[i] == '\0')
            return xi_fail(err, XI_EINVAL, "%s in \"%s\"", n ? "NUL" : "invalid UTF-8", what);
    }
    if (f->bytes != 0)
        memcpy(ret, f->data, (size_t)f->bytes);
    ret[f->bytes] = '\0';
    return XI_OK;
}

int xi_pb_is(const struct xi_pb_field *f, const char *text)
{
    size_t n = strlen(text);

    return f->bytes == n && (n == 0 || memcmp(f->data, text, n) == 0);
}

void xi_pb_put_raw(struct xi_str *s, uint64_t v)
{
    uint8_t bytes[XI_PB_VARINT_MAX];
    size_t n = 0;

    for (; v >= 0x80; v >>= 7)
        bytes[n++] = (uint8_t)(v | 0x80);
    bytes[n++] = (uint8_t)v;
    xi_str_add(s, bytes, n);
}

void xi_pb_put_tag(struct xi_str *s, uint32_t number, enum xi_pb_type type)
{
    xi_pb_put_raw(s, (uint64_t)number << 3 | (unsigned)type);
}

void xi_pb_put_uint(struct xi_str *s, uint32_t number, uint64_t v)
{
    xi_pb_put_tag(s, number, XI_PB_VARINT);
    xi_pb_put_raw(s, v);
}

void xi_pb_uint(struct xi_str *s, uint32_t number, uint64_t v)
{
    if (v != 0)
        xi_pb_put_uint(s, number, v);
}

static void put_bytes(struct xi_str *s, uint32_t number, const void *data, size_t bytes)
{
    xi_pb_put_tag(s, number, XI_PB_BYTES);
    xi_pb_put_raw(s, bytes);
    xi_str_add(s, data, bytes);
}

void xi_pb_bytes(struct xi_str *s, uint32_t number, const void *data, size_t bytes)
{
    if (bytes != 0)
        put_bytes(s, number, data, bytes);
}

void xi_pb_put_text(struct xi_str *s, uint32_t number, const char *text)
{
    put_bytes(s, number, text, strlen(text));
}

void xi_pb_text_field(struct xi_str *s, uint32_t number, const char *text)
{
    xi_pb_bytes(s, number, text, strlen(text));
}

size_t xi_pb_begin(struct xi_str *s, uint32_t number)
{
    xi_pb_put_tag(s, number, XI_PB_BYTES);
    xi_str_add(s, "", 1); /* its length, as if it were short */
    return s->len;
}

void xi_pb_end(struct xi_str *s, size_t begun)
{
    size_t bytes = s->len - begun, more = 0;

    if (s->failed)
        return;
    for (size_t n = bytes; n >= 0x80; n >>= 7)
        more++;
    if (more > 0) { /* it is longer: what was written moves */
        if (xi_str_reserve(s, more) == NULL)
            return;
        memmove(s->data + begun + more, s->data + begun, bytes);
        s->len += more;
        s->data[s->len] = '\0';
    }
    uint8_t *p = (uint8_t *)s->data + begun - 1;
    for (; bytes >= 0x80; bytes >>= 7)
        *p++ = (uint8_t)(bytes | 0x80);
    *p = (uint8_t)bytes;
}
