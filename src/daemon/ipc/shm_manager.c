#include "daemon/ipc/shm_manager.h"

#include <stdlib.h>
#include <string.h>

#include "base/platform/process.h"
#include "daemon/loop/workers.h"
#include "ipc/slots.h"

/* Shared: 32 MiB, cut up by slots. Own: holds one large slot (slots is NULL). */
struct input_segment {
    struct xi_segment base; /* first: a pointer to it is one to this */
    struct tenant *tenant;
    struct input_segment *next; /* of the tenant */
    struct xi_slots *slots;
    uint32_t slots_out;
    int idle; /* was empty at the last trim */
};

struct tenant {
    struct tenant *next;
    struct input_segment *segments;
    uint64_t used_bytes;
    char name[XI_NAME_MAX + 1];
};

struct slot {
    struct xi_slot base; /* first */
    struct slot *next_free;
};

struct xi_shm {
    uint64_t budget_bytes, used_bytes, segment_bytes, refused;
    uint32_t last_id, n_segments, n_slots, n_clients;
    struct tenant *tenants;
    struct slot *free_slots;
    struct xi_shm_watch watches; /* a ring */
    uv_loop_t *loop;
    int freed; /* by its owner: goes with its last slot and watch */
};

static void free_when_unused(struct xi_shm *shm);

struct xi_shm *xi_shm_new(uint64_t budget_bytes)
{
    struct xi_shm *shm = calloc(1, sizeof *shm);

    if (shm == NULL)
        return NULL;
    shm->budget_bytes = budget_bytes < XI_SEGMENT_BYTES ? XI_SEGMENT_BYTES : budget_bytes;
    shm->watches.prev = shm->watches.next = &shm->watches;
    return shm;
}

void xi_shm_close_on(struct xi_shm *shm, uv_loop_t *loop)
{
    shm->loop = loop;
}

void xi_shm_watch_add(struct xi_shm *shm, struct xi_shm_watch *watch)
{
    watch->prev = shm->watches.prev;
    watch->next = &shm->watches;
    watch->prev->next = watch;
    watch->next->prev = watch;
}

void xi_shm_watch_remove(struct xi_shm *shm, struct xi_shm_watch *watch)
{
    if (watch->next == NULL)
        return;
    watch->prev->next = watch->next;
    watch->next->prev = watch->prev;
    watch->prev = watch->next = NULL;
    free_when_unused(shm);
}

/* ---- segments ---- */

void xi_segment_get(struct xi_segment *segment)
{
    segment->refs++;
}

struct closing {
    struct xi_work work;
    struct xi_map map;
    int fd;
};

static void on_closing(struct xi_work *work)
{
    struct closing *c = work->data;

    xi_map_close(&c->map);
    xi_fd_close(&c->fd);
}

static void on_closed(struct xi_work *work)
{
    free(work->data);
}

/* 1 when the segment's memory is now the pool's to give back. */
static int close_on_pool(const struct xi_segment *segment)
{
    struct closing *c = segment->loop != NULL ? calloc(1, sizeof *c) : NULL;

    if (c == NULL)
        return 0;
    c->work.data = c;
    c->map = segment->map;
    c->fd = segment->fd;
    xi_work_queue(segment->loop, &c->work, on_closing, on_closed);
    return 1;
}

static void tell_closing(struct xi_shm *shm, uint32_t id)
{
    struct xi_shm_watch *next;

    for (struct xi_shm_watch *w = shm->watches.next; w != &shm->watches; w = next) {
        next = w->next;
        w->closing(w, id);
    }
}

void xi_segment_put(struct xi_segment *segment)
{
    if (segment == NULL || --segment->refs > 0)
        return;
    if (segment->client) {
        tell_closing(segment->owner, segment->id);
        segment->owner->n_clients--;
        free_when_unused(segment->owner);
    }
    if (!segment->heap && !close_on_pool(segment)) {
        xi_map_close(&segment->map);
        xi_fd_close(&segment->fd);
    }
    free(segment);
}

struct xi_segment *xi_segment_heap(uint64_t bytes)
{
    struct xi_segment *s = calloc(1, sizeof *s + bytes);

    if (s == NULL)
        return NULL;
    s->fd = -1;
    s->map = (struct xi_map){.base = s + 1, .bytes = bytes};
    s->refs = 1;
    s->heap = 1;
    return s;
}

/* Ids are their own generation: never used twice. */
static enum xi_rc may_number(const struct xi_shm *shm, struct xi_err *err)
{
    if (shm->last_id == UINT32_MAX)
        return xi_fail(err, XI_EAGAIN, "all segment numbers of this daemon's life are used");
    return XI_OK;
}

