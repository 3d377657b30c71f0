/* describe.h: sessions, packages and resources as JSON for the answers. Loop thread. */
#ifndef XI_DAEMON_API_DESCRIBE_H
#define XI_DAEMON_API_DESCRIBE_H

#include "base/str.h"
#include "daemon/core/service.h"

/* Bytes that its process holds for it: none without a process. */
uint64_t xi_describe_memory(const struct xi_session *session);
void xi_describe_session(struct xi_str *s, const struct xi_session *session);
/* With signature, counters and latencies. */
void xi_describe_session_fully(struct xi_str *s, const struct xi_session *session);
void xi_describe_package(struct xi_str *s, const char *digest,
                         const struct xi_package_record *record, uint64_t bytes,
                         int64_t installed_at_ms);
/* {"count","p50_us","p90_us","p99_us","max_us"} */
void xi_describe_hist(struct xi_str *s, const struct xi_hist *h);
/* "cpu":{…},"memory":{…},"thermal":{…}, without braces around them. */
void xi_describe_machine(struct xi_str *s, const struct xi_resources *r);
void xi_describe_error(struct xi_str *s, const struct xi_err *err); /* null when it is XI_OK */
/* A measured value, or null when it is unknown. */
void xi_describe_value(struct xi_str *s, double v);
/* ,"key":… as one more member of an object; key is one of ours and needs no escapes. */
void xi_describe_number(struct xi_str *s, const char *key, double v);
void xi_describe_text(struct xi_str *s, const char *key, const char *value);

/* What a load would do. */
void xi_describe_plan(struct xi_str *s, const struct xi_plan *plan);

#endif
