/* InferTensorContents into memory, and answers. */
#include "wire/oip_proto_data.h"

#include <inttypes.h>
#include <string.h>

#include "wire/oip_proto.h"
#include "wire/protobuf.h"

enum { RES_MODEL = 1, RES_VERSION, RES_ID, RES_PARAMETERS, RES_OUTPUTS, RES_RAW };
enum { RES_NAME = 1, RES_DATATYPE, RES_SHAPE, RES_OUTPUT_PARAMETERS };
enum { PARAM_BOOL = 1, PARAM_INT64 = 2, PARAM_STRING = 3 };

/* Where the values of a datatype stand: the field, its name, the wire type of one value. */
static const struct contents {
    uint32_t number;
    enum xi_pb_type type;
    const char *name;
} contents[] = {
    [XI_DT_BOOL] = {1, XI_PB_VARINT, "bool_contents"},
    [XI_DT_UINT8] = {4, XI_PB_VARINT, "uint_contents"},
    [XI_DT_UINT16] = {4, XI_PB_VARINT, "uint_contents"},
    [XI_DT_UINT32] = {4, XI_PB_VARINT, "uint_contents"},
    [XI_DT_UINT64] = {5, XI_PB_VARINT, "uint64_contents"},
    [XI_DT_INT8] = {2, XI_PB_VARINT, "int_contents"},
    [XI_DT_INT16] = {2, XI_PB_VARINT, "int_contents"},
    [XI_DT_INT32] = {2, XI_PB_VARINT, "int_contents"},
    [XI_DT_INT64] = {3, XI_PB_VARINT, "int64_contents"},
    [XI_DT_FP16] = {0, XI_PB_VARINT, NULL},
    [XI_DT_FP32] = {6, XI_PB_32, "fp32_contents"},
    [XI_DT_FP64] = {7, XI_PB_64, "fp64_contents"},
    [XI_DT_BF16] = {0, XI_PB_VARINT, NULL},
    [XI_DT_BYTES] = {8, XI_PB_BYTES, "bytes_contents"},
};

/* Puts one value down; -1 when the datatype cannot hold it. int_contents are 32 bits wide,
 * whatever the varint was. */
static int put_varint(enum xi_dtype dtype, uint8_t *dst, uint64_t v)
{
    int32_t i = (int32_t)(uint32_t)v;
    uint32_t u = (uint32_t)v;

    switch (dtype) {
    case XI_DT_BOOL:
        *dst = v != 0;
        return 0;
    case XI_DT_INT8:
        *dst = (uint8_t)u;
        return i < INT8_MIN || i > INT8_MAX ? -1 : 0;
    case XI_DT_INT16:
        memcpy(dst, &u, 2);
        return i < INT16_MIN || i > INT16_MAX ? -1 : 0;
    case XI_DT_UINT8:
        *dst = (uint8_t)u;
        return u > UINT8_MAX ? -1 : 0;
    case XI_DT_UINT16:
        memcpy(dst, &u, 2);
        return u > UINT16_MAX ? -1 : 0;
    case XI_DT_INT32:
    case XI_DT_UINT32:
        memcpy(dst, &u, 4);
        return 0;
    default:
        memcpy(dst, &v, 8);
        return 0;
    }
}

/* Where values go: dst NULL only counts them. */
struct filling {
    const struct xi_oip_tensor *x;
    uint8_t *dst;
    uint64_t values, bytes;
};

static enum xi_rc put(struct filling *out, const struct xi_pb_field *f, struct xi_err *err)
{
    enum xi_dtype dtype = out->x->dtype;
    uint32_t length = (uint32_t)f->bytes;
    uint64_t n = dtype == XI_DT_BYTES ? 4 + f->bytes : xi_dtype_bytes(dtype);
    uint8_t *dst = out->dst ? out->dst + out->bytes : NULL;

    if (dtype == XI_DT_BYTES && f->bytes > UINT32_MAX)
        return xi_fail(err, XI_ETOOBIG, "input \"%.60s\": an element is too long", out->x->name);
    out->values++;
    out->bytes += n;
    if (dst == NULL)
        return XI_OK;
    if (dtype == XI_DT_BYTES) {
        memcpy(dst, &length, 4);
        if (length != 0)
            memcpy(dst + 4, f->data, length);
    } else if (f->type != XI_PB_VARINT) {
        memcpy(dst, &f->value, n); /* little-endian */
    } else if (put_varint(dtype, dst, f->value) != 0) {
        return xi_fail(err, XI_ETENSOR, "input \"%.60s\": value %" PRIu64 " is no %s", out->x->name,
                       out->values - 1, xi_dtype_name(dtype));
    }
    return XI_OK;
}

static enum xi_rc put_packed(struct filling *out, const struct xi_pb_field *f,
                             const struct contents *c, struct xi_err *err)
{
    size_t each = c->type == XI_PB_32 ? 4 : 8;
    struct xi_pb in = xi_pb_make(f->data, (size_t)f->bytes);
    struct xi_pb_field v = {.type = XI_PB_VARINT};
    enum xi_rc rc = XI_OK;

    if (c->type != XI_PB_VARINT) { /* as they are in memory */
        if (f->bytes % each != 0)
            return xi_pb_broken(c->name, err);
        if (out->dst != NULL && f->bytes != 0)
            memcpy(out->dst + out->bytes, f->data, (size_t)f->bytes);
        out->values += f->bytes / each;
        out->bytes += f->bytes;
        return XI_OK;
    }
    while (rc == XI_OK && in.p < in.end) {
        if (xi_pb_varint(&in, &v.value) < 0)
            return xi_pb_broken(c->name, err);
        rc = put(out, &v, err);
    }
    return rc;
}

