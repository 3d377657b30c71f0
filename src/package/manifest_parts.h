/* manifest_parts.h: the pieces of the manifest's parser. Private to manifest*.c. */
#ifndef XI_PACKAGE_MANIFEST_PARTS_H
#define XI_PACKAGE_MANIFEST_PARTS_H

#include "package/manifest.h"
#include "package/manifest_fields.h"

#define XI_MANIFEST_GOLDENS_MAX 64
#define XI_MANIFEST_SPLITS_MAX  32

void xi_manifest_read_model(const struct xi_place *p, struct xi_manifest_model *ret);
void xi_manifest_free_model(struct xi_manifest_model *model);
void xi_manifest_read_splits(const struct xi_place *p, struct xi_manifest *ret);
void xi_manifest_read_escalate(const struct xi_place *p, struct xi_manifest *ret);
/* After models and flow. */
void xi_manifest_read_goldens(const struct xi_place *p, struct xi_manifest *ret);
void xi_manifest_free_goldens(struct xi_manifest *manifest);

#endif
