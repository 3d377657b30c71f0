/* variants.h: which variants of a package could run here, best first. Pure. */
#ifndef XI_DAEMON_CORE_VARIANTS_H
#define XI_DAEMON_CORE_VARIANTS_H

#include "core/package_record.h"
#include "daemon/core/service.h"

struct xi_variant_choice {
    uint32_t variant; /* in the record */
    uint32_t engine;  /* in engines */
    uint32_t device;  /* of that engine's probe */
    int lost;         /* its device was lost under this session */
};

/* The variants of model "main" whose engine is present in a fitting version, reads their format
 * and has a device that the package and the options allow, in the manifest's order. ret holds
 * XI_RECORD_VARIANTS_MAX. ENOENGINE says of each why not; ENOENT: options name an unknown one. */
enum xi_rc xi_variants_choose(const struct xi_package_record *record,
                              const struct xi_load_options *options,
                              const struct xi_engine_record *engines, uint32_t n_engines,
                              struct xi_variant_choice *ret, uint32_t *ret_n,
                              struct xi_err *err) XI_MUST_CHECK;
const char *xi_device_kind_name(uint32_t kind); /* "cpu"; "device" for a kind not known */

#endif
