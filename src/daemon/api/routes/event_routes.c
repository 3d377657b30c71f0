/* /v1/events: the log's last lines, and those that come. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log_tap.h"
#include "daemon/api/connection.h"

enum { LAST = 100, EVENTS_TICK_MS = 100, EVENTS_SOON_MS = 5, TICK_RECORDS = 64 };

/* ---- who may see it ---- */

static int owns_session(struct xi_sessions *m, const char *tenant, const char *id)
{
    for (struct xi_session *s = xi_sessions_each(m, NULL); s != NULL; s = xi_sessions_each(m, s))
        if (strcmp(s->tenant, tenant) == 0 && strcmp(s->id, id) == 0)
            return 1;
    return 0;
}

/* Hosts are called "name#" and the first letters of an id. */
static int owns_host(struct xi_sessions *m, const char *tenant, const char *host)
{
    const char *mark = strrchr(host, '#');
    size_t n = mark == NULL ? 0 : (size_t)(mark - host);

    for (struct xi_session *s = mark ? xi_sessions_each(m, NULL) : NULL; s != NULL;
         s = xi_sessions_each(m, s))
        if (strcmp(s->tenant, tenant) == 0 && strlen(s->name) == n &&
            memcmp(s->name, host, n) == 0 && mark[1] != '\0' &&
            strncmp(s->id, mark + 1, strlen(mark + 1)) == 0)
            return 1;
    return 0;
}

/* A tenant sees what names its tenant or its sessions, and what names nobody's. A line that names
 * a session which is gone, and no tenant, is nobody's to see: whose was it? Settings tell of all
 * tenants, as do those who share a host: only administrators see such lines. */
static int visible(const struct xi_http_server *server, const char *tenant,
                   const struct xi_log_record *r, const struct xi_log_fields *f)
{
    static const char *const ids[] = {"id", "session", "successor"};
    struct xi_sessions *m = server->service->sessions;
    const char *value = xi_log_field(f, "tenant");

    if (tenant == NULL)
        return 1;
    if (strncmp(r->event, "config.", 7) == 0 || xi_log_field(f, "group") != NULL)
        return 0;
    if (value != NULL)
        return strcmp(value, tenant) == 0;
    value = xi_log_field(f, "host");
    if (value != NULL && !owns_host(m, tenant, value))
        return 0;
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++) {
        value = xi_log_field(f, ids[i]);
        if (value != NULL && !owns_session(m, tenant, value))
            return 0;
    }
    return 1;
}

static void describe(struct xi_str *out, const struct xi_log_record *r,
                     const struct xi_log_fields *f)
{
    xi_str_printf(out,
                  "{\"seq\":%" PRIu64 ",\"at_ms\":%" PRIu64 ",\"level\":\"%s\",\"event\":", r->seq,
                  r->at_ms, xi_log_level_name(r->level));
    xi_str_json(out, r->event);
    xi_str_puts(out, ",\"fields\":{");
    for (unsigned i = 0; i < f->n; i++) {
        xi_str_puts(out, i ? "," : "");
        xi_str_json(out, f->at[i].key);
        xi_str_puts(out, ":");
        xi_str_json(out, f->at[i].value);
    }
    xi_str_puts(out, "},\"text\":");
    xi_str_json(out, r->text);
    xi_str_puts(out, "}");
}

/* Reads record *inout_next and steps on. 1: ret and fields hold one that this tenant may see. 0:
 * not this one. -1: there is none yet. */
static int next_event(const struct xi_http_server *server, const char *tenant, uint64_t *inout_next,
                      struct xi_log_record *ret, struct xi_log_fields *fields)
{
    enum xi_log_tap_result rc = xi_log_tap_read(*inout_next, ret);
    uint64_t newest = xi_log_tap_newest();

    /* A line that its writer has not finished while so many came after it is not waited for. */
    if (rc == XI_LOG_TAP_WAIT && newest < *inout_next + TICK_RECORDS)
        return -1;
    ++*inout_next;
    if (rc != XI_LOG_TAP_OK)
        return 0;
    xi_log_fields_parse(ret->text, fields);
    return visible(server, tenant, ret, fields);
}

static uint64_t first_of_last(uint64_t last)
{
    uint64_t newest = xi_log_tap_newest();

    return newest > last ? newest - last + 1 : 1;
}

/* ---- the list ---- */

