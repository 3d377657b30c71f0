#include "daemon/core/fair.h"

#include <stddef.h>

/* So far an entry may be ahead of its tenant's others and still go first for its deadline. */
#define AHEAD_NS (5ull * 1000 * 1000)
/* Nobody saves, or owes, more. */
#define SAVED_MAX_NS (10ll * 1000 * 1000 * 1000)

/* Percent of the device that a class is promised while it waits: realtime has no need of it. */
static const int64_t promised[XI_FAIR_CLASSES] = {0, 20, 5};

static uint32_t weight_of(const struct xi_fair_account *a)
{
    return a->weight == NULL || *a->weight == 0 ? 1 : *a->weight;
}

static void advance(struct xi_fair_clock *c, int64_t ns, uint32_t weight)
{
    int64_t sum = (int64_t)c->rest + ns, w = weight, by = sum / w, rest = sum % w;

    if (rest < 0) {
        rest += w;
        by--;
    }
    c->at = by < 0 && (uint64_t)-by > c->at ? 0 : c->at + (uint64_t)by;
    c->rest = (uint64_t)rest;
}

/* Who has nothing running comes back where the others are. Who ran all the time but had no free
 * lane keeps what it is owed, as far as two runs go. */
static void catch_up(struct xi_fair_clock *c, uint64_t floor, uint64_t owed)
{
    uint64_t least = floor > owed ? floor - owed : 0;

    if (c->at < least) {
        c->at = least;
        c->rest = 0;
    }
}

static int busy(const struct xi_fair *f, unsigned class)
{
    return f->ready[class] != NULL || f->running[class] > 0;
}

static void forget_savings(struct xi_fair *f, unsigned class)
{
    if (!busy(f, class) && f->saved_ns[class] > 0)
        f->saved_ns[class] = 0;
}

/* ---- ready or not ---- */

static void account_ready(struct xi_fair *f, struct xi_fair_entry *e)
{
    struct xi_fair_account *a = e->account, **head = &f->ready[e->class];
    struct xi_fair_turn *t = &a->turns[e->class];

    catch_up(&t->clock, f->floor[e->class], t->running > 0 ? 2 * e->cost_ns / weight_of(a) + 1 : 0);
    t->prev = NULL;
    t->next = *head;
    if (*head != NULL)
        (*head)->turns[e->class].prev = a;
    *head = a;
}

static void account_idle(struct xi_fair *f, const struct xi_fair_entry *e)
{
    struct xi_fair_turn *t = &e->account->turns[e->class];

    if (t->prev != NULL)
        t->prev->turns[e->class].next = t->next;
    else
        f->ready[e->class] = t->next;
    if (t->next != NULL)
        t->next->turns[e->class].prev = t->prev;
    t->prev = NULL;
    t->next = NULL;
}

void xi_fair_ready(struct xi_fair *f, struct xi_fair_entry *e, uint64_t deadline_ns,
                   uint64_t cost_ns)
{
    struct xi_fair_turn *t = &e->account->turns[e->class];

    e->deadline_ns = deadline_ns;
    e->cost_ns = cost_ns;
    if (e->ready)
        return;
    if (t->ready == NULL)
        account_ready(f, e);
    catch_up(&e->clock, t->floor, e->running > 0 ? 2 * cost_ns : 0);
    e->ready = 1;
    e->prev = NULL;
    e->next = t->ready;
    if (t->ready != NULL)
        t->ready->prev = e;
    t->ready = e;
}

void xi_fair_idle(struct xi_fair *f, struct xi_fair_entry *e)
{
    struct xi_fair_turn *t;

    if (!e->ready)
        return;
    t = &e->account->turns[e->class];
    if (e->prev != NULL)
        e->prev->next = e->next;
    else
        t->ready = e->next;
    if (e->next != NULL)
        e->next->prev = e->prev;
    e->prev = NULL;
    e->next = NULL;
    e->ready = 0;
    if (t->ready == NULL)
        account_idle(f, e);
    forget_savings(f, e->class);
}

/* ---- whose turn ---- */

static struct xi_fair_entry *first_of_tenant(const struct xi_fair_turn *t)
{
    uint64_t least = UINT64_MAX;
    struct xi_fair_entry *e, *best = NULL;

