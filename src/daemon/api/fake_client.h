/* fake_client.h: a client of the tests, on the server's own loop. */
#ifndef XI_DAEMON_API_FAKE_CLIENT_H
#define XI_DAEMON_API_FAKE_CLIENT_H

#include <stddef.h>
#include <uv.h>

struct client {
    uv_loop_t *loop;
    uv_tcp_t tcp;
    uv_connect_t connect;
    uv_write_t write, more;
    char *answer;
    size_t len, room;
    int ended, closed;
};

void client_open(struct client *c, uv_loop_t *loop, unsigned port);
/* The bytes are borrowed until they are sent. */
void send_bytes(struct client *c, const char *bytes, size_t n);
/* Reads again after uv_read_stop. */
void client_read(struct client *c);
/* A second write of one client. */
void send_bytes_more(struct client *c, const char *bytes, size_t n);
/* Turns the loop until the client has so many whole answers, or the end, or time is up. */
void wait_answers(struct client *c, unsigned n, unsigned ms);
void close_client(struct client *c);

#endif
