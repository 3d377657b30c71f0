/* Whole runs: what is answered, what is refused, and that steady work takes no memory. */
#include "flow/testing.h"

/* Every allocation of the room's own code passes here (the linker wraps them); what libjpeg takes
 * for one picture and gives back is its own. */
static long allocations, fail_at = -1; /* the one that fails; -1: none */
void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t n);
void *__real_aligned_alloc(size_t alignment, size_t n);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t n);
void *__wrap_aligned_alloc(size_t alignment, size_t n);

void *__wrap_malloc(size_t n)
{
    if (allocations++ == fail_at)
        return NULL;
    return __real_malloc(n);
}

void *__wrap_calloc(size_t n, size_t size)
{
    if (allocations++ == fail_at)
        return NULL;
    return __real_calloc(n, size);
}

void *__wrap_realloc(void *p, size_t n)
{
    if (allocations++ == fail_at)
        return NULL;
    return __real_realloc(p, n);
}

void *__wrap_aligned_alloc(size_t alignment, size_t n)
{
    if (allocations++ == fail_at)
        return NULL;
    return __real_aligned_alloc(alignment, n);
}

static const char detector[] =
    "{\"steps\":[{\"op\":\"decode_image\",\"in\":\"input\",\"out\":\"photo\"},"
    "{\"op\":\"resize\",\"in\":\"photo\",\"out\":\"small\",\"width\":48,\"height\":48,"
    "\"filter\":\"area-bilinear\",\"mode\":\"letterbox\"},"
    "{\"op\":\"to_tensor\",\"in\":\"small\",\"out\":\"x\",\"mean\":127.5,\"std\":127.5,"
    "\"layout\":\"NCHW\"},"
    "{\"op\":\"infer\",\"in\":\"x\",\"out\":[\"boxes\",\"logits\"]},"
    "{\"op\":\"sigmoid\",\"in\":\"logits\",\"out\":\"scores\"},"
    "{\"op\":\"nms\",\"in\":[\"boxes\",\"scores\",\"small\"],\"out\":\"d\","
    "\"labels\":\"assets/labels.txt\"},"
    "{\"op\":\"draw\",\"in\":[\"photo\",\"d\"],\"out\":\"drawn\"}],"
    "\"output\":{\"detections\":\"d\",\"picture\":\"drawn\"}}";

struct bench {
    struct xi_flow *flow;
    struct xi_flow_run *run;
    struct test_outputs outputs;
    struct xi_flow_engine engine;
    struct xi_str json, picture;
    struct xi_err err;
    float boxes[12], logits[6];
};

static int setup(void **state)
{
    struct bench *b = calloc(1, sizeof *b);
    const float boxes[] = {0.1f, 0.1f, 0.5f, 0.5f, 0.2f, 0.4f, 0.9f, 0.8f, 0, 0, 1, 1};
    const float logits[] = {3, -3, -2, 2, -1, -1};
    const int64_t bd[] = {1, 3, 4}, sd[] = {1, 3, 2};

    memcpy(b->boxes, boxes, sizeof boxes);
    memcpy(b->logits, logits, sizeof logits);
    b->outputs = (struct test_outputs){.n = 2};
    b->outputs.at[0] = xi_tensor_make(XI_DT_FP32, bd, 3, b->boxes, sizeof b->boxes);
    b->outputs.at[1] = xi_tensor_make(XI_DT_FP32, sd, 3, b->logits, sizeof b->logits);
    b->engine = (struct xi_flow_engine){.ctx = &b->outputs, .infer = test_infer};
    xi_str_init(&b->json, XI_MIB);
    xi_str_init(&b->picture, 16 * XI_MIB);
    if (test_parse(detector, "cat\ndog\n", &b->flow, &b->err) != XI_OK)
        return -1;
    b->run = xi_flow_run_new(b->flow);
    *state = b;
    return b->run == NULL;
}

static int teardown(void **state)
{
    struct bench *b = *state;

    xi_flow_run_free(b->run);
    xi_flow_free(b->flow);
    xi_str_fini(&b->json);
    xi_str_fini(&b->picture);
    free(b);
    return 0;
}

static enum xi_rc execute(struct bench *b, const void *input, size_t bytes, unsigned want)
{
    struct xi_flow_timing timing;

    xi_str_clear(&b->json);
    xi_str_clear(&b->picture);
    return xi_flow_execute(b->run, &b->engine, input, bytes, want, &b->json, &b->picture, &timing,
                           &b->err);
}

