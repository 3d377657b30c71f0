/* host_lanes.c: work to a host's lanes and completions back. Nothing here allocates, locks or
 * makes a system call per request, but for the two wake-ups when the other side sleeps. */
#include <stdlib.h>
#include <string.h>

#include "base/platform/process.h"
#include "daemon/ipc/host_impl.h"

static enum xi_rc lane_memory(struct xi_lane_link *lane, struct xi_err *err)
{
    uint64_t each = xi_ring_footprint(XI_LANE_RING_BYTES);
    enum xi_rc rc = xi_memory_create("xinfer-lane", 2 * each, 0, &lane->fd, &lane->map, err);

    if (rc != XI_OK)
        return rc;
    uint8_t *base = lane->map.base;
    xi_ring_create(base, XI_LANE_RING_BYTES);
    xi_ring_create(base + each, XI_LANE_RING_BYTES);
    rc = xi_ring_attach(&lane->submit, base, each, err);
    if (rc == XI_OK)
        rc = xi_ring_attach(&lane->complete, base + each, each, err);
    return rc;
}

static void close_lane(struct xi_lane_link *lane)
{
    if (lane == NULL)
        return;
    xi_map_close(&lane->map);
    xi_fd_close(&lane->fd);
    xi_fd_close(&lane->submit_fd);
    xi_fd_close(&lane->wait_fd);
    free(lane->owed);
    free(lane);
}

static enum xi_rc make_lane(uint32_t session, struct xi_lane_link **ret, struct xi_err *err)
{
    struct xi_lane_link *lane = calloc(1, sizeof *lane);
    int wake[2];

    if (lane == NULL)
        return xi_fail(err, XI_ENOMEM, "no memory for a lane");
    lane->session = session;
    lane->fd = lane->submit_fd = lane->wait_fd = -1;
    enum xi_rc rc = xi_wake_pair(1, wake, err);
    if (rc == XI_OK) {
        lane->wait_fd = wake[0];
        lane->submit_fd = wake[1];
        rc = lane_memory(lane, err);
    }
    if (rc == XI_OK)
        *ret = lane;
    else
        close_lane(lane);
    return rc;
}

static enum xi_rc tell_lane(struct xi_host *host, uint32_t index, int nice, struct xi_err *err)
{
    struct xi_msg_lane m = {.lane = index,
                            .nice = nice,
                            .submit_bytes = xi_ring_footprint(XI_LANE_RING_BYTES),
                            .complete_bytes = xi_ring_footprint(XI_LANE_RING_BYTES)};
    const struct xi_lane_link *lane = host->lanes[index];
    int fds[3] = {lane->fd, lane->wait_fd, host->answer_fd};

    return xi_host_send(host, &m, XI_MSG_LANE, sizeof m, fds, 3, err);
}

/* First everything that can run out, then the words: the host hears of all lanes or of none. */
enum xi_rc xi_host_lanes_open(struct xi_host *host, const struct xi_host_session *s, int nice,
                              struct xi_err *err)
{
    uint32_t end = s->first_lane + s->n_lanes;
    enum xi_rc rc = XI_OK;

    for (uint32_t i = s->first_lane; i < end && rc == XI_OK; i++) {
        XI_ASSERT(host->lanes[i] == NULL);
        rc = make_lane(s->number, &host->lanes[i], err);
    }
    if (host->n_lanes < end)
        host->n_lanes = end;
    for (uint32_t i = s->first_lane; i < end && rc == XI_OK; i++)
        rc = tell_lane(host, i, nice, err);
    if (rc != XI_OK)
        xi_host_lanes_close_range(host, s->first_lane, s->n_lanes);
    return rc;
}

void xi_host_lanes_close_range(struct xi_host *host, uint32_t first, uint32_t n)
{
    for (uint32_t i = first; i < first + n; i++) {
        close_lane(host->lanes[i]);
        host->lanes[i] = NULL;
    }
    while (host->n_lanes > 0 && host->lanes[host->n_lanes - 1] == NULL)
        host->n_lanes--;
}

