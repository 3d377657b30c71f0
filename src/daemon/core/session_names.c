#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "daemon/core/session_private.h"

/* FNV-1a; letters count as lower case, so that twins share a bucket. */
static uint32_t hash_text(uint32_t hash, const char *text)
{
    for (; *text != '\0'; text++) {
        unsigned c = (unsigned char)*text;

        if (c >= 'A' && c <= 'Z')
            c += 'a' - 'A';
        hash = (hash ^ c) * 16777619u;
    }
    return (hash ^ 0xffu) * 16777619u;
}

static uint32_t name_bucket(const char *tenant, const char *name)
{
    return hash_text(hash_text(2166136261u, tenant), name) & (XI_NAME_BUCKETS - 1);
}

static uint32_t id_bucket(const char *id)
{
    return hash_text(2166136261u, id) & (XI_NAME_BUCKETS - 1);
}

/* ---- choosing ---- */

static int pick_for_sequence(const struct xi_target *targets, uint32_t n, uint64_t total,
                             uint64_t sequence)
{
    uint64_t at = sequence % total;
    uint32_t i;

    for (i = 0; i < n; i++) {
        if (at < targets[i].weight)
            return (int)i;
        at -= targets[i].weight;
    }
    return -1;
}

int xi_targets_pick(struct xi_target *targets, uint32_t n, uint64_t sequence)
{
    uint64_t total = 0;
    int best = -1;
    uint32_t i;

    for (i = 0; i < n; i++)
        total += targets[i].weight;
    if (total == 0)
        return -1;
    if (sequence != 0)
        return pick_for_sequence(targets, n, total, sequence);
    for (i = 0; i < n; i++) {
        if (targets[i].weight == 0)
            continue;
        targets[i].credit += targets[i].weight;
        if (best < 0 || targets[i].credit > targets[best].credit)
            best = (int)i;
    }
    targets[best].credit -= (int64_t)total;
    return best;
}

/* ---- the table ---- */

static struct xi_named *named_new(struct xi_sessions *m, const struct xi_entry *e)
{
    uint32_t bucket = name_bucket(e->s.tenant, e->s.name);
    struct xi_named *name = calloc(1, sizeof(*name));

    if (name == NULL)
        return NULL;
    (void)snprintf(name->tenant, sizeof(name->tenant), "%s", e->s.tenant);
    (void)snprintf(name->name, sizeof(name->name), "%s", e->s.name);
    name->next = m->names[bucket];
    m->names[bucket] = name;
    return name;
}

static void named_free(struct xi_sessions *m, struct xi_named *name)
{
    struct xi_named **at = &m->names[name_bucket(name->tenant, name->name)];

    XI_ASSERT(name->swap == NULL);
    while (*at != name)
        at = &(*at)->next;
    *at = name->next;
    free(name);
}

enum xi_rc xi_names_add(struct xi_sessions *m, struct xi_entry *e, struct xi_err *err)
{
    struct xi_named *name = xi_names_find(m, e->s.tenant, e->s.name);
    uint32_t id = id_bucket(e->s.id);

    if (name != NULL && name->n == XI_NAME_TARGETS_MAX)
        return xi_fail(err, XI_EAGAIN, "%u versions of %s have not ended yet", name->n, e->s.name);
    if (name == NULL)
        name = named_new(m, e);
    if (name == NULL)
        return xi_fail(err, XI_ENOMEM, "no memory for another name");
    name->targets[name->n] =
        (struct xi_target){.entry = e, .weight = name->n == 0 ? XI_WEIGHT_ALL : 0};
    name->n++;
    e->named = name;
    e->by_id = m->ids[id];
    m->ids[id] = e;
    return XI_OK;
}

static uint32_t target_of(const struct xi_named *name, const struct xi_entry *e)
{
    uint32_t i = 0;

    while (name->targets[i].entry != e)
        i++;
    return i;
}

static void forget_credits(struct xi_named *name)
{
    uint32_t i;

    for (i = 0; i < name->n; i++)
        name->targets[i].credit = 0;
}

