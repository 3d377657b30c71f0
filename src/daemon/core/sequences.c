#include "daemon/core/sequences.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "daemon/core/tenants.h"

enum { BUCKETS = 256, ENTERED = 0x100, IDLE_S = 60 };

/* Once made it is on the idle list exactly while no request belongs to it. */
struct xi_sequence {
    struct xi_sequences *home;
    char tenant[XI_NAME_MAX + 1], id[XI_SEQUENCE_ID_MAX + 1];
    struct xi_sequence *bucket_next;
    struct xi_sequence *idle_prev, *idle_next;
    struct xi_request *head, *tail; /* the line; the head has its turn */
    uint32_t requests;              /* that belong to it, in the line or not yet */
    int begun;                      /* a `start` succeeded or has its turn */
    int holds;                      /* state n is in slot */
    struct xi_slot *slot;           /* two halves; NULL: no state yet */
    uint32_t layout;                /* of slot: the table's then */
    unsigned half;                  /* that holds state n */
    uint64_t steps;                 /* n */
    uint64_t idle_since_ms;
};

struct xi_sequences {
    struct xi_session *session;
    struct xi_shm *shm;
    struct xi_sequence *buckets[BUCKETS];
    struct xi_sequence *idle_head, *idle_tail; /* longest idle first */
    uint32_t layout;                           /* counts up when the model is another */
    uint32_t n_states;                         /* of the layout */
    struct xi_msg_port ports[XI_TENSORS_MAX];
    uint64_t at[XI_TENSORS_MAX], size[XI_TENSORS_MAX], half_bytes;
    struct xi_sequences_stats stats;
};

/* ---- what a client says ---- */

static int take_word(const char **at, const char *word)
{
    size_t n = strlen(word);

    if (strncmp(*at, word, n) != 0)
        return 0;
    *at += n;
    return 1;
}

static const char *skip_blanks(const char *at)
{
    return at + strspn(at, " \t");
}

enum xi_rc xi_sequence_parse(const char *text, struct xi_sequence_ask *ret, struct xi_err *err)
{
    const char *at = skip_blanks(text);
    size_t n = 0;

    while (at[n] > ' ' && at[n] < 0x7f && strchr(";,\"\\", at[n]) == NULL)
        n++;
    if (n == 0 || n > XI_SEQUENCE_ID_MAX)
        goto bad;
    memcpy(ret->id, at, n);
    ret->id[n] = '\0';
    ret->flags = 0;
    for (at = skip_blanks(at + n); *at == ';'; at = skip_blanks(at)) {
        at = skip_blanks(at + 1);
        if (take_word(&at, "start"))
            ret->flags |= XI_SEQUENCE_START;
        else if (take_word(&at, "end"))
            ret->flags |= XI_SEQUENCE_END;
        else
            goto bad;
    }
    if (*at == '\0')
        return XI_OK;
bad:
    ret->id[0] = '\0';
    (void)xi_fail(err, XI_EINVAL, "a sequence is ID[;start][;end], not \"%.40s\"", text);
    return xi_hint(err, "the ID is 1 to %d printable characters without blank, ; , \" and \\",
                   XI_SEQUENCE_ID_MAX);
}

uint64_t xi_sequence_hash(const char *tenant, const char *id)
{
    const char *const texts[] = {tenant, id};
    uint64_t h = 14695981039346656037ull; /* FNV-1a */
    int i;

    for (i = 0; i < 2; i++) {
        const char *c = texts[i];

        do
            h = (h ^ (uint8_t)*c) * 1099511628211ull;
        while (*c++ != '\0');
    }
    return h ^ h >> 32; /* the low bits of the last step are weak */
}

/* ---- where sequences are kept ---- */

static struct xi_sequence **bucket_of(struct xi_sequences *t, const char *tenant, const char *id)
{
    return &t->buckets[xi_sequence_hash(tenant, id) % BUCKETS];
}

static struct xi_sequence *find(struct xi_sequences *t, const char *tenant, const char *id)
{
    struct xi_sequence *seq = *bucket_of(t, tenant, id);

    while (seq != NULL && (strcmp(seq->id, id) != 0 || strcmp(seq->tenant, tenant) != 0))
        seq = seq->bucket_next;
    return seq;
}

static void idle_add(struct xi_sequence *seq, uint64_t now_ms)
{
    struct xi_sequences *t = seq->home;

    seq->idle_since_ms = now_ms;
    seq->idle_prev = t->idle_tail;
    seq->idle_next = NULL;
    if (t->idle_tail != NULL)
        t->idle_tail->idle_next = seq;
    else
        t->idle_head = seq;
    t->idle_tail = seq;
}

