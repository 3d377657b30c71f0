#define _GNU_SOURCE
/* The whole door over real sockets, with a fake core behind it. Client and server share a loop. */
#include "daemon/api/http_server.h"
#include "daemon/loop/workers.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "daemon/api/fake_client.h"
#include "daemon/api/fake_core.h"
#include "daemon/api/routes.h"

static uv_loop_t loop;
static struct fake_core core;
static struct xi_http_server *server;
static char allowed[2][128] = {"box.example", "http://console.example"};
static char token_path[64], socket_path[64];

static void open_client(struct client *c)
{
    client_open(c, &loop, xi_http_server_port(server));
}

/* One request on its own connection; the status, and the whole answer in last. */
static char last[65536];

static int ask_bytes(const char *text, size_t n)
{
    struct client c;

    open_client(&c);
    send_bytes(&c, text, n);
    wait_answers(&c, 1, 5000);
    (void)snprintf(last, sizeof last, "%s", c.answer ? c.answer : "");
    close_client(&c);
    return strncmp(last, "HTTP/1.1 ", 9) == 0 ? (int)strtol(last + 9, NULL, 10) : 0;
}

static int ask(const char *text)
{
    return ask_bytes(text, strlen(text));
}

static void start_with(struct xi_http_config config)
{
    struct xi_err err = {0};

    (void)uv_loop_init(&loop);
    assert_int_equal(xi_workers_open(&loop, NULL), XI_OK);
    fake_core_init(&core, &loop);
    config.listen = "127.0.0.1:0";
    config.allowed_hosts = (const char(*)[128])allowed;
    config.n_allowed_hosts = 1;
    config.allowed_origins = (const char(*)[128])(allowed + 1);
    config.n_allowed_origins = 1;
    if (xi_http_server_open(&core.service, &config, &server, &err) != XI_OK)
        fail_msg("%s", err.msg);
}

static int start(void **state)
{
    (void)state;
    start_with((struct xi_http_config){0});
    return 0;
}

static int start_with_tokens(void **state)
{
    static const char *const roles[] = {"infer", "control", "admin"};
    struct xi_http_config config = {.token_file = token_path};
    struct xi_digest digest;
    char hex[65];

    (void)state;
    (void)snprintf(token_path, sizeof token_path, "/tmp/xi-tokens-%d", (int)getpid());
    FILE *f = fopen(token_path, "w");
    assert_non_null(f);
    for (int i = 0; i < 3; i++) {
        xi_sha256(roles[i], strlen(roles[i]), &digest); /* the token is its role's name */
        xi_digest_text(&digest, hex);
        (void)fprintf(f, "%s %s %s\n", hex, i == 2 ? "default" : "acme", roles[i]);
    }
    (void)fclose(f);
    if (chmod(token_path, 0600) != 0)
        return -1;
    start_with(config);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    xi_http_server_close(server);
    (void)uv_run(&loop, UV_RUN_DEFAULT);
    xi_workers_close(&loop);
    (void)uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&loop), 0);
    assert_int_equal(core.slots_out, 0);
    assert_int_equal(core.uploads_open, 0);
    assert_int_equal(core.sessions[0].refs, 1);
    assert_int_equal(core.sessions[1].refs, 1);
    if (token_path[0])
        (void)unlink(token_path);
    return 0;
}

#define HOST      "Host: localhost\r\n"
#define GET(path) "GET " path " HTTP/1.1\r\n" HOST "\r\n"

static void answers_and_keeps_the_connection(void **state)
{
    struct client c;
    static const char two[] = GET("/v1/health/live") GET("/v1/openapi.json");

    (void)state;
    open_client(&c);
    send_bytes(&c, two, sizeof two - 1);
    wait_answers(&c, 2, 5000);
    assert_non_null(strstr(c.answer, "{\"live\":true}"));
    assert_non_null(strstr(c.answer, "\"/v1/infer/{id}\""));
    assert_false(c.ended);
    close_client(&c);
}

static void a_tensor_goes_through(void **state)
{
    char text[512];
    float x[4] = {1, 2, 3, -4};

    (void)state;
    int n = snprintf(text, sizeof text,
                     "POST /v1/infer/double HTTP/1.1\r\n" HOST
                     "Content-Type: application/octet-stream\r\nXinfer-Dtype: FP32\r\n"
                     "Xinfer-Shape: 1,4\r\nContent-Length: 16\r\n\r\n");
    memcpy(text + n, x, sizeof x);
    assert_int_equal(ask_bytes(text, (size_t)n + sizeof x), 200);
    assert_non_null(strstr(last, "\"shape\":[1,4],\"data\":[2,4,6,-8]"));
    assert_non_null(strstr(last, "Server-Timing: queue;dur="));
}

