/* protobuf.h: the wire format of Protocol Buffers, without schemas. Pure, any thread; the reader
 * takes no memory: texts and messages are where they lie in the source.
 *
 * Groups (deprecated since proto2) are refused. A message in a message is read by a reader of its
 * own, so nothing here nests. */
#ifndef XI_WIRE_PROTOBUF_H
#define XI_WIRE_PROTOBUF_H

#include <stddef.h>
#include <stdint.h>

#include "base/str.h"

#define XI_PB_VARINT_MAX 10 /* bytes of one */

enum xi_pb_type { XI_PB_VARINT = 0, XI_PB_64 = 1, XI_PB_BYTES = 2, XI_PB_32 = 5 };

struct xi_pb {
    const uint8_t *p, *end;
};

struct xi_pb_field {
    uint32_t number;
    enum xi_pb_type type;
    uint64_t value;      /* VARINT, 64, 32 */
    const uint8_t *data; /* BYTES */
    uint64_t bytes;
};

struct xi_pb xi_pb_make(const void *data, size_t bytes);
/* The next field: 1; 0 at the end; -1 when what stands there is none. A BYTES field that runs past
 * the end is -1 with number, type, data and bytes as they were read (bytes 0 otherwise). */
int xi_pb_next(struct xi_pb *r, struct xi_pb_field *f) XI_MUST_CHECK;
/* A bare varint, as packed elements are. -1 when it is none. */
int xi_pb_varint(struct xi_pb *r, uint64_t *ret) XI_MUST_CHECK;
/* What xi_fail says of a -1. EINVAL. */
enum xi_rc xi_pb_broken(const char *message, struct xi_err *err) XI_MUST_CHECK;
/* EINVAL unless f is of this type; message and what name it: "ModelInferRequest", "id". */
enum xi_rc xi_pb_want(const struct xi_pb_field *f, enum xi_pb_type type, const char *message,
                      const char *what, struct xi_err *err) XI_MUST_CHECK;
/* A string field into ret, terminated: EINVAL when it is longer than room - 1, no UTF-8, or holds
 * a NUL. */
enum xi_rc xi_pb_text(const struct xi_pb_field *f, const char *what, char *ret, size_t room,
                      struct xi_err *err) XI_MUST_CHECK;
int xi_pb_is(const struct xi_pb_field *f, const char *text); /* BYTES: is it this text? */

/* Writing. Values that are the default of proto3 (0, "", false) are left out, but by put_. */
void xi_pb_put_tag(struct xi_str *s, uint32_t number, enum xi_pb_type type);
void xi_pb_put_raw(struct xi_str *s, uint64_t v); /* a bare varint */
void xi_pb_put_uint(struct xi_str *s, uint32_t number, uint64_t v);
void xi_pb_uint(struct xi_str *s, uint32_t number, uint64_t v);
void xi_pb_bytes(struct xi_str *s, uint32_t number, const void *data, size_t bytes);
void xi_pb_put_text(struct xi_str *s, uint32_t number, const char *text);
void xi_pb_text_field(struct xi_str *s, uint32_t number, const char *text);
/* A message in a message: what is written between the two calls. */
size_t xi_pb_begin(struct xi_str *s, uint32_t number);
void xi_pb_end(struct xi_str *s, size_t begun);

#endif
