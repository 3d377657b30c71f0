/* PNG by libspng. */
#include <string.h>

#include <spng.h>

#include "flow/image_decode.h"

static uint32_t be32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* The header is the first chunk, at a fixed place. */
enum xi_rc xi_png_size(const uint8_t *bytes, size_t n, uint32_t *ret_width, uint32_t *ret_height,
                       struct xi_err *err)
{
    if (n < 33)
        return xi_fail(err, XI_EIMAGE, "the PNG picture is cut off: its %zu bytes end too early",
                       n);
    if (be32(bytes + 8) != 13 || memcmp(bytes + 12, "IHDR", 4) != 0)
        return xi_fail(err, XI_EIMAGE, "the PNG picture does not start with its header");
    *ret_width = be32(bytes + 16);
    *ret_height = be32(bytes + 20);
    return XI_OK;
}

/* libspng is content when the pixels are there; a file without its end was cut on its way. */
static int reaches_end(const uint8_t *bytes, size_t n)
{
    size_t at = 8;

    while (n >= 12 && at <= n - 12) {
        size_t length = be32(bytes + at);
        if (memcmp(bytes + at + 4, "IEND", 4) == 0)
            return 1;
        if (length > n - at - 12)
            return 0;
        at += length + 12;
    }
    return 0;
}

static int decode(spng_ctx *ctx, const uint8_t *bytes, size_t n, uint8_t *pixels,
                  size_t pixel_bytes)
{
    size_t want = 0;
    int rc = spng_set_image_limits(ctx, XI_IMAGE_SIDE_MAX, XI_IMAGE_SIDE_MAX);

    if (rc == 0)
        rc = spng_set_chunk_limits(ctx, XI_MIB, 4 * XI_MIB); /* text and profiles */
    if (rc == 0)
        rc = spng_set_png_buffer(ctx, bytes, n);
    if (rc == 0)
        rc = spng_decoded_image_size(ctx, SPNG_FMT_RGB8, &want);
    if (rc == 0 && want != pixel_bytes)
        rc = SPNG_EBUFSIZ;
    if (rc == 0)
        rc = spng_decode_image(ctx, pixels, pixel_bytes, SPNG_FMT_RGB8, 0);
    return rc;
}

enum xi_rc xi_png_read(const uint8_t *bytes, size_t n, uint8_t *pixels, size_t pixel_bytes,
                       struct xi_err *err)
{
    if (!reaches_end(bytes, n))
        return xi_fail(err, XI_EIMAGE, "the PNG picture is cut off: its %zu bytes end too early",
                       n);
    spng_ctx *ctx = spng_ctx_new(0);
    if (ctx == NULL)
        return xi_fail(err, XI_ENOMEM, "no memory to decode the PNG picture");
    int rc = decode(ctx, bytes, n, pixels, pixel_bytes);
    spng_ctx_free(ctx);
    if (rc == 0)
        return XI_OK;
    if (rc == SPNG_EMEM)
        return xi_fail(err, XI_ENOMEM, "no memory to decode the PNG picture");
    return xi_fail(err, XI_EIMAGE, "the PNG picture is broken: %s", spng_strerror(rc));
}
