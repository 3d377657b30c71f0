#define _GNU_SOURCE
#include "daemon/api/gate.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include "base/name.h"

const char *xi_role_name(enum xi_role role)
{
    static const char *const names[] = {"public", "infer", "control", "admin"};

    return names[role];
}

static int parse_role(const char *text, enum xi_role *ret)
{
    for (int r = XI_ROLE_INFER; r <= XI_ROLE_ADMIN; r++)
        if (strcmp(text, xi_role_name((enum xi_role)r)) == 0) {
            *ret = (enum xi_role)r;
            return 0;
        }
    return -1;
}

/* "hash tenant role"; 0, or -1 when it is none. */
static int parse_line(char *line, struct xi_token *ret)
{
    char *save = NULL, *word[4];
    int n = 0;

    for (char *w = strtok_r(line, " \t\r\n", &save); w && n < 4;
         w = strtok_r(NULL, " \t\r\n", &save))
        word[n++] = w;
    if (n != 3 || xi_digest_parse(word[0], &ret->digest) != 0 || !xi_name_valid(word[1]) ||
        parse_role(word[2], &ret->who.role) != 0)
        return -1;
    (void)snprintf(ret->who.tenant, sizeof ret->who.tenant, "%s", word[1]);
    return 0;
}

static enum xi_rc read_tokens(struct xi_gate *gate, FILE *f, const char *name, struct xi_err *err)
{
    char line[512];

    for (unsigned number = 1; fgets(line, sizeof line, f) != NULL; number++) {
        size_t start = strspn(line, " \t\r\n");
        if (line[start] == '\0' || line[start] == '#')
            continue;
        if (gate->n_tokens == XI_TOKENS_MAX)
            return xi_fail(err, XI_ECONFIG, "%.80s: more than %d tokens", name, XI_TOKENS_MAX);
        if (parse_line(line, &gate->tokens[gate->n_tokens]) != 0)
            return xi_fail(err, XI_ECONFIG,
                           "%.80s line %u: wanted is \"<sha256 of the token> <tenant> "
                           "<infer|control|admin>\"",
                           name, number);
        gate->n_tokens++;
    }
    return XI_OK;
}

enum xi_rc xi_gate_init(struct xi_gate *gate, const char *token_file, struct xi_err *err)
{
    struct stat st;
    enum xi_rc rc;
    FILE *f;

    gate->tokens = NULL;
    gate->n_tokens = 0;
    gate->need_token = *token_file != '\0';
    if (!gate->need_token)
        return XI_OK;
    f = fopen(token_file, "re");
    if (f == NULL)
        return xi_fail(err, XI_ECONFIG, "token file %.100s cannot be read", token_file);
    if (fstat(fileno(f), &st) != 0 || (st.st_mode & 077) != 0) {
        rc = xi_fail(err, XI_ECONFIG, "token file %.100s may be read by others", token_file);
        (void)xi_hint(err, "chmod 600 %.100s", token_file);
        goto out;
    }
    gate->tokens = calloc(XI_TOKENS_MAX, sizeof *gate->tokens);
    rc = gate->tokens == NULL ? xi_fail(err, XI_ENOMEM, "no memory for tokens")
                              : read_tokens(gate, f, token_file, err);
out:
    (void)fclose(f);
    if (rc != XI_OK)
        xi_gate_fini(gate);
    return rc;
}

void xi_gate_fini(struct xi_gate *gate)
{
    free(gate->tokens);
    gate->tokens = NULL;
    gate->n_tokens = 0;
}

/* 127.0.0.0/8 written as four plain numbers. */
static int is_loopback_v4(const char *host)
{
    int parts = 0;

    if (strncmp(host, "127.", 4) != 0)
        return 0;
    for (const char *p = host; *p; parts++) {
        size_t n = strspn(p, "0123456789");
        if (n == 0 || n > 3 || strtol(p, NULL, 10) > 255)
            return 0;
        p += n;
        if (*p == '.' && p[1] != '\0')
            p++;
        else if (*p != '\0')
            return 0;
    }
    return parts == 4;
}

/* The host without its port, lower-case; -1 when it is malformed. */
static int bare_host(const char *value, char *ret, size_t room)
{
    size_t n = *value == '[' ? strcspn(value, "]") + 1 : strcspn(value, ":");
    const char *port = value + n;

    if (n == 0 || n >= room || (*value == '[' && value[n - 1] != ']'))
        return -1;
    if (*port == ':' && strspn(port + 1, "0123456789") != strlen(port + 1))
        return -1;
    if (*port != ':' && *port != '\0')
        return -1;
    for (size_t i = 0; i < n; i++)
        ret[i] = (char)(value[i] >= 'A' && value[i] <= 'Z' ? value[i] + 32 : value[i]);
    ret[n] = '\0';
    return 0;
}

int xi_gate_host_ok(const struct xi_gate *gate, const char *value)
{
    char host[260];

    if (value == NULL || bare_host(value, host, sizeof host) != 0)
        return 0;
    if (strcmp(host, "localhost") == 0 || strcmp(host, "[::1]") == 0 || is_loopback_v4(host))
        return 1;
    for (uint32_t i = 0; i < gate->n_allowed_hosts; i++)
        if (strcasecmp(gate->allowed_hosts[i], host) == 0 ||
            strcasecmp(gate->allowed_hosts[i], value) == 0)
            return 1;
    return 0;
}

