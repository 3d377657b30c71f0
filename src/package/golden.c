#include "package/golden.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/limits.h"

/* ---- answers ---- */

struct compare {
    const struct xi_manifest_golden *golden;
    struct xi_err *err;
};

static int read_box(const json_t *detection, double ret[4])
{
    const json_t *box = json_object_get(detection, "box");

    if (json_array_size(box) != 4)
        return -1;
    for (size_t i = 0; i < 4; i++)
        ret[i] = json_number_value(json_array_get(box, i));
    return 0;
}

static double overlap(const double a[4], const double b[4])
{
    double w = fmin(a[2], b[2]) - fmax(a[0], b[0]), h = fmin(a[3], b[3]) - fmax(a[1], b[1]);
    double both = w > 0 && h > 0 ? w * h : 0;
    double all = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both;

    return all > 0 ? both / all : 0;
}

static const char *label_of(const json_t *detection)
{
    const char *label = json_string_value(json_object_get(detection, "label"));

    return label ? label : "";
}

/* Without a label file the class is all that tells one thing from another. */
static int same_thing(const json_t *want, const json_t *got)
{
    const json_t *class = json_object_get(want, "class");

    return strcmp(label_of(want), label_of(got)) == 0 &&
           (class == NULL || json_equal(class, json_object_get(got, "class")));
}

static double score_of(const json_t *detection)
{
    return json_number_value(json_object_get(detection, "score"));
}

enum { DETECTIONS_MAX = 1024 };

static enum xi_rc match_detection(const struct compare *c, const json_t *want, const json_t *got,
                                  unsigned char *used)
{
    double box[4] = {0}, other[4], best = 0, best_score = 0;
    size_t best_index = 0;

    if (read_box(want, box) != 0)
        return xi_fail(c->err, XI_EGOLDEN, "an expected detection has no box");
    for (size_t i = 0; i < json_array_size(got); i++) {
        const json_t *d = json_array_get(got, i);
        if (used[i] || !same_thing(want, d) || read_box(d, other) != 0)
            continue;
        double iou = overlap(box, other);
        if (iou > best) {
            best = iou;
            best_index = i;
            best_score = score_of(d);
        }
    }
    if (best == 0 || best < c->golden->iou)
        return xi_fail(c->err, XI_EGOLDEN,
                       "expected %.40s %.2f: the best box of that label overlaps by %.2f, at least "
                       "%.2f is needed",
                       label_of(want), score_of(want), best, c->golden->iou);
    if (!(fabs(best_score - score_of(want)) <= c->golden->score))
        return xi_fail(c->err, XI_EGOLDEN,
                       "expected %.40s with score %.3f, got %.3f, allowed difference %.3f",
                       label_of(want), score_of(want), best_score, c->golden->score);
    used[best_index] = 1;
    return XI_OK;
}

static enum xi_rc compare_detections(const struct compare *c, const json_t *want, const json_t *got)
{
    unsigned char used[DETECTIONS_MAX] = {0};

    if (!json_is_array(got) || json_array_size(got) > DETECTIONS_MAX)
        return xi_fail(c->err, XI_EGOLDEN, "the answer has no list of at most %d detections",
                       DETECTIONS_MAX);
    for (size_t i = 0; i < json_array_size(want); i++) {
        const json_t *d = json_array_get(want, i);
        enum xi_rc rc = match_detection(c, d, got, used);
        if (rc != XI_OK)
            return rc;
    }
    for (size_t i = 0; i < json_array_size(got); i++) {
        const json_t *d = json_array_get(got, i);
        if (!used[i] && !(score_of(d) <= c->golden->extra))
            return xi_fail(c->err, XI_EGOLDEN,
                           "unexpected %.40s with score %.3f, at most %.3f is allowed", label_of(d),
                           score_of(d), c->golden->extra);
    }
    return XI_OK;
}

