#include "base/status.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct row {
    int rc, http, grpc, exit_code;
    const char *name, *code, *title;
};

static const struct row rows[] = {{0, 200, 0, 0, "OK", "XI-0000", "ok"},
#define XI_RC_ROW(name, number, http, grpc, exit_code, title)                                      \
    {-(number), http, grpc, exit_code, #name, "XI-0" #number, title},
                                  XI_RC_MAP(XI_RC_ROW)
#undef XI_RC_ROW
};

static const struct row *find_row(int rc)
{
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (rows[i].rc == rc)
            return &rows[i];
    return NULL;
}

static const struct row *row_of(int rc)
{
    const struct row *row = find_row(rc);

    return row ? row : find_row(XI_EINTERNAL);
}

static void printable(char *s)
{
    for (; *s; s++)
        if ((unsigned char)*s < 0x20 || *s == 0x7f)
            *s = '?';
}

static XI_PRINTF(3, 0) void format(char *dst, size_t bytes, const char *fmt, va_list ap)
{
    (void)vsnprintf(dst, bytes, fmt, ap);
    printable(dst);
}

enum xi_rc xi_fail(struct xi_err *err, enum xi_rc rc, const char *fmt, ...)
{
    va_list ap;

    if (err == NULL)
        return rc;
    err->rc = rc;
    err->hint[0] = '\0';
    va_start(ap, fmt);
    format(err->msg, sizeof err->msg, fmt, ap);
    va_end(ap);
    return rc;
}

enum xi_rc xi_hint(struct xi_err *err, const char *fmt, ...)
{
    va_list ap;

    if (err == NULL)
        return XI_EINTERNAL;
    va_start(ap, fmt);
    format(err->hint, sizeof err->hint, fmt, ap);
    va_end(ap);
    return err->rc;
}

enum xi_rc xi_wrap(struct xi_err *err, enum xi_rc rc, const char *fmt, ...)
{
    char head[sizeof err->msg], tail[sizeof err->msg];
    va_list ap;

    if (err == NULL)
        return rc;
    va_start(ap, fmt);
    format(head, sizeof head, fmt, ap);
    va_end(ap);
    memcpy(tail, err->msg, sizeof tail);
    err->rc = rc;
    size_t n = strlen(head);
    memcpy(err->msg, head, n + 1);
    if (n + 3 < sizeof err->msg)
        (void)snprintf(err->msg + n, sizeof err->msg - n, ": %s", tail);
    return rc;
}

const char *xi_rc_name(enum xi_rc rc)
{
    return row_of(rc)->name;
}

const char *xi_rc_title(enum xi_rc rc)
{
    return row_of(rc)->title;
}

const char *xi_rc_code(enum xi_rc rc)
{
    return row_of(rc)->code;
}

int xi_rc_http(enum xi_rc rc)
{
    return row_of(rc)->http;
}

int xi_rc_grpc(enum xi_rc rc)
{
    return row_of(rc)->grpc;
}

int xi_rc_exit(enum xi_rc rc)
{
    return row_of(rc)->exit_code;
}

int xi_rc_known(int number)
{
    return find_row(number) != NULL;
}

enum xi_rc xi_rc_errno(int err_number)
{
    switch (err_number) {
    case ENOENT:
        return XI_ENOENT;
    case ENOMEM:
        return XI_ENOMEM;
    case ENOSPC:
    case EDQUOT:
    case EROFS:
    case EACCES:
    case EPERM:
        return XI_EDISK;
    case EMFILE:
    case ENFILE:
        return XI_EFDS;
    case EADDRINUSE:
        return XI_EPORT;
    default:
        return XI_EIO;
    }
}

void xi_panic(const char *file, int line, const char *what)
{
    (void)fprintf(stderr, "xinfer: bug at %s:%d: %s\n", file, line, what);
    abort();
}