struct list {
    struct xi_document doc; /* first */
    struct xi_exchange *x;
    uint64_t next, end; /* records */
    struct xi_log_record record;
    struct xi_log_fields fields;
};

static int write_one(struct xi_document *d)
{
    struct list *l = (struct list *)(void *)d;
    int seen;

    if (l->next > l->end) {
        xi_str_puts(&d->text, d->part ? "]}" : "{\"events\":[]}");
        return 0;
    }
    seen = next_event(d->server, xi_sees(l->x), &l->next, &l->record, &l->fields);
    if (seen < 0)
        l->next++; /* it is being written this very moment */
    if (seen <= 0)
        return 1;
    xi_str_puts(&d->text, d->part++ ? "," : "{\"events\":[");
    describe(&d->text, &l->record, &l->fields);
    return 1;
}

static void on_written(struct xi_document *d)
{
    struct list *l = (struct list *)(void *)d;

    xi_document_answer(d, l->x, "application/json");
    free(l);
}

static enum xi_rc read_last(const struct xi_exchange *x, uint64_t *inout, struct xi_err *err)
{
    return xi_query_uint(x->stream.query, "last", 0, XI_LOG_TAP_RECORDS, inout, err);
}

void xi_events_list(struct xi_exchange *x)
{
    struct list *l = calloc(1, sizeof *l);
    uint64_t last = LAST;
    struct xi_err err = {0};
    enum xi_rc rc =
        l == NULL ? xi_fail(&err, XI_ENOMEM, "no memory for the list") : read_last(x, &last, &err);

    if (rc != XI_OK) {
        free(l);
        xi_answer_problem(x, &err);
        return;
    }
    l->x = x;
    l->next = first_of_last(last);
    l->end = xi_log_tap_newest();
    l->doc.write = write_one;
    l->doc.done = on_written;
    xi_document_start(x->server, &l->doc, x->who.tenant);
}

/* ---- the stream ---- */

struct follower {
    struct xi_stream stream; /* first */
    uint64_t next;
    char tenant[XI_NAME_MAX + 1];
    int all;
};

/* The log overtook it: on with the newer half, and the client hears of it. */
static void catch_up(struct follower *f)
{
    uint64_t newest = xi_log_tap_newest();

    if (newest < f->next + XI_LOG_TAP_RECORDS)
        return;
    uint64_t missed = newest - f->next - XI_LOG_TAP_RECORDS / 2;
    f->next += missed;
    f->stream.x->events.dropped += missed;
    f->stream.x->server->stats.events_dropped += missed;
}

/* A look at the ring ten times a second, while somebody follows: whoever logs wakes nobody. Many
 * new records are sent in several turns. */
static void look(struct xi_stream *s)
{
    struct follower *f = (struct follower *)(void *)s;
    struct xi_http_server *server = s->x->server;
    struct xi_log_record record;
    struct xi_log_fields fields;
    struct xi_str out;

    catch_up(f);
    for (int n = 0; n < TICK_RECORDS && !xi_exchange_gone(s->x); n++) {
        int seen = next_event(server, f->all ? NULL : f->tenant, &f->next, &record, &fields);
        if (seen < 0)
            return;
        if (seen == 0)
            continue;
        xi_str_init(&out, 16 * XI_KIB);
        describe(&out, &record, &fields);
        if (!out.failed)
            xi_events_send(s->x, "event", xi_str_text(&out));
        xi_str_fini(&out);
    }
    s->due_ms = xi_now_ms() + EVENTS_SOON_MS;
}

static void free_follower(struct xi_stream *s)
{
    free(s);
}

void xi_events_stream(struct xi_exchange *x)
{
    struct follower *f = calloc(1, sizeof *f);
    uint64_t last = 0;
    struct xi_err err = {0};
    enum xi_rc rc = f == NULL ? xi_fail(&err, XI_ENOMEM, "no memory for the stream")
                              : read_last(x, &last, &err);

    if (rc != XI_OK) {
        free(f);
        xi_answer_problem(x, &err);
        return;
    }
    f->next = first_of_last(last);
    f->all = xi_sees(x) == NULL;
    memcpy(f->tenant, x->who.tenant, sizeof f->tenant);
    f->stream.interval_ms = EVENTS_TICK_MS;
    f->stream.tick = look;
    f->stream.free = free_follower;
    if (xi_stream_open(x, &f->stream, &err) != XI_OK)
        xi_answer_problem(x, &err);
}
