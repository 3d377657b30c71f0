#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "package/crc32.h"
#include "package/fixture.h"
#include "package/package.h"
#include "package/path.h"
#include "package/zip.h"

static enum xi_rc check(FILE *f, struct xi_digest *ret, struct xi_err *err)
{
    struct xi_package *package = NULL;
    enum xi_rc rc = xi_package_open(fileno(f), &package, err);

    if (rc == XI_OK)
        rc = xi_package_verify(package, NULL, ret, err);
    xi_package_close(package);
    return rc;
}

static void crc_is_the_one_of_zip(void **state)
{
    struct xi_crc32_table table;
    const char *check_text = "123456789"; /* the check value of CRC-32/ISO-HDLC */

    (void)state;
    xi_crc32_init(&table);
    assert_int_equal(xi_crc32_add(&table, 0, check_text, 9), 0xcbf43926);
    uint32_t crc = xi_crc32_add(&table, 0, check_text, 4);
    assert_int_equal(xi_crc32_add(&table, crc, check_text + 4, 5), 0xcbf43926);
    assert_int_equal(xi_crc32_add(&table, 0, "a long enough text for eight at once", 36),
                     0x03cb17d4);
}

static void same_inputs_give_same_bytes(void **state)
{
    struct fixture_entry turned[FIXTURE_ENTRIES];
    struct xi_digest a = {{0}}, b = {{1}}, read = {{2}};
    char x[65536], y[65536];

    (void)state;
    for (size_t i = 0; i < FIXTURE_ENTRIES; i++)
        turned[i] = fixture_entries[FIXTURE_ENTRIES - 1 - i];
    FILE *f = fixture_write(fixture_entries, FIXTURE_ENTRIES, &a, NULL);
    FILE *g = fixture_write(turned, FIXTURE_ENTRIES, &b, NULL);
    assert_non_null(f);
    assert_non_null(g);
    ssize_t n = pread(fileno(f), x, sizeof x, 0);
    assert_int_equal(pread(fileno(g), y, sizeof y, 0), n);
    assert_memory_equal(x, y, (size_t)n);
    assert_memory_equal(&a, &b, sizeof a);
    assert_int_equal(check(f, &read, NULL), XI_OK);
    assert_memory_equal(&a, &read, sizeof a);
    /* unsigned: the package's digest is the plain SHA-256 of the file */
    xi_sha256(x, (size_t)n, &read);
    assert_memory_equal(&a, &read, sizeof a);
    (void)fclose(f);
    (void)fclose(g);
}

static void entries_are_in_order_aligned_and_hashed(void **state)
{
    static const char *const order[] = {"manifest.json", "assets/empty", "assets/labels.txt",
                                        "variants/m.xref"};
    struct xi_archive *a = NULL;
    struct xi_digest digest, want;
    FILE *f = fixture_package();

    (void)state;
    assert_int_equal(xi_archive_open(fileno(f), &a, NULL), XI_OK);
    assert_int_equal(xi_archive_count(a), 4);
    assert_int_equal(xi_archive_verify(a, NULL, &digest, NULL), XI_OK);
    for (size_t i = 0; i < 4; i++) {
        assert_string_equal(xi_archive_entry(a, i)->path, order[i]);
        assert_int_equal(xi_archive_entry(a, i)->offset % 4096, 0);
        assert_int_equal(xi_archive_find(a, order[i]), i);
    }
    assert_int_equal(xi_archive_find(a, "assets/other"), -1);
    xi_sha256("cat\ndog\n", 8, &want);
    assert_memory_equal(&xi_archive_entry(a, 2)->sha256, &want, sizeof want);
    xi_archive_close(a);
    (void)fclose(f);
}

static void a_signature_does_not_rename_a_package(void **state)
{
    struct fixture_entry with[FIXTURE_ENTRIES + 1];
    struct xi_digest plain, sealed, read = {{0}};

    (void)state;
    memcpy(with, fixture_entries, sizeof fixture_entries);
    with[FIXTURE_ENTRIES] = (struct fixture_entry){"signature.json", "{}"};
    FILE *f = fixture_write(fixture_entries, FIXTURE_ENTRIES, &plain, NULL);
    FILE *g = fixture_write(with, FIXTURE_ENTRIES + 1, &sealed, NULL);
    assert_memory_equal(&plain, &sealed, sizeof plain);
    assert_int_equal(check(g, &read, NULL), XI_OK);
    assert_memory_equal(&plain, &read, sizeof plain);
    (void)fclose(f);
    (void)fclose(g);
}

