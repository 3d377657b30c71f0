/* Control groups: against the kernel where this machine lets us, and against a folder made here
 * that looks like one (SIMULATED: plain files, so it shows what is written, not what it does). */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/platform/cgroup.h"
#include "base/platform/file.h"
#include "base/platform/process.h"

static char root[64];

static int setup(void **state)
{
    (void)state;
    (void)snprintf(root, sizeof root, "/tmp/xinfer-cgroup-XXXXXX");
    return mkdtemp(root) == NULL ? -1 : 0;
}

static int teardown(void **state)
{
    int tmp = open("/tmp", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    (void)state;
    assert_int_equal(xi_tree_remove(tmp, root + strlen("/tmp/")), 0);
    (void)close(tmp);
    return 0;
}

static void put(const char *path, const char *text)
{
    char whole[256];

    (void)snprintf(whole, sizeof whole, "%s/%s", root, path);
    FILE *f = fopen(whole, "we");
    assert_non_null(f);
    (void)fputs(text, f);
    (void)fclose(f);
}

static const char *got(const char *path)
{
    static char text[256];
    char whole[256];

    (void)snprintf(whole, sizeof whole, "%s/%s", root, path);
    FILE *f = fopen(whole, "re");
    assert_non_null(f);
    text[fread(text, 1, sizeof text - 1, f)] = '\0';
    (void)fclose(f);
    return text;
}

static void folder(const char *path)
{
    char whole[256];

    (void)snprintf(whole, sizeof whole, "%s/%s", root, path);
    assert_int_equal(mkdir(whole, 0755), 0);
}

static void simulated_limits_are_written(void **state)
{
    static const char *const files[] = {"memory.max", "memory.oom.group", "memory.swap.max",
                                        "cpu.weight", "cgroup.procs",     "cgroup.kill"};
    struct xi_cgroup_limits limits = {.memory_bytes = 300 << 20, .cpu_weight = 400};
    struct xi_cgroups g;
    struct xi_err err;
    char path[64], mine[32];
    int dir = -1;

    (void)state;
    put("cgroup.controllers", "cpuset cpu io memory pids\n");
    put("cgroup.subtree_control", "");
    put("cgroup.procs", "");
    folder("daemon");
    put("daemon/cgroup.procs", "");
    folder("host-old"); /* of a daemon that was killed */
    folder("other");
    xi_cgroups_open_at(&g, root);
    assert_true(g.dir >= 0 && g.memory && g.cpu);
    assert_string_equal(g.why, "");
    (void)snprintf(mine, sizeof mine, "%d", (int)getpid());
    assert_string_equal(got("daemon/cgroup.procs"), mine);
    assert_int_equal(faccessat(g.dir, "host-old", F_OK, 0), -1);
    assert_int_equal(faccessat(g.dir, "other", F_OK, 0), 0);

    folder("host-a");
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        (void)snprintf(path, sizeof path, "host-a/%s", files[i]);
        put(path, "");
    }
    assert_int_equal(xi_cgroup_make(&g, "a", &limits, &dir, &err), XI_OK);
    assert_string_equal(got("host-a/memory.max"), "314572800");
    assert_string_equal(got("host-a/memory.oom.group"), "1");
    assert_string_equal(got("host-a/cpu.weight"), "400");
    assert_int_equal(xi_cgroup_enter(dir, 4711), 0);
    assert_string_equal(got("host-a/cgroup.procs"), "4711");
    put("host-a/memory.events", "low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 1\n");
    assert_int_equal(xi_cgroup_oom_kills(dir), 2);
    xi_cgroup_end(&g, "a", &dir);
    assert_string_equal(got("host-a/cgroup.kill"), "1");
    assert_int_equal(dir, -1);
    xi_cgroups_close(&g);
}

static void what_is_missing_is_said(void **state)
{
    struct xi_cgroups g;
    char none[96];

    (void)state;
    put("cgroup.controllers", "pids memoryx\n");
    xi_cgroups_open_at(&g, root);
    assert_int_equal(g.dir, -1);
    assert_non_null(strstr(g.why, "no memory or cpu controller"));
    put("cgroup.controllers", "memory\n");
    put("cgroup.procs", "1\n");
    xi_cgroups_open_at(&g, root);
    assert_int_equal(g.dir, -1);
    assert_non_null(strstr(g.why, "other processes"));
    (void)snprintf(none, sizeof none, "%s/none", root);
    xi_cgroups_open_at(&g, none);
    assert_int_equal(g.dir, -1);
    xi_cgroups_open(&g); /* this machine's own: whatever it is, it is told */
    assert_true(g.dir >= 0 ? g.memory || g.cpu : g.why[0] != '\0');
    xi_cgroups_close(&g);
}

/* The kernel's own: without a controller a group still counts and kills its processes. */
static void the_kernel_ends_a_group(void **state)
{
    static const char *const mounts[] = {"/sys/fs/cgroup", "/sys/fs/cgroup/unified"};
    const char *const argv[] = {"/bin/sleep", "100", NULL};
    struct xi_spawn spawn = {.argv = argv, .in_fd = -1, .out_fd = -1, .err_fd = -1};
    struct xi_cgroup_limits none = {0};
    struct xi_cgroups g = {.dir = -1};
    char name[40], line[256] = "", path[64];
    struct xi_err err;
    int dir = -1, pidfd = -1, code = 0, signo = 0;
    pid_t pid = 0;

    (void)state;
    (void)snprintf(name, sizeof name, "xinfer-test-%d", (int)getpid());
    for (int i = 0; i < 2 && g.dir < 0; i++) {
        g.dir = open(mounts[i], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (g.dir >= 0 && (faccessat(g.dir, "cgroup.controllers", F_OK, 0) != 0 ||
                           xi_cgroup_make(&g, name, &none, &dir, &err) != XI_OK))
            xi_fd_close(&g.dir);
    }
    if (g.dir < 0)
        skip(); /* no v2 hierarchy that we may write */
    assert_int_equal(xi_process_spawn(&spawn, &pid, &pidfd, &err), XI_OK);
    assert_int_equal(xi_cgroup_enter(dir, pid), 0);
    (void)snprintf(path, sizeof path, "/proc/%d/cgroup", (int)pid);
    FILE *f = fopen(path, "re");
    while (f != NULL && fgets(line, sizeof line, f) != NULL && strncmp(line, "0::", 3) != 0)
        continue;
    if (f != NULL)
        (void)fclose(f);
    assert_non_null(strstr(line, name));
    xi_cgroup_end(&g, name, &dir);
    assert_int_equal(xi_fd_wait_readable(pidfd, 10000), 1);
    assert_int_equal(xi_process_reap(pid, &code, &signo), 1);
    assert_int_equal(signo, SIGKILL);
    (void)close(pidfd);
    (void)snprintf(path, sizeof path, "host-%s", name);
    for (int i = 0; i < 1000 && unlinkat(g.dir, path, AT_REMOVEDIR) != 0 && errno == EBUSY; i++)
        usleep(1000);
    assert_int_equal(faccessat(g.dir, path, F_OK, 0), -1);
    xi_cgroups_close(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(simulated_limits_are_written, setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_missing_is_said, setup, teardown),
        cmocka_unit_test(the_kernel_ends_a_group),
    };

    return cmocka_run_group_tests_name("cgroup", tests, NULL, NULL);
}
