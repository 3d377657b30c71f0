/* output.c: progress, tables and answers as people read them. */
#define _GNU_SOURCE
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "cli/cli.h"

char *xi_bytes_text(char buf[16], double bytes)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    int u = 0;

    while (bytes >= 1024 && u < 4) {
        bytes /= 1024;
        u++;
    }
    (void)snprintf(buf, 16, u == 0 || bytes >= 100 ? "%.0f %s" : "%.1f %s", bytes, units[u]);
    return buf;
}

char *xi_engine_text(char buf[48], const char *engine)
{
    const char *space = strchr(engine, ' ');
    size_t name = space ? (size_t)(space - engine) + 1 : 0;

    (void)snprintf(buf, 48, "%.*s", (int)(name + strcspn(engine + name, "-+")), engine);
    return buf;
}

/* NO_COLOR counts when it is not empty (no-color.org). */
static int is_pretty(int fd)
{
    const char *no = getenv("NO_COLOR"), *term = getenv("TERM");

    return isatty(fd) && (no == NULL || *no == '\0') && (term == NULL || strcmp(term, "dumb") != 0);
}

struct bar {
    uint64_t started_ms, drawn_ms;
    int visible, full;
};

static struct bar *the_bar(void)
{
    static struct bar bar; /* one terminal, one bar */

    return &bar;
}

/* Is it time to draw? The first line of a bar, and its last, always are. */
static int begin_line(struct bar *bar, uint64_t now, int full)
{
    if (!isatty(STDERR_FILENO))
        return 0;
    if (bar->visible && (bar->full || (now - bar->drawn_ms < 100 && !full)))
        return 0;
    if (!bar->visible)
        bar->started_ms = now;
    bar->drawn_ms = now;
    bar->visible = 1;
    bar->full = full;
    (void)fprintf(stderr, "\r\033[K");
    return 1;
}

void xi_progress(void *label, uint64_t done, uint64_t total)
{
    struct bar *bar = the_bar();
    uint64_t now = xi_now_ms();
    char a[16], b[16], rate[16];
    char fill[25] = "........................";

    if (total == 0 || done > total || !begin_line(bar, now, done == total))
        return;
    memset(fill, '#', (size_t)(done * 24 / total));
    double seconds = (double)(now - bar->started_ms) / 1000.0;
    double speed = seconds > 0.05 ? (double)done / seconds : 0;
    (void)fprintf(stderr, "%s [%s] %s of %s  %s/s", (const char *)label, fill,
                  xi_bytes_text(a, (double)done), xi_bytes_text(b, (double)total),
                  xi_bytes_text(rate, speed));
    if (done == total)
        (void)fprintf(stderr, "  being checked there");
    else if (speed > 0)
        (void)fprintf(stderr, "  %.0f s left", (double)(total - done) / speed);
}

void xi_progress_phase(const char *label, const char *phase, int permille, uint64_t started_ms)
{
    uint64_t now = xi_now_ms();

    if (!begin_line(the_bar(), now, 0))
        return;
    (void)fprintf(stderr, "%.60s: %.40s", label, phase);
    if (permille > 0)
        (void)fprintf(stderr, " %d %%", permille / 10);
    (void)fprintf(stderr, "  %.1f s", (double)(now - started_ms) / 1000.0);
}

void xi_progress_end(void)
{
    struct bar *bar = the_bar();

    if (bar->visible)
        (void)fprintf(stderr, "\r\033[K");
    *bar = (struct bar){0};
}

void xi_note(const struct xi_cli *cli, const char *fmt, ...)
{
    va_list ap;

    xi_progress_end();
    if (cli->quiet || cli->json)
        return;
    (void)fflush(stdout); /* on a terminal both streams are one text */
    va_start(ap, fmt);
    (void)vfprintf(stderr, fmt, ap);
    va_end(ap);
    (void)fprintf(stderr, "\n");
}

struct xi_table {
    int columns;
    size_t n, room;
    char **cells;
};

