/* stage_test.c: a request in stages, for devices other than the processor (here simulated): what
 * comes before the model, the model, and what comes after, each where it is told to run. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "raw.h"

#define HEAD "xref 1\ninput x FP32 [-1,4]\noutput y FP32 [-1,4]\n"
static const char flow[] =
    "{\"steps\": [{\"op\": \"from_bytes\", \"in\": \"input\", \"out\": \"b\", \"dtype\": \"UINT8\","
    " \"shape\": [1,4]}, {\"op\": \"normalise\", \"in\": \"b\", \"out\": \"f\"},"
    " {\"op\": \"infer\", \"in\": \"f\", \"out\": \"y\"}], \"output\": {\"tensors\": [\"y\"]}}";
static const char *const with_flow[] = {"flow.json", flow, NULL};

enum { RUN_LANE = 0, STAGE_LANE = 1 };

static struct raw host;
static struct raw *r = &host;
static uint64_t next_id;

static const struct xi_msg_loaded *start_on(const char *device, const char *model, const char *more,
                                            uint32_t max_batch)
{
    struct raw_start how = {.plugin_dir = XI_SIMULATED_PLUGINS, .engine = "simulated", .group = 1};
    static struct xi_msg_load load;

    raw_start(r, &how);
    raw_package(r, "m", model, more, with_flow);
    load = (struct xi_msg_load){
        .session = 1, .lane_count = 1, .stage_lanes = 1, .max_batch = max_batch};
    (void)snprintf(load.device, sizeof load.device, "%s", device);
    return raw_load(r, "m", &load);
}

static struct xi_done stage(uint32_t lane, enum xi_work_op op, const uint64_t *ids, uint32_t n,
                            const struct xi_part *parts, struct raw_done *ret)
{
    struct raw_request q[16] = {0};

    for (uint32_t i = 0; i < n; i++)
        q[i] = (struct raw_request){
            .head = {.id = ids[i], .want = XI_ANSWER_JSON, .n_parts = parts ? 1 : 0},
            .parts = parts ? &parts[i] : NULL};
    raw_submit(r, lane, op, 1, q, n);
    for (uint32_t i = 0; i < n; i++) {
        if (!raw_answer(r, lane, &ret[i], RAW_WAIT_MS))
            fail_msg("no answer to stage %d", op);
        assert_int_equal(ret[i].done.id, ids[i]);
    }
    return ret[0].done;
}

static uint64_t pre(const uint8_t bytes[4], uint64_t *ret_key)
{
    struct xi_part part = raw_bytes(r, bytes, 4);
    struct raw_done d;
    uint64_t id = ++next_id;
    struct xi_done done = stage(STAGE_LANE, XI_WORK_PRE, &id, 1, &part, &d);

    assert_int_equal(done.code, XI_OK);
    assert_int_equal(done.n_parts, 0);
    assert_true(done.shape_key != 0);
    if (ret_key != NULL)
        *ret_key = done.shape_key;
    return id;
}

static void must_say(const struct raw_done *d, int a, int b, int c, int e)
{
    char text[160];

    if (d->done.code != XI_OK)
        fail_msg("%s", d->done.text);
    (void)snprintf(text, sizeof text,
                   "{\"tensors\":[{\"name\":\"y\",\"datatype\":\"FP32\",\"shape\":[1,4],"
                   "\"data\":[%d,%d,%d,%d]}]}",
                   a, b, c, e);
    assert_int_equal(d->parts[0].mem.bytes, strlen(text));
    assert_memory_equal(raw_data(r, d, 0), text, strlen(text));
}

static void stages_one_by_one(void **state)
{
    struct raw_done d[4];
    uint64_t ids[4], keys[4];

    (void)state;
    const struct xi_msg_loaded *m = start_on("GPU.0", HEAD "y = mul x 2\n", "", 4);
    assert_int_equal(m->staged, 1);
    assert_int_equal(m->max_batch, 4);
    for (int round = 0; round < 50; round++) {
        uint8_t k = (uint8_t)round;
        for (uint8_t i = 0; i < 4; i++)
            ids[i] = pre((uint8_t[]){i, k, 1, 2}, &keys[i]);
        assert_true(keys[0] == keys[1] && keys[0] == keys[3]);
        (void)stage(RUN_LANE, XI_WORK_INFER, ids, 4, NULL, d);
        for (int i = 0; i < 4; i++) {
            assert_int_equal(d[i].done.code, XI_OK);
            assert_int_equal(d[i].done.n_parts, 0);
            assert_int_equal(d[i].done.batch, 4);
            assert_true(d[i].done.device_ns > 0);
        }
        for (int i = 3; i >= 0; i--) { /* in any order */
            (void)stage(STAGE_LANE, XI_WORK_POST, &ids[i], 1, NULL, d);
            must_say(&d[0], 2 * i, 2 * round, 2, 4);
            raw_release(r, STAGE_LANE, &d[0]);
        }
    }
    raw_close(r);
}

