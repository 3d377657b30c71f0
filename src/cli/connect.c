/* connect.c: finding the daemon, or starting the user's own. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/platform/process.h"
#include "cli/cli.h"

#define SERVICE_SOCKET "/run/xinfer/xinferd.sock"
#define DEFAULT_URL    "http://127.0.0.1:9470"

enum { PROBE_MS = 1000, START_MS = 20000, IDLE_EXIT_S = 10 };

static enum xi_rc open_client(struct xi_cli *cli, const char *server)
{
    return xi_client_open(server, getenv("XINFER_TOKEN"), &cli->client, &cli->err);
}

/* The first of the usual places where somebody answers. */
static int find_daemon(char *ret, size_t bytes)
{
    char user[256];

    xi_client_user_socket(user, sizeof user);
    (void)snprintf(ret, bytes, "unix:%s", user);
    if (access(user, F_OK) == 0 && xi_client_alive(ret, PROBE_MS))
        return 1;
    (void)snprintf(ret, bytes, "unix:%s", SERVICE_SOCKET);
    if (access(SERVICE_SOCKET, F_OK) == 0 && xi_client_alive(ret, PROBE_MS))
        return 1;
    (void)snprintf(ret, bytes, "%s", DEFAULT_URL);
    return xi_client_alive(ret, PROBE_MS);
}

enum xi_rc xi_cli_connect(struct xi_cli *cli)
{
    char server[300];

    if (cli->server != NULL)
        return open_client(cli, cli->server);
    if (find_daemon(server, sizeof server))
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

static void make_parents(const char *path)
{
    char part[300];

    (void)snprintf(part, sizeof part, "%s", path);
    for (char *p = part + 1; *p; p++)
        if (*p == '/') {
            *p = '\0';
            (void)mkdir(part, 0700);
            *p = '/';
        }
}

static enum xi_rc spawn_daemon(const char *socket, const char *log_path, struct xi_err *err)
{
    char program[512], idle[16];
    pid_t pid;
    int pidfd = -1;

    enum xi_rc rc = xi_cli_program("xinferd", program, sizeof program, err);
    if (rc != XI_OK)
        return rc;
    (void)snprintf(idle, sizeof idle, "%d", IDLE_EXIT_S);
    int log_fd = open(log_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    const char *argv[] = {program, "--listen", "", "--socket", socket, "--idle-exit", idle, NULL};
    extern char **environ;
    struct xi_spawn spawn = {.argv = argv,
                             .env = (const char *const *)environ,
                             .in_fd = -1,
                             .out_fd = log_fd,
                             .err_fd = log_fd};
    rc = xi_process_spawn(&spawn, &pid, &pidfd, err);
    xi_fd_close(&pidfd);
    xi_fd_close(&log_fd);
    return rc;
}

static enum xi_rc wait_until_alive(const char *server, const char *log_path, struct xi_err *err)
{
    uint64_t until = xi_now_ms() + START_MS;
    struct timespec pause = {.tv_nsec = 20 * 1000 * 1000};

    while (xi_now_ms() < until) {
        if (xi_client_alive(server, 1000))
            return XI_OK;
        (void)nanosleep(&pause, NULL);
    }
    (void)xi_fail(err, XI_EUNREACH, "the daemon that was started does not answer");
    return xi_hint(err, "see its log: %s", log_path);
}

enum xi_rc xi_cli_connect_or_start(struct xi_cli *cli)
{
    char server[300], socket[256], log_path[300];

    if (cli->server != NULL || find_daemon(server, sizeof server))
        return xi_cli_connect(cli);
    xi_client_user_socket(socket, sizeof socket);
    make_parents(socket);
    (void)snprintf(server, sizeof server, "unix:%s", socket);
    (void)snprintf(log_path, sizeof log_path, "%s.log", socket);
    xi_note(cli, "starting a daemon of your own (it ends by itself)");
    enum xi_rc rc = spawn_daemon(socket, log_path, &cli->err);
    if (rc == XI_OK)
        rc = wait_until_alive(server, log_path, &cli->err);
    return rc != XI_OK ? rc : open_client(cli, server);
}