static int close_enough(const struct xi_manifest_golden *g, double want, double got)
{
    if (isnan(want) || isnan(got))
        return isnan(want) && isnan(got);
    if (isinf(want) || isinf(got))
        return want == got;
    return fabs(got - want) <= g->atol + g->rtol * fabs(want);
}

static enum xi_rc compare_leaf(const struct compare *c, const char *key, const json_t *want,
                               const json_t *got)
{
    int is_name = strcmp(key, "class") == 0; /* though it is a number */

    if (is_name || !json_is_number(want) || !json_is_number(got))
        return json_equal((json_t *)(uintptr_t)want, (json_t *)(uintptr_t)got)
                   ? XI_OK
                   : xi_fail(c->err, XI_EGOLDEN, "\"%.60s\" is not what is expected", key);
    if (close_enough(c->golden, json_number_value(want), json_number_value(got)))
        return XI_OK;
    return xi_fail(c->err, XI_EGOLDEN, "\"%.60s\" is %.6g, expected %.6g", key,
                   json_number_value(got), json_number_value(want));
}

/* One value of the answer that waits for its comparison. */
struct pending {
    const char *key;
    const json_t *want, *got;
};

enum { PENDING_MAX = 4096 };

struct stack {
    struct pending *items;
    size_t n;
};

static enum xi_rc push(const struct compare *c, struct stack *s, const char *key,
                       const json_t *want, const json_t *got)
{
    if (s->n == PENDING_MAX)
        return xi_fail(c->err, XI_EGOLDEN, "the expected answer has too many values");
    s->items[s->n++] = (struct pending){key, want, got};
    return XI_OK;
}

static enum xi_rc compare_one(const struct compare *c, struct stack *s, struct pending p)
{
    enum xi_rc rc = XI_OK;
    const char *key;
    json_t *value;
    size_t i;

    if (strcmp(p.key, "detections") == 0 && json_is_array(p.want))
        return compare_detections(c, p.want, p.got);
    if (json_is_object(p.want) && json_is_object(p.got)) {
        json_object_foreach((json_t *)(uintptr_t)p.want, key, value) if (rc == XI_OK) rc =
            push(c, s, key, value, json_object_get(p.got, key));
        return rc;
    }
    if (json_is_array(p.want) && json_is_array(p.got)) {
        if (json_array_size(p.want) != json_array_size(p.got))
            return xi_fail(c->err, XI_EGOLDEN, "\"%.60s\" has %zu members, expected %zu", p.key,
                           json_array_size(p.got), json_array_size(p.want));
        json_array_foreach((json_t *)(uintptr_t)p.want, i, value) if (rc == XI_OK) rc =
            push(c, s, p.key, value, json_array_get(p.got, i));
        return rc;
    }
    if (p.got == NULL)
        return xi_fail(c->err, XI_EGOLDEN, "\"%.60s\" is missing from the answer", p.key);
    return compare_leaf(c, p.key, p.want, p.got);
}

enum xi_rc xi_golden_check_answer(const struct xi_manifest_golden *golden, const json_t *expect,
                                  const json_t *got, struct xi_err *err)
{
    struct compare c = {.golden = golden, .err = err};
    struct stack s = {.items = calloc(PENDING_MAX, sizeof *s.items)};
    enum xi_rc rc;

    if (s.items == NULL)
        return xi_fail(err, XI_ENOMEM, "golden: out of memory");
    rc = push(&c, &s, "outputs", expect, got);
    while (rc == XI_OK && s.n > 0)
        rc = compare_one(&c, &s, s.items[--s.n]);
    free(s.items);
    return rc == XI_EGOLDEN ? xi_wrap(err, rc, "golden \"%.40s\"", golden->id) : rc;
}

/* ---- tensors ---- */

