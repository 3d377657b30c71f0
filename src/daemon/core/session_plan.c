#include "daemon/core/session_plan.h"

#include <stdlib.h>
#include <string.h>

#include "daemon/core/session_group.h"

enum xi_rc xi_sessions_plan(struct xi_sessions *m, const char *digest,
                            const struct xi_package_record *record,
                            const struct xi_load_options *options, struct xi_plan *ret,
                            struct xi_err *err)
{
    struct xi_load_options o = *options;
    struct xi_variant_choice *choices = calloc(XI_RECORD_VARIANTS_MAX, sizeof(*choices));
    const struct xi_engine_record *engine;
    const struct xi_engine_device *device;
    uint32_t n = 0;
    enum xi_rc rc;

    (void)digest; /* of the measured peaks */
    *ret = (struct xi_plan){0};
    if (choices == NULL)
        return xi_fail(err, XI_ENOMEM, "no memory for a plan");
    rc = xi_sessions_admit(m, record, &o, err);
    if (rc == XI_OK)
        rc = xi_variants_choose(record, &o, m->engines, m->n_engines, choices, &n, err);
    if (rc != XI_OK)
        goto out;
    engine = &m->engines[choices[0].engine];
    device = &engine->probe.devices[choices[0].device];
    (void)snprintf(ret->variant, sizeof(ret->variant), "%s",
                   record->variants[choices[0].variant].id);
    (void)snprintf(ret->engine, sizeof(ret->engine), "%s %s", engine->name, engine->probe.version);
    (void)snprintf(ret->device, sizeof(ret->device), "%s", device->id);
    (void)snprintf(ret->version, sizeof(ret->version), "%s", record->version);
    ret->isolation = xi_group_preview(m, o.tenant, o.isolation, choices[0].engine,
                                      choices[0].device, ret->isolation_reason);
    ret->needed_bytes = record->variants[choices[0].variant].memory_bytes;
    if (ret->needed_bytes == 0)
        ret->needed_bytes = record->memory_required;
out:
    free(choices);
    return rc;
}
