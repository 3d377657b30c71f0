#define _GNU_SOURCE
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/json.h"
#include "base/str.h"
#include "daemon/config_impl.h"

/* Flags that are no settings. */
static const struct {
    const char *flag, *operand, *help;
} actions[] = {
    {"--config", "FILE", "Read settings from this file first; other flags win over it."},
    {"--check-config", NULL, "Check the settings, say what is wrong, and end."},
    {"--version", NULL, "Print the version and end."},
    {"--help", NULL, "Print this and end."},
};
enum { N_ACTIONS = sizeof actions / sizeof *actions };

static const char intro[] =
    "xinferd: serves neural models from packages, to HTTP clients and local programs.\n"
    "\n"
    "  xinferd                                      your own daemon, on 127.0.0.1:9470\n"
    "  xinferd --listen 127.0.0.1:0 --state ./dir   a private one that shares nothing\n"
    "  xinferd --config config.json --check-config  is this file good?\n"
    "\n"
    "It runs in the foreground and logs to standard error. Then, in another terminal:\n"
    "\n"
    "  xinfer doctor                                what this machine can do\n"
    "  xinfer load object-detector.xpkg             install and load a package\n"
    "  xinfer infer object-detector photo.jpg       ask it\n"
    "\n"
    "Flags:\n";

static const char outro[] =
    "\nEvery flag but the last four is also a key of the file, with more beside them:\n"
    "docs/configuration.md has all. Stop the daemon with Ctrl-C or SIGTERM: it ends what runs\n"
    "first; a second one ends it at once.\n";

static void help_row(struct xi_str *out, const char *flag, const char *operand, const char *help,
                     const char *standard)
{
    char left[64];

    (void)snprintf(left, sizeof left, "%s%s%s", flag, operand ? " " : "", operand ? operand : "");
    xi_str_printf(out, "  %-22s %s", left, help);
    if (standard != NULL)
        xi_str_printf(out, "\n  %-22s   %s", "", standard);
    xi_str_puts(out, "\n");
}

static const char *standard_line(const struct xi_config_key *key, char *line, size_t room)
{
    (void)snprintf(line, room, "default: %s", key->standard);
    return line;
}

void xi_config_help(struct xi_str *out)
{
    char line[128];

    xi_str_puts(out, intro);
    for (const struct xi_config_key *k = xi_config_keys; k->key != NULL; k++)
        if (k->flag != NULL && k->kind == XI_CONFIG_SWITCH)
            help_row(out, k->flag, NULL, k->operand, "only to look for a fault");
        else if (k->flag != NULL)
            help_row(out, k->flag, k->operand, k->help, standard_line(k, line, sizeof line));
    for (int i = 0; i < N_ACTIONS; i++)
        help_row(out, actions[i].flag, actions[i].operand, actions[i].help, NULL);
    xi_str_puts(out, outro);
}

static const char *kind_name(const struct xi_config_key *key)
{
    static const char *const names[] = {
        [XI_CONFIG_TEXT] = "text",          [XI_CONFIG_BYTES] = "size",
        [XI_CONFIG_COUNT] = "number",       [XI_CONFIG_SWITCH] = "switch",
        [XI_CONFIG_LEVEL] = "text",         [XI_CONFIG_STYLE] = "text",
        [XI_CONFIG_LIST] = "list of texts", [XI_CONFIG_PART] = "size or part",
        [XI_CONFIG_TENANTS] = "object",     [XI_CONFIG_ROLE] = "text"};

    return names[key->kind];
}

void xi_config_markdown(struct xi_str *out)
{
    xi_str_puts(out, "| key | flag | kind | default | what it does |\n|---|---|---|---|---|\n");
    for (const struct xi_config_key *k = xi_config_keys; k->key != NULL; k++) {
        xi_str_printf(out, "| `%s` | ", k->key);
        if (k->flag != NULL)
            xi_str_printf(out, "`%s`", k->flag);
        xi_str_printf(out, " | %s", kind_name(k));
        if (k->kind == XI_CONFIG_COUNT)
            xi_str_printf(out, ", %llu to %llu", (unsigned long long)k->min,
                          (unsigned long long)k->max);
        if (k->kind == XI_CONFIG_BYTES || k->kind == XI_CONFIG_PART)
            xi_str_printf(out, ", %lluMiB to %lluGiB", (unsigned long long)(k->min / XI_MIB),
                          (unsigned long long)(k->max / XI_GIB));
        xi_str_printf(out, " | %s | %s |\n", k->standard, k->help);
    }
}