int xi_host_lanes_quit(struct xi_host *host, uint32_t first, uint32_t n)
{
    struct xi_work_head head = {.op = XI_WORK_QUIT};

    for (uint32_t i = first; i < first + n; i++) {
        if (host->lanes[i] == NULL)
            continue;
        if (xi_ring_push(&host->lanes[i]->submit, &head, sizeof head) != XI_OK)
            return 0;
        if (xi_ring_must_wake(&host->lanes[i]->submit))
            xi_wake_signal(host->lanes[i]->submit_fd);
    }
    return 1;
}

void xi_host_lanes_close(struct xi_host *host)
{
    xi_host_lanes_close_range(host, 0, host->n_lanes);
}

/* ---- releases ---- */

/* 1 when it is in the ring. */
static int push_release(struct xi_host *host, struct xi_lane_link *lane,
                        const struct xi_mem_ref *mem)
{
    struct xi_work_head head = {.op = XI_WORK_RELEASE, .release = *mem};
    enum xi_rc rc = xi_ring_push(&lane->submit, &head, sizeof head);

    if (rc == XI_EPROTO)
        xi_host_broke(host, "a lane's index makes no sense");
    return rc == XI_OK;
}

static void owe(struct xi_host *host, struct xi_lane_link *lane, const struct xi_mem_ref *mem)
{
    if (lane->n_owed == lane->cap_owed) {
        uint32_t cap = lane->cap_owed ? 2 * lane->cap_owed : 64;
        struct xi_mem_ref *more = realloc(lane->owed, cap * sizeof *more);
        if (more == NULL) {
            xi_host_give_up(host, "no memory to keep what it must get back");
            return;
        }
        lane->owed = more;
        lane->cap_owed = cap;
    }
    lane->owed[lane->n_owed++] = *mem;
}

static void pay_owed(struct xi_host *host, struct xi_lane_link *lane)
{
    while (lane->n_owed > 0 && push_release(host, lane, &lane->owed[lane->n_owed - 1]))
        lane->n_owed--;
}

/* Not signalled: a sleeping lane takes its memory back with its next work, which comes behind. */
static void give_back(struct xi_host *host, uint32_t lane_index, const struct xi_mem_ref *mem)
{
    struct xi_lane_link *lane = host->lanes[lane_index];

    if (lane->n_owed > 0 || !push_release(host, lane, mem))
        owe(host, lane, mem);
}

/* Its lane may be gone, and the lane's number another session's. */
static int takes_back(struct xi_host *host, const struct xi_reply *reply, uint32_t part)
{
    const struct xi_host_output *o;

    if (host->state > XI_HOST_ENDING)
        return 0;
    o = xi_host_output_find(host, reply->segments[part]->id);
    return o != NULL && o->lane == reply->lane;
}

void xi_reply_trim(struct xi_reply *reply, uint32_t n)
{
    struct xi_host *host = reply->host;

    for (; n > 0 && reply->done.n_parts > 0; n--) {
        uint32_t i = --reply->done.n_parts;
        if (host != NULL && reply->segments[i] != NULL && takes_back(host, reply, i))
            give_back(host, reply->lane, &reply->parts[i].mem);
        xi_segment_put(reply->segments[i]);
        reply->segments[i] = NULL;
    }
    reply->done.n_state = 0;
}

void xi_reply_release(struct xi_reply *reply)
{
    struct xi_host *host = reply->host;

    xi_reply_trim(reply, reply->done.n_parts);
    reply->host = NULL;
    if (host != NULL)
        xi_host_deref(host);
}

/* ---- submit ---- */

static size_t item_bytes(const struct xi_work_item *item)
{
    return sizeof item->request + item->request.n_parts * sizeof *item->parts;
}

