/* oip_regions.h: what of a request of the protocol lies in memory that its client owns
 * (ipc/regions.h). A part of oip_call. Loop thread, but for read. */
#ifndef XI_DAEMON_API_OIP_REGIONS_H
#define XI_DAEMON_API_OIP_REGIONS_H

#include "core/tensor.h"
#include "daemon/ipc/regions.h"
#include "wire/oip.h"

/* Zeroed at first, and again after end. */
struct xi_oip_regions {
    int used;
    struct xi_loan *loan; /* for the request, which takes this reference over; NULL: none */
    uint64_t read_bytes;  /* of inputs that are copied */
    /* By input: the segment of one that is copied; where in its segment each begins. */
    struct xi_segment *inputs[XI_TENSORS_MAX];
    uint64_t input_at[XI_TENSORS_MAX];
    /* By output that the client listed. */
    struct xi_segment *outputs[XI_TENSORS_MAX];
    uint64_t output_at[XI_TENSORS_MAX];
};

/* Finds the regions that `ask` names for its inputs and outputs, which fit the model (signature;
 * NULL: its flow, whose file is copied).
 * Inputs that can stay where they lie are lent; those that are copied get a place behind what ask
 * has as text (text_bytes grows, the input's offset says where). Outputs of the model get their
 * place. On failure end is called by the caller, as ever. ETENSOR, and as of xi_region_take. */
enum xi_rc xi_oip_regions_take(struct xi_oip_regions *r, struct xi_regions *regions,
                               const char *tenant, const struct xi_signature *signature,
                               struct xi_oip_request *ask, struct xi_err *err) XI_MUST_CHECK;
/* Does the input lie where its client has it? 0: it is no region's, or copied. */
int xi_oip_regions_lent(const struct xi_oip_regions *r, uint32_t input);
/* Copies what is to be copied to text. Any thread. EREGION. */
enum xi_rc xi_oip_regions_read(const struct xi_oip_regions *r, const struct xi_oip_request *ask,
                               uint8_t *text, struct xi_err *err) XI_MUST_CHECK;
/* An output (by its place in ask) that did not get into its region by itself. EREGION. */
enum xi_rc xi_oip_regions_write(const struct xi_oip_regions *r, const struct xi_oip_request *ask,
                                uint32_t output, const void *data, uint64_t bytes,
                                struct xi_err *err) XI_MUST_CHECK;
void xi_oip_regions_end(struct xi_oip_regions *r);

#endif
