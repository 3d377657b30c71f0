/* gate.h: who may come in. Every request passes here before anything of it is acted on. */
#ifndef XI_DAEMON_API_GATE_H
#define XI_DAEMON_API_GATE_H

#include "base/hash.h"
#include "base/limits.h"
#include "base/status.h"
#include "wire/http.h"

enum xi_role { XI_ROLE_PUBLIC = 0, XI_ROLE_INFER, XI_ROLE_CONTROL, XI_ROLE_ADMIN };
const char *xi_role_name(enum xi_role role);

struct xi_identity {
    enum xi_role role;
    char tenant[XI_NAME_MAX + 1];
};

struct xi_token {
    struct xi_digest digest; /* SHA-256 of the bearer token */
    struct xi_identity who;
};

#define XI_TOKENS_MAX 1024

/* Read once at start, then only looked at. */
struct xi_gate {
    struct xi_token *tokens;
    uint32_t n_tokens;
    int need_token; /* a token file is configured */
    /* What a caller without a token may do, unless the Unix socket says that it is an
     * administrator. PUBLIC where tokens are configured. */
    enum xi_role anonymous;
    const char (*allowed_hosts)[128];
    const char (*allowed_origins)[128];
    uint32_t n_allowed_hosts, n_allowed_origins;
};

/* Lines "sha256-hex tenant role"; empty lines and # comments are passed over. ECONFIG names the
 * line; a file that others may read is refused. "" : no tokens. */
enum xi_rc xi_gate_init(struct xi_gate *gate, const char *token_file,
                        struct xi_err *err) XI_MUST_CHECK;
void xi_gate_fini(struct xi_gate *gate);

/* Is this Host value (any port) this machine's own loopback, or one the configuration allows? */
int xi_gate_host_ok(const struct xi_gate *gate, const char *host);
/* EHOSTNAME, EORIGIN. over_socket: the Unix socket, where any Host will do. */
enum xi_rc xi_gate_origin(const struct xi_gate *gate, const struct xi_http_stream *s,
                          int over_socket, struct xi_err *err) XI_MUST_CHECK;
/* Who asks. door: what the connection alone gives, ADMIN or gate->anonymous. EAUTH for an unknown
 * token or a missing one that `need` wants, EFORBIDDEN when the role is too small or a tenant is
 * named by somebody who may not. */
enum xi_rc xi_gate_identify(const struct xi_gate *gate, const struct xi_http_stream *s,
                            enum xi_role door, enum xi_role need, struct xi_identity *ret,
                            struct xi_err *err) XI_MUST_CHECK;

#endif
