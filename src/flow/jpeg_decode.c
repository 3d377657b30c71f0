/* JPEG by libjpeg-turbo. Its errors come back by longjmp, so each stage that can fail runs in
 * `guarded`, and whatever must survive lives in struct xi_jpeg. */
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jerror.h>
#include <jpeglib.h>

#include "flow/image_decode.h"

enum { ROWS_AT_ONCE = 16, SCANS_MAX = 200 };

struct xi_jpeg {
    struct jpeg_decompress_struct dec;
    struct jpeg_error_mgr errors;
    struct jpeg_source_mgr source;
    struct jpeg_progress_mgr progress;
    jmp_buf jump;
    size_t bytes;
    int cut; /* the data ended too early */
    char words[JMSG_LENGTH_MAX];
    uint8_t *pixels;         /* of the read at hand */
    struct xi_flow_buf cmyk; /* one row */
    int created;
};

static struct xi_jpeg *of(j_common_ptr common)
{
    return common->client_data;
}

static void on_error(j_common_ptr common)
{
    struct xi_jpeg *j = of(common);

    common->err->format_message(common, j->words);
    longjmp(j->jump, 1);
}

/* Warnings that mean lost pixels end the decoding; a camera's sloppiness does not. */
static void on_message(j_common_ptr common, int level)
{
    int code = common->err->msg_code;

    if (level < 0 &&
        (code == JWRN_HIT_MARKER || code == JWRN_HUFF_BAD_CODE || code == JWRN_JPEG_EOF))
        on_error(common);
}

static void on_progress(j_common_ptr common)
{
    struct xi_jpeg *j = of(common);

    if (j->dec.input_scan_number <= SCANS_MAX)
        return;
    (void)snprintf(j->words, sizeof j->words, "over %d scans", SCANS_MAX);
    longjmp(j->jump, 1);
}

static void source_nothing(j_decompress_ptr dec)
{
    (void)dec;
}

static boolean source_ended(j_decompress_ptr dec)
{
    struct xi_jpeg *j = of((j_common_ptr)dec);

    j->cut = 1;
    longjmp(j->jump, 1);
}

static void source_skip(j_decompress_ptr dec, long n)
{
    if (n <= 0)
        return;
    if ((size_t)n > dec->src->bytes_in_buffer)
        (void)source_ended(dec);
    dec->src->next_input_byte += n;
    dec->src->bytes_in_buffer -= (size_t)n;
}

static int guarded(struct xi_jpeg *j, void (*stage)(struct xi_jpeg *j))
{
    if (setjmp(j->jump) != 0)
        return -1;
    stage(j);
    return 0;
}

static void stage_create(struct xi_jpeg *j)
{
    jpeg_create_decompress(&j->dec);
    j->dec.client_data = j;
    j->dec.src = &j->source;
    j->dec.progress = &j->progress;
}

static void stage_head(struct xi_jpeg *j)
{
    (void)jpeg_read_header(&j->dec, TRUE);
}

/* CMYK as Adobe stores it is inverted. */
static void cmyk_row(const uint8_t *src, uint8_t *dst, uint32_t columns, int inverted)
{
    uint8_t flip = inverted ? 0 : 255;

    for (uint32_t x = 0; x < columns; x++, src += 4, dst += 3) {
        uint32_t k = src[3] ^ flip;
        for (int c = 0; c < 3; c++) {
            uint32_t v = (uint32_t)(src[c] ^ flip) * k + 128;
            dst[c] = (uint8_t)((v + (v >> 8)) >> 8);
        }
    }
}

static void read_rows(struct xi_jpeg *j)
{
    size_t row_bytes = (size_t)j->dec.output_width * 3;
    JSAMPROW rows[ROWS_AT_ONCE];

    while (j->dec.output_scanline < j->dec.output_height) {
        uint32_t left = j->dec.output_height - j->dec.output_scanline;
        uint32_t n = left < ROWS_AT_ONCE ? left : ROWS_AT_ONCE;
        for (uint32_t i = 0; i < n; i++)
            rows[i] = j->pixels + (j->dec.output_scanline + i) * row_bytes;
        (void)jpeg_read_scanlines(&j->dec, rows, n);
    }
}

