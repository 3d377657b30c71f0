#define _GNU_SOURCE
#include "host/output.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "host/control.h"
#include "ipc/slots.h"

enum { SEGMENTS_MAX = 256, GRANT_WAIT_S = 10 };
#define SMALL_SEGMENT  (4 * XI_MIB)  /* for outputs up to a quarter of it */
#define IDLE_BYTES_MAX (64 * XI_MIB) /* of large empty segments that are kept */

struct out_segment {
    uint32_t id, in_use; /* outputs in it */
    struct xi_map map;
    struct xi_slots *slots; /* NULL: holds one large output */
};

/* What control leaves for the lane. At most one question is open. */
struct mailbox {
    pthread_mutex_t lock; /* leaf */
    pthread_cond_t changed;
    int asked, refused, granted;
    uint32_t id;
    struct xi_map map;
};

struct xi_outputs {
    uint32_t lane, n;
    struct out_segment segments[SEGMENTS_MAX];
    struct mailbox box;
};

struct xi_outputs *xi_outputs_new(uint32_t lane)
{
    struct xi_outputs *o = calloc(1, sizeof *o);
    pthread_condattr_t attr;

    if (o == NULL)
        return NULL;
    o->lane = lane;
    (void)pthread_condattr_init(&attr);
    (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    (void)pthread_mutex_init(&o->box.lock, NULL);
    (void)pthread_cond_init(&o->box.changed, &attr);
    (void)pthread_condattr_destroy(&attr);
    return o;
}

static void give_back(uint32_t segment, struct xi_map *map)
{
    struct xi_msg_drop m = {.segment = segment};

    xi_map_close(map);
    (void)!xi_control_send(&m, XI_MSG_DROPPED, sizeof m);
}

void xi_outputs_free(struct xi_outputs *o)
{
    if (o == NULL)
        return;
    for (uint32_t i = 0; i < o->n; i++) {
        xi_slots_free(o->segments[i].slots);
        give_back(o->segments[i].id, &o->segments[i].map);
    }
    if (o->box.map.base != NULL)
        give_back(o->box.id, &o->box.map);
    (void)pthread_cond_destroy(&o->box.changed);
    (void)pthread_mutex_destroy(&o->box.lock);
    free(o);
}

/* ---- asking the daemon ---- */

void xi_outputs_granted(struct xi_outputs *o, uint32_t id, const struct xi_map *map)
{
    (void)pthread_mutex_lock(&o->box.lock);
    if (o->box.map.base != NULL) /* one that nobody asked for */
        give_back(o->box.id, &o->box.map);
    o->box.map = *map;
    o->box.id = id;
    o->box.granted = 1;
    (void)pthread_cond_signal(&o->box.changed);
    (void)pthread_mutex_unlock(&o->box.lock);
}

void xi_outputs_refused(struct xi_outputs *o)
{
    (void)pthread_mutex_lock(&o->box.lock);
    o->box.refused = 1;
    (void)pthread_cond_signal(&o->box.changed);
    (void)pthread_mutex_unlock(&o->box.lock);
}

static enum xi_rc ask(struct xi_outputs *o, uint64_t bytes, struct xi_err *err)
{
    struct xi_msg_need_output m = {.lane = o->lane, .bytes = bytes};

    if (o->box.asked) /* the last answer has not come yet; it may do */
        return XI_OK;
    if (xi_control_send(&m, XI_MSG_NEED_OUTPUT, sizeof m) != XI_OK)
        return xi_fail(err, XI_EHOST, "the daemon has gone");
    o->box.asked = 1;
    return XI_OK;
}

/* A size that the next outputs fit as well. */
static uint64_t segment_size(uint64_t bytes)
{
    if (bytes <= SMALL_SEGMENT / 4)
        return SMALL_SEGMENT;
    if (bytes <= XI_SLOT_SHARED_MAX)
        return XI_SEGMENT_BYTES;
    return (bytes + XI_MIB - 1) / XI_MIB * XI_MIB;
}

/* Puts a granted mapping among the segments. */
static enum xi_rc adopt(struct xi_outputs *o, uint32_t id, const struct xi_map *map,
                        struct xi_err *err)
{
    struct out_segment *s = &o->segments[o->n];

