#include "daemon/api/pack.h"

#include <string.h>

#include "daemon/api/carrier.h"
#include "daemon/api/connection.h"
#include "wire/deflate.h"

/* Below LEAST the head weighs more than what is saved; ON_LOOP takes about 200 µs; above MOST
 * memory for it would be a client's to spend. */
enum { LEAST = 1024, ON_LOOP = 12 * 1024, MOST = 64 * 1024 * 1024 };

/* Pictures are small already. */
static int shrinks(const char *type)
{
    return strncmp(type, "text/", 5) == 0 || strcmp(type, "application/json") == 0 ||
           strcmp(type, "application/problem+json") == 0 ||
           strcmp(type, "application/octet-stream") == 0;
}

enum xi_coding xi_pack_wanted(const struct xi_exchange *x, const char *type, uint64_t length)
{
    if (length < LEAST || length > MOST || type == NULL || x->n_pieces < 2 || !shrinks(type))
        return XI_CODING_NONE;
    return xi_coding_wanted(xi_http_header(&x->stream, "accept-encoding"));
}

/* Any thread. Nothing packed: it is sent as it is. */
static void pack_work(struct xi_work *w)
{
    struct xi_exchange *x = w->data;
    struct xi_deflate d;
    enum xi_rc rc = xi_deflate_init(&d, x->packing, &x->packed, NULL);

    for (unsigned i = 1; rc == XI_OK && i < x->n_pieces; i++)
        rc = xi_deflate_add(&d, x->pieces[i].base, x->pieces[i].len, i + 1 == x->n_pieces, NULL);
    xi_deflate_fini(&d);
    if (rc != XI_OK)
        xi_str_fini(&x->packed);
}

static void leave(struct xi_exchange *x)
{
    uint64_t length = 0;

    if (x->packed.len > 0) {
        xi_str_printf(&x->extra, "Content-Encoding: %s\r\n", xi_coding_name(x->packing));
        x->n_pieces = 0;
        xi_answer_add(x, x->packed.data, x->packed.len);
    }
    for (unsigned i = 1; i < x->n_pieces; i++)
        length += x->pieces[i].len;
    x->carrier->answer(x, x->packed_type, length);
}

static void packed(struct xi_work *w)
{
    struct xi_exchange *x = w->data;

    x->writing--;
    if (xi_exchange_gone(x))
        (void)xi_exchange_settle(x);
    else
        leave(x);
}

void xi_pack_answer(struct xi_exchange *x, enum xi_coding coding, const char *type, uint64_t length)
{
    x->packing = coding;
    x->packed_type = type;
    x->packed.cap = (size_t)length - 1; /* or it gains nothing */
    x->work.data = x;
    if (length <= ON_LOOP) {
        pack_work(&x->work);
        leave(x);
        return;
    }
    x->writing++; /* a worker reads its memory */
    xi_work_queue(x->server->service->loop, &x->work, pack_work, packed);
}
