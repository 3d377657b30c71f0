/* verb_infer.c: infer (a loaded model) and run (one shot: load, infer, show). */
#define _GNU_SOURCE
#include <errno.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/limits.h"
#include "cli/sound.h"

static const char *opt_picture, *opt_dtype, *opt_shape, *opt_output, *opt_name;
static long opt_deadline;

static const struct xi_option infer_options[] = {
    {"picture", 'p', XI_OPTION_TEXT, &opt_picture, "FILE", "write the annotated picture there"},
    {"dtype", 0, XI_OPTION_TEXT, &opt_dtype, "TYPE", "INPUT is one raw tensor of this type (FP32)"},
    {"shape", 0, XI_OPTION_TEXT, &opt_shape, "N,N,…", "and of this shape"},
    {"output", 'o', XI_OPTION_TEXT, &opt_output, "FILE", "write the raw output tensors there"},
    {"deadline", 0, XI_OPTION_NUMBER, &opt_deadline, "MS", "drop the work if it takes longer"},
    {0},
};

static const struct xi_option run_options[] = {
    {"output", 'o', XI_OPTION_TEXT, &opt_picture, "FILE", "where the annotated picture goes"},
    {"name", 'n', XI_OPTION_TEXT, &opt_name, "NAME", "serve it under this name"},
    {"dtype", 0, XI_OPTION_TEXT, &opt_dtype, "TYPE", "INPUT is one raw tensor of this type"},
    {"shape", 0, XI_OPTION_TEXT, &opt_shape, "N,N,…", "and of this shape"},
    {0},
};

struct header_set {
    char text[6][160];
    const char *list[7];
    int n;
};

static void add_header(struct header_set *h, const char *name, const char *value)
{
    (void)snprintf(h->text[h->n], sizeof h->text[0], "%s: %s", name, value);
    h->list[h->n] = h->text[h->n];
    h->n++;
}

static void make_headers(struct header_set *h, const struct xi_input *in)
{
    char ms[24];
    const char *accept = opt_picture  ? "multipart/mixed"
                         : opt_output ? "application/octet-stream"
                                      : "application/json";

    add_header(h, "Content-Type", opt_shape ? "application/octet-stream" : in->content_type);
    add_header(h, "Accept", accept);
    if (opt_shape != NULL) {
        add_header(h, "Xinfer-Dtype", opt_dtype ? opt_dtype : "FP32");
        add_header(h, "Xinfer-Shape", opt_shape);
    }
    if (opt_deadline > 0) {
        (void)snprintf(ms, sizeof ms, "%ld", opt_deadline);
        add_header(h, "Xinfer-Deadline-Ms", ms);
    }
}

static enum xi_rc show(struct xi_cli *cli, const struct xi_result *r)
{
    int to_stdout = opt_picture != NULL && r->picture != NULL && strcmp(opt_picture, "-") == 0;
    enum xi_rc rc = XI_OK;

    if (r->json != NULL && !to_stdout && cli->json)
        xi_print_json(r->json);
    else if (r->json != NULL && !to_stdout) /* where a picture goes nothing else does */
        xi_print_answer(r->json);
    if (opt_picture != NULL && r->picture != NULL) {
        rc = xi_file_write(opt_picture, r->picture, r->picture_bytes, &cli->err);
        if (rc == XI_OK && !to_stdout)
            xi_note(cli, "picture: %s", opt_picture);
    }
    return rc;
}

/* Sends one input to a session and shows what came back. */
static enum xi_rc infer_file(struct xi_cli *cli, const char *model, const char *path)
{
    char url[600];
    struct xi_input in = {0};
    struct header_set headers = {0};
    struct xi_answer answer = {0};
    struct xi_result result = {0};
    int done = 0;