/* ---- reading the command line ---- */

struct args {
    int argc, at;
    char **argv;
    struct xi_config *c;
    int check, state_given;
};

static enum xi_rc unknown_flag(const char *flag, struct xi_err *err)
{
    const char *known[64];
    size_t n = 0;

    for (const struct xi_config_key *k = xi_config_keys; k->key != NULL; k++)
        if (k->flag != NULL)
            known[n++] = k->flag;
    for (int i = 0; i < N_ACTIONS; i++)
        known[n++] = actions[i].flag;
    known[n] = NULL;
    (void)xi_fail(err, XI_EUSAGE, "unknown %s \"%.60s\"", flag[0] == '-' ? "flag" : "argument",
                  flag);
    const char *near = xi_nearest(flag, known);
    if (near != NULL)
        (void)xi_hint(err, "did you mean %s? xinferd --help lists all", near);
    else
        (void)xi_hint(err, "xinferd --help lists all");
    return XI_EUSAGE;
}

/* Is argv[at] this flag, alone or as --flag=…? */
static int is_flag(const struct args *a, const char *flag)
{
    size_t n = strlen(flag);
    const char *arg = a->argv[a->at];

    return strncmp(arg, flag, n) == 0 && (arg[n] == '\0' || arg[n] == '=');
}

/* The flag's operand: behind its '=', or the next argument. Steps over both. */
static enum xi_rc take_operand(struct args *a, const char *flag, const char *operand,
                               const char **ret, struct xi_err *err)
{
    const char *arg = a->argv[a->at++];

    if (arg[strlen(flag)] == '=') {
        if (operand == NULL)
            return xi_fail(err, XI_EUSAGE, "%s takes no value", flag);
        *ret = arg + strlen(flag) + 1;
        return XI_OK;
    }
    if (operand == NULL)
        return XI_OK;
    if (a->at == a->argc)
        return xi_fail(err, XI_EUSAGE, "%s needs %s behind it", flag, operand);
    *ret = a->argv[a->at++];
    return XI_OK;
}

static enum xi_rc take_setting(struct args *a, const struct xi_config_key *key, struct xi_err *err)
{
    const char *text = NULL;
    int is_switch = key->kind == XI_CONFIG_SWITCH;
    enum xi_rc rc = take_operand(a, key->flag, is_switch ? NULL : key->operand, &text, err);

    if (rc != XI_OK)
        return rc;
    if (is_switch) {
        a->c->sandbox = 0; /* the only switch there is: --no-sandbox */
        return XI_OK;
    }
    rc = xi_config_set(a->c, key, key->flag, text, err);
    if (rc == XI_ECONFIG && err != NULL)
        err->rc = XI_EUSAGE;
    return rc == XI_ECONFIG ? XI_EUSAGE : rc;
}

/* --config was read in a first pass; here it is only stepped over. */
static enum xi_rc take_action(struct args *a, struct xi_err *err)
{
    const char *file;

    if (is_flag(a, "--config"))
        return take_operand(a, "--config", "FILE", &file, err);
    if (is_flag(a, "--check-config")) {
        a->check = 1;
        return take_operand(a, "--check-config", NULL, &file, err);
    }
    return unknown_flag(a->argv[a->at], err);
}

static enum xi_rc take_one(struct args *a, struct xi_err *err)
{
    for (const struct xi_config_key *k = xi_config_keys; k->key != NULL; k++)
        if (k->flag != NULL && is_flag(a, k->flag))
            return take_setting(a, k, err);
    return take_action(a, err);
}

static enum xi_rc load_files(struct args *a, struct xi_err *err)
{
    enum xi_rc rc = XI_OK;
    const char *file = NULL;

    for (a->at = 1; rc == XI_OK && a->at < a->argc;) {
        if (!is_flag(a, "--config")) {
            a->at++;
            continue;
        }
        rc = take_operand(a, "--config", "FILE", &file, err);
        if (rc == XI_OK)
            rc = xi_config_load(a->c, file, err);
    }
    a->at = 1;
    return rc;
}

/* ---- where state and socket lie when nobody says ---- */

static enum xi_rc default_state(struct xi_config *c, struct xi_err *err)
{
    const char *data = getenv("XDG_DATA_HOME"), *home = getenv("HOME");
    int n = 0;

