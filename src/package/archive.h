/* archive.h: the canonical ZIP of a package: strict reader and deterministic writer
 * (docs/package-format.md, "Archive").
 *
 * The reader works on a regular file by pread, so the file's position does not matter and a file
 * that changes under it is an error, never a fault. Opening checks everything but the entries'
 * data; verifying reads each byte of data once. An archive belongs to one thread at a time.
 * Errors: EPACKAGE names the entry and the rule it broke; ETOOBIG, ENOMEM, EIO, EDISK. */
#ifndef XI_PACKAGE_ARCHIVE_H
#define XI_PACKAGE_ARCHIVE_H

#include <stddef.h>
#include <stdint.h>

#include "base/hash.h"
#include "base/status.h"

struct xi_archive; /* opaque */

struct xi_entry {
    const char *path; /* borrowed from the archive */
    uint64_t bytes;
    uint64_t offset; /* of its data, a multiple of 4096 */
    uint32_t crc;
    struct xi_digest sha256; /* all zero until xi_archive_verify has passed over it */
};

/* fd is borrowed until xi_archive_close. */
enum xi_rc xi_archive_open(int fd, struct xi_archive **ret, struct xi_err *err) XI_MUST_CHECK;
void xi_archive_close(struct xi_archive *archive);

size_t xi_archive_count(const struct xi_archive *archive);
uint64_t xi_archive_bytes(const struct xi_archive *archive); /* of the whole file */
/* index < count; entry 0 is manifest.json. Borrowed. */
const struct xi_entry *xi_archive_entry(const struct xi_archive *archive, size_t index);
/* The index, or -1. */
int xi_archive_find(const struct xi_archive *archive, const char *path);
int xi_archive_has_signature(const struct xi_archive *archive);

/* One small entry's bytes, NUL behind them, checked against its CRC. The caller frees *ret.
 * ETOOBIG over max_bytes, before anything is allocated. */
enum xi_rc xi_archive_read(const struct xi_archive *archive, size_t index, size_t max_bytes,
                           char **ret, size_t *ret_bytes, struct xi_err *err) XI_MUST_CHECK;

/* Gets every entry's bytes, in order. Each may be NULL. An error ends the pass with that error. */
struct xi_archive_sink {
    void *ctx;
    enum xi_rc (*begin)(void *ctx, size_t index, const struct xi_entry *entry, struct xi_err *err);
    enum xi_rc (*write)(void *ctx, const void *data, size_t n, struct xi_err *err);
    enum xi_rc (*end)(void *ctx, size_t index, const struct xi_entry *entry, struct xi_err *err);
};

/* Reads all data once: CRC and SHA-256 of each entry, and the package's digest (SHA-256 of the
 * archive as it would be without signature.json). sink may be NULL. When it fails, what the sink
 * got is worthless. */
enum xi_rc xi_archive_verify(struct xi_archive *archive, const struct xi_archive_sink *sink,
                             struct xi_digest *ret, struct xi_err *err) XI_MUST_CHECK;

/* What goes into an entry: `data` (NULL: the bytes at `offset` of fd). Borrowed. */
struct xi_archive_source {
    const char *path;
    const void *data;
    int fd;
    uint64_t offset, bytes;
};

/* Writes the canonical archive to out_fd from its position on; needs no seeking, reads each source
 * twice. Sorts `sources` into the archive's order; one of them must be manifest.json. Nothing is
 * written when a path breaks a rule. EIO when a source changes between the two readings. */
enum xi_rc xi_archive_write(int out_fd, struct xi_archive_source *sources, size_t n,
                            struct xi_digest *ret, uint64_t *ret_bytes,
                            struct xi_err *err) XI_MUST_CHECK;

#endif
