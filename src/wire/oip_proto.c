#include "wire/oip_proto.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "wire/oip_proto_data.h"
#include "wire/protobuf.h"

/* Field numbers of proto/grpc_service.proto. */
enum { REQ_MODEL = 1, REQ_VERSION, REQ_ID, REQ_PARAMETERS, REQ_INPUTS, REQ_OUTPUTS, REQ_RAW };
enum { IN_NAME = 1, IN_DATATYPE, IN_SHAPE, IN_PARAMETERS, IN_CONTENTS };
enum { OUT_NAME = 1, OUT_PARAMETERS };
enum { PARAM_BOOL = 1, PARAM_INT64, PARAM_STRING, PARAM_DOUBLE, PARAM_UINT64 };
enum { ENTRY_KEY = 1, ENTRY_VALUE };

struct reading {
    const uint8_t *start;
    struct xi_oip_request *r;
    uint32_t n_raw;
    struct {
        uint64_t at, bytes;
    } raw[XI_TENSORS_MAX];
};

/* One entry of a map of InferParameter. */
struct parameter {
    struct xi_pb_field key, text;
    uint32_t choice; /* PARAM_…; 0: none */
    uint64_t value;
};

static enum xi_rc read_choice(const struct xi_pb_field *value, struct parameter *p,
                              struct xi_err *err)
{
    static const enum xi_pb_type types[] = {[PARAM_BOOL] = XI_PB_VARINT,
                                            [PARAM_INT64] = XI_PB_VARINT,
                                            [PARAM_STRING] = XI_PB_BYTES,
                                            [PARAM_DOUBLE] = XI_PB_64,
                                            [PARAM_UINT64] = XI_PB_VARINT};
    struct xi_pb in = xi_pb_make(value->data, (size_t)value->bytes);
    struct xi_pb_field f;
    int more;

    while ((more = xi_pb_next(&in, &f)) > 0) {
        if (f.number < PARAM_BOOL || f.number > PARAM_UINT64)
            continue;
        enum xi_rc rc = xi_pb_want(&f, types[f.number], "InferParameter", "parameter_choice", err);
        if (rc != XI_OK)
            return rc;
        p->choice = f.number;
        p->value = f.value;
        p->text = f;
    }
    return more < 0 ? xi_pb_broken("InferParameter", err) : XI_OK;
}

static enum xi_rc read_parameter(const struct xi_pb_field *entry, struct parameter *p,
                                 struct xi_err *err)
{
    struct xi_pb in = xi_pb_make(entry->data, (size_t)entry->bytes);
    enum xi_rc rc = xi_pb_want(entry, XI_PB_BYTES, "message", "parameters", err);
    struct xi_pb_field f;
    int more = 0;

    *p = (struct parameter){.key.data = (const uint8_t *)""};
    while (rc == XI_OK && (more = xi_pb_next(&in, &f)) > 0) {
        if (f.number != ENTRY_KEY && f.number != ENTRY_VALUE)
            continue;
        rc =
            xi_pb_want(&f, XI_PB_BYTES, "parameters", f.number == ENTRY_KEY ? "key" : "value", err);
        if (rc == XI_OK && f.number == ENTRY_KEY)
            p->key = f;
        else if (rc == XI_OK)
            rc = read_choice(&f, p, err);
    }
    return rc == XI_OK && more < 0 ? xi_pb_broken("parameters", err) : rc;
}

static enum xi_rc get_uint(const struct parameter *p, const char *key, uint64_t *ret,
                           struct xi_err *err)
{
    if (p->choice != PARAM_UINT64 && (p->choice != PARAM_INT64 || p->value > INT64_MAX))
        return xi_fail(err, XI_EINVAL, "parameter \"%s\" must be a whole number", key);
    *ret = p->value;
    return XI_OK;
}

static enum xi_rc get_bool(const struct parameter *p, const char *key, int *ret, struct xi_err *err)
{
    if (p->choice != PARAM_BOOL)
        return xi_fail(err, XI_EINVAL, "parameter \"%s\" must be true or false", key);
    *ret = p->value != 0;
    return XI_OK;
}

