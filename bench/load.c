/* load.c: a cheap HTTP/1.1 load generator: one thread, epoll, fixed requests, keep-alive.
 *
 *   load --to 127.0.0.1:9470|unix:/path --path /v1/infer/x [--body FILE] [--header 'A: b']…
 *        [--connections 4] [--seconds 5] [--warm 0.5]
 *
 * Prints one JSON line: requests, errors (any status but 200, any short answer), seconds, rate,
 * p50/p90/p99/p99.9 in µs, bytes_out, and cpu_us, the generator's own. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"

enum { CONNECTIONS_MAX = 1024, SAMPLES_MAX = 4000000, HEAD_MAX = 8192 };

struct options {
    const char *to, *path, *body_file, *headers[16];
    int n_headers, connections;
    double seconds, warm_seconds;
};

struct connection {
    int fd;
    size_t sent; /* of the request */
    size_t head_len, body_left;
    char head[HEAD_MAX];
    int in_body, status;
    uint64_t started_ns;
};

struct run {
    struct options o;
    char *request;
    size_t request_bytes;
    struct connection *connections;
    uint32_t *samples_ns; /* up to 4.29 s each */
    size_t n_samples, errors;
    int epoll_fd, counting;
};

static void die(const char *what)
{
    (void)fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void parse_args(struct options *o, int argc, char **argv)
{
    *o = (struct options){
        .to = "127.0.0.1:9470", .path = "/", .connections = 4, .seconds = 5, .warm_seconds = 0.5};
    for (int i = 1; i + 1 < argc; i += 2) {
        const char *k = argv[i], *v = argv[i + 1];
        if (strcmp(k, "--to") == 0)
            o->to = v;
        else if (strcmp(k, "--path") == 0)
            o->path = v;
        else if (strcmp(k, "--body") == 0)
            o->body_file = v;
        else if (strcmp(k, "--header") == 0 && o->n_headers < 16)
            o->headers[o->n_headers++] = v;
        else if (strcmp(k, "--connections") == 0)
            o->connections = (int)strtol(v, NULL, 10);
        else if (strcmp(k, "--seconds") == 0)
            o->seconds = strtod(v, NULL);
        else if (strcmp(k, "--warm") == 0)
            o->warm_seconds = strtod(v, NULL);
    }
    if (o->connections < 1 || o->connections > CONNECTIONS_MAX)
        o->connections = 1;
}

static size_t file_bytes(const char *path)
{
    struct stat st;

    if (path == NULL)
        return 0;
    if (stat(path, &st) != 0)
        die(path);
    return (size_t)st.st_size;
}

static void build_request(struct run *r)
{
    size_t body = file_bytes(r->o.body_file), room = HEAD_MAX + body, n = 0;

    r->request = malloc(room);
    if (r->request == NULL)
        die("memory");
    n += (size_t)snprintf(r->request, HEAD_MAX, "%s %s HTTP/1.1\r\nHost: localhost\r\n",
                          r->o.body_file ? "POST" : "GET", r->o.path);
    for (int i = 0; i < r->o.n_headers; i++)
        n += (size_t)snprintf(r->request + n, HEAD_MAX - n, "%s\r\n", r->o.headers[i]);
    if (r->o.body_file != NULL)
        n += (size_t)snprintf(r->request + n, HEAD_MAX - n, "Content-Length: %zu\r\n", body);
    n += (size_t)snprintf(r->request + n, HEAD_MAX - n, "\r\n");
    if (body > 0) {
        FILE *f = fopen(r->o.body_file, "rb");
        if (f == NULL || fread(r->request + n, 1, body, f) != body)
            die(r->o.body_file);
        (void)fclose(f);
    }
    r->request_bytes = n + body;
}

static int connect_unix(const char *path)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    (void)snprintf(a.sun_path, sizeof a.sun_path, "%s", path);
    if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof a) != 0)
        die(path);
    return fd;
}

static int connect_tcp(const char *to)
{
    char host[64];
    const char *colon = strrchr(to, ':');
    struct sockaddr_in a = {.sin_family = AF_INET};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;

    if (colon == NULL || fd < 0)
        die(to);
    (void)snprintf(host, sizeof host, "%.*s", (int)(colon - to), to);
    a.sin_port = htons((uint16_t)strtol(colon + 1, NULL, 10));
    if (inet_pton(AF_INET, host, &a.sin_addr) != 1 ||
        connect(fd, (struct sockaddr *)&a, sizeof a) != 0)
        die(to);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return fd;
}

static void open_connection(struct run *r, struct connection *c)
{
    struct epoll_event e = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = c};

    c->fd = strncmp(r->o.to, "unix:", 5) == 0 ? connect_unix(r->o.to + 5) : connect_tcp(r->o.to);
    (void)fcntl(c->fd, F_SETFL, O_NONBLOCK);
    if (epoll_ctl(r->epoll_fd, EPOLL_CTL_ADD, c->fd, &e) != 0)
        die("epoll");
}

static void begin(struct run *r, struct connection *c);

