/* gRPC's server reflection: what the .proto files of this project say, as protoc compiled them. */
#include <string.h>

#include "daemon/api/grpc.h"
#include "wire/protobuf.h"

/* A FileDescriptorSet of all files in proto/. */
static const uint8_t descriptors[] = {
#include "daemon/api/grpc_descriptors.inc"
};

/* Fields of descriptor.proto and reflection.proto. */
enum { SET_FILE = 1 };
enum {
    FILE_NAME = 1,
    FILE_PACKAGE = 2,
    FILE_DEPENDENCY = 3,
    FILE_MESSAGE = 4,
    FILE_ENUM = 5,
    FILE_SERVICE = 6
};
enum { ANY_NAME = 1, SERVICE_METHOD = 2, MESSAGE_NESTED = 3, MESSAGE_ENUM = 4 };
enum { ASK_FILE = 3, ASK_SYMBOL = 4, ASK_EXTENSION = 5, ASK_EXTENSIONS = 6, ASK_SERVICES = 7 };
enum { SAY_HOST = 1, SAY_REQUEST = 2, SAY_FILES = 4, SAY_SERVICES = 6, SAY_ERROR = 7 };
enum { NAME_MAX_BYTES = 256, DEPTH = 8 };

/* The next field of this number. 1: it came. The set is our own, so nothing in it is broken. */
static int next_of(struct xi_pb *in, uint32_t number, struct xi_pb_field *f)
{
    while (xi_pb_next(in, f) > 0)
        if (f->number == number)
            return 1;
    return 0;
}

static int first_of(const struct xi_pb_field *message, uint32_t number, struct xi_pb_field *f)
{
    struct xi_pb in = xi_pb_make(message->data, (size_t)message->bytes);

    return next_of(&in, number, f);
}

/* Is `*text` this name, perhaps with more behind a dot? Then *text is what is behind it. */
static int eats(const char **text, const struct xi_pb_field *name)
{
    size_t n = (size_t)name->bytes;

    if (strncmp(*text, (const char *)name->data, n) != 0 ||
        ((*text)[n] != '\0' && (*text)[n] != '.'))
        return 0;
    *text += n + ((*text)[n] == '.');
    return 1;
}

/* Does one of the declarations of this kind have that name? Messages may have others in them. */
static int declares(const struct xi_pb_field *parent, uint32_t kind, const char *name)
{
    struct xi_pb in[DEPTH];
    struct xi_pb_field f, its;
    uint32_t inner = kind == FILE_SERVICE ? SERVICE_METHOD : MESSAGE_NESTED;
    int depth = 0;

    in[0] = xi_pb_make(parent->data, (size_t)parent->bytes);
    while (depth < DEPTH - 1 && next_of(&in[depth], depth ? inner : kind, &f)) {
        if (!first_of(&f, ANY_NAME, &its) || !eats(&name, &its))
            continue;
        if (*name == '\0')
            return 1;
        if (kind == FILE_MESSAGE) { /* an enum in it */
            struct xi_pb enums = xi_pb_make(f.data, (size_t)f.bytes);
            struct xi_pb_field e;
            while (next_of(&enums, MESSAGE_ENUM, &e))
                if (first_of(&e, ANY_NAME, &its) && xi_pb_is(&its, name))
                    return 1;
        }
        in[++depth] = xi_pb_make(f.data, (size_t)f.bytes);
    }
    return 0;
}

static int holds_symbol(const struct xi_pb_field *file, const char *symbol)
{
    struct xi_pb_field package;

    if (!first_of(file, FILE_PACKAGE, &package) || !eats(&symbol, &package) || *symbol == '\0')
        return 0;
    return declares(file, FILE_MESSAGE, symbol) || declares(file, FILE_ENUM, symbol) ||
           declares(file, FILE_SERVICE, symbol);
}

static int is_named(const struct xi_pb_field *file, const char *name)
{
    struct xi_pb_field f;

    return first_of(file, FILE_NAME, &f) && xi_pb_is(&f, name);
}

static int find_file(int (*fits)(const struct xi_pb_field *file, const char *text),
                     const char *text, struct xi_pb_field *ret)
{
    struct xi_pb set = xi_pb_make(descriptors, sizeof descriptors);

    while (next_of(&set, SET_FILE, ret))
        if (fits(ret, text))
            return 1;
    return 0;
}

