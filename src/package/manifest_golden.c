#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "package/manifest_parts.h"

enum { BANDS_MAX = 256, INLINE_VALUES_MAX = 65536 };

/* ---- split and escalate ---- */

static const char *read_model_name(const struct xi_place *p, const char *key, int required,
                                   const struct xi_manifest *m)
{
    const char *name = xi_place_word(p, key, required, XI_NAME_MAX);

    if (name == NULL || xi_manifest_model(m, name) != NULL)
        return name;
    xi_place_bad(p, key, "\"%.60s\" is not one of the package's models", name);
    return NULL;
}

static void read_bottleneck(const struct xi_place *p, const struct xi_manifest *m,
                            struct xi_manifest_split *ret)
{
    static const char *const known[] = {"encoder", "decoder", NULL};
    struct xi_place child;

    if (!xi_place_object(p, "bottleneck", 0, &child))
        return;
    xi_place_keys(&child, known);
    ret->encoder = read_model_name(&child, "encoder", 1, m);
    ret->decoder = read_model_name(&child, "decoder", 1, m);
}

static void read_split(const struct xi_place *p, const struct xi_manifest *m,
                       struct xi_manifest_split *ret)
{
    static const char *const known[] = {"id",    "model", "name", "dtype", "shape",
                                        "bytes", "share", "head", "tail",  "bottleneck",
                                        "atol",  "rtol",  NULL};

    xi_place_keys(p, known);
    ret->id = xi_place_word(p, "id", XI_JSON_REQUIRED, 63);
    ret->model = read_model_name(p, "model", 0, m);
    ret->model = ret->model ? ret->model : "main";
    xi_place_port(p, &ret->port);
    ret->bytes = (uint64_t)xi_place_int(p, "bytes", 0, (int64_t)XI_BODY_MAX, 0);
    ret->share = xi_place_number(p, "share", 0, 1, 0);
    ret->head = read_model_name(p, "head", 0, m);
    ret->tail = read_model_name(p, "tail", 0, m);
    if ((ret->head == NULL) != (ret->tail == NULL))
        xi_place_bad(p, "head", "and tail come together");
    read_bottleneck(p, m, ret);
    ret->atol = xi_place_number(p, "atol", 0, 1e30, 1e-4);
    ret->rtol = xi_place_number(p, "rtol", 0, 1e30, 1e-3);
}

void xi_manifest_read_splits(const struct xi_place *p, struct xi_manifest *ret)
{
    size_t n = 0;
    json_t *list = xi_place_list(p, "split", 0, XI_MANIFEST_SPLITS_MAX, &n);

    ret->splits = xi_place_alloc(p, n, sizeof *ret->splits);
    ret->n_splits = ret->splits ? n : 0;
    for (size_t i = 0; i < ret->n_splits; i++) {
        struct xi_place item;
        if (xi_place_item(p, "split", list, i, &item))
            read_split(&item, ret, &ret->splits[i]);
    }
}

static void read_band(const struct xi_place *p, const char *label, const json_t *value,
                      struct xi_manifest_band *ret)
{
    const json_t *low = json_array_get(value, 0), *high = json_array_get(value, 1);

    *ret = (struct xi_manifest_band){.label = label,
                                     .reject_below = json_number_value(low),
                                     .accept_from = json_number_value(high)};
    if (json_array_size(value) != 2 || !json_is_number(low) || !json_is_number(high) ||
        ret->reject_below < 0 || ret->accept_from > 1 || ret->reject_below > ret->accept_from)
        xi_place_bad(p, label, "must be [reject below, accept from], 0 to 1");
}

static void read_bands(const struct xi_place *p, struct xi_manifest_escalate *ret)
{
    struct xi_place child;
    const char *label;
    json_t *value;

    if (!xi_place_object(p, "bands", 0, &child))
        return;
    size_t n = json_object_size(child.obj);
    if (n > BANDS_MAX)
        xi_place_bad(p, "bands", "has %zu members, at most %d are allowed", n, BANDS_MAX);
    ret->bands = xi_place_alloc(&child, n, sizeof *ret->bands);
    if (ret->bands == NULL)
        return;
    json_object_foreach(child.obj, label, value)
        read_band(&child, label, value, &ret->bands[ret->n_bands++]);
}

static void read_target(const struct xi_place *p, struct xi_manifest_escalate *ret)
{
    static const char *const known[] = {"package", "min_tops", NULL};
    struct xi_place child;

    if (!xi_place_object(p, "to", 1, &child))
        return;
    xi_place_keys(&child, known);
    ret->package = xi_place_text(&child, "package", XI_JSON_REQUIRED, XI_NAME_MAX + 66);
    ret->min_tops = xi_place_number(&child, "min_tops", 0, 1e9, 0);
}

