/* Which core the pool tells a run to begin on, against fake hosts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "daemon/core/pool_private.h"
#include "daemon/core/pool_room.h"

#define LONG_NS  (2 * MS)
#define SHORT_NS (MS / 100)

struct cores {
    struct room r;
    struct xi_session *s;
    struct xi_host *host;
    struct asked a[32];
    unsigned n;
};

static void ask(struct cores *c, unsigned n)
{
    while (n-- > 0) {
        room_ask(&c->r, &c->a[c->n], c->s, 1, 1);
        fixture_submit(c->r.f, &c->a[c->n++]);
    }
}

/* The lane's run ends, having taken so long, and says that it was on this core. */
static void ends(struct cores *c, uint32_t lane, int core, uint64_t ns)
{
    fake.core = core;
    fake_done_id(c->host, lane, c->host->running[lane], ns);
}

/* A session of three lanes on two cores; how long its runs take is known. */
static struct cores cores_new(int own, uint64_t ns)
{
    struct cores c = {.r = room_new(2, 100)};

    c.r.f->pool->config.own_cores = own;
    c.s = room_load(&c.r, "m", "default", 3, 1);
    c.host = fake_last();
    ask(&c, 1);
    ends(&c, c.host->running[0] != 0 ? 0 : c.host->running[1] != 0 ? 1 : 2, 0, ns);
    return c;
}

static void cores_free(struct cores *c)
{
    room_answer_all(c->host);
    room_answered(c->a, c->n, XI_OK);
    room_free(&c->r);
}

/* The lane that runs, other than this one. */
static uint32_t other_than(const struct cores *c, uint32_t lane)
{
    uint32_t i;

    for (i = 0; i < c->host->lanes; i++) {
        if (i != lane && c->host->running[i] != 0)
            return i;
    }
    fail_msg("no other lane runs");
    return 0;
}

static uint32_t one_that_runs(const struct cores *c)
{
    return other_than(c, UINT32_MAX);
}

/* The lane that runs what was dispatched last: told this core. */
static uint32_t told(const struct cores *c, int core)
{
    uint32_t i;

    for (i = 0; i < c->host->lanes; i++) {
        if (c->host->running[i] != 0 && c->host->core[i] == core)
            return i;
    }
    fail_msg("nothing was told core %d", core);
    return 0;
}

static void a_core_goes_from_hand_to_hand(void **state)
{
    struct cores c = cores_new(1, LONG_NS);
    uint32_t first, second;

    (void)state;
    ask(&c, 6); /* two run, wherever the kernel likes */
    first = one_that_runs(&c);
    second = other_than(&c, first);
    assert_int_equal(c.host->core[first], XI_CORE_ANY);
    assert_int_equal(c.host->core[second], XI_CORE_ANY);
    ends(&c, first, 1, LONG_NS);
    first = told(&c, 1);
    ends(&c, second, 0, LONG_NS);
    second = told(&c, 0);
    ends(&c, first, 0, LONG_NS); /* it was told 1: that is where it ran */
    first = told(&c, 1);
    assert_int_equal(told(&c, 0), second);
    cores_free(&c);
}

static void an_idle_machine_is_the_kernels(void **state)
{
    struct cores c = cores_new(1, LONG_NS);
    unsigned i;

    (void)state;
    for (i = 0; i < 3; i++) {
        ask(&c, 1);
        assert_int_equal(c.host->core[one_that_runs(&c)], XI_CORE_ANY);
        ends(&c, one_that_runs(&c), 1, LONG_NS);
    }
    cores_free(&c);
}

/* A core that fell free while nothing waited is as good as any by the time something comes, unless
 * it is still the only one. */
static void the_only_free_one_waits_for_work(void **state)
{
    struct cores c = cores_new(1, LONG_NS);

    (void)state;
    ask(&c, 2);
    ends(&c, one_that_runs(&c), 1, LONG_NS);
    ask(&c, 1);
    (void)told(&c, 1);
    cores_free(&c);
}

static void nobody_is_told_a_core_that_another_was_told(void **state)
{
    struct cores c = cores_new(1, LONG_NS);
    uint32_t first, second;

    (void)state;
    ask(&c, 4);
    first = one_that_runs(&c);
    second = other_than(&c, first);
    ends(&c, first, 1, LONG_NS);
    first = told(&c, 1);
    ends(&c, second, 1, LONG_NS); /* cannot be, or no longer */
    assert_int_equal(c.host->core[other_than(&c, first)], XI_CORE_ANY);
    cores_free(&c);
}

static void no_core_of_nonsense_is_told(void **state)
{
    static const int nonsense[] = {-1, -7, 64, 1 << 30};
    unsigned i;

    (void)state;
    for (i = 0; i < sizeof(nonsense) / sizeof(nonsense[0]); i++) {
        struct cores c = cores_new(1, LONG_NS);
        uint32_t first;

        ask(&c, 3);
        first = one_that_runs(&c);
        ends(&c, first, nonsense[i], LONG_NS);
        first = one_that_runs(&c);
        assert_int_equal(c.host->core[first], XI_CORE_ANY);
        assert_int_equal(c.host->core[other_than(&c, first)], XI_CORE_ANY);
        cores_free(&c);
    }
}

static void short_runs_and_foreign_cores_are_left_alone(void **state)
{
    unsigned own;

    (void)state;
    for (own = 0; own < 2; own++) {
        struct cores c = cores_new((int)own, own ? SHORT_NS : LONG_NS);
        uint32_t first;

        ask(&c, 3);
        first = one_that_runs(&c);
        ends(&c, first, 1, own ? SHORT_NS : LONG_NS);
        first = one_that_runs(&c);
        assert_int_equal(c.host->core[first], XI_CORE_ANY);
        assert_int_equal(c.host->core[other_than(&c, first)], XI_CORE_ANY);
        cores_free(&c);
    }
}

/* What a host held when it died is free again. */
static void a_crash_gives_its_core_back(void **state)
{
    struct cores c = cores_new(1, LONG_NS);
    uint32_t first;

    (void)state;
    ask(&c, 3);
    first = one_that_runs(&c);
    ends(&c, first, 1, LONG_NS);
    (void)told(&c, 1);
    assert_true(c.r.f->pool->cores_held == 2);
    fake_exit(c.host, "ended by SIGSEGV");
    assert_true(c.r.f->pool->cores_held == 0);
    room_live(&c.r, 5000);
    c.host = fake_last();
    cores_free(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_core_goes_from_hand_to_hand),
        cmocka_unit_test(an_idle_machine_is_the_kernels),
        cmocka_unit_test(the_only_free_one_waits_for_work),
        cmocka_unit_test(nobody_is_told_a_core_that_another_was_told),
        cmocka_unit_test(no_core_of_nonsense_is_told),
        cmocka_unit_test(short_runs_and_foreign_cores_are_left_alone),
        cmocka_unit_test(a_crash_gives_its_core_back),
    };
    return cmocka_run_group_tests_name("pool_cores", tests, NULL, NULL);
}
