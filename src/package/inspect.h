/* inspect.h: what is in a package, for programs and for people. Appends to `out`, whose cap should
 * be XI_INSPECT_MAX. Verifies all data first, so what is printed is true. Any thread. */
#ifndef XI_PACKAGE_INSPECT_H
#define XI_PACKAGE_INSPECT_H

#include "base/limits.h"
#include "base/status.h"
#include "base/str.h"

#define XI_INSPECT_MAX (16 * XI_MIB)

/* {"digest", "bytes", "signed", "manifest": {…}, "entries": [{"path", "bytes", "sha256"}]} */
enum xi_rc xi_package_inspect_json(int fd, struct xi_str *out, struct xi_err *err) XI_MUST_CHECK;
/* The same as a page of text. */
enum xi_rc xi_package_inspect_text(int fd, struct xi_str *out, struct xi_err *err) XI_MUST_CHECK;

#endif
