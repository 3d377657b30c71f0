/* decode_audio: the bytes that were sent → FP32 tensor [n], one channel, -1 to 1. A WAV tells its
 * own format; other bytes are raw samples. Nothing is resampled: a wrong rate is the client's
 * error. */
#include <math.h>
#include <string.h>

#include "base/json.h"
#include "flow/params.h"
#include "flow/steps.h"

enum sample { SAMPLE_U8, SAMPLE_S16, SAMPLE_S24, SAMPLE_S32, SAMPLE_F32 };
enum { WAV_PCM = 1, WAV_FLOAT = 3, WAV_EXTENSIBLE = 0xfffe, CHANNELS_MAX = 32 };

struct decode_audio {
    uint32_t rate;
    enum sample raw;
};

/* What lies where in the input. */
struct sound {
    const uint8_t *data;
    uint64_t bytes;
    uint32_t channels;
    enum sample sample;
};

static const uint32_t sample_bytes[] = {1, 2, 3, 4, 4};

uint32_t xi_audio_rate(const struct xi_flow_step *step)
{
    return step->kind == &xi_step_decode_audio ? ((const struct decode_audio *)step->params)->rate
                                               : 0;
}

static enum xi_rc parse(struct xi_flow_parser *p, const json_t *obj, void *params,
                        struct xi_err *err)
{
    static const char *const raws[] = {"s16le", "f32le", NULL};
    struct decode_audio *self = params;
    int64_t rate = 0;
    int raw = 0;
    enum xi_rc rc = xi_json_int(obj, "", "rate", 1, 1000, 384000, &rate, err);

    (void)p;
    if (rc == XI_OK)
        rc = xi_param_choice(obj, "raw", raws, 0, &raw, err);
    self->rate = (uint32_t)rate;
    self->raw = raw == 0 ? SAMPLE_S16 : SAMPLE_F32;
    return rc;
}

static enum xi_rc check(const struct xi_flow *flow, const struct xi_flow_step *step,
                        struct xi_flow_type *types, struct xi_err *err)
{
    static const int64_t any[1] = {-1};
    enum xi_rc rc = xi_want_kind(flow, types, step->in[0], XI_VALUE_BYTES, err);

    types[step->out[0]] = xi_type_tensor(XI_DT_FP32, 1, any);
    return rc;
}

/* ---- WAV ---- */

static uint32_t le16(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8;
}

static uint32_t le32(const uint8_t *p)
{
    return le16(p) | le16(p + 2) << 16;
}

static int is_wav(const uint8_t *p, uint64_t n)
{
    return n >= 12 && memcmp(p, "RIFF", 4) == 0 && memcmp(p + 8, "WAVE", 4) == 0;
}

static enum xi_rc read_format(const struct decode_audio *self, const uint8_t *p, uint64_t n,
                              struct sound *ret, struct xi_err *err)
{
    if (n < 16)
        return xi_fail(err, XI_EIMAGE, "the WAV's format is cut off");
    uint32_t format = le16(p), rate = le32(p + 4), bits = le16(p + 14);

    if (format == WAV_EXTENSIBLE && n >= 26)
        format = le16(p + 24);
    if (rate != self->rate) {
        (void)xi_fail(err, XI_EIMAGE, "the WAV has %u samples a second, the model takes %u", rate,
                      self->rate);
        return xi_hint(err, "convert it: ffmpeg -i IN -ar %u -ac 1 OUT.wav", self->rate);
    }
    ret->channels = le16(p + 2);
    if (ret->channels < 1 || ret->channels > CHANNELS_MAX)
        return xi_fail(err, XI_EIMAGE, "the WAV has %u channels, 1 to %d may be", ret->channels,
                       CHANNELS_MAX);
    if (format == WAV_FLOAT && bits == 32)
        ret->sample = SAMPLE_F32;
    else if (format == WAV_PCM && (bits == 8 || bits == 16 || bits == 24 || bits == 32))
        ret->sample = (enum sample)(bits / 8 - 1);
    else
        return xi_fail(err, XI_EIMAGE,
                       "WAV of format %u with %u bits: PCM or 32 bit float is taken", format, bits);
    if (le16(p + 12) != ret->channels * (bits / 8))
        return xi_fail(err, XI_EIMAGE, "the WAV's block size does not fit its format");
    return XI_OK;
}

