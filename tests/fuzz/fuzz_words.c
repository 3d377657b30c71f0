/* Any text as each of the words of a head that we read ourselves: shapes, lengths, codings, types,
 * escapes of a path. The first byte says which; a zero ends the text. */
#include <stdlib.h>
#include <string.h>

#include "core/tensor.h"
#include "wire/http.h"
#include "wire/inflate.h"
#include "wire/oip_json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What is accepted is a shape, and a tensor of it has as many bytes as its elements. */
static void shape(const char *text, int allow_dynamic)
{
    int64_t dims[XI_MAX_RANK];
    struct xi_err err = {0};
    int rank = -1;

    if (xi_shape_parse(text, allow_dynamic, dims, &rank, &err) != XI_OK) {
        XI_ASSERT(err.msg[0] != '\0');
        return;
    }
    XI_ASSERT(rank >= 0 && rank <= XI_MAX_RANK);
    for (int i = 0; i < rank; i++)
        XI_ASSERT(dims[i] >= (allow_dynamic ? -1 : 0));
    if (allow_dynamic)
        return;
    struct xi_port_spec port = {.dtype = XI_DT_FP32, .rank = rank};
    for (int i = 0; i < rank; i++)
        port.dims[i] = -1;
    for (uint64_t bytes = 0; bytes <= 64; bytes += 4) {
        struct xi_tensor t = xi_tensor_make(XI_DT_FP32, dims, rank, NULL, bytes);
        double want = 4; /* exact where it matters */
        for (int i = 0; i < rank; i++)
            want *= (double)dims[i];
        if (xi_port_check(&port, &t, &err) == XI_OK && want <= 64)
            XI_ASSERT(want == (double)bytes);
    }
}

static void length(const char *text, uint64_t body)
{
    uint64_t n = 0;
    struct xi_err err = {0};

    if (xi_oip_header_length(text, body, &n, &err) == XI_OK)
        XI_ASSERT(n <= body && n == strtoull(text, NULL, 10));
    else
        XI_ASSERT(err.msg[0] != '\0');
}

static void escapes(const char *text, size_t n)
{
    char place[64];
    struct xi_err err = {0};

    if (xi_http_percent_decode(text, n, place, sizeof place, &err) == XI_OK)
        XI_ASSERT(strlen(place) < sizeof place && strlen(place) <= n);
}

static void lists(const char *text)
{
    char type[16];
    enum xi_coding coding;
    struct xi_err err = {0};

    xi_http_media_type(text, type, sizeof type);
    XI_ASSERT(strpbrk(type, ";, \t") == NULL);
    (void)xi_http_has_token(text, "close");
    coding = xi_coding_wanted(text);
    if (coding != XI_CODING_NONE)
        XI_ASSERT(strpbrk(text, "gGdD") != NULL);
    if (xi_coding_parse(text, &coding, &err) == XI_OK)
        XI_ASSERT(strlen(text) == strlen(xi_coding_name(coding)) || strlen(text) == 6);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0 || size > 65536)
        return 0;
    char *text = malloc(size);
    memcpy(text, data + 1, size - 1);
    text[size - 1] = '\0';
    switch (data[0] % 5) {
    case 0:
    case 1:
        shape(text, data[0] % 5);
        break;
    case 2:
        length(text, (uint64_t)data[0] * data[0] * 1000);
        break;
    case 3:
        escapes(text, size - 1);
        break;
    default:
        lists(text);
    }
    free(text);
    return 0;
}
