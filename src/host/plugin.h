/* plugin.h: an engine's shared object, opened and checked. Main thread. */
#ifndef XI_HOST_PLUGIN_H
#define XI_HOST_PLUGIN_H

#include "base/status.h"
#include "xinfer/engine.h"

#define XI_ENGINE_ERR_BYTES 192

struct xi_plugin {
    const struct xi_engine_table *table; /* every mandatory call is there */
};

/* libxinfer_engine_<name>.so in dir. ENOENGINE: not there, unreadable, writable by others, without
 * its entry, of another ABI, or with a table that lacks calls. */
enum xi_rc xi_plugin_open(const char *dir, const char *name, struct xi_plugin *ret,
                          struct xi_err *err) XI_MUST_CHECK;
void xi_plugin_close(struct xi_plugin *plugin);
/* What the engine finds here. A text of it always ends, a count is never over its maximum. The
 * engine's own code is returned: XI_ENGINE_OK, or NOT_PRESENT with ret->missing filled in. */
int xi_plugin_probe(const struct xi_plugin *plugin, const char *library_dir,
                    struct xi_engine_probe *ret, char err[XI_ENGINE_ERR_BYTES]);
/* enum xi_engine_rc → enum xi_rc with the engine's sentence. */
enum xi_rc xi_plugin_fail(struct xi_err *err, int code, const char *text);
/* The answer means that this process is of no use any more. */
int xi_plugin_is_broken(int code);

#endif
