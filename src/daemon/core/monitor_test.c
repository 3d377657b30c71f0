/* Devices of the trees in tests/data/boards (see the README there); expectations by hand from what
 * the files say. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <ftw.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "daemon/core/resource_monitor.h"
#include "daemon/core/store_fixture.h"
#include "xinfer/engine.h"

static struct xi_sensors *sensors;
static struct xi_resources r;

static void near(double have, double want)
{
    if (!(fabs(have - want) <= 1e-6 * fabs(want)))
        fail_msg("%.9g where %.9g is right", have, want);
}

static void look(uint64_t now_ms)
{
    xi_sensors_read(sensors, now_ms, &r);
}

static void open_root(const char *root)
{
    memset(&r, 0, sizeof r);
    sensors = xi_sensors_new(root);
    assert_non_null(sensors);
    look(1000);
}

static void open_board(const char *name)
{
    char root[256];

    (void)snprintf(root, sizeof root, XI_SOURCE_DIR "/tests/data/boards/%s", name);
    open_root(root);
}

static void close_board(void)
{
    xi_sensors_free(sensors);
    sensors = NULL;
}

static const struct xi_monitored *device(const char *id)
{
    for (uint32_t i = 0; i < r.n_devices; i++)
        if (strcmp(r.devices[i].id, id) == 0)
            return &r.devices[i];
    fail_msg("no device \"%s\"", id);
    return NULL;
}

static enum xi_sensor_state source(const char *name)
{
    for (uint32_t i = 0; i < r.n_sources; i++)
        if (strcmp(r.sources[i].name, name) == 0)
            return r.sources[i].state;
    fail_msg("no source \"%s\"", name);
    return XI_SENSOR_ABSENT;
}

static void copy(const char *from, const char *to)
{
    int status = 0;
    pid_t pid = fork();

    if (pid == 0) {
        (void)execlp("cp", "cp", "-r", from, to, (char *)NULL);
        _exit(127);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

static void copy_board(const char *name, char root[64])
{
    char from[256];

    fixture_dir(root);
    (void)snprintf(from, sizeof from, XI_SOURCE_DIR "/tests/data/boards/%s/.", name);
    copy(from, root);
}

static void say(const char *root, const char *path, const char *text)
{
    int dir = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    fixture_write(dir, path, text, strlen(text));
    (void)close(dir);
}

static void rockchip(void **state)
{
    (void)state;
    open_board("rk3588-npu");
    assert_int_equal(r.n_devices, 3);  /* processor, GPU, NPU */
    near(device("npu:0")->load, 0.30); /* (30 + 60 + 0) / 3: the driver's own file comes first */
    near(device("npu:0")->clock_mhz, 1000);
    near(device("npu:0")->celsius, 47.5);
    near(device("npu:0")->hot_celsius, 115);
    assert_int_equal(device("npu:0")->kind, XI_DEV_NPU);
    near(device("gpu:0")->load, 0.12);
    near(device("gpu:0")->clock_mhz, 300);
    near(device("gpu:0")->celsius, 43);
    near(device("cpu")->celsius, 46);
    assert_string_equal(device("npu:0")->source, "devfreq");
    assert_int_equal(source("devfreq"), XI_SENSOR_PRESENT);
    assert_int_equal(source("intel"), XI_SENSOR_ABSENT);
    close_board();
}

static void lies_are_unknown(void **state)
{
    (void)state;
    open_board("rk3568-lying");
    assert_int_equal(r.n_devices, 3);
    near(device("npu:0")->load, XI_UNKNOWN);
    near(device("npu:0")->clock_mhz, XI_UNKNOWN);
    near(device("npu:0")->celsius, XI_UNKNOWN);
    near(device("gpu:0")->load, XI_UNKNOWN);
    near(device("gpu:0")->clock_mhz, XI_UNKNOWN);
    close_board();
}

static void jetson_and_pi(void **state)
{
    (void)state;
    open_board("jetson-orin");
    near(device("gpu:0")->load, 0.415);
    near(device("gpu:0")->clock_mhz, 624.75);
    near(device("gpu:0")->celsius, 47.25);
    near(device("gpu:0")->hot_celsius, 104.5);
    near(device("cpu")->celsius, 49);
    close_board();
    open_board("raspberry-pi-5");
    assert_int_equal(r.n_devices, 1);
    near(device("cpu")->celsius, 61.45);
    near(device("cpu")->hot_celsius, 110);
    close_board();
}

