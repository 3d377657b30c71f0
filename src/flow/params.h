/* params.h: reading the parameters of steps. All fail with a sentence that names the key. */
#ifndef XI_FLOW_PARAMS_H
#define XI_FLOW_PARAMS_H

#include "base/json.h"
#include "flow/step.h"

enum { XI_CHANNELS_MAX = 64 };

/* The index in a NULL-terminated list of what obj[key] says; `fallback` when it is absent, -1 for
 * a required one. The error names the nearest. */
enum xi_rc xi_param_choice(const json_t *obj, const char *key, const char *const *choices,
                           int fallback, int *ret, struct xi_err *err) XI_MUST_CHECK;
/* A number or an array of up to `max` numbers, each in [low, high]; *ret_n stays when absent. */
enum xi_rc xi_param_numbers(const json_t *obj, const char *key, double low, double high,
                            uint32_t max, double *ret, uint32_t *ret_n,
                            struct xi_err *err) XI_MUST_CHECK;

/* "mean" and one of "std" (divides) or "scale" (multiplies): (x - mean) * scale. One number for
 * all channels or one each. */
struct xi_affine {
    uint32_t n; /* 1: the same for all */
    double mean[XI_CHANNELS_MAX], scale[XI_CHANNELS_MAX];
};
enum xi_rc xi_param_affine(const json_t *obj, struct xi_affine *ret,
                           struct xi_err *err) XI_MUST_CHECK;

#endif
