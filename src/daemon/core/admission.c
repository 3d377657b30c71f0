#include "daemon/core/admission.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct budget {
    char name[64];
    uint64_t limit, total, available, seen_ms;
    uint64_t freed; /* since it was seen */
};

struct xi_admission {
    uint64_t guard_ms;
    int evict;
    uint32_t n;
    struct budget budgets[XI_BUDGETS_MAX];
    struct xi_holding *first; /* those that hold or were promised something */
    struct xi_victims scratch;
};

/* Where a claim stands: what stays if the victims so far leave. */
struct room {
    struct xi_admission *a;
    const struct budget *b;
    uint32_t budget;
    const struct xi_tenant *tenant;
    const struct xi_holding *asking;
    uint64_t extra;        /* that is asked for */
    uint64_t staying;      /* of the budget, held or promised */
    uint64_t tenant_stays; /* of the tenant, in all budgets */
    uint64_t unrealised;   /* reserved, but not yet taken from what the machine says is free */
    uint64_t gain;         /* that the machine will have on top of `available` */
    int resident;          /* what is asked for is taken already: the machine has given it */
};

const char *xi_memory_source_name(enum xi_memory_source s)
{
    static const char *const names[] = {"measured", "estimated", "guessed"};

    return (unsigned)s < sizeof(names) / sizeof(names[0]) ? names[s] : "unknown";
}

const char *xi_bytes_text(uint64_t bytes, char ret[24])
{
    double mib = (double)bytes / (double)XI_MIB;

    if (mib < 1024)
        (void)snprintf(ret, 24, "%.1f MiB", mib);
    else
        (void)snprintf(ret, 24, "%.2f GiB", mib / 1024);
    return ret;
}

struct xi_admission *xi_admission_new(uint64_t guard_ms)
{
    struct xi_admission *a = calloc(1, sizeof(*a));

    if (a == NULL)
        return NULL;
    a->guard_ms = guard_ms;
    a->evict = 1;
    (void)xi_admission_budget(a, "memory", 0);
    return a;
}

void xi_admission_free(struct xi_admission *a)
{
    XI_ASSERT(a == NULL || a->first == NULL);
    free(a);
}

void xi_admission_evict(struct xi_admission *a, int on)
{
    a->evict = on;
}

uint32_t xi_admission_budget(struct xi_admission *a, const char *name, uint64_t limit_bytes)
{
    uint32_t i = 0;

    while (i < a->n && strcmp(a->budgets[i].name, name) != 0)
        i++;
    if (i == XI_BUDGETS_MAX)
        return XI_BUDGETS_MAX - 1;
    if (i == a->n) {
        a->n++;
        a->budgets[i].available = XI_MEMORY_UNKNOWN;
        (void)snprintf(a->budgets[i].name, sizeof(a->budgets[i].name), "%s", name);
    }
    a->budgets[i].limit = limit_bytes;
    return i;
}

void xi_admission_seen(struct xi_admission *a, uint32_t budget, uint64_t total_bytes,
                       uint64_t available_bytes, uint64_t at_ms)
{
    struct budget *b = &a->budgets[budget];

    if (at_ms != b->seen_ms)
        b->freed = 0;
    b->total = total_bytes;
    b->available = available_bytes;
    b->seen_ms = at_ms;
}

/* ---- the sums ---- */

static uint64_t total(const struct xi_holding *h)
{
    return h->held + h->promised;
}

/* How much of a holding the machine's figure does not know yet. */
static uint64_t unrealised(const struct budget *b, const struct xi_holding *h)
{
    uint64_t known = h->measured_ms <= b->seen_ms ? h->resident_bytes : 0;

    return total(h) > known ? total(h) - known : 0;
}

static uint64_t known_resident(const struct budget *b, const struct xi_holding *h)
{
    return h->measured_ms <= b->seen_ms ? h->resident_bytes : 0;
}

/* What goes with it, and what of that the machine knows. */
static uint64_t goes(const struct xi_holding *h)
{
    return total(h) > h->shared_bytes ? total(h) - h->shared_bytes : 0;
}

static uint64_t known_goes(const struct budget *b, const struct xi_holding *h)
{
    uint64_t known = known_resident(b, h);

    return known > h->shared_bytes ? known - h->shared_bytes : 0;
}

static void count(struct room *r, const struct xi_holding *h, const struct xi_holding *asking)
{
    uint64_t stays = h->leaving ? total(h) - goes(h) : total(h);

    if (r->tenant != NULL && h->tenant == r->tenant)
        r->tenant_stays += stays;
    if (h->budget != r->budget)
        return;
    r->staying += stays;
    if (h->leaving)
        r->gain += known_goes(r->b, h);
    else if (h != asking)
        r->unrealised += unrealised(r->b, h);
}

