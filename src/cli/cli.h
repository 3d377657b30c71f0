/* cli.h: what every verb of the xinfer command shares. Single-threaded.
 *
 * stdout carries data only, stderr progress and messages. A verb returns enum xi_rc with its
 * sentence in cli->err; main prints it and maps it to the exit code. */
#ifndef XI_CLI_CLI_H
#define XI_CLI_CLI_H

#include <jansson.h>
#include <stdlib.h>

#include "base/limits.h"
#include "base/status.h"
#include "client/client.h"

#define XI_CLI_WORDS_MAX 64

struct xi_cli {
    int json, quiet;                     /* --json, -q */
    const char *server;                  /* --server or XINFER_SERVER, else NULL */
    const char *words[XI_CLI_WORDS_MAX]; /* what is neither verb nor option */
    int n_words;
    struct xi_client *client; /* after xi_cli_connect */
    struct xi_err err;
};

enum xi_option_kind { XI_OPTION_FLAG, XI_OPTION_TEXT, XI_OPTION_NUMBER };

/* One option of a verb; target is an int, const char * or long by kind. name NULL ends a list. */
struct xi_option {
    const char *name; /* without the dashes */
    char letter;      /* 0: none */
    enum xi_option_kind kind;
    void *target;
    const char *value, *help; /* value: what stands for it in help */
};

struct xi_verb {
    const char *name, *usage, *summary, *details, *examples;
    int min_words, max_words;
    const struct xi_option *options;
    enum xi_rc (*run)(struct xi_cli *cli);
};

/* The one table that makes dispatch, help and completion. */
extern const struct xi_verb *const xi_verbs[];
const struct xi_verb *xi_verb_find(const char *name);
enum xi_rc xi_cli_unknown_verb(const char *word, struct xi_err *err); /* names the nearest */

/* Fills in cli and the verb's targets. EUSAGE names the nearest known option. */
enum xi_rc xi_cli_parse(struct xi_cli *cli, const struct xi_verb *verb, int argc, char **argv,
                        int *ret_help) XI_MUST_CHECK;
void xi_cli_help(const struct xi_verb *verb); /* NULL: the overview */

/* Opens cli->client to the daemon that answers: --server, XINFER_SERVER, the user's socket, the
 * service's socket, 127.0.0.1:9470. EUNREACH says how to start one. */
enum xi_rc xi_cli_connect(struct xi_cli *cli) XI_MUST_CHECK;
/* Where a daemon answers within timeout_ms (for each place): 1 and its URL, or 0. */
int xi_cli_find(long timeout_ms, char *ret, size_t bytes);
/* As connect, but starts a daemon of the user's own where none answers; it ends by itself when
 * its last client has gone. */
enum xi_rc xi_cli_connect_or_start(struct xi_cli *cli) XI_MUST_CHECK;
/* Path of a program that lies beside this one ("xinferd"). */
enum xi_rc xi_cli_program(const char *name, char *ret, size_t bytes,
                          struct xi_err *err) XI_MUST_CHECK;

/* Makes sure that the daemon has the package: a file (package, model, recipe's result) is hashed
 * and uploaded if it is missing there; anything else is taken as digest or name. ret: what load
 * takes as "package" (at least 160 bytes). */
enum xi_rc xi_cli_package(struct xi_cli *cli, const char *what, char *ret,
                          size_t bytes) XI_MUST_CHECK;
/* POST /v1/control/load, showing its phases on a terminal; what names the model there. body is
 * freed; *ret is the session's object (json_decref). */
enum xi_rc xi_cli_load(struct xi_cli *cli, const char *what, json_t *body,
                       json_t **ret) XI_MUST_CHECK;
/* POST /v1/control/unload of a name or an id; *ret is what the daemon says (json_decref). */
enum xi_rc xi_cli_unload(struct xi_cli *cli, const char *which, json_t **ret) XI_MUST_CHECK;

/* Progress on stderr: one line on a terminal, redrawn 10 times a second at most; nothing in a
 * pipe. A bar, or (permille 0: unknown) a phase and the seconds since started_ms. */
void xi_progress(void *label, uint64_t done, uint64_t total);
void xi_progress_phase(const char *label, const char *phase, int permille, uint64_t started_ms);
void xi_progress_end(void);
/* A remark on stderr; none with -q or --json. */
void xi_note(const struct xi_cli *cli, const char *fmt, ...) XI_PRINTF(2, 3);

/* Aligned columns on stdout, under a header of as many heads (bold on a terminal). Then each cell,
 * row by row. */
struct xi_table;
struct xi_table *xi_table_new(int columns, const char *const *heads);
void xi_table_cell(struct xi_table *t, const char *fmt, ...) XI_PRINTF(2, 3);
void xi_table_print(struct xi_table *t); /* and frees it */

const char *xi_text_of(const json_t *object, const char *key); /* "" when it has no such text */
void xi_print_json(const json_t *value);                       /* one line on stdout */
/* The answer of /v1/infer for people. */
void xi_print_answer(const json_t *answer);
char *xi_bytes_text(char buf[16], double bytes); /* "9.5 MiB" */
/* "openvino 2026.4.1-22982-e213…" is "openvino 2026.4.1" for people. */
char *xi_engine_text(char buf[48], const char *engine);

/* What an error code means and what to do about it. Two sentences at most; never NULL. */
const char *xi_code_help(enum xi_rc rc);
/* The engine plugins beside this program: up to max names of files and whether all may write
 * them. */
struct xi_plugin_file {
    char name[32];
    int open_to_all;
};
int xi_cli_plugins(struct xi_plugin_file *ret, int max);

extern const struct xi_verb xi_verb_run, xi_verb_serve, xi_verb_load, xi_verb_unload, xi_verb_infer,
    xi_verb_ls, xi_verb_ps, xi_verb_pack, xi_verb_inspect, xi_verb_doctor, xi_verb_version,
    xi_verb_config, xi_verb_help, xi_verb_why, xi_verb_top, xi_verb_logs, xi_verb_promote,
    xi_verb_rollback;

#endif
