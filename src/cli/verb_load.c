/* verb_load.c: load: a package file, an installed package or a bare model becomes a session. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/json.h"
#include "cli/cli.h"

static const char *opt_name, *opt_device, *opt_precision, *opt_variant, *opt_tenant, *opt_priority,
    *opt_canary, *opt_strategy, *opt_keep_alive, *opt_max_delay, *opt_isolation, *opt_max_shape,
    *opt_cache, *opt_canary_s;
static long opt_instances, opt_threads, opt_max_batch;
static int opt_no_wait, opt_replace, opt_pinned, opt_lazy, opt_dry_run;

static const struct xi_option options[] = {
    {"name", 'n', XI_OPTION_TEXT, &opt_name, "NAME", "serve it under this name (the package's)"},
    {"device", 'd', XI_OPTION_TEXT, &opt_device, "DEVICE", "auto, cpu, gpu, npu (auto)"},
    {"precision", 0, XI_OPTION_TEXT, &opt_precision, "P", "f32, f16, bf16, i8 (the package's)"},
    {"variant", 0, XI_OPTION_TEXT, &opt_variant, "ID", "this variant and no other"},
    {"instances", 'i', XI_OPTION_NUMBER, &opt_instances, "N", "requests at once (one per core)"},
    {"threads", 't', XI_OPTION_NUMBER, &opt_threads, "N", "threads of each (1)"},
    {"max-batch", 0, XI_OPTION_NUMBER, &opt_max_batch, "N", "rows that may share a run"},
    {"max-delay-ms", 0, XI_OPTION_TEXT, &opt_max_delay, "MS", "how long a run waits for more (0)"},
    {"max-shape", 0, XI_OPTION_TEXT, &opt_max_shape, "S", "largest shapes: input=1,3,640,640"},
    {"cache", 0, XI_OPTION_TEXT, &opt_cache, "SIZE", "keep answers for equal inputs: 64MiB"},
    {"isolation", 0, XI_OPTION_TEXT, &opt_isolation, "I", "auto, session, tenant, device (auto)"},
    {"priority", 0, XI_OPTION_TEXT, &opt_priority, "P", "realtime, normal, batch (normal)"},
    {"tenant", 0, XI_OPTION_TEXT, &opt_tenant, "NAME", "on behalf of this tenant"},
    {"pinned", 0, XI_OPTION_FLAG, &opt_pinned, "", "never make room for others with it"},
    {"lazy", 0, XI_OPTION_FLAG, &opt_lazy, "", "load it with its first request"},
    {"keep-alive", 0, XI_OPTION_TEXT, &opt_keep_alive, "TIME", "unload after idling: 90s, 5m, 2h"},
    {"replace", 'r', XI_OPTION_FLAG, &opt_replace, "", "take the place of what has this name"},
    {"strategy", 0, XI_OPTION_TEXT, &opt_strategy, "S", "auto, beside, in-place, shadow (auto)"},
    {"canary", 0, XI_OPTION_TEXT, &opt_canary, "SHARE", "try it with a share first: 10% or 0.1"},
    {"canary-time", 0, XI_OPTION_TEXT, &opt_canary_s, "TIME", "of canary and shadow (30s)"},
    {"dry-run", 0, XI_OPTION_FLAG, &opt_dry_run, "", "say what would happen, load nothing"},
    {"no-wait", 0, XI_OPTION_FLAG, &opt_no_wait, "", "return as soon as it is accepted"},
    {0},
};

static void set_text(json_t *o, const char *key, const char *value)
{
    if (value != NULL)
        (void)json_object_set_new(o, key, json_string(value));
}

static void set_number(json_t *o, const char *key, long value)
{
    if (value != 0)
        (void)json_object_set_new(o, key, json_integer(value));
}

static void set_flag(json_t *o, const char *key, int value)
{
    if (value)
        (void)json_object_set_new(o, key, json_true());
}

/* "90", "90s", "5m", "2h": seconds. */
static enum xi_rc set_time(json_t *o, const char *key, const char *option, const char *text,
                           struct xi_err *err)
{
    char *end = NULL;
    long n = text != NULL ? strtol(text, &end, 10) : 0;
    long unit = text == NULL || *end == '\0' || strcmp(end, "s") == 0 ? 1
                : strcmp(end, "m") == 0                               ? 60
                : strcmp(end, "h") == 0                               ? 3600
                                                                      : 0;

    if (text == NULL)
        return XI_OK;
    if (end == text || unit == 0 || n < 0 || n > 100000000)
        return xi_fail(err, XI_EUSAGE, "--%s takes a time such as 90s, 5m or 2h, not \"%.20s\"",
                       option, text);
    (void)json_object_set_new(o, key, json_integer(n * unit));
    return XI_OK;
}

