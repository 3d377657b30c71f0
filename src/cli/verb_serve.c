/* verb_serve.c: serve: xinferd in the foreground, with packages loaded into it. */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/platform/process.h"
#include "cli/cli.h"

static const char *opt_listen = "127.0.0.1:9470", *opt_state, *opt_config;

static const struct xi_option options[] = {
    {"listen", 'l', XI_OPTION_TEXT, &opt_listen, "HOST:PORT", "where to answer (127.0.0.1:9470)"},
    {"state", 's', XI_OPTION_TEXT, &opt_state, "DIR", "store, cache and socket lie there"},
    {"config", 'c', XI_OPTION_TEXT, &opt_config, "FILE", "a config.json for the daemon"},
    {0},
};

static volatile sig_atomic_t stop_signal;

static void on_signal(int signo)
{
    stop_signal = signo;
}

static enum xi_rc spawn(struct xi_err *err, pid_t *pid, int *pidfd)
{
    char program[512];
    const char *argv[12];
    int n = 0;
    extern char **environ;

    enum xi_rc rc = xi_cli_program("xinferd", program, sizeof program, err);
    if (rc != XI_OK)
        return rc;
    argv[n++] = program;
    argv[n++] = "--listen";
    argv[n++] = opt_listen;
    if (opt_state != NULL) {
        argv[n++] = "--state";
        argv[n++] = opt_state;
    }
    if (opt_config != NULL) {
        argv[n++] = "--config";
        argv[n++] = opt_config;
    }
    argv[n] = NULL;
    struct xi_spawn s = {.argv = argv,
                         .env = (const char *const *)environ,
                         .in_fd = -1,
                         .out_fd = STDERR_FILENO,
                         .err_fd = STDERR_FILENO};
    return xi_process_spawn(&s, pid, pidfd, err);
}

static enum xi_rc wait_alive(struct xi_cli *cli, const char *url, int pidfd)
{
    struct timespec pause = {.tv_nsec = 20 * 1000 * 1000};

    for (uint64_t until = xi_now_ms() + 20000; xi_now_ms() < until && !stop_signal;) {
        if (xi_fd_wait_readable(pidfd, 0))
            return xi_fail(&cli->err, XI_EUNREACH, "xinferd has ended; its reason stands above");
        if (xi_client_alive(url, 1000))
            return xi_client_open(url, getenv("XINFER_TOKEN"), &cli->client, &cli->err);
        (void)nanosleep(&pause, NULL);
    }
    return xi_fail(&cli->err, XI_ETIMEOUT, "xinferd does not answer at %s", url);
}

static enum xi_rc load_all(struct xi_cli *cli)
{
    char package[200];
    enum xi_rc rc = XI_OK;

    for (int i = 0; i < cli->n_words && rc == XI_OK; i++) {
        json_t *session = NULL;
        rc = xi_cli_package(cli, cli->words[i], package, sizeof package);
        if (rc == XI_OK)
            rc = xi_cli_load(cli, json_pack("{s:s, s:b}", "package", package, "wait", 1), &session);
        if (rc == XI_OK)
            xi_note(cli, "ready: %s", json_string_value(json_object_get(session, "name")));
        json_decref(session);
    }
    return rc;
}

static enum xi_rc run_serve(struct xi_cli *cli)
{
    struct sigaction action = {.sa_handler = on_signal};
    char url[300];
    pid_t pid;
    int pidfd = -1, code = 0, signo = 0;

    (void)sigaction(SIGINT, &action, NULL);
    (void)sigaction(SIGTERM, &action, NULL);
    (void)snprintf(url, sizeof url, "http://%s", opt_listen);
    enum xi_rc rc = spawn(&cli->err, &pid, &pidfd);
    if (rc != XI_OK)
        return rc;
    rc = wait_alive(cli, url, pidfd);
    if (rc == XI_OK)
        rc = load_all(cli);
    if (rc == XI_OK)
        xi_note(cli, "xinferd answers at %s   (ctrl-c ends it)", url);
    while (rc == XI_OK && !stop_signal && !xi_fd_wait_readable(pidfd, 1000))
        continue;
    (void)xi_process_signal(pidfd, SIGTERM);
    (void)xi_fd_wait_readable(pidfd, 15000);
    (void)xi_process_signal(pidfd, SIGKILL);
    (void)xi_fd_wait_readable(pidfd, 1000);
    (void)xi_process_reap(pid, &code, &signo);
    xi_fd_close(&pidfd);
    return rc;
}

const struct xi_verb xi_verb_serve = {
    .name = "serve",
    .usage = "[PACKAGE…] [options]",
    .summary = "run a daemon in the foreground, with these packages loaded",
    .examples = "  xinfer serve object-detector.xpkg\n"
                "  curl --data-binary @photo.jpg -H 'Content-Type: image/jpeg' \\\n"
                "       http://127.0.0.1:9470/v1/infer/object-detector\n",
    .max_words = XI_CLI_WORDS_MAX,
    .options = options,
    .run = run_serve};