#define JSON(body)                                                                                 \
    "POST /v1/infer/double HTTP/1.1\r\n" HOST "Content-Type: application/json\r\n"                 \
    "Transfer-Encoding: chunked\r\n\r\n",                                                          \
        body

static int ask_json(const char *head, const char *body)
{
    char text[4096];

    (void)snprintf(text, sizeof text, "%s%zx\r\n%s\r\n0\r\n\r\n", head, strlen(body), body);
    return ask(text);
}

static void json_tensors_go_through(void **state)
{
    (void)state;
    assert_int_equal(ask_json(JSON("{\"inputs\":[{\"name\":\"x\",\"datatype\":\"FP32\","
                                   "\"shape\":[1,4],\"data\":[1,2,3,4.5]}]}")),
                     200);
    assert_non_null(strstr(last, "\"data\":[2,4,6,9]"));
    assert_int_equal(ask_json(JSON("{\"inputs\":[{\"name\":\"x\",\"datatype\":\"FP32\","
                                   "\"shape\":[4],\"data\":[1,2,3,4]}]}")),
                     400);
    assert_non_null(strstr(last, "XI-0102"));
    assert_int_equal(ask_json(JSON("{\"inputs\":[{\"name\":\"q\",\"datatype\":\"FP32\","
                                   "\"shape\":[1,4],\"data\":[1,2,3,4]}]}")),
                     400);
    assert_int_equal(ask_json(JSON("{\"inputs\":[")), 400);
    assert_non_null(strstr(last, "XI-0103"));
}

/* Large enough to be read and written on the work pool. */
static void large_json_leaves_the_loop(void **state)
{
    enum { ROWS = 20000 };
    struct xi_str text;
    struct client c;
    char head[256];

    (void)state;
    xi_str_init(&text, XI_MIB);
    xi_str_printf(&text,
                  "{\"inputs\":[{\"name\":\"x\",\"datatype\":\"FP32\",\"shape\":[%d,4],"
                  "\"data\":[",
                  ROWS);
    for (int i = 0; i < ROWS; i++)
        xi_str_printf(&text, "%s%d,0,0,0.5", i ? "," : "", i);
    xi_str_puts(&text, "]}]}");
    assert_false(text.failed);
    int n = snprintf(head, sizeof head,
                     "POST /v1/infer/double HTTP/1.1\r\n" HOST
                     "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n",
                     text.len);
    open_client(&c);
    send_bytes(&c, head, (size_t)n);
    send_bytes_more(&c, text.data, text.len);
    wait_answers(&c, 1, 20000);
    assert_non_null(c.answer);
    assert_int_equal(strncmp(c.answer, "HTTP/1.1 200", 12), 0);
    assert_non_null(strstr(c.answer, "\"data\":[0,0,0,1,2,0,0,1,4,0,0,1,"));
    assert_non_null(strstr(c.answer, ",39998,0,0,1]}]"));
    close_client(&c);
    /* And a client that leaves while its JSON is read. */
    open_client(&c);
    send_bytes(&c, head, (size_t)n);
    send_bytes_more(&c, text.data, text.len);
    while (core.slots_out == 0)
        (void)uv_run(&loop, UV_RUN_ONCE);
    close_client(&c);
    for (int i = 0; i < 2000 && core.slots_out > 0; i++) {
        (void)uv_run(&loop, UV_RUN_NOWAIT);
        (void)usleep(1000);
    }
    assert_int_equal(core.slots_out, 0);
    xi_str_fini(&text);
}

static void many_requests_at_once_let_others_in_between(void **state)
{
    static const char one[] = "GET /v1/health/live HTTP/1.1\r\n" HOST "\r\n";
    enum { MANY = 2000 };
    struct xi_http_stats stats = {0};
    struct client greedy, other;
    struct xi_str text;

    (void)state;
    xi_str_init(&text, XI_MIB);
    for (int i = 0; i < MANY; i++)
        xi_str_puts(&text, one);
    open_client(&greedy);
    open_client(&other);
    send_bytes(&greedy, text.data, text.len);
    send_bytes(&other, one, sizeof one - 1);
    while (other.len == 0)
        (void)uv_run(&loop, UV_RUN_ONCE);
    xi_http_server_stats(server, &stats);
    assert_true(stats.requests < MANY / 2);
    while (stats.requests < MANY + 1) { /* and all have their turn */
        (void)uv_run(&loop, UV_RUN_ONCE);
        xi_http_server_stats(server, &stats);
    }
    close_client(&greedy);
    close_client(&other);
    xi_str_fini(&text);
}

