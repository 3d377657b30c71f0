/* verb_doctor.c: doctor: is this machine well, and what would make it better?
 *
 * Each check is one function that fills in a row. Nothing here waits longer than a second. */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/limits.h"
#include "cli/cli.h"

enum state { OK, WARN, FAIL, ABSENT };

struct check {
    const char *name;
    enum state state;
    char value[160], fix[160];
};

static void set(struct check *c, enum state state, const char *value)
{
    c->state = state;
    (void)snprintf(c->value, sizeof c->value, "%s", value);
}

static void check_files(struct check *c)
{
    struct rlimit r;

    (void)getrlimit(RLIMIT_NOFILE, &r);
    (void)snprintf(c->value, sizeof c->value, "%llu open files allowed",
                   (unsigned long long)r.rlim_max);
    c->state = r.rlim_max >= 4096 ? OK : WARN;
    if (c->state == WARN)
        (void)snprintf(c->fix, sizeof c->fix, "raise it: ulimit -Hn 65536 (or LimitNOFILE=)");
}

static void check_memory(struct check *c)
{
    char text[16];
    double bytes = (double)sysconf(_SC_AVPHYS_PAGES) * (double)sysconf(_SC_PAGESIZE);

    (void)snprintf(c->value, sizeof c->value, "%s free", xi_bytes_text(text, bytes));
    c->state = bytes > 512.0 * 1024 * 1024 ? OK : WARN;
}

static void check_landlock(struct check *c)
{
#ifdef SYS_landlock_create_ruleset
    long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, 1);
#else
    long abi = -1;
#endif
    if (abi > 0) {
        (void)snprintf(c->value, sizeof c->value, "Landlock version %ld", abi);
        c->state = OK;
        return;
    }
    set(c, WARN, "no Landlock: hosts are confined by seccomp and limits only");
    (void)snprintf(c->fix, sizeof c->fix,
                   "a kernel of 5.13 or later with landlock in its lsm= list");
}

static void check_governor(struct check *c)
{
    char text[64] = "";
    int fd = open("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", O_RDONLY | O_CLOEXEC);

    if (fd < 0 || read(fd, text, sizeof text - 1) <= 0) {
        set(c, ABSENT, "not here (fixed frequency or a virtual machine)");
    } else {
        text[strcspn(text, "\n")] = '\0';
        set(c, strcmp(text, "powersave") == 0 ? WARN : OK, text);
        if (c->state == WARN)
            (void)snprintf(c->fix, sizeof c->fix, "cpupower frequency-set -g performance");
    }
    if (fd >= 0)
        (void)close(fd);
}

static void check_disk(struct check *c)
{
    struct statvfs v;
    char text[16];
    const char *home = getenv("HOME");

    if (statvfs(home ? home : "/", &v) != 0) {
        set(c, FAIL, "cannot be read");
        return;
    }
    double bytes = (double)v.f_bavail * (double)v.f_frsize;
    (void)snprintf(c->value, sizeof c->value, "%s free where packages are kept",
                   xi_bytes_text(text, bytes));
    c->state = bytes > 1024.0 * 1024 * 1024 ? OK : WARN;
}

static void check_node(struct check *c, const char *path, const char *what)
{
    if (access(path, F_OK) != 0)
        set(c, ABSENT, "not here");
    else if (access(path, R_OK | W_OK) != 0) {
        set(c, WARN, "present, not accessible to this user");
        (void)snprintf(c->fix, sizeof c->fix, "add the user to the group that owns %s", path);
    } else
        set(c, OK, what);
}

static void check_daemon(struct xi_cli *cli, struct check *c)
{
    if (cli->client == NULL && xi_cli_connect(cli) != XI_OK) {
        set(c, ABSENT, "no daemon answers");
        (void)snprintf(c->fix, sizeof c->fix, "xinfer serve");
        cli->err = (struct xi_err){0};
        return;
    }
    (void)snprintf(c->value, sizeof c->value, "answers at %.120s", xi_client_server(cli->client));
    c->state = OK;
}

