/* install.h: an archive → staged files and a record. Runs in the host's role `install`; the
 * daemon then moves the files into its store. */
#ifndef XI_PACKAGE_INSTALL_H
#define XI_PACKAGE_INSTALL_H

#include "base/status.h"
#include "core/package_record.h"

/* Verifies the archive and writes entry i to the file named by i in decimal ("0", "1", …) in the
 * empty directory staging_fd, mode 0444, flushed to disk. Refuses models that reach outside their
 * package (ONNX external data) or claim more than they hold. On failure the caller deletes what
 * lies in the directory. On success the caller finis *ret.
 * EPACKAGE and EDIGEST name the entry and the rule; EVERSION, ETOOBIG, EDISK, EIO, ENOMEM. */
enum xi_rc xi_package_install(int archive_fd, int staging_fd, struct xi_package_record *ret,
                              struct xi_err *err) XI_MUST_CHECK;

#endif
