#include "daemon/api/problem.h"

void xi_problem_json(struct xi_str *s, const struct xi_err *err, uint64_t request)
{
    xi_str_printf(s, "{\"type\":\"urn:xinfer:error:%s\",\"title\":", xi_rc_code(err->rc));
    xi_str_json(s, xi_rc_title(err->rc));
    xi_str_printf(s, ",\"status\":%d,\"detail\":", xi_rc_http(err->rc));
    xi_str_json(s, err->msg);
    xi_str_printf(s, ",\"code\":\"%s\"", xi_rc_code(err->rc));
    if (err->hint[0] != '\0') {
        xi_str_puts(s, ",\"hint\":");
        xi_str_json(s, err->hint);
    }
    if (request != 0)
        xi_str_printf(s, ",\"request\":%llu", (unsigned long long)request);
    xi_str_puts(s, "}");
}

void xi_problem_headers(struct xi_str *s, enum xi_rc rc, unsigned retry_s)
{
    int status = xi_rc_http(rc);

    if (status == 429 || status == 503 || (status == 507 && retry_s > 0))
        xi_str_printf(s, "Retry-After: %u\r\n", retry_s ? retry_s : 1);
    if (status == 401)
        xi_str_puts(s, "WWW-Authenticate: Bearer realm=\"xinfer\"\r\n");
}
