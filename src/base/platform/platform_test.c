#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/platform/memory.h"
#include "base/platform/process.h"

static void a_sealed_segment_cannot_change_size_nor_be_written_anew(void **state)
{
    struct xi_map map = {0}, reader = {0};
    struct xi_err err = {0};
    int fd = -1;

    (void)state;
    assert_int_equal(xi_memory_create("test", 10000, 1, &fd, &map, &err), XI_OK);
    assert_int_equal(map.bytes, 12288); /* whole pages */
    memcpy(map.base, "hello", 6);
    assert_int_equal(ftruncate(fd, 100), -1);
    assert_int_equal(errno, EPERM);
    assert_int_equal(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096), -1);
    assert_ptr_equal(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0), MAP_FAILED);
    assert_int_equal(xi_memory_open(fd, map.bytes, XI_MAP_READ, &reader, &err), XI_OK);
    assert_string_equal(reader.base, "hello");
    memcpy(map.base, "still", 6); /* the creator's own mapping stays writable */
    assert_string_equal(reader.base, "still");
    xi_map_close(&reader);
    xi_map_close(&map);
    (void)close(fd);
}

static void a_foreign_segment_is_checked(void **state)
{
    struct xi_map map = {0};
    struct xi_err err = {0};
    int fd = memfd_create("loose", MFD_CLOEXEC | MFD_ALLOW_SEALING);

    (void)state;
    assert_int_equal(ftruncate(fd, 4096), 0);
    assert_int_equal(xi_memory_open(fd, 4096, XI_MAP_READ, &map, &err), XI_EPROTO); /* unsealed */
    assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW), 0);
    assert_int_equal(xi_memory_open(fd, 8192, XI_MAP_READ, &map, &err), XI_EPROTO); /* a lie */
    assert_int_equal(xi_memory_open(fd, 4096, XI_MAP_READ, &map, &err), XI_OK);
    xi_map_close(&map);
    (void)close(fd);
}

static void a_child_gets_its_descriptors_and_its_end_is_seen(void **state)
{
    static const char *const argv[] = {
        "/bin/sh", "-c",
        "read x <&3; n=0; i=0; while [ $i -lt 300 ]; do [ -h /proc/$$/fd/$i ] && n=$((n + 1));"
        " i=$((i + 1)); done; echo got $x $n >&4; kill -SEGV $$",
        NULL}; /* counts without a pipe or a folder of its own */
    struct xi_err err = {0};
    int in[2], out[2], pidfd = -1, code = 0, signo = 0;
    char text[64] = "";
    pid_t pid;

    (void)state;
    assert_int_equal(pipe2(in, O_CLOEXEC), 0);
    assert_int_equal(pipe2(out, O_CLOEXEC), 0);
    struct xi_spawn spawn = {
        .argv = argv, .fds = {in[0], out[1]}, .n_fds = 2, .in_fd = -1, .out_fd = -1, .err_fd = -1};
    assert_int_equal(xi_process_spawn(&spawn, &pid, &pidfd, &err), XI_OK);
    (void)close(out[1]);
    assert_int_equal(write(in[1], "word\n", 5), 5);
    assert_true(xi_fd_wait_readable(pidfd, 5000));
    assert_int_equal(xi_process_reap(pid, &code, &signo), 1);
    assert_int_equal(signo, SIGSEGV);
    assert_true(read(out[0], text, sizeof text - 1) > 0);
    assert_memory_equal(text, "got word 5\n", 11); /* 0..4 and nothing else of ours */
    (void)close(in[0]);
    (void)close(in[1]);
    (void)close(out[0]);
    (void)close(pidfd);
}

static void messages_carry_descriptors_and_have_edges(void **state)
{
    struct xi_err err = {0};
    int pair[2], fds[XI_MESSAGE_FDS_MAX], wake = xi_wake_new();
    size_t n = 0, n_fds = 0;
    char buf[8];

    (void)state;
    assert_int_equal(xi_message_pair(pair, &err), XI_OK);
    assert_int_equal(xi_message_recv(pair[1], buf, sizeof buf, &n, fds, &n_fds, &err), XI_EAGAIN);
    assert_int_equal(xi_message_send(pair[0], "hi", 2, &wake, 1, &err), XI_OK);
    assert_int_equal(xi_message_send(pair[0], "too long", 8 + 1, NULL, 0, &err), XI_OK);
    assert_int_equal(xi_message_recv(pair[1], buf, sizeof buf, &n, fds, &n_fds, &err), XI_OK);
    assert_int_equal(n, 2);
    assert_int_equal(n_fds, 1);
    xi_wake_signal(fds[0]); /* the same eventfd on the other side */
    assert_int_equal(xi_wake_wait(wake, 0), 1);
    assert_int_equal(xi_wake_wait(wake, 0), 0);
    assert_int_equal(xi_message_recv(pair[1], buf, sizeof buf, &n, fds, &n_fds, &err), XI_EPROTO);
    (void)close(pair[0]);
    assert_int_equal(xi_message_recv(pair[1], buf, sizeof buf, &n, fds, &n_fds, &err), XI_EHOST);
    (void)close(pair[1]);
    (void)close(wake);
}

int main(void)
{
    const struct CMUnitTest t[] = {
        cmocka_unit_test(a_sealed_segment_cannot_change_size_nor_be_written_anew),
        cmocka_unit_test(a_foreign_segment_is_checked),
        cmocka_unit_test(a_child_gets_its_descriptors_and_its_end_is_seen),
        cmocka_unit_test(messages_carry_descriptors_and_have_edges),
    };
    return cmocka_run_group_tests_name("platform", t, NULL, NULL);
}