    xi_str_init(&answer.body, XI_BODY_MAX);
    enum xi_rc rc = xi_client_path("/v1/infer/", model, url, sizeof url, &cli->err);
    if (rc == XI_OK)
        rc = xi_input_read(path, &in, &cli->err);
    if (rc != XI_OK)
        goto out;
    if (strcmp(in.content_type, "audio/wav") == 0 && !opt_picture && !opt_output && !opt_shape) {
        rc = xi_sound_infer(cli, url, &in, &done);
        if (rc != XI_OK || done)
            goto out;
    }
    make_headers(&headers, &in);
    struct xi_call call = {.method = "POST",
                           .path = url,
                           .headers = headers.list,
                           .body = in.data ? in.data : "",
                           .body_fd = -1,
                           .body_bytes = in.bytes,
                           .progress = in.bytes > 4 * XI_MIB ? xi_progress : NULL,
                           .progress_ctx = "sending"};
    rc = xi_client_call(cli->client, &call, &answer, &cli->err);
    xi_progress_end();
    if (rc == XI_EINVAL && opt_shape == NULL && strstr(in.content_type, "octet-stream") != NULL)
        (void)xi_hint(&cli->err, "it is no picture and no JSON; for a raw tensor: --dtype FP32 "
                                 "--shape N,N,…");
    if (rc == XI_OK && opt_output != NULL && opt_picture == NULL)
        rc = xi_file_write(opt_output, xi_str_text(&answer.body), answer.body.len, &cli->err);
    else if (rc == XI_OK)
        rc = xi_result_read(&answer, &result, &cli->err);
    if (rc == XI_OK && (opt_output == NULL || opt_picture != NULL))
        rc = show(cli, &result);
out:
    json_decref(result.json);
    xi_str_fini(&answer.body);
    free(in.data);
    return rc;
}

/* One file takes one answer, and never the place of an input. */
static enum xi_rc check_target(struct xi_cli *cli, const char *option, const char *path)
{
    struct stat in, out;
    int is_file = path != NULL && strcmp(path, "-") != 0 && stat(path, &out) == 0;

    if (path == NULL || (is_file && !S_ISREG(out.st_mode))) /* /dev/null takes everything */
        return XI_OK;
    if (cli->n_words > 2) {
        (void)xi_fail(&cli->err, XI_EUSAGE, "--%s names one place for the answers to %d inputs",
                      option, cli->n_words - 1);
        return xi_hint(&cli->err, "give one input at a time");
    }
    if (is_file && stat(cli->words[1], &in) == 0 && in.st_dev == out.st_dev &&
        in.st_ino == out.st_ino)
        return xi_fail(&cli->err, XI_EUSAGE, "--%s %.200s would overwrite the input", option, path);
    return XI_OK;
}

static enum xi_rc check_targets(struct xi_cli *cli)
{
    if (opt_picture != NULL && opt_output != NULL)
        return xi_fail(&cli->err, XI_EUSAGE, "--picture and --output exclude each other");
    enum xi_rc rc = check_target(cli, "picture", opt_picture);
    return rc == XI_OK ? check_target(cli, "output", opt_output) : rc;
}

static enum xi_rc run_infer(struct xi_cli *cli)
{
    enum xi_rc rc = check_targets(cli);

    if (rc == XI_OK)
        rc = xi_cli_connect(cli);

    for (int i = 1; i < cli->n_words && rc == XI_OK; i++) {
        if (cli->n_words > 2 && !cli->json)
            (void)printf("%s%s:\n", i > 1 ? "\n" : "", cli->words[i]);
        rc = infer_file(cli, cli->words[0], cli->words[i]);
    }
    return rc;
}

/* "photos/cat.png" and "object-detector" give "cat-object-detector.jpg" in this directory. */
static void picture_name(const char *input, const char *model, char *ret, size_t bytes)
{
    char copy[512];

    (void)snprintf(copy, sizeof copy, "%s", strcmp(input, "-") == 0 ? "stdin" : input);
    char *base = basename(copy), *dot = strrchr(base, '.');
    if (dot != NULL && dot != base)
        *dot = '\0';
    (void)snprintf(ret, bytes, "%s-%s.jpg", base, model);
}

/* Pictures come back only from a flow that draws. */
static int draws(const json_t *session)
{
    return json_is_true(json_object_get(session, "draws"));
}

static enum xi_rc infer_all(struct xi_cli *cli, const json_t *session)
{
    const char *id = json_string_value(json_object_get(session, "id"));
    const char *name = json_string_value(json_object_get(session, "name"));
    const char *asked = opt_picture;
    char picture[700];
    enum xi_rc rc = XI_OK;

    if (id == NULL)
        return xi_fail(&cli->err, XI_EPROTO, "the daemon loaded it, but gave it no id");
    for (int i = 1; i < cli->n_words && rc == XI_OK; i++) {
        picture_name(cli->words[i], name ? name : "answer", picture, sizeof picture);
        if (asked == NULL && !cli->json && draws(session))
            opt_picture = picture;
        if (cli->n_words > 2 && !cli->json)
            (void)printf("%s%s:\n", i > 1 ? "\n" : "", cli->words[i]);
        rc = infer_file(cli, id, cli->words[i]);
    }
    return rc;
}

