/* host_wire.c: control messages with a host. Each is copied out of the socket, checked whole, and
 * must fit where the conversation stands. */
#include <stdlib.h>
#include <string.h>

#include "base/platform/process.h"
#include "daemon/ipc/host_impl.h"

/* A host that leaves hundreds of messages unread does not live: there is nothing to queue for. */
enum xi_rc xi_host_send(struct xi_host *host, void *message, enum xi_msg_type type, size_t bytes,
                        const int *fds, size_t n_fds, struct xi_err *err)
{
    if (host->state >= XI_HOST_ENDED)
        return xi_fail(err, XI_EHOST, "host has ended");
    xi_msg_head_set(message, type, (uint32_t)bytes);
    enum xi_rc rc = xi_message_send(host->control_fd, message, bytes, fds, n_fds, err);
    if (rc == XI_OK)
        return XI_OK;
    xi_host_give_up(host, rc == XI_EAGAIN ? "did not read its control socket" : err->msg);
    return xi_fail(err, XI_EHOST, "host cannot be told: it does not read, or has gone");
}

/* ---- segments ---- */

/* Pushes onto a growing array of `size`-byte elements. */
static int grow(void **array, uint32_t *cap, uint32_t n, size_t size)
{
    if (n < *cap)
        return 0;
    uint32_t more = *cap ? 2 * *cap : 16;
    void *p = realloc(*array, more * size);
    if (p == NULL)
        return -1;
    *array = p;
    *cap = more;
    return 0;
}

static enum xi_rc send_segment(struct xi_host *host, const struct xi_segment *s,
                               enum xi_segment_use use, uint32_t lane, struct xi_err *err)
{
    struct xi_msg_segment m = {.segment = s->id, .use = use, .lane = lane, .bytes = s->map.bytes};

    return xi_host_send(host, &m, XI_MSG_SEGMENT, sizeof m, &s->fd, 1, err);
}

enum xi_rc xi_host_show_input(struct xi_host *host, const struct xi_segment *segment,
                              struct xi_err *err)
{
    for (uint32_t i = host->n_seen; i > 0; i--)
        if (host->seen[i - 1] == segment->id)
            return XI_OK;
    if (grow((void **)&host->seen, &host->cap_seen, host->n_seen, sizeof *host->seen) != 0)
        return xi_fail(err, XI_ENOMEM, "no memory for a host's list of segments");
    enum xi_rc rc = send_segment(host, segment, XI_SEGMENT_INPUT, 0, err);
    if (rc == XI_OK)
        host->seen[host->n_seen++] = segment->id;
    return rc;
}

void xi_host_forget_segment(struct xi_host *host, uint32_t segment_id)
{
    struct xi_msg_drop m = {.segment = segment_id};
    struct xi_err err;

    for (uint32_t i = 0; i < host->n_seen; i++) {
        if (host->seen[i] != segment_id)
            continue;
        memmove(&host->seen[i], &host->seen[i + 1], (host->n_seen - i - 1) * sizeof *host->seen);
        host->n_seen--;
        if (host->state <= XI_HOST_ENDING) /* a failure shows as its end */
            (void)!xi_host_send(host, &m, XI_MSG_DROP, sizeof m, NULL, 0, &err);
        return;
    }
}

struct xi_segment *xi_host_output_find(struct xi_host *host, uint32_t id)
{
    for (uint32_t i = host->n_outputs; i > 0; i--)
        if (host->outputs[i - 1]->id == id)
            return host->outputs[i - 1];
    return NULL;
}

void xi_host_outputs_fini(struct xi_host *host)
{
    for (uint32_t i = 0; i < host->n_outputs; i++)
        xi_segment_put(host->outputs[i]);
    free(host->outputs);
    free(host->seen);
    host->outputs = NULL;
    host->seen = NULL;
    host->n_outputs = host->n_seen = 0;
}

static enum xi_rc grant(struct xi_host *host, uint32_t lane, uint64_t bytes, struct xi_err *err)
{
    struct xi_segment *s;

