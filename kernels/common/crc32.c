/* Eight bytes at a time, by tables of what each byte of the eight adds: M. Kounavis and F. Berry, "A systematic
 * approach to building high performance software-based CRC generators", ISCC 2005. */
#include "common/crc32.h"

#include <string.h>

enum { SLICES = 8, FEW_BYTES = 4096 /* take less time bit by bit than tables do to be made */ };

/* The checksum of one more byte, bit by bit. */
static uint32_t add_byte(uint32_t crc, unsigned char byte)
{
    crc ^= byte;
    for (int bit = 0; bit < 8; bit++) {
        crc = crc >> 1 ^ (0xEDB88320u & (0u - (crc & 1u)));
    }
    return crc;
}

/* tables[i][b]: what byte b adds when i bytes follow it. */
static void make_tables(uint32_t tables[SLICES][256])
{
    for (unsigned byte = 0; byte < 256; byte++) {
        tables[0][byte] = add_byte(0, (unsigned char)byte);
    }
    for (int i = 1; i < SLICES; i++) {
        for (unsigned byte = 0; byte < 256; byte++) {
            const uint32_t crc = tables[i - 1][byte];
            tables[i][byte] = crc >> 8 ^ tables[0][crc & 0xFF];
        }
    }
}

uint32_t eg_crc32(uint32_t crc, const void *data, size_t bytes)
{
    const unsigned char *at = data, *const end = at + bytes;
    crc = ~crc;
    if (bytes > FEW_BYTES) {
        uint32_t tables[SLICES][256];
        make_tables(tables);
        for (; end - at >= SLICES; at += SLICES) {
            uint32_t first, second;
            memcpy(&first, at, sizeof first);
            memcpy(&second, at + sizeof first, sizeof second);
            first ^= crc;
            crc = tables[7][first & 0xFF] ^ tables[6][first >> 8 & 0xFF] ^ tables[5][first >> 16 & 0xFF] ^
                  tables[4][first >> 24] ^ tables[3][second & 0xFF] ^ tables[2][second >> 8 & 0xFF] ^
                  tables[1][second >> 16 & 0xFF] ^ tables[0][second >> 24];
        }
    }
    for (; at < end; at++) {
        crc = add_byte(crc, *at);
    }
    return ~crc;
}