/* Its slot grows as it comes; what is large moves on a worker. */
static void a_large_chunked_body_moves_to_larger_slots(void **state)
{
    enum { BYTES = 3000000 };
    char *text = malloc(BYTES + 256);
    struct client c;
    size_t n = (size_t)snprintf(
        text, 200, "POST /v1/echo HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n%x\r\n",
        (unsigned)BYTES);
    char *body = text + n;

    (void)state;
    for (size_t i = 0; i < BYTES; i++)
        body[i] = (char)('a' + i % 23);
    memcpy(body + BYTES, "\r\n0\r\n\r\n", 7);
    open_client(&c);
    send_bytes(&c, text, n + BYTES + 7);
    wait_answers(&c, 1, 20000);
    assert_non_null(c.answer);
    assert_int_equal(strncmp(c.answer, "HTTP/1.1 200", 12), 0);
    char *echo = strstr(c.answer, "\r\n\r\n") + 4;
    assert_int_equal(c.len - (size_t)(echo - c.answer), BYTES);
    assert_memory_equal(echo, body, BYTES);
    close_client(&c);
    /* And clients that leave at some point of it. */
    for (size_t sent = 300000; sent < BYTES; sent += 450000) {
        open_client(&c);
        send_bytes(&c, text, sent);
        for (int i = 0; i < 200 && core.slots_out == 0; i++)
            (void)uv_run(&loop, UV_RUN_ONCE);
        close_client(&c);
        for (int i = 0; i < 2000 && core.slots_out > 0; i++) {
            (void)uv_run(&loop, UV_RUN_NOWAIT);
            (void)usleep(500);
        }
        assert_int_equal(core.slots_out, 0);
    }
    free(text);
}

static void a_load_reports_as_events(void **state)
{
    struct client c;
    static const char text[] = "POST /v1/control/load HTTP/1.1\r\n" HOST
                               "Accept: text/event-stream\r\nContent-Type: application/json\r\n"
                               "Content-Length: 17\r\n\r\n{\"package\":\"cat\"}";
    static const char wrong[] = "POST /v1/control/load HTTP/1.1\r\n" HOST
                                "Accept: text/event-stream\r\nContent-Type: application/json\r\n"
                                "Content-Length: 17\r\n\r\n{\"package\":\"dog\"}";

    (void)state;
    open_client(&c);
    send_bytes(&c, text, sizeof text - 1);
    for (int i = 0; i < 5000 && (!c.answer || !strstr(c.answer, "\r\n0\r\n\r\n")); i++) {
        (void)uv_run(&loop, UV_RUN_NOWAIT);
        (void)usleep(200);
    }
    assert_non_null(strstr(c.answer, "Content-Type: text/event-stream\r\n"));
    assert_non_null(strstr(c.answer, "event: loaded\ndata: {\"id\":"));
    c.len = 0;
    send_bytes_more(&c, wrong, sizeof wrong - 1); /* the connection goes on */
    for (int i = 0; i < 5000 && (c.len == 0 || !strstr(c.answer, "\r\n0\r\n\r\n")); i++) {
        (void)uv_run(&loop, UV_RUN_NOWAIT);
        (void)usleep(200);
    }
    assert_non_null(strstr(c.answer, "event: problem\ndata: {\"type\":"));
    close_client(&c);
}

