#define _GNU_SOURCE
#include "daemon/config.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/json.h"
#include "base/platform/file.h"
#include "base/platform/process.h"
#include "base/size.h"
#include "base/str.h"
#include "daemon/config_impl.h"
#include "daemon/core/settings.h"

enum { FILE_MAX = 1024 * 1024 };

/* The words of a row are its documentation: docs/configuration.md is made of them. */
#define AT(field)              offsetof(struct xi_config, field)
#define TEXT(field)            XI_CONFIG_TEXT, AT(field), sizeof(((struct xi_config *)0)->field), 0, 0, 0
#define BYTES(field, min, max) XI_CONFIG_BYTES, AT(field), 0, 0, min, max
#define PART(field, min, max)  XI_CONFIG_PART, AT(field), 0, 0, min, max
#define COUNT(field, min, max) XI_CONFIG_COUNT, AT(field), 0, 0, min, max
#define LIST(field)            XI_CONFIG_LIST, AT(field), 0, AT(n_##field), 0, 0
#define TENANTS(field)         XI_CONFIG_TENANTS, AT(field), sizeof(((struct xi_config *)0)->field), 0, 0, 0
#define OTHER(kind, field)     kind, AT(field), 0, 0, 0, 0

const struct xi_config_key xi_config_keys[] = {
    {"listen", "--listen", "HOST:PORT", TEXT(listen), "127.0.0.1:9470",
     "Address for HTTP; port 0 picks a free one, an empty text is no TCP."},
    {"socket", "--socket", "PATH", TEXT(socket), "xinferd.sock in DIR, or in the runtime directory",
     "Unix socket that speaks the same API."},
    {"state", "--state", "DIR", TEXT(state_dir),
     "/var/lib/xinfer as root, else ~/.local/share/xinfer",
     "Directory for packages, compiled models and the lock; one daemon each."},
    {"token_file", "--token-file", "FILE", TEXT(token_file), "none",
     "Who may call; required when listen is not loopback, mode 0600."},
    {"admin_group", "--admin-group", "GROUP", TEXT(admin_group),
     "none: whoever can open the socket",
     "Open the Unix socket to all; root, this user and members of the group administer."},
    {"anonymous", NULL, NULL, OTHER(XI_CONFIG_ROLE, anonymous), "admin",
     "What callers without a token may do where there is no token file: public, infer, control or "
     "admin."},
    {"allowed_hosts", NULL, NULL, LIST(allowed_hosts), "none",
     "Names beside loopback that a request's Host may have."},
    {"allowed_origins", NULL, NULL, LIST(allowed_origins), "none",
     "Origins of web pages that may call."},
    {"log_level", "--log-level", "LEVEL", OTHER(XI_CONFIG_LEVEL, log_level), "info",
     "trace, debug, info, warn or error."},
    {"log_format", "--log-format", "FORMAT", OTHER(XI_CONFIG_STYLE, log_style),
     "text, or journald under systemd", "text, json or journald; to standard error."},
    {"cores", "--cores", "N", COUNT(cores, 0, XI_LANES_MAX), "0: all this process may use",
     "Cores that models may keep busy together."},
    {"queue_limit", NULL, NULL, COUNT(queue_limit, 1, XI_QUEUE_MAX), "256",
     "Requests that may wait for one model; more are answered 503 at once."},
    {"input_memory", NULL, NULL, BYTES(input_memory_bytes, 32 * XI_MIB, 1024 * XI_GIB),
     "a quarter of the memory, 256MiB to 2GiB", "Memory for the inputs of all waiting requests."},
    {"grpc_message", NULL, NULL, BYTES(grpc_message_bytes, XI_MIB, XI_GIB), "256MiB",
     "The largest message of a gRPC client."},
    {"memory", "--memory", "SIZE", PART(memory_bytes, 64 * XI_MIB, 1024 * XI_GIB), "80%",
     "Memory that all models may reserve together: a size, or a part of the machine's memory."},
    {"evict", NULL, NULL, OTHER(XI_CONFIG_SWITCH, evict), "true",
     "When memory is short, unload the model that was idle longest instead of refusing a load."},
    {"tenants", NULL, NULL, TENANTS(tenants), "none",
     "Weight and limits of each tenant; see below."},
    {"host_memory", NULL, NULL, BYTES(host_data_limit_bytes, 64 * XI_MIB, 1024 * XI_GIB),
     "three quarters of the memory", "Memory that one model's process may take at most."},
    {"drain_ms", NULL, NULL, COUNT(drain_ms, 0, 600000), "30000",
     "Time for running requests to end when the daemon is told to stop."},
    {"watchdog_min_ms", NULL, NULL, COUNT(watchdog_min_ms, 100, 3600000), "5000",
     "A request that runs longer than this, and than its model is known to need, ends its "
     "process."},
    {"crash_limit", NULL, NULL, COUNT(crash_limit, 1, 1000), "5",
     "Crashes within crash_window_ms after which a model is quarantined."},
    {"crash_window_ms", NULL, NULL, COUNT(crash_window_ms, 1000, 86400000), "60000",
     "The time in which crash_limit counts."},
    {"idle_exit_s", "--idle-exit", "SECONDS", COUNT(idle_exit_s, 0, 31536000), "0: never",
     "End by itself when no client was seen for so long."},
    {"sandbox", "--no-sandbox", "Run models without their sandbox.",
     OTHER(XI_CONFIG_SWITCH, sandbox), "true",
     "Run models in a sandbox; off only to look for a fault."},
    {"host_uid", NULL, NULL, COUNT(host_uid, 0, 4294967294u), "0: picked, as root",
     "As root: user id that models' processes run as."},
    {"engine_dir", NULL, NULL, TEXT(engine_dir), "../lib/xinfer beside the program",
     "Where the engine plugins lie."},
    {"openvino_dir", NULL, NULL, TEXT(openvino_dir), "openvino in engine_dir, if it is there",
     "Where OpenVINO's libraries lie; empty: the system's own."},
    {"sensors_root", NULL, NULL, TEXT(sensors_root), "the machine's own",
     "A directory with the proc and sys of another machine, to see what its sensors would give."},
    {"host_program", NULL, NULL, TEXT(host_program), "xinfer-host beside the program",
     "The program that runs models."},
    {NULL, NULL, NULL, OTHER(XI_CONFIG_TEXT, listen), NULL, NULL},
};