/* The ids that were there before: what `run` did not load stays loaded. */
static int is_listed(const json_t *models, const json_t *session)
{
    const char *id = json_string_value(json_object_get(session, "id"));
    size_t i;
    json_t *m;

    json_array_foreach(json_object_get(models, "models"), i, m)
    {
        const char *other = json_string_value(json_object_get(m, "id"));
        if (id != NULL && other != NULL && strcmp(id, other) == 0)
            return 1;
    }
    return 0;
}

static enum xi_rc load_for_run(struct xi_cli *cli, json_t **ret)
{
    char package[200];
    enum xi_rc rc = xi_cli_package(cli, cli->words[0], package, sizeof package);

    if (rc != XI_OK)
        return rc;
    xi_note(cli, "loading %s", cli->words[0]);
    json_t *body = json_pack("{s:s, s:b}", "package", package, "wait", 1);
    if (opt_name != NULL)
        (void)json_object_set_new(body, "name", json_string(opt_name));
    return xi_cli_load(cli, cli->words[0], body, ret);
}

static void unload_after_run(struct xi_cli *cli, const json_t *session)
{
    struct xi_err first = cli->err; /* of the inference, which is what counts */
    const char *id = json_string_value(json_object_get(session, "id"));
    json_t *doc = NULL;

    if (id != NULL && xi_cli_unload(cli, id, &doc) != XI_OK)
        xi_note(cli, "it stays loaded: %s", cli->err.msg);
    json_decref(doc);
    cli->err = first;
}

/* Inputs are looked at first: a mistyped name costs nothing. */
static enum xi_rc check_inputs(struct xi_cli *cli)
{
    for (int i = 1; i < cli->n_words; i++)
        if (strcmp(cli->words[i], "-") != 0 && access(cli->words[i], R_OK) != 0)
            return xi_fail(&cli->err, xi_rc_errno(errno), "%s: %s", cli->words[i], strerror(errno));
    return XI_OK;
}

static enum xi_rc run_run(struct xi_cli *cli)
{
    json_t *session = NULL, *before = NULL;
    enum xi_rc rc = check_target(cli, "output", opt_picture);

    if (rc == XI_OK)
        rc = check_inputs(cli);
    if (rc == XI_OK)
        rc = xi_cli_connect_or_start(cli);
    if (rc == XI_OK)
        rc = xi_client_json(cli->client, "GET", "/v1/models", NULL, &before, &cli->err);
    if (rc == XI_OK)
        rc = load_for_run(cli, &session);
    if (rc == XI_OK)
        rc = infer_all(cli, session);
    if (session != NULL && !is_listed(before, session))
        unload_after_run(cli, session);
    json_decref(session);
    json_decref(before);
    return rc;
}

const struct xi_verb xi_verb_infer = {
    .name = "infer",
    .usage = "NAME|ID INPUT… [options]",
    .summary = "send inputs to a loaded model and show its answers",
    .details = "INPUT is a picture (JPEG, PNG), sound (WAV), a JSON request of the Open Inference "
               "Protocol, or\n"
               "with --shape one raw tensor; - reads standard input. A model that listens gets a "
               "WAV piece by\n"
               "piece, as one sequence, and tells when somebody speaks; --json: one object a line.",
    .examples = "  xinfer infer object-detector photo.jpg --picture boxes.jpg\n"
                "  xinfer infer voice-activity talk.wav\n"
                "  xinfer infer classifier x.bin --dtype FP32 --shape 1,3,224,224 -o y.bin\n",
    .min_words = 2,
    .max_words = XI_CLI_WORDS_MAX,
    .options = infer_options,
    .run = run_infer};

const struct xi_verb xi_verb_run = {
    .name = "run",
    .usage = "PACKAGE INPUT… [options]",
    .summary = "one shot: load a package or a bare model, infer, show the answer and the picture",
    .details = "Uses the daemon that runs here; where none does, starts one that ends by itself.\n"
               "What it had to load is unloaded at the end. With --json a picture is written only\n"
               "where --output says so.",
    .examples = "  xinfer run object-detector.xpkg photo.jpg\n"
                "  xinfer run object-detector.xpkg *.jpg --json\n",
    .min_words = 2,
    .max_words = XI_CLI_WORDS_MAX,
    .options = run_options,
    .run = run_run};
