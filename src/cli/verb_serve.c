/* verb_serve.c: serve: xinferd in the foreground, with packages loaded into it. */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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

/* Where to ask: "0.0.0.0" is answered on loopback too. Port 0 is known to the daemon only, which
 * then answers on the socket in its state directory. */
static enum xi_rc server_of(char *ret, size_t bytes, struct xi_err *err)
{
    const char *colon = strrchr(opt_listen, ':');
    int host = colon ? (int)(colon - opt_listen) : 0;

    if (colon == NULL || host == 0)
        return xi_fail(err, XI_EUSAGE, "--listen takes HOST:PORT, not \"%.60s\"", opt_listen);
    if (strcmp(colon, ":0") == 0) {
        if (opt_state == NULL)
            return xi_fail(err, XI_EUSAGE, "--listen with port 0 needs --state DIR as well");
        char *whole = realpath(opt_state, NULL); /* NULL: it will be made below this folder */
        (void)snprintf(ret, bytes, "unix:%s/xinferd.sock", whole ? whole : opt_state);
        free(whole);
        return XI_OK;
    }
    if (strncmp(opt_listen, "0.0.0.0:", 8) == 0)
        (void)snprintf(ret, bytes, "http://127.0.0.1%s", colon);
    else if (strncmp(opt_listen, "[::]:", 5) == 0)
        (void)snprintf(ret, bytes, "http://[::1]%s", colon);
    else
        (void)snprintf(ret, bytes, "http://%s", opt_listen);
    return XI_OK;
}

static enum xi_rc wait_alive(struct xi_cli *cli, const char *url, int pidfd)
{
    for (uint64_t until = xi_now_ms() + 20000; xi_now_ms() < until && !stop_signal;) {
        if (xi_client_alive(url, 1000)) {
            enum xi_rc rc = xi_client_open(url, getenv("XINFER_TOKEN"), &cli->client, &cli->err);
            if (rc == XI_OK)
                xi_client_cancel_on(cli->client, &stop_signal);
            return rc;
        }
        if (xi_fd_wait_readable(pidfd, 20))
            return xi_fail(&cli->err, XI_EUNREACH, "xinferd has ended; its reason stands above");
    }
    return xi_fail(&cli->err, XI_ETIMEOUT, "xinferd does not answer at %s", url);
}

static enum xi_rc load_all(struct xi_cli *cli)
{
    char package[200];
    enum xi_rc rc = XI_OK;

    for (int i = 0; i < cli->n_words && rc == XI_OK && !stop_signal; i++) {
        json_t *session = NULL;
        rc = xi_cli_package(cli, cli->words[i], package, sizeof package);
        if (rc == XI_OK)
            rc = xi_cli_load(cli, cli->words[i],
                             json_pack("{s:s, s:b}", "package", package, "wait", 1), &session);
        if (rc == XI_OK && cli->json)
            xi_print_json(session);
        else if (rc == XI_OK)
            xi_note(cli, "ready: %s", json_string_value(json_object_get(session, "name")));
        json_decref(session);
    }
    (void)fflush(stdout);
    return rc;
}

/* Until it ends or we are told to stop; then asks it to end, and after its time to drain makes it.
 * A second signal shortens that. */
static void end_daemon(int pidfd)
{
    enum { DRAIN_MS = 35000 };
    int asked = stop_signal;

    stop_signal = 0;
    (void)xi_process_signal(pidfd, SIGTERM);
    for (uint64_t until = xi_now_ms() + DRAIN_MS; xi_now_ms() < until && !stop_signal;)
        if (xi_fd_wait_readable(pidfd, 100))
            break;
    if (!xi_fd_wait_readable(pidfd, 0)) {
        (void)xi_process_signal(pidfd, SIGKILL);
        (void)xi_fd_wait_readable(pidfd, 1000);
    }
    stop_signal = asked;
}

static enum xi_rc ended_by_itself(struct xi_cli *cli, int code, int signo)
{
    if (signo != 0)
        return xi_fail(&cli->err, XI_EUNREACH, "xinferd was ended by signal %d", signo);
    if (code != 0)
        return xi_fail(&cli->err, XI_EUNREACH,
                       "xinferd has ended (exit code %d); its reason "
                       "stands above",
                       code);
    return XI_OK;
}

static enum xi_rc watch(struct xi_cli *cli, const char *url, pid_t pid, int pidfd)
{
    int code = 0, signo = 0;
    enum xi_rc rc = wait_alive(cli, url, pidfd);

    if (rc == XI_OK)
        rc = load_all(cli);
    if (rc == XI_OK && !stop_signal)
        xi_note(cli, "xinferd answers at %s   (ctrl-c ends it)", url);
    while (rc == XI_OK && !stop_signal && !xi_fd_wait_readable(pidfd, 250))
        continue;
    int by_itself = xi_fd_wait_readable(pidfd, 0);
    if (!by_itself)
        end_daemon(pidfd);
    (void)xi_process_reap(pid, &code, &signo);
    if (stop_signal)
        return XI_OK; /* ended as asked, whatever was under way */
    return rc == XI_OK && by_itself ? ended_by_itself(cli, code, signo) : rc;
}

static enum xi_rc run_serve(struct xi_cli *cli)
{
    struct sigaction action = {.sa_handler = on_signal};
    char url[600];
    pid_t pid;
    int pidfd = -1;

    (void)sigaction(SIGINT, &action, NULL);
    (void)sigaction(SIGTERM, &action, NULL);
    enum xi_rc rc = server_of(url, sizeof url, &cli->err);
    if (rc == XI_OK && xi_client_alive(url, 500)) {
        (void)xi_fail(&cli->err, XI_EPORT, "a daemon answers at %s already", url);
        (void)xi_hint(&cli->err, "load into it: xinfer load PACKAGE   or pick another --listen");
        rc = XI_EPORT;
    }
    if (rc == XI_OK)
        rc = spawn(&cli->err, &pid, &pidfd);
    if (rc != XI_OK)
        return rc;
    rc = watch(cli, url, pid, pidfd);
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
