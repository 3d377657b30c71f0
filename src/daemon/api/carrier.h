/* carrier.h: what carries an exchange to its client and back: a request of an HTTP/1.1 connection
 * or a stream of an HTTP/2 one. Loop thread; private to this room. Handlers never see it: they call
 * exchange.h. After any of these calls the client may have gone (x->carrier NULL). */
#ifndef XI_DAEMON_API_CARRIER_H
#define XI_DAEMON_API_CARRIER_H

#include "daemon/api/exchange.h"

struct xi_carrier {
    /* The whole answer: x->status, the lines in x->extra, x->pieces behind the first one. It lets
     * go of x when they are out. type NULL: no body. */
    void (*answer)(struct xi_exchange *x, const char *type, uint64_t length);
    /* An answer whose length nobody knows: its head, copies of bytes as they come, its end. What
     * is given is added to x->events.given_bytes. */
    void (*begin)(struct xi_exchange *x, const char *type);
    void (*copy)(struct xi_exchange *x, const void *bytes, size_t n);
    /* Or bytes as they lie: send->left and ->x are set. NULL: it knows no trailers, so no parts. */
    void (*send)(struct xi_exchange *x, struct xi_send *send);
    void (*end)(struct xi_exchange *x, const char *trailers); /* NULL: none */
    /* Bytes of it that were given and have not left yet. */
    size_t (*waiting)(const struct xi_exchange *x);
    void (*welcome)(struct xi_exchange *x); /* 100 Continue */
    void (*resume)(struct xi_exchange *x);  /* the body was un-paused */
};

#endif