static void the_binary_layout_goes_both_ways(void **state)
{
    static const char json[] = "{\"inputs\":[{\"name\":\"x\",\"datatype\":\"FP32\",\"shape\":[1,4],"
                               "\"parameters\":{\"binary_data_size\":16}}]}";
    float x[4] = {1, 2, 3, 4}, y[4];
    struct client c;
    char text[1024];

    (void)state;
    int n =
        snprintf(text, sizeof text,
                 "POST /v1/infer/double HTTP/1.1\r\n" HOST
                 "Content-Type: application/octet-stream\r\nAccept: application/octet-stream\r\n"
                 "Inference-Header-Content-Length: %zu\r\nContent-Length: %zu\r\n\r\n%s",
                 sizeof json - 1, sizeof json - 1 + sizeof x, json);
    memcpy(text + n, x, sizeof x);
    open_client(&c);
    send_bytes(&c, text, (size_t)n + sizeof x);
    wait_answers(&c, 1, 5000);
    assert_non_null(strstr(c.answer, "Inference-Header-Content-Length: "));
    assert_non_null(strstr(c.answer, "\"binary_data_size\":16"));
    memcpy(y, c.answer + c.len - sizeof y, sizeof y);
    for (int i = 0; i < 4; i++)
        assert_true(y[i] == 2 * x[i]);
    close_client(&c);
}

#define PICTURE(accept)                                                                            \
    "POST /v1/infer/cat HTTP/1.1\r\n" HOST "Content-Type: image/jpeg\r\nAccept: " accept           \
    "\r\nContent-Length: 5\r\n\r\nhello"

static void pictures_go_through_the_flow(void **state)
{
    (void)state;
    assert_int_equal(ask(PICTURE("*/*")), 200);
    assert_non_null(strstr(last, "\"outputs\":{\"bytes\":5},\"timing\":{"));
    assert_int_equal(ask(PICTURE("image/jpeg")), 200);
    assert_non_null(strstr(last, "\r\n\r\nJPEG"));
    assert_int_equal(ask(PICTURE("multipart/mixed")), 200);
    assert_non_null(strstr(last, "\"bytes\":5"));
    assert_non_null(strstr(last, "Content-Type: image/jpeg\r\n\r\nJPEG"));
    assert_int_equal(ask(PICTURE("application/octet-stream")), 422);
    assert_int_equal(ask("POST /v1/infer/double HTTP/1.1\r\n" HOST
                         "Content-Type: image/jpeg\r\nContent-Length: 1\r\n\r\nx"),
                     415);
    assert_non_null(strstr(last, "\"hint\":"));
}

/* Abuse 10 and 12. */
static void no_other_spelling_reaches_a_route(void **state)
{
    static const char *const no_route[] = {
        "/v1/models/",  "//v1/models", "/v1//models",    "/v1/models/a/b", "/v1%2fmodels",
        "/v1/%6dodels", "/V1/models",  "/v1/models;x=1", "/v1/./models",   "/v1/x/../models",
        "/v1",          "/",           "/v1/infer",      "/v1/packages//", "/v1/control/load/",
    };
    static const char *const bad_name[] = {
        "/v1/models/..",     "/v1/models/%2e%2e", "/v1/models/a%2fb",
        "/v1/models/%00",    "/v1/models/%20%20", "/v1/models/%",
        "/v1/models/%c3%a9", "/v1/models/a%2",    "/v1/models/.a",
    };
    char text[1024];

    (void)state;
    for (size_t i = 0; i < sizeof no_route / sizeof *no_route; i++) {
        (void)snprintf(text, sizeof text, "GET %s HTTP/1.1\r\n" HOST "\r\n", no_route[i]);
        int status = ask(text);
        if (status != 404)
            fail_msg("%s: %d", no_route[i], status);
    }
    for (size_t i = 0; i < sizeof bad_name / sizeof *bad_name; i++) {
        (void)snprintf(text, sizeof text, "GET %s HTTP/1.1\r\n" HOST "\r\n", bad_name[i]);
        int status = ask(text);
        if (status != 400)
            fail_msg("%s: %d", bad_name[i], status);
    }
    (void)snprintf(text, sizeof text, "GET /v1/models/%0256d HTTP/1.1\r\n" HOST "\r\n", 1);
    assert_int_equal(ask(text), 400);
    assert_int_equal(ask(GET("/v1/models/CAT")), 404);
    assert_int_equal(ask(GET("/v1/models/ca%74")), 200);
}

static void the_wrong_method_names_the_right_one(void **state)
{
    (void)state;
    assert_int_equal(ask("PUT /v1/models HTTP/1.1\r\n" HOST "Content-Length: 0\r\n\r\n"), 405);
    assert_non_null(strstr(last, "\r\nAllow: GET, HEAD\r\n"));
    assert_int_equal(
        ask("GET /v1/control/load HTTP/1.1\r\n" HOST "X-HTTP-Method-Override: POST\r\n\r\n"), 405);
    assert_int_equal(ask("OPTIONS * HTTP/1.1\r\n" HOST "\r\n"), 404);
    assert_int_equal(ask("HEAD /v1/health/live HTTP/1.1\r\n" HOST "Connection: close\r\n\r\n"),
                     200);
    assert_non_null(strstr(last, "Content-Length: 13\r\n"));
    assert_null(strstr(last, "live"));
}

