/* inflate.h: bodies in gzip or zlib form ("deflate" in HTTP), unpacked piece by piece into the
 * caller's memory. One thread at a time; no I/O. Holds about 40 KiB of zlib's. */
#ifndef XI_WIRE_INFLATE_H
#define XI_WIRE_INFLATE_H

#include <stddef.h>
#include <stdint.h>
#include <zlib.h>

#include "base/limits.h"
#include "base/status.h"

enum xi_coding { XI_CODING_NONE, XI_CODING_GZIP, XI_CODING_DEFLATE };

/* Of a Content-Encoding's value, NULL: there is none. EMEDIA for one that is not known, and for
 * several behind each other. */
enum xi_rc xi_coding_parse(const char *value, enum xi_coding *ret,
                           struct xi_err *err) XI_MUST_CHECK;
/* The one of an Accept-Encoding's value (may be NULL) that an answer should have. */
enum xi_coding xi_coding_wanted(const char *value);
const char *xi_coding_name(enum xi_coding coding); /* "gzip" */

struct xi_inflate {
    z_stream z;
    enum xi_coding coding;
    int ended;           /* its last byte has been seen */
    uint64_t took, made; /* bytes in all */
};

/* ENOMEM. */
enum xi_rc xi_inflate_init(struct xi_inflate *f, enum xi_coding coding,
                           struct xi_err *err) XI_MUST_CHECK;
void xi_inflate_fini(struct xi_inflate *f); /* zeroed is fine */
/* Takes of n bytes what fits into room, and says how many it took and made. When room is filled and
 * it has not `ended` there may be more: call again, also with n 0. ECODING for what is no such
 * stream, ETOOBIG for one that unpacks to more than XI_INFLATE_RATIO times its size. */
enum xi_rc xi_inflate_run(struct xi_inflate *f, const uint8_t *in, size_t n, size_t *ret_took,
                          uint8_t *out, size_t room, size_t *ret_made,
                          struct xi_err *err) XI_MUST_CHECK;
/* No more bytes come. ECODING when it was cut short. */
enum xi_rc xi_inflate_end(const struct xi_inflate *f, struct xi_err *err) XI_MUST_CHECK;

#endif
