#include "daemon/core/session_plan.h"

#include <stdlib.h>
#include <string.h>

#include "daemon/core/session_group.h"

/* 1: it would be let in. */
static int fill_in(struct xi_sessions *m, const char *digest,
                   const struct xi_package_record *record, const struct xi_load_options *o,
                   const struct xi_variant_choice *c, struct xi_plan *ret)
{
    const struct xi_engine_record *engine = &m->engines[c->engine];
    const struct xi_engine_device *device = &engine->probe.devices[c->device];

    (void)snprintf(ret->variant, sizeof(ret->variant), "%s", record->variants[c->variant].id);
    (void)snprintf(ret->engine, sizeof(ret->engine), "%s %s", engine->name, engine->probe.version);
    (void)snprintf(ret->device, sizeof(ret->device), "%s", device->id);
    (void)snprintf(ret->version, sizeof(ret->version), "%s", record->version);
    ret->isolation =
        xi_group_preview(m, o->tenant, o->isolation, c->engine, c->device, ret->isolation_reason);
    return xi_memory_plan(m, digest, record, o, c, ret);
}

enum xi_rc xi_sessions_plan(struct xi_sessions *m, const char *digest,
                            const struct xi_package_record *record,
                            const struct xi_load_options *options, int replace, struct xi_plan *ret,
                            struct xi_err *err)
{
    struct xi_load_options o = *options;
    struct xi_entry *same, *yields;
    struct xi_err name = {0};
    struct xi_variant_choice *choices = calloc(XI_RECORD_VARIANTS_MAX, sizeof(*choices));
    uint32_t n = 0, at;
    int fits = 0;
    enum xi_rc rc;

    *ret = (struct xi_plan){0};
    if (choices == NULL)
        return xi_fail(err, XI_ENOMEM, "no memory for a plan");
    rc = xi_sessions_admit(m, record, &o, err);
    if (rc == XI_OK)
        rc = xi_variants_choose(record, &o, m->engines, m->n_engines, choices, &n, err);
    if (rc != XI_OK)
        goto out;
    for (at = 0; at < n && !fits; at++) /* as a load would: the first that there is room for */
        fits = fill_in(m, digest, record, &o, &choices[at], ret);
    if (!fits)
        (void)fill_in(m, digest, record, &o, &choices[0], ret);
    if (!replace && xi_sessions_name_free(m, digest, &o, &same, &yields, &name) != XI_OK)
        ret->verdict = name;
out:
    free(choices);
    return rc;
}
