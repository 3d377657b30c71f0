/* probe.c: role probe: what one plugin finds on this machine. */
#include <stdio.h>
#include <string.h>

#include "host/control.h"
#include "host/plugin.h"
#include "host/sandbox.h"

struct answer {
    struct xi_msg_probed head;
    struct xi_engine_probe probe;
};

static enum xi_rc probe(const struct xi_host_args *args, struct answer *ret, struct xi_err *err)
{
    char text[XI_ENGINE_ERR_BYTES];
    struct xi_plugin plugin;
    enum xi_rc rc = xi_plugin_open(args->plugin_dir, args->engine, &plugin, err);

    if (rc != XI_OK)
        return rc;
    const char *libs = args->engine_libs[0] ? args->engine_libs : NULL;
    int code = xi_plugin_probe(&plugin, libs, &ret->probe, text);
    if (code != XI_ENGINE_OK && code != XI_ENGINE_NOT_PRESENT)
        return xi_plugin_fail(err, code, text);
    ret->head.present = code == XI_ENGINE_OK;
    ret->head.abi_major = plugin.table->major;
    ret->head.abi_minor = plugin.table->minor;
    (void)snprintf(ret->head.engine, sizeof ret->head.engine, "%s", args->engine);
    if (!ret->head.present && ret->probe.missing[0] == '\0')
        (void)snprintf(ret->probe.missing, sizeof ret->probe.missing, "%s", text);
    return XI_OK; /* the plugin stays open: this process ends now */
}

int xi_role_probe(const struct xi_host_args *args)
{
    struct xi_sandbox box = {.enabled = args->sandbox,
                             .write_fd = -1,
                             .data_limit_bytes = args->data_limit_bytes,
                             .uid = args->uid};
    char summary[XI_SANDBOX_SUMMARY] = "";
    struct answer answer = {0};
    struct xi_err err = {0};

    box.read_dirs[box.n_read_dirs++] = args->plugin_dir;
    if (args->engine_libs[0])
        box.read_dirs[box.n_read_dirs++] = args->engine_libs;
    enum xi_rc rc = xi_sandbox_enter_load(&box, summary, &err);
    int code = xi_control_hello(args, summary);
    if (code != 0)
        return code;
    if (rc == XI_OK)
        rc = probe(args, &answer, &err);
    if (rc != XI_OK) {
        xi_control_failed(0, &err, "probe");
        return 0;
    }
    return xi_control_send(&answer, XI_MSG_PROBED, sizeof answer) == XI_OK ? 0 : 3;
}
