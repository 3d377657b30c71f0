#include "wire/oip_json.h"

#include <inttypes.h>
#include <string.h>

#include "wire/oip_parameters.h"

/* Which keys of the object under way were seen. */
enum {
    SEEN_NAME = 1,
    SEEN_SHAPE = 2,
    SEEN_TYPE = 4,
    SEEN_DATA = 8,
    SEEN_PARAMETERS = 16,
    SEEN_INPUTS = 32,
    SEEN_OUTPUTS = 64,
    SEEN_ID = 128
};

enum xi_rc xi_oip_header_length(const char *value, uint64_t body_bytes, uint64_t *ret,
                                struct xi_err *err)
{
    uint64_t n = 0;
    size_t len = strlen(value);

    if (len == 0 || len > 19 || strspn(value, "0123456789") != len)
        return xi_fail(err, XI_EINVAL, "Inference-Header-Content-Length: \"%.40s\" is no length",
                       value);
    for (; *value; value++)
        n = n * 10 + (uint64_t)(*value - '0');
    if (n > body_bytes)
        return xi_fail(err, XI_EINVAL,
                       "Inference-Header-Content-Length: %" PRIu64 " in a body of %" PRIu64, n,
                       body_bytes);
    *ret = n;
    return XI_OK;
}

static enum xi_rc once(unsigned *seen, unsigned bit, const char *key, struct xi_err *err)
{
    if (*seen & bit)
        return xi_fail(err, XI_EJSON, "key \"%s\" twice in one object", key);
    *seen |= bit;
    return XI_OK;
}

static enum xi_rc read_name(struct xi_json_pull *j, const char *key, char *ret, size_t room,
                            struct xi_err *err)
{
    enum xi_json_token t = xi_json_pull_next(j);
    size_t n = 0;

    if (t == XI_TOKEN_ERROR)
        return xi_json_pull_failed(j, err);
    if (t != XI_TOKEN_STRING)
        return xi_fail(err, XI_EINVAL, "\"%s\" must be a string", key);
    if (xi_json_pull_text(j, ret, room - 1, &n, NULL) != XI_OK)
        return xi_fail(err, XI_EINVAL, "\"%s\" is longer than %zu bytes", key, room - 1);
    ret[n] = '\0';
    if (memchr(ret, '\0', n) != NULL)
        return xi_fail(err, XI_EINVAL, "NUL in \"%s\"", key);
    return XI_OK;
}

static enum xi_rc read_shape(struct xi_json_pull *j, struct xi_oip_tensor *x, struct xi_err *err)
{
    enum xi_json_token t = xi_json_pull_next(j);

    if (t == XI_TOKEN_ERROR)
        return xi_json_pull_failed(j, err);
    if (t != XI_TOKEN_ARRAY)
        return xi_fail(err, XI_EINVAL, "\"shape\" must be an array");
    while ((t = xi_json_pull_next(j)) == XI_TOKEN_NUMBER) {
        if (x->rank == XI_MAX_RANK)
            return xi_fail(err, XI_ETENSOR, "shape has more than %d dimensions", XI_MAX_RANK);
        if (xi_json_int64(j->text, j->text_len, &x->dims[x->rank]) != 0)
            return xi_fail(err, XI_ETENSOR, "dimension %d is no 64-bit whole number", x->rank);
        x->rank++;
    }
    if (t == XI_TOKEN_ERROR)
        return xi_json_pull_failed(j, err);
    if (t != XI_TOKEN_ARRAY_END)
        return xi_fail(err, XI_EINVAL, "\"shape\" holds something that is no number");
    return XI_OK;
}

static enum xi_rc read_dtype(struct xi_json_pull *j, struct xi_oip_tensor *x, struct xi_err *err)
{
    char name[16];
    enum xi_rc rc = read_name(j, "datatype", name, sizeof name, err);

    if (rc != XI_OK)
        return rc;
    x->dtype = xi_dtype_parse(name);
    if (x->dtype == XI_DT_UNKNOWN)
        return xi_fail(err, XI_ETENSOR, "\"%s\" is no datatype", name);
    return XI_OK;
}

