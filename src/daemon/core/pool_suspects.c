#include "base/log.h"
#include "daemon/core/pool_private.h"
#include "daemon/core/sequences.h"

static void all_lanes_free(struct xi_queue *q)
{
    uint32_t i;

    for (i = 0; i < q->n_lanes; i++) {
        if (q->session->lanes[i].id != 0)
            xi_lane_free(q, i);
    }
}

/* The request that ran alone when the host died, or NULL: there was none, or its client left. */
static struct xi_request *culprit(const struct xi_queue *q)
{
    return q->alone ? q->running.head : NULL;
}

enum xi_crash_blame xi_pool_host_gone(struct xi_session *s, int wanted, const char *reason)
{
    struct xi_queue *q = s->queue;
    struct xi_request *guilty = wanted ? NULL : culprit(q);
    enum xi_crash_blame blame = q->answered > 0 ? XI_BLAME_LATER : XI_BLAME_MODEL;

    all_lanes_free(q);
    q->alone = 0;
    q->killed = 0;
    q->mode = q->mode == XI_QUEUE_OPEN ? XI_QUEUE_HELD : q->mode;
    if (guilty != NULL) {
        blame = q->answered > 0 ? XI_BLAME_ONLY_REQUEST : XI_BLAME_REQUEST;
        xi_poison_convict(q, guilty, reason);
    }
    while (q->running.head != NULL) {
        xi_log(XI_INFO, "request.suspect", "id=%s request=%llu host=%s", s->id,
               (unsigned long long)q->running.head->id, reason);
        if (s->stateful == XI_STATE_HIDDEN && q->running.head->sequence != NULL)
            xi_request_refuse(q->running.head, XI_ESEQUENCE);
        else
            xi_request_move(q->running.head, XI_REQ_SUSPECT);
    }
    xi_sequences_host_gone(s);
    if (!wanted)
        q->answered = 0;
    xi_queue_update(q);
    xi_pool_arm_deadline(q->pool);
    /* Its lanes are free for other sessions. */
    xi_pool_dispatch(q->pool);
    xi_pool_settle(q->pool);
    return blame;
}