static void intel(void **state)
{
    char root[64];

    (void)state;
    copy_board("meteor-lake", root);
    open_root(root);
    assert_int_equal(r.n_devices, 4);
    near(device("gpu:0")->load, XI_UNKNOWN); /* one look is no difference */
    near(device("gpu:0")->clock_mhz, 1350);
    assert_string_equal(device("gpu:0")->name, "Intel GPU 0x7d55");
    near(device("gpu:1")->celsius, 61);
    near(device("gpu:1")->hot_celsius, 105);
    near(device("npu:0")->clock_mhz, 1400);
    near(device("npu:0")->memory_used_bytes, 67108864);
    /* 2 s later: the first GPU idled for 0.5 s, the second all the time, the NPU worked 1.5 s;
     * the package took 30 J, the card 90 J. */
    say(root, "sys/class/drm/card0/gt/gt0/rc6_residency_ms", "5500\n");
    say(root, "sys/class/drm/card1/device/tile0/gt0/gtidle/idle_residency_ms", "11000\n");
    say(root, "sys/class/accel/accel0/device/npu_busy_time_us", "3500000\n");
    say(root, "sys/class/powercap/intel-rapl:0/energy_uj", "1030000000\n");
    say(root, "sys/class/drm/card1/device/hwmon/hwmon4/energy1_input", "790000000\n");
    look(3000);
    near(device("gpu:0")->load, 0.75);
    near(device("gpu:1")->load, 0);
    near(device("npu:0")->load, 0.75);
    near(device("cpu")->power_w, 15);
    near(device("gpu:1")->power_w, 45);
    /* Counters that went back, and a clock that did. */
    say(root, "sys/class/accel/accel0/device/npu_busy_time_us", "17\n");
    say(root, "sys/class/powercap/intel-rapl:0/energy_uj", "5\n");
    look(5000);
    near(device("npu:0")->load, XI_UNKNOWN);
    near(device("cpu")->power_w, XI_UNKNOWN);
    look(4000);
    near(device("npu:0")->load, XI_UNKNOWN);
    look(1000000000);
    near(device("npu:0")->load, 0);
    close_board();
    fixture_dir_remove(root);
}

static void xilinx(void **state)
{
    (void)state;
    open_board("alveo-kria");
    assert_int_equal(r.n_devices, 3);
    assert_string_equal(device("fpga:0")->name, "xilinx_u50_gen3x16_xdma_base_5");
    near(device("fpga:0")->celsius, 52);
    near(device("fpga:0")->power_w, 23.5);
    assert_string_equal(device("fpga:1")->name, "Xilinx ZynqMP FPGA Manager");
    near(r.board_power_w, 4.25);
    close_board();
}

static void what_vanishes_is_looked_for_rarely(void **state)
{
    char root[64], path[128], hidden[128];

    (void)state;
    copy_board("rk3588-npu", root);
    open_root(root);
    assert_int_equal(source("devfreq"), XI_SENSOR_PRESENT);
    (void)snprintf(path, sizeof path, "%s/sys/class/devfreq", root);
    (void)snprintf(hidden, sizeof hidden, "%s/sys/class/gone", root);
    assert_int_equal(rename(path, hidden), 0);
    look(2000);
    assert_int_equal(source("devfreq"), XI_SENSOR_GONE);
    assert_int_equal(r.n_devices, 1);
    assert_int_equal(rename(hidden, path), 0);
    look(3000);
    assert_int_equal(source("devfreq"), XI_SENSOR_GONE); /* not looked for yet */
    look(2000 + 61000);
    assert_int_equal(source("devfreq"), XI_SENSOR_PRESENT);
    near(device("npu:0")->load, 0.30);
    close_board();
    fixture_dir_remove(root);
}

/* ---- NVIDIA, simulated ---- */

static void open_nvidia(char root[64], const char *mode)
{
    char to[128];

    assert_int_equal(setenv("XI_SIMULATED_NVML", mode, 1), 0);
    copy_board("nvidia", root);
    (void)snprintf(to, sizeof to, "%s/lib", root);
    assert_int_equal(mkdir(to, 0700), 0);
    (void)snprintf(to, sizeof to, "%s/lib/libnvidia-ml.so.1", root);
    copy(XI_SIMULATED_NVML, to);
    open_root(root);
}

