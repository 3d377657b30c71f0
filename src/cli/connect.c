/* connect.c: finding the daemon, or starting the user's own. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/platform/file.h"
#include "base/platform/process.h"
#include "cli/cli.h"

#define SERVICE_SOCKET "/run/xinfer/xinferd.sock"
#define DEFAULT_URL    "http://127.0.0.1:9470"

enum { PROBE_MS = 1000, START_MS = 20000, RIVAL_MS = 1000, IDLE_EXIT_S = 5 };

/* Where the user's own daemon keeps what. */
struct places {
    char socket[256], state[300], log[300], server[300];
};

static enum xi_rc open_client(struct xi_cli *cli, const char *server)
{
    return xi_client_open(server, getenv("XINFER_TOKEN"), &cli->client, &cli->err);
}

int xi_cli_find(long timeout_ms, char *ret, size_t bytes)
{
    char user[256];

    xi_client_user_socket(user, sizeof user);
    (void)snprintf(ret, bytes, "unix:%s", user);
    if (access(user, F_OK) == 0 && xi_client_alive(ret, timeout_ms))
        return 1;
    (void)snprintf(ret, bytes, "unix:%s", SERVICE_SOCKET);
    if (access(SERVICE_SOCKET, F_OK) == 0 && xi_client_alive(ret, timeout_ms))
        return 1;
    (void)snprintf(ret, bytes, "%s", DEFAULT_URL);
    return xi_client_alive(ret, timeout_ms);
}

enum xi_rc xi_cli_connect(struct xi_cli *cli)
{
    char server[300];

    if (cli->server != NULL)
        return open_client(cli, cli->server);
    if (xi_cli_find(PROBE_MS, server, sizeof server))
        return open_client(cli, server);
    (void)xi_fail(&cli->err, XI_EUNREACH, "no xinferd runs here");
    return xi_hint(&cli->err, "start one: xinfer serve   or name one: --server URL");
}

enum xi_rc xi_cli_program(const char *name, char *ret, size_t bytes, struct xi_err *err)
{
    char self[400];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);

    if (n <= 0)
        return xi_fail(err, XI_EIO, "cannot find where xinfer is installed");
    self[n] = '\0';
    *strrchr(self, '/') = '\0';
    (void)snprintf(ret, bytes, "%s/%s", self, name);
    if (access(ret, X_OK) != 0) {
        (void)xi_fail(err, XI_ENOENT, "%s is not installed beside xinfer", name);
        return xi_hint(err, "make build leaves all programs in build/bin");
    }
    return XI_OK;
}

/* As docs/configuration.md has it, and for root too XDG_DATA_HOME where it is set. Root's home is
 * no place: models run as another user, who could not enter it. */
static enum xi_rc find_places(struct places *ret, struct xi_err *err)
{
    const char *data = getenv("XDG_DATA_HOME"), *home = getenv("HOME");

    xi_client_user_socket(ret->socket, sizeof ret->socket);
    if (data != NULL && *data == '/')
        (void)snprintf(ret->state, sizeof ret->state, "%s/xinfer", data);
    else if (geteuid() == 0)
        (void)snprintf(ret->state, sizeof ret->state, "/var/lib/xinfer");
    else
        (void)snprintf(ret->state, sizeof ret->state, "%s/.local/share/xinfer", home ? home : "");
    if (ret->socket[0] != '/' || ret->state[0] != '/' || strncmp(ret->state, "/.local", 7) == 0) {
        (void)xi_fail(err, XI_EUNREACH,
                      "no xinferd runs here, and HOME does not say where one of "
                      "your own could keep its state");
        return xi_hint(err, "set HOME, or name a daemon: --server URL");
    }
    (void)snprintf(ret->log, sizeof ret->log, "%s.log", ret->socket);
    (void)snprintf(ret->server, sizeof ret->server, "unix:%s", ret->socket);
    return XI_OK;
}

