/* nms: boxes and scores → detections in pixels of the sent picture, best first.
 *
 * Greedy non-maximum suppression. Equal scores go by box, then class, so that an answer is the
 * same on every machine. A box or score that is not finite is no detection. */
#include <math.h>

#include "flow/params.h"
#include "flow/steps.h"

enum { MAX_MAX = 1000 };

struct nms {
    double iou, score;
    int64_t max, candidates, background;
    int class_aware, multi_class, in_pixels;
    const struct xi_labels *labels;
};

struct candidate {
    float score;
    uint32_t box, label;
};

static const char *const units[] = {"parts", "pixels", NULL};

static enum xi_rc parse(struct xi_flow_parser *p, const json_t *obj, void *params,
                        struct xi_err *err)
{
    struct nms *self = params;
    enum xi_rc rc;

    *self = (struct nms){.iou = 0.5,
                         .score = 0.5,
                         .max = 100,
                         .candidates = 1000,
                         .background = -1,
                         .class_aware = 1};
    rc = xi_json_number(obj, "", "iou_threshold", XI_JSON_OPTIONAL, 0, 1, &self->iou, err);
    if (rc == XI_OK)
        rc = xi_json_number(obj, "", "score_threshold", XI_JSON_OPTIONAL, -1e9, 1e9, &self->score,
                            err);
    if (rc == XI_OK)
        rc = xi_json_int(obj, "", "max", XI_JSON_OPTIONAL, 1, MAX_MAX, &self->max, err);
    if (rc == XI_OK)
        rc = xi_json_int(obj, "", "candidates", XI_JSON_OPTIONAL, 1, XI_FLOW_CANDIDATES_MAX,
                         &self->candidates, err);
    if (rc == XI_OK)
        rc = xi_json_int(obj, "", "background", XI_JSON_OPTIONAL, -1, XI_FLOW_LABEL_LINES_MAX,
                         &self->background, err);
    if (rc == XI_OK)
        rc = xi_json_bool(obj, "", "class_aware", XI_JSON_OPTIONAL, &self->class_aware, err);
    if (rc == XI_OK)
        rc = xi_json_bool(obj, "", "multi_class", XI_JSON_OPTIONAL, &self->multi_class, err);
    if (rc == XI_OK)
        rc = xi_param_choice(obj, "units", units, 0, &self->in_pixels, err);
    return rc == XI_OK ? xi_labels_get(p, obj, &self->labels, err) : rc;
}

/* [n,m] or [1,n,m]; m must be `last` unless that is 0. */
static enum xi_rc check_shape(const char *name, int32_t rank, const int64_t *dims, int64_t last,
                              struct xi_err *err)
{
    char text[64];
    int fits = rank == 2 || (rank == 3 && (dims[0] == 1 || dims[0] < 0));

    if (rank < 0)
        return XI_OK;
    if (fits && (last == 0 || dims[rank - 1] < 0 || dims[rank - 1] == last))
        return XI_OK;
    return xi_fail(err, XI_EFLOW, "\"%.60s\" is %s, wanted is %s", name,
                   xi_shape_text(dims, rank, text, sizeof text),
                   last ? "[n,4] or [1,n,4]" : "[n,classes] or [1,n,classes]");
}

static enum xi_rc check_count(const char *name, int64_t boxes, int64_t scores, struct xi_err *err)
{
    if (boxes < 0 || scores < 0 || boxes == scores)
        return XI_OK;
    return xi_fail(err, XI_EFLOW, "\"%.60s\" has %lld rows for %lld boxes", name, (long long)scores,
                   (long long)boxes);
}

static enum xi_rc check(const struct xi_flow *flow, const struct xi_flow_step *step,
                        struct xi_flow_type *types, struct xi_err *err)
{
    const struct xi_flow_type *boxes = &types[step->in[0]], *scores = &types[step->in[1]];
    const char *name = xi_slot_name(flow, step->in[1]);
    enum xi_rc rc = xi_want_tensor(flow, types, step->in[0], XI_DT_FP32, err);

