/* seccomp.c: which system calls a host can make. Loose while it loads (engines read files, make
 * threads, compile); an allow-list once it serves. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <linux/sockios.h>
#include <sched.h>
#include <stddef.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "host/sandbox.h"

/* Younger than the oldest headers we build with; the same number everywhere. */
#define NR_FCHMODAT2     452
#define NR_SETXATTRAT    463
#define NR_REMOVEXATTRAT 466
#define NR_FILE_SETATTR  469

#if defined(__x86_64__)
#define HOST_ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define HOST_ARCH AUDIT_ARCH_AARCH64
#endif

#ifndef HOST_ARCH
int xi_seccomp_available(void)
{
    return 0;
}
enum xi_rc xi_seccomp_loose(struct xi_err *err)
{
    (void)err;
    return XI_OK;
}
enum xi_rc xi_seccomp_strict(struct xi_err *err)
{
    (void)err;
    return XI_OK;
}
#else

/* Never, in either form: reaching other processes, the network, the system, new programs. */
static const int never[] = {
    SYS_socket,
    SYS_socketpair,
    SYS_connect,
    SYS_bind,
    SYS_listen,
    SYS_accept,
    SYS_accept4,
    SYS_ptrace,
    SYS_process_vm_readv,
    SYS_process_vm_writev,
    SYS_pidfd_open,
    SYS_pidfd_send_signal,
    SYS_pidfd_getfd,
    SYS_tkill,
    SYS_rt_sigqueueinfo,
    SYS_rt_tgsigqueueinfo,
    SYS_execve,
    SYS_execveat,
    SYS_unshare,
    SYS_setns,
    SYS_mount,
    SYS_umount2,
    SYS_pivot_root,
    SYS_chroot,
    SYS_bpf,
    SYS_perf_event_open,
    SYS_io_uring_setup,
    SYS_io_uring_enter,
    SYS_io_uring_register,
    SYS_userfaultfd,
    SYS_keyctl,
    SYS_add_key,
    SYS_request_key,
    SYS_init_module,
    SYS_finit_module,
    SYS_delete_module,
    SYS_kexec_load,
    SYS_reboot,
    SYS_swapon,
    SYS_swapoff,
    SYS_open_by_handle_at,
    SYS_name_to_handle_at,
    SYS_quotactl,
    SYS_acct,
    SYS_settimeofday,
    SYS_clock_settime,
    SYS_clock_adjtime,
    SYS_adjtimex,
    SYS_sethostname,
    SYS_setdomainname,
    SYS_syslog,
    SYS_personality,
    SYS_kcmp,
    SYS_process_madvise,
    SYS_setsid,
    SYS_setpgid,
    SYS_msgget,
    SYS_semget,
    SYS_shmget,
    SYS_mq_open,
    /* Landlock asks nobody about these, and a user's other files are our uid's as well. */
    SYS_fchown,
    SYS_fchownat,
    SYS_setxattr,
    SYS_lsetxattr,
    SYS_fsetxattr,
    NR_SETXATTRAT,
    SYS_removexattr,
    SYS_lremovexattr,
    SYS_fremovexattr,
    NR_REMOVEXATTRAT,
    NR_FILE_SETATTR,
    SYS_truncate, /* before Landlock's version 3 */
    /* nor about these, on any process of our uid */
    SYS_ioprio_set,
    SYS_migrate_pages,
    SYS_move_pages,
#if defined(__x86_64__)
    SYS_chown,
    SYS_lchown,
    SYS_fork,
    SYS_vfork,
    SYS_ioperm,
    SYS_iopl,
    SYS_modify_ldt,
    SYS_create_module,
#endif
};

/* Said to be done, and not done: OpenVINO takes away a cached model's write permission and gives up
 * when it can't; Landlock asks nobody about these either. */
static const int pretended[] = {
    SYS_fchmod,
    SYS_fchmodat,
    NR_FCHMODAT2,
#if defined(__x86_64__)
    SYS_chmod,
#endif
};

