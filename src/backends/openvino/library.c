/* library.c: finds libopenvino_c at run time, and puts its errors into one sentence. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ov.h"

#define STEM "libopenvino_c.so"

static const char *const usual_dirs[] = {
    "/usr/local/lib",
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib64",
    "/usr/lib",
    "/opt/intel/openvino/runtime/lib/intel64",
    "/opt/intel/openvino/runtime/lib/aarch64",
};

static const struct {
    const char *name;
    size_t offset;
} symbols[] = {
#define X(function) {#function, offsetof(struct ov_library, function)},
    OV_FUNCTIONS(X)
#undef X
};

/* ---- errors ---- */

int ov_fail(const struct ov_err *err, int code, const char *format, ...)
{
    va_list args;

    if (err == NULL || err->text == NULL || err->bytes == 0)
        return code;
    va_start(args, format);
    vsnprintf(err->text, err->bytes, format, args);
    va_end(args);
    return code;
}

static int begins(const char *line, size_t n, const char *with)
{
    size_t length = strlen(with);

    return n >= length && strncmp(line, with, length) == 0;
}

/* The vendor nests "Exception from src/…:97:" and "Check '…' failed at src/…:" lines around what
 * says something, */
static int is_frame(const char *line, size_t n)
{
    return n == 0 || begins(line, n, "Exception from ") ||
           (begins(line, n, "Check '") && memmem(line, n, "failed at ", 10) != NULL);
}

/* and puts headings over a list of what went wrong. */
static int is_heading(const char *line, size_t n)
{
    return begins(line, n, "FrontEnd API failed with ") ||
           begins(line, n, "Model wasn't fully converted") || begins(line, n, "Summary:");
}

static size_t useful_line(const char *text, const char **ret)
{
    const char *heading = text;

    for (const char *line = text; *line != '\0';) {
        size_t n = strcspn(line, "\r\n");
        if (!is_frame(line, n) && !is_heading(line, n)) {
            *ret = begins(line, n, "-- ") ? line + 3 : line;
            return n - (size_t)(*ret - line);
        }
        if (heading == text && !is_frame(line, n))
            heading = line;
        line += n;
        line += strspn(line, "\r\n");
    }
    *ret = heading;
    return strcspn(heading, "\r\n");
}

/* Copies one line, printable, with `hide` replaced: a client must not learn our paths. What the
 * vendor advises after "Please check" (a list of its own parts) helps nobody here. */
static void copy_line(const char *line, size_t n, const char *hide, char *ret, size_t room)
{
    size_t hidden = hide != NULL ? strlen(hide) : 0, used = 0;
    const char *advice = memmem(line, n, "Please check", 12);

    if (advice != NULL && advice > line)
        n = (size_t)(advice - line);
    for (size_t i = 0; i < n && used + 16 < room; i++) {
        if (hidden > 0 && n - i >= hidden && memcmp(line + i, hide, hidden) == 0) {
            memcpy(ret + used, "model", 5);
            used += 5;
            i += hidden - 1;
        } else {
            ret[used++] = (unsigned char)line[i] < 32 || line[i] == 127 ? ' ' : line[i];
        }
    }
    while (used > 0 && (ret[used - 1] == ' ' || ret[used - 1] == '.' || ret[used - 1] == ':'))
        used--;
    ret[used] = '\0';
}

int ov_vendor_fail(const struct ov_library *lib, ov_status_e status, int code, const char *what,
                   const char *hide, const struct ov_err *err)
{
    const char *own = NULL, *text, *line;
    char clean[256];
    size_t n;

    /* The last-error text is the process's, never cleared, and these three codes do not set it.
     * What is returned is a copy. */
    if (status != INVALID_C_PARAM && status != UNKNOWN_C_ERROR && status != NOT_IMPLEMENT_C_METHOD)
        own = lib->ov_get_last_err_msg();
    text = own != NULL && own[0] != '\0' ? own : lib->ov_get_error_info(status);
    n = useful_line(text, &line);
    copy_line(line, n, hide, clean, sizeof(clean));
    if (strstr(text, "bad_alloc") != NULL || strcasestr(text, "failed to allocate") != NULL ||
        strcasestr(text, "out of memory") != NULL)
        code = XI_ENGINE_NO_MEMORY;
    if (own != NULL)
        lib->ov_free(own);
    return ov_fail(err, code, "%s: %s", what, clean);
}

/* ---- the library ---- */

/* The plain name wins, else the highest release: "libopenvino_c.so.2641". */
static int find_in(const char *dir, char path[PATH_MAX])
{
    char best[NAME_MAX + 1] = "";
    struct dirent *entry;
    DIR *d = opendir(dir);
    int n;

    if (d == NULL)
        return 0;
    while ((entry = readdir(d)) != NULL) {
        const char *name = entry->d_name;
        if (strncmp(name, STEM, strlen(STEM)) != 0 ||
            (name[strlen(STEM)] != '\0' && name[strlen(STEM)] != '.'))
            continue;
        if (best[0] == '\0' || strcmp(name, STEM) == 0 ||
            (strcmp(best, STEM) != 0 && strverscmp(name, best) > 0))
            snprintf(best, sizeof(best), "%s", name);
    }
    closedir(d);
    if (best[0] == '\0')
        return 0;
    n = snprintf(path, PATH_MAX, "%s/%s", dir, best);
    return n > 0 && n < PATH_MAX;
}

