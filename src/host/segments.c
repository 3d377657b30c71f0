#define _GNU_SOURCE
#include "host/segments.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

/* Numbers rise by one, so a number's last bits are as good as a hash; the next free neighbour takes
 * what collides. */
enum { ENTRIES = 4096 };

struct entry {
    _Atomic uint32_t id; /* 0: free; published after the mapping */
    _Atomic uint64_t bytes;
    _Atomic(void *) base;
    _Atomic uint32_t use; /* enum xi_segment_use */
    _Atomic int spoiled;
};

struct xi_segments {
    pthread_mutex_t lock; /* leaf; only for waiting */
    pthread_cond_t added;
    struct entry entries[ENTRIES];
};

static struct xi_map map_of(struct entry *e)
{
    return (struct xi_map){.base = atomic_load_explicit(&e->base, memory_order_relaxed),
                           .bytes = atomic_load_explicit(&e->bytes, memory_order_relaxed)};
}

struct xi_segments *xi_segments_new(void)
{
    struct xi_segments *t = calloc(1, sizeof *t);
    pthread_condattr_t attr;

    if (t == NULL)
        return NULL;
    (void)pthread_condattr_init(&attr);
    (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    (void)pthread_mutex_init(&t->lock, NULL);
    (void)pthread_cond_init(&t->added, &attr);
    (void)pthread_condattr_destroy(&attr);
    return t;
}

void xi_segments_free(struct xi_segments *t)
{
    if (t == NULL)
        return;
    for (int i = 0; i < ENTRIES; i++) {
        struct xi_map map = map_of(&t->entries[i]);
        xi_map_close(&map);
    }
    (void)pthread_cond_destroy(&t->added);
    (void)pthread_mutex_destroy(&t->lock);
    free(t);
}

static struct entry *find(struct xi_segments *t, uint32_t id, uint32_t near)
{
    for (uint32_t i = 0; i < ENTRIES; i++) {
        struct entry *e = &t->entries[(near + i) % ENTRIES];
        if (atomic_load_explicit(&e->id, memory_order_acquire) == id)
            return e;
    }
    return NULL;
}

enum xi_rc xi_segments_add(struct xi_segments *t, uint32_t id, const struct xi_map *map,
                           enum xi_segment_use use, struct xi_err *err)
{
    if (id == 0 || find(t, id, id) != NULL)
        return xi_fail(err, XI_EPROTO, "segment %u is known already", id);
    struct entry *e = find(t, 0, id);
    if (e == NULL)
        return xi_fail(err, XI_EPROTO, "no room for segment %u", id);
    atomic_store_explicit(&e->base, map->base, memory_order_relaxed);
    atomic_store_explicit(&e->bytes, map->bytes, memory_order_relaxed);
    atomic_store_explicit(&e->use, use, memory_order_relaxed);
    atomic_store_explicit(&e->spoiled, 0, memory_order_relaxed);
    (void)pthread_mutex_lock(&t->lock);
    atomic_store_explicit(&e->id, id, memory_order_release);
    (void)pthread_cond_broadcast(&t->added);
    (void)pthread_mutex_unlock(&t->lock);
    return XI_OK;
}

void xi_segments_drop(struct xi_segments *t, uint32_t id)
{
    struct entry *e = id != 0 ? find(t, id, id) : NULL;

    if (e == NULL)
        return;
    struct xi_map map = map_of(e);
    atomic_store_explicit(&e->base, NULL, memory_order_relaxed);
    atomic_store_explicit(&e->id, 0, memory_order_release);
    xi_map_close(&map);
}

static struct entry *wait_for(struct xi_segments *t, uint32_t id, int wait_ms)
{
    struct entry *e;
    struct timespec until;

    (void)clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += wait_ms / 1000;
    until.tv_nsec += wait_ms % 1000 * 1000000l;
    if (until.tv_nsec >= 1000000000l) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000l;
    }
    (void)pthread_mutex_lock(&t->lock);
    while ((e = find(t, id, id)) == NULL)
        if (pthread_cond_timedwait(&t->added, &t->lock, &until) != 0)
            break;
    (void)pthread_mutex_unlock(&t->lock);
    return e;
}

enum xi_rc xi_segments_find(struct xi_segments *t, uint32_t id, int wait_ms,
                            struct xi_segment_view *ret, struct xi_err *err)
{
    struct entry *e = id != 0 ? find(t, id, id) : NULL;

    if (e == NULL && id != 0)
        e = wait_for(t, id, wait_ms);
    if (e == NULL)
        return xi_fail(err, XI_EPROTO, "segment %u did not come", id);
    *ret = (struct xi_segment_view){.map = map_of(e),
                                    .use = atomic_load_explicit(&e->use, memory_order_relaxed)};
    return XI_OK;
}

int xi_segments_spoil(void *table, const void *address, struct xi_map *ret)
{
    struct xi_segments *t = table;

    for (int i = 0; i < ENTRIES; i++) {
        struct entry *e = &t->entries[i];
        if (atomic_load_explicit(&e->id, memory_order_acquire) == 0 ||
            atomic_load_explicit(&e->use, memory_order_relaxed) < XI_SEGMENT_CLIENT)
            continue;
        *ret = map_of(e);
        if (ret->base == NULL || (uintptr_t)address - (uintptr_t)ret->base >= ret->bytes)
            continue;
        atomic_store_explicit(&e->spoiled, 1, memory_order_release);
        return 1;
    }
    return 0;
}

int xi_segments_spoiled(struct xi_segments *t, uint32_t id)
{
    struct entry *e = id != 0 ? find(t, id, id) : NULL;

    return e != NULL && atomic_load_explicit(&e->spoiled, memory_order_acquire);
}
