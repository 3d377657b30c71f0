#include <stdlib.h>

#include "base/clock.h"
#include "daemon/core/pool_private.h"

/* A binary min-heap by deadline; a request knows its place, so any can be taken out. */
static void place(struct xi_deadlines *d, uint32_t i, struct xi_request *req)
{
    d->heap[i] = req;
    req->deadline_index = i + 1;
}

static void sift_up(struct xi_deadlines *d, uint32_t i, struct xi_request *req)
{
    while (i > 0) {
        uint32_t parent = (i - 1) / 2;

        if (d->heap[parent]->deadline_ns <= req->deadline_ns)
            break;
        place(d, i, d->heap[parent]);
        i = parent;
    }
    place(d, i, req);
}

static void sift_down(struct xi_deadlines *d, uint32_t i, struct xi_request *req)
{
    for (;;) {
        uint32_t child = 2 * i + 1;

        if (child >= d->n)
            break;
        if (child + 1 < d->n && d->heap[child + 1]->deadline_ns < d->heap[child]->deadline_ns)
            child++;
        if (req->deadline_ns <= d->heap[child]->deadline_ns)
            break;
        place(d, i, d->heap[child]);
        i = child;
    }
    place(d, i, req);
}

enum xi_rc xi_deadlines_reserve(struct xi_deadlines *d, uint32_t more, struct xi_err *err)
{
    struct xi_request **heap = realloc(d->heap, (size_t)(d->cap + more) * sizeof(*heap));

    if (heap == NULL)
        return xi_fail(err, XI_ENOMEM, "no memory for a queue of %u requests", more);
    d->heap = heap;
    d->cap += more;
    return XI_OK;
}

void xi_deadlines_add(struct xi_deadlines *d, struct xi_request *req)
{
    XI_ASSERT(d->n < d->cap && req->deadline_index == 0);
    d->n++;
    sift_up(d, d->n - 1, req);
}

void xi_deadlines_remove(struct xi_deadlines *d, struct xi_request *req)
{
    uint32_t i = req->deadline_index;
    struct xi_request *last;

    if (i == 0)
        return;
    i--;
    req->deadline_index = 0;
    last = d->heap[--d->n];
    if (last == req)
        return;
    if (i > 0 && d->heap[(i - 1) / 2]->deadline_ns > last->deadline_ns)
        sift_up(d, i, last);
    else
        sift_down(d, i, last);
}

static void on_deadline(uv_timer_t *timer)
{
    struct xi_pool *pool = timer->data;
    uint64_t now = xi_now_ns();

    pool->deadline_armed_ns = 0;
    while (pool->deadlines.n > 0 && pool->deadlines.heap[0]->deadline_ns <= now)
        xi_request_refuse(pool->deadlines.heap[0], XI_ETIMEOUT);
    xi_pool_settle(pool);
    xi_pool_dispatch(pool); /* a suspect that left may let the queue behind it go on */
    xi_pool_settle(pool);
    xi_pool_arm_deadline(pool);
}

/* The timer may be early for a request that has left: it then finds nothing and is set anew. */
void xi_pool_arm_deadline(struct xi_pool *pool)
{
    uint64_t first, now, ms = 0;

    if (pool->deadlines.n == 0)
        return;
    first = pool->deadlines.heap[0]->deadline_ns;
    if (pool->deadline_armed_ns != 0 && pool->deadline_armed_ns <= first)
        return;
    now = xi_now_ns();
    /* The loop's clock may lie up to one turn behind; rounding up never fires too early. */
    if (first > now)
        ms = (first - now) / 1000000u + 1;
    pool->deadline_armed_ns = first;
    (void)uv_timer_start(&pool->deadline_timer, on_deadline, ms, 0);
}
