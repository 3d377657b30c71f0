/* batch_test.c: several requests in one run of the engine. A batch must answer what its requests
 * alone answer, bit for bit, and show nobody a byte of another's. */
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
/* A little arithmetic that depends on every element of the row. */
static const char mixer[] = HEAD "output top INT64 [-1]\n"
                                 "const w FP32 [4,4] 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n"
                                 "m = matmul x w\ny = softmax m\ntop = argmax m\n";
static const char copy[] = HEAD "y = copy x\n";
static const char wide[] = "xref 1\ninput x FP32 [-1,-1]\noutput y FP32 [-1,-1]\ny = mul x 2\n";

static struct raw host;
static struct raw *r = &host;
static uint64_t next_id;

/* One request of `rows` rows and its answer. */
struct asked {
    struct xi_part parts[4];
    struct raw_request q;
    struct raw_done got;
};

static void start(void)
{
    struct raw_start how = {.group = 0};

    raw_start(r, &how);
}

static struct xi_msg_load load_of(uint32_t max_batch)
{
    return (struct xi_msg_load){.session = 1, .lane_count = 1, .max_batch = max_batch};
}

static void set(struct asked *a, int64_t rows, int64_t width, const float *values)
{
    int64_t dims[2] = {rows, width};

    a->parts[0] = raw_floats(r, 0, dims, 2, values);
    a->q = (struct raw_request){.head = {.id = ++next_id, .want = XI_ANSWER_TENSORS, .n_parts = 1},
                                .parts = a->parts};
}

static struct asked *find(struct asked *a, uint32_t n, uint64_t id)
{
    for (uint32_t i = 0; i < n; i++)
        if (a[i].q.head.id == id)
            return &a[i];
    fail_msg("an answer to %llu, which nobody asked", (unsigned long long)id);
    return NULL;
}

/* One record; each request gets an answer of its own. */
static void run_together(struct asked *a, uint32_t n)
{
    struct raw_request q[XI_BATCH_MAX] = {0};
    uint64_t seen = 0;
    struct raw_done d;

    for (uint32_t i = 0; i < n; i++)
        q[i] = a[i].q;
    raw_submit(r, 0, XI_WORK_ALL, 1, q, n);
    for (uint32_t i = 0; i < n; i++) {
        assert_true(raw_answer(r, 0, &d, RAW_WAIT_MS));
        struct asked *of = find(a, n, d.done.id);
        assert_false(seen >> (of - a) & 1);
        seen |= 1ull << (of - a);
        of->got = d;
    }
}

static void release(struct asked *a, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        raw_release(r, 0, &a[i].got);
}

/* Does the answer's part hold exactly these bytes? */
static void must_hold(const struct asked *a, uint32_t part, const void *bytes, size_t n)
{
    if (a->got.done.code != XI_OK)
        fail_msg("%s", a->got.done.text);
    assert_true(part < a->got.done.n_parts);
    assert_int_equal(a->got.parts[part].mem.bytes, n);
    assert_memory_equal(raw_data(r, &a->got, part), bytes, n);
}

static void loaded_says_how_many_may_share(void **state)
{
    static const struct {
        const char *name, *model, *more;
        uint32_t asked, gets;
    } cases[] = {
        {"copy", copy, "", 8, 8},
        {"one", copy, "", 1, 1},
        {"said", copy, "\"batching\": {\"max\": 4}, ", 8, 4},
        {"fixed", "xref 1\ninput x FP32 [1,4]\noutput y FP32 [1,4]\ny = copy x\n", "", 8, 1},
        {"out", "xref 1\ninput x FP32 [-1,4]\noutput y INT64 [2,-1]\ny = nonzero x\n", "", 8, 1},
        {"two",
         "xref 1\ninput x FP32 [-1,4]\ninput k FP32 [4]\noutput y FP32 [-1,4]\ny = add x k\n", "",
         8, 1},
        {"scalar", "xref 1\ninput x FP32 []\noutput y FP32 []\ny = copy x\n", "", 8, 1},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct xi_msg_load load = load_of(cases[i].asked);
        start();
        raw_package(r, cases[i].name, cases[i].model, cases[i].more, NULL);
        const struct xi_msg_loaded *m = raw_load(r, cases[i].name, &load);
        assert_int_equal(m->max_batch, cases[i].gets);
        assert_int_equal(m->staged, 0);
        assert_int_equal(m->stateful, XI_STATE_NONE);
        raw_close(r);
    }
}

