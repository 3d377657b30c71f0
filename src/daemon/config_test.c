#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/platform/file.h"
#include "base/str.h"
#include "daemon/config.h"

struct world {
    char dir[64], file[96], token[96];
    struct xi_config c;
    struct xi_err err;
};

static void write_text(const char *path, const char *text, mode_t mode)
{
    FILE *f = fopen(path, "w");

    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
    assert_int_equal(chmod(path, mode), 0);
}

static int setup(void **state)
{
    struct world *w = calloc(1, sizeof *w);

    (void)snprintf(w->dir, sizeof w->dir, "/tmp/xinfer-test-XXXXXX");
    assert_non_null(mkdtemp(w->dir));
    (void)snprintf(w->file, sizeof w->file, "%s/config.json", w->dir);
    (void)snprintf(w->token, sizeof w->token, "%s/tokens", w->dir);
    xi_config_defaults(&w->c);
    (void)snprintf(w->c.host_program, sizeof w->c.host_program, "/bin/sh");
    w->c.openvino_dir[0] = '\0';
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;

    (void)unlink(w->file);
    (void)unlink(w->token);
    assert_int_equal(rmdir(w->dir), 0);
    free(w);
    return 0;
}

static enum xi_rc load(struct world *w, const char *text)
{
    write_text(w->file, text, 0600);
    return xi_config_load(&w->c, w->file, &w->err);
}

static void file_over_defaults(void **state)
{
    struct world *w = *state;

    assert_string_equal(w->c.listen, "127.0.0.1:9470");
    assert_int_equal(w->c.sandbox, 1);
    assert_int_equal(
        load(w, "{\"listen\": \"127.0.0.1:1\", \"input_memory\": \"512MiB\", \"host_memory\": "
                "1073741824, \"cores\": 3, \"log_level\": \"warn\", \"log_format\": \"json\", "
                "\"sandbox\": false, \"allowed_hosts\": [\"box.lan\", \"box\"], "
                "\"x-note\": 1, \"idle_exit_s\": 60}"),
        XI_OK);
    assert_string_equal(w->c.listen, "127.0.0.1:1");
    assert_int_equal(w->c.input_memory_bytes, 536870912);
    assert_int_equal(w->c.host_data_limit_bytes, 1073741824);
    assert_int_equal(w->c.cores, 3);
    assert_int_equal(w->c.log_level, XI_WARN);
    assert_int_equal(w->c.log_style, XI_LOG_JSON);
    assert_int_equal(w->c.sandbox, 0);
    assert_int_equal(w->c.n_allowed_hosts, 2);
    assert_string_equal(w->c.allowed_hosts[1], "box");
    assert_int_equal(w->c.idle_exit_s, 60);
    assert_int_equal(w->c.drain_ms, 30000); /* not named: the default */
}

static void bad_files_change_nothing(void **state)
{
    struct world *w = *state;
    const struct {
        const char *text, *words;
    } cases[] = {
        {"{\"cores\": 2, \"queue_limit\": 0}", "queue_limit is 0, allowed is 1 to 1024"},
        {"{\"cores\": 2, \"queue_limit\": \"9\"}", "queue_limit must be a whole number"},
        {"{\"cores\": 2, \"drain_ms\": 1.5}", "drain_ms must be a whole number"},
        {"{\"cores\": -1}", "cores"},
        {"{\"cores\": 99999999999999999999}", "config.json"},
        {"{\"cores\": 2, \"input_memory\": \"512MB\"}", "\"512MB\" is no size"},
        {"{\"cores\": 2, \"input_memory\": \"18446744073709551615GiB\"}", "is no size"},
        {"{\"cores\": 2, \"input_memory\": 1}", "input_memory is 1, allowed is 33554432"},
        {"{\"cores\": 2, \"sandbox\": 1}", "sandbox must be true or false"},
        {"{\"cores\": 2, \"log_level\": \"loud\"}", "\"loud\" is none of trace"},
        {"{\"cores\": 2, \"allowed_hosts\": \"a\"}", "allowed_hosts must be a list"},
        {"{\"cores\": 2, \"allowed_hosts\": [1]}", "allowed_hosts[0] must be a text"},
        {"{\"cores\": 2, \"listen\": null}", "listen must be a text"},
        {"{\"cores\": 2, \"cores\": 3}", "duplicate"},
        {"[]", "one JSON object"},
        {"{\"cores\": 2", "line 1"},
        {"", "line 1"},
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(load(w, cases[i].text), XI_ECONFIG);
        assert_int_equal(w->err.rc, XI_ECONFIG);
        if (strstr(w->err.msg, cases[i].words) == NULL)
            fail_msg("%s: \"%s\" does not say \"%s\"", cases[i].text, w->err.msg, cases[i].words);
        assert_int_equal(w->c.cores, 0);
    }
    assert_int_equal(xi_config_load(&w->c, "/nowhere/config.json", &w->err), XI_ECONFIG);
    assert_non_null(strstr(w->err.msg, "No such file"));
}