    if (rc == XI_OK)
        rc = xi_want_tensor(flow, types, step->in[1], XI_DT_FP32, err);
    if (rc == XI_OK && step->n_in > 2)
        rc = xi_want_kind(flow, types, step->in[2], XI_VALUE_PICTURE, err);
    if (rc == XI_OK)
        rc = check_shape(xi_slot_name(flow, step->in[0]), boxes->rank, boxes->dims, 4, err);
    if (rc == XI_OK)
        rc = check_shape(name, scores->rank, scores->dims, 0, err);
    if (rc == XI_OK && boxes->rank >= 2 && scores->rank >= 2)
        rc = check_count(name, boxes->dims[boxes->rank - 2], scores->dims[scores->rank - 2], err);
    types[step->out[0]] = xi_type_of(XI_VALUE_DETECTIONS);
    return rc;
}

static int better(const struct candidate *a, const struct candidate *b)
{
    if (a->score > b->score || a->score < b->score)
        return a->score > b->score;
    return a->box != b->box ? a->box < b->box : a->label < b->label;
}

/* A heap whose root is the worst: the best `room` candidates in bounded memory. */
struct heap {
    struct candidate *at;
    uint32_t n, room;
};

static void sift_down(struct candidate *at, uint32_t n, uint32_t i)
{
    struct candidate moved = at[i];

    for (;;) {
        uint32_t child = 2 * i + 1;
        if (child >= n)
            break;
        if (child + 1 < n && better(&at[child], &at[child + 1]))
            child++;
        if (!better(&moved, &at[child]))
            break;
        at[i] = at[child];
        i = child;
    }
    at[i] = moved;
}

static void offer(struct heap *h, struct candidate c)
{
    if (h->n == h->room) {
        if (!better(&c, &h->at[0]))
            return;
        h->at[0] = c;
        sift_down(h->at, h->n, 0);
        return;
    }
    uint32_t i = h->n++;
    for (; i > 0 && better(&h->at[(i - 1) / 2], &c); i = (i - 1) / 2)
        h->at[i] = h->at[(i - 1) / 2];
    h->at[i] = c;
}

/* Best first: the worst goes to the end, again and again. */
static void sort(struct heap *h)
{
    for (uint32_t n = h->n; n > 1; n--) {
        struct candidate worst = h->at[0];
        h->at[0] = h->at[n - 1];
        h->at[n - 1] = worst;
        sift_down(h->at, n - 1, 0);
    }
}

static void offer_classes(const struct nms *self, const float *scores, uint32_t classes,
                          uint32_t box, struct heap *h)
{
    struct candidate best = {.box = box};
    int has_best = 0;

    for (uint32_t c = 0; c < classes; c++) {
        struct candidate here = {.score = scores[c], .box = box, .label = c};
        if (c == self->background || !((double)scores[c] >= self->score) || !isfinite(scores[c]))
            continue;
        if (self->multi_class)
            offer(h, here);
        else if (!has_best || here.score > best.score)
            best = here;
        has_best = 1;
    }
    if (has_best && !self->multi_class)
        offer(h, best);
}

static int box_usable(const float *b)
{
    return isfinite(b[0]) && isfinite(b[1]) && isfinite(b[2]) && isfinite(b[3]) && b[2] > b[0] &&
           b[3] > b[1];
}

static float iou(const float *a, const float *b)
{
    float w = fminf(a[2], b[2]) - fmaxf(a[0], b[0]), h = fminf(a[3], b[3]) - fmaxf(a[1], b[1]);

    if (w <= 0 || h <= 0)
        return 0;
    float both = w * h, area_a = (a[2] - a[0]) * (a[3] - a[1]),
          area_b = (b[2] - b[0]) * (b[3] - b[1]);
    return both / (area_a + area_b - both);
}

/* Moves the survivors to the front of the sorted candidates; returns their number. */
static uint32_t suppress(const struct nms *self, const float *boxes, struct heap *h)
{
    uint32_t kept = 0;

    for (uint32_t i = 0; i < h->n && kept < self->max; i++) {
        const struct candidate c = h->at[i];
        uint32_t k = 0;
        for (; k < kept; k++) {
            if (self->class_aware && h->at[k].label != c.label)
                continue;
            if ((double)iou(boxes + 4 * (size_t)c.box, boxes + 4 * (size_t)h->at[k].box) >
                self->iou)
                break;
        }
        if (k == kept)
            h->at[kept++] = c;
    }
    return kept;
}

static float clamp(double v, double high)
{
    return (float)fmin(fmax(v, 0), high);
}