static void nvidia(void **state)
{
    char root[64];

    (void)state;
    open_nvidia(root, "plain");
    assert_int_equal(r.n_devices, 3);
    assert_string_equal(device("gpu:0")->name, "Simulated GPU 0");
    near(device("gpu:0")->load, 0.64);
    near(device("gpu:0")->celsius, 71);
    near(device("gpu:0")->hot_celsius, 90);
    near(device("gpu:0")->power_w, 215.5);
    near(device("gpu:0")->clock_mhz, 1755);
    near(device("gpu:0")->memory_total_bytes, 8589934592.0);
    near(device("gpu:0")->memory_used_bytes, 2147483648.0);
    assert_string_equal(device("gpu:0")->throttled, "heat,power");
    assert_string_equal(device("gpu:1")->throttled, "");
    near(device("gpu:1")->power_w, XI_UNKNOWN);
    near(device("gpu:1")->memory_total_bytes, XI_UNKNOWN);
    (void)setenv("XI_SIMULATED_NVML", "lying", 1);
    look(2000);
    near(device("gpu:0")->load, XI_UNKNOWN);
    near(device("gpu:0")->celsius, XI_UNKNOWN);
    near(device("gpu:0")->memory_used_bytes, XI_UNKNOWN);
    near(device("gpu:0")->power_w, 215.5);
    (void)setenv("XI_SIMULATED_NVML", "lost", 1);
    look(3000);
    assert_int_equal(source("nvml"), XI_SENSOR_GONE);
    assert_int_equal(r.n_devices, 1);
    (void)setenv("XI_SIMULATED_NVML", "plain", 1);
    look(70000);
    assert_int_equal(source("nvml"), XI_SENSOR_PRESENT);
    near(device("gpu:0")->load, 0.64);
    close_board();
    fixture_dir_remove(root);
}

static void a_library_that_hangs_holds_up_nobody(void **state)
{
    char root[64];
    struct timespec began, ended;

    (void)state;
    (void)clock_gettime(CLOCK_MONOTONIC, &began);
    open_nvidia(root, "hung"); /* each call takes 1.5 s */
    look(1500);
    (void)clock_gettime(CLOCK_MONOTONIC, &ended);
    assert_true(ended.tv_sec - began.tv_sec <= 1); /* two looks of 0.3 s */
    assert_int_equal(r.n_devices, 1);
    assert_int_equal(source("nvml"), XI_SENSOR_PRESENT); /* it may come yet */
    look(1000 + 11000);
    assert_int_equal(source("nvml"), XI_SENSOR_GONE);
    close_board();
    (void)setenv("XI_SIMULATED_NVML", "plain", 1);
    (void)sleep(2); /* the thread frees what it holds: leak checkers look */
    fixture_dir_remove(root);
}

/* ---- noise ---- */

static unsigned seed = 12345;

static unsigned dice(void)
{
    return seed = seed * 1103515245u + 12345u;
}

static int spoil(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    uint8_t bytes[512];
    size_t n = dice() / 65536 % sizeof bytes;

    (void)st;
    (void)ftw;
    /* Without these the source itself would be gone. */
    if (type != FTW_F || strstr(path, "/vendor") != NULL || strstr(path, "fpga0/name") != NULL)
        return 0;
    for (size_t i = 0; i < n; i++)
        bytes[i] = dice() / 65536 % 4 ? (uint8_t)("0123456789-+.eE@%:x \n"[dice() / 65536 % 21])
                                      : (uint8_t)(dice() / 65536);
    int fd = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, n), (ssize_t)n);
    (void)close(fd);
    return 0;
}

static void all_or_unknown(double v, double min, double max)
{
    if (!(v == XI_UNKNOWN || (v >= min && v <= max)))
        fail_msg("%g is not in %g to %g", v, min, max);
}

static void noise_is_never_believed_out_of_range(void **state)
{
    static const char *const boards[] = {"rk3588-npu", "meteor-lake", "alveo-kria", "jetson-orin",
                                         "workstation"};
    char root[64];

    (void)state;
    for (size_t b = 0; b < sizeof boards / sizeof *boards; b++) {
        copy_board(boards[b], root);
        open_root(root);
        for (int round = 1; round <= 60; round++) {
            assert_int_equal(nftw(root, spoil, 16, FTW_PHYS), 0);
            look(1000 + (uint64_t)round * 1000);
            all_or_unknown(r.cpu_load, 0, 1);
            all_or_unknown(r.memory_total_bytes, 0, 1e17);
            for (uint32_t i = 0; i < r.n_devices; i++) {
                const struct xi_monitored *d = &r.devices[i];
                all_or_unknown(d->load, 0, 1);
                all_or_unknown(d->celsius, -40, 150);
                all_or_unknown(d->hot_celsius, 40, 150);
                all_or_unknown(d->power_w, 0, 5000);
                all_or_unknown(d->clock_mhz, 0, 20000);
                assert_true(memchr(d->name, 0, sizeof d->name) != NULL);
            }
        }
        close_board();
        fixture_dir_remove(root);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rockchip),
        cmocka_unit_test(lies_are_unknown),
        cmocka_unit_test(jetson_and_pi),
        cmocka_unit_test(intel),
        cmocka_unit_test(xilinx),
        cmocka_unit_test(what_vanishes_is_looked_for_rarely),
        cmocka_unit_test(nvidia),
        cmocka_unit_test(a_library_that_hangs_holds_up_nobody),
        cmocka_unit_test(noise_is_never_believed_out_of_range),
    };

    return cmocka_run_group_tests_name("monitor", tests, NULL, NULL);
}
