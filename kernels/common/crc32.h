/* The checksum of zlib (RFC 1952): reflected polynomial 0xEDB88320. */
#ifndef EG_CRC32_H
#define EG_CRC32_H

#include <stddef.h>
#include <stdint.h>

/* Continues the checksum `crc`, which begins as 0, with the bytes at data. */
uint32_t eg_crc32(uint32_t crc, const void *data, size_t bytes);

#endif