static void steady_work_takes_no_memory(void **state)
{
    struct bench *b = *state;
    struct xi_str jpeg = test_jpeg(320, 200), other = test_jpeg(319, 240);
    unsigned both = XI_ANSWER_JSON | XI_ANSWER_PICTURE;

    assert_int_equal(execute(b, jpeg.data, jpeg.len, both), XI_OK);
    assert_int_equal(execute(b, other.data, other.len, both), XI_OK);
    assert_true(allocations > 0); /* the counter counts */
    long before = allocations;
    for (int i = 0; i < 20; i++) {
        const struct xi_str *s = i % 2 ? &jpeg : &other;
        assert_int_equal(execute(b, s->data, s->len, both), XI_OK);
    }
    assert_int_equal(allocations, before);
    xi_str_fini(&jpeg);
    xi_str_fini(&other);
}

/* Taken apart, two requests at a time, a flow answers what it answers in one piece; the model's
 * input is made where it is wanted. */
static void pieces_answer_what_the_whole_answers(void **state)
{
    struct bench *b = *state;
    struct xi_str jpegs[2] = {test_jpeg(320, 200), test_jpeg(100, 300)};
    struct xi_flow_run *runs[2] = {xi_flow_run_new(b->flow), xi_flow_run_new(b->flow)};
    struct xi_tensor in[XI_TENSORS_MAX];
    struct xi_str json;
    uint8_t *batch = NULL;

    xi_str_init(&json, XI_MIB);
    assert_true(xi_flow_in_pieces(b->flow));
    assert_string_equal(xi_flow_model(b->flow), "main");
    for (int i = 0; i < 2; i++) { /* the first says what shape it is */
        assert_int_equal(xi_flow_pre(runs[0], jpegs[0].data, jpegs[0].len, XI_ANSWER_JSON, &b->err),
                         XI_OK);
        assert_int_equal(xi_flow_inputs(runs[0], in), 1);
    }
    uint64_t bytes = in[0].bytes;
    batch = calloc(1, 2 * bytes + 64);
    memcpy(batch, in[0].data, bytes);
    for (int i = 1; i >= 0; i--) {
        struct xi_tensor row = in[0], other = in[0];
        row.data = batch + (uint64_t)i * bytes;
        xi_flow_place(runs[i], 0, &row);
        assert_int_equal(xi_flow_pre(runs[i], jpegs[i].data, jpegs[i].len, XI_ANSWER_JSON, &b->err),
                         XI_OK);
        (void)xi_flow_inputs(runs[i], in);
        assert_ptr_equal(in[0].data, row.data);
        other.dims[1]++; /* another shape: not there */
        other.data = batch;
        if (i == 0)
            xi_flow_place(runs[i], 0, &other);
    }
    for (int i = 0; i < 2; i++) {
        assert_int_equal(xi_flow_outputs(runs[i], b->outputs.at, 1, 0, &b->err), XI_EFLOW);
        assert_int_equal(xi_flow_outputs(runs[i], b->outputs.at, 2, i, &b->err), XI_OK);
    }
    for (int i = 0; i < 2; i++) {
        xi_str_clear(&json);
        assert_int_equal(xi_flow_post(runs[i], &json, NULL, &b->err), XI_OK);
        assert_int_equal(execute(b, jpegs[i].data, jpegs[i].len, XI_ANSWER_JSON), XI_OK);
        assert_int_equal(json.len, b->json.len);
        assert_memory_equal(json.data, b->json.data, json.len);
        xi_flow_run_free(runs[i]);
        xi_str_fini(&jpegs[i]);
    }
    xi_str_fini(&json);
    free(batch);
}

static void the_answer_is_what_was_asked_for(void **state)
{
    struct bench *b = *state;
    struct xi_str jpeg = test_jpeg(480, 480);

    assert_int_equal(execute(b, jpeg.data, jpeg.len, XI_ANSWER_JSON), XI_OK);
    assert_string_equal(
        xi_str_text(&b->json),
        "{\"detections\":["
        "{\"label\":\"cat\",\"class\":0,\"score\":0.9526,\"box\":[48,48,240,240]},"
        "{\"label\":\"dog\",\"class\":1,\"score\":0.8808,\"box\":[96,192,432,384]}]}");
    assert_int_equal(b->picture.len, 0);
    assert_int_equal(execute(b, jpeg.data, jpeg.len, XI_ANSWER_JSON | XI_ANSWER_TENSORS), XI_OK);
    assert_non_null(strstr(b->json.data, "{\"name\":\"boxes\",\"datatype\":\"FP32\","
                                         "\"shape\":[1,3,4],\"data\":[0.1"));
    assert_int_equal(execute(b, jpeg.data, jpeg.len, XI_ANSWER_PICTURE), XI_OK);
    assert_int_equal(b->json.len, 0);
    assert_memory_equal(b->picture.data, "\xff\xd8\xff", 3);
    xi_str_fini(&jpeg);
}