    *s = (struct out_segment){.id = id, .map = *map};
    if (map->bytes == SMALL_SEGMENT || map->bytes == XI_SEGMENT_BYTES) {
        s->slots = xi_slots_new(map->bytes);
        if (s->slots == NULL)
            return xi_fail(err, XI_ENOMEM, "no memory for output slots");
    }
    o->n++;
    return XI_OK;
}

static enum xi_rc await_grant(struct xi_outputs *o, struct xi_err *err)
{
    struct xi_map map = {0};
    struct timespec until;
    uint32_t id = 0;
    int refused;

    (void)clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += GRANT_WAIT_S;
    (void)pthread_mutex_lock(&o->box.lock);
    while (!o->box.granted && !o->box.refused)
        if (pthread_cond_timedwait(&o->box.changed, &o->box.lock, &until) != 0)
            break;
    refused = o->box.refused;
    if (o->box.granted) {
        map = o->box.map;
        id = o->box.id;
        o->box.map = (struct xi_map){0};
    }
    if (o->box.granted || refused)
        o->box.asked = 0;
    o->box.granted = o->box.refused = 0;
    (void)pthread_mutex_unlock(&o->box.lock);
    if (map.base != NULL)
        return adopt(o, id, &map, err);
    if (refused)
        return xi_fail(err, XI_ENOMEM, "output memory of this model is used up");
    return xi_fail(err, XI_EHOST, "the daemon grants no output memory for %d s", GRANT_WAIT_S);
}

void xi_outputs_prepare(struct xi_outputs *o)
{
    struct xi_err err;

    (void)!ask(o, SMALL_SEGMENT, &err); /* a daemon that has gone shows elsewhere */
}

/* ---- taking and giving ---- */

static int take_from(struct out_segment *s, uint64_t bytes, struct xi_run_place *ret)
{
    uint64_t offset = 0;

    if (s->slots != NULL ? xi_slots_take(s->slots, bytes, &offset) != XI_OK
                         : s->in_use > 0 || bytes > s->map.bytes || bytes < s->map.bytes / 4)
        return 0;
    s->in_use++;
    *ret = (struct xi_run_place){.data = (uint8_t *)s->map.base + offset,
                                 .bytes = bytes,
                                 .segment = s->id,
                                 .offset = offset};
    return 1;
}

static int take_any(struct xi_outputs *o, uint64_t bytes, struct xi_run_place *ret)
{
    for (uint32_t i = 0; i < o->n; i++)
        if (take_from(&o->segments[i], bytes, ret))
            return 1;
    return 0;
}

/* The segment goes back to the daemon. */
static void drop(struct xi_outputs *o, uint32_t i)
{
    xi_slots_free(o->segments[i].slots);
    give_back(o->segments[i].id, &o->segments[i].map);
    o->segments[i] = o->segments[--o->n];
}

/* Large empty segments over what may lie idle; all of them when `all`. */
static void drop_idle(struct xi_outputs *o, int all)
{
    uint64_t idle = 0;

    for (uint32_t i = 0; i < o->n;) {
        struct out_segment *s = &o->segments[i];
        if (s->in_use == 0 && s->slots == NULL) {
            idle += s->map.bytes;
            if (all || idle > IDLE_BYTES_MAX) {
                idle -= s->map.bytes;
                drop(o, i);
                continue;
            }
        }
        i++;
    }
}

enum xi_rc xi_outputs_take(void *ctx, uint64_t bytes, struct xi_run_place *ret, struct xi_err *err)
{
    struct xi_outputs *o = ctx;

    for (int attempt = 0; attempt < 3; attempt++) {
        if (take_any(o, bytes, ret))
            return XI_OK;
        drop_idle(o, 1); /* too small for this one: its bytes count against the limit */
        if (o->n == SEGMENTS_MAX)
            break;
        enum xi_rc rc = ask(o, segment_size(bytes), err);
        if (rc == XI_OK)
            rc = await_grant(o, err);
        if (rc != XI_OK)
            return rc;
    }
    return xi_fail(err, XI_ENOMEM, "no output memory for %llu bytes", (unsigned long long)bytes);
}

void xi_outputs_release(struct xi_outputs *o, uint32_t segment, uint64_t offset)
{
    for (uint32_t i = 0; i < o->n; i++) {
        struct out_segment *s = &o->segments[i];
        if (s->id != segment)
            continue;
        if (s->in_use == 0 ||
            (s->slots != NULL ? xi_slots_give(s->slots, offset) != XI_OK : offset != 0))
            return;
        s->in_use--;
        if (s->slots == NULL)
            drop_idle(o, 0);
        return;
    }
}

void xi_outputs_give(void *ctx, const struct xi_run_place *place)
{
    xi_outputs_release(ctx, place->segment, place->offset);
}
