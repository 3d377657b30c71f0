#define _GNU_SOURCE
#include "package/onnx.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    WINDOW = 1 << 16,
    DEPTH_MAX = 64,
    TENSORS_MAX = 1 << 20,
    TEXT_MAX = 255,
    WIRE_VARINT = 0,
    WIRE_64 = 1,
    WIRE_BYTES = 2,
    WIRE_32 = 5
};

/* Messages of onnx.proto3 that lead to a tensor. */
enum message {
    NONE,
    MODEL,
    GRAPH,
    NODE,
    ATTRIBUTE,
    TENSOR,
    SPARSE_TENSOR,
    FUNCTION,
    TRAINING,
    ENTRY /* StringStringEntryProto of a tensor's external_data */
};

struct child {
    uint8_t in, to;
    uint8_t field;
};

static const struct child children[] = {
    {MODEL, GRAPH, 7},
    {MODEL, TRAINING, 20},
    {MODEL, FUNCTION, 25},
    {GRAPH, NODE, 1},
    {GRAPH, TENSOR, 5},
    {GRAPH, SPARSE_TENSOR, 15},
    {NODE, ATTRIBUTE, 5},
    {ATTRIBUTE, TENSOR, 5},
    {ATTRIBUTE, GRAPH, 6},
    {ATTRIBUTE, TENSOR, 10},
    {ATTRIBUTE, GRAPH, 11},
    {ATTRIBUTE, SPARSE_TENSOR, 22},
    {ATTRIBUTE, SPARSE_TENSOR, 23},
    {SPARSE_TENSOR, TENSOR, 1},
    {SPARSE_TENSOR, TENSOR, 2},
    {FUNCTION, NODE, 7},
    {FUNCTION, ATTRIBUTE, 11},
    {TRAINING, GRAPH, 1},
    {TRAINING, GRAPH, 2},
    {TENSOR, ENTRY, 13},
};
/* TensorProto */
enum { T_DIMS = 1, T_DATA_TYPE = 2, T_RAW_DATA = 9 };

struct tensor {
    uint64_t elements; /* saturates */
    uint64_t data_type, raw_bytes;
    int has_raw, has_external;
    char location[TEXT_MAX + 1];
    uint64_t offset, length;
};

struct level {
    uint64_t end;
    enum message message;
};

struct scan {
    int fd;
    uint64_t bytes, at;
    uint64_t window_at;
    size_t window_bytes;
    uint8_t *window;
    struct level stack[DEPTH_MAX];
    size_t depth;
    size_t n_tensors;
    struct tensor tensor; /* tensors don't nest: one at a time */
    char key[TEXT_MAX + 1], value[TEXT_MAX + 1];
    xi_onnx_external_fn fn;
    void *ctx;
    struct xi_err *err;
};

static enum xi_rc damaged(const struct scan *s, const char *what)
{
    return xi_fail(s->err, XI_EPACKAGE, "no ONNX model: %s at byte %llu", what,
                   (unsigned long long)s->at);
}

static enum xi_rc fill_window(struct scan *s)
{
    s->window_at = s->at;
    s->window_bytes = 0;
    while (s->window_bytes < WINDOW) {
        ssize_t n = pread(s->fd, s->window + s->window_bytes, WINDOW - s->window_bytes,
                          (off_t)(s->window_at + s->window_bytes));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return xi_fail(s->err, XI_EIO, "reading the model: %s", strerror(errno));
        if (n == 0)
            break;
        s->window_bytes += (size_t)n;
    }
    return s->window_bytes > 0 ? XI_OK : damaged(s, "cut short");
}

static enum xi_rc next_byte(struct scan *s, uint64_t end, uint8_t *ret)
{
    if (s->at >= end)
        return damaged(s, "a field that runs past its message");
    if (s->at < s->window_at || s->at >= s->window_at + s->window_bytes) {
        enum xi_rc rc = fill_window(s);
        if (rc != XI_OK)
            return rc;
    }
    *ret = s->window[s->at - s->window_at];
    s->at++;
    return XI_OK;
}

