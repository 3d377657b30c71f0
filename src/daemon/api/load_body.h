/* load_body.h: what a load may ask for, read from its JSON. Loop thread, no I/O. */
#ifndef XI_DAEMON_API_LOAD_BODY_H
#define XI_DAEMON_API_LOAD_BODY_H

#include <jansson.h>

#include "daemon/api/exchange.h"

struct xi_load_body {
    struct xi_load_request request; /* its package points at `package` */
    char package[XI_NAME_MAX + 80];
    int dry_run;
};

/* EINVAL names the key (and the nearest known one); EFORBIDDEN: another tenant's. */
enum xi_rc xi_load_body_read(const struct xi_exchange *x, const json_t *obj,
                             struct xi_load_body *ret, struct xi_err *err) XI_MUST_CHECK;

/* Keys that other control bodies have too. ret is left alone when the key is absent. */
enum xi_rc xi_body_text_of(const json_t *obj, const char *path, const char *key, int required,
                           char *ret, size_t room, struct xi_err *err) XI_MUST_CHECK;
/* "tenant", which only an administrator may say; else the client's own. */
enum xi_rc xi_body_tenant(const struct xi_exchange *x, const json_t *obj, char ret[XI_NAME_MAX + 1],
                          struct xi_err *err) XI_MUST_CHECK;

#endif
