/* oip_results.h: what came back of an oip_call becomes its results: which outputs are answered, the
 * best classes of one, a flow's JSON. */
#ifndef XI_DAEMON_API_OIP_RESULTS_H
#define XI_DAEMON_API_OIP_RESULTS_H

#include "daemon/api/oip_call.h"

#define XI_FRAGMENT_MAX (64 * XI_MIB) /* a flow's JSON */
#define XI_OIP_MADE_MAX (2 * XI_FRAGMENT_MAX)

/* Loop thread: the reply is there. Ends in done, later where much is to be made. */
void xi_oip_results(struct xi_oip_call *call);
/* The first part of this kind; NULL: there is none. */
const struct xi_part *xi_oip_find_part(const struct xi_reply *r, uint32_t kind, uint32_t *ret_i);
/* Any thread: appends a part of JSON to out. It is copied first and checked in our own memory: a
 * host could still change what lies in the segment. EENGINE: it is none. */
enum xi_rc xi_oip_fragment(const struct xi_reply *reply, uint32_t i, struct xi_str *out,
                           struct xi_err *err) XI_MUST_CHECK;

#endif
