#include "ipc/messages.h"

#include <stdlib.h>
#include <string.h>

#include "xinfer/engine.h"

void xi_msg_head_set(void *message, enum xi_msg_type type, uint32_t bytes)
{
    struct xi_msg_head *head = message;

    *head = (struct xi_msg_head){.magic = XI_LINK_MAGIC,
                                 .major = XI_LINK_MAJOR,
                                 .minor = XI_LINK_MINOR,
                                 .type = type,
                                 .bytes = bytes};
}

/* Bytes that a message of this type has at least; 0: no such type. */
static size_t fixed_bytes(uint32_t type)
{
    switch (type) {
    case XI_MSG_HELLO:
        return sizeof(struct xi_msg_hello);
    case XI_MSG_PROGRESS:
        return sizeof(struct xi_msg_progress);
    case XI_MSG_LOADED:
        return sizeof(struct xi_msg_loaded);
    case XI_MSG_FAILED:
        return sizeof(struct xi_msg_failed);
    case XI_MSG_NEED_OUTPUT:
    case XI_MSG_REFUSED:
        return sizeof(struct xi_msg_need_output);
    case XI_MSG_PROBED:
        return sizeof(struct xi_msg_probed) + sizeof(struct xi_engine_probe);
    case XI_MSG_INSTALLED:
        return sizeof(struct xi_msg_installed);
    case XI_MSG_DROPPED:
    case XI_MSG_DROP:
        return sizeof(struct xi_msg_drop);
    case XI_MSG_LANE:
        return sizeof(struct xi_msg_lane);
    case XI_MSG_LOAD:
        return sizeof(struct xi_msg_load);
    case XI_MSG_SEGMENT:
        return sizeof(struct xi_msg_segment);
    case XI_MSG_QUIT:
        return sizeof(struct xi_msg_head);
    case XI_MSG_UNLOAD:
    case XI_MSG_UNLOADED:
        return sizeof(struct xi_msg_unload);
    default:
        return 0;
    }
}

#define ENDS(text) (memchr((text), 0, sizeof(text)) != NULL)

static enum xi_rc endless(struct xi_err *err)
{
    return xi_fail(err, XI_EPROTO, "text of a message does not end");
}

static enum xi_rc check_port(const struct xi_msg_port *p, struct xi_err *err)
{
    if (p->dtype > XI_DT_BYTES || p->rank < -1 || p->rank > XI_MAX_RANK)
        return xi_fail(err, XI_EPROTO, "port of type %u and rank %d", p->dtype, (int)p->rank);
    for (int i = 0; i < p->rank; i++)
        if (p->dims[i] < -1)
            return xi_fail(err, XI_EPROTO, "port with dimension %lld", (long long)p->dims[i]);
    return ENDS(p->name) ? XI_OK : endless(err);
}

static enum xi_rc check_loaded(const struct xi_msg_loaded *m, size_t bytes, struct xi_err *err)
{
    struct xi_msg_port port;
    const uint8_t *tail = (const uint8_t *)m + sizeof *m;

    if (m->n_inputs > XI_TENSORS_MAX || m->n_outputs > XI_TENSORS_MAX ||
        m->n_states > XI_TENSORS_MAX)
        return xi_fail(err, XI_EPROTO, "%u inputs, %u outputs and %u states, allowed are %d each",
                       m->n_inputs, m->n_outputs, m->n_states, XI_TENSORS_MAX);
    if (m->max_batch < 1 || m->max_batch > XI_BATCH_MAX || m->stateful > XI_STATE_HIDDEN)
        return xi_fail(err, XI_EPROTO, "batch of %u, state of kind %u", m->max_batch, m->stateful);
    uint32_t n = m->n_inputs + m->n_outputs + m->n_states;
    if (bytes != sizeof *m + n * sizeof port)
        return xi_fail(err, XI_EPROTO, "%zu bytes do not hold %u ports", bytes, n);
    if (!ENDS(m->engine))
        return endless(err);
    for (uint32_t i = 0; i < n; i++) {
        memcpy(&port, tail + i * sizeof port, sizeof port);
        enum xi_rc rc = check_port(&port, err);
        if (rc != XI_OK)
            return rc;
    }
    return XI_OK;
}