static enum xi_rc memory_for(struct xi_shm *shm, struct xi_segment *s, uint64_t bytes, int input,
                             struct xi_err *err)
{
    enum xi_rc rc = may_number(shm, err);

    if (rc == XI_OK)
        rc = xi_memory_create(input ? "xinfer-input" : "xinfer-output", bytes, input, &s->fd,
                              &s->map, err);
    if (rc != XI_OK)
        return rc;
    s->id = ++shm->last_id;
    s->refs = 1;
    s->owner = input ? shm : NULL;
    s->loop = shm->loop;
    return XI_OK;
}

enum xi_rc xi_segment_output(struct xi_shm *shm, uint64_t bytes, struct xi_segment **ret,
                             struct xi_err *err)
{
    struct xi_segment *s = calloc(1, sizeof *s);

    if (s == NULL)
        return xi_fail(err, XI_ENOMEM, "no memory for a segment");
    enum xi_rc rc = memory_for(shm, s, bytes, 0, err);
    if (rc != XI_OK) {
        free(s);
        return rc;
    }
    *ret = s;
    return XI_OK;
}

enum xi_rc xi_segment_client(struct xi_shm *shm, int fd, int writable, uint64_t from,
                             uint64_t bytes, struct xi_segment **ret, struct xi_err *err)
{
    enum xi_rc rc = may_number(shm, err);
    struct xi_segment *s = rc == XI_OK ? calloc(1, sizeof *s) : NULL;

    if (rc != XI_OK)
        return rc;
    if (s == NULL)
        return xi_fail(err, XI_ENOMEM, "no memory for a segment");
    *s = (struct xi_segment){.id = ++shm->last_id,
                             .fd = fd,
                             .map = {.bytes = bytes},
                             .refs = 1,
                             .owner = shm,
                             .loop = shm->loop,
                             .client = 1,
                             .writable = writable,
                             .from = from};
    shm->n_clients++;
    *ret = s;
    return XI_OK;
}

/* Takes it out of its tenant; hosts hear of it. */
static void close_segment(struct xi_shm *shm, struct input_segment *s)
{
    struct input_segment **at = &s->tenant->segments;

    while (*at != s)
        at = &(*at)->next;
    *at = s->next;
    tell_closing(shm, s->base.id);
    shm->segment_bytes -= s->base.map.bytes;
    shm->n_segments--;
    xi_slots_free(s->slots);
    s->slots = NULL;
    xi_segment_put(&s->base);
}

static void forget_tenant_if_empty(struct xi_shm *shm, struct tenant *t)
{
    struct tenant **at = &shm->tenants;

    if (t->segments != NULL)
        return;
    while (*at != t)
        at = &(*at)->next;
    *at = t->next;
    free(t);
}

/* Closes empty segments of any tenant until `bytes` more fit the budget. 1 when they do. */
static int make_room(struct xi_shm *shm, uint64_t bytes, const struct tenant *keep)
{
    struct tenant *next_tenant;
    struct input_segment *next;

    for (struct tenant *t = shm->tenants; t != NULL; t = next_tenant) {
        next_tenant = t->next;
        for (struct input_segment *s = t->segments; s != NULL; s = next) {
            next = s->next;
            if (shm->segment_bytes + bytes <= shm->budget_bytes)
                return 1;
            if (s->slots_out == 0)
                close_segment(shm, s);
        }
        if (t != keep)
            forget_tenant_if_empty(shm, t);
    }
    return shm->segment_bytes + bytes <= shm->budget_bytes;
}

void xi_shm_trim(struct xi_shm *shm)
{
    struct tenant *next_tenant;
    struct input_segment *next;

    for (struct tenant *t = shm->tenants; t != NULL; t = next_tenant) {
        next_tenant = t->next;
        for (struct input_segment *s = t->segments; s != NULL; s = next) {
            next = s->next;
            if (s->slots_out == 0 && s->idle)
                close_segment(shm, s);
            else
                s->idle = s->slots_out == 0;
        }
        forget_tenant_if_empty(shm, t);
    }
}

/* A worker may hold a slot a little longer than the daemon lives, a host that was killed its
 * watch until it is reaped. */
static void free_when_unused(struct xi_shm *shm)
{
    if (!shm->freed || shm->n_slots > 0 || shm->n_clients > 0 || shm->watches.next != &shm->watches)
        return;
    xi_shm_trim(shm);
    xi_shm_trim(shm);
    while (shm->free_slots != NULL) {
        struct slot *slot = shm->free_slots;
        shm->free_slots = slot->next_free;
        free(slot);
    }
    free(shm);
}

