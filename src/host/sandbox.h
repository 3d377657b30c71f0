/* sandbox.h: what a host process gives up before it touches foreign bytes. Main thread, in order.
 *
 * Two steps. `enter_load`: no new privileges, another uid when started as root, limits, Landlock
 * (read and execute in the library folders, read of the session's link directory, write of the
 * compiled-model cache or the staging directory), seccomp in a loose form (no sockets, no new
 * processes, no signals to others, no ptrace, …). `enter_run`, after warm-up: a second Landlock
 * layer without any writing, seccomp as an allow-list. What the kernel lacks is left out and said
 * in the summary. Neither step can be undone. */
#ifndef XI_HOST_SANDBOX_H
#define XI_HOST_SANDBOX_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

#define XI_SANDBOX_DIRS_MAX 8

struct xi_sandbox {
    int enabled; /* 0: limits and no_new_privs only */
    const char
        *read_dirs[XI_SANDBOX_DIRS_MAX]; /* read and execute: plugins, vendor libraries, links */
    size_t n_read_dirs;
    const char *write_dirs[XI_SANDBOX_DIRS_MAX]; /* during load only */
    size_t n_write_dirs;
    int write_fd;              /* a directory given as a descriptor (staging), else -1 */
    uint64_t data_limit_bytes; /* RLIMIT_DATA, 0: none */
    uint32_t uid;              /* to become when started as root, 0: stay */
};

/* What is in force afterwards, for people: "uid 61000, landlock 6, seccomp". */
enum { XI_SANDBOX_SUMMARY = 128 };

enum xi_rc xi_sandbox_enter_load(const struct xi_sandbox *s, char summary[XI_SANDBOX_SUMMARY],
                                 struct xi_err *err) XI_MUST_CHECK;
/* Applies to all threads. */
enum xi_rc xi_sandbox_enter_run(const struct xi_sandbox *s, struct xi_err *err) XI_MUST_CHECK;

/* The pieces (landlock.c, seccomp.c). Version of Landlock in the kernel, 0: none. */
int xi_landlock_version(void);
enum xi_rc xi_landlock_confine(const struct xi_sandbox *s, int allow_write,
                               struct xi_err *err) XI_MUST_CHECK;
enum xi_rc xi_seccomp_loose(struct xi_err *err) XI_MUST_CHECK;
enum xi_rc xi_seccomp_strict(struct xi_err *err) XI_MUST_CHECK;
int xi_seccomp_available(void);

#endif