/* ---- defaults ---- */

static uint64_t physical_bytes(void)
{
    long pages = sysconf(_SC_PHYS_PAGES), size = sysconf(_SC_PAGESIZE);

    return pages > 0 && size > 0 ? (uint64_t)pages * (uint64_t)size : 2 * XI_GIB;
}

static uint64_t between(uint64_t v, uint64_t min, uint64_t max)
{
    return v < min ? min : v > max ? max : v;
}

static int is_dir(const char *path)
{
    struct stat st;

    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

/* dst = dir/name without "..": what `dir` leads to. 1 when it is there and fits. */
static int place_beside(const char *dir, const char *name, char *dst, size_t room)
{
    char path[PATH_MAX], whole[PATH_MAX];

    if (snprintf(path, sizeof path, "%s/%s", dir, name) >= (int)sizeof path ||
        realpath(path, whole) == NULL || strlen(whole) >= room)
        return 0;
    (void)snprintf(dst, room, "%s", whole);
    return 1;
}

/* Installed: PREFIX/bin and PREFIX/lib/xinfer. Built: build/bin and build/lib/xinfer, with
 * OpenVINO where it was fetched (presets build one folder deeper). */
static void find_parts(struct xi_config *c)
{
    static const char *const openvino[] = {"../lib/xinfer/openvino", "../deps/openvino/lib",
                                           "../../deps/openvino/lib"};
    char self[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);

    if (n <= 0)
        return;
    self[n] = '\0';
    *strrchr(self, '/') = '\0';
    (void)place_beside(self, "../lib/xinfer", c->engine_dir, sizeof c->engine_dir);
    (void)place_beside(self, "xinfer-host", c->host_program, sizeof c->host_program);
    for (size_t i = 0; i < sizeof openvino / sizeof *openvino && !c->openvino_dir[0]; i++)
        if (place_beside(self, openvino[i], c->openvino_dir, sizeof c->openvino_dir) &&
            !is_dir(c->openvino_dir))
            c->openvino_dir[0] = '\0';
}

void xi_config_defaults(struct xi_config *c)
{
    uint64_t memory = physical_bytes();

    *c = (struct xi_config){
        .listen = "127.0.0.1:9470",
        .anonymous = XI_ROLE_ADMIN,
        .log_level = XI_INFO,
        .log_style = getenv("JOURNAL_STREAM") ? XI_LOG_JOURNALD : XI_LOG_TEXT,
        .grpc_message_bytes = 256 * XI_MIB,
        .input_memory_bytes = between(memory / 4, 256 * XI_MIB, 2 * XI_GIB),
        .memory_bytes = memory / 5 * 4,
        .evict = 1,
        .host_data_limit_bytes = memory / 4 * 3,
        .queue_limit = 256,
        .drain_ms = 30000,
        .watchdog_min_ms = 5000,
        .crash_window_ms = 60000,
        .crash_limit = 5,
        .sandbox = 1,
    };
    find_parts(c);
}

/* ---- one value ---- */

static enum xi_rc set_text(char *dst, size_t room, const char *shown, const char *text,
                           struct xi_err *err)
{
    if (strlen(text) >= room)
        return xi_fail(err, XI_ECONFIG, "%s: %zu characters, at most %zu are allowed", shown,
                       strlen(text), room - 1);
    (void)snprintf(dst, room, "%s", text);
    return XI_OK;
}

static int parse_number(const char *text, const char **ret_rest, uint64_t *ret)
{
    char *rest;

    if (text[0] < '0' || text[0] > '9')
        return -1;
    errno = 0;
    *ret = strtoull(text, &rest, 10);
    *ret_rest = rest;
    return errno == 0 ? 0 : -1;
}

static enum xi_rc parse_bytes(const char *shown, const char *text, uint64_t whole, uint64_t *ret,
                              struct xi_err *err)
{
    if (xi_size_parse(text, whole, ret) == 0)
        return XI_OK;
    (void)xi_fail(err, XI_ECONFIG, "%s: \"%.40s\" is no size", shown, text);
    return xi_hint(err, "bytes as a number, or with a unit: \"512MiB\", \"2GiB\", \"64KiB\"%s",
                   whole != 0 ? ", or a part of the memory: \"80%\"" : "");
}

static enum xi_rc in_range(const struct xi_config_key *key, const char *shown, uint64_t v,
                           struct xi_err *err)
{
    if (v >= key->min && v <= key->max)
        return XI_OK;
    return xi_fail(err, XI_ECONFIG, "%s is %llu, allowed is %llu to %llu", shown,
                   (unsigned long long)v, (unsigned long long)key->min,
                   (unsigned long long)key->max);
}

static int is_size(const struct xi_config_key *key)
{
    return key->kind == XI_CONFIG_BYTES || key->kind == XI_CONFIG_PART;
}

static enum xi_rc set_count(struct xi_config *c, const struct xi_config_key *key, const char *shown,
                            const char *text, struct xi_err *err)
{
    const char *rest = "";
    uint64_t v = 0;
    enum xi_rc rc;

    if (is_size(key))
        rc = parse_bytes(shown, text, key->kind == XI_CONFIG_PART ? physical_bytes() : 0, &v, err);
    else if (parse_number(text, &rest, &v) != 0 || *rest)
        rc = xi_fail(err, XI_ECONFIG, "%s: \"%.40s\" is no whole number", shown, text);
    else
        rc = XI_OK;
    if (rc == XI_OK)
        rc = in_range(key, shown, v, err);
    if (rc != XI_OK)
        return rc;
    if (is_size(key))
        memcpy((char *)c + key->offset, &v, sizeof v);
    else
        memcpy((char *)c + key->offset, &(uint32_t){(uint32_t)v}, sizeof(uint32_t));
    return XI_OK;
}

static enum xi_rc set_style(struct xi_config *c, const char *shown, const char *text,
                            struct xi_err *err)
{
    static const char *const names[] = {"text", "json", "journald", NULL};
    static const enum xi_log_style styles[] = {XI_LOG_TEXT, XI_LOG_JSON, XI_LOG_JOURNALD};

    for (int i = 0; names[i] != NULL; i++)
        if (strcmp(text, names[i]) == 0) {
            c->log_style = styles[i];
            return XI_OK;
        }
    return xi_fail(err, XI_ECONFIG, "%s: \"%.40s\" is none of text, json and journald", shown,
                   text);
}

static enum xi_rc set_role(struct xi_config *c, const char *shown, const char *text,
                           struct xi_err *err)
{
    for (int r = XI_ROLE_PUBLIC; r <= XI_ROLE_ADMIN; r++)
        if (strcmp(text, xi_role_name((enum xi_role)r)) == 0) {
            c->anonymous = (enum xi_role)r;
            return XI_OK;
        }
    return xi_fail(err, XI_ECONFIG, "%s: \"%.40s\" is none of public, infer, control and admin",
                   shown, text);
}

enum xi_rc xi_config_set(struct xi_config *c, const struct xi_config_key *key, const char *shown,
                         const char *text, struct xi_err *err)
{
    switch (key->kind) {
    case XI_CONFIG_TEXT:
        return set_text((char *)c + key->offset, key->room, shown, text, err);
    case XI_CONFIG_BYTES:
    case XI_CONFIG_PART:
    case XI_CONFIG_COUNT:
        return set_count(c, key, shown, text, err);
    case XI_CONFIG_LEVEL:
        if (xi_log_level_parse(text, &c->log_level) == 0)
            return XI_OK;
        return xi_fail(err, XI_ECONFIG,
                       "%s: \"%.40s\" is none of trace, debug, info, warn and error", shown, text);
    case XI_CONFIG_ROLE:
        return set_role(c, shown, text, err);
    case XI_CONFIG_STYLE:
        return set_style(c, shown, text, err);
    default:
        return xi_fail(err, XI_EINTERNAL, "%s can't be given as text", shown);
    }
}

/* ---- the file ---- */

static enum xi_rc set_list(struct xi_config *c, const struct xi_config_key *key, const json_t *v,
                           struct xi_err *err)
{
    char(*list)[128] = (char(*)[128])((char *)c + key->offset);
    size_t n = json_array_size(v);

    if (!json_is_array(v) || n > XI_CONFIG_LIST_MAX)
        return xi_fail(err, XI_ECONFIG, "%s must be a list of at most %d texts", key->key,
                       XI_CONFIG_LIST_MAX);
    for (size_t i = 0; i < n; i++) {
        const char *text = json_string_value(json_array_get(v, i));
        if (text == NULL || *text == '\0')
            return xi_fail(err, XI_ECONFIG, "%s[%zu] must be a text", key->key, i);
        enum xi_rc rc = set_text(list[i], sizeof list[i], key->key, text, err);
        if (rc != XI_OK)
            return rc;
    }
    memcpy((char *)c + key->count, &(uint32_t){(uint32_t)n}, sizeof(uint32_t));
    return XI_OK;
}

static enum xi_rc set_switch(struct xi_config *c, const struct xi_config_key *key, const json_t *v,
                             struct xi_err *err)
{
    if (!json_is_boolean(v))
        return xi_fail(err, XI_ECONFIG, "%s must be true or false", key->key);
    memcpy((char *)c + key->offset, &(int){json_is_true(v)}, sizeof(int));
    return XI_OK;
}

/* Checked here, kept as text: the service reads it once more, with what was changed since. */
static enum xi_rc set_tenants(struct xi_config *c, const struct xi_config_key *key, const json_t *v,
                              struct xi_err *err)
{
    json_t *doc = json_pack("{s:O}", key->key, v);
    struct xi_settings settings = {0};
    enum xi_rc rc = doc == NULL ? xi_fail(err, XI_ENOMEM, "out of memory")
                                : xi_settings_read(doc, 0, &settings, err);
    size_t n =
        rc == XI_OK ? json_dumpb(v, (char *)c + key->offset, key->room - 1, JSON_COMPACT) : 0;

    json_decref(doc);
    xi_settings_fini(&settings);
    if (rc != XI_OK)
        return xi_wrap(err, XI_ECONFIG, "the file");
    if (n >= key->room)
        return xi_fail(err, XI_ECONFIG, "%s: more than %zu characters", key->key, key->room - 1);
    ((char *)c + key->offset)[n] = '\0';
    return XI_OK;
}

static enum xi_rc set_json(struct xi_config *c, const struct xi_config_key *key, const json_t *v,
                           struct xi_err *err)
{
    char number[32];
    const char *text = json_string_value(v);
    int takes_number = key->kind == XI_CONFIG_COUNT || is_size(key);

    if (key->kind == XI_CONFIG_LIST)
        return set_list(c, key, v, err);
    if (key->kind == XI_CONFIG_SWITCH)
        return set_switch(c, key, v, err);
    if (key->kind == XI_CONFIG_TENANTS)
        return set_tenants(c, key, v, err);
    if (takes_number && json_is_integer(v)) {
        (void)snprintf(number, sizeof number, "%lld", (long long)json_integer_value(v));
        text = number;
    } else if (key->kind == XI_CONFIG_COUNT) {
        text = NULL;
    }
    if (text == NULL)
        return xi_fail(err, XI_ECONFIG, "%s must be %s", key->key,
                       takes_number ? "a whole number" : "a text");
    return xi_config_set(c, key, key->key, text, err);
}

static enum xi_rc apply(struct xi_config *c, const json_t *root, struct xi_err *err)
{
    const char *known[64];
    size_t n = 0;
    enum xi_rc rc = XI_OK;

    if (!json_is_object(root))
        return xi_fail(err, XI_ECONFIG, "the file must hold one JSON object");
    for (const struct xi_config_key *k = xi_config_keys; k->key != NULL; k++)
        known[n++] = k->key;
    known[n] = NULL;
    if (xi_json_known_keys(root, "", known, err) != XI_OK)
        return XI_ECONFIG;
    for (const struct xi_config_key *k = xi_config_keys; rc == XI_OK && k->key != NULL; k++) {
        const json_t *v = json_object_get(root, k->key);
        if (v != NULL)
            rc = set_json(c, k, v, err);
    }
    return rc;
}

static enum xi_rc read_file(const char *path, char **ret, size_t *ret_bytes, struct xi_err *err)
{
    int more = 0;
    size_t n = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    char *text = malloc(FILE_MAX);
    enum xi_rc rc = XI_OK;

    if (text == NULL)
        rc = xi_fail(err, XI_ENOMEM, "out of memory");
    else if (fd < 0 || xi_fd_read_start(fd, text, FILE_MAX, &n, &more) != 0)
        rc = xi_fail(err, XI_ECONFIG, "%s", strerror(errno));
    else if (more)
        rc = xi_fail(err, XI_ECONFIG, "larger than %d bytes", FILE_MAX);
    xi_fd_close(&fd);
    if (rc != XI_OK) {
        free(text);
        return rc;
    }
    *ret = text;
    *ret_bytes = n;
    return XI_OK;
}

enum xi_rc xi_config_load(struct xi_config *c, const char *path, struct xi_err *err)
{
    char *text = NULL;
    size_t bytes = 0;
    json_t *root = NULL;
    struct xi_config next = *c;
    enum xi_rc rc = read_file(path, &text, &bytes, err);

    if (rc == XI_OK)
        rc = xi_json_parse(text, bytes, FILE_MAX, &root, err);
    if (rc == XI_OK)
        rc = apply(&next, root, err);
    json_decref(root);
    free(text);
    if (rc != XI_OK)
        return xi_wrap(err, XI_ECONFIG, "%.100s", path);
    *c = next;
    return XI_OK;
}
