#include <string.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/name.h"
#include "daemon/core/sequences.h"
#include "daemon/core/session_private.h"
#include "daemon/core/session_swap.h"

static enum xi_rc ended(struct xi_sessions *m, const char *id, struct xi_err *err)
{
    const char *successor = xi_sessions_successor(m, id);

    (void)xi_fail(err, XI_EGONE, "session %s has ended", id);
    if (successor != NULL)
        return xi_hint(err, "session %s took its place", successor);
    return XI_EGONE;
}

/* A sequence stays where it is as long as that serves it, whatever the shares are by now. One that
 * begins, or that nobody knows, goes by its hash. */
static int pick(struct xi_named *name, const struct xi_route_ask *ask)
{
    const struct xi_sequence_ask *seq = ask->sequence;
    uint32_t i;

    if (seq == NULL)
        return xi_targets_pick(name->targets, name->n, 0);
    for (i = 0; i < name->n && !(seq->flags & XI_SEQUENCE_START); i++) {
        const struct xi_session *s = &name->targets[i].entry->s;

        if (s->state != XI_SESSION_DRAINING && s->state != XI_SESSION_GONE &&
            s->state != XI_SESSION_FAILED && xi_sequences_has(s, ask->client, seq->id))
            return (int)i;
    }
    return xi_targets_pick(name->targets, name->n, xi_sequence_hash(ask->client, seq->id) | 1);
}

/* Is this the version that is asked for? A bare "2" means 2.0.0. */
static int of_version(const struct xi_session *s, const char *version)
{
    size_t n = strlen(version);

    if (strspn(version, "0123456789") != n)
        return strcmp(s->version, version) == 0;
    return strncmp(s->version, version, n) == 0 && strcmp(s->version + n, ".0.0") == 0;
}

static enum xi_rc no_version(const struct xi_session *s, const char *version, struct xi_err *err)
{
    (void)xi_fail(err, XI_ENOENT, "\"%.60s\" has no version \"%.70s\" loaded", s->name, version);
    return xi_hint(err, "its version is %s", s->version);
}

enum xi_rc xi_sessions_find_version(struct xi_sessions *m, const char *tenant,
                                    const char *name_or_id, const char *version,
                                    struct xi_session **ret, struct xi_err *err)
{
    const struct xi_named *name = xi_names_find(m, tenant != NULL ? tenant : "default", name_or_id);
    enum xi_rc rc = xi_sessions_find(m, tenant, name_or_id, ret, err);

    if (rc != XI_OK || version == NULL || *version == '\0' || of_version(*ret, version))
        return rc;
    for (uint32_t i = 0; name != NULL && i < name->n; i++)
        if (of_version(&name->targets[i].entry->s, version)) {
            *ret = &name->targets[i].entry->s;
            return XI_OK;
        }
    return no_version(*ret, version, err);
}

/* Of the sessions of a name, the one of this version. */
static enum xi_rc pick_version(struct xi_named *name, const char *version, struct xi_entry **ret,
                               struct xi_err *err)
{
    for (uint32_t i = 0; i < name->n; i++)
        if (of_version(&name->targets[i].entry->s, version)) {
            *ret = name->targets[i].entry;
            return XI_OK;
        }
    return no_version(&name->targets[0].entry->s, version, err);
}

/* The entry that a request for this name or id goes to. */
static enum xi_rc choose(struct xi_sessions *m, const struct xi_route_ask *ask,
                         struct xi_entry **ret, struct xi_err *err)
{
    const char *which = ask->name_or_id, *version = ask->version ? ask->version : "";
    struct xi_named *name;
    int at;

    if (xi_uuid_valid(which)) {
        struct xi_entry *e = xi_ids_find(m, which);
        int mine = e != NULL && (ask->tenant == NULL || strcmp(e->s.tenant, ask->tenant) == 0);
        int goes_on = mine && ask->sequence != NULL && e->s.state == XI_SESSION_READY &&
                      xi_sequences_has(&e->s, ask->client, ask->sequence->id);

        if (mine && *version != '\0' && !of_version(&e->s, version))
            return no_version(&e->s, version, err);
        if (mine && (e->s.successor[0] == '\0' || goes_on)) {
            *ret = e;
            return XI_OK;
        }
        if (mine || (e == NULL && xi_ids_ended(m, which)))
            return ended(m, which, err);
    }
    name = xi_names_find(m, ask->tenant != NULL ? ask->tenant : "default", which);
    if (name == NULL)
        return xi_sessions_find(m, ask->tenant, which, &(struct xi_session *){NULL}, err);
    if (*version != '\0')
        return pick_version(name, version, ret, err);
    at = pick(name, ask);
    *ret = name->targets[at < 0 ? 0 : at].entry;
    return XI_OK;
}

/* READY, or it was and will be again: then its signature is known and the queue may hold it. */
static enum xi_rc may_ask(struct xi_entry *e, int *ret_wait, struct xi_err *err)
{
    struct xi_session *s = &e->s;
    int asleep = s->state == XI_SESSION_IDLE;

    if (e->named != NULL && e->named->blocked) {
        *ret_wait = 1;
        return xi_fail(err, XI_EAGAIN, "\"%.60s\" is being swapped in place", s->name);
    }
    if (s->state == XI_SESSION_FAILED) {
        *err = s->why;
        return s->why.rc != XI_OK ? s->why.rc
                                  : xi_fail(err, XI_ECRASHLOOP, "\"%.60s\" has failed", s->name);
    }
    if (s->state == XI_SESSION_DRAINING || s->state == XI_SESSION_GONE)
        return xi_fail(err, XI_EGONE, "\"%.60s\" is being unloaded", s->name);
    if (asleep) {
        xi_log(XI_INFO, "session.woken", "id=%s name=%s", s->id, s->name);
        xi_entry_feed(e, XI_EV_LOAD);
        if (s->state == XI_SESSION_IDLE && s->why.rc == XI_EBUDGET) { /* no room for it */
            *err = s->why;
            return XI_EBUDGET;
        }
    }
    if (s->state == XI_SESSION_READY || s->signature.n_inputs > 0)
        return XI_OK;
    *ret_wait = asleep || s->options.lazy;
    return xi_fail(err, XI_EAGAIN, "\"%.60s\" is still loading", s->name);
}

enum xi_rc xi_sessions_route(struct xi_sessions *m, const struct xi_route_ask *ask,
                             struct xi_session **ret, int *ret_wait, struct xi_err *err)
{
    struct xi_entry *e = NULL;
    enum xi_rc rc = choose(m, ask, &e, err);

    *ret_wait = 0;
    if (rc == XI_OK)
        rc = may_ask(e, ret_wait, err);
    if (rc != XI_OK)
        return rc;
    xi_session_get(&e->s);
    e->s.users++;
    e->s.last_used_ms = xi_now_ms();
    *ret = &e->s;
    return XI_OK;
}

void xi_session_leave(struct xi_session *s)
{
    XI_ASSERT(s->users > 0);
    s->users--;
    s->last_used_ms = xi_now_ms();
    if (s->users == 0)
        xi_swap_notice(xi_entry_of(s));
    xi_session_put(s);
}
