/* The fair scheduler on a simulated device: servers, sources of work, random arrivals. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/core/fair.h"

#define MS      1000000ull
#define SOURCES 12
#define SERVERS 8
#define WAITING 4096
#define FOREVER UINT64_MAX

static uint64_t random_state;

static double uniform(void)
{
    random_state = random_state * 6364136223846793005ull + 1442695040888963407ull;
    return ((double)(random_state >> 11) + 0.5) / 9007199254740992.0;
}

/* -ln(u) by its series around 1: no libm in the tests. */
static double exponential(double mean)
{
    double u = uniform(), sum = 0, x, term;
    int halves = 0, i;

    while (u < 0.5) {
        u *= 2;
        halves++;
    }
    x = 1 - u;
    for (term = x, i = 1; i < 40; i++, term *= x)
        sum += term / i;
    return mean * (sum + halves * 0.69314718055994531);
}

/* A session's line of one class. */
struct source {
    struct xi_fair_entry entry;
    double gap_ns; /* mean between arrivals; 0: always one waits */
    uint64_t service_ns, deadline_in_ns;
    int exact; /* every run takes service_ns; else it varies around it */
    int lanes; /* 0: as many as there are servers */
    uint64_t estimate_ns;
    uint64_t from_ns, until_ns;
    /* what happened */
    uint64_t arrived[WAITING], next_ns, first, n;
    uint64_t given_ns, runs, waited_ns, longest_ns, deadline_missed;
    int running;
};

struct run {
    struct source *of;
    uint64_t end_ns, took_ns;
    struct xi_fair_ticket ticket;
};

struct device {
    struct xi_fair fair;
    struct xi_fair_account tenants[SOURCES];
    uint32_t weights[SOURCES];
    struct source sources[SOURCES];
    unsigned n_sources;
    struct run servers[SERVERS];
    unsigned n_servers;
    uint64_t now;
};

static struct device *device_new(unsigned servers)
{
    struct device *d = calloc(1, sizeof(*d));
    unsigned i;

    assert_non_null(d);
    d->n_servers = servers;
    for (i = 0; i < SOURCES; i++) {
        d->weights[i] = 1;
        d->tenants[i].weight = &d->weights[i];
    }
    return d;
}

static struct source *add(struct device *d, unsigned tenant, unsigned class, double gap_ms,
                          double service_ms)
{
    struct source *s = &d->sources[d->n_sources++];

    s->entry.account = &d->tenants[tenant];
    s->entry.class = class;
    s->gap_ns = gap_ms * 1e6;
    s->service_ns = (uint64_t)(service_ms * 1e6);
    s->until_ns = FOREVER;
    return s;
}

static void arrive(struct source *s, uint64_t at)
{
    assert_true(s->n < WAITING);
    s->arrived[(s->first + s->n++) % WAITING] = at;
}

static void let_arrive(struct device *d, struct source *s)
{
    if (d->now < s->from_ns || d->now >= s->until_ns)
        return;
    if (s->gap_ns == 0 && s->n == 0)
        arrive(s, d->now);
    if (s->gap_ns != 0 && s->next_ns < s->from_ns)
        s->next_ns = s->from_ns + (uint64_t)exponential(s->gap_ns);
    while (s->gap_ns != 0 && s->next_ns <= d->now) {
        arrive(s, s->next_ns);
        s->next_ns += (uint64_t)exponential(s->gap_ns) + 1;
    }
}

static void update(struct device *d, struct source *s)
{
    uint64_t first = s->arrived[s->first % WAITING];

    if (s->n == 0 || (s->lanes > 0 && s->running >= s->lanes))
        xi_fair_idle(&d->fair, &s->entry);
    else
        xi_fair_ready(&d->fair, &s->entry,
                      s->deadline_in_ns == 0 ? XI_FAIR_NO_DEADLINE : first + s->deadline_in_ns,
                      s->estimate_ns);
}