    if (bytes == 0 || bytes > host->output_limit_bytes - host->output_bytes ||
        host->n_outputs >= XI_HOST_OUTPUTS_MAX)
        return xi_fail(err, XI_EBUDGET, "output memory is used up");
    if (grow((void **)&host->outputs, &host->cap_outputs, host->n_outputs, sizeof *host->outputs) !=
        0)
        return xi_fail(err, XI_ENOMEM, "no memory for a host's list of segments");
    enum xi_rc rc = xi_segment_output(host->shm, bytes, &s, err);
    if (rc != XI_OK)
        return rc;
    rc = send_segment(host, s, XI_SEGMENT_OUTPUT, lane, err);
    if (rc != XI_OK) {
        xi_segment_put(s);
        return rc;
    }
    xi_fd_close(&s->fd); /* the mapping is all that is needed from here on */
    host->outputs[host->n_outputs++] = s;
    host->output_bytes += s->map.bytes;
    return XI_OK;
}

static void on_need_output(struct xi_host *host, const struct xi_msg_need_output *m)
{
    struct xi_msg_need_output refused = {.lane = m->lane, .bytes = m->bytes};
    struct xi_err err;

    if (m->lane >= host->n_lanes) {
        xi_host_broke(host, "memory wanted for a lane that does not exist");
        return;
    }
    if (grant(host, m->lane, m->bytes, &err) != XI_OK && host->state == XI_HOST_RUNS)
        (void)!xi_host_send(host, &refused, XI_MSG_REFUSED, sizeof refused, NULL, 0, &err);
}

/* Replies that still lie in it keep their own reference. */
static void on_dropped(struct xi_host *host, const struct xi_msg_drop *m)
{
    for (uint32_t i = 0; i < host->n_outputs; i++) {
        struct xi_segment *s = host->outputs[i];
        if (s->id != m->segment)
            continue;
        host->outputs[i] = host->outputs[--host->n_outputs];
        host->output_bytes -= s->map.bytes;
        xi_segment_put(s);
        return;
    }
    xi_host_broke(host, "a segment given back that it does not have");
}

/* ---- the conversation ---- */

static void on_hello(struct xi_host *host, const struct xi_msg_hello *m)
{
    if (host->hello || m->role != (uint32_t)host->role) {
        xi_host_broke(host, host->hello ? "a second HELLO" : "HELLO in another role");
        return;
    }
    host->hello = 1;
    memcpy(host->sandbox, m->sandbox, sizeof host->sandbox);
}

static void on_loaded(struct xi_host *host, const struct xi_msg_loaded *m)
{
    struct xi_signature s;
    struct xi_err err;

    if (m->lane_count != host->n_lanes) {
        xi_host_broke(host, "loaded for lanes that do not exist");
        return;
    }
    if (xi_msg_signature(m, &s, &err) != XI_OK) {
        xi_host_give_up(host, err.msg);
        return;
    }
    if (host->events.loaded != NULL)
        host->events.loaded(host->events.ctx, host, m, &s);
    else
        xi_signature_fini(&s);
}

static void on_failed(struct xi_host *host, const struct xi_msg_failed *m)
{
    struct xi_err err;

    (void)xi_fail(&err, (enum xi_rc)m->code, "%s", m->text);
    if (m->hint[0] != '\0')
        (void)xi_hint(&err, "%s", m->hint);
    if (host->events.failed != NULL)
        host->events.failed(host->events.ctx, host, &err, m->phase);
}

static void on_probed(struct xi_host *host, const struct xi_msg_probed *m)
{
    struct xi_engine_probe probe;

    memcpy(&probe, (const uint8_t *)m + sizeof *m, sizeof probe);
    if (host->events.probed != NULL)
        host->events.probed(host->events.ctx, host, m, &probe);
}

