#define _GNU_SOURCE
#include "host/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

/* Sanitizers map terabytes of shadow and walk other threads: limits on data would end them. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { SANITIZED = 1 };
#else
enum { SANITIZED = 0 };
#endif

enum { OOM_SCORE_ADJ = 500, OPEN_FILES = 1024 };
/* Of all hosts together, where they have a uid of their own: far over what engines take, and half
 * of what a small machine has. Threads on small stacks cost little of RLIMIT_DATA. */
enum { THREADS_MAX = 16384 };

static enum xi_rc failed(struct xi_err *err, const char *what)
{
    return xi_fail(err, XI_EHOST, "sandbox: %s: %s", what, strerror(errno));
}

/* The kernel's OOM killer takes a host before the daemon. */
static void prefer_for_oom(void)
{
    char text[16];
    int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

    if (fd < 0)
        return;
    int n = snprintf(text, sizeof text, "%d", OOM_SCORE_ADJ);
    (void)!write(fd, text, (size_t)n);
    (void)close(fd);
}

static void lower_limit(int resource, rlim_t value)
{
    struct rlimit r;

    if (getrlimit((__rlimit_resource_t)resource, &r) != 0)
        return;
    if (r.rlim_max == RLIM_INFINITY || r.rlim_max > value)
        r.rlim_max = value;
    r.rlim_cur = r.rlim_max;
    (void)setrlimit((__rlimit_resource_t)resource, &r);
}

static void set_limits(const struct xi_sandbox *s)
{
    lower_limit(RLIMIT_CORE, 0);
    lower_limit(RLIMIT_NOFILE, OPEN_FILES);
    if (s->data_limit_bytes > 0 && !SANITIZED)
        lower_limit(RLIMIT_DATA, s->data_limit_bytes);
    prefer_for_oom();
}

static enum xi_rc become(uint32_t uid, struct xi_err *err)
{
    if (uid == 0 || geteuid() != 0)
        return XI_OK;
    lower_limit(RLIMIT_NPROC, THREADS_MAX);
    if (setgroups(0, NULL) != 0 || setresgid(uid, uid, uid) != 0 || setresuid(uid, uid, uid) != 0)
        return failed(err, "changing the user");
    return XI_OK;
}

static void summarize(const struct xi_sandbox *s, char summary[XI_SANDBOX_SUMMARY])
{
    int landlock = xi_landlock_version();

    if (!s->enabled) {
        (void)snprintf(summary, XI_SANDBOX_SUMMARY, "off, by configuration");
        return;
    }
    (void)snprintf(summary, XI_SANDBOX_SUMMARY, "uid %u, %s %d, %s%s", (unsigned)geteuid(),
                   landlock > 0 ? "landlock" : "no landlock", landlock,
                   xi_seccomp_available() ? "seccomp" : "no seccomp",
                   SANITIZED ? ", no data limit (sanitizer build)" : "");
}

enum xi_rc xi_sandbox_enter_load(const struct xi_sandbox *s, char summary[XI_SANDBOX_SUMMARY],
                                 struct xi_err *err)
{
    /* Before the change of uid, behind which our files in /proc are not ours to write. */
    set_limits(s);
    enum xi_rc rc = become(s->uid, err);

    if (rc != XI_OK)
        return rc;
    /* The daemon's death ends us even while a load keeps us from reading our socket. Behind the
     * change of uid, which clears it. */
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
        return failed(err, "no_new_privs");
    summarize(s, summary);
    if (!s->enabled)
        return XI_OK;
    rc = xi_landlock_confine(s, 1, err);
    return rc != XI_OK ? rc : xi_seccomp_loose(err);
}

enum xi_rc xi_sandbox_enter_run(const struct xi_sandbox *s, struct xi_err *err)
{
    if (!s->enabled)
        return XI_OK;
    enum xi_rc rc = xi_landlock_confine(s, 0, err);
    return rc != XI_OK ? rc : xi_seccomp_strict(err);
}
