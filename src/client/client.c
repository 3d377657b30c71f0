#include "client/client.h"

#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "base/json.h"
#include "base/limits.h"

struct xi_client {
    CURL *curl;
    char server[512];
    char base_url[256];
    char token[256];
    const volatile sig_atomic_t *cancel;
};

/* A call under way, for libcurl's callbacks. */
struct transfer {
    const struct xi_client *client;
    const struct xi_call *call;
    struct xi_answer *answer;
    size_t events_seen; /* bytes of the answer whose events were told */
};

static enum xi_rc parse_server(struct xi_client *c, const char *server, struct xi_err *err)
{
    (void)snprintf(c->server, sizeof c->server, "%s", server);
    if (strncmp(server, "unix:/", 6) == 0) {
        (void)snprintf(c->base_url, sizeof c->base_url, "http://localhost");
        (void)curl_easy_setopt(c->curl, CURLOPT_UNIX_SOCKET_PATH, server + 5);
        return XI_OK;
    }
    if (strncmp(server, "http://", 7) != 0 || strlen(server) >= sizeof c->base_url) {
        (void)xi_fail(err, XI_EUSAGE, "\"%.80s\" is not a server", server);
        return xi_hint(err, "write http://host:port or unix:/path/to/xinferd.sock");
    }
    (void)snprintf(c->base_url, sizeof c->base_url, "%s", server);
    size_t n = strlen(c->base_url);
    if (c->base_url[n - 1] == '/')
        c->base_url[n - 1] = '\0';
    return XI_OK;
}

enum xi_rc xi_client_open(const char *server, const char *token, struct xi_client **ret,
                          struct xi_err *err)
{
    struct xi_client *c = calloc(1, sizeof *c);
    enum xi_rc rc;

    if (c == NULL || (c->curl = curl_easy_init()) == NULL) {
        xi_client_close(c);
        return xi_fail(err, XI_ENOMEM, "HTTP client: out of memory");
    }
    if (token != NULL)
        (void)snprintf(c->token, sizeof c->token, "Authorization: Bearer %s", token);
    rc = parse_server(c, server, err);
    if (rc != XI_OK) {
        xi_client_close(c);
        return rc;
    }
    *ret = c;
    return XI_OK;
}

void xi_client_close(struct xi_client *c)
{
    if (c == NULL)
        return;
    curl_easy_cleanup(c->curl);
    free(c);
}

void xi_client_cancel_on(struct xi_client *c, const volatile sig_atomic_t *flag)
{
    c->cancel = flag;
}

enum xi_rc xi_client_path(const char *prefix, const char *name, char *ret, size_t bytes,
                          struct xi_err *err)
{
    size_t n = strlen(name);
    char *escaped = n > 0 && n < bytes ? curl_easy_escape(NULL, name, (int)n) : NULL;
    int fits = escaped != NULL && snprintf(ret, bytes, "%s%s", prefix, escaped) < (int)bytes;

    curl_free(escaped);
    return fits ? XI_OK : xi_fail(err, XI_EUSAGE, "\"%.40s\" is not a name", name);
}

void xi_client_user_socket(char *ret, size_t bytes)
{
    const char *run = getenv("XDG_RUNTIME_DIR"), *data = getenv("XDG_DATA_HOME");
    const char *home = getenv("HOME");

    if (run != NULL && *run)
        (void)snprintf(ret, bytes, "%s/xinfer/xinferd.sock", run);
    else if (data != NULL && *data)
        (void)snprintf(ret, bytes, "%s/xinfer/xinferd.sock", data);
    else
        (void)snprintf(ret, bytes, "%s/.local/share/xinfer/xinferd.sock", home ? home : "");
}

/* One block of an event stream: "event: NAME", "data: TEXT", in that order as our server sends
 * them. The block is ours to cut up. */
static void tell_event(const struct xi_call *call, char *block)
{
    char *data = strstr(block, "\ndata: ");

    if (strncmp(block, "event: ", 7) != 0 || data == NULL)
        return;
    *data = '\0';
    call->event(call->event_ctx, block + 7, data + 7);
}

static void tell_events(struct transfer *t)
{
    struct xi_str *body = &t->answer->body;
    char *start, *end;

    while (!body->failed && t->events_seen < body->len) {
        start = (char *)body->data + t->events_seen;
        end = strstr(start, "\n\n");
        if (end == NULL)
            return;
        *end = '\0';
        t->events_seen += (size_t)(end - start) + 2;
        tell_event(t->call, start);
    }
}