/* Each byte of the file, all eight bits turned: none may go unnoticed. */
static void every_changed_byte_is_refused(void **state)
{
    struct xi_digest digest;
    FILE *f = fixture_package();
    off_t n = lseek(fileno(f), 0, SEEK_END);

    (void)state;
    assert_int_equal(check(f, &digest, NULL), XI_OK);
    for (off_t i = 0; i < n; i++) {
        struct xi_err err = {0};
        unsigned char good, bad;
        assert_int_equal(pread(fileno(f), &good, 1, i), 1);
        bad = (unsigned char)~good;
        assert_int_equal(pwrite(fileno(f), &bad, 1, i), 1);
        if (check(f, &digest, &err) == XI_OK)
            fail_msg("byte %ld changed from %u to %u and was accepted", (long)i, good, bad);
        assert_true(err.msg[0] != '\0');
        assert_int_equal(pwrite(fileno(f), &good, 1, i), 1);
    }
    assert_int_equal(check(f, &digest, NULL), XI_OK);
    (void)fclose(f);
}

static void every_cut_and_every_tail_is_refused(void **state)
{
    struct xi_digest digest;
    FILE *f = fixture_package();
    off_t n = lseek(fileno(f), 0, SEEK_END);

    (void)state;
    assert_int_equal(pwrite(fileno(f), "", 1, n), 1);
    assert_int_equal(check(f, &digest, NULL), XI_EPACKAGE);
    for (off_t i = n - 1; i >= 0; i -= i > n - 500 ? 1 : 97) {
        assert_int_equal(ftruncate(fileno(f), i), 0);
        assert_int_equal(check(f, &digest, NULL), XI_EPACKAGE);
    }
    (void)fclose(f);
}

