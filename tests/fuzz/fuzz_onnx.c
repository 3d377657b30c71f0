/* Any bytes as an ONNX model: where does it keep its weights? */
#define _GNU_SOURCE
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "package/onnx.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static enum xi_rc visit(void *ctx, const struct xi_onnx_external *external, struct xi_err *err)
{
    (void)err;
    *(size_t *)ctx += strlen(external->location);
    return XI_OK;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int fd = memfd_create("model", MFD_CLOEXEC);
    struct xi_err err = {0};
    size_t letters = 0;

    XI_ASSERT(fd >= 0 && write(fd, data, size) == (ssize_t)size);
    enum xi_rc rc = xi_onnx_scan(fd, size, visit, &letters, &err);
    XI_ASSERT(rc == XI_OK || err.msg[0] != '\0');
    (void)close(fd);
    return 0;
}
