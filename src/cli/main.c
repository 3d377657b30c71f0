/* main.c: the xinfer command: finds the verb, runs it, prints its error. */
#include <curl/curl.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/str.h"
#include "cli/cli.h"

const struct xi_verb *const xi_verbs[] = {
    &xi_verb_run,
    &xi_verb_serve,
    &xi_verb_load,
    &xi_verb_unload,
    &xi_verb_promote,
    &xi_verb_rollback,
    &xi_verb_infer,
    &xi_verb_ls,
    &xi_verb_ps,
    &xi_verb_top,
    &xi_verb_logs,
    &xi_verb_why,
    &xi_verb_pack,
    &xi_verb_inspect,
    &xi_verb_doctor,
    &xi_verb_config,
    &xi_verb_help,
    &xi_verb_version,
    NULL,
};

const struct xi_verb *xi_verb_find(const char *name)
{
    for (int i = 0; xi_verbs[i] != NULL; i++)
        if (strcmp(xi_verbs[i]->name, name) == 0)
            return xi_verbs[i];
    return NULL;
}

enum xi_rc xi_cli_unknown_verb(const char *word, struct xi_err *err)
{
    const char *names[32] = {0};

    for (int i = 0; xi_verbs[i] != NULL && i < 31; i++)
        names[i] = xi_verbs[i]->name;
    const char *near = xi_nearest(word, names);
    (void)xi_fail(err, XI_EUSAGE, "\"%.40s\" is not a command", word);
    if (near != NULL)
        return xi_hint(err, "did you mean: xinfer %s", near);
    return xi_hint(err, "xinfer help lists them all");
}

static void print_error_json(const struct xi_err *e, enum xi_rc rc)
{
    struct xi_str s;

    xi_str_init(&s, 16 * XI_KIB);
    xi_str_printf(&s, "{\"code\":\"%s\",\"title\":", xi_rc_code(rc));
    xi_str_json(&s, xi_rc_title(rc));
    xi_str_puts(&s, ",\"detail\":");
    xi_str_json(&s, e->msg[0] ? e->msg : xi_rc_title(rc));
    if (e->hint[0] != '\0') {
        xi_str_puts(&s, ",\"hint\":");
        xi_str_json(&s, e->hint);
    }
    (void)fprintf(stderr, "%s}\n", xi_str_text(&s));
    xi_str_fini(&s);
}

static void print_error(const struct xi_cli *cli, enum xi_rc rc)
{
    const struct xi_err *e = &cli->err;

    if (cli->json) {
        print_error_json(e, rc);
        return;
    }
    (void)fprintf(stderr, "%s %s", xi_rc_code(rc), e->msg[0] ? e->msg : xi_rc_title(rc));
    if (e->hint[0] != '\0')
        (void)fprintf(stderr, "\n        %s", e->hint);
    (void)fprintf(stderr, "\n");
}

/* `xinfer --server X load …`: global options may stand before the verb. */
static int find_verb(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--server") == 0)
            i++;
        else if (argv[i][0] != '-')
            return i;
    }
    return 0;
}

static enum xi_rc run_without_verb(struct xi_cli *cli, int argc, char **argv)
{
    const char *word = argc > 1 ? argv[1] : "--help";

    if (strcmp(word, "--version") == 0)
        return xi_verb_version.run(cli);
    if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0) {
        xi_cli_help(NULL);
        return XI_OK;
    }
    (void)xi_fail(&cli->err, XI_EUSAGE, "\"%.40s\" needs a command", word);
    return xi_hint(&cli->err, "xinfer help lists them all");
}

static enum xi_rc run(struct xi_cli *cli, int argc, char **argv)
{
    int at = find_verb(argc, argv), help = 0;

    if (at == 0)
        return run_without_verb(cli, argc, argv);
    for (int i = 1; i < argc; i++) /* also what cannot be parsed is told as asked */
        cli->json |= strcmp(argv[i], "--json") == 0;
    const struct xi_verb *verb = xi_verb_find(argv[at]);
    if (verb == NULL)
        return xi_cli_unknown_verb(argv[at], &cli->err);
    for (int i = at; i > 1; i--) /* the verb first, everything else behind it */
        argv[i] = argv[i - 1];
    enum xi_rc rc = xi_cli_parse(cli, verb, argc - 2, argv + 2, &help);
    if (help) {
        xi_cli_help(verb);
        return XI_OK;
    }
    return rc != XI_OK ? rc : verb->run(cli);
}

/* A full disk or a closed pipe behind stdout is an error of the command. */
static enum xi_rc flush_output(struct xi_cli *cli)
{
    errno = 0;
    if (fflush(stdout) == 0 && !ferror(stdout))
        return XI_OK;
    return xi_fail(&cli->err, errno == ENOSPC ? XI_EDISK : XI_EIO, "standard output: %s",
                   strerror(errno ? errno : EIO));
}

int main(int argc, char **argv)
{
    struct xi_cli cli = {.server = getenv("XINFER_SERVER")};

    (void)signal(SIGPIPE, SIG_IGN);
    if (cli.server != NULL && *cli.server == '\0')
        cli.server = NULL;
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != 0)
        return 1;
    enum xi_rc rc = run(&cli, argc, argv);
    xi_progress_end();
    if (rc == XI_OK)
        rc = flush_output(&cli);
    if (rc != XI_OK)
        print_error(&cli, rc);
    xi_client_close(cli.client);
    curl_global_cleanup();
    return xi_rc_exit(rc);
}
