#include "flow/testing.h"

#define DECODE "{\"op\":\"decode_image\",\"in\":\"input\",\"out\":\"photo\"}"
#define RESIZE                                                                                     \
    "{\"op\":\"resize\",\"in\":\"photo\",\"out\":\"small\",\"width\":8,\"height\":4,"              \
    "\"filter\":\"nearest\"}"
#define TENSOR "{\"op\":\"to_tensor\",\"in\":\"small\",\"out\":\"x\"}"
#define INFER  "{\"op\":\"infer\",\"in\":\"x\",\"out\":\"y\"}"
#define HEAD   "{\"steps\":[" DECODE "," RESIZE "," TENSOR
#define TAIL   "],\"output\":{\"tensors\":\"x\"}}"

struct refusal {
    const char *json, *says, *hints;
};

static const struct refusal refusals[] = {
    {"", "flow: line 1", ""},
    {"[]", "must be a JSON object", ""},
    {"{\"steps\":[],\"output\":{}}", "flow has 0 steps, allowed are 1 to 256", ""},
    {"{\"step\":[]}", "unknown key \"step\"", "did you mean \"steps\"?"},
    {"{\"steps\":[{\"op\":\"decode_imag\",\"in\":\"input\",\"out\":\"p\"}],\"output\":{}}",
     "step 0: there is no step \"decode_imag\"", "did you mean \"decode_image\"?"},
    {"{\"steps\":[7],\"output\":{}}", "step 0: must be an object", ""},
    {"{\"steps\":[{\"op\":\"sigmoid\",\"in\":\"a\",\"out\":\"a\"}],\"output\":{}}",
     "step 0 (sigmoid): \"a\" is this step's own output", ""},
    {"{\"steps\":[{\"op\":\"sigmoid\",\"in\":\"b\",\"out\":\"a\"},"
     "{\"op\":\"sigmoid\",\"in\":\"a\",\"out\":\"b\"}],\"output\":{}}",
     "step 0 (sigmoid): \"b\" is made only by step 1: steps run in list order, so a flow has no "
     "cycles",
     ""},
    {HEAD ",{\"op\":\"infer\",\"in\":\"smal\",\"out\":\"y\"}" TAIL,
     "step 3 (infer): no step makes \"smal\"", "did you mean \"small\"?"},
    {HEAD ",{\"op\":\"infer\",\"in\":\"x\",\"out\":\"small\"}" TAIL,
     "step 3 (infer): \"small\" is made twice: step 1 makes it already", ""},
    {HEAD ",{\"op\":\"infer\",\"in\":\"x\",\"out\":\"input\"}" TAIL,
     "step 3 (infer): \"input\" is the flow's input", ""},
    {HEAD ",{\"op\":\"infer\",\"in\":\"x\",\"out\":\"../y\"}" TAIL, "step 3 (infer): ", ""},
    {HEAD ",{\"op\":\"infer\",\"in\":\"small\",\"out\":\"y\"}" TAIL,
     "step 3 (infer): \"small\" is a picture, wanted is a tensor", ""},
    {HEAD ",{\"op\":\"to_tensor\",\"in\":\"x\",\"out\":\"z\"}" TAIL,
     "step 3 (to_tensor): \"x\" is a tensor, wanted is a picture", ""},
    {HEAD ",{\"op\":\"cast\",\"in\":\"x\",\"out\":\"z\",\"dtype\":\"UINT8\"},"
          "{\"op\":\"softmax\",\"in\":\"z\",\"out\":\"s\"}" TAIL,
     "step 4 (softmax): \"z\" is UINT8, wanted is FP32", ""},
    {HEAD ",{\"op\":\"top_k\",\"in\":\"x\",\"out\":\"t\",\"k\":0}" TAIL,
     "step 3 (top_k): k is 0, allowed is 1 to 1000", ""},
    {HEAD ",{\"op\":\"top_k\",\"in\":\"x\",\"out\":\"t\",\"treshold\":0}" TAIL,
     "step 3 (top_k): unknown key \"treshold\"", "did you mean \"threshold\"?"},
    {HEAD ",{\"op\":\"top_k\",\"in\":\"x\",\"out\":\"t\",\"labels\":\"nope.txt\"}" TAIL,
     "step 3 (top_k): the package has no nope.txt", ""},
    {HEAD ",{\"op\":\"nms\",\"in\":[\"x\",\"x\"],\"out\":\"t\"}" TAIL,
     "step 3 (nms): \"x\" is [1,4,8,3], wanted is [n,4] or [1,n,4]", ""},
    {HEAD ",{\"op\":\"nms\",\"in\":\"x\",\"out\":\"t\"}" TAIL,
     "step 3 (nms): \"in\" has 1 names, this step takes 2 to 3", ""},
    {HEAD ",{\"op\":\"normalise\",\"in\":\"x\",\"out\":\"t\",\"mean\":[1,2]}" TAIL,
     "step 3 (normalise): \"x\" has 3 channels, mean or scale have 2", ""},
    {HEAD ",{\"op\":\"normalise\",\"in\":\"x\",\"out\":\"t\",\"std\":0}" TAIL,
     "step 3 (normalise): std is 0", ""},
    {HEAD ",{\"op\":\"ssd_decode\",\"in\":\"x\",\"out\":\"t\",\"width\":16000,\"height\":16000,"
          "\"strides\":1}" TAIL,
     "step 3 (ssd_decode): over 262144 anchors", ""},
    {HEAD "],\"output\":{\"detections\":\"x\"}}", "output: \"x\" is a tensor, wanted is detections",
     ""},
    {HEAD "],\"output\":{}}", "output: names no value", ""},
    {HEAD "],\"output\":{\"tensor\":\"x\"}}", "output: unknown key \"tensor\"",
     "did you mean \"tensors\"?"},
    {"{\"steps\":[" DECODE ",{\"op\":\"resize\",\"in\":\"photo\",\"out\":\"s\",\"width\":8,"
     "\"height\":4,\"filter\":\"bilinea\"}" TAIL,
     "step 1 (resize): filter cannot be \"bilinea\"", "did you mean \"bilinear\"?"},
    {"{\"steps\":[" DECODE ",{\"op\":\"resize\",\"in\":\"photo\",\"out\":\"s\",\"width\":5000,"
     "\"height\":4,\"filter\":\"nearest\"}" TAIL,
     "step 1 (resize): width is 5000, allowed is 1 to 4096", ""},
    {"{\"steps\":[" DECODE ",{\"op\":\"resize\",\"in\":\"photo\",\"out\":\"s\",\"width\":8,"
     "\"height\":4,\"filter\":\"nearest\",\"pad\":3}" TAIL,
     "step 1 (resize): pad is for mode \"letterbox\" only", ""},
};

