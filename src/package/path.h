/* path.h: which names an entry of a package may have (docs/package-format.md, "Paths").
 * Pure functions, any thread. */
#ifndef XI_PACKAGE_PATH_H
#define XI_PACKAGE_PATH_H

#include <stddef.h>

#include "base/limits.h"
#include "base/status.h"

/* One path: relative, `/` between segments, segments of [A-Za-z0-9._+-] that neither start nor
 * end with '.', no name a desktop system reserves, at most XI_PACKAGE_PATH_MAX bytes. `bytes` is
 * its length (it may hold NULs, which are refused). EPACKAGE names path and rule. */
enum xi_rc xi_package_path_check(const char *path, size_t bytes, struct xi_err *err) XI_MUST_CHECK;

/* The place in the package: manifest.json, signature.json, flow.json, flow.lua, or below
 * variants/ or assets/. EPACKAGE. */
enum xi_rc xi_package_place_check(const char *path, struct xi_err *err) XI_MUST_CHECK;

/* No two that differ in case only, none that is both a file and a folder. Sorts the array of
 * borrowed pointers. EPACKAGE names both. */
enum xi_rc xi_package_paths_check(const char **paths, size_t n, struct xi_err *err) XI_MUST_CHECK;

/* The archive's order: manifest.json, then by bytes, signature.json last. <0, 0, >0. */
int xi_package_path_order(const char *a, const char *b);

/* What stands behind the last '/'. Borrowed. */
const char *xi_package_base_name(const char *path);
/* Does the path end in ext (".onnx", lower case), in any case of letters? */
int xi_package_has_extension(const char *path, const char *ext);

#endif
