/* install.c: role install: the archive (fd 4) → files and the record in staging (fd 5). */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/str.h"
#include "host/control.h"
#include "host/sandbox.h"
#include "package/install.h"

enum { ARCHIVE_FD = 4, STAGING_FD = 5 };

static enum xi_rc write_all(int fd, const char *data, size_t bytes, struct xi_err *err)
{
    size_t done = 0;

    while (done < bytes) {
        ssize_t n = write(fd, data + done, bytes - done);
        if (n < 0 && errno != EINTR)
            return xi_fail(err, xi_rc_errno(errno), "record: %s", strerror(errno));
        done += n > 0 ? (size_t)n : 0;
    }
    if (fsync(fd) != 0)
        return xi_fail(err, xi_rc_errno(errno), "record: %s", strerror(errno));
    return XI_OK;
}

static enum xi_rc write_record(const struct xi_package_record *record, uint64_t *ret_bytes,
                               struct xi_err *err)
{
    struct xi_str text;

    xi_str_init(&text, XI_RECORD_BYTES_MAX);
    enum xi_rc rc = xi_record_encode(record, &text, err);
    int fd = -1;
    if (rc == XI_OK) {
        fd = openat(STAGING_FD, "record", O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW,
                    0444);
        if (fd < 0)
            rc = xi_fail(err, xi_rc_errno(errno), "record: %s", strerror(errno));
    }
    if (rc == XI_OK)
        rc = write_all(fd, text.data, text.len, err);
    *ret_bytes = text.len;
    if (fd >= 0)
        (void)close(fd);
    xi_str_fini(&text);
    return rc;
}

static enum xi_rc install(uint64_t *ret_bytes, struct xi_err *err)
{
    uint64_t started = xi_now_us();
    struct xi_package_record record = {0};

    xi_control_progress(0, "verify", 0, 0);
    enum xi_rc rc = xi_package_install(ARCHIVE_FD, STAGING_FD, &record, err);
    if (rc != XI_OK)
        return rc;
    xi_control_progress(0, "verify", 1000, xi_now_us() - started);
    rc = write_record(&record, ret_bytes, err);
    xi_record_fini(&record);
    return rc;
}

int xi_role_install(const struct xi_host_args *args)
{
    struct xi_sandbox box = {.enabled = args->sandbox,
                             .write_fd = STAGING_FD,
                             .data_limit_bytes = args->data_limit_bytes,
                             .uid = args->uid};
    char summary[XI_SANDBOX_SUMMARY] = "";
    struct xi_msg_installed m = {0};
    struct xi_err err = {0};

    enum xi_rc rc = xi_sandbox_enter_load(&box, summary, &err);
    int code = xi_control_hello(args, summary);
    if (code != 0)
        return code;
    if (rc == XI_OK)
        rc = install(&m.record_bytes, &err);
    if (rc != XI_OK) {
        xi_control_failed(0, &err, "install");
        return 0;
    }
    return xi_control_send(&m, XI_MSG_INSTALLED, sizeof m) == XI_OK ? 0 : 3;
}
