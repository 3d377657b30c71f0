/* jpeg_encode.h: RGB pixels to a JPEG, by libjpeg-turbo. Any thread. */
#ifndef XI_FLOW_JPEG_ENCODE_H
#define XI_FLOW_JPEG_ENCODE_H

#include <stdint.h>

#include "base/status.h"
#include "base/str.h"

/* Appends to ret; full colour resolution, so that coloured lines stay crisp. ENOMEM, ETOOBIG. */
enum xi_rc xi_jpeg_encode(const uint8_t *pixels, uint32_t width, uint32_t height, int quality,
                          struct xi_str *ret, struct xi_err *err) XI_MUST_CHECK;

#endif
