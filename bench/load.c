/* load.c: a cheap HTTP/1.1 load generator: one thread, epoll, fixed requests, keep-alive.
 *
 *   load --to 127.0.0.1:9470|unix:/path --path /v1/infer/x [--body FILE] [--header 'A: b']…
 *        [--connections 4] [--seconds 5] [--warm 0.5] [--rate 100] [--expect HEX]… [--record FILE]
 *
 * Without --rate each connection asks anew when it was answered. With it, requests are due at equal
 * intervals whatever the answers do, and a latency counts from when its request was due: a server
 * that stalls is charged for what should have come meanwhile.
 *
 * --expect says how a right answer ends; several may be given. An answer that ends otherwise is an
 * error. --record writes each request as a struct sample, for figures over stretches of time.
 *
 * Prints one JSON line: requests, errors (any status but 200, any short or wrong answer), by status
 * and by expectation, seconds, rate, p50/p90/p99/p99.9 in µs, and cpu_us, the generator's own. */
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
#include <time.h>
#include <unistd.h>

#include "base/clock.h"

enum { CONNECTIONS_MAX = 1024, SAMPLES_MAX = 4000000, HEAD_MAX = 8192 };
enum { EXPECTED_MAX = 8, EXPECTED_BYTES = 64, NOT_EXPECTED = 255 };

struct expected {
    uint8_t bytes[EXPECTED_BYTES];
    size_t n;
};

struct options {
    const char *to, *path, *body_file, *headers[16], *record;
    int n_headers, connections, n_expected;
    struct expected expected[EXPECTED_MAX];
    double seconds, warm_seconds, rate;
};

/* One request, as --record writes it. */
struct sample {
    uint64_t due_ns; /* CLOCK_MONOTONIC */
    uint32_t latency_ns;
    uint16_t status;   /* 0: the connection broke */
    uint16_t expected; /* which one it ended in; NOT_EXPECTED: none */
};

struct connection {
    int fd;
    size_t sent; /* of the request */
    size_t head_len, body_left;
    char head[HEAD_MAX];
    int in_body, status;
    int idle;
    uint8_t tail[EXPECTED_BYTES]; /* the last bytes of the body so far */
    size_t tail_len;
    uint64_t started_ns;
};

struct run {
    struct options o;
    char *request;
    size_t request_bytes;
    struct connection *connections;
    struct sample *samples;
    size_t n_samples;
    int epoll_fd, counting;
    uint64_t next_due_ns, interval_ns; /* 0: as fast as answers come */
};

static void die(const char *what)
{
    (void)fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void add_expected(struct options *o, const char *hex)
{
    struct expected *e = &o->expected[o->n_expected++];

    for (; hex[0] != '\0' && hex[1] != '\0' && e->n < EXPECTED_BYTES; hex += 2) {
        char two[3] = {hex[0], hex[1], '\0'};
        e->bytes[e->n++] = (uint8_t)strtoul(two, NULL, 16);
    }
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
        else if (strcmp(k, "--rate") == 0)
            o->rate = strtod(v, NULL);
        else if (strcmp(k, "--record") == 0)
            o->record = v;
        else if (strcmp(k, "--expect") == 0 && o->n_expected < EXPECTED_MAX)
            add_expected(o, v);
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

static void begin(struct run *r, struct connection *c, uint64_t due_ns);

static uint16_t which_expected(const struct run *r, const struct connection *c)
{
    if (r->o.n_expected == 0)
        return 0;
    for (int i = 0; i < r->o.n_expected; i++) {
        const struct expected *e = &r->o.expected[i];
        if (c->tail_len >= e->n && memcmp(c->tail + c->tail_len - e->n, e->bytes, e->n) == 0)
            return (uint16_t)i;
    }
    return NOT_EXPECTED;
}

static void finish(struct run *r, struct connection *c)
{
    uint64_t now = xi_now_ns(), ns = now - c->started_ns;

    if (r->counting && r->n_samples < SAMPLES_MAX)
        r->samples[r->n_samples++] =
            (struct sample){.due_ns = c->started_ns,
                            .latency_ns = ns > UINT32_MAX ? UINT32_MAX : (uint32_t)ns,
                            .status = (uint16_t)c->status,
                            .expected = c->status == 200 ? which_expected(r, c) : NOT_EXPECTED};
    if (r->interval_ns == 0)
        begin(r, c, now);
    else
        c->idle = 1;
}

/* The other side went away: a new connection takes its place, and what was asked is counted. One
 * that was idle for long may be hung up. */
static void broke(struct run *r, struct connection *c)
{
    (void)close(c->fd);
    c->status = 0;
    open_connection(r, c);
    if (!c->idle)
        finish(r, c);
}

static void send_more(struct run *r, struct connection *c)
{
    while (!c->idle && c->sent < r->request_bytes) {
        ssize_t n = send(c->fd, r->request + c->sent, r->request_bytes - c->sent, MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN)
            return;
        if (n <= 0)
            return; /* reading tells */
        c->sent += (size_t)n;
    }
}

static void begin(struct run *r, struct connection *c, uint64_t due_ns)
{
    c->sent = c->head_len = c->body_left = c->tail_len = 0;
    c->in_body = c->idle = 0;
    c->started_ns = due_ns;
    send_more(r, c);
}

static void keep_tail(struct connection *c, const char *data, size_t n)
{
    size_t from = n > EXPECTED_BYTES ? n - EXPECTED_BYTES : 0, add = n - from;
    size_t keep = c->tail_len + add > EXPECTED_BYTES ? EXPECTED_BYTES - add : c->tail_len;

    memmove(c->tail, c->tail + c->tail_len - keep, keep);
    memcpy(c->tail + keep, data + from, add);
    c->tail_len = keep + add;
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
    keep_tail(c, end + 4, have);
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
    keep_tail(c, data + take, beyond);
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
            broke(r, c);
            return;
        }
        if (c->in_body) {
            c->body_left -= (size_t)n < c->body_left ? (size_t)n : c->body_left;
            keep_tail(c, buf, (size_t)n);
        } else if (!receive_head(c, buf, (size_t)n)) {
            continue;
        }
        if (c->body_left == 0)
            finish(r, c);
    }
}

