/* package.h: an archive and its manifest, held against each other.
 *
 * Opening checks the archive's structure, the manifest, and that each names all of the other:
 * every path in the manifest is an entry, every entry outside assets/ is named (assets may be used
 * by the flow alone). Data is only read by verify. One thread at a time. */
#ifndef XI_PACKAGE_PACKAGE_H
#define XI_PACKAGE_PACKAGE_H

#include "base/status.h"
#include "base/str.h"
#include "core/package_record.h"
#include "package/archive.h"
#include "package/manifest.h"

struct xi_package {
    struct xi_archive *archive;
    struct xi_manifest *manifest;
};

/* fd is borrowed until xi_package_close. */
enum xi_rc xi_package_open(int fd, struct xi_package **ret, struct xi_err *err) XI_MUST_CHECK;
void xi_package_close(struct xi_package *package);

/* Reads all data once: CRCs, digests, and the sha256 members of the manifest's sources. The sink
 * (may be NULL) gets the entries. *ret is the package's digest. */
enum xi_rc xi_package_verify(struct xi_package *package, const struct xi_archive_sink *sink,
                             struct xi_digest *ret, struct xi_err *err) XI_MUST_CHECK;

/* The rule between a manifest and what is in the archive, for whoever is making one. items are in
 * the archive's order (path.h). EPACKAGE. */
struct xi_package_item {
    const char *path;
    uint64_t bytes;
};
enum xi_rc xi_package_names_check(const struct xi_manifest *manifest,
                                  const struct xi_package_item *items, size_t n,
                                  struct xi_err *err) XI_MUST_CHECK;

/* What the daemon gets to know (verify first: it needs the digests). The caller finis *ret. */
enum xi_rc xi_package_record(const struct xi_package *package, const struct xi_digest *digest,
                             struct xi_package_record *ret, struct xi_err *err) XI_MUST_CHECK;

#endif
