/* verb_config.c: config: the settings of a running daemon, shown or changed. */
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"

static void print_tenant(const char *name, const json_t *t, struct xi_table *table)
{
    char memory[16];
    double bytes = json_number_value(json_object_get(t, "memory"));
    double rate = json_number_value(json_object_get(t, "rate"));
    long long queue = json_integer_value(json_object_get(t, "queue"));

    xi_table_cell(table, "%s", name);
    xi_table_cell(table, "%lld", (long long)json_integer_value(json_object_get(t, "weight")));
    xi_table_cell(table, "%s", bytes > 0 ? xi_bytes_text(memory, bytes) : "-");
    if (rate > 0)
        xi_table_cell(table, "%g/s", rate);
    else
        xi_table_cell(table, "-");
    if (queue > 0)
        xi_table_cell(table, "%lld", queue);
    else
        xi_table_cell(table, "-");
}

static void print_settings(const json_t *doc)
{
    static const char *const tenant_heads[] = {"TENANT", "WEIGHT", "MEMORY", "RATE", "QUEUE"};
    static const char *const model_heads[] = {"MODEL", "MAX BATCH", "MAX DELAY"};
    json_t *models = json_object_get(doc, "models"), *value;
    struct xi_table *t = xi_table_new(5, tenant_heads);
    char memory[16];
    const char *name;

    (void)printf("log level  %s\nmemory     %s\n\n",
                 json_string_value(json_object_get(doc, "log_level")),
                 xi_bytes_text(memory, json_number_value(json_object_get(doc, "memory"))));
    json_object_foreach(json_object_get(doc, "tenants"), name, value) print_tenant(name, value, t);
    xi_table_print(t);
    if (json_object_size(models) == 0)
        return;
    (void)printf("\n");
    t = xi_table_new(3, model_heads);
    json_object_foreach(models, name, value)
    {
        xi_table_cell(t, "%s", name);
        xi_table_cell(t, "%lld",
                      (long long)json_integer_value(json_object_get(value, "max_batch")));
        xi_table_cell(t, "%g ms", json_number_value(json_object_get(value, "max_delay_ms")));
    }
    xi_table_print(t);
}

/* A number, true, false, null, or else the text itself: nobody wants to quote in a shell. */
static json_t *value_of(const char *text)
{
    json_t *v = json_loads(text, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES, NULL);

    return v != NULL ? v : json_string(text);
}

/* The object `key` of obj, made if it is not there; NULL when obj cannot have one. */
static json_t *inner(json_t *obj, const char *key, size_t n)
{
    char name[XI_NAME_MAX + 1];

    if (n == 0 || n >= sizeof name)
        return NULL;
    (void)snprintf(name, sizeof name, "%.*s", (int)n, key);
    json_t *o = json_object_get(obj, name);
    if (o == NULL && json_object_set_new(obj, name, o = json_object()) != 0)
        return NULL;
    return json_is_object(o) ? o : NULL;
}

/* "log_level=debug", "tenants.acme.weight=3": a name may hold dots, the first and the last part
 * never do. */
static enum xi_rc add_word(json_t *body, const char *word, struct xi_err *err)
{
    const char *equals = strchr(word, '='), *dot = strchr(word, '.'), *last = NULL;
    char key[XI_NAME_MAX + 1];
    json_t *at = body;

    if (equals == NULL || equals == word) {
        (void)xi_fail(err, XI_EUSAGE, "\"%.60s\" says no value", word);
        return xi_hint(err, "KEY=VALUE, as in tenants.acme.weight=3");
    }
    for (const char *p = word; p < equals; p++)
        last = *p == '.' ? p : last;
    if (last != NULL) {
        at = inner(body, word, (size_t)(dot - word));
        if (at != NULL && last != dot)
            at = inner(at, dot + 1, (size_t)(last - dot - 1));
    }
    const char *from = last != NULL ? last + 1 : word;
    if (at == NULL || equals == from || equals - from > XI_NAME_MAX)
        return xi_fail(err, XI_EUSAGE, "\"%.60s\" is no setting", word);
    (void)snprintf(key, sizeof key, "%.*s", (int)(equals - from), from);
    if (json_object_set_new(at, key, value_of(equals + 1)) != 0)
        return xi_fail(err, XI_EUSAGE, "\"%.60s\" is no valid UTF-8 text", word);
    return XI_OK;
}

static enum xi_rc run_config(struct xi_cli *cli)
{
    json_t *doc = NULL, *body = NULL;
    enum xi_rc rc = XI_OK;

    if (cli->n_words > 0) {
        if (strcmp(cli->words[0], "set") != 0 || cli->n_words < 2) {
            (void)xi_fail(&cli->err, XI_EUSAGE, "usage: xinfer config [set KEY=VALUE...]");
            return xi_hint(&cli->err, "xinfer config --help tells more");
        }
        body = json_object();
        for (int i = 1; rc == XI_OK && i < cli->n_words; i++)
            rc = add_word(body, cli->words[i], &cli->err);
    }
    if (rc == XI_OK)
        rc = xi_cli_connect(cli);
    if (rc == XI_OK)
        rc = xi_client_json(cli->client, body != NULL ? "POST" : "GET", "/v1/control/configure",
                            body, &doc, &cli->err);
    if (rc == XI_OK && cli->json)
        xi_print_json(doc);
    else if (rc == XI_OK && !(cli->quiet && body != NULL))
        print_settings(doc);
    json_decref(body);
    json_decref(doc);
    return rc;
}

const struct xi_verb xi_verb_config = {
    .name = "config",
    .usage = "[set KEY=VALUE...]",
    .summary = "show or change the settings of a running daemon",
    .details = "\nChanges take effect at once and are kept over a restart, all of them or none.\n"
               "The value null goes back to what the configuration file says.\n"
               "\n"
               "  log_level                     trace, debug, info, warn, error\n"
               "  memory                        that models may reserve together: 4GiB, 80%\n"
               "  tenants.NAME.weight           share of device time against other tenants\n"
               "  tenants.NAME.memory           that its models may reserve together\n"
               "  tenants.NAME.rate             requests per second; 0: no limit\n"
               "  tenants.NAME.queue            requests that may wait; 0: no limit\n"
               "  models.NAME.max_batch         requests that may share a run\n"
               "  models.NAME.max_delay_ms      how long one may wait for others to share with",
    .examples = "  xinfer config\n"
                "  xinfer config set log_level=debug\n"
                "  xinfer config set tenants.acme.weight=3 tenants.acme.rate=100\n",
    .max_words = XI_CLI_WORDS_MAX,
    .run = run_config};