static void start(struct device *d, struct run *server, struct source *s)
{
    uint64_t at = s->arrived[s->first++ % WAITING], waited = d->now - at;

    s->n--;
    s->running++;
    s->waited_ns += waited;
    s->longest_ns = waited > s->longest_ns ? waited : s->longest_ns;
    s->deadline_missed += s->deadline_in_ns != 0 && waited > s->deadline_in_ns;
    server->of = s;
    server->took_ns =
        s->exact ? s->service_ns : (uint64_t)((0.5 + uniform()) * (double)s->service_ns);
    server->end_ns = d->now + server->took_ns;
    xi_fair_start(&d->fair, &s->entry, &server->ticket);
    let_arrive(d, s);
    update(d, s);
}

static void end(struct device *d, struct run *server)
{
    struct source *s = server->of;

    s->running--;
    s->runs++;
    s->given_ns += server->took_ns;
    s->estimate_ns = s->estimate_ns - s->estimate_ns / 8 + server->took_ns / 8;
    server->of = NULL;
    xi_fair_end(&d->fair, &server->ticket, server->took_ns);
}

static void dispatch(struct device *d)
{
    struct xi_fair_entry *e;
    unsigned i;

    for (i = 0; i < d->n_servers; i++) {
        if (d->servers[i].of != NULL)
            continue;
        e = xi_fair_pick(&d->fair, 7);
        if (e == NULL)
            return;
        start(d, &d->servers[i], (struct source *)(void *)e);
    }
}

static uint64_t next_event(const struct device *d)
{
    uint64_t next = FOREVER;
    unsigned i;

    for (i = 0; i < d->n_servers; i++) {
        if (d->servers[i].of != NULL && d->servers[i].end_ns < next)
            next = d->servers[i].end_ns;
    }
    for (i = 0; i < d->n_sources; i++) {
        const struct source *s = &d->sources[i];
        uint64_t at = d->now < s->from_ns ? s->from_ns : s->gap_ns != 0 ? s->next_ns : FOREVER;

        if (at < next && at < s->until_ns)
            next = at;
    }
    return next;
}

static void simulate(struct device *d, uint64_t until_ns)
{
    unsigned i;

    while (d->now < until_ns) {
        for (i = 0; i < d->n_servers; i++) {
            if (d->servers[i].of != NULL && d->servers[i].end_ns <= d->now)
                end(d, &d->servers[i]);
        }
        for (i = 0; i < d->n_sources; i++) {
            let_arrive(d, &d->sources[i]);
            update(d, &d->sources[i]);
        }
        dispatch(d);
        d->now = next_event(d);
        if (d->now == FOREVER)
            break;
    }
}

static double ratio(const struct source *a, const struct source *b)
{
    return (double)a->given_ns / (double)b->given_ns;
}

static void weights_share_the_device(void **state)
{
    unsigned servers, seed;

    (void)state;
    for (servers = 1; servers <= 4; servers *= 2) {
        for (seed = 1; seed <= 20; seed++) {
            struct device *d = device_new(servers);
            struct source *a, *b;

            random_state = seed;
            d->weights[0] = 3;
            a = add(d, 0, seed % 3, 0, 0.5 + 10 * uniform());
            b = add(d, 1, seed % 3, 0, 0.5 + 10 * uniform());
            simulate(d, 30000 * MS);
            assert_in_range(ratio(a, b) * 1000, 2850, 3150);
            free(d);
        }
    }
}

/* Neither first estimates that are far off nor a host that works in bursts move the shares. */
static void wrong_estimates_are_corrected(void **state)
{
    struct device *d = device_new(2);
    struct source *a = add(d, 0, 1, 0, 2), *b = add(d, 1, 1, 0, 20);

    (void)state;
    random_state = 5;
    a->estimate_ns = 500 * MS;
    b->estimate_ns = 0;
    simulate(d, 30000 * MS);
    assert_in_range(ratio(a, b) * 1000, 950, 1050);
    free(d);
}

static void idling_gathers_no_credit(void **state)
{
    struct device *d = device_new(1);
    struct source *a = add(d, 0, 1, 0, 5), *b = add(d, 1, 1, 0, 5);
    uint64_t before;

    (void)state;
    random_state = 7;
    b->from_ns = 20000 * MS; /* twenty seconds later */
    simulate(d, 20000 * MS);
    before = a->given_ns;
    simulate(d, 21000 * MS);
    assert_in_range((a->given_ns - before) * 1000 / b->given_ns, 930, 1070);
    free(d);
}

