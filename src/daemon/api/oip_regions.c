#include "daemon/api/oip_regions.h"

#include <string.h>

/* What an engine or a flow takes lengths or indexes from must not change after it looked; and not
 * every engine reads what is not aligned. */
static int is_copied(const struct xi_oip_tensor *in, uint64_t at)
{
    switch (in->dtype) {
    case XI_DT_BYTES:
    case XI_DT_INT32:
    case XI_DT_UINT32:
    case XI_DT_INT64:
    case XI_DT_UINT64:
        return 1;
    default:
        return at % xi_dtype_bytes(in->dtype) != 0;
    }
}

static enum xi_rc check_bytes(struct xi_oip_tensor *in, struct xi_err *err)
{
    if (in->dtype == XI_DT_BYTES)
        in->bytes = in->region.bytes;
    if (in->bytes == in->region.bytes)
        return XI_OK;
    return xi_fail(err, XI_ETENSOR,
                   "input \"%.60s\" has %llu bytes, its region is said to have %llu", in->name,
                   (unsigned long long)in->bytes, (unsigned long long)in->region.bytes);
}

static enum xi_rc need_loan(struct xi_oip_regions *r, struct xi_regions *regions,
                            struct xi_err *err)
{
    if (r->loan == NULL)
        r->loan = xi_regions_loan(regions);
    return r->loan != NULL ? XI_OK : xi_fail(err, XI_ENOMEM, "no memory for a request");
}

static enum xi_rc take_input(struct xi_oip_regions *r, struct xi_regions *regions,
                             const char *tenant, int copy, struct xi_oip_request *ask, uint32_t i,
                             struct xi_err *err)
{
    struct xi_oip_tensor *in = &ask->inputs[i];
    struct xi_segment *segment;
    enum xi_rc rc = check_bytes(in, err);

    if (rc == XI_OK)
        rc = xi_region_take(regions, tenant, in->region.name, in->region.offset, in->bytes, 0,
                            &segment, &r->input_at[i], err);
    if (rc != XI_OK)
        return rc;
    if (!copy && !is_copied(in, r->input_at[i])) {
        rc = need_loan(r, regions, err);
        if (rc != XI_OK)
            xi_segment_put(segment);
        else
            xi_loan_input(r->loan, i, segment);
        return rc;
    }
    r->inputs[i] = segment;
    if (in->bytes > XI_BODY_MAX - ask->text_bytes)
        return xi_fail(err, XI_ETOOBIG, "inputs of more than %llu bytes", XI_BODY_MAX);
    in->offset = ask->text_bytes;
    ask->text_bytes += (in->bytes + XI_OIP_ALIGN - 1) / XI_OIP_ALIGN * XI_OIP_ALIGN;
    r->read_bytes += in->bytes;
    return XI_OK;
}

static int output_index(const struct xi_signature *s, const char *name)
{
    for (uint32_t i = 0; s != NULL && i < s->n_outputs; i++)
        if (strcmp(s->outputs[i].name, name) == 0)
            return (int)i;
    return -1;
}

/* Classes are made here of the tensor, and what is no output of the model is a flow's answer. */
static enum xi_rc take_output(struct xi_oip_regions *r, struct xi_regions *regions,
                              const char *tenant, const struct xi_signature *signature,
                              const struct xi_oip_output *out, uint32_t i, struct xi_err *err)
{
    int index = output_index(signature, out->name);
    enum xi_rc rc = xi_region_take(regions, tenant, out->region.name, out->region.offset,
                                   out->region.bytes, 1, &r->outputs[i], &r->output_at[i], err);

    if (rc != XI_OK || index < 0 || out->classes > 0)
        return rc;
    rc = need_loan(r, regions, err);
    if (rc != XI_OK || xi_loan_find(r->loan, (uint32_t)index) != NULL)
        return rc;
    xi_segment_get(r->outputs[i]);
    xi_loan_place(r->loan, (uint32_t)index, r->outputs[i], r->output_at[i], out->region.bytes);
    return XI_OK;
}

enum xi_rc xi_oip_regions_take(struct xi_oip_regions *r, struct xi_regions *regions,
                               const char *tenant, const struct xi_signature *signature,
                               struct xi_oip_request *ask, struct xi_err *err)
{
    enum xi_rc rc = XI_OK;

    for (uint32_t i = 0; i < ask->n_inputs && rc == XI_OK; i++)
        if (ask->inputs[i].where == XI_OIP_REGION) {
            r->used = 1;
            rc = take_input(r, regions, tenant, signature == NULL, ask, i, err);
        }
    for (uint32_t i = 0; i < ask->n_outputs && rc == XI_OK; i++)
        if (ask->outputs[i].region.name[0] != '\0') {
            r->used = 1;
            rc = take_output(r, regions, tenant, signature, &ask->outputs[i], i, err);
        }
    return rc;
}

int xi_oip_regions_lent(const struct xi_oip_regions *r, uint32_t input)
{
    return r->loan != NULL && r->loan->inputs[input] != NULL;
}

enum xi_rc xi_oip_regions_read(const struct xi_oip_regions *r, const struct xi_oip_request *ask,
                               uint8_t *text, struct xi_err *err)
{
    enum xi_rc rc = XI_OK;

    for (uint32_t i = 0; i < ask->n_inputs && rc == XI_OK; i++)
        if (r->inputs[i] != NULL)
            rc = xi_segment_read(r->inputs[i], r->input_at[i], text + ask->inputs[i].offset,
                                 ask->inputs[i].bytes, err);
    return rc;
}

enum xi_rc xi_oip_regions_write(const struct xi_oip_regions *r, const struct xi_oip_request *ask,
                                uint32_t output, const void *data, uint64_t bytes,
                                struct xi_err *err)
{
    const struct xi_oip_output *out = &ask->outputs[output];

    if (bytes > out->region.bytes)
        return xi_fail(err, XI_EREGION, "output \"%.60s\" has %llu bytes, its region has %llu",
                       out->name, (unsigned long long)bytes, (unsigned long long)out->region.bytes);
    return xi_segment_write(r->outputs[output], r->output_at[output], data, bytes, err);
}

void xi_oip_regions_end(struct xi_oip_regions *r)
{
    if (!r->used)
        return;
    xi_loan_put(r->loan);
    for (uint32_t i = 0; i < XI_TENSORS_MAX; i++) {
        xi_segment_put(r->inputs[i]);
        xi_segment_put(r->outputs[i]);
    }
    memset(r, 0, sizeof *r);
}
