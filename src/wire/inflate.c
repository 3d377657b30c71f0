#include "wire/inflate.h"

#include <string.h>
#include <strings.h>

#include "wire/http.h"

static const char *const names[] = {"identity", "gzip", "deflate"};

const char *xi_coding_name(enum xi_coding coding)
{
    return names[coding];
}

/* "x-gzip" is gzip's older name (RFC 9110). */
static int find(const char *name, enum xi_coding *ret)
{
    if (strcasecmp(name, "x-gzip") == 0)
        name = "gzip";
    for (int i = XI_CODING_NONE; i <= XI_CODING_DEFLATE; i++)
        if (strcasecmp(name, names[i]) == 0) {
            *ret = (enum xi_coding)i;
            return 0;
        }
    return -1;
}

enum xi_rc xi_coding_parse(const char *value, enum xi_coding *ret, struct xi_err *err)
{
    *ret = XI_CODING_NONE;
    if (value == NULL || find(value, ret) == 0)
        return XI_OK;
    (void)xi_fail(err, XI_EMEDIA, "Content-Encoding \"%.40s\" is not known here", value);
    return xi_hint(err, "send the bytes as they are, or once through gzip or deflate");
}

enum xi_coding xi_coding_wanted(const char *value)
{
    if (value == NULL)
        return XI_CODING_NONE;
    if (xi_http_accepts_coding(value, "gzip") || xi_http_accepts_coding(value, "x-gzip"))
        return XI_CODING_GZIP;
    return xi_http_accepts_coding(value, "deflate") ? XI_CODING_DEFLATE : XI_CODING_NONE;
}

enum xi_rc xi_inflate_init(struct xi_inflate *f, enum xi_coding coding, struct xi_err *err)
{
    enum { GZIP = 16 };

    memset(f, 0, sizeof *f);
    f->coding = coding;
    if (inflateInit2(&f->z, MAX_WBITS + (coding == XI_CODING_GZIP ? GZIP : 0)) == Z_OK)
        return XI_OK;
    memset(&f->z, 0, sizeof f->z);
    return xi_fail(err, XI_ENOMEM, "no memory to decompress a body");
}

void xi_inflate_fini(struct xi_inflate *f)
{
    if (f->z.state != NULL)
        (void)inflateEnd(&f->z);
    memset(f, 0, sizeof *f);
}

static enum xi_rc broken(const struct xi_inflate *f, const char *what, struct xi_err *err)
{
    return xi_fail(err, XI_ECODING, "the body is no %s stream at byte %llu: %.60s",
                   names[f->coding], (unsigned long long)f->took, what);
}

/* One call of zlib's. *ret_stuck: it can do no more without more bytes or more room. */
static enum xi_rc step(struct xi_inflate *f, int *ret_stuck, struct xi_err *err)
{
    uint8_t nothing;
    size_t n = f->z.avail_in, room = f->z.avail_out;

    if (f->ended) {
        if (f->coding != XI_CODING_GZIP) /* gzip's members may follow each other (RFC 1952) */
            return broken(f, "more bytes behind its end", err);
        if (inflateReset(&f->z) != Z_OK)
            return broken(f, "it cannot begin anew", err);
        f->ended = 0;
    }
    if (f->z.next_out == NULL) /* zlib wants a place even for no bytes */
        f->z.next_out = &nothing;
    int rc = inflate(&f->z, Z_NO_FLUSH);
    f->took += n - f->z.avail_in;
    f->made += room - f->z.avail_out;
    *ret_stuck = rc == Z_BUF_ERROR;
    f->ended = rc == Z_STREAM_END;
    if (rc == Z_MEM_ERROR)
        return xi_fail(err, XI_ENOMEM, "no memory to decompress a body");
    if (rc != Z_OK && rc != Z_BUF_ERROR && rc != Z_STREAM_END)
        return broken(f, f->z.msg ? f->z.msg : "it wants a dictionary", err);
    if (f->made <= XI_INFLATE_GRACE || f->made / XI_INFLATE_RATIO <= f->took)
        return XI_OK;
    (void)xi_fail(err, XI_ETOOBIG, "the body decompresses to more than %d times its size",
                  XI_INFLATE_RATIO);
    return xi_hint(err, "send it as it is");
}

enum xi_rc xi_inflate_run(struct xi_inflate *f, const uint8_t *in, size_t n, size_t *ret_took,
                          uint8_t *out, size_t room, size_t *ret_made, struct xi_err *err)
{
    uint64_t took = f->took, made = f->made;
    enum xi_rc rc = XI_OK;
    int stuck = 0;

    /* zlib counts in 32 bits: whoever has more calls again. */
    f->z.next_in = (Bytef *)(uintptr_t)in;
    f->z.avail_in = (uInt)(n < XI_GIB ? n : XI_GIB);
    f->z.next_out = out;
    f->z.avail_out = (uInt)(room < XI_GIB ? room : XI_GIB);
    while (rc == XI_OK && !stuck && !(f->ended && f->z.avail_in == 0))
        rc = step(f, &stuck, err);
    *ret_took = (size_t)(f->took - took);
    *ret_made = (size_t)(f->made - made);
    return rc;
}

enum xi_rc xi_inflate_end(const struct xi_inflate *f, struct xi_err *err)
{
    return f->ended ? XI_OK : broken(f, "it ends too early", err);
}
