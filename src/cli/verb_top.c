/* verb_top.c: top: what the daemon does, live: devices, sessions with their queues, batches and
 * latencies, tenants. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "cli/cli.h"
#include "cli/screen.h"

enum { SESSIONS_MAX = 1024, BUCKETS_MAX = 256, SPARK = 14 };

static long opt_count, opt_interval;
static const char *opt_sort;

static const struct xi_option options[] = {
    {"interval", 0, XI_OPTION_NUMBER, &opt_interval, "MS", "between two pictures (1000)"},
    {"count", 'n', XI_OPTION_NUMBER, &opt_count, "N", "end after so many (on a pipe: 1)"},
    {"sort", 's', XI_OPTION_TEXT, &opt_sort, "BY", "fps, p99, memory, queue or name (fps)"},
    {0},
};

/* What sessions may be ordered by, and the key that asks for it. */
static const struct {
    const char *name, *field, *part;
    char key;
} orders[] = {
    {"fps", "fps", NULL, 'f'},       {"p99", "latency_us", "p99", 'l'},
    {"memory", "memory", NULL, 'm'}, {"queue", "queued", NULL, 'u'},
    {"name", NULL, NULL, 'n'},
};
enum { ORDERS = sizeof orders / sizeof *orders };

struct top {
    struct xi_screen screen;
    int order, paused;
    uint64_t shown_ms;
};

/* ---- values: what is null or missing is unknown ---- */

static const char *text_of(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));

    return s ? s : "-";
}

static double value(const json_t *o, const char *key)
{
    const json_t *v = json_object_get(o, key);

    return json_is_number(v) ? json_number_value(v) : NAN;
}

static const char *shown(char buf[24], double v, const char *fmt)
{
    if (isnan(v))
        return "-";
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    (void)snprintf(buf, 24, fmt, v); /* one of the literals below */
#pragma GCC diagnostic pop
    return buf;
}

static const char *bytes_shown(char buf[24], double v)
{
    return isnan(v) ? "-" : xi_bytes_text(buf, v);
}

static const char *us_shown(char buf[24], double us)
{
    if (us >= 1e6)
        return shown(buf, us / 1e6, "%.1f s");
    return us >= 1000 ? shown(buf, us / 1000, us >= 1e5 ? "%.0f ms" : "%.1f ms")
                      : shown(buf, us, "%.0f us");
}

static void used_of(char out[48], double used, double total)
{
    char a[24], b[24];

    if (isnan(used) && isnan(total))
        (void)snprintf(out, 48, "-");
    else
        (void)snprintf(out, 48, "%s of %s", bytes_shown(a, used), bytes_shown(b, total));
}

/* ---- parts of the page ---- */

static void add_cell(struct xi_str *line, int width, const char *text)
{
    xi_screen_cell(line, text, width);
    xi_str_puts(line, " ");
}

static void add_share(const struct xi_screen *s, struct xi_str *line, double share)
{
    char buf[24];

    xi_screen_bar(s, line, share, 12);
    xi_str_printf(line, " %5s ", shown(buf, share * 100, "%.0f %%"));
}

static void show_head(struct top *t, const json_t *doc)
{
    char fps[24], cores[24], cpu[24], temp[24], gpu[24], ram[48];
    const json_t *memory = json_object_get(doc, "memory"), *pool = json_object_get(doc, "pool");
    double up = value(doc, "uptime_s"), total = value(memory, "total");
    long seconds = isnan(up) ? 0 : (long)up;

    used_of(ram, total - value(memory, "available"), total);
    xi_screen_title(&t->screen, " xinfer top   %s   up %ld:%02ld:%02ld   %s%s ",
                    text_of(doc, "node"), seconds / 3600, seconds / 60 % 60, seconds % 60,
                    t->paused ? "paused" : "by ", t->paused ? "" : orders[t->order].name);
    xi_screen_line(
        &t->screen, " %s inferences/s   running %s   queued %s   cpu %s, %s   memory %s   gpu %s",
        shown(fps, value(doc, "fps"), "%.1f"), shown(cores, value(pool, "running"), "%.0f"),
        shown(cpu, value(pool, "queued"), "%.0f"),
        shown(temp, value(doc, "cpu_load") * 100, "%.0f %%"),
        shown(gpu, value(doc, "cpu_temp"), "%.0f C"), ram,
        shown((char[24]){0}, value(doc, "gpu_temp"), "%.0f C"));
}

static void show_device(struct top *t, const json_t *d)
{
    char a[24], memory[48], reserved[48];
    struct xi_str line;

    xi_str_init(&line, 4096);
    xi_str_puts(&line, " ");
    add_cell(&line, 10, text_of(d, "id"));
    add_cell(&line, 5, text_of(d, "kind"));
    add_share(&t->screen, &line, value(d, "load"));
    add_cell(&line, 6, shown(a, value(d, "temp"), "%.0f C"));
    add_cell(&line, 7, shown(a, value(d, "power_w"), "%.1f W"));
    add_cell(&line, 9, shown(a, value(d, "clock_mhz"), "%.0f MHz"));
    used_of(memory, value(d, "memory_used"), value(d, "memory_total"));
    add_cell(&line, 22, memory);
    if (isnan(value(d, "memory_limit")))
        (void)snprintf(reserved, sizeof reserved, "%s", bytes_shown(a, value(d, "reserved")));
    else
        used_of(reserved, value(d, "reserved"), value(d, "memory_limit"));
    add_cell(&line, 22, reserved);
    xi_str_puts(&line, text_of(d, "name"));
    xi_screen_line(&t->screen, "%s", xi_str_text(&line));
    xi_str_fini(&line);
}

