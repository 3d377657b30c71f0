#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/name.h"

static void names_that_could_be_paths_are_refused(void **state)
{
    static const char *const bad[] = {"",    ".",  "..",   "../x",     "a/b",  "%2e%2e", " ",
                                      "a b", "-a", "a\\b", "\xc3\xa9", "a\nb", "a:b"};
    char text[200];

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(xi_name_valid(bad[i]));
    memset(text, 'a', sizeof text);
    text[128] = '\0';
    assert_true(xi_name_valid(text));
    text[128] = 'a';
    text[129] = '\0';
    assert_false(xi_name_valid(text));
    assert_true(xi_name_valid("yolo.v8_s-1"));
}

/* The order and the examples of semver.org, §11. */
static void versions_are_semver(void **state)
{
    static const char *const rising[] = {"1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.beta",
                                         "1.0.0-beta",  "1.0.0-beta.2",  "1.0.0-beta.11",
                                         "1.0.0-rc.1",  "1.0.0",         "2.0.0",
                                         "2.1.0",       "2.1.1",         "2.1.10"};
    static const char *const bad[] = {"1",      "1.0",    "01.0.0", "1.0.0-",     "1.0.0-01",
                                      "1.0.0+", "v1.0.0", "1.0.0 ", "1.0.0-a..b", "9999999999.0.0"};
    size_t n = sizeof rising / sizeof *rising;

    (void)state;
    for (size_t i = 0; i < n; i++) {
        assert_true(xi_semver_valid(rising[i]));
        for (size_t j = 0; j < n; j++) {
            int c = xi_semver_compare(rising[i], rising[j]);
            assert_int_equal((c > 0) - (c < 0), (i > j) - (i < j));
        }
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(xi_semver_valid(bad[i]));
    assert_int_equal(xi_semver_compare("1.0.0+a", "1.0.0+b"), 0); /* builds do not order */
}

int main(void)
{
    const struct CMUnitTest t[] = {
        cmocka_unit_test(names_that_could_be_paths_are_refused),
        cmocka_unit_test(versions_are_semver),
    };
    return cmocka_run_group_tests_name("name", t, NULL, NULL);
}