/* The file, and those that it needs: one level, which is as deep as ours go. */
static void say_file(struct xi_str *s, const struct xi_pb_field *file)
{
    struct xi_pb in = xi_pb_make(file->data, (size_t)file->bytes);
    struct xi_pb_field f, needed;
    char name[NAME_MAX_BYTES];

    size_t files = xi_pb_begin(s, SAY_FILES);
    xi_pb_bytes(s, 1, file->data, (size_t)file->bytes);
    while (next_of(&in, FILE_DEPENDENCY, &f))
        if (xi_pb_text(&f, "dependency", name, sizeof name, NULL) == XI_OK &&
            find_file(is_named, name, &needed))
            xi_pb_bytes(s, 1, needed.data, (size_t)needed.bytes);
    xi_pb_end(s, files);
}

static void say_services(struct xi_str *s)
{
    struct xi_pb set = xi_pb_make(descriptors, sizeof descriptors);
    struct xi_pb_field file, package, service, name;
    char text[2 * NAME_MAX_BYTES];

    size_t list = xi_pb_begin(s, SAY_SERVICES);
    while (next_of(&set, SET_FILE, &file)) {
        struct xi_pb in = xi_pb_make(file.data, (size_t)file.bytes);
        while (next_of(&in, FILE_SERVICE, &service)) {
            if (!first_of(&file, FILE_PACKAGE, &package) || !first_of(&service, ANY_NAME, &name))
                continue;
            (void)snprintf(text, sizeof text, "%.*s.%.*s", (int)package.bytes, package.data,
                           (int)name.bytes, name.data);
            size_t one = xi_pb_begin(s, 1);
            xi_pb_text_field(s, 1, text);
            xi_pb_end(s, one);
        }
    }
    xi_pb_end(s, list);
}

static void say_error(struct xi_str *s, int status, const char *text)
{
    size_t error = xi_pb_begin(s, SAY_ERROR);

    xi_pb_uint(s, 1, (unsigned)status);
    xi_pb_text_field(s, 2, text);
    xi_pb_end(s, error);
}

static void say(struct xi_str *s, uint32_t asked, const char *text)
{
    struct xi_pb_field file;

    if (asked == ASK_SERVICES)
        say_services(s);
    else if (asked == ASK_FILE && find_file(is_named, text, &file))
        say_file(s, &file);
    else if (asked == ASK_SYMBOL && find_file(holds_symbol, text, &file))
        say_file(s, &file);
    else if (asked == 0)
        say_error(s, XI_GRPC_UNIMPLEMENTED, "a question of a kind that is not known here");
    else /* proto3 has no extensions */
        say_error(s, xi_rc_grpc(XI_ENOENT), "not found");
}

void xi_grpc_reflect(struct xi_grpc *g, const uint8_t *message, size_t bytes)
{
    struct xi_pb pb = xi_pb_make(message, bytes);
    char text[NAME_MAX_BYTES] = "", host[NAME_MAX_BYTES] = "";
    enum xi_rc rc = XI_OK;
    struct xi_err err;
    struct xi_pb_field f;
    uint32_t asked = 0;
    int more = 0;

    while (rc == XI_OK && (more = xi_pb_next(&pb, &f)) > 0) {
        if (f.number == 1)
            rc = xi_pb_text(&f, "host", host, sizeof host, &err);
        if (f.number < ASK_FILE || f.number > ASK_SERVICES)
            continue;
        asked = f.number;
        if (asked != ASK_EXTENSION)
            rc = xi_pb_text(&f, "message_request", text, sizeof text, &err);
    }
    if (rc == XI_OK && more < 0)
        rc = xi_pb_broken("ServerReflectionRequest", &err);
    if (rc != XI_OK) {
        xi_grpc_fail(g, &err);
        return;
    }
    xi_pb_text_field(&g->x->body, SAY_HOST, host);
    xi_pb_bytes(&g->x->body, SAY_REQUEST, message, bytes);
    say(&g->x->body, asked, text);
    xi_grpc_send(g);
}