static void show_devices(struct top *t, const json_t *devices)
{
    size_t i;
    json_t *d;

    xi_screen_line(&t->screen, "%s", "");
    xi_screen_title(&t->screen, " %-10s %-5s %-18s %-6s %-7s %-9s %-22s %-22s %s", "DEVICE", "KIND",
                    "LOAD", "TEMP", "POWER", "CLOCK", "MEMORY", "RESERVED", "NAME");
    json_array_foreach((json_t *)(uintptr_t)devices, i, d) show_device(t, d);
}

/* The latency histogram, narrowed to where something is. */
static void add_latencies(const struct xi_screen *s, struct xi_str *line, const json_t *histogram)
{
    double counts[BUCKETS_MAX] = {0};
    size_t n = json_array_size(histogram), first = n, last = 0;

    n = n > BUCKETS_MAX ? BUCKETS_MAX : n;
    for (size_t i = 0; i < n; i++) {
        counts[i] = json_number_value(json_array_get(json_array_get(histogram, i), 1));
        if (counts[i] > 0) {
            first = i < first ? i : first;
            last = i;
        }
    }
    if (first >= n)
        xi_screen_cell(line, "", SPARK);
    else
        xi_screen_spark(s, line, counts + first, (int)(last - first + 1), SPARK);
    xi_str_puts(line, " ");
}

static void show_session(struct top *t, const json_t *s)
{
    char a[24];
    struct xi_str line;
    const json_t *latency = json_object_get(s, "latency_us");

    xi_str_init(&line, 4096);
    xi_str_puts(&line, " ");
    add_cell(&line, 20, text_of(s, "name"));
    add_cell(&line, 10, text_of(s, "tenant"));
    add_cell(&line, 8, text_of(s, "state"));
    add_cell(&line, 8, text_of(s, "device"));
    add_cell(&line, 8, shown(a, value(s, "fps"), "%.1f"));
    add_cell(&line, 3, shown(a, value(s, "running"), "%.0f"));
    add_cell(&line, 5, shown(a, value(s, "queued"), "%.0f"));
    add_cell(&line, 5, shown(a, value(s, "batch_mean"), "%.1f"));
    add_cell(&line, 8, us_shown(a, value(latency, "p50")));
    add_cell(&line, 8, us_shown(a, value(latency, "p99")));
    add_latencies(&t->screen, &line, json_object_get(s, "histogram"));
    add_cell(&line, 9, bytes_shown(a, value(s, "memory")));
    add_cell(&line, 7, shown(a, value(s, "errors"), "%.0f"));
    xi_screen_line(&t->screen, "%s", xi_str_text(&line));
    xi_str_fini(&line);
}

static double order_value(const struct top *t, const json_t *s)
{
    const json_t *at = orders[t->order].part ? json_object_get(s, orders[t->order].field) : s;
    double v = value(at, orders[t->order].part ? orders[t->order].part : orders[t->order].field);

    return isnan(v) ? -1 : v;
}

static int comes_before(const struct top *t, const json_t *a, const json_t *b)
{
    if (orders[t->order].field != NULL && order_value(t, a) > order_value(t, b))
        return 1;
    if (orders[t->order].field != NULL && order_value(t, a) < order_value(t, b))
        return 0;
    return strcmp(text_of(a, "name"), text_of(b, "name")) < 0;
}

static void show_sessions(struct top *t, const json_t *sessions)
{
    const json_t *sorted[SESSIONS_MAX];
    size_t n = 0, i;
    json_t *s;

    xi_screen_line(&t->screen, "%s", "");
    xi_screen_title(&t->screen, " %-20s %-10s %-8s %-8s %-8s %-3s %-5s %-5s %-8s %-8s %-*s %-9s %s",
                    "SESSION", "TENANT", "STATE", "DEVICE", "FPS", "RUN", "QUEUE", "BATCH", "P50",
                    "P99", SPARK, "LATENCIES", "MEMORY", "ERRORS");
    json_array_foreach((json_t *)(uintptr_t)sessions, i, s)
    {
        size_t at = n;

        if (n == SESSIONS_MAX)
            break;
        for (; at > 0 && comes_before(t, s, sorted[at - 1]); at--)
            sorted[at] = sorted[at - 1];
        sorted[at] = s;
        n++;
    }
    for (i = 0; i < n; i++)
        show_session(t, sorted[i]);
    if (n == 0)
        xi_screen_line(&t->screen, " nothing is loaded: xinfer load PACKAGE");
}