static void bad_paths_are_not_written(void **state)
{
    static const struct {
        const char *path, *rule;
    } cases[] = {
        {"../x", "\"..\""},
        {"assets/../../x", "\"..\""},
        {"/etc/passwd", "absolute"},
        {"assets//x", "empty part"},
        {"assets/", "empty part"},
        {"C:/x", "drive letter"},
        {"assets\\x", "backslash"},
        {"assets/a\nb", "control character"},
        {"assets/a b", "outside"},
        {"assets/\xc3\xa4", "outside"},
        {"assets/.hidden", "starts with '.'"},
        {"assets/x.", "ends with '.'"},
        {"assets/con", "device name"},
        {"assets/NUL.txt", "device name"},
        {"assets/com1.bin", "device name"},
        {"other/x", "belongs nowhere"},
        {"assets/labels.txt", "appears twice"},
        {"assets/LABELS.txt", "case of letters"},
        {"Assets/x", "belongs nowhere"},
        {"assets/labels.txt/x", "needs a folder"},
        {"variants/M.xref", "case of letters"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct fixture_entry with[FIXTURE_ENTRIES + 1];
        struct xi_err err = {0};
        struct xi_digest digest;
        memcpy(with, fixture_entries, sizeof fixture_entries);
        with[FIXTURE_ENTRIES] = (struct fixture_entry){cases[i].path, "x"};
        assert_null(fixture_write(with, FIXTURE_ENTRIES + 1, &digest, &err));
        assert_int_equal(err.rc, XI_EPACKAGE);
        if (strstr(err.msg, cases[i].rule) == NULL)
            fail_msg("\"%s\": %s", cases[i].path, err.msg);
    }
    assert_int_equal(xi_package_path_check("assets/a\0b", 10, NULL), XI_EPACKAGE);
    assert_int_equal(xi_package_path_check("assets/com10+x_y-z.1", 20, NULL), XI_OK);
}

static void folders_that_differ_in_case_clash(void **state)
{
    const char *paths[] = {"assets/a/x", "assets/b", "assets/A/y"};
    struct xi_err err = {0};

    (void)state;
    assert_int_equal(xi_package_paths_check(paths, 3, &err), XI_EPACKAGE);
    assert_non_null(strstr(err.msg, "folder differs"));
}

static uint64_t number(const char *p, size_t n)
{
    uint64_t v = 0;

    for (size_t i = n; i > 0; i--)
        v = v << 8 | (unsigned char)p[i - 1];
    return v;
}

/* Field positions are those of APPNOTE.TXT 6.3.10, sections 4.3.12 to 4.3.16 and 4.5.3. */
static void large_entries_use_zip64(void **state)
{
    struct xi_zip_entry e = {.path = "variants/big", .crc = 7, .bytes = 5ull << 30};
    struct xi_str local, central, end;

    (void)state;
    xi_str_init(&local, 1 << 16);
    xi_str_init(&central, 1 << 16);
    xi_str_init(&end, 1 << 16);
    uint64_t after = xi_zip_place(&e, (4ull << 30) + 1);
    assert_int_equal(e.data_offset % 4096, 0);
    assert_true(after == e.data_offset + (5ull << 30));
    xi_zip_local(&e, &local);
    assert_int_equal(local.len, e.data_offset - e.header_offset);
    assert_int_equal(number(local.data + 4, 2), 45);
    assert_int_equal(number(local.data + 22, 4), 0xffffffff);
    assert_int_equal(number(local.data + 42, 2), 1);
    assert_int_equal(number(local.data + 44, 2), 16);
    assert_true(number(local.data + 46, 8) == 5ull << 30);
    xi_zip_central(&e, &central);
    assert_int_equal(number(central.data + 42, 4), 0xffffffff);
    assert_int_equal(number(central.data + 58 + 2, 2), 24);
    assert_true(number(central.data + 58 + 20, 8) == (4ull << 30) + 1);
    xi_zip_end(1, after, central.len, &end);
    assert_int_equal(end.len, 56 + 20 + 22);
    assert_int_equal(number(end.data, 4), 0x06064b50);
    assert_true(number(end.data + 48, 8) == after);
    assert_int_equal(number(end.data + 56, 4), 0x07064b50);
    assert_true(number(end.data + 64, 8) == after + central.len);
    assert_int_equal(number(end.data + 92, 4), 0xffffffff);
    xi_str_fini(&local);
    xi_str_fini(&central);
    xi_str_fini(&end);
}

static void small_entries_can_be_read_in_one_go(void **state)
{
    struct xi_archive *a = NULL;
    struct xi_err err = {0};
    char *text = NULL;
    size_t n = 0;
    FILE *f = fixture_package();

    (void)state;
    assert_int_equal(xi_archive_open(fileno(f), &a, NULL), XI_OK);
    assert_int_equal(xi_archive_read(a, 2, 8, &text, &n, NULL), XI_OK);
    assert_int_equal(n, 8);
    assert_string_equal(text, "cat\ndog\n");
    free(text);
    assert_int_equal(xi_archive_read(a, 2, 7, &text, &n, &err), XI_ETOOBIG);
    assert_string_equal(err.msg, "entry \"assets/labels.txt\": 8 bytes, at most 7 are allowed");
    xi_archive_close(a);
    (void)fclose(f);
}

static void manifest_and_entries_name_each_other(void **state)
{
    struct fixture_entry with[FIXTURE_ENTRIES + 1];
    struct xi_err err = {0};
    struct xi_digest digest;

    (void)state;
    memcpy(with, fixture_entries, sizeof fixture_entries);
    with[FIXTURE_ENTRIES] = (struct fixture_entry){"variants/stray", "x"};
    FILE *f = fixture_write(with, FIXTURE_ENTRIES + 1, &digest, NULL);
    assert_int_equal(check(f, &digest, &err), XI_EPACKAGE);
    assert_string_equal(err.msg, "entry \"variants/stray\": manifest.json doesn't name it");
    (void)fclose(f);
    with[0].path = "assets/m.xref";
    f = fixture_write(with, FIXTURE_ENTRIES, &digest, NULL);
    assert_int_equal(check(f, &digest, &err), XI_EPACKAGE);
    assert_string_equal(err.msg, "manifest.json: names \"variants/m.xref\" (variant file), which "
                                 "is not in the package");
    (void)fclose(f);
}

int main(void)
{
    const struct CMUnitTest t[] = {
        cmocka_unit_test(crc_is_the_one_of_zip),
        cmocka_unit_test(same_inputs_give_same_bytes),
        cmocka_unit_test(entries_are_in_order_aligned_and_hashed),
        cmocka_unit_test(a_signature_does_not_rename_a_package),
        cmocka_unit_test(every_changed_byte_is_refused),
        cmocka_unit_test(every_cut_and_every_tail_is_refused),
        cmocka_unit_test(bad_paths_are_not_written),
        cmocka_unit_test(folders_that_differ_in_case_clash),
        cmocka_unit_test(large_entries_use_zip64),
        cmocka_unit_test(small_entries_can_be_read_in_one_go),
        cmocka_unit_test(manifest_and_entries_name_each_other),
    };

    return cmocka_run_group_tests_name("archive", t, NULL, NULL);
}
