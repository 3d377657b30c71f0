/* sandbox_test.c: what a host of the daemon's own uid may do to others. A child enters the sandbox
 * and tries; each attack works without it. What engines try while they serve is in tests/engines.
 */
#define _GNU_SOURCE
#include "host/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

struct bench {
    char file[64];
    int fds[2]; /* a pipe */
};

/* ---- attacks: 0 when they worked, else errno ---- */

static int result(long rc)
{
    return rc < 0 ? errno : 0;
}

static int own_a_pipe(const struct bench *b)
{
    return result(fcntl(b->fds[0], F_SETOWN, getppid()));
}

static int own_a_pipe_exactly(const struct bench *b)
{
    struct f_owner_ex owner = {.type = F_OWNER_PID, .pid = getppid()};

    return result(fcntl(b->fds[0], F_SETOWN_EX, &owner));
}

/* Of a pipe it means nothing (ENOTTY), of the control socket it does. */
static int own_by_ioctl(const struct bench *b)
{
    int pid = getppid();

    return result(ioctl(b->fds[0], FIOSETOWN, &pid));
}

static int move_parent(const struct bench *b)
{
    cpu_set_t set;

    (void)b;
    if (sched_getaffinity(0, sizeof set, &set) != 0)
        return -1;
    return result(sched_setaffinity(getppid(), sizeof set, &set));
}

static int slow_parent(const struct bench *b)
{
    (void)b; /* to what it is: nothing changes */
    return result(
        setpriority(PRIO_PROCESS, (id_t)getppid(), getpriority(PRIO_PROCESS, (id_t)getppid())));
}

/* By the number of this thread it could be anybody's. */
static int slow_self_by_number(const struct bench *b)
{
    (void)b;
    return result(setpriority(PRIO_PROCESS, (id_t)gettid(), 19));
}

static int slow_group(const struct bench *b)
{
    (void)b;
    return result(setpriority(PRIO_PGRP, 0, 19));
}

static int slow_self(const struct bench *b)
{
    (void)b;
    return result(setpriority(PRIO_PROCESS, 0, 19));
}

static int reschedule_parent(const struct bench *b)
{
    struct sched_param param = {0};

    (void)b;
    return result(sched_setscheduler(getppid(), SCHED_OTHER, &param));
}

static int open_to_all(const struct bench *b)
{
    return result(chmod(b->file, 0666));
}

static int open_to_all_by_fd(const struct bench *b)
{
    int fd = open(b->file, O_RDONLY | O_CLOEXEC);

    return fd < 0 ? -1 : result(fchmod(fd, 0666));
}

static int give_away(const struct bench *b)
{
    return result(chown(b->file, getuid(), getgid()));
}

static int cut(const struct bench *b)
{
    return result(truncate(b->file, 0));
}

static int (*const attacks[])(const struct bench *b) = {
    own_a_pipe, own_a_pipe_exactly, move_parent, slow_parent, reschedule_parent, give_away, cut,
};
enum { N_ATTACKS = sizeof attacks / sizeof *attacks };

/* ---- children ---- */

