/* hostile_test.c: without a sandbox the attacks work. If they did not, their failure inside the
 * sandbox would prove nothing.   hostile_test PLUGIN
 *
 * test → victim (stands for the daemon) → attacker (stands for the host) */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "xinfer/engine.h"

/* In memory that all three processes share. */
struct report {
    float y[4];
    int answered;
    int attacker_status;
    pid_t attacker;
    struct xi_tensor output;
};

struct kit {
    const struct xi_engine_table *api;
    struct report *report;
    unsigned char *target; /* a writable shared page to be scribbled over */
    int file;              /* a memfd to be cut */
};

static struct xi_tensor four(float *data)
{
    return (struct xi_tensor){.size = sizeof(struct xi_tensor),
                              .dtype = XI_DT_FP32,
                              .rank = 1,
                              .dims = {4},
                              .data = data,
                              .bytes = 16,
                              .fd = -1};
}

static void attack(struct kit *k, float code, float argument)
{
    struct xi_engine_source source = {.size = sizeof(source), .path = "/tmp/model.xhostile"};
    struct xi_engine *engine = NULL;
    struct xi_engine_model *model = NULL;
    struct xi_engine_request *request = NULL;
    float x[4] = {code, argument, 0, 0}, y[4] = {-1, -1, -1, -1};
    struct xi_tensor in = four(x), out = four(y), got = {.size = sizeof(got)};
    char err[192];

    if (k->api->open(NULL, &engine, err, sizeof(err)) != XI_ENGINE_OK ||
        k->api->load(engine, &source, NULL, &model, err, sizeof(err)) != XI_ENGINE_OK ||
        k->api->request_new(model, &request, err, sizeof(err)) != XI_ENGINE_OK ||
        k->api->bind(request, XI_INPUT, 0, &in, err, sizeof(err)) != XI_BIND_IN_PLACE ||
        k->api->bind(request, XI_OUTPUT, 0, &out, err, sizeof(err)) != XI_BIND_IN_PLACE ||
        k->api->run(request, 0, err, sizeof(err)) != XI_ENGINE_OK ||
        k->api->output(request, 0, &got, err, sizeof(err)) != XI_ENGINE_OK)
        _exit(1);
    memcpy(k->report->y, y, sizeof(y));
    k->report->output = got;
    k->report->answered = 1;
    _exit(0);
}

static void victim(struct kit *k, float code, float argument)
{
    pid_t pid = fork();

    if (pid == 0) {
        prctl(PR_SET_PTRACER, -1);
        k->report->attacker = getpid();
        attack(k, code, argument);
    }
    waitpid(pid, &k->report->attacker_status, 0);
    usleep(20000); /* a signal on its way to us may still come */
    _exit(0);
}

/* The victim's wait status. */
static int try_attack(struct kit *k, int code, int argument)
{
    int status = 0;
    pid_t pid;

    memset(k->report, 0, sizeof(*k->report));
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        signal(SIGTERM, SIG_DFL);
        signal(SIGSEGV, SIG_DFL);
        victim(k, (float)code, (float)argument);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (k->report->attacker > 0) /* it outlived its victim: ours by now, and still writes */
        (void)waitpid(k->report->attacker, NULL, 0);
    return status;
}

static void ends_its_parent(void **state)
{
    struct kit *k = *state;
    int status = try_attack(k, 1, 0);

    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
    status = try_attack(k, 1, SIGKILL);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    status = try_attack(k, 10, 0);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
    status = try_attack(k, 14, 0);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
}

static void reaches_the_machine(void **state)
{
    static const int codes[] = {0, 2, 3, 4, 9, 13, 19, 24, 25, 26};
    struct kit *k = *state;

    for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++) {
        int status = try_attack(k, codes[i], 1);
        assert_true(WIFEXITED(status));
        if (!k->report->answered || k->report->y[0] != 0.0f || k->report->y[1] != (float)codes[i])
            fail_msg("attack %d: answered %d, errno %d", codes[i], k->report->answered,
                     (int)k->report->y[0]);
    }
    (void)try_attack(k, 19, 0);
    assert_true(k->report->y[2] == 50.0f);
    (void)try_attack(k, 8, 0);
    assert_true(WIFEXITED(k->report->attacker_status));
    assert_int_equal(WEXITSTATUS(k->report->attacker_status), 77);
}

static void spoils_what_it_shares(void **state)
{
    struct kit *k = *state;
    struct stat st;

    memset(k->target, 0, 4096);
    (void)try_attack(k, 11, 0);
    assert_int_equal(k->target[0], 0xa5);
    assert_int_equal(k->target[4095], 0xa5);
    assert_int_equal(ftruncate(k->file, 8192), 0);
    (void)try_attack(k, 12, 0);
    assert_true(k->report->y[0] == 0.0f);
    assert_int_equal(fstat(k->file, &st), 0);
    assert_int_equal(st.st_size, 0);
    assert_int_equal(lseek(k->file, 0, SEEK_SET), 0);
    (void)try_attack(k, 17, 1);
    assert_int_equal(fstat(k->file, &st), 0);
    assert_int_equal(st.st_size, 4096);
}

static void lies_about_its_output(void **state)
{
    struct kit *k = *state;

    (void)try_attack(k, 0, 5);
    assert_true(k->report->y[2] == 5.0f);
    assert_int_equal(k->report->output.bytes, 16);
    (void)try_attack(k, 20, 0);
    assert_int_equal(k->report->output.bytes, 1 << 30);
    (void)try_attack(k, 21, 0);
    assert_int_equal(k->report->output.rank, 100);
    (void)try_attack(k, 22, 0);
    assert_int_equal(k->report->output.dtype, 99);
    (void)try_attack(k, 23, 0);
    assert_true(k->report->output.dims[0] < 0);
}

static void *shared_page(void)
{
    void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    return page == MAP_FAILED ? NULL : page;
}

int main(int argc, char **argv)
{
    struct kit kit = {.file = -1};
    /* What ctest and its callers left open must not be flooded or cut. */
    int closed = close_range(3, ~0u, 0);
    void *handle = argc == 2 ? dlopen(argv[1], RTLD_NOW | RTLD_LOCAL) : NULL, *symbol;
    xi_engine_entry_fn entry;

    if (handle == NULL || (symbol = dlsym(handle, XI_ENGINE_ENTRY)) == NULL) {
        fprintf(stderr, "usage: hostile_test PLUGIN\n");
        return 2;
    }
    memcpy(&entry, &symbol, sizeof(symbol));
    kit.api = entry(XI_ENGINE_MAJOR, XI_ENGINE_MINOR);
    kit.report = shared_page();
    kit.target = shared_page();
    kit.file = memfd_create("target", MFD_CLOEXEC);
    if (prctl(PR_SET_CHILD_SUBREAPER, 1) != 0 || closed != 0 || kit.api == NULL ||
        kit.report == NULL || kit.target == NULL || kit.file < 0)
        return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(ends_its_parent, &kit),
        cmocka_unit_test_prestate(reaches_the_machine, &kit),
        cmocka_unit_test_prestate(spoils_what_it_shares, &kit),
        cmocka_unit_test_prestate(lies_about_its_output, &kit),
    };
    return cmocka_run_group_tests_name("hostile", tests, NULL, NULL);
}
