#include "wire/http1.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* What came out of the codec. */
struct seen {
    struct xi_http_stream stream;
    struct xi_http1 http;
    int heads, ends, errors, fulls, pause_in_head;
    enum xi_rc rc;
    uint8_t body[4096];
    uint64_t limit, room;
    char method[16], path[256], query[64], host[64], header[256];
};

static void on_head(void *ctx, struct xi_http_stream *s)
{
    struct seen *seen = ctx;
    const char *header = xi_http_header(s, "x-test");

    seen->heads++;
    snprintf(seen->method, sizeof seen->method, "%s", s->method);
    snprintf(seen->path, sizeof seen->path, "%s", s->path);
    snprintf(seen->query, sizeof seen->query, "%s", s->query);
    snprintf(seen->host, sizeof seen->host, "%s", s->host ? s->host : "");
    snprintf(seen->header, sizeof seen->header, "%s", header ? header : "");
    s->body_limit = seen->limit;
    s->sink = seen->body;
    s->sink_room = seen->room;
    s->paused = seen->pause_in_head;
}

static void on_full(void *ctx, struct xi_http_stream *s)
{
    struct seen *seen = ctx;

    seen->fulls++;
    if (s->sink_room < sizeof seen->body)
        s->sink_room = sizeof seen->body;
}

static void on_end(void *ctx, struct xi_http_stream *s)
{
    (void)s;
    ((struct seen *)ctx)->ends++;
}

static void on_error(void *ctx, struct xi_http_stream *s, const struct xi_err *err)
{
    struct seen *seen = ctx;

    (void)s;
    seen->errors++;
    seen->rc = err->rc;
}

static const struct xi_http_events events = {on_head, on_full, on_end, on_error};

static void start(struct seen *seen)
{
    memset(seen, 0, sizeof *seen);
    seen->limit = seen->room = sizeof seen->body;
    xi_http1_init(&seen->http, &events, seen);
    xi_http1_next(&seen->http, &seen->stream);
}

static void again(struct seen *seen)
{
    seen->heads = seen->ends = seen->errors = seen->fulls = 0;
    seen->rc = XI_OK;
    xi_http_stream_reset(&seen->stream);
    xi_http1_next(&seen->http, &seen->stream);
}

static void stop(struct seen *seen)
{
    xi_http_stream_fini(&seen->stream);
}

/* Feeds text in two pieces cut at `at`; what is not taken of the first is given again. */
static void feed_cut(struct seen *seen, const char *text, size_t n, size_t at)
{
    size_t took = xi_http1_feed(&seen->http, text, at);

    if (seen->ends == 0 && seen->errors == 0)
        assert_int_equal(took, at);
    if (took == at)
        (void)xi_http1_feed(&seen->http, text + at, n - at);
}

static enum xi_rc parse(const char *text, size_t n)
{
    struct seen seen;
    enum xi_rc rc;

    start(&seen);
    (void)xi_http1_feed(&seen.http, text, n);
    rc = seen.rc;
    if (seen.errors == 0 && seen.ends == 0)
        rc = XI_EAGAIN; /* wants more */
    stop(&seen);
    return rc;
}

static enum xi_rc parse_text(const char *text)
{
    return parse(text, strlen(text));
}

static const char with_length[] = "POST /v1/infer/cat?a=1 HTTP/1.1\r\nHost: localhost:9470\r\n"
                                  "X-Test:  some value \r\nContent-Length: 11\r\n\r\nhello world";
static const char chunked[] = "POST /v1/infer/cat?a=1 HTTP/1.1\r\nHost: localhost:9470\r\n"
                              "X-TEST: some value\r\nTransfer-Encoding: chunked\r\n\r\n"
                              "5\r\nhello\r\n1;ext=1\r\n \r\n5\r\nworld\r\n0\r\nTrailer: x\r\n\r\n";

static void check_hello(const struct seen *seen)
{
    assert_int_equal(seen->errors, 0);
    assert_int_equal(seen->heads, 1);
    assert_int_equal(seen->ends, 1);
    assert_string_equal(seen->method, "POST");
    assert_string_equal(seen->path, "/v1/infer/cat");
    assert_string_equal(seen->query, "a=1");
    assert_string_equal(seen->host, "localhost:9470");
    assert_string_equal(seen->header, "some value");
    assert_int_equal(seen->stream.received, 11);
    assert_memory_equal(seen->body, "hello world", 11);
}

static void any_split_gives_the_same(void **state)
{
    const char *texts[] = {with_length, chunked};

    (void)state;
    for (int t = 0; t < 2; t++)
        for (size_t at = 0; at <= strlen(texts[t]); at++) {
            struct seen seen;
            start(&seen);
            feed_cut(&seen, texts[t], strlen(texts[t]), at);
            check_hello(&seen);
            stop(&seen);
        }
}

