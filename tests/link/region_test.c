/* region_test.c: memory that clients own, from the daemon's end, with the real xinfer-host and the
 * reference engine. What a model answers is computed here from its definition. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/ipc/regions.h"
#include "linked.h"

#define N     4096 /* floats: four pages */
#define BYTES (N * sizeof(float))
#define ROOM  (2 * BYTES + 64)
#define HEAD  "xref 1\ninput x FP32 [1,4096]\noutput y FP32 [1,4096]\n"

static const char plus_one[] = HEAD "y = add x 1\n";
static const char slowly[] = HEAD "y = add x 1\nfault delay-ms 300\n";

/* A client's object: the input, then room for the output, from a place within a page on. */
#define FROM 192u

struct client {
    struct linked l;
    struct xi_regions *regions;
    char key[64];
    int fd;
    float *x, *y;
    struct xi_loan *loan; /* of the request that runs */
    struct xi_part part;
    /* of the last answer */
    int code;
    uint64_t copied;
    int in_place;
};

static void on_done(struct linked *l, uint32_t lane, struct xi_reply *reply)
{
    struct client *c = l->ctx;

    (void)lane;
    c->code = reply->done.code;
    c->copied = reply->done.copied_bytes;
    c->in_place = reply->done.n_parts == 1 && reply->segments[0] == NULL;
    if (c->code == XI_EREGION)
        xi_loan_spoiled(c->loan);
    xi_reply_release(reply);
    xi_loan_put(c->loan);
    c->loan = NULL;
}

static void open_client(struct client *c, const char *model)
{
    struct xi_err err;

    memset(c, 0, sizeof *c);
    linked_open(&c->l);
    linked_load(&c->l, model, 1);
    if (!c->l.loaded)
        fail_msg("not loaded: %s (%s)", c->l.why.msg, c->l.end.reason);
    c->l.ctx = c;
    c->l.on_done = on_done;
    c->regions = xi_regions_new(c->l.shm);
    assert_non_null(c->regions);
    (void)snprintf(c->key, sizeof c->key, "/xi-test-%d", (int)getpid());
    c->fd = shm_open(c->key, O_RDWR | O_CREAT | O_EXCL, 0600);
    assert_true(c->fd >= 0);
    assert_int_equal(ftruncate(c->fd, (off_t)(FROM + ROOM)), 0);
    uint8_t *base = mmap(NULL, FROM + ROOM, PROT_READ | PROT_WRITE, MAP_SHARED, c->fd, 0);
    assert_true(base != MAP_FAILED);
    c->x = (float *)(void *)(base + FROM);
    c->y = c->x + N;
    if (xi_regions_register(c->regions, "a", "io", c->key, FROM, ROOM, &err) != XI_OK)
        fail_msg("register: %s", err.msg);
}

static void close_client(struct client *c)
{
    assert_int_equal(munmap((uint8_t *)c->x - FROM, FROM + ROOM), 0);
    assert_int_equal(close(c->fd), 0);
    assert_int_equal(shm_unlink(c->key), 0);
    xi_regions_free(c->regions);
    linked_close(&c->l);
}

/* The output is wanted `to` in the region. */
static void ask_at(struct client *c, const char *name, uint64_t to, uint64_t room)
{
    struct xi_segment *in = NULL, *out = NULL, *segments[2];
    uint64_t in_at = 0, out_at = 0;
    struct xi_err err;
    static uint64_t id;

    if (xi_region_take(c->regions, "a", name, 0, BYTES, 0, &in, &in_at, &err) != XI_OK ||
        xi_region_take(c->regions, "a", name, to, room, 1, &out, &out_at, &err) != XI_OK)
        fail_msg("take: %s", err.msg);
    c->loan = xi_regions_loan(c->regions);
    xi_loan_input(c->loan, 0, in);
    xi_loan_place(c->loan, 0, out, out_at, room);
    c->part = (struct xi_part){.kind = XI_PART_TENSOR,
                               .dtype = XI_DT_FP32,
                               .rank = 2,
                               .dims = {1, N},
                               .mem = {.segment = in->id, .offset = in_at, .bytes = BYTES}};
    segments[0] = in;
    segments[1] = out;
    struct xi_work_item item = {
        .request = {.id = ++id, .want = XI_ANSWER_TENSORS, .n_parts = 2, .n_places = 1},
        .parts = &c->part,
        .places = c->loan->places,
        .segments = segments};
    if (xi_host_submit(c->l.host, 0, XI_WORK_ALL, XI_CORE_ANY, &item, 1, &err) != XI_OK)
        fail_msg("submit: %s", err.msg);
}

static void ask_by(struct client *c, const char *name, uint64_t room)
{
    ask_at(c, name, BYTES, room);
}

static void ask(struct client *c, uint64_t room)
{
    ask_by(c, "io", room);
}

static void answer(struct client *c, int code)
{
    assert_true(linked_wait_done(&c->l, c->l.done + 1, 5000));
    assert_int_equal(c->l.exited, 0);
    assert_int_equal(c->code, code);
}

static void fill(struct client *c, float first)
{
    for (int i = 0; i < N; i++)
        c->x[i] = first + (float)i;
    memset(c->y, 0xff, BYTES);
}

static void check(const struct client *c, float first)
{
    for (int i = 0; i < N; i++)
        assert_true(c->y[i] == first + (float)i + 1);
}

