/* ops.c: shapes and arithmetic of the reference engine's operations. Pure functions. */
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "xref.h"

static const struct {
    const char *name;
    uint32_t bytes;
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
#define N_DTYPES (sizeof(dtypes) / sizeof(dtypes[0]))

uint32_t xref_dtype_bytes(uint32_t dtype)
{
    return dtype < N_DTYPES ? dtypes[dtype].bytes : 0;
}

const char *xref_dtype_name(uint32_t dtype)
{
    return dtype < N_DTYPES ? dtypes[dtype].name : "UNKNOWN";
}

uint32_t xref_dtype_parse(const char *name)
{
    for (uint32_t i = 1; i < N_DTYPES; i++)
        if (strcmp(dtypes[i].name, name) == 0)
            return i;
    return XI_DT_UNKNOWN;
}

int xref_tensor_bytes(const struct xi_tensor *t, uint64_t *ret)
{
    uint64_t bytes = xref_dtype_bytes(t->dtype);
    int empty = 0;

    for (int i = 0; i < t->rank; i++) {
        if (t->dims[i] < 0)
            return -1;
        if (t->dims[i] == 0)
            empty = 1;
        else if ((uint64_t)t->dims[i] > XREF_TENSOR_MAX / (bytes ? bytes : 1))
            return -1;
        else
            bytes *= (uint64_t)t->dims[i];
    }
    *ret = empty ? 0 : bytes;
    return 0;
}

int xref_tensor_fits(const struct xi_tensor *declared, const struct xi_tensor *given)
{
    if (declared->dtype != given->dtype || declared->rank != given->rank)
        return 0;
    for (int i = 0; i < declared->rank; i++)
        if (declared->dims[i] != given->dims[i] && declared->dims[i] != -1 && given->dims[i] != -1)
            return 0;
    return 1;
}

/* ---- helpers for kernels: these run only on checked shapes ---- */

static size_t count(const struct xi_tensor *t)
{
    size_t n = 1;

    for (int i = 0; i < t->rank; i++)
        n *= (size_t)t->dims[i];
    return n;
}

/* Length of the last axis, and how many such rows there are. */
static size_t row(const struct xi_tensor *t, size_t *ret_rows)
{
    size_t length = t->rank > 0 ? (size_t)t->dims[t->rank - 1] : 1;

    *ret_rows = length > 0 ? count(t) / length : 0;
    return length;
}

static int complain(char why[128], const char *text)
{
    snprintf(why, 128, "%s", text);
    return -1;
}

static int want_float(const struct xi_tensor *t, char why[128])
{
    if (t->dtype == XI_DT_FP32)
        return 0;
    snprintf(why, 128, "takes FP32, not %s", xref_dtype_name(t->dtype));
    return -1;
}

static void same_shape(const struct xi_tensor *from, struct xi_tensor *ret)
{
    ret->dtype = from->dtype;
    ret->rank = from->rank;
    memcpy(ret->dims, from->dims, sizeof(ret->dims));
    ret->bytes = from->bytes;
}

/* ---- shapes ---- */

static int shape_copy(const struct xi_tensor *const a[], struct xi_tensor *ret, char why[128])
{
    (void)why;
    same_shape(a[0], ret);
    return 0;
}

static int shape_unary(const struct xi_tensor *const a[], struct xi_tensor *ret, char why[128])
{
    same_shape(a[0], ret);
    return want_float(a[0], why);
}

/* The second argument is repeated: its shape is one element or the end of the first's shape. */
static int shape_binary(const struct xi_tensor *const a[], struct xi_tensor *ret, char why[128])
{
    const struct xi_tensor *x = a[0], *y = a[1];
    int one = 1, shift = x->rank - y->rank;

    if (want_float(x, why) != 0 || want_float(y, why) != 0)
        return -1;
    for (int i = 0; i < y->rank; i++)
        one = one && y->dims[i] == 1;
    same_shape(x, ret);
    if (one)
        return 0;
    if (shift < 0)
        return complain(why, "second argument has more dimensions than the first");
    for (int i = 0; i < y->rank; i++) {
        int64_t *dim = &ret->dims[i + shift];
        if (*dim != y->dims[i] && *dim != -1 && y->dims[i] != -1)
            return complain(why, "shapes differ: the second must equal the end of the first");
        if (*dim == -1)
            *dim = y->dims[i];
    }
    return 0;
}

static int shape_reduce(const struct xi_tensor *const a[], struct xi_tensor *ret, char why[128])
{
    same_shape(a[0], ret);
    if (want_float(a[0], why) != 0)
        return -1;
    if (a[0]->rank < 1 || a[0]->dims[a[0]->rank - 1] == 0)
        return complain(why, "needs a last dimension of at least 1");
    ret->rank--;
    ret->dims[ret->rank] = 0;
    return 0;
}

static int shape_softmax(const struct xi_tensor *const a[], struct xi_tensor *ret, char why[128])
{
    if (shape_reduce(a, ret, why) != 0)
        return -1;
    same_shape(a[0], ret);
    return 0;
}

static int shape_argmax(const struct xi_tensor *const a[], struct xi_tensor *ret, char why[128])
{
    int rc = shape_reduce(a, ret, why);

    ret->dtype = XI_DT_INT64;
    return rc;
}

static int shape_matmul(const struct xi_tensor *const a[], struct xi_tensor *ret, char why[128])
{
    const struct xi_tensor *x = a[0], *w = a[1];

    if (want_float(x, why) != 0 || want_float(w, why) != 0)
        return -1;
    if (x->rank < 1 || w->rank != 2)
        return complain(why, "takes [..,K] and [K,N]");
    if (x->dims[x->rank - 1] != w->dims[0] && x->dims[x->rank - 1] != -1 && w->dims[0] != -1) {
        snprintf(why, 128, "inner sizes %lld and %lld differ", (long long)x->dims[x->rank - 1],
                 (long long)w->dims[0]);
        return -1;
    }
    same_shape(x, ret);
    ret->dims[ret->rank - 1] = w->dims[1];
    return 0;
}

static int shape_concat(const struct xi_tensor *const a[], struct xi_tensor *ret, char why[128])
{
    int last = a[0]->rank - 1;

    if (want_float(a[0], why) != 0 || want_float(a[1], why) != 0)
        return -1;
    if (last < 0 || a[1]->rank != a[0]->rank)
        return complain(why, "takes two tensors of the same rank, at least 1");
    same_shape(a[0], ret);
    for (int i = 0; i < last; i++) {
        if (a[0]->dims[i] != a[1]->dims[i] && a[0]->dims[i] != -1 && a[1]->dims[i] != -1)
            return complain(why, "all dimensions but the last must be equal");
        if (ret->dims[i] == -1)
            ret->dims[i] = a[1]->dims[i];
    }
    if (a[0]->dims[last] == -1 || a[1]->dims[last] == -1)
        ret->dims[last] = -1;
    else if (a[0]->dims[last] > (int64_t)XREF_TENSOR_MAX - a[1]->dims[last])
        return complain(why, "result is too large");
    else
        ret->dims[last] = a[0]->dims[last] + a[1]->dims[last];
    return 0;
}

/* The number of repetitions must be known at load: data is NULL there for all but constants. */
static int shape_tile(const struct xi_tensor *const a[], struct xi_tensor *ret, char why[128])
{
    int last = a[0]->rank - 1;
    float times;

    if (want_float(a[0], why) != 0 || want_float(a[1], why) != 0)
        return -1;
    if (last < 0)
        return complain(why, "takes a tensor of rank 1 or more");
    if (a[1]->data == NULL || a[1]->rank != 0)
        return complain(why, "second argument must be a literal number");
    times = *(const float *)a[1]->data;
    if (!(times >= 1.0f && times <= 1e6f))
        return complain(why, "repeats 1 to 1000000 times");
    same_shape(a[0], ret);
    if (ret->dims[last] > (int64_t)XREF_TENSOR_MAX)
        return complain(why, "last dimension is too large");
    if (ret->dims[last] != -1)
        ret->dims[last] *= (int64_t)times;
    return 0;
}

/* [rank, n] indexes, as ONNX has it. n is known as soon as the data are. */
static int shape_nonzero(const struct xi_tensor *const a[], struct xi_tensor *ret, char why[128])
{
    const float *x = a[0]->data;
    int64_t n = 0;

    if (want_float(a[0], why) != 0)
        return -1;
    if (a[0]->rank < 1)
        return complain(why, "takes a tensor of rank 1 or more");
    ret->dtype = XI_DT_INT64;
    ret->rank = 2;
    ret->dims[0] = a[0]->rank;
    ret->dims[1] = -1;
    for (int i = 0; i < a[0]->rank; i++)
        if (a[0]->dims[i] < 0)
            return 0;
    if (x == NULL && count(a[0]) > 0)
        return 0;
    for (size_t i = 0, end = count(a[0]); i < end; i++)
        n += x[i] != 0.0f;
    ret->dims[1] = n;
    return 0;
}

/* ---- kernels ---- */

static void run_copy(const struct xi_tensor *const a[], struct xi_tensor *out)
{
    if (out->bytes > 0)
        memcpy(out->data, a[0]->data, out->bytes);
}

static void run_add(const struct xi_tensor *const a[], struct xi_tensor *out)
{
    const float *x = a[0]->data, *y = a[1]->data;
    float *o = out->data;
    size_t n = count(out), m = count(a[1]);

    for (size_t i = 0, j = 0; i < n; i++, j = j + 1 < m ? j + 1 : 0)
        o[i] = x[i] + y[j];
}

static void run_sub(const struct xi_tensor *const a[], struct xi_tensor *out)
{
    const float *x = a[0]->data, *y = a[1]->data;
    float *o = out->data;
    size_t n = count(out), m = count(a[1]);

    for (size_t i = 0, j = 0; i < n; i++, j = j + 1 < m ? j + 1 : 0)
        o[i] = x[i] - y[j];
}

static void run_mul(const struct xi_tensor *const a[], struct xi_tensor *out)
{
    const float *x = a[0]->data, *y = a[1]->data;
    float *o = out->data;
    size_t n = count(out), m = count(a[1]);

    for (size_t i = 0, j = 0; i < n; i++, j = j + 1 < m ? j + 1 : 0)
        o[i] = x[i] * y[j];
}

static void run_relu(const struct xi_tensor *const a[], struct xi_tensor *out)
{
    const float *x = a[0]->data;
    float *o = out->data;

    for (size_t i = 0, n = count(out); i < n; i++)
        o[i] = x[i] < 0.0f ? 0.0f : x[i];
}

static void run_sigmoid(const struct xi_tensor *const a[], struct xi_tensor *out)
{
    const float *x = a[0]->data;
    float *o = out->data;

    for (size_t i = 0, n = count(out); i < n; i++)
        o[i] = 1.0f / (1.0f + expf(-x[i]));
}

static float row_max(const float *x, size_t n)
{
    float top = -FLT_MAX;

    for (size_t i = 0; i < n; i++)
        top = x[i] > top ? x[i] : top;
    return top;
}

/* Shifted by the maximum so that expf can't overflow. */
static void run_softmax(const struct xi_tensor *const a[], struct xi_tensor *out)
{
    const float *x = a[0]->data;
    float *o = out->data;
    size_t rows, n = row(a[0], &rows);

    for (size_t r = 0; r < rows; r++, x += n, o += n) {
        float top = row_max(x, n), total = 0.0f;
        for (size_t i = 0; i < n; i++)
            total += o[i] = expf(x[i] - top);
        for (size_t i = 0; i < n; i++)
            o[i] /= total;
    }
}

static void run_sum(const struct xi_tensor *const a[], struct xi_tensor *out)
{
    const float *x = a[0]->data;
    float *o = out->data;
    size_t rows, n = row(a[0], &rows);

    for (size_t r = 0; r < rows; r++, x += n) {
        double total = 0.0;
        for (size_t i = 0; i < n; i++)
            total += (double)x[i];
        o[r] = (float)total;
    }
}

static void run_mean(const struct xi_tensor *const a[], struct xi_tensor *out)
{
    float *o = out->data;
    size_t rows, n = row(a[0], &rows);

    run_sum(a, out);
    for (size_t r = 0; r < rows; r++)
        o[r] /= (float)n;
}

static void run_max(const struct xi_tensor *const a[], struct xi_tensor *out)
{
    const float *x = a[0]->data;
    float *o = out->data;
    size_t rows, n = row(a[0], &rows);

    for (size_t r = 0; r < rows; r++, x += n)
        o[r] = row_max(x, n);
}

static void run_argmax(const struct xi_tensor *const a[], struct xi_tensor *out)
{
    const float *x = a[0]->data;
    int64_t *o = out->data;
    size_t rows, n = row(a[0], &rows);

    for (size_t r = 0; r < rows; r++, x += n) {
        size_t best = 0;
        for (size_t i = 1; i < n; i++)
            best = x[i] > x[best] ? i : best;
        o[r] = (int64_t)best;
    }
}

static void run_matmul(const struct xi_tensor *const a[], struct xi_tensor *out)
{
    const float *x = a[0]->data, *w = a[1]->data;
    float *o = out->data;
    size_t width = (size_t)a[1]->dims[1], rows, n = row(a[0], &rows);

    if (out->bytes > 0)
        memset(o, 0, out->bytes);
    for (size_t r = 0; r < rows; r++, x += n, o += width)
        for (size_t k = 0; k < n; k++)
            for (size_t j = 0; j < width; j++)
                o[j] += x[k] * w[k * width + j];
}

static void run_concat(const struct xi_tensor *const a[], struct xi_tensor *out)
{
    const float *x = a[0]->data, *y = a[1]->data;
    float *o = out->data;
    size_t rows, ignored, n = row(a[0], &rows), m = row(a[1], &ignored);

    rows = rows > ignored ? rows : ignored; /* one of the two may be empty */
    for (size_t r = 0; r < rows; r++, o += n + m) {
        if (n > 0)
            memcpy(o, x + r * n, n * sizeof(float));
        if (m > 0)
            memcpy(o + n, y + r * m, m * sizeof(float));
    }
}

static void run_tile(const struct xi_tensor *const a[], struct xi_tensor *out)
{
    const float *x = a[0]->data;
    float *o = out->data;
    size_t times = (size_t) * (const float *)a[1]->data, rows, n = row(a[0], &rows);

    for (size_t r = 0; r < rows; r++, x += n)
        for (size_t i = 0; i < times; i++, o += n)
            memcpy(o, x, n * sizeof(float));
}

static void run_nonzero(const struct xi_tensor *const a[], struct xi_tensor *out)
{
    const float *x = a[0]->data;
    int64_t *o = out->data;
    size_t found = 0, n = (size_t)out->dims[1];

    for (size_t i = 0, end = count(a[0]); i < end && found < n; i++) {
        size_t rest = i;
        if (x[i] == 0.0f)
            continue;
        for (int d = a[0]->rank - 1; d >= 0; d--) {
            o[(size_t)d * n + found] = (int64_t)(rest % (size_t)a[0]->dims[d]);
            rest /= (size_t)a[0]->dims[d];
        }
        found++;
    }
}

static const struct xref_op_kind kinds[] = {
    {"copy", 1, shape_copy, run_copy},          {"add", 2, shape_binary, run_add},
    {"sub", 2, shape_binary, run_sub},          {"mul", 2, shape_binary, run_mul},
    {"relu", 1, shape_unary, run_relu},         {"sigmoid", 1, shape_unary, run_sigmoid},
    {"softmax", 1, shape_softmax, run_softmax}, {"sum", 1, shape_reduce, run_sum},
    {"mean", 1, shape_reduce, run_mean},        {"max", 1, shape_reduce, run_max},
    {"argmax", 1, shape_argmax, run_argmax},    {"matmul", 2, shape_matmul, run_matmul},
    {"concat", 2, shape_concat, run_concat},    {"tile", 2, shape_tile, run_tile},
    {"nonzero", 1, shape_nonzero, run_nonzero},
};

const struct xref_op_kind *xref_op_find(const char *name)
{
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
        if (strcmp(kinds[i].name, name) == 0)
            return &kinds[i];
    return NULL;
}
