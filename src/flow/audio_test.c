/* Sound: WAVs made here byte by byte, raw samples, and how they are cut into pieces. */
#include "flow/testing.h"

#define DECODE(more)                                                                               \
    "{\"op\":\"decode_audio\",\"in\":\"input\",\"out\":\"s\",\"rate\":16000" more "}"
#define SAMPLES "{\"steps\":[" DECODE("") "],\"output\":{\"numbers\":\"s\"}}"
#define FRAMES                                                                                     \
    "{\"steps\":[" DECODE("") ",{\"op\":\"frames\",\"in\":\"s\",\"out\":\"f\",\"size\":4,"         \
                              "\"context\":2}],\"output\":{\"tensors\":\"f\"}}"

static enum xi_rc run(const char *json, const void *input, size_t bytes, unsigned want, char **ret,
                      struct xi_err *err)
{
    struct xi_flow *flow = NULL;
    struct xi_str answer;

    if (test_parse(json, NULL, &flow, err) != XI_OK)
        fail_msg("%s", err->msg);
    struct xi_flow_run *r = xi_flow_run_new(flow);
    xi_str_init(&answer, XI_MIB);
    enum xi_rc rc =
        xi_flow_execute(r, NULL, input, bytes, XI_ANSWER_JSON | want, &answer, NULL, NULL, err);
    xi_flow_run_free(r);
    xi_flow_free(flow);
    *ret = xi_str_take(&answer);
    return rc;
}

static void gives(const char *json, const void *input, size_t bytes, unsigned want,
                  const char *text)
{
    struct xi_err err = {0};
    char *got = NULL;

    if (run(json, input, bytes, want, &got, &err) != XI_OK)
        fail_msg("%s", err.msg);
    if (strstr(got, text) == NULL)
        fail_msg("%s where %s was wanted", got, text);
    free(got);
}

static void refuses(const char *json, const void *input, size_t bytes, unsigned want, enum xi_rc rc,
                    const char *text)
{
    struct xi_err err = {0};
    char *got = NULL;

    assert_int_equal(run(json, input, bytes, want, &got, &err), rc);
    if (strstr(err.msg, text) == NULL)
        fail_msg("\"%s\" where \"%s\" was wanted", err.msg, text);
    free(got);
}

struct wav {
    uint8_t bytes[256];
    size_t n;
};

static void put(struct wav *w, uint32_t value, int bytes)
{
    for (int i = 0; i < bytes; i++)
        w->bytes[w->n++] = (uint8_t)(value >> 8 * i);
}

static struct wav wav(uint32_t format, uint32_t channels, uint32_t rate, uint32_t bits,
                      const void *data, uint32_t bytes)
{
    struct wav w = {0};

    memcpy(w.bytes, "RIFF....WAVEfmt ", 16);
    w.n = 16;
    put(&w, 16, 4);
    put(&w, format, 2);
    put(&w, channels, 2);
    put(&w, rate, 4);
    put(&w, rate * channels * bits / 8, 4);
    put(&w, channels * bits / 8, 2);
    put(&w, bits, 2);
    memcpy(w.bytes + w.n, "LIST\3\0\0\0abc\0data", 16); /* an odd chunk is padded */
    w.n += 16;
    put(&w, bytes, 4);
    memcpy(w.bytes + w.n, data, bytes);
    w.n += bytes;
    return w;
}

static void wavs_of_every_width(void **state)
{
    static const uint8_t u8[] = {0, 128, 192}, s24[] = {0, 0, 0x40, 0, 0, 0x80};
    static const int16_t s16[] = {16384, -32768, 0}, stereo[] = {16384, 0, -8192, -8192};
    static const int32_t s32[] = {1 << 30, INT32_MIN};
    static const float f32[] = {0.25f, -1.5f};
    struct wav w = wav(1, 1, 16000, 8, u8, 3);

    (void)state;
    gives(SAMPLES, w.bytes, w.n, 0, "{\"s\":[-1,0,0.5]}");
    w = wav(1, 1, 16000, 16, s16, 6);
    gives(SAMPLES, w.bytes, w.n, 0, "{\"s\":[0.5,-1,0]}");
    w = wav(1, 1, 16000, 24, s24, 6);
    gives(SAMPLES, w.bytes, w.n, 0, "{\"s\":[0.5,-1]}");
    w = wav(1, 1, 16000, 32, s32, 8);
    gives(SAMPLES, w.bytes, w.n, 0, "{\"s\":[0.5,-1]}");
    w = wav(3, 1, 16000, 32, f32, 8);
    gives(SAMPLES, w.bytes, w.n, 0, "{\"s\":[0.25,-1.5]}");
    w = wav(1, 2, 16000, 16, stereo, 8);
    gives(SAMPLES, w.bytes, w.n, 0, "{\"s\":[0.25,-0.25]}");
    memset(w.bytes + w.n - 12, 0xff, 4); /* length unknown */
    gives(SAMPLES, w.bytes, w.n, 0, "{\"s\":[0.25,-0.25]}");
}

static void raw_samples(void **state)
{
    static const int16_t s16[] = {16384, -16384};
    static const float f32[] = {0.125f};

    (void)state;
    gives(SAMPLES, s16, sizeof s16, 0, "{\"s\":[0.5,-0.5]}");
    gives(SAMPLES, f32, sizeof f32, XI_INPUT_FP32, "{\"s\":[0.125]}");
    gives("{\"steps\":[" DECODE(",\"raw\":\"f32le\"") "],\"output\":{\"numbers\":\"s\"}}", f32,
          sizeof f32, 0, "{\"s\":[0.125]}");
    refuses(SAMPLES, s16, 3, 0, XI_EIMAGE, "no whole samples");
    refuses(SAMPLES, s16, 0, 0, XI_EIMAGE, "no whole samples");
}

