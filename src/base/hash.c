#include "base/hash.h"

#include <errno.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

struct xi_sha256 {
    EVP_MD_CTX *ctx;
};

struct xi_sha256 *xi_sha256_new(void)
{
    struct xi_sha256 *h = calloc(1, sizeof *h);

    if (h == NULL)
        return NULL;
    h->ctx = EVP_MD_CTX_new();
    if (h->ctx == NULL || EVP_DigestInit_ex(h->ctx, EVP_sha256(), NULL) != 1) {
        xi_sha256_free(h);
        return NULL;
    }
    return h;
}

void xi_sha256_free(struct xi_sha256 *h)
{
    if (h == NULL)
        return;
    EVP_MD_CTX_free(h->ctx);
    free(h);
}

void xi_sha256_add(struct xi_sha256 *h, const void *data, size_t n)
{
    XI_ASSERT(EVP_DigestUpdate(h->ctx, data, n) == 1);
}

void xi_sha256_end(struct xi_sha256 *h, struct xi_digest *ret)
{
    unsigned n = 0;

    XI_ASSERT(EVP_DigestFinal_ex(h->ctx, ret->bytes, &n) == 1 && n == sizeof ret->bytes);
    XI_ASSERT(EVP_DigestInit_ex(h->ctx, EVP_sha256(), NULL) == 1);
}

void xi_sha256(const void *data, size_t n, struct xi_digest *ret)
{
    unsigned got = 0;

    XI_ASSERT(EVP_Digest(data, n, ret->bytes, &got, EVP_sha256(), NULL) == 1);
}

enum xi_rc xi_sha256_fd(int fd, struct xi_digest *ret, uint64_t *ret_bytes, struct xi_err *err)
{
    enum { CHUNK = 1 << 18 };
    enum xi_rc rc = XI_OK;
    struct xi_sha256 *h = xi_sha256_new();
    unsigned char *chunk = malloc(CHUNK);
    uint64_t total = 0;

    if (h == NULL || chunk == NULL) {
        rc = xi_fail(err, XI_ENOMEM, "hashing: out of memory");
        goto out;
    }
    for (;;) {
        ssize_t n = read(fd, chunk, CHUNK);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            rc = xi_fail(err, XI_EIO, "hashing: %s", strerror(errno));
            goto out;
        }
        if (n == 0)
            break;
        xi_sha256_add(h, chunk, (size_t)n);
        total += (uint64_t)n;
    }
    xi_sha256_end(h, ret);
    if (ret_bytes != NULL)
        *ret_bytes = total;
out:
    free(chunk);
    xi_sha256_free(h);
    return rc;
}

static const char hex_digits[] = "0123456789abcdef";

void xi_digest_text(const struct xi_digest *d, char ret[XI_DIGEST_HEX + 1])
{
    for (size_t i = 0; i < sizeof d->bytes; i++) {
        ret[2 * i] = hex_digits[d->bytes[i] >> 4];
        ret[2 * i + 1] = hex_digits[d->bytes[i] & 15];
    }
    ret[XI_DIGEST_HEX] = '\0';
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return -1;
}

int xi_digest_parse(const char *hex, struct xi_digest *ret)
{
    if (strlen(hex) != XI_DIGEST_HEX)
        return -1;
    for (size_t i = 0; i < sizeof ret->bytes; i++) {
        int hi = hex_value(hex[2 * i]), lo = hex_value(hex[2 * i + 1]);
        if (hi < 0 || lo < 0)
            return -1;
        ret->bytes[i] = (uint8_t)(hi << 4 | lo);
    }
    return 0;
}

int xi_digest_equal(const struct xi_digest *a, const struct xi_digest *b)
{
    return memcmp(a->bytes, b->bytes, sizeof a->bytes) == 0;
}

void xi_random(void *dst, size_t n)
{
    unsigned char *p = dst;

    while (n > 0) {
        ssize_t got = getrandom(p, n, 0);
        if (got < 0 && errno == EINTR)
            continue;
        XI_ASSERT(got > 0);
        p += got;
        n -= (size_t)got;
    }
}

void xi_uuid_new(char ret[XI_UUID_TEXT + 1])
{
    uint8_t b[16];

    xi_random(b, sizeof b);
    b[6] = (uint8_t)((b[6] & 0x0f) | 0x40);
    b[8] = (uint8_t)((b[8] & 0x3f) | 0x80);
    char *p = ret;
    for (size_t i = 0; i < sizeof b; i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10)
            *p++ = '-';
        *p++ = hex_digits[b[i] >> 4];
        *p++ = hex_digits[b[i] & 15];
    }
    *p = '\0';
}

int xi_uuid_valid(const char *text)
{
    for (int i = 0; i < XI_UUID_TEXT; i++) {
        int dash = i == 8 || i == 13 || i == 18 || i == 23;
        if (dash ? text[i] != '-' : hex_value(text[i]) < 0)
            return 0;
    }
    return text[XI_UUID_TEXT] == '\0';
}
