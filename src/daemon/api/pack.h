/* pack.h: an answer that leaves compressed, because the client asked for it and it is worth it:
 * small ones on the loop, larger ones on a worker. Loop thread. */
#ifndef XI_DAEMON_API_PACK_H
#define XI_DAEMON_API_PACK_H

#include "daemon/api/exchange.h"

/* How the answer in x->pieces should leave; length: bytes of it. */
enum xi_coding xi_pack_wanted(const struct xi_exchange *x, const char *type, uint64_t length);
/* Hands it to the carrier then, now or later. type: a literal. The exchange may be gone. */
void xi_pack_answer(struct xi_exchange *x, enum xi_coding coding, const char *type,
                    uint64_t length);

#endif
