#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "package/manifest.h"

/* Uses every member of the schema once. */
static const char complete[] =
    "{\"xpkg\":1,\"name\":\"face\",\"version\":\"2.0.0-rc.1\",\"license\":\"Apache-2.0\","
    "\"description\":\"d\",\"authors\":[\"A\",\"B\"],\"x-note\":{\"any\":[1]},"
    "\"source\":[{\"path\":\"variants/a.onnx\",\"url\":\"pkg:npm/x@1\",\"file\":\"f\","
    "\"license\":\"MIT\",\"sha256\":"
    "\"00000000000000000000000000000000000000000000000000000000000000ff\"}],"
    "\"requires\":{\"capabilities\":[\"camera\"],\"memory\":1048576},"
    "\"input\":\"image\",\"output\":[\"bounding_boxes\",\"keypoints\"],\"flow\":\"flow.json\","
    "\"models\":{\"main\":{\"signature\":{\"inputs\":[{\"name\":\"x\",\"dtype\":\"FP32\","
    "\"shape\":[-1,3]},{\"name\":\"s\",\"dtype\":\"FP32\",\"shape\":[2]}],\"outputs\":["
    "{\"name\":\"y\",\"dtype\":\"FP16\"},{\"name\":\"t\",\"dtype\":\"FP32\",\"shape\":[2]}]},"
    "\"state\":[{\"input\":\"s\",\"output\":\"t\",\"dtype\":\"FP32\",\"shape\":[2],"
    "\"initial\":\"assets/s.bin\"}],"
    "\"batching\":{\"max\":16,\"preferred\":[4,8],\"max_delay_us\":500},"
    "\"variants\":[{\"id\":\"i8\",\"files\":[\"variants/a.onnx\",\"variants/a.data\"],"
    "\"format\":\"onnx\",\"engine\":{\"name\":\"openvino\",\"version\":\">=2024.1 <2027\"},"
    "\"arch\":[\"x86_64\",\"aarch64\"],\"device\":\"cpu\",\"precision\":\"i8\",\"memory\":5000,"
    "\"ops\":123,\"rename\":{\"inputs\":{\"x\":\"in0\"},\"outputs\":{\"y\":1}},"
    "\"accuracy\":{\"metric\":\"mAP\",\"value\":0.31,\"data\":\"COCO\"},"
    "\"options\":{\"NUM_STREAMS\":\"1\"}}]},"
    "\"head\":{\"variants\":[{\"id\":\"v\",\"files\":[\"variants/h.tflite\"],"
    "\"format\":\"tflite\",\"engine\":{\"name\":\"openvino\"},\"precision\":\"f32\"}]}},"
    "\"split\":[{\"id\":\"s1\",\"model\":\"main\",\"name\":\"mid\",\"dtype\":\"UINT8\","
    "\"shape\":[1,64],\"bytes\":64,\"share\":0.4,\"head\":\"head\",\"tail\":\"head\","
    "\"bottleneck\":{\"encoder\":\"head\",\"decoder\":\"head\"},\"atol\":0.1,\"rtol\":0}],"
    "\"escalate\":{\"when\":\"max_score < 0.6\",\"to\":{\"package\":\"big\",\"min_tops\":100},"
    "\"send\":\"auto\",\"deadline_ms\":80,\"fallback\":\"local\",\"audit\":0.01,"
    "\"regions\":true,\"per_track\":true,\"bands\":{\"*\":[0.2,0.6]}},"
    "\"golden\":[{\"id\":\"g\",\"input\":{\"file\":\"assets/a.png\",\"type\":\"image/png\"},"
    "\"expect\":{\"file\":\"assets/"
    "a.json\"},\"tolerance\":{\"score\":0.1,\"iou\":0.8,\"extra\":0.4,"
    "\"atol\":0.01,\"rtol\":0.02}},{\"id\":\"t\",\"model\":\"head\",\"input\":{\"tensors\":["
    "{\"name\":\"x\",\"dtype\":\"FP32\",\"shape\":[2],\"data\":[1,2.5]}]},\"expect\":{"
    "\"tensors\":[{\"name\":\"y\",\"dtype\":\"FP32\",\"shape\":[2,3],"
    "\"file\":\"assets/y.bin\"}]}}]}";