static enum xi_rc open_log(const struct places *at, int *ret, struct xi_err *err)
{
    char folder[sizeof at->socket];

    (void)snprintf(folder, sizeof folder, "%s", at->socket);
    *strrchr(folder, '/') = '\0';
    *ret = -1;
    if (xi_path_mkdirs(folder, 0700) == 0)
        *ret = open(at->log, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (*ret >= 0)
        return XI_OK;
    return xi_fail(err, xi_rc_errno(errno), "%s: %s", folder, strerror(errno));
}

static enum xi_rc spawn_daemon(const struct places *at, int log_fd, int *ret_pidfd,
                               struct xi_err *err)
{
    char program[512], idle[16];
    pid_t pid;

    enum xi_rc rc = xi_cli_program("xinferd", program, sizeof program, err);
    if (rc != XI_OK)
        return rc;
    (void)snprintf(idle, sizeof idle, "%d", IDLE_EXIT_S);
    const char *argv[] = {program,   "--listen",    "",   "--socket", at->socket, "--state",
                          at->state, "--idle-exit", idle, NULL};
    extern char **environ;
    struct xi_spawn spawn = {.argv = argv,
                             .env = (const char *const *)environ,
                             .in_fd = -1,
                             .out_fd = log_fd,
                             .err_fd = log_fd};
    return xi_process_spawn(&spawn, &pid, ret_pidfd, err);
}

/* The daemon's own last sentence ("xinferd: …") says best why it ended. */
static enum xi_rc ended_early(const struct places *at, int log_fd, struct xi_err *err)
{
    char text[8192], *line = NULL;
    size_t n = 0;
    int more = 0;

    if (xi_fd_read_start(log_fd, text, sizeof text - 1, &n, &more) == 0) {
        text[n] = '\0';
        line = strstr(text, "xinferd: ");
    }
    if (line == NULL) {
        (void)xi_fail(err, XI_EUNREACH, "the daemon that was started does not answer");
        return xi_hint(err, "see its log: %s", at->log);
    }
    line[strcspn(line, "\n")] = '\0';
    (void)xi_fail(err, XI_EUNREACH, "no xinferd runs here, and one of your own ended: %s",
                  line + strlen("xinferd: "));
    return xi_hint(err, "start one with: xinfer serve   or name another: --server URL");
}

static enum xi_rc wait_until_alive(const struct places *at, int pidfd, int log_fd,
                                   struct xi_err *err)
{
    uint64_t until = xi_now_ms() + START_MS;
    int ended = 0;

    while (xi_now_ms() < until) {
        if (xi_client_alive(at->server, PROBE_MS))
            return XI_OK;
        if (!ended && xi_fd_wait_readable(pidfd, 20)) {
            ended = 1; /* another command may have been faster: its daemon will answer */
            until = xi_now_ms() + RIVAL_MS;
        } else if (ended) {
            (void)nanosleep(&(struct timespec){.tv_nsec = 20 * 1000 * 1000}, NULL);
        }
    }
    return ended_early(at, log_fd, err);
}

enum xi_rc xi_cli_connect_or_start(struct xi_cli *cli)
{
    char server[300];
    struct places at;
    int log_fd = -1, pidfd = -1;

    if (cli->server != NULL || xi_cli_find(PROBE_MS, server, sizeof server))
        return xi_cli_connect(cli);
    enum xi_rc rc = find_places(&at, &cli->err);
    if (rc == XI_OK)
        rc = open_log(&at, &log_fd, &cli->err);
    if (rc != XI_OK)
        return rc;
    xi_note(cli, "starting a daemon of your own (it ends by itself)");
    rc = spawn_daemon(&at, log_fd, &pidfd, &cli->err);
    if (rc == XI_OK)
        rc = wait_until_alive(&at, pidfd, log_fd, &cli->err);
    xi_fd_close(&pidfd);
    xi_fd_close(&log_fd);
    return rc != XI_OK ? rc : open_client(cli, at.server);
}