static void byte_by_byte_gives_the_same(void **state)
{
    const char *texts[] = {with_length, chunked};
    struct seen seen;

    (void)state;
    start(&seen);
    for (int round = 0; round < 4; round++) {
        const char *text = texts[round % 2];
        for (size_t i = 0; text[i]; i++)
            assert_int_equal(xi_http1_feed(&seen.http, text + i, 1), 1);
        check_hello(&seen);
        again(&seen);
    }
    stop(&seen);
}

static void the_window_is_the_sink(void **state)
{
    struct seen seen;
    uint8_t *at;
    size_t n, head = strstr(with_length, "hello") - with_length;

    (void)state;
    start(&seen);
    xi_http1_window(&seen.http, &at, &n);
    assert_int_equal(n, 0);
    assert_int_equal(xi_http1_feed(&seen.http, with_length, head + 2), head + 2);
    assert_int_equal(seen.stream.copied, 2);
    xi_http1_window(&seen.http, &at, &n);
    assert_ptr_equal(at, seen.body + 2);
    assert_int_equal(n, 9);
    memcpy(at, with_length + head + 2, n); /* what a socket would do */
    assert_int_equal(xi_http1_feed(&seen.http, at, n), n);
    assert_int_equal(seen.stream.copied, 2);
    check_hello(&seen);
    stop(&seen);
}

static void pauses_until_told(void **state)
{
    struct seen seen;
    size_t n = sizeof with_length - 1, head = strstr(with_length, "hello") - with_length;

    (void)state;
    start(&seen);
    seen.pause_in_head = 1;
    assert_int_equal(xi_http1_feed(&seen.http, with_length, n), head);
    assert_int_equal(xi_http1_feed(&seen.http, with_length + head, n - head), 0);
    seen.stream.paused = 0;
    assert_int_equal(xi_http1_feed(&seen.http, with_length + head, n - head), 11);
    check_hello(&seen);
    stop(&seen);
}

static void a_body_of_nothing_ends_without_bytes(void **state)
{
    static const char text[] = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n";
    struct seen seen;

    (void)state;
    start(&seen);
    assert_int_equal(xi_http1_feed(&seen.http, text, sizeof text - 1), sizeof text - 1);
    assert_int_equal(seen.ends, 1);
    again(&seen);
    seen.pause_in_head = 1;
    (void)xi_http1_feed(&seen.http, text, sizeof text - 1);
    assert_int_equal(seen.ends, 0);
    seen.stream.paused = 0;
    (void)xi_http1_feed(&seen.http, NULL, 0);
    assert_int_equal(seen.ends, 1);
    stop(&seen);
}

static void requests_come_one_at_a_time(void **state)
{
    static const char two[] =
        "GET /a HTTP/1.1\r\nHost: a\r\n\r\nGET /b HTTP/1.1\r\nHost: a\r\n\r\n";
    size_t half = (sizeof two - 1) / 2;
    struct seen seen;

    (void)state;
    start(&seen);
    assert_int_equal(xi_http1_feed(&seen.http, two, sizeof two - 1), half);
    assert_string_equal(seen.path, "/a");
    assert_int_equal(xi_http1_feed(&seen.http, two + half, half), 0);
    again(&seen);
    assert_int_equal(xi_http1_feed(&seen.http, two + half, half), half);
    assert_string_equal(seen.path, "/b");
    stop(&seen);
}

static void a_small_sink_asks_for_more(void **state)
{
    const char *texts[] = {with_length, chunked};

    (void)state;
    for (int t = 0; t < 2; t++) {
        struct seen seen;
        start(&seen);
        seen.room = 3;
        (void)xi_http1_feed(&seen.http, texts[t], strlen(texts[t]));
        assert_int_equal(seen.fulls, 1);
        check_hello(&seen);
        stop(&seen);
    }
}

#define HEAD "POST / HTTP/1.1\r\nHost: a\r\n"

