/* hostile.c: an engine that attacks its host's sandbox on request. README.md lists the codes. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "xinfer/engine.h"

#define FD_MAX 1024

struct xi_engine {
    int unused;
};

struct xi_engine_model {
    char model_dir[512], cache_dir[512];
};

struct xi_engine_request {
    struct xi_engine_model *model;
    struct xi_tensor x, y;
    int code;
    float own[4];
};

struct attack {
    const struct xi_engine_model *model;
    float *output;
    int argument;
    long detail;
};

static int result(long rc)
{
    return rc < 0 ? errno : 0;
}

/* ---- the parent ---- */

static int kill_parent(struct attack *a)
{
    pid_t pid = getppid();

    return result(kill(pid, a->argument > 0 ? a->argument : SIGTERM));
}

static int tgkill_parent(struct attack *a)
{
    pid_t pid = getppid();

    (void)a;
    return result(syscall(SYS_tgkill, pid, pid, SIGSEGV));
}

static int pidfd_parent(struct attack *a)
{
    pid_t pid = getppid();
    long fd = syscall(SYS_pidfd_open, pid, 0);

    if (fd < 0)
        return errno;
    a->detail = 1;
    if (syscall(SYS_pidfd_send_signal, fd, SIGTERM, NULL, 0) == 0)
        a->detail = 2;
    close((int)fd);
    return 0;
}

static int ptrace_parent(struct attack *a)
{
    pid_t pid = getppid();

    (void)a;
    if (ptrace(PTRACE_SEIZE, pid, NULL, NULL) < 0)
        return errno;
    ptrace(PTRACE_DETACH, pid, NULL, NULL);
    return 0;
}

/* EFAULT comes only after permission was given: the attack worked, the address was a guess. */
static int read_parent(struct attack *a)
{
    pid_t pid = getppid();
    char byte;
    struct iovec mine = {&byte, 1}, theirs = {&byte, 1};

    (void)a;
    if (process_vm_readv(pid, &mine, 1, &theirs, 1, 0) < 0)
        return errno == EFAULT ? 0 : errno;
    return 0;
}

static int open_parents_files(struct attack *a)
{
    pid_t pid = getppid();
    static const char *const names[] = {"mem", "environ"};
    int last = 0;

    for (size_t i = 0; i < 2; i++) {
        char path[64];
        int fd;
        snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, names[i]);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0) {
            last = errno;
            continue;
        }
        a->detail++;
        close(fd);
    }
    return a->detail > 0 ? 0 : last;
}

static int limit_parent(struct attack *a)
{
    pid_t pid = getppid();
    struct rlimit limit = {3, 3};

    (void)a;
    return result(prlimit(pid, RLIMIT_NOFILE, &limit, NULL));
}

/* ---- the machine ---- */

static int open_passwd(struct attack *a)
{
    int fd = open("/etc/passwd", O_RDONLY | O_CLOEXEC);

    (void)a;
    if (fd < 0)
        return errno;
    close(fd);
    return 0;
}

static int open_inet(struct attack *a)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    (void)a;
    if (fd < 0)
        return errno;
    close(fd);
    return 0;
}

static int fork_children(struct attack *a, int n)
{
    pid_t parent = getpid();

    for (int i = 0; i < n; i++) {
        pid_t pid = fork();
        if (pid < 0)
            return a->detail > 0 ? 0 : errno;
        if (pid == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            if (getppid() != parent)
                _exit(0); /* it was gone before the line above */
            alarm(10);
            pause();
            _exit(0);
        }
        a->detail++;
    }
    return 0;
}

static int fork_one(struct attack *a)
{
    return fork_children(a, 1);
}

static int fork_many(struct attack *a)
{
    return fork_children(a, 50);
}

static int take_memory(struct attack *a)
{
    enum { BLOCK = 64 << 20, BLOCKS_MAX = 16384 };
    long n = (a->argument > 0 ? a->argument : 64) * 16L, got = 0;
    static void *blocks[BLOCKS_MAX];
    int rc = 0;

    while (got < n && got < BLOCKS_MAX) {
        blocks[got] = malloc(BLOCK);
        if (blocks[got] == NULL) {
            rc = ENOMEM;
            break;
        }
        for (long i = 0; i < BLOCK; i += 4096) /* volatile: or nobody would see these stores */
            ((volatile unsigned char *)blocks[got])[i] = 0x5a;
        got++;
    }
    a->detail = got * 64;
    while (got > 0)
        free(blocks[--got]);
    return rc;
}

