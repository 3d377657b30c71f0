#include "wire/deflate.h"

#include <string.h>

enum { STEP = 64 * 1024, GZIP = 16, MEMORY = 8 };

enum xi_rc xi_deflate_init(struct xi_deflate *d, enum xi_coding coding, struct xi_str *out,
                           struct xi_err *err)
{
    int bits = MAX_WBITS + (coding == XI_CODING_GZIP ? GZIP : 0);

    memset(d, 0, sizeof *d);
    d->out = out;
    if (deflateInit2(&d->z, Z_BEST_SPEED, Z_DEFLATED, bits, MEMORY, Z_DEFAULT_STRATEGY) == Z_OK)
        return XI_OK;
    memset(&d->z, 0, sizeof d->z);
    return xi_fail(err, XI_ENOMEM, "no memory to compress an answer");
}

void xi_deflate_fini(struct xi_deflate *d)
{
    if (d->z.state != NULL)
        (void)deflateEnd(&d->z);
    memset(d, 0, sizeof *d);
}

enum xi_rc xi_deflate_add(struct xi_deflate *d, const void *bytes, size_t n, int last,
                          struct xi_err *err)
{
    int rc = Z_OK;

    XI_ASSERT(n <= UINT32_MAX);
    d->z.next_in = (Bytef *)(uintptr_t)bytes;
    d->z.avail_in = (uInt)n;
    do {
        size_t left = d->out->cap - d->out->len, room = left > 0 && left < STEP ? left : STEP;
        char *at = xi_str_reserve(d->out, room);
        if (at == NULL)
            return xi_str_check(d->out, err, "answer");
        d->z.next_out = (Bytef *)at;
        d->z.avail_out = (uInt)room;
        rc = deflate(&d->z, last ? Z_FINISH : Z_NO_FLUSH);
        d->out->len += room - d->z.avail_out;
    } while (rc == Z_OK && d->z.avail_out == 0);
    XI_ASSERT(rc == Z_OK || rc == Z_STREAM_END || rc == Z_BUF_ERROR);
    return XI_OK;
}
