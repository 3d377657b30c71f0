/* The trees of tests/data/boards (see the README there) and one that changes under the reader. The
 * expectations are computed by hand from what the files say. */
#define _GNU_SOURCE
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "daemon/core/resource_monitor.h"
#include "daemon/core/store_fixture.h"
#include "daemon/loop/workers.h"

#define GIB 1073741824.0

static struct xi_resources board(const char *name)
{
    char root[256];
    struct xi_resources r = {0};

    (void)snprintf(root, sizeof root, XI_SOURCE_DIR "/tests/data/boards/%s", name);
    xi_resources_read(root, &r);
    assert_true(r.sampled_at_ms > 0);
    return r;
}

static void near(double have, double want)
{
    if (!(fabs(have - want) <= 1e-9 * fabs(want)))
        fail_msg("%.9g where %.9g is right", have, want);
}

static double heat(const struct xi_resources *r, const char *name)
{
    for (uint32_t i = 0; i < r->n_thermal; i++)
        if (strcmp(r->thermal[i].name, name) == 0)
            return r->thermal[i].celsius;
    fail_msg("no zone \"%s\"", name);
    return 0;
}

static void workstation(void **state)
{
    struct xi_resources r = board("workstation");

    (void)state;
    assert_string_equal(r.cpu_model, "Example(R) Core(TM) 1000 CPU @ 2.40GHz");
    assert_int_equal(r.cores, 4);
    near(r.cpu_mhz, 2399.998);
    near(r.load_1m, 1.25);
    near(r.memory_total_bytes, 16384000.0 * 1024);
    near(r.memory_available_bytes, 8192000.0 * 1024);
    near(r.daemon_rss_bytes, 12288.0 * 1024);
    assert_int_equal(r.n_thermal, 3);
    near(heat(&r, "x86_pkg_temp"), 47);
    near(heat(&r, "coretemp Package id 0"), 48);
    near(heat(&r, "coretemp temp3"), 51.5);
    near(r.max_celsius, 51.5);
    near(r.cpu_load, XI_UNKNOWN); /* one reading is no difference */
}

static void arm_board(void **state)
{
    struct xi_resources r = board("rk3588-like");

    (void)state;
    assert_string_equal(r.cpu_model, "Example RK3588 board");
    assert_int_equal(r.cores, 8);
    near(r.cpu_mhz, 1800);
    near(r.load_1m, 0);
    assert_int_equal(r.n_thermal, 7); /* hwmon0 repeats a zone */
    near(heat(&r, "npu-thermal"), 45.538);
    near(r.max_celsius, 45.538);
}

static void control_groups(void **state)
{
    struct xi_resources r = board("container-v2");

    (void)state;
    assert_int_equal(r.cores, 2);        /* 1.5 processors */
    near(r.memory_total_bytes, 2 * GIB); /* the parent's */
    near(r.memory_available_bytes, 1 * GIB);
    r = board("container-v1");
    assert_int_equal(r.cores, 3);
    near(r.memory_total_bytes, 1 * GIB);
    near(r.memory_available_bytes, 0.5 * GIB); /* 1 - (0.75 - 0.25 that can be dropped) */
}

static void lies_are_unknown(void **state)
{
    struct xi_resources r = board("lying");

    (void)state;
    near(r.cpu_load, XI_UNKNOWN);
    near(r.memory_total_bytes, 1000.0 * 1024);
    near(r.memory_available_bytes, XI_UNKNOWN);
    near(r.load_1m, XI_UNKNOWN);
    near(r.cpu_mhz, XI_UNKNOWN);
    near(r.daemon_rss_bytes, XI_UNKNOWN);
    near(r.daemon_open_fds, XI_UNKNOWN);
    assert_string_equal(r.cpu_model, "evil?[31m name");
    assert_int_equal(r.n_thermal, 5);
    near(heat(&r, "frozen"), XI_UNKNOWN);
    near(heat(&r, "melted"), XI_UNKNOWN);
    near(heat(&r, "wordy"), XI_UNKNOWN);
    assert_true(heat(&r, "winter") != XI_UNKNOWN);
    assert_true(fabs(heat(&r, "winter") + 1) < 0.01);
    near(r.max_celsius, 25);
}

static void nothing_there(void **state)
{
    struct xi_resources r = board("vanished");

    (void)state;
    assert_int_equal(r.cores, 1);
    assert_string_equal(r.cpu_model, "");
    near(r.memory_total_bytes, XI_UNKNOWN);
    near(r.memory_available_bytes, XI_UNKNOWN);
    near(heat(&r, "gone"), XI_UNKNOWN);
    near(r.max_celsius, XI_UNKNOWN);
    r = board("no-such-board");
    assert_int_equal(r.n_thermal, 0);
}

/* ---- a board that changes ---- */

static void say(const char *root, const char *path, const char *text)
{
    int dir = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    fixture_write(dir, path, text, strlen(text));
    (void)close(dir);
}

