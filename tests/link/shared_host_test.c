/* shared_host_test.c: several sessions in one host. What models answer follows from their text. */
#define _GNU_SOURCE
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include <cmocka.h>

#include "raw.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { SANITIZED = 1 }; /* freed memory rests in quarantine */
#else
enum { SANITIZED = 0 };
#endif

#define HEAD "xref 1\ninput x FP32 [-1,4]\noutput y FP32 [-1,4]\n"
static const char plus_one[] = HEAD "y = add x 1\n";
static const char twice[] = HEAD "y = mul x 2\n";
static const char slow_load[] = HEAD "y = mul x 2\nfault load-delay-ms 400\n";
static const char no_load[] = HEAD "y = mul x 2\nfault load-fail no-memory\n";
static const char lost[] = HEAD "y = add x 1\nfault fail device-lost when 67\n";
static const char lost_at_load[] = HEAD "y = add x 1\nfault load-fail device-lost\n";

static struct raw host;
static struct raw *r = &host;

static struct xi_msg_load load_of(uint32_t session, uint32_t first_lane, uint32_t lanes)
{
    return (struct xi_msg_load){.session = session, .first_lane = first_lane, .lane_count = lanes};
}

static void start(int group)
{
    struct raw_start how = {.group = group};

    raw_start(r, &how);
    raw_package(r, "plus", plus_one, "", NULL);
}

static void send_one(uint32_t lane, uint32_t session, uint64_t id, float first)
{
    float v[4] = {first, 1, 2, 3};
    struct xi_part part = raw_floats(r, 0, (int64_t[]){1, 4}, 2, v);
    struct raw_request q = {.head = {.id = id, .want = XI_ANSWER_TENSORS, .n_parts = 1},
                            .parts = &part};

    raw_submit(r, lane, XI_WORK_ALL, session, &q, 1);
}

static float ask(uint32_t lane, uint32_t session, float first)
{
    struct raw_done d;
    static uint64_t id;
    float y;

    send_one(lane, session, ++id, first);
    assert_true(raw_answer(r, lane, &d, RAW_WAIT_MS));
    assert_int_equal(d.done.id, id);
    if (d.done.code != XI_OK)
        fail_msg("%s", d.done.text);
    y = *(const float *)raw_data(r, &d, 0);
    raw_release(r, lane, &d);
    return y;
}

static const struct xi_msg_failed *must_fail(uint32_t session, int code)
{
    const struct xi_msg_failed *m = (const struct xi_msg_failed *)raw_next(r, RAW_WAIT_MS);

    assert_non_null(m);
    assert_int_equal(m->head.type, XI_MSG_FAILED);
    assert_int_equal(m->session, session);
    assert_int_equal(m->code, code);
    return m;
}

static uint64_t must_unload(const struct xi_msg_load *load)
{
    raw_send_unload(r, load);
    const struct xi_msg_unload *m = (const struct xi_msg_unload *)raw_next(r, RAW_WAIT_MS);
    assert_non_null(m);
    assert_int_equal(m->head.type, XI_MSG_UNLOADED);
    assert_int_equal(m->session, load->session);
    return m->memory_bytes;
}

static void two_sessions_answer_each_its_own(void **state)
{
    struct xi_msg_load a = load_of(1, 0, 1), b = load_of(2, 1, 2);

    (void)state;
    start(1);
    raw_package(r, "twice", twice, "", NULL);
    (void)raw_load(r, "plus", &a);
    (void)raw_load(r, "twice", &b);
    struct xi_msg_load last = load_of(3, XI_HOST_LANES_MAX - 1, 1);
    (void)raw_load(r, "twice", &last);
    assert_true(ask(XI_HOST_LANES_MAX - 1, 3, 4) == 8);
    for (int i = 0; i < 50; i++) {
        float x = (float)i;
        assert_true(ask(0, 1, x) == x + 1);
        assert_true(ask(1, 2, x) == x * 2);
        assert_true(ask(2, 2, x) == x * 2);
    }
    raw_close(r);
}

static void load_beside_others_does_not_keep_them_waiting(void **state)
{
    struct xi_msg_load a = load_of(1, 0, 1), b = load_of(2, 1, 1);

    (void)state;
    start(1);
    raw_package(r, "slow", slow_load, "", NULL);
    (void)raw_load(r, "plus", &a);
    raw_lane(r, 1, 0);
    raw_send_load(r, "slow", &b);
    for (int i = 0; i < 100; i++)
        assert_true(ask(0, 1, (float)i) == (float)i + 1);
    /* The control thread reads on: a segment that comes now is mapped now. */
    assert_null(raw_next(r, 0)); /* and the load still runs */
    const struct xi_msg_head *m = raw_next(r, RAW_WAIT_MS);
    assert_non_null(m);
    assert_int_equal(m->type, XI_MSG_LOADED);
    assert_true(ask(1, 2, 3) == 6);
    raw_close(r);
}

