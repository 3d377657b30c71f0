/* Any bytes as what a host says: the first byte chooses a message, a completion, work, or a ring
 * whose memory it may write. What is accepted must keep its promises. */
#include <stdlib.h>
#include <string.h>

#include "ipc/messages.h"
#include "ipc/ring.h"
#include "ipc/work.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_part(const struct xi_part *part)
{
    enum { SEGMENT = 1 << 20 };

    if (xi_part_check(part, SEGMENT, NULL) != XI_OK)
        return;
    XI_ASSERT(part->mem.offset <= SEGMENT && part->mem.bytes <= SEGMENT - part->mem.offset);
    XI_ASSERT(part->rank >= 0 && part->rank <= XI_MAX_RANK);
}

static void message(const uint8_t *data, size_t size)
{
    struct xi_signature s;
    void *m = malloc(size + 1); /* aligned, and no byte longer than it is */

    memcpy(m, data, size);
    if (xi_msg_check(m, size, NULL) == XI_OK && ((struct xi_msg_head *)m)->type == XI_MSG_LOADED &&
        xi_msg_signature(m, &s, NULL) == XI_OK) {
        for (uint32_t i = 0; i < s.n_inputs; i++)
            XI_ASSERT(s.inputs[i].rank <= XI_MAX_RANK &&
                      strlen(s.inputs[i].name) < XI_TENSOR_NAME_MAX);
        const struct xi_msg_loaded *loaded = m;
        XI_ASSERT(loaded->n_states <= XI_TENSORS_MAX && loaded->max_batch >= 1);
        for (uint32_t i = 0; i < loaded->n_states; i++) {
            struct xi_msg_port state = xi_msg_state(loaded, i);
            XI_ASSERT(state.rank <= XI_MAX_RANK && memchr(state.name, 0, sizeof state.name));
        }
        xi_signature_fini(&s);
    }
    free(m);
}

static void completion(const uint8_t *data, size_t size)
{
    struct xi_part parts[XI_TENSORS_MAX];
    struct xi_done done;

    if (xi_done_open(data, size, &done, parts, NULL) != XI_OK)
        return;
    XI_ASSERT(done.n_parts <= XI_TENSORS_MAX && strlen(done.text) < sizeof done.text);
    XI_ASSERT(done.n_state <= done.n_parts && done.batch <= XI_BATCH_MAX);
    for (uint32_t i = 0; i < done.n_parts; i++)
        check_part(&parts[i]);
}

static void work(const uint8_t *data, size_t size)
{
    struct xi_part parts[XI_TENSORS_MAX];
    struct xi_work_request q;
    struct xi_work_view view;

    if (xi_work_open(data, size, &view, NULL) != XI_OK)
        return;
    uint32_t requests = 0;
    while (xi_work_next(&view, &q, parts, NULL) == XI_OK) {
        XI_ASSERT(++requests <= XI_BATCH_MAX && q.n_state <= q.n_parts);
        for (uint32_t i = 0; i < q.n_parts; i++)
            check_part(&parts[i]);
    }
}

/* The peer's bytes over the ring's head (indices at 64 and 128) and over its first records. */
static void ring(const uint8_t *data, size_t size)
{
    uint64_t bytes = xi_ring_footprint(2 * XI_RING_RECORD_MAX);
    uint8_t *memory = calloc(1, bytes), *record = malloc(XI_RING_RECORD_MAX);
    struct xi_ring in, out;
    size_t n = 0;

    xi_ring_create(memory, 2 * XI_RING_RECORD_MAX);
    if (xi_ring_attach(&in, memory, bytes, NULL) != XI_OK ||
        xi_ring_attach(&out, memory, bytes, NULL) != XI_OK)
        abort();
    size_t head = size < 16 ? size : 16;
    memcpy(memory + 64, data, head < 8 ? head : 8);
    if (head > 8)
        memcpy(memory + 128, data + 8, head - 8);
    memcpy(memory + 64 * 1024, data + head, size - head < 4096 ? size - head : 4096);
    for (int i = 0; i < 64 && xi_ring_pop(&out, record, XI_RING_RECORD_MAX, &n) == XI_OK; i++)
        XI_ASSERT(n <= XI_RING_RECORD_MAX);
    for (int i = 0; i < 8 && xi_ring_push(&in, record, 60000) == XI_OK; i++)
        continue;
    free(record);
    free(memory);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    void (*const targets[])(const uint8_t *, size_t) = {message, completion, work, ring};

    if (size > 0)
        targets[data[0] % 4](data + 1, size - 1);
    return 0;
}
