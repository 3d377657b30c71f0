#define _GNU_SOURCE
#include "cli/screen.h"

#include <langinfo.h>
#include <locale.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

enum { PAGE_MAX = 1 << 20, COLUMNS = 100, ROWS = 40 };

static struct termios original;
static volatile sig_atomic_t taken; /* the terminal is ours */

static void give_back(void)
{
    static const char leave[] = "\033[?25h\033[?1049l"; /* cursor on, the page that was there */

    if (!taken)
        return;
    taken = 0;
    (void)tcsetattr(STDIN_FILENO, TCSANOW, &original);
    if (write(STDOUT_FILENO, leave, sizeof leave - 1) < 0)
        return;
}

static void on_signal(int number)
{
    give_back();
    (void)signal(number, SIG_DFL);
    (void)raise(number);
}

static void take_over(void)
{
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};
    struct termios raw;

    if (tcgetattr(STDIN_FILENO, &original) != 0)
        return;
    raw = original;
    raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
    (void)tcsetattr(STDIN_FILENO, TCSANOW, &raw);
    taken = 1;
    (void)atexit(give_back);
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
        (void)signal(signals[i], on_signal);
    (void)printf("\033[?1049h\033[?25l");
}

void xi_screen_open(struct xi_screen *s)
{
    const char *no = getenv("NO_COLOR"), *term = getenv("TERM");

    *s = (struct xi_screen){.columns = COLUMNS, .rows = ROWS};
    xi_str_init(&s->page, PAGE_MAX);
    (void)setlocale(LC_CTYPE, "");
    s->unicode = strcmp(nl_langinfo(CODESET), "UTF-8") == 0;
    s->live =
        isatty(STDOUT_FILENO) && isatty(STDIN_FILENO) && term != NULL && strcmp(term, "dumb") != 0;
    s->color = s->live && (no == NULL || *no == '\0');
    if (s->live)
        take_over();
}

void xi_screen_close(struct xi_screen *s)
{
    (void)fflush(stdout);
    give_back();
    xi_str_fini(&s->page);
}

int xi_screen_key(struct xi_screen *s, int ms)
{
    struct pollfd in = {.fd = s->live ? STDIN_FILENO : -1, .events = POLLIN};
    char key = 'q';

    if (poll(&in, 1, ms) <= 0)
        return 0;
    if (read(STDIN_FILENO, &key, 1) != 1)
        return 'q';
    return (unsigned char)key;
}

void xi_screen_begin(struct xi_screen *s)
{
    struct winsize size;

    xi_str_clear(&s->page);
    s->rows = ROWS;
    s->columns = COLUMNS;
    if (s->live && ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col >= 20) {
        s->columns = size.ws_col;
        s->rows = size.ws_row;
    }
}

static int is_begin(char c) /* of a UTF-8 character */
{
    return ((unsigned char)c & 0xc0) != 0x80;
}

/* Bytes of text that fill at most `columns`; *ret_used says how many they fill. */
static size_t clip(const char *text, int columns, int *ret_used)
{
    size_t at = 0;

    *ret_used = 0;
    for (; text[at] != '\0'; at++) {
        if (is_begin(text[at]) && (*ret_used)++ == columns) {
            *ret_used = columns;
            break;
        }
    }
    return at;
}

static void add_line(struct xi_screen *s, const char *style, const char *fmt, va_list ap)
{
    char line[1024];
    int used;

    (void)vsnprintf(line, sizeof line, fmt, ap);
    size_t n = clip(line, s->live ? s->columns : (int)sizeof line, &used);
    if (s->color && style != NULL)
        xi_str_puts(&s->page, style);
    xi_str_add(&s->page, line, n);
    if (s->color && style != NULL)
        xi_str_puts(&s->page, "\033[0m");
    xi_str_puts(&s->page, s->live ? "\033[K\r\n" : "\n");
}

void xi_screen_line(struct xi_screen *s, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    add_line(s, NULL, fmt, ap);
    va_end(ap);
}

void xi_screen_title(struct xi_screen *s, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    add_line(s, "\033[7m", fmt, ap);
    va_end(ap);
}

/* The first rows of what is below the terminal's end would scroll it: they are left out. */
static size_t fitting(const struct xi_screen *s)
{
    const char *text = xi_str_text(&s->page), *end = text;

    if (!s->live)
        return strlen(text);
    for (int row = 0; row + 1 < s->rows && *end != '\0'; row++) {
        const char *newline = strchr(end, '\n');
        end = newline ? newline + 1 : end + strlen(end);
    }
    return (size_t)(end - text);
}

void xi_screen_draw(struct xi_screen *s)
{
    if (s->live)
        (void)printf("\033[H");
    (void)fwrite(xi_str_text(&s->page), 1, fitting(s), stdout);
    if (s->live)
        (void)printf("\033[J");
    (void)fflush(stdout);
}

void xi_screen_bar(const struct xi_screen *s, struct xi_str *out, double share, int width)
{
    int full = isnan(share) ? 0 : (int)lround((share > 1 ? 1 : share) * width);

    for (int i = 0; i < width; i++) {
        if (isnan(share))
            xi_str_puts(out, ".");
        else if (i < full)
            xi_str_puts(out, s->unicode ? "█" : "#");
        else
            xi_str_puts(out, s->unicode ? "░" : "-");
    }
}

void xi_screen_spark(const struct xi_screen *s, struct xi_str *out, const double *counts, int n,
                     int width)
{
    static const char *const blocks[] = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
    double sums[64] = {0}, most = 0;

    width = width > 64 ? 64 : width;
    for (int i = 0; i < n; i++)
        sums[i * width / n] += counts[i];
    for (int i = 0; i < width; i++)
        most = sums[i] > most ? sums[i] : most;
    for (int i = 0; i < width; i++) {
        int level = most > 0 ? (int)ceil(sums[i] / most * 8) : 0;
        char digit[2] = {(char)('0' + level), '\0'};

        xi_str_puts(out, level == 0 ? " " : s->unicode ? blocks[level - 1] : digit);
    }
}

void xi_screen_cell(struct xi_str *out, const char *text, int width)
{
    int used;
    size_t n = clip(text, width, &used);

    xi_str_add(out, text, n);
    for (; used < width; used++)
        xi_str_puts(out, " ");
}