/* Abuse 11. */
static void foreign_hosts_and_origins_stay_out(void **state)
{
    static const struct {
        const char *lines;
        int status;
    } table[] = {
        {"Host: localhost\r\n", 200},
        {"Host: LOCALHOST:1\r\n", 200},
        {"Host: 127.0.0.1:9470\r\n", 200},
        {"Host: 127.9.9.9\r\n", 200},
        {"Host: [::1]:9470\r\n", 200},
        {"Host: box.example\r\n", 200},
        {"Host: evil.example\r\n", 403},
        {"Host: localhost.evil.example\r\n", 403},
        {"Host: 127.0.0.1.evil.example\r\n", 403},
        {"Host: 127.1\r\n", 403},
        {"Host: 0x7f.0.0.1\r\n", 403},
        {"Host: 127.0.0.999\r\n", 403},
        {"Host: 192.168.1.2\r\n", 403},
        {"Host: localhost:80:80\r\n", 403},
        {"Host: localhost@evil\r\n", 403},
        {"Host: [::1\r\n", 403},
        {"Host: \r\n", 403},
        {"Host: localhost\r\nOrigin: http://localhost\r\n", 200},
        {"Host: localhost\r\nOrigin: http://console.example\r\n", 200},
        {"Host: localhost\r\nOrigin: null\r\n", 403},
        {"Host: localhost\r\nOrigin: http://evil.example\r\n", 403},
        {"Host: localhost\r\nOrigin: http://localhost:81\r\n", 403},
        {"Host: localhost\r\nOrigin: \r\n", 403},
        {"Host: localhost\r\nOrigin: http://localhost\r\nOrigin: http://evil.example\r\n", 403},
        {"Host: localhost\r\nSec-Fetch-Site: cross-site\r\n", 403},
        {"Host: localhost\r\nSec-Fetch-Site: same-origin\r\n", 200},
    };
    char text[512];

    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        (void)snprintf(text, sizeof text, "GET /v1/health/live HTTP/1.1\r\n%s\r\n", table[i].lines);
        int status = ask(text);
        if (status != table[i].status)
            fail_msg("%s: %d", table[i].lines, status);
    }
    assert_int_equal(ask("GET http://evil.example/v1/health/live HTTP/1.1\r\n" HOST "\r\n"), 403);
}

static void control_takes_only_its_own_types(void **state)
{
    static const char *const types[] = {"text/plain", "application/x-www-form-urlencoded",
                                        "multipart/form-data", "application/jsonx", ""};
    char text[512];

    (void)state;
    for (int i = 0; i < 5; i++) {
        (void)snprintf(text, sizeof text,
                       "POST /v1/control/unload HTTP/1.1\r\n" HOST "Content-Type: %s\r\n"
                       "Content-Length: 14\r\n\r\n{\"name\":\"cat\"}",
                       types[i]);
        assert_int_equal(ask(text), 415);
    }
    assert_int_equal(ask("POST /v1/control/unload HTTP/1.1\r\n" HOST
                         "Content-Type: application/json; charset=utf-8\r\n"
                         "Content-Length: 14\r\n\r\n{\"name\":\"cat\"}"),
                     200);
    assert_int_equal(ask("POST /v1/control/unload HTTP/1.1\r\n" HOST
                         "Content-Type: application/json\r\nContent-Encoding: zstd\r\n"
                         "Content-Length: 14\r\n\r\n{\"name\":\"cat\"}"),
                     415);
    assert_int_equal(ask("POST /v1/control/load HTTP/1.1\r\n" HOST
                         "Content-Type: application/json\r\n"
                         "Content-Length: 28\r\n\r\n{\"package\":\"cat\",\"devise\":1}"),
                     400);
    assert_non_null(strstr(last, "did you mean \\\"device\\\"?"));
}