/* What serving needs: memory, threads, time, the descriptors that are open. */
static const int serving[] = {
    SYS_read,
    SYS_write,
    SYS_readv,
    SYS_writev,
    SYS_pread64,
    SYS_pwrite64,
    SYS_close,
    SYS_fstat,
    SYS_lseek,
    SYS_mmap,
    SYS_munmap,
    SYS_mremap,
    SYS_mprotect,
    SYS_madvise,
    SYS_brk,
    SYS_futex,
    SYS_set_robust_list,
    SYS_get_robust_list,
    SYS_rseq,
    SYS_membarrier,
    SYS_exit,
    SYS_exit_group,
    SYS_sched_yield,
    SYS_sched_getaffinity,
    SYS_sched_setaffinity,
    SYS_getcpu,
    SYS_sched_getparam,
    SYS_sched_getscheduler,
    SYS_clock_gettime,
    SYS_clock_getres,
    SYS_clock_nanosleep,
    SYS_nanosleep,
    SYS_gettimeofday,
    SYS_times,
    SYS_getrusage,
    SYS_getrandom,
    SYS_rt_sigreturn,
    SYS_rt_sigprocmask,
    SYS_rt_sigaction,
    SYS_sigaltstack,
    SYS_getpid,
    SYS_gettid,
    SYS_getppid,
    SYS_getuid,
    SYS_geteuid,
    SYS_getgid,
    SYS_getegid,
    SYS_uname,
    SYS_sysinfo,
    SYS_ppoll,
    SYS_pselect6,
    SYS_recvmsg,
    SYS_sendmsg,
    SYS_eventfd2,
    SYS_restart_syscall,
    SYS_clone,
    SYS_fcntl,
    SYS_mbind,
    SYS_get_mempolicy,
    SYS_set_mempolicy,
    SYS_mlock,
    SYS_munlock,
    SYS_mincore,
    SYS_dup,
    SYS_kill,
    SYS_tgkill,
    SYS_set_tid_address,
#if defined(__x86_64__)
    SYS_poll,
    SYS_pause, /* refused, it would turn a thread that sleeps into one that spins */
    SYS_select,
    SYS_time,
    SYS_arch_prctl,
#endif
};
enum { N_NEVER = sizeof never / sizeof *never, N_SERVING = sizeof serving / sizeof *serving };
enum { N_PRETENDED = sizeof pretended / sizeof *pretended };
enum { PROGRAM_MAX = 2 * (N_NEVER + N_SERVING) + 96 };

struct program {
    struct sock_filter code[PROGRAM_MAX];
    unsigned short n;
};

static void emit(struct program *p, struct sock_filter f)
{
    XI_ASSERT(p->n < PROGRAM_MAX);
    p->code[p->n++] = f;
}

static void load(struct program *p, size_t offset)
{
    emit(p, (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (unsigned)offset));
}

static void answer(struct program *p, unsigned action)
{
    emit(p, (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, action));
}

/* When the loaded word equals value, answer; else go on. */
static void on(struct program *p, unsigned value, unsigned action)
{
    emit(p, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, 0, 1));
    answer(p, action);
}

#define REFUSE(number) (SECCOMP_RET_ERRNO | ((unsigned)(number)&SECCOMP_RET_DATA))

static void begin(struct program *p)
{
    load(p, offsetof(struct seccomp_data, arch));
    emit(p, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, HOST_ARCH, 1, 0));
    answer(p, SECCOMP_RET_KILL_PROCESS);
    load(p, offsetof(struct seccomp_data, nr));
#if defined(__x86_64__) /* the x32 numbers are another way to the same calls */
    emit(p, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, 0x40000000u, 0, 1));
    answer(p, SECCOMP_RET_KILL_PROCESS);
#endif
}

