#include "daemon/core/response_cache.h"

#include <stdlib.h>
#include <string.h>

enum { BUCKETS = 4096 };

struct entry {
    struct xi_cache_key key;
    struct entry *bucket_next;
    struct entry *prev, *next;  /* by use, the latest first */
    struct xi_segment *segment; /* one reference; the bytes of all parts */
    uint64_t bytes;             /* that it counts for */
    uint32_t n_parts;
    struct xi_part parts[];
};

struct xi_response_cache {
    uint64_t limit, bytes;
    struct entry *latest, *oldest;
    struct entry *buckets[BUCKETS];
};

struct xi_response_cache *xi_cache_new(uint64_t limit_bytes)
{
    struct xi_response_cache *c = calloc(1, sizeof(*c));

    if (c != NULL)
        c->limit = limit_bytes;
    return c;
}

uint64_t xi_cache_bytes(const struct xi_response_cache *c)
{
    return c != NULL ? c->bytes : 0;
}

/* A digest is as good a hash as any. */
static struct entry **bucket_of(struct xi_response_cache *c, const struct xi_cache_key *key)
{
    uint32_t h;

    memcpy(&h, key->inputs.bytes, sizeof(h));
    return &c->buckets[h % BUCKETS];
}

static struct entry **find(struct xi_response_cache *c, const struct xi_cache_key *key)
{
    struct entry **at = bucket_of(c, key);

    while (*at != NULL &&
           ((*at)->key.want != key->want || !xi_digest_equal(&(*at)->key.inputs, &key->inputs)))
        at = &(*at)->bucket_next;
    return at;
}

static void unlink_use(struct xi_response_cache *c, struct entry *e)
{
    if (e->prev != NULL)
        e->prev->next = e->next;
    else
        c->latest = e->next;
    if (e->next != NULL)
        e->next->prev = e->prev;
    else
        c->oldest = e->prev;
}

static void link_latest(struct xi_response_cache *c, struct entry *e)
{
    e->prev = NULL;
    e->next = c->latest;
    if (c->latest != NULL)
        c->latest->prev = e;
    else
        c->oldest = e;
    c->latest = e;
}

static void drop(struct xi_response_cache *c, struct entry *e)
{
    *find(c, &e->key) = e->bucket_next;
    unlink_use(c, e);
    c->bytes -= e->bytes;
    xi_segment_put(e->segment);
    free(e);
}

void xi_cache_clear(struct xi_response_cache *c)
{
    while (c != NULL && c->oldest != NULL)
        drop(c, c->oldest);
}

void xi_cache_free(struct xi_response_cache *c)
{
    xi_cache_clear(c);
    free(c);
}

int xi_cache_get(struct xi_response_cache *c, const struct xi_cache_key *key, struct xi_reply *ret)
{
    struct entry *e = *find(c, key);
    uint32_t i;

    if (e == NULL)
        return 0;
    unlink_use(c, e);
    link_latest(c, e);
    memset(&ret->done, 0, sizeof(ret->done));
    ret->done.flags = XI_DONE_FINAL;
    ret->done.n_parts = e->n_parts;
    ret->host = NULL;
    ret->lane = 0;
    for (i = 0; i < e->n_parts; i++) {
        ret->parts[i] = e->parts[i];
        ret->segments[i] = e->segment;
        xi_segment_get(e->segment);
    }
    return 1;
}

static struct entry *copy_of(const struct xi_reply *reply, uint64_t payload)
{
    uint32_t n = reply->done.n_parts, i;
    uint64_t at = 0;
    struct entry *e = calloc(1, sizeof(*e) + n * sizeof(e->parts[0]));

    if (e == NULL)
        return NULL;
    e->segment = xi_segment_heap(payload);
    if (e->segment == NULL) {
        free(e);
        return NULL;
    }
    e->n_parts = n;
    e->bytes = sizeof(*e) + n * sizeof(e->parts[0]) + sizeof(*e->segment) + payload;
    for (i = 0; i < n; i++) {
        e->parts[i] = reply->parts[i];
        e->parts[i].mem.segment = e->segment->id;
        e->parts[i].mem.offset = at;
        memcpy((uint8_t *)e->segment->map.base + at, xi_reply_data(reply, i),
               reply->parts[i].mem.bytes);
        at += (reply->parts[i].mem.bytes + 63) / 64 * 64;
    }
    return e;
}

void xi_cache_put(struct xi_response_cache *c, const struct xi_cache_key *key,
                  const struct xi_reply *reply)
{
    struct entry **bucket = bucket_of(c, key), *e;
    uint64_t payload = 0;
    uint32_t i;

    for (i = 0; i < reply->done.n_parts; i++) {
        payload += (reply->parts[i].mem.bytes + 63) / 64 * 64;
        if (payload > XI_CACHE_ANSWER_MAX)
            return;
    }
    if (*find(c, key) != NULL)
        return;
    e = copy_of(reply, payload);
    if (e == NULL)
        return;
    e->key = *key;
    e->bucket_next = *bucket;
    *bucket = e;
    link_latest(c, e);
    c->bytes += e->bytes;
    while (c->bytes > c->limit)
        drop(c, c->oldest);
}