void xi_table_cell(struct xi_table *t, const char *fmt, ...)
{
    va_list ap;

    if (t == NULL)
        return;
    if (t->n == t->room) {
        size_t room = t->room ? 2 * t->room : 64;
        char **cells = realloc(t->cells, room * sizeof *cells);
        if (cells == NULL)
            return;
        t->cells = cells;
        t->room = room;
    }
    va_start(ap, fmt);
    if (vasprintf(&t->cells[t->n], fmt, ap) < 0)
        t->cells[t->n] = NULL;
    va_end(ap);
    for (char *p = t->cells[t->n]; p != NULL && *p; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            *p = '?'; /* labels and names come from packages: they don't steer the terminal */
    t->n++;
}

struct xi_table *xi_table_new(int columns, const char *const *heads)
{
    struct xi_table *t = calloc(1, sizeof *t);

    if (t == NULL)
        return NULL;
    t->columns = columns;
    for (int i = 0; i < columns; i++)
        xi_table_cell(t, "%s", heads[i]);
    return t;
}

static int columns_of(const char *text)
{
    int n = 0;

    for (; *text; text++)
        n += ((unsigned char)*text & 0xc0) != 0x80; /* UTF-8: one for each first byte */
    return n;
}

static void print_cell(const struct xi_table *t, size_t i, const int *widths, int bold)
{
    int column = (int)(i % (size_t)t->columns), last = column == t->columns - 1;
    const char *text = t->cells[i] ? t->cells[i] : "";

    if (bold)
        (void)printf("\033[1m");
    if (last)
        (void)printf("%s", text);
    else
        (void)printf("%s%*s", text, widths[column] - columns_of(text) + 2, "");
    (void)printf("%s%s", bold ? "\033[0m" : "", last ? "\n" : "");
}

void xi_table_print(struct xi_table *t)
{
    int widths[16] = {0};
    int pretty = is_pretty(STDOUT_FILENO);

    if (t == NULL)
        return;
    for (size_t i = 0; i < t->n; i++) {
        int w = t->cells[i] ? columns_of(t->cells[i]) : 0, column = (int)(i % (size_t)t->columns);
        if (column < 16 && w > widths[column])
            widths[column] = w;
    }
    for (size_t i = 0; i < t->n; i++) {
        print_cell(t, i, widths, pretty && i < (size_t)t->columns);
        free(t->cells[i]);
    }
    free(t->cells);
    free(t);
}

const char *xi_text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));

    return text != NULL ? text : "";
}

void xi_print_json(const json_t *value)
{
    char *text = json_dumps(value, JSON_COMPACT | JSON_REAL_PRECISION(7));

    if (text != NULL)
        (void)puts(text);
    free(text);
}

static void print_detections(const json_t *list)
{
    static const char *const heads[] = {"LABEL", "SCORE", "BOX (x0 y0 x1 y1, pixels)"};
    struct xi_table *t = xi_table_new(3, heads);
    size_t i;
    json_t *d;

    json_array_foreach((json_t *)(uintptr_t)list, i, d)
    {
        const json_t *box = json_object_get(d, "box");
        const char *label = json_string_value(json_object_get(d, "label"));
        xi_table_cell(t, "%s", label ? label : "?");
        xi_table_cell(t, "%.2f", json_number_value(json_object_get(d, "score")));
        xi_table_cell(t, "%4.0f %4.0f %4.0f %4.0f", json_number_value(json_array_get(box, 0)),
                      json_number_value(json_array_get(box, 1)),
                      json_number_value(json_array_get(box, 2)),
                      json_number_value(json_array_get(box, 3)));
    }
    xi_table_print(t);
    if (json_array_size(list) == 0)
        (void)printf("(nothing found)\n");
}

static void print_classes(const json_t *list)
{
    static const char *const heads[] = {"LABEL", "SCORE"};
    struct xi_table *t = xi_table_new(2, heads);
    size_t i;
    json_t *c;

    json_array_foreach((json_t *)(uintptr_t)list, i, c)
    {
        const char *label = json_string_value(json_object_get(c, "label"));
        xi_table_cell(t, "%s", label ? label : "?");
        xi_table_cell(t, "%.3f", json_number_value(json_object_get(c, "score")));
    }
    xi_table_print(t);
}

static void print_tensor(const json_t *tensor)
{
    const json_t *data = json_object_get(tensor, "data");
    size_t n = json_array_size(data), show = n < 8 ? n : 8;
    char *shape = json_dumps(json_object_get(tensor, "shape"), JSON_COMPACT);

    (void)printf("%s  %s %s  [", json_string_value(json_object_get(tensor, "name")),
                 json_string_value(json_object_get(tensor, "datatype")), shape ? shape : "");
    for (size_t i = 0; i < show; i++) {
        const json_t *v = json_array_get(data, i);
        if (json_is_string(v))
            (void)printf(i ? ", %s" : "%s", json_string_value(v));
        else
            (void)printf(i ? ", %g" : "%g", json_number_value(v));
    }
    (void)printf(n > show ? ", … %zu in all]\n" : "]\n", n);
    free(shape);
}

void xi_print_answer(const json_t *answer)
{
    const json_t *outputs = json_object_get(answer, "outputs");
    const json_t *value;
    const char *key;
    size_t i;
    json_t *item;

    if (json_is_array(outputs)) {
        json_array_foreach((json_t *)(uintptr_t)outputs, i, item) print_tensor(item);
        return;
    }
    json_object_foreach((json_t *)(uintptr_t)outputs, key, item)
    {
        value = item;
        if (strcmp(key, "detections") == 0)
            print_detections(value);
        else if (strcmp(key, "classes") == 0)
            print_classes(value);
        else {
            char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
            (void)printf("%s: %s\n", key, text ? text : "");
            free(text);
        }
    }
}