static void read_cmyk_rows(struct xi_jpeg *j)
{
    size_t row_bytes = (size_t)j->dec.output_width * 3;
    JSAMPROW row = j->cmyk.data;

    while (j->dec.output_scanline < j->dec.output_height) {
        uint8_t *dst = j->pixels + j->dec.output_scanline * row_bytes;
        (void)jpeg_read_scanlines(&j->dec, &row, 1);
        cmyk_row(row, dst, j->dec.output_width, j->dec.saw_Adobe_marker);
    }
}

static void stage_read(struct xi_jpeg *j)
{
    (void)jpeg_start_decompress(&j->dec);
    if (j->dec.out_color_space == JCS_CMYK)
        read_cmyk_rows(j);
    else
        read_rows(j);
    (void)jpeg_finish_decompress(&j->dec);
}

/* After a stage failed: what to tell, and back to a state that can decode the next picture. */
static enum xi_rc failed(struct xi_jpeg *j, struct xi_err *err)
{
    int code = j->dec.err->msg_code, cut = j->cut;

    jpeg_abort_decompress(&j->dec);
    if (cut)
        return xi_fail(err, XI_EIMAGE, "the JPEG picture is cut off: its %zu bytes end too early",
                       j->bytes);
    if (code == JERR_OUT_OF_MEMORY)
        return xi_fail(err, XI_ENOMEM, "no memory to decode the JPEG picture");
    return xi_fail(err, XI_EIMAGE, "the JPEG picture is broken: %s", j->words);
}

struct xi_jpeg *xi_jpeg_new(void)
{
    struct xi_jpeg *j = calloc(1, sizeof *j);

    if (j == NULL)
        return NULL;
    j->dec.err = jpeg_std_error(&j->errors);
    j->errors.error_exit = on_error;
    j->errors.emit_message = on_message;
    j->progress.progress_monitor = on_progress;
    j->source.init_source = j->source.term_source = source_nothing;
    j->source.fill_input_buffer = source_ended;
    j->source.skip_input_data = source_skip;
    j->source.resync_to_restart = jpeg_resync_to_restart;
    j->dec.client_data = j; /* an error while creating finds us, too */
    j->created = guarded(j, stage_create) == 0;
    if (!j->created) {
        xi_jpeg_free(j);
        return NULL;
    }
    return j;
}

void xi_jpeg_free(struct xi_jpeg *j)
{
    if (j == NULL)
        return;
    if (j->created)
        jpeg_destroy_decompress(&j->dec);
    free(j->cmyk.data);
    free(j);
}

enum xi_rc xi_jpeg_open(struct xi_jpeg *j, const uint8_t *bytes, size_t n, uint32_t *ret_width,
                        uint32_t *ret_height, struct xi_err *err)
{
    jpeg_abort_decompress(&j->dec); /* an open that nobody read */
    j->source.next_input_byte = bytes;
    j->source.bytes_in_buffer = n;
    j->bytes = n;
    j->cut = 0;
    j->errors.msg_code = 0;
    if (guarded(j, stage_head) != 0)
        return failed(j, err);
    int four = j->dec.jpeg_color_space == JCS_CMYK || j->dec.jpeg_color_space == JCS_YCCK;
    j->dec.out_color_space = four ? JCS_CMYK : JCS_RGB;
    *ret_width = j->dec.image_width;
    *ret_height = j->dec.image_height;
    return XI_OK;
}

void xi_jpeg_scaled(struct xi_jpeg *j, uint32_t denominator, uint32_t *ret_columns,
                    uint32_t *ret_rows)
{
    j->dec.scale_num = 1;
    j->dec.scale_denom = denominator;
    jpeg_calc_output_dimensions(&j->dec);
    *ret_columns = j->dec.output_width;
    *ret_rows = j->dec.output_height;
}

enum xi_rc xi_jpeg_read(struct xi_jpeg *j, uint8_t *pixels, struct xi_err *err)
{
    if (j->dec.out_color_space == JCS_CMYK) {
        enum xi_rc rc = xi_flow_need(&j->cmyk, (uint64_t)j->dec.output_width * 4, err);
        if (rc != XI_OK)
            return rc;
    }
    j->pixels = pixels;
    return guarded(j, stage_read) == 0 ? XI_OK : failed(j, err);
}
