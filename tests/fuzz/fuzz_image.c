/* fuzz_image: any bytes as a picture, at every reduction. Pictures over 4 megapixels are opened but
 * not decoded, so that time goes into variety. */
#include <stdint.h>
#include <stdlib.h>

#include "flow/image_decode.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct xi_image_decoder *decoder = xi_image_decoder_new();
    struct xi_flow_buf buf = {0};

    for (uint32_t d = 1; decoder != NULL && d <= 8; d *= 2) {
        struct xi_image_info info;
        struct xi_picture picture;
        struct xi_err err = {0};
        enum xi_rc rc = xi_image_open(decoder, data, bytes, &info, &err);
        if (rc == XI_OK && (uint64_t)info.width * info.height > 4000000)
            break;
        if (rc == XI_OK)
            rc = xi_image_read(decoder, d, &buf, &picture, &err);
        XI_ASSERT(rc == XI_OK || ((rc == XI_EIMAGE || rc == XI_ENOMEM) && err.msg[0] != '\0'));
        if (rc != XI_OK)
            break;
    }
    xi_image_decoder_free(decoder);
    free(buf.data);
    return 0;
}
