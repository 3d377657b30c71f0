/* loans.h: what requests use of memory that clients own (regions.h). Loop thread, but for reading
 * and writing. */
#ifndef XI_DAEMON_IPC_LOANS_H
#define XI_DAEMON_IPC_LOANS_H

#include "daemon/ipc/shm_manager.h"
#include "ipc/work.h"

/* Copies from and to a client's segment, which is never mapped here. Any thread. EREGION: it became
 * shorter. */
enum xi_rc xi_segment_read(const struct xi_segment *segment, uint64_t offset, void *ret,
                           uint64_t bytes, struct xi_err *err) XI_MUST_CHECK;
enum xi_rc xi_segment_write(const struct xi_segment *segment, uint64_t offset, const void *data,
                            uint64_t bytes, struct xi_err *err) XI_MUST_CHECK;

struct xi_loans; /* keeps some for the next request */

struct xi_loans *xi_loans_new(void);    /* NULL: memory is out */
void xi_loans_free(struct xi_loans *l); /* goes with the last loan. NULL is fine */

/* What one request uses of regions, counted as a whole: the request holds it, and so does whatever
 * may still touch that memory. */
struct xi_loan {
    uint32_t refs;
    struct xi_loans *owner;
    struct xi_loan *next;                        /* free ones */
    uint32_t n_inputs, n_places;                 /* n_inputs: below it may be such inputs */
    struct xi_segment *inputs[XI_TENSORS_MAX];   /* by part; NULL: it lies in the slot */
    struct xi_segment *segments[XI_TENSORS_MAX]; /* of the places */
    struct xi_part places[XI_TENSORS_MAX];       /* index is the model's output */
};
struct xi_loan *xi_loan_new(struct xi_loans *l); /* one reference; NULL: memory is out */
void xi_loan_get(struct xi_loan *loan);
void xi_loan_put(struct xi_loan *loan); /* NULL is fine */
/* Part `part` of the request lies in this segment, whose reference goes to the loan. */
void xi_loan_input(struct xi_loan *loan, uint32_t part, struct xi_segment *segment);
/* The model's output is wanted here; the reference goes to the loan. */
void xi_loan_place(struct xi_loan *loan, uint32_t output, struct xi_segment *segment,
                   uint64_t offset, uint64_t bytes);
/* NULL: this output has no place. */
const struct xi_part *xi_loan_find(const struct xi_loan *loan, uint32_t output);
/* A host lost some of this memory: its regions are shown to hosts anew, if they are whole again. */
void xi_loan_spoiled(struct xi_loan *loan);

#endif