#define SIGNATURE                                                                                  \
    "\"signature\": {\"inputs\": [{\"name\": \"x\", \"dtype\": \"FP32\", \"shape\": [-1,4]}],"     \
    " \"outputs\": [{\"name\": \"y\", \"dtype\": \"FP32\", \"shape\": [-1,4]}]}, "

static void largest_shapes_name_inputs_of_the_model(void **state)
{
    static const struct {
        const char *text;
        int code;
    } cases[] = {{"x=2,4", XI_OK}, {"z=2,4", XI_EINVAL}, {"x", XI_EINVAL}, {"x=2,b", XI_EINVAL}};

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct xi_msg_load load = load_of(4);
        (void)snprintf(load.max_shape, sizeof load.max_shape, "%s", cases[i].text);
        start();
        raw_package(r, "copy", copy, SIGNATURE, NULL);
        if (cases[i].code == XI_OK) {
            (void)raw_load(r, "copy", &load);
            raw_close(r);
            continue;
        }
        raw_lane(r, 0, 0);
        raw_send_load(r, "copy", &load);
        const struct xi_msg_failed *m = (const struct xi_msg_failed *)raw_next(r, RAW_WAIT_MS);
        assert_non_null(m);
        assert_int_equal(m->head.type, XI_MSG_FAILED);
        assert_int_equal(m->code, cases[i].code);
        assert_non_null(strstr(m->text, "max_shape"));
        assert_int_equal(raw_end(r), 0);
        raw_clean(r);
    }
}

static void one_gather_and_a_place_for_each(void **state)
{
    struct xi_msg_load load = load_of(8);
    static struct asked a[5];

    (void)state;
    start();
    raw_package(r, "copy", copy, "", NULL);
    (void)raw_load(r, "copy", &load);
    for (int i = 0; i < 5; i++) {
        float v[12];
        for (int k = 0; k < 12; k++)
            v[k] = (float)(100 * i + k);
        set(&a[i], i == 2 ? 3 : 1, 4, v);
    }
    run_together(a, 5);
    for (int i = 0; i < 5; i++) {
        uint64_t bytes = i == 2 ? 48 : 16;
        must_hold(&a[i], 0, (const uint8_t *)r->input.base + a[i].parts[0].mem.offset, bytes);
        assert_int_equal(a[i].got.parts[0].dims[0], i == 2 ? 3 : 1);
        assert_int_equal(a[i].got.done.batch, 7);
        assert_int_equal(a[i].got.done.copied_bytes, 2 * bytes); /* in once, out once */
    }
    release(a, 5);
    set(&a[0], 1, 4, (float[]){1, 2, 3, 4});
    run_together(a, 1); /* alone it is bound where it lies */
    assert_int_equal(a[0].got.done.batch, 1);
    assert_int_equal(a[0].got.done.copied_bytes, 16);
    release(a, 1);
    raw_close(r);
}

static void unequal_shapes_run_apart(void **state)
{
    struct xi_msg_load load = load_of(9);
    static struct asked a[9];
    float v[64];

    (void)state;
    start();
    raw_package(r, "wide", wide, "", NULL);
    (void)raw_load(r, "wide", &load);
    for (int i = 0; i < 9; i++) {
        for (int k = 0; k < 64; k++)
            v[k] = (float)(i * 64 + k);
        set(&a[i], i == 8 ? 12 : 1, 1 + i % 3, v); /* the last is larger than any batch */
    }
    run_together(a, 9);
    for (int i = 0; i < 9; i++) {
        uint32_t n = (uint32_t)(a[i].parts[0].mem.bytes / 4);
        for (uint32_t k = 0; k < n; k++)
            v[k] = (float)(i * 64 + (int)k) * 2;
        must_hold(&a[i], 0, v, n * 4);
        assert_int_equal(a[i].got.done.batch, i == 8 ? 1 : i % 3 == 2 ? 2 : 3);
    }
    raw_close(r);
}