static void broken_wavs_are_the_clients_error(void **state)
{
    static const int16_t s16[] = {1, 2, 3};
    static const uint32_t nan = 0x7fc00000;
    struct wav w = wav(1, 1, 8000, 16, s16, 6);

    (void)state;
    refuses(SAMPLES, w.bytes, w.n, 0, XI_EIMAGE, "8000 samples a second, the model takes 16000");
    w = wav(1, 1, 16000, 16, s16, 6);
    refuses(SAMPLES, w.bytes, w.n - 2, 0, XI_EIMAGE, "cut off");
    refuses(SAMPLES, w.bytes, 30, 0, XI_EIMAGE, "cut off");
    refuses(SAMPLES, w.bytes, 12, 0, XI_EIMAGE, "no format");
    refuses(SAMPLES, w.bytes, 36, 0, XI_EIMAGE, "no samples");
    w = wav(1, 0, 16000, 16, s16, 6);
    refuses(SAMPLES, w.bytes, w.n, 0, XI_EIMAGE, "0 channels");
    w = wav(6, 1, 16000, 8, s16, 6); /* A-law */
    refuses(SAMPLES, w.bytes, w.n, 0, XI_EIMAGE, "format 6");
    w = wav(3, 1, 16000, 32, &nan, 4);
    refuses(SAMPLES, w.bytes, w.n, 0, XI_EIMAGE, "not a finite number");
    for (size_t n = 0; n < w.n; n++) { /* whatever the length: an answer or a sentence */
        struct xi_err err = {0};
        char *got = NULL;
        if (run(SAMPLES, w.bytes, n, 0, &got, &err) != XI_OK)
            assert_true(err.msg[0] != '\0');
        free(got);
    }
}

/* 1/32768 a step, so that sample i is i / 32768 = i * 2^-15. */
static void pieces_have_what_lies_before(void **state)
{
    int16_t s[10];

    (void)state;
    for (int i = 0; i < 10; i++)
        s[i] = (int16_t)((i + 1) * 1024); /* (i + 1) / 32 */
    gives(FRAMES, s, 2 * 8, 0,
          "\"shape\":[2,6],\"data\":[0,0,0.03125,0.0625,0.09375,0.125,"
          "0.09375,0.125,0.15625,0.1875,0.21875,0.25]");
    gives(FRAMES, s, 2 * 5, 0, /* silence behind the last */
          "\"shape\":[2,6],\"data\":[0,0,0.03125,0.0625,0.09375,0.125,"
          "0.09375,0.125,0.15625,0,0,0]");
    gives(FRAMES, s, 2 * 6, XI_INPUT_GOES_ON, /* the first two are the context */
          "\"shape\":[1,6],\"data\":[0.03125,0.0625,0.09375,0.125,0.15625,0.1875]");
    gives(FRAMES, s, 2 * 5, 0, ",\"frames\":{\"size\":4,\"context\":2,\"rate\":16000}}");
    refuses(FRAMES, s, 2 * 8, XI_INPUT_GOES_ON, XI_ETENSOR, "a request that goes on has 2");
    refuses(FRAMES, s, 2 * 2, XI_INPUT_GOES_ON, XI_ETENSOR, "a request that goes on has 2");
}

static void wrong_parameters_are_refused(void **state)
{
    static const char *const bad[] = {
        "{\"steps\":[{\"op\":\"decode_audio\",\"in\":\"input\",\"out\":\"s\"}],"
        "\"output\":{\"numbers\":\"s\"}}",
        "{\"steps\":[" DECODE(",\"raw\":\"mp3\"") "],\"output\":{\"numbers\":\"s\"}}",
        "{\"steps\":[" DECODE("") ",{\"op\":\"frames\",\"in\":\"s\",\"out\":\"f\",\"size\":0}],"
                                  "\"output\":{\"tensors\":\"f\"}}",
        "{\"steps\":[" DECODE("") ",{\"op\":\"frames\",\"in\":\"s\",\"out\":\"f\",\"size\":4,"
                                  "\"context\":4}],\"output\":{\"tensors\":\"f\"}}",
        "{\"steps\":[" DECODE("") ",{\"op\":\"frames\",\"in\":\"input\",\"out\":\"f\",\"size\":4}],"
                                  "\"output\":{\"tensors\":\"f\"}}",
        "{\"steps\":[" DECODE("") "],\"output\":{\"numbers\":[\"s\",\"s\"]}}",
        "{\"steps\":[{\"op\":\"decode_audio\",\"in\":\"input\",\"out\":\"frames\",\"rate\":8000}],"
        "\"output\":{\"numbers\":\"frames\"}}",
    };
    struct xi_flow *flow = NULL;
    struct xi_err err;

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(test_parse(bad[i], NULL, &flow, &err), XI_EFLOW);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(wavs_of_every_width),
        cmocka_unit_test(raw_samples),
        cmocka_unit_test(broken_wavs_are_the_clients_error),
        cmocka_unit_test(pieces_have_what_lies_before),
        cmocka_unit_test(wrong_parameters_are_refused),
    };

    return cmocka_run_group_tests_name("flow/audio", tests, NULL, NULL);
}
