/* install_commit.h: from what an install host left in its folder to an installed package. Store
 * thread; waits for the disk. The host has ended, so nothing changes under us; nothing it wrote is
 * believed.
 *
 * Order, so that a crash anywhere leaves a whole store: verify every file → make it durable →
 * rename it into blobs/ → make the folders durable → the catalogue's transaction. Before the last
 * step there is no package, only blobs that nobody needs. */
#ifndef XI_DAEMON_CORE_INSTALL_COMMIT_H
#define XI_DAEMON_CORE_INSTALL_COMMIT_H

#include "daemon/core/store_catalogue.h"
#include "daemon/core/store_disk.h"

struct xi_install_commit {
    struct xi_store_disk *disk;
    struct xi_catalogue *catalogue;
    const char *folder;       /* beneath the store: holds "record", "0", "1", … */
    struct xi_digest archive; /* of the uploaded bytes, as we hashed them */
    uint64_t archive_bytes;
    void (*at_step)(void *ctx); /* tests: called between any two steps; may be NULL */
    void *ctx;
};

/* On success *ret is the caller's (xi_record_fini). EPROTO: the record breaks a rule; EDIGEST: a
 * file or the archive is not what the record says; EDISK. */
enum xi_rc xi_install_commit(const struct xi_install_commit *in, struct xi_package_record *ret,
                             int *ret_existed, struct xi_err *err) XI_MUST_CHECK;

#endif
