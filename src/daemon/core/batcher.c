#include "daemon/core/batcher.h"

/* How far behind the first one its like are looked for. */
#define LOOK_AHEAD(max_rows) (4 * (max_rows) + 16)
/* A run may take so much longer than expected, and timers are so late, without missing a deadline.
 */
#define SLACK_NS(run_ns) ((run_ns) / 4 + 1000000u)

static uint64_t due(const struct xi_request *req, uint64_t since_ns)
{
    return req->deadline_ns != 0 ? req->deadline_ns : since_ns + XI_BATCH_PATIENCE_NS;
}

void xi_batcher_add(struct xi_batcher *b, struct xi_request *req, uint64_t now_ns)
{
    struct xi_batch_line *line = &b->lines[req->priority];
    struct xi_request *after = line->tail;

    req->since_ns = now_ns;
    req->due_ns = due(req, now_ns);
    while (after != NULL && after->due_ns > req->due_ns)
        after = after->prev;
    req->prev = after;
    req->next = after != NULL ? after->next : line->head;
    if (req->next != NULL)
        req->next->prev = req;
    else
        line->tail = req;
    if (after != NULL)
        after->next = req;
    else
        line->head = req;
    line->n++;
    b->n++;
}

void xi_batcher_remove(struct xi_batcher *b, struct xi_request *req)
{
    struct xi_batch_line *line = &b->lines[req->priority];

    if (req->prev != NULL)
        req->prev->next = req->next;
    else
        line->head = req->next;
    if (req->next != NULL)
        req->next->prev = req->prev;
    else
        line->tail = req->prev;
    req->prev = NULL;
    req->next = NULL;
    line->n--;
    b->n--;
}

uint32_t xi_batcher_ahead(const struct xi_batcher *b, const struct xi_request *req, uint64_t now_ns)
{
    const struct xi_batch_line *line = &b->lines[req->priority];
    const struct xi_request *r;
    uint64_t mine = due(req, now_ns);
    uint32_t ahead = line->n;
    unsigned class;

    for (r = line->tail; r != NULL && r->due_ns > mine; r = r->prev)
        ahead--;
    for (class = 0; class < req->priority; class ++)
        ahead += b->lines[class].n;
    return ahead;
}

/* ---- batches ---- */

struct batch {
    uint32_t n, rows, looked;
    size_t record_bytes;
    uint64_t oldest_ns, tightest_ns;
    int full;
};

static uint32_t rows_of(const struct xi_request *req)
{
    return req->rows == 0 ? 1 : req->rows;
}

static int is_full(const struct xi_batcher *b, const struct batch *batch)
{
    if (batch->n >= XI_BATCH_MAX)
        return 1;
    return b->max_rows <= 1 ? batch->n >= b->convoy : batch->rows >= b->max_rows;
}

static int has_room(const struct xi_batcher *b, const struct batch *batch, uint32_t rows)
{
    return b->max_rows <= 1 || batch->rows + rows <= b->max_rows;
}

/* 0: it does not fit any more, and neither may those behind it overtake it. */
static int take(const struct xi_batcher *b, struct batch *batch, const struct xi_request *req)
{
    size_t parts = req->n_parts + (req->loan != NULL ? req->loan->n_places : 0);
    size_t bytes = sizeof(struct xi_work_request) + parts * sizeof(struct xi_part);

    if (batch->n > 0 &&
        (!has_room(b, batch, rows_of(req)) || batch->record_bytes + bytes > XI_WORK_RECORD_MAX)) {
        batch->full = 1;
        return 0;
    }
    batch->n++;
    batch->rows += rows_of(req);
    batch->record_bytes += bytes;
    if (req->since_ns < batch->oldest_ns)
        batch->oldest_ns = req->since_ns;
    if (req->deadline_ns != 0 && req->deadline_ns < batch->tightest_ns)
        batch->tightest_ns = req->deadline_ns;
    batch->full = is_full(b, batch);
    return 1;
}

static void form(const struct xi_batcher *b, unsigned class, struct batch *batch,
                 struct xi_request **ret)
{
    struct xi_request *first = b->lines[class].head, *r;

    *batch = (struct batch){.record_bytes = sizeof(struct xi_work_head),
                            .oldest_ns = UINT64_MAX,
                            .tightest_ns = UINT64_MAX};
    for (r = first; r != NULL && !batch->full; r = r->next) {
        if (++batch->looked > LOOK_AHEAD(b->max_rows))
            return;
        if (b->max_rows > 1 && r->shape_key != first->shape_key)
            continue;
        if (!take(b, batch, r))
            return;
        if (ret != NULL)
            ret[batch->n - 1] = r;
    }
}

uint64_t xi_batcher_leaves_ns(const struct xi_batcher *b, unsigned class, uint64_t run_ns)
{
    uint64_t leave, needed = run_ns + SLACK_NS(run_ns);
    struct batch batch;

    if (b->lines[class].n == 0)
        return XI_BATCH_NEVER;
    if (b->max_delay_ns == 0 || b->max_rows <= 1)
        return 0;
    form(b, class, &batch, NULL);
    if (batch.full)
        return 0;
    leave = batch.oldest_ns + b->max_delay_ns;
    if (batch.tightest_ns == UINT64_MAX)
        return leave;
    if (batch.tightest_ns <= needed)
        return 0;
    return batch.tightest_ns - needed < leave ? batch.tightest_ns - needed : leave;
}

uint32_t xi_batcher_form(const struct xi_batcher *b, unsigned class,
                         struct xi_request *ret[XI_BATCH_MAX])
{
    struct batch batch;

    form(b, class, &batch, ret);
    return batch.n;
}