static void make_board(char root[64])
{
    fixture_dir(root);
    int dir = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_int_equal(xi_beneath_mkdirs(dir, "proc", 0700), 0);
    assert_int_equal(xi_beneath_mkdirs(dir, "sys/class/thermal/thermal_zone0", 0700), 0);
    (void)close(dir);
    say(root, "proc/stat", "cpu0 100 0 100 800 0 0 0 0\ncpu1 100 0 100 800 0 0 0 0\n");
    say(root, "sys/class/thermal/thermal_zone0/type", "soc\n");
    say(root, "sys/class/thermal/thermal_zone0/temp", "60000\n");
}

static void load_is_a_difference(void **state)
{
    char root[64];
    struct xi_resources r = {0};

    (void)state;
    make_board(root);
    xi_resources_read(root, &r);
    near(r.cpu_load, XI_UNKNOWN);
    /* cpu0: 50 user, 10 nice, 20 system, 5 irq, 5 softirq, 10 steal of 200 more; cpu1: idle for
     * 150, waiting for the disk for 50. 100 of 400. */
    say(root, "proc/stat", "cpu0 150 10 120 900 0 5 5 10 0 0\ncpu1 100 0 100 950 50 0 0 0 0 0\n");
    xi_resources_read(root, &r);
    near(r.cpu_load, 0.25);
    /* No time has passed; then the counters go back; then all is well again. */
    xi_resources_read(root, &r);
    near(r.cpu_load, XI_UNKNOWN);
    say(root, "proc/stat", "cpu0 1 0 1 8 0 0 0 0\ncpu1 1 0 1 8 0 0 0 0\n");
    xi_resources_read(root, &r);
    near(r.cpu_load, XI_UNKNOWN);
    say(root, "proc/stat", "cpu0 2 0 1 8 0 0 0 0\ncpu1 2 0 1 10 0 0 0 0\n");
    xi_resources_read(root, &r);
    near(r.cpu_load, 0.5);
    fixture_dir_remove(root);
}

static void turn_until_sampled(uv_loop_t *loop, struct xi_monitor *m, uint64_t after)
{
    for (int i = 0; i < 10000 && xi_monitor_latest(m)->sampled_at_ms <= after; i++)
        (void)uv_run(loop, UV_RUN_ONCE);
    assert_true(xi_monitor_latest(m)->sampled_at_ms > after);
}

static void follows_and_survives_vanishing(void **state)
{
    char root[64], path[128];
    uv_loop_t loop;

    (void)state;
    make_board(root);
    assert_int_equal(uv_loop_init(&loop), 0);
    assert_int_equal(xi_workers_open(&loop, NULL), XI_OK);
    struct xi_monitor *m = xi_monitor_new(&loop, root, 10);
    assert_int_equal(xi_monitor_latest(m)->sampled_at_ms, 0);
    near(xi_monitor_latest(m)->max_celsius, XI_UNKNOWN);
    turn_until_sampled(&loop, m, 0);
    near(xi_monitor_latest(m)->max_celsius, 60);

    (void)snprintf(path, sizeof path, "%s/sys/class/thermal/thermal_zone0/temp", root);
    assert_int_equal(unlink(path), 0);
    turn_until_sampled(&loop, m, xi_monitor_latest(m)->sampled_at_ms + 20);
    near(xi_monitor_latest(m)->max_celsius, XI_UNKNOWN);
    assert_int_equal(xi_monitor_latest(m)->n_thermal, 1);

    xi_monitor_free(m);
    assert_int_equal(uv_run(&loop, UV_RUN_DEFAULT), 0);
    xi_workers_close(&loop);
    (void)uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&loop), 0);
    fixture_dir_remove(root);
}

/* This machine, whatever it is: what every Linux has must be there. */
static void here(void **state)
{
    struct xi_resources r = {0};

    (void)state;
    xi_resources_read("", &r);
    assert_true(r.cores >= 1 && r.cores <= (uint32_t)sysconf(_SC_NPROCESSORS_CONF));
    assert_true(r.memory_total_bytes > 1e6);
    assert_true(r.memory_available_bytes >= 0 && r.memory_available_bytes <= r.memory_total_bytes);
    assert_true(r.daemon_rss_bytes > 1e5);
    double open_fds = r.daemon_open_fds;
    int more[3] = {dup(0), dup(0), dup(0)};
    xi_resources_read("", &r);
    near(r.daemon_open_fds, open_fds + 3);
    for (int i = 0; i < 3; i++)
        (void)close(more[i]);
    assert_true(r.load_1m >= 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(workstation),
        cmocka_unit_test(arm_board),
        cmocka_unit_test(control_groups),
        cmocka_unit_test(lies_are_unknown),
        cmocka_unit_test(nothing_there),
        cmocka_unit_test(load_is_a_difference),
        cmocka_unit_test(follows_and_survives_vanishing),
        cmocka_unit_test(here),
    };

    return cmocka_run_group_tests_name("resource_monitor", tests, NULL, NULL);
}
