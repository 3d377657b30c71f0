/* fake_host.c: speaks a host's protocol and lies in one way, named where the engine's name stands.
 * Links the protocol's own code, so that everything but the lie is right. */
#define _GNU_SOURCE
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/platform/memory.h"
#include "base/platform/process.h"
#include "ipc/messages.h"
#include "ipc/ring.h"
#include "ipc/work.h"
#include "xinfer/engine.h"

struct fake {
    const char *lie;
    int submit_fd, complete_fd;
    struct xi_map map, output;
    struct xi_ring submit, complete;
    uint8_t *complete_memory;
    uint32_t output_id;
    _Alignas(8) uint8_t inbox[XI_MESSAGE_MAX];
};

static int lies(const struct fake *f, const char *how)
{
    return strcmp(f->lie, how) == 0;
}

static void say(void *message, enum xi_msg_type type, size_t bytes)
{
    struct pollfd p = {.fd = 3, .events = POLLOUT};

    xi_msg_head_set(message, type, (uint32_t)bytes);
    while (xi_message_send(3, message, bytes, NULL, 0, NULL) == XI_EAGAIN)
        (void)poll(&p, 1, 1000);
}

static void rest(void)
{
    for (;;)
        (void)pause();
}

static void say_progress(void)
{
    struct xi_msg_progress m = {.phase = "load"};

    say(&m, XI_MSG_PROGRESS, sizeof m);
}

static void say_loaded(uint32_t session, uint32_t lanes)
{
    struct xi_signature none = {0};
    struct xi_msg_loaded *m = xi_msg_loaded_new(&none, NULL, 0);

    m->lane_count = lanes;
    m->session = session;
    say(m, XI_MSG_LOADED, m->head.bytes);
    free(m);
}

static void say_hello(struct fake *f)
{
    struct xi_msg_hello m = {.pid = getpid()};

    if (lies(f, "role"))
        m.role = 2;
    if (lies(f, "text"))
        memset(m.sandbox, 'x', sizeof m.sandbox);
    if (lies(f, "no-hello"))
        say_progress();
    xi_msg_head_set(&m, XI_MSG_HELLO, sizeof m);
    if (lies(f, "magic"))
        m.head.magic++;
    if (lies(f, "major"))
        m.head.major++;
    if (lies(f, "type"))
        m.head.type = 4711;
    if (lies(f, "length"))
        m.head.bytes++;
    int fd = 0;
    (void)!xi_message_send(3, &m, lies(f, "short") ? 10 : sizeof m, &fd, lies(f, "fd") ? 1 : 0,
                           NULL);
    if (lies(f, "hello-twice"))
        say(&m, XI_MSG_HELLO, sizeof m);
}

/* What can be lied before anything was asked. */
static void talk(struct fake *f)
{
    struct xi_msg_head quit;
    struct xi_msg_drop drop = {.segment = 1};
    struct xi_msg_need_output need = {.lane = 99, .bytes = 4096};
    struct xi_msg_progress progress = {.session = 99, .phase = "load"};
    struct xi_msg_failed failed = {.session = 99, .code = XI_EMODEL};
    struct xi_msg_unload unloaded = {.session = 0};
    struct {
        struct xi_msg_probed head;
        struct xi_engine_probe probe;
    } probed = {0};

    if (lies(f, "loaded-unasked"))
        say_loaded(0, 1);
    if (lies(f, "probed"))
        say(&probed, XI_MSG_PROBED, sizeof probed);
    if (lies(f, "daemon-message"))
        say(&quit, XI_MSG_QUIT, sizeof quit);
    if (lies(f, "foreign-drop"))
        say(&drop, XI_MSG_DROPPED, sizeof drop);
    if (lies(f, "need-lane"))
        say(&need, XI_MSG_NEED_OUTPUT, sizeof need);
    if (lies(f, "foreign-progress"))
        say(&progress, XI_MSG_PROGRESS, sizeof progress);
    if (lies(f, "foreign-failure"))
        say(&failed, XI_MSG_FAILED, sizeof failed);
    if (lies(f, "unloaded-unasked"))
        say(&unloaded, XI_MSG_UNLOADED, sizeof unloaded);
    while (lies(f, "message-flood"))
        say_progress();
    if (lies(f, "closes")) {
        (void)close(3);
        rest();
    }
}

