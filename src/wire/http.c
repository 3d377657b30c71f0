#include "wire/http.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { ARENA_FIRST = 2048 };

void xi_http_stream_reset(struct xi_http_stream *s)
{
    char *arena = s->arena;
    uint32_t room = s->arena_room;

    memset(s, 0, sizeof *s);
    s->arena = arena;
    s->arena_room = room;
}

void xi_http_stream_fini(struct xi_http_stream *s)
{
    free(s->arena);
    memset(s, 0, sizeof *s);
}

int xi_http_arena_add(struct xi_http_stream *s, const char *at, size_t n)
{
    if (s->arena_len + n + 2 > s->arena_room) {
        uint32_t room = s->arena_room ? s->arena_room : ARENA_FIRST;
        while (s->arena_len + n + 2 > room)
            room *= 2;
        char *arena = realloc(s->arena, room);
        if (arena == NULL)
            return -1;
        s->arena = arena;
        s->arena_room = room;
    }
    memcpy(s->arena + s->arena_len, at, n);
    s->arena_len += (uint32_t)n;
    return 0;
}

void xi_http_header_at(struct xi_http_stream *s, uint32_t i, uint32_t name_at, uint32_t value_at)
{
    s->headers[i].name = (const char *)(uintptr_t)name_at;
    s->headers[i].value = (const char *)(uintptr_t)value_at;
}

void xi_http_headers_settle(struct xi_http_stream *s, uint32_t n)
{
    for (; s->n_headers < n; s->n_headers++) {
        struct xi_http_header *header = &s->headers[s->n_headers];
        header->name = s->arena + (uintptr_t)header->name;
        header->value = s->arena + (uintptr_t)header->value;
    }
}

enum xi_rc xi_http_split_target(struct xi_http_stream *s, char *target, struct xi_err *err)
{
    char *path = target;

    if (strchr(target, '#') != NULL)
        return xi_fail(err, XI_EHTTP, "fragment in the request target");
    if (strncasecmp(target, "http://", 7) == 0 || strncasecmp(target, "https://", 8) == 0) {
        char *authority = strchr(target, ':') + 3;
        size_t n = strcspn(authority, "/?");
        if (n == 0 || memchr(authority, '@', n) != NULL)
            return xi_fail(err, XI_EHTTP, "bad authority in the request target");
        /* One byte forward frees room for the terminator: "//" stands before the authority. */
        memmove(authority - 1, authority, n);
        authority[n - 1] = '\0';
        s->host = authority - 1;
        path = authority + n;
        if (*path != '/') { /* "http://host" or "http://host?query" */
            s->path = "/";
            s->query = *path == '?' ? path + 1 : "";
            return XI_OK;
        }
    }
    if (*path != '/' && !(strcmp(path, "*") == 0 && strcmp(s->method, "OPTIONS") == 0))
        return xi_fail(err, XI_EHTTP, "request target does not start with /");
    char *query = strchr(path, '?');
    if (query != NULL)
        *query++ = '\0';
    s->path = path;
    s->query = query ? query : "";
    return XI_OK;
}

const char *xi_http_header(const struct xi_http_stream *s, const char *name)
{
    for (uint32_t i = 0; i < s->n_headers; i++)
        if (strcmp(s->headers[i].name, name) == 0)
            return s->headers[i].value;
    return NULL;
}

uint32_t xi_http_count(const struct xi_http_stream *s, const char *name)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < s->n_headers; i++)
        n += strcmp(s->headers[i].name, name) == 0;
    return n;
}

int xi_http_has_token(const char *value, const char *token)
{
    size_t n = strlen(token);

    while (*value) {
        value += strspn(value, " \t,");
        size_t len = strcspn(value, ",");
        size_t used = len;
        while (used > 0 && (value[used - 1] == ' ' || value[used - 1] == '\t'))
            used--;
        if (used == n && strncasecmp(value, token, n) == 0)
            return 1;
        value += len;
    }
    return 0;
}

/* "gzip;q=0": never that one (RFC 9110, 12.4.2). */
static int weighs_nothing(const char *p, const char *end)
{
    p += strspn(p, " \t");
    if (*p != ';')
        return 0;
    p += 1 + strspn(p + 1, " \t");
    return (*p == 'q' || *p == 'Q') && p[1] == '=' && p + strcspn(p, "123456789") >= end;
}

int xi_http_accepts_coding(const char *value, const char *coding)
{
    size_t n = strlen(coding);

    while (*value) {
        value += strspn(value, " \t,");
        const char *end = value + strcspn(value, ",");
        if (strcspn(value, " \t,;") == n && strncasecmp(value, coding, n) == 0)
            return !weighs_nothing(value + n, end);
        value = end;
    }
    return 0;
}

void xi_http_media_type(const char *value, char *ret, size_t room)
{
    value += strspn(value, " \t");
    size_t n = strcspn(value, ";, \t");

    if (n >= room)
        n = 0;
    for (size_t i = 0; i < n; i++)
        ret[i] = (char)(value[i] >= 'A' && value[i] <= 'Z' ? value[i] + 32 : value[i]);
    ret[n] = '\0';
}

static int hex(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

enum xi_rc xi_http_percent_decode(const char *text, size_t n, char *ret, size_t room,
                                  struct xi_err *err)
{
    size_t len = 0;

    for (size_t i = 0; i < n; i++) {
        char c = text[i];
        if (c == '%') {
            int hi = i + 2 < n ? hex(text[i + 1]) : -1;
            int lo = i + 2 < n ? hex(text[i + 2]) : -1;
            if (hi < 0 || lo < 0)
                return xi_fail(err, XI_EINVAL, "broken %%-escape in the path");
            c = (char)(hi * 16 + lo);
            i += 2;
        }
        if (c == '\0')
            return xi_fail(err, XI_EINVAL, "NUL in the path");
        if (len + 1 >= room)
            return xi_fail(err, XI_EINVAL, "path segment longer than %zu characters", room - 1);
        ret[len++] = c;
    }
    ret[len] = '\0';
    return XI_OK;
}

const char *xi_http_reason(int status)
{
    static const struct {
        int status;
        const char *text;
    } known[] = {
        {100, "Continue"},
        {200, "OK"},
        {201, "Created"},
        {202, "Accepted"},
        {204, "No Content"},
        {400, "Bad Request"},
        {401, "Unauthorized"},
        {403, "Forbidden"},
        {404, "Not Found"},
        {405, "Method Not Allowed"},
        {408, "Request Timeout"},
        {409, "Conflict"},
        {410, "Gone"},
        {413, "Content Too Large"},
        {415, "Unsupported Media Type"},
        {422, "Unprocessable Content"},
        {429, "Too Many Requests"},
        {431, "Request Header Fields Too Large"},
        {499, "Client Closed Request"},
        {500, "Internal Server Error"},
        {502, "Bad Gateway"},
        {503, "Service Unavailable"},
        {504, "Gateway Timeout"},
        {507, "Insufficient Storage"},
    };

    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (known[i].status == status)
            return known[i].text;
    return "Unknown";
}
