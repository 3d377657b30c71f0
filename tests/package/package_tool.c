/* package_tool: the package room on files, for tests that mutate packages.
 *   package_tool verify FILE | install FILE DIR | inspect FILE | json FILE
 *   package_tool pack RECIPE OUT [SOURCES] | bare FILE OUT
 *   package_tool manifests FILE...      one line each: OK, or the refusal
 * Prints what was asked, or "CODE message" on stderr and exits 1. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "package/inspect.h"
#include "package/install.h"
#include "package/package.h"
#include "package/recipe.h"

static enum xi_rc verify(int fd, struct xi_err *err)
{
    struct xi_package *package = NULL;
    struct xi_digest digest;
    char hex[XI_DIGEST_HEX + 1];
    enum xi_rc rc = xi_package_open(fd, &package, err);

    if (rc == XI_OK)
        rc = xi_package_verify(package, NULL, &digest, err);
    if (rc == XI_OK) {
        xi_digest_text(&digest, hex);
        (void)printf("%s %zu\n", hex, xi_archive_count(package->archive));
    }
    xi_package_close(package);
    return rc;
}

/* Prints the record as the daemon would see it: through its bytes. */
static enum xi_rc print_record(const struct xi_package_record *record, struct xi_err *err)
{
    struct xi_package_record r = {0};
    struct xi_str bytes;
    char hex[XI_DIGEST_HEX + 1];

    xi_str_init(&bytes, XI_RECORD_BYTES_MAX);
    enum xi_rc rc = xi_record_encode(record, &bytes, err);
    if (rc == XI_OK)
        rc = xi_record_decode(bytes.data, bytes.len, &r, err);
    if (rc == XI_OK) {
        xi_digest_text(&r.digest, hex);
        (void)printf("%s %s %s flags=%u models=%u variants=%u blobs=%u\n", r.name, r.version, hex,
                     r.flags, r.n_models, r.n_variants, r.n_blobs);
        for (uint32_t i = 0; i < r.n_blobs; i++) {
            xi_digest_text(&r.blobs[i].sha256, hex);
            (void)printf("%u %s %llu %s\n", i, hex, (unsigned long long)r.blobs[i].bytes,
                         r.blobs[i].path);
        }
    }
    xi_str_fini(&bytes);
    xi_record_fini(&r);
    return rc;
}

static enum xi_rc install(int fd, const char *dir, struct xi_err *err)
{
    struct xi_package_record record = {0};
    int staging = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    enum xi_rc rc = staging < 0 ? xi_fail(err, XI_ENOENT, "no such directory")
                                : xi_package_install(fd, staging, &record, err);

    if (rc == XI_OK)
        rc = print_record(&record, err);
    xi_record_fini(&record);
    if (staging >= 0)
        (void)close(staging);
    return rc;
}

static enum xi_rc inspect(int fd, int as_json, struct xi_err *err)
{
    struct xi_str out;

    xi_str_init(&out, XI_INSPECT_MAX);
    enum xi_rc rc =
        as_json ? xi_package_inspect_json(fd, &out, err) : xi_package_inspect_text(fd, &out, err);
    if (rc == XI_OK)
        (void)puts(xi_str_text(&out));
    xi_str_fini(&out);
    return rc;
}

static enum xi_rc read_text(const char *path, struct xi_str *out, struct xi_err *err)
{
    char chunk[4096];
    FILE *f = fopen(path, "rb");

    if (f == NULL)
        return xi_fail(err, XI_ENOENT, "no such recipe");
    for (size_t n; (n = fread(chunk, 1, sizeof chunk, f)) > 0;)
        xi_str_add(out, chunk, n);
    (void)fclose(f);
    return xi_str_check(out, err, "recipe");
}

static enum xi_rc pack(int bare, char **argv, int dir, int out, struct xi_err *err)
{
    int sources = argv[4] ? open(argv[4], O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    struct xi_pack_result result = {0};
    struct xi_str text;
    char hex[XI_DIGEST_HEX + 1];
    enum xi_rc rc;

    xi_str_init(&text, XI_MANIFEST_MAX);
    if (bare) {
        rc = xi_pack_bare(dir, strrchr(argv[2], '/') ? strrchr(argv[2], '/') + 1 : argv[2], out,
                          &result, err);
    } else {
        rc = read_text(argv[2], &text, err);
        if (rc == XI_OK)
            rc = xi_pack_recipe(text.data, text.len, dir, sources, out, &result, err);
    }
    if (rc == XI_OK) {
        xi_digest_text(&result.digest, hex);
        (void)printf("%s %zu %llu %s %s\n", hex, result.entries, (unsigned long long)result.bytes,
                     result.name, result.version);
    }
    xi_str_fini(&text);
    if (sources >= 0)
        (void)close(sources);
    return rc;
}

static enum xi_rc pack_file(int bare, char **argv, struct xi_err *err)
{
    char *path = strdup(argv[2]);
    int dir = path ? open(dirname(path), O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    int out = open(argv[3], O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    enum xi_rc rc = dir < 0 || out < 0 ? xi_fail(err, XI_EIO, "cannot open the files")
                                       : pack(bare, argv, dir, out, err);

    free(path);
    if (dir >= 0)
        (void)close(dir);
    if (out >= 0)
        (void)close(out);
    return rc;
}

static enum xi_rc manifests(int argc, char **argv)
{
    for (int i = 2; i < argc; i++) {
        struct xi_err err = {0};
        struct xi_manifest *m = NULL;
        struct xi_str text;
        xi_str_init(&text, XI_MANIFEST_MAX);
        enum xi_rc rc = read_text(argv[i], &text, &err);
        if (rc == XI_OK)
            rc = xi_manifest_parse(xi_str_text(&text), text.len, &m, &err);
        (void)printf("%s %s\n", xi_rc_name(rc), err.msg);
        xi_manifest_free(m);
        xi_str_fini(&text);
    }
    return XI_OK;
}

int main(int argc, char **argv)
{
    struct xi_err err = {0};
    enum xi_rc rc = XI_EUSAGE;
    const char *verb = argc > 2 ? argv[1] : "";
    int fd = argc > 2 ? open(argv[2], O_RDONLY | O_CLOEXEC) : -1;

    (void)xi_fail(&err, rc, "see the head of package_tool.c");
    if (strcmp(verb, "verify") == 0)
        rc = verify(fd, &err);
    else if (strcmp(verb, "manifests") == 0)
        rc = manifests(argc, argv);
    else if (strcmp(verb, "install") == 0 && argc > 3)
        rc = install(fd, argv[3], &err);
    else if (strcmp(verb, "inspect") == 0 || strcmp(verb, "json") == 0)
        rc = inspect(fd, strcmp(verb, "json") == 0, &err);
    else if ((strcmp(verb, "pack") == 0 || strcmp(verb, "bare") == 0) && argc > 3)
        rc = pack_file(strcmp(verb, "bare") == 0, argv, &err);
    if (fd >= 0)
        (void)close(fd);
    if (rc == XI_OK)
        return 0;
    (void)fprintf(stderr, "%s %s%s%s\n", xi_rc_name(rc), err.msg, err.hint[0] ? " | " : "",
                  err.hint);
    return 1;
}
