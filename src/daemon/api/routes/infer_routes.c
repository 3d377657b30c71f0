/* POST /v1/infer/{id}: the head is read here and in infer_head.c, the body in infer_body.c, the
 * answer is written in infer_answer.c. POST /v1/echo. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/api/infer.h"

#define DEADLINE_MAX_MS 3600000

static enum xi_rc read_sequence(struct xi_exchange *x, struct xi_sequence_ask *ret,
                                struct xi_err *err)
{
    const char *value = xi_http_header(&x->stream, "xinfer-sequence");

    ret->id[0] = '\0';
    return value == NULL ? XI_OK : xi_sequence_parse(value, ret, err);
}

static enum xi_rc read_priority(struct xi_exchange *x, struct xi_infer *inf, struct xi_err *err)
{
    static const char *const names[] = {"realtime", "normal", "batch"};
    const char *value = xi_http_header(&x->stream, "xinfer-priority");

    if (value == NULL)
        return XI_OK;
    for (int i = 0; i < 3; i++)
        if (strcmp(value, names[i]) == 0) {
            inf->call.priority = (enum xi_priority)i;
            return XI_OK;
        }
    return xi_fail(err, XI_EINVAL, "Xinfer-Priority: \"%.20s\" is none of realtime, normal, batch",
                   value);
}

static enum xi_rc read_deadline(struct xi_exchange *x, uint64_t *ret, struct xi_err *err)
{
    const char *value = xi_http_header(&x->stream, "xinfer-deadline-ms");
    size_t n = value ? strlen(value) : 0;

    *ret = 0;
    if (value == NULL)
        return XI_OK;
    long ms = n > 0 && n < 9 && strspn(value, "0123456789") == n ? strtol(value, NULL, 10) : 0;
    if (ms < 1 || ms > DEADLINE_MAX_MS)
        return xi_fail(err, XI_EINVAL, "Xinfer-Deadline-Ms: \"%.20s\" is not 1 to %d", value,
                       DEADLINE_MAX_MS);
    *ret = x->born_ns + (uint64_t)ms * 1000000;
    return XI_OK;
}

static enum xi_rc read_accept(struct xi_exchange *x, struct xi_infer *inf, struct xi_err *err)
{
    const struct xi_session *s = inf->call.session;

    if (xi_accepts(x, "multipart/mixed"))
        inf->accept = XI_ACCEPT_BOTH;
    else if (xi_accepts(x, "application/json"))
        inf->accept = XI_ACCEPT_JSON;
    else if (xi_accepts(x, "image/jpeg") || xi_accepts(x, "image/*"))
        inf->accept = XI_ACCEPT_PICTURE;
    else if (xi_accepts(x, "application/octet-stream"))
        inf->accept = XI_ACCEPT_BINARY;
    else
        inf->accept = XI_ACCEPT_JSON;
    int picture = inf->accept == XI_ACCEPT_PICTURE || inf->accept == XI_ACCEPT_BOTH;
    if (picture && (inf->input != XI_INPUT_FILE || !s->draws)) {
        (void)xi_fail(err, XI_EUNSUPPORTED, "\"%.60s\" cannot answer with a picture", s->name);
        return xi_hint(err, "ask with Accept: application/json");
    }
    if (inf->accept == XI_ACCEPT_BINARY && inf->input == XI_INPUT_FILE) {
        (void)xi_fail(err, XI_EUNSUPPORTED, "a flow's answer is JSON or a picture, not tensors");
        return xi_hint(err, "send tensors to get tensors, or ask with Accept: application/json");
    }
    return XI_OK;
}

/* Raw bytes that nothing describes: what this model would like instead. */
static enum xi_rc no_description(const struct xi_session *s, struct xi_err *err)
{
    const struct xi_port_spec *in = &s->signature.inputs[0];
    char shape[100] = "";
    size_t used = 0;