static struct room room_of(struct xi_admission *a, const struct xi_holding *asking, uint32_t budget,
                           uint64_t bytes)
{
    const struct budget *b = &a->budgets[budget];
    struct room r = {.a = a,
                     .b = b,
                     .budget = budget,
                     .tenant = asking->tenant,
                     .asking = asking,
                     .gain = b->freed};
    const struct xi_holding *h;

    r.extra = bytes > total(asking) ? bytes - total(asking) : 0;
    r.resident = asking->resident_bytes >= bytes;
    for (h = a->first; h != NULL; h = h->next)
        count(&r, h, asking);
    return r;
}

static void without(struct room *r, const struct xi_holding *victim)
{
    if (r->tenant != NULL && victim->tenant == r->tenant)
        r->tenant_stays -= goes(victim);
    if (victim->budget != r->budget)
        return;
    r->staying -= goes(victim);
    r->unrealised -= unrealised(r->b, victim);
    r->gain += known_goes(r->b, victim);
}

static void with(struct room *r, const struct xi_holding *victim)
{
    if (r->tenant != NULL && victim->tenant == r->tenant)
        r->tenant_stays += goes(victim);
    if (victim->budget != r->budget)
        return;
    r->staying += goes(victim);
    r->unrealised += unrealised(r->b, victim);
    r->gain -= known_goes(r->b, victim);
}

static uint64_t left(uint64_t of, uint64_t taken)
{
    return of > taken ? of - taken : 0;
}

static uint64_t tenant_free(const struct room *r)
{
    if (r->tenant == NULL || r->tenant->limits.memory_bytes == 0)
        return XI_MEMORY_UNKNOWN;
    return left(r->tenant->limits.memory_bytes, r->tenant_stays);
}

static uint64_t limit_free(const struct room *r)
{
    return r->b->limit == 0 ? XI_MEMORY_UNKNOWN : left(r->b->limit, r->staying);
}

/* What others on this machine leave. */
static uint64_t machine_free(const struct room *r)
{
    if (r->resident || r->b->available == XI_MEMORY_UNKNOWN)
        return XI_MEMORY_UNKNOWN;
    return left(r->b->available + r->gain, r->unrealised);
}

/* What others on this machine hold, as far as it can be told from what is ours. */
static uint64_t foreign(const struct xi_admission *a, uint32_t budget)
{
    const struct budget *b = &a->budgets[budget];
    const struct xi_holding *h;
    uint64_t ours = 0;

    if (b->available == XI_MEMORY_UNKNOWN)
        return 0;
    for (h = a->first; h != NULL; h = h->next)
        ours += h->budget == budget ? known_resident(b, h) : 0;
    return left(left(b->total, b->available), ours + b->freed);
}

static int tenant_fits(const struct room *r)
{
    return r->extra <= tenant_free(r);
}

static int device_fits(const struct room *r)
{
    return r->extra <= limit_free(r) && r->extra <= machine_free(r);
}

/* ---- victims ---- */

static int older_first(const void *a, const void *b)
{
    const struct xi_holding *x = *(struct xi_holding *const *)a;
    const struct xi_holding *y = *(struct xi_holding *const *)b;

    if (x->last_used_ms != y->last_used_ms)
        return x->last_used_ms < y->last_used_ms ? -1 : 1;
    return 0;
}

static uint64_t stays_until(const struct xi_holding *h)
{
    return h->protected_ms > h->in_use_ms ? h->protected_ms : h->in_use_ms;
}

static int may_go(const struct xi_holding *h, uint64_t now_ms, int heed_guard)
{
    return h->evictable && !h->leaving && h->held > 0 && h->promised == 0 &&
           (!heed_guard || now_ms >= stays_until(h));
}

static void candidates(struct xi_admission *a, const struct xi_holding *asking, uint64_t now_ms,
                       int heed_guard, struct xi_victims *ret)
{
    struct xi_holding *h;

    ret->n = 0;
    for (h = a->first; h != NULL && a->evict && ret->n < XI_SESSIONS_MAX; h = h->next) {
        if (h != asking && may_go(h, now_ms, heed_guard))
            ret->all[ret->n++] = h;
    }
    qsort(ret->all, ret->n, sizeof(ret->all[0]), older_first);
}

/* Takes candidates, longest idle first, until all fits; then gives back those that are not needed,
 * latest used first. 1 when it fits; ret holds who has to go. */
