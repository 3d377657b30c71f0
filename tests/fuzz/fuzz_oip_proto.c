/* Any bytes as a ModelInferRequest: what is accepted lies inside the message and is filled exactly,
 * and the place that its first bytes name is where its first raw tensor begins. */
#include <stdlib.h>
#include <string.h>

#include "wire/oip_proto.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void fill(const uint8_t *data, size_t size, const struct xi_oip_tensor *in)
{
    struct xi_err err = {0};

    XI_ASSERT(in->bytes <= 8 * size);
    uint8_t *dst = malloc(in->bytes + 1); /* a write past the end is found */
    if (dst == NULL)
        return;
    if (xi_oip_proto_fill(data, in, dst, &err) != XI_OK)
        XI_ASSERT(err.msg[0] != '\0');
    else if (in->dtype == XI_DT_BYTES)
        XI_ASSERT(xi_bytes_check(dst, in->bytes, in->elements, NULL) == XI_OK);
    free(dst);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct xi_oip_request *r = malloc(sizeof *r);
    struct xi_oip_target model;
    struct xi_err err = {0};
    uint64_t first = 0, raw = 0;

    if (r == NULL || size > 65536) {
        free(r);
        return 0;
    }
    if (xi_oip_proto_read(data, size, &model, r, &err) == XI_OK) {
        for (uint32_t i = 0; i < r->n_inputs; i++) {
            const struct xi_oip_tensor *in = &r->inputs[i];
            if (in->where == XI_OIP_TEXT)
                fill(data, size, in);
            if (in->where != XI_OIP_RAW)
                continue;
            XI_ASSERT(in->offset <= size && in->bytes <= size - in->offset);
            if (first == 0)
                first = in->offset;
        }
        XI_ASSERT(xi_oip_proto_raw_at(data, size, &raw) == first);
    } else {
        XI_ASSERT(err.msg[0] != '\0');
    }
    for (size_t head = 0; head < size; head += head / 4 + 1)
        XI_ASSERT(xi_oip_proto_raw_at(data, head, &raw) <= head);
    free(r);
    return 0;
}
