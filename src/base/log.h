/* log.h: one line an event, "event key=value …", to stderr. Any thread.
 *
 * Daemon and host rooms log once, where the decision is taken; library rooms return errors and
 * never log. Newlines and control characters in values are replaced, so a line is always a line.
 */
#ifndef XI_BASE_LOG_H
#define XI_BASE_LOG_H

#include "base/status.h"

enum xi_log_level { XI_TRACE, XI_DEBUG, XI_INFO, XI_WARN, XI_ERROR };
enum xi_log_style { XI_LOG_TEXT, XI_LOG_JSON, XI_LOG_JOURNALD };

/* Set once at start by main; level may change later from any thread. */
void xi_log_init(enum xi_log_style style, enum xi_log_level level);
void xi_log_set_level(enum xi_log_level level);
enum xi_log_level xi_log_get_level(void);
const char *xi_log_level_name(enum xi_log_level level);
int xi_log_level_parse(const char *text, enum xi_log_level *ret); /* 0 on success */

/* xi_log(XI_INFO, "session.ready", "id=%s ms=%u", id, ms). A line that cannot be written at
 * once (full disk, closed pipe, a pipe that nobody reads) is dropped and counted. */
void xi_log(enum xi_log_level level, const char *event, const char *fmt, ...) XI_PRINTF(3, 4);
unsigned long xi_log_dropped(void);

#endif
