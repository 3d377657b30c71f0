/* zip.h: the bytes of a canonical archive (docs/package-format.md, "Archive"). Everything but the
 * entries' data is a function of the entries' paths, sizes and CRCs: the writer writes these bytes,
 * the reader compares with them. No I/O. Any thread. */
#ifndef XI_PACKAGE_ZIP_H
#define XI_PACKAGE_ZIP_H

#include <stddef.h>
#include <stdint.h>

#include "base/limits.h"
#include "base/status.h"
#include "base/str.h"

#define XI_ZIP_ALIGN         4096u
#define XI_ZIP_LOCAL_FIXED   30u
#define XI_ZIP_CENTRAL_FIXED 46u
#define XI_ZIP_END_BYTES     22u
#define XI_ZIP_END64_BYTES   56u
#define XI_ZIP_LOCATOR_BYTES 20u
/* Longest local header (its padding included) and directory record. */
#define XI_ZIP_LOCAL_MAX   (XI_ZIP_LOCAL_FIXED + XI_PACKAGE_PATH_MAX + 20u + 6u + XI_ZIP_ALIGN)
#define XI_ZIP_CENTRAL_MAX (XI_ZIP_CENTRAL_FIXED + XI_PACKAGE_PATH_MAX + 28u)

struct xi_zip_entry {
    char path[XI_PACKAGE_PATH_MAX + 1];
    uint32_t crc;
    uint64_t bytes;
    uint64_t header_offset, data_offset; /* by xi_zip_place */
};

/* Puts the entry's header at `offset` and its data at the next multiple of 4096 behind it.
 * Returns the offset behind the data. Sizes were checked: the sum stays below 2^63. */
uint64_t xi_zip_place(struct xi_zip_entry *entry, uint64_t offset);

/* Append to `out`; the entry has been placed. */
void xi_zip_local(const struct xi_zip_entry *entry, struct xi_str *out);
void xi_zip_central(const struct xi_zip_entry *entry, struct xi_str *out);
/* What stands behind the last directory record: the zip64 records where needed, the end record. */
void xi_zip_end(size_t entries, uint64_t directory_offset, uint64_t directory_bytes,
                struct xi_str *out);

/* What a reader takes from a foreign directory record; the rest is compared. Returns its length,
 * 0 when it is cut short or none. *ret_name is borrowed from data. */
struct xi_zip_claim {
    const char *name;
    size_t name_bytes;
    uint32_t crc;
    uint64_t bytes;
};
size_t xi_zip_read_central(const uint8_t *data, size_t bytes, struct xi_zip_claim *ret);
/* Where the directory is said to be. `tail` is the file's last bytes, all that fit of
 * END64 + LOCATOR + END. EPACKAGE. */
struct xi_zip_directory {
    uint64_t entries, offset, bytes;
    size_t end_bytes; /* of the records behind it */
};
enum xi_rc xi_zip_read_end(const uint8_t *tail, size_t bytes, struct xi_zip_directory *ret,
                           struct xi_err *err) XI_MUST_CHECK;

/* Explains the first rule broken where `got` differs from `want`: "local header: compression
 * method is 8, must be 0". EPACKAGE with the entry's path. */
enum xi_zip_part { XI_ZIP_LOCAL, XI_ZIP_CENTRAL };
enum xi_rc xi_zip_refuse(enum xi_zip_part part, const char *path, const struct xi_str *want,
                         const uint8_t *got, struct xi_err *err);

#endif
