/* The ledger, with a simulated clock: examples first, then random arrivals held to rules that are
 * computed here anew. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/core/admission.h"

#define GUARD 60000u

static struct xi_victims victims;
static uint64_t retry_ms;
static struct xi_err err;

static enum xi_rc ask(struct xi_admission *a, struct xi_holding *h, uint64_t mib, uint64_t now)
{
    return xi_admission_ask(a, h, 0, mib * XI_MIB, now, &victims, &retry_ms, &err);
}

static struct xi_holding idle(const char *name, uint64_t last_used)
{
    return (struct xi_holding){.name = name, .evictable = 1, .last_used_ms = last_used};
}

static struct xi_admission *ledger(uint64_t limit_mib)
{
    struct xi_admission *a = xi_admission_new(GUARD);

    assert_non_null(a);
    assert_int_equal(xi_admission_budget(a, "memory", limit_mib * XI_MIB), 0);
    return a;
}

static void a_refusal_has_the_figures_and_holds_nothing(void **state)
{
    struct xi_admission *a = ledger(400);
    struct xi_holding big = {.name = "big"}, small = {.name = "small"}, night = {.name = "night"};
    struct xi_budget_view view;

    (void)state;
    assert_int_equal(ask(a, &big, 200, 1), XI_OK);
    assert_int_equal(ask(a, &small, 100, 1), XI_OK);
    assert_int_equal(ask(a, &night, 101, 1), XI_EBUDGET);
    assert_string_equal(err.msg, "night needs 101.0 MiB of memory; 100.0 MiB of 400.0 MiB are "
                                 "free; held by big 200.0 MiB, small 100.0 MiB");
    assert_non_null(strstr(err.hint, "xinfer unload"));
    assert_int_equal(retry_ms, 0);
    assert_int_equal(night.held + night.promised, 0);
    assert_int_equal(ask(a, &night, 100, 1), XI_OK);
    assert_int_equal(xi_admission_view(a, 0, &view), 1);
    assert_true(view.held == 400 * XI_MIB && view.free == 0 && view.limit == 400 * XI_MIB);
    assert_int_equal(xi_admission_view(a, 1, &view), 0);
    xi_admission_release(a, &small, 2);
    xi_admission_release(a, &small, 2); /* again: nothing */
    assert_int_equal(xi_admission_view(a, 0, &view), 1);
    assert_int_equal(view.free, 100 * XI_MIB);
    assert_int_equal(ask(a, &small, 500, 1), XI_EBUDGET);
    assert_non_null(strstr(err.hint, "never fits"));
    xi_admission_release(a, &big, 2);
    xi_admission_release(a, &night, 2);
    xi_admission_free(a);
}

static void the_longest_idle_goes_and_no_more_than_it_takes(void **state)
{
    struct xi_admission *a = ledger(400);
    struct xi_holding h[4] = {idle("a", 40), idle("b", 10), idle("c", 30), idle("d", 20)};
    struct xi_holding e = idle("e", 50), f = idle("f", 60);
    int i;

    (void)state;
    for (i = 0; i < 4; i++)
        assert_int_equal(ask(a, &h[i], 100, 100), XI_OK);
    assert_int_equal(ask(a, &e, 150, 100), XI_EAGAIN);
    assert_int_equal(victims.n, 2);
    assert_ptr_equal(victims.all[0], &h[1]);
    assert_ptr_equal(victims.all[1], &h[3]);
    assert_int_equal(xi_admission_ready(a, &e), XI_EAGAIN);
    /* What leaves for e is not there for others: f needs another one. */
    assert_int_equal(ask(a, &f, 60, 100), XI_EAGAIN);
    assert_int_equal(victims.n, 1);
    assert_ptr_equal(victims.all[0], &h[2]);
    xi_admission_release(a, &h[1], 101);
    assert_int_equal(xi_admission_ready(a, &e), XI_EAGAIN); /* 300 + 150 */
    assert_int_equal(xi_admission_ready(a, &f), XI_OK);     /* 300 + 60: its room, whosever was */
    xi_admission_release(a, &h[3], 101);
    assert_int_equal(xi_admission_ready(a, &e), XI_EAGAIN);
    xi_admission_release(a, &h[2], 101);
    assert_int_equal(xi_admission_ready(a, &e), XI_OK);
    assert_true(e.held == 150 * XI_MIB && e.promised == 0);
    /* 90 are free; 130 more: a alone would do, e alone too; f is too small to help. */
    assert_int_equal(ask(a, &h[1], 130, 200), XI_EAGAIN);
    assert_int_equal(victims.n, 1);
    assert_ptr_equal(victims.all[0], &h[0]);
    xi_admission_release(a, &h[0], 201);
    xi_admission_release(a, &h[1], 201);
    xi_admission_release(a, &e, 201);
    xi_admission_release(a, &f, 201);
    xi_admission_free(a);
}

