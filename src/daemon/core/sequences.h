/* sequences.h: requests that belong together: a stream of sound, a conversation. Loop thread.
 *
 * A sequence is a line of requests to one session: the first in the line has its turn, the others
 * wait (XI_REQ_ORDERED) until it has been answered. Where the model keeps state in tensors, the
 * sequence owns them: two places, state n is read by the request whose turn it is, state n + 1 is
 * written beside it when the answer is there. So a host may die at any moment: the request goes
 * to the next one with the same state n. Where the state is hidden in the engine, the sequence is
 * lost with its host.
 *
 * One rule holds for everything that fails: a request that was not answered with success has not
 * happened, the next one goes on from the same state. Only a request that should have begun the
 * sequence leaves none behind; what follows is refused with ESEQUENCE until one with `start`
 * succeeds.
 *
 * Knows neither time (it is passed in) nor the pool, which asks in this order:
 * join (the protocol, before submit) → enter → turn? → begin → commit → leave. */
#ifndef XI_DAEMON_CORE_SEQUENCES_H
#define XI_DAEMON_CORE_SEQUENCES_H

#include <stdint.h>

#include "daemon/core/request.h"
#include "daemon/core/session_manager.h"

enum { XI_SEQUENCE_START = 1, XI_SEQUENCE_END = 2 };

/* What a client says: "ID[;start][;end]". */
struct xi_sequence_ask {
    char id[XI_SEQUENCE_ID_MAX + 1]; /* "": no sequence */
    unsigned flags;
};
/* EINVAL. */
enum xi_rc xi_sequence_parse(const char *text, struct xi_sequence_ask *ret,
                             struct xi_err *err) XI_MUST_CHECK;
/* Spreads sequences over sessions: the same for the same tenant and id. */
uint64_t xi_sequence_hash(const char *tenant, const char *id);

/* Finds or makes the sequence of a NEW request; it belongs to it until it is finished. ESEQUENCE:
 * no such sequence and no `start`, where there is state; EAGAIN, EQUOTA, EUNSUPPORTED, ENOMEM. */
enum xi_rc xi_sequence_join(struct xi_shm *shm, struct xi_request *req,
                            const struct xi_sequence_ask *ask, struct xi_err *err) XI_MUST_CHECK;

/* ---- the pool's side; req->sequence is not NULL but where it says so ---- */

void xi_sequence_enter(struct xi_request *req); /* to the end of the line */
int xi_sequence_turn(const struct xi_request *req);
/* Its turn has come: appends state n to its parts. Once per request. ESEQUENCE, ETENSOR. */
enum xi_rc xi_sequence_begin(struct xi_request *req, struct xi_err *err) XI_MUST_CHECK;
/* For the work record, of any request: XI_WORK_START where the model is to begin anew. */
uint32_t xi_sequence_work_flags(const struct xi_request *req);
/* Where its state tensors lie; NULL when it has none. Of any request. */
struct xi_slot *xi_sequence_slot(const struct xi_request *req);
/* A successful reply, of any request: the last done.n_state parts become state n + 1 and leave the
 * reply. EENGINE: they are not what the model said; EAGAIN, EQUOTA, ENOMEM: no room for them. */
enum xi_rc xi_sequence_commit(struct xi_request *req, struct xi_reply *reply,
                              struct xi_err *err) XI_MUST_CHECK;
/* The request is finished with rc. The one whose turn it is then, or NULL. */
struct xi_request *xi_sequence_leave(struct xi_request *req, enum xi_rc rc, uint64_t now_ms);
/* What an ESEQUENCE says. */
enum xi_rc xi_sequence_lost(const struct xi_request *req, struct xi_err *err);

/* ---- of a session ---- */

/* A model with hidden state lost its host: every sequence is to begin anew. */
void xi_sequences_host_gone(struct xi_session *s);
/* Ends those that nobody asked for options.sequence_idle_s. */
void xi_sequences_expire(struct xi_session *s, uint64_t now_ms);
/* Nobody waits in any of them. s->sequences is NULL afterwards. */
void xi_sequences_free(struct xi_session *s);
/* 1: the session has this sequence, so its requests must come here. */
int xi_sequences_has(const struct xi_session *s, const char *tenant, const char *id);

struct xi_sequences_stats {
    uint32_t open;    /* sequences */
    uint32_t waiting; /* requests behind an earlier one of theirs */
    uint64_t state_bytes, begun, ended, expired, lost;
};
void xi_sequences_stats(const struct xi_session *s, struct xi_sequences_stats *ret);

#endif
