/* Names: shares are exact, sequences stick, and the table holds what was put into it through any
 * order of adding, sharing, flipping and dropping. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/core/chance.h"
#include "daemon/core/session_private.h"

static void shares_are_exact_over_any_run(void **state)
{
    unsigned round, i, picks;

    (void)state;
    for (round = 0; round < 300; round++) {
        uint32_t n = 1 + below(XI_NAME_TARGETS_MAX), total = 0;
        struct xi_target t[XI_NAME_TARGETS_MAX] = {{0}};
        uint64_t count[XI_NAME_TARGETS_MAX] = {0};

        for (i = 0; i < n; i++) {
            t[i].weight = below(3) == 0 ? 0 : below(1000);
            total += t[i].weight;
        }
        for (picks = 1; picks <= 3000; picks++) {
            int at = xi_targets_pick(t, n, 0);

            assert_int_equal(at < 0, total == 0);
            if (at < 0)
                break;
            assert_true(t[at].weight > 0);
            count[at]++;
            for (i = 0; i < n; i++) {
                double due = (double)picks * t[i].weight / total;

                assert_true((double)count[i] > due - n && (double)count[i] < due + n);
            }
        }
    }
}

static void sequences_stick_and_share(void **state)
{
    struct xi_target t[2] = {{.weight = 900}, {.weight = 100}};
    unsigned i, canary = 0;

    (void)state;
    for (i = 0; i < 20000; i++) {
        uint64_t hash = (((uint64_t)below(1u << 31) << 31) | below(1u << 31)) | 1;
        int first = xi_targets_pick(t, 2, hash);

        (void)xi_targets_pick(t, 2, 0); /* others ask meanwhile */
        assert_int_equal(xi_targets_pick(t, 2, hash), first);
        canary += first == 1;
    }
    /* Binomial: mean 2000, standard deviation 42; five of them. */
    assert_in_range(canary, 2000 - 212, 2000 + 212);
    t[0].weight = 0;
    t[1].weight = 0;
    assert_int_equal(xi_targets_pick(t, 2, 5), -1);
}

#define ENTRIES 24

/* What the table must say, kept in the plainest way. */
struct model {
    struct xi_entry *at_name[3][XI_NAME_TARGETS_MAX];
    uint32_t n[3];
};

static void check(struct xi_sessions *m, const struct model *model)
{
    static const char *const names[] = {"one", "two", "TWO.b"};
    unsigned i, k;

    for (i = 0; i < 3; i++) {
        const struct xi_named *name = xi_names_find(m, "t", names[i]);
        uint32_t total = 0;

        assert_int_equal(name == NULL, model->n[i] == 0);
        if (name == NULL)
            continue;
        assert_int_equal(name->n, model->n[i]);
        assert_ptr_equal(name->targets[0].entry, model->at_name[i][0]);
        for (k = 0; k < name->n; k++)
            total += name->targets[k].weight;
        assert_int_equal(total, XI_WEIGHT_ALL); /* somebody always answers */
    }
}

static void remove_from(struct model *model, unsigned i, const struct xi_entry *e)
{
    unsigned k = 0;

    while (model->at_name[i][k] != e)
        k++;
    model->n[i]--;
    memmove(&model->at_name[i][k], &model->at_name[i][k + 1],
            (model->n[i] - k) * sizeof(model->at_name[i][0]));
}

static void the_table_follows(void **state)
{
    static const char *const names[] = {"one", "two", "TWO.b"};
    struct xi_sessions *m = calloc(1, sizeof(*m));
    struct xi_entry *entries = calloc(ENTRIES, sizeof(*entries));
    unsigned of[ENTRIES] = {0}, step, i;
    struct model model = {0};
    struct xi_err err;

    (void)state;
    assert_true(m != NULL && entries != NULL);
    for (step = 0; step < 20000; step++) {
        struct xi_entry *e = &entries[below(ENTRIES)];
        unsigned *name = &of[e - entries];

        if (e->named == NULL) {
            *name = below(3);
            memset(e, 0, sizeof(*e));
            (void)snprintf(e->s.id, sizeof(e->s.id), "id-%td", e - entries);
            (void)snprintf(e->s.tenant, sizeof(e->s.tenant), "t");
            (void)snprintf(e->s.name, sizeof(e->s.name), "%s", names[*name]);
            if (model.n[*name] == XI_NAME_TARGETS_MAX) {
                assert_int_equal(xi_names_add(m, e, &err), XI_EAGAIN);
                continue;
            }
            assert_int_equal(xi_names_add(m, e, &err), XI_OK);
            model.at_name[*name][model.n[*name]++] = e;
            assert_ptr_equal(xi_ids_find(m, e->s.id), e);
        } else if (below(3) == 0) {
            remove_from(&model, *name, e);
            xi_names_drop_name(m, e);
            xi_names_drop_id(m, e);
            assert_true(xi_ids_find(m, e->s.id) == NULL && xi_ids_ended(m, e->s.id));
        } else if (below(2) == 0) {
            for (i = 0; model.at_name[*name][i] != e; i++)
                ;
            model.at_name[*name][i] = model.at_name[*name][0];
            model.at_name[*name][0] = e;
            xi_names_flip(e->named, e);
        } else if (e->named->targets[0].entry != e && e->named->n == 2) {
            xi_names_share(e->named, e, below(1001));
        }
        check(m, &model);
    }
    for (i = 0; i < ENTRIES; i++)
        xi_names_drop_name(m, &entries[i]);
    for (i = 0; i < XI_NAME_BUCKETS; i++)
        assert_null(m->names[i]);
    free(entries);
    free(m);
}

static void successors_are_followed_to_the_last(void **state)
{
    struct xi_sessions *m = calloc(1, sizeof(*m));
    struct xi_entry e[3] = {{.s = {.id = "a", .name = "n", .tenant = "t", .successor = "b"}},
                            {.s = {.id = "b", .name = "n", .tenant = "t", .successor = "c"}},
                            {.s = {.id = "c", .name = "n", .tenant = "t"}}};
    struct xi_err err;
    int i;

    (void)state;
    assert_non_null(m);
    for (i = 0; i < 3; i++)
        assert_int_equal(xi_names_add(m, &e[i], &err), XI_OK);
    assert_string_equal(xi_sessions_successor(m, "a"), "c");
    xi_names_drop_name(m, &e[1]);
    xi_names_drop_id(m, &e[1]);
    assert_string_equal(xi_sessions_successor(m, "a"), "c");
    assert_string_equal(xi_sessions_successor(m, "b"), "c");
    assert_null(xi_sessions_successor(m, "c"));
    assert_null(xi_sessions_successor(m, "never"));
    xi_names_drop_name(m, &e[0]);
    xi_names_drop_name(m, &e[2]);
    free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shares_are_exact_over_any_run),
        cmocka_unit_test(sequences_stick_and_share),
        cmocka_unit_test(the_table_follows),
        cmocka_unit_test(successors_are_followed_to_the_last),
    };
    random_state = 7;
    return cmocka_run_group_tests_name("session_names", tests, NULL, NULL);
}
