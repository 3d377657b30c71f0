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

/* NULL: it has no such session. */
static struct xi_host_session *find_session(struct xi_host *host, uint32_t number)
{
    for (uint32_t i = 0; i < host->n_sessions; i++)
        if (host->sessions[i].number == number)
            return &host->sessions[i];
    return NULL;
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
    struct xi_msg_segment m = {
        .segment = s->id, .use = use, .lane = lane, .bytes = s->map.bytes, .from = s->from};

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
    enum xi_segment_use use = segment->writable ? XI_SEGMENT_CLIENT_OUTPUT
                              : segment->client ? XI_SEGMENT_CLIENT
                                                : XI_SEGMENT_INPUT;
    enum xi_rc rc = send_segment(host, segment, use, 0, err);
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

struct xi_host_output *xi_host_output_find(struct xi_host *host, uint32_t id)
{
    for (uint32_t i = host->n_outputs; i > 0; i--)
        if (host->outputs[i - 1].segment->id == id)
            return &host->outputs[i - 1];
    return NULL;
}

void xi_host_outputs_fini(struct xi_host *host)
{
    for (uint32_t i = 0; i < host->n_outputs; i++)
        xi_segment_put(host->outputs[i].segment);
    free(host->outputs);
    free(host->seen);
    host->outputs = NULL;
    host->seen = NULL;
    host->n_outputs = host->n_seen = 0;
}

static void forget_output(struct xi_host *host, uint32_t at)
{
    struct xi_segment *s = host->outputs[at].segment;

    host->outputs[at] = host->outputs[--host->n_outputs];
    host->output_bytes -= s->map.bytes;
    xi_segment_put(s);
}

/* Replies that still lie in them keep their own reference. */
static void drop_outputs(struct xi_host *host, const struct xi_host_session *s)
{
    for (uint32_t i = host->n_outputs; i > 0; i--)
        if (host->outputs[i - 1].lane - s->first_lane < s->n_lanes)
            forget_output(host, i - 1);
}

/* A load that failed may have asked for memory that is still on its way there: it comes back. */
static void orphan_outputs(struct xi_host *host, const struct xi_host_session *s)
{
    for (uint32_t i = 0; i < host->n_outputs; i++)
        if (host->outputs[i].lane - s->first_lane < s->n_lanes)
            host->outputs[i].lane = UINT32_MAX;
}

/* Its lanes' numbers may come again. */
static void forget_session(struct xi_host *host, struct xi_host_session *s)
{
    xi_host_lanes_close_range(host, s->first_lane, s->n_lanes);
    *s = host->sessions[--host->n_sessions];
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
    host->outputs[host->n_outputs++] = (struct xi_host_output){.segment = s, .lane = lane};
    host->output_bytes += s->map.bytes;
    return XI_OK;
}

static void on_need_output(struct xi_host *host, const struct xi_msg_need_output *m)
{
    struct xi_msg_need_output refused = {.lane = m->lane, .bytes = m->bytes};
    struct xi_err err;

    if (m->lane >= host->n_lanes || host->lanes[m->lane] == NULL) {
        xi_host_broke(host, "memory wanted for a lane that does not exist");
        return;
    }
    /* A lane that was told to go reads nothing any more. */
    if (find_session(host, host->lanes[m->lane]->session)->told)
        return;
    if (grant(host, m->lane, m->bytes, &err) != XI_OK && host->state == XI_HOST_RUNS)
        (void)!xi_host_send(host, &refused, XI_MSG_REFUSED, sizeof refused, NULL, 0, &err);
}

/* Replies that still lie in it keep their own reference. */
static void on_dropped(struct xi_host *host, const struct xi_msg_drop *m)
{
    for (uint32_t i = 0; i < host->n_outputs; i++) {
        if (host->outputs[i].segment->id != m->segment)
            continue;
        forget_output(host, i);
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
    struct xi_host_session *session = find_session(host, m->session);
    struct xi_signature s;
    struct xi_err err;

    if (session == NULL || (session->state != XI_LOAD_ASKED && session->state != XI_LOAD_LEAVING)) {
        xi_host_broke(host, "an answer that was not asked for");
        return;
    }
    if (m->lane_count != session->lane_count) {
        xi_host_broke(host, "loaded for lanes that do not exist");
        return;
    }
    if (session->state == XI_LOAD_LEAVING)
        return; /* nobody wants it any more */
    session->state = XI_LOAD_DONE;
    if (xi_msg_signature(m, &s, &err) != XI_OK) {
        xi_host_give_up(host, err.msg);
        return;
    }
    if (host->events.loaded != NULL)
        host->events.loaded(host->events.ctx, host, m, &s);
    else
        xi_signature_fini(&s);
}

/* The one answer of a role other than run, and of a host that cannot begin. 0: it is not due. */
static int is_due(struct xi_host *host, int asked)
{
    if (!asked || host->answered) {
        xi_host_broke(host, "an answer that was not asked for");
        return 0;
    }
    host->answered = 1;
    return 1;
}

/* Is it a load's, or the host's own? A load that failed has gone. */
static int failure_is_due(struct xi_host *host, uint32_t number)
{
    struct xi_host_session *s = find_session(host, number);

    if (host->role != XI_HOST_RUN || number == 0)
        return is_due(host, host->role != XI_HOST_RUN || host->n_sessions > 0);
    if (s != NULL && s->state == XI_LOAD_LEAVING)
        return 0;
    if (s == NULL || s->state != XI_LOAD_ASKED) {
        xi_host_broke(host, "an answer that was not asked for");
        return 0;
    }
    orphan_outputs(host, s);
    forget_session(host, s);
    return 1;
}

static void on_failed(struct xi_host *host, const struct xi_msg_failed *m)
{
    struct xi_err err;

    if (!failure_is_due(host, m->session))
        return;
    (void)xi_fail(&err, (enum xi_rc)m->code, "%s", m->text);
    if (m->hint[0] != '\0')
        (void)xi_hint(&err, "%s", m->hint);
    if (host->events.failed != NULL)
        host->events.failed(host->events.ctx, host, m->session, &err, m->phase);
}

static void on_unloaded(struct xi_host *host, const struct xi_msg_unload *m)
{
    struct xi_host_session *s = find_session(host, m->session);

    if (s == NULL || s->state != XI_LOAD_LEAVING || !s->told) {
        xi_host_broke(host, "unloaded what nobody wanted gone");
        return;
    }
    drop_outputs(host, s);
    forget_session(host, s);
    if (host->events.unloaded != NULL)
        host->events.unloaded(host->events.ctx, host, m);
}

static void on_probed(struct xi_host *host, const struct xi_msg_probed *m)
{
    struct xi_engine_probe probe;

    memcpy(&probe, (const uint8_t *)m + sizeof *m, sizeof probe);
    if (host->events.probed != NULL)
        host->events.probed(host->events.ctx, host, m, &probe);
}

/* Only of a load under way; late ones mean nothing. */
static void on_progress(struct xi_host *host, const struct xi_msg_progress *m)
{
    const struct xi_host_session *s = find_session(host, m->session);

    if (host->role == XI_HOST_RUN && s == NULL && m->session != 0) {
        xi_host_broke(host, "progress of a session that it does not have");
        return;
    }
    if (s != NULL && s->state != XI_LOAD_ASKED)
        return;
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
        on_loaded(host, m);
        break;
    case XI_MSG_UNLOADED:
        on_unloaded(host, m);
        break;
    case XI_MSG_FAILED:
        on_failed(host, m);
        break;
    case XI_MSG_PROBED:
        if (is_due(host, host->role == XI_HOST_PROBE))
            on_probed(host, m);
        break;
    case XI_MSG_INSTALLED:
        if (is_due(host, host->role == XI_HOST_INSTALL) && host->events.installed != NULL)
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

/* ---- sessions ---- */

enum xi_rc xi_host_load(struct xi_host *host, struct xi_msg_load *load, int nice,
                        struct xi_err *err)
{
    struct xi_host_session s = {.number = load->session,
                                .first_lane = load->first_lane,
                                .n_lanes = load->lane_count + load->stage_lanes,
                                .lane_count = load->lane_count};

    XI_ASSERT(host->role == XI_HOST_RUN && find_session(host, load->session) == NULL);
    if (load->lane_count < 1 || load->lane_count > XI_LANES_MAX || load->stage_lanes > XI_LANES_MAX)
        return xi_fail(err, XI_EINVAL, "%u lanes and %u for stages, allowed are %d each",
                       load->lane_count, load->stage_lanes, XI_LANES_MAX);
    XI_ASSERT(s.first_lane + s.n_lanes <= XI_HOST_LANES_MAX);
    if (host->state != XI_HOST_RUNS)
        return xi_fail(err, XI_EHOST, "host is ending");
    if (host->n_sessions == XI_HOST_SESSIONS_MAX)
        return xi_fail(err, XI_EAGAIN, "%u sessions share the host, %d may", host->n_sessions,
                       XI_HOST_SESSIONS_MAX);
    enum xi_rc rc = xi_host_lanes_open(host, &s, nice, err);
    if (rc != XI_OK)
        return rc;
    rc = xi_host_send(host, load, XI_MSG_LOAD, sizeof *load, NULL, 0, err);
    if (rc != XI_OK)
        xi_host_lanes_close_range(host, s.first_lane, s.n_lanes);
    else
        host->sessions[host->n_sessions++] = s;
    return rc;
}

static int in_flight(const struct xi_host *host, const struct xi_host_session *s)
{
    for (uint32_t i = s->first_lane; i < s->first_lane + s->n_lanes; i++)
        if (host->lanes[i]->n_in_flight > 0)
            return 1;
    return 0;
}

static enum xi_rc tell_unload(struct xi_host *host, struct xi_host_session *s, struct xi_err *err)
{
    struct xi_msg_unload m = {.session = s->number};

    if (s->told || in_flight(host, s))
        return XI_OK;
    s->told = 1;
    if (!xi_host_lanes_quit(host, s->first_lane, s->n_lanes)) {
        xi_host_give_up(host, "has no room for the end of a session");
        return xi_fail(err, XI_EHOST, "host cannot be told");
    }
    return xi_host_send(host, &m, XI_MSG_UNLOAD, sizeof m, NULL, 0, err);
}

void xi_host_unload_when_idle(struct xi_host *host, uint32_t session)
{
    struct xi_host_session *s = find_session(host, session);
    struct xi_err err;

    if (s != NULL && s->state == XI_LOAD_LEAVING && host->state == XI_HOST_RUNS)
        (void)!tell_unload(host, s, &err); /* a failure shows as its end */
}

enum xi_rc xi_host_unload(struct xi_host *host, uint32_t session, struct xi_err *err)
{
    struct xi_host_session *s = find_session(host, session);

    XI_ASSERT(s != NULL && s->state != XI_LOAD_LEAVING);
    if (host->state != XI_HOST_RUNS)
        return xi_fail(err, XI_EHOST, "host is ending");
    s->state = XI_LOAD_LEAVING;
    return tell_unload(host, s, err);
}