/* Nor does leaving for a moment after each run wipe out what the run cost. */
static void idling_pays_no_debt(void **state)
{
    struct device *d = device_new(1);
    struct source *big = add(d, 0, 1, 0, 100), *small = add(d, 1, 1, 0, 1);

    (void)state;
    random_state = 9;
    big->lanes = 1; /* not ready while it runs, as a client that waits for its answer */
    small->lanes = 1;
    simulate(d, 60000 * MS);
    assert_in_range(ratio(big, small) * 1000, 950, 1050);
    free(d);
}

/* A has always something waiting; B, at half its own half, waits no longer than on a device of its
 * own of half the speed, and for what runs already. */
static void a_flood_delays_nobody_else(void **state)
{
    unsigned seed;

    (void)state;
    for (seed = 1; seed <= 20; seed++) {
        struct device *shared = device_new(1), *half = device_new(1);
        struct source *a = add(shared, 0, 1, 0, 4), *b = add(shared, 1, 1, 16, 4);
        struct source *own = add(half, 1, 1, 16, 8);

        a->exact = 1;
        b->exact = 1;
        own->exact = 1;
        random_state = seed;
        simulate(half, 30000 * MS);
        random_state = seed;
        simulate(shared, 30000 * MS);
        assert_true(b->runs + 3 >= own->runs);
        assert_true(b->longest_ns <= own->longest_ns + 2 * a->service_ns);
        assert_true(b->waited_ns / b->runs <= own->waited_ns / own->runs + a->service_ns);
        free(shared);
        free(half);
    }
}

static void lower_classes_have_their_part(void **state)
{
    static const double size[3] = {1, 7, 40};
    unsigned seed, turn;

    (void)state;
    for (seed = 1; seed <= 12; seed++) {
        struct device *d = device_new(1 + seed % 3);
        struct source *s[3];
        double all = 0;

        random_state = seed;
        for (turn = 0; turn < 3; turn++)
            s[turn] = add(d, turn, turn, 0, size[(turn + seed) % 3]);
        simulate(d, 120000 * MS);
        for (turn = 0; turn < 3; turn++)
            all += (double)s[turn]->given_ns;
        assert_in_range(100 * (double)s[1]->given_ns / all * 100, 1900, 2200);
        assert_in_range(100 * (double)s[2]->given_ns / all * 100, 450, 600);
        /* One run is saved up in so long at most; the first estimate is none. */
        assert_true(s[2]->longest_ns < 25 * 2 * s[2]->service_ns + 500 * MS);
        assert_true(s[1]->longest_ns < 6 * 2 * s[1]->service_ns + 500 * MS);
        free(d);
    }
}

static void a_class_alone_has_all_and_gathers_no_debt(void **state)
{
    struct device *d = device_new(1);
    struct source *high = add(d, 0, 0, 0, 2), *low = add(d, 1, 2, 0, 10);
    uint64_t before;

    (void)state;
    random_state = 3;
    high->from_ns = 30000 * MS;
    high->until_ns = 60000 * MS;
    simulate(d, 30000 * MS);
    assert_true(low->given_ns >= 29900 * MS);
    before = low->given_ns;
    simulate(d, 60000 * MS);
    assert_in_range(low->given_ns - before, 1300 * MS, 1700 * MS); /* 5 % of 30 s */
    before = low->given_ns;
    simulate(d, 61000 * MS);
    assert_true(low->given_ns - before >= 950 * MS);
    free(d);
}

static void sessions_of_a_tenant_share_its_turn(void **state)
{
    struct device *d = device_new(2);
    struct source *a[4], *b;
    unsigned i;

    (void)state;
    random_state = 11;
    for (i = 0; i < 4; i++) /* four sessions, of very different sizes */
        a[i] = add(d, 0, 1, 0, 1 + 6 * i);
    b = add(d, 1, 1, 0, 3);
    simulate(d, 60000 * MS);
    assert_in_range(1000 * (a[0]->given_ns + a[1]->given_ns + a[2]->given_ns + a[3]->given_ns) /
                        b->given_ns,
                    950, 1050);
    for (i = 1; i < 4; i++)
        assert_in_range(ratio(a[i], a[0]) * 1000, 900, 1100);
    free(d);
}

