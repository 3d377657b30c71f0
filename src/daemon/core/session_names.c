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

void xi_names_add(struct xi_sessions *m, struct xi_entry *e)
{
    uint32_t name = name_bucket(e->s.tenant, e->s.name), id = id_bucket(e->s.id);

    e->by_name = m->names[name];
    m->names[name] = e;
    e->named = 1;
    e->by_id = m->ids[id];
    m->ids[id] = e;
}

void xi_names_drop_name(struct xi_sessions *m, struct xi_entry *e)
{
    struct xi_entry **at = &m->names[name_bucket(e->s.tenant, e->s.name)];

    if (!e->named)
        return;
    while (*at != e)
        at = &(*at)->by_name;
    *at = e->by_name;
    e->named = 0;
}

void xi_names_drop_id(struct xi_sessions *m, struct xi_entry *e)
{
    struct xi_entry **at = &m->ids[id_bucket(e->s.id)];

    while (*at != e)
        at = &(*at)->by_id;
    *at = e->by_id;
    memcpy(m->ended[m->next_ended++ % XI_ENDED_MAX], e->s.id, sizeof(e->s.id));
}

struct xi_entry *xi_names_find(struct xi_sessions *m, const char *tenant, const char *name)
{
    struct xi_entry *e;

    for (e = m->names[name_bucket(tenant, name)]; e != NULL; e = e->by_name) {
        if (strcmp(e->s.name, name) == 0 && strcmp(e->s.tenant, tenant) == 0)
            return e;
    }
    return NULL;
}

struct xi_entry *xi_names_twin(struct xi_sessions *m, const char *tenant, const char *name)
{
    struct xi_entry *e;

    for (e = m->names[name_bucket(tenant, name)]; e != NULL; e = e->by_name) {
        if (strcasecmp(e->s.name, name) == 0 && strcmp(e->s.tenant, tenant) == 0)
            return e;
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

int xi_ids_ended(const struct xi_sessions *m, const char *id)
{
    uint32_t i;

    for (i = 0; i < XI_ENDED_MAX; i++) {
        if (strcmp(m->ended[i], id) == 0)
            return 1;
    }
    return 0;
}