static void wrong_ones_fail_alone(void **state)
{
    struct xi_msg_load load = load_of(8);
    static struct asked a[6];
    float v[5] = {1, 2, 3, 4, 5};

    (void)state;
    start();
    raw_package(r, "copy", copy, "", NULL);
    (void)raw_load(r, "copy", &load);
    for (int i = 0; i < 6; i++)
        set(&a[i], 1, i == 1 ? 5 : 4, v); /* a shape that the model does not take */
    a[2].parts[0].index = 1;
    a[3].q.head.deadline_ns = 1;
    a[4].parts[0].mem.offset = RAW_INPUT_BYTES - 8; /* past the segment's end */
    run_together(a, 6);
    assert_int_equal(a[1].got.done.code, XI_ETENSOR);
    assert_int_equal(a[2].got.done.code, XI_ETENSOR);
    assert_int_equal(a[3].got.done.code, XI_ETIMEOUT);
    assert_int_equal(a[4].got.done.code, XI_EPROTO);
    for (int i = 0; i < 6; i += 5) {
        must_hold(&a[i], 0, v, 16);
        assert_int_equal(a[i].got.done.batch, 2);
    }
    raw_close(r);
}

static void error_of_the_run_is_its_own(void **state)
{
    struct xi_msg_load load = load_of(8);
    struct raw_request q[4];
    static struct asked a[4];
    struct raw_done d;
    float poison[4] = {66, 0, 0, 0}, fatal[4] = {67, 0, 0, 0}, good[4] = {1, 0, 0, 0};

    (void)state;
    start();
    raw_package(r, "trap",
                HEAD "y = copy x\nfault fail no-memory when 66\n"
                     "fault fail internal when 67\n",
                "", NULL);
    (void)raw_load(r, "trap", &load);
    for (int i = 0; i < 4; i++)
        set(&a[i], 1, 4, i == 0 ? poison : good);
    run_together(a, 4);
    assert_int_equal(a[0].got.done.code, XI_ENOMEM);
    assert_int_equal(a[0].got.done.n_parts, 0);
    for (int i = 1; i < 4; i++)
        must_hold(&a[i], 0, good, 16);
    /* One that breaks the engine ends the host, and nobody of its batch is answered. */
    set(&a[0], 1, 4, fatal);
    for (int i = 0; i < 4; i++)
        q[i] = a[i].q;
    raw_submit(r, 0, XI_WORK_ALL, 1, q, 4);
    assert_int_equal(raw_end(r), XI_EXIT_ENGINE_BROKEN);
    assert_false(raw_answer(r, 0, &d, 0));
    raw_clean(r);
}

/* Axis 0 of the output is free and no batch: each runs alone then. */
static void what_cannot_be_cut_runs_alone(void **state)
{
    struct xi_msg_load load = load_of(8);
    static struct asked a[3];

    (void)state;
    start();
    raw_package(r, "nz", "xref 1\ninput x FP32 [-1,4]\noutput y INT64 [-1,-1]\ny = nonzero x\n", "",
                NULL);
    assert_int_equal(raw_load(r, "nz", &load)->max_batch, 8);
    set(&a[0], 1, 4, (float[]){0, 1, 0, 0});
    set(&a[1], 1, 4, (float[]){1, 1, 0, 0});
    set(&a[2], 1, 4, (float[]){0, 0, 0, 9});
    run_together(a, 3);
    must_hold(&a[0], 0, (int64_t[]){0, 1}, 16);
    must_hold(&a[1], 0, (int64_t[]){0, 0, 0, 1}, 32);
    must_hold(&a[2], 0, (int64_t[]){0, 3}, 16);
    raw_close(r);
}

static uint32_t random_below(uint32_t *seed, uint32_t n)
{
    *seed = *seed * 1664525u + 1013904223u;
    return (*seed >> 8) % n;
}

/* Random batches, some of their requests wrong, against the same requests one by one: equal bit for
 * bit. */
static void batches_answer_what_their_requests_alone_answer(void **state)
{
    struct xi_msg_load load = load_of(16);
    static struct asked a[16], alone;
    uint32_t seed = 4711;

    (void)state;
    start();
    raw_package(r, "mixer", mixer, "", NULL);
    (void)raw_load(r, "mixer", &load);
    for (int round = 0; round < 150; round++) {
        uint32_t n = 1 + random_below(&seed, 16);
        for (uint32_t i = 0; i < n; i++) {
            float v[20];
            for (int k = 0; k < 20; k++)
                v[k] = (float)random_below(&seed, 1000) / 250.0f - 2;
            set(&a[i], 1 + random_below(&seed, 4), random_below(&seed, 10) == 0 ? 5 : 4, v);
        }
        run_together(a, n);
        for (uint32_t i = 0; i < n; i++) {
            alone = a[i];
            alone.q.head.id = ++next_id;
            alone.q.parts = alone.parts;
            run_together(&alone, 1);
            assert_int_equal(a[i].got.done.code, alone.got.done.code);
            for (uint32_t p = 0; p < alone.got.done.n_parts; p++)
                must_hold(&a[i], p, raw_data(r, &alone.got, p), alone.got.parts[p].mem.bytes);
            release(&alone, 1);
        }
        release(a, n);
    }
    raw_close(r);
}