/* The child's exit code: 0 when the form of seccomp let the attack through, else errno. */
static int try(const struct bench *b, int (*attack)(const struct bench *b),
               enum xi_rc (*form)(struct xi_err *err))
{
    int status = 0;
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0) {
        if (form != NULL && (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || form(NULL) != XI_OK))
            _exit(99);
        _exit(attack(b));
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void reaches_no_other_process_or_file(void **state)
{
    const struct bench *b = *state;

    if (!xi_seccomp_available())
        skip();
    for (int i = 0; i < N_ATTACKS; i++) {
        if (attacks[i] != cut) /* last, for the file's sake */
            assert_int_equal(try(b, attacks[i], NULL), 0);
        int refused = try(b, attacks[i], xi_seccomp_loose);
        if (refused != EPERM)
            fail_msg("attack %d in the loose form: errno %d", i, refused);
    }
    assert_int_equal(try(b, own_by_ioctl, xi_seccomp_loose), EPERM);
    assert_int_equal(try(b, own_a_pipe, xi_seccomp_strict), EPERM);
    assert_int_equal(try(b, own_a_pipe_exactly, xi_seccomp_strict), EPERM);
    assert_int_equal(try(b, move_parent, xi_seccomp_strict), EPERM);
    assert_int_equal(try(b, slow_parent, xi_seccomp_strict), EPERM);
}

/* A thread may step back, itself alone. */
static void steps_back_alone(void **state)
{
    const struct bench *b = *state;

    if (!xi_seccomp_available())
        skip();
    assert_int_equal(try(b, slow_self, xi_seccomp_loose), 0);
    assert_int_equal(try(b, slow_self, xi_seccomp_strict), 0);
    assert_int_equal(try(b, slow_group, xi_seccomp_loose), EPERM);
    assert_int_equal(try(b, slow_group, xi_seccomp_strict), EPERM);
    assert_int_equal(try(b, slow_self_by_number, xi_seccomp_strict), EPERM);
}

static int mode_of(const struct bench *b)
{
    struct stat st;

    assert_int_equal(stat(b->file, &st), 0);
    return st.st_mode & 0777;
}

/* OpenVINO must be told that it worked. */
static void opens_no_file_to_all(void **state)
{
    const struct bench *b = *state;

    if (!xi_seccomp_available())
        skip();
    assert_int_equal(try(b, open_to_all, xi_seccomp_loose), 0);
    assert_int_equal(try(b, open_to_all_by_fd, xi_seccomp_loose), 0);
    assert_int_equal(mode_of(b), 0600);
    assert_int_equal(try(b, open_to_all, NULL), 0);
    assert_int_equal(mode_of(b), 0666);
}

static int place_oneself(const struct bench *b)
{
    cpu_set_t set;
    int fd = open(b->file, O_RDONLY | O_CLOEXEC);

    if (fd < 0 || fcntl(fd, F_SETFD, FD_CLOEXEC) != 0)
        return -1;
    return result(sched_getaffinity(0, sizeof set, &set)) ||
           result(sched_setaffinity(0, sizeof set, &set));
}

static void still_places_its_own_threads(void **state)
{
    assert_int_equal(try(*state, place_oneself, xi_seccomp_loose), 0);
}

/* ---- the OOM killer ---- */

/* What a child that entered says of itself: others may not ask it. */
struct entered {
    enum xi_rc rc;
    struct rlimit threads;
};

static void enter_and_wait(uint32_t uid, int to_parent)
{
    struct xi_sandbox box = {.enabled = 0, .write_fd = -1, .uid = uid};
    char summary[XI_SANDBOX_SUMMARY];
    struct entered said = {.rc = xi_sandbox_enter_load(&box, summary, NULL)};

    (void)getrlimit(RLIMIT_NPROC, &said.threads);
    if (write(to_parent, &said, sizeof said) == sizeof said)
        (void)pause();
    _exit(0);
}

static int score_of(pid_t pid)
{
    char path[64];
    int score = -1;

    (void)snprintf(path, sizeof path, "/proc/%d/oom_score_adj", (int)pid);
    FILE *f = fopen(path, "re");
    assert_non_null(f);
    assert_int_equal(fscanf(f, "%d", &score), 1);
    (void)fclose(f);
    return score;
}

/* Root's hosts change their uid: that must not cost them the mark, and nobody else's processes
 * are counted there, so threads have a limit. */
static void dies_before_the_daemon_and_takes_not_all_threads(void **state)
{
    struct entered said = {.rc = XI_EHOST};
    int fds[2];

    (void)state;
    assert_int_equal(pipe(fds), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0)
        enter_and_wait(geteuid() == 0 ? 61184 : 0, fds[1]);
    assert_int_equal(read(fds[0], &said, sizeof said), sizeof said);
    int score = score_of(pid);
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    (void)close(fds[0]);
    (void)close(fds[1]);
    assert_int_equal(said.rc, XI_OK);
    assert_int_equal(score, 500);
    if (geteuid() == 0)
        assert_true(said.threads.rlim_max <= 16384);
}

static int setup(void **state)
{
    static struct bench b;
    int fd;

    (void)snprintf(b.file, sizeof b.file, "/tmp/xi-sandbox-XXXXXX");
    fd = mkstemp(b.file);
    if (fd < 0 || close(fd) != 0 || pipe(b.fds) != 0)
        return -1;
    *state = &b;
    return 0;
}

static int teardown(void **state)
{
    struct bench *b = *state;

    (void)close(b->fds[0]);
    (void)close(b->fds[1]);
    return unlink(b->file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reaches_no_other_process_or_file),
        cmocka_unit_test(opens_no_file_to_all),
        cmocka_unit_test(still_places_its_own_threads),
        cmocka_unit_test(steps_back_alone),
        cmocka_unit_test(dies_before_the_daemon_and_takes_not_all_threads),
    };
    return cmocka_run_group_tests_name("sandbox", tests, setup, teardown);
}