static enum xi_rc varint(struct scan *s, uint64_t end, uint64_t *ret)
{
    uint64_t v = 0;

    for (unsigned shift = 0; shift < 70; shift += 7) {
        uint8_t b = 0;
        enum xi_rc rc = next_byte(s, end, &b);
        if (rc != XI_OK)
            return rc;
        if (shift < 64)
            v |= (uint64_t)(b & 0x7f) << shift;
        if ((b & 0x80) == 0) {
            *ret = v;
            return XI_OK;
        }
    }
    return damaged(s, "a number of over ten bytes");
}

static enum xi_rc text(struct scan *s, uint64_t bytes, char ret[TEXT_MAX + 1])
{
    uint64_t end = s->at + bytes;

    if (bytes > TEXT_MAX)
        return damaged(s, "external data described in over 255 bytes");
    for (size_t i = 0; i < bytes; i++) {
        uint8_t b = 0;
        enum xi_rc rc = next_byte(s, end, &b);
        if (rc != XI_OK)
            return rc;
        if (b == 0)
            return damaged(s, "a NUL in a description of external data");
        ret[i] = (char)b;
    }
    ret[bytes] = '\0';
    return XI_OK;
}

static void add_dim(struct tensor *t, uint64_t dim)
{
    if (dim != 0 && t->elements > UINT64_MAX / dim)
        t->elements = UINT64_MAX;
    else
        t->elements *= dim;
}

static enum message child_of(enum message in, uint64_t field)
{
    for (size_t i = 0; i < sizeof children / sizeof *children; i++)
        if (children[i].in == in && children[i].field == field)
            return children[i].to;
    return NONE;
}

static enum xi_rc push(struct scan *s, enum message message, uint64_t end)
{
    if (s->depth == DEPTH_MAX)
        return damaged(s, "messages nested over 64 deep");
    if (message == TENSOR) {
        if (++s->n_tensors > TENSORS_MAX)
            return damaged(s, "over 1048576 tensors");
        s->tensor = (struct tensor){.elements = 1, .length = UINT64_MAX};
    }
    if (message == ENTRY)
        s->key[0] = s->value[0] = '\0';
    s->stack[s->depth++] = (struct level){.end = end, .message = message};
    return XI_OK;
}

static enum xi_rc packed_dims(struct scan *s, uint64_t end)
{
    while (s->at < end) {
        uint64_t dim = 0;
        enum xi_rc rc = varint(s, end, &dim);
        if (rc != XI_OK)
            return rc;
        add_dim(&s->tensor, dim);
    }
    return XI_OK;
}

static enum xi_rc bytes_field(struct scan *s, const struct level *level, uint64_t field)
{
    uint64_t n = 0;
    enum xi_rc rc = varint(s, level->end, &n);

    if (rc != XI_OK)
        return rc;
    if (n > level->end - s->at)
        return damaged(s, "a field that runs past its message");
    enum message to = child_of(level->message, field);
    if (to != NONE)
        return push(s, to, s->at + n);
    if (level->message == ENTRY && field <= 2)
        return text(s, n, field == 1 ? s->key : s->value);
    if (level->message == TENSOR && field == T_DIMS)
        return packed_dims(s, s->at + n);
    if (level->message == TENSOR && field == T_RAW_DATA) {
        s->tensor.has_raw = 1;
        s->tensor.raw_bytes = n;
    }
    s->at += n; /* weights are skipped, not read */
    return XI_OK;
}

static enum xi_rc one_field(struct scan *s, const struct level *level)
{
    uint64_t tag = 0, v = 0;
    enum xi_rc rc = varint(s, level->end, &tag);

    if (rc != XI_OK)
        return rc;
    uint64_t field = tag >> 3, fixed = (tag & 7) == WIRE_64 ? 8 : 4;
    if (field == 0)
        return damaged(s, "a field without a number");
    switch (tag & 7) {
    case WIRE_VARINT:
        rc = varint(s, level->end, &v);
        if (rc == XI_OK && level->message == TENSOR && field == T_DIMS)
            add_dim(&s->tensor, v);
        if (rc == XI_OK && level->message == TENSOR && field == T_DATA_TYPE)
            s->tensor.data_type = v;
        return rc;
    case WIRE_BYTES:
        return bytes_field(s, level, field);
    case WIRE_64:
    case WIRE_32:
        if (fixed > level->end - s->at)
            return damaged(s, "a field that runs past its message");
        s->at += fixed;
        return XI_OK;
    default:
        return damaged(s, "a field of unknown wire type");
    }
}