/* A request to a row of the table, with these header lines. */
static int ask_route(const struct xi_route *r, const char *lines)
{
    char path[128], text[512];
    const char *brace = strchr(r->path, '{');

    (void)snprintf(path, sizeof path, "%.*s%s%s", brace ? (int)(brace - r->path) : 100, r->path,
                   brace ? "cat" : "", brace ? strchr(brace, '}') + 1 : "");
    (void)snprintf(text, sizeof text,
                   "%s %s HTTP/1.1\r\n" HOST "Content-Type: text/plain\r\n%sContent-Length: 0\r\n"
                   "\r\n",
                   r->method, path, lines);
    return ask(text);
}

/* Abuse 12: every row, every role. */
static void every_route_wants_its_role(void **state)
{
    static const char *const tokens[] = {"", "Authorization: Bearer infer\r\n",
                                         "Authorization: Bearer control\r\n",
                                         "Authorization: Bearer admin\r\n"};

    (void)state;
    for (size_t i = 0; i < xi_routes_count(); i++) {
        const struct xi_route *r = xi_route_at(i);
        for (int role = XI_ROLE_PUBLIC; role <= XI_ROLE_ADMIN; role++) {
            int status = ask_route(r, tokens[role]);
            int refused = status == 401 || status == 403;
            if (refused != (role < (int)r->role) || (refused && (status == 401) != (role == 0)))
                fail_msg("%s %s as %s: %d", r->method, r->path, xi_role_name((enum xi_role)role),
                         status);
        }
        if (r->role == XI_ROLE_PUBLIC)
            continue;
        assert_int_equal(ask_route(r, "Authorization: Bearer wrong\r\n"), 401);
        assert_non_null(strstr(last, "WWW-Authenticate: Bearer"));
        assert_int_equal(ask_route(r, "Authorization: Basic aW5mZXI=\r\n"), 401);
        assert_int_equal(ask_route(r, "Authorization: Bearer \r\n"), 401);
        assert_int_equal(
            ask_route(r, "X-HTTP-Method-Override: GET\r\nX-Forwarded-For: 127.0.0.1\r\n"), 401);
    }
}

static void a_tenant_sees_only_its_own(void **state)
{
    static const char get[] = "GET /v1/models/cat HTTP/1.1\r\n" HOST;
    char text[512];

    (void)state;
#define AS(token, more)                                                                            \
    (snprintf(text, sizeof text, "%sAuthorization: Bearer %s\r\n%s\r\n", get, token, more),        \
     ask(text))
    assert_int_equal(AS("infer", ""), 404);
    assert_int_equal(AS("control", "Xinfer-Tenant: default\r\n"), 403);
    assert_int_equal(AS("control", "Xinfer-Tenant: acme\r\n"), 404);
    assert_int_equal(AS("admin", ""), 200);
    assert_int_equal(AS("admin", "Xinfer-Tenant: acme\r\n"), 404);
    assert_int_equal(AS("admin", "Xinfer-Tenant: ../x\r\n"), 400);
}

static void a_request_waits_for_memory_but_not_for_ever(void **state)
{
    struct client holder, waiter;
    static const char text[] = PICTURE("*/*");

    (void)state;
    core.slots_max = 1;
    core.delay_ms = 200;
    open_client(&holder);
    send_bytes(&holder, text, sizeof text - 1);
    while (core.slots_out == 0)
        (void)uv_run(&loop, UV_RUN_ONCE);
    open_client(&waiter);
    send_bytes(&waiter, text, sizeof text - 1);
    wait_answers(&waiter, 1, 5000); /* gets it when the first is answered */
    assert_int_equal(strncmp(waiter.answer, "HTTP/1.1 200", 12), 0);
    close_client(&waiter);
    core.delay_ms = 3000;
    send_bytes(&holder, text, sizeof text - 1);
    while (core.slots_out == 0)
        (void)uv_run(&loop, UV_RUN_ONCE);
    uint64_t begun = xi_now_ms();
    assert_int_equal(ask(text), 503);
    assert_in_range(xi_now_ms() - begun, 900, 2500);
    assert_non_null(strstr(last, "Retry-After: "));
    close_client(&holder);
    for (int i = 0; i < 100 && core.slots_out > 0; i++) {
        (void)uv_run(&loop, UV_RUN_NOWAIT);
        (void)usleep(2000);
    }
    assert_int_equal(core.cancelled, 1); /* the holder left while its request ran */
    assert_int_equal(core.slots_out, 0);
}