static size_t on_body(char *data, size_t size, size_t n, void *ctx)
{
    struct transfer *t = ctx;
    struct xi_answer *a = t->answer;

    xi_str_add(&a->body, data, size * n);
    if (t->call->event != NULL && strncmp(a->content_type, "text/event-stream", 17) == 0)
        tell_events(t);
    return a->body.failed ? 0 : size * n;
}

static size_t on_header(char *line, size_t size, size_t n, void *ctx)
{
    struct xi_answer *a = ((struct transfer *)ctx)->answer;
    char text[256];
    size_t bytes = size * n, keep = bytes < sizeof text - 1 ? bytes : sizeof text - 1;

    memcpy(text, line, keep);
    text[keep] = '\0';
    text[strcspn(text, "\r\n")] = '\0';
    if (strncasecmp(text, "content-type: ", 14) == 0)
        (void)snprintf(a->content_type, sizeof a->content_type, "%s", text + 14);
    else if (strncasecmp(text, "inference-header-content-length: ", 33) == 0)
        a->header_bytes_inference = strtoull(text + 33, NULL, 10);
    return bytes;
}

static size_t read_fd(char *dst, size_t size, size_t n, void *ctx)
{
    const struct xi_call *call = ((struct transfer *)ctx)->call;
    ssize_t got = read(call->body_fd, dst, size * n);

    return got < 0 ? CURL_READFUNC_ABORT : (size_t)got;
}

static int on_progress(void *ctx, curl_off_t dl_total, curl_off_t dl, curl_off_t ul_total,
                       curl_off_t ul)
{
    const struct transfer *t = ctx;

    (void)dl_total;
    (void)dl;
    (void)ul_total;
    if (t->call->progress != NULL)
        t->call->progress(t->call->progress_ctx, (uint64_t)ul, t->call->body_bytes);
    return t->client->cancel != NULL && *t->client->cancel != 0;
}

enum xi_rc xi_client_problem(const char *json, size_t bytes, long status, struct xi_err *err)
{
    json_t *doc = NULL;
    const char *detail = NULL, *hint = NULL, *code = NULL;
    enum xi_rc rc = XI_EPROTO;

    if (xi_json_parse(json, bytes, XI_MIB, &doc, NULL) == XI_OK &&
        xi_json_string(doc, "", "detail", 0, &detail, NULL) == XI_OK &&
        xi_json_string(doc, "", "hint", 0, &hint, NULL) == XI_OK &&
        xi_json_string(doc, "", "code", 0, &code, NULL) == XI_OK && code != NULL &&
        strncmp(code, "XI-", 3) == 0) {
        int number = -(int)strtol(code + 3, NULL, 10);
        rc = number != XI_OK && xi_rc_known(number) ? (enum xi_rc)number : XI_EPROTO;
    }
    if (detail != NULL && code != NULL)
        (void)xi_fail(err, rc, "%s", detail);
    else
        (void)xi_fail(err, rc, "status %ld without a reason: is that xinferd?", status);
    if (hint != NULL)
        (void)xi_hint(err, "%s", hint);
    json_decref(doc);
    return rc;
}

static enum xi_rc server_error(const struct xi_answer *a, struct xi_err *err)
{
    return xi_client_problem(xi_str_text(&a->body), a->body.len, a->status, err);
}

static enum xi_rc transport_error(const struct xi_client *c, CURLcode code,
                                  const struct xi_answer *a, struct xi_err *err)
{
    if (code == CURLE_ABORTED_BY_CALLBACK)
        return xi_fail(err, XI_ECANCELLED, "stopped before %s had answered", c->server);
    if (code == CURLE_OPERATION_TIMEDOUT)
        return xi_fail(err, XI_ETIMEOUT, "%s did not answer in time", c->server);
    if (a->body.failed)
        return xi_str_check(&a->body, err, "answer");
    if (a->status >= 400) /* it answered before our whole body was sent */
        return server_error(a, err);
    (void)xi_fail(err, XI_EUNREACH, "no daemon answers at %s (%s)", c->server,
                  curl_easy_strerror(code));
    return xi_hint(err, "start one with: xinfer serve   or name another: --server URL");
}

static struct curl_slist *make_headers(const struct xi_client *c, const struct xi_call *call)
{
    struct curl_slist *list = curl_slist_append(NULL, "Expect:");

    for (const char *const *h = call->headers; h != NULL && *h != NULL; h++)
        list = curl_slist_append(list, *h);
    if (c->token[0] != '\0')
        list = curl_slist_append(list, c->token);
    return list;
}