/* What is asked for must not change what is found: drawing decodes anew. */
static void drawing_changes_no_detection(void **state)
{
    struct bench *b = *state;
    struct xi_str jpeg = test_jpeg(640, 480);
    float seen[48 * 48 * 3];

    assert_int_equal(execute(b, jpeg.data, jpeg.len, XI_ANSWER_JSON), XI_OK);
    assert_int_equal(b->outputs.last_input.bytes, sizeof seen);
    memcpy(seen, b->outputs.last_input.data, sizeof seen);
    assert_int_equal(execute(b, jpeg.data, jpeg.len, XI_ANSWER_JSON | XI_ANSWER_PICTURE), XI_OK);
    assert_memory_equal(seen, b->outputs.last_input.data, sizeof seen);
    xi_str_fini(&jpeg);
}

static void a_bad_picture_reaches_no_model(void **state)
{
    struct bench *b = *state;

    assert_int_equal(execute(b, "not a picture", 13, XI_ANSWER_JSON), XI_EIMAGE);
    assert_string_equal(b->err.hint, "send a JPEG or a PNG");
    assert_int_equal(execute(b, NULL, 0, XI_ANSWER_JSON), XI_EIMAGE);
    assert_int_equal(b->outputs.calls, 0);
    struct xi_str jpeg = test_jpeg(40, 30);
    assert_int_equal(execute(b, jpeg.data, jpeg.len, XI_ANSWER_JSON), XI_OK);
    xi_str_fini(&jpeg);
}

static void what_an_engine_answers_is_checked(void **state)
{
    struct bench *b = *state;
    struct xi_str jpeg = test_jpeg(40, 30);
    struct xi_tensor good = b->outputs.at[0];

    b->outputs.at[0].bytes = 44;
    assert_int_equal(execute(b, jpeg.data, jpeg.len, XI_ANSWER_JSON), XI_EENGINE);
    assert_non_null(strstr(b->err.msg, "\"boxes\" has 44 bytes where its shape needs 48"));
    b->outputs.at[0] = good;
    b->outputs.at[0].rank = 99;
    assert_int_equal(execute(b, jpeg.data, jpeg.len, XI_ANSWER_JSON), XI_EENGINE);
    b->outputs.at[0] = good;
    b->outputs.at[0].dims[1] = 2; /* fits nobody's count of scores */
    b->outputs.at[0].bytes = 32;
    assert_int_equal(execute(b, jpeg.data, jpeg.len, XI_ANSWER_JSON), XI_EFLOW);
    assert_string_equal(b->err.msg, "step 5 (nms): \"scores\" has 3 rows for 2 boxes");
    b->outputs.at[0] = good;
    b->outputs.at[1].dtype = XI_DT_INT32;
    assert_int_equal(execute(b, jpeg.data, jpeg.len, XI_ANSWER_JSON), XI_EFLOW);
    assert_string_equal(b->err.msg, "step 4 (sigmoid): \"logits\" is INT32, wanted is FP32");
    xi_str_fini(&jpeg);
}

static void infinite_boxes_are_no_detections(void **state)
{
    struct bench *b = *state;
    struct xi_str jpeg = test_jpeg(480, 480);

    b->boxes[0] = __builtin_nanf("");
    b->boxes[6] = __builtin_inff();
    assert_int_equal(execute(b, jpeg.data, jpeg.len, XI_ANSWER_JSON | XI_ANSWER_PICTURE), XI_OK);
    assert_string_equal(xi_str_text(&b->json), "{\"detections\":[]}");
    xi_str_fini(&jpeg);
}

