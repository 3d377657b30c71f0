#include "ipc/ring.h"

#include <stdatomic.h>
#include <string.h>

#define RING_MAGIC 0x474e4958u /* "XING" */
/* So large that footprints are whole pages on every machine; its untouched pages cost nothing. */
#define RING_HEAD_BYTES (64u * 1024u)

/* What each side writes has its own cache line. Indices count bytes and never wrap. */
struct xi_ring_shared {
    uint32_t magic, reserved;
    uint64_t data_bytes;
    _Alignas(64) _Atomic uint64_t head;     /* moved by the producer */
    _Alignas(64) _Atomic uint64_t tail;     /* moved by the consumer */
    _Alignas(64) _Atomic uint32_t sleeping; /* 1 by the consumer, 0 by the producer */
};
_Static_assert(sizeof(struct xi_ring_shared) <= RING_HEAD_BYTES, "ring head");
_Static_assert(ATOMIC_LLONG_LOCK_FREE == 2, "indices in shared memory need lock-free atomics");

struct record_head {
    uint32_t bytes, reserved;
};

static uint64_t padded(uint64_t bytes)
{
    return sizeof(struct record_head) + ((bytes + 7) & ~7ull);
}

uint64_t xi_ring_footprint(uint64_t data_bytes)
{
    return RING_HEAD_BYTES + data_bytes;
}

static int size_ok(uint64_t data_bytes)
{
    return data_bytes >= 2 * XI_RING_RECORD_MAX && (data_bytes & (data_bytes - 1)) == 0;
}

void xi_ring_create(void *memory, uint64_t data_bytes)
{
    struct xi_ring_shared *s = memory;

    XI_ASSERT(size_ok(data_bytes));
    memset(s, 0, sizeof *s);
    s->data_bytes = data_bytes;
    /* A consumer that has not come yet counts as asleep: the first record wakes it. */
    atomic_store_explicit(&s->sleeping, 1, memory_order_relaxed);
    s->magic = RING_MAGIC;
}

enum xi_rc xi_ring_attach(struct xi_ring *ring, void *memory, uint64_t memory_bytes,
                          struct xi_err *err)
{
    struct xi_ring_shared *s = memory;

    if (memory_bytes <= RING_HEAD_BYTES || !size_ok(memory_bytes - RING_HEAD_BYTES))
        return xi_fail(err, XI_EPROTO, "%llu bytes are no ring", (unsigned long long)memory_bytes);
    if (s->magic != RING_MAGIC || s->data_bytes != memory_bytes - RING_HEAD_BYTES)
        return xi_fail(err, XI_EPROTO, "ring of %llu bytes says something else of itself",
                       (unsigned long long)memory_bytes);
    *ring = (struct xi_ring){.shared = s,
                             .data = (uint8_t *)memory + RING_HEAD_BYTES,
                             .mask = memory_bytes - RING_HEAD_BYTES - 1};
    return XI_OK;
}

static void copy_in(struct xi_ring *ring, uint64_t at, const void *src, uint64_t bytes)
{
    uint64_t start = at & ring->mask, first = ring->mask + 1 - start;

    if (first > bytes)
        first = bytes;
    memcpy(ring->data + start, src, first);
    memcpy(ring->data, (const uint8_t *)src + first, bytes - first);
}

static void copy_out(const struct xi_ring *ring, uint64_t at, void *dst, uint64_t bytes)
{
    uint64_t start = at & ring->mask, first = ring->mask + 1 - start;

    if (first > bytes)
        first = bytes;
    memcpy(dst, ring->data + start, first);
    memcpy((uint8_t *)dst + first, ring->data, bytes - first);
}

/* The consumer's index, believed only where it moves forward and not past the producer's. */
static enum xi_rc load_tail(struct xi_ring *ring)
{
    uint64_t tail = atomic_load_explicit(&ring->shared->tail, memory_order_acquire);

    if (tail - ring->peer > ring->mine - ring->peer)
        return XI_EPROTO;
    ring->peer = tail;
    return XI_OK;
}

enum xi_rc xi_ring_push(struct xi_ring *ring, const void *record, size_t bytes)
{
    struct record_head head = {.bytes = (uint32_t)bytes};
    uint64_t need = padded(bytes), size = ring->mask + 1;

    XI_ASSERT(bytes <= XI_RING_RECORD_MAX);
    if (need > size - (ring->mine - ring->peer)) {
        if (load_tail(ring) != XI_OK)
            return XI_EPROTO;
        if (need > size - (ring->mine - ring->peer))
            return XI_EAGAIN;
    }
    copy_in(ring, ring->mine, &head, sizeof head);
    copy_in(ring, ring->mine + sizeof head, record, bytes);
    ring->mine += need;
    atomic_store_explicit(&ring->shared->head, ring->mine, memory_order_release);
    return XI_OK;
}

/* Both sides exchange `sleeping`, so one of the two exchanges reads what the other wrote: either
 * the producer sees 1 and wakes, or the consumer's exchange comes after the producer's, and with
 * it sees the new head. A fence before a plain load would do the same; the exchange can be
 * followed by the thread sanitizer. */
int xi_ring_must_wake(struct xi_ring *ring)
{
    return atomic_exchange_explicit(&ring->shared->sleeping, 0, memory_order_acq_rel) == 1;
}

/* The producer's index, believed only where it moves forward and not further than the ring. */
static enum xi_rc load_head(struct xi_ring *ring)
{
    uint64_t head = atomic_load_explicit(&ring->shared->head, memory_order_acquire);

    if (head - ring->mine > ring->mask + 1 || head - ring->mine < ring->peer - ring->mine)
        return XI_EPROTO;
    ring->peer = head;
    return XI_OK;
}

enum xi_rc xi_ring_pop(struct xi_ring *ring, void *buf, size_t cap, size_t *ret)
{
    struct record_head head;

    if (ring->peer == ring->mine) {
        if (load_head(ring) != XI_OK)
            return XI_EPROTO;
        if (ring->peer == ring->mine)
            return XI_EAGAIN;
    }
    uint64_t ready = ring->peer - ring->mine;
    if (ready < sizeof head)
        return XI_EPROTO;
    copy_out(ring, ring->mine, &head, sizeof head);
    if (head.bytes > XI_RING_RECORD_MAX || head.bytes > cap || padded(head.bytes) > ready)
        return XI_EPROTO;
    copy_out(ring, ring->mine + sizeof head, buf, head.bytes);
    ring->mine += padded(head.bytes);
    atomic_store_explicit(&ring->shared->tail, ring->mine, memory_order_release);
    *ret = head.bytes;
    return XI_OK;
}

int xi_ring_may_sleep(struct xi_ring *ring)
{
    (void)atomic_exchange_explicit(&ring->shared->sleeping, 1, memory_order_acq_rel);
    if (atomic_load_explicit(&ring->shared->head, memory_order_acquire) == ring->mine)
        return 0;
    atomic_store_explicit(&ring->shared->sleeping, 0, memory_order_relaxed);
    return 1;
}
