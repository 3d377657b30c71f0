/* load.c: a cheap load generator: one thread, epoll, fixed requests, connections that stay.
 *
 *   load --to 127.0.0.1:9470|unix:/path --path /v1/infer/x [--body FILE] [--header 'A: b']…
 *        [--protocol http1|h2|grpc] [--connections 4] [--streams 1] [--seconds 5] [--warm 0.5]
 *        [--rate 100] [--expect HEX]… [--record FILE] [--answer FILE]
 *
 * Without --rate each connection asks anew when it was answered (over HTTP/2: each of its streams).
 * With it, requests are due at equal intervals whatever the answers do, and a latency counts from
 * when its request was due: a server that stalls is charged for what should have come meanwhile.
 *
 * --protocol grpc takes the message as --body and sends it as a unary call; an answer is right when
 * its frame is whole and the trailers say grpc-status 0.
 *
 * --expect says how a right answer ends; several may be given. An answer that ends otherwise is an
 * error. --record writes each request as a struct sample, for figures over stretches of time.
 * --answer asks once and writes the body of the answer (gRPC: the message) to a file.
 *
 * Prints one JSON line: requests, errors (any status but 200, any short or wrong answer), by status
 * and by expectation, seconds, rate, p50/p90/p99/p99.9 in µs, and cpu_us, the generator's own. */
#define _GNU_SOURCE
#include "load.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
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

void die(const char *what)
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

static const struct protocol *protocol_of(const char *name)
{
    static const struct protocol *const all[] = {&protocol_http1, &protocol_h2, &protocol_grpc};

    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (strcmp(all[i]->name, name) == 0)
            return all[i];
    die(name);
}

static int text_option(struct options *o, const char *k, const char *v)
{
    if (strcmp(k, "--to") == 0)
        o->to = v;
    else if (strcmp(k, "--path") == 0)
        o->path = v;
    else if (strcmp(k, "--body") == 0)
        o->body_file = v;
    else if (strcmp(k, "--header") == 0 && o->n_headers < HEADERS_MAX)
        o->headers[o->n_headers++] = v;
    else if (strcmp(k, "--protocol") == 0)
        o->protocol = protocol_of(v);
    else if (strcmp(k, "--record") == 0)
        o->record = v;
    else if (strcmp(k, "--answer") == 0)
        o->answer = v;
    else if (strcmp(k, "--expect") == 0 && o->n_expected < EXPECTED_MAX)
        add_expected(o, v);
    else
        return 0;
    return 1;
}

static int number_option(struct options *o, const char *k, const char *v)
{
    if (strcmp(k, "--connections") == 0)
        o->connections = (int)strtol(v, NULL, 10);
    else if (strcmp(k, "--streams") == 0)
        o->streams = (int)strtol(v, NULL, 10);
    else if (strcmp(k, "--seconds") == 0)
        o->seconds = strtod(v, NULL);
    else if (strcmp(k, "--warm") == 0)
        o->warm_seconds = strtod(v, NULL);
    else if (strcmp(k, "--rate") == 0)
        o->rate = strtod(v, NULL);
    else
        return 0;
    return 1;
}

static void parse_args(struct options *o, int argc, char **argv)
{
    *o = (struct options){.to = "127.0.0.1:9470",
                          .path = "/",
                          .protocol = &protocol_http1,
                          .connections = 4,
                          .streams = 1,
                          .seconds = 5,
                          .warm_seconds = 0.5};
    for (int i = 1; i < argc; i += 2)
        if (i + 1 == argc ||
            (!text_option(o, argv[i], argv[i + 1]) && !number_option(o, argv[i], argv[i + 1]))) {
            errno = EINVAL;
            die(argv[i]);
        }
    if (o->answer != NULL)
        o->connections = o->streams = 1;
    if (o->protocol == &protocol_http1)
        o->streams = 1;
    if (o->connections < 1 || o->streams < 1 || o->connections > ASKS_MAX / o->streams) {
        errno = ERANGE;
        die("--connections, --streams");
    }
}

void read_body(struct run *r, size_t lead)
{
    struct stat st = {0};
    FILE *f = NULL;

    if (r->o.body_file != NULL &&
        ((f = fopen(r->o.body_file, "rb")) == NULL || fstat(fileno(f), &st) != 0))
        die(r->o.body_file);
    size_t body = (size_t)st.st_size;
    r->request = malloc(lead + body + 1);
    if (r->request == NULL)
        die("memory");
    if (f != NULL && (fread(r->request + lead, 1, body, f) != body || fclose(f) != 0))
        die(r->o.body_file);
    r->request_bytes = lead + body;
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
    r->o.protocol->open(r, c);
    if (epoll_ctl(r->epoll_fd, EPOLL_CTL_ADD, c->fd, &e) != 0)
        die("epoll");
}

static void begin(struct run *r, struct ask *a, uint64_t due_ns)
{
    a->sent = a->received = a->tail_len = 0;
    a->idle = a->status = 0;
    a->grpc_status = -1;
    a->started_ns = due_ns;
    r->o.protocol->begin(r, a);
}

static uint16_t which_expected(const struct run *r, const struct ask *a)
{
    if (r->o.n_expected == 0)
        return 0;
    for (int i = 0; i < r->o.n_expected; i++) {
        const struct expected *e = &r->o.expected[i];
        if (a->tail_len >= e->n && memcmp(a->tail + a->tail_len - e->n, e->bytes, e->n) == 0)
            return (uint16_t)i;
    }
    return NOT_EXPECTED;
}