static void the_earliest_deadline_goes_first(void **state)
{
    struct device *d = device_new(1);
    struct source *loose, *tight, *greedy;

    (void)state;
    random_state = 13;
    loose = add(d, 0, 1, 8, 2);
    tight = add(d, 0, 1, 8, 2);
    loose->deadline_in_ns = 1000 * MS;
    tight->deadline_in_ns = 12 * MS;
    simulate(d, 30000 * MS); /* half busy: in turns alone it would wait for the other's bursts */
    assert_int_equal(loose->deadline_missed, 0);
    assert_true(tight->waited_ns / tight->runs < loose->waited_ns / loose->runs);
    assert_true(tight->deadline_missed * 100 < tight->runs * 5);
    /* Tight deadlines buy nobody more than a session's part. */
    greedy = add(d, 0, 1, 0, 2);
    greedy->from_ns = d->now;
    greedy->deadline_in_ns = 1;
    loose->gap_ns = 0;
    loose->given_ns = tight->given_ns = 0;
    tight->until_ns = d->now;
    simulate(d, d->now + 20000 * MS);
    assert_in_range(ratio(greedy, loose) * 1000, 850, 1150);
    free(d);
}

/* Any mixture: the device never idles while something waits, and shares go by weight. */
static void random_mixtures_keep_the_shares(void **state)
{
    unsigned seed, i;

    (void)state;
    for (seed = 1; seed <= 60; seed++) {
        struct device *d;
        unsigned tenants, servers;
        double total = 0, weights = 0, given = 0;

        random_state = seed * 977;
        servers = 1 + (unsigned)(uniform() * 4);
        tenants = 2 + (unsigned)(uniform() * 5);
        d = device_new(servers);
        for (i = 0; i < tenants; i++) {
            d->weights[i] = 1 + (uint32_t)(uniform() * 5);
            weights += d->weights[i];
            (void)add(d, i, 1, 0, 0.2 + 8 * uniform());
        }
        for (i = tenants; i < SOURCES; i++) { /* some that come and go, of a tenant of their own */
            struct source *s = add(d, tenants, 1, 100 + 400 * uniform(), 1 + 3 * uniform());
            s->lanes = 1;
        }
        d->weights[tenants] = 100;
        simulate(d, 40000 * MS);
        for (i = 0; i < d->n_sources; i++)
            total += (double)d->sources[i].given_ns;
        for (i = 0; i < tenants; i++)
            given += (double)d->sources[i].given_ns;
        assert_true(total >= 0.995 * servers * 40000.0 * MS);
        for (i = 0; i < tenants; i++) {
            double part = (double)d->sources[i].given_ns / given;
            double due = d->weights[i] / weights;

            assert_in_range(part / due * 1000, 950, 1050);
        }
        free(d);
    }
}

static void weights_may_change_at_any_time(void **state)
{
    struct device *d = device_new(1);
    struct source *a = add(d, 0, 1, 0, 3), *b = add(d, 1, 1, 0, 3);
    uint64_t before_a, before_b;

    (void)state;
    random_state = 17;
    d->weights[0] = 1000;
    simulate(d, 5000 * MS);
    d->weights[0] = 1;
    d->weights[1] = 4;
    before_a = a->given_ns;
    before_b = b->given_ns;
    simulate(d, 25000 * MS);
    assert_in_range((b->given_ns - before_b) * 1000 / (a->given_ns - before_a), 3700, 4300);
    free(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(weights_share_the_device),
        cmocka_unit_test(wrong_estimates_are_corrected),
        cmocka_unit_test(idling_gathers_no_credit),
        cmocka_unit_test(idling_pays_no_debt),
        cmocka_unit_test(a_flood_delays_nobody_else),
        cmocka_unit_test(lower_classes_have_their_part),
        cmocka_unit_test(a_class_alone_has_all_and_gathers_no_debt),
        cmocka_unit_test(sessions_of_a_tenant_share_its_turn),
        cmocka_unit_test(the_earliest_deadline_goes_first),
        cmocka_unit_test(random_mixtures_keep_the_shares),
        cmocka_unit_test(weights_may_change_at_any_time),
    };
    return cmocka_run_group_tests_name("fair", tests, NULL, NULL);
}