static int origin_ok(const struct xi_gate *gate, const char *origin, const char *host)
{
    const char *rest = strncmp(origin, "http://", 7) == 0    ? origin + 7
                       : strncmp(origin, "https://", 8) == 0 ? origin + 8
                                                             : NULL;

    if (rest != NULL && host != NULL && strcasecmp(rest, host) == 0)
        return 1;
    for (uint32_t i = 0; i < gate->n_allowed_origins; i++)
        if (strcasecmp(gate->allowed_origins[i], origin) == 0)
            return 1;
    return 0;
}

enum xi_rc xi_gate_origin(const struct xi_gate *gate, const struct xi_http_stream *s,
                          int over_socket, struct xi_err *err)
{
    const char *origin = xi_http_header(s, "origin");
    const char *site = xi_http_header(s, "sec-fetch-site");

    if (!over_socket && !xi_gate_host_ok(gate, s->host)) {
        (void)xi_fail(err, XI_EHOSTNAME, "Host \"%.80s\" is not one of this server's names",
                      s->host ? s->host : "");
        return xi_hint(err, "use 127.0.0.1 or localhost, or add the name to allowed_hosts");
    }
    for (uint32_t i = 0; i < s->n_headers; i++)
        if (strcmp(s->headers[i].name, "origin") == 0 &&
            !origin_ok(gate, s->headers[i].value, s->host)) {
            (void)xi_fail(err, XI_EORIGIN, "origin \"%.80s\" may not use this server",
                          s->headers[i].value);
            return xi_hint(err, "add it to allowed_origins if that page is yours");
        }
    if (origin == NULL && site != NULL && strcasecmp(site, "cross-site") == 0)
        return xi_fail(err, XI_EORIGIN, "another site's page may not use this server");
    return XI_OK;
}

/* Looks at every token, so that the time says nothing about which one was near. */
static const struct xi_token *find_token(const struct xi_gate *gate, const char *secret)
{
    const struct xi_token *found = NULL;
    struct xi_digest digest;

    xi_sha256(secret, strlen(secret), &digest);
    for (uint32_t i = 0; i < gate->n_tokens; i++) {
        uint8_t differs = 0;
        for (size_t b = 0; b < sizeof digest.bytes; b++)
            differs |= (uint8_t)(digest.bytes[b] ^ gate->tokens[i].digest.bytes[b]);
        if (differs == 0)
            found = &gate->tokens[i];
    }
    return found;
}

static enum xi_rc authenticate(const struct xi_gate *gate, const struct xi_http_stream *s,
                               enum xi_role door, struct xi_identity *ret, struct xi_err *err)
{
    const char *value = xi_http_header(s, "authorization");

    *ret = (struct xi_identity){.role = door, .tenant = "default"};
    if (value == NULL)
        return XI_OK;
    if (!gate->need_token)
        return XI_OK; /* no token is known here, so none can be wrong */
    if (strncasecmp(value, "Bearer ", 7) != 0)
        return xi_fail(err, XI_EAUTH, "Authorization: only Bearer is known");
    const struct xi_token *token = find_token(gate, value + 7 + strspn(value + 7, " "));
    if (token == NULL)
        return xi_fail(err, XI_EAUTH, "this token is not known here");
    *ret = token->who;
    return XI_OK;
}

static enum xi_rc refuse(const struct xi_gate *gate, enum xi_role have, enum xi_role need,
                         struct xi_err *err)
{
    if (have == XI_ROLE_PUBLIC && gate->need_token) {
        (void)xi_fail(err, XI_EAUTH, "this route needs a token of role %s", xi_role_name(need));
        return xi_hint(err, "send \"Authorization: Bearer TOKEN\"");
    }
    if (!gate->need_token) {
        (void)xi_fail(err, XI_EFORBIDDEN, "this route needs role %s, callers like you have %s",
                      xi_role_name(need), xi_role_name(have));
        return xi_hint(err, "use the Unix socket as root or as a member of the group that "
                            "administers this daemon (usually xinfer)");
    }
    return xi_fail(err, XI_EFORBIDDEN, "this route needs role %s, the token has %s",
                   xi_role_name(need), xi_role_name(have));
}

enum xi_rc xi_gate_identify(const struct xi_gate *gate, const struct xi_http_stream *s,
                            enum xi_role door, enum xi_role need, struct xi_identity *ret,
                            struct xi_err *err)
{
    const char *tenant = xi_http_header(s, "xinfer-tenant");
    enum xi_rc rc = authenticate(gate, s, door, ret, err);

    if (rc != XI_OK)
        return rc;
    if (ret->role < need)
        return refuse(gate, ret->role, need, err);
    if (tenant == NULL || strcmp(tenant, ret->tenant) == 0)
        return XI_OK;
    if (ret->role != XI_ROLE_ADMIN)
        return xi_fail(err, XI_EFORBIDDEN, "only an administrator may name a tenant");
    rc = xi_name_check(tenant, "Xinfer-Tenant", err);
    if (rc == XI_OK)
        (void)snprintf(ret->tenant, sizeof ret->tenant, "%s", tenant);
    return rc;
}