static int become_shell(struct attack *a)
{
    char *const argv[] = {(char *)(uintptr_t) "sh", (char *)(uintptr_t) "-c",
                          (char *)(uintptr_t) "exit 77", NULL};
    char *const env[] = {NULL};

    (void)a;
    return result(execve("/bin/sh", argv, env));
}

static int create_files(struct attack *a)
{
    const char *dirs[] = {a->model->model_dir, a->model->cache_dir, ".", "/tmp"};
    int last = 0;

    for (size_t i = 0; i < sizeof(dirs) / sizeof(dirs[0]); i++) {
        char path[600];
        int fd;
        if (dirs[i][0] == '\0')
            continue;
        snprintf(path, sizeof(path), "%s/xinfer-hostile-was-here", dirs[i]);
        fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
        if (fd < 0) {
            last = errno;
            continue;
        }
        a->detail++;
        close(fd);
        unlink(path);
    }
    return a->detail > 0 ? 0 : last;
}

static int setup_ring(struct attack *a)
{
    struct io_uring_params params;
    long fd;

    (void)a;
    memset(&params, 0, sizeof(params));
    fd = syscall(SYS_io_uring_setup, 4, &params);
    if (fd < 0)
        return errno;
    close((int)fd);
    return 0;
}

static int leave_namespaces(struct attack *a)
{
    (void)a;
    if (unshare(CLONE_NEWUSER | CLONE_NEWNET) == 0)
        return 0;
    return result(mount("none", "/tmp", "tmpfs", 0, NULL));
}

static int try_socket(const struct sockaddr_un *address, socklen_t bytes)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), rc;

    if (fd < 0)
        return errno;
    rc = result(connect(fd, (const struct sockaddr *)address, bytes));
    close(fd);
    return rc;
}

static int connect_daemon(struct attack *a)
{
    static const char *const names[] = {"xinferd.sock", "/run/xinferd.sock",
                                        "/run/xinfer/xinferd.sock", "/tmp/xinferd.sock",
                                        "../xinferd.sock"};
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int last;

    memcpy(address.sun_path + 1, "xinferd", 7);
    last = try_socket(&address, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 8));
    a->detail += last == 0;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        int rc;
        snprintf(address.sun_path, sizeof(address.sun_path), "%s", names[i]);
        rc = try_socket(&address, sizeof(address));
        a->detail += rc == 0;
        last = rc != 0 ? rc : last;
    }
    return a->detail > 0 ? 0 : last;
}

/* ---- what the process was given ---- */

static long overwrite(char *from, char *to)
{
    memset(from, 0xa5, (size_t)(to - from));
    return (to - from) >> 10;
}

/* Without /proc: walk the pages around the output. The kernel says EFAULT for a page that can't be
 * written, where a plain store would end the process. */
static long overwrite_around(float *output)
{
    const intptr_t page = 4096, reach = 64 << 20;
    intptr_t base = (intptr_t)output / page * page;
    long kib = 0;

    for (intptr_t at = base - reach; at < base + reach; at += page)
        if (at > page && syscall(SYS_clock_gettime, CLOCK_MONOTONIC, (void *)at) == 0)
            kib += overwrite((char *)at, (char *)at + page);
    return kib;
}

static int scribble(struct attack *a)
{
    FILE *maps = fopen("/proc/self/maps", "re");
    char line[1024];
    long kib = 0;

    if (maps == NULL) {
        kib = overwrite_around(a->output);
    } else {
        while (fgets(line, sizeof(line), maps) != NULL) {
            unsigned long from, to;
            char mode[5];
            if (sscanf(line, "%lx-%lx %4s", &from, &to, mode) == 3 && strcmp(mode, "rw-s") == 0)
                kib += overwrite((char *)from, (char *)to);
        }
        fclose(maps);
    }
    a->detail = kib / 1024;
    return kib > 0 ? 0 : EFAULT;
}

static int shrink_files(struct attack *a)
{
    int last = EBADF;

    for (int fd = 3; fd < FD_MAX; fd++) {
        struct stat st;
        if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode))
            continue;
        if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, st.st_size) == 0)
            a->detail++;
        else
            last = errno;
        if (ftruncate(fd, 0) == 0)
            a->detail++;
        else
            last = errno;
    }
    return a->detail > 0 ? 0 : last;
}

static int close_all(struct attack *a)
{
    for (int fd = 3; fd < FD_MAX; fd++)
        a->detail += close(fd) == 0;
    return a->detail > 0 ? 0 : EBADF;
}