/* On the processor a request's stages share a grant; a host asked otherwise there gives up. */
static void processor_has_no_stages(void **state)
{
    struct xi_part part;
    struct raw_request q = {.head = {.id = 1, .n_parts = 1}, .parts = &part};

    (void)state;
    assert_int_equal(start_on("CPU", HEAD "y = mul x 2\n", "", 4)->staged, 0);
    part = raw_bytes(r, "abcd", 4);
    raw_submit(r, STAGE_LANE, XI_WORK_PRE, 1, &q, 1);
    assert_int_equal(raw_end(r), XI_EXIT_PROTOCOL);
    raw_clean(r);
}

static void errors_end_a_request_at_any_stage(void **state)
{
    struct xi_part bad;
    struct raw_done d[4];
    uint64_t ids[4];

    (void)state;
    (void)start_on("GPU.0", HEAD "y = mul x 2\nfault fail no-memory when 66\n", "", 4);
    bad = raw_bytes(r, "abc", 3);
    ids[0] = ++next_id;
    assert_int_equal(stage(STAGE_LANE, XI_WORK_PRE, ids, 1, &bad, d).code, XI_ETENSOR);
    assert_int_equal(stage(RUN_LANE, XI_WORK_INFER, ids, 1, NULL, d).code, XI_EPROTO);
    for (uint8_t i = 0; i < 4; i++)
        ids[i] = pre((uint8_t[]){i == 0 ? 66 : i, 0, 0, 0}, NULL);
    assert_int_equal(stage(STAGE_LANE, XI_WORK_POST, ids, 1, NULL, d).code,
                     XI_EPROTO); /* too soon */
    (void)stage(RUN_LANE, XI_WORK_INFER, ids, 4, NULL, d);
    for (int i = 0; i < 4; i++) /* its own alone */
        assert_int_equal(d[i].done.code, d[i].done.id == ids[0] ? XI_ENOMEM : XI_OK);
    assert_int_equal(stage(STAGE_LANE, XI_WORK_POST, ids, 1, NULL, d).code, XI_EPROTO);
    ids[0] = pre((uint8_t[]){5, 0, 0, 0}, NULL);
    assert_int_equal(stage(RUN_LANE, XI_WORK_INFER, ids, 1, NULL, d).code, XI_OK);
    (void)stage(STAGE_LANE, XI_WORK_POST, ids, 1, NULL, d);
    must_say(d, 10, 0, 0, 0);
    raw_close(r);
}

static void what_waits_between_stages_is_bounded(void **state)
{
    struct raw_done d;
    struct xi_part part;
    struct raw_request q[16];
    uint64_t ids[64], id;
    uint32_t n = 0;

    (void)state;
    memset(q, 0, sizeof q);
    (void)start_on("GPU.0", HEAD "y = mul x 2\n", "", 4);
    do { /* nobody goes on with them */
        part = raw_bytes(r, "abcd", 4);
        ids[n] = ++next_id;
        (void)stage(STAGE_LANE, XI_WORK_PRE, &ids[n], 1, &part, &d);
    } while (d.done.code == XI_OK && ++n < 60);
    assert_int_equal(d.done.code, XI_EAGAIN);
    assert_true(n >= 8 && n < 60); /* two batches at least */
    for (uint32_t i = 0; i < 4; i++)
        q[i].head.id = ids[i];
    q[4].head.id = 99999; /* an unknown one is fine */
    raw_submit(r, STAGE_LANE, XI_WORK_FORGET, 1, q, 5);
    for (uint32_t i = 0; i < 4; i++)
        ids[i] = pre((uint8_t[]){1, 2, 3, 4}, NULL);
    part = raw_bytes(r, "abcd", 4);
    id = ++next_id;
    assert_int_equal(stage(STAGE_LANE, XI_WORK_PRE, &id, 1, &part, &d).code, XI_EAGAIN);
    raw_close(r);
}

static void tensors_go_to_the_model_alone(void **state)
{
    struct raw_done d;
    float v[8] = {1, 2, 3, 4, 5, 6, 7, 8};

    (void)state;
    (void)start_on("GPU.0", HEAD "y = mul x 2\n", "", 4);
    struct xi_part part = raw_floats(r, 0, (int64_t[]){2, 4}, 2, v);
    struct raw_request q = {.head = {.id = 1, .want = XI_ANSWER_TENSORS, .n_parts = 1},
                            .parts = &part};
    raw_submit(r, RUN_LANE, XI_WORK_INFER, 1, &q, 1);
    assert_true(raw_answer(r, RUN_LANE, &d, RAW_WAIT_MS));
    assert_int_equal(d.done.code, XI_OK);
    const float *y = raw_data(r, &d, 0);
    for (int i = 0; i < 8; i++)
        assert_true(y[i] == 2 * v[i]);
    raw_submit(r, RUN_LANE, XI_WORK_ALL, 1, &q, 1); /* and so does all at once */
    assert_true(raw_answer(r, RUN_LANE, &d, RAW_WAIT_MS));
    assert_int_equal(d.done.code, XI_OK);
    raw_close(r);
}

