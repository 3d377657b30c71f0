#define _GNU_SOURCE
/* Which files of the engine folder are taken for plugins, and which of those may be loaded. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/core/service_private.h"

static void names_of_plugins(void **state)
{
    static const char *const none[] = {"libxinfer_engine_.so",
                                       "libxinfer_engine_x",
                                       "xinfer_engine_x.so",
                                       "libxinfer_engine_x.so.1",
                                       "libxinfer_engine_../x.so",
                                       "libxinfer_engine_A.so",
                                       "libxinfer_engine_a b.so",
                                       "libxinfer_engine_abcdefghijabcdefghijabcdefghijab.so",
                                       "",
                                       ".so"};
    char name[32] = "";
    size_t i;

    (void)state;
    assert_true(xi_plugin_name("libxinfer_engine_openvino.so", name));
    assert_string_equal(name, "openvino");
    assert_true(xi_plugin_name("libxinfer_engine_tensorrt_10.so", name));
    assert_string_equal(name, "tensorrt_10");
    for (i = 0; i < sizeof(none) / sizeof(none[0]); i++)
        assert_false(xi_plugin_name(none[i], name));
}

static void a_plugin_that_others_can_write_is_refused(void **state)
{
    char dir[] = "/tmp/xi-plugin-XXXXXX", path[64];
    struct xi_err why;
    FILE *file;

    (void)state;
    assert_non_null(mkdtemp(dir));
    (void)snprintf(path, sizeof(path), "%s/libxinfer_engine_x.so", dir);
    xi_plugin_judge(path, &why);
    assert_int_equal(why.rc, XI_ENOENGINE);
    file = fopen(path, "w");
    assert_non_null(file);
    (void)fclose(file);
    assert_int_equal(chmod(path, 0755), 0);
    xi_plugin_judge(path, &why);
    assert_int_equal(why.rc, XI_OK);
    assert_int_equal(chmod(path, 0757), 0);
    xi_plugin_judge(path, &why);
    assert_int_equal(why.rc, XI_ENOENGINE);
    assert_non_null(strstr(why.msg, "everybody can write it"));
    assert_int_equal(chmod(path, 0755), 0);
    assert_int_equal(chmod(dir, 0757), 0); /* then it can be exchanged */
    xi_plugin_judge(path, &why);
    assert_int_equal(why.rc, XI_ENOENGINE);
    assert_int_equal(chmod(dir, 0755), 0);
    if (geteuid() == 0) {
        assert_int_equal(chown(path, 12345, (gid_t)-1), 0);
        xi_plugin_judge(path, &why);
        assert_int_equal(why.rc, XI_ENOENGINE);
        assert_non_null(strstr(why.msg, "12345"));
    }
    xi_plugin_judge(dir, &why);
    assert_non_null(strstr(why.msg, "not a file"));
    (void)unlink(path);
    (void)rmdir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_of_plugins),
        cmocka_unit_test(a_plugin_that_others_can_write_is_refused),
    };
    return cmocka_run_group_tests_name("service_probe", tests, NULL, NULL);
}