    if (geteuid() == 0)
        n = snprintf(c->state_dir, sizeof c->state_dir, "/var/lib/xinfer");
    else if (data != NULL && data[0] == '/')
        n = snprintf(c->state_dir, sizeof c->state_dir, "%s/xinfer", data);
    else if (home != NULL && home[0] == '/')
        n = snprintf(c->state_dir, sizeof c->state_dir, "%s/.local/share/xinfer", home);
    if (n > 0 && (size_t)n < sizeof c->state_dir)
        return XI_OK;
    (void)xi_fail(err, XI_ECONFIG, "no state directory: neither HOME nor XDG_DATA_HOME says where");
    (void)xi_hint(err, "name one with --state DIR");
    return XI_ECONFIG;
}

static enum xi_rc default_socket(struct xi_config *c, int state_given, struct xi_err *err)
{
    const char *runtime = getenv("XDG_RUNTIME_DIR");
    int n;

    if (state_given || (geteuid() != 0 && (runtime == NULL || runtime[0] != '/')))
        n = snprintf(c->socket, sizeof c->socket, "%s/xinferd.sock", c->state_dir);
    else if (geteuid() == 0)
        n = snprintf(c->socket, sizeof c->socket, "/run/xinfer/xinferd.sock");
    else
        n = snprintf(c->socket, sizeof c->socket, "%s/xinfer/xinferd.sock", runtime);
    if ((size_t)n < sizeof c->socket)
        return XI_OK;
    (void)xi_fail(err, XI_ECONFIG, "the socket's path would have %d characters, at most %zu fit", n,
                  sizeof c->socket - 1);
    (void)xi_hint(err, "name a shorter one with --socket PATH");
    return XI_ECONFIG;
}

/* "./dir" means this folder, now. */
static enum xi_rc absolute_state(struct xi_config *c, struct xi_err *err)
{
    char here[PATH_MAX], given[sizeof c->state_dir];

    if (c->state_dir[0] == '/')
        return XI_OK;
    memcpy(given, c->state_dir, sizeof given);
    const char *rest = strncmp(given, "./", 2) == 0 ? given + 2 : given;
    if (getcwd(here, sizeof here) != NULL &&
        strlen(here) + strlen(rest) + 1 < sizeof c->state_dir) {
        (void)snprintf(c->state_dir, sizeof c->state_dir, "%s/%s", here, rest);
        return XI_OK;
    }
    return xi_fail(err, XI_ECONFIG, "state \"%.100s\": its whole path is too long", given);
}

static enum xi_rc settle(struct args *a, struct xi_err *err)
{
    int state_given = a->c->state_dir[0] != '\0';
    enum xi_rc rc = state_given ? absolute_state(a->c, err) : default_state(a->c, err);

    if (rc == XI_OK && a->c->socket[0] == '\0')
        rc = default_socket(a->c, state_given, err);
    return rc;
}

/* --help and --version win over everything, also over mistakes. */
static int print_and_leave(int argc, char **argv)
{
    struct xi_str text;

    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--version") == 0) {
            (void)printf("xinferd %s\n", XI_VERSION);
            return 1;
        }
        if (strcmp(argv[i], "--help") != 0 && strcmp(argv[i], "-h") != 0)
            continue;
        xi_str_init(&text, 64 * XI_KIB);
        xi_config_help(&text);
        (void)fputs(xi_str_text(&text), stdout);
        xi_str_fini(&text);
        return 1;
    }
    return 0;
}

enum xi_rc xi_config_args(struct xi_config *c, int argc, char **argv, int *ret_exit,
                          struct xi_err *err)
{
    struct args a = {.argc = argc, .argv = argv, .c = c};

    *ret_exit = -1;
    if (print_and_leave(argc, argv)) {
        *ret_exit = 0;
        return XI_OK;
    }
    enum xi_rc rc = load_files(&a, err);
    while (rc == XI_OK && a.at < argc)
        rc = take_one(&a, err);
    if (rc == XI_OK)
        rc = settle(&a, err);
    if (rc != XI_OK || !a.check)
        return rc;
    rc = xi_config_check(c, err);
    if (rc == XI_OK) {
        (void)printf("the configuration is good: listen %s, socket %s, state %s\n",
                     c->listen[0] ? c->listen : "off", c->socket, c->state_dir);
        *ret_exit = 0;
    }
    return rc;
}
