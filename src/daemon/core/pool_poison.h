/* pool_poison.h: poison, and answers that are in the cache: both go by the fingerprint of the
 * inputs. Loop thread. */
#ifndef XI_DAEMON_CORE_POOL_POISON_H
#define XI_DAEMON_CORE_POOL_POISON_H

#include "daemon/core/pool_private.h"

/* 1: the request is being checked, or was answered or refused (done called). 0: go on. */
int xi_poison_check(struct xi_queue *q, struct xi_request *req);
/* Takes the fingerprint, then answers EINCIDENT. */
void xi_poison_convict(struct xi_queue *q, struct xi_request *req, const char *reason);
void xi_check_drop(struct xi_request *req); /* the request leaves while CHECKING */
/* Goes on with a request that turned out to be harmless. */
void xi_pool_enqueue(struct xi_queue *q, struct xi_request *req);

#endif