static void lane_for_stages_runs_no_model(void **state)
{
    struct xi_part part;
    struct raw_request q = {.head = {.id = 1, .n_parts = 1}, .parts = &part};

    (void)state;
    (void)start_on("GPU.0", HEAD "y = mul x 2\n", "", 4);
    part = raw_bytes(r, "abcd", 4);
    raw_submit(r, STAGE_LANE, XI_WORK_ALL, 1, &q, 1);
    assert_int_equal(raw_end(r), XI_EXIT_PROTOCOL);
    raw_clean(r);
}

/* What a device holds is not this process's memory; the engine says how much. */
static void peak_counts_the_memory_of_a_device(void **state)
{
    (void)state;
    const struct xi_msg_loaded *m =
        start_on("GPU.0", HEAD "y = mul x 2\nfault claim 5000000000\n", "", 1);
    assert_true(m->peak_bytes >= 5000000000u);
    assert_true(m->memory_bytes < 1000000000u);
    raw_close(r);
    m = start_on("CPU", HEAD "y = mul x 2\nfault claim 5000000000\n", "", 1);
    assert_true(m->peak_bytes < 1000000000u);
    raw_close(r);
}

/* The state of a sequence comes with its first stage and goes with its last. */
static void state_waits_between_stages(void **state)
{
    static const char summing[] =
        "xref 1\ninput x FP32 [-1,4]\ninput h FP32 [-1,4]\noutput y FP32 [-1,4]\n"
        "output g FP32 [-1,4]\ng = add h x\ny = mul g 2\n";
    static const char more[] =
        "\"signature\": {\"inputs\": [{\"name\": \"x\", \"dtype\": \"FP32\", \"shape\": [-1,4]},"
        " {\"name\": \"h\", \"dtype\": \"FP32\", \"shape\": [-1,4]}], \"outputs\": ["
        "{\"name\": \"y\", \"dtype\": \"FP32\", \"shape\": [-1,4]},"
        " {\"name\": \"g\", \"dtype\": \"FP32\", \"shape\": [-1,4]}]}, \"state\": [{\"input\": "
        "\"h\","
        " \"output\": \"g\", \"dtype\": \"FP32\", \"shape\": [1,4]}], ";
    struct raw_done d[2];
    float h[2][4];

    (void)state;
    (void)start_on("GPU.0", summing, more, 2);
    for (int step = 1; step <= 5; step++) {
        uint64_t ids[2];
        for (uint8_t i = 0; i < 2; i++) {
            struct xi_part parts[2] = {raw_bytes(r, (uint8_t[]){(uint8_t)(i + 1), 1, 0, 0}, 4)};
            struct raw_request q = {.head = {.id = ids[i] = ++next_id,
                                             .want = XI_ANSWER_JSON,
                                             .n_parts = 1,
                                             .flags = step == 1 ? XI_WORK_START : 0},
                                    .parts = parts};
            if (step > 1) {
                parts[1] = raw_floats(r, 0, (int64_t[]){1, 4}, 2, h[i]);
                q.head.n_parts = 2;
                q.head.n_state = 1;
            }
            raw_submit(r, STAGE_LANE, XI_WORK_PRE, 1, &q, 1);
            assert_true(raw_answer(r, STAGE_LANE, &d[0], RAW_WAIT_MS));
            assert_int_equal(d[0].done.code, XI_OK);
        }
        assert_int_equal(stage(RUN_LANE, XI_WORK_INFER, ids, 2, NULL, d).batch, 2);
        for (int i = 0; i < 2; i++) {
            (void)stage(STAGE_LANE, XI_WORK_POST, &ids[i], 1, NULL, d);
            must_say(d, 2 * (i + 1) * step, 2 * step, 0, 0);
            assert_int_equal(d[0].done.n_state, 1);
            assert_int_equal(d[0].done.n_parts, 2);
            memcpy(h[i], raw_data(r, d, 1), sizeof h[i]);
            assert_true(h[i][0] == (float)((i + 1) * step) && h[i][1] == (float)step);
            raw_release(r, STAGE_LANE, d);
        }
    }
    raw_close(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stages_one_by_one),
        cmocka_unit_test(processor_has_no_stages),
        cmocka_unit_test(errors_end_a_request_at_any_stage),
        cmocka_unit_test(what_waits_between_stages_is_bounded),
        cmocka_unit_test(tensors_go_to_the_model_alone),
        cmocka_unit_test(lane_for_stages_runs_no_model),
        cmocka_unit_test(peak_counts_the_memory_of_a_device),
        cmocka_unit_test(state_waits_between_stages),
    };
    return cmocka_run_group_tests_name("stage", tests, NULL, NULL);
}