void xi_manifest_read_escalate(const struct xi_place *p, struct xi_manifest *ret)
{
    static const char *const known[] = {"when",  "to",      "send",      "deadline_ms", "fallback",
                                        "audit", "regions", "per_track", "bands",       NULL};
    static const char *const sends[] = {"auto", "encoded", "raw", "tensor", "bottleneck", NULL};
    static const char *const fallbacks[] = {"local", "error", NULL};
    struct xi_place child;

    if (!xi_place_object(p, "escalate", 0, &child))
        return;
    struct xi_manifest_escalate *e = xi_place_alloc(p, 1, sizeof *e);
    ret->escalate = e;
    if (e == NULL)
        return;
    xi_place_keys(&child, known);
    e->when = xi_place_text(&child, "when", 0, 255);
    read_target(&child, e);
    e->send = xi_place_choice(&child, "send", 0, sends);
    e->send = e->send ? e->send : "auto";
    e->fallback = xi_place_choice(&child, "fallback", 0, fallbacks);
    e->fallback = e->fallback ? e->fallback : "local";
    e->deadline_ms = (uint32_t)xi_place_int(&child, "deadline_ms", 1, 600000, 1000);
    e->audit = xi_place_number(&child, "audit", 0, 1, 0);
    e->regions = xi_place_bool(&child, "regions");
    e->per_track = xi_place_bool(&child, "per_track");
    read_bands(&child, e);
    if (e->when == NULL && e->n_bands == 0)
        xi_place_bad(&child, "when", "or bands must say when to escalate");
}

/* ---- golden ---- */

/* Whole numbers that the type cannot hold would be cut to others. */
static int holds(enum xi_dtype dtype, const json_t *value)
{
    int is_signed =
        dtype == XI_DT_INT8 || dtype == XI_DT_INT16 || dtype == XI_DT_INT32 || dtype == XI_DT_INT64;
    int is_long = dtype == XI_DT_INT64 || dtype == XI_DT_UINT64;
    int bits = (int)xi_dtype_bytes(dtype) * 8 - is_signed;
    double v = json_number_value(value);

    if (dtype == XI_DT_FP16 || dtype == XI_DT_BF16 || dtype == XI_DT_FP32 || dtype == XI_DT_FP64)
        return 1;
    if (is_long && json_is_integer(value))
        return is_signed || json_integer_value(value) >= 0;
    double end = ldexp(1, dtype == XI_DT_BOOL ? 1 : is_long ? 63 : bits);
    return v >= (is_signed ? -end : 0) && v < end && floor(v) >= v;
}

static void check_inline(const struct xi_place *p, const struct xi_manifest_tensor *t)
{
    uint64_t elements = 0;
    size_t i;
    json_t *value;

    if (t->port.dtype == XI_DT_BYTES) {
        xi_place_bad(p, "data", "can't hold BYTES, use a file");
        return;
    }
    if (!json_is_array(t->data) || json_array_size(t->data) > INLINE_VALUES_MAX) {
        xi_place_bad(p, "data", "must be a flat list of at most %d numbers", INLINE_VALUES_MAX);
        return;
    }
    json_array_foreach((json_t *)(uintptr_t)t->data, i, value)
    {
        if (!json_is_number(value))
            xi_place_bad(p, "data", "must be a flat list of numbers");
        else if (!holds(t->port.dtype, value))
            xi_place_bad(p, "data", "has %g, which no %s is", json_number_value(value),
                         xi_dtype_name(t->port.dtype));
    }
    if (xi_shape_elements(t->port.dims, t->port.rank, &elements, NULL) != XI_OK ||
        elements != json_array_size(t->data))
        xi_place_bad(p, "data", "has %zu numbers, the shape wants %llu", json_array_size(t->data),
                     (unsigned long long)elements);
}

static void read_tensor(const struct xi_place *p, struct xi_manifest_tensor *ret)
{
    static const char *const known[] = {"name", "dtype", "shape", "file", "data", NULL};
    uint64_t bytes = 0;

    xi_place_keys(p, known);
    xi_place_port(p, &ret->port);
    ret->file = xi_place_path(p, "file", 0, "assets/");
    ret->data = json_object_get(p->obj, "data");
    if (xi_place_failed(p))
        return;
    if (ret->port.rank < 0)
        xi_place_bad(p, "shape", "is missing");
    for (int i = 0; i < ret->port.rank; i++)
        if (ret->port.dims[i] < 0)
            xi_place_bad(p, "shape", "of a golden must be fixed");
    if ((ret->file == NULL) == (ret->data == NULL))
        xi_place_bad(p, "file", "or data must be given, not both");
    if (xi_place_failed(p))
        return;
    if (ret->port.dtype != XI_DT_BYTES &&
        xi_shape_bytes(ret->port.dtype, ret->port.dims, ret->port.rank, &bytes, NULL) != XI_OK)
        xi_place_bad(p, "shape", "has too many elements");
    if (ret->data != NULL)
        check_inline(p, ret);
}