static double element(enum xi_dtype dtype, const void *data, uint64_t i)
{
    const uint8_t *at = (const uint8_t *)data + i * xi_dtype_bytes(dtype);
    union {
        uint8_t u8;
        int8_t i8;
        uint16_t u16;
        int16_t i16;
        uint32_t u32;
        int32_t i32;
        uint64_t u64;
        int64_t i64;
        float f32;
        double f64;
    } v;

    memcpy(&v, at, xi_dtype_bytes(dtype));
    switch (dtype) {
    case XI_DT_BOOL:
    case XI_DT_UINT8:
        return v.u8;
    case XI_DT_INT8:
        return v.i8;
    case XI_DT_UINT16:
        return v.u16;
    case XI_DT_INT16:
        return v.i16;
    case XI_DT_UINT32:
        return v.u32;
    case XI_DT_INT32:
        return v.i32;
    case XI_DT_UINT64:
        return (double)v.u64;
    case XI_DT_INT64:
        return (double)v.i64;
    case XI_DT_FP16:
        return (double)xi_half_to_float(v.u16);
    case XI_DT_BF16:
        v.u32 = (uint32_t)v.u16 << 16;
        return (double)v.f32;
    case XI_DT_FP32:
        return (double)v.f32;
    default:
        return v.f64;
    }
}

static int is_whole(enum xi_dtype dtype)
{
    return dtype != XI_DT_FP16 && dtype != XI_DT_BF16 && dtype != XI_DT_FP32 && dtype != XI_DT_FP64;
}

static enum xi_rc compare_elements(const struct xi_manifest_golden *g,
                                   const struct xi_manifest_tensor *expect, const void *data,
                                   const struct xi_tensor *got, uint64_t n, struct xi_err *err)
{
    size_t each = xi_dtype_bytes(expect->port.dtype);
    int exact = is_whole(expect->port.dtype) && !g->says_how_near;
    uint64_t bad = 0, worst = 0;
    double worst_by = -1;

    for (uint64_t i = 0; i < n; i++) {
        double want = element(expect->port.dtype, data, i);
        double have = element(expect->port.dtype, got->data, i), by = fabs(have - want);
        if (exact ? memcmp((const uint8_t *)data + i * each, (const uint8_t *)got->data + i * each,
                           each) == 0
                  : close_enough(g, want, have))
            continue;
        bad++;
        if (isnan(by) || by > worst_by) {
            worst = i;
            worst_by = isnan(by) ? INFINITY : by;
        }
    }
    if (bad == 0)
        return XI_OK;
    return xi_fail(err, XI_EGOLDEN,
                   "golden \"%.40s\": output \"%.40s\": %llu of %llu values differ, worst at %llu: "
                   "%.6g, expected %.6g",
                   g->id, expect->port.name, (unsigned long long)bad, (unsigned long long)n,
                   (unsigned long long)worst, element(expect->port.dtype, got->data, worst),
                   element(expect->port.dtype, data, worst));
}

enum xi_rc xi_golden_check_tensor(const struct xi_manifest_golden *golden,
                                  const struct xi_manifest_tensor *expect, const void *data,
                                  uint64_t bytes, const struct xi_tensor *got, struct xi_err *err)
{
    const struct xi_port_spec *port = &expect->port;
    uint64_t elements = 0;
    enum xi_rc rc = xi_port_check(port, got, err);

    if (rc == XI_OK)
        rc = xi_shape_elements(port->dims, port->rank, &elements, err);
    if (rc != XI_OK)
        return xi_wrap(err, XI_EGOLDEN, "golden \"%.40s\"", golden->id);
    if (got->bytes != bytes)
        return xi_fail(err, XI_EGOLDEN,
                       "golden \"%.40s\": output \"%.40s\" has %llu bytes, "
                       "expected %llu",
                       golden->id, port->name, (unsigned long long)got->bytes,
                       (unsigned long long)bytes);
    if (port->dtype != XI_DT_BYTES)
        return compare_elements(golden, expect, data, got, elements, err);
    if (memcmp(data, got->data, (size_t)bytes) != 0)
        return xi_fail(err, XI_EGOLDEN, "golden \"%.40s\": output \"%.40s\" differs", golden->id,
                       port->name);
    return XI_OK;
}
