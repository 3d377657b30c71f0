#define _GNU_SOURCE
#include "cli/input.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/limits.h"

static const char *sniff(const char *p, size_t n)
{
    static const struct {
        const char *magic;
        size_t bytes;
        const char *type;
    } known[] = {
        {"\xff\xd8\xff", 3, "image/jpeg"},
        {"\x89PNG\r\n\x1a\n", 8, "image/png"},
    };

    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (n >= known[i].bytes && memcmp(p, known[i].magic, known[i].bytes) == 0)
            return known[i].type;
    if (n >= 12 && memcmp(p, "RIFF", 4) == 0 && memcmp(p + 8, "WAVE", 4) == 0)
        return "audio/wav";
    while (n > 0 && strchr(" \t\r\n", *p)) {
        p++;
        n--;
    }
    return n > 0 && *p == '{' ? "application/json" : "application/octet-stream";
}

enum xi_rc xi_input_read(const char *path, struct xi_input *ret, struct xi_err *err)
{
    enum xi_rc rc;
    struct xi_str s;
    char chunk[65536];
    size_t n;
    FILE *f = strcmp(path, "-") == 0 ? stdin : fopen(path, "rb");

    if (f == NULL)
        return xi_fail(err, XI_ENOENT, "%s: %s", path, strerror(errno));
    xi_str_init(&s, XI_BODY_MAX);
    while ((n = fread(chunk, 1, sizeof chunk, f)) > 0)
        xi_str_add(&s, chunk, n);
    rc = ferror(f) ? xi_fail(err, XI_EIO, "%s: %s", path, strerror(errno))
                   : xi_str_check(&s, err, path);
    if (f != stdin)
        (void)fclose(f);
    if (rc == XI_OK) {
        ret->bytes = s.len;
        ret->content_type = sniff(xi_str_text(&s), s.len);
        ret->data = xi_str_take(&s);
    }
    xi_str_fini(&s);
    return rc;
}

struct part {
    const char *head, *body;
    size_t head_bytes, body_bytes;
};

/* The next part behind *at; moves *at to the boundary that ends it. */
static int next_part(const char **at, const char *end, const char *boundary, struct part *ret)
{
    const char *start = memmem(*at, (size_t)(end - *at), boundary, strlen(boundary));

    if (start == NULL)
        return 0;
    ret->head = start + strlen(boundary);
    const char *body = memmem(ret->head, (size_t)(end - ret->head), "\r\n\r\n", 4);
    if (body == NULL)
        return 0;
    ret->head_bytes = (size_t)(body - ret->head);
    ret->body = body + 4;
    const char *stop = memmem(ret->body, (size_t)(end - ret->body), boundary, strlen(boundary));
    if (stop == NULL || stop - ret->body < 2)
        return 0;
    ret->body_bytes = (size_t)(stop - ret->body) - 2; /* the line end before the boundary */
    *at = stop;
    return 1;
}

static enum xi_rc read_multipart(const struct xi_answer *a, struct xi_result *ret,
                                 struct xi_err *err)
{
    const char *at = xi_str_text(&a->body), *end = at + a->body.len;
    const char *mark = strstr(a->content_type, "boundary=");
    char boundary[80];
    struct part part;
    enum xi_rc rc = XI_OK;

    if (mark == NULL)
        return xi_fail(err, XI_EPROTO, "multipart answer without a boundary");
    mark += 9 + (mark[9] == '"');
    (void)snprintf(boundary, sizeof boundary, "--%.*s", (int)strcspn(mark, "\"; "), mark);
    while (rc == XI_OK && next_part(&at, end, boundary, &part)) {
        if (memmem(part.head, part.head_bytes, "application/json", 16) != NULL)
            rc = xi_json_parse(part.body, part.body_bytes, 64 * XI_MIB, &ret->json, err);
        else if (memmem(part.head, part.head_bytes, "image/", 6) != NULL) {
            ret->picture = part.body;
            ret->picture_bytes = part.body_bytes;
        }
    }
    if (rc == XI_OK && ret->json == NULL)
        return xi_fail(err, XI_EPROTO, "multipart answer without a JSON part");
    return rc;
}

enum xi_rc xi_result_read(const struct xi_answer *answer, struct xi_result *ret, struct xi_err *err)
{
    if (strncmp(answer->content_type, "multipart/", 10) == 0)
        return read_multipart(answer, ret, err);
    if (strncmp(answer->content_type, "application/json", 16) == 0)
        return xi_json_parse(xi_str_text(&answer->body), answer->body.len, 64 * XI_MIB, &ret->json,
                             err);
    ret->picture = xi_str_text(&answer->body);
    ret->picture_bytes = answer->body.len;
    return XI_OK;
}

enum xi_rc xi_file_write(const char *path, const void *data, size_t bytes, struct xi_err *err)
{
    FILE *f = strcmp(path, "-") == 0 ? stdout : fopen(path, "wb");

    if (f == NULL)
        return xi_fail(err, xi_rc_errno(errno), "%s: %s", path, strerror(errno));
    size_t n = fwrite(data, 1, bytes, f);
    int closed = f == stdout ? fflush(f) : fclose(f);
    if (n != bytes || closed != 0)
        return xi_fail(err, XI_EDISK, "%s: %s", path, strerror(errno));
    return XI_OK;
}
