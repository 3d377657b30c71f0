/* oip_parameters.h: the "parameters" objects of a request in JSON. Of this room. */
#ifndef XI_WIRE_OIP_PARAMETERS_H
#define XI_WIRE_OIP_PARAMETERS_H

#include "wire/json_pull.h"
#include "wire/oip.h"

/* Whose they are (bits). */
enum { XI_OIP_OF_INPUT = 1, XI_OIP_OF_OUTPUT = 2, XI_OIP_OF_REQUEST = 4 };

/* What they said; zeroed before. */
struct xi_oip_said {
    unsigned given; /* bits: XI_OIP_SAID_… */
    uint64_t binary_size;
    int binary; /* of an output, or of all */
    struct xi_oip_region region;
    uint64_t classes;
    struct xi_oip_parameters request; /* without binary_output */
};
enum {
    XI_OIP_SAID_SIZE = 1,
    XI_OIP_SAID_BINARY = 2,
    XI_OIP_SAID_REGION = 4,
    XI_OIP_SAID_REGION_BYTES = 8,
    XI_OIP_SAID_REGION_OFFSET = 16
};

/* The object that comes next. Unknown keys are passed over. EINVAL: a known one of a wrong kind or
 * out of its bounds, a region without its size; EJSON. */
enum xi_rc xi_oip_parameters_read(struct xi_json_pull *j, unsigned of, struct xi_oip_said *ret,
                                  struct xi_err *err) XI_MUST_CHECK;

#endif