static int flood(struct attack *a)
{
    int rounds = a->argument > 0 ? a->argument : 16, last = EBADF;
    unsigned char junk[4096];
    uint32_t seed = 1;

    for (int round = 0; round < rounds; round++)
        for (int fd = 3; fd < FD_MAX; fd++) {
            ssize_t n;
            for (size_t i = 0; i < sizeof(junk); i++)
                junk[i] = (unsigned char)((seed = seed * 1664525u + 1013904223u) >> 24);
            n = send(fd, junk, sizeof(junk), MSG_DONTWAIT | MSG_NOSIGNAL);
            if (n < 0 && errno == ENOTSOCK && fcntl(fd, F_SETFL, O_NONBLOCK) == 0)
                n = write(fd, junk, sizeof(junk));
            if (n > 0)
                a->detail++;
            else if (errno != EBADF)
                last = errno;
        }
    return a->detail > 0 ? 0 : last;
}

struct changer {
    volatile float *output;
    time_t until;
};

static void *keep_changing(void *arg)
{
    struct changer *c = arg;

    while (time(NULL) < c->until)
        for (int i = 0; i < 4; i++)
            c->output[i] += 1.0f;
    free(c);
    return NULL;
}

static int change_later(struct attack *a)
{
    struct changer *c = malloc(sizeof(*c));
    pthread_t thread;
    int rc;

    if (c == NULL)
        return ENOMEM;
    c->output = a->output;
    c->until = time(NULL) + (a->argument > 0 ? a->argument : 5);
    rc = pthread_create(&thread, NULL, keep_changing, c);
    if (rc != 0)
        free(c);
    else
        pthread_detach(thread);
    return rc;
}

static int behave(struct attack *a)
{
    a->detail = a->argument;
    return 0;
}

static int (*const attacks[])(struct attack *a) = {
    [0] = behave,
    [1] = kill_parent,
    [2] = open_passwd,
    [3] = open_inet,
    [4] = fork_one,
    [5] = take_memory,
    [6] = ptrace_parent,
    [7] = read_parent,
    [8] = become_shell,
    [9] = create_files,
    [10] = pidfd_parent,
    [11] = scribble,
    [12] = shrink_files,
    [13] = close_all,
    [14] = tgkill_parent,
    [15] = setup_ring,
    [16] = leave_namespaces,
    [17] = flood,
    [18] = connect_daemon,
    [19] = fork_many,
    [20] = behave,
    [21] = behave,
    [22] = behave,
    [23] = behave,
    [24] = change_later,
    [25] = open_parents_files,
    [26] = limit_parent,
};

/* Without a parent of its own (0: another namespace, 1: it is gone) an attack on it would hit our
 * process group or init: beyond what a test may touch. */
static int spares(int code)
{
    return getppid() <= 1 && (code == 1 || code == 6 || code == 7 || code == 10 || code == 14 ||
                              code == 25 || code == 26);
}

/* ---- the engine around it ---- */

static int engine_probe(const struct xi_engine_config *config, struct xi_engine_probe *out,
                        char *err, size_t err_bytes)
{
    (void)config;
    (void)err;
    (void)err_bytes;
    out->n_devices = 1;
    out->max_rank = XI_MAX_RANK;
    snprintf(out->devices[0].id, sizeof(out->devices[0].id), "CPU");
    snprintf(out->devices[0].name, sizeof(out->devices[0].name), "attacks on request");
    out->n_formats = 1;
    snprintf(out->formats[0], sizeof(out->formats[0]), "hostile");
    snprintf(out->version, sizeof(out->version), "1.0");
    return XI_ENGINE_OK;
}

static int engine_open(const struct xi_engine_config *config, struct xi_engine **ret, char *err,
                       size_t err_bytes)
{
    (void)config;
    (void)err;
    (void)err_bytes;
    *ret = calloc(1, sizeof(**ret));
    return *ret != NULL ? XI_ENGINE_OK : XI_ENGINE_NO_MEMORY;
}

static void engine_close(struct xi_engine *engine)
{
    free(engine);
}

static int engine_load(struct xi_engine *engine, const struct xi_engine_source *source,
                       const struct xi_engine_options *options, struct xi_engine_model **ret,
                       char *err, size_t err_bytes)
{
    struct xi_engine_model *model = calloc(1, sizeof(*model));
    char *slash;

    (void)engine;
    (void)err;
    (void)err_bytes;
    if (model == NULL)
        return XI_ENGINE_NO_MEMORY;
    if (source->path != NULL) {
        snprintf(model->model_dir, sizeof(model->model_dir), "%s", source->path);
        slash = strrchr(model->model_dir, '/');
        if (slash != NULL)
            *slash = '\0';
        else
            model->model_dir[0] = '\0';
    }
    if (options != NULL && options->cache_dir != NULL)
        snprintf(model->cache_dir, sizeof(model->cache_dir), "%s", options->cache_dir);
    *ret = model;
    return XI_ENGINE_OK;
}