/* `nr` only with its first argument equal to `want` (a call on ourselves), else EPERM. */
static void only_self(struct program *p, int nr, unsigned want)
{
    emit(p, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)nr, 0, 4));
    load(p, offsetof(struct seccomp_data, args[0]));
    on(p, want, SECCOMP_RET_ALLOW);
    answer(p, REFUSE(EPERM));
}

/* The calling thread's nice level (PRIO_PROCESS of 0) and nobody else's. */
static void own_nice_only(struct program *p)
{
    emit(p, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_setpriority, 0, 7));
    load(p, offsetof(struct seccomp_data, args[0]));
    emit(p, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, PRIO_PROCESS, 1, 0));
    answer(p, REFUSE(EPERM));
    load(p, offsetof(struct seccomp_data, args[1]));
    on(p, 0, SECCOMP_RET_ALLOW);
    answer(p, REFUSE(EPERM));
}

/* `nr`, whose second argument is a command, without these two commands. */
static void without(struct program *p, int nr, unsigned a, unsigned b)
{
    emit(p, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)nr, 0, 6));
    load(p, offsetof(struct seccomp_data, args[1]));
    on(p, a, REFUSE(EPERM));
    on(p, b, REFUSE(EPERM));
    load(p, offsetof(struct seccomp_data, nr));
}

/* Threads yes, processes no. clone3 hides its flags behind a pointer: the C library falls back to
 * clone on ENOSYS. */
static void threads_only(struct program *p)
{
    on(p, SYS_clone3, REFUSE(ENOSYS));
    emit(p, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_clone, 0, 4));
    load(p, offsetof(struct seccomp_data, args[0]));
    emit(p, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, CLONE_THREAD, 0, 1));
    answer(p, SECCOMP_RET_ALLOW);
    answer(p, REFUSE(EPERM));
}

static void common(struct program *p)
{
    unsigned self = (unsigned)getpid();

    begin(p);
    for (int i = 0; i < N_NEVER; i++)
        on(p, (unsigned)never[i], REFUSE(EPERM));
    for (int i = 0; i < N_PRETENDED; i++)
        on(p, (unsigned)pretended[i], REFUSE(0));
    only_self(p, SYS_kill, self);
    only_self(p, SYS_tgkill, self);
    only_self(p, SYS_sched_setaffinity, 0); /* 0: the calling thread */
    own_nice_only(p);
    /* Whoever owns a descriptor gets the signals that its input raises. */
    without(p, SYS_fcntl, F_SETOWN, F_SETOWN_EX);
    without(p, SYS_ioctl, FIOSETOWN, SIOCSPGRP);
    threads_only(p);
}

static enum xi_rc install(struct program *p, struct xi_err *err)
{
    struct sock_fprog prog = {.len = p->n, .filter = p->code};

    if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &prog) != 0)
        return xi_fail(err, XI_EHOST, "sandbox: seccomp: %s", strerror(errno));
    return XI_OK;
}

int xi_seccomp_available(void)
{
    return prctl(PR_GET_SECCOMP, 0, 0, 0, 0) >= 0;
}

enum xi_rc xi_seccomp_loose(struct xi_err *err)
{
    struct program p = {.n = 0};

    if (!xi_seccomp_available())
        return XI_OK;
    common(&p);
    /* prlimit on oneself alone (pid 0): raising the limits of others is not for us */
    only_self(&p, SYS_prlimit64, 0);
    only_self(&p, SYS_sched_setscheduler, 0);
    only_self(&p, SYS_sched_setparam, 0);
    only_self(&p, SYS_sched_setattr, 0);
    answer(&p, SECCOMP_RET_ALLOW);
    return install(&p, err);
}

enum xi_rc xi_seccomp_strict(struct xi_err *err)
{
    struct program p = {.n = 0};

    if (!xi_seccomp_available())
        return XI_OK;
    common(&p);
    for (int i = 0; i < N_SERVING; i++)
        on(&p, (unsigned)serving[i], SECCOMP_RET_ALLOW);
    answer(&p, REFUSE(EPERM));
    return install(&p, err);
}

#endif