static int choose(struct room *r, struct xi_victims *ret)
{
    uint32_t i, n = 0;

    for (i = 0; i < ret->n && !(tenant_fits(r) && device_fits(r)); i++) {
        struct xi_holding *h = ret->all[i];
        int of_tenant = r->tenant != NULL && h->tenant == r->tenant;

        if (!(of_tenant && !tenant_fits(r)) && !(h->budget == r->budget && !device_fits(r)))
            continue; /* its going would help nothing */
        without(r, h);
        ret->all[n++] = h;
    }
    ret->n = n;
    if (!tenant_fits(r) || !device_fits(r))
        return 0;
    for (i = n; i > 0; i--) {
        with(r, ret->all[i - 1]);
        if (tenant_fits(r) && device_fits(r)) {
            memmove(&ret->all[i - 1], &ret->all[i], (ret->n - i) * sizeof(ret->all[0]));
            ret->n--;
        } else {
            without(r, ret->all[i - 1]);
        }
    }
    return 1;
}

/* ---- refusals ---- */

static int larger_first(const void *a, const void *b)
{
    const struct xi_holding *x = *(struct xi_holding *const *)a;
    const struct xi_holding *y = *(struct xi_holding *const *)b;

    return (x->held < y->held) - (x->held > y->held);
}

/* "; held by a 200.0 MiB, b 100.0 MiB, other tenants 1.0 GiB": the asking tenant's by name, the
 * largest first, as many as have room; what others have is nobody else's to know. */
static void who_holds(const struct room *r, int of_tenant, char *ret, size_t room)
{
    struct xi_victims *all = &r->a->scratch;
    uint64_t others = 0;
    struct xi_holding *h;
    size_t used = 0;
    uint32_t i;

    ret[0] = '\0';
    all->n = 0;
    for (h = r->a->first; h != NULL && all->n < XI_SESSIONS_MAX; h = h->next) {
        int is_ours = h->tenant == r->tenant;

        if (h->held == 0 || h == r->asking || !(of_tenant ? is_ours : h->budget == r->budget))
            continue;
        if (is_ours)
            all->all[all->n++] = h;
        else
            others += h->held;
    }
    qsort(all->all, all->n, sizeof(all->all[0]), larger_first);
    for (i = 0; i < all->n && i < 4 && used < room; i++) {
        char bytes[24];

        used += (size_t)snprintf(ret + used, room - used, "%s%s %s", i > 0 ? ", " : "; held by ",
                                 all->all[i]->name, xi_bytes_text(all->all[i]->held, bytes));
    }
    if (others > 0 && used < room) {
        char bytes[24];

        (void)snprintf(ret + used, room - used, "%sother tenants %s", used ? ", " : "; held by ",
                       xi_bytes_text(others, bytes));
    }
}

static enum xi_rc refuse_tenant(const struct room *r, const struct xi_holding *h,
                                struct xi_err *err)
{
    char need[24], have[24], limit[24], who[100];

    who_holds(r, 1, who, sizeof(who));
    (void)xi_fail(err, XI_EBUDGET, "%s needs %s; %s of tenant %s's %s are free%s", h->name,
                  xi_bytes_text(r->extra + total(h), need),
                  xi_bytes_text(tenant_free(r) + total(h), have), r->tenant->name,
                  xi_bytes_text(r->tenant->limits.memory_bytes, limit), who);
    return xi_hint(err,
                   "unload one of %s's models, or raise its memory: POST /v1/control/configure",
                   r->tenant->name);
}

static enum xi_rc refuse_device(const struct room *r, const struct xi_holding *h,
                                struct xi_err *err)
{
    uint64_t by_limit = limit_free(r), by_machine = machine_free(r);
    char need[24], have[24], limit[24], theirs[24], who[100];

    who_holds(r, 0, who, sizeof(who));
    (void)xi_bytes_text(r->extra + total(h), need);
    if (by_machine < by_limit) {
        (void)xi_fail(
            err, XI_EBUDGET, "%s needs %s of %s; other programs hold %s of %s and leave %s%s",
            h->name, need, r->b->name, xi_bytes_text(foreign(r->a, r->budget), theirs),
            xi_bytes_text(r->b->total, limit), xi_bytes_text(by_machine + total(h), have), who);
        return xi_hint(err,
                       "end other programs, or unload a model (xinfer ps, xinfer unload NAME)");
    }
    (void)xi_fail(err, XI_EBUDGET, "%s needs %s of %s; %s of %s are free%s", h->name, need,
                  r->b->name, xi_bytes_text(by_limit + total(h), have),
                  xi_bytes_text(r->b->limit, limit), who);
    if (r->extra + total(h) > r->b->limit)
        return xi_hint(err, "it never fits: a smaller variant, fewer instances, or a higher "
                            "\"memory\" in the configuration");
    return xi_hint(err,
                   "unload one (xinfer unload NAME)%s, or raise \"memory\" in the configuration",
                   r->a->evict ? "" : ", allow \"evict\"");
}

