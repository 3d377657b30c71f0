/* screen.h: a live text page on a terminal: lines are collected, clipped to its width and drawn at
 * once. Where stdout is no terminal, pages follow each other as plain text. Single-threaded. */
#ifndef XI_CLI_SCREEN_H
#define XI_CLI_SCREEN_H

#include <stdint.h>

#include "base/str.h"

struct xi_screen {
    int live;    /* a terminal: own page, keys, colours */
    int unicode; /* bars and sparks of block characters; else of # and digits */
    int color;
    int columns, rows;
    struct xi_str page;
};

/* Takes the terminal over (another page, no echo) when stdout is one; restored by close, also when
 * the process ends by exit or a signal that it could catch. */
void xi_screen_open(struct xi_screen *s);
void xi_screen_close(struct xi_screen *s);
/* Waits up to ms for a key; 0: none came. At the end of input, 'q'. */
int xi_screen_key(struct xi_screen *s, int ms);

void xi_screen_begin(struct xi_screen *s); /* a new page; asks for the terminal's size */
void xi_screen_line(struct xi_screen *s, const char *fmt, ...) XI_PRINTF(2, 3);
/* The same in bold or inverse, where there is colour. */
void xi_screen_title(struct xi_screen *s, const char *fmt, ...) XI_PRINTF(2, 3);
void xi_screen_draw(struct xi_screen *s);

/* A bar of `width` columns, share 0 to 1; NAN is all dots. Appends to out. */
void xi_screen_bar(const struct xi_screen *s, struct xi_str *out, double share, int width);
/* n counts as a row of `width` ≤ 64 small columns. */
void xi_screen_spark(const struct xi_screen *s, struct xi_str *out, const double *counts, int n,
                     int width);
/* text, cut or padded to `width` columns (UTF-8 counted by characters). */
void xi_screen_cell(struct xi_str *out, const char *text, int width);

#endif