static void small_ones_that_a_large_one_makes_needless_stay(void **state)
{
    struct xi_admission *a = ledger(400);
    struct xi_holding s = idle("s", 1), l = idle("l", 2), n = idle("n", 3);

    (void)state;
    assert_int_equal(ask(a, &s, 50, 10), XI_OK);
    assert_int_equal(ask(a, &l, 350, 10), XI_OK);
    assert_int_equal(ask(a, &n, 300, 10), XI_EAGAIN);
    assert_int_equal(victims.n, 1);
    assert_ptr_equal(victims.all[0], &l);
    xi_admission_release(a, &l, 11);
    assert_int_equal(xi_admission_ready(a, &n), XI_OK);
    xi_admission_release(a, &n, 11);
    xi_admission_release(a, &s, 11);
    xi_admission_free(a);
}

static void who_is_in_use_stays(void **state)
{
    struct xi_admission *a = ledger(200);
    struct xi_holding busy = {.name = "busy"}, off = idle("off", 1), n = idle("n", 2);

    (void)state;
    assert_int_equal(ask(a, &busy, 100, 1), XI_OK);
    assert_int_equal(ask(a, &off, 100, 1), XI_OK);
    assert_int_equal(ask(a, &n, 150, 2), XI_EBUDGET); /* off alone would not do: it stays */
    assert_int_equal(off.leaving, 0);
    xi_admission_evict(a, 0);
    assert_int_equal(ask(a, &n, 100, 2), XI_EBUDGET);
    assert_non_null(strstr(err.hint, "\"evict\""));
    xi_admission_evict(a, 1);
    assert_int_equal(ask(a, &n, 100, 2), XI_EAGAIN);
    xi_admission_stay(a, &off); /* a request came for it in the same moment */
    assert_int_equal(xi_admission_ready(a, &n), XI_EBUDGET);
    assert_int_equal(n.promised, 0);
    xi_admission_release(a, &busy, 3);
    xi_admission_release(a, &off, 3);
    xi_admission_free(a);
}

static void two_that_alternate_are_slowed_down(void **state)
{
    struct xi_admission *a = ledger(100);
    struct xi_holding x = idle("x", 0), y = idle("y", 0);
    struct xi_holding *in = &x, *out = &y;
    uint64_t now = 1000, changes = 0, refusals = 0, end = now + 20 * GUARD;

    (void)state;
    assert_int_equal(ask(a, &x, 80, now), XI_OK);
    for (; now < end; now += 500) { /* always asks for the one that is out */
        enum xi_rc rc = ask(a, out, 80, now);

        in->last_used_ms = now;
        if (rc == XI_EBUDGET) {
            assert_true(retry_ms > 0 && retry_ms <= GUARD);
            assert_non_null(strstr(err.msg, "do not fit together"));
            refusals++;
            continue;
        }
        assert_int_equal(rc, XI_EAGAIN);
        xi_admission_release(a, in, now);
        assert_int_equal(xi_admission_ready(a, out), XI_OK);
        out = in;
        in = in == &x ? &y : &x;
        changes++;
    }
    assert_true(refusals > 0);
    /* Each leaves at most once in the guard's time. */
    assert_in_range(changes, 20, 2 * 20 + 2);
    xi_admission_release(a, in, now);
    xi_admission_free(a);
}

