/* oip_proto_data.h: typed contents, for oip_proto.c alone. */
#ifndef XI_WIRE_OIP_PROTO_DATA_H
#define XI_WIRE_OIP_PROTO_DATA_H

#include "wire/oip.h"

/* Counts the values of x's contents (data_at to data_end of the message, none if 0), which must be
 * of its datatype and as many as its shape says, and sets x->bytes. */
enum xi_rc xi_oip_proto_measure(const void *message, struct xi_oip_tensor *x,
                                struct xi_err *err) XI_MUST_CHECK;

#endif
