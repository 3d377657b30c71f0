/* Any bytes as an install record: what is accepted encodes to the same bytes. */
#include <string.h>

#include "core/package_record.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct xi_package_record r = {0};
    struct xi_str out;

    if (xi_record_decode(data, size, &r, NULL) != XI_OK)
        return 0;
    xi_str_init(&out, XI_RECORD_BYTES_MAX);
    XI_ASSERT(xi_record_encode(&r, &out, NULL) == XI_OK);
    XI_ASSERT(out.len == size && memcmp(out.data, data, size) == 0);
    xi_str_fini(&out);
    xi_record_fini(&r);
    return 0;
}
