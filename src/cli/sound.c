#include "cli/sound.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"

/* Samples of a request: about a second, and whole frames of any size that is a power of two. */
enum { PIECE = 16384 };

/* Where speech begins and ends, as Silero's own get_speech_timestamps has it by default. */
#define SPEECH_FROM  0.5
#define SPEECH_UNTIL 0.35
#define MIN_SPEECH_S 0.25
#define MIN_PAUSE_S  0.1

struct wav {
    const uint8_t *format, *data; /* the "fmt " chunk with its head; samples */
    uint32_t format_bytes, block; /* block: bytes of a sample of all channels */
    uint64_t n;                   /* samples */
    int silence;                  /* a byte of it */
};

struct stream {
    struct xi_cli *cli;
    const char *url;
    struct wav wav;
    char id[XI_UUID_TEXT + 1];
    struct xi_str body; /* of a request */
    uint32_t size, context, rate;
    double *speech; /* one for each frame */
    size_t n, room;
};

static uint32_t le(const uint8_t *p, int bytes)
{
    uint32_t v = 0;

    while (bytes-- > 0)
        v = v << 8 | p[bytes];
    return v;
}

/* 0: anything odd, which the daemon will name. */
static int read_wav(const uint8_t *p, uint64_t n, struct wav *ret)
{
    memset(ret, 0, sizeof *ret);
    for (uint64_t at = 12; at + 8 <= n;) {
        uint64_t size = le(p + at + 4, 4), left = n - at - 8;

        if (memcmp(p + at, "data", 4) == 0 && (size == 0 || size == UINT32_MAX))
            size = left;
        if (size > left)
            return 0;
        if (memcmp(p + at, "fmt ", 4) == 0 && size >= 16) {
            ret->format = p + at;
            ret->format_bytes = (uint32_t)size + 8;
            ret->block = le(p + at + 8 + 12, 2);
            ret->silence = le(p + at + 8 + 14, 2) == 8 ? 0x80 : 0;
        }
        if (memcmp(p + at, "data", 4) == 0) {
            ret->data = p + at + 8;
            ret->n = ret->block > 0 ? size / ret->block : 0;
            return ret->n > 0;
        }
        at += 8 + size + (size & 1);
    }
    return 0;
}

static void put_le(struct xi_str *s, uint64_t v)
{
    const char bytes[4] = {(char)v, (char)(v >> 8), (char)(v >> 16), (char)(v >> 24)};

    xi_str_add(s, bytes, sizeof bytes);
}

/* A WAV of `count` samples from `from` on; past the end there is silence. */
static enum xi_rc make_body(struct stream *s, uint64_t from, uint64_t count, struct xi_err *err)
{
    const struct wav *w = &s->wav;
    uint64_t here = w->n - from < count ? w->n - from : count, bytes = count * w->block;
    char quiet = (char)w->silence;

    xi_str_clear(&s->body);
    xi_str_puts(&s->body, "RIFF");
    put_le(&s->body, 12 + w->format_bytes + bytes);
    xi_str_puts(&s->body, "WAVE");
    xi_str_add(&s->body, (const char *)w->format, w->format_bytes + (w->format_bytes & 1));
    xi_str_puts(&s->body, "data");
    put_le(&s->body, bytes);
    xi_str_add(&s->body, (const char *)w->data + from * w->block, here * w->block);
    for (uint64_t i = here * w->block; i < bytes; i++)
        xi_str_add(&s->body, &quiet, 1);
    return xi_str_check(&s->body, err, "a piece of sound");
}

/* flags: ";start" and the like. *ret: the answer's "outputs" (json_decref). */
static enum xi_rc send_piece(struct stream *s, uint64_t from, uint64_t count, const char *flags,
                             json_t **ret)
{
    struct xi_err *err = &s->cli->err;
    struct xi_answer answer = {0};
    struct xi_result result = {0};
    char sequence[120];
    const char *headers[] = {"Content-Type: audio/wav", "Accept: application/json", sequence, NULL};
    enum xi_rc rc = make_body(s, from, count, err);

    if (rc != XI_OK)
        return rc;
    (void)snprintf(sequence, sizeof sequence, "Xinfer-Sequence: xinfer-%s%s", s->id, flags);
    struct xi_call call = {.method = "POST",
                           .path = s->url,
                           .headers = headers,
                           .body = xi_str_text(&s->body),
                           .body_fd = -1,
                           .body_bytes = s->body.len};
    xi_str_init(&answer.body, XI_BODY_JSON_MAX);
    rc = xi_client_call(s->cli->client, &call, &answer, err);
    if (rc == XI_OK)
        rc = xi_result_read(&answer, &result, err);
    if (rc == XI_OK)
        *ret = json_incref(json_object_get(result.json, "outputs"));
    json_decref(result.json);
    xi_str_fini(&answer.body);
    return rc;
}

static uint32_t whole(const json_t *obj, const char *key)
{
    json_int_t v = json_integer_value(json_object_get(obj, key));

    return v > 0 && v <= UINT32_MAX ? (uint32_t)v : 0;
}

/* How the model cuts its sound. 0: it does not, or not so that our pieces fit. */
static int read_frames(struct stream *s, const json_t *outputs)
{
    const json_t *frames = json_object_get(outputs, "frames");

    s->size = whole(frames, "size");
    s->context = whole(frames, "context");
    s->rate = whole(frames, "rate");
    return s->size > 0 && s->rate > 0 && PIECE % s->size == 0 && s->context < PIECE &&
           json_is_array(json_object_get(outputs, "speech"));
}

