/* documents.h: answers that grow with what is loaded are written in slices, so that no turn of
 * the loop is long. Loop thread; private to this room.
 *
 * What a document tells of the sessions is true at the moment each is written: figures of two
 * sessions may be a few turns apart, those of one never. */
#ifndef XI_DAEMON_API_DOCUMENTS_H
#define XI_DAEMON_API_DOCUMENTS_H

#include <stdint.h>
#include <uv.h>

#include "base/str.h"

#define XI_DOCUMENT_SLICE_NS 300000ull

struct xi_exchange;
struct xi_session;
struct xi_http_server;

/* Embedded in the caller's job. */
struct xi_document {
    struct xi_document *next;
    struct xi_http_server *server;
    struct xi_str text;
    struct xi_session **sessions; /* n_sessions, a reference on each; NULL: memory was out */
    uint32_t n_sessions;
    unsigned part; /* write()'s own: where it is */
    uint64_t at;
    uint64_t began_ms;
    /* Writes a little (some microseconds). 1: there is more. */
    int (*write)(struct xi_document *d);
    /* It is complete, or, when text.failed, never will be. Ends in xi_document_fini. May come from
     * inside xi_document_start. */
    void (*done)(struct xi_document *d);
};

struct xi_documents {
    uv_idle_t idle;
    struct xi_document *first, **tail;
};

void xi_documents_init(struct xi_documents *all, uv_loop_t *loop, void *ctx);
/* Cuts what is under way short; closed is called for the handle. */
void xi_documents_close(struct xi_documents *all, uv_close_cb closed);

/* write and done are set. tenant: whose sessions it may tell of; NULL: all. Short ones are done
 * when this returns. */
void xi_document_start(struct xi_http_server *server, struct xi_document *d, const char *tenant);
/* The same, begun with the loop's next turn. */
void xi_document_queue(struct xi_http_server *server, struct xi_document *d, const char *tenant);
/* What `done` does when the document is an answer: answers x with it, or with ENOMEM, and fini. */
void xi_document_answer(struct xi_document *d, struct xi_exchange *x, const char *type);
void xi_document_fini(struct xi_document *d);
/* The next session that is not gone, from d->at on; NULL: that was the last. */
struct xi_session *xi_document_session(struct xi_document *d);

/* The tenant whose things this client may see; NULL: all tenants' (an administrator who named
 * none). */
const char *xi_sees(const struct xi_exchange *x);

#endif
