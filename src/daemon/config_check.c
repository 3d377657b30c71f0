#define _GNU_SOURCE
#include <errno.h>
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <uv.h>

#include "daemon/config_impl.h"

static enum xi_rc no_address(const char *listen, const char *why, struct xi_err *err)
{
    (void)xi_fail(err, XI_ECONFIG, "listen \"%.100s\": %s", listen, why);
    (void)xi_hint(err, "ADDRESS:PORT, as in 127.0.0.1:9470, 0.0.0.0:9470 or [::1]:9470");
    return XI_ECONFIG;
}

static enum xi_rc parse_port(const char *listen, const char *text, uint16_t *ret,
                             struct xi_err *err)
{
    char *rest;
    long port = strtol(text, &rest, 10);

    if (text[0] < '0' || text[0] > '9' || *rest || port > 65535)
        return no_address(listen, "the port must be 0 to 65535", err);
    *ret = (uint16_t)port;
    return XI_OK;
}

/* Loopback or not; -1: not an address. */
static int kind_of_host(const char *host)
{
    unsigned char bytes[16];
    static const unsigned char one[16] = {[15] = 1};
    static const unsigned char mapped[12] = {[10] = 0xff, [11] = 0xff};

    if (strcmp(host, "localhost") == 0)
        return 1;
    if (uv_inet_pton(AF_INET, host, bytes) == 0)
        return bytes[0] == 127;
    if (uv_inet_pton(AF_INET6, host, bytes) == 0)
        return memcmp(bytes, one, sizeof one) == 0 ||
               (memcmp(bytes, mapped, sizeof mapped) == 0 && bytes[12] == 127);
    return -1;
}

enum xi_rc xi_config_listen(const char *listen, struct xi_listen *ret, struct xi_err *err)
{
    struct xi_listen l = {.port = 0};
    const char *colon = strrchr(listen, ':'), *first = listen;

    if (colon == NULL)
        return no_address(listen, "no port", err);
    size_t n = (size_t)(colon - listen);
    if (listen[0] == '[' && n >= 2 && colon[-1] == ']') {
        first++;
        n -= 2;
    } else if (memchr(listen, ':', n) != NULL) {
        return no_address(listen, "an IPv6 address stands in brackets", err);
    }
    if (n >= sizeof l.host)
        return no_address(listen, "the address is too long", err);
    memcpy(l.host, first, n);
    enum xi_rc rc = parse_port(listen, colon + 1, &l.port, err);
    if (rc != XI_OK)
        return rc;
    int kind = kind_of_host(l.host);
    if (kind < 0)
        return no_address(listen, "this is no address", err);
    l.loopback = kind;
    *ret = l;
    return XI_OK;
}

static enum xi_rc bad_token_file(const char *path, const char *why, const char *fix,
                                 struct xi_err *err)
{
    (void)xi_fail(err, XI_ECONFIG, "token file %.100s: %s", path, why);
    (void)xi_hint(err, "%s", fix);
    return XI_ECONFIG;
}

static enum xi_rc check_token_file(const char *path, struct xi_err *err)
{
    struct stat st;

    if (stat(path, &st) != 0)
        return bad_token_file(path, strerror(errno), "make it with mode 0600", err);
    if (!S_ISREG(st.st_mode))
        return bad_token_file(path, "no plain file", "name a file of mode 0600", err);
    if (st.st_uid != geteuid() && st.st_uid != 0)
        return bad_token_file(path, "it belongs to another user", "chown it to this user", err);
    if ((st.st_mode & 0177) != 0) {
        char why[64];
        (void)snprintf(why, sizeof why, "its mode is %04o, others may use it",
                       (unsigned)st.st_mode & 07777);
        return bad_token_file(path, why, "chmod 600 it", err);
    }
    return XI_OK;
}

static enum xi_rc check_listen(const struct xi_config *c, struct xi_err *err)
{
    struct xi_listen l;

    if (c->listen[0] == '\0')
        return XI_OK;
    enum xi_rc rc = xi_config_listen(c->listen, &l, err);
    if (rc != XI_OK || l.loopback || c->token_file[0])
        return rc;
    (void)xi_fail(err, XI_ECONFIG,
                  "listen %.100s is open to the network, and nothing says who may "
                  "call",
                  c->listen);
    (void)xi_hint(err, "give --token-file FILE (mode 0600), or listen on 127.0.0.1");
    return XI_ECONFIG;
}

static enum xi_rc check_programs(const struct xi_config *c, struct xi_err *err)
{
    if (c->host_program[0] == '\0' || access(c->host_program, X_OK) != 0) {
        (void)xi_fail(err, XI_ECONFIG, "no program xinfer-host %s%.100s",
                      c->host_program[0] ? "at " : "beside this one", c->host_program);
        (void)xi_hint(err, "install xInfer whole, or name it with host_program in the file");
        return XI_ECONFIG;
    }
    if (c->openvino_dir[0] && access(c->openvino_dir, X_OK) != 0)
        return xi_fail(err, XI_ECONFIG, "openvino_dir %.100s: %s", c->openvino_dir,
                       strerror(errno));
    return XI_OK;
}

enum xi_rc xi_config_group(const struct xi_config *c, uint32_t *ret, struct xi_err *err)
{
    struct group group, *found = NULL;
    char text[16 * 1024];

    if (getgrnam_r(c->admin_group, &group, text, sizeof text, &found) != 0 || found == NULL) {
        (void)xi_fail(err, XI_ECONFIG, "admin_group: there is no group \"%s\"", c->admin_group);
        return xi_hint(err, "make it: addgroup --system %s", c->admin_group);
    }
    *ret = found->gr_gid;
    return XI_OK;
}

enum xi_rc xi_config_check(const struct xi_config *c, struct xi_err *err)
{
    enum xi_rc rc = check_listen(c, err);

    if (rc == XI_OK && c->token_file[0])
        rc = check_token_file(c->token_file, err);
    if (rc == XI_OK && c->admin_group[0]) {
        uint32_t group;
        rc = xi_config_group(c, &group, err);
    }
    if (rc == XI_OK && c->listen[0] == '\0' && c->socket[0] == '\0')
        rc = xi_fail(err, XI_ECONFIG, "neither listen nor socket: nobody could call");
    if (rc == XI_OK && c->state_dir[0] == '\0')
        rc = xi_fail(err, XI_ECONFIG, "no state directory");
    return rc == XI_OK ? check_programs(c, err) : rc;
}
