#include "wire/grpc.h"

#include <inttypes.h>
#include <string.h>

enum xi_rc xi_grpc_frame_read(const uint8_t frame[XI_GRPC_FRAME], uint64_t limit,
                              int *ret_compressed, uint64_t *ret_bytes, struct xi_err *err)
{
    uint64_t n =
        (uint64_t)frame[1] << 24 | (uint64_t)frame[2] << 16 | (uint64_t)frame[3] << 8 | frame[4];

    if (frame[0] > 1)
        return xi_fail(err, XI_EPROTO, "a message begins with flags %u: this is no gRPC", frame[0]);
    if (n > limit)
        return xi_fail(err, XI_ETOOBIG,
                       "message of %" PRIu64 " bytes, at most %" PRIu64 " are taken", n, limit);
    *ret_compressed = frame[0];
    *ret_bytes = n;
    return XI_OK;
}

void xi_grpc_frame_write(uint8_t frame[XI_GRPC_FRAME], uint64_t bytes)
{
    frame[0] = 0;
    for (unsigned i = 0; i < 4; i++)
        frame[1 + i] = (uint8_t)(bytes >> (24 - 8 * i));
}

enum xi_rc xi_grpc_timeout(const char *value, uint64_t *ret_ns, struct xi_err *err)
{
    static const struct {
        char unit;
        uint64_t ns;
    } units[] = {{'H', 3600000000000}, {'M', 60000000000}, {'S', 1000000000},
                 {'m', 1000000},       {'u', 1000},        {'n', 1}};
    size_t n = strspn(value, "0123456789");
    uint64_t v = 0;

    for (size_t i = 0; i < n && i < 9; i++)
        v = v * 10 + (uint64_t)(value[i] - '0');
    for (size_t i = 0; n > 0 && n <= 8 && i < sizeof units / sizeof *units; i++)
        if (value[n] == units[i].unit && value[n + 1] == '\0') {
            *ret_ns = v * units[i].ns; /* 10^8 hours are 3.6 × 10^20 ns */
            if (v > UINT64_MAX / units[i].ns)
                *ret_ns = UINT64_MAX;
            return XI_OK;
        }
    return xi_fail(err, XI_EINVAL, "grpc-timeout: \"%.20s\" is none", value);
}

const char *xi_grpc_status_name(int status)
{
    static const char *const names[] = {"OK",
                                        "CANCELLED",
                                        "UNKNOWN",
                                        "INVALID_ARGUMENT",
                                        "DEADLINE_EXCEEDED",
                                        "NOT_FOUND",
                                        "ALREADY_EXISTS",
                                        "PERMISSION_DENIED",
                                        "RESOURCE_EXHAUSTED",
                                        "FAILED_PRECONDITION",
                                        "ABORTED",
                                        "OUT_OF_RANGE",
                                        "UNIMPLEMENTED",
                                        "INTERNAL",
                                        "UNAVAILABLE",
                                        "DATA_LOSS",
                                        "UNAUTHENTICATED"};

    if (status < 0 || (size_t)status >= sizeof names / sizeof *names)
        return "UNKNOWN";
    return names[status];
}

void xi_grpc_trailers(struct xi_str *s, int status, const char *message)
{
    static const char hex[] = "0123456789ABCDEF";

    xi_str_puts(s, "grpc-status: ");
    xi_str_uint(s, (uint64_t)status, 1);
    xi_str_puts(s, "\r\n");
    if (message == NULL || *message == '\0')
        return;
    xi_str_puts(s, "grpc-message: ");
    for (const unsigned char *p = (const unsigned char *)message; *p; p++) {
        if (*p >= ' ' && *p <= '~' && *p != '%')
            xi_str_add(s, p, 1);
        else
            xi_str_add(s, (char[]){'%', hex[*p >> 4], hex[*p & 15]}, 3);
    }
    xi_str_puts(s, "\r\n");
}