static void set_body(CURL *curl, struct transfer *t)
{
    const struct xi_call *call = t->call;
    int has_fd = call->body_fd >= 0 && call->body == NULL;

    (void)curl_easy_setopt(curl, CURLOPT_HTTPGET, 1L); /* forgets the last call's body */
    (void)curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, call->method);
    if (strcmp(call->method, "POST") != 0)
        return;
    (void)curl_easy_setopt(curl, CURLOPT_POST, 1L);
    (void)curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)call->body_bytes);
    (void)curl_easy_setopt(curl, CURLOPT_POSTFIELDS, has_fd ? NULL : call->body ? call->body : "");
    (void)curl_easy_setopt(curl, CURLOPT_READFUNCTION, read_fd);
    (void)curl_easy_setopt(curl, CURLOPT_READDATA, t);
}

static void set_transfer(CURL *curl, struct transfer *t)
{
    (void)curl_easy_setopt(curl, CURLOPT_PATH_AS_IS, 1L); /* a name may look like "../x" */
    (void)curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    (void)curl_easy_setopt(curl, CURLOPT_NOPROXY, "*");
    (void)curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT_MS, 10000L);
    (void)curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, t->call->timeout_ms);
    (void)curl_easy_setopt(curl, CURLOPT_UPLOAD_BUFFERSIZE, 512L * 1024L);
    (void)curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_body);
    (void)curl_easy_setopt(curl, CURLOPT_WRITEDATA, t);
    (void)curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, on_header);
    (void)curl_easy_setopt(curl, CURLOPT_HEADERDATA, t);
    (void)curl_easy_setopt(curl, CURLOPT_NOPROGRESS, 0L);
    (void)curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, on_progress);
    (void)curl_easy_setopt(curl, CURLOPT_XFERINFODATA, t);
    set_body(curl, t);
}

enum xi_rc xi_client_call(struct xi_client *c, const struct xi_call *call, struct xi_answer *ret,
                          struct xi_err *err)
{
    char url[1024];
    struct curl_slist *headers = make_headers(c, call);
    struct transfer t = {.client = c, .call = call, .answer = ret};

    (void)snprintf(url, sizeof url, "%s%s", c->base_url, call->path);
    xi_str_clear(&ret->body);
    ret->status = 0;
    ret->content_type[0] = '\0';
    ret->header_bytes_inference = 0;
    (void)curl_easy_setopt(c->curl, CURLOPT_URL, url);
    (void)curl_easy_setopt(c->curl, CURLOPT_HTTPHEADER, headers);
    set_transfer(c->curl, &t);
    CURLcode code = curl_easy_perform(c->curl);
    (void)curl_easy_getinfo(c->curl, CURLINFO_RESPONSE_CODE, &ret->status);
    curl_slist_free_all(headers);
    if (code != CURLE_OK)
        return transport_error(c, code, ret, err);
    return ret->status >= 400 ? server_error(ret, err) : XI_OK;
}

enum xi_rc xi_client_json(struct xi_client *c, const char *method, const char *path,
                          const json_t *body, json_t **ret, struct xi_err *err)
{
    static const char *const headers[] = {"Content-Type: application/json", NULL};
    struct xi_answer answer = {0};
    char *text = body ? json_dumps(body, JSON_COMPACT) : NULL;
    struct xi_call call = {.method = method,
                           .path = path,
                           .headers = headers,
                           .body = text,
                           .body_fd = -1,
                           .body_bytes = text ? strlen(text) : 0};
    enum xi_rc rc;

    xi_str_init(&answer.body, 64 * XI_MIB);
    rc = xi_client_call(c, &call, &answer, err);
    if (rc == XI_OK && ret != NULL)
        rc = xi_json_parse(xi_str_text(&answer.body), answer.body.len, 64 * XI_MIB, ret, err);
    xi_str_fini(&answer.body);
    free(text);
    return rc;
}

int xi_client_alive(const char *server, long timeout_ms)
{
    struct xi_client *c = NULL;
    struct xi_answer answer = {0};
    struct xi_call call = {
        .method = "GET", .path = "/v1/health/live", .body_fd = -1, .timeout_ms = timeout_ms};

    if (xi_client_open(server, NULL, &c, NULL) != XI_OK)
        return 0;
    xi_str_init(&answer.body, XI_MIB);
    int alive = xi_client_call(c, &call, &answer, NULL) == XI_OK;
    xi_str_fini(&answer.body);
    xi_client_close(c);
    return alive;
}
