#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/json.h"

static enum xi_rc parse(const char *text, json_t **ret, struct xi_err *err)
{
    return xi_json_parse(text, strlen(text), 1000, ret, err);
}

static void hostile_documents_are_refused(void **state)
{
    struct xi_err err = {0};
    json_t *v = NULL;
    char deep[1000];

    (void)state;
    memset(deep, '[', sizeof deep);
    assert_int_equal(xi_json_parse(deep, sizeof deep, 1000, &v, &err), XI_EJSON);
    assert_string_equal(err.msg, "nested deeper than 64 levels");
    assert_int_equal(xi_json_parse(deep, sizeof deep, 999, &v, &err), XI_ETOOBIG);
    assert_int_equal(parse("{\"a\":1,\"a\":2}", &v, &err), XI_EJSON);   /* duplicate key */
    assert_int_equal(parse("{\"a\":\"\xff\"}", &v, &err), XI_EJSON);    /* not UTF-8 */
    assert_int_equal(parse("{\"a\":\"\\ud800\"}", &v, &err), XI_EJSON); /* lone surrogate */
    assert_int_equal(parse("{} x", &v, &err), XI_EJSON);
    assert_int_equal(parse("{\"a\\u0000b\":1}", &v, &err), XI_EJSON);
    assert_int_equal(parse("", &v, &err), XI_EJSON);
    assert_null(v);
}

static void getters_name_the_path(void **state)
{
    struct xi_err err = {0};
    json_t *v = NULL;
    int64_t n = 7;
    double d = 0;
    const char *s = NULL;
    int b = 0;

    (void)state;
    assert_int_equal(parse("{\"n\":5,\"s\":\"x\",\"d\":1.5,\"b\":true,\"z\":null}", &v, &err),
                     XI_OK);
    assert_int_equal(xi_json_int(v, "models.main", "n", 1, 6, 9, &n, &err), XI_EINVAL);
    assert_string_equal(err.msg, "models.main.n is 5, allowed is 6 to 9");
    assert_int_equal(n, 7);
    assert_int_equal(xi_json_int(v, "", "n", 1, 0, 9, &n, &err), XI_OK);
    assert_int_equal(n, 5);
    assert_int_equal(xi_json_string(v, "a", "n", 1, &s, &err), XI_EINVAL);
    assert_string_equal(err.msg, "a.n must be a string");
    assert_int_equal(xi_json_string(v, "", "missing", 1, &s, &err), XI_EINVAL);
    assert_string_equal(err.msg, "missing is missing");
    assert_int_equal(xi_json_string(v, "", "z", 0, &s, &err), XI_OK); /* null is absent */
    assert_null(s);
    assert_int_equal(xi_json_number(v, "", "d", 1, 0, 1, &d, &err), XI_EINVAL);
    assert_int_equal(xi_json_bool(v, "", "b", 1, &b, &err), XI_OK);
    assert_true(b);
    json_decref(v);
}

static void an_unknown_key_names_the_nearest(void **state)
{
    static const char *const known[] = {"listen", "state", "log_level", NULL};
    struct xi_err err = {0};
    json_t *v = NULL;

    (void)state;
    assert_int_equal(parse("{\"x-mine\":1,\"lisen\":2}", &v, &err), XI_OK);
    assert_int_equal(xi_json_known_keys(v, "config", known, &err), XI_EINVAL);
    assert_string_equal(err.msg, "config: unknown key \"lisen\"");
    assert_string_equal(err.hint, "did you mean \"listen\"?");
    json_decref(v);
    assert_null(xi_nearest("completely different", known));
    assert_string_equal(xi_nearest("log-level", known), "log_level");
}

int main(void)
{
    const struct CMUnitTest t[] = {
        cmocka_unit_test(hostile_documents_are_refused),
        cmocka_unit_test(getters_name_the_path),
        cmocka_unit_test(an_unknown_key_names_the_nearest),
    };
    return cmocka_run_group_tests_name("json", t, NULL, NULL);
}
