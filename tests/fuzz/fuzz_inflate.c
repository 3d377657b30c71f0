/* Any bytes as a compressed body. The first byte says in what pieces they come and into what room
 * they go; the outcome must be the same however they are cut, and what zlib itself says. */
#include "wire/inflate.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { OUT_MAX = 1 << 20 };

struct outcome {
    enum xi_rc rc;
    size_t len;
    uint32_t sum;
};

/* A place of its very size, so that a write behind it is found. */
static size_t step(struct xi_inflate *f, const uint8_t *in, size_t *at, size_t n, size_t room,
                   struct outcome *o, struct xi_err *err)
{
    uint8_t *dst = malloc(room ? room : 1);
    size_t took, made;

    o->rc = xi_inflate_run(f, in + *at, n, &took, dst, room, &made, err);
    XI_ASSERT(took <= n && made <= room);
    o->sum = (uint32_t)adler32(o->sum, dst, (uInt)made);
    o->len += made;
    *at += took;
    free(dst);
    return made;
}

static struct outcome run(enum xi_coding coding, const uint8_t *in, size_t size, size_t piece,
                          size_t room)
{
    struct outcome o = {.sum = 1};
    struct xi_inflate f;
    struct xi_err err = {0};
    size_t at = 0, made;

    o.rc = xi_inflate_init(&f, coding, &err);
    while (o.rc == XI_OK && at < size && o.len < OUT_MAX) {
        size_t end = size - at < piece ? size : at + piece;
        do
            made = step(&f, in, &at, end - at, room, &o, &err);
        while (o.rc == XI_OK && made == room && !f.ended && o.len < OUT_MAX);
        XI_ASSERT(o.rc != XI_OK || at == end || o.len >= OUT_MAX);
    }
    if (o.rc == XI_OK && o.len < OUT_MAX)
        o.rc = xi_inflate_end(&f, &err);
    XI_ASSERT((o.rc == XI_OK) == (err.msg[0] == '\0'));
    xi_inflate_fini(&f);
    return o;
}

/* One stream with nothing behind it, by the library's own short way. */
static void compare(const uint8_t *in, size_t size, const struct outcome *o)
{
    uint8_t *dst = malloc(OUT_MAX);
    uLongf n = OUT_MAX;
    uLong used = size;
    int good = uncompress2(dst, &n, in, &used) == Z_OK && used == size;

    XI_ASSERT(good == (o->rc == XI_OK) || o->len >= OUT_MAX);
    XI_ASSERT(!good || (n == o->len && adler32(1, dst, (uInt)n) == o->sum));
    free(dst);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0 || size > 65536)
        return 0;
    enum xi_coding coding = data[0] & 1 ? XI_CODING_GZIP : XI_CODING_DEFLATE;
    size_t piece = (data[0] >> 1 & 7) * 5 + 1u, room = (size_t)(data[0] >> 4) * 99 + 1;
    struct outcome whole = run(coding, data + 1, size - 1, size, OUT_MAX);
    if (whole.len < 65536) {
        struct outcome cut = run(coding, data + 1, size - 1, piece, room);
        XI_ASSERT(cut.rc == whole.rc && cut.len == whole.len && cut.sum == whole.sum);
    }
    if (coding == XI_CODING_DEFLATE)
        compare(data + 1, size - 1, &whole);
    return 0;
}
