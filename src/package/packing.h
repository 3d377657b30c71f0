/* packing.h: files gathered for a package, and the writing of it. Private to recipe.c and bare.c.
 */
#ifndef XI_PACKAGE_PACKING_H
#define XI_PACKAGE_PACKING_H

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

#include "base/hash.h"
#include "base/status.h"
#include "package/recipe.h"

struct xi_packing_item {
    char *path; /* of the entry */
    int fd;
    uint64_t offset, bytes;
    struct xi_digest sha256;
};

/* Zeroed at the start. */
struct xi_packing {
    struct xi_packing_item *items;
    size_t n, room;
};

/* Where an entry's bytes lie: bytes UINT64_MAX is all from offset on. */
struct xi_packing_file {
    int dir;
    const char *name;
    uint64_t offset, bytes;
};

/* Opens and hashes the file. *ret is borrowed until the next add. ENOENT, EINVAL, EFDS, EIO. */
enum xi_rc xi_packing_add(struct xi_packing *packing, const char *path,
                          const struct xi_packing_file *file, struct xi_packing_item **ret,
                          struct xi_err *err) XI_MUST_CHECK;
const struct xi_packing_item *xi_packing_find(const struct xi_packing *packing, const char *path);
/* Checks the manifest against the schema, the files and the models, then writes. */
enum xi_rc xi_packing_write(struct xi_packing *packing, const json_t *manifest, int out_fd,
                            struct xi_pack_result *ret, struct xi_err *err) XI_MUST_CHECK;
void xi_packing_fini(struct xi_packing *packing);

#endif
