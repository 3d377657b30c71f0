#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "daemon/core/pool_private.h"

/* Timers count milliseconds: a batch may leave so much before its time. */
#define EARLY_NS 500000u
/* Runs so short cost less than waking a lane for each of them, so they go to it in one record. */
#define CONVOY_NS 100000u

/* ---- devices ---- */

int xi_is_processor(const struct xi_pool *pool, const struct xi_device *d)
{
    return d == &pool->devices[0];
}

void xi_pool_devices_init(struct xi_pool *pool)
{
    (void)snprintf(pool->devices[0].name, sizeof(pool->devices[0].name), "CPU");
    pool->devices[0].budget = pool->config.cores;
    pool->n_devices = 1;
}

struct xi_device *xi_pool_device(struct xi_pool *pool, const struct xi_session *s)
{
    struct xi_device *d;
    uint32_t i;

    if (s->device_kind == XI_DEV_CPU)
        return &pool->devices[0];
    for (i = 1; i < pool->n_devices; i++) {
        if (strcmp(pool->devices[i].name, s->device) == 0)
            return &pool->devices[i];
    }
    if (pool->n_devices == XI_POOL_DEVICES_MAX)
        return &pool->devices[XI_POOL_DEVICES_MAX - 1];
    d = &pool->devices[pool->n_devices++];
    (void)snprintf(d->name, sizeof(d->name), "%s", s->device);
    return d;
}

/* An accelerator runs as many at once as the session with the most lanes on it has. */
void xi_pool_budget(struct xi_pool *pool, struct xi_device *d)
{
    const struct xi_queue *q;

    if (xi_is_processor(pool, d))
        return;
    d->budget = 0;
    for (q = pool->all; q != NULL; q = q->all_next) {
        if (q->device == d && q->cell != NULL && q->n_run > d->budget)
            d->budget = q->n_run;
    }
}

/* Realtime work may use one core more than there are, and the kernel puts it first; batch work
 * leaves one alone while somebody could need it at once. */
static uint32_t budget_of(const struct xi_pool *pool, const struct xi_device *d, unsigned class)
{
    if (!xi_is_processor(pool, d))
        return d->budget;
    if (class == XI_PRIORITY_REALTIME)
        return d->budget + 1;
    if (class == XI_PRIORITY_BATCH && pool->realtime > 0 && d->budget > 1)
        return d->budget - 1;
    return d->budget;
}

uint32_t xi_turn_cost(const struct xi_turn *turn)
{
    const struct xi_queue *q = turn->queue;
    uint32_t most, threads = q->session->options.threads;

    if (turn->kind == XI_TURN_STAGE || !xi_is_processor(q->pool, q->device) || threads <= 1)
        return 1;
    most = budget_of(q->pool, q->device, turn->fair.class);
    return threads < most ? threads : most;
}

/* ---- who could run ---- */

struct xi_device *xi_turn_device(const struct xi_turn *turn)
{
    return turn->kind == XI_TURN_STAGE ? &turn->queue->pool->devices[0] : turn->queue->device;
}

static void turn_idle(struct xi_turn *turn)
{
    xi_fair_idle(&xi_turn_device(turn)->fair, &turn->fair);
}

static void turn_ready(struct xi_turn *turn, const struct xi_request *first)
{
    const struct xi_queue *q = turn->queue;
    uint64_t learned = turn->kind == XI_TURN_STAGE ? q->stage_ns
                       : q->run_ns != 0            ? q->run_ns
                                                   : q->session->service_ns;

    xi_fair_ready(&xi_turn_device(turn)->fair, &turn->fair,
                  first->deadline_ns == 0 ? XI_FAIR_NO_DEADLINE : first->deadline_ns,
                  learned * xi_turn_cost(turn));
}

static int may_run(const struct xi_queue *q)
{
    return (q->mode == XI_QUEUE_OPEN || q->mode == XI_QUEUE_CLOSED) && q->cell != NULL &&
           !q->cell->gone && q->session->host != NULL && !q->killed;
}

/* So many are kept ready for the device by their PRE that each lane finds a batch. */
static int may_prepare(const struct xi_queue *q)
{
    return q->prepared < q->lines[XI_STAGE_RUN].max_rows * (q->n_run + 1);
}