static void a_flow_that_cannot_draw_says_so(void **state)
{
    struct bench *b = *state;
    struct xi_flow *flow = NULL;
    float x = 1;

    assert_int_equal(test_parse("{\"steps\":[{\"op\":\"from_bytes\",\"in\":\"input\",\"out\":\"x\","
                                "\"dtype\":\"FP32\",\"shape\":[1]}],\"output\":{\"tensors\":"
                                "\"x\"}}",
                                NULL, &flow, &b->err),
                     XI_OK);
    struct xi_flow_run *run = xi_flow_run_new(flow);
    assert_int_equal(
        xi_flow_execute(run, NULL, &x, 4, XI_ANSWER_PICTURE, &b->json, &b->picture, NULL, &b->err),
        XI_EUNSUPPORTED);
    assert_int_equal(
        xi_flow_execute(run, NULL, &x, 3, XI_ANSWER_JSON, &b->json, NULL, NULL, &b->err),
        XI_ETENSOR);
    assert_non_null(strstr(b->err.msg, "3 bytes were sent, a FP32 tensor [1] has 4"));
    xi_flow_run_free(run);
    xi_flow_free(flow);
}

/* Every allocation of a whole life fails once; each time there is an error and nothing is lost
 * (AddressSanitizer watches). */
static void running_out_of_memory_anywhere_is_an_error(void **state)
{
    struct bench *b = *state;
    struct xi_str jpeg = test_jpeg(120, 90);
    int done = 0, refused = 0;

    for (long n = 0; !done; n++) {
        struct xi_flow *flow = NULL;
        struct xi_err err = {0};
        struct xi_str json, picture;
        xi_str_init(&json, XI_MIB);
        xi_str_init(&picture, XI_MIB);
        allocations = 0;
        fail_at = n;
        enum xi_rc rc = test_parse(detector, "cat\ndog\n", &flow, &err);
        struct xi_flow_run *run = rc == XI_OK ? xi_flow_run_new(flow) : NULL;
        if (run != NULL)
            rc = xi_flow_execute(run, &b->engine, jpeg.data, jpeg.len,
                                 XI_ANSWER_JSON | XI_ANSWER_PICTURE, &json, &picture, NULL, &err);
        fail_at = -1;
        done = allocations <= n; /* none failed any more */
        assert_true(rc == XI_OK || err.msg[0] != '\0');
        assert_true(!done || (run != NULL && rc == XI_OK));
        refused += run == NULL || rc != XI_OK;
        xi_flow_run_free(run);
        xi_flow_free(flow);
        xi_str_fini(&json);
        xi_str_fini(&picture);
    }
    assert_true(refused > 15);
    xi_str_fini(&jpeg);
}

/* Without a picture to map them to, boxes are as the model says; drawing them must not overflow. */
static void boxes_far_outside_are_drawn(void **state)
{
    struct bench *b = *state;
    struct xi_str jpeg = test_jpeg(40, 30);
    struct xi_flow *flow = NULL;
    char text[sizeof detector];
    const float far[] = {-3e38f, -3e38f, 3e38f, 3e38f, 2147483520.0f, 5, 2147483648.0f, 9};

    memcpy(text, detector, sizeof detector);
    memcpy(strstr(text, ",\"small\"],\"out\":\"d\""), "],\"out\":\"d\"        ", 19);
    assert_int_equal(test_parse(text, "cat\ndog\n", &flow, &b->err), XI_OK);
    struct xi_flow_run *run = xi_flow_run_new(flow);
    memcpy(b->boxes, far, sizeof far);
    assert_int_equal(xi_flow_execute(run, &b->engine, jpeg.data, jpeg.len,
                                     XI_ANSWER_JSON | XI_ANSWER_PICTURE, &b->json, &b->picture,
                                     NULL, &b->err),
                     XI_OK);
    assert_non_null(strstr(b->json.data, "\"label\":\"dog\""));
    assert_memory_equal(b->picture.data, "\xff\xd8\xff", 3);
    xi_flow_run_free(run);
    xi_flow_free(flow);
    xi_str_fini(&jpeg);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(steady_work_takes_no_memory),       CASE(pieces_answer_what_the_whole_answers),
        CASE(the_answer_is_what_was_asked_for),  CASE(drawing_changes_no_detection),
        CASE(a_bad_picture_reaches_no_model),    CASE(boxes_far_outside_are_drawn),
        CASE(what_an_engine_answers_is_checked), CASE(infinite_boxes_are_no_detections),
        CASE(a_flow_that_cannot_draw_says_so),   CASE(running_out_of_memory_anywhere_is_an_error),
    };

    return cmocka_run_group_tests_name("flow/run", tests, NULL, NULL);
}