static enum xi_rc get_text(const struct parameter *p, const char *key, char *ret, size_t room,
                           struct xi_err *err)
{
    if (p->choice != PARAM_STRING)
        return xi_fail(err, XI_EINVAL, "parameter \"%s\" must be a string", key);
    return xi_pb_text(&p->text, key, ret, room, err);
}

/* A number is its decimal digits, and 0 is none, as with tritonclient. */
static enum xi_rc get_sequence(const struct parameter *p, struct xi_oip_parameters *ret,
                               struct xi_err *err)
{
    uint64_t id = 0;

    if (p->choice == PARAM_STRING)
        return xi_pb_text(&p->text, "sequence_id", ret->sequence, sizeof ret->sequence, err);
    if (get_uint(p, "sequence_id", &id, err) != XI_OK)
        return xi_fail(err, XI_EINVAL,
                       "parameter \"sequence_id\" must be a string or a whole number");
    ret->sequence[0] = '\0';
    if (id != 0)
        (void)snprintf(ret->sequence, sizeof ret->sequence, "%" PRIu64, id);
    return XI_OK;
}

static enum xi_rc read_request_parameter(const struct xi_pb_field *f, struct xi_oip_parameters *ret,
                                         struct xi_err *err)
{
    struct parameter p;
    enum xi_rc rc = read_parameter(f, &p, err);

    if (rc != XI_OK)
        return rc;
    if (xi_pb_is(&p.key, "sequence_id"))
        return get_sequence(&p, ret, err);
    if (xi_pb_is(&p.key, "sequence_start"))
        return get_bool(&p, "sequence_start", &ret->sequence_start, err);
    if (xi_pb_is(&p.key, "sequence_end"))
        return get_bool(&p, "sequence_end", &ret->sequence_end, err);
    if (xi_pb_is(&p.key, "priority"))
        return get_uint(&p, "priority", &ret->priority, err);
    if (xi_pb_is(&p.key, "timeout"))
        return get_uint(&p, "timeout", &ret->timeout_us, err);
    if (xi_pb_is(&p.key, "triton_enable_empty_final_response"))
        return get_bool(&p, "triton_enable_empty_final_response", &ret->empty_final, err);
    return XI_OK;
}

/* Parameters that inputs and outputs share. 1: it was one of them. */
static int read_region(const struct parameter *p, struct xi_oip_region *ret, enum xi_rc *rc,
                       struct xi_err *err)
{
    if (xi_pb_is(&p->key, "shared_memory_region"))
        *rc = get_text(p, "shared_memory_region", ret->name, sizeof ret->name, err);
    else if (xi_pb_is(&p->key, "shared_memory_byte_size"))
        *rc = get_uint(p, "shared_memory_byte_size", &ret->bytes, err);
    else if (xi_pb_is(&p->key, "shared_memory_offset"))
        *rc = get_uint(p, "shared_memory_offset", &ret->offset, err);
    else
        return 0;
    return 1;
}

static enum xi_rc read_input_parameter(const struct xi_pb_field *f, struct xi_oip_tensor *x,
                                       struct xi_err *err)
{
    struct parameter p;
    enum xi_rc rc = read_parameter(f, &p, err);

    if (rc == XI_OK)
        (void)read_region(&p, &x->region, &rc, err);
    return rc;
}

static enum xi_rc read_output_parameter(const struct xi_pb_field *f, struct xi_oip_output *o,
                                        struct xi_err *err)
{
    struct parameter p;
    uint64_t classes = 0;
    enum xi_rc rc = read_parameter(f, &p, err);

    if (rc != XI_OK || read_region(&p, &o->region, &rc, err) || !xi_pb_is(&p.key, "classification"))
        return rc;
    rc = get_uint(&p, "classification", &classes, err);
    if (rc == XI_OK && classes > XI_OIP_CLASSES_MAX)
        rc =
            xi_fail(err, XI_EINVAL, "parameter \"classification\": at most %d", XI_OIP_CLASSES_MAX);
    o->classes = (uint32_t)classes;
    return rc;
}