static void a_tenant_keeps_to_its_quota(void **state)
{
    struct xi_admission *a = ledger(1000);
    struct xi_tenant acme = {.name = "acme", .limits = {.memory_bytes = 300 * XI_MIB}};
    struct xi_holding one = idle("one", 1), two = idle("two", 2), other = idle("other", 0);

    (void)state;
    one.tenant = two.tenant = &acme;
    assert_int_equal(ask(a, &other, 500, 1), XI_OK);
    assert_int_equal(ask(a, &one, 200, 1), XI_OK);
    assert_int_equal(acme.reserved_bytes, 200 * XI_MIB);
    one.evictable = 0;
    assert_int_equal(ask(a, &two, 101, 1), XI_EBUDGET); /* others' going would not help */
    assert_string_equal(err.msg, "two needs 101.0 MiB; 100.0 MiB of tenant acme's 300.0 MiB "
                                 "are free; held by one 200.0 MiB");
    struct xi_tenant rival = {.name = "rival"};
    struct xi_holding foe = {.name = "foe", .tenant = &rival};
    assert_int_equal(ask(a, &foe, 900, 1), XI_EBUDGET); /* what others load is not its to know */
    assert_string_equal(err.msg, "foe needs 900.0 MiB of memory; 300.0 MiB of 1000.0 MiB are "
                                 "free; held by other tenants 700.0 MiB");
    one.evictable = 1;
    assert_int_equal(ask(a, &two, 101, 1), XI_EAGAIN);
    assert_int_equal(victims.n, 1);
    assert_ptr_equal(victims.all[0], &one); /* its own, although other was idle for longer */
    xi_admission_release(a, &one, 2);
    assert_int_equal(xi_admission_ready(a, &two), XI_OK);
    xi_admission_release(a, &two, 2);
    xi_admission_release(a, &other, 2);
    assert_int_equal(acme.reserved_bytes, 0);
    xi_admission_free(a);
}

static void other_programs_count(void **state)
{
    struct xi_admission *a = ledger(1000);
    struct xi_holding one = idle("one", 1), two = idle("two", 2);

    (void)state;
    xi_admission_seen(a, 0, 1000 * XI_MIB, 300 * XI_MIB, 10);
    one.evictable = 0;
    assert_int_equal(ask(a, &one, 200, 11), XI_OK); /* not taken yet: 100 are left */
    assert_int_equal(ask(a, &two, 101, 11), XI_EBUDGET);
    assert_string_equal(err.msg, "two needs 101.0 MiB of memory; other programs hold 700.0 MiB of "
                                 "1000.0 MiB and leave 100.0 MiB; held by one 200.0 MiB");
    one.resident_bytes = 150 * XI_MIB; /* taken, but after the machine was looked at */
    one.measured_ms = 12;
    assert_int_equal(ask(a, &two, 101, 12), XI_EBUDGET);
    xi_admission_seen(a, 0, 1000 * XI_MIB, 150 * XI_MIB,
                      20); /* now it shows; 50 of one are still to come */
    assert_int_equal(ask(a, &two, 101, 21), XI_EBUDGET);
    assert_int_equal(ask(a, &two, 100, 21), XI_OK);
    xi_admission_release(a, &two, 22);
    xi_admission_release(a, &one, 22); /* gone since: counts although the machine was not asked */
    assert_int_equal(ask(a, &two, 300, 23), XI_OK);
    two.resident_bytes = 500 * XI_MIB; /* took more than it was given: it has it already */
    two.measured_ms = 24;
    assert_int_equal(ask(a, &two, 500, 24), XI_OK);
    assert_int_equal(ask(a, &two, 400, 25), XI_OK); /* and gives back */
    assert_int_equal(two.held, 400 * XI_MIB);
    xi_admission_release(a, &two, 26);
    xi_admission_free(a);
}

static void room_of_the_machine_is_waited_for(void **state)
{
    struct xi_admission *a = ledger(1000);
    struct xi_holding one = idle("one", 1), two = idle("two", 2);

    (void)state;
    assert_int_equal(ask(a, &one, 200, 1), XI_OK);
    one.resident_bytes = 200 * XI_MIB;
    one.measured_ms = 2;
    xi_admission_seen(a, 0, 1000 * XI_MIB, 100 * XI_MIB,
                      10); /* the limit has 800 MiB, the machine 100 */
    assert_int_equal(ask(a, &two, 150, 11), XI_EAGAIN);
    assert_int_equal(victims.n, 1);
    assert_int_equal(xi_admission_ready(a, &two), XI_EAGAIN);
    xi_admission_release(a, &one, 12);
    assert_int_equal(xi_admission_ready(a, &two), XI_OK);
    xi_admission_release(a, &two, 13);
    xi_admission_free(a);
}

