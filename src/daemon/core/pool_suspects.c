#include "base/log.h"
#include "daemon/core/pool_poison.h"
#include "daemon/core/pool_private.h"
#include "daemon/core/sequences.h"

/* ---- who shares a host ---- */

static struct xi_cell *cell_of_host(const struct xi_queue *q)
{
    struct xi_queue *o;

    for (o = q->pool->all; o != NULL; o = o->all_next) {
        if (o != q && o->cell != NULL && !o->cell->gone && o->session->host == q->session->host)
            return o->cell;
    }
    return NULL;
}

void xi_cell_join(struct xi_queue *q)
{
    xi_cell_leave(q);
    q->cell = cell_of_host(q);
    if (q->cell == NULL) {
        q->own = (struct xi_cell){0};
        q->cell = &q->own;
    }
    q->suspects_shown = 0;
    q->cell_prev = NULL;
    q->cell_next = q->cell->first;
    if (q->cell_next != NULL)
        q->cell_next->cell_prev = q;
    q->cell->first = q;
}

/* The others go on in one that lies with one of them. */
static void move_out(struct xi_queue *q)
{
    struct xi_queue *heir = q->own.first, *m;

    if (heir == NULL)
        return;
    heir->own = q->own;
    for (m = heir; m != NULL; m = m->cell_next)
        m->cell = &heir->own;
}

void xi_cell_leave(struct xi_queue *q)
{
    struct xi_cell *cell = q->cell;

    if (cell == NULL)
        return;
    cell->suspects -= q->suspects_shown;
    q->suspects_shown = 0;
    if (q->cell_prev != NULL)
        q->cell_prev->cell_next = q->cell_next;
    else
        cell->first = q->cell_next;
    if (q->cell_next != NULL)
        q->cell_next->cell_prev = q->cell_prev;
    q->cell_prev = NULL;
    q->cell_next = NULL;
    if (cell == &q->own)
        move_out(q);
    q->cell = NULL;
}

void xi_cell_update(struct xi_cell *cell)
{
    struct xi_queue *q;

    for (q = cell->first; q != NULL; q = q->cell_next)
        xi_queue_update(q);
}

void xi_pool_load_ended(struct xi_session *s)
{
    struct xi_queue *q = s->queue;

    if (q->cell == NULL || q->cell->suspects == 0 || q->cell->gone)
        return;
    xi_cell_update(q->cell);
    xi_pool_dispatch(q->pool);
    xi_pool_settle(q->pool);
}

/* ---- a host died ---- */

static void free_lanes(struct xi_queue *q)
{
    uint32_t i;

    for (i = 0; i < q->n_run + q->n_stage; i++) {
        if (q->session->lanes[i].left > 0)
            xi_lane_release(q, i);
    }
}

/* What PRE had made has gone with the host. */
static void unprepare(struct xi_request *first)
{
    for (; first != NULL; first = first->next)
        first->prepared = 0;
}

static void unprepare_all(struct xi_queue *q)
{
    unsigned stage, class;

    for (stage = 0; stage < 3; stage++) {
        for (class = 0; class < XI_PRIORITIES; class ++)
            unprepare(q->lines[stage].lines[class].head);
    }
    unprepare(q->running.head);
    unprepare(q->suspects.head);
    q->prepared = 0;
}

/* Whose fault, as this session's rules should see it. Of those that share the host only who had
 * something running can have ended it; where nothing ran at all it may have been anybody. */
static enum xi_crash_blame blame_of(const struct xi_queue *q, const struct xi_cell *cell, int busy)
{
    enum xi_crash_blame model = q->answered > 0 ? XI_BLAME_LATER : XI_BLAME_MODEL;

    if (cell->guilty == q && q->running.head != NULL)
        return q->answered > 0 ? XI_BLAME_ONLY_REQUEST : XI_BLAME_REQUEST;
    if (cell->guilty == NULL && (busy || cell->gone_busy == 0))
        return model;
    return cell->guilty == q ? model : XI_BLAME_NONE;
}

static void hear_of_it(struct xi_cell *cell)
{
    if (cell->gone)
        return;
    cell->gone = 1;
    cell->gone_busy = cell->busy_lanes;
    cell->guilty = cell->alone;
    xi_cell_update(cell); /* nothing of the others goes to it any more */
}

/* The state that these were to go on with has gone; the next host would run them without. */
static void refuse_hidden(struct xi_queue *q)
{
    unsigned stage, class;

    for (stage = 0; stage < 3; stage++) {
        for (class = 0; class < XI_PRIORITIES; class ++) {
            struct xi_request *req, *next;

            for (req = q->lines[stage].lines[class].head; req != NULL; req = next) {
                next = req->next;
                if (req->sequence != NULL && !(req->sequence_flags & XI_SEQUENCE_START))
                    xi_request_refuse(req, XI_ESEQUENCE);
            }
        }
    }
}

static void suspect_all(struct xi_queue *q, const char *reason)
{
    while (q->running.head != NULL) {
        struct xi_request *req = q->running.head;

        xi_log(XI_INFO, "request.suspect", "id=%s request=%llu host=%s", q->session->id,
               (unsigned long long)req->id, reason);
        if (q->session->stateful == XI_STATE_HIDDEN && req->sequence != NULL)
            xi_request_refuse(req, XI_ESEQUENCE);
        else
            xi_request_move(req, XI_REQ_SUSPECT);
    }
    if (q->session->stateful == XI_STATE_HIDDEN)
        refuse_hidden(q);
    xi_sequences_host_gone(q->session);
}

enum xi_crash_blame xi_pool_host_gone(struct xi_session *s, int wanted, const char *reason)
{
    struct xi_queue *q = s->queue;
    enum xi_crash_blame blame = q->answered > 0 ? XI_BLAME_LATER : XI_BLAME_MODEL;
    struct xi_request *guilty = NULL;

    if (q->cell != NULL && !wanted) { /* else the host may live on for the others */
        hear_of_it(q->cell);
        blame = blame_of(q, q->cell, q->n_free_run + q->n_free_stage < q->n_run + q->n_stage);
        /* NULL also when its client has left meanwhile. */
        guilty = q->cell->guilty == q ? q->running.head : NULL;
    }
    free_lanes(q);
    unprepare_all(q);
    xi_cell_leave(q);
    q->killed = 0;
    xi_queue_mode(q, q->mode == XI_QUEUE_OPEN ? XI_QUEUE_HELD : q->mode);
    xi_pool_budget(q->pool, q->device);
    if (guilty != NULL)
        xi_poison_convict(q, guilty, reason);
    suspect_all(q, reason);
    if (!wanted)
        q->answered = 0;
    xi_queue_update(q);
    xi_pool_arm_deadline(q->pool);
    /* Its lanes are free for other sessions. */
    xi_pool_dispatch(q->pool);
    xi_pool_settle(q->pool);
    return blame;
}
