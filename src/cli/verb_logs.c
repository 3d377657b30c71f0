/* verb_logs.c: logs: what the daemon did, line by line, and what it does from now on. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/json.h"
#include "cli/cli.h"

enum { LINE_MAX_BYTES = 64 * 1024, LAST = 50, LAST_MAX = 1024 };

static long opt_last;
static int opt_follow;
static const char *opt_level;
static const char *const levels[] = {"trace", "debug", "info", "warn", "error"};
enum { LEVELS = sizeof levels / sizeof *levels };

static const struct xi_option options[] = {
    {"follow", 'f', XI_OPTION_FLAG, &opt_follow, "", "go on as more comes, until Ctrl-C"},
    {"last", 'n', XI_OPTION_NUMBER, &opt_last, "N", "begin with the last N (50)"},
    {"level", 'l', XI_OPTION_TEXT, &opt_level, "LEVEL",
     "only these and worse: debug, info, warn, error"},
    {0},
};

static int level_of(const char *name)
{
    for (int i = 0; name != NULL && i < LEVELS; i++)
        if (strcmp(levels[i], name) == 0)
            return i;
    return -1;
}

static void print_text(const json_t *event)
{
    double at_ms = json_number_value(json_object_get(event, "at_ms"));
    const char *level = json_string_value(json_object_get(event, "level"));
    const char *name = json_string_value(json_object_get(event, "event"));
    const char *text = json_string_value(json_object_get(event, "text"));
    time_t seconds = (time_t)(at_ms / 1000);
    struct tm tm;
    char when[32];

    (void)localtime_r(&seconds, &tm);
    (void)strftime(when, sizeof when, "%F %T", &tm);
    (void)printf("%s.%03d %-5s %s %s\n", when, (int)((long long)at_ms % 1000), level ? level : "",
                 name ? name : "", text ? text : "");
}

static void print_event(const struct xi_cli *cli, const json_t *event)
{
    if (level_of(json_string_value(json_object_get(event, "level"))) < level_of(opt_level))
        return;
    if (cli->json)
        xi_print_json(event);
    else
        print_text(event);
}

static enum xi_rc print_last(struct xi_cli *cli, long last)
{
    char path[64];
    json_t *doc = NULL, *event;
    size_t i;

    (void)snprintf(path, sizeof path, "/v1/events?last=%ld", last);
    enum xi_rc rc = xi_client_json(cli->client, "GET", path, NULL, &doc, &cli->err);
    if (rc != XI_OK)
        return rc;
    json_array_foreach(json_object_get(doc, "events"), i, event) print_event(cli, event);
    json_decref(doc);
    return XI_OK;
}

static void on_event(void *ctx, const char *name, const char *data)
{
    struct xi_cli *cli = ctx;
    json_t *event = NULL;

    (void)name;
    if (xi_json_parse(data, strlen(data), LINE_MAX_BYTES, &event, NULL) != XI_OK)
        return;
    print_event(cli, event);
    (void)fflush(stdout);
    json_decref(event);
}

static enum xi_rc follow(struct xi_cli *cli, long last)
{
    char path[64];
    static const char *const headers[] = {"Accept: text/event-stream", NULL};
    struct xi_call call = {.method = "GET",
                           .path = path,
                           .headers = headers,
                           .body_fd = -1,
                           .event = on_event,
                           .event_ctx = cli};
    struct xi_answer answer;

    (void)snprintf(path, sizeof path, "/v1/events/stream?last=%ld", last);
    xi_str_init(&answer.body, LINE_MAX_BYTES);
    enum xi_rc rc = xi_client_call(cli->client, &call, &answer, &cli->err);
    xi_str_fini(&answer.body);
    if (rc == XI_OK)
        return xi_fail(&cli->err, XI_EUNREACH, "the daemon ended");
    return rc;
}

static enum xi_rc run_logs(struct xi_cli *cli)
{
    long last = opt_last > 0 ? opt_last : LAST;

    if (opt_level != NULL && level_of(opt_level) < 0)
        return xi_fail(&cli->err, XI_EUSAGE, "--level %.20s is none of debug, info, warn, error",
                       opt_level);
    if (last > LAST_MAX)
        return xi_fail(&cli->err, XI_EUSAGE, "the daemon keeps its last %d lines", LAST_MAX);
    enum xi_rc rc = xi_cli_connect(cli);
    if (rc != XI_OK)
        return rc;
    return opt_follow ? follow(cli, last) : print_last(cli, last);
}

const struct xi_verb xi_verb_logs = {
    .name = "logs",
    .usage = "[options]",
    .summary = "show what the daemon did, and does",
    .details = "The daemon keeps its last 1024 lines; the rest is where it logs to (journalctl -u\n"
               "xinferd for the service). Loads, swaps, evictions, crashes: each is an event with\n"
               "its name and its facts; --json prints one object a line.",
    .examples = "  xinfer logs -f\n"
                "  xinfer logs -n 200 --level warn\n",
    .options = options,
    .run = run_logs};