static void unknown_key_names_the_nearest(void **state)
{
    struct world *w = *state;

    assert_int_equal(load(w, "{\"listn\": \"127.0.0.1:1\"}"), XI_ECONFIG);
    assert_non_null(strstr(w->err.msg, "unknown key \"listn\""));
    assert_string_equal(w->err.hint, "did you mean \"listen\"?");
}

static enum xi_rc args(struct world *w, int *ret_exit, const char *const *words)
{
    char *argv[16] = {(char *)(uintptr_t) "xinferd"};
    int n = 1;

    for (; words[n - 1] != NULL; n++)
        argv[n] = (char *)(uintptr_t)words[n - 1];
    return xi_config_args(&w->c, n, argv, ret_exit, &w->err);
}

#define ARGS(w, e, ...) args(w, e, (const char *const[]){__VA_ARGS__, NULL})

static void flags_over_the_file(void **state)
{
    struct world *w = *state;
    char want[128];
    int leave = 9;

    write_text(w->file, "{\"cores\": 2, \"listen\": \"127.0.0.1:1\"}", 0600);
    assert_int_equal(ARGS(w, &leave, "--listen", "127.0.0.1:2", "--config", w->file,
                          "--log-level=debug", "--no-sandbox", "--idle-exit", "7", "--state",
                          w->dir),
                     XI_OK);
    assert_int_equal(leave, -1);
    assert_string_equal(w->c.listen, "127.0.0.1:2");
    assert_int_equal(w->c.cores, 2);
    assert_int_equal(w->c.log_level, XI_DEBUG);
    assert_int_equal(w->c.sandbox, 0);
    assert_int_equal(w->c.idle_exit_s, 7);
    (void)snprintf(want, sizeof want, "%s/xinferd.sock", w->dir);
    assert_string_equal(w->c.socket, want); /* a named state directory holds its socket */

    char here[128];
    assert_int_equal(chdir(w->dir), 0);
    assert_int_equal(ARGS(w, &leave, "--state", "./a"), XI_OK);
    assert_non_null(getcwd(here, sizeof here));
    (void)snprintf(want, sizeof want, "%s/a", here);
    assert_string_equal(w->c.state_dir, want);
    assert_int_equal(chdir("/"), 0);
}

static void bad_flags_are_told(void **state)
{
    struct world *w = *state;
    int leave;

    assert_int_equal(ARGS(w, &leave, "--lisen", "x"), XI_EUSAGE);
    assert_non_null(strstr(w->err.hint, "did you mean --listen?"));
    assert_int_equal(ARGS(w, &leave, "serve"), XI_EUSAGE);
    assert_non_null(strstr(w->err.msg, "unknown argument \"serve\""));
    assert_int_equal(ARGS(w, &leave, "--state"), XI_EUSAGE);
    assert_string_equal(w->err.msg, "--state needs DIR behind it");
    assert_int_equal(ARGS(w, &leave, "--cores", "many"), XI_EUSAGE);
    assert_int_equal(w->err.rc, XI_EUSAGE);
    assert_int_equal(ARGS(w, &leave, "--no-sandbox=yes"), XI_EUSAGE);
    char deep[200];
    memset(deep, 'd', sizeof deep);
    memcpy(deep, "/tmp/", 5);
    deep[sizeof deep - 1] = '\0';
    assert_int_equal(ARGS(w, &leave, "--state", deep), XI_ECONFIG);
    assert_non_null(strstr(w->err.hint, "--socket"));
}

/* XDG Base Directory Specification: data in $XDG_DATA_HOME, else ~/.local/share; sockets in
 * $XDG_RUNTIME_DIR. */
static void places_when_nobody_names_them(void **state)
{
    struct world *w = *state;
    struct world *other = calloc(1, sizeof *other);
    int leave, root = geteuid() == 0;

    assert_int_equal(setenv("XDG_DATA_HOME", "/data", 1), 0);
    assert_int_equal(setenv("XDG_RUNTIME_DIR", "/run/user/7", 1), 0);
    assert_int_equal(ARGS(w, &leave, "--cores", "1"), XI_OK);
    assert_string_equal(w->c.state_dir, root ? "/var/lib/xinfer" : "/data/xinfer");
    assert_string_equal(w->c.socket,
                        root ? "/run/xinfer/xinferd.sock" : "/run/user/7/xinfer/xinferd.sock");
    assert_int_equal(unsetenv("XDG_DATA_HOME"), 0);
    assert_int_equal(unsetenv("XDG_RUNTIME_DIR"), 0);
    assert_int_equal(setenv("HOME", "/home/a", 1), 0);
    xi_config_defaults(&other->c);
    assert_int_equal(ARGS(other, &leave, "--cores", "1"), XI_OK);
    assert_string_equal(other->c.state_dir,
                        root ? "/var/lib/xinfer" : "/home/a/.local/share/xinfer");
    assert_string_equal(other->c.socket, root ? "/run/xinfer/xinferd.sock"
                                              : "/home/a/.local/share/xinfer/xinferd.sock");
    free(other);
}