static void failed_load_leaves_the_others(void **state)
{
    struct xi_msg_load a = load_of(1, 0, 1), b = load_of(2, 1, 2), c = load_of(3, 1, 1);

    (void)state;
    start(1);
    raw_package(r, "no", no_load, "", NULL);
    raw_package(r, "twice", twice, "", NULL);
    (void)raw_load(r, "plus", &a);
    raw_lane(r, 1, 0);
    raw_lane(r, 2, 0);
    raw_send_load(r, "no", &b);
    (void)must_fail(2, XI_ENOMEM);
    assert_true(ask(0, 1, 5) == 6);
    /* The daemon may have wanted it gone before it heard that. */
    struct xi_msg_unload late = {.session = 2};
    raw_send(r, &late, XI_MSG_UNLOAD, sizeof late);
    const struct xi_msg_unload *u = (const struct xi_msg_unload *)raw_next(r, RAW_WAIT_MS);
    assert_non_null(u);
    assert_true(u->head.type == XI_MSG_UNLOADED && u->session == 2);
    raw_lane(r, 1, 0); /* its lanes' numbers are free again */
    raw_send_load(r, "nowhere", &c);
    (void)must_fail(3, XI_ENOENT);
    (void)raw_load(r, "twice", &c);
    assert_true(ask(1, 3, 5) == 10);
    raw_close(r);
}

static void failed_load_ends_a_host_of_its_own(void **state)
{
    struct xi_msg_load a = load_of(1, 0, 1);

    (void)state;
    start(0);
    raw_package(r, "no", no_load, "", NULL);
    raw_lane(r, 0, 0);
    raw_send_load(r, "no", &a);
    (void)must_fail(1, XI_ENOMEM);
    assert_int_equal(raw_end(r), 0);
    raw_clean(r);
}

static void unload_gives_everything_back(void **state)
{
    struct xi_msg_load a = load_of(1, 0, 1), b = load_of(2, 1, 2);
    uint64_t first = 0, last = 0;

    (void)state;
    start(1);
    raw_package(r, "hold", HEAD "y = mul x 2\nfault hold 30000000\n", "", NULL);
    (void)raw_load(r, "plus", &a);
    assert_true(ask(0, 1, 1) == 2);
    for (uint32_t i = 0; i < 20; i++) {
        b.session = 2 + i;
        const struct xi_msg_loaded *m = raw_load(r, "hold", &b);
        assert_true(SANITIZED || m->peak_bytes >= 28000000); /* what it added */
        assert_true(ask(1, b.session, 3) == 6);
        assert_true(ask(2, b.session, 4) == 8);
        uint32_t dropped = r->dropped;
        last = must_unload(&b);
        assert_true(r->dropped >= dropped + 2); /* of each lane */
        if (i == 2)
            first = last;
    }
    assert_true(SANITIZED || last < first + 4 * XI_MIB);
    assert_true(ask(0, 1, 1) == 2);
    raw_close(r);
}

static void jobs_wait_their_turn_and_can_be_taken_back(void **state)
{
    struct xi_msg_load a = load_of(1, 0, 1), b = load_of(2, 1, 1), c = load_of(3, 2, 1);

    (void)state;
    start(1);
    raw_package(r, "slow", slow_load, "", NULL);
    for (uint32_t i = 0; i < 3; i++)
        raw_lane(r, i, 0);
    raw_send_load(r, "slow", &a);
    raw_send_load(r, "slow", &b);
    raw_send_load(r, "plus", &c);
    raw_send_unload(r, &a); /* while it loads */
    raw_send_unload(r, &b); /* before it does */
    const struct xi_msg_unload *u = (const struct xi_msg_unload *)raw_next(r, RAW_WAIT_MS);
    assert_non_null(u);
    assert_int_equal(u->head.type, XI_MSG_UNLOADED);
    assert_int_equal(u->session, 1);
    const struct xi_msg_head *m = raw_next(r, RAW_WAIT_MS);
    assert_non_null(m);
    assert_int_equal(m->type, XI_MSG_LOADED);
    assert_int_equal(((const struct xi_msg_loaded *)m)->session, 3);
    m = raw_next(r, RAW_WAIT_MS);
    assert_non_null(m);
    assert_int_equal(m->type, XI_MSG_UNLOADED);
    assert_int_equal(((const struct xi_msg_unload *)m)->session, 2);
    assert_true(ask(2, 3, 1) == 2);
    raw_close(r);
}

