/* Any text as manifest.json. */
#include "package/manifest.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static enum xi_rc visit(void *ctx, const char *path, const char *what, uint64_t bytes,
                        struct xi_err *err)
{
    (void)bytes;
    (void)err;
    *(size_t *)ctx += path[0] != '\0' && what[0] != '\0';
    return XI_OK;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct xi_manifest *m = NULL;
    struct xi_err err = {0};
    size_t paths = 0;

    if (xi_manifest_parse((const char *)data, size, &m, &err) != XI_OK) {
        XI_ASSERT(err.msg[0] != '\0');
        return 0;
    }
    XI_ASSERT(xi_manifest_each_path(m, visit, &paths, NULL) == XI_OK && paths > 0);
    XI_ASSERT(xi_manifest_model(m, "main") != NULL);
    xi_manifest_free(m);
    return 0;
}