static void idle_remove(struct xi_sequence *seq)
{
    struct xi_sequences *t = seq->home;

    if (seq->idle_prev != NULL)
        seq->idle_prev->idle_next = seq->idle_next;
    else
        t->idle_head = seq->idle_next;
    if (seq->idle_next != NULL)
        seq->idle_next->idle_prev = seq->idle_prev;
    else
        t->idle_tail = seq->idle_prev;
}

static void drop_slot(struct xi_sequence *seq)
{
    struct xi_sequences *t = seq->home;

    seq->holds = 0;
    if (seq->slot == NULL)
        return;
    t->stats.state_bytes -= seq->slot->bytes;
    if (t->session->owner != NULL)
        t->session->owner->state_bytes -= seq->slot->bytes;
    xi_slot_put(seq->slot);
    seq->slot = NULL;
}

static void drop_state(struct xi_sequence *seq)
{
    drop_slot(seq);
    seq->steps = 0;
}

/* No request belongs to it and it is on no list but its bucket's. */
static void destroy(struct xi_sequence *seq)
{
    struct xi_sequences *t = seq->home;
    struct xi_sequence **at = bucket_of(t, seq->tenant, seq->id);

    while (*at != seq)
        at = &(*at)->bucket_next;
    *at = seq->bucket_next;
    drop_state(seq);
    t->stats.open--;
    free(seq);
}

/* ---- state ---- */

/* What the model says of its state, before it ever ran too. */
static int has_state(const struct xi_session *s)
{
    int model;

    if (s->signature.n_inputs > 0 || s->record == NULL)
        return s->stateful != XI_STATE_NONE;
    model = xi_record_find_model(s->record, "main");
    return model >= 0 && s->record->models[model].stateful != 0;
}

static int same_layout(const struct xi_sequences *t)
{
    const struct xi_session *s = t->session;
    uint32_t i;

    if (t->n_states != s->n_states)
        return 0;
    for (i = 0; i < t->n_states; i++) {
        if (t->ports[i].dtype != s->states[i].dtype || t->ports[i].rank != s->states[i].rank ||
            memcmp(t->ports[i].dims, s->states[i].dims, sizeof(t->ports[i].dims)) != 0)
            return 0;
    }
    return 1;
}

/* Where each tensor lies in a half; each begins where an engine can bind it. */
static enum xi_rc lay_out(struct xi_sequences *t, struct xi_err *err)
{
    const struct xi_session *s = t->session;
    uint64_t sum = 0;
    uint32_t i;

    if (s->n_states > XI_TENSORS_MAX)
        return xi_fail(err, XI_EENGINE, "%s has %u state tensors", s->name, s->n_states);
    for (i = 0; i < s->n_states; i++) {
        const struct xi_msg_port *p = &s->states[i];
        enum xi_rc rc = xi_shape_bytes((enum xi_dtype)p->dtype, p->dims, p->rank, &t->size[i], err);

        if (rc != XI_OK)
            return rc;
        t->ports[i] = *p;
        t->at[i] = sum;
        sum += (t->size[i] + 63) / 64 * 64;
        if (sum > XI_SEQUENCE_STATE_MAX / 2)
            return xi_fail(err, XI_EQUOTA, "a sequence of %s keeps over %llu bytes of state",
                           s->name, XI_SEQUENCE_STATE_MAX / 2);
    }
    t->n_states = s->n_states;
    t->half_bytes = sum;
    t->layout++;
    return XI_OK;
}

static enum xi_rc need_slot(struct xi_sequence *seq, struct xi_err *err)
{
    struct xi_sequences *t = seq->home;
    struct xi_tenant *owner = t->session->owner;
    enum xi_rc rc;

    rc = same_layout(t) ? XI_OK : lay_out(t, err);
    if (rc != XI_OK)
        return rc;
    if (seq->slot != NULL && seq->layout == t->layout)
        return XI_OK;
    drop_slot(seq);
    if (owner != NULL && owner->state_bytes + 2 * t->half_bytes > XI_SEQUENCE_STATE_MAX) {
        (void)xi_fail(err, XI_EQUOTA, "the sequences of tenant %s keep %llu bytes of state",
                      owner->name, (unsigned long long)owner->state_bytes);
        return xi_hint(err, "%llu are allowed; end sequences with ;end", XI_SEQUENCE_STATE_MAX);
    }
    rc = xi_shm_take(t->shm, t->session->tenant, 2 * t->half_bytes + 1, &seq->slot, err);
    if (rc != XI_OK) {
        seq->slot = NULL;
        return rc;
    }
    seq->layout = t->layout;
    t->stats.state_bytes += seq->slot->bytes;
    if (owner != NULL)
        owner->state_bytes += seq->slot->bytes;
    return XI_OK;
}

