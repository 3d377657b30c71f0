/* host_log.c: a host's stdout and stderr → the daemon's log, a line at a time. Whatever goes over
 * the rate is read and counted, not kept: an engine that prints must neither block nor flood. */
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "daemon/ipc/host_impl.h"

int xi_rate_allows(struct xi_rate *rate, uint32_t per_s)
{
    uint64_t second = xi_now_ms() / 1000;

    if (second != rate->second)
        *rate = (struct xi_rate){.second = second};
    return ++rate->count <= per_s;
}

static void say_dropped(struct xi_host *host)
{
    if (host->log.dropped == 0)
        return;
    xi_log(XI_WARN, "host.output.dropped", "host=%s lines=%llu", host->label,
           (unsigned long long)host->log.dropped);
    host->log.dropped = 0;
}

static void end_line(struct xi_host *host)
{
    struct xi_host_log *log = &host->log;

    if (log->len == 0)
        return;
    log->line[log->len] = '\0';
    log->len = 0;
    if (!xi_rate_allows(&log->rate, XI_HOST_LOG_LINES_PER_S)) {
        log->dropped++;
        return;
    }
    say_dropped(host);
    xi_log(XI_INFO, "host.output", "host=%s %s", host->label, log->line);
}

int xi_host_read_log(struct xi_host *host)
{
    struct xi_host_log *log = &host->log;
    char buf[16 * 1024];
    ssize_t n = read(host->log_fd, buf, sizeof buf);

    for (ssize_t i = 0; i < n; i++) {
        if (buf[i] == '\n' || log->len == sizeof log->line - 1)
            end_line(host);
        if (buf[i] != '\n')
            log->line[log->len++] = buf[i];
    }
    return n == (ssize_t)sizeof buf;
}

void xi_host_log_end(struct xi_host *host)
{
    end_line(host);
    say_dropped(host);
}