/* What is begun is finished first. */
static struct xi_request *first_for_stage(const struct xi_queue *q, unsigned class)
{
    struct xi_request *post = q->lines[XI_STAGE_POST].lines[class].head;

    if (post != NULL || !may_prepare(q))
        return post;
    return q->lines[XI_STAGE_PRE].lines[class].head;
}

/* NULL: nothing, or its batch still waits for company. */
static struct xi_request *first_to_run(struct xi_queue *q, unsigned class)
{
    struct xi_batcher *b = &q->lines[XI_STAGE_RUN];
    uint64_t leaves;

    if (b->lines[class].n == 0)
        return NULL;
    leaves = xi_batcher_leaves_ns(b, class, q->run_ns);
    if (leaves != 0 && leaves > xi_now_ns() + EARLY_NS) {
        if (q->leaves_ns == 0 || leaves < q->leaves_ns)
            q->leaves_ns = leaves;
        return NULL;
    }
    return b->lines[class].head;
}

static enum xi_turn_kind kind_of(const struct xi_request *req)
{
    return req->stage == XI_STAGE_RUN ? XI_TURN_RUN : XI_TURN_STAGE;
}

/* The suspect in turn, when nothing else runs in the whole host, and nothing is loaded there: a
 * load may end it, too. */
static struct xi_request *suspect_of(const struct xi_queue *q)
{
    return q->cell->busy_lanes == 0 && !xi_host_loads(q->session->host) ? q->suspects.head : NULL;
}

static struct xi_request *first_of(struct xi_queue *q, enum xi_turn_kind kind, unsigned class)
{
    struct xi_request *suspect;

    if (!may_run(q) || q->cell->alone != NULL)
        return NULL;
    if (q->cell->suspects > 0) {
        suspect = suspect_of(q);
        return suspect != NULL && kind_of(suspect) == kind && suspect->priority == class ? suspect
                                                                                         : NULL;
    }
    if (kind == XI_TURN_STAGE)
        return q->n_free_stage > 0 ? first_for_stage(q, class) : NULL;
    return q->n_free_run > 0 ? first_to_run(q, class) : NULL;
}

/* What was configured last, as far as the host and our memory go. */
static void set_batching(struct xi_queue *q)
{
    const struct xi_session *s = q->session;
    uint32_t rows = s->options.max_batch != 0 && s->options.max_batch < s->max_batch
                        ? s->options.max_batch
                        : s->max_batch;

    q->lines[XI_STAGE_RUN].max_rows = rows < q->lane_room ? rows : q->lane_room;
    q->lines[XI_STAGE_RUN].max_delay_ns = (uint64_t)s->options.max_delay_us * 1000u;
}

static void show_suspects(struct xi_queue *q)
{
    uint32_t shown = may_run(q) ? q->suspects.n : 0, before;

    if (q->cell == NULL || shown == q->suspects_shown)
        return;
    before = q->cell->suspects;
    q->cell->suspects = before - q->suspects_shown + shown;
    q->suspects_shown = shown;
    if ((before == 0) != (q->cell->suspects == 0))
        xi_cell_update(q->cell);
}

static void arm_batch_timer(struct xi_pool *pool, uint64_t leaves_ns);

void xi_queue_update(struct xi_queue *q)
{
    unsigned kind, class;

    show_suspects(q);
    set_batching(q);
    q->leaves_ns = 0;
    for (kind = 0; kind < XI_TURN_KINDS; kind++) {
        for (class = 0; class < XI_PRIORITIES; class ++) {
            struct xi_turn *turn = &q->turns[kind][class];
            const struct xi_request *first = first_of(q, kind, class);

            if (first == NULL)
                turn_idle(turn);
            else
                turn_ready(turn, first);
        }
    }
    if (q->leaves_ns != 0)
        arm_batch_timer(q->pool, q->leaves_ns);
}