/* Who of them stays longest. */
static const struct xi_holding *last_of(const struct xi_victims *v)
{
    const struct xi_holding *last = v->all[0];
    uint32_t i;

    for (i = 1; i < v->n; i++) {
        if (stays_until(v->all[i]) > stays_until(last))
            last = v->all[i];
    }
    return last;
}

static enum xi_rc refuse_thrash(const struct xi_holding *last, uint64_t retry_ms,
                                const struct xi_holding *h, struct xi_err *err)
{
    int is_ours = last->tenant == h->tenant;
    const char *name = is_ours ? last->name : "another tenant's model";

    (void)xi_fail(err, XI_EBUDGET,
                  "%s and %s do not fit together and %s was brought back just now: it stays for "
                  "another %llu s",
                  h->name, name, is_ours ? name : "that",
                  (unsigned long long)(retry_ms + 999) / 1000);
    return xi_hint(err, "raise \"memory\", or unload one for good%s%s",
                   is_ours ? ": xinfer unload " : "", is_ours ? name : "");
}

static enum xi_rc refuse(struct xi_admission *a, const struct xi_holding *h, const struct room *now,
                         uint64_t bytes, uint64_t now_ms, uint64_t *ret_retry_ms,
                         struct xi_err *err)
{
    struct room r = room_of(a, h, now->budget, bytes);
    struct room bare = r;

    candidates(a, h, now_ms, 0, &a->scratch);
    if (choose(&r, &a->scratch) && a->scratch.n > 0) {
        const struct xi_holding *last = last_of(&a->scratch);

        *ret_retry_ms = stays_until(last) - now_ms;
        if (last->protected_ms > now_ms)
            return refuse_thrash(last, *ret_retry_ms, h, err);
    }
    return tenant_fits(&bare) ? refuse_device(&bare, h, err) : refuse_tenant(&bare, h, err);
}

/* ---- the ledger ---- */

static void link_in(struct xi_admission *a, struct xi_holding *h)
{
    if (h->held > 0 || h->promised > 0)
        return;
    h->prev = NULL;
    h->next = a->first;
    if (h->next != NULL)
        h->next->prev = h;
    a->first = h;
}

static void link_out(struct xi_admission *a, struct xi_holding *h)
{
    if (h->held > 0 || h->promised > 0)
        return;
    if (h->prev != NULL)
        h->prev->next = h->next;
    else
        a->first = h->next;
    if (h->next != NULL)
        h->next->prev = h->prev;
    h->prev = h->next = NULL;
}

static void hold(struct xi_holding *h, uint64_t bytes)
{
    if (h->tenant != NULL)
        h->tenant->reserved_bytes += bytes - h->held;
    h->held = bytes;
}

/* It is back: was it sent away a moment ago? */
static void note_return(const struct xi_admission *a, struct xi_holding *h, uint64_t now_ms)
{
    if (h->held == 0 && h->promised == 0 && h->evicted_ms != 0 &&
        now_ms - h->evicted_ms < a->guard_ms)
        h->protected_ms = now_ms + a->guard_ms;
}

static enum xi_rc judge(struct xi_admission *a, const struct xi_holding *h, uint32_t budget,
                        uint64_t bytes, uint64_t now_ms, struct xi_victims *ret,
                        uint64_t *ret_retry_ms, int *ret_machine, struct xi_err *err)
{
    struct room r = room_of(a, h, budget, bytes);

    candidates(a, h, now_ms, 1, ret);
    *ret_retry_ms = 0;
    *ret_machine = 0;
    if (r.extra == 0) {
        ret->n = 0;
        return XI_OK;
    }
    *ret_machine = r.extra > machine_free(&r);
    if (choose(&r, ret))
        return ret->n == 0 ? XI_OK : XI_EAGAIN;
    ret->n = 0;
    return refuse(a, h, &r, bytes, now_ms, ret_retry_ms, err);
}

enum xi_rc xi_admission_would(struct xi_admission *a, const struct xi_holding *h, uint32_t budget,
                              uint64_t bytes, uint64_t now_ms, struct xi_victims *ret,
                              struct xi_err *err)
{
    uint64_t retry;
    int machine;

    return judge(a, h, budget, bytes, now_ms, ret, &retry, &machine, err);
}

