#include "common/crc32.h"

uint32_t eg_crc32(uint32_t crc, const void *data, size_t bytes)
{
    crc = ~crc;
    for (const unsigned char *at = data, *const end = at + bytes; at < end; at++) {
        crc ^= *at;
        for (int bit = 0; bit < 8; bit++) {
            crc = crc >> 1 ^ (0xEDB88320u & (0u - (crc & 1u)));
        }
    }
    return ~crc;
}