    if (s->has_flow && s->takes_image) {
        (void)xi_fail(err, XI_EIMAGE,
                      "\"%.60s\" takes a JPEG or a PNG, and these bytes are neither", s->name);
        return xi_hint(err, "say Content-Type: image/jpeg or image/png and send a picture");
    }
    (void)xi_fail(err, XI_EINVAL, "raw bytes need Xinfer-Dtype and Xinfer-Shape");
    if (s->signature.n_inputs != 1 || in->rank < 1)
        return xi_hint(err, "such as Xinfer-Dtype: FP32 and Xinfer-Shape: 1,300,300,3");
    for (int i = 0; i < in->rank && used + 24 < sizeof shape; i++)
        used += (size_t)snprintf(shape + used, sizeof shape - used, i ? ",%lld" : "%lld",
                                 (long long)(in->dims[i] < 0 ? 1 : in->dims[i]));
    return xi_hint(err, "such as Xinfer-Dtype: %s and Xinfer-Shape: %s", xi_dtype_name(in->dtype),
                   shape);
}

/* Body is one tensor: everything but its bytes is in two headers. */
static enum xi_rc read_raw(struct xi_exchange *x, struct xi_infer *inf, struct xi_err *err)
{
    const struct xi_session *s = inf->call.session;
    const char *dtype = xi_http_header(&x->stream, "xinfer-dtype");
    const char *shape = xi_http_header(&x->stream, "xinfer-shape");
    uint64_t length = xi_body_length(x);
    enum xi_rc rc;

    if (dtype == NULL || shape == NULL)
        return no_description(s, err);
    inf->dtype = xi_dtype_parse(dtype);
    if (inf->dtype == XI_DT_UNKNOWN)
        return xi_fail(err, XI_ETENSOR, "Xinfer-Dtype: \"%.20s\" is no datatype", dtype);
    rc = xi_shape_parse(shape, 0, inf->dims, &inf->rank, err);
    if (rc != XI_OK)
        return rc;
    if (s->signature.n_inputs != 1)
        return xi_fail(err, XI_ETENSOR, "\"%.60s\" has %u inputs, raw bytes are one", s->name,
                       s->signature.n_inputs);
    if (length == XI_HTTP_NO_LENGTH || inf->dtype == XI_DT_BYTES)
        return XI_OK; /* known when it is here */
    struct xi_tensor t = xi_tensor_make(inf->dtype, inf->dims, inf->rank, NULL, length);
    return xi_port_check(&s->signature.inputs[0], &t, err);
}

static enum xi_rc no_tensors(const struct xi_session *s, struct xi_err *err)
{
    if (s->signature.n_inputs > 0)
        return XI_OK;
    (void)xi_fail(err, XI_EAGAIN, "\"%.60s\" does not say its inputs yet", s->name);
    return err->rc;
}

/* A flow that takes no picture takes bytes as they are: sound, or whatever its package wants. */
static int takes_bytes(const struct xi_session *s)
{
    return s->has_flow && !s->takes_image;
}

static enum xi_rc read_sound(const struct xi_session *s, struct xi_infer *inf, struct xi_err *err)
{
    inf->input = XI_INPUT_FILE;
    inf->dtype = XI_DT_UNKNOWN;
    if (takes_bytes(s))
        return XI_OK;
    (void)xi_fail(err, XI_EMEDIA, "\"%.60s\" takes no sound", s->name);
    return xi_hint(err, s->takes_image ? "send a JPEG or a PNG" : "send its tensors");
}

/* Octets without a shape, for such a flow. */
static enum xi_rc read_octets(struct xi_exchange *x, struct xi_infer *inf, struct xi_err *err)
{
    const char *dtype = xi_http_header(&x->stream, "xinfer-dtype");

