/* problem.h: errors as RFC 9457 problem documents. Pure. */
#ifndef XI_DAEMON_API_PROBLEM_H
#define XI_DAEMON_API_PROBLEM_H

#include "base/str.h"

/* {"type","title","status","detail","code","hint","request"}; request 0: it has no number. */
void xi_problem_json(struct xi_str *s, const struct xi_err *err, uint64_t request);
/* Header lines that belong to this error: Retry-After (429 and 503; of 507 where retry_s is known),
 * WWW-Authenticate. retry_s 0: one second. */
void xi_problem_headers(struct xi_str *s, enum xi_rc rc, unsigned retry_s);

#endif