static struct xi_manifest *parse(const char *json, struct xi_err *err)
{
    struct xi_manifest *m = NULL;
    enum xi_rc rc = xi_manifest_parse(json, strlen(json), &m, err);

    assert_true((rc == XI_OK) == (m != NULL));
    return m;
}

static void the_whole_schema_is_read(void **state)
{
    struct xi_err err = {0};
    struct xi_manifest *m = parse(complete, &err);

    (void)state;
    if (m == NULL)
        fail_msg("%s", err.msg);
    const struct xi_manifest_model *model = xi_manifest_model(m, "main");
    const struct xi_manifest_variant *v = &model->variants[0];
    assert_string_equal(m->version, "2.0.0-rc.1");
    assert_int_equal(m->n_models, 2);
    assert_int_equal(m->n_outputs, 2);
    assert_int_equal(m->memory_required, 1048576);
    assert_int_equal(model->signature.n_inputs, 2);
    assert_int_equal(model->signature.inputs[0].dims[0], -1);
    assert_int_equal(model->signature.outputs[0].rank, -1);
    assert_int_equal(model->signature.outputs[0].dtype, XI_DT_FP16);
    assert_string_equal(model->states[0].output, "t");
    assert_int_equal(model->max_batch, 16);
    assert_int_equal(model->preferred_batch[1], 8);
    assert_int_equal(v->n_files, 2);
    assert_string_equal(v->engine_version, ">=2024.1 <2027");
    assert_string_equal(v->arch[1], "aarch64");
    assert_int_equal(v->n_renames, 2);
    assert_string_equal(v->renames[0].engine_name, "in0");
    assert_null(v->renames[1].engine_name);
    assert_int_equal(v->renames[1].engine_index, 1);
    assert_string_equal(v->options[0].value, "1");
    assert_string_equal(m->splits[0].encoder, "head");
    assert_int_equal(m->escalate->deadline_ms, 80);
    assert_true(m->escalate->bands[0].accept_from > 0.59);
    assert_null(m->goldens[0].model);
    assert_true(m->goldens[0].iou > 0.79 && m->goldens[0].iou < 0.81);
    assert_true(m->goldens[0].extra > 0.39 && m->goldens[1].extra < 0.01);
    assert_int_equal(json_array_size(m->goldens[1].inputs[0].data), 2);
    xi_manifest_free(m);
}

struct seen {
    size_t n;
    uint64_t state_bytes, golden_bytes;
};

static enum xi_rc see(void *ctx, const char *path, const char *what, uint64_t bytes,
                      struct xi_err *err)
{
    struct seen *s = ctx;

    (void)err;
    (void)what;
    s->n++;
    if (strcmp(path, "assets/s.bin") == 0)
        s->state_bytes = bytes;
    if (strcmp(path, "assets/y.bin") == 0)
        s->golden_bytes = bytes;
    return XI_OK;
}

static void every_path_is_visited(void **state)
{
    struct seen seen = {0};
    struct xi_manifest *m = parse(complete, NULL);

    (void)state;
    assert_int_equal(xi_manifest_each_path(m, see, &seen, NULL), XI_OK);
    assert_int_equal(seen.n, 9); /* flow, state, 3 variant files, 3 of goldens, 1 source */
    assert_int_equal(seen.state_bytes, 8);
    assert_int_equal(seen.golden_bytes, 24);
    xi_manifest_free(m);
}

/* `from` in the complete manifest is replaced by `to`. */
struct change {
    const char *from, *to, *msg, *hint;
};