static void lost_device_ends_the_host_behind_the_answer(void **state)
{
    struct xi_msg_load a = load_of(1, 0, 1), b = load_of(2, 1, 1);
    struct raw_done d;

    (void)state;
    start(1);
    raw_package(r, "lost", lost, "", NULL);
    (void)raw_load(r, "plus", &a);
    (void)raw_load(r, "lost", &b);
    assert_true(ask(1, 2, 1) == 2);
    send_one(1, 2, 1000, 67);
    assert_true(raw_answer(r, 1, &d, RAW_WAIT_MS));
    assert_int_equal(d.done.code, XI_EDEVICE);
    assert_int_equal(raw_end(r), XI_EXIT_DEVICE_LOST);
    raw_clean(r);
    start(1);
    raw_package(r, "lost", lost_at_load, "", NULL);
    (void)raw_load(r, "plus", &a);
    raw_lane(r, 1, 0);
    raw_send_load(r, "lost", &b);
    (void)must_fail(2, XI_EDEVICE);
    assert_int_equal(raw_end(r), XI_EXIT_DEVICE_LOST);
    raw_clean(r);
}

/* How many threads of the host have this nice level. */
static int threads_at(int nice)
{
    char path[64];
    int n = 0;
    struct dirent *e;

    (void)snprintf(path, sizeof path, "/proc/%d/task", r->pid);
    DIR *d = opendir(path);
    assert_non_null(d);
    while ((e = readdir(d)) != NULL)
        n += e->d_name[0] != '.' &&
             getpriority(PRIO_PROCESS, (id_t)strtol(e->d_name, NULL, 10)) == nice;
    (void)closedir(d);
    return n;
}

static void threads_have_the_level_they_were_given(void **state)
{
    struct xi_msg_load a = load_of(1, 0, 2), b = load_of(2, 2, 1);
    struct raw_start how = {.group = 1, .sandbox = 1};

    (void)state;
    raw_start(r, &how);
    raw_package(r, "plus", plus_one, "", NULL);
    raw_package(r, "slow", slow_load, "", NULL);
    raw_lane(r, 0, 7);
    raw_lane(r, 1, 15);
    raw_send_load(r, "plus", &a);
    const struct xi_msg_head *m = raw_next(r, RAW_WAIT_MS);
    assert_true(m != NULL && m->type == XI_MSG_LOADED);
    assert_true(ask(0, 1, 1) == 2 && ask(1, 1, 1) == 2);
    assert_int_equal(threads_at(7), 1);
    assert_int_equal(threads_at(15), 1);
    assert_int_equal(threads_at(19), 0);
    raw_lane(r, 2, 5);
    raw_send_load(r, "slow", &b);
    int seen = 0; /* while it loads */
    for (int i = 0; i < 200 && !seen && (m = raw_next(r, 1)) == NULL; i++)
        seen = threads_at(19) == 1;
    assert_true(seen);
    m = raw_next(r, RAW_WAIT_MS);
    assert_true(m != NULL && m->type == XI_MSG_LOADED);
    assert_true(ask(2, 2, 1) == 2);
    assert_int_equal(threads_at(5), 1);
    raw_close(r);
}

/* Each is told to a fresh host, which gives itself up. */
static void nonsense_ends_the_host(void **state)
{
    struct xi_msg_load a = load_of(1, 0, 1), far = load_of(2, 5, 1), again = load_of(1, 1, 1);
    struct xi_msg_unload nobody = {.session = 0};

    (void)state;
    for (int i = 0; i < 5; i++) {
        start(i < 4);
        (void)raw_load(r, "plus", &a);
        raw_lane(r, 1, 0);
        if (i == 0)
            raw_send(r, &nobody, XI_MSG_UNLOAD, sizeof nobody);
        else if (i == 1)
            raw_send_load(r, "plus", &far); /* lanes that nobody made */
        else if (i == 2)
            raw_send_load(r, "plus", &again); /* a session that is there */
        else if (i == 3)
            raw_send_load(r, "plus", &(struct xi_msg_load){.session = 3, .lane_count = 2});
        else
            raw_send_load(r, "plus",
                          &(struct xi_msg_load){.session = 2, .first_lane = 1, .lane_count = 1});
        assert_int_equal(raw_end(r), XI_EXIT_PROTOCOL);
        raw_clean(r);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_sessions_answer_each_its_own),
        cmocka_unit_test(load_beside_others_does_not_keep_them_waiting),
        cmocka_unit_test(failed_load_leaves_the_others),
        cmocka_unit_test(failed_load_ends_a_host_of_its_own),
        cmocka_unit_test(unload_gives_everything_back),
        cmocka_unit_test(jobs_wait_their_turn_and_can_be_taken_back),
        cmocka_unit_test(lost_device_ends_the_host_behind_the_answer),
        cmocka_unit_test(threads_have_the_level_they_were_given),
        cmocka_unit_test(nonsense_ends_the_host),
    };
    return cmocka_run_group_tests_name("shared_host", tests, NULL, NULL);
}
