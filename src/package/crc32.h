/* crc32.h: the CRC-32 of ZIP (ISO-HDLC, polynomial 0xEDB88320), eight bytes a step ("slicing by
 * 8", Kounavis and Berry 2005). Any thread; a table is constant after init. */
#ifndef XI_PACKAGE_CRC32_H
#define XI_PACKAGE_CRC32_H

#include <stddef.h>
#include <stdint.h>

struct xi_crc32_table {
    uint32_t row[8][256];
};

void xi_crc32_init(struct xi_crc32_table *table);
/* Start with crc 0; feed pieces in order. */
uint32_t xi_crc32_add(const struct xi_crc32_table *table, uint32_t crc, const void *data, size_t n);

#endif
