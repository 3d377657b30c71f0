#include "flow/params.h"

#include <string.h>

enum xi_rc xi_param_choice(const json_t *obj, const char *key, const char *const *choices,
                           int fallback, int *ret, struct xi_err *err)
{
    const char *text = NULL;
    enum xi_rc rc = xi_json_string(obj, "", key, fallback < 0, &text, err);

    if (rc != XI_OK)
        return rc;
    if (text == NULL) {
        *ret = fallback;
        return XI_OK;
    }
    for (int i = 0; choices[i] != NULL; i++)
        if (strcmp(choices[i], text) == 0) {
            *ret = i;
            return XI_OK;
        }
    const char *near = xi_nearest(text, choices);
    rc = xi_fail(err, XI_EINVAL, "%s cannot be \"%.40s\"", key, text);
    return err == NULL ? rc
                       : xi_hint(err, near ? "did you mean \"%s\"?" : "try \"%s\"",
                                 near ? near : choices[0]);
}

static enum xi_rc one_number(const json_t *v, const char *key, double low, double high, double *ret,
                             struct xi_err *err)
{
    if (!json_is_number(v))
        return xi_fail(err, XI_EINVAL, "%s must be a number or an array of numbers", key);
    double d = json_number_value(v);
    if (!(d >= low && d <= high))
        return xi_fail(err, XI_EINVAL, "%s is %g, allowed is %g to %g", key, d, low, high);
    *ret = d;
    return XI_OK;
}

enum xi_rc xi_param_numbers(const json_t *obj, const char *key, double low, double high,
                            uint32_t max, double *ret, uint32_t *ret_n, struct xi_err *err)
{
    const json_t *v = json_object_get(obj, key);
    size_t n = json_is_array(v) ? json_array_size(v) : 1;
    enum xi_rc rc = XI_OK;

    if (v == NULL)
        return XI_OK;
    if (n == 0 || n > max)
        return xi_fail(err, XI_EINVAL, "%s has %zu numbers, allowed are 1 to %u", key, n, max);
    for (size_t i = 0; rc == XI_OK && i < n; i++)
        rc = one_number(json_is_array(v) ? json_array_get(v, i) : v, key, low, high, &ret[i], err);
    *ret_n = (uint32_t)n;
    return rc;
}

enum xi_rc xi_param_affine(const json_t *obj, struct xi_affine *ret, struct xi_err *err)
{
    uint32_t n_mean = 0, n_std = 0, n_scale = 0;
    double std[XI_CHANNELS_MAX];
    enum xi_rc rc =
        xi_param_numbers(obj, "mean", -1e9, 1e9, XI_CHANNELS_MAX, ret->mean, &n_mean, err);

    if (rc == XI_OK)
        rc = xi_param_numbers(obj, "std", 1e-9, 1e9, XI_CHANNELS_MAX, std, &n_std, err);
    if (rc == XI_OK)
        rc = xi_param_numbers(obj, "scale", -1e9, 1e9, XI_CHANNELS_MAX, ret->scale, &n_scale, err);
    if (rc != XI_OK)
        return rc;
    if (n_std > 0 && n_scale > 0)
        return xi_fail(err, XI_EINVAL, "std and scale exclude each other");
    for (uint32_t i = 0; i < n_std; i++)
        ret->scale[i] = 1 / std[i];
    uint32_t scales = n_std + n_scale, n = n_mean > scales ? n_mean : scales;
    if (n_mean > 1 && scales > 1 && n_mean != scales)
        return xi_fail(err, XI_EINVAL, "mean has %u numbers, std or scale %u", n_mean, scales);
    ret->n = n > 1 ? n : 1;
    for (uint32_t i = 0; i < ret->n; i++) {
        ret->mean[i] = n_mean == 0 ? 0 : ret->mean[n_mean == 1 ? 0 : i];
        ret->scale[i] = scales == 0 ? 1 : ret->scale[scales == 1 ? 0 : i];
    }
    return XI_OK;
}
