/* font.h: a stroke font of our own for labels: printable ASCII as lines on a grid, drawn with a
 * round pen, so it is sharp at any size.
 *
 * The grid: capitals stand from y = 0 (top) to 6 (base line), x-height is 2, descenders reach 8.
 * A glyph is up to XI_GLYPH_STROKES strings of digit pairs "xy", each a line through its points. */
#ifndef XI_FLOW_FONT_H
#define XI_FLOW_FONT_H

enum { XI_FONT_CAPITAL = 6, XI_FONT_DESCENT = 2, XI_FONT_GAP = 2 };

struct xi_glyph {
    int width;           /* of the strokes; a gap follows */
    const char *strokes; /* "xyxyxy xyxy" */
};

/* Of the character; another one (a small box) for what is not printable ASCII. */
const struct xi_glyph *xi_font_glyph(unsigned code);

#endif
