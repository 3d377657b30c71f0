#include "base/log.h"

#include <poll.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log_tap.h"

static _Atomic int log_level = XI_INFO;
static enum xi_log_style log_style = XI_LOG_TEXT;
static _Atomic unsigned long dropped;

static const char *const level_names[] = {"trace", "debug", "info", "warn", "error"};
static const char level_letters[] = "TDIWE";
static const int journald_priority[] = {7, 7, 6, 4, 3};

void xi_log_init(enum xi_log_style style, enum xi_log_level level)
{
    log_style = style;
    xi_log_set_level(level);
}

void xi_log_set_level(enum xi_log_level level)
{
    atomic_store_explicit(&log_level, (int)level, memory_order_relaxed);
}

enum xi_log_level xi_log_get_level(void)
{
    return (enum xi_log_level)atomic_load_explicit(&log_level, memory_order_relaxed);
}

const char *xi_log_level_name(enum xi_log_level level)
{
    return level_names[level];
}

int xi_log_level_parse(const char *text, enum xi_log_level *ret)
{
    for (int i = 0; i < 5; i++)
        if (strcmp(text, level_names[i]) == 0) {
            *ret = (enum xi_log_level)i;
            return 0;
        }
    return -1;
}

static void one_line(char *s)
{
    for (; *s; s++)
        if ((unsigned char)*s < 0x20 || *s == 0x7f)
            *s = ' ';
}

static void json_escape(char *dst, size_t bytes, const char *src)
{
    size_t n = 0;

    for (; *src && n + 3 < bytes; src++) {
        if (*src == '"' || *src == '\\')
            dst[n++] = '\\';
        dst[n++] = *src;
    }
    dst[n] = '\0';
}

static int compose(char *line, size_t bytes, enum xi_log_level level, const char *event,
                   const char *text)
{
    char when[25], escaped[2048];

    xi_now_text(when);
    if (log_style == XI_LOG_JOURNALD)
        return snprintf(line, bytes, "<%d>%s %s\n", journald_priority[level], event, text);
    if (log_style == XI_LOG_TEXT)
        return snprintf(line, bytes, "%s %c %s %s\n", when, level_letters[level], event, text);
    json_escape(escaped, sizeof escaped, text);
    return snprintf(line, bytes,
                    "{\"time\":\"%s\",\"level\":\"%s\",\"event\":\"%s\",\"text\":\"%s\"}\n", when,
                    level_names[level], event, escaped);
}

/* The loop logs, too: a reader that has stopped (a pager, a journal that hangs) must not stop it. A
 * pipe or socket that is ready takes a line whole. */
static int takes_a_line(void)
{
    struct pollfd p = {.fd = STDERR_FILENO, .events = POLLOUT};

    return poll(&p, 1, 0) == 1;
}

void xi_log(enum xi_log_level level, const char *event, const char *fmt, ...)
{
    char text[1024], line[2560];
    va_list ap;

    if ((int)level < atomic_load_explicit(&log_level, memory_order_relaxed))
        return;
    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    one_line(text);
    xi_log_tap_note(level, event, text);
    int n = compose(line, sizeof line, level, event, text);
    if (n >= (int)sizeof line) {
        n = (int)sizeof line - 1;
        line[n - 1] = '\n';
    }
    if (!takes_a_line() || write(STDERR_FILENO, line, (size_t)n) != n)
        atomic_fetch_add_explicit(&dropped, 1, memory_order_relaxed);
}

unsigned long xi_log_dropped(void)
{
    return atomic_load_explicit(&dropped, memory_order_relaxed);
}
