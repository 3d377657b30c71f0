/* /v1/control/packages and /v1/packages: uploads and removals. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/name.h"
#include "base/size.h"
#include "daemon/api/connection.h"
#include "daemon/api/describe.h"

enum { UPLOADS_MAX = 4, UPLOAD_BUFFER = 1024 * 1024 };

/* An upload holds one buffer: the socket fills it, the store's thread writes it, in turns. */
struct xi_package_upload {
    struct xi_upload *upload;
    int ending;
    uint8_t buffer[UPLOAD_BUFFER];
};

static void release_upload(struct xi_exchange *x)
{
    if (x->upload == NULL)
        return;
    if (x->upload->upload != NULL)
        xi_upload_abort(x->upload->upload);
    free(x->upload);
    x->upload = NULL;
    x->server->uploads--;
}

void xi_control_upload_begin(struct xi_exchange *x)
{
    uint64_t length = x->stream.content_length;
    struct xi_err err = {0};
    enum xi_rc rc = XI_OK;

    if (length == 0)
        rc = xi_fail(&err, XI_EPACKAGE, "the body is empty");
    else if (x->server->uploads >= UPLOADS_MAX)
        rc = xi_fail(&err, XI_EAGAIN, "%d uploads are under way", UPLOADS_MAX);
    else if ((x->upload = calloc(1, sizeof *x->upload)) == NULL)
        rc = xi_fail(&err, XI_ENOMEM, "no memory for an upload");
    if (rc == XI_OK) {
        x->server->uploads++;
        x->release = release_upload;
        rc = xi_upload_begin(x->server->service->store, length == XI_HTTP_NO_LENGTH ? 0 : length,
                             &x->upload->upload, &err);
    }
    if (rc != XI_OK) {
        if (x->upload != NULL)
            x->upload->upload = NULL;
        xi_answer_problem(x, &err);
        return;
    }
    x->stream.sink = x->upload->buffer;
    x->stream.sink_room = UPLOAD_BUFFER;
    xi_body_welcome(x);
}

static void on_installed(void *ctx, const struct xi_package_record *record, int existed,
                         const struct xi_err *err)
{
    struct xi_exchange *x = ctx;
    char digest[XI_DIGEST_HEX + 1];

    if (xi_answer_failed(x, err, record, "the installation"))
        return;
    xi_digest_text(&record->digest, digest);
    xi_str_clear(&x->body);
    xi_str_printf(&x->body, "{\"digest\":\"%s\"", digest);
    xi_describe_text(&x->body, "name", record->name);
    xi_describe_text(&x->body, "version", record->version);
    xi_str_printf(&x->body, ",\"existed\":%s}", existed ? "true" : "false");
    xi_answer_body(x, existed ? 200 : 201, "application/json");
}

static void install(struct xi_exchange *x)
{
    struct xi_upload *upload = x->upload->upload;

    x->upload->upload = NULL; /* install ends it in any case */
    xi_upload_install(upload, on_installed, x);
}

static void on_upload_written(void *ctx, const struct xi_err *err)
{
    struct xi_exchange *x = ctx;
    struct xi_http_stream *s = &x->stream;

    if (err != NULL && err->rc != XI_OK) {
        s->paused = 0;
        xi_answer_problem(x, err);
        return;
    }
    if (x->upload->ending) {
        install(x);
        return;
    }
    x->pending = 0;
    if (xi_exchange_settle(x)) /* the client has gone */
        return;
    s->paused = 0;
    s->sink_len = 0;
    xi_exchange_resume(x);
}

void xi_control_upload_full(struct xi_exchange *x)
{
    x->stream.paused = 1;
    x->pending = 1; /* the store reads the buffer until on_upload_written */
    xi_upload_write(x->upload->upload, x->upload->buffer, (size_t)x->stream.sink_len,
                    on_upload_written, x);
}

void xi_control_upload_end(struct xi_exchange *x)
{
    x->upload->ending = 1;
    if (x->stream.sink_len == 0)
        install(x);
    else
        xi_upload_write(x->upload->upload, x->upload->buffer, (size_t)x->stream.sink_len,
                        on_upload_written, x);
}

static void on_removed(void *ctx, const struct xi_err *err)
{
    struct xi_exchange *x = ctx;

    if (xi_answer_failed(x, err, x, "the removal"))
        return;
    xi_str_clear(&x->body);
    xi_str_printf(&x->body, "{\"removed\":\"%s\"}", x->param);
    xi_answer_body(x, 200, "application/json");
}

void xi_control_package_delete(struct xi_exchange *x)
{
    struct xi_digest digest;
    struct xi_err err;

    if (strncmp(x->param, "sha256:", 7) == 0)
        memmove(x->param, x->param + 7, strlen(x->param + 7) + 1);
    if (xi_digest_parse(x->param, &digest) != 0) {
        (void)xi_fail(&err, XI_EINVAL, "a package is removed by its digest (64 hex digits)");
        (void)xi_hint(&err, "GET /v1/packages lists the digests");
        xi_answer_problem(x, &err);
        return;
    }
    xi_store_remove(x->server->service->store, x->param, on_removed, x);
}
