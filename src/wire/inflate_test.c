#include "wire/inflate.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "wire/deflate.h"
#include "wire/http.h"

enum { TEXT_BYTES = 300000 };

static char text[TEXT_BYTES];

static int make_text(void **state)
{
    unsigned random = 1;

    (void)state;
    for (size_t i = 0; i < TEXT_BYTES; i++) {
        random = random * 1103515245 + 12345;
        text[i] = (char)('a' + (random >> 16) % 7);
    }
    return 0;
}

/* By the library's own means, not ours. */
static size_t pack(const void *in, size_t n, int bits, uint8_t *out, size_t room)
{
    z_stream z = {0};

    assert_int_equal(deflateInit2(&z, 6, Z_DEFLATED, bits, 8, Z_DEFAULT_STRATEGY), Z_OK);
    z.next_in = (Bytef *)(uintptr_t)in;
    z.avail_in = (uInt)n;
    z.next_out = out;
    z.avail_out = (uInt)room;
    assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
    room -= z.avail_out;
    (void)deflateEnd(&z);
    return room;
}

/* Unpacks with pieces of in and steps of out; the rc, and how much came. */
static enum xi_rc unpack(enum xi_coding coding, const uint8_t *in, size_t n, size_t piece,
                         size_t step, uint8_t *out, size_t room, size_t *ret)
{
    struct xi_inflate f;
    struct xi_err err = {0};
    enum xi_rc rc = xi_inflate_init(&f, coding, &err);
    size_t at = 0, len = 0;

    while (at < n && rc == XI_OK) {
        size_t now = n - at < piece ? n - at : piece, took, made, left;
        do {
            left = room - len < step ? room - len : step;
            rc = xi_inflate_run(&f, in + at, now, &took, out + len, left, &made, &err);
            assert_true(took <= now && made <= left);
            at += took;
            now -= took;
            len += made;
        } while (rc == XI_OK && made == left && !f.ended && len < room);
        if (rc == XI_OK && len < room)
            assert_int_equal(now, 0);
        if (len == room)
            break;
    }
    if (rc == XI_OK)
        rc = xi_inflate_end(&f, &err);
    assert_true((rc == XI_OK) == (err.msg[0] == '\0'));
    xi_inflate_fini(&f);
    *ret = len;
    return rc;
}

static void unpacks_however_it_is_cut(void **state)
{
    static uint8_t packed[TEXT_BYTES], out[TEXT_BYTES + 1];
    static const size_t pieces[] = {1, 7, 4096, TEXT_BYTES};

    (void)state;
    for (int coding = XI_CODING_GZIP; coding <= XI_CODING_DEFLATE; coding++) {
        size_t n =
            pack(text, TEXT_BYTES, coding == XI_CODING_GZIP ? 31 : 15, packed, sizeof packed);
        for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++)
            for (size_t k = 0; k < sizeof pieces / sizeof *pieces; k++) {
                size_t len;
                assert_int_equal(unpack((enum xi_coding)coding, packed, n, pieces[i], pieces[k],
                                        out, sizeof out, &len),
                                 XI_OK);
                assert_int_equal(len, TEXT_BYTES);
                assert_memory_equal(out, text, TEXT_BYTES);
            }
    }
}

static void a_place_of_its_very_size_is_enough(void **state)
{
    static uint8_t packed[TEXT_BYTES], out[TEXT_BYTES];
    struct xi_inflate f;
    struct xi_err err;
    size_t took, made, n = pack(text, 1000, 31, packed, sizeof packed);

    (void)state;
    assert_int_equal(xi_inflate_init(&f, XI_CODING_GZIP, &err), XI_OK);
    assert_int_equal(xi_inflate_run(&f, packed, n, &took, out, 1000, &made, &err), XI_OK);
    assert_int_equal(made, 1000);
    assert_true(f.ended || took < n);
    assert_int_equal(xi_inflate_run(&f, packed + took, n - took, &took, out, 0, &made, &err),
                     XI_OK);
    assert_int_equal(made, 0);
    assert_int_equal(xi_inflate_end(&f, &err), XI_OK);
    xi_inflate_fini(&f);
}

static void members_of_gzip_follow_each_other(void **state)
{
    static uint8_t packed[2000], out[3000];
    size_t n = pack(text, 1000, 31, packed, sizeof packed), len;

    (void)state;
    n += pack(text + 1000, 500, 31, packed + n, sizeof packed - n);
    assert_int_equal(unpack(XI_CODING_GZIP, packed, n, 3, 3000, out, sizeof out, &len), XI_OK);
    assert_int_equal(len, 1500);
    assert_memory_equal(out, text, 1500);
    n = pack(text, 1000, 15, packed, sizeof packed);
    n += pack(text, 500, 15, packed + n, sizeof packed - n);
    assert_int_equal(unpack(XI_CODING_DEFLATE, packed, n, 5000, 3000, out, sizeof out, &len),
                     XI_ECODING);
}