/* From the coordinates of the picture the model saw to pixels of the one that was sent. */
static void to_sent(const struct nms *self, const struct xi_picture *p, const float *box,
                    float ret[4])
{
    double kx = self->in_pixels ? 1 : p->width, ky = self->in_pixels ? 1 : p->height;

    for (int i = 0; i < 4; i += 2) {
        ret[i] = clamp((double)box[i] * kx * p->scale_x + p->shift_x, p->sent_width);
        ret[i + 1] = clamp((double)box[i + 1] * ky * p->scale_y + p->shift_y, p->sent_height);
    }
}

static void tell(const struct nms *self, const struct xi_picture *picture, const float *boxes,
                 const struct candidate *c, uint32_t n, struct xi_flow_value *v)
{
    v->n_found = 0;
    v->found = v->buf.data;
    v->labels = self->labels;
    for (uint32_t i = 0; i < n; i++) {
        struct xi_detection d = {.score = c[i].score, .label = c[i].label};
        const float *box = boxes + 4 * (size_t)c[i].box;
        for (int k = 0; k < 4; k++)
            d.box[k] = box[k];
        if (picture != NULL)
            to_sent(self, picture, box, d.box);
        if (d.box[2] > d.box[0] && d.box[3] > d.box[1]) /* not wholly outside */
            v->found[v->n_found++] = d;
    }
}

static enum xi_rc check_inputs(const struct xi_flow_run *r, const struct xi_flow_step *step,
                               struct xi_err *err)
{
    const struct xi_tensor *boxes = &r->values[step->in[0]].tensor;
    const struct xi_tensor *scores = &r->values[step->in[1]].tensor;
    const char *name = xi_slot_name(r->flow, step->in[1]);
    enum xi_rc rc = xi_flow_want(r, step->in[0], XI_DT_FP32, err);

    if (rc == XI_OK)
        rc = xi_flow_want(r, step->in[1], XI_DT_FP32, err);
    if (rc == XI_OK)
        rc = check_shape(xi_slot_name(r->flow, step->in[0]), boxes->rank, boxes->dims, 4, err);
    if (rc == XI_OK)
        rc = check_shape(name, scores->rank, scores->dims, 0, err);
    if (rc == XI_OK)
        rc = check_count(name, boxes->dims[boxes->rank - 2], scores->dims[scores->rank - 2], err);
    if (rc == XI_OK && scores->bytes / sizeof(float) > UINT32_MAX)
        rc = xi_fail(err, XI_EFLOW, "\"%.60s\" has too many scores", name);
    return rc;
}

static enum xi_rc run(struct xi_flow_run *r, const struct xi_flow_step *step, struct xi_err *err)
{
    const struct nms *self = step->params;
    const struct xi_tensor *scores = &r->values[step->in[1]].tensor;
    const float *boxes = r->values[step->in[0]].tensor.data;
    struct xi_flow_value *v = &r->values[step->out[0]];
    struct xi_flow_buf *scratch = &r->scratch[XI_SCRATCH_A];
    enum xi_rc rc = check_inputs(r, step, err);

    if (rc == XI_OK)
        rc = xi_flow_need(scratch, (uint64_t)self->candidates * sizeof(struct candidate), err);
    if (rc == XI_OK)
        rc = xi_flow_need(&v->buf, (uint64_t)self->max * sizeof *v->found, err);
    if (rc != XI_OK)
        return rc;
    struct heap h = {.at = scratch->data, .room = (uint32_t)self->candidates};
    uint32_t n = (uint32_t)scores->dims[scores->rank - 2];
    uint32_t classes = (uint32_t)scores->dims[scores->rank - 1];
    for (uint32_t i = 0; i < n; i++)
        if (box_usable(boxes + 4 * (size_t)i))
            offer_classes(self, (const float *)scores->data + (size_t)i * classes, classes, i, &h);
    sort(&h);
    n = suppress(self, boxes, &h);
    tell(self, step->n_in > 2 ? &r->values[step->in[2]].picture : NULL, boxes, h.at, n, v);
    return XI_OK;
}

static const char *const keys[] = {
    "op",    "in",         "out",        "iou_threshold", "score_threshold",
    "max",   "candidates", "background", "class_aware",   "multi_class",
    "units", "labels",     NULL};

const struct xi_step_kind xi_step_nms = {
    .op = "nms",
    .keys = keys,
    .min_in = 2,
    .max_in = 3,
    .min_out = 1,
    .max_out = 1,
    .params_bytes = sizeof(struct nms),
    .parse = parse,
    .check = check,
    .run = run,
};
