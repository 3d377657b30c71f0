#include "package/crc32.h"

void xi_crc32_init(struct xi_crc32_table *table)
{
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t c = i;
        for (int k = 0; k < 8; k++)
            c = (c >> 1) ^ (c & 1 ? 0xedb88320u : 0);
        table->row[0][i] = c;
    }
    for (size_t r = 1; r < 8; r++)
        for (size_t i = 0; i < 256; i++) {
            uint32_t c = table->row[r - 1][i];
            table->row[r][i] = (c >> 8) ^ table->row[0][c & 255];
        }
}

static uint32_t word(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

uint32_t xi_crc32_add(const struct xi_crc32_table *table, uint32_t crc, const void *data, size_t n)
{
    const uint32_t(*t)[256] = table->row;
    const uint8_t *p = data;

    crc = ~crc;
    for (; n >= 8; n -= 8, p += 8) {
        uint32_t a = word(p) ^ crc, b = word(p + 4);
        crc = t[7][a & 255] ^ t[6][a >> 8 & 255] ^ t[5][a >> 16 & 255] ^ t[4][a >> 24] ^
              t[3][b & 255] ^ t[2][b >> 8 & 255] ^ t[1][b >> 16 & 255] ^ t[0][b >> 24];
    }
    for (; n > 0; n--, p++)
        crc = (crc >> 8) ^ t[0][(crc ^ *p) & 255];
    return ~crc;
}
