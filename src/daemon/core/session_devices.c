#include <string.h>

#include "base/log.h"
#include "daemon/core/session_private.h"
#include "daemon/core/why.h"

/* NULL: nobody said that it may not be used. */
static struct xi_aside *find(struct xi_sessions *m, const char *engine, const char *device)
{
    uint32_t i;

    for (i = 0; i < XI_ASIDE_MAX; i++) {
        struct xi_aside *a = &m->aside[i];

        if (a->device[0] != '\0' && strcmp(a->device, device) == 0 &&
            strcmp(a->engine, engine) == 0)
            return a;
    }
    return NULL;
}

static const struct xi_engine_record *engine_of(const struct xi_entry *e, uint32_t choice)
{
    return &e->m->engines[e->choices[choice].engine];
}

static const char *device_of(const struct xi_entry *e, uint32_t choice)
{
    return engine_of(e, choice)->probe.devices[e->choices[choice].device].id;
}

int xi_choice_usable(const struct xi_entry *e, uint32_t choice)
{
    const char *device = device_of(e, choice);

    return !e->choices[choice].lost && find(e->m, engine_of(e, choice)->name, device) == NULL &&
           find(e->m, "", device) == NULL;
}

/* Is it a variant for this device of this engine ("" : of any)? */
static int is_for(const struct xi_entry *e, uint32_t choice, const char *engine, const char *device)
{
    return strcmp(device_of(e, choice), device) == 0 &&
           (engine[0] == '\0' || strcmp(engine_of(e, choice)->name, engine) == 0);
}

static int may_go_elsewhere(const struct xi_entry *e)
{
    uint32_t i;

    for (i = 0; i < e->n_choices; i++) {
        if (xi_choice_usable(e, i))
            return 1;
    }
    return 0;
}

void xi_entry_note_move(struct xi_entry *e, const char *reason)
{
    struct xi_why_entry note = {.kind = XI_WHY_MOVED, .rc = XI_EDEVICE};

    (void)snprintf(note.session, sizeof(note.session), "%s", e->s.id);
    (void)snprintf(note.name, sizeof(note.name), "%s", e->s.name);
    (void)snprintf(note.tenant, sizeof(note.tenant), "%s", e->s.tenant);
    (void)snprintf(note.text, sizeof(note.text), "left %s (variant %s): %s", e->s.device,
                   e->s.variant, reason);
    xi_why_note(e->m->config.why, &note);
    xi_log(XI_WARN, "session.moved", "id=%s name=%s tenant=%s from=%s why=%s", e->s.id, e->s.name,
           e->s.tenant, e->s.device, reason);
}

int xi_entry_lose_device(struct xi_entry *e)
{
    const char *engine = engine_of(e, e->at)->name, *device = device_of(e, e->at);
    uint32_t i;
    int lost;

    for (lost = 1; lost >= 0; lost--) {
        for (i = 0; i < e->n_choices; i++) {
            if (is_for(e, i, engine, device))
                e->choices[i].lost = lost;
        }
        if (lost && may_go_elsewhere(e))
            return 1;
    }
    return 0;
}

static void leave_device(struct xi_entry *e, const char *engine, const char *device,
                         const char *reason)
{
    int elsewhere = may_go_elsewhere(e);

    if (e->s.state == XI_SESSION_FAILED || !is_for(e, e->at, engine, device))
        return;
    (void)xi_fail(&e->s.why, XI_EDEVICE, "%s is not used: %s", device, reason);
    if (elsewhere)
        xi_entry_note_move(e, reason);
    xi_entry_feed_input(e, &(struct xi_fsm_input){.event = XI_EV_MOVE, .more_variants = elsewhere});
}

/* was_away: a load that failed for it may succeed now. */
static void come_back(struct xi_entry *e, const char *engine, const char *device, int was_away)
{
    uint32_t i;
    int of_it = 0;

    for (i = 0; i < e->n_choices; i++) {
        if (is_for(e, i, engine, device)) {
            e->choices[i].lost = 0;
            of_it = 1;
        }
    }
    if (of_it && was_away && e->s.state == XI_SESSION_FAILED && e->s.why.rc == XI_EDEVICE)
        xi_entry_feed(e, XI_EV_LOAD);
}

/* 0: nothing has changed. */
static int set_aside(struct xi_sessions *m, const char *engine, const char *device, int ok,
                     const char *reason)
{
    struct xi_aside *a = find(m, engine, device);
    uint32_t i;

    if ((a == NULL) == (ok != 0))
        return 0;
    if (a != NULL) {
        a->device[0] = '\0';
        return 1;
    }
    for (i = 0; i < XI_ASIDE_MAX && m->aside[i].device[0] != '\0';)
        i++;
    if (i == XI_ASIDE_MAX)
        return 0;
    a = &m->aside[i];
    (void)snprintf(a->engine, sizeof(a->engine), "%s", engine);
    (void)snprintf(a->device, sizeof(a->device), "%s", device);
    (void)snprintf(a->reason, sizeof(a->reason), "%s", reason);
    return 1;
}

void xi_sessions_device_state(struct xi_sessions *m, const char *engine, const char *device, int ok,
                              const char *reason)
{
    struct xi_entry *e = m->first, *next;
    const char *whose = engine != NULL ? engine : "";
    int changed = set_aside(m, whose, device, ok, reason);

    if (changed && ok)
        xi_log(XI_INFO, "device.back", "device=%s engine=%s why=%s", device, whose, reason);
    else if (changed)
        xi_log(XI_ERROR, "device.lost", "device=%s engine=%s why=%s", device, whose, reason);
    for (; e != NULL && (changed || ok); e = next) {
        xi_session_get(&e->s);
        if (ok)
            come_back(e, whose, device, changed);
        else
            leave_device(e, whose, device, reason);
        next = e->next;
        xi_session_put(&e->s);
    }
}

void xi_sessions_on_suspect(struct xi_sessions *m, xi_device_suspect_cb cb, void *ctx)
{
    m->suspect = cb;
    m->suspect_ctx = ctx;
}

void xi_device_suspect(struct xi_sessions *m, uint32_t engine, const char *device)
{
    if (m->suspect != NULL && !m->closing)
        m->suspect(m->suspect_ctx, m->engines[engine].name, device);
}