static enum xi_rc add_dim(struct xi_oip_tensor *x, uint64_t v, struct xi_err *err)
{
    if (x->rank == XI_MAX_RANK)
        return xi_fail(err, XI_ETENSOR, "input \"%.60s\": more than %d dimensions", x->name,
                       XI_MAX_RANK);
    x->dims[x->rank++] = (int64_t)v;
    return XI_OK;
}

/* Packed, as proto3 writes it, or one by one. */
static enum xi_rc read_shape(const struct xi_pb_field *f, struct xi_oip_tensor *x,
                             struct xi_err *err)
{
    struct xi_pb in = xi_pb_make(f->data, (size_t)f->bytes);
    enum xi_rc rc = XI_OK;
    uint64_t v;

    if (f->type == XI_PB_VARINT)
        return add_dim(x, f->value, err);
    rc = xi_pb_want(f, XI_PB_BYTES, "InferInputTensor", "shape", err);
    while (rc == XI_OK && in.p < in.end) {
        if (xi_pb_varint(&in, &v) < 0)
            return xi_pb_broken("shape", err);
        rc = add_dim(x, v, err);
    }
    return rc;
}

static enum xi_rc read_dtype(const struct xi_pb_field *f, struct xi_oip_tensor *x,
                             struct xi_err *err)
{
    char name[16];
    enum xi_rc rc = xi_pb_text(f, "datatype", name, sizeof name, err);

    if (rc != XI_OK)
        return rc;
    x->dtype = xi_dtype_parse(name);
    if (x->dtype == XI_DT_UNKNOWN)
        return xi_fail(err, XI_ETENSOR, "\"%s\" is no datatype", name);
    return XI_OK;
}

static enum xi_rc read_input_field(struct reading *in, const struct xi_pb_field *f,
                                   struct xi_oip_tensor *x, struct xi_err *err)
{
    enum xi_rc rc;

    switch (f->number) {
    case IN_NAME:
        return xi_pb_text(f, "name", x->name, sizeof x->name, err);
    case IN_DATATYPE:
        return read_dtype(f, x, err);
    case IN_SHAPE:
        return read_shape(f, x, err);
    case IN_PARAMETERS:
        return read_input_parameter(f, x, err);
    case IN_CONTENTS:
        rc = xi_pb_want(f, XI_PB_BYTES, "InferInputTensor", "contents", err);
        if (rc != XI_OK || f->bytes == 0)
            return rc;
        if (x->data_at != 0)
            return xi_fail(err, XI_EINVAL, "input \"%.60s\": contents twice", x->name);
        x->data_at = (size_t)(f->data - in->start);
        x->data_end = x->data_at + (size_t)f->bytes;
        return XI_OK;
    default:
        return XI_OK;
    }
}

static enum xi_rc read_input(struct reading *in, const struct xi_pb_field *field,
                             struct xi_err *err)
{
    struct xi_oip_tensor *x = &in->r->inputs[in->r->n_inputs];
    struct xi_pb pb = xi_pb_make(field->data, (size_t)field->bytes);
    enum xi_rc rc = xi_pb_want(field, XI_PB_BYTES, "ModelInferRequest", "inputs", err);
    struct xi_pb_field f;
    int more = 0;

    if (rc == XI_OK && in->r->n_inputs == XI_TENSORS_MAX)
        rc = xi_fail(err, XI_EINVAL, "more than %d inputs", XI_TENSORS_MAX);
    if (rc != XI_OK)
        return rc;
    memset(x, 0, sizeof *x);
    while (rc == XI_OK && (more = xi_pb_next(&pb, &f)) > 0)
        rc = read_input_field(in, &f, x, err);
    if (rc == XI_OK && more < 0)
        rc = xi_pb_broken("InferInputTensor", err);
    if (rc == XI_OK && (x->name[0] == '\0' || x->dtype == XI_DT_UNKNOWN))
        rc = xi_fail(err, XI_EINVAL, "input \"%.60s\" lacks its %s", x->name,
                     x->name[0] ? "datatype" : "name");
    for (uint32_t i = 0; rc == XI_OK && i < in->r->n_inputs; i++)
        if (strcmp(in->r->inputs[i].name, x->name) == 0)
            rc = xi_fail(err, XI_EINVAL, "input \"%.60s\" twice", x->name);
    if (rc == XI_OK && xi_shape_elements(x->dims, x->rank, &x->elements, err) != XI_OK)
        rc = xi_wrap(err, XI_ETENSOR, "input \"%.60s\"", x->name);
    in->r->n_inputs++;
    return rc;
}