/* A number with a fraction; "10%" where percent is allowed. */
static enum xi_rc set_real(json_t *o, const char *key, const char *option, const char *text,
                           int percent, struct xi_err *err)
{
    char *end = NULL;
    double n = text != NULL ? strtod(text, &end) : 0;

    if (text == NULL)
        return XI_OK;
    if (percent && strcmp(end, "%") == 0) {
        n /= 100;
        end++;
    }
    if (end == text || *end != '\0' || !(n >= 0 && n <= 1e9))
        return xi_fail(err, XI_EUSAGE, "--%s takes a number%s, not \"%.20s\"", option,
                       percent ? " such as 0.1 or 10%" : "", text);
    (void)json_object_set_new(o, key, json_real(n));
    return XI_OK;
}

static enum xi_rc load_options(json_t *opts, struct xi_err *err)
{
    enum xi_rc rc;

    set_text(opts, "precision", opt_precision);
    set_text(opts, "variant", opt_variant);
    set_text(opts, "max_shape", opt_max_shape);
    set_text(opts, "isolation", opt_isolation);
    set_text(opts, "cache", opt_cache);
    set_number(opts, "instances", opt_instances);
    set_number(opts, "threads", opt_threads);
    set_number(opts, "max_batch", opt_max_batch);
    rc = set_real(opts, "max_delay_ms", "max-delay-ms", opt_max_delay, 0, err);
    if (rc == XI_OK)
        rc = set_time(opts, "keep_alive_s", "keep-alive", opt_keep_alive, err);
    return rc;
}

/* What is asked of the daemon; freed by the caller. */
static enum xi_rc load_body(const char *package, json_t **ret, struct xi_err *err)
{
    json_t *body = json_pack("{s:s, s:b}", "package", package, "wait", !opt_no_wait);
    json_t *opts = json_object();
    enum xi_rc rc = load_options(opts, err);

    set_text(body, "name", opt_name);
    set_text(body, "device", opt_device);
    set_text(body, "tenant", opt_tenant);
    set_text(body, "priority", opt_priority);
    set_text(body, "strategy", opt_strategy);
    set_flag(body, "pinned", opt_pinned);
    set_flag(body, "lazy", opt_lazy);
    set_flag(body, "dry_run", opt_dry_run);
    set_flag(body, "replace", opt_replace);
    if (rc == XI_OK)
        rc = set_real(body, "canary", "canary", opt_canary, 1, err);
    if (rc == XI_OK)
        rc = set_time(body, "canary_s", "canary-time", opt_canary_s, err);
    if (json_object_size(opts) > 0)
        (void)json_object_set(body, "options", opts);
    json_decref(opts);
    *ret = body;
    return rc;
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
    const char *swap = json_string_value(json_object_get(doc, "swap"));
    int loads = swap == NULL || strcmp(swap, "load") == 0;
    (void)snprintf(l->phase, sizeof l->phase, "%s",
                   !loads            ? swap
                   : phase && *phase ? phase
                   : state           ? state
                                     : "");
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
    int waits =
        !json_is_false(json_object_get(body, "wait")) && json_object_get(body, "dry_run") == NULL;
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

/* Whom it replaced, or how its trial stands. */
static void print_swap(const struct xi_cli *cli, const json_t *s)
{
    const json_t *replaced = json_object_get(s, "replaced"), *swap = json_object_get(s, "swap");
    const char *name = json_string_value(json_object_get(s, "name"));

    if (replaced != NULL)
        xi_note(cli, "it took the place of %s (session %.8s), %s",
                json_string_value(json_object_get(replaced, "version")),
                json_string_value(json_object_get(replaced, "id")),
                json_string_value(json_object_get(s, "strategy")));
    if (swap != NULL)
        xi_note(cli, "on trial (%s): xinfer promote %s, or xinfer rollback %s",
                json_string_value(json_object_get(swap, "phase")), name, name);
}

static void print_session(const struct xi_cli *cli, const json_t *s)
{
    char memory[16], engine[48];
    const char *engine_name = json_string_value(json_object_get(s, "engine"));
    const char *name = json_string_value(json_object_get(s, "name"));
    const char *state = json_string_value(json_object_get(s, "state"));

    if (cli->json) {
        xi_print_json(s);
        return;
    }
    if (cli->quiet) {
        (void)puts(json_string_value(json_object_get(s, "id")));
        return;
    }
    (void)printf("%s %s is %s  (", name, json_string_value(json_object_get(s, "version")), state);
    if (strcmp(state, "IDLE") == 0)
        (void)printf("its first request loads it");
    else
        (void)printf("%s on %s, %s", xi_engine_text(engine, engine_name ? engine_name : "?"),
                     json_string_value(json_object_get(s, "device")),
                     xi_bytes_text(memory, json_number_value(json_object_get(s, "memory"))));
    (void)printf(", session %.8s)\n", json_string_value(json_object_get(s, "id")));
    print_swap(cli, s);
    xi_note(cli, "next: xinfer infer %s INPUT", name);
}

static const char *figure_text(const char *figure)
{
    if (figure != NULL && strcmp(figure, "measured") == 0)
        return " (measured)";
    return figure != NULL && strcmp(figure, "guessed") == 0 ? " (guessed from its files)"
                                                            : " (its own estimate)";
}

static void print_plan(const struct xi_cli *cli, const json_t *p)
{
    char needed[16], free_text[16];
    const json_t *why = json_object_get(p, "why");
    const char *evicts = json_string_value(json_object_get(p, "evicts"));

    if (cli->json) {
        xi_print_json(p);
        return;
    }
    (void)printf("variant    %s (%s on %s)\n", json_string_value(json_object_get(p, "variant")),
                 json_string_value(json_object_get(p, "engine")),
                 json_string_value(json_object_get(p, "device")));
    (void)printf("isolation  %s: %s\n", json_string_value(json_object_get(p, "isolation")),
                 json_string_value(json_object_get(p, "isolation_reason")));
    (void)printf(
        "memory     %s%s%s%s\n",
        xi_bytes_text(needed, json_number_value(json_object_get(p, "memory_needed"))),
        figure_text(json_string_value(json_object_get(p, "memory_figure"))),
        json_is_number(json_object_get(p, "memory_free")) ? ", free: " : "",
        json_is_number(json_object_get(p, "memory_free"))
            ? xi_bytes_text(free_text, json_number_value(json_object_get(p, "memory_free")))
            : "");
    if (evicts != NULL && evicts[0] != '\0')
        (void)printf("evicts     %s\n", evicts);
    if (json_is_true(json_object_get(p, "admitted")))
        (void)printf("admitted   yes\n");
    else
        (void)printf("admitted   no: %s\n", json_string_value(json_object_get(why, "detail")));
}

static enum xi_rc run_load(struct xi_cli *cli)
{
    char package[200];
    json_t *session = NULL, *body = NULL;
    enum xi_rc rc = xi_cli_connect(cli);