/* ---- random arrivals ---- */

enum { HOLDINGS = 14, BUDGETS = 3, TENANTS = 3, STEPS = 60000 };

struct world {
    struct xi_admission *a;
    struct xi_holding h[HOLDINGS];
    struct xi_tenant tenants[TENANTS];
    uint64_t limits[BUDGETS], now;
    uint64_t left_at[HOLDINGS];    /* when it was last told to leave; 0: never */
    uint64_t protected_[HOLDINGS]; /* by our own reckoning of the guard */
    uint64_t gone_at[HOLDINGS];
    uint64_t evictions, refusals, grants;
};

static uint32_t rnd_state = 12345;
static uint32_t rnd(uint32_t n)
{
    rnd_state = rnd_state * 1664525u + 1013904223u;
    return (rnd_state >> 8) % n;
}

static void check_sums(const struct world *w)
{
    uint64_t held[BUDGETS] = {0}, of_tenant[TENANTS] = {0};
    int i;

    for (i = 0; i < HOLDINGS; i++) {
        held[w->h[i].budget] += w->h[i].held;
        if (w->h[i].tenant != NULL)
            of_tenant[w->h[i].tenant - w->tenants] += w->h[i].held;
    }
    for (i = 0; i < BUDGETS; i++) {
        struct xi_budget_view view;

        assert_true(held[i] <= w->limits[i]);
        assert_int_equal(xi_admission_view(w->a, (uint32_t)i, &view), 1);
        assert_int_equal(view.held, held[i]);
    }
    for (i = 0; i < TENANTS; i++) {
        assert_int_equal(w->tenants[i].reserved_bytes, of_tenant[i]);
        assert_true(of_tenant[i] <= w->tenants[i].limits.memory_bytes);
    }
}

/* Would `bytes` for h fit if exactly those in `gone` (bits) and who leaves already went? */
static int fits_without(const struct world *w, const struct xi_holding *h, uint32_t budget,
                        uint64_t bytes, uint32_t gone)
{
    uint64_t device = bytes, tenant = bytes;
    int i;

    for (i = 0; i < HOLDINGS; i++) {
        const struct xi_holding *o = &w->h[i];

        if (o == h || o->leaving || (gone & (1u << i)))
            continue;
        if (o->budget == budget)
            device += o->held + o->promised;
        if (o->tenant == h->tenant)
            tenant += o->held + o->promised;
    }
    return device <= w->limits[budget] &&
           (h->tenant == NULL || tenant <= h->tenant->limits.memory_bytes);
}

static void check_victims(struct world *w, const struct xi_holding *h, uint32_t budget,
                          uint64_t bytes)
{
    uint32_t i, set = 0;

    for (i = 0; i < victims.n; i++) {
        uint32_t at = (uint32_t)(victims.all[i] - w->h);

        assert_true(victims.all[i] != h && victims.all[i]->evictable);
        assert_true(w->left_at[at] == 0 || w->now - w->left_at[at] >= GUARD);
        w->left_at[at] = w->now;
        w->evictions++;
        victims.all[i]->leaving = 0; /* as it was when they were chosen */
        set |= 1u << at;
    }
    assert_true(fits_without(w, h, budget, bytes, set));
    for (i = 0; i < victims.n; i++) /* none of them is one too many */
        assert_false(
            fits_without(w, h, budget, bytes, set & ~(1u << (uint32_t)(victims.all[i] - w->h))));
    for (i = 0; i < victims.n; i++)
        victims.all[i]->leaving = 1;
}

