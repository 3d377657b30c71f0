#include "daemon/core/settings.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/json.h"

static json_t *json(const char *text)
{
    json_t *v = json_loads(text, JSON_DECODE_ANY, NULL);

    if (v == NULL)
        fail_msg("the test's own JSON is bad: %s", text);
    return v;
}

static void everything_at_once(void **state)
{
    json_t *doc = json("{\"log_level\":\"debug\",\"memory\":\"50%\",\"x-note\":1,"
                       "\"tenants\":{\"acme\":{\"weight\":3,\"memory\":\"2GiB\",\"rate\":0.5,"
                       "\"queue\":64},\"b\":{}},"
                       "\"models\":{\"night\":{\"max_batch\":8,\"max_delay_ms\":2.5}}}");
    struct xi_settings s;

    (void)state;
    assert_int_equal(xi_settings_read(doc, 1024 * XI_MIB, &s, NULL), XI_OK);
    assert_true(s.has_level && s.level == XI_DEBUG);
    assert_true(s.has_memory && s.memory_bytes == 512 * XI_MIB);
    assert_int_equal(s.n_tenants, 2);
    assert_string_equal(s.tenants[0].name, "acme");
    assert_int_equal(s.tenants[0].limits.weight, 3);
    assert_true(s.tenants[0].limits.memory_bytes == 2 * XI_GIB);
    assert_true(s.tenants[0].limits.rate_per_s > 0.49 && s.tenants[0].limits.rate_per_s < 0.51);
    assert_int_equal(s.tenants[0].limits.queue_limit, 64);
    assert_int_equal(s.tenants[1].limits.weight, 1);
    assert_int_equal(s.n_models, 1);
    assert_int_equal(s.models[0].max_batch, 8);
    assert_int_equal(s.models[0].max_delay_us, 2500);
    xi_settings_fini(&s);
    json_decref(doc);
}

static void what_is_wrong_is_named(void **state)
{
    static const struct {
        const char *doc, *says;
    } bad[] = {
        {"{\"log_levle\":\"info\"}", "log_level"},
        {"{\"log_level\":\"loud\"}", "loud"},
        {"{\"memory\":\"200%\"}", "memory"},
        {"{\"memory\":17}", "64MiB"},
        {"{\"memory\":-1}", "memory"},
        {"{\"tenants\":[]}", "tenants"},
        {"{\"tenants\":{\"a b\":{}}}", "a b"},
        {"{\"tenants\":{\"acme\":7}}", "tenants.acme"},
        {"{\"tenants\":{\"acme\":{\"wieght\":3}}}", "weight"},
        {"{\"tenants\":{\"acme\":{\"weight\":0}}}", "tenants.acme.weight"},
        {"{\"tenants\":{\"acme\":{\"weight\":1001}}}", "tenants.acme.weight"},
        {"{\"tenants\":{\"acme\":{\"rate\":-1}}}", "tenants.acme.rate"},
        {"{\"tenants\":{\"acme\":{\"memory\":\"80%\"}}}", "tenants.acme.memory"},
        {"{\"models\":{\"m\":{\"max_batch\":0}}}", "models.m.max_batch"},
        {"{\"models\":{\"m\":{\"max_delay_ms\":10001}}}", "models.m.max_delay_ms"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct xi_err err = {0};
        struct xi_settings s;
        json_t *doc = json(bad[i].doc);

        if (xi_settings_read(doc, XI_GIB, &s, &err) != XI_EINVAL)
            fail_msg("%s was taken", bad[i].doc);
        if (strstr(err.msg, bad[i].says) == NULL && strstr(err.hint, bad[i].says) == NULL)
            fail_msg("%s: \"%s\" does not name %s", bad[i].doc, err.msg, bad[i].says);
        json_decref(doc);
    }
}

/* The examples of RFC 7396, appendix A, whose target and patch are objects. */
static void merges_as_the_rfc_says(void **state)
{
    static const struct {
        const char *target, *patch, *result;
    } cases[] = {
        {"{\"a\":\"b\"}", "{\"a\":\"c\"}", "{\"a\":\"c\"}"},
        {"{\"a\":\"b\"}", "{\"b\":\"c\"}", "{\"a\":\"b\",\"b\":\"c\"}"},
        {"{\"a\":\"b\"}", "{\"a\":null}", "{}"},
        {"{\"a\":\"b\",\"b\":\"c\"}", "{\"a\":null}", "{\"b\":\"c\"}"},
        {"{\"a\":[\"b\"]}", "{\"a\":\"c\"}", "{\"a\":\"c\"}"},
        {"{\"a\":\"c\"}", "{\"a\":[\"b\"]}", "{\"a\":[\"b\"]}"},
        {"{\"a\":{\"b\":\"c\"}}", "{\"a\":{\"b\":\"d\",\"c\":null}}", "{\"a\":{\"b\":\"d\"}}"},
        {"{\"a\":[{\"b\":\"c\"}]}", "{\"a\":[1]}", "{\"a\":[1]}"},
        {"{\"e\":null}", "{\"a\":1}", "{\"e\":null,\"a\":1}"},
        {"{}", "{\"a\":{\"bb\":{\"ccc\":null}}}", "{\"a\":{\"bb\":{}}}"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        json_t *target = json(cases[i].target), *patch = json(cases[i].patch);
        json_t *result = json(cases[i].result);

        assert_int_equal(xi_settings_merge(target, patch), 0);
        if (!json_equal(target, result))
            fail_msg("case %zu", i);
        json_decref(target);
        json_decref(patch);
        json_decref(result);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(everything_at_once),
                                       cmocka_unit_test(what_is_wrong_is_named),
                                       cmocka_unit_test(merges_as_the_rfc_says)};

    return cmocka_run_group_tests_name("settings", tests, NULL, NULL);
}