static void continue_comes_after_admission(void **state)
{
    struct client c;
    static const char head[] = "POST /v1/infer/cat HTTP/1.1\r\n" HOST "Content-Type: image/jpeg\r\n"
                               "Expect: 100-continue\r\nContent-Length: 5\r\n\r\n";

    (void)state;
    open_client(&c);
    send_bytes(&c, head, sizeof head - 1);
    for (int i = 0; i < 2000 && c.len < 25; i++) {
        (void)uv_run(&loop, UV_RUN_NOWAIT);
        (void)usleep(200);
    }
    assert_string_equal(c.answer, "HTTP/1.1 100 Continue\r\n\r\n");
    send_bytes(&c, "hello", 5);
    wait_answers(&c, 1, 5000);
    assert_non_null(strstr(c.answer, "HTTP/1.1 200 OK"));
    close_client(&c);
    assert_int_equal(ask("POST /v1/infer/nobody HTTP/1.1\r\n" HOST "Content-Type: image/jpeg\r\n"
                         "Expect: 100-continue\r\nContent-Length: 5\r\n\r\n"),
                     404);
}

static void slow_clients_are_cut(void **state)
{
    struct client head, body;
    static const char half[] = "POST /v1/infer/cat HTTP/1.1\r\n" HOST;
    static const char whole[] =
        "POST /v1/infer/cat HTTP/1.1\r\n" HOST "Content-Type: image/jpeg\r\n"
        "Content-Length: 1000000\r\n\r\nx";

    (void)state;
    xi_http_server_close(server);
    (void)uv_run(&loop, UV_RUN_DEFAULT);
    xi_workers_close(&loop);
    (void)uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&loop), 0);
    start_with((struct xi_http_config){.slow_head_ms = 300, .slow_window_ms = 300});
    open_client(&head);
    open_client(&body);
    send_bytes(&head, half, sizeof half - 1);
    send_bytes(&body, whole, sizeof whole - 1);
    wait_answers(&head, 1, 3000);
    wait_answers(&body, 1, 3000);
    assert_int_equal(strncmp(head.answer, "HTTP/1.1 408", 12), 0);
    assert_int_equal(strncmp(body.answer, "HTTP/1.1 408", 12), 0);
    assert_int_equal(core.slots_out, 0);
    close_client(&head);
    close_client(&body);
}

static void an_upload_is_written_in_turns(void **state)
{
    enum { BYTES = 3 * 1024 * 1024 + 17 };
    char *text = malloc(BYTES + 512);
    int n = snprintf(text, 512,
                     "POST /v1/control/packages HTTP/1.1\r\n" HOST
                     "Content-Type: application/vnd.xinfer.xpkg\r\nContent-Length: %d\r\n\r\n",
                     BYTES);

    (void)state;
    memset(text + n, 'p', BYTES);
    assert_int_equal(ask_bytes(text, (size_t)n + BYTES), 201);
    assert_non_null(strstr(last, "\"existed\":false"));
    assert_int_equal(core.upload_bytes, BYTES);
    /* Cut off in the middle: nothing is left open. */
    struct client c;
    open_client(&c);
    send_bytes(&c, text, (size_t)n + BYTES / 2);
    for (int i = 0; i < 200; i++)
        (void)uv_run(&loop, UV_RUN_NOWAIT);
    close_client(&c);
    for (int i = 0; i < 100 && core.uploads_open > 0; i++) {
        (void)uv_run(&loop, UV_RUN_NOWAIT);
        (void)usleep(1000);
    }
    assert_int_equal(core.uploads_open, 0);
    free(text);
}

static void the_body_is_not_copied(void **state)
{
    enum { BYTES = 24883200 };
    struct xi_http_stats stats;
    char head[256];
    struct client c;
    char *body = calloc(1, BYTES);
    int n = snprintf(head, sizeof head,
                     "POST /v1/echo HTTP/1.1\r\n" HOST "Content-Length: %d\r\n\r\n", BYTES);

    (void)state;
    open_client(&c);
    send_bytes(&c, head, (size_t)n);
    for (int i = 0; i < 50; i++) {
        (void)uv_run(&loop, UV_RUN_NOWAIT);
        (void)usleep(200);
    }
    send_bytes(&c, body, BYTES);
    while (c.len < BYTES && !c.ended)
        (void)uv_run(&loop, UV_RUN_ONCE);
    (void)uv_run(&loop, UV_RUN_NOWAIT);
    close_client(&c);
    (void)uv_run(&loop, UV_RUN_NOWAIT);
    xi_http_server_stats(server, &stats);
    assert_int_equal(stats.body_bytes, BYTES);
    assert_int_equal(stats.copied_bytes, 0);
    free(body);
}