void xi_shm_free(struct xi_shm *shm)
{
    if (shm == NULL)
        return;
    shm->freed = 1;
    free_when_unused(shm);
}

static enum xi_rc add_segment(struct xi_shm *shm, struct tenant *t, uint64_t bytes, int shared,
                              struct input_segment **ret, struct xi_err *err)
{
    enum xi_rc rc;

    if (!make_room(shm, bytes, t)) {
        shm->refused++;
        return xi_fail(err, XI_EAGAIN, "input memory of %llu MiB is in use",
                       (unsigned long long)(shm->budget_bytes / XI_MIB));
    }
    struct input_segment *s = calloc(1, sizeof *s);
    if (s == NULL)
        return xi_fail(err, XI_ENOMEM, "no memory for a segment");
    if (shared && (s->slots = xi_slots_new(bytes)) == NULL) {
        rc = xi_fail(err, XI_ENOMEM, "no memory for a segment's slots");
        goto failed;
    }
    rc = memory_for(shm, &s->base, bytes, 1, err);
    if (rc != XI_OK)
        goto failed;
    s->tenant = t;
    s->next = t->segments;
    t->segments = s;
    shm->segment_bytes += s->base.map.bytes;
    shm->n_segments++;
    *ret = s;
    return XI_OK;
failed:
    xi_slots_free(s->slots);
    free(s);
    return rc;
}

/* ---- slots ---- */

static enum xi_rc find_tenant(struct xi_shm *shm, const char *name, struct tenant **ret,
                              struct xi_err *err)
{
    for (struct tenant *t = shm->tenants; t != NULL; t = t->next)
        if (strcmp(t->name, name) == 0) {
            *ret = t;
            return XI_OK;
        }
    struct tenant *t = calloc(1, sizeof *t);
    if (t == NULL)
        return xi_fail(err, XI_ENOMEM, "no memory for a tenant");
    XI_ASSERT(strlen(name) < sizeof t->name);
    memcpy(t->name, name, strlen(name) + 1);
    t->next = shm->tenants;
    shm->tenants = t;
    *ret = t;
    return XI_OK;
}

static struct slot *slot_struct(struct xi_shm *shm)
{
    struct slot *slot = shm->free_slots;

    if (slot == NULL)
        return calloc(1, sizeof *slot);
    shm->free_slots = slot->next_free;
    return slot;
}

/* Large slots in whole MiB, so that frames of nearly one size use one segment again. */
static uint64_t own_bytes(uint64_t bytes)
{
    return (bytes + XI_MIB - 1) / XI_MIB * XI_MIB;
}

static enum xi_rc take_shared(struct xi_shm *shm, struct tenant *t, uint64_t bytes,
                              struct input_segment **ret, uint64_t *ret_offset, struct xi_err *err)
{
    struct input_segment *s;

    for (s = t->segments; s != NULL; s = s->next)
        if (s->slots != NULL && xi_slots_take(s->slots, bytes, ret_offset) == XI_OK) {
            *ret = s;
            return XI_OK;
        }
    enum xi_rc rc = add_segment(shm, t, XI_SEGMENT_BYTES, 1, &s, err);
    if (rc != XI_OK)
        return rc;
    *ret = s;
    return xi_slots_take(s->slots, bytes, ret_offset);
}

/* An emptied segment is used again where at most half of it would lie fallow. */
static enum xi_rc take_own(struct xi_shm *shm, struct tenant *t, uint64_t bytes,
                           struct input_segment **ret, struct xi_err *err)
{
    for (struct input_segment *s = t->segments; s != NULL; s = s->next)
        if (s->slots == NULL && s->slots_out == 0 && s->base.map.bytes >= bytes &&
            s->base.map.bytes / 2 <= bytes) {
            *ret = s;
            return XI_OK;
        }
    return add_segment(shm, t, own_bytes(bytes), 0, ret, err);
}

static int others_hold_slots(const struct xi_shm *shm, const struct tenant *t)
{
    return shm->used_bytes > t->used_bytes;
}

static enum xi_rc may_take(struct xi_shm *shm, const struct tenant *t, uint64_t bytes,
                           struct xi_err *err)
{
    if (!others_hold_slots(shm, t) || t->used_bytes + bytes <= shm->budget_bytes / 4)
        return XI_OK;
    shm->refused++;
    return xi_fail(err, XI_EAGAIN, "tenant holds %llu of its %llu MiB of input memory",
                   (unsigned long long)(t->used_bytes / XI_MIB),
                   (unsigned long long)(shm->budget_bytes / 4 / XI_MIB));
}