static enum xi_rc check_probed(const struct xi_msg_probed *m, size_t bytes, struct xi_err *err)
{
    struct xi_engine_probe p;

    if (bytes != sizeof *m + sizeof p)
        return xi_fail(err, XI_EPROTO, "probe of %zu bytes", bytes);
    memcpy(&p, (const uint8_t *)m + sizeof *m, sizeof p);
    if (p.n_devices > XI_ENGINE_MAX_DEVICES || p.n_formats > XI_ENGINE_MAX_FORMATS)
        return xi_fail(err, XI_EPROTO, "probe of %u devices and %u formats", p.n_devices,
                       p.n_formats);
    int ends = ENDS(m->engine) && ENDS(p.version) && ENDS(p.missing);
    for (uint32_t i = 0; i < XI_ENGINE_MAX_DEVICES; i++)
        ends = ends && ENDS(p.devices[i].id) && ENDS(p.devices[i].name);
    for (uint32_t i = 0; i < XI_ENGINE_MAX_FORMATS; i++)
        ends = ends && ENDS(p.formats[i]);
    return ends ? XI_OK : endless(err);
}

static enum xi_rc check_failed(const struct xi_msg_failed *m, struct xi_err *err)
{
    if (!xi_rc_known(m->code) || m->code == XI_OK)
        return xi_fail(err, XI_EPROTO, "failure with code %d", (int)m->code);
    return ENDS(m->phase) && ENDS(m->text) && ENDS(m->hint) ? XI_OK : endless(err);
}

static enum xi_rc check_load(const struct xi_msg_load *m, struct xi_err *err)
{
    if (m->lane_count < 1 || m->lane_count > XI_LANES_MAX)
        return xi_fail(err, XI_EPROTO, "%u lanes, allowed are %d", m->lane_count, XI_LANES_MAX);
    if (m->stage_lanes > XI_LANES_MAX || m->max_batch < 1 || m->max_batch > XI_BATCH_MAX)
        return xi_fail(err, XI_EPROTO, "%u lanes for stages, batches of %u", m->stage_lanes,
                       m->max_batch);
    return ENDS(m->variant) && ENDS(m->device) && ENDS(m->max_shape) && ENDS(m->link_dir) &&
                   ENDS(m->cache_dir)
               ? XI_OK
               : endless(err);
}

static enum xi_rc check_body(const void *message, size_t bytes, uint32_t type, struct xi_err *err)
{
    switch (type) {
    case XI_MSG_LOADED:
        return check_loaded(message, bytes, err);
    case XI_MSG_PROBED:
        return check_probed(message, bytes, err);
    default:
        break;
    }
    if (bytes != fixed_bytes(type))
        return xi_fail(err, XI_EPROTO, "message %u of %zu bytes, its type has %zu", type, bytes,
                       fixed_bytes(type));
    switch (type) {
    case XI_MSG_HELLO:
        return ENDS(((const struct xi_msg_hello *)message)->sandbox) ? XI_OK : endless(err);
    case XI_MSG_PROGRESS:
        return ENDS(((const struct xi_msg_progress *)message)->phase) ? XI_OK : endless(err);
    case XI_MSG_FAILED:
        return check_failed(message, err);
    case XI_MSG_LOAD:
        return check_load(message, err);
    default:
        return XI_OK;
    }
}

enum xi_rc xi_msg_check(const void *message, size_t bytes, struct xi_err *err)
{
    struct xi_msg_head head;

