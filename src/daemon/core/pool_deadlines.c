#include "base/clock.h"
#include "daemon/core/pool_private.h"

/* A pairing heap (Fredman and others, 1986) through the requests themselves: any can be taken out,
 * and nothing is ever allocated. `before` is the parent of a first child, else the sibling before.
 */
static struct xi_request *meld(struct xi_request *a, struct xi_request *b)
{
    if (a == NULL || b == NULL)
        return a == NULL ? b : a;
    if (b->deadline_ns < a->deadline_ns) {
        struct xi_request *first = b;

        b = a;
        a = first;
    }
    b->before = a;
    b->peer = a->later;
    if (b->peer != NULL)
        b->peer->before = b;
    a->later = b;
    return a;
}

/* Siblings two by two, then what came of it from the last to the first. */
static struct xi_request *meld_all(struct xi_request *first)
{
    struct xi_request *pairs = NULL, *heap = NULL;

    while (first != NULL) {
        struct xi_request *second = first->peer, *rest = second == NULL ? NULL : second->peer;

        first->peer = NULL;
        if (second != NULL)
            second->peer = NULL;
        first = meld(first, second);
        first->peer = pairs;
        pairs = first;
        first = rest;
    }
    while (pairs != NULL) {
        struct xi_request *next = pairs->peer;

        pairs->peer = NULL;
        heap = meld(heap, pairs);
        pairs = next;
    }
    return heap;
}

void xi_deadlines_add(struct xi_pool *pool, struct xi_request *req)
{
    XI_ASSERT(!req->timed);
    req->timed = 1;
    req->later = NULL;
    req->peer = NULL;
    req->before = NULL;
    pool->first_deadline = meld(pool->first_deadline, req);
}

void xi_deadlines_remove(struct xi_pool *pool, struct xi_request *req)
{
    struct xi_request *below;

    if (!req->timed)
        return;
    req->timed = 0;
    below = meld_all(req->later);
    if (req == pool->first_deadline) {
        pool->first_deadline = below;
    } else {
        if (req->before->later == req)
            req->before->later = req->peer;
        else
            req->before->peer = req->peer;
        if (req->peer != NULL)
            req->peer->before = req->before;
        pool->first_deadline = meld(pool->first_deadline, below);
    }
    if (pool->first_deadline != NULL)
        pool->first_deadline->before = NULL;
}

static void on_deadline(uv_timer_t *timer)
{
    struct xi_pool *pool = timer->data;
    uint64_t now = xi_now_ns();

    pool->deadline_armed_ns = 0;
    while (pool->first_deadline != NULL && pool->first_deadline->deadline_ns <= now)
        xi_request_refuse(pool->first_deadline, XI_ETIMEOUT);
    xi_pool_settle(pool);
    xi_pool_dispatch(pool); /* a suspect that left may let the queue behind it go on */
    xi_pool_settle(pool);
    xi_pool_arm_deadline(pool);
}

/* The timer may be early for a request that has left: it then finds nothing and is set anew. */
void xi_pool_arm_deadline(struct xi_pool *pool)
{
    uint64_t first, now, ms = 0;

    if (pool->first_deadline == NULL)
        return;
    first = pool->first_deadline->deadline_ns;
    if (pool->deadline_armed_ns != 0 && pool->deadline_armed_ns <= first)
        return;
    now = xi_now_ns();
    /* The loop's clock may lie up to one turn behind; rounding up never fires too early. */
    if (first > now)
        ms = (first - now) / 1000000u + 1;
    pool->deadline_armed_ns = first;
    (void)uv_timer_start(&pool->deadline_timer, on_deadline, ms, 0);
}
