/* Any text as an inference request: what is accepted is filled exactly, and can be written again.
 */
#include <stdlib.h>
#include <string.h>

#include "wire/oip_json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void fill(const char *text, size_t size, const struct xi_oip_tensor *in)
{
    struct xi_err err = {0};
    struct xi_str s;

    XI_ASSERT(in->bytes <= 16 * size + 64);
    uint8_t *dst = malloc(in->bytes + 1); /* a write past the end is found */
    if (dst == NULL)
        return;
    if (xi_oip_fill(text, size, in, dst, &err) == XI_OK) {
        struct xi_tensor t = xi_tensor_make(in->dtype, in->dims, in->rank, dst, in->bytes);
        if (in->dtype == XI_DT_BYTES)
            XI_ASSERT(xi_bytes_check(dst, in->bytes, in->elements, NULL) == XI_OK);
        xi_str_init(&s, XI_MIB);
        xi_oip_write(&s, in->name, &t, 0);
        xi_str_fini(&s);
    } else {
        XI_ASSERT(err.msg[0] != '\0');
    }
    free(dst);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct xi_oip_request *r = malloc(sizeof *r);
    struct xi_err err = {0};

    if (r == NULL || size == 0 || size > 65536) {
        free(r);
        return 0;
    }
    /* The first byte is how long a binary tail is said to be. */
    char *text = malloc(size);
    if (text != NULL)
        memcpy(text, data + 1, size - 1);
    if (text != NULL && xi_oip_read(text, size - 1, data[0], r, &err) == XI_OK) {
        uint64_t tail = 0;
        for (uint32_t i = 0; i < r->n_inputs; i++) {
            if (r->inputs[i].where == XI_OIP_RAW)
                tail += r->inputs[i].bytes;
            else if (r->inputs[i].where == XI_OIP_TEXT)
                fill(text, size - 1, &r->inputs[i]);
        }
        XI_ASSERT(tail == data[0]);
    }
    free(text);
    free(r);
    return 0;
}
