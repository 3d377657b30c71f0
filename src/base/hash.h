/* hash.h: SHA-256 (FIPS 180-4) by libcrypto, and random ids. Any thread; a hash belongs to one. */
#ifndef XI_BASE_HASH_H
#define XI_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

#include "base/limits.h"
#include "base/status.h"

struct xi_sha256; /* opaque */

struct xi_digest {
    uint8_t bytes[32];
};

struct xi_sha256 *xi_sha256_new(void); /* NULL when memory is out */
void xi_sha256_free(struct xi_sha256 *h);
void xi_sha256_add(struct xi_sha256 *h, const void *data, size_t n);
void xi_sha256_end(struct xi_sha256 *h, struct xi_digest *ret); /* h may be freed or started anew */
/* In one go. */
void xi_sha256(const void *data, size_t n, struct xi_digest *ret);
/* From the file's current position to its end. */
enum xi_rc xi_sha256_fd(int fd, struct xi_digest *ret, uint64_t *ret_bytes,
                        struct xi_err *err) XI_MUST_CHECK;

void xi_digest_text(const struct xi_digest *d, char ret[XI_DIGEST_HEX + 1]);
int xi_digest_parse(const char *hex, struct xi_digest *ret); /* 0 on success: 64 lower-case hex */
int xi_digest_equal(const struct xi_digest *a, const struct xi_digest *b);

/* A random (version 4) UUID, and cryptographic random bytes; abort when the kernel has none. */
void xi_uuid_new(char ret[XI_UUID_TEXT + 1]);
int xi_uuid_valid(const char *text); /* 1: lower-case 8-4-4-4-12 hex */
void xi_random(void *dst, size_t n);

#endif
