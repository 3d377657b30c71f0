#include "flow/jpeg_encode.h"

#include <setjmp.h>
#include <stdio.h>
#include <string.h>

#include <jpeglib.h>

enum { CHUNK = 64 * 1024 };

struct encoder {
    struct jpeg_compress_struct enc;
    struct jpeg_error_mgr errors;
    struct jpeg_destination_mgr target;
    jmp_buf jump;
    char words[JMSG_LENGTH_MAX];
    const uint8_t *pixels;
    uint32_t width, height;
    int quality;
    struct xi_str *out;
};

static void on_error(j_common_ptr common)
{
    struct encoder *e = common->client_data;

    common->err->format_message(common, e->words);
    longjmp(e->jump, 1);
}

static void on_message(j_common_ptr common, int level)
{
    (void)common;
    (void)level;
}

static void next_chunk(struct encoder *e)
{
    e->target.next_output_byte = (JOCTET *)xi_str_reserve(e->out, CHUNK);
    e->target.free_in_buffer = CHUNK;
    if (e->target.next_output_byte == NULL) {
        (void)snprintf(e->words, sizeof e->words, "the result does not fit");
        longjmp(e->jump, 1);
    }
}

static void target_begin(j_compress_ptr enc)
{
    next_chunk(enc->client_data);
}

static boolean target_full(j_compress_ptr enc)
{
    struct encoder *e = enc->client_data;

    e->out->len += CHUNK;
    next_chunk(e);
    return TRUE;
}

static void target_end(j_compress_ptr enc)
{
    struct encoder *e = enc->client_data;

    e->out->len += CHUNK - e->target.free_in_buffer;
    e->out->data[e->out->len] = '\0';
}

static void write_picture(struct encoder *e)
{
    jpeg_create_compress(&e->enc);
    e->enc.client_data = e;
    e->enc.dest = &e->target;
    e->enc.image_width = e->width;
    e->enc.image_height = e->height;
    e->enc.input_components = 3;
    e->enc.in_color_space = JCS_RGB;
    jpeg_set_defaults(&e->enc);
    jpeg_set_quality(&e->enc, e->quality, TRUE);
    e->enc.comp_info[0].h_samp_factor = 1;
    e->enc.comp_info[0].v_samp_factor = 1;
    jpeg_start_compress(&e->enc, TRUE);
    while (e->enc.next_scanline < e->height) {
        const uint8_t *at = e->pixels + 3 * (size_t)e->width * e->enc.next_scanline;
        JSAMPROW row = (JSAMPROW)(uintptr_t)at;
        (void)jpeg_write_scanlines(&e->enc, &row, 1);
    }
    jpeg_finish_compress(&e->enc);
}

/* Apart, so that no local lives across the jump. */
static int encode(struct encoder *e)
{
    if (setjmp(e->jump) != 0)
        return -1;
    write_picture(e);
    return 0;
}

enum xi_rc xi_jpeg_encode(const uint8_t *pixels, uint32_t width, uint32_t height, int quality,
                          struct xi_str *ret, struct xi_err *err)
{
    struct encoder e = {
        .pixels = pixels, .width = width, .height = height, .quality = quality, .out = ret};
    enum xi_rc rc = XI_OK;

    e.enc.err = jpeg_std_error(&e.errors);
    e.errors.error_exit = on_error;
    e.errors.emit_message = on_message;
    e.enc.client_data = &e;
    e.target.init_destination = target_begin;
    e.target.empty_output_buffer = target_full;
    e.target.term_destination = target_end;
    if (encode(&e) != 0)
        rc = xi_fail(err, ret->failed ? XI_ETOOBIG : XI_ENOMEM,
                     "the drawn picture of %u x %u cannot be encoded: %s", width, height, e.words);
    jpeg_destroy_compress(&e.enc);
    return rc;
}