/* Abuse 1 and 3: nothing here is a request. */
static void refuses_what_is_no_http(void **state)
{
    static const char *const bad[] = {
        HEAD "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        HEAD "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        HEAD "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        HEAD "Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
        HEAD "Content-Length: -5\r\n\r\nhello",
        HEAD "Content-Length: +5\r\n\r\nhello",
        HEAD "Content-Length: 0x5\r\n\r\nhello",
        HEAD "Content-Length: 5, 5\r\n\r\nhello",
        HEAD "Content-Length: 18446744073709551616\r\n\r\n",
        HEAD "Content-Length : 5\r\n\r\nhello",
        HEAD "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        HEAD "Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
        HEAD "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        HEAD "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        HEAD "Transfer-Encoding:\x0b"
             "chunked\r\n\r\n0\r\n\r\n",
        HEAD "Transfer-Encoding: chunked\r\n\r\n10000000000000000\r\n",
        HEAD "Transfer-Encoding: chunked\r\n\r\n-1\r\n",
        HEAD "Transfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n",
        HEAD "Transfer-Encoding: chunked\r\n\r\n5\r\nhello0\r\n\r\n",
        HEAD "Transfer-Encoding: chunked\r\n\r\n5 \r\nhello\r\n0\r\n\r\n",
        HEAD "A\nB: c\r\n\r\n",
        HEAD "A: b\nC: d\r\n\r\n",
        HEAD "A b: c\r\n\r\n",
        HEAD "A: b\r\n folded\r\n\r\n",
        HEAD ": empty\r\n\r\n",
        HEAD "A: b\rC: d\r\n\r\n",
        "POST / HTTP/1.1\nHost: a\n\n",
        "POST / HTTP/1.1\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "POST / HTTP/2.0\r\nHost: a\r\n\r\n",
        "POST / HTTP/0.9\r\nHost: a\r\n\r\n",
        "POST / HTTP/1.2\r\nHost: a\r\n\r\n",
        "POST /\r\n\r\n",
        "POST  HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST v1 HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST /#a HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST http:///a HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST http://user@h/a HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST ftp://h/a HTTP/1.1\r\nHost: a\r\n\r\n",
        "FROB / HTTP/1.1\r\nHost: a\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        HEAD "Expect: a-miracle\r\n\r\n",
        "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "\x16\x03\x01\x02\x00\x01\x00",
    };

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (parse_text(bad[i]) != XI_EHTTP)
            fail_msg("%zu: %s gives %s", i, bad[i], xi_rc_name(parse_text(bad[i])));
    static const char nul_in_name[] = HEAD "A\0B: c\r\n\r\n",
                      nul_in_value[] = HEAD "A: b\0\r\n\r\n";
    assert_int_equal(parse(nul_in_name, sizeof nul_in_name - 1), XI_EHTTP);
    assert_int_equal(parse(nul_in_value, sizeof nul_in_value - 1), XI_EHTTP);
}

static void absolute_form_names_the_host(void **state)
{
    struct seen seen;
    static const char text[] =
        "GET http://Evil.example:80/v1?q HTTP/1.1\r\nHost: localhost\r\n\r\n";

    (void)state;
    start(&seen);
    (void)xi_http1_feed(&seen.http, text, sizeof text - 1);
    assert_string_equal(seen.host, "Evil.example:80");
    assert_string_equal(seen.path, "/v1");
    assert_string_equal(seen.query, "q");
    stop(&seen);
}

/* A head of so many bytes and headers. */
static enum xi_rc parse_headers(unsigned n, size_t value_bytes)
{
    struct xi_str s;
    enum xi_rc rc;

    xi_str_init(&s, 64 * XI_MIB);
    xi_str_puts(&s, "GET / HTTP/1.1\r\nHost: a\r\n");
    for (unsigned i = 0; i < n; i++) {
        xi_str_printf(&s, "H%u: ", i);
        for (size_t k = 0; k < value_bytes; k++)
            xi_str_add(&s, "v", 1);
        xi_str_puts(&s, "\r\n");
    }
    xi_str_puts(&s, "\r\n");
    rc = parse(s.data, s.len);
    xi_str_fini(&s);
    return rc;
}

