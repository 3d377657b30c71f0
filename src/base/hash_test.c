#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/hash.h"

static void assert_hex(const struct xi_digest *d, const char *hex)
{
    char text[XI_DIGEST_HEX + 1];

    xi_digest_text(d, text);
    assert_string_equal(text, hex);
}

/* NIST's examples for SHA-256: the empty message, "abc", a million times 'a'. */
static void sha256_of_the_standard(void **state)
{
    struct xi_digest d;
    char as[1000];

    (void)state;
    xi_sha256("", 0, &d);
    assert_hex(&d, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    xi_sha256("abc", 3, &d);
    assert_hex(&d, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    struct xi_sha256 *h = xi_sha256_new();
    memset(as, 'a', sizeof as);
    for (int i = 0; i < 1000; i++)
        xi_sha256_add(h, as, sizeof as);
    xi_sha256_end(h, &d);
    assert_hex(&d, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    xi_sha256_add(h, "abc", 3); /* starts anew */
    xi_sha256_end(h, &d);
    assert_hex(&d, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    xi_sha256_free(h);
}

static void digests_parse_strictly(void **state)
{
    struct xi_digest d;
    const char *good = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    char bad[XI_DIGEST_HEX + 2];

    (void)state;
    assert_int_equal(xi_digest_parse(good, &d), 0);
    assert_hex(&d, good);
    memcpy(bad, good, sizeof bad - 1);
    bad[10] = 'G';
    assert_int_equal(xi_digest_parse(bad, &d), -1);
    bad[10] = 'A'; /* upper case is another spelling: refused */
    assert_int_equal(xi_digest_parse(bad, &d), -1);
    assert_int_equal(xi_digest_parse("../../etc/passwd", &d), -1);
    assert_int_equal(xi_digest_parse("", &d), -1);
}

static void uuids_are_version_4(void **state)
{
    char a[XI_UUID_TEXT + 1], b[XI_UUID_TEXT + 1];

    (void)state;
    xi_uuid_new(a);
    xi_uuid_new(b);
    assert_true(xi_uuid_valid(a));
    assert_int_equal(a[14], '4');
    assert_non_null(strchr("89ab", a[19]));
    assert_string_not_equal(a, b);
    assert_false(xi_uuid_valid("not-a-uuid"));
    a[0] = 'G';
    assert_false(xi_uuid_valid(a));
}

int main(void)
{
    const struct CMUnitTest t[] = {
        cmocka_unit_test(sha256_of_the_standard),
        cmocka_unit_test(digests_parse_strictly),
        cmocka_unit_test(uuids_are_version_4),
    };
    return cmocka_run_group_tests_name("hash", t, NULL, NULL);
}
