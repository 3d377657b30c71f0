/* Any bytes as a package: opened, verified, described. */
#define _GNU_SOURCE
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

#include "package/inspect.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int fd = memfd_create("package", MFD_CLOEXEC);
    struct xi_err err = {0};
    struct xi_str out;

    XI_ASSERT(fd >= 0 && write(fd, data, size) == (ssize_t)size);
    xi_str_init(&out, XI_INSPECT_MAX);
    enum xi_rc rc = xi_package_inspect_json(fd, &out, &err);
    XI_ASSERT(rc == XI_OK || err.msg[0] != '\0'); /* a refusal says why */
    xi_str_fini(&out);
    (void)close(fd);
    return 0;
}
