/* response_cache.h: answers that are given again to equal inputs. Of one session; off unless its
 * options say cache_bytes. Loop thread, no I/O.
 *
 * An answer is copied out of its host's memory once, when it is kept. The copy is a segment of its
 * own, so that an answer that is being written to a socket outlives its place in the cache. What
 * was not used for longest leaves first; the limit counts copies and bookkeeping. */
#ifndef XI_DAEMON_CORE_RESPONSE_CACHE_H
#define XI_DAEMON_CORE_RESPONSE_CACHE_H

#include <stdint.h>

#include "base/hash.h"
#include "daemon/ipc/host_link.h"

struct xi_response_cache;

/* What is asked: all inputs with their types and shapes, and what answer is wanted. */
struct xi_cache_key {
    struct xi_digest inputs;
    uint32_t want;
};

struct xi_response_cache *xi_cache_new(uint64_t limit_bytes); /* NULL: memory is out */
void xi_cache_free(struct xi_response_cache *c);              /* NULL is fine */
void xi_cache_clear(struct xi_response_cache *c);             /* the same */
/* 1: *ret is the answer, to be released like any other. */
int xi_cache_get(struct xi_response_cache *c, const struct xi_cache_key *key, struct xi_reply *ret);
/* Keeps a copy of an answer, unless it is over XI_CACHE_ANSWER_MAX, known, or memory is out. */
void xi_cache_put(struct xi_response_cache *c, const struct xi_cache_key *key,
                  const struct xi_reply *reply);
uint64_t xi_cache_bytes(const struct xi_response_cache *c); /* of NULL: 0 */

#endif