static void finish(struct run *r, struct connection *c)
{
    if (r->counting) {
        uint64_t ns = xi_now_ns() - c->started_ns;
        if (c->status != 200)
            r->errors++;
        else if (r->n_samples < SAMPLES_MAX)
            r->samples_ns[r->n_samples++] = ns > UINT32_MAX ? UINT32_MAX : (uint32_t)ns;
    }
    begin(r, c);
}

static void send_more(struct run *r, struct connection *c)
{
    while (c->sent < r->request_bytes) {
        ssize_t n = write(c->fd, r->request + c->sent, r->request_bytes - c->sent);
        if (n < 0 && errno == EAGAIN)
            return;
        if (n <= 0)
            die("write");
        c->sent += (size_t)n;
    }
}

static void begin(struct run *r, struct connection *c)
{
    c->sent = c->head_len = c->body_left = 0;
    c->in_body = 0;
    c->started_ns = xi_now_ns();
    send_more(r, c);
}

/* The head is complete at `end`: status, length, and what of the body came with it. */
static void parse_head(struct connection *c, char *end)
{
    size_t have = c->head_len - (size_t)(end + 4 - c->head);

    *end = '\0';
    const char *length = strcasestr(c->head, "content-length:");
    c->status = (int)strtol(c->head + 9, NULL, 10);
    size_t body = length ? strtoul(length + 15, NULL, 10) : 0;
    c->body_left = body > have ? body - have : 0;
    c->in_body = 1;
}

static int receive_head(struct connection *c, const char *data, size_t n)
{
    size_t room = HEAD_MAX - 1 - c->head_len, take = n < room ? n : room;

    memcpy(c->head + c->head_len, data, take);
    c->head_len += take;
    c->head[c->head_len] = '\0';
    char *end = strstr(c->head, "\r\n\r\n");
    if (end == NULL)
        return 0;
    parse_head(c, end);
    size_t beyond = n - take; /* the rest of a large first read */
    c->body_left -= beyond < c->body_left ? beyond : c->body_left;
    return 1;
}

static void receive(struct run *r, struct connection *c)
{
    static char buf[1 << 18];

    for (;;) {
        ssize_t n = read(c->fd, buf, sizeof buf);
        if (n < 0 && errno == EAGAIN)
            return;
        if (n <= 0) {
            errno = n == 0 ? ECONNRESET : errno;
            die("read");
        }
        if (c->in_body)
            c->body_left -= (size_t)n < c->body_left ? (size_t)n : c->body_left;
        else if (!receive_head(c, buf, (size_t)n))
            continue;
        if (c->body_left == 0)
            finish(r, c);
    }
}

static void loop_until(struct run *r, uint64_t end_ns)
{
    struct epoll_event events[64];

    while (xi_now_ns() < end_ns) {
        int n = epoll_wait(r->epoll_fd, events, 64, 10);
        for (int i = 0; i < n; i++) {
            struct connection *c = events[i].data.ptr;
            if (events[i].events & EPOLLOUT)
                send_more(r, c);
            if (events[i].events & EPOLLIN)
                receive(r, c);
        }
    }
}

static uint64_t cpu_us(void)
{
    struct rusage u;

    (void)getrusage(RUSAGE_SELF, &u);
    return (uint64_t)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1000000u +
           (uint64_t)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

static int ascending(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return (x > y) - (x < y);
}

static double quantile_us(const struct run *r, double q)
{
    return r->n_samples ? r->samples_ns[(size_t)((double)(r->n_samples - 1) * q)] / 1e3 : 0;
}

static void report(struct run *r, double seconds, uint64_t cpu)
{
    qsort(r->samples_ns, r->n_samples, sizeof *r->samples_ns, ascending);
    (void)printf(
        "{\"requests\":%zu,\"errors\":%zu,\"seconds\":%.3f,\"rate\":%.1f,\"p50_us\":%.2f,"
        "\"p90_us\":%.2f,\"p99_us\":%.2f,\"p999_us\":%.2f,\"request_bytes\":%zu,\"cpu_us\":%llu}\n",
        r->n_samples, r->errors, seconds, (double)r->n_samples / seconds, quantile_us(r, 0.5),
        quantile_us(r, 0.9), quantile_us(r, 0.99), quantile_us(r, 0.999), r->request_bytes,
        (unsigned long long)cpu);
}

int main(int argc, char **argv)
{
    struct run r = {.epoll_fd = epoll_create1(EPOLL_CLOEXEC)};

    parse_args(&r.o, argc, argv);
    build_request(&r);
    r.connections = calloc((size_t)r.o.connections, sizeof *r.connections);
    r.samples_ns = malloc(SAMPLES_MAX * sizeof *r.samples_ns);
    if (r.connections == NULL || r.samples_ns == NULL)
        die("memory");
    for (int i = 0; i < r.o.connections; i++) {
        open_connection(&r, &r.connections[i]);
        begin(&r, &r.connections[i]);
    }
    loop_until(&r, xi_now_ns() + (uint64_t)(r.o.warm_seconds * 1e9));
    r.counting = 1;
    uint64_t start = xi_now_ns(), cpu = cpu_us();
    loop_until(&r, start + (uint64_t)(r.o.seconds * 1e9));
    report(&r, (double)(xi_now_ns() - start) / 1e9, cpu_us() - cpu);
    return 0;
}