/* Slots are used again and again by requests of different owners; some fail between. Whatever an
 * answer names is its own owner's. */
static void no_byte_of_anothers_shows(void **state)
{
    struct xi_msg_load load = load_of(8);
    static struct asked a[8];
    uint32_t seed = 42;

    (void)state;
    start();
    raw_package(r, "copy", HEAD "y = copy x\nfault fail no-memory when 66\n", "", NULL);
    (void)raw_load(r, "copy", &load);
    for (int round = 0; round < 200; round++) {
        uint32_t n = 1 + random_below(&seed, 8);
        for (uint32_t i = 0; i < n; i++) {
            float canary = (float)(round * 8 + (int)i + 1000), v[64];
            for (int k = 0; k < 64; k++)
                v[k] = canary;
            if (i == 0 && round % 7 == 0)
                v[0] = 66;
            set(&a[i], 1 + random_below(&seed, 16), random_below(&seed, 9) == 0 ? 3 : 4, v);
        }
        run_together(a, n);
        for (uint32_t i = 0; i < n; i++)
            if (a[i].got.done.code == XI_OK)
                must_hold(&a[i], 0, (const uint8_t *)r->input.base + a[i].parts[0].mem.offset,
                          a[i].parts[0].mem.bytes);
            else
                assert_int_equal(a[i].got.done.n_parts, 0);
        release(a, n);
    }
    assert_true(r->n_outputs <= 2); /* what failed gave its places back */
    raw_close(r);
}

/* ---- through a flow ---- */

static const char flow[] =
    "{\"steps\": [{\"op\": \"from_bytes\", \"in\": \"input\", \"out\": \"b\", \"dtype\": \"UINT8\","
    " \"shape\": [1,4]}, {\"op\": \"normalise\", \"in\": \"b\", \"out\": \"f\"},"
    " {\"op\": \"infer\", \"in\": \"f\", \"out\": \"y\"}], \"output\": {\"tensors\": [\"y\"]}}";
static const char *const with_flow[] = {"flow.json", flow, NULL};

static void set_bytes(struct asked *a, const uint8_t *bytes, size_t n)
{
    a->parts[0] = raw_bytes(r, bytes, n);
    a->q = (struct raw_request){.head = {.id = ++next_id, .want = XI_ANSWER_JSON, .n_parts = 1},
                                .parts = a->parts};
}

static void flows_write_their_rows_into_the_batch(void **state)
{
    struct xi_msg_load load = load_of(8);
    static struct asked a[6];
    char text[160];

    (void)state;
    start();
    raw_package(r, "flow", HEAD "y = mul x 2\n", "", with_flow);
    assert_int_equal(raw_load(r, "flow", &load)->max_batch, 8);
    for (int round = 0; round < 3; round++) {
        for (uint8_t i = 0; i < 6; i++) /* the third is too short */
            set_bytes(&a[i], (uint8_t[]){i, (uint8_t)(10 * round), 7, 9}, i == 2 ? 3 : 4);
        run_together(a, 6);
        for (int i = 0; i < 6; i++) {
            if (i == 2) {
                assert_int_equal(a[i].got.done.code, XI_ETENSOR);
                continue;
            }
            (void)snprintf(text, sizeof text,
                           "{\"tensors\":[{\"name\":\"y\",\"datatype\":\"FP32\",\"shape\":[1,4],"
                           "\"data\":[%d,%d,14,18]}]}",
                           2 * i, 20 * round);
            must_hold(&a[i], 0, text, strlen(text));
            assert_int_equal(a[i].got.parts[0].kind, XI_PART_JSON);
            assert_int_equal(a[i].got.done.batch, 5);
            if (round > 0) /* only the answer itself */
                assert_int_equal(a[i].got.done.copied_bytes, strlen(text));
        }
        release(a, 6);
    }
    raw_close(r);
}

