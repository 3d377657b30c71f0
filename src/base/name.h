/* name.h: names of packages, models, sessions and tenants: [A-Za-z0-9][A-Za-z0-9._-]{0,127}. */
#ifndef XI_BASE_NAME_H
#define XI_BASE_NAME_H

#include "base/status.h"

/* EINVAL with `what` in the sentence. */
enum xi_rc xi_name_check(const char *name, const char *what, struct xi_err *err) XI_MUST_CHECK;
int xi_name_valid(const char *name);
/* SemVer 2.0.0 with at most 64 characters. */
int xi_semver_valid(const char *text);
/* <0, 0, >0 by SemVer precedence; both must be valid. */
int xi_semver_compare(const char *a, const char *b);

#endif
