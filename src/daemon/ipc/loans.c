#include "daemon/ipc/loans.h"

#include <stdlib.h>
#include <string.h>

#include "base/platform/shared.h"

enum { LOANS_KEPT = 64 };

struct xi_loans {
    uint32_t refs; /* the owner's, and one for each loan that is out */
    uint32_t n_free;
    struct xi_loan *free;
};

struct xi_loans *xi_loans_new(void)
{
    struct xi_loans *l = calloc(1, sizeof *l);

    if (l != NULL)
        l->refs = 1;
    return l;
}

static void deref(struct xi_loans *l)
{
    if (--l->refs > 0)
        return;
    while (l->free != NULL) {
        struct xi_loan *loan = l->free;
        l->free = loan->next;
        free(loan);
    }
    free(l);
}

void xi_loans_free(struct xi_loans *l)
{
    if (l != NULL)
        deref(l);
}

enum xi_rc xi_segment_read(const struct xi_segment *segment, uint64_t offset, void *ret,
                           uint64_t bytes, struct xi_err *err)
{
    XI_ASSERT(segment->client);
    return xi_shared_read(segment->fd, segment->from + offset, ret, bytes, err);
}

enum xi_rc xi_segment_write(const struct xi_segment *segment, uint64_t offset, const void *data,
                            uint64_t bytes, struct xi_err *err)
{
    XI_ASSERT(segment->client && segment->writable);
    return xi_shared_write(segment->fd, segment->from + offset, data, bytes, err);
}

/* ---- loans ---- */

struct xi_loan *xi_loan_new(struct xi_loans *l)
{
    struct xi_loan *loan = l->free;

    if (loan != NULL) {
        l->free = loan->next;
        l->n_free--;
    } else if ((loan = malloc(sizeof *loan)) == NULL) {
        return NULL;
    }
    loan->refs = 1;
    loan->owner = l;
    loan->next = NULL;
    loan->n_inputs = loan->n_places = 0;
    memset(loan->inputs, 0, sizeof loan->inputs);
    l->refs++;
    return loan;
}

void xi_loan_get(struct xi_loan *loan)
{
    loan->refs++;
}

void xi_loan_put(struct xi_loan *loan)
{
    if (loan == NULL || --loan->refs > 0)
        return;
    struct xi_loans *l = loan->owner;
    for (uint32_t i = 0; i < loan->n_inputs; i++)
        xi_segment_put(loan->inputs[i]);
    for (uint32_t i = 0; i < loan->n_places; i++)
        xi_segment_put(loan->segments[i]);
    if (l->n_free < LOANS_KEPT) {
        loan->next = l->free;
        l->free = loan;
        l->n_free++;
    } else {
        free(loan);
    }
    deref(l);
}

void xi_loan_input(struct xi_loan *loan, uint32_t part, struct xi_segment *segment)
{
    XI_ASSERT(part < XI_TENSORS_MAX && loan->inputs[part] == NULL);
    loan->inputs[part] = segment;
    if (loan->n_inputs <= part)
        loan->n_inputs = part + 1;
}

void xi_loan_place(struct xi_loan *loan, uint32_t output, struct xi_segment *segment,
                   uint64_t offset, uint64_t bytes)
{
    XI_ASSERT(loan->n_places < XI_TENSORS_MAX && xi_loan_find(loan, output) == NULL);
    loan->segments[loan->n_places] = segment;
    loan->places[loan->n_places++] =
        (struct xi_part){.kind = XI_PART_PLACE,
                         .index = output,
                         .mem = {.segment = segment->id, .offset = offset, .bytes = bytes}};
}

const struct xi_part *xi_loan_find(const struct xi_loan *loan, uint32_t output)
{
    for (uint32_t i = 0; i < loan->n_places; i++)
        if (loan->places[i].index == output)
            return &loan->places[i];
    return NULL;
}

void xi_loan_spoiled(struct xi_loan *loan)
{
    for (uint32_t i = 0; i < loan->n_inputs; i++)
        if (loan->inputs[i] != NULL)
            loan->inputs[i]->spoiled = 1;
    for (uint32_t i = 0; i < loan->n_places; i++)
        loan->segments[i]->spoiled = 1;
}