static void what_is_no_stream_is_refused(void **state)
{
    static uint8_t packed[20000], out[20000];
    size_t n = pack(text, 10000, 31, packed, sizeof packed), len;

    (void)state;
    for (size_t cut = 1; cut < n; cut += 97)
        assert_int_equal(unpack(XI_CODING_GZIP, packed, cut, 5000, 20000, out, sizeof out, &len),
                         XI_ECODING);
    assert_int_equal(unpack(XI_CODING_DEFLATE, packed, n, 5000, 20000, out, sizeof out, &len),
                     XI_ECODING);
    assert_int_equal(
        unpack(XI_CODING_GZIP, (const uint8_t *)text, 500, 5000, 20000, out, sizeof out, &len),
        XI_ECODING);
    packed[n - 6] ^= 1; /* of its checksum */
    assert_int_equal(unpack(XI_CODING_GZIP, packed, n, 5000, 20000, out, sizeof out, &len),
                     XI_ECODING);
    packed[n - 6] ^= 1;
    packed[n] = 0; /* behind its end */
    assert_int_equal(unpack(XI_CODING_GZIP, packed, n + 1, 5000, 20000, out, sizeof out, &len),
                     XI_ECODING);
}

/* Zeros pack a thousandfold: up to the grace they may, not beyond. */
static void bombs_are_met_before_they_burst(void **state)
{
    uint8_t *zeros = calloc(1, 80 << 20), *packed = malloc(1 << 20), *out = malloc(80 << 20);
    size_t n = pack(zeros, 80 << 20, 31, packed, 1 << 20), len;

    (void)state;
    assert_int_equal(unpack(XI_CODING_GZIP, packed, n, 65536, 1 << 20, out, 80 << 20, &len),
                     XI_ETOOBIG);
    assert_in_range(len, XI_INFLATE_GRACE, XI_INFLATE_GRACE + (1 << 20));
    n = pack(zeros, XI_INFLATE_GRACE, 31, packed, 1 << 20);
    assert_int_equal(unpack(XI_CODING_GZIP, packed, n, 65536, 1 << 20, out, 80 << 20, &len), XI_OK);
    assert_int_equal(len, XI_INFLATE_GRACE);
    free(zeros);
    free(packed);
    free(out);
}

static void packs_what_the_library_unpacks(void **state)
{
    static uint8_t out[TEXT_BYTES];
    struct xi_str packed;
    struct xi_deflate d;

    (void)state;
    xi_str_init(&packed, TEXT_BYTES - 1);
    assert_int_equal(xi_deflate_init(&d, XI_CODING_DEFLATE, &packed, NULL), XI_OK);
    assert_int_equal(xi_deflate_add(&d, text, 1000, 0, NULL), XI_OK);
    assert_int_equal(xi_deflate_add(&d, text + 1000, 0, 0, NULL), XI_OK);
    assert_int_equal(xi_deflate_add(&d, text + 1000, TEXT_BYTES - 1000, 1, NULL), XI_OK);
    xi_deflate_fini(&d);
    uLongf n = sizeof out;
    assert_int_equal(uncompress(out, &n, (const Bytef *)packed.data, packed.len), Z_OK);
    assert_int_equal(n, TEXT_BYTES);
    assert_memory_equal(out, text, TEXT_BYTES);
    xi_str_fini(&packed);
    packed.cap = 1000; /* it does not fit */
    assert_int_equal(xi_deflate_init(&d, XI_CODING_GZIP, &packed, NULL), XI_OK);
    assert_int_equal(xi_deflate_add(&d, text, TEXT_BYTES, 1, NULL), XI_ETOOBIG);
    xi_deflate_fini(&d);
    xi_str_fini(&packed);
}

static void codings_have_names(void **state)
{
    static const struct {
        const char *value;
        int coding;
    } sent[] = {{NULL, XI_CODING_NONE},
                {"identity", XI_CODING_NONE},
                {"gzip", XI_CODING_GZIP},
                {"X-GZIP", XI_CODING_GZIP},
                {"Deflate", XI_CODING_DEFLATE},
                {"zstd", -1},
                {"br", -1},
                {"gzip, gzip", -1},
                {"", -1},
                {"gzip,", -1}},
      wanted[] = {{NULL, XI_CODING_NONE},
                  {"", XI_CODING_NONE},
                  {"gzip", XI_CODING_GZIP},
                  {"deflate", XI_CODING_DEFLATE},
                  {"deflate, gzip", XI_CODING_GZIP},
                  {"br;q=1.0, GZip;q=0.5", XI_CODING_GZIP},
                  {"gzip;q=0, deflate", XI_CODING_DEFLATE},
                  {"gzip ; q=0.000", XI_CODING_NONE},
                  {"gzip;q=0.001", XI_CODING_GZIP},
                  {"gzipped, identity, *", XI_CODING_NONE},
                  {"identity;q=1, gzip;q=0,deflate;q=0", XI_CODING_NONE},
                  {",,;q=0,", XI_CODING_NONE}};
    enum xi_coding coding;

    (void)state;
    for (size_t i = 0; i < sizeof sent / sizeof *sent; i++) {
        struct xi_err err = {0};
        enum xi_rc rc = xi_coding_parse(sent[i].value, &coding, &err);
        assert_int_equal(rc, sent[i].coding < 0 ? XI_EMEDIA : XI_OK);
        if (rc == XI_OK)
            assert_int_equal(coding, sent[i].coding);
    }
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++)
        assert_int_equal(xi_coding_wanted(wanted[i].value), wanted[i].coding);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unpacks_however_it_is_cut),
        cmocka_unit_test(a_place_of_its_very_size_is_enough),
        cmocka_unit_test(members_of_gzip_follow_each_other),
        cmocka_unit_test(what_is_no_stream_is_refused),
        cmocka_unit_test(bombs_are_met_before_they_burst),
        cmocka_unit_test(packs_what_the_library_unpacks),
        cmocka_unit_test(codings_have_names),
    };

    return cmocka_run_group_tests(tests, make_text, NULL);
}