void finish(struct run *r, struct ask *a)
{
    uint64_t now = xi_now_ns(), ns = now - a->started_ns;

    if (r->counting && r->n_samples < SAMPLES_MAX)
        r->samples[r->n_samples++] =
            (struct sample){.due_ns = a->started_ns,
                            .latency_ns = ns > UINT32_MAX ? UINT32_MAX : (uint32_t)ns,
                            .status = (uint16_t)a->status,
                            .expected = a->status == 200 ? which_expected(r, a) : NOT_EXPECTED};
    r->ended = r->answer != NULL;
    if (r->interval_ns == 0 && !r->ended)
        begin(r, a, now);
    else
        a->idle = 1;
}

/* The other side went away: a new connection takes its place, and what was asked is counted. One
 * that was idle for long may be hung up. */
static void broke(struct run *r, struct connection *c)
{
    r->o.protocol->close(c);
    (void)close(c->fd);
    open_connection(r, c);
    for (int i = 0; i < r->o.streams; i++) {
        c->asks[i].status = 0;
        if (!c->asks[i].idle)
            finish(r, &c->asks[i]);
    }
}

void keep_tail(struct run *r, struct ask *a, const void *data, size_t n)
{
    size_t from = n > EXPECTED_BYTES ? n - EXPECTED_BYTES : 0, add = n - from;
    size_t keep = a->tail_len + add > EXPECTED_BYTES ? EXPECTED_BYTES - add : a->tail_len;

    memmove(a->tail, a->tail + a->tail_len - keep, keep);
    memcpy(a->tail + keep, (const uint8_t *)data + from, add);
    a->tail_len = keep + add;
    if (r->answer != NULL && fwrite(data, 1, n, r->answer) != n)
        die(r->o.answer);
}

static struct ask *idle_one(struct run *r)
{
    for (int i = 0; i < r->n_asks; i++)
        if (r->asks[i].idle)
            return &r->asks[i];
    return NULL;
}

/* Begins what is due; what finds no connection stays due. Returns how long to sleep. */
static uint64_t begin_due(struct run *r, uint64_t now)
{
    struct ask *a;

    if (r->interval_ns == 0)
        return 10000000u;
    while (r->next_due_ns <= now && (a = idle_one(r)) != NULL) {
        begin(r, a, r->next_due_ns);
        r->next_due_ns += r->interval_ns;
    }
    return r->next_due_ns > now ? r->next_due_ns - now : 1000000u;
}

static void loop_until(struct run *r, uint64_t end_ns)
{
    struct epoll_event events[64];
    uint64_t now;

    while (!r->ended && (now = xi_now_ns()) < end_ns) {
        uint64_t ns = begin_due(r, now);
        struct timespec wait = {.tv_nsec = (long)(ns < 10000000u ? ns : 10000000u)};
        int n = epoll_pwait2(r->epoll_fd, events, 64, &wait, NULL);
        for (int i = 0; i < n; i++) {
            struct connection *c = events[i].data.ptr;
            if (events[i].events & EPOLLOUT)
                r->o.protocol->writable(r, c);
            if ((events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) &&
                !r->o.protocol->readable(r, c))
                broke(r, c);
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
    r->n_asks = r->o.connections * r->o.streams;
    r->samples = malloc(SAMPLES_MAX * sizeof *r->samples);
    r->connections = calloc((size_t)r->o.connections, sizeof *r->connections);
    r->asks = calloc((size_t)r->n_asks, sizeof *r->asks);
    if (r->connections == NULL || r->samples == NULL || r->asks == NULL)
        die("memory");
    r->interval_ns = r->o.rate > 0 ? (uint64_t)(1e9 / r->o.rate) : 0;
    r->next_due_ns = xi_now_ns();
    for (int i = 0; i < r->o.connections; i++) {
        r->connections[i].asks = r->asks + (ptrdiff_t)i * r->o.streams;
        open_connection(r, &r->connections[i]);
    }
    for (int i = 0; i < r->n_asks; i++) {
        r->asks[i].on = &r->connections[i / r->o.streams];
        r->asks[i].idle = 1;
        if (r->interval_ns == 0)
            begin(r, &r->asks[i], xi_now_ns());
    }
}

/* --answer: one request, however long it takes within --seconds. */
static void open_answer(struct run *r)
{
    if (r->o.answer == NULL)
        return;
    r->answer = fopen(r->o.answer, "wb");
    if (r->answer == NULL)
        die(r->o.answer);
    r->o.warm_seconds = 0;
    r->counting = 1;
}

int main(int argc, char **argv)
{
    struct run r = {.epoll_fd = epoll_create1(EPOLL_CLOEXEC)};

    parse_args(&r.o, argc, argv);
    r.o.protocol->prepare(&r);
    open_answer(&r);
    start(&r);
    loop_until(&r, xi_now_ns() + (uint64_t)(r.o.warm_seconds * 1e9));
    r.counting = 1;
    uint64_t began = xi_now_ns(), cpu = cpu_us();
    loop_until(&r, began + (uint64_t)(r.o.seconds * 1e9));
    report(&r, (double)(xi_now_ns() - began) / 1e9, cpu_us() - cpu);
    write_record(&r);
    if (r.answer != NULL && fclose(r.answer) != 0)
        die(r.o.answer);
    return 0;
}
