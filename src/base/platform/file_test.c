#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
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

#include "base/platform/file.h"

/* out/secret stands beside in/, the directory that must not be left. */
struct place {
    char path[64];
    int top, in;
};

static int setup(void **state)
{
    struct place *p = calloc(1, sizeof *p);

    (void)snprintf(p->path, sizeof p->path, "/tmp/xinfer-test-XXXXXX");
    assert_non_null(mkdtemp(p->path));
    p->top = open(p->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_int_equal(xi_beneath_mkdirs(p->top, "in/a/b", 0700), 0);
    assert_int_equal(xi_beneath_mkdirs(p->top, "out", 0700), 0);
    int fd = xi_beneath_open(p->top, "out/secret", O_WRONLY | O_CREAT, 0600);
    assert_int_equal(xi_fd_write_all(fd, "secret", 6), 0);
    (void)close(fd);
    p->in = xi_beneath_open(p->top, "in", O_RDONLY | O_DIRECTORY, 0);
    assert_true(p->in >= 0);
    *state = p;
    return 0;
}

static int teardown(void **state)
{
    struct place *p = *state;
    int tmp = open("/tmp", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    assert_int_equal(xi_tree_remove(tmp, p->path + strlen("/tmp/")), 0);
    assert_int_equal(access(p->path, F_OK), -1);
    (void)close(tmp);
    (void)close(p->in);
    (void)close(p->top);
    free(p);
    return 0;
}

static void stays_beneath(void **state)
{
    struct place *p = *state;
    const char *bad[] = {"../out/secret", "a/../../out/secret", "/etc/passwd",
                         "link",          "dirlink/secret",     "a/b/up/out/secret"};
    struct stat st;

    assert_int_equal(symlinkat("../out/secret", p->in, "link"), 0);
    assert_int_equal(symlinkat("../out", p->in, "dirlink"), 0);
    assert_int_equal(symlinkat("../../..", p->in, "a/b/up"), 0);
    assert_int_equal(fstatat(p->in, "a/b/up/out/secret", &st, 0), 0); /* they do lead there */
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        errno = 0;
        assert_int_equal(xi_beneath_open(p->in, bad[i], O_RDONLY, 0), -1);
        assert_true(errno == EXDEV || errno == ELOOP || errno == ENOTDIR);
        assert_int_equal(xi_beneath_open_by_segments(p->in, bad[i], O_RDONLY, 0), -1);
        assert_true(errno == EXDEV || errno == ELOOP || errno == ENOTDIR);
        assert_int_equal(xi_beneath_mkdirs(p->in, bad[i], 0700), -1);
    }
    assert_int_equal(xi_beneath_open(p->in, "absent", O_RDONLY, 0), -1);
    assert_int_equal(errno, ENOENT);
    int fd = xi_beneath_open(p->in, "a/b", O_RDONLY | O_DIRECTORY, 0);
    assert_true(fd >= 0);
    assert_int_equal(fcntl(fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
    (void)close(fd);
    fd = xi_beneath_open_by_segments(p->in, "a//b/file", O_RDWR | O_CREAT, 0600);
    assert_true(fd >= 0);
    (void)close(fd);
    assert_int_equal(faccessat(p->in, "a/b/file", F_OK, 0), 0);
}

static void removes_trees_not_what_links_name(void **state)
{
    struct place *p = *state;

    assert_int_equal(symlinkat("../out", p->in, "a/out"), 0);
    assert_int_equal(xi_beneath_mkdirs(p->in, "a/x/y/z", 0700), 0);
    assert_int_equal(fchmodat(p->in, "a/x/y", 0, 0), 0); /* somebody locked it */
    assert_int_equal(xi_tree_remove(p->in, "a"), 0);
    assert_int_equal(faccessat(p->in, "a", F_OK, 0), -1);
    assert_int_equal(faccessat(p->top, "out/secret", F_OK, 0), 0);
    assert_int_equal(xi_tree_remove(p->in, "absent"), 0);
}

static void a_bottomless_tree_is_refused(void **state)
{
    struct place *p = *state;
    int at = dup(p->in), deep = XI_TREE_DEPTH_MAX + 2;

    for (int i = 0; i < deep; i++) {
        assert_int_equal(mkdirat(at, "d", 0700), 0);
        int next = openat(at, "d", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        (void)close(at);
        at = next;
    }
    (void)close(at);
    assert_int_equal(xi_tree_remove(p->in, "d"), -1);
    assert_int_equal(errno, ELOOP);
    /* Take the top off, so that the rest can go. */
    assert_int_equal(renameat(p->in, "d/d/d/d/d", p->in, "rest"), 0);
}

static void reads_up_to_the_cap(void **state)
{
    struct place *p = *state;
    char text[8];
    size_t n;
    int more;
    int fd = xi_beneath_open(p->top, "out/secret", O_RDONLY, 0);

    assert_int_equal(xi_fd_read_start(fd, text, sizeof text, &n, &more), 0);
    assert_int_equal(n, 6);
    assert_int_equal(more, 0);
    assert_int_equal(xi_fd_read_start(fd, text, 6, &n, &more), 0);
    assert_int_equal(more, 0);
    assert_int_equal(xi_fd_read_start(fd, text, 5, &n, &more), 0);
    assert_int_equal(n, 5);
    assert_int_equal(more, 1);
    (void)close(fd);
}

static void one_lock_at_a_time(void **state)
{
    struct place *p = *state;
    int a = xi_beneath_open(p->top, "out/secret", O_RDWR, 0);
    int b = xi_beneath_open(p->top, "out/secret", O_RDWR, 0);

    assert_int_equal(xi_fd_lock(a), 0);
    assert_int_equal(xi_fd_lock(b), -1);
    assert_int_equal(errno, EWOULDBLOCK);
    (void)close(a);
    assert_int_equal(xi_fd_lock(b), 0);
    (void)close(b);
}

static void knows_free_space(void **state)
{
    struct place *p = *state;
    uint64_t bytes = 0;

    assert_int_equal(xi_fd_free_bytes(p->top, &bytes), 0);
    assert_true(bytes > 0);
    assert_int_equal(xi_beneath_flush_dir(p->top, "in"), 0);
    assert_int_equal(xi_beneath_flush_dir(p->top, "absent"), -1);
}

static void makes_plain_paths(void **state)
{
    struct place *p = *state;
    char path[128];

    (void)snprintf(path, sizeof path, "%s/x//y/z/", p->path);
    assert_int_equal(xi_path_mkdirs(path, 0700), 0);
    assert_int_equal(faccessat(p->top, "x/y/z", F_OK, 0), 0);
    (void)snprintf(path, sizeof path, "%s/out/secret/deeper", p->path);
    assert_int_equal(xi_path_mkdirs(path, 0700), -1);
    assert_int_equal(errno, ENOTDIR);
    (void)snprintf(path, sizeof path, "%s/out/secret", p->path);
    assert_int_equal(xi_path_mkdirs(path, 0700), -1);
    assert_int_equal(errno, ENOTDIR);
    assert_int_equal(xi_path_mkdirs("", 0700), -1);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(stays_beneath),
        T(removes_trees_not_what_links_name),
        T(a_bottomless_tree_is_refused),
        T(reads_up_to_the_cap),
        T(one_lock_at_a_time),
        T(knows_free_space),
        T(makes_plain_paths),
    };

    return cmocka_run_group_tests_name("file", tests, NULL, NULL);
}