/* One row for each engine the daemon has probed. */
static int check_engines(struct xi_cli *cli, struct check *rows, int max)
{
    json_t *doc = NULL, *e;
    size_t i;
    int n = 0;
    static char names[16][48];

    if (cli->client == NULL || xi_client_json(cli->client, "GET", "/v1/device/capabilities", NULL,
                                              &doc, &cli->err) != XI_OK)
        return 0;
    json_array_foreach(json_object_get(doc, "engines"), i, e)
    {
        if (n >= max || n >= 16)
            break;
        const char *name = json_string_value(json_object_get(e, "name"));
        const char *version = json_string_value(json_object_get(e, "version"));
        const char *missing = json_string_value(json_object_get(e, "missing"));
        (void)snprintf(names[n], sizeof names[n], "engine %s", name ? name : "?");
        rows[n].name = names[n];
        if (json_is_true(json_object_get(e, "present")))
            set(&rows[n], OK, version ? version : "present");
        else
            set(&rows[n], WARN, missing ? missing : "not present");
        n++;
    }
    json_decref(doc);
    return n;
}

static const char *const state_names[] = {"ok", "warn", "fail", "n-a"};

static void print_checks(const struct xi_cli *cli, const struct check *rows, int n)
{
    struct xi_table *t;

    if (cli->json) {
        for (int i = 0; i < n; i++) {
            json_t *o =
                json_pack("{s:s, s:s, s:s, s:s}", "name", rows[i].name, "state",
                          state_names[rows[i].state], "value", rows[i].value, "fix", rows[i].fix);
            xi_print_json(o);
            json_decref(o);
        }
        return;
    }
    t = xi_table_new(3);
    xi_table_cell(t, "STATE");
    xi_table_cell(t, "CHECK");
    xi_table_cell(t, "FOUND");
    for (int i = 0; i < n; i++) {
        xi_table_cell(t, "%s", state_names[rows[i].state]);
        xi_table_cell(t, "%s", rows[i].name);
        xi_table_cell(t, "%s%s%s", rows[i].value, rows[i].fix[0] ? "  → " : "", rows[i].fix);
    }
    xi_table_print(t);
}

static enum xi_rc run_doctor(struct xi_cli *cli)
{
    struct check rows[40] = {{0}};
    int n = 0, failed = 0;

    rows[n].name = "daemon";
    check_daemon(cli, &rows[n++]);
    n += check_engines(cli, rows + n, 16);
    rows[n].name = "free memory";
    check_memory(&rows[n++]);
    rows[n].name = "disk";
    check_disk(&rows[n++]);
    rows[n].name = "open files";
    check_files(&rows[n++]);
    rows[n].name = "sandbox";
    check_landlock(&rows[n++]);
    rows[n].name = "cpu governor";
    check_governor(&rows[n++]);
    rows[n].name = "nvidia gpu";
    check_node(&rows[n++], "/dev/nvidiactl", "driver is loaded");
    rows[n].name = "intel gpu";
    check_node(&rows[n++], "/dev/dri/renderD128", "render node is there");
    rows[n].name = "intel npu";
    check_node(&rows[n++], "/dev/accel/accel0", "accelerator node is there");
    rows[n].name = "rockchip npu";
    check_node(&rows[n++], "/dev/rknpu", "driver is loaded");
    print_checks(cli, rows, n);
    for (int i = 0; i < n; i++)
        failed += rows[i].state == FAIL;
    if (failed > 0)
        return xi_fail(&cli->err, XI_EUNSUPPORTED, "%d of %d checks failed", failed, n);
    return XI_OK;
}

const struct xi_verb xi_verb_doctor = {
    .name = "doctor",
    .usage = "",
    .summary = "check this machine: daemon, engines, memory, sandbox, accelerators",
    .run = run_doctor};
