/* verb_list.c: ls (packages), ps (sessions), unload. */
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"

static double number_of(const json_t *o, const char *key)
{
    return json_number_value(json_object_get(o, key));
}

/* GET path, then hand out its array `key`. */
static enum xi_rc get_list(struct xi_cli *cli, const char *path, const char *key, json_t **ret_doc,
                           const json_t **ret_list)
{
    enum xi_rc rc = xi_cli_connect(cli);

    if (rc == XI_OK)
        rc = xi_client_json(cli->client, "GET", path, NULL, ret_doc, &cli->err);
    if (rc == XI_OK)
        *ret_list = json_object_get(*ret_doc, key);
    return rc;
}

static void print_rows(const struct xi_cli *cli, const json_t *list, const char *id_key,
                       void (*row)(struct xi_table *t, const json_t *item), struct xi_table *t)
{
    size_t i;
    json_t *item;

    json_array_foreach((json_t *)(uintptr_t)list, i, item)
    {
        if (cli->json)
            xi_print_json(item);
        else if (cli->quiet)
            (void)puts(xi_text_of(item, id_key));
        else
            row(t, item);
    }
    if (cli->json || cli->quiet)
        return;
    xi_table_print(t);
}

static void package_row(struct xi_table *t, const json_t *p)
{
    char size[16];

    xi_table_cell(t, "%s", xi_text_of(p, "name"));
    xi_table_cell(t, "%s", xi_text_of(p, "version"));
    xi_table_cell(t, "%s", xi_bytes_text(size, number_of(p, "bytes")));
    xi_table_cell(t, "%.12s", xi_text_of(p, "digest"));
    xi_table_cell(t, "%s", xi_text_of(p, "description"));
}

static enum xi_rc run_ls(struct xi_cli *cli)
{
    static const char *const heads[] = {"NAME", "VERSION", "SIZE", "DIGEST", "DESCRIPTION"};
    json_t *doc = NULL;
    const json_t *list = NULL;
    enum xi_rc rc = get_list(cli, "/v1/packages", "packages", &doc, &list);

    if (rc == XI_OK)
        print_rows(cli, list, "digest", package_row,
                   cli->json || cli->quiet ? NULL : xi_table_new(5, heads));
    json_decref(doc);
    return rc;
}

/* "READY 10 %" while a swap tries it on a share of the requests. */
static void state_cell(struct xi_table *t, const json_t *s)
{
    const json_t *swap = json_object_get(s, "swap");
    double share = number_of(swap, "canary");
    int is_new = strcmp(xi_text_of(swap, "role"), "new") == 0;

    if (strcmp(xi_text_of(swap, "phase"), "canary") == 0)
        xi_table_cell(t, "%s %.3g %%", xi_text_of(s, "state"), 100 * (is_new ? share : 1 - share));
    else
        xi_table_cell(t, "%s", xi_text_of(s, "state"));
}

static void session_row(struct xi_table *t, const json_t *s)
{
    char size[16], engine[48];
    const json_t *latency = json_object_get(json_object_get(s, "latency_us"), "p50");

    xi_table_cell(t, "%s", xi_text_of(s, "name"));
    xi_table_cell(t, "%s", xi_text_of(s, "version"));
    xi_table_cell(t, "%s", xi_text_of(s, "tenant"));
    state_cell(t, s);
    xi_table_cell(t, "%s", xi_engine_text(engine, xi_text_of(s, "engine")));
    xi_table_cell(t, "%s", xi_text_of(s, "device"));
    xi_table_cell(t, "%s", xi_bytes_text(size, number_of(s, "memory")));
    xi_table_cell(t, "%.1f", number_of(s, "fps"));
    xi_table_cell(t, "%.0f", number_of(s, "queued"));
    if (latency == NULL)
        xi_table_cell(t, "-");
    else
        xi_table_cell(t, "%.1f ms", json_number_value(latency) / 1000.0);
    xi_table_cell(t, "%s", xi_text_of(s, "isolation"));
    xi_table_cell(t, "%.8s", xi_text_of(s, "id"));
}

static enum xi_rc run_ps(struct xi_cli *cli)
{
    static const char *const heads[] = {"NAME",   "VERSION", "TENANT",    "STATE",
                                        "ENGINE", "DEVICE",  "MEMORY",    "FPS",
                                        "QUEUE",  "P50",     "ISOLATION", "ID"};
    json_t *doc = NULL;
    const json_t *list = NULL;
    enum xi_rc rc = get_list(cli, "/v1/models", "models", &doc, &list);

    if (rc == XI_OK)
        print_rows(cli, list, "id", session_row,
                   cli->json || cli->quiet ? NULL : xi_table_new(12, heads));
    json_decref(doc);
    return rc;
}

enum xi_rc xi_cli_unload(struct xi_cli *cli, const char *which, json_t **ret)
{
    int is_id = strlen(which) == XI_UUID_TEXT && which[8] == '-';
    json_t *body = json_pack("{s:s}", is_id ? "id" : "name", which);

    if (body == NULL)
        return xi_fail(&cli->err, XI_EUSAGE, "that name is no valid UTF-8 text");
    enum xi_rc rc = xi_client_json(cli->client, "POST", "/v1/control/unload", body, ret, &cli->err);
    json_decref(body);
    return rc;
}

static enum xi_rc run_unload(struct xi_cli *cli)
{
    json_t *doc = NULL;
    char freed[16];
    enum xi_rc rc = xi_cli_connect(cli);

    if (rc == XI_OK)
        rc = xi_cli_unload(cli, cli->words[0], &doc);
    if (rc == XI_OK && cli->json)
        xi_print_json(doc);
    else if (rc == XI_OK && cli->quiet)
        (void)puts(xi_text_of(doc, "id"));
    else if (rc == XI_OK)
        xi_note(cli, "unloaded %s, %s given back", xi_text_of(doc, "name"),
                xi_bytes_text(freed, number_of(doc, "freed")));
    json_decref(doc);
    return rc;
}

const struct xi_verb xi_verb_ls = {
    .name = "ls", .usage = "", .summary = "list the packages that are installed", .run = run_ls};
const struct xi_verb xi_verb_ps = {
    .name = "ps",
    .usage = "",
    .summary = "list the sessions: what is loaded, in which state, how busy",
    .run = run_ps};
const struct xi_verb xi_verb_unload = {.name = "unload",
                                       .usage = "NAME|ID",
                                       .summary =
                                           "end a session: finish its requests, free its memory",
                                       .min_words = 1,
                                       .max_words = 1,
                                       .run = run_unload};
