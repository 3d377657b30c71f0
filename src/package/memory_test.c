/* Every allocation fails once: opening, verifying, installing and inspecting a package end with
 * ENOMEM, lose nothing, and the next try works. Linked with --wrap for the room's allocations;
 * jansson gets the same ones. libcrypto's are its own and don't fail here. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "package/fixture.h"
#include "package/inspect.h"
#include "package/install.h"
#include "package/recipe.h"

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t bytes);
void *__real_realloc(void *p, size_t n);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t bytes);
void *__wrap_realloc(void *p, size_t n);

static long countdown; /* 0: never fails; else the allocation that does */
static long failed;

static int fails(void)
{
    if (countdown == 0 || --countdown > 0)
        return 0;
    failed++;
    return 1;
}

void *__wrap_malloc(size_t n)
{
    return fails() ? NULL : __real_malloc(n);
}
void *__wrap_calloc(size_t n, size_t bytes)
{
    return fails() ? NULL : __real_calloc(n, bytes);
}
void *__wrap_realloc(void *p, size_t n)
{
    return fails() ? NULL : __real_realloc(p, n);
}

static void empty_staging(int dir)
{
    static const char *const names[] = {"0", "1", "2", "3"};

    for (size_t i = 0; i < 4; i++)
        (void)unlinkat(dir, names[i], 0);
}

static enum xi_rc do_install(int fd, int dir, struct xi_err *err)
{
    struct xi_package_record record = {0};
    enum xi_rc rc = xi_package_install(fd, dir, &record, err);
    struct xi_str bytes;

    empty_staging(dir);
    xi_str_init(&bytes, XI_RECORD_BYTES_MAX);
    if (rc == XI_OK)
        rc = xi_record_encode(&record, &bytes, err);
    xi_record_fini(&record);
    if (rc == XI_OK)
        rc = xi_record_decode(bytes.data, bytes.len, &record, err);
    xi_record_fini(&record);
    xi_str_fini(&bytes);
    return rc;
}

static enum xi_rc do_inspect(int fd, int dir, struct xi_err *err)
{
    struct xi_str out;

    (void)dir;
    xi_str_init(&out, XI_INSPECT_MAX);
    enum xi_rc rc = xi_package_inspect_json(fd, &out, err);
    xi_str_fini(&out);
    return rc;
}

static enum xi_rc do_pack(int fd, int dir, struct xi_err *err)
{
    static const char recipe[] =
        "{\"recipe\":1,\"files\":{\"variants/m.xref\":\"m.xref\"},\"manifest\":" FIXTURE_MANIFEST
        "}";
    struct xi_pack_result result;
    int model = openat(dir, "m.xref", O_WRONLY | O_CREAT | O_TRUNC, 0600);
    int out = openat(dir, "out", O_WRONLY | O_CREAT | O_TRUNC, 0600);

    (void)fd;
    assert_int_equal(write(model, FIXTURE_MODEL, strlen(FIXTURE_MODEL)), strlen(FIXTURE_MODEL));
    (void)close(model);
    enum xi_rc rc = xi_pack_recipe(recipe, sizeof recipe - 1, dir, -1, out, &result, err);
    (void)close(out);
    (void)unlinkat(dir, "m.xref", 0);
    (void)unlinkat(dir, "out", 0);
    return rc;
}

typedef enum xi_rc (*work_fn)(int fd, int dir, struct xi_err *err);

static void fail_each(work_fn work)
{
    char path[] = "/tmp/xi-memory-XXXXXX";
    FILE *f = fixture_package();

    assert_non_null(f);
    assert_non_null(mkdtemp(path));
    int dir = open(path, O_RDONLY | O_DIRECTORY);
    for (long n = 1;; n++) {
        struct xi_err err = {0};
        failed = 0;
        countdown = n;
        enum xi_rc rc = work(fileno(f), dir, &err);
        countdown = 0;
        if (failed == 0) {
            assert_int_equal(rc, XI_OK);
            assert_true(n > 10);
            break;
        }
        if (rc != XI_ENOMEM)
            fail_msg("allocation %ld: rc %d, %s", n, rc, err.msg);
    }
    assert_int_equal(work(fileno(f), dir, NULL), XI_OK);
    (void)close(dir);
    assert_int_equal(rmdir(path), 0);
    (void)fclose(f);
}

static void install_survives(void **state)
{
    (void)state;
    fail_each(do_install);
}
static void inspect_survives(void **state)
{
    (void)state;
    fail_each(do_inspect);
}
static void pack_survives(void **state)
{
    (void)state;
    fail_each(do_pack);
}

int main(void)
{
    const struct CMUnitTest t[] = {
        cmocka_unit_test(install_survives),
        cmocka_unit_test(inspect_survives),
        cmocka_unit_test(pack_survives),
    };
    return cmocka_run_group_tests_name("memory", t, NULL, NULL);
}