static size_t add_item(uint8_t *at, const struct xi_work_item *item)
{
    size_t places = item->request.n_places * sizeof *item->places;
    size_t parts = item->request.n_parts * sizeof *item->parts - places;

    memcpy(at, &item->request, sizeof item->request);
    memcpy(at + sizeof item->request, item->parts, parts);
    if (places > 0)
        memcpy(at + sizeof item->request + parts, item->places, places);
    return sizeof item->request + parts + places;
}

static enum xi_rc may_submit(const struct xi_host *host, uint32_t lane, uint32_t n_items,
                             struct xi_err *err)
{
    XI_ASSERT(n_items >= 1 && n_items <= XI_BATCH_MAX);
    if (host->state != XI_HOST_RUNS)
        return xi_fail(err, XI_EHOST, "host is ending");
    XI_ASSERT(lane < host->n_lanes && host->lanes[lane] != NULL);
    if (host->lanes[lane]->n_in_flight + n_items > XI_LANE_IN_FLIGHT_MAX)
        return xi_fail(err, XI_EAGAIN, "%u requests in flight on one lane",
                       host->lanes[lane]->n_in_flight);
    return XI_OK;
}

enum xi_rc xi_host_submit(struct xi_host *host, uint32_t lane_index, enum xi_work_op op, int core,
                          const struct xi_work_item *items, uint32_t n_items, struct xi_err *err)
{
    struct xi_work_head head = {.op = (uint16_t)op, .n_requests = (uint16_t)n_items, .core = core};
    XI_UNINIT uint8_t record[XI_RING_RECORD_MAX];
    size_t n = sizeof head;
    enum xi_rc rc = may_submit(host, lane_index, n_items, err);

    if (rc != XI_OK)
        return rc;
    struct xi_lane_link *lane = host->lanes[lane_index];
    head.session = lane->session;
    memcpy(record, &head, sizeof head);
    for (uint32_t i = 0; i < n_items; i++) {
        const struct xi_work_item *item = &items[i];
        if (n + item_bytes(item) > sizeof record)
            return xi_fail(err, XI_ETOOBIG, "batch of %u requests is over %zu bytes of record",
                           n_items, sizeof record);
        for (uint32_t p = 0; p < item->request.n_parts && rc == XI_OK; p++)
            rc = xi_host_show_input(host, item->segments[p], err);
        if (rc != XI_OK)
            return rc;
        n += add_item(record + n, item);
    }
    pay_owed(host, lane);
    rc = xi_ring_push(&lane->submit, record, n);
    if (rc == XI_EPROTO)
        xi_host_broke(host, "a lane's index makes no sense");
    if (rc != XI_OK)
        return xi_fail(err, rc == XI_EAGAIN ? rc : XI_EHOST, "lane does not take work");
    for (uint32_t i = 0; i < n_items && op != XI_WORK_FORGET; i++) /* that is not answered */
        lane->in_flight[lane->n_in_flight++] = (struct xi_in_flight){.id = items[i].request.id};
    if (xi_ring_must_wake(&lane->submit))
        xi_wake_signal(lane->submit_fd);
    return XI_OK;
}

int xi_host_idle(const struct xi_host *host)
{
    for (uint32_t i = 0; i < host->n_lanes; i++)
        if (host->lanes[i] != NULL && host->lanes[i]->n_in_flight > 0)
            return 0;
    return 1;
}

/* ---- completions ---- */

static struct xi_in_flight *find_in_flight(struct xi_lane_link *lane, uint64_t id)
{
    for (uint32_t i = 0; i < lane->n_in_flight; i++)
        if (lane->in_flight[i].id == id)
            return &lane->in_flight[i];
    return NULL;
}

static int accept_id(struct xi_host *host, struct xi_lane_link *lane, const struct xi_done *done)
{
    struct xi_in_flight *f = find_in_flight(lane, done->id);

    if (f == NULL || f->next_seq != done->seq) {
        xi_host_broke(host, f == NULL ? "a completion that was not asked for"
                                      : "a completion out of its order");
        return 0;
    }
    if (done->flags == XI_DONE_MORE && !xi_rate_allows(&host->partials, XI_HOST_PARTIALS_PER_S)) {
        xi_host_broke(host, "a flood of partial completions");
        return 0;
    }
    f->next_seq++;
    if (done->flags == XI_DONE_FINAL)
        *f = lane->in_flight[--lane->n_in_flight];
    return 1;
}