/* ---- join ---- */

static enum xi_rc unknown(const char *id, struct xi_err *err)
{
    (void)xi_fail(err, XI_ESEQUENCE, "there is no sequence \"%s\"; it ended, or was never begun",
                  id);
    return xi_hint(err, "begin it with Xinfer-Sequence: %s;start", id);
}

enum xi_rc xi_sequence_lost(const struct xi_request *req, struct xi_err *err)
{
    return unknown(req->sequence->id, err);
}

/* State inside the engine: its one lane is one sequence. */
static enum xi_rc room_for_hidden(const struct xi_sequences *t, struct xi_err *err)
{
    const struct xi_session *s = t->session;

    if (s->lane_count > 1) {
        (void)xi_fail(err, XI_EUNSUPPORTED, "%s keeps its state inside its engine", s->name);
        return xi_hint(err, "load it with options.instances 1, once for each sequence");
    }
    if (t->stats.open > 0)
        return xi_fail(err, XI_EAGAIN,
                       "%s keeps its state inside its engine, where another "
                       "sequence is open",
                       s->name);
    return XI_OK;
}

static enum xi_rc may_open(const struct xi_sequences *t, const struct xi_request *req,
                           const struct xi_sequence_ask *ask, struct xi_err *err)
{
    if (has_state(t->session) && !(ask->flags & XI_SEQUENCE_START))
        return unknown(ask->id, err);
    if (t->stats.open >= XI_SEQUENCES_MAX) {
        (void)xi_fail(err, XI_EAGAIN, "%u sequences of %s are open", t->stats.open,
                      req->session->name);
        return xi_hint(err, "end sequences with ;end");
    }
    return t->session->stateful == XI_STATE_HIDDEN ? room_for_hidden(t, err) : XI_OK;
}

static struct xi_sequences *table_of(struct xi_shm *shm, struct xi_session *s)
{
    if (s->sequences == NULL)
        s->sequences = calloc(1, sizeof(*s->sequences));
    if (s->sequences != NULL) {
        s->sequences->session = s;
        s->sequences->shm = shm;
    }
    return s->sequences;
}

static struct xi_sequence *open_one(struct xi_sequences *t, const struct xi_request *req,
                                    const char *id)
{
    struct xi_sequence *seq = calloc(1, sizeof(*seq));
    struct xi_sequence **bucket = bucket_of(t, req->tenant, id);

    if (seq == NULL)
        return NULL;
    seq->home = t;
    memcpy(seq->tenant, req->tenant, sizeof(seq->tenant));
    memcpy(seq->id, id, sizeof(seq->id));
    seq->bucket_next = *bucket;
    *bucket = seq;
    t->stats.open++;
    return seq;
}

enum xi_rc xi_sequence_join(struct xi_shm *shm, struct xi_request *req,
                            const struct xi_sequence_ask *ask, struct xi_err *err)
{
    struct xi_sequences *t = table_of(shm, req->session);
    struct xi_sequence *seq;
    enum xi_rc rc;

    if (t == NULL)
        return xi_fail(err, XI_ENOMEM, "no memory for a sequence");
    seq = find(t, req->tenant, ask->id);
    if (seq == NULL) {
        rc = may_open(t, req, ask, err);
        if (rc != XI_OK)
            return rc;
        seq = open_one(t, req, ask->id);
        if (seq == NULL)
            return xi_fail(err, XI_ENOMEM, "no memory for a sequence");
    } else if (seq->requests == 0) {
        idle_remove(seq);
    }
    seq->requests++;
    req->sequence = seq;
    req->sequence_flags = ask->flags;
    return XI_OK;
}

/* ---- the line ---- */

void xi_sequence_enter(struct xi_request *req)
{
    struct xi_sequence *seq = req->sequence;

    req->sequence_flags |= ENTERED;
    req->sequence_prev = seq->tail;
    req->sequence_next = NULL;
    if (seq->tail != NULL) {
        seq->tail->sequence_next = req;
        seq->home->stats.waiting++;
    } else {
        seq->head = req;
    }
    seq->tail = req;
}

int xi_sequence_turn(const struct xi_request *req)
{
    return req->sequence->head == req;
}