    if (rc == XI_OK)
        rc = xi_cli_package(cli, cli->words[0], package, sizeof package);
    if (rc == XI_OK)
        rc = load_body(package, &body, &cli->err);
    if (rc == XI_OK)
        rc = xi_cli_load(cli, cli->words[0], body, &session);
    else
        json_decref(body);
    if (rc == XI_OK && opt_dry_run)
        print_plan(cli, session);
    else if (rc == XI_OK)
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
                "  xinfer load classifier.onnx --name night --instances 2\n"
                "  xinfer load classifier-2.onnx --name night --replace --canary 10%\n",
    .min_words = 1,
    .max_words = 1,
    .options = options,
    .run = run_load};

/* ---- the end of a trial ---- */

static enum xi_rc decide(struct xi_cli *cli, const char *path, const char *what)
{
    json_t *body = json_pack("{s:s}", "name", cli->words[0]), *session = NULL;
    enum xi_rc rc = xi_cli_connect(cli);

    set_text(body, "tenant", opt_tenant);
    if (rc == XI_OK)
        rc = xi_client_json(cli->client, "POST", path, body, &session, &cli->err);
    if (rc == XI_OK && cli->json)
        xi_print_json(session);
    else if (rc == XI_OK && cli->quiet)
        (void)puts(json_string_value(json_object_get(session, "id")));
    else if (rc == XI_OK)
        (void)printf("%s %s: %s serves (session %.8s)\n", what, cli->words[0],
                     json_string_value(json_object_get(session, "version")),
                     json_string_value(json_object_get(session, "id")));
    json_decref(session);
    json_decref(body);
    return rc;
}

static enum xi_rc run_promote(struct xi_cli *cli)
{
    return decide(cli, "/v1/control/promote", "promoted");
}

static enum xi_rc run_rollback(struct xi_cli *cli)
{
    return decide(cli, "/v1/control/rollback", "rolled back");
}

static const struct xi_option of_tenant[] = {
    {"tenant", 0, XI_OPTION_TEXT, &opt_tenant, "NAME", "on behalf of this tenant"}, {0}};

const struct xi_verb xi_verb_promote = {
    .name = "promote",
    .usage = "NAME",
    .summary = "end a canary or shadow: the new version serves",
    .examples = "  xinfer load night-2.xpkg --name night --replace --canary 10%\n"
                "  xinfer promote night\n",
    .min_words = 1,
    .max_words = 1,
    .options = of_tenant,
    .run = run_promote};

const struct xi_verb xi_verb_rollback = {
    .name = "rollback",
    .usage = "NAME",
    .summary = "end a swap that is not decided: the old one serves on",
    .min_words = 1,
    .max_words = 1,
    .options = of_tenant,
    .run = run_rollback};
