/* package.c: a package on this side of the wire: hashed, uploaded if the daemon lacks it. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/hash.h"
#include "base/platform/process.h"
#include "cli/cli.h"
#include "package/package.h"
#include "package/recipe.h"

/* A bare model becomes a package in an unlinked temporary file. */
static enum xi_rc pack_bare(const char *path, int *ret_fd, struct xi_digest *ret,
                            struct xi_err *err)
{
    char copy[1024], pattern[300];
    const char *tmp = getenv("TMPDIR");
    struct xi_pack_result result;
    int dir = -1, fd = -1;
    enum xi_rc rc;

    (void)snprintf(copy, sizeof copy, "%s", path);
    const char *slash = strrchr(path, '/');
    dir = open(slash ? dirname(copy) : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    (void)snprintf(pattern, sizeof pattern, "%s/xinfer-XXXXXX", tmp && *tmp ? tmp : "/tmp");
    fd = mkostemp(pattern, O_CLOEXEC);
    if (dir < 0 || fd < 0) {
        rc = xi_fail(err, xi_rc_errno(errno), "%s: %s", dir < 0 ? path : pattern, strerror(errno));
        goto out;
    }
    (void)unlink(pattern);
    rc = xi_pack_bare(dir, slash ? slash + 1 : path, fd, &result, err);
    if (rc == XI_OK) {
        *ret = result.digest;
        *ret_fd = fd;
        fd = -1;
    }
out:
    xi_fd_close(&dir);
    xi_fd_close(&fd);
    return rc;
}

static enum xi_rc open_package(const char *path, int *ret_fd, struct xi_digest *ret,
                               struct xi_err *err)
{
    struct xi_package *package = NULL;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    enum xi_rc rc;

    if (fd < 0)
        return xi_fail(err, xi_rc_errno(errno), "%s: %s", path, strerror(errno));
    rc = xi_package_open(fd, &package, err);
    if (rc == XI_OK)
        rc = xi_package_verify(package, NULL, ret, err);
    xi_package_close(package);
    if (rc != XI_OK) {
        (void)close(fd);
        return xi_wrap(err, rc, "%s", path);
    }
    *ret_fd = fd;
    return XI_OK;
}

static enum xi_rc upload(struct xi_cli *cli, int fd, const char *label)
{
    static const char *const headers[] = {"Content-Type: application/vnd.xinfer.xpkg", NULL};
    struct xi_answer answer = {0};
    struct stat st;
    enum xi_rc rc;

    if (fstat(fd, &st) != 0 || lseek(fd, 0, SEEK_SET) != 0)
        return xi_fail(&cli->err, XI_EIO, "%s: %s", label, strerror(errno));
    struct xi_call call = {.method = "POST",
                           .path = "/v1/control/packages",
                           .headers = headers,
                           .body_fd = fd,
                           .body_bytes = (uint64_t)st.st_size,
                           .progress = xi_progress,
                           .progress_ctx = "uploading"};
    xi_str_init(&answer.body, XI_MIB);
    rc = xi_client_call(cli->client, &call, &answer, &cli->err);
    xi_progress_end();
    xi_str_fini(&answer.body);
    return rc;
}

static int has_package(struct xi_cli *cli, const char *hex)
{
    char path[128];
    struct xi_err quiet;
    json_t *doc = NULL;

    (void)snprintf(path, sizeof path, "/v1/packages/%s", hex);
    enum xi_rc rc = xi_client_json(cli->client, "GET", path, NULL, &doc, &quiet);
    json_decref(doc);
    return rc == XI_OK;
}

enum xi_rc xi_cli_package(struct xi_cli *cli, const char *what, char *ret, size_t bytes)
{
    struct xi_digest digest;
    struct stat st;
    int fd = -1;
    enum xi_rc rc;

    if (stat(what, &st) != 0 || !S_ISREG(st.st_mode)) {
        if (strchr(what, '/') != NULL || strstr(what, ".xpkg") != NULL)
            return xi_fail(&cli->err, XI_ENOENT, "%s: no such file", what);
        (void)snprintf(ret, bytes, "%s", what);
        return XI_OK;
    }
    rc = xi_pack_bare_takes(what) ? pack_bare(what, &fd, &digest, &cli->err)
                                  : open_package(what, &fd, &digest, &cli->err);
    if (rc != XI_OK)
        return rc;
    xi_digest_text(&digest, ret);
    if (!has_package(cli, ret))
        rc = upload(cli, fd, what);
    xi_fd_close(&fd);
    return rc;
}