static struct connection *idle_one(struct run *r)
{
    for (int i = 0; i < r->o.connections; i++)
        if (r->connections[i].idle)
            return &r->connections[i];
    return NULL;
}

/* Begins what is due; what finds no connection stays due. Returns how long to sleep. */
static uint64_t begin_due(struct run *r, uint64_t now)
{
    struct connection *c;

    if (r->interval_ns == 0)
        return 10000000u;
    while (r->next_due_ns <= now && (c = idle_one(r)) != NULL) {
        begin(r, c, r->next_due_ns);
        r->next_due_ns += r->interval_ns;
    }
    return r->next_due_ns > now ? r->next_due_ns - now : 1000000u;
}

static void loop_until(struct run *r, uint64_t end_ns)
{
    struct epoll_event events[64];
    uint64_t now;

    while ((now = xi_now_ns()) < end_ns) {
        uint64_t ns = begin_due(r, now);
        struct timespec wait = {.tv_nsec = (long)(ns < 10000000u ? ns : 10000000u)};
        int n = epoll_pwait2(r->epoll_fd, events, 64, &wait, NULL);
        for (int i = 0; i < n; i++) {
            struct connection *c = events[i].data.ptr;
            if (events[i].events & EPOLLOUT)
                send_more(r, c);
            if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR))
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

static void write_record(const struct run *r)
{
    FILE *f = r->o.record ? fopen(r->o.record, "wb") : NULL;

    if (r->o.record == NULL)
        return;
    if (f == NULL || fwrite(r->samples, sizeof *r->samples, r->n_samples, f) != r->n_samples ||
        fclose(f) != 0)
        die(r->o.record);
}

static void print_counts(const struct run *r)
{
    size_t by_status[600] = {0}, by_expected[EXPECTED_MAX] = {0};

    for (size_t i = 0; i < r->n_samples; i++) {
        by_status[r->samples[i].status % 600]++;
        if (r->samples[i].expected < EXPECTED_MAX)
            by_expected[r->samples[i].expected]++;
    }
    (void)printf(",\"status\":{");
    for (int i = 0, any = 0; i < 600; i++)
        if (by_status[i] > 0)
            (void)printf("%s\"%d\":%zu", any++ ? "," : "", i, by_status[i]);
    (void)printf("},\"expected\":[");
    for (int i = 0; i < r->o.n_expected; i++)
        (void)printf("%s%zu", i ? "," : "", by_expected[i]);
    (void)printf("]");
}

static double quantile_us(const uint32_t *sorted, size_t n, double q)
{
    return n ? sorted[(size_t)((double)(n - 1) * q)] / 1e3 : 0;
}

static void report(struct run *r, double seconds, uint64_t cpu)
{
    uint32_t *good = malloc((r->n_samples + 1) * sizeof *good);
    size_t n = 0;

    if (good == NULL)
        die("memory");
    for (size_t i = 0; i < r->n_samples; i++)
        if (r->samples[i].expected != NOT_EXPECTED)
            good[n++] = r->samples[i].latency_ns;
    qsort(good, n, sizeof *good, ascending);
    (void)printf("{\"requests\":%zu,\"errors\":%zu,\"seconds\":%.3f,\"rate\":%.1f,"
                 "\"p50_us\":%.2f,\"p90_us\":%.2f,\"p99_us\":%.2f,\"p999_us\":%.2f,"
                 "\"request_bytes\":%zu,\"cpu_us\":%llu",
                 n, r->n_samples - n, seconds, (double)n / seconds, quantile_us(good, n, 0.5),
                 quantile_us(good, n, 0.9), quantile_us(good, n, 0.99), quantile_us(good, n, 0.999),
                 r->request_bytes, (unsigned long long)cpu);
    print_counts(r);
    (void)printf("}\n");
    free(good);
}

static void start(struct run *r)
{
    r->samples = malloc(SAMPLES_MAX * sizeof *r->samples);
    r->connections = calloc((size_t)r->o.connections, sizeof *r->connections);
    if (r->connections == NULL || r->samples == NULL)
        die("memory");
    r->interval_ns = r->o.rate > 0 ? (uint64_t)(1e9 / r->o.rate) : 0;
    r->next_due_ns = xi_now_ns();
    for (int i = 0; i < r->o.connections; i++) {
        open_connection(r, &r->connections[i]);
        if (r->interval_ns == 0)
            begin(r, &r->connections[i], xi_now_ns());
        else
            r->connections[i].idle = 1;
    }
}

int main(int argc, char **argv)
{
    struct run r = {.epoll_fd = epoll_create1(EPOLL_CLOEXEC)};

    parse_args(&r.o, argc, argv);
    build_request(&r);
    start(&r);
    loop_until(&r, xi_now_ns() + (uint64_t)(r.o.warm_seconds * 1e9));
    r.counting = 1;
    uint64_t began = xi_now_ns(), cpu = cpu_us();
    loop_until(&r, began + (uint64_t)(r.o.seconds * 1e9));
    report(&r, (double)(xi_now_ns() - began) / 1e9, cpu_us() - cpu);
    write_record(&r);
    return 0;
}
