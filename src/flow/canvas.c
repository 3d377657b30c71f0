#include "flow/canvas.h"

#include <math.h>
#include <stddef.h>

#include "flow/font.h"

static void blend(uint8_t *p, struct xi_colour c, int opacity)
{
    p[0] = (uint8_t)((p[0] * (255 - opacity) + c.r * opacity + 127) / 255);
    p[1] = (uint8_t)((p[1] * (255 - opacity) + c.g * opacity + 127) / 255);
    p[2] = (uint8_t)((p[2] * (255 - opacity) + c.b * opacity + 127) / 255);
}

static int between(int v, int low, int high)
{
    return v < low ? low : v > high ? high : v;
}

static uint8_t *pixel(const struct xi_canvas *c, int x, int y)
{
    return c->pixels + 3 * ((size_t)y * (size_t)c->width + (size_t)x);
}

void xi_canvas_fill(struct xi_canvas *c, int x0, int y0, int x1, int y1, struct xi_colour colour,
                    int opacity)
{
    x0 = between(x0, 0, c->width);
    x1 = between(x1, 0, c->width);
    y0 = between(y0, 0, c->height);
    y1 = between(y1, 0, c->height);
    for (int y = y0; y < y1; y++)
        for (int x = x0; x < x1; x++)
            blend(pixel(c, x, y), colour, opacity);
}

void xi_canvas_frame(struct xi_canvas *c, int x0, int y0, int x1, int y1, int line,
                     struct xi_colour colour, int opacity)
{
    if (x1 - x0 <= 2 * line || y1 - y0 <= 2 * line) {
        xi_canvas_fill(c, x0, y0, x1, y1, colour, opacity);
        return;
    }
    xi_canvas_fill(c, x0, y0, x1, y0 + line, colour, opacity);
    xi_canvas_fill(c, x0, y1 - line, x1, y1, colour, opacity);
    xi_canvas_fill(c, x0, y0 + line, x0 + line, y1 - line, colour, opacity);
    xi_canvas_fill(c, x1 - line, y0 + line, x1, y1 - line, colour, opacity);
}

/* The next character of UTF-8; only its first byte matters for the font. */
static const struct xi_glyph *next_glyph(const char **text)
{
    unsigned char first = (unsigned char)*(*text)++;

    while (((unsigned char)**text & 0xc0) == 0x80)
        (*text)++;
    return xi_font_glyph(first);
}

double xi_canvas_text_width(const char *text, double capital)
{
    int units = 0;

    while (*text)
        units += next_glyph(&text)->width + XI_FONT_GAP;
    return units > 0 ? (units - XI_FONT_GAP) * capital / XI_FONT_CAPITAL : 0;
}

struct point {
    double x, y;
};

static double distance(struct point p, struct point a, struct point b)
{
    double dx = b.x - a.x, dy = b.y - a.y, length = dx * dx + dy * dy;
    double t = length > 0 ? ((p.x - a.x) * dx + (p.y - a.y) * dy) / length : 0;

    t = fmin(fmax(t, 0), 1);
    return hypot(p.x - a.x - t * dx, p.y - a.y - t * dy);
}

/* How far the point (in units of the grid) is from the nearest stroke. */
static double ink_distance(const char *strokes, struct point p)
{
    double nearest = 1e9;
    int has_last = 0;
    struct point last = {0, 0};

    for (const char *s = strokes; *s;) {
        if (*s == ' ') {
            has_last = 0;
            s++;
            continue;
        }
        struct point here = {s[0] - '0', s[1] - '0'};
        nearest = fmin(nearest, distance(p, has_last ? last : here, here));
        last = here;
        has_last = 1;
        s += 2;
    }
    return nearest;
}

/* Coverage falls from full to none over one pixel at the pen's edge: smooth at any size. */
static void draw_glyph(struct xi_canvas *c, const struct xi_glyph *g, double x, double y,
                       double unit, struct xi_colour colour)
{
    double pen = fmax(0.42 * unit, 0.6), top = y - XI_FONT_CAPITAL * unit;
    int x0 = between((int)floor(x - pen - 1), 0, c->width);
    int x1 = between((int)ceil(x + g->width * unit + pen + 1), 0, c->width);
    int y0 = between((int)floor(top - pen - 1), 0, c->height);
    int y1 = between((int)ceil(y + XI_FONT_DESCENT * unit + pen + 1), 0, c->height);

    for (int py = y0; py < y1; py++)
        for (int px = x0; px < x1; px++) {
            struct point p = {(px + 0.5 - x) / unit, (py + 0.5 - top) / unit};
            double cover = pen - ink_distance(g->strokes, p) * unit + 0.5;
            if (cover > 0)
                blend(pixel(c, px, py), colour, cover >= 1 ? 255 : (int)(cover * 255));
        }
}

void xi_canvas_text(struct xi_canvas *c, double x, double y, double capital, const char *text,
                    struct xi_colour colour)
{
    double unit = capital / XI_FONT_CAPITAL;

    while (*text && x < c->width) {
        const struct xi_glyph *g = next_glyph(&text);
        draw_glyph(c, g, x, y, unit, colour);
        x += (g->width + XI_FONT_GAP) * unit;
    }
}