static void request_is_read_and_answered_in_place(void **state)
{
    struct client c;

    (void)state;
    open_client(&c, plus_one);
    for (int i = 0; i < 20; i++) {
        fill(&c, (float)i);
        ask(&c, BYTES);
        answer(&c, XI_OK);
        assert_true(c.in_place);
        assert_int_equal(c.copied, 0);
        check(&c, (float)i);
    }
    close_client(&c);
}

static void answer_that_has_no_room_is_refused_and_nothing_is_written(void **state)
{
    struct client c;

    (void)state;
    open_client(&c, plus_one);
    fill(&c, 1);
    ask(&c, BYTES - 4);
    answer(&c, XI_EREGION);
    for (int i = 0; i < N; i++)
        assert_int_equal(((uint32_t *)(void *)c.y)[i], UINT32_MAX);
    ask(&c, BYTES);
    answer(&c, XI_OK);
    check(&c, 1);
    close_client(&c);
}

static void answer_is_put_at_any_address(void **state)
{
    struct client c;

    (void)state;
    open_client(&c, plus_one);
    for (int odd = 1; odd >= 0; odd--) { /* the engine's memory is bound anew between the two */
        float *y = c.y;
        fill(&c, 9);
        ask_at(&c, "io", BYTES + 8 + (uint64_t)odd, BYTES);
        answer(&c, XI_OK);
        assert_true(c.in_place);
        assert_int_equal(c.copied, odd ? BYTES : 0);
        uint8_t *at = (uint8_t *)y + 8 + odd;
        for (int i = 0; i < N; i++, at += sizeof(float)) {
            float v;
            memcpy(&v, at, sizeof v);
            assert_true(v == 10 + (float)i);
        }
    }
    close_client(&c);
}

/* The client cuts its memory after the request was sent: the host finds out while it reads. */
static void memory_that_goes_away_ends_one_request_alone(void **state)
{
    struct client c;

    (void)state;
    open_client(&c, slowly);
    fill(&c, 1);
    ask(&c, BYTES);
    assert_false(linked_wait_done(&c.l, c.l.done + 1, 50)); /* it runs */
    assert_int_equal(ftruncate(c.fd, 4096), 0);
    answer(&c, XI_EREGION);

    /* Cut, it is refused before any host sees it. Whole again, it is used again. */
    struct xi_segment *segment;
    uint64_t at;
    struct xi_err err;
    assert_int_equal(xi_region_take(c.regions, "a", "io", 0, BYTES, 0, &segment, &at, &err),
                     XI_EREGION);
    assert_int_equal(ftruncate(c.fd, (off_t)(FROM + ROOM)), 0);
    for (int i = 0; i < 3; i++) {
        fill(&c, 5);
        ask(&c, BYTES);
        answer(&c, XI_OK);
        check(&c, 5);
    }
    close_client(&c);
}

/* Nothing that a lane still reads is unmapped. */
static void region_that_is_unregistered_stays_for_what_runs(void **state)
{
    struct client c;
    struct xi_err err;

    (void)state;
    open_client(&c, slowly);
    fill(&c, 2);
    ask(&c, BYTES);
    assert_false(linked_wait_done(&c.l, c.l.done + 1, 50));
    xi_regions_unregister(c.regions, "a", "io");
    answer(&c, XI_OK);
    check(&c, 2);
    assert_int_equal(xi_regions_register(c.regions, "a", "io", c.key, FROM, ROOM, &err), XI_OK);
    fill(&c, 3);
    ask(&c, BYTES);
    answer(&c, XI_OK);
    check(&c, 3);
    close_client(&c);
}

static void use(struct client *c, int number)
{
    struct xi_err err;
    char name[16];

    (void)snprintf(name, sizeof name, "r%d", number);
    if (xi_regions_register(c->regions, "a", name, c->key, FROM, ROOM, &err) != XI_OK)
        fail_msg("register: %s", err.msg);
    fill(c, (float)number);
    ask_by(c, name, BYTES);
    answer(c, XI_OK);
    check(c, (float)number);
}

/* A host finds its segments by the last bits of their numbers: these are made to collide. */
static void hundreds_of_regions_whose_numbers_collide_are_all_used(void **state)
{
    struct xi_segment *segment;
    struct client c;
    struct xi_err err;
    uint64_t at;

    (void)state;
    open_client(&c, plus_one);
    for (int i = 0; i < 100; i++)
        use(&c, i);
    for (int i = 0; i < 4096 - 200; i++) {
        assert_int_equal(xi_regions_register(c.regions, "a", "x", c.key, 0, 8, &err), XI_OK);
        assert_int_equal(xi_region_take(c.regions, "a", "x", 0, 8, 0, &segment, &at, &err), XI_OK);
        xi_segment_put(segment);
        xi_regions_unregister(c.regions, "a", "x");
    }
    for (int i = 100; i < 250; i++)
        use(&c, i);
    close_client(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(request_is_read_and_answered_in_place),
        cmocka_unit_test(answer_that_has_no_room_is_refused_and_nothing_is_written),
        cmocka_unit_test(answer_is_put_at_any_address),
        cmocka_unit_test(memory_that_goes_away_ends_one_request_alone),
        cmocka_unit_test(region_that_is_unregistered_stays_for_what_runs),
        cmocka_unit_test(hundreds_of_regions_whose_numbers_collide_are_all_used),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