static void heads_have_limits(void **state)
{
    (void)state;
    assert_int_equal(parse_headers(99, 10), XI_OK);
    assert_int_equal(parse_headers(100, 10), XI_EHEADERS);
    assert_int_equal(parse_headers(10000, 10), XI_EHEADERS);
    assert_int_equal(parse_headers(1, 32000), XI_OK);
    assert_int_equal(parse_headers(1, 33000), XI_EHEADERS);
    assert_int_equal(parse_headers(1, XI_MIB), XI_EHEADERS);

    struct xi_str s;
    xi_str_init(&s, XI_MIB);
    xi_str_puts(&s, "GET /");
    for (int i = 0; i < 9000; i++)
        xi_str_add(&s, "a", 1);
    xi_str_puts(&s, " HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_int_equal(parse(s.data, s.len), XI_EHEADERS);
    xi_str_fini(&s);
}

static enum xi_rc parse_chunks(const char *chunk, unsigned n, const char *tail, uint64_t limit)
{
    static const char head[] = HEAD "Transfer-Encoding: chunked\r\n\r\n";
    struct seen seen;
    enum xi_rc rc;

    start(&seen);
    seen.limit = limit;
    (void)xi_http1_feed(&seen.http, head, sizeof head - 1);
    for (unsigned i = 0; i < n && seen.errors == 0; i++)
        (void)xi_http1_feed(&seen.http, chunk, strlen(chunk));
    if (seen.errors == 0)
        (void)xi_http1_feed(&seen.http, tail, strlen(tail));
    rc = seen.errors ? seen.rc : seen.ends ? XI_OK : XI_EAGAIN;
    stop(&seen);
    return rc;
}

static void chunks_have_limits(void **state)
{
    struct xi_str s;

    (void)state;
    assert_int_equal(parse_chunks("1\r\nx\r\n", 4000, "0\r\n\r\n", 4096), XI_OK);
    assert_int_equal(parse_chunks("1\r\nx\r\n", 4000, "0\r\n\r\n", 3999), XI_ETOOBIG);
    assert_int_equal(parse_chunks("ffffffffffffffff\r\n", 1, "", 4096), XI_ETOOBIG);
    assert_int_equal(parse_chunks("1;a=b\r\nx\r\n", 4000, "0\r\n\r\n", 4096), XI_EHTTP);
    assert_int_equal(parse_chunks("0000000000000000", 8000, "", 4096), XI_EHTTP);
    assert_int_equal(parse_chunks("0\r\n", 1, "A: b\r\n\r\n", 4096), XI_OK);
    xi_str_init(&s, XI_MIB);
    for (int i = 0; i < 100; i++)
        xi_str_printf(&s, "T%d: x\r\n", i);
    xi_str_puts(&s, "\r\n");
    assert_int_equal(parse_chunks("0\r\n", 1, s.data, 4096), XI_EHEADERS);
    xi_str_clear(&s);
    xi_str_puts(&s, "T: ");
    for (int i = 0; i < 10000; i++)
        xi_str_add(&s, "x", 1);
    xi_str_puts(&s, "\r\n\r\n");
    assert_int_equal(parse_chunks("0\r\n", 1, s.data, 4096), XI_EHEADERS);
    xi_str_fini(&s);
}

static void a_length_over_the_limit_is_refused_at_the_head(void **state)
{
    struct seen seen;

    (void)state;
    start(&seen);
    seen.limit = 10;
    (void)xi_http1_feed(&seen.http, with_length, sizeof with_length - 1);
    assert_int_equal(seen.rc, XI_ETOOBIG);
    assert_int_equal(seen.stream.received, 0);
    stop(&seen);
}

static void answers_are_framed(void **state)
{
    struct xi_str s;

    (void)state;
    xi_str_init(&s, 1024);
    xi_http1_answer(&s, 404, "application/problem+json", 12, 0);
    assert_string_equal(s.data,
                        "HTTP/1.1 404 Not Found\r\nContent-Type: application/problem+json\r\n"
                        "Content-Length: 12\r\nConnection: close\r\n");
    xi_str_fini(&s);
}

static void small_helpers(void **state)
{
    char out[16];

    (void)state;
    assert_true(xi_http_has_token("keep-alive, Upgrade", "upgrade"));
    assert_false(xi_http_has_token("keep-alive", "keep"));
    xi_http_media_type(" Image/JPEG ; q=1", out, sizeof out);
    assert_string_equal(out, "image/jpeg");
    xi_http_media_type("application/very-long-type", out, sizeof out);
    assert_string_equal(out, "");
    assert_int_equal(xi_http_percent_decode("a%2Fb", 5, out, sizeof out, NULL), XI_OK);
    assert_string_equal(out, "a/b");
    assert_int_equal(xi_http_percent_decode("a%2", 3, out, sizeof out, NULL), XI_EINVAL);
    assert_int_equal(xi_http_percent_decode("a%zz", 4, out, sizeof out, NULL), XI_EINVAL);
    assert_int_equal(xi_http_percent_decode("a%00", 4, out, sizeof out, NULL), XI_EINVAL);
    assert_int_equal(xi_http_percent_decode("aaaaaaaaaaaaaaaa", 16, out, sizeof out, NULL),
                     XI_EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_split_gives_the_same),
        cmocka_unit_test(byte_by_byte_gives_the_same),
        cmocka_unit_test(the_window_is_the_sink),
        cmocka_unit_test(pauses_until_told),
        cmocka_unit_test(a_body_of_nothing_ends_without_bytes),
        cmocka_unit_test(requests_come_one_at_a_time),
        cmocka_unit_test(a_small_sink_asks_for_more),
        cmocka_unit_test(refuses_what_is_no_http),
        cmocka_unit_test(absolute_form_names_the_host),
        cmocka_unit_test(heads_have_limits),
        cmocka_unit_test(chunks_have_limits),
        cmocka_unit_test(a_length_over_the_limit_is_refused_at_the_head),
        cmocka_unit_test(answers_are_framed),
        cmocka_unit_test(small_helpers),
    };

    return cmocka_run_group_tests_name("http1", tests, NULL, NULL);
}