static enum xi_rc keep_numbers(struct stream *s, const json_t *outputs)
{
    const json_t *speech = json_object_get(outputs, "speech"), *v;
    size_t n = json_array_size(speech), i;

    if (n == 0)
        return xi_fail(&s->cli->err, XI_EPROTO, "the answer has no numbers");
    if (s->n + n > s->room) {
        size_t room = 2 * (s->n + n);
        double *more = realloc(s->speech, room * sizeof *more);
        if (more == NULL)
            return xi_fail(&s->cli->err, XI_ENOMEM, "no memory for %zu numbers", room);
        s->speech = more;
        s->room = room;
    }
    json_array_foreach(speech, i, v) s->speech[s->n++] = json_number_value(v);
    return XI_OK;
}

/* What is behind the first piece: each one brings the samples before it. */
static enum xi_rc stream_rest(struct stream *s)
{
    enum xi_rc rc = XI_OK;

    for (uint64_t at = PIECE; at < s->wav.n && rc == XI_OK; at += PIECE) {
        uint64_t left = s->wav.n - at;
        uint64_t frames = ((left < PIECE ? left : PIECE) + s->size - 1) / s->size;
        json_t *outputs = NULL;

        rc = send_piece(s, at - s->context, s->context + frames * s->size,
                        left <= PIECE ? ";end" : "", &outputs);
        if (rc == XI_OK)
            rc = keep_numbers(s, outputs);
        json_decref(outputs);
        if (s->wav.n > 20 * PIECE)
            xi_progress("listening", at + PIECE < s->wav.n ? at + PIECE : s->wav.n, s->wav.n);
    }
    xi_progress_end();
    return rc;
}

/* ---- what is said ---- */

static void print_segment(const struct stream *s, struct xi_table *table, size_t from, size_t to)
{
    double frame_s = (double)s->size / s->rate, start = (double)from * frame_s;
    double end = (double)to * frame_s, sum = 0;

    if (end > (double)s->wav.n / s->rate) /* the last frame was filled up */
        end = (double)s->wav.n / s->rate;
    for (size_t i = from; i < to; i++)
        sum += s->speech[i];
    if (table == NULL) {
        (void)printf("{\"start\":%.3f,\"end\":%.3f,\"speech\":%.3f}\n", start, end,
                     sum / (double)(to - from));
        return;
    }
    xi_table_cell(table, "%.2f", start);
    xi_table_cell(table, "%.2f", end);
    xi_table_cell(table, "%.2f", end - start);
    xi_table_cell(table, "%.2f", sum / (double)(to - from));
}

/* A segment goes on through short pauses; one that is too short is none. Returns how many. */
static size_t each_segment(const struct stream *s, struct xi_table *table)
{
    double frame_s = (double)s->size / s->rate;
    size_t from = 0, quiet = 0, found = 0; /* quiet: the pause began there */
    int speaks = 0, pauses = 0;

    for (size_t i = 0; i <= s->n; i++) {
        double p = i < s->n ? s->speech[i] : 0;
        if (!speaks && p >= SPEECH_FROM) {
            speaks = 1;
            pauses = 0;
            from = i;
        }
        if (speaks && p >= SPEECH_FROM)
            pauses = 0;
        if (speaks && p < SPEECH_UNTIL && !pauses) {
            pauses = 1;
            quiet = i;
        }
        if (!speaks || !pauses || (i < s->n && (double)(i - quiet) * frame_s < MIN_PAUSE_S))
            continue;
        speaks = 0;
        if ((double)(quiet - from) * frame_s < MIN_SPEECH_S)
            continue;
        print_segment(s, table, from, quiet);
        found++;
    }
    return found;
}

static void show(const struct stream *s)
{
    static const char *const heads[] = {"START", "END", "SECONDS", "SPEECH"};
    struct xi_table *table;
    size_t found;

    if (s->cli->json) {
        (void)each_segment(s, NULL);
        return;
    }
    table = xi_table_new(4, heads);
    found = each_segment(s, table);
    xi_table_print(table);
    xi_note(s->cli, "%zu segments in %.1f s of sound", found, (double)s->wav.n / s->rate);
}

enum xi_rc xi_sound_infer(struct xi_cli *cli, const char *url, const struct xi_input *in,
                          int *ret_done)
{
    struct stream s = {.cli = cli, .url = url};
    json_t *outputs = NULL;

    *ret_done = 0;
    if (!read_wav((const uint8_t *)in->data, in->bytes, &s.wav))
        return XI_OK;
    xi_uuid_new(s.id);
    xi_str_init(&s.body, XI_BODY_MAX);
    uint64_t first = s.wav.n < PIECE ? s.wav.n : PIECE;
    enum xi_rc rc = send_piece(&s, 0, first, s.wav.n <= PIECE ? ";start;end" : ";start", &outputs);
    if (rc == XI_OK && read_frames(&s, outputs)) {
        *ret_done = 1;
        rc = keep_numbers(&s, outputs);
        if (rc == XI_OK)
            rc = stream_rest(&s);
        if (rc == XI_OK)
            show(&s);
    }
    json_decref(outputs);
    xi_str_fini(&s.body);
    free(s.speech);
    return rc;
}
