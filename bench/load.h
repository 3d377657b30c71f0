/* load.h: what the load generator and its protocols share. One thread: nothing here is locked.
 *
 * A connection carries one ask over HTTP/1.1, as many as --streams says over HTTP/2. An ask is one
 * request at a time: begun, answered, counted by finish(), begun anew. */
#ifndef XI_BENCH_LOAD_H
#define XI_BENCH_LOAD_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum { ASKS_MAX = 1024, SAMPLES_MAX = 4000000, HEADERS_MAX = 16, HEAD_MAX = 8192 };
enum { EXPECTED_MAX = 8, EXPECTED_BYTES = 64, NOT_EXPECTED = 255 };

struct run;
struct ask;
struct connection;

/* A protocol. begin() is called for an ask that is not under way; it and the others may send at
 * once. readable() takes all there is and says 0 when the connection has broken. */
struct protocol {
    const char *name;
    void (*prepare)(struct run *r);
    void (*open)(struct run *r, struct connection *c);
    void (*close)(struct connection *c);
    void (*begin)(struct run *r, struct ask *a);
    void (*writable)(struct run *r, struct connection *c);
    int (*readable)(struct run *r, struct connection *c);
};

extern const struct protocol protocol_http1, protocol_h2, protocol_grpc;

struct expected {
    uint8_t bytes[EXPECTED_BYTES];
    size_t n;
};

struct options {
    const char *to, *path, *body_file, *headers[HEADERS_MAX], *record, *answer;
    const struct protocol *protocol;
    int n_headers, connections, streams, n_expected;
    struct expected expected[EXPECTED_MAX];
    double seconds, warm_seconds, rate;
};

/* One request, as --record writes it. */
struct sample {
    uint64_t due_ns; /* CLOCK_MONOTONIC */
    uint32_t latency_ns;
    uint16_t status;   /* 0: the connection broke; gRPC: 200, or 500 + its status */
    uint16_t expected; /* which one it ended in; NOT_EXPECTED: none */
};

struct ask {
    struct connection *on;
    uint64_t started_ns;
    int idle, status;
    size_t sent, received; /* of the request; of the answer's body */
    uint8_t tail[EXPECTED_BYTES];
    size_t tail_len; /* the last bytes of the body so far */
    uint8_t frame[5];
    int grpc_status; /* -1: none came */
};

struct connection {
    int fd;
    struct ask *asks;
    void *state; /* the protocol's */
};

struct run {
    struct options o;
    char *request; /* HTTP/1.1: with its head; HTTP/2: the body */
    size_t request_bytes;
    struct connection *connections;
    struct ask *asks;
    int n_asks;
    struct sample *samples;
    size_t n_samples;
    int epoll_fd, counting, ended;
    uint64_t next_due_ns, interval_ns; /* 0: as fast as answers come */
    FILE *answer;                      /* where the only answer's body goes; may be null */
};

/* Ends the program: the message, and errno in words. */
_Noreturn void die(const char *what);

/* The body of the request behind `lead` bytes of room, as run.request and run.request_bytes. */
void read_body(struct run *r, size_t lead);

/* Bytes of an answer's body, in their order. */
void keep_tail(struct run *r, struct ask *a, const void *data, size_t n);

/* An answer is complete, or will not come (status 0): it is counted, the next may begin. */
void finish(struct run *r, struct ask *a);

#endif