static enum xi_rc put_all(struct filling *out, const uint8_t *message, struct xi_err *err)
{
    const struct xi_oip_tensor *x = out->x;
    const struct contents *c = &contents[x->dtype];
    struct xi_pb in = xi_pb_make(message + x->data_at, x->data_end - x->data_at);
    enum xi_rc rc = XI_OK;
    struct xi_pb_field f;
    int more = 0;

    while (rc == XI_OK && (more = xi_pb_next(&in, &f)) > 0) {
        if (f.number > 8)
            continue;
        if (f.number != c->number)
            rc = xi_fail(err, XI_ETENSOR, "input \"%.60s\": %s elements go into %s", x->name,
                         xi_dtype_name(x->dtype), c->name ? c->name : "raw_input_contents");
        else if (f.type == XI_PB_BYTES && c->type != XI_PB_BYTES)
            rc = put_packed(out, &f, c, err);
        else if ((rc = xi_pb_want(&f, c->type, "InferTensorContents", c->name, err)) == XI_OK)
            rc = put(out, &f, err);
    }
    return rc == XI_OK && more < 0 ? xi_pb_broken("InferTensorContents", err) : rc;
}

enum xi_rc xi_oip_proto_measure(const void *message, struct xi_oip_tensor *x, struct xi_err *err)
{
    struct filling out = {.x = x};
    enum xi_rc rc = put_all(&out, message, err);

    if (rc != XI_OK)
        return rc;
    if (out.values != x->elements)
        return xi_fail(err, XI_ETENSOR,
                       "input \"%.60s\": shape of %" PRIu64 " elements, its contents have %" PRIu64,
                       x->name, x->elements, out.values);
    x->bytes = out.bytes;
    return XI_OK;
}

enum xi_rc xi_oip_proto_fill(const void *message, const struct xi_oip_tensor *t, void *dst,
                             struct xi_err *err)
{
    struct filling out = {.x = t, .dst = dst};

    return put_all(&out, message, err);
}

unsigned xi_oip_proto_dtype(enum xi_dtype dtype)
{
    if (dtype == XI_DT_BYTES)
        return 13; /* TYPE_STRING */
    return dtype == XI_DT_BF16 ? 14 : (unsigned)dtype;
}

static void put_parameter(struct xi_str *s, uint32_t map, const char *key, uint32_t choice,
                          uint64_t value, const char *text)
{
    size_t entry = xi_pb_begin(s, map);

    xi_pb_put_text(s, 1, key);
    size_t param = xi_pb_begin(s, 2);
    if (text != NULL)
        xi_pb_put_text(s, choice, text);
    else
        xi_pb_put_uint(s, choice, value);
    xi_pb_end(s, param);
    xi_pb_end(s, entry);
}

void xi_oip_proto_begin(struct xi_str *s, const struct xi_oip_proto_answer *a)
{
    xi_pb_text_field(s, RES_MODEL, a->model);
    xi_pb_text_field(s, RES_VERSION, a->version);
    xi_pb_text_field(s, RES_ID, a->id);
    if (a->final >= 0)
        put_parameter(s, RES_PARAMETERS, "triton_final_response", PARAM_BOOL, (uint64_t)a->final,
                      NULL);
}

void xi_oip_proto_output(struct xi_str *s, const struct xi_oip_proto_output *o)
{
    const struct xi_tensor *t = o->tensor;
    size_t output = xi_pb_begin(s, RES_OUTPUTS);

    xi_pb_text_field(s, RES_NAME, o->name);
    xi_pb_text_field(s, RES_DATATYPE, xi_dtype_name((enum xi_dtype)t->dtype));
    if (t->rank > 0) {
        size_t shape = xi_pb_begin(s, RES_SHAPE);
        for (int i = 0; i < t->rank; i++)
            xi_pb_put_raw(s, (uint64_t)t->dims[i]);
        xi_pb_end(s, shape);
    }
    if (o->region != NULL) {
        put_parameter(s, RES_OUTPUT_PARAMETERS, "shared_memory_region", PARAM_STRING, 0,
                      o->region->name);
        put_parameter(s, RES_OUTPUT_PARAMETERS, "shared_memory_byte_size", PARAM_INT64, t->bytes,
                      NULL);
        if (o->region->offset != 0)
            put_parameter(s, RES_OUTPUT_PARAMETERS, "shared_memory_offset", PARAM_INT64,
                          o->region->offset, NULL);
    }
    xi_pb_end(s, output);
}

void xi_oip_proto_mark(struct xi_str *s, uint64_t n)
{
    xi_pb_put_tag(s, RES_RAW, XI_PB_BYTES);
    xi_pb_put_raw(s, n);
}

size_t xi_oip_proto_mark_bytes(uint64_t n)
{
    size_t bytes = 2;

    for (; n >= 0x80; n >>= 7)
        bytes++;
    return bytes;
}
