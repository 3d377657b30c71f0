#include "core/tensor.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name;
    size_t bytes;
} dtypes[] = {
    [XI_DT_UNKNOWN] = {"UNKNOWN", 0}, [XI_DT_BOOL] = {"BOOL", 1},
    [XI_DT_UINT8] = {"UINT8", 1},     [XI_DT_UINT16] = {"UINT16", 2},
    [XI_DT_UINT32] = {"UINT32", 4},   [XI_DT_UINT64] = {"UINT64", 8},
    [XI_DT_INT8] = {"INT8", 1},       [XI_DT_INT16] = {"INT16", 2},
    [XI_DT_INT32] = {"INT32", 4},     [XI_DT_INT64] = {"INT64", 8},
    [XI_DT_FP16] = {"FP16", 2},       [XI_DT_FP32] = {"FP32", 4},
    [XI_DT_FP64] = {"FP64", 8},       [XI_DT_BF16] = {"BF16", 2},
    [XI_DT_BYTES] = {"BYTES", 0},
};
enum { N_DTYPES = sizeof dtypes / sizeof *dtypes };

size_t xi_dtype_bytes(enum xi_dtype dtype)
{
    return (unsigned)dtype < N_DTYPES ? dtypes[dtype].bytes : 0;
}

const char *xi_dtype_name(enum xi_dtype dtype)
{
    return (unsigned)dtype < N_DTYPES ? dtypes[dtype].name : "UNKNOWN";
}

enum xi_dtype xi_dtype_parse(const char *name)
{
    for (unsigned i = 1; i < N_DTYPES; i++)
        if (strcmp(dtypes[i].name, name) == 0)
            return (enum xi_dtype)i;
    return XI_DT_UNKNOWN;
}

enum xi_rc xi_shape_elements(const int64_t *dims, int rank, uint64_t *ret, struct xi_err *err)
{
    uint64_t n = 1;

    if (rank < 0 || rank > XI_MAX_RANK)
        return xi_fail(err, XI_ETENSOR, "rank %d, allowed is 0 to %d", rank, XI_MAX_RANK);
    for (int i = 0; i < rank; i++) {
        if (dims[i] < 0)
            return xi_fail(err, XI_ETENSOR, "dimension %d is %" PRId64, i, dims[i]);
        if (__builtin_mul_overflow(n, (uint64_t)dims[i], &n))
            return xi_fail(err, XI_ETENSOR, "shape has more elements than a machine can hold");
    }
    *ret = n;
    return XI_OK;
}

enum xi_rc xi_shape_bytes(enum xi_dtype dtype, const int64_t *dims, int rank, uint64_t *ret,
                          struct xi_err *err)
{
    uint64_t n = 0;
    size_t each = xi_dtype_bytes(dtype);
    enum xi_rc rc = xi_shape_elements(dims, rank, &n, err);

    if (rc != XI_OK)
        return rc;
    if (each == 0)
        return xi_fail(err, XI_ETENSOR, "%s elements have no fixed size", xi_dtype_name(dtype));
    if (__builtin_mul_overflow(n, each, ret))
        return xi_fail(err, XI_ETENSOR, "shape has more bytes than a machine can hold");
    return XI_OK;
}

enum xi_rc xi_shape_parse(const char *text, int allow_dynamic, int64_t dims[XI_MAX_RANK],
                          int *ret_rank, struct xi_err *err)
{
    int rank = 0;

    for (const char *p = text; *p != '\0';) {
        char *end;
        errno = 0;
        long long d = strtoll(p, &end, 10);
        if (end == p || errno != 0 || (*end != ',' && *end != '\0') || (*end == ',' && !end[1]))
            return xi_fail(err, XI_ETENSOR, "\"%.40s\" is not a shape such as 1,300,300,3", text);
        if (rank == XI_MAX_RANK)
            return xi_fail(err, XI_ETENSOR, "shape has more than %d dimensions", XI_MAX_RANK);
        if (d < 0 && !(allow_dynamic && d == -1))
            return xi_fail(err, XI_ETENSOR, "dimension %d is %lld", rank, d);
        dims[rank++] = d;
        p = *end == ',' ? end + 1 : end;
    }
    *ret_rank = rank;
    return XI_OK;
}

char *xi_shape_text(const int64_t *dims, int rank, char *buf, size_t bytes)
{
    size_t n = 0;

    if (bytes < 3)
        return buf;
    buf[n++] = '[';
    for (int i = 0; i < rank && n + 24 < bytes; i++)
        n += (size_t)snprintf(buf + n, bytes - n, i ? ",%" PRId64 : "%" PRId64, dims[i]);
    (void)snprintf(buf + n, bytes - n, "]");
    return buf;
}

enum xi_rc xi_bytes_check(const void *data, uint64_t bytes, uint64_t elements, struct xi_err *err)
{
    const unsigned char *p = data;
    uint64_t at = 0;

