/* image_decode.h: encoded pictures to RGB. JPEG by libjpeg-turbo (gray, YCbCr, CMYK; baseline and
 * progressive; EXIF orientation applied), PNG by libspng (every colour type and depth; alpha is
 * dropped). Limits on sides and pixels hold before any pixel memory is taken.
 *
 * A decoder belongs to one thread at a time and is reused. Its own memory is kept; what libjpeg
 * and libspng take while they decode one picture is given back before the call returns. */
#ifndef XI_FLOW_IMAGE_DECODE_H
#define XI_FLOW_IMAGE_DECODE_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "flow/step.h"

struct xi_image_decoder *xi_image_decoder_new(void); /* NULL: memory is out */
void xi_image_decoder_free(struct xi_image_decoder *d);

struct xi_image_info {
    uint32_t width, height; /* upright */
    int reducible;          /* can be decoded at 1/2, 1/4, 1/8 for less work */
};

/* Reads the head. `bytes` stay borrowed until xi_image_read returns or the next open. EIMAGE. */
enum xi_rc xi_image_open(struct xi_image_decoder *d, const void *bytes, size_t n,
                         struct xi_image_info *ret, struct xi_err *err) XI_MUST_CHECK;
/* Decodes what was opened into `out`; once per open. denominator: 1, 2, 4 or 8, taken as a wish
 * (ret says what was done). EIMAGE for broken or cut pictures, ENOMEM. */
enum xi_rc xi_image_read(struct xi_image_decoder *d, uint32_t denominator, struct xi_flow_buf *out,
                         struct xi_picture *ret, struct xi_err *err) XI_MUST_CHECK;

/* Inside: one format each. */
struct xi_jpeg; /* jpeg_decode.c */
struct xi_jpeg *xi_jpeg_new(void);
void xi_jpeg_free(struct xi_jpeg *j);
enum xi_rc xi_jpeg_open(struct xi_jpeg *j, const uint8_t *bytes, size_t n, uint32_t *ret_width,
                        uint32_t *ret_height, struct xi_err *err) XI_MUST_CHECK;
/* Size at that denominator. */
void xi_jpeg_scaled(struct xi_jpeg *j, uint32_t denominator, uint32_t *ret_columns,
                    uint32_t *ret_rows);
/* pixels: columns × rows × 3 bytes */
enum xi_rc xi_jpeg_read(struct xi_jpeg *j, uint8_t *pixels, struct xi_err *err) XI_MUST_CHECK;

enum xi_rc xi_png_size(const uint8_t *bytes, size_t n, uint32_t *ret_width, uint32_t *ret_height,
                       struct xi_err *err) XI_MUST_CHECK;
enum xi_rc xi_png_read(const uint8_t *bytes, size_t n, uint8_t *pixels, size_t pixel_bytes,
                       struct xi_err *err) XI_MUST_CHECK;

/* exif.c: 1 to 8 of a JPEG (1: upright, or nothing said). */
int xi_exif_orientation(const uint8_t *jpeg, size_t n);
/* Turns columns × rows RGB pixels upright; 5 to 8 swap the sides. dst and src are distinct. */
void xi_exif_turn(int orientation, const uint8_t *src, uint32_t columns, uint32_t rows,
                  uint8_t *dst);

#endif