void xi_queue_mode(struct xi_queue *q, enum xi_queue_mode mode)
{
    int urgent = q->session->options.priority == XI_PRIORITY_REALTIME;

    q->pool->realtime += (uint32_t)(urgent && mode == XI_QUEUE_OPEN && q->mode != XI_QUEUE_OPEN);
    q->pool->realtime -= (uint32_t)(urgent && mode != XI_QUEUE_OPEN && q->mode == XI_QUEUE_OPEN);
    q->mode = mode;
    xi_queue_update(q);
}

/* ---- batches that wait for company ---- */

static void on_batch_timer(uv_timer_t *timer)
{
    struct xi_pool *pool = timer->data;
    struct xi_queue *q;

    pool->batch_armed_ns = 0;
    for (q = pool->all; q != NULL; q = q->all_next) {
        if (q->leaves_ns != 0)
            xi_queue_update(q);
    }
    xi_pool_dispatch(pool);
    xi_pool_settle(pool);
}

static void arm_batch_timer(struct xi_pool *pool, uint64_t leaves_ns)
{
    uint64_t now = xi_now_ns();

    if (pool->batch_armed_ns != 0 && pool->batch_armed_ns <= leaves_ns)
        return;
    pool->batch_armed_ns = leaves_ns;
    (void)uv_timer_start(&pool->batch_timer, on_batch_timer,
                         leaves_ns > now ? (leaves_ns - now + EARLY_NS) / 1000000u : 0, 0);
}

/* ---- whose turn ---- */

/* NULL also when the one in turn needs more cores than are free: they are being gathered. */
static struct xi_turn *next_turn(const struct xi_pool *pool, const struct xi_device *d)
{
    struct xi_turn *turn;
    unsigned class, classes = 0;

    for (class = 0; class < XI_PRIORITIES; class ++) {
        if (d->used < budget_of(pool, d, class))
            classes |= 1u << class;
    }
    turn = (struct xi_turn *)(void *)xi_fair_pick(&d->fair, classes);
    if (turn == NULL || d->used + xi_turn_cost(turn) > budget_of(pool, d, turn->fair.class))
        return NULL;
    return turn;
}

/* Drops who is too late. */
static uint32_t still_in_time(struct xi_request **items, uint32_t n)
{
    uint64_t now = xi_now_ns();
    uint32_t i, kept = 0;

    for (i = 0; i < n; i++) {
        if (items[i]->deadline_ns != 0 && items[i]->deadline_ns <= now)
            xi_request_refuse(items[i], XI_ETIMEOUT);
        else
            items[kept++] = items[i];
    }
    return kept;
}

/* The lanes that are free share what waits; others' turns come no later for it than CONVOY_NS. */
static uint32_t convoy_of(const struct xi_queue *q)
{
    const struct xi_session *s = q->session;
    uint32_t each = (q->lines[XI_STAGE_RUN].n + q->n_free_run - 1) / q->n_free_run;
    uint64_t most = s->staged || s->service_ns == 0 ? 1 : CONVOY_NS / s->service_ns;

    if (most > q->lane_room)
        most = q->lane_room;
    return most < each ? (uint32_t)most : each;
}

static uint32_t form(struct xi_queue *q, unsigned class, struct xi_request **items)
{
    struct xi_batcher *b = &q->lines[XI_STAGE_RUN];

    b->convoy = convoy_of(q);
    return xi_batcher_form(b, class, items);
}

/* Never calls done. */
static void take_turn(struct xi_turn *turn)
{
    XI_UNINIT struct xi_request *items[XI_BATCH_MAX];
    struct xi_queue *q = turn->queue;
    uint32_t n = 1;

    if (q->cell->suspects > 0)
        items[0] = suspect_of(q);
    else if (turn->kind == XI_TURN_STAGE)
        items[0] = first_for_stage(q, turn->fair.class);
    else
        n = form(q, turn->fair.class, items);
    n = still_in_time(items, n);
    if (n > 0)
        xi_lane_start(q, turn, items, n);
    xi_queue_update(q);
}

void xi_pool_dispatch(struct xi_pool *pool)
{
    struct xi_turn *turn;
    uint32_t i;

    for (i = 0; i < pool->n_devices; i++) {
        while ((turn = next_turn(pool, &pool->devices[i])) != NULL)
            take_turn(turn);
    }
}
