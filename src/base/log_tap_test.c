#include "base/log_tap.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void check(const char *text, const char *const (*want)[2], unsigned n)
{
    struct xi_log_fields f;

    xi_log_fields_parse(text, &f);
    if (f.n != n)
        fail_msg("%u fields where %u are right: %s", f.n, n, text);
    for (unsigned i = 0; i < n; i++) {
        assert_string_equal(f.at[i].key, want[i][0]);
        assert_string_equal(f.at[i].value, want[i][1]);
    }
}

static void lines_have_fields(void **state)
{
    static const char *const plain[][2] = {{"id", "a-b"}, {"ms", "17"}};
    static const char *const words[][2] = {{"id", "x"}, {"why", "no client for idle_exit_s"}};
    static const char *const quotes[][2] = {{"why", "it said \"no\", id=9"}, {"n", ""}};
    static const char *const twice[][2] = {{"tenant", "a"}};

    (void)state;
    check("id=a-b ms=17", plain, 2);
    check("id=x why=no client for idle_exit_s", words, 2);
    check("why=\"it said \"no\", id=9\" n=", quotes, 2);
    check("some handles were still open", NULL, 0);
    check("x= tenant=", (const char *const[][2]){{"x", ""}, {"tenant", ""}}, 2);
    check("tenant=a tenant=b", twice, 1);
    check("why=\"never ends", (const char *const[][2]){{"why", "never ends"}}, 1);
    check("=a 9=b A=c", NULL, 0);
    check("", NULL, 0);
}

static void the_longest_line(void **state)
{
    struct xi_log_fields f;
    char text[3000] = "";

    (void)state;
    for (int i = 0; i < 300; i++)
        (void)snprintf(text + strlen(text), sizeof text - strlen(text), "k%d=v ", i);
    xi_log_fields_parse(text, &f);
    assert_int_equal(f.n, XI_LOG_FIELDS_MAX);
    assert_null(xi_log_field(&f, "k299"));
    assert_string_equal(xi_log_field(&f, "k3"), "v");
}

static void keeps_the_last(void **state)
{
    struct xi_log_record r;

    (void)state;
    uint64_t before = xi_log_tap_newest();
    for (int i = 0; i < 3000; i++)
        xi_log_tap_note(XI_WARN, "thing.happened", "n=1");
    assert_int_equal(xi_log_tap_newest(), before + 3000);
    assert_int_equal(xi_log_tap_read(before + 3000, &r), XI_LOG_TAP_OK);
    assert_string_equal(r.event, "thing.happened");
    assert_int_equal(r.level, XI_WARN);
    assert_true(r.at_ms > 1500000000000ull);
    assert_int_equal(xi_log_tap_read(before + 3000 - 1023, &r), XI_LOG_TAP_OK);
    assert_int_equal(xi_log_tap_read(before + 3000 - 1024, &r), XI_LOG_TAP_LOST);
    assert_int_equal(xi_log_tap_read(before + 3001, &r), XI_LOG_TAP_WAIT);
    assert_int_equal(xi_log_tap_read(0, &r), XI_LOG_TAP_LOST);
}

enum { WRITERS = 4, LINES = 20000 };

/* Each line says its number twice: a torn record shows. */
static void *write_lines(void *arg)
{
    char text[200];

    for (int i = 0; i < LINES; i++) {
        (void)snprintf(text, sizeof text, "w=%d n=%d pad=%0*d again=%d", *(int *)arg, i, i % 64, 0,
                       i);
        xi_log_tap_note(XI_INFO, "writer.line", text);
    }
    return NULL;
}

static void nothing_is_torn(void **state)
{
    pthread_t threads[WRITERS];
    int numbers[WRITERS], last[WRITERS] = {-1, -1, -1, -1};
    uint64_t next = xi_log_tap_newest() + 1, end = next + (uint64_t)WRITERS * LINES, got = 0;

    (void)state;
    for (int i = 0; i < WRITERS; i++) {
        numbers[i] = i;
        assert_int_equal(pthread_create(&threads[i], NULL, write_lines, &numbers[i]), 0);
    }
    while (next < end) {
        struct xi_log_record r;
        struct xi_log_fields f;
        enum xi_log_tap_result result = xi_log_tap_read(next, &r);
        if (result == XI_LOG_TAP_WAIT)
            continue;
        next++;
        if (result == XI_LOG_TAP_LOST)
            continue;
        got++;
        assert_int_equal(r.seq, next - 1);
        xi_log_fields_parse(r.text, &f);
        assert_int_equal(f.n, 4);
        assert_string_equal(xi_log_field(&f, "n"), xi_log_field(&f, "again"));
        long w = strtol(xi_log_field(&f, "w"), NULL, 10);
        int n = (int)strtol(xi_log_field(&f, "n"), NULL, 10);
        assert_in_range(w, 0, WRITERS - 1);
        assert_true(n > last[w]); /* in order, each at most once */
        last[w] = n;
    }
    for (int i = 0; i < WRITERS; i++)
        (void)pthread_join(threads[i], NULL);
    assert_true(got > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_have_fields),
        cmocka_unit_test(the_longest_line),
        cmocka_unit_test(keeps_the_last),
        cmocka_unit_test(nothing_is_torn),
    };

    if (xi_log_tap_open(NULL) != XI_OK)
        return 1;
    return cmocka_run_group_tests_name("log_tap", tests, NULL, NULL);
}
