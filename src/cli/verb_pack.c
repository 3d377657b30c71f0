/* verb_pack.c: pack (a recipe or a bare model becomes one file) and inspect. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/platform/process.h"
#include "cli/cli.h"
#include "cli/input.h"
#include "package/inspect.h"
#include "package/recipe.h"

static const char *opt_output, *opt_sources;

static const struct xi_option options[] = {
    {"output", 'o', XI_OPTION_TEXT, &opt_output, "FILE", "the package to write (NAME.xpkg)"},
    {"sources", 's', XI_OPTION_TEXT, &opt_sources, "DIR", "where the recipe's sources lie"},
    {0},
};

static enum xi_rc open_dir_of(const char *path, int *ret, struct xi_err *err)
{
    char copy[1024];

    (void)snprintf(copy, sizeof copy, "%s", path);
    *ret = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return *ret >= 0 ? XI_OK : xi_fail(err, XI_ENOENT, "%s: %s", path, strerror(errno));
}

static const char *file_name(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash ? slash + 1 : path;
}

static enum xi_rc pack_into(struct xi_cli *cli, int out_fd, struct xi_pack_result *result)
{
    const char *path = cli->words[0];
    struct xi_input recipe = {0};
    int dir = -1, sources = -1;
    enum xi_rc rc = open_dir_of(path, &dir, &cli->err);

    if (rc == XI_OK && xi_pack_bare_takes(path)) {
        rc = xi_pack_bare(dir, file_name(path), out_fd, result, &cli->err);
        goto out;
    }
    if (rc == XI_OK)
        rc = xi_input_read(path, &recipe, &cli->err);
    if (rc != XI_OK)
        goto out;
    if (opt_sources != NULL) {
        sources = open(opt_sources, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (sources < 0) {
            rc = xi_fail(&cli->err, XI_ENOENT, "%s: %s", opt_sources, strerror(errno));
            goto out;
        }
    }
    rc = xi_pack_recipe(recipe.data ? recipe.data : "", recipe.bytes, dir, sources, out_fd, result,
                        &cli->err);
out:
    free(recipe.data);
    xi_fd_close(&dir);
    xi_fd_close(&sources);
    return rc;
}

static void report(const struct xi_cli *cli, const struct xi_pack_result *r, const char *path)
{
    char hex[XI_DIGEST_HEX + 1], size[16];

    xi_digest_text(&r->digest, hex);
    if (cli->json) {
        json_t *o = json_pack("{s:s, s:s, s:s, s:s, s:I, s:I}", "file", path, "name", r->name,
                              "version", r->version, "digest", hex, "bytes", (json_int_t)r->bytes,
                              "entries", (json_int_t)r->entries);
        xi_print_json(o);
        json_decref(o);
    } else if (cli->quiet)
        (void)puts(hex);
    else
        (void)printf("%s: %s %s, %zu files, %s, sha256:%s\n", path, r->name, r->version, r->entries,
                     xi_bytes_text(size, (double)r->bytes), hex);
}

/* Written beside the target and renamed, so that a half-made package never has its name. */
static enum xi_rc run_pack(struct xi_cli *cli)
{
    char part[1100], target[1024];
    struct xi_pack_result result = {0};

    if (opt_output != NULL)
        (void)snprintf(target, sizeof target, "%s", opt_output);
    else
        target[0] = '\0';
    (void)snprintf(part, sizeof part, "%s.part-%d", opt_output ? target : "./package",
                   (int)getpid());
    int fd = open(part, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (fd < 0)
        return xi_fail(&cli->err, xi_rc_errno(errno), "%s: %s", part, strerror(errno));
    enum xi_rc rc = pack_into(cli, fd, &result);
    (void)close(fd);
    if (rc == XI_OK && target[0] == '\0')
        (void)snprintf(target, sizeof target, "%s.xpkg", result.name);
    if (rc == XI_OK && rename(part, target) != 0)
        rc = xi_fail(&cli->err, xi_rc_errno(errno), "%s: %s", target, strerror(errno));
    if (rc != XI_OK)
        (void)unlink(part);
    else
        report(cli, &result, target);
    return rc;
}

static enum xi_rc run_inspect(struct xi_cli *cli)
{
    struct xi_str out;
    int fd = open(cli->words[0], O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return xi_fail(&cli->err, XI_ENOENT, "%s: %s", cli->words[0], strerror(errno));
    xi_str_init(&out, XI_INSPECT_MAX);
    enum xi_rc rc = cli->json ? xi_package_inspect_json(fd, &out, &cli->err)
                              : xi_package_inspect_text(fd, &out, &cli->err);
    if (rc == XI_OK)
        (void)printf("%s%s", xi_str_text(&out), cli->json ? "\n" : "");
    xi_str_fini(&out);
    (void)close(fd);
    return rc;
}

const struct xi_verb xi_verb_pack = {
    .name = "pack",
    .usage = "RECIPE.json|MODEL [options]",
    .summary = "make a package from a recipe or from a bare model",
    .details = "Same inputs give the same bytes and the same digest.",
    .examples =
        "  xinfer pack zoo/object-detector/recipe.json --sources build/deps/zoo/object-detector\n"
        "  xinfer pack classifier.onnx -o classifier.xpkg\n",
    .min_words = 1,
    .max_words = 1,
    .options = options,
    .run = run_pack};

const struct xi_verb xi_verb_inspect = {.name = "inspect",
                                        .usage = "FILE.xpkg",
                                        .summary = "verify a package and show what is in it",
                                        .min_words = 1,
                                        .max_words = 1,
                                        .run = run_inspect};
