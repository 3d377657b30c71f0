/* options.c: the command line of one verb, and its help, from one table. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "cli/cli.h"

enum { OPTIONS_MAX = 32, NUMBER_MAX = 1000000000 };

struct option_set {
    struct xi_option all[OPTIONS_MAX];
    int n, help;
};

static void collect(struct option_set *set, struct xi_cli *cli, const struct xi_verb *verb)
{
    const struct xi_option global[] = {
        {"server", 0, XI_OPTION_TEXT, &cli->server, "URL", ""},
        {"json", 0, XI_OPTION_FLAG, &cli->json, "", ""},
        {"quiet", 'q', XI_OPTION_FLAG, &cli->quiet, "", ""},
        {"help", 'h', XI_OPTION_FLAG, &set->help, "", ""},
    };

    set->n = 0;
    set->help = 0;
    for (size_t i = 0; i < sizeof global / sizeof *global; i++)
        set->all[set->n++] = global[i];
    for (const struct xi_option *o = verb->options; o != NULL && o->name != NULL; o++)
        if (set->n < OPTIONS_MAX)
            set->all[set->n++] = *o;
}

static const struct xi_option *find_option(const struct option_set *set, const char *word,
                                           size_t len)
{
    for (int i = 0; i < set->n; i++) {
        const struct xi_option *o = &set->all[i];
        if (word[0] == '-' && strlen(o->name) == len - 1 &&
            strncmp(o->name, word + 1, len - 1) == 0)
            return o;
        if (word[0] != '-' && len == 1 && o->letter == word[0])
            return o;
    }
    return NULL;
}

static enum xi_rc unknown_option(const struct option_set *set, const char *word,
                                 const struct xi_verb *verb, struct xi_err *err)
{
    const char *names[OPTIONS_MAX + 1] = {0};

    for (int i = 0; i < set->n; i++)
        names[i] = set->all[i].name;
    while (*word == '-')
        word++;
    const char *near = xi_nearest(word, names);
    (void)xi_fail(err, XI_EUSAGE, "%s has no option \"--%.40s\"", verb->name, word);
    if (near != NULL)
        return xi_hint(err, "did you mean --%s?", near);
    return xi_hint(err, "xinfer %s --help", verb->name);
}

static enum xi_rc store_value(const struct xi_option *o, const char *value, struct xi_err *err)
{
    char *end;

    if (o->kind == XI_OPTION_TEXT) {
        *(const char **)o->target = value;
        return XI_OK;
    }
    long n = strtol(value, &end, 10);
    if (*value == '\0' || *end != '\0' || n < 1 || n > NUMBER_MAX)
        return xi_fail(err, XI_EUSAGE, "--%s takes a whole number from 1 on, not \"%.40s\"",
                       o->name, value);
    *(long *)o->target = n;
    return XI_OK;
}

/* One option at argv[*at]; moves *at past its value. */
static enum xi_rc take_option(const struct option_set *set, const struct xi_verb *verb, int argc,
                              char **argv, int *at, struct xi_err *err)
{
    const char *word = argv[*at] + 1, *equals = strchr(word, '=');
    size_t len = equals ? (size_t)(equals - word) : strlen(word);
    const struct xi_option *o = find_option(set, word, len);

    if (o == NULL)
        return unknown_option(set, argv[*at], verb, err);
    if (o->kind == XI_OPTION_FLAG) {
        *(int *)o->target = 1;
        return XI_OK;
    }
    if (equals != NULL)
        return store_value(o, equals + 1, err);
    if (*at + 1 >= argc)
        return xi_fail(err, XI_EUSAGE, "--%s needs a value: %s", o->name, o->value);
    return store_value(o, argv[++*at], err);
}

static enum xi_rc check_words(const struct xi_cli *cli, const struct xi_verb *verb,
                              struct xi_err *err)
{
    if (cli->n_words >= verb->min_words && cli->n_words <= verb->max_words)
        return XI_OK;
    (void)xi_fail(err, XI_EUSAGE, "usage: xinfer %s%s%s", verb->name, verb->usage[0] ? " " : "",
                  verb->usage);
    return xi_hint(err, "xinfer %s --help tells more", verb->name);
}

enum xi_rc xi_cli_parse(struct xi_cli *cli, const struct xi_verb *verb, int argc, char **argv,
                        int *ret_help)
{
    struct option_set set;
    enum xi_rc rc = XI_OK;
    int only_words = 0;

    collect(&set, cli, verb);
    for (int i = 0; i < argc && rc == XI_OK; i++) {
        int is_option = !only_words && argv[i][0] == '-' && argv[i][1] != '\0';
        if (is_option && strcmp(argv[i], "--") == 0)
            only_words = 1;
        else if (is_option)
            rc = take_option(&set, verb, argc, argv, &i, &cli->err);
        else if (cli->n_words < XI_CLI_WORDS_MAX)
            cli->words[cli->n_words++] = argv[i];
        else
            rc = xi_fail(&cli->err, XI_EUSAGE, "more than %d arguments", XI_CLI_WORDS_MAX);
    }
    *ret_help = set.help;
    if (rc != XI_OK || set.help)
        return rc;
    return check_words(cli, verb, &cli->err);
}

static void help_overview(void)
{
    (void)printf("xinfer: run and serve models on this machine\n\n");
    for (int i = 0; xi_verbs[i] != NULL; i++)
        (void)printf("  %-9s %s\n", xi_verbs[i]->name, xi_verbs[i]->summary);
    (void)printf(
        "\nStart here:\n"
        "  xinfer run object-detector.xpkg photo.jpg    one shot: see what is in a picture\n"
        "  xinfer serve object-detector.xpkg            a daemon that answers on port 9470\n"
        "\nEvery command takes --server URL (http://host:port or unix:/path; or the\n"
        "environment's XINFER_SERVER), --json for machines, -q for less, --help for more.\n");
}

void xi_cli_help(const struct xi_verb *verb)
{
    if (verb == NULL) {
        help_overview();
        return;
    }
    (void)printf("xinfer %s%s%s\n\n%s.\n", verb->name, verb->usage[0] ? " " : "", verb->usage,
                 verb->summary);
    if (verb->details != NULL)
        (void)printf("%s\n", verb->details);
    for (const struct xi_option *o = verb->options; o != NULL && o->name != NULL; o++) {
        char left[48];
        (void)snprintf(left, sizeof left, "%s%c%s--%s %s", o->letter ? "-" : "",
                       o->letter ? o->letter : ' ', o->letter ? ", " : "   ", o->name, o->value);
        (void)printf("%s  %-26s %s\n", o == verb->options ? "\nOptions:\n" : "", left, o->help);
    }
    if (verb->examples != NULL)
        (void)printf("\nExamples:\n%s", verb->examples);
}
