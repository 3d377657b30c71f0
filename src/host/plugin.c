#define _GNU_SOURCE
#include "host/plugin.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/name.h"

static enum xi_rc check_file(const char *path, const char *name, struct xi_err *err)
{
    struct stat st;

    if (stat(path, &st) != 0) {
        (void)xi_fail(err, XI_ENOENGINE, "engine \"%s\" is not installed", name);
        (void)xi_hint(err, "xinfer doctor lists the engines that are");
        return XI_ENOENGINE;
    }
    if (!S_ISREG(st.st_mode) || (st.st_mode & S_IWOTH) != 0)
        return xi_fail(err, XI_ENOENGINE, "engine \"%s\": its file may be written by everybody",
                       name);
    return XI_OK;
}

static enum xi_rc check_table(const struct xi_engine_table *t, const char *name, struct xi_err *err)
{
    if (t == NULL)
        return xi_fail(err, XI_ENOENGINE, "engine \"%s\" speaks another ABI than %d.%d", name,
                       XI_ENGINE_MAJOR, XI_ENGINE_MINOR);
    if (t->major != XI_ENGINE_MAJOR)
        return xi_fail(err, XI_ENOENGINE, "engine \"%s\" speaks ABI %u.%u, this host %d.%d", name,
                       t->major, t->minor, XI_ENGINE_MAJOR, XI_ENGINE_MINOR);
    if (!XI_ENGINE_HAS(t, output))
        return xi_fail(err, XI_ENOENGINE, "engine \"%s\" has a table of %u bytes", name, t->size);
    if (!t->name || !t->probe || !t->open || !t->close || !t->load || !t->unload || !t->port ||
        !t->request_new || !t->request_free || !t->bind || !t->run)
        return xi_fail(err, XI_ENOENGINE, "engine \"%s\" lacks calls", name);
    return XI_OK;
}

enum xi_rc xi_plugin_open(const char *dir, const char *name, struct xi_plugin *ret,
                          struct xi_err *err)
{
    char path[1024];
    xi_engine_entry_fn entry;
    enum xi_rc rc = xi_name_check(name, "engine", err);

    if (rc != XI_OK)
        return rc;
    if (snprintf(path, sizeof path, "%s/libxinfer_engine_%s.so", dir, name) >= (int)sizeof path)
        return xi_fail(err, XI_ENOENGINE, "path of engine \"%s\" is too long", name);
    rc = check_file(path, name, err);
    if (rc != XI_OK)
        return rc;
    void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (handle == NULL) {
        const char *why = dlerror(); /* begins with the path, which is no user's business */
        const char *tail = why ? strstr(why, ".so: ") : NULL;
        return xi_fail(err, XI_ENOENGINE, "engine \"%s\" cannot be opened: %s", name,
                       tail ? tail + 5 : "unknown");
    }
    *(void **)&entry = dlsym(handle, XI_ENGINE_ENTRY); /* as POSIX writes it */
    if (entry == NULL)
        rc = xi_fail(err, XI_ENOENGINE, "engine \"%s\" has no %s", name, XI_ENGINE_ENTRY);
    const struct xi_engine_table *table =
        rc == XI_OK ? entry(XI_ENGINE_MAJOR, XI_ENGINE_MINOR) : NULL;
    if (rc == XI_OK)
        rc = check_table(table, name, err);
    if (rc != XI_OK) {
        (void)dlclose(handle);
        return rc;
    }
    ret->table = table;
    return XI_OK;
}

/* The code stays mapped: an engine may leave threads behind, and they must not run into nothing
 * while the process is on its way out. */
void xi_plugin_close(struct xi_plugin *plugin)
{
    *plugin = (struct xi_plugin){0};
}

#define END(text) ((text)[sizeof(text) - 1] = '\0')

int xi_plugin_probe(const struct xi_plugin *plugin, const char *library_dir,
                    struct xi_engine_probe *ret, char err[XI_ENGINE_ERR_BYTES])
{
    struct xi_engine_config config = {.size = sizeof config, .library_dir = library_dir};

    memset(ret, 0, sizeof *ret);
    ret->size = sizeof *ret;
    err[0] = '\0';
    int rc = plugin->table->probe(&config, ret, err, XI_ENGINE_ERR_BYTES);
    err[XI_ENGINE_ERR_BYTES - 1] = '\0';
    ret->size = sizeof *ret;
    if (ret->n_devices > XI_ENGINE_MAX_DEVICES)
        ret->n_devices = XI_ENGINE_MAX_DEVICES;
    if (ret->n_formats > XI_ENGINE_MAX_FORMATS)
        ret->n_formats = XI_ENGINE_MAX_FORMATS;
    END(ret->version);
    END(ret->missing);
    for (uint32_t i = 0; i < XI_ENGINE_MAX_DEVICES; i++) {
        END(ret->devices[i].id);
        END(ret->devices[i].name);
    }
    for (uint32_t i = 0; i < XI_ENGINE_MAX_FORMATS; i++)
        END(ret->formats[i]);
    return rc;
}

enum xi_rc xi_plugin_fail(struct xi_err *err, int code, const char *text)
{
    static const enum xi_rc map[] = {
        [-XI_ENGINE_NOT_PRESENT] = XI_ENOENGINE, [-XI_ENGINE_UNSUPPORTED] = XI_EMODEL,
        [-XI_ENGINE_BAD_INPUT] = XI_ETENSOR,     [-XI_ENGINE_NO_MEMORY] = XI_ENOMEM,
        [-XI_ENGINE_BUSY] = XI_EAGAIN,           [-XI_ENGINE_DEVICE_LOST] = XI_EDEVICE,
        [-XI_ENGINE_TIMEOUT] = XI_EENGINE,       [-XI_ENGINE_INTERNAL] = XI_EENGINE};
    enum xi_rc rc = XI_EENGINE;

    if (code <= XI_ENGINE_NOT_PRESENT && code >= XI_ENGINE_INTERNAL)
        rc = map[-code];
    return xi_fail(err, rc, "%.180s", text[0] != '\0' ? text : "the engine says no more");
}

int xi_plugin_is_broken(int code)
{
    return code == XI_ENGINE_TIMEOUT || code == XI_ENGINE_INTERNAL || code < XI_ENGINE_INTERNAL ||
           code > XI_BIND_COPIES;
}