static void show_tenant(struct top *t, const json_t *o)
{
    char a[24];
    struct xi_str line;

    xi_str_init(&line, 4096);
    xi_str_puts(&line, " ");
    add_cell(&line, 20, text_of(o, "name"));
    add_cell(&line, 6, shown(a, value(o, "weight"), "%.0f"));
    add_share(&t->screen, &line, value(o, "share"));
    add_cell(&line, 8, shown(a, value(o, "fps"), "%.1f"));
    add_cell(&line, 3, shown(a, value(o, "running"), "%.0f"));
    add_cell(&line, 5, shown(a, value(o, "queued"), "%.0f"));
    add_cell(&line, 8, shown(a, value(o, "refused"), "%.0f"));
    add_cell(&line, 10, bytes_shown(a, value(o, "memory")));
    add_cell(&line, 10, bytes_shown(a, value(o, "memory_limit")));
    xi_screen_line(&t->screen, "%s", xi_str_text(&line));
    xi_str_fini(&line);
}

static void show_tenants(struct top *t, const json_t *tenants)
{
    size_t i;
    json_t *o;

    if (json_array_size(tenants) == 0)
        return;
    xi_screen_line(&t->screen, "%s", "");
    xi_screen_title(&t->screen, " %-20s %-6s %-18s %-8s %-3s %-5s %-8s %-10s %-10s", "TENANT",
                    "WEIGHT", "DEVICE TIME", "FPS", "RUN", "QUEUE", "REFUSED", "MEMORY", "LIMIT");
    json_array_foreach((json_t *)(uintptr_t)tenants, i, o) show_tenant(t, o);
}

static void show(struct top *t, const json_t *doc)
{
    xi_screen_begin(&t->screen);
    show_head(t, doc);
    show_devices(t, json_object_get(doc, "devices"));
    show_sessions(t, json_object_get(doc, "sessions"));
    show_tenants(t, json_object_get(doc, "tenants"));
    if (t->screen.live)
        xi_screen_line(&t->screen,
                       "\r\n q quit   p pause   order: f fps  l p99  m memory  u queue  n name");
    xi_screen_draw(&t->screen);
}

/* ---- the loop ---- */

/* 1: it is time to go. */
static int on_key(struct top *t, int key)
{
    if (key == 'q' || key == 27 || key == 4)
        return 1;
    if (key == 'p' || key == ' ')
        t->paused = !t->paused;
    for (int i = 0; i < ORDERS; i++)
        if (key == orders[i].key)
            t->order = i;
    return 0;
}

static enum xi_rc find_order(struct top *t, struct xi_err *err)
{
    for (int i = 0; opt_sort != NULL && i < ORDERS; i++) {
        if (strcmp(opt_sort, orders[i].name) == 0) {
            t->order = i;
            return XI_OK;
        }
    }
    if (opt_sort != NULL)
        return xi_fail(err, XI_EUSAGE, "--sort %.20s is none of fps, p99, memory, queue, name",
                       opt_sort);
    return XI_OK;
}

static enum xi_rc watch(struct xi_cli *cli, struct top *t)
{
    long interval = opt_interval > 0 ? opt_interval : 1000;
    long left = opt_count > 0 ? opt_count : t->screen.live || cli->json ? -1 : 1;
    json_t *doc = NULL;
    enum xi_rc rc = XI_OK;

    while (rc == XI_OK && left != 0) {
        if (!t->paused || doc == NULL) {
            json_decref(doc);
            doc = NULL;
            rc = xi_client_json(cli->client, "GET", "/v1/telemetry", NULL, &doc, &cli->err);
        }
        if (rc != XI_OK)
            break;
        if (cli->json)
            xi_print_json(doc);
        else
            show(t, doc);
        if (fflush(stdout) != 0)
            break; /* nobody reads on */
        left -= left > 0;
        int key = left == 0 ? 0 : xi_screen_key(&t->screen, (int)interval);
        if (key != 0 && on_key(t, key))
            break;
    }
    json_decref(doc);
    return rc;
}

static enum xi_rc run_top(struct xi_cli *cli)
{
    struct top t = {0};
    enum xi_rc rc = find_order(&t, &cli->err);

    if (rc == XI_OK)
        rc = xi_cli_connect(cli);
    if (rc != XI_OK)
        return rc;
    if (cli->json)
        return watch(cli, &t);
    xi_screen_open(&t.screen);
    rc = watch(cli, &t);
    xi_screen_close(&t.screen);
    return rc;
}

const struct xi_verb xi_verb_top = {
    .name = "top",
    .usage = "[options]",
    .summary = "watch devices, sessions and tenants live",
    .details =
        "On a terminal: q quits, p pauses, f l m u n order the sessions. Elsewhere it prints\n"
        "one page; with --json an object each interval, until it is ended or --count is\n"
        "reached. A dash is a value that nobody can read here.",
    .examples = "  xinfer top\n"
                "  xinfer top --sort p99 --interval 500\n"
                "  xinfer top --json --count 10 > load.jsonl\n",
    .options = options,
    .run = run_top};
