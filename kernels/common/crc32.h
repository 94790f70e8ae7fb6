/* The checksum of zlib (RFC 1952): reflected polynomial 0xEDB88320. By bits, since it only ever sees a few kilobytes.
 */
#ifndef EG_CRC32_H
#define EG_CRC32_H

#include <stddef.h>
#include <stdint.h>

/* Of the bytes that gave `crc`, 0 for none, and of those at data. */
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
