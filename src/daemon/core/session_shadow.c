/* Copies of requests for a session that is on trial. A copy refers to the same slot: its bytes are
 * sealed against the host and its slot is counted, so nothing is copied but the description. What
 * lies in a client's own memory is not copied: the client may change it once it has its answer. */
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "daemon/core/session_private.h"
#include "daemon/core/session_swap.h"

#define COPIES_MAX 8u /* under way at once; requests beyond that are not copied */

struct copy {
    struct xi_request req;
    struct xi_shadow *shadow;
    struct copy *next; /* free ones */
};

struct xi_shadow {
    struct xi_swap *swap; /* NULL: it is over */
    unsigned refs;        /* the swap's, and one for each copy under way */
    struct copy *free;
    struct copy copies[COPIES_MAX];
};

struct xi_shadow *xi_shadow_new(struct xi_swap *swap)
{
    struct xi_shadow *shadow = calloc(1, sizeof(*shadow));
    unsigned i;

    if (shadow == NULL)
        return NULL;
    shadow->swap = swap;
    shadow->refs = 1;
    for (i = 0; i < COPIES_MAX; i++) {
        shadow->copies[i].shadow = shadow;
        shadow->copies[i].next = shadow->free;
        shadow->free = &shadow->copies[i];
    }
    return shadow;
}

static void put(struct xi_shadow *shadow)
{
    if (--shadow->refs == 0)
        free(shadow);
}

void xi_shadow_put(struct xi_shadow *shadow)
{
    if (shadow == NULL)
        return;
    shadow->swap = NULL;
    put(shadow);
}

static void on_done(struct xi_request *req, enum xi_rc rc, struct xi_reply *reply,
                    const struct xi_err *err)
{
    struct copy *copy = req->owner;
    struct xi_shadow *shadow = copy->shadow;

    (void)err;
    if (rc == XI_OK)
        xi_reply_release(reply);
    copy->next = shadow->free;
    shadow->free = copy;
    xi_session_leave(req->session);
    put(shadow);
}

/* What says how to run it; not what belongs to the original's way. */
static void fill_in(struct copy *copy, const struct xi_request *from, struct xi_session *to)
{
    struct xi_request *req = &copy->req;

    memset(req, 0, offsetof(struct xi_request, parts));
    memset((char *)req + offsetof(struct xi_request, parts) + sizeof(req->parts), 0,
           sizeof(*req) - offsetof(struct xi_request, parts) - sizeof(req->parts));
    req->id = from->id;
    req->copy = 1;
    req->priority = XI_PRIORITY_BATCH; /* after everything that somebody waits for */
    req->deadline_ns = from->deadline_ns;
    req->session = to;
    memcpy(req->tenant, from->tenant, sizeof(req->tenant));
    req->want = from->want;
    req->slot = from->slot;
    req->n_parts = from->n_parts;
    memcpy(req->parts, from->parts, from->n_parts * sizeof(req->parts[0]));
    req->timing.born = from->timing.born;
    req->done = on_done;
    req->owner = copy;
}

struct xi_request *xi_sessions_mirror(const struct xi_request *from)
{
    const struct xi_named *named = xi_entry_of(from->session)->named;
    struct xi_entry *mirror = named != NULL ? named->mirror : NULL;
    struct xi_shadow *shadow;
    struct copy *copy;

    /* A sequence's state is its session's own: a copy would begin in the middle. */
    if (mirror == NULL || &mirror->s == from->session || from->sequence != NULL ||
        from->loan != NULL || mirror->s.state != XI_SESSION_READY || mirror->swap == NULL)
        return NULL;
    shadow = mirror->swap->shadow;
    copy = shadow->free;
    if (copy == NULL) {
        mirror->swap->view.skipped++;
        return NULL;
    }
    shadow->free = copy->next;
    shadow->refs++;
    fill_in(copy, from, &mirror->s);
    xi_slot_get(copy->req.slot);
    xi_session_get(&mirror->s); /* the request's */
    xi_session_get(&mirror->s); /* as a user */
    mirror->s.users++;
    return &copy->req;
}