static void readiness_says_why_not(void **state)
{
    (void)state;
    assert_int_equal(ask(GET("/v1/health/ready")), 200);
    core.ready = 0;
    assert_int_equal(ask(GET("/v1/health/ready")), 503);
    assert_non_null(strstr(last, "quarantined"));
}

static void metrics_are_escaped(void **state)
{
    (void)state;
    (void)snprintf(core.sessions[0].version, sizeof core.sessions[0].version, "1\"\\\nx");
    assert_int_equal(ask(GET("/metrics")), 200);
    assert_non_null(strstr(last, "version=\"1\\\"\\\\\\nx\""));
    assert_non_null(strstr(last, "xinfer_loop_lag_seconds_bucket{le=\"+Inf\"}"));
}

static void a_port_in_use_is_said_in_words(void **state)
{
    struct xi_http_server *second = NULL;
    struct xi_http_config config = {0};
    struct xi_err err = {0};
    char address[32];

    (void)state;
    (void)snprintf(address, sizeof address, "127.0.0.1:%u", xi_http_server_port(server));
    config.listen = address;
    assert_int_equal(xi_http_server_open(&core.service, &config, &second, &err), XI_EPORT);
    assert_non_null(strstr(err.msg, "in use"));
    config.listen = "nonsense";
    assert_int_equal(xi_http_server_open(&core.service, &config, &second, &err), XI_ECONFIG);
    config.listen = "";
    (void)snprintf(socket_path, sizeof socket_path, "/tmp/xi-http-test-%d.sock", (int)getpid());
    config.socket = socket_path;
    assert_int_equal(xi_http_server_open(&core.service, &config, &second, &err), XI_OK);
    struct xi_http_server *third = NULL;
    assert_int_equal(xi_http_server_open(&core.service, &config, &third, &err), XI_EPORT);
    xi_http_server_close(second);
}

static void set_flag(void *ctx)
{
    *(int *)ctx = 1;
}

static void drain_ends_when_the_last_answer_is_out(void **state)
{
    struct client c;
    int drained = 0;
    static const char text[] = PICTURE("*/*");

    (void)state;
    core.delay_ms = 100;
    open_client(&c);
    send_bytes(&c, text, sizeof text - 1);
    while (core.slots_out == 0)
        (void)uv_run(&loop, UV_RUN_ONCE);
    xi_http_server_drain(server, set_flag, &drained);
    assert_int_equal(drained, 0);
    while (!drained)
        (void)uv_run(&loop, UV_RUN_ONCE);
    wait_answers(&c, 1, 1000);
    assert_int_equal(strncmp(c.answer, "HTTP/1.1 200", 12), 0);
    close_client(&c);
}

int main(void)
{
#define TEST(name)       cmocka_unit_test_setup_teardown(name, start, stop)
#define TOKEN_TEST(name) cmocka_unit_test_setup_teardown(name, start_with_tokens, stop)
    const struct CMUnitTest tests[] = {
        TEST(answers_and_keeps_the_connection),
        TEST(a_tensor_goes_through),
        TEST(json_tensors_go_through),
        TEST(large_json_leaves_the_loop),
        TEST(many_requests_at_once_let_others_in_between),
        TEST(a_large_chunked_body_moves_to_larger_slots),
        TEST(a_load_reports_as_events),
        TEST(the_binary_layout_goes_both_ways),
        TEST(pictures_go_through_the_flow),
        TEST(no_other_spelling_reaches_a_route),
        TEST(the_wrong_method_names_the_right_one),
        TEST(foreign_hosts_and_origins_stay_out),
        TEST(control_takes_only_its_own_types),
        TOKEN_TEST(every_route_wants_its_role),
        TOKEN_TEST(a_tenant_sees_only_its_own),
        TEST(a_request_waits_for_memory_but_not_for_ever),
        TEST(continue_comes_after_admission),
        TEST(slow_clients_are_cut),
        TEST(an_upload_is_written_in_turns),
        TEST(the_body_is_not_copied),
        TEST(readiness_says_why_not),
        TEST(metrics_are_escaped),
        TEST(a_port_in_use_is_said_in_words),
        TEST(drain_ends_when_the_last_answer_is_out),
    };

    return cmocka_run_group_tests_name("http_server", tests, NULL, NULL);
}