static int lies_in_place(const struct xi_part *part)
{
    struct xi_err err;

    return part->mem.segment == XI_SEGMENT_PLACE && part->kind == XI_PART_TENSOR &&
           part->mem.offset == 0 && xi_part_check(part, part->mem.bytes, &err) == XI_OK;
}

/* References to the segments of all parts, or none. */
static int accept_parts(struct xi_host *host, struct xi_reply *reply)
{
    struct xi_err err;

    for (uint32_t i = 0; i < reply->done.n_parts; i++) {
        const struct xi_part *part = &reply->parts[i];
        if (lies_in_place(part)) {
            reply->segments[i] = NULL;
            continue;
        }
        const struct xi_host_output *o = xi_host_output_find(host, part->mem.segment);
        if (o == NULL || part->kind == XI_PART_PLACE) {
            xi_host_broke(host, "an output in a segment that is not its own");
            return 0;
        }
        if (xi_part_check(part, o->segment->map.bytes, &err) != XI_OK) {
            xi_host_broke(host, err.msg);
            return 0;
        }
        reply->segments[i] = o->segment;
    }
    for (uint32_t i = 0; i < reply->done.n_parts; i++)
        if (reply->segments[i] != NULL)
            xi_segment_get(reply->segments[i]);
    return 1;
}

/* 0: the host was given up. */
static int deliver(struct xi_host *host, uint32_t lane_index, const void *record, size_t bytes)
{
    struct xi_lane_link *lane = host->lanes[lane_index];
    XI_UNINIT struct xi_reply reply;
    XI_UNINIT struct xi_err err;

    if (xi_done_open(record, bytes, &reply.done, reply.parts, &err) != XI_OK) {
        xi_host_broke(host, err.msg);
        return 0;
    }
    if (!accept_parts(host, &reply))
        return 0;
    reply.host = host;
    reply.lane = lane_index;
    host->refs++;
    if (!accept_id(host, lane, &reply.done)) {
        xi_reply_release(&reply);
        return 0;
    }
    uint32_t session = lane->session;
    int last = reply.done.flags == XI_DONE_FINAL && lane->n_in_flight == 0;
    if (host->events.done != NULL)
        host->events.done(host->events.ctx, host, lane_index, &reply);
    else
        xi_reply_release(&reply);
    if (last)
        xi_host_unload_when_idle(host, session);
    return 1;
}

/* Completions of one lane; *left counts down. 0: the host was given up. */
static int read_lane(struct xi_host *host, uint32_t index, uint32_t *left)
{
    XI_UNINIT uint8_t record[sizeof(struct xi_done) + XI_TENSORS_MAX * sizeof(struct xi_part)];
    struct xi_lane_link *lane = host->lanes[index];
    size_t bytes = 0;

    while (*left > 0) {
        enum xi_rc rc = xi_ring_pop(&lane->complete, record, sizeof record, &bytes);
        if (rc == XI_EAGAIN) {
            if (!xi_ring_may_sleep(&lane->complete))
                return 1;
            continue;
        }
        if (rc != XI_OK) {
            xi_host_broke(host, "a completion record that makes no sense");
            return 0;
        }
        --*left;
        if (!deliver(host, index, record, bytes))
            return 0;
    }
    return 1;
}

int xi_host_read_lanes(struct xi_host *host, uint32_t max)
{
    uint32_t left = max;

    for (uint32_t i = 0; i < host->n_lanes; i++)
        if (host->lied || (host->lanes[i] != NULL && !read_lane(host, i, &left)))
            return 0;
    if (left == max && !xi_rate_allows(&host->empty_wakes, XI_HOST_EMPTY_WAKES_PER_S))
        xi_host_broke(host, "a flood of empty wake-ups");
    return left == 0;
}