void xi_names_share(struct xi_named *name, struct xi_entry *e, uint32_t share)
{
    name->targets[target_of(name, e)].weight = share;
    name->targets[0].weight = XI_WEIGHT_ALL - share;
    forget_credits(name);
}

void xi_names_flip(struct xi_named *name, struct xi_entry *e)
{
    uint32_t i = target_of(name, e);
    struct xi_target first = name->targets[0];

    name->targets[0] = name->targets[i];
    name->targets[i] = first;
    for (i = 0; i < name->n; i++)
        name->targets[i].weight = i == 0 ? XI_WEIGHT_ALL : 0;
    forget_credits(name);
}

void xi_names_drop_name(struct xi_sessions *m, struct xi_entry *e)
{
    struct xi_named *name = e->named;
    uint32_t i, weight;

    if (name == NULL)
        return;
    e->named = NULL;
    if (name->mirror == e)
        name->mirror = NULL;
    i = target_of(name, e);
    weight = name->targets[i].weight;
    name->n--;
    memmove(&name->targets[i], &name->targets[i + 1], (name->n - i) * sizeof(name->targets[0]));
    if (name->n > 0) {
        name->targets[0].weight += weight;
        forget_credits(name);
    } else if (name->swap == NULL) {
        named_free(m, name);
    }
}

void xi_names_swap_over(struct xi_sessions *m, struct xi_named *name)
{
    name->swap = NULL;
    if (name->n == 0)
        named_free(m, name);
}

void xi_names_drop_id(struct xi_sessions *m, struct xi_entry *e)
{
    struct xi_entry **at = &m->ids[id_bucket(e->s.id)];
    struct xi_ended *ended = &m->ended[m->next_ended++ % XI_ENDED_MAX];

    while (*at != e)
        at = &(*at)->by_id;
    *at = e->by_id;
    memcpy(ended->id, e->s.id, sizeof(ended->id));
    memcpy(ended->successor, e->s.successor, sizeof(ended->successor));
}

struct xi_named *xi_names_find(struct xi_sessions *m, const char *tenant, const char *name)
{
    struct xi_named *at;

    for (at = m->names[name_bucket(tenant, name)]; at != NULL; at = at->next) {
        if (strcmp(at->name, name) == 0 && strcmp(at->tenant, tenant) == 0)
            return at;
    }
    return NULL;
}

struct xi_named *xi_names_twin(struct xi_sessions *m, const char *tenant, const char *name)
{
    struct xi_named *at;

    for (at = m->names[name_bucket(tenant, name)]; at != NULL; at = at->next) {
        if (strcasecmp(at->name, name) == 0 && strcmp(at->tenant, tenant) == 0)
            return at;
    }
    return NULL;
}

struct xi_entry *xi_ids_find(struct xi_sessions *m, const char *id)
{
    struct xi_entry *e;

    for (e = m->ids[id_bucket(id)]; e != NULL; e = e->by_id) {
        if (strcmp(e->s.id, id) == 0)
            return e;
    }
    return NULL;
}

static const struct xi_ended *ended_find(const struct xi_sessions *m, const char *id)
{
    uint32_t i;

    for (i = 0; i < XI_ENDED_MAX; i++) {
        if (strcmp(m->ended[i].id, id) == 0)
            return &m->ended[i];
    }
    return NULL;
}

int xi_ids_ended(const struct xi_sessions *m, const char *id)
{
    return ended_find(m, id) != NULL;
}

/* Who was put in this one's place; NULL: nobody, or it is not known (any more). */
static const char *successor_of(struct xi_sessions *m, const char *id)
{
    struct xi_entry *e = xi_ids_find(m, id);
    const struct xi_ended *ended = e == NULL ? ended_find(m, id) : NULL;
    const char *next = e != NULL ? e->s.successor : ended != NULL ? ended->successor : "";

    return next[0] != '\0' ? next : NULL;
}

const char *xi_sessions_successor(struct xi_sessions *m, const char *id)
{
    const char *last = NULL, *next = successor_of(m, id);
    uint32_t i;

    /* The one that serves now, where several swaps came after each other. */
    for (i = 0; next != NULL && i < XI_ENDED_MAX; i++) {
        last = next;
        next = successor_of(m, next);
    }
    return last;
}
