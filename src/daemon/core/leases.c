#include "daemon/core/leases.h"

#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "daemon/core/session_manager.h"

void xi_leases_fini(struct xi_leases *l)
{
    free(l->all);
    *l = (struct xi_leases){0};
}

static enum xi_rc grow(struct xi_leases *l, struct xi_err *err)
{
    uint32_t cap = l->cap == 0 ? 16 : l->cap * 2;
    struct xi_lease *all;

    if (l->n == XI_LEASES_MAX)
        return xi_fail(err, XI_EAGAIN, "%u leases are held, no more may be", l->n);
    all = realloc(l->all, cap * sizeof(*all));
    if (all == NULL)
        return xi_fail(err, XI_ENOMEM, "no memory for another lease");
    l->all = all;
    l->cap = cap;
    return XI_OK;
}

enum xi_rc xi_leases_add(struct xi_leases *l, struct xi_session *session, uint64_t expires_ms,
                         const struct xi_lease **ret, struct xi_err *err)
{
    enum xi_rc rc = l->n == l->cap ? grow(l, err) : XI_OK;

    if (rc != XI_OK)
        return rc;
    l->all[l->n] = (struct xi_lease){.session = session, .expires_ms = expires_ms};
    xi_uuid_new(l->all[l->n].id);
    session->leases++;
    *ret = &l->all[l->n++];
    return XI_OK;
}

struct xi_lease *xi_leases_find(struct xi_leases *l, const char *id)
{
    uint32_t i;

    for (i = 0; i < l->n; i++) {
        if (strcmp(l->all[i].id, id) == 0)
            return &l->all[i];
    }
    return NULL;
}

void xi_leases_end(struct xi_leases *l, struct xi_lease *lease)
{
    lease->session->leases--;
    *lease = l->all[--l->n];
}

uint32_t xi_leases_expire(struct xi_leases *l, uint64_t now_ms)
{
    uint32_t i = 0, ended = 0;

    while (i < l->n) {
        if (l->all[i].expires_ms <= now_ms) {
            xi_leases_end(l, &l->all[i]);
            ended++;
        } else {
            i++;
        }
    }
    return ended;
}

void xi_leases_hand_over(struct xi_leases *l, struct xi_session *from, struct xi_session *to)
{
    uint32_t i = 0;

    while (from->leases > 0 && i < l->n) {
        if (l->all[i].session != from) {
            i++;
        } else if (to == NULL) {
            xi_leases_end(l, &l->all[i]);
        } else {
            l->all[i++].session = to;
            from->leases--;
            to->leases++;
        }
    }
}