/* The one answer of a role: LOADED, PROBED, INSTALLED or FAILED. 0: it is not due. */
static int is_due(struct xi_host *host, enum xi_host_role role)
{
    if (host->role != role || host->answered || (role == XI_HOST_RUN && !host->load_asked)) {
        xi_host_broke(host, "an answer that was not asked for");
        return 0;
    }
    host->answered = 1;
    return 1;
}

static void on_progress(struct xi_host *host, const struct xi_msg_progress *m)
{
    if (host->events.progress != NULL && !host->answered)
        host->events.progress(host->events.ctx, host, m);
}

static void dispatch(struct xi_host *host, const void *m, uint32_t type)
{
    switch (type) {
    case XI_MSG_HELLO:
        on_hello(host, m);
        break;
    case XI_MSG_PROGRESS:
        on_progress(host, m);
        break;
    case XI_MSG_LOADED:
        if (is_due(host, XI_HOST_RUN))
            on_loaded(host, m);
        break;
    case XI_MSG_FAILED:
        if (is_due(host, host->role))
            on_failed(host, m);
        break;
    case XI_MSG_PROBED:
        if (is_due(host, XI_HOST_PROBE))
            on_probed(host, m);
        break;
    case XI_MSG_INSTALLED:
        if (is_due(host, XI_HOST_INSTALL) && host->events.installed != NULL)
            host->events.installed(host->events.ctx, host,
                                   ((const struct xi_msg_installed *)m)->record_bytes);
        break;
    case XI_MSG_NEED_OUTPUT:
        on_need_output(host, m);
        break;
    case XI_MSG_DROPPED:
        on_dropped(host, m);
        break;
    default:
        xi_host_broke(host, "a message that only the daemon sends");
    }
}

static void on_message(struct xi_host *host, size_t bytes)
{
    struct xi_err err;

    if (!xi_rate_allows(&host->messages, XI_HOST_MESSAGES_PER_S)) {
        xi_host_broke(host, "a flood of messages");
        return;
    }
    if (xi_msg_check(host->inbox, bytes, &err) != XI_OK) {
        xi_host_broke(host, err.msg);
        return;
    }
    uint32_t type = ((const struct xi_msg_head *)host->inbox)->type;
    if (!host->hello && type != XI_MSG_HELLO)
        xi_host_broke(host, "no HELLO to begin with");
    else
        dispatch(host, host->inbox, type);
}

int xi_host_read_messages(struct xi_host *host, uint32_t max)
{
    int fds[XI_MESSAGE_FDS_MAX];
    size_t bytes = 0, n_fds = 0;
    struct xi_err err;

    for (uint32_t i = 0; i < max; i++) {
        if (host->lied)
            return 0;
        enum xi_rc rc = xi_message_recv(host->control_fd, host->inbox, sizeof host->inbox, &bytes,
                                        fds, &n_fds, &err);
        if (rc == XI_EPROTO)
            xi_host_broke(host, err.msg);
        if (rc != XI_OK)
            return rc == XI_EHOST ? -1 : 0;
        for (size_t k = 0; k < n_fds; k++)
            xi_fd_close(&fds[k]);
        if (n_fds > 0)
            xi_host_broke(host, "a descriptor, which no host may pass");
        else
            on_message(host, bytes);
    }
    return 1;
}

enum xi_rc xi_host_load(struct xi_host *host, struct xi_msg_load *load, struct xi_err *err)
{
    XI_ASSERT(host->role == XI_HOST_RUN && !host->load_asked);
    if (load->lane_count < 1 || load->lane_count > XI_LANES_MAX)
        return xi_fail(err, XI_EINVAL, "%u lanes, allowed are %d", load->lane_count, XI_LANES_MAX);
    enum xi_rc rc = xi_host_lanes_open(host, load->lane_count, err);
    if (rc != XI_OK)
        return rc;
    rc = xi_host_send(host, load, XI_MSG_LOAD, sizeof *load, NULL, 0, err);
    if (rc == XI_OK)
        host->load_asked = 1;
    return rc;
}