static enum xi_rc skip_data(struct xi_json_pull *j, struct xi_oip_tensor *x, struct xi_err *err)
{
    x->data_at = (size_t)(j->p - j->start);
    enum xi_json_token t = xi_json_pull_next(j);
    if (t != XI_TOKEN_ERROR)
        t = xi_json_pull_skip(j, t);
    return t == XI_TOKEN_ERROR ? xi_json_pull_failed(j, err) : XI_OK;
}

static enum xi_rc read_unknown(struct xi_json_pull *j, struct xi_err *err)
{
    enum xi_json_token t = xi_json_pull_next(j);

    if (t != XI_TOKEN_ERROR)
        t = xi_json_pull_skip(j, t);
    return t == XI_TOKEN_ERROR ? xi_json_pull_failed(j, err) : XI_OK;
}

static enum xi_rc read_input_key(struct xi_json_pull *j, struct xi_oip_tensor *x, unsigned *seen,
                                 struct xi_oip_said *said, struct xi_err *err)
{
    enum xi_rc rc;

    if (xi_json_pull_is(j, "name")) {
        rc = once(seen, SEEN_NAME, "name", err);
        return rc != XI_OK ? rc : read_name(j, "name", x->name, sizeof x->name, err);
    }
    if (xi_json_pull_is(j, "shape")) {
        rc = once(seen, SEEN_SHAPE, "shape", err);
        return rc != XI_OK ? rc : read_shape(j, x, err);
    }
    if (xi_json_pull_is(j, "datatype")) {
        rc = once(seen, SEEN_TYPE, "datatype", err);
        return rc != XI_OK ? rc : read_dtype(j, x, err);
    }
    if (xi_json_pull_is(j, "data")) {
        rc = once(seen, SEEN_DATA, "data", err);
        return rc != XI_OK ? rc : skip_data(j, x, err);
    }
    if (xi_json_pull_is(j, "parameters")) {
        rc = once(seen, SEEN_PARAMETERS, "parameters", err);
        return rc != XI_OK ? rc : xi_oip_parameters_read(j, XI_OIP_OF_INPUT, said, err);
    }
    return read_unknown(j, err);
}

/* Where the elements of a BYTES tensor in JSON go: 4 bytes of length and the text, each. */
static enum xi_rc measure_bytes(const char *text, size_t bytes, struct xi_oip_tensor *x,
                                struct xi_err *err)
{
    struct xi_json_pull j;
    enum xi_json_token t;
    size_t n = 0;

    xi_json_pull_init(&j, text + x->data_at, bytes - x->data_at);
    x->bytes = 0;
    do {
        t = xi_json_pull_next(&j);
        if (t == XI_TOKEN_ERROR)
            return xi_json_pull_failed(&j, err);
        if (t == XI_TOKEN_STRING) {
            enum xi_rc rc = xi_json_pull_text(&j, NULL, 0, &n, err);
            if (rc != XI_OK)
                return rc;
            x->bytes += 4 + n;
        }
    } while (j.depth > 0);
    return XI_OK;
}

static enum xi_rc settle_json(const char *text, size_t bytes, struct xi_oip_tensor *x,
                              struct xi_err *err)
{
    enum xi_rc rc;

    if (x->data_at == 0)
        return xi_fail(err, XI_ETENSOR, "input \"%.60s\": neither data nor binary_data_size",
                       x->name);
    /* An element takes at least a digit and a comma: larger claims are lies, found before
     * any memory is taken for them. */
    if (x->elements > (bytes - x->data_at) / 2 + 1)
        return xi_fail(err, XI_ETENSOR,
                       "input \"%.60s\": shape of %" PRIu64 " elements, its data has fewer",
                       x->name, x->elements);
    if (x->dtype == XI_DT_BYTES)
        return measure_bytes(text, bytes, x, err);
    rc = xi_shape_bytes(x->dtype, x->dims, x->rank, &x->bytes, err);
    return rc != XI_OK ? xi_wrap(err, rc, "input \"%.60s\"", x->name) : XI_OK;
}