static void on_lane(struct fake *f, const struct xi_msg_lane *m, const int *fds)
{
    struct xi_err err;

    if (xi_memory_open(fds[0], m->submit_bytes + m->complete_bytes, XI_MAP_READ_WRITE, &f->map,
                       &err) != XI_OK)
        exit(9);
    f->complete_memory = (uint8_t *)f->map.base + m->submit_bytes;
    if (xi_ring_attach(&f->submit, f->map.base, m->submit_bytes, &err) != XI_OK ||
        xi_ring_attach(&f->complete, f->complete_memory, m->complete_bytes, &err) != XI_OK)
        exit(9);
    f->submit_fd = fds[1];
    f->complete_fd = fds[2];
}

static uint32_t receive(struct fake *f)
{
    int fds[XI_MESSAGE_FDS_MAX];
    size_t bytes, n_fds;
    struct xi_err err;

    (void)xi_fd_wait_readable(3, -1);
    if (xi_message_recv(3, f->inbox, sizeof f->inbox, &bytes, fds, &n_fds, &err) != XI_OK)
        exit(0);
    uint32_t type = ((struct xi_msg_head *)f->inbox)->type;
    const struct xi_msg_segment *m = (const void *)f->inbox;
    if (type == XI_MSG_LANE)
        on_lane(f, (const void *)f->inbox, fds);
    if (type == XI_MSG_SEGMENT && m->use == XI_SEGMENT_OUTPUT) {
        if (xi_memory_open(fds[0], m->bytes, XI_MAP_READ_WRITE, &f->output, &err) != XI_OK)
            exit(9);
        f->output_id = m->segment;
    }
    return type;
}

/* Reads and forgets, so that the daemon can always answer. */
static void drain(struct fake *f)
{
    int fds[XI_MESSAGE_FDS_MAX];
    size_t bytes, n_fds;
    struct xi_err err;

    while (xi_message_recv(3, f->inbox, sizeof f->inbox, &bytes, fds, &n_fds, &err) == XI_OK)
        for (size_t i = 0; i < n_fds; i++)
            xi_fd_close(&fds[i]);
}

struct answer {
    struct xi_done done;
    struct xi_part part;
    uint8_t more[8]; /* of the lie "tail-bytes" */
};

static void push(struct fake *f, const struct answer *a)
{
    size_t bytes = sizeof a->done + a->done.n_parts * sizeof a->part;

    while (xi_ring_push(&f->complete, a, lies(f, "tail-bytes") ? bytes + 8 : bytes) == XI_EAGAIN)
        (void)usleep(100);
    xi_wake_signal(f->complete_fd);
}

static void spoil_answer(struct fake *f, struct answer *a, uint32_t input_segment)
{
    if (lies(f, "unasked"))
        a->done.id += 1000;
    if (lies(f, "seq"))
        a->done.seq = 5;
    if (lies(f, "flags"))
        a->done.flags = 3;
    if (lies(f, "code"))
        a->done.code = -77777;
    if (lies(f, "failure-with-outputs"))
        a->done.code = XI_EENGINE;
    if (lies(f, "done-text"))
        memset(a->done.text, 'x', sizeof a->done.text);
    if (lies(f, "input-segment"))
        a->part.mem.segment = input_segment;
    if (lies(f, "no-segment"))
        a->part.mem.segment = 123456;
    if (lies(f, "past-end"))
        a->part.mem.offset = f->output.bytes - 15;
    if (lies(f, "wrap"))
        a->part.mem.offset = UINT64_MAX - 2;
    if (lies(f, "rank"))
        a->part.rank = 100;
    if (lies(f, "dtype"))
        a->part.dtype = 99;
    if (lies(f, "place-kind"))
        a->part.kind = XI_PART_PLACE;
    if (lies(f, "dims"))
        a->part.dims[0] = -4;
    if (lies(f, "huge-dims"))
        a->part.dims[0] = INT64_MAX;
    if (lies(f, "bytes"))
        a->part.mem.bytes = 8;
    if (lies(f, "kind"))
        a->part.kind = 77;
    if (lies(f, "parts"))
        a->done.n_parts = 65;
}