static void addresses(void **state)
{
    const struct {
        const char *text, *host;
        int port, loopback;
    } good[] = {
        {"127.0.0.1:9470", "127.0.0.1", 9470, 1},
        {"127.9.9.9:0", "127.9.9.9", 0, 1},
        {"localhost:80", "localhost", 80, 1},
        {"[::1]:65535", "::1", 65535, 1},
        {"0.0.0.0:1", "0.0.0.0", 1, 0},
        {"[::]:1", "::", 1, 0},
        {"10.0.0.1:1", "10.0.0.1", 1, 0},
        {"[::ffff:127.0.0.1]:1", "::ffff:127.0.0.1", 1, 1},
        {"[::ffff:8.8.8.8]:1", "::ffff:8.8.8.8", 1, 0},
    };
    const char *bad[] = {"",           "9470",          ":9470",      "127.0.0.1",
                         "127.0.0.1:", "1.2.3.4:65536", "1.2.3.4:-1", "1.2.3.4:1x",
                         "::1:9470",   "example.org:1", "[::1]",      "[::1:1",
                         "127.1:1",    "1.2.3.4 :1"};
    struct xi_listen l;

    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        assert_int_equal(xi_config_listen(good[i].text, &l, NULL), XI_OK);
        assert_string_equal(l.host, good[i].host);
        assert_int_equal(l.port, good[i].port);
        assert_int_equal(l.loopback, good[i].loopback);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (xi_config_listen(bad[i], &l, NULL) != XI_ECONFIG)
            fail_msg("\"%s\" was taken", bad[i]);
}

static enum xi_rc check(struct world *w, const char *listen, const char *token)
{
    (void)snprintf(w->c.listen, sizeof w->c.listen, "%s", listen);
    (void)snprintf(w->c.token_file, sizeof w->c.token_file, "%s", token);
    (void)snprintf(w->c.state_dir, sizeof w->c.state_dir, "%s", w->dir);
    return xi_config_check(&w->c, &w->err);
}

static void an_open_door_needs_a_token_file(void **state)
{
    struct world *w = *state;

    assert_int_equal(check(w, "127.0.0.1:0", ""), XI_OK);
    assert_int_equal(check(w, "0.0.0.0:0", ""), XI_ECONFIG);
    assert_non_null(strstr(w->err.hint, "--token-file"));
    assert_int_equal(check(w, "0.0.0.0:0", w->token), XI_ECONFIG);
    assert_non_null(strstr(w->err.msg, "No such file"));
    write_text(w->token, "x\n", 0644);
    assert_int_equal(check(w, "0.0.0.0:0", w->token), XI_ECONFIG);
    assert_non_null(strstr(w->err.msg, "its mode is 0644"));
    assert_int_equal(check(w, "127.0.0.1:0", w->token), XI_ECONFIG);
    assert_int_equal(chmod(w->token, 0600), 0);
    assert_int_equal(check(w, "0.0.0.0:0", w->token), XI_OK);
    assert_int_equal(check(w, "0.0.0.0:0", w->dir), XI_ECONFIG);
    w->c.host_program[0] = '\0';
    assert_int_equal(check(w, "127.0.0.1:0", ""), XI_ECONFIG);
    assert_non_null(strstr(w->err.msg, "xinfer-host"));
}

/* docs/configuration.md holds the table of the keys word for word. */
static void docs_are_the_table(void **state)
{
    struct xi_str table, help;
    static char docs[64 * 1024];
    FILE *f = fopen(XI_SOURCE_DIR "/docs/configuration.md", "r");

    (void)state;
    assert_non_null(f);
    docs[fread(docs, 1, sizeof docs - 1, f)] = '\0';
    (void)fclose(f);
    xi_str_init(&table, 64 * 1024);
    xi_str_init(&help, 64 * 1024);
    xi_config_markdown(&table);
    if (strstr(docs, xi_str_text(&table)) == NULL) {
        (void)fputs(xi_str_text(&table), stderr);
        fail_msg("docs/configuration.md must hold the table above");
    }
    xi_config_help(&help);
    const char *flags[] = {"--config",     "--listen",    "--state",        "--socket",
                           "--token-file", "--log-level", "--log-format",   "--cores",
                           "--no-sandbox", "--idle-exit", "--check-config", "--version",
                           "--help"};
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) {
        assert_non_null(strstr(xi_str_text(&help), flags[i]));
        assert_non_null(strstr(docs, flags[i]));
    }
    xi_str_fini(&table);
    xi_str_fini(&help);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(file_over_defaults),
        T(bad_files_change_nothing),
        T(unknown_key_names_the_nearest),
        T(flags_over_the_file),
        T(bad_flags_are_told),
        T(places_when_nobody_names_them),
        T(addresses),
        T(an_open_door_needs_a_token_file),
        T(docs_are_the_table),
    };

    return cmocka_run_group_tests_name("config", tests, NULL, NULL);
}
