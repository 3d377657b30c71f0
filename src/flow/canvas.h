/* canvas.h: rectangles and text onto RGB pixels. Everything is clipped. */
#ifndef XI_FLOW_CANVAS_H
#define XI_FLOW_CANVAS_H

#include <stdint.h>

struct xi_canvas {
    uint8_t *pixels; /* width × height × RGB */
    int width, height;
};

struct xi_colour {
    uint8_t r, g, b;
};

/* [x0, x1) × [y0, y1); opacity 0 to 255. */
void xi_canvas_fill(struct xi_canvas *c, int x0, int y0, int x1, int y1, struct xi_colour colour,
                    int opacity);
/* An outline `line` pixels thick, inside the rectangle. */
void xi_canvas_frame(struct xi_canvas *c, int x0, int y0, int x1, int y1, int line,
                     struct xi_colour colour, int opacity);
/* `capital` is the height of capitals in pixels. UTF-8; the base line is at y. */
void xi_canvas_text(struct xi_canvas *c, double x, double y, double capital, const char *text,
                    struct xi_colour colour);
double xi_canvas_text_width(const char *text, double capital);

#endif