static void leave_line(struct xi_request *req)
{
    struct xi_sequence *seq = req->sequence;

    if (req->sequence_prev != NULL)
        req->sequence_prev->sequence_next = req->sequence_next;
    else
        seq->head = req->sequence_next;
    if (req->sequence_next != NULL)
        req->sequence_next->sequence_prev = req->sequence_prev;
    else
        seq->tail = req->sequence_prev;
    if (seq->head != NULL) /* else it was the last, and had its turn */
        seq->home->stats.waiting--;
    req->sequence_prev = NULL;
    req->sequence_next = NULL;
    req->sequence_flags &= ~(unsigned)ENTERED;
}

static enum xi_rc attach(struct xi_sequence *seq, struct xi_request *req, struct xi_err *err)
{
    const struct xi_sequences *t = seq->home;
    uint32_t i;

    if (req->n_parts + t->n_states > XI_TENSORS_MAX)
        return xi_fail(err, XI_ETENSOR, "%u inputs and %u state tensors, %d may be", req->n_parts,
                       t->n_states, XI_TENSORS_MAX);
    for (i = 0; i < t->n_states; i++) {
        struct xi_part *part = &req->parts[req->n_parts++];

        *part = (struct xi_part){.kind = XI_PART_TENSOR,
                                 .index = i,
                                 .dtype = t->ports[i].dtype,
                                 .rank = t->ports[i].rank};
        memcpy(part->dims, t->ports[i].dims, sizeof(part->dims));
        part->mem.segment = seq->slot->segment->id;
        part->mem.offset = seq->slot->offset + seq->half * t->half_bytes + t->at[i];
        part->mem.bytes = t->size[i];
    }
    req->n_state = t->n_states;
    return XI_OK;
}

enum xi_rc xi_sequence_begin(struct xi_request *req, struct xi_err *err)
{
    struct xi_sequence *seq = req->sequence;
    struct xi_sequences *t = seq->home;

    XI_ASSERT(seq->head == req && req->n_state == 0);
    if (req->sequence_flags & XI_SEQUENCE_START) {
        drop_state(seq);
        seq->begun = 1;
        t->stats.begun++;
        return XI_OK;
    }
    if (seq->holds &&
        (seq->layout != t->layout || !same_layout(t))) { /* loaded anew, as another variant */
        seq->begun = 0;
        t->stats.lost++;
    }
    if (!seq->begun && has_state(t->session))
        return xi_sequence_lost(req, err);
    if (!seq->begun)
        t->stats.begun++;
    seq->begun = 1;
    return seq->holds ? attach(seq, req, err) : XI_OK;
}

uint32_t xi_sequence_work_flags(const struct xi_request *req)
{
    const struct xi_session *s = req->session;
    int first = req->sequence == NULL || req->sequence->steps == 0;

    if (s->stateful == XI_STATE_HIDDEN)
        return first ? XI_WORK_START : 0;
    return s->stateful == XI_STATE_EXPLICIT && req->n_state == 0 ? XI_WORK_START : 0;
}

struct xi_slot *xi_sequence_slot(const struct xi_request *req)
{
    return req->n_state > 0 ? req->sequence->slot : NULL;
}

/* ---- commit ---- */

static int is_state(const struct xi_sequences *t, const struct xi_reply *reply)
{
    uint32_t i, first = reply->done.n_parts - reply->done.n_state;

    if (reply->done.n_state != t->n_states)
        return 0;
    for (i = 0; i < t->n_states; i++) {
        const struct xi_part *p = &reply->parts[first + i];

        if (p->kind != XI_PART_TENSOR || p->dtype != t->ports[i].dtype ||
            p->rank != t->ports[i].rank || p->mem.bytes != t->size[i] ||
            memcmp(p->dims, t->ports[i].dims, (size_t)p->rank * sizeof(p->dims[0])) != 0)
            return 0;
    }
    return 1;
}

/* Into the half that nobody reads; then it is the one. */
static enum xi_rc keep(struct xi_sequence *seq, const struct xi_reply *reply, struct xi_err *err)
{
    struct xi_sequences *t = seq->home;
    uint32_t i, first = reply->done.n_parts - reply->done.n_state;
    enum xi_rc rc = need_slot(seq, err);
    uint8_t *half;

    if (rc != XI_OK)
        return rc;
    if (!is_state(t, reply))
        return xi_fail(err, XI_EENGINE, "the host answered another state than %s has",
                       t->session->name);
    half = seq->slot->data + (1 - seq->half) * t->half_bytes;
    for (i = 0; i < t->n_states; i++)
        memcpy(half + t->at[i], xi_reply_data(reply, first + i), t->size[i]);
    seq->half = 1 - seq->half;
    seq->holds = 1;
    return XI_OK;
}

