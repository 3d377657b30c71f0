/* golden.h: does an answer agree with a package's golden? Pure, any thread. */
#ifndef XI_PACKAGE_GOLDEN_H
#define XI_PACKAGE_GOLDEN_H

#include <jansson.h>

#include "base/status.h"
#include "core/tensor.h"
#include "package/manifest.h"

/* expect, got: the flow's "outputs" object. Each detection expected must be answered by one of its
 * own with the same label, a box that overlaps it by at least iou, and a score within `score`;
 * further detections may score `extra` at most. Other numbers agree within atol + rtol ×
 * |expected|, texts and booleans are equal; members that only `got` has don't matter. EGOLDEN says
 * where they differ, with numbers. */
enum xi_rc xi_golden_check_answer(const struct xi_manifest_golden *golden, const json_t *expect,
                                  const json_t *got, struct xi_err *err) XI_MUST_CHECK;

/* Element by element within atol + rtol × |expected|; NaN agrees with NaN only. bytes: the expected
 * values, raw. EGOLDEN names the worst element. */
enum xi_rc xi_golden_check_tensor(const struct xi_manifest_golden *golden,
                                  const struct xi_manifest_tensor *expect, const void *data,
                                  uint64_t bytes, const struct xi_tensor *got,
                                  struct xi_err *err) XI_MUST_CHECK;

#endif