static void each_refusal_names_the_step_and_the_value(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof refusals / sizeof refusals[0]; i++) {
        struct xi_flow *flow = NULL;
        struct xi_err err = {0};
        enum xi_rc rc = test_parse(refusals[i].json, "a\nb\n", &flow, &err);
        if (rc != XI_EFLOW || err.rc != XI_EFLOW || strstr(err.msg, refusals[i].says) == NULL ||
            strcmp(err.hint, refusals[i].hints) != 0)
            fail_msg("%s\n  said %d: %s (%s)", refusals[i].json, rc, err.msg, err.hint);
        assert_null(flow);
    }
}

static void a_hundred_thousand_steps_are_refused(void **state)
{
    struct xi_str s;
    struct xi_flow *flow = NULL;
    struct xi_err err = {0};

    (void)state;
    xi_str_init(&s, 8 * XI_MIB);
    xi_str_puts(&s, "{\"steps\":[");
    for (int i = 0; i < 100000; i++)
        xi_str_puts(&s, i ? ",{}" : "{}");
    xi_str_puts(&s, "]}");
    assert_int_equal(xi_flow_parse(s.data, s.len, NULL, &flow, &err), XI_EFLOW);
    assert_non_null(strstr(err.msg, "flow has 100000 steps, allowed are 1 to 256"));
    for (int i = 0; i < 200000; i++)
        xi_str_puts(&s, "        ");
    assert_int_equal(xi_flow_parse(s.data, s.len, NULL, &flow, &err), XI_EFLOW);
    assert_non_null(strstr(err.msg, "the limit is 1048576"));
    xi_str_fini(&s);
}

