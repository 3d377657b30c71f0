/* verb_doctor.c: doctor: is this machine well, and what would make it better?
 *
 * Each check is one function that fills in a row. Nothing here waits longer than half a second. */
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

#include "base/json.h"
#include "base/limits.h"
#include "cli/cli.h"

enum { ANSWER_MS = 400, ENGINES_MAX = 16 };
enum state { OK, WARN, FAIL, ABSENT };

struct check {
    const char *name;
    char own_name[48]; /* for names that are made up as we go */
    enum state state;
    char value[200], fix[160];
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

/* Of the daemon that answers: what holds its hosts to their memory. */
static void check_limits(struct xi_cli *cli, struct check *c)
{
    json_t *doc = NULL;
    const char *by = "", *missing = "";

    if (xi_client_json(cli->client, "GET", "/v1/device/capabilities", NULL, &doc, &cli->err) ==
        XI_OK) {
        const json_t *limits = json_object_get(doc, "limits");
        if (json_is_string(json_object_get(limits, "memory")))
            by = json_string_value(json_object_get(limits, "memory"));
        if (json_is_string(json_object_get(limits, "missing")))
            missing = json_string_value(json_object_get(limits, "missing"));
    }
    c->state = OK;
    (void)snprintf(c->value, sizeof c->value, "%s%s%s",
                   strcmp(by, "cgroup") == 0   ? "control groups hold each model"
                   : strcmp(by, "rlimit") == 0 ? "RLIMIT_DATA holds each model"
                                               : "not known",
                   missing[0] != '\0' ? "; " : "", missing);
    json_decref(doc);
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

/* A daemon that was named must answer; that none runs is no fault of the machine. */
static void check_daemon(struct xi_cli *cli, struct check *c)
{
    char server[300];
    int alive;

    (void)snprintf(server, sizeof server, "%s", cli->server ? cli->server : "");
    alive = cli->server ? xi_client_alive(server, ANSWER_MS)
                        : xi_cli_find(ANSWER_MS, server, sizeof server);
    if (alive && xi_client_open(server, getenv("XINFER_TOKEN"), &cli->client, &cli->err) == XI_OK) {
        (void)snprintf(c->value, sizeof c->value, "answers at %.120s", server);
        c->state = OK;
    } else if (cli->server != NULL) {
        (void)snprintf(c->value, sizeof c->value, "nobody answers at %.120s", cli->server);
        (void)snprintf(c->fix, sizeof c->fix, "xinfer serve, or another --server");
        c->state = FAIL;
    } else {
        set(c, ABSENT, "none runs here");
        (void)snprintf(c->fix, sizeof c->fix, "xinfer serve");
    }
}

static enum xi_rc get_capabilities(struct xi_cli *cli, json_t **ret)
{
    struct xi_answer answer = {0};
    struct xi_call call = {
        .method = "GET", .path = "/v1/device/capabilities", .body_fd = -1, .timeout_ms = ANSWER_MS};

    xi_str_init(&answer.body, XI_MIB);
    enum xi_rc rc = xi_client_call(cli->client, &call, &answer, &cli->err);
    if (rc == XI_OK)
        rc = xi_json_parse(xi_str_text(&answer.body), answer.body.len, XI_MIB, ret, &cli->err);
    xi_str_fini(&answer.body);
    return rc;
}

static void name_engine(struct check *c, const char *name)
{
    (void)snprintf(c->own_name, sizeof c->own_name, "engine %s", name ? name : "?");
    c->name = c->own_name;
}

/* Which devices the daemon can watch, and what the others would need: one row. */
static int check_sensors(const json_t *doc, struct check *rows, int max)
{
    char there[96] = "", missing[512] = "";
    json_t *s;
    size_t i;

    if (max < 1 || json_object_get(doc, "sensors") == NULL)
        return 0;
    json_array_foreach(json_object_get(doc, "sensors"), i, s)
    {
        const char *name = json_string_value(json_object_get(s, "name"));
        const char *needs = json_string_value(json_object_get(s, "missing"));
        char *list = needs != NULL ? missing : there;
        size_t room = needs != NULL ? sizeof missing : sizeof there, n = strlen(list);
        (void)snprintf(list + n, room - n, "%s%s%s%s%s", n > 0 ? ", " : "", name ? name : "?",
                       needs ? " (" : "", needs ? needs : "", needs ? ")" : "");
    }
    rows[0].name = "sensors";
    set(&rows[0], OK, there[0] != '\0' ? there : "processor and memory only");
    if (missing[0] != '\0')
        (void)snprintf(rows[0].fix, sizeof rows[0].fix, "not here: %.*s",
                       (int)sizeof rows[0].fix - 16, missing);
    return 1;
}

/* One row for each engine the daemon has probed. */
static int check_engines(struct xi_cli *cli, struct check *rows, int max)
{
    json_t *doc = NULL, *e;
    char engine[48];
    size_t i;
    int n = 0;

    if (get_capabilities(cli, &doc) != XI_OK) {
        rows[0].name = "engines";
        (void)snprintf(rows[0].value, sizeof rows[0].value, "unknown: %.140s", cli->err.msg);
        rows[0].state = WARN;
        return 1;
    }
    json_array_foreach(json_object_get(doc, "engines"), i, e)
    {
        if (n >= max)
            break;
        const char *version = json_string_value(json_object_get(e, "version"));
        const char *missing = json_string_value(json_object_get(e, "missing"));
        name_engine(&rows[n], json_string_value(json_object_get(e, "name")));
        if (json_is_true(json_object_get(e, "present")))
            set(&rows[n], OK, version && *version ? xi_engine_text(engine, version) : "present");
        else
            set(&rows[n], WARN, missing && *missing ? missing : "not present");
        n++;
    }
    n += check_sensors(doc, rows + n, max - n);
    json_decref(doc);
    return n;
}

/* Without a daemon nobody has probed them: what lies there is all that can be said. */
static int check_plugins(struct check *rows, int max)
{
    struct xi_plugin_file files[ENGINES_MAX];
    int n = xi_cli_plugins(files, max < ENGINES_MAX ? max : ENGINES_MAX);

    for (int i = 0; i < n; i++) {
        name_engine(&rows[i], files[i].name);
        set(&rows[i], files[i].open_to_all ? WARN : OK,
            files[i].open_to_all ? "everybody can write its file: it will be refused"
                                 : "installed; a daemon says what it finds");
        if (files[i].open_to_all)
            (void)snprintf(rows[i].fix, sizeof rows[i].fix, "install it anew, mode 0755");
    }
    if (n > 0)
        return n;
    rows[0].name = "engines";
    set(&rows[0], FAIL, "no engine plugin is installed");
    (void)snprintf(rows[0].fix, sizeof rows[0].fix, "make build, or install xinfer anew");
    return 1;
}

static const char *const state_names[] = {"ok", "warn", "fail", "n-a"};

static void print_checks(const struct xi_cli *cli, const struct check *rows, int n)
{
    static const char *const heads[] = {"STATE", "CHECK", "FOUND"};
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
    t = xi_table_new(3, heads);
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
    n += cli->client != NULL ? check_engines(cli, rows + n, ENGINES_MAX)
                             : check_plugins(rows + n, ENGINES_MAX);
    cli->err = (struct xi_err){0};
    rows[n].name = "free memory";
    check_memory(&rows[n++]);
    rows[n].name = "disk";
    check_disk(&rows[n++]);
    rows[n].name = "open files";
    check_files(&rows[n++]);
    rows[n].name = "sandbox";
    check_landlock(&rows[n++]);
    if (cli->client != NULL) {
        rows[n].name = "memory limits";
        check_limits(cli, &rows[n++]);
    }
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
    if (rows[0].state == FAIL) /* the daemon that was named */
        return xi_fail(&cli->err, XI_EUNREACH, "%.120s", rows[0].value);
    if (failed > 0)
        return xi_fail(&cli->err, XI_EUNSUPPORTED, "%d of %d checks failed", failed, n);
    return XI_OK;
}

const struct xi_verb xi_verb_doctor = {
    .name = "doctor",
    .usage = "",
    .summary = "check this machine: daemon, engines, memory, sandbox, accelerators",
    .run = run_doctor};