enum xi_rc xi_admission_ask(struct xi_admission *a, struct xi_holding *h, uint32_t budget,
                            uint64_t bytes, uint64_t now_ms, struct xi_victims *ret,
                            uint64_t *ret_retry_ms, struct xi_err *err)
{
    enum xi_rc rc;
    uint32_t i;
    int machine;

    XI_ASSERT(h->held == 0 || h->budget == budget);
    rc = judge(a, h, budget, bytes, now_ms, ret, ret_retry_ms, &machine, err);
    if (rc == XI_EBUDGET || bytes == 0)
        return rc;
    h->after_leavers = machine && ret->n > 0;
    note_return(a, h, now_ms);
    link_in(a, h);
    h->budget = budget;
    if (bytes <= total(h)) { /* gives back: first what was only promised */
        if (bytes <= h->held) {
            h->promised = 0;
            hold(h, bytes);
        } else {
            h->promised = bytes - h->held;
        }
    } else {
        h->promised = bytes - h->held;
    }
    for (i = 0; i < ret->n; i++) {
        ret->all[i]->leaving = 1;
        ret->all[i]->evicted_ms = now_ms;
    }
    return xi_admission_ready(a, h);
}

/* With everything that is still there, the leaving ones too. */
static int fits_now(const struct xi_admission *a, const struct xi_holding *h, int *ret_leaving)
{
    uint64_t held = 0, limit = a->budgets[h->budget].limit;
    uint64_t quota = h->tenant != NULL ? h->tenant->limits.memory_bytes : 0;
    const struct xi_holding *other;

    int there = 0;

    *ret_leaving = 0;
    for (other = a->first; other != NULL; other = other->next) {
        held += other->budget == h->budget ? other->held : 0;
        there |= other->leaving && other->budget == h->budget;
        *ret_leaving |= other->leaving;
    }
    if (there && h->after_leavers)
        return 0; /* the machine itself has no room before */
    return (limit == 0 || held + h->promised <= limit) &&
           (quota == 0 || h->tenant->reserved_bytes + h->promised <= quota);
}

enum xi_rc xi_admission_ready(struct xi_admission *a, struct xi_holding *h)
{
    int leaving;

    if (h->promised == 0)
        return XI_OK;
    if (fits_now(a, h, &leaving)) {
        uint64_t bytes = total(h);

        h->promised = 0;
        hold(h, bytes);
        return XI_OK;
    }
    if (leaving)
        return XI_EAGAIN;
    xi_admission_cancel(a, h);
    return XI_EBUDGET;
}

void xi_admission_cancel(struct xi_admission *a, struct xi_holding *h)
{
    if (h->promised == 0)
        return;
    h->promised = 0;
    link_out(a, h);
}

void xi_admission_stay(struct xi_admission *a, struct xi_holding *h)
{
    (void)a;
    h->leaving = 0;
    h->evictable = 0;
}

void xi_admission_release(struct xi_admission *a, struct xi_holding *h, uint64_t now_ms)
{
    struct budget *b = &a->budgets[h->budget];

    if (h->held == 0 && h->promised == 0)
        return;
    b->freed += known_resident(b, h);
    if (h->leaving)
        h->evicted_ms = now_ms;
    h->promised = 0;
    hold(h, 0);
    link_out(a, h);
    h->leaving = 0;
    h->resident_bytes = 0;
    h->measured_ms = 0;
}

void xi_admission_hand_over(struct xi_admission *a, struct xi_holding *from, struct xi_holding *to,
                            uint64_t bytes)
{
    XI_ASSERT(from->budget == to->budget && from->held >= bytes && total(to) > 0);
    hold(from, from->held - bytes);
    if (to->held > 0)
        hold(to, to->held + bytes);
    else
        to->promised += bytes;
    if (from->resident_bytes > 0 && to->resident_bytes > 0) {
        from->resident_bytes = left(from->resident_bytes, bytes);
        to->resident_bytes += bytes;
    }
    link_out(a, from);
}

int xi_admission_view(struct xi_admission *a, uint32_t budget, struct xi_budget_view *ret)
{
    struct xi_holding nobody = {0};
    struct room r;
    const struct xi_holding *h;

    if (budget >= a->n)
        return 0;
    r = room_of(a, &nobody, budget, 1);
    *ret = (struct xi_budget_view){.name = a->budgets[budget].name,
                                   .limit = a->budgets[budget].limit,
                                   .available = a->budgets[budget].available,
                                   .foreign = foreign(a, budget)};
    for (h = a->first; h != NULL; h = h->next)
        ret->held += h->budget == budget ? h->held : 0;
    ret->free = limit_free(&r) < machine_free(&r) ? limit_free(&r) : machine_free(&r);
    return 1;
}