static const struct change changes[] = {
    {"\"xpkg\":1,", "", "xpkg is missing", NULL},
    {"\"xpkg\":1", "\"xpkg\":2", "schema version 2, this xInfer reads version 1", "update"},
    {"\"xpkg\":1", "\"xpkg\":1,\"xpkg\":1", "duplicate", NULL},
    {"\"license\"", "\"licence\"", "unknown key \"licence\"", "did you mean \"license\"?"},
    {"\"name\":\"face\"", "\"name\":\"fa/ce\"", "name \"fa/ce\" may only", NULL},
    {"\"name\":\"face\"", "\"name\":\"\"", "name is empty", NULL},
    {"2.0.0-rc.1", "2.0", "no semantic version", NULL},
    {"\"description\":\"d\"", "\"description\":\"a\\u0007b\"", "control character", NULL},
    {"\"authors\":[\"A\",\"B\"]", "\"authors\":[\"A\",\"A\"]", "has \"A\" twice", NULL},
    {"\"license\":\"Apache-2.0\"", "\"license\":null", "license is null", NULL},
    {"\"authors\":[\"A\",\"B\"]", "\"authors\":\"A\"", "authors must be an array", NULL},
    {"000000ff", "000000FF", "64 lower-case hexadecimal", NULL},
    {"\"path\":\"variants/a.onnx\"", "\"path\":\"../a.onnx\"", "\"..\"", NULL},
    {"[\"camera\"]", "[\"web cam\"]", "may only have letters", NULL},
    {"\"memory\":1048576", "\"memory\":-1", "requires.memory is -1", NULL},
    {"\"input\":\"image\"", "\"input\":\"imge\"", "input \"imge\" is not known", "\"image\""},
    {"bounding_boxes", "boxes", "output \"boxes\" is not known", NULL},
    {"\"keypoints\"", "\"bounding_boxes\"", "twice", NULL},
    {"\"flow\":\"flow.json\"", "\"flow\":\"flow.py\"", "flow \"flow.py\" is not known", NULL},
    {"\"flow\":\"flow.json\",", "", "input \"image\" needs a flow", NULL},
    {"\"models\":{\"main\"", "\"models\":{\"other\"", "models.main is missing", NULL},
    {"\"head\":{\"variants\"", "\"Main\":{\"variants\"", "case of letters from \"main\"", NULL},
    {"\"head\":{\"variants\"", "\"Flow\":{\"variants\"", "is reserved", NULL},
    {"\"head\":{\"variants\"", "\"a b\":{\"variants\"", "no name for a model", NULL},
    {"\"dtype\":\"FP32\",\"shape\":[-1,3]", "\"dtype\":\"float\",\"shape\":[-1,3]",
     "models.main.signature.inputs[0].dtype \"float\"", NULL},
    {"[-1,3]", "[-2,3]", "shape must hold whole numbers", NULL},
    {"[-1,3]", "[1e3,3]", "shape must hold whole numbers", NULL},
    {"[-1,3]", "[1,1,1,1,1,1,1,1,1]", "has 9 dimensions", NULL},
    {"[-1,3]", "[1152921504606846976]", "shape must hold whole numbers", NULL},
    {"{\"name\":\"s\",\"dtype\"", "{\"name\":\"x\",\"dtype\"", "has \"x\" twice", NULL},
    {"{\"input\":\"s\"", "{\"input\":\"q\"", "not in the signature", NULL},
    {"\"max\":16", "\"max\":100000", "batching.max is 100000", NULL},
    {"[4,8]", "[4,32]", "sizes from 1 to max", NULL},
    {"\"files\":[\"variants/h.tflite\"]", "\"files\":[]", "at least one file", NULL},
    {"\"files\":[\"variants/h.tflite\"]", "\"files\":[\"assets/h.tflite\"]", "below variants/",
     NULL},
    {"\"files\":[\"variants/h.tflite\"]", "\"files\":[\"variants/h.onnx\"]", "ends with .tflite",
     NULL},
    {"\"variants/a.data\"", "\"variants/b/a.data\"", "several folders", NULL},
    {"\"format\":\"onnx\"", "\"format\":\"openvino-ir\"", "ends with .xml", NULL},
    {">=2024.1 <2027", "~2024", "is no range", NULL},
    {"\"device\":\"cpu\"", "\"device\":\"a-very-long-device-name\"", "at most 15", NULL},
    {"\"x86_64\"", "\"X86\"", "no architecture", NULL},
    {"\"precision\":\"i8\"", "\"precision\":\"int8\"", "precision \"int8\" is not known", "\"i8\""},
    {"{\"x\":\"in0\"}", "{\"z\":\"in0\"}", "rename.inputs.z is not in the signature", NULL},
    {"{\"y\":1}", "{\"y\":-1}", "engine's name of it or its index", NULL},
    {"\"NUM_STREAMS\":\"1\"", "\"EXT\":\"/tmp/x.so\"", "must not name a file", NULL},
    {"\"value\":0.31,", "", "accuracy.value is missing", NULL},
    {"\"tail\":\"head\",", "", "come together", NULL},
    {"\"encoder\":\"head\"", "\"encoder\":\"nope\"", "not one of the package's models", NULL},
    {"\"share\":0.4", "\"share\":1.4", "share is 1.4", NULL},
    {"\"send\":\"auto\"", "\"send\":\"all\"", "escalate.send \"all\"", NULL},
    {"[0.2,0.6]", "[0.7,0.6]", "reject below", NULL},
    {"\"id\":\"t\",\"model\"", "\"id\":\"g\",\"model\"", "has the id \"g\" twice", NULL},
    {"\"data\":[1,2.5]", "\"data\":[1]", "has 1 numbers, the shape wants 2", NULL},
    {"\"data\":[1,2.5]", "\"data\":[1,\"2\"]", "flat list of numbers", NULL},
    {"\"FP32\",\"shape\":[2],\"data\":[1,2.5]", "\"UINT8\",\"shape\":[2],\"data\":[1,300]",
     "data has 300, which no UINT8 is", NULL},
    {"\"FP32\",\"shape\":[2],\"data\":[1,2.5]", "\"INT32\",\"shape\":[2],\"data\":[1,2.5]",
     "data has 2.5, which no INT32 is", NULL},
    {"\"FP32\",\"shape\":[2],\"data\":[1,2.5]", "\"INT64\",\"shape\":[2],\"data\":[1,1e19]",
     "data has 1e+19, which no INT64 is", NULL},
    {"\"data\":[1,2.5]", "\"x-a\":1", "or data must be given", NULL},
    {"\"shape\":[2,3],", "", "shape is missing", NULL},
    {"\"shape\":[2,3],", "\"shape\":[-1,3],", "must be fixed", NULL},
    {"\"type\":\"image/png\"", "\"tipe\":\"image/png\"", "unknown key \"tipe\"", "\"type\""},
    {"\"model\":\"head\",\"input\":{\"tensors\"", "\"model\":\"gone\",\"input\":{\"tensors\"",
     "\"gone\" is not one", NULL},
    {"\"assets/a.json\"", "\"variants/a.json\"", "must lie below assets/", NULL},
};