static void try_ask(struct world *w, int i)
{
    struct xi_holding *h = &w->h[i];
    uint32_t budget = h->held + h->promised > 0 ? h->budget : rnd(BUDGETS), k, could = 0;
    uint64_t bytes = (1 + rnd(60)) * XI_MIB, before = h->held + h->promised;
    int was_out = before == 0;
    enum xi_rc rc;

    if (h->leaving || h->promised > 0)
        return;
    for (k = 0; k < HOLDINGS; k++) {
        const struct xi_holding *o = &w->h[k];

        if (o != h && o->evictable && !o->leaving && o->held > 0 && o->promised == 0 &&
            w->now >= w->protected_[k])
            could |= 1u << k;
    }
    rc = xi_admission_ask(w->a, h, budget, bytes, w->now, &victims, &retry_ms, &err);
    if (rc == XI_EBUDGET) {
        w->refusals++;
        assert_int_equal(h->held + h->promised, before);
        assert_false(fits_without(w, h, budget, bytes, could));
        return;
    }
    w->grants++;
    if (was_out && w->gone_at[i] != 0 && w->now - w->gone_at[i] < GUARD)
        w->protected_[i] = w->now + GUARD;
    h->evictable = 0;
    h->last_used_ms = w->now;
    assert_int_equal(h->held + h->promised, bytes);
    assert_int_equal(rc == XI_OK, h->promised == 0);
    if (bytes > before)
        check_victims(w, h, budget, bytes);
    else
        assert_int_equal(victims.n, 0);
}

static void leave(struct world *w, int i)
{
    if (w->h[i].leaving)
        w->gone_at[i] = w->now;
    xi_admission_release(w->a, &w->h[i], w->now);
    assert_true(w->h[i].held == 0 && w->h[i].promised == 0 && w->h[i].leaving == 0);
    w->h[i].evictable = 0;
}

static void random_arrivals_keep_the_rules(void **state)
{
    static struct world w;
    int i, step;

    (void)state;
    w.a = xi_admission_new(GUARD);
    for (i = 0; i < BUDGETS; i++) {
        static const char *const names[] = {"memory", "gpu0", "npu0"};

        w.limits[i] = (uint64_t)100 * XI_MIB + (uint64_t)i * 40 * XI_MIB;
        assert_int_equal(xi_admission_budget(w.a, names[i], w.limits[i]), i);
    }
    for (i = 0; i < TENANTS; i++)
        w.tenants[i].limits.memory_bytes = (uint64_t)90 * XI_MIB + (uint64_t)i * 60 * XI_MIB;
    for (i = 0; i < HOLDINGS; i++)
        w.h[i] = (struct xi_holding){.name = "h", .tenant = &w.tenants[i % TENANTS]};
    w.now = 1000;
    for (step = 0; step < STEPS; step++) {
        i = (int)rnd(HOLDINGS);
        w.now += rnd(4000);
        switch (rnd(5)) {
        case 0:
        case 1:
            try_ask(&w, i);
            break;
        case 2: /* becomes idle, or is used */
            w.h[i].evictable = w.h[i].held > 0 && w.h[i].promised == 0 && rnd(4) > 0;
            w.h[i].last_used_ms = w.now;
            break;
        case 3:
            if (w.h[i].leaving || rnd(6) == 0)
                leave(&w, i);
            break;
        default:
            (void)!xi_admission_ready(w.a, &w.h[i]);
        }
        check_sums(&w);
    }
    assert_true(w.evictions > 1000 && w.refusals > 1000 && w.grants > 1000);
    for (i = 0; i < HOLDINGS; i++)
        leave(&w, i);
    check_sums(&w);
    for (i = 0; i < TENANTS; i++)
        assert_int_equal(w.tenants[i].reserved_bytes, 0);
    xi_admission_free(w.a); /* and nothing is linked any more */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_refusal_has_the_figures_and_holds_nothing),
        cmocka_unit_test(the_longest_idle_goes_and_no_more_than_it_takes),
        cmocka_unit_test(small_ones_that_a_large_one_makes_needless_stay),
        cmocka_unit_test(who_is_in_use_stays),
        cmocka_unit_test(two_that_alternate_are_slowed_down),
        cmocka_unit_test(a_tenant_keeps_to_its_quota),
        cmocka_unit_test(other_programs_count),
        cmocka_unit_test(room_of_the_machine_is_waited_for),
        cmocka_unit_test(random_arrivals_keep_the_rules),
    };

    return cmocka_run_group_tests_name("admission", tests, NULL, NULL);
}
