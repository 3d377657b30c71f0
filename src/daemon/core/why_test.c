#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "daemon/core/why.h"

static void note(struct xi_why *w, const char *tenant, const char *name, uint64_t request)
{
    struct xi_why_entry e = {.kind = XI_WHY_REFUSED, .request = request};

    (void)snprintf(e.tenant, sizeof(e.tenant), "%s", tenant);
    (void)snprintf(e.name, sizeof(e.name), "%s", name);
    xi_why_note(w, &e);
}

static void newest_first_and_of_ones_own_tenant(void **state)
{
    struct xi_why *w = xi_why_new();
    const struct xi_why_entry *e;

    (void)state;
    note(w, "a", "night", 1);
    note(w, "b", "night", 2);
    note(w, "a", "night", 3);
    note(w, "a", "day", 4);
    e = xi_why_find(w, "a", "night", NULL);
    assert_int_equal(e->request, 3);
    assert_true(e->at_ms > 0);
    e = xi_why_find(w, "a", "night", e);
    assert_int_equal(e->request, 1);
    assert_null(xi_why_find(w, "a", "night", e));
    assert_int_equal(xi_why_find(w, NULL, "night", NULL)->request, 3);
    assert_string_equal(xi_why_find(w, "a", "4", NULL)->name, "day");
    assert_null(xi_why_find(w, "a", "2", NULL));
    xi_why_free(w);
}

static void the_oldest_make_room(void **state)
{
    struct xi_why *w = xi_why_new();
    uint64_t i;

    (void)state;
    for (i = 1; i <= XI_WHY_MAX + 10; i++)
        note(w, "a", "night", i);
    assert_null(xi_why_find(w, "a", "10", NULL));
    assert_non_null(xi_why_find(w, "a", "11", NULL));
    xi_why_free(w);
}

static void without_a_journal_nothing_is_kept(void **state)
{
    (void)state;
    note(NULL, "a", "night", 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(newest_first_and_of_ones_own_tenant),
        cmocka_unit_test(the_oldest_make_room),
        cmocka_unit_test(without_a_journal_nothing_is_kept),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