static struct xi_manifest_tensor *read_tensors(const struct xi_place *p, size_t *ret_n)
{
    size_t n = 0;
    json_t *list = xi_place_list(p, "tensors", 1, XI_TENSORS_MAX, &n);
    struct xi_manifest_tensor *tensors = xi_place_alloc(p, n, sizeof *tensors);

    for (size_t i = 0; tensors != NULL && i < n; i++) {
        struct xi_place item;
        if (xi_place_item(p, "tensors", list, i, &item))
            read_tensor(&item, &tensors[i]);
    }
    *ret_n = tensors ? n : 0;
    return tensors;
}

static void read_input(const struct xi_place *p, struct xi_manifest_golden *ret)
{
    static const char *const known[] = {"file", "type", "tensors", NULL};
    struct xi_place child;

    if (!xi_place_object(p, "input", 1, &child))
        return;
    xi_place_keys(&child, known);
    if (json_object_get(child.obj, "tensors") != NULL) {
        if (json_object_get(child.obj, "file") != NULL)
            xi_place_bad(&child, "file", "and tensors exclude each other");
        ret->inputs = read_tensors(&child, &ret->n_inputs);
        return;
    }
    ret->input_file = xi_place_path(&child, "file", 1, "assets/");
    ret->input_type = xi_place_text(&child, "type", 1, 100);
}

static void read_expect(const struct xi_place *p, struct xi_manifest_golden *ret)
{
    static const char *const known[] = {"file", "tensors", NULL};
    struct xi_place child;

    if (!xi_place_object(p, "expect", 1, &child))
        return;
    xi_place_keys(&child, known);
    if (json_object_get(child.obj, "tensors") != NULL) {
        if (json_object_get(child.obj, "file") != NULL)
            xi_place_bad(&child, "file", "and tensors exclude each other");
        ret->expects = read_tensors(&child, &ret->n_expects);
        return;
    }
    ret->expect_file = xi_place_path(&child, "file", 1, "assets/");
}

static void read_tolerance(const struct xi_place *p, struct xi_manifest_golden *ret)
{
    static const char *const known[] = {"atol", "rtol", "score", "iou", "extra", NULL};
    struct xi_place child;

    ret->atol = 1e-4;
    ret->rtol = 1e-3;
    ret->score = 0.05;
    ret->iou = 0.9;
    if (!xi_place_object(p, "tolerance", 0, &child))
        return;
    xi_place_keys(&child, known);
    ret->atol = xi_place_number(&child, "atol", 0, 1e30, ret->atol);
    ret->rtol = xi_place_number(&child, "rtol", 0, 1e30, ret->rtol);
    ret->says_how_near =
        json_object_get(child.obj, "atol") != NULL || json_object_get(child.obj, "rtol") != NULL;
    ret->score = xi_place_number(&child, "score", 0, 1, ret->score);
    ret->iou = xi_place_number(&child, "iou", 0, 1, ret->iou);
    ret->extra = xi_place_number(&child, "extra", 0, 1, 0);
}

static void read_golden(const struct xi_place *p, const struct xi_manifest *m,
                        struct xi_manifest_golden *ret)
{
    static const char *const known[] = {"id", "model", "input", "expect", "tolerance", NULL};

    xi_place_keys(p, known);
    ret->id = xi_place_word(p, "id", XI_JSON_REQUIRED, 63);
    ret->model = read_model_name(p, "model", 0, m);
    if (ret->model == NULL && m->flow == NULL)
        ret->model = "main";
    read_input(p, ret);
    read_expect(p, ret);
    read_tolerance(p, ret);
    if (ret->model != NULL && !xi_place_failed(p) &&
        (ret->input_file != NULL || ret->expect_file != NULL))
        xi_place_bad(p, "input", "and expect of a model must be tensors (only a flow takes files)");
}

void xi_manifest_read_goldens(const struct xi_place *p, struct xi_manifest *ret)
{
    size_t n = 0;
    json_t *list = xi_place_list(p, "golden", 0, XI_MANIFEST_GOLDENS_MAX, &n);

    ret->goldens = xi_place_alloc(p, n, sizeof *ret->goldens);
    ret->n_goldens = ret->goldens ? n : 0;
    for (size_t i = 0; i < ret->n_goldens; i++) {
        struct xi_place item;
        if (!xi_place_item(p, "golden", list, i, &item))
            return;
        read_golden(&item, ret, &ret->goldens[i]);
        for (size_t k = 0; k < i && !xi_place_failed(p); k++)
            if (strcmp(ret->goldens[k].id, ret->goldens[i].id) == 0)
                xi_place_bad(p, "golden", "has the id \"%s\" twice", ret->goldens[i].id);
    }
}

void xi_manifest_free_goldens(struct xi_manifest *manifest)
{
    for (size_t i = 0; i < manifest->n_goldens; i++) {
        free(manifest->goldens[i].inputs);
        free(manifest->goldens[i].expects);
    }
    free(manifest->goldens);
}
