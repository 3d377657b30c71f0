/* verb_load.c: load: a package file, an installed package or a bare model becomes a session. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/json.h"
#include "cli/cli.h"

static const char *opt_name, *opt_device, *opt_precision, *opt_variant, *opt_tenant, *opt_priority;
static long opt_instances, opt_threads;
static int opt_no_wait;

static const struct xi_option options[] = {
    {"name", 'n', XI_OPTION_TEXT, &opt_name, "NAME", "serve it under this name (the package's)"},
    {"device", 'd', XI_OPTION_TEXT, &opt_device, "DEVICE", "auto, cpu, gpu, npu (auto)"},
    {"precision", 0, XI_OPTION_TEXT, &opt_precision, "P", "f32, f16, bf16, i8 (the package's)"},
    {"variant", 0, XI_OPTION_TEXT, &opt_variant, "ID", "this variant and no other"},
    {"instances", 'i', XI_OPTION_NUMBER, &opt_instances, "N", "requests at once (one per core)"},
    {"threads", 't', XI_OPTION_NUMBER, &opt_threads, "N", "threads of each (1)"},
    {"priority", 0, XI_OPTION_TEXT, &opt_priority, "P", "realtime, normal, batch (normal)"},
    {"tenant", 0, XI_OPTION_TEXT, &opt_tenant, "NAME", "on behalf of this tenant"},
    {"no-wait", 0, XI_OPTION_FLAG, &opt_no_wait, "", "return as soon as it is accepted"},
    {0},
};

static void set_text(json_t *o, const char *key, const char *value)
{
    if (value != NULL)
        (void)json_object_set_new(o, key, json_string(value));
}

static json_t *load_body(const char *package)
{
    json_t *body = json_pack("{s:s, s:b}", "package", package, "wait", !opt_no_wait);
    json_t *opts = json_object();

    set_text(body, "name", opt_name);
    set_text(body, "device", opt_device);
    set_text(body, "tenant", opt_tenant);
    set_text(body, "priority", opt_priority);
    set_text(opts, "precision", opt_precision);
    set_text(opts, "variant", opt_variant);
    if (opt_instances > 0)
        (void)json_object_set_new(opts, "instances", json_integer(opt_instances));
    if (opt_threads > 0)
        (void)json_object_set_new(opts, "threads", json_integer(opt_threads));
    if (json_object_size(opts) > 0)
        (void)json_object_set(body, "options", opts);
    json_decref(opts);
    return body;
}

struct loading {
    const char *what;
    char phase[48];
    int permille, rc;
    uint64_t started_ms;
    json_t *session;
    struct xi_err *err;
};

static void on_load_event(void *ctx, const char *name, const char *data)
{
    struct loading *l = ctx;
    json_t *doc = NULL;

    if (strcmp(name, "problem") == 0) {
        l->rc = xi_client_problem(data, strlen(data), 0, l->err);
        return;
    }
    if (xi_json_parse(data, strlen(data), XI_MIB, &doc, NULL) != XI_OK)
        return;
    if (strcmp(name, "loaded") == 0) {
        json_decref(l->session);
        l->session = doc;
        return;
    }
    const char *phase = json_string_value(json_object_get(doc, "phase"));
    const char *state = json_string_value(json_object_get(doc, "state"));
    (void)snprintf(l->phase, sizeof l->phase, "%s", phase && *phase ? phase : state ? state : "");
    l->permille = (int)json_integer_value(json_object_get(doc, "permille"));
    json_decref(doc);
}

static void on_load_tick(void *ctx, uint64_t done, uint64_t total)
{
    const struct loading *l = ctx;

    (void)done;
    (void)total;
    xi_progress_phase(l->what, l->phase, l->permille, l->started_ms);
}

/* Phases come as server-sent events, the session (or the problem) as the last of them. */
static enum xi_rc load_with_events(struct xi_cli *cli, const char *what, const char *text,
                                   json_t **ret)
{
    static const char *const headers[] = {"Content-Type: application/json",
                                          "Accept: text/event-stream", NULL};
    const char *slash = strrchr(what, '/');
    struct loading l = {.what = slash ? slash + 1 : what,
                        .phase = "loading",
                        .permille = -1,
                        .started_ms = xi_now_ms(),
                        .err = &cli->err};
    struct xi_answer answer = {0};
    struct xi_call call = {.method = "POST",
                           .path = "/v1/control/load",
                           .headers = headers,
                           .body = text,
                           .body_fd = -1,
                           .body_bytes = strlen(text),
                           .progress = on_load_tick,
                           .progress_ctx = &l,
                           .event = on_load_event,
                           .event_ctx = &l};

    xi_str_init(&answer.body, 16 * XI_MIB);
    enum xi_rc rc = xi_client_call(cli->client, &call, &answer, &cli->err);
    xi_progress_end();
    xi_str_fini(&answer.body);
    if (rc == XI_OK)
        rc = (enum xi_rc)l.rc;
    if (rc == XI_OK && l.session == NULL)
        rc = xi_fail(&cli->err, XI_EUNREACH, "the daemon left before %.60s was loaded", what);
    if (rc == XI_OK)
        *ret = l.session;
    else
        json_decref(l.session);
    return rc;
}

