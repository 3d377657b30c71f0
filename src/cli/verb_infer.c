/* verb_infer.c: infer (a loaded model) and run (one shot: load, infer, show). */
#define _GNU_SOURCE
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/limits.h"
#include "cli/input.h"

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
    enum xi_rc rc = XI_OK;

    if (r->json != NULL && cli->json)
        xi_print_json(r->json);
    else if (r->json != NULL)
        xi_print_answer(r->json);
    if (opt_picture != NULL && r->picture != NULL) {
        rc = xi_file_write(opt_picture, r->picture, r->picture_bytes, &cli->err);
        if (rc == XI_OK && strcmp(opt_picture, "-") != 0)
            xi_note(cli, "picture: %s", opt_picture);
    }
    return rc;
}

/* Sends one input to a session and shows what came back. */
static enum xi_rc infer_file(struct xi_cli *cli, const char *model, const char *path)
{
    char url[300];
    struct xi_input in = {0};
    struct header_set headers = {0};
    struct xi_answer answer = {0};
    struct xi_result result = {0};

    xi_str_init(&answer.body, XI_BODY_MAX);
    (void)snprintf(url, sizeof url, "/v1/infer/%s", model);
    enum xi_rc rc = xi_input_read(path, &in, &cli->err);
    if (rc != XI_OK)
        goto out;
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

static enum xi_rc run_infer(struct xi_cli *cli)
{
    enum xi_rc rc = xi_cli_connect(cli);

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

    (void)snprintf(copy, sizeof copy, "%s", input);
    char *base = basename(copy), *dot = strrchr(base, '.');
    if (dot != NULL)
        *dot = '\0';
    (void)snprintf(ret, bytes, "%s-%s.jpg", base, model);
}

/* Pictures come back only from a flow that draws. */
static int draws(const json_t *session)
{
    return json_is_true(json_object_get(session, "draws"));
}

static enum xi_rc run_run(struct xi_cli *cli)
{
    char package[200], picture[700];
    json_t *session = NULL, *body;
    enum xi_rc rc = xi_cli_connect_or_start(cli);

    if (rc == XI_OK)
        rc = xi_cli_package(cli, cli->words[0], package, sizeof package);
    if (rc != XI_OK)
        return rc;
    xi_note(cli, "loading %s", cli->words[0]);
    body = json_pack("{s:s, s:b}", "package", package, "wait", 1);
    if (opt_name != NULL)
        (void)json_object_set_new(body, "name", json_string(opt_name));
    rc = xi_cli_load(cli, body, &session);
    if (rc != XI_OK)
        return rc;
    const char *id = json_string_value(json_object_get(session, "id"));
    const char *name = json_string_value(json_object_get(session, "name"));
    for (int i = 1; i < cli->n_words && rc == XI_OK && id != NULL; i++) {
        const char *asked = opt_picture;
        picture_name(cli->words[i], name ? name : "answer", picture, sizeof picture);
        if (opt_picture == NULL && draws(session))
            opt_picture = picture;
        rc = infer_file(cli, id, cli->words[i]);
        opt_picture = asked;
    }
    json_decref(session);
    return rc;
}

const struct xi_verb xi_verb_infer = {
    .name = "infer",
    .usage = "NAME|ID INPUT… [options]",
    .summary = "send inputs to a loaded model and show its answers",
    .details =
        "INPUT is a picture (JPEG, PNG), a JSON request of the Open Inference Protocol, or with\n"
        "--shape one raw tensor; - reads standard input.",
    .examples = "  xinfer infer object-detector photo.jpg --picture boxes.jpg\n"
                "  xinfer infer classifier x.bin --dtype FP32 --shape 1,3,224,224 -o y.bin\n",
    .min_words = 2,
    .max_words = XI_CLI_WORDS_MAX,
    .options = infer_options,
    .run = run_infer};

const struct xi_verb xi_verb_run = {
    .name = "run",
    .usage = "PACKAGE INPUT… [options]",
    .summary = "one shot: load a package or a bare model, infer, show the answer and the picture",
    .details = "Uses the daemon that runs here; where none does, starts one that ends by itself.",
    .examples = "  xinfer run object-detector.xpkg photo.jpg\n"
                "  xinfer run object-detector.xpkg *.jpg --json\n",
    .min_words = 2,
    .max_words = XI_CLI_WORDS_MAX,
    .options = run_options,
    .run = run_run};
