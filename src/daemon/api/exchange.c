#include "daemon/api/exchange.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "daemon/api/carrier.h"
#include "daemon/api/connection.h"
#include "daemon/api/grpc.h"
#include "daemon/api/infer.h"
#include "daemon/api/unpack.h"

enum { KEPT_MAX = XI_KEPT(512), KEPT_TEXT = 64 * 1024, HEAD_CAP = 8 * 1024 };

struct xi_exchange *xi_exchange_take(struct xi_http_server *server,
                                     const struct xi_carrier *carrier, struct xi_conn *conn)
{
    struct xi_exchange *x = server->free_list;

    if (x != NULL) {
        server->free_list = x->free_next;
        server->n_free--;
    } else {
        x = calloc(1, sizeof *x);
        if (x == NULL)
            return NULL;
        xi_str_init(&x->text, XI_BODY_JSON_MAX);
        xi_str_init(&x->head, HEAD_CAP);
        xi_str_init(&x->extra, HEAD_CAP / 2);
        xi_str_init(&x->body, XI_GIB);
        xi_str_init(&x->packed, 0);
    }
    server->handles++; /* the server outlives whoever works on an exchange */
    x->server = server;
    x->carrier = carrier;
    x->conn = conn;
    x->born_ns = xi_now_ns();
    return x;
}

void xi_exchange_destroy(struct xi_exchange *x)
{
    xi_http_stream_fini(&x->stream);
    xi_str_fini(&x->text);
    xi_str_fini(&x->head);
    xi_str_fini(&x->extra);
    xi_str_fini(&x->body);
    xi_str_fini(&x->packed);
    xi_infer_free(x->infer);
    xi_grpc_free(x->grpc);
    free(x);
}

static void keep_small(struct xi_str *s)
{
    if (s->room > KEPT_TEXT)
        xi_str_fini(s);
    else
        xi_str_clear(s);
}

static void clean(struct xi_exchange *x)
{
    if (x->release != NULL)
        x->release(x);
    xi_body_forget(x);
    xi_unpack_free(x);
    xi_str_fini(&x->packed);
    x->server->stats.body_bytes += x->stream.received;
    x->server->stats.copied_bytes += x->stream.copied;
    xi_http_stream_reset(&x->stream);
    keep_small(&x->text);
    keep_small(&x->head);
    keep_small(&x->extra);
    keep_small(&x->body);
    x->route = NULL;
    x->who = (struct xi_identity){0};
    x->param[0] = x->version[0] = '\0';
    x->answered = x->streaming = x->begun = x->unhurried = x->status = 0;
    x->retry_after_s = 0;
    x->request = 0;
    x->gone = x->release = NULL;
    x->problem = NULL;
    x->job = NULL;
    x->events = (struct xi_event_flow){0};
    x->flow = (struct xi_flow){0};
    x->n_pieces = 0;
}

int xi_exchange_settle(struct xi_exchange *x)
{
    struct xi_http_server *server = x->server;

    if (x->carrier != NULL || x->pending || x->writing || x->held)
        return 0;
    clean(x);
    if ((int)server->n_free >= KEPT_MAX || server->closing) {
        xi_exchange_destroy(x);
    } else {
        x->free_next = server->free_list;
        server->free_list = x;
        server->n_free++;
    }
    xi_server_release(server);
    return 1;
}

void xi_exchange_detach(struct xi_exchange *x)
{
    x->carrier = NULL;
    x->conn = NULL;
    x->stream.paused = 0;
    if (x->waiting)
        xi_body_forget(x);
    if (x->pending && x->gone != NULL)
        x->gone(x); /* may end in xi_answer_… and with it here again */
    else
        (void)xi_exchange_settle(x);
}

static enum xi_rc check_type(const struct xi_exchange *x, struct xi_err *err)
{
    const char *value = xi_http_header(&x->stream, "content-type");
    char type[64];

    if (x->route->types == 0 || x->route->types & XI_TYPE_ANY)
        return XI_OK;
    xi_http_media_type(value ? value : "", type, sizeof type);
    if (xi_type_bit(type) & x->route->types)
        return XI_OK;
    return xi_fail(err, XI_EMEDIA, "Content-Type \"%.60s\" is not taken by %s", value ? value : "",
                   x->route->path);
}

static int is_loopback(const struct sockaddr_storage *a)
{
    const struct sockaddr_in *v4 = (const void *)a;
    const struct sockaddr_in6 *v6 = (const void *)a;
    static const uint8_t mapped[13] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127};

    if (a->ss_family == AF_INET)
        return (ntohl(v4->sin_addr.s_addr) >> 24) == 127;
    return a->ss_family == AF_INET6 && (IN6_IS_ADDR_LOOPBACK(&v6->sin6_addr) ||
                                        memcmp(&v6->sin6_addr, mapped, sizeof mapped) == 0);
}