    for (uint64_t i = 0; i < elements; i++) {
        uint32_t n;
        if (bytes - at < sizeof n)
            return xi_fail(err, XI_ETENSOR, "BYTES element %" PRIu64 " has no length", i);
        memcpy(&n, p + at, sizeof n);
        at += sizeof n;
        if (n > bytes - at)
            return xi_fail(err, XI_ETENSOR,
                           "BYTES element %" PRIu64 " of %u bytes runs past the end", i, n);
        at += n;
    }
    if (at != bytes)
        return xi_fail(err, XI_ETENSOR, "%" PRIu64 " bytes behind the last BYTES element",
                       bytes - at);
    return XI_OK;
}

struct xi_tensor xi_tensor_make(enum xi_dtype dtype, const int64_t *dims, int rank, void *data,
                                uint64_t bytes)
{
    struct xi_tensor t = {.size = sizeof t,
                          .dtype = dtype,
                          .memory = XI_MEM_HOST,
                          .rank = rank,
                          .data = data,
                          .bytes = bytes,
                          .fd = -1};

    for (int i = 0; i < rank && i < XI_MAX_RANK; i++)
        t.dims[i] = dims[i];
    return t;
}

void xi_signature_fini(struct xi_signature *s)
{
    free(s->inputs);
    free(s->outputs);
    *s = (struct xi_signature){0};
}

static int shape_fits(const struct xi_port_spec *port, const struct xi_tensor *t)
{
    if (port->rank < 0)
        return 1;
    if (port->rank != t->rank)
        return 0;
    for (int i = 0; i < t->rank; i++)
        if (port->dims[i] >= 0 && port->dims[i] != t->dims[i])
            return 0;
    return 1;
}

static enum xi_rc check_bytes(const struct xi_port_spec *port, const struct xi_tensor *t,
                              struct xi_err *err)
{
    uint64_t want = 0, elements = 0;
    enum xi_rc rc;

    if (t->dtype == XI_DT_BYTES) {
        rc = xi_shape_elements(t->dims, t->rank, &elements, err);
        return rc != XI_OK ? rc : xi_bytes_check(t->data, t->bytes, elements, err);
    }
    rc = xi_shape_bytes((enum xi_dtype)t->dtype, t->dims, t->rank, &want, err);
    if (rc != XI_OK)
        return rc;
    if (want != t->bytes)
        return xi_fail(err, XI_ETENSOR,
                       "input \"%.60s\": %" PRIu64 " bytes where its shape needs %" PRIu64,
                       port->name, t->bytes, want);
    return XI_OK;
}

enum xi_rc xi_port_check(const struct xi_port_spec *port, const struct xi_tensor *tensor,
                         struct xi_err *err)
{
    char has[80], wants[80];

    if (port->dtype != XI_DT_UNKNOWN && (uint32_t)port->dtype != tensor->dtype)
        return xi_fail(err, XI_ETENSOR, "input \"%.60s\": type %s where the model wants %s",
                       port->name, xi_dtype_name((enum xi_dtype)tensor->dtype),
                       xi_dtype_name(port->dtype));
    if (!shape_fits(port, tensor))
        return xi_fail(err, XI_ETENSOR, "input \"%.60s\": shape %s where the model wants %s",
                       port->name, xi_shape_text(tensor->dims, tensor->rank, has, sizeof has),
                       xi_shape_text(port->dims, port->rank, wants, sizeof wants));
    return check_bytes(port, tensor, err);
}

float xi_half_to_float(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, exponent = (h >> 10) & 0x1f, m = h & 0x3ff, bits;
    float f;

    if (exponent == 0x1f) {
        bits = sign | 0x7f800000u | m << 13;
    } else if (exponent != 0) {
        bits = sign | (exponent + 112) << 23 | m << 13;
    } else if (m == 0) {
        bits = sign;
    } else {
        exponent = 113;
        while (!(m & 0x400)) {
            m <<= 1;
            exponent--;
        }
        bits = sign | exponent << 23 | (m & 0x3ff) << 13;
    }
    memcpy(&f, &bits, sizeof f);
    return f;
}

uint16_t xi_float_to_half(float f)
{
    uint32_t bits, sign, m;

    memcpy(&bits, &f, sizeof bits);
    sign = bits >> 16 & 0x8000u;
    int32_t exponent = (int32_t)(bits >> 23 & 0xff) - 112;
    m = bits & 0x7fffffu;
    if (exponent >= 0x1f) /* infinity, NaN or too large */
        return (uint16_t)(sign | 0x7c00u | ((bits & 0x7fffffffu) > 0x7f800000u ? 0x200u : 0));
    if (exponent < -10)
        return (uint16_t)sign;
    uint32_t shift = 13;
    if (exponent <= 0) { /* subnormal */
        m |= 0x800000u;
        shift = (uint32_t)(14 - exponent);
        exponent = 0;
    }
    uint32_t half = sign | (uint32_t)exponent << 10;
    half += m >> shift;
    uint32_t rest = m & ((1u << shift) - 1), middle = 1u << (shift - 1);
    if (rest > middle || (rest == middle && (half & 1)))
        half++;
    return (uint16_t)half;
}