/* Indices of the completion ring, at the places ring.c gives them. */
static void spoil_ring(struct fake *f)
{
    uint64_t far = 1ull << 40, one = 8;
    uint32_t huge[2] = {1u << 30, 0};

    if (lies(f, "head-far"))
        memcpy(f->complete_memory + 64, &far, sizeof far);
    if (lies(f, "record-length")) {
        memcpy(f->complete_memory + 64 * 1024, huge, sizeof huge);
        memcpy(f->complete_memory + 64, &one, sizeof one);
    }
    xi_wake_signal(f->complete_fd);
}

static void answer(struct fake *f, uint64_t id, uint32_t input_segment)
{
    struct answer a = {.done = {.id = id, .flags = XI_DONE_FINAL, .n_parts = 1},
                       .part = {.dtype = XI_DT_FP32, .rank = 1, .dims = {4}, .mem = {.bytes = 16}}};

    a.part.mem.segment = f->output_id;
    spoil_answer(f, &a, input_segment);
    for (uint32_t i = 0; lies(f, "more-flood"); i++) {
        a.done.flags = XI_DONE_MORE;
        a.done.n_parts = 0;
        a.done.seq = i;
        push(f, &a);
    }
    if (a.done.n_parts == 65) {
        static struct {
            struct xi_done done;
            struct xi_part parts[65];
        } many;
        many.done = a.done;
        (void)!xi_ring_push(&f->complete, &many, sizeof many);
        xi_wake_signal(f->complete_fd);
        return;
    }
    push(f, &a);
    if (lies(f, "twice"))
        push(f, &a);
}

static void serve(struct fake *f)
{
    _Alignas(8) uint8_t record[XI_RING_RECORD_MAX];
    struct xi_part parts[XI_TENSORS_MAX];
    struct xi_work_view view;
    struct xi_work_request q;
    struct xi_err err;
    size_t bytes;

    spoil_ring(f);
    while (lies(f, "empty-wakes"))
        xi_wake_signal(f->complete_fd);
    for (;;) {
        if (xi_ring_pop(&f->submit, record, sizeof record, &bytes) != XI_OK) {
            (void)usleep(100);
            continue;
        }
        if (xi_work_open(record, bytes, &view, &err) == XI_OK &&
            xi_work_next(&view, &q, parts, &err) == XI_OK)
            answer(f, q.id, parts[0].mem.segment);
    }
}

int main(int argc, char **argv)
{
    static struct fake f;
    struct xi_msg_need_output need = {.bytes = 1 << 20};

    if (argc < 4)
        return 2;
    f.lie = argv[3];
    say_hello(&f);
    talk(&f);
    while (receive(&f) != XI_MSG_LOAD)
        continue;
    say_loaded(lies(&f, "foreign-loaded") ? 99 : 0, lies(&f, "lanes") ? 2 : 1);
    if (lies(&f, "loaded-twice"))
        say_loaded(0, 1);
    say(&need, XI_MSG_NEED_OUTPUT, sizeof need);
    while (lies(&f, "need-flood")) {
        (void)!xi_message_send(3, &need, sizeof need, NULL, 0, NULL);
        drain(&f);
    }
    while (f.output.base == NULL)
        (void)receive(&f);
    serve(&f);
    return 0;
}