static char *replaced(const char *from, const char *to)
{
    const char *at = strstr(complete, from);
    char *text = NULL;

    if (at == NULL)
        fail_msg("the manifest has no %s", from);
    assert_true(asprintf(&text, "%.*s%s%s", (int)(at - complete), complete, to, at + strlen(from)) >
                0);
    return text;
}

static void each_broken_rule_is_named(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        const struct change *c = &changes[i];
        struct xi_err err = {0};
        char *text = replaced(c->from, c->to);
        if (parse(text, &err) != NULL)
            fail_msg("accepted with %s", c->to);
        if (strstr(err.msg, c->msg) == NULL)
            fail_msg("with %s: \"%s\" does not say \"%s\"", c->to, err.msg, c->msg);
        if (c->hint != NULL && strstr(err.hint, c->hint) == NULL)
            fail_msg("with %s: the hint is \"%s\"", c->to, err.hint);
        assert_true(err.rc == XI_EPACKAGE || err.rc == XI_EJSON || err.rc == XI_EVERSION);
        free(text);
    }
}

static void what_is_no_manifest_is_refused(void **state)
{
    static const char *const texts[] = {
        "", "[]", "1", "{}", "{\"xpkg\":", "nul", "{\"xpkg\":true}"};

    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct xi_err err = {0};
        assert_null(parse(texts[i], &err));
        assert_true(err.rc == XI_EPACKAGE || err.rc == XI_EJSON);
    }
}

int main(void)
{
    const struct CMUnitTest t[] = {
        cmocka_unit_test(the_whole_schema_is_read),
        cmocka_unit_test(every_path_is_visited),
        cmocka_unit_test(each_broken_rule_is_named),
        cmocka_unit_test(what_is_no_manifest_is_refused),
    };

    return cmocka_run_group_tests_name("manifest", t, NULL, NULL);
}