enum xi_rc xi_sequence_commit(struct xi_request *req, struct xi_reply *reply, struct xi_err *err)
{
    struct xi_sequence *seq = req->sequence;
    enum xi_rc rc = XI_OK;

    if (reply->done.n_state > reply->done.n_parts)
        return xi_fail(err, XI_EENGINE, "the host answered more state than parts");
    if (seq != NULL && seq->begun) { /* else a `start` behind it failed: nobody needs the state */
        if (req->session->stateful == XI_STATE_EXPLICIT)
            rc = keep(seq, reply, err);
        if (rc == XI_OK)
            seq->steps++;
    }
    xi_reply_trim(reply, reply->done.n_state);
    return rc;
}

/* ---- the end ---- */

/* May the sequence go on after this one? */
static int goes_on(const struct xi_request *req, enum xi_rc rc)
{
    int ran = req->timing.dispatched != 0;

    if (rc == XI_OK)
        return !(req->sequence_flags & XI_SEQUENCE_END);
    if (req->sequence_flags & XI_SEQUENCE_START)
        return 0;
    return !(ran && req->session->stateful == XI_STATE_HIDDEN); /* who knows what it did */
}

struct xi_request *xi_sequence_leave(struct xi_request *req, enum xi_rc rc, uint64_t now_ms)
{
    struct xi_sequence *seq = req->sequence;
    struct xi_request *head = seq->head;

    if (seq->begun && !goes_on(req, rc)) {
        seq->begun = 0;
        seq->home->stats.ended += rc == XI_OK;
    }
    if (req->sequence_flags & ENTERED)
        leave_line(req);
    req->sequence = NULL;
    if (--seq->requests > 0)
        return seq->head != head ? seq->head : NULL;
    if (seq->begun)
        idle_add(seq, now_ms);
    else
        destroy(seq);
    return NULL;
}

/* Its `start` waits for the host: there was no state yet. */
static int is_to_begin(const struct xi_sequence *seq)
{
    return seq->head != NULL && seq->head->state == XI_REQ_QUEUED &&
           (seq->head->sequence_flags & XI_SEQUENCE_START) != 0;
}

void xi_sequences_host_gone(struct xi_session *s)
{
    struct xi_sequences *t = s->sequences;
    struct xi_sequence *seq;
    uint32_t i, lost = 0;

    if (t == NULL || s->stateful != XI_STATE_HIDDEN)
        return;
    for (i = 0; i < BUCKETS; i++) {
        for (seq = t->buckets[i]; seq != NULL; seq = seq->bucket_next) {
            if (is_to_begin(seq))
                continue;
            lost += (uint32_t)(seq->begun != 0);
            seq->begun = 0;
        }
    }
    while (t->idle_head != NULL) {
        seq = t->idle_head;
        idle_remove(seq);
        destroy(seq);
    }
    t->stats.lost += lost;
    if (lost > 0)
        xi_log(XI_WARN, "sequence.lost", "id=%s name=%s sequences=%u", s->id, s->name, lost);
}

void xi_sequences_expire(struct xi_session *s, uint64_t now_ms)
{
    struct xi_sequences *t = s->sequences;
    uint64_t idle_ms = 1000ull * (s->options.sequence_idle_s ? s->options.sequence_idle_s : IDLE_S);

    while (t != NULL && t->idle_head != NULL && now_ms >= t->idle_head->idle_since_ms + idle_ms) {
        struct xi_sequence *seq = t->idle_head;

        xi_log(XI_INFO, "sequence.expired", "id=%s name=%s sequence=%s steps=%llu idle_s=%llu",
               s->id, s->name, seq->id, (unsigned long long)seq->steps,
               (unsigned long long)idle_ms / 1000);
        t->stats.expired++;
        idle_remove(seq);
        destroy(seq);
    }
}

void xi_sequences_free(struct xi_session *s)
{
    struct xi_sequences *t = s->sequences;

    if (t == NULL)
        return;
    while (t->idle_head != NULL) {
        struct xi_sequence *seq = t->idle_head;

        idle_remove(seq);
        destroy(seq);
    }
    XI_ASSERT(t->stats.open == 0);
    free(t);
    s->sequences = NULL;
}

int xi_sequences_has(const struct xi_session *s, const char *tenant, const char *id)
{
    return s->sequences != NULL && find(s->sequences, tenant, id) != NULL;
}

void xi_sequences_stats(const struct xi_session *s, struct xi_sequences_stats *ret)
{
    *ret = s->sequences != NULL ? s->sequences->stats : (struct xi_sequences_stats){0};
}