static void flows_and_tensors_may_share_a_run(void **state)
{
    struct xi_msg_load load = load_of(8);
    static struct asked a[3];
    static const char text[] =
        "{\"tensors\":[{\"name\":\"y\",\"datatype\":\"FP32\",\"shape\":[1,4],"
        "\"data\":[2,4,6,8]}]}";

    (void)state;
    start();
    raw_package(r, "flow", HEAD "y = mul x 2\n", "", with_flow);
    (void)raw_load(r, "flow", &load);
    set_bytes(&a[0], (uint8_t[]){1, 2, 3, 4}, 4);
    set(&a[1], 2, 4, (float[]){1, 2, 3, 4, 5, 6, 7, 8});
    set_bytes(&a[2], (uint8_t[]){1, 2, 3, 4}, 4);
    run_together(a, 3);
    must_hold(&a[0], 0, text, sizeof text - 1);
    must_hold(&a[1], 0, (float[]){2, 4, 6, 8, 10, 12, 14, 16}, 32);
    must_hold(&a[2], 0, text, sizeof text - 1);
    assert_int_equal(a[1].got.done.batch, 4);
    raw_close(r);
}

/* ---- state ---- */

#define SUMMING                                                                                    \
    "xref 1\ninput x FP32 [-1,2]\ninput h FP32 [-1,2]\noutput y FP32 [-1,2]\n"                     \
    "output g FP32 [-1,2]\ng = add h x\ny = mul g 10\n"
#define ITS_STATE                                                                                  \
    "\"signature\": {\"inputs\": [{\"name\": \"h\", \"dtype\": \"FP32\", \"shape\": [-1,2]},"      \
    " {\"name\": \"x\", \"dtype\": \"FP32\", \"shape\": [-1,2]}], \"outputs\": ["                  \
    "{\"name\": \"g\", \"dtype\": \"FP32\", \"shape\": [-1,2]},"                                   \
    " {\"name\": \"y\", \"dtype\": \"FP32\", \"shape\": [-1,2]}]}, \"state\": [{\"input\": \"h\"," \
    " \"output\": \"g\", \"dtype\": \"FP32\", \"shape\": [1,2]%s}], "

static void start_summing(const char *initial, const char *const *files, uint32_t max_batch,
                          struct xi_msg_loaded *ret)
{
    char more[1024];
    struct xi_msg_load load = load_of(max_batch);

    start();
    (void)snprintf(more, sizeof more, ITS_STATE, initial);
    raw_package(r, "sum", SUMMING, more, files);
    const struct xi_msg_loaded *m = raw_load(r, "sum", &load);
    struct xi_msg_port port = xi_msg_state(m, 0);
    assert_int_equal(m->n_states, 1);
    assert_int_equal(m->n_inputs, 1); /* without the state */
    assert_int_equal(m->n_outputs, 1);
    assert_int_equal(m->stateful, XI_STATE_EXPLICIT);
    assert_string_equal(port.name, "h");
    assert_int_equal(port.rank, 2);
    assert_int_equal(port.dims[0], 1);
    *ret = *m;
}

/* state NULL: from the start. */
static void set_step(struct asked *a, const float *x, const float *with_state)
{
    int64_t dims[2] = {1, 2};

    set(a, 1, 2, x);
    if (with_state == NULL) {
        a->q.head.flags = XI_WORK_START;
        return;
    }
    a->parts[1] = raw_floats(r, 0, dims, 2, with_state);
    a->q.head.n_parts = 2;
    a->q.head.n_state = 1;
}

static void state_goes_out_and_comes_in_again(void **state)
{
    struct xi_msg_loaded m;
    static struct asked a;
    float h[2] = {0, 0};

    (void)state;
    start_summing("", NULL, 1, &m);
    for (int i = 1; i <= 10; i++) {
        set_step(&a, (float[]){1, (float)i}, i == 1 ? NULL : h);
        run_together(&a, 1);
        assert_int_equal(a.got.done.n_parts, 2);
        assert_int_equal(a.got.done.n_state, 1);
        float sum = (float)(i * (i + 1) / 2);
        must_hold(&a, 0, (float[]){10 * (float)i, 10 * sum}, 8);
        must_hold(&a, 1, (float[]){(float)i, sum}, 8);
        memcpy(h, raw_data(r, &a.got, 1), sizeof h);
        release(&a, 1);
    }
    set_step(&a, h, h); /* neither begun nor continued, and one too many */
    a.q.head.n_parts = 1;
    a.q.head.n_state = 0;
    run_together(&a, 1);
    assert_int_equal(a.got.done.code, XI_ETENSOR);
    set_step(&a, h, h);
    a.q.head.flags = XI_WORK_START;
    run_together(&a, 1);
    assert_int_equal(a.got.done.code, XI_ETENSOR);
    raw_close(r);
}