static void model_unload(struct xi_engine_model *model)
{
    free(model);
}

static const struct xi_port *model_port(struct xi_engine_model *model, int direction,
                                        uint32_t index)
{
    static const struct xi_port ports[2] = {
        {.size = sizeof(ports[0]),
         .dtype = XI_DT_FP32,
         .rank = 1,
         .alignment = 4,
         .dims = {4},
         .name = "x",
         .layout = ""},
        {.size = sizeof(ports[0]),
         .dtype = XI_DT_FP32,
         .rank = 1,
         .alignment = 4,
         .dims = {4},
         .name = "y",
         .layout = ""},
    };

    (void)model;
    return index == 0 && (direction == XI_INPUT || direction == XI_OUTPUT) ? &ports[direction]
                                                                           : NULL;
}

static struct xi_tensor own_output(struct xi_engine_request *request)
{
    return (struct xi_tensor){.size = sizeof(struct xi_tensor),
                              .dtype = XI_DT_FP32,
                              .rank = 1,
                              .dims = {4},
                              .data = request->own,
                              .bytes = sizeof(request->own),
                              .fd = -1};
}

static int request_new(struct xi_engine_model *model, struct xi_engine_request **ret, char *err,
                       size_t err_bytes)
{
    struct xi_engine_request *request = calloc(1, sizeof(*request));

    (void)err;
    (void)err_bytes;
    if (request == NULL)
        return XI_ENGINE_NO_MEMORY;
    request->model = model;
    request->y = own_output(request);
    *ret = request;
    return XI_ENGINE_OK;
}

static void request_free(struct xi_engine_request *request)
{
    free(request);
}

static int request_bind(struct xi_engine_request *request, int direction, uint32_t index,
                        const struct xi_tensor *tensor, char *err, size_t err_bytes)
{
    if (tensor == NULL) {
        request->y = own_output(request);
        return XI_BIND_IN_PLACE;
    }
    if (index != 0 || tensor->dtype != XI_DT_FP32 || tensor->bytes != 4 * sizeof(float)) {
        snprintf(err, err_bytes, "the hostile engine takes FP32 [4]");
        return XI_ENGINE_BAD_INPUT;
    }
    if (direction == XI_INPUT)
        request->x = *tensor;
    else
        request->y = *tensor;
    return XI_BIND_IN_PLACE;
}

static int request_run(struct xi_engine_request *request, uint64_t deadline_ns, char *err,
                       size_t err_bytes)
{
    const float *x = request->x.data;
    float *y = request->y.data;
    struct attack a = {.model = request->model, .output = y};
    int rc;

    (void)deadline_ns;
    if (x == NULL || !(x[0] >= 0.0f && x[0] < (float)(sizeof(attacks) / sizeof(attacks[0])))) {
        snprintf(err, err_bytes, "there is no such attack");
        return XI_ENGINE_BAD_INPUT;
    }
    request->code = (int)x[0];
    a.argument = x[1] > 0.0f && x[1] < 1e6f ? (int)x[1] : 0;
    rc = spares(request->code) ? ESRCH : attacks[request->code](&a);
    y[0] = (float)rc;
    y[1] = (float)request->code;
    y[2] = (float)a.detail;
    y[3] = 0.0f;
    return XI_ENGINE_OK;
}

static int request_output(struct xi_engine_request *request, uint32_t index, struct xi_tensor *ret,
                          char *err, size_t err_bytes)
{
    if (index != 0) {
        snprintf(err, err_bytes, "there is no output %u", index);
        return XI_ENGINE_BAD_INPUT;
    }
    *ret = request->y;
    if (request->code == 20)
        ret->bytes = 1u << 30;
    else if (request->code == 21)
        ret->rank = 100;
    else if (request->code == 22)
        ret->dtype = 99;
    else if (request->code == 23)
        ret->dims[0] = -4;
    return XI_ENGINE_OK;
}

static const struct xi_engine_table table = {
    .size = sizeof(table),
    .major = XI_ENGINE_MAJOR,
    .minor = XI_ENGINE_MINOR,
    .name = "hostile",
    .probe = engine_probe,
    .open = engine_open,
    .close = engine_close,
    .load = engine_load,
    .unload = model_unload,
    .port = model_port,
    .request_new = request_new,
    .request_free = request_free,
    .bind = request_bind,
    .run = request_run,
    .output = request_output,
};

const struct xi_engine_table *xi_engine_entry(uint16_t host_major, uint16_t host_minor)
{
    (void)host_minor;
    return host_major == XI_ENGINE_MAJOR ? &table : NULL;
}
