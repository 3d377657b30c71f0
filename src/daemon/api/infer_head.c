/* What every inference of an exchange begins with: its session, and a place for its body. */
#include <inttypes.h>
#include <stdlib.h>

#include "base/clock.h"
#include "daemon/api/connection.h"
#include "daemon/api/infer.h"

void xi_infer_free(struct xi_infer *inf)
{
    if (inf == NULL)
        return;
    xi_oip_call_fini(&inf->call);
    free(inf);
}

static void release(struct xi_exchange *x)
{
    xi_oip_call_end(&x->infer->call);
}

static struct xi_infer *make(struct xi_exchange *x)
{
    struct xi_infer *inf = calloc(1, sizeof *inf);

    if (inf == NULL)
        return NULL;
    inf->x = x;
    xi_oip_call_init(&inf->call, x->server->service);
    x->infer = inf;
    return inf;
}

static enum xi_rc begin(struct xi_infer *inf, int *ret_wait, struct xi_err *err)
{
    struct xi_exchange *x = inf->x;

    return xi_oip_call_begin(&inf->call, &x->who, x->born_ns, x->param, x->version,
                             inf->sequence.id[0] != '\0' ? &inf->sequence : NULL, ret_wait, err);
}

static void answer_refused(struct xi_infer *inf, const struct xi_err *err)
{
    inf->x->retry_after_s = inf->call.retry_after_s;
    xi_answer_problem(inf->x, err);
}

/* Asked every few milliseconds while the session is loaded for us, or swapped in place. */
static int retry_session(struct xi_exchange *x, uint64_t now_ns)
{
    struct xi_infer *inf = x->infer;
    struct xi_err err = {0};
    int wait;

    if (begin(inf, &wait, &err) != XI_OK) {
        if (wait && now_ns < x->wait_until_ns)
            return 0;
        if (wait && inf->deadline_ns != 0 && now_ns >= inf->deadline_ns)
            (void)xi_fail(&err, XI_ETIMEOUT, "its deadline passed while its model was loaded");
        xi_body_wait_over(x);
        answer_refused(inf, &err);
        return 1;
    }
    xi_body_wait_over(x);
    inf->go_on(x);
    return 1;
}

/* The body stays in the socket meanwhile, so that waiting costs no memory. */
static void wait_for_session(struct xi_infer *inf, const struct xi_err *err)
{
    struct xi_exchange *x = inf->x;
    uint64_t until = xi_oip_call_patience(x->born_ns, inf->deadline_ns), now = xi_now_ns();

    if (xi_body_length(x) == 0 || xi_body_waiting(x->server) >= XI_QUEUE_MAX) {
        xi_answer_problem(x, err);
        return;
    }
    xi_body_wait(x, retry_session, until > now ? (unsigned)((until - now) / 1000000u) : 0);
}

void xi_infer_enter(struct xi_exchange *x, const struct xi_sequence_ask *sequence,
                    uint64_t deadline_ns, void (*go_on)(struct xi_exchange *x))
{
    struct xi_infer *inf = x->infer != NULL ? x->infer : make(x);
    struct xi_err err = {0};
    int wait = 0;

    if (inf == NULL) {
        (void)xi_fail(&err, XI_ENOMEM, "no memory for a request");
        xi_answer_problem(x, &err);
        return;
    }
    x->release = release;
    inf->sequence = *sequence;
    inf->deadline_ns = deadline_ns;
    inf->go_on = go_on;
    if (begin(inf, &wait, &err) == XI_OK)
        go_on(x);
    else if (wait)
        wait_for_session(inf, &err);
    else
        answer_refused(inf, &err);
}

enum xi_rc xi_infer_read_layout(struct xi_infer *inf, const char *header, struct xi_err *err)
{
    struct xi_http_stream *s = &inf->x->stream;
    enum xi_rc rc;

    inf->header_bytes = 0;
    inf->input = header != NULL ? XI_INPUT_BINARY : XI_INPUT_JSON;
    if (header == NULL) {
        s->body_limit = XI_BODY_JSON_MAX;
        if (s->content_length == XI_HTTP_NO_LENGTH || s->content_length <= s->body_limit)
            return XI_OK;
        return xi_fail(err, XI_ETOOBIG, "JSON of %" PRIu64 " bytes, the limit is %llu",
                       s->content_length, XI_BODY_JSON_MAX);
    }
    rc = xi_oip_header_length(header, xi_body_length(inf->x), &inf->header_bytes, err);
    if (rc == XI_OK && inf->header_bytes > XI_BODY_JSON_MAX)
        rc = xi_fail(err, XI_ETOOBIG, "JSON of %" PRIu64 " bytes, the limit is %llu",
                     inf->header_bytes, XI_BODY_JSON_MAX);
    return rc;
}

void xi_infer_welcome(struct xi_infer *inf)
{
    uint64_t odd = inf->input == XI_INPUT_BINARY ? inf->header_bytes % XI_OIP_ALIGN : 0;

    xi_body_slot(inf->x, odd ? XI_OIP_ALIGN - odd : 0);
}
