/* log_tap.h: the last records of the log, for whoever asks later (GET /v1/events). Any thread.
 *
 * A ring that is allocated once. Whoever logs claims the next place in it and copies the line
 * there; nobody waits for anybody: a place that is in use at that very moment loses its line,
 * which is counted. */
#ifndef XI_BASE_LOG_TAP_H
#define XI_BASE_LOG_TAP_H

#include <stdint.h>

#include "base/log.h"

#define XI_LOG_TAP_RECORDS 1024
#define XI_LOG_FIELDS_MAX  24

struct xi_log_record {
    uint64_t seq;   /* 1, 2, … */
    uint64_t at_ms; /* wall clock, epoch */
    enum xi_log_level level;
    char event[48];
    char text[1024];
};

enum xi_log_tap_result {
    XI_LOG_TAP_OK = 0,
    XI_LOG_TAP_WAIT, /* it is not written yet */
    XI_LOG_TAP_LOST  /* it has been overwritten, or was lost */
};

/* From here on lines are kept. Once, by main. ENOMEM. */
enum xi_rc xi_log_tap_open(struct xi_err *err) XI_MUST_CHECK;
/* Of the newest record; 0: none. */
uint64_t xi_log_tap_newest(void);
enum xi_log_tap_result xi_log_tap_read(uint64_t seq, struct xi_log_record *ret);
/* log.c's. */
void xi_log_tap_note(enum xi_log_level level, const char *event, const char *text);

/* "key=value" pairs of a line. A value in quotes ends at a quote before a space; another one ends
 * before the next " key=". Of equal keys the first counts: what follows may be somebody else's
 * words. The strings live in ret. */
struct xi_log_fields {
    unsigned n;
    struct {
        const char *key, *value;
    } at[XI_LOG_FIELDS_MAX];
    char space[sizeof(((struct xi_log_record *)0)->text)];
};
void xi_log_fields_parse(const char *text, struct xi_log_fields *ret);
/* NULL: no such key. */
const char *xi_log_field(const struct xi_log_fields *f, const char *key);

#endif