/* Kept by the engine: each lane has its own, a start forgets it, an error leaves it. */
static void hidden_state_stays_in_its_lane(void **state)
{
    struct xi_msg_load load = {.session = 1, .lane_count = 2, .max_batch = 8};
    static struct asked a;

    (void)state;
    start();
    raw_package(r, "hidden",
                "xref 1\ninput x FP32 [-1,4]\nhidden h FP32 [1,4] g\noutput y FP32 [-1,4]\n"
                "g = add h x\ny = copy g\nfault fail no-memory when 66\n",
                "", NULL);
    const struct xi_msg_loaded *m = raw_load(r, "hidden", &load);
    assert_int_equal(m->stateful, XI_STATE_HIDDEN);
    assert_int_equal(m->n_states, 0);
    assert_int_equal(m->max_batch, 1);
    for (int i = 1; i <= 6; i++) {
        set(&a, 1, 4, (float[]){1, 2, (float)i, 0});
        a.q.head.flags = i == 1 || i == 4 ? XI_WORK_START : 0;
        run_together(&a, 1);
        int first = i < 4 ? 1 : 4, n = i - first + 1;
        must_hold(&a, 0, (float[]){(float)n, (float)(2 * n), (float)((first + i) * n) / 2, 0}, 16);
        release(&a, 1);
        set(&a, 1, 4, (float[]){66, 9, 9, 9});
        run_together(&a, 1);
        assert_int_equal(a.got.done.code, XI_ENOMEM);
    }
    raw_close(r);
}

static void first_state_can_be_a_file(void **state)
{
    /* 2.0f and 3.0f; the file ends where its first zero byte would be, so no zeros. */
    static const char *const files[] = {"assets/h0", "\xcd\xcc\x0c\x40\x33\x33\x4b\x40", NULL};
    struct xi_msg_loaded m;
    static struct asked a;

    (void)state;
    start_summing(", \"initial\": \"assets/h0\"", files, 1, &m);
    set_step(&a, (float[]){1, 1}, NULL);
    run_together(&a, 1);
    must_hold(&a, 1, (float[]){2.2f + 1, 3.175f + 1}, 8);
    raw_close(r);
}

static void sequences_share_a_run_and_keep_their_state(void **state)
{
    struct xi_msg_loaded m;
    static struct asked a[4];
    float h[4][2] = {{0}};

    (void)state;
    start_summing("", NULL, 8, &m);
    assert_int_equal(m.max_batch, 8);
    for (int step = 1; step <= 20; step++) {
        for (int i = 0; i < 4; i++)
            set_step(&a[i], (float[]){(float)i, 1},
                     step == 1 || (i == 3 && step == 9) ? NULL : h[i]);
        run_together(a, 4);
        for (int i = 0; i < 4; i++) {
            int steps = i == 3 && step >= 9 ? step - 8 : step;
            float want[2] = {(float)(i * steps), (float)steps};
            must_hold(&a[i], 1, want, 8);
            assert_int_equal(a[i].got.done.batch, 4);
            memcpy(h[i], raw_data(r, &a[i].got, 1), sizeof h[i]);
        }
        release(a, 4);
    }
    raw_close(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(loaded_says_how_many_may_share),
        cmocka_unit_test(largest_shapes_name_inputs_of_the_model),
        cmocka_unit_test(one_gather_and_a_place_for_each),
        cmocka_unit_test(unequal_shapes_run_apart),
        cmocka_unit_test(wrong_ones_fail_alone),
        cmocka_unit_test(error_of_the_run_is_its_own),
        cmocka_unit_test(what_cannot_be_cut_runs_alone),
        cmocka_unit_test(batches_answer_what_their_requests_alone_answer),
        cmocka_unit_test(no_byte_of_anothers_shows),
        cmocka_unit_test(flows_write_their_rows_into_the_batch),
        cmocka_unit_test(flows_and_tensors_may_share_a_run),
        cmocka_unit_test(state_goes_out_and_comes_in_again),
        cmocka_unit_test(hidden_state_stays_in_its_lane),
        cmocka_unit_test(first_state_can_be_a_file),
        cmocka_unit_test(sequences_share_a_run_and_keep_their_state),
    };
    return cmocka_run_group_tests_name("batch", tests, NULL, NULL);
}