static void a_flow_draws_once_and_only_the_sent_picture(void **state)
{
    static const char two[] = HEAD "," INFER ",{\"op\":\"nms\",\"in\":[\"y\",\"y\"],\"out\":\"d\"},"
                                   "{\"op\":\"draw\",\"in\":[\"photo\",\"d\"],\"out\":\"p\"},"
                                   "{\"op\":\"draw\",\"in\":[\"photo\",\"d\"],\"out\":\"q\"}" TAIL;
    static const char small[] =
        HEAD "," INFER ",{\"op\":\"nms\",\"in\":[\"y\",\"y\"],\"out\":\"d\"},"
             "{\"op\":\"draw\",\"in\":[\"small\",\"d\"],\"out\":\"p\"}" TAIL;
    struct xi_flow *flow = NULL;
    struct xi_err err = {0};

    (void)state;
    assert_int_equal(test_parse(two, "", &flow, &err), XI_EFLOW);
    assert_string_equal(err.msg, "step 6 (draw): step 5 draws already, a flow draws once");
    assert_int_equal(test_parse(small, "", &flow, &err), XI_EFLOW);
    assert_non_null(strstr(err.msg, "\"small\" is not the picture that was sent"));
}

static struct xi_port_spec port(enum xi_dtype dtype, int rank, int64_t a, int64_t b, int64_t c,
                                int64_t d)
{
    return (struct xi_port_spec){
        .name = "port", .dtype = dtype, .rank = rank, .dims = {a, b, c, d}};
}

static enum xi_rc agree(const struct xi_flow *flow, struct xi_port_spec in, struct xi_port_spec out,
                        uint32_t n_out, struct xi_err *err)
{
    struct xi_signature s = {.n_inputs = 1, .n_outputs = n_out, .inputs = &in, .outputs = &out};

    return xi_flow_check_model(flow, "main", &s, err);
}

static void the_models_ports_must_agree(void **state)
{
    struct xi_flow *flow = NULL;
    struct xi_err err = {0};
    struct xi_port_spec in = port(XI_DT_FP32, 4, -1, 4, 8, 3);
    struct xi_port_spec out = port(XI_DT_FP32, 2, 1, 10, 0, 0);

    (void)state;
    assert_int_equal(test_parse(HEAD "," INFER ",{\"op\":\"top_k\",\"in\":\"y\",\"out\":\"t\"}"
                                     "],\"output\":{\"classes\":\"t\"}}",
                                "", &flow, &err),
                     XI_OK);
    assert_true(xi_flow_takes_image(flow));
    assert_false(xi_flow_draws(flow));
    assert_int_equal(agree(flow, in, out, 1, &err), XI_OK);
    assert_int_equal(agree(flow, in, out, 2, &err), XI_EFLOW);
    assert_non_null(strstr(err.msg, "step 3 (infer): model \"main\" has 2 outputs"));
    in.dims[3] = 1;
    assert_int_equal(agree(flow, in, out, 1, &err), XI_EFLOW);
    assert_non_null(
        strstr(err.msg, "\"x\" is [1,4,8,3], the model's input \"port\" is [-1,4,8,1]"));
    in = port(XI_DT_FP16, 4, -1, 4, 8, 3);
    assert_int_equal(agree(flow, in, out, 1, &err), XI_EFLOW);
    assert_non_null(strstr(err.msg, "\"x\" is FP32, the model's input \"port\" is FP16"));
    in.dtype = XI_DT_FP32;
    out.dtype = XI_DT_INT64; /* top_k reads it */
    assert_int_equal(agree(flow, in, out, 1, &err), XI_EFLOW);
    assert_non_null(strstr(err.msg, "step 4 (top_k): \"y\" is INT64, wanted is FP32"));
    xi_flow_free(flow);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_refusal_names_the_step_and_the_value),
        cmocka_unit_test(a_hundred_thousand_steps_are_refused),
        cmocka_unit_test(a_flow_draws_once_and_only_the_sent_picture),
        cmocka_unit_test(the_models_ports_must_agree),
    };

    return cmocka_run_group_tests_name("flow/parse", tests, NULL, NULL);
}
