/* verb_why.c: why, what the daemon noted about a model or a request. */
#define _GNU_SOURCE
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "cli/cli.h"

/* "2026-11-23 18:42:05", in the reader's time zone. */
static void time_text(double at_ms, char ret[32])
{
    time_t at = (time_t)(at_ms / 1000);
    struct tm local;

    if (localtime_r(&at, &local) == NULL || strftime(ret, 32, "%F %T", &local) == 0)
        (void)snprintf(ret, 32, "?");
}

static void print_session(const json_t *now)
{
    const json_t *why = json_object_get(now, "why");
    double reserved = json_number_value(json_object_get(now, "reserved_bytes"));
    char bytes[16];

    printf("%s is %s", xi_text_of(now, "name"), xi_text_of(now, "state"));
    if (reserved > 0)
        printf(", %s reserved", xi_bytes_text(bytes, reserved));
    printf(", %.0f restarts, %.0f crashes\n", json_number_value(json_object_get(now, "restarts")),
           json_number_value(json_object_get(now, "crashes")));
    if (xi_text_of(now, "isolation_reason")[0] != '\0')
        printf("  isolation %s: %s\n", xi_text_of(now, "isolation"),
               xi_text_of(now, "isolation_reason"));
    if (xi_text_of(now, "skipped")[0] != '\0')
        printf("  variants that did not do: %s\n", xi_text_of(now, "skipped"));
    if (json_is_object(why))
        printf("  %s %s\n", xi_text_of(why, "code"), xi_text_of(why, "detail"));
}

static void print_entry(const json_t *e)
{
    const json_t *request = json_object_get(e, "request");
    char at[32];

    time_text(json_number_value(json_object_get(e, "at_ms")), at);
    printf("%s  %s", at, xi_text_of(e, "kind"));
    if (xi_text_of(e, "code")[0] != '\0')
        printf(" %s", xi_text_of(e, "code"));
    if (json_is_integer(request))
        printf(" request %lld", (long long)json_integer_value(request));
    printf("\n  %s\n", xi_text_of(e, "text"));
    if (xi_text_of(e, "hint")[0] != '\0')
        printf("  → %s\n", xi_text_of(e, "hint"));
}

static enum xi_rc run_why(struct xi_cli *cli)
{
    char path[XI_NAME_MAX + 16];
    const json_t *entries, *now;
    json_t *doc = NULL, *e;
    size_t i;
    enum xi_rc rc;

    if (strlen(cli->words[0]) > XI_NAME_MAX || strpbrk(cli->words[0], "/?%# ") != NULL)
        return xi_fail(&cli->err, XI_EINVAL, "\"%.60s\" is no name, id or number of a request",
                       cli->words[0]);
    (void)snprintf(path, sizeof path, "/v1/why/%s", cli->words[0]);
    rc = xi_cli_connect(cli);
    if (rc == XI_OK)
        rc = xi_client_json(cli->client, "GET", path, NULL, &doc, &cli->err);
    if (rc != XI_OK)
        return rc;
    entries = json_object_get(doc, "entries");
    now = json_object_get(doc, "session");
    if (cli->json) {
        xi_print_json(doc);
    } else {
        if (json_is_object(now))
            print_session(now);
        json_array_foreach((json_t *)(uintptr_t)entries, i, e) print_entry(e);
        if (json_array_size(entries) == 0)
            xi_note(cli, "nothing was refused, evicted, restarted or slow");
    }
    json_decref(doc);
    return XI_OK;
}

const struct xi_verb xi_verb_why = {
    .name = "why",
    .usage = "NAME | ID | REQUEST",
    .summary = "why a model or a request was refused, evicted, restarted, slow",
    .details = "The number of a request stands in its answer's header Xinfer-Request and in\n"
               "every error. The newest comes first; the daemon keeps the last 4096 notes.",
    .examples = "  xinfer why night\n"
                "  xinfer why 4711 --json\n",
    .min_words = 1,
    .max_words = 1,
    .run = run_why};