    for (e = t->ready; e != NULL; e = e->next)
        least = e->clock.at < least ? e->clock.at : least;
    for (e = t->ready; e != NULL; e = e->next) {
        if (e->clock.at - least > AHEAD_NS)
            continue;
        if (best == NULL || e->deadline_ns < best->deadline_ns ||
            (e->deadline_ns == best->deadline_ns && e->clock.at < best->clock.at))
            best = e;
    }
    return best;
}

static struct xi_fair_entry *first_of_class(const struct xi_fair *f, unsigned class)
{
    const struct xi_fair_account *a, *best = f->ready[class];

    for (a = best; a != NULL; a = a->turns[class].next) {
        if (a->turns[class].clock.at < best->turns[class].clock.at)
            best = a;
    }
    return best == NULL ? NULL : first_of_tenant(&best->turns[class]);
}

static int has_saved_enough(const struct xi_fair *f, const struct xi_fair_entry *e)
{
    uint64_t cost = e->cost_ns < SAVED_MAX_NS ? e->cost_ns : SAVED_MAX_NS;

    return f->saved_ns[e->class] > 0 && (uint64_t)f->saved_ns[e->class] >= cost;
}

struct xi_fair_entry *xi_fair_pick(const struct xi_fair *f, unsigned classes)
{
    struct xi_fair_entry *e;
    unsigned top = 0, class;

    while (top < XI_FAIR_CLASSES && ((classes & (1u << top)) == 0 || f->ready[top] == NULL))
        top++;
    if (top == XI_FAIR_CLASSES)
        return NULL;
    for (class = XI_FAIR_CLASSES - 1; class > top; class --) {
        if ((classes & (1u << class)) == 0 || f->ready[class] == NULL || f->saved_ns[class] <= 0)
            continue;
        e = first_of_class(f, class);
        if (has_saved_enough(f, e))
            return e;
    }
    return first_of_class(f, top);
}

/* ---- what it costs ---- */

static int64_t clamp(int64_t ns)
{
    return ns > SAVED_MAX_NS ? SAVED_MAX_NS : ns < -SAVED_MAX_NS ? -SAVED_MAX_NS : ns;
}

/* So much device time went to `class`. The others save their part of it; the class itself spends
 * what it had saved, and gets into debt only where it went ahead of a higher one. */
static void share_out(struct xi_fair *f, unsigned class, int64_t ns, int ahead)
{
    int64_t spent = ns * (100 - promised[class]) / 100, *own = &f->saved_ns[class];
    unsigned c;

    for (c = 0; c < XI_FAIR_CLASSES; c++) {
        if (c != class && promised[c] > 0 && busy(f, c))
            f->saved_ns[c] = clamp(f->saved_ns[c] + ns * promised[c] / 100);
    }
    if (promised[class] == 0)
        return;
    if (ahead)
        *own = clamp(*own - spent);
    else if (*own > 0 && spent > 0)
        *own = *own > spent ? *own - spent : 0;
}

static int higher_waits(const struct xi_fair *f, unsigned class)
{
    unsigned c;

    for (c = 0; c < class; c++) {
        if (f->ready[c] != NULL)
            return 1;
    }
    return 0;
}

static void charge(struct xi_fair *f, const struct xi_fair_ticket *ticket, int64_t ns)
{
    struct xi_fair_entry *e = ticket->entry;

    advance(&e->clock, ns, 1);
    advance(&e->account->turns[e->class].clock, ns, weight_of(e->account));
    share_out(f, e->class, ns, ticket->ahead);
}

void xi_fair_start(struct xi_fair *f, struct xi_fair_entry *e, struct xi_fair_ticket *ret)
{
    struct xi_fair_turn *t = &e->account->turns[e->class];

    *ret = (struct xi_fair_ticket){
        .entry = e, .charged_ns = e->cost_ns, .ahead = higher_waits(f, e->class)};
    if (f->floor[e->class] < t->clock.at)
        f->floor[e->class] = t->clock.at;
    if (t->floor < e->clock.at)
        t->floor = e->clock.at;
    e->running++;
    t->running++;
    f->running[e->class]++;
    charge(f, ret, (int64_t)ret->charged_ns);
}

void xi_fair_end(struct xi_fair *f, const struct xi_fair_ticket *ticket, uint64_t took_ns)
{
    struct xi_fair_entry *e = ticket->entry;

    charge(f, ticket, (int64_t)took_ns - (int64_t)ticket->charged_ns);
    e->running--;
    e->account->turns[e->class].running--;
    f->running[e->class]--;
    forget_savings(f, e->class);
}