/* Of bytes that the client counted; its shape knows better, but for texts. */
static enum xi_rc settle_size(struct xi_oip_tensor *x, uint64_t size, struct xi_err *err)
{
    uint64_t want = size;

    if (x->dtype != XI_DT_BYTES) {
        enum xi_rc rc = xi_shape_bytes(x->dtype, x->dims, x->rank, &want, err);
        if (rc != XI_OK)
            return xi_wrap(err, rc, "input \"%.60s\"", x->name);
    }
    if (size != want)
        return xi_fail(err, XI_ETENSOR,
                       "input \"%.60s\": %" PRIu64 " bytes where its shape needs %" PRIu64, x->name,
                       size, want);
    x->bytes = size;
    return XI_OK;
}

static enum xi_rc settle_binary(struct xi_oip_tensor *x, uint64_t size, struct xi_err *err)
{
    if (x->data_at != 0)
        return xi_fail(err, XI_ETENSOR, "input \"%.60s\": both data and binary_data_size", x->name);
    x->where = XI_OIP_RAW;
    return settle_size(x, size, err);
}

static enum xi_rc settle_region(struct xi_oip_tensor *x, const struct xi_oip_said *said,
                                struct xi_err *err)
{
    if (x->data_at != 0 || (said->given & XI_OIP_SAID_SIZE))
        return xi_fail(err, XI_ETENSOR, "input \"%.60s\": both a shared memory region and %s",
                       x->name, x->data_at != 0 ? "data" : "binary_data_size");
    x->where = XI_OIP_REGION;
    x->region = said->region;
    return settle_size(x, said->region.bytes, err);
}

static enum xi_rc read_input(struct xi_json_pull *j, const char *text, size_t bytes,
                             struct xi_oip_tensor *x, struct xi_err *err)
{
    const unsigned needed = SEEN_NAME | SEEN_SHAPE | SEEN_TYPE;
    struct xi_oip_said said = {0};
    enum xi_json_token t;
    unsigned seen = 0;
    enum xi_rc rc;

    memset(x, 0, sizeof *x);
    while ((t = xi_json_pull_next(j)) == XI_TOKEN_KEY) {
        rc = read_input_key(j, x, &seen, &said, err);
        if (rc != XI_OK)
            return rc;
    }
    if (t == XI_TOKEN_ERROR)
        return xi_json_pull_failed(j, err);
    if ((seen & needed) != needed)
        return xi_fail(err, XI_EINVAL, "input \"%.60s\" lacks %s", x->name,
                       !(seen & SEEN_NAME)    ? "its name"
                       : !(seen & SEEN_SHAPE) ? "its shape"
                                              : "its datatype");
    rc = xi_shape_elements(x->dims, x->rank, &x->elements, err);
    if (rc != XI_OK)
        return xi_wrap(err, rc, "input \"%.60s\"", x->name);
    if (said.given & XI_OIP_SAID_REGION)
        return settle_region(x, &said, err);
    return said.given & XI_OIP_SAID_SIZE ? settle_binary(x, said.binary_size, err)
                                         : settle_json(text, bytes, x, err);
}

static enum xi_rc read_inputs(struct xi_json_pull *j, const char *text, size_t bytes,
                              struct xi_oip_request *r, struct xi_err *err)
{
    enum xi_json_token t = xi_json_pull_next(j);