    if (bytes < sizeof head || bytes > XI_MESSAGE_MAX)
        return xi_fail(err, XI_EPROTO, "message of %zu bytes", bytes);
    memcpy(&head, message, sizeof head);
    if (head.magic != XI_LINK_MAGIC)
        return xi_fail(err, XI_EPROTO, "message without the link's mark");
    if (head.major != XI_LINK_MAJOR)
        return xi_fail(err, XI_EVERSION, "peer speaks link protocol %u, this is %u", head.major,
                       XI_LINK_MAJOR);
    if (head.bytes != bytes)
        return xi_fail(err, XI_EPROTO, "message of %zu bytes says %u", bytes, head.bytes);
    size_t least = fixed_bytes(head.type);
    if (least == 0)
        return xi_fail(err, XI_EPROTO, "message of unknown type %u", head.type);
    if (bytes < least)
        return xi_fail(err, XI_EPROTO, "message %u of %zu bytes, its type has %zu", head.type,
                       bytes, least);
    return check_body(message, bytes, head.type, err);
}

static struct xi_port_spec *read_ports(const uint8_t *tail, uint32_t n)
{
    struct xi_port_spec *ret = calloc(n ? n : 1, sizeof *ret);
    struct xi_msg_port p;

    for (uint32_t i = 0; ret != NULL && i < n; i++) {
        memcpy(&p, tail + i * sizeof p, sizeof p);
        memcpy(ret[i].name, p.name, sizeof p.name);
        memcpy(ret[i].dims, p.dims, sizeof p.dims);
        ret[i].dtype = (enum xi_dtype)p.dtype;
        ret[i].rank = p.rank;
    }
    return ret;
}

enum xi_rc xi_msg_signature(const struct xi_msg_loaded *m, struct xi_signature *ret,
                            struct xi_err *err)
{
    const uint8_t *tail = (const uint8_t *)m + sizeof *m;
    struct xi_signature s = {.n_inputs = m->n_inputs, .n_outputs = m->n_outputs};

    s.inputs = read_ports(tail, s.n_inputs);
    s.outputs = read_ports(tail + s.n_inputs * sizeof(struct xi_msg_port), s.n_outputs);
    if (s.inputs == NULL || s.outputs == NULL) {
        xi_signature_fini(&s);
        return xi_fail(err, XI_ENOMEM, "no memory for a signature");
    }
    *ret = s;
    return XI_OK;
}

struct xi_msg_port xi_msg_port_of(const struct xi_port_spec *spec)
{
    struct xi_msg_port port = {.dtype = spec->dtype, .rank = spec->rank};

    memcpy(port.dims, spec->dims, sizeof port.dims);
    memcpy(port.name, spec->name, sizeof port.name);
    port.name[sizeof port.name - 1] = '\0';
    return port;
}

struct xi_msg_port xi_msg_state(const struct xi_msg_loaded *m, uint32_t index)
{
    struct xi_msg_port port;

    memcpy(&port,
           (const uint8_t *)m + sizeof *m + (m->n_inputs + m->n_outputs + index) * sizeof port,
           sizeof port);
    return port;
}

struct xi_msg_loaded *xi_msg_loaded_new(const struct xi_signature *s,
                                        const struct xi_msg_port *states, uint32_t n_states)
{
    size_t bytes = sizeof(struct xi_msg_loaded) +
                   (s->n_inputs + s->n_outputs + n_states) * sizeof(struct xi_msg_port);
    struct xi_msg_loaded *m = calloc(1, bytes);

    if (m == NULL)
        return NULL;
    struct xi_msg_port *port = (struct xi_msg_port *)(m + 1);
    xi_msg_head_set(m, XI_MSG_LOADED, (uint32_t)bytes);
    m->n_inputs = s->n_inputs;
    m->n_outputs = s->n_outputs;
    for (uint32_t i = 0; i < s->n_inputs; i++)
        *port++ = xi_msg_port_of(&s->inputs[i]);
    for (uint32_t i = 0; i < s->n_outputs; i++)
        *port++ = xi_msg_port_of(&s->outputs[i]);
    m->n_states = n_states;
    m->max_batch = 1;
    if (n_states > 0)
        memcpy(port, states, n_states * sizeof *states);
    return m;
}