static enum xi_rc read_output(struct xi_oip_request *r, const struct xi_pb_field *field,
                              struct xi_err *err)
{
    struct xi_oip_output *o = &r->outputs[r->n_outputs];
    struct xi_pb pb = xi_pb_make(field->data, (size_t)field->bytes);
    enum xi_rc rc = xi_pb_want(field, XI_PB_BYTES, "ModelInferRequest", "outputs", err);
    struct xi_pb_field f;
    int more = 0;

    if (rc == XI_OK && r->n_outputs == XI_TENSORS_MAX)
        rc = xi_fail(err, XI_EINVAL, "more than %d outputs", XI_TENSORS_MAX);
    if (rc != XI_OK)
        return rc;
    memset(o, 0, sizeof *o);
    o->binary = 1;
    while (rc == XI_OK && (more = xi_pb_next(&pb, &f)) > 0) {
        if (f.number == OUT_NAME)
            rc = xi_pb_text(&f, "name", o->name, sizeof o->name, err);
        else if (f.number == OUT_PARAMETERS)
            rc = read_output_parameter(&f, o, err);
    }
    if (rc == XI_OK && more < 0)
        rc = xi_pb_broken("InferRequestedOutputTensor", err);
    if (rc == XI_OK && o->name[0] == '\0')
        rc = xi_fail(err, XI_EINVAL, "an output lacks its name");
    for (uint32_t i = 0; rc == XI_OK && i < r->n_outputs; i++)
        if (strcmp(r->outputs[i].name, o->name) == 0)
            rc = xi_fail(err, XI_EINVAL, "output \"%.60s\" twice", o->name);
    r->n_outputs++;
    return rc;
}

static enum xi_rc note_raw(struct reading *in, const struct xi_pb_field *f, struct xi_err *err)
{
    enum xi_rc rc = xi_pb_want(f, XI_PB_BYTES, "ModelInferRequest", "raw_input_contents", err);

    if (rc != XI_OK)
        return rc;
    if (in->n_raw == XI_TENSORS_MAX)
        return xi_fail(err, XI_EINVAL, "more than %d raw_input_contents", XI_TENSORS_MAX);
    in->raw[in->n_raw].at = (uint64_t)(f->data - in->start);
    in->raw[in->n_raw++].bytes = f->bytes;
    return XI_OK;
}

static enum xi_rc read_field(struct reading *in, const struct xi_pb_field *f,
                             struct xi_oip_target *model, struct xi_err *err)
{
    switch (f->number) {
    case REQ_MODEL:
        return xi_pb_text(f, "model_name", model->name, sizeof model->name, err);
    case REQ_VERSION:
        return xi_pb_text(f, "model_version", model->version, sizeof model->version, err);
    case REQ_ID:
        return xi_pb_text(f, "id", in->r->id, sizeof in->r->id, err);
    case REQ_PARAMETERS:
        return read_request_parameter(f, &in->r->parameters, err);
    case REQ_INPUTS:
        return read_input(in, f, err);
    case REQ_OUTPUTS:
        return read_output(in->r, f, err);
    case REQ_RAW:
        return note_raw(in, f, err);
    default:
        return XI_OK;
    }
}

/* Bytes that stand somewhere as they are fit the shape. BYTES tensors have no size of their own. */
static enum xi_rc settle_bytes(struct xi_oip_tensor *x, uint64_t bytes, struct xi_err *err)
{
    uint64_t want = bytes;