    if (t == XI_TOKEN_ERROR)
        return xi_json_pull_failed(j, err);
    if (t != XI_TOKEN_ARRAY)
        return xi_fail(err, XI_EINVAL, "\"inputs\" must be an array");
    while ((t = xi_json_pull_next(j)) == XI_TOKEN_OBJECT) {
        if (r->n_inputs == XI_TENSORS_MAX)
            return xi_fail(err, XI_EINVAL, "more than %d inputs", XI_TENSORS_MAX);
        struct xi_oip_tensor *x = &r->inputs[r->n_inputs];
        enum xi_rc rc = read_input(j, text, bytes, x, err);
        if (rc != XI_OK)
            return rc;
        for (uint32_t i = 0; i < r->n_inputs; i++)
            if (strcmp(r->inputs[i].name, x->name) == 0)
                return xi_fail(err, XI_EINVAL, "input \"%.60s\" twice", x->name);
        r->n_inputs++;
    }
    if (t == XI_TOKEN_ERROR)
        return xi_json_pull_failed(j, err);
    return t == XI_TOKEN_ARRAY_END ? XI_OK : xi_fail(err, XI_EINVAL, "an input must be an object");
}

/* binary -1: it does not say. */
static enum xi_rc read_output(struct xi_json_pull *j, struct xi_oip_output *o, struct xi_err *err)
{
    struct xi_oip_said said = {0};
    enum xi_json_token t;
    unsigned seen = 0;
    enum xi_rc rc = XI_OK;

    memset(o, 0, sizeof *o);
    while (rc == XI_OK && (t = xi_json_pull_next(j)) == XI_TOKEN_KEY) {
        if (xi_json_pull_is(j, "name")) {
            rc = once(&seen, SEEN_NAME, "name", err);
            if (rc == XI_OK)
                rc = read_name(j, "name", o->name, sizeof o->name, err);
        } else if (xi_json_pull_is(j, "parameters")) {
            rc = once(&seen, SEEN_PARAMETERS, "parameters", err);
            if (rc == XI_OK)
                rc = xi_oip_parameters_read(j, XI_OIP_OF_OUTPUT, &said, err);
        } else {
            rc = read_unknown(j, err);
        }
    }
    if (rc != XI_OK)
        return rc;
    if (j->err.rc != XI_OK)
        return xi_json_pull_failed(j, err);
    if (!(seen & SEEN_NAME))
        return xi_fail(err, XI_EINVAL, "an output lacks its name");
    o->binary = said.given & XI_OIP_SAID_BINARY ? said.binary : -1;
    o->classes = (uint32_t)said.classes;
    o->region = said.region;
    return XI_OK;
}

static enum xi_rc read_outputs(struct xi_json_pull *j, struct xi_oip_request *r, struct xi_err *err)
{
    enum xi_json_token t = xi_json_pull_next(j);

    if (t == XI_TOKEN_ERROR)
        return xi_json_pull_failed(j, err);
    if (t != XI_TOKEN_ARRAY)
        return xi_fail(err, XI_EINVAL, "\"outputs\" must be an array");
    while ((t = xi_json_pull_next(j)) == XI_TOKEN_OBJECT) {
        if (r->n_outputs == XI_TENSORS_MAX)
            return xi_fail(err, XI_EINVAL, "more than %d outputs", XI_TENSORS_MAX);
        struct xi_oip_output *o = &r->outputs[r->n_outputs];
        enum xi_rc rc = read_output(j, o, err);
        if (rc != XI_OK)
            return rc;
        for (uint32_t i = 0; i < r->n_outputs; i++)
            if (strcmp(r->outputs[i].name, o->name) == 0)
                return xi_fail(err, XI_EINVAL, "output \"%.60s\" twice", o->name);
        r->n_outputs++;
    }
    if (t == XI_TOKEN_ERROR)
        return xi_json_pull_failed(j, err);
    return t == XI_TOKEN_ARRAY_END ? XI_OK : xi_fail(err, XI_EINVAL, "an output must be an object");
}

static enum xi_rc read_request_key(struct xi_json_pull *j, const char *text, size_t bytes,
                                   struct xi_oip_request *r, unsigned *seen, struct xi_err *err)
{
    enum xi_rc rc;

