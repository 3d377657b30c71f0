/* verb_help.c: help (commands and error codes) and version. */
#define _GNU_SOURCE
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include "cli/cli.h"

enum { PLUGINS_MAX = 16 };

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct xi_plugin_file *)a)->name,
                  ((const struct xi_plugin_file *)b)->name);
}

int xi_cli_plugins(struct xi_plugin_file *ret, int max)
{
    static const char head[] = "libxinfer_engine_";
    char folder[512];
    struct dirent *e;
    struct stat st;
    int n = 0;

    if (xi_cli_program("../lib/xinfer", folder, sizeof folder, NULL) != XI_OK)
        return 0;
    DIR *dir = opendir(folder);
    while (dir != NULL && n < max && (e = readdir(dir)) != NULL) {
        const char *name = e->d_name + sizeof head - 1, *end = strstr(e->d_name, ".so");
        if (strncmp(e->d_name, head, sizeof head - 1) != 0 || end == NULL || end[3] != '\0' ||
            end <= name || fstatat(dirfd(dir), e->d_name, &st, 0) != 0)
            continue;
        (void)snprintf(ret[n].name, sizeof ret[n].name, "%.*s", (int)(end - name), name);
        ret[n++].open_to_all = (st.st_mode & S_IWOTH) != 0;
    }
    if (dir != NULL)
        (void)closedir(dir);
    qsort(ret, (size_t)n, sizeof *ret, by_name);
    return n;
}

static enum xi_rc run_version(struct xi_cli *cli)
{
    struct xi_plugin_file plugins[PLUGINS_MAX];
    int n = xi_cli_plugins(plugins, PLUGINS_MAX);

    if (!cli->json) {
        (void)printf("xinfer %s\n", XI_VERSION);
        return XI_OK;
    }
    json_t *engines = json_array();
    for (int i = 0; i < n; i++)
        (void)json_array_append_new(engines, json_string(plugins[i].name));
    json_t *o = json_pack("{s:s, s:o}", "version", XI_VERSION, "engines", engines);
    xi_print_json(o);
    json_decref(o);
    return XI_OK;
}

/* "XI-0502", "xi-502" and "502" are the same code. */
static int code_number(const char *word)
{
    char *end;

    if (strncasecmp(word, "XI-", 3) == 0)
        word += 3;
    long n = strtol(word, &end, 10);
    return *word >= '0' && *word <= '9' && *end == '\0' && n > 0 && n < 10000 ? (int)n : 0;
}

static enum xi_rc explain_code(struct xi_cli *cli, const char *word)
{
    int number = -code_number(word);

    if (number == 0 || !xi_rc_known(number)) {
        (void)xi_fail(&cli->err, XI_ENOENT, "there is no error %.20s", word);
        return xi_hint(&cli->err, "codes look like XI-0502");
    }
    enum xi_rc rc = (enum xi_rc)number;
    if (!cli->json) {
        (void)printf("%s  %s\n\n%s\n\nname %s, HTTP status %d, gRPC status %d, exit code %d\n",
                     xi_rc_code(rc), xi_rc_title(rc), xi_code_help(rc), xi_rc_name(rc),
                     xi_rc_http(rc), xi_rc_grpc(rc), xi_rc_exit(rc));
        return XI_OK;
    }
    json_t *o = json_pack("{s:s, s:s, s:s, s:s, s:i, s:i, s:i}", "code", xi_rc_code(rc), "title",
                          xi_rc_title(rc), "help", xi_code_help(rc), "name", xi_rc_name(rc), "http",
                          xi_rc_http(rc), "grpc", xi_rc_grpc(rc), "exit", xi_rc_exit(rc));
    xi_print_json(o);
    json_decref(o);
    return XI_OK;
}

static void list_verb(const struct xi_verb *verb)
{
    json_t *options = json_array();

    for (const struct xi_option *o = verb->options; o != NULL && o->name != NULL; o++)
        (void)json_array_append_new(options, json_pack("{s:s, s:s, s:s}", "name", o->name, "value",
                                                       o->value, "help", o->help));
    json_t *v =
        json_pack("{s:s, s:s, s:s, s:s, s:s, s:o}", "command", verb->name, "usage", verb->usage,
                  "summary", verb->summary, "details", verb->details ? verb->details : "",
                  "examples", verb->examples ? verb->examples : "", "options", options);
    xi_print_json(v);
    json_decref(v);
}

static enum xi_rc run_help(struct xi_cli *cli)
{
    const char *word = cli->n_words == 1 ? cli->words[0] : NULL;
    const struct xi_verb *verb = word ? xi_verb_find(word) : NULL;

    if (word != NULL && verb == NULL)
        return strncasecmp(word, "XI-", 3) == 0 || code_number(word) > 0
                   ? explain_code(cli, word)
                   : xi_cli_unknown_verb(word, &cli->err);
    if (!cli->json)
        xi_cli_help(verb);
    for (int i = 0; cli->json && xi_verbs[i] != NULL; i++)
        if (verb == NULL || verb == xi_verbs[i])
            list_verb(xi_verbs[i]);
    return XI_OK;
}

const struct xi_verb xi_verb_version = {
    .name = "version", .usage = "", .summary = "print the version", .run = run_version};
const struct xi_verb xi_verb_help = {.name = "help",
                                     .usage = "[COMMAND|XI-NNNN]",
                                     .summary = "explain a command or an error code",
                                     .max_words = 1,
                                     .run = run_help};