    if (x->dtype != XI_DT_BYTES && xi_shape_bytes(x->dtype, x->dims, x->rank, &want, err) != XI_OK)
        return xi_wrap(err, XI_ETENSOR, "input \"%.60s\"", x->name);
    if (bytes != want)
        return xi_fail(err, XI_ETENSOR,
                       "input \"%.60s\": %" PRIu64 " bytes where its shape needs %" PRIu64, x->name,
                       bytes, want);
    x->bytes = bytes;
    return XI_OK;
}

static enum xi_rc settle_text(struct reading *in, struct xi_oip_tensor *x, struct xi_err *err)
{
    struct xi_oip_request *r = in->r;
    enum xi_rc rc = xi_oip_proto_measure(in->start, x, err);

    if (rc != XI_OK)
        return rc;
    if (x->bytes > XI_BODY_MAX - r->text_bytes)
        return xi_fail(err, XI_ETOOBIG, "inputs of more than %llu bytes", XI_BODY_MAX);
    x->offset = r->text_bytes;
    r->text_bytes += (x->bytes + XI_OIP_ALIGN - 1) / XI_OIP_ALIGN * XI_OIP_ALIGN;
    return XI_OK;
}

/* Says where this input's bytes are. *raw counts those of raw_input_contents, which are in the
 * order of the inputs that are in no region. */
static enum xi_rc settle(struct reading *in, struct xi_oip_tensor *x, uint32_t *raw,
                         struct xi_err *err)
{
    int region = x->region.name[0] != '\0';

    if (x->data_at != 0 && (region || in->n_raw > 0))
        return xi_fail(err, XI_ETENSOR, "input \"%.60s\": both contents and %s", x->name,
                       region ? "a shared memory region" : "raw_input_contents");
    if (region) {
        x->where = XI_OIP_REGION;
        return settle_bytes(x, x->region.bytes, err);
    }
    if (in->n_raw == 0)
        return settle_text(in, x, err);
    if (*raw == in->n_raw)
        return xi_fail(err, XI_ETENSOR, "input \"%.60s\" has no raw_input_contents", x->name);
    x->where = XI_OIP_RAW;
    x->offset = in->raw[*raw].at;
    return settle_bytes(x, in->raw[(*raw)++].bytes, err);
}

enum xi_rc xi_oip_proto_read(const void *message, size_t bytes, struct xi_oip_target *model,
                             struct xi_oip_request *ret, struct xi_err *err)
{
    struct reading in = {.start = message, .r = ret};
    struct xi_pb pb = xi_pb_make(message, bytes);
    enum xi_rc rc = XI_OK;
    struct xi_pb_field f;
    uint32_t raw = 0;
    int more = 0;

    model->name[0] = model->version[0] = ret->id[0] = '\0';
    ret->n_inputs = ret->n_outputs = 0;
    ret->parameters = (struct xi_oip_parameters){.binary_output = 1};
    ret->text_bytes = 0;
    while (rc == XI_OK && (more = xi_pb_next(&pb, &f)) > 0)
        rc = read_field(&in, &f, model, err);
    if (rc == XI_OK && more < 0)
        rc = xi_pb_broken("ModelInferRequest", err);
    if (rc == XI_OK && ret->n_inputs == 0)
        rc = xi_fail(err, XI_EINVAL, "no inputs");
    for (uint32_t i = 0; rc == XI_OK && i < ret->n_inputs; i++)
        rc = settle(&in, &ret->inputs[i], &raw, err);
    if (rc == XI_OK && raw != in.n_raw)
        rc = xi_fail(err, XI_ETENSOR, "%u raw_input_contents for %u inputs", in.n_raw, raw);
    return rc;
}

size_t xi_oip_proto_raw_at(const void *head, size_t bytes, uint64_t *ret_bytes)
{
    struct xi_pb pb = xi_pb_make(head, bytes);
    struct xi_pb_field f;

    while (xi_pb_next(&pb, &f) > 0 && f.number != REQ_RAW)
        ;
    /* Also of one that is cut off: data is where it begins. */
    *ret_bytes = f.number == REQ_RAW ? f.bytes : 0;
    return f.number == REQ_RAW && f.data != NULL ? (size_t)(f.data - (const uint8_t *)head) : 0;
}