    if (xi_json_pull_is(j, "inputs")) {
        rc = once(seen, SEEN_INPUTS, "inputs", err);
        return rc != XI_OK ? rc : read_inputs(j, text, bytes, r, err);
    }
    if (xi_json_pull_is(j, "outputs")) {
        rc = once(seen, SEEN_OUTPUTS, "outputs", err);
        return rc != XI_OK ? rc : read_outputs(j, r, err);
    }
    if (xi_json_pull_is(j, "id")) {
        rc = once(seen, SEEN_ID, "id", err);
        return rc != XI_OK ? rc : read_name(j, "id", r->id, sizeof r->id, err);
    }
    if (xi_json_pull_is(j, "parameters")) {
        struct xi_oip_said said = {0};
        rc = once(seen, SEEN_PARAMETERS, "parameters", err);
        if (rc == XI_OK)
            rc = xi_oip_parameters_read(j, XI_OIP_OF_REQUEST, &said, err);
        r->parameters = said.request;
        r->parameters.binary_output = said.binary;
        return rc;
    }
    return read_unknown(j, err);
}

/* Gives every tensor its place; the binary ones must use the tail up. */
static enum xi_rc place(struct xi_oip_request *r, uint64_t tail_bytes, struct xi_err *err)
{
    uint64_t at = 0;

    for (uint32_t i = 0; i < r->n_inputs; i++) {
        struct xi_oip_tensor *x = &r->inputs[i];
        if (x->where == XI_OIP_RAW) {
            if (x->bytes > tail_bytes - at)
                return xi_fail(err, XI_ETENSOR,
                               "input \"%.60s\": %" PRIu64 " bytes, the body has %" PRIu64 " left",
                               x->name, x->bytes, tail_bytes - at);
            x->offset = at;
            at += x->bytes;
        } else if (x->where == XI_OIP_TEXT) {
            if (x->bytes > XI_BODY_MAX - r->text_bytes)
                return xi_fail(err, XI_ETOOBIG, "inputs of more than %llu bytes", XI_BODY_MAX);
            x->offset = r->text_bytes;
            r->text_bytes += (x->bytes + XI_OIP_ALIGN - 1) / XI_OIP_ALIGN * XI_OIP_ALIGN;
        }
    }
    if (at != tail_bytes)
        return xi_fail(err, XI_ETENSOR, "%" PRIu64 " bytes behind the last binary input",
                       tail_bytes - at);
    for (uint32_t i = 0; i < r->n_outputs; i++)
        if (r->outputs[i].binary < 0)
            r->outputs[i].binary = r->parameters.binary_output;
    return XI_OK;
}

enum xi_rc xi_oip_read(const char *text, size_t bytes, uint64_t tail_bytes,
                       struct xi_oip_request *ret, struct xi_err *err)
{
    struct xi_json_pull j;
    unsigned seen = 0;

    ret->id[0] = '\0';
    ret->n_inputs = ret->n_outputs = 0;
    ret->parameters = (struct xi_oip_parameters){0};
    ret->text_bytes = 0;
    if (bytes > XI_BODY_JSON_MAX)
        return xi_fail(err, XI_ETOOBIG, "JSON of %zu bytes, the limit is %llu", bytes,
                       XI_BODY_JSON_MAX);
    xi_json_pull_init(&j, text, bytes);
    enum xi_json_token t = xi_json_pull_next(&j);
    if (t == XI_TOKEN_ERROR)
        return xi_json_pull_failed(&j, err);
    if (t != XI_TOKEN_OBJECT)
        return xi_fail(err, XI_EINVAL, "the body must be a JSON object");
    while ((t = xi_json_pull_next(&j)) == XI_TOKEN_KEY) {
        enum xi_rc rc = read_request_key(&j, text, bytes, ret, &seen, err);
        if (rc != XI_OK)
            return rc;
    }
    if (t == XI_TOKEN_ERROR || xi_json_pull_next(&j) != XI_TOKEN_END)
        return xi_json_pull_failed(&j, err);
    if (!(seen & SEEN_INPUTS) || ret->n_inputs == 0)
        return xi_fail(err, XI_EINVAL, "no inputs");
    return place(ret, tail_bytes, err);
}