static int find_library(const char *library_dir, char path[PATH_MAX])
{
    if (library_dir != NULL && library_dir[0] != '\0')
        return find_in(library_dir, path);
    for (size_t i = 0; i < sizeof(usual_dirs) / sizeof(usual_dirs[0]); i++)
        if (find_in(usual_dirs[i], path))
            return 1;
    return 0;
}

static int load_symbols(struct ov_library *lib, const char **ret_missing)
{
    for (size_t i = 0; i < sizeof(symbols) / sizeof(symbols[0]); i++) {
        void *symbol = dlsym(lib->handle, symbols[i].name);
        if (symbol == NULL) {
            *ret_missing = symbols[i].name;
            return -1;
        }
        memcpy((char *)lib + symbols[i].offset, &symbol, sizeof(symbol));
    }
    return 0;
}

int ov_library_open(const char *library_dir, struct ov_library *ret, char missing[256],
                    const struct ov_err *err)
{
    char path[PATH_MAX], reason[256] = "";
    const char *symbol = NULL;

    if (!find_library(library_dir, path)) {
        snprintf(reason, sizeof(reason),
                 "no %s* in %s: install OpenVINO 2026 or name its library folder", STEM,
                 library_dir != NULL && library_dir[0] != '\0' ? library_dir
                                                               : "the system's library folders");
    } else {
        /* The full path: the libraries beside it are found by its own $ORIGIN. */
        ret->handle = dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
        if (ret->handle == NULL)
            snprintf(reason, sizeof(reason), "%s* was found and does not load: %.180s", STEM,
                     dlerror());
        else if (load_symbols(ret, &symbol) != 0)
            snprintf(reason, sizeof(reason), "%s* lacks %s: OpenVINO 2026 or later is needed", STEM,
                     symbol);
    }
    if (reason[0] == '\0')
        return XI_ENGINE_OK;
    if (ret->handle != NULL)
        dlclose(ret->handle);
    ret->handle = NULL;
    if (missing != NULL)
        memcpy(missing, reason, sizeof(reason));
    return ov_fail(err, XI_ENGINE_NOT_PRESENT, "%s", reason);
}

/* ---- probe ---- */

static void describe_device(const struct ov_library *lib, const ov_core_t *core, const char *id,
                            struct xi_engine_device *ret)
{
    char *name = NULL;

    snprintf(ret->id, sizeof(ret->id), "%s", id);
    snprintf(ret->name, sizeof(ret->name), "%s", id);
    if (lib->ov_core_get_property(core, id, "FULL_DEVICE_NAME", &name) == OK && name != NULL) {
        snprintf(ret->name, sizeof(ret->name), "%s", name);
        lib->ov_free(name);
    }
    ret->kind = XI_DEV_CPU;
    if (strncmp(id, "GPU", 3) == 0)
        ret->kind = XI_DEV_GPU;
    else if (strncmp(id, "NPU", 3) == 0)
        ret->kind = XI_DEV_NPU;
    if (ret->kind == XI_DEV_CPU)
        ret->context_bytes = 10u << 20; /* measured: private memory of a host before any model */
}

static int list_devices(const struct ov_library *lib, struct xi_engine_probe *out,
                        const struct ov_err *err)
{
    ov_available_devices_t devices = {NULL, 0};
    ov_core_t *core = NULL;
    ov_status_e status = lib->ov_core_create(&core);

    if (status == OK)
        status = lib->ov_core_get_available_devices(core, &devices);
    if (status != OK) {
        int rc = ov_vendor_fail(lib, status, XI_ENGINE_NOT_PRESENT, "no device", NULL, err);
        snprintf(out->missing, sizeof(out->missing), "OpenVINO is here and lists no device");
        if (core != NULL)
            lib->ov_core_free(core);
        return rc;
    }
    for (size_t i = 0; i < devices.size && out->n_devices < XI_ENGINE_MAX_DEVICES; i++)
        if (strlen(devices.devices[i]) < sizeof(out->devices[0].id))
            describe_device(lib, core, devices.devices[i], &out->devices[out->n_devices++]);
    lib->ov_available_devices_free(&devices);
    lib->ov_core_free(core);
    return XI_ENGINE_OK;
}

int ov_probe(const struct xi_engine_config *config, struct xi_engine_probe *out, char *text,
             size_t bytes)
{
    static const char *const formats[] = {"onnx", "openvino-ir", "tflite"};
    struct ov_err err = {text, bytes};
    struct ov_library lib = {.handle = NULL};
    ov_version_t version = {NULL, NULL};
    int rc;

    if (out->size < sizeof(*out))
        return ov_fail(&err, XI_ENGINE_UNSUPPORTED, "the host's probe record is too old");
    out->max_rank = XI_MAX_RANK;
    for (size_t i = 0; i < sizeof(formats) / sizeof(formats[0]); i++)
        snprintf(out->formats[out->n_formats++], sizeof(out->formats[0]), "%s", formats[i]);
    rc = ov_library_open(config != NULL ? config->library_dir : NULL, &lib, out->missing, &err);
    if (rc != XI_ENGINE_OK)
        return rc;
    if (lib.ov_get_openvino_version(&version) == OK) {
        snprintf(out->version, sizeof(out->version), "%s", version.buildNumber);
        lib.ov_version_free(&version);
    }
    rc = list_devices(&lib, out, &err);
    dlclose(lib.handle);
    return rc;
}
