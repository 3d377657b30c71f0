/* status.h: the one error table. Any thread; no allocation, so it works when memory is out.
 *
 * A function that can fail returns enum xi_rc and, where it has something to tell a person, fills
 * a caller-owned struct xi_err (NULL is fine). The number is the public code: -502 is "XI-0502".
 */
#ifndef XI_BASE_STATUS_H
#define XI_BASE_STATUS_H

#define XI_MUST_CHECK __attribute__((warn_unused_result))
/* For large locals on the hot path that are written before they are read: the hardened build zeroes
 * all others. */
#define XI_UNINIT       __attribute__((uninitialized))
#define XI_PRINTF(f, a) __attribute__((format(printf, f, a)))

/* name, code, HTTP status, gRPC status, CLI exit code, title */
#define XI_RC_MAP(X)                                                                               \
    X(EINVAL, 101, 400, 3, 1, "bad request")                                                       \
    X(ETENSOR, 102, 400, 3, 1, "tensor does not fit the model")                                    \
    X(EJSON, 103, 400, 3, 1, "malformed JSON")                                                     \
    X(EIMAGE, 104, 400, 3, 1, "picture or sound cannot be decoded")                                \
    X(EMETHOD, 105, 405, 12, 1, "method not allowed")                                              \
    X(EMEDIA, 106, 415, 3, 1, "content type not supported")                                        \
    X(ETOOBIG, 107, 413, 8, 1, "request too large")                                                \
    X(EHEADERS, 108, 431, 3, 1, "request headers too large")                                       \
    X(EHTTP, 109, 400, 3, 1, "malformed HTTP")                                                     \
    X(EUSAGE, 110, 400, 3, 2, "command not understood")                                            \
    X(EREGION, 111, 400, 3, 1, "shared memory region cannot be used")                              \
    X(ECODING, 112, 400, 3, 1, "body cannot be decompressed")                                      \
    X(ENOENT, 201, 404, 5, 4, "not found")                                                         \
    X(EROUTE, 202, 404, 12, 4, "no such route")                                                    \
    X(EGONE, 203, 410, 5, 4, "session has ended")                                                  \
    X(ECONFLICT, 204, 409, 6, 1, "conflict with what is there")                                    \
    X(ESEQUENCE, 205, 409, 10, 1, "sequence lost")                                                 \
    X(EPACKAGE, 301, 422, 3, 1, "package refused")                                                 \
    X(EVERSION, 302, 422, 12, 1, "made for a newer xInfer")                                        \
    X(EDIGEST, 303, 422, 15, 6, "digest does not match")                                           \
    X(EGOLDEN, 304, 422, 9, 1, "model answers its golden sample wrongly")                          \
    X(EFLOW, 305, 422, 3, 1, "flow refused")                                                       \
    X(EMODEL, 306, 422, 9, 1, "engine refuses this model")                                         \
    X(EUNSUPPORTED, 307, 422, 12, 1, "not supported here")                                         \
    X(ENOENGINE, 401, 422, 9, 1, "engine not present")                                             \
    X(EHOST, 402, 503, 14, 1, "model host ended, restarting")                                      \
    X(EPOISON, 403, 422, 9, 1, "request refused: it ended its host before")                        \
    X(EENGINE, 404, 500, 13, 1, "engine failed")                                                   \
    X(EDEVICE, 405, 503, 14, 1, "device lost")                                                     \
    X(ECRASHLOOP, 406, 503, 14, 1, "model quarantined after repeated crashes")                     \
    X(EINCIDENT, 407, 500, 13, 1, "request ended its host")                                        \
    X(EAGAIN, 501, 503, 14, 5, "queue full, try later")                                            \
    X(EBUDGET, 502, 507, 8, 5, "not enough memory for this model")                                 \
    X(EQUOTA, 503, 429, 8, 5, "quota spent")                                                       \
    X(ENOMEM, 504, 507, 8, 5, "out of memory")                                                     \
    X(EDISK, 505, 507, 8, 1, "disk full or not writable")                                          \
    X(EFDS, 506, 503, 8, 1, "out of file descriptors")                                             \
    X(EDRAIN, 507, 503, 14, 1, "shutting down")                                                    \
    X(EAUTH, 601, 401, 16, 1, "token missing or unknown")                                          \
    X(EFORBIDDEN, 602, 403, 7, 1, "not allowed with this token")                                   \
    X(EORIGIN, 603, 403, 7, 1, "request from a foreign origin")                                    \
    X(EHOSTNAME, 604, 403, 7, 1, "Host is not one of this server's")                               \
    X(ETIMEOUT, 701, 504, 4, 7, "deadline exceeded")                                               \
    X(ESLOW, 702, 408, 4, 7, "client too slow")                                                    \
    X(ECANCELLED, 703, 499, 1, 1, "client went away")                                              \
    X(ECONFIG, 801, 500, 9, 1, "configuration refused")                                            \
    X(ELOCKED, 802, 500, 9, 1, "state directory is in use")                                        \
    X(EPORT, 803, 500, 9, 1, "address in use")                                                     \
    X(EIO, 804, 500, 13, 1, "input/output error")                                                  \
    X(EUNREACH, 805, 503, 14, 3, "daemon not reachable")                                           \
    X(EPROTO, 806, 502, 13, 8, "protocol error")                                                   \
    X(EINTERNAL, 901, 500, 13, 8, "internal error")

enum xi_rc {
    XI_OK = 0,
#define XI_RC_ENUM(name, code, http, grpc, exit_code, title) XI_##name = -(code),
    XI_RC_MAP(XI_RC_ENUM)
#undef XI_RC_ENUM
};

/* One sentence for a person, and what to do next. Both may be empty, both are terminated. */
struct xi_err {
    enum xi_rc rc;
    char msg[192];
    char hint[160];
};

/* Fills err (when not NULL) and returns rc, so that `return xi_fail(err, XI_EIO, …)` reads well.
 * Clears an older hint. Control characters in what is formatted are replaced by '?'. */
enum xi_rc xi_fail(struct xi_err *err, enum xi_rc rc, const char *fmt, ...) XI_PRINTF(3, 4);
/* Adds what the reader should do next; returns err's rc. */
enum xi_rc xi_hint(struct xi_err *err, const char *fmt, ...) XI_PRINTF(2, 3);
/* Puts "context: " before the message, keeping code and hint. Returns rc. */
enum xi_rc xi_wrap(struct xi_err *err, enum xi_rc rc, const char *fmt, ...) XI_PRINTF(3, 4);

const char *xi_rc_name(enum xi_rc rc);  /* "EBUDGET" */
const char *xi_rc_title(enum xi_rc rc); /* "not enough memory for this model" */
const char *xi_rc_code(enum xi_rc rc);  /* "XI-0502"; "XI-0000" for XI_OK */
int xi_rc_http(enum xi_rc rc);
int xi_rc_grpc(enum xi_rc rc);
int xi_rc_exit(enum xi_rc rc);
/* True for a number that is a row of the table (numbers from a host are not trusted). */
int xi_rc_known(int number);
/* Maps errno after a failed system call: ENOSPC is EDISK, EMFILE is EFDS, … */
enum xi_rc xi_rc_errno(int err_number);

/* Our own bugs, always on. Never for data from outside. */
#define XI_ASSERT(cond)                                                                            \
    do {                                                                                           \
        if (!(cond))                                                                               \
            xi_panic(__FILE__, __LINE__, #cond);                                                   \
    } while (0)
void xi_panic(const char *file, int line, const char *what) __attribute__((noreturn));

#endif
