/* deflate.h: an answer, packed for a client that asked for it. Any thread; no I/O. */
#ifndef XI_WIRE_DEFLATE_H
#define XI_WIRE_DEFLATE_H

#include "base/str.h"
#include "wire/inflate.h"

struct xi_deflate {
    z_stream z;
    struct xi_str *out;
};

/* Adds to out. The fast way: about 100 MB/s. ENOMEM; ETOOBIG when it does not fit into out. */
enum xi_rc xi_deflate_init(struct xi_deflate *d, enum xi_coding coding, struct xi_str *out,
                           struct xi_err *err) XI_MUST_CHECK;
void xi_deflate_fini(struct xi_deflate *d); /* zeroed is fine */
/* last: nothing comes behind these bytes. */
enum xi_rc xi_deflate_add(struct xi_deflate *d, const void *bytes, size_t n, int last,
                          struct xi_err *err) XI_MUST_CHECK;

#endif