    inf->input = XI_INPUT_FILE;
    inf->dtype = dtype != NULL ? xi_dtype_parse(dtype) : XI_DT_UNKNOWN;
    if (dtype == NULL || inf->dtype == XI_DT_FP32 || inf->dtype == XI_DT_INT16)
        return XI_OK;
    (void)xi_fail(err, XI_ETENSOR, "Xinfer-Dtype: \"%.20s\" without a shape", dtype);
    return xi_hint(err, "raw sound is INT16 or FP32; a tensor also has an Xinfer-Shape");
}

static enum xi_rc read_input_kind(struct xi_exchange *x, struct xi_infer *inf, struct xi_err *err)
{
    const struct xi_session *s = inf->call.session;
    const char *header = xi_http_header(&x->stream, "inference-header-content-length");
    char type[64];
    enum xi_rc rc;

    xi_http_media_type(xi_http_header(&x->stream, "content-type"), type, sizeof type);
    unsigned bit = xi_type_bit(type);
    if (bit & (XI_TYPE_JPEG | XI_TYPE_PNG)) {
        inf->input = XI_INPUT_FILE;
        inf->dtype = XI_DT_UNKNOWN;
        if (s->has_flow && s->takes_image)
            return XI_OK;
        if (takes_bytes(s)) {
            (void)xi_fail(err, XI_EMEDIA, "\"%.60s\" takes no pictures", s->name);
            return xi_hint(err, "send audio/wav, or application/octet-stream as its flow wants it");
        }
        (void)xi_fail(err, XI_EMEDIA, "\"%.60s\" takes tensors, no pictures", s->name);
        return xi_hint(err, "send application/octet-stream with Xinfer-Dtype and Xinfer-Shape, or "
                            "a package with a flow");
    }
    if (bit == XI_TYPE_WAV)
        return read_sound(s, inf, err);
    rc = no_tensors(s, err);
    if (rc != XI_OK)
        return rc;
    if (bit == XI_TYPE_OCTETS && header == NULL && takes_bytes(s) &&
        xi_http_header(&x->stream, "xinfer-shape") == NULL)
        return read_octets(x, inf, err);
    if (header != NULL || bit == XI_TYPE_JSON)
        return xi_infer_read_layout(inf, header, err);
    inf->input = XI_INPUT_RAW;
    return read_raw(x, inf, err);
}

/* The session is known: the rest of the head. */
static enum xi_rc read_head(struct xi_exchange *x, struct xi_infer *inf, struct xi_err *err)
{
    enum xi_rc rc = read_input_kind(x, inf, err);

    if (rc == XI_OK)
        rc = read_accept(x, inf, err);
    if (rc == XI_OK)
        rc = read_priority(x, inf, err);
    if (rc == XI_OK)
        rc = read_deadline(x, &inf->call.deadline_ns, err);
    inf->call.binary_all = inf->accept == XI_ACCEPT_BINARY;
    return rc;
}

/* Where the session stands, the body can come. */
static void go_on(struct xi_exchange *x)
{
    struct xi_err err = {0};

    x->infer->protocol = 0;
    if (read_head(x, x->infer, &err) != XI_OK) {
        xi_answer_problem(x, &err);
        return;
    }
    xi_infer_welcome(x->infer);
}

void xi_infer_begin(struct xi_exchange *x)
{
    struct xi_sequence_ask sequence;
    struct xi_err err = {0};
    uint64_t deadline_ns = 0;

    if (read_sequence(x, &sequence, &err) != XI_OK || read_deadline(x, &deadline_ns, &err) != XI_OK)
        xi_answer_problem(x, &err);
    else
        xi_infer_enter(x, &sequence, deadline_ns, go_on);
}

void xi_infer_run(struct xi_exchange *x)
{
    xi_infer_read_body(x->infer);
}

void xi_echo_run(struct xi_exchange *x)
{
    uint64_t n = xi_body_bytes(x);

    x->n_pieces = 0;
    xi_answer_add(x, xi_body_data(x), (size_t)n);
    xi_answer_pieces(x, 200, "application/octet-stream");
}