static enum xi_rc take_from(struct xi_shm *shm, struct tenant *t, uint64_t bytes, struct slot *slot,
                            struct xi_err *err)
{
    struct input_segment *s = NULL;
    uint64_t offset = 0, room = XI_SLOT_MIN;
    enum xi_rc rc = may_take(shm, t, bytes, err);

    if (rc != XI_OK)
        return rc;
    if (bytes <= XI_SLOT_SHARED_MAX) {
        rc = take_shared(shm, t, bytes, &s, &offset, err);
        while (room < bytes)
            room *= 2;
    } else {
        rc = take_own(shm, t, bytes, &s, err);
    }
    if (rc != XI_OK)
        return rc;
    if (s->slots == NULL)
        room = s->base.map.bytes;
    s->slots_out++;
    s->idle = 0;
    t->used_bytes += room;
    shm->used_bytes += room;
    shm->n_slots++;
    xi_segment_get(&s->base);
    slot->base = (struct xi_slot){.segment = &s->base,
                                  .offset = offset,
                                  .bytes = room,
                                  .data = (uint8_t *)s->base.map.base + offset,
                                  .refs = 1};
    return XI_OK;
}

enum xi_rc xi_shm_take(struct xi_shm *shm, const char *tenant, uint64_t bytes, struct xi_slot **ret,
                       struct xi_err *err)
{
    struct tenant *t = NULL;

    if (bytes > shm->budget_bytes || own_bytes(bytes) > shm->budget_bytes)
        return xi_fail(err, XI_ETOOBIG, "%llu bytes, this daemon's input memory is %llu MiB",
                       (unsigned long long)bytes, (unsigned long long)(shm->budget_bytes / XI_MIB));
    enum xi_rc rc = find_tenant(shm, tenant, &t, err);
    if (rc != XI_OK)
        return rc;
    struct slot *slot = slot_struct(shm);
    if (slot == NULL)
        rc = xi_fail(err, XI_ENOMEM, "no memory for a slot");
    else
        rc = take_from(shm, t, bytes, slot, err);
    if (rc == XI_OK) {
        *ret = &slot->base;
        return XI_OK;
    }
    if (slot != NULL) {
        slot->next_free = shm->free_slots;
        shm->free_slots = slot;
    }
    forget_tenant_if_empty(shm, t);
    return rc;
}

void xi_slot_get(struct xi_slot *slot)
{
    slot->refs++;
}

/* Is there enough spare memory of its kind without this one? */
static int is_superfluous(const struct input_segment *s)
{
    uint64_t spare = 0;

    for (const struct input_segment *o = s->tenant->segments; o != NULL; o = o->next) {
        if (o == s || o->slots_out > 0 || (o->slots == NULL) != (s->slots == NULL))
            continue;
        if (s->slots != NULL)
            return 1;
        spare += o->base.map.bytes;
    }
    return s->slots == NULL && spare + s->base.map.bytes > XI_SHM_SPARE_BYTES;
}

void xi_slot_put(struct xi_slot *slot)
{
    if (slot == NULL || --slot->refs > 0)
        return;
    struct input_segment *s = (struct input_segment *)slot->segment;
    struct xi_shm *shm = s->base.owner;
    struct tenant *t = s->tenant;

    if (s->slots != NULL)
        XI_ASSERT(xi_slots_give(s->slots, slot->offset) == XI_OK);
    t->used_bytes -= slot->bytes;
    shm->used_bytes -= slot->bytes;
    shm->n_slots--;
    s->slots_out--;
    xi_segment_put(&s->base);
    if (s->slots_out == 0 && is_superfluous(s)) {
        close_segment(shm, s);
        forget_tenant_if_empty(shm, t);
    }
    struct slot *freed = (struct slot *)slot;
    freed->next_free = shm->free_slots;
    shm->free_slots = freed;
    free_when_unused(shm);
}

void xi_shm_stats(const struct xi_shm *shm, struct xi_shm_stats *ret)
{
    *ret = (struct xi_shm_stats){.budget_bytes = shm->budget_bytes,
                                 .used_bytes = shm->used_bytes,
                                 .segment_bytes = shm->segment_bytes,
                                 .segments = shm->n_segments,
                                 .slots = shm->n_slots,
                                 .refused = shm->refused};
}