/* A recorder that could not go back to write the length leaves 0 or all ones: up to the end. */
static enum xi_rc find_samples(const struct decode_audio *self, const uint8_t *p, uint64_t n,
                               struct sound *ret, struct xi_err *err)
{
    int known = 0;

    for (uint64_t at = 12; at + 8 <= n;) {
        const uint8_t *chunk = p + at;
        uint64_t size = le32(chunk + 4), left = n - at - 8;
        int data = memcmp(chunk, "data", 4) == 0;

        if (data && (size == 0 || size == UINT32_MAX))
            size = left;
        if (size > left)
            return xi_fail(err, XI_EIMAGE, "the WAV is cut off: %llu bytes of %llu are there",
                           (unsigned long long)left, (unsigned long long)size);
        if (memcmp(chunk, "fmt ", 4) == 0) {
            enum xi_rc rc = read_format(self, chunk + 8, size, ret, err);
            if (rc != XI_OK)
                return rc;
            known = 1;
        }
        if (data && known) {
            ret->data = chunk + 8;
            ret->bytes = size;
            return XI_OK;
        }
        at += 8 + size + (size & 1);
    }
    return xi_fail(err, XI_EIMAGE, "the WAV has no %s", known ? "samples" : "format");
}

/* ---- samples ---- */

static float sample_at(const uint8_t *p, enum sample kind)
{
    float f;

    switch (kind) {
    case SAMPLE_U8:
        return (float)(p[0] - 128) / 128;
    case SAMPLE_S16:
        return (float)(int16_t)le16(p) / 32768;
    case SAMPLE_S24: /* as the upper 24 of 32 bits */
        return (float)(int32_t)(le16(p) << 8 | (uint32_t)p[2] << 24) / 2147483648.0f;
    case SAMPLE_S32:
        return (float)(int32_t)le32(p) / 2147483648.0f;
    default:
        memcpy(&f, p, sizeof f);
        return f;
    }
}

static enum xi_rc read_samples(const struct sound *s, float *dst, uint64_t n, struct xi_err *err)
{
    uint32_t width = sample_bytes[s->sample];
    const uint8_t *p = s->data;

    for (uint64_t i = 0; i < n; i++) {
        float sum = 0;
        for (uint32_t c = 0; c < s->channels; c++, p += width)
            sum += sample_at(p, s->sample);
        dst[i] = sum / (float)s->channels;
        if (!isfinite(dst[i])) /* it would stay in a model's state for ever */
            return xi_fail(err, XI_EIMAGE, "sample %llu is not a finite number",
                           (unsigned long long)i);
    }
    return XI_OK;
}

static enum xi_rc run(struct xi_flow_run *r, const struct xi_flow_step *step, struct xi_err *err)
{
    const struct decode_audio *self = step->params;
    struct sound s = {.data = r->input,
                      .bytes = r->bytes,
                      .channels = 1,
                      .sample = r->want & XI_INPUT_FP32 ? SAMPLE_F32 : self->raw};
    struct xi_flow_value *v = &r->values[step->out[0]];
    enum xi_rc rc = XI_OK;

    if (is_wav(s.data, s.bytes))
        rc = find_samples(self, r->input, r->bytes, &s, err);
    if (rc != XI_OK)
        return rc;
    uint64_t each = (uint64_t)sample_bytes[s.sample] * s.channels;
    int64_t n = (int64_t)(s.bytes / each);
    if (n == 0 || s.bytes % each != 0)
        return xi_fail(err, XI_EIMAGE, "%llu bytes of sound are no whole samples of %llu",
                       (unsigned long long)s.bytes, (unsigned long long)each);
    rc = xi_flow_make_tensor(v, XI_DT_FP32, &n, 1, err);
    return rc == XI_OK ? read_samples(&s, v->tensor.data, (uint64_t)n, err) : rc;
}

static const char *const keys[] = {"op", "in", "out", "rate", "raw", NULL};

const struct xi_step_kind xi_step_decode_audio = {
    .op = "decode_audio",
    .keys = keys,
    .min_in = 1,
    .max_in = 1,
    .min_out = 1,
    .max_out = 1,
    .params_bytes = sizeof(struct decode_audio),
    .parse = parse,
    .check = check,
    .run = run,
};
