#include "ipc/work.h"

#include <string.h>

#include "ipc/ring.h"

_Static_assert(XI_WORK_RECORD_MAX <= XI_RING_RECORD_MAX, "a record fits into a ring");

static enum xi_rc broken(struct xi_err *err, const char *what, uint64_t has, uint64_t cap)
{
    return xi_fail(err, XI_EPROTO, "%s %llu, allowed is %llu", what, (unsigned long long)has,
                   (unsigned long long)cap);
}

enum xi_rc xi_work_open(const void *record, size_t bytes, struct xi_work_view *ret,
                        struct xi_err *err)
{
    struct xi_work_view v = {.next = (const uint8_t *)record + sizeof v.head,
                             .end = (const uint8_t *)record + bytes};

    if (bytes < sizeof v.head)
        return broken(err, "work record bytes", bytes, sizeof v.head);
    memcpy(&v.head, record, sizeof v.head);
    v.left = v.head.n_requests;
    if (v.head.op < XI_WORK_ALL || v.head.op > XI_WORK_FORGET)
        return broken(err, "work op", v.head.op, XI_WORK_FORGET);
    int bare = v.head.op == XI_WORK_RELEASE || v.head.op == XI_WORK_QUIT;
    if (v.left > XI_BATCH_MAX)
        return broken(err, "work requests", v.left, XI_BATCH_MAX);
    if (bare && (v.left != 0 || v.next != v.end))
        return broken(err, "requests of a release", v.left, 0);
    if (!bare && v.left == 0)
        return xi_fail(err, XI_EPROTO, "work without a request");
    *ret = v;
    return XI_OK;
}

enum xi_rc xi_work_next(struct xi_work_view *view, struct xi_work_request *ret,
                        struct xi_part ret_parts[XI_TENSORS_MAX], struct xi_err *err)
{
    struct xi_work_request q;
    size_t room = (size_t)(view->end - view->next);

    if (view->left == 0)
        return room == 0 ? XI_ENOENT : broken(err, "bytes behind the last request", room, 0);
    if (room < sizeof q)
        return broken(err, "bytes of a request", room, sizeof q);
    memcpy(&q, view->next, sizeof q);
    room -= sizeof q;
    if (q.n_parts > XI_TENSORS_MAX)
        return broken(err, "tensors of a request", q.n_parts, XI_TENSORS_MAX);
    if (q.n_places > q.n_parts)
        return broken(err, "places", q.n_places, q.n_parts);
    if (q.n_state > q.n_parts - q.n_places)
        return broken(err, "state tensors", q.n_state, q.n_parts - q.n_places);
    size_t tail = q.n_parts * sizeof *ret_parts;
    if (room < tail)
        return broken(err, "bytes of tensors", tail, room);
    memcpy(ret_parts, view->next + sizeof q, tail);
    view->next += sizeof q + tail;
    view->left--;
    *ret = q;
    return XI_OK;
}

static enum xi_rc check_done(const struct xi_done *d, struct xi_err *err)
{
    if (d->n_parts > XI_TENSORS_MAX)
        return broken(err, "outputs", d->n_parts, XI_TENSORS_MAX);
    if (d->flags != XI_DONE_FINAL && d->flags != XI_DONE_MORE)
        return broken(err, "completion flags", d->flags, XI_DONE_MORE);
    if (!xi_rc_known(d->code))
        return xi_fail(err, XI_EPROTO, "completion code %d is unknown", (int)d->code);
    if (d->n_state > d->n_parts)
        return broken(err, "state outputs", d->n_state, d->n_parts);
    if (d->batch > XI_BATCH_MAX)
        return broken(err, "rows of a run", d->batch, XI_BATCH_MAX);
    if (d->code != XI_OK && d->n_parts != 0)
        return broken(err, "outputs of a failure", d->n_parts, 0);
    if (memchr(d->text, 0, sizeof d->text) == NULL || memchr(d->hint, 0, sizeof d->hint) == NULL)
        return xi_fail(err, XI_EPROTO, "text of a completion does not end");
    return XI_OK;
}

enum xi_rc xi_done_open(const void *record, size_t bytes, struct xi_done *ret,
                        struct xi_part ret_parts[XI_TENSORS_MAX], struct xi_err *err)
{
    enum xi_rc rc;

    if (bytes < sizeof *ret)
        return broken(err, "completion bytes", bytes, sizeof *ret);
    memcpy(ret, record, sizeof *ret);
    rc = check_done(ret, err);
    if (rc != XI_OK)
        return rc;
    size_t tail = ret->n_parts * sizeof *ret_parts;
    if (bytes - sizeof *ret != tail)
        return broken(err, "bytes of outputs", bytes - sizeof *ret, tail);
    memcpy(ret_parts, (const uint8_t *)record + sizeof *ret, tail);
    return XI_OK;
}

static enum xi_rc check_tensor(const struct xi_part *p, struct xi_err *err)
{
    uint64_t want = 0;
    enum xi_rc rc;

    if (p->dtype < XI_DT_BOOL || p->dtype > XI_DT_BYTES)
        return broken(err, "element type", p->dtype, XI_DT_BYTES);
    if (p->dtype == XI_DT_BYTES) /* its elements carry lengths: who reads them checks those */
        rc = xi_shape_elements(p->dims, p->rank, &want, err);
    else
        rc = xi_shape_bytes((enum xi_dtype)p->dtype, p->dims, p->rank, &want, err);
    if (rc != XI_OK)
        return xi_wrap(err, XI_EPROTO, "part");
    if (p->dtype != XI_DT_BYTES && want != p->mem.bytes)
        return broken(err, "bytes of a tensor", p->mem.bytes, want);
    return XI_OK;
}

enum xi_rc xi_part_check(const struct xi_part *part, uint64_t segment_bytes, struct xi_err *err)
{
    uint64_t end;

    if (part->kind > XI_PART_PLACE)
        return broken(err, "part kind", part->kind, XI_PART_PLACE);
    if (part->index >= XI_TENSORS_MAX)
        return broken(err, "part index", part->index, XI_TENSORS_MAX - 1);
    if (part->rank < 0 || part->rank > XI_MAX_RANK)
        return xi_fail(err, XI_EPROTO, "part of rank %d", (int)part->rank);
    if (__builtin_add_overflow(part->mem.offset, part->mem.bytes, &end) || end > segment_bytes)
        return xi_fail(err, XI_EPROTO, "%llu bytes at %llu of a segment of %llu",
                       (unsigned long long)part->mem.bytes, (unsigned long long)part->mem.offset,
                       (unsigned long long)segment_bytes);
    return part->kind == XI_PART_TENSOR ? check_tensor(part, err) : XI_OK;
}

struct xi_tensor xi_part_tensor(const struct xi_part *part, void *base)
{
    return xi_tensor_make((enum xi_dtype)part->dtype, part->dims, part->rank,
                          base != NULL ? (uint8_t *)base + part->mem.offset : NULL,
                          part->mem.bytes);
}
