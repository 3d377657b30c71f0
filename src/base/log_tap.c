#include "base/log_tap.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"

struct place {
    atomic_flag busy;      /* somebody writes or reads it */
    _Atomic uint64_t lost; /* a record that should be here and is not */
    struct xi_log_record record;
};

static struct place *_Atomic ring;
static _Atomic uint64_t newest;

enum xi_rc xi_log_tap_open(struct xi_err *err)
{
    struct place *made = calloc(XI_LOG_TAP_RECORDS, sizeof *made);
    struct place *none = NULL;

    if (made == NULL)
        return xi_fail(err, XI_ENOMEM, "no memory for the last lines of the log");
    for (size_t i = 0; i < XI_LOG_TAP_RECORDS; i++)
        atomic_flag_clear(&made[i].busy);
    if (!atomic_compare_exchange_strong(&ring, &none, made))
        free(made); /* it is open already */
    return XI_OK;
}

uint64_t xi_log_tap_newest(void)
{
    return atomic_load(&newest);
}

static void copy(char *dst, size_t room, const char *src)
{
    size_t n = strnlen(src, room - 1);

    memcpy(dst, src, n);
    dst[n] = '\0';
}

void xi_log_tap_note(enum xi_log_level level, const char *event, const char *text)
{
    struct place *r = atomic_load_explicit(&ring, memory_order_acquire);

    if (r == NULL)
        return;
    uint64_t seq = atomic_fetch_add(&newest, 1) + 1;
    struct place *p = &r[seq % XI_LOG_TAP_RECORDS];
    if (atomic_flag_test_and_set_explicit(&p->busy, memory_order_acquire)) {
        atomic_store(&p->lost, seq);
        return;
    }
    if (p->record.seq > seq) { /* we slept for a whole round */
        atomic_flag_clear_explicit(&p->busy, memory_order_release);
        return;
    }
    p->record.seq = seq;
    p->record.at_ms = xi_wall_ms();
    p->record.level = level;
    copy(p->record.event, sizeof p->record.event, event);
    copy(p->record.text, sizeof p->record.text, text);
    atomic_flag_clear_explicit(&p->busy, memory_order_release);
}

enum xi_log_tap_result xi_log_tap_read(uint64_t seq, struct xi_log_record *ret)
{
    struct place *r = atomic_load_explicit(&ring, memory_order_acquire);
    enum xi_log_tap_result result = XI_LOG_TAP_WAIT;
    uint64_t head = xi_log_tap_newest();

    if (r == NULL || seq > head)
        return XI_LOG_TAP_WAIT;
    if (seq == 0 || head - seq >= XI_LOG_TAP_RECORDS)
        return XI_LOG_TAP_LOST;
    struct place *p = &r[seq % XI_LOG_TAP_RECORDS];
    if (atomic_load(&p->lost) >= seq)
        return XI_LOG_TAP_LOST;
    if (atomic_flag_test_and_set_explicit(&p->busy, memory_order_acquire))
        return XI_LOG_TAP_WAIT;
    if (p->record.seq == seq) {
        *ret = p->record;
        result = XI_LOG_TAP_OK;
    } else if (p->record.seq > seq) {
        result = XI_LOG_TAP_LOST;
    }
    atomic_flag_clear_explicit(&p->busy, memory_order_release);
    return result;
}

/* ---- fields ---- */

static int in_key(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_';
}

/* The length of a key that begins here and is followed by '='; 0: none does. */
static size_t key_length(const char *p)
{
    size_t n = 0;

    if (*p < 'a' || *p > 'z')
        return 0;
    while (in_key(p[n]))
        n++;
    return p[n] == '=' ? n : 0;
}

static size_t quoted_length(const char *p)
{
    const char *end = p + 1;

    while (*end && !(*end == '"' && (end[1] == ' ' || end[1] == '\0')))
        end++;
    return (size_t)(end - p);
}

static size_t plain_length(const char *p)
{
    size_t n = 0;

    while (p[n] && !(p[n] == ' ' && key_length(p + n + 1) > 0))
        n++;
    return n;
}

const char *xi_log_field(const struct xi_log_fields *f, const char *key)
{
    for (unsigned i = 0; i < f->n; i++)
        if (strcmp(f->at[i].key, key) == 0)
            return f->at[i].value;
    return NULL;
}

static void add(struct xi_log_fields *f, const char *key, const char *value)
{
    if (f->n == XI_LOG_FIELDS_MAX || xi_log_field(f, key) != NULL)
        return;
    f->at[f->n].key = key;
    f->at[f->n++].value = value;
}

void xi_log_fields_parse(const char *text, struct xi_log_fields *ret)
{
    char *p = ret->space;

    ret->n = 0;
    copy(ret->space, sizeof ret->space, text);
    while (*p) {
        size_t n = key_length(p);
        if (n == 0) { /* a word that is none of ours */
            p += strcspn(p, " ");
            p += *p == ' ';
            continue;
        }
        char *key = p, *value = p + n + 1;
        int quoted = *value == '"';
        n = quoted ? quoted_length(value) : plain_length(value);
        p = value + n;
        key[value - key - 1] = '\0';
        if (*p)
            *p++ = '\0';
        if (quoted && *p == ' ')
            p++;
        add(ret, key, value + quoted);
    }
}
