#include "flow/image_decode.h"

#include <stdlib.h>
#include <string.h>

enum format { FORMAT_NONE, FORMAT_JPEG, FORMAT_PNG };

struct xi_image_decoder {
    struct xi_jpeg *jpeg;
    struct xi_flow_buf turned; /* pixels before they are turned upright */
    /* the picture at hand */
    enum format format;
    const uint8_t *bytes;
    size_t n;
    uint32_t width, height; /* as stored */
    int orientation;
};

struct xi_image_decoder *xi_image_decoder_new(void)
{
    struct xi_image_decoder *d = calloc(1, sizeof *d);

    if (d == NULL)
        return NULL;
    d->jpeg = xi_jpeg_new();
    if (d->jpeg == NULL) {
        free(d);
        return NULL;
    }
    return d;
}

void xi_image_decoder_free(struct xi_image_decoder *d)
{
    if (d == NULL)
        return;
    xi_jpeg_free(d->jpeg);
    free(d->turned.data);
    free(d);
}

static int starts(const uint8_t *bytes, size_t n, size_t at, const char *magic)
{
    size_t m = strlen(magic);

    return n >= at + m && memcmp(bytes + at, magic, m) == 0;
}

/* Pictures people send that we cannot read get their name in the answer. */
static const char *foreign_format(const uint8_t *p, size_t n)
{
    if (starts(p, n, 0, "GIF8"))
        return "a GIF";
    if (starts(p, n, 0, "RIFF") && starts(p, n, 8, "WEBP"))
        return "a WebP";
    if (starts(p, n, 4, "ftypavif"))
        return "an AVIF";
    if (starts(p, n, 4, "ftyp"))
        return "a HEIF or video";
    if (starts(p, n, 0, "BM"))
        return "a BMP";
    if (n >= 4 && (memcmp(p, "II*\0", 4) == 0 || memcmp(p, "MM\0*", 4) == 0))
        return "a TIFF";
    if (starts(p, n, 0, "<svg") || starts(p, n, 0, "<?xml"))
        return "an SVG";
    return NULL;
}

static enum xi_rc sniff(struct xi_image_decoder *d, struct xi_err *err)
{
    d->format = FORMAT_NONE;
    if (starts(d->bytes, d->n, 0, "\xff\xd8\xff")) {
        d->format = FORMAT_JPEG;
        return XI_OK;
    }
    if (starts(d->bytes, d->n, 0, "\x89PNG\r\n\x1a\n")) {
        d->format = FORMAT_PNG;
        return XI_OK;
    }
    if (d->n == 0)
        return xi_fail(err, XI_EIMAGE, "the picture is empty: no bytes were sent");
    const char *name = foreign_format(d->bytes, d->n);
    (void)xi_fail(err, XI_EIMAGE, name ? "this is %s file of %zu bytes" : "%s (%zu bytes)",
                  name ? name : "these bytes are no picture known here", d->n);
    (void)xi_hint(err, "send a JPEG or a PNG");
    return XI_EIMAGE;
}

static enum xi_rc check_sides(uint32_t width, uint32_t height, struct xi_err *err)
{
    if (width == 0 || height == 0)
        return xi_fail(err, XI_EIMAGE, "the picture is empty: %u x %u pixels", width, height);
    if (width > XI_IMAGE_SIDE_MAX || height > XI_IMAGE_SIDE_MAX)
        return xi_fail(err, XI_EIMAGE, "the picture has %u x %u pixels, a side's limit is %d",
                       width, height, XI_IMAGE_SIDE_MAX);
    if ((uint64_t)width * height > XI_IMAGE_PIXELS_MAX)
        return xi_fail(err, XI_EIMAGE, "the picture has %u x %u pixels, the limit is %llu", width,
                       height, XI_IMAGE_PIXELS_MAX);
    return XI_OK;
}

enum xi_rc xi_image_open(struct xi_image_decoder *d, const void *bytes, size_t n,
                         struct xi_image_info *ret, struct xi_err *err)
{
    d->bytes = bytes;
    d->n = n;
    d->orientation = 1;
    enum xi_rc rc = sniff(d, err);
    if (rc == XI_OK && d->format == FORMAT_PNG)
        rc = xi_png_size(d->bytes, n, &d->width, &d->height, err);
    if (rc == XI_OK && d->format == FORMAT_JPEG) {
        rc = xi_jpeg_open(d->jpeg, d->bytes, n, &d->width, &d->height, err);
        d->orientation = xi_exif_orientation(d->bytes, n);
    }
    if (rc == XI_OK)
        rc = check_sides(d->width, d->height, err);
    if (rc != XI_OK) {
        d->format = FORMAT_NONE;
        return rc;
    }
    int swaps = d->orientation >= 5;
    ret->width = swaps ? d->height : d->width;
    ret->height = swaps ? d->width : d->height;
    ret->reducible = d->format == FORMAT_JPEG;
    return XI_OK;
}

/* A reduced picture whose last column is only partly covered cannot be turned exactly. */
static uint32_t possible(const struct xi_image_decoder *d, uint32_t denominator)
{
    if (d->format != FORMAT_JPEG)
        return 1;
    while (d->orientation != 1 && denominator > 1 &&
           (d->width % denominator != 0 || d->height % denominator != 0))
        denominator /= 2;
    return denominator;
}

static enum xi_rc read_pixels(struct xi_image_decoder *d, uint8_t *pixels, size_t bytes,
                              struct xi_err *err)
{
    if (d->format == FORMAT_PNG)
        return xi_png_read(d->bytes, d->n, pixels, bytes, err);
    return xi_jpeg_read(d->jpeg, pixels, err);
}

static void describe(const struct xi_image_decoder *d, uint32_t denominator, struct xi_picture *ret)
{
    int swaps = d->orientation >= 5;
    uint32_t columns = ret->columns;

    ret->width = swaps ? d->height : d->width;
    ret->height = swaps ? d->width : d->height;
    if (swaps) {
        ret->columns = ret->rows;
        ret->rows = columns;
    }
    ret->x0 = ret->y0 = 0;
    ret->x1 = (double)ret->width / denominator;
    ret->y1 = (double)ret->height / denominator;
    ret->scale_x = ret->scale_y = 1;
    ret->shift_x = ret->shift_y = 0;
    ret->sent_width = ret->width;
    ret->sent_height = ret->height;
}

enum xi_rc xi_image_read(struct xi_image_decoder *d, uint32_t denominator, struct xi_flow_buf *out,
                         struct xi_picture *ret, struct xi_err *err)
{
    struct xi_picture p = {.columns = d->width, .rows = d->height};
    struct xi_flow_buf *first = d->orientation == 1 ? out : &d->turned;

    XI_ASSERT(d->format != FORMAT_NONE);
    denominator = possible(d, denominator);
    if (d->format == FORMAT_JPEG)
        xi_jpeg_scaled(d->jpeg, denominator, &p.columns, &p.rows);
    size_t bytes = (size_t)p.columns * p.rows * 3;
    enum xi_rc rc = xi_flow_need(out, bytes, err);
    if (rc == XI_OK && first != out)
        rc = xi_flow_need(first, bytes, err);
    if (rc == XI_OK)
        rc = read_pixels(d, first->data, bytes, err);
    d->format = FORMAT_NONE;
    if (rc != XI_OK)
        return rc;
    if (first != out)
        xi_exif_turn(d->orientation, first->data, p.columns, p.rows, out->data);
    describe(d, denominator, &p);
    p.pixels = out->data;
    *ret = p;
    return XI_OK;
}
