#define _GNU_SOURCE
#include "raw.h"

#include <ftw.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/platform/process.h"

static struct xi_err err;

#define OK(call)                                                                                   \
    do {                                                                                           \
        if ((call) != XI_OK)                                                                       \
            fail_msg("%s: %s", #call, err.msg);                                                    \
    } while (0)

void raw_send(struct raw *r, void *message, enum xi_msg_type type, size_t bytes)
{
    xi_msg_head_set(message, type, (uint32_t)bytes);
    OK(xi_message_send(r->control, message, bytes, NULL, 0, &err));
}

static void send_segment(struct raw *r, uint32_t id, enum xi_segment_use use, uint32_t lane, int fd,
                         uint64_t bytes)
{
    struct xi_msg_segment m = {.segment = id, .use = use, .lane = lane, .bytes = bytes};

    xi_msg_head_set(&m, XI_MSG_SEGMENT, sizeof m);
    OK(xi_message_send(r->control, &m, sizeof m, &fd, 1, &err));
}

/* ---- start ---- */

static void spawn(struct raw *r, const struct raw_start *how)
{
    const char *argv[] = {XI_HOST_PROGRAM,
                          "run",
                          "--engine",
                          r->engine,
                          "--plugin-dir",
                          how->plugin_dir ? how->plugin_dir : XI_TEST_PLUGINS,
                          "--link-dir",
                          r->dir,
                          "--sandbox",
                          how->sandbox ? "1" : "0",
                          "--group",
                          how->group ? "1" : "0",
                          NULL};
    const char *asan[] = {getenv("ASAN_OPTIONS"), NULL};
    char entry[256];
    const char *env[2] = {NULL, NULL};
    int pair[2];

    if (asan[0] != NULL) {
        (void)snprintf(entry, sizeof entry, "ASAN_OPTIONS=%s", asan[0]);
        env[0] = entry;
    }
    OK(xi_message_pair(pair, &err));
    r->control = pair[0];
    struct xi_spawn s = {.argv = argv, .env = env, .in_fd = -1, .out_fd = 1, .err_fd = 2};
    s.fds[s.n_fds++] = pair[1];
    OK(xi_process_spawn(&s, &r->pid, &r->pidfd, &err));
    (void)close(pair[1]);
}

void raw_start(struct raw *r, const struct raw_start *how)
{
    int wake[2];

    memset(r, 0, sizeof *r);
    r->engine = how->engine ? how->engine : "reference";
    (void)snprintf(r->dir, sizeof r->dir, "/tmp/xi-raw-XXXXXX");
    assert_non_null(mkdtemp(r->dir));
    assert_int_equal(chmod(r->dir, 0755), 0);
    spawn(r, how);
    OK(xi_wake_pair(0, wake, &err));
    r->wait_fd = wake[0];
    r->answer_fd = wake[1];
    const struct xi_msg_head *hello = raw_next(r, RAW_WAIT_MS);
    assert_non_null(hello);
    assert_int_equal(hello->type, XI_MSG_HELLO);
    OK(xi_memory_create("raw-input", RAW_INPUT_BYTES, 0, &r->input_fd, &r->input, &err));
    r->next_segment = 1;
    send_segment(r, r->next_segment++, XI_SEGMENT_INPUT, 0, r->input_fd, RAW_INPUT_BYTES);
}

static void write_file(const char *dir, const char *name, const char *text)
{
    char path[256];

    (void)snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

void raw_package(struct raw *r, const char *name, const char *model, const char *more,
                 const char *const *files)
{
    char dir[128], path[160], manifest[8192];
    int has_flow = files != NULL && strcmp(files[0], "flow.json") == 0;

    (void)snprintf(dir, sizeof dir, "%s/%s", r->dir, name);
    assert_int_equal(mkdir(dir, 0755), 0);
    (void)snprintf(path, sizeof path, "%s/variants", dir);
    assert_int_equal(mkdir(path, 0755), 0);
    write_file(dir, "variants/m.xref", model);
    (void)snprintf(path, sizeof path, "%s/assets", dir);
    assert_int_equal(mkdir(path, 0755), 0);
    (void)snprintf(manifest, sizeof manifest,
                   "{\"xpkg\": 1, \"name\": \"%s\", \"version\": \"1.0.0\", \"license\": \"MIT\","
                   " \"models\": {\"main\": {%s\"variants\": [{\"id\": \"f32\","
                   " \"files\": [\"variants/m.xref\"], \"format\": \"reference\","
                   " \"engine\": {\"name\": \"%s\"}, \"precision\": \"f32\"}]}}%s}",
                   name, more, r->engine,
                   has_flow
                       ? ", \"flow\": \"flow.json\", \"input\": \"audio\", \"output\": \"tensors\""
                       : ", \"input\": \"tensors\", \"output\": \"tensors\"");
    write_file(dir, "manifest.json", manifest);
    for (; files != NULL && files[0] != NULL; files += 2)
        write_file(dir, files[0], files[1]);
}

static void close_lane(struct raw_lane *lane)
{
    if (lane->map.base == NULL)
        return;
    xi_map_close(&lane->map);
    xi_fd_close(&lane->fd);
    xi_fd_close(&lane->submit_fd);
    xi_fd_close(&lane->wait_fd);
    memset(lane, 0, sizeof *lane);
}

void raw_lane(struct raw *r, uint32_t index, int nice)
{
    struct raw_lane *lane = &r->lanes[index];
    uint64_t each = xi_ring_footprint(2 * XI_RING_RECORD_MAX);
    struct xi_msg_lane m = {
        .lane = index, .nice = nice, .submit_bytes = each, .complete_bytes = each};
    int wake[2];

    close_lane(lane); /* of a session that went */
    OK(xi_wake_pair(1, wake, &err));
    lane->wait_fd = wake[0];
    lane->submit_fd = wake[1];
    OK(xi_memory_create("raw-lane", 2 * each, 0, &lane->fd, &lane->map, &err));
    uint8_t *base = lane->map.base;
    xi_ring_create(base, 2 * XI_RING_RECORD_MAX);
    xi_ring_create(base + each, 2 * XI_RING_RECORD_MAX);
    OK(xi_ring_attach(&lane->submit, base, each, &err));
    OK(xi_ring_attach(&lane->complete, base + each, each, &err));
    int fds[3] = {lane->fd, lane->wait_fd, r->answer_fd};
    xi_msg_head_set(&m, XI_MSG_LANE, sizeof m);
    OK(xi_message_send(r->control, &m, sizeof m, fds, 3, &err));
}

/* ---- messages ---- */

static void on_need(struct raw *r, const struct xi_msg_need_output *m)
{
    struct xi_msg_need_output no = {.lane = m->lane, .bytes = m->bytes};
    struct raw_output *o = &r->outputs[r->n_outputs];
    int fd;

    if (r->refuse) {
        raw_send(r, &no, XI_MSG_REFUSED, sizeof no);
        return;
    }
    assert_true(r->n_outputs < RAW_OUTPUTS);
    OK(xi_memory_create("raw-output", m->bytes, 0, &fd, &o->map, &err));
    o->id = r->next_segment++;
    o->lane = m->lane;
    send_segment(r, o->id, XI_SEGMENT_OUTPUT, m->lane, fd, m->bytes);
    (void)close(fd);
    r->n_outputs++;
    r->granted++;
}

static void on_dropped(struct raw *r, const struct xi_msg_drop *m)
{
    for (uint32_t i = 0; i < r->n_outputs; i++)
        if (r->outputs[i].id == m->segment) {
            xi_map_close(&r->outputs[i].map);
            r->outputs[i] = r->outputs[--r->n_outputs];
            r->dropped++;
            return;
        }
    fail_msg("segment %u was given back and is not its own", m->segment);
}

/* 1: it was about output memory, or progress. */
static int served(struct raw *r)
{
    const struct xi_msg_head *head = (const struct xi_msg_head *)r->inbox;

    if (head->type == XI_MSG_NEED_OUTPUT)
        on_need(r, (const struct xi_msg_need_output *)r->inbox);
    else if (head->type == XI_MSG_DROPPED)
        on_dropped(r, (const struct xi_msg_drop *)r->inbox);
    return head->type == XI_MSG_NEED_OUTPUT || head->type == XI_MSG_DROPPED ||
           head->type == XI_MSG_PROGRESS;
}

/* 1: a message lies in the inbox; 0: none waits; -1: it has gone. */
static int receive(struct raw *r)
{
    int fds[XI_MESSAGE_FDS_MAX];
    size_t bytes, n_fds;
    enum xi_rc rc =
        xi_message_recv(r->control, r->inbox, sizeof r->inbox, &bytes, fds, &n_fds, &err);

    if (rc != XI_OK)
        return rc == XI_EAGAIN ? 0 : -1;
    assert_int_equal(n_fds, 0);
    OK(xi_msg_check(r->inbox, bytes, &err));
    return 1;
}

const struct xi_msg_head *raw_next(struct raw *r, int ms)
{
    uint64_t end = xi_now_ns() + (uint64_t)ms * 1000000u;

    for (;;) {
        int got = receive(r);
        if (got < 0)
            return NULL;
        if (got > 0 && !served(r))
            return (const struct xi_msg_head *)r->inbox;
        uint64_t now = xi_now_ns();
        if (got == 0 &&
            (now >= end || !xi_fd_wait_readable(r->control, (int)((end - now) / 1000000u) + 1)))
            return NULL;
    }
}

void raw_send_load(struct raw *r, const char *package, struct xi_msg_load *load)
{
    if (load->max_batch == 0)
        load->max_batch = 1;
    if (load->threads == 0)
        load->threads = 1;
    (void)snprintf(load->link_dir, sizeof load->link_dir, "%s/%s", r->dir, package);
    raw_send(r, load, XI_MSG_LOAD, sizeof *load);
}

const struct xi_msg_loaded *raw_load(struct raw *r, const char *package, struct xi_msg_load *load)
{
    for (uint32_t i = 0; i < load->lane_count + load->stage_lanes; i++)
        raw_lane(r, load->first_lane + i, 0);
    raw_send_load(r, package, load);
    const struct xi_msg_head *m = raw_next(r, RAW_WAIT_MS);
    assert_non_null(m);
    if (m->type == XI_MSG_FAILED)
        fail_msg("load: %s", ((const struct xi_msg_failed *)m)->text);
    assert_int_equal(m->type, XI_MSG_LOADED);
    const struct xi_msg_loaded *loaded = (const struct xi_msg_loaded *)m;
    assert_int_equal(loaded->session, load->session);
    assert_int_equal(loaded->lane_count, load->lane_count);
    return loaded;
}

static void push(struct raw *r, uint32_t lane, const void *record, size_t bytes)
{
    assert_int_equal(xi_ring_push(&r->lanes[lane].submit, record, bytes), XI_OK);
    if (xi_ring_must_wake(&r->lanes[lane].submit))
        xi_wake_signal(r->lanes[lane].submit_fd);
}

static void quit_lane(struct raw *r, uint32_t lane)
{
    struct xi_work_head head = {.op = XI_WORK_QUIT};

    push(r, lane, &head, sizeof head);
}

void raw_send_unload(struct raw *r, const struct xi_msg_load *load)
{
    struct xi_msg_unload m = {.session = load->session};

    for (uint32_t i = 0; i < load->lane_count + load->stage_lanes; i++)
        quit_lane(r, load->first_lane + i);
    raw_send(r, &m, XI_MSG_UNLOAD, sizeof m);
}

/* ---- work ---- */

struct xi_part raw_tensor(struct raw *r, uint32_t index, enum xi_dtype dtype, const int64_t *dims,
                          int rank, const void *data)
{
    struct xi_part p = {.kind = XI_PART_TENSOR, .index = index, .dtype = dtype, .rank = rank};
    uint64_t bytes = 0;

    OK(xi_shape_bytes(dtype, dims, rank, &bytes, &err));
    memcpy(p.dims, dims, (size_t)rank * sizeof *dims);
    if (r->input_used + bytes > RAW_INPUT_BYTES)
        r->input_used = 0; /* tests look at their answers before they come round */
    p.mem = (struct xi_mem_ref){.segment = 1, .offset = r->input_used, .bytes = bytes};
    memcpy((uint8_t *)r->input.base + r->input_used, data, bytes);
    r->input_used += (bytes + 63) / 64 * 64;
    return p;
}

struct xi_part raw_floats(struct raw *r, uint32_t index, const int64_t *dims, int rank,
                          const float *data)
{
    return raw_tensor(r, index, XI_DT_FP32, dims, rank, data);
}

struct xi_part raw_bytes(struct raw *r, const void *data, size_t bytes)
{
    int64_t dim = (int64_t)bytes;
    struct xi_part p = raw_tensor(r, 0, XI_DT_UINT8, &dim, 1, data);

    p.kind = XI_PART_BYTES;
    return p;
}

void raw_submit(struct raw *r, uint32_t lane, enum xi_work_op op, uint32_t session,
                const struct raw_request *q, uint32_t n)
{
    static uint8_t record[XI_RING_RECORD_MAX];
    struct xi_work_head head = {.op = (uint16_t)op, .n_requests = (uint16_t)n, .session = session};
    size_t at = sizeof head;

    memcpy(record, &head, sizeof head);
    for (uint32_t i = 0; i < n; i++) {
        size_t parts = q[i].head.n_parts * sizeof(struct xi_part);
        assert_true(at + sizeof q[i].head + parts <= sizeof record);
        memcpy(record + at, &q[i].head, sizeof q[i].head);
        if (parts > 0)
            memcpy(record + at + sizeof q[i].head, q[i].parts, parts);
        at += sizeof q[i].head + parts;
    }
    push(r, lane, record, at);
}

int raw_answer(struct raw *r, uint32_t lane, struct raw_done *ret, int ms)
{
    static uint8_t record[XI_RING_RECORD_MAX];
    struct pollfd on[2] = {{.fd = r->wait_fd, .events = POLLIN},
                           {.fd = r->control, .events = POLLIN}};
    uint64_t end = xi_now_ns() + (uint64_t)ms * 1000000u;
    struct xi_ring *ring = &r->lanes[lane].complete;
    size_t bytes = 0;

    for (;;) {
        enum xi_rc rc = xi_ring_pop(ring, record, sizeof record, &bytes);
        if (rc == XI_OK) {
            OK(xi_done_open(record, bytes, &ret->done, ret->parts, &err));
            return 1;
        }
        assert_int_equal(rc, XI_EAGAIN);
        if (xi_ring_may_sleep(ring))
            continue;
        if (xi_now_ns() >= end)
            return 0;
        (void)poll(on, 2, 50);
        xi_wake_drain(r->wait_fd);
        if (on[1].revents != 0 && (receive(r) <= 0 || !served(r)))
            on[1].fd = -1; /* it has gone, or says what no answer waits for */
    }
}

static const struct raw_output *find_output(const struct raw *r, uint32_t id)
{
    for (uint32_t i = 0; i < r->n_outputs; i++)
        if (r->outputs[i].id == id)
            return &r->outputs[i];
    fail_msg("an output in segment %u, which is not there", id);
    return NULL;
}

const void *raw_data(const struct raw *r, const struct raw_done *d, uint32_t part)
{
    const struct raw_output *o = find_output(r, d->parts[part].mem.segment);

    assert_true(part < d->done.n_parts);
    OK(xi_part_check(&d->parts[part], o->map.bytes, &err));
    return (const uint8_t *)o->map.base + d->parts[part].mem.offset;
}

void raw_release(struct raw *r, uint32_t lane, const struct raw_done *d)
{
    struct xi_work_head head = {.op = XI_WORK_RELEASE};

    for (uint32_t i = 0; i < d->done.n_parts; i++) {
        head.release = d->parts[i].mem;
        push(r, lane, &head, sizeof head);
    }
}

/* ---- end ---- */

int raw_end(struct raw *r)
{
    int code = -1, signo = 0;

    for (int i = 0; i < RAW_WAIT_MS / 50 && !xi_fd_wait_readable(r->pidfd, 50); i++)
        while (receive(r) > 0)
            (void)served(r);
    assert_true(xi_fd_wait_readable(r->pidfd, 0));
    assert_true(xi_process_reap(r->pid, &code, &signo));
    return signo != 0 ? -signo : code;
}

static int remove_entry(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st;
    (void)flag;
    (void)ftw;
    return remove(path);
}

void raw_clean(struct raw *r)
{
    for (int i = 0; i < RAW_LANES; i++)
        close_lane(&r->lanes[i]);
    for (uint32_t i = 0; i < r->n_outputs; i++)
        xi_map_close(&r->outputs[i].map);
    xi_map_close(&r->input);
    xi_fd_close(&r->input_fd);
    xi_fd_close(&r->control);
    xi_fd_close(&r->pidfd);
    xi_fd_close(&r->wait_fd);
    xi_fd_close(&r->answer_fd);
    (void)nftw(r->dir, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
}

void raw_close(struct raw *r)
{
    struct xi_msg_head quit;

    for (uint32_t i = 0; i < RAW_LANES; i++)
        if (r->lanes[i].map.base != NULL)
            quit_lane(r, i);
    raw_send(r, &quit, XI_MSG_QUIT, sizeof quit);
    assert_int_equal(raw_end(r), 0);
    raw_clean(r);
}
