/* The checksum of zlib (RFC 1952): reflected polynomial 0xEDB88320. Bit by bit, as it only reads a few kilobytes. */
#ifndef EG_CRC32_H
#define EG_CRC32_H

#include <stddef.h>
#include <stdint.h>

/* Continues the checksum `crc`, which begins as 0, with the bytes at data. */
static inline uint32_t eg_crc32(uint32_t crc, const void *data, size_t bytes)
{
    const unsigned char *byte = data;
    crc = ~crc;
    for (size_t i = 0; i < bytes; i++) {
        crc ^= byte[i];
        for (int bit = 0; bit < 8; bit++) {
            crc = crc >> 1 ^ (0xEDB88320u & (0u - (crc & 1u)));
        }
    }
    return ~crc;
}

#endif