static enum xi_rc number(const struct scan *s, uint64_t *ret)
{
    char *end;

    errno = 0;
    if (s->value[0] < '0' || s->value[0] > '9')
        return damaged(s, "external data with a negative or missing number");
    *ret = strtoull(s->value, &end, 10);
    return errno || *end ? damaged(s, "external data with a number that is none") : XI_OK;
}

static enum xi_rc end_entry(struct scan *s)
{
    struct tensor *t = &s->tensor;

    t->has_external = 1;
    if (strcmp(s->key, "location") == 0)
        memcpy(t->location, s->value, sizeof t->location);
    else if (strcmp(s->key, "offset") == 0)
        return number(s, &t->offset);
    else if (strcmp(s->key, "length") == 0)
        return number(s, &t->length);
    return XI_OK;
}

/* Bytes of one element by TensorProto.DataType; 0 where it is not a whole number of bytes. */
static uint64_t element_bytes(uint64_t data_type)
{
    static const uint8_t sizes[] = {0, 4, 1, 1, 2, 2, 4, 8, 0, 1, 2, 8, 4, 8, 8, 16, 2, 1, 1, 1, 1};

    return data_type < sizeof sizes ? sizes[data_type] : 0;
}

static enum xi_rc end_tensor(struct scan *s)
{
    const struct tensor *t = &s->tensor;
    uint64_t size = element_bytes(t->data_type);
    uint64_t want = size && t->elements <= UINT64_MAX / size ? t->elements * size : UINT64_MAX;

    if (size != 0 && t->has_raw && !t->has_external && t->raw_bytes != want)
        return xi_fail(s->err, XI_EPACKAGE, "a tensor claims %llu elements and holds %llu bytes",
                       (unsigned long long)t->elements, (unsigned long long)t->raw_bytes);
    if (!t->has_external || s->fn == NULL)
        return XI_OK;
    struct xi_onnx_external external = {
        .location = t->location, .offset = t->offset, .length = t->length};
    if (size != 0 && external.length == UINT64_MAX)
        external.length = want;
    if (size != 0 && external.length != want)
        return xi_fail(s->err, XI_EPACKAGE,
                       "a tensor claims %llu elements and %llu bytes of external data",
                       (unsigned long long)t->elements, (unsigned long long)external.length);
    return s->fn(s->ctx, &external, s->err);
}

static enum xi_rc pop(struct scan *s)
{
    enum message message = s->stack[--s->depth].message;

    if (message == ENTRY)
        return end_entry(s);
    return message == TENSOR ? end_tensor(s) : XI_OK;
}

static enum xi_rc walk(struct scan *s)
{
    enum xi_rc rc = push(s, MODEL, s->bytes);

    while (rc == XI_OK && s->depth > 0) {
        const struct level level = s->stack[s->depth - 1];
        rc = s->at < level.end ? one_field(s, &level) : pop(s);
    }
    return rc;
}

enum xi_rc xi_onnx_scan(int fd, uint64_t bytes, xi_onnx_external_fn fn, void *ctx,
                        struct xi_err *err)
{
    struct scan *s = calloc(1, sizeof *s);
    enum xi_rc rc = XI_OK;

    if (s != NULL)
        *s = (struct scan){
            .fd = fd, .bytes = bytes, .fn = fn, .ctx = ctx, .err = err, .window = malloc(WINDOW)};
    if (s == NULL || s->window == NULL)
        rc = xi_fail(err, XI_ENOMEM, "reading the model: out of memory");
    else if (bytes == 0)
        rc = xi_fail(err, XI_EPACKAGE, "no ONNX model: it is empty");
    else
        rc = walk(s);
    if (s != NULL)
        free(s->window);
    free(s);
    return rc;
}
