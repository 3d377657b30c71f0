#include "wire/oip_parameters.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define INPUT   XI_OIP_OF_INPUT
#define OUTPUT  XI_OIP_OF_OUTPUT
#define REQUEST XI_OIP_OF_REQUEST

enum kind { WHOLE, TRUTH, REGION, SEQUENCE };

/* Bit i of what was seen is line i. */
static const struct known {
    const char *key;
    unsigned of;
    enum kind kind;
    size_t at;
    unsigned said;
} table[] = {
    {"binary_data_size", INPUT, WHOLE, offsetof(struct xi_oip_said, binary_size), XI_OIP_SAID_SIZE},
    {"binary_data", INPUT | OUTPUT, TRUTH, offsetof(struct xi_oip_said, binary),
     XI_OIP_SAID_BINARY},
    {"binary_data_output", REQUEST, TRUTH, offsetof(struct xi_oip_said, binary),
     XI_OIP_SAID_BINARY},
    {"shared_memory_region", INPUT | OUTPUT, REGION, offsetof(struct xi_oip_said, region.name),
     XI_OIP_SAID_REGION},
    {"shared_memory_byte_size", INPUT | OUTPUT, WHOLE, offsetof(struct xi_oip_said, region.bytes),
     XI_OIP_SAID_REGION_BYTES},
    {"shared_memory_offset", INPUT | OUTPUT, WHOLE, offsetof(struct xi_oip_said, region.offset),
     XI_OIP_SAID_REGION_OFFSET},
    {"classification", OUTPUT, WHOLE, offsetof(struct xi_oip_said, classes), 0},
    {"sequence_id", REQUEST, SEQUENCE, offsetof(struct xi_oip_said, request.sequence), 0},
    {"sequence_start", REQUEST, TRUTH, offsetof(struct xi_oip_said, request.sequence_start), 0},
    {"sequence_end", REQUEST, TRUTH, offsetof(struct xi_oip_said, request.sequence_end), 0},
    {"priority", REQUEST, WHOLE, offsetof(struct xi_oip_said, request.priority), 0},
    {"timeout", REQUEST, WHOLE, offsetof(struct xi_oip_said, request.timeout_us), 0},
};
enum { N_KNOWN = sizeof table / sizeof *table };

static enum xi_rc read_text(const struct xi_json_pull *j, const char *key, char *ret, size_t room,
                            struct xi_err *err)
{
    size_t n = 0;

    if (xi_json_pull_text(j, ret, room - 1, &n, NULL) != XI_OK || memchr(ret, '\0', n) != NULL)
        return xi_fail(err, XI_EINVAL, "\"%s\" has more than %zu bytes, or a NUL", key, room - 1);
    ret[n] = '\0';
    return XI_OK;
}

/* A number is its decimal digits, and 0 is none, as with tritonclient. */
static enum xi_rc read_sequence(const struct xi_json_pull *j, enum xi_json_token t, char *ret,
                                struct xi_err *err)
{
    uint64_t id = 0;

    if (t == XI_TOKEN_STRING)
        return read_text(j, "sequence_id", ret, XI_SEQUENCE_ID_MAX + 1, err);
    if (t != XI_TOKEN_NUMBER || xi_json_uint64(j->text, j->text_len, &id) != 0)
        return xi_fail(err, XI_EINVAL, "\"sequence_id\" must be a string or a whole number");
    ret[0] = '\0';
    if (id != 0)
        (void)snprintf(ret, XI_SEQUENCE_ID_MAX + 1, "%" PRIu64, id);
    return XI_OK;
}

static enum xi_rc read_value(const struct xi_json_pull *j, enum xi_json_token t,
                             const struct known *k, struct xi_oip_said *ret, struct xi_err *err)
{
    uint8_t *at = (uint8_t *)ret + k->at;
    uint64_t whole = 0;
    int truth = t == XI_TOKEN_TRUE;

    switch (k->kind) {
    case WHOLE:
        if (t != XI_TOKEN_NUMBER || xi_json_uint64(j->text, j->text_len, &whole) != 0)
            return xi_fail(err, XI_EINVAL, "\"%s\" must be a whole number", k->key);
        memcpy(at, &whole, sizeof whole);
        return XI_OK;
    case TRUTH:
        if (t != XI_TOKEN_TRUE && t != XI_TOKEN_FALSE)
            return xi_fail(err, XI_EINVAL, "\"%s\" must be true or false", k->key);
        memcpy(at, &truth, sizeof truth);
        return XI_OK;
    case REGION:
        if (t != XI_TOKEN_STRING)
            return xi_fail(err, XI_EINVAL, "\"%s\" must be a string", k->key);
        return read_text(j, k->key, (char *)at, sizeof ret->region.name, err);
    case SEQUENCE:
        return read_sequence(j, t, (char *)at, err);
    }
    return XI_OK;
}

/* N_KNOWN: it is none of those that may stand here. */
static unsigned find(const struct xi_json_pull *j, unsigned of)
{
    unsigned i = 0;

    while (i < N_KNOWN && (!(table[i].of & of) || !xi_json_pull_is(j, table[i].key)))
        i++;
    return i;
}

static enum xi_rc check(const struct xi_oip_said *said, struct xi_err *err)
{
    const unsigned more = XI_OIP_SAID_REGION_BYTES | XI_OIP_SAID_REGION_OFFSET;

    if (said->classes > XI_OIP_CLASSES_MAX)
        return xi_fail(err, XI_EINVAL, "\"classification\": at most %d", XI_OIP_CLASSES_MAX);
    if ((said->given & more) != 0 && said->region.name[0] == '\0')
        return xi_fail(err, XI_EINVAL, "a part of a shared memory region, and no region");
    if ((said->given & XI_OIP_SAID_REGION) &&
        (said->region.name[0] == '\0' || !(said->given & XI_OIP_SAID_REGION_BYTES)))
        return xi_fail(err, XI_EINVAL,
                       "\"shared_memory_region\" wants a name, and \"shared_memory_byte_size\"");
    return XI_OK;
}

enum xi_rc xi_oip_parameters_read(struct xi_json_pull *j, unsigned of, struct xi_oip_said *ret,
                                  struct xi_err *err)
{
    enum xi_json_token t = xi_json_pull_next(j);
    unsigned seen = 0;

    if (t != XI_TOKEN_ERROR && t != XI_TOKEN_OBJECT)
        return xi_fail(err, XI_EINVAL, "\"parameters\" must be an object");
    while (t != XI_TOKEN_ERROR && (t = xi_json_pull_next(j)) == XI_TOKEN_KEY) {
        unsigned i = find(j, of);
        t = xi_json_pull_next(j);
        if (i == N_KNOWN) {
            t = xi_json_pull_skip(j, t);
            continue;
        }
        if (t == XI_TOKEN_ERROR)
            break;
        if (seen & 1u << i)
            return xi_fail(err, XI_EJSON, "key \"%s\" twice in one object", table[i].key);
        seen |= 1u << i;
        ret->given |= table[i].said;
        enum xi_rc rc = read_value(j, t, &table[i], ret, err);
        if (rc != XI_OK)
            return rc;
    }
    return t == XI_TOKEN_ERROR ? xi_json_pull_failed(j, err) : check(ret, err);
}