enum xi_rc xi_cli_load(struct xi_cli *cli, const char *what, json_t *body, json_t **ret)
{
    char *text = json_dumps(body, JSON_COMPACT);
    int waits = !json_is_false(json_object_get(body, "wait"));
    enum xi_rc rc;

    if (text == NULL)
        rc = xi_fail(&cli->err, XI_EUSAGE, "an argument is no valid UTF-8 text");
    else if (waits)
        rc = load_with_events(cli, what, text, ret);
    else
        rc = xi_client_json(cli->client, "POST", "/v1/control/load", body, ret, &cli->err);
    json_decref(body);
    free(text);
    return rc;
}

static void print_session(const struct xi_cli *cli, const json_t *s)
{
    char memory[16], engine[48];
    const char *engine_name = json_string_value(json_object_get(s, "engine"));
    const char *name = json_string_value(json_object_get(s, "name"));

    if (cli->json) {
        xi_print_json(s);
        return;
    }
    if (cli->quiet) {
        (void)puts(json_string_value(json_object_get(s, "id")));
        return;
    }
    (void)printf("%s %s is %s  (%s on %s, %s, session %.8s)\n", name,
                 json_string_value(json_object_get(s, "version")),
                 json_string_value(json_object_get(s, "state")),
                 xi_engine_text(engine, engine_name ? engine_name : "?"),
                 json_string_value(json_object_get(s, "device")),
                 xi_bytes_text(memory, json_number_value(json_object_get(s, "memory"))),
                 json_string_value(json_object_get(s, "id")));
    xi_note(cli, "next: xinfer infer %s INPUT", name);
}

static enum xi_rc run_load(struct xi_cli *cli)
{
    char package[200];
    json_t *session = NULL;
    enum xi_rc rc = xi_cli_connect(cli);

    if (rc == XI_OK)
        rc = xi_cli_package(cli, cli->words[0], package, sizeof package);
    if (rc == XI_OK)
        rc = xi_cli_load(cli, cli->words[0], load_body(package), &session);
    if (rc == XI_OK)
        print_session(cli, session);
    json_decref(session);
    return rc;
}

const struct xi_verb xi_verb_load = {
    .name = "load",
    .usage = "FILE|NAME[:VERSION]|DIGEST [options]",
    .summary = "load a model: a package, or a bare .onnx, .tflite, .xml or .xref file",
    .details =
        "A file is uploaded unless the daemon has it already. The session is READY when it has\n"
        "been warmed up and its golden sample was answered rightly.",
    .examples = "  xinfer load object-detector.xpkg\n"
                "  xinfer load classifier.onnx --name night --instances 2\n",
    .min_words = 1,
    .max_words = 1,
    .options = options,
    .run = run_load};