static int is_same(const struct sockaddr_storage *a, const struct sockaddr_storage *b)
{
    if (a->ss_family != b->ss_family)
        return 0;
    if (a->ss_family == AF_INET)
        return memcmp(&((const struct sockaddr_in *)(const void *)a)->sin_addr,
                      &((const struct sockaddr_in *)(const void *)b)->sin_addr,
                      sizeof(struct in_addr)) == 0;
    return memcmp(&((const struct sockaddr_in6 *)(const void *)a)->sin6_addr,
                  &((const struct sockaddr_in6 *)(const void *)b)->sin6_addr,
                  sizeof(struct in6_addr)) == 0;
}

int xi_exchange_is_near(const struct xi_exchange *x)
{
    struct sockaddr_storage peer = {0}, own = {0};
    int n = sizeof peer, m = sizeof own;

    if (x->conn == NULL || x->conn->over_socket)
        return x->conn != NULL;
    if (uv_tcp_getpeername(&x->conn->h.tcp, (struct sockaddr *)&peer, &n) != 0 ||
        uv_tcp_getsockname(&x->conn->h.tcp, (struct sockaddr *)&own, &m) != 0)
        return 0;
    return is_loopback(&peer) || is_same(&peer, &own);
}

/* Compressed bodies: of routes that take JSON or an inference, once. */
static enum xi_rc check_coding(struct xi_exchange *x, enum xi_coding *ret, struct xi_err *err)
{
    const struct xi_http_stream *s = &x->stream;
    int takes = x->route->body == XI_TAKES_TEXT || x->route->body == XI_TAKES_SLOT;
    enum xi_rc rc = xi_coding_parse(xi_http_header(s, "content-encoding"), ret, err);

    if (rc == XI_OK && *ret != XI_CODING_NONE && !takes)
        rc = xi_fail(err, XI_EMEDIA, "%s takes no compressed body", x->route->path);
    if (rc == XI_OK && xi_http_count(s, "content-encoding") > 1)
        rc = xi_fail(err, XI_EMEDIA, "more than one Content-Encoding");
    if (rc != XI_OK)
        xi_str_printf(&x->extra, "Accept-Encoding: %s\r\n", takes ? "gzip, deflate" : "identity");
    return rc;
}

/* Everything that is known of a request before its body. */
static enum xi_rc admit(struct xi_exchange *x, char allow[64], enum xi_coding *ret_coding,
                        struct xi_err *err)
{
    struct xi_http_server *server = x->server;
    struct xi_http_stream *s = &x->stream;
    int over_socket = x->conn->over_socket;
    enum xi_rc rc = xi_gate_origin(&server->gate, s, over_socket, err);

    if (rc == XI_OK)
        rc = xi_route_find(s->method, s->path, &x->route, x->param, x->version, allow, err);
    if (rc == XI_OK)
        rc = xi_route_query_check(x->route, s->query ? s->query : "", err);
    if (rc == XI_OK)
        rc = xi_gate_identify(&server->gate, s, x->conn->door, x->route->role, &x->who, err);
    if (rc == XI_OK)
        rc = check_type(x, err);
    if (rc == XI_OK)
        rc = check_coding(x, ret_coding, err);
    if (rc == XI_OK && s->content_length != XI_HTTP_NO_LENGTH &&
        s->content_length > x->route->body_limit)
        rc = xi_fail(err, XI_ETOOBIG, "body of %llu bytes, this route takes %llu",
                     (unsigned long long)s->content_length,
                     (unsigned long long)x->route->body_limit);
    return rc;
}

int xi_exchange_gone(const struct xi_exchange *x)
{
    return x->carrier == NULL;
}

void xi_exchange_resume(struct xi_exchange *x)
{
    if (x->carrier != NULL)
        x->carrier->resume(x);
}

/* 0: an answer that was written at once has ended the exchange, or will. */
static int begin_body(struct xi_exchange *x)
{
    x->held++;
    x->route->begin(x);
    x->held--;
    return xi_exchange_settle(x) == 0 && x->carrier != NULL && !x->answered;
}

void xi_exchange_head(struct xi_exchange *x)
{
    char allow[64] = "";
    enum xi_coding coding = XI_CODING_NONE;
    struct xi_err err = {0};

    if (xi_grpc_spoken(x))
        x->problem = xi_grpc_problem;
    if (admit(x, allow, &coding, &err) != XI_OK) {
        if (err.rc == XI_EMETHOD)
            xi_str_printf(&x->extra, "Allow: %s\r\n", allow);
        xi_answer_problem(x, &err);
        return;
    }
    x->stream.body_limit = x->route->body_limit;
    if (coding != XI_CODING_NONE && x->stream.content_length != 0 &&
        xi_unpack_begin(x, coding, &err) != XI_OK) {
        xi_answer_problem(x, &err);
        return;
    }
    if (x->route->begin != NULL && !begin_body(x))
        return;
    if (x->route->body == XI_TAKES_TEXT)
        xi_body_text(x);
    else if (x->route->body == XI_TAKES_SLOT && x->route->begin == NULL)
        xi_body_slot(x, 0);
}

void xi_exchange_end(struct xi_exchange *x)
{
    if (x->answered)
        return;
    x->pending = 1;
    if (x->unpack != NULL)
        xi_unpack_end(x);
    else
        x->route->run(x);
}
